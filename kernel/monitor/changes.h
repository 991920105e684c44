/* SPDX-License-Identifier: MIT */
/* changes: what differs between two listings of the same tables. Pure. */
#ifndef KERNEL_MONITOR_CHANGES_H
#define KERNEL_MONITOR_CHANGES_H

#include <mm/audit.h>

/*
 * A part of a range that is not as it was: @then is NULL where there was
 * nothing, @now where there is nothing any more. Where both are there they
 * have the same range.
 */
typedef void (*change_fn)(void *context, const struct audit_run *then,
                          const struct audit_run *now);

struct changes {
    const struct audit_run *then; /* extents, sorted */
    size_t count;
    size_t at;    /* the first of them that is not compared to its end */
    vaddr_t from; /* and where the rest of it begins, at the least */
    change_fn report;
    void *context;
};

/* Compare with @then, @count extents as audit_extents() reports them. */
void changes_init(struct changes *changes, const struct audit_run *then,
                  size_t count, change_fn report, void *context);

/* The next extent there is now; an audit_fn, with @changes as context. */
bool changes_add(void *changes, const struct audit_run *now);

/* There is nothing more now. */
void changes_end(struct changes *changes);

#endif
