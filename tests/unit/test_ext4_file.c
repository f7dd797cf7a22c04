/* Files: extents, holes, sizes up to the largest. */
#include "tests/unit/ext4_helper.h"

/* A file of `size` bytes whose extents lie back to back in the sparse source, `piece` bytes each. */
static uint32_t add_large(struct hand *h, const char *name, uint64_t size, uint64_t piece)
{
	const uint32_t inode = hand_empty_file(h, 0, name, size);
	for (uint64_t at = 0; at < size; at += piece) {
		const uint64_t length = size - at < piece ? size - at : piece;
		hand_extent(h, inode, at, SOURCE_SPARSE, at % (SPARSE_BYTES / 2), length);
	}
	return inode;
}

/* `count` pieces of one block with a hole behind each. */
static uint32_t add_holes(struct hand *h, const char *name, uint32_t count)
{
	const uint32_t inode = hand_empty_file(h, 0, name, (uint64_t)count * 8192);
	for (uint32_t i = 0; i < count; i++)
		hand_extent(h, inode, i * 8192ull, SOURCE_PATTERN, i % 1000 * 4096ull, 4096);
	return inode;
}

Test(ext4_file, around_one_extent)
{
	struct hand *h = hand_create();
	add_large(h, "128M", 128 << 20, 1 << 30);
	add_large(h, "128M+1", (128 << 20) + 1, 1 << 30);
	add_large(h, "128M-1", (128 << 20) - 1, 1 << 30);
	check_tree(&h->tree, 0);
	hand_destroy(h);
}

Test(ext4_file, one_gib)
{
	struct hand *h = hand_create();
	add_large(h, "512M", 512ull << 20, 1ull << 40);
	add_large(h, "1G", 1ull << 30, 1ull << 40);
	add_large(h, "1G-in-pieces", 1ull << 30, 1234567);
	check_tree(&h->tree, 0);
	hand_destroy(h);
}

/* 8,192 extents of 128 MiB: 25 leaf blocks, one index block. */
Test(ext4_file, one_tib)
{
	struct hand *h = hand_create();
	add_large(h, "1T", 1ull << 40, 1ull << 39);
	add_large(h, "last", 1, 1);
	check_tree(&h->tree, 0);
	hand_destroy(h);
}

Test(ext4_file, largest)
{
	struct hand *h = hand_create();
	add_large(h, "14T", 14ull << 40, 1ull << 39);
	check_tree(&h->tree, 15ull << 40);
	h->tree.inodes[1].extent_count = 0;
	h->tree.inodes[1].size_bytes = 4294967295ull * 4096;
	check_tree(&h->tree, 0);
	h->tree.inodes[1].size_bytes++;
	static const struct ext4_options options;
	struct ext4_plan *plan;
	struct error err;
	cr_assert(ext4_plan_build(&h->tree, &options, &plan, &err) == -EFBIG);
	cr_assert(strstr(err.text, "'/14T'"), "%s", err.text);
	hand_destroy(h);
}

Test(ext4_file, holes)
{
	static const uint32_t counts[] = { 1, 4, 5, 340, 341, 4 * 340, 4 * 340 + 1, 20 * 340, 20 * 340 + 1 };
	struct hand *h = hand_create();
	for (uint32_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
		char name[16];
		snprintf(name, sizeof(name), "h%u", counts[i]);
		add_holes(h, name, counts[i]);
	}
	hand_empty_file(h, 0, "only-a-hole", 1 << 30);
	check_tree(&h->tree, 0);
	hand_destroy(h);
}

/* 4 * 340 * 340 extents fill an index of two levels; one more needs a third. */
Test(ext4_file, deep_extent_tree)
{
	struct hand *h = hand_create();
	add_holes(h, "f", 4 * 340 * 340 + 1);
	check_tree(&h->tree, 0);
	hand_destroy(h);
}

/* Pieces that meet inside a block share it; pieces that meet at a block's border are one run. */
Test(ext4_file, pieces_that_meet)
{
	struct hand *h = hand_create();
	const uint32_t inode = hand_empty_file(h, 0, "f", 20000);
	hand_extent(h, inode, 10, SOURCE_PATTERN, 0, 90);
	hand_extent(h, inode, 100, SOURCE_PATTERN, 90, 10);
	hand_extent(h, inode, 200, SOURCE_SPARSE, 0, 3896);
	hand_extent(h, inode, 4096, SOURCE_PATTERN, 77, 1);
	hand_extent(h, inode, 9000, SOURCE_PATTERN, 7, 11000);
	struct ext4_plan *plan = plan_or_fail(&h->tree, NULL);
	uint64_t begin = 0, end, last = 0;
	for (uint64_t at = 0; ext4_plan_next_data(plan, at, &begin, &end); at = end)
		last = begin;
	/* One run: blocks 0 and 1, then 2 to 4. */
	uint8_t bytes[20480], want[20480] = { 0 };
	read_or_fail(plan, last, bytes, sizeof(bytes));
	const uint8_t *pattern = h->tree.sources[0].memory;
	memcpy(want + 10, pattern, 100);
	memcpy(want + 4096, pattern + 77, 1);
	memcpy(want + 9000, pattern + 7, 11000);
	cr_assert(memcmp(bytes, want, sizeof(bytes)) == 0);
	ext4_plan_destroy(plan);
	check_tree(&h->tree, 0);
	hand_destroy(h);
}

Test(ext4_file, hard_links)
{
	struct hand *h = hand_create();
	const uint32_t d = hand_dir(h, 0, "d"), f = hand_file(h, 0, "f", 3);
	for (uint32_t i = 1; i < 65000; i++) {
		char name[16];
		snprintf(name, sizeof(name), "%u", i);
		hand_link(h, d, name, f);
	}
	check_tree(&h->tree, 0);
	hand_link(h, d, "one too many", f);
	static const struct ext4_options options;
	struct ext4_plan *plan;
	struct error err;
	cr_assert(ext4_plan_build(&h->tree, &options, &plan, &err) == -EMLINK);
	cr_assert(strstr(err.text, "'/f'") && strstr(err.text, "65000"), "%s", err.text);
	hand_destroy(h);
}

Test(ext4_file, subdirectories)
{
	struct hand *h = hand_create();
	const uint32_t d = hand_dir(h, 0, "d");
	for (uint32_t i = 0; i < 65001; i++) {
		char name[16];
		snprintf(name, sizeof(name), "%05u", i);
		hand_dir(h, d, name);
	}
	check_tree(&h->tree, 0);
	hand_destroy(h);
}

Test(ext4_file, deep_nesting)
{
	struct hand *h = hand_create();
	uint32_t d = 0;
	for (uint32_t i = 0; i < 1000; i++)
		d = hand_dir(h, d, "deeper");
	hand_file(h, d, "bottom", 100);
	check_tree(&h->tree, 0);
	hand_destroy(h);
}

Test(ext4_file, lost_found_of_the_tree)
{
	struct hand *h = hand_create();
	const uint32_t d = hand_dir(h, 0, "lost+found");
	hand_file(h, d, "saved", 5000);
	hand_file(h, 0, "other", 1);
	check_tree(&h->tree, 0);
	hand_destroy(h);
}

/* Beyond what ext4 can say, times are cut to its range (e2fsck takes times behind 2310-04-04 for errors). */
Test(ext4_file, times_out_of_range)
{
	struct hand *h = hand_create();
	h->tree.inodes[hand_file(h, 0, "a", 0)].mtime_s = INT64_MIN;
	h->tree.inodes[hand_file(h, 0, "b", 0)].mtime_s = INT64_MAX;
	h->tree.inodes[hand_file(h, 0, "c", 0)].mtime_s = -2147483649;
	h->tree.inodes[hand_file(h, 0, "d", 0)].mtime_s = 10737418240;
	check_tree(&h->tree, 0);
	hand_destroy(h);
}

Test(ext4_file, symlink_too_long)
{
	struct hand *h = hand_create();
	hand_symlink(h, 0, "s", 4096);
	static const struct ext4_options options;
	struct ext4_plan *plan;
	struct error err;
	cr_assert(ext4_plan_build(&h->tree, &options, &plan, &err) == -ENAMETOOLONG);
	cr_assert(strstr(err.text, "'/s'"), "%s", err.text);
	hand_destroy(h);
}
