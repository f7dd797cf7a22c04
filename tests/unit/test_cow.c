/* Copy-on-write against a plain array that does the same. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/iov.h"
#include "ext4gen/cow.h"

#define BLOCK 4096u

/* A base whose bytes follow from their offset. */
static uint8_t base_byte(uint64_t offset)
{
	return (uint8_t)(offset * 2654435761u >> 13 | 1);
}

struct counter {
	unsigned reads;
	int fail;
};

static int base_readv(const void *base, uint64_t offset, const struct iovec *iov, unsigned count)
{
	struct counter *counter;
	memcpy(&counter, &base, sizeof(counter));
	counter->reads++;
	if (counter->fail)
		return counter->fail;
	for (unsigned i = 0; i < count; i++)
		for (size_t k = 0; k < iov[i].iov_len; k++)
			((uint8_t *)iov[i].iov_base)[k] = base_byte(offset++);
	return 0;
}

static uint64_t random_next(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return *state >> 33;
}

/* Cuts `length` bytes at `bytes` into random ranges, empty ones among them. Returns how many. */
static unsigned cut(uint8_t *bytes, size_t length, struct iovec *iov, unsigned room, uint64_t *state)
{
	unsigned count = 0;
	while (count + 1 < room && length) {
		const size_t take = random_next(state) % 4 ? random_next(state) % (length + 1) : 0;
		iov[count++] = (struct iovec){ bytes, take };
		bytes += take;
		length -= take;
	}
	iov[count++] = (struct iovec){ bytes, length };
	return count;
}

Test(cow, behaves_like_an_array)
{
	enum { BLOCKS = 200, SIZE = BLOCKS * 4096, ROUNDS = 6000 };
	struct counter counter = { 0 };
	struct cow *cow;
	cr_assert(cow_create(SIZE, base_readv, &counter, &cow) == 0);
	uint8_t *model = malloc(SIZE), *buffer = malloc(SIZE);
	for (size_t i = 0; i < SIZE; i++)
		model[i] = base_byte(i);
	uint64_t state = 42;
	for (int round = 0; round < ROUNDS; round++) {
		size_t offset = random_next(&state) % SIZE;
		size_t length = random_next(&state) % (round % 10 ? 3 * BLOCK : SIZE);
		if (round % 3 == 0) {
			offset -= offset % BLOCK;
			length -= length % BLOCK;
		}
		if (length > SIZE - offset)
			length = SIZE - offset;
		struct iovec iov[100];
		const unsigned count = cut(buffer, length, iov, (unsigned)(random_next(&state) % 100 + 1), &state);
		switch (random_next(&state) % 4) {
		case 0:
			for (size_t i = 0; i < length; i++)
				buffer[i] = model[offset + i] = (uint8_t)random_next(&state);
			cr_assert(cow_writev(cow, offset, iov, count) == 0);
			break;
		case 1:
			memset(model + offset, 0, length);
			cr_assert(cow_zero(cow, offset, length) == 0);
			break;
		default:
			memset(buffer, 0x5A, length);
			cr_assert(cow_readv(cow, offset, iov, count) == 0);
			cr_assert(memcmp(buffer, model + offset, length) == 0, "round %d: %zu bytes at %zu", round, length, offset);
		}
		/* Now and then start over, or all would soon be written. */
		if (round % 500 == 499) {
			cow_destroy(cow);
			cr_assert(cow_create(SIZE, base_readv, &counter, &cow) == 0);
			for (size_t i = 0; i < SIZE; i++)
				model[i] = base_byte(i);
		}
	}
	cow_destroy(cow);
	free(model);
	free(buffer);
}

Test(cow, whole_block_writes_do_not_read_below)
{
	struct counter counter = { 0 };
	struct cow *cow;
	uint8_t bytes[2 * BLOCK] = { 1 };
	const struct iovec iov = { bytes, sizeof(bytes) };
	cr_assert(cow_create(1 << 20, base_readv, &counter, &cow) == 0);
	cr_assert(cow_writev(cow, BLOCK, &iov, 1) == 0);
	cr_assert(cow_readv(cow, BLOCK, &iov, 1) == 0);
	cr_assert(counter.reads == 0);
	cow_destroy(cow);
}

Test(cow, memory_is_taken_by_writes_and_given_back_by_zeroing)
{
	enum { MIB = 1 << 20 };
	struct counter counter = { 0 };
	struct cow *cow;
	uint8_t *bytes = calloc(1, MIB);
	const struct iovec iov = { bytes, MIB };
	cr_assert(cow_create(64 * MIB, base_readv, &counter, &cow) == 0);
	cr_assert(cow_readv(cow, 0, &iov, 1) == 0);
	cr_assert(cow_used_bytes(cow) == 0);
	cr_assert(cow_writev(cow, 8 * MIB, &iov, 1) == 0);
	cr_assert(cow_used_bytes(cow) == MIB);
	cr_assert(cow_zero(cow, 8 * MIB, MIB - BLOCK) == 0);
	cr_assert(cow_used_bytes(cow) == BLOCK);
	cr_assert(cow_zero(cow, 0, 64 * MIB) == 0);
	cr_assert(cow_used_bytes(cow) == 0);
	cow_destroy(cow);
	free(bytes);
}

Test(cow, discarded_blocks_never_show_the_base_again)
{
	struct counter counter = { 0 };
	struct cow *cow;
	uint8_t bytes[BLOCK], one = 7;
	struct iovec iov = { bytes, sizeof(bytes) };
	const struct iovec small = { &one, 1 };
	cr_assert(cow_create(1 << 20, base_readv, &counter, &cow) == 0);
	cr_assert(cow_zero(cow, 3 * BLOCK, 2 * BLOCK) == 0);
	cr_assert(cow_writev(cow, 3 * BLOCK + 100, &small, 1) == 0);
	cr_assert(cow_readv(cow, 3 * BLOCK, &iov, 1) == 0);
	for (unsigned i = 0; i < BLOCK; i++)
		cr_assert(bytes[i] == (i == 100 ? 7 : 0));
	cr_assert(counter.reads == 0);
	cow_destroy(cow);
}

Test(cow, a_disk_of_15_tib_costs_nothing)
{
	const uint64_t size = 15ull << 40;
	struct counter counter = { 0 };
	struct cow *cow;
	uint8_t bytes[BLOCK];
	const struct iovec iov = { bytes, sizeof(bytes) };
	cr_assert(cow_create(size, base_readv, &counter, &cow) == 0);
	/* The ends of the disk, and around the borders of the ranges for which states are kept. */
	static const uint64_t at[] = { 0, (256ull << 20) - BLOCK, 256ull << 20, (15ull << 40) - BLOCK };
	for (size_t i = 0; i < 4; i++) {
		memset(bytes, (int)i + 1, sizeof(bytes));
		cr_assert(cow_writev(cow, at[i], &iov, 1) == 0);
	}
	for (size_t i = 0; i < 4; i++) {
		cr_assert(cow_readv(cow, at[i], &iov, 1) == 0);
		cr_assert(bytes[0] == i + 1 && bytes[BLOCK - 1] == i + 1);
	}
	/* As mkfs does. */
	cr_assert(cow_zero(cow, BLOCK, size - 2 * BLOCK) == 0);
	cr_assert(cow_used_bytes(cow) == 2 * BLOCK);
	cr_assert(cow_readv(cow, at[1], &iov, 1) == 0 && bytes[5] == 0);
	cr_assert(cow_readv(cow, at[3], &iov, 1) == 0 && bytes[5] == 4);
	cr_assert(cow_writev(cow, 1ull << 40, &iov, 1) == 0);
	cr_assert(cow_readv(cow, (1ull << 40) + BLOCK, &iov, 1) == 0 && bytes[5] == 0);
	cow_destroy(cow);
}

Test(cow, errors_of_the_base_come_through)
{
	struct counter counter = { .fail = -EIO };
	struct cow *cow;
	uint8_t bytes[BLOCK] = { 0 };
	const struct iovec iov = { bytes, sizeof(bytes) }, small = { bytes, 1 };
	cr_assert(cow_create(12345, base_readv, &counter, &cow) == -EINVAL);
	cr_assert(cow_create(1 << 20, base_readv, &counter, &cow) == 0);
	cr_assert(cow_readv(cow, 0, &iov, 1) == -EIO);
	cr_assert(cow_writev(cow, 1, &small, 1) == -EIO);
	/* What could not be copied up is still the base's. */
	counter.fail = 0;
	cr_assert(cow_readv(cow, 0, &iov, 1) == 0 && bytes[1] == base_byte(1));
	cow_destroy(cow);
}

/* ---- the quota --------------------------------------------------------------------------------------------------------------- */

static int put(struct cow *cow, uint64_t offset, size_t length)
{
	static uint8_t bytes[8 * BLOCK];
	const struct iovec iov = { bytes, length };
	return cow_writev(cow, offset, &iov, 1);
}

Test(cow, quota_bounds_what_is_changed)
{
	struct counter counter = { 0 };
	struct cow *cow;
	cr_assert(cow_create(100 * BLOCK, base_readv, &counter, &cow) == 0);
	cow_set_quota(cow, 4 * BLOCK + BLOCK / 2);
	cr_expect_eq(put(cow, 10 * BLOCK, 3 * BLOCK), 0);
	cr_expect_eq(put(cow, 50 * BLOCK, 2 * BLOCK), -ENOSPC, "one block is left");
	uint64_t end;
	cr_expect_eq(cow_run(cow, 50 * BLOCK, &end), COW_BASE, "nothing of it was done");
	cr_expect_eq(put(cow, 50 * BLOCK + 100, 10), 0, "a part of a block is a block");
	cr_expect_eq(put(cow, 60 * BLOCK, 1), -ENOSPC);
	/* What is changed already may change again. */
	cr_expect_eq(put(cow, 10 * BLOCK, 3 * BLOCK), 0);
	cr_expect_eq(put(cow, 50 * BLOCK, BLOCK), 0);
	cr_expect_eq(put(cow, 12 * BLOCK, 2 * BLOCK), -ENOSPC, "partly new");
	/* Discarding gives back: blocks that were written, and no others. */
	cr_expect_eq(cow_zero(cow, 11 * BLOCK, 20 * BLOCK), 0);
	cr_expect_eq(cow_zero(cow, 11 * BLOCK, 20 * BLOCK), 0);
	cr_expect_eq(put(cow, 70 * BLOCK, 3 * BLOCK), -ENOSPC);
	cr_expect_eq(put(cow, 70 * BLOCK, 2 * BLOCK), 0);
	cr_expect_eq(put(cow, 80 * BLOCK, BLOCK), -ENOSPC);
	/* A failure of the base takes nothing. */
	cr_expect_eq(cow_zero(cow, 70 * BLOCK, BLOCK), 0);
	counter.fail = -EIO;
	cr_expect_eq(put(cow, 90 * BLOCK + 1, 10), -EIO);
	counter.fail = 0;
	cr_expect_eq(put(cow, 91 * BLOCK, BLOCK), 0);
	cr_expect_eq(put(cow, 92 * BLOCK, BLOCK), -ENOSPC);
	cow_destroy(cow);
}

/* The count is never wrong, whatever is done: a disk with a quota refuses exactly when a model does. */
Test(cow, quota_counts_as_a_model_does)
{
	enum { BLOCKS = 64, QUOTA = 20 };
	struct counter counter = { 0 };
	struct cow *cow;
	bool written[BLOCKS] = { false };
	uint64_t state = 7;
	cr_assert(cow_create(BLOCKS * BLOCK, base_readv, &counter, &cow) == 0);
	cow_set_quota(cow, QUOTA * BLOCK);
	for (unsigned round = 0; round < 20000; round++) {
		const unsigned first = (unsigned)(random_next(&state) % BLOCKS);
		const unsigned count = (unsigned)(random_next(&state) % 8) + 1;
		const unsigned last = first + count > BLOCKS ? BLOCKS : first + count;
		unsigned total = 0, more = 0;
		for (unsigned i = 0; i < BLOCKS; i++)
			total += written[i];
		for (unsigned i = first; i < last; i++)
			more += !written[i];
		const bool zero = random_next(&state) % 3 == 0;
		if (zero) {
			cr_assert_eq(cow_zero(cow, first * BLOCK, (last - first) * BLOCK), 0);
		} else {
			const int wanted = more && total + more > QUOTA ? -ENOSPC : 0;
			cr_assert_eq(put(cow, first * BLOCK, (last - first) * BLOCK), wanted, "round %u", round);
			if (wanted)
				continue;
		}
		for (unsigned i = first; i < last; i++)
			written[i] = !zero;
	}
	cow_destroy(cow);
}
