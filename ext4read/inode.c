/* From an inode on disk to one of the tree: attributes, and what the type says about the rest. */
#include "ext4read/reader_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { OLD_INODE_BYTES = 128, SYMLINK_MAX_BYTES = 4095 };

/* Whether the inode is so large, and says so itself, that it has the field that ends at `end`. */
static bool has_field(const struct ext4_reader *reader, const struct ext4_inode *inode, size_t end)
{
	return reader->inode_bytes > OLD_INODE_BYTES && end <= reader->inode_bytes &&
	       end <= OLD_INODE_BYTES + (size_t)le16_get(inode->i_extra_isize);
}

/* The low half counts as signed; two bits of the extra field go on top, the others are nanoseconds. */
static void take_time(const struct ext4_reader *reader, const struct ext4_inode *inode, struct tree_inode *to)
{
	to->mtime_s = (int32_t)le32_get(inode->i_mtime);
	to->mtime_ns = 0;
	if (has_field(reader, inode, offsetof(struct ext4_inode, i_mtime_extra) + sizeof(le32))) {
		const uint32_t extra = le32_get(inode->i_mtime_extra), ns = extra >> 2;
		to->mtime_s += (int64_t)(extra & 3) << 32;
		to->mtime_ns = ns < 1000000000 ? ns : 999999999;
	}
}

/* The 16-bit form in the first word, or else the 32-bit one in the second. */
static uint32_t device_number(const struct ext4_inode *inode)
{
	le32 words[2];
	memcpy(words, inode->i_block, sizeof(words));
	const uint32_t old = le32_get(words[0]), new = le32_get(words[1]);
	if (old)
		return (old >> 8 & 0xFF) << 20 | (old & 0xFF);
	return (new >> 8 & 0xFFF) << 20 | (new & 0xFF) | (new >> 12 & 0xFFF00);
}

static int take_file(struct making *making, uint32_t number, struct tree_inode *to, struct error *err)
{
	struct ext4_reader *reader = making->reader;
	const struct ext4_inode *inode = inode_fields(reader);
	to->size_bytes = inode_size(inode);
	if (to->size_bytes > (uint64_t)reader->block_bytes << 32)
		return damaged(err, "inode %u has %llu bytes", number, (unsigned long long)to->size_bytes);
	to->first_extent = (uint32_t)making->extents.count;
	const int ret = extents_read(reader, number, inode, to->size_bytes, &making->extents, err);
	to->extent_count = (uint32_t)making->extents.count - to->first_extent;
	return ret;
}

static int take_symlink(struct making *making, uint32_t number, struct tree_inode *to, struct error *err)
{
	struct ext4_reader *reader = making->reader;
	const struct ext4_inode *inode = inode_fields(reader);
	const uint64_t size = inode_size(inode);
	char target[SYMLINK_MAX_BYTES];
	if (size == 0 || size > SYMLINK_MAX_BYTES)
		return damaged(err, "inode %u is a symbolic link to a path of %llu bytes", number, (unsigned long long)size);
	if (size <= EXT4_FAST_SYMLINK_MAX && !(le32_get(inode->i_flags) & EXT4_EXTENTS_FL)) {
		memcpy(target, inode->i_block, size);
	} else {
		making->scratch.count = 0;
		int ret = extents_read(reader, number, inode, size, &making->scratch, err);
		if (ret)
			return ret;
		ret = extents_contents(reader, making->scratch.data, making->scratch.count, target, size);
		if (ret)
			return error_set(err, ret, "cannot read the symbolic link in inode %u: %s", number, strerror(-ret));
	}
	/* Linux reads it as a string. */
	to->size_bytes = strnlen(target, size);
	if (to->size_bytes == 0)
		return damaged(err, "inode %u is a symbolic link to nothing", number);
	return making_string(making, target, to->size_bytes, &to->target, err);
}

static int take_contents(struct making *making, uint32_t number, struct tree_inode *to, struct error *err)
{
	switch (to->mode & S_IFMT) {
	case S_IFREG:
		return take_file(making, number, to, err);
	case S_IFLNK:
		return take_symlink(making, number, to, err);
	case S_IFDIR:
		to->first_child = TREE_NONE;
		return 0;
	case S_IFCHR:
	case S_IFBLK:
		to->rdev = device_number(inode_fields(making->reader));
		return 0;
	default: /* fifos and sockets */
		return 0;
	}
}

int making_inode(struct making *making, uint32_t number, struct error *err)
{
	const struct ext4_reader *reader = making->reader;
	const struct ext4_inode *inode = inode_fields(reader);
	struct tree_inode made = {
		.mode = le16_get(inode->i_mode),
		.uid = (uint32_t)le16_get(inode->i_uid_high) << 16 | le16_get(inode->i_uid),
		.gid = (uint32_t)le16_get(inode->i_gid_high) << 16 | le16_get(inode->i_gid),
	};
	take_time(reader, inode, &made);
	int ret = take_contents(making, number, &made, err);
	if (!ret)
		ret = making_xattrs(making, number, &made.first_xattr, &made.xattr_count, err);
	if (ret)
		return ret;
	const size_t place = making->inodes.count;
	struct tree_inode *to = place < EXT4_READER_ITEMS_MAX ? items_add(&making->inodes, sizeof(*to)) : NULL;
	uint32_t *known = items_add(&making->numbers, sizeof(*known));
	uint32_t *entry = items_add(&making->first_entries, sizeof(*entry));
	if (place >= EXT4_READER_ITEMS_MAX)
		return error_set(err, -EFBIG, "the file system has more than %zu inodes", EXT4_READER_ITEMS_MAX);
	if (!to || !known || !entry || map_set(&making->known, number, place))
		return error_set(err, -ENOMEM, "out of memory");
	*to = made;
	*known = number;
	*entry = TREE_NONE;
	return 0;
}
