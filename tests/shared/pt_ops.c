/* SPDX-License-Identifier: MIT */
/* pt ops: any bytes are operations on page tables, beside a naive model. */
#include "tests/shared/pt_ops_impl.h"

#include <mm/port.h>
#include "tests/shared/text.h"

/* Operations under one cursor, at most. */
#define MAX_HELD 8
/* Operations between two looks at everything: if each looks at all addresses,
 * what is left are holders of frames and counts of tables. */
#define COMPARE_EACH  128
#define COMPARE_EVERY 512

void pt_ops_fail(struct pt_ops *ops, int line, const char *what,
                 uint64_t actual, uint64_t expected)
{
    if (!ops->has_failed) {
        ops->has_failed = true;
        test_format(ops->reason, sizeof(ops->reason),
                    "line %d: %s is 0x%llx, expected 0x%llx", line, what,
                    (unsigned long long)actual, (unsigned long long)expected);
    }
}

/* --- decoding ------------------------------------------------------------- */

/* How often each comes: each 32nd of all bytes once. */
static const uint8_t weight[PT_OP_KINDS] = {
    [PT_OP_MAP] = 4,     [PT_OP_OWN] = 4,    [PT_OP_PROMISE] = 3,
    [PT_OP_PROTECT] = 4, [PT_OP_UNMAP] = 4,  [PT_OP_MOVE] = 3,
    [PT_OP_COPY] = 1,    [PT_OP_AGE] = 1,    [PT_OP_COLLAPSE] = 1,
    [PT_OP_SPLIT] = 1,   [PT_OP_MERGE] = 1,  [PT_OP_FAULT] = 2,
    [PT_OP_TOUCH] = 1,   [PT_OP_SWITCH] = 1, [PT_OP_WRONG] = 1,
};

static const char *const kind_name[PT_OP_KINDS] = {
    [PT_OP_MAP] = "map",           [PT_OP_OWN] = "own",
    [PT_OP_PROMISE] = "promise",   [PT_OP_PROTECT] = "protect",
    [PT_OP_UNMAP] = "unmap",       [PT_OP_MOVE] = "move",
    [PT_OP_COPY] = "copy",         [PT_OP_AGE] = "age",
    [PT_OP_COLLAPSE] = "collapse", [PT_OP_SPLIT] = "split",
    [PT_OP_MERGE] = "merge",       [PT_OP_FAULT] = "fault",
    [PT_OP_TOUCH] = "touch",       [PT_OP_SWITCH] = "switch",
    [PT_OP_WRONG] = "wrong",
};

/* Ranges: what `size` means, and how often of 16. */
enum shape {
    SHAPE_ONE,   /* a cell */
    SHAPE_FEW,   /* up to 16 */
    SHAPE_MANY,  /* up to 700 */
    SHAPE_2M,    /* what an entry of level 1 would say, or two */
    SHAPE_1G,    /* the same of level 2 */
    SHAPE_1T,    /* two of level 3 */
    SHAPE_UP_TO, /* to another cell */
    SHAPES
};

static const uint8_t shape_of[16] = {
    SHAPE_ONE, SHAPE_ONE, SHAPE_ONE, SHAPE_ONE,   SHAPE_ONE, SHAPE_ONE,
    SHAPE_FEW, SHAPE_FEW, SHAPE_FEW, SHAPE_FEW,   SHAPE_FEW, SHAPE_MANY,
    SHAPE_2M,  SHAPE_1G,  SHAPE_1T,  SHAPE_UP_TO,
};

static enum pt_op_what kind_of(unsigned number)
{
    unsigned what = 0;

    while (number >= weight[what]) {
        number -= weight[what++];
    }
    return (enum pt_op_what)what;
}

static unsigned word16(const uint8_t *bytes)
{
    return bytes[0] | (unsigned)bytes[1] << 8;
}

struct pt_op pt_op_decode(const uint8_t *bytes)
{
    return (struct pt_op){
        .what = kind_of(bytes[0] & 31),
        .space = (bytes[0] >> 5) & 1,
        .is_exact = (bytes[0] & 0x40) != 0,
        .stays_open = (bytes[0] & 0x80) != 0,
        .shape = shape_of[bytes[1] & 15],
        .variant = bytes[1] >> 4,
        .first = word16(bytes + 2),
        .size = word16(bytes + 4),
        .extra = word16(bytes + 6),
    };
}

/* Half of all positions are near the edges of segments: there is less room. */
#define NEAR_EDGE 0x8000u

unsigned pt_ops_cell(const struct pt_ops *ops, unsigned position)
{
    const struct pt_model *model = &ops->model;

    if ((position & NEAR_EDGE) == 0) {
        return position % model->cells;
    }
    unsigned edge = model->edge[(position >> 4) % model->edges];
    unsigned near = edge + (position & 15);
    near = near < 8 ? 0 : near - 8;
    return near < model->cells ? near : model->cells - 1;
}

unsigned pt_ops_fine(const struct pt_ops *ops, unsigned index)
{
    const struct pt_model *model = &ops->model;

    for (unsigned i = 0; i < model->edges; i++) {
        unsigned edge = model->edge[(index + i) % model->edges];

        if (model->cell[index].bytes == PAGE_BYTES) {
            break;
        }
        index = model->cell[edge].bytes == PAGE_BYTES ? edge : index;
    }
    return index;
}

bool pt_ops_has_block(const struct pt_ops *ops, unsigned index, unsigned level)
{
    const struct pt_model *model = &ops->model;
    const struct pt_cell *last = &model->cell[model->cells - 1];
    vaddr_t start = align_down(model->cell[index].start, pte_span(level));

    return start >= model->cell[0].start &&
           start + pte_span(level) <= last->start + last->bytes;
}

static struct pt_span clip(const struct pt_model *model, unsigned first,
                           unsigned count)
{
    unsigned most = model->cells - first;

    return (struct pt_span){first, count < most ? count : most};
}

static struct pt_span span_up_to(const struct pt_model *model, unsigned a,
                                 unsigned b)
{
    return a <= b ? clip(model, a, b - a + 1) : clip(model, b, a - b + 1);
}

static struct pt_span span_of(const struct pt_ops *ops, const struct pt_op *op)
{
    const struct pt_model *model = &ops->model;
    unsigned first = pt_ops_cell(ops, op->first);

    switch (op->shape) {
    case SHAPE_FEW:
        return clip(model, first, 1 + op->size % 16);
    case SHAPE_MANY:
        return clip(model, first, 1 + op->size % 700);
    case SHAPE_2M:
        return pt_model_block(model, first,
                              pte_span(1) << (op->size % 8 == 0 ? 1 : 0));
    case SHAPE_1G:
        return pt_model_block(model, first, pte_span(2));
    case SHAPE_1T:
        return pt_model_block(model, first, 2 * pte_span(3));
    case SHAPE_UP_TO:
        return span_up_to(model, first, pt_ops_cell(ops, op->size));
    default:
        return clip(model, first, 1);
    }
}

static struct pt_attr attr_of(const struct pt_ops *ops, const struct pt_op *op)
{
    static const uint8_t flags[] = {
        0,       PT_WRITE,           PT_EXEC,           PT_WRITE,
        PT_USER, PT_USER | PT_WRITE, PT_USER | PT_EXEC, PT_NONE};
    static const uint8_t memory[] = {PT_WB, PT_WB, PT_WC, PT_UC};
    struct pt_attr attr = {flags[op->extra & 7], memory[(op->extra >> 3) & 3],
                           (uint8_t)(op->extra >> 8)};

    attr.flags &= (uint8_t) ~(ops->is_kernel ? PT_USER : 0);
    return attr;
}

static struct pt_job job_of(const struct pt_ops *ops, const struct pt_op *op)
{
    struct pt_span span = span_of(ops, op);

    return (struct pt_job){
        .op = op,
        .space = ops->is_kernel ? 0 : op->space,
        .span = span,
        .start = pt_model_start(&ops->model, span),
        .bytes = pt_model_bytes_of(&ops->model, span),
        .attr = attr_of(ops, op),
    };
}

void pt_op_describe(const struct pt_ops *ops, const uint8_t *bytes, char *out,
                    size_t size)
{
    struct pt_op op = pt_op_decode(bytes);
    struct pt_job job = job_of(ops, &op);

    test_format(
        out, size,
        "%s %u: 0x%llx, %llu KiB, flags 0x%x, to 0x%llx, variant %u"
        "%s%s",
        kind_name[op.what], op.space, (unsigned long long)job.start,
        (unsigned long long)(job.bytes / KiB), job.attr.flags,
        (unsigned long long)ops->model.cell[pt_ops_cell(ops, op.extra)].start,
        op.variant, op.is_exact ? ", exact" : "",
        op.stays_open ? ", stays open" : "");
}

void pt_ops_generate(struct test_random *random, uint8_t *out, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        out[i] = (uint8_t)(test_random_next(random) >> 40);
    }
}

/* --- cursors -------------------------------------------------------------- */

void pt_ops_close(struct pt_ops *ops)
{
    if (ops->open != PT_OPS_NONE) {
        ops->open = PT_OPS_NONE;
        pt_close(&ops->cursor);
        tlb_commit(&ops->batch);
    }
}

static struct pt_span all_of(const struct pt_ops *ops)
{
    return (struct pt_span){0, ops->model.cells};
}

static void note_open(struct pt_ops *ops, unsigned space, bool is_all)
{
    ops->open = space;
    ops->is_all = is_all;
    ops->held = 0;
}

/* Is the one that is open good for the job? */
static bool is_at_hand(struct pt_ops *ops, const struct pt_job *job)
{
    if (ops->open == job->space && ops->is_all && ops->held < MAX_HELD) {
        ops->held++;
        return true;
    }
    pt_ops_close(ops);
    return false;
}

bool pt_ops_open(struct pt_ops *ops, const struct pt_job *job)
{
    vaddr_t start = job->start;
    uint64_t bytes = job->bytes;

    if (is_at_hand(ops, job)) {
        return true;
    }
    if (!job->op->is_exact) {
        start = pt_model_start(&ops->model, all_of(ops));
        bytes = pt_model_bytes_of(&ops->model, all_of(ops));
    }
    enum mm_status status = pt_open(ops->space[job->space], start,
                                    start + bytes, &ops->batch, &ops->cursor);
    if (status != MM_OK) {
        pt_ops_fail(ops, __LINE__, "status of pt_open()", (uint64_t)status, 0);
        return false;
    }
    note_open(ops, job->space, !job->op->is_exact);
    return true;
}

bool pt_ops_open_two(struct pt_ops *ops, const struct pt_job *job, vaddr_t to)
{
    if (!job->op->is_exact ||
        ranges_overlap(job->start, job->start + job->bytes, to,
                       to + job->bytes)) {
        struct pt_op whole = *job->op;
        struct pt_job all = *job;

        whole.is_exact = false;
        all.op = &whole;
        return pt_ops_open(ops, &all);
    }
    pt_ops_close(ops);
    enum mm_status status =
        pt_open_two(ops->space[job->space], job->start, job->start + job->bytes,
                    to, to + job->bytes, &ops->batch, &ops->cursor);
    if (status != MM_OK) {
        pt_ops_fail(ops, __LINE__, "status of pt_open_two()", (uint64_t)status,
                    0);
        return false;
    }
    note_open(ops, job->space, false);
    return true;
}

bool pt_ops_took(struct pt_ops *ops, enum mm_status status,
                 enum mm_status expected)
{
    if (status == MM_ENOMEM && ops->may_fail) {
        ops->failures++;
        ops->is_unsure = true;
        return false;
    }
    if (status != expected) {
        pt_ops_fail(ops, __LINE__, "status", (uint64_t)status,
                    (uint64_t)expected);
    }
    return status == expected && status == MM_OK;
}

/* --- spaces --------------------------------------------------------------- */

bool pt_ops_load(struct pt_ops *ops, unsigned space)
{
    if (ops->loaded == space) {
        return true;
    }
    pt_ops_close(ops);
    if (space == PT_OPS_NONE) {
        tlb_switch(&pt_kernel.tlb);
    } else {
        tlb_switch(&ops->space[space]->tlb);
        ops->is_used[space] = true;
    }
    ops->loaded = space;
    return true;
}

static void end_space(struct pt_ops *ops, unsigned space)
{
    if (ops->world->leave != NULL) {
        ops->world->leave(&ops->space[space]->tlb);
    }
    pt_fini(ops->space[space]);
}

/* One allocation of many fails, or memory is short for a while. */
#define ROOT_TRIES 8

void pt_ops_renew(struct pt_ops *ops, unsigned space)
{
    pt_ops_close(ops);
    if (ops->loaded == space) {
        pt_ops_load(ops, PT_OPS_NONE);
    }
    end_space(ops, space);
    ops->is_used[space] = false;
    pt_model_set(&ops->model, space, all_of(ops),
                 (struct pt_page){.state = PTE_ABSENT});
    enum mm_status status = pt_init(ops->space[space]);
    /* Its root: without one nothing goes on. */
    for (unsigned i = 0; i < ROOT_TRIES && status == MM_ENOMEM; i++) {
        EXPECT(ops, ops->may_fail);
        ops->failures++;
        status = pt_init(ops->space[space]);
    }
    EXPECT_EQUAL(ops, status, MM_OK);
}

/* --- one step ------------------------------------------------------------- */

/* All pages of the range, one kind of access. */
static void touch_range(struct pt_ops *ops, const struct pt_job *job)
{
    static const unsigned kind[] = {WALK_READ, WALK_WRITE, WALK_EXEC,
                                    WALK_WRITE | WALK_USER};
    unsigned count = job->span.count < 64 ? job->span.count : 64;

    pt_ops_close(ops);
    if (!ops->is_kernel) {
        pt_ops_load(ops, job->space);
    }
    for (unsigned i = 0; i < count && !ops->has_failed; i++) {
        pt_ops_access(ops, job->span.first + i, kind[job->op->variant % 4]);
    }
    ops->done[PT_OP_TOUCH]++;
}

static void switch_space(struct pt_ops *ops, const struct pt_job *job)
{
    pt_ops_load(ops, job->op->variant == 0 ? PT_OPS_NONE : job->op->space);
    ops->done[PT_OP_SWITCH]++;
}

static void (*const act[PT_OP_KINDS])(struct pt_ops *ops,
                                      const struct pt_job *job) = {
    [PT_OP_MAP] = pt_ops_map,           [PT_OP_OWN] = pt_ops_own,
    [PT_OP_PROMISE] = pt_ops_promise,   [PT_OP_PROTECT] = pt_ops_protect,
    [PT_OP_UNMAP] = pt_ops_unmap,       [PT_OP_MOVE] = pt_ops_move,
    [PT_OP_COPY] = pt_ops_copy,         [PT_OP_AGE] = pt_ops_age,
    [PT_OP_COLLAPSE] = pt_ops_collapse, [PT_OP_SPLIT] = pt_ops_split,
    [PT_OP_MERGE] = pt_ops_merge,       [PT_OP_FAULT] = pt_ops_fault,
    [PT_OP_TOUCH] = touch_range,        [PT_OP_SWITCH] = switch_space,
    [PT_OP_WRONG] = pt_ops_wrong,
};

/* What the operation is about to change may be cached. */
static void warm_up(struct pt_ops *ops, const struct pt_job *job)
{
    unsigned last = job->span.first + job->span.count - 1;

    if (ops->open != PT_OPS_NONE || pt_ops_in_reach(ops) != job->space) {
        return;
    }
    pt_ops_access(ops, job->span.first,
                  job->op->size & 1 ? WALK_WRITE : WALK_READ);
    if (!ops->has_failed && ops->world->guess != NULL) {
        ops->world->guess(ops->model.cell[last].start);
    }
}

static uint64_t seed_of(const uint8_t *bytes)
{
    uint64_t seed = 0;

    for (unsigned i = 0; i < PT_OP_BYTES; i++) {
        seed = seed << 8 | bytes[i];
    }
    return seed;
}

static void check_beside(struct pt_ops *ops)
{
    const char *complaint =
        ops->world->complaint != NULL ? ops->world->complaint() : NULL;

    if (complaint != NULL && !ops->has_failed) {
        ops->has_failed = true;
        test_format(ops->reason, sizeof(ops->reason), "%s", complaint);
    }
}

bool pt_ops_step(struct pt_ops *ops, const uint8_t *bytes)
{
    struct pt_op op = pt_op_decode(bytes);
    struct pt_job job = job_of(ops, &op);

    test_random_init(&ops->random, seed_of(bytes));
    warm_up(ops, &job);
    if (!ops->has_failed) {
        act[op.what](ops, &job);
    }
    if (!op.stays_open || !ops->is_all || ops->has_failed) {
        pt_ops_close(ops);
    }
    if (!ops->has_failed) {
        pt_ops_sample(ops, job.space, job.span);
    }
    if (!ops->has_failed && ops->every != NULL) {
        pt_ops_look_at_every(ops);
    }
    if (ops->open == PT_OPS_NONE) {
        check_beside(ops);
    }
    if (ops->is_unsure && !ops->has_failed) {
        ops->is_unsure = false;
        pt_ops_compare(ops);
    }
    return !ops->has_failed;
}

bool pt_ops_run(struct pt_ops *ops, const uint8_t *bytes, size_t size,
                size_t *out_done)
{
    size_t count = size / PT_OP_BYTES;
    size_t each = ops->every != NULL ? COMPARE_EVERY : COMPARE_EACH;

    *out_done = 0;
    for (size_t i = 0; i < count; i++) {
        if (!pt_ops_step(ops, bytes + i * PT_OP_BYTES) ||
            (i % each == 0 && !pt_ops_compare(ops))) {
            return false;
        }
        *out_done = i + 1;
    }
    return pt_ops_compare(ops);
}

/* --- begin and end -------------------------------------------------------- */

static void begin(struct pt_ops *ops, const struct pt_world *world,
                  const struct pt_layout *layout, void *memory)
{
    *ops = (struct pt_ops){.world = world,
                           .loaded = PT_OPS_NONE,
                           .open = PT_OPS_NONE,
                           .next_word = 1};
    pt_model_init(&ops->model, layout, memory);
}

bool pt_ops_init(struct pt_ops *ops, const struct pt_world *world,
                 const struct pt_layout *layout, struct pt *space, void *memory)
{
    begin(ops, world, layout, memory);
    for (unsigned i = 0; i < PT_SPACES; i++) {
        ops->space[i] = &space[i];
        if (pt_init(&space[i]) != MM_OK) {
            while (i-- > 0) {
                pt_fini(&space[i]);
            }
            return false;
        }
    }
    return true;
}

bool pt_ops_join(struct pt_ops *ops, const struct pt_world *world,
                 const struct pt_layout *layout, struct pt *shared,
                 struct pt *own, void *memory)
{
    begin(ops, world, layout, memory);
    ops->is_sharing = true;
    ops->is_kernel = shared->is_kernel;
    ops->space[0] = shared;
    ops->space[1] = own;
    return pt_init(own) == MM_OK;
}

/* Nothing of ours is left in the space of others. */
static void leave(struct pt_ops *ops)
{
    static const struct pt_op unmap = {.what = PT_OP_UNMAP};
    struct pt_job job = {
        .op = &unmap,
        .span = all_of(ops),
        .start = pt_model_start(&ops->model, all_of(ops)),
        .bytes = pt_model_bytes_of(&ops->model, all_of(ops)),
    };

    ops->may_fail = false;
    pt_ops_unmap(ops, &job);
    pt_ops_close(ops);
}

bool pt_ops_fini(struct pt_ops *ops)
{
    pt_ops_close(ops);
    pt_ops_load(ops, PT_OPS_NONE);
    if (ops->is_sharing) {
        leave(ops);
    } else {
        end_space(ops, 0);
    }
    end_space(ops, 1);
    check_beside(ops);
    return !ops->has_failed;
}
