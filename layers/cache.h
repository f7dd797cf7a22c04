/*
 * The cache directory: files that are complete or not there.
 *
 *   CACHE/lock            taken by byte range, one byte for each entry: see cache_lock()
 *   CACHE/layers/SHA256   a layer that was compressed, inflated; the name is the digest of the compressed file
 *   CACHE/digests/DEV-INO what the digest of that layer file was when it had this size and these times; -OFFSET behind it: of a
 *                         blob in an archive
 *   CACHE/images/KEY      what an image consists of: layers, digests that were verified, configuration (image_memory.c)
 *   CACHE/trees/KEY       the merged tree of a stack of layer files
 *   CACHE/kernels/SHA256  the unpacked payload of a bzImage; the name is the digest of the bzImage (vmm/kernel_image.c)
 *
 * A file is written without a name (O_TMPFILE) and gets one when it is complete, so a run that is killed leaves nothing behind.
 * Where the file system knows no files without names, a temporary name next to the real one is used, and a later run of the same
 * entry overwrites what a killed one left. What is not used any more is removed when something is added (trim.c).
 *
 * The directory belongs to this user alone (0700). Its files are nevertheless checked like any other input when they are opened.
 */
#ifndef TRVMM_LAYERS_CACHE_H
#define TRVMM_LAYERS_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>

#include "base/error.h"

struct cache {
	int fd;                /* owned: the directory */
	char *path;            /* owned; for messages */
};

/*
 * Opens the cache at `path`; NULL: $XDG_CACHE_HOME/trvmm or $HOME/.cache/trvmm. What is missing of the path is created, 0700.
 * Returns 0, or -errno with a line: no home, not a directory, not ours or open to others (-EPERM).
 */
int cache_open(struct cache *cache, const char *path, struct error *err);
void cache_close(struct cache *cache);

/*
 * Waits until no other run works on entry `key` and keeps others waiting until the returned descriptor is closed; the kernel lets
 * go when a run is killed. Returns the descriptor or -errno.
 */
int cache_lock(const struct cache *cache, uint64_t key);

/* Opens DIRECTORY/NAME for reading. Returns the descriptor or -errno. */
int cache_open_file(const struct cache *cache, const char *directory, const char *name);

/* A file of the cache that is being written. */
struct cache_file {
	int fd;                /* owned, read and write; cache_publish() hands it over */
	int directory;         /* owned */
	char name[96];
	bool named;            /* it has the temporary name NAME.tmp */
};

/* Begins DIRECTORY/NAME. The caller holds the entry's lock until it is published or dropped. Returns 0 or -errno. */
int cache_create(const struct cache *cache, const char *directory, const char *name, struct cache_file *file);

/* Gives the complete file its name, in place of what had it, and its descriptor to the caller. Returns it, or -errno (dropped). */
int cache_publish(struct cache_file *file);

/* Forgets a file that was not published. */
void cache_drop(struct cache_file *file);

/* Notes that an entry is used, for cache_trim(). `st` is its state. */
void cache_touch(int fd, const struct stat *st);

/*
 * Removes from DIRECTORY what was not used for a month, and then the least recently used until at most `limit_bytes` are left. What
 * was used in the last hour stays.
 */
void cache_trim(const struct cache *cache, const char *directory, uint64_t limit_bytes);

/* A file of the cache, for whoever looks after it. */
struct cache_entry {
	char kind[12];         /* the directory: layers, trees, kernels, images, digests */
	char name[96];
	uint64_t bytes;        /* on the disk */
	int64_t last_use_s;    /* since 1970; a day's use may be noted once */
	bool in_use;           /* a run reads from it (layers only: the others are read at the start and done with) */
};

/* All files of the cache, kind by kind, the largest first; the array is for the caller to free. Returns 0 or -errno. */
int cache_list(const struct cache *cache, struct cache_entry **entries, size_t *count);

/* Removes the file unless a run uses it or is making it. Returns 1, 0 when it is in use, or -errno (-ENOENT: it is gone already). */
int cache_remove(const struct cache *cache, const struct cache_entry *entry);

/* Says that the opened layer is in use until all descriptors of it are closed. */
void cache_mark_used(int fd);

/* As cache_lock(), but -EAGAIN instead of waiting. */
int cache_try_lock(const struct cache *cache, uint64_t key);

/* The key with which layers/NAME is locked. */
uint64_t layer_lock_key(const uint8_t digest[32]);

/* What tells one state of a file from another without reading it. */
struct file_identity {
	uint64_t device, inode, size_bytes;
	int64_t mtime_s, ctime_s;
	uint32_t mtime_ns, ctime_ns;
};

struct file_identity file_identity_of(const struct stat *st);

/* The identity as one number, never 0: with 64 bits two states of a file differ. */
uint64_t file_identity_number(const struct stat *st);

/* What a write to the file changes, as one number, never 0; a rename, new links and permissions leave it alone. */
uint64_t file_stamp(const struct stat *st);

/*
 * Whether the identity can be relied on: a file that was changed a moment ago may change again within the same tick of the file
 * system's clock, and would look the same.
 */
bool file_identity_is_settled(const struct file_identity *identity);

#define BOOT_ID_BYTES 16u

/* Tells this boot of the machine from all others. Returns false when the system does not say. */
bool boot_id_read(uint8_t id[BOOT_ID_BYTES]);

/* A quick 64-bit checksum against damage, not against anybody's intent. `seed` chains calls. */
uint64_t cache_checksum(uint64_t seed, const void *data, size_t length);

#define DIGEST_BYTES 32u

/* The part of a file in which a layer lies: all of it, or a blob in an archive. */
struct file_range {
	int fd;                /* borrowed */
	const struct stat *st; /* borrowed: the file's state when it was opened */
	uint64_t offset, length;
	bool in_cache;         /* `fd` is what the file was inflated to, which only this program writes; `st` is the file's */
};

/* What an image says of a layer. */
struct expected_digests {
	uint8_t digest[DIGEST_BYTES]; /* of the blob as it is stored; all zero: not told */
	uint8_t diff_id[DIGEST_BYTES]; /* of the tar; all zero: not told */
};

static inline bool digest_is_told(const uint8_t digest[DIGEST_BYTES])
{
	static const uint8_t zeroes[DIGEST_BYTES];
	return memcmp(digest, zeroes, DIGEST_BYTES) != 0;
}

/*
 * Compares with what an image says, when it says something. `what`: "digest" or "diffID". Returns 0, or -EBADMSG with a line that
 * has both.
 */
int digest_compare(const uint8_t expected[DIGEST_BYTES], const uint8_t found[DIGEST_BYTES], const char *what, struct error *err);

#define DIGEST_HEX_BYTES (2 * DIGEST_BYTES + 1)

void digest_hex(const uint8_t digest[DIGEST_BYTES], char hex[DIGEST_HEX_BYTES]);

/* Hashes the range. Returns 0 or -errno with a line. */
int digest_compute(const struct file_range *range, uint8_t digest[DIGEST_BYTES], struct error *err);

/*
 * The SHA-256 of the range: remembered in the cache (`remembered` is set), or computed. Returns 0 or -errno with a line.
 */
int range_digest_find(const struct cache *cache, const struct file_range *range, uint8_t digest[DIGEST_BYTES], bool *remembered,
		      struct error *err);

/* Whether the digest is remembered. */
bool range_digest_recall(const struct cache *cache, const struct file_range *range, uint8_t digest[DIGEST_BYTES]);

/* Remembers it for the file in that state. Best effort: without it the range is hashed again next time. */
void range_digest_remember(const struct cache *cache, const struct file_range *range, const uint8_t digest[DIGEST_BYTES]);

/* The same for a whole file. */
static inline int digest_find(const struct cache *cache, int fd, const struct stat *st, uint8_t digest[DIGEST_BYTES],
			      bool *remembered, struct error *err)
{
	const struct file_range all = { .fd = fd, .st = st, .length = (uint64_t)st->st_size };
	return range_digest_find(cache, &all, digest, remembered, err);
}

static inline void digest_remember(const struct cache *cache, const struct stat *st, const uint8_t digest[DIGEST_BYTES])
{
	const struct file_range all = { .fd = -1, .st = st, .length = (uint64_t)st->st_size };
	range_digest_remember(cache, &all, digest);
}

struct codec;
struct growth;
struct progress;

/* What inflating is bound by and tells; NULL: the default bound, and nothing. */
struct inflate_limits {
	uint64_t max_bytes;    /* of one layer, inflated */
	struct progress *progress; /* NULL: none */
	struct growth *growth; /* NULL: nobody reads meanwhile */
};

/*
 * Finds or makes the inflated form of what `codec` compressed in the cache, and makes sure that it is what `expected` says (a
 * diffID is computed once for an entry of the cache). On success `inflated` is a new descriptor whose first `size_bytes` are the
 * inflated bytes, and `digest` the compressed range's SHA-256. Returns 0, or -errno with a line that says what is wrong with the
 * file or with the cache.
 */
int inflated_open(const struct cache *cache, const struct file_range *from, const struct codec *codec,
		  const struct expected_digests *expected, const struct inflate_limits *limits, int *inflated, uint64_t *size_bytes,
		  uint8_t digest[DIGEST_BYTES], struct error *err);

/* The same for a known digest and only if it is there. Returns the descriptor or -errno. */
int inflated_open_known(const struct cache *cache, const uint8_t digest[DIGEST_BYTES], uint64_t *size_bytes);

/* The same for a file whose digest is remembered. */
int inflated_open_recalled(const struct cache *cache, const struct file_range *from, uint64_t *size_bytes);

/* Reads all of an entry that was opened. Returns whether it is damaged; then the next one who opens it makes it anew. */
bool inflated_is_damaged(const struct cache *cache, const uint8_t digest[DIGEST_BYTES]);

#endif
