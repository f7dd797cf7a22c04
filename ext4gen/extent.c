/*
 * Extent trees: from the blocks of a file to the blocks of the disk.
 *
 * Up to four extents lie in the inode. Beyond, they fill leaf blocks, all but the last to the brim; leaf blocks are listed in
 * index blocks level by level until four entries or fewer remain, which lie in the inode. The blocks of a file's tree are
 * numbered leaves first, then one level after the other, so that every block follows from its number:
 *
 *   leaves 0 .. L0-1 | level 1: L0 .. L0+L1-1 | level 2 ... | the root is in the inode
 */
#include "ext4gen/plan_internal.h"

#include <string.h>

/* One entry of a level: the first logical block that it covers, and where that lies (a block of contents or of the tree). */
struct extent_entry {
	uint32_t logical, length, physical;
};

static uint64_t blocks_of_level(uint64_t entries)
{
	return entries / EXT4_EXTENTS_PER_BLOCK + (entries % EXT4_EXTENTS_PER_BLOCK != 0);
}

uint64_t extent_tree_blocks(uint64_t count)
{
	uint64_t blocks = 0;
	while (count > EXT4_EXTENTS_IN_INODE) {
		count = blocks_of_level(count);
		blocks += count;
	}
	return blocks;
}

/* A file's extents: runs of the contents region, or one piece of the objects region (directories, long symlinks). */
struct extent_list {
	const struct ext4_plan *plan;
	uint32_t count;
	const struct plan_run *runs;    /* NULL: one piece of `length` blocks at `physical` */
	uint32_t physical, length;
	uint32_t tree;                  /* disk block of the first block of the extent tree */
};

static struct extent_list extents_of(const struct ext4_plan *plan, uint32_t inode)
{
	struct extent_list list = { .plan = plan };
	if (inode == journal_inode(plan)) {
		list.tree = plan->layout.journal;
		list.physical = plan->layout.journal + journal_tree_blocks(plan->journal_blocks);
		list.length = plan->journal_blocks;
		list.count = (list.length + EXT4_EXTENT_MAX_BLOCKS - 1) / EXT4_EXTENT_MAX_BLOCKS;
		return list;
	}
	if (inode < plan->tree->inode_count && S_ISREG(plan->tree->inodes[inode].mode)) {
		list.runs = &plan->runs[plan->inodes[inode].first_run];
		list.count = plan_run_count(plan, inode);
		if (list.count > EXT4_EXTENTS_IN_INODE)
			list.tree = plan->layout.objects + plan->objects[plan_find_object_of_inode(plan, inode)].block;
		return list;
	}
	const uint32_t object = plan_find_object_of_inode(plan, inode);
	list.physical = plan->layout.objects + plan->objects[object].block;
	list.length = plan_own_blocks(plan, object);
	list.count = (list.length + EXT4_EXTENT_MAX_BLOCKS - 1) / EXT4_EXTENT_MAX_BLOCKS;
	return list;
}

static struct extent_entry extent_at(const struct extent_list *list, uint32_t i)
{
	if (list->runs)
		return (struct extent_entry){
			.logical = list->runs[i].logical,
			.length = list->runs[i + 1].block - list->runs[i].block,
			.physical = list->plan->layout.contents + list->runs[i].block,
		};
	const uint32_t before = i * EXT4_EXTENT_MAX_BLOCKS;
	const uint32_t left = list->length - before;
	return (struct extent_entry){
		.logical = before,
		.length = left < EXT4_EXTENT_MAX_BLOCKS ? left : EXT4_EXTENT_MAX_BLOCKS,
		.physical = list->physical + before,
	};
}

static void put_header(uint8_t *node, uint32_t entries, uint32_t max, unsigned depth)
{
	struct ext4_extent_header *header = (struct ext4_extent_header *)node;
	header->eh_magic = le16_make(EXT4_EXTENT_MAGIC);
	header->eh_entries = le16_make((uint16_t)entries);
	header->eh_max = le16_make((uint16_t)max);
	header->eh_depth = le16_make((uint16_t)depth);
}

static void put_extent(uint8_t *node, uint32_t i, struct extent_entry entry)
{
	struct ext4_extent *extent = (struct ext4_extent *)node + 1 + i;
	extent->ee_block = le32_make(entry.logical);
	extent->ee_len = le16_make((uint16_t)entry.length);
	extent->ee_start_lo = le32_make(entry.physical);
}

/* The tail of a block outside the inode. */
static void put_extent_tail(const struct ext4_plan *plan, uint32_t inode, uint8_t *block)
{
	if (!plan->metadata_csum)
		return;
	const uint32_t end = sizeof(struct ext4_extent_header) + EXT4_EXTENTS_PER_BLOCK * sizeof(struct ext4_extent);
	const struct ext4_extent_tail tail = { le32_make(crc32c(csum_inode_seed(plan, inode), block, end)) };
	memcpy(block + end, &tail, sizeof(tail));
}

static void put_extents(const struct extent_list *list, uint32_t first, uint32_t count, uint8_t *node)
{
	for (uint32_t i = 0; i < count; i++)
		put_extent(node, i, extent_at(list, first + i));
}

/*
 * Writes `count` index entries for the blocks first, first + 1, ... of the level below, which begins at block `level_start` of
 * the tree. `span` is the number of extents that a block of the level below covers.
 */
static void put_index(const struct extent_list *list, uint32_t first, uint32_t count, uint32_t level_start, uint64_t span,
		      uint8_t *node)
{
	for (uint32_t i = 0; i < count; i++) {
		const uint64_t first_extent = (first + i) * span;
		const struct ext4_extent_idx idx = {
			.ei_block = le32_make(extent_at(list, (uint32_t)first_extent).logical),
			.ei_leaf_lo = le32_make(list->tree + level_start + first + i),
		};
		memcpy(node + (1 + i) * sizeof(idx), &idx, sizeof(idx));
	}
}

void fill_runs_root(const struct ext4_plan *plan, const struct plan_run *runs, uint32_t count, uint8_t *i_block)
{
	put_header(i_block, count, EXT4_EXTENTS_IN_INODE, 0);
	for (uint32_t i = 0; i < count; i++) {
		const struct extent_entry entry = {
			.logical = runs[i].logical,
			.length = runs[i + 1].block - runs[i].block,
			.physical = plan->layout.contents + runs[i].block,
		};
		put_extent(i_block, i, entry);
	}
}

void fill_extent_root(const struct ext4_plan *plan, uint32_t inode, uint8_t *i_block)
{
	const struct extent_list list = extents_of(plan, inode);
	uint64_t entries = list.count, span = 1, level_start = 0, below_start = 0;
	unsigned depth = 0;
	while (entries > EXT4_EXTENTS_IN_INODE) {
		entries = blocks_of_level(entries);
		span *= EXT4_EXTENTS_PER_BLOCK;
		below_start = level_start;
		level_start += entries;
		depth++;
	}
	put_header(i_block, (uint32_t)entries, EXT4_EXTENTS_IN_INODE, depth);
	if (depth == 0)
		put_extents(&list, 0, (uint32_t)entries, i_block);
	else
		put_index(&list, 0, (uint32_t)entries, (uint32_t)below_start, span, i_block);
}

void fill_extent_block(const struct ext4_plan *plan, uint32_t inode, uint32_t index, uint8_t *block)
{
	const struct extent_list list = extents_of(plan, inode);
	uint64_t entries = list.count, span = 1, level_start = 0, below_start = 0;
	unsigned depth = 0;
	assert(entries > 0);
	/* Up from the leaves to the level that has block `index`; `entries` is what lies in that level's blocks. */
	while (index >= level_start + blocks_of_level(entries)) {
		entries = blocks_of_level(entries);
		below_start = level_start;
		level_start += entries;
		span *= EXT4_EXTENTS_PER_BLOCK;
		depth++;
	}
	const uint64_t first = (index - level_start) * EXT4_EXTENTS_PER_BLOCK;
	const uint64_t left = entries - first;
	const uint32_t count = (uint32_t)(left < EXT4_EXTENTS_PER_BLOCK ? left : EXT4_EXTENTS_PER_BLOCK);
	memset(block, 0, EXT4_BLOCK_BYTES);
	put_header(block, count, EXT4_EXTENTS_PER_BLOCK, depth);
	if (depth == 0)
		put_extents(&list, (uint32_t)first, count, block);
	else
		put_index(&list, (uint32_t)first, count, (uint32_t)below_start, span, block);
	put_extent_tail(plan, inode, block);
}
