/*
 * Buffers that go from one thread to another, in order: one fills, the other empties.
 *
 *   who fills:    ring_room  ring_put ... ring_end
 *   who empties:  ring_next  ring_give_back ... ring_refuse (when it wants no more)
 *
 * Waking a thread costs about as much as filling a buffer, so who has to wait does until half of the ring is its own.
 */
#ifndef TRVMM_LAYERS_RING_INTERNAL_H
#define TRVMM_LAYERS_RING_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RING_BUFFERS 4u
#define RING_BUFFER_BYTES ((size_t)256 << 10)

struct ring {
	uint8_t *buffers; /* owned: RING_BUFFERS of RING_BUFFER_BYTES */
	size_t lengths[RING_BUFFERS];
	pthread_mutex_t lock; /* of what follows */
	pthread_cond_t changed;
	uint64_t filled, emptied; /* buffers so far */
	bool ended; /* no more will be filled */
	bool refused; /* no more will be emptied */
};

/* Returns 0 or -ENOMEM. */
int ring_create(struct ring *ring);
void ring_destroy(struct ring *ring);

/* The buffer to fill next, RING_BUFFER_BYTES; waits for one that is empty. NULL: nobody will empty it. */
uint8_t *ring_room(struct ring *ring);

/* Hands that buffer over with so many bytes in it. */
void ring_put(struct ring *ring, size_t length);

/* What was handed over is all. */
void ring_end(struct ring *ring);

/* The next full buffer, which stays where it is until ring_give_back(); waits for it. NULL: there is no more. */
const uint8_t *ring_next(struct ring *ring, size_t *length);
void ring_give_back(struct ring *ring);

/* From now on nothing is taken. */
void ring_refuse(struct ring *ring);

#endif
