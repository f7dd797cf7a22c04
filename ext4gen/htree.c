/*
 * Directories with a hash index ("htree"), for those of more than a few blocks.
 *
 *   logical block   0      1 .. N                  behind
 *                   root   nodes (if the root      leaves: entries in order of their hash, each leaf a range of hashes
 *                          is too small)
 *
 * How many leaves there are must be known when the disk is planned; which name lies in which leaf only when somebody looks.
 * Hashing and sorting all large directories would take longer than planning all the rest, and a run seldom looks into more than
 * one or two of them. So the plan provides as many leaves as are enough for any order, and a directory is sorted when its first
 * block is read.
 */
#include "ext4gen/plan_internal.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* The order of one directory. */
struct htree {
	uint32_t inode;
	uint32_t entry_count, leaf_count;
	uint64_t first_key;       /* in keys */
	uint64_t first_boundary;  /* in boundaries; leaf_count + 1 of them */
	uint64_t bytes;           /* of all entries */
	atomic_bool sorted;
};

struct htrees {
	struct htree *trees;      /* owned; ascending by inode */
	uint32_t count, room;
	uint64_t key_count, boundary_count;
	/* Reserved by the plan, filled by sort_directory(): untouched memory costs nothing. */
	uint64_t *keys;           /* owned; hash << 32 | entry, ascending within a directory */
	uint32_t *boundaries;     /* owned; the first key of each leaf, from the directory's first */
	pthread_mutex_t lock;     /* of sorting; a directory that is marked sorted does not change any more */
};

struct htrees *htrees_create(void)
{
	struct htrees *all = calloc(1, sizeof(*all));
	if (all)
		pthread_mutex_init(&all->lock, NULL);
	return all;
}

void htrees_destroy(struct htrees *all)
{
	if (!all)
		return;
	pthread_mutex_destroy(&all->lock);
	free(all->trees);
	free(all->keys);
	free(all->boundaries);
	free(all);
}

/* ---- planning ---------------------------------------------------------------------------------------------------------------- */

/* Entries of the root and of a node; a checksum tail takes the place of one. */
static uint32_t root_limit(const struct ext4_plan *plan)
{
	return EXT4_DX_ROOT_LIMIT - plan->metadata_csum;
}

static uint32_t node_limit(const struct ext4_plan *plan)
{
	return EXT4_DX_NODE_LIMIT - plan->metadata_csum;
}

static uint32_t node_count(const struct ext4_plan *plan, uint32_t leaves)
{
	return leaves <= root_limit(plan) ? 0 : (leaves + node_limit(plan) - 1) / node_limit(plan);
}

int htrees_add(const struct ext4_plan *plan, uint32_t inode, uint32_t entries, uint64_t bytes, uint32_t longest, uint32_t *blocks)
{
	struct htrees *all = plan->htrees;
	if (all->count == all->room) {
		const uint32_t room = all->room * 2 + 8;
		struct htree *trees = reallocarray(all->trees, room, sizeof(*trees));
		if (!trees)
			return -ENOMEM;
		all->trees = trees;
		all->room = room;
	}
	/*
	 * A leaf that is filled until the next entry does not fit has less than `longest` bytes left; entries are multiples of
	 * four. So each of `leaves` can be asked to take its share of the bytes, and the last one has room for what remains
	 * (fill_leaves()).
	 */
	const uint32_t leaf_bytes = dir_block_room(plan) - longest + 4;
	const uint32_t leaves = (uint32_t)((bytes + leaf_bytes - 1) / leaf_bytes);
	*blocks = 1 + node_count(plan, leaves) + leaves;
	all->trees[all->count++] = (struct htree){
		.inode = inode,
		.entry_count = entries,
		.leaf_count = leaves,
		.first_key = all->key_count,
		.first_boundary = all->boundary_count,
		.bytes = bytes,
	};
	all->key_count += entries;
	all->boundary_count += leaves + 1;
	return 0;
}

int htrees_reserve(struct htrees *all)
{
	if (all->count == 0)
		return 0;
	all->keys = calloc(all->key_count, sizeof(*all->keys));
	all->boundaries = calloc(all->boundary_count, sizeof(*all->boundaries));
	return all->keys && all->boundaries ? 0 : -ENOMEM;
}

static struct htree *find_htree(const struct ext4_plan *plan, uint32_t inode)
{
	struct htrees *all = plan->htrees;
	uint32_t begin = 0, end = all->count;
	while (begin < end) {
		const uint32_t middle = begin + (end - begin) / 2;
		if (all->trees[middle].inode < inode)
			begin = middle + 1;
		else
			end = middle;
	}
	return begin < all->count && all->trees[begin].inode == inode ? &all->trees[begin] : NULL;
}

bool dir_is_indexed(const struct ext4_plan *plan, uint32_t inode)
{
	return find_htree(plan, inode) != NULL;
}

/* ---- sorting ----------------------------------------------------------------------------------------------------------------- */

static int compare_keys(const void *a, const void *b)
{
	uint64_t x, y;
	memcpy(&x, a, sizeof(x));
	memcpy(&y, b, sizeof(y));
	return (x > y) - (x < y);
}

static uint32_t hash_of_key(uint64_t key)
{
	return (uint32_t)(key >> 32);
}

/* Gives each leaf its share of what is left, rounded up to whole entries, so none is empty and the last one is not overfull. */
static void fill_leaves(const struct ext4_plan *plan, const struct htree *tree)
{
	const uint64_t *keys = plan->htrees->keys + tree->first_key;
	uint32_t *boundaries = plan->htrees->boundaries + tree->first_boundary;
	uint64_t left = tree->bytes;
	uint32_t at = 0;
	for (uint32_t leaf = 0; leaf < tree->leaf_count; leaf++) {
		const uint64_t leaves_left = tree->leaf_count - leaf;
		uint64_t used = 0;
		boundaries[leaf] = at;
		while (at < tree->entry_count && used * leaves_left < left)
			used += dir_entry_bytes(dir_name_of(plan, (uint32_t)keys[at++]).length);
		left -= used;
	}
	boundaries[tree->leaf_count] = tree->entry_count;
}

static void sort_directory(const struct ext4_plan *plan, struct htree *tree)
{
	uint64_t *keys = plan->htrees->keys + tree->first_key;
	uint32_t count = 0;
	for (uint32_t e = dir_first_entry(plan, tree->inode); e != TREE_NONE && count < tree->entry_count;
	     e = dir_next_entry(plan, tree->inode, e)) {
		const struct dir_name name = dir_name_of(plan, e);
		keys[count++] = (uint64_t)dir_hash(plan->hash_seed, name.bytes, name.length) << 32 | e;
	}
	qsort(keys, count, sizeof(*keys), compare_keys);
	fill_leaves(plan, tree);
}

/* Makes sure that the directory is sorted. Several threads may come at once. */
static void prepare(const struct ext4_plan *plan, struct htree *tree)
{
	if (atomic_load_explicit(&tree->sorted, memory_order_acquire))
		return;
	pthread_mutex_lock(&plan->htrees->lock);
	if (!atomic_load_explicit(&tree->sorted, memory_order_relaxed)) {
		sort_directory(plan, tree);
		atomic_store_explicit(&tree->sorted, true, memory_order_release);
	}
	pthread_mutex_unlock(&plan->htrees->lock);
}

/* ---- blocks ------------------------------------------------------------------------------------------------------------------ */

/* The hash from which on names are in `leaf`; odd when names of this very hash are in the leaf before, too. */
static uint32_t leaf_hash(const struct ext4_plan *plan, const struct htree *tree, uint32_t leaf)
{
	if (leaf == 0)
		return 0;
	const uint64_t *keys = plan->htrees->keys + tree->first_key;
	const uint32_t first = plan->htrees->boundaries[tree->first_boundary + leaf];
	const uint32_t hash = hash_of_key(keys[first]);
	return hash | (hash_of_key(keys[first - 1]) == hash);
}

/*
 * Writes index entries for `count` blocks from logical block `first_block` on, the i-th of which begins with leaf first_leaf +
 * i * span. The first has limit and count in place of its hash.
 */
static void put_index(const struct ext4_plan *plan, const struct htree *tree, uint8_t *at, uint32_t limit, uint32_t count,
		      uint32_t first_block, uint32_t first_leaf, uint32_t span)
{
	for (uint32_t i = 0; i < count; i++) {
		const struct ext4_dx_entry entry = {
			.hash = le32_make(leaf_hash(plan, tree, first_leaf + i * span)),
			.block = le32_make(first_block + i),
		};
		memcpy(at + i * sizeof(entry), &entry, sizeof(entry));
	}
	const struct ext4_dx_countlimit countlimit = { le16_make((uint16_t)limit), le16_make((uint16_t)count) };
	memcpy(at, &countlimit, sizeof(countlimit));
}

/* The checksum of an index block goes over everything up to the last entry in use, and over the tail with 0 in its place. */
static void put_index_tail(const struct ext4_plan *plan, const struct htree *tree, uint8_t *block, uint32_t entries_end)
{
	if (!plan->metadata_csum)
		return;
	struct ext4_dx_tail tail = { 0 };
	uint32_t crc = crc32c(csum_inode_seed(plan, tree->inode), block, entries_end);
	crc = crc32c(crc, &tail, sizeof(tail));
	tail.dt_checksum = le32_make(crc);
	memcpy(block + EXT4_BLOCK_BYTES - sizeof(tail), &tail, sizeof(tail));
}

static void fill_root(const struct ext4_plan *plan, const struct htree *tree, uint8_t *block)
{
	const uint32_t nodes = node_count(plan, tree->leaf_count);
	const struct ext4_dx_root_info info = {
		.hash_version = EXT4_HASH_HALF_MD4,
		.info_length = sizeof(info),
		.indirect_levels = nodes != 0,
	};
	const uint32_t count = nodes ? nodes : tree->leaf_count;
	put_dir_dots(plan, tree->inode, EXT4_BLOCK_BYTES - dir_entry_bytes(1), block);
	memcpy(block + DIR_DOTS_BYTES, &info, sizeof(info));
	put_index(plan, tree, block + EXT4_DX_ROOT_ENTRIES_OFFSET, root_limit(plan), count, 1, 0, nodes ? node_limit(plan) : 1);
	put_index_tail(plan, tree, block, EXT4_DX_ROOT_ENTRIES_OFFSET + count * (uint32_t)sizeof(struct ext4_dx_entry));
}

static void fill_node(const struct ext4_plan *plan, const struct htree *tree, uint32_t node, uint8_t *block)
{
	const uint32_t first_leaf = node * node_limit(plan);
	const uint32_t left = tree->leaf_count - first_leaf;
	const uint32_t count = left < node_limit(plan) ? left : node_limit(plan);
	const uint32_t first_block = 1 + node_count(plan, tree->leaf_count) + first_leaf;
	/* One unused entry over the whole block, for whoever does not know of the index. */
	const struct ext4_dir_entry unused = { .rec_len = le16_make(EXT4_BLOCK_BYTES) };
	memcpy(block, &unused, sizeof(unused));
	put_index(plan, tree, block + EXT4_DX_NODE_ENTRIES_OFFSET, node_limit(plan), count, first_block, first_leaf, 1);
	put_index_tail(plan, tree, block, EXT4_DX_NODE_ENTRIES_OFFSET + count * (uint32_t)sizeof(struct ext4_dx_entry));
}

static void fill_leaf(const struct ext4_plan *plan, const struct htree *tree, uint32_t leaf, uint8_t *block)
{
	const uint64_t *keys = plan->htrees->keys + tree->first_key;
	const uint32_t *boundaries = plan->htrees->boundaries + tree->first_boundary;
	uint32_t used = 0, last = 0;
	for (uint32_t i = boundaries[leaf]; i < boundaries[leaf + 1]; i++) {
		const struct dir_name name = dir_name_of(plan, (uint32_t)keys[i]);
		const uint32_t length = dir_entry_bytes(name.length);
		assert(used + length <= dir_block_room(plan));
		last = used;
		used += put_dir_entry(plan, block + used, &name, length);
	}
	finish_dir_block(plan, tree->inode, block, last);
}

bool fill_htree_block(const struct ext4_plan *plan, uint32_t inode, uint32_t index, uint8_t *block)
{
	struct htree *tree = find_htree(plan, inode);
	if (!tree)
		return false;
	prepare(plan, tree);
	const uint32_t nodes = node_count(plan, tree->leaf_count);
	if (index == 0)
		fill_root(plan, tree, block);
	else if (index <= nodes)
		fill_node(plan, tree, index - 1, block);
	else
		fill_leaf(plan, tree, index - 1 - nodes, block);
	return true;
}
