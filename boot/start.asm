; SPDX-License-Identifier: MIT
; start: from the loader's 32-bit entry to C in the higher half.
;
; At entry [MB2 3.3 "I386 machine state"]: EAX = magic, EBX = physical address
; of the boot information, flat 32-bit segments, paging off, interrupts off,
; A20 on; the stack pointer, GDTR and IDTR are not to be relied upon.
;
;   start          check loader and processor; refuse in words
;   choose_levels  4, or 5 by la57= and the processor
;   build_tables   4 GiB seen at 0 and at PML4[256], the image at -2 GiB
;   enter_long     the switch [SDM-3A 10.8.5 "Initializing IA-32e Mode"]
;   high_start     own stack, kernel_main(magic, boot information)
%include "boot.inc"

extern kernel_main
extern kernel_stack_end
extern wants_five_levels
global start

section .boot.text progbits alloc exec nowrite align=16
bits 32

start:
    cli                             ; no IDT yet: an interrupt would reset
    cld
    mov esp, boot_stack_end
    push ebx                        ; kept for kernel_main
    push eax
    call serial_start

    cmp dword [esp], MB2_LOADER_MAGIC
    mov esi, text_loader
    jne refuse
    call has_cpuid
    mov esi, text_cpuid
    jz refuse
    call check_features

    mov ebx, [esp + 4]
    call choose_levels
    call build_tables
    jmp enter_long

; ZF clear if CPUID exists: EFLAGS.ID can be changed.
; [SDM-1 20.1 "Using the CPUID Instruction"]
has_cpuid:
    pushfd
    pop eax
    mov ecx, eax
    xor eax, EFLAGS_ID
    push eax
    popfd
    pushfd
    pop eax
    push ecx
    popfd
    xor eax, ecx
    test eax, EFLAGS_ID
    ret

; ECX and EDX of CPUID leaf EAX, its first part; 0 if the processor does not
; have that leaf.
cpuid_leaf:
    push ebx
    push eax
    and eax, CPUID_MAX_EXTENDED     ; first leaf of the range: its highest
    cpuid
    pop ebx
    xor ecx, ecx
    xor edx, edx
    cmp eax, ebx
    jb .done
    mov eax, ebx
    cpuid
.done:
    pop ebx
    ret

; Name everything that is missing, then refuse; return if nothing is.
check_features:
    mov edi, needed_features
    xor ebp, ebp                    ; how many are missing
.next:
    mov eax, [edi]
    call cpuid_leaf
    test edx, [edi + 4]
    jnz .present
    mov esi, text_missing
    call print
    mov esi, [edi + 8]
    call print
    inc ebp
.present:
    add edi, NEEDED_BYTES
    cmp edi, needed_features_end
    jb .next
    mov esi, text_processor
    test ebp, ebp
    jnz refuse
    ret

; The last words: ESI = why. Tests see QEMU's exit device.
refuse:
    push esi
    mov esi, text_refuse
    call print
    pop esi
    call print
    mov esi, text_halted
    call print
    mov al, DEBUG_EXIT_FAIL
    mov dx, DEBUG_EXIT_PORT
    out dx, al
.halt:
    hlt
    jmp .halt

; --- words before there is a console ----------------------------------------

; COM1 to 115200 8N1. An absent port swallows this.
serial_start:
    mov esi, uart_setup
.next:
    movzx edx, word [esi]
    mov al, [esi + 2]
    out dx, al
    add esi, 3
    cmp esi, uart_setup_end
    jb .next
    ret

; Print the text at ESI, ended by 0, on serial and on the VGA text screen.
print:
    pushad
    mov edi, [vga_cursor]
.next:
    movzx ebx, byte [esi]
    inc esi
    test ebx, ebx
    jz .done
    call serial_byte
    call vga_byte
    jmp .next
.done:
    mov [vga_cursor], edi
    popad
    ret

; Send BL once the transmitter has room: it may never have, so with patience.
serial_byte:
    mov ecx, UART_PATIENCE
    mov dx, UART_LSR
.wait:
    in al, dx
    test al, UART_LSR_THRE
    loopz .wait
    mov dx, UART_DATA
    mov al, bl
    out dx, al
    ret

; BL at screen offset EDI; new line on LF. What does not fit is dropped.
vga_byte:
    cmp edi, VGA_TEXT_BYTES
    jae .done
    cmp bl, 10
    je .line
    mov bh, VGA_WHITE_ON_RED
    mov [VGA_TEXT + edi], bx
    add edi, 2
.done:
    ret
.line:
    mov eax, edi
    xor edx, edx
    mov ecx, 80 * 2
    div ecx
    inc eax
    mul ecx
    mov edi, eax
    ret

; --- paging ------------------------------------------------------------------

; CR4 and CR3 for the switch; EBX = boot information. CR4 will hold PAE, LA57
; if it is wanted and there, and nothing else: what firmware left is cleared.
choose_levels:
    mov dword [boot_cr4], CR4_PAE
    mov dword [boot_cr3], boot_pml4
    call wants_five_levels
    jz .four
    mov eax, CPUID_STRUCTURED
    call cpuid_leaf
    test ecx, CPUID_ECX_LA57
    jz .four                        ; la57_option_check() says so
    or dword [boot_cr4], CR4_LA57
    mov dword [boot_cr3], boot_pml5
.four:
    ret

; Three views of physical memory share the same page directories:
;   PML4[0], so that the instruction after CR0.PG is found;
;   PML4[256], where phys_to_virt() will always point;
;   PML4[511] -> PDPT[510], the first GiB at the image's link address.
; With 5 levels these addresses are in the first and the last entry of PML5.
build_tables:
    mov eax, boot_pml4 + PTE_P + PTE_RW
    mov [boot_pml5 + PML5_LOWER * ENTRY_BYTES], eax
    mov [boot_pml5 + PML5_UPPER * ENTRY_BYTES], eax
    mov eax, boot_pdpt + PTE_P + PTE_RW
    mov [boot_pml4 + PML4_IDENTITY * ENTRY_BYTES], eax
    mov [boot_pml4 + PML4_DIRECT * ENTRY_BYTES], eax
    mov dword [boot_pml4 + PML4_IMAGE * ENTRY_BYTES], \
        boot_pdpt_image + PTE_P + PTE_RW
    mov eax, boot_pd + PTE_P + PTE_RW
    mov [boot_pdpt_image + PDPT_IMAGE * ENTRY_BYTES], eax

    xor ecx, ecx
.directory:
    mov [boot_pdpt + ecx * ENTRY_BYTES], eax
    add eax, PAGE_BYTES
    inc ecx
    cmp ecx, BOOT_MAP_GIB
    jb .directory

    ; 2 MiB leaves: every long-mode processor has them. The upper halves of
    ; the entries stay zero, as the loader left them.
    mov eax, PTE_P + PTE_RW + PTE_PS
    xor ecx, ecx
.leaf:
    mov [boot_pd + ecx * ENTRY_BYTES], eax
    add eax, LARGE_PAGE_BYTES
    inc ecx
    cmp ecx, BOOT_MAP_GIB * TABLE_ENTRIES
    jb .leaf
    ret

; The order is the manual's: PAE, CR3, EFER.LME, then CR0.PG.
; [SDM-3A 10.8.5 "Initializing IA-32e Mode"]
; [APM-2 14.6 "Enabling and Activating Long Mode"]
enter_long:
    mov eax, [boot_cr4]
    mov cr4, eax

    mov eax, [boot_cr3]
    mov cr3, eax

    ; NXE only where CPUID shows NX: elsewhere setting it is #GP.
    mov eax, CPUID_EXTENDED
    call cpuid_leaf
    mov ebp, EFER_LME
    test edx, CPUID_EDX_NX
    jz .no_nx
    or ebp, EFER_NXE
.no_nx:
    mov ecx, MSR_EFER
    rdmsr
    or eax, ebp
    wrmsr

    pop edi                         ; magic, first parameter of kernel_main
    pop esi                         ; boot information, the second

    ; WP: read-only binds the kernel, too. [SDM-3A 4.6 "Access Rights"]
    mov eax, cr0
    or eax, CR0_PG | CR0_WP
    mov cr0, eax

    ; The CPU is in compatibility mode until CS says L=1.
    lgdt [boot_gdt_pointer]
    jmp SELECTOR_CODE64:.long
bits 64
.long:
    mov eax, SELECTOR_DATA
    mov ss, eax
    mov ds, eax
    mov es, eax
    xor eax, eax                    ; null is allowed in 64-bit mode and
    mov fs, eax                     ; shows a use that nobody intended
    mov gs, eax
    mov rax, high_start
    jmp rax

section .boot.rodata progbits alloc noexec nowrite align=8

align 8
boot_gdt:
    dq 0
    dq GDT_CODE64
    dq GDT_DATA
boot_gdt_pointer:
    dw boot_gdt_pointer - boot_gdt - 1
    dd boot_gdt

; CPUID leaf, bit in EDX, name.
needed_features:
    dd CPUID_FEATURES, CPUID_EDX_TSC, text_tsc
NEEDED_BYTES equ $ - needed_features
    dd CPUID_FEATURES, CPUID_EDX_MSR, text_msr
    dd CPUID_FEATURES, CPUID_EDX_PAE, text_pae
    dd CPUID_EXTENDED, CPUID_EDX_LM, text_lm
needed_features_end:

%macro uart 2
    dw %1
    db %2
%endmacro
uart_setup:
    uart UART_IER, 0                ; polled
    uart UART_LCR, UART_LCR_DLAB
    uart UART_DATA, UART_DIVISOR
    uart UART_IER, 0
    uart UART_LCR, UART_LCR_8N1
    uart UART_FCR, UART_FCR_ENABLE
    uart UART_MCR, UART_MCR_READY
uart_setup_end:

text_refuse:    db "Vellum cannot start: ", 0
text_halted:    db 10, "The machine is halted.", 10, 0
text_loader:    db "it was not loaded by a Multiboot2 boot loader "
                db "(use GRUB 2 with the command multiboot2).", 0
text_cpuid:     db "this processor is older than the CPUID instruction.", 0
text_processor: db "it needs an x86-64 processor that has all of these.", 0
text_missing:   db "This processor lacks ", 0
text_tsc:       db "the time stamp counter (RDTSC).", 10, 0
text_msr:       db "model-specific registers (RDMSR, WRMSR).", 10, 0
text_pae:       db "physical address extension (PAE).", 10, 0
text_lm:        db "long mode, the 64-bit mode of x86-64.", 10, 0

; Used once, given back to the frame allocator when the final tables stand.
section .boot.bss nobits alloc noexec write align=4096

boot_pml5:          resb PAGE_BYTES
boot_pml4:          resb PAGE_BYTES
boot_pdpt:          resb PAGE_BYTES
boot_pdpt_image:    resb PAGE_BYTES
boot_pd:            resb PAGE_BYTES * BOOT_MAP_GIB
vga_cursor:         resd 1          ; byte offset of the next character
boot_cr3:           resd 1
boot_cr4:           resd 1
                    resb BOOT_STACK_BYTES - 3 * 4
boot_stack_end:

section .text
bits 64

; First instruction at the link address. RBP = 0 ends every backtrace.
high_start:
    mov rsp, kernel_stack_end
    xor ebp, ebp
    call kernel_main
.halt:
    hlt
    jmp .halt
