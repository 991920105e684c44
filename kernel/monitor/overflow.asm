; SPDX-License-Identifier: MIT
; overflow: runs off the end of a stack, on purpose.

global overflow_stack

section .text

; void overflow_stack(void *top)  RDI = one past the highest byte of a stack
; Changes to that stack and never returns. Each turn makes a frame as a C
; function would, so that the backtrace shows what an endless recursion looks
; like.
overflow_stack:
    push rbp
    mov rbp, rsp
    mov rsp, rdi
.recurse:
    call overflow_recurse

overflow_recurse:
    push rbp
    mov rbp, rsp
    sub rsp, 256                    ; locals
    call overflow_recurse
