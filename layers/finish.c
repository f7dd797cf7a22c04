/*
 * From a growing tree to a finished one: what can be reached from the root, in dense arrays.
 *
 * The order of entries is a list of entry numbers, breadth first; it is its own queue, so depth costs nothing. Inodes keep the
 * order in which they were brought. All arrays of the result lie in one mapping of exactly their size, and everything else goes
 * back to the system.
 */
#include "layers/builder_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "layers/arrays_internal.h"

struct finish {
	struct tree_builder *builder;
	uint32_t *order;       /* entry numbers of the builder, breadth first */
	uint32_t *children;    /* for each of them, where its children start in `order`; they end where the next one's start */
	uint32_t entry_count;
	uint32_t *renumbered;  /* for each inode of the builder: its new number, TREE_NONE: nobody names it */
	struct array scratch[3];
	struct tree *tree;
	uint64_t strings_used;
};

static int compare_names(const void *left, const void *right, void *context)
{
	const struct tree_builder *builder = context;
	const struct tree_entry *a = builder_entry(builder, *(const uint32_t *)left);
	const struct tree_entry *b = builder_entry(builder, *(const uint32_t *)right);
	const size_t least = a->name_bytes < b->name_bytes ? a->name_bytes : b->name_bytes;
	const int order = memcmp(builder->strings.data + a->name, builder->strings.data + b->name, least);
	return order ? order : (int)a->name_bytes - (int)b->name_bytes;
}

/* Most layers bring the names of a directory in order already. */
static void sort_names(struct tree_builder *builder, uint32_t *entries, uint32_t count)
{
	for (uint32_t i = 1; i < count; i++) {
		if (compare_names(&entries[i - 1], &entries[i], builder) > 0) {
			qsort_r(entries, count, sizeof(*entries), compare_names, builder);
			return;
		}
	}
}

/* Links every entry into the list of its directory, in the order of the entries; the hashes and parents that lay there are gone. */
static void link_children(struct tree_builder *builder)
{
	const uint32_t inode_count = (uint32_t)(builder->inodes.used / sizeof(struct tree_inode));
	for (uint32_t i = 0; i < inode_count; i++) {
		struct tree_inode *inode = builder_inode(builder, i);
		if (S_ISDIR(inode->mode))
			inode->first_child = TREE_NONE;
	}
	for (uint32_t e = (uint32_t)(builder->entries.used / sizeof(struct tree_entry)); --e;) {
		struct tree_entry *entry = builder_entry(builder, e);
		struct tree_inode *parent = builder_inode(builder, entry->parent);
		entry->next_sibling = parent->first_child;
		parent->first_child = e;
	}
}

static void put_in_order(struct finish *finish)
{
	struct tree_builder *builder = finish->builder;
	finish->order[0] = 0;
	finish->entry_count = 1;
	for (uint32_t i = 0; i < finish->entry_count; i++) {
		const uint32_t number = builder_entry(builder, finish->order[i])->inode;
		const struct tree_inode *inode = builder_inode(builder, number);
		const uint32_t first = finish->entry_count;
		finish->renumbered[number] = 0;
		if (S_ISDIR(inode->mode)) {
			for (uint32_t e = inode->first_child; e != TREE_NONE; e = builder_entry(builder, e)->next_sibling) {
				if (builder_entry_visible(builder, e))
					finish->order[finish->entry_count++] = e;
			}
			sort_names(builder, finish->order + first, finish->entry_count - first);
		}
		finish->children[i] = first;
		finish->children[i + 1] = finish->entry_count;
	}
}

/* Gives the inodes that are named their new numbers and counts what the result will hold. */
static int count(struct finish *finish, struct tree_counts *counts)
{
	struct tree_builder *builder = finish->builder;
	const uint32_t inode_count = (uint32_t)(builder->inodes.used / sizeof(struct tree_inode));
	counts->entries = finish->entry_count;
	for (uint32_t i = 0; i < finish->entry_count; i++)
		counts->strings += builder_entry(builder, finish->order[i])->name_bytes;
	for (uint32_t i = 0; i < inode_count; i++) {
		if (finish->renumbered[i] == TREE_NONE)
			continue;
		const struct tree_inode *inode = builder_inode(builder, i);
		finish->renumbered[i] = counts->inodes++;
		if (S_ISREG(inode->mode))
			counts->extents += inode->extent_count;
		else if (S_ISLNK(inode->mode))
			counts->strings += inode->size_bytes;
		counts->xattrs += inode->xattr_count;
		for (uint32_t x = 0; x < inode->xattr_count; x++) {
			const struct tree_xattr *xattr = (struct tree_xattr *)(void *)builder->xattrs.data + inode->first_xattr + x;
			counts->strings += xattr->name_bytes + (uint64_t)xattr->value_bytes;
		}
	}
	return counts->strings <= UINT32_MAX ? 0 : -EFBIG;
}

static uint32_t copy_string(struct finish *finish, uint32_t offset, size_t length)
{
	const uint64_t at = finish->strings_used;
	if (length)
		memcpy(finish->tree->strings + at, finish->builder->strings.data + offset, length);
	finish->strings_used += length;
	return (uint32_t)at;
}

static void fill_xattrs(struct finish *finish, struct tree_inode *inode, uint32_t *used)
{
	if (!inode->xattr_count)
		return;
	const struct tree_xattr *from = (struct tree_xattr *)(void *)finish->builder->xattrs.data + inode->first_xattr;
	inode->first_xattr = *used;
	for (uint32_t i = 0; i < inode->xattr_count; i++) {
		struct tree_xattr *to = &finish->tree->xattrs[(*used)++];
		*to = from[i];
		to->name = copy_string(finish, from[i].name, from[i].name_bytes);
		to->value = copy_string(finish, from[i].value, from[i].value_bytes);
	}
}

static void fill_inodes(struct finish *finish)
{
	struct tree_builder *builder = finish->builder;
	const uint32_t inode_count = (uint32_t)(builder->inodes.used / sizeof(struct tree_inode));
	uint32_t extents = 0, xattrs = 0;
	for (uint32_t i = 0; i < inode_count; i++) {
		if (finish->renumbered[i] == TREE_NONE)
			continue;
		struct tree_inode *inode = &finish->tree->inodes[finish->renumbered[i]];
		*inode = *builder_inode(builder, i);
		inode->nlink = 0;
		if (S_ISDIR(inode->mode)) {
			inode->first_child = TREE_NONE;
			inode->extent_count = 0;
			inode->nlink = 1; /* "." */
		} else if (S_ISLNK(inode->mode)) {
			inode->target = copy_string(finish, inode->target, inode->size_bytes);
		} else if (S_ISREG(inode->mode) && inode->extent_count) {
			const struct tree_extent *from = (struct tree_extent *)(void *)builder->extents.data + inode->first_extent;
			memcpy(finish->tree->extents + extents, from, inode->extent_count * sizeof(*from));
			inode->first_extent = extents;
			extents += inode->extent_count;
		}
		fill_xattrs(finish, inode, &xattrs);
	}
}

static void fill_entries(struct finish *finish)
{
	struct tree_builder *builder = finish->builder;
	struct tree *tree = finish->tree;
	for (uint32_t i = 0; i < finish->entry_count; i++) {
		const struct tree_entry *from = builder_entry(builder, finish->order[i]);
		struct tree_entry *to = &tree->entries[i];
		const uint32_t inode = finish->renumbered[from->inode];
		/* Its directory stands before it, and has set its next_sibling below. */
		to->parent = finish->renumbered[from->parent];
		to->inode = inode;
		to->name = copy_string(finish, from->name, from->name_bytes);
		to->name_bytes = from->name_bytes;
		to->layer = from->layer;
		tree->inodes[inode].nlink++;
		if (!S_ISDIR(tree->inodes[inode].mode))
			continue;
		if (i)
			tree->inodes[to->parent].nlink++; /* ".." */
		const uint32_t first = finish->children[i], last = finish->children[i + 1];
		if (first < last)
			tree->inodes[inode].first_child = first;
		for (uint32_t c = first; c < last; c++)
			tree->entries[c].next_sibling = c + 1 < last ? c + 1 : TREE_NONE;
	}
	tree->entries[0].next_sibling = TREE_NONE;
}

static int allocate_scratch(struct finish *finish)
{
	const size_t entries = finish->builder->entries.used / sizeof(struct tree_entry) * sizeof(uint32_t);
	const size_t inodes = finish->builder->inodes.used / sizeof(struct tree_inode) * sizeof(uint32_t);
	finish->order = array_extend(&finish->scratch[0], entries);
	finish->children = array_extend(&finish->scratch[1], entries + sizeof(uint32_t));
	finish->renumbered = array_extend(&finish->scratch[2], inodes);
	if (!finish->order || !finish->children || !finish->renumbered)
		return -ENOMEM;
	memset(finish->renumbered, 0xff, inodes);
	return 0;
}

/* The sources change hands. */
static void take_sources(struct tree_builder *builder, struct tree *tree)
{
	tree->sources = builder->sources;
	tree->source_count = builder->source_count;
	tree->layer_count = builder->layer_count;
	builder->sources = NULL;
	builder->source_count = 0;
}

int tree_builder_finish(struct tree_builder *builder, struct tree **tree, struct error *err)
{
	struct finish finish = { .builder = builder };
	struct tree_counts counts = { 0 };
	int ret = allocate_scratch(&finish);
	if (!ret) {
		array_free(&builder->slots);
		link_children(builder);
		put_in_order(&finish);
		ret = count(&finish, &counts);
	}
	if (!ret) {
		finish.tree = calloc(1, sizeof(*finish.tree));
		ret = finish.tree ? tree_arrays_allocate(finish.tree, &counts) : -ENOMEM;
	}
	if (!ret) {
		fill_inodes(&finish);
		/* Before the rest of the result takes memory. */
		array_free(&builder->inodes);
		array_free(&builder->extents);
		array_free(&builder->xattrs);
		fill_entries(&finish);
		take_sources(builder, finish.tree);
		finish.tree->checksum = tree_arrays_checksum(finish.tree);
		*tree = finish.tree;
	} else {
		free(finish.tree);
		error_set(err, ret, "%s", ret == -EFBIG ? "more than 4 GiB of names" : "out of memory");
	}
	for (size_t i = 0; i < sizeof(finish.scratch) / sizeof(finish.scratch[0]); i++)
		array_free(&finish.scratch[i]);
	return ret;
}
