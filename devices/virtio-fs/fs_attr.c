/* Attributes of files and of the file system: GETATTR, SETATTR, READLINK, STATFS. */
#include "devices/virtio-fs/fs_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/statfs.h>
#include <unistd.h>

/* The kernel's new_encode_dev(). */
static uint32_t encode_dev(uint32_t major, uint32_t minor)
{
	return (minor & 0xff) | major << 8 | (minor & ~0xffu) << 12;
}

/* Mounts within the share have inode numbers of their own, which would be taken for hard links of ours. */
static uint64_t inode_number(const struct fs_server *server, const struct fs_node *node)
{
	return fs_inode_number(server, node->identity.dev, node->identity.ino);
}

uint64_t fs_inode_number(const struct fs_server *server, uint64_t dev, uint64_t ino)
{
	return ino ^ (dev ^ server->root_dev) * 0x9e3779b97f4a7c15u;
}

int fs_attr_of(struct fs_server *server, struct fs_node *node, const struct statx *stx, struct fuse_attr *attr)
{
	struct fs_view view = { .mode = S_IFREG | 0555 };

	if (node->kind == FS_NODE_HOST)
		fs_view_of(server, node, stx, &view);
	*attr = (struct fuse_attr){
		.ino = node->kind == FS_NODE_HOST ? inode_number(server, node) : fs_node_id(node),
		.size = stx->stx_size,
		.blocks = stx->stx_blocks,
		.atime = (uint64_t)stx->stx_atime.tv_sec,
		.mtime = (uint64_t)stx->stx_mtime.tv_sec,
		.ctime = (uint64_t)stx->stx_ctime.tv_sec,
		.atimensec = stx->stx_atime.tv_nsec,
		.mtimensec = stx->stx_mtime.tv_nsec,
		.ctimensec = stx->stx_ctime.tv_nsec,
		.mode = view.mode,
		.nlink = node->kind == FS_NODE_HOST ? stx->stx_nlink : 1,
		.uid = view.uid,
		.gid = view.gid,
		.rdev = encode_dev(view.rdev_major, view.rdev_minor),
		.blksize = stx->stx_blksize,
	};
	if (server->dax == FS_DAX_INODE && node->kind == FS_NODE_HOST && S_ISREG(view.mode) && stx->stx_size >= FS_DAX_LEAST_BYTES)
		attr->flags |= FUSE_ATTR_DAX;
	return 0;
}

/* The directory that a share of one file is: as old as the file. */
static int list_attr(struct fs_server *server, struct fs_node *node, struct fuse_attr *attr)
{
	const int result = fs_attr_get(server, server->single, attr);
	attr->ino = fs_node_id(node);
	attr->mode = S_IFDIR | 0755;
	attr->size = attr->blocks = attr->rdev = 0;
	attr->uid = attr->gid = 0;
	attr->nlink = 2;
	return result;
}

int fs_attr_get(struct fs_server *server, struct fs_node *node, struct fuse_attr *attr)
{
	struct statx stx;

	if (node->kind == FS_NODE_LIST)
		return list_attr(server, node, attr);
	const int result = fs_node_statx(server, node, &stx);
	return result ? result : fs_attr_of(server, node, &stx, attr);
}

static ssize_t answer_attr(struct fs_request *request)
{
	struct fuse_attr_out out = { .attr_valid = fs_valid_seconds(request->server) };
	const int result = fs_attr_get(request->server, request->node, &out.attr);
	return result ? result : fs_answer(request, &out, sizeof(out));
}

/* The handle that GETATTR may come with adds nothing: an open file's node has a descriptor. */
ssize_t fs_do_getattr(struct fs_request *request)
{
	return answer_attr(request);
}

/* ---- SETATTR ---------------------------------------------------------------------------------------------------------------------- */

static int set_owner_and_mode(struct fs_request *request, int fd)
{
	const struct fuse_setattr_in *in = &request->args.setattr;
	struct statx stx;
	struct fs_view view;

	const int result = fs_statx(fd, "", &stx);
	if (result)
		return result;
	fs_view_of(request->server, request->node, &stx, &view);
	if (in->valid & FATTR_MODE)
		view.mode = (view.mode & S_IFMT) | (in->mode & 07777);
	if (in->valid & FATTR_UID)
		view.uid = in->uid;
	if (in->valid & FATTR_GID)
		view.gid = in->gid;
	if (view.uid == UINT32_MAX || view.gid == UINT32_MAX)
		return -EINVAL;
	if (in->valid & FATTR_KILL_SUIDGID && !S_ISDIR(view.mode)) {
		view.mode &= ~(uint32_t)S_ISUID;
		if (view.mode & S_IXGRP)
			view.mode &= ~(uint32_t)S_ISGID;
	}
	return fs_view_set(request->server, request->node, fd, &stx, &view);
}

/* By the open file if the client names one that can be written. */
static int set_size(struct fs_request *request, int path_fd)
{
	const struct fuse_setattr_in *in = &request->args.setattr;
	struct fs_server *server = request->server;
	struct fs_file *file = NULL;
	int result;

	if (in->size > INT64_MAX)
		return -EFBIG;
	if (!S_ISREG(request->node->identity.type))
		return S_ISDIR(request->node->identity.type) ? -EISDIR : -EINVAL;
	if (in->valid & FATTR_FH) {
		result = fs_file_get(server, in->fh, false, &file);
		if (result)
			return result;
	}
	const bool by_file = file && file->writable && file->node == request->node;
	const int fd = by_file ? file->fd : fs_reopen(server, path_fd, O_WRONLY);
	if (fd < 0) {
		result = fd;
	} else {
		result = ftruncate(fd, (off_t)in->size) ? -errno : 0;
		if (!result && request->node->marked)
			fs_drop_privileges(server, request->node, fd, false);
	}
	if (fd >= 0 && !by_file)
		close(fd);
	if (file)
		fs_file_put(server, file);
	return result;
}

static struct timespec time_of(uint32_t valid, uint32_t set, uint32_t now, uint64_t seconds, uint32_t ns)
{
	struct timespec time = { .tv_sec = (time_t)seconds, .tv_nsec = ns };
	if (valid & now)
		time.tv_nsec = UTIME_NOW;
	else if (!(valid & set))
		time.tv_nsec = UTIME_OMIT;
	else if (ns >= 1000000000)
		time.tv_nsec = 999999999; /* not one of the two above */
	return time;
}

static int set_times(struct fs_request *request, int fd)
{
	const struct fuse_setattr_in *in = &request->args.setattr;
	const struct timespec times[2] = {
		time_of(in->valid, FATTR_ATIME, FATTR_ATIME_NOW, in->atime, in->atimensec),
		time_of(in->valid, FATTR_MTIME, FATTR_MTIME_NOW, in->mtime, in->mtimensec),
	};
	return utimensat(fd, "", times, AT_EMPTY_PATH) ? -errno : 0;
}

ssize_t fs_do_setattr(struct fs_request *request)
{
	const uint32_t valid = request->args.setattr.valid;
	struct fs_server *server = request->server;

	if (request->node->kind != FS_NODE_HOST)
		return -EPERM;
	const int fd = fs_node_open(server, request->node);
	if (fd < 0)
		return fd;
	int result = 0;
	if (valid & (FATTR_MODE | FATTR_UID | FATTR_GID | FATTR_KILL_SUIDGID))
		result = set_owner_and_mode(request, fd);
	if (!result && valid & FATTR_SIZE)
		result = set_size(request, fd);
	if (!result && valid & (FATTR_ATIME | FATTR_MTIME | FATTR_ATIME_NOW | FATTR_MTIME_NOW))
		result = set_times(request, fd);
	fs_node_close(server, request->node);
	return result ? result : answer_attr(request);
}

/* ------------------------------------------------------------------------------------------------------------------------------------ */

ssize_t fs_do_readlink(struct fs_request *request)
{
	char target[PATH_MAX];

	if (!S_ISLNK(request->node->identity.type))
		return -EINVAL;
	const int fd = fs_node_open(request->server, request->node);
	if (fd < 0)
		return fd;
	ssize_t length = readlinkat(fd, "", target, sizeof(target));
	if (length < 0)
		length = -errno;
	fs_node_close(request->server, request->node);
	if (length > (ssize_t)request->out_room)
		return -EINVAL;
	return length < 0 ? length : fs_answer(request, target, (size_t)length);
}

ssize_t fs_do_statfs(struct fs_request *request)
{
	struct statfs fs;

	if (fstatfs(request->server->root_fd, &fs))
		return -errno;
	const struct fuse_statfs_out out = { .st = {
						 .blocks = fs.f_blocks,
						 .bfree = fs.f_bfree,
						 .bavail = fs.f_bavail,
						 .files = fs.f_files,
						 .ffree = fs.f_ffree,
						 .bsize = (uint32_t)fs.f_bsize,
						 .namelen = (uint32_t)fs.f_namelen,
						 .frsize = (uint32_t)fs.f_frsize,
					     } };
	return fs_answer(request, &out, sizeof(out));
}
