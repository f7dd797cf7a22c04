/*
 * The image's own init as process 1, beside the agent: `trvmm --init`.
 *
 * Process 1 cannot be handed over: it becomes the init by exec, and the agent goes on, with all its connections, in a child that it forked
 * before. Commands stay the agent's children; what they leave behind when they end becomes the init's, which reaps it.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "guest/agent/agent.h"

#define ENV_MAX 62

extern char **environ;

/* What the kernel gave process 1 (HOME, TERM, its own unknown words), and a PATH. */
static char **init_env(void)
{
	static char path[] = "PATH=" PATH_DEFAULT;
	static char *env[ENV_MAX + 2];
	unsigned count = 0;
	while (count < ENV_MAX && environ[count]) {
		env[count] = environ[count];
		count++;
	}
	env[count] = path;
	return env;
}

/* In process 1. The init gets what the kernel would have given it. */
static _Noreturn void become(char *path, int report_fd)
{
	const struct rlimit files = { NOFILE_SOFT, NOFILE_HARD };
	char *argv[] = { path, NULL };
	sigset_t none;
	sigemptyset(&none);
	platform_schedule(false);
	setrlimit(RLIMIT_NOFILE, &files);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execve(path, argv, init_env());
	const int error = errno;
	/* The machine ends when the host has heard of it. */
	(void)!write(report_fd, &error, sizeof(error));
	for (;;)
		pause();
}

/* Returns when process 1 runs the init's program. */
static int wait_for_exec(int report_fd)
{
	int error = 0;
	ssize_t n;
	do {
		n = read(report_fd, &error, sizeof(error));
	} while (n < 0 && errno == EINTR);
	return n == 0 ? 0 : -error;
}

int init_start(char *path, struct text *why)
{
	int report[2], result = 0;
	text_add(why, "init \"");
	text_add(why, path);
	text_add(why, "\"");
	pid_t pid = -1;
	if (pipe2(report, O_CLOEXEC) == 0)
		pid = (pid_t)syscall(SYS_fork); /* one thread, no stdio: nothing that fork() would put in order */
	if (pid < 0) {
		text_add_error(why, errno);
		return -errno;
	}
	if (pid > 0)
		become(path, report[1]);
	close(report[1]);
	main_go_on_as_child();
	result = wait_for_exec(report[0]);
	close(report[0]);
	if (result == -ENOENT)
		text_add(why, " is not in the image, or its interpreter is not; orphans are reaped without --init, too");
	else if (result < 0)
		text_add_error(why, -result);
	else
		why->length = 0;
	return result;
}
