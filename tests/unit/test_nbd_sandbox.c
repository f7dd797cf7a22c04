/*
 * trvmm-nbd in its sandbox: the program of the product, with a server that is nbdkit. What somebody could do who has taken it over is tried
 * in that very process: the test stops it as a debugger does, which only root can, and has it make a system call. It also connects, and
 * again.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/landlock.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include "devices/virtio-blk/disk_nbd.h"
#include "tests/unit/nbd_server.h"

#define UID_ORDINARY 1000
#define PORT_TEXT 8

static char folder[] = "/tmp/trvmm-nbd-sandbox-XXXXXX";
static char program[64], uri[128], port[PORT_TEXT];

static void shell(const char *command)
{
	cr_assert(system(command) == 0, "%s", command);
}

/* Where an ordinary user can run it, wherever the build is. */
static void copy_program(void)
{
	char own[PATH_MAX], command[2 * PATH_MAX];
	const ssize_t length = readlink("/proc/self/exe", own, sizeof(own) - 1);
	cr_assert(length > 0);
	own[length] = '\0';
	*strrchr(own, '/') = '\0';
	cr_assert(mkdtemp(folder) && chmod(folder, 0755) == 0);
	snprintf(program, sizeof(program), "%s/trvmm-nbd", folder);
	snprintf(command, sizeof(command), "cp %s/../trvmm-nbd %s", own, program);
	shell(command);
}

static void choose_port(void)
{
	struct sockaddr_in address = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t length = sizeof(address);
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert(bind(fd, (const struct sockaddr *)&address, length) == 0);
	cr_assert(getsockname(fd, (struct sockaddr *)&address, &length) == 0);
	snprintf(port, sizeof(port), "%u", ntohs(address.sin_port));
	close(fd);
	snprintf(uri, sizeof(uri), "nbd://localhost:%s/an%%20export", port);
}

/* With an export whose name is not the default's. */
static void serve(void)
{
	char pid_file[64];
	snprintf(pid_file, sizeof(pid_file), "%s/pid", folder);
	const char *const argv[] = { "nbdkit",
				     "-f",
				     "--exit-with-parent",
				     "-i",
				     "localhost",
				     "-p",
				     port,
				     "-P",
				     pid_file,
				     "--filter=exportname",
				     "memory",
				     "8M",
				     "exportname=an export",
				     "exportname-strict=true",
				     NULL };
	nbd_server_start(argv, pid_file);
}

static void set_up(void)
{
	copy_program();
	choose_port();
}

static void clean_up(void)
{
	char command[64];
	nbd_server_stop();
	snprintf(command, sizeof(command), "rm -r %s", folder);
	shell(command);
}
TestSuite(nbd_sandbox, .init = set_up, .fini = clean_up, .timeout = 60);

static pid_t child_of(pid_t parent)
{
	char command[64];
	int pid = 0;
	snprintf(command, sizeof(command), "pgrep -P %d trvmm-nbd", (int)parent);
	FILE *output = popen(command, "r");
	cr_assert(output);
	const int count = fscanf(output, "%d", &pid);
	pclose(output);
	return count == 1 ? pid : 0;
}

/* A process that has the disk open, as trvmm has. */
struct owner {
	pid_t pid, client;
};

static struct owner open_disk(const char *sandbox, bool as_user)
{
	struct owner owner;
	int ends[2];
	char ready = 0;
	cr_assert(pipe2(ends, O_CLOEXEC) == 0);
	owner.pid = fork();
	if (owner.pid == 0) {
		struct disk *disk;
		struct error err = { "" };
		if (as_user &&
		    (setresgid(UID_ORDINARY, UID_ORDINARY, UID_ORDINARY) || setresuid(UID_ORDINARY, UID_ORDINARY, UID_ORDINARY)))
			_exit(1);
		if (disk_nbd_open(program, sandbox, uri, false, &disk, &err) < 0) {
			message("%s", err.text);
			_exit(1);
		}
		if (write(ends[1], "r", 1) == 1)
			pause();
		_exit(0);
	}
	close(ends[1]);
	cr_assert(read(ends[0], &ready, 1) == 1, "the disk cannot be opened");
	close(ends[0]);
	owner.client = child_of(owner.pid);
	cr_assert(owner.client > 0);
	return owner;
}

static void close_disk(const struct owner *owner)
{
	kill(owner->client, SIGKILL); /* which may be stopped */
	kill(owner->pid, SIGKILL);
	waitpid(owner->pid, NULL, 0);
}

/* ---- orders ------------------------------------------------------------------------------------------------------------------ */

#define PARENT (-1000) /* an argument: the number of the process that started it */
#define TEXT (-1001) /* ... the address of the path below, in its memory */
#define PATH_THERE "/etc/passwd\0\0\0\0"

struct order {
	const char *name;
	long number;
	long arguments[6];
};

static const struct order orders[] = {
	{ "open a file", SYS_open, { TEXT, O_RDONLY } },
	{ "open a file below a descriptor", SYS_openat, { AT_FDCWD, TEXT, O_RDONLY } },
	{ "open a file, newly", SYS_openat2, { AT_FDCWD, TEXT, TEXT, 24 } },
	{ "remove a file", SYS_unlink, { TEXT } },
	{ "start a program", SYS_execve, { TEXT, 0, 0 } },
	{ "start a process", SYS_clone, { SIGCHLD } },
	{ "signal its parent", SYS_kill, { PARENT, SIGTERM } },
	{ "signal a thread of its parent", SYS_tgkill, { PARENT, PARENT, SIGTERM } },
	{ "trace its parent", SYS_ptrace, { PTRACE_ATTACH, PARENT } },
	{ "read its parent's memory", SYS_process_vm_readv, { PARENT } },
	{ "make a network socket", SYS_socket, { AF_INET, SOCK_STREAM } },
	{ "make a Unix socket", SYS_socket, { AF_UNIX, SOCK_STREAM } },
	{ "connect", SYS_connect, { 3, TEXT, 16 } },
	{ "send to an address", SYS_sendto, { 3, TEXT, 1, 0, TEXT, 16 } },
	{ "map executable memory", SYS_mmap, { 0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0 } },
	{ "duplicate a descriptor over another", SYS_dup2, { 0, 3 } },
	{ "use a device", SYS_ioctl, { 0, 0x5412 /* TIOCSTI */, TEXT } },
	{ "make a user namespace", SYS_unshare, { CLONE_NEWUSER } },
};

static int wait_for(pid_t pid)
{
	int status = 0;
	while (waitpid(pid, &status, __WALL) < 0 && errno == EINTR)
		;
	return status;
}

/* Has the process, which waits in a system call, make another one. Returns false when that was its end, else what came of it. */
static bool have_it_call(const struct owner *owner, const struct order *order, long *result, int *status)
{
	struct user_regs_struct regs;
	long arguments[6];
	const pid_t pid = owner->client;
	cr_assert(ptrace(PTRACE_ATTACH, pid, 0, 0) == 0, "%s", strerror(errno));
	cr_assert(WIFSTOPPED(wait_for(pid)));
	cr_assert(ptrace(PTRACE_GETREGS, pid, 0, &regs) == 0);
	const unsigned long text = (regs.rsp - 1024) & ~15ul;
	cr_assert((ptrace(PTRACE_PEEKTEXT, pid, regs.rip - 2, 0) & 0xffff) == 0x050f, "it is not in a system call");
	for (size_t i = 0; i < sizeof(PATH_THERE) - 1; i += sizeof(long)) {
		long word = 0;
		memcpy(&word, PATH_THERE + i, i + sizeof(word) <= sizeof(PATH_THERE) ? sizeof(word) : sizeof(PATH_THERE) - i);
		cr_assert(ptrace(PTRACE_POKEDATA, pid, text + i, word) == 0);
	}
	for (unsigned i = 0; i < 6; i++) {
		const long wanted = order->arguments[i];
		arguments[i] = wanted == PARENT ? owner->pid : wanted == TEXT ? (long)text : wanted;
	}
	regs.rip -= 2;
	regs.orig_rax = -1ul;
	regs.rax = (unsigned long)order->number;
	regs.rdi = (unsigned long)arguments[0];
	regs.rsi = (unsigned long)arguments[1];
	regs.rdx = (unsigned long)arguments[2];
	regs.r10 = (unsigned long)arguments[3];
	regs.r8 = (unsigned long)arguments[4];
	regs.r9 = (unsigned long)arguments[5];
	cr_assert(ptrace(PTRACE_SETREGS, pid, 0, &regs) == 0);
	for (unsigned stops = 0; stops < 3;
	     stops++) { /* before it, behind it, and before the next one, which nothing reaches that was killed */
		if (stops == 2) {
			cr_assert(ptrace(PTRACE_GETREGS, pid, 0, &regs) == 0);
			*result = (long)regs.rax;
		}
		cr_assert(ptrace(PTRACE_SYSCALL, pid, 0, 0) == 0);
		*status = wait_for(pid);
		if (!WIFSTOPPED(*status))
			return false;
	}
	return true;
}

static void try_orders(bool as_user)
{
	static const struct order harmless = { "tell its number", SYS_getpid, { 0 } };
	long result = 0;
	int status = 0;
	struct owner owner = open_disk("--sandbox", as_user);
	cr_assert(have_it_call(&owner, &harmless, &result, &status) && result == owner.client, "orders are truly carried out");
	close_disk(&owner);
	for (size_t i = 0; i < sizeof(orders) / sizeof(orders[0]); i++) {
		owner = open_disk("--sandbox", as_user);
		const bool lives = have_it_call(&owner, &orders[i], &result, &status);
		cr_expect(!lives && WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS, "%s%s: status 0x%x, result %ld",
			  orders[i].name, as_user ? ", as an ordinary user" : "", (unsigned)status, result);
		close_disk(&owner);
	}
	/* The same is possible where it may be. */
	owner = open_disk("--no-sandbox", as_user);
	cr_expect(have_it_call(&owner, &orders[0], &result, &status) && result >= 0, "%ld", result);
	close_disk(&owner);
}

Test(nbd_sandbox, orders_of_whoever_took_it_over_end_it)
{
	if (geteuid() != 0)
		cr_skip_test("needs root");
	serve();
	try_orders(false);
	try_orders(true);
}

/* ---- the other layers -------------------------------------------------------------------------------------------------------- */

static long long status_of(pid_t pid, const char *name, int base)
{
	char path[64], line[256];
	long long value = -1;
	snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
	FILE *file = fopen(path, "r");
	cr_assert(file);
	while (fgets(line, sizeof(line), file))
		if (!strncmp(line, name, strlen(name)) && line[strlen(name)] == ':')
			value = strtoll(line + strlen(name) + 1, NULL, base);
	fclose(file);
	return value;
}

/* How many names there are but "." and ".."; the targets of links may be no path but /dev/null and that of our stderr. */
static unsigned count_names(pid_t pid, const char *what, bool links)
{
	char path[80], target[256], own[256];
	unsigned count = 0;
	snprintf(path, sizeof(path), "/proc/%d/%s", (int)pid, what);
	DIR *listing = opendir(path);
	cr_assert(listing, "%s: %s", path, strerror(errno));
	const ssize_t own_length = readlink("/proc/self/fd/2", own, sizeof(own));
	for (const struct dirent *item; (item = readdir(listing));) {
		if (item->d_name[0] == '.')
			continue;
		count++;
		const ssize_t length = links ? readlinkat(dirfd(listing), item->d_name, target, sizeof(target) - 1) : 0;
		target[length > 0 ? length : 0] = '\0';
		cr_expect(target[0] != '/' || !strcmp(target, "/dev/null") ||
			      (length == own_length && !memcmp(target, own, (size_t)length)),
			  "descriptor %s is %s", item->d_name, target);
	}
	closedir(listing);
	return count;
}

Test(nbd_sandbox, nothing_is_left_to_it)
{
	if (geteuid() != 0)
		cr_skip_test("needs root");
	serve();
	for (int as_user = 0; as_user < 2; as_user++) {
		const struct owner owner = open_disk("--sandbox", as_user);
		cr_expect_eq(status_of(owner.client, "Seccomp", 10), 2);
		cr_expect_eq(status_of(owner.client, "NoNewPrivs", 10), 1);
		cr_expect_eq(status_of(owner.client, "CapPrm", 16), 0);
		cr_expect_eq(status_of(owner.client, "CapBnd", 16), 0);
		cr_expect_eq(status_of(owner.client, "Threads", 10), 1);
		cr_expect_eq(status_of(owner.client, "Uid", 10), as_user ? UID_ORDINARY : 0x7c000000 + (int)owner.client);
		if (!as_user) /* users may have no namespaces */
			cr_expect_eq(count_names(owner.client, "root", false), 0, "its root is not empty");
		/* Three streams, trvmm, the connector, the server. */
		cr_expect_eq(count_names(owner.client, "fd", true), 6);
		close_disk(&owner);
	}
	const struct owner owner = open_disk("--no-sandbox", false);
	cr_expect_eq(status_of(owner.client, "Seccomp", 10), 0);
	cr_expect(count_names(owner.client, "root", false) > 0);
	close_disk(&owner);
}

/* ---- the connector, which stays outside --------------------------------------------------------------------------------------- */

/* Of an order to a connector that is started for it. */
static long connector_does(const struct order *order, bool as_user)
{
	struct owner owner = open_disk("--sandbox", as_user);
	const pid_t client = owner.client;
	long result = 0;
	int status = 0;
	owner.client = child_of(client);
	cr_assert(owner.client > 0);
	cr_expect_eq(status_of(owner.client, "NoNewPrivs", 10), 1);
	cr_expect_eq(status_of(owner.client, "CapPrm", 16), as_user ? 0 : (1 << CAP_DAC_OVERRIDE | 1 << CAP_DAC_READ_SEARCH));
	const bool lives = have_it_call(&owner, order, &result, &status);
	kill(owner.client, SIGKILL);
	owner.client = client;
	close_disk(&owner);
	cr_expect(lives, "%s: status 0x%x", order->name, (unsigned)status);
	return result;
}

Test(nbd_sandbox, the_connector_can_read_and_connect_and_no_more)
{
	static const struct order reads = { "open a file", SYS_openat, { AT_FDCWD, TEXT, O_RDONLY } };
	static const struct order connects = { "make a network socket", SYS_socket, { AF_INET, SOCK_STREAM } };
	static const struct order writes = { "open a file to write", SYS_openat, { AT_FDCWD, TEXT, O_WRONLY } };
	static const struct order traces = { "trace its parent", SYS_ptrace, { PTRACE_ATTACH, PARENT } };
	static const struct order unshares = { "make a mount namespace", SYS_unshare, { CLONE_NEWNS } };
	if (geteuid() != 0)
		cr_skip_test("needs root");
	const bool landlock = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION) > 0;
	serve();
	for (int as_user = 0; as_user < 2; as_user++) {
		cr_expect(connector_does(&reads, as_user) >= 0);
		cr_expect(connector_does(&connects, as_user) >= 0);
		cr_expect_eq(connector_does(&unshares, as_user), -EPERM);
		if (landlock) { /* an ordinary user may not write to that file in any case */
			cr_expect_eq(connector_does(&writes, as_user), -EACCES);
			cr_expect_eq(connector_does(&traces, as_user), -EPERM);
		}
	}
}

/* ---- it works, and ends ------------------------------------------------------------------------------------------------------ */

static int read_sector(struct disk *disk)
{
	uint8_t bytes[512];
	const struct iovec iov = { bytes, sizeof(bytes) };
	return disk->ops->readv(disk, 0, &iov, 1);
}

/* Whether there is a program behind it: a process that ended has none, whoever is to wait for it. */
static bool runs(pid_t pid)
{
	char path[64], target[PATH_MAX];
	snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
	return readlink(path, target, sizeof(target)) > 0;
}

static void connects_and_reconnects(void)
{
	struct disk *disk = NULL;
	struct error err = { "" };
	serve();
	cr_assert(disk_nbd_open(program, "--sandbox", uri, false, &disk, &err) == 0, "%s", err.text);
	cr_assert(disk->size_bytes == 8 << 20 && read_sector(disk) == 0);
	cr_assert_eq(status_of(child_of(getpid()), "Seccomp", 10), 2);
	for (int life = 0; life < 2; life++) {
		nbd_server_stop();
		cr_assert(read_sector(disk) == -EIO);
		serve();
		int rc = -EIO;
		for (int i = 0; i < 200 && rc; i++) {
			usleep(50000);
			rc = read_sector(disk);
		}
		cr_assert(rc == 0);
	}
	/* Its connector ends with it. */
	const pid_t connector = child_of(child_of(getpid()));
	cr_assert(connector > 0 && runs(connector));
	disk_destroy(disk);
	for (int i = 0; i < 200 && runs(connector); i++)
		usleep(10000);
	cr_assert(!runs(connector), "process %d is left over", (int)connector);
	nbd_server_stop();
}

Test(nbd_sandbox, finds_its_server_by_name_and_again)
{
	connects_and_reconnects();
}

Test(nbd_sandbox, finds_its_server_by_number_and_again)
{
	snprintf(uri, sizeof(uri), "nbd://someone@127.0.0.1:%s/an%%20export?unknown=1", port);
	connects_and_reconnects();
}

Test(nbd_sandbox, what_is_no_place_is_refused)
{
	static const struct {
		const char *uri, *why;
	} cases[] = {
		{ "nbdx://host/x", "no URI" },
		{ "nbdx+unix:///x?socket=/y", "no URI" },
		{ "nbd+unix+unix:///x?socket=/y", "no URI" },
		{ "nbd:/x", "no URI" },
		{ "nbd://[::1/x", "host or port" },
		{ "nbd://[::1]x/", "host or port" },
		{ "nbd://host:port/", "host or port" },
		{ "nbd://host:65536/", "host or port" },
		{ "nbd://host:0/", "host or port" },
		{ "nbd://host/%zz", "name that no export can have" },
		{ "nbd://host/%00", "name that no export can have" },
		{ "nbd://host/%4", "name that no export can have" },
		{ "nbd://host/x?socket=/y", "?socket=PATH" },
		{ "nbd+unix:///x", "?socket=PATH" },
		{ "nbd+unix:///x?socket=%", "no socket can have" },
		{ "nbd+unix:///?socket=/"
		  "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"
		  "xxx",
		  "no socket can have" },
		{ "nbd://no-such-host.invalid/x", "no-such-host.invalid" },
		{ "nbd+unix:///x?a=b&socket=/no%2fsuch#socket=/y", "No such file" },
	};
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct disk *disk;
		struct error err = { "" };
		cr_expect(disk_nbd_open(program, "--sandbox", cases[i].uri, false, &disk, &err) < 0, "%s", cases[i].uri);
		cr_expect(strstr(err.text, cases[i].why), "%s: %s", cases[i].uri, err.text);
	}
}
