/*
 * Bytes between two stream sockets, both ways at once, with half close and back-pressure passed on. It knows no event loop: the owner
 * watches the two sockets for what relay_events() says, and tells relay_event() what happened. trvmm and the guest's agent share it.
 *
 *   fds[0]  -> ways[0] ->  fds[1]
 *   fds[0]  <- ways[1] <-  fds[1]
 *
 * A way reads only when all that it read before was taken: who does not read stops who writes to him, and nobody else. Only what was not
 * taken at once is kept, RELAY_BYTES at most, so a relay at rest holds no memory but its struct.
 */
#ifndef TRVMM_BASE_RELAY_H
#define TRVMM_BASE_RELAY_H

#include <stdbool.h>
#include <stdint.h>

#define RELAY_BYTES 65536u

struct relay_way {
	uint8_t *kept; /* owned, RELAY_BYTES; NULL: nothing is kept */
	uint32_t start, stop; /* what of it waits to be written */
	bool over; /* its end was passed on, or its receiver wants no more */
};

struct relay {
	int fds[2]; /* owned; non-blocking; -1: not there yet */
	struct relay_way ways[2];
	/* True: what looks like the end of fds[i] is a reset, which its kind of socket cannot say. Borrowed; NULL: it can. */
	const bool *was_reset[2];
	/* fds[i] is a vsock, whose peer sends a half close first unless it resets: an end in both directions at once is a reset. */
	bool close_is_reset[2];
};

/* All zero but the descriptors. */
void relay_init(struct relay *relay, int first, int second);

/* Closes both sockets and frees what was kept. */
void relay_close(struct relay *relay);

/* The same when the relay broke: a TCP connection is reset, so that its peer does not take what it got for all. */
void relay_reset(struct relay *relay);

/*
 * The EPOLL* bits to watch fds[end] for, level-triggered; a socket that waits for nothing is watched for edges, since a peer that hung up
 * would otherwise be reported for ever.
 */
uint32_t relay_events(const struct relay *relay, unsigned end);

/*
 * `events` happened at fds[end]: moves what can be moved, within bounds. `scratch` has RELAY_BYTES and holds nothing between calls. Returns
 * 0: goes on; 1: both ways are over; -errno: a socket broke, and what the other one got is not all that there was.
 */
int relay_event(struct relay *relay, unsigned end, uint32_t events, uint8_t *scratch);

#endif
