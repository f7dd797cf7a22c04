/* Buffers between two threads: nothing is lost, doubled or out of order, whoever is faster and whoever stops. */
#include <criterion/criterion.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "layers/ring_internal.h"

enum { BUFFERS = 1000 };

struct side {
	struct ring *ring;
	unsigned pause_every; /* sleeps then; 0: never */
	unsigned stop_after;
	unsigned done;
};

static void pause_at(const struct side *side)
{
	if (side->pause_every && side->done % side->pause_every == 0)
		usleep(200);
}

static void *fill(void *arg)
{
	struct side *side = arg;
	uint8_t *room;
	while (side->done < side->stop_after && (room = ring_room(side->ring))) {
		pause_at(side);
		memcpy(room, &side->done, sizeof(side->done));
		ring_put(side->ring, ++side->done);
	}
	ring_end(side->ring);
	return NULL;
}

static void empty(struct side *side)
{
	const uint8_t *bytes;
	size_t length;
	while (side->done < side->stop_after && (bytes = ring_next(side->ring, &length))) {
		unsigned number;
		pause_at(side);
		memcpy(&number, bytes, sizeof(number));
		cr_assert_eq(number, side->done);
		cr_assert_eq(length, ++side->done);
		ring_give_back(side->ring);
	}
	ring_refuse(side->ring);
}

static void run(struct side from, struct side to)
{
	struct ring ring;
	pthread_t thread;
	cr_assert_eq(ring_create(&ring), 0);
	from.ring = to.ring = &ring;
	cr_assert_eq(pthread_create(&thread, NULL, fill, &from), 0);
	empty(&to);
	pthread_join(thread, NULL);
	cr_assert_eq(to.done, from.stop_after < to.stop_after ? from.stop_after : to.stop_after);
	cr_assert(from.done <= to.done + RING_BUFFERS);
	ring_destroy(&ring);
}

Test(ring, order_is_kept_at_every_pace, .timeout = 60)
{
	static const unsigned paces[] = { 0, 1, 3, 50 };
	for (unsigned i = 0; i < 16; i++)
		run((struct side){ .pause_every = paces[i / 4], .stop_after = BUFFERS },
		    (struct side){ .pause_every = paces[i % 4], .stop_after = BUFFERS });
}

Test(ring, few_buffers_are_not_held_back_at_the_end, .timeout = 60)
{
	for (unsigned count = 0; count <= 2 * RING_BUFFERS; count++)
		run((struct side){ .stop_after = count }, (struct side){ .stop_after = BUFFERS });
}

Test(ring, who_fills_is_told_that_nobody_empties, .timeout = 60)
{
	for (unsigned count = 0; count <= 2 * RING_BUFFERS; count++)
		run((struct side){ .stop_after = BUFFERS }, (struct side){ .stop_after = count });
}
