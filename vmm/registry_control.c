/* NAME/control: the machine's Unix socket; see registry.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "vmm/registry_internal.h"

#define BACKLOG 64

/* By the descriptor of its folder: the address has room for 107 bytes, and nobody can put another socket there meanwhile. */
static struct sockaddr_un control_address(int folder_fd)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/" REGISTRY_CONTROL, folder_fd);
	return address;
}

int registry_listen(int folder_fd)
{
	const struct sockaddr_un address = control_address(folder_fd);
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, BACKLOG) == 0)
		return fd;
	const int result = -errno;
	close(fd);
	return result;
}

int registry_connect(const struct registry_entry *entry, struct error *err)
{
	const struct sockaddr_un address = control_address(entry->folder_fd);
	if (entry->status != REGISTRY_RUNNING)
		return error_set(err, -ECONNREFUSED, "machine '%s' is not running", entry->name);
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	const int result = -errno;
	if (fd >= 0)
		close(fd);
	return error_set(err, result, "machine '%s' cannot be reached: %s", entry->name, strerror(-result));
}
