/*
 * From nodes to open files: OPEN, CREATE, TMPFILE, OPENDIR, RELEASE. Only regular files and directories get here; what a name stands for is
 * looked at by O_PATH before it is opened, and a new file is made by O_EXCL.
 */
#include "devices/virtio-fs/fs_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/statfs.h>
#include <time.h>
#include <unistd.h>

/* Two changes of a file within this time may have one time stamp: a tick of the slowest kernels, and some. */
#define SAME_STAMP_NS 20000000

/*
 * What of the client's flags the host is to know. O_APPEND and O_SYNC come with each write (fs_io.c); O_DIRECT is between the client and
 * its own cache.
 */
static int host_flags(const struct fs_server *server, uint32_t flags)
{
	const int host = (int)flags & (O_ACCMODE | O_TRUNC);
	if (server->writeback && (host & O_ACCMODE) == O_WRONLY) /* it reads what is around a part of a page */
		return (host & ~O_ACCMODE) | O_RDWR;
	return host;
}

static bool wants_change(uint32_t flags)
{
	return (flags & O_ACCMODE) != O_RDONLY || flags & O_TRUNC;
}

static int64_t ns_of(const struct statx_timestamp *time)
{
	return time->tv_sec * 1000000000 + time->tv_nsec;
}

/* Is the file as it was when it was opened last? What was written within one tick of now may change once more unseen. */
static bool is_unchanged(struct fs_node *node, int fd)
{
	struct statx stx;
	struct timespec now;

	if (fs_statx(fd, "", &stx))
		return false;
	const uint64_t mixed = (uint64_t)ns_of(&stx.stx_mtime) * 0x9e3779b97f4a7c15u + (uint64_t)ns_of(&stx.stx_ctime);
	const uint64_t seen = (mixed * 0x9e3779b97f4a7c15u + stx.stx_size) | 1;
	clock_gettime(CLOCK_REALTIME, &now);
	const bool settled = now.tv_sec * 1000000000 + now.tv_nsec - ns_of(&stx.stx_ctime) > SAME_STAMP_NS;
	return atomic_exchange(&node->seen, seen) == seen && settled;
}

static uint32_t answer_flags(const struct fs_server *server, struct fs_node *node, int fd, int flags)
{
	const bool directory = flags & O_DIRECTORY;
	switch (server->cache) {
	case FS_CACHE_NONE:
		return directory ? 0 : FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES;
	case FS_CACHE_ALWAYS:
		return directory ? FOPEN_CACHE_DIR | FOPEN_KEEP_CACHE : FOPEN_KEEP_CACHE;
	case FS_CACHE_AUTO:
		break;
	}
	return !directory && !(flags & O_TRUNC) && is_unchanged(node, fd) ? FOPEN_KEEP_CACHE : 0;
}

/* `node` is open as by fs_node_open(); it is closed when this fails. */
static int add_file(struct fs_server *server, struct fs_node *node, int fd, int flags, struct fuse_open_out *out)
{
	if (fd < 0) {
		fs_node_close(server, node);
		return fd;
	}
	*out = (struct fuse_open_out){ .open_flags = answer_flags(server, node, fd, flags) };
	const int result = fs_file_add(server, node, fd, flags, &out->fh);
	if (result)
		fs_node_close(server, node);
	return result;
}

/* Other file systems than the share's are asked what they are. */
static bool is_of_proc(const struct fs_server *server, const struct fs_node *node, int path_fd)
{
	struct statfs fs;
	return node->identity.dev == server->root_dev ? server->root_is_proc
						      : fstatfs(path_fd, &fs) || fs.f_type == PROC_SUPER_MAGIC;
}

int fs_node_reopen(const struct fs_server *server, const struct fs_node *node, int path_fd, int flags)
{
	return is_of_proc(server, node, path_fd) ? -EACCES : fs_reopen(server, path_fd, flags);
}

static int open_host(struct fs_server *server, struct fs_node *node, uint32_t flags, bool kill_set_ids, struct fuse_open_out *out)
{
	if (!S_ISREG(node->identity.type))
		return S_ISDIR(node->identity.type) ? -EISDIR : S_ISLNK(node->identity.type) ? -ELOOP : -ENXIO;
	if (server->read_only && wants_change(flags))
		return -EROFS;
	const int path_fd = fs_node_open(server, node);
	if (path_fd < 0)
		return path_fd;
	const int host = host_flags(server, flags);
	const int fd = fs_node_reopen(server, node, path_fd, host);
	if (fd >= 0 && host & O_TRUNC && (kill_set_ids || node->marked))
		fs_drop_privileges(server, node, fd, kill_set_ids);
	return add_file(server, node, fd, host, out);
}

ssize_t fs_do_open(struct fs_request *request)
{
	const struct fuse_open_in *in = &request->args.open;
	struct fs_server *server = request->server;
	struct fuse_open_out out = { .fh = 0 };
	int result;

	if (request->node->kind == FS_NODE_LIST)
		return -EISDIR;
	if (request->node->kind == FS_NODE_EXTRA) {
		out.open_flags = server->cache == FS_CACHE_NONE ? 0 : FOPEN_KEEP_CACHE;
		const int fd = fs_extra_fd(server, request->node);
		result = wants_change(in->flags) ? -EACCES : fs_file_add(server, request->node, fd, O_RDONLY, &out.fh);
	} else {
		result = open_host(server, request->node, in->flags, in->open_flags & FUSE_OPEN_KILL_SUIDGID, &out);
	}
	return result ? result : fs_answer(request, &out, sizeof(out));
}

ssize_t fs_do_opendir(struct fs_request *request)
{
	struct fs_server *server = request->server;
	struct fs_node *node = request->node;
	struct fuse_open_out out = { .fh = 0 };
	int result;

	if (!S_ISDIR(node->identity.type))
		return -ENOTDIR;
	if (node->kind == FS_NODE_LIST) {
		result = fs_file_add(server, node, -1, O_DIRECTORY, &out.fh);
	} else {
		const int path_fd = fs_node_open(server, node);
		if (path_fd < 0)
			return path_fd;
		result = add_file(server, node, fs_reopen(server, path_fd, O_RDONLY | O_DIRECTORY), O_DIRECTORY, &out);
	}
	return result ? result : fs_answer(request, &out, sizeof(out));
}

ssize_t fs_do_release(struct fs_request *request)
{
	fs_file_release(request->server, request->args.release.fh);
	return 0;
}

/* ---- CREATE, TMPFILE -------------------------------------------------------------------------------------------------------------- */

struct created {
	struct fuse_entry_out entry;
	struct fuse_open_out open;
};

static int answer_created(struct fs_request *request, const struct created *created)
{
	fs_answer_at(request, 0, &created->entry, sizeof(created->entry));
	fs_answer_at(request, sizeof(created->entry), &created->open, sizeof(created->open));
	return sizeof(created->entry) + sizeof(created->open);
}

/* The name exists: as LOOKUP and OPEN. */
static int open_existing(struct fs_request *request, int parent_fd, struct created *created)
{
	const struct fuse_create_in *in = &request->args.create;
	struct fs_server *server = request->server;
	struct fs_node *node;

	int result = fs_entry_find(server, request->node, parent_fd, request->names[0], &created->entry);
	if (result)
		return result;
	result = fs_node_get(server, created->entry.nodeid, &node);
	if (!result) {
		result = open_host(server, node, in->flags, in->open_flags & FUSE_OPEN_KILL_SUIDGID, &created->open);
		if (!result && in->flags & O_TRUNC)
			result = fs_attr_get(server, node, &created->entry.attr);
		if (result)
			fs_node_forget(server, created->entry.nodeid, 1);
		fs_node_put(server, node);
	}
	return result;
}

/* `fd` is a new file, owned from here on. `name`: NULL for one that has none. */
static int open_new(struct fs_request *request, int parent_fd, int fd, const char *name, struct created *created)
{
	const struct fuse_create_in *in = &request->args.create;
	struct fs_server *server = request->server;
	const struct fs_making making = {
		.caller = &request->header, .parent = request->node, .parent_fd = parent_fd, .mode = S_IFREG | (in->mode & 07777)
	};
	struct fs_node *node;
	struct statx stx;

	int result = fs_statx(fd, "", &stx);
	if (!result)
		result = fs_node_add(server, &stx, name ? request->node : NULL, name, &node);
	if (result) {
		close(fd);
		return result;
	}
	const int path_fd = fs_reopen(server, fd, O_PATH);
	result = path_fd < 0 ? path_fd : fs_node_give_fd(server, node, path_fd);
	if (result) {
		close(fd);
	} else {
		result = fs_view_of_made(server, node, &making, &stx);
		if (!result)
			result = fs_entry_of(server, node, &stx, &created->entry);
		if (result) {
			close(fd);
			fs_node_close(server, node);
		} else {
			/* It is as good as truncated: what it was like before need not be asked. */
			result = add_file(server, node, fd, host_flags(server, in->flags) | O_TRUNC, &created->open);
			if (result)
				fs_node_forget(server, created->entry.nodeid, 1);
		}
	}
	fs_node_put(server, node);
	return result;
}

static int make_file(struct fs_request *request, int parent_fd, const char *name, int how)
{
	const struct fuse_create_in *in = &request->args.create;
	struct fs_server *server = request->server;
	const int flags = (host_flags(server, in->flags) & ~O_TRUNC) | how | O_NOFOLLOW | O_CLOEXEC;

	if (fs_files_full(server))
		return -ENFILE;
	const int result = fs_ids_enter(server, &request->header);
	if (result)
		return result;
	const int fd = openat(parent_fd, name, flags, fs_host_mode(server, S_IFREG | (in->mode & 07777)));
	const int failure = errno;
	fs_ids_leave(server, &request->header);
	return fd < 0 ? -failure : fd;
}

ssize_t fs_do_create(struct fs_request *request)
{
	struct fs_server *server = request->server;
	struct created created = { .entry = { .nodeid = 0 } };

	int result = fs_check_parent(request->node);
	if (result)
		return result;
	if (fs_find_extra(server, request->node, request->names[0]))
		return -EEXIST;
	const int parent_fd = fs_node_open(server, request->node);
	if (parent_fd < 0)
		return parent_fd;
	const int fd = make_file(request, parent_fd, request->names[0], O_CREAT | O_EXCL);
	if (fd >= 0)
		result = open_new(request, parent_fd, fd, request->names[0], &created);
	else if (fd == -EEXIST && !(request->args.create.flags & O_EXCL))
		result = open_existing(request, parent_fd, &created);
	else
		result = fd;
	fs_node_close(server, request->node);
	return result ? result : answer_created(request, &created);
}

/* The name in the request is one that the client's kernel made up for itself. */
ssize_t fs_do_tmpfile(struct fs_request *request)
{
	struct fs_server *server = request->server;
	struct created created = { .entry = { .nodeid = 0 } };

	/* The name says nothing: Linux sends "/". */
	int result = fs_request_string(request, request->names[0], sizeof(request->names[0]));
	if (!result)
		result = request->in_at == request->in_stop ? fs_check_parent(request->node) : -EINVAL;
	if (result)
		return result;
	if ((request->args.create.flags & O_ACCMODE) == O_RDONLY)
		return -EINVAL;
	const int parent_fd = fs_node_open(server, request->node);
	if (parent_fd < 0)
		return parent_fd;
	const int fd = make_file(request, parent_fd, ".", O_TMPFILE);
	result = fd < 0 ? fd : open_new(request, parent_fd, fd, NULL, &created);
	fs_node_close(server, request->node);
	return result ? result : answer_created(request, &created);
}
