/*
 * Answering reads: which region a block lies in, and what is there.
 *
 * Metadata is computed a block at a time into a buffer of our own and copied: the caller's memory may be guest RAM, which
 * changes under our hands, and the generators look back at what they wrote. File contents go from the source straight to the
 * caller's memory; neighbouring pieces that are neighbours in the source as well become one system call.
 */
#include "ext4gen/cursor_internal.h"
#include "ext4gen/plan_internal.h"

#include <errno.h>
#include <string.h>

/* ---- file contents ----------------------------------------------------------------------------------------------------------- */

/* A read of a source that is put off because the next piece may continue it. */
struct pending {
	const struct ext4_plan *plan;
	struct cursor *to;
	uint64_t offset, length;
	uint32_t source;
};

static int pending_flush(struct pending *p)
{
	while (p->length) {
		struct iovec batch[CURSOR_BATCH];
		unsigned count;
		const uint64_t bytes = cursor_take_batch(p->to, p->length, batch, &count);
		const int rc = tree_source_readv(p->plan->tree, p->source, p->offset, batch, count);
		if (rc)
			return rc;
		p->offset += bytes;
		p->length -= bytes;
	}
	return 0;
}

static int pending_add(struct pending *p, uint32_t source, uint64_t offset, uint64_t length)
{
	if (p->length && (source != p->source || offset != p->offset + p->length)) {
		const int rc = pending_flush(p);
		if (rc)
			return rc;
	}
	if (p->length == 0) {
		p->source = source;
		p->offset = offset;
	}
	p->length += length;
	return 0;
}

static int pending_zero(struct pending *p, uint64_t length)
{
	const int rc = length ? pending_flush(p) : 0;
	if (rc == 0)
		cursor_zero(p->to, length);
	return rc;
}

/* The first extent of a file that ends behind `offset`; the number of extents when there is none. */
static uint32_t find_extent(const struct tree_extent *extents, uint32_t count, uint64_t offset)
{
	uint32_t begin = 0;
	while (begin < count) {
		const uint32_t middle = begin + (count - begin) / 2;
		if (extents[middle].file_offset + extents[middle].length <= offset)
			begin = middle + 1;
		else
			count = middle;
	}
	return begin;
}

/* Bytes [offset, offset + length) of the file that a run belongs to and in that run, holes and what lies behind its end as zeroes. */
static int read_run(struct pending *p, uint32_t run, uint64_t offset, uint64_t length)
{
	const struct tree_extent *extents;
	const uint32_t count = plan_run_extents(p->plan, run, &extents);
	const uint64_t end = offset + length;
	int rc = 0;
	for (uint32_t i = find_extent(extents, count, offset); i < count && rc == 0; i++) {
		const struct tree_extent *extent = &extents[i];
		if (extent->file_offset >= end)
			break;
		if (extent->file_offset > offset) {
			rc = pending_zero(p, extent->file_offset - offset);
			offset = extent->file_offset;
		}
		const uint64_t skip = offset - extent->file_offset;
		const uint64_t left = extent->length - skip;
		const uint64_t take = left < end - offset ? left : end - offset;
		if (rc == 0)
			rc = pending_add(p, extent->source, extent->source_offset + skip, take);
		offset += take;
	}
	return rc ? rc : pending_zero(p, end - offset);
}

/* Bytes [offset, offset + length) of the contents region. */
static int read_contents(const struct ext4_plan *plan, struct cursor *to, uint64_t offset, uint64_t length)
{
	struct pending p = { .plan = plan, .to = to };
	uint32_t run = plan_find_run(plan, (uint32_t)(offset / EXT4_BLOCK_BYTES));
	while (length) {
		const uint64_t start = (uint64_t)plan->runs[run].block * EXT4_BLOCK_BYTES;
		const uint64_t left = start + (uint64_t)plan_run_length(plan, run) * EXT4_BLOCK_BYTES - offset;
		const uint64_t take = left < length ? left : length;
		const uint64_t file_offset = (uint64_t)plan->runs[run].logical * EXT4_BLOCK_BYTES + (offset - start);
		const int rc = read_run(&p, run, file_offset, take);
		if (rc)
			return rc;
		offset += take;
		length -= take;
		run++;
	}
	return pending_flush(&p);
}

/* ---- metadata ---------------------------------------------------------------------------------------------------------------- */

static void fill_symlink_block(const struct ext4_plan *plan, uint32_t inode, uint8_t *block)
{
	const struct tree_inode *from = &plan->tree->inodes[inode];
	memset(block, 0, EXT4_BLOCK_BYTES);
	memcpy(block, plan->tree->strings + from->target, from->size_bytes);
}

/* An inode's own blocks come first, by its type; behind them its attribute block, if it has one. */
static void fill_object_block(const struct ext4_plan *plan, uint32_t index, uint8_t *block)
{
	const uint32_t object = plan_find_object(plan, index);
	const uint32_t inode = plan->objects[object].inode;
	const uint32_t at = index - plan->objects[object].block;
	if (at >= plan_own_blocks(plan, object))
		fill_xattr_block(plan, inode, plan->layout.objects + index, block);
	else if (is_value_inode(plan, inode))
		fill_value_block(plan, inode - value_inode(plan, 0), at, block);
	else if (inode == lost_found_inode(plan) || S_ISDIR(plan->tree->inodes[inode].mode))
		fill_dir_block(plan, inode, at, block);
	else if (S_ISLNK(plan->tree->inodes[inode].mode))
		fill_symlink_block(plan, inode, block);
	else
		fill_extent_block(plan, inode, at, block);
}

/* Any block before the contents. */
static void fill_metadata_block(const struct ext4_plan *plan, uint32_t number, uint8_t *block)
{
	const struct plan_layout *l = &plan->layout;
	if (number >= l->journal)
		fill_journal_block(plan, number - l->journal, block);
	else if (number >= l->objects)
		fill_object_block(plan, number - l->objects, block);
	else if (number >= l->inode_tables)
		fill_inode_table(plan, number - l->inode_tables, block);
	else if (number >= l->inode_bitmaps)
		fill_inode_bitmap(plan, number - l->inode_bitmaps, block);
	else if (number >= l->block_bitmaps)
		fill_block_bitmap(plan, number - l->block_bitmaps, block);
	else if (number >= l->descriptors)
		fill_descriptors(plan, number - l->descriptors, block);
	else
		fill_super_block(plan, block);
}

static void read_metadata(const struct ext4_plan *plan, struct cursor *to, uint64_t offset, uint64_t length)
{
	while (length) {
		uint8_t block[EXT4_BLOCK_BYTES];
		const size_t skip = offset % EXT4_BLOCK_BYTES;
		const size_t left = EXT4_BLOCK_BYTES - skip;
		const size_t take = left < length ? left : (size_t)length;
		fill_metadata_block(plan, (uint32_t)(offset / EXT4_BLOCK_BYTES), block);
		cursor_copy(to, block + skip, take);
		offset += take;
		length -= take;
	}
}

/* ---- the whole disk ---------------------------------------------------------------------------------------------------------- */

/* The part of [offset, offset + length) that lies before `end`. */
static uint64_t part_before(uint64_t offset, uint64_t length, uint64_t end)
{
	if (offset >= end)
		return 0;
	return end - offset < length ? end - offset : length;
}

int ext4_plan_readv(const struct ext4_plan *plan, uint64_t offset, const struct iovec *iov, unsigned count)
{
	uint64_t length = 0;
	for (unsigned i = 0; i < count; i++)
		if (__builtin_add_overflow(length, iov[i].iov_len, &length))
			return -EINVAL;
	const uint64_t size = ext4_plan_size_bytes(plan);
	if (offset > size || length > size - offset)
		return -EINVAL;

	const uint64_t contents = (uint64_t)plan->layout.contents * EXT4_BLOCK_BYTES;
	const uint64_t free = (uint64_t)plan->layout.free * EXT4_BLOCK_BYTES;
	struct cursor to = { .iov = iov };
	uint64_t part = part_before(offset, length, contents);
	read_metadata(plan, &to, offset, part);
	offset += part;
	length -= part;
	part = part_before(offset, length, free);
	if (part) {
		const int rc = read_contents(plan, &to, offset - contents, part);
		if (rc)
			return rc;
	}
	cursor_zero(&to, length - part);
	return 0;
}
