/* SPDX-License-Identifier: MIT */
/* pt ops: every address, after every operation. */
/*
 * Both sides are kept as they were when they agreed: what each cell of the
 * model said, and all entries of all tables. Where neither has changed, they
 * still agree; where either has, every page is looked at again. So after each
 * step each address is known to translate as the model says, though few are
 * read. What CPUs have cached is compared with the tables beside
 * (pt_world.complaint).
 */
#include "tests/shared/pt_ops_impl.h"

#include <mm/port.h>
#include "base/memory.h"

/* Of one space, at once: twice as many as were seen. */
#define TABLES 32

/* One table of this level has all of the range, if that is the kernel's. */
#define KERNEL_LEVEL 2

/* A table as it was; level 0..4. */
struct table_copy {
    pfn_t table;
    vaddr_t start; /* what its first entry translates */
    unsigned level;
    pte_t entry[PTE_TABLE_COUNT];
};

struct space_copy {
    struct pt_page *page; /* what the model said, a cell each */
    unsigned tables;
    struct table_copy table[TABLES]; /* in no order; the first is the root */
};

struct pt_every {
    struct space_copy space[PT_SPACES];
    unsigned dues;     /* cells to look at */
    unsigned *due;     /* which */
    uint8_t *is_noted; /* of each cell: is it among them? */
};

size_t pt_every_bytes(const struct pt_layout *layout)
{
    size_t each =
        PT_SPACES * sizeof(struct pt_page) + sizeof(unsigned) + sizeof(uint8_t);

    return sizeof(struct pt_every) + pt_layout_cells(layout) * each;
}

void pt_ops_see_every(struct pt_ops *ops, void *memory)
{
    struct pt_every *every = memory;
    unsigned cells = ops->model.cells;
    struct pt_page *page = (struct pt_page *)(every + 1);

    for (unsigned i = 0; i < PT_SPACES; i++) {
        every->space[i].page = page;
        every->space[i].tables = 0;
        memcpy(page, ops->model.page[i], cells * sizeof(*page));
        page += cells;
    }
    every->due = (unsigned *)page;
    every->is_noted = (uint8_t *)(every->due + cells);
    memset(every->is_noted, 0, cells);
    every->dues = 0;
    ops->every = every;
}

/* --- what has changed ----------------------------------------------------- */

static void note_cell(struct pt_every *every, unsigned index)
{
    if (!every->is_noted[index]) {
        every->is_noted[index] = 1;
        every->due[every->dues++] = index;
    }
}

/* Cells, and entries, that are compared at once while they are alike. */
#define CELLS_AT_ONCE   64
#define ENTRIES_AT_ONCE 64

static bool is_same(const struct pt_page *a, const struct pt_page *b)
{
    return a->number == b->number && a->word == b->word &&
           a->state == b->state && a->promise == b->promise &&
           a->is_dirty == b->is_dirty && pt_attr_equal(a->attr, b->attr);
}

static void note_pages(struct pt_ops *ops, unsigned space)
{
    const struct pt_page *now = ops->model.page[space];
    struct pt_page *was = ops->every->space[space].page;

    for (unsigned at = 0; at < ops->model.cells; at += CELLS_AT_ONCE) {
        unsigned count = ops->model.cells - at;

        count = count < CELLS_AT_ONCE ? count : CELLS_AT_ONCE;
        if (memcmp(&now[at], &was[at], count * sizeof(*now)) == 0) {
            continue;
        }
        for (unsigned i = at; i < at + count; i++) {
            if (!is_same(&now[i], &was[i])) {
                note_cell(ops->every, i);
            }
        }
        memcpy(&was[at], &now[at], count * sizeof(*now));
    }
}

static void add_table(struct pt_ops *ops, unsigned space, pfn_t table,
                      vaddr_t start, unsigned level)
{
    struct space_copy *copy = &ops->every->space[space];

    for (unsigned i = 0; i < copy->tables; i++) {
        if (pfn_equal(copy->table[i].table, table) &&
            copy->table[i].start == start && copy->table[i].level == level) {
            return;
        }
    }
    if (copy->tables == TABLES) {
        pt_ops_fail(ops, __LINE__, "tables", TABLES + 1, TABLES);
        return;
    }
    struct table_copy *one = &copy->table[copy->tables++];
    one->table = table;
    one->start = start;
    one->level = level;
    memset(one->entry, 0, sizeof(one->entry));
}

/* Rights of a table are all on, so that those of a leaf decide; but no user
 * comes through the kernel's. */
#define TABLE_ALL (PTE_P | PTE_RW | PTE_US)

static void note_entry(struct pt_ops *ops, unsigned space, vaddr_t start,
                       unsigned level, pte_t entry)
{
    struct pt_span span = pt_model_find(&ops->model, start, pte_span(level));

    if (span.count == 0) {
        EXPECT_EQUAL(ops, entry.v, 0); /* nobody was here */
    }
    for (unsigned i = 0; i < span.count; i++) {
        note_cell(ops->every, span.first + i);
    }
    if (pte_is_table(entry, level)) {
        EXPECT_EQUAL(ops, entry.v & (TABLE_ALL | PTE_XD),
                     ops->is_kernel ? PTE_P | PTE_RW : TABLE_ALL);
        add_table(ops, space, pte_table(entry), start, level - 1);
    }
}

static void note_entries(struct pt_ops *ops, unsigned space,
                         struct table_copy *copy)
{
    const pte_t *now = phys_to_virt(pfn_to_phys(copy->table));
    bool is_top = copy->level + 1 == pt_features.levels;
    unsigned count = is_top ? PTE_TABLE_COUNT / 2 : PTE_TABLE_COUNT;

    if (memcmp(now, copy->entry, count * sizeof(*now)) == 0) {
        return;
    }
    for (unsigned at = 0; at < count; at += ENTRIES_AT_ONCE) {
        if (memcmp(&now[at], &copy->entry[at],
                   ENTRIES_AT_ONCE * sizeof(*now)) == 0) {
            continue;
        }
        for (unsigned i = at; i < at + ENTRIES_AT_ONCE; i++) {
            if (now[i].v != copy->entry[i].v) {
                copy->entry[i] = now[i];
                note_entry(ops, space, copy->start + i * pte_span(copy->level),
                           copy->level, now[i]);
            }
        }
    }
}

/* Does the table still stand where it stood? */
static bool is_reached(const struct pt *pt, const struct table_copy *copy)
{
    unsigned level = pt_features.levels - 1;
    pfn_t table = pt->root;

    while (level > copy->level) {
        const pte_t *entries = phys_to_virt(pfn_to_phys(table));
        pte_t entry = entries[pte_index(copy->start, level)];

        if (!pte_is_table(entry, level)) {
            return false;
        }
        table = pte_table(entry);
        level--;
    }
    return pfn_equal(table, copy->table);
}

/*
 * The root; of the kernel's tables, the one that has the range and nothing but
 * that.
 */
static void add_first(struct pt_ops *ops, unsigned space)
{
    vaddr_t start = ops->model.cell[0].start;
    const struct pt *pt = ops->space[space];
    struct walk walk;

    if (!pt->is_kernel) {
        add_table(ops, space, pt->root, 0, pt_features.levels - 1);
        return;
    }
    walk_address(pt->root, start, &walk);
    for (unsigned i = 0; i < walk.count; i++) {
        const struct walk_step *step = &walk.step[i];

        if (step->level == KERNEL_LEVEL) {
            add_table(ops, space, phys_to_pfn(step->table),
                      align_down(start, pte_span(KERNEL_LEVEL + 1)),
                      KERNEL_LEVEL);
        }
    }
}

static void note_tables(struct pt_ops *ops, unsigned space)
{
    struct space_copy *copy = &ops->every->space[space];
    unsigned at = 0;

    add_first(ops, space);
    while (at < copy->tables && !ops->has_failed) {
        if (!is_reached(ops->space[space], &copy->table[at])) {
            copy->table[at] = copy->table[--copy->tables];
            continue;
        }
        note_entries(ops, space, &copy->table[at]);
        at++;
    }
}

/* --- is it as the model says? --------------------------------------------- */

/* Do both lie in the span of one entry of @level? */
static bool is_beside(vaddr_t a, vaddr_t b, unsigned level)
{
    return a >> pte_shift(level) == b >> pte_shift(level);
}

/* Walk to @address; from where the last walk came to, if that is the way. */
static void go_to(const struct pt *pt, vaddr_t address, struct walk *walk)
{
    struct walk_step *last = &walk->step[walk->count - 1];

    if (!is_beside(walk->address, address, last->level + 1)) {
        walk_address(pt->root, address, walk);
    } else if (!is_beside(walk->address, address, last->level)) {
        const pte_t *entries = phys_to_virt(last->table);
        pte_t entry = entries[pte_index(address, last->level)];

        last->entry = entry;
        walk->state = pte_state(entry, last->level);
        if (pte_is_table(entry, last->level)) {
            walk_address(pt->root, address, walk);
        }
    }
    walk->address = address;
}

/* What stands where @walk has come to. */
static struct pt_entry entry_of(const struct walk *walk)
{
    const struct walk_step *last = &walk->step[walk->count - 1];
    pte_t entry = last->entry;
    bool is_promise = walk->state == PTE_PROMISE;

    return (struct pt_entry){
        .state = walk->state,
        .level = last->level,
        .start = align_down(walk->address, pte_span(last->level)),
        .bytes = pte_span(last->level),
        .attr = pte_attr(entry, last->level),
        .pfn = pte_pfn(entry, last->level),
        .promise = is_promise ? pte_promise(entry) : PT_ZERO,
        .payload = pte_payload(entry),
        .dirty = (pte_accessed_dirty(entry) & PTE_D) != 0,
    };
}

/* All of its pages: as many entries as say it. */
static void look_at_cell(struct pt_ops *ops, unsigned space, unsigned index,
                         struct walk *walk)
{
    const struct pt_cell *cell = &ops->model.cell[index];
    uint64_t offset = 0;

    while (offset < cell->bytes && !ops->has_failed) {
        vaddr_t address = cell->start + offset;

        go_to(ops->space[space], address, walk);
        struct pt_entry entry = entry_of(walk);
        pt_ops_match(ops, &entry, pt_ops_page(ops, space, index), address,
                     offset);
        offset += entry.start + entry.bytes - address;
    }
}

static void look_at_dues(struct pt_ops *ops, unsigned space)
{
    struct pt_every *every = ops->every;
    struct walk walk;

    if (every->dues > 0) {
        walk_address(ops->space[space]->root,
                     ops->model.cell[every->due[0]].start, &walk);
    }

    for (unsigned i = 0; i < every->dues; i++) {
        every->is_noted[every->due[i]] = 0;
        if (!ops->has_failed) {
            look_at_cell(ops, space, every->due[i], &walk);
        }
    }
    every->dues = 0;
}

void pt_ops_look_at_every(struct pt_ops *ops)
{
    for (unsigned space = 0; space < pt_ops_spaces(ops) && !ops->has_failed;
         space++) {
        note_pages(ops, space);
        note_tables(ops, space);
        look_at_dues(ops, space);
    }
}
