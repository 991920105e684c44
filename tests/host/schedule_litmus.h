/* SPDX-License-Identifier: MIT */
/* schedule_litmus: small programs of which the manual says what can come. */
#ifndef TESTS_HOST_SCHEDULE_LITMUS_H
#define TESTS_HOST_SCHEDULE_LITMUS_H

#include "tests/host/schedule.h"

/* What the programs of all CPUs use, and what each has seen. */
struct litmus {
    uint64_t x;
    uint64_t y;
    uint64_t seen[SCHEDULE_CPUS];
    int order; /* of the stores of litmus_store_then_load() */
};
extern struct litmus litmus;

/* A machine of @cpus CPUs; x and y are 0. */
void litmus_reset(unsigned cpus);

/*
 * Each of two writes one and reads the other [SDM-3A 9.2.3.4 "Loads May Be
 * Reordered with Earlier Stores to Different Locations"]: seen[] is what each
 * has read.
 */
void litmus_store_then_load(unsigned cpu);

/*
 * One writes two words, the other reads them in the other order [SDM-3A 9.2.3.2
 * "Neither Loads Nor Stores Are Reordered with Like Operations"]: seen[0] is
 * what was read of the first written, seen[1] of the second.
 */
void litmus_publish(unsigned cpu);

#endif
