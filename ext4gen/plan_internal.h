/*
 * The plan, as the files of this folder share it. Nobody else includes this.
 *
 * A plan is flat arrays beside the tree, all in order of the tree's inodes:
 *
 *   inodes[k]    4 bytes for each inode: what cannot be looked up in another way
 *   runs[]       file contents: block runs of the contents region; a run is exactly one extent on disk
 *   batches[]    one for each RUNS_PER_BATCH runs: where a look-up of a block begins, and what it may know without the inode
 *   objects[]    an inode's own metadata blocks (directory, extent tree, long symlink target, attributes): one entry for each inode
 *                that has any
 *   htrees       directories with a hash index (htree.c)
 *   values[]     attribute values with an inode of their own (xattr_value.c), a few if any
 *
 * Blocks in runs and objects count from the start of their region, so the size of the disk does not touch them. Both arrays
 * ascend by block as well as by inode and end in a sentinel: what is looked up is found by binary search, and a length is a
 * difference.
 */
#ifndef TRVMM_EXT4GEN_PLAN_INTERNAL_H
#define TRVMM_EXT4GEN_PLAN_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "base/crc32c.h"
#include "base/error.h"
#include "ext4gen/ext4_disk.h"
#include "ext4gen/ext4gen.h"
#include "layers/tree.h"

union plan_inode {
	uint32_t parent;    /* directories: tree inode */
	uint32_t first_run; /* regular files; as many runs are theirs as follow with their number */
};

/* Its length is the next run's block minus its own, at most EXT4_EXTENT_MAX_BLOCKS. */
struct plan_run {
	uint32_t block;   /* from the start of the contents region */
	uint32_t logical; /* block of the file */
	uint32_t inode;
};

/*
 * Reads of a few blocks at random are mostly waiting for memory: so few of these that they stay near lead to runs and extents that can be
 * fetched at once, and nearly always the inode is not needed.
 */
struct plan_batch {
	uint32_t block;   /* of its first run */
	uint32_t extent;  /* of the tree: its runs are all of this extent and those that follow it, one each; TREE_NONE: they are not */
};

#define RUNS_PER_BATCH 8u

struct plan_object {
	uint32_t block;   /* from the start of the objects region */
	uint32_t inode;   /* tree inode, or lost_found_inode() */
};

/* A value of an extended attribute that has an inode of its own: number k has the index value_inode(plan, k). */
struct plan_value {
	uint32_t inode; /* tree inode that has the attribute */
	uint32_t xattr; /* of the tree */
};

/* Where the regions lie; all in blocks from the start of the disk. Regions are adjacent and end where the next begins. */
struct plan_layout {
	uint32_t block_count;
	uint32_t group_count;
	uint32_t inodes_per_group; /* a multiple of EXT4_INODES_PER_BLOCK: the inode tables are one array on disk */
	uint32_t inode_count;
	uint32_t descriptors;      /* = 1, behind the superblock's block */
	uint32_t block_bitmaps;
	uint32_t inode_bitmaps;
	uint32_t inode_tables;
	uint32_t objects;
	uint32_t journal;          /* its extent tree, then itself; empty without a journal */
	uint32_t contents;
	uint32_t free;             /* first block that nothing uses; all behind it is free */
};

struct ext4_plan {
	const struct tree *tree;    /* borrowed */
	union plan_inode *inodes;   /* owned; tree->inode_count */
	struct plan_run *runs;      /* owned; run_count and a sentinel */
	struct plan_batch *batches; /* owned; run_count / RUNS_PER_BATCH, rounded up */
	struct plan_object *objects;/* owned; object_count and a sentinel */
	struct htrees *htrees;      /* owned; directories with an index */
	struct plan_value *values;  /* owned; ascending by inode, then xattr */
	uint32_t value_count, value_room;
	uint32_t run_count, object_count;
	uint32_t object_blocks, content_blocks; /* in all */
	uint32_t journal_blocks;    /* of the journal itself; 0: none */
	uint32_t used_inodes;       /* numbers 1 to this are in use, without gap */
	bool add_lost_found;        /* the tree has none: number 11 is ours */
	struct plan_layout layout;
	uint8_t uuid[16];
	uint8_t hash_seed[16];
	char label[16];
	bool metadata_csum;
	uint32_t csum_seed;         /* the UUID's checksum, from which all others start: crc32c, or crc16 without metadata_csum */
};

/* ---- plan.c ------------------------------------------------------------------------------------------------------------------ */

/* The index that stands for our own lost+found among the tree's inodes, and among its entries. */
static inline uint32_t lost_found_inode(const struct ext4_plan *plan)
{
	return plan->tree->inode_count;
}

/* The same for the journal, which has no name and no object. */
static inline uint32_t journal_inode(const struct ext4_plan *plan)
{
	return plan->tree->inode_count + 1;
}

/* And for value number k. These are the last; what is below tree->inode_count is the tree's. */
static inline uint32_t value_inode(const struct ext4_plan *plan, uint32_t k)
{
	return plan->tree->inode_count + 2 + k;
}

static inline bool is_value_inode(const struct ext4_plan *plan, uint32_t inode)
{
	return inode >= value_inode(plan, 0) && inode < value_inode(plan, plan->value_count);
}

static inline uint32_t lost_found_entry(const struct ext4_plan *plan)
{
	return plan->tree->entry_count;
}

/*
 * Writes the path of the first entry that names `inode`, quoted for printing, to `out`; for error messages only (slow). Returns
 * `out`.
 */
char *plan_inode_path(const struct tree *tree, uint32_t inode, char *out, size_t out_size);

/* The last object that starts at or before `block` (of the objects region). */
uint32_t plan_find_object(const struct ext4_plan *plan, uint32_t block);

/* The object of `inode`, which must have one. */
uint32_t plan_find_object_of_inode(const struct ext4_plan *plan, uint32_t inode);

/* The last run that starts at or before `block` (of the contents region). */
uint32_t plan_find_run(const struct ext4_plan *plan, uint32_t block);

/* The tree's extents of the file that a run belongs to: all of them, or the one that makes the run. Returns how many. */
uint32_t plan_run_extents(const struct ext4_plan *plan, uint32_t run, const struct tree_extent **extents);

/* The number of runs of a regular file. */
uint32_t plan_run_count(const struct ext4_plan *plan, uint32_t inode);

static inline uint32_t plan_object_length(const struct ext4_plan *plan, uint32_t object)
{
	return plan->objects[object + 1].block - plan->objects[object].block;
}

/* The same without the attribute block, which is the last one. */
uint32_t plan_own_blocks(const struct ext4_plan *plan, uint32_t object);

static inline uint32_t plan_run_length(const struct ext4_plan *plan, uint32_t run)
{
	return plan->runs[run + 1].block - plan->runs[run].block;
}

/* ---- build.c ----------------------------------------------------------------------------------------------------------------- */

/*
 * Fills the plan from plan->tree: everything but the layout and the identity. Returns 0, -ENOMEM (err not set), or another
 * error (err).
 */
int plan_fill(struct ext4_plan *plan, struct error *err);

/* ---- layout.c ---------------------------------------------------------------------------------------------------------------- */

/* Chooses the size of the disk and places the regions. Returns 0, -ENOSPC, -EINVAL or -EFBIG (err). */
int plan_layout_choose(struct ext4_plan *plan, const struct ext4_options *options, struct error *err);

/* Used blocks and used inodes of a group, and how many of each it has. */
struct group_usage {
	uint32_t blocks, used_blocks, used_inodes;
};
struct group_usage plan_group_usage(const struct ext4_plan *plan, uint32_t group);

/* ---- group.c: what describes the disk and its groups ------------------------------------------------------------------------- */

/* Each fills one block of EXT4_BLOCK_BYTES; `index` counts blocks from the start of the region. */
void fill_super_block(const struct ext4_plan *plan, uint8_t *block);
void fill_descriptors(const struct ext4_plan *plan, uint32_t index, uint8_t *block);
void fill_block_bitmap(const struct ext4_plan *plan, uint32_t group, uint8_t *block);
void fill_inode_bitmap(const struct ext4_plan *plan, uint32_t group, uint8_t *block);

/* ---- inode.c ----------------------------------------------------------------------------------------------------------------- */

void fill_inode_table(const struct ext4_plan *plan, uint32_t index, uint8_t *block);

/* The number on disk of a tree inode or of lost_found_inode(). */
uint32_t plan_inode_number(const struct ext4_plan *plan, uint32_t inode);

/* ---- journal.c --------------------------------------------------------------------------------------------------------------- */

/* Checks the options that concern the journal. Returns 0 or -EINVAL (err). */
int journal_check_options(const struct ext4_options *options, struct error *err);

/* Blocks of the journal of a disk of `disk_blocks`; 0 without one. Does not fall when the disk grows. */
uint32_t journal_choose_blocks(const struct ext4_options *options, uint64_t disk_blocks);

/* Blocks in front of it that its extent tree takes. */
uint32_t journal_tree_blocks(uint32_t journal_blocks);

/* Its inode, and what the superblock says of it. */
void put_journal_inode(const struct ext4_plan *plan, struct ext4_inode *disk);
void put_journal_fields(const struct ext4_plan *plan, struct ext4_super_block *sb);

/* Block `index` of the region: extent tree, journal superblock, or zeroes. */
void fill_journal_block(const struct ext4_plan *plan, uint32_t index, uint8_t *block);

/* ---- extent.c ---------------------------------------------------------------------------------------------------------------- */

/* Blocks that the extent tree of a file with `count` extents takes outside the inode. */
uint64_t extent_tree_blocks(uint64_t count);

/*
 * The root in the inode's i_block (60 bytes, zeroed before), and block `index` of the tree outside. `inode` is a regular file,
 * directory or symlink. fill_runs_root() does the same for a file whose runs are known and all fit in the inode: that is most
 * of all inodes.
 */
void fill_extent_root(const struct ext4_plan *plan, uint32_t inode, uint8_t *i_block);
void fill_runs_root(const struct ext4_plan *plan, const struct plan_run *runs, uint32_t count, uint8_t *i_block);
void fill_extent_block(const struct ext4_plan *plan, uint32_t inode, uint32_t index, uint8_t *block);

/* ---- dir.c ------------------------------------------------------------------------------------------------------------------- */

/* Bytes of the entry of a name: rounded up to 4. */
static inline uint32_t dir_entry_bytes(uint32_t name_bytes)
{
	return ((uint32_t)sizeof(struct ext4_dir_entry) + name_bytes + 3) & ~3u;
}

/* The largest directory: what four extents in the inode reach, 512 MiB. (Linux' own limit without large_dir is 2 GiB.) */
#define DIR_MAX_BYTES (4u * EXT4_EXTENT_MAX_BLOCKS * EXT4_BLOCK_BYTES)

/* "." and "..", which begin every directory. */
#define DIR_DOTS_BYTES 24u

/*
 * Counts the blocks of directory `inode`, whose entries take `bytes` in all without "." and "..". Returns 0, or -EINVAL when
 * the tree is damaged, -EFBIG when the directory is larger than ext4 allows (err).
 */
int dir_count_blocks(struct ext4_plan *plan, uint32_t inode, uint32_t bytes, uint32_t *blocks, struct error *err);

/* A name in a directory: bytes (borrowed, not terminated), and the tree inode or lost_found_inode() that it names. */
struct dir_name {
	const char *bytes;
	uint32_t length;
	uint32_t inode;
};

#define LOST_FOUND_NAME "lost+found"
#define LOST_FOUND_NAME_BYTES 10u

/* The entries of a directory in the tree's order, our own lost+found behind the others; TREE_NONE at the end. */
uint32_t dir_first_entry(const struct ext4_plan *plan, uint32_t inode);
uint32_t dir_next_entry(const struct ext4_plan *plan, uint32_t inode, uint32_t entry);
struct dir_name dir_name_of(const struct ext4_plan *plan, uint32_t entry);

/* Write an entry of `rec_len` bytes; "." and ".."; both return the bytes used. */
uint32_t put_dir_entry(const struct ext4_plan *plan, uint8_t *at, const struct dir_name *name, uint32_t rec_len);
uint32_t put_dir_dots(const struct ext4_plan *plan, uint32_t inode, uint32_t dotdot_rec_len, uint8_t *block);

/* Bytes of a directory block that entries can have: with metadata_csum the last 12 are the tail. */
static inline uint32_t dir_block_room(const struct ext4_plan *plan)
{
	return EXT4_BLOCK_BYTES - (plan->metadata_csum ? (uint32_t)sizeof(struct ext4_dir_entry_tail) : 0);
}

/* Lengthens the entry that begins at byte `last` so that entries fill the block of directory `inode`; adds the tail. */
void finish_dir_block(const struct ext4_plan *plan, uint32_t inode, uint8_t *block, uint32_t last);

/* Block `index` of directory `inode`. */
void fill_dir_block(const struct ext4_plan *plan, uint32_t inode, uint32_t index, uint8_t *block);

/* ---- htree.c, dirhash.c ------------------------------------------------------------------------------------------------------ */

/* The directories that have an index. NULL: no memory. */
struct htrees *htrees_create(void);
void htrees_destroy(struct htrees *all);

/*
 * Adds a directory, in ascending order of inodes: the number of its entries, the bytes of all and of the longest. Tells the
 * number of its blocks, index included. Returns 0 or -ENOMEM.
 */
int htrees_add(const struct ext4_plan *plan, uint32_t inode, uint32_t entries, uint64_t bytes, uint32_t longest, uint32_t *blocks);

/* Takes the memory for all that were added. Returns 0 or -ENOMEM. */
int htrees_reserve(struct htrees *all);

bool dir_is_indexed(const struct ext4_plan *plan, uint32_t inode);

/*
 * Fills block `index` of an indexed directory; `block` is zeroed before. Returns false, and nothing is done, for any other
 * directory.
 */
bool fill_htree_block(const struct ext4_plan *plan, uint32_t inode, uint32_t index, uint8_t *block);

/* The hash of a name, even and below 0xFFFFFFFE. A seed of zeroes stands for the algorithm's own initial state. */
uint32_t dir_hash(const uint8_t seed[16], const char *name, uint32_t length);

/* ---- xattr.c ----------------------------------------------------------------------------------------------------------------- */

/*
 * Checks the attributes of `inode`, tells whether they take a block, and adds those with a value that takes an inode to
 * plan->values. Returns 0, -EINVAL, -E2BIG (err), or -ENOMEM.
 */
int xattr_plan(struct ext4_plan *plan, uint32_t inode, bool *needs_block, struct error *err);

/* Whether a block is needed, for an inode that xattr_plan() has seen. */
bool xattr_needs_block(const struct ext4_plan *plan, uint32_t inode);

/* What lies in the inode behind its fields (sizeof ext4_inode.i_xattr bytes, zeroed before), and the block. */
void fill_xattr_inode(const struct ext4_plan *plan, uint32_t inode, uint8_t *area);
void fill_xattr_block(const struct ext4_plan *plan, uint32_t inode, uint32_t block_number, uint8_t *block);

/* ---- xattr_value.c: values with an inode of their own (feature ea_inode) ------------------------------------------------------ */

/* Adds a value, in ascending order of inodes and attributes. Returns 0 or -ENOMEM. */
int values_add(struct ext4_plan *plan, uint32_t inode, uint32_t xattr);

/* The first value of `inode`, or of the next inode that has one. */
uint32_t values_first(const struct ext4_plan *plan, uint32_t inode);

/* Blocks of the value; of all values of an inode. */
uint32_t value_blocks(const struct ext4_plan *plan, uint32_t k);
uint32_t values_blocks_of(const struct ext4_plan *plan, uint32_t inode);

/* The checksum of the value that is kept in its inode, and goes into the hash of the attribute. */
uint32_t value_hash(const struct ext4_plan *plan, uint32_t k);

/* Its inode but for the times, which are none, and what follows from the number of blocks; block `index` of its contents. */
void put_value_inode(const struct ext4_plan *plan, uint32_t k, struct ext4_inode *disk);
void fill_value_block(const struct ext4_plan *plan, uint32_t k, uint32_t index, uint8_t *block);

/* The seed of checksums over what belongs to an inode: its number and generation (always 0 here) go in first. */
uint32_t csum_inode_seed(const struct ext4_plan *plan, uint32_t inode);

/* ---- crc16.c ----------------------------------------------------------------------------------------------------------------- */

/* CRC-16/ARC (polynomial 0x8005, reflected) as in the kernel's lib/crc16.c; `crc` is the value so far. */
uint16_t crc16(uint16_t crc, const void *data, size_t length);

#endif
