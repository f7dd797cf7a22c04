/* The superblock: whether this is a file system that we understand, and what follows from it: where an inode lies. */
#include "ext4read/reader_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/* Incompatible features: a reader that does not know one must not read. Those of writing only are another word of the superblock. */
static const struct {
	uint32_t bit;
	bool understood;
	const char *name; /* as mke2fs -O has it */
} incompat[] = {
	{ 0x1, false, "compression" },   { 0x2, true, "filetype" },
	{ 0x4, true, "needs_recovery" }, { 0x8, false, "journal_dev" },
	{ 0x10, false, "meta_bg" },      { 0x40, true, "extent" },
	{ 0x80, true, "64bit" },         { 0x100, true, "mmp" }, /* guards against a second writer */
	{ 0x200, true, "flex_bg" },      { 0x400, true, "ea_inode" },
	{ 0x1000, false, "dirdata" },    { 0x2000, true, "metadata_csum_seed" },
	{ 0x4000, true, "large_dir" },   { 0x8000, false, "inline_data" },
	{ 0x10000, false, "encrypt" },   { 0x20000, false, "casefold" },
};

enum { FEATURE_NEEDS_RECOVERY = 0x4, FEATURE_64BIT = 0x80 };

static int check_features(const struct ext4_super_block *super, struct error *err)
{
	uint32_t left = le32_get(super->s_feature_incompat);
	for (size_t i = 0; i < sizeof(incompat) / sizeof(incompat[0]); i++) {
		if (!(left & incompat[i].bit))
			continue;
		if (!incompat[i].understood)
			return error_set(err, -ENOTSUP, "the file system has the feature '%s', which is not understood here",
					 incompat[i].name);
		left &= ~incompat[i].bit;
	}
	if (left)
		return error_set(err, -ENOTSUP, "the file system has incompatible features 0x%x, which are not known here", left);
	return 0;
}

static bool is_power_of_two(uint32_t n)
{
	return n && !(n & (n - 1));
}

static int check_geometry(struct ext4_reader *reader, struct error *err)
{
	const struct ext4_super_block *super = &reader->super;
	const bool wide = le32_get(super->s_feature_incompat) & FEATURE_64BIT;
	const uint32_t log = le32_get(super->s_log_block_size);
	if (log > 6)
		return error_set(err, -EINVAL, "the superblock is wrong: blocks of 2^%u KiB", log);
	reader->block_bytes = 1024u << log;
	reader->block_count = le32_get(super->s_blocks_count_lo) | (wide ? (uint64_t)le32_get(super->s_blocks_count_hi) << 32 : 0);
	if (reader->block_count > reader->size_bytes / reader->block_bytes)
		return error_set(err, -EINVAL, "the file system has %llu blocks of %u bytes, more than its disk of %llu bytes",
				 (unsigned long long)reader->block_count, reader->block_bytes,
				 (unsigned long long)reader->size_bytes);
	const uint32_t first = le32_get(super->s_first_data_block), per_group = le32_get(super->s_blocks_per_group);
	const uint32_t inodes_per_group = le32_get(super->s_inodes_per_group);
	if (first != (log == 0) || first >= reader->block_count || !per_group || !inodes_per_group ||
	    inodes_per_group > 8 * reader->block_bytes)
		return error_set(err, -EINVAL, "the superblock is wrong: groups of %u blocks and %u inodes from block %u on",
				 per_group, inodes_per_group, first);
	const uint64_t groups = (reader->block_count - first + per_group - 1) / per_group;
	const uint64_t inodes = groups * inodes_per_group;
	reader->inode_count = le32_get(super->s_inodes_count);
	if (groups > UINT32_MAX || reader->inode_count > inodes || reader->inode_count < EXT4_ROOT_INO)
		return error_set(err, -EINVAL, "the superblock is wrong: %u inodes in %llu groups", reader->inode_count,
				 (unsigned long long)groups);
	reader->group_count = (uint32_t)groups;
	reader->desc_bytes = wide ? le16_get(super->s_desc_size) : 32;
	reader->inode_bytes = le32_get(super->s_rev_level) ? le16_get(super->s_inode_size) : 128;
	if (!is_power_of_two(reader->desc_bytes) || reader->desc_bytes < (wide ? 64 : 32) || reader->desc_bytes > 1024 ||
	    !is_power_of_two(reader->inode_bytes) || reader->inode_bytes < 128 || reader->inode_bytes > reader->block_bytes)
		return error_set(err, -EINVAL, "the superblock is wrong: group descriptors of %u and inodes of %u bytes",
				 reader->desc_bytes, reader->inode_bytes);
	return 0;
}

int super_read(struct ext4_reader *reader, struct error *err)
{
	if (reader->size_bytes < EXT4_SUPER_OFFSET + sizeof(reader->super))
		return error_set(err, -EINVAL, "there is no ext4 file system: the disk has only %llu bytes",
				 (unsigned long long)reader->size_bytes);
	const int ret = device_read(reader, EXT4_SUPER_OFFSET, &reader->super, sizeof(reader->super), true);
	if (ret)
		return error_set(err, ret, "cannot read the superblock: %s", strerror(-ret));
	if (le16_get(reader->super.s_magic) != EXT4_SUPER_MAGIC)
		return error_set(err, -EINVAL, "there is no ext4 file system: the superblock has no magic number");
	const int bad = check_features(&reader->super, err);
	return bad ? bad : check_geometry(reader, err);
}

static int allocate(struct ext4_reader *reader)
{
	const size_t block = reader->block_bytes;
	assert(block >= 1024); /* as super_read() left it */
	reader->cached = calloc(CACHE_SLOTS, sizeof(*reader->cached));
	reader->cache = malloc(CACHE_SLOTS * block);
	reader->levels = malloc(EXTENT_DEPTH_MAX * block);
	/* Fields behind the 128 bytes of an old inode are looked at before it is known that they are not there. */
	reader->inode =
	    calloc(1, reader->inode_bytes < sizeof(struct ext4_inode) ? sizeof(struct ext4_inode) : reader->inode_bytes);
	return reader->cached && reader->cache && reader->levels && reader->inode ? 0 : -ENOMEM;
}

int ext4_reader_open(ext4_disk_read *read, void *data, uint64_t size_bytes, struct ext4_reader **reader, struct error *err)
{
	struct ext4_reader *made = calloc(1, sizeof(*made));
	if (!made)
		return error_set(err, -ENOMEM, "out of memory");
	made->read = read;
	made->data = data;
	/* Offsets are those of files, so that nothing overflows further on. */
	made->size_bytes = size_bytes < INT64_MAX ? size_bytes : INT64_MAX;
	int ret = super_read(made, err);
	if (!ret && allocate(made))
		ret = error_set(err, -ENOMEM, "out of memory");
	if (!ret && (le32_get(made->super.s_feature_incompat) & FEATURE_NEEDS_RECOVERY)) {
		const uint32_t block_bytes = made->block_bytes, inode_bytes = made->inode_bytes;
		ret = journal_replay(made, err);
		device_forget(made);
		if (!ret)
			ret = super_read(made, err);
		if (!ret && (made->block_bytes != block_bytes || made->inode_bytes != inode_bytes))
			ret = damaged(
			    err, "the superblock in the journal has blocks of %u and inodes of %u bytes, that on disk %u and %u",
			    made->block_bytes, made->inode_bytes, block_bytes, inode_bytes);
	}
	if (ret)
		ext4_reader_close(made);
	else
		*reader = made;
	return ret;
}

void ext4_reader_close(struct ext4_reader *reader)
{
	if (!reader)
		return;
	map_free(&reader->replayed);
	free(reader->cached);
	free(reader->cache);
	free(reader->levels);
	free(reader->inode);
	free(reader);
}

/* Where the inode table of a group starts. */
static int find_table(struct ext4_reader *reader, uint32_t group, uint64_t *block, struct error *err)
{
	const uint8_t *descs;
	const uint64_t at = (uint64_t)group * reader->desc_bytes;
	const int ret =
	    device_block(reader, le32_get(reader->super.s_first_data_block) + 1 + at / reader->block_bytes, &descs, err);
	if (ret)
		return ret;
	const uint8_t *desc = descs + at % reader->block_bytes;
	le32 low, high = le32_make(0);
	memcpy(&low, desc + offsetof(struct ext4_group_desc, bg_inode_table), sizeof(low));
	if (reader->desc_bytes >= 64)
		memcpy(&high, desc + 0x28, sizeof(high)); /* bg_inode_table_hi */
	*block = (uint64_t)le32_get(high) << 32 | le32_get(low);
	return 0;
}

int inode_read(struct ext4_reader *reader, uint32_t number, struct error *err)
{
	const uint32_t per_group = le32_get(reader->super.s_inodes_per_group);
	uint64_t table = 0;
	const uint8_t *data;
	if (number == 0 || number > reader->inode_count)
		return damaged(err, "there is no inode %u", number);
	int ret = find_table(reader, (number - 1) / per_group, &table, err);
	const uint64_t at = (uint64_t)((number - 1) % per_group) * reader->inode_bytes;
	if (!ret && table >= reader->block_count)
		ret = damaged(err, "the inode table of group %u lies behind the end", (number - 1) / per_group);
	if (!ret)
		ret = device_block(reader, table + at / reader->block_bytes, &data, err);
	if (!ret)
		memcpy(reader->inode, data + at % reader->block_bytes, reader->inode_bytes);
	return ret;
}
