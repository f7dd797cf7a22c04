/* Any range reads as the same bytes that a sequential read gives; ranges outside are refused; errors of sources come through. */
#include "tests/unit/ext4_helper.h"

#include <pthread.h>

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
