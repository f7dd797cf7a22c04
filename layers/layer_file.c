/* One layer file: opened, and merged when it is unpacked. See layer_file_internal.h. */
#include "layers/layer_file_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "layers/builder_internal.h"
#include "layers/directory_internal.h"
#include "layers/growth_internal.h"
#include "layers/inflated_file_internal.h"
#include "layers/tar_internal.h"

static int check_kind(struct layer_file *layer, struct error *err)
{
	if (S_ISDIR(layer->st.st_mode)) {
		layer->kind = LAYER_DIRECTORY;
		return 0;
	}
	if (!S_ISREG(layer->st.st_mode))
		return error_set(err, -EINVAL, "is neither a regular file nor a directory%s",
				 layer->guest ? "" : ", and a layer is read many times: copy it to a file");
	layer->kind = layer->guest ? LAYER_FILE : LAYER_TAR;
	if (layer->st.st_size == 0 && !layer->guest)
		return error_set(err, -EINVAL, "is empty");
	layer->length = (uint64_t)layer->st.st_size;
	return 0;
}

static int open_file(struct layer_file *layer, const char *path, const char *guest, struct error *err)
{
	*layer = (struct layer_file){ .fd = -1, .name = strdup(path), .guest = guest };
	if (!layer->name)
		return error_set(err, -ENOMEM, "out of memory");
	/* Not to wait for a writer when it is a fifo. */
	layer->fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (layer->fd < 0)
		return error_set(err, -errno, "%s", errno == ENOENT ? "there is no such file" : strerror(errno));
	if (fstat(layer->fd, &layer->st))
		return error_set(err, -errno, "%s", strerror(errno));
	return check_kind(layer, err);
}

int layer_file_open(struct layer_file *layer, const char *path, const char *guest, struct error *err)
{
	const int ret = open_file(layer, path, guest, err);
	return ret ? layer_file_error(layer, ret, err) : 0;
}

void layer_file_close(struct layer_file *layer)
{
	if (layer->fd >= 0)
		close(layer->fd);
	layer->fd = -1;
	free(layer->name);
	layer->name = NULL;
}

struct file_range layer_file_range(const struct layer_file *layer)
{
	return (struct file_range){ layer->fd, &layer->st, layer->offset, layer->length, layer->in_cache };
}

int layer_file_error(const struct layer_file *layer, int code, struct error *err)
{
	char quoted[512];
	return error_prefix(err, code, layer->guest ? "--add %s" : "layer %s",
			    layer->name ? error_quote(quoted, sizeof(quoted), layer->name, strlen(layer->name)) : "?");
}

/* The tree counts from the file's start, the reader from the layer's. */
static void move_extents(struct tar_reader *reader, const struct tar_entry *entry, uint64_t offset)
{
	struct tree_extent *extents = (struct tree_extent *)(void *)reader->extents.data;
	for (uint32_t i = 0; offset && i < entry->extent_count; i++)
		extents[i].source_offset += offset;
}

static int merge(struct tree_builder *builder, struct tar_reader *reader, uint64_t offset, uint32_t source, struct error *err)
{
	struct tar_entry entry;
	int ret;
	while ((ret = tar_next(reader, &entry, err)) > 0) {
		move_extents(reader, &entry, offset);
		ret = builder_merge(builder, &entry, source, err);
		if (ret) {
			char quoted[256];
			return error_prefix(err, ret, "entry %llu '%s'", (unsigned long long)entry.number,
					    error_quote(quoted, sizeof(quoted), entry.path.bytes, entry.path.length));
		}
	}
	return ret;
}

static int merge_tar(struct layer_file *layer, struct tree_builder *builder, struct error *err)
{
	uint32_t number;
	const uint64_t offset = layer->inflated ? 0 : layer->offset;
	int ret = builder_begin_layer(builder, err);
	if (ret)
		return ret;
	if (builder_add_source(builder, layer->fd, NULL, offset + layer->tar_bytes, layer->name, &number))
		return error_set(err, -ENOMEM, "out of memory");
	struct tree_source *source = &builder->sources[number];
	layer->fd = -1;
	if (!layer->inflated && !layer->in_cache)
		source->stamp = file_stamp(&layer->st);
	else if ((ret = chunk_check_create(source->fd, &source->check)))
		return error_set(err, ret, "its copy in the cache cannot be read: start again, and it is made anew");
	struct tar_reader reader;
	tar_open_at(&reader, source->fd, offset, layer->tar_bytes);
	reader.window.check = source->check;
	ret = merge(builder, &reader, offset, number, err);
	tar_close(&reader);
	return ret;
}

/* While it is inflated. The tree gets the descriptor of the complete file, which is for reading only. */
static int merge_growing(struct layer_file *layer, struct tree_builder *builder, struct error *err)
{
	uint32_t number;
	int ret = builder_begin_layer(builder, err);
	if (ret)
		return ret;
	if (builder_add_source(builder, -1, NULL, 0, layer->name, &number))
		return error_set(err, -ENOMEM, "out of memory");
	struct tar_reader reader;
	tar_open_growing(&reader, layer->growth);
	ret = merge(builder, &reader, 0, number, err);
	tar_close(&reader);
	if (!growth_is_settled(layer->growth) && !ret)
		ret = -ECANCELED; /* why is said by who inflates */
	if (ret)
		return ret;
	struct tree_source *source = &builder->sources[number];
	source->fd = layer->fd;
	source->size_bytes = layer->tar_bytes;
	layer->fd = -1;
	ret = chunk_check_create(source->fd, &source->check);
	return ret ? error_set(err, ret, "its copy in the cache cannot be read: start again, and it is made anew") : 0;
}

static int merge_layer(struct layer_file *layer, struct tree_builder *builder, struct error *err)
{
	if (layer->growth && growth_is_begun(layer->growth))
		return merge_growing(layer, builder, err);
	return layer->growth && !growth_is_settled(layer->growth) ? -ECANCELED : merge_tar(layer, builder, err);
}

int layer_file_merge(struct layer_file *layer, struct tree_builder *builder, struct error *err)
{
	int ret;
	if (layer->kind == LAYER_TAR) {
		ret = merge_layer(layer, builder, err);
	} else {
		const struct host_placing placing = {
			.name = layer->name, .guest = layer->guest ? layer->guest : "", .added = layer->guest != NULL
		};
		const int fd = layer->fd;
		layer->fd = -1;
		ret = layer->kind == LAYER_FILE ? host_file_merge(builder, fd, &layer->st, &placing, err)
						: directory_merge(builder, fd, &placing, err);
	}
	return ret ? layer_file_error(layer, ret, err) : 0;
}
