/*
 * AF_VSOCK for a host program, by the Unix sockets of `trvmm --vsock PATH`. Preloaded, with PATH in VSOCK_UNIX. What vsock_test uses is
 * here, and nothing else: blocking sockets that connect to the guest or are connected to by it.
 *
 *   connect to port P       PATH, "CONNECT P\n", "OK ...\n"; SOCK_SEQPACKET: PATH.seqpacket
 *   bind to port P          PATH_P
 *
 * Errors are those of AF_VSOCK in Linux 6.1: a connection refused is ECONNRESET, and a read of a message into memory that is not there
 * is ENOMEM.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#define FDS 1024
#define GUEST_CID 3

static bool ours[FDS];

#define NEXT(name) ((__typeof__(&(name)))dlsym(RTLD_NEXT, #name))

static bool is_ours(int fd)
{
	return fd >= 0 && fd < FDS && ours[fd];
}

static void set_ours(int fd, bool value)
{
	if (fd >= 0 && fd < FDS)
		ours[fd] = value;
}

static struct sockaddr_un unix_address(const char *format, unsigned port)
{
	const char *path = getenv("VSOCK_UNIX");
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char suffix[32];

	if (!path) {
		fprintf(stderr, "shim: VSOCK_UNIX is not set\n");
		exit(1);
	}
	snprintf(suffix, sizeof(suffix), format, port);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s%s", path, suffix);
	return address;
}

int socket(int domain, int type, int protocol)
{
	const int fd = NEXT(socket)(domain == AF_VSOCK ? AF_UNIX : domain, type, protocol);

	set_ours(fd, domain == AF_VSOCK);
	return fd;
}

int close(int fd)
{
	set_ours(fd, false);
	return NEXT(close)(fd);
}

int bind(int fd, const struct sockaddr *address, socklen_t length)
{
	if (!is_ours(fd))
		return NEXT(bind)(fd, address, length);
	const struct sockaddr_un file = unix_address("_%u", ((const struct sockaddr_vm *)address)->svm_port);
	unlink(file.sun_path);
	return NEXT(bind)(fd, (const struct sockaddr *)&file, sizeof(file));
}

int accept(int fd, struct sockaddr *restrict address, socklen_t *restrict length)
{
	if (!is_ours(fd))
		return NEXT(accept)(fd, address, length);
	const int connection = NEXT(accept)(fd, NULL, NULL);
	if (connection < 0)
		return connection;
	set_ours(connection, true);
	const struct sockaddr_vm guest = { .svm_family = AF_VSOCK, .svm_cid = GUEST_CID, .svm_port = VMADDR_PORT_ANY };
	if (address && *length >= sizeof(guest)) {
		memcpy(address, &guest, sizeof(guest));
		*length = sizeof(guest);
	}
	return connection;
}

/* Says CONNECT and reads the answer, not a byte more. */
static int greet(int fd, bool stream, unsigned port)
{
	char line[32], *at = line;
	const int written = snprintf(line, sizeof(line), "CONNECT %u\n", port);

	if (send(fd, line, (size_t)written, MSG_NOSIGNAL) != written)
		return -1;
	do {
		const ssize_t n = recv(fd, at, stream ? 1 : sizeof(line), 0);
		if (n <= 0 || at + n > line + sizeof(line))
			return -1;
		at += n;
	} while (at[-1] != '\n');
	return memcmp(line, "OK ", 3) == 0 ? 0 : -1;
}

int connect(int fd, const struct sockaddr *address, socklen_t length)
{
	int type = 0;
	socklen_t type_length = sizeof(type);

	if (!is_ours(fd))
		return NEXT(connect)(fd, address, length);
	getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_length);
	const unsigned port = ((const struct sockaddr_vm *)address)->svm_port;
	const bool stream = type == SOCK_STREAM;
	const struct sockaddr_un file = unix_address(stream ? "" : ".seqpacket", 0);
	if (NEXT(connect)(fd, (const struct sockaddr *)&file, sizeof(file)) < 0)
		return -1;
	if (greet(fd, stream, port) == 0)
		return 0;
	errno = ECONNRESET;
	return -1;
}

ssize_t read(int fd, void *buffer, size_t size)
{
	const ssize_t n = NEXT(read)(fd, buffer, size);

	if (n < 0 && errno == EFAULT && is_ours(fd))
		errno = ENOMEM;
	return n;
}
