/*
 * Where an inode's contents lie: extent trees, and the block maps of ext2, which an ext4 still has where somebody took the extents off.
 *
 * A node of an extent tree is in the inode or fills a block; keys ascend over the whole tree, so a tree that shares a node with itself is
 * found out, and each node that is read has to bring something, so the work is bounded by what the file may have.
 */
#include "ext4read/reader_internal.h"

#include <errno.h>

struct walk {
	struct ext4_reader *reader;
	uint32_t number; /* of the inode, for messages */
	uint64_t size; /* nothing is said of what lies behind */
	uint64_t next_logical; /* the least that the next extent may start at */
	struct items *extents;
	size_t first; /* of the inode's in `extents` */
	struct error *err;
};

static int wrong(const struct walk *walk, const char *what)
{
	return damaged(walk->err, "inode %u: %s in its extents", walk->number, what);
}

/* Cuts to the file's size; what continues the extent before is put together with it. */
static int add_extent(struct walk *walk, uint64_t logical, uint64_t physical, uint64_t blocks)
{
	const uint64_t file_offset = logical * walk->reader->block_bytes, source_offset = physical * walk->reader->block_bytes;
	if (file_offset >= walk->size)
		return 0;
	uint64_t length = blocks * walk->reader->block_bytes;
	if (length > walk->size - file_offset)
		length = walk->size - file_offset;
	if (walk->extents->count > walk->first) {
		struct tree_extent *last = (struct tree_extent *)walk->extents->data + walk->extents->count - 1;
		if (last->file_offset + last->length == file_offset && last->source_offset + last->length == source_offset) {
			last->length += length;
			return 0;
		}
	}
	if (walk->extents->count >= EXT4_READER_ITEMS_MAX)
		return error_set(walk->err, -EFBIG, "the file system has more than %zu extents", EXT4_READER_ITEMS_MAX);
	struct tree_extent *extent = items_add(walk->extents, sizeof(*extent));
	if (!extent)
		return error_set(walk->err, -ENOMEM, "out of memory");
	*extent = (struct tree_extent){ .file_offset = file_offset, .source_offset = source_offset, .length = length };
	return 0;
}

/* Takes blocks from what all files together may have. */
static int charge(struct walk *walk, uint64_t blocks)
{
	if (blocks > walk->reader->blocks_left)
		return damaged(walk->err, "inode %u: all files together have more blocks than the disk", walk->number);
	walk->reader->blocks_left -= blocks;
	return 0;
}

static int take_leaf(struct walk *walk, const uint8_t *entry)
{
	struct ext4_extent extent;
	memcpy(&extent, entry, sizeof(extent));
	const uint64_t logical = le32_get(extent.ee_block);
	const uint64_t physical = (uint64_t)le16_get(extent.ee_start_hi) << 32 | le32_get(extent.ee_start_lo);
	const uint32_t raw = le16_get(extent.ee_len);
	const bool unwritten = raw > EXT4_EXTENT_MAX_BLOCKS;
	const uint32_t blocks = unwritten ? raw - EXT4_EXTENT_MAX_BLOCKS : raw;
	if (blocks == 0)
		return wrong(walk, "an empty extent");
	if (logical < walk->next_logical || logical + blocks > (uint64_t)UINT32_MAX + 1)
		return wrong(walk, "an extent that overlaps another");
	if (physical == 0 || physical >= walk->reader->block_count || blocks > walk->reader->block_count - physical)
		return wrong(walk, "an extent outside of the disk");
	walk->next_logical = logical + blocks;
	const int ret = charge(walk, blocks);
	return ret || unwritten ? ret : add_extent(walk, logical, physical, blocks);
}

static int take_node(struct walk *walk, const uint8_t *node, size_t bytes, unsigned depth);

static int take_index(struct walk *walk, const uint8_t *entry, unsigned depth)
{
	struct ext4_extent_idx index;
	memcpy(&index, entry, sizeof(index));
	const uint64_t block = (uint64_t)le16_get(index.ei_leaf_hi) << 32 | le32_get(index.ei_leaf_lo);
	if (le32_get(index.ei_block) < walk->next_logical)
		return wrong(walk, "an index that goes back");
	const uint8_t *data;
	int ret = charge(walk, 1);
	if (!ret && (ret = device_block(walk->reader, block, &data, walk->err)))
		return error_prefix(walk->err, ret, "inode %u: its extents", walk->number);
	if (ret)
		return ret;
	uint8_t *copy = walk->reader->levels + (size_t)(depth - 1) * walk->reader->block_bytes;
	memcpy(copy, data, walk->reader->block_bytes);
	return take_node(walk, copy, walk->reader->block_bytes, depth - 1);
}

static int take_node(struct walk *walk, const uint8_t *node, size_t bytes, unsigned depth)
{
	struct ext4_extent_header header;
	memcpy(&header, node, sizeof(header));
	const uint32_t entries = le16_get(header.eh_entries);
	if (le16_get(header.eh_magic) != EXT4_EXTENT_MAGIC)
		return wrong(walk, "a block without the magic number");
	if (le16_get(header.eh_depth) != depth)
		return wrong(walk, "a block of another depth");
	if (entries > (bytes - sizeof(header)) / sizeof(struct ext4_extent))
		return wrong(walk, "a block with too many entries");
	const bool root = bytes < walk->reader->block_bytes;
	if (entries == 0 && (!root || depth))
		return wrong(walk, "an empty block");
	int ret = 0;
	for (uint32_t i = 0; !ret && i < entries; i++) {
		const uint8_t *entry = node + sizeof(header) + i * sizeof(struct ext4_extent);
		ret = depth ? take_index(walk, entry, depth) : take_leaf(walk, entry);
	}
	return ret;
}

/* ---- block maps -------------------------------------------------------------------------------------------------------------- */
/*
 *   i_block:  12 blocks | block of blocks | block of blocks of blocks | one more level          0 is a hole, at any level
 */
enum { MAP_DIRECT = 12, MAP_ENTRIES = 15 };

/* A block of level 0 is contents; others hold the blocks of the level below. Goes on at the logical block where the last one ended. */
static int take_mapped(struct walk *walk, uint32_t block, unsigned level)
{
	const uint32_t bytes = walk->reader->block_bytes, entries = bytes / (uint32_t)sizeof(le32);
	uint64_t span = 1;
	for (unsigned i = 0; i < level; i++)
		span *= entries;
	const uint64_t logical = walk->next_logical;
	if (block == 0 || logical * bytes >= walk->size) {
		walk->next_logical += span;
		return 0;
	}
	if (block >= walk->reader->block_count)
		return damaged(walk->err, "inode %u: block %u of its map lies behind the end", walk->number, block);
	int ret = charge(walk, 1);
	if (ret || level == 0) {
		walk->next_logical++;
		return ret ? ret : add_extent(walk, logical, block, 1);
	}
	const uint8_t *data;
	ret = device_block(walk->reader, block, &data, walk->err);
	uint8_t *copy = walk->reader->levels + (size_t)(level - 1) * bytes;
	if (!ret)
		memcpy(copy, data, bytes);
	for (uint32_t i = 0; !ret && i < entries; i++) {
		le32 next;
		memcpy(&next, copy + i * sizeof(next), sizeof(next));
		ret = take_mapped(walk, le32_get(next), level - 1);
	}
	return ret;
}

static int take_map(struct walk *walk, const uint8_t *map)
{
	int ret = 0;
	for (unsigned i = 0; !ret && i < MAP_ENTRIES; i++) {
		le32 block;
		memcpy(&block, map + i * sizeof(block), sizeof(block));
		ret = take_mapped(walk, le32_get(block), i < MAP_DIRECT ? 0 : i - MAP_DIRECT + 1);
	}
	return ret;
}

int extents_read(struct ext4_reader *reader, uint32_t number, const struct ext4_inode *inode, uint64_t size, struct items *extents,
		 struct error *err)
{
	struct walk walk = {
		.reader = reader, .number = number, .size = size, .extents = extents, .first = extents->count, .err = err
	};
	uint8_t root[sizeof(inode->i_block)];
	struct ext4_extent_header header;
	memcpy(root, inode->i_block, sizeof(root));
	if (!(le32_get(inode->i_flags) & EXT4_EXTENTS_FL))
		return take_map(&walk, root);
	memcpy(&header, root, sizeof(header));
	const unsigned depth = le16_get(header.eh_depth);
	if (depth > EXTENT_DEPTH_MAX)
		return wrong(&walk, "more than 5 levels");
	return take_node(&walk, root, sizeof(root), depth);
}

int extents_contents(struct ext4_reader *reader, const struct tree_extent *extents, size_t count, void *buffer, size_t length)
{
	memset(buffer, 0, length);
	for (size_t i = 0; i < count && extents[i].file_offset < length; i++) {
		const uint64_t rest = length - extents[i].file_offset;
		const size_t part = (size_t)(extents[i].length < rest ? extents[i].length : rest);
		const int ret =
		    device_read(reader, extents[i].source_offset, (uint8_t *)buffer + extents[i].file_offset, part, true);
		if (ret)
			return ret;
	}
	return 0;
}
