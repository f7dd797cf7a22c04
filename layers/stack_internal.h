/* What the user gave as layers, taken apart: a row of layer files, and the images that some of them come from. */
#ifndef TRVMM_LAYERS_STACK_INTERNAL_H
#define TRVMM_LAYERS_STACK_INTERNAL_H

#include "layers/image_internal.h"
#include "layers/layer_file_internal.h"

struct stack {
	struct layer_file *layers; /* owned; bottom first */
	size_t layer_count;
	struct image *images;  /* owned; bottom first */
	size_t image_count;
};

/*
 * Opens them all. `cache` may be closed. Returns 0, or -errno with a line that begins with "layer PATH: ". The stack has to be
 * closed in any case.
 */
int stack_open(struct stack *stack, const struct layers_spec *spec, struct cache *cache, struct error *err);
void stack_close(struct stack *stack);

/*
 * After the failure `code`: looks for damage of what came from the cache, and tells of it. Returns whether there was some, which is made
 * anew when the stack is opened again.
 */
bool stack_find_damage(const struct stack *stack, const struct cache *cache, int code);

/* Remembers the images in the cache, after all layers were verified. */
void stack_remember(const struct stack *stack, const struct cache *cache);

/* Moves the topmost image's configuration to `config`; all NULL when there is no image. */
void stack_take_config(struct stack *stack, struct image_config *config);

#endif
