/* SPDX-License-Identifier: MIT */
/* The shootdown under a scheduler that tries interleavings of its real code. */
/*
 * At risk: a CPU that uses what was taken away, a frame that is let go too
 * early, two CPUs that wait for each other for ever, an answer that is lost;
 * and all that only when several CPUs come to certain places at once. So two
 * to four CPUs run random programs on two spaces that they share and on kernel
 * pages; who goes on is decided at each access to memory. Frames are reused at
 * once, CPUs walk ahead on a guess at any time, and stores wait in their
 * buffers. The rules that must not be broken are in sim_watch.c.
 *
 * SEED=n is the first run's, STEPS=n how many steps are tried; by hand:
 *     STEPS=1000000000 build/host-gcc-schedule/test tlb_schedule
 */
#include "tests/host/schedule_scene.h"

#include <mm/frame.h>
#include <mm/port.h>
#include "tests/host/sim.h"

/* What a CPU does in one run. */
#define ACTIONS 16

/* --- moods ---------------------------------------------------------------- */

enum action {
    MAP,
    UNMAP,
    PROTECT,
    LOOK_UP,
    TOUCH,
    SWITCH,
    IDLE,
    END,
    ACTION_KINDS
};

/*
 * What a run is made of, in parts: of everything; of little but what collides
 * most often; of what a flush has to reckon with beside.
 */
static const struct mood {
    unsigned pages;
    unsigned parts[ACTION_KINDS];
} moods[] = {
    {SCENE_PAGES, {3, 2, 1, 1, 4, 3, 1, 1}}, /* everything */
    {1, {1, 0, 4, 0, 2, 6, 0, 0}},           /* switches */
    {1, {1, 0, 5, 0, 2, 1, 4, 0}},           /* idle CPUs */
    {1, {1, 0, 6, 0, 2, 1, 0, 0}},           /* requests that meet */
    {1, {4, 4, 0, 8, 0, 1, 0, 0}},           /* descents */
    {2, {2, 1, 1, 1, 1, 2, 2, 4}},           /* ends of spaces */
};
#define MOODS (sizeof(moods) / sizeof(moods[0]))

static const struct mood *mood;

static enum action choose_action(void)
{
    unsigned sum = 0;
    unsigned kind = 0;

    for (unsigned i = 0; i < ACTION_KINDS; i++) {
        sum += mood->parts[i];
    }
    for (sum = schedule_below(sum); sum >= mood->parts[kind]; kind++) {
        sum -= mood->parts[kind];
    }
    return (enum action)kind;
}

/* --- spaces --------------------------------------------------------------- */

/* In place of the number of a space: the kernel's. */
#define NONE SCENE_SPACES

/* Who may load a space or look into it; what a kernel's own counts say. */
static unsigned users[SCENE_SPACES];
static bool is_ending[SCENE_SPACES];

/* What the program of each CPU uses. */
static unsigned using[SCHEDULE_CPUS];
static bool is_descending[SCHEDULE_CPUS];

/* As by a locked instruction: the program's own stores are seen before. */
static bool take(unsigned number)
{
    schedule_lock();
    if (number == NONE || is_ending[number]) {
        return number == NONE;
    }
    users[number]++;
    return true;
}

static void drop(unsigned number)
{
    schedule_lock();
    if (number != NONE) {
        users[number]--;
    }
}

static struct pt *tables_of(unsigned number)
{
    return number == NONE ? &pt_kernel : &scene_space[number];
}

static void switch_to(unsigned number)
{
    unsigned old = using[sim_cpu()];

    if (take(number)) {
        tlb_switch(&tables_of(number)->tlb);
        using[sim_cpu()] = number;
        drop(old);
    }
}

/*
 * Whoever idles is no user of the space it has loaded; it becomes one again
 * before it uses it, or goes straight to the kernel's if the space is ending.
 */
static void idle(void)
{
    unsigned number = using[sim_cpu()];

    tlb_begin_lazy();
    drop(number);
    for (unsigned turns = schedule_below(40); turns > 0; turns--) {
        schedule_wait();
    }
    if (!take(number)) {
        number = NONE;
    } else if (schedule_below(2) == 0) {
        tlb_end_lazy();
    }
    tlb_switch(&tables_of(number)->tlb);
    using[sim_cpu()] = number;
}

/* An end and a new beginning, if nobody uses it. */
static void end_a_space(void)
{
    unsigned number = schedule_below(SCENE_SPACES);

    schedule_lock();
    if (is_ending[number] || users[number] > 0) {
        return;
    }
    is_ending[number] = true;
    pt_fini(&scene_space[number]);
    if (pt_init(&scene_space[number]) != MM_OK) {
        schedule_fail("no memory for a space");
    }
    schedule_lock();
    is_ending[number] = false;
}

/* --- pages ---------------------------------------------------------------- */

/* A frame in one page, or in two that both hold it. */
static void map_some(const struct scene_place *place)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;
    unsigned page = schedule_below(mood->pages);
    unsigned count = 1 + schedule_below(2);
    pfn_t pfn = frame_alloc(0, FRAME_USER, FRAME_ANY);

    if (pfn_is_none(pfn)) {
        schedule_fail("no memory for a page");
    }
    scene_open(place, &batch, &cursor);
    for (unsigned i = page; i < page + count; i++) {
        frame_ref(pfn);
        if (pt_map(&cursor, scene_page(place, i % mood->pages), pfn, PAGE_BYTES,
                   scene_attr(place, schedule_below(2) ? PT_WRITE : PT_READ)) !=
            MM_OK) {
            frame_unref(pfn);
        }
    }
    scene_shut(&cursor, &batch);
    frame_unref(pfn);
}

/* A page, the pages of a table, or all pages. */
static unsigned choose_pages(unsigned *first)
{
    static const unsigned pages[] = {1, 1, SCENE_TABLE_PAGES, SCENE_PAGES};
    unsigned count = pages[schedule_below(4)];

    *first = count == 1 ? schedule_below(mood->pages)
                        : schedule_below(SCENE_PAGES / count) * count;
    return count;
}

static void unmap_some(const struct scene_place *place)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;
    unsigned first;
    uint64_t bytes = choose_pages(&first) * PAGE_BYTES;
    vaddr_t reached;

    scene_open(place, &batch, &cursor);
    if (pt_unmap(&cursor, scene_page(place, first), bytes, &reached) != MM_OK ||
        reached != scene_page(place, first) + bytes) {
        schedule_fail("a range cannot be unmapped");
    }
    scene_shut(&cursor, &batch);
}

/* Writable pages become read-only, and the other way round. */
static void protect_some(const struct scene_place *place)
{
    struct tlb_batch batch;
    struct pt_cursor cursor;
    struct pt_entry entry;
    unsigned first;
    uint64_t bytes = choose_pages(&first) * PAGE_BYTES;

    scene_open(place, &batch, &cursor);
    pt_query(&cursor, scene_page(place, first), &entry);
    if (entry.attr.flags & PT_COW) { /* the frame has two holders */
        entry.attr.flags &= (uint8_t)~PT_COW;
    } else {
        entry.attr.flags ^= PT_WRITE;
    }
    if (entry.state == PTE_PRESENT &&
        pt_protect(&cursor, scene_page(place, first), bytes, entry.attr) !=
            MM_OK) {
        schedule_fail("a range cannot be protected");
    }
    scene_shut(&cursor, &batch);
}

/* A descent without a lock: see(). */
static void look_up(const struct scene_place *place)
{
    pfn_t pfn;
    struct pt_attr attr;
    uint64_t irq = port_irq_save();

    is_descending[sim_cpu()] = true;
    (void)sim_lookup(place->pt, scene_page(place, schedule_below(mood->pages)),
                     &pfn, &attr);
    is_descending[sim_cpu()] = false;
    sim_end_descent();
    port_irq_restore(irq);
}

/* What a descent reads lies in tables: they must stay until it ends. */
static void see(const volatile void *address)
{
    uint64_t offset = (uint64_t)((const volatile char *)address - sim_ram);

    if (is_descending[sim_cpu()] && offset < SCENE_RAM_BYTES) {
        sim_note_descent(phys_to_pfn(paddr_of(offset)));
    }
}

/* --- programs ------------------------------------------------------------- */

static vaddr_t some_page(void)
{
    struct scene_place place =
        scene_place(schedule_below(3) == 0 ? &pt_kernel : &scene_space[0]);

    return scene_page(&place, schedule_below(mood->pages));
}

static void touch_some(void)
{
    for (unsigned i = 0; i < mood->pages; i++) {
        scene_touch(some_page(), schedule_below(2) ? WALK_WRITE : WALK_READ);
    }
}

static void change_pages(enum action action)
{
    static void (*const change[])(const struct scene_place *place) = {
        [MAP] = map_some,
        [UNMAP] = unmap_some,
        [PROTECT] = protect_some,
        [LOOK_UP] = look_up,
    };
    unsigned number = schedule_below(SCENE_SPACES + 1);

    if (take(number)) {
        struct scene_place place = scene_place(tables_of(number));

        change[action](&place);
        drop(number);
    }
}

static void act(enum action action)
{
    static const char *const name[ACTION_KINDS] = {
        "map", "unmap", "protect", "look up", "touch", "switch", "idle", "end"};

    schedule_note(name[action]);
    switch (action) {
    case TOUCH:
        touch_some();
        break;
    case SWITCH:
        switch_to(schedule_below(SCENE_SPACES + 1));
        break;
    case IDLE:
        idle();
        break;
    case END:
        end_a_space();
        break;
    default:
        change_pages(action);
        break;
    }
    if (sim_irq_is_off()) {
        schedule_fail("interrupts are off after an action");
    }
}

static void run_program(unsigned cpu)
{
    (void)cpu;
    for (unsigned i = 0; i < mood->pages; i++) {
        act(MAP);
    }
    for (unsigned i = 0; i < ACTIONS; i++) {
        act(choose_action());
    }
    switch_to(NONE);
}

static void guess(void)
{
    sim_walk_ahead(some_page());
}

static void prepare(struct test_random *random)
{
    mood = &moods[test_random_below(random, MOODS)];
    for (unsigned i = 0; i < SCENE_SPACES; i++) {
        users[i] = 0;
        is_ending[i] = false;
    }
    for (unsigned i = 0; i < SCHEDULE_CPUS; i++) {
        using[i] = NONE;
        is_descending[i] = false;
    }
}

static const struct scene scene = {
    .prepare = prepare, .run = run_program, .guess = guess, .see = see};

TEST(tlb_schedule, programs_use_nothing_stale_on_random_walks)
{
    scene_run_many(SCHEDULE_WALK, &scene);
}

TEST(tlb_schedule, programs_use_nothing_stale_by_priorities)
{
    scene_run_many(SCHEDULE_PRIORITIES, &scene);
}
