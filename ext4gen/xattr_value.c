/*
 * Values of extended attributes that are too large for the attribute block (feature ea_inode).
 *
 * Such a value is the contents of an inode that no directory names. The attribute's entry has its number. That inode keeps the
 * value's checksum in i_atime and the number of its users, always one here, in i_version. Linux compares both the checksum and the
 * hash of the entry, in which it goes, before it believes a value.
 */
#include "ext4gen/plan_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int values_add(struct ext4_plan *plan, uint32_t inode, uint32_t xattr)
{
	if (plan->value_count == plan->value_room) {
		const uint32_t room = plan->value_room * 2 + 8;
		struct plan_value *values = reallocarray(plan->values, room, sizeof(*values));
		if (!values)
			return -ENOMEM;
		plan->values = values;
		plan->value_room = room;
	}
	plan->values[plan->value_count++] = (struct plan_value){ inode, xattr };
	return 0;
}

uint32_t values_first(const struct ext4_plan *plan, uint32_t inode)
{
	uint32_t begin = 0, end = plan->value_count;
	while (begin < end) {
		const uint32_t middle = begin + (end - begin) / 2;
		if (plan->values[middle].inode < inode)
			begin = middle + 1;
		else
			end = middle;
	}
	return begin;
}

static const struct tree_xattr *xattr_of(const struct ext4_plan *plan, uint32_t k)
{
	return &plan->tree->xattrs[plan->values[k].xattr];
}

uint32_t value_blocks(const struct ext4_plan *plan, uint32_t k)
{
	return (xattr_of(plan, k)->value_bytes + EXT4_BLOCK_BYTES - 1) / EXT4_BLOCK_BYTES;
}

uint32_t values_blocks_of(const struct ext4_plan *plan, uint32_t inode)
{
	uint32_t blocks = 0;
	for (uint32_t k = values_first(plan, inode); k < plan->value_count && plan->values[k].inode == inode; k++)
		blocks += value_blocks(plan, k);
	return blocks;
}

uint32_t value_hash(const struct ext4_plan *plan, uint32_t k)
{
	const struct tree_xattr *x = xattr_of(plan, k);
	const uint32_t seed = crc32c(UINT32_MAX, plan->uuid, sizeof(plan->uuid));
	return crc32c(seed, plan->tree->strings + x->value, x->value_bytes);
}

void put_value_inode(const struct ext4_plan *plan, uint32_t k, struct ext4_inode *disk)
{
	disk->i_mode = le16_make(S_IFREG | 0600);
	disk->i_links_count = le16_make(1);
	disk->i_size_lo = le32_make(xattr_of(plan, k)->value_bytes);
	disk->i_flags = le32_make(EXT4_EA_INODE_FL | EXT4_EXTENTS_FL);
	disk->i_atime = le32_make(value_hash(plan, k));
	disk->i_version = le32_make(1);
	fill_extent_root(plan, value_inode(plan, k), disk->i_block);
}

void fill_value_block(const struct ext4_plan *plan, uint32_t k, uint32_t index, uint8_t *block)
{
	const struct tree_xattr *x = xattr_of(plan, k);
	const uint32_t offset = index * EXT4_BLOCK_BYTES;
	const uint32_t left = x->value_bytes - offset;
	memset(block, 0, EXT4_BLOCK_BYTES);
	memcpy(block, plan->tree->strings + x->value + offset, left < EXT4_BLOCK_BYTES ? left : EXT4_BLOCK_BYTES);
}
