/*
 * Copy-on-write; see cow.h.
 *
 * Invariants: a COW block's bytes are all in the memory file. A ZERO block is a hole there, so that a write to a part of it
 * needs no copy. What the memory file holds under a BASE block means nothing (a failed write may leave something there).
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
#include "ext4gen/cursor_internal.h"

#define BLOCK_BYTES 4096u

enum state { STATE_BASE = 0, STATE_COW = 1, STATE_ZERO = 2 };

/* States are kept for 64 Ki blocks (256 MiB) at once, 32 in a word, lowest bits first. */
enum {
	BLOCKS_PER_WORD = 32,
	BLOCKS_PER_CHUNK = 65536,
	WORDS_PER_CHUNK = BLOCKS_PER_CHUNK / BLOCKS_PER_WORD,
};

struct cow {
	uint64_t size_bytes;
	cow_base_readv readv;
	const void *base;  /* borrowed */
	int fd;            /* owned; the memory file, -1 until something is written */
	uint64_t **chunks; /* owned; NULL: all blocks BASE, &all_zero: all blocks ZERO */
	uint64_t chunk_count;
};

/* Marks a chunk that was discarded as a whole: the guest may discard terabytes, and pays for none. */
static uint64_t all_zero;

/* ---- states ------------------------------------------------------------------------------------------------------------------ */

static uint64_t repeat_state(enum state state)
{
	return (uint64_t)state * 0x5555555555555555u;
}

/* Tells the state of `block` and how many blocks from there on have it, at most `max` (which is more than 0). */
static uint64_t state_run(const struct cow *cow, uint64_t block, uint64_t max, enum state *state)
{
	const uint64_t *words = cow->chunks[block / BLOCKS_PER_CHUNK];
	const uint64_t first = block % BLOCKS_PER_CHUNK;
	const uint64_t end = max < BLOCKS_PER_CHUNK - first ? first + max : BLOCKS_PER_CHUNK;
	if (!words || words == &all_zero) {
		*state = words ? STATE_ZERO : STATE_BASE;
		return end - first;
	}
	*state = words[first / BLOCKS_PER_WORD] >> first % BLOCKS_PER_WORD * 2 & 3;
	uint64_t at = first;
	while (at < end) {
		const uint64_t differs = (words[at / BLOCKS_PER_WORD] ^ repeat_state(*state)) >> at % BLOCKS_PER_WORD * 2;
		if (differs) {
			at += (uint64_t)__builtin_ctzll(differs) / 2;
			break;
		}
		at += BLOCKS_PER_WORD - at % BLOCKS_PER_WORD;
	}
	return (at < end ? at : end) - first;
}

/* The words of a chunk, which from now on has its own. NULL: no memory. */
static uint64_t *chunk_words(struct cow *cow, uint64_t chunk)
{
	uint64_t *words = cow->chunks[chunk];
	if (words && words != &all_zero)
		return words;
	uint64_t *own = calloc(WORDS_PER_CHUNK, sizeof(*own));
	if (!own)
		return NULL;
	if (words)
		memset(own, 0xAA, WORDS_PER_CHUNK * sizeof(*own)); /* STATE_ZERO throughout */
	cow->chunks[chunk] = own;
	return own;
}

static int set_states(struct cow *cow, uint64_t block, uint64_t count, enum state state)
{
	while (count) {
		const uint64_t chunk = block / BLOCKS_PER_CHUNK, first = block % BLOCKS_PER_CHUNK;
		const uint64_t take = count < BLOCKS_PER_CHUNK - first ? count : BLOCKS_PER_CHUNK - first;
		block += take;
		count -= take;
		if (take == BLOCKS_PER_CHUNK && state == STATE_ZERO) {
			if (cow->chunks[chunk] != &all_zero)
				free(cow->chunks[chunk]);
			cow->chunks[chunk] = &all_zero;
			continue;
		}
		uint64_t *words = chunk_words(cow, chunk);
		if (!words)
			return -ENOMEM;
		for (uint64_t at = first; at < first + take;) {
			const uint64_t shift = at % BLOCKS_PER_WORD;
			uint64_t n = BLOCKS_PER_WORD - shift;
			if (n > first + take - at)
				n = first + take - at;
			const uint64_t mask = (n == BLOCKS_PER_WORD ? ~(uint64_t)0 : ((uint64_t)1 << 2 * n) - 1) << 2 * shift;
			uint64_t *word = &words[at / BLOCKS_PER_WORD];
			*word = (*word & ~mask) | (repeat_state(state) & mask);
			at += n;
		}
	}
	return 0;
}

/* ---- life -------------------------------------------------------------------------------------------------------------------- */

int cow_create(uint64_t size_bytes, cow_base_readv readv, const void *base, struct cow **cow)
{
	if (size_bytes % BLOCK_BYTES || size_bytes > INT64_MAX)
		return -EINVAL;
	struct cow *made = calloc(1, sizeof(*made));
	if (!made)
		return -ENOMEM;
	const uint64_t blocks = size_bytes / BLOCK_BYTES;
	*made = (struct cow){ .size_bytes = size_bytes, .readv = readv, .base = base, .fd = -1 };
	made->chunk_count = blocks / BLOCKS_PER_CHUNK + (blocks % BLOCKS_PER_CHUNK != 0);
	made->chunks = calloc(made->chunk_count + 1, sizeof(*made->chunks));
	if (!made->chunks) {
		free(made);
		return -ENOMEM;
	}
	*cow = made;
	return 0;
}

void cow_destroy(struct cow *cow)
{
	if (!cow)
		return;
	for (uint64_t i = 0; i < cow->chunk_count; i++)
		if (cow->chunks[i] != &all_zero)
			free(cow->chunks[i]);
	free(cow->chunks);
	if (cow->fd >= 0)
		close(cow->fd);
	free(cow);
}

uint64_t cow_used_bytes(const struct cow *cow)
{
	struct stat st;
	if (cow->fd < 0 || fstat(cow->fd, &st) < 0)
		return 0;
	return (uint64_t)st.st_blocks * 512;
}

/* The memory file is made at the first write: most short runs never get so far. */
static int open_memory(struct cow *cow)
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

static int read_state(const struct cow *cow, enum state state, uint64_t offset, const struct iovec *iov, unsigned count)
{
	switch (state) {
	case STATE_COW:
		return iov_pread_full(cow->fd, iov, count, offset);
	case STATE_ZERO:
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
		enum state state;
		const uint64_t blocks = state_run(cow, offset / BLOCK_BYTES, touched_blocks(offset, length), &state);
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

/* ---- writing ----------------------------------------------------------------------------------------------------------------- */

/* Makes a BASE block COW with the bytes that it has, for a write to a part of it. Other states need nothing. */
static int copy_up(struct cow *cow, uint64_t block)
{
	enum state state;
	state_run(cow, block, 1, &state);
	if (state != STATE_BASE)
		return 0;
	uint8_t bytes[BLOCK_BYTES];
	const struct iovec iov = { bytes, sizeof(bytes) };
	int rc = cow->readv(cow->base, block * BLOCK_BYTES, &iov, 1);
	if (rc == 0)
		rc = iov_pwrite_full(cow->fd, &iov, 1, block * BLOCK_BYTES);
	return rc ? rc : set_states(cow, block, 1, STATE_COW);
}

int cow_writev(struct cow *cow, uint64_t offset, const struct iovec *iov, unsigned count)
{
	const uint64_t length = checked_length(cow, offset, iov, count);
	if (length == 0)
		return 0;
	const uint64_t end = offset + length;
	int rc = open_memory(cow);
	if (rc == 0 && offset % BLOCK_BYTES)
		rc = copy_up(cow, offset / BLOCK_BYTES);
	if (rc == 0 && end % BLOCK_BYTES)
		rc = copy_up(cow, end / BLOCK_BYTES);
	if (rc == 0)
		rc = iov_pwrite_full(cow->fd, iov, count, offset);
	return rc ? rc : set_states(cow, offset / BLOCK_BYTES, touched_blocks(offset, length), STATE_COW);
}

/* Zeroes a part of one block. */
static int zero_part(struct cow *cow, uint64_t offset, uint64_t length)
{
	if (length == 0)
		return 0;
	enum state state;
	state_run(cow, offset / BLOCK_BYTES, 1, &state);
	if (state == STATE_ZERO)
		return 0;
	uint8_t zeroes[BLOCK_BYTES] = { 0 };
	const struct iovec iov = { zeroes, length };
	return cow_writev(cow, offset, &iov, 1);
}

int cow_zero(struct cow *cow, uint64_t offset, uint64_t length)
{
	assert(offset <= cow->size_bytes && length <= cow->size_bytes - offset);
	const uint64_t end = offset + length;
	const uint64_t whole =
	    (offset + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES; /* the first whole block, and behind the last */
	const uint64_t whole_end = end / BLOCK_BYTES * BLOCK_BYTES;
	if (whole > whole_end || length == 0)
		return zero_part(cow, offset, length);
	int rc = zero_part(cow, offset, whole - offset);
	if (rc == 0)
		rc = zero_part(cow, whole_end, end - whole_end);
	if (rc || whole == whole_end)
		return rc;
	if (cow->fd >= 0 &&
	    fallocate(cow->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)whole, (off_t)(whole_end - whole)) < 0)
		return -errno;
	return set_states(cow, whole / BLOCK_BYTES, (whole_end - whole) / BLOCK_BYTES, STATE_ZERO);
}
