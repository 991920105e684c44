/* SPDX-License-Identifier: MIT */
/* memmap: from the firmware's claims to a sorted list with reasons. */
/*
 * Owns    the list of ranges, in RAM that the list itself describes.
 * Idea    Claims are painted over each other, weakest type first, so that the
 *         strongest remains on top; one operation, overlay(), does it all.
 * Picture
 *     usable    |==========================================|
 *     reserved           |=====|              |==============|
 *     list      |usable  |resvd|usable        |reserved      |
 *
 * Invariants
 *     I1 ranges are page-aligned and not empty
 *     I2 sorted by address and disjoint
 *     I3 each has a type other than a hole, a reason and an owner
 *     I4 neighbours that touch differ in type, reason or owner
 * Cost    An overlay is a binary search and one move of what lies above:
 *         nothing for the fifteen claims of a PC, fine for thousands.
 * Limits  The last page below 2^64 cannot be described: its end has no number.
 */
#include <mm/memmap.h>

#include "base/bits.h"
#include "base/check.h"
#include "base/memory.h"

/* Highest page boundary that has a number. */
#define TOP (UINT64_MAX - PAGE_BYTES + 1)

/*
 * Each claim adds two ranges at most (it may split one into three); these are
 * for what is carved out later.
 */
#define SPARE_RANGES 64

/* What had to be done to a claim; the words of the message. */
static const char *const empty_claim = "has length 0: ignored";
static const char *const hole_claim = "has no type: ignored";
static const char *const strange_claim = "has an unknown type: now reserved";
static const char *const wrapping_claim = "passes 2^64: clipped";
static const char *const high_claim = "is RAM beyond the reach of this CPU: "
                                      "clipped";
static const char *const small_claim = "has no whole page: ignored";

/*
 * Cut @claim to pages within reach.
 * Return: the correction that was needed, or NULL; nothing is left of the
 *         claim if out->start == out->end.
 */
static const char *tidy_claim(const struct memmap_claim *claim,
                              uint64_t physical_end, struct memmap_range *out)
{
    const char *correction = NULL;
    uint64_t start = claim->start;
    uint64_t end;

    *out = (struct memmap_range){0, 0, claim->type,
                                 claim->reason != NULL ? claim->reason : "",
                                 claim->owner != NULL ? claim->owner : ""};
    if (claim->length == 0) {
        return empty_claim;
    }
    if (claim->type == MEMMAP_HOLE) {
        return hole_claim;
    }
    if ((unsigned)claim->type >= MEMMAP_TYPES) {
        correction = strange_claim;
        out->type = MEMMAP_RESERVED;
    }
    if (!checked_add(start, claim->length, &end) || end > TOP) {
        correction = wrapping_claim;
        start = min_u64(start, TOP);
        end = TOP;
    }
    if (memmap_is_ram(out->type) && end > physical_end) {
        correction = high_claim;
        start = min_u64(start, physical_end);
        end = physical_end;
    }
    if (out->type == MEMMAP_USABLE) {
        start = align_up(start, PAGE_BYTES);
        end = align_down(end, PAGE_BYTES);
    } else if (start < end) {
        start = align_down(start, PAGE_BYTES);
        end = align_up(end, PAGE_BYTES);
    }
    if (start >= end) {
        return correction != NULL ? correction : small_claim;
    }
    out->start = start;
    out->end = end;
    return correction;
}

/* The claims as this file reads them: tidied, one by one. */
struct claims {
    const struct memmap_source *source;
    uint64_t physical_end;
    size_t count;
};

/* Tidied claim @index; false for one of which nothing is left. */
static bool claim_at(const struct claims *claims, size_t index,
                     struct memmap_range *out)
{
    struct memmap_claim claim;

    if (!claims->source->claim(claims->source->context, index, &claim)) {
        return false;
    }
    (void)tidy_claim(&claim, claims->physical_end, out);
    return out->start < out->end;
}

/* Count the claims and name those that need a correction: the first pass. */
static size_t count_claims(struct claims *claims)
{
    struct memmap_claim claim;
    struct memmap_range range;
    size_t clipped = 0;

    claims->count = 0;
    while (
        claims->source->claim(claims->source->context, claims->count, &claim)) {
        const char *correction =
            tidy_claim(&claim, claims->physical_end, &range);
        if (correction != NULL) {
            port_log("memmap: claim %lu (start 0x%lx, length 0x%lx, %s) %s",
                     claims->count, claim.start, claim.length,
                     memmap_type_name(claim.type), correction);
            clipped++;
        }
        claims->count++;
    }
    return clipped;
}

/* Is [start, end) inside one usable claim and touched by no other type? */
static bool is_undisputed(const struct claims *claims, uint64_t start,
                          uint64_t end)
{
    struct memmap_range range;
    bool is_inside = false;

    for (size_t i = 0; i < claims->count; i++) {
        if (!claim_at(claims, i, &range)) {
            continue;
        }
        if (range.type == MEMMAP_USABLE) {
            is_inside |= range.start <= start && end <= range.end;
        } else if (ranges_overlap(start, end, range.start, range.end)) {
            return false;
        }
    }
    return is_inside;
}

/*
 * Highest undisputed place for @bytes below @limit. Such a place ends where a
 * usable claim does, where another begins, or at the limit: try each. From the
 * last claim on: most maps ascend, and what lies lower is then passed by.
 * Return: its address, or TOP.
 */
static uint64_t find_home(const struct claims *claims, uint64_t bytes,
                          uint64_t limit)
{
    struct memmap_range range;
    uint64_t best = TOP;

    for (size_t i = claims->count; i-- > 0;) {
        if (!claim_at(claims, i, &range)) {
            continue;
        }
        uint64_t end = min_u64(
            range.type == MEMMAP_USABLE ? range.end : range.start, limit);
        if (end < bytes || (best != TOP && end - bytes <= best)) {
            continue;
        }
        if (is_undisputed(claims, end - bytes, end)) {
            best = end - bytes;
        }
    }
    return best;
}

size_t memmap_first_above(const struct memmap *map, uint64_t address)
{
    size_t low = 0;
    size_t high = map->count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (map->range[middle].end > address) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    return low;
}

static bool is_same_kind(const struct memmap_range *a,
                         const struct memmap_range *b)
{
    return a->type == b->type && a->reason == b->reason && a->owner == b->owner;
}

/* Put @range behind piece[count - 1]. Return: the new number of pieces. */
static size_t add_piece(struct memmap_range *piece, size_t count,
                        struct memmap_range range)
{
    if (count > 0 && is_same_kind(&piece[count - 1], &range)) {
        piece[count - 1].end = range.end;
        return count;
    }
    piece[count] = range;
    return count + 1;
}

/*
 * Put @top over what the list says about its addresses. The ranges it touches,
 * neighbours that only adjoin included, become one to three pieces: what is
 * left below, @top, what is left above.
 * Return: MM_OK; MM_ENOMEM if the list is full: nothing has changed.
 */
static enum mm_status overlay(struct memmap *map,
                              const struct memmap_range *top)
{
    struct memmap_range piece[3];
    size_t pieces = 0;
    size_t first = memmap_first_above(map, top->start - (top->start > 0));
    size_t last = first;

    while (last < map->count && map->range[last].start <= top->end) {
        last++;
    }
    if (first < last && map->range[first].start < top->start) {
        piece[pieces] = map->range[first];
        piece[pieces++].end = top->start;
    }
    pieces = add_piece(piece, pieces, *top);
    if (first < last && map->range[last - 1].end > top->end) {
        struct memmap_range above = map->range[last - 1];
        above.start = top->end;
        pieces = add_piece(piece, pieces, above);
    }
    size_t count = map->count - (last - first) + pieces;
    if (count > map->capacity) {
        return MM_ENOMEM;
    }
    memmove(&map->range[first + pieces], &map->range[last],
            (map->count - last) * sizeof(piece[0]));
    memcpy(&map->range[first], piece, pieces * sizeof(piece[0]));
    map->count = count;
    return MM_OK;
}

/* Paint all claims of one type. */
static void overlay_type(struct memmap *map, const struct claims *claims,
                         enum memmap_type type)
{
    struct memmap_range range;

    for (size_t i = 0; i < claims->count; i++) {
        if (claim_at(claims, i, &range) && range.type == type) {
            enum mm_status status = overlay(map, &range);
            ASSERT(status == MM_OK); /* see SPARE_RANGES */
        }
    }
}

/* Why there is no home for @bytes of list: said, and returned. */
static enum mm_status explain_homeless(const struct claims *claims,
                                       uint64_t bytes, uint64_t mapped_end)
{
    if (find_home(claims, PAGE_BYTES, claims->physical_end) == TOP) {
        port_log("memmap: none of %lu claims leaves one usable page",
                 claims->count);
        return MM_ENOENT;
    }
    port_log("memmap: no usable range below 0x%lx has room for the list of "
             "%lu claims, %lu bytes",
             mapped_end, claims->count, bytes);
    return MM_ENOMEM;
}

enum mm_status memmap_build(const struct memmap_source *source,
                            const struct memmap_limits *limits,
                            struct memmap *out_map)
{
    struct claims claims = {source,
                            align_down(limits->physical_end, PAGE_BYTES), 0};
    uint64_t mapped_end = align_down(limits->mapped_end, PAGE_BYTES);
    struct memmap map = {NULL, 0, 0, 0};

    map.clipped = count_claims(&claims);
    uint64_t bytes = align_up(
        (2 * claims.count + SPARE_RANGES) * sizeof(*map.range), PAGE_BYTES);
    uint64_t home = find_home(&claims, bytes, mapped_end);
    if (home == TOP) {
        return explain_homeless(&claims, bytes, mapped_end);
    }
    map.range = phys_to_virt(paddr_of(home));
    map.capacity = bytes / sizeof(*map.range);
    for (unsigned type = MEMMAP_HOLE + 1; type < MEMMAP_TYPES; type++) {
        overlay_type(&map, &claims, (enum memmap_type)type);
    }
    struct memmap_range own = {home, home + bytes, MEMMAP_KERNEL,
                               "carved at start", "memory map"};
    enum mm_status status = overlay(&map, &own);
    ASSERT(status == MM_OK); /* see SPARE_RANGES */
    ASSERT_SLOW(memmap_check(&map));
    *out_map = map;
    return MM_OK;
}

/*
 * Highest aligned place for @bytes in @range and below @below.
 * Return: its address, or TOP.
 */
static uint64_t place_in_range(const struct memmap_range *range, uint64_t bytes,
                               uint64_t alignment, uint64_t below)
{
    uint64_t end = min_u64(range->end, below);

    if (range->type != MEMMAP_USABLE || end < bytes) {
        return TOP;
    }
    uint64_t start = align_down(end - bytes, alignment);
    return start >= range->start ? start : TOP;
}

enum mm_status memmap_carve(struct memmap *map, uint64_t bytes,
                            uint64_t alignment, uint64_t below,
                            const char *owner, paddr_t *out)
{
    ASSERT(bytes > 0 && is_power_of_two(alignment) && alignment >= PAGE_BYTES);
    if (bytes > TOP) {
        return MM_ENOMEM;
    }
    bytes = align_up(bytes, PAGE_BYTES);
    for (size_t i = map->count; i-- > 0;) {
        uint64_t start =
            place_in_range(&map->range[i], bytes, alignment, below);
        if (start == TOP) {
            continue;
        }
        struct memmap_range range = {start, start + bytes, MEMMAP_KERNEL,
                                     "carved at start", owner};
        if (overlay(map, &range) != MM_OK) {
            return MM_ENOMEM;
        }
        *out = paddr_of(start);
        return MM_OK;
    }
    return MM_ENOMEM;
}

/* Is all of [start, end) RAM, and usable or not, as wanted? */
static bool is_ram(const struct memmap *map, paddr_t start, paddr_t end,
                   bool (*is_wanted)(enum memmap_type type))
{
    if (start.v >= end.v || !is_aligned(start.v | end.v, PAGE_BYTES)) {
        return false;
    }
    for (uint64_t at = start.v; at < end.v;) {
        const struct memmap_range *range = memmap_find(map, paddr_of(at));
        if (range == NULL || !is_wanted(range->type)) {
            return false;
        }
        at = range->end;
    }
    return true;
}

static bool is_kept_back(enum memmap_type type)
{
    return memmap_is_ram(type) && type != MEMMAP_USABLE;
}

static bool is_usable(enum memmap_type type)
{
    return type == MEMMAP_USABLE;
}

/*
 * [start, end) as another type. If it was one range, its reason and owner stay,
 * so that what goes and comes back is one with its neighbours again.
 */
static enum mm_status change_type(struct memmap *map, paddr_t start,
                                  paddr_t end, struct memmap_range changed)
{
    const struct memmap_range *old = memmap_find(map, start);
    bool comes_back = old->type == MEMMAP_OFFLINE || old->type == MEMMAP_USABLE;

    changed.start = start.v;
    changed.end = end.v;
    if (comes_back && old->end >= end.v) {
        changed.reason = old->reason;
        changed.owner = old->owner;
    }
    return overlay(map, &changed);
}

enum mm_status memmap_release(struct memmap *map, paddr_t start, paddr_t end)
{
    const struct memmap_range free = {
        .type = MEMMAP_USABLE, .reason = "released after start", .owner = ""};

    return is_ram(map, start, end, is_kept_back)
               ? change_type(map, start, end, free)
               : MM_EINVAL;
}

enum mm_status memmap_retire(struct memmap *map, paddr_t start, paddr_t end)
{
    const struct memmap_range gone = {
        .type = MEMMAP_OFFLINE, .reason = "taken out of use", .owner = ""};

    return is_ram(map, start, end, is_usable)
               ? change_type(map, start, end, gone)
               : MM_EINVAL;
}

const struct memmap_range *memmap_find(const struct memmap *map,
                                       paddr_t address)
{
    size_t index = memmap_first_above(map, address.v);

    if (index == map->count || map->range[index].start > address.v) {
        return NULL;
    }
    return &map->range[index];
}

uint64_t memmap_bytes(const struct memmap *map, enum memmap_type type)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < map->count; i++) {
        if (map->range[i].type == type) {
            bytes += map->range[i].end - map->range[i].start;
        }
    }
    return bytes;
}

uint64_t memmap_ram_end(const struct memmap *map)
{
    for (size_t i = map->count; i-- > 0;) {
        if (memmap_is_ram(map->range[i].type)) {
            return map->range[i].end;
        }
    }
    return 0;
}

bool memmap_is_ram(enum memmap_type type)
{
    return type == MEMMAP_USABLE || type == MEMMAP_RECLAIM ||
           type == MEMMAP_ACPI || type == MEMMAP_KERNEL ||
           type == MEMMAP_OFFLINE;
}

const char *memmap_type_name(enum memmap_type type)
{
    static const char *const name[MEMMAP_TYPES] = {
        "hole",    "usable",      "reclaimable", "ACPI", "kernel",
        "offline", "framebuffer", "reserved",    "bad"};

    return (unsigned)type < MEMMAP_TYPES ? name[type] : "unknown";
}

bool memmap_check(const struct memmap *map)
{
    uint64_t end = 0;

    CHECK_OR_FAIL(map->count <= map->capacity, "memmap: %lu of %lu ranges",
                  map->count, map->capacity);
    for (size_t i = 0; i < map->count; i++) {
        const struct memmap_range *range = &map->range[i];

        CHECK_OR_FAIL(range->start < range->end &&
                          is_aligned(range->start | range->end, PAGE_BYTES),
                      "memmap: I1: range %lu is 0x%lx..0x%lx", i, range->start,
                      range->end);
        CHECK_OR_FAIL(end <= range->start, "memmap: I2: range %lu at 0x%lx", i,
                      range->start);
        CHECK_OR_FAIL(range->type != MEMMAP_HOLE &&
                          (unsigned)range->type < MEMMAP_TYPES &&
                          range->reason != NULL && range->owner != NULL,
                      "memmap: I3: range %lu has type %u", i, range->type);
        CHECK_OR_FAIL(i == 0 || end < range->start ||
                          !is_same_kind(range - 1, range),
                      "memmap: I4: range %lu continues the one before", i);
        end = range->end;
    }
    return true;
}
