/* Stacks of layers to trees; see layers.h. */
#include "layers/layers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "layers/builder_internal.h"
#include "layers/index_internal.h"
#include "layers/layer_file_internal.h"

int layers_apply_file(struct tree_builder *builder, const char *path, const char *cache_dir, struct error *err)
{
	struct cache cache = { .fd = -1 };
	struct layer_file layer;
	int ret = layer_file_open(&layer, path, err);
	if (!ret)
		ret = layer_files_unpack(&layer, 1, &cache, cache_dir, err);
	if (!ret)
		ret = layer_file_merge(&layer, builder, err);
	layer_file_close(&layer);
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
static int build_and_save(struct cache *cache, const char *cache_dir, struct layer_file *layers, size_t layer_count,
			  const struct layers_memory_file *files, size_t file_count, struct tree **tree, struct error *err)
{
	int ret = layer_files_unpack(layers, layer_count, cache, cache_dir, err);
	if (!ret)
		ret = build(layers, layer_count, files, file_count, tree, err);
	if (!ret && cache->fd >= 0)
		index_save(cache, layers, layer_count, files, file_count, *tree);
	return ret;
}

int layers_load(const char *const *paths, size_t path_count, const struct layers_memory_file *files, size_t file_count,
		const char *cache_dir, struct tree **tree, struct error *err)
{
	struct cache cache = { .fd = -1 };
	struct layer_file *layers = calloc(path_count + 1, sizeof(*layers));
	size_t opened = 0;
	int ret = layers ? 0 : error_set(err, -ENOMEM, "out of memory");
	for (; !ret && opened < path_count; opened++)
		ret = layer_file_open(&layers[opened], paths[opened], err);
	if (!ret) {
		/* Without a cache it is only slower; who cannot do without (a compressed layer) will say so. */
		const bool found = cache_open(&cache, cache_dir, NULL) == 0 &&
				   index_load(&cache, layers, path_count, files, file_count, tree) == 0;
		if (!found)
			ret = build_and_save(&cache, cache_dir, layers, path_count, files, file_count, tree, err);
	}
	for (size_t i = 0; i < opened; i++)
		layer_file_close(&layers[i]);
	free(layers);
	cache_close(&cache);
	return ret;
}
