/* SPDX-License-Identifier: MIT */
/* peer_malloc: whatever malloc() the program is linked with. */
/*
 * The pointers lead into the shared library itself, not to a stub: this file
 * is compiled with -fno-plt and fills them in when it runs.
 */
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/native/native.h"

#define PAGE UINT64_C(4096)

/* How each of them is asked to give memory back; the others lack the name. */
void mi_collect(bool force);
int mallctl(const char *name, void *old, size_t *old_bytes, void *value,
            size_t value_bytes);
void MallocExtension_ReleaseFreeMemory(void);
#pragma weak mi_collect
#pragma weak mallctl
#pragma weak MallocExtension_ReleaseFreeMemory

static void trim(void)
{
    if (mi_collect != NULL) {
        mi_collect(true);
    } else if (mallctl != NULL) {
        mallctl("thread.tcache.flush", NULL, NULL, NULL, 0);
        mallctl("arena.4096.purge", NULL, NULL, NULL, 0); /* all of them */
    } else if (MallocExtension_ReleaseFreeMemory != NULL) {
        MallocExtension_ReleaseFreeMemory();
    } else {
        malloc_trim(0);
    }
}

/* Resident pages: what the system has given and not got back. */
static uint64_t held_bytes(void)
{
    char text[128];
    int file = open("/proc/self/statm", O_RDONLY);
    ssize_t length = read(file, text, sizeof(text) - 1);

    close(file);
    if (length <= 0) {
        native_fail("/proc/self/statm cannot be read");
    }
    text[length] = '\0';
    const char *resident = strchr(text, ' ');
    return resident == NULL ? 0 : strtoull(resident, NULL, 10) * PAGE;
}

static bool check(void)
{
    return true;
}

static uintptr_t take(unsigned order)
{
    void *block = aligned_alloc(PAGE << order, PAGE << order);

    return block == NULL ? NATIVE_NONE : (uintptr_t)block;
}

static void release(uintptr_t block, unsigned order)
{
    (void)order;
    free((void *)block);
}

static void start(uint64_t ram_bytes, unsigned threads)
{
    (void)ram_bytes;
    (void)threads;
    native.alloc = malloc;
    native.free = free;
}

static void enter(unsigned thread)
{
    (void)thread;
}

/* main() wants to know before start() whether there is a heap. */
struct native_allocator native = {
    .start = start,
    .enter = enter,
    .check = check,
    .alloc = malloc,
    .free = free,
    .trim = trim,
    .held_bytes = held_bytes,
    .frame_alloc = take,
    .frame_free = release,
};
