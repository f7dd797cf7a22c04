/*
 * session.c against an agent that lies: whatever it says or leaves unsaid, the session ends once, in time, with what is true. The
 * agent is a thread with a script.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/session_harness.h"

TestSuite(session_hostile, .timeout = 60);

/* ---- the script's means ------------------------------------------------------------------------------------------------------ */

struct play {
	struct harness h;
	pthread_t thread;
	void (*script)(struct play *play);
	int control, out, err;
	struct capture captured;
};

static void *play_run(void *data)
{
	struct play *play = data;
	play->script(play);
	return NULL;
}

static void say_hello(struct play *play, uint32_t version)
{
	const struct agent_hello m = { le32_make(version) };
	guest_send(play->control, AGENT_HELLO, &m, sizeof(m));
}

static void say_started(struct play *play, uint32_t session)
{
	const struct agent_started m = { le32_make(session), le32_make(2) };
	guest_send(play->control, AGENT_STARTED, &m, sizeof(m));
}

static void say_exited(struct play *play, uint32_t session, uint32_t status)
{
	const struct agent_exited m = { le32_make(session), le32_make(status) };
	guest_send(play->control, AGENT_EXITED, &m, sizeof(m));
}

static void say_failed(struct play *play, uint32_t exit_code, const char *text, size_t length)
{
	uint8_t body[8192];
	const struct agent_failed m = { le32_make(0), le32_make(2), le32_make(exit_code) };
	memcpy(body, &m, sizeof(m));
	memcpy(body + sizeof(m), text, length);
	guest_send(play->control, AGENT_FAILED, body, sizeof(m) + length);
}

static void await_run(struct play *play)
{
	static uint8_t body[4096];
	uint32_t type;
	guest_receive(play->control, &type, body, sizeof(body));
	cr_assert_eq(type, (uint32_t)AGENT_RUN);
}

/* Up to the running command, as an honest agent does it. */
static void begin(struct play *play)
{
	play->control = guest_connect(&play->h, AGENT_PORT_CONTROL);
	play->out = guest_connect(&play->h, agent_stream_port(0, AGENT_STDOUT));
	play->err = guest_connect(&play->h, agent_stream_port(0, AGENT_STDERR));
	say_hello(play, AGENT_PROTOCOL_VERSION);
	await_run(play);
	say_started(play, 0);
}

static void (*times_wanted)(void *data, const struct agent_times *times);

/* Runs `script` as the agent of a session whose stdout is captured. */
static void play(struct play *play, void (*script)(struct play *play))
{
	static const char *const argv[] = { "command", NULL };
	struct session_spec spec = harness_spec(argv);
	*play = (struct play){ .script = script, .control = -1, .out = -1, .err = -1 };
	capture_open(&play->captured);
	spec.stdout_fd = play->captured.write_fd;
	spec.times = times_wanted;
	harness_open(&play->h);
	harness_create(&play->h, &spec);
	pthread_create(&play->thread, NULL, play_run, play);
	harness_wait(&play->h);
	pthread_join(play->thread, NULL);
	const int fds[] = { play->control, play->out, play->err };
	for (int i = 0; i < 3; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
	harness_close(&play->h);
	capture_finish(&play->captured);
	cr_expect_eq(play->h.ended, 1u);
}

static void expect_end(struct play *play, int exit_code, const char *said)
{
	cr_expect_eq(play->h.result.exit_code, exit_code, "exit code %d, not %d", play->h.result.exit_code, exit_code);
	if (said)
		cr_expect_str_eq(play->h.result.err.text, said);
	capture_free(&play->captured);
}

#define CLOSED "the guest's agent went away before the command ended (did the guest reboot?)"
#define BROKEN "the guest's agent broke its protocol"

/* ---- honest, for comparison -------------------------------------------------------------------------------------------------- */

static void honest(struct play *play)
{
	begin(play);
	cr_assert(write(play->out, "output", 6) == 6);
	shutdown(play->out, SHUT_RDWR);
	shutdown(play->err, SHUT_RDWR);
	say_exited(play, 0, 3 << 8);
}

Test(session_hostile, honest_agent)
{
	struct play p;
	play(&p, honest);
	cr_expect(p.h.ready);
	cr_expect(p.h.result.started);
	cr_expect_str_eq(p.captured.bytes, "output");
	expect_end(&p, 3, "");
}

/* ---- framing ----------------------------------------------------------------------------------------------------------------- */

static void message_too_long(struct play *play)
{
	begin(play);
	const struct agent_header header = { le32_make(AGENT_EXITED), le32_make(AGENT_BODY_MAX + 1) };
	cr_assert(write(play->control, &header, sizeof(header)) == (ssize_t)sizeof(header));
}

Test(session_hostile, message_that_is_too_long_ends_the_connection)
{
	struct play p;
	play(&p, message_too_long);
	expect_end(&p, 125, BROKEN);
}

static void long_unknown_message(struct play *play)
{
	uint8_t *much = calloc(1, AGENT_BODY_MAX);
	begin(play);
	guest_send(play->control, (enum agent_type)77, much, AGENT_BODY_MAX);
	guest_send(play->control, (enum agent_type)0, NULL, 0);
	guest_send(play->control, AGENT_STARTED, much, 3); /* too short to be one */
	guest_send(play->control, AGENT_EXITED, much, 4);
	shutdown(play->out, SHUT_RDWR);
	shutdown(play->err, SHUT_RDWR);
	say_exited(play, 0, 0);
	free(much);
}

Test(session_hostile, unknown_and_short_messages_are_skipped)
{
	struct play p;
	play(&p, long_unknown_message);
	expect_end(&p, 0, "");
}

static void early_messages(struct play *play)
{
	play->control = guest_connect(&play->h, AGENT_PORT_CONTROL);
	await_run(play);
	say_started(play, 0);
	say_exited(play, 0, 1 << 8);
	say_failed(play, 127, "early", 5);
	say_hello(play, AGENT_PROTOCOL_VERSION);
	say_failed(play, 126, "in time", 7);
}

Test(session_hostile, messages_before_hello_are_ignored)
{
	struct play p;
	play(&p, early_messages);
	expect_end(&p, 126, "in time");
}

/* Starts and ends of all sessions there may be, none of which was asked for, a million in all; in large writes, as a flood comes. */
static void million_exits(struct play *play)
{
	static struct {
		struct agent_header header;
		struct agent_exited body;
	} flood[1024];
	begin(play);
	for (uint32_t i = 0; i < 1024; i++) {
		flood[i].header =
		    (struct agent_header){ le32_make(i % 2 ? AGENT_EXITED : AGENT_STARTED), le32_make(sizeof(flood[i].body)) };
		flood[i].body = (struct agent_exited){ le32_make(1 + i * 97 % 2000), le32_make(9) };
	}
	for (unsigned round = 0; round < 1000; round++)
		cr_assert(send(play->control, flood, sizeof(flood), MSG_NOSIGNAL) == (ssize_t)sizeof(flood));
	shutdown(play->out, SHUT_RDWR);
	shutdown(play->err, SHUT_RDWR);
	say_exited(play, 0, 5 << 8);
}

Test(session_hostile, a_million_exits)
{
	struct play p;
	play(&p, million_exits);
	expect_end(&p, 5, "");
}

static void byte_by_byte(struct play *play)
{
	begin(play);
	shutdown(play->out, SHUT_RDWR);
	shutdown(play->err, SHUT_RDWR);
	const struct {
		struct agent_header header;
		struct agent_exited body;
	} m = { { le32_make(AGENT_EXITED), le32_make(sizeof(m.body)) }, { le32_make(0), le32_make(9) } };
	for (size_t i = 0; i < sizeof(m); i++) {
		cr_assert(write(play->control, (const char *)&m + i, 1) == 1);
		usleep(1000);
	}
}

Test(session_hostile, message_in_pieces)
{
	struct play p;
	play(&p, byte_by_byte);
	expect_end(&p, 128 + 9, "");
}

static void wrong_version(struct play *play)
{
	play->control = guest_connect(&play->h, AGENT_PORT_CONTROL);
	say_hello(play, 99);
}

Test(session_hostile, other_version)
{
	struct play p;
	play(&p, wrong_version);
	cr_expect_not(p.h.ready);
	expect_end(&p, 125, "the agent in the guest speaks version 99 of the protocol, not 4; use the one that came with trvmm");
}

/* ---- the connection ends early ----------------------------------------------------------------------------------------------- */

static void close_at_once(struct play *play)
{
	close(guest_connect(&play->h, AGENT_PORT_CONTROL));
}

static void close_while_running(struct play *play)
{
	begin(play);
	close(play->control);
	play->control = -1;
}

Test(session_hostile, control_connection_ends_early)
{
	struct play p;
	play(&p, close_at_once);
	cr_expect_not(p.h.result.started);
	expect_end(&p, 125, CLOSED);
	play(&p, close_while_running);
	cr_expect(p.h.result.started);
	expect_end(&p, 125, CLOSED);
}

static void close_after_exited(struct play *play)
{
	begin(play);
	say_exited(play, 0, 4 << 8);
	close(play->control);
	play->control = -1;
	usleep(200000);
	cr_assert(write(play->out, "late", 4) == 4);
	shutdown(play->out, SHUT_RDWR);
	shutdown(play->err, SHUT_RDWR);
}

Test(session_hostile, control_connection_ends_while_output_is_delivered)
{
	struct play p;
	play(&p, close_after_exited);
	cr_expect_str_eq(p.captured.bytes, "late");
	expect_end(&p, 4, "");
}

/* ---- EXITED and FAILED that are not true ------------------------------------------------------------------------------------- */

static void exited_before_started(struct play *play)
{
	play->control = guest_connect(&play->h, AGENT_PORT_CONTROL);
	say_hello(play, AGENT_PROTOCOL_VERSION);
	await_run(play);
	say_exited(play, 0, 0);
	close(play->control);
	play->control = -1;
}

Test(session_hostile, exited_before_started_is_ignored)
{
	struct play p;
	play(&p, exited_before_started);
	expect_end(&p, 125, CLOSED);
}

static unsigned times_told;

static void on_times(void *data, const struct agent_times *times)
{
	(void)data, (void)times;
	times_told++;
}

static void times_unasked_short_and_often(struct play *play)
{
	const struct agent_times m = { .session = le32_make(0), .init = le64_make(UINT64_MAX) };
	begin(play);
	guest_send(play->control, AGENT_TIMES, &m, sizeof(m) - 1);
	guest_send(play->control, AGENT_TIMES, &m, sizeof(m));
	guest_send(play->control, AGENT_TIMES, &m, sizeof(m));
	shutdown(play->out, SHUT_RDWR);
	shutdown(play->err, SHUT_RDWR);
	say_exited(play, 0, 0);
}

Test(session_hostile, times_are_ignored_unless_asked_for)
{
	struct play p;
	play(&p, times_unasked_short_and_often);
	expect_end(&p, 0, "");
}

Test(session_hostile, times_are_taken_once_and_whole)
{
	struct play p;
	times_wanted = on_times;
	play(&p, times_unasked_short_and_often);
	expect_end(&p, 0, "");
	cr_expect_eq(times_told, 1);
}

static void exited_often(struct play *play)
{
	begin(play);
	say_started(play, 0);
	say_exited(play, 1, 0);
	say_exited(play, AGENT_SESSIONS_MAX, 0);
	say_exited(play, UINT32_MAX, 0);
	say_failed(play, 127, "not true", 8);
	say_exited(play, 0, 6 << 8);
	say_exited(play, 0, 7 << 8);
	say_started(play, 0);
	shutdown(play->out, SHUT_RDWR);
	shutdown(play->err, SHUT_RDWR);
}

Test(session_hostile, the_first_end_counts)
{
	struct play p;
	play(&p, exited_often);
	expect_end(&p, 6, "");
}

static uint32_t status_to_say;

static void say_status(struct play *play)
{
	begin(play);
	shutdown(play->out, SHUT_RDWR);
	shutdown(play->err, SHUT_RDWR);
	say_exited(play, 0, status_to_say);
}

Test(session_hostile, wait_statuses)
{
	const struct {
		uint32_t status;
		int exit_code;
	} cases[] = {
		{ 0, 0 },
		{ 0xff00, 255 },
		{ 64, 128 + 64 },
		{ 0x80 | 11, 128 + 11 },
		{ 15, 143 },
		/* stopped, continued, out of range, nonsense */
		{ 0x137f, 125 },
		{ 0xffff, 125 },
		{ 65, 125 },
		{ 0x80, 125 },
		{ 0x10000, 125 },
		{ 0x0101, 125 },
		{ UINT32_MAX, 125 },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct play p;
		status_to_say = cases[i].status;
		play(&p, say_status);
		cr_expect_eq(p.h.result.err.text[0] != '\0', cases[i].exit_code == 125);
		expect_end(&p, cases[i].exit_code, NULL);
	}
}

static const char *text_to_say;
static size_t length_to_say;
static uint32_t code_to_say;

static void say_failure(struct play *play)
{
	play->control = guest_connect(&play->h, AGENT_PORT_CONTROL);
	say_hello(play, AGENT_PROTOCOL_VERSION);
	await_run(play);
	say_failed(play, code_to_say, text_to_say, length_to_say);
}

Test(session_hostile, texts_of_failures)
{
	struct play p;
	text_to_say = "evil\n\033]0;title\007 \"x\" \\ '";
	length_to_say = strlen(text_to_say);
	code_to_say = 0;
	play(&p, say_failure);
	cr_expect_not(p.h.result.started);
	expect_end(&p, 125, "evil\\x0a\\x1b]0;title\\x07 \"x\" \\x5c \\x27");
	length_to_say = 0;
	code_to_say = 127;
	play(&p, say_failure);
	expect_end(&p, 127, "the command could not be started");
	static char much[8000];
	memset(much, '\1', sizeof(much));
	text_to_say = much;
	length_to_say = sizeof(much);
	code_to_say = 128 + 9;
	play(&p, say_failure);
	cr_expect_str_eq(p.h.result.err.text + strlen(p.h.result.err.text) - 3, "...");
	expect_end(&p, 125, NULL);
}

/* ---- streams ----------------------------------------------------------------------------------------------------------------- */

static void streams_never_end(struct play *play)
{
	begin(play);
	cr_assert(write(play->out, "some", 4) == 4);
	say_exited(play, 0, 0);
}

static double now_s(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

Test(session_hostile, streams_that_never_end_are_not_waited_for)
{
	struct play p;
	const double start = now_s();
	play(&p, streams_never_end);
	const double took = now_s() - start;
	cr_expect(took > 1 && took < 20, "it took %f s", took);
	cr_expect_str_eq(p.captured.bytes, "some");
	expect_end(&p, 0, "");
}

static void streams_never_connect(struct play *play)
{
	play->control = guest_connect(&play->h, AGENT_PORT_CONTROL);
	say_hello(play, AGENT_PROTOCOL_VERSION);
	await_run(play);
	say_started(play, 0);
	say_exited(play, 0, 1 << 8);
}

Test(session_hostile, streams_that_never_connect_are_not_waited_for)
{
	struct play p;
	const double start = now_s();
	play(&p, streams_never_connect);
	cr_expect(now_s() - start < 1.5);
	expect_end(&p, 1, "");
}

static void connect_too_much(struct play *play)
{
	begin(play);
	/* Twice; not asked for (stdin); no stream; no session; outside. */
	const uint32_t last = AGENT_SESSIONS_MAX - 1;
	const uint32_t ports[] = { AGENT_PORT_CONTROL,
				   agent_stream_port(0, AGENT_STDOUT),
				   agent_stream_port(0, AGENT_STDERR),
				   agent_stream_port(0, AGENT_STDIN),
				   agent_stream_port(0, AGENT_STDIN) + 3,
				   agent_stream_port(1, AGENT_STDOUT),
				   agent_stream_port(last, AGENT_STDERR),
				   agent_stream_port(last + 1, AGENT_STDIN),
				   AGENT_PORT_STREAMS - 1,
				   AGENT_PORT_CONTROL + 1,
				   0,
				   UINT32_MAX };
	for (size_t i = 0; i < sizeof(ports) / sizeof(ports[0]); i++) {
		const int fd = guest_try_connect(&play->h, ports[i]);
		cr_expect_eq(fd, -1, "port %u was accepted", ports[i]);
	}
	shutdown(play->out, SHUT_RDWR);
	shutdown(play->err, SHUT_RDWR);
	say_exited(play, 0, 0);
}

Test(session_hostile, only_expected_connections_are_accepted)
{
	struct play p;
	play(&p, connect_too_much);
	expect_end(&p, 0, "");
}

static void output_after_exited(struct play *play)
{
	char bytes[65536];
	memset(bytes, 'x', sizeof(bytes));
	begin(play);
	say_exited(play, 0, 0);
	/* Never ends by itself; the connection breaks when the machine is taken down. */
	while (send(play->out, bytes, sizeof(bytes), MSG_NOSIGNAL) > 0)
		;
}

/* Output that never ends, to a reader that is always ready: over after the grace time. */
Test(session_hostile, endless_output_after_exited)
{
	static const char *const argv[] = { "command", NULL };
	struct play p = { .script = output_after_exited, .control = -1, .out = -1, .err = -1 };
	struct session_spec spec = harness_spec(argv);
	spec.stdout_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
	harness_open(&p.h);
	harness_create(&p.h, &spec);
	pthread_create(&p.thread, NULL, play_run, &p);
	harness_wait(&p.h);
	cr_expect_eq(p.h.ended, 1u);
	harness_close(&p.h);
	pthread_join(p.thread, NULL);
	close(spec.stdout_fd);
}

/* ---- an agent that does not listen ------------------------------------------------------------------------------------------- */

static void deaf(struct play *play)
{
	begin(play);
	usleep(500000);
	shutdown(play->out, SHUT_RDWR);
	shutdown(play->err, SHUT_RDWR);
	say_exited(play, 0, 0);
}

Test(session_hostile, deaf_agent_costs_bounded_memory)
{
	static const char *const argv[] = { "command", NULL };
	struct play p = { .script = deaf, .control = -1, .out = -1, .err = -1 };
	struct session_spec spec = harness_spec(argv);
	spec.terminal = false;
	harness_open(&p.h);
	harness_create(&p.h, &spec);
	pthread_create(&p.thread, NULL, play_run, &p);
	/* Before it started they are remembered, each once. */
	for (int i = 0; i < 1000000; i++)
		session_signal(p.h.session, 1 + i % 64);
	harness_wait(&p.h);
	harness_close(&p.h);
	pthread_join(p.thread, NULL);
	cr_expect_eq(p.h.result.exit_code, 0);
}

Test(session_hostile, resizes_without_an_agent_are_bounded)
{
	static const char *const argv[] = { "command", NULL };
	struct harness h;
	struct session_spec spec = harness_spec(argv);
	spec.terminal = true;
	harness_open(&h);
	harness_create(&h, &spec);
	for (int i = 0; i < 2000000; i++)
		session_resize(h.session, (uint16_t)i, 80);
	harness_close(&h);
}

/* ---- the machine stops ------------------------------------------------------------------------------------------------------- */

static void stop_running(struct play *play)
{
	begin(play);
}

static void gone(void *data)
{
	struct play *play = data;
	session_guest_gone(play->h.session, "the guest reset itself");
}

static void *call_gone(void *data)
{
	struct play *play = data;
	usleep(300000);
	loop_call(play->h.loop, gone, play);
	return NULL;
}

Test(session_hostile, guest_that_stops)
{
	static const char *const argv[] = { "command", NULL };
	struct play p = { .script = stop_running, .control = -1, .out = -1, .err = -1 };
	struct session_spec spec = harness_spec(argv);
	pthread_t caller;
	struct error err;
	struct session *other;
	harness_open(&p.h);
	harness_create(&p.h, &spec);
	pthread_create(&p.thread, NULL, play_run, &p);
	pthread_create(&caller, NULL, call_gone, &p);
	harness_wait(&p.h);
	pthread_join(p.thread, NULL);
	/* loop_call() waits for a loop that runs. */
	pthread_join(caller, NULL);
	cr_expect_eq(p.h.result.exit_code, 125);
	cr_expect_str_eq(p.h.result.err.text, "the guest reset itself");
	cr_expect_eq(session_exec(p.h.session, &spec, NULL, NULL, &other, &err), -ESHUTDOWN);
	session_signal(p.h.session, SIGTERM);
	session_resize(p.h.session, 1, 1);
	session_guest_gone(p.h.session, "again");
	cr_expect_eq(p.h.ended, 1u);
	harness_close(&p.h);
}
