/* The plan as a whole: its life, its identity, and look-ups in it. build.c fills it, layout.c places it on the disk. */
#include "ext4gen/plan_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- look-up ----------------------------------------------------------------------------------------------------------------- */

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

/* The last batch that starts at or before `block`. */
static uint32_t find_batch(const struct ext4_plan *plan, uint32_t block)
{
	const struct plan_batch *begin = plan->batches;
	uint32_t count = (plan->run_count + RUNS_PER_BATCH - 1) / RUNS_PER_BATCH;
	while (count > 1) {
		const uint32_t half = count / 2;
		begin = begin[half].block <= block ? begin + half : begin;
		count -= half;
	}
	return (uint32_t)(begin - plan->batches);
}

uint32_t plan_find_run(const struct ext4_plan *plan, uint32_t block)
{
	const uint32_t batch = find_batch(plan, block), first = batch * RUNS_PER_BATCH;
	const struct plan_run *runs = plan->runs + first;
	const uint32_t left = plan->run_count - first, count = left < RUNS_PER_BATCH ? left : RUNS_PER_BATCH;
	/* Whichever run it is, its extent is wanted next: to be fetched while the runs are. */
	if (plan->batches[batch].extent != TREE_NONE) {
		const struct tree_extent *extents = plan->tree->extents + plan->batches[batch].extent;
		for (uint32_t i = 0; i < count; i += 2)
			__builtin_prefetch(extents + i);
	}
	uint32_t run = first;
	for (uint32_t i = 1; i < count; i++)
		run += runs[i].block <= block;
	return run;
}

uint32_t plan_run_extents(const struct ext4_plan *plan, uint32_t run, const struct tree_extent **extents)
{
	const struct plan_batch *batch = &plan->batches[run / RUNS_PER_BATCH];
	if (batch->extent != TREE_NONE) {
		*extents = plan->tree->extents + batch->extent + run % RUNS_PER_BATCH;
		return 1;
	}
	const struct tree_inode *inode = &plan->tree->inodes[plan->runs[run].inode];
	*extents = plan->tree->extents + inode->first_extent;
	return inode->extent_count;
}

uint32_t plan_run_count(const struct ext4_plan *plan, uint32_t inode)
{
	const uint32_t first = plan->inodes[inode].first_run;
	uint32_t begin = first, end = plan->run_count;
	/* Nearly always it is one. */
	if (first < end && plan->runs[first].inode == inode && plan->runs[first + 1].inode != inode)
		return 1;
	while (begin < end) {
		const uint32_t middle = begin + (end - begin) / 2;
		if (plan->runs[middle].inode <= inode)
			begin = middle + 1;
		else
			end = middle;
	}
	return begin - first;
}

uint32_t plan_own_blocks(const struct ext4_plan *plan, uint32_t object)
{
	const uint32_t inode = plan->objects[object].inode;
	const bool attribute_block =
		inode < plan->tree->inode_count && plan->tree->inodes[inode].xattr_count && xattr_needs_block(plan, inode);
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

/* ---- identity ---------------------------------------------------------------------------------------------------------------- */

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

static void spell(const uint64_t words[2], uint8_t bytes[16])
{
	for (size_t i = 0; i < 16; i++)
		bytes[i] = (uint8_t)(words[i / 8] >> i % 8 * 8);
}

/* Not of the disk's size: a tree is listed in the same order whatever disk it is on. */
static void derive_hash_seed(const struct tree *tree, uint8_t *seed)
{
	const uint64_t words[2] = { mix(tree->checksum), mix(~tree->checksum) };
	spell(words, seed);
}

/*
 * A UUID that is the same for the same tree, on every machine, and another one for every other: from the checksum of all names and
 * attributes. Where contents lie is not in it, so an image in another packing is the same disk; and to read them would take longer than
 * all of the start.
 */
static void derive_uuid(const struct ext4_plan *plan, uint8_t *uuid)
{
	const struct tree *tree = plan->tree;
	const uint64_t facts[] = {
		tree->entry_count, tree->inode_count, tree->extent_count, tree->xattr_count, tree->string_bytes,
		(uint64_t)tree->inodes[0].mtime_s, tree->inodes[0].mtime_ns, plan->object_blocks, plan->content_blocks,
		plan->layout.block_count,
	};
	uint64_t state[2] = { 0x7472766D6D, 0x65787434 ^ tree->checksum };
	for (size_t i = 0; i < sizeof(facts) / sizeof(facts[0]); i++) {
		state[0] = mix(state[0] + facts[i]);
		state[1] = mix(state[1] ^ state[0]);
	}
	spell(state, uuid);
	uuid[6] = (uint8_t)((uuid[6] & 0x0F) | 0x80); /* RFC 9562: version 8, a maker's own method */
	uuid[8] = (uint8_t)((uuid[8] & 0x3F) | 0x80);
}

/* ---- the public functions ---------------------------------------------------------------------------------------------------- */

int ext4_plan_build(const struct tree *tree, const struct ext4_options *options, struct ext4_plan **plan, struct error *err)
{
	struct ext4_plan *made = calloc(1, sizeof(*made));
	if (!made)
		return error_set(err, -ENOMEM, "file system: no memory for the plan");
	made->tree = tree;
	made->metadata_csum = options->metadata_csum;
	int rc = plan_fill(made, err);
	if (rc == 0)
		rc = plan_layout_choose(made, options, err);
	if (rc) {
		if (rc == -ENOMEM)
			error_set(err, rc, "file system: no memory for the plan of %u files", tree->inode_count);
		ext4_plan_destroy(made);
		return rc;
	}
	memcpy(made->label, options->label, sizeof(made->label));
	memcpy(made->hash_seed, options->hash_seed, sizeof(made->hash_seed));
	if (all_zero(made->hash_seed, sizeof(made->hash_seed)))
		derive_hash_seed(tree, made->hash_seed);
	memcpy(made->uuid, options->uuid, sizeof(made->uuid));
	if (all_zero(made->uuid, sizeof(made->uuid)))
		derive_uuid(made, made->uuid);
	made->csum_seed = made->metadata_csum ? crc32c(UINT32_MAX, made->uuid, sizeof(made->uuid))
					      : crc16(UINT16_MAX, made->uuid, sizeof(made->uuid));
	*plan = made;
	return 0;
}

void ext4_plan_destroy(struct ext4_plan *plan)
{
	if (!plan)
		return;
	htrees_destroy(plan->htrees);
	free(plan->inodes);
	free(plan->runs);
	free(plan->batches);
	free(plan->objects);
	free(plan->values);
	free(plan);
}

uint64_t ext4_plan_size_bytes(const struct ext4_plan *plan)
{
	return (uint64_t)plan->layout.block_count * EXT4_BLOCK_BYTES;
}
