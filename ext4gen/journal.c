/*
 * The journal (jbd2): empty, in one piece in front of the contents, in inode 8.
 *
 *   layout.journal   [ extent tree, 0 or 1 block ][ journal superblock ][ zeroes ... ]
 *
 * Only the superblock's block is ever read at a mount, so its size costs nothing. Specification: the kernel's documentation,
 * filesystems/ext4, "Journal (jbd2)".
 */
#include "ext4gen/plan_internal.h"

#include <errno.h>
#include <string.h>

/* As mke2fs; Linux has no limit of its own. */
#define MAX_JOURNAL_BLOCKS 10240000u

#define MIB_BLOCKS (1u << (20 - EXT4_LOG_BLOCK_BYTES))

int journal_check_options(const struct ext4_options *options, struct error *err)
{
	if (!options->journal || options->journal_bytes == 0)
		return 0;
	const uint64_t blocks = options->journal_bytes / EXT4_BLOCK_BYTES;
	if (blocks < JBD2_MIN_JOURNAL_BLOCKS || blocks > MAX_JOURNAL_BLOCKS)
		return error_set(err, -EINVAL, "file system: a journal of %llu bytes: it must have %llu to %llu",
				 (unsigned long long)options->journal_bytes,
				 (unsigned long long)JBD2_MIN_JOURNAL_BLOCKS * EXT4_BLOCK_BYTES,
				 (unsigned long long)MAX_JOURNAL_BLOCKS * EXT4_BLOCK_BYTES);
	return 0;
}

/* The sizes that mke2fs gives (ext2fs_default_journal_size()); below 8 MiB it makes no journal, we the least one. */
uint32_t journal_choose_blocks(const struct ext4_options *options, uint64_t disk_blocks)
{
	static const struct {
		uint32_t disk_mib, journal_mib;
	} steps[] = {
		{ 128, 4 },        { 1 << 10, 16 },   { 2 << 10, 32 },    { 16 << 10, 64 },
		{ 32 << 10, 128 }, { 64 << 10, 256 }, { 128 << 10, 512 },
	};
	if (!options->journal)
		return 0;
	if (options->journal_bytes)
		return (uint32_t)(options->journal_bytes / EXT4_BLOCK_BYTES);
	for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++)
		if (disk_blocks < (uint64_t)steps[i].disk_mib * MIB_BLOCKS)
			return steps[i].journal_mib * MIB_BLOCKS;
	return 1024 * MIB_BLOCKS;
}

uint32_t journal_tree_blocks(uint32_t journal_blocks)
{
	return (uint32_t)extent_tree_blocks((journal_blocks + EXT4_EXTENT_MAX_BLOCKS - 1) / EXT4_EXTENT_MAX_BLOCKS);
}

void put_journal_inode(const struct ext4_plan *plan, struct ext4_inode *disk)
{
	const uint64_t bytes = (uint64_t)plan->journal_blocks * EXT4_BLOCK_BYTES;
	disk->i_size_lo = le32_make((uint32_t)bytes);
	disk->i_size_high = le32_make((uint32_t)(bytes >> 32));
	disk->i_flags = le32_make(EXT4_EXTENTS_FL);
	fill_extent_root(plan, journal_inode(plan), disk->i_block);
}

/* The backup of i_block and size is for e2fsck, which finds the journal by it when the inode is lost. */
void put_journal_fields(const struct ext4_plan *plan, struct ext4_super_block *sb)
{
	if (plan->journal_blocks == 0)
		return;
	struct ext4_inode inode = { 0 };
	put_journal_inode(plan, &inode);
	sb->s_feature_compat = le32_make(le32_get(sb->s_feature_compat) | EXT4_COMPAT_HAS_JOURNAL);
	sb->s_journal_inum = le32_make(EXT4_JOURNAL_INO);
	sb->s_jnl_backup_type = EXT4_JNL_BACKUP_BLOCKS;
	memcpy(sb->s_jnl_blocks, inode.i_block, sizeof(inode.i_block));
	sb->s_jnl_blocks[15] = inode.i_size_high;
	sb->s_jnl_blocks[16] = inode.i_size_lo;
}

void fill_journal_block(const struct ext4_plan *plan, uint32_t index, uint8_t *block)
{
	const uint32_t tree_blocks = journal_tree_blocks(plan->journal_blocks);
	if (index < tree_blocks) {
		fill_extent_block(plan, journal_inode(plan), index, block);
		return;
	}
	memset(block, 0, EXT4_BLOCK_BYTES);
	if (index > tree_blocks)
		return;
	struct jbd2_superblock sb = {
		.h_magic = be32_make(JBD2_MAGIC),
		.h_blocktype = be32_make(JBD2_SUPERBLOCK_V2),
		.s_blocksize = be32_make(EXT4_BLOCK_BYTES),
		.s_maxlen = be32_make(plan->journal_blocks),
		.s_first = be32_make(1),
		.s_sequence = be32_make(1), /* of the first transaction; s_start 0: there is nothing to replay */
		.s_nr_users = be32_make(1),
	};
	memcpy(sb.s_uuid, plan->uuid, sizeof(sb.s_uuid));
	memcpy(block, &sb, sizeof(sb));
}
