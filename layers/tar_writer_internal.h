/*
 * The tar writer: the other way round of tar_internal.h, for layers that trvmm makes.
 *
 * Writes POSIX pax archives: ustar headers, and an extended header before each entry of which something does not fit there (long
 * names, fractions of seconds, times before 1970, owners beyond 2097151, files beyond 8 GiB, extended attributes as SCHILY.xattr, or
 * as LIBARCHIVE.xattr when the name has a '='). A file of which more than half is holes is written as GNU's sparse format 1.0, which
 * container engines (Go's archive/tar) and GNU tar read; others are written with their holes as zeroes, which every reader knows.
 *
 * What is written depends on nothing but the entries. Each byte goes into a SHA-256 as well: a layer's diffID.
 */
#ifndef TRVMM_LAYERS_TAR_WRITER_INTERNAL_H
#define TRVMM_LAYERS_TAR_WRITER_INTERNAL_H

#include "layers/tar_internal.h"

#define TAR_DIGEST_BYTES 32u

struct tar_writer;

/* Reads bytes that an entry's extents name. Returns 0 or -errno. */
typedef int tar_contents_read(void *data, uint32_t source, uint64_t offset, void *buffer, size_t length);

/* Starts an archive at the position of `fd`, which is borrowed. NULL when memory is out. */
struct tar_writer *tar_writer_create(int fd);
void tar_writer_destroy(struct tar_writer *writer);

/*
 * Appends an entry: all of its fields but `number` are what to write; the path of a directory has no slash at its end ("" is the
 * root). Contents are read by `read` as they are needed, extents in ascending order. Returns 0, -ENOTSUP for a type that tar does not
 * have (sockets), -ENOMEM, what `read` returned, or an error of writing, with a line that says which of them.
 */
int tar_writer_add(struct tar_writer *writer, const struct tar_entry *entry, tar_contents_read *read, void *data,
		   struct error *err);

/* Ends the archive; all of it is written then. `digest` receives the SHA-256 of the whole. */
int tar_writer_finish(struct tar_writer *writer, uint8_t digest[TAR_DIGEST_BYTES], struct error *err);

/* The parts that live in tar_writer_pax.c: appends a record, or those of an entry that its header cannot hold, to `text`. */
int pax_add(struct array *text, const char *key, size_t key_bytes, const void *value, size_t value_bytes);
int pax_add_entry(struct array *text, const struct tar_entry *entry, const struct slice *path, bool sparse);

/* What a field of a header holds at most, as octal digits before a NUL. */
#define TAR_OCTAL_MAX(bytes) (((uint64_t)1 << 3 * ((bytes)-1)) - 1)

#endif
