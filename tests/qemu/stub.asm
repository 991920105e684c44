; SPDX-License-Identifier: MIT
; stub: a kernel that ends in the way its command line asks for.
;
; tests/qemu/selftest boots it to see that scripts/test-kernel calls a
; failure a failure. The letter after "test=" decides:
;   p  two tests pass, exit with success      n  one of two tests fails
;   c  cut off before the plan                w  all pass, exit with failure
;   h  hang                                   t  triple fault
bits 32

MB2_MAGIC       equ 0xe85250d6  ; [MB2 3.1.2 "The magic fields"]
MB2_TAGS        equ 8           ; the first tag of the boot information
MB2_COMMANDLINE equ 1           ; [MB2 3.6.3 "Boot command line"]
COM1            equ 0x3f8
COM1_LCR        equ COM1 + 3
LCR_8N1         equ 3
COM1_LSR        equ COM1 + 5
LSR_THRE        equ 0x20        ; the transmitter takes a byte
DEBUG_EXIT      equ 0xf4
PASS            equ 0x10
FAIL            equ 0x11

section .text
header:
    dd MB2_MAGIC, 0, header.end - header, -(MB2_MAGIC + header.end - header)
    dw 0, 0
    dd 8
.end:

global start
start:
    mov esp, stack
    add ebx, MB2_TAGS
    mov al, LCR_8N1
    mov dx, COM1_LCR
    out dx, al
.tag:
    cmp dword [ebx], MB2_COMMANDLINE
    je .found
    mov eax, [ebx + 4]
    add eax, 7
    and eax, -8
    add ebx, eax
    jmp .tag
.found:
    mov esi, text_first
    call print
    mov al, [ebx + 8 + 5]       ; the tag's text, behind "test="
    mov esi, text_pass
    mov bl, PASS
    cmp al, 'p'
    je leave
    mov esi, text_not_ok
    cmp al, 'n'
    je leave
    mov esi, text_cut
    cmp al, 'c'
    je leave
    mov esi, text_pass
    mov bl, FAIL
    cmp al, 'w'
    je leave
    cmp al, 't'
    jne hang
    lidt [no_idt]
    int3
hang:
    cli
    hlt
    jmp hang

; Print ESI, leave QEMU with BL.
leave:
    call print
    mov al, bl
    out DEBUG_EXIT, al
    jmp hang

print:
    lodsb
    test al, al
    jz .done
    mov ah, al
    mov dx, COM1_LSR
.wait:
    in al, dx
    test al, LSR_THRE
    jz .wait
    mov al, ah
    mov dx, COM1
    out dx, al
    jmp print
.done:
    ret

text_first:  db 10, "ok 1 - stub.first # 0 us", 13, 10, 0
text_pass:   db "ok 2 - stub.second # 0 us", 13, 10, "1..2", 13, 10, 0
text_not_ok: db "not ok 2 - stub.second # 0 us", 13, 10, "1..2", 13, 10, 0
text_cut:    db "ok 2 - stub.se", 0
no_idt:      dw 0
             dd 0

section .bss
    resb 4096
stack:
