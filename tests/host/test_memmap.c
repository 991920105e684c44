/* SPDX-License-Identifier: MIT */
/* Tests of memmap: what firmware says, and what must be made of it. */
/*
 * At risk: firmware is not on our side. Maps are unsorted, overlap, do not
 * align, wrap around 2^64, say nothing or too much; and the list must not be
 * put on top of something that is in use. Provoked by maps as real machines
 * have them, by a table of hostile claims, and by random claims against a
 * model that keeps one byte a page.
 */
#include <mm/memmap.h>

#include <mm/port.h>
#include "base/bits.h"
#include "tests/host/sim.h"
#include "tests/shared/test.h"
#include "tests/shared/text.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define NO_LIMIT     SIM_PHYSICAL_END

static struct memmap_claim claim(uint64_t start, uint64_t length,
                                 enum memmap_type type)
{
    return (struct memmap_claim){start, length, type, "test", ""};
}

static enum memmap_type type_at(const struct memmap *map, uint64_t address)
{
    const struct memmap_range *range = memmap_find(map, paddr_of(address));

    return range != NULL ? range->type : MEMMAP_HOLE;
}

/* Address of the list itself, as the map tells it. */
static uint64_t home_of(const struct memmap *map)
{
    return virt_to_phys(map->range).v;
}

/* The list is in the list, and big enough. */
static void check_home(const struct memmap *map)
{
    const struct memmap_range *home =
        memmap_find(map, virt_to_phys(map->range));

    CHECK(home != NULL && home->type == MEMMAP_KERNEL);
    CHECK(test_begins_with(home->owner, "memory map"));
    CHECK(home->end - home_of(map) >= map->capacity * sizeof(*map->range));
}

TEST(memmap, pc_with_128_mib)
{
    /* QEMU, SeaBIOS, -m 128, with kernel and module. */
    const struct memmap_claim list[] = {
        claim(0, 0x9fc00, MEMMAP_USABLE),
        claim(0x9fc00, 0x400, MEMMAP_RESERVED),
        claim(0xf0000, 0x10000, MEMMAP_RESERVED),
        claim(0x100000, 0x7ee0000, MEMMAP_USABLE),
        claim(0x7fe0000, 0x20000, MEMMAP_RESERVED),
        claim(0xfffc0000, 0x40000, MEMMAP_RESERVED),
        claim(0xfd00000000, 0x300000000, MEMMAP_RESERVED),
        {0x100000, 0x54321, MEMMAP_KERNEL, "image", "kernel"},
        {0x200100, 0x10, MEMMAP_KERNEL, "module", "module initrd.img"},
        claim(0, 1 * MiB, MEMMAP_RESERVED),
    };
    struct memmap map;

    sim_reset(128 * MiB);
    CHECK_EQUAL(sim_build_map(list, COUNT(list), NO_LIMIT, 4 * GiB, &map),
                MM_OK);
    CHECK(memmap_check(&map));
    CHECK_EQUAL(map.clipped, 0);
    CHECK_HELPER(check_home(&map));
    CHECK_EQUAL(type_at(&map, 0), MEMMAP_RESERVED);
    CHECK_EQUAL(type_at(&map, 0x154fff), MEMMAP_KERNEL);
    CHECK_EQUAL(type_at(&map, 0x155000), MEMMAP_USABLE);
    CHECK_EQUAL(type_at(&map, 0x200000), MEMMAP_KERNEL);
    CHECK_EQUAL(type_at(&map, 0x201000), MEMMAP_USABLE);
    CHECK_EQUAL(type_at(&map, 0x8000000), MEMMAP_HOLE);
    CHECK_EQUAL(type_at(&map, 0xfffff000), MEMMAP_RESERVED);
    CHECK_EQUAL(memmap_ram_end(&map), 0x7fe0000);
    CHECK_EQUAL(memmap_bytes(&map, MEMMAP_USABLE) +
                    memmap_bytes(&map, MEMMAP_KERNEL),
                0x7ee0000);
}

/* Firmware by UEFI: hundreds of small pieces, here in no order at all. */
#define UEFI_CLAIMS 300
#define UEFI_PIECE  (64 * KiB)

TEST(memmap, uefi_with_300_claims_unsorted)
{
    struct memmap_claim list[UEFI_CLAIMS];
    struct memmap map;
    uint64_t usable = 0;

    sim_reset(UEFI_CLAIMS * UEFI_PIECE);
    for (size_t i = 0; i < UEFI_CLAIMS; i++) {
        size_t place = i * 7 % UEFI_CLAIMS; /* 7 and 300 share no factor */
        enum memmap_type type = place % 3 == 0   ? MEMMAP_RECLAIM
                                : place % 7 == 0 ? MEMMAP_ACPI
                                                 : MEMMAP_USABLE;
        list[i] = claim(place * UEFI_PIECE, UEFI_PIECE, type);
        usable += type == MEMMAP_USABLE ? UEFI_PIECE : 0;
    }
    CHECK_EQUAL(sim_build_map(list, UEFI_CLAIMS, NO_LIMIT, 4 * GiB, &map),
                MM_OK);
    CHECK(memmap_check(&map));
    CHECK_HELPER(check_home(&map));
    CHECK_EQUAL(map.clipped, 0);
    CHECK_EQUAL(memmap_bytes(&map, MEMMAP_USABLE) +
                    memmap_bytes(&map, MEMMAP_KERNEL),
                usable);
    CHECK_EQUAL(type_at(&map, 3 * UEFI_PIECE), MEMMAP_RECLAIM);
    CHECK_EQUAL(type_at(&map, 7 * UEFI_PIECE), MEMMAP_ACPI);
}

TEST(memmap, overlaps_go_to_the_stronger_type)
{
    const struct memmap_claim list[] = {
        claim(0x40000, 0x1000, MEMMAP_RESERVED), /* inside usable */
        claim(0, 0x100000, MEMMAP_USABLE),
        claim(0, 0x100000, MEMMAP_USABLE),       /* twice */
        claim(0x80000, 0x100000, MEMMAP_USABLE), /* overlapping */
        claim(0x300000, 0x10000, MEMMAP_USABLE), /* inside reserved */
        claim(0x200000, 0x200000, MEMMAP_RESERVED),
        claim(0x200000, 0x200000, MEMMAP_KERNEL), /* weaker, later */
        claim(0x3ff000, 0x2000, MEMMAP_BAD),
    };
    struct memmap map;

    sim_reset(4 * MiB);
    CHECK_EQUAL(sim_build_map(list, COUNT(list), NO_LIMIT, NO_LIMIT, &map),
                MM_OK);
    CHECK(memmap_check(&map));
    CHECK_EQUAL(type_at(&map, 0x3f000), MEMMAP_USABLE);
    CHECK_EQUAL(type_at(&map, 0x40000), MEMMAP_RESERVED);
    CHECK_EQUAL(type_at(&map, 0x41000), MEMMAP_USABLE);
    CHECK_EQUAL(type_at(&map, 0x300000), MEMMAP_RESERVED);
    CHECK_EQUAL(type_at(&map, 0x3fe000), MEMMAP_RESERVED);
    CHECK_EQUAL(type_at(&map, 0x3ff000), MEMMAP_BAD);
    CHECK_EQUAL(type_at(&map, 0x400fff), MEMMAP_BAD);
    CHECK_EQUAL(map.clipped, 0);
    /* usable, reserved, usable, list, reserved, bad */
    CHECK_EQUAL(map.count, 6);
}

TEST(memmap, the_later_of_equal_claims_gives_reason_and_owner)
{
    const struct memmap_claim list[] = {
        claim(0, 1 * MiB, MEMMAP_USABLE),
        {0, 0x3000, MEMMAP_KERNEL, "image", "kernel"},
        {0x1000, 0x1000, MEMMAP_KERNEL, "image", "module"},
        {0x8000, 0x1000, MEMMAP_KERNEL, NULL, NULL},
    };
    struct memmap map;

    sim_reset(1 * MiB);
    CHECK_EQUAL(sim_build_map(list, COUNT(list), NO_LIMIT, NO_LIMIT, &map),
                MM_OK);
    CHECK(memmap_check(&map));
    CHECK(memmap_find(&map, paddr_of(0))->owner == list[1].owner);
    CHECK(memmap_find(&map, paddr_of(0x1000))->owner == list[2].owner);
    CHECK(memmap_find(&map, paddr_of(0x2fff))->owner == list[1].owner);
    CHECK(memmap_find(&map, paddr_of(0x8000))->owner[0] == '\0');
}

TEST(memmap, usable_shrinks_and_others_grow_to_pages)
{
    const struct memmap_claim list[] = {
        claim(0x1001, 0xfffff, MEMMAP_USABLE), /* to 0x101000 */
        claim(0x8ffe, 4, MEMMAP_RESERVED),     /* across a boundary */
        claim(0x20000, 1, MEMMAP_ACPI),
        claim(0x200800, 0xc00, MEMMAP_USABLE), /* no whole page */
    };
    struct memmap map;

    sim_reset(4 * MiB);
    CHECK_EQUAL(sim_build_map(list, COUNT(list), NO_LIMIT, NO_LIMIT, &map),
                MM_OK);
    CHECK(memmap_check(&map));
    CHECK_EQUAL(type_at(&map, 0x1fff), MEMMAP_HOLE);
    CHECK_EQUAL(type_at(&map, 0x2000), MEMMAP_USABLE);
    CHECK_EQUAL(type_at(&map, 0x8000), MEMMAP_RESERVED);
    CHECK_EQUAL(type_at(&map, 0x9fff), MEMMAP_RESERVED);
    CHECK_EQUAL(type_at(&map, 0xa000), MEMMAP_USABLE);
    CHECK_EQUAL(type_at(&map, 0x20fff), MEMMAP_ACPI);
    CHECK_EQUAL(type_at(&map, 0x21000), MEMMAP_USABLE);
    CHECK_EQUAL(type_at(&map, 0x200800), MEMMAP_HOLE);
    CHECK_EQUAL(memmap_ram_end(&map), 0x101000);
    CHECK_EQUAL(map.clipped, 1);
    CHECK(sim_log_contains("claim 3 (start 0x200800, length 0xc00, usable)"));
}

/* One hostile claim beside a good one: what is said, where it still holds. */
static const struct hostile {
    struct memmap_claim claim;
    const char *message;
    uint64_t where;        /* an address with ... */
    enum memmap_type type; /* ... this type afterwards */
} hostile[] = {
    {{0x5000, 0, MEMMAP_RESERVED, "", ""}, "length 0", 0x5000, MEMMAP_USABLE},
    {{UINT64_MAX, 0, MEMMAP_USABLE, "", ""}, "length 0", 0, MEMMAP_USABLE},
    {{0xfffffffffffff000, 0x10000, MEMMAP_RESERVED, "", ""},
     "claim 1 (start 0xfffffffffffff000, length 0x10000, reserved) passes",
     0xfffffffffffff000,
     MEMMAP_HOLE},
    {{0xfffffffffffff000, 0xfff, MEMMAP_RESERVED, "", ""},
     "passes 2^64",
     0xfffffffffffff000,
     MEMMAP_HOLE},
    {{0xffffffffffffe000, 0x10000, MEMMAP_RESERVED, "", ""},
     "passes 2^64",
     0xffffffffffffe000,
     MEMMAP_RESERVED},
    {{0x5000, UINT64_MAX, MEMMAP_RESERVED, "", ""},
     "passes 2^64",
     0x5000,
     MEMMAP_RESERVED},
    {{UINT64_MAX, 1, MEMMAP_RESERVED, "", ""}, "passes 2^64", 0, MEMMAP_USABLE},
    {{UINT64_MAX, UINT64_MAX, MEMMAP_BAD, "", ""}, "passes", 0, MEMMAP_USABLE},
    {{0x5000, UINT64_MAX, MEMMAP_USABLE, "", ""},
     "beyond",
     0x100000000000,
     MEMMAP_HOLE},
    {{SIM_PHYSICAL_END, 0x5000, MEMMAP_USABLE, "", ""},
     "beyond",
     SIM_PHYSICAL_END,
     MEMMAP_HOLE},
    {{SIM_PHYSICAL_END - 0x1000, 0x5000, MEMMAP_ACPI, "", ""},
     "beyond",
     SIM_PHYSICAL_END - 1,
     MEMMAP_ACPI},
    {{SIM_PHYSICAL_END - 0x1000, 0x2000, MEMMAP_USABLE, "", ""},
     "beyond",
     SIM_PHYSICAL_END,
     MEMMAP_HOLE},
    {{0x5000, 0x1000, MEMMAP_HOLE, "", ""}, "no type", 0x5000, MEMMAP_USABLE},
    {{0x5000, 0x1000, (enum memmap_type)77, "", ""},
     "unknown type",
     0x5000,
     MEMMAP_RESERVED},
};

TEST(memmap, hostile_claims_are_corrected_and_named)
{
    for (size_t i = 0; i < COUNT(hostile); i++) {
        struct memmap_claim list[] = {claim(0, 1 * MiB, MEMMAP_USABLE),
                                      hostile[i].claim};
        /* What reserves everything from 0x5000 on leaves the list this. */
        uint64_t mapped_end = 0x5000;
        struct memmap map;

        sim_reset(1 * MiB);
        CHECK_EQUAL(sim_build_map(list, 2, SIM_PHYSICAL_END, mapped_end, &map),
                    MM_OK);
        CHECK(memmap_check(&map));
        CHECK_EQUAL(map.clipped, 1);
        CHECK(sim_log_contains(hostile[i].message));
        CHECK_EQUAL(type_at(&map, hostile[i].where), hostile[i].type);
    }
}

TEST(memmap, nothing_usable_is_said_and_returned)
{
    const struct memmap_claim reserved[] = {claim(0, 4 * GiB, MEMMAP_RESERVED)};
    const struct memmap_claim covered[] = {claim(0, 1 * MiB, MEMMAP_USABLE),
                                           claim(0, 2 * MiB, MEMMAP_RESERVED)};
    const struct memmap_claim crumb[] = {claim(1, 0x1fff, MEMMAP_USABLE),
                                         claim(0x1fff, 1, MEMMAP_RESERVED)};
    struct memmap map = {NULL, 7, 7, 7};

    sim_reset(0);
    CHECK_EQUAL(sim_build_map(NULL, 0, NO_LIMIT, NO_LIMIT, &map), MM_ENOENT);
    CHECK(sim_log_contains("none of 0 claims"));
    CHECK_EQUAL(sim_build_map(reserved, 1, NO_LIMIT, NO_LIMIT, &map),
                MM_ENOENT);
    CHECK_EQUAL(sim_build_map(covered, 2, NO_LIMIT, NO_LIMIT, &map), MM_ENOENT);
    CHECK_EQUAL(sim_build_map(crumb, 2, NO_LIMIT, NO_LIMIT, &map), MM_ENOENT);
    CHECK_EQUAL(map.count, 7); /* a failure changes nothing */
}

TEST(memmap, one_usable_page_holds_the_list)
{
    const struct memmap_claim list[] = {claim(0, 4 * GiB, MEMMAP_RESERVED),
                                        claim(5 * GiB, 0x1000, MEMMAP_USABLE)};
    struct memmap map;
    paddr_t address;

    sim_reset(0);
    sim_add_ram(5 * GiB, 0x1000);
    CHECK_EQUAL(sim_build_map(list, 2, NO_LIMIT, NO_LIMIT, &map), MM_OK);
    CHECK(memmap_check(&map));
    CHECK_EQUAL(home_of(&map), 5 * GiB);
    CHECK_EQUAL(memmap_bytes(&map, MEMMAP_USABLE), 0);
    CHECK_EQUAL(memmap_carve(&map, 1, PAGE_BYTES, NO_LIMIT, "x", &address),
                MM_ENOMEM);
    /* The same page out of reach: another failure. */
    CHECK_EQUAL(sim_build_map(list, 2, NO_LIMIT, 5 * GiB, &map), MM_ENOMEM);
    CHECK(sim_log_contains("no usable range below 0x140000000"));
}

TEST(memmap, ram_above_a_device_above_ram)
{
    const struct memmap_claim list[] = {
        claim(0, 1 * GiB, MEMMAP_USABLE),
        claim(1 * GiB, 1 * GiB, MEMMAP_FRAMEBUFFER),
        claim(4 * GiB, 1 * GiB, MEMMAP_USABLE),
        claim(6 * GiB, 1 * GiB, MEMMAP_RESERVED),
    };
    struct memmap map;

    sim_reset(1 * GiB);
    sim_add_ram(4 * GiB, 1 * GiB);
    CHECK_EQUAL(sim_build_map(list, COUNT(list), NO_LIMIT, NO_LIMIT, &map),
                MM_OK);
    CHECK(memmap_check(&map));
    CHECK_EQUAL(memmap_ram_end(&map), 5 * GiB);
    CHECK(home_of(&map) >= 4 * GiB);
    CHECK_EQUAL(sim_build_map(list, COUNT(list), NO_LIMIT, 2 * GiB, &map),
                MM_OK);
    CHECK(home_of(&map) < 1 * GiB);
    CHECK_EQUAL(sim_build_map(list, COUNT(list), 3 * GiB, 4 * GiB, &map),
                MM_OK);
    CHECK_EQUAL(memmap_ram_end(&map), 1 * GiB);
    CHECK_EQUAL(map.clipped, 1);
}

TEST(memmap, home_keeps_clear_of_modules_and_kernel)
{
    /* Every other page is taken; two free ones together, at 0x40000. */
    struct memmap_claim list[256];
    struct memmap map;
    size_t count = 0;
    paddr_t address;

    list[count++] = claim(0, 0x80000, MEMMAP_USABLE);
    for (uint64_t page = 0; page < 0x80; page += 2) {
        if (page < 0x20 || page > 0x40) {
            list[count++] = claim(page << PAGE_SHIFT, 1, MEMMAP_KERNEL);
        }
    }
    sim_reset(1 * MiB);
    CHECK_EQUAL(sim_build_map(list, count, NO_LIMIT, NO_LIMIT, &map), MM_OK);
    CHECK(memmap_check(&map));
    CHECK(home_of(&map) >= 0x1f000);
    CHECK_EQUAL(memmap_find(&map, virt_to_phys(map.range))->end, 0x42000);
    CHECK_EQUAL(memmap_bytes(&map, MEMMAP_KERNEL) % 0x1000, 0);
    CHECK_EQUAL(memmap_carve(&map, 0x2000, PAGE_BYTES, NO_LIMIT, "x", &address),
                MM_OK);
    CHECK(address.v < home_of(&map));
}

TEST(memmap, carve_takes_the_highest_that_fits)
{
    const struct memmap_claim list[] = {
        claim(0, 16 * MiB, MEMMAP_USABLE),
        claim(32 * MiB, 16 * MiB, MEMMAP_USABLE),
    };
    struct memmap map;
    paddr_t address;

    sim_reset(48 * MiB);
    CHECK_EQUAL(sim_build_map(list, 2, NO_LIMIT, 16 * MiB, &map), MM_OK);
    CHECK_EQUAL(memmap_carve(&map, 1, PAGE_BYTES, NO_LIMIT, "a", &address),
                MM_OK);
    CHECK_EQUAL(address.v, 48 * MiB - PAGE_BYTES);
    CHECK_EQUAL(
        memmap_carve(&map, PAGE_BYTES, 2 * MiB, NO_LIMIT, "b", &address),
        MM_OK);
    CHECK_EQUAL(address.v, 46 * MiB);
    CHECK_EQUAL(
        memmap_carve(&map, 1 * MiB, PAGE_BYTES, 40 * MiB + 123, "c", &address),
        MM_OK);
    CHECK_EQUAL(address.v, 39 * MiB);
    CHECK_EQUAL(memmap_find(&map, address)->type, MEMMAP_KERNEL);
    CHECK(test_begins_with(memmap_find(&map, address)->owner, "c"));
    CHECK_EQUAL(memmap_carve(&map, 8 * MiB, 8 * MiB, 32 * MiB, "d", &address),
                MM_OK);
    CHECK_EQUAL(address.v, 0);
    size_t count = map.count;
    uint64_t usable = memmap_bytes(&map, MEMMAP_USABLE);
    CHECK_EQUAL(memmap_carve(&map, 8 * MiB, PAGE_BYTES, 8 * MiB, "e", &address),
                MM_ENOMEM);
    CHECK_EQUAL(
        memmap_carve(&map, UINT64_MAX, PAGE_BYTES, NO_LIMIT, "f", &address),
        MM_ENOMEM);
    CHECK_EQUAL(memmap_carve(&map, 1 * MiB, 64 * MiB, NO_LIMIT, "g", &address),
                MM_ENOMEM);
    CHECK_EQUAL(map.count, count);
    CHECK_EQUAL(memmap_bytes(&map, MEMMAP_USABLE), usable);
    CHECK(memmap_check(&map));
}

TEST(memmap, carve_stops_when_the_list_is_full)
{
    const struct memmap_claim list[] = {claim(0, 16 * MiB, MEMMAP_USABLE)};
    static const char *const owner[] = {"a", "b"};
    struct memmap map;
    paddr_t address;
    unsigned carved = 0;

    sim_reset(16 * MiB);
    CHECK_EQUAL(sim_build_map(list, 1, NO_LIMIT, NO_LIMIT, &map), MM_OK);
    /* Aligned to two pages: each leaves a hole, so each splits. */
    while (memmap_carve(&map, PAGE_BYTES, 2 * PAGE_BYTES, NO_LIMIT,
                        owner[carved % 2], &address) == MM_OK) {
        carved++;
        CHECK(memmap_check(&map));
        CHECK(carved <= map.capacity);
    }
    CHECK(carved >= 24); /* twice what start-up asks for */
    uint64_t usable = memmap_bytes(&map, MEMMAP_USABLE);
    CHECK_EQUAL(
        memmap_carve(&map, PAGE_BYTES, 2 * PAGE_BYTES, NO_LIMIT, "z", &address),
        MM_ENOMEM);
    CHECK_EQUAL(memmap_bytes(&map, MEMMAP_USABLE), usable);
    CHECK(memmap_check(&map));
}

TEST(memmap, release_gives_back_ram_and_nothing_else)
{
    const struct memmap_claim list[] = {
        claim(0, 1 * MiB, MEMMAP_USABLE),
        claim(0x10000, 0x10000, MEMMAP_RECLAIM),
        claim(0x20000, 0x10000, MEMMAP_KERNEL),
        claim(0x30000, 0x10000, MEMMAP_RESERVED),
    };
    struct memmap map;

    sim_reset(1 * MiB);
    CHECK_EQUAL(sim_build_map(list, COUNT(list), NO_LIMIT, NO_LIMIT, &map),
                MM_OK);
    uint64_t usable = memmap_bytes(&map, MEMMAP_USABLE);
    static const uint64_t refused[][2] = {
        {0x10000, 0x10000}, {0x11000, 0x10000}, {0x10000, 0x10800},
        {0x10800, 0x11000}, {0xf000, 0x11000},  {0x2f000, 0x31000},
        {0x30000, 0x31000}, {1 * MiB, 2 * MiB}, {0x50000, 0x51000},
    };
    for (size_t i = 0; i < COUNT(refused); i++) {
        CHECK_EQUAL(memmap_release(&map, paddr_of(refused[i][0]),
                                   paddr_of(refused[i][1])),
                    MM_EINVAL);
        CHECK_EQUAL(memmap_bytes(&map, MEMMAP_USABLE), usable);
    }
    CHECK_EQUAL(memmap_release(&map, paddr_of(0x1f000), paddr_of(0x21000)),
                MM_OK);
    CHECK(memmap_check(&map));
    CHECK_EQUAL(memmap_bytes(&map, MEMMAP_USABLE), usable + 0x2000);
    CHECK_EQUAL(type_at(&map, 0x1efff), MEMMAP_RECLAIM);
    CHECK_EQUAL(type_at(&map, 0x20fff), MEMMAP_USABLE);
    CHECK_EQUAL(type_at(&map, 0x21000), MEMMAP_KERNEL);
}

TEST(memmap, every_type_has_a_name)
{
    for (unsigned type = 0; type < MEMMAP_TYPES; type++) {
        CHECK(memmap_type_name((enum memmap_type)type)[0] != 'u' ||
              type == MEMMAP_USABLE);
    }
    CHECK(memmap_type_name(MEMMAP_TYPES)[2] == 'k'); /* unknown */
}

/*
 * The model: one byte a page, painted by the rules of the header without
 * any list. Claims lie anywhere, to the byte.
 */
#define MODEL_PAGES  256
#define MODEL_CLAIMS 24
#define MODEL_ROUNDS 2000

static void paint_model(const struct memmap_claim *list, size_t count,
                        uint8_t model[MODEL_PAGES])
{
    for (uint64_t page = 0; page < MODEL_PAGES; page++) {
        uint64_t start = page * PAGE_BYTES;
        uint64_t end = start + PAGE_BYTES;
        model[page] = MEMMAP_HOLE;
        for (size_t i = 0; i < count; i++) {
            uint64_t claim_end = list[i].start + list[i].length;
            bool holds = list[i].type == MEMMAP_USABLE
                             ? list[i].start <= start && end <= claim_end
                             : list[i].start < end && start < claim_end;
            if (holds && list[i].length > 0 && list[i].type > model[page]) {
                model[page] = (uint8_t)list[i].type;
            }
        }
    }
}

static size_t random_claims(struct test_random *random,
                            struct memmap_claim *list)
{
    size_t count = test_random_below(random, MODEL_CLAIMS);

    for (size_t i = 0; i < count; i++) {
        uint64_t start = test_random_below(random, MODEL_PAGES * PAGE_BYTES);
        uint64_t room = MODEL_PAGES * PAGE_BYTES - start;
        uint64_t type = 1 + test_random_below(random, MEMMAP_TYPES + 3);
        if (test_random_below(random, 2) == 0) {
            start = align_down(start, PAGE_BYTES);
        }
        list[i] =
            claim(start, test_random_below(random, room),
                  type < MEMMAP_TYPES ? (enum memmap_type)type : MEMMAP_USABLE);
        if (list[i].type != MEMMAP_USABLE) {
            list[i].length /= 8;
        }
    }
    return count;
}

/* The list must be the model, but for the pages it lies on. */
static void compare_model(const struct memmap *map,
                          const uint8_t model[MODEL_PAGES])
{
    const struct memmap_range *home =
        memmap_find(map, virt_to_phys(map->range));

    CHECK(memmap_check(map));
    CHECK_HELPER(check_home(map));
    for (uint64_t page = 0; page < MODEL_PAGES; page++) {
        uint64_t address = page * PAGE_BYTES;
        if (memmap_find(map, paddr_of(address)) == home) {
            CHECK_EQUAL(model[page], MEMMAP_USABLE);
        } else {
            CHECK_EQUAL(type_at(map, address), model[page]);
        }
    }
    CHECK_EQUAL(type_at(map, MODEL_PAGES * PAGE_BYTES), MEMMAP_HOLE);
}

TEST(memmap, random_claims_match_the_model)
{
    struct memmap_claim list[MODEL_CLAIMS];
    uint8_t model[MODEL_PAGES];
    struct test_random random;
    unsigned built = 0;

    sim_reset(MODEL_PAGES * PAGE_BYTES);
    test_random_init(&random, test_seed());
    for (unsigned round = 0; round < MODEL_ROUNDS; round++) {
        size_t count = random_claims(&random, list);
        struct memmap map;
        bool has_usable = false;

        paint_model(list, count, model);
        for (unsigned page = 0; page < MODEL_PAGES; page++) {
            has_usable |= model[page] == MEMMAP_USABLE;
        }
        enum mm_status status =
            sim_build_map(list, count, NO_LIMIT, NO_LIMIT, &map);
        if (status == MM_OK) {
            CHECK_HELPER(compare_model(&map, model));
            built++;
        } else {
            /* A list of so few claims fits in two pages. */
            CHECK(status == MM_ENOMEM || !has_usable);
            CHECK(status == MM_ENOENT || has_usable);
        }
    }
    CHECK(built > MODEL_ROUNDS / 2);
}
