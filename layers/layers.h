/*
 * Layers: formats in, one merged tree out.
 *
 * A stack of layers is applied bottom first to a builder; every name is stamped with its layer, so a whiteout removes only what
 * lower layers brought, wherever it stands in its own layer. Paths resolve inside the virtual root (symbolic links of lower layers
 * are followed for parents, 40 at most, ".." stops at the root). The merge happens in memory: a hostile layer has no host path to
 * traverse. File contents stay where they are.
 *
 * Formats are known by content, not by name: tar (v7, ustar, PAX, GNU); gzip, zstd, xz or bzip2 around it (inflated once into the
 * cache); images, which are several layers and a configuration: an OCI layout (a directory, or a tar of it) and what `docker save`
 * writes. An image in a layout of several is given as PATH:REFERENCE ("images:debian:12"), or else it is the first for linux/amd64;
 * digests and diffIDs are verified. Specifications: OCI image-spec; POSIX pax interchange format; GNU tar manual, "Basic Tar
 * Format".
 */
#ifndef TRVMM_LAYERS_LAYERS_H
#define TRVMM_LAYERS_LAYERS_H

#include <stdint.h>

#include "base/error.h"
#include "layers/tree.h"

struct tree_builder;

/* A regular file of this program's own that is placed in the tree. */
struct layers_memory_file {
	const char *path;      /* missing parents become 0755 directories; what is there is replaced */
	uint32_t mode;         /* permission bits */
	const void *data;      /* borrowed for the life of the tree */
	size_t length;
};

/* What an image says about running it: https://github.com/opencontainers/image-spec/blob/main/config.md. All of it is owned. */
struct image_config {
	char **env;            /* NAME=VALUE, ends with NULL; NULL: not given, as with all below */
	char **entrypoint, **command;
	char *working_dir;
	char *user;            /* "name", "uid", "name:group", "uid:gid" */
};

/* Frees what is in it; all is NULL afterwards. */
void image_config_free(struct image_config *config);

/*
 * The merged tree of the layers in `paths` (files, or images with PATH:REFERENCE), bottom first, with `files` on top, in one call.
 * This is what a run wants: the first time a stack of layers is seen its tree is saved in the cache, and the next time it is mapped
 * from there and no header is read.
 *
 * `config` (or NULL) receives the configuration of the topmost image; all NULL when none of the layers is an image. The caller
 * frees it. Layers are known by device, inode, size and times; one that was touched is read again. `cache_dir`: see
 * layers_apply_file(). A cache that cannot be used is an error only when a compressed layer or an image needs it. Returns 0 or
 * -errno with one line in `err`.
 */
int layers_load_image(const char *const *paths, size_t path_count, const struct layers_memory_file *files, size_t file_count,
		      const char *cache_dir, struct tree **tree, struct image_config *config, struct error *err);

/* The same without the configuration. */
static inline int layers_load(const char *const *paths, size_t path_count, const struct layers_memory_file *files,
			      size_t file_count, const char *cache_dir, struct tree **tree, struct error *err)
{
	return layers_load_image(paths, path_count, files, file_count, cache_dir, tree, NULL, err);
}

/* An empty tree: a root directory, mode 0755, owner 0:0, time 0. Returns NULL when memory is out. */
struct tree_builder *tree_builder_create(void);
void tree_builder_destroy(struct tree_builder *builder);

/*
 * Applies the layer or image `path` on top of what is there. `cache_dir` is where compressed layers are inflated to (created when
 * missing, mode 0700); NULL: the default, $XDG_CACHE_HOME/trvmm or $HOME/.cache/trvmm. Returns 0, or -errno with one line in `err`
 * that begins with "layer PATH: ". The builder is unusable after a failure.
 */
int layers_apply_file(struct tree_builder *builder, const char *path, const char *cache_dir, struct error *err);

/*
 * Adds a regular file of this program's own at `path` (missing parents become 0755 directories; what is there is replaced), as a
 * layer of its own. `data` is borrowed for the life of the tree. Returns 0 or -errno.
 */
int tree_builder_add_memory_file(struct tree_builder *builder, const char *path, uint32_t mode, const void *data, size_t length,
				 struct error *err);

/*
 * Finishes: drops what was removed, sorts directories, counts links. The tree goes to the caller; the builder is empty afterwards
 * and has only to be destroyed. Returns 0 or -ENOMEM.
 */
int tree_builder_finish(struct tree_builder *builder, struct tree **tree, struct error *err);

#endif
