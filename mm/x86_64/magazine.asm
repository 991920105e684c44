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
; Limits: release builds only. An exception in a sequence, or an NMI, does not
; begin it anew: their handlers may not use the heap.

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
global magazine_alloc
global magazine_alloc_end
global magazine_push
global magazine_push_end

section .text

; void *slab_alloc(RDI cache)
align 16
slab_alloc:
    xor esi, esi                    ; all of the object's bytes
; void *kmalloc_from(RDI cache, RSI bytes); magazine_alloc() is the same.
kmalloc_from:
magazine_alloc:
    mov eax, [gs:PORT_CPU]
    mov rdx, [rdi + CACHE_MAGAZINES + rax * 8]
    movzx ecx, word [rdx + MAGAZINE_STATE]
    mov rax, [rdx + MAGAZINE_OBJECTS + rcx * 8]
    test rax, rax
    jz nothing_left
    sub qword [rdx + MAGAZINE_STATE], MAGAZINE_TAKEN
magazine_alloc_end:
    js budget_spent
    ret
nothing_left:
    mov rdx, [rsp]                  ; the call site
    jmp magazine_refill
budget_spent:
    mov rdx, [rsp]
    mov rcx, rax
    jmp magazine_look

; void magazine_push(RDI object, RSI cache)
align 16
magazine_push:
    mov eax, [gs:PORT_CPU]
    mov rdx, [rsi + CACHE_MAGAZINES + rax * 8]
    movzx ecx, word [rdx + MAGAZINE_STATE]
    cmp ecx, [rdx + MAGAZINE_CAPACITY]
    je magazine_flush
    mov [rdx + MAGAZINE_OBJECTS + 8 + rcx * 8], rdi ; nobody sees it yet
    inc qword [rdx + MAGAZINE_STATE]
magazine_push_end:
    ret

%endif
%endif
