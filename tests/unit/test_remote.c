/*
 * remote_server.c and remote_exec.c: what named machines do for other processes, and what hostile clients get. The machine's own command
 * runs by the agent's program as a process; the clients are blocking sockets of a thread.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/unit/session_harness.h"
#include "vmm/remote_client.h"
#include "vmm/remote_server.h"

TestSuite(remote, .timeout = 60);

#define ARGV(...) ((const char *const[]){ __VA_ARGS__, NULL })

static struct {
	struct harness h;
	struct remote_server *server;
	struct sockaddr_un address;
	int listen_fd;
	int killed; /* the last signal of KILL */
	pthread_t thread;
} bed;

static void on_kill(void *data, int number)
{
	(void)data;
	bed.killed = number;
}

static void on_figures(void *data, struct remote_figures *figures)
{
	(void)data;
	figures->cpu_ns = le64_make(12345);
}

static void *run_loop(void *data)
{
	loop_run(data);
	return NULL;
}

static void open_bed(void)
{
	static const char *const env[] = { "PATH=/usr/bin:/bin", "HOME=/", "BASE=own", "BOTH=own", NULL };
	harness_open(&bed.h);
	struct session_spec spec = harness_spec(ARGV("/bin/sleep", "1000"));
	harness_create(&bed.h, &spec);
	harness_spawn_agent(&bed.h);
	bed.address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	snprintf(bed.address.sun_path, sizeof(bed.address.sun_path), "%s/control", bed.h.folder);
	bed.listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	cr_assert_eq(bind(bed.listen_fd, (const struct sockaddr *)&bed.address, sizeof(bed.address)), 0);
	cr_assert_eq(listen(bed.listen_fd, 64), 0);
	const struct remote_server_config config = { .listen_fd = bed.listen_fd,
						     .session = bed.h.session,
						     .env = env,
						     .workdir = "/tmp",
						     .kill = on_kill,
						     .figures = on_figures };
	cr_assert_eq(remote_server_create(bed.h.loop, &config, &bed.server), 0);
	cr_assert_eq(pthread_create(&bed.thread, NULL, run_loop, bed.h.loop), 0);
}

static void close_bed(void)
{
	loop_stop(bed.h.loop);
	pthread_join(bed.thread, NULL);
	remote_server_destroy(bed.server);
	close(bed.listen_fd);
	harness_close(&bed.h);
}

static int client_open(void)
{
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert_eq(connect(fd, (const struct sockaddr *)&bed.address, sizeof(bed.address)), 0);
	return fd;
}

/* The body of EXEC for `flags`; returns its length. */
static size_t exec_body(uint8_t *body, uint32_t flags, const char *workdir, const char *const *argv, const char *const *env)
{
	struct remote_exec head = { .flags = le32_make(flags) };
	uint32_t argc = 0, envc = 0;
	size_t length = sizeof(head);
	length += (size_t)sprintf((char *)body + length, "%s", workdir) + 1;
	length += (size_t)sprintf((char *)body + length, "%s", "") + 1;
	for (; argv[argc]; argc++)
		length += (size_t)sprintf((char *)body + length, "%s", argv[argc]) + 1;
	for (; env && env[envc]; envc++)
		length += (size_t)sprintf((char *)body + length, "%s", env[envc]) + 1;
	head.argc = le32_make(argc);
	head.envc = le32_make(envc);
	memcpy(body, &head, sizeof(head));
	return length;
}

/* Runs a command with stdout captured; returns the exit code, and what it wrote in `out` (of 4096 bytes). */
static int run_command(const char *workdir, const char *const *argv, const char *const *env, char *out)
{
	uint8_t body[4096];
	int ends[2];
	const int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
	const int fds[] = { ends[1], null };
	const int fd = client_open();
	cr_assert_eq(remote_send(fd, REMOTE_EXEC, body, exec_body(body, 0, workdir, argv, env), fds, 2), 0);
	close(ends[1]);
	close(null);
	struct remote_answer answer;
	struct error err = { "" };
	cr_assert_eq(remote_receive(fd, &answer, &err), 0, "%s", err.text);
	cr_assert_eq(answer.type, REMOTE_ENDED);
	size_t used = 0;
	for (ssize_t n; (n = read(ends[0], out + used, 4095 - used)) > 0;)
		used += (size_t)n;
	out[used] = '\0';
	close(ends[0]);
	close(fd);
	struct remote_ended ended;
	memcpy(&ended, answer.body, sizeof(ended));
	return (int)le32_get(ended.exit_code);
}

/* The machine still serves others. */
static void expect_alive(void)
{
	char out[4096];
	cr_expect_eq(run_command("", ARGV("sh", "-c", "echo alive; exit 3"), NULL, out), 3);
	cr_expect_str_eq(out, "alive\n");
}

/* The connection ends, whatever else is said before. */
static void expect_hang_up(int fd)
{
	char bytes[4096];
	ssize_t n;
	while ((n = read(fd, bytes, sizeof(bytes))) > 0)
		;
	cr_expect(n == 0 || errno == ECONNRESET);
	close(fd);
}

static void expect_refused(int fd, const char *text)
{
	struct remote_answer answer;
	struct error err = { "" };
	cr_expect_eq(remote_receive(fd, &answer, &err), -ECONNREFUSED);
	cr_expect(strstr(err.text, text), "%s", err.text);
	expect_hang_up(fd);
}

Test(remote, exec_runs_a_command)
{
	char out[4096];
	open_bed();
	cr_expect_eq(run_command("", ARGV("/bin/true"), NULL, out), 0);
	cr_expect_eq(run_command("", ARGV("sh", "-c", "pwd; echo $BASE $BOTH $MINE; exit 7"), ARGV("BOTH=mine", "MINE=a b"), out),
		     7);
	cr_expect_str_eq(out, "/tmp\nown mine a b\n");
	cr_expect_eq(run_command("/usr", ARGV("pwd"), NULL, out), 0);
	cr_expect_str_eq(out, "/usr\n");
	cr_expect_eq(run_command("", ARGV("no-such"), NULL, out), 127);
	cr_expect_eq(run_command("", ARGV("sh", "-c", "kill -TERM $$"), NULL, out), 143);
	close_bed();
}

Test(remote, stats_and_kill)
{
	struct remote_answer answer;
	struct remote_figures figures;
	struct error err = { "" };
	const struct remote_signal body = { le32_make(15) };
	open_bed();
	const int fd = client_open();
	cr_expect_eq(remote_ask(fd, REMOTE_STATS, NULL, 0, REMOTE_FIGURES, 10, &answer, &err), 0, "%s", err.text);
	cr_assert_eq(answer.length, sizeof(figures));
	memcpy(&figures, answer.body, sizeof(figures));
	cr_expect_eq(le64_get(figures.cpu_ns), 12345);
	cr_expect_eq(remote_ask(fd, REMOTE_KILL, &body, sizeof(body), REMOTE_DONE, 10, &answer, &err), 0, "%s", err.text);
	close(fd);
	expect_alive(); /* the loop has been there */
	cr_expect_eq(bed.killed, 15);
	close_bed();
}

/* A command that runs until it is killed, and says so. */
static int start_sleeper(int *out)
{
	uint8_t body[4096];
	char c;
	int ends[2];
	cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
	const int fds[] = { ends[1], ends[1] };
	const int fd = client_open();
	const size_t length =
	    exec_body(body, 0, "", ARGV("sh", "-c", "trap 'echo T; exit 5' TERM; echo r; while :; do sleep 0.05; done"), NULL);
	cr_assert_eq(remote_send(fd, REMOTE_EXEC, body, length, fds, 2), 0);
	close(ends[1]);
	cr_assert_eq(read(ends[0], &c, 1), 1);
	cr_assert_eq(c, 'r');
	*out = ends[0];
	return fd;
}

Test(remote, signals_reach_the_command)
{
	const struct remote_signal body = { le32_make(SIGTERM) };
	struct remote_answer answer;
	struct remote_ended ended;
	struct error err;
	int out;
	open_bed();
	const int fd = start_sleeper(&out);
	cr_assert_eq(remote_send(fd, REMOTE_SIGNAL, &body, sizeof(body), NULL, 0), 0);
	cr_assert_eq(remote_receive(fd, &answer, &err), 0);
	memcpy(&ended, answer.body, sizeof(ended));
	cr_expect_eq(le32_get(ended.exit_code), 5);
	close(out);
	close(fd);
	close_bed();
}

Test(remote, a_client_that_goes_away_takes_its_command_with_it)
{
	char bytes[16];
	int out;
	open_bed();
	const int fd = start_sleeper(&out);
	close(fd);
	/* The command was killed: its end of the pipe is closed, and it said nothing more. */
	cr_expect_eq(read(out, bytes, 1), 1); /* the newline after r */
	cr_expect_eq(read(out, bytes, sizeof(bytes)), 0);
	close(out);
	expect_alive();
	close_bed();
}

Test(remote, every_cut_of_a_request_is_harmless)
{
	uint8_t frame[512];
	const size_t length = exec_body(frame + sizeof(struct remote_header), 0, "", ARGV("/bin/true"), NULL);
	const struct remote_header header = { le32_make(REMOTE_MAGIC), le32_make(REMOTE_VERSION), le32_make(REMOTE_EXEC),
					      le32_make((uint32_t)length) };
	memcpy(frame, &header, sizeof(header));
	open_bed();
	for (size_t cut = 0; cut < sizeof(header) + length; cut++) {
		const int fd = client_open();
		if (cut)
			cr_assert_eq(write(fd, frame, cut), (ssize_t)cut);
		close(fd);
	}
	expect_alive();
	close_bed();
}

Test(remote, broken_frames_are_refused)
{
	const struct {
		uint32_t magic, version, type, length;
		const char *text;
	} cases[] = {
		{ 0x12345678, REMOTE_VERSION, REMOTE_STATS, 0, "not the protocol" },
		{ REMOTE_MAGIC, REMOTE_VERSION + 1, REMOTE_STATS, 0, "another version" },
		{ REMOTE_MAGIC, REMOTE_VERSION, REMOTE_STATS, 0xffffffff, "too long" },
		{ REMOTE_MAGIC, REMOTE_VERSION, REMOTE_EXEC, REMOTE_BODY_MAX + 1, "too long" },
		{ REMOTE_MAGIC, REMOTE_VERSION, REMOTE_EXEC, 0, "malformed EXEC" },
		{ REMOTE_MAGIC, REMOTE_VERSION, REMOTE_KILL, 0, "malformed KILL" },
		{ REMOTE_MAGIC, REMOTE_VERSION, REMOTE_SIGNAL, 0, "malformed SIGNAL" },
		{ REMOTE_MAGIC, REMOTE_VERSION, REMOTE_WINDOW, 0, "malformed WINDOW" },
		{ REMOTE_MAGIC, REMOTE_VERSION, 99, 0, "unknown request" },
	};
	open_bed();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct remote_header header = { le32_make(cases[i].magic), le32_make(cases[i].version),
						      le32_make(cases[i].type), le32_make(cases[i].length) };
		const int fd = client_open();
		cr_assert_eq(write(fd, &header, sizeof(header)), (ssize_t)sizeof(header));
		expect_refused(fd, cases[i].text);
	}
	expect_alive();
	close_bed();
}

/* EXEC bodies whose counts, strings or descriptors do not fit. */
Test(remote, lies_in_a_request_are_refused)
{
	const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	const int fds[] = { null, null, null };
	uint8_t body[512];
	struct remote_exec head;
	open_bed();
	for (unsigned i = 0; i < 8; i++) {
		size_t length = exec_body(body, 0, "", ARGV("/bin/true", "x"), i == 7 ? ARGV("no equals sign") : NULL);
		unsigned count = 2;
		memcpy(&head, body, sizeof(head));
		if (i == 0)
			head.argc = le32_make(0);
		else if (i == 1)
			head.argc = le32_make(3);
		else if (i == 2)
			head.argc = le32_make(1);
		else if (i == 3)
			head.argc = head.envc = le32_make(0xffffffff);
		else if (i == 4)
			length--;
		else if (i == 5)
			count = 3;
		else if (i == 6)
			count = 0;
		memcpy(body, &head, sizeof(head));
		const int fd = client_open();
		cr_assert_eq(remote_send(fd, REMOTE_EXEC, body, length, fds, count), 0);
		expect_refused(fd, "malformed EXEC");
	}
	close(null);
	expect_alive();
	close_bed();
}

static unsigned open_descriptors(void)
{
	unsigned count = 0;
	for (int fd = 0; fd < 2000; fd++)
		count += fcntl(fd, F_GETFD) >= 0;
	return count;
}

Test(remote, descriptors_that_nobody_asked_for_are_closed)
{
	open_bed();
	expect_alive();
	usleep(100000); /* the machine closes its end after we do */
	const unsigned before = open_descriptors();
	for (unsigned i = 0; i < 20; i++) {
		const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
		const int fds[] = { null, null, null };
		const int fd = client_open();
		struct error err;
		struct remote_answer answer;
		cr_assert_eq(remote_send(fd, REMOTE_STATS, NULL, 0, fds, 3), 0);
		cr_expect_eq(remote_receive(fd, &answer, &err), 0);
		/* Three more with each frame, and none at the end of a frame that does not come. */
		const struct remote_header header = { le32_make(REMOTE_MAGIC), le32_make(REMOTE_VERSION), le32_make(REMOTE_EXEC),
						      le32_make(100) };
		union {
			struct cmsghdr align;
			char bytes[CMSG_SPACE(3 * sizeof(int))];
		} ancillary;
		struct iovec iov = { (void *)(uintptr_t)&header, 8 };
		struct msghdr message = {
			.msg_iov = &iov, .msg_iovlen = 1, .msg_control = ancillary.bytes, .msg_controllen = sizeof(ancillary.bytes)
		};
		struct cmsghdr *c = CMSG_FIRSTHDR(&message);
		*c = (struct cmsghdr){ .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS, .cmsg_len = CMSG_LEN(3 * sizeof(int)) };
		memcpy(CMSG_DATA(c), fds, sizeof(fds));
		cr_expect_eq(sendmsg(fd, &message, MSG_NOSIGNAL), 8);
		if (i % 2) {
			sendmsg(fd, &message, MSG_NOSIGNAL);
			expect_refused(fd, "too many descriptors");
		} else {
			close(fd);
		}
		close(null);
	}
	expect_alive();
	for (unsigned i = 0; i < 200 && open_descriptors() != before; i++)
		usleep(10000);
	cr_expect_eq(open_descriptors(), before);
	close_bed();
}

Test(remote, a_client_that_asks_and_never_reads_is_dropped)
{
	const struct remote_header header = { le32_make(REMOTE_MAGIC), le32_make(REMOTE_VERSION), le32_make(REMOTE_STATS),
					      le32_make(0) };
	open_bed();
	const int fd = client_open();
	unsigned sent = 0;
	while (sent < 1000000 && send(fd, &header, sizeof(header), MSG_NOSIGNAL) == (ssize_t)sizeof(header))
		sent++;
	cr_expect(sent < 1000000);
	close(fd);
	expect_alive();
	close_bed();
}

Test(remote, silent_clients_do_not_keep_others_out)
{
	int fds[REMOTE_CLIENTS_MAX + 40];
	open_bed();
	for (unsigned i = 0; i < REMOTE_CLIENTS_MAX + 40; i++)
		fds[i] = client_open();
	expect_alive();
	/* The oldest had to go. */
	expect_refused(fds[0], "too many clients");
	for (unsigned i = 1; i < REMOTE_CLIENTS_MAX + 40; i++)
		close(fds[i]);
	expect_alive();
	close_bed();
}

Test(remote, a_flood_of_signals_holds_nobody_up)
{
	const struct remote_signal body = { le32_make(SIGUSR1) };
	int out;
	open_bed();
	const int fd = start_sleeper(&out);
	/* It dies of the first; the rest is for nobody. */
	for (unsigned i = 0; i < 20000 && remote_send(fd, REMOTE_SIGNAL, &body, sizeof(body), NULL, 0) == 0; i++)
		;
	expect_alive();
	close(fd);
	close(out);
	close_bed();
}

Test(remote, a_reader_that_stalls_holds_only_itself_up)
{
	uint8_t body[4096];
	int ends[2];
	const int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	open_bed();
	cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
	const int fds[] = { ends[1], null };
	const int fd = client_open();
	cr_assert_eq(remote_send(fd, REMOTE_EXEC, body, exec_body(body, 0, "", ARGV("sh", "-c", "yes"), NULL), fds, 2), 0);
	close(ends[1]);
	close(null);
	usleep(200000);
	expect_alive();
	expect_alive();
	close(fd);
	close(ends[0]);
	close_bed();
}

Test(remote, what_a_client_lacks_descriptors_for_does_not_spin_the_machine)
{
	struct rlimit before, few;
	struct rusage start, stop;
	int fds[300];
	unsigned count = 0;
	open_bed();
	expect_alive();
	cr_assert_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
	few = before;
	few.rlim_cur = open_descriptors() + 20;
	/* This process is client and machine at once: connections are made first, then there are no descriptors to accept them. */
	for (; count < 10; count++)
		fds[count] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	const int filler = open("/dev/null", O_RDONLY | O_CLOEXEC);
	cr_assert_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
	int fill[64];
	unsigned filled = 0;
	while (filled < 64 && (fill[filled] = dup(filler)) >= 0)
		filled++;
	for (unsigned i = 0; i < count; i++)
		cr_assert_eq(connect(fds[i], (const struct sockaddr *)&bed.address, sizeof(bed.address)), 0);
	getrusage(RUSAGE_SELF, &start);
	usleep(500000);
	getrusage(RUSAGE_SELF, &stop);
	const long used_us =
	    (stop.ru_utime.tv_sec - start.ru_utime.tv_sec + stop.ru_stime.tv_sec - start.ru_stime.tv_sec) * 1000000 +
	    stop.ru_utime.tv_usec - start.ru_utime.tv_usec + stop.ru_stime.tv_usec - start.ru_stime.tv_usec;
	cr_expect(used_us < 250000, "%ld us", used_us);
	for (unsigned i = 0; i < filled; i++)
		close(fill[i]);
	close(filler);
	setrlimit(RLIMIT_NOFILE, &before);
	for (unsigned i = 0; i < count; i++)
		close(fds[i]);
	expect_alive();
	close_bed();
}
