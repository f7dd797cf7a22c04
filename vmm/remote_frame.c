/*
 * Frames of a client (remote.h): header, body, descriptors, as they come in pieces. All of it is hostile input: memory is taken for bytes
 * that came, not for those that were announced, and no descriptor is left open that nobody takes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vmm/remote_server_internal.h"

#define BODY_FIRST_BYTES 4096u

void remote_client_next_frame(struct remote_client *client)
{
	while (client->fd_count)
		close(client->fds[--client->fd_count]);
	free(client->body);
	client->body = NULL;
	client->body_size = client->body_used = client->header_used = 0;
}

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

bool remote_client_read(struct remote_client *client)
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
		remote_client_destroy(client);
		return false;
	}
	if (!good) {
		remote_client_refuse(client, "too many descriptors");
		return false;
	}
	if (client->header_used < sizeof(client->header)) {
		client->header_used += (size_t)n;
		if (client->header_used < sizeof(client->header))
			return true;
		const char *why = check_header(client, &length);
		if (why) {
			remote_client_refuse(client, why);
			return false;
		}
	} else {
		client->body_used += (size_t)n;
	}
	if (client->body_used < length)
		return true;
	if (!remote_client_serve(client))
		return false;
	remote_client_next_frame(client);
	return true;
}
