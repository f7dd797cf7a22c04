/*
 * Where compressed bytes come from: read, and hashed, by a thread of their own while the ones before are inflated.
 *
 * The digest is that of the bytes that were inflated, whatever happens to the file meanwhile.
 */
#ifndef TRVMM_LAYERS_FEED_INTERNAL_H
#define TRVMM_LAYERS_FEED_INTERNAL_H

#define OPENSSL_SUPPRESS_DEPRECATED /* as in digest.c */
#include <openssl/sha.h>

#include "base/error.h"
#include "layers/cache.h"
#include "layers/ring_internal.h"

struct progress;

struct feed {
	const struct file_range *from; /* borrowed */
	struct progress *progress; /* borrowed; NULL: nobody looks */
	bool with_digest;
	bool threaded; /* else feed_next() reads */
	bool taken; /* the caller has a buffer */
	pthread_t thread;
	struct ring ring;
	uint64_t read_bytes; /* these four are the thread's until the ring has ended */
	SHA256_CTX sha256;
	int code;
	struct error err;
};

/* Begins to read the range. `with_digest`: feed_end() will tell it. Returns 0 or -ENOMEM. */
int feed_begin(struct feed *feed, const struct file_range *from, bool with_digest, struct progress *progress);

/* From now on a thread reads ahead, if one is to be had. */
void feed_read_ahead(struct feed *feed);

/*
 * The bytes that come next, which stay until the next call; none at the end of the range or of the file. Returns 0, or -errno with a
 * line.
 */
int feed_next(struct feed *feed, const uint8_t **bytes, size_t *length, struct error *err);

/* Ends, wherever it is; `digest` (or NULL) gets that of what was read. */
void feed_end(struct feed *feed, uint8_t *digest);

#endif
