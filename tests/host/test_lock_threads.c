/* SPDX-License-Identifier: MIT */
/* Tests of lock by threads: one at a time inside, and what it wrote is seen. */
#include <pthread.h>

#include "base/lock.h"
#include "tests/host/sim.h"
#include "tests/shared/test.h"

/*
 * At risk: two holders at once, a ticket that is lost when the numbers go
 * round, stores that the next holder does not see. Provoked by plain counters
 * under two locks, taken in order and by who gives up.
 */

#define THREADS 4
#define ROUNDS  30000 /* all together draw more tickets than there are */

static struct {
    struct lock outer;
    struct lock inner;
    uint64_t counter[2]; /* under the lock of the same place */
    _Atomic unsigned wrong;
} field;

static void *contend(void *context)
{
    unsigned cpu = *(unsigned *)context;

    sim_set_cpu(cpu);
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t first = lock_acquire(&field.outer);
        field.counter[0]++;
        if (i % 3 == 0) {
            uint64_t second = lock_acquire(&field.inner);
            field.counter[1]++;
            if (MM_DEBUG && !lock_is_mine(&field.inner)) {
                atomic_fetch_add(&field.wrong, 1);
            }
            lock_release(&field.inner, second);
        }
        lock_release(&field.outer, first);
        if (i % 5 == 0 && lock_try_acquire(&field.inner, 3, &first)) {
            field.counter[1]++;
            lock_release(&field.inner, first);
        }
        if (lock_count_held() != 0) {
            atomic_fetch_add(&field.wrong, 1);
        }
    }
    return NULL;
}

TEST(lock, threads_take_turns)
{
    pthread_t thread[THREADS];
    unsigned cpu[THREADS];

    sim_reset(0);
    sim_set_cpu_count(THREADS);
    lock_init(&field.outer, LOCK_RANK_HOST_OUTER);
    lock_init(&field.inner, LOCK_RANK_HOST_OUTER + 1);
    field.counter[0] = field.counter[1] = 0;
    atomic_store(&field.wrong, 0);
    for (unsigned i = 0; i < THREADS; i++) {
        cpu[i] = i;
        CHECK_EQUAL(pthread_create(&thread[i], NULL, contend, &cpu[i]), 0);
    }
    for (unsigned i = 0; i < THREADS; i++) {
        CHECK_EQUAL(pthread_join(thread[i], NULL), 0);
    }
    sim_set_cpu_count(1);
    CHECK_EQUAL(field.counter[0], THREADS * ROUNDS);
    CHECK(field.counter[1] >= THREADS * (ROUNDS / 3));
    CHECK_EQUAL(atomic_load(&field.wrong), 0);
    CHECK(!lock_is_held(&field.outer) && !lock_is_held(&field.inner));
}
