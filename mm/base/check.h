/* SPDX-License-Identifier: MIT */
/* Asserts: facts about our own code, checked at run time. */
#ifndef MM_BASE_CHECK_H
#define MM_BASE_CHECK_H

#include <mm/port.h>

/* Cheap, in every build: a precondition, a result, a change of state. */
#define ASSERT(condition)                                                      \
    do {                                                                       \
        if (MM_UNLIKELY(!(condition))) {                                       \
            port_panic("assertion failed: %s (%s:%d)", #condition, __FILE__,   \
                       __LINE__);                                              \
        }                                                                      \
    } while (0)

/* May walk a structure; only where MM_DEBUG is on. */
#define ASSERT_SLOW(condition)                                                 \
    do {                                                                       \
        if (MM_DEBUG) {                                                        \
            ASSERT(condition);                                                 \
        }                                                                      \
    } while (0)

/* In x_check(): name the broken invariant and answer false. */
#define CHECK_OR_FAIL(condition, ...)                                          \
    do {                                                                       \
        if (!(condition)) {                                                    \
            port_log("check failed: " __VA_ARGS__);                            \
            return false;                                                      \
        }                                                                      \
    } while (0)

#endif
