/* TCP ports of the host that lead to the guest; see ports.h. */
#include "vmm/ports.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/container.h"
#include "base/relay.h"

#define BACKLOG 1024
#define ACCEPT_RETRY_MS 500
#define ACCEPTS_AT_ONCE 64 /* before the loop's other sources have their turn */
#define ANSWER_BYTES 32u /* "OK 4294967295\n" has 14 */
#define DESCRIPTORS_PER_CLIENT 3u /* TCP, and both ends of the way to the device */

enum { END_TCP = 0, END_GUEST = 1 };

struct client {
	struct ports *ports;
	struct client *next, **link; /* of ports->clients */
	struct loop_source sources[2]; /* by end; descriptors are the relay's */
	struct relay relay;
	struct ports_way *way; /* one of its users */
	bool connected; /* OK has come */
	unsigned answer_length;
	char answer[ANSWER_BYTES];
};

struct listener {
	struct ports *ports;
	uint32_t guest_port;
	struct loop_source source; /* source.fd is owned */
};

struct ports {
	struct loop *loop; /* borrowed */
	ports_opener open;
	void *data;
	bool started, complained;
	struct loop_source retry; /* a timer: accepting failed for want of resources. source.fd is owned */
	unsigned listener_count, client_count;
	struct listener listeners[PORTS_MAX];
	struct client *clients;
	uint8_t scratch[RELAY_BYTES];
};

/* ---- clients ----------------------------------------------------------------------------------------------------------------- */

static void listeners_watch(struct ports *ports, uint32_t events)
{
	for (unsigned i = 0; i < ports->listener_count; i++)
		loop_modify(ports->loop, &ports->listeners[i].source, events);
}

void ports_way_leave(struct ports_way *way)
{
	if (--way->users == 0)
		free(way);
}

static void client_end(struct client *client, bool reset)
{
	struct ports *ports = client->ports;
	for (unsigned i = 0; i < 2; i++)
		loop_remove(ports->loop, &client->sources[i]);
	client->way->client_reset = reset;
	if (reset)
		relay_reset(&client->relay);
	else
		relay_close(&client->relay);
	ports_way_leave(client->way);
	*client->link = client->next;
	if (client->next)
		client->next->link = client->link;
	ports->client_count--;
	free(client);
	listeners_watch(ports, EPOLLIN);
}

static void client_move(struct client *client, unsigned end, uint32_t events)
{
	const int result = relay_event(&client->relay, end, events, client->ports->scratch);
	if (result != 0) {
		client_end(client, result < 0);
		return;
	}
	for (unsigned i = 0; i < 2; i++)
		loop_modify(client->ports->loop, &client->sources[i], relay_events(&client->relay, i));
}

/* Takes the answer up to its newline and not a byte further. Returns 1: connected; 0: not yet; -errno: refused. */
static int read_answer(struct client *client)
{
	const int fd = client->relay.fds[END_GUEST];
	char *end = client->answer + client->answer_length;
	const ssize_t seen = recv(fd, end, ANSWER_BYTES - client->answer_length, MSG_PEEK | MSG_DONTWAIT);
	if (seen < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -errno;
	if (seen == 0)
		return -ECONNREFUSED;
	const char *newline = memchr(end, '\n', (size_t)seen);
	const size_t take = newline ? (size_t)(newline - end) + 1 : (size_t)seen;
	if (recv(fd, end, take, MSG_DONTWAIT) != (ssize_t)take)
		return -EIO;
	client->answer_length += (unsigned)take;
	if (memcmp(client->answer, "OK ", client->answer_length < 3 ? client->answer_length : 3) != 0)
		return -EPROTO;
	if (newline)
		return 1;
	return client->answer_length == ANSWER_BYTES ? -EPROTO : 0;
}

static void tcp_ready(struct loop_source *source, uint32_t events)
{
	struct client *client = container_of(source, struct client, sources[END_TCP]);
	if (client->connected)
		client_move(client, END_TCP, events);
	else
		client_end(client, true); /* it is not watched for anything but its end */
}

static void guest_ready(struct loop_source *source, uint32_t events)
{
	struct client *client = container_of(source, struct client, sources[END_GUEST]);
	if (!client->connected) {
		const int result = read_answer(client);
		if (result < 0) {
			client_end(client, true);
			return;
		}
		client->connected = result > 0;
	}
	if (client->connected)
		client_move(client, END_GUEST, events);
}

static int client_watch(struct client *client)
{
	struct loop *loop = client->ports->loop;
	client->sources[END_TCP] = (struct loop_source){ .fd = client->relay.fds[END_TCP], .events = 0, .ready = tcp_ready };
	client->sources[END_GUEST] =
	    (struct loop_source){ .fd = client->relay.fds[END_GUEST], .events = EPOLLIN, .ready = guest_ready };
	const int result = loop_add(loop, &client->sources[END_TCP]);
	return result < 0 ? result : loop_add(loop, &client->sources[END_GUEST]);
}

/* Makes a client with its way to the guest; its relay holds both sockets. Returns NULL for want of memory or of a guest. */
static struct client *client_alloc(struct ports *ports, int tcp)
{
	struct client *client = calloc(1, sizeof(*client));
	struct ports_way *way = calloc(1, sizeof(*way));
	if (!client || !way) {
		free(client);
		free(way);
		return NULL;
	}
	way->users = 1;
	const int guest = ports->open(ports->data, way);
	if (guest < 0) {
		ports_way_leave(way);
		free(client);
		return NULL;
	}
	client->way = way;
	relay_init(&client->relay, tcp, guest);
	client->relay.was_reset[END_GUEST] = &way->guest_reset;
	return client;
}

/* Owns `tcp`. */
static void client_create(struct ports *ports, int tcp, uint32_t guest_port)
{
	const int on = 1;
	char line[24];
	struct client *client = client_alloc(ports, tcp);
	if (!client) {
		struct relay refused;
		relay_init(&refused, tcp, -1);
		relay_reset(&refused);
		return;
	}
	client->ports = ports;
	client->next = ports->clients;
	client->link = &ports->clients;
	if (client->next)
		client->next->link = &client->next;
	ports->clients = client;
	ports->client_count++;
	setsockopt(tcp, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
	const int length = snprintf(line, sizeof(line), "CONNECT %u\n", guest_port);
	if (send(client->relay.fds[END_GUEST], line, (size_t)length, MSG_NOSIGNAL) != length || client_watch(client) < 0)
		client_end(client, true);
}

/* ---- listeners --------------------------------------------------------------------------------------------------------------- */

/* The kernel had nothing left for another connection: clients wait, and nobody asks in a circle meanwhile. */
static void accept_later(struct ports *ports, int error)
{
	const struct itimerspec when = { .it_value = { .tv_nsec = ACCEPT_RETRY_MS * 1000000 } };
	if (!ports->complained)
		message("accepting a TCP connection: %s; clients wait", strerror(error));
	ports->complained = true;
	listeners_watch(ports, 0);
	timerfd_settime(ports->retry.fd, 0, &when, NULL);
}

static void retry_ready(struct loop_source *source, uint32_t events)
{
	struct ports *ports = container_of(source, struct ports, retry);
	uint64_t expirations;
	(void)events;
	if (read(source->fd, &expirations, sizeof(expirations)) == (ssize_t)sizeof(expirations) &&
	    ports->client_count < PORTS_CLIENTS_MAX)
		listeners_watch(ports, EPOLLIN);
}

static void listener_ready(struct loop_source *source, uint32_t events)
{
	struct listener *listener = container_of(source, struct listener, source);
	struct ports *ports = listener->ports;
	(void)events;
	for (unsigned i = 0; i < ACCEPTS_AT_ONCE && ports->client_count < PORTS_CLIENTS_MAX; i++) {
		const int fd = accept4(source->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (fd >= 0) {
			client_create(ports, fd, listener->guest_port);
			continue;
		}
		if (errno == EINTR || errno == ECONNABORTED)
			continue;
		if (errno != EAGAIN)
			accept_later(ports, errno);
		return;
	}
	if (ports->client_count == PORTS_CLIENTS_MAX)
		listeners_watch(ports, 0);
}

/* Each client takes more descriptors than most processes may have. What the kernel refuses is seen when one is accepted. */
static void raise_descriptor_limit(void)
{
	const rlim_t wanted = PORTS_CLIENTS_MAX * DESCRIPTORS_PER_CLIENT + 1024;
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= wanted)
		return;
	limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
	setrlimit(RLIMIT_NOFILE, &limit);
}

int ports_create(struct loop *loop, ports_opener open, void *data, struct ports **made, struct error *err)
{
	struct ports *ports = calloc(1, sizeof(*ports));
	if (!ports)
		return error_set(err, -ENOMEM, "out of memory");
	ports->loop = loop;
	ports->open = open;
	ports->data = data;
	ports->retry = (struct loop_source){ .events = EPOLLIN, .ready = retry_ready };
	ports->retry.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	const int result = ports->retry.fd < 0 ? -errno : loop_add(loop, &ports->retry);
	if (result < 0) {
		ports_destroy(ports);
		return error_set(err, result, "a timer: %s", strerror(-result));
	}
	raise_descriptor_limit();
	*made = ports;
	return 0;
}

static const char *mend(int error)
{
	if (error == -EADDRINUSE)
		return "; choose another port, or end what listens there";
	if (error == -EACCES)
		return "; ports below 1024 are root's here: choose another";
	if (error == -EADDRNOTAVAIL)
		return "; give an address of this host";
	return "";
}

int ports_add(struct ports *ports, const struct port_rule *rule, struct error *err)
{
	const struct port_address *address = &rule->address;
	const int on = 1;
	if (ports->listener_count == PORTS_MAX)
		return error_set(err, -ENOSPC, "TCP %s: at most %u ports", address->text, PORTS_MAX);
	const int fd = socket(address->any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	/* Connections that have ended do not keep the port from the next run; whoever listens there does. */
	if (fd >= 0)
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
	struct listener *listener = &ports->listeners[ports->listener_count];
	*listener = (struct listener){ .ports = ports,
				       .guest_port = rule->guest_port,
				       .source = { .fd = fd, .events = ports->started ? EPOLLIN : 0, .ready = listener_ready } };
	int result = 0;
	if (fd < 0 || bind(fd, &address->any, address->length) < 0 || listen(fd, BACKLOG) < 0)
		result = -errno;
	if (result == 0)
		result = loop_add(ports->loop, &listener->source);
	if (result < 0) {
		if (fd >= 0)
			close(fd);
		return error_set(err, result, "TCP %s: %s%s", address->text, strerror(-result), mend(result));
	}
	ports->listener_count++;
	return 0;
}

void ports_start(struct ports *ports)
{
	ports->started = true;
	listeners_watch(ports, EPOLLIN);
}

void ports_destroy(struct ports *ports)
{
	if (!ports)
		return;
	for (struct client *client = ports->clients, *next; client; client = next) {
		next = client->next;
		client_end(client, true);
	}
	for (unsigned i = 0; i < ports->listener_count; i++) {
		loop_remove(ports->loop, &ports->listeners[i].source);
		close(ports->listeners[i].source.fd);
	}
	if (ports->retry.fd >= 0) {
		loop_remove(ports->loop, &ports->retry);
		close(ports->retry.fd);
	}
	free(ports);
}
