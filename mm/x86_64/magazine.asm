; SPDX-License-Identifier: MIT
; magazine: the heap's fast ways, as sequences that interrupts begin anew.
;
; Idea: interrupts off would be half of what these cost. They stay on. Each
; sequence reads, and changes what others see by its last instruction alone:
; until that one is done, it can begin again from its first, and does so after
; an interrupt (slab_restart()), since its handler may have used the magazine
; too. [Bershad92]
;
; The state of a magazine is read and written as a whole, by the same address:
; so it is handed from one operation to the next within the processor.
;
; Owns: the offsets below; magazine.h compares them with C's.
;
; Limits: release builds only. Exceptions do not begin it anew, since none comes
; here: code, magazines and what is at GS lie in the image and in the direct
; map. Nor does an NMI or a machine check, whose handlers may not use the heap.

%ifdef MM_PORT_RESTARTS
%if MM_DEBUG = 0

PORT_CPU          equ 8             ; from GS; mm/port.h
PORT_CLASSES      equ 16            ; the same: by number, a class's magazine
CACHE_MAGAZINES   equ 0xe8          ; struct slab_cache: by CPU, the same
MAGAZINE_STATE    equ 0             ; struct magazine
MAGAZINE_CAPACITY equ 24
MAGAZINE_OBJECTS  equ 32            ; object[0], the floor
MAGAZINE_TAKEN    equ 0x10001       ; one of the budget and one object

extern kmalloc_refill
extern kmalloc_look
extern kmalloc_flush
extern magazine_refill
extern magazine_look
extern magazine_flush
global kmalloc_from
global kmalloc_from_end
global kmalloc_for
global kmalloc_for_end
global kmalloc_push
global kmalloc_push_end
global slab_alloc
global slab_alloc_end
global magazine_push
global magazine_push_end

section .text

; Into register %1 this CPU's magazine of the class with the number in %2, or of
; the cache there.
%macro OF_CLASS 2
    mov %1, [gs:%2 + PORT_CLASSES]
%endmacro
%macro OF_CACHE 2
    mov eax, [gs:PORT_CPU]
    mov %1, [%2 + CACHE_MAGAZINES + rax * 8]
%endmacro

; Sequence %1 takes an object of the class or cache (%2) in RDI; %3: where to go
; on without one, %4: where with one in RAX, but the budget is used up.
%macro TAKE 4
%1:
    %2 r8, rdi
    mov r9, [r8 + MAGAZINE_STATE]
    movzx ecx, r9w
    lea rcx, [r8 + rcx * 8]         ; no index below: magazine_top()
    mov rax, [rcx + MAGAZINE_OBJECTS]
    test rax, rax
    jz %3
    sub r9, MAGAZINE_TAKEN
    mov [r8 + MAGAZINE_STATE], r9
%1_end:
    js %4
    ret
%endmacro

; Sequence %1 puts the object in %3 to the others of the class or cache (%2) in
; %4; %5: where to go on without room.
%macro PUT 5
%1:
    %2 r8, %4
    mov r9, [r8 + MAGAZINE_STATE]
    movzx ecx, r9w
    cmp ecx, [r8 + MAGAZINE_CAPACITY]
    je %5
    lea rcx, [r8 + rcx * 8]
    mov [rcx + MAGAZINE_OBJECTS + 8], %3    ; nobody sees it yet
    inc r9
    mov [r8 + MAGAZINE_STATE], r9
%1_end:
    ret
%endmacro

; void *kmalloc_from(RDI number, RSI bytes): for who calls it
align 16
TAKE kmalloc_from, OF_CLASS, kmalloc_from_empty, kmalloc_from_spent
kmalloc_from_empty:
    mov rdx, [rsp]
    jmp kmalloc_refill
kmalloc_from_spent:
    mov rdx, [rsp]
    mov rcx, rax
    jmp kmalloc_look

; void *kmalloc_for(RDI number, RSI bytes, RDX site): for who called @site
align 16
TAKE kmalloc_for, OF_CLASS, kmalloc_refill, kmalloc_for_spent
kmalloc_for_spent:
    mov rcx, rax
    jmp kmalloc_look

; void kmalloc_push(RDI object, RSI number)
align 16
PUT kmalloc_push, OF_CLASS, rdi, rsi, kmalloc_flush

; void *slab_alloc(RDI cache)
align 16
TAKE slab_alloc, OF_CACHE, slab_alloc_empty, slab_alloc_spent
slab_alloc_empty:
    xor esi, esi                    ; all of the object's bytes
    mov rdx, [rsp]
    jmp magazine_refill
slab_alloc_spent:
    xor esi, esi
    mov rdx, [rsp]
    mov rcx, rax
    jmp magazine_look

; void magazine_push(RDI cache, RSI object)
align 16
PUT magazine_push, OF_CACHE, rsi, rdi, magazine_flush

%endif
%endif
