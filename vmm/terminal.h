/* The host's terminal while a command's pty is joined with it. */
#ifndef TRVMM_VMM_TERMINAL_H
#define TRVMM_VMM_TERMINAL_H

#include <stdint.h>

/*
 * Puts the terminal `fd` (borrowed, stays open) into raw mode: every key goes to the guest. Its modes are restored at exit and by
 * those signals that would end or dump this process and have no handler of their own; after a stop (SIGCONT) it becomes raw again.
 * Once in the life of the process. Returns 0 or -errno: -ENOTTY.
 */
int terminal_set_raw(int fd);

/* Restores the modes. At any time, any number of times, also in a signal handler and when terminal_set_raw() was never called. */
void terminal_restore(void);

/* The size of the terminal `fd`. Returns 0 or -errno. */
int terminal_get_size(int fd, uint16_t *rows, uint16_t *columns);

#endif
