; SPDX-License-Identifier: MIT
; levels: reads la57=on|off|auto, which must be known before paging is on.
;
; CR4.LA57 cannot change while paging is on in long mode [SDM-3A 4.1.2
; "Paging-Mode Enabling"], so the choice is made here and not in C. Words are
; taken apart as kernel/cmdline.c does it, which sees them again and says what
; came of them (kernel/la57_option.c); the tests compare both.
%include "boot.inc"

global wants_five_levels

WORD_BYTES equ 12                   ; of a word are kept: "la57=auto" and a 0

section .boot.text progbits alloc exec nowrite align=16
bits 32

; ZF clear if the last word about la57 in the boot information at EBX is on or
; auto. Changes EAX, ECX, EDX, ESI, EDI and EBP.
wants_five_levels:
    push ebx
    sub esp, WORD_BYTES
    mov edi, esp
    xor ebp, ebp                    ; without a word: four
    call find_command_line
.next:
    call skip_blanks
    call peek
    jz .done
    call take_word
    cmp dword [edi], 'la57'
    jne .next
    mov eax, [edi + 4]
    test al, al                     ; the key alone
    jz .four
    cmp al, '='
    jne .next
    cmp eax, '=on'
    mov ecx, 0
    je .rest
    cmp eax, '=aut'
    mov ecx, 'o'
    jne .four
.rest:
    cmp [edi + 8], ecx
    jne .four
    mov ebp, 1
    jmp .next
.four:
    xor ebp, ebp
    jmp .next
.done:
    add esp, WORD_BYTES
    pop ebx
    test ebp, ebp
    ret

; The command line in the boot information at EBX: from ESI to EDX, or to a 0
; before. ESI = EDX if there is none, or if a tag is damaged.
; [MB2 3.6.1 "Boot information format", 3.6.2 "Basic tags structure"]
find_command_line:
    mov edx, ebx
    add edx, [ebx]
    jc .none
    lea esi, [ebx + MB2_INFO_TAGS]
.tag:
    mov eax, edx
    sub eax, esi
    jb .none
    cmp eax, MB2_TAG_HEADER
    jb .none
    mov ecx, [esi + 4]              ; bytes of the tag
    cmp ecx, MB2_TAG_HEADER
    jb .none
    cmp ecx, eax
    ja .none
    mov eax, [esi]
    cmp eax, MB2_INFO_CMDLINE
    je .found
    cmp eax, MB2_TAG_END
    je .none
    add ecx, MB2_TAG_ALIGNMENT - 1
    and ecx, -MB2_TAG_ALIGNMENT
    jz .none                        ; it went past 4 GiB
    add esi, ecx
    jnc .tag
.none:
    mov edx, esi
    ret
.found:
    lea edx, [esi + ecx]
    add esi, MB2_TAG_HEADER
    lea eax, [esi + CMDLINE_MAX - 1]
    cmp edx, eax
    jb .whole
    mov edx, eax                    ; what is longer is cut, in C too
.whole:
    ret

; AL = the character at ESI; 0 and ZF set at the end.
peek:
    xor eax, eax
    cmp esi, edx
    jae .end
    mov al, [esi]
.end:
    test al, al
    ret

; ZF set if AL is a blank.
is_blank:
    cmp al, ' '
    je .yes
    cmp al, 9                       ; tab
    je .yes
    cmp al, 10                      ; line feed
    je .yes
    cmp al, 13                      ; carriage return
.yes:
    ret

skip_blanks:
    call peek
    jz .done
    call is_blank
    jne .done
    inc esi
    jmp skip_blanks
.done:
    ret

; The word at ESI, without its quotes, to the WORD_BYTES at EDI, with zeroes
; behind it; what it has more is dropped. ESI: what follows it.
take_word:
    mov dword [edi], 0
    mov dword [edi + 4], 0
    mov dword [edi + 8], 0
    xor ebx, ebx                    ; BL: the quote that is open
    xor ecx, ecx                    ; characters so far
.next:
    call peek
    jz .done
    test bl, bl
    jnz .quoted
    call is_blank
    je .done
    cmp al, '"'
    je .open
    cmp al, "'"
    je .open
.plain:
    cmp al, '\'
    jne .keep
    inc esi
    call peek                       ; the next one, whatever it is
    jnz .keep
    dec esi
    mov al, '\'                     ; there is none
.keep:
    inc esi
    cmp ecx, WORD_BYTES
    jae .next
    mov [edi + ecx], al
    inc ecx
    jmp .next
.quoted:
    cmp al, bl
    jne .plain
    xor eax, eax                    ; closed
.open:
    mov bl, al
    inc esi
    jmp .next
.done:
    ret
