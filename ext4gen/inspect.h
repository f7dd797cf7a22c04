/*
 * Where things lie on a planned disk, for whoever shows it. All blocks count from the start of the disk.
 */
#ifndef TRVMM_EXT4GEN_INSPECT_H
#define TRVMM_EXT4GEN_INSPECT_H

#include "ext4gen/ext4gen.h"

struct ext4_region {
	const char *name;
	uint64_t first, end; /* blocks, half open; empty regions occur */
};

/* The regions of the disk, in order and without gaps; the last one is free space. Returns how many. */
#define EXT4_REGIONS_MAX 12
unsigned ext4_plan_regions(const struct ext4_plan *plan, struct ext4_region regions[EXT4_REGIONS_MAX]);

/* Neighbouring blocks of one regular file: an extent on disk. */
struct ext4_run {
	uint32_t tree_inode;
	uint64_t logical; /* block of the file */
	uint64_t first; /* block of the disk */
	uint64_t count;
};

/* All runs of the disk in order of their blocks: number `index`, from 0 on. Returns false behind the last one. */
bool ext4_plan_run(const struct ext4_plan *plan, uint32_t index, struct ext4_run *run);

/* The runs of an inode of the tree: their number, and the first one's index. */
uint32_t ext4_plan_runs_of(const struct ext4_plan *plan, uint32_t tree_inode, uint32_t *index);

/* The inode's own metadata (directory, extent tree, long target, attributes): the number of its blocks, and the first one. */
uint64_t ext4_plan_metadata_of(const struct ext4_plan *plan, uint32_t tree_inode, uint64_t *first);

/* What a block is, as the layers have it; a guest may have made something else of it. */
enum ext4_block_kind {
	EXT4_BLOCK_SUPER,
	EXT4_BLOCK_DESCRIPTORS,
	EXT4_BLOCK_BLOCK_BITMAP,
	EXT4_BLOCK_INODE_BITMAP,
	EXT4_BLOCK_INODE_TABLE,
	EXT4_BLOCK_DIRECTORY,
	EXT4_BLOCK_EXTENTS,
	EXT4_BLOCK_SYMLINK,
	EXT4_BLOCK_XATTRS,
	EXT4_BLOCK_XATTR_VALUE,
	EXT4_BLOCK_JOURNAL_EXTENTS,
	EXT4_BLOCK_JOURNAL,
	EXT4_BLOCK_CONTENTS,
	EXT4_BLOCK_FREE,
};

struct ext4_block_place {
	enum ext4_block_kind kind;
	uint32_t tree_inode; /* whose it is; TREE_NONE: nobody's in the tree */
	uint64_t index; /* number of the block in what it belongs to: region, bitmaps (the group), directory, file, ... */
};

/* `block` lies on the disk. */
struct ext4_block_place ext4_plan_block(const struct ext4_plan *plan, uint64_t block);

/* Whether the inode of the tree is a directory with a hash index. */
bool ext4_plan_is_indexed(const struct ext4_plan *plan, uint32_t tree_inode);

/* The block of the inode table that holds inode number `number` (from 1 on), and the byte in it. */
uint64_t ext4_plan_inode_block(const struct ext4_plan *plan, uint32_t number, uint32_t *byte);

#endif
