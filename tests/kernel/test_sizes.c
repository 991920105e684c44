/* SPDX-License-Identifier: MIT */
/* sizes: large pages that are cut and put together again, on the real MMU. */
#include "tests/shared/test.h"

#include <mm/audit.h>
#include <mm/fault.h>
#include <mm/frame.h>
#include <mm/pt.h>
#include "base/bits.h"
#include "kernel/image.h"
#include "tests/kernel/crew.h"
#include "tests/shared/access.h"
#include "tests/shared/once.h"

/*
 * At risk: the direct map cut while the kernel runs on it; a guard in it that
 * does not guard; pieces that stay pieces. A page that is copied with the
 * wrong bytes, or written to by both sides of a copy. Ring 0 touches a space
 * of its own here, so its pages are the kernel's.
 */

#define HERE GiB

/* --- the direct map ------------------------------------------------------- */

static void set_rights(vaddr_t page, unsigned flags)
{
    CHECK_EQUAL(pt_protect_kernel(page, PAGE_BYTES, pt_attr(flags | PT_GLOBAL)),
                MM_OK);
}

static unsigned level_of(vaddr_t page)
{
    struct walk walk;

    walk_address(pt_kernel.root, page, &walk);
    return walk.step[walk.count - 1].level;
}

TEST(sizes, the_direct_map_is_cut_for_a_guard_and_merged_back)
{
    pfn_t block =
        frame_alloc(MM_TABLE_BITS, FRAME_KERNEL, FRAME_ZEROED | FRAME_BELOW_4G);
    CHECK(!pfn_is_none(block));
    uint8_t *byte = phys_to_virt(pfn_to_phys(block));
    vaddr_t guard = (vaddr_t)byte + 7 * PAGE_BYTES;
    unsigned level = level_of(guard);
    uint8_t value = 0;

    CHECK(level > 0);
    CHECK_HELPER(set_rights(guard, PT_NONE));
    CHECK_EQUAL(level_of(guard), 0);
    CHECK(!access_read((void *)guard, &value));
    CHECK(access_read((void *)(guard - 1), &value));
    CHECK(access_read((void *)(guard + PAGE_BYTES), &value));
    CHECK_HELPER(set_rights(guard, PT_READ));
    CHECK(access_read((void *)guard, &value));
    CHECK(!access_write((void *)guard, 1));
    CHECK_EQUAL(level_of(guard), 0);
    CHECK_HELPER(set_rights(guard, PT_WRITE));
    byte[7 * PAGE_BYTES] = 7;
    CHECK_EQUAL(level_of(guard), pt_may_resize(0) ? level : 0);
    CHECK_EQUAL(byte[7 * PAGE_BYTES], 7);
    frame_free(block, MM_TABLE_BITS);
}

/* Turns in which each CPU guards its page, and gives it back. */
#define TURNS 40

static uint8_t *guarded;
static _Atomic unsigned refused;

static void guard_own_page(void *unused)
{
    volatile uint8_t *own = guarded + port_cpu() * PAGE_BYTES;
    struct pt_attr none = pt_attr(PT_NONE | PT_GLOBAL);
    struct pt_attr all = pt_attr(PT_WRITE | PT_GLOBAL);

    (void)unused;
    for (unsigned i = 0; i < TURNS; i++) {
        if (pt_protect_kernel((vaddr_t)own, PAGE_BYTES, none) != MM_OK ||
            pt_protect_kernel((vaddr_t)own, PAGE_BYTES, all) != MM_OK) {
            atomic_fetch_add(&refused, 1);
        }
        *own = (uint8_t)i; /* faults if a merge has lost it */
    }
}

/* Who cuts the block while another puts it together. */
TEST(sizes, cpus_guard_pages_of_one_block)
{
    pfn_t block =
        frame_alloc(MM_TABLE_BITS, FRAME_KERNEL, FRAME_ANY | FRAME_BELOW_4G);
    struct audit_verdict verdict;

    CHECK(!pfn_is_none(block));
    guarded = phys_to_virt(pfn_to_phys(block));
    unsigned level = level_of((vaddr_t)guarded);
    uint64_t tables = pt_kernel.tables;
    atomic_store(&refused, 0);
    crew_run(guard_own_page, NULL);
    CHECK_EQUAL(refused, 0);
    CHECK_EQUAL(level_of((vaddr_t)guarded), pt_may_resize(0) ? level : 0);
    CHECK(!pt_may_resize(0) || pt_kernel.tables == tables);
    CHECK(pt_audit(&pt_kernel, &verdict));
    frame_free(block, MM_TABLE_BITS);
}

/* --- the image ------------------------------------------------------------ */

static uint8_t some_data[2 * PAGE_BYTES];

/* Its data lies in a large page where there is RAM around it. */
TEST(sizes, the_image_is_cut_for_a_guard_and_merged_back)
{
    vaddr_t guard = align_up((vaddr_t)some_data, PAGE_BYTES);
    unsigned level = level_of(guard);
    uint8_t value = 0;

    CHECK(is_aligned((vaddr_t)data_start, pte_span(1)));
    some_data[PAGE_BYTES] = 5;
    CHECK_HELPER(set_rights(guard, PT_NONE));
    CHECK_EQUAL(level_of(guard), 0);
    CHECK(!access_read((void *)guard, &value));
    CHECK(access_read((void *)(guard - 1), &value));
    CHECK(access_read((void *)(guard + PAGE_BYTES), &value));
    CHECK_HELPER(set_rights(guard, PT_WRITE));
    CHECK_EQUAL(level_of(guard), pt_may_resize(0) ? level : 0);
    CHECK_EQUAL(some_data[PAGE_BYTES], 5);
    CHECK(access_write((void *)guard, 6));
}

/* Code keeps its size: some CPUs may not fetch from what changes it. */
TEST(sizes, rights_of_the_image_are_of_one_kind_each)
{
    static const struct {
        const char *from;
        const char *to;
    } part[] = {{text_start, text_end}, {rodata_start, rodata_end}};

    for (size_t i = 0; i < sizeof(part) / sizeof(part[0]); i++) {
        for (const char *at = part[i].from; at < part[i].to; at += PAGE_BYTES) {
            struct walk walk;

            walk_address(pt_kernel.root, (vaddr_t)at, &walk);
            CHECK_EQUAL(walk.step[walk.count - 1].level, 0);
            CHECK(!walk.is_writable);
            CHECK(walk.is_executable == (i == 0) || !pt_features.has_nx);
        }
    }
}

/* --- a space of its own --------------------------------------------------- */

static struct pt space;
static struct pt child;

static void start_space(void)
{
    CHECK_EQUAL(pt_init(&space), MM_OK);
    tlb_switch(&space.tlb);
    CHECK_EQUAL(once_promise(&space, HERE, 4 * MiB, PT_ZERO, pt_attr(PT_WRITE)),
                MM_OK);
}

static void end_space(void)
{
    tlb_switch(&pt_kernel.tlb);
    pt_fini(&space);
}

/* Is the byte at @offset of the space that is loaded @expected? */
static bool has_byte(uint64_t offset, uint8_t expected)
{
    uint8_t value = (uint8_t)~expected;

    return access_read((void *)(HERE + offset), &value) && value == expected;
}

static bool put_byte(uint64_t offset, uint8_t value)
{
    return access_write((void *)(HERE + offset), value);
}

/* [Foreshadow18] What is not present must not name RAM to the cache. */
TEST(sizes, frames_of_no_payload_are_not_parked)
{
    uint64_t all = UINT64_C(1) << (pt_features.physical_bits - PAGE_SHIFT);
    uint64_t limit = min_u64(all, pt_payload_end);

    CHECK_EQUAL(pt_init(&space), MM_OK);
    enum mm_status last =
        once_map(&space, HERE, pfn_of(limit - 1), PAGE_BYTES, pt_attr(PT_NONE));
    enum mm_status next = once_map(&space, HERE + PAGE_BYTES, pfn_of(limit),
                                   PAGE_BYTES, pt_attr(PT_NONE));
    pt_fini(&space);
    CHECK_EQUAL(last, MM_OK);
    CHECK_EQUAL(next, MM_EINVAL);
    CHECK(limit == all || (pt_quirks & PT_QUIRK_L1TF) != 0 ||
          limit == PTE_PAYLOAD_END);
}

TEST(sizes, a_large_promise_is_kept_by_a_large_page)
{
    CHECK_HELPER(start_space());
    CHECK(put_byte(MiB, 7));
    CHECK_EQUAL(once_query(&space, HERE).level, pt_may_resize(0) ? 1 : 0);
    CHECK(has_byte(MiB, 7) && has_byte(0, 0) && has_byte(2 * MiB - 1, 0));
    end_space();
}

TEST(sizes, both_sides_of_a_copy_write_to_pages_of_their_own)
{
    CHECK_HELPER(start_space());
    CHECK(put_byte(5, 7) && put_byte(PAGE_BYTES, 8));
    CHECK_EQUAL(pt_init(&child), MM_OK);
    CHECK_EQUAL(once_copy(&space, &child, HERE, 4 * MiB), MM_OK);
    CHECK(put_byte(6, 9));
    CHECK(has_byte(5, 7) && has_byte(6, 9) && has_byte(PAGE_BYTES, 8));
    tlb_switch(&child.tlb);
    CHECK(has_byte(5, 7) && has_byte(6, 0) && put_byte(5, 10));
    CHECK(has_byte(PAGE_BYTES, 8));
    tlb_switch(&space.tlb);
    CHECK(has_byte(5, 7));
    pt_fini(&child);
    end_space();
}

static bool is_wanted(void *context, const struct pt_collapse *found)
{
    *(struct pt_collapse *)context = *found;
    return true;
}

TEST(sizes, small_pages_are_collapsed_with_their_contents)
{
    struct once once;
    struct pt_collapse found;
    uint64_t first = 2 * MiB - PAGE_BYTES;

    CHECK_HELPER(start_space());
    CHECK_EQUAL(once_open(&once, &space, HERE, 4 * MiB), MM_OK);
    CHECK_EQUAL(once_shut(&once, pt_split(&once.cursor, HERE)), MM_OK);
    CHECK(put_byte(0, 1) && put_byte(first, 2));
    CHECK_EQUAL(once_query(&space, HERE).level, 0);
    enum mm_status status = pt_collapse(&space, HERE, is_wanted, &found);
    CHECK_EQUAL(status, pt_may_resize(0) ? MM_OK : MM_ERANGE);
    CHECK_EQUAL(once_query(&space, HERE).level, pt_may_resize(0) ? 1 : 0);
    CHECK(has_byte(0, 1) && has_byte(first, 2) && has_byte(MiB, 0));
    CHECK(put_byte(MiB, 3) && has_byte(MiB, 3));
    end_space();
}
