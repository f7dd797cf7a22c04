/* Where things lie; see inspect.h. */
#include "ext4gen/inspect.h"

#include <string.h>

#include "ext4gen/plan_internal.h"

unsigned ext4_plan_regions(const struct ext4_plan *plan, struct ext4_region regions[EXT4_REGIONS_MAX])
{
	const struct plan_layout *l = &plan->layout;
	const struct ext4_region all[] = {
		{ "superblock", 0, l->descriptors },
		{ "group descriptors", l->descriptors, l->block_bitmaps },
		{ "block bitmaps", l->block_bitmaps, l->inode_bitmaps },
		{ "inode bitmaps", l->inode_bitmaps, l->inode_tables },
		{ "inode tables", l->inode_tables, l->objects },
		{ "directories, extents, attributes", l->objects, l->journal },
		{ "journal", l->journal, l->contents },
		{ "file contents", l->contents, l->free },
		{ "free space", l->free, l->block_count },
	};
	const unsigned count = sizeof(all) / sizeof(all[0]);
	_Static_assert(sizeof(all) / sizeof(all[0]) <= EXT4_REGIONS_MAX, "room for the regions");
	memcpy(regions, all, sizeof(all));
	return count;
}

bool ext4_plan_run(const struct ext4_plan *plan, uint32_t index, struct ext4_run *run)
{
	if (index >= plan->run_count)
		return false;
	const struct plan_run *from = &plan->runs[index];
	*run = (struct ext4_run){
		.tree_inode = from->inode,
		.logical = from->logical,
		.first = (uint64_t)plan->layout.contents + from->block,
		.count = plan_run_length(plan, index),
	};
	return true;
}

uint32_t ext4_plan_runs_of(const struct ext4_plan *plan, uint32_t tree_inode, uint32_t *index)
{
	uint32_t count = 0;
	if (!S_ISREG(plan->tree->inodes[tree_inode].mode))
		return 0;
	*index = plan->inodes[tree_inode].first_run;
	while (*index + count < plan->run_count && plan->runs[*index + count].inode == tree_inode)
		count++;
	return count;
}

uint64_t ext4_plan_metadata_of(const struct ext4_plan *plan, uint32_t tree_inode, uint64_t *first)
{
	/* The last object whose inode is not behind this one. */
	uint32_t begin = 0, end = plan->object_count;
	while (begin < end) {
		const uint32_t middle = begin + (end - begin) / 2;
		if (plan->objects[middle].inode < tree_inode)
			begin = middle + 1;
		else
			end = middle;
	}
	if (begin == plan->object_count || plan->objects[begin].inode != tree_inode)
		return 0;
	*first = (uint64_t)plan->layout.objects + plan->objects[begin].block;
	return plan_object_length(plan, begin);
}

uint64_t ext4_plan_inode_block(const struct ext4_plan *plan, uint32_t number, uint32_t *byte)
{
	*byte = (number - 1) % EXT4_INODES_PER_BLOCK * EXT4_INODE_BYTES;
	return (uint64_t)plan->layout.inode_tables + (number - 1) / EXT4_INODES_PER_BLOCK;
}

bool ext4_plan_is_indexed(const struct ext4_plan *plan, uint32_t tree_inode)
{
	return dir_is_indexed(plan, tree_inode);
}

/* The same order as in reading: an inode's own blocks by its type, and its attribute block last. */
static struct ext4_block_place place_object(const struct ext4_plan *plan, uint32_t index)
{
	const uint32_t object = plan_find_object(plan, index);
	const uint32_t inode = plan->objects[object].inode;
	struct ext4_block_place place = { .tree_inode = TREE_NONE, .index = index - plan->objects[object].block };
	if (is_value_inode(plan, inode))
		place.kind = EXT4_BLOCK_XATTR_VALUE;
	else if (inode == lost_found_inode(plan))
		place.kind = EXT4_BLOCK_DIRECTORY;
	else
		place.tree_inode = inode;
	if (place.tree_inode == TREE_NONE)
		return place;
	const uint32_t mode = plan->tree->inodes[inode].mode;
	if (place.index >= plan_own_blocks(plan, object))
		place.kind = EXT4_BLOCK_XATTRS;
	else
		place.kind = S_ISDIR(mode) ? EXT4_BLOCK_DIRECTORY : S_ISLNK(mode) ? EXT4_BLOCK_SYMLINK : EXT4_BLOCK_EXTENTS;
	return place;
}

static struct ext4_block_place place_contents(const struct ext4_plan *plan, uint32_t index)
{
	const struct plan_run *run = &plan->runs[plan_find_run(plan, index)];
	return (struct ext4_block_place){ EXT4_BLOCK_CONTENTS, run->inode, (uint64_t)run->logical + (index - run->block) };
}

static struct ext4_block_place place_journal(const struct ext4_plan *plan, uint32_t index)
{
	const uint32_t tree = journal_tree_blocks(plan->journal_blocks);
	return index < tree ? (struct ext4_block_place){ EXT4_BLOCK_JOURNAL_EXTENTS, TREE_NONE, index }
			    : (struct ext4_block_place){ EXT4_BLOCK_JOURNAL, TREE_NONE, index - tree };
}

struct ext4_block_place ext4_plan_block(const struct ext4_plan *plan, uint64_t block)
{
	const struct plan_layout *l = &plan->layout;
	const uint32_t number = (uint32_t)block;
	if (number >= l->free)
		return (struct ext4_block_place){ EXT4_BLOCK_FREE, TREE_NONE, number - l->free };
	if (number >= l->contents)
		return place_contents(plan, number - l->contents);
	if (number >= l->journal)
		return place_journal(plan, number - l->journal);
	if (number >= l->objects)
		return place_object(plan, number - l->objects);
	if (number >= l->inode_tables)
		return (struct ext4_block_place){ EXT4_BLOCK_INODE_TABLE, TREE_NONE, number - l->inode_tables };
	if (number >= l->inode_bitmaps)
		return (struct ext4_block_place){ EXT4_BLOCK_INODE_BITMAP, TREE_NONE, number - l->inode_bitmaps };
	if (number >= l->block_bitmaps)
		return (struct ext4_block_place){ EXT4_BLOCK_BLOCK_BITMAP, TREE_NONE, number - l->block_bitmaps };
	if (number >= l->descriptors)
		return (struct ext4_block_place){ EXT4_BLOCK_DESCRIPTORS, TREE_NONE, number - l->descriptors };
	return (struct ext4_block_place){ EXT4_BLOCK_SUPER, TREE_NONE, 0 };
}
