/* SPDX-License-Identifier: MIT */
/* place: whose an address is, by the layout and by the blocks in it. */
#include "kernel/place.h"

#include <mm/kmap.h>
#include <mm/mm.h>
#include "base/bits.h"
#include "kernel/cpu.h"
#include "kernel/image.h"
#include "kernel/lib/format.h"

struct area {
    const char *kind;
    const char *name;
    vaddr_t start;
    vaddr_t end; /* last byte */
};

/* The parts of the layout, sorted; what lies between them is nobody's. */
static const struct area areas[] = {
    {"page 0, never mapped", "", 0, PAGE_BYTES - 1},
    {"user half", "", PAGE_BYTES, LAYOUT_DIRECT - 1}, /* and what follows */
    {"direct map", "", LAYOUT_DIRECT, LAYOUT_DIRECT + LAYOUT_DIRECT_BYTES - 1},
    {"kmap area", "", LAYOUT_KMAP, LAYOUT_KMAP_END - 1},
    {"frame records", "", LAYOUT_RECORDS,
     LAYOUT_RECORDS + LAYOUT_DIRECT_BYTES / PAGE_BYTES * 16 - 1},
    {"kernel image", "", LAYOUT_IMAGE, LAYOUT_SCREEN - 1},
    {"screen", "", LAYOUT_SCREEN, LAYOUT_SCREEN + LAYOUT_SCREEN_BYTES - 1},
    {"end of memory, never mapped", "", LAYOUT_SCREEN + LAYOUT_SCREEN_BYTES,
     UINT64_MAX},
};

static bool is_inside(vaddr_t address, const struct area *area)
{
    return address >= area->start && address <= area->end;
}

static void set_place(struct place *out, const struct area *area)
{
    *out =
        (struct place){area->kind, area->name, area->start, area->end, false};
}

/*
 * How far the halves reach depends on the levels of tables: with 5 the upper
 * one begins below the layout.
 */
static void place_below_layout(vaddr_t address, struct place *out)
{
    vaddr_t half = (vaddr_t)1 << (pte_shift(cpu_levels()) - 1);
    const struct area areas_below[] = {
        {"user half", "", PAGE_BYTES, half - 1},
        {"between the halves: not canonical", "", half, -half - 1},
        {"no part of the layout", "", -half, LAYOUT_DIRECT - 1},
    };

    for (size_t i = 0; i < sizeof(areas_below) / sizeof(areas_below[0]); i++) {
        if (is_inside(address, &areas_below[i])) {
            set_place(out, &areas_below[i]);
        }
    }
}

static void place_in_stacks(vaddr_t address, struct place *out)
{
    uint64_t stride = PAGE_BYTES + STACK_BYTES;
    uint64_t index = (address - (vaddr_t)stacks_start) / stride;
    vaddr_t guard = (vaddr_t)stacks_start + index * stride;

    if (index >= STACK_COUNT) {
        return;
    }
    out->name = image_stack_name((enum image_stack)index);
    out->is_guard = image_is_stack_guard(address);
    out->kind = out->is_guard ? "guard of stack" : "stack";
    out->start = out->is_guard ? guard : guard + PAGE_BYTES;
    out->end = out->start + (out->is_guard ? PAGE_BYTES : STACK_BYTES) - 1;
}

static void place_in_image(vaddr_t address, struct place *out)
{
    const struct area segment[] = {
        {"kernel image", ".text", (vaddr_t)text_start, (vaddr_t)text_end - 1},
        {"kernel image", ".rodata", (vaddr_t)rodata_start,
         (vaddr_t)rodata_end - 1},
        {"kernel image", ".data", (vaddr_t)data_start, (vaddr_t)data_end - 1},
        {"kernel image", ".stacks", (vaddr_t)stacks_start,
         (vaddr_t)stacks_end - 1},
        {"kernel image", ".symbols", (vaddr_t)symbols_start,
         (vaddr_t)symbols_end - 1},
    };

    for (size_t i = 0; i < sizeof(segment) / sizeof(segment[0]); i++) {
        if (is_inside(address, &segment[i])) {
            set_place(out, &segment[i]);
        }
    }
    if (address >= (vaddr_t)stacks_start && address < (vaddr_t)stacks_end) {
        place_in_stacks(address, out);
    }
}

static void place_in_kmap(vaddr_t address, struct place *out)
{
    struct kmap_info info;

    if (mm_stage() < MM_STAGE_MAPS || !kmap_find(address, &info)) {
        out->kind = "kmap area, no block";
        return;
    }
    out->name = info.name;
    out->is_guard = info.is_guard;
    out->kind = info.is_guard ? "guard of kmap block" : "kmap block";
    out->start = info.is_guard ? align_down(address, PAGE_BYTES) : info.start;
    out->end = out->start + (info.is_guard ? PAGE_BYTES : info.bytes) - 1;
}

void place_find(vaddr_t address, struct place *out)
{
    static const struct area nobody = {"no part of the layout", "", 0,
                                       UINT64_MAX};

    set_place(out, &nobody);
    for (size_t i = 0; i < sizeof(areas) / sizeof(areas[0]); i++) {
        if (is_inside(address, &areas[i])) {
            set_place(out, &areas[i]);
        }
    }
    if (out->start == LAYOUT_IMAGE) {
        place_in_image(address, out);
    } else if (out->start == LAYOUT_KMAP) {
        place_in_kmap(address, out);
    } else if (out->start == PAGE_BYTES) {
        place_below_layout(address, out);
    }
}

struct place_text place_text(vaddr_t address)
{
    struct place_text text;
    struct place place;

    place_find(address, &place);
    bool has_name = place.name[0] != '\0';
    ksnprintf(text.text, sizeof(text.text),
              "%s%s%s%s (0x%lx-0x%lx), 0x%lx bytes in", place.kind,
              has_name ? " \"" : "", place.name, has_name ? "\"" : "",
              place.start, place.end, address - place.start);
    return text;
}
