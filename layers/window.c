/* A buffer over part of a file; see window_internal.h. */
#include "layers/window_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/iov.h"
#include "layers/growth_internal.h"
#include "layers/inflated_file_internal.h"

#define WANT_LEAST ((size_t)4 << 10)
#define WANT_MOST ((size_t)64 << 10)
#define WANT_FIRST ((size_t)16 << 10)

void window_open(struct window *window, int fd, const uint8_t *memory, uint64_t size)
{
	*window = (struct window){ .fd = fd, .memory = memory, .size = size, .want = WANT_FIRST };
}

void window_close(struct window *window)
{
	free(window->buffer);
	window->buffer = NULL;
}

uint64_t window_find_size(struct window *window, uint64_t end)
{
	if (window->growth && window->size == GROWTH_UNKNOWN_BYTES && end > window->grown)
		window->size = growth_wait(window->growth, end, &window->grown);
	return window->size;
}

static int read_full(const struct window *window, void *to, size_t length, uint64_t offset)
{
	const int ret = window->check ? chunk_check_range(window->check, window->fd, offset, length) : 0;
	if (ret)
		return ret;
	const int read = pread_full(window->fd, to, length, offset);
	struct stat st;
	/* The file had these bytes when it was opened. */
	return read == -EIO && fstat(window->fd, &st) == 0 && (uint64_t)st.st_size < offset + length ? -ENODATA : read;
}

static int refill(struct window *window, uint64_t offset)
{
	if (!window->buffer) {
		window->buffer = malloc(WANT_MOST);
		if (!window->buffer)
			return -ENOMEM;
	} else if (window->hits >= 8 && window->want < WANT_MOST) {
		window->want *= 2;
	} else if (window->hits <= 2 && window->want > WANT_LEAST) {
		window->want /= 2;
	}
	const uint64_t left = (window->growth ? window->grown : window->size) - offset;
	const size_t length = left < window->want ? (size_t)left : window->want;
	window->hits = 0;
	window->length = 0;
	const int ret = read_full(window, window->buffer, length, window->base + offset);
	if (ret)
		return ret;
	window->start = offset;
	window->length = length;
	return 0;
}

static int inside(const struct window *window, uint64_t offset, size_t length)
{
	return offset >= window->start && offset - window->start <= window->length &&
	       length <= window->length - (offset - window->start);
}

int window_read(struct window *window, uint64_t offset, void *to, size_t length)
{
	if (window->fd < 0) {
		memcpy(to, window->memory + offset, length);
		return 0;
	}
	if (inside(window, offset, length)) {
		window->hits++;
	} else if (length > WANT_LEAST) {
		return read_full(window, to, length, window->base + offset);
	} else {
		const int ret = refill(window, offset);
		if (ret)
			return ret;
	}
	memcpy(to, window->buffer + (offset - window->start), length);
	return 0;
}
