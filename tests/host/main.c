/* SPDX-License-Identifier: MIT */
/* Run the host tests: test [PATTERN], SEED=n in the environment. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/shared/test.h"

int main(int argc, char **argv)
{
    const char *pattern = argc > 1 ? argv[1] : "";
    const char *seed = getenv("SEED");
    unsigned run;

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (strcmp(pattern, "-l") == 0) {
        test_list();
        return 0;
    }
    if (seed != NULL) {
        test_set_seed(strtoull(seed, NULL, 0));
    }
    unsigned failed = test_run(pattern, &run);
    printf("# %u passed, %u failed\n", run - failed, failed);
    return failed == 0 && run > 0 ? 0 : 1;
}
