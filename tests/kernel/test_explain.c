/* SPDX-License-Identifier: MIT */
/* explain: the words that reports and the monitor find for things. */
#include "kernel/explain.h"

#include <mm/frame.h>
#include <mm/kmap.h>
#include <mm/pt.h>
#include "kernel/cpu.h"
#include "kernel/image.h"
#include "kernel/lib/string.h"
#include "kernel/place.h"
#include "tests/shared/test.h"
#include "tests/shared/text.h"

/*
 * At risk: a report that names the wrong block or the wrong right sends its
 * reader astray. Provoked by asking about addresses and entries whose answer
 * is known, at the edges of each area.
 */

static bool lies_in(vaddr_t address, const char *kind, const char *name)
{
    struct place place;

    place_find(address, &place);
    return strcmp(place.kind, kind) == 0 && strcmp(place.name, name) == 0 &&
           address >= place.start && address <= place.end;
}

TEST(explain, each_area_has_its_edges)
{
    vaddr_t half = (vaddr_t)1 << (pte_shift(pt_features.levels) - 1);

    CHECK(lies_in(0, "page 0, never mapped", ""));
    CHECK(lies_in(PAGE_BYTES - 1, "page 0, never mapped", ""));
    CHECK(lies_in(PAGE_BYTES, "user half", ""));
    CHECK(lies_in(half - 1, "user half", ""));
    CHECK(lies_in(half, "between the halves: not canonical", ""));
    CHECK(lies_in(-half - 1, "between the halves: not canonical", ""));
    CHECK(lies_in(
        -half, pt_features.levels == 5 ? "no part of the layout" : "direct map",
        ""));
    CHECK(lies_in(LAYOUT_DIRECT, "direct map", ""));
    CHECK(lies_in(LAYOUT_KMAP - 1, "direct map", ""));
    CHECK(lies_in(LAYOUT_KMAP_END - 1, "kmap area, no block", ""));
    CHECK(lies_in(LAYOUT_RECORDS, "frame records", ""));
    CHECK(lies_in((vaddr_t)text_start, "kernel image", ".text"));
    CHECK(lies_in((vaddr_t)text_end - 1, "kernel image", ".text"));
    CHECK(lies_in((vaddr_t)data_start, "kernel image", ".data"));
    CHECK(lies_in((vaddr_t)symbols_end - 1, "kernel image", ".symbols"));
    CHECK(lies_in(LAYOUT_SCREEN, "screen", ""));
    CHECK(lies_in(UINT64_MAX, "end of memory, never mapped", ""));
}

TEST(explain, stacks_and_their_guards_have_names)
{
    vaddr_t stack = image_stack_start(STACK_NMI);

    CHECK(lies_in(cpu_read_rsp(), "stack", "kernel stack"));
    CHECK(lies_in(stack, "stack", "NMI stack"));
    CHECK(lies_in(stack - 1, "guard of stack", "NMI stack"));
    CHECK(lies_in(stack + STACK_BYTES - 1, "stack", "NMI stack"));
}

TEST(explain, blocks_and_their_guards_have_names)
{
    char *block = kmap_alloc(2 * PAGE_BYTES, KMAP_LAZY, "explain test");
    vaddr_t start = (vaddr_t)block;

    CHECK(block != NULL);
    bool inside =
        lies_in(start, "kmap block", "explain test") &&
        lies_in(start + 2 * PAGE_BYTES - 1, "kmap block", "explain test");
    bool around =
        lies_in(start - 1, "guard of kmap block", "explain test") &&
        lies_in(start + 2 * PAGE_BYTES, "guard of kmap block", "explain test");
    kmap_free(block);
    CHECK(inside);
    CHECK(around);
    CHECK(lies_in(start, "kmap area, no block", ""));
}

static bool reads(uint64_t bits, unsigned level, const char *text)
{
    return strcmp(explain_entry((pte_t){bits}, level).text, text) == 0;
}

TEST(explain, entries_read_as_they_are)
{
    CHECK(reads(0, 0, "absent"));
    CHECK(test_begins_with(explain_entry((pte_t){PTE_RW}, 0).text,
                           "damaged: bits that no state has"));
    CHECK(reads(PTE_P | PTE_RW, 1, "table rwx"));
    CHECK(reads(PTE_P | PTE_US | PTE_A, 3, "table r-x user accessed"));
    CHECK(reads(PTE_P | PTE_PS | PTE_RW | PTE_G, 1, "2 MiB rwx WB global"));
    CHECK(reads(PTE_P | PTE_PCD | PTE_PWT | PTE_D, 0, "4 KiB r-x UC dirty"));
    CHECK(reads(pte_make_promise(PT_GUARD, pt_attr(0), 0).v, 0,
                "guard: nothing, ever"));
    CHECK(reads(pte_make_promise(PT_ZERO, pt_attr(PT_WRITE), 0).v, 2,
                "promise of a zeroed frame rw-"));
    CHECK(reads(pte_make_promise(PT_OBJECT, pt_attr(PT_USER), 0x1f).v, 0,
                "promise of a page of an object r-- user page 0x1f"));
    CHECK(reads(pte_make_swapped(7, pt_attr(PT_USER | PT_COW)).v, 0,
                "swapped out r-- user copy-on-write slot 0x7"));
    CHECK(reads(pte_make_parked(pfn_of(5), pt_attr(PT_OWNED | PT_NONE)).v, 0,
                "parked frame: access is off --- accessed dirty owned frame "
                "0x5"));
    struct pt_attr tagged = {PT_OWNED | PT_EXEC, PT_WB, 0x85};
    CHECK(reads(pte_make_leaf(0, pfn_of(5), tagged).v, 0,
                "4 KiB r-x WB accessed dirty owned tag 0x85"));
    CHECK(reads(pte_make_promise(PT_GUARD, tagged, 0).v, 0,
                "guard: nothing, ever tag 0x85"));
    CHECK(reads(PTE_P | PTE_PS | UINT64_C(1) << 13, 1,
                "2 MiB r-x WB RESERVED BITS"));
}

/* Where every PC has its local APIC. */
#define LOCAL_APIC UINT64_C(0xfee00000)

/* In RAM all agree; what is on the bus is never cached, whoever says so. */
TEST(explain, memory_is_typed_by_page_and_address)
{
    struct walk walk;

    walk_address(pt_kernel.root, (vaddr_t)text_start, &walk);
    CHECK(test_begins_with(explain_memory_type(&walk).text, "WB: "));
    char *window = kmap_mmio(paddr_of(LOCAL_APIC), PAGE_BYTES, PT_UC, "test");
    CHECK(window != NULL);
    walk_address(pt_kernel.root, (vaddr_t)window, &walk);
    struct explain_text text = explain_memory_type(&walk);
    kmap_free(window);
    CHECK(test_begins_with(text.text, "UC: "));
}

static bool is_written(uint64_t bytes, const char *text)
{
    return strcmp(explain_bytes(bytes).text, text) == 0;
}

TEST(explain, sizes_are_short)
{
    CHECK(is_written(0, "0 bytes"));
    CHECK(is_written(1023, "1023 bytes"));
    CHECK(is_written(KiB, "1 KiB"));
    CHECK(is_written(3 * KiB / 2, "1.5 KiB"));
    CHECK(is_written(MiB - 1, "1023 KiB"));
    CHECK(is_written(900 * GiB, "900 GiB"));
    CHECK(is_written(UINT64_MAX, "16777215 TiB"));
}

TEST(explain, frames_say_whose_they_are)
{
    pfn_t frame = frame_alloc(1, FRAME_KERNEL, FRAME_ANY);

    CHECK(!pfn_is_none(frame));
    struct explain_text first = explain_frame(frame);
    struct explain_text second = explain_frame(pfn_add(frame, 1));
    frame_free(frame, 1);
    struct explain_text freed = explain_frame(frame);
    CHECK(strcmp(first.text, "kernel, order 1, 1 holder") == 0);
    CHECK(strcmp(second.text, "inside a larger block") == 0);
    CHECK(strncmp(freed.text, "free", 4) == 0);
}

/* The code of each verdict, bit for bit. [SDM-3A 4.7 "Page-Fault Exceptions"]
 */
TEST(explain, error_codes_are_put_together)
{
    struct walk_rules rules = {true, true, false, false};
    struct walk_rules old = {true, false, false, false};

    CHECK_EQUAL(explain_error_code(WALK_NOT_PRESENT, WALK_WRITE, &rules),
                FAULT_W);
    CHECK_EQUAL(explain_error_code(WALK_READ_ONLY, WALK_WRITE, &rules),
                FAULT_P | FAULT_W);
    CHECK_EQUAL(
        explain_error_code(WALK_NO_EXECUTE, WALK_EXEC | WALK_USER, &rules),
        FAULT_P | FAULT_I | FAULT_U);
    CHECK_EQUAL(explain_error_code(WALK_NOT_PRESENT, WALK_EXEC, &old), 0);
    CHECK_EQUAL(explain_error_code(WALK_RESERVED_BIT, WALK_READ, &rules),
                FAULT_P | FAULT_RSVD);
}
