/* SPDX-License-Identifier: MIT */
/* Tests of frame by threads: failures on demand that change meanwhile. */
/*
 * At risk: an allocation that fails by a wish for another site, because it
 * looked at the site of one wish and at the numbers of another; a name that is
 * read while it is written. Provoked by two wishes in turn, of which only one
 * lets anything fail, with their names in the same bytes, as the monitor's.
 */
#include <stdatomic.h>

#include "base/memory.h"
#include "frame/frame_impl.h"
#include "tests/host/players.h"

#define CHANGES    20000
#define NAME_BYTES 16

static const char spared[NAME_BYTES] = "spared";
static const char failing[NAME_BYTES] = "failing_always";

static _Atomic bool is_over;
static _Atomic uint64_t calls;

static void ask(void)
{
    while (!atomic_load_explicit(&is_over, memory_order_relaxed)) {
        player_expect(!frame_must_fail(spared));
        atomic_fetch_add_explicit(&calls, 1, memory_order_relaxed);
    }
}

/* Let as many calls fail as are asked for by @name. */
static void wish(char *place, const char *name, uint64_t every)
{
    struct frame_injection injection = {.every = every, .site = place};

    frame_inject_set(NULL);
    memcpy(place, name, NAME_BYTES);
    frame_inject_set(&injection);
}

static void wish_in_turn(void)
{
    char place[NAME_BYTES];

    for (unsigned i = 0; i < CHANGES || atomic_load(&calls) < CHANGES; i++) {
        wish(place, spared, 0);
        wish(place, failing, 1);
    }
    player_expect(frame_must_fail(failing));
    atomic_store(&is_over, true);
    frame_inject_set(NULL);
}

static void ask_or_wish(void)
{
    if (player_me()->cpu == 0) {
        wish_in_turn();
    } else {
        ask();
    }
}

TEST(frame_inject, a_site_is_spared_by_wishes_for_another)
{
    atomic_store(&is_over, false);
    atomic_store(&calls, 0);
    CHECK_HELPER(players_run(2, ask_or_wish));
}
