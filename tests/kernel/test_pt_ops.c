/* SPDX-License-Identifier: MIT */
/* Operations on page tables beside a naive model, on the real MMU. */
#include "tests/shared/test.h"

#include <mm/fault.h>
#include <mm/frame.h>
#include <mm/port.h>
#include "kernel/cpu.h"
#include "kernel/fixup.h"
#include "kernel/smp.h"
#include "kernel/trap.h"
#include "tests/kernel/crew.h"
#include "tests/shared/figures.h"
#include "tests/shared/pt_ops.h"
#include "tests/shared/text.h"

/*
 * At risk: what the simulated MMU gets wrong, too, because whoever wrote it
 * believed the same. So the operations of the host's model test run here; each
 * access is a probe, by one CPU after the other, so that each has something
 * cached that others take away. Pages are touched by ring 0: those of user
 * mode are refused if the processor has SMAP and SMEP. A frame says in its
 * first word which it is, and executes as a function that returns.
 */

/* As many sequences, from seeds in a row, of so many operations. */
#define SEEDS      3
#define OPERATIONS 768

static struct pt space[PT_SPACES];
static struct pt_ops ops;
static uint8_t bytes[OPERATIONS * PT_OP_BYTES];

/* --- accesses ------------------------------------------------------------- */

struct visit {
    vaddr_t address;
    unsigned access;
    struct pt_sight *sight;
    enum walk_verdict verdict;
};

static enum walk_verdict verdict_of(const struct probe *probe)
{
    if (probe->vector != TRAP_PAGE || (probe->error & FAULT_RSVD) != 0) {
        return WALK_RESERVED_BIT;
    }
    return probe->error & FAULT_P ? WALK_READ_ONLY : WALK_NOT_PRESENT;
}

static bool probe_page(const struct visit *visit, struct probe *probe)
{
    if (visit->access & WALK_EXEC) {
        uint64_t code = visit->sight->has_memory ? sizeof(uint64_t) : 0;
        return probe_exec((const void *)(visit->address + code), probe);
    }
    if (visit->access & WALK_WRITE) {
        return probe_write64((void *)visit->address, visit->sight->word, probe);
    }
    return probe_read64((const void *)visit->address, probe);
}

static void make_visit(void *argument)
{
    struct visit *visit = argument;
    struct probe probe;

    tlb_switch(visit->sight->space);
    if (!probe_page(visit, &probe)) {
        visit->verdict = verdict_of(&probe);
        return;
    }
    visit->verdict = WALK_ALLOWED;
    if (visit->access == WALK_READ) {
        visit->sight->word = probe.value;
    }
}

/* The next CPU that is online. */
static unsigned take_turn(void)
{
    static unsigned cpu;

    do {
        cpu = (cpu + 1) % smp_possible();
    } while (!smp_is_online(cpu));
    return cpu;
}

static enum walk_verdict access_page(vaddr_t address, unsigned access,
                                     struct pt_sight *sight)
{
    struct visit visit = {address, access, sight, WALK_NON_CANONICAL};
    unsigned cpu = take_turn();

    if (cpu == port_cpu() || smp_call(cpu, make_visit, &visit) != MM_OK) {
        make_visit(&visit);
    }
    return visit.verdict;
}

static void load_kernel(void *argument)
{
    (void)argument;
    tlb_switch(&pt_kernel.tlb);
}

static void leave(struct tlb_space *left)
{
    struct tlb_space *mine = tlb_is_loaded(left) ? &pt_kernel.tlb : NULL;

    crew_start(load_kernel, NULL);
    crew_wait();
    if (mine != NULL) {
        tlb_switch(mine);
    }
}

static struct pt_world world = {
    .accesses = WALK_READ | WALK_WRITE | WALK_EXEC,
    .is_alone = true,
    .has_handler = true,
    .access = access_page,
    .leave = leave,
};

/* --- the test ------------------------------------------------------------- */

static void explain(uint64_t seed, size_t done)
{
    char text[200];
    char line[240];

    done = done < OPERATIONS ? done : OPERATIONS - 1;
    pt_op_describe(&ops, bytes + done * PT_OP_BYTES, text, sizeof(text));
    test_format(line, sizeof(line), "# seed %llu, operation %llu: %s",
                (unsigned long long)seed, (unsigned long long)done, text);
    test_print(line);
    test_fail(__FILE__, __LINE__, "%s", ops.reason);
}

/* Blocks for the model and for what compares, and what they are of. */
struct room {
    struct pt_layout layout;
    pfn_t block[2];
    unsigned order[2];
    bool is_small; /* allocations may fail */
};

/* log2 of the frames that @size bytes take. */
static unsigned order_of(size_t size)
{
    unsigned order = 0;

    while ((PAGE_BYTES << order) < size) {
        order++;
    }
    return order;
}

static bool find_room(struct room *room)
{
    room->order[0] = order_of(pt_model_bytes(&room->layout));
    room->order[1] = order_of(pt_every_bytes(&room->layout));
    for (unsigned i = 0; i < 2; i++) {
        room->block[i] = frame_alloc(room->order[i], FRAME_KERNEL, FRAME_ANY);
        if (pfn_is_none(room->block[i])) {
            if (i > 0) {
                frame_free(room->block[0], room->order[0]);
            }
            return false;
        }
    }
    return true;
}

/* What a large range needs: blocks of its own, and for tables. */
#define PLENTY (16 * MiB >> PAGE_SHIFT)

/* All there is to it, or where memory is short what fits. */
static bool find_some_room(struct room *room)
{
    vaddr_t base = pt_features.levels == 5 ? UINT64_C(1) << 52 : 0;

    room->layout = pt_layout_large(base);
    room->is_small = false;
    if (figures().free > PLENTY && find_room(room)) {
        return true;
    }
    room->layout = pt_layout_small(base);
    room->is_small = true;
    return find_room(room);
}

static void run_seed(const struct room *room, uint64_t seed)
{
    uint64_t frames = frames_of(FRAME_USER) + frames_of(FRAME_TABLE);
    struct test_random random;
    void *memory[2];
    size_t done;

    for (unsigned i = 0; i < 2; i++) {
        memory[i] = phys_to_virt(pfn_to_phys(room->block[i]));
    }
    CHECK(pt_ops_init(&ops, &world, &room->layout, space, memory[0]));
    pt_ops_see_every(&ops, memory[1]);
    ops.may_fail = room->is_small;
    test_random_init(&random, seed);
    pt_ops_generate(&random, bytes, sizeof(bytes));
    if (!pt_ops_run(&ops, bytes, sizeof(bytes), &done) || !pt_ops_fini(&ops)) {
        explain(seed, done);
        return;
    }
    CHECK_EQUAL(frames_of(FRAME_USER) + frames_of(FRAME_TABLE), frames);
}

static void run_seeds(const struct room *room)
{
    uint64_t first = test_seed() * 1000;
    uint64_t refused = 0;
    char line[160];

    for (unsigned i = 0; i < SEEDS && !test_has_failed(); i++) {
        run_seed(room, first + i);
        refused += ops.failures;
    }
    test_format(line, sizeof(line),
                "# seeds %llu to %llu, %u operations each on %u cells, %llu "
                "without memory",
                (unsigned long long)first,
                (unsigned long long)(first + SEEDS - 1), OPERATIONS,
                pt_layout_cells(&room->layout), (unsigned long long)refused);
    test_print(line);
}

TEST(pt_ops, the_processor_agrees_with_a_naive_model)
{
    struct room room;

    world.rules =
        (struct walk_rules){true, cpu_features.has_nx, cpu_features.has_smep,
                            cpu_features.has_smap};
    if (!find_some_room(&room)) {
        test_fail(__FILE__, __LINE__, "no blocks of order %u and %u, %llu free",
                  room.order[0], room.order[1],
                  (unsigned long long)figures().free);
        return;
    }
    run_seeds(&room);
    for (unsigned i = 0; i < 2; i++) {
        frame_free(room.block[i], room.order[i]);
    }
}
