/*
 * Extended attributes. Those of users are the host's. Security and trusted ones mean something to the host's kernel, so the client's are
 * kept as `user.trvmm.security.*` and `user.trvmm.trusted.*`; the file capabilities that the host itself gave to a file are shown to a
 * client of root's. The server's own `user.trvmm.*` are not there for the client. POSIX ACLs are not negotiated.
 */
#include "devices/virtio-fs/fs_internal.h"

#include <errno.h>
#include <linux/limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/iov.h"

#define CAPABILITY "security.capability"

static bool starts_with(const char *text, const char *prefix)
{
	return strncmp(text, prefix, strlen(prefix)) == 0;
}

static bool is_kept_name(const char *name)
{
	return starts_with(name, "security.") || starts_with(name, "trusted.");
}

/* The host's name for the client's. Returns 0, or -ERANGE, or `hidden` for those that the client cannot have. */
static int host_name(const char *name, char host[XATTR_NAME_MAX + 1], int hidden)
{
	if (is_kept_name(name)) {
		const int length = snprintf(host, XATTR_NAME_MAX + 1, FS_KEPT_PREFIX "%s", name);
		return length > XATTR_NAME_MAX ? -ERANGE : 0;
	}
	if (!starts_with(name, "user."))
		return -EOPNOTSUPP;
	if (starts_with(name, FS_KEPT_PREFIX))
		return hidden;
	memcpy(host, name, strlen(name) + 1);
	return 0;
}

static int take_name(struct fs_request *request, char name[XATTR_NAME_MAX + 1])
{
	const int result = fs_request_string(request, name, XATTR_NAME_MAX + 1);
	if (result)
		return result == -ENAMETOOLONG ? -ERANGE : result;
	return *name ? 0 : -EINVAL;
}

/* Files that have no descriptor for reading have no attributes that could be the client's. */
static int open_attributes(struct fs_request *request, int none)
{
	if (request->node->kind != FS_NODE_HOST)
		return none;
	const int fd = fs_node_open_readable(request->server, request->node);
	return fd == -EOPNOTSUPP ? none : fd;
}

/* The answer to a question for `size` bytes, 0 asking how many there are. */
static ssize_t answer_value(struct fs_request *request, const char *value, size_t length)
{
	const uint32_t size = request->args.getxattr.size;
	if (size == 0) {
		const struct fuse_getxattr_out out = { .size = (uint32_t)length };
		return request->out_room < sizeof(out) ? -EINVAL : fs_answer(request, &out, sizeof(out));
	}
	if (length > size)
		return -ERANGE;
	return length > request->out_room ? -EINVAL : fs_answer(request, value, length);
}

ssize_t fs_do_getxattr(struct fs_request *request)
{
	char name[XATTR_NAME_MAX + 1], host[XATTR_NAME_MAX + 1];
	char *value = NULL;

	ssize_t result = take_name(request, name);
	if (!result && request->in_at != request->in_stop)
		result = -EINVAL;
	if (!result)
		result = host_name(name, host, -ENODATA);
	if (result)
		return result;
	/* The client's kernel asks for these before it writes to a file for the first time. */
	const bool capability = strcmp(name, CAPABILITY) == 0;
	if (capability && !request->node->marked && !request->server->privileged)
		return -ENODATA;
	const int fd = open_attributes(request, -ENODATA);
	if (fd < 0)
		return fd;
	const size_t size = request->args.getxattr.size < XATTR_SIZE_MAX ? request->args.getxattr.size : XATTR_SIZE_MAX;
	if (size && !(value = malloc(size))) {
		close(fd);
		return -ENOMEM;
	}
	ssize_t length = fgetxattr(fd, host, value, size);
	if (length < 0 && errno == ENODATA && request->server->privileged && capability)
		length = fgetxattr(fd, name, value, size);
	result = length < 0 ? -errno : answer_value(request, value, (size_t)length);
	free(value);
	close(fd);
	return result;
}

/* Turns the host's names into the client's, in place. Returns the bytes that are left. */
static size_t shown_names(const struct fs_server *server, char *list, size_t length)
{
	size_t used = 0;
	bool capability = false;
	for (size_t at = 0, next; at < length; at = next) {
		const char *name = list + at;
		next = at + strlen(name) + 1;
		if (starts_with(name, FS_KEPT_PREFIX)) {
			name += strlen(FS_KEPT_PREFIX);
			if (!is_kept_name(name))
				continue;
		} else if (!starts_with(name, "user.") && !(server->privileged && strcmp(name, CAPABILITY) == 0)) {
			continue;
		}
		if (strcmp(name, CAPABILITY) == 0) {
			if (capability)
				continue;
			capability = true;
		}
		const size_t bytes = strlen(name) + 1;
		memmove(list + used, name, bytes);
		used += bytes;
	}
	return used;
}

ssize_t fs_do_listxattr(struct fs_request *request)
{
	const int fd = open_attributes(request, -ENODATA);
	if (fd < 0)
		return fd == -ENODATA ? answer_value(request, NULL, 0) : fd;
	char *list = malloc(XATTR_LIST_MAX);
	ssize_t result = -ENOMEM;
	if (list) {
		const ssize_t length = flistxattr(fd, list, XATTR_LIST_MAX);
		result = length < 0 ? -errno : answer_value(request, list, shown_names(request->server, list, (size_t)length));
	}
	free(list);
	close(fd);
	return result;
}

ssize_t fs_do_setxattr(struct fs_request *request)
{
	struct fs_server *server = request->server;
	struct fuse_setxattr_in in = { .size = 0 };
	char name[XATTR_NAME_MAX + 1], host[XATTR_NAME_MAX + 1];

	ssize_t result = fs_request_take(request, &in, server->setxattr_ext ? sizeof(in) : FUSE_COMPAT_SETXATTR_IN_SIZE);
	if (!result)
		result = take_name(request, name);
	if (!result && in.size != request->in_stop - request->in_at)
		result = -EINVAL;
	if (!result && in.size > XATTR_SIZE_MAX)
		result = -E2BIG;
	if (!result)
		result = host_name(name, host, -EPERM);
	if (result)
		return result;
	char *value = malloc(in.size ? in.size : 1);
	if (!value)
		return -ENOMEM;
	result = fs_request_take(request, value, in.size);
	const int fd = result ? (int)result : open_attributes(request, -EPERM);
	if (fd >= 0) {
		/* The mark first: a capability that writing would not drop must not be there for a moment. */
		result = strcmp(name, CAPABILITY) == 0 ? fs_kept_mark(server, request->node, fd) : 0;
		if (!result && fsetxattr(fd, host, value, in.size, (int)in.flags))
			result = -errno;
		close(fd);
	} else {
		result = fd;
	}
	free(value);
	return result;
}

ssize_t fs_do_removexattr(struct fs_request *request)
{
	char name[XATTR_NAME_MAX + 1], host[XATTR_NAME_MAX + 1];

	int result = take_name(request, name);
	if (!result && request->in_at != request->in_stop)
		result = -EINVAL;
	if (!result)
		result = host_name(name, host, -ENODATA);
	if (result)
		return result;
	const int fd = open_attributes(request, -ENODATA);
	if (fd < 0)
		return fd;
	result = fremovexattr(fd, host) ? -errno : 0;
	if (request->server->privileged && strcmp(name, CAPABILITY) == 0 && fremovexattr(fd, name) == 0)
		result = 0; /* the host's own */
	close(fd);
	return result;
}
