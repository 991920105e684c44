/* SPDX-License-Identifier: MIT */
/* percpu: what each processor has for itself, found through GS. */
/*
 * Owns     the table from a processor's number to what it has.
 *
 * Idea     Code that runs on every processor must find its own data before it
 *          can take a lock or print a line. The base of GS is a register of
 *          the processor, set once; no instruction here ever changes it.
 *
 * Locking  The table is written while one CPU runs. What a further CPU has is
 *          never freed: should one that was left out still come, it halts on
 *          its own stack. And the heap has a pointer there (slab_cpu_init()).
 */
#include "kernel/percpu.h"

#include <mm/kmalloc.h>
#include <mm/kmap.h>
#include "kernel/lib/format.h"

static struct percpu first;
static struct percpu *table[MM_MAX_CPUS] = {&first};

void percpu_init(void)
{
    first.self = &first;
    first.apic_id = cpu_apic_id();
    for (unsigned i = 0; i < STACK_COUNT; i++) {
        first.stack_end[i] = image_stack_end((enum image_stack)i);
    }
    slab_cpu_init(0, first.heap);
    atomic_init(&first.state, PERCPU_ONLINE);
    percpu_load(&first);
}

struct percpu *percpu_of(unsigned index)
{
    return index < MM_MAX_CPUS ? table[index] : NULL;
}

static bool make_stacks(struct percpu *cpu)
{
    for (unsigned i = 0; i < STACK_COUNT; i++) {
        ksnprintf(cpu->stack_name[i], PERCPU_STACK_NAME_MAX, "cpu %u %s",
                  cpu->index, image_stack_name((enum image_stack)i));
        cpu->stack[i] = kmap_stack(STACK_BYTES, cpu->stack_name[i]);
        if (cpu->stack[i] == NULL) {
            return false;
        }
        cpu->stack_end[i] = (vaddr_t)cpu->stack[i] + STACK_BYTES;
    }
    return true;
}

static void free_stacks(struct percpu *cpu)
{
    for (unsigned i = 0; i < STACK_COUNT; i++) {
        kmap_free(cpu->stack[i]);
    }
}

struct percpu *percpu_create(unsigned index, uint32_t apic_id)
{
    struct percpu *cpu = kzalloc(sizeof(*cpu));

    if (cpu == NULL) {
        return NULL;
    }
    cpu->self = cpu;
    cpu->index = index;
    cpu->apic_id = apic_id;
    if (!make_stacks(cpu)) {
        free_stacks(cpu);
        kfree(cpu);
        return NULL;
    }
    slab_cpu_init(index, cpu->heap);
    table[index] = cpu;
    return cpu;
}
