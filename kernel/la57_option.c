/* SPDX-License-Identifier: MIT */
/* la57_option: what came of la57= on the command line. */
/*
 * Idea     CR4.LA57 must be chosen before paging is on, so boot/levels.asm
 *          reads the words and boot/start.asm follows them. Here is said what
 *          it could not say: there was no console.
 */
#include "kernel/la57_option.h"

#include "kernel/cmdline.h"
#include "kernel/console/console.h"
#include "kernel/cpu.h"
#include "kernel/lib/string.h"

bool la57_option_wants_five(const char *word)
{
    return word != NULL &&
           (strcmp(word, "on") == 0 || strcmp(word, "auto") == 0);
}

void la57_option_check(void)
{
    const char *word = cmdline_get("la57");

    if (word == NULL) {
        return;
    }
    if (!la57_option_wants_five(word) && strcmp(word, "off") != 0) {
        printk("warning: la57= knows on, off and auto, not \"%s\"; %u levels "
               "are used\n",
               word, cpu_levels());
    } else if (strcmp(word, "on") == 0 && !cpu_features.has_la57) {
        printk("warning: la57=on, but this CPU has no 5-level paging; %u "
               "levels are used\n",
               cpu_levels());
    }
}
