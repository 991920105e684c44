/* SPDX-License-Identifier: MIT */
/* Tests of the heap's fast ways: an interrupt before each of their steps. */
/*
 * At risk: an object that the interrupted code and the handler both get, one
 * that is lost between them, a magazine that was handed over meanwhile or is
 * another CPU's, an allocation that is counted twice. Provoked by single
 * steps: the trap flag lets this process have a look before each instruction
 * of theirs, and there an interrupt comes that uses the heap in one of the
 * ways below. Emulators take interrupts between blocks of instructions only.
 */
#if SIM_RESTARTS

#define _GNU_SOURCE /* the registers that a signal finds */
#include <signal.h>
#include <ucontext.h>

#include <mm/guard.h>
#include <mm/kmalloc.h>
#include <mm/slab.h>
#include "heap/magazine.h"
#include "tests/host/sim.h"
#include "tests/shared/test.h"

#define RAM_BYTES (16 * MiB)
#define TRAP_FLAG 0x100

/*
 * HELD are more than two magazines have room for, so that some are exchanged;
 * with IN_HAND of them live, a CPU's is neither full nor empty.
 */
enum { OBJECT_BYTES = 1024, HELD = 64, IN_HAND = 18, LEAST_STEPS = 6 };
#define MOST_CODE 128 /* bytes of a small function */

static struct slab_cache *cache;
static bool is_class;    /* cache is kmalloc()'s */
static void *held[HELD]; /* by the test and its interrupts: live */
static unsigned count;
static unsigned made; /* allocations */

/* --- what is interrupted, and for what ------------------------------------ */

/* The list is read after the call: an interrupt may have changed it. */
static void hold(void *object)
{
    if (object != NULL) {
        held[count++] = object;
        made++;
    }
}

static void allocate(void)
{
    hold(is_class ? kmalloc(OBJECT_BYTES) : slab_alloc(cache));
}

static void allocate_zeroed(void)
{
    hold(kzalloc(OBJECT_BYTES));
}

static void release(void)
{
    void *object = held[--count];

    if (is_class) {
        kfree(object);
    } else {
        slab_free(cache, object);
    }
}

static void exchange(void)
{
    release();
    allocate();
    allocate();
    release();
}

/* Magazines become empty, and others full: objects move, and they go. */
static void allocate_many(void)
{
    while (count < HELD - 2) {
        allocate();
    }
}

static void release_many(void)
{
    while (count > 1) {
        release();
    }
}

/* Magazines go back to side storage. */
static void drain(void)
{
    slab_drain();
}

static void move(void)
{
    sim_set_cpu(1 - sim_cpu());
}

static void (*const handlers[])(void) = {
    allocate, release, exchange, allocate_many, release_many, drain, move,
};

/* --- steps ---------------------------------------------------------------- */

extern const char magazine_push_end[]; /* the last instruction of them all */

static volatile unsigned steps;       /* of fast ways, seen so far */
static volatile unsigned interrupted; /* before this one of them; 0: over */
static void (*handler)(void);

/* Not only where it can begin anew: that may be said of too few steps. */
static bool is_in_fast_way(vaddr_t ip)
{
    return ip >= (vaddr_t)kmalloc_from && ip <= (vaddr_t)magazine_push_end;
}

static void take_step(int signal, siginfo_t *info, void *context)
{
    greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
    vaddr_t ip = (vaddr_t)registers[REG_RIP];

    (void)signal;
    (void)info;
    registers[REG_EFL] |= TRAP_FLAG;
    if (is_in_fast_way(ip) && ++steps == interrupted) {
        registers[REG_RIP] = (greg_t)slab_restart(ip);
        handler();
    }
    if (interrupted == 0) {
        registers[REG_EFL] &= ~(greg_t)TRAP_FLAG;
    }
}

/* Do @act; an interrupt comes before step @step of its fast way. */
static void step_through(void (*act)(void), unsigned step)
{
    struct sigaction action = {.sa_sigaction = take_step,
                               .sa_flags = SA_SIGINFO};

    sigaction(SIGTRAP, &action, NULL);
    steps = 0;
    interrupted = step;
    raise(SIGTRAP); /* the next instruction is looked at */
    act();
    interrupted = 0;
    signal(SIGTRAP, SIG_DFL);
}

/* --- tests ---------------------------------------------------------------- */

/* Some objects in hand, some at hand. */
static bool prepare(bool is_of_class)
{
    sim_boot_cpus(RAM_BYTES, 2, SIM_ALL_PARTS);
    is_class = is_of_class;
    cache = is_class ? kmalloc_cache_of(OBJECT_BYTES)
                     : slab_create("steps", OBJECT_BYTES, 0, NULL);
    count = 0;
    made = 0;
    while (cache != NULL && count < HELD / 2) {
        allocate();
    }
    while (count > IN_HAND) {
        release();
    }
    return cache != NULL;
}

static bool is_held_twice(void)
{
    for (unsigned i = 0; i < count; i++) {
        for (unsigned j = 0; j < i; j++) {
            if (held[i] == held[j]) {
                return true;
            }
        }
    }
    return false;
}

/* Nothing is lost, nothing is there twice, each allocation was counted once. */
static bool is_exact(void)
{
    struct slab_stats stats;

    slab_stats(cache, &stats);
    return !is_held_twice() && slab_check() && stats.live == count &&
           stats.allocs == made;
}

static void check_act(void (*act)(void), bool is_of_class)
{
    for (unsigned i = 0; i < sizeof(handlers) / sizeof(handlers[0]); i++) {
        unsigned step = 0;

        handler = handlers[i];
        do {
            CHECK(prepare(is_of_class) && is_exact());
            step_through(act, ++step);
            CHECK(is_exact());
        } while (steps >= step); /* it had so many */
        CHECK(step > LEAST_STEPS);
    }
}

TEST(restart, an_interrupt_in_slab_alloc)
{
    check_act(allocate, false);
}

TEST(restart, an_interrupt_in_kmalloc)
{
    check_act(allocate, true);
}

TEST(restart, an_interrupt_in_kzalloc)
{
    check_act(allocate_zeroed, true);
}

TEST(restart, an_interrupt_in_slab_free)
{
    check_act(release, false);
}

TEST(restart, an_interrupt_in_kfree)
{
    check_act(release, true);
}

/* Only what can begin anew does. */
TEST(restart, other_code_goes_on_where_it_was)
{
    vaddr_t alloc = (vaddr_t)kmalloc_from;
    vaddr_t push = (vaddr_t)magazine_push;

    CHECK_EQUAL(slab_restart(alloc), alloc);
    CHECK_EQUAL(slab_restart(alloc + 1), alloc);
    CHECK_EQUAL(slab_restart(alloc - 1), alloc - 1);
    CHECK_EQUAL(slab_restart(push), push);
    CHECK_EQUAL(slab_restart(push + 1), push);
    CHECK_EQUAL(slab_restart(push - 1), push - 1);
    CHECK_EQUAL(slab_restart((vaddr_t)kfree), (vaddr_t)kfree);
    CHECK_EQUAL(slab_restart(0), 0);
    CHECK_EQUAL(slab_restart(UINT64_MAX), UINT64_MAX);
}

/* --- who has asked -------------------------------------------------------- */

static void *make_zeroed(uint64_t bytes)
{
    return kzalloc(bytes);
}

static void *make_longer(uint64_t bytes)
{
    return krealloc(kmalloc(bytes / 2), bytes);
}

static void *make_array(uint64_t bytes)
{
    return kmalloc_array(1, bytes);
}

/* What is guarded is blamed on who called the heap, not on the heap. */
static void check_site(void *(*alloc)(uint64_t))
{
    struct guard_object seen;

    sim_boot(RAM_BYTES);
    CHECK_EQUAL(guard_enable(1), MM_OK);
    void *block = alloc(OBJECT_BYTES);
    CHECK(guard_find((vaddr_t)block, &seen));
    CHECK(seen.alloc_site - (uintptr_t)alloc < MOST_CODE);
    kfree(block);
    CHECK_EQUAL(guard_disable(), MM_OK);
}

TEST(restart, kzalloc_names_its_caller)
{
    check_site(make_zeroed);
}

TEST(restart, krealloc_names_its_caller)
{
    check_site(make_longer);
}

TEST(restart, kmalloc_array_names_its_caller)
{
    check_site(make_array);
}

#endif
