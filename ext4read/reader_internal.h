/*
 * What the parts of the reader share. From the bottom up: device.c reads blocks, journal.c lays newer versions over them, super.c
 * finds inodes, extent.c and xattr.c read what hangs on them, inode.c makes tree inodes, tree.c walks directories.
 */
#ifndef TRVMM_EXT4READ_READER_INTERNAL_H
#define TRVMM_EXT4READ_READER_INTERNAL_H

#include "ext4gen/ext4_disk.h"
#include "ext4read/ext4read.h"

/* ---- arrays and maps (containers.c) ------------------------------------------------------------------------------------------- */

/* A growable array of items of one size. All zero is an empty one. */
struct items {
	void *data; /* owned */
	size_t count, room;
};

/* Appends room for one item of `item_bytes`, zeroed, and returns it; NULL when memory is out. */
void *items_add(struct items *items, size_t item_bytes);
void items_free(struct items *items);

/* Keys other than 0 to values. All zero is an empty one. */
struct map {
	struct map_slot {
		uint64_t key, value;
	} * slots; /* owned */
	size_t count, capacity; /* capacity: 0 or a power of two, below 2^32 */
	uint64_t factor; /* of this map's hash; odd */
};

/* Sets or replaces. Returns 0 or -ENOMEM. */
int map_set(struct map *map, uint64_t key, uint64_t value);
/* Borrowed until the map changes; NULL when the key is not there. */
const uint64_t *map_get(const struct map *map, uint64_t key);
void map_free(struct map *map);

/* ---- the reader --------------------------------------------------------------------------------------------------------------- */

/* Of an extent tree: what Linux allows. */
#define EXTENT_DEPTH_MAX 5
#define CACHE_SLOTS 128

struct ext4_reader {
	ext4_disk_read *read;
	void *data; /* borrowed */
	uint64_t size_bytes; /* of the disk */
	struct ext4_super_block super;
	uint32_t block_bytes;
	uint64_t block_count; /* of the file system, which fits on the disk */
	uint32_t group_count;
	uint32_t desc_bytes, inode_bytes;
	uint32_t inode_count;
	struct map replayed; /* block + 1 to where its newer version lies: block of the disk << 1 | escaped */
	uint64_t *cached; /* owned: CACHE_SLOTS block numbers + 1; 0: nothing */
	uint8_t *cache; /* owned: their contents */
	uint8_t *levels; /* owned: a block for each level of an extent tree */
	uint8_t *inode; /* owned: room for one inode, with the attributes in it */
	uint64_t blocks_left; /* that files may still have, before they have more than the disk */
};

/* Ends an error of this module: what to do about it. */
#define MEND "; the file system is damaged, let e2fsck -f repair it"

/* -EUCLEAN with a line. */
#define damaged(err, format, ...) error_set(err, -EUCLEAN, format MEND, __VA_ARGS__)

/* Reads a range without the cache, `replayed` or not. Returns 0, -EIO outside, or an error of the disk. */
int device_read(struct ext4_reader *reader, uint64_t offset, void *buffer, size_t length, bool replayed);

/* A block, replayed, borrowed from the cache until the next call. Returns 0 or -errno with a line. */
int device_block(struct ext4_reader *reader, uint64_t block, const uint8_t **data, struct error *err);
void device_forget(struct ext4_reader *reader);

/* Reads and checks the superblock; sets all that follows from it. */
int super_read(struct ext4_reader *reader, struct error *err);

/* Replays the journal into reader->replayed. */
int journal_replay(struct ext4_reader *reader, struct error *err);

/* The plain CRC-32, not reflected, as the first kind of checksums uses it. */
uint32_t jbd2_crc32_be(uint32_t crc, const void *data, size_t length);

/* Copies inode `number` to reader->inode. Returns 0, -EUCLEAN for a number that no inode has, or an error. */
int inode_read(struct ext4_reader *reader, uint32_t number, struct error *err);

static inline struct ext4_inode *inode_fields(const struct ext4_reader *reader)
{
	return (struct ext4_inode *)(void *)reader->inode;
}

static inline uint64_t inode_size(const struct ext4_inode *inode)
{
	return (uint64_t)le32_get(inode->i_size_high) << 32 | le32_get(inode->i_size_lo);
}

/*
 * Appends the parts of an inode that are mapped and written to `extents` (struct tree_extent), up to `size` bytes; neighbours on disk
 * become one. Returns 0 or -errno with a line that names the inode.
 */
int extents_read(struct ext4_reader *reader, uint32_t number, const struct ext4_inode *inode, uint64_t size, struct items *extents,
		 struct error *err);

/* Reads `length` bytes from the start of what the extents hold; holes as zeroes. */
int extents_contents(struct ext4_reader *reader, const struct tree_extent *extents, size_t count, void *buffer, size_t length);

/* ---- a tree under construction ------------------------------------------------------------------------------------------------ */

struct making {
	struct ext4_reader *reader;
	struct complaints *complaints;
	struct items entries, inodes, extents, xattrs;
	struct items strings; /* of 1 byte each */
	struct items numbers; /* uint32_t: of each tree inode, the ext4 inode */
	struct items first_entries; /* uint32_t: of each tree inode, the entry that led to it */
	struct map known; /* ext4 inode number to tree inode */
	struct map xattr_blocks; /* block to the place of its attributes in block_xattrs */
	struct map ea_inodes; /* ext4 inode number to place in strings */
	struct items block_xattrs; /* struct tree_xattr */
	struct items scratch; /* struct tree_xattr, or struct tree_extent: of the inode at hand */
	struct items names; /* struct name, of the directory at hand; see tree.c */
};

/* Appends bytes to the strings. Returns 0, -ENOMEM or -EFBIG with a line. */
int making_string(struct making *making, const void *bytes, size_t length, uint32_t *offset, struct error *err);

/*
 * Adds the inode in reader->inode, number `number`, with its extents and attributes. Returns 0 or -errno with a line that names the
 * inode. What reader->inode holds is undefined afterwards.
 */
int making_inode(struct making *making, uint32_t number, struct error *err);

/* Adds the extended attributes of reader->inode; they become `first` and `count`. */
int making_xattrs(struct making *making, uint32_t number, uint32_t *first, uint32_t *count, struct error *err);

#endif
