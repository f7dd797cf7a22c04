/*
 * Copy-on-write; see cow.h. What is written lies in the store: a memory file, or the data of a kept disk, at an offset of its own.
 *
 * Invariants: a WRITTEN block's bytes are all in the store. What the store holds under a BASE or ZERO block means nothing: a failed write
 * may have left something there, or one that a crash has undone.
 */
#include "ext4gen/cow.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/iov.h"
#include "ext4gen/block_states_internal.h"
#include "ext4gen/cursor_internal.h"
#include "ext4gen/kept_internal.h"

#define BLOCK_BYTES 4096u

struct cow {
	uint64_t size_bytes;
	uint64_t zero_from; /* the base reads as zeroes from this byte on; a multiple of BLOCK_BYTES */
	cow_base_readv readv;
	const void *base;   /* borrowed */
	int fd;             /* the store; owned, or the kept disk's; -1 until something is written */
	uint64_t store_offset;
	struct kept *kept;  /* owned; NULL: changes live in memory */
	struct block_states states;
	bool store_changed; /* since the last flush */
	bool has_quota;
	uint64_t quota_blocks, written_blocks; /* while there is a quota */
};

/* ---- life -------------------------------------------------------------------------------------------------------------------- */

static int create(uint64_t size_bytes, cow_base_readv readv, const void *base, bool keep, struct cow **cow)
{
	if (size_bytes % BLOCK_BYTES || size_bytes > INT64_MAX)
		return -EINVAL;
	struct cow *made = calloc(1, sizeof(*made));
	if (!made)
		return -ENOMEM;
	*made = (struct cow){ .size_bytes = size_bytes, .zero_from = size_bytes, .readv = readv, .base = base, .fd = -1 };
	if (block_states_init(&made->states, size_bytes / BLOCK_BYTES, keep) < 0) {
		free(made);
		return -ENOMEM;
	}
	*cow = made;
	return 0;
}

int cow_create(uint64_t size_bytes, cow_base_readv readv, const void *base, struct cow **cow)
{
	return create(size_bytes, readv, base, false, cow);
}

int cow_open_kept(const char *path, enum cow_access access, uint64_t size_bytes, cow_base_readv readv, const struct cow_binding *binding,
		  const void *base, struct cow **cow, struct error *err)
{
	struct cow *made;
	int rc = create(size_bytes, readv, base, true, &made);
	if (rc)
		return error_set(err, rc, "kept disk '%s': %s", path, strerror(-rc));
	rc = kept_open(path, access, size_bytes, binding, base, &made->states, &made->kept, err);
	if (rc) {
		cow_destroy(made);
		return rc;
	}
	made->fd = kept_fd(made->kept);
	made->store_offset = kept_data_offset(made->kept);
	*cow = made;
	return 0;
}

void cow_destroy(struct cow *cow)
{
	if (!cow)
		return;
	block_states_free(&cow->states);
	if (cow->kept)
		kept_close(cow->kept);
	else if (cow->fd >= 0)
		close(cow->fd);
	free(cow);
}

void cow_set_zero_from(struct cow *cow, uint64_t offset)
{
	assert(offset % BLOCK_BYTES == 0 && offset <= cow->size_bytes);
	cow->zero_from = offset;
}

uint64_t cow_used_bytes(const struct cow *cow)
{
	struct stat st;
	if (cow->fd < 0 || fstat(cow->fd, &st) < 0)
		return 0;
	return (uint64_t)st.st_blocks * 512;
}

enum cow_state cow_run(const struct cow *cow, uint64_t offset, uint64_t *end)
{
	enum cow_state state;
	assert(offset < cow->size_bytes);
	const uint64_t block = offset / BLOCK_BYTES;
	*end = (block + block_states_run(&cow->states, block, cow->size_bytes / BLOCK_BYTES - block, &state)) * BLOCK_BYTES;
	return state;
}

/* The memory file is made at the first write: most short runs never get so far. */
static int open_store(struct cow *cow)
{
	if (cow->fd >= 0)
		return 0;
	const int fd = memfd_create("trvmm-cow", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)cow->size_bytes) < 0) {
		const int rc = -errno;
		close(fd);
		return rc;
	}
	cow->fd = fd;
	return 0;
}

static int store_write(struct cow *cow, uint64_t offset, const struct iovec *iov, unsigned count)
{
	cow->store_changed = true;
	return iov_pwrite_full(cow->fd, iov, count, cow->store_offset + offset);
}

/* The sum of the vector's lengths, which the caller has checked against the disk. */
static uint64_t checked_length(const struct cow *cow, uint64_t offset, const struct iovec *iov, unsigned count)
{
	const uint64_t length = iov_total(iov, count);
	assert(offset <= cow->size_bytes && length <= cow->size_bytes - offset);
	return length;
}

/* Blocks that [offset, offset + length) touches, from the one that offset lies in. */
static uint64_t touched_blocks(uint64_t offset, uint64_t length)
{
	return (offset % BLOCK_BYTES + length + BLOCK_BYTES - 1) / BLOCK_BYTES;
}

/* ---- reading ----------------------------------------------------------------------------------------------------------------- */

static int read_state(const struct cow *cow, enum cow_state state, uint64_t offset, const struct iovec *iov, unsigned count)
{
	switch (state) {
	case COW_WRITTEN:
		return iov_pread_full(cow->fd, iov, count, cow->store_offset + offset);
	case COW_ZERO:
		iov_zero(iov, count, 0, SIZE_MAX);
		return 0;
	default:
		return cow->readv(cow->base, offset, iov, count);
	}
}

int cow_readv(struct cow *cow, uint64_t offset, const struct iovec *iov, unsigned count)
{
	uint64_t length = checked_length(cow, offset, iov, count);
	struct cursor to = { .iov = iov };
	bool whole = true;
	while (length) {
		enum cow_state state;
		const uint64_t blocks = block_states_run(&cow->states, offset / BLOCK_BYTES, touched_blocks(offset, length), &state);
		const uint64_t run = blocks * BLOCK_BYTES - offset % BLOCK_BYTES;
		/* Nearly always all of the request has one state. */
		if (whole && run >= length)
			return read_state(cow, state, offset, iov, count);
		whole = false;
		uint64_t left = run < length ? run : length;
		length -= left;
		while (left) {
			struct iovec batch[CURSOR_BATCH];
			unsigned used;
			const uint64_t bytes = cursor_take_batch(&to, left, batch, &used);
			const int rc = read_state(cow, state, offset, batch, used);
			if (rc)
				return rc;
			offset += bytes;
			left -= bytes;
		}
	}
	return 0;
}

/* ---- the quota --------------------------------------------------------------------------------------------------------------- */

/* How many of these blocks take room in the store. */
static uint64_t count_written(const struct cow *cow, uint64_t block, uint64_t count)
{
	uint64_t written = 0;
	while (count) {
		enum cow_state state;
		const uint64_t run = block_states_run(&cow->states, block, count, &state);
		if (state == COW_WRITTEN)
			written += run;
		block += run;
		count -= run;
	}
	return written;
}

void cow_set_quota(struct cow *cow, uint64_t bytes)
{
	cow->has_quota = true;
	cow->quota_blocks = bytes / BLOCK_BYTES;
	cow->written_blocks = count_written(cow, 0, cow->size_bytes / BLOCK_BYTES);
}

/* ---- writing ----------------------------------------------------------------------------------------------------------------- */

/* Makes a block WRITTEN with the bytes that it has, for a write to a part of it. */
static int copy_up(struct cow *cow, uint64_t block)
{
	enum cow_state state;
	block_states_run(&cow->states, block, 1, &state);
	if (state == COW_WRITTEN)
		return 0;
	uint8_t bytes[BLOCK_BYTES];
	const struct iovec iov = { bytes, sizeof(bytes) };
	int rc = read_state(cow, state, block * BLOCK_BYTES, &iov, 1);
	if (rc == 0)
		rc = store_write(cow, block * BLOCK_BYTES, &iov, 1);
	return rc ? rc : block_states_set(&cow->states, block, 1, COW_WRITTEN);
}

static int write_checked(struct cow *cow, uint64_t offset, const struct iovec *iov, unsigned count, uint64_t length)
{
	const uint64_t end = offset + length;
	int rc = open_store(cow);
	if (rc == 0 && offset % BLOCK_BYTES)
		rc = copy_up(cow, offset / BLOCK_BYTES);
	if (rc == 0 && end % BLOCK_BYTES)
		rc = copy_up(cow, end / BLOCK_BYTES);
	if (rc == 0)
		rc = store_write(cow, offset, iov, count);
	return rc ? rc : block_states_set(&cow->states, offset / BLOCK_BYTES, touched_blocks(offset, length), COW_WRITTEN);
}

int cow_writev(struct cow *cow, uint64_t offset, const struct iovec *iov, unsigned count)
{
	const uint64_t length = checked_length(cow, offset, iov, count);
	if (length == 0 || !cow->has_quota)
		return length ? write_checked(cow, offset, iov, count, length) : 0;
	const uint64_t block = offset / BLOCK_BYTES, blocks = touched_blocks(offset, length);
	const uint64_t before = count_written(cow, block, blocks), after = cow->written_blocks + blocks - before;
	if (blocks > before && after > cow->quota_blocks)
		return -ENOSPC;
	const int rc = write_checked(cow, offset, iov, count, length);
	/* A failure may have come when a part was done. */
	cow->written_blocks += count_written(cow, block, blocks) - before;
	return rc;
}

/* Zeroes a part of one block. */
static int zero_part(struct cow *cow, uint64_t offset, uint64_t length)
{
	if (length == 0)
		return 0;
	enum cow_state state;
	block_states_run(&cow->states, offset / BLOCK_BYTES, 1, &state);
	if (state == COW_ZERO || (state == COW_BASE && offset >= cow->zero_from))
		return 0;
	uint8_t zeroes[BLOCK_BYTES] = { 0 };
	const struct iovec iov = { zeroes, length };
	return cow_writev(cow, offset, &iov, 1);
}

/* Zeroes whole blocks. Where the base is zero anyway they need no state. */
static int zero_blocks(struct cow *cow, uint64_t offset, uint64_t end)
{
	/* A file system that cannot make holes keeps what nobody sees any more. */
	if (cow->fd >= 0 && fallocate(cow->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(cow->store_offset + offset),
				      (off_t)(end - offset)) < 0 && errno != EOPNOTSUPP)
		return -errno;
	cow->store_changed = true;
	const uint64_t first = offset / BLOCK_BYTES, last = end / BLOCK_BYTES;
	if (cow->has_quota)
		cow->written_blocks -= count_written(cow, first, last - first);
	const uint64_t free = cow->zero_from / BLOCK_BYTES;
	const uint64_t border = free < first ? first : free > last ? last : free;
	const int rc = block_states_set(&cow->states, first, border - first, COW_ZERO);
	return rc ? rc : block_states_set(&cow->states, border, last - border, COW_BASE);
}

int cow_zero(struct cow *cow, uint64_t offset, uint64_t length)
{
	assert(offset <= cow->size_bytes && length <= cow->size_bytes - offset);
	const uint64_t end = offset + length;
	/* The first whole block, and behind the last. */
	const uint64_t whole = (offset + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
	const uint64_t whole_end = end / BLOCK_BYTES * BLOCK_BYTES;
	if (whole > whole_end || length == 0)
		return zero_part(cow, offset, length);
	int rc = zero_part(cow, offset, whole - offset);
	if (rc == 0)
		rc = zero_part(cow, whole_end, end - whole_end);
	return rc || whole == whole_end ? rc : zero_blocks(cow, whole, whole_end);
}

/* ---- flushing ---------------------------------------------------------------------------------------------------------------- */

/*
 * Blocks first, then the map that tells of them. Whatever a crash leaves of the map's sectors, each block has the state that it had at the
 * last flush, or the new one, whose bytes are on the disk by then.
 */
int cow_flush(struct cow *cow)
{
	if (!cow->kept || (!cow->store_changed && !cow->states.any_changed))
		return 0;
	int rc = cow->store_changed ? kept_sync(cow->kept) : 0;
	if (rc)
		return rc;
	cow->store_changed = false;
	rc = cow->states.any_changed ? kept_write_map(cow->kept, &cow->states) : 0;
	return rc;
}
