/* SPDX-License-Identifier: MIT */
/* Cursors of several threads in one space. */
/*
 * At risk: two cursors that change one table at once, or a count in its record;
 * a table that is released while another thread is on its way through it; a
 * cursor that waits for one it has nothing in common with, or does not wait
 * for one it has. So threads play CPUs. Some have windows of their own, side by
 * side in the same tables, and a model each: the operations of pt_ops. Others
 * work on the same pages; of these only what must always hold is known: what a
 * cursor has read stays so until it is closed, and in the end nothing is lost.
 * ThreadSanitizer sees what no test can.
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include <mm/audit.h>
#include <mm/frame.h>
#include <mm/port.h>
#include "tests/host/players.h"
#include "tests/host/sim.h"
#include "tests/host/sim_mmu.h"
#include "tests/host/sim_pt.h"
#include "tests/shared/figures.h"
#include "tests/shared/once.h"

#define RAM_BYTES GiB
#define WINDOW    UINT64_C(0x40000000)

static struct pt space;

/* What one thread has. */
static struct share {
    struct pt own;
    struct pt_ops ops;
    struct pt_layout layout;
    bool is_right;
    uint64_t changes;
} share[PLAYERS];

static struct share *mine(void)
{
    return &share[player_me()->cpu];
}

static void begin(uint64_t *out_frames)
{
    sim_boot_cpus(RAM_BYTES, PLAYERS, SIM_ALL_PARTS);
    *out_frames = frames_of_spaces();
    CHECK_EQUAL(pt_init(&space), MM_OK);
}

static void end(uint64_t frames)
{
    struct audit_verdict verdict;

    CHECK(pt_audit(&space, &verdict));
    pt_fini(&space);
    CHECK_EQUAL(sim_stale(), 0);
    CHECK_EQUAL(frames_of_spaces(), frames);
    CHECK(frame_check());
}

/* --- windows of their own --------------------------------------------------
 */

#define OPERATIONS 1200
#define PIECE      60

static void run_operations(void)
{
    uint8_t bytes[PIECE * PT_OP_BYTES];
    struct share *me = mine();
    size_t done = 0;

    me->is_right = true;
    for (unsigned i = 0; i < OPERATIONS / PIECE && me->is_right; i++) {
        pt_ops_generate(&player_me()->random, bytes, sizeof(bytes));
        me->is_right = pt_ops_run(&me->ops, bytes, sizeof(bytes), &done);
        sim_poll();
    }
    if (!me->is_right) {
        char text[200];

        done = done < PIECE ? done : PIECE - 1;
        pt_op_describe(&me->ops, bytes + done * PT_OP_BYTES, text,
                       sizeof(text));
        printf("# CPU %u: %s; %s\n", player_me()->cpu, me->ops.reason, text);
    }
    me->is_right = pt_ops_fini(&me->ops) && me->is_right;
    tlb_switch(&pt_kernel.tlb);
}

/* Windows in @shared. */
static void run_windows(struct pt *shared)
{
    static struct pt_world world;
    void *memory[PLAYERS];
    uint64_t frames;

    CHECK_HELPER(begin(&frames));
    world = sim_pt_world;
    world.is_alone = false;
    world.complaint = NULL;
    for (unsigned i = 0; i < PLAYERS; i++) {
        memory[i] = malloc(pt_model_bytes(&share[i].layout));
        CHECK(memory[i] != NULL);
        CHECK(pt_ops_join(&share[i].ops, &world, &share[i].layout, shared,
                          &share[i].own, memory[i]));
    }
    CHECK_HELPER(players_run(PLAYERS, run_operations));
    for (unsigned i = 0; i < PLAYERS; i++) {
        free(memory[i]);
        CHECK(share[i].is_right);
    }
    CHECK_HELPER(end(frames));
}

/* In the same two tables of level 0. */
TEST(pt_threads, windows_in_one_table)
{
    for (unsigned i = 0; i < PLAYERS; i++) {
        share[i].layout =
            (struct pt_layout){.start = WINDOW + MiB + i * 128 * PAGE_BYTES,
                               .segment = {{PAGE_BYTES, 128}}};
    }
    CHECK_HELPER(run_windows(&space));
}

/* Tables of level 0 of their own, under one of level 1. */
TEST(pt_threads, windows_side_by_side)
{
    for (unsigned i = 0; i < PLAYERS; i++) {
        share[i].layout = (struct pt_layout){
            .start = WINDOW + i * (6 * MiB),
            .segment = {{PAGE_BYTES, 512}, {2 * MiB, 1}, {PAGE_BYTES, 512}}};
    }
    CHECK_HELPER(run_windows(&space));
}

/* With nothing in common but the top; and a border within a table. */
TEST(pt_threads, windows_of_terabytes)
{
    for (unsigned i = 0; i < PLAYERS; i++) {
        share[i].layout = pt_layout_large(i * (2 * TiB));
    }
    CHECK_HELPER(run_windows(&space));
}

/* Of the kernel, which all CPUs have, whatever they have loaded. */
TEST(pt_threads, windows_of_the_kernel)
{
    for (unsigned i = 0; i < PLAYERS; i++) {
        share[i].layout = (struct pt_layout){
            .start = SIM_KMAP + 64 * GiB + i * (5 * MiB),
            .segment = {{PAGE_BYTES, 512}, {MiB, 1}, {PAGE_BYTES, 512}}};
    }
    CHECK_HELPER(run_windows(&pt_kernel));
}

/* --- the same pages --------------------------------------------------------
 */

#define PAGES   (3u * 512)
#define ACTIONS 1500

struct part {
    vaddr_t start;
    uint64_t bytes;
};

static struct part some_part(void)
{
    unsigned first = player_below(PAGES);
    unsigned count =
        1 + (player_below(4) == 0 ? player_below(600) : player_below(12));

    if (player_below(8) == 0) {
        first &= ~511u;
        count = 512;
    }
    count = count < PAGES - first ? count : PAGES - first;
    return (struct part){WINDOW + first * PAGE_BYTES, count * PAGE_BYTES};
}

/* What the range says, in one number; A and D come and go. */
static uint64_t sum_of(struct pt_cursor *cursor, struct part part)
{
    struct pt_entry entry;
    uint64_t sum = 0;

    for (vaddr_t at = part.start; at < part.start + part.bytes;
         at = entry.start + entry.bytes) {
        pt_query(cursor, at, &entry);
        player_expect(at - entry.start < entry.bytes);
        sum = sum * 31 + entry.state * 7 + entry.level;
        sum = sum * 31 + entry.pfn.v + entry.payload + entry.attr.flags;
    }
    return sum;
}

/* Nobody else changes what is open. */
static void read_twice(struct pt_cursor *cursor, struct part part)
{
    uint64_t sum = sum_of(cursor, part);

    sched_yield();
    player_expect(sum_of(cursor, part) == sum);
}

static struct pt_attr some_attr(void)
{
    static const uint8_t flags[] = {0, PT_WRITE, PT_USER | PT_WRITE, PT_NONE};

    return pt_attr(flags[player_below(4)]);
}

static enum mm_status own_page(struct pt_cursor *cursor, vaddr_t at)
{
    pfn_t pfn = frame_alloc(0, FRAME_USER, FRAME_ANY);
    struct pt_attr attr = some_attr();

    if (pfn_is_none(pfn)) {
        return MM_ENOMEM;
    }
    *(uint64_t *)phys_to_virt(pfn_to_phys(pfn)) = at;
    attr.flags |= PT_OWNED;
    enum mm_status status = pt_map(cursor, at, pfn, PAGE_BYTES, attr);
    if (status != MM_OK) {
        frame_free(pfn, 0);
    }
    return status;
}

static enum mm_status resize(struct pt_cursor *cursor, struct part part)
{
    if (player_below(2)) {
        return pt_split(cursor, part.start);
    }
    return pt_merge(cursor, part.start, 1);
}

static enum mm_status change(struct pt_cursor *cursor, struct part part)
{
    vaddr_t reached;

    switch (player_below(8)) {
    case 0:
        return pt_promise(cursor, part.start, part.bytes, PT_ZERO, some_attr(),
                          0);
    case 1:
    case 2:
        return pt_unmap(cursor, part.start, part.bytes, &reached);
    case 3:
        return pt_protect(cursor, part.start, part.bytes, some_attr());
    case 4:
        return resize(cursor, part);
    case 5:
        return pt_map(cursor, part.start,
                      pfn_of((UINT64_C(1) << 20) + player_below(1024)),
                      part.bytes, some_attr());
    default:
        return own_page(cursor, part.start);
    }
}

static void change_part(struct part part)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;

    player_expect(pt_open(&space, part.start, part.start + part.bytes, &batch,
                          &cursor) == MM_OK);
    read_twice(&cursor, part);
    enum mm_status status = change(&cursor, part);
    player_expect(status == MM_OK || status == MM_EEXIST ||
                  status == MM_ENOENT || status == MM_EINVAL);
    mine()->changes += status == MM_OK ? 1 : 0;
    read_twice(&cursor, part);
    pt_close(&cursor);
    tlb_commit(&batch);
}

static void move_part(struct part part)
{
    struct part target = some_part();
    struct tlb_batch batch;
    struct pt_cursor cursor;

    target.bytes = part.bytes;
    if (target.start + target.bytes > WINDOW + PAGES * PAGE_BYTES ||
        pt_open_two(&space, part.start, part.start + part.bytes, target.start,
                    target.start + target.bytes, &batch, &cursor) != MM_OK) {
        return;
    }
    uint64_t sum = sum_of(&cursor, target);
    enum mm_status status =
        pt_move(&cursor, part.start, target.start, part.bytes);
    player_expect(status == MM_OK || status == MM_EEXIST);
    player_expect(status == MM_OK || sum_of(&cursor, target) == sum);
    mine()->changes += status == MM_OK ? 1 : 0;
    pt_close(&cursor);
    tlb_commit(&batch);
}

static void age_part(struct part part)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;

    player_expect(pt_open(&space, part.start, part.start + part.bytes, &batch,
                          &cursor) == MM_OK);
    (void)pt_age(&cursor, part.start, part.bytes, 1 + player_below(3), NULL,
                 NULL);
    pt_close(&cursor);
    tlb_commit(&batch);
}

/* A copy of the range, used and thrown away. */
static void copy_part(struct part part)
{
    if (pt_init(&mine()->own) == MM_OK) {
        player_expect(once_copy(&space, &mine()->own, part.start, part.bytes) ==
                      MM_OK);
        pt_fini(&mine()->own);
    }
}

static bool want(void *context, const struct pt_collapse *found)
{
    (void)context;
    player_expect(found->present + found->promised == 512);
    return true;
}

static void collapse_part(struct part part)
{
    vaddr_t block = part.start & ~(2 * MiB - 1);
    enum mm_status status = pt_collapse(&space, block, want, NULL);

    player_expect(status == MM_OK || status == MM_ENOENT ||
                  status == MM_EBUSY || status == MM_ENOMEM ||
                  status == MM_ERANGE);
    mine()->changes += status == MM_OK ? 1 : 0;
}

/* Each CPU has a word of its own in every page. */
static void touch_part(struct part part)
{
    vaddr_t address = part.start + (2 + player_me()->cpu) * sizeof(uint64_t);
    paddr_t physical;

    if (sim_translate(address, player_below(2) ? WALK_WRITE : WALK_READ,
                      &physical) == WALK_ALLOWED &&
        physical.v < RAM_BYTES) {
        volatile uint64_t *word = phys_to_virt(physical);

        *word = *word + 1;
    }
    sim_poll();
}

static void look_up(struct part part)
{
    uint64_t irq = port_irq_save();

    (void)pt_lookup(&space, part.start);
    port_irq_restore(irq);
}

static void act_on_all(void)
{
    static void (*const rare[])(struct part part) = {
        move_part, age_part, copy_part, collapse_part, look_up};

    tlb_switch(&space.tlb);
    for (unsigned i = 0; i < ACTIONS; i++) {
        struct part part = some_part();

        switch (player_below(4)) {
        case 0:
            touch_part(part);
            break;
        case 1:
            rare[player_below(5)](part);
            break;
        default:
            change_part(part);
            break;
        }
        player_expect(!sim_irq_is_off());
    }
    tlb_switch(&pt_kernel.tlb);
}

TEST(pt_threads, all_change_the_same_pages)
{
    uint64_t frames;

    CHECK_HELPER(begin(&frames));
    CHECK_HELPER(players_run(PLAYERS, act_on_all));
    for (unsigned i = 0; i < PLAYERS; i++) {
        CHECK(share[i].changes > 0);
    }
    CHECK_HELPER(end(frames));
}
