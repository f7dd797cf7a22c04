/*
 * What the parts of `trvmm disk inspect` share. Names come from layers and are hostile: whatever is printed has passed text_quote(), which
 * leaves printable ASCII, and what JSON or SVG cannot hold of that is escaped on top.
 */
#ifndef TRVMM_VMM_CLI_DISK_INSPECT_H
#define TRVMM_VMM_CLI_DISK_INSPECT_H

#include <stdio.h>

#include "base/error.h"
#include "ext4gen/inspect.h"
#include "vmm/root_disk.h"

struct view {
	const struct root_disk *root; /* borrowed */
	const struct tree *tree; /* of it */
	uint32_t *entry_of; /* owned; an entry for each inode; TREE_NONE: it has none */
	char **layer_names; /* owned, quoted; NULL: the layer brought no contents */
};

/* Returns 0 or -ENOMEM with one line; view_free() is due in either case. */
int view_init(struct view *view, const struct root_disk *root, struct error *err);
void view_free(struct view *view);

/* disk_tree.c; all of what is returned is allocated and quoted, NULL: no memory. */
char *text_quote(const char *bytes, size_t length);
char *view_path(const struct view *view, uint32_t inode); /* one of its names, as a path */

/* Prints quoted text as a JSON string. */
void json_print_string(FILE *out, const char *quoted);

/* All names, a line or an object each. Return 0, or -errno with one line. */
int tree_print(const struct view *view, FILE *out, bool json, struct error *err);

/* Where one path lies. -ENOENT when there is none. */
int path_print(const struct view *view, const char *path, FILE *out, bool json, struct error *err);

/* disk_block.c: what a block is, and what is in it as a guest would read it. -EINVAL when it is not on the disk. */
int block_print(const struct view *view, const char *number, FILE *out, bool json, struct error *err);

/* disk_map.c: the map as SVG. */
int map_print(const struct view *view, FILE *out, struct error *err);

#endif
