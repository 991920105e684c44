/* SPDX-License-Identifier: MIT */
/* Start-up of the whole library on simulated machines, and the audit. */
/*
 * At risk: metadata in RAM that is not mapped yet (asterinas#907), tables
 * loaded that do not map what runs, an image that can be written through the
 * direct map, a machine that is too small, and an audit that sees nothing.
 */
#include "tests/shared/test.h"

#include <mm/audit.h>
#include <mm/frame.h>
#include <mm/kmap.h>
#include <mm/mm.h>
#include <mm/port.h>
#include "base/bits.h"
#include "base/memory.h"
#include "tests/host/sim.h"
#include "tests/host/sim_mmu.h"

static const struct pt_features plain = {4, 40, true, true, true};

static void check_machine(uint64_t ram, const struct pt_features *features)
{
    uint8_t byte;

    sim_boot_with(ram, features);
    CHECK_EQUAL(mm_stage(), MM_STAGE_MAPS);
    CHECK(mm_check());
    CHECK(sim_read(SIM_DIRECT + 2 * MiB, &byte));
    CHECK(!sim_read(0, &byte));
    CHECK_EQUAL(sim_last_fault(), FAULT_NULL);
    CHECK(!sim_execute(SIM_DIRECT + 4 * MiB) || !features->has_nx);
}

TEST(mm, starts_on_machines_of_all_sizes)
{
    static const uint64_t ram[] = {8 * MiB, 32 * MiB, 256 * MiB, 5 * GiB,
                                   64 * GiB};

    for (unsigned i = 0; i < sizeof(ram) / sizeof(ram[0]); i++) {
        CHECK_HELPER(check_machine(ram[i], &plain));
    }
}

TEST(mm, starts_on_processors_of_all_kinds)
{
    static const struct pt_features features[] = {{4, 36, true, false, true},
                                                  {4, 40, false, true, true},
                                                  {4, 40, false, false, false},
                                                  {5, 52, true, true, true}};

    for (unsigned i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
        CHECK_HELPER(check_machine(5 * GiB, &features[i]));
    }
}

/* Law 3 at start-up: each size starts, or ends in a status and a sentence. */
TEST(mm, a_machine_too_small_is_told_so)
{
    bool has_started = false;
    unsigned refused = 0;

    /* From four pages above the first MiB on. */
    for (uint64_t ram = MiB + 16 * KiB; ram <= 2 * MiB; ram += PAGE_BYTES) {
        enum mm_status status = sim_try_boot(ram, &plain);

        CHECK(status == MM_OK || status == MM_ENOMEM);
        CHECK(status == MM_OK || !has_started); /* no gap above the first */
        CHECK(status == MM_OK || sim_log_contains("failed: MM_ENOMEM"));
        refused += status == MM_OK ? 0 : 1;
        has_started = has_started || status == MM_OK;
        CHECK(status != MM_OK || mm_check());
    }
    CHECK(has_started && refused > 0);
}

/* The k-th frame allocation of start-up fails, for every k. */
TEST(mm, every_allocation_of_start_up_may_fail)
{
    uint64_t k = 1;

    for (;; k++) {
        frame_inject(k);
        enum mm_status status = sim_try_boot(32 * MiB, &plain);
        uint64_t tried = frame_inject_count();

        frame_inject(0);
        if (tried < k) {
            CHECK_EQUAL(status, MM_OK);
            break;
        }
        CHECK(status == MM_OK || status == MM_ENOMEM);
        CHECK(frame_check());
    }
    CHECK(k > 10);
}

/* Largest pages the CPU has: a handful of tables for 64 GiB. */
TEST(mm, the_direct_map_uses_large_pages)
{
    struct audit_verdict verdict;

    sim_boot(64 * GiB);
    CHECK(pt_audit(&pt_kernel, &verdict));
    CHECK(verdict.leaves[2] >= 60);
    CHECK(verdict.tables < 20);
}

/* peers' bug: W^X on the image, but not on its alias in the direct map. */
TEST(mm, the_image_cannot_be_written_through_the_direct_map)
{
    vaddr_t text = UINT64_C(0xffffffff80000000);
    struct walk walk;
    uint8_t byte;

    sim_boot(64 * MiB);
    CHECK(sim_execute(text));
    CHECK(!sim_write(text, 0));
    CHECK_EQUAL(sim_last_fault(), FAULT_READ_ONLY);
    walk_address(pt_kernel.root, text, &walk);
    CHECK(!sim_write(SIM_DIRECT + walk.physical.v, 0));
    CHECK_EQUAL(sim_last_fault(), FAULT_READ_ONLY);
    CHECK(sim_read(SIM_DIRECT + walk.physical.v, &byte));
    CHECK(sim_write(text + 64 * KiB, 1)); /* .data */
    CHECK(!sim_execute(text + 64 * KiB));
    CHECK_EQUAL(sim_last_fault(), FAULT_NO_EXECUTE);
}

static void check_direct(uint64_t physical, bool is_mapped, bool is_writable)
{
    struct walk walk;

    walk_address(pt_kernel.root, SIM_DIRECT + physical, &walk);
    CHECK_EQUAL(walk.state, is_mapped ? PTE_PRESENT : PTE_ABSENT);
    if (is_mapped) {
        CHECK_EQUAL(walk.physical.v, physical);
        CHECK_EQUAL(walk.is_writable, is_writable);
        CHECK(!walk.is_executable);
    }
}

/* All of .text, and no page more. */
TEST(mm, only_the_read_only_part_of_the_image_has_a_read_only_alias)
{
    static const struct {
        uint64_t physical;
        bool is_writable;
    } table[] = {
        {2 * MiB - PAGE_BYTES, true},
        {2 * MiB, false}, /* .text, 64 KiB */
        {2 * MiB + 64 * KiB - PAGE_BYTES, false},
        {2 * MiB + 64 * KiB, true}, /* .data, 128 KiB */
        {2 * MiB + 192 * KiB - PAGE_BYTES, true},
        {2 * MiB + 192 * KiB, true},
    };

    sim_boot(64 * MiB);
    for (unsigned i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        CHECK_HELPER(
            check_direct(table[i].physical, true, table[i].is_writable));
    }
}

/* A device in the hole must not be reached through a cached mapping. */
TEST(mm, the_direct_map_shows_ram_and_no_holes)
{
    static const struct {
        uint64_t physical;
        bool is_mapped;
    } table[] = {
        {0, false}, /* reserved up to 1 MiB */
        {MiB - PAGE_BYTES, false},
        {MiB, true},
        {3 * GiB - PAGE_BYTES, true},
        {3 * GiB, false},
        {4 * GiB - PAGE_BYTES, false},
        {4 * GiB, true},
        {6 * GiB - PAGE_BYTES, true},
        {6 * GiB, false},
    };

    sim_boot(5 * GiB);
    for (unsigned i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        CHECK_HELPER(check_direct(table[i].physical, table[i].is_mapped, true));
    }
}

/* --- configurations the simulation does not use --------------------------- */

#define BARE_BYTES (64 * MiB)

static _Alignas(PAGE_BYTES) struct frame_record
    bare_record[BARE_BYTES / PAGE_BYTES];

/* A machine without an image, whose records the library maps itself. */
static struct mm_config bare_machine(void)
{
    struct mm_config config = {
        .features = plain,
        .mapped_end = 4 * GiB,
        .direct_start = SIM_DIRECT,
        .direct_bytes = BARE_BYTES,
        .kmap_start = SIM_KMAP,
        .kmap_end = SIM_KMAP + 512 * GiB,
        .record_start = (vaddr_t)bare_record,
    };

    sim_boot_map(BARE_BYTES);
    config.map = sim_map();
    memset(bare_record, 0, sizeof(bare_record));
    return config;
}

TEST(mm, ram_beyond_the_direct_map_is_refused)
{
    static const uint64_t bytes[] = {16 * MiB, BARE_BYTES - PAGE_BYTES};

    for (unsigned i = 0; i < sizeof(bytes) / sizeof(bytes[0]); i++) {
        struct mm_config config = bare_machine();
        config.direct_bytes = bytes[i];
        CHECK_EQUAL(mm_init(&config), MM_ERANGE);
        CHECK_EQUAL(mm_stage(), MM_STAGE_NOTHING);
        CHECK(sim_log_contains("RAM at 0x4000000 is beyond the direct map's"));
        CHECK(sim_log_contains("start of page tables failed: MM_ERANGE"));
    }
    struct mm_config config = bare_machine(); /* exactly enough */
    CHECK_EQUAL(mm_init(&config), MM_OK);
}

TEST(mm, tables_without_what_is_needed_are_not_loaded)
{
    static const struct audit_need need = {
        "stack", SIM_KMAP, PT_WRITE, {UINT64_MAX}};
    struct mm_config config = bare_machine();

    config.need = &need;
    config.need_count = 1;
    CHECK_EQUAL(mm_init(&config), MM_EFAULT);
    CHECK_EQUAL(mm_stage(), MM_STAGE_NOTHING);
    CHECK(sim_log_contains("the new page tables are refused: stack at "));
}

TEST(mm, an_arena_under_two_top_level_entries_is_refused)
{
    struct mm_config config = bare_machine();

    config.kmap_end += PAGE_BYTES;
    CHECK_EQUAL(mm_init(&config), MM_ERANGE);
    CHECK_EQUAL(mm_stage(), MM_STAGE_HEAP);
    CHECK(sim_log_contains("start of kernel mappings failed: MM_ERANGE"));
}

static uint64_t metadata_frames(void)
{
    struct frame_stats stats;

    frame_stats(&stats);
    return stats.metadata;
}

/*
 * The records of this test are host memory, so that only the tables for them
 * can be looked at. Two CPUs that want a block at the same moment both have it
 * backed: here the second comes when the bit of the first is not set yet.
 */
TEST(mm, records_of_a_block_are_mapped_once)
{
    struct mm_config config = bare_machine();
    struct walk walk;

    CHECK_EQUAL(mm_init(&config), MM_OK);
    pfn_t frame = frame_alloc(0, FRAME_KERNEL, FRAME_ANY);
    CHECK(!pfn_is_none(frame));
    uint64_t block = frame.v / RECORD_BLOCK_FRAMES;
    vaddr_t start = (vaddr_t)&bare_record[block * RECORD_BLOCK_FRAMES];
    for (vaddr_t page = start; page < start + 2 * PAGE_BYTES;
         page += PAGE_BYTES) {
        walk_address(pt_kernel.root, page, &walk);
        CHECK_EQUAL(walk.state, PTE_PRESENT);
        CHECK(walk.is_writable && !walk.is_executable && !walk.is_user);
        CHECK_EQUAL(frame_state(phys_to_pfn(walk.physical)),
                    FRAME_STATE_METADATA);
    }
    uint64_t before = metadata_frames();
    record_backed[block / 64] &= ~(UINT64_C(1) << (block % 64));
    CHECK_EQUAL(record_back_block(frame), MM_OK);
    CHECK_EQUAL(metadata_frames(), before);
    CHECK(record_exists(frame));
    frame_free(frame, 0);
}

/* The raw entry that translates @address. */
static pte_t *entry_of(vaddr_t address)
{
    struct walk walk;

    walk_address(pt_kernel.root, address, &walk);
    const struct walk_step *last = &walk.step[walk.count - 1];
    return (pte_t *)phys_to_virt(last->table) + last->index;
}

TEST(mm, the_audit_finds_what_is_planted)
{
    struct audit_verdict verdict;

    sim_boot(64 * MiB);
    pte_t *entry = entry_of(SIM_DIRECT + 16 * MiB);
    pte_t saved = *entry;

    entry->v &= ~PTE_XD;
    CHECK(!pt_audit(&pt_kernel, &verdict));
    CHECK_EQUAL(verdict.writable_exec, 1);
    entry->v = saved.v | (UINT64_C(1) << 45);
    CHECK(!pt_audit(&pt_kernel, &verdict));
    CHECK_EQUAL(verdict.reserved_bits, 1);
    entry->v = 0;
    CHECK(!pt_audit(&pt_kernel, &verdict));
    CHECK_EQUAL(verdict.wrong_counts, 1);
    pfn_t pfn = frame_alloc(0, FRAME_KERNEL, FRAME_ANY);
    frame_free(pfn, 0);
    *entry = saved;
    pte_t *small = entry_of(SIM_DIRECT + 2 * MiB); /* split by the image */
    pte_t small_saved = *small;
    *small = pte_make_leaf(0, pfn, pt_attr(PT_OWNED));
    CHECK(!pt_audit(&pt_kernel, &verdict));
    CHECK_EQUAL(verdict.freed_frames, 1);
    *small = pte_make_parked(pfn, pt_attr(PT_OWNED));
    CHECK(!pt_audit(&pt_kernel, &verdict));
    CHECK_EQUAL(verdict.freed_frames, 1);
    *small = small_saved;
    atomic_fetch_add(&pt_kernel.tables, 1);
    CHECK(!pt_audit(&pt_kernel, &verdict));
    CHECK_EQUAL(verdict.lost_tables, 1);
    atomic_fetch_sub(&pt_kernel.tables, 1);
    CHECK(pt_audit(&pt_kernel, &verdict));
}

/* A table that says nothing, and that nobody made at start. */
TEST(mm, the_audit_finds_an_empty_table)
{
    struct audit_verdict verdict;
    struct pt space;

    sim_boot(64 * MiB);
    CHECK_EQUAL(pt_init(&space), MM_OK);
    CHECK(pt_audit(&space, &verdict));
    pfn_t empty = frame_alloc(0, FRAME_TABLE, FRAME_ZEROED);
    pte_t *root = phys_to_virt(pfn_to_phys(space.root));
    root[1] = pte_make_table(empty, true);
    atomic_fetch_add(&record_of(space.root)->entries, 1);
    atomic_fetch_add(&space.tables, 1);
    CHECK(!pt_audit(&space, &verdict));
    CHECK_EQUAL(verdict.empty_tables, 1);
    CHECK_EQUAL(verdict.wrong_counts + verdict.lost_tables, 0);
}

TEST(mm, tables_that_would_kill_are_refused)
{
    static const struct {
        vaddr_t address;
        unsigned flags;
        const char *text;
    } bad[] = {
        {UINT64_C(0x0000800000000000), 0, "is not canonical"},
        {UINT64_C(0xffffffffc0000000), 0, "is not mapped"},
        {UINT64_C(0xffffffff80000000), PT_WRITE, "is not writable"},
        {UINT64_C(0xffffffff80010000), PT_EXEC, "is not executable"},
    };
    struct audit_refusal refusal;

    sim_boot(64 * MiB);
    for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct audit_need need = {"thing", bad[i].address, bad[i].flags,
                                  PFN_NONE};
        CHECK(!audit_before_load(pt_kernel.root, &need, 1, &refusal));
        CHECK(refusal.text == bad[i].text ||
              __builtin_strcmp(refusal.text, bad[i].text) == 0);
        CHECK_EQUAL(refusal.address, bad[i].address);
    }
    struct audit_need moved = {"text", UINT64_C(0xffffffff80000000), PT_EXEC,
                               pfn_of(1)};
    CHECK(!audit_before_load(pt_kernel.root, &moved, 1, &refusal));
    pte_t *entry = entry_of(SIM_DIRECT + 16 * MiB);
    entry->v |= UINT64_C(1) << 45;
    CHECK(!audit_before_load(pt_kernel.root, NULL, 0, &refusal));
    entry->v &= ~(UINT64_C(1) << 45);
}

struct run_list {
    unsigned count;
    struct audit_run run[8];
};

static bool collect(void *context, const struct audit_run *run)
{
    struct run_list *list = context;

    if (list->count < 8) {
        list->run[list->count] = *run;
    }
    list->count++;
    return true;
}

TEST(mm, runs_are_merged)
{
    struct run_list list = {.count = 0};

    sim_boot(64 * MiB);
    audit_runs(&pt_kernel, UINT64_C(0xffffffff80000000),
               UINT64_C(0xffffffffc0000000), collect, &list);
    CHECK_EQUAL(list.count, 2);
    CHECK_EQUAL(list.run[0].bytes, 64 * KiB);
    CHECK_EQUAL(list.run[0].attr.flags, PT_EXEC | PT_GLOBAL);
    CHECK(list.run[0].is_contiguous);
    CHECK_EQUAL(list.run[1].bytes, 128 * KiB);
    CHECK_EQUAL(list.run[1].attr.flags, PT_WRITE | PT_GLOBAL);
}
