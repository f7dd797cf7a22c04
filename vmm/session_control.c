/*
 * The control connection on the host's side: a socket pair, of which the vsock device has the other end, and the frames on it.
 *
 * A frame is at most AGENT_BODY_MAX long, of which CONTROL_BODY_BYTES are kept: nothing that an agent may say needs more. What is
 * to be sent waits in one buffer that grows to a bound, so an agent that does not read costs no more than that.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/container.h"
#include "vmm/session_internal.h"

#define OUT_MAX (4 * (size_t)AGENT_BODY_MAX)

/* How many reads before the loop's other sources have their turn. */
#define ROUNDS 16

static void control_ready(struct loop_source *source, uint32_t events);

void control_init(struct control *control, struct loop *loop)
{
	memset(control, 0, sizeof(*control));
	control->loop = loop;
	control->source = (struct loop_source){ .fd = -1, .events = EPOLLIN, .ready = control_ready };
}

static void control_disconnect(struct control *control)
{
	if (control->source.fd < 0)
		return;
	loop_remove(control->loop, &control->source);
	close(control->source.fd);
	control->source.fd = -1;
}

void control_destroy(struct control *control)
{
	control_disconnect(control);
	free(control->out);
	control->out = NULL;
}

static void control_end(struct control *control, const char *why)
{
	control_disconnect(control);
	control->closed(control, why);
}

int control_accept(struct control *control, struct vsock_ends *ends)
{
	int pair[2];
	if (control->accepted)
		return -ECONNREFUSED;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	control->source.fd = pair[0];
	control->source.events = EPOLLIN | (control->out_start != control->out_stop ? EPOLLOUT : 0u);
	const int result = loop_add(control->loop, &control->source);
	if (result < 0) {
		control->source.fd = -1;
		close(pair[0]);
		close(pair[1]);
		return result;
	}
	control->accepted = true;
	ends->read_fd = ends->write_fd = pair[1];
	return 0;
}

/* ---- out --------------------------------------------------------------------------------------------------------------------- */

static void control_flush(struct control *control)
{
	while (control->out_start != control->out_stop) {
		const ssize_t n = send(control->source.fd, control->out + control->out_start,
				       control->out_stop - control->out_start, MSG_NOSIGNAL);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			break; /* EAGAIN; what else may be is seen when reading */
		control->out_start += (size_t)n;
	}
	if (control->out_start == control->out_stop)
		control->out_start = control->out_stop = 0;
	loop_modify(control->loop, &control->source, EPOLLIN | (control->out_stop ? EPOLLOUT : 0u));
}

static int out_reserve(struct control *control, size_t more)
{
	const size_t used = control->out_stop - control->out_start;
	if (used + more > OUT_MAX)
		return -ENOBUFS;
	/* What waits is moved only when its bytes have all been asked for once: an agent that reads little does not make us move much. */
	if (control->out_size - control->out_stop >= more)
		return 0;
	if (control->out_start)
		memmove(control->out, control->out + control->out_start, used);
	control->out_start = 0;
	control->out_stop = used;
	if (used + more <= control->out_size)
		return 0;
	size_t size = control->out_size ? control->out_size * 2 : 4096;
	if (size < used + more)
		size = used + more;
	uint8_t *grown = realloc(control->out, size);
	if (!grown)
		return -ENOMEM;
	control->out = grown;
	control->out_size = size;
	return 0;
}

int control_send(struct control *control, enum agent_type type, const void *body, size_t length)
{
	const struct agent_header header = { le32_make(type), le32_make((uint32_t)length) };
	const int result = out_reserve(control, sizeof(header) + length);
	if (result < 0)
		return result;
	memcpy(control->out + control->out_stop, &header, sizeof(header));
	memcpy(control->out + control->out_stop + sizeof(header), body, length);
	control->out_stop += sizeof(header) + length;
	if (control->source.fd >= 0)
		control_flush(control);
	return 0;
}

/* ---- in ---------------------------------------------------------------------------------------------------------------------- */

/* Takes what belongs to the current frame off `bytes`. Returns how much, or -EPROTO. */
static ssize_t control_take(struct control *control, const uint8_t *bytes, size_t length)
{
	if (control->header_used < sizeof(control->header)) {
		const size_t missing = sizeof(control->header) - control->header_used;
		const size_t n = length < missing ? length : missing;
		memcpy(control->header + control->header_used, bytes, n);
		control->header_used += n;
		if (n < missing)
			return (ssize_t)n;
		struct agent_header header;
		memcpy(&header, control->header, sizeof(header));
		control->body_length = le32_get(header.length);
		control->body_used = 0;
		if (control->body_length > AGENT_BODY_MAX)
			return -EPROTO;
		return (ssize_t)n;
	}
	const size_t missing = control->body_length - control->body_used;
	const size_t n = length < missing ? length : missing;
	if (control->body_used < CONTROL_BODY_BYTES) {
		const size_t room = CONTROL_BODY_BYTES - control->body_used;
		memcpy(control->body + control->body_used, bytes, n < room ? n : room);
	}
	control->body_used += (uint32_t)n;
	return (ssize_t)n;
}

static bool frame_is_complete(const struct control *control)
{
	return control->header_used == sizeof(control->header) && control->body_used == control->body_length;
}

static int control_parse(struct control *control, const uint8_t *bytes, size_t length)
{
	size_t at = 0;
	while (at < length) {
		const ssize_t n = control_take(control, bytes + at, length - at);
		if (n < 0)
			return (int)n;
		at += (size_t)n;
		if (!frame_is_complete(control))
			continue;
		struct agent_header header;
		memcpy(&header, control->header, sizeof(header));
		control->header_used = 0;
		control->message(control, le32_get(header.type), control->body,
				 control->body_length < CONTROL_BODY_BYTES ? control->body_length : CONTROL_BODY_BYTES);
	}
	return 0;
}

static void control_ready(struct loop_source *source, uint32_t events)
{
	struct control *control = container_of(source, struct control, source);
	uint8_t bytes[4096];

	if (events & EPOLLOUT)
		control_flush(control);
	if (!(events & (EPOLLIN | EPOLLHUP | EPOLLERR)))
		return;
	for (int round = 0; round < ROUNDS; round++) {
		const ssize_t n = recv(source->fd, bytes, sizeof(bytes), 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return;
		if (n <= 0) {
			control_end(control, "the guest's agent went away before the command ended (did the guest reboot?)");
			return;
		}
		if (control_parse(control, bytes, (size_t)n) < 0) {
			control_end(control, "the guest's agent broke its protocol");
			return;
		}
	}
}
