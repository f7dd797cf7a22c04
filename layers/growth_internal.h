/*
 * A file that is read while it is written.
 *
 * Inflating a layer takes most of a first start, and merging its headers the rest. They go on at once: who inflates tells how far the
 * file has come, and the tar reader waits for the bytes that it needs. Contents are skipped, so it is never far behind.
 *
 *   who writes:  growth_begin  growth_advance...  growth_end     growth_settle
 *   who reads:   growth_is_begun      growth_wait...             growth_is_settled
 *
 * What was read counts only when the layer is settled well: digests are verified in between.
 */
#ifndef TRVMM_LAYERS_GROWTH_INTERNAL_H
#define TRVMM_LAYERS_GROWTH_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define GROWTH_UNKNOWN_BYTES ((uint64_t)INT64_MAX) /* the size of a file that still grows */

struct growth {
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t changed;
	int fd; /* owned: the file for reading; -1: nothing is written yet */
	uint64_t bytes; /* that can be read */
	bool ended; /* they are all */
	bool settled; /* nothing happens here any more: the layer is in its place, or has failed */
	bool failed;
};

void growth_init(struct growth *growth);
void growth_destroy(struct growth *growth);

/* Of the one who writes. `growth` may be NULL: nobody reads. */
void growth_begin(struct growth *growth, int fd);
void growth_advance(struct growth *growth, uint64_t bytes);
void growth_end(struct growth *growth);
void growth_settle(struct growth *growth, bool failed);

/* Waits until something is written or the layer is settled. Returns whether it can be read while it grows. */
bool growth_is_begun(struct growth *growth);

/*
 * Waits until so many bytes can be read, or there will be no more. `grown`: how many can be. Returns the size, or GROWTH_UNKNOWN_BYTES when
 * there may be more.
 */
uint64_t growth_wait(struct growth *growth, uint64_t bytes, uint64_t *grown);

/* Waits until the layer is settled. Returns whether it is well. */
bool growth_is_settled(struct growth *growth);

#endif
