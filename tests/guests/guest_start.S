/*
 * The first instructions of a guest, its traps, and the way of a second processor into C.
 *
 * Two entries: guest_start (64-bit boot protocol: long mode, boot_params in rsi) and pvh_start (PVH: 32-bit protected mode without
 * paging, hvm_start_info in ebx), which makes page tables of its own and goes on in long mode. Both note the registers that they
 * found in `entry`, for the guests that check the boot protocols; its layout stands in guest.h.
 */
#define CODE32 0x08
#define CODE64 0x10
#define DATA 0x18
#define MSR_EFER 0xc0000080
#define AP_TRAMPOLINE 0x1000

/* Offsets in struct guest_entry. */
#define ENTRY_PROTOCOL 0
#define ENTRY_INFO 8
#define ENTRY_CR0 16
#define ENTRY_CR3 24
#define ENTRY_CR4 32
#define ENTRY_EFER 40
#define ENTRY_FLAGS 48
#define ENTRY_CS 56
#define ENTRY_DS 64
#define ENTRY_ES 72
#define ENTRY_SS 80
#define ENTRY_RSP 88

	.section .note.pvh, "a", @note
	.balign 4
	.long 4, 4, 18			/* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.long pvh_start

	.text
	.code64
	.globl guest_start
guest_start:
	movq	%rsp, entry + ENTRY_RSP
	movl	$stack_top, %esp
	movq	%rsi, entry + ENTRY_INFO
	movq	$0, entry + ENTRY_PROTOCOL
	movq	%cr0, %rax
	movq	%rax, entry + ENTRY_CR0
	movq	%cr3, %rax
	movq	%rax, entry + ENTRY_CR3
	movq	%cr4, %rax
	movq	%rax, entry + ENTRY_CR4
	movl	$MSR_EFER, %ecx
	rdmsr
	movl	%eax, entry + ENTRY_EFER
	pushfq
	popq	entry + ENTRY_FLAGS
	movl	%cs, %eax
	movl	%eax, entry + ENTRY_CS
	movl	%ds, %eax
	movl	%eax, entry + ENTRY_DS
	movl	%es, %eax
	movl	%eax, entry + ENTRY_ES
	movl	%ss, %eax
	movl	%eax, entry + ENTRY_SS
	cld
	lgdt	gdt_pointer
	call	guest_begin
1:	cli
	hlt
	jmp	1b

	.code32
pvh_start:
	movl	%esp, entry + ENTRY_RSP
	movl	$stack_top, %esp
	movl	%ebx, entry + ENTRY_INFO
	movl	$1, entry + ENTRY_PROTOCOL
	movl	%cr0, %eax
	movl	%eax, entry + ENTRY_CR0
	movl	%cr3, %eax
	movl	%eax, entry + ENTRY_CR3
	movl	%cr4, %eax
	movl	%eax, entry + ENTRY_CR4
	movl	$MSR_EFER, %ecx
	rdmsr
	movl	%eax, entry + ENTRY_EFER
	pushfl
	popl	entry + ENTRY_FLAGS
	movl	%cs, %eax
	movl	%eax, entry + ENTRY_CS
	movl	%ds, %eax
	movl	%eax, entry + ENTRY_DS
	movl	%es, %eax
	movl	%eax, entry + ENTRY_ES
	movl	%ss, %eax
	movl	%eax, entry + ENTRY_SS
	cld

	/* PML4, PDPT and four directories of 2 MiB pages: present, writable (3), large (0x80). */
	movl	$page_tables + 0x1000 + 3, page_tables
	movl	$page_tables + 0x2000 + 3, %eax
	movl	$page_tables + 0x1000, %edi
	movl	$4, %ecx
1:	movl	%eax, (%edi)
	addl	$0x1000, %eax
	addl	$8, %edi
	decl	%ecx
	jnz	1b
	movl	$0x83, %eax
	movl	$page_tables + 0x2000, %edi
	movl	$2048, %ecx
2:	movl	%eax, (%edi)
	addl	$0x200000, %eax
	addl	$8, %edi
	decl	%ecx
	jnz	2b
	movl	$page_tables, %eax
	lgdt	gdt_pointer
	call	long_mode_on
	ljmp	$CODE64, $pvh_start64

/* Turns long mode on with the page tables at eax. Still runs as 32-bit code afterwards. */
long_mode_on:
	movl	%eax, %cr3
	movl	%cr4, %eax
	orl	$0x20, %eax		/* PAE */
	movl	%eax, %cr4
	movl	$MSR_EFER, %ecx
	rdmsr
	orl	$0x100, %eax		/* LME */
	wrmsr
	movl	%cr0, %eax
	orl	$0x80000000, %eax	/* PG */
	movl	%eax, %cr0
	ret

	.code64
pvh_start64:
	movl	$DATA, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	$stack_top, %esp
	call	guest_begin
1:	cli
	hlt
	jmp	1b

/*
 * A second processor: starts in real mode at AP_TRAMPOLINE, where guest_runtime.c copied this; only what stands there may be
 * addressed, relative to its own segment.
 */
	.code16
	.globl ap_trampoline, ap_trampoline_end
ap_trampoline:
	cli
	movw	%cs, %ax
	movw	%ax, %ds
	lgdtl	ap_gdt_pointer - ap_trampoline
	movl	%cr0, %eax
	orl	$1, %eax		/* PE */
	movl	%eax, %cr0
	ljmpl	$CODE32, $ap_start32
	.balign 8
ap_gdt_pointer:
	.word	gdt_end - gdt - 1
	.long	gdt
ap_trampoline_end:

	.code32
ap_start32:
	movl	$DATA, %eax
	movl	%eax, %ds
	movl	%eax, %es
	movl	%eax, %ss
	movl	$ap_stack_top, %esp
	movl	ap_page_tables, %eax
	call	long_mode_on
	ljmp	$CODE64, $ap_start64

	.code64
ap_start64:
	movl	$ap_stack_top, %esp
	call	ap_begin
1:	cli
	hlt
	jmp	1b

/* Traps: vectors 0 to 63 push an error code of 0 where the processor does not, and their number; then all are one. */
	.altmacro
	.macro trap_entry vector
	.balign 16
	.if (\vector == 8) || (\vector >= 10 && \vector <= 14) || (\vector == 17)
	.else
	pushq	$0
	.endif
	pushq	$\vector
	jmp	trap_common
	.endm

	.balign 16
	.globl trap_entries
trap_entries:
	.set	vector, 0
	.rept	64
	trap_entry %vector
	.set	vector, vector + 1
	.endr

trap_common:
	pushq	%rax
	pushq	%rcx
	pushq	%rdx
	pushq	%rsi
	pushq	%rdi
	pushq	%r8
	pushq	%r9
	pushq	%r10
	pushq	%r11
	pushq	%rbx
	movq	%rsp, %rdi
	movq	%rsp, %rbx
	andq	$-16, %rsp
	cld
	call	guest_trap
	movq	%rbx, %rsp
	popq	%rbx
	popq	%r11
	popq	%r10
	popq	%r9
	popq	%r8
	popq	%rdi
	popq	%rsi
	popq	%rdx
	popq	%rcx
	popq	%rax
	addq	$16, %rsp
	iretq

	.data
	.balign 8
gdt:
	.quad	0
	.quad	0x00cf9b000000ffff	/* CODE32 */
	.quad	0x00af9b000000ffff	/* CODE64 */
	.quad	0x00cf93000000ffff	/* DATA */
gdt_end:
	.balign 8
gdt_pointer:
	.word	gdt_end - gdt - 1
	.quad	gdt
	.globl ap_page_tables
	.balign 8
ap_page_tables:
	.quad	0

	.bss
	.balign 4096
page_tables:
	.skip	6 * 4096
	.balign 16
	.skip	16384
stack_top:
	.skip	8192
ap_stack_top:

	.section .note.GNU-stack, "", @progbits
