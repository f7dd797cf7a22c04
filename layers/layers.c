/* Stacks of layers to trees; see layers.h. */
#include "layers/layers.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "layers/builder_internal.h"
#include "layers/index_internal.h"
#include "layers/merging_internal.h"
#include "layers/stack_internal.h"

/* Inflates what is compressed, and merges all layers. */
static int unpack_and_merge(struct stack *stack, struct tree_builder *builder, struct cache *cache, const struct layers_spec *spec,
			    struct error *err)
{
	struct merging merging;
	int ret = layer_files_recognise(stack->layers, stack->layer_count, err);
	if (ret)
		return ret;
	merging_begin(&merging, stack->layers, stack->layer_count, builder);
	ret = layer_files_unpack(stack->layers, stack->layer_count, cache, spec, err);
	return merging_end(&merging, ret, err);
}

int layers_apply_file(struct tree_builder *builder, const char *path, const char *cache_dir, struct error *err)
{
	struct cache cache = { .fd = -1 };
	struct stack stack;
	const struct layers_spec spec = { .paths = &path, .path_count = 1, .cache_dir = cache_dir };
	int ret = stack_open(&stack, &spec, &cache, err);
	if (!ret)
		ret = unpack_and_merge(&stack, builder, &cache, &spec, err);
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

static int build(struct cache *cache, const struct layers_spec *spec, struct stack *stack, struct tree **tree, struct error *err)
{
	struct tree_builder *builder = tree_builder_create();
	if (!builder)
		return error_set(err, -ENOMEM, "out of memory");
	int ret = unpack_and_merge(stack, builder, cache, spec, err);
	for (size_t i = 0; i < spec->file_count && !ret; i++) {
		const struct layers_memory_file *file = &spec->files[i];
		ret = tree_builder_add_memory_file(builder, file->path, file->mode, file->data, file->length, err);
	}
	if (!ret)
		ret = tree_builder_finish(builder, tree, err);
	tree_builder_destroy(builder);
	return ret;
}

/* The tree was not in the cache: reads the layers, and saves it for the next time. */
static int build_and_save(struct cache *cache, const struct layers_spec *spec, struct stack *stack, struct tree **tree,
			  struct error *err)
{
	const int ret = build(cache, spec, stack, tree, err);
	if (!ret && cache->fd >= 0)
		index_save(cache, stack->layers, stack->layer_count, spec->files, spec->file_count, *tree);
	return ret;
}

static int load_once(const struct layers_spec *spec, struct cache *cache, struct stack *stack, struct tree **tree, struct error *err)
{
	int ret = stack_open(stack, spec, cache, err);
	if (!ret && (cache->fd < 0 || index_load(cache, stack->layers, stack->layer_count, spec->files, spec->file_count, tree)))
		ret = build_and_save(cache, spec, stack, tree, err);
	return ret;
}

int layers_load_spec(const struct layers_spec *spec, struct tree **tree, struct image_config *config, struct error *err)
{
	struct cache cache = { .fd = -1 };
	struct stack stack;
	/* Without a cache it is only slower; who cannot do without (a compressed layer) will say so. */
	cache_open(&cache, spec->cache_dir, NULL);
	int ret = load_once(spec, &cache, &stack, tree, err);
	if (ret && cache.fd >= 0 && stack_find_damage(&stack, &cache, ret)) {
		stack_close(&stack);
		ret = load_once(spec, &cache, &stack, tree, err);
	}
	if (!ret) {
		stack_remember(&stack, &cache);
		if (config)
			stack_take_config(&stack, config);
	}
	stack_close(&stack);
	cache_close(&cache);
	return ret;
}

/* ---- HOST:GUEST -------------------------------------------------------------------------------------------------------------- */

static bool climbs(const char *path)
{
	for (const char *at = path; (at = strstr(at, "/..")); at += 3) {
		if (!at[3] || at[3] == '/')
			return true;
	}
	return false;
}

static int added_error(struct error *err, const char *text, const char *what)
{
	char quoted[300];
	return error_set(err, -EINVAL, "--add '%s': %s", error_quote(quoted, sizeof(quoted), text, strlen(text)), what);
}

int layers_added_parse(const char *text, char **host, const char **guest, struct error *err)
{
	const char *colon = NULL;
	*host = NULL;
	for (const char *at = text; (at = strstr(at, ":/")); at++)
		colon = at;
	if (!colon)
		return added_error(err, text, strchr(text, ':') ? "the path in the guest must begin with a slash: give HOST:/GUEST"
								: "give HOST:GUEST, a path here and a path in the guest");
	if (colon == text)
		return added_error(err, text, "the path here is empty: give HOST:GUEST");
	if (climbs(colon + 1))
		return added_error(err, text, "the path in the guest must not contain '..'");
	*host = strndup(text, (size_t)(colon - text));
	*guest = colon + 1;
	return *host ? 0 : error_set(err, -ENOMEM, "out of memory");
}
