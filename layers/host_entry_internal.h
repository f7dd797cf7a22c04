/* What a file of the host is, in the words of the tar reader, so that the tree's builder takes both. */
#ifndef TRVMM_LAYERS_HOST_ENTRY_INTERNAL_H
#define TRVMM_LAYERS_HOST_ENTRY_INTERNAL_H

#include <sys/stat.h>

#include "base/error.h"
#include "layers/array_internal.h"
#include "layers/tar_internal.h"

/* All zero to begin with; what is in `tar` is good until the next host_entry_read(). */
struct host_entry {
	struct tar_entry tar;
	struct array text; /* of attributes and a link's target */
	struct array xattrs; /* struct tar_xattr */
	struct array extents; /* struct tree_extent */
};

/*
 * Describes `name` in the directory, whose state is `st`; NULL: the descriptor itself. The path is left alone. Extents count from the
 * file's start. Returns 0; -ENOENT when it vanished meanwhile, or -errno with a line.
 *
 * Extended attributes are those that mean something elsewhere: user.*, trusted.*, security.capability and POSIX ACLs. Labels of the
 * host's own policy (security.selinux, security.ima) and overlayfs' bookkeeping stay behind.
 */
int host_entry_read(struct host_entry *entry, int directory, const char *name, const struct stat *st, struct error *err);

/* Moves all extents to `start` of the source. */
void host_entry_move_extents(struct host_entry *entry, uint64_t start);

void host_entry_free(struct host_entry *entry);

#endif
