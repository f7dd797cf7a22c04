/*
 * Extended attributes: of the inode itself, and of the block that it names; values may lie in inodes of their own. See the drawing in
 * ext4gen/ext4_disk.h. A block is shared by inodes with the same attributes and is therefore read once.
 */
#include "ext4read/reader_internal.h"

#include <errno.h>
#include <stdlib.h>

enum {
	OLD_INODE_BYTES = 128,
	VALUE_MAX = 65536, /* what Linux and struct tree_xattr have */
	ACL_DISK_VERSION = 1,
	ACL_VERSION = 2,
	ACL_USER = 2,
	ACL_GROUP = 8,
};

/* Where attributes lie; of which inode, for messages. */
struct area {
	const uint8_t *bytes; /* e_value_offs counts from here */
	size_t entries, length;
	uint32_t number;
	struct items *to; /* struct tree_xattr */
};

static int wrong(const struct area *area, const char *what, struct error *err)
{
	return damaged(err, "inode %u: %s in its extended attributes", area->number, what);
}

/* The full name's part that the index stands for; NULL: an attribute that Linux does not list. */
static const char *prefix_of(uint8_t index, bool *whole)
{
	*whole = index == EXT4_XATTR_INDEX_POSIX_ACL_ACCESS || index == EXT4_XATTR_INDEX_POSIX_ACL_DEFAULT;
	switch (index) {
	case EXT4_XATTR_INDEX_USER:
		return "user.";
	case EXT4_XATTR_INDEX_POSIX_ACL_ACCESS:
		return "system.posix_acl_access";
	case EXT4_XATTR_INDEX_POSIX_ACL_DEFAULT:
		return "system.posix_acl_default";
	case EXT4_XATTR_INDEX_TRUSTED:
		return "trusted.";
	case EXT4_XATTR_INDEX_SECURITY:
		return "security.";
	default:
		return NULL;
	}
}

/* From the form on disk, in which most entries have no id, to the one of getxattr(2). Returns the bytes, 0: it is no ACL. */
static size_t expand_acl(const uint8_t *disk, size_t length, uint8_t *to)
{
	le32 version;
	size_t at = sizeof(version), used = sizeof(version);
	if (length < sizeof(version))
		return 0;
	memcpy(&version, disk, sizeof(version));
	if (le32_get(version) != ACL_DISK_VERSION)
		return 0;
	version = le32_make(ACL_VERSION);
	memcpy(to, &version, sizeof(version));
	while (at < length) {
		le16 tag;
		le32 id = le32_make(UINT32_MAX);
		if (length - at < 4)
			return 0;
		memcpy(&tag, disk + at, sizeof(tag));
		const bool named = le16_get(tag) == ACL_USER || le16_get(tag) == ACL_GROUP;
		memcpy(to + used, disk + at, 4);
		at += 4;
		if (named && length - at < sizeof(id))
			return 0;
		if (named) {
			memcpy(&id, disk + at, sizeof(id));
			at += sizeof(id);
		}
		memcpy(to + used + 4, &id, sizeof(id));
		used += 8;
	}
	return used;
}

/* A value in an inode of its own, which several attributes may share. */
static int read_ea_inode(struct making *making, const struct area *area, uint32_t ea, uint32_t length, uint32_t *offset,
			 struct error *err)
{
	struct ext4_reader *reader = making->reader;
	const uint64_t *known = map_get(&making->ea_inodes, ea);
	if (known && *known >> 32 == length) {
		*offset = (uint32_t)*known;
		return 0;
	}
	/* The inode at hand is somebody's: this one is read into its place and the other put back. */
	uint8_t *kept = malloc(reader->inode_bytes), *value = malloc(length);
	struct items extents = { NULL, 0, 0 };
	int ret = kept && value ? 0 : error_set(err, -ENOMEM, "out of memory");
	if (kept)
		memcpy(kept, reader->inode, reader->inode_bytes);
	if (!ret)
		ret = inode_read(reader, ea, err);
	const struct ext4_inode *inode = inode_fields(reader);
	if (!ret && (!(le32_get(inode->i_flags) & EXT4_EA_INODE_FL) || inode_size(inode) != length))
		ret = wrong(area, "a value in an inode that is none", err);
	if (!ret)
		ret = extents_read(reader, ea, inode, length, &extents, err);
	if (!ret && (ret = extents_contents(reader, extents.data, extents.count, value, length)))
		error_set(err, ret, "cannot read inode %u: %s", ea, strerror(-ret));
	if (!ret)
		ret = making_string(making, value, length, offset, err);
	if (!ret && map_set(&making->ea_inodes, ea, (uint64_t)length << 32 | *offset))
		ret = error_set(err, -ENOMEM, "out of memory");
	if (kept)
		memcpy(reader->inode, kept, reader->inode_bytes);
	items_free(&extents);
	free(kept);
	free(value);
	return ret;
}

static int add_value(struct making *making, const struct area *area, const struct ext4_xattr_entry *entry, bool acl,
		     struct tree_xattr *xattr, struct error *err)
{
	const uint32_t length = le32_get(entry->e_value_size), offset = le16_get(entry->e_value_offs),
		       ea = le32_get(entry->e_value_inum);
	xattr->value_bytes = length;
	if (length > VALUE_MAX)
		return wrong(area, "a value of more than 64 KiB", err);
	if (ea && !(le32_get(making->reader->super.s_feature_incompat) & EXT4_INCOMPAT_EA_INODE))
		return wrong(area, "a value in another inode, without the feature 'ea_inode',", err);
	if (ea && acl)
		return wrong(area, "an ACL in another inode", err);
	if (ea && length)
		return read_ea_inode(making, area, ea, length, &xattr->value, err);
	if (length && (offset > area->length || length > area->length - offset))
		return wrong(area, "a value outside", err);
	if (!acl)
		return making_string(making, area->bytes + offset * (length != 0), length, &xattr->value, err);
	uint8_t *expanded = malloc(2 * (size_t)length + 8);
	if (!expanded)
		return error_set(err, -ENOMEM, "out of memory");
	const size_t expanded_bytes = expand_acl(area->bytes + offset * (length != 0), length, expanded);
	xattr->value_bytes = (uint32_t)expanded_bytes;
	const int ret = expanded_bytes && expanded_bytes <= VALUE_MAX
			    ? making_string(making, expanded, expanded_bytes, &xattr->value, err)
			    : wrong(area, "an ACL that is none", err);
	free(expanded);
	return ret;
}

static int add_attribute(struct making *making, const struct area *area, const struct ext4_xattr_entry *entry, const char *name,
			 struct error *err)
{
	bool whole;
	const char *prefix = prefix_of(entry->e_name_index, &whole);
	char full[32 + UINT8_MAX];
	if (!prefix || whole != (entry->e_name_len == 0)) {
		complaints_add(making->complaints, "inode %u has an extended attribute of a kind that Linux does not show",
			       area->number);
		return 0;
	}
	if (memchr(name, '\0', entry->e_name_len))
		return wrong(area, "a name with a zero byte", err);
	char *const rest = stpcpy(full, prefix);
	memcpy(rest, name, entry->e_name_len);
	struct tree_xattr xattr = { .name_bytes = (uint16_t)(rest - full + entry->e_name_len) };
	int ret = xattr.name_bytes > UINT8_MAX ? wrong(area, "a name that is too long", err)
					       : making_string(making, full, xattr.name_bytes, &xattr.name, err);
	if (!ret)
		ret = add_value(making, area, entry, whole, &xattr, err);
	/* An ACL without entries is none. */
	if (ret || (whole && xattr.value_bytes <= sizeof(le32)))
		return ret;
	struct tree_xattr *to = area->to->count < EXT4_READER_ITEMS_MAX ? items_add(area->to, sizeof(*to)) : NULL;
	if (!to)
		return error_set(err, -ENOMEM, "out of memory");
	*to = xattr;
	return 0;
}

/* Entries up to four zero bytes, or the end. */
static int add_area(struct making *making, const struct area *area, struct error *err)
{
	int ret = 0;
	for (size_t at = area->entries; !ret;) {
		struct ext4_xattr_entry entry;
		static const uint8_t end[4];
		if (area->length - at < sizeof(end) || memcmp(area->bytes + at, end, sizeof(end)) == 0)
			break;
		if (area->length - at < sizeof(entry))
			return wrong(area, "an entry that is cut off", err);
		memcpy(&entry, area->bytes + at, sizeof(entry));
		const size_t bytes = (sizeof(entry) + entry.e_name_len + 3u) & ~(size_t)3;
		if (bytes > area->length - at)
			return wrong(area, "an entry that is cut off", err);
		ret = add_attribute(making, area, &entry, (const char *)area->bytes + at + sizeof(entry), err);
		at += bytes;
	}
	return ret;
}

/* Those behind the inode's fields. */
static int add_from_inode(struct making *making, uint32_t number, struct error *err)
{
	const struct ext4_reader *reader = making->reader;
	if (reader->inode_bytes == OLD_INODE_BYTES)
		return 0;
	const size_t start = OLD_INODE_BYTES + (size_t)le16_get(inode_fields(reader)->i_extra_isize);
	le32 magic;
	if (start % 4 || start > reader->inode_bytes)
		return damaged(err, "inode %u has %zu bytes of extra fields", number, start - OLD_INODE_BYTES);
	if (reader->inode_bytes - start < sizeof(magic))
		return 0;
	memcpy(&magic, reader->inode + start, sizeof(magic));
	if (le32_get(magic) != EXT4_XATTR_MAGIC)
		return 0;
	const struct area area = { reader->inode + start + sizeof(magic), 0, reader->inode_bytes - start - sizeof(magic), number,
				   &making->scratch };
	return add_area(making, &area, err);
}

static int read_xattr_block(struct making *making, uint32_t number, uint64_t block, struct error *err)
{
	struct ext4_reader *reader = making->reader;
	const uint8_t *data;
	struct ext4_xattr_header header;
	int ret = device_block(reader, block, &data, err);
	if (ret)
		return error_prefix(err, ret, "inode %u: its extended attributes", number);
	memcpy(&header, data, sizeof(header));
	/* What is read for values in other inodes may push the block out of the cache. */
	uint8_t *copy = malloc(reader->block_bytes);
	if (!copy)
		return error_set(err, -ENOMEM, "out of memory");
	memcpy(copy, data, reader->block_bytes);
	const struct area area = { copy, sizeof(header), reader->block_bytes, number, &making->block_xattrs };
	const size_t first = making->block_xattrs.count;
	if (le32_get(header.h_magic) != EXT4_XATTR_MAGIC || le32_get(header.h_blocks) != 1)
		ret = wrong(&area, "a block without the magic number", err);
	else
		ret = add_area(making, &area, err);
	free(copy);
	if (!ret && map_set(&making->xattr_blocks, block, (uint64_t)first << 32 | (making->block_xattrs.count - first)))
		ret = error_set(err, -ENOMEM, "out of memory");
	return ret;
}

static int add_from_block(struct making *making, uint32_t number, uint64_t block, struct error *err)
{
	const uint64_t *place = map_get(&making->xattr_blocks, block);
	if (!place) {
		const int ret = read_xattr_block(making, number, block, err);
		if (ret)
			return ret;
		place = map_get(&making->xattr_blocks, block);
	}
	for (uint64_t i = 0; place && i < (uint32_t)*place; i++) {
		struct tree_xattr *to = items_add(&making->scratch, sizeof(*to));
		if (!to)
			return error_set(err, -ENOMEM, "out of memory");
		*to = ((struct tree_xattr *)making->block_xattrs.data)[(*place >> 32) + i];
	}
	return 0;
}

/* By name; of two with one name that of the inode, as Linux looks it up, which came to be earlier in the strings or the list. */
static int compare_xattrs(const void *left, const void *right, void *strings)
{
	const struct tree_xattr *a = left, *b = right;
	const size_t least = a->name_bytes < b->name_bytes ? a->name_bytes : b->name_bytes;
	const int order = memcmp((const char *)strings + a->name, (const char *)strings + b->name, least);
	return order ? order : (a->name_bytes > b->name_bytes) - (a->name_bytes < b->name_bytes);
}

int making_xattrs(struct making *making, uint32_t number, uint32_t *first, uint32_t *count, struct error *err)
{
	const struct ext4_inode *inode = inode_fields(making->reader);
	const uint64_t block = (uint64_t)le16_get(inode->i_file_acl_high) << 32 | le32_get(inode->i_file_acl_lo);
	making->scratch.count = 0;
	*count = 0;
	int ret = add_from_inode(making, number, err);
	if (!ret && block)
		ret = add_from_block(making, number, block, err);
	struct tree_xattr *all = making->scratch.data;
	if (ret || making->scratch.count == 0)
		return ret;
	qsort_r(all, making->scratch.count, sizeof(*all), compare_xattrs, making->strings.data);
	*first = (uint32_t)making->xattrs.count;
	for (size_t i = 0; i < making->scratch.count; i++) {
		if (i && compare_xattrs(&all[i - 1], &all[i], making->strings.data) == 0) {
			complaints_add(making->complaints, "inode %u has an extended attribute twice", number);
			continue;
		}
		if (making->xattrs.count >= EXT4_READER_ITEMS_MAX)
			return error_set(err, -EFBIG, "the file system has more than %zu extended attributes",
					 EXT4_READER_ITEMS_MAX);
		struct tree_xattr *to = items_add(&making->xattrs, sizeof(*to));
		if (!to)
			return error_set(err, -ENOMEM, "out of memory");
		*to = all[i];
		(*count)++;
	}
	return 0;
}
