; SPDX-License-Identifier: MIT
; trap_entry: 256 entry points, one way in and one way out.
;
; Owns: the order of struct trap_frame in kernel/trap.h.
;
;   CPU pushes     ss rsp rflags cs rip [error code]
;   entry_N        0 (where there is no error code), N
;   trap_common    all general registers and CR2; calls trap_dispatch(frame)
;   entry_tlb      the same for one interrupt that must be fast: nobody looks
;                  at its frame, so it keeps what a C function may change

extern trap_dispatch
extern trap_clears_ac
extern smp_take_tlb_interrupt
global trap_entries
global trap_entry_tlb

section .text

; Exceptions with an error code. [SDM-3A 6.15 "Exception and Interrupt
; Reference"]: #DF #TS #NP #SS #GP #PF #AC #CP, and on AMD #VC #SX.
%define HAS_ERROR_CODE(n) (n = 8 || (n >= 10 && n <= 14) || n = 17 || \
                           n = 21 || n = 29 || n = 30)

%assign vector 0
%rep 256
align 16
entry_ %+ vector:
    %if !HAS_ERROR_CODE(vector)
    push 0
    %endif
    push vector
    jmp trap_common
    %assign vector vector + 1
%endrep

; 5 words of the CPU and 9 of these: RSP is aligned for the call.
align 16
trap_entry_tlb:
    push rax
    push rcx
    push rdx
    push rsi
    push rdi
    push r8
    push r9
    push r10
    push r11
    cld                             ; both as in trap_common
    cmp byte [rel trap_clears_ac], 0
    je .no_smap
    clac
.no_smap:
    call smp_take_tlb_interrupt
    pop r11
    pop r10
    pop r9
    pop r8
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rax
    iretq

trap_common:
    push rax
    push rbx
    push rcx
    push rdx
    push rsi
    push rdi
    push rbp
    push r8
    push r9
    push r10
    push r11
    push r12
    push r13
    push r14
    push r15
    mov rax, cr2                    ; before a second fault can change it
    push rax

    ; C expects the direction flag clear. AC may have been set by code that
    ; was allowed to touch user pages; a handler is not. CLAC is #UD without
    ; SMAP, hence the flag. [SDM-2A CLAC]
    cld
    cmp byte [rel trap_clears_ac], 0
    je .no_smap
    clac
.no_smap:

    mov rdi, rsp
    mov rbx, rsp                    ; kept by the callee
    and rsp, -16                    ; ABI: 16-byte aligned at a call
    call trap_dispatch
    mov rsp, rbx

    add rsp, 8                      ; CR2 is not restored
    pop r15
    pop r14
    pop r13
    pop r12
    pop r11
    pop r10
    pop r9
    pop r8
    pop rbp
    pop rdi
    pop rsi
    pop rdx
    pop rcx
    pop rbx
    pop rax
    add rsp, 16                     ; vector and error code
    iretq

section .rodata
align 8
trap_entries:
%assign vector 0
%rep 256
    dq entry_ %+ vector
    %assign vector vector + 1
%endrep
