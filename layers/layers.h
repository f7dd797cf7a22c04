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
 * writes, also compressed. A directory of the host that is no layout is a layer, too: what it holds is taken as it is
 * (directory_internal.h). An image in a layout of several is given as PATH:REFERENCE ("images:debian:12"), or else it is the first for
 * linux/amd64; digests and diffIDs are verified. Specifications: OCI image-spec; POSIX pax interchange format; GNU tar manual, "Basic
 * Tar Format".
 */
#ifndef TRVMM_LAYERS_LAYERS_H
#define TRVMM_LAYERS_LAYERS_H

#include <stdbool.h>
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

/* A file or directory of the host that is placed in the tree, as `docker cp` would. */
struct layers_added {
	char *host;
	const char *guest;     /* absolute, without ".."; see layers_added_parse() */
};

/*
 * Takes HOST:GUEST apart, at the last colon with a slash behind it; `host` is for the caller to free, also of a failed one, and
 * `guest` lies in `text`. Returns 0, or -EINVAL with a line that begins with "--add 'HOST:GUEST': ", or -ENOMEM.
 */
int layers_added_parse(const char *text, char **host, const char **guest, struct error *err);

/* What a tree is made of. All of it is borrowed for the call, and the data of `files` for the life of the tree. */
struct layers_spec {
	const char *const *paths; /* layers (files, host directories) and images with PATH:REFERENCE, bottom first */
	size_t path_count;
	const struct layers_added *added; /* on top of them */
	size_t added_count;
	const struct layers_memory_file *files; /* on top of all */
	size_t file_count;
	const char *cache_dir; /* see layers_apply_file() */
	uint64_t max_layer_bytes; /* a compressed layer that inflates to more is refused; 0: LAYERS_MAX_LAYER_BYTES */
	bool progress;         /* inflating that takes over a second is shown on stderr, when that is a terminal */
};

#define LAYERS_MAX_LAYER_BYTES ((uint64_t)64 << 30)

/*
 * The merged tree, in one call. This is what a run wants: the first time a stack of layers is seen its tree is saved in the cache, and
 * the next time it is mapped from there and no header is read (unless there is a host directory in it).
 *
 * `config` (or NULL) receives the configuration of the topmost image; all NULL when none of the layers is an image. The caller
 * frees it. Layers are known by device, inode, size and times; one that was touched is read again. A cache that cannot be used is an
 * error only when a compressed layer or an image needs it. Returns 0 or -errno with one line in `err`.
 */
int layers_load_spec(const struct layers_spec *spec, struct tree **tree, struct image_config *config, struct error *err);

/* The same without added files. */
static inline int layers_load_image(const char *const *paths, size_t path_count, const struct layers_memory_file *files,
				    size_t file_count, const char *cache_dir, struct tree **tree, struct image_config *config,
				    struct error *err)
{
	const struct layers_spec spec = {
		.paths = paths, .path_count = path_count, .files = files, .file_count = file_count, .cache_dir = cache_dir
	};
	return layers_load_spec(&spec, tree, config, err);
}

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
