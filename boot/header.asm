; SPDX-License-Identifier: MIT
; The Multiboot2 header: what the kernel asks of its loader.
%include "boot.inc"

; linker.ld puts this section first: the header must lie in the first 32 KiB
; of the file, 8-byte aligned. [MB2 3.1.1 "The layout of Multiboot2 header"]
section .multiboot2 progbits alloc noexec nowrite align=8

header:
    dd MB2_HEADER_MAGIC
    dd MB2_ARCH_I386            ; entry in 32-bit protected mode: on BIOS and,
    dd header_end - header      ; since no EFI entry tag is given, on UEFI too
    dd 0x100000000 - (MB2_HEADER_MAGIC + MB2_ARCH_I386 + header_end - header)

; The memory map is needed; the rest is used when it is there.
align 8
request_map:
    dw MB2_TAG_REQUEST
    dw 0
    dd request_map_end - request_map
    dd MB2_INFO_MMAP
request_map_end:

align 8
request_more:
    dw MB2_TAG_REQUEST
    dw MB2_TAG_OPTIONAL
    dd request_more_end - request_more
    dd MB2_INFO_CMDLINE
    dd MB2_INFO_MODULE
    dd MB2_INFO_FRAMEBUFFER
    dd MB2_INFO_ACPI_OLD
    dd MB2_INFO_ACPI_NEW
    dd MB2_INFO_EFI_MMAP
request_more_end:

; Without this tag GRUB leaves a UEFI machine with no screen to draw on.
align 8
framebuffer:
    dw MB2_TAG_FRAMEBUFFER
    dw MB2_TAG_OPTIONAL
    dd framebuffer_end - framebuffer
    dd 0                        ; width, height and depth: no preference
    dd 0
    dd 0
framebuffer_end:

align 8
    dw MB2_TAG_ALIGN
    dw 0
    dd 8

align 8
    dw MB2_TAG_END
    dw 0
    dd 8
header_end:
