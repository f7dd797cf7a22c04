/* Raw mode and the way back; see terminal.h. */
#include "vmm/terminal.h"

#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

/* The terminal is the process's, and a signal handler finds nothing that is not global. */
static struct {
	struct terminal_will will; /* `raw`: to be restored; int is as good as sig_atomic_t, which it is */
	struct termios before, wanted;
} terminal;

static const int deadly[] = { SIGHUP, SIGINT, SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGTERM, SIGSYS,
			      SIGALRM, SIGUSR1, SIGUSR2, SIGPIPE, SIGXCPU, SIGXFSZ };

/* The terminal is the shell's now. (Setting its modes would stop us with SIGTTOU.) One that is not our session's has no such notion. */
static bool is_in_background(void)
{
	const pid_t group = tcgetpgrp(terminal.will.fd);
	return group >= 0 && group != getpgrp();
}

static void set_modes(const struct termios *modes)
{
	if (!is_in_background())
		tcsetattr(terminal.will.fd, TCSANOW, modes);
}

void terminal_restore(void)
{
	if (!terminal.will.raw)
		return;
	const int saved_errno = errno;
	set_modes(&terminal.before);
	terminal.will.raw = 0;
	errno = saved_errno;
}

const struct terminal_will *terminal_will(void)
{
	return &terminal.will;
}

/* SA_RESETHAND has put the default back: the signal does what it would have done. */
static void on_deadly(int number)
{
	terminal_restore();
	raise(number);
}

static void on_stop(int number);
static void handle(int number, void (*handler)(int), int flags);

/* A shell gives a job that goes on its own idea of the modes. */
static void go_on(void)
{
	if (!terminal.will.raw)
		return;
	handle(SIGTSTP, on_stop, (int)(SA_RESETHAND | SA_NODEFER));
	set_modes(&terminal.wanted);
	kill(getpid(), SIGWINCH);
}

static void on_stop(int number)
{
	const int saved_errno = errno;
	if (terminal.will.raw)
		set_modes(&terminal.before);
	raise(number); /* the default again: stops here */
	go_on(); /* nothing stops a process without a shell above it */
	errno = saved_errno;
}

static void on_continue(int number)
{
	(void)number;
	const int saved_errno = errno;
	go_on();
	errno = saved_errno;
}

static void handle(int number, void (*handler)(int), int flags)
{
	struct sigaction action;
	if (sigaction(number, NULL, &action) < 0 || action.sa_handler != SIG_DFL)
		return; /* somebody else knows what to do */
	action.sa_handler = handler;
	action.sa_flags = flags;
	sigemptyset(&action.sa_mask);
	sigaction(number, &action, NULL);
}

int terminal_set_raw(int fd)
{
	if (terminal.will.raw)
		return -EBUSY;
	if (tcgetattr(fd, &terminal.before) < 0 || ioctl(fd, TCGETS, terminal.will.modes) < 0)
		return -errno;
	terminal.will.fd = fd;
	terminal.wanted = terminal.before;
	cfmakeraw(&terminal.wanted);
	for (size_t i = 0; i < sizeof(deadly) / sizeof(deadly[0]); i++)
		handle(deadly[i], on_deadly, (int)(SA_RESETHAND | SA_NODEFER));
	handle(SIGTSTP, on_stop, (int)(SA_RESETHAND | SA_NODEFER));
	handle(SIGCONT, on_continue, SA_RESTART);
	atexit(terminal_restore);
	terminal.will.raw = 1;
	if (tcsetattr(fd, TCSANOW, &terminal.wanted) < 0) {
		terminal.will.raw = 0;
		return -errno;
	}
	return 0;
}

int terminal_get_size(int fd, uint16_t *rows, uint16_t *columns)
{
	struct winsize size;
	if (ioctl(fd, TIOCGWINSZ, &size) < 0)
		return -errno;
	*rows = size.ws_row;
	*columns = size.ws_col;
	return 0;
}
