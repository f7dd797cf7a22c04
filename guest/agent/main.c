/*
 * Process 1 of the guest: the order of the start, the event loop, the reaping of children.
 *
 * What needs an answer of the host is sent off first: while the connections are on their way, the file systems are mounted. All
 * signals stay blocked for the life of the agent: SIGCHLD arrives by signalfd, a broken pipe is an errno, and for process 1 the
 * kernel drops the rest. A command gets an empty mask, and the default dispositions that the kernel gave process 1.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>
#include <x86intrin.h>

#include "guest/agent/agent.h"
#include "guest/agent/initramfs.h"

#define EVENTS_AT_ONCE 32

static int epoll_fd, signal_fd;
static char *our_name;
uint64_t agent_began_tsc;

void watch(int fd, uint32_t *watched, uint32_t events, uint64_t tag)
{
	if (*watched == events)
		return;
	struct epoll_event event = { .events = events, .data.u64 = tag };
	if (epoll_ctl(epoll_fd, *watched == WATCHED_NOT ? EPOLL_CTL_ADD : EPOLL_CTL_MOD, fd, &event) < 0)
		die("epoll_ctl", errno);
	*watched = events;
}

/* Orphans of the whole guest end here, too. One SIGCHLD may stand for many. */
static void reap(void)
{
	struct signalfd_siginfo info[8];
	while (read(signal_fd, info, sizeof(info)) == sizeof(info))
		;
	for (;;) {
		int status;
		const pid_t pid = waitpid(-1, &status, WNOHANG);
		if (pid <= 0)
			return;
		command_reaped(pid, status);
	}
}

static void loop_open(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd < 0)
		die("epoll_create1", errno);
	signal_fd = signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
	if (signal_fd < 0)
		die("signalfd", errno);
	uint32_t watched = WATCHED_NOT;
	watch(signal_fd, &watched, EPOLLIN, TAG_SIGNAL);
}

void main_go_on_as_child(void)
{
	/* epoll goes on telling of the signals of the process that made it. */
	close(epoll_fd);
	close(signal_fd);
	loop_open();
	wire_watch();
	platform_schedule(true);
	/* What systemd does not kill before the machine's end (its "root storage daemons"). */
	our_name[0] = '@';
}

int main(int argc, char **argv)
{
	sigset_t all;
	agent_began_tsc = __rdtsc();
	if (argc > 0 && !strcmp(argv[0], INITRAMFS_INIT))
		initramfs_run(argv);
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, NULL);
	our_name = argv[0];
	platform_init(argc, argv);
	wire_connect();
	command_connect_early();
	platform_boot();

	loop_open();
	wire_event(0);
	for (;;) {
		struct epoll_event events[EVENTS_AT_ONCE];
		const int count = epoll_wait(epoll_fd, events, EVENTS_AT_ONCE, -1);
		if (count < 0 && errno != EINTR)
			die("epoll_wait", errno);
		for (int i = 0; i < count; i++) {
			if (events[i].data.u64 == TAG_CONTROL)
				wire_event(events[i].events);
			else if (events[i].data.u64 == TAG_SIGNAL)
				reap();
			else if (events[i].data.u64 == TAG_PROXY_LISTENER)
				proxy_accept();
			else if (events[i].data.u64 & TAG_PROXY)
				proxy_event(events[i].data.u64, events[i].events);
			else
				command_event(events[i].data.u64, events[i].events);
		}
		wire_flush();
	}
}
