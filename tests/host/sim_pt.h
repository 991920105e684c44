/* SPDX-License-Identifier: MIT */
/* sim_pt: operations on page tables, on the simulated MMU. */
#ifndef TESTS_HOST_SIM_PT_H
#define TESTS_HOST_SIM_PT_H

#include "tests/shared/pt_ops.h"

/* A machine to run operations on. */
struct sim_pt_machine {
    const char *name;
    struct pt_features features;
    vaddr_t base; /* of pt_layout_large(); or pt_layout_kernel() */
};

/* The first ones have two spaces, the others the kernel's tables. */
#define SIM_PT_SPACES   4
#define SIM_PT_MACHINES 6
extern const struct sim_pt_machine sim_pt_machine[SIM_PT_MACHINES];

struct pt_layout sim_pt_layout(const struct sim_pt_machine *machine);

/* As CPU 0 of a machine that nobody else uses. */
extern const struct pt_world sim_pt_world;

/*
 * Boot the machine, and begin. Static storage: one at a time.
 * Return: the interpreter.
 */
struct pt_ops *sim_pt_begin(const struct sim_pt_machine *machine);

/*
 * Begin again on the same machine; everything that was given back is free.
 * Return: NULL if something is not.
 */
struct pt_ops *sim_pt_again(void);

/* End it, and look for what is lost. Return: as pt_ops_step(). */
bool sim_pt_end(void);

#endif
