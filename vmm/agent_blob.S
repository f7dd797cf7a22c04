/* The agent's executable as read-only data; AGENT_FILE is given by the Makefile. */
	.section .rodata
	.balign 16
	.globl agent_blob, agent_blob_bytes
agent_blob:
	.incbin AGENT_FILE
agent_blob_end:
	.balign 8
agent_blob_bytes:
	.quad agent_blob_end - agent_blob
	.section .note.GNU-stack, "", @progbits
