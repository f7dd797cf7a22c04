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
