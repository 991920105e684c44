/* SPDX-License-Identifier: MIT */
/* sim_watch: the calls of the library that the simulation looks at. */
#ifndef TESTS_HOST_SIM_WATCH_H
#define TESTS_HOST_SIM_WATCH_H

#include <mm/frame.h>
#include <mm/pt.h>

/*
 * The linker leads calls of these functions, from whatever file, to those
 * called __wrap_ first (ld --wrap, see the Makefile); __real_ are the
 * library's own.
 */
pfn_t __real_frame_alloc_at(const char *site, unsigned order,
                            enum frame_type type, unsigned flags);
pfn_t __wrap_frame_alloc_at(const char *site, unsigned order,
                            enum frame_type type, unsigned flags);
void __real_frame_free(pfn_t pfn, unsigned order);
void __wrap_frame_free(pfn_t pfn, unsigned order);
void __real_frame_free_bulk(const pfn_t *frames, unsigned count);
void __wrap_frame_free_bulk(const pfn_t *frames, unsigned count);
void __real_frame_free_row(pfn_t first, unsigned count);
void __wrap_frame_free_row(pfn_t first, unsigned count);
unsigned __real_frame_alloc_bulk_at(const char *site, pfn_t *out,
                                    unsigned count, enum frame_type type,
                                    unsigned flags);
unsigned __wrap_frame_alloc_bulk_at(const char *site, pfn_t *out,
                                    unsigned count, enum frame_type type,
                                    unsigned flags);
enum mm_status __real_pt_open(struct pt *pt, vaddr_t start, vaddr_t end,
                              struct tlb_batch *batch, struct pt_cursor *out);
enum mm_status __wrap_pt_open(struct pt *pt, vaddr_t start, vaddr_t end,
                              struct tlb_batch *batch, struct pt_cursor *out);
enum mm_status __real_pt_open_two(struct pt *pt, vaddr_t start, vaddr_t end,
                                  vaddr_t start2, vaddr_t end2,
                                  struct tlb_batch *batch,
                                  struct pt_cursor *out);
enum mm_status __wrap_pt_open_two(struct pt *pt, vaddr_t start, vaddr_t end,
                                  vaddr_t start2, vaddr_t end2,
                                  struct tlb_batch *batch,
                                  struct pt_cursor *out);
void __real_pt_close(struct pt_cursor *cursor);
void __wrap_pt_close(struct pt_cursor *cursor);
void __real_tlb_commit(struct tlb_batch *batch);
void __wrap_tlb_commit(struct tlb_batch *batch);
void __real_tlb_begin_lazy(void);
void __wrap_tlb_begin_lazy(void);
void __real_tlb_end_lazy(void);
void __real_tlb_switch(struct tlb_space *space);
void __wrap_tlb_end_lazy(void);
void __wrap_tlb_switch(struct tlb_space *space);

#endif
