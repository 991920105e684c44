/* SPDX-License-Identifier: MIT */
/* pt ops: does the space say what the model says? */
#include "tests/shared/pt_ops_impl.h"

#include <mm/audit.h>
#include <mm/port.h>

/* Records whose holders are counted in each look at everything. */
#define COUNTED_BLOCKS 8

/* Flags, memory type and tag, for a message. */
static uint64_t attr_number(struct pt_attr attr)
{
    return (uint64_t)attr.flags << 16 | (uint64_t)attr.memory << 8 | attr.tag;
}

void pt_ops_match(struct pt_ops *ops, const struct pt_entry *entry,
                  const struct pt_page *page, vaddr_t address, uint64_t offset)
{
    uint64_t expected =
        page->number + (pt_page_counts(page) ? offset >> PAGE_SHIFT : 0);
    uint64_t pages = (address - entry->start) >> PAGE_SHIFT;

    EXPECT_EQUAL(ops, entry->bytes, pte_span(entry->level));
    EXPECT(ops, address - entry->start < entry->bytes);
    EXPECT_EQUAL(ops, entry->state, page->state);
    if (page->state == PTE_ABSENT) {
        return;
    }
    if (!pt_attr_alike(entry->attr, page->attr)) {
        EXPECT_EQUAL(ops, attr_number(entry->attr), attr_number(page->attr));
    }
    if (pt_page_has_frame(page)) {
        EXPECT_EQUAL(ops, entry->pfn.v + pages, expected);
        EXPECT(ops,
               entry->state != PTE_PRESENT || !page->is_dirty || entry->dirty);
        return;
    }
    EXPECT_EQUAL(ops, entry->promise, page->promise);
    EXPECT_EQUAL(ops, entry->payload + (pt_page_counts(page) ? pages : 0),
                 expected);
}

/* The page at @offset of the cell. */
static void look_at(struct pt_ops *ops, unsigned space, unsigned index,
                    uint64_t offset, struct pt_entry *out)
{
    const struct pt_page *page = pt_ops_page(ops, space, index);
    vaddr_t address = ops->model.cell[index].start + offset;

    pt_query(&ops->cursor, address, out);
    pt_ops_match(ops, out, page, address, offset);
}

void pt_ops_look(struct pt_ops *ops, unsigned space, unsigned index)
{
    uint64_t bytes = ops->model.cell[index].bytes;
    struct pt_entry entry;

    look_at(ops, space, index, 0, &entry);
    if (bytes > PAGE_BYTES && !ops->has_failed) {
        uint64_t inside = test_random_below(&ops->random, bytes / PAGE_BYTES);
        look_at(ops, space, index, inside * PAGE_BYTES, &entry);
        look_at(ops, space, index, bytes - PAGE_BYTES, &entry);
    }
}

/* --- accesses ------------------------------------------------------------- */

static bool is_same_verdict(const struct pt_ops *ops, enum walk_verdict a,
                            enum walk_verdict b)
{
    bool is_refusal = a > WALK_NOT_PRESENT && b > WALK_NOT_PRESENT;

    return a == b || (is_refusal && !ops->world->is_exact);
}

/* An access was allowed: was it the right page, and what has it done? */
static void note_access(struct pt_ops *ops, struct pt_page *page,
                        uint64_t bytes, unsigned access,
                        const struct pt_sight *sight, uint64_t offset)
{
    if (!pfn_is_none(sight->pfn)) {
        EXPECT_EQUAL(ops, sight->pfn.v, page->number + (offset >> PAGE_SHIFT));
    }
    /* A cell of many pages may have many leaves. */
    page->is_dirty =
        page->is_dirty || ((access & WALK_WRITE) && bytes == PAGE_BYTES);
    if (!sight->has_memory || (access & WALK_EXEC)) {
        return;
    }
    if ((access & WALK_WRITE) == 0) {
        EXPECT_EQUAL(ops, sight->word, page->word);
        return;
    }
    page->word = sight->word;
    if (pt_page_is_shared(page)) {
        pt_model_write(&ops->model, page->number, sight->word);
    }
}

/* Would a fault handler perhaps change something? */
static bool is_handled(const struct pt_page *page)
{
    return (page->state == PTE_PROMISE && page->promise == PT_ZERO) ||
           (page->state == PTE_PRESENT && (page->attr.flags & PT_COW));
}

void pt_ops_access(struct pt_ops *ops, unsigned index, unsigned access)
{
    const struct pt_world *world = ops->world;
    struct pt_sight sight = {.pfn = PFN_NONE, .word = ops->next_word++};
    const struct pt_cell *cell = &ops->model.cell[index];
    uint64_t offset = 0;

    unsigned space = pt_ops_in_reach(ops);

    if (space == PT_OPS_NONE) {
        return;
    }
    struct pt_page *page = pt_ops_page(ops, space, index);
    access &= world->accesses;
    sight.space = &ops->space[space]->tlb;
    sight.has_memory =
        pt_page_has_frame(page) && (page->attr.flags & PT_OWNED) != 0;
    if (!sight.has_memory) {
        offset = test_random_below(&ops->random, cell->bytes / 8) * 8;
    }
    enum walk_verdict expected = pt_page_verdict(page, access, &world->rules);
    if (expected == WALK_ALLOWED && !sight.has_memory && !world->is_exact) {
        return; /* who knows what is there? */
    }
    if (world->has_handler && is_handled(page)) {
        return; /* PT_OP_FAULT does that */
    }
    enum walk_verdict verdict =
        world->access(cell->start + offset, access, &sight);
    if (!is_same_verdict(ops, verdict, expected)) {
        pt_ops_fail(ops, __LINE__, "verdict of an access", verdict, expected);
    } else if (verdict == WALK_ALLOWED) {
        note_access(ops, page, cell->bytes, access, &sight, offset);
    }
}

/* Without a lock, from whatever is loaded. */
static void look_up(struct pt_ops *ops, unsigned space, unsigned index)
{
    const struct pt_page *page = pt_ops_page(ops, space, index);
    vaddr_t address = ops->model.cell[index].start;
    uint64_t irq = port_irq_save();
    struct pt_leaf leaf = pt_lookup(ops->space[space], address);
    bool is_present = pte_is_present(leaf.entry);

    port_irq_restore(irq);
    EXPECT_EQUAL(ops, is_present, page->state == PTE_PRESENT);
    if (is_present) {
        EXPECT_EQUAL(ops, pt_leaf_pfn(leaf, address).v, page->number);
        EXPECT(ops,
               pt_attr_alike(pte_attr(leaf.entry, leaf.level), page->attr));
    }
}

static void look_everywhere(struct pt_ops *ops, unsigned space, unsigned index)
{
    static const unsigned kind[] = {WALK_READ, WALK_WRITE, WALK_EXEC,
                                    WALK_READ};

    if (ops->open != PT_OPS_NONE) {
        if (ops->open == space && ops->is_all) {
            pt_ops_look(ops, space, index);
        }
        return;
    }
    look_up(ops, space, index);
    if (pt_ops_in_reach(ops) == space && !ops->has_failed) {
        uint64_t which = test_random_below(&ops->random, 8);
        pt_ops_access(ops, index,
                      kind[which % 4] | (which < 4 ? WALK_USER : 0));
    }
}

void pt_ops_sample(struct pt_ops *ops, unsigned space, struct pt_span span)
{
    unsigned last = span.first + span.count - 1;
    unsigned cells = ops->model.cells;
    unsigned sample[] = {
        span.first,
        last,
        span.first > 0 ? span.first - 1 : 0,
        last + 1 < cells ? last + 1 : last,
        span.first + (unsigned)test_random_below(&ops->random, span.count),
        (unsigned)test_random_below(&ops->random, cells),
    };

    for (unsigned i = 0; i < sizeof(sample) / sizeof(sample[0]); i++) {
        if (!ops->has_failed) {
            look_everywhere(ops, space, sample[i]);
        }
    }
}

/* --- everything ----------------------------------------------------------- */

/* What a walk says, without any cache. */
static void walk_to(struct pt_ops *ops, unsigned space, unsigned index)
{
    const struct pt_page *page = pt_ops_page(ops, space, index);
    unsigned access = index % 3 == 0   ? WALK_WRITE
                      : index % 3 == 1 ? WALK_EXEC
                                       : WALK_READ | WALK_USER;
    struct walk walk;

    walk_address(ops->space[space]->root, ops->model.cell[index].start, &walk);
    EXPECT_EQUAL(ops, walk_judge(&walk, access, &ops->world->rules, NULL),
                 pt_page_verdict(page, access, &ops->world->rules));
    if (page->state == PTE_PRESENT) {
        EXPECT_EQUAL(ops, phys_to_pfn(walk.physical).v, page->number);
    }
}

/* Of an entry that owns frames, note whose block it is: once an entry. */
static void note_block(struct pt_ops *ops, unsigned space, unsigned index,
                       const struct pt_entry *entry)
{
    uint64_t *seen = &ops->model.seen[space][index];
    bool is_first = entry->start == ops->model.cell[index].start;

    *seen = 0;
    const struct pt_page *page = pt_ops_page(ops, space, index);
    if (pt_page_has_frame(page) && (page->attr.flags & PT_OWNED) && is_first) {
        *seen = pt_page_block(page).v;
    }
}

static void compare_space(struct pt_ops *ops, unsigned space)
{
    static const struct pt_op any = {.what = PT_OP_SWITCH};
    struct pt_job job = {.op = &any, .space = space};
    struct pt_entry entry;

    if (!pt_ops_open(ops, &job)) {
        return;
    }
    for (unsigned i = 0; i < ops->model.cells && !ops->has_failed; i++) {
        const struct pt_page *page = pt_ops_page(ops, space, i);

        look_at(ops, space, i, 0, &entry);
        note_block(ops, space, i, &entry);
        if (ops->model.cell[i].bytes > PAGE_BYTES && !ops->has_failed) {
            pt_ops_look(ops, space, i);
        }
        if (ops->world->is_alone && !ops->has_failed) {
            walk_to(ops, space, i);
        }
        if (pt_page_has_frame(page) && (page->attr.flags & PT_OWNED) &&
            !ops->has_failed) {
            EXPECT_EQUAL(ops, pt_ops_word(pfn_of(page->number)), page->word);
        }
    }
}

static uint64_t count_holders(const struct pt_ops *ops, uint64_t head)
{
    uint64_t holders = 0;

    for (unsigned space = 0; space < pt_ops_spaces(ops); space++) {
        for (unsigned i = 0; i < ops->model.cells; i++) {
            holders += ops->model.seen[space][i] == head ? 1 : 0;
        }
    }
    return holders;
}

/* Has each block as many references as there are entries that own it? */
static void compare_records(struct pt_ops *ops)
{
    unsigned counted = 0;

    for (unsigned i = 0; i < 64 && counted < COUNTED_BLOCKS; i++) {
        unsigned space =
            (unsigned)test_random_below(&ops->random, pt_ops_spaces(ops));
        uint64_t index = test_random_below(&ops->random, ops->model.cells);
        uint64_t head = ops->model.seen[space][index];

        if (head != 0) {
            counted++;
            EXPECT_EQUAL(ops, atomic_load(&record_of(pfn_of(head))->refs),
                         count_holders(ops, head));
        }
    }
}

/* The same frames are mapped with many rights on purpose. */
static bool is_sound(const struct pt *pt)
{
    struct audit_verdict found;

    return pt_audit(pt, &found) ||
           (found.aliases.rights + found.aliases.memory > 0 &&
            found.writable_exec + found.reserved_bits + found.damaged +
                    found.freed_frames + found.wrong_counts +
                    found.empty_tables + found.lost_tables ==
                0);
}

bool pt_ops_compare(struct pt_ops *ops)
{
    pt_ops_close(ops);
    for (unsigned space = 0; space < pt_ops_spaces(ops) && !ops->has_failed;
         space++) {
        compare_space(ops, space);
    }
    if (!ops->has_failed) {
        compare_records(ops);
    }
    pt_ops_close(ops);
    for (unsigned space = 0; space < PT_SPACES && !ops->has_failed; space++) {
        if (ops->world->is_alone && !is_sound(ops->space[space])) {
            pt_ops_fail(ops, __LINE__, "pt_audit()", space, PT_SPACES);
        }
    }
    return !ops->has_failed;
}
