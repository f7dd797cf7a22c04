/*
 * -d: the machine goes on in a process of its own, while the caller's ends as soon as the command has started.
 *
 *   caller ---fork--- machine: its own session; dies with the caller until it lets go
 *     |                  |
 *     | <---- NAME ------+     detach_let_go(): the command runs
 *   exit 0               |
 */
#ifndef TRVMM_VMM_DETACH_H
#define TRVMM_VMM_DETACH_H

#include "base/error.h"

struct detach {
	int fd; /* to the caller's process */
	int null_fd; /* owned: /dev/null, which cannot be opened later */
};

/*
 * Forks. Returns 0 in the machine's process; in the caller's it does not return: that prints the name and exits with 0, or with the exit
 * code of a machine that ended before it let go (and has said why). Before there are threads. -errno with one line.
 */
int detach_fork(struct detach *detach, struct error *err);

/* Sends the caller home with `name`. Standard input and output become /dev/null, standard error becomes `stderr_fd` (borrowed). */
void detach_let_go(struct detach *detach, const char *name, int stderr_fd);

#endif
