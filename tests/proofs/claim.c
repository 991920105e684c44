/* SPDX-License-Identifier: MIT */
/* memmap: what is left of a claim of the firmware, whatever it says. */
#include "tests/proofs/proof.h"

#include "frame/memmap.c"

/* Usable RAM shrinks to whole pages within what was claimed, and in reach. */
static void prove_usable(const struct memmap_claim *claim,
                         const struct memmap_range *range, uint64_t reach)
{
    PROVE(range->start >= claim->start, "nothing below the claim");
    PROVE(range->end - claim->start <= claim->length, "nothing above it");
    PROVE(range->end <= reach, "nothing out of reach");
}

/* What is not to be touched grows to whole pages, up to the last of all. */
static void prove_reserved(const struct memmap_claim *claim,
                           const struct memmap_range *range)
{
    uint64_t offset = any_up_to(UINT64_MAX);

    ASSUME(offset < claim->length && offset <= UINT64_MAX - claim->start);
    uint64_t address = claim->start + offset;
    PROVE(address >= TOP || (range->start <= address && address < range->end),
          "each byte of the claim is in it");
}

void harness(void)
{
    struct memmap_range range;
    struct memmap_claim claim = {nondet_u64(), nondet_u64(),
                                 (enum memmap_type)any_up_to(MEMMAP_TYPES),
                                 NULL, NULL};
    uint64_t reach = nondet_u64();

    (void)tidy_claim(&claim, reach, &range);
    if (range.start == range.end) {
        PROVE(claim.length == 0 || claim.type == MEMMAP_HOLE ||
                  memmap_is_ram(claim.type) || claim.start >= TOP,
              "nothing that is reserved gets lost");
        return;
    }
    PROVE(range.start < range.end, "it begins before it ends");
    PROVE(is_aligned(range.start, PAGE_BYTES) &&
              is_aligned(range.end, PAGE_BYTES),
          "it is pages");
    PROVE(range.type > MEMMAP_HOLE && range.type < MEMMAP_TYPES,
          "it is of a type that there is");
    PROVE(range.reason != NULL && range.owner != NULL, "it says why and who");
    if (range.type == MEMMAP_USABLE) {
        prove_usable(&claim, &range, reach);
    } else if (!memmap_is_ram(range.type)) {
        prove_reserved(&claim, &range);
    }
}
