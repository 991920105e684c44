; SPDX-License-Identifier: MIT
; trampoline: a further processor's way from real mode to the higher half.
;
; kernel/smp_start.c copies this to a page below 1 MiB, fills in the parameters
; at its end (struct trampoline_parameters) and sends the start-up interrupt.
;
; At entry [SDM-3A 9.4.3 "MP Initialization Protocol Algorithm"]: real mode,
; CS = the page's address / 16, IP = 0, interrupts off, paging off.
;
; Many processors come through here at the same time: there is no stack, and
; nothing is written. EDI holds the page's address all the way.
%include "boot.inc"

global trampoline_start
global trampoline_end
global trampoline_parameters

section .rodata align=16

%define AT(label) (label - trampoline_start)

bits 16
trampoline_start:
    cli
    cld
    xor edi, edi
    mov di, cs
    mov ds, di
    shl edi, REAL_MODE_SHIFT
    o32 lgdt [AT(parameter_gdt)]
    mov eax, CR0_PE                 ; and caches on: CD and NW are 0
    mov cr0, eax
    jmp far dword [AT(parameter_protected)]

; The order is the manual's: PAE, CR3, EFER.LME, then CR0.PG.
; [SDM-3A 10.8.5 "Initializing IA-32e Mode"]
bits 32
trampoline_protected:
    mov eax, AP_SELECTOR_DATA
    mov ds, eax
    mov es, eax
    mov ss, eax
    mov eax, [edi + AT(parameter_cr4)]
    mov cr4, eax
    mov eax, [edi + AT(parameter_cr3)]
    mov cr3, eax
    mov ecx, MSR_EFER
    mov eax, [edi + AT(parameter_efer)]
    xor edx, edx
    wrmsr
    mov eax, [edi + AT(parameter_cr0)]
    mov cr0, eax
    jmp far dword [edi + AT(parameter_long)]

bits 64
trampoline_long:
    xor eax, eax
    mov fs, eax
    mov gs, eax
    mov edi, edi                    ; upper halves were undefined so far
    mov rax, [rdi + AT(parameter_entry)]
    jmp rax

align 8
; struct trampoline_parameters
trampoline_parameters:
parameter_entry:                    ; where to go on, in the higher half
    dq 0
parameter_cr0:                      ; final
    dd 0
parameter_cr3:                      ; shows this page and the higher half
    dd 0
parameter_cr4:                      ; what paging needs
    dd 0
parameter_efer:
    dd 0
parameter_protected:
    dd AT(trampoline_protected)     ; + the page's address
    dw AP_SELECTOR_CODE32
parameter_long:
    dd AT(trampoline_long)          ; + the page's address
    dw AP_SELECTOR_CODE64
parameter_gdt:
    dw gdt_end - gdt - 1
    dd AT(gdt)                      ; + the page's address

align 8
gdt:
    dq 0
    dq AP_CODE32
    dq AP_DATA
    dq AP_CODE64
gdt_end:
trampoline_end:
