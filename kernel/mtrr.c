/* SPDX-License-Identifier: MIT */
/* mtrr: how memory is cached, by its address and by its page. Pure. */
#include "kernel/mtrr.h"

#include "base/bits.h"
#include "kernel/cpu.h"

#define CAP_VARIABLE_COUNT UINT64_C(0xff)
#define CAP_FIXED          (UINT64_C(1) << 8)
#define DEFAULT_ENABLED    (UINT64_C(1) << 11)
#define DEFAULT_FIXED      (UINT64_C(1) << 10)
#define RANGE_VALID        (UINT64_C(1) << 11)
#define TYPE_MASK          UINT64_C(7)

#define FIXED_END (1 * MiB)

/* Fixed ranges: registers that follow each other, of ranges alike in size. */
static const struct {
    uint32_t msr;
    unsigned registers;
    uint64_t start;
    uint64_t range_bytes;
} fixed_part[] = {
    {MSR_MTRR_FIX64K, 1, 0, 64 * KiB},
    {MSR_MTRR_FIX16K, 2, 512 * KiB, 16 * KiB},
    {MSR_MTRR_FIX4K, 8, 768 * KiB, 4 * KiB},
};

#define FIXED_PARTS         (sizeof(fixed_part) / sizeof(fixed_part[0]))
#define RANGES_IN_REGISTER  8u
#define BITS_OF_FIXED_RANGE 8u

/* --- the registers -------------------------------------------------------- */

static void read_fixed(mtrr_read_fn read, struct mtrr *out)
{
    unsigned at = 0;

    for (size_t i = 0; i < FIXED_PARTS; i++) {
        for (unsigned k = 0; k < fixed_part[i].registers; k++) {
            out->fixed[at] = read(fixed_part[i].msr + k);
            at++;
        }
    }
}

void mtrr_read(mtrr_read_fn read, bool is_amd, struct mtrr *out)
{
    const uint64_t forced = SYSCFG_TOM2 | SYSCFG_TOM2_WRITE_BACK;

    *out = (struct mtrr){.capabilities = read(MSR_MTRRCAP),
                         .default_type = read(MSR_MTRR_DEF_TYPE)};
    out->variable_count = (unsigned)min_u64(
        out->capabilities & CAP_VARIABLE_COUNT, MTRR_VARIABLE_MAX);
    if ((out->capabilities & CAP_FIXED) != 0) {
        read_fixed(read, out);
    }
    for (unsigned i = 0; i < out->variable_count; i++) {
        out->variable[i].base = read(MSR_MTRR_PHYSBASE0 + 2 * i);
        out->variable[i].mask = read(MSR_MTRR_PHYSMASK0 + 2 * i);
    }
    if (is_amd && (read(MSR_SYSCFG) & forced) == forced) {
        out->write_back_end = read(MSR_TOP_MEM2);
    }
}

/* --- by address ----------------------------------------------------------- */

static bool has_fixed_ranges(const struct mtrr *mtrr)
{
    return (mtrr->capabilities & CAP_FIXED) != 0 &&
           (mtrr->default_type & DEFAULT_FIXED) != 0;
}

static enum memory_type fixed_type(const struct mtrr *mtrr, uint64_t address)
{
    size_t part = FIXED_PARTS - 1;
    unsigned before = 0;

    while (address < fixed_part[part].start) {
        part--;
    }
    for (size_t i = 0; i < part; i++) {
        before += fixed_part[i].registers;
    }
    unsigned range = (unsigned)((address - fixed_part[part].start) /
                                fixed_part[part].range_bytes);
    uint64_t value = mtrr->fixed[before + range / RANGES_IN_REGISTER];
    unsigned shift = range % RANGES_IN_REGISTER * BITS_OF_FIXED_RANGE;
    return (enum memory_type)((value >> shift) & TYPE_MASK);
}

static enum memory_type default_type(const struct mtrr *mtrr, uint64_t address)
{
    if (address >= 4 * GiB && address < mtrr->write_back_end) {
        return MEMORY_WB;
    }
    return (enum memory_type)(mtrr->default_type & TYPE_MASK);
}

/* The bits of an address that a range compares with its base. */
static uint64_t asked_bits(const struct mtrr_range *range)
{
    return align_down(range->mask, PAGE_BYTES);
}

/* Can a block, aligned to its power of two of bytes, have a part in it? */
static bool has_range(const struct mtrr_range *range, uint64_t address,
                      uint64_t bytes)
{
    return (range->mask & RANGE_VALID) != 0 &&
           ((address ^ range->base) & asked_bits(range) & ~(bytes - 1)) == 0;
}

/* What two variable ranges make of the same address. */
static enum memory_type overlap(enum memory_type a, enum memory_type b)
{
    if (a == b || a == MEMORY_UC) {
        return a;
    }
    if (b == MEMORY_UC) {
        return b;
    }
    bool is_wt_and_wb = (a == MEMORY_WT && b == MEMORY_WB) ||
                        (a == MEMORY_WB && b == MEMORY_WT);
    return is_wt_and_wb ? MEMORY_WT : MEMORY_UNDEFINED;
}

static enum memory_type variable_type(const struct mtrr *mtrr, uint64_t address)
{
    enum memory_type type = MEMORY_UNDEFINED;
    bool is_known = false;

    for (unsigned i = 0; i < mtrr->variable_count; i++) {
        const struct mtrr_range *range = &mtrr->variable[i];
        enum memory_type own = (enum memory_type)(range->base & TYPE_MASK);

        if (has_range(range, address, PAGE_BYTES)) {
            type = is_known ? overlap(type, own) : own;
            is_known = true;
        }
    }
    return is_known ? type : default_type(mtrr, address);
}

static enum memory_type page_type(const struct mtrr *mtrr, uint64_t address)
{
    if ((mtrr->default_type & DEFAULT_ENABLED) == 0) {
        return MEMORY_UC;
    }
    return address < FIXED_END && has_fixed_ranges(mtrr)
               ? fixed_type(mtrr, address)
               : variable_type(mtrr, address);
}

/* Bytes, a power of two, from one change of type in the block to the next. */
static uint64_t grain(const struct mtrr *mtrr, uint64_t address, uint64_t bytes)
{
    uint64_t ends = mtrr->write_back_end - address < bytes
                        ? align_down(mtrr->write_back_end, PAGE_BYTES)
                        : 0;

    if (address < FIXED_END && has_fixed_ranges(mtrr)) {
        return PAGE_BYTES;
    }
    for (unsigned i = 0; i < mtrr->variable_count; i++) {
        if (has_range(&mtrr->variable[i], address, bytes)) {
            ends |= asked_bits(&mtrr->variable[i]);
        }
    }
    ends &= bytes - 1;
    return ends != 0 ? ends & (~ends + 1) : bytes;
}

enum memory_type mtrr_type(const struct mtrr *mtrr, paddr_t physical,
                           uint64_t bytes)
{
    uint64_t step = grain(mtrr, physical.v, bytes);
    enum memory_type type = page_type(mtrr, physical.v);

    for (uint64_t offset = step; offset < bytes; offset += step) {
        if (page_type(mtrr, physical.v + offset) != type) {
            return MEMORY_MIXED;
        }
    }
    return type;
}

/* --- by page -------------------------------------------------------------- */

enum memory_type memory_type_of_pat(uint64_t pat, unsigned index)
{
    return (enum memory_type)((pat >> (index * 8)) & TYPE_MASK);
}

enum memory_type memory_type_combine(enum memory_type mtrr,
                                     enum memory_type page)
{
    static const enum memory_type effective[8][8] = {
        [MEMORY_UC] = {[MEMORY_WC] = MEMORY_WC}, /* else UC, which is 0 */
        [MEMORY_WC] = {[MEMORY_WC] = MEMORY_WC,
                       [MEMORY_WB] = MEMORY_WC,
                       [MEMORY_UC_MINUS] = MEMORY_WC},
        [MEMORY_WT] = {[MEMORY_WC] = MEMORY_WC,
                       [MEMORY_WT] = MEMORY_WT,
                       [MEMORY_WP] = MEMORY_WP,
                       [MEMORY_WB] = MEMORY_WT},
        [MEMORY_WP] = {[MEMORY_WC] = MEMORY_WC,
                       [MEMORY_WT] = MEMORY_WT,
                       [MEMORY_WP] = MEMORY_WP,
                       [MEMORY_WB] = MEMORY_WP,
                       [MEMORY_UC_MINUS] = MEMORY_WC},
        [MEMORY_WB] = {[MEMORY_WC] = MEMORY_WC,
                       [MEMORY_WT] = MEMORY_WT,
                       [MEMORY_WP] = MEMORY_WP,
                       [MEMORY_WB] = MEMORY_WB},
    };

    return mtrr > MEMORY_UC_MINUS ? mtrr : effective[mtrr][page & TYPE_MASK];
}

const char *memory_type_name(enum memory_type type)
{
    static const char *const name[] = {
        [MEMORY_UC] = "UC",
        [MEMORY_WC] = "WC",
        [2] = "reserved",
        [3] = "reserved",
        [MEMORY_WT] = "WT",
        [MEMORY_WP] = "WP",
        [MEMORY_WB] = "WB",
        [MEMORY_UC_MINUS] = "UC-",
        [MEMORY_UNDEFINED] = "undefined",
        [MEMORY_MIXED] = "mixed",
    };

    return name[type];
}
