/* See nbd_connector.h. */
#include "devices/virtio-blk/nbd/nbd_connector.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/packet.h"
#include "vmm/sandbox.h"

#define ADDRESS_MS 5000

struct answer {
	int32_t error; /* 0: a descriptor comes with it */
	char text[NBD_TEXT_BYTES];
};

/* ---- the connector's process --------------------------------------------------------------------------------------------------- */

static int finish_connecting(int fd, int client)
{
	struct pollfd ready[] = { { .fd = fd, .events = POLLOUT }, { .fd = client, .events = 0 } };
	int error = 0;
	socklen_t length = sizeof(error);
	int count;
	do
		count = poll(ready, 2, ADDRESS_MS);
	while (count < 0 && errno == EINTR);
	if (ready[1].revents)
		_exit(0); /* nobody waits any more */
	if (count <= 0)
		return count < 0 ? -errno : -ETIMEDOUT;
	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0 ? -errno : -error;
}

/* Returns a descriptor or -errno. */
static int connect_to(int family, const struct sockaddr *address, socklen_t length, int client)
{
	const int one = 1;
	const int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	int result = connect(fd, address, length) < 0 ? -errno : 0;
	if (result == -EINPROGRESS)
		result = finish_connecting(fd, client);
	if (result == 0 && family != AF_UNIX)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (result == 0)
		return fd;
	close(fd);
	return result;
}

/* To the first of the host's addresses that answers. */
static int connect_tcp(const struct nbd_uri *uri, int client, char text[NBD_TEXT_BYTES])
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
	struct addrinfo *all = NULL;
	const int code = getaddrinfo(uri->host, uri->port, &hints, &all);
	if (code) {
		const int error = code == EAI_SYSTEM ? errno : EHOSTUNREACH;
		snprintf(text, NBD_TEXT_BYTES, "host '%s': %s", uri->host,
			 code == EAI_SYSTEM ? strerror(error) : gai_strerror(code));
		return -error;
	}
	int result = -EHOSTUNREACH;
	for (const struct addrinfo *one = all; one && result < 0; one = one->ai_next)
		result = connect_to(one->ai_family, one->ai_addr, one->ai_addrlen, client);
	freeaddrinfo(all);
	return result;
}

static int connect_server(const struct nbd_uri *uri, int client, char text[NBD_TEXT_BYTES])
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	_Static_assert(sizeof(uri->path) == sizeof(address.sun_path), "any path fits");
	memcpy(address.sun_path, uri->path, sizeof(address.sun_path));
	const int result = *uri->path ? connect_to(AF_UNIX, (const struct sockaddr *)&address, sizeof(address), client)
				      : connect_tcp(uri, client, text);
	if (result < 0 && !*text)
		snprintf(text, NBD_TEXT_BYTES, "connecting: %s", strerror(-result));
	return result;
}

/* Nothing of the caller's is held: neither its pipes, nor trvmm's end. Returns the number that the socket has then. */
static int close_others(int client)
{
	const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		dup2(null, fd);
	const int kept = dup3(client, STDERR_FILENO + 1, O_CLOEXEC) < 0 ? client : STDERR_FILENO + 1;
	close_range((unsigned)kept + 1, UINT_MAX, 0);
	return kept;
}

static void run_connector(const struct nbd_uri *uri, bool confined, int client) __attribute__((noreturn));

static void run_connector(const struct nbd_uri *uri, bool confined, int client)
{
	sigset_t all;
	char order;
	/* What is sent to our process group is not meant for us. */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	client = close_others(client);
	if (confined)
		sandbox_forbid_changes();
	while (recv(client, &order, sizeof(order), 0) == (ssize_t)sizeof(order)) {
		struct answer answer = { .error = 0 };
		const int fd = connect_server(uri, client, answer.text);
		answer.error = fd < 0 ? fd : 0;
		const int result = packet_send(client, &answer, sizeof(answer), &fd, fd >= 0);
		if (fd >= 0)
			close(fd);
		if (result < 0)
			break;
	}
	_exit(0);
}

/* ---- the client's side --------------------------------------------------------------------------------------------------------- */

int nbd_connector_start(const struct nbd_uri *uri, bool confined, struct nbd_connector *connector)
{
	int ends[2];
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return -errno;
	const pid_t pid = fork();
	const int error = errno;
	if (pid == 0) {
		close(ends[0]);
		run_connector(uri, confined, ends[1]);
	}
	close(ends[1]);
	if (pid < 0) {
		close(ends[0]);
		return -error;
	}
	*connector = (struct nbd_connector){ .socket = ends[0] };
	return 0;
}

static int take_answer(const struct nbd_connector *connector, char text[NBD_TEXT_BYTES])
{
	struct answer answer;
	unsigned count = 1;
	int fd = -1;
	if (packet_receive(connector->socket, &answer, sizeof(answer), &fd, &count) != 1) {
		snprintf(text, NBD_TEXT_BYTES, "the process that makes connections has ended");
		return -EPIPE;
	}
	memcpy(text, answer.text, NBD_TEXT_BYTES);
	return answer.error ? answer.error : count ? fd : -EMFILE;
}

int nbd_connector_connect(struct nbd_connector *connector, int timeout_ms, char text[NBD_TEXT_BYTES])
{
	struct pollfd ready = { .fd = connector->socket, .events = POLLIN };
	const char order = 'c';
	if (!connector->asked && send(connector->socket, &order, sizeof(order), MSG_NOSIGNAL) == (ssize_t)sizeof(order))
		connector->asked = true;
	const int count = poll(&ready, 1, timeout_ms);
	if (count <= 0) {
		snprintf(text, NBD_TEXT_BYTES, "no answer");
		return -ETIMEDOUT;
	}
	connector->asked = false;
	return take_answer(connector, text);
}
