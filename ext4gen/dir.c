/* Directory blocks with entries in them, in the order of the tree: all blocks of a small directory. Larger ones: htree.c. */
#include "ext4gen/plan_internal.h"

#include <errno.h>
#include <string.h>

/*
 * Larger directories get an index. Linux reads this many blocks ahead in a linear one (NAMEI_RA_SIZE), so all of it comes in
 * one request, where an indexed one takes two, one after the other, and the host has to hash and sort it first.
 */
#define LINEAR_MAX_BLOCKS 8

uint32_t dir_first_entry(const struct ext4_plan *plan, uint32_t inode)
{
	if (inode == lost_found_inode(plan))
		return TREE_NONE;
	const uint32_t first = plan->tree->inodes[inode].first_child;
	return first == TREE_NONE && inode == 0 && plan->add_lost_found ? lost_found_entry(plan) : first;
}

uint32_t dir_next_entry(const struct ext4_plan *plan, uint32_t inode, uint32_t entry)
{
	if (entry == lost_found_entry(plan))
		return TREE_NONE;
	const uint32_t next = plan->tree->entries[entry].next_sibling;
	return next == TREE_NONE && inode == 0 && plan->add_lost_found ? lost_found_entry(plan) : next;
}

struct dir_name dir_name_of(const struct ext4_plan *plan, uint32_t entry)
{
	if (entry == lost_found_entry(plan))
		return (struct dir_name){ LOST_FOUND_NAME, LOST_FOUND_NAME_BYTES, lost_found_inode(plan) };
	const struct tree_entry *e = &plan->tree->entries[entry];
	return (struct dir_name){ plan->tree->strings + e->name, e->name_bytes, e->inode };
}

static uint8_t file_type(const struct ext4_plan *plan, uint32_t inode)
{
	if (inode == lost_found_inode(plan))
		return EXT4_FT_DIR;
	switch (plan->tree->inodes[inode].mode & S_IFMT) {
	case S_IFREG:
		return EXT4_FT_REG_FILE;
	case S_IFDIR:
		return EXT4_FT_DIR;
	case S_IFCHR:
		return EXT4_FT_CHRDEV;
	case S_IFBLK:
		return EXT4_FT_BLKDEV;
	case S_IFIFO:
		return EXT4_FT_FIFO;
	case S_IFSOCK:
		return EXT4_FT_SOCK;
	default:
		return EXT4_FT_SYMLINK;
	}
}

uint32_t put_dir_entry(const struct ext4_plan *plan, uint8_t *at, const struct dir_name *name, uint32_t rec_len)
{
	const struct ext4_dir_entry entry = {
		.inode = le32_make(plan_inode_number(plan, name->inode)),
		.rec_len = le16_make((uint16_t)rec_len),
		.name_len = (uint8_t)name->length,
		.file_type = file_type(plan, name->inode),
	};
	memcpy(at, &entry, sizeof(entry));
	memcpy(at + sizeof(entry), name->bytes, name->length);
	return rec_len;
}

uint32_t put_dir_dots(const struct ext4_plan *plan, uint32_t inode, uint32_t dotdot_rec_len, uint8_t *block)
{
	const uint32_t parent = inode == lost_found_inode(plan) || inode == 0 ? 0 : plan->inodes[inode].parent;
	const struct dir_name dot = { ".", 1, inode };
	const struct dir_name dotdot = { "..", 2, parent };
	const uint32_t used = put_dir_entry(plan, block, &dot, dir_entry_bytes(1));
	return used + put_dir_entry(plan, block + used, &dotdot, dotdot_rec_len);
}

void finish_dir_block(const struct ext4_plan *plan, uint32_t inode, uint8_t *block, uint32_t last)
{
	const uint32_t room = dir_block_room(plan);
	const le16 rec_len = le16_make((uint16_t)(room - last));
	memcpy(block + last + offsetof(struct ext4_dir_entry, rec_len), &rec_len, sizeof(rec_len));
	if (!plan->metadata_csum)
		return;
	const struct ext4_dir_entry_tail tail = {
		.det_rec_len = le16_make(sizeof(tail)),
		.det_reserved_ft = EXT4_FT_DIR_CSUM,
		.det_checksum = le32_make(crc32c(csum_inode_seed(plan, inode), block, room)),
	};
	memcpy(block + room, &tail, sizeof(tail));
}

int dir_count_blocks(struct ext4_plan *plan, uint32_t inode, uint32_t bytes, uint32_t *blocks, struct error *err)
{
	const uint32_t room = dir_block_room(plan);
	*blocks = 1;
	if (bytes <= room - DIR_DOTS_BYTES)
		return 0;
	const struct tree *tree = plan->tree;
	const uint32_t ours = inode == 0 && plan->add_lost_found ? dir_entry_bytes(LOST_FOUND_NAME_BYTES) : 0;
	uint32_t walked = 0, used = DIR_DOTS_BYTES, entries = ours != 0, longest = ours;
	uint32_t e = tree->inodes[inode].first_child;
	for (; e < tree->entry_count && walked < bytes; e = tree->entries[e].next_sibling) {
		const uint32_t length = dir_entry_bytes(tree->entries[e].name_bytes);
		if (length > longest)
			longest = length;
		if (used + length > room) {
			++*blocks;
			used = 0;
		}
		used += length;
		walked += length;
		entries++;
	}
	if (walked + ours != bytes || e != TREE_NONE)
		return error_set(err, -EINVAL, "file system: the tree is damaged: the names of directory %u", inode);
	*blocks += used + ours > room;
	return *blocks <= LINEAR_MAX_BLOCKS ? 0 : htrees_add(plan, inode, entries, bytes, longest, blocks);
}

/*
 * The walk begins at the first name whichever block is asked for; linear directories have few blocks. It trusts nothing: a tree
 * that is damaged gives wrong blocks, no access outside of it.
 */
void fill_dir_block(const struct ext4_plan *plan, uint32_t inode, uint32_t index, uint8_t *block)
{
	memset(block, 0, EXT4_BLOCK_BYTES);
	if (fill_htree_block(plan, inode, index, block))
		return;
	const uint32_t room = dir_block_room(plan);
	uint32_t used = DIR_DOTS_BYTES, last = dir_entry_bytes(1), at_block = 0;
	if (index == 0)
		put_dir_dots(plan, inode, dir_entry_bytes(2), block);
	for (uint32_t e = dir_first_entry(plan, inode); e <= plan->tree->entry_count; e = dir_next_entry(plan, inode, e)) {
		const struct dir_name name = dir_name_of(plan, e);
		const uint32_t length = dir_entry_bytes(name.length);
		if (used + length > room) {
			if (at_block++ == index)
				break;
			used = 0;
		}
		if (at_block == index) {
			last = used;
			put_dir_entry(plan, block + used, &name, length);
		}
		used += length;
	}
	finish_dir_block(plan, inode, block, last);
}
