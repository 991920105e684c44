/* SPDX-License-Identifier: MIT */
/* schedule_undo: what instrumented code writes, written back. */
/*
 * Idea      Many thousand runs from one state: to make it anew takes longer
 *           than a run. So what a run overwrites is noted, and put back in the
 *           opposite order.
 * Limits    Writes of code that is not instrumented are not seen, but those
 *           by memset() and its like, which the linker sends here (Makefile);
 *           to the scheduler these are no steps.
 */
#include "tests/host/schedule_undo.h"

#include <string.h>

#include <mm/port.h>
#include "tests/host/schedule.h"

/* More words than a run of a test writes. */
#define WORDS      (1u << 18)
#define WORD_BYTES 8

/* What there was before a write. */
static struct saved {
    void *address;
    unsigned bytes;
    uint64_t value;
} saved[WORDS];
static unsigned count;
static bool is_on;

/* Locals of whoever explores need not be written back, and must not be. */
#define STACK_BYTES (8 * MiB)
static uintptr_t stack_end;

/* The linker puts others, below, in place of these. */
void *__real_memset(void *to, int value, size_t bytes);
void *__real_memcpy(void *to, const void *from, size_t bytes);
void *__real_memmove(void *to, const void *from, size_t bytes);
void *__wrap_memset(void *to, int value, size_t bytes);
void *__wrap_memcpy(void *to, const void *from, size_t bytes);
void *__wrap_memmove(void *to, const void *from, size_t bytes);

static void save(volatile void *address, uint64_t bytes)
{
    if (!is_on || stack_end - (uintptr_t)address < STACK_BYTES) {
        return;
    }
    for (char *at = (char *)(uintptr_t)address; bytes > 0;) {
        unsigned part = bytes < WORD_BYTES ? (unsigned)bytes : WORD_BYTES;
        if (count == WORDS) {
            port_panic("undo: a run writes more than %u words", WORDS);
        }
        saved[count] = (struct saved){at, part, 0};
        __real_memcpy(&saved[count].value, at, part);
        count++;
        at += part;
        bytes -= part;
    }
}

void *__wrap_memset(void *to, int value, size_t bytes)
{
    save(to, bytes);
    return __real_memset(to, value, bytes);
}

void *__wrap_memcpy(void *to, const void *from, size_t bytes)
{
    save(to, bytes);
    return __real_memcpy(to, from, bytes);
}

void *__wrap_memmove(void *to, const void *from, size_t bytes)
{
    save(to, bytes);
    return __real_memmove(to, from, bytes);
}

void undo_begin(void)
{
    char here;

    stack_end = (uintptr_t)&here + PAGE_BYTES; /* and of who calls */
    is_on = true;
    schedule_set_writing(save);
}

void undo_pause(void)
{
    schedule_set_writing(NULL);
    is_on = false;
}

/* The latest first: of what was written twice, the oldest remains. */
void undo_all(void)
{
    while (count > 0) {
        const struct saved *last = &saved[--count];
        __real_memcpy(last->address, &last->value, last->bytes);
    }
}
