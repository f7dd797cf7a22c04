/*
 * The agent's program against a host that is a script: hostile messages, order of messages and streams, flow control. And user.c on
 * files of its own.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest/agent/agent.h"
#include "tests/unit/session_harness.h"

TestSuite(agent, .timeout = 60);

/* ---- the script's means ------------------------------------------------------------------------------------------------------ */

struct host {
	struct harness h; /* folder, path and agent */
	int listener;
	int control;
	int streams[3]; /* of session 0 */
};

/* The agent's next connection; its port goes to `port`. */
static int host_accept(struct host *host, uint32_t *port)
{
	le32 preamble;
	const int fd = accept4(host->listener, NULL, NULL, SOCK_CLOEXEC);
	cr_assert(fd >= 0);
	cr_assert(recv(fd, &preamble, sizeof(preamble), MSG_WAITALL) == (ssize_t)sizeof(preamble));
	*port = le32_get(preamble);
	cr_assert(write(fd, "", 1) == 1);
	return fd;
}

/* Starts the agent and takes the connections it makes by itself, and its HELLO. */
static void host_open(struct host *host)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct agent_hello hello;
	uint32_t port, type;
	*host = (struct host){ .control = -1 };
	signal(SIGPIPE, SIG_IGN);
	strcpy(host->h.folder, "/tmp/trvmm-test-XXXXXX");
	cr_assert(mkdtemp(host->h.folder) != NULL);
	snprintf(host->h.path, sizeof(host->h.path), "%s/vsock", host->h.folder);
	strcpy(address.sun_path, host->h.path);
	host->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert(bind(host->listener, (const struct sockaddr *)&address, sizeof(address)) == 0);
	cr_assert(listen(host->listener, 4096) == 0);
	harness_spawn_agent(&host->h);
	host->control = host_accept(host, &port);
	cr_assert_eq(port, AGENT_PORT_CONTROL);
	for (int i = 0; i < 3; i++) {
		host->streams[i] = host_accept(host, &port);
		cr_assert_eq(port, agent_stream_port(0, (enum agent_stream)i));
	}
	cr_assert_eq(guest_receive(host->control, &type, &hello, sizeof(hello)), sizeof(hello));
	cr_assert_eq(type, (uint32_t)AGENT_HELLO);
	cr_assert_eq(le32_get(hello.version), (uint32_t)AGENT_PROTOCOL_VERSION);
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* Ends the agent, expecting that it goes as it should, with `last_words`. */
static void host_close(struct host *host, const char *last_words)
{
	char log[4096] = "", path[128], command[128];
	int status;
	close_fd(&host->control);
	for (int i = 0; i < 3; i++)
		close_fd(&host->streams[i]);
	cr_assert(waitpid(host->h.agent, &status, 0) == host->h.agent);
	close(host->listener);
	snprintf(path, sizeof(path), "%s/log", host->h.folder);
	FILE *file = fopen(path, "re");
	cr_assert(file != NULL);
	log[fread(log, 1, sizeof(log) - 1, file)] = '\0';
	fclose(file);
	cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 3, "status 0x%x: %s", (unsigned)status, log);
	cr_expect(strstr(log, last_words) != NULL, "no '%s' in: %s", last_words, log);
	snprintf(command, sizeof(command), "rm -rf %s", host->h.folder);
	cr_assert(system(command) == 0);
}

#define CLOSED "trvmm closed the control connection"

struct request {
	size_t length;
	uint8_t body[4096];
};

static struct request request_make(uint32_t session, uint32_t flags, const char *script)
{
	struct request r = { 0 };
	const struct agent_run run = { .session = le32_make(session), .flags = le32_make(flags), .argc = le32_make(3),
				       .envc = le32_make(1) };
	memcpy(r.body, &run, sizeof(run));
	r.length = sizeof(run) + 4; /* no host name, directory, user, init */
	const char *strings[] = { "/bin/sh", "-c", script, "PATH=/usr/bin:/bin" };
	for (size_t i = 0; i < 4; i++) {
		strcpy((char *)r.body + r.length, strings[i]);
		r.length += strlen(strings[i]) + 1;
	}
	return r;
}

static void send_run(struct host *host, uint32_t session, uint32_t flags, const char *script)
{
	const struct request r = request_make(session, flags, script);
	guest_send(host->control, AGENT_RUN, r.body, r.length);
}

/* The next message has to be of this type and session; returns its second field. */
static uint32_t expect_message(struct host *host, enum agent_type type, uint32_t session)
{
	struct {
		le32 session, value;
		uint8_t more[1024];
	} m;
	uint32_t got;
	const size_t length = guest_receive(host->control, &got, &m, sizeof(m));
	cr_assert_eq(got, (uint32_t)type, "message %u, not %d", got, type);
	cr_assert(length >= 8);
	cr_assert_eq(le32_get(m.session), session);
	return le32_get(m.value);
}

static size_t read_all(int fd, char *to, size_t size)
{
	size_t length = 0;
	ssize_t n;
	while ((n = read(fd, to + length, size - 1 - length)) > 0)
		length += (size_t)n;
	to[length] = '\0';
	return length;
}

/* ---- order ------------------------------------------------------------------------------------------------------------------- */

Test(agent, a_run_in_order)
{
	struct host host;
	char out[64];
	host_open(&host);
	send_run(&host, 0, 0, "echo text; exit 3");
	cr_expect(expect_message(&host, AGENT_STARTED, 0) > 1);
	cr_expect_eq(expect_message(&host, AGENT_EXITED, 0), 3u << 8);
	/* What was sent before EXITED is here by now, and its end, too. */
	fcntl(host.streams[1], F_SETFL, O_NONBLOCK);
	read_all(host.streams[1], out, sizeof(out));
	cr_expect_str_eq(out, "text\n");
	cr_expect_eq(read(host.streams[1], out, 1), 0);
	fcntl(host.streams[2], F_SETFL, O_NONBLOCK);
	cr_expect_eq(read(host.streams[2], out, 1), 0);
	host_close(&host, CLOSED);
}

Test(agent, exited_waits_for_a_slow_host)
{
	struct host host;
	struct pollfd p;
	static char much[4 << 20];
	host_open(&host);
	send_run(&host, 0, 0, "head -c 1000000 /dev/zero; sleep 0.1");
	expect_message(&host, AGENT_STARTED, 0);
	p = (struct pollfd){ .fd = host.control, .events = POLLIN };
	cr_expect_eq(poll(&p, 1, 700), 0); /* the command cannot even end */
	cr_expect_eq(read_all(host.streams[1], much, sizeof(much)), 1000000u);
	cr_expect_eq(expect_message(&host, AGENT_EXITED, 0), 0u);
	host_close(&host, CLOSED);
}

Test(agent, what_is_in_the_pipe_at_the_end_is_all_that_counts)
{
	struct host host;
	static char much[8 << 20];
	host_open(&host);
	/* A writer that goes on for ever; the session ends nevertheless. */
	send_run(&host, 0, 0, "yes & sleep 0.1; exit 4");
	expect_message(&host, AGENT_STARTED, 0);
	usleep(300000);
	const size_t length = read_all(host.streams[1], much, sizeof(much));
	cr_expect(length > 0 && length < sizeof(much) - 1);
	cr_expect_eq(expect_message(&host, AGENT_EXITED, 0), 4u << 8);
	host_close(&host, CLOSED);
}

/* ---- streams that the host refuses or closes --------------------------------------------------------------------------------- */

Test(agent, refused_stdout_is_a_broken_pipe)
{
	struct host host;
	host_open(&host);
	close_fd(&host.streams[1]);
	send_run(&host, 0, 0, "exec yes");
	expect_message(&host, AGENT_STARTED, 0);
	cr_expect_eq(expect_message(&host, AGENT_EXITED, 0), (uint32_t)SIGPIPE);
	host_close(&host, CLOSED);
}

Test(agent, stdout_closed_while_idle_is_a_broken_pipe)
{
	struct host host;
	host_open(&host);
	send_run(&host, 0, 0, "sleep 0.3; echo x || exit 8");
	expect_message(&host, AGENT_STARTED, 0);
	usleep(100000);
	close_fd(&host.streams[1]);
	cr_expect_eq(expect_message(&host, AGENT_EXITED, 0), (uint32_t)SIGPIPE);
	host_close(&host, CLOSED);
}

/* vsock connections whose reading side the host does not have are half closed from the start. */
Test(agent, half_closed_stdout_still_works)
{
	struct host host;
	char out[64];
	host_open(&host);
	shutdown(host.streams[1], SHUT_WR);
	shutdown(host.streams[2], SHUT_WR);
	send_run(&host, 0, 0, "sleep 0.1; echo x; sleep 0.1; echo y");
	expect_message(&host, AGENT_STARTED, 0);
	cr_expect_eq(expect_message(&host, AGENT_EXITED, 0), 0u);
	read_all(host.streams[1], out, sizeof(out));
	cr_expect_str_eq(out, "x\ny\n");
	host_close(&host, CLOSED);
}

Test(agent, refused_stdin_is_its_end)
{
	struct host host;
	host_open(&host);
	close_fd(&host.streams[0]);
	send_run(&host, 0, AGENT_RUN_STDIN, "cat; exit 5");
	expect_message(&host, AGENT_STARTED, 0);
	cr_expect_eq(expect_message(&host, AGENT_EXITED, 0), 5u << 8);
	host_close(&host, CLOSED);
}

Test(agent, closed_stdin_of_the_command_closes_the_connection)
{
	struct host host;
	char c;
	host_open(&host);
	send_run(&host, 0, AGENT_RUN_STDIN, "exec <&-; sleep 0.5");
	expect_message(&host, AGENT_STARTED, 0);
	cr_expect_eq(read(host.streams[0], &c, 1), 0); /* returns long before the command does */
	host_close(&host, CLOSED);
}

Test(agent, hung_up_terminal)
{
	struct host host;
	host_open(&host);
	send_run(&host, 0, AGENT_RUN_TERMINAL | AGENT_RUN_STDIN, "trap 'exit 9' HUP; echo on; while :; do sleep 0.05; done");
	expect_message(&host, AGENT_STARTED, 0);
	char c;
	cr_assert_eq(read(host.streams[0], &c, 1), 1);
	close_fd(&host.streams[0]);
	cr_expect_eq(expect_message(&host, AGENT_EXITED, 0), 9u << 8);
	host_close(&host, CLOSED);
}

/* ---- hostile messages -------------------------------------------------------------------------------------------------------- */

static void expect_malformed(const struct request *r)
{
	struct host host;
	host_open(&host);
	guest_send(host.control, AGENT_RUN, r->body, r->length);
	cr_expect_eq(expect_message(&host, AGENT_FAILED, 0), (uint32_t)EINVAL);
	/* It goes on. */
	send_run(&host, 0, 0, "exit 2");
	expect_message(&host, AGENT_STARTED, 0);
	cr_expect_eq(expect_message(&host, AGENT_EXITED, 0), 2u << 8);
	host_close(&host, CLOSED);
}

static void set_counts(struct request *r, uint32_t argc, uint32_t envc)
{
	struct agent_run run;
	memcpy(&run, r->body, sizeof(run));
	run.argc = le32_make(argc);
	run.envc = le32_make(envc);
	memcpy(r->body, &run, sizeof(run));
}

Test(agent, run_with_wrong_counts)
{
	const uint32_t counts[][2] = { { 0, 4 },
				       { 3, 0 },
				       { 3, 2 },
				       { 4, 1 },
				       { UINT32_MAX, 1 },
				       { 3, UINT32_MAX },
				       { UINT32_MAX, 5 },
				       { 1u << 31, 1u << 31 },
				       { AGENT_STRINGS_MAX, 1 },
				       { AGENT_STRINGS_MAX, 0 } };
	for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		struct request r = request_make(0, 0, "exit 1");
		set_counts(&r, counts[i][0], counts[i][1]);
		expect_malformed(&r);
	}
}

/* A request with limits behind its struct and tmpfs at its end. */
static struct request request_make_more(const struct agent_limit *limits, uint32_t limit_count, const char *tmpfs, size_t tmpfs_bytes,
					uint32_t tmpfs_count, const char *script)
{
	struct request r = request_make(0, 0, script);
	struct agent_run run;
	memcpy(&run, r.body, sizeof(run));
	run.limit_count = le32_make(limit_count);
	run.tmpfs_count = le32_make(tmpfs_count);
	const size_t limit_bytes = limits ? limit_count * sizeof(*limits) : 0;
	memmove(r.body + sizeof(run) + limit_bytes, r.body + sizeof(run), r.length - sizeof(run));
	memcpy(r.body, &run, sizeof(run));
	if (limits)
		memcpy(r.body + sizeof(run), limits, limit_bytes);
	memcpy(r.body + r.length + limit_bytes, tmpfs, tmpfs_bytes);
	r.length += limit_bytes + tmpfs_bytes;
	return r;
}

static struct agent_limit limit_make(uint32_t resource, uint64_t soft, uint64_t hard)
{
	return (struct agent_limit){ .resource = le32_make(resource), .soft = le64_make(soft), .hard = le64_make(hard) };
}

Test(agent, limits_and_tmpfs)
{
	struct host host;
	char out[256], folder[] = "/tmp/trvmm-tmpfs-XXXXXX", tmpfs[128], script[256];
	cr_assert(mkdtemp(folder));
	const size_t bytes = (size_t)sprintf(tmpfs, "%s/a/b%csize=1%c", folder, 0, 0);
	sprintf(script, "ulimit -Sn; ulimit -Hn; ulimit -c; cat %s/a/b/tmpfs; rm -r %s", folder, folder);
	const struct agent_limit limits[] = { limit_make(RLIMIT_NOFILE, 77, 88), limit_make(RLIMIT_CORE, 0, 0) };
	const struct request r = request_make_more(limits, 2, tmpfs, bytes, 1, script);
	host_open(&host);
	guest_send(host.control, AGENT_RUN, r.body, r.length);
	expect_message(&host, AGENT_STARTED, 0);
	cr_expect_eq(expect_message(&host, AGENT_EXITED, 0), 0u);
	read_all(host.streams[1], out, sizeof(out));
	cr_expect_str_eq(out, "77\n88\n0\nsize=1");
	host_close(&host, CLOSED);
}

static void expect_refused(const struct request *r, int error)
{
	struct host host;
	host_open(&host);
	guest_send(host.control, AGENT_RUN, r->body, r->length);
	cr_expect_eq(expect_message(&host, AGENT_FAILED, 0), (uint32_t)error);
	host_close(&host, CLOSED);
}

Test(agent, limits_and_tmpfs_that_cannot_be)
{
	const struct agent_limit unknown = limit_make(99, 1, 1), negative = limit_make(UINT32_MAX, 1, 1),
				 crossed = limit_make(RLIMIT_NOFILE, 2, 1);
	static const char below_a_file[] = "/dev/null/x\0";
	const struct request requests[] = { request_make_more(&unknown, 1, "", 0, 0, "exit 1"),
					    request_make_more(&negative, 1, "", 0, 0, "exit 1"),
					    request_make_more(&crossed, 1, "", 0, 0, "exit 1") };
	for (size_t i = 0; i < 3; i++)
		expect_refused(&requests[i], EINVAL);
	const struct request tmpfs = request_make_more(NULL, 0, below_a_file, sizeof(below_a_file), 1, "exit 1");
	expect_refused(&tmpfs, ENOTDIR);
}

Test(agent, run_with_wrong_counts_of_limits_and_tmpfs)
{
	struct agent_limit limits[AGENT_LIMITS_MAX + 1];
	char tmpfs[2 * (AGENT_TMPFS_MAX + 1)] = "";
	for (size_t i = 0; i <= AGENT_LIMITS_MAX; i++)
		limits[i] = limit_make(RLIMIT_CORE, 0, 0);
	struct request bad[] = {
		request_make_more(limits, AGENT_LIMITS_MAX + 1, "", 0, 0, "exit 1"),
		request_make_more(NULL, 1, "", 0, 0, "exit 1"), /* eats strings */
		request_make_more(NULL, AGENT_LIMITS_MAX, "", 0, 0, "exit 1"), /* longer than the message */
		request_make_more(NULL, UINT32_MAX, "", 0, 0, "exit 1"),
		request_make_more(NULL, 0, tmpfs, sizeof(tmpfs), AGENT_TMPFS_MAX + 1, "exit 1"),
		request_make_more(NULL, 0, tmpfs, 2, 2, "exit 1"),
		request_make_more(NULL, 0, tmpfs, 1, 1, "exit 1"),
		request_make_more(NULL, 0, tmpfs, 4, 1, "exit 1"),
		request_make_more(NULL, 0, "", 0, UINT32_MAX, "exit 1"),
		request_make_more(NULL, 0, "/tmp/x\0y", 8, 1, "exit 1"), /* without the last 0 */
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		expect_malformed(&bad[i]);
}

/*
 * A request that has `bytes` behind all strings: those of `count` shares, of which the first is read-only, and it and the second have
 * their files mapped, behind `tmpfs_count` tmpfs.
 */
static struct request request_make_shares(uint32_t tmpfs_count, uint32_t count, const char *mounts, size_t bytes, const char *script)
{
	struct request r = request_make_more(NULL, 0, mounts, bytes, tmpfs_count, script);
	struct agent_run run;
	memcpy(&run, r.body, sizeof(run));
	run.share_count = le32_make(count);
	run.read_only_shares = le32_make(1);
	run.dax_shares = le32_make(3);
	memcpy(r.body, &run, sizeof(run));
	return r;
}

/* What they have mapped of shares is on the host then. */
Test(agent, the_end_ends_other_processes_when_it_is_asked_to)
{
	for (unsigned asked = 0; asked < 2; asked++) {
		struct host host;
		char out[64];
		host_open(&host);
		send_run(&host, 0, asked ? AGENT_RUN_END_OTHERS : 0,
			 "(sleep 60 & echo $!; sleep 60) >&2 & sleep 60 >/dev/null & echo $!");
		expect_message(&host, AGENT_STARTED, 0);
		cr_expect_eq(expect_message(&host, AGENT_EXITED, 0), 0u);
		read_all(host.streams[1], out, sizeof(out));
		const int pid = atoi(out);
		cr_assert_gt(pid, 1);
		cr_expect_eq(kill(pid, 0) == 0, !asked);
		if (!asked)
			kill(pid, SIGKILL);
		host_close(&host, CLOSED);
	}
}

Test(agent, shares)
{
	struct host host;
	char out[256], folder[] = "/tmp/trvmm-share-XXXXXX", mounts[512], script[256];
	cr_assert(mkdtemp(folder));
	/* A folder, one below a tmpfs that is made before it, and a file. */
	const size_t bytes =
		(size_t)sprintf(mounts, "%s/d/t%csize=1%ctag-0%c%s/d%c%ctag-1%c%s/d/t/s%c%ctag-2%c%s/new/f%cname%c", folder, 0, 0, 0,
				folder, 0, 0, 0, folder, 0, 0, 0, folder, 0, 0);
	sprintf(script, "cd %s; cat d/share; echo; cat d/t/tmpfs; echo; cat d/t/s/share; echo; cat new/f; rm -r %s", folder, folder);
	const struct request r = request_make_shares(1, 3, mounts, bytes, script);
	host_open(&host);
	guest_send(host.control, AGENT_RUN, r.body, r.length);
	expect_message(&host, AGENT_STARTED, 0);
	cr_expect_eq(expect_message(&host, AGENT_EXITED, 0), 0u);
	read_all(host.streams[1], out, sizeof(out));
	cr_expect_str_eq(out, "tag-0 ro,dax\nsize=1\ntag-1 rw,dax\ntag-2 name rw");
	host_close(&host, CLOSED);
}

#define SHARE(TAG, PLACE, FILE) TAG "\0" PLACE "\0" FILE
Test(agent, shares_that_cannot_be)
{
	static const struct {
		const char *mount;
		size_t bytes;
		int error;
	} cases[] = {
		{ SHARE("t", "/etc/passwd", ""), sizeof(SHARE("t", "/etc/passwd", "")), ENOTDIR },
		{ SHARE("t", "/etc", "file"), sizeof(SHARE("t", "/etc", "file")), EISDIR },
		{ SHARE("t", "/dev/null/x", ""), sizeof(SHARE("t", "/dev/null/x", "")), ENOTDIR },
		{ SHARE("t", "/dev/null/x", "f"), sizeof(SHARE("t", "/dev/null/x", "f")), ENOTDIR },
		{ SHARE("no-kernel", "/tmp", ""), sizeof(SHARE("no-kernel", "/tmp", "")), ENODEV },
		{ SHARE("no-dax", "/tmp", ""), sizeof(SHARE("no-dax", "/tmp", "")), EINVAL },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct request r = request_make_shares(0, 1, cases[i].mount, cases[i].bytes, "exit 1");
		expect_refused(&r, cases[i].error);
	}
	unlink("/tmp/share");
}

Test(agent, run_with_wrong_counts_of_shares)
{
	char many[3 * (AGENT_SHARES_MAX + 1)] = "";
	struct request bad[] = {
		request_make_shares(0, 1, "", 0, "exit 1"),
		request_make_shares(0, 1, "t\0/x", 5, "exit 1"), /* two strings */
		request_make_shares(0, 1, "t\0/x\0f", 6, "exit 1"), /* without the last 0 */
		request_make_shares(0, 1, "t\0/x\0f\0g", 9, "exit 1"),
		request_make_shares(0, AGENT_SHARES_MAX + 1, many, sizeof(many), "exit 1"),
		request_make_shares(0, UINT32_MAX, "", 0, "exit 1"),
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		expect_malformed(&bad[i]);
}

Test(agent, tmpfs_belongs_to_session_0)
{
	struct host host;
	struct request r = request_make_more(NULL, 0, "/tmp/x\0", 8, 1, "exit 1");
	const le32 session = le32_make(1);
	memcpy(r.body, &session, sizeof(session));
	host_open(&host);
	guest_send(host.control, AGENT_RUN, r.body, r.length);
	cr_expect_eq(expect_message(&host, AGENT_FAILED, 1), (uint32_t)EINVAL);
	host_close(&host, CLOSED);
}

Test(agent, run_with_unterminated_or_extra_strings)
{
	const struct request whole = request_make(0, 0, "exit 1");
	const size_t lengths[] = { sizeof(struct agent_run), sizeof(struct agent_run) + 2, sizeof(struct agent_run) + 3, whole.length - 1,
				   whole.length + 1 };
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		struct request r = whole;
		r.length = lengths[i];
		expect_malformed(&r);
	}
}

Test(agent, run_that_is_too_short_ends_the_machine)
{
	struct host host;
	host_open(&host);
	guest_send(host.control, AGENT_RUN, "1234", 4);
	host_close(&host, "a RUN message is too short");
}

Test(agent, bad_session_numbers_end_the_machine)
{
	const uint32_t numbers[] = { AGENT_SESSIONS_MAX, UINT32_MAX, 0 /* runs already */ };
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		struct host host;
		uint32_t type;
		char body[64];
		host_open(&host);
		send_run(&host, 0, 0, "sleep 20");
		expect_message(&host, AGENT_STARTED, 0);
		send_run(&host, numbers[i], 0, "exit 1");
		/* Its end is ours. */
		guest_receive(host.control, &type, body, sizeof(body));
		cr_expect_eq(type, 0u);
		host_close(&host, "a RUN message has a bad session number");
	}
}

Test(agent, message_that_is_too_long_ends_the_machine)
{
	const uint32_t lengths[] = { AGENT_BODY_MAX + 1, UINT32_MAX };
	for (size_t i = 0; i < 2; i++) {
		struct host host;
		const struct agent_header header = { le32_make(AGENT_RUN), le32_make(lengths[i]) };
		host_open(&host);
		cr_assert(write(host.control, &header, sizeof(header)) == (ssize_t)sizeof(header));
		host_close(&host, "a message is too long");
	}
}

Test(agent, messages_that_mean_nothing_are_ignored)
{
	struct host host;
	static uint8_t much[AGENT_BODY_MAX];
	host_open(&host);
	guest_send(host.control, (enum agent_type)1000, much, sizeof(much));
	guest_send(host.control, AGENT_EXITED, much, 8);
	guest_send(host.control, AGENT_SIGNAL, much, 7);
	guest_send(host.control, AGENT_SIGNAL, much, 9);
	guest_send(host.control, AGENT_WINDOW, much, 0);
	const uint32_t sessions[] = { 0, 1, AGENT_SESSIONS_MAX, UINT32_MAX };
	const uint32_t signals[] = { 0, 9, 65, UINT32_MAX, 1u << 31 };
	for (size_t i = 0; i < 4; i++) {
		const struct agent_window w = { le32_make(sessions[i]), le16_make(1), le16_make(1) };
		guest_send(host.control, AGENT_WINDOW, &w, sizeof(w));
		for (size_t k = 0; k < 5; k++) {
			const struct agent_signal s = { le32_make(sessions[i]), le32_make(signals[k]) };
			guest_send(host.control, AGENT_SIGNAL, &s, sizeof(s));
		}
	}
	send_run(&host, 0, 0, "sleep 0.2; exit 6");
	expect_message(&host, AGENT_STARTED, 0);
	for (size_t k = 0; k < 5; k++) {
		const struct agent_signal s = { le32_make(0), le32_make(signals[k]) };
		if (signals[k] != 9)
			guest_send(host.control, AGENT_SIGNAL, &s, sizeof(s));
	}
	cr_expect_eq(expect_message(&host, AGENT_EXITED, 0), 6u << 8);
	host_close(&host, CLOSED);
}

Test(agent, messages_in_pieces_and_together)
{
	struct host host;
	uint8_t bytes[8192];
	size_t length = 0;
	host_open(&host);
	for (uint32_t session = 0; session < 3; session++) {
		const struct request r = request_make(session, 0, "sleep 0.3; exit 1");
		const struct agent_header header = { le32_make(AGENT_RUN), le32_make((uint32_t)r.length) };
		memcpy(bytes + length, &header, sizeof(header));
		memcpy(bytes + length + sizeof(header), r.body, r.length);
		length += sizeof(header) + r.length;
	}
	for (size_t i = 0; i < 40; i++) {
		cr_assert(write(host.control, bytes + i, 1) == 1);
		usleep(500);
	}
	cr_assert(write(host.control, bytes + 40, length - 40) == (ssize_t)(length - 40));
	int others[4];
	for (uint32_t i = 0; i < 4; i++) {
		uint32_t port;
		others[i] = host_accept(&host, &port);
		cr_expect_eq(port, agent_stream_port(1 + i / 2, i % 2 ? AGENT_STDERR : AGENT_STDOUT));
	}
	for (uint32_t session = 0; session < 3; session++)
		expect_message(&host, AGENT_STARTED, session);
	for (int i = 0; i < 4; i++)
		close(others[i]);
	host_close(&host, CLOSED);
}

static void *send_failing_runs(void *data)
{
	struct host *host = data;
	struct request r = request_make(5, 0, "exit 1");
	set_counts(&r, 0, 0);
	for (int i = 0; i < 20000; i++)
		guest_send(host->control, AGENT_RUN, r.body, r.length);
	return NULL;
}

/* A host that does not fetch answers is not listened to; nothing is lost when it does. */
Test(agent, flood_of_requests)
{
	struct host host;
	pthread_t sender;
	host_open(&host);
	pthread_create(&sender, NULL, send_failing_runs, &host);
	usleep(500000);
	for (int i = 0; i < 20000; i++)
		expect_message(&host, AGENT_FAILED, 5);
	pthread_join(sender, NULL);
	host_close(&host, CLOSED);
}

Test(agent, host_that_goes_ends_the_machine_and_its_commands)
{
	struct host host;
	host_open(&host);
	send_run(&host, 0, 0, "exec sleep 40");
	const uint32_t pid = expect_message(&host, AGENT_STARTED, 0);
	host_close(&host, CLOSED);
	usleep(50000);
	/* Gone, or at least dead: its new parent may not have noticed yet. */
	char path[64], line[16];
	snprintf(path, sizeof(path), "/proc/%u/cmdline", pid);
	FILE *file = fopen(path, "re");
	cr_expect(!file || fread(line, 1, sizeof(line), file) == 0);
	if (file)
		fclose(file);
}

Test(agent, session_numbers_can_be_used_again)
{
	struct host host;
	host_open(&host);
	for (int i = 0; i < 30; i++) {
		uint32_t port;
		send_run(&host, 0, 0, "echo again");
		if (i) {
			for (int k = 1; k < 3; k++) {
				close_fd(&host.streams[k]);
				host.streams[k] = host_accept(&host, &port);
				cr_assert_eq(port, agent_stream_port(0, (enum agent_stream)k));
			}
		}
		expect_message(&host, AGENT_STARTED, 0);
		char out[64];
		read_all(host.streams[1], out, sizeof(out));
		cr_expect_str_eq(out, "again\n");
		expect_message(&host, AGENT_EXITED, 0);
	}
	host_close(&host, CLOSED);
}

Test(agent, orphans_are_reaped)
{
	struct host host;
	char path[64], children[256] = "";
	host_open(&host);
	send_run(&host, 0, 0, "for i in 1 2 3 4 5; do (sleep 0.1 &) ; done; sleep 0.4; exec sleep 30");
	const uint32_t pid = expect_message(&host, AGENT_STARTED, 0);
	usleep(700000);
	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", host.h.agent, host.h.agent);
	FILE *file = fopen(path, "re");
	if (!file)
		cr_skip_test("the kernel has no /proc/PID/task/TID/children");
	cr_assert(fgets(children, sizeof(children), file) != NULL);
	fclose(file);
	cr_expect_eq((uint32_t)atoi(children), pid);
	cr_expect(strchr(children, ' ')[1] == '\0', "children: %s", children);
	host_close(&host, CLOSED);
}

/* ---- process 1, processes ---------------------------------------------------------------------------------------------------- */

static struct request with_init(struct request r, const char *path)
{
	uint8_t *init = r.body + sizeof(struct agent_run) + 3;
	const size_t length = strlen(path);
	memmove(init + length, init, (size_t)(r.body + r.length - init));
	memcpy(init, path, length);
	r.length += length;
	return r;
}

/* The process that was the agent runs `script`, until what the agent says at its end is in the log. */
static void write_init(const struct host *host, const char *script, char path[128])
{
	snprintf(path, 128, "%s/init", host->h.folder);
	FILE *file = fopen(path, "we");
	cr_assert(file && fchmod(fileno(file), 0755) == 0);
	fprintf(file, "#!/bin/sh\ncd %s\n%s\nuntil grep -q closed log; do sleep 0.05; done\nexit 3\n", host->h.folder, script);
	fclose(file);
}

Test(agent, the_images_init_becomes_process_1)
{
	struct host host;
	char path[128], script[256], out[256], wanted[64];
	host_open(&host);
	write_init(&host, "echo $$ $# $(grep -c 'SigBlk:.0000000000000000' /proc/self/status) >told", path);
	/* Who has no parent any more is process 1's. */
	snprintf(script, sizeof(script),
		 "while [ ! -s %s/told ]; do sleep 0.05; done; cat %s/told; "
		 "(sh -c 'sleep 0.3; ps -o ppid= -p $$ | tr -d \" \"' &); sleep 1",
		 host.h.folder, host.h.folder);
	const struct request r = with_init(request_make(0, 0, script), path);
	guest_send(host.control, AGENT_RUN, r.body, r.length);
	const uint32_t pid = expect_message(&host, AGENT_STARTED, 0);
	cr_expect_neq(pid, (uint32_t)host.h.agent);
	cr_expect_eq(expect_message(&host, AGENT_EXITED, 0), 0u);
	read_all(host.streams[1], out, sizeof(out));
	snprintf(wanted, sizeof(wanted), "%d 0 1\n%d\n", host.h.agent, host.h.agent);
	cr_expect_str_eq(out, wanted);
	/* All goes on as before. */
	send_run(&host, 0, AGENT_RUN_STDIN, "exit 4");
	for (int i = 0; i < 3; i++) {
		uint32_t port;
		close_fd(&host.streams[i]);
		host.streams[i] = host_accept(&host, &port);
	}
	expect_message(&host, AGENT_STARTED, 0);
	cr_expect_eq(expect_message(&host, AGENT_EXITED, 0), 4u << 8);
	host_close(&host, CLOSED);
}

/* Process 1 waits for the machine's end, which is that of the host here. */
static void expect_no_init(const char *path, int error)
{
	struct host host;
	int status;
	const struct request r = with_init(request_make(0, 0, "exit 1"), path);
	host_open(&host);
	guest_send(host.control, AGENT_RUN, r.body, r.length);
	cr_expect_eq(expect_message(&host, AGENT_FAILED, 0), (uint32_t)error);
	kill(host.h.agent, SIGKILL);
	cr_assert(waitpid(host.h.agent, &status, 0) == host.h.agent);
	close_fd(&host.control);
	for (int i = 0; i < 3; i++)
		close_fd(&host.streams[i]);
	close(host.listener);
}

Test(agent, an_init_that_cannot_be)
{
	expect_no_init("/nonexistent/init", ENOENT);
	expect_no_init("/etc/passwd", EACCES);
}

Test(agent, init_and_a_limit_of_processes_belong_to_session_0)
{
	const le32 session = le32_make(1);
	struct request requests[] = { with_init(request_make(1, 0, "exit 1"), "/sbin/init"), request_make(1, 0, "exit 1") };
	memcpy(requests[1].body + offsetof(struct agent_run, pids_max), &session, sizeof(session));
	for (size_t i = 0; i < 2; i++) {
		struct host host;
		host_open(&host);
		guest_send(host.control, AGENT_RUN, requests[i].body, requests[i].length);
		cr_expect_eq(expect_message(&host, AGENT_FAILED, 1), (uint32_t)EINVAL);
		host_close(&host, CLOSED);
	}
}

static struct request with_pids(struct request r, uint32_t max)
{
	const le32 value = le32_make(max);
	memcpy(r.body + offsetof(struct agent_run, pids_max), &value, sizeof(value));
	return r;
}

Test(agent, a_limit_of_processes)
{
	struct host host;
	char folder[] = "/tmp/trvmm-cgroup-XXXXXX", command[256], out[256];
	cr_assert(mkdtemp(folder));
	snprintf(command, sizeof(command), "cd %s && mkdir trvmm && touch cgroup.subtree_control trvmm/pids.max trvmm/cgroup.procs",
		 folder);
	cr_assert(system(command) == 0);
	setenv("TEST_CGROUP", folder, 1);
	snprintf(command, sizeof(command), "cd %s && cat */pids.max && cat cgroup.subtree_control */cgroup.procs; rm -r %s", folder,
		 folder);
	const struct request r = with_pids(request_make(0, 0, command), 12);
	host_open(&host);
	guest_send(host.control, AGENT_RUN, r.body, r.length);
	expect_message(&host, AGENT_STARTED, 0);
	cr_expect_eq(expect_message(&host, AGENT_EXITED, 0), 0u);
	read_all(host.streams[1], out, sizeof(out));
	cr_expect_str_eq(out, "12+pids0");
	host_close(&host, CLOSED);
	/* The folder has gone: as with a kernel that has no such controller. */
	const struct request again = with_pids(request_make(0, 0, "exit 1"), 12);
	expect_refused(&again, ENOENT);
	unsetenv("TEST_CGROUP");
}

/* ---- users ------------------------------------------------------------------------------------------------------------------- */

struct files {
	char passwd[64], group[64];
};

static void write_file(char *path, const char *contents, size_t length)
{
	strcpy(path, "/tmp/trvmm-users-XXXXXX");
	const int fd = mkostemp(path, O_CLOEXEC);
	cr_assert(write(fd, contents, length) == (ssize_t)length);
	close(fd);
}

/* Resolves and shows as "UID:GID groups A,B home H", or the reason. */
static const char *resolve(const struct files *files, const char *spec)
{
	static char line[1024];
	static struct user user;
	struct text why = { 0 };
	const int result = user_resolve(spec, files->passwd, files->group, &user, &why);
	if (result < 0) {
		snprintf(line, sizeof(line), "%d %.*s", result, (int)why.length, why.bytes);
		return line;
	}
	int n = snprintf(line, sizeof(line), "%u:%u groups", user.uid, user.gid);
	for (unsigned i = 0; i < user.group_count; i++)
		n += snprintf(line + n, sizeof(line) - (size_t)n, " %u", user.groups[i]);
	snprintf(line + n, sizeof(line) - (size_t)n, " home %s", user.home);
	return line;
}

static const char passwd[] = "root:x:0:0:root:/root:/bin/sh\n"
			     "# comment\n\n:::\nbad:x:abc:1::/:\nshort:x:7\n"
			     "alice:x:1000:1001:Alice:/home/alice:/bin/sh\n"
			     "42:x:43:44::/odd:/bin/sh\n"
			     "huge:x:4294967295:0::/:/bin/sh\n"
			     "last:x:99:98::/last:/bin/sh";
static const char group[] = "root:x:0:\nwheel:x:10:root,alice\nusers:x:100:alicex,xalice\nnot:x:x:alice\naudio:x:29:bob,alice\n"
			    "lonely:x:30:alice\nfew:x\n77:x:78:";

Test(agent, users)
{
	struct files f;
	write_file(f.passwd, passwd, sizeof(passwd) - 1);
	write_file(f.group, group, sizeof(group) - 1);
	cr_expect_str_eq(resolve(&f, "alice"), "1000:1001 groups 10 29 30 home /home/alice");
	cr_expect_str_eq(resolve(&f, "1000"), "1000:1001 groups 10 29 30 home /home/alice");
	cr_expect_str_eq(resolve(&f, "root"), "0:0 groups 10 home /root");
	cr_expect_str_eq(resolve(&f, "last"), "99:98 groups home /last");
	/* A group that is named is the only one. */
	cr_expect_str_eq(resolve(&f, "alice:wheel"), "1000:10 groups home /home/alice");
	cr_expect_str_eq(resolve(&f, "alice:5555"), "1000:5555 groups home /home/alice");
	cr_expect_str_eq(resolve(&f, "alice:"), "1000:1001 groups 10 29 30 home /home/alice");
	cr_expect_str_eq(resolve(&f, ":wheel"), "0:10 groups home /root");
	/* Numbers need not be in the files, and are numbers first. */
	cr_expect_str_eq(resolve(&f, "5000"), "5000:0 groups home ");
	cr_expect_str_eq(resolve(&f, "5000:6000"), "5000:6000 groups home ");
	cr_expect_str_eq(resolve(&f, "42"), "42:0 groups home ");
	cr_expect_str_eq(resolve(&f, "0:77"), "0:77 groups home /root");
	/* What is no user. */
	cr_expect_str_eq(resolve(&f, "bob"), "-2 user \"bob\": no such name in /etc/passwd");
	cr_expect_str_eq(resolve(&f, "alice:nobody"), "-2 group \"nobody\": no such name in /etc/group");
	cr_expect_str_eq(resolve(&f, "bad"), "-2 user \"bad\": no such name in /etc/passwd");
	cr_expect_str_eq(resolve(&f, "short"), "-2 user \"short\": no such name in /etc/passwd");
	cr_expect_str_eq(resolve(&f, "huge"), "-2 user \"huge\": no such name in /etc/passwd");
	cr_expect_str_eq(resolve(&f, "4294967295"), "-2 user \"4294967295\": no such name in /etc/passwd");
	cr_expect_str_eq(resolve(&f, "-1"), "-2 user \"-1\": no such name in /etc/passwd");
	cr_expect_str_eq(resolve(&f, "0x0"), "-2 user \"0x0\": no such name in /etc/passwd");
	cr_expect_str_eq(resolve(&f, "99999999999999999999"), "-2 user \"99999999999999999999\": no such name in /etc/passwd");
	char long_name[600];
	memset(long_name, 'n', sizeof(long_name) - 1);
	long_name[sizeof(long_name) - 1] = '\0';
	cr_expect(strncmp(resolve(&f, long_name), "-22 user", 8) == 0);
	unlink(f.passwd);
	unlink(f.group);
	/* Without files there are numbers only. */
	cr_expect_str_eq(resolve(&f, "1000:2"), "1000:2 groups home ");
	cr_expect_str_eq(resolve(&f, "0"), "0:0 groups home ");
	cr_expect_str_eq(resolve(&f, "root"), "-2 user \"root\": no such name in /etc/passwd");
}

Test(agent, user_files_that_are_strange)
{
	enum { SIZE = 100000 };
	struct files f;
	char *much = malloc(SIZE + 200);
	/* A line that is longer than the buffer is skipped, and what follows is found. */
	memset(much, 'a', SIZE);
	strcpy(much + SIZE, "\nafter:x:5:6::/after:\n");
	write_file(f.passwd, much, strlen(much));
	/* More memberships than are allowed. */
	size_t length = 0;
	for (int i = 0; i < USER_GROUPS_MAX + 1; i++)
		length += (size_t)sprintf(much + length, "g%d:x:%d:after\n", i, i);
	write_file(f.group, much, length);
	cr_expect_str_eq(resolve(&f, "after:g7"), "5:7 groups home /after");
	cr_expect_str_eq(resolve(&f, "after"), "-7 user \"after\": is a member of too many groups");
	unlink(f.group);
	/* One line without an end, zeroes, a folder. */
	memset(much, 0, SIZE);
	write_file(f.group, much, SIZE);
	cr_expect_str_eq(resolve(&f, "after"), "5:6 groups home /after");
	unlink(f.group);
	unlink(f.passwd);
	strcpy(f.passwd, "/");
	strcpy(f.group, "/dev/null");
	cr_expect_str_eq(resolve(&f, "7"), "7:0 groups home ");
	cr_expect_str_eq(resolve(&f, "x"), "-2 user \"x\": no such name in /etc/passwd");
	free(much);
}

/* ---- TCP for the host's clients ---------------------------------------------------------------------------------------------- */

/* Starts an agent that listens at AGENT_PORT_PROXY; its command lives as long. */
static void proxy_open(struct host *host)
{
	host_open(host);
	send_run(host, 0, AGENT_RUN_PROXY, "exec sleep 1000");
	expect_message(host, AGENT_STARTED, 0);
}

static int proxy_connect(const struct host *host, const char *line)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s_%u", host->h.path, AGENT_PORT_PROXY);
	cr_assert(connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0);
	cr_assert(send(fd, line, strlen(line), MSG_NOSIGNAL) == (ssize_t)strlen(line));
	return fd;
}

/* A TCP server of this machine; the line that asks for it goes to `line`. */
static int server_open(char line[32])
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(address);
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert(bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 4096) == 0);
	cr_assert(getsockname(fd, (struct sockaddr *)&address, &length) == 0);
	snprintf(line, 32, "CONNECT %u\n", ntohs(address.sin_port));
	return fd;
}

static void expect_text(int fd, const char *text)
{
	char got[64] = "";
	cr_assert(recv(fd, got, strlen(text), MSG_WAITALL) == (ssize_t)strlen(text));
	cr_assert_str_eq(got, text);
}

static int server_accept(int server, int client, const char *line)
{
	char ok[32];
	const int fd = accept4(server, NULL, NULL, SOCK_CLOEXEC);
	cr_assert(fd >= 0);
	snprintf(ok, sizeof(ok), "OK %s", line + strlen("CONNECT "));
	expect_text(client, ok);
	return fd;
}

static bool is_closed(int fd)
{
	char byte;
	return recv(fd, &byte, 1, 0) <= 0; /* a Unix socket tells that not all was read */
}

Test(agent, proxy_listens_only_when_asked)
{
	struct host host;
	char path[160];
	host_open(&host);
	send_run(&host, 0, 0, "exec sleep 1000");
	expect_message(&host, AGENT_STARTED, 0);
	snprintf(path, sizeof(path), "%s_%u", host.h.path, AGENT_PORT_PROXY);
	cr_expect(access(path, F_OK) < 0);
	host_close(&host, CLOSED);
}

Test(agent, proxy_keeps_half_close)
{
	struct host host;
	char line[32];
	const int server = server_open(line);
	proxy_open(&host);
	for (int order = 0; order < 2; order++) {
		const int client = proxy_connect(&host, line), peer = server_accept(server, client, line);
		const int first = order ? client : peer, second = order ? peer : client;
		cr_assert(write(first, "one", 3) == 3);
		shutdown(first, SHUT_WR);
		expect_text(second, "one");
		cr_assert(is_closed(second));
		cr_assert(write(second, "two", 3) == 3);
		expect_text(first, "two");
		shutdown(second, SHUT_WR);
		cr_assert(is_closed(first));
		close(client);
		close(peer);
	}
	close(server);
	host_close(&host, CLOSED);
}

/* A server whose client broke off must not take what it got for all: a close with no half close before is how vsock says it. */
Test(agent, proxy_passes_resets_on)
{
	const struct linger none = { .l_onoff = 1 };
	struct host host;
	char line[32], byte;
	const int server = server_open(line);
	proxy_open(&host);
	int client = proxy_connect(&host, line), peer = server_accept(server, client, line);
	struct pollfd p = { .fd = client, .events = POLLIN };
	cr_assert(write(client, "half", 4) == 4 && write(peer, "unread", 6) == 6);
	expect_text(peer, "half");
	cr_assert(poll(&p, 1, 5000) == 1);
	close(client);
	cr_expect(recv(peer, &byte, 1, 0) == -1 && errno == ECONNRESET);
	close(peer);

	for (int i = 0; i < 20; i++) { /* it must never see an end before the reset */
		client = proxy_connect(&host, line);
		peer = server_accept(server, client, line);
		cr_assert(write(client, "half", 4) == 4);
		close(client);
		expect_text(peer, "half");
		cr_expect(recv(peer, &byte, 1, 0) == -1 && errno == ECONNRESET);
		close(peer);
	}

	client = proxy_connect(&host, line);
	peer = server_accept(server, client, line);
	cr_assert(write(peer, "half", 4) == 4);
	expect_text(client, "half");
	setsockopt(peer, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
	close(peer);
	cr_expect(is_closed(client));
	cr_expect(send(client, "x", 1, MSG_NOSIGNAL) == -1, "it is no half close");
	close(client);
	close(server);
	host_close(&host, CLOSED);
}

Test(agent, proxy_refuses_what_is_no_line)
{
	static const char *const lines[] = { "\n", "CONNECT\n", "CONNECT \n", "CONNECT 0\n", "CONNECT 65536\n", "CONNECT -1\n",
					     "CONNECT 80x\n", "connect 80\n", "CONNECT 99999999999999999999", "CONNECT 4294967376\n",
					     "CONNECT 80\nearly", "GET / HTTP/1.0\r\n" };
	struct host host;
	char line[32];
	proxy_open(&host);
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		const int client = proxy_connect(&host, lines[i]);
		cr_expect(is_closed(client), "%s", lines[i]);
		close(client);
	}
	close(server_open(line)); /* nobody is there any more */
	const int client = proxy_connect(&host, line);
	cr_expect(is_closed(client));
	close(client);
	host_close(&host, CLOSED);
}

/* A line may come in pieces, and clients that say nothing are in nobody's way. */
Test(agent, proxy_takes_many_at_once)
{
	enum { COUNT = 300 };
	static int clients[COUNT], peers[COUNT], silent[COUNT];
	struct host host;
	char line[32];
	const int server = server_open(line);
	proxy_open(&host);
	for (int i = 0; i < COUNT; i++) {
		silent[i] = proxy_connect(&host, "CONN");
		clients[i] = proxy_connect(&host, "CONNECT");
		cr_assert(write(clients[i], line + 7, strlen(line + 7)) > 0);
		peers[i] = server_accept(server, clients[i], line);
	}
	for (int i = 0; i < COUNT; i++)
		cr_assert(write(clients[i], &i, sizeof(i)) == sizeof(i));
	for (int i = COUNT; i-- > 0;) {
		int got;
		cr_assert(recv(peers[i], &got, sizeof(got), MSG_WAITALL) == sizeof(got));
		cr_assert_eq(got, i);
		close(peers[i]);
		cr_assert(is_closed(clients[i]));
		close(clients[i]);
		close(silent[i]);
	}
	close(server);
	host_close(&host, CLOSED);
}

/* One that does not read stops its own connection only, and all arrives in the end. */
Test(agent, proxy_keeps_back_pressure)
{
	static uint8_t chunk[65536];
	struct host host;
	char line[32];
	size_t sent = 0, received = 0;
	const int server = server_open(line);
	proxy_open(&host);
	const int client = proxy_connect(&host, line), peer = server_accept(server, client, line);
	struct pollfd p = { .fd = client, .events = POLLOUT };
	while (poll(&p, 1, 300) == 1) {
		const ssize_t n = send(client, chunk, sizeof(chunk), MSG_DONTWAIT | MSG_NOSIGNAL);
		sent += n > 0 ? (size_t)n : 0;
		cr_assert(sent < 64u << 20, "nothing stops the writer");
	}
	const int other = proxy_connect(&host, line), other_peer = server_accept(server, other, line);
	cr_assert(write(other, "through", 7) == 7);
	expect_text(other_peer, "through");
	shutdown(client, SHUT_WR);
	for (ssize_t n; (n = recv(peer, chunk, sizeof(chunk), 0)) > 0;)
		received += (size_t)n;
	cr_expect_eq(sent, received);
	close(client);
	close(peer);
	close(other);
	close(other_peer);
	close(server);
	host_close(&host, CLOSED);
}
