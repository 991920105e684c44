/* SPDX-License-Identifier: MIT */
/* shrink: who keeps memory for comfort, and gives it back when it is short. */
#ifndef MM_SHRINK_H
#define MM_SHRINK_H

#include <stdatomic.h>

#include <mm/types.h>

/* Who is asked first: what costs least to do without. */
enum shrink_priority {
    SHRINK_SPARE, /* kept for nobody: free objects, empty slabs */
    SHRINK_CHEAP, /* can be made again by work */
    SHRINK_DEAR,  /* must be written or read again */
    SHRINK_PRIORITIES
};

/*
 * One that can give back. The caller owns it and fills the first five in; it
 * stays where it is until shrink_unregister().
 * (C) constant while registered, (L) the list's lock, (A) atomic.
 *
 * Its functions are called by any CPU, by several at once, in the context of an
 * allocation or of an interrupt, with interrupts on or off. They may free
 * frames and objects of the heap and take locks of rank *caches* or higher,
 * and locks of the host that nobody holds while it allocates. They register
 * nothing. What they allocate themselves is not reclaimed for: it comes from
 * what is free, or not at all. They wait for nobody; at most they look for some
 * thousand turns whether another CPU is done with something.
 */
struct shrinker {
    const char *name;              /* (C) */
    enum shrink_priority priority; /* (C) */
    /* (C) How many frames could be freed, about? For the eye; changes nothing.
     */
    uint64_t (*count)(void *context);
    /*
     * (C) Free about @frames frames; more if that is no dearer. Return: how
     * many were freed; 0 if there is nothing left to give.
     */
    uint64_t (*scan)(void *context, uint64_t frames);
    /*
     * (C) Free what this CPU keeps for itself, or put it where scan() finds
     * it; NULL if CPUs keep nothing. Return: how many frames were freed.
     */
    uint64_t (*drain)(void *context);
    void *context;          /* (C) */
    struct shrinker *next;  /* (L) by priority */
    uint32_t users;         /* (L) calls under way */
    bool is_leaving;        /* (L) no new calls */
    _Atomic uint64_t asked; /* (A) calls of scan() */
    _Atomic uint64_t freed; /* (A) frames, by scan() and drain() */
};

/* What is known of one; `shrink` in the monitor. */
struct shrink_info {
    const char *name;
    enum shrink_priority priority;
    uint64_t count; /* frames it could free now */
    uint64_t asked; /* since it was registered */
    uint64_t freed;
};

/* None is registered. Before the heap, whose shrinker is the first. */
void shrink_init(void);

/* From here on @shrinker is asked, after all of its priority. */
void shrink_register(struct shrinker *shrinker);

/*
 * It is not asked any more: calls under way have ended.
 * Context: ordinary code without locks, not from a shrinker.
 */
void shrink_unregister(struct shrinker *shrinker);

/*
 * Have shrinkers free @frames frames, by priority, and drain what they have
 * freed on this CPU instead, such as objects. If that is not enough, every
 * other CPU that keeps something is asked by port_send_frame_interrupt()
 * to drain it, and waited for, and all are asked once more.
 * Return: how many were freed, more or fewer; 0 also if this is called inside
 *         itself: an allocation by a shrinker, or by an interrupt on its CPU.
 * Context: as struct frame_reclaim has it, whose reclaim() this can be.
 */
uint64_t shrink_reclaim(uint64_t frames);

/*
 * What port_send_frame_interrupt() asks for beside frame_interrupt(): this CPU
 * drains what it keeps, if another one is short of it.
 * Context: interrupts off, no lock held; not from NMI or machine check.
 */
void shrink_interrupt(void);

/*
 * This CPU keeps something that a drain() would give back; else it is not
 * asked. Cheap enough for each refill.
 * Context: interrupts off.
 */
void shrink_note_kept(void);

/* Number @index in the order in which they are asked; false: there is none. */
bool shrink_look(unsigned index, struct shrink_info *out);

const char *shrink_priority_name(enum shrink_priority priority);

#endif
