/*
 * libFuzzer target for layers/: archives as bytes, and merges as a script.
 *
 * Build with clang -fsanitize=fuzzer,address,undefined, this file, all of layers/, base/error.c and base/iov.c, -lz -lcrypto; run
 * with
 * -max_len=16384 CORPUS tests/fuzz/seeds/tar.
 *
 * The first byte chooses. Even: the rest is an archive, whose header checksums are put right first, since a fuzzer does not learn
 * them; it is applied twice, as a layer onto itself. Odd: each three bytes are an entry of a few paths in a few layers, so that
 * whiteouts, links and replaced types meet.
 *
 * Beyond crashes: a tree that comes out must satisfy index_check(), its siblings must ascend, look-up must find every entry, and
 * moving the whiteouts of each layer to its start must not change the result.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "layers/builder_internal.h"
#include "layers/index_internal.h"
#include "tests/fuzz/require.h"

static void check_siblings(const struct tree *tree)
{
	for (uint32_t i = 1; i < tree->entry_count; i++) {
		const struct tree_entry *a = &tree->entries[i];
		if (a->next_sibling == TREE_NONE)
			continue;
		const struct tree_entry *b = &tree->entries[a->next_sibling];
		const size_t least = a->name_bytes < b->name_bytes ? a->name_bytes : b->name_bytes;
		const int order = memcmp(tree->strings + a->name, tree->strings + b->name, least);
		REQUIRE(order < 0 || (order == 0 && a->name_bytes < b->name_bytes));
	}
}

/* The path of an entry; NULL when it is longer than the buffer. Its end is at the buffer's end. */
static char *path_of(const struct tree *tree, const uint32_t *entry_of, uint32_t entry, char *buffer, size_t size)
{
	size_t at = size - 1;
	buffer[at] = '\0';
	while (entry) {
		const struct tree_entry *e = &tree->entries[entry];
		if (at < e->name_bytes + 1u)
			return NULL;
		at -= e->name_bytes;
		memcpy(buffer + at, tree->strings + e->name, e->name_bytes);
		buffer[--at] = '/';
		entry = entry_of[e->parent];
	}
	return buffer + at;
}

static uint32_t *directory_entries(const struct tree *tree)
{
	uint32_t *entry_of = calloc(tree->inode_count, sizeof(*entry_of));
	for (uint32_t i = 0; i < tree->entry_count; i++)
		entry_of[tree->entries[i].inode] = i;
	return entry_of;
}

static void check_lookup(const struct tree *tree)
{
	char buffer[4096];
	uint32_t *entry_of = directory_entries(tree);
	for (uint32_t i = 0; i < tree->entry_count && i < 200; i++) {
		const char *path = path_of(tree, entry_of, i, buffer, sizeof(buffer));
		if (path)
			REQUIRE(tree_lookup(tree, path, 0) == i);
		if (path)
			tree_lookup(tree, path, 1);
	}
	free(entry_of);
}

static void check_contents(const struct tree *tree)
{
	for (uint32_t i = 0; i < tree->inode_count && i < 200; i++) {
		char *data;
		size_t length;
		if (S_ISREG(tree->inodes[i].mode) && tree_read_file(tree, i, 1 << 16, &data, &length) == 0)
			free(data);
	}
}

static struct tree *finish(struct tree_builder *builder)
{
	struct tree *tree = NULL;
	struct error err;
	REQUIRE(tree_builder_finish(builder, &tree, &err) == 0);
	REQUIRE(index_check(tree) == 0);
	check_siblings(tree);
	check_lookup(tree);
	check_contents(tree);
	return tree;
}

/* ---- archives ---- */

static int apply_archive(struct tree_builder *builder, const uint8_t *bytes, size_t length)
{
	struct error err = { "" };
	struct tar_reader reader;
	struct tar_entry entry;
	uint32_t source;
	REQUIRE(builder_begin_layer(builder, &err) == 0);
	REQUIRE(builder_add_source(builder, -1, bytes, length, "fuzz", &source) == 0);
	tar_open(&reader, -1, bytes, length);
	int ret;
	while ((ret = tar_next(&reader, &entry, &err)) > 0) {
		for (uint32_t i = 0; i < entry.extent_count; i++)
			REQUIRE(entry.extents[i].source_offset + entry.extents[i].length <= length);
		ret = builder_merge(builder, &entry, source, &err);
		if (ret)
			break;
	}
	tar_close(&reader);
	REQUIRE(ret >= 0 || (err.text[0] && !strchr(err.text, '\n')));
	return ret;
}

static void repair_checksums(uint8_t *bytes, size_t length)
{
	for (size_t at = 0; at + TAR_BLOCK_BYTES <= length; at += TAR_BLOCK_BYTES) {
		uint8_t *block = bytes + at;
		unsigned sum = 0;
		/* Only what looks like a header and has a checksum field to repair. */
		if (!block[0] || block[148] != '0')
			continue;
		memset(block + 148, ' ', 8);
		for (size_t i = 0; i < TAR_BLOCK_BYTES; i++)
			sum += block[i];
		snprintf((char *)block + 148, 7, "%06o", sum & 0777777u);
	}
}

static void fuzz_archive(const uint8_t *data, size_t length)
{
	uint8_t *bytes = malloc(length + 1);
	memcpy(bytes, data, length);
	repair_checksums(bytes, length);
	struct tree_builder *builder = tree_builder_create();
	if (apply_archive(builder, bytes, length) == 0 && apply_archive(builder, bytes, length) == 0)
		tree_destroy(finish(builder));
	tree_builder_destroy(builder);
	free(bytes);
}

/* ---- scripts ---- */

enum kind { FILE_ENTRY, DIRECTORY, SYMLINK, HARD_LINK, WHITEOUT, OPAQUE, NEXT_LAYER, KINDS };

/* A path of up to four components a, b, c out of eight bits; with `whiteout` the last one is hidden. */
static size_t make_path(uint8_t bits, enum kind kind, char *out)
{
	size_t used = 0;
	for (unsigned i = 0; i < 4 && bits; i++, bits >>= 2) {
		const bool last = bits >> 2 == 0;
		out[used++] = '/';
		if (kind == WHITEOUT && last)
			used += (size_t)sprintf(out + used, ".wh.");
		out[used++] = (char)('`' + (bits & 3 ? bits & 3 : 4));
	}
	if (kind == OPAQUE)
		used += (size_t)sprintf(out + used, "/.wh..wh..opq");
	return used;
}

/* Returns false when the entry is refused, which ends the script. */
static bool apply_item(struct tree_builder *builder, const uint8_t *item, size_t number)
{
	char path[64], link[64];
	struct error err = { "" };
	const enum kind kind = item[0] % KINDS;
	struct tar_entry entry = { .number = number, .mtime_s = (int64_t)number, .mode = 0700 };
	entry.path = (struct slice){ path, make_path(item[1], kind, path) };
	entry.link = (struct slice){ link, make_path(item[2], FILE_ENTRY, link) };
	entry.hard_link = kind == HARD_LINK;
	if (kind == SYMLINK && item[0] & 0x80) { /* a relative target that climbs */
		memmove(link + 2, link, entry.link.length);
		memcpy(link, "..", 2);
		entry.link.length += 2;
	}
	entry.mode |= kind == DIRECTORY ? S_IFDIR : kind == SYMLINK ? S_IFLNK : S_IFREG;
	if (kind == WHITEOUT && !entry.path.length)
		return true;
	return builder_merge(builder, &entry, 0, &err) == 0;
}

static bool is_marker(const uint8_t *item)
{
	return item[0] % KINDS == WHITEOUT || item[0] % KINDS == OPAQUE;
}

/* Applies the items of a script from `at` on, up to the next layer: the markers, or the others, or all in their order. */
static size_t apply_layer(struct tree_builder *builder, const uint8_t *data, size_t length, size_t at, bool markers, bool others,
			  bool *good)
{
	for (; at + 3 <= length && data[at] % KINDS != NEXT_LAYER; at += 3) {
		if (*good && (is_marker(data + at) ? markers : others))
			*good = apply_item(builder, data + at, at);
	}
	return at;
}

/* NULL: an entry was refused. */
static struct tree *run_script(const uint8_t *data, size_t length, bool markers_first)
{
	struct tree_builder *builder = tree_builder_create();
	bool good = true;
	for (size_t at = 0; at + 3 <= length; at += 3) {
		REQUIRE(builder_begin_layer(builder, NULL) == 0);
		if (markers_first)
			apply_layer(builder, data, length, at, true, false, &good);
		at = apply_layer(builder, data, length, at, !markers_first, true, &good);
	}
	struct tree *tree = good ? finish(builder) : NULL;
	tree_builder_destroy(builder);
	return tree;
}

/* Links make the order matter: what a path leads to, or a hard link finds, may be hidden by a marker behind it. */
static bool order_matters(const uint8_t *data, size_t length)
{
	for (size_t at = 0; at + 3 <= length; at += 3) {
		if (data[at] % KINDS == SYMLINK || data[at] % KINDS == HARD_LINK)
			return true;
	}
	return false;
}

static void require_same(const struct tree *a, const struct tree *b)
{
	REQUIRE(a->entry_count == b->entry_count);
	for (uint32_t i = 0; i < a->entry_count; i++) {
		const struct tree_entry *x = &a->entries[i], *y = &b->entries[i];
		const struct tree_inode *n = &a->inodes[x->inode], *m = &b->inodes[y->inode];
		REQUIRE(x->name_bytes == y->name_bytes && memcmp(a->strings + x->name, b->strings + y->name, x->name_bytes) == 0);
		REQUIRE(x->next_sibling == y->next_sibling && n->mode == m->mode && n->mtime_s == m->mtime_s &&
			n->nlink == m->nlink);
		REQUIRE(!S_ISDIR(n->mode) || n->first_child == m->first_child);
	}
}

static void fuzz_script(const uint8_t *data, size_t length)
{
	struct tree *tree = run_script(data, length, false);
	if (tree && !order_matters(data, length)) {
		struct tree *other = run_script(data, length, true);
		if (other)
			require_same(tree, other);
		tree_destroy(other);
	}
	tree_destroy(tree);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length)
{
	if (!length)
		return 0;
	if (data[0] & 1)
		fuzz_script(data + 1, length - 1);
	else
		fuzz_archive(data + 1, length - 1);
	return 0;
}
