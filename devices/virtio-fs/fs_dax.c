/*
 * Files that the client has mapped (DAX): SETUPMAPPING, REMOVEMAPPING. Source: the kernel's fs/fuse/dax.c.
 *
 *   the window   FS_RANGES ranges of FS_RANGE_BYTES, each of which shows one piece of one file, or nothing
 *
 *   a range      | pages that the file has | pages behind its end |
 *                  as the file is opened     PROT_NONE, at the latest since fs_server_look_at_window()
 *
 * The client names node, place in the file and range; the server opens the file anew for it and keeps no descriptor. So what a client can
 * make this process hold are two mappings and one reference to a node for each range.
 *
 * The window is never without a mapping, not for a moment: what another thread allocated in a gap would be the guest's. So a file is mapped
 * elsewhere first, where that can fail, and then moved over what is there, as which KVM sees one change and no state between.
 */
#include "devices/virtio-fs/fs_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/xattr.h>
#include <unistd.h>

#define PAGE_BYTES 4096u
#define NOTHING (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE)

/* ---- the window ------------------------------------------------------------------------------------------------------------------ */

int fs_window_init(struct fs_window *window)
{
	/* Large pages of a file in memory can be large pages of the guest only when the addresses are congruent. */
	const uint64_t reserve_bytes = FS_WINDOW_BYTES + FS_RANGE_BYTES;
	uint8_t *reserve = mmap(NULL, reserve_bytes, PROT_NONE, NOTHING, -1, 0);
	if (reserve == MAP_FAILED)
		return -errno;
	const uint64_t head = -(uintptr_t)reserve % FS_RANGE_BYTES;
	if (head)
		munmap(reserve, head);
	if (head != FS_RANGE_BYTES)
		munmap(reserve + head + FS_WINDOW_BYTES, FS_RANGE_BYTES - head);
	pthread_mutex_init(&window->lock, NULL);
	window->host = reserve + head;
	/* Files of the host have no business in a core file of ours. */
	madvise(window->host, FS_WINDOW_BYTES, MADV_DONTDUMP);
	return 0;
}

static uint8_t *range_host(const struct fs_window *window, unsigned index)
{
	return window->host + index * FS_RANGE_BYTES;
}

/* With the lock. Returns the node that was there, whose reference is the caller's, or NULL. */
static struct fs_node *forget_range(struct fs_window *window, unsigned index)
{
	struct fs_range *range = &window->ranges[index];
	struct fs_node *node = range->node;
	range->node = NULL;
	range->life++;
	if (node)
		window->mapped--;
	return node;
}

/* With the lock. Linux may have made the gap before it finds that it has no memory for more: then there is nothing to go on with. */
static void show_nothing(struct fs_window *window, unsigned index)
{
	if (mmap(range_host(window, index), FS_RANGE_BYTES, PROT_NONE, NOTHING | MAP_FIXED, -1, 0) == MAP_FAILED)
		abort();
}

static void clear_range(struct fs_server *server, unsigned index)
{
	struct fs_window *window = &server->window;
	pthread_mutex_lock(&window->lock);
	struct fs_node *node = forget_range(window, index);
	if (node)
		show_nothing(window, index);
	pthread_mutex_unlock(&window->lock);
	fs_node_put(server, node);
}

void fs_window_clear(struct fs_server *server)
{
	for (unsigned i = 0; server->window.mapped && i < FS_RANGES; i++)
		clear_range(server, i);
}

void fs_window_free(struct fs_server *server)
{
	struct fs_window *window = &server->window;
	if (!window->host)
		return;
	fs_window_clear(server);
	munmap(window->host, FS_WINDOW_BYTES);
	pthread_mutex_destroy(&window->lock);
}

void *fs_server_window(const struct fs_server *server)
{
	return server->window.host;
}

bool fs_server_maps(const struct fs_server *server)
{
	return server->window.mapped != 0;
}

/* ---- what files have become ------------------------------------------------------------------------------------------------------ */

/* With the lock. Returns whether more is accessible than before. */
static bool fit_range(struct fs_window *window, unsigned index, uint64_t file_bytes)
{
	struct fs_range *range = &window->ranges[index];
	const uint64_t left = file_bytes > range->offset ? file_bytes - range->offset : 0;
	const uint32_t there =
	    left >= FS_RANGE_BYTES ? (uint32_t)FS_RANGE_BYTES : ((uint32_t)left + PAGE_BYTES - 1) & ~(PAGE_BYTES - 1);
	const uint32_t before = range->there_bytes;
	const int access = PROT_READ | (range->writable ? PROT_WRITE : 0);
	uint8_t *host = range_host(window, index);

	if (there == before)
		return false;
	const bool more = there > before;
	const uint32_t start = more ? before : there, stop = more ? there : before;
	if (mprotect(host + start, stop - start, more ? access : PROT_NONE) < 0)
		return false;
	range->there_bytes = there;
	return more;
}

bool fs_server_look_at_window(struct fs_server *server)
{
	struct fs_window *window = &server->window;
	bool more = false;

	for (unsigned i = 0; window->mapped && i < FS_RANGES; i++) {
		struct fs_range *range = &window->ranges[i];
		struct statx stx;
		pthread_mutex_lock(&window->lock);
		struct fs_node *node = range->node;
		const uint32_t life = range->life;
		if (node)
			fs_node_ref(server, node);
		pthread_mutex_unlock(&window->lock);
		if (!node)
			continue;
		/* A file of which no name is known any more, and no descriptor, stays as it is. */
		const bool known = fs_node_statx(server, node, &stx) == 0;
		pthread_mutex_lock(&window->lock);
		if (known && range->life == life)
			more |= fit_range(window, i, stx.stx_size);
		pthread_mutex_unlock(&window->lock);
		fs_node_put(server, node);
	}
	return more;
}

/* ---- requests -------------------------------------------------------------------------------------------------------------------- */

/* Are these ranges of the window? */
static bool is_in_window(const struct fs_window *window, uint64_t at, uint64_t length)
{
	return window->host && length && at % FS_RANGE_BYTES == 0 && length % FS_RANGE_BYTES == 0 && at <= FS_WINDOW_BYTES &&
	       length <= FS_WINDOW_BYTES - at;
}

/* Maps FS_RANGE_BYTES of the file from `offset` on. Returns 0 or -errno. */
static int map_range(struct fs_server *server, unsigned index, struct fs_node *node, int fd, uint64_t offset, bool writable)
{
	struct fs_window *window = &server->window;
	const int access = PROT_READ | (writable ? PROT_WRITE : 0);
	int result = 0;

	void *elsewhere = mmap(NULL, FS_RANGE_BYTES, access, MAP_SHARED, fd, (off_t)offset);
	if (elsewhere == MAP_FAILED)
		return -errno;
	madvise(elsewhere, FS_RANGE_BYTES, MADV_DONTDUMP);
	pthread_mutex_lock(&window->lock);
	const void *moved =
	    mremap(elsewhere, FS_RANGE_BYTES, FS_RANGE_BYTES, MREMAP_MAYMOVE | MREMAP_FIXED, range_host(window, index));
	struct fs_node *before = forget_range(window, index);
	if (moved == MAP_FAILED) {
		result = -errno;
		show_nothing(window, index);
	} else {
		fs_node_ref(server, node);
		struct fs_range *range = &window->ranges[index];
		range->node = node;
		range->offset = offset;
		range->there_bytes = FS_RANGE_BYTES;
		range->writable = writable;
		window->mapped++;
	}
	pthread_mutex_unlock(&window->lock);
	if (result)
		munmap(elsewhere, FS_RANGE_BYTES);
	fs_node_put(server, before);
	return result;
}

/*
 * By write(2) a program loses set-id bits and capabilities, by a mapping it does not: what the client writes there would run on this host
 * as its owner. So it loses them first: chown(2) takes all of them, of whatever is no directory, even one that changes nothing. Returns 0
 * or -errno.
 */
static int drop_host_privileges(int fd)
{
	struct statx stx;
	const int result = fs_statx(fd, "", &stx);
	if (result)
		return result;
	if (!(stx.stx_mode & (S_ISUID | S_ISGID)) && fgetxattr(fd, "security.capability", NULL, 0) < 0)
		return 0;
	return fchownat(fd, "", (uid_t)-1, (gid_t)-1, AT_EMPTY_PATH) < 0 ? -errno : 0;
}

/* Opens the file for the mapping. Returns the descriptor or -errno. */
static int open_for(struct fs_server *server, struct fs_node *node, bool writable)
{
	if (node->kind != FS_NODE_HOST || !S_ISREG(node->identity.type))
		return S_ISDIR(node->identity.type) ? -EISDIR : -EACCES;
	const int path_fd = fs_node_open(server, node);
	if (path_fd < 0)
		return path_fd;
	const int fd = fs_node_reopen(server, node, path_fd, writable ? O_RDWR : O_RDONLY);
	fs_node_close(server, node);
	return fd;
}

/* The handle adds nothing: Linux gives none that is valid. */
ssize_t fs_do_setupmapping(struct fs_request *request)
{
	const struct fuse_setupmapping_in *in = &request->args.setupmapping;
	struct fs_server *server = request->server;
	const bool writable = in->flags & FUSE_SETUPMAPPING_FLAG_WRITE;

	if (!is_in_window(&server->window, in->moffset, in->len))
		return server->window.host ? -EINVAL : -ENOSYS;
	if (in->foffset % FS_RANGE_BYTES || in->foffset > INT64_MAX - in->len)
		return -EINVAL;
	if ((in->flags & ~FUSE_SETUPMAPPING_FLAG_WRITE) != FUSE_SETUPMAPPING_FLAG_READ)
		return -EINVAL;
	if (writable && server->read_only)
		return -EROFS;
	const int fd = open_for(server, request->node, writable);
	if (fd < 0)
		return fd;
	int result = writable ? drop_host_privileges(fd) : 0;
	for (uint64_t at = 0; at < in->len && result == 0; at += FS_RANGE_BYTES)
		result = map_range(server, (unsigned)((in->moffset + at) / FS_RANGE_BYTES), request->node, fd, in->foffset + at,
				   writable);
	close(fd);
	return result;
}

ssize_t fs_do_removemapping(struct fs_request *request)
{
	struct fs_server *server = request->server;
	const uint32_t count = request->args.removemapping.count;
	struct fuse_removemapping_one one;

	if (!server->window.host)
		return -ENOSYS;
	if ((request->in_stop - request->in_at) % sizeof(one) || (request->in_stop - request->in_at) / sizeof(one) != count)
		return -EINVAL;
	for (uint32_t i = 0; i < count; i++) {
		int result = fs_request_take(request, &one, sizeof(one));
		if (!result && !is_in_window(&server->window, one.moffset, one.len))
			result = -EINVAL;
		if (result)
			return result;
		for (uint64_t at = 0; at < one.len; at += FS_RANGE_BYTES)
			clear_range(server, (unsigned)((one.moffset + at) / FS_RANGE_BYTES));
	}
	return 0;
}
