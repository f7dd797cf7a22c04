/* Directories of all sizes, linear and indexed. */
#include "tests/unit/ext4_helper.h"

#include "ext4gen/plan_internal.h"

/* `count` empty files (all links to one inode per 60000) with names of `length` bytes, in ascending order. */
static void add_names(struct hand *h, uint32_t dir, uint32_t count, size_t length)
{
	char name[256];
	uint32_t inode = 0;
	for (uint32_t i = 0; i < count; i++) {
		if (i % 60000 == 0)
			inode = hand_inode(h, S_IFREG | 0644);
		memset(name, 'x', sizeof(name));
		char digits[16];
		snprintf(digits, sizeof(digits), "%08u", i);
		memcpy(name, digits, 8);
		hand_link_bytes(h, dir, name, length, inode);
	}
}

static void check_directory(uint32_t count, size_t length)
{
	struct hand *h = hand_create();
	const uint32_t dir = hand_dir(h, 0, "dir");
	add_names(h, dir, count, length);
	check_tree(&h->tree, 0);
	hand_destroy(h);
}

Test(ext4_dir, one_name)
{
	check_directory(1, 8);
}

Test(ext4_dir, up_to_the_border_of_one_block)
{
	/* 24 bytes of dots, 16 for each name: 254 fill the block. */
	check_directory(254, 8);
	check_directory(255, 8);
}

Test(ext4_dir, a_hundred)
{
	check_directory(100, 20);
}

Test(ext4_dir, thousands)
{
	check_directory(1000, 20);
	check_directory(2000, 20);
	check_directory(5000, 13);
}

Test(ext4_dir, longest_names)
{
	check_directory(15, 255);
	check_directory(16, 255);
	check_directory(120, 255);
	check_directory(130, 255);
	check_directory(3000, 255);
}

Test(ext4_dir, twenty_thousand)
{
	check_directory(20000, 24);
}

/* 6,667 leaves: an index of two levels. */
Test(ext4_dir, two_levels)
{
	check_directory(100000, 255);
}

Test(ext4_dir, root_with_many_names)
{
	struct hand *h = hand_create();
	add_names(h, 0, 30000, 30);
	check_tree(&h->tree, 0);
	hand_destroy(h);
}

/* Names with bytes above 127, where signed and unsigned hashes differ, and a seed. */
Test(ext4_dir, high_bytes_and_seed)
{
	struct hand *h = hand_create();
	const uint32_t d = hand_dir(h, 0, "d");
	const uint32_t f = hand_file(h, 0, "f", 0);
	uint64_t state = 5;
	for (uint32_t i = 0; i < 3000; i++) {
		char name[64];
		const size_t length = 5 + hand_random(&state) % 50;
		for (size_t k = 4; k < length; k++)
			name[k] = (char)(0x80 | hand_random(&state));
		memcpy(name, (uint8_t[]){ (uint8_t)(128 | i >> 12), (uint8_t)(128 | i >> 6 | 64), (uint8_t)(128 | i), 'x' }, 4);
		name[1] = (char)(128 | (i >> 6 & 63));
		name[2] = (char)(128 | (i & 63));
		hand_link_bytes(h, d, name, length, f);
	}
	struct ext4_options options = { .size_bytes = 64 << 20 };
	for (int i = 0; i < 2; i++) {
		memset(options.hash_seed, i * 0x81, sizeof(options.hash_seed));
		struct ext4_plan *plan = plan_or_fail(&h->tree, &options);
		const char *image = dump(plan);
		fsck(image);
		unlink(image);
		ext4_plan_destroy(plan);
	}
	hand_destroy(h);
}

static int compare_u64(const void *a, const void *b)
{
	uint64_t x, y;
	memcpy(&x, a, 8);
	memcpy(&y, b, 8);
	return (x > y) - (x < y);
}

static size_t long_name(char name[256], uint32_t number)
{
	memset(name, 'y', 255);
	snprintf(name, 256, "%09u", number);
	name[9] = 'y';
	return 255;
}

/* Two numbers whose long_name() has the same hash on the plan's disk. */
static void find_collision(const struct ext4_plan *plan, uint32_t *first, uint32_t *second)
{
	enum { COUNT = 200000 };
	uint64_t *keys = calloc(COUNT, sizeof(*keys));
	for (uint32_t i = 0; i < COUNT; i++) {
		char name[256];
		const size_t length = long_name(name, i);
		keys[i] = (uint64_t)dir_hash(plan->hash_seed, name, (uint32_t)length) << 32 | i;
	}
	qsort(keys, COUNT, sizeof(*keys), compare_u64);
	uint32_t i = 1;
	while (i < COUNT && keys[i] >> 32 != keys[i - 1] >> 32)
		i++;
	cr_assert(i < COUNT);
	*first = (uint32_t)keys[i - 1];
	*second = (uint32_t)keys[i];
	free(keys);
}

/* Whether an index entry of directory `dir` has an odd hash: a leaf goes on with the hash that the one before ends with. */
static bool has_continued_leaf(const struct ext4_plan *plan, uint32_t dir)
{
	uint8_t block[EXT4_BLOCK_BYTES];
	struct ext4_dx_entry entry;
	struct ext4_dx_countlimit countlimit;
	const uint32_t number = plan->layout.objects + plan->objects[plan_find_object_of_inode(plan, dir)].block;
	read_or_fail(plan, (uint64_t)number * EXT4_BLOCK_BYTES, block, sizeof(block));
	memcpy(&countlimit, block + EXT4_DX_ROOT_ENTRIES_OFFSET, sizeof(countlimit));
	const unsigned count = le16_get(countlimit.count);
	for (unsigned i = 1; i < count; i++) {
		memcpy(&entry, block + EXT4_DX_ROOT_ENTRIES_OFFSET + i * sizeof(entry), sizeof(entry));
		if (le32_get(entry.hash) & 1)
			return true;
	}
	return false;
}

/* The same hash on both sides of a leaf's border: other names are added until a border falls there. */
Test(ext4_dir, collision_across_leaves)
{
	uint32_t pair[2], next = 1000000;
	struct hand *h = hand_create();
	const uint32_t d = hand_dir(h, 0, "d"), f = hand_file(h, 0, "f", 0);
	char name[256];
	struct ext4_plan *empty = plan_or_fail(&h->tree, NULL); /* such a tree has no checksum, so the seed stays */
	find_collision(empty, &pair[0], &pair[1]);
	ext4_plan_destroy(empty);
	for (int i = 0; i < 2; i++)
		hand_link_bytes(h, d, name, long_name(name, pair[i]), f);
	bool found = false;
	while (!found) {
		cr_assert(next < 1002000);
		do
			hand_link_bytes(h, d, name, long_name(name, next++), f);
		while (next < 1000200);
		struct ext4_plan *plan = plan_or_fail(&h->tree, NULL);
		cr_assert(dir_is_indexed(plan, d));
		found = has_continued_leaf(plan, d);
		ext4_plan_destroy(plan);
	}
	check_tree(&h->tree, 0);
	hand_destroy(h);
}

/* More names than a directory can hold are refused. */
Test(ext4_dir, too_many_names)
{
	struct hand *h = hand_create();
	const uint32_t d = hand_dir(h, 0, "d"), f = hand_file(h, 0, "f", 0);
	/* 2,040,000 names of 255 bytes are 514 MiB; all of them share their bytes, which is not looked at. */
	char name[256];
	hand_link_bytes(h, d, name, long_name(name, 0), f);
	h->tree.inodes[f].nlink = 1;
	for (uint32_t i = 0; i < 2040000; i++) {
		h->tree.entries = hand_grow(h->tree.entries, &h->entry_room, h->tree.entry_count, sizeof(struct tree_entry));
		h->tree.entries[h->tree.entry_count] = h->tree.entries[h->tree.entry_count - 1];
		h->tree.entries[h->tree.entry_count - 1].next_sibling = h->tree.entry_count;
		h->tree.entry_count++;
	}
	static const struct ext4_options options;
	struct ext4_plan *plan;
	struct error err = { "" };
	cr_assert(ext4_plan_build(&h->tree, &options, &plan, &err) == -EFBIG && strstr(err.text, "'/d'"), "%s", err.text);
	hand_destroy(h);
}
