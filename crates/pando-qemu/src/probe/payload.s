# The guest of the accelerator probe: a boot sector that does what a kernel's first second does.
#
#   real mode -> long mode with 2 MiB pages -> SSE -> timer interrupts through IDT, PIC and PIT
#
# It prints "pando" once, and with every tick of the timer (100 a second) "Txxxx", a count in
# hexadecimal that lives in RAM. Each tick also writes the count to a page of its own, so that a
# restored machine shows whether memory and devices are of the same instant: it counts on.
#
# Assembled into payload.bin, which a test compares:
#   as --64 payload.s -o payload.o && ld -Ttext 0x7c00 --oformat binary payload.o -o payload.bin
#
# Addresses: 0x1000 page tables, 0x4000 IDT, 0x5000 count, 0x7c00 this code, 0x200000 written pages.

        .intel_syntax noprefix
        .equ    TABLES, 0x1000
        .equ    IDT, 0x4000
        .equ    COUNT, 0x5000
        .equ    PAGES, 0x200000
        .equ    COM1, 0x3f8

        .text
        .globl  _start
        .code16
_start:
        cli
        xor     ax, ax
        mov     ds, ax
        mov     es, ax
        mov     ss, ax
        mov     sp, 0x7c00
        cld

        # Zero the page tables, the IDT and the count.
        mov     di, TABLES
        mov     cx, 0x2800
        rep stosw

        # Map 0 to 4 MiB onto itself.
        mov     word ptr [TABLES], 0x2003
        mov     word ptr [TABLES + 0x1000], 0x3003
        mov     word ptr [TABLES + 0x2000], 0x0083
        mov     dword ptr [TABLES + 0x2008], 0x200083

        # The timer's gate: present, 64-bit interrupt, our only code segment.
        mov     word ptr [IDT + 0x200], offset tick
        mov     word ptr [IDT + 0x202], 8
        mov     word ptr [IDT + 0x204], 0x8e00

        mov     eax, cr4
        or      eax, 0x620              # PAE, OSFXSR, OSXMMEXCPT
        mov     cr4, eax
        mov     eax, TABLES
        mov     cr3, eax
        mov     ecx, 0xc0000080         # EFER
        rdmsr
        or      eax, 0x100              # long mode
        wrmsr
        mov     eax, cr0
        and     eax, 0xfffffffb         # no FPU emulation
        or      eax, 0x80000003         # paging, monitor coprocessor, protection
        mov     cr0, eax
        lgdt    [gdt_pointer]
        lidt    [idt_pointer]
        .byte   0xea                    # far jump to the 64-bit segment
        .word   long_mode, 8

        .code64
long_mode:
        xor     eax, eax
        mov     ds, eax
        mov     es, eax
        mov     ss, eax
        lea     rsi, [rip + hello]
        mov     ecx, 6
        call    print

        # PIC: vectors from 0x20, only the timer enabled. PIT: 100 Hz.
        lea     rsi, [rip + ports]
        mov     ecx, (ports_end - ports) / 2
setup:  lodsb
        movzx   edx, al
        lodsb
        out     dx, al
        loop    setup

        xor     ebx, ebx                # the count printed last
        mov     eax, 1
        movq    xmm1, rax
wait:   sti
        hlt
        cli
        mov     eax, [COUNT]
        cmp     eax, ebx
        je      wait
        mov     ebx, eax

        # One page a tick, 256 of them in turn.
        movzx   edi, bl
        shl     edi, 12
        mov     [rdi + PAGES], ebx

        mov     edi, offset line + 1
        mov     edx, ebx
        mov     ecx, 4
digit:  rol     dx, 4
        mov     al, dl
        and     al, 15
        add     al, '0'
        cmp     al, '9'
        jbe     decimal
        add     al, 'a' - '0' - 10
decimal:
        stosb
        loop    digit
        mov     esi, offset line
        mov     ecx, 6
        call    print

        cmp     bx, [limit]
        jne     wait
        mov     al, [action]
        cmp     al, 1
        je      power_off
        cmp     al, 2
        jne     wait
        mov     dx, 0xcf9
        mov     al, 6
        out     dx, al
        jmp     wait
power_off:
        mov     dx, 0x604
        mov     ax, 0x2000
        out     dx, ax
        jmp     wait

# Prints ecx bytes at rsi.
print:  mov     dx, COM1 + 5
full:   in      al, dx
        test    al, 0x20
        jz      full
        mov     dx, COM1
        lodsb
        out     dx, al
        loop    print
        ret

# The timer interrupt. Adds with SSE, so that its state is live in the machine.
tick:   push    rax
        movq    xmm0, [COUNT]
        paddq   xmm0, xmm1
        movq    [COUNT], xmm0
        mov     al, 0x20
        out     0x20, al
        pop     rax
        iretq

gdt:    .quad   0
        .quad   0x00209a0000000000      # 64-bit code
gdt_pointer:
        .word   15
        .long   gdt
idt_pointer:
        .word   0x20f
        .long   IDT
hello:  .ascii  "pando\n"
line:   .ascii  "T0000\n"
ports:  .byte   0x20, 0x11, 0x21, 0x20, 0x21, 0x04, 0x21, 0x01, 0x21, 0xfe
        .byte   0xa1, 0xff, 0x43, 0x34, 0x40, 0x9c, 0x40, 0x2e
ports_end:

        # Parameters, set by the host: after `limit` ticks, 1 powers off and 2 resets.
        .org    0x1fb
limit:  .word   0
action: .byte   0
        .word   0xaa55
