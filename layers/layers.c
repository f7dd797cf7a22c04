/* Stacks of layers to trees; see layers.h. */
#include "layers/layers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "layers/builder_internal.h"
#include "layers/index_internal.h"
#include "layers/stack_internal.h"

int layers_apply_file(struct tree_builder *builder, const char *path, const char *cache_dir, struct error *err)
{
	struct cache cache = { .fd = -1 };
	struct stack stack;
	int ret = stack_open(&stack, &path, 1, &cache, err);
	if (!ret)
		ret = layer_files_unpack(stack.layers, stack.layer_count, &cache, cache_dir, err);
	for (size_t i = 0; i < stack.layer_count && !ret; i++)
		ret = layer_file_merge(&stack.layers[i], builder, err);
	stack_close(&stack);
	cache_close(&cache);
	return ret;
}

int tree_builder_add_memory_file(struct tree_builder *builder, const char *path, uint32_t mode, const void *data, size_t length,
				 struct error *err)
{
	uint32_t source;
	int ret = builder_begin_layer(builder, err);
	if (ret)
		return ret;
	if (builder_add_source(builder, -1, data, length, path, &source))
		return error_set(err, -ENOMEM, "out of memory");
	const struct tree_extent extent = { .length = length };
	const struct tar_entry entry = {
		.path = { path, strlen(path) },
		.mode = S_IFREG | (mode & 07777),
		.size_bytes = length,
		.extents = &extent,
		.extent_count = length > 0,
	};
	ret = builder_merge(builder, &entry, source, err);
	return ret ? error_prefix(err, ret, "%s", path) : 0;
}

static int build(struct layer_file *layers, size_t layer_count, const struct layers_memory_file *files, size_t file_count,
		 struct tree **tree, struct error *err)
{
	struct tree_builder *builder = tree_builder_create();
	if (!builder)
		return error_set(err, -ENOMEM, "out of memory");
	int ret = 0;
	for (size_t i = 0; i < layer_count && !ret; i++)
		ret = layer_file_merge(&layers[i], builder, err);
	for (size_t i = 0; i < file_count && !ret; i++)
		ret = tree_builder_add_memory_file(builder, files[i].path, files[i].mode, files[i].data, files[i].length, err);
	if (!ret)
		ret = tree_builder_finish(builder, tree, err);
	tree_builder_destroy(builder);
	return ret;
}

/* The tree was not in the cache: reads the layers, and saves it for the next time. */
static int build_and_save(struct cache *cache, const char *cache_dir, const struct stack *stack,
			  const struct layers_memory_file *files, size_t file_count, struct tree **tree, struct error *err)
{
	int ret = layer_files_unpack(stack->layers, stack->layer_count, cache, cache_dir, err);
	if (!ret)
		ret = build(stack->layers, stack->layer_count, files, file_count, tree, err);
	if (!ret && cache->fd >= 0)
		index_save(cache, stack->layers, stack->layer_count, files, file_count, *tree);
	return ret;
}

int layers_load_image(const char *const *paths, size_t path_count, const struct layers_memory_file *files, size_t file_count,
		      const char *cache_dir, struct tree **tree, struct image_config *config, struct error *err)
{
	struct cache cache = { .fd = -1 };
	struct stack stack;
	/* Without a cache it is only slower; who cannot do without (a compressed layer) will say so. */
	cache_open(&cache, cache_dir, NULL);
	int ret = stack_open(&stack, paths, path_count, &cache, err);
	if (!ret && (cache.fd < 0 || index_load(&cache, stack.layers, stack.layer_count, files, file_count, tree)))
		ret = build_and_save(&cache, cache_dir, &stack, files, file_count, tree, err);
	if (!ret) {
		stack_remember(&stack, &cache);
		if (config)
			stack_take_config(&stack, config);
	}
	stack_close(&stack);
	cache_close(&cache);
	return ret;
}
