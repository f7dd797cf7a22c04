/*
 * libFuzzer target: what clients may send to a named machine's socket, against remote_frame.c, remote_request.c, remote_exec.c.
 *
 * The input is a list of actions, each a byte and its arguments: clients come and go, send whole requests with likely and wild fields and
 * any number of descriptors, or raw bytes. No agent ever connects. Checked, beside the sanitizers: no descriptor is left behind.
 */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/fuzz/input.h"
#include "vmm/remote_server.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CLIENTS 4
#define TURNS 3 /* of the loop after each action: enough for what one request sets off */

int virtio_vsock_listen(struct virtio_vsock *vsock, uint32_t first, uint32_t last, vsock_accept accept, void *data)
{
	(void)vsock;
	(void)first;
	(void)last;
	(void)accept;
	(void)data;
	return 0;
}

/* ---- the machine ------------------------------------------------------------------------------------------------------------- */

static struct loop *loop;
static int clients[CLIENTS], null;
static struct sockaddr_un address;
static socklen_t address_length;

static void run_loop(void)
{
	for (unsigned i = 0; i < TURNS; i++) {
		const int result = loop_poll(loop);
		assert(result == 0);
	}
}

static void on_ended(void *data, const struct session_result *result)
{
	(void)data;
	(void)result;
}

static void on_kill(void *data, int number)
{
	(void)data;
	assert(number >= 1 && number <= 64);
}

static void on_figures(void *data, struct remote_figures *figures)
{
	(void)data;
	figures->cpu_ns = le64_make(1);
}

static int listen_anywhere(void)
{
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	assert(bind(fd, (const struct sockaddr *)&address, sizeof(sa_family_t)) == 0 && listen(fd, 16) == 0);
	address_length = sizeof(address);
	assert(getsockname(fd, (struct sockaddr *)&address, &address_length) == 0);
	return fd;
}

/* ---- the actions ------------------------------------------------------------------------------------------------------------- */

static void say(int client, const void *bytes, size_t length, unsigned fd_count)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(8 * sizeof(int))];
	} ancillary = { .bytes = { 0 } };
	struct iovec iov = { (void *)(uintptr_t)bytes, length };
	struct msghdr message = { .msg_iov = &iov, .msg_iovlen = 1 };
	if (client < 0 || !length)
		return;
	if (fd_count) {
		message.msg_control = ancillary.bytes;
		message.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
		struct cmsghdr *c = CMSG_FIRSTHDR(&message);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(fd_count * sizeof(int));
		for (unsigned i = 0; i < fd_count; i++)
			memcpy(CMSG_DATA(c) + i * sizeof(int), &null, sizeof(int));
	}
	/* It may have been dropped, or not read for long. */
	if (sendmsg(client, &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return;
}

static void say_request(struct input *in, int client)
{
	struct {
		struct remote_header header;
		uint8_t body[128];
	} m;
	memset(&m, 0, sizeof(m));
	const uint32_t type = take32(in, 1) % 7, length = take32(in, 1) % (sizeof(m.body) + 1), fd_count = take32(in, 1) % 9;
	m.header.magic = le32_make(REMOTE_MAGIC);
	m.header.version = le32_make(REMOTE_VERSION);
	m.header.type = le32_make(type);
	m.header.length = le32_make(length);
	for (size_t i = 0; i < length; i++)
		m.body[i] = (uint8_t)take32(in, 1);
	say(client, &m, sizeof(m.header) + length, fd_count);
}

static void act(struct input *in)
{
	uint8_t raw[256];
	const uint32_t action = take32(in, 1) % 6, index = take32(in, 1);
	int *client = &clients[index % CLIENTS];
	switch (action) {
	case 0:
		if (*client >= 0)
			break;
		*client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert(connect(*client, (const struct sockaddr *)&address, address_length) == 0);
		break;
	case 1:
	case 2:
		say_request(in, *client);
		break;
	case 3:
		for (size_t i = 0; i < index; i++)
			raw[i] = (uint8_t)take32(in, 1);
		say(*client, raw, index, take32(in, 1) % 9);
		break;
	case 4:
		if (*client >= 0)
			close(*client);
		*client = -1;
		break;
	default:
		if (*client >= 0)
			(void)recv(*client, raw, sizeof(raw), MSG_DONTWAIT);
	}
	run_loop();
}

static unsigned count_descriptors(void)
{
	unsigned count = 0;
	DIR *folder = opendir("/proc/self/fd");
	assert(folder);
	while (readdir(folder))
		count++;
	closedir(folder);
	return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const argv[] = { "command", NULL }, *const env[] = { "A=1", "B=2", NULL };
	const struct session_spec spec = { .argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1 };
	struct input in = { data, size };
	struct remote_server *server;
	struct session *session;
	struct error err;
	const unsigned descriptors = count_descriptors();

	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	loop = loop_create();
	assert(loop);
	assert(session_create(loop, NULL, &spec, NULL, on_ended, NULL, &session, &err) == 0);
	const struct remote_server_config config = {
		.listen_fd = listen_anywhere(), .session = session, .env = env, .kill = on_kill, .figures = on_figures
	};
	assert(remote_server_create(loop, &config, &server) == 0);
	for (unsigned i = 0; i < CLIENTS; i++)
		clients[i] = -1;
	while (in.left)
		act(&in);

	for (unsigned i = 0; i < CLIENTS; i++)
		if (clients[i] >= 0)
			close(clients[i]);
	remote_server_destroy(server);
	session_destroy(session);
	close(config.listen_fd);
	loop_destroy(loop);
	close(null);
	assert(count_descriptors() == descriptors);
	return 0;
}
