/*
 * Planning: from the tree to flat arrays, in one pass over the names and one over the inodes.
 *
 * The tree comes from layers that may be hostile, or from an index file that may be damaged. Everything that the readers later use as an
 * index or a length is checked here, so that a bad tree gives an error, or at worst a file system that the guest finds odd.
 */
#include "ext4gen/plan_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The last block of a file must be countable in 32 bits, and Linux keeps one number free. */
#define FILE_MAX_BYTES ((uint64_t)UINT32_MAX * EXT4_BLOCK_BYTES)

/* The longest symbolic link that Linux reads. */
#define SYMLINK_MAX_BYTES (EXT4_BLOCK_BYTES - 1)

/* ---- look-up -------------------------------------------------------------------------------------------------------------------- */

uint32_t plan_find_object(const struct ext4_plan *plan, uint32_t block)
{
	uint32_t begin = 0, count = plan->object_count;
	while (count > 1) {
		const uint32_t half = count / 2;
		if (plan->objects[begin + half].block <= block)
			begin += half;
		count -= half;
	}
	return begin;
}

uint32_t plan_find_object_of_inode(const struct ext4_plan *plan, uint32_t inode)
{
	uint32_t begin = 0, count = plan->object_count;
	while (count > 1) {
		const uint32_t half = count / 2;
		if (plan->objects[begin + half].inode <= inode)
			begin += half;
		count -= half;
	}
	assert(plan->objects[begin].inode == inode);
	return begin;
}

uint32_t plan_find_run(const struct ext4_plan *plan, uint32_t block)
{
	uint32_t begin = 0, count = plan->run_count;
	while (count > 1) {
		const uint32_t half = count / 2;
		if (plan->runs[begin + half].block <= block)
			begin += half;
		count -= half;
	}
	return begin;
}

uint32_t plan_own_blocks(const struct ext4_plan *plan, uint32_t object)
{
	const uint32_t inode = plan->objects[object].inode;
	const bool attribute_block =
		inode != lost_found_inode(plan) && plan->tree->inodes[inode].xattr_count && xattr_needs_block(plan, inode);
	return plan_object_length(plan, object) - attribute_block;
}

char *plan_inode_path(const struct tree *tree, uint32_t inode, char *out, size_t out_size)
{
	char path[512];
	size_t at = sizeof(path);
	/* From the end, a component for each directory above; what does not fit is left off in front. */
	while (inode != 0) {
		uint32_t e = 1;
		while (e < tree->entry_count && tree->entries[e].inode != inode)
			e++;
		if (e == tree->entry_count || tree->entries[e].name_bytes + 1u > at)
			break;
		at -= tree->entries[e].name_bytes;
		memcpy(path + at, tree->strings + tree->entries[e].name, tree->entries[e].name_bytes);
		path[--at] = '/';
		inode = tree->entries[e].parent;
	}
	return error_quote(out, out_size, path + at, sizeof(path) - at);
}

/* ---- building ------------------------------------------------------------------------------------------------------------------- */

/* What grows while the inodes are passed; blocks are counted in 64 bits and checked at the end of each step. */
struct builder {
	struct ext4_plan *plan;
	const struct tree *tree;
	struct error *err;
	uint32_t run_room, object_room;
};

static int too_large(const struct builder *b)
{
	return error_set(b->err, -EFBIG, "file system: the layers hold more than the largest disk (16 TiB) can");
}

static int damaged(const struct builder *b, const char *what, uint32_t number)
{
	return error_set(b->err, -EINVAL, "file system: the tree is damaged: %s %u", what, number);
}

/* The rules of error.h, with the file's path in front of the words. */
static int refuse(const struct builder *b, int code, uint32_t inode, const char *why)
{
	char path[256];
	return error_set(b->err, code, "file system: '%s': %s", plan_inode_path(b->tree, inode, path, sizeof(path)), why);
}

static int grow(void **array, uint32_t *room, uint32_t used, size_t element_bytes)
{
	if (used < *room)
		return 0;
	const uint64_t larger = (uint64_t)*room + *room / 2 + 16;
	void *moved = larger > UINT32_MAX ? NULL : realloc(*array, larger * element_bytes);
	if (!moved)
		return -ENOMEM;
	*array = moved;
	*room = (uint32_t)larger;
	return 0;
}

static int add_object(struct builder *b, uint32_t inode, uint64_t blocks)
{
	struct ext4_plan *plan = b->plan;
	void *objects = plan->objects;
	if (grow(&objects, &b->object_room, plan->object_count, sizeof(*plan->objects)))
		return -ENOMEM;
	plan->objects = objects;
	plan->objects[plan->object_count++] = (struct plan_object){ plan->object_blocks, inode };
	if (blocks > UINT32_MAX - plan->object_blocks)
		return too_large(b);
	plan->object_blocks += (uint32_t)blocks;
	return 0;
}

static int add_run(struct builder *b, uint32_t inode, uint32_t logical, uint32_t blocks)
{
	struct ext4_plan *plan = b->plan;
	void *runs = plan->runs;
	if (grow(&runs, &b->run_room, plan->run_count, sizeof(*plan->runs)))
		return -ENOMEM;
	plan->runs = runs;
	plan->runs[plan->run_count++] = (struct plan_run){ plan->content_blocks, logical, inode };
	if (blocks > UINT32_MAX - plan->content_blocks)
		return too_large(b);
	plan->content_blocks += blocks;
	return 0;
}

/* Adds blocks [begin, end) of a file, in pieces that one extent can take. */
static int add_runs(struct builder *b, uint32_t inode, uint64_t begin, uint64_t end)
{
	while (begin < end) {
		const uint64_t left = end - begin;
		const uint32_t blocks = left < EXT4_EXTENT_MAX_BLOCKS ? (uint32_t)left : EXT4_EXTENT_MAX_BLOCKS;
		const int rc = add_run(b, inode, (uint32_t)begin, blocks);
		if (rc)
			return rc;
		begin += blocks;
	}
	return 0;
}

static bool extent_is_sane(const struct tree *tree, const struct tree_inode *from, const struct tree_extent *extent, uint64_t file_end)
{
	uint64_t end, source_end;
	return extent->source < tree->source_count && extent->length > 0 && extent->file_offset >= file_end &&
	       !__builtin_add_overflow(extent->file_offset, extent->length, &end) && end <= from->size_bytes &&
	       !__builtin_add_overflow(extent->source_offset, extent->length, &source_end) &&
	       source_end <= tree->sources[extent->source].size_bytes;
}

/*
 * A file's runs: maximal ranges of blocks that extents touch. Extents that meet in a block or at a block's border are one run, wherever
 * their bytes come from.
 */
static int plan_file(struct builder *b, uint32_t inode, uint64_t *own_blocks)
{
	const struct tree_inode *from = &b->tree->inodes[inode];
	if (from->size_bytes > FILE_MAX_BYTES)
		return refuse(b, -EFBIG, inode, "the file is larger than ext4 allows (16 TiB)");
	if (from->extent_count && (from->first_extent > b->tree->extent_count ||
				   from->extent_count > b->tree->extent_count - from->first_extent))
		return damaged(b, "the extents of inode", inode);

	const uint32_t first_run = b->plan->run_count;
	uint64_t begin = 0, end = 0, file_end = 0;
	for (uint32_t i = 0; i < from->extent_count; i++) {
		const struct tree_extent *extent = &b->tree->extents[from->first_extent + i];
		if (!extent_is_sane(b->tree, from, extent, file_end))
			return damaged(b, "extent", from->first_extent + i);
		file_end = extent->file_offset + extent->length;
		const uint64_t first = extent->file_offset / EXT4_BLOCK_BYTES;
		if (first > end) {
			const int rc = add_runs(b, inode, begin, end);
			if (rc)
				return rc;
			begin = first;
		}
		end = (file_end + EXT4_BLOCK_BYTES - 1) / EXT4_BLOCK_BYTES;
	}
	const int rc = add_runs(b, inode, begin, end);
	if (rc)
		return rc;
	b->plan->inodes[inode].first_run = first_run;
	b->plan->inodes[inode].run_count = b->plan->run_count - first_run;
	*own_blocks = extent_tree_blocks(b->plan->run_count - first_run);
	return 0;
}

static int plan_symlink(struct builder *b, uint32_t inode, uint64_t *own_blocks)
{
	const struct tree_inode *from = &b->tree->inodes[inode];
	if (from->size_bytes > SYMLINK_MAX_BYTES)
		return refuse(b, -ENAMETOOLONG, inode, "the target of the symbolic link is longer than 4095 bytes");
	if (from->size_bytes == 0 || from->target > b->tree->string_bytes || from->size_bytes > b->tree->string_bytes - from->target)
		return damaged(b, "the target of inode", inode);
	*own_blocks = from->size_bytes > EXT4_FAST_SYMLINK_MAX;
	return 0;
}

/* Until here plan_inode held the sum of the directory's entries, and the parent plus one. */
static int plan_directory(struct builder *b, uint32_t inode, uint64_t *own_blocks)
{
	struct plan_inode *slot = &b->plan->inodes[inode];
	if (slot->parent == 0)
		return damaged(b, "no name for directory", inode);
	uint32_t blocks;
	const int rc = dir_count_blocks(b->plan, inode, slot->object, &blocks, b->err);
	if (rc)
		return rc;
	slot->object = b->plan->object_count;
	slot->parent--;
	*own_blocks = blocks;
	return 0;
}

static int plan_inode(struct builder *b, uint32_t inode)
{
	const struct tree_inode *from = &b->tree->inodes[inode];
	uint64_t own_blocks = 0;
	int rc = 0;
	if (!S_ISDIR(from->mode) && b->plan->inodes[inode].object)
		return damaged(b, "names below a file, inode", inode);
	if (from->nlink == 0)
		return damaged(b, "no name for inode", inode);
	if (!S_ISDIR(from->mode) && from->nlink > EXT4_LINK_MAX)
		return refuse(b, -EMLINK, inode, "more hard links than ext4 allows (65000)");
	switch (from->mode & S_IFMT) {
	case S_IFREG:
		rc = plan_file(b, inode, &own_blocks);
		break;
	case S_IFDIR:
		rc = plan_directory(b, inode, &own_blocks);
		break;
	case S_IFLNK:
		rc = plan_symlink(b, inode, &own_blocks);
		break;
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		break;
	default:
		return damaged(b, "the type of inode", inode);
	}
	if (rc)
		return rc;
	if (from->xattr_count) {
		bool needs_block;
		rc = xattr_plan(b->plan, inode, &needs_block, b->err);
		if (rc)
			return rc;
		own_blocks += needs_block;
	}
	return own_blocks ? add_object(b, inode, own_blocks) : 0;
}

/*
 * The pass over the names, in the order of the array: what each directory's entries take, and which directory is whose parent. Both are kept
 * where the directory's plan_inode will be.
 */
static int plan_names(struct builder *b)
{
	const struct tree *tree = b->tree;
	struct plan_inode *inodes = b->plan->inodes;
	b->plan->add_lost_found = true;
	inodes[0].parent = 1;
	for (uint32_t i = 1; i < tree->entry_count; i++) {
		const struct tree_entry *e = &tree->entries[i];
		if (e->inode >= tree->inode_count || e->inode == 0 || e->parent >= tree->inode_count || e->name_bytes == 0 ||
		    e->name_bytes > EXT4_NAME_MAX || (uint64_t)e->name + e->name_bytes > tree->string_bytes)
			return damaged(b, "entry", i);
		inodes[e->parent].object += dir_entry_bytes(e->name_bytes);
		if (inodes[e->parent].object > DIR_MAX_BYTES)
			return refuse(b, -EFBIG, e->parent, "the directory has more names than fit in 512 MiB");
		if (S_ISDIR(tree->inodes[e->inode].mode)) {
			if (inodes[e->inode].parent)
				return damaged(b, "two names for directory", e->inode);
			inodes[e->inode].parent = e->parent + 1;
		}
		if (e->parent == 0 && e->name_bytes == LOST_FOUND_NAME_BYTES &&
		    memcmp(tree->strings + e->name, LOST_FOUND_NAME, LOST_FOUND_NAME_BYTES) == 0)
			b->plan->add_lost_found = false;
	}
	if (b->plan->add_lost_found)
		inodes[0].object += dir_entry_bytes(LOST_FOUND_NAME_BYTES);
	return 0;
}

/* The arrays end in an entry that begins where the last one ends, and give back what they do not need. */
static int add_sentinels(struct builder *b)
{
	struct ext4_plan *plan = b->plan;
	void *objects = plan->objects, *runs = plan->runs;
	if (grow(&objects, &b->object_room, plan->object_count, sizeof(*plan->objects)))
		return -ENOMEM;
	plan->objects = objects;
	if (grow(&runs, &b->run_room, plan->run_count, sizeof(*plan->runs)))
		return -ENOMEM;
	plan->runs = runs;
	plan->objects[plan->object_count] = (struct plan_object){ plan->object_blocks, TREE_NONE };
	plan->runs[plan->run_count] = (struct plan_run){ plan->content_blocks, 0, TREE_NONE };
	objects = realloc(plan->objects, (plan->object_count + (size_t)1) * sizeof(*plan->objects));
	if (objects)
		plan->objects = objects;
	runs = realloc(plan->runs, (plan->run_count + (size_t)1) * sizeof(*plan->runs));
	if (runs)
		plan->runs = runs;
	return 0;
}

static int plan_everything(struct builder *b)
{
	const struct tree *tree = b->tree;
	/* Index values up to the count itself are taken by our lost+found, and TREE_NONE by "none". */
	if (tree->inode_count == 0 || tree->entry_count == 0 || !S_ISDIR(tree->inodes[0].mode) || tree->inode_count >= TREE_NONE - 16 ||
	    tree->entry_count >= TREE_NONE - 16)
		return damaged(b, "no root, inode", 0);
	b->plan->inodes = calloc(tree->inode_count, sizeof(*b->plan->inodes));
	/* Nearly always one run for each extent. */
	b->run_room = tree->extent_count < UINT32_MAX ? tree->extent_count + 1 : UINT32_MAX;
	b->plan->runs = malloc(b->run_room * sizeof(*b->plan->runs));
	if (!b->plan->inodes || !b->plan->runs)
		return -ENOMEM;
	int rc = plan_names(b);
	for (uint32_t i = 0; i < tree->inode_count && rc == 0; i++)
		rc = plan_inode(b, i);
	if (rc == 0 && b->plan->add_lost_found)
		rc = add_object(b, lost_found_inode(b->plan), 1);
	b->plan->used_inodes = EXT4_FIRST_INO - 1 + b->plan->add_lost_found + tree->inode_count - 1;
	return rc ? rc : add_sentinels(b);
}

/* ---- identity ------------------------------------------------------------------------------------------------------------------- */

static bool all_zero(const uint8_t *bytes, size_t length)
{
	while (length && bytes[length - 1] == 0)
		length--;
	return length == 0;
}

/* splitmix64's finaliser: every bit of the input changes half of the output's. */
static uint64_t mix(uint64_t value)
{
	value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9u;
	value = (value ^ value >> 27) * 0x94D049BB133111EBu;
	return value ^ value >> 31;
}

/*
 * A UUID that is the same for the same tree and differs between most others. A digest of all names and contents would be stronger and
 * cost more than the rest of planning; nothing depends on it being unique.
 */
static void derive_uuid(const struct ext4_plan *plan, uint8_t *uuid)
{
	const struct tree *tree = plan->tree;
	const uint64_t facts[] = {
		tree->entry_count, tree->inode_count, tree->extent_count, tree->xattr_count, tree->string_bytes,
		(uint64_t)tree->inodes[0].mtime_s, tree->inodes[0].mtime_ns, plan->object_blocks, plan->content_blocks,
		plan->layout.block_count,
	};
	uint64_t state[2] = { 0x7472766D6D, 0x65787434 };
	for (size_t i = 0; i < sizeof(facts) / sizeof(facts[0]); i++) {
		state[0] = mix(state[0] + facts[i]);
		state[1] = mix(state[1] ^ state[0]);
	}
	for (size_t i = 0; i < 16; i++)
		uuid[i] = (uint8_t)(state[i / 8] >> i % 8 * 8);
	uuid[6] = (uint8_t)((uuid[6] & 0x0F) | 0x80); /* RFC 9562: version 8, a maker's own method */
	uuid[8] = (uint8_t)((uuid[8] & 0x3F) | 0x80);
}

/* ---- the public functions ------------------------------------------------------------------------------------------------------- */

int ext4_plan_build(const struct tree *tree, const struct ext4_options *options, struct ext4_plan **plan, struct error *err)
{
	struct builder b = { .tree = tree, .err = err, .plan = calloc(1, sizeof(*b.plan)) };
	if (!b.plan)
		return error_set(err, -ENOMEM, "file system: no memory for the plan");
	b.plan->tree = tree;
	int rc = plan_everything(&b);
	if (rc == 0)
		rc = plan_layout_choose(b.plan, options, err);
	if (rc) {
		if (rc == -ENOMEM)
			error_set(err, rc, "file system: no memory for the plan of %u files", tree->inode_count);
		ext4_plan_destroy(b.plan);
		return rc;
	}
	memcpy(b.plan->label, options->label, sizeof(b.plan->label));
	/* A seed of zeroes is one too: it stands for the hash's usual initial state. */
	memcpy(b.plan->hash_seed, options->hash_seed, sizeof(b.plan->hash_seed));
	memcpy(b.plan->uuid, options->uuid, sizeof(b.plan->uuid));
	if (all_zero(b.plan->uuid, sizeof(b.plan->uuid)))
		derive_uuid(b.plan, b.plan->uuid);
	*plan = b.plan;
	return 0;
}

void ext4_plan_destroy(struct ext4_plan *plan)
{
	if (!plan)
		return;
	free(plan->inodes);
	free(plan->runs);
	free(plan->objects);
	free(plan);
}

uint64_t ext4_plan_size_bytes(const struct ext4_plan *plan)
{
	return (uint64_t)plan->layout.block_count * EXT4_BLOCK_BYTES;
}
