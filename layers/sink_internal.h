/*
 * Where inflated bytes go: written, summed and hashed by a thread of their own, while the next ones are inflated.
 *
 * A ring of buffers: the producer fills one after the other, the thread empties them in the same order.
 */
#ifndef TRVMM_LAYERS_SINK_INTERNAL_H
#define TRVMM_LAYERS_SINK_INTERNAL_H

#define OPENSSL_SUPPRESS_DEPRECATED /* as in digest.c */
#include <openssl/sha.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "layers/cache.h"

#define SINK_BUFFERS 4u

struct sink {
	int to;
	const char *to_name; /* borrowed; for messages */
	struct inflated_sums sums; /* the thread's until sink_end() */
	SHA256_CTX sha256;
	uint8_t *buffers; /* owned: SINK_BUFFERS of INFLATED_CHUNK_BYTES */
	size_t lengths[SINK_BUFFERS];
	bool threaded; /* else sink_put() does the work: no thread was to be had */
	pthread_t thread;
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t changed;
	uint64_t filled, emptied; /* buffers so far */
	bool ended;
	int code; /* the first failure */
	struct error err;
};

/* Begins to write to `to`, from its start. Returns 0 or -ENOMEM. */
int sink_begin(struct sink *sink, int to, const char *to_name, bool with_diff_id);

/* The buffer to fill next, INFLATED_CHUNK_BYTES; waits for one that is empty. NULL: writing has failed, and sink_end() says how. */
uint8_t *sink_buffer(struct sink *sink);

/* Hands over that buffer with so many bytes in it. */
void sink_put(struct sink *sink, size_t length);

/* Waits until all is written. Returns 0 with the sums, or -errno with a line. Also called when the producer has failed. */
int sink_end(struct sink *sink, struct inflated_sums *sums, struct error *err);

#endif
