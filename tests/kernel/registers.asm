; SPDX-License-Identifier: MIT
; registers: lets an exception come while every register holds a known value.
;
; Contracts: tests/kernel/test_trap.c.

global registers_over_breakpoint
global registers_over_read
global registers_given
global registers_seen
global registers_flags

EFLAGS_DF equ 1 << 10
EFLAGS_AC equ 1 << 18

%define ALL rax, rbx, rcx, rdx, rsi, rdi, rbp, \
            r8, r9, r10, r11, r12, r13, r14, r15

section .bss
alignb 8
registers_given: resq 15            ; in the order of ALL
registers_seen:  resq 15
registers_flags: resq 1

section .text

%macro load_registers 1-*
    %assign at 0
    %rep %0
        mov %1, [rel registers_given + at]
        %assign at at + 8
        %rotate 1
    %endrep
%endmacro

%macro store_registers 1-*
    %assign at 0
    %rep %0
        mov [rel registers_seen + at], %1
        %assign at at + 8
        %rotate 1
    %endrep
%endmacro

; %1 is the instruction that raises the exception.
%macro over_exception 1
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    pushfq
    pushfq
    or qword [rsp], EFLAGS_DF | EFLAGS_AC
    popfq
    load_registers ALL
    %1
    store_registers ALL
    pushfq
    pop qword [rel registers_flags]
    popfq
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    ret
%endmacro

; void registers_over_breakpoint(void)
registers_over_breakpoint:
    over_exception int3

; void registers_over_read(void)  RAX of registers_given: what to read
registers_over_read:
    over_exception {cmp byte [rax], 0}
