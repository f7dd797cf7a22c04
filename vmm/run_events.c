/* What a run hears while the guest is up: signals and timers. See run_internal.h. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/container.h"
#include "vmm/cli/cli.h"
#include "vmm/run_internal.h"
#include "vmm/run_named.h"
#include "vmm/terminal.h"

#define KILL_AFTER_S 5 /* what --timeout leaves the command between TERM and the end */

static void arm(struct loop_source *timer, unsigned seconds)
{
	const struct itimerspec when = { .it_value.tv_sec = seconds };
	timerfd_settime(timer->fd, 0, &when, NULL);
}

int run_add_timer(struct run *run, struct loop_source *timer, unsigned seconds, void (*ready)(struct loop_source *, uint32_t),
		  struct error *err)
{
	const int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	*timer = (struct loop_source){ .fd = fd, .events = EPOLLIN, .ready = ready };
	if (fd < 0)
		return error_set(err, -errno, "timerfd: %s", strerror(errno));
	arm(timer, seconds);
	const int result = loop_add(run->loop, timer);
	return result < 0 ? error_set(err, result, "epoll: %s", strerror(-result)) : 0;
}

void run_boot_timed_out(struct loop_source *source, uint32_t events)
{
	struct run *run = container_of(source, struct run, boot_timer);
	char what[96];
	(void)events;
	snprintf(what, sizeof(what), "no word from its agent in %u s; see --boot-timeout and --console", run->options->boot_timeout_s);
	run_guest_died(run, what);
}

void run_command_timed_out(struct loop_source *source, uint32_t events)
{
	struct run *run = container_of(source, struct run, timeout_timer);
	(void)events;
	if (run->timed_out || !run->ready)
		run_finish(run, EXIT_TIMEOUT);
	run->timed_out = true;
	session_signal(run->session, SIGTERM);
	arm(source, KILL_AFTER_S);
}

void run_window_size(uint16_t *rows, uint16_t *columns)
{
	*rows = *columns = 0;
	if (terminal_get_size(STDIN_FILENO, rows, columns) < 0)
		terminal_get_size(STDOUT_FILENO, rows, columns);
}

static void on_signal(struct loop_source *source, uint32_t events)
{
	struct run *run = container_of(source, struct run, signals);
	struct signalfd_siginfo info;
	(void)events;

	if (read(source->fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return;
	const int signal = (int)info.ssi_signo;
	if (signal == SIGWINCH) {
		uint16_t rows, columns;
		run_window_size(&rows, &columns);
		session_resize(run->session, rows, columns);
		return;
	}
	if (run_named_is_waited_for(run))
		run_finish(run, 128 + signal);
	/* The first one asks the command, the second one ends the VM, whatever the guest does. */
	if ((signal == SIGINT || signal == SIGTERM) && ++run->interrupts > 1)
		run_finish(run, 128 + signal);
	session_signal(run->session, signal);
}

/* Blocks the signals that are forwarded, in this thread and all that it will start, and takes them from a descriptor. */
int run_watch_signals(struct run *run, struct error *err)
{
	sigset_t set;
	sigemptyset(&set);
	const int forwarded[] = { SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2 };
	for (size_t i = 0; i < sizeof(forwarded) / sizeof(forwarded[0]); i++)
		sigaddset(&set, forwarded[i]);
	if (run->options->terminal)
		sigaddset(&set, SIGWINCH);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	/* A broken pipe is an error of that write, not the end of trvmm. */
	signal(SIGPIPE, SIG_IGN);
	run->signals = (struct loop_source){ .fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), .events = EPOLLIN, .ready = on_signal };
	if (run->signals.fd < 0)
		return error_set(err, -errno, "signalfd: %s", strerror(errno));
	const int result = loop_add(run->loop, &run->signals);
	return result < 0 ? error_set(err, result, "epoll: %s", strerror(-result)) : 0;
}
