/*
 * A bar on stderr for inflating that takes long. Drawn by whoever is working, a few times a second, and erased at the end: nothing of
 * it stays on the terminal.
 */
#ifndef TRVMM_LAYERS_PROGRESS_INTERNAL_H
#define TRVMM_LAYERS_PROGRESS_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "layers/cache.h"
#include "layers/layers.h"

struct progress {
	uint64_t total_bytes;
	uint64_t done_bytes; /* atomic */
	int64_t next_ns; /* when it is drawn again; atomic */
	pthread_mutex_t lock; /* of stderr and `drawn` */
	bool drawn;
};

/* Returns false, and does nothing, when stderr is no terminal that can erase a line. */
bool progress_begin(struct progress *progress, uint64_t total_bytes);

/* More is done. Any thread; NULL is allowed, here and below. */
void progress_add(struct progress *progress, uint64_t bytes);

void progress_end(struct progress *progress);

/* What a run allows, with a bar for so many compressed bytes when it wants one; progress_end() ends that. */
struct inflate_limits inflate_limits_begin(const struct layers_spec *spec, struct progress *progress, uint64_t compressed_bytes);

#endif
