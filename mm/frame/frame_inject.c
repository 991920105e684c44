/* SPDX-License-Identifier: MIT */
/* frame_inject: allocations that fail on demand, for tests. */
/*
 * Owns    what is to fail, and how often it was asked for.
 * Idea    Deterministic: the same calls fail in every run. A test lets the
 *         first, the second, ... allocation fail until nothing does any more,
 *         and has been everywhere.
 */
#include "frame/frame_impl.h"

#if MM_INJECT

static _Atomic uint64_t fail_nth;     /* (A) 0: none */
static _Atomic uint64_t fail_every;   /* (A) 0: none */
static const char *_Atomic fail_site; /* (A) NULL: any */
static _Atomic uint64_t tried;        /* (A) calls of the site */
static _Atomic uint64_t failed;       /* (A) those that had to fail */

void frame_inject_set(const struct frame_injection *injection)
{
    static const struct frame_injection none;

    if (injection == NULL) {
        injection = &none;
    }
    atomic_store(&fail_nth, 0);
    atomic_store(&fail_every, 0);
    atomic_store(&fail_site, injection->site);
    atomic_store(&tried, 0);
    atomic_store(&failed, 0);
    atomic_store(&fail_every, injection->every);
    atomic_store(&fail_nth, injection->nth);
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

static bool is_same(const char *a, const char *b)
{
    while (*a != '\0' && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

bool frame_must_fail(const char *site)
{
    const char *wanted = atomic_load(&fail_site);
    uint64_t every = atomic_load(&fail_every);

    if (wanted != NULL && !is_same(site, wanted)) {
        return false;
    }
    uint64_t call = atomic_fetch_add(&tried, 1) + 1;
    bool must_fail =
        call == atomic_load(&fail_nth) || (every != 0 && call % every == 0);
    if (must_fail) {
        (void)atomic_fetch_add(&failed, 1);
    }
    return must_fail;
}

#endif
