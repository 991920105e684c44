; SPDX-License-Identifier: MIT
; memory: memcpy, memmove and memset by string instructions.
;
; Eight bytes at a time, then the tail: fast strings for single bytes (ERMS)
; are not on every processor. Written in assembly because a compiler may turn
; a loop in C that copies into a call of memcpy, which is this function.
; System V ABI: RDI, RSI, RDX; the result is the first argument. The direction
; flag is clear at entry and again at exit.

section .text
global memcpy
global memmove
global memset

; Below this, REP's start-up costs more than a plain loop gains.
SHORT_BYTES equ 16

memcpy:
    mov rax, rdi
    mov rcx, rdx
    cmp rdx, SHORT_BYTES
    jb .tail
    shr rcx, 3
    rep movsq
    mov ecx, edx
    and ecx, 7
.tail:
    rep movsb
    ret

; Forwards unless the target begins inside the source.
memmove:
    mov rax, rdi
    sub rax, rsi
    cmp rax, rdx
    jae memcpy
    lea rsi, [rsi + rdx - 1]
    mov rax, rdi
    lea rdi, [rdi + rdx - 1]
    mov rcx, rdx
    std
    rep movsb
    cld
    ret

memset:
    mov r8, rdi
    movzx eax, sil
    mov rcx, 0x0101010101010101
    imul rax, rcx                   ; the byte in all eight places
    mov rcx, rdx
    cmp rdx, SHORT_BYTES
    jb .tail
    shr rcx, 3
    rep stosq
    mov ecx, edx
    and ecx, 7
.tail:
    rep stosb
    mov rax, r8
    ret
