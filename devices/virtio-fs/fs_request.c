/*
 * One request: its headers are copied and checked, the node it is about is found, its names are checked, and the operation's handler
 * makes the answer. What every operation wants of a request, and leaves to be checked here, is in one table.
 */
#include "devices/virtio-fs/fs_internal.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/iov.h"

enum {
	CHANGES = 1, /* refused in a read-only share */
	NO_NODE = 2, /* header.nodeid is not looked at */
	NO_ANSWER = 4, /* not even an error */
	ANY_TIME = 8, /* also before FUSE_INIT */
	MORE = 16, /* the handler reads on behind arguments and names */
};

struct operation {
	fs_handler *handler; /* NULL: ENOSYS */
	uint8_t arguments_bytes; /* the fixed part behind the header */
	uint8_t answer_bytes; /* the fixed part behind the fuse_out_header: less room is EINVAL before anything is done */
	uint8_t names; /* components of a path behind the arguments */
	uint8_t flags;
};

#define ENTRY_BYTES sizeof(struct fuse_entry_out)
#define CREATE_BYTES (sizeof(struct fuse_entry_out) + sizeof(struct fuse_open_out))

static const struct operation operations[] = {
	[FUSE_LOOKUP] = { fs_do_lookup, 0, ENTRY_BYTES, 1, 0 },
	[FUSE_FORGET] = { fs_do_forget, sizeof(struct fuse_forget_in), 0, 0, NO_NODE | NO_ANSWER },
	[FUSE_GETATTR] = { fs_do_getattr, sizeof(struct fuse_getattr_in), sizeof(struct fuse_attr_out), 0, 0 },
	[FUSE_SETATTR] = { fs_do_setattr, sizeof(struct fuse_setattr_in), sizeof(struct fuse_attr_out), 0, CHANGES },
	[FUSE_READLINK] = { fs_do_readlink, 0, 0, 0, 0 },
	[FUSE_SYMLINK] = { fs_do_symlink, 0, ENTRY_BYTES, 1, CHANGES | MORE },
	[FUSE_MKNOD] = { fs_do_mknod, sizeof(struct fuse_mknod_in), ENTRY_BYTES, 1, CHANGES },
	[FUSE_MKDIR] = { fs_do_mkdir, sizeof(struct fuse_mkdir_in), ENTRY_BYTES, 1, CHANGES },
	[FUSE_UNLINK] = { fs_do_unlink, 0, 0, 1, CHANGES },
	[FUSE_RMDIR] = { fs_do_rmdir, 0, 0, 1, CHANGES },
	[FUSE_RENAME] = { fs_do_rename, sizeof(struct fuse_rename_in), 0, 2, CHANGES },
	[FUSE_LINK] = { fs_do_link, sizeof(struct fuse_link_in), ENTRY_BYTES, 1, CHANGES },
	[FUSE_OPEN] = { fs_do_open, sizeof(struct fuse_open_in), sizeof(struct fuse_open_out), 0, 0 },
	[FUSE_READ] = { fs_do_read, sizeof(struct fuse_read_in), 0, 0, 0 },
	[FUSE_WRITE] = { fs_do_write, sizeof(struct fuse_write_in), sizeof(struct fuse_write_out), 0, CHANGES | MORE },
	[FUSE_STATFS] = { fs_do_statfs, 0, sizeof(struct fuse_statfs_out), 0, 0 },
	[FUSE_RELEASE] = { fs_do_release, sizeof(struct fuse_release_in), 0, 0, NO_NODE },
	[FUSE_FSYNC] = { fs_do_fsync, sizeof(struct fuse_fsync_in), 0, 0, 0 },
	[FUSE_SETXATTR] = { fs_do_setxattr, 0, 0, 0, CHANGES | MORE },
	[FUSE_GETXATTR] = { fs_do_getxattr, sizeof(struct fuse_getxattr_in), 0, 0, MORE },
	[FUSE_LISTXATTR] = { fs_do_listxattr, sizeof(struct fuse_getxattr_in), 0, 0, 0 },
	[FUSE_REMOVEXATTR] = { fs_do_removexattr, 0, 0, 0, CHANGES | MORE },
	[FUSE_FLUSH] = { fs_do_flush, sizeof(struct fuse_flush_in), 0, 0, 0 },
	[FUSE_INIT] = { fs_do_init, 0, sizeof(struct fuse_init_out), 0, NO_NODE | ANY_TIME | MORE },
	[FUSE_OPENDIR] = { fs_do_opendir, sizeof(struct fuse_open_in), sizeof(struct fuse_open_out), 0, 0 },
	[FUSE_READDIR] = { fs_do_readdir, sizeof(struct fuse_read_in), 0, 0, 0 },
	[FUSE_RELEASEDIR] = { fs_do_release, sizeof(struct fuse_release_in), 0, 0, NO_NODE },
	[FUSE_FSYNCDIR] = { fs_do_fsyncdir, sizeof(struct fuse_fsync_in), 0, 0, 0 },
	/* Locks are not negotiated: the client's kernel does them among its own processes. */
	[FUSE_CREATE] = { fs_do_create, sizeof(struct fuse_create_in), CREATE_BYTES, 1, CHANGES },
	[FUSE_INTERRUPT] = { NULL, 0, 0, 0, NO_NODE | NO_ANSWER },
	[FUSE_DESTROY] = { fs_do_destroy, 0, 0, 0, NO_NODE },
	[FUSE_BATCH_FORGET] = { fs_do_batch_forget, sizeof(struct fuse_batch_forget_in), 0, 0, NO_NODE | NO_ANSWER | MORE },
	[FUSE_FALLOCATE] = { fs_do_fallocate, sizeof(struct fuse_fallocate_in), 0, 0, CHANGES },
	[FUSE_READDIRPLUS] = { fs_do_readdirplus, sizeof(struct fuse_read_in), 0, 0, 0 },
	[FUSE_RENAME2] = { fs_do_rename2, sizeof(struct fuse_rename2_in), 0, 2, CHANGES },
	[FUSE_LSEEK] = { fs_do_lseek, sizeof(struct fuse_lseek_in), sizeof(struct fuse_lseek_out), 0, 0 },
	[FUSE_COPY_FILE_RANGE] = { fs_do_copy_file_range, sizeof(struct fuse_copy_file_range_in), sizeof(struct fuse_write_out), 0,
				   CHANGES },
	[FUSE_SETUPMAPPING] = { fs_do_setupmapping, sizeof(struct fuse_setupmapping_in), 0, 0, 0 },
	[FUSE_REMOVEMAPPING] = { fs_do_removemapping, sizeof(struct fuse_removemapping_in), 0, 0, NO_NODE | MORE },
	[FUSE_SYNCFS] = { fs_do_syncfs, sizeof(struct fuse_syncfs_in), 0, 0, 0 },
	[FUSE_TMPFILE] = { fs_do_tmpfile, sizeof(struct fuse_create_in), CREATE_BYTES, 0, CHANGES | MORE },
};

static const struct operation unknown;

static const struct operation *operation_of(uint32_t opcode)
{
	return opcode < sizeof(operations) / sizeof(*operations) ? &operations[opcode] : &unknown;
}

/* ---- for handlers ----------------------------------------------------------------------------------------------------------------- */

void fs_answer_at(struct fs_request *request, size_t offset, const void *bytes, size_t length)
{
	iov_copy_in(request->out, request->out_count, sizeof(struct fuse_out_header) + offset, bytes, length);
}

ssize_t fs_answer(struct fs_request *request, const void *body, size_t length)
{
	fs_answer_at(request, 0, body, length);
	return (ssize_t)length;
}

int fs_request_take(struct fs_request *request, void *to, size_t length)
{
	if (length > request->in_stop - request->in_at)
		return -EINVAL;
	if (iov_copy_out(request->in, request->in_count, request->in_at, to, length) != length)
		return -EINVAL;
	request->in_at += length;
	return 0;
}

int fs_request_string(struct fs_request *request, char *to, size_t size)
{
	const size_t left = request->in_stop - request->in_at;
	const size_t got = iov_copy_out(request->in, request->in_count, request->in_at, to, left < size ? left : size);
	const char *end = memchr(to, 0, got);
	if (!end)
		return got == size ? -ENAMETOOLONG : -EINVAL;
	request->in_at += (size_t)(end - to) + 1;
	return 0;
}

int fs_name_check(const char *name)
{
	if (!*name || strchr(name, '/') || strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return -EINVAL;
	return strlen(name) > FS_NAME_MAX ? -ENAMETOOLONG : 0;
}

/* ---- the way through -------------------------------------------------------------------------------------------------------------- */

/* Arguments, names, and nothing behind them unless the handler goes on reading. */
static int read_arguments(struct fs_request *request, const struct operation *operation)
{
	int result = fs_request_take(request, &request->args, operation->arguments_bytes);
	for (unsigned i = 0; i < operation->names && !result; i++) {
		result = fs_request_string(request, request->names[i], sizeof(request->names[i]));
		if (!result)
			result = fs_name_check(request->names[i]);
	}
	if (!result && !(operation->flags & MORE) && request->in_at != request->in_stop)
		result = -EINVAL;
	return result;
}

static ssize_t run(struct fs_request *request, const struct operation *operation)
{
	struct fs_server *server = request->server;

	if (!server->ready && !(operation->flags & ANY_TIME))
		return -EIO;
	if (!operation->handler)
		return -ENOSYS;
	if (request->out_room < operation->answer_bytes)
		return -EINVAL;
	if (server->read_only && operation->flags & CHANGES)
		return -EROFS;
	int result = read_arguments(request, operation);
	if (!result && !(operation->flags & NO_NODE))
		result = fs_node_get(server, request->header.nodeid, &request->node);
	if (result)
		return result;
	const ssize_t answer = operation->handler(request);
	fs_node_put(server, request->node);
	return answer;
}

static bool fits_count(size_t count)
{
	return count <= UINT_MAX;
}

ssize_t fs_server_handle(struct fs_server *server, const struct iovec *in, size_t in_count, const struct iovec *out,
			 size_t out_count)
{
	struct fs_request request;

	server->requests++;
	if (!fits_count(in_count) || !fits_count(out_count))
		return -EPROTO;
	/* The arguments and names are written before they are read; the rest starts as nothing. */
	request.server = server;
	request.node = NULL;
	request.in = in;
	request.in_count = (unsigned)in_count;
	request.out = out;
	request.out_count = (unsigned)out_count;
	request.in_at = 0;
	request.in_stop = iov_total(in, request.in_count);
	const size_t out_bytes = iov_total(out, request.out_count);
	struct fuse_out_header answer = { .len = 0 };
	request.out_room = out_bytes < sizeof(answer) ? 0 : out_bytes - sizeof(answer);
	if (fs_request_take(&request, &request.header, sizeof(request.header)))
		return -EPROTO;

	const struct operation *operation = operation_of(request.header.opcode);
	if (out_bytes < sizeof(answer) && !(operation->flags & NO_ANSWER))
		return -EPROTO;
	ssize_t length = -EINVAL;
	if (request.header.len >= sizeof(request.header) && request.header.len <= request.in_stop) {
		request.in_stop = request.header.len;
		length = run(&request, operation);
	}
	if (operation->flags & NO_ANSWER || length == FS_NO_ANSWER)
		return 0;
	assert(length <= (ssize_t)request.out_room);
	if (length < 0)
		server->errors++;
	answer.len = (uint32_t)sizeof(answer) + (length > 0 ? (uint32_t)length : 0);
	answer.error = length < 0 ? (int32_t)length : 0;
	answer.unique = request.header.unique;
	iov_copy_in(out, request.out_count, 0, &answer, sizeof(answer));
	return answer.len;
}
