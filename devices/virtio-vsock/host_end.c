/*
 * Descriptors of the host: reading, writing, watching and closing them without ever blocking the loop.
 *
 * A descriptor is one of three kinds. Sockets are used by sendmsg and recvmsg, whose flags keep them from blocking and from
 * SIGPIPE. Pipes and terminals are used by readv and writev; when O_NONBLOCK is not set (the flag belongs to all who share the
 * open file, so we leave a terminal or the pipe of somebody's shell as it is), poll() says first whether a small access would
 * block. Regular files and /dev/null, which epoll refuses, are always ready.
 *
 * Watching is level-triggered. Interest in reading stays on while readiness is already known, and is taken back only when the
 * loop reports it again in that state: a connection that reads all it is told of needs no epoll_ctl at all.
 */
#include "base/container.h"
#include "devices/virtio-vsock/vsock_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/iov.h"

static void host_ready(struct loop_source *source, uint32_t events);

static bool ends_shared(const struct vsock_conn *conn)
{
	return conn->in.source.fd >= 0 && conn->in.source.fd == conn->out.source.fd;
}

static void end_init(struct vsock_end *end, struct vsock_conn *conn, int fd)
{
	struct stat status;

	*end = (struct vsock_end){ .conn = conn, .source = { .fd = fd, .ready = host_ready } };
	if (fd < 0 || fstat(fd, &status) < 0)
		return;
	end->is_socket = S_ISSOCK(status.st_mode);
	end->unwatchable = S_ISREG(status.st_mode);
	if (!end->is_socket && !end->unwatchable) {
		const int flags = fcntl(fd, F_GETFL);
		end->blocking = flags >= 0 && !(flags & O_NONBLOCK);
	}
}

void ends_init(struct vsock_conn *conn, const struct vsock_ends *ends)
{
	end_init(&conn->in, conn, ends->read_fd);
	end_init(&conn->out, conn, ends->write_fd);
	/* One message may be as long as all that the guest may send. */
	const int length = (int)conn->buf_alloc;
	if (conn->type == VSOCK_TYPE_SEQPACKET)
		setsockopt(ends->write_fd, SOL_SOCKET, SO_SNDBUF, &length, sizeof(length));
}

void vsock_ends_close(const struct vsock_ends *ends)
{
	if (ends->read_fd >= 0)
		close(ends->read_fd);
	if (ends->write_fd >= 0 && ends->write_fd != ends->read_fd)
		close(ends->write_fd);
}

/* ---- reading and writing ----------------------------------------------------------------------------------------------------- */

static bool end_polls(const struct vsock_end *end, short events)
{
	struct pollfd request = { .fd = end->source.fd, .events = events };
	return poll(&request, 1, 0) > 0;
}

ssize_t end_readv(const struct vsock_end *end, struct iovec *iov, unsigned count)
{
	ssize_t n;

	if (end->blocking && !end_polls(end, POLLIN))
		return -EAGAIN;
	do {
		if (end->is_socket) {
			struct msghdr message = { .msg_iov = iov, .msg_iovlen = count };
			n = recvmsg(end->source.fd, &message, MSG_DONTWAIT);
		} else {
			n = readv(end->source.fd, iov, (int)count);
		}
	} while (n < 0 && errno == EINTR && !end->blocking);
	return n < 0 ? (errno == EINTR ? -EAGAIN : -errno) : n;
}

static ssize_t end_write_once(const struct vsock_end *end, struct iovec *iov, unsigned count)
{
	ssize_t n;

	do {
		if (end->is_socket) {
			struct msghdr message = { .msg_iov = iov, .msg_iovlen = count };
			n = sendmsg(end->source.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
		} else {
			n = writev(end->source.fd, iov, (int)count);
		}
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

ssize_t end_writev(const struct vsock_end *end, struct iovec *iov, unsigned count)
{
	if (!end->blocking)
		return end_write_once(end, iov, count);

	/* A pipe that polls writable takes PIPE_BUF bytes without blocking; so do terminals in practice. */
	const size_t total = iov_total(iov, count);
	size_t done = 0;
	while (done < total) {
		struct iovec piece[VIRTQ_MAX_SIZE];
		if (!end_polls(end, POLLOUT))
			return done ? (ssize_t)done : -EAGAIN;
		const unsigned pieces = iov_slice(iov, count, done, PIPE_BUF, piece);
		const ssize_t n = end_write_once(end, piece, pieces);
		if (n <= 0)
			return done ? (ssize_t)done : n;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

ssize_t end_next_message(const struct vsock_end *end)
{
	const int fd = end->source.fd;

	for (;;) {
		ssize_t n = recv(fd, NULL, 0, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT);
		if (n != 0)
			return n > 0 ? n : -errno;
		/* The end, or an empty message: nothing comes behind the end. */
		struct pollfd request = { .fd = fd, .events = POLLRDHUP };
		const bool over = poll(&request, 1, 0) > 0;
		int waiting = 0;
		if (ioctl(fd, FIONREAD, &waiting) < 0 || (over && waiting == 0))
			return 0;
		n = recv(fd, NULL, 0, MSG_DONTWAIT);
		if (n < 0)
			return -errno;
	}
}

/* ---- watching ---------------------------------------------------------------------------------------------------------------- */

static void end_unwatch(struct vsock_end *end)
{
	if (end->watched)
		loop_remove(end->conn->vsock->dev.loop, &end->source);
	end->watched = false;
}

static void end_watch(struct vsock_end *end, uint32_t events)
{
	struct loop *loop = end->conn->vsock->dev.loop;

	if (end->source.fd < 0 || end->unwatchable || end->hung)
		return;
	if (end->watched) {
		loop_modify(loop, &end->source, events);
		return;
	}
	if (!events)
		return;
	end->source.events = events;
	if (loop_add(loop, &end->source) == 0)
		end->watched = true;
	else
		end->unwatchable = true; /* EPERM: always ready. If the kernel has no room for a watch, the first EAGAIN ends it. */
}

void ends_watch(struct vsock_conn *conn)
{
	const bool live = conn->state == VSOCK_OPEN || conn->state == VSOCK_DETACHED;
	const bool reading = live && !conn->read_over;
	/* Known readiness does not take the interest back: see the top of the file. */
	const uint32_t in = reading ? (conn->read_ready && conn->in.watched ? conn->in.source.events & EPOLLIN : EPOLLIN) : 0;
	const uint32_t out = live && !conn->write_over && backlog_ready(conn) ? EPOLLOUT : 0;

	if (ends_shared(conn)) {
		end_watch(&conn->in, in | out);
	} else {
		end_watch(&conn->in, in);
		end_watch(&conn->out, out);
	}
	if (reading && !conn->read_ready && (conn->in.unwatchable || conn->in.hung)) {
		conn->read_ready = true;
		conn_schedule(conn);
	}
}

static void host_readable(struct vsock_conn *conn)
{
	struct vsock_end *end = &conn->in;

	if (conn->read_over || conn->read_ready) {
		if (end->watched)
			loop_modify(conn->vsock->dev.loop, &end->source, end->source.events & ~(uint32_t)EPOLLIN);
	}
	if (!conn->read_over) {
		conn->read_ready = true;
		conn_schedule(conn);
	}
}

/* The peer of the descriptor hung up. The loop would report it for ever, so the watch ends, and what is left to do is tried at
 * once. */
static void host_hung(struct vsock_end *end)
{
	struct vsock_conn *conn = end->conn;
	const bool writes = end == &conn->out || ends_shared(conn);

	end_unwatch(end);
	end->hung = true;
	if (!writes || conn->write_over)
		return;
	if (conn->backlog_bytes)
		backlog_flush(conn);
	/* A socket hangs up when both of its directions are closed. What still waits to be read is read first: EOF comes behind
	 * it. */
	if (conn->state != VSOCK_DEAD && !conn->write_over && (conn->read_over || end == &conn->out || conn->backlog_bytes))
		conn_write_broken(conn);
}

static void host_ready(struct loop_source *source, uint32_t events)
{
	struct vsock_end *end = container_of(source, struct vsock_end, source);
	struct vsock_conn *conn = end->conn;
	struct virtio_vsock *vsock = conn->vsock;

	vsock_enter(vsock);
	if (events & (EPOLLHUP | EPOLLERR))
		host_hung(end);
	else if ((events & EPOLLOUT) && conn->backlog_bytes)
		backlog_flush(conn);
	if (end == &conn->in && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && conn->state == VSOCK_OPEN)
		host_readable(conn);
	vsock_leave(vsock);
}

/* ---- closing ----------------------------------------------------------------------------------------------------------------- */

static void end_close(struct vsock_end *end)
{
	end_unwatch(end);
	if (end->source.fd >= 0)
		close(end->source.fd);
	end->source.fd = -1;
}

void ends_close(struct vsock_conn *conn)
{
	const bool shared = ends_shared(conn);

	end_close(&conn->in);
	if (shared)
		conn->out.source.fd = -1;
	else
		end_close(&conn->out);
	conn->read_over = conn->write_over = true;
	conn->read_ready = false;
	conn_settle_later(conn);
}

/* One direction is over. With one descriptor for both, a socket can be closed by halves; nothing else can, and stays open for
 * the other. */
static void end_close_half(struct vsock_conn *conn, struct vsock_end *end, int how)
{
	if (conn->read_over && conn->write_over) {
		ends_close(conn);
		return;
	}
	if (!ends_shared(conn)) {
		end_close(end);
		return;
	}
	if (end->is_socket)
		shutdown(end->source.fd, how);
	ends_watch(conn);
}

void ends_close_in(struct vsock_conn *conn)
{
	conn->read_over = true;
	conn->read_ready = false;
	end_close_half(conn, &conn->in, SHUT_RD);
}

void ends_close_out(struct vsock_conn *conn)
{
	conn->write_over = true;
	end_close_half(conn, &conn->out, SHUT_WR);
}
