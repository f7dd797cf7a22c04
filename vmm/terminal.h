/* The host's terminal while a command's pty is joined with it. */
#ifndef TRVMM_VMM_TERMINAL_H
#define TRVMM_VMM_TERMINAL_H

#include <stdint.h>

/*
 * Puts the terminal `fd` (borrowed, stays open) into raw mode: every key goes to the guest. Its modes are restored at exit and by
 * those signals that would end, dump or stop (SIGTSTP) this process and have no handler of their own; when it goes on (SIGCONT) it becomes
 * raw again, and SIGWINCH is sent, since the size may be another by now. In the background the terminal is left alone: it is the shell's
 * then. Once in the life of the process. Returns 0 or -errno: -ENOTTY.
 */
int terminal_set_raw(int fd);

/* Restores the modes. At any time, any number of times, also in a signal handler and when terminal_set_raw() was never called. */
void terminal_restore(void);

/* What another process that shares our memory and descriptors has to do for the terminal when we are killed (vmm/reaper.c). */
struct terminal_will {
	volatile int raw;        /* there is something to do: TCSETS with `modes`, if the terminal is still our process group's */
	int fd;
	unsigned char modes[64]; /* the kernel's struct termios */
};
const struct terminal_will *terminal_will(void);

/* The size of the terminal `fd`. Returns 0 or -errno. */
int terminal_get_size(int fd, uint16_t *rows, uint16_t *columns);

#endif
