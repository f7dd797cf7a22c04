/*
 * Reading directories: READDIR and READDIRPLUS. The offsets that the client goes on from are the host's own cookies, which stay good while
 * entries come and go; only when it does not go on where it stopped is the host's position set anew.
 */
#include "devices/virtio-fs/fs_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define BUFFER_BYTES 16384u

/* As getdents64() writes it. */
struct host_dirent {
	uint64_t ino;
	int64_t off;
	uint16_t reclen;
	uint8_t type;
	char name[];
};

/* What of the answer is written so far. */
struct listing {
	struct fs_request *request;
	struct fs_file *dir;
	bool plus;
	size_t used, room;
};

static size_t record_bytes(const struct listing *listing, const char *name)
{
	const size_t fixed = listing->plus ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET;
	return FUSE_REC_ALIGN(fixed + strlen(name));
}

/* There is room. */
static void add_record(struct listing *listing, const struct fuse_entry_out *entry, const struct fuse_dirent *dirent,
		       const char *name)
{
	static const char padding[8];
	const size_t end = listing->used + record_bytes(listing, name);
	size_t at = listing->used;

	if (listing->plus) {
		fs_answer_at(listing->request, at, entry, sizeof(*entry));
		at += sizeof(*entry);
	}
	fs_answer_at(listing->request, at, dirent, FUSE_NAME_OFFSET);
	at += FUSE_NAME_OFFSET;
	fs_answer_at(listing->request, at, name, dirent->namelen);
	at += dirent->namelen;
	fs_answer_at(listing->request, at, padding, end - at);
	listing->used = end;
}

static bool is_dots(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* Files with kept attributes may be of any type: the client has to ask. */
static uint8_t shown_type(const struct fs_server *server, int dir_fd, const struct host_dirent *host)
{
	struct statx stx;
	if (host->type != DT_REG || !server->xattrs)
		return host->type;
	if (statx(dir_fd, host->name, AT_SYMLINK_NOFOLLOW | AT_STATX_DONT_SYNC, STATX_MODE | STATX_TYPE, &stx))
		return host->type;
	return stx.stx_mode & S_ISVTX ? DT_UNKNOWN : DT_REG;
}

/* Returns 1: written or left out, 0: no room. */
static int add_host_entry(struct listing *listing, const struct host_dirent *host)
{
	struct fs_request *request = listing->request;
	struct fs_server *server = request->server;
	struct fs_node *node = listing->dir->node;
	struct fuse_entry_out entry = { .nodeid = 0 };
	const uint64_t shown_ino = node->index == FUSE_ROOT_ID && strcmp(host->name, "..") == 0 ? node->identity.ino : host->ino;
	struct fuse_dirent dirent = {
		.ino = fs_inode_number(server, node->identity.dev, shown_ino),
		.off = (uint64_t)host->off,
		.namelen = (uint32_t)strlen(host->name),
		.type = host->type,
	};

	if (fs_find_extra(server, node, host->name))
		return 1;
	if (record_bytes(listing, host->name) > listing->room - listing->used)
		return 0;
	if (listing->plus && !is_dots(host->name)) {
		const int result = fs_entry_find(server, node, listing->dir->fd, host->name, &entry);
		if (result == -ENOENT)
			return 1;
		if (result) /* the name is there all the same: node 0 */
			entry = (struct fuse_entry_out){ .nodeid = 0 };
		else
			dirent.type = (entry.attr.mode & S_IFMT) >> 12;
	} else if (!listing->plus) {
		dirent.type = shown_type(server, listing->dir->fd, host);
	}
	add_record(listing, &entry, &dirent, host->name);
	return 1;
}

/* More names from the host. Returns 1, 0 at the end, or -errno. */
static int refill(const struct fs_file *dir, struct fs_dir_buffer *entries)
{
	if (!entries->bytes && !(entries->bytes = malloc(BUFFER_BYTES)))
		return -ENOMEM;
	const long n = syscall(SYS_getdents64, dir->fd, entries->bytes, BUFFER_BYTES);
	if (n < 0)
		return -errno;
	entries->start = 0;
	entries->stop = (size_t)n;
	return n > 0;
}

static int list_host(struct listing *listing, uint64_t offset)
{
	struct fs_file *dir = listing->dir;
	struct fs_dir_buffer *entries = &dir->entries;

	if (offset == 0 || offset != entries->offset) {
		if (lseek(dir->fd, (off_t)offset, SEEK_SET) < 0)
			return -errno;
		entries->start = entries->stop = 0;
		entries->offset = offset;
	}
	for (;;) {
		if (entries->start == entries->stop) {
			const int more = refill(dir, entries);
			if (more <= 0) {
				free(entries->bytes); /* most directories are read once */
				entries->bytes = NULL;
				return more;
			}
		}
		const struct host_dirent *host = (const void *)(entries->bytes + entries->start);
		if (!add_host_entry(listing, host))
			return 0;
		entries->start += host->reclen;
		entries->offset = (uint64_t)host->off;
	}
}

/* The root of a share of one file: ".", "..", and the file. The offset is how many of them were read. */
static int list_single(struct listing *listing, uint64_t offset)
{
	struct fs_server *server = listing->request->server;
	const char *const names[] = { ".", "..", server->name };

	for (uint64_t i = offset; i < sizeof(names) / sizeof(*names); i++) {
		const bool is_file = i == 2;
		const struct fuse_dirent dirent = {
			.ino = is_file ? server->single->identity.ino : FUSE_ROOT_ID,
			.off = i + 1,
			.namelen = (uint32_t)strlen(names[i]),
			.type = is_file ? DT_REG : DT_DIR,
		};
		struct fuse_entry_out entry = { .nodeid = 0 };
		struct statx stx;
		if (record_bytes(listing, names[i]) > listing->room - listing->used)
			break;
		if (is_file && listing->plus && fs_node_statx(server, server->single, &stx) == 0)
			fs_entry_of(server, server->single, &stx, &entry);
		add_record(listing, &entry, &dirent, names[i]);
	}
	return 0;
}

static ssize_t read_dir(struct fs_request *request, bool plus)
{
	const struct fuse_read_in *in = &request->args.read;
	struct listing listing = { .request = request, .plus = plus };

	const int result = fs_file_get(request->server, in->fh, true, &listing.dir);
	if (result)
		return result;
	listing.room = in->size < request->out_room ? in->size : request->out_room;
	pthread_mutex_lock(&listing.dir->dir_lock);
	const int failure = listing.dir->fd < 0 ? list_single(&listing, in->offset) : list_host(&listing, in->offset);
	pthread_mutex_unlock(&listing.dir->dir_lock);
	fs_file_put(request->server, listing.dir);
	return failure && !listing.used ? failure : (ssize_t)listing.used;
}

ssize_t fs_do_readdir(struct fs_request *request)
{
	return read_dir(request, false);
}

ssize_t fs_do_readdirplus(struct fs_request *request)
{
	return read_dir(request, true);
}
