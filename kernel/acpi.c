/* SPDX-License-Identifier: MIT */
/* acpi: which processors the firmware says there are, trusting nothing. */
#include "kernel/acpi.h"

#include <stdarg.h>

#include "base/bits.h"
#include "base/memory.h"
#include "kernel/lib/format.h"
#include "kernel/lib/unaligned.h"

/*
 * Idea: a table is asked for twice. First its header, which has the length;
 * then, if that is possible, the whole, whose bytes must add up to 0. What has
 * passed is only read at offsets compared with that length, byte-wise: 64-bit
 * addresses stand at multiples of 4.
 *
 * One fault anywhere on the way to the MADT, or in it, and there is no list:
 * starting the processors of half a table would look like success. Tables that
 * are not on the way may be damaged or out of reach.
 *
 * Limits: the first MADT counts. Only local APICs are looked for; I/O APICs,
 * interrupt overrides and NMI sources are passed over.
 */

/* [ACPI 5.2.5.3 "Root System Description Pointer (RSDP) Structure"] */
#define RSDP_SIGNATURE "RSD PTR "
#define RSDP_REVISION  15
#define RSDP_RSDT      16
#define RSDP_BYTES     20 /* of the first revision, and of its checksum */
#define RSDP_LENGTH    20 /* from here on: revision 2 */
#define RSDP_XSDT      24
#define RSDP2_BYTES    36

/* [ACPI 5.2.6 "System Description Table Header"] */
#define HEADER_LENGTH 4
#define HEADER_BYTES  36

/* [ACPI 5.2.12 "Multiple APIC Description Table (MADT)"] */
#define MADT_ADDRESS    36
#define MADT_FLAGS      40
#define MADT_PCAT       (UINT32_C(1) << 0)
#define MADT_ENTRIES    44
#define ENTRY_MIN_BYTES 2 /* type, length */

/* Types of entries, and where their fields are. */

/* [ACPI 5.2.12.2 "Processor Local APIC Structure"] */
#define ENTRY_APIC     0
#define APIC_ID        3
#define APIC_FLAGS     4
#define APIC_BYTES     8
#define APIC_BROADCAST UINT32_C(0xff)

/* [ACPI 5.2.12.8 "Local APIC Address Override Structure"] */
#define ENTRY_OVERRIDE   5
#define OVERRIDE_ADDRESS 4
#define OVERRIDE_BYTES   12

/* [ACPI 5.2.12.12 "Processor Local x2APIC Structure"] */
#define ENTRY_X2APIC     9
#define X2APIC_ID        4
#define X2APIC_FLAGS     8
#define X2APIC_BYTES     16
#define X2APIC_BROADCAST UINT32_MAX

/*
 * Set: can be started now. Clear with bit 1, "online capable": could be
 * plugged in later; clear without it: an empty socket.
 */
#define CPU_ENABLED (UINT32_C(1) << 0)

struct kind {
    const char *name;
    const char *signature;
};

static const struct kind rsdt_kind = {"RSDT", "RSDT"};
static const struct kind xsdt_kind = {"XSDT", "XSDT"};
static const struct kind madt_kind = {"MADT", "APIC"};

/* A table that is whole: all of its bytes can be read and add up to 0. */
struct table {
    const struct kind *kind;
    uint64_t physical;
    const uint8_t *data;
    uint32_t bytes; /* at least HEADER_BYTES */
};

static unsigned sum(const uint8_t *data, size_t bytes)
{
    unsigned total = 0;

    for (size_t i = 0; i < bytes; i++) {
        total += data[i];
    }
    return total & 0xff;
}

static MM_PRINTF(3, 4) enum mm_status
    complain(struct acpi_cpus *out, enum mm_status status, const char *format,
             ...)
{
    va_list arguments;

    *out = (struct acpi_cpus){.count = 0};
    va_start(arguments, format);
    kvsnprintf(out->complaint, sizeof(out->complaint), format, arguments);
    va_end(arguments);
    return status;
}

/* NULL if any of it is out of reach. */
static const uint8_t *map(const struct acpi_source *source, uint64_t physical,
                          uint64_t bytes)
{
    uint64_t end;

    if (physical == 0 || !checked_add(physical, bytes, &end)) {
        return NULL;
    }
    return source->map(source->context, physical, bytes);
}

static enum mm_status open_table(const struct acpi_source *source,
                                 uint64_t physical, const struct kind *kind,
                                 struct table *out_table, struct acpi_cpus *out)
{
    const uint8_t *header = map(source, physical, HEADER_BYTES);

    if (header == NULL) {
        return complain(out, MM_EINVAL,
                        "ACPI: the %s at 0x%lx is out of reach; one CPU is "
                        "used",
                        kind->name, physical);
    }
    if (memcmp(header, kind->signature, HEADER_LENGTH) != 0) {
        return complain(out, MM_EINVAL,
                        "ACPI: at 0x%lx there is no %s but 0x%08x; one CPU is "
                        "used",
                        physical, kind->name, read32(header));
    }
    uint32_t bytes = read32(header + HEADER_LENGTH);
    if (bytes < HEADER_BYTES || bytes > ACPI_MAX_TABLE_BYTES) {
        return complain(out, MM_EINVAL,
                        "ACPI: the %s at 0x%lx claims %u bytes, not %u to %u; "
                        "one CPU is used",
                        kind->name, physical, bytes, HEADER_BYTES,
                        ACPI_MAX_TABLE_BYTES);
    }
    const uint8_t *data = map(source, physical, bytes);
    if (data == NULL) {
        return complain(out, MM_EINVAL,
                        "ACPI: the %s at 0x%lx claims %u bytes, which are not "
                        "all within reach; one CPU is used",
                        kind->name, physical, bytes);
    }
    unsigned checksum = sum(data, bytes);
    if (checksum != 0) {
        return complain(out, MM_EINVAL,
                        "ACPI: the %s at 0x%lx has checksum 0x%02x, not 0; one "
                        "CPU is used",
                        kind->name, physical, checksum);
    }
    *out_table = (struct table){kind, physical, data, bytes};
    return MM_OK;
}

/* The first 20 bytes, which all revisions have. */
static enum mm_status check_rsdp(const uint8_t *rsdp, size_t bytes,
                                 struct acpi_cpus *out)
{
    if (rsdp == NULL || bytes == 0) {
        return complain(out, MM_ENOENT,
                        "ACPI: the boot loader handed over no RSDP; one CPU is "
                        "used");
    }
    if (bytes < RSDP_BYTES) {
        return complain(out, MM_EINVAL,
                        "ACPI: the RSDP has %lu bytes, not %u; one CPU is used",
                        bytes, RSDP_BYTES);
    }
    if (memcmp(rsdp, RSDP_SIGNATURE, sizeof(RSDP_SIGNATURE) - 1) != 0) {
        return complain(out, MM_EINVAL,
                        "ACPI: the RSDP begins with 0x%016lx, not \"RSD PTR "
                        "\"; one CPU is used",
                        read64(rsdp));
    }
    unsigned checksum = sum(rsdp, RSDP_BYTES);
    if (checksum != 0) {
        return complain(out, MM_EINVAL,
                        "ACPI: the RSDP has checksum 0x%02x, not 0; one CPU is "
                        "used",
                        checksum);
    }
    return MM_OK;
}

/* What revision 2 added. */
static enum mm_status check_rsdp2(const uint8_t *rsdp, size_t bytes,
                                  struct acpi_cpus *out)
{
    if (bytes < RSDP2_BYTES) {
        return complain(out, MM_EINVAL,
                        "ACPI: the RSDP of revision %u has %lu bytes, not %u; "
                        "one CPU is used",
                        rsdp[RSDP_REVISION], bytes, RSDP2_BYTES);
    }
    uint32_t length = read32(rsdp + RSDP_LENGTH);
    if (length < RSDP2_BYTES || length > bytes) {
        return complain(out, MM_EINVAL,
                        "ACPI: the RSDP claims %u bytes, not %u to %lu; one "
                        "CPU is used",
                        length, RSDP2_BYTES, bytes);
    }
    unsigned checksum = sum(rsdp, length);
    if (checksum != 0) {
        return complain(out, MM_EINVAL,
                        "ACPI: the RSDP has extended checksum 0x%02x, not 0; "
                        "one CPU is used",
                        checksum);
    }
    return MM_OK;
}

/*
 * The table of tables: the XSDT if there is one, else the RSDT.
 * A loader's old tag carries the first 20 bytes whatever the revision; those
 * have no XSDT.
 */
static enum mm_status open_root(const struct acpi_source *source,
                                const uint8_t *rsdp, size_t bytes,
                                struct table *root, struct acpi_cpus *out)
{
    enum mm_status status = check_rsdp(rsdp, bytes, out);

    if (status != MM_OK) {
        return status;
    }
    if (rsdp[RSDP_REVISION] >= 2 && bytes != RSDP_BYTES) {
        status = check_rsdp2(rsdp, bytes, out);
        if (status != MM_OK) {
            return status;
        }
        uint64_t xsdt = read64(rsdp + RSDP_XSDT);
        if (xsdt != 0) {
            return open_table(source, xsdt, &xsdt_kind, root, out);
        }
    }
    return open_table(source, read32(rsdp + RSDP_RSDT), &rsdt_kind, root, out);
}

static enum mm_status find_madt(const struct acpi_source *source,
                                const struct table *root, struct table *madt,
                                struct acpi_cpus *out)
{
    bool is_wide = root->kind == &xsdt_kind;
    uint32_t entry_bytes = is_wide ? sizeof(uint64_t) : sizeof(uint32_t);
    uint32_t bytes = root->bytes - HEADER_BYTES;
    uint32_t count = bytes / entry_bytes;
    uint32_t unreached = 0;

    if (bytes % entry_bytes != 0 || count > ACPI_MAX_TABLES) {
        return complain(out, MM_EINVAL,
                        "ACPI: the %s at 0x%lx has %u bytes of entries, not 0 "
                        "to %u of %u each; one CPU is used",
                        root->kind->name, root->physical, bytes,
                        ACPI_MAX_TABLES, entry_bytes);
    }
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *entry = root->data + HEADER_BYTES + i * entry_bytes;
        uint64_t physical = is_wide ? read64(entry) : read32(entry);
        const uint8_t *header = map(source, physical, HEADER_BYTES);
        if (header == NULL) {
            unreached++;
        } else if (memcmp(header, madt_kind.signature, HEADER_LENGTH) == 0) {
            return open_table(source, physical, &madt_kind, madt, out);
        }
    }
    return complain(out, MM_ENOENT,
                    "ACPI: the %s at 0x%lx lists no MADT among %u tables, %u "
                    "of them out of reach; one CPU is used",
                    root->kind->name, root->physical, count, unreached);
}

/* Take @id in. Return: whether there was room, or no need for it. */
static bool add_cpu(struct acpi_cpus *out, uint32_t id)
{
    for (unsigned i = 0; i < out->count; i++) {
        if (out->cpu[i].apic_id == id) {
            return true;
        }
    }
    if (out->count == MM_MAX_CPUS) {
        return false;
    }
    out->cpu[out->count++].apic_id = id;
    return true;
}

/*
 * Take in one entry of the MADT, of @bytes, all in the table.
 * Return: false if it is shorter than its type says.
 */
static bool read_entry(const uint8_t *entry, uint32_t bytes,
                       struct acpi_cpus *out, uint32_t *left_out)
{
    uint32_t id;
    uint32_t flags;

    switch (entry[0]) {
    case ENTRY_APIC:
        if (bytes < APIC_BYTES) {
            return false;
        }
        id = entry[APIC_ID];
        flags = id == APIC_BROADCAST ? 0 : read32(entry + APIC_FLAGS);
        break;
    case ENTRY_X2APIC:
        if (bytes < X2APIC_BYTES) {
            return false;
        }
        id = read32(entry + X2APIC_ID);
        flags = id == X2APIC_BROADCAST ? 0 : read32(entry + X2APIC_FLAGS);
        break;
    case ENTRY_OVERRIDE:
        if (bytes < OVERRIDE_BYTES) {
            return false;
        }
        out->apic_address = read64(entry + OVERRIDE_ADDRESS);
        return true;
    default:
        return true;
    }
    if ((flags & CPU_ENABLED) != 0 && !add_cpu(out, id)) {
        (*left_out)++;
    }
    return true;
}

static enum mm_status read_entries(const struct table *madt,
                                   struct acpi_cpus *out, uint32_t *left_out)
{
    uint32_t offset = MADT_ENTRIES;

    while (offset < madt->bytes) {
        const uint8_t *entry = madt->data + offset;
        uint32_t room = madt->bytes - offset;
        uint32_t bytes = room < ENTRY_MIN_BYTES ? 0 : entry[1];
        if (bytes < ENTRY_MIN_BYTES || bytes > room ||
            !read_entry(entry, bytes, out, left_out)) {
            return complain(out, MM_EINVAL,
                            "ACPI: the MADT at 0x%lx has at offset %u an entry "
                            "of type %u with %u of %u bytes; one CPU is used",
                            madt->physical, offset, entry[0], bytes, room);
        }
        offset += bytes;
    }
    return MM_OK;
}

static enum mm_status read_madt(const struct table *madt, struct acpi_cpus *out)
{
    uint32_t left_out = 0;

    if (madt->bytes < MADT_ENTRIES) {
        return complain(out, MM_EINVAL,
                        "ACPI: the MADT at 0x%lx has %u bytes, not %u; one CPU "
                        "is used",
                        madt->physical, madt->bytes, MADT_ENTRIES);
    }
    out->apic_address = read32(madt->data + MADT_ADDRESS);
    out->has_pic = (read32(madt->data + MADT_FLAGS) & MADT_PCAT) != 0;
    enum mm_status status = read_entries(madt, out, &left_out);
    if (status != MM_OK) {
        return status;
    }
    if (out->count == 0) {
        return complain(out, MM_EINVAL,
                        "ACPI: the MADT at 0x%lx lists no CPU that is enabled; "
                        "one CPU is used",
                        madt->physical);
    }
    if (out->apic_address == 0 || !is_aligned(out->apic_address, PAGE_BYTES)) {
        return complain(out, MM_EINVAL,
                        "ACPI: the MADT at 0x%lx puts the local APICs at "
                        "0x%lx, which is no page; one CPU is used",
                        madt->physical, out->apic_address);
    }
    if (left_out != 0) {
        ksnprintf(out->complaint, sizeof(out->complaint),
                  "ACPI: the MADT at 0x%lx lists more than %u CPUs; its last "
                  "%u are left out",
                  madt->physical, MM_MAX_CPUS, left_out);
    }
    return MM_OK;
}

enum mm_status acpi_read_cpus(const struct acpi_source *source,
                              const void *rsdp, size_t rsdp_bytes,
                              struct acpi_cpus *out)
{
    struct table root;
    struct table madt;

    *out = (struct acpi_cpus){.count = 0};
    enum mm_status status = open_root(source, rsdp, rsdp_bytes, &root, out);
    if (status == MM_OK) {
        status = find_madt(source, &root, &madt, out);
    }
    return status == MM_OK ? read_madt(&madt, out) : status;
}
