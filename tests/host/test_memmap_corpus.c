/* SPDX-License-Identifier: MIT */
/* memmap corpus: maps of real machines, and hostile ones, to the last page. */
#include "tests/host/map_file.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <mm/frame.h>
#include <mm/record.h>
#include "base/bits.h"
#include "tests/host/sim.h"
#include "tests/shared/test.h"

/*
 * At risk: the maps of the world, which nobody who writes a test would think
 * of. Provoked by those that people have posted in logs and bug reports, and
 * by made-up ones that are worse (tests/host/maps, format in map_file.h). What
 * is expected was worked out from the contract in memmap.h by a model that
 * sweeps over all boundaries, and the first ones by hand; a second opinion
 * below asks for single pages, with no list at all. Each map is then given to
 * the frame allocator, whose counts must be those of the expected ranges.
 */

#define MAPS       "tests/host/maps"
#define NEEDED     40 /* maps in all ... */
#define REAL       20 /* ... of which so many of machines */
#define MADE       "made-"
#define PATH_BYTES 512

/* Second opinions a map, about. */
#define OPINIONS 512

/* Frames are counted where their metadata stays below this. */
#define METADATA_LIMIT (UINT64_C(1) * GiB)
/* Frame numbers end there: frame_init() leaves the rest alone. */
#define FRAMES_END (UINT64_C(512) * TiB)

/* Addresses of the kernel's own pages in a list, taken out of usable ones. */
struct own {
    uint64_t start;
    uint64_t end;
};

typedef void (*map_check)(const struct map_file *file, struct memmap *map,
                          enum mm_status status);

static enum mm_status build(const struct map_file *file, struct memmap *out)
{
    struct memmap_source source = {map_file_claim, file};

    return memmap_build(&source, &file->limits, out);
}

static int is_map(const struct dirent *entry)
{
    const char *dot = strrchr(entry->d_name, '.');

    return dot != NULL && strcmp(dot, ".map") == 0;
}

/* Build one map and look at it; a failure is told with the name of the map. */
static void check_map(const char *name, map_check check)
{
    char path[PATH_BYTES];
    struct map_file file;
    struct memmap map = {NULL, 0, 0, 0};

    snprintf(path, sizeof(path), "%s/%s", MAPS, name);
    if (map_file_read(&file, path)) {
        sim_reset(SIM_PHYSICAL_END); /* reserved, not touched */
        check(&file, &map, build(&file, &map));
    } else {
        test_fail(__FILE__, __LINE__, "%s: %s", path, file.complaint);
    }
    if (test_has_failed()) {
        printf("# in %s\n", path);
    }
    map_file_free(&file);
}

/* Return: maps looked at; @out_real: those of machines. */
static int check_all(map_check check, int *out_real)
{
    struct dirent **entry;
    int count = scandir(MAPS, &entry, is_map, alphasort);

    *out_real = 0;
    for (int i = 0; i < count; i++) {
        if (!test_has_failed()) {
            check_map(entry[i]->d_name, check);
        }
        *out_real += strncmp(entry[i]->d_name, MADE, strlen(MADE)) != 0;
        free(entry[i]);
    }
    if (count >= 0) {
        free(entry);
    }
    return count;
}

/* --- the list ------------------------------------------------------------- */

/* Where the list lies; it is in itself, and big enough. */
static void find_home(const struct memmap *map, struct own *out)
{
    const struct memmap_range *home =
        memmap_find(map, virt_to_phys(map->range));

    CHECK(home != NULL && home->type == MEMMAP_KERNEL);
    CHECK(strcmp(home->owner, "memory map") == 0);
    CHECK_EQUAL(home->start, virt_to_phys(map->range).v);
    CHECK(home->end - home->start >= map->capacity * sizeof(*map->range));
    *out = (struct own){home->start, home->end};
}

/* Range @index of @map is @expected from @start to @end. */
static void compare_range(const struct memmap *map, size_t index,
                          uint64_t start, uint64_t end,
                          const struct map_range *expected)
{
    char text[2 * MAP_TEXT_BYTES];

    CHECK(index < map->count);
    const struct memmap_range *range = &map->range[index];
    snprintf(text, sizeof(text), "%s %s", range->reason, range->owner);
    if (range->start != start || range->end != end ||
        range->type != expected->type || strstr(text, expected->text) == NULL) {
        test_fail(__FILE__, __LINE__,
                  "range %lu is 0x%lx-0x%lx %s (%s), expected 0x%lx-0x%lx %s "
                  "%s",
                  index, range->start, range->end - 1,
                  memmap_type_name(range->type), text, start, end - 1,
                  memmap_type_name(expected->type), expected->text);
    }
}

/* The expected ranges, cut where @home lies, are the list without @home. */
static void compare_list(const struct map_file *file, const struct memmap *map,
                         const struct own *home)
{
    size_t index = 0;

    for (size_t i = 0; i < file->ranges; i++) {
        const struct map_range *range = &file->range[i];
        uint64_t start = range->start;

        if (ranges_overlap(start, range->end, home->start, home->end)) {
            CHECK_EQUAL(range->type, MEMMAP_USABLE);
            if (start < home->start) {
                CHECK_HELPER(
                    compare_range(map, index++, start, home->start, range));
            }
            index += start <= home->start; /* the home itself, once */
            start = home->end;
        }
        if (start < range->end) {
            CHECK_HELPER(compare_range(map, index++, start, range->end, range));
        }
    }
    CHECK_EQUAL(map->count, index);
}

static void check_list(const struct map_file *file, struct memmap *map,
                       enum mm_status status)
{
    struct own home;

    CHECK_EQUAL(status, file->status);
    if (status != MM_OK) {
        CHECK(map->range == NULL && map->count == 0);
        return;
    }
    CHECK(memmap_check(map));
    CHECK_EQUAL(map->clipped, file->clipped);
    CHECK_HELPER(find_home(map, &home));
    CHECK(home.end <= file->limits.mapped_end);
    compare_list(file, map, &home);
}

TEST(memmap_corpus, every_map_gives_the_list_it_must)
{
    int real;
    int count = 0;

    CHECK_HELPER(count = check_all(check_list, &real));

    if (count < 0) {
        test_fail(__FILE__, __LINE__, "no %s here: run from the top", MAPS);
        return;
    }
    CHECK(count >= NEEDED);
    CHECK(real >= REAL);
}

/* --- the second opinion --------------------------------------------------- */

/* What @claim says about the page at @page; a hole: nothing. */
static enum memmap_type opinion_of(const struct memmap_claim *claim,
                                   uint64_t page, uint64_t reach)
{
    uint64_t page_last = page + (PAGE_BYTES - 1);
    uint64_t last = claim->start + (claim->length - 1);

    if (last < claim->start) {
        last = UINT64_MAX;
    }
    if (claim->length == 0 || claim->type == MEMMAP_HOLE) {
        return MEMMAP_HOLE;
    }
    enum memmap_type type =
        claim->type < MEMMAP_TYPES ? claim->type : MEMMAP_RESERVED;
    if (memmap_is_ram(type) && page >= reach) {
        return MEMMAP_HOLE;
    }
    bool holds = type == MEMMAP_USABLE
                     ? claim->start <= page && page_last <= last
                     : claim->start <= page_last && page <= last;
    return holds ? type : MEMMAP_HOLE;
}

/* The type that @page has by all claims. */
static enum memmap_type all_opinions(const struct map_file *file, uint64_t page)
{
    struct memmap_claim claim;
    enum memmap_type strongest = MEMMAP_HOLE;

    if (page == align_down(UINT64_MAX, PAGE_BYTES)) {
        return MEMMAP_HOLE; /* a limit of memmap: its end has no number */
    }
    for (size_t i = 0; map_file_claim(file, i, &claim); i++) {
        enum memmap_type type =
            opinion_of(&claim, page, file->limits.physical_end);
        if (type > strongest) {
            strongest = type;
        }
    }
    return strongest;
}

static void compare_page(const struct map_file *file, const struct memmap *map,
                         const struct own *home, uint64_t address)
{
    uint64_t page = align_down(address, PAGE_BYTES);
    const struct memmap_range *range = memmap_find(map, paddr_of(page));
    enum memmap_type actual = range != NULL ? range->type : MEMMAP_HOLE;
    enum memmap_type opinion = all_opinions(file, page);

    if (home->start <= page && page < home->end) {
        actual = MEMMAP_USABLE;
    }
    if (actual != opinion) {
        test_fail(__FILE__, __LINE__, "page 0x%lx is %s, expected %s", page,
                  memmap_type_name(actual), memmap_type_name(opinion));
    }
}

/* The pages at both ends of the claims, and their neighbours. */
static void ask_around(const struct map_file *file, struct memmap *map,
                       enum mm_status status)
{
    struct memmap_claim claim;
    struct own home;
    size_t total = file->entries + file->claims;
    size_t step = 1 + 6 * total / OPINIONS;

    if (status != MM_OK) {
        return;
    }
    CHECK_HELPER(find_home(map, &home));
    for (size_t i = 0; i < total; i += step) {
        CHECK(map_file_claim(file, i, &claim));
        uint64_t last = claim.start + claim.length - 1;
        const uint64_t address[] = {
            claim.start, claim.start - PAGE_BYTES, claim.start + PAGE_BYTES,
            last,        last - PAGE_BYTES,        last + PAGE_BYTES};
        for (size_t k = 0; k < sizeof(address) / sizeof(address[0]); k++) {
            CHECK_HELPER(compare_page(file, map, &home, address[k]));
        }
    }
    for (uint64_t page = home.start; page < home.end; page += PAGE_BYTES) {
        CHECK_HELPER(compare_page(file, map, &home, page));
    }
}

TEST(memmap_corpus, a_second_opinion_page_by_page)
{
    int real;

    CHECK_HELPER(check_all(ask_around, &real));
    CHECK(real >= REAL);
}

/* --- the frames ----------------------------------------------------------- */

static const uint64_t zone_end[FRAME_ZONES] = {16 * MiB, 4 * GiB, FRAMES_END};

static int frame_maps; /* maps whose frames were counted */

/* Records are never needed here: nothing is allocated. */
static enum mm_status refuse_records(vaddr_t start, vaddr_t end)
{
    (void)start;
    (void)end;
    return MM_ENOMEM;
}

static uint64_t overlap(uint64_t start, uint64_t end, uint64_t low,
                        uint64_t high)
{
    uint64_t from = start > low ? start : low;
    uint64_t to = end < high ? end : high;

    return from < to ? to - from : 0;
}

/* Bytes in [low, high) that are usable and neither frame 0 nor @own. */
static uint64_t free_bytes(const struct map_file *file, const struct own own[3],
                           uint64_t low, uint64_t high)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < file->ranges; i++) {
        const struct map_range *range = &file->range[i];
        if (range->type != MEMMAP_USABLE) {
            continue;
        }
        bytes += overlap(range->start, range->end, low, high);
        for (unsigned k = 0; k < 3; k++) {
            uint64_t from = own[k].start > low ? own[k].start : low;
            uint64_t to = own[k].end < high ? own[k].end : high;
            bytes -= overlap(range->start, range->end, from, to);
        }
    }
    return bytes;
}

/* The state of the page at @address, whose expected type is @type. */
static void check_state(enum memmap_type type, const struct own own[3],
                        uint64_t address)
{
    enum frame_state expected = FRAME_STATE_NO_RAM;

    if (address >= FRAMES_END) {
        return;
    }
    if (type == MEMMAP_USABLE) {
        expected = FRAME_STATE_FREE;
    } else if (memmap_is_ram(type)) {
        expected = FRAME_STATE_RESERVED;
    }
    for (unsigned k = 0; k < 3; k++) {
        if (type == MEMMAP_USABLE && own[k].start <= address &&
            address < own[k].end) {
            expected = FRAME_STATE_RESERVED;
        }
    }
    enum frame_state actual = frame_state(phys_to_pfn(paddr_of(address)));
    if (type != MEMMAP_HOLE && actual != expected) {
        test_fail(__FILE__, __LINE__, "0x%lx (%s) has state %d, expected %d",
                  address, memmap_type_name(type), (int)actual, (int)expected);
    }
}

static void count_frames(const struct map_file *file, const struct own own[3])
{
    struct frame_stats stats;
    uint64_t low = 0;

    frame_stats(&stats);
    CHECK_EQUAL(stats.managed,
                free_bytes(file, own, 0, FRAMES_END) / PAGE_BYTES);
    CHECK_EQUAL(stats.free, stats.managed);
    for (unsigned zone = 0; zone < FRAME_ZONES; zone++) {
        CHECK_EQUAL(stats.zone_managed[zone],
                    free_bytes(file, own, low, zone_end[zone]) / PAGE_BYTES);
        low = zone_end[zone];
    }
    CHECK(frame_check());
    for (size_t i = 0; i < file->ranges; i++) {
        const struct map_range *range = &file->range[i];
        CHECK_HELPER(check_state(range->type, own, range->start));
        CHECK_HELPER(check_state(range->type, own, range->end - PAGE_BYTES));
    }
}

static void take_over(const struct map_file *file, struct memmap *map,
                      enum mm_status status)
{
    static _Alignas(4096) char no_records[PAGE_BYTES];
    /* The list, the metadata, frame 0. */
    struct own own[3] = {{0, 0}, {0, 0}, {0, PAGE_BYTES}};
    paddr_t storage;

    if (status != MM_OK) {
        return;
    }
    CHECK_HELPER(find_home(map, &own[0]));
    uint64_t bytes = frame_metadata_bytes(map);
    if (bytes > METADATA_LIMIT ||
        memmap_carve(map, bytes, PAGE_BYTES, SIM_PHYSICAL_END, "frame metadata",
                     &storage) != MM_OK) {
        return;
    }
    own[1] = (struct own){storage.v, storage.v + align_up(bytes, PAGE_BYTES)};
    record_init(no_records, refuse_records);
    frame_init(map, phys_to_virt(storage));
    CHECK_HELPER(count_frames(file, own));
    frame_maps++;
}

TEST(memmap_corpus, frames_are_those_of_the_usable_ranges)
{
    int real;

    frame_maps = 0;
    CHECK_HELPER(check_all(take_over, &real));
    CHECK(frame_maps >= NEEDED);
}
