/*
 * The control connection: frames in, frames out (protocol.h). A frame is handled when all of it is here. Answers are collected and
 * leave together at the end of a turn of the event loop. While the host does not fetch its answers, no more of its requests are
 * read, so the queue of answers is bounded.
 */
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "guest/agent/agent.h"

/* Room for the EXITED of every session is never given to answers. */
#define OUT_BYTES 65536u
#define OUT_RESERVE (AGENT_SESSIONS_MAX * (sizeof(struct agent_header) + sizeof(struct agent_exited)) + 2048u)

static struct {
	int fd;
	uint32_t watched;
	bool connecting;
	bool held; /* requests may wait in `in` that had no room for their answers */
	size_t in_used;
	size_t out_start, out_stop;
	uint8_t in[sizeof(struct agent_header) + AGENT_BODY_MAX];
	uint8_t out[OUT_BYTES];
} wire;

void wire_connect(void)
{
	wire.watched = WATCHED_NOT;
	wire.connecting = true;
	wire.fd = platform_connect(AGENT_PORT_CONTROL);
	if (wire.fd < 0)
		die("vsock connection to trvmm", -wire.fd);
	const struct agent_hello hello = { .version = le32_make(AGENT_PROTOCOL_VERSION) };
	wire_send(AGENT_HELLO, &hello, sizeof(hello), NULL, 0);
}

void wire_watch(void)
{
	wire.watched = WATCHED_NOT;
	wire_flush();
}

static bool wire_has_room(void)
{
	return OUT_BYTES - (wire.out_stop - wire.out_start) >= OUT_RESERVE + 1024;
}

void wire_send(enum agent_type type, const void *body, uint32_t length, const void *more, uint32_t more_length)
{
	const struct agent_header header = { le32_make(type), le32_make(length + more_length) };
	if (wire.out_stop + sizeof(header) + length + more_length > OUT_BYTES) {
		memmove(wire.out, wire.out + wire.out_start, wire.out_stop - wire.out_start);
		wire.out_stop -= wire.out_start;
		wire.out_start = 0;
		if (wire.out_stop + sizeof(header) + length + more_length > OUT_BYTES)
			die("control connection: too many answers wait", 0);
	}
	uint8_t *to = wire.out + wire.out_stop;
	memcpy(to, &header, sizeof(header));
	memcpy(to + sizeof(header), body, length);
	if (more_length)
		memcpy(to + sizeof(header) + length, more, more_length);
	wire.out_stop += sizeof(header) + length + more_length;
}

void wire_flush(void)
{
	while (!wire.connecting && wire.out_start != wire.out_stop) {
		const ssize_t n = write(wire.fd, wire.out + wire.out_start, wire.out_stop - wire.out_start);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0)
			die("control connection", errno);
		wire.out_start += (size_t)n;
	}
	if (wire.out_start == wire.out_stop)
		wire.out_start = wire.out_stop = 0;
	/* Held requests are none of the socket's input any more: that the socket takes answers again is what lets them go on. */
	const uint32_t out = wire.connecting || wire.held || wire.out_start != wire.out_stop ? EPOLLOUT : 0;
	const uint32_t in = !wire.connecting && wire_has_room() ? EPOLLIN : 0;
	watch(wire.fd, &wire.watched, in | out, TAG_CONTROL);
}

static void wire_handle(uint32_t type, const uint8_t *body, uint32_t length)
{
	if (type == AGENT_RUN) {
		command_run(body, length);
	} else if (type == AGENT_SIGNAL && length == sizeof(struct agent_signal)) {
		struct agent_signal m;
		memcpy(&m, body, sizeof(m));
		command_signal(le32_get(m.session), le32_get(m.signal));
	} else if (type == AGENT_WINDOW && length == sizeof(struct agent_window)) {
		struct agent_window m;
		memcpy(&m, body, sizeof(m));
		command_window(le32_get(m.session), le16_get(m.rows), le16_get(m.columns));
	}
}

/* Handles all frames that are complete; what is left moves to the front. */
static void wire_take_frames(void)
{
	size_t at = 0;
	while (wire_has_room() && wire.in_used - at >= sizeof(struct agent_header)) {
		struct agent_header header;
		memcpy(&header, wire.in + at, sizeof(header));
		const uint32_t length = le32_get(header.length);
		if (length > AGENT_BODY_MAX)
			die("control connection: a message is too long", 0);
		if (wire.in_used - at - sizeof(header) < length)
			break;
		wire_handle(le32_get(header.type), wire.in + at + sizeof(header), length);
		at += sizeof(header) + length;
	}
	wire.held = !wire_has_room();
	if (at) {
		wire.in_used -= at;
		memmove(wire.in, wire.in + at, wire.in_used);
	}
}

void wire_event(uint32_t events)
{
	if (events & (EPOLLERR | EPOLLHUP) && wire.connecting)
		die("trvmm refused the control connection (vsock port 1024)", 0);
	if (events)
		wire.connecting = false;
	wire_flush();
	if (wire.connecting)
		return;
	/* Frames that had to wait for room come first. */
	wire_take_frames();
	while (wire_has_room()) {
		const ssize_t n = read(wire.fd, wire.in + wire.in_used, sizeof(wire.in) - wire.in_used);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n <= 0)
			die("trvmm closed the control connection", n ? errno : 0);
		wire.in_used += (size_t)n;
		wire_take_frames();
	}
	wire_flush();
}
