/*
 * What layer files are, and inflating those that are compressed. See layer_file_internal.h.
 *
 * Inflating is what a first start spends its time on, so the layers of a stack are shared out over threads. They touch nothing in
 * common but the cache directory, which is safe between processes and so between threads.
 */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/iov.h"
#include "layers/codec_internal.h"
#include "layers/growth_internal.h"
#include "layers/layer_file_internal.h"
#include "layers/progress_internal.h"

#define THREADS_MAX 16u

/* Formats by how they begin. What is compressed in no known way is taken for a tar, and the tar reader has the last word. */
static int recognise(struct layer_file *layer, struct error *err)
{
	uint8_t head[8] = { 0 };
	if (layer->kind != LAYER_TAR)
		return 0;
	const ssize_t n = pread_up_to(layer->fd, head, layer->length < sizeof(head) ? layer->length : sizeof(head), layer->offset);
	if (n < 0)
		return error_set(err, (int)n, "cannot be read: %s", strerror((int)-n));
	layer->codec = codec_find(head);
	layer->tar_bytes = layer->length;
	return 0;
}

/* An image's layer that is not compressed is read where it is, when it is what the image says. */
static int verify(struct layer_file *layer, const struct cache *cache, struct error *err)
{
	const struct file_range range = layer_file_range(layer);
	uint8_t digest[DIGEST_BYTES];
	bool remembered;
	int ret = range_digest_find(cache, &range, digest, &remembered, err);
	if (!ret)
		ret = digest_compare(layer->expected.digest, digest, "digest", err);
	if (!ret)
		ret = digest_compare(layer->expected.diff_id, digest, "diffID", err);
	if (!ret && !remembered)
		range_digest_remember(cache, &range, digest);
	return ret;
}

static bool needs_work(const struct layer_file *layer)
{
	return layer->codec || digest_is_told(layer->expected.digest) || digest_is_told(layer->expected.diff_id);
}

static int inflate(struct layer_file *layer, const struct cache *cache, const struct inflate_limits *shared, struct error *err)
{
	const struct file_range range = layer_file_range(layer);
	struct inflate_limits limits = *shared;
	limits.growth = layer->growth;
	int fd;
	const int ret =
	    inflated_open(cache, &range, layer->codec, &layer->expected, &limits, &fd, &layer->tar_bytes, layer->digest, err);
	if (ret)
		return ret;
	close(layer->fd);
	layer->fd = fd;
	layer->inflated = true;
	return 0;
}

/* What the threads share: each takes the next layer that nobody has. */
struct crew {
	struct layer_file *layers;
	size_t count;
	const struct cache *cache;
	struct inflate_limits limits;
	atomic_size_t next;
	pthread_mutex_t lock; /* of the three below */
	size_t failed; /* the lowest layer that failed; `count`: none */
	int code;
	struct error *err; /* NULL, or of the caller */
};

static int work_on(struct crew *crew, size_t i)
{
	struct error err = { "" };
	struct layer_file *layer = &crew->layers[i];
	if (!needs_work(layer))
		return 0;
	const int ret = layer->codec ? inflate(layer, crew->cache, &crew->limits, &err) : verify(layer, crew->cache, &err);
	if (!ret)
		return 0;
	layer_file_error(layer, ret, &err);
	pthread_mutex_lock(&crew->lock);
	if (i < crew->failed) {
		crew->failed = i;
		crew->code = ret;
		error_set(crew->err, ret, "%s", err.text);
	}
	pthread_mutex_unlock(&crew->lock);
	return ret;
}

static void *work(void *arg)
{
	struct crew *crew = arg;
	/* From then on the layer is the merging's. */
	for (size_t i; (i = atomic_fetch_add(&crew->next, 1)) < crew->count;)
		growth_settle(crew->layers[i].growth, work_on(crew, i) != 0);
	return NULL;
}

static int inflate_all(struct layer_file *layers, size_t count, size_t busy, const struct cache *cache,
		       const struct inflate_limits *limits, struct error *err)
{
	struct crew crew = { .layers = layers, .count = count, .cache = cache, .limits = *limits, .failed = count, .err = err };
	const long processors = sysconf(_SC_NPROCESSORS_ONLN);
	size_t helpers = processors > 0 ? (size_t)processors - 1 : 0;
	pthread_t threads[THREADS_MAX];
	unsigned started = 0;
	if (helpers > busy - 1)
		helpers = busy - 1;
	if (helpers > THREADS_MAX)
		helpers = THREADS_MAX;
	pthread_mutex_init(&crew.lock, NULL);
	/* A thread that cannot be had is one less: this one does all that is left. */
	while (started < helpers && pthread_create(&threads[started], NULL, work, &crew) == 0)
		started++;
	work(&crew);
	while (started)
		pthread_join(threads[--started], NULL);
	pthread_mutex_destroy(&crew.lock);
	return crew.code;
}

struct inflate_limits inflate_limits_begin(const struct layers_spec *spec, struct progress *progress, uint64_t compressed_bytes)
{
	return (struct inflate_limits){
		.max_bytes = spec->max_layer_bytes ? spec->max_layer_bytes : LAYERS_MAX_LAYER_BYTES,
		.progress = spec->progress && progress_begin(progress, compressed_bytes) ? progress : NULL,
	};
}

int layer_files_recognise(struct layer_file *layers, size_t count, struct error *err)
{
	for (size_t i = 0; i < count; i++) {
		const int ret = recognise(&layers[i], err);
		if (ret)
			return layer_file_error(&layers[i], ret, err);
	}
	return 0;
}

int layer_files_unpack(struct layer_file *layers, size_t count, struct cache *cache, const struct layers_spec *spec,
		       struct error *err)
{
	size_t busy = 0, first = 0;
	uint64_t compressed_bytes = 0;
	for (size_t i = 0; i < count; i++) {
		if (layers[i].codec)
			compressed_bytes += layers[i].length;
		if (needs_work(&layers[i]) && !busy++)
			first = i;
	}
	if (!busy)
		return 0;
	int ret = cache->fd < 0 ? cache_open(cache, spec->cache_dir, err) : 0;
	if (ret)
		return layer_file_error(&layers[first], ret, err);
	struct progress progress;
	const struct inflate_limits limits = inflate_limits_begin(spec, &progress, compressed_bytes);
	ret = inflate_all(layers, count, busy, cache, &limits, err);
	progress_end(limits.progress);
	return ret;
}
