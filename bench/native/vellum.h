/* SPDX-License-Identifier: MIT */
/* vellum: what port.c and vellum.c of the native bench tell each other. */
#ifndef BENCH_NATIVE_VELLUM_H
#define BENCH_NATIVE_VELLUM_H

#include "bench/native/native.h"

extern unsigned native_bugs; /* reports of port_bug() */

/* This thread is processor @number from now on. */
void native_cpu_start(unsigned number);

#endif
