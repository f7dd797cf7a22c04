/* Names to nodes: LOOKUP, FORGET, and the answer that all operations which find or make an entry share. */
#include "devices/virtio-fs/fs_internal.h"

#include <errno.h>
#include <string.h>

uint64_t fs_valid_seconds(const struct fs_server *server)
{
	switch (server->cache) {
	case FS_CACHE_NONE:
		return 0;
	case FS_CACHE_ALWAYS:
		return 86400;
	case FS_CACHE_AUTO:
		break;
	}
	return 1;
}

int fs_check_parent(const struct fs_node *node)
{
	if (!S_ISDIR(node->identity.type))
		return -ENOTDIR;
	return node->kind == FS_NODE_HOST ? 0 : -EPERM;
}

struct fs_node *fs_find_extra(const struct fs_server *server, const struct fs_node *parent, const char *name)
{
	if (parent->index != FUSE_ROOT_ID)
		return NULL;
	for (unsigned i = 0; i < FS_EXTRAS_MAX && server->extras[i].name; i++)
		if (strcmp(name, server->extras[i].name) == 0)
			return server->extras[i].node;
	return NULL;
}

int fs_extra_fd(const struct fs_server *server, const struct fs_node *node)
{
	unsigned i = 0;
	while (server->extras[i].node != node)
		i++;
	return server->extras[i].fd;
}

static void fill(const struct fs_server *server, const struct fs_node *node, struct fuse_entry_out *entry)
{
	entry->nodeid = fs_node_id(node);
	entry->generation = 0; /* it is in the number */
	entry->entry_valid = entry->attr_valid = fs_valid_seconds(server);
	entry->entry_valid_nsec = entry->attr_valid_nsec = 0;
}

int fs_entry_of(struct fs_server *server, struct fs_node *node, const struct statx *stx, struct fuse_entry_out *entry)
{
	const int result = fs_attr_of(server, node, stx, &entry->attr);
	if (result)
		return result;
	fill(server, node, entry);
	fs_node_count_lookup(server, node);
	return 0;
}

int fs_entry_find(struct fs_server *server, struct fs_node *parent, int parent_fd, const char *name, struct fuse_entry_out *entry)
{
	struct statx stx;
	struct fs_node *node;

	int result = fs_statx(parent_fd, name, &stx);
	if (result)
		return result;
	result = fs_node_add(server, &stx, parent, name, &node);
	if (result)
		return result;
	result = fs_entry_of(server, node, &stx, entry);
	fs_node_put(server, node);
	return result;
}

/* An extra file, and all that there is in the root of a share that is one file. */
static int find_lasting(struct fs_request *request, struct fuse_entry_out *entry)
{
	struct fs_server *server = request->server;
	struct fs_node *node = fs_find_extra(server, request->node, request->names[0]);

	if (!node && request->node->kind == FS_NODE_LIST && strcmp(request->names[0], server->name) == 0)
		node = server->single;
	if (!node)
		return -ENOENT;
	const int result = fs_attr_get(server, node, &entry->attr);
	if (!result)
		fill(server, node, entry);
	return result;
}

ssize_t fs_do_lookup(struct fs_request *request)
{
	struct fs_server *server = request->server;
	struct fuse_entry_out entry = { .nodeid = 0 };

	if (!S_ISDIR(request->node->identity.type))
		return -ENOTDIR;
	int result;
	if (request->node->kind == FS_NODE_LIST || fs_find_extra(server, request->node, request->names[0])) {
		result = find_lasting(request, &entry);
	} else {
		const int parent_fd = fs_node_open(server, request->node);
		if (parent_fd < 0)
			return parent_fd;
		result = fs_entry_find(server, request->node, parent_fd, request->names[0], &entry);
		fs_node_close(server, request->node);
	}
	/* Node 0 is a name that is not there, for as long as the client may remember it. */
	if (result == -ENOENT && server->cache == FS_CACHE_ALWAYS && !server->folds_case) {
		entry.entry_valid = fs_valid_seconds(server);
		result = 0;
	}
	return result ? result : fs_answer(request, &entry, sizeof(entry));
}

ssize_t fs_do_forget(struct fs_request *request)
{
	fs_node_forget(request->server, request->header.nodeid, request->args.forget.nlookup);
	return FS_NO_ANSWER;
}

ssize_t fs_do_batch_forget(struct fs_request *request)
{
	struct fuse_forget_one one;

	for (uint32_t i = 0; i < request->args.batch_forget.count && fs_request_take(request, &one, sizeof(one)) == 0; i++)
		fs_node_forget(request->server, one.nodeid, one.nlookup);
	return FS_NO_ANSWER;
}
