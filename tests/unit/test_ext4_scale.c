/* What is large: a million names in one directory, a million files, the largest disk. Time and memory stay in proportion. */
#include "tests/unit/ext4_helper.h"

#include <time.h>

#include "ext4gen/ext4_disk.h"

/* Of the processor: what else this machine does is not in it. */
static uint64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Names in one directory, sixty thousand for each file. */
static struct hand *one_directory(uint32_t count, uint32_t *dir)
{
	struct hand *h = hand_create();
	uint32_t f = 0;
	*dir = hand_dir(h, 0, "d");
	for (uint32_t k = 0; k < count; k++) {
		char name[32];
		snprintf(name, sizeof(name), "name-of-a-file-%07u", k);
		if (k % 60000)
			hand_link(h, *dir, name, f);
		else
			f = hand_file(h, *dir, name, 1);
	}
	return h;
}

/* 8,000 leaves and an index of two levels, which e2fsck walks and checks, with and without checksums. */
Test(ext4_scale, a_million_names, .timeout = 120)
{
	uint32_t dir;
	struct hand *h = one_directory(1000000, &dir);
	for (int metadata_csum = 0; metadata_csum < 2; metadata_csum++) {
		const struct ext4_options options = { .size_bytes = 1 << 30, .metadata_csum = metadata_csum };
		struct ext4_plan *plan = plan_or_fail(&h->tree, &options);
		char image[256], out[4096];
		snprintf(image, sizeof(image), "%s", dump(plan));
		fsck(image);
		run(out, sizeof(out),
		    "debugfs -R 'htree_dump /d' %s 2>/dev/null | grep -E 'Indirect levels|^Number of entries \\(count\\)' | head "
		    "-n 2",
		    image);
		cr_assert(strstr(out, "Indirect levels: 1"), "%s", out);
		unlink(image);
		ext4_plan_destroy(plan);
	}
	hand_destroy(h);
}

/* Large directories are sorted when somebody looks; that, too, is soon done. */
Test(ext4_scale, sorting_a_million_names, .timeout = 60)
{
	uint32_t dir;
	struct hand *h = one_directory(1000000, &dir);
	struct ext4_plan *plan = plan_or_fail(&h->tree, NULL);
	uint64_t begin, end = 0, last_begin = 0;
	while (ext4_plan_next_data(plan, end, &begin, &end))
		last_begin = begin;
	uint8_t block[EXT4_BLOCK_BYTES];
	const uint64_t start = now_ns();
	read_or_fail(plan, last_begin - 2 * sizeof(block), block, sizeof(block));
	const uint64_t ns = now_ns() - start;
	cr_assert(ns < 5000000000u, "%llu ms", (unsigned long long)ns / 1000000);
	ext4_plan_destroy(plan);
	hand_destroy(h);
}

static struct hand *many_files(uint32_t count)
{
	struct hand *h = hand_create();
	uint32_t dir = 0;
	for (uint32_t k = 0; k < count; k++) {
		char name[32];
		snprintf(name, sizeof(name), "f%07u", k);
		if (k % 100 == 0)
			dir = hand_dir(h, 0, name);
		hand_file(h, dir, name, k % 5000);
	}
	return h;
}

static uint64_t best_plan_ns(const struct tree *tree)
{
	uint64_t best = UINT64_MAX;
	for (int i = 0; i < 5; i++) {
		const uint64_t start = now_ns();
		ext4_plan_destroy(plan_or_fail(tree, NULL));
		const uint64_t ns = now_ns() - start;
		best = ns < best ? ns : best;
	}
	return best;
}

/* Ten times the files, ten times the time: anything above fifty is no longer the machine's mood. bench/layers has the figures. */
Test(ext4_scale, a_million_files, .timeout = 120)
{
	struct hand *few = many_files(100000), *many = many_files(1000000);
	const uint64_t few_ns = best_plan_ns(&few->tree), many_ns = best_plan_ns(&many->tree);
	cr_assert(many_ns < 50 * few_ns, "%llu us, not %llu", (unsigned long long)many_ns / 1000,
		  (unsigned long long)few_ns / 1000);
	hand_destroy(few);
	hand_destroy(many);
}

/* The size of the disk costs nothing: not in time, not in what an export writes. 16 TiB is a group less than that. */
Test(ext4_scale, largest_disk, .timeout = 120)
{
	struct hand *h = many_files(1000);
	const uint64_t tib = 1ull << 40, group = (uint64_t)EXT4_BLOCKS_PER_GROUP * EXT4_BLOCK_BYTES;
	struct ext4_options options = { .size_bytes = 16 * tib };
	const uint64_t start = now_ns();
	struct ext4_plan *plan = plan_or_fail(&h->tree, &options);
	cr_assert(now_ns() - start < 1000000000u);
	cr_assert(ext4_plan_size_bytes(plan) == 16 * tib - group);
	fsck(dump(plan));
	unlink(scratch("image"));
	ext4_plan_destroy(plan);
	options.size_bytes += EXT4_BLOCK_BYTES;
	struct error err = { "" };
	cr_assert(ext4_plan_build(&h->tree, &options, &plan, &err) == -EFBIG && strstr(err.text, "at most 17592051826688"), "%s",
		  err.text);
	hand_destroy(h);
}
