/*
 * `trvmm exec [OPTIONS] NAME COMMAND [ARG...]`: another command in a machine that runs; see vmm/remote.h.
 *
 * The machine gets descriptors for the command's streams: ours where these are files or pipes, so that no byte passes through this
 * process; where they are a terminal, a socket or another device, pipes that threads of ours fill and empty.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/cli/cli.h"
#include "vmm/cli/machines.h"
#include "vmm/reaper.h"
#include "vmm/remote_client.h"
#include "vmm/stdio.h"
#include "vmm/terminal.h"

enum { OPT_ENV_FILE = 256 };

#define EXIT_KILLED (128 + SIGKILL)

struct exec {
	bool interactive, terminal;
	const char *workdir, *user;
	struct options environment; /* owned: its env, and nothing else */
	char **command;
	const char *name;
	int fd; /* the connection */
	int signal_fd;
	int fds[REMOTE_DESCRIPTORS_MAX];
	unsigned fd_count;
	int done_fds[2]; /* of the threads that write; -1: none */
	unsigned interrupts;
};

/* ---- options ----------------------------------------------------------------------------------------------------------------- */

static const struct option_row options[] = {
	{ 'i', "interactive", NULL, "pass stdin to the command" },
	{ 't', "tty", NULL, "give it a terminal" },
	{ 'e', "env", "K=V", "a variable, over those of the machine's own command; K alone takes the caller's value; repeatable" },
	{ OPT_ENV_FILE, "env-file", "FILE", "such variables, one a line; those of --env come over them; repeatable" },
	{ 'w', "workdir", "DIR", "working directory (default: that of the machine's own command)" },
	{ 'u', "user", "USER[:GROUP]", "user, names or numbers (default: that of the machine's own command)" },
};
static const struct cli_command command = {
	.usage = "exec [OPTIONS] NAME COMMAND [ARG...]",
	.summary = "Run another command in a machine.",
	.options = options,
	.option_count = sizeof(options) / sizeof(options[0]),
	.stop_at_word = true,
};

static int parse(struct exec *exec, int argc, char **argv)
{
	struct error err = { "" };
	const char *value;
	int id;
	optind = 0;
	while ((id = cli_next_option(argc, argv, &command, &value)) != -1) {
		if (id == 0)
			return EXIT_TRVMM;
		exec->interactive |= id == 'i';
		exec->terminal |= id == 't';
		if (id == 'w')
			exec->workdir = value;
		if (id == 'u')
			exec->user = value;
		exec->environment.path_given |= id == 'e' && !strncmp(value, "PATH=", 5);
		if (id == 'e' && options_add_env(&exec->environment, value, &err) < 0)
			return cli_fail("exec", &err);
		if (id == OPT_ENV_FILE && options_add_env_file(&exec->environment, value, &err) < 0)
			return cli_fail("exec", &err);
	}
	if (options_merge_env_files(&exec->environment, &err) < 0)
		return cli_fail("exec", &err);
	if (optind + 2 > argc)
		return cli_usage(&command);
	exec->name = argv[optind];
	exec->command = argv + optind + 1;
	return 0;
}

/* ---- streams ----------------------------------------------------------------------------------------------------------------- */

/*
 * What the machine may hold itself: it cannot be confused by who else uses it, and is closed when the machine ends. A pipe is opened again
 * for it, so that it does not block.
 */
static bool may_be_shared(int fd)
{
	struct stat st;
	return fstat(fd, &st) == 0 && (S_ISREG(st.st_mode) || S_ISFIFO(st.st_mode) || (S_ISCHR(st.st_mode) && !isatty(fd)));
}

/* Makes the descriptor that the machine gets for our `fd`. */
static int add_stream(struct exec *exec, int fd, bool reading, int *done_fd, struct error *err)
{
	struct stdio_end end = { -1, -1, NULL };
	int result = 0;
	if (may_be_shared(fd))
		result = reading ? stdio_open_read(fd, &end) : stdio_open_write(fd, &end);
	else
		result = reading ? stdio_relay_read(fd, &end) : stdio_relay_write(fd, &end);
	if (result < 0)
		return error_set(err, result, "standard stream %d: %s", fd, strerror(-result));
	exec->fds[exec->fd_count++] = end.fd;
	if (done_fd)
		*done_fd = end.done_fd;
	return 0;
}

/* A terminal without -i: keys never come, and neither does their end. */
static int add_silence(struct exec *exec, struct error *err)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) < 0)
		return error_set(err, -errno, "pipe: %s", strerror(errno));
	exec->fds[exec->fd_count++] = ends[0];
	return 0; /* the other end stays open as long as we live */
}

static int open_streams(struct exec *exec, struct error *err)
{
	int result = 0;
	if (exec->interactive)
		result = add_stream(exec, STDIN_FILENO, true, NULL, err);
	else if (exec->terminal)
		result = add_silence(exec, err);
	if (result == 0)
		result = add_stream(exec, STDOUT_FILENO, false, &exec->done_fds[0], err);
	if (result == 0 && !exec->terminal)
		result = add_stream(exec, STDERR_FILENO, false, &exec->done_fds[1], err);
	return result;
}

/* They are the machine's now: who reads or writes at their other ends is to notice when it closes them. */
static void give_streams_away(struct exec *exec)
{
	for (unsigned i = 0; i < exec->fd_count; i++)
		close(exec->fds[i]);
	exec->fd_count = 0;
	const int null = exec->interactive && !exec->terminal ? open("/dev/null", O_RDONLY | O_CLOEXEC) : -1;
	if (null >= 0) {
		dup2(null, STDIN_FILENO);
		close(null);
	}
}

/* ---- the request ------------------------------------------------------------------------------------------------------------- */

static void window_size(uint16_t *rows, uint16_t *columns)
{
	*rows = *columns = 0;
	if (terminal_get_size(STDIN_FILENO, rows, columns) < 0)
		terminal_get_size(STDOUT_FILENO, rows, columns);
}

static int send_request(const struct exec *exec, struct error *err)
{
	struct remote_exec head = { .envc = le32_make((uint32_t)exec->environment.env_count) };
	uint16_t rows, columns;
	char *body = NULL;
	size_t length = 0;
	uint32_t argc = 0;
	FILE *stream = open_memstream(&body, &length);
	if (!stream)
		return error_set(err, -ENOMEM, "out of memory");
	while (exec->command[argc])
		argc++;
	window_size(&rows, &columns);
	head.flags =
	    le32_make((exec->interactive || exec->terminal ? REMOTE_EXEC_STDIN : 0) | (exec->terminal ? REMOTE_EXEC_TERMINAL : 0));
	head.rows = le16_make(rows);
	head.columns = le16_make(columns);
	head.argc = le32_make(argc);
	fwrite(&head, 1, sizeof(head), stream);
	fwrite(exec->workdir ? exec->workdir : "", 1, strlen(exec->workdir ? exec->workdir : "") + 1, stream);
	fwrite(exec->user ? exec->user : "", 1, strlen(exec->user ? exec->user : "") + 1, stream);
	for (uint32_t i = 0; i < argc; i++)
		fwrite(exec->command[i], 1, strlen(exec->command[i]) + 1, stream);
	for (size_t i = 0; i < exec->environment.env_count; i++)
		fwrite(exec->environment.env[i], 1, strlen(exec->environment.env[i]) + 1, stream);
	int result = fclose(stream) ? -ENOMEM : 0;
	if (result == 0 && length > REMOTE_BODY_MAX)
		result = -E2BIG;
	if (result == 0)
		result = remote_send(exec->fd, REMOTE_EXEC, body, length, exec->fds, exec->fd_count);
	free(body);
	/* Who hung up has said why: that is read next. */
	return result < 0 && result != -EPIPE ? error_set(err, result, "asking machine '%s': %s", exec->name, strerror(-result))
					      : 0;
}

/* ---- while it runs ----------------------------------------------------------------------------------------------------------- */

static int watch_signals(struct exec *exec, struct error *err)
{
	const int forwarded[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2 };
	sigset_t set;
	sigemptyset(&set);
	for (size_t i = 0; i < sizeof(forwarded) / sizeof(forwarded[0]); i++)
		sigaddset(&set, forwarded[i]);
	if (exec->terminal)
		sigaddset(&set, SIGWINCH);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	exec->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return exec->signal_fd < 0 ? error_set(err, -errno, "signalfd: %s", strerror(errno)) : 0;
}

/* Returns the exit code when that was a second interrupt: our end is the command's. Else -1. */
static int forward_signal(struct exec *exec)
{
	struct signalfd_siginfo info;
	if (read(exec->signal_fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return -1;
	const int number = (int)info.ssi_signo;
	if (number == SIGWINCH) {
		uint16_t rows, columns;
		window_size(&rows, &columns);
		const struct remote_window body = { le16_make(rows), le16_make(columns) };
		(void)remote_send(exec->fd, REMOTE_WINDOW, &body, sizeof(body), NULL, 0);
		return -1;
	}
	if ((number == SIGINT || number == SIGTERM) && ++exec->interrupts > 1)
		return 128 + number;
	const struct remote_signal body = { le32_make((uint32_t)number) };
	(void)remote_send(exec->fd, REMOTE_SIGNAL, &body, sizeof(body), NULL, 0);
	return -1;
}

/* What the threads still have is written; a second interrupt ends that, too. */
static void drain(struct exec *exec)
{
	for (unsigned i = 0; i < 2; i++) {
		struct pollfd p[2] = { { .fd = exec->done_fds[i] }, { .fd = exec->signal_fd, .events = POLLIN } };
		while (exec->done_fds[i] >= 0 && !p[0].revents) {
			if (poll(p, 2, -1) > 0 && p[1].revents && forward_signal(exec) >= 0)
				return;
		}
	}
}

static int read_answer(struct exec *exec)
{
	struct remote_answer answer;
	struct remote_ended ended;
	struct error err = { "" };
	const int result = remote_receive(exec->fd, &answer, &err);
	const bool is_end = result == 0 && answer.type == REMOTE_ENDED && answer.length >= sizeof(ended);
	drain(exec);
	terminal_restore();
	if (!is_end) {
		message("exec: '%s': %s", exec->name, result < 0 ? err.text : "the machine answers something else");
		return result == -ECONNRESET ? EXIT_KILLED : EXIT_TRVMM;
	}
	memcpy(&ended, answer.body, sizeof(ended));
	/* What the guest had to say in it is quoted already. */
	if (answer.length > sizeof(ended) && !error_set(&err, 0, "%s", (const char *)answer.body + sizeof(ended)))
		message("%s", err.text);
	return (int)(le32_get(ended.exit_code) & 0xff);
}

static int wait_for_end(struct exec *exec)
{
	for (;;) {
		struct pollfd p[2] = { { .fd = exec->fd, .events = POLLIN }, { .fd = exec->signal_fd, .events = POLLIN } };
		if (poll(p, 2, -1) < 0)
			continue;
		const int code = p[1].revents ? forward_signal(exec) : -1;
		if (code >= 0) {
			terminal_restore();
			return code;
		}
		if (p[0].revents)
			return read_answer(exec);
	}
}

static int run(struct exec *exec, struct error *err)
{
	struct registry_entry entry;
	int result = watch_signals(exec, err);
	if (result < 0)
		return result;
	exec->fd = remote_open(exec->name, &entry, err);
	if (exec->fd < 0)
		return exec->fd;
	registry_entry_close(&entry);
	result = open_streams(exec, err);
	if (result == 0)
		result = send_request(exec, err);
	if (result < 0)
		return result;
	give_streams_away(exec);
	if (exec->interactive && exec->terminal) {
		result = terminal_set_raw(STDIN_FILENO);
		if (result < 0)
			return error_set(err, result, "--tty: %s", strerror(-result));
		reaper_start();
	}
	return wait_for_end(exec);
}

int cli_exec(int argc, char **argv)
{
	struct exec exec = { .fd = -1, .signal_fd = -1, .done_fds = { -1, -1 } };
	struct error err = { "" };
	int code = parse(&exec, argc, argv);
	if (code == 0 && exec.interactive && exec.terminal && !isatty(STDIN_FILENO)) {
		error_set(&err, -ENOTTY, "--tty: stdin is no terminal");
		code = cli_fail("exec", &err);
	} else if (code == 0) {
		code = run(&exec, &err);
		if (code < 0)
			code = cli_fail("exec", &err);
	}
	options_destroy(&exec.environment);
	return code;
}
