/* SPDX-License-Identifier: MIT */
/* Tests of guard where another CPU acts in the middle of a report. */
#include <mm/audit.h>
#include <mm/frame.h>
#include <mm/guard.h>
#include <mm/pt.h>
#include "base/bits.h"
#include "heap/guard.h"
#include "heap/magazine.h"
#include "heap/slab_impl.h"
#include "tests/host/sim.h"
#include "tests/host/sim_mmu.h"
#include "tests/shared/figures.h"
#include "tests/shared/text.h"

/*
 * At risk: a report about an object that was given away meanwhile, a page that
 * is opened for it when it is another's, or stays open for good; an object
 * that is lost because a wrong free came in the way of the right one. Provoked
 * by one act of CPU 1 at each moment of what CPU 0 does: when a report is
 * printed, and wherever interrupts are off or on again.
 */

#define RAM_BYTES (64 * MiB)
#define BYTES     64
#define SITE      UINT64_C(0x1111)
#define OTHER     UINT64_C(0x2222)
#define THIRD     UINT64_C(0x3333)
#define SEATS     GUARD_OBJECTS
#define MOMENTS   40

static struct slab_cache *cache;

static void boot(void)
{
    sim_boot_cpus(RAM_BYTES, 2, SIM_ALL_PARTS);
    cache = slab_create_kind(POOL_KMALLOC, "sixty-four", BYTES, BYTES, NULL);
    CHECK(cache != NULL);
    CHECK_EQUAL(guard_enable(1), MM_OK);
}

static char *alloc(void)
{
    return guard_alloc(&cache->pool, BYTES, SITE);
}

static bool is_open(const char *address)
{
    paddr_t physical;

    return sim_translate(SIM_DIRECT + virt_to_phys(address).v, WALK_READ,
                         &physical) == WALK_ALLOWED;
}

/* Every seat has a new object, and loses it. */
static void use_all_seats(void)
{
    for (unsigned i = 0; i < SEATS; i++) {
        CHECK(guard_free(alloc(), NULL, OTHER));
    }
}

static void check_all(void)
{
    struct audit_verdict verdict;

    CHECK(guard_check());
    CHECK(pt_audit(&pt_kernel, &verdict));
    CHECK(frame_check());
}

/* --- CPU 1 ---------------------------------------------------------------- */

static void (*act_elsewhere)(void); /* once */
static unsigned moments;            /* until then */

static void come_between(void)
{
    if (moments > 0 && --moments == 0) {
        sim_set_cpu(1);
        act_elsewhere();
        sim_set_cpu(0);
    }
}

static void come_between_words(const char *text)
{
    (void)text;
    come_between();
}

/* It waits for CPU 0, whose interrupts are on here. */
static void let_answer(void)
{
    sim_set_cpu(0);
    sim_poll();
    sim_set_cpu(1);
}

static const struct sim_driver driver = {.complain = come_between_words,
                                         .relax = let_answer};

/* @act comes when the next report is printed. */
static void act_at_report(void (*act)(void))
{
    act_elsewhere = act;
    moments = 1;
    sim_set_driver(&driver);
}

/* Or at the moment of that number, from 1 on. */
static void act_at_moment(void (*act)(void), unsigned moment)
{
    act_elsewhere = act;
    moments = moment;
    sim_set_interrupt(come_between);
}

/* Return: has it come? */
static bool end_moments(void)
{
    bool has_come = moments == 0;

    moments = 0;
    sim_set_interrupt(NULL);
    sim_set_driver(NULL);
    return has_come;
}

/* --- the pool goes -------------------------------------------------------- */

static enum mm_status gone;

static void disable(void)
{
    gone = guard_disable();
}

TEST(guard, a_pool_that_goes_in_a_report_is_whole)
{
    CHECK_HELPER(boot());
    char *object = alloc();
    CHECK(guard_free(object, NULL, OTHER));

    act_at_report(disable);
    CHECK(guard_fault((vaddr_t)object, GUARD_READ, OTHER));
    CHECK(end_moments());
    CHECK_BUG("use after free: read at ");
    CHECK_EQUAL(gone, MM_OK);
    CHECK(is_open(object));
    CHECK_EQUAL(frames_of(FRAME_GUARD), 0);
    CHECK_HELPER(check_all());
}

/* --- pages of a report ---------------------------------------------------- */

/* The last page of all has no object on either side. */
TEST(guard, last_page_is_closed_again)
{
    CHECK_HELPER(boot());
    struct guard_stats stats;
    guard_stats(&stats);
    char *last = (char *)stats.start + stats.bytes - 1;

    CHECK_HELPER(use_all_seats());
    CHECK(guard_fault((vaddr_t)last, GUARD_WRITE, OTHER));
    CHECK_BUG("overflow: write at ");
    CHECK(is_open(last) && !is_open(last - PAGE_BYTES));
    CHECK_HELPER(use_all_seats());
    CHECK(!is_open(last));
}

TEST(guard, bared_guards_are_closed_whoever_comes)
{
    bool has_come = true;

    for (unsigned i = 1; i < MOMENTS && has_come; i++) {
        CHECK_HELPER(boot());
        char *behind = align_down(virt_to_phys(alloc()).v, PAGE_BYTES) +
                       (char *)phys_to_virt(paddr_of(0)) + PAGE_BYTES;
        act_at_moment(use_all_seats, i);
        CHECK(guard_fault((vaddr_t)behind, GUARD_READ, OTHER));
        has_come = end_moments();
        CHECK_BUG("overflow: read at ");
        CHECK_HELPER(use_all_seats());
        CHECK(!is_open(behind));
        CHECK_HELPER(check_all());
    }
    CHECK(!has_come); /* each had its turn */
}

/* --- another object has the page ------------------------------------------ */

static const char *freed;
static char *next; /* that has its page */

/* As many as it takes. */
static void use_page_again(void)
{
    for (unsigned i = 0; i < SEATS && next == NULL; i++) {
        char *object = guard_alloc(&cache->pool, BYTES, THIRD);
        if (virt_to_phys(object).v / PAGE_BYTES ==
            virt_to_phys(freed).v / PAGE_BYTES) {
            next = object;
        } else {
            CHECK(guard_free(object, NULL, THIRD));
        }
    }
}

TEST(guard, report_blames_no_later_object)
{
    bool has_come = true;

    for (unsigned i = 1; i < MOMENTS && has_come; i++) {
        CHECK_HELPER(boot());
        freed = alloc();
        next = NULL;
        CHECK(guard_free((void *)freed, NULL, OTHER));
        act_at_moment(use_page_again, i);
        CHECK(guard_fault((vaddr_t)freed, GUARD_READ, OTHER));
        has_come = end_moments();
        CHECK(!test_contains(test_last_bug(), "0x3333"));
        CHECK_BUG("use after free: read at ");
        CHECK(is_open(freed));
        if (next != NULL) {
            CHECK(guard_free(next, NULL, OTHER));
            CHECK(!is_open(freed));
        }
        CHECK_HELPER(check_all());
    }
    CHECK(!has_come);
}

static void set_rights(const char *object, unsigned flags)
{
    vaddr_t page = SIM_DIRECT + align_down(virt_to_phys(object).v, PAGE_BYTES);
    struct tlb_batch batch;
    struct pt_cursor cursor;

    CHECK_EQUAL(pt_open(&pt_kernel, page, page + PAGE_BYTES, &batch, &cursor),
                MM_OK);
    CHECK_EQUAL(pt_protect(&cursor, page, PAGE_BYTES, pt_attr(flags)), MM_OK);
    pt_close(&cursor);
    tlb_commit(&batch);
}

/* A fault there is tried again if it is none any more, and only then. */
TEST(guard, faults_at_a_live_object)
{
    CHECK_HELPER(boot());
    char *object = alloc();

    CHECK(guard_fault((vaddr_t)object, GUARD_WRITE, OTHER));
    CHECK_BUG("whose object has made room for another");
    CHECK_HELPER(set_rights(object, PT_GLOBAL));
    CHECK(!guard_fault((vaddr_t)object, GUARD_WRITE, OTHER));
    CHECK(guard_fault((vaddr_t)object, GUARD_READ, OTHER));
    CHECK_BUG("use after free: read at ");
    CHECK_HELPER(set_rights(object, PT_NONE | PT_GLOBAL));
    CHECK(!guard_fault((vaddr_t)object, GUARD_READ, OTHER));
    CHECK_HELPER(set_rights(object, PT_WRITE | PT_GLOBAL));
    CHECK(guard_free(object, NULL, OTHER));
}

/* --- two who free --------------------------------------------------------- */

static char *common;

static void free_rightly(void)
{
    CHECK(guard_free(common, NULL, OTHER));
}

/* The right one is not refused because a wrong one is just looked at. */
TEST(guard, wrong_free_is_in_nobodys_way)
{
    struct guard_stats stats;

    CHECK_HELPER(boot());
    common = alloc();
    act_at_report(free_rightly);
    CHECK(guard_free(common + 8, NULL, OTHER));
    CHECK(end_moments());
    CHECK_BUG("free of an interior pointer at ");
    guard_stats(&stats);
    CHECK_EQUAL(stats.live, 0);
    CHECK(!is_open(common));
    CHECK_EQUAL(stats.found, 1);
    CHECK_HELPER(check_all());
}

/* --- accesses that must end ----------------------------------------------- */

static unsigned faults_taken;

/* Where the next object will stand: the seats go round. */
static void find_next_seat(void)
{
    freed = alloc();
    CHECK(guard_free((void *)freed, NULL, OTHER));
    for (unsigned i = 0; i + 1 < SEATS; i++) {
        CHECK(guard_free(alloc(), NULL, OTHER));
    }
}

/* An interrupt of CPU 0 itself: it goes on only when the access succeeds. */
static void read_in_interrupt(void)
{
    sim_set_cpu(0);
    faults_taken = 0;
    while (!is_open(freed) && faults_taken < 5) {
        CHECK(guard_fault((vaddr_t)freed, GUARD_READ, OTHER));
        CHECK_BUG("use after free: read at ");
        faults_taken++;
    }
}

/* An interrupt, too, may touch what the interrupted code is about to open. */
TEST(guard, a_fault_in_the_midst_of_an_allocation_ends)
{
    bool has_come = true;

    for (unsigned i = 1; i < MOMENTS && has_come; i++) {
        CHECK_HELPER(boot());
        CHECK_HELPER(find_next_seat());
        CHECK(!is_open(freed));
        act_at_moment(read_in_interrupt, i);
        char *object = alloc();
        has_come = end_moments();
        CHECK(object != NULL);
        CHECK(faults_taken < 5);
        CHECK(guard_free(object, NULL, OTHER));
    }
}

TEST(guard, execution_is_not_retried_for_ever)
{
    unsigned times = 0;

    CHECK_HELPER(boot());
    char *object = alloc();
    CHECK(guard_free(object, NULL, OTHER));
    while (times < 5 && guard_fault((vaddr_t)object, GUARD_EXEC, OTHER)) {
        CHECK_BUG("execution at ");
        times++;
    }
    CHECK(times < 5);
}

TEST(guard, execution_in_a_guard_is_not_retried_for_ever)
{
    unsigned times = 0;

    CHECK_HELPER(boot());
    char *object = alloc();
    while (times < 5 &&
           guard_fault(align_down((vaddr_t)object, PAGE_BYTES) + PAGE_BYTES,
                       GUARD_EXEC, OTHER)) {
        CHECK_BUG("execution at ");
        times++;
    }
    CHECK(times < 5);
}
