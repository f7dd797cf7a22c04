/* Locks on whole files (flock), which end with the descriptor. */
#ifndef TRVMM_BASE_FILE_LOCK_H
#define TRVMM_BASE_FILE_LOCK_H

#include <stdbool.h>

/*
 * Locks the file of `fd` against all others, or, `shared`, against those that want it for themselves. Waits a second for whoever has it: a
 * trvmm that was just killed holds its locks until its VM is gone. Returns 0, -EBUSY when it stays locked, or -errno.
 */
int file_lock(int fd, bool shared);

#endif
