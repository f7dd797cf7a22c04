/*
 * A tree while layers are merged into it.
 *
 * Entries are found by (directory, name) in a hash table. Nothing is ever taken out of the arrays; removing is a mark, so that it
 * costs the same for a file and for a directory with a million names below it:
 *
 *   - an entry whose inode is TREE_NONE is removed; it stays in the table and is used again when the name comes back;
 *   - a directory that no entry names is gone with all that is below it, since every walk starts at the root;
 *   - a directory's opaque mark M hides what layers before M brought, in it and everywhere below.
 *
 * Marks are pushed one level down whenever a walk or the finish steps into a directory, always from the root, so a directory that
 * was stepped into knows the highest mark of all its ancestors.
 *
 * A whiteout or opaque marker may stand anywhere in its layer; the result does not depend on where. A directory of lower layers in
 * which this layer already put something (it is `touched`) therefore survives the marker with this layer's names only, and with the
 * attributes of a directory that nobody described, just as if the marker had come first.
 */
#ifndef TRVMM_LAYERS_BUILDER_INTERNAL_H
#define TRVMM_LAYERS_BUILDER_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "layers/array_internal.h"
#include "layers/layers.h"
#include "layers/tar_internal.h"
#include "layers/tree.h"

#define NAME_BYTES_MAX 255u
#define LINK_TARGET_MAX 4095u /* what Linux reads and ext4 stores */

/* The hash beside the number: a name that is looked for touches the entries of no others. */
struct slot {
	uint32_t entry;         /* 0: free */
	uint32_t hash;
};

struct tree_builder {
	struct array entries;   /* struct tree_entry; next_sibling means nothing until the finish */
	struct array inodes;    /* struct tree_inode; for what directories keep in them, see below */
	struct array extents, xattrs, strings;
	struct array slots;     /* struct slot: the hash table; its size is a power of two */
	uint64_t hash_seed;     /* of this process, so that nobody can make a layer whose names all collide */
	struct tree_source *sources; /* owned */
	uint32_t source_count;
	uint32_t layer_count;   /* layers begun so far; the current one is the last */
	struct array clean;     /* scratch: the path of the current entry, cleaned */
	struct array clean_link;
	struct array last_path; /* the parent path that was resolved last; most entries have their predecessor's */
	uint32_t last_directory; /* what it led to; TREE_NONE: it is not valid any more */
};

static inline struct tree_entry *builder_entry(const struct tree_builder *builder, uint32_t entry)
{
	return (struct tree_entry *)(void *)builder->entries.data + entry;
}

static inline struct tree_inode *builder_inode(const struct tree_builder *builder, uint32_t inode)
{
	return (struct tree_inode *)(void *)builder->inodes.data + inode;
}

/* A directory's own state lives in fields that only the finished tree or regular files use. The inode that holds it: */
static inline uint32_t *directory_parent(struct tree_inode *directory)
{
	return &directory->first_child;
}

/* Its opaque mark: what lower layers than this one brought is hidden. 0: none. */
static inline uint32_t *directory_opaque(struct tree_inode *directory)
{
	return &directory->extent_count;
}

/* The last layer that put something into it or below. */
static inline uint32_t *directory_touched(struct tree_inode *directory)
{
	return &directory->nlink;
}

/* The number of the layer that is being applied. */
static inline uint16_t builder_layer(const struct tree_builder *builder)
{
	return (uint16_t)(builder->layer_count - 1);
}

/* Begins the next layer. Returns 0 or -E2BIG. */
int builder_begin_layer(struct tree_builder *builder, struct error *err);

/* Adds a source and returns its number in `source`; the builder then owns `fd`. -ENOMEM: it does not. */
int builder_add_source(struct tree_builder *builder, int fd, const void *memory, uint64_t size_bytes, const char *name,
		       uint32_t *source);

/* Appends bytes to the strings. Returns 0, -ENOMEM, or -EFBIG beyond 4 GiB. */
int builder_add_string(struct tree_builder *builder, const char *bytes, size_t length, uint32_t *offset);

/* Appends an inode; its number goes to `number`. Returns 0 or -ENOMEM. */
int builder_add_inode(struct tree_builder *builder, const struct tree_inode *inode, uint32_t *number);

/* An inode for a directory that no layer describes: mode 0755, owner 0:0, time 0, empty. */
int builder_add_implied_directory(struct tree_builder *builder, uint32_t parent, uint32_t *number);

/* The entry `name` in `directory` as it is visible now, or TREE_NONE. */
uint32_t builder_find(struct tree_builder *builder, uint32_t directory, const char *name, size_t length);

/*
 * Whether `entry` is there, taking its directory's opaque mark into account; that mark is handed on to it when it is a directory,
 * and a touched directory is cut down to what the mark leaves of it. Its directory must have been stepped into.
 */
bool builder_entry_visible(struct tree_builder *builder, uint32_t entry);

/* Makes `name` in `directory` name `inode`, whatever it named before, stamped with the current layer. */
int builder_set(struct tree_builder *builder, uint32_t directory, const char *name, size_t length, uint32_t inode,
		struct error *err);

/* Hides what lower layers brought of the entry: all of it, or, when this layer has put something there, the lower part of it. */
void builder_hide_lower(struct tree_builder *builder, uint32_t entry);

/*
 * Resolves `path` to a directory inside the virtual root: symbolic links are followed, ".." stops at the root. `create`: what is
 * missing is made (implied directories), and all directories on the way count as touched. Returns 0, -ENOENT, -ENOTDIR, -ELOOP,
 * -ENAMETOOLONG, -ENOMEM with a line in `err`.
 */
int builder_resolve(struct tree_builder *builder, const char *path, size_t length, bool create, uint32_t *directory,
		    struct error *err);

/*
 * Applies one entry of the current layer; its extents lie in `source`. Returns 0 or -errno with a line that does not name the
 * entry.
 */
int builder_merge(struct tree_builder *builder, const struct tar_entry *entry, uint32_t source, struct error *err);

/*
 * Applies what is no OCI layer: a name that looks like a whiteout is a name, and a directory over a symbolic link that leads to a
 * directory is that one. `keep`: directories that are there keep their attributes. `inode` gets what the entry became. Returns as
 * above.
 */
int builder_place(struct tree_builder *builder, const struct tar_entry *entry, uint32_t source, bool keep, uint32_t *inode,
		  struct error *err);

/* The same for a further name of an inode that was placed and is no directory. */
int builder_place_link(struct tree_builder *builder, const struct slice *path, uint32_t inode, struct error *err);

#endif
