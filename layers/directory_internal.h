/*
 * A host directory, or one host file, onto a growing tree.
 *
 * What is there is taken as it is: a name that looks like a whiteout is a name, symbolic links are never followed, hard links within the
 * directory stay links, and of other file systems that are mounted below only the mount points are seen. Over a symbolic link that
 * leads to a directory in the tree a directory is that directory, so that "bin" of a host directory goes well with usrmerge.
 */
#ifndef TRVMM_LAYERS_DIRECTORY_INTERNAL_H
#define TRVMM_LAYERS_DIRECTORY_INTERNAL_H

#include <sys/stat.h>

#include "base/error.h"
#include "layers/builder_internal.h"

/* Where and as what host files appear. */
struct host_placing {
	const char *name; /* of the layer; for messages of its source */
	const char *guest; /* where in the tree; "": at its root */
	bool added; /* as `docker cp` does it: owner 0:0, directories that are there keep their attributes */
};

/*
 * Both begin a layer of their own, and take over the descriptor, also on failure. They return 0 or -errno with a line that names what
 * lies below the directory, and not the directory.
 */
int directory_merge(struct tree_builder *builder, int fd, const struct host_placing *placing, struct error *err);

/*
 * Puts the file at placing->guest, or, when a directory is there or it ends with a slash, into it under the last component of
 * placing->name.
 */
int host_file_merge(struct tree_builder *builder, int fd, const struct stat *st, const struct host_placing *placing,
		    struct error *err);

#endif
