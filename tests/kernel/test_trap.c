/* SPDX-License-Identifier: MIT */
/* trap: exceptions and interrupts leave no trace in what they interrupt. */
#include "tests/shared/test.h"

#include <mm/fault.h>
#include <mm/kmap.h>
#include "kernel/cpu.h"
#include "kernel/irq.h"
#include "kernel/trap.h"

/*
 * At risk: a register, or a flag, that the way in and out does not bring
 * back; an interrupt that is not acknowledged, so that it was the last; a
 * fault that is tried again for ever. Provoked by exceptions with a known
 * value in every register, by waiting for the timer, and by handing a forged
 * frame to the handler.
 */

#define REGISTERS 15 /* all but RSP */
#define RFLAGS_DF (UINT64_C(1) << 10)

/* registers.asm */
void registers_over_breakpoint(void);
void registers_over_read(void);
extern uint64_t registers_given[REGISTERS]; /* the first is RAX */
extern uint64_t registers_seen[REGISTERS];
extern uint64_t registers_flags;

/* Distinct in every byte's neighbourhood, and no address of anything. */
static void give_registers(uint64_t rax)
{
    for (uint64_t i = 0; i < REGISTERS; i++) {
        registers_given[i] = (i + 1) * UINT64_C(0x0101010101010101);
        registers_seen[i] = 0;
    }
    registers_given[0] = rax;
    registers_flags = 0;
}

static void check_registers(void)
{
    for (unsigned i = 0; i < REGISTERS; i++) {
        CHECK_EQUAL(registers_seen[i], registers_given[i]);
    }
    CHECK((registers_flags & RFLAGS_DF) != 0);
    CHECK((registers_flags & RFLAGS_AC) != 0);
}

TEST(trap, a_breakpoint_changes_no_register)
{
    give_registers(0x55);
    registers_over_breakpoint();
    CHECK_HELPER(check_registers());
}

TEST(trap, a_promise_is_kept_and_no_register_changed)
{
    void *page = kmap_alloc(PAGE_BYTES, KMAP_LAZY, "trap test");
    struct fault_stats before;
    struct fault_stats after;

    CHECK(page != NULL);
    give_registers((vaddr_t)page);
    fault_stats(&before);
    registers_over_read();
    fault_stats(&after);
    kmap_free(page);
    CHECK_EQUAL(after.count[FAULT_RESOLVED], before.count[FAULT_RESOLVED] + 1);
    CHECK_HELPER(check_registers());
}

TEST(trap, the_timer_comes_again_and_again)
{
    uint64_t start = irq_ticks();

    /* Should it not come, this waits until the run's time is up. */
    while (irq_ticks() - start < 3) {
        cpu_wait_for_interrupt();
    }
    CHECK((cpu_read_flags() & RFLAGS_IF) == 0);
}

/* The first pair: an access that may fault, and where it resumes. */
extern const uint64_t __start_fixup_table[];

/* A fault at a mapped address, in an access that a probe waits for. */
static struct trap_frame forge(uint64_t error)
{
    return (struct trap_frame){
        .vector = TRAP_PAGE,
        .error = error,
        .rip = __start_fixup_table[0],
        .cr2 = (vaddr_t)&registers_given,
    };
}

static bool is_given_up(const struct trap_frame *frame)
{
    return frame->rip == __start_fixup_table[1];
}

TEST(trap, the_same_fault_is_tried_again_a_few_times_only)
{
    struct trap_frame frame = forge(FAULT_P);
    struct trap_frame other = forge(FAULT_P);

    cpu_breakpoint(); /* between this and the test before */
    for (unsigned i = 0; i < TRAP_RETRIES; i++) {
        trap_dispatch(&frame);
        CHECK(!is_given_up(&frame));
    }
    other.rcx = 1; /* something has happened: it counts anew */
    trap_dispatch(&other);
    CHECK(!is_given_up(&other));
    for (unsigned i = 0; i < TRAP_RETRIES; i++) {
        trap_dispatch(&frame);
        CHECK(!is_given_up(&frame));
    }
    trap_dispatch(&frame);
    CHECK(is_given_up(&frame));
}

/* Other CPUs may be faster each time: see trap.c. */
TEST(trap, the_same_fault_after_another_trap_counts_anew)
{
    struct trap_frame frame = forge(FAULT_P);

    cpu_breakpoint();
    for (unsigned i = 0; i < TRAP_RETRIES; i++) {
        trap_dispatch(&frame);
    }
    cpu_breakpoint();
    trap_dispatch(&frame);
    CHECK(!is_given_up(&frame));
}

TEST(trap, what_no_page_table_shows_is_not_tried_again)
{
    static const uint64_t errors[] = {FAULT_P | FAULT_PK, FAULT_P | FAULT_SS};

    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        struct trap_frame frame = forge(errors[i]);
        trap_dispatch(&frame);
        CHECK(is_given_up(&frame));
    }
}
