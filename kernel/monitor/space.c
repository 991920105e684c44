/* SPDX-License-Identifier: MIT */
/* space: spaces there are, and one to look at. */
/*
 * User mode does not exist yet, so nothing but tests has a space. This one is
 * for whoever wants to see what tables of the lower half say: it has an entry
 * of each kind, and the monitor goes on with it loaded.
 */
#include <mm/frame.h>
#include <mm/pt.h>
#include "kernel/console/console.h"
#include "kernel/lib/string.h"
#include "kernel/monitor/command.h"

/* What is promised, in this order, each at a 2 MiB boundary. */
#define DEMO_START GiB
#define DEMO_STEP  (2 * MiB)

static const struct {
    const char *what;
    uint64_t bytes;
    enum pt_promise promise;
    unsigned flags;
    uint64_t payload;
    unsigned touched; /* pages, from the first on */
} part[] = {
    {"one large page", 2 * MiB, PT_ZERO, PT_WRITE, 0, 1},
    {"three pages of 16", 64 * KiB, PT_ZERO, PT_WRITE, 0, 3},
    {"pages 7 to 262 of an object", MiB, PT_OBJECT, PT_EXEC | PT_USER, 7, 0},
    {"guard that may move", PAGE_BYTES, PT_GUARD_GROW, PT_USER, 0, 0},
    {"promised to user mode", GiB, PT_ZERO, PT_WRITE | PT_USER, 0, 0},
};
#define PARTS (sizeof(part) / sizeof(part[0]))

static struct pt demo;
static bool has_demo;

static enum mm_status promise_part(size_t i)
{
    vaddr_t start = DEMO_START + i * DEMO_STEP;
    struct tlb_batch batch;
    struct pt_cursor cursor;
    enum mm_status status =
        pt_open(&demo, start, start + part[i].bytes, &batch, &cursor);

    if (status != MM_OK) {
        return status;
    }
    status = pt_promise(&cursor, start, part[i].bytes, part[i].promise,
                        pt_attr(part[i].flags), part[i].payload);
    pt_close(&cursor);
    tlb_commit(&batch);
    return status;
}

/* What ring 0 may touch is its own: SMAP. */
static void touch_part(size_t i)
{
    for (unsigned page = 0; page < part[i].touched; page++) {
        *(volatile uint8_t *)(DEMO_START + i * DEMO_STEP + page * PAGE_BYTES) =
            (uint8_t)page;
    }
}

static void drop_demo(void)
{
    if (has_demo) {
        tlb_switch(&pt_kernel.tlb);
        pt_fini(&demo);
        has_demo = false;
    }
}

static bool make_demo(const struct arguments *arguments)
{
    drop_demo();
    enum mm_status status = pt_init(&demo);
    has_demo = status == MM_OK;
    for (size_t i = 0; status == MM_OK && i < PARTS; i++) {
        status = promise_part(i);
    }
    if (status != MM_OK) {
        drop_demo();
        return complain(arguments, "no space: %s", mm_status_name(status));
    }
    tlb_switch(&demo.tlb);
    for (size_t i = 0; i < PARTS; i++) {
        touch_part(i);
        printk("0x%lx  %s\n", DEMO_START + i * DEMO_STEP, part[i].what);
    }
    printk("it is loaded here: pt -u, explain ADDR, ptdiff user, audit\n");
    return true;
}

static void list_spaces(void)
{
    unsigned count = 0;

    for (struct pt *pt = pt_next(NULL); pt != NULL; pt = pt_next(pt)) {
        printk("root 0x%lx, %lu tables%s\n", pfn_to_phys(pt->root).v,
               atomic_load_explicit(&pt->tables, memory_order_relaxed),
               tlb_is_loaded(&pt->tlb) ? ", loaded here" : "");
        count++;
    }
    printk("%u space%s beside the kernel's\n", count, count == 1 ? "" : "s");
}

static bool run_space(const struct arguments *arguments)
{
    const char *word = arguments->count > 0 ? arguments->word[0] : "";

    if (word[0] == '\0') {
        list_spaces();
        return true;
    }
    if (!must_be_first(arguments)) {
        return false; /* others load the kernel's when they are idle */
    }
    if (strcmp(word, "demo") == 0) {
        return make_demo(arguments);
    }
    if (strcmp(word, "drop") == 0) {
        drop_demo();
        return true;
    }
    return complain(arguments, "demo, drop or nothing, not %s", word);
}

static const struct command commands[] = {
    {"space", "", "[demo|drop]",
     "the spaces there are; one with an entry of each kind, to look at",
     "demo drop", 0, 1, false, run_space},
};

const struct command_group command_space = COMMAND_GROUP("Spaces", commands);
