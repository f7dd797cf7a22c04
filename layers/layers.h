/*
 * Layers: formats in, one merged tree out.
 *
 * A stack of layers is applied bottom first to a builder; every name is stamped with its layer, so a whiteout removes only what
 * lower layers brought, wherever it stands in its own layer. Paths resolve inside the virtual root (symbolic links of lower layers
 * are followed for parents, 40 at most, ".." stops at the root). The merge happens in memory: a hostile layer has no host path to
 * traverse. File contents stay where they are.
 *
 * Formats are known by content, not by name: tar (v7, ustar, PAX, GNU), gzip around it (inflated once into the cache).
 * Specifications: OCI image-spec layer.md; POSIX pax interchange format; GNU tar manual, "Basic Tar Format".
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

/*
 * The merged tree of the layer files in `paths`, bottom first, with `files` on top, in one call. This is what a run wants: the
 * first time a stack of layers is seen its tree is saved in the cache, and the next time it is mapped from there and no header is
 * read.
 *
 * Layers are known by device, inode, size and times; one that was touched is read again. `cache_dir`: see layers_apply_file(). A
 * cache that cannot be used is an error only when a compressed layer needs it. Returns 0 or -errno with one line in `err`.
 */
int layers_load(const char *const *paths, size_t path_count, const struct layers_memory_file *files, size_t file_count,
		const char *cache_dir, struct tree **tree, struct error *err);

/* An empty tree: a root directory, mode 0755, owner 0:0, time 0. Returns NULL when memory is out. */
struct tree_builder *tree_builder_create(void);
void tree_builder_destroy(struct tree_builder *builder);

/*
 * Applies the layer in file `path` on top of what is there. `cache_dir` is where compressed layers are inflated to (created when
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
