/*
 * A new process: pipes or pty, identity, working directory, the search for the program.
 *
 * vfork, not fork: the child runs on our memory until it execs, nothing is copied, and it leaves its errno where we read it. In the
 * child only system calls that change nothing of the parent are made, raw where libc would do more (setuid).
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include <x86intrin.h>

#include "guest/agent/agent.h"

#define GID_TTY 5

/* ---- streams ----------------------------------------------------------------------------------------------------------------- */

int spawn_pipe(enum agent_stream stream, uint32_t uid, uint32_t gid, int *ours, int *theirs)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	const unsigned our_end = stream == AGENT_STDIN ? 1 : 0;
	*ours = ends[our_end];
	*theirs = ends[!our_end];
	if (fcntl(*ours, F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	/* So that the command may open /dev/stdout. */
	if (uid && fchown(*theirs, uid, gid) < 0)
		return -errno;
	return 0;
}

void spawn_set_window(int master, uint16_t rows, uint16_t columns)
{
	const struct winsize size = { .ws_row = rows, .ws_col = columns };
	ioctl(master, TIOCSWINSZ, &size);
}

int spawn_pty(uint32_t uid, uint16_t rows, uint16_t columns, int *master, int *slave)
{
	const int unlock = 0;
	*master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (*master < 0)
		return -errno;
	if (ioctl(*master, TIOCSPTLCK, &unlock) < 0)
		return -errno;
	*slave = ioctl(*master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (*slave < 0)
		return -errno;
	if (rows || columns)
		spawn_set_window(*master, rows, columns);
	if (uid && fchown(*slave, uid, GID_TTY) < 0)
		return -errno;
	return 0;
}

int spawn_make_folder(const char *path)
{
	char partial[4096];
	struct stat st;
	if (stat(path, &st) == 0)
		return S_ISDIR(st.st_mode) ? 0 : -ENOTDIR;
	const size_t length = strlen(path);
	if (length >= sizeof(partial))
		return -ENAMETOOLONG;
	for (size_t i = 0; i <= length; i++) {
		partial[i] = '\0';
		if (i && (path[i] == '/' || path[i] == '\0') && mkdir(partial, 0755) < 0 && errno != EEXIST && errno != EISDIR)
			return -errno;
		partial[i] = path[i];
	}
	return 0;
}

/* ---- the program ------------------------------------------------------------------------------------------------------------- */

/* execve, with the shell for a text file without #!. Returns only on failure. */
static void exec_file(struct spawn *s, char *path)
{
	execve(path, s->argv, s->env);
	if (errno == ENOENT && access(path, F_OK) == 0) {
		s->interpreter_missing = true;
		errno = ENOENT;
	}
	if (errno != ENOEXEC)
		return;
	static char shell[] = "/bin/sh";
	char **with_shell = s->argv - 1;
	char *name = s->argv[0];
	with_shell[0] = shell;
	with_shell[1] = path;
	execve(shell, with_shell, s->env);
	s->argv[0] = name;
	errno = ENOEXEC;
}

static const char *path_of(char *const *env)
{
	for (; *env; env++) {
		if (!strncmp(*env, "PATH=", 5))
			return *env + 5;
	}
	return PATH_DEFAULT;
}

/* execvpe() on the command's own PATH: goes on after what is not there or may not be run. Returns only on failure, with errno. */
static void exec_search(struct spawn *s)
{
	static char path[4096 + 256];
	char *name = s->argv[0];
	const size_t name_length = strlen(name);
	if (!name_length) {
		errno = ENOENT;
		return;
	}
	if (strchr(name, '/')) {
		exec_file(s, name);
		return;
	}
	bool denied = false;
	const char *next;
	for (const char *folder = path_of(s->env); folder; folder = next) {
		const char *colon = strchr(folder, ':');
		next = colon ? colon + 1 : NULL;
		const size_t length = colon ? (size_t)(colon - folder) : strlen(folder);
		if (length + 1 + name_length + 1 > sizeof(path))
			continue;
		/* An empty element is the working directory. */
		memcpy(path, folder, length);
		path[length] = '/';
		memcpy(path + length + (length ? 1 : 0), name, name_length + 1);
		exec_file(s, path);
		if (errno == EACCES)
			denied = true;
		else if (errno != ENOENT && errno != ENOTDIR)
			return;
	}
	errno = denied ? EACCES : ENOENT;
}

/* Privileges go last but for the program itself. */
static int become(const struct user *user)
{
	if (!user->uid && !user->gid && !user->group_count)
		return 0; /* what process 1 is */
	if (syscall(SYS_setgroups, (long)user->group_count, user->groups) < 0)
		return -1;
	if (syscall(SYS_setgid, (long)user->gid) < 0)
		return -1;
	return syscall(SYS_setuid, (long)user->uid) < 0 ? -1 : 0;
}

/* The defaults, and what was asked for over them. Raising hard limits is a privilege. */
static int set_limits(const struct spawn *s)
{
	const struct rlimit files = { NOFILE_SOFT, NOFILE_HARD };
	setrlimit(RLIMIT_NOFILE, &files);
	for (uint32_t i = 0; i < s->limit_count; i++) {
		const struct rlimit wanted = { le64_get(s->limits[i].soft), le64_get(s->limits[i].hard) };
		if (setrlimit((int)le32_get(s->limits[i].resource), &wanted) < 0)
			return -1;
	}
	return 0;
}

static _Noreturn void child(struct spawn *s)
{
	sigset_t none;
	sigemptyset(&none);
	setsid();
	s->failed = "file descriptors of the command";
	for (int i = 0; i < 3; i++) {
		if (dup2(s->fds[i], i) < 0)
			goto fail;
	}
	s->failed = "controlling terminal";
	if (s->terminal && ioctl(0, TIOCSCTTY, 0) < 0)
		goto fail;
	s->failed = "join the limit of processes";
	if (pids_join() < 0)
		goto fail;
	s->failed = "set the limits of resources";
	if (set_limits(s) < 0)
		goto fail;
	s->failed = "change to the working directory";
	if (chdir(s->workdir) < 0)
		goto fail;
	s->failed = "change to the user";
	if (become(s->user) < 0)
		goto fail;
	sigprocmask(SIG_SETMASK, &none, NULL);
	s->failed = "exec";
	s->exec_tsc = __rdtsc();
	exec_search(s);
fail:
	s->error = errno;
	_exit(127);
}

/* What has no stream gets /dev/null. Returns its descriptor, -1 when it was not needed, or -errno. */
static int fill_with_null(int fds[3])
{
	int null = -1;
	for (int i = 0; i < 3; i++) {
		if (fds[i] >= 0)
			continue;
		if (null < 0)
			null = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (null < 0)
			return -errno;
		fds[i] = null;
	}
	return null;
}

/* Apart, since what lives in registers here is not sure to survive the child. */
static pid_t start_child(struct spawn *s)
{
	const pid_t pid = vfork();
	if (pid == 0)
		child(s);
	return pid;
}

pid_t spawn(struct spawn *s)
{
	s->error = 0;
	s->failed = "open /dev/null";
	s->interpreter_missing = false;
	const int null = fill_with_null(s->fds);
	if (null < -1) {
		s->error = -null;
		return null;
	}
	const pid_t pid = start_child(s);
	if (pid < 0) {
		s->failed = "vfork";
		s->error = errno;
	} else if (s->error) {
		waitpid(pid, NULL, 0);
	}
	if (null >= 0)
		close(null);
	return s->error ? -s->error : pid;
}
