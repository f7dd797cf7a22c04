/* FUSE_INIT and FUSE_DESTROY: what client and server agree on. Source: process_init_reply() in the kernel's fs/fuse/inode.c. */
#include "devices/virtio-fs/fs_internal.h"

#include <errno.h>
#include <string.h>

#define MINOR                                                                                                                      \
	38u /* the newest that this server knows; the meaning of its header is pinned, whatever <linux/fuse.h> it is built with */
#define MINOR_OLDEST 31u /* virtio-fs came with it */
#define MAX_BACKGROUND 64 /* requests of read-ahead and write-back under way; the queue bounds them as well */
#define OLD_INIT_BYTES 16 /* before FUSE_INIT_EXT */

/* The flags of both sides' capabilities, of which the client offers some. */
static uint64_t wanted_flags(const struct fs_server *server)
{
	uint64_t flags = FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO |
			 FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES | FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT |
			 FUSE_INIT_EXT;
	if (server->cache != FS_CACHE_NONE)
		flags |= FUSE_CACHE_SYMLINKS;
	if (server->cache == FS_CACHE_AUTO)
		flags |= FUSE_AUTO_INVAL_DATA;
	if (server->writeback_wanted)
		flags |= FUSE_WRITEBACK_CACHE;
	if (server->window.host)
		flags |= FUSE_MAP_ALIGNMENT;
	if (server->dax == FS_DAX_INODE)
		flags |= FUSE_HAS_INODE_DAX;
	return flags;
}

ssize_t fs_do_init(struct fs_request *request)
{
	struct fs_server *server = request->server;
	struct fuse_init_in in = { .major = 0 };
	struct fuse_init_out out = { .major = FUSE_KERNEL_VERSION, .minor = MINOR };

	if (server->ready)
		return -EIO;
	size_t length = request->in_stop - request->in_at;
	if (length < OLD_INIT_BYTES)
		return -EINVAL;
	if (length > sizeof(in)) /* a newer client's */
		length = sizeof(in);
	const int result = fs_request_take(request, &in, length);
	if (result)
		return result;
	if (in.major > FUSE_KERNEL_VERSION) /* it asks again with ours */
		return fs_answer(request, &out, sizeof(out));
	if (in.major < FUSE_KERNEL_VERSION || in.minor < MINOR_OLDEST)
		return -EPROTO;

	uint64_t offered = (uint32_t)in.flags;
	if (in.flags & FUSE_INIT_EXT)
		offered |= (uint64_t)in.flags2 << 32;
	const uint64_t flags = offered & wanted_flags(server);
	out.minor = in.minor < MINOR ? in.minor : MINOR;
	out.max_readahead = in.max_readahead;
	out.flags = (uint32_t)flags;
	out.flags2 = (uint32_t)(flags >> 32);
	out.max_background = MAX_BACKGROUND;
	out.congestion_threshold = MAX_BACKGROUND * 3 / 4;
	out.max_write = FS_DATA_MAX;
	out.max_pages = FS_DATA_MAX / 4096;
	out.time_gran = 1;
	out.map_alignment = flags & FUSE_MAP_ALIGNMENT ? (uint16_t)__builtin_ctzll(FS_RANGE_BYTES) : 0;
	server->writeback = flags & FUSE_WRITEBACK_CACHE;
	server->setxattr_ext = flags & FUSE_SETXATTR_EXT;
	server->ready = true;
	return fs_answer(request, &out, sizeof(out));
}

/* At unmounting. A later mount starts with FUSE_INIT again. */
ssize_t fs_do_destroy(struct fs_request *request)
{
	struct fs_server *server = request->server;
	server->ready = false;
	fs_window_clear(server);
	fs_files_release_all(server);
	fs_nodes_forget_all(server);
	return 0;
}
