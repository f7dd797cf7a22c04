/*
 * A cursor over the caller's vector: how much of it is filled. Moves forward only, so serving a request piece by piece costs no
 * more than its length. Never steps past what the caller asks for; asking for more than the vector holds is our bug.
 */
#ifndef TRVMM_EXT4GEN_CURSOR_INTERNAL_H
#define TRVMM_EXT4GEN_CURSOR_INTERNAL_H

#include <stdint.h>
#include <string.h>
#include <sys/uio.h>

/* Ranges handed on at once; a request seldom has more. */
#define CURSOR_BATCH 64

struct cursor {
	const struct iovec *iov;
	size_t at; /* in iov[0] */
};

/* Takes the rest of the current range, cut to `length`, which is more than 0. */
static inline struct iovec cursor_take(struct cursor *cursor, uint64_t length)
{
	while (cursor->at == cursor->iov->iov_len) {
		cursor->iov++;
		cursor->at = 0;
	}
	const size_t left = cursor->iov->iov_len - cursor->at;
	const struct iovec range = { (char *)cursor->iov->iov_base + cursor->at, left < length ? left : (size_t)length };
	cursor->at += range.iov_len;
	return range;
}

/* Takes up to `length` bytes as at most CURSOR_BATCH ranges. Returns the bytes taken. */
static inline uint64_t cursor_take_batch(struct cursor *cursor, uint64_t length, struct iovec *batch, unsigned *count)
{
	uint64_t bytes = 0;
	for (*count = 0; *count < CURSOR_BATCH && bytes < length; ++*count) {
		batch[*count] = cursor_take(cursor, length - bytes);
		bytes += batch[*count].iov_len;
	}
	return bytes;
}

static inline void cursor_copy(struct cursor *cursor, const uint8_t *from, size_t length)
{
	while (length) {
		const struct iovec range = cursor_take(cursor, length);
		memcpy(range.iov_base, from, range.iov_len);
		from += range.iov_len;
		length -= range.iov_len;
	}
}

static inline void cursor_zero(struct cursor *cursor, uint64_t length)
{
	while (length) {
		const struct iovec range = cursor_take(cursor, length);
		memset(range.iov_base, 0, range.iov_len);
		length -= range.iov_len;
	}
}

#endif
