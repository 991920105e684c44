/* SPDX-License-Identifier: MIT */
/* tour: what the memory subsystem does, shown on one screen. */
#ifndef KERNEL_TOUR_H
#define KERNEL_TOUR_H

#include <mm/types.h>

/* Print it, without waiting for a key. Return: did every step work? */
bool tour_run(void);

#endif
