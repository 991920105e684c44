; SPDX-License-Identifier: MIT
; with_registers: a call with what was in the registers on the stack.
;
; Contract: kernel/leaks.c.

global with_registers

section .text

; void with_registers(void (*function)(void *argument, vaddr_t stack),
;                     void *argument)
; @stack is where the registers lie that a function has to keep; the others
; are lost in any call.
with_registers:
    push rbp
    mov rbp, rsp
    push rbx
    push r12
    push r13
    push r14
    push r15
    push rsi                        ; aligns the stack, too
    mov rax, rdi
    mov rdi, rsi
    mov rsi, rsp
    call rax
    add rsp, 8
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbx
    pop rbp
    ret
