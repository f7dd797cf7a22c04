/*
 * launch FILE PHASE_US CMD [ARG...]: runs a command and appends the line `START_NS END_NS STATUS` to FILE: CLOCK_MONOTONIC just before
 * the process is made and just after its end is known, and its exit status (128 + n for a signal).
 *
 * A shell needs about a millisecond to fork itself and to wait, a tenth of what is measured here. This program is small and static, and
 * uses vfork, so that next to nothing but the command itself is in the figure. The absolute start lets the report line it up with a
 * timeline.
 *
 * The start is PHASE_US microseconds after a multiple of the kernel's tick. Where a program waits for the kernel (for RCU, as KVM does),
 * the wait ends with a tick, so the time depends on the phase. Runs that follow one another would all start at the same one, and their
 * figures would agree well, on something that is off by up to a tick. The caller spreads them.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { TICK_NS = 4000000 }; /* Debian's kernels have HZ=250 */

static int64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void wait_for_phase(int64_t phase_ns)
{
	int64_t at_ns = (now_ns() / TICK_NS + 1) * TICK_NS + phase_ns;
	struct timespec at = { .tv_sec = at_ns / 1000000000, .tv_nsec = at_ns % 1000000000 };
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
}

int main(int argc, char **argv)
{
	if (argc < 4) {
		fprintf(stderr, "usage: launch FILE PHASE_US CMD [ARG...]\n");
		return 125;
	}
	/* Before the start, as it is no part of it. */
	int file = open(argv[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
	if (file < 0) {
		perror(argv[1]);
		return 125;
	}

	wait_for_phase(atoll(argv[2]) * 1000);
	int wait_status = 0;
	int64_t start_ns = now_ns();
	pid_t child = vfork();
	if (child == 0) {
		execvp(argv[3], argv + 3);
		_exit(127);
	}
	if (child < 0 || waitpid(child, &wait_status, 0) != child) {
		perror("launch");
		return 125;
	}
	int64_t end_ns = now_ns();

	int status = WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
	dprintf(file, "%jd %jd %d\n", (intmax_t)start_ns, (intmax_t)end_ns, status);
	return status;
}
