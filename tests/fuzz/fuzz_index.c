/*
 * libFuzzer target: a cached tree that was damaged, or forged, with a checksum that is right all the same.
 *
 * The input is changes to a good file, six bytes each: where (4, little-endian, modulo its size), the new byte, and whether the next
 * three bytes change with it (a whole number). An odd first byte cuts the file as well. Beyond crashes: what is accepted can be walked,
 * looked up, read and planned as a disk without looking.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ext4gen/ext4gen.h"
#include "layers/arrays_internal.h"
#include "layers/builder_internal.h"
#include "layers/index_internal.h"
#include "layers/layers.h"
#include "tests/fuzz/require.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length);

enum { CHANGE_BYTES = 6, CHECKSUM_OFFSET = 8, COVERED_OFFSET = 16, COUNTS_OFFSET = 40, LAYER_BYTES = 65536 };

static struct cache cache;
static struct layer_file layer;
static uint8_t *good, *bad;
static size_t good_bytes, key_end, origin_end;
static char index_path[200];

static uint64_t number_at(const uint8_t *bytes, size_t offset)
{
	uint64_t number;
	memcpy(&number, bytes + offset, sizeof(number));
	return number;
}

static void place(struct tree_builder *builder, const char *path, uint32_t mode, uint64_t at, uint64_t bytes, const char *link)
{
	const struct tree_extent extent = { .source_offset = at, .length = bytes };
	const struct tar_xattr xattr = { { "user.x", 6 }, { "value", 5 } };
	const struct tar_entry entry = {
		.path = { path, strlen(path) },
		.mode = mode,
		.size_bytes = bytes,
		.extents = &extent,
		.extent_count = bytes > 0,
		.link = { link, link ? strlen(link) : 0 },
		.xattrs = &xattr,
		.xattr_count = S_ISREG(mode),
	};
	struct error err;
	REQUIRE(builder_merge(builder, &entry, 0, &err) == 0);
}

static struct tree *make_tree(void)
{
	struct tree_builder *builder = tree_builder_create();
	struct tree *tree;
	struct error err;
	uint32_t source;
	REQUIRE(builder_begin_layer(builder, &err) == 0);
	REQUIRE(builder_add_source(builder, dup(layer.fd), NULL, LAYER_BYTES, "layer", &source) == 0);
	place(builder, "a/b/c", S_IFREG | 0644, 512, 5000, NULL);
	place(builder, "a/empty", S_IFREG | 0600, 0, 0, NULL);
	place(builder, "a/link", S_IFLNK | 0777, 0, 0, "b/c");
	place(builder, "null", S_IFCHR | 0666, 0, 0, NULL);
	place(builder, "fifo", S_IFIFO | 0666, 0, 0, NULL);
	for (unsigned i = 0; i < 30; i++) {
		char name[40];
		snprintf(name, sizeof(name), "many/file-with-a-name-%u", i);
		place(builder, name, S_IFREG | 0644, i * 1024, 700, NULL);
	}
	REQUIRE(tree_builder_finish(builder, &tree, &err) == 0);
	tree_builder_destroy(builder);
	return tree;
}

static void begin(void)
{
	static char directory[] = "/tmp/trvmm-fuzz-XXXXXX";
	static char name[] = "layer";
	struct error err = { "" };
	REQUIRE(mkdtemp(directory) && cache_open(&cache, directory, &err) == 0);
	layer = (struct layer_file){
		.name = name, .fd = memfd_create("layer", MFD_CLOEXEC), .length = LAYER_BYTES, .tar_bytes = LAYER_BYTES
	};
	REQUIRE(ftruncate(layer.fd, LAYER_BYTES) == 0);
	usleep(100000); /* until its times can be relied on */
	REQUIRE(fstat(layer.fd, &layer.st) == 0);
	struct tree *tree = make_tree();
	index_save(&cache, &layer, 1, NULL, 0, tree);
	tree_destroy(tree);
	char command[300];
	snprintf(command, sizeof(command), "ls -d %s/trees/*", directory);
	FILE *ls = popen(command, "r");
	REQUIRE(ls && fgets(index_path, sizeof(index_path), ls));
	pclose(ls);
	index_path[strcspn(index_path, "\n")] = '\0';
	const int fd = open(index_path, O_RDONLY);
	struct stat st;
	REQUIRE(fd >= 0 && fstat(fd, &st) == 0);
	good_bytes = (size_t)st.st_size;
	good = malloc(good_bytes);
	bad = malloc(good_bytes);
	REQUIRE(read(fd, good, good_bytes) == (ssize_t)good_bytes);
	close(fd);
	/* The head: magic, checksum, version and layer count, key_bytes, origin_bytes, counts. */
	key_end = 72 + number_at(good, 24);
	origin_end = key_end + number_at(good, 32);
}

/* As the writer chains it: the arrays by the counts in the head, the extents, the head, key and origins. */
static void repair_checksum(size_t bytes)
{
	struct tree_counts counts;
	struct tree tree = { 0 };
	size_t arrays_bytes;
	memcpy(&counts, bad + COUNTS_OFFSET, sizeof(counts));
	if (bytes < origin_end || tree_arrays_bytes(&counts, &arrays_bytes) || arrays_bytes != bytes - origin_end)
		return;
	tree_arrays_place(&tree, &counts, bad + origin_end);
	uint64_t sum = cache_checksum(tree_arrays_checksum(&tree), tree.extents, tree.extent_count * sizeof(*tree.extents));
	sum = cache_checksum(sum, bad + COVERED_OFFSET, 72 - COVERED_OFFSET);
	sum = cache_checksum(sum, bad + 72, origin_end - 72);
	memcpy(bad + CHECKSUM_OFFSET, &sum, sizeof(sum));
}

static size_t damage(const uint8_t *data, size_t length)
{
	size_t bytes = good_bytes;
	memcpy(bad, good, good_bytes);
	if (length && data[0] & 1)
		bytes -= data[0] >> 1;
	for (data++, length -= length > 0; length >= CHANGE_BYTES; data += CHANGE_BYTES, length -= CHANGE_BYTES) {
		uint32_t offset;
		memcpy(&offset, data, sizeof(offset));
		offset %= (uint32_t)bytes;
		const unsigned count = data[5] & 1 ? 4 : 1;
		for (unsigned i = 0; i < count && offset + i < bytes; i++)
			bad[offset + i] = i ? data[5] : data[4];
	}
	return bytes;
}

static void use(const struct tree *tree)
{
	static const char *const paths[] = { "a/b/c", "a/link", "many/file-with-a-name-7", "x", "null", "../a/./b" };
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		tree_lookup(tree, paths[i], 1);
	for (uint32_t i = 0; i < tree->inode_count; i++) {
		char *data;
		size_t length;
		if (tree_read_file(tree, i, 1 << 16, &data, &length) == 0)
			free(data);
	}
	struct ext4_plan *plan = NULL;
	struct error err = { "" };
	const struct ext4_options options = { .size_bytes = 0 };
	if (ext4_plan_build(tree, &options, &plan, &err) == 0) {
		static uint8_t block[1 << 16];
		const struct iovec iov = { block, sizeof(block) };
		for (uint64_t at = 0; at < 16 * sizeof(block) && at + sizeof(block) <= ext4_plan_size_bytes(plan);
		     at += sizeof(block))
			ext4_plan_readv(plan, at, &iov, 1);
	}
	ext4_plan_destroy(plan);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length)
{
	if (!good)
		begin();
	const size_t bytes = damage(data, length);
	repair_checksum(bytes);
	const int fd = open(index_path, O_WRONLY | O_TRUNC);
	REQUIRE(fd >= 0 && write(fd, bad, bytes) == (ssize_t)bytes);
	close(fd);
	struct layer_file one = layer;
	one.fd = dup(layer.fd);
	struct tree *tree = NULL;
	const int ret = index_load(&cache, &one, 1, NULL, 0, &tree);
	REQUIRE(ret == 0 || !tree);
	/* What is not changed is accepted: the target looks at something. */
	REQUIRE(ret == 0 || length > 1 || (length == 1 && data[0] & 1));
	if (!ret)
		use(tree);
	tree_destroy(tree);
	if (one.fd >= 0)
		close(one.fd);
	return 0;
}
