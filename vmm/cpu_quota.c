/* A vCPU's share of a processor; see cpu_quota.h. */
#include "vmm/cpu_quota.h"

#include <errno.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#define PERIOD_NS 100000000u
#define WHOLE 1000u
#define SECOND_NS 1000000000u

/* Its handler does nothing: it is there to end a system call, and counts. */
#define SIGNAL (SIGRTMIN + 1)

static __thread volatile sig_atomic_t used_up;

static void on_used_up(int number)
{
	(void)number;
	used_up++;
}

static uint64_t read_clock(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

int cpu_quota_start(struct cpu_quota *quota, unsigned thousandths)
{
	const struct sigaction action = { .sa_handler = on_used_up }; /* without SA_RESTART */
	const long part_ns = (long)((uint64_t)PERIOD_NS * thousandths / WHOLE);
	const struct itimerspec every = { .it_value.tv_nsec = part_ns, .it_interval.tv_nsec = part_ns };
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGNAL };
	sigset_t set;
	timer_t timer;

	*quota = (struct cpu_quota){ .thousandths = 0 };
	if (thousandths == 0 || thousandths >= WHOLE)
		return 0;
	event._sigev_un._tid = gettid();
	sigemptyset(&set);
	sigaddset(&set, SIGNAL);
	if (sigaction(SIGNAL, &action, NULL) < 0 || timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer) < 0 ||
	    timer_settime(timer, 0, &every, NULL) < 0)
		return -errno;
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	*quota = (struct cpu_quota){
		.thousandths = thousandths,
		.used_ns = read_clock(CLOCK_THREAD_CPUTIME_ID),
		.paid_ns = read_clock(CLOCK_MONOTONIC),
	};
	return 0;
}

void cpu_quota_wait(struct cpu_quota *quota)
{
	if (!used_up)
		return;
	used_up = 0;
	/* Timers come with the kernel's ticks, so more than one part may have been used. */
	const uint64_t used_ns = read_clock(CLOCK_THREAD_CPUTIME_ID), now_ns = read_clock(CLOCK_MONOTONIC);
	quota->paid_ns += (used_ns - quota->used_ns) * WHOLE / quota->thousandths;
	quota->used_ns = used_ns;
	/* Who did not use it all, because there was nothing to do, saves nothing up. */
	if (now_ns >= quota->paid_ns) {
		quota->paid_ns = now_ns;
		return;
	}
	const struct timespec until = { .tv_sec = (time_t)(quota->paid_ns / SECOND_NS),
					.tv_nsec = (long)(quota->paid_ns % SECOND_NS) };
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
		;
}
