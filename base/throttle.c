/* A token bucket; see throttle.h. */
#include "base/throttle.h"

#include <errno.h>
#include <time.h>

#define SECOND_NS 1000000000u

void throttle_init(struct throttle *throttle, const struct throttle_limit *limit)
{
	*throttle = (struct throttle){ .limit = *limit };
	if (!throttle->limit.burst_ns)
		throttle->limit.burst_ns = THROTTLE_BURST_NS;
}

static uint64_t debt(uint64_t full_ns, uint64_t burst_ns, uint64_t now_ns)
{
	const uint64_t behind = full_ns > now_ns ? full_ns - now_ns : 0;
	return behind > burst_ns ? behind - burst_ns : 0;
}

uint64_t throttle_wait_ns(const struct throttle *throttle, uint64_t now_ns)
{
	const uint64_t bytes = debt(throttle->bytes_full_ns, throttle->limit.burst_ns, now_ns);
	const uint64_t ops = debt(throttle->ops_full_ns, throttle->limit.burst_ns, now_ns);
	return bytes > ops ? bytes : ops;
}

static void take(uint64_t *full_ns, uint64_t amount, uint64_t per_s, uint64_t now_ns)
{
	if (!per_s)
		return;
	const __uint128_t cost = (__uint128_t)amount * SECOND_NS / per_s;
	const uint64_t from = *full_ns > now_ns ? *full_ns : now_ns;
	*full_ns = cost > UINT64_MAX - from ? UINT64_MAX : from + (uint64_t)cost;
}

void throttle_charge(struct throttle *throttle, uint64_t bytes, uint64_t now_ns)
{
	take(&throttle->bytes_full_ns, bytes, throttle->limit.bytes_per_s, now_ns);
	take(&throttle->ops_full_ns, 1, throttle->limit.ops_per_s, now_ns);
}

uint64_t throttle_now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

void throttle_sleep(uint64_t wait_ns)
{
	const uint64_t now_ns = throttle_now_ns();
	const uint64_t until_ns = wait_ns > (uint64_t)INT64_MAX - now_ns ? (uint64_t)INT64_MAX : now_ns + wait_ns;
	const struct timespec until = { .tv_sec = (time_t)(until_ns / SECOND_NS), .tv_nsec = (long)(until_ns % SECOND_NS) };
	while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR)
		;
}
