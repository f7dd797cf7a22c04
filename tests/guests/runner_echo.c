/* The runner's vsock services: a socket pair for each connection, and a thread that sends back what comes, or sends for ever; see
 * runner.h. */
#include <errno.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/guests/runner.h"
#include "tests/guests/world.h"

static _Atomic unsigned open_count;

/* Serves one connection with blocking calls, in a thread of its own. */
static void *echo_thread(void *arg)
{
	const int fd = (int)(intptr_t)arg;
	char buffer[4096];

	for (;;) {
		const ssize_t n = read(fd, buffer, sizeof(buffer));
		if (n <= 0)
			break;
		for (ssize_t done = 0; done < n;) {
			const ssize_t sent = send(fd, buffer + done, (size_t)(n - done), MSG_NOSIGNAL);
			if (sent <= 0)
				goto out;
			done += sent;
		}
	}
out:
	close(fd);
	atomic_fetch_sub(&open_count, 1);
	return NULL;
}

/* Sends until nobody takes it any more: byte n of the stream is n, modulo 251. */
static void *source_thread(void *arg)
{
	const int fd = (int)(intptr_t)arg;
	uint8_t buffer[251 * 16];

	for (size_t i = 0; i < sizeof(buffer); i++)
		buffer[i] = (uint8_t)(i % 251);
	for (size_t at = 0;;) {
		const ssize_t sent = send(fd, buffer + at, sizeof(buffer) - at, MSG_NOSIGNAL);
		if (sent <= 0)
			break;
		at = (at + (size_t)sent) % sizeof(buffer);
	}
	close(fd);
	atomic_fetch_sub(&open_count, 1);
	return NULL;
}

static int accept_connection(void *data, uint32_t port, struct vsock_ends *ends)
{
	pthread_t thread;
	int fds[2];

	(void)data;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) < 0)
		return -errno;
	atomic_fetch_add(&open_count, 1);
	if (pthread_create(&thread, NULL, port == WORLD_ECHO_PORT ? echo_thread : source_thread, (void *)(intptr_t)fds[1])) {
		atomic_fetch_sub(&open_count, 1);
		close(fds[0]);
		close(fds[1]);
		return -EAGAIN;
	}
	pthread_detach(thread);
	ends->read_fd = ends->write_fd = fds[0];
	return 0;
}

int echo_serve(struct virtio_vsock *vsock)
{
	const int result = virtio_vsock_listen(vsock, WORLD_ECHO_PORT, WORLD_ECHO_PORT, accept_connection, NULL);
	return result < 0 ? result : virtio_vsock_listen(vsock, WORLD_SOURCE_PORT, WORLD_SOURCE_PORT, accept_connection, NULL);
}

unsigned echo_open_count(void)
{
	return atomic_load(&open_count);
}
