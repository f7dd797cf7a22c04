/*
 * The tar reader: an iterator over the entries of an archive.
 *
 * Reads headers only. An entry's contents are described by extents, offsets in the archive. Understands v7, ustar (and star's
 * prefix), PAX and GNU archives; where readers differ about an archive, this one does what Go's archive/tar does, since that is
 * what container engines use: two readers that disagree about where an entry starts can be played against each other.
 *
 * Limits, all errors that name the entry: an extended header (PAX, GNU long name) 8 MiB; a path or link 65535 bytes; 1024 extended
 * attributes an entry, names of 255 and values of 65536 bytes. Memory is a few times the largest extended header.
 */
#ifndef TRVMM_LAYERS_TAR_INTERNAL_H
#define TRVMM_LAYERS_TAR_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "layers/array_internal.h"
#include "layers/tree.h"
#include "layers/window_internal.h"

#define TAR_BLOCK_BYTES 512u
#define TAR_EXTENDED_MAX ((uint64_t)8 << 20)
#define TAR_PATH_MAX 65535u
#define TAR_XATTRS_MAX 1024u
#define TAR_XATTR_NAME_MAX 255u
#define TAR_XATTR_VALUE_MAX 65536u

/*
 * A header block. All numbers are octal text, or base-256 when the first byte's top bit is set (GNU).
 *
 *   0        100     108   116   124     136     148     156  157        257   263 265      297      329  337  345      500  512
 *   | name    | mode  | uid | gid | size  | mtime |checksum|type| linkname | magic |ver| uname  | gname  |maj | min | prefix |    |
 *
 * From 345 on: ustar has a prefix of 155 bytes, star one of 131 and times; GNU has times and, at 386, the sparse map.
 */
struct tar_header {
	char name[100];
	char mode[8], uid[8], gid[8];
	char size[12], mtime[12];
	char checksum[8];
	char type;
	char link[100];
	char magic[8]; /* "ustar\0" "00", or GNU's "ustar  \0" */
	char uname[32], gname[32];
	char major[8], minor[8];
	char rest[167];
};
_Static_assert(sizeof(struct tar_header) == TAR_BLOCK_BYTES, "a header is one block");

/* The number in a field, octal or base-256. Returns false when it is neither, or does not fit. An empty field is 0. */
bool tar_number(const char *field, size_t bytes, int64_t *number);

/* Whether the header's checksum is right (as unsigned bytes, or signed as some old programs summed). */
bool tar_checksum_ok(const struct tar_header *header);

/* Bytes as they lie in somebody's buffer. */
struct slice {
	const char *bytes; /* borrowed; NULL: not given */
	size_t length;
};

struct tar_xattr {
	struct slice name, value;
};

/* The records of PAX extended headers: of one entry, or the global ones. */
struct pax {
	struct array text;     /* the headers' bytes, in which the slices lie */
	struct slice path, link, sparse_name;
	bool has_size, has_uid, has_gid, has_mtime, has_sparse_size, has_sparse_map, has_sparse_major, has_sparse_minor;
	uint64_t size, uid, gid, sparse_size, sparse_major, sparse_minor;
	int64_t mtime_s;
	uint32_t mtime_ns;
	struct array xattrs;   /* struct tar_xattr, in the order of the records */
	struct array map;      /* struct sparse_range: formats 0.0 and 0.1 */
};

/* A range of a sparse file that holds data, as an archive tells it. */
struct sparse_range {
	uint64_t offset, length;
};

/*
 * Parses `pax->text` into the rest. Returns 0, or an errno with a line that tells what is wrong with which record. `global`:
 * records that can only be meant for one file (path, size, sparse maps) are rejected.
 */
int pax_parse(struct pax *pax, bool global, struct error *err);

/* Forgets all records and keeps the memory. */
void pax_reset(struct pax *pax);
void pax_free(struct pax *pax);

/* A decimal number that fills the slice. Returns false when it is none or does not fit into 63 bits. */
bool decimal_parse(const char *text, size_t length, uint64_t *number);

/* What the archive says of one name. Everything borrowed is good until the next tar_next(). */
struct tar_entry {
	uint64_t number;       /* 1 for the first */
	struct slice path;     /* as it stands there: slashes, "." and ".." included; never with a NUL */
	struct slice link;     /* symbolic link: target; hard link: path of the other name */
	bool hard_link;
	uint32_t mode;         /* S_IFMT and permission bits; of a hard link only the bits */
	uint32_t uid, gid, rdev;
	int64_t mtime_s;
	uint32_t mtime_ns;
	uint64_t size_bytes;   /* regular files; holes counted */
	const struct tree_extent *extents; /* regular files; `source` is 0, source_offset counts from the archive's start */
	uint32_t extent_count;
	const struct tar_xattr *xattrs;    /* sorted by name, each name once; Linux's name spaces only */
	uint32_t xattr_count;
};

struct tar_reader {
	struct window window;
	uint64_t size;         /* of the archive; while it grows, a bound that is too large: see tar_await() */
	uint64_t next;         /* where the next header starts */
	uint64_t entries;      /* handed out so far */
	struct tar_header header;
	struct pax global, local;
	struct array long_name, long_link; /* GNU L and K */
	bool has_long_name, has_long_link, has_extended;
	struct array path;     /* prefix and name put together */
	struct array ranges;   /* struct sparse_range */
	struct array extents;  /* struct tree_extent */
	struct array xattrs;   /* struct tar_xattr */
};

/* Starts on an archive of `size` bytes: those of `fd`, or of `memory` when fd is -1; both are borrowed. */
void tar_open(struct tar_reader *reader, int fd, const uint8_t *memory, uint64_t size);
/* The same for an archive that begins at `base` of the file. Offsets in entries count from there. */
void tar_open_at(struct tar_reader *reader, int fd, uint64_t base, uint64_t size);
/* The same for a file that is still written: the reader waits for what it needs, and finds and says the same. */
void tar_open_growing(struct tar_reader *reader, struct growth *growth);
void tar_close(struct tar_reader *reader);

/*
 * The next entry. Returns 1, 0 at the end, or -errno with a line that begins with "entry N 'NAME': " where it concerns one.
 * -EINVAL: malformed, -ENODATA: truncated, -ENOTSUP: a kind of entry that has no place in a layer, -ENOMEM, or an I/O error.
 */
int tar_next(struct tar_reader *reader, struct tar_entry *entry, struct error *err);

/*
 * The parts of tar_next() that live in tar_fields.c. They fill in what they are called after, from reader->header and the extended
 * headers before it. tar_find_names() comes first, so that messages can name the entry; the type decides by the path, too.
 */
int tar_find_names(struct tar_reader *reader, struct tar_entry *entry, struct error *err);
int tar_find_attributes(const struct tar_reader *reader, struct tar_entry *entry, struct error *err);
/* `stored`: whether the size field's bytes follow. Links, devices and directories have none whatever it says, as in Go. */
int tar_find_type(const struct tar_reader *reader, struct tar_entry *entry, bool *stored, struct error *err);
/* The entry's own attributes, or else the global ones. */
int tar_find_xattrs(struct tar_reader *reader, struct tar_entry *entry, struct error *err);

/*
 * To be called before a comparison with reader->size: waits until the archive has come to `end` or is complete, and makes `size` such that
 * what lies before `end` compares as it does with the final one.
 */
void tar_await(struct tar_reader *reader, uint64_t end);

/* Reads bytes that must be there. Returns 0 or -errno with a line. */
int tar_read_bytes(struct tar_reader *reader, uint64_t offset, void *to, size_t length, struct error *err);

/* The parts that live in tar_sparse.c. */

/* Whether the PAX records make the entry a sparse file. */
bool tar_sparse_is_pax(const struct pax *pax);

/*
 * Describes a sparse file's contents: reads the map (GNU's type S: in the header and the blocks behind it; PAX: in the records or
 * before the data), checks it against the `stored` bytes that follow at reader->next, and leaves extents and the file's real size.
 */
int tar_sparse_read(struct tar_reader *reader, uint64_t stored, uint64_t *real_size, struct error *err);

#endif
