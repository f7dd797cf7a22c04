/* Two processes out of one; see detach.h. */
#include "vmm/detach.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/cli/cli.h"

static void wait_for_machine(pid_t pid, int fd) __attribute__((noreturn));

static void wait_for_machine(pid_t pid, int fd)
{
	char name[256];
	ssize_t n;
	do
		n = read(fd, name, sizeof(name) - 1);
	while (n < 0 && errno == EINTR);
	if (n > 0) {
		name[n] = '\0';
		exit(puts(name) == EOF || fflush(stdout) == EOF ? EXIT_TRVMM : 0);
	}
	int status;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			exit(EXIT_TRVMM);
	exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

int detach_fork(struct detach *detach, struct error *err)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) < 0)
		return error_set(err, -errno, "pipe: %s", strerror(errno));
	const pid_t caller = getpid(), pid = fork();
	if (pid < 0) {
		const int result = error_set(err, -errno, "fork: %s", strerror(errno));
		close(ends[0]);
		close(ends[1]);
		return result;
	}
	close(ends[pid ? 1 : 0]);
	if (pid)
		wait_for_machine(pid, ends[0]);
	*detach = (struct detach){ .fd = ends[1], .null_fd = open("/dev/null", O_RDWR | O_CLOEXEC) };
	/* Who ends the caller while it waits ends the machine: nobody has heard of that yet. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (getppid() != caller)
		_exit(EXIT_TRVMM);
	setsid();
	return 0;
}

void detach_let_go(struct detach *detach, const char *name, int stderr_fd)
{
	prctl(PR_SET_PDEATHSIG, 0);
	/* First the streams: the caller's reader is to see their end when the caller ends. */
	if (detach->null_fd >= 0) {
		dup2(detach->null_fd, STDIN_FILENO);
		dup2(detach->null_fd, STDOUT_FILENO);
		close(detach->null_fd);
	}
	dup2(stderr_fd, STDERR_FILENO);
	/* A caller that is gone needs no name. */
	(void)!write(detach->fd, name, strlen(name));
	close(detach->fd);
}
