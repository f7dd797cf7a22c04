/* Merging while layers are inflated; see merging_internal.h. */
#include "layers/merging_internal.h"

#include <errno.h>
#include <stdlib.h>

#include "base/thread.h"

static void *work(void *arg)
{
	struct merging *merging = arg;
	for (size_t i = 0; i < merging->count && !merging->code; i++)
		merging->code = layer_file_merge(&merging->layers[i], merging->builder, &merging->err);
	return NULL;
}

static bool is_any_compressed(const struct layer_file *layers, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (layers[i].codec)
			return true;
	}
	return false;
}

static void free_growths(struct merging *merging)
{
	for (size_t i = 0; i < merging->count; i++) {
		growth_destroy(&merging->growths[i]);
		merging->layers[i].growth = NULL;
	}
	free(merging->growths);
	merging->growths = NULL;
}

void merging_begin(struct merging *merging, struct layer_file *layers, size_t count, struct tree_builder *builder)
{
	*merging = (struct merging){ .layers = layers, .count = count, .builder = builder };
	if (!is_any_compressed(layers, count))
		return;
	merging->growths = malloc(count * sizeof(*merging->growths));
	for (size_t i = 0; i < count && merging->growths; i++) {
		growth_init(&merging->growths[i]);
		layers[i].growth = &merging->growths[i];
	}
	if (merging->growths && thread_start(&merging->thread, work, merging))
		free_growths(merging);
}

int merging_end(struct merging *merging, int unpacked, struct error *err)
{
	if (merging->growths) {
		for (size_t i = 0; i < merging->count && unpacked; i++)
			growth_settle(&merging->growths[i], true);
		pthread_join(merging->thread, NULL);
		free_growths(merging);
	} else if (!unpacked) {
		work(merging);
	}
	/* When a layer is not what it should be, what was merged of it says nothing. */
	if (unpacked || !merging->code)
		return unpacked;
	return error_set(err, merging->code, "%s", merging->err.text);
}
