/* SPDX-License-Identifier: MIT */
/* The GNU extensions Vellum uses, each under a name; nowhere else. */
#ifndef MM_BASE_COMPILER_H
#define MM_BASE_COMPILER_H

/* The caller must look at the result. */
#define MM_MUST_CHECK __attribute__((warn_unused_result))
/* printf-like: parameter numbers of the format and of the first argument. */
#define MM_PRINTF(text, first) __attribute__((format(printf, text, first)))
#define MM_NORETURN            _Noreturn
#define MM_ALIGNED(bytes)      __attribute__((aligned(bytes)))
#define MM_PACKED              __attribute__((packed))
#define MM_SECTION(name)       __attribute__((section(name), used))
#define MM_NOINLINE            __attribute__((noinline))
/* Always a part of who calls it: MM_CALLER() in it is that one's caller. */
#define MM_INLINE inline __attribute__((always_inline))
/* Does the compiler know the value? */
#define MM_IS_CONSTANT(x) __builtin_constant_p(x)
#define MM_LIKELY(x)      __builtin_expect(!!(x), 1)
#define MM_UNLIKELY(x)    __builtin_expect(!!(x), 0)
/* Make the loop that follows @turns copies of its body, of constants each. */
#define MM_UNROLL(turns) MM_PRAGMA(GCC unroll turns)
#define MM_PRAGMA(text)  _Pragma(#text)
/* Memory relative to GS; gcc has no word for it in ISO C. */
#if defined(__clang__) || !defined(__STRICT_ANSI__)
#define MM_GS __seg_gs
#endif
/* @pointer stays what it is, in a register, and the compiler forgets why. */
#define MM_OPAQUE(pointer) __asm__("" : "+r"(pointer))
/* The address this function returns to: the call site of an allocation. */
#define MM_CALLER() ((uintptr_t)__builtin_return_address(0))

/* Lock contracts; documentation for gcc, checked by clang -Wthread-safety. */
#if defined(__clang__)
#define MM_CAPABILITY(name) __attribute__((capability(name)))
#define MM_ACQUIRES(lock)   __attribute__((acquire_capability(lock)))
#define MM_RELEASES(lock)   __attribute__((release_capability(lock)))
#define MM_REQUIRES(lock)   __attribute__((requires_capability(lock)))
#define MM_NO_ANALYSIS      __attribute__((no_thread_safety_analysis))
#else
#define MM_CAPABILITY(name)
#define MM_ACQUIRES(lock)
#define MM_RELEASES(lock)
#define MM_REQUIRES(lock)
#define MM_NO_ANALYSIS
#endif

#endif
