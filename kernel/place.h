/* SPDX-License-Identifier: MIT */
/* place: whose an address is, by the layout and by the blocks in it. */
#ifndef KERNEL_PLACE_H
#define KERNEL_PLACE_H

#include <mm/types.h>

struct place {
    const char *kind; /* "direct map", "kmap block", "guard of stack", ... */
    const char *name; /* of block, segment or stack; "" if it has none */
    vaddr_t start;
    vaddr_t end; /* last byte, so that the top of memory can be said */
    bool is_guard;
};

/*
 * Context: any; for an address in the kmap area it takes the arena's lock, so
 * not from a fault inside vmem.
 */
void place_find(vaddr_t address, struct place *out);

/* The same in one line: kmap block "tour" (0x...-0x...), 0x8 bytes in. */
struct place_text {
    char text[160];
};
struct place_text place_text(vaddr_t address);

#endif
