/* The programs for the guest as read-only data; AGENT_FILE and COPY_FILE are given by the Makefile. */
	.section .rodata
	.macro BLOB name, file
	.balign 16
	.globl \name, \name\()_bytes
\name:
	.incbin "\file"
\name\()_end:
	.balign 8
\name\()_bytes:
	.quad \name\()_end - \name
	.endm

	BLOB agent_blob, AGENT_FILE
	BLOB copy_blob, COPY_FILE
	.section .note.GNU-stack, "", @progbits
