/* SPDX-License-Identifier: MIT */
/* The simulated MMU itself: each instruction forgets what it must, no more. */
/*
 * At risk: a simulation that forgives. An instruction that forgets more than
 * the manual promises hides a bug in every test there is. So each is tried on
 * a TLB that has the same page under two PCIDs, and a global one.
 */
#include "tests/host/tlb_scene.h"

#include "tests/host/sim_mmu_impl.h"
#include "x86_64/mmu.h"

static struct pt other;

/* What is cached: the page at BASE of each, the kernel's, the ways to them. */
enum known {
    MINE = 1 << 0,
    OTHERS = 1 << 1,
    GLOBAL = 1 << 2,
    MY_WAY = 1 << 3,
    MY_KERNEL_WAY = 1 << 4, /* under the PCID of my space */
    OTHERS_WAY = 1 << 5,
    EVERYTHING = (1 << 6) - 1
};

static unsigned pcid_of(struct pt *pt)
{
    tlb_switch(&pt->tlb);
    return sim_pcid(sim_this_tlb());
}

static unsigned known_translations(unsigned mine, unsigned others)
{
    const struct sim_tlb *tlb = sim_this_tlb();
    unsigned known = 0;

    for (unsigned i = 0; i < tlb->translations; i++) {
        const struct translation *one = &tlb->translation[i];

        known |= one->is_global && one->start == KERNEL_PAGE ? GLOBAL : 0;
        known |= one->start == BASE && one->pcid == mine ? MINE : 0;
        known |= one->start == BASE && one->pcid == others ? OTHERS : 0;
    }
    return known;
}

static unsigned known_ways(unsigned mine, unsigned others)
{
    const struct sim_tlb *tlb = sim_this_tlb();
    unsigned known = 0;

    for (unsigned i = 0; i < tlb->shortcuts; i++) {
        const struct shortcut *one = &tlb->shortcut[i];

        if (one->pcid == others) {
            known |= OTHERS_WAY;
        } else if (one->pcid == mine) {
            known |= one->start >> 63 ? MY_KERNEL_WAY : MY_WAY;
        }
    }
    return known;
}

/* A TLB with everything in it, my space loaded. */
static void fill_all(unsigned *mine, unsigned *others)
{
    CHECK_HELPER(start_cpus(1, SIM_ALL_PARTS));
    CHECK_EQUAL(pt_init(&other), MM_OK);
    CHECK_HELPER(map_pages(&space, BASE, 1));
    CHECK_HELPER(map_pages(&other, BASE, 1));
    CHECK_HELPER(map_pages(&pt_kernel, KERNEL_PAGE, 1));
    *others = pcid_of(&other);
    CHECK_HELPER(touch_pages(BASE, 1));
    *mine = pcid_of(&space);
    CHECK_HELPER(touch_pages(BASE, 1));
    CHECK_HELPER(touch_pages(KERNEL_PAGE, 1));
    CHECK(*mine != *others && *mine != 0 && *others != 0);
}

enum tried {
    INVLPG_MINE,
    INVLPG_GLOBAL,
    ADDRESS_OTHERS,
    ADDRESS_GLOBAL,
    CONTEXT_OTHERS,
    ALL_GLOBAL,
    ALL,
    CR3,
    CR3_KEEP,
    CR3_OTHERS,
    CR3_OTHERS_KEEP,
    CR4,
    FAULT,
    TRIED
};

static void try(enum tried what, unsigned mine, unsigned others)
{
    switch (what) {
    case INVLPG_MINE:
        mmu_invlpg(BASE);
        break;
    case INVLPG_GLOBAL:
        mmu_invlpg(KERNEL_PAGE);
        break;
    case ADDRESS_OTHERS:
        mmu_invpcid(MMU_INVPCID_ADDRESS, others, BASE);
        break;
    case ADDRESS_GLOBAL:
        mmu_invpcid(MMU_INVPCID_ADDRESS, mine, KERNEL_PAGE);
        break;
    case CONTEXT_OTHERS:
        mmu_invpcid(MMU_INVPCID_CONTEXT, others, 0);
        break;
    case ALL_GLOBAL:
        mmu_invpcid(MMU_INVPCID_ALL_GLOBAL, 0, 0);
        break;
    case ALL:
        mmu_invpcid(MMU_INVPCID_ALL, 0, 0);
        break;
    case CR3:
        mmu_write_cr3(space.tlb.root.v | mine);
        break;
    case CR3_KEEP:
        mmu_write_cr3(space.tlb.root.v | mine | MMU_CR3_KEEP);
        break;
    case CR3_OTHERS:
        mmu_write_cr3(other.tlb.root.v | others);
        break;
    case CR3_OTHERS_KEEP:
        mmu_write_cr3(other.tlb.root.v | others | MMU_CR3_KEEP);
        break;
    case CR4:
        mmu_flush_all();
        break;
    default:
        sim_forget_page(BASE);
        break;
    }
}

/* [SDM-3A 4.10.4.1 "Operations that Invalidate TLBs and ..."] */
TEST(sim_mmu, each_instruction_forgets_what_it_must_and_no_more)
{
    static const unsigned left[TRIED] = {
        [INVLPG_MINE] = OTHERS | GLOBAL | OTHERS_WAY,
        [INVLPG_GLOBAL] = MINE | OTHERS | OTHERS_WAY,
        [ADDRESS_OTHERS] = MINE | GLOBAL | MY_WAY | MY_KERNEL_WAY,
        [ADDRESS_GLOBAL] = MINE | OTHERS | GLOBAL | MY_WAY | OTHERS_WAY,
        [CONTEXT_OTHERS] = MINE | GLOBAL | MY_WAY | MY_KERNEL_WAY,
        [ALL_GLOBAL] = 0,
        [ALL] = GLOBAL,
        [CR3] = OTHERS | GLOBAL | OTHERS_WAY,
        [CR3_KEEP] = EVERYTHING,
        [CR3_OTHERS] = MINE | GLOBAL | MY_WAY | MY_KERNEL_WAY,
        [CR3_OTHERS_KEEP] = EVERYTHING,
        [CR4] = 0,
        [FAULT] = OTHERS | GLOBAL | OTHERS_WAY | MY_KERNEL_WAY,
    };

    for (unsigned i = 0; i < TRIED; i++) {
        unsigned mine;
        unsigned others;

        CHECK_HELPER(fill_all(&mine, &others));
        CHECK_EQUAL(known_translations(mine, others) | known_ways(mine, others),
                    EVERYTHING);
        try((enum tried)i, mine, others);
        CHECK_EQUAL(known_translations(mine, others) | known_ways(mine, others),
                    left[i]);
    }
}

/* A space's translations are tagged by its PCID, not by its tables. */
TEST(sim_mmu, a_pcid_is_believed_whatever_root_comes_with_it)
{
    paddr_t physical;
    unsigned mine;
    unsigned others;

    CHECK_HELPER(fill_all(&mine, &others));
    mmu_write_cr3(space.tlb.root.v | others | MMU_CR3_KEEP);
    CHECK_BUG("after CR3 was loaded");
    CHECK_EQUAL(sim_translate(BASE, WALK_READ, &physical), WALK_ALLOWED);
    CHECK_BUG("used a stale translation");
}

TEST(sim_mmu, what_a_cpu_has_not_is_reported)
{
    CHECK_HELPER(start_cpus(1, TLB_LAZY));
    mmu_write_cr3(space.tlb.root.v | 1);
    CHECK_BUG("CR4.PCIDE is off");
    mmu_write_cr3(space.tlb.root.v);
    mmu_enable_pcid();
    CHECK_BUG("the CPU has none");
    mmu_invpcid(MMU_INVPCID_ALL, 0, 0);
    CHECK_BUG("the CPU has none");
    CHECK_HELPER(start_cpus(1, TLB_PCID | TLB_INVPCID));
    mmu_invpcid(MMU_INVPCID_CONTEXT, MMU_CR3_PCID + 1, 0);
    CHECK_BUG("INVPCID type 1");
    mmu_invpcid(MMU_INVPCID_ADDRESS, 1, UINT64_C(1) << 50);
    CHECK_BUG("INVPCID type 0");
    mmu_write_cr3(space.tlb.root.v | UINT64_C(1) << 45);
    CHECK_BUG("reserved bits");
}

/* Interrupts nest, and go to others only. */
TEST(sim_mmu, interrupts_sent_wrongly_are_reported)
{
    CHECK_HELPER(start_cpus(2, SIM_ALL_PARTS));
    port_send_tlb_interrupt(1);
    CHECK_BUG("with interrupts on");
    uint64_t irq = port_irq_save();
    port_send_tlb_interrupt(0);
    CHECK_BUG("CPU 0 sent an interrupt to CPU 0");
    port_send_frame_interrupt(0);
    CHECK_BUG("CPU 0 sent an interrupt to CPU 0");
    port_send_tlb_interrupt(2);
    CHECK_BUG("to CPU 2");
    port_irq_restore(irq);
}
