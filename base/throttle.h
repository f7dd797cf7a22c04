/*
 * A token bucket for bytes and operations: so many a second, and a burst of what comes together in `burst_ns`. What is done is done whole,
 * and paid for afterwards: whoever has overdrawn waits until the debt is paid. So one large request passes any limit, and the rate holds.
 *
 * Kept as the time at which the bucket would be full again, which takes no timer (the generic cell rate algorithm of ATM, ITU-T I.371).
 */
#ifndef TRVMM_BASE_THROTTLE_H
#define TRVMM_BASE_THROTTLE_H

#include <stdbool.h>
#include <stdint.h>

#define THROTTLE_BURST_NS 1000000000u /* when nothing else is asked for */

/* What one device may do. All zero: anything. */
struct throttle_limit {
	uint64_t bytes_per_s; /* 0: any number */
	uint64_t ops_per_s; /* 0: any number */
	uint64_t burst_ns; /* 0: THROTTLE_BURST_NS */
};

/* One thread at a time. */
struct throttle {
	struct throttle_limit limit;
	uint64_t bytes_full_ns, ops_full_ns; /* when each bucket is full again */
};

void throttle_init(struct throttle *throttle, const struct throttle_limit *limit);

/* Whether there is a limit at all: who has none need not read the clock. */
static inline bool throttle_is_on(const struct throttle *throttle)
{
	return throttle->limit.bytes_per_s || throttle->limit.ops_per_s;
}

/* Nanoseconds until the next operation may begin; 0: now. */
uint64_t throttle_wait_ns(const struct throttle *throttle, uint64_t now_ns);

/* One operation of so many bytes was done. */
void throttle_charge(struct throttle *throttle, uint64_t bytes, uint64_t now_ns);

/* CLOCK_MONOTONIC. */
uint64_t throttle_now_ns(void);

/* Sleeps so long, whatever signals come; for threads that do nothing else. */
void throttle_sleep(uint64_t wait_ns);

#endif
