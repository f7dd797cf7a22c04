/*
 * The descriptors of nodes. There are at most `slots_max`; when one more is wanted, the hand goes round and closes the first that nobody uses
 * and nobody used since it last came by (the clock algorithm).
 *
 * A node without a descriptor is found again as its name in its parent. What is found has to be the same file as before, by device, inode,
 * moment of birth and type; another one there, or none, is ESTALE, upon which the client's kernel looks names up anew.
 */
#include "devices/virtio-fs/fs_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Directories within each other that are opened to find one; each takes stack. */
#define DEPTH_MAX 1024u

int fs_statx(int fd, const char *name, struct statx *stx)
{
	const int flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH;
	return statx(fd, name, flags, STATX_BASIC_STATS | STATX_BTIME, stx) ? -errno : 0;
}

int fs_reopen(const struct fs_server *server, int fd, int flags)
{
	char name[16];
	snprintf(name, sizeof(name), "%d", fd);
	const int opened = openat(server->proc_fd, name, flags | O_CLOEXEC | O_NOCTTY);
	return opened < 0 ? -errno : opened;
}

static int open_beneath(int parent_fd, const char *name)
{
	const struct open_how how = {
		.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	const long fd = syscall(SYS_openat2, parent_fd, name, &how, sizeof(how));
	return fd < 0 ? -errno : (int)fd;
}

static bool is_same(const struct fs_node *node, const struct statx *stx)
{
	const struct fs_identity identity = fs_identity_of(stx);
	return fs_identity_same(&identity, &node->identity);
}

/* A slot for one more descriptor, with the lock held; what is closed for it goes to *closed. Returns it or -ENFILE. */
static int64_t find_slot(struct fs_server *server, int *closed)
{
	if (server->free_slot_count)
		return server->free_slots[--server->free_slot_count];
	for (uint32_t steps = 0; steps < 2 * server->slots_max; steps++) {
		const uint32_t slot = server->hand;
		server->hand = (server->hand + 1) % server->slots_max;
		struct fs_node *node = server->slots[slot];
		if (node->fd_users || node->lasting)
			continue;
		if (node->recent) {
			node->recent = false;
			continue;
		}
		*closed = node->fd;
		node->fd = -1;
		return slot;
	}
	return -ENFILE;
}

int fs_node_give_fd(struct fs_server *server, struct fs_node *node, int fd)
{
	int closed = -1, result = 0;

	pthread_mutex_lock(&server->lock);
	if (node->fd >= 0) { /* somebody else was faster */
		closed = fd;
	} else {
		const int64_t slot = find_slot(server, &closed);
		if (slot < 0) {
			result = -ENFILE;
			closed = fd;
		} else {
			node->slot = (uint32_t)slot;
			node->fd = fd;
			server->slots[slot] = node;
			server->descriptors++;
		}
	}
	if (!result) {
		node->fd_users++;
		node->recent = true;
	}
	if (closed >= 0 && closed != fd)
		server->descriptors--;
	pthread_mutex_unlock(&server->lock);
	if (closed >= 0)
		close(closed);
	return result;
}

/* The descriptor if there is one, as open; else where the file is: `name` has room for one, *parent is a reference. */
static int open_or_place(struct fs_server *server, struct fs_node *node, char *name, struct fs_node **parent)
{
	int fd = -1;

	pthread_mutex_lock(&server->lock);
	if (node->fd >= 0) {
		node->fd_users++;
		node->recent = true;
		fd = node->fd;
	} else if (node->parent && node->name) {
		memcpy(name, node->name, strlen(node->name) + 1);
		*parent = node->parent;
		node->parent->refs++;
	}
	pthread_mutex_unlock(&server->lock);
	return fd >= 0 || *parent ? fd : -ESTALE;
}

static int stale_when_missing(int result)
{
	return result == -ENOENT || result == -ENOTDIR || result == -ELOOP ? -ESTALE : result;
}

static int node_open(struct fs_server *server, struct fs_node *node, unsigned depth)
{
	char name[FS_NAME_MAX + 1];
	struct fs_node *parent = NULL;

	const int known = open_or_place(server, node, name, &parent);
	if (!parent)
		return known;
	int fd = depth < DEPTH_MAX ? node_open(server, parent, depth + 1) : -ESTALE;
	if (fd >= 0) {
		fd = stale_when_missing(open_beneath(fd, name));
		fs_node_close(server, parent);
	}
	fs_node_put(server, parent);
	if (fd < 0)
		return fd;

	struct statx stx;
	int result = fs_statx(fd, "", &stx);
	if (!result && !is_same(node, &stx))
		result = -ESTALE;
	if (result) {
		close(fd);
		return result;
	}
	result = fs_node_give_fd(server, node, fd);
	return result ? result : node->fd; /* which stays the same as long as we use it */
}

int fs_node_open(struct fs_server *server, struct fs_node *node)
{
	return node_open(server, node, 0);
}

void fs_node_close(struct fs_server *server, struct fs_node *node)
{
	pthread_mutex_lock(&server->lock);
	node->fd_users--;
	pthread_mutex_unlock(&server->lock);
}

int fs_node_statx(struct fs_server *server, struct fs_node *node, struct statx *stx)
{
	char name[FS_NAME_MAX + 1];
	struct fs_node *parent = NULL;

	if (node->kind == FS_NODE_EXTRA)
		return fs_statx(server->extra_fd, "", stx);
	const int fd = open_or_place(server, node, name, &parent);
	if (!parent) {
		if (fd < 0)
			return fd;
		const int result = fs_statx(fd, "", stx);
		fs_node_close(server, node);
		return result;
	}
	/* No descriptor is spent on files of which nothing but attributes is wanted. */
	const int parent_fd = node_open(server, parent, 0);
	int result = parent_fd < 0 ? parent_fd : stale_when_missing(fs_statx(parent_fd, name, stx));
	if (parent_fd >= 0)
		fs_node_close(server, parent);
	if (!result && !is_same(node, stx))
		result = -ESTALE;
	fs_node_put(server, parent);
	return result;
}

int fs_node_open_readable(struct fs_server *server, struct fs_node *node)
{
	if (!S_ISREG(node->identity.type) && !S_ISDIR(node->identity.type))
		return -EOPNOTSUPP;
	const int path_fd = fs_node_open(server, node);
	if (path_fd < 0)
		return path_fd;
	const int fd = fs_reopen(server, path_fd, O_RDONLY);
	fs_node_close(server, node);
	return fd;
}
