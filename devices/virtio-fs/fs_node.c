/*
 * The table of nodes: which number the client has for which file. The numbers, the counts of lookups and the names are ours; the client
 * only says how much of what it was given it forgets.
 *
 * Files are found by device, inode number and moment of birth, so that hard links are one node, and a new file that was given the inode
 * number of a removed one is another. A node holds its parent, since that is how its file is found again (fs_node_fd.c).
 */
#include "devices/virtio-fs/fs_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define BUCKETS_FIRST 1024u

uint64_t fs_node_id(const struct fs_node *node)
{
	return node->index | (uint64_t)node->generation << 32;
}

struct fs_identity fs_identity_of(const struct statx *stx)
{
	return (struct fs_identity){
		.dev = makedev(stx->stx_dev_major, stx->stx_dev_minor),
		.ino = stx->stx_ino,
		.birth_ns = stx->stx_mask & STATX_BTIME ? stx->stx_btime.tv_sec * 1000000000 + stx->stx_btime.tv_nsec : 0,
		.type = stx->stx_mode & S_IFMT,
	};
}

bool fs_identity_same(const struct fs_identity *a, const struct fs_identity *b)
{
	return a->ino == b->ino && a->dev == b->dev && a->birth_ns == b->birth_ns && a->type == b->type;
}

/* ---- with the lock held ----------------------------------------------------------------------------------------------------------- */

static uint32_t hash_of(const struct fs_identity *identity)
{
	const uint64_t mixed = (identity->ino ^ identity->dev << 40) * 0x9e3779b97f4a7c15u;
	return (uint32_t)(mixed >> 32);
}

static struct fs_node **bucket_of(const struct fs_server *server, const struct fs_identity *identity)
{
	return &server->buckets[hash_of(identity) & (server->bucket_count - 1)];
}

static struct fs_node *find_hashed(const struct fs_server *server, const struct fs_identity *identity)
{
	struct fs_node *node = *bucket_of(server, identity);
	while (node && !fs_identity_same(&node->identity, identity))
		node = node->next;
	return node;
}

/* Twice as many buckets when there are as many nodes; without memory the chains get longer. */
static void grow_buckets(struct fs_server *server)
{
	if (server->hashed_count < server->bucket_count || server->bucket_count > UINT32_MAX / 2)
		return;
	const uint32_t count = server->bucket_count;
	struct fs_node **old = server->buckets;
	struct fs_node **buckets = calloc((size_t)count * 2, sizeof(struct fs_node *));
	if (!buckets)
		return;
	server->buckets = buckets;
	server->bucket_count = count * 2;
	for (uint32_t i = 0; i < count; i++)
		for (struct fs_node *node = old[i], *next; node; node = next) {
			next = node->next;
			struct fs_node **bucket = bucket_of(server, &node->identity);
			node->next = *bucket;
			*bucket = node;
		}
	free(old);
}

static void hash_insert(struct fs_server *server, struct fs_node *node)
{
	grow_buckets(server);
	struct fs_node **bucket = bucket_of(server, &node->identity);
	node->next = *bucket;
	*bucket = node;
	node->hashed = true;
	server->hashed_count++;
}

static void hash_remove(struct fs_server *server, struct fs_node *node)
{
	if (!node->hashed)
		return;
	struct fs_node **at = bucket_of(server, &node->identity);
	while (*at != node)
		at = &(*at)->next;
	*at = node->next;
	node->hashed = false;
	server->hashed_count--;
}

static struct fs_node *node_at(const struct fs_server *server, uint32_t index)
{
	return index && index < server->nodes_made ? &server->chunks[index / FS_CHUNK][index % FS_CHUNK] : NULL;
}

/* An unused node with one reference, or NULL: -ENFILE or -ENOMEM in *result. */
static struct fs_node *node_make(struct fs_server *server, int *result)
{
	struct fs_node *node = server->free_nodes;
	if (node) {
		server->free_nodes = node->next;
	} else {
		const uint32_t index = server->nodes_made;
		*result = -ENFILE;
		if (index > server->nodes_max)
			return NULL;
		struct fs_node **chunk = &server->chunks[index / FS_CHUNK];
		if (!*chunk)
			*chunk = calloc(FS_CHUNK, sizeof(**chunk));
		*result = -ENOMEM;
		if (!*chunk)
			return NULL;
		node = &(*chunk)[index % FS_CHUNK];
		node->index = index;
		server->nodes_made++;
	}
	node->next = NULL;
	node->refs = 1;
	node->fd = -1;
	server->node_count++;
	return node;
}

/* Would `node`, put into `parent`, be its own ancestor? Names go out of date when the host moves directories about. */
static bool is_ancestor(const struct fs_node *node, const struct fs_node *parent)
{
	for (; parent; parent = parent->parent)
		if (parent == node)
			return true;
	return false;
}

/* ---- references ------------------------------------------------------------------------------------------------------------------- */

int fs_node_get(struct fs_server *server, uint64_t id, struct fs_node **found)
{
	pthread_mutex_lock(&server->lock);
	struct fs_node *node = node_at(server, (uint32_t)id);
	if (node && node->refs && node->generation == id >> 32)
		node->refs++;
	else
		node = NULL;
	pthread_mutex_unlock(&server->lock);
	if (!node)
		return -ESTALE;
	*found = node;
	return 0;
}

void fs_node_ref(struct fs_server *server, struct fs_node *node)
{
	pthread_mutex_lock(&server->lock);
	node->refs++;
	pthread_mutex_unlock(&server->lock);
}

void fs_node_put(struct fs_server *server, struct fs_node *node)
{
	/* The last reference to a node is the end of one to its parent, and so on. */
	while (node) {
		pthread_mutex_lock(&server->lock);
		assert(node->refs);
		if (--node->refs) {
			pthread_mutex_unlock(&server->lock);
			return;
		}
		assert(!node->lookups && !node->fd_users);
		hash_remove(server, node);
		struct fs_node *parent = node->parent;
		char *name = node->name;
		const int fd = node->fd;
		if (fd >= 0) {
			server->slots[node->slot] = NULL;
			server->free_slots[server->free_slot_count++] = node->slot;
		}
		const uint32_t index = node->index, generation = node->generation + 1;
		memset(node, 0, sizeof(*node));
		node->index = index;
		node->generation = generation;
		node->next = server->free_nodes;
		server->free_nodes = node;
		server->node_count--;
		pthread_mutex_unlock(&server->lock);
		free(name);
		if (fd >= 0) {
			close(fd);
			server->descriptors--;
		}
		node = parent;
	}
}

/* ---- what the client knows -------------------------------------------------------------------------------------------------------- */

/* Where the file was last seen. *name is taken; what was there before goes to *name and *old_parent, for the caller to give up unlocked. */
static void set_place(struct fs_node *node, struct fs_node *parent, char **name, struct fs_node **old_parent)
{
	const bool same_parent = node->parent == parent;
	if (node->lasting || (same_parent && node->name && *name && strcmp(node->name, *name) == 0))
		return;
	char *old_name = node->name;
	if (!same_parent) {
		*old_parent = node->parent;
		node->parent = NULL;
		if (is_ancestor(node, parent)) {
			free(*name);
			*name = old_name;
			node->name = NULL;
			return;
		}
		node->parent = parent;
		if (parent)
			parent->refs++;
	}
	node->name = *name;
	*name = old_name;
}

int fs_node_add(struct fs_server *server, const struct statx *stx, struct fs_node *parent, const char *name, struct fs_node **found)
{
	const struct fs_identity identity = fs_identity_of(stx);
	int result = 0;
	char *own_name = NULL;
	struct fs_node *old_parent = NULL;

	pthread_mutex_lock(&server->lock);
	struct fs_node *node = find_hashed(server, &identity);
	if (node && (node->lasting || !name || (node->parent == parent && node->name && strcmp(node->name, name) == 0))) {
		node->refs++;
		pthread_mutex_unlock(&server->lock);
		*found = node;
		return 0;
	}
	pthread_mutex_unlock(&server->lock);

	if (name && !(own_name = strdup(name)))
		return -ENOMEM;
	pthread_mutex_lock(&server->lock);
	node = find_hashed(server, &identity);
	if (node) {
		node->refs++;
	} else {
		node = node_make(server, &result);
		if (node) {
			node->identity = identity;
			hash_insert(server, node);
		}
	}
	if (node && name)
		set_place(node, parent, &own_name, &old_parent);
	pthread_mutex_unlock(&server->lock);
	free(own_name);
	fs_node_put(server, old_parent);
	if (!node)
		return result;
	*found = node;
	return 0;
}

void fs_node_count_lookup(struct fs_server *server, struct fs_node *node)
{
	pthread_mutex_lock(&server->lock);
	if (!node->lasting && node->lookups++ == 0)
		node->refs++;
	pthread_mutex_unlock(&server->lock);
}

void fs_node_forget(struct fs_server *server, uint64_t id, uint64_t lookups)
{
	pthread_mutex_lock(&server->lock);
	struct fs_node *node = node_at(server, (uint32_t)id);
	if (!node || !node->lookups || node->generation != id >> 32) {
		pthread_mutex_unlock(&server->lock);
		return;
	}
	node->lookups -= lookups < node->lookups ? lookups : node->lookups;
	const bool last = !node->lookups;
	pthread_mutex_unlock(&server->lock);
	if (last)
		fs_node_put(server, node);
}

void fs_nodes_forget_all(struct fs_server *server)
{
	bool more = true;
	for (uint32_t index = 1; more; index++) {
		pthread_mutex_lock(&server->lock);
		struct fs_node *node = node_at(server, index);
		const bool known = node && node->lookups;
		if (known)
			node->lookups = 0;
		pthread_mutex_unlock(&server->lock);
		if (known)
			fs_node_put(server, node);
		more = node;
	}
}

/* ---- the tables ------------------------------------------------------------------------------------------------------------------- */

struct fs_node *fs_node_add_lasting(struct fs_server *server, enum fs_node_kind kind, const struct statx *stx)
{
	int result;
	pthread_mutex_lock(&server->lock);
	struct fs_node *node = node_make(server, &result);
	if (node) {
		node->kind = (uint8_t)kind;
		node->lasting = true;
		if (stx) {
			node->identity = fs_identity_of(stx);
			hash_insert(server, node);
		}
	}
	pthread_mutex_unlock(&server->lock);
	return node;
}

int fs_nodes_init(struct fs_server *server)
{
	server->bucket_count = BUCKETS_FIRST;
	server->buckets = calloc(server->bucket_count, sizeof(struct fs_node *));
	server->chunks = calloc(server->nodes_max / FS_CHUNK + 1, sizeof(struct fs_node *));
	server->slots = calloc(server->slots_max, sizeof(struct fs_node *));
	server->free_slots = calloc(server->slots_max, sizeof(uint32_t));
	if (!server->buckets || !server->chunks || !server->slots || !server->free_slots)
		return -ENOMEM;
	while (server->free_slot_count < server->slots_max) {
		server->free_slots[server->free_slot_count] = server->free_slot_count;
		server->free_slot_count++;
	}
	server->nodes_made = 1;
	return 0;
}

/* Freed without looking at counts: nothing uses them any more. */
void fs_nodes_free(struct fs_server *server)
{
	for (uint32_t index = 1; index < server->nodes_made; index++) {
		struct fs_node *node = node_at(server, index);
		if (!node->refs)
			continue;
		free(node->name);
		if (node->fd >= 0)
			close(node->fd);
	}
	for (uint32_t i = 0; server->chunks && i <= server->nodes_max / FS_CHUNK; i++)
		free(server->chunks[i]);
	free(server->chunks);
	free(server->buckets);
	free(server->slots);
	free(server->free_slots);
}
