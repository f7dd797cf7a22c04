/* Writing, summing and hashing beside inflating; see sink_internal.h. */
#include "layers/sink_internal.h"

#include <errno.h>
#include <string.h>

#include "base/iov.h"
#include "base/thread.h"
#include "layers/growth_internal.h"

static int write_bytes(struct sink *sink, const uint8_t *bytes, size_t length, struct error *err)
{
	const int ret = write_full(sink->to.fd, bytes, length);
	if (ret == -ENOSPC || ret == -EDQUOT)
		return error_set(err, ret, "no space left in the cache %s after %llu MB: make room or set XDG_CACHE_HOME", sink->to.name,
				 (unsigned long long)(sink->sums.payload_bytes >> 20));
	return ret ? error_set(err, ret, "cannot write to the cache %s: %s", sink->to.name, strerror(-ret)) : 0;
}

static int sum_chunks(struct sink *sink, const uint8_t *bytes, size_t length)
{
	for (size_t done = 0; done < length; done += CHUNK_BYTES) {
		const size_t left = length - done;
		const uint32_t sum = chunk_sum(bytes + done, left < CHUNK_BYTES ? left : CHUNK_BYTES);
		if (array_append(&sink->sums.chunks, &sum, sizeof(sum)))
			return -ENOMEM;
	}
	return 0;
}

static int empty_buffer(struct sink *sink, const uint8_t *bytes, size_t length, struct error *err)
{
	if (sum_chunks(sink, bytes, length))
		return error_set(err, -ENOMEM, "out of memory");
	const int ret = write_bytes(sink, bytes, length, err);
	if (ret)
		return ret;
	sink->sums.payload_bytes += length;
	growth_advance(sink->to.growth, length);
	if (sink->to.with_diff_id)
		SHA256_Update(&sink->sha256, bytes, length);
	return 0;
}

/* Empties one buffer. Returns false when there is none, or it failed. */
static bool work_once(struct sink *sink)
{
	size_t length;
	const uint8_t *bytes = ring_next(&sink->ring, &length);
	if (!bytes)
		return false;
	sink->code = empty_buffer(sink, bytes, length, &sink->err);
	if (sink->code) {
		ring_refuse(&sink->ring);
		return false;
	}
	ring_give_back(&sink->ring);
	return true;
}

static void *work(void *arg)
{
	while (work_once(arg))
		;
	return NULL;
}

int sink_begin(struct sink *sink, const struct inflate_target *to)
{
	*sink = (struct sink){ .to = *to };
	if (ring_create(&sink->ring))
		return -ENOMEM;
	growth_begin(to->growth, to->fd);
	SHA256_Init(&sink->sha256);
	sink->threaded = thread_start(&sink->thread, work, sink) == 0;
	return 0;
}

uint8_t *sink_buffer(struct sink *sink)
{
	return ring_room(&sink->ring);
}

void sink_put(struct sink *sink, size_t length)
{
	ring_put(&sink->ring, length);
	if (!sink->threaded && !sink->code)
		work_once(sink);
}

int sink_end(struct sink *sink, struct payload_sums *sums, struct error *err)
{
	ring_end(&sink->ring);
	if (sink->threaded)
		pthread_join(sink->thread, NULL);
	ring_destroy(&sink->ring);
	if (!sink->code && sink->to.with_diff_id)
		SHA256_Final(sink->sums.diff_id, &sink->sha256);
	*sums = sink->sums;
	return sink->code ? error_set(err, sink->code, "%s", sink->err.text) : 0;
}
