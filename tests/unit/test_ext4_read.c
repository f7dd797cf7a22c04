/* Any range reads as the same bytes that a sequential read gives; ranges outside are refused; errors of sources come through. */
#include "tests/unit/ext4_helper.h"

#include <pthread.h>

#include "ext4gen/plan_internal.h"

enum { ROUNDS = 4000 };

/* The used part of a small disk and a little behind it, read in one go. */
static uint8_t *read_all(const struct ext4_plan *plan, size_t *length)
{
	uint64_t begin, end = 0;
	while (ext4_plan_next_data(plan, end, &begin, &end))
		;
	*length = (size_t)end + 100000;
	uint8_t *bytes = malloc(*length);
	cr_assert(bytes);
	read_or_fail(plan, 0, bytes, *length);
	return bytes;
}

static struct hand *tree_with_directories(void)
{
	struct hand *h = hand_rich();
	const uint32_t d = hand_dir(h, 0, "z");
	for (uint32_t i = 0; i < 3000; i++) {
		char name[64];
		snprintf(name, sizeof(name), "name-%0*u", (int)(i % 50), i);
		hand_link(h, d, name, 3);
	}
	return h;
}

Test(ext4_read, random_ranges)
{
	struct hand *h = tree_with_directories();
	const struct ext4_options options = { .size_bytes = 64 << 20 };
	struct ext4_plan *plan = plan_or_fail(&h->tree, &options);
	size_t size;
	uint8_t *all = read_all(plan, &size), *buffer = malloc(300000);
	uint64_t state = 7;
	for (int round = 0; round < ROUNDS; round++) {
		const size_t offset = hand_random(&state) % size;
		size_t length = hand_random(&state) % (round % 8 ? 10000 : 300000);
		if (length > size - offset)
			length = size - offset;
		/* Into ranges of odd sizes, empty ones among them. */
		struct iovec iov[200];
		unsigned count = 0;
		size_t at = 0;
		while (count < 199 && at < length) {
			const size_t take = hand_random(&state) % 3 ? hand_random(&state) % 6000 : 0;
			iov[count++] = (struct iovec){ buffer + at, take < length - at ? take : length - at };
			at += iov[count - 1].iov_len;
		}
		iov[count++] = (struct iovec){ buffer + at, length - at };
		memset(buffer, 0xA5, length);
		cr_assert(ext4_plan_readv(plan, offset, iov, count) == 0);
		cr_assert(memcmp(buffer, all + offset, length) == 0, "%zu bytes at %zu", length, offset);
	}
	free(all);
	free(buffer);
	ext4_plan_destroy(plan);
	hand_destroy(h);
}

/* What next_data() leaves out is zero. */
Test(ext4_read, free_space_is_zero)
{
	struct hand *h = tree_with_directories();
	const struct ext4_options options = { .size_bytes = 400 << 20 };
	struct ext4_plan *plan = plan_or_fail(&h->tree, &options);
	const uint64_t size = ext4_plan_size_bytes(plan);
	uint8_t *all = malloc(size);
	read_or_fail(plan, 0, all, size);
	static const uint8_t zero[EXT4_BLOCK_BYTES];
	uint64_t offset = 0, begin, end;
	while (offset < size) {
		if (!ext4_plan_next_data(plan, offset, &begin, &end))
			begin = end = size;
		for (; offset < begin; offset += sizeof(zero))
			cr_assert(memcmp(all + offset, zero, sizeof(zero)) == 0);
		offset = end;
	}
	free(all);
	ext4_plan_destroy(plan);
	hand_destroy(h);
}

Test(ext4_read, same_bytes_every_time)
{
	size_t sizes[2];
	uint8_t *all[2];
	for (int i = 0; i < 2; i++) {
		struct hand *h = tree_with_directories();
		struct ext4_plan *plan = plan_or_fail(&h->tree, &(struct ext4_options){ .size_bytes = 64 << 20 });
		all[i] = read_all(plan, &sizes[i]);
		ext4_plan_destroy(plan);
		hand_destroy(h);
	}
	cr_assert(sizes[0] == sizes[1] && memcmp(all[0], all[1], sizes[0]) == 0);
	free(all[0]);
	free(all[1]);
}

Test(ext4_read, outside)
{
	struct hand *h = hand_create();
	struct ext4_plan *plan = plan_or_fail(&h->tree, &(struct ext4_options){ .size_bytes = 16 << 20 });
	const uint64_t size = ext4_plan_size_bytes(plan);
	uint8_t bytes[2];
	const struct iovec one = { bytes, 1 }, two = { bytes, 2 }, none = { bytes, 0 };
	cr_assert(ext4_plan_readv(plan, size - 1, &one, 1) == 0);
	cr_assert(ext4_plan_readv(plan, size - 1, &two, 1) == -EINVAL);
	cr_assert(ext4_plan_readv(plan, size, &one, 1) == -EINVAL);
	cr_assert(ext4_plan_readv(plan, size, &none, 1) == 0);
	cr_assert(ext4_plan_readv(plan, size + 1, &none, 1) == -EINVAL);
	cr_assert(ext4_plan_readv(plan, UINT64_MAX, &one, 1) == -EINVAL);
	cr_assert(ext4_plan_readv(plan, 0, NULL, 0) == 0);
	const struct iovec huge[2] = { { bytes, SIZE_MAX }, { bytes, 2 } };
	cr_assert(ext4_plan_readv(plan, 0, huge, 2) == -EINVAL);
	ext4_plan_destroy(plan);
	hand_destroy(h);
}

/* A layer file that has become shorter under us. */
Test(ext4_read, source_errors)
{
	struct hand *h = hand_create();
	hand_extent(h, hand_empty_file(h, 0, "f", 100000), 0, SOURCE_SPARSE, 0, 100000);
	struct ext4_plan *plan = plan_or_fail(&h->tree, NULL);
	cr_assert(ftruncate(h->tree.sources[SOURCE_SPARSE].fd, 50000) == 0);
	uint64_t begin = 0, end, last = 0;
	for (uint64_t at = 0; ext4_plan_next_data(plan, at, &begin, &end); at = end)
		last = begin;
	uint8_t bytes[100];
	const struct iovec iov = { bytes, sizeof(bytes) };
	cr_assert(ext4_plan_readv(plan, last + 49900, &iov, 1) == 0);
	cr_assert(ext4_plan_readv(plan, last + 49901, &iov, 1) == -EIO);
	ext4_plan_destroy(plan);
	hand_destroy(h);
}

/* A file of one of the kinds that reads tell apart: nearly always of one extent, now and then empty, with holes, or of many pieces. */
static void add_some_file(struct hand *h, uint32_t number, uint64_t *state)
{
	char name[16];
	snprintf(name, sizeof(name), "%u", number);
	const uint64_t kind = hand_random(state) % 40, size = 1 + hand_random(state) % 40000;
	if (kind > 4) {
		hand_file(h, 0, name, kind == 5 ? 0 : size);
		return;
	}
	const uint32_t inode = hand_empty_file(h, 0, name, size + 1000000);
	/* What no file has may lie between extents: the tree does not promise that it does not. */
	if (kind == 0) {
		hand_extent(h, inode, 0, SOURCE_PATTERN, 0, 1);
		h->tree.inodes[inode].extent_count = 0;
	}
	uint64_t at = kind == 1 ? 5000 : 0;
	for (uint64_t pieces = kind < 2 ? 1 : 1 + hand_random(state) % 30; pieces; pieces--) {
		const uint64_t length = 1 + hand_random(state) % 6000;
		hand_extent(h, inode, at, SOURCE_PATTERN, hand_random(state) % (PATTERN_BYTES - 6000), length);
		at += length + (kind == 3 ? 0 : hand_random(state) % 20000);
	}
}

/* Contents as they have to be: of each file, in the order of the inodes, the blocks that its extents touch, with zeroes between. */
static uint8_t *contents_of(const struct tree *tree, size_t blocks)
{
	uint8_t *bytes = calloc(blocks, EXT4_BLOCK_BYTES);
	size_t before = 0;
	for (uint32_t i = 0; i < tree->inode_count; i++) {
		const struct tree_inode *inode = &tree->inodes[i];
		uint64_t last = UINT64_MAX;
		for (uint32_t k = 0; S_ISREG(inode->mode) && k < inode->extent_count; k++) {
			const struct tree_extent *extent = &tree->extents[inode->first_extent + k];
			for (uint64_t at = 0; at < extent->length; at++) {
				const uint64_t offset = extent->file_offset + at;
				before += offset / EXT4_BLOCK_BYTES != last;
				last = offset / EXT4_BLOCK_BYTES;
				cr_assert(before <= blocks);
				bytes[(before - 1) * EXT4_BLOCK_BYTES + offset % EXT4_BLOCK_BYTES] =
				    tree->sources[SOURCE_PATTERN].memory[extent->source_offset + at];
			}
		}
	}
	cr_assert_eq(before, blocks);
	return bytes;
}

/* Look-ups go by batches of runs, and most batches know their extents: with no file, and with ends of batches anywhere. */
Test(ext4_read, contents_of_any_files)
{
	uint64_t state = 11;
	for (uint32_t files = 0; files < 400; files += files < 40 ? 1 : 97) {
		struct hand *h = hand_create();
		for (uint32_t i = 0; i < files; i++)
			add_some_file(h, i, &state);
		struct ext4_plan *plan = plan_or_fail(&h->tree, NULL);
		const size_t blocks = plan->content_blocks;
		uint8_t *want = contents_of(&h->tree, blocks), block[EXT4_BLOCK_BYTES];
		for (size_t i = 0; i < blocks; i++) {
			read_or_fail(plan, (plan->layout.contents + i) * EXT4_BLOCK_BYTES, block, sizeof(block));
			cr_assert(memcmp(block, want + i * EXT4_BLOCK_BYTES, sizeof(block)) == 0, "block %zu of %u files", i,
				  files);
		}
		free(want);
		ext4_plan_destroy(plan);
		hand_destroy(h);
	}
}

static void *reader(void *arg)
{
	size_t size;
	return read_all(arg, &size);
}

/* Large directories are sorted when they are first read, whoever comes first. */
Test(ext4_read, several_threads)
{
	struct hand *h = tree_with_directories();
	struct ext4_plan *plan = plan_or_fail(&h->tree, NULL);
	pthread_t threads[4];
	void *bytes[4];
	for (int i = 0; i < 4; i++)
		cr_assert(pthread_create(&threads[i], NULL, reader, plan) == 0);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], &bytes[i]);
	size_t size;
	uint8_t *want = read_all(plan, &size);
	for (int i = 0; i < 4; i++) {
		cr_assert(memcmp(bytes[i], want, size) == 0);
		free(bytes[i]);
	}
	free(want);
	ext4_plan_destroy(plan);
	hand_destroy(h);
}
