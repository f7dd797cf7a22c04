/*
 * Growable arrays in mappings of their own.
 *
 * A tree is built in a few large arrays that are thrown away together. As mappings they grow by moving page tables instead of
 * copying (mremap), untouched capacity costs nothing, and what is freed goes back to the system at once: nothing of a build
 * stays in the heap of a process that then runs a guest for hours.
 */
#ifndef TRVMM_LAYERS_ARRAY_INTERNAL_H
#define TRVMM_LAYERS_ARRAY_INTERNAL_H

#include <stddef.h>

/* All zero is an empty array. */
struct array {
	char *data;            /* owned, moves when the array grows */
	size_t used, capacity; /* bytes */
};

/* Makes room for `bytes` more and returns where they start; `used` grows by them. NULL when memory is out. Contents: undefined. */
void *array_extend(struct array *array, size_t bytes);

/* Appends a copy; returns 0 or -ENOMEM. */
int array_append(struct array *array, const void *from, size_t bytes);

/* Gives the memory back; the array is empty afterwards. */
void array_free(struct array *array);

#endif
