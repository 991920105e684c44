/* SPDX-License-Identifier: MIT */
/* fuzz heap: any operations on the heap, beside a naive model. */
#include "tests/fuzz/fuzz.h"

#include <mm/frame.h>
#include <mm/kmalloc.h>
#include "tests/host/sim.h"
#include "tests/shared/heap_ops.h"

/*
 * Input: how many CPUs, which allocation fails (0: none), then operations of
 * eight bytes each, as tests/shared/heap_ops.h has them.
 */
#define MAX_OPERATIONS 300
#define COMPARE_EVERY  50
#define MAX_CPUS       4
#define RAM            (32 * MiB)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct heap_ops ops;
    struct fuzz_input input = {data, size};
    unsigned cpus = 1 + fuzz_choose(&input, MAX_CPUS);
    uint64_t failing = fuzz_take(&input, 1);
    size_t most = MAX_OPERATIONS * HEAP_OP_BYTES;
    size_t done;

    sim_boot_frames_on(RAM, cpus);
    FUZZ_CHECK(slab_init() == MM_OK && kmalloc_init() == MM_OK);
    heap_ops_init(&ops, cpus, sim_set_cpu);
    ops.may_fail = failing > 0;
    frame_inject(failing);
    bool is_right =
        heap_ops_run(&ops, input.data, input.left < most ? input.left : most,
                     COMPARE_EVERY, &done);
    frame_inject(0);
    is_right = is_right && heap_ops_fini(&ops);
    sim_set_cpu(0);
    if (!is_right) {
        fprintf(stderr, "%s:%d: operation %zu: %s\n", __FILE__, __LINE__, done,
                ops.reason);
        abort();
    }
    return 0;
}
