/* SPDX-License-Identifier: MIT */
/* frame_inject: allocations that fail on demand, for tests. */
/*
 * Owns    what is to fail, and how often it was asked for.
 * Idea    Deterministic: the same calls fail in every run. A test lets the
 *         first, the second, ... allocation fail until nothing does any more,
 *         and has been everywhere.
 *         What is to fail may change while others allocate. They must not
 *         judge by the site of one wish and the numbers of another: who finds
 *         that it has changed meanwhile lets the call be. Of the site no more
 *         is kept than a number made of its name, which is read at once.
 * Limits  A call under way when the wish changes may be counted for the new
 *         one. Two names may have the same number: 1 in 2^63.
 */
#include "frame/frame_impl.h"

#if MM_INJECT

#define ANY_SITE 0

static _Atomic uint64_t changes;    /* (A) of the next three; odd: under way */
static _Atomic uint64_t fail_nth;   /* (A) 0: none */
static _Atomic uint64_t fail_every; /* (A) 0: none */
static _Atomic uint64_t fail_site;  /* (A) site_number(), or ANY_SITE */
static _Atomic uint64_t tried;      /* (A) calls of the site */
static _Atomic uint64_t failed;     /* (A) those that had to fail */

/* FNV-1a of the name; never ANY_SITE. */
static uint64_t site_number(const char *site)
{
    uint64_t number = UINT64_C(0xcbf29ce484222325);

    for (; *site != '\0'; site++) {
        number = (number ^ (unsigned char)*site) * UINT64_C(0x100000001b3);
    }
    return number | 1;
}

void frame_inject_set(const struct frame_injection *injection)
{
    static const struct frame_injection none;

    if (injection == NULL) {
        injection = &none;
    }
    uint64_t site =
        injection->site == NULL ? ANY_SITE : site_number(injection->site);
    atomic_fetch_add(&changes, 1);
    atomic_store(&fail_nth, injection->nth);
    atomic_store(&fail_every, injection->every);
    atomic_store(&fail_site, site);
    atomic_store(&tried, 0);
    atomic_store(&failed, 0);
    atomic_fetch_add(&changes, 1);
}

void frame_inject(uint64_t nth)
{
    frame_inject_set(&(struct frame_injection){.nth = nth});
}

uint64_t frame_inject_count(void)
{
    return atomic_load(&tried);
}

uint64_t frame_inject_failed(void)
{
    return atomic_load(&failed);
}

bool frame_must_fail(const char *site)
{
    uint64_t seen = atomic_load(&changes);
    uint64_t nth = atomic_load(&fail_nth);
    uint64_t every = atomic_load(&fail_every);
    uint64_t wanted = atomic_load(&fail_site);

    if (seen % 2 != 0 || seen != atomic_load(&changes) ||
        (wanted != ANY_SITE && wanted != site_number(site))) {
        return false;
    }
    uint64_t call = atomic_fetch_add(&tried, 1) + 1;
    bool must_fail = call == nth || (every != 0 && call % every == 0);
    if (must_fail) {
        (void)atomic_fetch_add(&failed, 1);
    }
    return must_fail;
}

#endif
