/* SPDX-License-Identifier: MIT */
/* Tests of lock by threads: one at a time inside, and what it wrote is seen. */
#include "base/lock.h"
#include "tests/host/players.h"
#include "tests/host/sim.h"

/*
 * At risk: two holders at once, a ticket that is lost when the numbers go
 * round, stores that the next holder does not see. Provoked by plain counters
 * under two locks, taken in order and by who gives up.
 */

#define ROUNDS 30000 /* all together draw more tickets than there are */

static struct {
    struct lock outer;
    struct lock inner;
    uint64_t counter[2]; /* under the lock of the same place */
} field;

static void contend(void)
{
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t first = lock_acquire(&field.outer);
        field.counter[0]++;
        if (i % 3 == 0) {
            uint64_t second = lock_acquire(&field.inner);
            field.counter[1]++;
            player_expect(!MM_DEBUG || lock_is_mine(&field.inner));
            lock_release(&field.inner, second);
        }
        lock_release(&field.outer, first);
        if (i % 5 == 0 && lock_try_acquire(&field.inner, 3, &first)) {
            field.counter[1]++;
            lock_release(&field.inner, first);
        }
        player_expect(lock_count_held() == 0);
    }
}

TEST(lock, threads_take_turns)
{
    sim_reset(0);
    sim_set_cpu_count(PLAYERS);
    lock_init(&field.outer, LOCK_RANK_HOST_OUTER);
    lock_init(&field.inner, LOCK_RANK_HOST_OUTER + 1);
    field.counter[0] = field.counter[1] = 0;
    CHECK_HELPER(players_run(PLAYERS, contend));
    sim_set_cpu_count(1);
    CHECK_EQUAL(field.counter[0], PLAYERS * ROUNDS);
    CHECK(field.counter[1] >= PLAYERS * (ROUNDS / 3));
    CHECK(!lock_is_held(&field.outer) && !lock_is_held(&field.inner));
}
