/* SPDX-License-Identifier: MIT */
/* schedule_litmus: small programs of which the manual says what can come. */
#include "tests/host/schedule_litmus.h"

#include <stdatomic.h>

#include "tests/host/sim.h"

struct litmus litmus;

void litmus_reset(unsigned cpus)
{
    sim_reset(0);
    sim_set_cpu_count(cpus);
    litmus.x = 0;
    litmus.y = 0;
}

void litmus_store_then_load(unsigned cpu)
{
    uint64_t *mine = cpu == 0 ? &litmus.x : &litmus.y;
    uint64_t *other = cpu == 0 ? &litmus.y : &litmus.x;

    schedule_store(mine, sizeof(*mine), 1, litmus.order);
    litmus.seen[cpu] =
        schedule_load(other, sizeof(*other), memory_order_acquire);
}

void litmus_publish(unsigned cpu)
{
    uint64_t *first = &litmus.x;
    uint64_t *second = &litmus.y;

    if (cpu == 0) {
        schedule_store(first, sizeof(*first), 1, memory_order_relaxed);
        schedule_store(second, sizeof(*second), 1, memory_order_release);
    } else {
        litmus.seen[1] =
            schedule_load(second, sizeof(*second), memory_order_acquire);
        litmus.seen[0] =
            schedule_load(first, sizeof(*first), memory_order_acquire);
    }
}
