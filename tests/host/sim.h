/* SPDX-License-Identifier: MIT */
/* The simulated machine the host tests run the library on. */
#ifndef TESTS_HOST_SIM_H
#define TESTS_HOST_SIM_H

#include <mm/memmap.h>
#include <mm/pt.h>
#include <mm/types.h>
#include "tests/host/sim_cpus.h"

/* Physical addresses the simulation can have RAM at. */
#ifndef SIM_PHYSICAL_END
#define SIM_PHYSICAL_END (UINT64_C(1) << 40)
#endif

/*
 * Throw the machine away and make a new one with RAM at [0, ram_bytes), all
 * of it zero, one CPU, interrupts on. Touching anything else crashes.
 */
void sim_reset(uint64_t ram_bytes);

/* More RAM, anywhere below SIM_PHYSICAL_END; 4 KiB-aligned. */
void sim_add_ram(uint64_t start, uint64_t bytes);

/*
 * sim_reset() and a memory map as a PC has it: low 1 MiB reserved, the rest
 * usable, what lies above 3 GiB moved to 4 GiB.
 */
void sim_boot_map(uint64_t ram_bytes);
struct memmap *sim_map(void);
/* memmap_build() of a list of claims. */
enum mm_status sim_build_map(const struct memmap_claim *claim, size_t count,
                             uint64_t physical_end, uint64_t mapped_end,
                             struct memmap *out);

/* sim_boot_map(), then frames and records. */
void sim_boot_frames(uint64_t ram_bytes);
/* The same with @cpus CPUs, of which this thread plays number 0. */
void sim_boot_frames_on(uint64_t ram_bytes, unsigned cpus);
/* ... then slab and kmalloc. */
void sim_boot_heap(uint64_t ram_bytes);
/* mm_init(): everything, with the simulated MMU on. */
void sim_boot(uint64_t ram_bytes);
/* The same on another processor. */
void sim_boot_with(uint64_t ram_bytes, const struct pt_features *features);
/* The same where it may fail: what mm_init() says. */
enum mm_status sim_try_boot(uint64_t ram_bytes,
                            const struct pt_features *features);

/*
 * sim_boot() of a machine with @cpus CPUs that have and use @parts (enum
 * tlb_parts): all of them have run tlb_cpu_online(), and this thread plays
 * CPU 0. sim_boot() itself: one CPU, all parts.
 */
void sim_boot_cpus(uint64_t ram_bytes, unsigned cpus, unsigned parts);

#define SIM_ALL_PARTS (TLB_PCID | TLB_INVPCID | TLB_LAZY | TLB_RANGES)

/* For tests that run with different parts: all, each left out, none. */
#define SIM_PART_SETS 6
extern const unsigned sim_part_sets[SIM_PART_SETS];

/* Let record backing fail / work. */
void sim_fail_record_backing(bool fail);

/* Print what port_log() says (SIM_LOG=1 in the environment does, too). */
void sim_set_log(bool on);
/* Lines port_log() printed since the last sim_reset() contain @text? */
bool sim_log_contains(const char *text);

/*
 * Run @act in a copy of this process, which ends when it returns. What the copy
 * writes to the @end that @prepare is given there comes out in @out_said.
 * Return: its status as of waitpid(), < 0 if there was no copy.
 */
int sim_in_child(void (*prepare)(int end), void (*act)(void), char *out_said,
                 size_t size);
/* Does @act, in a copy of this process, end in a panic that says @text? */
bool sim_panics(void (*act)(void), const char *text);

/* pt_lookup() in words: is @address mapped, to what, and how? */
static inline bool sim_lookup(struct pt *pt, vaddr_t address, pfn_t *out_pfn,
                              struct pt_attr *out_attr)
{
    struct pt_leaf leaf = pt_lookup(pt, address);

    if (!pte_is_present(leaf.entry)) {
        return false;
    }
    *out_pfn = pt_leaf_pfn(leaf, address);
    *out_attr = pte_attr(leaf.entry, leaf.level);
    return true;
}

#endif
