/*
 * Where inflated bytes go: written, summed and hashed by a thread of their own, while the next ones are inflated.
 */
#ifndef TRVMM_LAYERS_SINK_INTERNAL_H
#define TRVMM_LAYERS_SINK_INTERNAL_H

#define OPENSSL_SUPPRESS_DEPRECATED /* as in digest.c */
#include <openssl/sha.h>

#include "base/error.h"
#include "layers/inflate_internal.h"
#include "layers/ring_internal.h"

_Static_assert(RING_BUFFER_BYTES % CHUNK_BYTES == 0, "only the last buffer may end within a chunk");

struct sink {
	struct inflate_target to;
	bool threaded; /* else sink_put() does the work: no thread was to be had */
	pthread_t thread;
	struct ring ring;
	struct payload_sums sums; /* these four are the thread's until sink_end() */
	SHA256_CTX sha256;
	int code; /* the failure */
	struct error err;
};

/* Begins to write to `to`, from its start. Returns 0 or -ENOMEM. */
int sink_begin(struct sink *sink, const struct inflate_target *to);

/* The buffer to fill next, RING_BUFFER_BYTES; waits for one that is empty. NULL: writing has failed, and sink_end() says how. */
uint8_t *sink_buffer(struct sink *sink);

/* Hands over that buffer with so many bytes in it; all but the last one are full. */
void sink_put(struct sink *sink, size_t length);

/*
 * Waits until all is written. Returns 0, or -errno with a line; the sums are the caller's in any case. Also called when the producer
 * has failed.
 */
int sink_end(struct sink *sink, struct payload_sums *sums, struct error *err);

#endif
