/* Extended attributes. */
#include "ext4gen/plan_internal.h"

int xattr_plan(const struct ext4_plan *plan, uint32_t inode, bool *needs_block, struct error *err)
{
	(void)plan, (void)inode, (void)err;
	*needs_block = false;
	return 0;
}

bool xattr_needs_block(const struct ext4_plan *plan, uint32_t inode)
{
	(void)plan, (void)inode;
	return false;
}

void fill_xattr_inode(const struct ext4_plan *plan, uint32_t inode, uint8_t *area)
{
	(void)plan, (void)inode, (void)area;
}

void fill_xattr_block(const struct ext4_plan *plan, uint32_t inode, uint8_t *block)
{
	(void)plan, (void)inode, (void)block;
}
