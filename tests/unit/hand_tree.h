/*
 * Trees built by hand, for tests of what reads trees. Without Criterion: fuzz targets use them as well.
 *
 * Everything is static; a file that includes this uses what it needs.
 */
#ifndef TRVMM_TESTS_UNIT_HAND_TREE_H
#define TRVMM_TESTS_UNIT_HAND_TREE_H

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "layers/tree.h"

#pragma GCC diagnostic ignored "-Wunused-function"

/* A tree under construction. Sources 0 and 1 exist from the start: a pattern in memory, and a sparse file of 2 TiB. */
struct hand {
	struct tree tree;
	size_t entry_room, inode_room, extent_room, xattr_room, string_room;
	uint32_t *last_child; /* of each directory */
};

#define PATTERN_BYTES (4u << 20)
#define SOURCE_PATTERN 0u
#define SOURCE_SPARSE 1u
#define SPARSE_BYTES (2ull << 40)

static inline uint64_t hand_random(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	uint64_t v = *state;
	v = (v ^ v >> 30) * 0xBF58476D1CE4E5B9u;
	return v ^ v >> 31;
}

static void *hand_grow(void *array, size_t *room, size_t used, size_t size)
{
	if (used < *room)
		return array;
	*room = *room * 2 + 64;
	array = realloc(array, *room * size);
	assert(array);
	return array;
}

static uint32_t hand_string(struct hand *h, const void *bytes, size_t length)
{
	while (h->tree.string_bytes + length >= h->string_room) {
		h->string_room = h->string_room * 2 + 4096;
		h->tree.strings = realloc(h->tree.strings, h->string_room);
		assert(h->tree.strings);
	}
	const uint32_t at = (uint32_t)h->tree.string_bytes;
	memcpy(h->tree.strings + at, bytes, length);
	h->tree.string_bytes += length;
	return at;
}

static uint32_t hand_inode(struct hand *h, uint32_t mode)
{
	const size_t room = h->inode_room;
	h->tree.inodes = hand_grow(h->tree.inodes, &h->inode_room, h->tree.inode_count, sizeof(struct tree_inode));
	if (h->inode_room != room)
		h->last_child = realloc(h->last_child, h->inode_room * sizeof(uint32_t));
	const uint32_t inode = h->tree.inode_count++;
	h->tree.inodes[inode] = (struct tree_inode){
		.mode = mode, .mtime_s = 1700000000 + inode, .mtime_ns = 123456789, .nlink = S_ISDIR(mode) ? 2 : 0,
	};
	if (S_ISDIR(mode))
		h->tree.inodes[inode].first_child = TREE_NONE;
	h->last_child[inode] = TREE_NONE;
	return inode;
}

/* Gives `inode` one more name. Names are linked in the order of the calls; hand_sort() puts them in the tree's order. */
static uint32_t hand_link_bytes(struct hand *h, uint32_t parent, const char *name, size_t length, uint32_t inode)
{
	h->tree.entries = hand_grow(h->tree.entries, &h->entry_room, h->tree.entry_count, sizeof(struct tree_entry));
	const uint32_t e = h->tree.entry_count++;
	h->tree.entries[e] = (struct tree_entry){
		.parent = parent, .next_sibling = TREE_NONE, .inode = inode,
		.name = hand_string(h, name, length), .name_bytes = (uint16_t)length,
	};
	if (e == 0)
		return e;
	if (h->last_child[parent] == TREE_NONE)
		h->tree.inodes[parent].first_child = e;
	else
		h->tree.entries[h->last_child[parent]].next_sibling = e;
	h->last_child[parent] = e;
	if (S_ISDIR(h->tree.inodes[inode].mode))
		h->tree.inodes[parent].nlink++;
	else
		h->tree.inodes[inode].nlink++;
	return e;
}

static uint32_t hand_link(struct hand *h, uint32_t parent, const char *name, uint32_t inode)
{
	return hand_link_bytes(h, parent, name, strlen(name), inode);
}

static struct hand *hand_create(void)
{
	struct hand *h = calloc(1, sizeof(*h));
	assert(h);
	uint8_t *pattern = malloc(PATTERN_BYTES);
	uint64_t state = 1;
	for (size_t i = 0; i < PATTERN_BYTES; i += 8) {
		const uint64_t value = hand_random(&state);
		memcpy(pattern + i, &value, 8);
	}
	h->tree.sources = calloc(2, sizeof(struct tree_source));
	h->tree.source_count = 2;
	h->tree.sources[0] = (struct tree_source){ .fd = -1, .memory = pattern, .size_bytes = PATTERN_BYTES };
	const int fd = memfd_create("sparse", MFD_CLOEXEC);
	assert(fd >= 0 && ftruncate(fd, (off_t)SPARSE_BYTES) == 0);
	h->tree.sources[1] = (struct tree_source){ .fd = fd, .size_bytes = SPARSE_BYTES };
	hand_inode(h, S_IFDIR | 0755);
	hand_link_bytes(h, 0, "", 0, 0);
	return h;
}

/* Cuts the arrays to what is in use, so that a sanitizer sees every access behind their ends. Nothing is added afterwards. */
static void hand_trim(struct hand *h)
{
	struct tree *t = &h->tree;
	t->entries = realloc(t->entries, t->entry_count * sizeof(*t->entries));
	t->inodes = realloc(t->inodes, t->inode_count * sizeof(*t->inodes));
	t->extents = realloc(t->extents, t->extent_count * sizeof(*t->extents));
	t->xattrs = realloc(t->xattrs, t->xattr_count * sizeof(*t->xattrs));
	t->strings = realloc(t->strings, t->string_bytes);
}

static void hand_destroy(struct hand *h)
{
	union { const uint8_t *in; uint8_t *out; } memory = { .in = h->tree.sources[0].memory };
	free(memory.out);
	close(h->tree.sources[1].fd);
	free(h->tree.sources);
	free(h->tree.entries);
	free(h->tree.inodes);
	free(h->tree.extents);
	free(h->tree.xattrs);
	free(h->tree.strings);
	free(h->last_child);
	free(h);
}

static uint32_t hand_dir(struct hand *h, uint32_t parent, const char *name)
{
	const uint32_t inode = hand_inode(h, S_IFDIR | 0755);
	hand_link(h, parent, name, inode);
	return inode;
}

static uint32_t hand_empty_file(struct hand *h, uint32_t parent, const char *name, uint64_t size)
{
	const uint32_t inode = hand_inode(h, S_IFREG | 0644);
	h->tree.inodes[inode].size_bytes = size;
	hand_link(h, parent, name, inode);
	return inode;
}

/* Appends an extent; an inode's extents are added one after the other, no other inode's between them. */
static void hand_extent(struct hand *h, uint32_t inode, uint64_t file_offset, uint32_t source, uint64_t source_offset,
			uint64_t length)
{
	h->tree.extents = hand_grow(h->tree.extents, &h->extent_room, h->tree.extent_count, sizeof(struct tree_extent));
	struct tree_inode *to = &h->tree.inodes[inode];
	if (to->extent_count == 0)
		to->first_extent = h->tree.extent_count;
	to->extent_count++;
	h->tree.extents[h->tree.extent_count++] = (struct tree_extent){
		.file_offset = file_offset, .source_offset = source_offset, .length = length, .source = source,
	};
}

/*
 * A file of one extent from the pattern (up to PATTERN_BYTES), at a source offset that depends on its number and is aligned to
 * 512.
 */
static uint32_t hand_file(struct hand *h, uint32_t parent, const char *name, uint64_t size)
{
	const uint32_t inode = hand_empty_file(h, parent, name, size);
	if (size)
		hand_extent(h, inode, 0, SOURCE_PATTERN, (inode * 7u * 512) % (PATTERN_BYTES - size + 1) / 512 * 512, size);
	return inode;
}

static uint32_t hand_symlink(struct hand *h, uint32_t parent, const char *name, size_t length)
{
	const uint32_t inode = hand_inode(h, S_IFLNK | 0777);
	char target[8192];
	for (size_t i = 0; i < length; i++)
		target[i] = (char)(i % 10 == 9 ? '/' : 'a' + (char)(i % 26));
	h->tree.inodes[inode].size_bytes = length;
	h->tree.inodes[inode].target = hand_string(h, target, length);
	hand_link(h, parent, name, inode);
	return inode;
}

static uint32_t hand_node(struct hand *h, uint32_t parent, const char *name, uint32_t mode, uint32_t rdev)
{
	const uint32_t inode = hand_inode(h, mode);
	h->tree.inodes[inode].rdev = rdev;
	hand_link(h, parent, name, inode);
	return inode;
}

/* Attributes of one inode are added one after the other, in order of name. */
static void hand_xattr(struct hand *h, uint32_t inode, const char *name, const void *value, size_t length)
{
	h->tree.xattrs = hand_grow(h->tree.xattrs, &h->xattr_room, h->tree.xattr_count, sizeof(struct tree_xattr));
	struct tree_inode *to = &h->tree.inodes[inode];
	if (to->xattr_count == 0)
		to->first_xattr = h->tree.xattr_count;
	to->xattr_count++;
	h->tree.xattrs[h->tree.xattr_count++] = (struct tree_xattr){
		.name = hand_string(h, name, strlen(name)), .name_bytes = (uint16_t)strlen(name),
		.value = hand_string(h, value, length), .value_bytes = (uint32_t)length,
	};
}

static int hand_order(const struct hand *h, uint32_t a, uint32_t b)
{
	const struct tree_entry *x = &h->tree.entries[a], *y = &h->tree.entries[b];
	const size_t least = x->name_bytes < y->name_bytes ? x->name_bytes : y->name_bytes;
	const int order = memcmp(h->tree.strings + x->name, h->tree.strings + y->name, least);
	return order ? order : x->name_bytes - y->name_bytes;
}

/* Links the names of each directory in the tree's order. Nothing is added afterwards. */
static void hand_sort(struct hand *h)
{
	for (uint32_t i = 0; i < h->tree.inode_count; i++) {
		if (!S_ISDIR(h->tree.inodes[i].mode))
			continue;
		uint32_t sorted = TREE_NONE, next;
		for (uint32_t e = h->tree.inodes[i].first_child; e != TREE_NONE; e = next) {
			next = h->tree.entries[e].next_sibling;
			uint32_t *at = &sorted;
			while (*at != TREE_NONE && hand_order(h, *at, e) < 0)
				at = &h->tree.entries[*at].next_sibling;
			h->tree.entries[e].next_sibling = *at;
			*at = e;
		}
		h->tree.inodes[i].first_child = sorted;
	}
}

/* One of everything, in names d, f, s*, and so on. */
static struct hand *hand_rich(void)
{
	struct hand *h = hand_create();
	char name[300];
	const uint32_t d = hand_dir(h, 0, "d");
	hand_dir(h, d, "empty");
	memset(name, 'n', sizeof(name));
	hand_link_bytes(h, d, name, 255, hand_inode(h, S_IFREG | 0600));
	hand_node(h, 0, "dev-b", S_IFBLK | 0660, 259 << 20 | 70000);
	hand_node(h, 0, "dev-c", S_IFCHR | 0666, 1 << 20 | 3);
	const uint32_t f = hand_dir(h, 0, "f");
	static const uint64_t sizes[] = { 0, 1, 511, 512, 513, 4095, 4096, 4097, 8192, 1 << 20, (1 << 20) + 1 };
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		snprintf(name, sizeof(name), "f%llu", (unsigned long long)sizes[i]);
		const uint32_t inode = hand_file(h, f, name, sizes[i]);
		h->tree.inodes[inode].uid = (uint32_t)i * 10007;
		h->tree.inodes[inode].gid = 4000000000u - (uint32_t)i;
		h->tree.inodes[inode].mode = S_IFREG | (uint32_t)(01000 << i % 3) | 0751;
	}
	hand_link(h, 0, "hard", f + 3);
	hand_node(h, 0, "pipe", S_IFIFO | 0600, 0);
	static const size_t targets[] = { 1, 58, 59, 60, 61, 4095 };
	for (size_t i = 0; i < sizeof(targets) / sizeof(targets[0]); i++) {
		snprintf(name, sizeof(name), "s%04zu", targets[i]);
		hand_symlink(h, 0, name, targets[i]);
	}
	hand_node(h, 0, "socket", S_IFSOCK | 0600, 0);
	/* Sparse: a hole in front, one between, an extent that begins and ends inside a block, one more hole at the end. */
	const uint32_t sparse = hand_empty_file(h, 0, "sparse", 10 << 20);
	for (uint32_t i = 0; i < 12; i++)
		hand_extent(h, sparse, 5000 + i * 100000, SOURCE_PATTERN, 1000 + i * 3333, i % 2 ? 512 : 20000);
	const uint32_t t = hand_dir(h, 0, "times");
	static const int64_t times[] = { -2147483648, -1, 0, 2147483647, 2147483648, 4294967295, 4294967296, 10737418239 };
	for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++) {
		snprintf(name, sizeof(name), "t%zu", i);
		const uint32_t inode = hand_file(h, t, name, 0);
		h->tree.inodes[inode].mtime_s = times[i];
		h->tree.inodes[inode].mtime_ns = i % 2 ? 999999999 : 0;
	}
	h->tree.inodes[0].mode = S_IFDIR | 01777;
	h->tree.inodes[0].uid = 5;
	return h;
}

/* Many long names for one inode in a new directory `name` of the root: a directory of many blocks, with an index. Returns its number. */
static inline uint32_t hand_many_names(struct hand *h, const char *name, uint32_t count, uint32_t inode)
{
	const uint32_t directory = hand_dir(h, 0, name);
	for (uint32_t i = 0; i < count; i++) {
		char long_name[64];
		snprintf(long_name, sizeof(long_name), "a-rather-long-name-of-a-file-%08u", i);
		hand_link(h, directory, long_name, inode);
	}
	return directory;
}

#endif
