/*
 * Images: what OCI layouts (a directory, or that directory in a tar) and `docker save` archives consist of.
 *
 * An image is resolved to parts, the files or ranges of the archive that were read for it; some are layers, which are then handled
 * like layer files given one by one. JSON is read the first time only: afterwards the cache knows what an image in this state
 * consists of (image_memory.c). Specifications: OCI image-spec image-layout.md, image-index.md, manifest.md, config.md; Docker's
 * image specification v1.2 (manifest.json).
 */
#ifndef TRVMM_LAYERS_IMAGE_INTERNAL_H
#define TRVMM_LAYERS_IMAGE_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/error.h"
#include "layers/array_internal.h"
#include "layers/cache.h"
#include "layers/layers.h"

#define IMAGE_JSON_MAX ((uint64_t)4 << 20) /* what registries take for a manifest */
#define IMAGE_NAMES_MAX 20000u /* files in an archive */
#define IMAGE_LAYERS_MAX 1000u

struct chunk_check;

struct image_part {
	char *name;            /* owned: in the layout or archive */
	int fd;                /* owned: of a layer, until it is given away; else -1 */
	struct stat st;        /* of the file: the archive, or its own */
	uint64_t offset, length;
	bool is_layer;
	struct expected_digests expected;
};

/* A file in an archive. */
struct image_name {
	char *name, *link;     /* owned; link: the name of the file whose contents it has, or NULL */
	uint64_t offset, length;
};

struct image {
	const char *path;      /* borrowed: as it was given */
	const char *reference; /* borrowed: what stands behind the place and a colon, or NULL */
	int fd;                /* owned: the directory or the archive, or what it was inflated to */
	struct stat st;        /* of what was given */
	bool is_archive;
	bool in_cache;         /* it was compressed */
	struct chunk_check *check; /* owned: of what it was inflated to; NULL: it was not */
	uint64_t archive_bytes;
	bool is_known;         /* it came from the cache */
	struct array names;    /* struct image_name; archives that are not known */
	struct array parts;    /* struct image_part; layers bottom first */
	struct image_config config;
};

/*
 * Finds out whether `path`, or what stands in it before a colon, is an image, and what it consists of. Returns 1, 0 when it is
 * none, or -errno with a line that begins with "layer PATH: ". `cache` may be closed; it is opened when the archive is compressed, which
 * is then inflated into it. The image has to be closed in any case.
 */
int image_open(struct image *image, const char *path, struct cache *cache, const struct layers_spec *spec, struct error *err);
void image_close(struct image *image);

/* Reads names and ranges of the archive's files into image->names. Returns 0 or -errno with a line. */
int image_list_archive(struct image *image, struct error *err);

/* Whether the image has a file of this name. */
bool image_has(const struct image *image, const char *name);

/*
 * Adds the file as a part; it then belongs to the image and is good until the next one is added. Returns 0; -ENOENT, or -errno with
 * a line.
 */
int image_add_part(struct image *image, const char *name, struct image_part **part, struct error *err);

/* Adds a part that is JSON and returns its text, which the caller frees. `digest` (or NULL) is verified. */
int image_read_json(struct image *image, const char *name, const uint8_t *digest, char **text, size_t *length, struct error *err);

/* Reads index.json or manifest.json and what they name, into parts and config. Returns 0 or -errno with a line. */
int image_resolve(struct image *image, struct error *err);

/* Fills in parts and config from the cache when they are there and nothing has changed. Returns 0 or -errno. */
int image_recall(struct image *image, const struct cache *cache);

/* Remembers an image whose layers were verified. Best effort. */
void image_remember(const struct image *image, const struct cache *cache);

#endif
