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
#include "kernel/mtrr.h"
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
    return memory_type_name(memory_type_of_pat(PTE_PAT_LAYOUT, memory));
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

static void append_if(struct explain_text *text, bool is_so, const char *more)
{
    if (is_so) {
        append(text, more);
    }
}

/* What the owner has written into the entry. */
static void append_tag(struct explain_text *text, struct pt_attr attr)
{
    size_t length = strlen(text->text);

    if (attr.tag != 0) {
        ksnprintf(text->text + length, sizeof(text->text) - length, " tag 0x%x",
                  attr.tag);
    }
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
static void append_rights(struct explain_text *text, pte_t entry,
                          unsigned level)
{
    unsigned flags = pte_attr(entry, level).flags;
    const char rights[] = {(flags & PT_NONE) != 0 ? '-' : 'r',
                           (flags & PT_WRITE) != 0 ? 'w' : '-',
                           (flags & PT_EXEC) != 0 ? 'x' : '-', '\0'};

    append(text, rights);
}

/* The rights and the number of what is not there yet, or not any more. */
static void append_absent(struct explain_text *text, pte_t entry,
                          unsigned level)
{
    enum pte_state state = pte_state(entry, level);
    struct pt_attr attr = pte_attr(entry, level);
    bool has_number = state == PTE_SWAPPED || state == PTE_PARKED ||
                      (state == PTE_PROMISE && pte_promise(entry) == PT_OBJECT);
    bool has_rights =
        has_number || (state == PTE_PROMISE && pte_promise(entry) == PT_ZERO);
    size_t length;

    if (state == PTE_DAMAGED) {
        return;
    }
    if (!has_rights) {
        append_tag(text, attr);
        return;
    }
    append_rights(text, entry, level);
    append_if(text, (attr.flags & PT_USER) != 0, "user");
    append_if(text, (pte_accessed_dirty(entry) & PTE_A) != 0, "accessed");
    append_if(text, (pte_accessed_dirty(entry) & PTE_D) != 0, "dirty");
    append_if(text, (attr.flags & PT_OWNED) != 0, "owned");
    append_if(text, (attr.flags & PT_COW) != 0, "copy-on-write");
    if (has_number) {
        length = strlen(text->text);
        ksnprintf(text->text + length, sizeof(text->text) - length, " %s 0x%lx",
                  state == PTE_PARKED    ? "frame"
                  : state == PTE_SWAPPED ? "slot"
                                         : "page",
                  pte_payload(entry));
    }
    append_tag(text, attr);
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
        append_absent(&text, entry, level);
        return text;
    }
    append_rights(&text, entry, level);
    append_if(&text, is_leaf, explain_memory(pte_attr(entry, level).memory));
    for (size_t i = 0; i < sizeof(bits) / sizeof(bits[0]); i++) {
        append_if(&text,
                  (entry.v & bits[i].bit) != 0 &&
                      (is_leaf || !bits[i].is_leaf_only),
                  bits[i].name);
    }
    if (is_leaf) {
        append_tag(&text, pte_attr(entry, level));
    }
    append_if(&text, walk_reserved_bits(entry, level) != 0, "RESERVED BITS");
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

/* --- what all levels make together ---------------------------------------- */

static uint64_t read_msr(uint32_t msr)
{
    return cpu_rdmsr(msr);
}

/* SYSCFG is of no other vendor; from this family on it types memory. */
#define FAMILY_OF_SYSCFG 0xf

static void read_mtrr(struct mtrr *out)
{
    bool is_amd = strcmp(cpu_features.vendor, "AuthenticAMD") == 0 ||
                  strcmp(cpu_features.vendor, "HygonGenuine") == 0;

    mtrr_read(read_msr, is_amd && cpu_features.family >= FAMILY_OF_SYSCFG, out);
}

struct explain_text explain_memory_type(const struct walk *walk)
{
    const struct walk_step *leaf = &walk->step[walk->count - 1];
    uint64_t bytes = pte_span(leaf->level);
    uint64_t start = align_down(walk->physical.v, PAGE_BYTES);
    enum memory_type page = memory_type_of_pat(
        cpu_features.has_pat ? cpu_rdmsr(MSR_PAT) : PTE_PAT_LAYOUT,
        pte_attr(leaf->entry, leaf->level).memory);
    struct explain_text out;
    struct mtrr mtrr;

    if (!cpu_features.has_mtrr) {
        ksnprintf(out.text, sizeof(out.text), "%s: this CPU has no MTRRs",
                  memory_type_name(page));
        return out;
    }
    read_mtrr(&mtrr);
    enum memory_type here = mtrr_type(&mtrr, paddr_of(start), PAGE_BYTES);
    enum memory_type all =
        mtrr_type(&mtrr, paddr_of(align_down(start, bytes)), bytes);
    ksnprintf(out.text, sizeof(out.text), "%s: page %s, MTRRs %s%s",
              memory_type_name(memory_type_combine(here, page)),
              memory_type_name(page), memory_type_name(here),
              all == MEMORY_MIXED ? ", which differ within the page" : "");
    return out;
}

void explain_print_effect(const struct walk *walk)
{
    unsigned level = walk->step[walk->count - 1].level;

    printk("  all levels together: r%c%c %s, %s page\n",
           walk->is_writable ? 'w' : '-', walk->is_executable ? 'x' : '-',
           walk->is_user ? "user" : "supervisor", explain_leaf_bytes(level));
    printk("  memory type %s\n", explain_memory_type(walk).text);
    printk("  0x%lx -> physical 0x%lx (frame 0x%lx: %s)\n", walk->address,
           walk->physical.v, phys_to_pfn(walk->physical).v,
           explain_frame(phys_to_pfn(walk->physical)).text);
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
