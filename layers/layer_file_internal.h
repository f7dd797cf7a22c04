/* One layer on its way into a tree: a file, or what the host has. */
#ifndef TRVMM_LAYERS_LAYER_FILE_INTERNAL_H
#define TRVMM_LAYERS_LAYER_FILE_INTERNAL_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "layers/cache.h"
#include "layers/layers.h"

enum layer_kind {
	LAYER_TAR,
	LAYER_DIRECTORY,       /* of the host */
	LAYER_FILE,            /* of the host, with a place in the tree */
};

struct layer_file {
	char *name;            /* owned: the path, for a layer of an image with more behind it; for messages */
	int fd;                /* owned: the file itself, and after layer_file_unpack() where its tar can be read; -1: given away */
	enum layer_kind kind;
	const char *guest;     /* borrowed: where an added file or directory goes; NULL: it is a layer */
	struct stat st;        /* of the file itself */
	uint64_t offset, length; /* where in it the layer lies: all of it, or a blob in an archive */
	bool in_cache;         /* `fd` is a compressed archive, inflated in the cache; `st` is the archive's */
	struct expected_digests expected; /* what an image says of it */
	uint64_t tar_bytes;    /* after layer_file_unpack() */
	const struct codec *codec; /* borrowed: its compression; NULL: none */
	struct growth *growth; /* borrowed: how far unpacking is; NULL: it is done, or nobody merges meanwhile */
	bool inflated;         /* the tar lies in the cache, under `digest` */
	uint8_t digest[DIGEST_BYTES];
};

/*
 * Opens the file or directory; `guest` (or NULL): where it is added. This and the functions below return 0, or -errno with a line that
 * begins with "layer PATH: " or "--add PATH: ".
 */
int layer_file_open(struct layer_file *layer, const char *path, const char *guest, struct error *err);
void layer_file_close(struct layer_file *layer);

/* The part of the file that is the layer, before layer_files_unpack(). Borrows from `layer`. */
struct file_range layer_file_range(const struct layer_file *layer);

/* Puts that beginning before a line. Returns `code`. */
int layer_file_error(const struct layer_file *layer, int code, struct error *err);

/* Finds out by their first bytes what the files are. */
int layer_files_recognise(struct layer_file *layers, size_t count, struct error *err);

/*
 * Has compressed ones inflated, several at a time, and verifies what images say of them; each layer's `growth` is settled when it is in
 * its place. `cache` may be closed (fd -1): then it is opened, where `spec` says, when it is needed. The line in `err` names the layer;
 * when several fail, the lowest.
 */
int layer_files_unpack(struct layer_file *layers, size_t count, struct cache *cache, const struct layers_spec *spec,
		       struct error *err);

/* Merges it into the tree, which takes over the descriptor; with `growth` while it is unpacked, and waits until that is done. */
int layer_file_merge(struct layer_file *layer, struct tree_builder *builder, struct error *err);

#endif
