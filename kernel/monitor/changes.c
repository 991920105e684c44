/* SPDX-License-Identifier: MIT */
/* changes: what differs between two listings of the same tables. Pure. */
/*
 * Idea: both are sorted and do not overlap themselves, so one pass over each
 * is enough. Ranges are kept by their last byte: memory may end at 2^64.
 */
#include "kernel/monitor/changes.h"

#include "base/bits.h"

static vaddr_t last_of(const struct audit_run *run)
{
    return run->start + (run->bytes - 1);
}

/* What @run says of [first, last], which lies in it. */
static struct audit_run cut(const struct audit_run *run, vaddr_t first,
                            vaddr_t last)
{
    uint64_t pages = (first - run->start) >> PAGE_SHIFT;
    struct audit_run part = *run;
    bool counts_up = run->state == PTE_SWAPPED ||
                     (run->state == PTE_PROMISE && run->promise == PT_OBJECT);

    part.start = first;
    part.bytes = last - first + 1;
    part.payload += counts_up ? pages : 0;
    if (run->state == PTE_PRESENT || run->state == PTE_PARKED) {
        part.pfn = pfn_add(run->pfn, pages);
    }
    return part;
}

static bool say_the_same(const struct audit_run *a, const struct audit_run *b)
{
    return a->state == b->state && a->promise == b->promise &&
           a->level == b->level && pt_attr_equal(a->attr, b->attr) &&
           pfn_equal(a->pfn, b->pfn) && a->payload == b->payload;
}

static void report_removed(const struct changes *changes,
                           const struct audit_run *then, vaddr_t first,
                           vaddr_t last)
{
    struct audit_run part = cut(then, first, last);

    changes->report(changes->context, &part, NULL);
}

static void report_added(const struct changes *changes,
                         const struct audit_run *now, vaddr_t first,
                         vaddr_t last)
{
    struct audit_run part = cut(now, first, last);

    changes->report(changes->context, NULL, &part);
}

static void compare(const struct changes *changes, const struct audit_run *then,
                    const struct audit_run *now, vaddr_t first, vaddr_t last)
{
    struct audit_run before = cut(then, first, last);
    struct audit_run after = cut(now, first, last);

    if (!say_the_same(&before, &after)) {
        changes->report(changes->context, &before, &after);
    }
}

void changes_init(struct changes *changes, const struct audit_run *then,
                  size_t count, change_fn report, void *context)
{
    *changes = (struct changes){
        .then = then, .count = count, .report = report, .context = context};
}

/* Everything there was before @address, and is not there now, is gone. */
static void remove_before(struct changes *changes, vaddr_t address)
{
    while (changes->at < changes->count) {
        const struct audit_run *then = &changes->then[changes->at];
        vaddr_t first = max_u64(then->start, changes->from);

        if (first >= address) {
            return;
        }
        vaddr_t last = min_u64(last_of(then), address - 1);
        report_removed(changes, then, first, last);
        if (last < last_of(then)) {
            changes->from = address;
            return;
        }
        changes->at++;
    }
}

bool changes_add(void *context, const struct audit_run *now)
{
    struct changes *changes = context;
    vaddr_t first = now->start;
    vaddr_t last = last_of(now);

    remove_before(changes, first);
    while (changes->at < changes->count) {
        const struct audit_run *then = &changes->then[changes->at];
        vaddr_t begin = max_u64(then->start, changes->from);

        if (begin > last) {
            break;
        }
        if (begin > first) {
            report_added(changes, now, first, begin - 1);
            first = begin;
        }
        vaddr_t end = min_u64(last, last_of(then));
        compare(changes, then, now, first, end);
        if (end == last_of(then)) {
            changes->at++;
        } else {
            changes->from = end + 1;
        }
        if (end == last) {
            return true;
        }
        first = end + 1;
    }
    report_added(changes, now, first, last);
    return true;
}

void changes_end(struct changes *changes)
{
    for (; changes->at < changes->count; changes->at++) {
        const struct audit_run *then = &changes->then[changes->at];

        report_removed(changes, then, max_u64(then->start, changes->from),
                       last_of(then));
    }
}
