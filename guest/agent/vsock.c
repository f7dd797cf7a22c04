/* Connections to the host by AF_VSOCK, and the end of the machine when there is nobody to talk to. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <termios.h>
#include <unistd.h>

#include "guest/agent/agent.h"

/* linux/vm_sockets.h, which musl's compiler does not find. */
#define SOCKET_AF_VSOCK 40
#define SO_VM_SOCKETS_CONNECT_TIMEOUT_OLD 6
#define VMADDR_CID_HOST 2u
#define VMADDR_CID_ANY UINT32_MAX

struct sockaddr_vm {
	uint16_t svm_family;
	uint16_t svm_reserved1;
	uint32_t svm_port;
	uint32_t svm_cid;
	uint8_t svm_zero[4];
};
_Static_assert(sizeof(struct sockaddr_vm) == sizeof(struct sockaddr), "as in linux/vm_sockets.h");

/* The host answers at once, unless it is stopped or swapped out meanwhile: the kernel's 2 s would end the machine then. */
#define CONNECT_TIMEOUT_S 60

void platform_init(int argc, char **argv)
{
	(void)argc;
	(void)argv;
}

int platform_connect(uint32_t port)
{
	int fd = socket(SOCKET_AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0 && (errno == EAFNOSUPPORT || errno == ENODEV))
		die("the guest kernel has no vsock (CONFIG_VSOCKETS, CONFIG_VIRTIO_VSOCKETS)", 0);
	if (fd < 0)
		return -errno;
	if (fd <= STDERR_FILENO) {
		/* The kernel opened no console for us. 0 to 2 must not be taken: the command's descriptors go there. */
		const int above = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
		const int error = errno;
		close(fd);
		if (above < 0)
			return -error;
		fd = above;
	}
	const struct timeval timeout = { .tv_sec = CONNECT_TIMEOUT_S };
	setsockopt(fd, SOCKET_AF_VSOCK, SO_VM_SOCKETS_CONNECT_TIMEOUT_OLD, &timeout, sizeof(timeout));
	const struct sockaddr_vm host = { .svm_family = SOCKET_AF_VSOCK, .svm_port = port, .svm_cid = VMADDR_CID_HOST };
	if (connect(fd, (const struct sockaddr *)&host, sizeof(host)) == 0 || errno == EINPROGRESS)
		return fd;
	const int error = errno;
	close(fd);
	/* vsock without the virtio transport, or without the device. */
	if (error == ENODEV || error == ENETUNREACH)
		die("the guest kernel has no vsock device (CONFIG_VIRTIO_VSOCKETS)", error);
	return -error;
}

int platform_listen(uint32_t port)
{
	const int fd = socket(SOCKET_AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	const struct sockaddr_vm address = { .svm_family = SOCKET_AF_VSOCK, .svm_port = port, .svm_cid = VMADDR_CID_ANY };
	if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, (int)AGENT_PROXIED_MAX) == 0)
		return fd;
	const int error = errno;
	close(fd);
	return -error;
}

_Noreturn void platform_die(const struct text *why)
{
	char line[sizeof(why->bytes) + 32] = "trvmm-agent: ";
	const size_t prefix = strlen(line);
	memcpy(line + prefix, why->bytes, why->length);
	line[prefix + why->length] = '\n';

	int console = open("/dev/console", O_WRONLY | O_NOCTTY | O_CLOEXEC);
	if (console < 0)
		console = STDERR_FILENO;
	/* The line leaves before the machine does. */
	if (write(console, line, prefix + why->length + 1) > 0)
		tcdrain(console);
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}
