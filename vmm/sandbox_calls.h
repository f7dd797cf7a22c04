/*
 * Which system calls each kind of thread may make, and why: the one place. What is not here ends the process.
 *
 * Read by sandbox_compile.c, which is run by the build and makes seccomp programs of it with libseccomp, and by nothing else. A row allows
 * a call to the kinds in it when all its conditions hold; several rows for one call add up. Pointers cannot be looked at by seccomp, so no
 * row depends on a name of a file: where one could be given, the other layers (an empty root, no network, Landlock) are what counts.
 */
#include <asm/ioctls.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/kvm.h>
#include <linux/memfd.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#define LOOP (1u << SANDBOX_LOOP)
#define VCPU (1u << SANDBOX_VCPU)
#define FILES (1u << SANDBOX_DISK_FILES)
#define DISK (1u << SANDBOX_DISK | FILES)
#define FS (1u << SANDBOX_FS)
#define RELAY (1u << SANDBOX_RELAY)
#define REAPER (1u << SANDBOX_REAPER)
#define KEEPER (1u << SANDBOX_KEEPER)
#define NBD (1u << SANDBOX_NBD)
#define THREADS (LOOP | VCPU | DISK | FS | RELAY) /* that share this process */
#define COMMON (THREADS | KEEPER | NBD)
#define ALL (COMMON | REAPER)

/* Conditions on the arguments, counted from 0. */
/* clang-format off */
#define ANY { 0, 0, 0 }
#define ANSWERED_BY(error) { 0, 0, error }
#define IS(argument, value) { argument, UINT64_MAX, value }
#define HAS_NONE_OF(argument, bits) { argument, bits, 0 }
/* Becomes the number of this process when the program is installed. */
#define IS_OURSELVES(argument) { argument, UINT64_MAX, SANDBOX_OWN_PID }
/* clang-format on */
/* What pthread_create() asks for. */
#define THREAD_FLAGS                                                                                                               \
	(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_SETTLS | CLONE_PARENT_SETTID |   \
	 CLONE_CHILD_CLEARTID)

static const struct sandbox_call sandbox_calls[] = {
	/* ---- what a thread is ---- */
	{ COMMON, "futex", { ANY }, "locks, conditions, joining" },
	{ COMMON, "exit", { ANY }, "the end of a thread" },
	{ ALL, "exit_group", { ANY }, "the end of the process, which is the end of the VM" },
	{ COMMON, "restart_syscall", { ANY }, "the kernel's own, after a stop" },
	{ COMMON, "rt_sigreturn", { ANY }, "the end of a signal handler" },
	{ COMMON, "rt_sigprocmask", { ANY }, "raise(), the end of a thread" },
	{ COMMON, "sched_yield", { ANY }, "spinning libraries" },
	{ COMMON, "sched_getaffinity", { ANY }, "malloc() asks how many processors there are" },
	{ COMMON, "sysinfo", { ANY }, "qsort() asks how much memory there is" },
	{ COMMON, "getpid", { ANY }, "raise()" },
	{ COMMON, "gettid", { ANY }, "raise()" },
	{ COMMON, "tgkill", { IS_OURSELVES(0) }, "raise(): abort(), the default of a signal that was caught" },
	{ THREADS, "kill", { IS_OURSELVES(0) }, "terminal.c: the size may have changed while we were stopped" },
	{ LOOP, "rt_sigaction", { ANY }, "terminal.c: what a stop and a continuation do" },

	/* ---- memory: none that can be executed ---- */
	{ COMMON, "mmap", { HAS_NONE_OF(2, PROT_EXEC) }, "malloc(), buffers; dax: files in the window" },
	{ COMMON, "mprotect", { HAS_NONE_OF(2, PROT_EXEC) }, "malloc(); dax: what is behind the end of a file" },
	{ COMMON, "munmap", { ANY }, "free()" },
	{ COMMON, "mremap", { ANY }, "realloc(); dax: a file takes its place in the window" },
	{ COMMON, "brk", { ANY }, "malloc()" },
	{ COMMON, "madvise", { ANY }, "free(), the end of a thread's stack" },

	/* ---- time ---- */
	{ COMMON, "clock_gettime", { ANY }, "processor time; the rest where the vDSO does not answer" },
	{ COMMON, "gettimeofday", { ANY }, "where the vDSO does not answer" },
	{ COMMON, "time", { ANY }, "where the vDSO does not answer" },
	{ VCPU | DISK | FS, "clock_nanosleep", { ANY }, "limits: a guest that has used up its share waits" },
	{ LOOP | DISK | FS, "timerfd_create", { ANY }, "timeouts of vsock, a session's grace" },
	{ LOOP | DISK | FS, "timerfd_settime", { ANY }, "the same" },

	/* ---- KVM: to run, and to interrupt ---- */
	{ VCPU, "ioctl", { IS(1, KVM_RUN) }, "the guest" },
	{ VCPU, "ioctl", { IS(1, KVM_X86_SET_MCE) }, "dax: a file of the host is shorter than the guest knew" },
	{ LOOP | VCPU | DISK | FS, "ioctl", { IS(1, KVM_SIGNAL_MSI) }, "a device's interrupt" },

	/* ---- the terminal; TIOCSTI, which types for the user, is not here ---- */
	{ LOOP | VCPU | DISK | FS | RELAY, "ioctl", { IS(1, TCGETS) }, "isatty()" },
	{ LOOP | VCPU | DISK | FS | RELAY | REAPER, "ioctl", { IS(1, TCSETS) }, "raw mode and back, also when a signal ends us" },
	{ LOOP | VCPU | DISK | FS | RELAY | REAPER, "ioctl", { IS(1, TIOCGPGRP) }, "whose the terminal is" },
	{ LOOP | VCPU | DISK | FS | RELAY, "getpgrp", { ANY }, "the same" },
	{ REAPER, "getpgid", { IS(0, 0) }, "the same" },
	{ LOOP, "ioctl", { IS(1, TIOCGWINSZ) }, "its size" },
	{ LOOP, "ioctl", { IS(1, FIONREAD) }, "vsock: whether more follows" },

	/* ---- descriptors that are open ---- */
	{ COMMON, "read", { ANY }, "eventfds, pipes, terminals" },
	{ COMMON, "write", { ANY }, "the same, and messages" },
	{ COMMON, "close", { ANY }, "connections end" },
	{ ALL, "poll", { ANY }, "waiting; whether stderr takes a message" },
	{ LOOP | DISK | FS, "epoll_wait", { ANY }, "the event loop" },
	{ LOOP | DISK | FS, "epoll_pwait", { ANY }, "the same, on other C libraries" },
	{ LOOP | DISK | FS, "epoll_ctl", { ANY }, "the same" },
	{ LOOP, "epoll_create1", { ANY }, "stdio.c asks whether a descriptor can be waited for" },
	{ LOOP | DISK | FS | KEEPER, "fstat", { ANY }, "what a descriptor is; whether a layer was changed" },
	{ LOOP | DISK | FS | KEEPER, "newfstatat", { IS(3, AT_EMPTY_PATH) }, "the same, on other C libraries" },
	{ LOOP | FS, "readv", { ANY }, "pipes and terminals to the guest" },
	{ LOOP | FS, "writev", { ANY }, "and from it" },
	{ LOOP | FS, "fcntl", { IS(1, F_GETFL) }, "whether a stream blocks" },
	{ LOOP | FS, "fcntl", { IS(1, F_DUPFD_CLOEXEC) }, "a stream of its own for a session" },
	{ LOOP, "dup2", { ANY }, "-d: standard streams when the caller is let go" },
	{ LOOP, "close_range", { ANY }, "the end: nobody is to wait for our pipes" },
	{ LOOP, "eventfd2", { ANY }, "a loop_call() from a new place" },

	/* ---- disks ---- */
	{ LOOP | DISK | FS, "pread64", { ANY }, "layers, kept disks, changes; /proc/self/statm for trvmm stats" },
	{ DISK | FS, "preadv", { ANY }, "the same" },
	{ DISK | FS, "pwrite64", { ANY }, "changes" },
	{ DISK | FS | KEEPER, "pwritev", { ANY }, "changes; the log" },
	{ DISK | FS, "fallocate", { ANY }, "what was discarded gives its room back" },
	{ DISK | FS | KEEPER, "ftruncate", { ANY }, "the size of the memory file that changes go to; the log" },
	{ DISK | FS, "fdatasync", { ANY }, "the guest's flush, on a kept disk" },
	{ DISK | FS, "lseek", { ANY }, "holes" },
	{ DISK, "utimensat", { IS(1, 0) }, "of a descriptor: an inflated layer that turns out to be damaged is marked" },
	{ DISK, "memfd_create", { IS(1, MFD_CLOEXEC) }, "the changes of a disk, at the first one" },
	{ DISK, "sendto", { IS(4, 0) }, "requests to trvmm-nbd" },
	{ DISK, "recvfrom", { IS(4, 0) }, "and its answers" },

	/* ---- shared memory of devices ---- */
	{ DISK | FS, "process_vm_readv", { IS_OURSELVES(0) }, "dax: what a guest's program writes from a file that it has mapped" },
	{ DISK | FS, "process_vm_writev", { IS_OURSELVES(0) }, "dax: and reads to it" },

	/* ---- host directories as layers: beneath descriptors, read-only; Landlock knows which ---- */
	{ FILES, "openat2", { ANY }, "a file of a layer that is a directory" },
	{ FILES, "openat", { HAS_NONE_OF(2, O_WRONLY | O_RDWR | O_CREAT | O_TRUNC) }, "the same, before Linux 5.6" },

	/* ---- shared directories: in all ways, beneath descriptors; Landlock knows which ---- */
	{ FS, "openat2", { ANY }, "names, one component each" },
	{ FS, "openat", { ANY }, "an O_PATH descriptor is opened for real, through that of /proc/self/fd" },
	{ FS, "statx", { ANY }, "attributes" },
	{ FS, "fstatfs", { ANY }, "STATFS" },
	{ FS, "getdents64", { ANY }, "READDIR" },
	{ FS, "readlinkat", { ANY }, "READLINK" },
	{ FS, "mkdirat", { ANY }, "MKDIR" },
	{ FS, "mknodat", { ANY }, "MKNOD: fifos, sockets, regular files" },
	{ FS, "symlinkat", { ANY }, "SYMLINK" },
	{ FS, "linkat", { ANY }, "LINK" },
	{ FS, "unlinkat", { ANY }, "UNLINK, RMDIR" },
	{ FS, "renameat2", { ANY }, "RENAME" },
	{ FS, "renameat", { ANY }, "the same without flags, as the C library does it" },
	{ FS, "fchmodat", { ANY }, "SETATTR, through /proc/self/fd" },
	{ FS, "fchownat", { ANY }, "the same" },
	{ FS, "utimensat", { ANY }, "the same" },
	{ FS, "fsync", { ANY }, "FSYNC" },
	{ FS, "preadv2", { ANY }, "READ" },
	{ FS, "pwritev2", { ANY }, "WRITE" },
	{ FS, "copy_file_range", { ANY }, "COPY_FILE_RANGE" },
	{ FS, "fgetxattr", { ANY }, "GETXATTR" },
	{ FS, "fsetxattr", { ANY }, "SETXATTR" },
	{ FS, "flistxattr", { ANY }, "LISTXATTR" },
	{ FS, "fremovexattr", { ANY }, "REMOVEXATTR" },
	{ FS, "syncfs", { ANY }, "SYNCFS" },
	{ FS, "capget", { ANY }, "what a thread with the guest's user's number lost" },
	{ FS, "capset", { ANY }, "and takes back of what it had" },
	{ FS, "unshare", { IS(0, CLONE_FS) }, "a umask of its own" },
	{ FS, "umask", { ANY }, "none" },
	{ FS, "clone", { IS(0, THREAD_FLAGS) }, "a thread more while others are busy; never a process" },
	{ FS, "clone3", { ANSWERED_BY(ENOSYS) }, "whose flags cannot be looked at: the C library takes clone() then" },
	{ FS | KEEPER, "set_robust_list", { ANY }, "a new thread; the log's may begin when the keeper is confined already" },
	{ FS | KEEPER, "rseq", { ANY }, "the same" },
	{ FS, "setfsuid", { ANY }, "a file that the guest makes belongs to the guest's user" },
	{ FS, "setfsgid", { ANY }, "the same" },

	/* ---- connections: what listens is listening, and there is no socket() and no connect() ---- */
	/* A listener that is shut down is an ordinary socket, which MSG_FASTOPEN connects to any address; Landlock does not look there. */
	{ LOOP | KEEPER, "sendmsg", { HAS_NONE_OF(2, MSG_FASTOPEN) }, "vsock, clients, requests to the keeper" },
	{ LOOP | KEEPER, "recvmsg", { ANY }, "the same; clients of trvmm exec send their streams" },
	{ LOOP, "sendto", { IS(4, 0) }, "sessions, ports: to no other address" },
	{ LOOP, "recvfrom", { IS(4, 0) }, "the same" },
	{ LOOP, "accept4", { ANY }, "clients of ports, of --vsock, of a named machine" },
	{ LOOP, "shutdown", { ANY }, "one direction of a connection has ended" },
	{ LOOP,
	  "socketpair",
	  { IS(0, AF_UNIX), IS(1, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC) },
	  "a session and the vsock device" },
	{ LOOP, "setsockopt", { IS(1, SOL_SOCKET), IS(2, SO_LINGER) }, "ports: a refusal is a reset" },
	{ LOOP, "setsockopt", { IS(1, SOL_SOCKET), IS(2, SO_SNDBUF) }, "vsock: room for a whole packet" },
	{ LOOP, "setsockopt", { IS(1, IPPROTO_TCP), IS(2, TCP_NODELAY) }, "ports" },
	{ LOOP, "getsockopt", { IS(1, SOL_SOCKET), IS(2, SO_PEERCRED) }, "who asks a named machine" },
	{ LOOP, "getsockopt", { IS(1, SOL_SOCKET), IS(2, SO_ERROR) }, "why a connection failed" },
	{ LOOP, "prctl", { IS(0, PR_SET_PDEATHSIG), IS(1, 0) }, "-d: the caller may go" },

	/* ---- the keeper: the few names that a run has outside; it takes no orders but three (keeper.h) ---- */
	{ KEEPER, "socket", { IS(0, AF_UNIX) }, "the guest connects to PATH_PORT" },
	{ KEEPER, "connect", { ANY }, "the same" },
	{ KEEPER, "openat", { ANY }, "log files; what is in a folder that is removed" },
	{ KEEPER, "renameat", { ANY }, "log.1; a name that is given back" },
	{ KEEPER, "unlinkat", { ANY }, "a machine's folder" },
	{ KEEPER, "unlink", { ANY }, "the socket of --vsock" },
	{ KEEPER, "getdents64", { ANY }, "what is in a folder that is removed" },
	{ KEEPER, "fcntl", { ANY }, "descriptors of the log, opendir()" },
	{ KEEPER, "lseek", { ANY }, "opendir()" },
	{ KEEPER, "newfstatat", { ANY }, "whether a folder is still ours" },
	{ KEEPER, "getrandom", { ANY }, "the name of a folder that is being removed" },

	/* ---- trvmm-nbd: one connection, which its connector makes; no socket() and no connect() ---- */
	{ NBD, "recvfrom", { IS(4, 0) }, "the server, and trvmm's requests" },
	{ NBD, "sendto", { IS(4, 0) }, "to the same" },
	{ NBD, "recvmsg", { ANY }, "connections from the connector" },
	{ NBD, "shutdown", { ANY }, "the end of a connection" },
	{ NBD, "fcntl", { IS(1, F_GETFL) }, "a new connection is not to block" },
	{ NBD, "fcntl", { IS(1, F_SETFL) }, "the same" },
	{ NBD, "fcntl", { IS(1, F_GETFD) }, "and is to be closed by exec" },
	{ NBD, "fcntl", { IS(1, F_SETFD) }, "the same" },
};
