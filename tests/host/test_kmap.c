/* SPDX-License-Identifier: MIT */
/* Tests of kmap that need a machine of their own: failures and inner order. */
#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#include <mm/audit.h>
#include <mm/frame.h>
#include <mm/kmap.h>
#include <mm/pt.h>
#include <mm/slab.h>
#include "base/bits.h"
#include "tests/host/sim.h"
#include "tests/host/sim_mmu.h"
#include "tests/shared/figures.h"

/*
 * At risk: a failure half way that leaves frames, tables or addresses behind,
 * a frame let go of before it was invalidated, a removal that stops early and
 * is taken for complete, a window whose frames are freed as if they were RAM.
 * Provoked by failing each frame allocation in turn for each kind of block, by
 * frames with a second holder, by a TLB that never forgets by itself, and by a
 * fault in the midst of a search of the arena.
 */

#define RAM_BYTES (64 * MiB)
#define DEVICE    UINT64_C(0xfd000000) /* no RAM there */

struct account {
    uint64_t frames;
    uint64_t tables;    /* of the kernel, in use */
    uint64_t elsewhere; /* frames of other tables */
    uint64_t arena_free;
    uint64_t descriptors;
};

/* Blocks that have a descriptor, whether they can be found or not. */
static uint64_t descriptors(void)
{
    struct slab_stats stats = {.live = UINT64_MAX};

    for (const struct slab_cache *cache = slab_next(NULL); cache != NULL;
         cache = slab_next(cache)) {
        slab_stats(cache, &stats);
        if (strcmp(stats.name, "kmap block") == 0) {
            break;
        }
    }
    return stats.live;
}

static struct account account_open(void)
{
    struct account now;
    struct kmap_stats kmap;

    kmap_stats(&kmap);
    now.frames = frames_of(FRAME_KMAP);
    now.tables = kernel_tables_in_use();
    now.elsewhere = tables_elsewhere();
    now.arena_free = kmap.arena_free;
    now.descriptors = descriptors();
    return now;
}

/* Nothing is left: no frame, table, address, stale translation, bad entry. */
static void account_close(const struct account *before)
{
    struct kmap_stats kmap;
    struct audit_verdict verdict;

    kmap_purge();
    kmap_stats(&kmap);
    CHECK_EQUAL(frames_of(FRAME_KMAP), before->frames);
    CHECK_EQUAL(kernel_tables_in_use(), before->tables);
    CHECK_EQUAL(tables_elsewhere(), before->elsewhere);
    CHECK_EQUAL(kmap.arena_free, before->arena_free);
    CHECK_EQUAL(descriptors(), before->descriptors);
    CHECK_EQUAL(sim_stale(), 0);
    CHECK(pt_audit(&pt_kernel, &verdict));
    CHECK(kmap_check());
}

/* --- the k-th allocation of a frame fails --------------------------------- */

static void *make_eager(void)
{
    /* Over three page tables: the middle one has no guard in it. */
    return kmap_alloc(1100 * PAGE_BYTES, KMAP_EAGER, "eager");
}

static void *make_zeroed(void)
{
    return kmap_alloc(40 * PAGE_BYTES, KMAP_ZERO, "zeroed");
}

static void *make_lazy(void)
{
    return kmap_alloc(3 * GiB + PAGE_BYTES, KMAP_LAZY, "lazy");
}

static void *make_stack(void)
{
    return kmap_stack(16 * KiB, "stack");
}

static void *make_window(void)
{
    return kmap_mmio(paddr_of(DEVICE), 4 * MiB, PT_WC, "window");
}

/*
 * Fail at every place in turn. The slab can do without some frames, so that
 * the block may come to life all the same.
 */
static void sweep(void *(*make)(void))
{
    uint64_t k = 0;
    uint64_t tried;
    unsigned refused = 0;

    do {
        sim_boot(RAM_BYTES);
        struct account before = account_open();
        frame_inject(++k);
        void *block = make();
        tried = frame_inject_count();
        frame_inject(0);
        refused += block == NULL ? 1 : 0;
        CHECK(kmap_check());
        kmap_free(block);
        CHECK_HELPER(account_close(&before));
    } while (tried >= k);
    CHECK(refused >= 2);
}

TEST(kmap, a_failure_leaves_nothing_of_an_eager_block)
{
    CHECK_HELPER(sweep(make_eager));
}

TEST(kmap, a_failure_leaves_nothing_of_a_zeroed_block)
{
    CHECK_HELPER(sweep(make_zeroed));
}

TEST(kmap, a_failure_leaves_nothing_of_a_lazy_block)
{
    CHECK_HELPER(sweep(make_lazy));
}

TEST(kmap, a_failure_leaves_nothing_of_a_stack)
{
    CHECK_HELPER(sweep(make_stack));
}

TEST(kmap, a_failure_leaves_nothing_of_a_window)
{
    CHECK_HELPER(sweep(make_window));
}

/* More than the machine has: refused by the frames, not by the addresses. */
TEST(kmap, a_block_larger_than_ram_is_refused)
{
    sim_boot(RAM_BYTES);
    struct account before = account_open();

    CHECK(kmap_alloc(2 * RAM_BYTES, KMAP_EAGER, "large") == NULL);
    CHECK_HELPER(account_close(&before));
    void *block = kmap_alloc(RAM_BYTES / 2, KMAP_EAGER, "half");
    CHECK(block != NULL);
    kmap_free(block);
    CHECK_HELPER(account_close(&before));
}

TEST(kmap, a_block_larger_than_the_arena_is_refused)
{
    struct kmap_stats kmap;

    sim_boot(RAM_BYTES);
    struct account before = account_open();
    kmap_stats(&kmap);
    CHECK(kmap_alloc(kmap.arena_bytes, KMAP_LAZY, "large") == NULL);
    CHECK_HELPER(account_close(&before));
    void *block =
        kmap_alloc(kmap.arena_bytes - 2 * PAGE_BYTES, KMAP_LAZY, "all");
    CHECK(block != NULL);
    CHECK(kmap_alloc(1, KMAP_LAZY, "one more") == NULL);
    CHECK(kmap_check());
    kmap_free(block);
    CHECK_HELPER(account_close(&before));
}

/* --- frames and translations ---------------------------------------------- */

/* Each page has a frame of its own, of type kmap, held once. */
TEST(kmap, frames_belong_to_the_block)
{
    pfn_t last = PFN_NONE;

    sim_boot(RAM_BYTES);
    vaddr_t block = (vaddr_t)kmap_alloc(8 * PAGE_BYTES, KMAP_EAGER, "eager");
    CHECK(block != 0);
    for (unsigned i = 0; i < 8; i++) {
        pfn_t pfn;
        struct pt_attr attr;
        CHECK(sim_lookup(&pt_kernel, block + i * PAGE_BYTES, &pfn, &attr));
        CHECK(!pfn_equal(pfn, last));
        CHECK_EQUAL(record_of(pfn)->type, FRAME_KMAP);
        CHECK_EQUAL(record_of(pfn)->refs, 1);
        CHECK_EQUAL(attr.flags, PT_WRITE | PT_GLOBAL | PT_OWNED);
        last = pfn;
    }
    CHECK(!sim_execute(block));
    CHECK_EQUAL(sim_last_fault(), FAULT_NO_EXECUTE);
    kmap_free((void *)block);
    CHECK_EQUAL(sim_cached(last, 1), 0);
}

/*
 * A batch waits for few frames that others hold too; a block with more of
 * them is removed in several goes, and the others keep their frames.
 */
TEST(kmap, shared_frames_outlive_their_block)
{
    enum { PAGES = 5 * TLB_BATCH_SHARED + 3 };
    static pfn_t frame[PAGES];

    sim_boot(RAM_BYTES);
    struct account before = account_open();
    vaddr_t block = (vaddr_t)kmap_alloc(PAGES * PAGE_BYTES, KMAP_EAGER, "held");
    CHECK(block != 0);
    for (unsigned i = 0; i < PAGES; i++) {
        struct pt_attr attr;
        vaddr_t page = block + i * PAGE_BYTES;
        CHECK(sim_lookup(&pt_kernel, page, &frame[i], &attr));
        CHECK(sim_write(page, 0x77));
        frame_ref(frame[i]);
    }
    kmap_free((void *)block);
    CHECK_EQUAL(frames_of(FRAME_KMAP), before.frames + PAGES);
    for (unsigned i = 0; i < PAGES; i++) {
        CHECK_EQUAL(sim_cached(frame[i], 1), 0);
        CHECK_EQUAL(record_of(frame[i])->refs, 1);
        frame_unref(frame[i]);
    }
    CHECK_HELPER(account_close(&before));
}

/* Write to every frame the machine has left, and free them all again. */
static void soil_ram(void)
{
    static pfn_t frame[RAM_BYTES / PAGE_BYTES];
    unsigned count = 0;
    pfn_t pfn;

    while (!pfn_is_none(pfn = frame_alloc(0, FRAME_KERNEL, FRAME_ANY))) {
        memset(phys_to_virt(pfn_to_phys(pfn)), 0xa5, PAGE_BYTES);
        frame[count++] = pfn;
    }
    while (count > 0) {
        frame_free(frame[--count], 0);
    }
}

TEST(kmap, what_is_promised_zero_is_zero)
{
    enum { PAGES = 100 };
    vaddr_t block[3];
    uint8_t value;

    sim_boot(RAM_BYTES);
    soil_ram();
    block[0] = (vaddr_t)kmap_alloc(PAGES * PAGE_BYTES, KMAP_ZERO, "zeroed");
    block[1] = (vaddr_t)kmap_alloc(PAGES * PAGE_BYTES, KMAP_LAZY, "lazy");
    block[2] = (vaddr_t)kmap_stack(PAGES * PAGE_BYTES, "stack");
    for (unsigned i = 0; i < 3; i++) {
        CHECK(block[i] != 0);
        for (uint64_t at = 0; at < PAGES * PAGE_BYTES; at += 999) {
            CHECK(sim_read(block[i] + at, &value));
            CHECK_EQUAL(value, 0);
        }
        kmap_free((void *)block[i]);
    }
}

/* An address used again shows the new frame, not the cached old one. */
TEST(kmap, a_reused_address_is_new_memory)
{
    uint8_t value;

    sim_boot(RAM_BYTES);
    kmap_keep(0);
    vaddr_t first = (vaddr_t)kmap_alloc(PAGE_BYTES, KMAP_ZERO, "first");
    CHECK(sim_write(first, 0x11));
    kmap_free((void *)first);
    vaddr_t second = (vaddr_t)kmap_alloc(PAGE_BYTES, KMAP_ZERO, "second");
    CHECK_EQUAL(second, first); /* else this test proves nothing */
    CHECK(sim_read(second, &value));
    CHECK_EQUAL(value, 0);
    CHECK_EQUAL(sim_stale(), 0);
    kmap_free((void *)second);
}

/* --- windows -------------------------------------------------------------- */

TEST(kmap, a_window_leads_to_the_device)
{
    sim_boot(RAM_BYTES);
    struct account before = account_open();
    vaddr_t window =
        (vaddr_t)kmap_mmio(paddr_of(DEVICE + 0x123), 8 * KiB, PT_WC, "device");
    paddr_t physical;
    pfn_t pfn;
    struct pt_attr attr;

    CHECK(window != 0);
    for (uint64_t offset = 0; offset < 8 * KiB; offset += 0x7f) {
        CHECK_EQUAL(sim_translate(window + offset, WALK_WRITE, &physical),
                    WALK_ALLOWED);
        CHECK_EQUAL(physical.v, DEVICE + 0x123 + offset);
    }
    CHECK(sim_lookup(&pt_kernel, window, &pfn, &attr));
    CHECK_EQUAL(attr.memory, PT_WC);
    CHECK_EQUAL(attr.flags, PT_WRITE | PT_GLOBAL);
    CHECK_EQUAL(sim_translate(window, WALK_EXEC, &physical), WALK_NO_EXECUTE);
    kmap_free((void *)window);
    CHECK_EQUAL(sim_translate(window, WALK_READ, &physical), WALK_NOT_PRESENT);
    CHECK_HELPER(account_close(&before));
}

TEST(kmap, the_edges_of_physical_memory)
{
    static const struct {
        uint64_t start;
        uint64_t bytes;
        bool is_allowed;
    } table[] = {
        {0, 1, true}, /* below 1 MiB: RAM, but not the allocator's */
        {MiB - PAGE_BYTES, PAGE_BYTES, true},
        {MiB - 1, 2, false},
        {MiB + 1, 1, false},
        {RAM_BYTES, PAGE_BYTES, true},
        {SIM_PHYSICAL_END - 1, 1, true}, /* MAXPHYADDR is 40 there */
        {SIM_PHYSICAL_END - 1, 2, false},
        {SIM_PHYSICAL_END, 1, false},
        {UINT64_MAX, 1, false},
        {UINT64_MAX, UINT64_MAX, false},
    };

    sim_boot(RAM_BYTES);
    struct account before = account_open();
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        void *window =
            kmap_mmio(paddr_of(table[i].start), table[i].bytes, PT_UC, "edge");
        CHECK_EQUAL(window != NULL, table[i].is_allowed);
        kmap_free(window);
        CHECK_HELPER(account_close(&before));
    }
    CHECK(kmap_mmio(paddr_of(DEVICE), 1, (enum pt_memory)2, "type") == NULL);
    CHECK_HELPER(account_close(&before));
}

/* Start-up again on the same machine, with a map that has every type. */
static void boot_with_types(struct memmap *map)
{
    static struct memmap_range range[MEMMAP_TYPES];

    /* 16 pages each and 16 of hole before it; type n at (2n + 1) * 64 KiB. */
    for (unsigned type = 0; type < MEMMAP_TYPES; type++) {
        uint64_t start = DEVICE + (2 * type + 1) * 64 * KiB;
        range[type] = (struct memmap_range){start, start + 64 * KiB,
                                            (enum memmap_type)type, "test", ""};
    }
    /* There is no range of a hole. */
    *map = (struct memmap){&range[1], MEMMAP_TYPES - 1, MEMMAP_TYPES - 1, 0};
    sim_boot(RAM_BYTES);
    CHECK(memmap_check(map));
    CHECK(kmap_init(SIM_KMAP, SIM_KMAP + 512 * GiB, map) == MM_OK);
}

static void check_window(uint64_t start, uint64_t bytes, bool is_allowed)
{
    void *window = kmap_mmio(paddr_of(start), bytes, PT_UC, "window");

    CHECK_EQUAL(window != NULL, is_allowed);
    kmap_free(window);
}

/* Firmware may keep what the CPU cannot address: that is no hole to look in. */
TEST(kmap, no_window_opens_behind_the_last_address)
{
    struct memmap_range kept = {SIM_PHYSICAL_END - MiB, SIM_PHYSICAL_END + MiB,
                                MEMMAP_RESERVED, "test", ""};
    struct memmap map = {&kept, 1, 1, 0};

    sim_boot(RAM_BYTES);
    CHECK(kmap_init(SIM_KMAP, SIM_KMAP + 512 * GiB, &map) == MM_OK);
    kmap_keep(1);
    for (unsigned i = 0; i < 3; i++) { /* the second has all flushed */
        CHECK_HELPER(check_window(SIM_PHYSICAL_END - 1, 1, true));
    }
    CHECK_HELPER(check_window(SIM_PHYSICAL_END, 1, false));
    kmap_purge();
    CHECK(kmap_check());
}

/* RAM in use or free is out of bounds; what the firmware keeps is not. */
TEST(kmap, the_type_of_the_memory_decides_about_a_window)
{
    struct memmap map;

    CHECK_HELPER(boot_with_types(&map));
    for (size_t i = 0; i < map.count; i++) {
        const struct memmap_range *range = &map.range[i];
        bool is_allowed = range->type != MEMMAP_USABLE &&
                          range->type != MEMMAP_RECLAIM &&
                          range->type != MEMMAP_KERNEL;

        CHECK_HELPER(check_window(range->start, 1, is_allowed));
        CHECK_HELPER(check_window(range->end - 1, 1, is_allowed));
        CHECK_HELPER(check_window(range->start - 1, 2, is_allowed));
        CHECK_HELPER(check_window(range->end - 1, 2, is_allowed));
        CHECK_HELPER(
            check_window(range->start - 64 * KiB, 192 * KiB, is_allowed));
        CHECK_HELPER(check_window(range->start - 1, 1, true));
        CHECK_HELPER(check_window(range->end, 1, true));
    }
    CHECK_HELPER(check_window(DEVICE, 64 * MiB, false));
    CHECK(kmap_check());
}

TEST(kmap, no_window_opens_onto_the_image_or_metadata)
{
    sim_boot(RAM_BYTES);
    struct account before = account_open();
    pfn_t metadata = frame_alloc_metadata();

    CHECK(!pfn_is_none(metadata));
    CHECK_EQUAL(frame_state(metadata), FRAME_STATE_METADATA);
    CHECK_HELPER(check_window(pfn_to_phys(metadata).v, PAGE_BYTES, false));
    CHECK_HELPER(check_window(2 * MiB, 1, false));            /* .text */
    CHECK_HELPER(check_window(2 * MiB + 64 * KiB, 1, false)); /* .data */
    CHECK_HELPER(check_window(MiB - 1, RAM_BYTES, false));
    CHECK_HELPER(account_close(&before));
}

/* --- start-up ------------------------------------------------------------- */

TEST(kmap, an_arena_that_cannot_be_opened_is_refused)
{
    sim_boot(RAM_BYTES);
    const struct memmap *map = sim_map();
    CHECK_EQUAL(kmap_init(PAGE_BYTES, MiB, map), MM_EINVAL); /* user half */
    CHECK_EQUAL(kmap_init(SIM_KMAP + 1, SIM_KMAP + MiB, map), MM_EINVAL);
    CHECK_EQUAL(kmap_init(SIM_KMAP, SIM_KMAP, map), MM_EINVAL);
    CHECK_EQUAL(kmap_init(SIM_KMAP, SIM_KMAP + 513 * GiB, map), MM_ERANGE);
    CHECK(kmap_check()); /* the first arena still stands */
}

TEST(kmap, find_knows_every_byte_of_a_block)
{
    struct kmap_info info;

    sim_boot(RAM_BYTES);
    vaddr_t low = (vaddr_t)kmap_alloc(PAGE_BYTES, KMAP_LAZY, "low");
    vaddr_t high = (vaddr_t)kmap_alloc(2 * PAGE_BYTES, KMAP_LAZY, "high");
    CHECK(low != 0 && high != 0);
    for (unsigned page = 0; page < 4; page++) {
        vaddr_t start = high - PAGE_BYTES + page * PAGE_BYTES;
        for (vaddr_t at = start; at < start + PAGE_BYTES; at += 4095) {
            CHECK(kmap_find(at, &info));
            CHECK_EQUAL(info.start, high);
            CHECK_EQUAL(info.bytes, 2 * PAGE_BYTES);
            CHECK_EQUAL(info.is_guard, page == 0 || page == 3);
        }
    }
    CHECK(!kmap_find(0, &info) && !kmap_find(UINT64_MAX, &info));
    CHECK(!kmap_find(SIM_KMAP + 100 * GiB, &info));
    kmap_free((void *)high);
    CHECK(!kmap_find(high, &info) && kmap_find(low, &info));
    kmap_free((void *)low);
}

/* --- a fault while the arena is locked ------------------------------------ */

static struct kmap_info *trap; /* its page cannot be touched at first */
static vaddr_t trap_address;
static unsigned trap_faults;
static bool trap_found;

/* What the kernel's fault report does, wherever the fault came from. */
static void report_fault(int signal)
{
    struct kmap_info info;

    (void)signal;
    trap_faults++;
    trap_found = kmap_find(trap_address, &info);
    sim_set_cpu_count(2);
    sim_set_cpu(1); /* whose report finds this CPU stopped in the arena */
    trap_found = kmap_find(trap_address, &info) || trap_found;
    sim_set_cpu(0);
    sim_set_cpu_count(1);
    mprotect(trap, PAGE_BYTES, PROT_READ | PROT_WRITE);
}

/*
 * kmap_find() writes what it found with the arena locked. That write faults,
 * and the report of the fault searches again, as that of another CPU does. If
 * they wait, they wait for ever.
 */
TEST(kmap, a_fault_inside_the_arena_is_reported_without_it)
{
    struct sigaction action = {.sa_handler = report_fault};
    struct sigaction before;

    sim_boot(RAM_BYTES);
    void *block = kmap_alloc(PAGE_BYTES, KMAP_LAZY, "block");
    trap =
        mmap(NULL, PAGE_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(block != NULL && trap != MAP_FAILED);
    trap_address = (vaddr_t)block;
    trap_faults = 0;
    trap_found = true;
    sigaction(SIGSEGV, &action, &before);
    bool is_found = kmap_find(trap_address, trap);
    sigaction(SIGSEGV, &before, NULL);
    CHECK_EQUAL(trap_faults, 1);
    CHECK(!trap_found);
    CHECK(is_found && trap->start == trap_address);
    CHECK(kmap_find(trap_address, trap)); /* it is free again */
    munmap(trap, PAGE_BYTES);
    kmap_free(block);
}
