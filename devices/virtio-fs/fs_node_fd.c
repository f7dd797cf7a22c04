/*
 * The descriptors of nodes. There are at most `slots_max`; when one more is wanted, the hand goes round and closes the first that nobody
 * uses and nobody used since it last came by (the clock algorithm).
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

/* Directories that are opened to find one file: more than a path may have components, twice, because others need descriptors meanwhile. */
#define STEPS_MAX 4096u

int fs_statx(int fd, const char *name, struct statx *stx)
{
	const int flags = AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_EMPTY_PATH;
	return statx(fd, name, flags, STATX_BASIC_STATS | STATX_BTIME, stx) ? -errno : 0;
}

int fs_reopen(const struct fs_server *server, int fd, int flags)
{
	char name[16];
	int opened = -1;

	snprintf(name, sizeof(name), "%d", fd);
	errno = EPERM;
	if (server->read_only && !(flags & O_PATH)) /* not even the time of reading changes, as far as the host lets us */
		opened = openat(server->proc_fd, name, flags | O_NOATIME | O_CLOEXEC);
	if (opened < 0 && errno == EPERM)
		opened = openat(server->proc_fd, name, flags | O_CLOEXEC);
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

/* Where a file without a descriptor is: the directory that is known to have it, open as by fs_node_open() and with a reference. */
struct place {
	struct fs_node *parent;
	int parent_fd;
	char name[FS_NAME_MAX + 1];
};

static void leave_place(struct fs_server *server, const struct place *place)
{
	fs_node_close(server, place->parent);
	fs_node_put(server, place->parent);
}

/*
 * The descriptor if there is one, as open. Else *missing becomes a reference to the topmost of those above it (or itself) that have none,
 * and *place is where that one is. Returns the descriptor, -EAGAIN for the second, or -ESTALE.
 */
static int open_or_place(struct fs_server *server, struct fs_node *node, struct fs_node **missing, struct place *place)
{
	int result = -ESTALE;

	pthread_mutex_lock(&server->lock);
	if (node->fd >= 0) {
		node->fd_users++;
		node->recent = true;
		result = node->fd;
	} else {
		while (node->parent && node->name && node->parent->fd < 0)
			node = node->parent;
		if (node->parent && node->name) {
			memcpy(place->name, node->name, strlen(node->name) + 1);
			place->parent = node->parent;
			place->parent->refs++;
			place->parent->fd_users++;
			place->parent->recent = true;
			place->parent_fd = place->parent->fd;
			node->refs++;
			*missing = node;
			result = -EAGAIN;
		}
	}
	pthread_mutex_unlock(&server->lock);
	return result;
}

static int stale_when_missing(int result)
{
	return result == -ENOENT || result == -ENOTDIR || result == -ELOOP ? -ESTALE : result;
}

/* Opens what is at the place, if it is the node's file. The node is open then. */
static int open_at_place(struct fs_server *server, struct fs_node *node, const struct place *place)
{
	struct statx stx;

	const int fd = open_beneath(place->parent_fd, place->name);
	if (fd < 0)
		return stale_when_missing(fd);
	int result = fs_statx(fd, "", &stx);
	if (!result && !is_same(node, &stx))
		result = -ESTALE;
	if (result) {
		close(fd);
		return result;
	}
	return fs_node_give_fd(server, node, fd);
}

int fs_node_open(struct fs_server *server, struct fs_node *node)
{
	/* From the top down; what was opened may be closed again for others before the next step. */
	for (unsigned steps = 0; steps < STEPS_MAX; steps++) {
		struct fs_node *missing = NULL;
		struct place place;
		int result = open_or_place(server, node, &missing, &place);
		if (result != -EAGAIN)
			return result;
		result = open_at_place(server, missing, &place);
		leave_place(server, &place);
		const bool reached = missing == node;
		const int fd = result ? result : missing->fd; /* stays the same as long as we use it */
		if (!result && !reached)
			fs_node_close(server, missing);
		fs_node_put(server, missing);
		if (result || reached)
			return fd;
	}
	return -ESTALE;
}

void fs_node_close(struct fs_server *server, struct fs_node *node)
{
	pthread_mutex_lock(&server->lock);
	node->fd_users--;
	pthread_mutex_unlock(&server->lock);
}

int fs_node_statx(struct fs_server *server, struct fs_node *node, struct statx *stx)
{
	struct fs_node *missing = NULL;
	struct place place;

	if (node->kind == FS_NODE_EXTRA)
		return fs_statx(fs_extra_fd(server, node), "", stx);
	int result = open_or_place(server, node, &missing, &place);
	if (result == -EAGAIN && missing == node) {
		/* No descriptor is spent on a file of which nothing but attributes is wanted. */
		result = stale_when_missing(fs_statx(place.parent_fd, place.name, stx));
		leave_place(server, &place);
		fs_node_put(server, node);
		return !result && !is_same(node, stx) ? -ESTALE : result;
	}
	if (result == -EAGAIN) { /* directories above have none either */
		leave_place(server, &place);
		fs_node_put(server, missing);
		result = fs_node_open(server, node);
	}
	if (result < 0)
		return result;
	result = fs_statx(result, "", stx);
	fs_node_close(server, node);
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
