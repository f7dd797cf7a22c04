/* Names that come and go: MKNOD, MKDIR, SYMLINK, LINK, UNLINK, RMDIR, RENAME, RENAME2. */
#include "devices/virtio-fs/fs_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* The kernel's new_decode_dev(). */
static void decode_dev(uint32_t encoded, struct fs_making *making)
{
	making->rdev_major = (encoded >> 8) & 0xfff;
	making->rdev_minor = (encoded & 0xff) | ((encoded >> 12) & 0xfff00);
}

/* The directory that a request makes a name in, open as by fs_node_open(). Returns its descriptor or -errno. */
static int open_parent(struct fs_request *request)
{
	const int result = fs_check_parent(request->node);
	if (result)
		return result;
	if (fs_find_extra(request->server, request->node, request->names[0]))
		return -EEXIST;
	return fs_node_open(request->server, request->node);
}

/* The answer of what was just made under the first name. */
static ssize_t answer_made(struct fs_request *request, const struct fs_making *making)
{
	struct fs_server *server = request->server;
	struct fuse_entry_out entry = { .nodeid = 0 };
	struct fs_node *node;
	struct statx stx;

	int result = fs_statx(making->parent_fd, request->names[0], &stx);
	if (!result)
		result = fs_node_add(server, &stx, request->node, request->names[0], &node);
	if (result)
		return result;
	result = fs_view_of_made(server, node, making, &stx);
	if (!result)
		result = fs_entry_of(server, node, &stx, &entry);
	fs_node_put(server, node);
	return result ? result : fs_answer(request, &entry, sizeof(entry));
}

/* What the host gets: device nodes, fifos and sockets are regular files, where that can be kept beside them (fs_kept.c). */
static int make_on_host(const struct fs_server *server, const struct fs_making *making, const char *name, const char *target)
{
	const mode_t mode = fs_host_mode(server, making->mode);
	const mode_t type = making->mode & S_IFMT;

	switch (type) {
	case S_IFDIR:
		return mkdirat(making->parent_fd, name, mode);
	case S_IFLNK:
		return symlinkat(target, making->parent_fd, name);
	case S_IFIFO:
	case S_IFSOCK:
		return mknodat(making->parent_fd, name, mode | (server->xattrs ? S_IFREG : type), 0);
	case S_IFCHR:
	case S_IFBLK:
		if (!server->xattrs) {
			errno = EPERM;
			return -1;
		}
		return mknodat(making->parent_fd, name, mode | S_IFREG, 0);
	case S_IFREG:
		return mknodat(making->parent_fd, name, mode | S_IFREG, 0);
	default:
		errno = EINVAL;
		return -1;
	}
}

/* `target` is a symlink's. */
static ssize_t make(struct fs_request *request, struct fs_making *making, const char *target)
{
	struct fs_server *server = request->server;
	const mode_t type = making->mode & S_IFMT;
	const bool as_caller = type == S_IFREG || type == S_IFDIR || type == S_IFLNK; /* the others are files of ours */

	making->caller = &request->header;
	making->parent = request->node;
	making->parent_fd = open_parent(request);
	if (making->parent_fd < 0)
		return making->parent_fd;
	ssize_t result = as_caller ? fs_ids_enter(server, making->caller) : 0;
	if (!result) {
		if (make_on_host(server, making, request->names[0], target))
			result = -errno;
		if (as_caller)
			fs_ids_leave(server, making->caller);
	}
	if (!result)
		result = answer_made(request, making);
	fs_node_close(server, request->node);
	return result;
}

ssize_t fs_do_mknod(struct fs_request *request)
{
	const uint32_t mode = request->args.mknod.mode;
	struct fs_making making = { .mode = mode & S_IFMT ? mode & 0177777 : S_IFREG | (mode & 07777) };

	if (S_ISDIR(mode) || S_ISLNK(mode))
		return -EINVAL;
	if (S_ISCHR(mode) || S_ISBLK(mode))
		decode_dev(request->args.mknod.rdev, &making);
	return make(request, &making, "");
}

ssize_t fs_do_mkdir(struct fs_request *request)
{
	struct fs_making making = { .mode = S_IFDIR | (request->args.mkdir.mode & 07777) };
	return make(request, &making, "");
}

ssize_t fs_do_symlink(struct fs_request *request)
{
	struct fs_making making = { .mode = S_IFLNK | 0777 };
	char target[PATH_MAX];

	const int result = fs_request_string(request, target, sizeof(target));
	if (result)
		return result;
	if (request->in_at != request->in_stop || !*target)
		return -EINVAL;
	return make(request, &making, target);
}

ssize_t fs_do_link(struct fs_request *request)
{
	struct fs_server *server = request->server;
	struct fs_making making = { .parent_fd = -1 };
	struct fs_node *old;
	char old_fd_name[16];

	ssize_t result = fs_node_get(server, request->args.link.oldnodeid, &old);
	if (result)
		return result;
	const int old_fd = old->kind == FS_NODE_HOST && !old->lasting ? fs_node_open(server, old) : -EPERM;
	result = old_fd < 0 ? old_fd : 0;
	if (old_fd >= 0) {
		making.parent_fd = open_parent(request);
		result = making.parent_fd < 0 ? making.parent_fd : 0;
	}
	if (!result) {
		/* Followed is only the link of /proc/self/fd: a symlink gets a second name itself. */
		snprintf(old_fd_name, sizeof(old_fd_name), "%d", old_fd);
		if (linkat(server->proc_fd, old_fd_name, making.parent_fd, request->names[0], AT_SYMLINK_FOLLOW)) {
			result = -errno;
		} else {
			struct fuse_entry_out entry = { .nodeid = 0 };
			result = fs_entry_find(server, request->node, making.parent_fd, request->names[0], &entry);
			result = result ? result : fs_answer(request, &entry, sizeof(entry));
		}
	}
	if (making.parent_fd >= 0)
		fs_node_close(server, request->node);
	if (old_fd >= 0)
		fs_node_close(server, old);
	fs_node_put(server, old);
	return result;
}

static ssize_t remove_name(struct fs_request *request, int flags)
{
	const int parent_fd = open_parent(request);
	if (parent_fd < 0)
		return parent_fd == -EEXIST ? -EPERM : parent_fd;
	const int result = unlinkat(parent_fd, request->names[0], flags) ? -errno : 0;
	fs_node_close(request->server, request->node);
	return result;
}

ssize_t fs_do_unlink(struct fs_request *request)
{
	return remove_name(request, 0);
}

ssize_t fs_do_rmdir(struct fs_request *request)
{
	return remove_name(request, AT_REMOVEDIR);
}

/* ---- RENAME ----------------------------------------------------------------------------------------------------------------------- */

/* The node of what is there now, if the client knows it, is found there from here on. */
static void note_place(struct fs_server *server, struct fs_node *parent, int parent_fd, const char *name)
{
	struct statx stx;
	struct fs_node *node;

	if (fs_statx(parent_fd, name, &stx) == 0 && fs_node_add(server, &stx, parent, name, &node) == 0)
		fs_node_put(server, node);
}

static ssize_t rename_name(struct fs_request *request, uint64_t new_parent_id, uint32_t flags)
{
	struct fs_server *server = request->server;
	struct fs_node *new_parent;

	/* Whiteouts are device nodes; the client's overlayfs makes one by MKNOD and RENAME_EXCHANGE when this is refused. */
	if (flags & ~(uint32_t)(RENAME_NOREPLACE | RENAME_EXCHANGE))
		return -EINVAL;
	const int old_fd = open_parent(request);
	if (old_fd < 0)
		return old_fd == -EEXIST ? -EPERM : old_fd;
	int result = fs_node_get(server, new_parent_id, &new_parent);
	if (!result) {
		result = fs_check_parent(new_parent);
		if (!result && fs_find_extra(server, new_parent, request->names[1]))
			result = -EPERM;
		const int new_fd = result ? result : fs_node_open(server, new_parent);
		result = new_fd < 0 ? new_fd : 0;
		if (!result) {
			if (renameat2(old_fd, request->names[0], new_fd, request->names[1], flags))
				result = -errno;
			else
				note_place(server, new_parent, new_fd, request->names[1]);
			if (!result && flags & RENAME_EXCHANGE)
				note_place(server, request->node, old_fd, request->names[0]);
			fs_node_close(server, new_parent);
		}
		fs_node_put(server, new_parent);
	}
	fs_node_close(server, request->node);
	return result;
}

ssize_t fs_do_rename(struct fs_request *request)
{
	return rename_name(request, request->args.rename.newdir, 0);
}

ssize_t fs_do_rename2(struct fs_request *request)
{
	return rename_name(request, request->args.rename2.newdir, request->args.rename2.flags);
}
