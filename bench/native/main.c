/* SPDX-License-Identifier: MIT */
/* main: one row of the table, for the allocator this program is built with. */
/*
 *   PROGRAM list             group and name of each row, a line each
 *   PROGRAM about            how it measures
 *   PROGRAM NAME [MIB]       measures it with that much RAM for frames
 *
 * Prints "NAME|UNIT|VALUE", one line or several, none if the allocator has
 * nothing to say there.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/native/native.h"

#define DEFAULT_MIB 1024
#define LEAST_MIB   64 /* the trace has as much alive */
#define MOST_MIB    (1024 * 1024)

uint64_t native_ram_bytes;

void native_print(const char *name, const char *unit, double value)
{
    printf("%s|%s|%.3f\n", name, unit, value);
}

static void list(const struct native_row *row)
{
    for (; row->name != NULL; row++) {
        printf("%s|%s\n", row->group, row->name);
    }
}

static const struct native_row *find(const struct native_row *row,
                                     const char *name)
{
    while (row->name != NULL && strcmp(row->name, name) != 0) {
        row++;
    }
    return row->name != NULL ? row : NULL;
}

static void measure(const struct native_row *row)
{
    bool is_heap = strcmp(row->group, "heap") == 0;

    if (is_heap ? native.alloc == NULL : native.frame_alloc == NULL) {
        return;
    }
    native.start(native_ram_bytes, NATIVE_THREADS);
    if (row->work != NULL) {
        native_print(row->name, "ns", native_measure(row->work));
    } else {
        row->measure();
    }
    if (!native.check()) {
        native_fail("the allocator is damaged");
    }
}

int main(int count, char **word)
{
    if (count == 2 && strcmp(word[1], "list") == 0) {
        list(native_heap_rows);
        list(native_frame_rows);
        return 0;
    }
    if (count == 2 && strcmp(word[1], "about") == 0) {
        native_about();
        return 0;
    }
    long mib = count == 3 ? strtol(word[2], NULL, 10) : DEFAULT_MIB;
    if (count < 2 || count > 3 || mib < LEAST_MIB || mib > MOST_MIB) {
        fprintf(stderr, "usage: %s list | about | NAME [MIB, %u to %u]\n",
                word[0], LEAST_MIB, MOST_MIB);
        return 2;
    }
    native_ram_bytes = (uint64_t)mib << 20;
    const struct native_row *row = find(native_heap_rows, word[1]);
    if (row == NULL) {
        row = find(native_frame_rows, word[1]);
    }
    if (row == NULL) {
        fprintf(stderr, "%s: no row '%s'; `list` names them\n", word[0],
                word[1]);
        return 2;
    }
    measure(row);
    return 0;
}
