/* The layers of a run from the paths that the user gave; see stack_internal.h. */
#include "layers/stack_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Room for one more. */
static struct layer_file *add_layer(struct stack *stack)
{
	struct layer_file *layers = reallocarray(stack->layers, stack->layer_count + 1, sizeof(*layers));
	if (!layers)
		return NULL;
	stack->layers = layers;
	layers += stack->layer_count++;
	*layers = (struct layer_file){ .fd = -1 };
	return layers;
}

static size_t count_layers(const struct image_part *parts, size_t part_count)
{
	size_t count = 0;
	for (size_t i = 0; i < part_count; i++)
		count += parts[i].is_layer;
	return count;
}

/* The layers of the stack's last image, which gives their descriptors away. */
static int add_image_layers(struct stack *stack, struct error *err)
{
	struct image *image = &stack->images[stack->image_count - 1];
	struct image_part *parts = (struct image_part *)(void *)image->parts.data;
	const size_t part_count = image->parts.used / sizeof(*parts), layer_count = count_layers(parts, part_count);
	size_t number = 0;
	for (size_t i = 0; i < part_count; i++) {
		struct image_part *part = &parts[i];
		if (!part->is_layer)
			continue;
		struct layer_file *layer = add_layer(stack);
		if (!layer ||
		    asprintf(&layer->name, "%s: layer %zu of %zu, %s", image->path, ++number, layer_count, part->name) < 0) {
			if (layer)
				layer->name = NULL;
			return error_set(err, -ENOMEM, "out of memory");
		}
		layer->fd = part->fd;
		part->fd = -1;
		layer->st = part->st;
		layer->offset = part->offset;
		layer->length = part->length;
		layer->in_cache = image->in_cache;
		layer->expected = part->expected;
	}
	return 0;
}

static int add_path(struct stack *stack, const char *path, struct cache *cache, const struct layers_spec *spec, struct error *err)
{
	struct image *image = &stack->images[stack->image_count++];
	const int found = image_open(image, path, cache, spec, err);
	if (found < 0)
		return found;
	if (found)
		return add_image_layers(stack, err);
	image_close(image);
	stack->image_count--;
	struct layer_file *layer = add_layer(stack);
	return layer ? layer_file_open(layer, path, NULL, err) : error_set(err, -ENOMEM, "out of memory");
}

static int add_host(struct stack *stack, const struct layers_added *added, struct error *err)
{
	struct layer_file *layer = add_layer(stack);
	return layer ? layer_file_open(layer, added->host, added->guest, err) : error_set(err, -ENOMEM, "out of memory");
}

int stack_open(struct stack *stack, const struct layers_spec *spec, struct cache *cache, struct error *err)
{
	*stack = (struct stack){ .images = calloc(spec->path_count + 1, sizeof(*stack->images)) };
	if (!stack->images)
		return error_set(err, -ENOMEM, "out of memory");
	int ret = 0;
	for (size_t i = 0; i < spec->path_count && !ret; i++)
		ret = add_path(stack, spec->paths[i], cache, spec, err);
	for (size_t i = 0; i < spec->added_count && !ret; i++)
		ret = add_host(stack, &spec->added[i], err);
	return ret;
}

void stack_close(struct stack *stack)
{
	for (size_t i = 0; i < stack->layer_count; i++)
		layer_file_close(&stack->layers[i]);
	for (size_t i = 0; i < stack->image_count; i++)
		image_close(&stack->images[i]);
	free(stack->layers);
	free(stack->images);
	*stack = (struct stack){ 0 };
}

static bool is_damaged(const struct cache *cache, const uint8_t digest[DIGEST_BYTES], const char *name)
{
	char quoted[512];
	if (!inflated_is_damaged(cache, digest))
		return false;
	message("layer %s: its copy in the cache was damaged, and is made anew", error_quote(quoted, sizeof(quoted), name, strlen(name)));
	return true;
}

/*
 * Headers and JSON are checked when they are read, and blobs have digests: that is -EBADMSG. A compressed blob in an archive may be found
 * corrupt first.
 */
bool stack_find_damage(const struct stack *stack, const struct cache *cache, int code)
{
	bool found = false;
	for (size_t i = 0; i < stack->layer_count && code == -EBADMSG; i++) {
		if (stack->layers[i].inflated)
			found |= is_damaged(cache, stack->layers[i].digest, stack->layers[i].name);
	}
	for (size_t i = 0; i < stack->image_count && (code == -EBADMSG || code == -EINVAL || code == -ENODATA); i++) {
		const struct image *image = &stack->images[i];
		const struct file_range whole = { .fd = -1, .st = &image->st, .length = (uint64_t)image->st.st_size };
		uint8_t digest[DIGEST_BYTES];
		if (image->in_cache && range_digest_recall(cache, &whole, digest))
			found |= is_damaged(cache, digest, image->path);
	}
	return found;
}

void stack_remember(const struct stack *stack, const struct cache *cache)
{
	for (size_t i = 0; i < stack->image_count && cache->fd >= 0; i++) {
		if (!stack->images[i].is_known)
			image_remember(&stack->images[i], cache);
	}
}

void stack_take_config(struct stack *stack, struct image_config *config)
{
	*config = (struct image_config){ 0 };
	if (!stack->image_count)
		return;
	struct image *top = &stack->images[stack->image_count - 1];
	*config = top->config;
	top->config = (struct image_config){ 0 };
}
