/* The agent's executable as read-only data; AGENT_FILE is given by the Makefile. */
	.section .rodata
	.balign 16
	.globl agent_blob_start, agent_blob_end
agent_blob_start:
	.incbin AGENT_FILE
agent_blob_end:
	.section .note.GNU-stack, "", @progbits
