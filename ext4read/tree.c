/*
 * The walk over directories, breadth first, into a tree. Every block of a directory is read in turn: what an index of hashes adds looks
 * like unused entries. Each inode is read once, when its first name is met; a directory only has one.
 */
#include "ext4read/reader_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

/* A name of the directory at hand. */
struct name {
	uint32_t inode, text;
	uint8_t bytes;
};

int making_string(struct making *making, const void *bytes, size_t length, uint32_t *offset, struct error *err)
{
	struct items *strings = &making->strings;
	if (length > UINT32_MAX - strings->count)
		return error_set(err, -EFBIG, "the file system has more than 4 GiB of names and attributes");
	if (length > strings->room - strings->count) {
		const size_t room = (strings->count + length) * 2 + 4096;
		void *data = realloc(strings->data, room);
		if (!data)
			return error_set(err, -ENOMEM, "out of memory");
		strings->data = data;
		strings->room = room;
	}
	if (length)
		memcpy((char *)strings->data + strings->count, bytes, length);
	*offset = (uint32_t)strings->count;
	strings->count += length;
	return 0;
}

static struct tree_inode *inode_at(const struct making *making, uint32_t inode)
{
	return (struct tree_inode *)making->inodes.data + inode;
}

static uint32_t number_of(const struct making *making, uint32_t inode)
{
	return ((const uint32_t *)making->numbers.data)[inode];
}

/* The path of a directory, quoted; of a long one the end. */
static const char *path_of(const struct making *making, uint32_t inode, char *out, size_t out_size)
{
	char path[256];
	size_t at = sizeof(path);
	for (unsigned depth = 0; inode && depth < sizeof(path); depth++) {
		const uint32_t number = ((const uint32_t *)making->first_entries.data)[inode];
		const struct tree_entry *entry = (const struct tree_entry *)making->entries.data + number;
		if (entry->name_bytes + 1u > at)
			break;
		at -= entry->name_bytes;
		memcpy(path + at, (const char *)making->strings.data + entry->name, entry->name_bytes);
		path[--at] = '/';
		inode = entry->parent;
	}
	return at == sizeof(path) ? "/" : error_quote(out, out_size, path + at, sizeof(path) - at);
}

/* ---- one directory ----------------------------------------------------------------------------------------------------------- */

static void skip_name(struct making *making, uint32_t directory, const char *name, size_t length, const char *why)
{
	char path[600], quoted[600];
	complaints_add(making->complaints, "directory '%s': the name '%s' is left out: %s",
		       path_of(making, directory, path, sizeof(path)), error_quote(quoted, sizeof(quoted), name, length), why);
}

static int take_name(struct making *making, uint32_t directory, const struct ext4_dir_entry *entry, const char *text,
		     struct error *err)
{
	const size_t length = entry->name_len;
	if ((length == 1 || length == 2) && memcmp(text, "..", length) == 0)
		return 0;
	if (length == 0 || memchr(text, '/', length) || memchr(text, '\0', length)) {
		skip_name(making, directory, text, length, "no file can have it");
		return 0;
	}
	if (making->names.count + making->entries.count >= EXT4_READER_ITEMS_MAX)
		return error_set(err, -EFBIG, "the file system has more than %zu names", EXT4_READER_ITEMS_MAX);
	uint32_t offset = 0;
	const int ret = making_string(making, text, length, &offset, err);
	struct name *name = ret ? NULL : items_add(&making->names, sizeof(*name));
	if (!ret && !name)
		return error_set(err, -ENOMEM, "out of memory");
	if (name)
		*name = (struct name){ le32_get(entry->inode), offset, (uint8_t)length };
	return ret;
}

/* With blocks of 64 KiB the largest length does not fit and is written as another. */
static uint32_t record_length(const struct ext4_reader *reader, le16 rec_len)
{
	const uint32_t raw = le16_get(rec_len);
	if (reader->block_bytes < 65536)
		return raw;
	return raw == 65535 || raw == 0 ? 65536 : (raw & 65532) | (raw & 3) << 16;
}

static int take_block(struct making *making, uint32_t directory, const uint8_t *block, struct error *err)
{
	const uint32_t bytes = making->reader->block_bytes;
	int ret = 0;
	for (uint32_t at = 0; !ret && at < bytes;) {
		struct ext4_dir_entry entry;
		if (bytes - at < sizeof(entry))
			return damaged(err, "inode %u: a directory entry is cut off", number_of(making, directory));
		memcpy(&entry, block + at, sizeof(entry));
		const uint32_t length = record_length(making->reader, entry.rec_len);
		if (length % 4 || length < sizeof(entry) || length > bytes - at || entry.name_len > length - sizeof(entry))
			return damaged(err, "inode %u: a directory entry with a wrong length", number_of(making, directory));
		if (le32_get(entry.inode))
			ret = take_name(making, directory, &entry, (const char *)block + at + sizeof(entry), err);
		at += length;
	}
	return ret;
}

/* Collects the names of a directory. */
static int read_names(struct making *making, uint32_t directory, struct error *err)
{
	struct ext4_reader *reader = making->reader;
	const uint32_t number = number_of(making, directory);
	int ret = inode_read(reader, number, err);
	if (ret)
		return ret;
	const struct ext4_inode *inode = inode_fields(reader);
	making->scratch.count = making->names.count = 0;
	if (le32_get(inode->i_size_lo) % reader->block_bytes)
		return damaged(err, "inode %u: a directory of %u bytes", number, le32_get(inode->i_size_lo));
	ret = extents_read(reader, number, inode, inode_size(inode), &making->scratch, err);
	for (size_t i = 0; !ret && i < making->scratch.count; i++) {
		const struct tree_extent extent = ((const struct tree_extent *)making->scratch.data)[i];
		for (uint64_t at = 0; !ret && at < extent.length; at += reader->block_bytes) {
			const uint8_t *block;
			ret = device_block(reader, (extent.source_offset + at) / reader->block_bytes, &block, err);
			if (!ret)
				ret = take_block(making, directory, block, err);
		}
	}
	return ret;
}

static int compare_names(const void *left, const void *right, void *strings)
{
	const struct name *a = left, *b = right;
	const size_t least = a->bytes < b->bytes ? a->bytes : b->bytes;
	const int order = memcmp((const char *)strings + a->text, (const char *)strings + b->text, least);
	return order ? order : a->bytes - b->bytes;
}

/* ---- what the names lead to -------------------------------------------------------------------------------------------------- */

/* Why Linux would not open the inode in reader->inode; NULL: it would. */
static const char *why_unusable(const struct ext4_inode *inode)
{
	const uint32_t type = le16_get(inode->i_mode) & S_IFMT;
	if (le16_get(inode->i_links_count) == 0)
		return "its inode is free";
	if (le32_get(inode->i_flags) & EXT4_EA_INODE_FL)
		return "its inode holds an extended attribute";
	if (type != S_IFREG && type != S_IFDIR && type != S_IFLNK && type != S_IFCHR && type != S_IFBLK && type != S_IFIFO &&
	    type != S_IFSOCK)
		return "its inode is of no known type";
	return NULL;
}

/* Finds or adds the inode of a name. `why` says why the name is left out. */
static int find_inode(struct making *making, uint32_t number, uint32_t *inode, const char **why, struct error *err)
{
	struct ext4_reader *reader = making->reader;
	const uint32_t first = le32_get(reader->super.s_rev_level) ? le32_get(reader->super.s_first_ino) : EXT4_FIRST_INO;
	const uint64_t *known = map_get(&making->known, number);
	*why = NULL;
	if (known) {
		*inode = (uint32_t)*known;
		if (S_ISDIR(inode_at(making, *inode)->mode))
			*why = "its directory has another name already";
		return 0;
	}
	if (number < first || number > reader->inode_count) {
		*why = "there is no such inode";
		return 0;
	}
	int ret = inode_read(reader, number, err);
	if (ret)
		return ret;
	*why = why_unusable(inode_fields(reader));
	*inode = (uint32_t)making->inodes.count;
	return *why ? 0 : making_inode(making, number, err);
}

static int add_entry(struct making *making, uint32_t directory, const struct name *name, uint32_t inode, struct error *err)
{
	const uint32_t number = (uint32_t)making->entries.count;
	struct tree_entry *entry = items_add(&making->entries, sizeof(*entry));
	if (!entry)
		return error_set(err, -ENOMEM, "out of memory");
	*entry = (struct tree_entry){
		.parent = directory, .next_sibling = TREE_NONE, .inode = inode, .name = name->text, .name_bytes = name->bytes
	};
	uint32_t *first = (uint32_t *)making->first_entries.data + inode;
	if (*first == TREE_NONE)
		*first = number;
	struct tree_inode *const parent = inode_at(making, directory), *const child = inode_at(making, inode);
	if (parent->first_child == TREE_NONE)
		parent->first_child = number;
	else
		entry[-1].next_sibling = number; /* children are neighbours */
	if (S_ISDIR(child->mode))
		child->nlink = 2, parent->nlink++;
	else
		child->nlink++;
	return 0;
}

static int add_children(struct making *making, uint32_t directory, struct error *err)
{
	struct name *const names = making->names.data;
	const size_t count = making->names.count;
	if (count > 1)
		qsort_r(names, count, sizeof(*names), compare_names, making->strings.data);
	int ret = 0;
	for (size_t i = 0; !ret && i < count; i++) {
		const char *why = NULL;
		uint32_t inode = TREE_NONE;
		if (i && compare_names(&names[i - 1], &names[i], making->strings.data) == 0)
			why = "it occurs twice";
		else
			ret = find_inode(making, names[i].inode, &inode, &why, err);
		const char *text = (const char *)making->strings.data + names[i].text;
		if (ret) {
			char quoted[600];
			return error_prefix(err, ret, "'%s'", error_quote(quoted, sizeof(quoted), text, names[i].bytes));
		}
		if (why)
			skip_name(making, directory, text, names[i].bytes, why);
		else
			ret = add_entry(making, directory, &names[i], inode, err);
	}
	return ret;
}

static int walk(struct making *making, struct error *err)
{
	struct tree_entry *root = items_add(&making->entries, sizeof(*root));
	if (!root)
		return error_set(err, -ENOMEM, "out of memory");
	root->next_sibling = TREE_NONE;
	int ret = inode_read(making->reader, EXT4_ROOT_INO, err);
	if (ret)
		return ret;
	if (!S_ISDIR(le16_get(inode_fields(making->reader)->i_mode)))
		return damaged(err, "%s", "the root is no directory");
	ret = making_inode(making, EXT4_ROOT_INO, err);
	if (ret)
		return error_prefix(err, ret, "'/'");
	inode_at(making, 0)->nlink = 2;
	for (uint32_t inode = 0; !ret && inode < making->inodes.count; inode++) {
		if (!S_ISDIR(inode_at(making, inode)->mode))
			continue;
		ret = read_names(making, inode, err);
		if (!ret)
			ret = add_children(making, inode, err);
		if (ret) {
			char path[600];
			error_prefix(err, ret, "directory '%s'", path_of(making, inode, path, sizeof(path)));
		}
	}
	return ret;
}

/* ---- the tree ---------------------------------------------------------------------------------------------------------------- */

static struct tree *finish(struct making *making)
{
	struct tree *tree = calloc(1, sizeof(*tree));
	if (!tree)
		return NULL;
	tree->entries = making->entries.data;
	tree->entry_count = (uint32_t)making->entries.count;
	tree->inodes = making->inodes.data;
	tree->inode_count = (uint32_t)making->inodes.count;
	tree->extents = making->extents.data;
	tree->extent_count = (uint32_t)making->extents.count;
	tree->xattrs = making->xattrs.data;
	tree->xattr_count = (uint32_t)making->xattrs.count;
	tree->strings = making->strings.data;
	tree->string_bytes = making->strings.count;
	making->entries = making->inodes = making->extents = making->xattrs = making->strings = (struct items){ NULL, 0, 0 };
	return tree;
}

int ext4_reader_tree(struct ext4_reader *reader, struct tree **tree, struct complaints *complaints, struct error *err)
{
	struct making making = { .reader = reader, .complaints = complaints };
	reader->blocks_left = reader->block_count;
	int ret = walk(&making, err);
	struct tree *made = ret ? NULL : finish(&making);
	if (!ret && !made)
		ret = error_set(err, -ENOMEM, "out of memory");
	if (!ret)
		*tree = made;
	struct items *const all[] = { &making.entries, &making.inodes,  &making.extents,       &making.xattrs,
				      &making.strings, &making.numbers, &making.first_entries, &making.block_xattrs,
				      &making.scratch, &making.names };
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		items_free(all[i]);
	map_free(&making.known);
	map_free(&making.xattr_blocks);
	map_free(&making.ea_inodes);
	return ret;
}

void ext4_reader_tree_destroy(struct tree *tree)
{
	if (!tree)
		return;
	free(tree->entries);
	free(tree->inodes);
	free(tree->extents);
	free(tree->xattrs);
	free(tree->strings);
	free(tree);
}
