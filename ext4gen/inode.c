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
 * Number 1 and 3 to 10 are reserved and unused, 2 is the root, 11 our lost+found if there is one; the tree's inodes follow without gap.
 */
uint32_t plan_inode_number(const struct ext4_plan *plan, uint32_t inode)
{
	if (inode == 0)
		return EXT4_ROOT_INO;
	if (inode == lost_found_inode(plan))
		return EXT4_FIRST_INO;
	return EXT4_FIRST_INO - 1 + plan->add_lost_found + inode;
}

/* The other way; TREE_NONE when the number is not in use. */
static uint32_t inode_of_number(const struct ext4_plan *plan, uint32_t number)
{
	if (number == EXT4_ROOT_INO)
		return 0;
	if (number < EXT4_FIRST_INO || number > plan->used_inodes)
		return TREE_NONE;
	if (plan->add_lost_found && number == EXT4_FIRST_INO)
		return lost_found_inode(plan);
	return number - (EXT4_FIRST_INO - 1 + plan->add_lost_found);
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
	const uint32_t epoch = (uint32_t)((seconds - (int32_t)low) >> 32) & 3;
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

static uint32_t blocks_of_runs(const struct ext4_plan *plan, uint32_t inode)
{
	const struct plan_run *first = &plan->runs[plan->inodes[inode].first_run];
	return first[plan->inodes[inode].run_count].block - first->block;
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

/* Fills what depends on the type and returns the number of the inode's blocks. */
static uint64_t put_contents(const struct ext4_plan *plan, uint32_t inode, bool attribute_block, struct ext4_inode *disk)
{
	const struct tree_inode *from = &plan->tree->inodes[inode];
	uint32_t own_blocks = 0, object_blocks = 0;
	if (S_ISDIR(from->mode) || attribute_block || (S_ISREG(from->mode) && plan->inodes[inode].run_count > EXT4_EXTENTS_IN_INODE) ||
	    (S_ISLNK(from->mode) && from->size_bytes > EXT4_FAST_SYMLINK_MAX)) {
		const uint32_t object = plan_find_object_of_inode(plan, inode);
		object_blocks = plan_object_length(plan, object);
		own_blocks = object_blocks - attribute_block;
		if (attribute_block)
			disk->i_file_acl_lo = le32_make(plan->layout.objects + plan->objects[object].block + own_blocks);
	}
	switch (from->mode & S_IFMT) {
	case S_IFDIR:
		put_directory(plan, inode, own_blocks, disk);
		return object_blocks;
	case S_IFREG:
		put_size(disk, from->size_bytes);
		put_extents_root(plan, inode, disk);
		return (uint64_t)object_blocks + blocks_of_runs(plan, inode);
	case S_IFLNK:
		put_size(disk, from->size_bytes);
		if (from->size_bytes > EXT4_FAST_SYMLINK_MAX)
			put_extents_root(plan, inode, disk);
		else
			memcpy(disk->i_block, plan->tree->strings + from->target, from->size_bytes);
		return object_blocks;
	case S_IFCHR:
	case S_IFBLK:
		put_device(disk, from->rdev);
		return object_blocks;
	default:
		return object_blocks;
	}
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
	put_block_count(disk, put_contents(plan, inode, attribute_block, disk));
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

void fill_inode_table(const struct ext4_plan *plan, uint32_t index, uint8_t *block)
{
	memset(block, 0, EXT4_BLOCK_BYTES);
	for (uint32_t i = 0; i < EXT4_INODES_PER_BLOCK; i++) {
		const uint32_t number = index * EXT4_INODES_PER_BLOCK + i + 1;
		const uint32_t inode = inode_of_number(plan, number);
		if (inode == TREE_NONE)
			continue;
		struct ext4_inode disk = { .i_extra_isize = le16_make(EXT4_EXTRA_ISIZE) };
		if (inode == lost_found_inode(plan))
			fill_lost_found(plan, &disk);
		else
			fill_inode(plan, inode, &disk);
		memcpy(block + i * sizeof(disk), &disk, sizeof(disk));
	}
}
