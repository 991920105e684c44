/* SPDX-License-Identifier: MIT */
/* fuzz pt: any operations on page tables, beside a naive model. */
#include "tests/fuzz/fuzz.h"

#include <stdbool.h>

#include <mm/frame.h>
#include "tests/host/sim_pt.h"

/*
 * Input: which machine, which allocation fails (0: none), then operations of
 * eight bytes each, as tests/shared/pt_ops.h has them; the seeds are what
 * pt_model has once found, and a way to each operation.
 */
#define MAX_OPERATIONS 200

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input input = {data, size};
    unsigned machine = fuzz_choose(&input, SIM_PT_MACHINES);
    uint64_t failing = fuzz_take(&input, 1);
    size_t most = MAX_OPERATIONS * PT_OP_BYTES;
    struct pt_ops *ops = sim_pt_begin(&sim_pt_machine[machine]);
    size_t done;

    FUZZ_CHECK(ops != NULL);
    ops->may_fail = failing > 0;
    frame_inject(failing);
    bool is_right = pt_ops_run(ops, input.data,
                               input.left < most ? input.left : most, &done);
    frame_inject(0);
    is_right = is_right && sim_pt_end();
    if (!is_right) {
        fprintf(stderr, "%s:%d: operation %zu: %s\n", __FILE__, __LINE__, done,
                ops->reason);
        abort();
    }
    return 0;
}
