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
	volatile sig_atomic_t raw; /* to be restored */
	int fd;
	struct termios before, wanted;
} terminal;

static const int deadly[] = { SIGHUP, SIGINT, SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGBUS, SIGFPE, SIGSEGV, SIGTERM, SIGSYS,
			      SIGALRM, SIGUSR1, SIGUSR2, SIGPIPE, SIGXCPU, SIGXFSZ };

void terminal_restore(void)
{
	if (!terminal.raw)
		return;
	const int saved_errno = errno;
	terminal.raw = 0;
	tcsetattr(terminal.fd, TCSANOW, &terminal.before);
	errno = saved_errno;
}

/* SA_RESETHAND has put the default back: the signal does what it would have done. */
static void on_deadly(int number)
{
	terminal_restore();
	raise(number);
}

/* A shell gives a job that goes on its own idea of the modes. In the background the terminal is not ours to set. */
static void on_continue(int number)
{
	(void)number;
	const int saved_errno = errno;
	if (terminal.raw && tcgetpgrp(terminal.fd) == getpgrp())
		tcsetattr(terminal.fd, TCSANOW, &terminal.wanted);
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
	if (terminal.raw)
		return -EBUSY;
	if (tcgetattr(fd, &terminal.before) < 0)
		return -errno;
	terminal.fd = fd;
	terminal.wanted = terminal.before;
	cfmakeraw(&terminal.wanted);
	for (size_t i = 0; i < sizeof(deadly) / sizeof(deadly[0]); i++)
		handle(deadly[i], on_deadly, (int)(SA_RESETHAND | SA_NODEFER));
	handle(SIGCONT, on_continue, SA_RESTART);
	atexit(terminal_restore);
	terminal.raw = 1;
	if (tcsetattr(fd, TCSANOW, &terminal.wanted) < 0) {
		terminal.raw = 0;
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
