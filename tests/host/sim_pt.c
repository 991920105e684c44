/* SPDX-License-Identifier: MIT */
/* sim_pt: operations on page tables, on the simulated MMU. */
#include "tests/host/sim_pt.h"

#include <stdio.h>
#include <stdlib.h>

#include <mm/frame.h>
#include <mm/port.h>
#include "tests/host/sim.h"
#include "tests/host/sim_mmu.h"
#include "tests/shared/figures.h"

#define RAM_BYTES (64 * MiB)

const struct sim_pt_machine sim_pt_machine[SIM_PT_MACHINES] = {
    {"4 levels", {4, 40, true, true, true}, 0},
    {"5 levels", {5, 40, true, true, true}, UINT64_C(1) << 52},
    {"no NX", {4, 40, false, true, true}, 4 * TiB},
    {"no 1 GiB leaves, no global pages", {4, 40, true, false, false}, 60 * TiB},
    {"the kernel's tables", {4, 40, true, true, true}, SIM_KMAP},
    {"the kernel's of 5 levels, no global pages",
     {5, 40, true, true, false},
     SIM_KMAP},
};

static struct pt space[PT_SPACES];
static struct pt_ops ops;
static struct pt_layout layout;
static void *memory;
static void *memory_for_every;
static uint64_t frames_at_start;

static enum walk_verdict access_page(vaddr_t address, unsigned access,
                                     struct pt_sight *sight)
{
    paddr_t physical;
    enum walk_verdict verdict = sim_translate(address, access, &physical);

    if (verdict != WALK_ALLOWED) {
        return verdict;
    }
    sight->pfn = phys_to_pfn(physical);
    if (sight->has_memory) {
        uint64_t *word = phys_to_virt(physical);

        if (access & WALK_WRITE) {
            *word = sight->word;
        } else {
            sight->word = *word;
        }
    }
    return verdict;
}

static const char *find_stale(void)
{
    return sim_stale() > 0 ? "something stale could be used" : NULL;
}

const struct pt_world sim_pt_world = {
    .rules = {true, true, true, true},
    .accesses = WALK_READ | WALK_WRITE | WALK_EXEC | WALK_USER,
    .is_exact = true,
    .is_alone = true,
    .access = access_page,
    .guess = sim_walk_ahead,
    .complaint = find_stale,
};

static uint64_t frames_in_use(void)
{
    return frames_of(FRAME_USER) + frames_of(FRAME_KMAP) +
           frames_of(FRAME_TABLE);
}

static bool begin(const struct pt_world *world)
{
    return layout.start >= SIM_KMAP
               ? pt_ops_join(&ops, world, &layout, &pt_kernel, space, memory)
               : pt_ops_init(&ops, world, &layout, space, memory);
}

struct pt_ops *sim_pt_again(void)
{
    static struct pt_world world;

    world = sim_pt_world;
    world.rules.nx = pt_features.has_nx;
    if (frames_in_use() != frames_at_start) {
        return NULL;
    }
    if (!begin(&world)) {
        return NULL;
    }
    pt_ops_see_every(&ops, memory_for_every);
    return &ops;
}

struct pt_layout sim_pt_layout(const struct sim_pt_machine *machine)
{
    return machine->base == SIM_KMAP ? pt_layout_kernel(machine->base)
                                     : pt_layout_large(machine->base);
}

struct pt_ops *sim_pt_begin(const struct sim_pt_machine *machine)
{
    layout = sim_pt_layout(machine);
    free(memory);
    free(memory_for_every);
    memory = malloc(pt_model_bytes(&layout));
    memory_for_every = malloc(pt_every_bytes(&layout));
    sim_boot_with(RAM_BYTES, &machine->features);
    frames_at_start = frames_in_use();
    return memory == NULL || memory_for_every == NULL ? NULL : sim_pt_again();
}

bool sim_pt_end(void)
{
    bool is_right = pt_ops_fini(&ops);

    if (is_right && (frames_in_use() != frames_at_start || !frame_check())) {
        ops.has_failed = true;
        snprintf(ops.reason, sizeof(ops.reason),
                 "%llu frames in use, expected %llu",
                 (unsigned long long)frames_in_use(),
                 (unsigned long long)frames_at_start);
        return false;
    }
    return is_right;
}
