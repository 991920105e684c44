; SPDX-License-Identifier: MIT
; fixup_access: the accesses that may fault, and where each one resumes.
;
; fixup_table holds triples (address of an instruction that may fault, address
; to go on at, 1). The trap handler returns there with RAX = vector, RDX = error
; code, RCX = CR2; or with all as it was, if a 0 stands in place of the 1.
; Contracts: kernel/fixup.h. System V ABI; in all of these the last argument is
; struct probe *out.

global probe_read8
global probe_read64
global probe_write8
global probe_write64
global probe_exec

; struct probe
PROBE_VALUE   equ 0
PROBE_VECTOR  equ 8
PROBE_ERROR   equ 16
PROBE_ADDRESS equ 24

%macro fixup 2                      ; instruction, resume at
    section fixup_table progbits alloc noexec nowrite align=8
    dq %1, %2, 1
    section .text
%endmacro

section .text

; bool probe_read8(RDI address, RSI out)
probe_read8:
    mov r8, rsi
.access:
    movzx eax, byte [rdi]
    fixup .access, probe_faulted
    mov [r8 + PROBE_VALUE], rax
    mov eax, 1
    ret

; bool probe_read64(RDI address, RSI out)
probe_read64:
    mov r8, rsi
.access:
    mov rax, [rdi]
    fixup .access, probe_faulted
    mov [r8 + PROBE_VALUE], rax
    mov eax, 1
    ret

; bool probe_write8(RDI address, SIL value, RDX out)
probe_write8:
    mov r8, rdx
.access:
    mov [rdi], sil
    fixup .access, probe_faulted
    mov eax, 1
    ret

; bool probe_write64(RDI address, RSI value, RDX out)
probe_write64:
    mov r8, rdx
.access:
    mov [rdi], rsi
    fixup .access, probe_faulted
    mov eax, 1
    ret

; bool probe_exec(RDI address, RSI out)
; A refused fetch faults with RIP at the target, which is in no table; the
; return address the CALL has pushed is, and fixup_apply() looks there too. A
; target that is not canonical may fault at the CALL itself.
probe_exec:
    push rbx                        ; the target may change R8
    mov rbx, rsi
.access:
    call rdi
.returned:
    pop rbx
    mov eax, 1
    ret
.faulted:
    mov r8, rbx
    pop rbx
    jmp probe_faulted
    fixup .access, .faulted
    fixup .returned, .faulted

; R8 = out; RAX, RDX, RCX from fixup_apply().
probe_faulted:
    mov [r8 + PROBE_VECTOR], rax
    mov [r8 + PROBE_ERROR], rdx
    mov [r8 + PROBE_ADDRESS], rcx
    xor eax, eax
    ret
