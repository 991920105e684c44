/* SPDX-License-Identifier: MIT */
/* Four CPUs in one space, one of them in the middle of what another does. */
/*
 * At risk: a page that is written to while it is copied, moved, or made part of
 * a large one; a copy of a space that sees what is written after it was made.
 * So wherever interrupts go off or on, another CPU may do something whole:
 * write, copy the space, change rights and sizes, collapse. Each CPU has a byte
 * of its own in every page and knows what it wrote last; what a copy has seen
 * must stay. One thread plays all, so that a seed is always the same.
 */
#include "tests/host/space_scene.h"

#include <stdio.h>
#include <string.h>

#include <mm/port.h>
#include "base/bits.h"
#include "space/supply.h"

#define HERE   GiB
#define AWAY   (HERE + 4 * MiB)
#define BYTES  (2 * MiB)
#define CPUS   4
#define KIDS   2
#define PAGES  512
#define NEAR   3 /* pages in use at each end */
#define TRIES  8 /* faults until a write is done */
#define NOBODY KIDS

#define SEEDS 1500
#define STEPS 40
#define KINDS 12

/* State of interrupts, as sim_cpus.c has it. */
#define INTERRUPTS_ON UINT64_C(0x1290)

/* A copy of the space. */
struct kid {
    struct pt pt;
    bool is_there;
    bool is_busy;
    uint8_t seen[PAGES][CPUS];
};

static struct kid kids[KIDS];
static uint8_t said[CPUS][PAGES]; /* written last */
static struct {
    struct tlb_batch batch;
    bool is_pending;
    unsigned kid; /* that is a copy once the batch is committed, or NOBODY */
} cpu[CPUS];

static struct test_random numbers;
static unsigned depth; /* CPUs that wait for one that has come between */
static bool is_moved;

static void act(void);

static unsigned below(unsigned limit)
{
    return (unsigned)test_random_below(&numbers, limit);
}

static unsigned some_page(void)
{
    unsigned page = below(2 * NEAR);

    return page < NEAR ? page : PAGES - 1 - (page - NEAR);
}

static bool agree(void *context, const struct pt_collapse *found)
{
    (void)context;
    (void)found;
    return true;
}

/* --- copies ----------------------------------------------------------------
 */

/* The byte at @address of @pt, past all CPUs, or NULL. */
static uint8_t *byte_at(struct pt *pt, vaddr_t address)
{
    struct pt_attr attr;
    pfn_t pfn;

    if (!sim_lookup(pt, address, &pfn, &attr)) {
        return NULL;
    }
    return (uint8_t *)phys_to_virt(pfn_to_phys(pfn)) + address % PAGE_BYTES;
}

static uint8_t value_in(struct kid *kid, unsigned page, unsigned who)
{
    uint8_t *byte = byte_at(&kid->pt, HERE + page * PAGE_BYTES + who);

    return byte != NULL ? *byte : 0;
}

static void each_byte(struct kid *kid,
                      void (*visit)(struct kid *kid, unsigned page,
                                    unsigned who))
{
    for (unsigned i = 0; i < 2 * NEAR; i++) {
        unsigned page = i < NEAR ? i : PAGES - 1 - (i - NEAR);

        for (unsigned who = 0; who < CPUS; who++) {
            visit(kid, page, who);
        }
    }
}

static void remember(struct kid *kid, unsigned page, unsigned who)
{
    kid->seen[page][who] = value_in(kid, page, who);
}

static void compare(struct kid *kid, unsigned page, unsigned who)
{
    CHECK_EQUAL(value_in(kid, page, who), kid->seen[page][who]);
}

static void complete(unsigned me)
{
    unsigned number = cpu[me].kid;

    if (!cpu[me].is_pending) {
        return;
    }
    tlb_commit(&cpu[me].batch);
    cpu[me].is_pending = false;
    if (number != NOBODY) {
        kids[number].is_there = true;
        each_byte(&kids[number], remember);
        cpu[me].kid = NOBODY;
    }
}

static void fork_into(unsigned number)
{
    struct kid *kid = &kids[number];
    unsigned me = sim_cpu();
    struct pt_cursor cursor;

    for (unsigned i = 0; i < CPUS; i++) {
        if (cpu[i].kid == number) {
            return;
        }
    }
    if (kid->is_there) {
        each_byte(kid, compare);
        if (below(3) != 0) {
            return;
        }
        kid->is_there = false;
        pt_fini(&kid->pt);
    }
    CHECK_EQUAL(pt_init(&kid->pt), MM_OK);
    CHECK_EQUAL(pt_open(&space, HERE, HERE + BYTES, &cpu[me].batch, &cursor),
                MM_OK);
    frame_inject(below(6) == 0 ? 1 + below(4) : 0);
    enum mm_status status = pt_copy(&cursor, &kid->pt, HERE, BYTES);
    frame_inject(0);
    pt_close(&cursor);
    cpu[me].is_pending = true;
    if (status != MM_OK) {
        complete(me);
        pt_fini(&kid->pt);
        return;
    }
    cpu[me].kid = number;
    if (below(2) != 0) {
        complete(me);
    }
}

static void unmap_in(struct kid *kid, unsigned page)
{
    vaddr_t address = HERE + page * PAGE_BYTES;

    CHECK_EQUAL(once_unmap(&kid->pt, address, PAGE_BYTES), MM_OK);
    memset(kid->seen[page], 0, CPUS);
}

static void write_in(struct kid *kid, unsigned page, unsigned who)
{
    vaddr_t address = HERE + page * PAGE_BYTES;
    struct pt_attr attr;
    pfn_t pfn;

    for (unsigned i = 0;
         i < TRIES && sim_lookup(&kid->pt, address, &pfn, &attr); i++) {
        if (attr.flags & PT_WRITE) {
            *byte_at(&kid->pt, address + who) = ++kid->seen[page][who];
            return;
        }
        (void)supply_copy(&kid->pt, address);
    }
}

static void use_copy(struct kid *kid)
{
    unsigned page = some_page();
    unsigned who = below(CPUS);

    switch (below(5)) {
    case 0:
        unmap_in(kid, page);
        break;
    case 1:
        (void)!pt_collapse(&kid->pt, HERE, agree, NULL);
        break;
    default:
        write_in(kid, page, who);
        break;
    }
    each_byte(kid, compare);
}

/* --- the space -------------------------------------------------------------
 */

/* False: what is there is on its way elsewhere. */
static bool write_byte(vaddr_t address, uint8_t value)
{
    for (unsigned i = 0; i < TRIES; i++) {
        struct fault fault = {.address = address,
                              .code = FAULT_W | FAULT_P,
                              .rules = {true, true, true, true}};
        struct walk walk;
        paddr_t physical;

        if (sim_translate(address, WALK_WRITE, &physical) == WALK_ALLOWED) {
            *(uint8_t *)phys_to_virt(physical) = value;
            return true;
        }
        if (!fault_is_settled(fault_handle(&fault, &walk))) {
            return false;
        }
    }
    return false;
}

static void write_and_read(void)
{
    unsigned me = sim_cpu();
    unsigned page = some_page();
    uint8_t next = (uint8_t)(said[me][page] + 1);
    uint8_t value;

    if (!write_byte(HERE + page * PAGE_BYTES + me, next)) {
        CHECK(is_moved);
        return;
    }
    said[me][page] = next;
    page = some_page();
    if (!sim_read(HERE + page * PAGE_BYTES + me, &value)) {
        CHECK(is_moved);
        return;
    }
    CHECK_EQUAL(value, said[me][page]);
}

/* What cannot be done now is not done. */
static void change(struct pt_cursor *cursor, vaddr_t page)
{
    switch (below(6)) {
    case 0:
        (void)!pt_split(cursor, page);
        break;
    case 1:
        (void)!pt_merge(cursor, HERE, 1);
        break;
    case 2:
        (void)pt_age(cursor, HERE, BYTES, PT_AGE_ACCESSED | PT_AGE_DIRTY, NULL,
                     NULL);
        break;
    case 3:
        (void)!pt_protect(cursor, page, PAGE_BYTES, pt_attr(PT_WRITE));
        break;
    case 4:
        (void)!pt_protect(cursor, HERE, BYTES, pt_attr(PT_WRITE));
        break;
    default:
        (void)!pt_protect(cursor, HERE, BYTES, pt_attr(PT_NONE));
        (void)!pt_protect(cursor, HERE, BYTES, pt_attr(PT_WRITE));
        break;
    }
}

static void change_some(void)
{
    unsigned me = sim_cpu();
    vaddr_t page = HERE + some_page() * PAGE_BYTES;
    struct pt_cursor cursor;

    CHECK_EQUAL(pt_open(&space, HERE, HERE + BYTES, &cpu[me].batch, &cursor),
                MM_OK);
    cpu[me].is_pending = true;
    change(&cursor, page);
    pt_close(&cursor);
    if (below(2) != 0) {
        complete(me);
    }
}

static void move_to(vaddr_t from, vaddr_t to)
{
    unsigned me = sim_cpu();
    struct pt_cursor cursor;

    CHECK_EQUAL(pt_open_two(&space, from, from + BYTES, to, to + BYTES,
                            &cpu[me].batch, &cursor),
                MM_OK);
    cpu[me].is_pending = true;
    frame_inject(below(5) == 0 ? 1 + below(3) : 0);
    enum mm_status status = pt_move(&cursor, from, to, BYTES);
    frame_inject(0);
    if (status == MM_ENOMEM) {
        status = pt_move(&cursor, from, to, BYTES);
    }
    CHECK_EQUAL(status, MM_OK);
    pt_close(&cursor);
    complete(me);
}

static void act_as(unsigned other)
{
    unsigned me = sim_cpu();

    depth++;
    sim_set_cpu(other);
    if (!sim_irq_is_off()) {
        act();
    }
    sim_set_cpu(me);
    depth--;
}

/* Away and back; aligned as it was, or not. */
static void move_some(void)
{
    vaddr_t away = AWAY + below(2) * PAGE_BYTES;

    is_moved = true;
    CHECK_HELPER(move_to(HERE, away));
    if (below(2) != 0) {
        CHECK_HELPER(act_as((sim_cpu() + 1) % CPUS));
    }
    CHECK_HELPER(move_to(away, HERE));
    is_moved = false;
}

static void with_kid(bool is_fork)
{
    unsigned number = below(KIDS);
    struct kid *kid = &kids[number];

    if (kid->is_busy || (!is_fork && !kid->is_there)) {
        return;
    }
    kid->is_busy = true;
    if (is_fork) {
        CHECK_HELPER(fork_into(number));
    } else {
        CHECK_HELPER(use_copy(kid));
    }
    kid->is_busy = false;
}

static void act(void)
{
    unsigned me = sim_cpu();

    if (cpu[me].is_pending) {
        complete(me);
        return;
    }
    switch (below(KINDS)) {
    case 0:
    case 1:
        (void)!pt_collapse(&space, HERE, agree, NULL);
        break;
    case 3:
        with_kid(true);
        break;
    case 4:
        change_some();
        break;
    case 5:
    case 6:
        with_kid(false);
        break;
    case 7:
        if (depth == 0) {
            move_some();
        }
        break;
    default:
        write_and_read();
        break;
    }
}

/* --- the test --------------------------------------------------------------
 */

/* Interrupts are off or about to be: one more CPU comes between. */
static void come_between(void)
{
    if (depth > 0 || test_has_failed() || below(3) == 0) {
        return;
    }
    depth++;
    port_irq_restore(INTERRUPTS_ON);
    act_as((sim_cpu() + 1 + below(CPUS - 1)) % CPUS);
    (void)port_irq_save();
    depth--;
}

static void begin(void)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;

    memset(said, 0, sizeof(said));
    memset(kids, 0, sizeof(kids));
    depth = 0;
    is_moved = false;
    CHECK_EQUAL(pt_init(&space), MM_OK);
    for (unsigned i = 0; i < CPUS; i++) {
        cpu[i].is_pending = false;
        cpu[i].kid = NOBODY;
        sim_set_cpu(i);
        tlb_switch(&space.tlb);
    }
    sim_set_cpu(0);
    CHECK_EQUAL(pt_open(&space, HERE, HERE + BYTES, &batch, &cursor), MM_OK);
    CHECK_EQUAL(pt_promise(&cursor, HERE, BYTES, PT_ZERO, pt_attr(PT_WRITE), 0),
                MM_OK);
    if (below(3) != 0) {
        CHECK_EQUAL(pt_split(&cursor, HERE), MM_OK);
    }
    pt_close(&cursor);
    tlb_commit(&batch);
}

static void end(void)
{
    struct audit_verdict verdict;

    for (unsigned i = 0; i < CPUS; i++) {
        sim_set_cpu(i);
        complete(i);
    }
    for (unsigned i = 0; i < KIDS; i++) {
        if (kids[i].is_there) {
            CHECK_HELPER(each_byte(&kids[i], compare));
            pt_fini(&kids[i].pt);
        }
    }
    CHECK_EQUAL(sim_stale(), 0);
    for (unsigned i = 0; i < CPUS; i++) {
        sim_set_cpu(i);
        tlb_switch(&pt_kernel.tlb);
    }
    sim_set_cpu(0);
    CHECK(pt_audit(&space, &verdict));
    pt_fini(&space);
}

static void run(uint64_t seed)
{
    struct frame_stats before;
    struct frame_stats after;

    test_random_init(&numbers, seed);
    sim_boot_cpus(RAM, CPUS, sim_part_sets[below(SIM_PART_SETS)]);
    frame_stats(&before);
    CHECK_HELPER(begin());
    sim_set_interrupt(come_between);
    for (unsigned i = 0; i < STEPS && !test_has_failed(); i++) {
        sim_set_cpu(0);
        act();
    }
    sim_set_interrupt(NULL);
    if (test_has_failed()) {
        printf("# sequence %llu\n", (unsigned long long)seed);
        return;
    }
    CHECK_HELPER(end());
    frame_stats(&after);
    CHECK_EQUAL(after.by_type[FRAME_USER], before.by_type[FRAME_USER]);
    CHECK_EQUAL(after.by_type[FRAME_TABLE], before.by_type[FRAME_TABLE]);
    CHECK(frame_check());
}

TEST(pt_inject, cpus_come_between_whatever_is_done)
{
    for (unsigned i = 0; i < SEEDS; i++) {
        CHECK_HELPER(run(test_seed() * SEEDS + i));
    }
}
