/* terminal.c: whatever ends the process, the terminal gets its modes back. Each case runs in a child with a pty of its own. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "vmm/reaper.h"
#include "vmm/terminal.h"

TestSuite(terminal, .timeout = 30);

static bool is_raw(int fd)
{
	struct termios t;
	cr_assert_eq(tcgetattr(fd, &t), 0);
	return !(t.c_lflag & (ICANON | ECHO | ISIG)) && !(t.c_oflag & OPOST);
}

/* Runs `end` in a child that has made the pty raw; returns its wait status. */
static int run_child(int slave, int master, void (*end)(int fd))
{
	int ready[2];
	char c;
	cr_assert_eq(pipe(ready), 0);
	const pid_t pid = fork();
	if (pid == 0) {
		signal(SIGSEGV, SIG_DFL); /* sanitizers have their own */
		setsid();
		if (ioctl(slave, TIOCSCTTY, 0) < 0 || terminal_set_raw(slave) < 0 || write(ready[1], "r", 1) != 1)
			_exit(50);
		usleep(100000);
		end(slave);
		_exit(51);
	}
	cr_assert_eq(read(ready[0], &c, 1), 1);
	cr_expect(is_raw(slave));
	int status;
	cr_assert(waitpid(pid, &status, 0) == pid);
	close(ready[0]);
	close(ready[1]);
	(void)master;
	return status;
}

static void end_by_exit(int fd)
{
	(void)fd;
	exit(7);
}

static void end_by_term(int fd)
{
	(void)fd;
	raise(SIGTERM);
}

static void end_by_abort(int fd)
{
	(void)fd;
	abort();
}

static void end_by_segv(int fd)
{
	(void)fd;
	kill(getpid(), SIGSEGV);
}

static void end_by_restore(int fd)
{
	terminal_restore();
	terminal_restore();
	_exit(is_raw(fd) ? 1 : 0);
}

static void *nothing;

static void handler(int number)
{
	(void)number;
	nothing = NULL;
}

/* A stop and a continuation: the shell may have set other modes meanwhile. */
static void end_after_continue(int fd)
{
	struct termios t;
	tcgetattr(fd, &t);
	t.c_lflag |= ICANON | ECHO | ISIG;
	tcsetattr(fd, TCSANOW, &t);
	raise(SIGCONT);
	_exit(is_raw(fd) ? 0 : 1);
}

Test(terminal, modes_come_back)
{
	const struct {
		void (*end)(int fd);
		bool by_signal;
		int status;
	} cases[] = {
		{ end_by_exit, false, 7 },	    { end_by_term, true, SIGTERM },	{ end_by_abort, true, SIGABRT },
		{ end_by_segv, true, SIGSEGV }, { end_by_restore, false, 0 },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int master, slave;
		cr_assert_eq(openpty(&master, &slave, NULL, NULL, NULL), 0);
		const int status = run_child(slave, master, cases[i].end);
		cr_expect_not(is_raw(slave), "case %zu", i);
		cr_expect_eq(WIFSIGNALED(status), cases[i].by_signal, "case %zu: status 0x%x", i, (unsigned)status);
		cr_expect_eq(cases[i].by_signal ? WTERMSIG(status) : WEXITSTATUS(status), cases[i].status, "case %zu: status 0x%x",
			     i, (unsigned)status);
		close(master);
		close(slave);
	}
}

Test(terminal, raw_again_after_a_stop)
{
	int master, slave;
	cr_assert_eq(openpty(&master, &slave, NULL, NULL, NULL), 0);
	const int status = run_child(slave, master, end_after_continue);
	cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status 0x%x", (unsigned)status);
	close(master);
	close(slave);
}

static bool becomes_raw(int fd, bool raw)
{
	for (unsigned i = 0; i < 500 && is_raw(fd) != raw; i++)
		usleep(10000);
	return is_raw(fd) == raw;
}

static volatile sig_atomic_t window_changes;

static void on_window(int number)
{
	(void)number;
	window_changes++;
}

/* What runs in the foreground below the shell. Exits with 10 and the number of window changes at the first byte of its stdin. */
static void foreground(int slave, bool with_reaper)
{
	char c;
	while (tcgetpgrp(slave) != getpgrp())
		usleep(1000);
	signal(SIGWINCH, on_window);
	if (terminal_set_raw(slave) < 0)
		_exit(50);
	if (with_reaper)
		reaper_start();
	while (read(slave, &c, 1) != 1)
		;
	terminal_restore();
	_exit(10 + window_changes);
}

/* Plays a shell that has job control; returns 0 or the line of what went wrong. */
static int play_shell(int slave, int master, bool kill_it)
{
	int status;
	signal(SIGTTOU, SIG_IGN);
	setsid();
	if (ioctl(slave, TIOCSCTTY, 0) < 0)
		return __LINE__;
	const pid_t pid = fork();
	if (pid == 0) {
		setpgid(0, 0);
		signal(SIGTTOU, SIG_DFL);
		foreground(slave, kill_it);
	}
	setpgid(pid, pid);
	if (tcsetpgrp(slave, pid) < 0 || !becomes_raw(slave, true))
		return __LINE__;
	if (kill_it) {
		usleep(100000); /* the reaper may not be there yet */
		kill(pid, SIGKILL);
		return waitpid(pid, &status, 0) == pid && becomes_raw(slave, false) ? 0 : __LINE__;
	}
	kill(pid, SIGTSTP);
	if (waitpid(pid, &status, WUNTRACED) != pid || !WIFSTOPPED(status) || is_raw(slave))
		return __LINE__;
	/* In the background it leaves the modes alone. */
	tcsetpgrp(slave, getpgrp());
	kill(pid, SIGCONT);
	usleep(100000);
	if (is_raw(slave))
		return __LINE__;
	tcsetpgrp(slave, pid);
	kill(pid, SIGCONT);
	if (!becomes_raw(slave, true))
		return __LINE__;
	/* A second time, as the handler has to be set again. */
	kill(pid, SIGTSTP);
	if (waitpid(pid, &status, WUNTRACED) != pid || !WIFSTOPPED(status) || is_raw(slave))
		return __LINE__;
	kill(pid, SIGCONT);
	if (!becomes_raw(slave, true) || write(master, "x", 1) != 1)
		return __LINE__;
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) < 12 || is_raw(slave))
		return __LINE__;
	return 0;
}

static void expect_shell(bool kill_it)
{
#ifdef __SANITIZE_THREAD__
	cr_skip_test("the thread sanitizer runs handlers of its own, in which a raised SIGTSTP does not stop");
#endif
	int master, slave, status;
	cr_assert_eq(openpty(&master, &slave, NULL, NULL, NULL), 0);
	const pid_t pid = fork();
	if (pid == 0) {
		const int line = play_shell(slave, master, kill_it);
		if (line)
			fprintf(stderr, "play_shell failed at line %d\n", line);
		_exit(line != 0);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	cr_expect_eq(status, 0, "status 0x%x", (unsigned)status);
	close(master);
	close(slave);
}

Test(terminal, a_stop_restores_and_going_on_makes_raw)
{
	expect_shell(false);
}

Test(terminal, a_kill_restores)
{
	expect_shell(true);
}

Test(terminal, handlers_of_others_stay)
{
	int master, slave;
	struct sigaction action;
	cr_assert_eq(openpty(&master, &slave, NULL, NULL, NULL), 0);
	signal(SIGUSR1, handler);
	signal(SIGUSR2, SIG_IGN);
	cr_assert_eq(terminal_set_raw(slave), 0);
	cr_expect_eq(terminal_set_raw(slave), -EBUSY);
	sigaction(SIGUSR1, NULL, &action);
	cr_expect_eq(action.sa_handler, handler);
	sigaction(SIGUSR2, NULL, &action);
	cr_expect_eq(action.sa_handler, SIG_IGN);
	terminal_restore();
	cr_expect_not(is_raw(slave));
	close(master);
	close(slave);
}

Test(terminal, what_is_none)
{
	uint16_t rows = 1, columns = 2;
	const int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	cr_expect_eq(terminal_set_raw(fd), -ENOTTY);
	cr_expect_eq(terminal_get_size(fd, &rows, &columns), -ENOTTY);
	cr_expect(rows == 1 && columns == 2);
	terminal_restore();
	close(fd);
}

Test(terminal, size)
{
	int master, slave;
	uint16_t rows, columns;
	const struct winsize size = { .ws_row = 12, .ws_col = 345 };
	cr_assert_eq(openpty(&master, &slave, NULL, NULL, &size), 0);
	cr_assert_eq(terminal_get_size(slave, &rows, &columns), 0);
	cr_expect(rows == 12 && columns == 345);
	close(master);
	close(slave);
}
