/*
 * Clients of a named machine: connections, frames, answers; see remote.h.
 *
 * What a client costs is bounded: one frame, three descriptors and one command at a time, ROUNDS reads before others have their turn. When
 * there is no room for one more, the one that has been here longest without a command makes room.
 */
#include "vmm/remote_server.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/container.h"
#include "vmm/remote_server_internal.h"

#define ROUNDS 16
#define BODY_FIRST_BYTES 4096u
#define EXIT_TRVMM 125

static void close_fds(int *fds, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		close(fds[i]);
}

/* What of a frame has come is forgotten. */
static void client_next_frame(struct remote_client *client)
{
	close_fds(client->fds, client->fd_count);
	client->fd_count = 0;
	free(client->body);
	client->body = NULL;
	client->body_size = client->body_used = client->header_used = 0;
}

static void client_destroy(struct remote_client *client)
{
	struct remote_server *server = client->server;
	struct remote_client **link = &server->clients;
	while (*link != client)
		link = &(*link)->next;
	*link = client->next;
	server->client_count--;
	loop_remove(server->loop, &client->source);
	close(client->source.fd);
	session_destroy(client->session);
	client_next_frame(client);
	free(client);
}

/* ---- answers ----------------------------------------------------------------------------------------------------------------- */

/* Returns false when the client does not take it: then there is no use in keeping it. */
static bool answer(struct remote_client *client, enum remote_type type, const void *body, size_t length, const char *text)
{
	size_t text_length = strlen(text);
	if (text_length > REMOTE_ANSWER_MAX - length)
		text_length = REMOTE_ANSWER_MAX - length;
	struct remote_header header = { le32_make(REMOTE_MAGIC), le32_make(REMOTE_VERSION), le32_make(type),
					le32_make((uint32_t)(length + text_length)) };
	struct iovec iov[3] = { { &header, sizeof(header) },
				{ (void *)(uintptr_t)body, length },
				{ (void *)(uintptr_t)text, text_length } };
	const struct msghdr message = { .msg_iov = iov, .msg_iovlen = 3 };
	return sendmsg(client->source.fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL) ==
	       (ssize_t)(sizeof(header) + length + text_length);
}

static void refuse(struct remote_client *client, const char *why)
{
	(void)answer(client, REMOTE_REFUSED, NULL, 0, why);
	client_destroy(client);
}

static void answer_ended(struct remote_client *client, int exit_code, const char *text)
{
	const struct remote_ended ended = { le32_make((uint32_t)exit_code) };
	(void)answer(client, REMOTE_ENDED, &ended, sizeof(ended), text);
	client_destroy(client);
}

static void on_session_ended(void *data, const struct session_result *result)
{
	const struct session_result copy = *result; /* it goes with the session */
	answer_ended(data, copy.exit_code, copy.err.text);
}

/* ---- requests ---------------------------------------------------------------------------------------------------------------- */

/* Each returns false when it has destroyed the client. */

static bool serve_exec(struct remote_client *client)
{
	struct error err = { "" };
	if (client->has_run) {
		refuse(client, "one connection runs one command");
		return false;
	}
	client->has_run = true;
	const int result = remote_exec_start(client, on_session_ended, &err);
	if (result == -EINVAL)
		refuse(client, err.text);
	else if (result < 0)
		answer_ended(client, EXIT_TRVMM, err.text);
	return result == 0;
}

static bool get_signal(const struct remote_client *client, int *number)
{
	struct remote_signal body;
	if (client->body_used != sizeof(body))
		return false;
	memcpy(&body, client->body, sizeof(body));
	const uint32_t value = le32_get(body.signal);
	*number = (int)value;
	return value >= 1 && value <= 64;
}

static bool serve_signal(struct remote_client *client)
{
	int number;
	if (!get_signal(client, &number)) {
		refuse(client, "malformed SIGNAL");
		return false;
	}
	if (client->session)
		session_signal(client->session, number);
	return true;
}

static bool serve_window(struct remote_client *client)
{
	struct remote_window body;
	if (client->body_used != sizeof(body)) {
		refuse(client, "malformed WINDOW");
		return false;
	}
	memcpy(&body, client->body, sizeof(body));
	if (client->session)
		session_resize(client->session, le16_get(body.rows), le16_get(body.columns));
	return true;
}

static bool serve_kill(struct remote_client *client)
{
	const struct remote_server_config *config = &client->server->config;
	int number;
	if (!get_signal(client, &number)) {
		refuse(client, "malformed KILL");
		return false;
	}
	/* First the answer: there may be no time for it afterwards. */
	const bool taken = answer(client, REMOTE_DONE, NULL, 0, "");
	config->kill(config->data, number);
	if (!taken)
		client_destroy(client);
	return taken;
}

static bool serve_stats(struct remote_client *client)
{
	const struct remote_server *server = client->server;
	struct remote_figures figures = { 0 };
	uint64_t sessions = 0;
	server->config.figures(server->config.data, &figures);
	for (const struct remote_client *other = server->clients; other; other = other->next)
		sessions += other->session != NULL;
	figures.sessions = le64_make(sessions);
	const bool taken = answer(client, REMOTE_FIGURES, &figures, sizeof(figures), "");
	if (!taken)
		client_destroy(client);
	return taken;
}

static bool serve_frame(struct remote_client *client)
{
	struct remote_header header;
	memcpy(&header, client->header, sizeof(header));
	switch (le32_get(header.type)) {
	case REMOTE_EXEC:
		return serve_exec(client);
	case REMOTE_SIGNAL:
		return serve_signal(client);
	case REMOTE_WINDOW:
		return serve_window(client);
	case REMOTE_KILL:
		return serve_kill(client);
	case REMOTE_STATS:
		return serve_stats(client);
	default:
		refuse(client, "unknown request");
		return false;
	}
}

/* ---- frames ------------------------------------------------------------------------------------------------------------------ */

/* Why a header is not acceptable; NULL: it is. */
static const char *check_header(const struct remote_client *client, uint32_t *length)
{
	struct remote_header header;
	memcpy(&header, client->header, sizeof(header));
	*length = le32_get(header.length);
	if (le32_get(header.magic) != REMOTE_MAGIC)
		return "this is not the protocol of trvmm";
	if (le32_get(header.version) != REMOTE_VERSION)
		return "the machine was started by another version of trvmm; use that one";
	if (*length > (le32_get(header.type) == REMOTE_EXEC ? REMOTE_BODY_MAX : BODY_FIRST_BYTES))
		return "the request is too long";
	return NULL;
}

/* Where the next bytes go, and how many may come. NULL and 0 bytes: no memory. */
static uint8_t *room(struct remote_client *client, uint32_t length, size_t *bytes)
{
	if (client->header_used < sizeof(client->header)) {
		*bytes = sizeof(client->header) - client->header_used;
		return client->header + client->header_used;
	}
	if (client->body_used == client->body_size) {
		assert(length > client->body_used);
		/* Memory is for bytes that came, not for those that were announced. */
		size_t size = client->body_size ? 2 * client->body_size : BODY_FIRST_BYTES;
		uint8_t *grown = realloc(client->body, size < length ? size : length);
		*bytes = 0;
		if (!grown)
			return NULL;
		client->body = grown;
		client->body_size = size < length ? size : length;
	}
	*bytes = client->body_size - client->body_used;
	return client->body + client->body_used;
}

/* Takes over the descriptors of a message. Returns false when there are too many. */
static bool take_descriptors(struct remote_client *client, struct msghdr *message)
{
	bool good = !(message->msg_flags & MSG_CTRUNC);
	for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c; c = CMSG_NXTHDR(message, c)) {
		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
			continue;
		const size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < count; i++) {
			int fd;
			memcpy(&fd, CMSG_DATA(c) + i * sizeof(fd), sizeof(fd));
			if (client->fd_count < REMOTE_DESCRIPTORS_MAX) {
				client->fds[client->fd_count++] = fd;
			} else {
				close(fd);
				good = false;
			}
		}
	}
	return good;
}

static ssize_t receive(struct remote_client *client, uint8_t *to, size_t bytes, bool *good)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(REMOTE_DESCRIPTORS_MAX * sizeof(int))];
	} ancillary;
	struct iovec iov = { to, bytes };
	struct msghdr message = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = ancillary.bytes, .msg_controllen = sizeof(ancillary.bytes)
	};
	const ssize_t n = recvmsg(client->source.fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n >= 0)
		*good = take_descriptors(client, &message);
	return n;
}

/* One read. Returns false when there is no more to read now, or the client is gone. */
static bool client_read(struct remote_client *client)
{
	uint32_t length = 0;
	size_t bytes;
	bool good = true;
	if (client->header_used == sizeof(client->header))
		(void)check_header(client, &length);
	uint8_t *to = room(client, length, &bytes);
	const ssize_t n = to ? receive(client, to, bytes, &good) : 0;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0) {
		client_destroy(client);
		return false;
	}
	if (!good) {
		refuse(client, "too many descriptors");
		return false;
	}
	if (client->header_used < sizeof(client->header)) {
		client->header_used += (size_t)n;
		if (client->header_used < sizeof(client->header))
			return true;
		const char *why = check_header(client, &length);
		if (why) {
			refuse(client, why);
			return false;
		}
	} else {
		client->body_used += (size_t)n;
	}
	if (client->body_used < length)
		return true;
	if (!serve_frame(client))
		return false;
	client_next_frame(client);
	return true;
}

static void client_ready(struct loop_source *source, uint32_t events)
{
	struct remote_client *client = container_of(source, struct remote_client, source);
	(void)events;
	for (unsigned i = 0; i < ROUNDS; i++)
		if (!client_read(client))
			return;
}

/* ---- clients ----------------------------------------------------------------------------------------------------------------- */

static bool is_welcome(int fd)
{
	struct ucred peer;
	socklen_t length = sizeof(peer);
	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && (peer.uid == geteuid() || peer.uid == 0);
}

static void make_room(struct remote_server *server)
{
	struct remote_client *oldest = NULL;
	for (struct remote_client *client = server->clients; client; client = client->next)
		if (!client->session)
			oldest = client;
	if (oldest)
		refuse(oldest, "the machine has too many clients");
}

static void client_create(struct remote_server *server, int fd)
{
	struct remote_client *client = calloc(1, sizeof(*client));
	if (!client) {
		close(fd);
		return;
	}
	*client = (struct remote_client){ .server = server,
					  .next = server->clients,
					  .source = { .fd = fd, .events = EPOLLIN, .ready = client_ready } };
	server->clients = client;
	server->client_count++;
	if (loop_add(server->loop, &client->source) < 0)
		client_destroy(client);
	else if (server->client_count > REMOTE_CLIENTS_MAX)
		refuse(client, "the machine has too many clients");
}

static void listener_ready(struct loop_source *source, uint32_t events)
{
	struct remote_server *server = container_of(source, struct remote_server, listener);
	(void)events;
	int fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0 && (errno == EMFILE || errno == ENFILE) && server->spare_fd >= 0) {
		/* One that is not accepted would wake us for ever. */
		close(server->spare_fd);
		fd = accept4(source->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd >= 0)
			close(fd);
		server->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
		return;
	}
	if (fd < 0)
		return;
	if (!is_welcome(fd)) {
		close(fd);
		return;
	}
	if (server->client_count >= REMOTE_CLIENTS_MAX)
		make_room(server);
	client_create(server, fd);
}

int remote_server_create(struct loop *loop, const struct remote_server_config *config, struct remote_server **made)
{
	struct remote_server *server = calloc(1, sizeof(*server));
	if (!server)
		return -ENOMEM;
	server->loop = loop;
	server->config = *config;
	server->listener = (struct loop_source){ .fd = config->listen_fd, .events = EPOLLIN, .ready = listener_ready };
	server->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	const int result = server->spare_fd < 0 ? -errno : loop_add(loop, &server->listener);
	if (result < 0) {
		if (server->spare_fd >= 0)
			close(server->spare_fd);
		free(server);
		return result;
	}
	*made = server;
	return 0;
}

void remote_server_destroy(struct remote_server *server)
{
	if (!server)
		return;
	for (struct remote_client *client = server->clients, *next; client; client = next) {
		next = client->next;
		client_destroy(client);
	}
	loop_remove(server->loop, &server->listener);
	close(server->spare_fd);
	free(server);
}
