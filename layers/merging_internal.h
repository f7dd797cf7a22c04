/* Merging the layers of a stack, bottom first, while those above are still inflated. */
#ifndef TRVMM_LAYERS_MERGING_INTERNAL_H
#define TRVMM_LAYERS_MERGING_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "layers/growth_internal.h"
#include "layers/layer_file_internal.h"

struct merging {
	struct layer_file *layers; /* borrowed */
	size_t count;
	struct tree_builder *builder; /* borrowed */
	struct growth *growths; /* owned; one for each layer. NULL: nothing goes on at once */
	pthread_t thread;
	int code; /* of the first layer that cannot be merged */
	struct error err;
};

/*
 * Starts to merge as soon as there is something to read. Where there is nothing to inflate, or no thread is to be had, merging_end() does
 * all of it. From here on the layers' descriptors are the merging's, and layer_files_unpack() has to be called or everything settled.
 */
void merging_begin(struct merging *merging, struct layer_file *layers, size_t count, struct tree_builder *builder);

/* Waits until all layers are merged. `unpacked`: what layer_files_unpack() returned. Returns that, or 0 or -errno with a line. */
int merging_end(struct merging *merging, int unpacked, struct error *err);

#endif
