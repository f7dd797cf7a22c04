/*
 * How large the disk is and where its regions lie.
 *
 * Everything that grows with the disk is arithmetic: descriptors, bitmaps and inode tables of all groups stand in one piece
 * each at the start of the disk, whichever group they describe (feature flex_bg allows that). So the used part of the disk is
 * [0, free) and a group's bitmap follows from its number.
 */
#include "ext4gen/plan_internal.h"

#include <errno.h>

#define GIB_BLOCKS (1u << (30 - EXT4_LOG_BLOCK_BYTES))

/* The largest disk without the 64bit feature, in whole groups, so that no sum of block numbers comes near 2^32. */
#define MAX_GROUPS 131071u

/*
 * Free space of a disk of default size: as much again as the contents, at least 8 GiB. Linux visits every group at a mount
 * (descriptor check, group_info, overhead), 2,500 instructions each: bench/notes.md. 8 GiB are 64 groups, half a descriptor block.
 */
#define DEFAULT_FREE_BLOCKS (8 * GIB_BLOCKS)

/*
 * Free space for which one inode is provided by default: 16 KiB, as mke2fs has it; 64 KiB of what is beyond 9 GiB, up to 8 million in all.
 * At a mount Linux before 6.4 counts, in every group that is untouched, the blocks of its inode table one by one
 * (ext4_num_overhead_clusters): an inode for each 16 KiB of half a TiB cost more than all of the boot.
 */
#define BLOCKS_PER_FREE_INODE 4
#define BLOCKS_PER_MORE_FREE_INODE 16
#define MANY_FREE_BLOCKS (9 * GIB_BLOCKS)
#define MAX_FREE_INODES (8u << 20)

static uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static uint64_t divide_up(uint64_t a, uint64_t b)
{
	return a / b + (a % b != 0);
}

static uint64_t round_up(uint64_t a, uint64_t b)
{
	return divide_up(a, b) * b;
}

/* Inodes for free space. */
static uint64_t free_inodes(uint64_t free_blocks)
{
	const uint64_t first = min_u64(free_blocks, MANY_FREE_BLOCKS);
	return min_u64(first / BLOCKS_PER_FREE_INODE + (free_blocks - first) / BLOCKS_PER_MORE_FREE_INODE, MAX_FREE_INODES);
}

/* Inodes in each group when there shall be `inodes` in all; 0 when the groups cannot hold so many. */
static uint64_t inodes_per_group(uint64_t inodes, uint64_t groups)
{
	const uint64_t count = max_u64(round_up(divide_up(inodes, groups), EXT4_INODES_PER_BLOCK), EXT4_INODES_PER_BLOCK);
	return count > EXT4_MAX_INODES_PER_GROUP || count * groups > UINT32_MAX ? 0 : count;
}

/* Blocks before the objects region. */
static uint64_t overhead_blocks(uint64_t groups, uint64_t per_group)
{
	return 1 + divide_up(groups, EXT4_DESCS_PER_BLOCK) + groups * (2 + per_group / EXT4_INODES_PER_BLOCK);
}

/* Blocks of what is to be stored, the journal (of the size that was chosen last) included. */
static uint64_t stored_blocks(const struct ext4_plan *plan)
{
	return (uint64_t)plan->object_blocks + plan->content_blocks + plan->journal_blocks + journal_tree_blocks(plan->journal_blocks);
}

/* Whether `blocks` can hold everything with `inodes` inodes. */
static bool fits(const struct ext4_plan *plan, uint64_t blocks, uint64_t inodes)
{
	if (blocks == 0)
		return false;
	const uint64_t groups = divide_up(blocks, EXT4_BLOCKS_PER_GROUP);
	const uint64_t per_group = inodes_per_group(inodes, groups);
	return per_group && overhead_blocks(groups, per_group) + stored_blocks(plan) <= blocks;
}

/* The least number of blocks that fits with this journal, or 0 when none does. */
static uint64_t least_blocks_with_journal(const struct ext4_plan *plan, uint64_t inodes)
{
	for (uint64_t groups = divide_up(stored_blocks(plan) + 1, EXT4_BLOCKS_PER_GROUP); groups <= MAX_GROUPS; groups++) {
		const uint64_t per_group = inodes_per_group(inodes, groups);
		if (!per_group) {
			/* Straight to the number of groups that can hold the inodes; one by one would take long. */
			groups = max_u64(groups, divide_up(inodes, EXT4_MAX_INODES_PER_GROUP) - 1);
			continue;
		}
		const uint64_t blocks = overhead_blocks(groups, per_group) + stored_blocks(plan);
		if (blocks <= groups * EXT4_BLOCKS_PER_GROUP)
			return max_u64(blocks, (groups - 1) * EXT4_BLOCKS_PER_GROUP + 1);
	}
	return 0;
}

/*
 * The least number of blocks that fits, or 0 when none does. A journal grows with its disk: when what the least disk would have is
 * larger than what was counted on, no disk as small as that can do.
 */
static uint64_t least_blocks(struct ext4_plan *plan, const struct ext4_options *options, uint64_t inodes)
{
	plan->journal_blocks = journal_choose_blocks(options, 0);
	for (;;) {
		const uint64_t blocks = least_blocks_with_journal(plan, inodes);
		const uint32_t journal = journal_choose_blocks(options, blocks);
		if (journal <= plan->journal_blocks)
			return blocks;
		plan->journal_blocks = journal;
	}
}

/* The size when the caller leaves it to us. */
static uint64_t default_blocks(const struct ext4_plan *plan, uint64_t inodes)
{
	const uint64_t stored = stored_blocks(plan);
	const uint64_t free = max_u64(DEFAULT_FREE_BLOCKS, stored);
	const uint64_t tables = divide_up(inodes + free_inodes(free), EXT4_INODES_PER_BLOCK);
	return round_up(stored + free + tables, EXT4_BLOCKS_PER_GROUP);
}

static void place_regions(struct ext4_plan *plan, uint64_t blocks, uint64_t inodes)
{
	struct plan_layout *l = &plan->layout;
	const uint64_t groups = divide_up(blocks, EXT4_BLOCKS_PER_GROUP);
	const uint64_t per_group = inodes_per_group(inodes, groups);
	l->block_count = (uint32_t)blocks;
	l->group_count = (uint32_t)groups;
	l->inodes_per_group = (uint32_t)per_group;
	l->inode_count = (uint32_t)(per_group * groups);
	l->descriptors = 1;
	l->block_bitmaps = (uint32_t)(l->descriptors + divide_up(groups, EXT4_DESCS_PER_BLOCK));
	l->inode_bitmaps = (uint32_t)(l->block_bitmaps + groups);
	l->inode_tables = (uint32_t)(l->inode_bitmaps + groups);
	l->objects = l->inode_tables + l->inode_count / EXT4_INODES_PER_BLOCK;
	l->journal = l->objects + plan->object_blocks;
	l->contents = l->journal + journal_tree_blocks(plan->journal_blocks) + plan->journal_blocks;
	l->free = l->contents + plan->content_blocks;
}

int plan_layout_choose(struct ext4_plan *plan, const struct ext4_options *options, struct error *err)
{
	const uint64_t max_blocks = (uint64_t)MAX_GROUPS * EXT4_BLOCKS_PER_GROUP;
	if (options->inode_count > UINT32_MAX)
		return error_set(err, -EINVAL, "file system: %llu inodes are more than ext4 can have",
				 (unsigned long long)options->inode_count);
	const int rc = journal_check_options(options, err);
	if (rc)
		return rc;
	const uint64_t least_inodes = max_u64(plan->used_inodes, options->inode_count);
	const uint64_t least = least_blocks(plan, options, least_inodes);
	if (!least)
		return error_set(err, -EFBIG, "file system: the layers hold more than the largest disk (16 TiB) can");

	uint64_t blocks = options->size_bytes / EXT4_BLOCK_BYTES;
	if (options->size_bytes == 0)
		blocks = max_u64(least, min_u64(default_blocks(plan, least_inodes), max_blocks));
	/* 16 TiB are one block more than 32 bits count: the last group is left off. */
	if (blocks > max_blocks && blocks <= max_blocks + EXT4_BLOCKS_PER_GROUP)
		blocks = max_blocks;
	if (blocks > max_blocks)
		return error_set(err, -EFBIG, "file system: %llu bytes are too large for a disk; at most %llu",
				 (unsigned long long)options->size_bytes, (unsigned long long)max_blocks * EXT4_BLOCK_BYTES);
	plan->journal_blocks = journal_choose_blocks(options, blocks);
	/* A last group that is too small for its own tables only takes room away: leave it off. */
	if (!fits(plan, blocks, least_inodes))
		blocks -= blocks % EXT4_BLOCKS_PER_GROUP;
	if (!fits(plan, blocks, least_inodes))
		return error_set(err, -ENOSPC, "file system: a disk of %llu bytes is too small for the layers; at least %llu",
				 (unsigned long long)options->size_bytes, (unsigned long long)least * EXT4_BLOCK_BYTES);

	/* Inodes for the free space; on a disk that is nearly full, none. */
	uint64_t inodes = least_inodes;
	if (options->inode_count == 0) {
		inodes += free_inodes(blocks - stored_blocks(plan));
		if (!fits(plan, blocks, inodes))
			inodes = least_inodes;
	}
	place_regions(plan, blocks, inodes);
	return 0;
}

/* How much of a group's [start, start + count) lies below `used`. */
static uint32_t used_part(uint64_t start, uint32_t count, uint64_t used)
{
	return used <= start ? 0 : (uint32_t)min_u64(used - start, count);
}

struct group_usage plan_group_usage(const struct ext4_plan *plan, uint32_t group)
{
	const struct plan_layout *l = &plan->layout;
	const uint64_t first_block = (uint64_t)group * EXT4_BLOCKS_PER_GROUP;
	struct group_usage usage;
	usage.blocks = (uint32_t)min_u64(l->block_count - first_block, EXT4_BLOCKS_PER_GROUP);
	usage.used_blocks = used_part(first_block, usage.blocks, l->free);
	usage.used_inodes = used_part((uint64_t)group * l->inodes_per_group, l->inodes_per_group, plan->used_inodes);
	return usage;
}

bool ext4_plan_next_data(const struct ext4_plan *plan, uint64_t offset, uint64_t *begin, uint64_t *end)
{
	const struct plan_layout *l = &plan->layout;
	/* Each region is used from its start on. Bitmaps of groups without anything are marked UNINIT and stay zero. */
	const struct { uint64_t begin, blocks; } ranges[] = {
		{ 0, l->block_bitmaps },
		{ l->block_bitmaps, divide_up(l->free, EXT4_BLOCKS_PER_GROUP) },
		{ l->inode_bitmaps - 1, 1 }, /* the last group's block bitmap is always there */
		{ l->inode_bitmaps, divide_up(plan->used_inodes, l->inodes_per_group) },
		{ l->inode_tables, divide_up(plan->used_inodes, EXT4_INODES_PER_BLOCK) },
		{ l->objects, l->journal - l->objects },
		{ l->journal, plan->journal_blocks ? journal_tree_blocks(plan->journal_blocks) + 1 : 0 }, /* the rest is zero */
		{ l->contents, l->free - l->contents },
	};
	for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
		const uint64_t range_begin = ranges[i].begin * EXT4_BLOCK_BYTES;
		const uint64_t range_end = range_begin + ranges[i].blocks * EXT4_BLOCK_BYTES;
		if (offset >= range_end)
			continue;
		*begin = max_u64(offset, range_begin);
		*end = range_end;
		return true;
	}
	return false;
}
