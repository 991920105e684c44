/* SPDX-License-Identifier: MIT */
/* apic: the local APIC of each processor: interrupts from one to another. */
#ifndef KERNEL_APIC_H
#define KERNEL_APIC_H

#include <mm/types.h>

/* The highest class of priority: nothing else must keep these waiting. */
enum apic_vector {
    APIC_VECTOR_TLB = 0xf0,   /* another CPU wants an invalidation */
    APIC_VECTOR_WAKE = 0xf1,  /* there is work */
    APIC_VECTOR_FRAME = 0xf2, /* another CPU wants the frames this one keeps */
    APIC_VECTOR_SPURIOUS = 0xff /* must not be acknowledged */
};

/*
 * Turn on the local APIC of the first processor. The interrupts of the 8259
 * come through it then as before, and also if this fails.
 * Return: MM_OK; MM_ENOENT: there is none, or the firmware has turned it off;
 *         MM_ENOMEM: no window onto its registers; MM_EINVAL: its id is not
 *         the one CPUID says, by which a processor finds what it has.
 * Context: once, after mm_init(), interrupts off.
 */
MM_MUST_CHECK enum mm_status apic_init(void);

/* The same on another processor, after apic_init(). */
void apic_start(void);

/* After apic_init() has returned MM_OK. */
bool apic_is_on(void);
/* Registers by MSR (ids of 32 bits) instead of memory (8 bits)? */
bool apic_is_x2(void);

/* The id of this processor's, as others must address it. */
uint32_t apic_id(void);
/* Can interrupts be sent to @id? Not above 254 without x2APIC. */
bool apic_can_reach(uint32_t id);

/*
 * Interrupt the processor with @id.
 * What was stored before is visible there when it is interrupted.
 * Context: interrupts off; any, also from an NMI that does not return.
 */
void apic_send(uint32_t id, enum apic_vector vector);
void apic_send_nmi(uint32_t id);

/*
 * The two steps that make a processor start in real mode at @code, a page
 * below 1 MiB. [SDM-3A 9.4.4.1 "Typical BSP Initialization Sequence"]
 */
void apic_send_init(uint32_t id);
void apic_send_startup(uint32_t id, paddr_t code);

/* Bits of the error status register since the last call; 0: no error. */
uint32_t apic_take_errors(void);

/* Does @vector wait for this processor to turn interrupts on? */
bool apic_is_requested(enum apic_vector vector);

/* Is @vector being handled, and not ended yet? */
bool apic_is_in_service(unsigned vector);

/* The interrupt is handled; the next may come. */
void apic_end_interrupt(void);

#endif
