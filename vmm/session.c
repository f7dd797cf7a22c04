/*
 * The life of a session.
 *
 *   ASKED ---STARTED---> STARTED ---EXITED---> EXITED ---all output delivered---> OVER
 *     \---FAILED--------------------------------------------------------------->
 *      \----- the control connection ends, or the guest does: -125------------->
 *
 * After EXITED nothing of the guest is believed: an honest agent has closed the streams before, so what the device holds is all
 * there is. Delivering that may take as long as the host's reader likes; but when every reader is ready and the guest still keeps
 * a stream open, it has GRACE_TICKS to close it.
 */
#include "vmm/session.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/container.h"
#include "vmm/session_internal.h"

#define EXIT_TRVMM 125
#define TICK_NS 100000000
#define GRACE_TICKS 20

/* ---- the end ----------------------------------------------------------------------------------------------------------------- */

static void stop_timer(struct session *session)
{
	if (session->timer.fd < 0)
		return;
	loop_remove(session->guest->loop, &session->timer);
	close(session->timer.fd);
	session->timer.fd = -1;
}

/* Output that is lost is no success, whatever the command thinks of it. */
static void look_for_lost_output(struct session *session)
{
	for (unsigned i = AGENT_STDIN; i <= AGENT_STDERR; i++) {
		const struct stream *stream = session->streams[i];
		if (!stream || !stream->write_error || session->result.guest_gone)
			continue;
		session->result.exit_code = EXIT_TRVMM;
		error_set(&session->result.err, 0, "writing the command's standard %s: %s", i == AGENT_STDERR ? "error" : "output",
			  strerror(-stream->write_error));
	}
}

/* The session may be freed on return. */
static void session_over(struct session *session)
{
	look_for_lost_output(session);
	stop_timer(session);
	session->state = SESSION_OVER;
	session->ended(session->data, &session->result);
}

/* Ends a session that has not exited, for a reason that is not the command's. */
static void session_abort(struct session *session, const char *why)
{
	if (session->state >= SESSION_EXITED)
		return;
	session->result.exit_code = EXIT_TRVMM;
	session->result.guest_gone = true;
	error_set(&session->result.err, 0, "%s", why);
	session_over(session);
}

static bool session_is_delivered(const struct session *session)
{
	for (unsigned i = 0; i < 3; i++) {
		if (session->streams[i] && !stream_is_delivered(session->streams[i]))
			return false;
	}
	return true;
}

void session_stream_changed(struct session *session)
{
	if (session->state == SESSION_EXITED && session_is_delivered(session))
		session_over(session);
}

static void session_tick(struct loop_source *source, uint32_t events)
{
	struct session *session = container_of(source, struct session, timer);
	uint64_t ticks;
	bool host_is_slow = false;
	(void)events;
	if (read(source->fd, &ticks, sizeof(ticks)) != (ssize_t)sizeof(ticks))
		return;
	for (unsigned i = 0; i < 3; i++) {
		const struct stream *stream = session->streams[i];
		if (stream && stream->output && stream->connected && stream_is_waiting_for_host(stream))
			host_is_slow = true;
	}
	session->quiet_ticks = host_is_slow ? 0 : session->quiet_ticks + 1;
	if (session->quiet_ticks >= GRACE_TICKS)
		session_over(session);
}

static void start_timer(struct session *session)
{
	const struct itimerspec every = { .it_value.tv_nsec = TICK_NS, .it_interval.tv_nsec = TICK_NS };
	session->timer.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (session->timer.fd < 0 || timerfd_settime(session->timer.fd, 0, &every, NULL) < 0 ||
	    loop_add(session->guest->loop, &session->timer) < 0) {
		/* Without a clock a lying agent would be waited for; an honest one has closed its streams. */
		stop_timer(session);
		session_over(session);
	}
}

/* An agent that does not read its messages would not pass it on either. */
static void send_signal(struct guest *guest, uint32_t number, int signal)
{
	const struct agent_signal m = { le32_make(number), le32_make((uint32_t)signal) };
	(void)control_send(&guest->control, AGENT_SIGNAL, &m, sizeof(m));
}

/* ---- what the agent says ----------------------------------------------------------------------------------------------------- */

static void on_hello(struct guest *guest, const uint8_t *body, size_t length)
{
	struct agent_hello hello;
	if (length < sizeof(hello) || guest->hello)
		return;
	memcpy(&hello, body, sizeof(hello));
	const uint32_t version = le32_get(hello.version);
	if (version != AGENT_PROTOCOL_VERSION) {
		struct error err;
		error_set(&err, 0,
			  "the agent in the guest speaks version %u of the protocol, not %u; use the one that came with trvmm",
			  version, AGENT_PROTOCOL_VERSION);
		session_guest_gone(guest->sessions[0], err.text);
		return;
	}
	guest->hello = true;
	if (guest->ready)
		guest->ready(guest->sessions[0]->data);
}

static void on_started(struct session *session)
{
	if (session->state != SESSION_ASKED)
		return;
	session->state = SESSION_STARTED;
	session->result.started = true;
	const uint64_t pending = session->pending_signals;
	session->pending_signals = 0;
	for (int i = 1; i <= 64; i++) {
		if (pending >> (i - 1) & 1)
			session_signal(session, i);
	}
	if (session->started)
		session->started(session->data);
}

static void on_failed(struct session *session, const uint8_t *body, size_t length)
{
	struct agent_failed failed;
	char quoted[sizeof(session->result.err.text) - 64];
	if (session->state != SESSION_ASKED || length < sizeof(failed))
		return;
	memcpy(&failed, body, sizeof(failed));
	const uint32_t exit_code = le32_get(failed.exit_code);
	session->result.exit_code = exit_code == 126 || exit_code == 127 ? (int)exit_code : EXIT_TRVMM;
	error_quote(quoted, sizeof(quoted), (const char *)body + sizeof(failed), length - sizeof(failed));
	error_set(&session->result.err, 0, "%s", *quoted ? quoted : "the command could not be started");
	session_over(session);
}

/* Linux's wait status: the low 7 bits are the signal, 0 none; bit 7 tells of a core file; then the exit code. */
static int exit_code_of(uint32_t wait_status)
{
	const uint32_t signal = wait_status & 0x7f;
	if (signal == 0 && (wait_status & ~0xff00u) == 0)
		return (int)(wait_status >> 8);
	if (signal >= 1 && signal <= 64 && wait_status <= 0xff)
		return 128 + (int)signal;
	return -1;
}

static void on_exited(struct session *session, const uint8_t *body, size_t length)
{
	struct agent_exited exited;
	if (session->state != SESSION_STARTED || length < sizeof(exited))
		return;
	memcpy(&exited, body, sizeof(exited));
	session->result.exit_code = exit_code_of(le32_get(exited.wait_status));
	if (session->result.exit_code < 0) {
		session->result.exit_code = EXIT_TRVMM;
		error_set(&session->result.err, 0, "the agent in the guest reported the exit status 0x%x, which is none",
			  le32_get(exited.wait_status));
	}
	session->state = SESSION_EXITED;
	if (session_is_delivered(session))
		session_over(session);
	else
		start_timer(session);
}

static void on_times(struct session *session, const uint8_t *body, size_t length)
{
	struct agent_times times;
	if (!session->times || session->state != SESSION_STARTED || length < sizeof(times))
		return;
	memcpy(&times, body, sizeof(times));
	session->times(session->data, &times);
	session->times = NULL;
}

static void control_message(struct control *control, uint32_t type, const uint8_t *body, size_t length)
{
	struct guest *guest = container_of(control, struct guest, control);
	le32 number;
	if (type == AGENT_HELLO) {
		on_hello(guest, body, length);
		return;
	}
	/* All others begin with the session. Who has not said what version it speaks has said nothing. */
	if (length < sizeof(number) || !guest->hello)
		return;
	memcpy(&number, body, sizeof(number));
	if (le32_get(number) >= AGENT_SESSIONS_MAX || guest->gone)
		return;
	struct session *session = guest->sessions[le32_get(number)];
	if (type == AGENT_FAILED || type == AGENT_EXITED)
		guest->in_guest[le32_get(number)] = false;
	if (!session) {
		if (type == AGENT_STARTED && guest->in_guest[le32_get(number)])
			send_signal(guest, le32_get(number), SIGKILL); /* destroyed while it was asked for */
		return;
	}
	if (type == AGENT_STARTED)
		on_started(session);
	else if (type == AGENT_FAILED)
		on_failed(session, body, length);
	else if (type == AGENT_TIMES)
		on_times(session, body, length);
	else if (type == AGENT_EXITED)
		on_exited(session, body, length);
}

static void control_closed(struct control *control, const char *why)
{
	struct guest *guest = container_of(control, struct guest, control);
	session_guest_gone(guest->sessions[0], why);
}

void session_guest_gone(struct session *main_session, const char *why)
{
	struct guest *guest = main_session->guest;
	guest->gone = true;
	/* The main session last: its end is usually that of the process. */
	for (unsigned i = AGENT_SESSIONS_MAX; i-- > 0;) {
		if (guest->sessions[i])
			session_abort(guest->sessions[i], why);
	}
}

/* ---- what the guest connects to ---------------------------------------------------------------------------------------------- */

static int accept_control(void *data, uint32_t port, struct vsock_ends *ends)
{
	struct guest *guest = data;
	(void)port;
	return control_accept(&guest->control, ends);
}

static int accept_stream(void *data, uint32_t port, struct vsock_ends *ends)
{
	struct guest *guest = data;
	const uint32_t offset = port - AGENT_PORT_STREAMS;
	struct session *session = guest->sessions[offset / 4];
	if (!session || session->state >= SESSION_EXITED || offset % 4 > AGENT_STDERR || !session->streams[offset % 4])
		return -ECONNREFUSED;
	return stream_accept(session->streams[offset % 4], ends);
}

/* ---- public ------------------------------------------------------------------------------------------------------------------ */

static int session_open(struct guest *guest, uint32_t number, const struct session_spec *spec, session_ended ended, void *data,
			struct session **made, struct error *err)
{
	struct session_request request = { 0 };
	struct session *session = calloc(1, sizeof(*session));
	if (!session)
		return error_set(err, -ENOMEM, "out of memory");
	*session = (struct session){ .guest = guest,
				     .number = number,
				     .terminal = spec->terminal,
				     .started = spec->started,
				     .times = spec->times,
				     .ended = ended,
				     .data = data,
				     .timer = { .fd = -1, .events = EPOLLIN, .ready = session_tick } };
	guest->sessions[number] = session;
	int result = session_request_build(&request, number, spec, err);
	if (result == 0 && (spec->terminal || spec->stdin_fd >= 0))
		result = stream_create(session, AGENT_STDIN, spec, err);
	if (result == 0 && !spec->terminal)
		result = stream_create(session, AGENT_STDOUT, spec, err);
	if (result == 0 && !spec->terminal)
		result = stream_create(session, AGENT_STDERR, spec, err);
	if (result == 0) {
		result = control_send(&guest->control, AGENT_RUN, request.body, request.length);
		if (result < 0)
			error_set(err, result, "asking the agent in the guest: %s", strerror(-result));
	}
	free(request.body);
	guest->in_guest[number] = result == 0;
	if (result == 0)
		*made = session;
	else if (number) /* the caller destroys the main one */
		session_destroy(session);
	return result;
}

int session_create(struct loop *loop, struct virtio_vsock *vsock, const struct session_spec *spec, void (*ready)(void *data),
		   session_ended ended, void *data, struct session **session, struct error *err)
{
	struct guest *guest = calloc(1, sizeof(*guest));
	struct session *made = NULL;
	if (!guest)
		return error_set(err, -ENOMEM, "out of memory");
	guest->loop = loop;
	guest->ready = ready;
	control_init(&guest->control, loop);
	guest->control.message = control_message;
	guest->control.closed = control_closed;
	int result = session_open(guest, 0, spec, ended, data, &made, err);
	if (result < 0)
		goto fail;
	/* Last: what listens cannot be taken back. */
	const uint32_t last_stream = agent_stream_port(AGENT_SESSIONS_MAX, AGENT_STDIN) - 1;
	result = virtio_vsock_listen(vsock, AGENT_PORT_STREAMS, last_stream, accept_stream, guest);
	if (result == 0)
		result = virtio_vsock_listen(vsock, AGENT_PORT_CONTROL, AGENT_PORT_CONTROL, accept_control, guest);
	if (result < 0) {
		error_set(err, result, "vsock ports for the agent: %s", strerror(-result));
		goto fail;
	}
	*session = made;
	return 0;

fail:
	if (guest->sessions[0])
		session_destroy(guest->sessions[0]);
	else
		free(guest);
	return result;
}

int session_start_streams(struct session *session)
{
	int result = 0;
	for (unsigned i = 0; i < 3 && result == 0; i++)
		if (session->streams[i])
			result = stream_start(session->streams[i]);
	return result;
}

int session_exec(struct session *main_session, const struct session_spec *spec, session_ended ended, void *data,
		 struct session **session, struct error *err)
{
	struct guest *guest = main_session->guest;
	if (guest->gone)
		return error_set(err, -ESHUTDOWN, "the guest is gone");
	for (uint32_t i = 1; i < AGENT_SESSIONS_MAX; i++) {
		if (!guest->sessions[i] && !guest->in_guest[i])
			return session_open(guest, i, spec, ended, data, session, err);
	}
	return error_set(err, -ENOSPC, "%u commands run in this guest already", AGENT_SESSIONS_MAX);
}

void session_destroy(struct session *session)
{
	if (!session)
		return;
	struct guest *guest = session->guest;
	stop_timer(session);
	for (unsigned i = 0; i < 3; i++) {
		if (session->streams[i])
			stream_release(session->streams[i]);
	}
	guest->sessions[session->number] = NULL;
	const bool is_main = session->number == 0;
	if (!is_main && session->state == SESSION_STARTED)
		send_signal(guest, session->number, SIGKILL);
	free(session);
	if (!is_main)
		return;
	while (guest->streams)
		stream_destroy(guest->streams);
	control_destroy(&guest->control);
	free(guest);
}

void session_signal(struct session *session, int signal)
{
	if (signal < 1 || signal > 64)
		return;
	if (session->state == SESSION_ASKED)
		session->pending_signals |= 1ull << (signal - 1);
	if (session->state != SESSION_STARTED)
		return;
	send_signal(session->guest, session->number, signal);
}

void session_resize(struct session *session, uint16_t rows, uint16_t columns)
{
	const struct agent_window m = { le32_make(session->number), le16_make(rows), le16_make(columns) };
	if (session->terminal && session->state <= SESSION_STARTED)
		(void)control_send(&session->guest->control, AGENT_WINDOW, &m, sizeof(m));
}
