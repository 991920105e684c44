/* SPDX-License-Identifier: MIT */
/* boot_info: what the boot loader said, copied out before memory is used. */
#include "kernel/boot_info.h"

#include "base/bits.h"
#include "base/check.h"
#include "kernel/image.h"
#include "kernel/layout.h"
#include "kernel/lib/format.h"
#include "kernel/lib/string.h"

#define LOW_MEMORY_END (1 * MiB)
#define FIXED_MAX      16

/*
 * Where start-up code of CPUs may lie. Some firmware writes to the first 64
 * KiB behind its map's back; above 640 KiB there is no RAM.
 */
#define LOW_PAGES_START (64 * KiB)
#define LOW_PAGES_END   (640 * KiB)

struct boot_info boot_info;

static struct mb2 block;
/* Claims about what is here whatever the firmware says. */
static struct memmap_claim fixed[FIXED_MAX];
static size_t fixed_count;

/* Copy what fits; return how long @text is, NULL being "". */
static size_t copy_text(char *to, size_t size, const char *text)
{
    size_t bytes = text != NULL ? strlen(text) : 0;
    size_t kept = min_u64(bytes, size - 1);

    if (kept > 0) {
        memcpy(to, text, kept);
    }
    to[kept] = '\0';
    return bytes;
}

static size_t copy_text_tag(enum mb2_type type, char *to, size_t size)
{
    struct mb2_tag tag;

    return mb2_find(&block, type, 0, &tag)
               ? copy_text(to, size, mb2_text(&tag, 0))
               : 0;
}

static void copy_modules(void)
{
    struct mb2_module module;
    size_t count = 0;

    for (; mb2_module(&block, count, &module); count++) {
        if (count < BOOT_MODULES_KEPT) {
            struct boot_module *kept = &boot_info.module[count];
            kept->start = module.start;
            kept->end = module.end;
            if (copy_text(kept->name, sizeof(kept->name), module.name) == 0) {
                ksnprintf(kept->name, sizeof(kept->name), "module %lu",
                          count + 1);
            }
        }
    }
    boot_info.module_count = count;
}

/* The newer root pointer (with XSDT) where there are both. */
static void copy_rsdp(void)
{
    struct mb2_tag tag;

    if (!mb2_find(&block, MB2_ACPI_NEW, 0, &tag) &&
        !mb2_find(&block, MB2_ACPI_OLD, 0, &tag)) {
        return;
    }
    boot_info.rsdp_bytes =
        tag.bytes < BOOT_RSDP_MAX ? tag.bytes : BOOT_RSDP_MAX;
    memcpy(boot_info.rsdp, tag.data, boot_info.rsdp_bytes);
}

static bool has_tag(enum mb2_type type)
{
    struct mb2_tag tag;

    return mb2_find(&block, type, 0, &tag);
}

/* A BIOS whose loader says nothing about the screen is in text mode. */
static void copy_screen(void)
{
    boot_info.is_efi = has_tag(MB2_EFI32_TABLE) || has_tag(MB2_EFI64_TABLE) ||
                       has_tag(MB2_EFI_MEMORY_MAP);
    mb2_framebuffer(&block, &boot_info.framebuffer);
    if (!boot_info.is_efi && !has_tag(MB2_FRAMEBUFFER)) {
        boot_info.framebuffer = (struct boot_framebuffer){
            .kind = SCREEN_TEXT,
            .address = 0xb8000,
            .pitch = 160,
            .width = 80,
            .height = 25,
        };
    }
}

static void claim_fixed(uint64_t start, uint64_t end, enum memmap_type type,
                        const char *reason, const char *owner)
{
    ASSERT(fixed_count < FIXED_MAX);
    fixed[fixed_count] =
        (struct memmap_claim){start, end - start, type, reason, owner};
    fixed_count++;
}

static void claim_image(void)
{
    claim_fixed((uint64_t)(uintptr_t)boot_reclaim_start,
                (uint64_t)(uintptr_t)boot_reclaim_end, MEMMAP_RECLAIM,
                "kernel image", "start-up code and boot page tables");
    claim_fixed(image_physical(text_start), image_physical(text_end),
                MEMMAP_KERNEL, "kernel image", ".text");
    claim_fixed(image_physical(rodata_start), image_physical(rodata_end),
                MEMMAP_KERNEL, "kernel image", ".rodata");
    claim_fixed(image_physical(data_start), image_physical(data_end),
                MEMMAP_KERNEL, "kernel image", ".data and .bss");
    claim_fixed(image_physical(stacks_start), image_physical(stacks_end),
                MEMMAP_KERNEL, "kernel image", "stacks");
    claim_fixed(image_physical(symbols_start), image_physical(symbols_end),
                MEMMAP_KERNEL, "kernel image", "symbol table");
}

static void claim_all(uint64_t physical)
{
    const struct boot_framebuffer *screen = &boot_info.framebuffer;

    fixed_count = 0;
    claim_fixed(0, LOW_MEMORY_END, MEMMAP_RESERVED,
                "below 1 MiB: firmware and start-up code of CPUs", "");
    claim_fixed(physical, physical + block.bytes, MEMMAP_RECLAIM,
                "left by the boot loader", "boot information");
    claim_image();
    if (screen->kind == SCREEN_RGB) {
        claim_fixed(screen->address,
                    screen->address + (uint64_t)screen->pitch * screen->height,
                    MEMMAP_FRAMEBUFFER, "the screen", "framebuffer");
    }
}

static size_t sum_memory(void)
{
    struct memmap_claim claim;
    size_t index = 0;

    boot_info.ram_bytes = 0;
    for (; mb2_memory(&block, index, &claim); index++) {
        if (claim.type == MEMMAP_USABLE) {
            boot_info.ram_bytes += claim.length;
        }
    }
    return index;
}

static bool module_claim(size_t index, struct memmap_claim *out)
{
    struct mb2_module module;

    if (!mb2_module(&block, index, &module)) {
        return false;
    }
    *out = (struct memmap_claim){
        .start = module.start,
        .length = module.end > module.start ? module.end - module.start : 0,
        .type = MEMMAP_KERNEL,
        .reason = "loaded by the boot loader",
        .owner = index < BOOT_MODULES_KEPT ? boot_info.module[index].name
                                           : "module (name not kept)",
    };
    return true;
}

/* Fixed places, then modules, then the firmware's map. */
static bool claim_at(const void *context, size_t index,
                     struct memmap_claim *out)
{
    (void)context;
    if (index < fixed_count) {
        *out = fixed[index];
        return true;
    }
    index -= fixed_count;
    if (index < boot_info.module_count) {
        return module_claim(index, out);
    }
    return mb2_memory(&block, index - boot_info.module_count, out);
}

/* Is the page at @page RAM, and claimed by nobody but the first fixed claim? */
static bool is_free_low_page(uint64_t page)
{
    struct memmap_claim claim;
    bool is_ram = false;

    /* That one keeps all of low memory back: for this, too. */
    for (size_t i = 1; claim_at(NULL, i, &claim); i++) {
        uint64_t end;

        if (!checked_add(claim.start, claim.length, &end)) {
            end = UINT64_MAX;
        }
        if (claim.type == MEMMAP_USABLE) {
            is_ram |= claim.start <= page && page + PAGE_BYTES <= end;
        } else if (ranges_overlap(page, page + PAGE_BYTES, claim.start, end)) {
            return false;
        }
    }
    return is_ram;
}

static uint64_t find_low_page(void)
{
    for (uint64_t page = LOW_PAGES_START; page < LOW_PAGES_END;
         page += PAGE_BYTES) {
        if (is_free_low_page(page)) {
            return page;
        }
    }
    return 0;
}

enum mm_status boot_info_read(uint32_t magic, uint64_t physical)
{
    if (magic != MB2_LOADER_MAGIC) {
        return MM_EINVAL;
    }
    if (physical >= LAYOUT_BOOT_MAPPED ||
        mb2_open(phys_to_virt(paddr_of(physical)),
                 LAYOUT_BOOT_MAPPED - physical, &block) != MM_OK) {
        return MM_ERANGE;
    }
    boot_info.is_complete = mb2_is_complete(&block);
    boot_info.command_line_bytes =
        copy_text_tag(MB2_COMMAND_LINE, boot_info.command_line,
                      sizeof(boot_info.command_line));
    copy_text_tag(MB2_LOADER_NAME, boot_info.loader, sizeof(boot_info.loader));
    copy_modules();
    copy_rsdp();
    copy_screen();
    claim_all(physical);
    boot_info.low_page = find_low_page();
    return sum_memory() > 0 ? MM_OK : MM_ENOENT;
}

const struct memmap_source *boot_info_memory(void)
{
    static const struct memmap_source source = {claim_at, NULL};

    return &source;
}
