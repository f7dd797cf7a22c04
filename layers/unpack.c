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

#include "layers/layer_file_internal.h"

#define THREADS_MAX 16u

/* Formats by how they begin. What is neither of these is taken for a tar, and the tar reader has the last word. */
static int recognise(struct layer_file *layer, struct error *err)
{
	static const struct {
		const char *magic;
		size_t length;
		const char *what;
	} unsupported[] = {
		{ "\x28\xb5\x2f\xfd", 4, "is compressed with zstd, which is not supported yet: unpack it with zstd -d" },
		{ "\xfd" "7zXZ", 5, "is compressed with xz, which is not supported yet: unpack it with xz -d" },
		{ "BZh", 3, "is compressed with bzip2, which is not supported yet: unpack it with bzip2 -d" },
	};
	char head[8] = { 0 };
	if (pread(layer->fd, head, sizeof(head), 0) < 0)
		return error_set(err, -errno, "cannot be read: %s", strerror(errno));
	for (size_t i = 0; i < sizeof(unsupported) / sizeof(unsupported[0]); i++) {
		if (memcmp(head, unsupported[i].magic, unsupported[i].length) == 0)
			return error_set(err, -ENOTSUP, "%s", unsupported[i].what);
	}
	layer->compressed = memcmp(head, "\x1f\x8b", 2) == 0;
	layer->tar_bytes = (uint64_t)layer->st.st_size;
	return 0;
}

static int inflate(struct layer_file *layer, const struct cache *cache, struct error *err)
{
	int fd;
	const int ret = inflated_open(cache, layer->fd, &layer->st, &fd, &layer->tar_bytes, layer->digest, err);
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
	atomic_size_t next;
	pthread_mutex_t lock;  /* of the three below */
	size_t failed;         /* the lowest layer that failed; `count`: none */
	int code;
	struct error *err;     /* NULL, or of the caller */
};

static void work_on(struct crew *crew, size_t i)
{
	struct error err = { "" };
	struct layer_file *layer = &crew->layers[i];
	if (!layer->compressed)
		return;
	const int ret = inflate(layer, crew->cache, &err);
	if (!ret)
		return;
	layer_file_error(layer, ret, &err);
	pthread_mutex_lock(&crew->lock);
	if (i < crew->failed) {
		crew->failed = i;
		crew->code = ret;
		error_set(crew->err, ret, "%s", err.text);
	}
	pthread_mutex_unlock(&crew->lock);
}

static void *work(void *arg)
{
	struct crew *crew = arg;
	for (size_t i; (i = atomic_fetch_add(&crew->next, 1)) < crew->count;)
		work_on(crew, i);
	return NULL;
}

static int inflate_all(struct layer_file *layers, size_t count, size_t compressed, const struct cache *cache, struct error *err)
{
	struct crew crew = { .layers = layers, .count = count, .cache = cache, .failed = count, .err = err };
	const long processors = sysconf(_SC_NPROCESSORS_ONLN);
	size_t helpers = processors > 0 ? (size_t)processors - 1 : 0;
	pthread_t threads[THREADS_MAX];
	unsigned started = 0;
	if (helpers > compressed - 1)
		helpers = compressed - 1;
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

int layer_files_unpack(struct layer_file *layers, size_t count, struct cache *cache, const char *cache_dir, struct error *err)
{
	size_t compressed = 0, first = 0;
	for (size_t i = 0; i < count; i++) {
		const int ret = recognise(&layers[i], err);
		if (ret)
			return layer_file_error(&layers[i], ret, err);
		if (layers[i].compressed && !compressed++)
			first = i;
	}
	if (!compressed)
		return 0;
	const int ret = cache->fd < 0 ? cache_open(cache, cache_dir, err) : 0;
	return ret ? layer_file_error(&layers[first], ret, err) : inflate_all(layers, count, compressed, cache, err);
}
