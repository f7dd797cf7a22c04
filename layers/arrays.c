/* The arrays of a finished tree in one piece of memory; see arrays_internal.h. */
#include "layers/arrays_internal.h"

#include <errno.h>
#include <sys/mman.h>

#include "layers/cache.h"

_Static_assert(sizeof(struct tree_inode) == 56 && sizeof(struct tree_extent) == 32 && sizeof(struct tree_entry) == 20 &&
		       sizeof(struct tree_xattr) == 16,
	       "the index in the cache holds these as they are: a change needs a new INDEX_VERSION");

int tree_arrays_bytes(const struct tree_counts *counts, size_t *bytes)
{
	if (counts->extents > UINT32_MAX || counts->xattrs > UINT32_MAX || counts->strings > UINT32_MAX)
		return -EFBIG;
	/* Five products of 32-bit counts with small sizes: no overflow in 64 bits. */
	const uint64_t total = (uint64_t)counts->inodes * sizeof(struct tree_inode) + counts->extents * sizeof(struct tree_extent) +
			       (uint64_t)counts->entries * sizeof(struct tree_entry) + counts->xattrs * sizeof(struct tree_xattr) +
			       counts->strings;
	*bytes = total;
	return 0;
}

void tree_arrays_place(struct tree *tree, const struct tree_counts *counts, void *at)
{
	tree->inode_count = counts->inodes;
	tree->extent_count = (uint32_t)counts->extents;
	tree->entry_count = counts->entries;
	tree->xattr_count = (uint32_t)counts->xattrs;
	tree->string_bytes = counts->strings;
	tree->inodes = at;
	tree->extents = (struct tree_extent *)(void *)(tree->inodes + tree->inode_count);
	tree->entries = (struct tree_entry *)(void *)(tree->extents + tree->extent_count);
	tree->xattrs = (struct tree_xattr *)(void *)(tree->entries + tree->entry_count);
	tree->strings = (char *)(tree->xattrs + tree->xattr_count);
}

uint64_t tree_arrays_checksum(const struct tree *tree)
{
	/* What follows the extents lies in one piece. */
	const uint64_t inodes = cache_checksum(0, tree->inodes, tree->inode_count * sizeof(*tree->inodes));
	return cache_checksum(inodes, tree->entries,
			      tree->entry_count * sizeof(*tree->entries) + tree->xattr_count * sizeof(*tree->xattrs) + tree->string_bytes);
}

int tree_arrays_allocate(struct tree *tree, const struct tree_counts *counts)
{
	size_t bytes;
	const int ret = tree_arrays_bytes(counts, &bytes);
	if (ret)
		return ret;
	/* All of it is filled: zeroed pages at once cost half of what a fault for each does. */
	void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (map == MAP_FAILED)
		return -ENOMEM;
	tree->map = map;
	tree->map_bytes = bytes;
	tree_arrays_place(tree, counts, map);
	return 0;
}
