/* SPDX-License-Identifier: MIT */
/* Tests of fault: each state of an entry, each access, each origin. */
#include <mm/audit.h>
#include <mm/fault.h>
#include <mm/frame.h>
#include <mm/kmap.h>
#include <mm/pt.h>
#include "base/bits.h"
#include "tests/host/sim.h"
#include "tests/host/sim_mmu.h"
#include "tests/shared/figures.h"
#include "tests/shared/once.h"

/*
 * At risk: a fault resolved that is an error, an error called by the wrong
 * name, a frame that leaks when a promise cannot be kept, a promise broken
 * for the neighbours of the page that was touched. Provoked by one page for
 * each state an entry can be in and all error codes against it, by failing
 * each frame allocation in turn, by damaged entries, and by an interrupt that
 * changes a promise between reading and keeping it, as another CPU may.
 */

#define RAM_BYTES (64 * MiB)
#define RULES_ON  ((struct walk_rules){true, true, true, true})

/* Pages of a block, each in another state; see build_zoo(). */
enum zoo {
    ZOO_ZERO,
    ZOO_ZERO_READ_ONLY,
    ZOO_READ_ONLY,
    ZOO_WRITABLE,
    ZOO_CODE,
    ZOO_GUARD,
    ZOO_GUARD_GROW,
    ZOO_OBJECT,
    ZOO_GAP,
    ZOO_PAGES
};

static vaddr_t zoo;

static vaddr_t page_of(enum zoo which)
{
    return zoo + which * PAGE_BYTES;
}

/* Put a promise or a new frame in place of the page @which. */
static void put_promise(enum zoo which, enum pt_promise promise, unsigned flags)
{
    CHECK_EQUAL(once_promise(&pt_kernel, page_of(which), PAGE_BYTES, promise,
                             pt_attr(flags)),
                MM_OK);
}

static void put_frame(enum zoo which, unsigned flags)
{
    pfn_t frame = frame_alloc(0, FRAME_KMAP, FRAME_ZEROED);

    CHECK(!pfn_is_none(frame));
    CHECK_EQUAL(once_map(&pt_kernel, page_of(which), frame, PAGE_BYTES,
                         pt_attr(flags | PT_OWNED)),
                MM_OK);
}

static void build_zoo(void)
{
    sim_boot(RAM_BYTES);
    zoo = (vaddr_t)kmap_alloc(ZOO_PAGES * PAGE_BYTES, KMAP_LAZY, "zoo");
    CHECK(zoo != 0);
    CHECK_HELPER(put_promise(ZOO_ZERO_READ_ONLY, PT_ZERO, PT_READ));
    CHECK_HELPER(put_frame(ZOO_READ_ONLY, PT_READ));
    CHECK_HELPER(put_frame(ZOO_WRITABLE, PT_WRITE));
    CHECK_HELPER(put_frame(ZOO_CODE, PT_EXEC));
    CHECK_HELPER(put_promise(ZOO_GUARD, PT_GUARD, PT_READ));
    CHECK_HELPER(put_promise(ZOO_GUARD_GROW, PT_GUARD_GROW, PT_READ));
    CHECK_HELPER(put_promise(ZOO_OBJECT, PT_OBJECT, PT_WRITE));
    CHECK_EQUAL(once_unmap(&pt_kernel, page_of(ZOO_GAP), PAGE_BYTES), MM_OK);
}

static enum fault_result handle(vaddr_t address, unsigned code)
{
    struct walk walk;
    struct fault fault = {.address = address, .code = code, .rules = RULES_ON};

    return fault_handle(&fault, &walk);
}

/* --- the decision --------------------------------------------------------- */

#define R 0
#define W FAULT_W
#define X FAULT_I
#define P FAULT_P

/* What each access by the kernel ends in; promises are kept in passing. */
static const struct {
    enum zoo page;
    unsigned code;
    enum fault_result result;
} decision[] = {
    {ZOO_ZERO, X, FAULT_NO_EXECUTE},
    {ZOO_ZERO, W, FAULT_RESOLVED},
    {ZOO_ZERO, W, FAULT_SPURIOUS}, /* another CPU came second */
    {ZOO_ZERO, X | P, FAULT_NO_EXECUTE},
    {ZOO_ZERO_READ_ONLY, W, FAULT_READ_ONLY},
    {ZOO_ZERO_READ_ONLY, X, FAULT_NO_EXECUTE},
    {ZOO_ZERO_READ_ONLY, R, FAULT_RESOLVED},
    {ZOO_ZERO_READ_ONLY, W | P, FAULT_READ_ONLY},
    {ZOO_READ_ONLY, W | P, FAULT_READ_ONLY},
    {ZOO_READ_ONLY, X | P, FAULT_NO_EXECUTE},
    {ZOO_READ_ONLY, R | P, FAULT_SPURIOUS},
    {ZOO_WRITABLE, W | P, FAULT_SPURIOUS}, /* the TLB had less */
    {ZOO_WRITABLE, W, FAULT_SPURIOUS},     /* the TLB had nothing */
    {ZOO_WRITABLE, X | P, FAULT_NO_EXECUTE},
    {ZOO_CODE, X | P, FAULT_SPURIOUS},
    {ZOO_CODE, W | P, FAULT_READ_ONLY},
    {ZOO_GUARD, R, FAULT_GUARD},
    {ZOO_GUARD, W, FAULT_GUARD},
    {ZOO_GUARD, X, FAULT_GUARD},
    {ZOO_GUARD, W | P, FAULT_GUARD}, /* P is the past */
    {ZOO_GUARD_GROW, W, FAULT_GUARD},
    {ZOO_OBJECT, R, FAULT_NOT_MAPPED},
    {ZOO_OBJECT, W, FAULT_NOT_MAPPED},
    {ZOO_GAP, R, FAULT_NOT_MAPPED},
    {ZOO_GAP, W, FAULT_NOT_MAPPED},
    {ZOO_GAP, X, FAULT_NOT_MAPPED},
};

TEST(fault, each_state_and_access_has_its_result)
{
    CHECK_HELPER(build_zoo());
    for (size_t i = 0; i < sizeof(decision) / sizeof(decision[0]); i++) {
        enum fault_result expected = decision[i].result;
        vaddr_t address = page_of(decision[i].page) + 0x7f8;
        uint64_t frames = frames_of(FRAME_KMAP);
        uint64_t count = faults_of(expected);

        CHECK_EQUAL(handle(address, decision[i].code), expected);
        CHECK_EQUAL(faults_of(expected), count + 1);
        CHECK_EQUAL(frames_of(FRAME_KMAP),
                    frames + (expected == FAULT_RESOLVED ? 1 : 0));
    }
    kmap_free((void *)zoo);
    CHECK_EQUAL(frames_of(FRAME_KMAP), 0);
}

/* User mode gets no frame and learns nothing of the kernel's pages. */
TEST(fault, user_mode_gets_nothing_of_the_kernel)
{
    static const unsigned access[] = {R, W, X};

    CHECK_HELPER(build_zoo());
    uint64_t frames = frames_of(FRAME_KMAP);
    for (unsigned page = 0; page < ZOO_PAGES; page++) {
        bool is_gap = page == ZOO_GAP;
        for (unsigned i = 0; i < 3; i++) {
            CHECK_EQUAL(handle(page_of((enum zoo)page), access[i] | FAULT_U),
                        is_gap ? FAULT_NOT_MAPPED : FAULT_SUPERVISOR);
        }
    }
    CHECK_EQUAL(frames_of(FRAME_KMAP), frames);
}

/* Promises of user pages: no such page is in the kernel's tables. */
TEST(fault, a_promise_to_user_mode_is_judged_by_its_rights)
{
    static const struct {
        enum pt_promise promise;
        unsigned flags;
        unsigned code;
        enum fault_result result;
    } table[] = {
        {PT_ZERO, PT_USER, R, FAULT_RESOLVED},
        {PT_ZERO, PT_USER, W, FAULT_READ_ONLY},
        {PT_ZERO, PT_USER | PT_WRITE, W, FAULT_RESOLVED},
        {PT_ZERO, PT_USER | PT_WRITE, X, FAULT_NO_EXECUTE},
        {PT_ZERO, PT_USER | PT_EXEC, X, FAULT_RESOLVED},
        {PT_GUARD, PT_USER, R, FAULT_GUARD},
        {PT_GUARD_GROW, PT_USER, W, FAULT_GUARD},
        {PT_OBJECT, PT_USER, R, FAULT_NOT_MAPPED},
        {PT_ZERO, PT_WRITE, W, FAULT_SUPERVISOR},
        {PT_GUARD, PT_READ, R, FAULT_SUPERVISOR},
    };

    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct fault fault = {.address = 16 * MiB,
                              .code = table[i].code | FAULT_U,
                              .rules = RULES_ON};
        struct walk walk = {
            .address = fault.address, .count = 1, .state = PTE_PROMISE};

        walk.step[0].entry =
            pte_make_promise(table[i].promise, pt_attr(table[i].flags), 0);
        CHECK_EQUAL(fault_judge(&fault, &walk), table[i].result);
    }
}

TEST(fault, the_first_page_is_null)
{
    sim_boot(RAM_BYTES);
    CHECK_EQUAL(handle(0, R), FAULT_NULL);
    CHECK_EQUAL(handle(PAGE_BYTES - 1, W), FAULT_NULL);
    CHECK_EQUAL(handle(0, X), FAULT_NULL);
    CHECK_EQUAL(handle(PAGE_BYTES, R), FAULT_NOT_MAPPED);
    CHECK_EQUAL(handle(UINT64_MAX, R), FAULT_NOT_MAPPED);
    CHECK_EQUAL(handle(SIM_KMAP + 77 * GiB, W), FAULT_NOT_MAPPED);
}

/* The rules of the processor decide: without NX nothing is refused. */
TEST(fault, rights_follow_the_rules_that_are_on)
{
    struct walk walk;
    struct fault fault = {.code = X, .rules = RULES_ON};

    CHECK_HELPER(build_zoo());
    fault.rules.nx = false;
    fault.address = page_of(ZOO_WRITABLE);
    CHECK_EQUAL(fault_handle(&fault, &walk), FAULT_SPURIOUS);
    fault.address = page_of(ZOO_ZERO);
    CHECK_EQUAL(fault_handle(&fault, &walk), FAULT_RESOLVED);
    fault.rules.write_protect = false;
    fault.code = W | P;
    fault.address = page_of(ZOO_READ_ONLY);
    CHECK_EQUAL(fault_handle(&fault, &walk), FAULT_SPURIOUS);
}

/* --- entries as the library would never write them ------------------------ */

static void set_bits(const struct walk_step *step, uint64_t bits)
{
    pte_t *table = phys_to_virt(step->table);

    table[step->index].v |= bits;
}

TEST(fault, a_user_page_is_not_for_the_kernel)
{
    struct walk walk;

    CHECK_HELPER(build_zoo());
    walk_address(pt_kernel.root, page_of(ZOO_CODE), &walk);
    for (unsigned i = 0; i < walk.count; i++) {
        set_bits(&walk.step[i], PTE_US);
    }
    CHECK_EQUAL(handle(page_of(ZOO_CODE), R | P), FAULT_USER_ACCESS);
    CHECK_EQUAL(handle(page_of(ZOO_CODE), X | P), FAULT_USER_EXEC);
    CHECK_EQUAL(handle(page_of(ZOO_CODE), X | P | FAULT_U), FAULT_SPURIOUS);
}

/* Some emulators leave P clear with RSVD: RSVD counts first. */
TEST(fault, a_reserved_bit_is_reported_before_all_else)
{
    struct walk walk;

    CHECK_HELPER(build_zoo());
    CHECK_EQUAL(handle(page_of(ZOO_ZERO), FAULT_RSVD | W), FAULT_RESERVED_BIT);
    CHECK_EQUAL(handle(0, FAULT_RSVD | P), FAULT_RESERVED_BIT);
    CHECK_EQUAL(handle(page_of(ZOO_GUARD), FAULT_RSVD), FAULT_RESERVED_BIT);
    walk_address(pt_kernel.root, page_of(ZOO_WRITABLE), &walk);
    /* Beyond MAXPHYADDR. */
    set_bits(&walk.step[walk.count - 1], UINT64_C(1) << 51);
    CHECK_EQUAL(handle(page_of(ZOO_WRITABLE), W), FAULT_RESERVED_BIT);
    CHECK(!sim_write(page_of(ZOO_WRITABLE), 1));
    CHECK_EQUAL(sim_last_fault(), FAULT_RESERVED_BIT);
}

/* --- keeping a promise ---------------------------------------------------- */

TEST(fault, the_walk_shows_what_was_found)
{
    struct walk walk;
    struct fault fault = {.code = W, .rules = RULES_ON};

    CHECK_HELPER(build_zoo());
    fault.address = page_of(ZOO_ZERO) + 5;
    CHECK_EQUAL(fault_handle(&fault, &walk), FAULT_RESOLVED);
    CHECK_EQUAL(walk.address, fault.address);
    CHECK_EQUAL(walk.state, PTE_PROMISE);
    CHECK_EQUAL(fault_handle(&fault, &walk), FAULT_SPURIOUS);
    CHECK_EQUAL(walk.state, PTE_PRESENT);
}

TEST(fault, a_kept_promise_has_the_rights_it_named)
{
    pfn_t pfn;
    struct pt_attr attr;

    CHECK_HELPER(build_zoo());
    CHECK(sim_write(page_of(ZOO_ZERO), 0x42));
    CHECK(sim_lookup(&pt_kernel, page_of(ZOO_ZERO), &pfn, &attr));
    CHECK_EQUAL(attr.flags, PT_WRITE | PT_GLOBAL | PT_OWNED);
    CHECK_EQUAL(record_of(pfn)->type, FRAME_KMAP);
    CHECK_EQUAL(record_of(pfn)->refs, 1);
    uint8_t value;
    CHECK(sim_read(page_of(ZOO_ZERO_READ_ONLY), &value) && value == 0);
    CHECK(!sim_write(page_of(ZOO_ZERO_READ_ONLY), 1));
    CHECK_EQUAL(sim_last_fault(), FAULT_READ_ONLY);
}

/* A promise of 1 GiB is split for the page, and stays for all others. */
TEST(fault, a_large_promise_stays_but_for_the_page)
{
    sim_boot(RAM_BYTES);
    vaddr_t block = (vaddr_t)kmap_alloc(4 * GiB, KMAP_LAZY, "large");
    vaddr_t large = align_up(block, GiB);
    CHECK(block != 0);
    CHECK_EQUAL(once_query(&pt_kernel, large).level, 2);
    CHECK(sim_write(large + 300 * MiB + 5, 1));
    CHECK_EQUAL(frames_of(FRAME_KMAP), 1);
    CHECK_EQUAL(once_query(&pt_kernel, large).state, PTE_PROMISE);
    CHECK_EQUAL(once_query(&pt_kernel, large).level, 1);
    CHECK_EQUAL(once_query(&pt_kernel, large + 300 * MiB).state, PTE_PRESENT);
    CHECK_EQUAL(once_query(&pt_kernel, large + 300 * MiB + PAGE_BYTES).state,
                PTE_PROMISE);
    CHECK_EQUAL(once_query(&pt_kernel, large + 300 * MiB + PAGE_BYTES).level,
                0);
    CHECK_EQUAL(once_query(&pt_kernel, large + 302 * MiB).level, 1);
    CHECK_EQUAL(once_query(&pt_kernel, large + GiB).level, 2);
    CHECK(kmap_check());
    kmap_free((void *)block);
    CHECK_EQUAL(frames_of(FRAME_KMAP), 0);
}

/* The page and the two tables of the split: each can be missing. */
TEST(fault, without_memory_a_promise_stays_a_promise)
{
    enum { PLACES = 3 };

    sim_boot(RAM_BYTES);
    vaddr_t block = (vaddr_t)kmap_alloc(4 * GiB, KMAP_LAZY, "large");
    vaddr_t address = align_up(block, GiB) + 300 * MiB;
    struct audit_verdict verdict;
    CHECK(block != 0);
    for (uint64_t k = 1; k <= PLACES; k++) {
        frame_inject(k);
        enum fault_result result = handle(address, W);
        frame_inject(0);
        CHECK_EQUAL(result, FAULT_NO_MEMORY);
        CHECK_EQUAL(once_query(&pt_kernel, address).state, PTE_PROMISE);
        CHECK_EQUAL(frames_of(FRAME_KMAP), 0);
        CHECK(kmap_check() && pt_audit(&pt_kernel, &verdict));
    }
    CHECK_EQUAL(handle(address, W), FAULT_RESOLVED);
    CHECK_EQUAL(once_query(&pt_kernel, address).state, PTE_PRESENT);
    CHECK(kmap_check() && pt_audit(&pt_kernel, &verdict));
    kmap_free((void *)block);
    CHECK_EQUAL(frames_of(FRAME_KMAP), 0);
}

/* --- a promise that changes under a fault --------------------------------- */

static struct {
    vaddr_t page;
    enum pt_promise promise;
    bool is_due;
} change;

/* What another CPU does to the page between two steps of its fault. */
static void change_promise(void)
{
    if (!change.is_due) {
        return;
    }
    change.is_due = false;
    if (once_promise(&pt_kernel, change.page, PAGE_BYTES, change.promise,
                     pt_attr(PT_READ)) != MM_OK) {
        port_panic("the promise at 0x%lx cannot be changed", change.page);
    }
}

/*
 * The promise of @page is read, then a frame is allocated for it. That lets
 * the interrupt in which the promise becomes @promise.
 */
static enum fault_result change_under_fault(vaddr_t page,
                                            enum pt_promise promise)
{
    change.page = page;
    change.promise = promise;
    change.is_due = true;
    sim_set_interrupt(change_promise);
    enum fault_result result = handle(page, W);
    sim_set_interrupt(NULL);
    return result;
}

/* Not kept, and its frame is back; the next try says what is there now. */
TEST(fault, a_promise_withdrawn_meanwhile_is_not_kept)
{
    static const struct {
        enum pt_promise promise;
        enum fault_result next;
    } table[] = {
        {PT_GUARD, FAULT_GUARD},
        {PT_GUARD_GROW, FAULT_GUARD},
        {PT_OBJECT, FAULT_NOT_MAPPED},
    };

    for (unsigned i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        CHECK_HELPER(build_zoo());
        vaddr_t page = page_of(ZOO_ZERO);
        uint64_t frames = frames_of(FRAME_KMAP);

        CHECK_EQUAL(change_under_fault(page, table[i].promise), FAULT_SPURIOUS);
        CHECK(!change.is_due);
        CHECK_EQUAL(frames_of(FRAME_KMAP), frames);
        CHECK_EQUAL(once_query(&pt_kernel, page).state, PTE_PROMISE);
        CHECK_EQUAL(once_query(&pt_kernel, page).promise, table[i].promise);
        CHECK_EQUAL(handle(page, W), table[i].next);
    }
}

/* --- words ---------------------------------------------------------------- */

TEST(fault, every_result_has_words)
{
    for (unsigned i = 0; i < FAULT_RESULTS; i++) {
        const char *text = fault_result_text((enum fault_result)i);
        const char *advice = fault_result_advice((enum fault_result)i);

        CHECK(text != NULL && text[0] != '\0');
        CHECK(advice != NULL && advice[0] != '\0');
        for (unsigned j = 0; j < i; j++) {
            CHECK(text != fault_result_text((enum fault_result)j));
        }
    }
}
