/* SPDX-License-Identifier: MIT */
/* fuzz frame: any calls of the frame allocator, beside a naive bitmap. */
#include "tests/fuzz/fuzz.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/mman.h>

#include <mm/frame.h>
#include <mm/port.h>
#include <mm/record.h>
#include "tests/fuzz/frame_model.h"
#include "tests/fuzz/frame_short.h"
#include "tests/host/sim.h"

/*
 * Input: which machine, and whether free blocks are counted at the end, which
 * takes most of the time; then calls, a byte for what and some for with what.
 * All zones have RAM, none much, and no end of it is even.
 *
 * The reference keeps a byte a frame: whose it is. What is handed out must have
 * been free there; what is refused must not be there; and the free blocks of
 * each order are as many in both. One thread plays all CPUs.
 */
#define OPTION_COUNT 0x80

#define MAX_CALLS 400
#define MAX_BULK  80
#define CPUS      3

static struct memmap map;
static char *records;
static uint8_t is_backed[(FIRST_HIGH + HIGH_FRAMES) * 16 / PAGE_BYTES + 1];

/* --- the machine ---------------------------------------------------------- */

static const struct memmap_claim claims[] = {
    {0, END_LOW *PAGE_BYTES - 0x3000, MEMMAP_USABLE, "RAM", ""},
    {0, 0x7000, MEMMAP_RESERVED, "firmware", ""},
    {0x9f000, 0x61000, MEMMAP_RESERVED, "firmware", ""},
    {0x1234000, 0x5000, MEMMAP_KERNEL, "image", ""},
    {0x15ff000, 0x2000, MEMMAP_RECLAIM, "loader", ""},
    {4 * GiB + 0x11000, 9 * MiB, MEMMAP_USABLE, "RAM", ""},
    {4 * GiB + 0x800000, 0x1000, MEMMAP_BAD, "bad", ""},
};

static bool claim_at(const void *context, size_t index,
                     struct memmap_claim *out)
{
    const uint64_t *machine = context;

    if (index >= sizeof(claims) / sizeof(claims[0])) {
        return false;
    }
    *out = claims[index];
    /* Machines without RAM above 4 GiB, or hardly any below. */
    if ((*machine == 1 && out->start >= 4 * GiB) ||
        (*machine == 2 && index == 0)) {
        out->length /= 8;
    }
    return true;
}

/* As the kernel does it: a metadata frame a page of the array. */
static enum mm_status back_records(vaddr_t start, vaddr_t end)
{
    for (vaddr_t page = start; page < end; page += PAGE_BYTES) {
        uint8_t *backed = &is_backed[(page - (vaddr_t)records) / PAGE_BYTES];
        if (*backed != 0) {
            continue;
        }
        pfn_t pfn = frame_alloc_metadata();
        if (pfn_is_none(pfn)) {
            return MM_ENOMEM;
        }
        model_set(pfn.v, 1, USE_FREE, USE_METADATA);
        model.metadata++;
        *backed = 1;
    }
    return MM_OK;
}

static void reset_records(void)
{
    size_t bytes = sizeof(is_backed) * PAGE_BYTES;

    if (records == NULL) {
        records = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        FUZZ_CHECK(records != MAP_FAILED);
    }
    madvise(records, bytes, MADV_DONTNEED);
    memset(is_backed, 0, sizeof(is_backed));
    record_init(records, back_records);
}

static void start_machine(uint64_t machine)
{
    struct memmap_source source = {claim_at, &machine};
    struct memmap_limits limits = {SIM_PHYSICAL_END, 4 * GiB};
    paddr_t storage;

    sim_reset(END_LOW * PAGE_BYTES);
    sim_set_cpu_count(CPUS);
    sim_add_ram(4 * GiB, HIGH_FRAMES * PAGE_BYTES);
    FUZZ_EQUAL(memmap_build(&source, &limits, &map), MM_OK);
    FUZZ_EQUAL(memmap_carve(&map, frame_metadata_bytes(&map), PAGE_BYTES,
                            SIM_PHYSICAL_END, "frame metadata", &storage),
               MM_OK);
    reset_records();
    frame_init(&map, phys_to_virt(storage));
    model_reset();
    for (size_t i = 0; i < map.count; i++) {
        const struct memmap_range *range = &map.range[i];
        uint64_t first = range->start / PAGE_BYTES;
        uint64_t end = range->end / PAGE_BYTES;
        if (range->type == MEMMAP_USABLE) {
            model_set(first, end - first, USE_NONE, USE_FREE);
        } else if (range->type == MEMMAP_RECLAIM) {
            model_set(first, end - first, USE_NONE, USE_KEPT);
        }
    }
}

/* --- the calls ------------------------------------------------------------ */

static void check_zero(pfn_t pfn, unsigned order, unsigned flags)
{
    uint64_t *first = phys_to_virt(pfn_to_phys(pfn));
    uint64_t *last = first + (PAGE_BYTES / 8 << order) - 1;

    if ((flags & FRAME_ZEROED) != 0) {
        FUZZ_CHECK(*first == 0 && *last == 0);
    }
    *first = UINT64_C(0x1111111111111111); /* dirty for the next */
    *last = *first;
}

static enum frame_type take_type(struct fuzz_input *input)
{
    return (enum frame_type)(1 + fuzz_choose(input, FRAME_TYPES - 1));
}

static void call_alloc(struct fuzz_input *input)
{
    unsigned order = fuzz_choose(input, MM_MAX_ORDER + 1);
    enum frame_type type = take_type(input);
    unsigned flags = short_take_flags(input);

    if (model.blocks == MAX_BLOCKS) {
        return;
    }
    pfn_t pfn = frame_alloc(order, type, flags);
    if (pfn_is_none(pfn)) {
        short_check_refusal(order, flags);
        return;
    }
    short_check_calls();
    uint64_t frames = UINT64_C(1) << order;
    FUZZ_EQUAL(pfn.v % frames, 0);
    FUZZ_CHECK(pfn.v + frames <= model_end_of(flags));
    model_set(pfn.v, frames, USE_FREE, USE_TAKEN);
    check_zero(pfn, order, flags);
    model_note(pfn, order, type);
}

static void call_free(struct fuzz_input *input)
{
    if (model.blocks == 0) {
        return;
    }
    size_t index = fuzz_take(input, 2) % model.blocks;
    if (model.block[index].refs > 1) {
        model.block[index].refs--;
        frame_unref(model.block[index].pfn);
        FUZZ_EQUAL(atomic_load(&record_of(model.block[index].pfn)->refs),
                   model.block[index].refs);
        return;
    }
    if (index % 2 == 0) {
        frame_free(model.block[index].pfn, model.block[index].order);
    } else {
        frame_unref(model.block[index].pfn);
    }
    FUZZ_CHECK(frame_state(model.block[index].pfn) != FRAME_STATE_ALLOCATED);
    model_forget(index);
}

static void call_ref(struct fuzz_input *input)
{
    if (model.blocks > 0) {
        size_t index = fuzz_take(input, 2) % model.blocks;
        frame_ref(model.block[index].pfn);
        model.block[index].refs++;
    }
}

static void call_split(struct fuzz_input *input)
{
    if (model.blocks == 0) {
        return;
    }
    size_t index = fuzz_take(input, 2) % model.blocks;
    struct block whole = model.block[index];
    uint64_t frames = UINT64_C(1) << whole.order;
    if (model.blocks + frames > MAX_BLOCKS) {
        return;
    }
    enum mm_status status = frame_split(whole.pfn, whole.order);
    FUZZ_EQUAL(status, whole.refs == 1 ? MM_OK : MM_EBUSY);
    if (status == MM_OK) {
        model.block[index] = model.block[--model.blocks];
        for (uint64_t i = 0; i < frames; i++) {
            model_note(pfn_add(whole.pfn, i), 0, whole.type);
        }
    }
}

/* Does the reference have 2^order single frames of one type and one holder? */
static bool can_join(uint64_t first, unsigned order)
{
    size_t head = model_find(first);

    if (head == model.blocks) {
        return false;
    }

    for (uint64_t i = 0; i < UINT64_C(1) << order; i++) {
        size_t index = model_find(first + i);
        if (index == model.blocks || model.block[index].order != 0 ||
            model.block[index].refs != 1 ||
            model.block[index].type != model.block[head].type) {
            return false;
        }
    }
    return true;
}

static void call_join(struct fuzz_input *input)
{
    if (model.blocks == 0) {
        return;
    }
    size_t index = fuzz_take(input, 2) % model.blocks;
    unsigned order = 1 + fuzz_choose(input, MM_MAX_ORDER);
    uint64_t first = model.block[index].pfn.v & ~((UINT64_C(1) << order) - 1);
    bool is_right = can_join(first, order);
    FUZZ_EQUAL(frame_join(pfn_of(first), order), is_right ? MM_OK : MM_EINVAL);
    if (is_right) {
        enum frame_type type = model.block[model_find(first)].type;
        for (uint64_t i = 0; i < UINT64_C(1) << order; i++) {
            size_t part = model_find(first + i);
            model.block[part] = model.block[--model.blocks];
        }
        model_note(pfn_of(first), order, type);
    }
}

/* Frames in a row that were handed out come as model.blocks, as large as can
 * be. */
static void note_run(uint64_t first, uint64_t frames, enum frame_type type)
{
    model_set(first, frames, USE_FREE, USE_TAKEN);
    while (frames > 0) {
        unsigned order = 0;
        while (order < MM_MAX_ORDER && first % (UINT64_C(2) << order) == 0 &&
               (UINT64_C(2) << order) <= frames) {
            order++;
        }
        model_note(pfn_of(first), order, type);
        first += UINT64_C(1) << order;
        frames -= UINT64_C(1) << order;
    }
}

static void call_run(struct fuzz_input *input)
{
    uint64_t frames = 1 + fuzz_take(input, 2) % 3000;
    uint64_t alignment = UINT64_C(1) << fuzz_choose(input, 13);
    enum frame_type type = take_type(input);
    unsigned flags = short_take_flags(input);

    if (model.blocks + 32 > MAX_BLOCKS) {
        return;
    }
    pfn_t pfn = frame_alloc_run(frames, alignment, type, flags);
    if (!pfn_is_none(pfn)) {
        FUZZ_EQUAL(pfn.v % alignment, 0);
        FUZZ_CHECK(pfn.v + frames <= model_end_of(flags));
        note_run(pfn.v, frames, type);
        check_zero(pfn, 0, flags);
        check_zero(pfn_add(pfn, frames - 1), 0, frames > 1 ? flags : 0);
    }
}

/* Give back a block and those that follow it, as one run. */
static void call_free_run(struct fuzz_input *input)
{
    if (model.blocks == 0) {
        return;
    }
    size_t index = fuzz_take(input, 2) % model.blocks;
    unsigned most = 1 + fuzz_choose(input, 40);
    uint64_t first = model.block[index].pfn.v;
    uint64_t end = first;
    for (unsigned i = 0; i < most && index < model.blocks; i++) {
        if (model.block[index].refs != 1) {
            break;
        }
        end += UINT64_C(1) << model.block[index].order;
        index = model_find(end);
    }
    if (end > first) {
        frame_free_run(pfn_of(first), end - first);
    }
    while (first < end) {
        index = model_find(first);
        first += UINT64_C(1) << model.block[index].order;
        model_forget(index);
    }
}

static void call_bulk(struct fuzz_input *input)
{
    pfn_t pfn[MAX_BULK];
    unsigned count = fuzz_choose(input, MAX_BULK + 1);
    enum frame_type type = take_type(input);
    unsigned flags = short_take_flags(input);

    if (model.blocks + count > MAX_BLOCKS) {
        return;
    }
    unsigned got = frame_alloc_bulk(pfn, count, type, flags);
    FUZZ_CHECK(got <= count);
    for (unsigned i = 0; i < got; i++) {
        FUZZ_CHECK(pfn[i].v < model_end_of(flags));
        model_set(pfn[i].v, 1, USE_FREE, USE_TAKEN);
        check_zero(pfn[i], 0, flags);
        model_note(pfn[i], 0, type);
    }
    if (got < count) {
        short_check_refusal(0, flags);
    }
}

static void call_free_bulk(struct fuzz_input *input)
{
    pfn_t pfn[MAX_BULK];
    unsigned count = 0;
    unsigned most = fuzz_choose(input, MAX_BULK + 1);

    for (size_t i = model.blocks; i-- > 0 && count < most;) {
        if (model.block[i].order == 0 && model.block[i].refs == 1) {
            pfn[count++] = model.block[i].pfn;
            model_forget(i);
        }
    }
    frame_free_bulk(pfn, count);
}

/* [@first, @end) of frames somewhere, most of it known. */
static void take_range(struct fuzz_input *input, uint64_t *first, uint64_t *end)
{
    *first = fuzz_take(input, 2) % (FRAMES + 0x10);
    if (*first >= END_LOW) {
        *first += FIRST_HIGH - END_LOW;
    }
    *end = *first + fuzz_take(input, 2) % 0x600;
}

static void call_add(struct fuzz_input *input)
{
    uint64_t first;
    uint64_t end;

    take_range(input, &first, &end);
    if (model_has(first, end, USE_NONE, USE_NONE)) {
        return; /* some of it may be RAM that is in use: not to be added */
    }
    bool is_right =
        first < end && !model_has(first, end, USE_FREE, USE_METADATA);
    enum mm_status status = frame_add(pfn_of(first), pfn_of(end));
    if (status != MM_ENOMEM) {
        FUZZ_EQUAL(status, is_right ? MM_OK : MM_EINVAL);
    }
    if (status == MM_OK) {
        model_set(first, end - first, USE_KEPT, USE_FREE);
    }
}

static void call_remove(struct fuzz_input *input)
{
    uint64_t first;
    uint64_t end;
    pfn_t busy = PFN_NONE;

    take_range(input, &first, &end);
    bool is_right = first < end && !model_has(first, end, USE_NONE, USE_KEPT);
    bool is_busy = model_has(first, end, USE_TAKEN, USE_METADATA);
    enum mm_status status = frame_remove(pfn_of(first), pfn_of(end), &busy);
    if (status == MM_ENOMEM) {
        return;
    }
    FUZZ_EQUAL(status, !is_right ? MM_EINVAL : is_busy ? MM_EBUSY : MM_OK);
    if (status == MM_EBUSY) {
        FUZZ_CHECK(busy.v >= first && busy.v < end);
        FUZZ_CHECK(!model_has(first, busy.v, USE_TAKEN, USE_METADATA));
    } else if (status == MM_OK) {
        model_set(first, end - first, USE_FREE, USE_KEPT);
        FUZZ_EQUAL(frame_state(pfn_of(first)), FRAME_STATE_OFFLINE);
    }
}

static void call_cpu(struct fuzz_input *input)
{
    sim_set_cpu(fuzz_choose(input, CPUS));
}

static void call_idle(struct fuzz_input *input)
{
    for (unsigned i = fuzz_choose(input, 20); i > 0; i--) {
        if (!frame_zero_idle()) {
            return;
        }
    }
}

/* The next call that allocates finds nothing. */
static void call_inject(struct fuzz_input *input)
{
    frame_inject(1);
    FUZZ_CHECK(pfn_is_none(frame_alloc(fuzz_choose(input, MM_MAX_ORDER + 1),
                                       FRAME_USER, FRAME_ANY)));
    frame_inject(0);
}

/* What no caller may do is reported, and nothing has changed. */
static void call_wrong(struct fuzz_input *input)
{
    uint64_t frame = fuzz_take(input, 2) << fuzz_choose(input, 8);
    unsigned order = fuzz_choose(input, MM_MAX_ORDER + 2);
    bool is_split = fuzz_choose(input, 2) != 0;
    size_t index = model_find(frame);

    if (index < model.blocks && model.block[index].order == order &&
        (model.block[index].refs == 1 || is_split)) {
        return; /* that would be right */
    }
    fuzz_bugs = 0;
    if (is_split) {
        FUZZ_EQUAL(frame_split(pfn_of(frame), order), MM_EINVAL);
    } else {
        frame_free(pfn_of(frame), order);
    }
    FUZZ_EQUAL(fuzz_bugs, 1);
    fuzz_bugs = FUZZ_NO_BUGS;
}

/* --- the target ----------------------------------------------------------- */

static void call_drain(struct fuzz_input *input)
{
    (void)input;
    frame_drain();
    FUZZ_CHECK(frame_check());
}

static void drain_all(void)
{
    for (unsigned cpu = 0; cpu < CPUS; cpu++) {
        sim_set_cpu(cpu);
        frame_drain();
    }
    sim_set_cpu(0);
    FUZZ_CHECK(frame_check());
}

static void free_all(void)
{
    while (model.blocks > 0) {
        struct block *last = &model.block[model.blocks - 1];
        for (; last->refs > 1; last->refs--) {
            frame_unref(last->pfn);
        }
        frame_free(last->pfn, last->order);
        model_forget(model.blocks - 1);
    }
}

/* With nothing kept by any CPU the marks are exact. */
static void call_last(struct fuzz_input *input)
{
    unsigned order = fuzz_choose(input, MM_MAX_ORDER + 1);

    drain_all();
    bool is_refused = short_is_barred(UINT64_C(1) << order, FRAME_ANY);
    pfn_t pfn = frame_alloc(order, FRAME_USER, FRAME_ANY);
    if (pfn_is_none(pfn)) {
        short_check_refusal(order, FRAME_ANY);
        return;
    }
    FUZZ_CHECK(!is_refused);
    model_set(pfn.v, UINT64_C(1) << order, USE_FREE, USE_TAKEN);
    if (model.blocks == MAX_BLOCKS) {
        frame_free(pfn, order);
        model_set(pfn.v, UINT64_C(1) << order, USE_TAKEN, USE_FREE);
        return;
    }
    model_note(pfn, order, FRAME_USER);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const call[])(struct fuzz_input * input) = {
        call_alloc,    call_free,        call_alloc,      call_split,
        call_join,     call_ref,         call_wrong,      call_drain,
        call_run,      call_bulk,        call_free_bulk,  call_add,
        call_free_run, call_cpu,         call_remove,     call_idle,
        call_inject,   short_call_marks, short_call_hook, call_last,
    };
    struct fuzz_input input = {data, size};
    uint64_t options = fuzz_take(&input, 1);

    short_forget();
    start_machine(options % 3);
    for (unsigned i = 0; i < MAX_CALLS && input.left > 0; i++) {
        call[fuzz_choose(&input, sizeof(call) / sizeof(call[0]))](&input);
        model_compare_counts();
    }
    drain_all();
    if ((options & OPTION_COUNT) != 0) {
        model_compare_blocks();
    }
    free_all();
    drain_all();
    model_compare_counts();
    return 0;
}
