/*
 * sandbox.h: what is left to a process that was closed, layer by layer, and to each kind of thread. Each case is a process of its own,
 * since there is no way back. tests/sandbox does the same with the whole program, by order of a guest.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/sanitized.h"
#include "vmm/keeper.h"
#include "vmm/sandbox.h"

#define WITHOUT_SECCOMP (1u << SANDBOX_SECCOMP)
#define WITHOUT_LANDLOCK (1u << SANDBOX_LANDLOCK)
#define UID_ORDINARY 1000

/* What a child says with its exit status. */
enum { HOLDS = 0, FAILS = 1, CANNOT = 77 };

static bool as_user; /* which user the next child is, when the tests are root's */

static int run_child(const struct sandbox_spec *spec, int (*body)(struct sandbox_report *report))
{
	int status;
	fflush(NULL);
	const pid_t pid = fork();
	if (pid == 0) {
		struct sandbox_report report = { .layers = { { .on = false } } };
		struct error err = { "" };
		if (as_user && (syscall(SYS_setgroups, 0, NULL) || setresgid(UID_ORDINARY, UID_ORDINARY, UID_ORDINARY) ||
				setresuid(UID_ORDINARY, UID_ORDINARY, UID_ORDINARY) || prctl(PR_SET_DUMPABLE, 1)))
			_exit(CANNOT);
		if (sandbox_close(spec, &report, &err) < 0)
			_exit(FAILS);
		_exit(body(&report));
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

/* As root, then as an ordinary user; only as what we are when that is not root. */
#define EXPECT_HOLDS(spec, body)                                                                                                   \
	do {                                                                                                                       \
		for (as_user = false;; as_user = true) {                                                                           \
			const int status = run_child(spec, body);                                                                  \
			cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == HOLDS, #body "%s: status 0x%x",                      \
				  as_user ? " as an ordinary user" : "", (unsigned)status);                                        \
			if (as_user || geteuid() != 0)                                                                             \
				break;                                                                                             \
		}                                                                                                                  \
	} while (0)

static bool refused(long result)
{
	return result == -1 && errno == EPERM;
}

/* ---- without seccomp: the layers behind it ----------------------------------------------------------------------------------- */

static int root_is_empty(struct sandbox_report *report)
{
	if (!report->layers[SANDBOX_MOUNT_NAMESPACE].on)
		return HOLDS; /* told */
	unsigned count = 0;
	const int fd = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *root = fd >= 0 ? fdopendir(fd) : NULL;
	while (root && readdir(root))
		count++;
	return (count == 2 || (!root && errno == EACCES)) && open("/etc/passwd", O_RDONLY | O_CLOEXEC) < 0 &&
		       open("/../../etc/passwd", O_RDONLY | O_CLOEXEC) < 0 && mkdir("/new", 0700) < 0 && chroot("/") < 0
		   ? HOLDS
		   : FAILS;
}

static int no_privilege_is_left(struct sandbox_report *report)
{
	char *const argv[] = { NULL };
	return geteuid() != 0 && report->layers[SANDBOX_CAPABILITIES].on && setuid(0) < 0 && setgid(0) < 0 &&
		       unshare(CLONE_NEWNS) < 0 && prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 &&
		       prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) == 0 && prctl(PR_CAPBSET_READ, 21 /* SYS_ADMIN */, 0, 0, 0) == 0 &&
		       execve("/bin/sh", argv, argv) < 0
		   ? HOLDS
		   : FAILS;
}

Test(sandbox, layers_behind_seccomp)
{
	const struct sandbox_spec both = { .without = WITHOUT_SECCOMP };
	const struct sandbox_spec no_landlock = { .without = WITHOUT_SECCOMP | WITHOUT_LANDLOCK };
	EXPECT_HOLDS(&both, root_is_empty);
	EXPECT_HOLDS(&no_landlock, root_is_empty);
	EXPECT_HOLDS(&both, no_privilege_is_left);
}

/* Root of a user namespace with no other number: a process that would stay root must not go on. */
static int run_root_without_others(void)
{
	static const char map[] = "0 0 1";
	int status;
	const pid_t pid = fork();
	if (pid == 0) {
		const struct sandbox_spec spec = { .without = WITHOUT_SECCOMP };
		struct sandbox_report report = { .layers = { { .on = true } } };
		struct error err = { "" };
		const int fd = unshare(CLONE_NEWUSER) == 0 ? open("/proc/self/uid_map", O_WRONLY | O_CLOEXEC) : -1;
		if (fd < 0 || write(fd, map, sizeof(map) - 1) < 0 || geteuid() != 0)
			_exit(CANNOT);
		const int result = sandbox_close(&spec, &report, &err);
		_exit(result < 0 && strstr(err.text, "no other user") && strstr(err.text, "--no-sandbox") &&
			      !report.layers[SANDBOX_USER_ID].on && !sandbox_is_closed()
			  ? HOLDS
			  : FAILS);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : FAILS;
}

Test(sandbox, root_that_can_become_nobody_else_is_refused)
{
	if (geteuid() != 0)
		cr_skip_test("needs root");
	const int status = run_root_without_others();
	if (status == CANNOT)
		cr_skip_test("needs a user namespace");
	cr_expect_eq(status, HOLDS);
}

static int pipe_from_the_caller;

static int inherited_are_closed(struct sandbox_report *report)
{
	return report->layers[SANDBOX_DESCRIPTORS].on && fcntl(pipe_from_the_caller, F_GETFD) < 0 && errno == EBADF &&
		       fcntl(STDIN_FILENO, F_GETFD) >= 0
		   ? HOLDS
		   : FAILS;
}

Test(sandbox, descriptors_of_the_caller_are_closed)
{
	const struct sandbox_spec spec = { .without = WITHOUT_SECCOMP };
	int ends[2];
	cr_assert_eq(pipe(ends), 0); /* without O_CLOEXEC: as if it had come through exec */
	pipe_from_the_caller = ends[0];
	EXPECT_HOLDS(&spec, inherited_are_closed);
	close(ends[0]);
	close(ends[1]);
}

/* ---- directories ------------------------------------------------------------------------------------------------------------- */

static int directory_fd;

static int only_what_is_beneath_opens(struct sandbox_report *report)
{
	(void)report;
	sandbox_enter(SANDBOX_DISK_FILES);
	return openat(directory_fd, "inside", O_RDONLY | O_CLOEXEC) >= 0 &&
		       openat(directory_fd, "inside", O_WRONLY | O_CLOEXEC) < 0 &&
		       openat(directory_fd, "../outside", O_RDONLY | O_CLOEXEC) < 0 &&
		       openat(directory_fd, "..", O_RDONLY | O_CLOEXEC) != directory_fd &&
		       openat(directory_fd, "../../../../../../../../etc/passwd", O_RDONLY | O_CLOEXEC) < 0
		   ? HOLDS
		   : FAILS;
}

static void make_file(const char *path)
{
	const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	cr_assert(fd >= 0);
	close(fd);
}

Test(sandbox, host_directories)
{
	SKIP_WHERE_SANITIZED();
	char folder[] = "/tmp/trvmm-sandbox-XXXXXX", path[128];
	cr_assert(mkdtemp(folder));
	cr_assert_eq(chmod(folder, 0755), 0);
	snprintf(path, sizeof(path), "%s/outside", folder);
	make_file(path);
	snprintf(path, sizeof(path), "%s/top", folder);
	cr_assert_eq(mkdir(path, 0755), 0);
	directory_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cr_assert(directory_fd >= 0);
	snprintf(path, sizeof(path), "%s/top/inside", folder);
	make_file(path);
	const struct sandbox_directory directory = { .fd = directory_fd };
	struct sandbox_spec spec = { .directories = &directory, .directory_count = 1, .action = SANDBOX_REFUSE };
	EXPECT_HOLDS(&spec, only_what_is_beneath_opens);
	/* Each of the two that see to it alone. */
	spec.without = WITHOUT_LANDLOCK;
	EXPECT_HOLDS(&spec, only_what_is_beneath_opens);
	spec.without = 1u << SANDBOX_MOUNT_NAMESPACE;
	EXPECT_HOLDS(&spec, only_what_is_beneath_opens);
	close(directory_fd);
	snprintf(path, sizeof(path), "rm -r %s", folder);
	cr_expect_eq(system(path), 0);
}

/* What only root may read, root's guests may: a layer of root's. */
static int root_reads_its_own(struct sandbox_report *report)
{
	(void)report;
	sandbox_enter(SANDBOX_DISK_FILES);
	return geteuid() != 0 && openat(directory_fd, "secret", O_RDONLY | O_CLOEXEC) >= 0 ? HOLDS : FAILS;
}

static int others_do_not(struct sandbox_report *report)
{
	(void)report;
	sandbox_enter(SANDBOX_VCPU);
	return refused(openat(directory_fd, "secret", O_RDONLY | O_CLOEXEC)) ? HOLDS : FAILS;
}

Test(sandbox, directories_of_root)
{
	SKIP_WHERE_SANITIZED();
	char folder[] = "/tmp/trvmm-sandbox-XXXXXX", path[128];
	if (geteuid() != 0)
		cr_skip_test("needs root");
	cr_assert(mkdtemp(folder));
	directory_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	snprintf(path, sizeof(path), "%s/secret", folder);
	make_file(path);
	cr_assert_eq(chmod(path, 0600), 0);
	const struct sandbox_directory directory = { .fd = directory_fd };
	const struct sandbox_spec spec = { .directories = &directory, .directory_count = 1, .action = SANDBOX_REFUSE };
	as_user = false;
	cr_expect_eq(run_child(&spec, root_reads_its_own), 0);
	cr_expect_eq(run_child(&spec, others_do_not), 0);
	close(directory_fd);
	unlink(path);
	rmdir(folder);
}

/* ---- seccomp ----------------------------------------------------------------------------------------------------------------- */

static enum sandbox_kind kind;

static int nothing_bad_is_allowed(struct sandbox_report *report)
{
	char *const argv[] = { NULL };
	(void)report;
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	const int pair_type = SOCK_DGRAM | SOCK_CLOEXEC;
	struct msghdr empty = { .msg_iov = NULL };
	int pair[2];
	sandbox_enter(kind);
	bool good = refused(mprotect(page, 4096, PROT_READ | PROT_EXEC));
	good = refused(mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0) && good;
	good = refused(execve("/bin/sh", argv, argv)) && good;
	good = refused(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0)) && refused(syscall(SYS_vfork)) && good;
	good = refused(syscall(SYS_kill, getppid(), SIGTERM)) && refused(syscall(SYS_kill, -1, SIGTERM)) && good;
	good = refused(syscall(SYS_tgkill, getppid(), getppid(), SIGTERM)) && good;
	good = refused(syscall(SYS_ptrace, 16, getppid(), 0, 0)) && good;
	good = refused(socket(AF_INET, SOCK_STREAM, 0)) && refused(socket(AF_UNIX, SOCK_STREAM, 0)) && good;
	good = refused(socketpair(AF_UNIX, pair_type, 0, pair)) && good;
	good = refused(sendmsg(STDIN_FILENO, &empty, MSG_FASTOPEN)) && good;
	good = refused(ioctl(STDIN_FILENO, TIOCSTI, "x")) && refused(ioctl(STDIN_FILENO, KVM_CREATE_VM, 0)) && good;
	good = refused(syscall(SYS_init_module, NULL, 0, "")) && refused(syscall(SYS_bpf, 0, NULL, 0)) && good;
	good = refused(syscall(SYS_io_uring_setup, 1, NULL)) && refused(syscall(SYS_userfaultfd, 0)) && good;
	good = refused(unshare(CLONE_NEWUSER)) && refused(syscall(SYS_pidfd_open, getppid(), 0)) && good;
	good = refused(syscall(SYS_process_vm_readv, getppid(), NULL, 0, NULL, 0, 0)) && good;
	good = refused(syscall(SYS_setrlimit, 0, NULL)) && refused(syscall(SYS_prlimit64, 0, 0, NULL, NULL)) && good;
	const bool opens = kind == SANDBOX_FS || kind == SANDBOX_DISK_FILES;
	const int fd = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
	return good && fd < 0 && (opens ? errno == ENOENT || errno == EACCES : errno == EPERM) ? HOLDS : FAILS;
}

static int by_value(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

static int what_all_need_is_allowed(struct sandbox_report *report)
{
	static int numbers[1 << 20];
	(void)report;
	sandbox_enter(kind);
	/* Large enough for the C library to ask the system how much memory it may take. */
	for (int i = 0; i < 1 << 20; i++)
		numbers[i] = i % 1000 * 7919 % 65537;
	qsort(numbers, 1 << 20, sizeof(numbers[0]), by_value);
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char *memory = malloc(1 << 20);
	const bool good =
	    page != MAP_FAILED && memory && munmap(page, 4096) == 0 && syscall(SYS_tgkill, getpid(), gettid(), 0) == 0;
	free(memory);
	return good ? HOLDS : FAILS;
}

Test(sandbox, calls_of_threads)
{
	SKIP_WHERE_SANITIZED();
	const struct sandbox_spec spec = { .action = SANDBOX_REFUSE }, strict = { .action = SANDBOX_KILL };
	for (kind = SANDBOX_LOOP; kind <= SANDBOX_RELAY; kind++) {
		EXPECT_HOLDS(&spec, nothing_bad_is_allowed);
		EXPECT_HOLDS(&strict, what_all_need_is_allowed);
	}
}

static int connects(struct sandbox_report *report)
{
	(void)report;
	sandbox_enter(kind);
	return socket(AF_INET, SOCK_STREAM, 0) == -1 ? FAILS : FAILS; /* neither: it does not come back */
}

Test(sandbox, what_is_not_listed_kills)
{
	const struct sandbox_spec spec = { .action = SANDBOX_KILL };
	as_user = false;
	for (kind = SANDBOX_LOOP; kind <= SANDBOX_REAPER; kind++) {
		const int status = run_child(&spec, connects);
		cr_expect(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS, "%s: status 0x%x", sandbox_kind_name(kind),
			  (unsigned)status);
	}
}

Test(sandbox, log_names_the_call)
{
	SKIP_WHERE_SANITIZED();
	const struct sandbox_spec spec = { .action = SANDBOX_TELL };
	char line[256] = "";
	int ends[2];
	cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
	const int before = dup(STDERR_FILENO);
	dup2(ends[1], STDERR_FILENO);
	kind = SANDBOX_VCPU;
	as_user = false;
	const int status = run_child(&spec, connects);
	dup2(before, STDERR_FILENO);
	cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 125, "status 0x%x", (unsigned)status);
	cr_expect(read(ends[0], line, sizeof(line) - 1) > 0);
	cr_expect_str_eq(line, "trvmm: sandbox: a thread of kind 'vCPU' made system call 41, which is not in its list\n");
}

Test(sandbox, does_nothing_before_it_is_closed)
{
	sandbox_enter(SANDBOX_VCPU);
	cr_expect(open("/etc/passwd", O_RDONLY | O_CLOEXEC) >= 0);
	cr_expect_null(sandbox_reaper_program());
}
