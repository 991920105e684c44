/* SPDX-License-Identifier: MIT */
/* fuzz memmap: any claims, then pieces carved out, given back, retired. */
#include "tests/fuzz/fuzz.h"

#include <stdbool.h>
#include <sys/mman.h>

#include <mm/memmap.h>
#include <mm/port.h>
#include "tests/host/sim.h"

/*
 * Input: what the CPU reaches, what is mapped, the number of claims; the
 * claims; then steps. Most claims lie in the first PAGES pages, where they
 * meet; a few are any 64-bit numbers.
 *
 * The reference has no list. It asks all claims, and all steps since, what one
 * page is; between two neighbouring ends of claims all pages are alike, so one
 * of each stretch is enough.
 */
#define PAGES      256
#define MAX_CLAIMS 32
#define MAX_STEPS  16
#define MAX_CUTS   (4 * (MAX_CLAIMS + MAX_STEPS + 1) + 8)

#define CONTROL_TYPES (MEMMAP_TYPES + 2) /* two of them unknown */
#define CONTROL_WIDE  0x40
#define CONTROL_FINE  0x80

#define LAST_PAGE (UINT64_MAX - (PAGE_BYTES - 1))

/* A stretch that was carved, or is free again. */
struct step {
    uint64_t start;
    uint64_t end;
    enum memmap_type type;
};

static struct world {
    struct memmap_claim claim[MAX_CLAIMS];
    size_t claims;
    uint64_t reach;
    uint64_t mapped;
    struct step step[MAX_STEPS + 1]; /* the first: where the list lies */
    size_t steps;
    bool is_mixed; /* usable ranges may have more than one reason */
    uint64_t cut[MAX_CUTS];
    size_t cuts;
} world;

/* --- the reference -------------------------------------------------------- */

static enum memmap_type type_of_claim(const struct memmap_claim *claim)
{
    return (unsigned)claim->type < MEMMAP_TYPES ? claim->type : MEMMAP_RESERVED;
}

/* Last byte of a claim that is not empty. */
static uint64_t last_of(const struct memmap_claim *claim)
{
    uint64_t last = claim->start + (claim->length - 1);

    return last < claim->start ? UINT64_MAX : last;
}

/* What @claim makes of the page at @page. */
static enum memmap_type ask_claim(const struct memmap_claim *claim,
                                  uint64_t page)
{
    enum memmap_type type = type_of_claim(claim);
    uint64_t page_last = page + (PAGE_BYTES - 1);

    if (claim->length == 0 || page == LAST_PAGE ||
        (memmap_is_ram(type) && page >= world.reach)) {
        return MEMMAP_HOLE;
    }
    bool holds = type == MEMMAP_USABLE
                     ? claim->start <= page && page_last <= last_of(claim)
                     : claim->start <= page_last && page <= last_of(claim);
    return holds ? type : MEMMAP_HOLE;
}

static enum memmap_type ask_claims(uint64_t page)
{
    enum memmap_type type = MEMMAP_HOLE;

    for (size_t i = 0; i < world.claims; i++) {
        enum memmap_type said = ask_claim(&world.claim[i], page);
        type = said > type ? said : type;
    }
    return type;
}

/* The last step has the last word. */
static enum memmap_type ask(uint64_t page)
{
    for (size_t i = world.steps; i-- > 0;) {
        if (world.step[i].start <= page && page < world.step[i].end) {
            return world.step[i].type;
        }
    }
    return ask_claims(page);
}

static void cut_at(uint64_t address)
{
    uint64_t page = address & ~(PAGE_BYTES - 1);

    for (unsigned i = 0; i < 2 && world.cuts < MAX_CUTS; i++) {
        size_t at = world.cuts;
        while (at > 0 && world.cut[at - 1] > page) {
            at--;
        }
        if (at == 0 || world.cut[at - 1] != page) {
            memmove(&world.cut[at + 1], &world.cut[at],
                    (world.cuts - at) * sizeof(world.cut[0]));
            world.cut[at] = page;
            world.cuts++;
        }
        if (page == LAST_PAGE) {
            return;
        }
        page += PAGE_BYTES;
    }
}

/* Pages between two neighbouring cuts are alike. */
static void find_cuts(void)
{
    world.cuts = 0;
    cut_at(0);
    cut_at(world.reach);
    cut_at(LAST_PAGE);
    for (size_t i = 0; i < world.claims; i++) {
        cut_at(world.claim[i].start);
        if (world.claim[i].length > 0) {
            cut_at(last_of(&world.claim[i]));
        }
    }
}

/* End of the pages from cut @i on that are alike. */
static uint64_t end_of_cut(size_t i)
{
    return i + 1 < world.cuts ? world.cut[i + 1] : LAST_PAGE;
}

static bool is_cut(uint64_t address)
{
    for (size_t i = 0; i < world.cuts; i++) {
        if (world.cut[i] == address) {
            return true;
        }
    }
    return false;
}

/* The list says of each page what the reference says. */
static void compare(const struct memmap *map)
{
    FUZZ_CHECK(memmap_check(map));
    for (size_t i = 0; i < world.cuts; i++) {
        const struct memmap_range *range =
            memmap_find(map, paddr_of(world.cut[i]));
        FUZZ_EQUAL(range != NULL ? range->type : MEMMAP_HOLE,
                   ask(world.cut[i]));
    }
    for (size_t i = 0; i < map->count; i++) {
        FUZZ_CHECK(is_cut(map->range[i].start));
        FUZZ_CHECK(is_cut(map->range[i].end));
        fuzz_use_text(map->range[i].reason);
        fuzz_use_text(map->range[i].owner);
    }
}

/* --- what is done --------------------------------------------------------- */

static void read_world(struct fuzz_input *input)
{
    static const uint64_t reaches[] = {PAGES * PAGE_BYTES, GiB, TiB, 64 * TiB,
                                       UINT64_C(1) << 52};
    static const uint64_t mapped[] = {
        PAGES / 2 * PAGE_BYTES, PAGES * PAGE_BYTES, GiB, SIM_PHYSICAL_END};

    world.reach = reaches[fuzz_take(input, 1) % 5];
    world.mapped = mapped[fuzz_take(input, 1) % 4];
    world.claims = fuzz_take(input, 1) % (MAX_CLAIMS + 1);
    world.steps = 0;
    world.is_mixed = false;
    for (size_t i = 0; i < world.claims; i++) {
        uint64_t control = fuzz_take(input, 1);
        unsigned type = (control & 0xf) % CONTROL_TYPES;
        size_t bytes = (control & CONTROL_WIDE) != 0 ? 8 : 1;
        unsigned shift = bytes == 1 ? PAGE_SHIFT : 0;
        uint64_t start = fuzz_take(input, bytes) << shift;
        uint64_t length = fuzz_take(input, bytes) << shift;
        if ((control & CONTROL_FINE) != 0) {
            start += fuzz_take(input, 2) % PAGE_BYTES;
            length += fuzz_take(input, 2) % PAGE_BYTES;
        }
        world.claim[i] = (struct memmap_claim){
            start, length,
            type <= MEMMAP_TYPES ? (enum memmap_type)type
                                 : (enum memmap_type)0x7fffffff,
            "claimed", ""};
    }
}

/* Is there a stretch of @bytes in one usable claim and in nothing else? */
static bool has_place(uint64_t bytes)
{
    uint64_t limit = world.mapped < world.reach ? world.mapped : world.reach;

    for (size_t i = 0; i < world.claims; i++) {
        uint64_t run = 0;
        for (size_t k = 0; k < world.cuts && world.cut[k] < limit; k++) {
            uint64_t end = end_of_cut(k) < limit ? end_of_cut(k) : limit;
            bool is_free =
                world.claim[i].type == MEMMAP_USABLE &&
                ask_claim(&world.claim[i], world.cut[k]) == MEMMAP_USABLE &&
                ask_claims(world.cut[k]) == MEMMAP_USABLE;
            run = is_free ? run + (end - world.cut[k]) : 0;
            if (run >= bytes) {
                return true;
            }
        }
    }
    return false;
}

static void check_refusal(enum mm_status status)
{
    /* Twice what one would think the list needs. */
    uint64_t plenty =
        2 *
        ((2 * world.claims + 100) * sizeof(struct memmap_range) + PAGE_BYTES);
    bool has_usable = false;

    for (size_t i = 0; i < world.cuts; i++) {
        has_usable |= ask_claims(world.cut[i]) == MEMMAP_USABLE;
    }
    FUZZ_EQUAL(status, has_usable ? MM_ENOMEM : MM_ENOENT);
    FUZZ_CHECK(!has_place(plenty));
}

/* The list takes nothing but RAM that nobody else claims. */
static void settle(const struct memmap *map)
{
    const struct memmap_range *home =
        memmap_find(map, virt_to_phys(map->range));

    FUZZ_CHECK(home != NULL && home->type == MEMMAP_KERNEL);
    FUZZ_CHECK(home->end <= world.mapped);
    FUZZ_CHECK(map->capacity * sizeof(*map->range) <= home->end - home->start);
    for (uint64_t page = home->start; page < home->end; page += PAGE_BYTES) {
        FUZZ_EQUAL(ask_claims(page), MEMMAP_USABLE);
    }
    cut_at(home->start);
    cut_at(home->end);
    world.step[world.steps++] =
        (struct step){home->start, home->end, MEMMAP_KERNEL};
}

/* Highest place by the reference, or UINT64_MAX. */
static uint64_t highest_place(uint64_t bytes, uint64_t alignment,
                              uint64_t below)
{
    uint64_t best = UINT64_MAX;
    uint64_t start = 0;
    uint64_t end = 0;

    for (size_t i = 0; i < world.cuts; i++) {
        if (ask(world.cut[i]) != MEMMAP_USABLE) {
            continue;
        }
        start = world.cut[i] == end ? start : world.cut[i];
        end = end_of_cut(i);
        uint64_t limit = end < below ? end : below;
        if (limit >= bytes) {
            uint64_t place = (limit - bytes) & ~(alignment - 1);
            best = place >= start ? place : best;
        }
    }
    return best;
}

static void carve(struct memmap *map, struct fuzz_input *input)
{
    uint64_t bytes = 1 + (fuzz_take(input, 2) << 4);
    uint64_t alignment = PAGE_BYTES << fuzz_take(input, 1) % 10;
    uint64_t below = fuzz_take(input, 2) << 5;
    paddr_t got = {UINT64_MAX};

    if (below == 0) {
        below = UINT64_MAX;
    }
    uint64_t whole = (bytes + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1);
    uint64_t expected = highest_place(whole, alignment, below);
    enum mm_status status =
        memmap_carve(map, bytes, alignment, below, "carved", &got);
    if (!world.is_mixed) {
        FUZZ_EQUAL(got.v, expected);
        FUZZ_EQUAL(status, expected == UINT64_MAX ? MM_ENOMEM : MM_OK);
    }
    if (status != MM_OK) {
        FUZZ_EQUAL(got.v, UINT64_MAX);
        return;
    }
    FUZZ_CHECK(got.v % alignment == 0 && got.v + whole <= below);
    for (uint64_t page = got.v; page < got.v + whole; page += PAGE_BYTES) {
        FUZZ_EQUAL(ask(page), MEMMAP_USABLE);
    }
    cut_at(got.v);
    cut_at(got.v + whole);
    world.step[world.steps++] =
        (struct step){got.v, got.v + whole, MEMMAP_KERNEL};
}

/* Pages are given back, or taken out of use. */
static void change(struct memmap *map, struct fuzz_input *input, bool is_back)
{
    uint64_t start = fuzz_take(input, 2) << (PAGE_SHIFT - 1);
    uint64_t end = start + (fuzz_take(input, 1) << (PAGE_SHIFT - 1));
    bool is_right = start < end && (start | end) % PAGE_BYTES == 0;

    for (uint64_t page = start; is_right && page < end; page += PAGE_BYTES) {
        enum memmap_type type = ask(page);
        is_right = is_back ? memmap_is_ram(type) && type != MEMMAP_USABLE
                           : type == MEMMAP_USABLE;
    }
    enum mm_status status =
        is_back ? memmap_release(map, paddr_of(start), paddr_of(end))
                : memmap_retire(map, paddr_of(start), paddr_of(end));
    FUZZ_EQUAL(status, is_right ? MM_OK : MM_EINVAL);
    if (is_right) {
        cut_at(start);
        cut_at(end);
        world.step[world.steps++] =
            (struct step){start, end, is_back ? MEMMAP_USABLE : MEMMAP_OFFLINE};
        world.is_mixed |= is_back;
    }
}

static void release(struct memmap *map, struct fuzz_input *input)
{
    change(map, input, true);
}

static void retire(struct memmap *map, struct fuzz_input *input)
{
    change(map, input, false);
}

/* Steps are few enough for the list never to be full. */
static void take_steps(struct memmap *map, struct fuzz_input *input)
{
    static void (*const step[])(struct memmap * map,
                                struct fuzz_input * input) = {carve, release,
                                                              retire};

    while (input->left > 0 && world.steps <= MAX_STEPS) {
        uint64_t used = memmap_bytes(map, MEMMAP_USABLE);
        step[fuzz_choose(input, 3)](map, input);
        compare(map);
        fuzz_use(used);
        fuzz_use(memmap_ram_end(map));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    struct memmap map = {NULL, 7, 7, 7};

    if (sim_ram == NULL) {
        sim_reset(SIM_PHYSICAL_END); /* reserved; a few pages are touched */
    }
    read_world(&input);
    find_cuts();
    enum mm_status status = sim_build_map(world.claim, world.claims,
                                          world.reach, world.mapped, &map);
    if (status != MM_OK) {
        FUZZ_CHECK(map.range == NULL && map.count == 7 && map.clipped == 7);
        check_refusal(status);
        return 0;
    }
    settle(&map);
    compare(&map);
    FUZZ_CHECK(map.clipped <= world.claims);
    char *home = (char *)map.range;
    size_t bytes = world.step[0].end - world.step[0].start;
    take_steps(&map, &input);
    madvise(home, bytes, MADV_DONTNEED);
    return 0;
}
