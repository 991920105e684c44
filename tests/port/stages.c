/* SPDX-License-Identifier: MIT */
/* Stages 1 and 2 in a host that has nothing: the recipe of docs/porting.md. */
/*
 * At risk: a library that only its own kernel and its own tests can host. So
 * this one is built from the sources of the two stages alone, with the flags
 * the document gives, and links against nothing but the seven functions it
 * names.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <mm/frame.h>
#include <mm/kmalloc.h>
#include <mm/memmap.h>
#include <mm/port.h>
#include <mm/record.h>
#include <mm/slab.h>

#define RAM         (64 * MiB)
#define IMAGE_START (1 * MiB)
#define IMAGE_BYTES UINT64_C(0x123456)

unsigned char *my_ram;

static unsigned bugs;

/* --- the port ------------------------------------------------------------- */

unsigned port_cpu_count(void)
{
    return 1;
}

static void say(const char *what, const char *format, va_list arguments)
{
    printf("%s: ", what);
    vprintf(format, arguments);
    putchar('\n');
}

void port_send_frame_interrupt(unsigned cpu)
{
    (void)cpu; /* one CPU: nobody else keeps anything */
}

void port_log(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    say("log", format, arguments);
    va_end(arguments);
}

void port_bug(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    say("bug", format, arguments);
    va_end(arguments);
    bugs++;
}

void port_panic(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    say("panic", format, arguments);
    va_end(arguments);
    abort();
}

/* --- the recipe ----------------------------------------------------------- */

static bool claim(const void *context, size_t index, struct memmap_claim *out)
{
    static const struct memmap_claim claims[] = {
        {0, RAM, MEMMAP_USABLE, "RAM", ""},
        {IMAGE_START, IMAGE_BYTES, MEMMAP_KERNEL, "loaded there", "image"},
    };

    (void)context;
    if (index >= sizeof(claims) / sizeof(claims[0])) {
        return false;
    }
    *out = claims[index];
    return true;
}

/* The array is all there from the start. */
static enum mm_status back(vaddr_t start, vaddr_t end)
{
    (void)start;
    (void)end;
    return MM_OK;
}

static void *pages(uint64_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return memory == MAP_FAILED ? NULL : memory;
}

static enum mm_status start(void)
{
    static struct memmap map;
    struct memmap_source source = {claim, NULL};
    struct memmap_limits limits = {RAM, RAM};
    paddr_t storage;

    my_ram = pages(RAM);
    enum mm_status status = memmap_build(&source, &limits, &map);
    if (status == MM_OK) {
        status = memmap_carve(&map, frame_metadata_bytes(&map), PAGE_BYTES,
                              limits.mapped_end, "frame metadata", &storage);
    }
    if (status == MM_OK) {
        record_init(pages(RAM / PAGE_BYTES * sizeof(struct frame_record)),
                    back);
        frame_init(&map, phys_to_virt(storage));
        status = slab_init();
    }
    return status == MM_OK ? kmalloc_init() : status;
}

int main(void)
{
    if (start() != MM_OK) {
        return 1;
    }
    pfn_t block = frame_alloc(3, FRAME_KERNEL, FRAME_ZEROED);
    frame_free(block, 2); /* wrong order: reported */
    frame_free(block, 3);
    frame_free(block, 3); /* again: reported */
    for (uint64_t bytes = 1; bytes < 9000; bytes++) {
        void *memory = kmalloc(bytes);
        if (memory == NULL || ksize(memory) < bytes) {
            return 1;
        }
        kfree(memory);
    }
    slab_drain();
    bool is_sound = frame_check() && slab_check() && kmalloc_check();
    printf("%u bugs reported, %s\n", bugs, is_sound ? "sound" : "DAMAGED");
    return is_sound && bugs == 2 ? 0 : 1;
}
