/*
 * Inflated layers in the cache.
 *
 *   | the layer's tar, as it is | zeroes up to 4 KiB | foot |
 *
 * The tar lies at offset 0, so the file can be looked at with tar(1) and offsets are what they would be in a plain layer.
 *
 * What guards against damage:
 *
 *   - The file gets its name when it is complete. Its size and foot are checked when it is opened.
 *   - Its time is set to one that the digest determines, whole seconds long past: whoever writes to the file later changes that.
 *   - It is not synced, which would take longer than inflating. Instead the foot tells in which boot of the machine it was
 *     written, and the first run after another boot reads all of the file once and compares a checksum: a power failure may have
 *     lost some of it.
 *
 * A file that fails any of this is made anew. What nothing here notices is a medium that returns other bytes than it was given; a
 * layer that is not compressed has no more than that, and reading all of it at every start would take longer than the start.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "layers/cache.h"

#define PAYLOAD_ALIGN 4096u

static const char foot_magic[8] = "trvmmly2";

struct foot {
	char magic[8];
	uint8_t digest[DIGEST_BYTES];
	uint8_t diff_id[DIGEST_BYTES]; /* the SHA-256 of the payload; all zero: nobody asked for it yet */
	uint64_t payload_bytes;
	uint64_t payload_checksum; /* cache_checksum() chained over chunks of INFLATED_CHUNK_BYTES */
	uint8_t boot_id[BOOT_ID_BYTES]; /* the boot in which it was written; all zero: known to be on the disk */
	uint64_t checksum; /* of the fields before */
};
_Static_assert(sizeof(struct foot) == 112, "the foot is written as it is, without padding");

uint64_t layer_lock_key(const uint8_t digest[DIGEST_BYTES])
{
	uint64_t number;
	memcpy(&number, digest, sizeof(number));
	return number;
}

/* Even seconds between 1970 and 1987: no file system rounds them, no clock sets them. */
static time_t expected_mtime(const uint8_t digest[DIGEST_BYTES])
{
	return (time_t)((layer_lock_key(digest) & 0xfffffff) << 1);
}

static uint64_t foot_offset(uint64_t payload_bytes)
{
	return (payload_bytes + PAYLOAD_ALIGN - 1) / PAYLOAD_ALIGN * PAYLOAD_ALIGN;
}

static int write_foot(int fd, struct foot *foot)
{
	foot->checksum = cache_checksum(0, foot, offsetof(struct foot, checksum));
	const ssize_t n = pwrite(fd, foot, sizeof(*foot), (off_t)foot_offset(foot->payload_bytes));
	if (n != (ssize_t)sizeof(*foot))
		return n < 0 ? -errno : -ENOSPC;
	const struct timespec times[2] = { { 0, UTIME_OMIT }, { expected_mtime(foot->digest), 0 } };
	return futimens(fd, times) ? -errno : 0;
}

/* Reads and checks the foot of the entry for `digest`. */
static int read_foot(int fd, const uint8_t digest[DIGEST_BYTES], struct foot *foot)
{
	struct stat st;
	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size < (off_t)sizeof(*foot) ||
	    st.st_mtim.tv_sec != expected_mtime(digest) || st.st_mtim.tv_nsec != 0 ||
	    pread(fd, foot, sizeof(*foot), st.st_size - (off_t)sizeof(*foot)) != (ssize_t)sizeof(*foot) ||
	    memcmp(foot->magic, foot_magic, sizeof(foot_magic)) != 0 || memcmp(foot->digest, digest, DIGEST_BYTES) != 0 ||
	    foot->checksum != cache_checksum(0, foot, offsetof(struct foot, checksum)) ||
	    foot->payload_bytes > (uint64_t)st.st_size || foot_offset(foot->payload_bytes) + sizeof(*foot) != (uint64_t)st.st_size)
		return -EBADMSG;
	cache_touch(fd, &st);
	return 0;
}

/* Whether the entry was written in this boot, so that the kernel knows all of it, or is known to be on the disk. */
static bool is_safe(const struct foot *foot)
{
	static const uint8_t on_disk[BOOT_ID_BYTES];
	uint8_t now[BOOT_ID_BYTES];
	return memcmp(foot->boot_id, on_disk, BOOT_ID_BYTES) == 0 ||
	       (boot_id_read(now) && memcmp(foot->boot_id, now, BOOT_ID_BYTES) == 0);
}

static int verify_payload(int fd, const struct foot *foot)
{
	uint8_t *chunk = malloc(INFLATED_CHUNK_BYTES);
	uint64_t checksum = 0;
	int ret = chunk ? 0 : -ENOMEM;
	for (uint64_t at = 0; !ret && at < foot->payload_bytes;) {
		const uint64_t left = foot->payload_bytes - at;
		const size_t length = left < INFLATED_CHUNK_BYTES ? (size_t)left : INFLATED_CHUNK_BYTES;
		if (pread(fd, chunk, length, (off_t)at) != (ssize_t)length)
			ret = -EIO;
		else
			checksum = cache_checksum(checksum, chunk, length);
		at += length;
	}
	free(chunk);
	return ret ? ret : checksum == foot->payload_checksum ? 0 : -EBADMSG;
}

/* Writes what was learned into the foot of an entry. Failing leaves it as it is, or to be made anew. */
static void rewrite_foot(const struct cache *cache, struct foot *foot)
{
	char path[128] = "layers/";
	digest_hex(foot->digest, path + strlen(path));
	const int fd = openat(cache->fd, path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return;
	write_foot(fd, foot);
	close(fd);
}

static int open_entry(const struct cache *cache, const uint8_t digest[DIGEST_BYTES], struct foot *foot)
{
	char name[DIGEST_HEX_BYTES];
	digest_hex(digest, name);
	const int fd = cache_open_file(cache, "layers", name);
	if (fd < 0)
		return fd;
	const int ret = read_foot(fd, digest, foot);
	if (ret) {
		close(fd);
		return ret;
	}
	cache_mark_used(fd);
	return fd;
}

int inflated_open_known(const struct cache *cache, const uint8_t digest[DIGEST_BYTES], uint64_t *size_bytes)
{
	struct foot foot;
	const int fd = open_entry(cache, digest, &foot);
	if (fd < 0)
		return fd;
	if (!is_safe(&foot)) {
		close(fd);
		return -EAGAIN;
	}
	*size_bytes = foot.payload_bytes;
	return fd;
}

int inflated_open_recalled(const struct cache *cache, const struct file_range *from, uint64_t *size_bytes)
{
	uint8_t digest[DIGEST_BYTES];
	if (cache->fd < 0 || !range_digest_recall(cache, from, digest))
		return -ENOENT;
	return inflated_open_known(cache, digest, size_bytes);
}

/*
 * Opens the entry and reads its foot; one of an earlier boot is verified and from then on trusted. The entry's lock is held.
 * Returns the descriptor or -errno.
 */
static int open_verified(const struct cache *cache, const uint8_t digest[DIGEST_BYTES], struct foot *foot)
{
	const int fd = open_entry(cache, digest, foot);
	if (fd < 0 || is_safe(foot))
		return fd;
	const int ret = verify_payload(fd, foot);
	if (ret) {
		close(fd);
		return ret;
	}
	memset(foot->boot_id, 0, sizeof(foot->boot_id)); /* it is on the disk */
	rewrite_foot(cache, foot);
	return fd;
}

/* What an entry is made of. */
struct entry_source {
	const struct file_range *range;
	const struct codec *codec;
	const struct inflate_limits *limits;
};

/* Inflates to `to` and ends the file. */
static int write_entry(const struct cache *cache, const struct entry_source *from, bool with_diff_id, int to,
		       const uint8_t digest[DIGEST_BYTES], struct error *err)
{
	struct foot foot = { 0 };
	struct inflated_sums sums = { .with_diff_id = with_diff_id };
	int ret = inflate_file(from->range, from->codec, from->limits, to, cache->path, &sums, err);
	struct stat now;
	if (!ret && !from->range->in_cache && (fstat(from->range->fd, &now) || file_stamp(&now) != file_stamp(from->range->st)))
		ret = error_set(err, -EBUSY, "was changed while it was read: start again when it is complete");
	if (ret)
		return ret;
	memcpy(foot.magic, foot_magic, sizeof(foot_magic));
	memcpy(foot.digest, digest, DIGEST_BYTES);
	memcpy(foot.diff_id, sums.diff_id, DIGEST_BYTES);
	foot.payload_bytes = sums.size_bytes;
	foot.payload_checksum = sums.checksum;
	/* Where boots cannot be told apart, zeroes are the truth only after a sync. */
	if (!boot_id_read(foot.boot_id)) {
		memset(foot.boot_id, 0, sizeof(foot.boot_id));
		ret = fsync(to) ? -errno : 0;
	}
	if (!ret)
		ret = write_foot(to, &foot);
	return ret ? error_set(err, ret, "cannot write to the cache %s: %s", cache->path, strerror(-ret)) : 0;
}

/* A fifth of the file system for inflated layers. */
static void trim(const struct cache *cache)
{
	struct statvfs fs;
	if (fstatvfs(cache->fd, &fs) == 0)
		cache_trim(cache, "layers", (uint64_t)fs.f_blocks * fs.f_frsize / 5);
}

/* Inflates into the cache; the entry's lock is held. Returns a descriptor of the new file or -errno. */
static int make_entry(const struct cache *cache, const struct entry_source *from, bool with_diff_id,
		      const uint8_t digest[DIGEST_BYTES], struct foot *foot, struct error *err)
{
	char name[DIGEST_HEX_BYTES];
	struct cache_file file;
	digest_hex(digest, name);
	trim(cache);
	int ret = cache_create(cache, "layers", name, &file);
	if (ret)
		return error_set(err, ret, "cannot create a file in the cache %s: %s", cache->path, strerror(-ret));
	ret = write_entry(cache, from, with_diff_id, file.fd, digest, err);
	if (ret) {
		cache_drop(&file);
		return ret;
	}
	const int written = cache_publish(&file);
	if (written < 0)
		return error_set(err, written, "cannot name a file in the cache %s: %s", cache->path, strerror(-written));
	/* What the guest's disk reads from later must not be writable. */
	close(written);
	const int inflated = open_verified(cache, digest, foot);
	return inflated >= 0
		   ? inflated
		   : error_set(err, inflated, "cannot open layers/%s in the cache %s: %s", name, cache->path, strerror(-inflated));
}

/* Computes the diffID of an entry that was made when nobody asked for it. */
static int add_diff_id(const struct cache *cache, int fd, struct foot *foot, struct error *err)
{
	const struct file_range payload = { .fd = fd, .length = foot->payload_bytes };
	const int ret = digest_compute(&payload, foot->diff_id, err);
	if (!ret)
		rewrite_foot(cache, foot);
	return ret;
}

/* With the entry's lock, so that it is made once. Another run may have made it while this one waited. */
static int find_or_make(const struct cache *cache, const struct entry_source *from, bool with_diff_id,
			const uint8_t digest[DIGEST_BYTES], struct foot *foot, struct error *err)
{
	const int lock = cache_lock(cache, layer_lock_key(digest));
	if (lock < 0)
		return error_set(err, lock, "cannot lock the cache %s: %s", cache->path, strerror(-lock));
	int found = open_verified(cache, digest, foot);
	if (found < 0)
		found = make_entry(cache, from, with_diff_id, digest, foot, err);
	const int ret = found >= 0 && with_diff_id && !digest_is_told(foot->diff_id) ? add_diff_id(cache, found, foot, err) : 0;
	close(lock);
	if (!ret)
		return found;
	close(found);
	return ret;
}

int inflated_open(const struct cache *cache, const struct file_range *from, const struct codec *codec,
		  const struct expected_digests *expected, const struct inflate_limits *limits, int *inflated, uint64_t *size_bytes,
		  uint8_t digest[DIGEST_BYTES], struct error *err)
{
	const bool with_diff_id = digest_is_told(expected->diff_id);
	bool remembered;
	struct foot foot;
	int ret = range_digest_find(cache, from, digest, &remembered, err);
	if (!ret)
		ret = digest_compare(expected->digest, digest, "digest", err);
	if (ret)
		return ret;
	int found = open_entry(cache, digest, &foot);
	if (found >= 0 && (!is_safe(&foot) || (with_diff_id && !digest_is_told(foot.diff_id)))) {
		close(found);
		found = -EAGAIN;
	}
	if (found < 0)
		found = find_or_make(cache, &(struct entry_source){ from, codec, limits }, with_diff_id, digest, &foot, err);
	if (found < 0)
		return found;
	/* Whether a layer is refused does not depend on what the cache holds. */
	if (limits && foot.payload_bytes > limits->max_bytes)
		ret = inflate_too_large(limits->max_bytes, err);
	if (!ret)
		ret = digest_compare(expected->diff_id, foot.diff_id, "diffID", err);
	if (ret) {
		close(found);
		return ret;
	}
	if (!remembered)
		range_digest_remember(cache, from, digest);
	*inflated = found;
	*size_bytes = foot.payload_bytes;
	return 0;
}
