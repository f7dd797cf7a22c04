/*
 * The file of an inflated layer in the cache, and what guards it against damage.
 *
 *   | the layer's tar, as it is | zeroes up to 4 KiB | a CRC-32C for each 64 KiB of the tar | foot |
 *
 * The tar lies at offset 0, so the file can be looked at with tar(1) and offsets are what they would be in a plain layer.
 *
 *   - The file gets its name when it is complete. Its size and foot are checked when it is opened.
 *   - Its time is set to one that the digest determines, whole seconds long past: whoever writes to the file later changes that.
 *   - It is not synced, which would take longer than inflating. Instead the foot tells in which boot of the machine it was
 *     written, and the first run after another boot reads all of the file once and compares the sums: a power failure may have
 *     lost some of it.
 *   - Every run compares the sum of a chunk before it takes the first byte from it. A medium that returns other bytes than it was
 *     given is an I/O error, and the file's time is changed, so that the next start makes it anew.
 */
#ifndef TRVMM_LAYERS_INFLATED_FILE_INTERNAL_H
#define TRVMM_LAYERS_INFLATED_FILE_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "layers/array_internal.h"
#include "layers/cache.h"

#define CHUNK_BYTES ((size_t)64 << 10)

struct foot {
	char magic[8];
	uint8_t digest[DIGEST_BYTES];
	uint8_t diff_id[DIGEST_BYTES]; /* the SHA-256 of the payload; all zero: nobody asked for it yet */
	uint64_t payload_bytes;
	uint64_t sums_checksum; /* cache_checksum() of all sums */
	uint8_t boot_id[BOOT_ID_BYTES]; /* the boot in which it was written; all zero: known to be on the disk */
	uint64_t checksum; /* of the fields before */
};
_Static_assert(sizeof(struct foot) == 112, "the foot is written as it is, without padding");

/* What is computed of the payload, and of what it was inflated from, while it is written. */
struct payload_sums {
	uint64_t payload_bytes;
	struct array chunks; /* uint32_t: see chunk_sum() */
	uint8_t digest[DIGEST_BYTES]; /* of the compressed file; this and the next all zero: not asked for */
	uint8_t diff_id[DIGEST_BYTES];
};

/* The sum of up to CHUNK_BYTES; the last chunk may be shorter. */
uint32_t chunk_sum(const void *bytes, size_t length);

/* Writes what stands behind the payload and sets the file's time. Returns 0 or -errno. */
int inflated_file_end(int fd, const struct payload_sums *sums, const uint8_t digest[DIGEST_BYTES], struct foot *foot);

/* Writes the foot again with what was learned. Returns 0 or -errno. */
int inflated_file_write_foot(int fd, struct foot *foot);

/* Reads and checks the foot of the entry for `digest`. Returns 0 or -EBADMSG. */
int inflated_file_read_foot(int fd, const uint8_t digest[DIGEST_BYTES], struct foot *foot);

/* Whether the entry was written in this boot, so that the kernel knows all of it, or is known to be on the disk. */
bool inflated_file_is_safe(const struct foot *foot);

/* Reads all of the payload. Returns 0, -EBADMSG (damaged), or the error of reading. */
int inflated_file_verify(int fd, const struct foot *foot);

/* ---- chunk by chunk, when they are read --------------------------------------------------------------------------------------- */

struct chunk_check;

/* For an open file of the cache whose foot was good. Returns 0, -ENOMEM, or -EBADMSG when it is none. */
int chunk_check_create(int fd, struct chunk_check **check);
void chunk_check_destroy(struct chunk_check *check);

/*
 * To be called before a read of these bytes of the payload: compares the sums of the chunks in which they lie, once for each chunk.
 * Returns 0; -EBADMSG when one is damaged, and the file will then be made anew at the next start; or the error of reading. Any thread.
 */
int chunk_check_range(struct chunk_check *check, int fd, uint64_t offset, uint64_t length);

#endif
