/* SPDX-License-Identifier: MIT */
/* heap_option: what the heap watches that it would not of itself. */
#include "kernel/heap_option.h"

#include <mm/slab.h>
#include "kernel/cmdline.h"
#include "kernel/console/console.h"

void heap_option_apply(void)
{
    const char *word = cmdline_get("heap");

    if (word == NULL) {
        return;
    }
    if (cmdline_is("heap", "doublefree")) {
        slab_note_states();
    } else {
        printk("warning: heap= knows doublefree, not \"%s\"\n", word);
    }
}
