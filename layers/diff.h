/*
 * What changed between two trees, as a layer: applied on top of the layers that made the first, it makes the second.
 *
 * The layer is an uncompressed tar by the OCI image-spec's rules (layer.md): what is new or has changed in any way that a program
 * could see (type, mode, owner, modification time, extended attributes, device number, target, contents, which names are one file) is
 * there as a whole; what is gone is a whiteout, `.wh.NAME`. Not compared: access and change times, link counts and sizes of
 * directories. Opaque markers are never used, as whiteouts say the same and every engine knows them.
 *
 *   - Order: names sorted by bytes, directories before what they hold. The same trees give the same bytes.
 *   - A directory of which anything is in the layer is there as well, with all those above it but the root, so that engines that
 *     unpack layers one by one give it the right attributes, and engines that touch its time put it back.
 *   - Hard links: when one name of a file is in the layer all of its names are, the first with the contents, so that no link leads out
 *     of the layer. A file of which all names are what they were is left out.
 *   - Left out with a complaint: sockets (tar has none; where something else stood, there is a whiteout), names that begin with
 *     ".wh." (a layer would mean something else by them), paths of more than 4095 bytes.
 */
#ifndef TRVMM_LAYERS_DIFF_H
#define TRVMM_LAYERS_DIFF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "layers/tree.h"

/* A tree, and how to read the bytes that its extents name. Returns 0 or -errno. All borrowed. */
struct diff_side {
	const struct tree *tree;
	int (*read)(void *data, uint32_t source, uint64_t offset, void *buffer, size_t length);
	void *data;
};

struct diff_options {
	/*
	 * Whether the range of source 0 is known to hold the same bytes on both sides; saves reading and comparing them. NULL: nothing
	 * is known.
	 */
	bool (*is_unchanged)(void *data, uint64_t offset, uint64_t length);
	void *data;
	/* Names at the top that have no part in the comparison; ends with NULL. NULL: none. */
	const char *const *ignored;
};

#define DIFF_DIGEST_BYTES 32u

struct diff_result {
	uint64_t entries, whiteouts; /* in the layer; whiteouts do not count as entries */
	uint8_t diff_id[DIFF_DIGEST_BYTES]; /* the layer's SHA-256 */
	struct complaints complaints;
};

/*
 * Writes the layer that makes `changed` of `base` to `fd`. Takes time in proportion to the trees and to the contents that it cannot
 * know to be the same, and 16 bytes of memory for each inode. Returns 0, or -errno with a line: -ENOMEM, or an error of reading either
 * side or of writing.
 */
int diff_write(const struct diff_side *base, const struct diff_side *changed, const struct diff_options *options, int fd,
	       struct diff_result *result, struct error *err);

#endif
