/*
 * File data: READ, WRITE, FLUSH, FSYNC, SYNCFS, LSEEK, FALLOCATE, COPY_FILE_RANGE. Data goes between the client's memory and the host's
 * page cache by one preadv2() or pwritev2(), with no copy of ours.
 */
#include "devices/virtio-fs/fs_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#define VECTOR_MAX 512u /* pieces of memory in one system call; 1 MiB in pages is 256 */
#define COPY_MAX (64u << 20) /* bytes of one COPY_FILE_RANGE: the client goes on after a short one */

/* Up to VECTOR_MAX pieces that are the bytes [offset, offset + length) of the memory. */
static int slice(const struct iovec *memory, unsigned count, size_t offset, size_t length, struct iovec *pieces)
{
	unsigned used = 0;
	for (unsigned i = 0; i < count && length && used < VECTOR_MAX; i++) {
		struct iovec piece = memory[i];
		if (offset >= piece.iov_len) {
			offset -= piece.iov_len;
			continue;
		}
		piece.iov_base = (char *)piece.iov_base + offset;
		piece.iov_len -= offset;
		offset = 0;
		if (piece.iov_len > length)
			piece.iov_len = length;
		length -= piece.iov_len;
		pieces[used++] = piece;
	}
	return (int)used;
}

typedef ssize_t vector_io(int fd, const struct iovec *pieces, int count, off_t offset, int flags);

/* All of it, or what there is. Returns the number of bytes, or -errno when there was none. */
static ssize_t move_data(vector_io *io, int fd, const struct iovec *memory, unsigned count, size_t at, size_t length,
			 uint64_t offset, int flags)
{
	struct iovec pieces[VECTOR_MAX];
	size_t done = 0;

	if (offset > INT64_MAX || length > INT64_MAX - offset)
		return -EINVAL;
	while (done < length) {
		const int used = slice(memory, count, at + done, length - done, pieces);
		const ssize_t n = io(fd, pieces, used, (off_t)(offset + done), flags);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && !done)
			return -errno;
		if (n <= 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

ssize_t fs_do_read(struct fs_request *request)
{
	const struct fuse_read_in *in = &request->args.read;
	struct fs_server *server = request->server;
	struct fs_file *file;

	const int result = fs_file_get(server, in->fh, false, &file);
	if (result)
		return result;
	const size_t length = in->size < request->out_room ? in->size : request->out_room;
	const ssize_t n =
	    move_data(preadv2, file->fd, request->out, request->out_count, sizeof(struct fuse_out_header), length, in->offset, 0);
	fs_file_put(server, file);
	if (n > 0)
		server->read_bytes += (uint64_t)n;
	return n;
}

/* What the guest's file was opened for, or was told by fcntl(), at the time of this write. */
static int write_flags(const struct fs_server *server, const struct fuse_write_in *in)
{
	int flags = 0;
	if (in->flags & O_APPEND && !(in->write_flags & FUSE_WRITE_CACHE) && !server->writeback)
		flags |= RWF_APPEND; /* where the end is, the host knows best */
	if ((in->flags & O_SYNC) == O_SYNC)
		flags |= RWF_SYNC;
	else if (in->flags & O_DSYNC)
		flags |= RWF_DSYNC;
	return flags;
}

ssize_t fs_do_write(struct fs_request *request)
{
	const struct fuse_write_in *in = &request->args.write;
	struct fs_server *server = request->server;
	struct fs_file *file;

	if (in->size != request->in_stop - request->in_at)
		return -EINVAL;
	const int result = fs_file_get(server, in->fh, false, &file);
	if (result)
		return result;
	ssize_t n = -EBADF;
	if (file->writable) {
		const bool set_ids = in->write_flags & FUSE_WRITE_KILL_SUIDGID;
		if (set_ids || file->node->marked)
			fs_drop_privileges(server, file->node, file->fd, set_ids);
		n = move_data(pwritev2, file->fd, request->in, request->in_count, request->in_at, in->size, in->offset,
			      write_flags(server, in));
	}
	fs_file_put(server, file);
	if (n < 0)
		return n;
	server->write_bytes += (uint64_t)n;
	const struct fuse_write_out out = { .size = (uint32_t)n };
	return fs_answer(request, &out, sizeof(out));
}

/* ---- durability ------------------------------------------------------------------------------------------------------------------- */

/* Each close() in the guest. Where closing means nothing, the client need not tell us again. */
ssize_t fs_do_flush(struct fs_request *request)
{
	struct fs_server *server = request->server;
	struct fs_file *file;

	if (!server->flush_matters)
		return -ENOSYS;
	int result = fs_file_get(server, request->args.flush.fh, false, &file);
	if (result)
		return result;
	const int copy = fcntl(file->fd, F_DUPFD_CLOEXEC, 0);
	result = copy < 0 || close(copy) ? -errno : 0;
	fs_file_put(server, file);
	return result;
}

static ssize_t sync_file(struct fs_request *request, bool directory)
{
	const struct fuse_fsync_in *in = &request->args.fsync;
	struct fs_file *file;

	int result = fs_file_get(request->server, in->fh, directory, &file);
	if (result)
		return result;
	if (file->fd >= 0)
		result = (in->fsync_flags & FUSE_FSYNC_FDATASYNC ? fdatasync(file->fd) : fsync(file->fd)) ? -errno : 0;
	fs_file_put(request->server, file);
	return result;
}

ssize_t fs_do_fsync(struct fs_request *request)
{
	return sync_file(request, false);
}

ssize_t fs_do_fsyncdir(struct fs_request *request)
{
	return sync_file(request, true);
}

ssize_t fs_do_syncfs(struct fs_request *request)
{
	struct fs_server *server = request->server;
	if (server->read_only)
		return 0;
	int fd = server->root_dir_fd;
	if (fd < 0)
		fd = fs_node_open_readable(server, server->single);
	if (fd < 0)
		return fd;
	const int result = syncfs(fd) ? -errno : 0;
	if (fd != server->root_dir_fd)
		close(fd);
	return result;
}

/* ---- ranges ----------------------------------------------------------------------------------------------------------------------- */

ssize_t fs_do_lseek(struct fs_request *request)
{
	const struct fuse_lseek_in *in = &request->args.lseek;
	struct fs_file *file;

	/* The others are the client's own business: it has the position. */
	if (in->whence != SEEK_DATA && in->whence != SEEK_HOLE)
		return -EINVAL;
	if (in->offset > INT64_MAX)
		return -ENXIO;
	const int result = fs_file_get(request->server, in->fh, false, &file);
	if (result)
		return result;
	const off_t offset = lseek(file->fd, (off_t)in->offset, (int)in->whence);
	const int failure = errno;
	fs_file_put(request->server, file);
	if (offset < 0)
		return -failure;
	const struct fuse_lseek_out out = { .offset = (uint64_t)offset };
	return fs_answer(request, &out, sizeof(out));
}

ssize_t fs_do_fallocate(struct fs_request *request)
{
	const struct fuse_fallocate_in *in = &request->args.fallocate;
	struct fs_server *server = request->server;
	struct fs_file *file;

	/* Collapsing and inserting move data that the client has cached: its kernel does not ask for them either. */
	if (in->mode & ~(uint32_t)(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE))
		return -EOPNOTSUPP;
	if (in->offset > INT64_MAX || in->length > INT64_MAX)
		return -EFBIG;
	int result = fs_file_get(server, in->fh, false, &file);
	if (result)
		return result;
	if (!file->writable)
		result = -EBADF;
	else if (fallocate(file->fd, (int)in->mode, (off_t)in->offset, (off_t)in->length))
		result = -errno;
	else if (file->node->marked)
		fs_drop_privileges(server, file->node, file->fd, false);
	fs_file_put(server, file);
	return result;
}

ssize_t fs_do_copy_file_range(struct fs_request *request)
{
	const struct fuse_copy_file_range_in *in = &request->args.copy_file_range;
	struct fs_server *server = request->server;
	struct fs_file *from, *to;

	if (in->flags || in->off_in > INT64_MAX || in->off_out > INT64_MAX)
		return -EINVAL;
	int result = fs_file_get(server, in->fh_in, false, &from);
	if (result)
		return result;
	result = fs_file_get(server, in->fh_out, false, &to);
	ssize_t n = result;
	if (!result) {
		off_t from_at = (off_t)in->off_in, to_at = (off_t)in->off_out;
		n = -EBADF;
		if (to->writable) {
			n = copy_file_range(from->fd, &from_at, to->fd, &to_at, in->len < COPY_MAX ? (size_t)in->len : COPY_MAX, 0);
			n = n < 0 ? -errno : n;
			if (to->node->marked)
				fs_drop_privileges(server, to->node, to->fd, false);
		}
		fs_file_put(server, to);
	}
	fs_file_put(server, from);
	if (n < 0)
		return n;
	const struct fuse_write_out out = { .size = (uint32_t)n };
	return fs_answer(request, &out, sizeof(out));
}
