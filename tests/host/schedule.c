/* SPDX-License-Identifier: MIT */
/* schedule: one thread plays all CPUs and chooses who goes on, at each step. */
/*
 * Idea      The library's own code runs, compiled so that each access to
 *           memory is a call (schedule_tsan.c). A CPU is a coroutine; such a
 *           call may go on as another one. What is drawn by lot comes from
 *           one seed, so that a failure happens again.
 *           Two strategies: a random walk finds what needs many changes of
 *           CPU, priorities what needs few of them at the right places
 *           [PCT10]: the highest runs until, at a place drawn by lot, it is
 *           made the lowest.
 *
 * Model     x86's order of stores: each CPU has a queue of those that others
 *           do not see yet. Plain stores go to memory at once; code without
 *           data races cannot tell, since it publishes them by atomic ones,
 *           which queue in order. A page walk reads memory, not the queue.
 *
 * Limits    Loads are not reordered, since x86 does not do it either; nor is
 *           tried what a compiler may do to relaxed operations. For that there
 *           are real threads and ThreadSanitizer: test_tlb_threads.c. Frames
 *           come and go in one step: frame has tests with threads of its own.
 */
#include "tests/host/schedule.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <ucontext.h>

#include <mm/port.h>
#include "tests/host/sim_cpus.h"
#include "tests/shared/test.h"

#define STACK_BYTES (256 * KiB)

/* How much sooner than at a plain access a change of CPU comes. */
#define PLAIN_WEIGHT   1
#define RELAXED_WEIGHT 2
#define ATOMIC_WEIGHT  16
#define MMU_WEIGHT     48
/* Steps from guess to guess, about. */
#define GUESS_PACE 150
/* One in so many chances to take an interrupt is used. */
#define INTERRUPT_CHANCE 4

/*
 * Steps in which no program begins anything new: the longest, the end of a
 * space, takes some thousand, times four CPUs, times waiting.
 */
#define HOPELESS 2000000u

struct store {
    volatile void *address;
    unsigned bytes;
    uint64_t value;
};

struct cpu {
    ucontext_t context;
    bool is_finished;
    bool is_stopped;
    bool is_guessing;
    unsigned priority;
    const char *note;
    unsigned stores;
    struct store store[SCHEDULE_STORES]; /* the oldest first */
};

static struct {
    const struct schedule_plan *plan;
    bool is_running;
    unsigned now;    /* the CPU that goes on */
    unsigned lowest; /* priority given last */
    uint64_t until_change;
    uint64_t until_guess;
    uint64_t steps;
    uint64_t last_note; /* step at which a program began something */
    struct test_random random;
    ucontext_t end;
    char verdict[512];
} state;

static struct cpu cpus[SCHEDULE_CPUS];
static void (*writing)(volatile void *address, uint64_t bytes);
static MM_ALIGNED(4096) char stack[SCHEDULE_CPUS][STACK_BYTES];

uint64_t schedule_steps(void)
{
    return state.steps;
}

unsigned schedule_below(unsigned limit)
{
    return (unsigned)test_random_below(&state.random, limit);
}

/* --- memory --------------------------------------------------------------- */

static void write_memory(const struct store *store)
{
    switch (store->bytes) {
    case 1:
        *(volatile uint8_t *)store->address = (uint8_t)store->value;
        break;
    case 2:
        *(volatile uint16_t *)store->address = (uint16_t)store->value;
        break;
    case 4:
        *(volatile uint32_t *)store->address = (uint32_t)store->value;
        break;
    default:
        *(volatile uint64_t *)store->address = store->value;
        break;
    }
}

static uint64_t read_memory(const volatile void *address, unsigned bytes)
{
    switch (bytes) {
    case 1:
        return *(const volatile uint8_t *)address;
    case 2:
        return *(const volatile uint16_t *)address;
    case 4:
        return *(const volatile uint32_t *)address;
    default:
        return *(const volatile uint64_t *)address;
    }
}

/* Let the @count oldest stores of @cpu be seen by all. */
static void drain(struct cpu *cpu, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        write_memory(&cpu->store[i]);
    }
    cpu->stores -= count;
    memmove(cpu->store, cpu->store + count, cpu->stores * sizeof(struct store));
}

/* The latest store of @cpu to any of the bytes, or NULL. */
static const struct store *find_store(const struct cpu *cpu,
                                      const volatile void *address,
                                      uint64_t bytes)
{
    uintptr_t start = (uintptr_t)address;

    for (unsigned i = cpu->stores; i-- > 0;) {
        const struct store *store = &cpu->store[i];
        uintptr_t at = (uintptr_t)store->address;

        if (at < start + bytes && start < at + store->bytes) {
            return store;
        }
    }
    return NULL;
}

/* --- who goes on ---------------------------------------------------------- */

static void go_on_as(unsigned next)
{
    unsigned before = state.now;

    if (next != before) {
        state.now = next;
        sim_set_cpu(next);
        swapcontext(&cpus[before].context, &cpus[next].context);
    }
}

static unsigned highest_priority(void)
{
    unsigned best = 0;

    for (unsigned i = 1; i < state.plan->cpus; i++) {
        if (cpus[i].priority > cpus[best].priority) {
            best = i;
        }
    }
    return best;
}

/* Any CPU may have some of its stores done by now. */
static void drain_some(void)
{
    for (unsigned i = 0; i < state.plan->cpus; i++) {
        if (cpus[i].stores > 0 && schedule_below(2) == 0) {
            drain(&cpus[i], schedule_below(cpus[i].stores + 1));
        }
    }
}

static void begin_slice(void)
{
    state.until_change = 1 + schedule_below(2 * state.plan->pace);
    drain_some();
}

static void go_on_as_any(void)
{
    begin_slice();
    go_on_as(schedule_below(state.plan->cpus));
}

static void change_cpu(void)
{
    if (state.plan->strategy == SCHEDULE_WALK) {
        go_on_as_any();
        return;
    }
    begin_slice();
    cpus[state.now].priority = --state.lowest;
    go_on_as(highest_priority());
}

static void give_up(void)
{
    state.is_running = false;
    setcontext(&state.end);
}

void schedule_fail(const char *text)
{
    size_t length = (size_t)snprintf(state.verdict, sizeof(state.verdict),
                                     "%s (on CPU %u)", text, state.now);

    for (unsigned i = 0; i < state.plan->cpus; i++) {
        const struct cpu *cpu = &cpus[i];

        if (length < sizeof(state.verdict)) {
            length += (size_t)snprintf(
                state.verdict + length, sizeof(state.verdict) - length,
                "; CPU %u: %s%s%s", i, cpu->note,
                sim_is_interrupted(i) ? ", interrupt pending" : "",
                cpu->stores > 0 ? ", stores under way" : "");
        }
    }
    give_up();
}

static bool is_forgiven(const char *text)
{
    return state.plan->forgive != NULL && state.plan->forgive(text);
}

static void complain(const char *text)
{
    if (state.is_running && !is_forgiven(text)) {
        schedule_fail(text);
    }
}

static void guess(void)
{
    struct cpu *cpu = &cpus[state.now];

    state.until_guess = 1 + schedule_below(2 * GUESS_PACE);
    if (!cpu->is_guessing && state.plan->guess != NULL) {
        cpu->is_guessing = true;
        state.plan->guess();
        cpu->is_guessing = false;
    }
}

static void count_step(void)
{
    state.steps++;
    if (state.steps - state.last_note > HOPELESS) {
        schedule_fail("no CPU gets any further");
    }
}

/* Others may go on here; interrupts of this CPU do not come. */
static void step(unsigned weight)
{
    if (!state.is_running) {
        return;
    }
    count_step();
    if (state.until_guess-- == 0) {
        guess();
    }
    if (weight < state.until_change) {
        state.until_change -= weight;
        return;
    }
    change_cpu();
}

static void choose(const struct schedule_access *access)
{
    const struct schedule_chooser *chooser = state.plan->chooser;

    do {
        count_step();
        go_on_as(chooser->choose(access));
    } while (chooser->is_asked_anew != NULL && chooser->is_asked_anew());
}

/*
 * Others may go on here, before @access, and this CPU may be interrupted.
 */
static void step_between(unsigned weight, const struct schedule_access *access)
{
    if (access->is_write && writing != NULL) {
        writing((volatile void *)(uintptr_t)access->address, access->bytes);
    }
    if (state.is_running && state.plan->chooser != NULL) {
        choose(access);
        return;
    }
    step(weight);
    if (state.is_running && !cpus[state.now].is_guessing &&
        sim_is_interrupted(state.now) &&
        schedule_below(INTERRUPT_CHANCE) == 0) {
        sim_poll();
    }
}

/*
 * Whoever waits is not made the lowest each time: whom it waits for would find
 * all others before it, and they would never be held up for long.
 */
void schedule_wait(void)
{
    if (!state.is_running) {
        return;
    }
    if (state.plan->chooser != NULL) {
        choose(NULL);
        sim_poll();
        return;
    }
    count_step();
    if (schedule_below(2) == 0) {
        change_cpu();
    } else {
        go_on_as_any();
    }
    sim_poll();
}

void schedule_note(const char *what)
{
    cpus[state.now].note = what;
    state.last_note = state.steps;
}

/* --- what instrumented code does ------------------------------------------ */

void schedule_lock_at(volatile void *address, unsigned bytes)
{
    struct schedule_access access = {address, bytes, bytes > 0, false, true};

    step_between(ATOMIC_WEIGHT, &access);
    drain(&cpus[state.now], cpus[state.now].stores);
}

uint64_t schedule_load(const volatile void *address, unsigned bytes, int order)
{
    struct schedule_access access = {address, bytes, false, false, false};

    step_between(order == memory_order_relaxed ? RELAXED_WEIGHT : ATOMIC_WEIGHT,
                 &access);
    if (state.is_running && state.plan->see != NULL) {
        state.plan->see(address);
    }
    struct cpu *cpu = &cpus[state.now];
    const struct store *mine = find_store(cpu, address, bytes);

    if (mine != NULL && mine->address == address && mine->bytes == bytes) {
        return mine->value;
    }
    if (mine != NULL) {
        drain(cpu, cpu->stores);
    }
    return read_memory(address, bytes);
}

void schedule_store(volatile void *address, unsigned bytes, uint64_t value,
                    int order)
{
    struct schedule_access access = {.address = address,
                                     .bytes = bytes,
                                     .is_write = true,
                                     .is_delayed =
                                         order != memory_order_seq_cst,
                                     .drains = order == memory_order_seq_cst};
    struct store store = {address, bytes, value};

    step_between(order == memory_order_relaxed ? RELAXED_WEIGHT : ATOMIC_WEIGHT,
                 &access);
    struct cpu *cpu = &cpus[state.now];
    if (!state.is_running || order == memory_order_seq_cst) {
        drain(cpu, cpu->stores);
        write_memory(&store);
        return;
    }
    if (cpu->stores == SCHEDULE_STORES) {
        drain(cpu, 1);
    }
    cpu->store[cpu->stores++] = store;
}

/* A plain access: to bytes that a store of its own has on the way, after it. */
static void access_plainly(const struct schedule_access *access)
{
    struct cpu *cpu = &cpus[state.now];

    step_between(PLAIN_WEIGHT, access);
    if (cpu->stores > 0 &&
        find_store(cpu, access->address, access->bytes) != NULL) {
        drain(cpu, cpu->stores);
    }
}

void schedule_touch(const volatile void *address, uint64_t bytes)
{
    struct schedule_access access = {address, bytes, false, false, false};

    if (state.is_running) {
        access_plainly(&access);
    }
}

void schedule_change(volatile void *address, uint64_t bytes)
{
    struct schedule_access access = {address, bytes, true, false, false};

    access_plainly(&access);
}

/* --- for a chooser -------------------------------------------------------- */

unsigned schedule_now(void)
{
    return state.now;
}

bool schedule_is_finished(unsigned cpu)
{
    return cpus[cpu].is_finished || cpus[cpu].is_stopped;
}

void schedule_stop(unsigned cpu)
{
    drain(&cpus[cpu], cpus[cpu].stores);
    cpus[cpu].is_stopped = true;
    cpus[cpu].note = "stopped";
}

unsigned schedule_stores(unsigned cpu)
{
    return cpus[cpu].stores;
}

bool schedule_has_store(unsigned cpu, const struct schedule_access *access)
{
    return find_store(&cpus[cpu], access->address, access->bytes) != NULL;
}

struct schedule_access schedule_oldest_store(unsigned cpu)
{
    const struct store *store = &cpus[cpu].store[0];

    return (struct schedule_access){store->address, store->bytes, true, false,
                                    false};
}

void schedule_flush(unsigned cpu)
{
    drain(&cpus[cpu], 1);
}

void schedule_set_writing(void (*function)(volatile void *address,
                                           uint64_t bytes))
{
    writing = function;
}

/* --- a run ---------------------------------------------------------------- */

/* What the CPUs of the simulation share, all of it, is as one word. */
static char machine;

static void step_of_mmu(void)
{
    static const struct schedule_access access = {&machine, 1, true, false,
                                                  false};

    if (state.is_running && state.plan->chooser != NULL) {
        choose(&access);
        return;
    }
    step(MMU_WEIGHT);
}

/* An interrupt may have come just now, or not yet: only a chooser asks. */
static void look_for_interrupt(void)
{
    static const struct schedule_access access = {&machine, 1, false, false,
                                                  false};

    if (state.is_running && state.plan->chooser != NULL) {
        choose(&access);
    }
}

static void serialize(void)
{
    if (state.plan->chooser == NULL) {
        step(MMU_WEIGHT);
    }
    drain(&cpus[state.now], cpus[state.now].stores);
}

static const struct sim_driver driver = {
    .step = step_of_mmu,
    .relax = schedule_wait,
    .serialize = serialize,
    .look = look_for_interrupt,
    .complain = complain,
};

/* Have all programs ended, and all interrupts been dealt with? */
static bool is_over(void)
{
    for (unsigned i = 0; i < state.plan->cpus; i++) {
        bool is_at_rest = cpus[i].is_finished && !sim_is_interrupted(i) &&
                          !sim_irq_is_off_on(i);
        /* A chooser also says in which order the last stores are seen. */
        if (state.plan->chooser != NULL && cpus[i].stores > 0) {
            return false;
        }
        if (!cpus[i].is_stopped && !is_at_rest) {
            return false;
        }
    }
    return true;
}

/* A CPU from its first step on: when its program ends, it answers only. */
static void live(void)
{
    struct cpu *cpu = &cpus[state.now];

    state.plan->run(state.now);
    if (sim_irq_is_off()) {
        schedule_fail("a program ended with interrupts off");
    }
    schedule_note("idle");
    cpu->is_finished = true;
    while (!is_over()) {
        schedule_wait();
    }
    give_up();
}

static void prepare(unsigned number)
{
    struct cpu *cpu = &cpus[number];

    memset(cpu, 0, sizeof(*cpu));
    cpu->note = "start";
    cpu->priority = state.lowest + number;
    getcontext(&cpu->context);
    cpu->context.uc_stack.ss_sp = stack[number];
    cpu->context.uc_stack.ss_size = STACK_BYTES;
    makecontext(&cpu->context, live, 0);
}

const char *schedule_run(const struct schedule_plan *plan)
{
    state.plan = plan;
    state.lowest = UINT32_MAX / 2;
    state.last_note = state.steps;
    state.verdict[0] = '\0';
    test_random_init(&state.random, plan->seed);
    state.until_change = 1 + schedule_below(plan->pace);
    state.until_guess = 1 + schedule_below(GUESS_PACE);
    for (unsigned i = 0; i < plan->cpus; i++) {
        prepare(i);
    }
    state.now = plan->chooser != NULL ? plan->chooser->first
                                      : schedule_below(plan->cpus);
    sim_set_driver(&driver);
    state.is_running = true;
    sim_set_cpu(state.now);
    swapcontext(&state.end, &cpus[state.now].context);
    for (unsigned i = 0; i < plan->cpus; i++) {
        drain(&cpus[i], cpus[i].stores);
    }
    sim_set_driver(NULL);
    sim_set_cpu(0);
    return state.verdict[0] != '\0' ? state.verdict : NULL;
}
