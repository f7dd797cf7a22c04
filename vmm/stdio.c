/* Standard streams that do not block; see stdio.h. */
#include "vmm/stdio.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/iov.h"
#include "vmm/sandbox.h"

#define RELAY_BYTES 65536

/* ---- the thread -------------------------------------------------------------------------------------------------------------- */

/* Owned by the thread, which frees it. */
struct relay_job {
	int from, to; /* owned */
	int watched; /* `to` or -1: its peer's end is the end of reading `from`, too */
	int done; /* owned; -1: none. Closing it tells that all is written */
};

static void relay_free(struct relay_job *r)
{
	if (r->from >= 0)
		close(r->from);
	if (r->to >= 0)
		close(r->to);
	if (r->done >= 0)
		close(r->done);
	free(r);
}

static void *relay_run(void *data)
{
	struct relay_job *r = data;
	char buffer[RELAY_BYTES];
	sandbox_enter(SANDBOX_RELAY);
	for (;;) {
		/* Input that nobody will take is left to the next program. */
		struct pollfd p[2] = { { .fd = r->from, .events = POLLIN }, { .fd = r->watched } };
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			break;
		if (p[1].revents)
			break;
		if (!p[0].revents)
			continue;
		const ssize_t n = read(r->from, buffer, sizeof(buffer));
		if (n < 0 && (errno == EINTR || errno == EAGAIN))
			continue;
		if (n <= 0 || write_full(r->to, buffer, (size_t)n) < 0)
			break;
	}
	relay_free(r);
	return NULL;
}

int stdio_start(struct stdio_end *end)
{
	if (!end->waiting)
		return 0;
	sigset_t all, before;
	pthread_attr_t attributes;
	pthread_t thread;
	sigfillset(&all);
	pthread_attr_init(&attributes);
	pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	const int result = pthread_create(&thread, &attributes, relay_run, end->waiting);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_attr_destroy(&attributes);
	if (result == 0)
		end->waiting = NULL;
	return -result;
}

static int prepare_relay(int fd, bool reading, struct stdio_end *end)
{
	struct stdio_end made = { -1, -1, NULL };
	int ends[2], done[2] = { -1, -1 };
	struct relay_job *r = malloc(sizeof(*r));
	if (!r)
		return -ENOMEM;
	*r = (struct relay_job){ -1, -1, -1, -1 };
	int result = 0;
	/* Not a socket pair: each end of a pipe has flags of its own, whoever else gets it. */
	if (pipe2(ends, O_CLOEXEC) < 0) {
		result = -errno;
		goto fail;
	}
	made.fd = ends[reading ? 0 : 1];
	if (reading)
		r->to = r->watched = ends[1];
	else
		r->from = ends[0];
	if (fcntl(made.fd, F_SETFL, O_NONBLOCK) < 0) {
		result = -errno;
		goto fail;
	}
	const int copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (copy < 0) {
		result = -errno;
		goto fail;
	}
	if (reading)
		r->from = copy;
	else
		r->to = copy;
	if (!reading && pipe2(done, O_CLOEXEC | O_NONBLOCK) < 0) {
		result = -errno;
		goto fail;
	}
	made.done_fd = done[0];
	r->done = done[1];
	made.waiting = r;
	*end = made;
	return 0;

fail:
	relay_free(r);
	if (made.fd >= 0)
		close(made.fd);
	if (made.done_fd >= 0)
		close(made.done_fd);
	return result;
}

/* ---- what a descriptor is ---------------------------------------------------------------------------------------------------- */

/* Files that epoll does not take have no notion of waiting. */
static bool never_waits(int fd)
{
	const int epoll = epoll_create1(EPOLL_CLOEXEC);
	if (epoll < 0)
		return false;
	struct epoll_event event = { .events = EPOLLIN };
	const bool refused = epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0 && errno == EPERM;
	close(epoll);
	return refused;
}

static int reopen(int fd, int mode)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	return open(path, mode | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

static int prepare_end(int fd, bool reading, struct stdio_end *end)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return -errno;
	int made = -1;
	if (never_waits(fd)) {
		made = fcntl(fd, F_DUPFD_CLOEXEC, 3);
		if (made < 0)
			return -errno;
	} else if (S_ISFIFO(st.st_mode) || isatty(fd)) {
		made = reopen(fd, reading ? O_RDONLY : O_WRONLY);
	}
	if (made < 0)
		return prepare_relay(fd, reading, end);
	*end = (struct stdio_end){ made, -1, NULL };
	return 0;
}

/* `result` is that of preparing `made`. */
static int start_end(int result, struct stdio_end *made, struct stdio_end *end)
{
	if (result == 0 && (result = stdio_start(made)) < 0) {
		relay_free(made->waiting);
		close(made->fd);
		if (made->done_fd >= 0)
			close(made->done_fd);
	}
	if (result == 0)
		*end = *made;
	return result;
}

int stdio_relay_read(int fd, struct stdio_end *end)
{
	struct stdio_end made = { -1, -1, NULL };
	return start_end(prepare_relay(fd, true, &made), &made, end);
}

int stdio_relay_write(int fd, struct stdio_end *end)
{
	struct stdio_end made = { -1, -1, NULL };
	return start_end(prepare_relay(fd, false, &made), &made, end);
}

int stdio_open_read(int fd, struct stdio_end *end)
{
	struct stdio_end made = { -1, -1, NULL };
	return start_end(prepare_end(fd, true, &made), &made, end);
}

int stdio_open_write(int fd, struct stdio_end *end)
{
	struct stdio_end made = { -1, -1, NULL };
	return start_end(prepare_end(fd, false, &made), &made, end);
}

void stdio_discard(struct stdio_end *end)
{
	if (end->waiting)
		relay_free(end->waiting);
	end->waiting = NULL;
}

int stdio_prepare_read(int fd, struct stdio_end *end)
{
	return prepare_end(fd, true, end);
}

int stdio_prepare_write(int fd, struct stdio_end *end)
{
	return prepare_end(fd, false, end);
}

int stdio_take(int fd, struct stdio_end *end)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISFIFO(st.st_mode) && !never_waits(fd))
		return -EINVAL;
	const int made = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	if (made < 0)
		return -errno;
	*end = (struct stdio_end){ made, -1, NULL };
	return 0;
}
