/* See fake_vsock.h. Each connection has a thread that carries its bytes; callbacks are called on the loop. */
#include "tests/unit/fake_vsock.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/container.h"
#include "base/le.h"

#define BUFFER_BYTES 65536
#define RANGES 8

struct range {
	uint32_t first, last;
	vsock_accept accept;
	void *data;
};

struct direction {
	int from, to;  /* -1: not there, or over */
	bool over;
	int *error;    /* NULL: nobody wants to know */
	size_t start, stop;
	char buffer[BUFFER_BYTES];
};

struct connection {
	struct virtio_vsock *vsock;
	struct connection *next, *next_closed;
	struct loop_source source; /* while the port is read */
	struct vsock_ends ends;
	pthread_t thread;
	bool threaded;
	struct direction up, down; /* to the host, to the guest */
};

struct virtio_vsock {
	struct loop *loop;
	struct loop_source listener, closings;
	struct range ranges[RANGES];
	unsigned range_count, refused;
	struct connection *connections;
	int stop[2]; /* a pipe; closing its write end ends all threads */
	pthread_mutex_t lock;
	struct connection *closed; /* guarded by lock */
};

/* ---- carrying bytes ---------------------------------------------------------------------------------------------------------- */

static bool direction_step(struct direction *d, short from_events, short to_events)
{
	if (d->over)
		return true;
	if (d->start == d->stop && (from_events || d->from < 0)) {
		const ssize_t n = d->from < 0 ? 0 : read(d->from, d->buffer, sizeof(d->buffer));
		if (n < 0 && errno == EAGAIN)
			return true;
		d->start = 0;
		d->stop = n > 0 ? (size_t)n : 0;
		if (n <= 0) {
			d->over = true;
			return true;
		}
		to_events = POLLOUT;
	}
	if (d->start != d->stop && to_events && d->to < 0)
		d->start = d->stop; /* discarded */
	if (d->start != d->stop && to_events) {
		const ssize_t n = write(d->to, d->buffer + d->start, d->stop - d->start);
		if (n < 0 && errno != EAGAIN) {
			if (d->error && errno != EPIPE)
				*d->error = -errno;
			return false;
		}
		d->start += n > 0 ? (size_t)n : 0;
	}
	return true;
}

static void close_ends(struct connection *c)
{
	if (c->ends.read_fd >= 0)
		close(c->ends.read_fd);
	if (c->ends.write_fd >= 0 && c->ends.write_fd != c->ends.read_fd)
		close(c->ends.write_fd);
	c->ends.read_fd = c->ends.write_fd = -1;
}

/* The end of one direction: half closes, as the device does. */
static void pass_on_ends(struct connection *c)
{
	if (c->up.over && c->ends.write_fd >= 0) {
		if (c->ends.write_fd == c->ends.read_fd) {
			shutdown(c->ends.write_fd, SHUT_WR);
		} else {
			close(c->ends.write_fd);
			c->ends.write_fd = c->up.to = -1;
		}
	}
	if (c->down.over && c->source.fd >= 0)
		shutdown(c->source.fd, SHUT_WR);
	if (c->down.over && c->ends.read_fd >= 0 && c->ends.write_fd != c->ends.read_fd) {
		close(c->ends.read_fd);
		c->ends.read_fd = c->down.from = -1;
	}
}

static void *carry(void *data)
{
	struct connection *c = data;
	bool hung_up = false;
	while (!c->up.over || !c->down.over) {
		const bool up_full = c->up.start != c->up.stop, down_full = c->down.start != c->down.stop;
		struct pollfd p[4] = {
			{ .fd = hung_up ? -1 : c->source.fd,
			  .events = (short)((!c->up.over && !up_full ? POLLIN : 0) | (!c->down.over && down_full ? POLLOUT : 0)) },
			{ .fd = c->up.over || !up_full ? -1 : c->up.to, .events = POLLOUT },
			{ .fd = c->down.over || down_full ? -1 : c->down.from, .events = POLLIN },
			{ .fd = c->vsock->stop[0] },
		};
		const bool at_once = (!c->up.over && (hung_up || (up_full && c->up.to < 0))) || (!c->down.over && c->down.from < 0);
		poll(p, 4, at_once && !up_full ? 0 : -1);
		if (p[3].revents)
			break;
		if (p[0].revents & (POLLHUP | POLLERR))
			hung_up = true;
		if (!direction_step(&c->up, (short)(hung_up || p[0].revents & POLLIN), p[1].revents) ||
		    !direction_step(&c->down, p[2].revents, (short)(p[0].revents & POLLOUT)))
			break;
		if (hung_up)
			c->down.over = true;
		pass_on_ends(c);
	}
	close_ends(c);
	close(c->source.fd);
	c->source.fd = -1;
	pthread_mutex_lock(&c->vsock->lock);
	c->next_closed = c->vsock->closed;
	c->vsock->closed = c;
	pthread_mutex_unlock(&c->vsock->lock);
	eventfd_write(c->vsock->closings.fd, 1);
	return NULL;
}

static void connection_free(struct connection *c)
{
	struct connection **link = &c->vsock->connections;
	while (*link != c)
		link = &(*link)->next;
	*link = c->next;
	if (c->threaded)
		pthread_join(c->thread, NULL);
	else if (c->source.fd >= 0)
		close(c->source.fd);
	free(c);
}

static void closings_ready(struct loop_source *source, uint32_t events)
{
	struct virtio_vsock *vsock = container_of(source, struct virtio_vsock, closings);
	eventfd_t count;
	(void)events;
	eventfd_read(source->fd, &count);
	for (;;) {
		pthread_mutex_lock(&vsock->lock);
		struct connection *c = vsock->closed;
		if (c)
			vsock->closed = c->next_closed;
		pthread_mutex_unlock(&vsock->lock);
		if (!c)
			return;
		const struct vsock_ends ends = c->ends;
		connection_free(c);
		if (ends.closed)
			ends.closed(ends.closed_data);
	}
}

/* ---- connecting -------------------------------------------------------------------------------------------------------------- */

static int find_and_accept(struct virtio_vsock *vsock, uint32_t port, struct vsock_ends *ends)
{
	for (unsigned i = 0; i < vsock->range_count; i++) {
		const struct range *r = &vsock->ranges[i];
		if (port >= r->first && port <= r->last)
			return r->accept(r->data, port, ends);
	}
	return -ECONNREFUSED;
}

static void port_ready(struct loop_source *source, uint32_t events)
{
	struct connection *c = container_of(source, struct connection, source);
	le32 port;
	(void)events;
	loop_remove(c->vsock->loop, source);
	c->ends = (struct vsock_ends){ .read_fd = -1, .write_fd = -1 };
	if (recv(source->fd, &port, sizeof(port), MSG_WAITALL) != (ssize_t)sizeof(port) ||
	    find_and_accept(c->vsock, le32_get(port), &c->ends) < 0) {
		c->vsock->refused++;
		connection_free(c);
		return;
	}
	/* What cannot be answered is closed, as the thread will see. */
	(void)!send(source->fd, "", 1, MSG_NOSIGNAL);
	fcntl(source->fd, F_SETFL, O_NONBLOCK);
	c->up.from = c->down.to = source->fd;
	c->up.to = c->ends.write_fd;
	c->up.error = c->ends.write_error;
	c->down.from = c->ends.read_fd;
	c->threaded = true;
	const int result = pthread_create(&c->thread, NULL, carry, c);
	assert(result == 0);
}

static void listener_ready(struct loop_source *source, uint32_t events)
{
	struct virtio_vsock *vsock = container_of(source, struct virtio_vsock, listener);
	const int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC);
	(void)events;
	if (fd < 0)
		return;
	struct connection *c = calloc(1, sizeof(*c));
	assert(c);
	c->vsock = vsock;
	c->next = vsock->connections;
	vsock->connections = c;
	c->source = (struct loop_source){ .fd = fd, .events = EPOLLIN, .ready = port_ready };
	loop_add(vsock->loop, &c->source);
}

/* ---- public ------------------------------------------------------------------------------------------------------------------ */

struct virtio_vsock *fake_vsock_create(struct loop *loop, const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct virtio_vsock *vsock = calloc(1, sizeof(*vsock));
	assert(vsock && strlen(path) < sizeof(address.sun_path));
	strcpy(address.sun_path, path);
	vsock->loop = loop;
	pthread_mutex_init(&vsock->lock, NULL);
	int result = pipe2(vsock->stop, O_CLOEXEC);
	assert(result == 0);
	vsock->listener = (struct loop_source){ .fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0),
						.events = EPOLLIN,
						.ready = listener_ready };
	result = bind(vsock->listener.fd, (const struct sockaddr *)&address, sizeof(address));
	assert(result == 0);
	result = listen(vsock->listener.fd, 4096);
	assert(result == 0);
	vsock->closings = (struct loop_source){ .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
						.events = EPOLLIN,
						.ready = closings_ready };
	result = loop_add(loop, &vsock->listener);
	assert(result == 0);
	result = loop_add(loop, &vsock->closings);
	assert(result == 0);
	return vsock;
}

unsigned fake_vsock_refused(const struct virtio_vsock *vsock)
{
	return vsock->refused;
}

int virtio_vsock_listen(struct virtio_vsock *vsock, uint32_t first, uint32_t last, vsock_accept accept, void *data)
{
	if (vsock->range_count == RANGES)
		return -ENOSPC;
	vsock->ranges[vsock->range_count++] = (struct range){ first, last, accept, data };
	return 0;
}

void virtio_vsock_destroy(struct virtio_vsock *vsock)
{
	if (!vsock)
		return;
	close(vsock->stop[1]);
	while (vsock->connections)
		connection_free(vsock->connections);
	loop_remove(vsock->loop, &vsock->listener);
	loop_remove(vsock->loop, &vsock->closings);
	close(vsock->listener.fd);
	close(vsock->closings.fd);
	close(vsock->stop[0]);
	pthread_mutex_destroy(&vsock->lock);
	free(vsock);
}
