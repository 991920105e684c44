; SPDX-License-Identifier: MIT
; font_data: the console font, as Debian ships it (public domain).
global font_data
global font_data_end

section .rodata
align 16
font_data:
    incbin "font.psf"               ; unpacked by the Makefile
font_data_end:
