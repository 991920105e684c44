/* SPDX-License-Identifier: MIT */
/* hoard: blocks of frames in one's hands, as many as there are. */
#ifndef TESTS_KERNEL_HOARD_H
#define TESTS_KERNEL_HOARD_H

#include <mm/frame.h>

/* Blocks, chained by the owner words of their records: the RAM is left alone.
 */
struct hoard {
    uint64_t blocks;
    uint64_t frames;
    pfn_t last; /* PFN_NONE if there is none */
};

void hoard_init(struct hoard *hoard);

/* One block more, or one less: the last taken. */
MM_MUST_CHECK bool hoard_take(struct hoard *hoard, unsigned order);
pfn_t hoard_drop(struct hoard *hoard);

/*
 * Take all there is: blocks of up to @order until there is none, then smaller
 * ones, down to single frames.
 */
void hoard_take_all(struct hoard *hoard, unsigned order);

/* Give all of it back. */
void hoard_free(struct hoard *hoard);

/* The order with which all of this machine is taken in bearable time. */
unsigned hoard_order(void);

/*
 * Is this machine of a size to be exhausted by the way? Records of all its
 * frames take 1/256 of its RAM, which is then the host's; and on a very small
 * one they are likely to lie in the last 2 MiB block that later tests want.
 * "exhaust=yes" on the command line says that it is wanted all the same.
 */
bool hoard_is_wanted(void);

#endif
