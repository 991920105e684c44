/* SPDX-License-Identifier: MIT */
/* take.c with blocks of their real size: orders of several rows. */
#include "tests/proofs/take.c"
