/* Reading a finished tree: look-up by path, whole files, and the end of its life. See tree.h. */
#include "layers/tree.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "layers/path_internal.h"

void tree_destroy(struct tree *tree)
{
	if (!tree)
		return;
	tree_sources_free(tree->sources, tree->source_count);
	if (tree->map)
		munmap(tree->map, tree->map_bytes);
	free(tree);
}

static uint32_t find_child(const struct tree *tree, uint32_t directory, const char *name, size_t length)
{
	uint32_t e = tree->inodes[directory].first_child;
	for (; e != TREE_NONE; e = tree->entries[e].next_sibling) {
		const struct tree_entry *entry = &tree->entries[e];
		if (entry->name_bytes == length && memcmp(tree->strings + entry->name, name, length) == 0)
			break;
	}
	return e;
}

/*
 * The directories from the root down to where a look-up stands: an entry knows its directory's inode only, and ".." needs the
 * entry.
 */
struct trail {
	uint32_t *entries;
	size_t depth, capacity;
};

static int trail_push(struct trail *trail, uint32_t entry)
{
	if (trail->depth == trail->capacity) {
		const size_t capacity = trail->capacity ? 2 * trail->capacity : 32;
		uint32_t *entries = reallocarray(trail->entries, capacity, sizeof(*entries));
		if (!entries)
			return -ENOMEM;
		trail->entries = entries;
		trail->capacity = capacity;
	}
	trail->entries[trail->depth++] = entry;
	return 0;
}

/* One step of tree_lookup(): from the directory at the trail's end to `name`. TREE_NONE: there is no such thing. */
static uint32_t step(const struct tree *tree, struct trail *trail, struct path_cursor *cursor, const char *name, size_t length,
		     int follow_last)
{
	const uint32_t here = trail->entries[trail->depth - 1];
	if (!S_ISDIR(tree->inodes[tree->entries[here].inode].mode))
		return TREE_NONE;
	if (length == 1 && name[0] == '.')
		return here;
	if (length == 2 && name[0] == '.' && name[1] == '.') {
		if (trail->depth > 1)
			trail->depth--;
		return trail->entries[trail->depth - 1];
	}
	const uint32_t found = find_child(tree, tree->entries[here].inode, name, length);
	if (found == TREE_NONE)
		return TREE_NONE;
	const struct tree_inode *inode = &tree->inodes[tree->entries[found].inode];
	if (!S_ISLNK(inode->mode) || (path_cursor_at_end(cursor) && !follow_last))
		return trail_push(trail, found) ? TREE_NONE : found;
	const char *target = tree->strings + inode->target;
	if (path_cursor_push(cursor, target, inode->size_bytes))
		return TREE_NONE;
	if (inode->size_bytes && target[0] == '/')
		trail->depth = 1;
	return trail->entries[trail->depth - 1];
}

uint32_t tree_lookup(const struct tree *tree, const char *path, int follow_last)
{
	struct trail trail = { NULL, 0, 0 };
	struct path_cursor cursor;
	path_cursor_begin(&cursor, path, strlen(path));
	uint32_t entry = trail_push(&trail, 0) ? TREE_NONE : 0;
	const char *name;
	size_t length;
	while (entry != TREE_NONE && path_cursor_next(&cursor, &name, &length))
		entry = step(tree, &trail, &cursor, name, length, follow_last);
	path_cursor_end(&cursor);
	free(trail.entries);
	return entry;
}

int tree_read_file(const struct tree *tree, uint32_t inode, uint64_t limit_bytes, char **data, size_t *length)
{
	if (inode >= tree->inode_count)
		return -EINVAL;
	const struct tree_inode *file = &tree->inodes[inode];
	if (!S_ISREG(file->mode))
		return S_ISDIR(file->mode) ? -EISDIR : -EINVAL;
	size_t room;
	if (file->size_bytes > limit_bytes || __builtin_add_overflow(file->size_bytes, 1, &room))
		return -EFBIG;
	char *buffer = calloc(1, room);
	if (!buffer)
		return -ENOMEM;
	for (uint32_t i = 0; i < file->extent_count; i++) {
		const struct tree_extent *extent = &tree->extents[file->first_extent + i];
		const struct iovec iov = { buffer + extent->file_offset, extent->length };
		const int ret = tree_source_readv(tree, extent->source, extent->source_offset, &iov, 1);
		if (ret) {
			free(buffer);
			return ret;
		}
	}
	*data = buffer;
	*length = room - 1;
	return 0;
}
