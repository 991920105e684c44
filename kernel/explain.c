/* SPDX-License-Identifier: MIT */
/* explain: words for addresses, entries and walks. */
/*
 * Idea: fault reports, the monitor and the tour say the same things; here is
 * the one place that finds the words. Nothing here changes anything, and
 * nothing here faults: tables are read by probes first.
 */
#include "kernel/explain.h"

#include <mm/frame.h>
#include <mm/mm.h>
#include "base/bits.h"
#include "kernel/console/console.h"
#include "kernel/cpu.h"
#include "kernel/fixup.h"
#include "kernel/lib/format.h"
#include "kernel/lib/string.h"
#include "kernel/memory.h"
#include "kernel/trap.h"

/* --- frames --------------------------------------------------------------- */

static void describe_record(pfn_t pfn, struct explain_text *out)
{
    const struct frame_record *record = record_of(pfn);
    uint32_t refs = atomic_load_explicit(&record->refs, memory_order_relaxed);

    if (record->order == RECORD_TAIL || record->type == FRAME_NONE) {
        ksnprintf(out->text, sizeof(out->text), "inside a larger block");
        return;
    }
    ksnprintf(out->text, sizeof(out->text), "%s, order %u, %u holder%s",
              frame_type_name((enum frame_type)record->type), record->order,
              refs, refs == 1 ? "" : "s");
}

static void describe_range(pfn_t pfn, struct explain_text *out)
{
    const struct memmap_range *range =
        memmap_find(memory_map(), pfn_to_phys(pfn));

    if (range == NULL) {
        ksnprintf(out->text, sizeof(out->text),
                  "no RAM: nothing in the memory map");
        return;
    }
    ksnprintf(out->text, sizeof(out->text), "%s%s%s: %s",
              memmap_type_name(range->type), range->owner[0] ? ", " : "",
              range->owner, range->reason);
}

struct explain_text explain_frame(pfn_t pfn)
{
    struct explain_text out;

    if (mm_stage() < MM_STAGE_FRAMES) {
        describe_range(pfn, &out);
        return out;
    }
    switch (frame_state(pfn)) {
    case FRAME_STATE_FREE:
        ksnprintf(out.text, sizeof(out.text), "free");
        return out;
    case FRAME_STATE_CACHED:
        ksnprintf(out.text, sizeof(out.text), "free, in a CPU's array");
        return out;
    case FRAME_STATE_METADATA:
        ksnprintf(out.text, sizeof(out.text), "frame records");
        return out;
    case FRAME_STATE_ALLOCATED:
        describe_record(pfn, &out);
        return out;
    case FRAME_STATE_OFFLINE:
    case FRAME_STATE_RESERVED:
    case FRAME_STATE_NO_RAM:
        break;
    }
    describe_range(pfn, &out);
    return out;
}

/* --- entries and walks ---------------------------------------------------- */

const char *explain_memory(unsigned memory)
{
    static const char *const name[8] = {"WB", "WC", "UC-", "UC",
                                        "WB", "WP", "UC-", "WT"};

    return name[memory & 7];
}

const char *explain_leaf_bytes(unsigned level)
{
    static const char *const name[] = {"4 KiB", "2 MiB", "1 GiB", "512 GiB",
                                       "256 TiB"};

    return name[level];
}

struct explain_text explain_bytes(uint64_t bytes)
{
    static const struct {
        uint64_t bytes;
        const char *name;
    } unit[] = {{TiB, "TiB"}, {GiB, "GiB"}, {MiB, "MiB"}, {KiB, "KiB"}};
    struct explain_text out;

    for (size_t i = 0; i < sizeof(unit) / sizeof(unit[0]); i++) {
        uint64_t whole = bytes / unit[i].bytes;
        uint64_t tenth = (bytes % unit[i].bytes) * 10 / unit[i].bytes;

        if (whole > 0 && (tenth == 0 || whole >= 100)) {
            ksnprintf(out.text, sizeof(out.text), "%lu %s", whole,
                      unit[i].name);
            return out;
        }
        if (whole > 0) {
            ksnprintf(out.text, sizeof(out.text), "%lu.%lu %s", whole, tenth,
                      unit[i].name);
            return out;
        }
    }
    ksnprintf(out.text, sizeof(out.text), "%lu bytes", bytes);
    return out;
}

static void append(struct explain_text *text, const char *more)
{
    size_t length = strlen(text->text);

    ksnprintf(text->text + length, sizeof(text->text) - length, "%s%s",
              length > 0 ? " " : "", more);
}

static const char *promise_text(enum pt_promise promise)
{
    switch (promise) {
    case PT_ZERO:
        return "promise of a zeroed frame";
    case PT_OBJECT:
        return "promise of a page of an object";
    case PT_GUARD:
        return "guard: nothing, ever";
    case PT_GUARD_GROW:
        return "guard that may move";
    }
    return "unknown promise";
}

static void append_state(struct explain_text *text, pte_t entry, unsigned level)
{
    switch (pte_state(entry, level)) {
    case PTE_ABSENT:
        append(text, "absent");
        return;
    case PTE_PROMISE:
        append(text, promise_text(pte_promise(entry)));
        return;
    case PTE_PARKED:
        append(text, "parked frame: access is off");
        return;
    case PTE_SWAPPED:
        append(text, "swapped out");
        return;
    case PTE_DAMAGED:
        append(text, "damaged: bits that no state has");
        return;
    case PTE_TABLE:
        append(text, "table");
        return;
    case PTE_PRESENT:
        append(text, explain_leaf_bytes(level));
        return;
    }
}

/* What the entry alone allows; the levels above may allow less. */
static void append_rights(struct explain_text *text, pte_t entry)
{
    const char rights[] = {'r', (entry.v & PTE_RW) != 0 ? 'w' : '-',
                           (entry.v & PTE_XD) != 0 ? '-' : 'x', '\0'};

    append(text, rights);
}

struct explain_text explain_entry(pte_t entry, unsigned level)
{
    static const struct {
        uint64_t bit;
        const char *name;
        bool is_leaf_only; /* the CPU ignores it in a table's entry */
    } bits[] = {
        {PTE_US, "user", false},    {PTE_G, "global", true},
        {PTE_A, "accessed", false}, {PTE_D, "dirty", true},
        {PTE_OWN, "owned", true},   {PTE_COW, "copy-on-write", true},
    };
    struct explain_text text = {""};
    bool is_leaf = pte_is_leaf(entry, level);

    append_state(&text, entry, level);
    if (!pte_is_present(entry)) {
        return text;
    }
    append_rights(&text, entry);
    if (is_leaf) {
        append(&text, explain_memory(pte_attr(entry, level).memory));
    }
    for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
        if ((entry.v & bits[i].bit) != 0 &&
            (is_leaf || !bits[i].is_leaf_only)) {
            append(&text, bits[i].name);
        }
    }
    if (walk_reserved_bits(entry, level) != 0) {
        append(&text, "RESERVED BITS");
    }
    return text;
}

/* Can each entry on the way to @address be read? */
static bool is_readable(pfn_t root, vaddr_t address)
{
    paddr_t table = pfn_to_phys(root);
    struct probe probe;

    for (unsigned level = pt_features.levels; level-- > 0;) {
        const pte_t *entries = phys_to_virt(table);

        if (!probe_read64(&entries[pte_index(address, level)], &probe)) {
            return false;
        }
        pte_t entry = {probe.value};
        if (!pte_is_table(entry, level) ||
            walk_reserved_bits(entry, level) != 0) {
            return true;
        }
        table = pfn_to_phys(pte_pfn(entry, level));
    }
    return true;
}

bool explain_walk(vaddr_t address, struct walk *out)
{
    pfn_t root = phys_to_pfn(paddr_of(cpu_read_cr3()));

    if (pt_features.levels == 0 || !is_readable(root, address)) {
        return false;
    }
    walk_address(root, address, out);
    return true;
}

void explain_print_walk(const struct walk *walk, unsigned blame,
                        const char *title)
{
    for (unsigned i = 0; i < walk->count; i++) {
        const struct walk_step *step = &walk->step[i];

        printk("%*s%4s[%3u] at 0x%010lx: 0x%016lx  %s%s\n", (int)strlen(title),
               i == 0 ? title : "", walk_level_name(step->level), step->index,
               step->table.v + step->index * sizeof(pte_t), step->entry.v,
               explain_entry(step->entry, step->level).text,
               i == blame ? "  <- here" : "");
    }
}

/* --- judgement ------------------------------------------------------------ */

struct walk_rules explain_rules(void)
{
    return trap_rules(0);
}

uint32_t explain_error_code(enum walk_verdict verdict, unsigned access,
                            const struct walk_rules *rules)
{
    uint32_t code = access & (FAULT_W | FAULT_U);

    /* Fetches are told apart only where it matters. [SDM-3A 4.7 "Page-Fault
     * Exceptions"] */
    if ((access & WALK_EXEC) != 0 && (rules->nx || rules->smep)) {
        code |= FAULT_I;
    }
    if (verdict == WALK_RESERVED_BIT) {
        code |= FAULT_RSVD;
    }
    return code | (verdict != WALK_NOT_PRESENT ? (uint32_t)FAULT_P : 0);
}

enum fault_result explain_fault(const struct walk *walk, uint32_t code,
                                const struct walk_rules *rules,
                                unsigned *out_blame)
{
    struct fault fault = {
        .address = walk->address, .code = code, .rules = *rules};

    (void)walk_judge(walk, code, rules, out_blame);
    return fault_judge(&fault, walk);
}
