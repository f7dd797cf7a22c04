/*
 * The orders of backdoor.h, each by bare system calls: threads and the reaper's process, which has no thread-local storage, do them
 * alike.
 */
#include "tests/sandbox/backdoor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/thread.h"
#include "vmm/machine_internal.h"
#include "vmm/sandbox.h"

#define ANSWER_MS 2000
#define KIND_NONE 0xff

/* What is told to a thread that is waited for. */
static struct {
	_Atomic unsigned kind; /* KIND_NONE: there is no order */
	unsigned order;
	_Atomic long result;
} mailbox = { .kind = KIND_NONE };

/* From the environment, which is there before the sandbox closes. */
static struct {
	char home_file[256];
	struct sockaddr_in loopback;
	struct sockaddr_un socket, abstract;
	long parent;
	int listener; /* as one of -p */
	unsigned only; /* KIND_NONE: all kinds */
	void *page;
} targets = { .only = KIND_NONE };

static long call(long number, long a, long b, long c, long d, long e, long f)
{
	long result;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}

static long open_file(const char *path, long flags)
{
	return call(SYS_openat, AT_FDCWD, (long)path, flags | O_CLOEXEC, 0600, 0, 0);
}

static long connect_to(int family, const void *address, size_t length)
{
	const long fd = call(SYS_socket, family, SOCK_STREAM | SOCK_CLOEXEC, 0, 0, 0, 0);
	return fd < 0 ? fd : call(SYS_connect, fd, (long)address, (long)length, 0, 0, 0);
}

/* A socket that listened is as good as new when it is shut down, and this flag of sendmsg() is a connect(). */
static long turn_listener(void)
{
	struct iovec byte = { targets.page, 1 };
	struct msghdr message = {
		.msg_name = &targets.loopback, .msg_namelen = sizeof(targets.loopback), .msg_iov = &byte, .msg_iovlen = 1
	};
	const long result = call(SYS_shutdown, targets.listener, SHUT_RDWR, 0, 0, 0, 0);
	return result < 0 ? result : call(SYS_sendmsg, targets.listener, (long)&message, MSG_FASTOPEN | MSG_NOSIGNAL, 0, 0, 0);
}

static long make_process(void)
{
	const long pid = call(SYS_clone, SIGCHLD, 0, 0, 0, 0, 0);
	if (pid == 0)
		call(SYS_exit_group, 0, 0, 0, 0, 0, 0);
	return pid;
}

static long map_executable(void)
{
	return call(SYS_mmap, 0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
}

/* Negative: it could not be done. */
static long obey(unsigned order)
{
	static char *argv[] = { NULL };
	switch (order) {
	case BACKDOOR_OPEN_PASSWD:
		return open_file("/etc/passwd", O_RDONLY);
	case BACKDOOR_WRITE_HOME:
		return open_file(targets.home_file, O_WRONLY | O_CREAT);
	case BACKDOOR_CONNECT_LOOPBACK:
		return connect_to(AF_INET, &targets.loopback, sizeof(targets.loopback));
	case BACKDOOR_CONNECT_UNIX:
		return connect_to(AF_UNIX, &targets.socket, sizeof(targets.socket));
	case BACKDOOR_CONNECT_ABSTRACT:
		return connect_to(AF_UNIX, &targets.abstract,
				  offsetof(struct sockaddr_un, sun_path) + sizeof("\0trvmm-backdoor") - 1);
	case BACKDOOR_EXEC:
		return call(SYS_execve, (long)"/bin/sh", (long)argv, (long)argv, 0, 0, 0);
	case BACKDOOR_FORK:
		return make_process();
	case BACKDOOR_PTRACE_PARENT:
		return call(SYS_ptrace, 16 /* PTRACE_ATTACH */, targets.parent, 0, 0, 0, 0);
	case BACKDOOR_SIGNAL_PARENT:
		return call(SYS_kill, targets.parent, SIGURG, 0, 0, 0, 0);
	case BACKDOOR_MAP_EXECUTABLE:
		return map_executable();
	case BACKDOOR_MAKE_EXECUTABLE:
		return call(SYS_mprotect, (long)targets.page, 4096, PROT_READ | PROT_EXEC, 0, 0, 0);
	case BACKDOOR_LOAD_MODULE:
		return call(SYS_init_module, (long)targets.page, 4096, (long)"", 0, 0, 0);
	case BACKDOOR_OPEN_KVM:
		return open_file("/dev/kvm", O_RDWR);
	case BACKDOOR_BECOME_ROOT:
		return call(SYS_setresuid, 0, 0, 0, 0, 0, 0);
	case BACKDOOR_NEW_USER_NAMESPACE:
		return call(SYS_unshare, CLONE_NEWNS, 0, 0, 0, 0, 0);
	case BACKDOOR_READ_PROC:
		return open_file("/proc/1/environ", O_RDONLY);
	case BACKDOOR_IO_URING:
		return call(SYS_io_uring_setup, 1, (long)targets.page, 0, 0, 0, 0);
	case BACKDOOR_TYPE_FOR_THE_USER:
		return call(SYS_ioctl, STDIN_FILENO, TIOCSTI, (long)"x", 0, 0, 0);
	case BACKDOOR_TURN_LISTENER:
		return turn_listener();
	default:
		return -ENOSYS;
	}
}

static void obey_mailbox(unsigned kind)
{
	if (atomic_load(&mailbox.kind) != kind)
		return;
	const long result = obey(mailbox.order);
	atomic_store(&mailbox.result, result);
	atomic_store(&mailbox.kind, KIND_NONE);
}

void backdoor_poll_reaper(void)
{
	obey_mailbox(SANDBOX_REAPER);
}

static void obey_on_loop(void *arg)
{
	(void)arg;
	obey_mailbox(atomic_load(&mailbox.kind));
}

static void *waiting_thread(void *arg)
{
	const unsigned kind = (unsigned)(uintptr_t)arg;
	sandbox_enter((enum sandbox_kind)kind);
	for (;;) {
		obey_mailbox(kind);
		sched_yield();
	}
	return NULL;
}

static const char *setting(const char *name)
{
	const char *value = getenv(name);
	return value ? value : "";
}

void backdoor_prepare(void)
{
	const char *only = getenv("TRVMM_BACKDOOR_KILL");
	targets.parent = getppid();
	targets.only = only ? (unsigned)atoi(only) : KIND_NONE;
	targets.page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	targets.listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	listen(targets.listener, 1); /* at any port */
	snprintf(targets.home_file, sizeof(targets.home_file), "%s/written-by-the-guest", setting("HOME"));
	targets.loopback = (struct sockaddr_in){ .sin_family = AF_INET,
						 .sin_port = htons((uint16_t)atoi(setting("TRVMM_BACKDOOR_PORT"))),
						 .sin_addr = { htonl(INADDR_LOOPBACK) } };
	targets.socket.sun_family = targets.abstract.sun_family = AF_UNIX;
	snprintf(targets.socket.sun_path, sizeof(targets.socket.sun_path), "%s", setting("TRVMM_BACKDOOR_SOCKET"));
	memcpy(targets.abstract.sun_path, "\0trvmm-backdoor", sizeof("\0trvmm-backdoor"));
}

void backdoor_start_threads(void)
{
	static const enum sandbox_kind kinds[] = { SANDBOX_DISK_FILES, SANDBOX_FS, SANDBOX_RELAY };
	for (unsigned i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		pthread_t thread;
		if (targets.only == KIND_NONE || targets.only == kinds[i])
			thread_start(&thread, waiting_thread, (void *)(uintptr_t)kinds[i]);
	}
}

void backdoor_change_sandbox(struct sandbox_spec *spec)
{
	spec->action = getenv("TRVMM_BACKDOOR_KILL") ? SANDBOX_KILL : SANDBOX_REFUSE;
	spec->without = (unsigned)atoi(setting("TRVMM_BACKDOOR_WITHOUT"));
}

void backdoor_order(struct machine *machine, uint32_t order)
{
	const unsigned kind = order >> 8;
	if (targets.only != KIND_NONE && kind != targets.only) {
		atomic_store(&mailbox.result, -ECANCELED);
		return;
	}
	mailbox.order = order & 0xff;
	atomic_store(&mailbox.result, -ETIMEDOUT);
	atomic_store(&mailbox.kind, kind);
	if (kind == SANDBOX_VCPU)
		obey_mailbox(kind);
	else if (kind == SANDBOX_LOOP)
		loop_call(machine->loop, obey_on_loop, NULL);
	else if (kind == SANDBOX_DISK)
		loop_call(machine->attached[0].mmio.dev->loop, obey_on_loop, NULL);
	struct timespec begin, now;
	clock_gettime(CLOCK_MONOTONIC, &begin);
	do
		clock_gettime(CLOCK_MONOTONIC, &now);
	while (atomic_load(&mailbox.kind) != KIND_NONE && sched_yield() == 0 &&
	       (now.tv_sec - begin.tv_sec) * 1000 + (now.tv_nsec - begin.tv_nsec) / 1000000 < ANSWER_MS);
	atomic_store(&mailbox.kind, KIND_NONE);
}

uint32_t backdoor_result(void)
{
	const long result = atomic_load(&mailbox.result);
	return result < 0 ? (uint32_t)result : 0;
}
