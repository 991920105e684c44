/* SPDX-License-Identifier: MIT */
/* acpi: which processors the firmware says there are, trusting nothing. */
#ifndef KERNEL_ACPI_H
#define KERNEL_ACPI_H

#include <mm/types.h>

/* A larger table is refused: it is damaged, not rich. */
#define ACPI_MAX_TABLE_BYTES UINT32_C(0x100000)

/* Tables that the root table may list; real machines have some dozens. */
#define ACPI_MAX_TABLES 1024

struct acpi_cpus {
    unsigned count; /* 0 if the tables cannot be used */
    struct {
        uint32_t apic_id;
    } cpu[MM_MAX_CPUS];
    uint64_t apic_address; /* physical, page aligned; of every local APIC */
    bool has_pic;          /* there are two 8259A as well, to be silenced */
    char complaint[160];   /* a sentence, or "" */
};

/* How physical memory is read. */
struct acpi_source {
    /*
     * Where [physical, physical + bytes), which does not wrap, can be read
     * until acpi_read_cpus() returns, with any alignment; NULL where it
     * cannot. No byte outside is touched.
     */
    const void *(*map)(const void *context, uint64_t physical, uint64_t bytes);
    const void *context;
};

/*
 * Find the processors that can be started: RSDP, then XSDT or RSDT, then MADT.
 * @rsdp   a copy of the root pointer, @rsdp_bytes of it; NULL if there is none
 * Shape:  each APIC id once, in the order of the table; broadcast ids and
 *         processors that are not enabled are not among them. Ids need not be
 *         below 255. The calling CPU's own is not looked for.
 * Return: MM_OK with count >= 1; the complaint then is empty, or says how many
 *         entries are left out because there are more than MM_MAX_CPUS.
 *         MM_ENOENT: no ACPI, or none with a MADT. MM_EINVAL: a table is
 *         damaged. Then all is 0 but the complaint, which says what is wrong.
 * Source: [ACPI 5.2 "ACPI System Description Tables"]
 */
MM_MUST_CHECK enum mm_status acpi_read_cpus(const struct acpi_source *source,
                                            const void *rsdp, size_t rsdp_bytes,
                                            struct acpi_cpus *out);

#endif
