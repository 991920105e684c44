; SPDX-License-Identifier: MIT
; magazine: the heap's fast ways, as sequences that interrupts begin anew.
;
; Idea: interrupts off would be half of what these cost. They stay on. Each
; sequence reads, and changes what others see by its last instruction alone:
; until that one is done, it can begin again from its first, and does so after
; an interrupt (slab_restart()), since its handler may have used the magazine
; too. [Bershad92]
;
; Owns: the offsets below; magazine.h compares them with C's.
;
; Limits: release builds only. Exceptions do not begin it anew, since none comes
; here: code and magazines lie in the image and in the direct map. Nor does an
; NMI or a machine check, whose handlers may not use the heap.

%ifdef MM_PORT_RESTARTS
%if MM_DEBUG = 0

PORT_CPU          equ 8             ; from GS; mm/port.h
CACHE_MAGAZINES   equ 0xe8          ; struct slab_cache
MAGAZINE_STATE    equ 0             ; struct magazine
MAGAZINE_CAPACITY equ 24
MAGAZINE_OBJECTS  equ 32            ; object[0], the floor
MAGAZINE_TAKEN    equ 0x10001       ; one of the budget and one object

extern magazine_refill
extern magazine_look
extern magazine_flush
global slab_alloc
global kmalloc_from
global kmalloc_from_end
global magazine_alloc_for
global magazine_alloc_for_end
global magazine_push
global magazine_push_end

section .text

; The sequence that takes an object; %1: its name, %2: where to go on without
; one, %3: where with one in RAX, but the budget is used up.
%macro TAKE 3
%1:
    mov eax, [gs:PORT_CPU]
    mov r8, [rdi + CACHE_MAGAZINES + rax * 8]
    movzx ecx, word [r8 + MAGAZINE_STATE]
    lea rcx, [r8 + rcx * 8]         ; no index below: magazine_top()
    mov rax, [rcx + MAGAZINE_OBJECTS]
    test rax, rax
    jz %2
    sub qword [r8 + MAGAZINE_STATE], MAGAZINE_TAKEN
%1_end:
    js %3
    ret
%endmacro

; void *slab_alloc(RDI cache)
align 16
slab_alloc:
    xor esi, esi                    ; all of the object's bytes
; void *kmalloc_from(RDI cache, RSI bytes): for who calls it
TAKE kmalloc_from, nothing_left, budget_spent
nothing_left:
    mov rdx, [rsp]
    jmp magazine_refill
budget_spent:
    mov rdx, [rsp]
budget_spent_for:
    mov rcx, rax
    jmp magazine_look

; void *magazine_alloc_for(RDI cache, RSI bytes, RDX site): for who called @site
align 16
TAKE magazine_alloc_for, magazine_refill, budget_spent_for

; void magazine_push(RDI object, RSI cache)
align 16
magazine_push:
    mov eax, [gs:PORT_CPU]
    mov rdx, [rsi + CACHE_MAGAZINES + rax * 8]
    movzx ecx, word [rdx + MAGAZINE_STATE]
    cmp ecx, [rdx + MAGAZINE_CAPACITY]
    je magazine_flush
    lea rcx, [rdx + rcx * 8]
    mov [rcx + MAGAZINE_OBJECTS + 8], rdi   ; nobody sees it yet
    inc qword [rdx + MAGAZINE_STATE]
magazine_push_end:
    ret

%endif
%endif
