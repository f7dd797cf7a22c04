/*
 * libFuzzer target: everything that an agent may say, and connect to, against session.c.
 *
 * The input is a list of actions, each a byte and its arguments: connections to likely ports, messages of every type with likely
 * and wild fields, raw bytes on the control connection, streams that end. The vsock device is a table of what listens. Checked,
 * beside the sanitizers: `ended` is called once at most, and with an exit code that trvmm may have.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guest/agent/protocol.h"
#include "tests/fuzz/input.h"
#include "vmm/session.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CONNECTIONS 16
#define TURNS 3 /* of the loop after each action: enough for what one message sets off */

/* ---- the device -------------------------------------------------------------------------------------------------------------- */

struct listener {
	uint32_t first, last;
	vsock_accept accept;
	void *data;
};

static struct listener listeners[2];
static unsigned listener_count;

int virtio_vsock_listen(struct virtio_vsock *vsock, uint32_t first, uint32_t last, vsock_accept accept, void *data)
{
	(void)vsock;
	assert(listener_count < 2);
	listeners[listener_count++] = (struct listener){ first, last, accept, data };
	return 0;
}

static struct vsock_ends connections[CONNECTIONS];
static unsigned connection_count;
static int control; /* the guest's end of the control connection, or -1 */

static void close_connection(struct vsock_ends *ends)
{
	if (ends->read_fd >= 0)
		close(ends->read_fd);
	if (ends->write_fd >= 0 && ends->write_fd != ends->read_fd)
		close(ends->write_fd);
	const struct vsock_ends closed = *ends;
	*ends = (struct vsock_ends){ .read_fd = -1, .write_fd = -1 };
	if (closed.closed)
		closed.closed(closed.closed_data);
}

static void connect_port(uint32_t port)
{
	for (unsigned i = 0; i < listener_count && connection_count < CONNECTIONS; i++) {
		const struct listener *l = &listeners[i];
		struct vsock_ends ends = { .read_fd = -1, .write_fd = -1 };
		if (port < l->first || port > l->last || l->accept(l->data, port, &ends) < 0)
			continue;
		connections[connection_count++] = ends;
		if (port == AGENT_PORT_CONTROL)
			control = ends.read_fd;
	}
}

/* ---- the sessions ------------------------------------------------------------------------------------------------------------ */

static struct session *sessions[4];
static unsigned ended[4];

static void on_ended(void *data, const struct session_result *result)
{
	const size_t index = (size_t)(uintptr_t)data;
	assert(++ended[index] == 1);
	assert(result->exit_code >= 0 && result->exit_code <= 255);
	assert(result->started || result->err.text[0]);
}

static struct loop *loop;

static void run_loop(void)
{
	for (unsigned i = 0; i < TURNS; i++) {
		const int result = loop_poll(loop);
		assert(result == 0);
	}
}

static void start(const struct session_spec *spec, size_t index)
{
	struct error err;
	void *data = (void *)(uintptr_t)index;
	if (index == 0)
		assert(session_create(loop, NULL, spec, NULL, on_ended, data, &sessions[0], &err) == 0);
	else if (!sessions[index] && session_exec(sessions[0], spec, on_ended, data, &sessions[index], &err) == 0)
		ended[index] = 0;
}

/* ---- the actions ------------------------------------------------------------------------------------------------------------- */

static void say(const void *bytes, size_t length)
{
	/* The connection may have ended, or be full. */
	if (control >= 0 && send(control, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		return;
}

static void say_message(struct input *in)
{
	struct {
		struct agent_header header;
		le32 session, value, more;
		uint8_t text[64];
	} m;
	memset(&m, 0, sizeof(m));
	const uint32_t type = take32(in, 1) % 9, length = take32(in, 1) % (sizeof(m) - sizeof(m.header) + 1);
	m.header.type = le32_make(type);
	m.header.length = le32_make(length);
	const uint32_t number = take32(in, 1) % 5;
	m.session = le32_make(type == AGENT_HELLO && number == 2 ? AGENT_PROTOCOL_VERSION : number);
	m.value = le32_make(take32(in, 2));
	m.more = le32_make(take32(in, 1));
	for (size_t i = 0; i < sizeof(m.text) && i < length; i++)
		m.text[i] = (uint8_t)take32(in, 1);
	say(&m, sizeof(m.header) + length);
}

static void act(struct input *in, const struct session_spec *spec)
{
	uint8_t raw[256];
	const uint32_t action = take32(in, 1) % 8, index = take32(in, 1);
	switch (action) {
	case 0:
		connect_port(AGENT_PORT_CONTROL);
		break;
	case 1:
		connect_port(AGENT_PORT_STREAMS + index % 20);
		break;
	case 2:
		say_message(in);
		break;
	case 3:
		for (size_t i = 0; i < index; i++)
			raw[i] = (uint8_t)take32(in, 1);
		say(raw, index);
		break;
	case 4:
		if (index < connection_count) {
			if (connections[index].read_fd == control)
				control = -1;
			close_connection(&connections[index]);
		}
		break;
	case 5:
		start(spec, 1 + index % 3);
		break;
	case 6:
		session_destroy(sessions[1 + index % 3]);
		sessions[1 + index % 3] = NULL;
		break;
	default:
		session_signal(sessions[0], (int)index);
		session_resize(sessions[0], (uint16_t)index, 1);
	}
	run_loop();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const argv[] = { "command", NULL };
	struct input in = { data, size };
	struct session_spec spec = { .argv = argv, .stdin_fd = -1, .stdout_fd = -1, .stderr_fd = -1 };
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	listener_count = connection_count = 0;
	control = -1;
	memset(ended, 0, sizeof(ended));
	loop = loop_create();
	assert(loop);
	spec.terminal = take32(&in, 1) & 1;
	spec.stdin_fd = spec.stdout_fd = null;
	start(&spec, 0);
	while (in.left)
		act(&in, &spec);

	for (unsigned i = 0; i < connection_count; i++) {
		connections[i].closed = NULL; /* the device was destroyed */
		close_connection(&connections[i]);
	}
	for (size_t i = 4; i-- > 0;) {
		session_destroy(sessions[i]);
		sessions[i] = NULL;
	}
	loop_destroy(loop);
	close(null);
	return 0;
}
