/* Whether two inodes are the same to every program that could look. */
#include "layers/diff_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { CHUNK_BYTES = 1 << 17 };

static bool same_xattrs(const struct diff_pair *pair, const struct tree_inode *base, const struct tree_inode *changed)
{
	const struct tree *const a = pair->base->tree, *const b = pair->changed->tree;
	if (base->xattr_count != changed->xattr_count)
		return false;
	for (uint32_t i = 0; i < base->xattr_count; i++) {
		const struct tree_xattr *x = &a->xattrs[base->first_xattr + i], *y = &b->xattrs[changed->first_xattr + i];
		if (x->name_bytes != y->name_bytes || x->value_bytes != y->value_bytes ||
		    memcmp(a->strings + x->name, b->strings + y->name, x->name_bytes) != 0 ||
		    (x->value_bytes && memcmp(a->strings + x->value, b->strings + y->value, x->value_bytes) != 0))
			return false;
	}
	return true;
}

bool diff_same_attributes(const struct diff_pair *pair, const struct tree_inode *base, const struct tree_inode *changed)
{
	return base->mode == changed->mode && base->uid == changed->uid && base->gid == changed->gid &&
	       base->mtime_s == changed->mtime_s && base->mtime_ns == changed->mtime_ns && same_xattrs(pair, base, changed);
}

/* ---- contents ---------------------------------------------------------------------------------------------------------------- */

/* A place in a file: the extent there, or none, and how far that goes. */
struct place {
	const struct diff_side *side;
	const struct tree_inode *inode;
	uint32_t next; /* the first extent that ends behind the place */
	const struct tree_extent *extent;
	uint64_t end;
};

static void place_move(struct place *place, uint64_t offset)
{
	const struct tree_extent *extents = place->side->tree->extents + place->inode->first_extent;
	while (place->next < place->inode->extent_count && extents[place->next].file_offset + extents[place->next].length <= offset)
		place->next++;
	const struct tree_extent *extent = place->next < place->inode->extent_count ? &extents[place->next] : NULL;
	const bool inside = extent && extent->file_offset <= offset;
	place->extent = inside ? extent : NULL;
	place->end = inside ? extent->file_offset + extent->length : extent ? extent->file_offset : place->inode->size_bytes;
}

static int place_read(const struct place *place, uint64_t offset, uint8_t *buffer, size_t length)
{
	if (!place->extent) {
		memset(buffer, 0, length);
		return 0;
	}
	return place->side->read(place->side->data, place->extent->source,
				 place->extent->source_offset + (offset - place->extent->file_offset), buffer, length);
}

/* Whether both lie in the same bytes of the disk, and nobody has written to these. */
static bool known_unchanged(const struct diff_pair *pair, const struct place *a, const struct place *b, uint64_t offset,
			    uint64_t length)
{
	if (!pair->options->is_unchanged || !a->extent || !b->extent || a->extent->source || b->extent->source)
		return false;
	const uint64_t x = a->extent->source_offset + (offset - a->extent->file_offset);
	const uint64_t y = b->extent->source_offset + (offset - b->extent->file_offset);
	return x == y && pair->options->is_unchanged(pair->options->data, x, length);
}

static int compare_range(const struct place *a, const struct place *b, uint64_t offset, uint64_t end, uint8_t *buffers, bool *same)
{
	int ret = 0;
	while (!ret && *same && offset < end) {
		const size_t take = end - offset < CHUNK_BYTES ? (size_t)(end - offset) : CHUNK_BYTES;
		ret = place_read(a, offset, buffers, take);
		if (!ret)
			ret = place_read(b, offset, buffers + CHUNK_BYTES, take);
		if (!ret)
			*same = memcmp(buffers, buffers + CHUNK_BYTES, take) == 0;
		offset += take;
	}
	return ret;
}

static int compare_contents(const struct diff_pair *pair, const struct tree_inode *base, const struct tree_inode *changed,
			    bool *same)
{
	struct place a = { .side = pair->base, .inode = base }, b = { .side = pair->changed, .inode = changed };
	uint8_t *buffers = NULL;
	int ret = 0;
	*same = true;
	for (uint64_t offset = 0, end; !ret && *same && offset < base->size_bytes; offset = end) {
		place_move(&a, offset);
		place_move(&b, offset);
		end = a.end < b.end ? a.end : b.end;
		if ((!a.extent && !b.extent) || known_unchanged(pair, &a, &b, offset, end - offset))
			continue;
		if (!buffers && !(buffers = malloc(2 * CHUNK_BYTES)))
			return -ENOMEM;
		ret = compare_range(&a, &b, offset, end, buffers, same);
	}
	free(buffers);
	return ret;
}

int diff_same_inode(const struct diff_pair *pair, const struct tree_inode *base, const struct tree_inode *changed, bool *same)
{
	*same = diff_same_attributes(pair, base, changed) && base->size_bytes == changed->size_bytes;
	if (!*same)
		return 0;
	switch (base->mode & S_IFMT) {
	case S_IFREG:
		return compare_contents(pair, base, changed, same);
	case S_IFLNK:
		*same = memcmp(pair->base->tree->strings + base->target, pair->changed->tree->strings + changed->target,
			       base->size_bytes) == 0;
		return 0;
	case S_IFCHR:
	case S_IFBLK:
		*same = base->rdev == changed->rdev;
		return 0;
	default:
		return 0;
	}
}
