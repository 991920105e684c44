/* SPDX-License-Identifier: MIT */
/* shootdown: the protocol of mm/map/tlb*.c, every interleaving of it. */
/*
 * At risk: a CPU that uses a frame or a table after it was released, and an
 * initiator that waits for ever. Provoked by spin, which runs every order of
 * the steps below: 3 CPUs, one space of two or three pages under one table, a
 * batch a page, and what the macros add (scripts/check-models has the sets).
 *
 *   INITIATORS     CPUs 0 .. INITIATORS-1 unmap a page each, at the same time
 *   TABLES         who unmaps the last page frees the table as well
 *   SWITCHERS      CPUs, a bit each, that switch between space and kernel
 *   IDLERS         those that are lazy from time to time
 *   VISITORS       those that descend without a lock
 *   PCID, INVPCID  what the CPUs have
 *   FREE           the MMU caches when it likes; else all it can, at once
 *   ENDS           for the formula at the end
 *   MUTANT         a step that is missing or out of place, by the names below
 *
 * Steps     One statement is one access to what is shared. d_step and atomic
 *           join what the code does by one instruction, or what no other CPU
 *           can see. A full barrier is the order of two statements: x86-64 lets
 *           only loads overtake stores, and wherever that matters the code has
 *           a locked instruction. A barrier that is missing is a mutant in
 *           which the two statements change places.
 * Hardware  may fill the TLB (`cached`) and the paging-structure cache (`way`)
 *           as long as CR3 holds the space: in idle CPUs, and with interrupts
 *           off. What is cached decides no step, so to cache all there is at
 *           once shows every error that caching less would; one set has FREE
 *           all the same.
 * Truth     What is released counts as handed out in the same moment: `gone`.
 *
 * Checked   No stale use: the assertions in Hardware and visit().
 *           No deadlock, no lost answer: nothing comes to rest before all
 *           batches are through ("invalid end state"). CPUs with other things
 *           to do may retire, which shows who waits in vain.
 *           Every batch ends: the formula, in all fair runs.
 *
 * Limits    One space: slots are not taken in turn, and ways to the kernel's
 *           tables under other PCIDs are left to the host tests. The kernel's
 *           space is this one without switches; tlb_cpu_online() is
 *           load_space() without PCIDs.
 */

#define CPUS        3
#define KERNEL      0
#define SPACE       1
#define PAGES       ((1 << INITIATORS) - 1)
#define BIT(number) (1 << (number))
#define ME          BIT(me)
#define HAS(set)    ((((set) >> me) & 1) == 1)
#define LOWEST(set) (((set) & 1) -> 0 : (((set) & 2) -> 1 : 2))

#ifndef MUTANT
#define MUTANT 0
#endif
#define NO_WAIT       1  /* tlb_shoot() does not wait */
#define EARLY_RELEASE 2  /* tlb_commit() releases before it flushes */
#define LOCAL_ONLY    3  /* tlb_shoot() asks nobody */
#define LATE_COUNT    4  /* tlb_shoot() reads the set, then raises the number */
#define EARLY_ALONE   5  /* is_alone() is asked before the number is raised */
#define LATE_REQUEST  6  /* tlb_shoot() posts the request, then fills it in */
#define LATE_MEMBER   7  /* load() reads the generation, then enters the set */
#define EARLY_LEAVE   8  /* load() leaves the old set before it writes CR3 */
#define BLIND_KEEP    9  /* load() keeps what is cached without comparing */
#define LATE_AWAKE    10 /* tlb_end_lazy() catches up, then clears the flag */
#define LATE_READ     11 /* catch_up() flushes, then reads the generation */
#define DEAF          12 /* await() does not serve */
#define EARLY_ANSWER  13 /* answer() counts down before it flushes */
#define TORN_TAKE     14 /* serve() reads the inbox, then clears it */
#define TORN_POST     15 /* post() reads the inbox, then puts its bit in */
#define NO_INTERRUPT  16 /* post() interrupts only who has something to do */
#define SPARE_TABLES  17 /* is_spared() does not ask for tables */
#define STAY_LAZY     18 /* is_done_idle() does not leave */
#define LAZY_MADE     19 /* is_done_idle() records a flush it has not made */
#define BLIND_GAP     20 /* apply_to_space() takes ranges, however far behind */
#define DEFERRED_MADE 21 /* apply_to_space() records what must wait */
#define KEEP_WAYS     22 /* flush_space() does not ask for tables */
#define NO_VISIT      23 /* tlb_begin_visit() does not enter the set */
#define OPEN_VISIT    24 /* pt_lookup() is called with interrupts on */
#define LOST_PLACE    25 /* tlb_end_visit() leaves what load() has entered */

/* struct tlb_space */
byte generation;
byte members = 7;

/* the tables: present entries of the last level, and the entry above it */
byte entries = PAGES;
bool hooked = true;

/* what has been released, a bit a page; and the table */
byte frames_gone;
bool table_gone;

byte ended; /* initiators whose batch is through */

/* struct tlb_cpu; of the slots only the space's matters */
typedef Cpu {
    bool loaded = SPACE; /* CR3 */
    byte made;           /* slot.generation */
    bool using = true;   /* entries of the space may be used */
    bool lazy;
    byte inbox;
    bool interrupt;      /* pending */
    byte awaiting;       /* struct tlb_request ... */
    byte generation;
    bool tables;
    byte cached = PAGES; /* the TLB, a bit a page */
    bool way = true;     /* the paging-structure cache leads to the table */
};
Cpu cpu[CPUS];

/* --- hardware ------------------------------------------------------------- */

#define USES_FREE_FRAME (cpu[me].using && (cpu[me].cached & frames_gone) != 0)
#define WALKS_FREE_TABLE                                                     \
    (cpu[me].loaded == SPACE && cpu[me].way && table_gone)

/* The MMU, and the program that runs: at any moment. */
proctype Hardware(byte me)
{
end:
    do
    :: atomic { USES_FREE_FRAME -> assert(!USES_FREE_FRAME) }
    :: atomic { WALKS_FREE_TABLE -> assert(!WALKS_FREE_TABLE) }
#ifdef FREE
    :: atomic {
        cpu[me].loaded == SPACE && hooked && !cpu[me].way ->
        cpu[me].way = true
    }
    :: atomic {
        cpu[me].loaded == SPACE && cpu[me].way &&
            (entries & ~cpu[me].cached) != 0 ->
        if
        :: (entries & ~cpu[me].cached & 1) != 0 ->
            cpu[me].cached = cpu[me].cached | 1
        :: (entries & ~cpu[me].cached & 2) != 0 ->
            cpu[me].cached = cpu[me].cached | 2
        :: (entries & ~cpu[me].cached & 4) != 0 ->
            cpu[me].cached = cpu[me].cached | 4
        fi
    }
#endif
    od
}

/* After a flush, or a load of CR3: everything there is is cached at once. */
inline fill()
{
#ifndef FREE
    if
    :: cpu[me].loaded == SPACE ->
        cpu[me].way = cpu[me].way || hooked;
        cpu[me].cached = cpu[me].cached | (cpu[me].way -> entries : 0)
    :: else -> skip
    fi
#else
    skip
#endif
}

/* --- tlb_cpu.c ------------------------------------------------------------ */

/* All that is cached of the space. */
inline forget()
{
    cpu[me].cached = 0;
    cpu[me].way = false;
    fill()
}

/* set_made() */
inline set_made(number)
{
    cpu[me].made = number;
    cpu[me].using = cpu[me].loaded == SPACE
}

/* load() of the space: the set, the generation, CR3 */
inline load_space()
{
#if MUTANT == LATE_MEMBER
    now = generation;
    members = members | ME;
#else
    members = members | ME;
    now = generation;
#endif
    d_step {
        if
        :: PCID && (cpu[me].made == now || MUTANT == BLIND_KEEP) -> skip
        :: else -> forget()
        fi;
        cpu[me].loaded = SPACE;
        fill();
        set_made(now);
        now = 0
    }
}

/* load() of the kernel's tables */
inline load_kernel()
{
#if MUTANT == EARLY_LEAVE
    members = members & ~ME;
#endif
    d_step {
        cpu[me].using = false;
        cpu[me].loaded = KERNEL;
        if
        :: !PCID -> forget()
        :: else -> skip
        fi
    }
    members = members & ~ME
}

/* tlb_begin_lazy() */
inline begin_lazy()
{
    cpu[me].using = false;
    cpu[me].lazy = true
}

/* catch_up() */
inline catch_up()
{
    if
    :: cpu[me].loaded == SPACE ->
#if MUTANT == LATE_READ
        forget();
        now = generation;
#else
        now = generation;
#endif
        d_step {
            if
            :: cpu[me].made != now && MUTANT != LATE_READ -> forget()
            :: else -> skip
            fi;
            set_made(now);
            now = 0
        }
    :: else -> skip
    fi
}

/* tlb_end_lazy() */
inline end_lazy()
{
#if MUTANT == LATE_AWAKE
    catch_up();
    cpu[me].lazy = false
#else
    cpu[me].lazy = false;
    catch_up()
#endif
}

/* flush_space(): one behind, so the ranges will do */
inline flush_space(from)
{
    d_step {
        if
        :: cpu[me].loaded == SPACE -> /* INVLPG */
            cpu[me].cached = cpu[me].cached & ~BIT(from);
            cpu[me].way = false;
            fill();
            set_made(cpu[from].generation)
        :: cpu[me].loaded != SPACE && INVPCID &&
            (!cpu[from].tables || MUTANT == KEEP_WAYS) ->
            cpu[me].cached = cpu[me].cached & ~BIT(from);
            set_made(cpu[from].generation)
        :: cpu[me].loaded != SPACE && INVPCID &&
            cpu[from].tables && MUTANT != KEEP_WAYS ->
            forget();
            set_made(cpu[from].generation)
        :: cpu[me].loaded != SPACE && !INVPCID -> /* waits for the switch */
            if
            :: MUTANT == DEFERRED_MADE -> set_made(cpu[from].generation)
            :: else -> skip
            fi
        fi
    }
}

/* flush_slot(): further behind, so all of the space */
inline flush_gap()
{
    now = generation;
    d_step {
        if
        :: cpu[me].loaded == SPACE || INVPCID ->
            forget();
            set_made(now)
        :: else -> skip
        fi;
        now = 0
    }
}

/* apply_to_space() */
inline apply(from)
{
    if
    :: (!PCID && cpu[me].loaded != SPACE) ||
        cpu[me].made >= cpu[from].generation ->
        skip /* no slot, or overtaken */
    :: else ->
        if
        :: cpu[me].loaded == SPACE && cpu[me].lazy -> /* is_done_idle() */
            if
            :: cpu[from].tables && MUTANT != STAY_LAZY -> load_kernel()
            :: else -> skip
            fi
#if MUTANT == LAZY_MADE
            ;
            cpu[me].made = cpu[from].generation
#endif
        :: else ->
            if
            :: cpu[me].made + 1 == cpu[from].generation ||
                MUTANT == BLIND_GAP ->
                flush_space(from)
            :: else -> flush_gap()
            fi
        fi
    fi
}

#define IS_VISIT (cpu[me].loaded != SPACE && MUTANT != NO_VISIT)

/* pt_lookup(), between tlb_begin_visit() and tlb_end_visit() */
inline visit()
{
    if
    :: IS_VISIT -> members = members | ME
    :: else -> skip
    fi;
    if
    :: hooked ->
#if MUTANT == OPEN_VISIT
        do
        :: cpu[me].interrupt -> take_interrupt()
        :: break
        od;
#endif
        assert(!table_gone) /* what it found is read now */
    :: else -> skip
    fi;
    if
    :: IS_VISIT || MUTANT == LOST_PLACE -> members = members & ~ME
    :: else -> skip
    fi
}

/* --- tlb_shoot.c ---------------------------------------------------------- */

/* answer() */
inline answer(from)
{
#if MUTANT == EARLY_ANSWER
    cpu[from].awaiting--;
    apply(from)
#else
    apply(from);
    cpu[from].awaiting--
#endif
}

/* serve() */
inline serve()
{
#if MUTANT == TORN_TAKE
    askers = cpu[me].inbox;
    cpu[me].inbox = 0;
#else
    d_step {
        askers = cpu[me].inbox;
        cpu[me].inbox = 0
    }
#endif
    do
    :: askers != 0 ->
        d_step {
            asker = LOWEST(askers);
            askers = askers & (askers - 1)
        }
        answer(asker)
    :: else -> break
    od;
    asker = 0
}

/* tlb_interrupt() */
inline take_interrupt()
{
    cpu[me].interrupt = false;
    serve()
}

/* post(); the read of the inbox and the bit in it are one fetch_or */
inline post()
{
#if MUTANT == TORN_POST
    others = cpu[target].inbox;
    d_step {
        cpu[me].awaiting++;
        cpu[target].inbox = cpu[target].inbox | ME
    }
#else
    d_step {
        cpu[me].awaiting++;
        others = cpu[target].inbox;
        cpu[target].inbox = others | ME
    }
#endif
    if
    :: (others == 0) == (MUTANT != NO_INTERRUPT) ->
        cpu[target].interrupt = true
    :: else -> skip
    fi;
    others = 0
}

/* post_all(), of the set in `targets`, with is_spared() */
inline post_all()
{
    do
    :: targets != 0 ->
        d_step {
            target = LOWEST(targets);
            targets = targets & (targets - 1)
        }
        if
        :: cpu[target].lazy && (!cpu[me].tables || MUTANT == SPARE_TABLES) ->
            skip
        :: else -> post()
        fi
    :: else -> break
    od;
    target = 0
}

/* await(); blocked here is a loop that sees nothing new */
inline await()
{
    do
    :: cpu[me].awaiting == 0 || MUTANT == NO_WAIT -> break
    :: cpu[me].inbox != 0 && MUTANT != DEAF -> serve()
    od
}

/* the atomic_fetch_add of tlb_shoot() */
inline count()
{
    d_step {
        generation++;
        request = generation
    }
}

/* tlb_shoot(); the set is read twice, as is_alone() and post_all() do */
inline shoot()
{
#if MUTANT == EARLY_ALONE
    targets = members & ~ME;
    count();
#elif MUTANT == LATE_COUNT
    targets = members & ~ME;
    if
    :: targets != 0 -> targets = members & ~ME
    :: else -> skip
    fi;
    count();
#else
    count();
    targets = (MUTANT == LOCAL_ONLY -> 0 : members & ~ME);
#endif
    if
    :: targets != 0 ->
#if MUTANT == LATE_REQUEST
        targets = members & ~ME;
        post_all();
        cpu[me].generation = request;
#else
        cpu[me].generation = request;
#if MUTANT != LATE_COUNT
        targets = members & ~ME;
#endif
        post_all();
#endif
        apply(me);
        await()
    :: else ->
        cpu[me].generation = request;
        apply(me)
    fi;
    request = 0
}

/* release() of tlb.c */
inline release()
{
    frames_gone = frames_gone | ME;
    if
    :: cpu[me].tables -> table_gone = true
    :: else -> skip
    fi
}

/* pt_unmap(), under the lock of the tables: cursor_swap() */
inline change()
{
    d_step {
        entries = entries & ~ME;
        cpu[me].tables = TABLES && entries == 0
    }
    if
    :: cpu[me].tables -> hooked = false
    :: else -> skip
    fi
}

/* tlb_commit() */
inline commit()
{
#if MUTANT == EARLY_RELEASE
    release();
    shoot();
#else
    shoot();
    release();
#endif
    ended++
}

/* --- a CPU, with interrupts on between two of its options ----------------- */

#define NOTHING 0
#define UNMAP   1
#define COMMIT  2

#ifdef ENDS
/* An interrupt comes before anything else, or it might never. */
#define MAY(set) (HAS(set) && !retired && !cpu[me].interrupt)
#else
#define MAY(set) (HAS(set) && !retired)
#endif

proctype Processor(byte me)
{
    byte due = (me < INITIATORS -> UNMAP : NOTHING);
    bool retired;
    byte now;
    byte askers;
    byte asker;
    byte targets;
    byte target;
    byte others;
    byte request;

end:
    do
    :: cpu[me].interrupt -> take_interrupt()
    :: due == UNMAP && !cpu[me].lazy ->
        due = COMMIT;
        change()
    :: due == COMMIT && !cpu[me].lazy ->
        due = NOTHING;
        commit()
    :: MAY(SWITCHERS) && !cpu[me].lazy && cpu[me].loaded == SPACE ->
        load_kernel()
    /* Idle CPUs come back, too, if a freed table has made them leave. */
    :: MAY(SWITCHERS | IDLERS) && !cpu[me].lazy && cpu[me].loaded == KERNEL ->
        load_space()
    :: MAY(IDLERS) && !cpu[me].lazy -> begin_lazy()
    :: MAY(IDLERS) && cpu[me].lazy -> end_lazy()
    :: MAY(VISITORS) && !cpu[me].lazy -> visit()
#ifndef ENDS
    :: MAY(SWITCHERS | IDLERS | VISITORS) && due == NOTHING &&
        cpu[me].loaded == SPACE && !cpu[me].lazy ->
        retired = true
#endif
    od
}

init {
    atomic {
        run Processor(0);
        run Processor(1);
        run Processor(2);
        run Hardware(0);
        run Hardware(1);
        run Hardware(2)
    }
}

#ifdef ENDS
ltl every_batch_ends { <> (ended == INITIATORS) }
#endif
