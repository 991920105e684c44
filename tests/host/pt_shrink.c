/* SPDX-License-Identifier: MIT */
/* pt_shrink: runs operations in a copy of this process, and leaves some out. */
#include "tests/host/pt_shrink.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <mm/frame.h>
#include "tests/host/sim_pt.h"

/* Until a run that does not end is called a failure; seconds. */
#define PATIENCE 120
/* Runs of shorter sequences, at most. */
#define MAX_TRIES 2000
/* No sequence has as many allocations. */
#define MAX_STARVED 100000

/* --- in the copy ---------------------------------------------------------- */

static bool has_starved; /* an allocation of the last run failed */

static bool run_all(struct pt_ops *ops, const struct pt_case *one,
                    struct pt_outcome *out)
{
    bool is_right = pt_ops_run(ops, one->bytes, one->size, &out->done);

    has_starved = frame_inject_failed() > 0;
    frame_inject(0);
    is_right = is_right && sim_pt_end();
    if (is_right && test_take_bug("")) {
        ops->has_failed = true;
        snprintf(ops->reason, sizeof(ops->reason), "a bug was reported");
        is_right = false;
    }
    for (unsigned i = 0; i < PT_OP_KINDS; i++) {
        out->did[i] += ops->done[i];
    }
    out->failures += ops->failures;
    snprintf(out->reason, sizeof(out->reason), "%s", ops->reason);
    return is_right;
}

/* Until there are fewer allocations than the number that is to fail. */
static bool run_starved(struct pt_ops *ops, const struct pt_case *one,
                        struct pt_outcome *out)
{
    for (uint64_t k = 1; k < MAX_STARVED; k++) {
        ops->may_fail = true;
        frame_inject(k);
        if (!run_all(ops, one, out)) {
            size_t length = strlen(out->reason);

            snprintf(out->reason + length, sizeof(out->reason) - length,
                     ", allocation %llu failing", (unsigned long long)k);
            return false;
        }
        if (!has_starved) {
            return true;
        }
        ops = sim_pt_again();
        if (ops == NULL) {
            snprintf(out->reason, sizeof(out->reason), "frames are lost");
            return false;
        }
    }
    return false;
}

static bool run_case(const struct pt_case *one, struct pt_outcome *out)
{
    struct pt_ops *ops = sim_pt_begin(&sim_pt_machine[one->machine]);

    if (ops == NULL) {
        return false;
    }
    return one->is_starved ? run_starved(ops, one, out)
                           : run_all(ops, one, out);
}

static void hush(void)
{
    int nowhere = open("/dev/null", O_WRONLY);

    if (nowhere >= 0) {
        dup2(nowhere, STDOUT_FILENO);
        dup2(nowhere, STDERR_FILENO);
    }
}

/* --- out of it ------------------------------------------------------------ */

/* Memory that the copy writes and its parent reads. */
static struct pt_outcome *shared_outcome(void)
{
    static struct pt_outcome *shared;

    if (shared == NULL) {
        void *page = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
                          MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        shared = page == MAP_FAILED ? NULL : page;
    }
    return shared;
}

bool pt_case_passes(const struct pt_case *one, bool is_quiet,
                    struct pt_outcome *out)
{
    struct pt_outcome *shared = shared_outcome();
    int status = 1;

    if (shared == NULL) {
        return false;
    }
    memset(shared, 0, sizeof(*shared));
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        if (is_quiet) {
            hush();
        }
        alarm(PATIENCE);
        _exit(run_case(one, shared) ? 0 : 1);
    }
    bool is_over = child > 0 && waitpid(child, &status, 0) == child;
    *out = *shared;
    return is_over && status == 0;
}

static bool fails(const struct pt_case *one, size_t size, unsigned *tries)
{
    struct pt_case shorter = *one;
    struct pt_outcome outcome;

    shorter.size = size;
    return ++*tries <= MAX_TRIES && !pt_case_passes(&shorter, true, &outcome);
}

size_t pt_case_shrink(const struct pt_case *one, uint8_t *bytes)
{
    uint8_t *saved = malloc(one->size);
    size_t size = one->size;
    unsigned tries = 0;

    for (size_t piece = size / 2; saved != NULL && piece >= PT_OP_BYTES;) {
        bool is_shorter = false;

        piece -= piece % PT_OP_BYTES;
        for (size_t at = 0; at + piece <= size;) {
            memcpy(saved, bytes, size);
            memmove(bytes + at, bytes + at + piece, size - at - piece);
            if (fails(one, size - piece, &tries)) {
                size -= piece;
                is_shorter = true;
            } else {
                memcpy(bytes, saved, size);
                at += piece;
            }
        }
        if (!is_shorter || piece > PT_OP_BYTES) {
            piece = piece == PT_OP_BYTES ? 0 : piece / 2;
            piece = piece > 0 && piece < PT_OP_BYTES ? PT_OP_BYTES : piece;
        }
    }
    free(saved);
    return size;
}

/* --- as text -------------------------------------------------------------- */

static void print_op(const struct pt_ops *ops, const uint8_t *bytes)
{
    char text[160];

    printf("#   \"");
    for (unsigned i = 0; i < PT_OP_BYTES; i++) {
        printf("%02x", bytes[i]);
    }
    pt_op_describe(ops, bytes, text, sizeof(text));
    printf("\" /* %s */\n", text);
}

void pt_case_print(const struct pt_case *one)
{
    static struct pt_ops ops; /* for its layout alone */
    struct pt_layout layout = sim_pt_layout(&sim_pt_machine[one->machine]);
    void *memory = malloc(pt_model_bytes(&layout));

    if (memory == NULL) {
        return;
    }
    pt_model_init(&ops.model, &layout, memory);
    printf("# machine %u (%s)%s, %zu operations:\n", one->machine,
           sim_pt_machine[one->machine].name,
           one->is_starved ? ", starved" : "", one->size / PT_OP_BYTES);
    for (size_t at = 0; at + PT_OP_BYTES <= one->size; at += PT_OP_BYTES) {
        print_op(&ops, one->bytes + at);
    }
    free(memory);
}

static unsigned digit_of(char digit)
{
    return (unsigned)(digit <= '9' ? digit - '0' : digit - 'a' + 10);
}

size_t pt_case_parse(const char *text, uint8_t *out, size_t size)
{
    size_t count = 0;

    while (text[0] != '\0' && text[1] != '\0' && count < size) {
        out[count++] = (uint8_t)(digit_of(text[0]) * 16 + digit_of(text[1]));
        text += 2;
    }
    return count;
}
