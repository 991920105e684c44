; SPDX-License-Identifier: MIT
; ap_entry: a further processor's first instructions in the higher half.
;
; boot/trampoline.asm jumps here, in 64-bit mode, on tables of the trampoline
; whose upper half is the kernel's; no stack, no GS, interrupts off.
;
; A processor finds what is its own by its APIC id alone: many come at the
; same time, and one that comes late must not take what another uses.

extern smp_enter
extern smp_id_leaf
extern smp_root
extern smp_entries
extern smp_entry_count
global ap_entry

; struct smp_entry
ENTRY_APIC_ID equ 0
ENTRY_CLAIMED equ 4
ENTRY_CPU     equ 8
ENTRY_BYTES   equ 16
; struct percpu
PERCPU_STACK  equ 472

CPUID_TOPOLOGY equ 0xb              ; id in EDX; of leaf 1 in EBX[31:24]

section .text

ap_entry:
    mov eax, [rel smp_id_leaf]
    mov esi, eax
    xor ecx, ecx
    cpuid
    cmp esi, CPUID_TOPOLOGY
    je .has_id
    mov edx, ebx
    shr edx, 24
.has_id:

    lea rdi, [rel smp_entries]
    mov ecx, [rel smp_entry_count]
.next:
    cmp edx, [rdi + ENTRY_APIC_ID]
    je .found
    add rdi, ENTRY_BYTES
    loop .next
.halt:                              ; nobody has called this one
    cli
    hlt
    jmp .halt

.found:
    mov rax, [rel smp_root]         ; the lower half is gone from here on
    mov cr3, rax
    mov eax, 1                      ; two with one id must not share a stack
    xchg [rdi + ENTRY_CLAIMED], eax
    test eax, eax
    jnz .halt
    mov rdi, [rdi + ENTRY_CPU]
    test rdi, rdi
    jz .halt
    mov rsp, [rdi + PERCPU_STACK]
    xor ebp, ebp                    ; ends every backtrace
    call smp_enter                  ; RDI: struct percpu
    jmp .halt
