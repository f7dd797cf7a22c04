/* Locks on whole files; see file_lock.h. */
#include "base/file_lock.h"

#include <errno.h>
#include <sys/file.h>
#include <time.h>

#define ATTEMPTS 20
#define PAUSE_NS 50000000

int file_lock(int fd, bool shared)
{
	for (unsigned attempt = 0;; attempt++) {
		if (flock(fd, (shared ? LOCK_SH : LOCK_EX) | LOCK_NB) == 0)
			return 0;
		if (errno != EWOULDBLOCK && errno != EINTR)
			return -errno;
		if (attempt == ATTEMPTS)
			return -EBUSY;
		nanosleep(&(struct timespec){ .tv_nsec = PAUSE_NS }, NULL);
	}
}
