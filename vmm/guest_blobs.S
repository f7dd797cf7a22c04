/* The programs for the guest as read-only data; AGENT_FILE and COPY_FILE are given by the Makefile. */
#include "vmm/guest_blobs.h"

	.section .rodata
	.macro BLOB name, file
	.balign 16
	.globl \name
\name:
	.incbin "\file"
	.org \name + BLOB_SLOT_BYTES /* "attempt to move .org backwards": the program has outgrown its slot */
	.endm

	BLOB agent_blob, AGENT_FILE
	BLOB copy_blob, COPY_FILE
	.section .note.GNU-stack, "", @progbits
