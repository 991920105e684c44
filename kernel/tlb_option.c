/* SPDX-License-Identifier: MIT */
/* tlb_option: which parts of the TLB's design the command line leaves in. */
#include "kernel/tlb_option.h"

#include <mm/tlb.h>
#include "kernel/cmdline.h"
#include "kernel/console/console.h"
#include "kernel/cpu.h"
#include "kernel/lib/string.h"

static const struct {
    const char *name;
    unsigned without; /* parts that go */
} words[] = {
    {"nopcid", TLB_PCID | TLB_INVPCID},
    {"noinvpcid", TLB_INVPCID},
    {"nolazy", TLB_LAZY},
    {"noranges", TLB_RANGES},
};
#define WORDS (sizeof(words) / sizeof(words[0]))

/*
 * With PCIDs on, INVLPG leaves global translations alone on these: Alder Lake,
 * Raptor Lake and Gracemont before a microcode update, as their specification
 * updates say (Linux, too, then does without PCIDs).
 */
static bool has_broken_invlpg(void)
{
    static const uint8_t model[] = {0x97, 0x9a, 0xb7, 0xba, 0xbe, 0xbf};

    for (size_t i = 0; i < sizeof(model); i++) {
        if (strcmp(cpu_features.vendor, "GenuineIntel") == 0 &&
            cpu_features.family == 6 && cpu_features.model == model[i]) {
            return true;
        }
    }
    return false;
}

/*
 * PCIDs tag what is not global, so without global pages the kernel's would
 * be cached once a space and have to be invalidated in each.
 */
static unsigned parts_of_cpu(void)
{
    unsigned parts = TLB_LAZY | TLB_RANGES;

    if (cpu_features.has_pcid && (cpu_read_cr4() & CR4_PGE) != 0 &&
        !has_broken_invlpg()) {
        parts |= TLB_PCID | (cpu_features.has_invpcid ? TLB_INVPCID : 0);
    }
    return parts;
}

/* What the word of @length at @text takes away; 0 if it is none. */
static unsigned without(const char *text, size_t length)
{
    for (size_t i = 0; i < WORDS; i++) {
        if (strlen(words[i].name) == length &&
            strncmp(words[i].name, text, length) == 0) {
            return words[i].without;
        }
    }
    return 0;
}

static size_t length_of_word(const char *text)
{
    size_t length = 0;

    while (text[length] != '\0' && text[length] != ',') {
        length++;
    }
    return length;
}

unsigned tlb_option_parts(void)
{
    unsigned parts = parts_of_cpu();
    const char *text = cmdline_get("tlb");

    while (text != NULL && *text != '\0') {
        size_t length = length_of_word(text);
        unsigned taken = without(text, length);
        if (taken == 0) {
            printk("warning: tlb= knows nopcid, noinvpcid, nolazy and "
                   "noranges, not \"%.*s\"\n",
                   (int)length, text);
        }
        parts &= ~taken;
        text += length + (text[length] == ',' ? 1 : 0);
    }
    return parts;
}
