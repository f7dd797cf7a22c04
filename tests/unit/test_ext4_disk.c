/* Disks of all sizes, the layout's arithmetic, and what the superblock says. */
#include "tests/unit/ext4_helper.h"

#include "ext4gen/ext4_disk.h"

static struct hand *some_files(uint32_t count)
{
	struct hand *h = hand_create();
	for (uint32_t i = 0; i < count; i++) {
		char name[16];
		snprintf(name, sizeof(name), "%08u", i);
		hand_file(h, 0, name, i % 10000);
	}
	return h;
}

Test(ext4_disk, sizes)
{
	struct hand *h = some_files(100);
	/* Around the ends of the first groups, in the middle of one, odd bytes at the end. */
	static const uint64_t sizes[] = {
		8 << 20,         (128 << 20) - 4096, 128 << 20,   (128 << 20) + 4096,  (128 << 20) + (1 << 20), (200 << 20) + 4095,
		(256 << 20) + 4096 * 100, 2ull << 30, 20ull << 30, (20ull << 30) + 12345678, 1ull << 40,
	};
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		check_tree(&h->tree, sizes[i]);
	hand_destroy(h);
}

Test(ext4_disk, fifteen_tib, .timeout = 60)
{
	struct hand *h = some_files(100);
	check_tree(&h->tree, 15ull << 40);
	hand_destroy(h);
}

/* Used inodes and blocks in many groups: 64 inodes in each, contents of several groups. */
Test(ext4_disk, many_groups)
{
	struct hand *h = some_files(3000);
	const uint32_t big = hand_empty_file(h, 0, "zbig", 600 << 20);
	hand_extent(h, big, 0, SOURCE_SPARSE, 0, 600 << 20);
	const struct ext4_options options = { .size_bytes = 10ull << 30, .inode_count = 5000 };
	struct ext4_plan *plan = plan_or_fail(&h->tree, &options);
	const char *path = dump(plan);
	fsck(path);
	unlink(path);
	ext4_plan_destroy(plan);
	hand_destroy(h);
}

/* The message names the least size; that size works, one block less does not. */
static void check_least_size(const struct tree *tree)
{
	struct ext4_options options = { .size_bytes = 4096 };
	struct ext4_plan *plan;
	struct error err = { "" };
	cr_assert(ext4_plan_build(tree, &options, &plan, &err) == -ENOSPC);
	const char *number = strstr(err.text, "at least ");
	cr_assert(number, "%s", err.text);
	options.size_bytes = strtoull(number + strlen("at least "), NULL, 10);
	plan = plan_or_fail(tree, &options);
	cr_assert(ext4_plan_size_bytes(plan) == options.size_bytes);
	const char *path = dump(plan);
	fsck(path);
	unlink(path);
	ext4_plan_destroy(plan);
	options.size_bytes -= 1;
	cr_assert(ext4_plan_build(tree, &options, &plan, &err) == -ENOSPC);
}

Test(ext4_disk, least_size)
{
	struct hand *h = some_files(0);
	check_least_size(&h->tree);
	hand_destroy(h);
	h = some_files(4000);
	check_least_size(&h->tree);
	/* About the end of the first group, in steps that cross it. */
	const uint32_t big = hand_empty_file(h, 0, "zbig", 0);
	hand_extent(h, big, 0, SOURCE_SPARSE, 0, 1);
	for (uint64_t size = 96 << 20; size < (112 << 20); size += 2 << 20) {
		h->tree.inodes[big].size_bytes = h->tree.extents[h->tree.extent_count - 1].length = size;
		check_least_size(&h->tree);
	}
	hand_destroy(h);
}

Test(ext4_disk, more_than_the_largest_disk)
{
	struct hand *h = hand_create();
	for (uint32_t i = 0; i < 16; i++) {
		char name[8];
		snprintf(name, sizeof(name), "%02u", i);
		hand_extent(h, hand_empty_file(h, 0, name, 1ull << 40), 0, SOURCE_SPARSE, 0, 1ull << 40);
	}
	struct ext4_options options = { .size_bytes = 0 };
	struct ext4_plan *plan;
	struct error err = { "" };
	cr_assert(ext4_plan_build(&h->tree, &options, &plan, &err) == -EFBIG, "%s", err.text);
	h->tree.inodes[1].size_bytes = 1;
	h->tree.extents[0].length = 1;
	options.size_bytes = 17ull << 40;
	cr_assert(ext4_plan_build(&h->tree, &options, &plan, &err) == -EFBIG, "%s", err.text);
	hand_destroy(h);
}

static struct ext4_super_block read_super(const struct ext4_plan *plan)
{
	struct ext4_super_block sb;
	read_or_fail(plan, EXT4_SUPER_OFFSET, &sb, sizeof(sb));
	return sb;
}

Test(ext4_disk, identity)
{
	struct hand *h = some_files(10);
	struct ext4_options options = { .label = "root", .uuid = { 1, 2, 3 }, .hash_seed = { 9 } };
	struct ext4_plan *plan = plan_or_fail(&h->tree, &options);
	struct ext4_super_block sb = read_super(plan);
	cr_assert(memcmp(sb.s_volume_name, options.label, 16) == 0 && memcmp(sb.s_uuid, options.uuid, 16) == 0 &&
		  memcmp(sb.s_hash_seed, options.hash_seed, 16) == 0);
	ext4_plan_destroy(plan);
	/* Derived from the tree: the same twice, another for another tree. */
	uint8_t uuids[4][16], seeds[4][16];
	for (int i = 0; i < 4; i++) {
		if (i == 2)
			hand_file(h, 0, "more", 1);
		if (i == 3)
			h->tree.checksum = 1; /* something that is told of the files, and nothing else */
		plan = plan_or_fail(&h->tree, NULL);
		sb = read_super(plan);
		memcpy(uuids[i], sb.s_uuid, 16);
		memcpy(seeds[i], sb.s_hash_seed, 16);
		ext4_plan_destroy(plan);
	}
	cr_assert(memcmp(uuids[0], uuids[1], 16) == 0 && memcmp(uuids[0], uuids[2], 16) != 0 &&
		  memcmp(uuids[2], uuids[3], 16) != 0);
	cr_assert(memcmp(seeds[0], seeds[1], 16) == 0 && memcmp(seeds[2], seeds[3], 16) != 0);
	hand_destroy(h);
}

/* Free space is as large as the contents, at least 8 GiB. */
Test(ext4_disk, default_size)
{
	struct hand *h = some_files(10);
	struct ext4_plan *plan = plan_or_fail(&h->tree, NULL);
	cr_assert(ext4_plan_size_bytes(plan) > 8ull << 30 && ext4_plan_size_bytes(plan) < 9ull << 30);
	ext4_plan_destroy(plan);
	hand_extent(h, hand_empty_file(h, 0, "big", 20ull << 30), 0, SOURCE_SPARSE, 0, 20ull << 30);
	plan = plan_or_fail(&h->tree, NULL);
	cr_assert(ext4_plan_size_bytes(plan) > 40ull << 30 && ext4_plan_size_bytes(plan) < 42ull << 30);
	ext4_plan_destroy(plan);
	hand_destroy(h);
}
