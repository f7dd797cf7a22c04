/*
 * The arrays of a finished tree in one piece of memory, which is also what the index in the cache holds.
 *
 *   | head (index only) | inodes | extents | entries | xattrs | strings |
 *
 * Every array begins at a multiple of its own alignment because the larger alignments come first and all sizes are multiples of 4.
 */
#ifndef TRVMM_LAYERS_ARRAYS_INTERNAL_H
#define TRVMM_LAYERS_ARRAYS_INTERNAL_H

#include <stddef.h>
#include <stdint.h>

#include "layers/tree.h"

struct tree_counts {
	uint32_t inodes, entries;
	uint64_t extents, xattrs, strings; /* up to UINT32_MAX each; wider, so that sums can be checked */
};

/*
 * The bytes that arrays of these counts take. Returns 0, or -EFBIG when a count is beyond its 32-bit index or the sum beyond
 * memory.
 */
int tree_arrays_bytes(const struct tree_counts *counts, size_t *bytes);

/* Points the tree's arrays and counts into `at`, which holds tree_arrays_bytes() and is aligned to 8. */
void tree_arrays_place(struct tree *tree, const struct tree_counts *counts, void *at);

/* What tree->checksum says. */
uint64_t tree_arrays_checksum(const struct tree *tree);

/* Maps zeroed memory for the arrays into tree->map and places them there. Returns 0, -EFBIG or -ENOMEM. */
int tree_arrays_allocate(struct tree *tree, const struct tree_counts *counts);

#endif
