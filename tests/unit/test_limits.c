/* throttle.h, limits.h, cpu_quota.h: rates, bursts and shares; the words that set them. */
#include <criterion/criterion.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/throttle.h"
#include "vmm/cpu_quota.h"
#include "vmm/limits.h"

#define SECOND 1000000000ull

Test(throttle, no_limit_is_no_wait)
{
	struct throttle t;
	throttle_init(&t, &(struct throttle_limit){ .bytes_per_s = 0 });
	cr_expect_not(throttle_is_on(&t));
	throttle_charge(&t, UINT64_MAX, 5);
	cr_expect_eq(throttle_wait_ns(&t, 5), 0);
}

/* What is moved in a long time, when somebody always asks again as soon as possible. */
static uint64_t moved(const struct throttle_limit *limit, uint64_t request, uint64_t seconds)
{
	struct throttle t;
	uint64_t now = 7 * SECOND, bytes = 0;
	const uint64_t end = now + seconds * SECOND;
	throttle_init(&t, limit);
	while (now < end) {
		now += throttle_wait_ns(&t, now);
		if (now >= end)
			break;
		throttle_charge(&t, request, now);
		bytes += request;
		now += 1000; /* it takes a microsecond */
	}
	return bytes;
}

Test(throttle, the_rate_holds_and_a_burst_comes_on_top)
{
	const uint64_t rate = 1 << 20;
	const struct throttle_limit limit = { .bytes_per_s = rate };
	/* One second's worth at once, then the rate; one request is on its way at the end. */
	const uint64_t got = moved(&limit, 4096, 100);
	cr_expect(got >= 101 * rate - 4096 && got <= 101 * rate + 4096, "%llu", (unsigned long long)got);
	const struct throttle_limit longer = { .bytes_per_s = rate, .burst_ns = 10 * SECOND };
	const uint64_t more = moved(&longer, 4096, 100);
	cr_expect(more >= 110 * rate - 4096 && more <= 110 * rate + 4096, "%llu", (unsigned long long)more);
}

Test(throttle, operations_count_whatever_their_size)
{
	const struct throttle_limit limit = { .ops_per_s = 50, .bytes_per_s = 1ull << 40 };
	const uint64_t got = moved(&limit, 1, 100);
	cr_expect(got >= 50 * 101 - 1 && got <= 50 * 101 + 1, "%llu", (unsigned long long)got);
}

Test(throttle, one_request_is_never_refused_but_paid_for)
{
	struct throttle t;
	throttle_init(&t, &(struct throttle_limit){ .bytes_per_s = 1000 });
	cr_expect_eq(throttle_wait_ns(&t, 0), 0);
	throttle_charge(&t, 100000, 0);
	cr_expect_eq(throttle_wait_ns(&t, 0), 99 * SECOND);
	cr_expect_eq(throttle_wait_ns(&t, 98 * SECOND), SECOND);
	cr_expect_eq(throttle_wait_ns(&t, 99 * SECOND), 0);
	/* No sum of sizes makes time run over. */
	for (unsigned i = 0; i < 4; i++)
		throttle_charge(&t, UINT64_MAX, 99 * SECOND);
	cr_expect(throttle_wait_ns(&t, 99 * SECOND) > UINT64_MAX / 2);
}

Test(limits, io_words)
{
	struct throttle_limit limit;
	struct error err = { "" };
	cr_assert_eq(limits_parse_io("bytes=20M", &limit, &err), 0);
	cr_expect(limit.bytes_per_s == 20 << 20 && limit.ops_per_s == 0 && limit.burst_ns == 0);
	cr_assert_eq(limits_parse_io("ops=100,bytes=1K,burst=5", &limit, &err), 0);
	cr_expect(limit.bytes_per_s == 1024 && limit.ops_per_s == 100 && limit.burst_ns == 5 * SECOND);
	static const char *const bad[] = { "",
					   "bytes",
					   "bytes=",
					   "bytes=0",
					   "ops=-1",
					   "burst=1",
					   "bytes=1,",
					   "bytes=1 ops=2",
					   "byte=1",
					   "bytes=1,burst=61",
					   "bytes=1,burst=0",
					   "bytes=1,what=2",
					   "bytes=99999999999999999999" };
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		cr_expect_eq(limits_parse_io(bad[i], &limit, &err), -EINVAL, "%s", bad[i]);
		cr_expect(strstr(err.text, "--io-limit"), "%s", err.text);
	}
	cr_expect_eq(limit.ops_per_s, 100, "untouched on failure");
}

Test(limits, processors)
{
	struct error err = { "" };
	unsigned value = 1;
	cr_expect(limits_parse_cpu("0.5", 8, &value, &err) == 0 && value == 500);
	cr_expect(limits_parse_cpu("2", 8, &value, &err) == 0 && value == 2000);
	cr_expect(limits_parse_cpu("1.25", 8, &value, &err) == 0 && value == 1250);
	cr_expect(limits_parse_cpu("0.01", 8, &value, &err) == 0 && value == 10);
	static const char *const bad[] = { "", "0", "0.001", ".5", "8.001", "9", "1.2345", "-1", "1e3", "x", "99999999999" };
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		cr_expect_eq(limits_parse_cpu(bad[i], 8, &value, &err), -EINVAL, "%s", bad[i]);
}

/* ---- processor time ---------------------------------------------------------------------------------------------------------- */

struct burner {
	unsigned thousandths;
	uint64_t wall_ns, used_ns;
};

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec now;
	clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

static void *burn(void *data)
{
	struct burner *burner = data;
	struct cpu_quota quota;
	cr_assert_eq(cpu_quota_start(&quota, burner->thousandths), 0);
	const uint64_t begin = clock_ns(CLOCK_MONOTONIC), used = clock_ns(CLOCK_THREAD_CPUTIME_ID);
	while (clock_ns(CLOCK_MONOTONIC) - begin < SECOND)
		cpu_quota_wait(&quota);
	burner->wall_ns = clock_ns(CLOCK_MONOTONIC) - begin;
	burner->used_ns = clock_ns(CLOCK_THREAD_CPUTIME_ID) - used;
	return NULL;
}

Test(cpu_quota, a_thread_gets_its_share_and_no_more)
{
	static const unsigned shares[] = { 50, 300 };
	for (unsigned i = 0; i < sizeof(shares) / sizeof(shares[0]); i++) {
		struct burner burner = { .thousandths = shares[i] };
		pthread_t thread;
		cr_assert_eq(pthread_create(&thread, NULL, burn, &burner), 0);
		pthread_join(thread, NULL);
		/* A part, or a tick of the kernel's, may be used before the first signal comes. How much it gets is the host's affair. */
		const uint64_t allowed = burner.wall_ns * shares[i] / 1000 + 100000000ull * shares[i] / 1000 + 20000000;
		cr_expect(burner.used_ns <= allowed, "%u: used %llu of %llu ns", shares[i], (unsigned long long)burner.used_ns,
			  (unsigned long long)burner.wall_ns);
	}
}

Test(cpu_quota, a_whole_processor_is_no_quota)
{
	struct cpu_quota quota;
	cr_assert_eq(cpu_quota_start(&quota, 1000), 0);
	cr_expect_eq(quota.thousandths, 0);
	cpu_quota_wait(&quota);
}
