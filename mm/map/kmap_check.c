/* SPDX-License-Identifier: MIT */
/* kmap_check: what is known of blocks: reports, and the check of all. */
#include "map/kmap_impl.h"

#include <mm/walk.h>

/*
 * kmap_find() waits for the arena so many turns: about a millisecond, PAUSE
 * being 40 to 140 cycles. Only kmap_check() holds it longer.
 */
#define FIND_TURNS 20000

/* --- reports -------------------------------------------------------------- */

struct search {
    vaddr_t address;
    struct kmap_info *out;
    bool is_found;
};

/* Stop at the segment that holds the address. */
static bool search_segment(void *context, const struct vmem_segment *segment)
{
    struct search *search = context;
    const struct kmap_block *block = segment->owner;

    if (search->address < segment->start ||
        search->address - segment->start >= segment->size) {
        return true;
    }
    if (block != NULL && block_is_live(block)) {
        search->is_found = true;
        search->out->start = block->start;
        search->out->bytes = block->bytes;
        search->out->name =
            atomic_load_explicit(&block->name, memory_order_relaxed);
        search->out->is_guard = search->address < block->start ||
                                search->address >= block_end(block);
    }
    return false;
}

bool kmap_find(vaddr_t address, struct kmap_info *out)
{
    struct search search = {address, out, false};

    /*
     * A report must end, also that of a fault inside the arena, and also when
     * the CPU that is at work there was stopped.
     */
    vmem_try_walk(&kmap_arena, FIND_TURNS, search_segment, &search);
    return search.is_found;
}

void kmap_stats(struct kmap_stats *out)
{
    struct vmem_stats stats;
    uint64_t kept;

    ready_count(&kept, &out->kept_pages);
    vmem_stats(&kmap_arena, &stats);
    out->blocks = stats.allocated - kept;
    out->bytes = stats.total - stats.free - stats.allocated * 2 * GUARD_BYTES -
                 out->kept_pages * PAGE_BYTES;
    out->arena_bytes = stats.total;
    out->arena_free = stats.free;
}

/* The last entry on the way to @address, and where the next one begins. */
static struct walk_step read_entry(vaddr_t address, vaddr_t *out_next)
{
    struct walk walk;

    walk_address(pt_kernel.root, address, &walk);
    struct walk_step last = walk.step[walk.count - 1];
    uint64_t span = pte_span(last.level);
    *out_next = align_down(address, span) + span;
    return last;
}

static bool is_guard(vaddr_t page)
{
    vaddr_t next;
    struct walk_step step = read_entry(page, &next);

    return step.level == 0 && pte_state(step.entry, 0) == PTE_PROMISE &&
           pte_promise(step.entry) == PT_GUARD;
}

static bool is_content(struct walk_step step)
{
    enum pte_state state = pte_state(step.entry, step.level);

    return state == PTE_PRESENT ||
           (state == PTE_PROMISE && pte_promise(step.entry) == PT_ZERO);
}

/* The name of a block that somebody has. */
static const char *name_of(const struct kmap_block *block)
{
    return block_is_live(block)
               ? atomic_load_explicit(&block->name, memory_order_relaxed)
               : "kept";
}

/* May @step stand between the guards of @block? */
static bool belongs(const struct kmap_block *block, struct walk_step step)
{
    if (block_is_live(block)) {
        return is_content(step);
    }
    return step.level == 0 && kmap_entry_is_kept(step.entry); /* I3 */
}

static bool check_block(const struct kmap_block *block,
                        const struct vmem_segment *segment)
{
    const char *name = name_of(block);

    CHECK_OR_FAIL(segment_of(block) == segment->start &&
                      segment_bytes(block) == segment->size,
                  "I1: kmap: \"%s\" is not its segment 0x%lx", name,
                  segment->start);
    CHECK_OR_FAIL(is_guard(segment->start) && is_guard(block_end(block)),
                  "I1: kmap: \"%s\" at 0x%lx has lost a guard", name,
                  block->start);
    for (vaddr_t at = block->start; at < block_end(block);) {
        vaddr_t next;
        CHECK_OR_FAIL(belongs(block, read_entry(at, &next)) &&
                          next <= block_end(block),
                      "I1: kmap: \"%s\": wrong entry at 0x%lx", name, at);
        at = next;
    }
    return true;
}

static bool check_gap(const struct vmem_segment *segment)
{
    for (vaddr_t at = segment->start; at - segment->start < segment->size;) {
        vaddr_t next;
        CHECK_OR_FAIL(pte_is_absent(read_entry(at, &next).entry),
                      "I2: kmap: an entry at free address 0x%lx", at);
        at = next;
    }
    return true;
}

/* Is it being made or freed just now? Small ones may be kept instead. */
static bool is_changing(const struct kmap_block *block)
{
    return block == NULL || (!block_is_live(block) && !block_is_small(block));
}

static bool check_segment(void *context, const struct vmem_segment *segment)
{
    (void)context;
    if (!segment->is_allocated) {
        return check_gap(segment);
    }
    return is_changing(segment->owner) || check_block(segment->owner, segment);
}

bool kmap_check(void)
{
    return ready_check() && vmem_check(&kmap_arena) &&
           vmem_walk(&kmap_arena, check_segment, NULL);
}
