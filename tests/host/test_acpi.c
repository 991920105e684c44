/* SPDX-License-Identifier: MIT */
/* acpi: good, hostile and cut tables of the firmware. */
#include "tests/shared/test.h"

#include <stdlib.h>
#include <string.h>
#include "kernel/acpi.h"
#include "tests/host/acpi_scene.h"

/*
 * At risk: lengths and addresses come from outside, and a wrong one must
 * neither be followed out of a table nor give a list of CPUs that is not the
 * machine's. Provoked by tables like those of QEMU and of a PC, in which every
 * field, every byte and every length is damaged. Each range that is granted is
 * a heap block of its own, of exactly that size and at an odd address, so that
 * the address sanitizer sees every byte read beyond.
 */

#define ONE_CPU "; one CPU is used"

/* Of build_pc(): the entry of a type that nobody knows. */
#define PC_OTHER (PC_OVERRIDE + 12)

/* A block of exactly @bytes at an odd address; freed by read_cpus(). */
static uint8_t *grant(struct machine *machine, const uint8_t *from,
                      uint64_t bytes)
{
    uint8_t *block = malloc(bytes + 1);

    if (block == NULL || machine->grants == GRANTS) {
        abort();
    }
    machine->grant[machine->grants++] = block;
    memcpy(block + 1, from, bytes);
    return block + 1;
}

static const void *map(const void *context, uint64_t physical, uint64_t bytes)
{
    struct machine *machine = *(struct machine *const *)context;

    if (bytes > UINT64_MAX - physical) {
        abort(); /* against the contract */
    }
    for (unsigned i = ROOT; i < TABLES; i++) {
        const struct table *table = &machine->table[i];
        if (physical >= table->physical &&
            physical + bytes <= table->physical + table->used) {
            return grant(machine, table->bytes + (physical - table->physical),
                         bytes);
        }
    }
    return NULL;
}

static enum mm_status read_cpus(struct machine *machine, struct acpi_cpus *out)
{
    const struct table *rsdp = &machine->table[RSDP];
    struct acpi_source source = {map, &machine};

    memset(out, 0xa5, sizeof(*out));
    enum mm_status status = acpi_read_cpus(
        &source, grant(machine, rsdp->bytes, rsdp->used), rsdp->used, out);
    while (machine->grants > 0) {
        free(machine->grant[--machine->grants]);
    }
    return status;
}

/* The answer is one of the two that the contract has. */
static void check_answer(enum mm_status status, const struct acpi_cpus *cpus)
{
    size_t length = strnlen(cpus->complaint, sizeof(cpus->complaint));

    CHECK(length < sizeof(cpus->complaint));
    if (status == MM_OK) {
        CHECK(cpus->count >= 1 && cpus->count <= MM_MAX_CPUS);
        CHECK(cpus->apic_address != 0 && cpus->apic_address % 4096 == 0);
        for (unsigned i = 0; i < cpus->count; i++) {
            for (unsigned k = 0; k < i; k++) {
                CHECK(cpus->cpu[i].apic_id != cpus->cpu[k].apic_id);
            }
        }
        return;
    }
    CHECK(status == MM_EINVAL || status == MM_ENOENT);
    CHECK_EQUAL(cpus->count, 0);
    CHECK_EQUAL(cpus->apic_address, 0);
    CHECK(!cpus->has_pic);
    /* The sentence has room for its numbers. */
    CHECK(length > strlen(ONE_CPU));
    CHECK(strcmp(cpus->complaint + length - strlen(ONE_CPU), ONE_CPU) == 0);
}

/* It is refused, and @text is part of the reason. */
static void check_refused(struct machine *machine, enum mm_status expected,
                          const char *text)
{
    struct acpi_cpus cpus;
    enum mm_status status = read_cpus(machine, &cpus);

    CHECK_EQUAL(status, expected);
    CHECK_HELPER(check_answer(status, &cpus));
    if (strstr(cpus.complaint, text) == NULL) {
        test_fail(__FILE__, __LINE__, "'%s' lacks '%s'", cpus.complaint, text);
    }
}

static void check_pc(struct machine *machine)
{
    struct acpi_cpus cpus;
    enum mm_status status = read_cpus(machine, &cpus);

    CHECK_EQUAL(status, MM_OK);
    CHECK_HELPER(check_answer(status, &cpus));
    CHECK_EQUAL(cpus.count, 4);
    CHECK_EQUAL(cpus.cpu[0].apic_id, 0);
    CHECK_EQUAL(cpus.cpu[1].apic_id, 2);
    CHECK_EQUAL(cpus.cpu[2].apic_id, 0x1a5);
    CHECK_EQUAL(cpus.cpu[3].apic_id, 6);
    CHECK_EQUAL(cpus.apic_address, PC_APIC_ADDRESS);
    CHECK(!cpus.has_pic);
    CHECK(cpus.complaint[0] == '\0');
}

TEST(acpi, the_tables_of_qemu)
{
    static struct machine machine;
    struct acpi_cpus cpus;

    build_qemu(&machine);
    CHECK_EQUAL(read_cpus(&machine, &cpus), MM_OK);
    CHECK_EQUAL(cpus.count, 4);
    for (unsigned i = 0; i < cpus.count; i++) {
        CHECK_EQUAL(cpus.cpu[i].apic_id, i);
    }
    CHECK_EQUAL(cpus.apic_address, APIC_ADDRESS);
    CHECK(cpus.has_pic);
    CHECK(cpus.complaint[0] == '\0');
}

TEST(acpi, the_tables_of_a_pc)
{
    static struct machine machine;

    build_pc(&machine);
    check_pc(&machine);
}

/* A loader's old tag: revision 2 in 20 bytes, so there is no XSDT. */
TEST(acpi, the_old_part_of_a_new_root_pointer)
{
    static struct machine machine;
    struct acpi_cpus cpus;

    build_qemu(&machine);
    machine.table[RSDP].bytes[15] = 2;
    balance(&machine.table[RSDP], RSDP_OLD_BYTES, 8);
    CHECK_EQUAL(read_cpus(&machine, &cpus), MM_OK);
    CHECK_EQUAL(cpus.count, 4);
}

TEST(acpi, no_xsdt_means_the_rsdt)
{
    static struct machine machine;
    struct acpi_cpus cpus;

    build_qemu(&machine);
    struct table *rsdp = &machine.table[RSDP];
    rsdp->bytes[15] = 2;
    rsdp->used = RSDP_BYTES;
    set(rsdp, 20, RSDP_BYTES, 4);
    finish(&machine, RSDP);
    CHECK_EQUAL(read_cpus(&machine, &cpus), MM_OK);
    CHECK_EQUAL(cpus.count, 4);
}

TEST(acpi, no_root_pointer)
{
    static struct machine machine;
    struct machine *pointer = &machine;
    struct acpi_source source = {map, &pointer};
    struct acpi_cpus cpus;

    build_pc(&machine);
    CHECK_EQUAL(acpi_read_cpus(&source, NULL, 0, &cpus), MM_ENOENT);
    check_answer(MM_ENOENT, &cpus);
}

/* One field has another value; the checksums are right all the same. */
TEST(acpi, a_damaged_field_is_named)
{
    static const struct {
        enum which which;
        uint32_t offset;
        uint32_t bytes;
        uint64_t value;
        enum mm_status status;
        const char *text;
    } cases[] = {
        {RSDP, 0, 4, 0, MM_EINVAL, "begins with 0x2052545000000000"},
        {RSDP, 15, 1, 1, MM_EINVAL, "the RSDT at 0x0 is out of reach"},
        {RSDP, 20, 4, 35, MM_EINVAL, "claims 35 bytes, not 36 to 36"},
        {RSDP, 20, 4, 37, MM_EINVAL, "claims 37 bytes, not 36 to 36"},
        {RSDP, 20, 4, UINT32_MAX, MM_EINVAL, "claims 4294967295 bytes"},
        {RSDP, 24, 8, 0, MM_EINVAL, "the RSDT at 0x0 is out of reach"},
        {RSDP, 24, 8, 0x1000, MM_EINVAL, "the XSDT at 0x1000 is out of reach"},
        {RSDP, 24, 8, UINT64_MAX, MM_EINVAL, "0xffffffffffffffff is out of"},
        {RSDP, 24, 8, MADT_PLACE, MM_EINVAL,
         "at 0x7ffe8234 there is no XSDT but 0x43495041"},
        {ROOT, 0, 4, 0, MM_EINVAL, "at 0x7ffe0120 there is no XSDT but 0x0"},
        {ROOT, 4, 4, 0, MM_EINVAL, "claims 0 bytes, not 36 to 1048576"},
        {ROOT, 4, 4, 35, MM_EINVAL, "claims 35 bytes, not 36 to 1048576"},
        {ROOT, 4, 4, 36, MM_ENOENT, "no MADT among 0 tables, 0 of them"},
        {ROOT, 4, 4, 44, MM_ENOENT, "no MADT among 1 tables, 0 of them"},
        {ROOT, 4, 4, 56, MM_EINVAL, "has 20 bytes of entries"},
        {ROOT, 4, 4, 61, MM_EINVAL, "claims 61 bytes, which are not all"},
        {ROOT, 4, 4, 0x100001, MM_EINVAL, "claims 1048577 bytes, not"},
        {ROOT, 4, 4, UINT32_MAX, MM_EINVAL, "claims 4294967295 bytes, not"},
        {ROOT, 44, 8, 0, MM_ENOENT, "no MADT among 3 tables, 1 of them"},
        {ROOT, 44, 8, 0x3000, MM_ENOENT, "no MADT among 3 tables, 1 of them"},
        {ROOT, 44, 8, UINT64_MAX - 35, MM_ENOENT, "3 tables, 1 of them out"},
        {MADT, 0, 4, 0, MM_ENOENT, "no MADT among 3 tables, 0 of them"},
        {MADT, 4, 4, 35, MM_EINVAL, "the MADT at 0x7ffe8234 claims 35 bytes"},
        {MADT, 4, 4, 36, MM_EINVAL, "has 36 bytes, not 44"},
        {MADT, 4, 4, 43, MM_EINVAL, "has 43 bytes, not 44"},
        {MADT, 4, 4, FIRST_ENTRY, MM_EINVAL, "lists no CPU that is enabled"},
        {MADT, 4, 4, FIRST_ENTRY + 1, MM_EINVAL, "type 0 with 0 of 1 bytes"},
        {MADT, 4, 4, FIRST_ENTRY + 7, MM_EINVAL, "type 0 with 8 of 7 bytes"},
        {MADT, 4, 4, UINT32_MAX, MM_EINVAL, "claims 4294967295 bytes, not"},
        {MADT, FIRST_ENTRY + 1, 1, 0, MM_EINVAL, "at offset 44 an entry of"},
        {MADT, FIRST_ENTRY + 1, 1, 1, MM_EINVAL, "type 0 with 1 of"},
        {MADT, FIRST_ENTRY + 1, 1, 7, MM_EINVAL, "type 0 with 7 of"},
        {MADT, PC_X2APIC + 1, 1, 15, MM_EINVAL, "type 9 with 15 of"},
        {MADT, PC_OVERRIDE + 1, 1, 11, MM_EINVAL, "type 5 with 11 of"},
        {MADT, PC_OTHER + 1, 1, 1, MM_EINVAL, "type 127 with 1 of"},
        {MADT, PC_OVERRIDE + 4, 8, 0, MM_EINVAL, "APICs at 0x0, which is no"},
        {MADT, PC_OVERRIDE + 4, 8, 0xfee00800, MM_EINVAL, "at 0xfee00800"},
    };
    static struct machine machine;

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        build_pc(&machine);
        set(&machine.table[cases[i].which], cases[i].offset, cases[i].value,
            cases[i].bytes);
        repair(&machine, cases[i].which);
        CHECK_HELPER(check_refused(&machine, cases[i].status, cases[i].text));
    }
}

TEST(acpi, a_wrong_checksum_is_named)
{
    static const struct {
        enum which which;
        uint32_t offset;
        const char *text;
    } cases[] = {
        {RSDP, 8, "the RSDP has checksum 0x3c, not 0"},
        {RSDP, 32, "the RSDP has extended checksum 0x3c, not 0"},
        {ROOT, CHECKSUM, "the XSDT at 0x7ffe0120 has checksum 0x3c, not 0"},
        {MADT, CHECKSUM, "the MADT at 0x7ffe8234 has checksum 0x3c, not 0"},
    };
    static struct machine machine;

    for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        build_pc(&machine);
        machine.table[cases[i].which].bytes[cases[i].offset] += 0x3c;
        CHECK_HELPER(check_refused(&machine, MM_EINVAL, cases[i].text));
    }
}

TEST(acpi, every_changed_byte_is_found)
{
    static struct machine machine;

    build_pc(&machine);
    for (unsigned which = RSDP; which <= MADT; which++) {
        struct table *table = &machine.table[which];
        for (uint32_t i = 0; i < table->used; i++) {
            for (unsigned bit = 0; bit < 8; bit++) {
                struct acpi_cpus cpus;
                table->bytes[i] ^= (uint8_t)(1u << bit);
                enum mm_status status = read_cpus(&machine, &cpus);
                table->bytes[i] ^= (uint8_t)(1u << bit);
                CHECK(status != MM_OK);
                CHECK_HELPER(check_answer(status, &cpus));
            }
        }
    }
    check_pc(&machine);
}

/* Tables that are not on the way may be as they like. */
TEST(acpi, other_tables_are_left_alone)
{
    static struct machine machine;

    build_pc(&machine);
    struct table *facp = &machine.table[FACP];
    for (uint32_t i = 0; i < facp->used; i++) {
        facp->bytes[i] ^= 0xff;
        CHECK_HELPER(check_pc(&machine));
        facp->bytes[i] ^= 0xff;
    }
    while (facp->used > 0) {
        facp->used--;
        CHECK_HELPER(check_pc(&machine));
    }
}

/* Memory ends in the middle of a table, at each of its bytes. */
TEST(acpi, every_cut_is_found)
{
    static struct machine machine;

    build_pc(&machine);
    for (unsigned which = RSDP; which <= MADT; which++) {
        struct table *table = &machine.table[which];
        uint32_t used = table->used;
        for (table->used = 0; table->used < used; table->used++) {
            struct acpi_cpus cpus;
            enum mm_status status = read_cpus(&machine, &cpus);
            CHECK(status != MM_OK);
            CHECK_HELPER(check_answer(status, &cpus));
        }
        CHECK_EQUAL(table->used, used);
    }
    check_pc(&machine);
}

/* The same, by a length that is too small and a checksum that is right. */
TEST(acpi, every_short_madt_is_survived)
{
    static struct machine machine;

    build_pc(&machine);
    uint32_t used = machine.table[MADT].used;
    for (uint32_t bytes = 0; bytes < used; bytes++) {
        struct acpi_cpus cpus;
        machine.table[MADT].used = bytes;
        set(&machine.table[MADT], 4, bytes, 4);
        repair(&machine, MADT);
        enum mm_status status = read_cpus(&machine, &cpus);
        CHECK_HELPER(check_answer(status, &cpus));
    }
}

TEST(acpi, more_cpus_than_there_is_room_for)
{
    static struct machine machine;
    struct acpi_cpus cpus;

    build_many(&machine, MM_MAX_CPUS);
    CHECK_EQUAL(read_cpus(&machine, &cpus), MM_OK);
    CHECK_EQUAL(cpus.count, MM_MAX_CPUS);
    CHECK(cpus.complaint[0] == '\0');

    build_many(&machine, MM_MAX_CPUS + 45);
    enum mm_status status = read_cpus(&machine, &cpus);
    CHECK_EQUAL(status, MM_OK);
    CHECK_HELPER(check_answer(status, &cpus));
    CHECK_EQUAL(cpus.count, MM_MAX_CPUS);
    CHECK_EQUAL(cpus.cpu[MM_MAX_CPUS - 1].apic_id, 1000 + MM_MAX_CPUS - 1);
    CHECK(strstr(cpus.complaint, "its last 45 are left out") != NULL);
}

TEST(acpi, more_tables_than_are_looked_at)
{
    static struct machine machine;

    for (unsigned extra = 0; extra < 2; extra++) {
        build_pc(&machine);
        struct table *root = &machine.table[ROOT];
        root->used = HEADER_BYTES;
        for (unsigned i = 1; i < ACPI_MAX_TABLES + extra; i++) {
            put(root, machine.table[FACP].physical, 8);
        }
        put(root, machine.table[MADT].physical, 8);
        finish(&machine, ROOT);
        if (extra == 0) {
            CHECK_HELPER(check_pc(&machine));
        }
    }
    check_refused(&machine, MM_EINVAL, "has 8200 bytes of entries, not 0 to");
}

/* Put something wrong somewhere on the way to the CPUs. */
static void damage(struct machine *machine, struct test_random *random)
{
    static const uint32_t values[] = {0,  1,   2,     7,          8,
                                      43, 255, 65535, 0x7fffffff, UINT32_MAX};
    enum which which = (enum which)test_random_below(random, MADT + 1);
    struct table *table = &machine->table[which];
    uint32_t offset = (uint32_t)test_random_below(random, table->used);

    switch (test_random_below(random, 8)) {
    case 0:
        table->used = offset + 1;
        break;
    case 1:
        set(table, which == RSDP ? 20 : 4, offset, 4);
        break;
    case 2:
    case 3:
        set(table, offset, values[test_random_below(random, 10)], 4);
        break;
    default:
        table->bytes[offset] = (uint8_t)test_random_next(random);
        break;
    }
    if (test_random_below(random, 8) != 0) {
        repair(machine, which);
    }
}

TEST(acpi, damaged_tables_are_survived)
{
    static struct machine machine;
    struct test_random random;
    unsigned answers[3] = {0};

    test_random_init(&random, test_seed());
    for (unsigned i = 0; i < 100000; i++) {
        struct acpi_cpus cpus;
        if (i % 2 == 0) {
            build_qemu(&machine);
        } else {
            build_pc(&machine);
        }
        for (unsigned k = 0; k < 1 + i % 3; k++) {
            damage(&machine, &random);
        }
        enum mm_status status = read_cpus(&machine, &cpus);
        CHECK_HELPER(check_answer(status, &cpus));
        answers[status == MM_OK ? 0 : status == MM_ENOENT ? 1 : 2]++;
    }
    /* The damage was neither nothing nor all at the door. */
    CHECK(answers[0] > 10000 && answers[1] > 1000 && answers[2] > 10000);
}
