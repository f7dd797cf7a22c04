/* Buffers between two threads; see ring_internal.h. */
#include "layers/ring_internal.h"

#include <errno.h>
#include <stdlib.h>

int ring_create(struct ring *ring)
{
	*ring = (struct ring){ .buffers = malloc(RING_BUFFERS * RING_BUFFER_BYTES) };
	if (!ring->buffers)
		return -ENOMEM;
	pthread_mutex_init(&ring->lock, NULL);
	pthread_cond_init(&ring->changed, NULL);
	return 0;
}

void ring_destroy(struct ring *ring)
{
	pthread_mutex_destroy(&ring->lock);
	pthread_cond_destroy(&ring->changed);
	free(ring->buffers);
}

static void leave(struct ring *ring, bool tell)
{
	if (tell)
		pthread_cond_signal(&ring->changed);
	pthread_mutex_unlock(&ring->lock);
}

static uint8_t *buffer(const struct ring *ring, uint64_t number)
{
	return ring->buffers + number % RING_BUFFERS * RING_BUFFER_BYTES;
}

uint8_t *ring_room(struct ring *ring)
{
	pthread_mutex_lock(&ring->lock);
	while (ring->filled - ring->emptied == RING_BUFFERS && !ring->refused)
		pthread_cond_wait(&ring->changed, &ring->lock);
	uint8_t *room = ring->refused ? NULL : buffer(ring, ring->filled);
	leave(ring, false);
	return room;
}

void ring_put(struct ring *ring, size_t length)
{
	pthread_mutex_lock(&ring->lock);
	ring->lengths[ring->filled++ % RING_BUFFERS] = length;
	leave(ring, ring->filled - ring->emptied >= RING_BUFFERS / 2);
}

void ring_end(struct ring *ring)
{
	pthread_mutex_lock(&ring->lock);
	ring->ended = true;
	leave(ring, true);
}

const uint8_t *ring_next(struct ring *ring, size_t *length)
{
	pthread_mutex_lock(&ring->lock);
	while (ring->filled == ring->emptied && !ring->ended)
		pthread_cond_wait(&ring->changed, &ring->lock);
	const uint8_t *full = ring->filled == ring->emptied ? NULL : buffer(ring, ring->emptied);
	*length = full ? ring->lengths[ring->emptied % RING_BUFFERS] : 0;
	leave(ring, false);
	return full;
}

void ring_give_back(struct ring *ring)
{
	pthread_mutex_lock(&ring->lock);
	ring->emptied++;
	leave(ring, ring->filled - ring->emptied == RING_BUFFERS / 2);
}

void ring_refuse(struct ring *ring)
{
	pthread_mutex_lock(&ring->lock);
	ring->refused = true;
	leave(ring, true);
}
