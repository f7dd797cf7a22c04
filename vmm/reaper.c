/* The process that outlives us by the teardown of the VM; see reaper.h. */
#include "vmm/reaper.h"

#include <errno.h>
#include <limits.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm/sandbox.h"
#include "vmm/terminal.h"
#ifdef TRVMM_BACKDOOR
#include "tests/sandbox/backdoor.h"
#endif

#define STACK_BYTES 16384

/* What the new process confines itself with; NULL: nothing. It cannot ask for it. */
static const struct sock_fprog *program;

/* A system call that touches no thread-local storage: the new process has ours. */
static long bare_syscall(long number, long first, long second, long third)
{
	long result;
	__asm__ volatile("syscall" : "=a"(result) : "a"(number), "D"(first), "S"(second), "d"(third) : "rcx", "r11", "memory");
	return result;
}

/* We were killed with the terminal raw. When it is another process group's by now, a shell has it and sets modes of its own. */
static void restore_terminal(void)
{
	const struct terminal_will *will = terminal_will();
	int group = 0;
	if (!will->raw)
		return;
	const bool known = bare_syscall(SYS_ioctl, will->fd, TIOCGPGRP, (long)&group) == 0;
	if (!known || group == bare_syscall(SYS_getpgid, 0, 0, 0))
		bare_syscall(SYS_ioctl, will->fd, TCSETS, (long)will->modes);
}

/* A pidfd is readable when all threads of the process have ended. (A parent death signal comes when its main thread does, too early.) */
static int wait_for_the_end(void *pidfd)
{
	/* Who can change our memory can make us do things, but not many. */
	if (program && bare_syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, (long)program) != 0)
		bare_syscall(SYS_exit_group, 0, 0, 0);
	struct pollfd end = { .fd = (int)(long)pidfd, .events = POLLIN };
#ifdef TRVMM_BACKDOOR
	while (bare_syscall(SYS_poll, (long)&end, 1, 1) == 0)
		backdoor_poll_reaper();
#endif
	while (bare_syscall(SYS_poll, (long)&end, 1, -1) == -EINTR)
		;
	restore_terminal();
	bare_syscall(SYS_exit_group, 0, 0, 0);
	return 0;
}

void reaper_start(void)
{
	sigset_t all, before;
	const int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
	if (pidfd < 0)
		return;
	char *stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
	if (stack == MAP_FAILED) {
		close(pidfd);
		return;
	}
	program = sandbox_reaper_program();
	/* What is sent to our process group is not meant for it. */
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	/* Without an exit signal: nobody is to wait for it. */
	clone(wait_for_the_end, stack + STACK_BYTES, CLONE_VM | CLONE_FILES | CLONE_FS, (void *)(long)pidfd);
	sigprocmask(SIG_SETMASK, &before, NULL);
}

void reaper_exit(int code, int vm_fd)
{
	if (vm_fd > 0)
		close_range(0, (unsigned)vm_fd - 1, 0);
	close_range((unsigned)(vm_fd + 1), UINT_MAX, 0);
	_exit(code);
}
