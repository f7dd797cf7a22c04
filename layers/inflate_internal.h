/* Inflating a compressed range to a file of the cache, or its start to memory. */
#ifndef TRVMM_LAYERS_INFLATE_INTERNAL_H
#define TRVMM_LAYERS_INFLATE_INTERNAL_H

#include <sys/types.h>

#include "layers/cache.h"
#include "layers/inflated_file_internal.h"

struct inflate_target {
	int fd; /* borrowed: written from its start */
	const char *name; /* borrowed; for messages */
	struct growth *growth; /* borrowed: told how far it is; NULL: nobody wants to know */
	bool with_digest, with_diff_id; /* whether sums.digest and sums.diff_id are wanted */
};

/*
 * Inflates all members of the range. Returns 0 with the sums, whose array is the caller's; -EINVAL (corrupt), -ENODATA (truncated),
 * -EFBIG (needs too much memory, or is larger than the limit) or an I/O error with a line that names the byte of the compressed range.
 */
int inflate_file(const struct file_range *from, const struct codec *codec, const struct inflate_limits *limits,
		 const struct inflate_target *to, struct payload_sums *sums, struct error *err);

/*
 * The first bytes of what the range inflates to, into memory; fewer when there are no more or they are corrupt. Returns how many, or the
 * -errno of what kept us from reading.
 */
ssize_t inflate_start(const struct file_range *from, const struct codec *codec, void *to, size_t length);

/* The line for a layer that inflates to more than that. Returns -EFBIG. */
int inflate_too_large(uint64_t max_bytes, struct error *err);

#endif
