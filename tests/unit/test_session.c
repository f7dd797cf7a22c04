/*
 * Sessions from end to end without a machine: session.c, the agent's own program as a process, Unix sockets for vsock. What a user
 * of `trvmm COMMAND` sees.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/resource.h>
#include <unistd.h>

#include "guest/agent/protocol.h"
#include "tests/unit/session_harness.h"

TestSuite(session, .timeout = 60);

#define ARGV(...) ((const char *const[]){ __VA_ARGS__, NULL })

static void expect_spec(const struct session_spec *spec, const char *expected)
{
	char *line = run_and_show(spec);
	cr_expect_str_eq(line, expected);
	free(line);
}

static void expect(const char *const *argv, const char *expected)
{
	const struct session_spec spec = harness_spec(argv);
	expect_spec(&spec, expected);
}

static void expect_sh(const char *script, const char *expected)
{
	expect(ARGV("/bin/sh", "-c", script), expected);
}

/* ---- exit codes -------------------------------------------------------------------------------------------------------------- */

Test(session, exit_code_0)
{
	expect(ARGV("/bin/true"), "exit 0 out: err:");
}

Test(session, exit_code_is_the_commands_own)
{
	expect_sh("exit 7", "exit 7 out: err:");
	expect_sh("exit 255", "exit 255 out: err:");
}

Test(session, death_by_signal_is_128_plus_n)
{
	expect_sh("kill -TERM $$", "exit 143 out: err:");
	expect_sh("ulimit -c 0; kill -SEGV $$", "exit 139 out: err:");
}

Test(session, not_found_is_127)
{
	expect(ARGV("no-such-command"), "exit 127 out: err: said exec \"no-such-command\": not found in PATH");
	expect(ARGV("/no/such"), "exit 127 out: err: said exec \"/no/such\": No such file or directory");
	expect(ARGV(""), "exit 127 out: err: said exec \"\": not found in PATH");
}

Test(session, not_executable_is_126)
{
	expect(ARGV("/etc/passwd"), "exit 126 out: err: said exec \"/etc/passwd\": Permission denied");
	expect(ARGV("/"), "exit 126 out: err: said exec \"/\": Permission denied");
}

Test(session, hostile_command_name_is_escaped)
{
	expect(ARGV("a\033[2J'b"), "exit 127 out: err: said exec \"a\\x1b[2J\\x27b\": not found in PATH");
}

/* ---- streams ----------------------------------------------------------------------------------------------------------------- */

Test(session, streams_are_separate)
{
	expect_sh("echo to out; echo to err >&2; echo again", "exit 0 out:to out\nagain\n err:to err\n");
}

Test(session, a_megabyte_on_each_stream)
{
	struct harness h;
	struct capture out, err;
	capture_open(&out);
	capture_open(&err);
	struct session_spec spec = harness_spec(ARGV("/bin/sh", "-c", "head -c 1048576 /dev/zero | tr '\\0' o & "
								      "head -c 1048576 /dev/zero | tr '\\0' e >&2; wait"));
	spec.stdout_fd = out.write_fd;
	spec.stderr_fd = err.write_fd;
	harness_run(&h, &spec);
	harness_close(&h);
	capture_finish(&out);
	capture_finish(&err);
	cr_expect_eq(h.result.exit_code, 0);
	cr_assert_eq(out.length, 1048576);
	cr_assert_eq(err.length, 1048576);
	for (size_t i = 0; i < out.length; i++)
		cr_assert(out.bytes[i] == 'o' && err.bytes[i] == 'e');
	capture_free(&out);
	capture_free(&err);
}

Test(session, binary_goes_in_and_out_unchanged)
{
	const size_t length = 16 << 20;
	uint8_t *bytes = malloc(length);
	struct harness h;
	struct capture out;
	uint64_t random = 88172645463325252ull;
	for (size_t i = 0; i < length; i++) {
		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		bytes[i] = (uint8_t)random;
	}
	capture_open(&out);
	struct session_spec spec = harness_spec(ARGV("/bin/cat"));
	spec.stdin_fd = feed_open(bytes, length);
	spec.stdout_fd = out.write_fd;
	harness_run(&h, &spec);
	close(spec.stdin_fd);
	harness_close(&h);
	capture_finish(&out);
	cr_expect_eq(h.result.exit_code, 0);
	cr_assert_eq(out.length, length);
	cr_expect(!memcmp(out.bytes, bytes, length));
	capture_free(&out);
	free(bytes);
}

Test(session, end_of_stdin_arrives)
{
	struct session_spec spec = harness_spec(ARGV("/bin/sh", "-c", "cat; echo end"));
	spec.stdin_fd = feed_open("line\n", 5);
	expect_spec(&spec, "exit 0 out:line\nend\n err:");
	close(spec.stdin_fd);
}

Test(session, without_stdin_it_is_dev_null)
{
	expect(ARGV("readlink", "/proc/self/fd/0"), "exit 0 out:/dev/null\n err:");
}

Test(session, command_that_closes_stdin_early)
{
	static char much[1 << 20];
	struct session_spec spec = harness_spec(ARGV("/bin/sh", "-c", "exec 0<&-; echo closed"));
	spec.stdin_fd = feed_open(much, sizeof(much));
	expect_spec(&spec, "exit 0 out:closed\n err:");
	close(spec.stdin_fd);
}

Test(session, command_that_never_reads_stdin)
{
	static char much[1 << 20];
	struct session_spec spec = harness_spec(ARGV("/bin/sh", "-c", "sleep 0.2; echo fine"));
	spec.stdin_fd = feed_open(much, sizeof(much));
	expect_spec(&spec, "exit 0 out:fine\n err:");
	close(spec.stdin_fd);
}

Test(session, command_that_closes_stdout_goes_on)
{
	expect_sh("exec >&-; sleep 0.1; echo on >&2", "exit 0 out: err:on\n");
}

static void expect_lost(const char *script, bool stdout_is_full, const char *said)
{
	struct harness h;
	struct session_spec spec = harness_spec(ARGV("/bin/sh", "-c", script));
	const int full = open("/dev/full", O_WRONLY | O_CLOEXEC), null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	spec.stdout_fd = stdout_is_full ? full : null;
	spec.stderr_fd = stdout_is_full ? null : full;
	harness_run(&h, &spec);
	harness_close(&h);
	cr_expect_eq(h.result.exit_code, *said ? 125 : 0);
	cr_expect_str_eq(h.result.err.text, said);
	close(full);
	close(null);
}

Test(session, output_that_is_lost_is_told)
{
	expect_lost("echo lost; exit 0", true, "writing the command's standard output: No space left on device");
	expect_lost("echo lost >&2; exit 3", false, "writing the command's standard error: No space left on device");
	expect_lost("exit 0", true, "");
}

Test(session, background_process_with_stdout_is_not_waited_for)
{
	expect_sh("sleep 50 & echo main", "exit 0 out:main\n err:");
}

Test(session, stdout_can_be_opened_by_name)
{
	expect_sh("echo one >/dev/stdout; echo two >/dev/stderr", "exit 0 out:one\n err:two\n");
}

Test(session, broken_stdout_is_a_broken_pipe_in_the_guest)
{
	struct harness h;
	int ends[2];
	cr_assert(pipe2(ends, O_CLOEXEC) == 0);
	close(ends[0]);
	struct session_spec spec = harness_spec(ARGV("/usr/bin/yes"));
	spec.stdout_fd = ends[1];
	harness_run(&h, &spec);
	harness_close(&h);
	close(ends[1]);
	cr_expect_eq(h.result.exit_code, 128 + SIGPIPE);
}

/* The reader takes its time: nothing is lost, however long that is. */
Test(session, slow_reader_gets_all)
{
	struct harness h;
	int ends[2];
	cr_assert(pipe2(ends, O_CLOEXEC) == 0);
	struct session_spec spec = harness_spec(ARGV("/bin/sh", "-c", "head -c 3000000 /dev/zero"));
	spec.stdout_fd = ends[1];
	const pid_t reader = fork();
	if (reader == 0) {
		char buffer[65536];
		size_t total = 0;
		ssize_t n;
		close(ends[1]);
		sleep(3); /* longer than a lying agent is waited for */
		while ((n = read(ends[0], buffer, sizeof(buffer))) > 0)
			total += (size_t)n;
		_exit(total == 3000000 ? 0 : 1);
	}
	harness_run(&h, &spec);
	harness_close(&h);
	close(ends[1]);
	int status;
	waitpid(reader, &status, 0);
	close(ends[0]);
	cr_expect_eq(h.result.exit_code, 0);
	cr_expect_eq(status, 0);
}

/* A blocked stdout holds up neither stderr nor the control connection. */
Test(session, blocked_stdout_does_not_block_stderr)
{
	struct harness h;
	struct capture err;
	int ends[2];
	cr_assert(pipe2(ends, O_CLOEXEC) == 0);
	capture_open(&err);
	struct session_spec spec = harness_spec(ARGV("/bin/sh", "-c", "head -c 9000000 /dev/zero & sleep 0.3; echo ok >&2; "
								      "kill $!; wait $!; exec >&-; exit 5"));
	spec.stdout_fd = ends[1];
	spec.stderr_fd = err.write_fd;
	const pid_t reader = fork();
	if (reader == 0) {
		/* Reads stdout only after stderr's line was due. */
		char buffer[65536];
		close(ends[1]);
		sleep(1);
		while (read(ends[0], buffer, sizeof(buffer)) > 0)
			;
		_exit(0);
	}
	harness_run(&h, &spec);
	harness_close(&h);
	close(ends[0]);
	close(ends[1]);
	waitpid(reader, NULL, 0);
	capture_finish(&err);
	cr_expect_eq(h.result.exit_code, 5);
	cr_expect(strstr(err.bytes, "ok\n") != NULL);
	capture_free(&err);
}

/* ---- environment, folder, user ----------------------------------------------------------------------------------------------- */

Test(session, environment_is_exactly_what_was_given)
{
	struct session_spec spec = harness_spec(ARGV("/usr/bin/env"));
	spec.env = (const char *const[]){ "B=2", "HOME=/h", "A=with space", "EMPTY=", NULL };
	expect_spec(&spec, "exit 0 out:B=2\nHOME=/h\nA=with space\nEMPTY=\n err:");
}

Test(session, limits_and_tmpfs)
{
	char folder[] = "/tmp/trvmm-tmpfs-XXXXXX", script[128];
	cr_assert(mkdtemp(folder) != NULL);
	snprintf(script, sizeof(script), "ulimit -Sn; ulimit -Hn; cat tmpfs; rm -r %s", folder);
	struct session_spec spec = harness_spec(ARGV("/bin/sh", "-c", script));
	const struct session_limit limits[] = { { RLIMIT_NOFILE, 55, 66 } };
	const struct session_tmpfs tmpfs = { folder, "mode=755" };
	spec.limits = limits;
	spec.limit_count = 1;
	spec.tmpfs = &tmpfs;
	spec.tmpfs_count = 1;
	spec.workdir = folder;
	expect_spec(&spec, "exit 0 out:55\n66\nmode=755 err:");
}

Test(session, home_is_added_when_missing)
{
	struct session_spec spec = harness_spec(ARGV("/usr/bin/env"));
	spec.env = (const char *const[]){ "A=1", NULL };
	expect_spec(&spec, "exit 0 out:A=1\nHOME=/root\n err:");
	spec.env = NULL;
	expect_spec(&spec, "exit 0 out:HOME=/root\n err:");
}

Test(session, arguments_are_exactly_what_was_given)
{
	expect(ARGV("printf", "<%s>", "", "a b", "*", "\n", "\xff"), "exit 0 out:<><a b><*><\n><\xff> err:");
}

Test(session, path_is_that_of_the_commands_environment)
{
	char folder[] = "/tmp/trvmm-path-XXXXXX", path[64], env[96];
	cr_assert(mkdtemp(folder) != NULL);
	snprintf(path, sizeof(path), "%s/only-here", folder);
	FILE *file = fopen(path, "we");
	fputs("echo script without a first line: $1\n", file);
	fclose(file);
	snprintf(env, sizeof(env), "PATH=/nonexistent:%s:/bin", folder);
	struct session_spec spec = harness_spec(ARGV("only-here", "x"));
	spec.env = (const char *const[]){ env, NULL };
	/* Found but not executable, and nothing better later on. */
	expect_spec(&spec, "exit 126 out: err: said exec \"only-here\": Permission denied");
	chmod(path, 0755);
	expect_spec(&spec, "exit 0 out:script without a first line: x\n err:");
	unlink(path);
	rmdir(folder);
}

Test(session, missing_interpreter_is_told)
{
	char path[] = "/tmp/trvmm-script-XXXXXX", expected[256];
	const int fd = mkostemp(path, O_CLOEXEC);
	cr_assert(write(fd, "#!/no/such/sh\n", 14) == 14);
	fchmod(fd, 0755);
	close(fd);
	snprintf(expected, sizeof(expected),
		 "exit 127 out: err: said exec \"%s\": the file is there, but the interpreter or dynamic "
		 "loader that it names is not",
		 path);
	expect(ARGV(path), expected);
	unlink(path);
}

Test(session, working_directory_is_made)
{
	char folder[] = "/tmp/trvmm-workdir-XXXXXX", deep[64], expected[128];
	cr_assert(mkdtemp(folder) != NULL);
	snprintf(deep, sizeof(deep), "%s/a/b", folder);
	struct session_spec spec = harness_spec(ARGV("pwd"));
	spec.workdir = deep;
	snprintf(expected, sizeof(expected), "exit 0 out:%s\n err:", deep);
	expect_spec(&spec, expected);
	expect_spec(&spec, expected); /* now it is there */
	for (int i = 0; i < 3; i++) {
		rmdir(deep);
		*strrchr(deep, '/') = '\0';
	}
	spec.workdir = "/etc/passwd";
	expect_spec(&spec, "exit 125 out: err: said working directory \"/etc/passwd\": Not a directory");
}

Test(session, relative_command_is_found_in_the_working_directory)
{
	struct session_spec spec = harness_spec(ARGV("./sh", "-c", "echo here"));
	spec.workdir = "/bin";
	expect_spec(&spec, "exit 0 out:here\n err:");
}

Test(session, user_by_number)
{
	if (geteuid() != 0)
		cr_skip_test("needs root: it changes the user");
	struct session_spec spec = harness_spec(ARGV("/bin/sh", "-c", "id -u; id -g; id -G; echo x >/dev/stdout"));
	spec.user = "12345:23456";
	expect_spec(&spec, "exit 0 out:12345\n23456\n23456\nx\n err:");
}

Test(session, user_that_is_unknown)
{
	struct session_spec spec = harness_spec(ARGV("id"));
	spec.user = "no-such-user";
	expect_spec(&spec, "exit 125 out: err: said user \"no-such-user\": no such name in /etc/passwd");
	spec.user = "root:no-such-group";
	expect_spec(&spec, "exit 125 out: err: said group \"no-such-group\": no such name in /etc/group");
}

Test(session, signals_are_default_and_unblocked)
{
	/* Whoever runs the tests may ignore some, which would be inherited; process 1 of a guest inherits none. */
	for (int number = 1; number < 32; number++)
		if (number != SIGPIPE)
			signal(number, SIG_DFL);
	/* glibc keeps 32 and 33 to itself, and make leaves 32 ignored. The kernel's own structure: handler, flags, restorer, mask. */
	const unsigned long default_action[4] = { 0 };
	syscall(SYS_rt_sigaction, 32, default_action, NULL, 8);
	syscall(SYS_rt_sigaction, 33, default_action, NULL, 8);
	expect_sh("grep -E '^Sig(Blk|Ign)' /proc/self/status | tr -d '\\t\\n'",
		  "exit 0 out:SigBlk:0000000000000000SigIgn:0000000000000000 err:");
}

Test(session, descriptors_are_three_only)
{
	expect_sh("ls /proc/self/fd | tr '\\n' ' '", "exit 0 out:0 1 2 3  err:");
}

/* ---- limits of the request --------------------------------------------------------------------------------------------------- */

Test(session, request_that_is_too_long_is_refused)
{
	struct harness h;
	struct error err = { "" };
	harness_open(&h);
	char *long_argument = malloc(AGENT_BODY_MAX + 1);
	memset(long_argument, 'x', AGENT_BODY_MAX);
	long_argument[AGENT_BODY_MAX] = '\0';
	struct session_spec spec = harness_spec(ARGV("echo", long_argument));
	cr_expect_eq(session_create(h.loop, h.vsock, &spec, NULL, NULL, NULL, &h.session, &err), -E2BIG);
	cr_expect(strstr(err.text, "too long") != NULL);
	spec.argv = ARGV(NULL);
	cr_expect_eq(session_create(h.loop, h.vsock, &spec, NULL, NULL, NULL, &h.session, &err), -EINVAL);
	h.session = NULL;
	free(long_argument);
	harness_close(&h);
}

/* Linux takes 128 KiB for one argument; the rest of its limit goes into many. */
Test(session, request_of_a_megabyte)
{
	enum { COUNT = 12, EACH = 100000 };
	const char *argv[COUNT + 5] = { "/bin/sh", "-c", "for a; do printf '%s ' ${#a}; done", "sh" };
	char *argument = malloc(EACH + 1);
	memset(argument, 'y', EACH);
	argument[EACH] = '\0';
	for (int i = 0; i < COUNT; i++)
		argv[4 + i] = argument;
	expect(argv, "exit 0 out:100000 100000 100000 100000 100000 100000 100000 100000 100000 100000 100000 100000  err:");
	free(argument);
}

Test(session, argument_beyond_linux_limit_is_an_exec_failure)
{
	char *argument = malloc(200001);
	memset(argument, 'y', 200000);
	argument[200000] = '\0';
	expect(ARGV("/bin/echo", argument), "exit 126 out: err: said exec \"/bin/echo\": Argument list too long");
	free(argument);
}

/* ---- signals ----------------------------------------------------------------------------------------------------------------- */

Test(session, signal_before_the_start_is_remembered)
{
	struct harness h;
	const struct session_spec spec = harness_spec(ARGV("sleep", "50"));
	harness_open(&h);
	harness_create(&h, &spec);
	session_signal(h.session, SIGTERM);
	session_signal(h.session, 0);
	session_signal(h.session, 65);
	harness_spawn_agent(&h);
	harness_wait(&h);
	harness_close(&h);
	cr_expect_eq(h.result.exit_code, 128 + SIGTERM);
}

Test(session, keyboard_signals_go_to_the_group)
{
	struct harness h;
	/* A shell that waits for its child leaves SIGINT to it. */
	const struct session_spec spec = harness_spec(ARGV("/bin/bash", "-c", "sleep 50; exit 9"));
	harness_open(&h);
	harness_create(&h, &spec);
	session_signal(h.session, SIGINT);
	harness_spawn_agent(&h);
	harness_wait(&h);
	harness_close(&h);
	cr_expect_eq(h.result.exit_code, 128 + SIGINT);
}

/* ---- several sessions -------------------------------------------------------------------------------------------------------- */

struct many {
	struct harness *h;
	unsigned left;
	unsigned wrong;
};

struct one_of_many {
	struct many *many;
	struct session *session;
	struct capture out;
	int number;
};

static void one_ended(void *data, const struct session_result *result)
{
	struct one_of_many *one = data;
	if (result->exit_code != one->number % 200)
		one->many->wrong++;
	session_destroy(one->session);
	if (--one->many->left == 0)
		session_signal(one->many->h->session, SIGKILL);
}

Test(session, many_at_once)
{
	enum { COUNT = 100 };
	struct harness h;
	struct many many = { &h, COUNT, 0 };
	static struct one_of_many all[COUNT];
	const struct session_spec main_spec = harness_spec(ARGV("sleep", "50"));
	harness_open(&h);
	harness_create(&h, &main_spec);
	harness_spawn_agent(&h);
	for (int i = 0; i < COUNT; i++) {
		char script[64];
		struct error err;
		snprintf(script, sizeof(script), "sleep 0.1; echo %d; exit %d", i, i % 200);
		struct session_spec spec = harness_spec(ARGV("/bin/sh", "-c", script));
		all[i].many = &many;
		all[i].number = i;
		capture_open(&all[i].out);
		spec.stdout_fd = all[i].out.write_fd;
		cr_assert_eq(session_exec(h.session, &spec, one_ended, &all[i], &all[i].session, &err), 0);
	}
	harness_wait(&h);
	cr_expect_eq(h.result.exit_code, 128 + SIGKILL);
	harness_close(&h);
	cr_expect_eq(many.left, 0u);
	cr_expect_eq(many.wrong, 0u);
	for (int i = 0; i < COUNT; i++) {
		capture_finish(&all[i].out);
		cr_expect_eq(atoi(all[i].out.bytes), i);
		capture_free(&all[i].out);
	}
}

static void never_ended(void *data, const struct session_result *result)
{
	(void)data;
	(void)result;
	cr_assert_fail("a destroyed session ended");
}

/* What is destroyed while it runs is killed; its number is free only when the guest has said so. */
Test(session, destroyed_session_is_killed)
{
	struct harness h;
	struct many many = { &h, 1, 0 };
	struct one_of_many one = { .many = &many, .number = 4 };
	struct session *lost;
	struct error err;
	const struct session_spec main_spec = harness_spec(ARGV("sleep", "50")), spec = harness_spec(ARGV("sleep", "51"));
	const struct session_spec after = harness_spec(ARGV("/bin/sh", "-c", "sleep 0.5; pgrep -P $PPID -x sleep | wc -l; exit 4"));
	harness_open(&h);
	harness_create(&h, &main_spec);
	harness_spawn_agent(&h);
	cr_assert_eq(session_exec(h.session, &spec, never_ended, NULL, &lost, &err), 0);
	session_destroy(lost);
	struct session_spec with_out = after;
	capture_open(&one.out);
	with_out.stdout_fd = one.out.write_fd;
	cr_assert_eq(session_exec(h.session, &with_out, one_ended, &one, &one.session, &err), 0);
	harness_wait(&h);
	harness_close(&h);
	cr_expect_eq(many.wrong, 0u);
	capture_finish(&one.out);
	cr_expect_str_eq(one.out.bytes, "1\n"); /* the main one */
	capture_free(&one.out);
}

/* ---- terminal ---------------------------------------------------------------------------------------------------------------- */

/* Runs `script` on a pty of 33 x 77 with `input`; returns all its output. */
static char *run_terminal(const char *script, const char *input, int *exit_code)
{
	struct harness h;
	struct capture out;
	struct session_spec spec = harness_spec(ARGV("/bin/sh", "-c", script));
	capture_open(&out);
	spec.terminal = true;
	spec.rows = 33;
	spec.columns = 77;
	spec.stdin_fd = input ? feed_open_later(input, strlen(input), 300) : -1;
	spec.stdout_fd = out.write_fd;
	harness_run(&h, &spec);
	harness_close(&h);
	if (input)
		close(spec.stdin_fd);
	capture_finish(&out);
	*exit_code = h.result.exit_code;
	return out.bytes;
}

static void expect_terminal(const char *script, const char *input, const char *expected, int expected_code)
{
	int exit_code;
	char *bytes = run_terminal(script, input, &exit_code);
	cr_expect_str_eq(bytes, expected);
	cr_expect_eq(exit_code, expected_code);
	free(bytes);
}

Test(session, terminal_has_size_and_is_the_controlling_one)
{
	expect_terminal("stty size; test -t 0 && test -t 1 && test -t 2 && echo all; echo own >/dev/tty; exit 3", NULL,
			"33 77\r\nall\r\nown\r\n", 3);
}

Test(session, terminal_end_of_input)
{
	expect_terminal("stty -echo; echo ready; cat; echo end", "typed\n", "ready\r\ntyped\r\nend\r\n", 0);
}

Test(session, terminal_ctrl_c)
{
	expect_terminal("stty -echo; trap 'echo caught; exit 6' INT; echo go; sleep 50 & wait", "\003", "go\r\ncaught\r\n", 6);
}

Test(session, terminal_last_output_is_not_lost)
{
	for (int i = 0; i < 20; i++)
		expect_terminal("i=0; while [ $i -lt 300 ]; do echo xxxxxxxxxxxxxxxxx; i=$((i+1)); done >/dev/null; echo last",
				NULL, "last\r\n", 0);
}

Test(session, terminal_much_output)
{
	int exit_code;
	char *bytes = run_terminal("head -c 2000000 /dev/zero | tr '\\0' z", NULL, &exit_code);
	cr_expect_eq(strlen(bytes), 2000000u);
	cr_expect_eq(exit_code, 0);
	free(bytes);
}

Test(session, terminal_background_process_is_not_waited_for)
{
	expect_terminal("trap '' HUP; (sleep 40; sleep 41) & echo main", NULL, "main\r\n", 0);
}

Test(session, terminal_new_size_arrives)
{
	struct harness h;
	struct capture out;
	struct session_spec spec = harness_spec(ARGV("/bin/bash", "-c",
						     "while [ \"$(stty size)\" != '50 100' ]; do sleep 0.05; done; "
						     "echo resized"));
	capture_open(&out);
	spec.terminal = true;
	spec.stdout_fd = out.write_fd;
	harness_open(&h);
	harness_create(&h, &spec);
	session_resize(h.session, 50, 100);
	harness_spawn_agent(&h);
	harness_wait(&h);
	harness_close(&h);
	capture_finish(&out);
	cr_expect_str_eq(out.bytes, "resized\r\n");
	capture_free(&out);
}

/* ---- the agent's times ------------------------------------------------------------------------------------------------------- */

static struct agent_times told_times;
static unsigned times_told;

static void on_times(void *data, const struct agent_times *times)
{
	(void)data;
	told_times = *times;
	times_told++;
}

Test(session, times_come_once_and_in_order)
{
	struct session_spec spec = harness_spec(ARGV("/bin/true"));
	spec.times = on_times;
	expect_spec(&spec, "exit 0 out: err:");
	cr_expect_eq(times_told, 1);
	cr_expect(le64_get(told_times.init) > 0);
	cr_expect(le64_get(told_times.init) < le64_get(told_times.exec));
	cr_expect(le64_get(told_times.exec) < le64_get(told_times.exited));
}
