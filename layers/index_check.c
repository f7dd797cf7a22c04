/*
 * A tree from the cache, checked once so that its readers need not look; see index_check() in index_internal.h.
 *
 * One pass over each array in the order in which it lies. That entries are breadth first does most of the work: walking the
 * entries, each directory's children must be the very next ones that no directory has claimed, so every entry has one directory,
 * which stands before it, and neither lists nor directories can be circles.
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "layers/builder_internal.h"
#include "layers/index_internal.h"

static bool string_inside(const struct tree *tree, uint32_t offset, uint64_t length)
{
	return offset <= tree->string_bytes && length <= tree->string_bytes - offset;
}

static bool extents_ok(const struct tree *tree, const struct tree_inode *inode)
{
	if (inode->extent_count && (inode->first_extent > tree->extent_count ||
				    inode->extent_count > tree->extent_count - inode->first_extent))
		return false;
	uint64_t end = 0;
	for (uint32_t i = 0; i < inode->extent_count; i++) {
		const struct tree_extent *extent = &tree->extents[inode->first_extent + i];
		if (extent->source >= tree->source_count || extent->length == 0 || extent->file_offset < end ||
		    extent->file_offset > inode->size_bytes || extent->length > inode->size_bytes - extent->file_offset)
			return false;
		const uint64_t source_bytes = tree->sources[extent->source].size_bytes;
		if (extent->source_offset > source_bytes || extent->length > source_bytes - extent->source_offset)
			return false;
		end = extent->file_offset + extent->length;
	}
	return true;
}

static bool inode_ok(const struct tree *tree, const struct tree_inode *inode)
{
	if (inode->mtime_ns > 999999999 || inode->size_bytes > INT64_MAX)
		return false;
	if (inode->xattr_count &&
	    (inode->first_xattr > tree->xattr_count || inode->xattr_count > tree->xattr_count - inode->first_xattr))
		return false;
	switch (inode->mode & S_IFMT) {
	case S_IFREG:
		return extents_ok(tree, inode);
	case S_IFLNK:
		return inode->size_bytes > 0 && inode->size_bytes <= LINK_TARGET_MAX &&
		       string_inside(tree, inode->target, inode->size_bytes) && inode->extent_count == 0;
	case S_IFDIR:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		return inode->size_bytes == 0 && inode->extent_count == 0;
	default:
		return false;
	}
}

static bool xattr_ok(const struct tree *tree, const struct tree_xattr *xattr)
{
	return xattr->name_bytes > 0 && xattr->name_bytes <= TAR_XATTR_NAME_MAX && xattr->value_bytes <= TAR_XATTR_VALUE_MAX &&
	       string_inside(tree, xattr->name, xattr->name_bytes) && string_inside(tree, xattr->value, xattr->value_bytes);
}

/* Claims the children of the directory `inode`: they must be the next entries that nobody has claimed. */
static bool claim_children(const struct tree *tree, uint32_t inode, uint32_t *claimed)
{
	uint32_t next = tree->inodes[inode].first_child;
	while (next != TREE_NONE) {
		if (next != *claimed || next >= tree->entry_count || tree->entries[next].parent != inode)
			return false;
		(*claimed)++;
		next = tree->entries[next].next_sibling;
	}
	return true;
}

/* Walks the entries, counting the links of every inode. */
static bool entries_ok(const struct tree *tree, uint32_t *links)
{
	uint32_t claimed = 1; /* the root */
	for (uint32_t i = 0; i < tree->entry_count; i++) {
		const struct tree_entry *entry = &tree->entries[i];
		if (i >= claimed || entry->inode >= tree->inode_count || entry->name_bytes > NAME_BYTES_MAX ||
		    (entry->name_bytes == 0) != (i == 0) || !string_inside(tree, entry->name, entry->name_bytes))
			return false;
		uint32_t *count = &links[entry->inode];
		if (!S_ISDIR(tree->inodes[entry->inode].mode)) {
			++*count;
			continue;
		}
		if (*count) /* a directory with two names */
			return false;
		*count = 2;
		if (i)
			links[entry->parent]++;
		if (!claim_children(tree, entry->inode, &claimed))
			return false;
	}
	return claimed == tree->entry_count;
}

static bool root_ok(const struct tree *tree)
{
	return tree->entry_count && tree->inode_count && tree->entries[0].inode == 0 && tree->entries[0].parent == 0 &&
	       tree->entries[0].next_sibling == TREE_NONE && S_ISDIR(tree->inodes[0].mode);
}

int index_check(const struct tree *tree)
{
	if (!root_ok(tree))
		return -EBADMSG;
	uint32_t *links = calloc(tree->inode_count, sizeof(*links));
	if (!links)
		return -ENOMEM;
	bool ok = entries_ok(tree, links);
	for (uint32_t i = 0; ok && i < tree->inode_count; i++)
		ok = links[i] && links[i] == tree->inodes[i].nlink && inode_ok(tree, &tree->inodes[i]);
	for (uint32_t i = 0; ok && i < tree->xattr_count; i++)
		ok = xattr_ok(tree, &tree->xattrs[i]);
	free(links);
	return ok ? 0 : -EBADMSG;
}
