/*
 * Host programs and their Unix sockets, in Firecracker's convention (its docs/vsock.md).
 *
 *   host to guest   a program connects to PATH, writes "CONNECT PORT\n" and reads "OK HOSTPORT\n" when the guest has accepted;
 *                   from then on the socket is the connection. What it writes behind the newline before that is not lost.
 *                   A refusal is a closed socket.
 *   guest to host   a connection to host port P goes to the program that listens on PATH_P
 *
 * Programs are not trusted either: their line is bounded in length and time, and only a few may be in this state at once. The
 * others wait in the kernel's queue.
 */
#include "base/container.h"
#include "devices/virtio-vsock/vsock_internal.h"

#include <ctype.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define LINE_MAX_BYTES 32u     /* "CONNECT 4294967295\n" has 19 */
#define CLIENTS_MAX 64u        /* that have not finished their line */
#define PORT_SUFFIX_BYTES 11u  /* "_4294967295" */
#define ACCEPT_RETRY_NS 500000000ull
/* connect(2) of a program that does not wait fails when this is full. */
#define LISTEN_BACKLOG 1024

struct unix_client {
	struct vsock_unix *owner;
	struct loop_source source; /* source.fd is owned */
	uint64_t deadline_ns;
	unsigned length;
	char line[LINE_MAX_BYTES + 1];
	struct vsock_link link;
};

struct vsock_unix {
	struct virtio_vsock *vsock;
	struct loop_source listener;
	struct sockaddr_un address;
	struct vsock_link clients; /* oldest first */
	unsigned client_count;
	uint64_t retry_ns; /* accepting failed for want of resources; 0: it did not */
};

/* Programs are accepted while there is room for their lines, and files for their sockets. */
static void listener_update(struct vsock_unix *side)
{
	const bool wanted = side->client_count < CLIENTS_MAX && !side->retry_ns;

	loop_modify(side->vsock->dev.loop, &side->listener, wanted ? EPOLLIN : 0);
}

/* Forgets the client. Its descriptor is returned: the caller closes it or passes it on. */
static int client_release(struct unix_client *client)
{
	struct vsock_unix *side = client->owner;
	const int fd = client->source.fd;

	loop_remove(side->vsock->dev.loop, &client->source);
	list_remove(&client->link);
	side->client_count--;
	free(client);
	listener_update(side);
	return fd;
}

/* Reads up to the newline and not a byte further. Returns 1: the line is complete; 0: not yet; -errno: it never will be. */
static int client_read_line(struct unix_client *client)
{
	char *end = client->line + client->length;
	const size_t room = LINE_MAX_BYTES - client->length;
	const ssize_t seen = recv(client->source.fd, end, room, MSG_PEEK | MSG_DONTWAIT);

	if (seen < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (seen == 0)
		return -ECONNRESET;
	const char *newline = memchr(end, '\n', (size_t)seen);
	const size_t take = newline ? (size_t)(newline - end) + 1 : (size_t)seen;
	if (recv(client->source.fd, end, take, MSG_DONTWAIT) != (ssize_t)take)
		return -EIO;
	client->length += (unsigned)take;
	client->line[client->length] = '\0';
	if (newline)
		return 1;
	return client->length == LINE_MAX_BYTES ? -EMSGSIZE : 0;
}

/* "CONNECT PORT\n", in any case and with any blanks, as Firecracker takes it. */
static bool parse_connect(const char *line, uint32_t *port)
{
	static const char word[] = "CONNECT";
	uint64_t value = 0;

	if (strncasecmp(line, word, sizeof(word) - 1) != 0 || !isblank((unsigned char)line[sizeof(word) - 1]))
		return false;
	line += sizeof(word);
	while (isblank((unsigned char)*line))
		line++;
	if (!isdigit((unsigned char)*line))
		return false;
	for (; isdigit((unsigned char)*line); line++) {
		value = value * 10 + (uint64_t)(*line - '0');
		if (value > UINT32_MAX)
			return false;
	}
	while (isspace((unsigned char)*line))
		line++;
	*port = (uint32_t)value;
	return *line == '\0';
}

static void client_ready(struct loop_source *source, uint32_t events)
{
	struct unix_client *client = container_of(source, struct unix_client, source);
	struct virtio_vsock *vsock = client->owner->vsock;
	uint32_t port = 0;

	(void)events;
	const int result = client_read_line(client);
	if (result == 0)
		return;
	const bool valid = result > 0 && parse_connect(client->line, &port);
	const int fd = client_release(client);
	if (valid)
		vsock_connect_client(vsock, port, fd);
	else
		close(fd);
}

static void client_add(struct vsock_unix *side, int fd)
{
	struct unix_client *client = calloc(1, sizeof(*client));

	if (!client) {
		close(fd);
		return;
	}
	client->owner = side;
	client->source = (struct loop_source){ .fd = fd, .events = EPOLLIN, .ready = client_ready };
	client->deadline_ns = vsock_now_ns() + VSOCK_TIMEOUT_NS;
	if (vsock_timer_at(side->vsock, client->deadline_ns) < 0 || loop_add(side->vsock->dev.loop, &client->source) < 0) {
		free(client);
		close(fd);
		return;
	}
	list_append(&side->clients, &client->link);
	side->client_count++;
}

static void listener_ready(struct loop_source *source, uint32_t events)
{
	struct vsock_unix *side = container_of(source, struct vsock_unix, listener);

	(void)events;
	while (side->client_count < CLIENTS_MAX) {
		const int fd = accept4(source->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			client_add(side, fd);
			continue;
		}
		if (errno == EINTR || errno == ECONNABORTED)
			continue;
		/* No descriptor or memory left: the program keeps waiting, and we do not ask in a circle. */
		if (errno != EAGAIN) {
			side->retry_ns = vsock_now_ns() + ACCEPT_RETRY_NS;
			vsock_timer_at(side->vsock, side->retry_ns);
		}
		break;
	}
	listener_update(side);
}

uint64_t vsock_unix_expire(struct virtio_vsock *vsock, uint64_t now_ns)
{
	struct vsock_unix *side = vsock->unix_side;
	uint64_t next = 0;

	if (!side)
		return 0;
	for (struct vsock_link *link = side->clients.next; link != &side->clients && !next;) {
		struct unix_client *client = container_of(link, struct unix_client, link);
		link = link->next;
		if (client->deadline_ns <= now_ns)
			close(client_release(client));
		else
			next = client->deadline_ns;
	}
	if (side->retry_ns && side->retry_ns <= now_ns)
		side->retry_ns = 0;
	listener_update(side);
	if (side->retry_ns && (!next || side->retry_ns < next))
		next = side->retry_ns;
	return next;
}

int vsock_unix_accept(struct virtio_vsock *vsock, uint32_t port, struct vsock_ends *ends)
{
	const struct vsock_unix *side = vsock->unix_side;

	if (!side)
		return -ECONNREFUSED;
	struct sockaddr_un address = side->address;
	const size_t length = strlen(address.sun_path);
	snprintf(address.sun_path + length, sizeof(address.sun_path) - length, "_%u", port);
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	/* A Unix socket connects at once or, when the program's queue is full, fails with EAGAIN: there is no connection in
	 * progress. */
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
		const int result = -errno;
		close(fd);
		return result;
	}
	ends->read_fd = ends->write_fd = fd;
	return 0;
}

int virtio_vsock_serve_unix(struct virtio_vsock *vsock, const char *path, struct error *err)
{
	struct vsock_unix *side = calloc(1, sizeof(*side));
	int result = -ENOMEM;

	if (!side)
		return error_set(err, result, "vsock %s: out of memory", path);
	side->vsock = vsock;
	side->listener = (struct loop_source){ .fd = -1, .events = EPOLLIN, .ready = listener_ready };
	side->address.sun_family = AF_UNIX;
	list_init(&side->clients);
	assert(!vsock->unix_side);
	if (path[0] == '\0' || strlen(path) + PORT_SUFFIX_BYTES >= sizeof(side->address.sun_path)) {
		free(side);
		return error_set(err, -ENAMETOOLONG, "vsock %s: the path of a Unix socket has 1 to %zu bytes; choose a shorter one",
				 path, sizeof(side->address.sun_path) - PORT_SUFFIX_BYTES - 1);
	}
	memcpy(side->address.sun_path, path, strlen(path));
	side->listener.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	/* The mode of the socket is that of the file to be: who may write it reaches into the guest. */
	if (side->listener.fd < 0 || fchmod(side->listener.fd, 0600) < 0 ||
	    bind(side->listener.fd, (const struct sockaddr *)&side->address, sizeof(side->address)) < 0) {
		result = -errno;
		if (side->listener.fd >= 0)
			close(side->listener.fd);
		free(side);
		return error_set(err, result, "vsock %s: %s%s", path, strerror(-result),
				 result == -EADDRINUSE ? "; remove it when no other trvmm uses it" : "");
	}
	vsock->unix_side = side; /* from here on the file is ours, and removed with the device */
	result = listen(side->listener.fd, LISTEN_BACKLOG) < 0 ? -errno : loop_add(vsock->dev.loop, &side->listener);
	if (result < 0) {
		vsock_unix_destroy(vsock);
		return error_set(err, result, "vsock %s: %s", path, strerror(-result));
	}
	return 0;
}

void vsock_unix_destroy(struct virtio_vsock *vsock)
{
	struct vsock_unix *side = vsock->unix_side;

	if (!side)
		return;
	for (struct vsock_link *link = side->clients.next; link != &side->clients;) {
		struct unix_client *client = container_of(link, struct unix_client, link);
		link = link->next;
		close(client_release(client));
	}
	loop_remove(vsock->dev.loop, &side->listener);
	close(side->listener.fd);
	unlink(side->address.sun_path);
	free(side);
	vsock->unix_side = NULL;
}
