/*
 * Merged trees in the cache: the index of a stack of layers.
 *
 * A file of the cache holds the arrays of a finished tree as they are in memory, and is mapped to be one again: a start on layers
 * that were seen before reads no tar header and copies nothing, and all runs on the same layers share the pages.
 *
 *   | head | key: what the tree was made of | sources | zeroes up to 8 | arrays of the tree (arrays_internal.h) |
 *
 * A stack with a host directory in it is never saved.
 *
 * The head's checksum covers everything behind it, so damage is noticed. A file with a right checksum is still not trusted:
 * index_check() makes sure in one pass that no number in it leads out of the arrays or sources, around which the readers of a tree
 * then need not look.
 */
#ifndef TRVMM_LAYERS_INDEX_INTERNAL_H
#define TRVMM_LAYERS_INDEX_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>

#include "layers/cache.h"
#include "layers/layer_file_internal.h"
#include "layers/tree.h"

/*
 * Maps the tree of exactly these opened layers and files. On success the tree owns the layers' descriptors. Returns 0, or -errno
 * for whatever reason it cannot be used (never was saved, other version, damaged, an inflated layer is gone): then it has to be
 * built.
 */
int index_load(const struct cache *cache, struct layer_file *layers, size_t layer_count, const struct layers_memory_file *files,
	       size_t file_count, struct tree **tree);

/* Saves the tree. Best effort: a failure means only that the next start builds it again. */
void index_save(const struct cache *cache, const struct layer_file *layers, size_t layer_count,
		const struct layers_memory_file *files, size_t file_count, const struct tree *tree);

/*
 * Whether the tree's arrays, whose counts are right, can be used without looking: every index and range inside its array, every
 * extent inside its source and file, entries breadth first (so that lists and directories cannot run in circles), link counts
 * right. Names are not looked into. Returns 0, -EBADMSG, or -ENOMEM.
 */
int index_check(const struct tree *tree);

#endif
