/* Bytes through the pipe of a copy; see copy_internal.h. */
#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "guest/copy/copy_internal.h"

/* Until there is something to do, after EAGAIN. Returns 0 or -errno. */
static int wait_for(int fd, short events, int stall_ms)
{
	struct pollfd p = { .fd = fd, .events = events };
	const int ready = poll(&p, 1, stall_ms ? stall_ms : -1);
	if (ready < 0)
		return errno == EINTR ? 0 : -errno;
	return ready ? 0 : -ETIMEDOUT;
}

int copy_pipe_read(int fd, void *to, size_t length, int stall_ms)
{
	for (size_t done = 0; done < length;) {
		const ssize_t n = read(fd, (uint8_t *)to + done, length - done);
		int result = 0;
		if (n > 0)
			done += (size_t)n;
		else if (n == 0)
			result = -ENODATA;
		else if (errno == EAGAIN)
			result = wait_for(fd, POLLIN, stall_ms);
		else if (errno != EINTR)
			result = -errno;
		if (result < 0)
			return result;
	}
	return 0;
}

int copy_pipe_write(int fd, const void *from, size_t length, int stall_ms)
{
	for (size_t done = 0; done < length;) {
		const ssize_t n = write(fd, (const uint8_t *)from + done, length - done);
		int result = 0;
		if (n >= 0)
			done += (size_t)n;
		else if (errno == EAGAIN)
			result = wait_for(fd, POLLOUT, stall_ms);
		else if (errno != EINTR)
			result = -errno;
		if (result < 0)
			return result;
	}
	return 0;
}
