/*
 * The LD_PRELOAD library of `make faults`: it makes the n-th call of one function fail, and counts the calls of all.
 *
 *   FAULT_CALL    the function, as in the table below; none: nothing fails
 *   FAULT_AT      which call of it fails, from 1 on; those of child processes count, too
 *   FAULT_HOW     error (default): with the errno of the table; eintr: with EINTR; short: one byte is moved, of reads and writes only
 *   FAULT_REPORT  a file of struct report, where the counts are kept however the process ends
 *
 * What the C library calls inside itself is not seen (stdio's own reads and writes), malloc is, by whomever.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* The functions, and with what they fail. tests/faults/run reads this list. */
#define CALLS(X)                                                                                                                   \
	X(malloc, ENOMEM)                                                                                                          \
	X(read, EIO)                                                                                                               \
	X(write, ENOSPC)                                                                                                           \
	X(mmap, ENOMEM)                                                                                                            \
	X(ioctl, EIO)                                                                                                              \
	X(open, EMFILE)                                                                                                            \
	X(epoll_ctl, ENOMEM)                                                                                                       \
	X(eventfd, EMFILE)                                                                                                         \
	X(memfd_create, EMFILE)                                                                                                    \
	X(fstat, EIO)                                                                                                              \
	X(ftruncate, ENOSPC)                                                                                                       \
	X(fallocate, ENOSPC)                                                                                                       \
	X(rename, EIO)                                                                                                             \
	X(mkdir, EACCES)                                                                                                           \
	X(socket, EMFILE)                                                                                                          \
	X(pthread_create, EAGAIN)                                                                                                  \
	X(syscall, EPERM)                                                                                                          \
	X(unshare, EPERM)                                                                                                          \
	X(mount, EPERM)                                                                                                            \
	X(prctl, EPERM)

enum call {
#define X(name, error) CALL_##name,
	CALLS(X)
#undef X
	    CALL_COUNT
};

static const struct {
	const char *name;
	int error;
} calls[] = {
#define X(name, error) { #name, error },
	CALLS(X)
#undef X
};

struct report {
	_Atomic uint32_t counts[CALL_COUNT];
	_Atomic uint32_t failed; /* 1: the call was made to fail */
};

enum how { HOW_ERROR, HOW_EINTR, HOW_SHORT };

static struct report no_report, *report = &no_report;
static int chosen = -1;
static uint32_t at;
static enum how how;
static bool ready;

__attribute__((constructor)) static void shim_start(void)
{
	const char *name = getenv("FAULT_CALL"), *number = getenv("FAULT_AT"), *mode = getenv("FAULT_HOW"),
		   *path = getenv("FAULT_REPORT");
	for (int i = 0; name && i < (int)CALL_COUNT; i++)
		if (!strcmp(name, calls[i].name))
			chosen = i;
	at = number ? (uint32_t)strtoul(number, NULL, 10) : 0;
	how = !mode || !strcmp(mode, "error") ? HOW_ERROR : !strcmp(mode, "eintr") ? HOW_EINTR : HOW_SHORT;
	int (*const real_open)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
	const int fd = path ? real_open(path, O_RDWR | O_CLOEXEC) : -1;
	void *(*const real_mmap)(void *, size_t, int, int, int, off_t) = dlsym(RTLD_NEXT, "mmap");
	void *map = fd < 0 ? MAP_FAILED : real_mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map != MAP_FAILED)
		report = map;
	if (fd >= 0)
		close(fd);
	ready = true;
}

/* Counts a call; true when it is the one that fails. */
static bool fails(enum call call)
{
	if (!ready)
		return false;
	const uint32_t number = atomic_fetch_add(&report->counts[call], 1) + 1;
	if ((int)call != chosen || number != at)
		return false;
	atomic_store(&report->failed, 1);
	errno = how == HOW_EINTR ? EINTR : calls[call].error;
	return true;
}

#define REAL(name) ((__typeof__(&name))real_function(&real_##name, #name))
static void *real_function(void *_Atomic *kept, const char *name)
{
	void *found = atomic_load(kept);
	if (!found) {
		found = dlsym(RTLD_NEXT, name);
		atomic_store(kept, found);
	}
	return found;
}
#define KEPT(name) static void *_Atomic real_##name

/* ---- memory: the C library's own names for its functions, as dlsym() may allocate ---- */

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *block, size_t size);

void *malloc(size_t size)
{
	return fails(CALL_malloc) ? NULL : __libc_malloc(size);
}

void *calloc(size_t count, size_t size)
{
	return fails(CALL_malloc) ? NULL : __libc_calloc(count, size);
}

void *realloc(void *block, size_t size)
{
	return fails(CALL_malloc) ? NULL : __libc_realloc(block, size);
}

KEPT(mmap);
void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
	return fails(CALL_mmap) ? MAP_FAILED : REAL(mmap)(address, length, protection, flags, fd, offset);
}

/* ---- reading and writing ---- */

/* The vector's first byte, which is what a short call moves. */
static bool first_byte(const struct iovec *iov, int count, struct iovec *first)
{
	for (int i = 0; i < count; i++) {
		if (!iov[i].iov_len)
			continue;
		*first = (struct iovec){ iov[i].iov_base, 1 };
		return true;
	}
	return false;
}

#define PLAIN(call, name, buffer_type)                                                                                             \
	KEPT(name);                                                                                                                \
	ssize_t name(int fd, buffer_type buffer, size_t length)                                                                    \
	{                                                                                                                          \
		if (fails(call)) {                                                                                                 \
			if (how != HOW_SHORT || length == 0)                                                                       \
				return -1;                                                                                         \
			length = 1;                                                                                                \
		}                                                                                                                  \
		return REAL(name)(fd, buffer, length);                                                                             \
	}
PLAIN(CALL_read, read, void *)
PLAIN(CALL_write, write, const void *)

#define AT_OFFSET(call, name, buffer_type)                                                                                         \
	KEPT(name);                                                                                                                \
	ssize_t name(int fd, buffer_type buffer, size_t length, off_t offset)                                                      \
	{                                                                                                                          \
		if (fails(call)) {                                                                                                 \
			if (how != HOW_SHORT || length == 0)                                                                       \
				return -1;                                                                                         \
			length = 1;                                                                                                \
		}                                                                                                                  \
		return REAL(name)(fd, buffer, length, offset);                                                                     \
	}
AT_OFFSET(CALL_read, pread, void *)
AT_OFFSET(CALL_write, pwrite, const void *)

#define VECTOR(call, name)                                                                                                         \
	KEPT(name);                                                                                                                \
	ssize_t name(int fd, const struct iovec *iov, int count)                                                                   \
	{                                                                                                                          \
		struct iovec first;                                                                                                \
		if (fails(call)) {                                                                                                 \
			if (how != HOW_SHORT || !first_byte(iov, count, &first))                                                   \
				return -1;                                                                                         \
			iov = &first;                                                                                              \
			count = 1;                                                                                                 \
		}                                                                                                                  \
		return REAL(name)(fd, iov, count);                                                                                 \
	}
VECTOR(CALL_read, readv)
VECTOR(CALL_write, writev)

#define VECTOR_AT_OFFSET(call, name)                                                                                               \
	KEPT(name);                                                                                                                \
	ssize_t name(int fd, const struct iovec *iov, int count, off_t offset)                                                     \
	{                                                                                                                          \
		struct iovec first;                                                                                                \
		if (fails(call)) {                                                                                                 \
			if (how != HOW_SHORT || !first_byte(iov, count, &first))                                                   \
				return -1;                                                                                         \
			iov = &first;                                                                                              \
			count = 1;                                                                                                 \
		}                                                                                                                  \
		return REAL(name)(fd, iov, count, offset);                                                                         \
	}
VECTOR_AT_OFFSET(CALL_read, preadv)
VECTOR_AT_OFFSET(CALL_write, pwritev)

/* ---- descriptors ---- */

KEPT(ioctl);
int ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	va_start(args, request);
	void *argument = va_arg(args, void *);
	va_end(args);
	return fails(CALL_ioctl) ? -1 : REAL(ioctl)(fd, request, argument);
}

KEPT(open);
int open(const char *path, int flags, ...)
{
	va_list args;
	va_start(args, flags);
	const mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
	va_end(args);
	return fails(CALL_open) ? -1 : REAL(open)(path, flags, mode);
}

KEPT(openat);
int openat(int folder, const char *path, int flags, ...)
{
	va_list args;
	va_start(args, flags);
	const mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
	va_end(args);
	return fails(CALL_open) ? -1 : REAL(openat)(folder, path, flags, mode);
}

KEPT(epoll_create1);
int epoll_create1(int flags)
{
	return fails(CALL_open) ? -1 : REAL(epoll_create1)(flags);
}

KEPT(epoll_ctl);
int epoll_ctl(int epoll_fd, int operation, int fd, struct epoll_event *event)
{
	return fails(CALL_epoll_ctl) ? -1 : REAL(epoll_ctl)(epoll_fd, operation, fd, event);
}

KEPT(eventfd);
int eventfd(unsigned initial, int flags)
{
	return fails(CALL_eventfd) ? -1 : REAL(eventfd)(initial, flags);
}

KEPT(memfd_create);
int memfd_create(const char *name, unsigned flags)
{
	return fails(CALL_memfd_create) ? -1 : REAL(memfd_create)(name, flags);
}

KEPT(fstat);
int fstat(int fd, struct stat *st)
{
	return fails(CALL_fstat) ? -1 : REAL(fstat)(fd, st);
}

KEPT(ftruncate);
int ftruncate(int fd, off_t length)
{
	return fails(CALL_ftruncate) ? -1 : REAL(ftruncate)(fd, length);
}

KEPT(fallocate);
int fallocate(int fd, int mode, off_t offset, off_t length)
{
	return fails(CALL_fallocate) ? -1 : REAL(fallocate)(fd, mode, offset, length);
}

KEPT(rename);
int rename(const char *from, const char *to)
{
	return fails(CALL_rename) ? -1 : REAL(rename)(from, to);
}

KEPT(renameat);
int renameat(int from_folder, const char *from, int to_folder, const char *to)
{
	return fails(CALL_rename) ? -1 : REAL(renameat)(from_folder, from, to_folder, to);
}

KEPT(renameat2);
int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags)
{
	return fails(CALL_rename) ? -1 : REAL(renameat2)(from_folder, from, to_folder, to, flags);
}

KEPT(linkat);
int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags)
{
	return fails(CALL_rename) ? -1 : REAL(linkat)(from_folder, from, to_folder, to, flags);
}

KEPT(mkdir);
int mkdir(const char *path, mode_t mode)
{
	return fails(CALL_mkdir) ? -1 : REAL(mkdir)(path, mode);
}

KEPT(mkdirat);
int mkdirat(int folder, const char *path, mode_t mode)
{
	return fails(CALL_mkdir) ? -1 : REAL(mkdirat)(folder, path, mode);
}

KEPT(socket);
int socket(int domain, int type, int protocol)
{
	return fails(CALL_socket) ? -1 : REAL(socket)(domain, type, protocol);
}

KEPT(pthread_create);
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*start)(void *), void *argument)
{
	return fails(CALL_pthread_create) ? EAGAIN : REAL(pthread_create)(thread, attributes, start, argument);
}

/* ---- what the sandbox is made by ---- */

KEPT(syscall);
long syscall(long number, ...)
{
	long arguments[6];
	va_list args;
	va_start(args, number);
	for (unsigned i = 0; i < 6; i++)
		arguments[i] = va_arg(args, long);
	va_end(args);
	return fails(CALL_syscall)
		   ? -1
		   : REAL(syscall)(number, arguments[0], arguments[1], arguments[2], arguments[3], arguments[4], arguments[5]);
}

KEPT(unshare);
int unshare(int flags)
{
	return fails(CALL_unshare) ? -1 : REAL(unshare)(flags);
}

KEPT(mount);
int mount(const char *source, const char *target, const char *type, unsigned long flags, const void *data)
{
	return fails(CALL_mount) ? -1 : REAL(mount)(source, target, type, flags, data);
}

KEPT(prctl);
int prctl(int option, ...)
{
	unsigned long arguments[4];
	va_list args;
	va_start(args, option);
	for (unsigned i = 0; i < 4; i++)
		arguments[i] = va_arg(args, unsigned long);
	va_end(args);
	return fails(CALL_prctl) ? -1 : REAL(prctl)(option, arguments[0], arguments[1], arguments[2], arguments[3]);
}
