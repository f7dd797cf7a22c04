/* Inode tables. A tree inode's number follows from its index, so a table block is computed from the 16 inodes that it holds. */
#include "ext4gen/plan_internal.h"

#include <string.h>
#include <sys/sysmacros.h>

/* What e2fsck takes for a sane time: beyond 2310-04-04 it suspects an old kernel's error with times before 1970. */
#define TIME_MIN (-(int64_t)0x80000000)
#define TIME_MAX (3 * ((int64_t)1 << 32) + TIME_MIN - 1)

/* Our own lost+found, when the tree has none. */
#define LOST_FOUND_MODE (S_IFDIR | 0700)

/*
 * Number 1 and 3 to 10 are reserved and unused but for the journal's, 2 is the root, 11 our lost+found if there is one; the tree's
 * inodes follow without gap, then those of attribute values.
 */
uint32_t plan_inode_number(const struct ext4_plan *plan, uint32_t inode)
{
	if (inode == 0)
		return EXT4_ROOT_INO;
	if (inode == lost_found_inode(plan))
		return EXT4_FIRST_INO;
	if (inode == journal_inode(plan))
		return EXT4_JOURNAL_INO;
	if (is_value_inode(plan, inode))
		inode -= value_inode(plan, 0) - plan->tree->inode_count;
	return EXT4_FIRST_INO - 1 + plan->add_lost_found + inode;
}

/* The other way; TREE_NONE when the number is not in use. */
static uint32_t inode_of_number(const struct ext4_plan *plan, uint32_t number)
{
	if (number == EXT4_ROOT_INO)
		return 0;
	if (number == EXT4_JOURNAL_INO && plan->journal_blocks)
		return journal_inode(plan);
	if (number < EXT4_FIRST_INO || number > plan->used_inodes)
		return TREE_NONE;
	if (plan->add_lost_found && number == EXT4_FIRST_INO)
		return lost_found_inode(plan);
	const uint32_t index = number - (EXT4_FIRST_INO - 1 + plan->add_lost_found);
	return index < plan->tree->inode_count ? index : value_inode(plan, index - plan->tree->inode_count);
}

uint32_t ext4_plan_inode_number(const struct ext4_plan *plan, uint32_t tree_inode)
{
	return plan_inode_number(plan, tree_inode);
}

/* All four times are the modification time: a tree has no other, and the disk is to be the same on every run. */
static void put_times(struct ext4_inode *disk, int64_t seconds, uint32_t nanoseconds)
{
	if (seconds < TIME_MIN || seconds > TIME_MAX) {
		seconds = seconds < 0 ? TIME_MIN : TIME_MAX;
		nanoseconds = 0;
	}
	/* The low half counts as signed; the two bits are what is missing then. */
	const uint32_t low = (uint32_t)(uint64_t)seconds;
	const uint32_t epoch = (uint32_t)((uint64_t)(seconds - (int32_t)low) >> 32) & 3;
	const le32 time = le32_make(low);
	const le32 extra = le32_make(nanoseconds << 2 | epoch);
	disk->i_atime = disk->i_ctime = disk->i_mtime = disk->i_crtime = time;
	disk->i_atime_extra = disk->i_ctime_extra = disk->i_mtime_extra = disk->i_crtime_extra = extra;
}

/* As the kernel does it: the 16-bit form where it is enough, else the 32-bit one in the second word. */
static void put_device(struct ext4_inode *disk, uint32_t rdev)
{
	const uint32_t major_number = rdev >> 20, minor_number = rdev & 0xFFFFF;
	le32 words[2];
	if (major_number < 256 && minor_number < 256) {
		words[0] = le32_make(major_number << 8 | minor_number);
		words[1] = le32_make(0);
	} else {
		words[0] = le32_make(0);
		words[1] = le32_make((minor_number & 0xFF) | major_number << 8 | (minor_number & ~0xFFu) << 12);
	}
	memcpy(disk->i_block, words, sizeof(words));
}

static void put_extents_root(const struct ext4_plan *plan, uint32_t inode, struct ext4_inode *disk)
{
	disk->i_flags = le32_make(le32_get(disk->i_flags) | EXT4_EXTENTS_FL);
	fill_extent_root(plan, inode, disk->i_block);
}

static void put_size(struct ext4_inode *disk, uint64_t bytes)
{
	disk->i_size_lo = le32_make((uint32_t)bytes);
	disk->i_size_high = le32_make((uint32_t)(bytes >> 32));
}

/* Blocks of the inode, contents and metadata; counted in sectors on disk. */
static void put_block_count(struct ext4_inode *disk, uint64_t blocks)
{
	const uint64_t sectors = blocks * (EXT4_BLOCK_BYTES / 512);
	disk->i_blocks_lo = le32_make((uint32_t)sectors);
	disk->i_blocks_high = le16_make((uint16_t)(sectors >> 32));
}

static void put_directory(const struct ext4_plan *plan, uint32_t inode, uint32_t own_blocks, struct ext4_inode *disk)
{
	if (dir_is_indexed(plan, inode))
		disk->i_flags = le32_make(EXT4_INDEX_FL);
	put_size(disk, (uint64_t)own_blocks * EXT4_BLOCK_BYTES);
	put_extents_root(plan, inode, disk);
}

static void put_symlink(const struct ext4_plan *plan, uint32_t inode, struct ext4_inode *disk)
{
	const struct tree_inode *from = &plan->tree->inodes[inode];
	put_size(disk, from->size_bytes);
	if (from->size_bytes > EXT4_FAST_SYMLINK_MAX)
		put_extents_root(plan, inode, disk);
	else
		memcpy(disk->i_block, plan->tree->strings + from->target, from->size_bytes);
}

static void put_file(const struct ext4_plan *plan, uint32_t inode, uint32_t other_blocks, struct ext4_inode *disk)
{
	const struct plan_run *runs = &plan->runs[plan->inodes[inode].first_run];
	const uint32_t run_count = plan_run_count(plan, inode);
	put_size(disk, plan->tree->inodes[inode].size_bytes);
	put_block_count(disk, (uint64_t)other_blocks + runs[run_count].block - runs[0].block);
	disk->i_flags = le32_make(EXT4_EXTENTS_FL);
	if (run_count <= EXT4_EXTENTS_IN_INODE)
		fill_runs_root(plan, runs, run_count, disk->i_block);
	else
		fill_extent_root(plan, inode, disk->i_block);
}

/* Whether the inode has blocks of its own: the types and sizes for which build.c made an object. */
static bool has_object(const struct ext4_plan *plan, uint32_t inode, bool attribute_block)
{
	const struct tree_inode *from = &plan->tree->inodes[inode];
	if (attribute_block)
		return true;
	if (S_ISREG(from->mode))
		return plan_run_count(plan, inode) > EXT4_EXTENTS_IN_INODE;
	return S_ISDIR(from->mode) || (S_ISLNK(from->mode) && from->size_bytes > EXT4_FAST_SYMLINK_MAX);
}

/* What depends on the type: size, blocks, i_block. */
static void put_contents(const struct ext4_plan *plan, uint32_t inode, bool attribute_block, struct ext4_inode *disk)
{
	const struct tree_inode *from = &plan->tree->inodes[inode];
	uint32_t object_blocks = 0;
	if (has_object(plan, inode, attribute_block)) {
		const uint32_t object = plan_find_object_of_inode(plan, inode);
		object_blocks = plan_object_length(plan, object);
		if (attribute_block)
			disk->i_file_acl_lo = le32_make(plan->layout.objects + plan->objects[object].block + object_blocks - 1);
	}
	/* Linux counts the values' blocks here, too. */
	const uint32_t charged_blocks = object_blocks + (from->xattr_count ? values_blocks_of(plan, inode) : 0);
	if (S_ISREG(from->mode)) {
		put_file(plan, inode, charged_blocks, disk);
		return;
	}
	put_block_count(disk, charged_blocks);
	if (S_ISDIR(from->mode))
		put_directory(plan, inode, object_blocks - attribute_block, disk);
	else if (S_ISLNK(from->mode))
		put_symlink(plan, inode, disk);
	else if (S_ISCHR(from->mode) || S_ISBLK(from->mode))
		put_device(disk, from->rdev);
}

static void fill_inode(const struct ext4_plan *plan, uint32_t inode, struct ext4_inode *disk)
{
	const struct tree_inode *from = &plan->tree->inodes[inode];
	/* Counts beyond the limit: files were refused, a directory says 1 for "many" (feature dir_nlink). */
	uint32_t links = from->nlink + (inode == 0 && plan->add_lost_found);
	if (links > EXT4_LINK_MAX)
		links = 1;
	disk->i_mode = le16_make((uint16_t)from->mode);
	disk->i_uid = le16_make((uint16_t)from->uid);
	disk->i_uid_high = le16_make((uint16_t)(from->uid >> 16));
	disk->i_gid = le16_make((uint16_t)from->gid);
	disk->i_gid_high = le16_make((uint16_t)(from->gid >> 16));
	disk->i_links_count = le16_make((uint16_t)links);
	put_times(disk, from->mtime_s, from->mtime_ns);
	const bool attribute_block = from->xattr_count && xattr_needs_block(plan, inode);
	put_contents(plan, inode, attribute_block, disk);
	if (from->xattr_count)
		fill_xattr_inode(plan, inode, disk->i_xattr);
}

static void fill_lost_found(const struct ext4_plan *plan, struct ext4_inode *disk)
{
	disk->i_mode = le16_make(LOST_FOUND_MODE);
	disk->i_links_count = le16_make(2);
	put_times(disk, plan->tree->inodes[0].mtime_s, plan->tree->inodes[0].mtime_ns);
	const uint32_t blocks = plan_own_blocks(plan, plan_find_object_of_inode(plan, lost_found_inode(plan)));
	put_directory(plan, lost_found_inode(plan), blocks, disk);
	put_block_count(disk, blocks);
}

static void fill_journal_inode(const struct ext4_plan *plan, struct ext4_inode *disk)
{
	disk->i_mode = le16_make(S_IFREG | 0600);
	disk->i_links_count = le16_make(1);
	put_times(disk, plan->tree->inodes[0].mtime_s, plan->tree->inodes[0].mtime_ns);
	put_block_count(disk, (uint64_t)plan->journal_blocks + journal_tree_blocks(plan->journal_blocks));
	put_journal_inode(plan, disk);
}

static void fill_value_inode(const struct ext4_plan *plan, uint32_t k, struct ext4_inode *disk)
{
	put_value_inode(plan, k, disk);
	put_block_count(disk, value_blocks(plan, k));
}

/* Over the whole inode with zeroes where the checksum is. */
static void put_inode_checksum(const struct ext4_plan *plan, uint32_t inode, struct ext4_inode *disk)
{
	const uint32_t crc = crc32c(csum_inode_seed(plan, inode), disk, sizeof(*disk));
	disk->i_checksum_lo = le16_make((uint16_t)crc);
	disk->i_checksum_hi = le16_make((uint16_t)(crc >> 16));
}

void fill_inode_table(const struct ext4_plan *plan, uint32_t index, uint8_t *block)
{
	memset(block, 0, EXT4_BLOCK_BYTES);
	for (uint32_t i = 0; i < EXT4_INODES_PER_BLOCK; i++) {
		const uint32_t number = index * EXT4_INODES_PER_BLOCK + i + 1;
		const uint32_t inode = inode_of_number(plan, number);
		if (inode == TREE_NONE)
			continue;
		struct ext4_inode *disk = (struct ext4_inode *)block + i;
		disk->i_extra_isize = le16_make(EXT4_EXTRA_ISIZE);
		if (inode == lost_found_inode(plan))
			fill_lost_found(plan, disk);
		else if (inode == journal_inode(plan))
			fill_journal_inode(plan, disk);
		else if (is_value_inode(plan, inode))
			fill_value_inode(plan, inode - value_inode(plan, 0), disk);
		else
			fill_inode(plan, inode, disk);
		if (plan->metadata_csum)
			put_inode_checksum(plan, inode, disk);
	}
}

uint32_t csum_inode_seed(const struct ext4_plan *plan, uint32_t inode)
{
	const le32 number = le32_make(plan_inode_number(plan, inode)), generation = le32_make(0);
	return crc32c(crc32c(plan->csum_seed, &number, sizeof(number)), &generation, sizeof(generation));
}
