/* Asking a named machine; see remote_client.h. What it answers is checked: it may have been started by another version. */
#include "vmm/remote_client.h"

#include <ctype.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/packet.h"

int remote_open(const char *name, struct registry_entry *entry, struct error *err)
{
	int result = registry_find(name, entry, err);
	if (result < 0)
		return result;
	result = registry_connect(entry, err);
	if (result < 0)
		registry_entry_close(entry);
	return result;
}

static int send_all(int fd, struct msghdr *message, const uint8_t *rest, size_t length)
{
	ssize_t n;
	do
		n = sendmsg(fd, message, MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	/* The header went whole or in part; the rest needs no descriptors. */
	const size_t header = message->msg_iov[0].iov_len;
	if (n < (ssize_t)header)
		return n < 0 ? -errno : -EPIPE;
	for (size_t sent = (size_t)n - header; sent < length;) {
		n = send(fd, rest + sent, length - sent, MSG_NOSIGNAL);
		if (n < 0 && errno != EINTR)
			return -errno;
		sent += n > 0 ? (size_t)n : 0;
	}
	return 0;
}

int remote_send(int fd, enum remote_type type, const void *body, size_t length, const int *fds, unsigned fd_count)
{
	union packet_ancillary ancillary;
	struct remote_header header = { le32_make(REMOTE_MAGIC), le32_make(REMOTE_VERSION), le32_make(type),
					le32_make((uint32_t)length) };
	struct iovec iov[2] = { { &header, sizeof(header) }, { (void *)(uintptr_t)body, length } };
	struct msghdr message = { .msg_iov = iov, .msg_iovlen = length ? 2 : 1 };
	packet_attach(&message, &ancillary, fds, fd_count);
	return send_all(fd, &message, body, length);
}

/* Reads all of `length` bytes. */
static int receive_all(int fd, void *to, size_t length, struct error *err)
{
	for (size_t got = 0; got < length;) {
		const ssize_t n = recv(fd, (char *)to + got, length - got, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return error_set(err, -ETIMEDOUT, "the machine does not answer");
		if (n <= 0)
			return error_set(err, -ECONNRESET, "the machine has ended");
		got += (size_t)n;
	}
	return 0;
}

int remote_receive(int fd, struct remote_answer *answer, struct error *err)
{
	struct remote_header header;
	int result = receive_all(fd, &header, sizeof(header), err);
	if (result < 0)
		return result;
	if (le32_get(header.magic) != REMOTE_MAGIC || le32_get(header.length) > REMOTE_ANSWER_MAX)
		return error_set(err, -EPROTO, "the machine answers nonsense");
	answer->type = (enum remote_type)le32_get(header.type);
	answer->length = le32_get(header.length);
	result = receive_all(fd, answer->body, answer->length, err);
	if (result < 0)
		return result;
	answer->body[answer->length] = '\0';
	if (answer->type == REMOTE_REFUSED)
		return error_set(err, -ECONNREFUSED, "%s", (const char *)answer->body);
	if (le32_get(header.version) != REMOTE_VERSION)
		return error_set(err, -EPROTO, "the machine was started by another version of trvmm; use that one");
	return 0;
}

void remote_set_timeout(int fd, unsigned timeout_s)
{
	const struct timeval timeout = { .tv_sec = timeout_s };
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
}

int remote_ask(int fd, enum remote_type type, const void *body, size_t length, enum remote_type wanted, unsigned timeout_s,
	       struct remote_answer *answer, struct error *err)
{
	remote_set_timeout(fd, timeout_s);
	int result = remote_send(fd, type, body, length, NULL, 0);
	if (result < 0 && result != -EPIPE)
		return error_set(err, result, "asking the machine: %s", strerror(-result));
	/* Who hung up may have said why. */
	result = remote_receive(fd, answer, err);
	if (result == 0 && answer->type != wanted)
		result = error_set(err, -EPROTO, "the machine answers something else");
	return result;
}

int remote_parse_signal(const char *text, struct error *err)
{
	if (isdigit((unsigned char)*text)) {
		char *end;
		const unsigned long value = strtoul(text, &end, 10);
		if (!*end && value >= 1 && value <= 64)
			return (int)value;
	}
	const char *name = strncasecmp(text, "SIG", 3) ? text : text + 3;
	for (int i = 1; i < 32; i++)
		if (sigabbrev_np(i) && !strcasecmp(name, sigabbrev_np(i)))
			return i;
	char quoted[64];
	return error_set(err, -EINVAL, "'%s' is no signal; give a name such as TERM, or a number from 1 to 64",
			 error_quote(quoted, sizeof(quoted), text, strlen(text)));
}
