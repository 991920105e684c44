/* SPDX-License-Identifier: MIT */
/* schedule_acts: what CPUs do in one space, each knowing what it has written.
 */
#include "tests/host/schedule_acts_scene.h"

#include <string.h>

#include <mm/frame.h>
#include <mm/port.h>
#include "base/bits.h"
#include "space/supply.h"
#include "tests/host/sim.h"

#define BLOCK UINT64_C(0x40000000)
/* Where a page is moved to, and where tables come and go: other tables. */
#define AWAY (BLOCK + 8 * MiB)
#define NEAR (BLOCK + 4 * MiB)

/* Pages that are used: both ends of the block. */
#define PAGES 3

static enum acts_state begins_as;

/* A space that is copied from the first, and what it says. */
struct kid {
    struct pt pt;
    bool is_there;
    bool is_busy; /* one of the two has to do with it */
    uint8_t byte[PAGES][ACTS_CPUS];
};

static struct kid kid[ACTS_CPUS]; /* of each CPU; the first of SHARED, too */

static uint8_t written[ACTS_CPUS][PAGES];
/* Has anybody taken pages away? Then their contents are lost. */
static bool is_gone;
/* Has anybody taken the right to write away for a while? */
static bool is_read_only;

static vaddr_t page_at(unsigned page)
{
    return BLOCK + (page < PAGES - 1 ? page : 511) * PAGE_BYTES;
}

/* What is open stays so while the other CPU goes on, if it can. */
static void shut(struct pt_cursor *cursor, struct tlb_batch *batch)
{
    schedule_wait();
    scene_shut(cursor, batch);
}

static void expect(bool is_true, const char *otherwise)
{
    if (!is_true) {
        schedule_fail(otherwise);
    }
}

/* --- bytes ---------------------------------------------------------------- */

static bool is_excused(void)
{
    enum fault_result result = sim_last_fault();

    return (is_gone && result == FAULT_NOT_MAPPED) ||
           (is_read_only && result == FAULT_READ_ONLY);
}

static void write_byte(unsigned page)
{
    unsigned cpu = port_cpu();
    uint8_t next = (uint8_t)(written[cpu][page] + 1);

    if (sim_write(page_at(page) + cpu, next)) {
        written[cpu][page] = next;
    } else {
        expect(is_excused(), "a page cannot be written to");
    }
}

static void read_byte(unsigned page)
{
    unsigned cpu = port_cpu();
    uint8_t byte = 0;

    if (!sim_read(page_at(page) + cpu, &byte)) {
        expect(is_excused(), "a page cannot be read");
    } else if (byte != written[cpu][page]) {
        expect(is_gone && byte == 0, "what was written is lost");
        written[cpu][page] = 0;
    }
}

void acts_poke(void)
{
    unsigned cpu = port_cpu();
    paddr_t physical;

    if (sim_translate(page_at(0) + cpu, WALK_WRITE, &physical) ==
        WALK_ALLOWED) {
        uint8_t *byte = phys_to_virt(physical);

        expect(is_gone || *byte == written[cpu][0], "what was written is lost");
        *byte = ++written[cpu][0];
    }
}

/* Where the byte is, without a fault; NULL: nowhere. */
static uint8_t *find_byte(struct pt *pt, unsigned page, unsigned cpu)
{
    uint64_t irq = port_irq_save();
    struct pt_leaf leaf = pt_lookup(pt, page_at(page));

    port_irq_restore(irq);
    if (!pte_is_present(leaf.entry)) {
        return NULL;
    }
    pfn_t pfn = pt_leaf_pfn(leaf, page_at(page));
    return (uint8_t *)phys_to_virt(pfn_to_phys(pfn)) + cpu;
}

static uint8_t byte_of(struct pt *pt, unsigned page, unsigned cpu)
{
    const uint8_t *byte = find_byte(pt, page, cpu);

    return byte != NULL ? *byte : 0;
}

/* --- copies of the space -------------------------------------------------- */

static void check_kid(struct kid *one)
{
    for (unsigned page = 0; page < PAGES; page++) {
        for (unsigned cpu = 0; cpu < ACTS_CPUS; cpu++) {
            expect(byte_of(&one->pt, page, cpu) == one->byte[page][cpu],
                   "a copy of the space has changed");
        }
    }
}

/* All that was written before, nothing that will be written later. */
static void note_kid(struct kid *one, uint8_t before[ACTS_CPUS][PAGES])
{
    for (unsigned page = 0; page < PAGES; page++) {
        for (unsigned cpu = 0; cpu < ACTS_CPUS; cpu++) {
            uint8_t byte = byte_of(&one->pt, page, cpu);

            expect(is_gone || (byte >= before[cpu][page] &&
                               byte <= written[cpu][page]),
                   "a copy of the space says what nobody wrote");
            one->byte[page][cpu] = byte;
        }
    }
    one->is_there = true;
    one->is_busy = false;
}

static void make_kid(struct kid *one)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;
    uint8_t before[ACTS_CPUS][PAGES];

    if (pt_init(&one->pt) != MM_OK) {
        schedule_fail("no memory for a space");
    }
    memcpy(before, written, sizeof(before));
    scene_open_at(&scene_space[0], BLOCK, 2 * MiB, &batch, &cursor);
    enum mm_status status = pt_copy(&cursor, &one->pt, BLOCK, 2 * MiB);
    shut(&cursor, &batch);
    expect(status == MM_OK, "the space cannot be copied");
    note_kid(one, before);
}

static void end_kid(struct kid *one)
{
    if (one->is_there) {
        check_kid(one);
        one->is_there = false;
        pt_fini(&one->pt);
    }
}

/* Is it the caller's now? It stays so until it is given up. */
static bool take_kid(struct kid *one)
{
    bool is_free = one->is_there && !one->is_busy;

    one->is_busy = one->is_busy || is_free;
    return is_free;
}

/* --- what the two do ------------------------------------------------------ */

static void write_first(void)
{
    write_byte(0);
    read_byte(0);
}

static void write_all(void)
{
    for (unsigned page = 0; page < PAGES; page++) {
        write_byte(page);
    }
}

static void copy_space(void)
{
    make_kid(&kid[port_cpu()]);
    write_byte(0);
}

/* The page changes hands: whoever has copied it before has an old copy. */
static void copy_anew(void)
{
    if (take_kid(&kid[2])) {
        end_kid(&kid[2]);
    }
    write_byte(0);
    make_kid(&kid[port_cpu()]);
}

static void promise_anew(void)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;
    vaddr_t reached;

    is_gone = true;
    scene_open_at(&scene_space[0], page_at(0), PAGE_BYTES, &batch, &cursor);
    enum mm_status status = pt_unmap(&cursor, page_at(0), PAGE_BYTES, &reached);
    if (status == MM_OK) {
        status = pt_promise(&cursor, page_at(0), PAGE_BYTES, PT_ZERO,
                            pt_attr(PT_WRITE), 0);
    }
    shut(&cursor, &batch);
    expect(status == MM_OK, "a page cannot be promised anew");
}

/* Another page with another frame, copied on write as the first was. */
static void fill_anew(void)
{
    promise_anew();
    write_byte(0);
    make_kid(&kid[port_cpu()]);
}

/* In the copy of the space, as a process of its own would. */
static void write_in_kid(void)
{
    struct kid *one = &kid[2];

    if (!take_kid(one)) {
        return;
    }
    for (unsigned i = 0; i < 4; i++) {
        uint64_t irq = port_irq_save();
        struct pt_leaf leaf = pt_lookup(&one->pt, page_at(0));

        port_irq_restore(irq);
        if (pte_is_present(leaf.entry) && (leaf.entry.v & PTE_RW)) {
            *find_byte(&one->pt, 0, 2) = ++one->byte[0][2];
            break;
        }
        (void)supply_copy(&one->pt, page_at(0));
    }
    check_kid(one);
    one->is_busy = false;
}

static bool want(void *context, const struct pt_collapse *found)
{
    (void)context;
    return found->present > 0;
}

static void collapse(void)
{
    enum mm_status status = pt_collapse(&scene_space[0], BLOCK, want, NULL);

    expect(status == MM_OK || status == MM_EBUSY || status == MM_ENOENT,
           "the block cannot be looked at");
}

static void unmap_all(void)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;
    vaddr_t reached = BLOCK;

    is_gone = true;
    while (reached < BLOCK + 2 * MiB) {
        vaddr_t start = reached;
        uint64_t bytes = BLOCK + 2 * MiB - start;

        scene_open_at(&scene_space[0], start, bytes, &batch, &cursor);
        enum mm_status status = pt_unmap(&cursor, start, bytes, &reached);
        shut(&cursor, &batch);
        expect(status == MM_OK, "the block cannot be unmapped");
    }
}

static void protect(void)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;

    is_read_only = true;
    scene_open_at(&scene_space[0], BLOCK, 2 * MiB, &batch, &cursor);
    enum mm_status status =
        pt_protect(&cursor, page_at(0), 2 * PAGE_BYTES, pt_attr(PT_READ));
    schedule_wait();
    if (status == MM_OK) {
        status =
            pt_protect(&cursor, page_at(0), 2 * PAGE_BYTES, pt_attr(PT_WRITE));
    }
    shut(&cursor, &batch);
    expect(status == MM_OK, "pages cannot be protected");
}

static void resize(void)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;

    scene_open_at(&scene_space[0], BLOCK, 2 * MiB, &batch, &cursor);
    if (pt_split(&cursor, BLOCK) != MM_OK) {
        (void)!pt_merge(&cursor, BLOCK, 1);
    }
    shut(&cursor, &batch);
}

/* And back, while others may find nothing there. */
static void move(void)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;
    enum mm_status status;

    is_gone = true;
    for (unsigned i = 0; i < 2; i++) {
        vaddr_t from = i == 0 ? page_at(0) : AWAY;
        vaddr_t to = i == 0 ? AWAY : page_at(0);

        if (pt_open_two(&scene_space[0], from, from + PAGE_BYTES, to,
                        to + PAGE_BYTES, &batch, &cursor) != MM_OK) {
            schedule_fail("two ranges cannot be opened");
        }
        status = pt_move(&cursor, from, to, PAGE_BYTES);
        shut(&cursor, &batch);
        expect(status == MM_OK || status == MM_EEXIST,
               "a page cannot be moved");
    }
}

/* Reach beyond one table, whatever is below. */
static void reach_across(void)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;

    scene_open_at(&scene_space[0], BLOCK - PAGE_BYTES, 8 * MiB, &batch,
                  &cursor);
    shut(&cursor, &batch);
}

/* A table comes, and goes. */
static void map_beside(void)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;
    vaddr_t reached;

    scene_open_at(&scene_space[0], NEAR, PAGE_BYTES, &batch, &cursor);
    enum mm_status status =
        pt_promise(&cursor, NEAR, PAGE_BYTES, PT_ZERO, pt_attr(PT_WRITE), 0);
    shut(&cursor, &batch);
    expect(status == MM_OK, "a page cannot be promised");
    scene_open_at(&scene_space[0], NEAR, PAGE_BYTES, &batch, &cursor);
    status = pt_unmap(&cursor, NEAR, PAGE_BYTES, &reached);
    shut(&cursor, &batch);
    expect(status == MM_OK, "a page cannot be unmapped");
}

static const struct act {
    const char *name;
    void (*run)(void);
} acts[ACTS] = {
    [WRITE] = {"write", write_first},
    [WRITE_ALL] = {"write all", write_all},
    [COPY] = {"copy the space", copy_space},
    [COPY_ANEW] = {"copy it anew", copy_anew},
    [WRITE_IN_KID] = {"write in the copy", write_in_kid},
    [COLLAPSE] = {"collapse", collapse},
    [PROMISE_ANEW] = {"promise anew", promise_anew},
    [FILL_ANEW] = {"fill anew", fill_anew},
    [UNMAP] = {"unmap", unmap_all},
    [PROTECT] = {"protect", protect},
    [RESIZE] = {"split or merge", resize},
    [MOVE] = {"move", move},
    [REACH_ACROSS] = {"reach across", reach_across},
    [BESIDE] = {"map beside", map_beside},
};

const char *acts_name(enum acts_what what)
{
    return acts[what].name;
}

void acts_do(enum acts_what what)
{
    acts[what].run();
}

void acts_cache(void)
{
    tlb_switch(&scene_space[0].tlb);
    for (unsigned page = 0; page < PAGES; page++) {
        if (begins_as == WRITTEN && page < PAGES - 1) {
            write_byte(page);
        } else if (begins_as != PROMISED) {
            read_byte(page);
        }
    }
}

void acts_check(void)
{
    for (unsigned page = 0; page < PAGES; page++) {
        read_byte(page);
        write_byte(page);
    }
}

void acts_end(void)
{
    end_kid(&kid[port_cpu()]);
    tlb_switch(&pt_kernel.tlb);
}

void acts_prepare(enum acts_state state)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;

    begins_as = state;
    memset(written, 0, sizeof(written));
    is_gone = false;
    is_read_only = false;
    scene_open_at(&scene_space[0], BLOCK, 2 * MiB, &batch, &cursor);
    CHECK_EQUAL(
        pt_promise(&cursor, BLOCK, 2 * MiB, PT_ZERO, pt_attr(PT_WRITE), 0),
        MM_OK);
    if (begins_as != PROMISED) {
        CHECK_EQUAL(pt_split(&cursor, BLOCK), MM_OK);
    }
    scene_shut(&cursor, &batch);
    if (begins_as == SHARED) {
        tlb_switch(&scene_space[0].tlb);
        write_byte(0);
        write_byte(PAGES - 1);
        make_kid(&kid[2]);
        tlb_switch(&pt_kernel.tlb);
    }
}
