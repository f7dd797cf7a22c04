/*
 * Host programs and their Unix sockets, in Firecracker's convention (its docs/vsock.md).
 *
 *   host to guest   a program connects to PATH, writes "CONNECT PORT\n" and reads "OK HOSTPORT\n" when the guest has accepted;
 *                   from then on the socket is the connection. What it writes behind the newline before that is not lost.
 *                   A refusal is a closed socket.
 *   guest to host   a connection to host port P goes to the program that listens on PATH_P
 *
 * Firecracker has no seqpacket sockets. Here they are the same with SOCK_SEQPACKET on the host, and with a second socket for programs that
 * connect, PATH.seqpacket, since a Unix socket listens for one type only. The line and its answer are a message each.
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

#define SEQPACKET_SUFFIX ".seqpacket"
#define LINE_MAX_BYTES 32u /* "CONNECT 4294967295\n" has 19 */
#define CLIENTS_MAX 64u /* that have not finished their line */
#define SUFFIX_BYTES 11u /* "_4294967295", which is longer than the other */
#define ACCEPT_RETRY_NS 500000000ull
/* connect(2) of a program that does not wait fails when this is full. */
#define LISTEN_BACKLOG 1024

struct unix_client {
	struct vsock_unix *owner;
	uint16_t type; /* VSOCK_TYPE_* */
	struct loop_source source; /* source.fd is owned */
	uint64_t deadline_ns;
	unsigned length;
	char line[LINE_MAX_BYTES + 1];
	struct vsock_link link;
};

struct unix_listener {
	struct vsock_unix *owner;
	uint16_t type; /* VSOCK_TYPE_* */
	struct loop_source source; /* source.fd is owned; -1: none */
	struct sockaddr_un address;
};

struct vsock_unix {
	struct virtio_vsock *vsock;
	struct unix_listener listeners[2];
	char path[sizeof(((struct sockaddr_un *)NULL)->sun_path) - SUFFIX_BYTES];
	vsock_connector connector; /* NULL: the device connects itself */
	void *connector_data;
	struct vsock_link clients; /* oldest first */
	unsigned client_count;
	uint64_t retry_ns; /* accepting failed for want of resources; 0: it did not */
};

/* Programs are accepted while there is room for their lines, and files for their sockets. */
static void listener_update(struct vsock_unix *side)
{
	const bool wanted = side->client_count < CLIENTS_MAX && !side->retry_ns;

	for (unsigned i = 0; i < 2; i++)
		loop_modify(side->vsock->dev.loop, &side->listeners[i].source, wanted ? EPOLLIN : 0);
}

static int socket_type(uint16_t type)
{
	return (type == VSOCK_TYPE_SEQPACKET ? SOCK_SEQPACKET : SOCK_STREAM) | SOCK_NONBLOCK | SOCK_CLOEXEC;
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

/* The first message, with or without a newline. Returns as client_read_line(). */
static int client_read_message(struct unix_client *client)
{
	const ssize_t n = recv(client->source.fd, client->line, LINE_MAX_BYTES, MSG_TRUNC | MSG_DONTWAIT);

	if (n < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (n == 0 || n > LINE_MAX_BYTES)
		return -EMSGSIZE;
	client->line[n] = '\0';
	return 1;
}

/* Reads up to the newline and not a byte further. Returns 1: the line is complete; 0: not yet; -errno: it never will be. */
static int client_read_line(struct unix_client *client)
{
	if (client->type == VSOCK_TYPE_SEQPACKET)
		return client_read_message(client);

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
	const uint16_t type = client->type;
	const int fd = client_release(client);
	if (valid)
		vsock_connect_client(vsock, type, port, fd);
	else
		close(fd);
}

static void client_add(struct vsock_unix *side, uint16_t type, int fd)
{
	struct unix_client *client = calloc(1, sizeof(*client));

	if (!client) {
		close(fd);
		return;
	}
	client->owner = side;
	client->type = type;
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
	const struct unix_listener *listener = container_of(source, struct unix_listener, source);
	struct vsock_unix *side = listener->owner;

	(void)events;
	while (side->client_count < CLIENTS_MAX) {
		const int fd = accept4(source->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			client_add(side, listener->type, fd);
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

void virtio_vsock_set_connector(struct virtio_vsock *vsock, vsock_connector connector, void *data)
{
	if (!vsock->unix_side)
		return;
	vsock->unix_side->connector = connector;
	vsock->unix_side->connector_data = data;
}

int virtio_vsock_connect_unix(const char *path, bool seqpacket, uint32_t port)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	if (snprintf(address.sun_path, sizeof(address.sun_path), "%s_%u", path, port) >= (int)sizeof(address.sun_path))
		return -ENAMETOOLONG;
	const int fd = socket(AF_UNIX, socket_type(seqpacket ? VSOCK_TYPE_SEQPACKET : VSOCK_TYPE_STREAM), 0);
	if (fd < 0)
		return -errno;
	/* A Unix socket connects at once or, when the program's queue is full, fails with EAGAIN: there is no connection in
	 * progress. */
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
		const int result = -errno;
		close(fd);
		return result;
	}
	return fd;
}

int vsock_unix_accept(struct virtio_vsock *vsock, uint16_t type, uint32_t port, struct vsock_ends *ends)
{
	const struct vsock_unix *side = vsock->unix_side;
	const bool seqpacket = type == VSOCK_TYPE_SEQPACKET;

	if (!side)
		return -ECONNREFUSED;
	const int fd = side->connector ? side->connector(side->connector_data, seqpacket, port)
				       : virtio_vsock_connect_unix(side->path, seqpacket, port);
	if (fd < 0)
		return fd;
	ends->read_fd = ends->write_fd = fd;
	return 0;
}

/* Returns 0 or -errno; the listener's address tells which file it was about. */
static int listener_open(struct vsock_unix *side, struct unix_listener *listener, uint16_t type)
{
	struct sockaddr_un *address = &listener->address;
	const int fd = socket(AF_UNIX, socket_type(type), 0);

	listener->owner = side;
	listener->type = type;
	address->sun_family = AF_UNIX;
	snprintf(address->sun_path, sizeof(address->sun_path), "%s%s", side->path,
		 type == VSOCK_TYPE_SEQPACKET ? SEQPACKET_SUFFIX : "");
	/* The mode of the socket is that of the file to be: who may write it reaches into the guest. */
	if (fd < 0 || fchmod(fd, 0600) < 0 || bind(fd, (const struct sockaddr *)address, sizeof(*address)) < 0) {
		const int result = -errno;
		if (fd >= 0)
			close(fd);
		return result;
	}
	/* From here on the file is ours, and removed with the device. */
	listener->source = (struct loop_source){ .fd = fd, .events = EPOLLIN, .ready = listener_ready };
	return listen(fd, LISTEN_BACKLOG) < 0 ? -errno : loop_add(side->vsock->dev.loop, &listener->source);
}

int virtio_vsock_serve_unix(struct virtio_vsock *vsock, const char *path, struct error *err)
{
	static const uint16_t types[] = { VSOCK_TYPE_STREAM, VSOCK_TYPE_SEQPACKET };
	struct vsock_unix *side = calloc(1, sizeof(*side));

	if (!side)
		return error_set(err, -ENOMEM, "vsock %s: out of memory", path);
	assert(!vsock->unix_side);
	if (path[0] == '\0' || strlen(path) >= sizeof(side->path)) {
		free(side);
		return error_set(err, -ENAMETOOLONG,
				 "vsock %s: the path of a Unix socket has 1 to %zu bytes here; choose a shorter one", path,
				 sizeof(side->path) - 1);
	}
	side->vsock = vsock;
	snprintf(side->path, sizeof(side->path), "%s", path);
	list_init(&side->clients);
	side->listeners[0].source.fd = side->listeners[1].source.fd = -1;
	vsock->unix_side = side;
	for (unsigned i = 0; i < 2; i++) {
		struct unix_listener *listener = &side->listeners[i];
		int result = listener_open(side, listener, types[i]);
		if (result == 0)
			result = vsock_timer_create(vsock);
		if (result == 0)
			continue;
		result = error_set(err, result, "vsock %s: %s%s", listener->address.sun_path, strerror(-result),
				   result == -EADDRINUSE ? "; remove it when no other trvmm uses it" : "");
		vsock_unix_destroy(vsock);
		return result;
	}
	vsock->dev.device_features |= VSOCK_FEATURE_SEQPACKET;
	return 0;
}

void virtio_vsock_unlink_unix(const char *path)
{
	char name[sizeof(((struct sockaddr_un *)NULL)->sun_path)];

	unlink(path);
	if (snprintf(name, sizeof(name), "%s%s", path, SEQPACKET_SUFFIX) < (int)sizeof(name))
		unlink(name);
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
	for (unsigned i = 0; i < 2; i++) {
		struct loop_source *source = &side->listeners[i].source;
		if (source->fd < 0)
			continue;
		unlink(side->listeners[i].address.sun_path);
		loop_remove(vsock->dev.loop, source);
		close(source->fd);
	}
	free(side);
	vsock->unix_side = NULL;
}
