/* SPDX-License-Identifier: MIT */
/* fuzz acpi: any bytes as root pointer and tables. */
#include "tests/fuzz/fuzz.h"

#include <stdbool.h>
#include "kernel/acpi.h"

/*
 * Input: a byte of options; the length of the root pointer; ROOM bytes of it;
 * then what lies at PLACE in memory, the only place there is. Checksums would
 * stop nearly all that comes from chance, so the options can make them right.
 *
 * The reference reads the same tables at once, without sentences; statuses and
 * processors must agree. Each range that is granted is a heap block of its
 * own at an odd address.
 */
#define OPTION_RSDP 1 /* its checksums are made right */
#define OPTION_ROOT 2
#define OPTION_MADT 4
#define OPTION_NONE 8 /* there is no root pointer */

#define ROOM   40
#define PLACE  UINT64_C(0x7ffe0000)
#define GRANTS 4096

struct memory {
    const uint8_t *bytes;
    size_t size;
    uint8_t **grant;
    size_t grants;
};

static bool is_inside(const struct memory *memory, uint64_t physical,
                      uint64_t bytes)
{
    return physical >= PLACE && physical - PLACE <= memory->size &&
           bytes <= memory->size - (physical - PLACE);
}

static const void *map(const void *context, uint64_t physical, uint64_t bytes)
{
    struct memory *memory = *(struct memory *const *)context;

    FUZZ_CHECK(bytes <= UINT64_MAX - physical);
    if (!is_inside(memory, physical, bytes)) {
        return NULL;
    }
    FUZZ_CHECK(memory->grants < GRANTS);
    uint8_t *block = malloc(bytes + 1);
    FUZZ_CHECK(block != NULL);
    memcpy(block + 1, memory->bytes + (physical - PLACE), bytes);
    memory->grant[memory->grants++] = block;
    return block + 1;
}

/* --- the reference -------------------------------------------------------- */

static uint64_t at(const uint8_t *from, size_t bytes)
{
    uint64_t value = 0;

    memcpy(&value, from, bytes);
    return value;
}

static uint8_t sum(const uint8_t *bytes, size_t count)
{
    uint8_t total = 0;

    while (count-- > 0) {
        total = (uint8_t)(total + *bytes++);
    }
    return total;
}

/* Where the root table is said to be, and of which kind. */
static uint64_t root_address(const uint8_t *rsdp, size_t bytes, bool *is_wide)
{
    *is_wide = bytes >= 36 && rsdp[15] >= 2 && at(rsdp + 24, 8) != 0;
    return *is_wide ? at(rsdp + 24, 8) : at(rsdp + 16, 4);
}

/* The bytes of the table at @physical, or NULL: too short or not all here. */
static const uint8_t *whole_table(const struct memory *memory,
                                  uint64_t physical, const char *name)
{
    if (!is_inside(memory, physical, 36)) {
        return NULL;
    }
    const uint8_t *table = memory->bytes + (physical - PLACE);
    uint64_t bytes = at(table + 4, 4);
    return memcmp(table, name, 4) == 0 && bytes >= 36 &&
                   bytes <= ACPI_MAX_TABLE_BYTES &&
                   is_inside(memory, physical, bytes)
               ? table
               : NULL;
}

/* Address of the first MADT that @root lists, or 0. */
static uint64_t madt_address(const struct memory *memory, const uint8_t *root,
                             size_t step)
{
    uint64_t bytes = at(root + 4, 4);

    for (uint64_t offset = 36; offset + step <= bytes; offset += step) {
        uint64_t physical = at(root + offset, step);
        if (is_inside(memory, physical, 36) &&
            memcmp(memory->bytes + (physical - PLACE), "APIC", 4) == 0) {
            return physical;
        }
    }
    return 0;
}

static bool is_good_rsdp(const uint8_t *rsdp, size_t bytes)
{
    if (bytes < 20 || memcmp(rsdp, "RSD PTR ", 8) != 0 || sum(rsdp, 20) != 0) {
        return false;
    }
    if (rsdp[15] < 2 || bytes == 20) {
        return true;
    }
    uint64_t length = bytes >= 36 ? at(rsdp + 20, 4) : 0;
    return length >= 36 && length <= bytes && sum(rsdp, length) == 0;
}

struct answer {
    enum mm_status status;
    unsigned cpus; /* without limit, without those named twice */
    uint32_t id[1024];
    uint64_t apic_address;
    bool has_pic;
};

static void add(struct answer *answer, uint64_t id, uint64_t broadcast,
                uint64_t flags)
{
    for (unsigned i = 0; i < answer->cpus && i < MM_MAX_CPUS; i++) {
        if (answer->id[i] == id) {
            return;
        }
    }
    if (id != broadcast && (flags & 1) != 0) {
        answer->id[answer->cpus++ % 1024] = (uint32_t)id;
    }
}

static void read_madt(const uint8_t *madt, struct answer *answer)
{
    uint64_t bytes = at(madt + 4, 4);
    uint64_t offset = 44;

    answer->apic_address = bytes >= 44 ? at(madt + 36, 4) : 0;
    answer->has_pic = bytes >= 44 && (madt[40] & 1) != 0;
    while (bytes >= 44 && offset != bytes) {
        const uint8_t *entry = madt + offset;
        uint64_t room = bytes - offset;
        uint64_t least = room < 2        ? UINT64_MAX
                         : entry[0] == 0 ? 8
                         : entry[0] == 5 ? 12
                         : entry[0] == 9 ? 16
                                         : 2;
        if (least == UINT64_MAX || entry[1] < least || entry[1] > room) {
            return;
        }
        if (entry[0] == 0) {
            add(answer, entry[3], 0xff, entry[4]);
        } else if (entry[0] == 5) {
            answer->apic_address = at(entry + 4, 8);
        } else if (entry[0] == 9) {
            add(answer, at(entry + 4, 4), UINT32_MAX, entry[8]);
        }
        offset += entry[1];
    }
    if (answer->cpus > 0 && answer->apic_address != 0 &&
        answer->apic_address % PAGE_BYTES == 0) {
        answer->status = MM_OK;
    }
}

static void ask_reference(const struct memory *memory, const uint8_t *rsdp,
                          size_t bytes, struct answer *answer)
{
    bool is_wide;

    memset(answer, 0, sizeof(*answer));
    answer->status = MM_ENOENT;
    if (bytes == 0) {
        return;
    }
    answer->status = MM_EINVAL;
    if (!is_good_rsdp(rsdp, bytes)) {
        return;
    }
    uint64_t physical = root_address(rsdp, bytes, &is_wide);
    const uint8_t *root =
        whole_table(memory, physical, is_wide ? "XSDT" : "RSDT");
    size_t step = is_wide ? 8 : 4;
    if (root == NULL || sum(root, at(root + 4, 4)) != 0 ||
        (at(root + 4, 4) - 36) % step != 0 ||
        (at(root + 4, 4) - 36) / step > ACPI_MAX_TABLES) {
        return;
    }
    physical = madt_address(memory, root, step);
    if (physical == 0) {
        answer->status = MM_ENOENT;
        return;
    }
    const uint8_t *madt = whole_table(memory, physical, "APIC");
    if (madt != NULL && sum(madt, at(madt + 4, 4)) == 0) {
        read_madt(madt, answer);
    }
}

/* --- the target ----------------------------------------------------------- */

/* Make the first @bytes add up to 0. */
static void balance(uint8_t *table, size_t bytes, size_t offset)
{
    table[offset] = 0;
    table[offset] = (uint8_t)(0u - sum(table, bytes));
}

static void repair_table(const struct memory *memory, uint8_t *bytes,
                         uint64_t physical, const char *name)
{
    if (whole_table(memory, physical, name) != NULL) {
        uint8_t *table = bytes + (physical - PLACE);
        balance(table, at(table + 4, 4), 9);
    }
}

static void repair(const struct memory *memory, uint8_t *bytes, uint8_t *rsdp,
                   size_t rsdp_bytes, uint64_t options)
{
    bool is_wide;

    if (rsdp_bytes < 20) {
        return;
    }
    if ((options & OPTION_RSDP) != 0) {
        balance(rsdp, 20, 8);
        uint64_t length = rsdp_bytes >= 36 ? at(rsdp + 20, 4) : 0;
        if (length >= 36 && length <= rsdp_bytes) {
            balance(rsdp, length, 32);
        }
    }
    uint64_t physical = root_address(rsdp, rsdp_bytes, &is_wide);
    const char *name = is_wide ? "XSDT" : "RSDT";
    const uint8_t *root = whole_table(memory, physical, name);
    if (root != NULL && (options & OPTION_MADT) != 0) {
        uint64_t madt = madt_address(memory, root, is_wide ? 8 : 4);
        repair_table(memory, bytes, madt, "APIC");
    }
    if ((options & OPTION_ROOT) != 0) {
        repair_table(memory, bytes, physical, name);
    }
}

static void compare(enum mm_status status, const struct acpi_cpus *cpus,
                    const struct answer *answer)
{
    unsigned count = answer->cpus < MM_MAX_CPUS ? answer->cpus : MM_MAX_CPUS;

    FUZZ_EQUAL(status, answer->status);
    FUZZ_CHECK(memchr(cpus->complaint, 0, sizeof(cpus->complaint)) != NULL);
    if (status != MM_OK) {
        FUZZ_CHECK(cpus->count == 0 && cpus->apic_address == 0);
        FUZZ_CHECK(!cpus->has_pic && cpus->complaint[0] != '\0');
        return;
    }
    FUZZ_EQUAL(cpus->count, count);
    for (unsigned i = 0; i < count; i++) {
        FUZZ_EQUAL(cpus->cpu[i].apic_id, answer->id[i]);
    }
    FUZZ_EQUAL(cpus->apic_address, answer->apic_address);
    FUZZ_EQUAL(cpus->has_pic, answer->has_pic);
    FUZZ_EQUAL(cpus->complaint[0] != '\0', answer->cpus > MM_MAX_CPUS);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t *grant[GRANTS];
    static struct answer answer;
    struct fuzz_input input = {data, size};
    uint64_t options = fuzz_take(&input, 1);
    size_t rsdp_bytes = fuzz_take(&input, 1) % (ROOM + 1);
    uint8_t pointer[ROOM];
    struct acpi_cpus cpus;

    for (size_t i = 0; i < ROOM; i++) {
        pointer[i] = (uint8_t)fuzz_take(&input, 1);
    }
    uint8_t *bytes = fuzz_copy(input.data, input.left);
    struct memory memory = {bytes, input.left, grant, 0};
    struct memory *context = &memory;
    struct acpi_source source = {map, &context};

    repair(&memory, bytes, pointer, rsdp_bytes, options);
    if ((options & OPTION_NONE) != 0) {
        rsdp_bytes = 0;
    }
    uint8_t *rsdp = fuzz_copy(pointer, rsdp_bytes);
    memset(&cpus, 0xa5, sizeof(cpus));
    enum mm_status status = acpi_read_cpus(
        &source, (options & OPTION_NONE) != 0 ? NULL : rsdp, rsdp_bytes, &cpus);
    ask_reference(&memory, rsdp, rsdp_bytes, &answer);
    compare(status, &cpus, &answer);
    fuzz_use_text(cpus.complaint);
    while (memory.grants > 0) {
        free(grant[--memory.grants]);
    }
    free(rsdp);
    free(bytes);
    return 0;
}
