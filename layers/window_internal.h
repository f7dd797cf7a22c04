/*
 * Reading scattered blocks of a large file with few system calls.
 *
 * A window is a buffer over the part of the file that was read last. How much a miss reads follows what the last windows were good
 * for: many small files in a row make it larger (one call brings many headers), large files make it small (what is read beside a
 * header is contents, copied in vain).
 */
#ifndef TRVMM_LAYERS_WINDOW_INTERNAL_H
#define TRVMM_LAYERS_WINDOW_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

struct chunk_check;
struct growth;

struct window {
	int fd;                /* borrowed; -1: memory */
	const uint8_t *memory; /* borrowed */
	uint64_t size;         /* of the file, from `base` on */
	uint64_t base;         /* where in the file offset 0 is */
	struct chunk_check *check; /* borrowed; NULL: the file is read as it is */
	struct growth *growth; /* borrowed; NULL: the file is complete */
	uint64_t grown;        /* what of it can be read */
	uint8_t *buffer;       /* owned */
	uint64_t start;        /* where in the file the buffer's contents come from */
	size_t length;         /* how many there are */
	size_t want;           /* bytes that the next miss reads */
	unsigned hits;         /* ranges that were found in the buffer since it was filled */
};

void window_open(struct window *window, int fd, const uint8_t *memory, uint64_t size);
void window_close(struct window *window);

/*
 * The size of the file, when it has fewer bytes than `end` or is complete; of one that grows and has come so far it is
 * GROWTH_UNKNOWN_BYTES. Waits until one of them is known.
 */
uint64_t window_find_size(struct window *window, uint64_t end);

/*
 * Copies `length` bytes at `offset` to `to`; the caller has checked that they lie in the file. Returns 0, -ENOMEM, -ENODATA when
 * the file has become shorter, -EBADMSG when `check` finds it damaged, or the error of pread.
 */
int window_read(struct window *window, uint64_t offset, void *to, size_t length);

#endif
