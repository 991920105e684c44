/* SPDX-License-Identifier: MIT */
/* Tables of made-up machines, to be damaged. */
#ifndef TESTS_HOST_ACPI_SCENE_H
#define TESTS_HOST_ACPI_SCENE_H

#include <string.h>
#include "kernel/acpi.h"

#define TABLE_BYTES 9216 /* an XSDT of one table too many */
#define TABLES      5
#define GRANTS      2048

#define CHECKSUM        9 /* in the header that all tables begin with */
#define HEADER_BYTES    36
#define RSDP_BYTES      36
#define RSDP_OLD_BYTES  20
#define FIRST_ENTRY     44 /* of the MADT */
#define ENABLED         1
#define ONLINE_CAPABLE  2
#define APIC_ADDRESS    0xfee00000
#define MADT_PLACE      UINT64_C(0x7ffe8234)
#define ROOT_PLACE      UINT64_C(0x7ffe0120)
#define PC_APIC_ADDRESS UINT64_C(0x1fee00000)

struct table {
    uint64_t physical;
    uint32_t used;
    uint8_t bytes[TABLE_BYTES];
};

enum which { RSDP, ROOT, MADT, FACP, OTHER };

/* The firmware of a machine, and the grants that a test has to free. */
struct machine {
    struct table table[TABLES];
    uint8_t *grant[GRANTS];
    unsigned grants;
};

static inline void put(struct table *table, uint64_t value, uint32_t bytes)
{
    memcpy(table->bytes + table->used, &value, bytes);
    table->used += bytes;
}

static inline void set(struct table *table, uint32_t offset, uint64_t value,
                       uint32_t bytes)
{
    memcpy(table->bytes + offset, &value, bytes);
}

static inline void begin(struct table *table, uint64_t physical,
                         const char *name)
{
    memset(table, 0, sizeof(*table));
    table->physical = physical;
    memcpy(table->bytes, name, 4);
    table->used = HEADER_BYTES;
}

/* Make the first @bytes of @table add up to 0 by the byte at @offset. */
static inline void balance(struct table *table, uint32_t bytes, uint32_t offset)
{
    table->bytes[offset] = 0;
    unsigned sum = 0;
    for (uint32_t i = 0; i < bytes; i++) {
        sum += table->bytes[i];
    }
    table->bytes[offset] = (uint8_t)(0u - sum);
}

/* Checksums right again, over the bytes the table claims to have. */
static inline void repair(struct machine *machine, enum which which)
{
    struct table *table = &machine->table[which];
    uint32_t claimed;

    if (which == RSDP) {
        balance(table, RSDP_OLD_BYTES, 8);
        memcpy(&claimed, table->bytes + 20, sizeof(claimed));
        balance(table, claimed > table->used ? table->used : claimed, 32);
        return;
    }
    memcpy(&claimed, table->bytes + 4, sizeof(claimed));
    balance(table, claimed > table->used ? table->used : claimed, CHECKSUM);
}

static inline void finish(struct machine *machine, enum which which)
{
    struct table *table = &machine->table[which];

    if (which != RSDP) {
        set(table, 4, table->used, 4);
    }
    repair(machine, which);
}

static inline void put_apic(struct table *madt, unsigned id, uint32_t flags)
{
    put(madt, 0, 1);
    put(madt, 8, 1);
    put(madt, id, 1); /* the processor's number in the AML */
    put(madt, id, 1);
    put(madt, flags, 4);
}

static inline void put_x2apic(struct table *madt, uint32_t id, uint32_t flags)
{
    put(madt, 9, 1);
    put(madt, 16, 1);
    put(madt, 0, 2);
    put(madt, id, 4);
    put(madt, flags, 4);
    put(madt, id, 4);
}

/* An entry of a type that is passed over. */
static inline void put_other(struct table *madt, unsigned type, uint32_t bytes)
{
    put(madt, type, 1);
    put(madt, bytes, 1);
    memset(madt->bytes + madt->used, 0xa5, bytes - 2);
    madt->used += bytes - 2;
}

static inline void put_override(struct table *madt, uint64_t address)
{
    put(madt, 5, 1);
    put(madt, 12, 1);
    put(madt, 0, 2);
    put(madt, address, 8);
}

static inline void begin_madt(struct machine *machine, uint32_t flags)
{
    struct table *madt = &machine->table[MADT];

    begin(madt, MADT_PLACE, "APIC");
    put(madt, APIC_ADDRESS, 4);
    put(madt, flags, 4);
}

/* Root pointer and root table, which lists three tables. */
static inline void build_root(struct machine *machine, unsigned revision)
{
    struct table *rsdp = &machine->table[RSDP];
    struct table *root = &machine->table[ROOT];
    uint32_t entry_bytes = revision == 0 ? 4 : 8;

    begin(&machine->table[FACP], 0x7ffe0000, "FACP");
    machine->table[FACP].used = 116;
    finish(machine, FACP);
    begin(&machine->table[OTHER], 0x7fff0000, "HPET");
    machine->table[OTHER].used = 56;
    finish(machine, OTHER);

    begin(root, ROOT_PLACE, revision == 0 ? "RSDT" : "XSDT");
    put(root, machine->table[FACP].physical, entry_bytes);
    put(root, machine->table[MADT].physical, entry_bytes);
    put(root, machine->table[OTHER].physical, entry_bytes);
    finish(machine, ROOT);

    begin(rsdp, 0xf5ad0, "RSD ");
    memcpy(rsdp->bytes + 4, "PTR ", 4);
    rsdp->bytes[15] = (uint8_t)revision;
    if (revision == 0) {
        rsdp->used = RSDP_OLD_BYTES;
        set(rsdp, 16, root->physical, 4);
        balance(rsdp, RSDP_OLD_BYTES, 8);
        return;
    }
    rsdp->used = RSDP_BYTES;
    set(rsdp, 20, RSDP_BYTES, 4);
    set(rsdp, 24, root->physical, 8);
    finish(machine, RSDP);
}

/* As SeaBIOS has it for `-smp 4`: revision 0, RSDT. */
static inline void build_qemu(struct machine *machine)
{
    struct table *madt = &machine->table[MADT];

    machine->grants = 0;
    begin_madt(machine, 1);
    for (unsigned i = 0; i < 4; i++) {
        put_apic(madt, i, ENABLED);
    }
    put_other(madt, 1, 12); /* the I/O APIC */
    for (unsigned i = 0; i < 5; i++) {
        put_other(madt, 2, 10); /* overrides of interrupt sources */
    }
    put_other(madt, 4, 6); /* NMI on LINT1 */
    finish(machine, MADT);
    build_root(machine, 0);
}

#define PC_X2APIC   (FIRST_ENTRY + 4 * 8)
#define PC_OVERRIDE (PC_X2APIC + 4 * 16)

/*
 * As PCs have it: XSDT, empty sockets, CPUs named twice, ids above 255, the
 * local APICs elsewhere.
 */
static inline void build_pc(struct machine *machine)
{
    struct table *madt = &machine->table[MADT];

    machine->grants = 0;
    begin_madt(machine, 0);
    put_apic(madt, 0, ENABLED);
    put_apic(madt, 2, ENABLED | ONLINE_CAPABLE);
    put_apic(madt, 4, ONLINE_CAPABLE);
    put_apic(madt, 0xff, ENABLED);
    put_x2apic(madt, 2, ENABLED);
    put_x2apic(madt, 0x1a5, ENABLED);
    put_x2apic(madt, 0x1a6, 0);
    put_x2apic(madt, UINT32_MAX, ENABLED);
    put_override(madt, PC_APIC_ADDRESS);
    put_other(madt, 0x7f, 255); /* of a later revision */
    put_apic(madt, 6, ENABLED);
    finish(machine, MADT);
    build_root(machine, 2);
}

/* @cpus of them, and the first once more: no further one. */
static inline void build_many(struct machine *machine, unsigned cpus)
{
    struct table *madt = &machine->table[MADT];

    machine->grants = 0;
    begin_madt(machine, 0);
    for (unsigned i = 0; i < cpus; i++) {
        put_x2apic(madt, 1000 + i, ENABLED);
    }
    put_x2apic(madt, 1000, ENABLED);
    finish(machine, MADT);
    build_root(machine, 2);
}

#endif
