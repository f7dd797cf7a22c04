/*
 * Whether two trees are the same to every program that could look: names, types, attributes, contents, which names are one file.
 *
 * Without Criterion: fuzz targets and small programs use it as well. Everything is static.
 */
#ifndef TRVMM_TESTS_UNIT_TREE_COMPARE_H
#define TRVMM_TESTS_UNIT_TREE_COMPARE_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "layers/tree.h"

#pragma GCC diagnostic ignored "-Wunused-function"

/* A tree and how the bytes are read that its extents name. */
struct tree_side {
	const struct tree *tree;
	int (*read)(void *data, uint32_t source, uint64_t offset, void *buffer, size_t length);
	void *data;
	unsigned ns_per_tick; /* times are compared in these; 0: 1 */
};

/* For trees of layers/: `data` is the tree. */
static int tree_side_read(void *data, uint32_t source, uint64_t offset, void *buffer, size_t length)
{
	const struct iovec iov = { buffer, length };
	return tree_source_readv(data, source, offset, &iov, 1);
}

/* The contents, holes as zeroes; the caller frees them. NULL: an error. */
static char *side_contents(const struct tree_side *side, const struct tree_inode *inode)
{
	char *data = calloc(1, inode->size_bytes + 1);
	for (uint32_t i = 0; data && i < inode->extent_count; i++) {
		const struct tree_extent *x = &side->tree->extents[inode->first_extent + i];
		if (x->file_offset + x->length > inode->size_bytes ||
		    side->read(side->data, x->source, x->source_offset, data + x->file_offset, x->length)) {
			free(data);
			data = NULL;
		}
	}
	return data;
}

#define COMPARE_CONTENTS_MAX (1ull << 26)

static const char *compare_contents(const struct tree_side *a, const struct tree_inode *x, const struct tree_side *b,
				    const struct tree_inode *y)
{
	if (x->size_bytes != y->size_bytes)
		return "size";
	if (S_ISLNK(x->mode))
		return memcmp(a->tree->strings + x->target, b->tree->strings + y->target, x->size_bytes) ? "target" : NULL;
	if (!S_ISREG(x->mode) || x->size_bytes > COMPARE_CONTENTS_MAX)
		return NULL;
	char *left = side_contents(a, x), *right = side_contents(b, y);
	const bool same = left && right && memcmp(left, right, x->size_bytes) == 0;
	free(left);
	free(right);
	return same ? NULL : "contents";
}

static const char *compare_xattr_lists(const struct tree_side *a, const struct tree_inode *x, const struct tree_side *b,
				       const struct tree_inode *y)
{
	if (x->xattr_count != y->xattr_count)
		return "number of extended attributes";
	for (uint32_t i = 0; i < x->xattr_count; i++) {
		const struct tree_xattr *p = &a->tree->xattrs[x->first_xattr + i], *q = &b->tree->xattrs[y->first_xattr + i];
		if (p->name_bytes != q->name_bytes || memcmp(a->tree->strings + p->name, b->tree->strings + q->name, p->name_bytes))
			return "name of an extended attribute";
		if (p->value_bytes != q->value_bytes ||
		    memcmp(a->tree->strings + p->value, b->tree->strings + q->value, p->value_bytes))
			return "value of an extended attribute";
	}
	return NULL;
}

static const char *compare_inodes(const struct tree_side *a, const struct tree_inode *x, const struct tree_side *b,
				  const struct tree_inode *y)
{
	const uint32_t tick = a->ns_per_tick ? a->ns_per_tick : 1;
	if (x->mode != y->mode)
		return "mode";
	if (x->uid != y->uid || x->gid != y->gid)
		return "owner";
	if (x->mtime_s != y->mtime_s || x->mtime_ns / tick != y->mtime_ns / tick)
		return "time";
	if (!S_ISDIR(x->mode) && x->nlink != y->nlink)
		return "number of links";
	if ((S_ISCHR(x->mode) || S_ISBLK(x->mode)) && x->rdev != y->rdev)
		return "device number";
	const char *what = compare_xattr_lists(a, x, b, y);
	return what ? what : compare_contents(a, x, b, y);
}

/* The next entry from `entry` on that counts: at the top without `skip` (names between slashes, or NULL). */
static uint32_t compare_step(const struct tree *tree, uint32_t entry, bool top, const char *skip)
{
	for (; top && skip && entry != TREE_NONE; entry = tree->entries[entry].next_sibling) {
		char name[300];
		snprintf(name, sizeof(name), "/%.*s/", (int)tree->entries[entry].name_bytes,
			 tree->strings + tree->entries[entry].name);
		if (!strstr(skip, name))
			break;
	}
	return entry;
}

/* `pair` has for each inode of the first tree which of the second it is. */
static bool compare_directories(const struct tree_side *a, uint32_t x, const struct tree_side *b, uint32_t y, uint32_t *pair,
				const char *skip, const char *path, char *why, size_t why_size)
{
	uint32_t e = compare_step(a->tree, a->tree->inodes[x].first_child, x == 0, skip);
	uint32_t f = compare_step(b->tree, b->tree->inodes[y].first_child, x == 0, skip);
	for (; e != TREE_NONE || f != TREE_NONE;) {
		const struct tree_entry *p = e == TREE_NONE ? NULL : &a->tree->entries[e];
		const struct tree_entry *q = f == TREE_NONE ? NULL : &b->tree->entries[f];
		char name[4096];
		const struct tree_entry *any = p ? p : q;
		snprintf(name, sizeof(name), "%s/%.*s", path, (int)any->name_bytes, (p ? a : b)->tree->strings + any->name);
		if (!p || !q || p->name_bytes != q->name_bytes ||
		    memcmp(a->tree->strings + p->name, b->tree->strings + q->name, p->name_bytes)) {
			snprintf(why, why_size, "%s or what stands beside it is only in one tree", name);
			return false;
		}
		const struct tree_inode *const i = &a->tree->inodes[p->inode], *const k = &b->tree->inodes[q->inode];
		const char *what = compare_inodes(a, i, b, k);
		if (!what && pair[p->inode] != TREE_NONE && pair[p->inode] != q->inode)
			what = "file that it is a link to";
		if (what) {
			snprintf(why, why_size, "%s: another %s", name, what);
			return false;
		}
		pair[p->inode] = q->inode;
		if (S_ISDIR(i->mode) && !compare_directories(a, p->inode, b, q->inode, pair, skip, name, why, why_size))
			return false;
		e = compare_step(a->tree, p->next_sibling, x == 0, skip);
		f = compare_step(b->tree, q->next_sibling, x == 0, skip);
	}
	return true;
}

/* Whether both are the same but for `skip` at their tops; else `why` tells the first difference. */
static bool trees_are_same(const struct tree_side *a, const struct tree_side *b, const char *skip, char *why, size_t why_size)
{
	const char *what = compare_inodes(a, &a->tree->inodes[0], b, &b->tree->inodes[0]);
	if (what) {
		snprintf(why, why_size, "/: another %s", what);
		return false;
	}
	uint32_t *pair = malloc(a->tree->inode_count * sizeof(*pair));
	memset(pair, 0xFF, a->tree->inode_count * sizeof(*pair));
	const bool same = compare_directories(a, 0, b, 0, pair, skip, "", why, why_size);
	free(pair);
	return same;
}

#endif
