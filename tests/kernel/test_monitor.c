/* SPDX-License-Identifier: MIT */
/* monitor: commands do what they say, and refuse nonsense in words. */
#include "kernel/monitor/monitor.h"

#include <mm/frame.h>
#include <mm/kmalloc.h>
#include <mm/kmap.h>
#include <mm/pt.h>
#include <mm/slab.h>
#include "base/bits.h"
#include "kernel/console/console.h"
#include "kernel/lib/format.h"
#include "kernel/lib/string.h"
#include "kernel/monitor/command.h"
#include "tests/shared/once.h"
#include "tests/shared/test.h"
#include "tests/shared/text.h"

/*
 * At risk: a command that crashes the machine it should explain, that takes
 * nonsense for a number, or calls a failure success. Provoked by running them
 * on the live system, with good words and bad ones, and reading in the log
 * what they have printed.
 */

/* As much as the log keeps: iomem -j of 300 ranges is 50 KiB. */
#define OUTPUT_BYTES (64 * KiB)

static char output[OUTPUT_BYTES]; /* the newest of the log, ends in 0 */
static size_t output_length;

static void keep_newest(const char *text, size_t length)
{
    size_t room = sizeof(output) - 1;

    if (length > room) {
        text += length - room;
        length = room;
    }
    if (output_length + length > room) {
        size_t dropped = output_length + length - room;
        memmove(output, output + dropped, output_length - dropped);
        output_length -= dropped;
    }
    memcpy(output + output_length, text, length);
    output_length += length;
}

/* What has been printed since @mark was; "" if that is too long ago. */
static const char *printed_since(const char *mark)
{
    const char *found = NULL;

    output_length = 0;
    log_read(keep_newest);
    output[output_length] = '\0';
    for (const char *at = output; *at != '\0'; at++) {
        if (test_begins_with(at, mark)) {
            found = at + strlen(mark);
        }
    }
    return found != NULL ? found : "";
}

/* Run @command; does what it prints contain @text? */
static void expect(const char *command, bool succeeds, const char *text)
{
    static unsigned number;
    char mark[32];

    number++;
    ksnprintf(mark, sizeof(mark), "# command %u: ", number);
    printk("%s%s\n", mark, command);
    bool success = monitor_execute(command);
    if (success != succeeds) {
        test_fail(__FILE__, __LINE__, "%s: %s", command,
                  success ? "succeeds" : "fails");
    } else if (!test_contains(printed_since(mark), text)) {
        test_fail(__FILE__, __LINE__, "%s does not print: %s", command, text);
    }
}

#define EXPECT(command, text)  CHECK_HELPER(expect(command, true, text))
#define REFUSES(command, text) CHECK_HELPER(expect(command, false, text))

TEST(monitor, commands_about_memory_answer)
{
    EXPECT("iomem", "kernel image");
    EXPECT("iomem -j", "{\"v\":1,\"kind\":\"iomem\",\"start\":\"0x");
    EXPECT("meminfo", "MemFree");
    EXPECT("free -j", "\"MemTotal\":");
    EXPECT("buddyinfo", "Node 0, zone      DMA");
    EXPECT("page 0x200000", "frame 512 (0x200)");
    EXPECT("page 512", "physical 0x200000");
    EXPECT("page 0xffffe", "frame 255");
    EXPECT("page memcpy", ".text");
    EXPECT("page 0xfffffffffffff", "a hole");
}

TEST(monitor, commands_about_translation_answer)
{
    EXPECT("pagewalk memcpy", "all levels together: r-x");
    EXPECT("pagewalk 0", "no translation");
    EXPECT("pt", "---[ direct map ]---");
    EXPECT("pt -f w -l 0", "rw");
    EXPECT("pt -j -r memcpy memcpy+1", "\"write\":false,\"exec\":true");
    EXPECT("pt -j -r memcpy memcpy+1", "\"memory\":\"WB\",\"tag\":0");
    EXPECT("pt -f u", "0 ranges");
    EXPECT("v2p 0xffff800000200000", "0x200000");
    EXPECT("p2v 0x200000", "0xffff800000200000  direct map");
    EXPECT("p2v 0x100000", "sg WB  4K");
    EXPECT("audit", "0 mappings let write what another one executes");
    EXPECT("wx", "\nsound\n");
    EXPECT("tlb", "pages invalidated");
    EXPECT("tlb flush", "forgotten");
    EXPECT("tlb probe kernel_main", "they agree");
    EXPECT("tlb probe 0", "faults, too");
}

TEST(monitor, a_space_can_be_looked_at)
{
    REFUSES("pt -u", "no space is loaded here");
    REFUSES("ptdiff user", "no space is loaded here");
    REFUSES("space sideways", "demo, drop or nothing, not sideways");
    EXPECT("space", "0 spaces beside the kernel's");
    EXPECT("space demo", "0x40800000  promised to user mode");
    EXPECT("space", ", loaded here\n1 space beside");
    EXPECT("pt -u", "object page on touch");
    EXPECT("pt -u", "guard, may move");
    EXPECT("pt -u -f w -l 0", "s- WB  4K");
    EXPECT("pt -u -j", "\"payload\":7,\"state\":\"object page on touch\"");
    EXPECT("pt -r 0x40200000 0x40201000", "s- WB  4K");
    EXPECT("explain 0x40203000 w k",
           "the fault handler supplies a zeroed frame");
    EXPECT("ptdiff user", "ranges are remembered");
    *(volatile uint8_t *)0x40203000 = 1;
    EXPECT("ptdiff", "+ 0000000040203000-0000000040203fff");
    EXPECT("audit", "space with root 0x");
    EXPECT("audit", "0 blocks have fewer holders than entries");
    EXPECT("audit", "\nsound\n");
    EXPECT("space drop", "");
    REFUSES("ptdiff", "the space is gone");
    EXPECT("ptdiff drop", "");
    REFUSES("pt -u", "no space is loaded here");
}

static uint8_t page_of_data[2 * PAGE_BYTES];

TEST(monitor, rights_of_pages_can_be_changed)
{
    char command[64];
    vaddr_t page = align_up((vaddr_t)page_of_data, PAGE_BYTES);

    REFUSES("protect memcpy 1 rw", " is code");
    REFUSES("protect 0x1000 1 rw", "stays as it is: MM_EINVAL");
    REFUSES("protect kernel_stack_end 0 rw", "0x0 bytes from ");
    REFUSES("protect 0xfffffffffffff000 8K rw", "are no range");
    REFUSES("protect kernel_stack_end 1 rwx", "rwx is none of r rw none");
    ksnprintf(command, sizeof(command), "protect 0x%lx 4K r", page);
    EXPECT(command, "");
    ksnprintf(command, sizeof(command), "pt -r 0x%lx 0x%lx", page, page + 1);
    EXPECT(command, "sg WB  4K  .data");
    ksnprintf(command, sizeof(command), "protect 0x%lx 4K rw", page);
    EXPECT(command, "");
    page_of_data[PAGE_BYTES] = 1;
}

/* The code is in the image and in the direct map, and nowhere else. */
TEST(monitor, all_mappings_of_a_frame_are_found)
{
    char command[40];
    struct walk walk;

    walk_address(pt_kernel.root, (vaddr_t)memcpy, &walk);
    ksnprintf(command, sizeof(command), "alias 0x%lx", walk.physical.v);
    EXPECT(command, "  direct map  r-");
    EXPECT(command, "  kernel image .text  r-xsg WB");
}

TEST(monitor, ptdiff_shows_what_was_mapped_since)
{
    REFUSES("ptdiff sideways", "take, user, drop or nothing, not sideways");
    EXPECT("ptdiff drop", "");
    REFUSES("ptdiff", "nothing to compare with");
    kmap_purge(); /* so that the block is a new one */
    EXPECT("ptdiff take", "ranges are remembered");
    EXPECT("ptdiff", "\n0 ranges have changed");
    void *block = kmap_alloc(PAGE_BYTES, 0, "difference");
    CHECK(block != NULL);
    EXPECT("ptdiff", "sg WB  4K  difference");
    EXPECT("ptdiff -j", "{\"v\":1,\"kind\":\"ptdiff\",\"change\":\"added\"");
    kmap_free(block);
    EXPECT("ptdiff drop", "");
}

TEST(monitor, commands_about_addresses_answer)
{
    EXPECT("x memcpy 16", "ffffffff8");
    EXPECT("xp 0x200000 3", "\n0000000000200000 ");
    EXPECT("explain 0 r k", "#PF, error code 0x0");
    EXPECT("explain memcpy r k", "all levels together: r-x supervisor");
    EXPECT("explain memcpy r k", "page WB");
    EXPECT("explain memcpy r k", "(frame 0x");
    EXPECT("explain memcpy w k", "page is read-only");
    EXPECT("explain memcpy x u", "page belongs to the kernel");
    EXPECT("explain 0xffffbffffffff000 r k", "entry is not present");
    EXPECT("explain 0xffffffffffffffff r k", "end of memory");
    EXPECT("explain 0x1000000000000000 r k", "not canonical");
}

TEST(monitor, a_page_that_is_copied_on_write_is_no_error)
{
    struct pt space;
    pfn_t page = frame_alloc(0, FRAME_USER, FRAME_ZEROED);

    CHECK(!pfn_is_none(page));
    CHECK_EQUAL(pt_init(&space), MM_OK);
    CHECK_EQUAL(
        once_map(&space, GiB, page, PAGE_BYTES, pt_attr(PT_OWNED | PT_COW)),
        MM_OK);
    tlb_switch(&space.tlb);
    EXPECT("explain 0x40000000 w k", "and the fault handler gives a copy");
    EXPECT("explain 0x40000000 r k", "works");
    tlb_switch(&pt_kernel.tlb);
    pt_fini(&space);
}

TEST(monitor, commands_about_the_rest_answer)
{
    EXPECT("slabinfo -a", "kmalloc-64");
    EXPECT("slabinfo -j", "\"name\":\"kmalloc-8192\"");
    EXPECT("vmstat", "pgfault_zeroed");
    EXPECT("cpuinfo", "address sizes");
    EXPECT("version", "Vellum");
    EXPECT("help", "buddyinfo");
    EXPECT("help walk", "pagewalk");
    EXPECT(" ; ;version;", "Vellum");
}

TEST(monitor, nonsense_is_refused_in_words)
{
    REFUSES("versoin", "unknown command: versoin");
    REFUSES("version; nope; version", "unknown command: nope");
    REFUSES("page", "usage: page ADDR|PFN");
    REFUSES("page zzz", "zzz is neither a number nor a symbol");
    REFUSES("page 0x1g", "0x1g is no number");
    REFUSES("page 0xffff800000000000000", "more than 64 bits");
    REFUSES("page 99999999999999999", "beyond 64 bits");
    REFUSES("page 0xffffffffffffffff", "nothing is mapped at");
    REFUSES("pt -f q", "letters of wxus, not q");
    REFUSES("pt -l 7", "not 7");
    REFUSES("pt -r 0x2000 0x1000", "is empty");
    REFUSES("pt -r 5 4", "is empty");
    REFUSES("pt -r 5 5", "is empty");
    REFUSES("pt -r 0x1000000000000000 0x2000000000000000",
            "0x1000000000000000 is not canonical");
    REFUSES("pt -r 5 0x2000000000000000", "0x1fffffffffffffff is not");
    REFUSES("pt -r 5 0xffffffffffffffff", "in different halves");
    REFUSES("pt -r 0x2000", "its value is missing");
    REFUSES("x 0", "0x0 cannot be read");
    REFUSES("x memcpy 1G", "more than");
    REFUSES("xp 0x400000000000", "no physical address in reach");
    REFUSES("xp 0x3ffffffffff0 32", "no physical address in reach");
    REFUSES("xp 0x3fffffffff00", "0x3fffffffff00 is no RAM: nothing");
    REFUSES("bench NOSUCH", "no figure has a name that begins with NOSUCH");
    REFUSES("v2p 0", "nothing is mapped at 0x0");
    REFUSES("v2p 0x1000000000000000", "not canonical");
    REFUSES("p2v 0xfffffffff000", "no RAM");
    REFUSES("explain memcpy q", "not q");
    REFUSES("tlb sideways", "not sideways");
    REFUSES("kmalloc 0", "not between 1 and");
    REFUSES("kmalloc 1T", "not between 1 and");
    REFUSES("kfree 0x1234", "no live block");
    REFUSES("kfree kernel_main", "no live block");
    REFUSES("kfree 0xffff800000000000", "no live block");
    REFUSES("slabinfo -b", "-a shows all caches; what is -b?");
    REFUSES("fault sideways", "sideways is none of");
    REFUSES("help nope", "no command nope");
    REFUSES("1 2 3 4 5 6 7 8 9 10 11 12 13", "at most");
}

TEST(monitor, kmalloc_and_kfree_are_a_pair)
{
    char command[40];
    void *block = kmalloc(100);

    CHECK(block != NULL);
    ksnprintf(command, sizeof(command), "explain 0x%lx", (vaddr_t)block + 9);
    EXPECT(command, "heap: 0x9 bytes into object");
    ksnprintf(command, sizeof(command), "kfree 0x%lx", (vaddr_t)block + 1);
    REFUSES(command, "is 1 bytes into the block at 0x");
    ksnprintf(command, sizeof(command), "kfree 0x%lx", (vaddr_t)block);
    EXPECT(command, "is free");
    if (MM_DEBUG) { /* elsewhere its frames may be free as well */
        REFUSES(command, "is free already");
    }
}

TEST(monitor, kfree_takes_only_what_kmalloc_gave)
{
    char command[40];
    struct slab_cache *cache = slab_create("monitor", 100, 0, NULL);
    void *object = cache == NULL ? NULL : slab_alloc(cache);
    void *run = kmalloc(5 * PAGE_BYTES);

    CHECK(object != NULL && run != NULL);
    ksnprintf(command, sizeof(command), "kfree 0x%lx", (vaddr_t)object);
    REFUSES(command, "is no block of kmalloc, but of cache monitor");
    ksnprintf(command, sizeof(command), "kfree 0x%lx", (vaddr_t)run + 8);
    REFUSES(command, "is 8 bytes into the block at 0x");
    ksnprintf(command, sizeof(command), "kfree 0x%lx", (vaddr_t)run);
    EXPECT(command, "is free");
    slab_free(cache, object);
    CHECK_EQUAL(slab_destroy(cache), MM_OK);
}

TEST(monitor, commands_about_slabs_answer)
{
    char command[48];
    char *block = kmalloc(300);

    CHECK(block != NULL);
    ksnprintf(command, sizeof(command), "slab contains 0x%lx",
              (vaddr_t)block + 7);
    EXPECT(command, "7 bytes into an object of 320 bytes, cache kmalloc-320");
    EXPECT(command, "before: ");
    EXPECT(command, "behind: ");
    if (MM_DEBUG) {
        EXPECT(command, "live, allocated by test_monitor_commands_about_slabs");
    }
    ksnprintf(command, sizeof(command), "slab -j contains 0x%lx",
              (vaddr_t)block);
    EXPECT(command, "\"offset\":0,");
    EXPECT(command, "\"state\":\"live\"");
    ksnprintf(command, sizeof(command), "slab info 0x%lx", (vaddr_t)block);
    EXPECT(command, "cache kmalloc-320");
    EXPECT(command, "#");
    EXPECT("slab info kmalloc-320", " out [");
    EXPECT("slab -j info kmalloc-320", "\"strip\":\"");
    EXPECT("slab info kmap block", "kmap block: ");
    kfree(block);
    EXPECT("slabtop -o", "Active / Total Objects (% used)");
    EXPECT("slabtop -o", "OBJ/SLAB CACHE SIZE NAME");
    EXPECT("heapcheck", "sound: ");
    EXPECT("leaks", "0 of ");
    REFUSES("slab contains 0x1234", "0x1234 is in no slab");
    REFUSES("slab info 0xffff800000000000", "is in no slab");
    REFUSES("slab info nobody", "no cache");
    REFUSES("slab info no body", "there is no cache no body");
    REFUSES("slab burn 5", "info CACHE|ADDR or contains ADDR, not burn");
    REFUSES("slabtop -x", "-o shows them once; what is -x?");
    REFUSES("misuse nonsense", "is none of");
    REFUSES("misuse", "one of: overflow");
}

/* Inverted, they are no references; a slot of the stack may hold the last. */
static uintptr_t lost[4];

static MM_NOINLINE void lose(void)
{
    for (size_t i = 0; i < 4; i++) {
        lost[i] = ~(uintptr_t)kzalloc(777);
    }
}

TEST(monitor, leaks_names_what_is_lost)
{
    lose();
    expect("leaks", true, MM_DEBUG ? " of 777 bytes" : " of 832 bytes");
    expect("leaks -j", true,
           "{\"v\":1,\"kind\":\"leak\",\"cache\":\"kmalloc-832");
    for (size_t i = 0; i < 4; i++) {
        kfree((void *)~lost[i]);
    }
}

TEST(monitor, every_command_has_help_and_a_name_of_its_own)
{
    const struct command_group *group;

    for (size_t i = 0; (group = command_group(i)) != NULL; i++) {
        for (size_t k = 0; k < group->count; k++) {
            const struct command *command = &group->command[k];
            CHECK(command_find(command->name) == command);
            CHECK(command->help[0] != '\0');
            CHECK(command->least <= command->most);
            CHECK(command->most < WORDS_MAX);
        }
    }
}
