/*
 * TCP connections to 127.0.0.1 for the host's clients: what `trvmm -p` needs in the guest (protocol.h). Only when asked for is anything
 * here done. Connections beyond AGENT_PROXIED_MAX wait in the kernel's queue; memory is taken only for bytes that wait (base/relay.h).
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/relay.h"
#include "guest/agent/agent.h"

enum { END_VSOCK = 0, END_TCP = 1 };

#define LINE_BYTES 24 /* more than "CONNECT 65535\n" */

struct proxied {
	enum { UNUSED, READING_LINE, CONNECTING, OPEN } state;
	uint32_t generation; /* tells late events of an earlier connection in this place from ours */
	uint32_t watched[2];
	struct relay relay;
	uint8_t line_length;
	char line[LINE_BYTES];
};

static struct proxied table[AGENT_PROXIED_MAX];
static unsigned used_count;
static int listener = -1;
static uint32_t listener_watched = WATCHED_NOT;
static uint8_t scratch[RELAY_BYTES];

static void proxied_watch(struct proxied *p, unsigned end, uint32_t events)
{
	const uint64_t index = (uint64_t)(p - table);
	_Static_assert(AGENT_PROXIED_MAX <= 1024, "the index has 10 bits in a tag");
	watch(p->relay.fds[end], &p->watched[end], events, TAG_PROXY | (uint64_t)p->generation << 11 | index << 1 | end);
}

static void proxied_end(struct proxied *p)
{
	/* Before both ways are over that is a reset: the server sees one, and the host, which heard of no half close before, too. */
	relay_reset(&p->relay);
	p->state = UNUSED;
	p->generation++;
	used_count--;
	watch(listener, &listener_watched, EPOLLIN, TAG_PROXY_LISTENER);
}

/* "CONNECT PORT\n" and nothing more. Returns 0 when it is something else. */
static uint16_t parse_line(const char *line, unsigned length)
{
	static const char word[] = "CONNECT ";
	const unsigned first = sizeof(word) - 1;
	uint32_t port = 0;
	if (length < first + 2 || memcmp(line, word, first) != 0 || line[length - 1] != '\n')
		return 0;
	for (unsigned i = first; i < length - 1; i++) {
		if (line[i] < '0' || line[i] > '9')
			return 0;
		port = port * 10 + (uint32_t)(line[i] - '0');
		if (port > UINT16_MAX)
			return 0;
	}
	return (uint16_t)port;
}

static void proxied_move(struct proxied *p, unsigned end, uint32_t events)
{
	const int result = relay_event(&p->relay, end, events, scratch);
	if (result > 0)
		relay_close(&p->relay);
	if (result != 0) {
		proxied_end(p);
		return;
	}
	proxied_watch(p, END_VSOCK, relay_events(&p->relay, END_VSOCK));
	proxied_watch(p, END_TCP, relay_events(&p->relay, END_TCP));
}

/* The server has accepted, or refused. */
static void proxied_connected(struct proxied *p)
{
	const int on = 1;
	int error = 0;
	socklen_t length = sizeof(error);
	getsockopt(p->relay.fds[END_TCP], SOL_SOCKET, SO_ERROR, &error, &length);
	struct text ok = { 0 };
	text_add(&ok, "OK ");
	p->line[p->line_length] = '\0';
	text_add(&ok, p->line + strlen("CONNECT "));
	if (error || send(p->relay.fds[END_VSOCK], ok.bytes, ok.length, MSG_NOSIGNAL) != (ssize_t)ok.length) {
		proxied_end(p);
		return;
	}
	setsockopt(p->relay.fds[END_TCP], IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	p->state = OPEN;
	proxied_move(p, END_TCP, 0);
}

static void proxied_connect(struct proxied *p, uint16_t port)
{
	const struct sockaddr_in server = { .sin_family = AF_INET,
					    .sin_port = htons(port),
					    .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	p->relay.fds[END_TCP] = fd;
	if (fd < 0) {
		proxied_end(p);
	} else if (connect(fd, (const struct sockaddr *)&server, sizeof(server)) == 0) {
		proxied_connected(p);
	} else if (errno == EINPROGRESS) {
		p->state = CONNECTING;
		proxied_watch(p, END_TCP, EPOLLOUT);
		proxied_watch(p, END_VSOCK, EPOLLRDHUP | (uint32_t)EPOLLET);
	} else {
		proxied_end(p);
	}
}

static void proxied_read_line(struct proxied *p)
{
	const ssize_t n = recv(p->relay.fds[END_VSOCK], p->line + p->line_length, LINE_BYTES - 1u - p->line_length, 0);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		proxied_end(p);
		return;
	}
	p->line_length = (uint8_t)(p->line_length + n);
	if (!memchr(p->line, '\n', p->line_length) && p->line_length < LINE_BYTES - 1)
		return;
	const uint16_t port = parse_line(p->line, p->line_length);
	if (port)
		proxied_connect(p, port);
	else
		proxied_end(p);
}

static void proxied_create(int fd)
{
	struct proxied *p = table;
	while (p->state != UNUSED)
		p++;
	used_count++;
	p->state = READING_LINE;
	p->line_length = 0;
	p->watched[END_VSOCK] = p->watched[END_TCP] = WATCHED_NOT;
	relay_init(&p->relay, fd, -1);
	p->relay.close_is_reset[END_VSOCK] = true;
	proxied_watch(p, END_VSOCK, EPOLLIN);
}

int proxy_listen(void)
{
	if (listener >= 0)
		return 0;
	const int fd = platform_listen(AGENT_PORT_PROXY);
	if (fd < 0)
		return fd;
	listener = fd;
	watch(listener, &listener_watched, EPOLLIN, TAG_PROXY_LISTENER);
	return 0;
}

void proxy_accept(void)
{
	while (used_count < AGENT_PROXIED_MAX) {
		const int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
			continue;
		if (fd < 0 && errno == EAGAIN)
			return;
		if (fd < 0)
			break; /* no memory or descriptor: not before a connection has ended */
		proxied_create(fd);
	}
	watch(listener, &listener_watched, 0, TAG_PROXY_LISTENER);
}

void proxy_event(uint64_t tag, uint32_t events)
{
	struct proxied *p = &table[tag >> 1 & (AGENT_PROXIED_MAX - 1)];
	const unsigned end = tag & 1;
	if (p->generation != (uint32_t)(tag >> 11))
		return;
	if (p->state == READING_LINE)
		proxied_read_line(p);
	else if (p->state == OPEN)
		proxied_move(p, end, events);
	else if (p->state == CONNECTING && end == END_TCP)
		proxied_connected(p);
}
