/* Writing, summing and hashing beside inflating; see sink_internal.h. */
#include "layers/sink_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/thread.h"
#include "layers/growth_internal.h"

#define BUFFER_BYTES SINK_BUFFER_BYTES

static int write_all(struct sink *sink, const uint8_t *bytes, size_t length, struct error *err)
{
	for (size_t done = 0; done < length;) {
		const ssize_t n = write(sink->to.fd, bytes + done, length - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == ENOSPC || errno == EDQUOT))
			return error_set(err, -errno,
					 "no space left in the cache %s after %llu MB: make room or set XDG_CACHE_HOME",
					 sink->to.name, (unsigned long long)((sink->sums.payload_bytes + done) >> 20));
		if (n < 0)
			return error_set(err, -errno, "cannot write to the cache %s: %s", sink->to.name, strerror(errno));
		done += (size_t)n;
	}
	return 0;
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
	const int ret = write_all(sink, bytes, length, err);
	if (ret)
		return ret;
	sink->sums.payload_bytes += length;
	growth_advance(sink->to.growth, length);
	if (sink->to.with_diff_id)
		SHA256_Update(&sink->sha256, bytes, length);
	return 0;
}

/* Waits for a buffer. Returns it, or NULL when there will be none any more. */
static const uint8_t *take_buffer(struct sink *sink, size_t *length)
{
	pthread_mutex_lock(&sink->lock);
	while (sink->filled == sink->emptied && !sink->ended)
		pthread_cond_wait(&sink->changed, &sink->lock);
	const bool some = sink->filled != sink->emptied && !sink->code;
	const size_t number = sink->emptied % SINK_BUFFERS;
	*length = sink->lengths[number];
	pthread_mutex_unlock(&sink->lock);
	return some ? sink->buffers + number * BUFFER_BYTES : NULL;
}

static void give_back(struct sink *sink, int code, const struct error *err)
{
	pthread_mutex_lock(&sink->lock);
	sink->emptied++;
	if (code) {
		sink->code = code;
		sink->err = *err;
	}
	pthread_cond_signal(&sink->changed);
	pthread_mutex_unlock(&sink->lock);
}

static void *work(void *arg)
{
	struct sink *sink = arg;
	const uint8_t *bytes;
	size_t length;
	while ((bytes = take_buffer(sink, &length))) {
		struct error err = { "" };
		give_back(sink, empty_buffer(sink, bytes, length, &err), &err);
	}
	return NULL;
}

int sink_begin(struct sink *sink, const struct inflate_target *to)
{
	*sink = (struct sink){ .to = *to };
	sink->buffers = malloc(SINK_BUFFERS * BUFFER_BYTES);
	if (!sink->buffers)
		return -ENOMEM;
	growth_begin(to->growth, to->fd);
	SHA256_Init(&sink->sha256);
	pthread_mutex_init(&sink->lock, NULL);
	pthread_cond_init(&sink->changed, NULL);
	sink->threaded = thread_start(&sink->thread, work, sink) == 0;
	return 0;
}

uint8_t *sink_buffer(struct sink *sink)
{
	pthread_mutex_lock(&sink->lock);
	while (sink->filled - sink->emptied == SINK_BUFFERS && !sink->code)
		pthread_cond_wait(&sink->changed, &sink->lock);
	const bool good = !sink->code;
	pthread_mutex_unlock(&sink->lock);
	return good ? sink->buffers + sink->filled % SINK_BUFFERS * BUFFER_BYTES : NULL;
}

void sink_put(struct sink *sink, size_t length)
{
	pthread_mutex_lock(&sink->lock);
	sink->lengths[sink->filled % SINK_BUFFERS] = length;
	sink->filled++;
	pthread_cond_signal(&sink->changed);
	pthread_mutex_unlock(&sink->lock);
	if (sink->threaded)
		return;
	struct error err = { "" };
	const uint8_t *bytes = take_buffer(sink, &length);
	if (bytes)
		give_back(sink, empty_buffer(sink, bytes, length, &err), &err);
}

int sink_end(struct sink *sink, struct payload_sums *sums, struct error *err)
{
	pthread_mutex_lock(&sink->lock);
	sink->ended = true;
	pthread_cond_signal(&sink->changed);
	pthread_mutex_unlock(&sink->lock);
	if (sink->threaded)
		pthread_join(sink->thread, NULL);
	pthread_mutex_destroy(&sink->lock);
	pthread_cond_destroy(&sink->changed);
	free(sink->buffers);
	if (!sink->code && sink->to.with_diff_id)
		SHA256_Final(sink->sums.diff_id, &sink->sha256);
	*sums = sink->sums;
	return sink->code ? error_set(err, sink->code, "%s", sink->err.text) : 0;
}
