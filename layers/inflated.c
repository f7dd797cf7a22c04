/*
 * Inflated layers in the cache: found, or made. What their files look like, and how damage is noticed: inflated_file_internal.h. An
 * entry that is not what it should be is made anew.
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
#include "layers/inflate_internal.h"
#include "layers/inflated_file_internal.h"

/* Writes what was learned into the foot of an entry. Failing leaves it as it is, or to be made anew. */
static void rewrite_foot(const struct cache *cache, struct foot *foot)
{
	char path[128] = "layers/";
	digest_hex(foot->digest, path + strlen(path));
	const int fd = openat(cache->fd, path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		return;
	inflated_file_write_foot(fd, foot);
	close(fd);
}

static int open_entry(const struct cache *cache, const uint8_t digest[DIGEST_BYTES], struct foot *foot)
{
	char name[DIGEST_HEX_BYTES];
	digest_hex(digest, name);
	const int fd = cache_open_file(cache, "layers", name);
	if (fd < 0)
		return fd;
	const int ret = inflated_file_read_foot(fd, digest, foot);
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
	if (!inflated_file_is_safe(&foot)) {
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

bool inflated_is_damaged(const struct cache *cache, const uint8_t digest[DIGEST_BYTES])
{
	struct foot foot;
	const int fd = open_entry(cache, digest, &foot);
	if (fd < 0)
		return true;
	const bool damaged = inflated_file_verify(fd, &foot) == -EBADMSG;
	close(fd);
	return damaged;
}

/*
 * Opens the entry and reads its foot; one of an earlier boot is verified and from then on trusted. The entry's lock is held.
 * Returns the descriptor or -errno.
 */
static int open_verified(const struct cache *cache, const uint8_t digest[DIGEST_BYTES], struct foot *foot)
{
	const int fd = open_entry(cache, digest, foot);
	if (fd < 0 || inflated_file_is_safe(foot))
		return fd;
	const int ret = inflated_file_verify(fd, foot);
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

static struct growth *growth_of(const struct entry_source *from)
{
	return from->limits ? from->limits->growth : NULL;
}

static int cache_error(const struct cache *cache, int code, const char *what, struct error *err)
{
	return error_set(err, code, "cannot %s the cache %s: %s", what, cache->path, strerror(-code));
}

static int check_unchanged(const struct file_range *range, struct error *err)
{
	struct stat now;
	if (range->in_cache || (fstat(range->fd, &now) == 0 && file_stamp(&now) == file_stamp(range->st)))
		return 0;
	return error_set(err, -EBUSY, "was changed while it was read: start again when it is complete");
}

/* Inflates to `to`, and makes sure that the file stayed as it was meanwhile. */
static int inflate_entry(const struct entry_source *from, const struct inflate_target *to,
			 struct payload_sums *sums, struct error *err)
{
	const int ret = inflate_file(from->range, from->codec, from->limits, to, sums, err);
	return ret ? ret : check_unchanged(from->range, err);
}

/* Ends a file that holds what was inflated. */
static int end_entry(const struct cache *cache, const struct payload_sums *sums, int to, const uint8_t digest[DIGEST_BYTES],
		     struct error *err)
{
	struct foot foot;
	const int ret = inflated_file_end(to, sums, digest, &foot);
	return ret ? cache_error(cache, ret, "write to", err) : 0;
}

/* A fifth of the file system for inflated layers. */
static void trim(const struct cache *cache)
{
	struct statvfs fs;
	if (fstatvfs(cache->fd, &fs) == 0)
		cache_trim(cache, "layers", (uint64_t)fs.f_blocks * fs.f_frsize / 5);
}

/* Names a complete file, which is gone afterwards in any case; the entry's lock is held. Returns a descriptor of the entry or -errno. */
static int publish_entry(const struct cache *cache, struct cache_file *file, const uint8_t digest[DIGEST_BYTES], struct foot *foot,
			 struct error *err)
{
	const int written = cache_publish(file);
	if (written < 0)
		return cache_error(cache, written, "name a file in", err);
	/* What the guest's disk reads from later must not be writable. */
	close(written);
	const int inflated = open_verified(cache, digest, foot);
	return inflated >= 0 ? inflated : cache_error(cache, inflated, "open a file in", err);
}

/* Inflates into the cache; the entry's lock is held. Returns a descriptor of the new file or -errno. */
static int make_entry(const struct cache *cache, const struct entry_source *from, bool with_diff_id,
		      const uint8_t digest[DIGEST_BYTES], struct foot *foot, struct error *err)
{
	char name[DIGEST_HEX_BYTES];
	struct cache_file file;
	struct payload_sums sums = { .payload_bytes = 0 };
	digest_hex(digest, name);
	trim(cache);
	int ret = cache_create(cache, "layers", name, &file);
	if (ret)
		return cache_error(cache, ret, "create a file in", err);
	const struct inflate_target to = { file.fd, cache->path, growth_of(from), .with_diff_id = with_diff_id };
	ret = inflate_entry(from, &to, &sums, err);
	if (!ret)
		ret = end_entry(cache, &sums, file.fd, digest, err);
	array_free(&sums.chunks);
	if (!ret)
		return publish_entry(cache, &file, digest, foot, err);
	cache_drop(&file);
	return ret;
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
		return cache_error(cache, lock, "lock", err);
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

/* ---- a file whose digest nobody knows ---------------------------------------------------------------------------------------- */

/* Names what was inflated when the digest was not known yet, unless the cache has the same from another file. */
static int publish_unknown(const struct cache *cache, struct cache_file *file, const struct payload_sums *sums, struct foot *foot,
			   struct error *err)
{
	const int lock = cache_lock(cache, layer_lock_key(sums->digest));
	if (lock < 0)
		return cache_error(cache, lock, "lock", err);
	int found = open_verified(cache, sums->digest, foot);
	if (found >= 0 && digest_is_told(sums->diff_id) && !digest_is_told(foot->diff_id)) {
		memcpy(foot->diff_id, sums->diff_id, DIGEST_BYTES);
		rewrite_foot(cache, foot);
	}
	if (found < 0) {
		digest_hex(sums->digest, file->name);
		found = end_entry(cache, sums, file->fd, sums->digest, err);
		if (!found)
			found = publish_entry(cache, file, sums->digest, foot, err);
	}
	close(lock);
	return found;
}

/* A file that is not what the image says is not to be judged by its contents. */
static int find_cause(const struct file_range *range, const struct expected_digests *expected, int code, struct error *err)
{
	struct error other = { "" };
	uint8_t digest[DIGEST_BYTES];
	if (!digest_is_told(expected->digest) || digest_compute(range, digest, &other) ||
	    !digest_compare(expected->digest, digest, "digest", &other))
		return code;
	return error_set(err, -EBADMSG, "%s", other.text);
}

/*
 * Inflates and hashes the file at once, under a lock of the file's own. Returns a descriptor of the entry; -EAGAIN when that is not
 * possible here or not needed any more, or another -errno with a line.
 */
static int make_unknown(const struct cache *cache, const struct entry_source *from, const struct expected_digests *expected,
			uint8_t digest[DIGEST_BYTES], struct foot *foot, struct error *err)
{
	struct payload_sums sums = { .payload_bytes = 0 };
	struct cache_file file = { .fd = -1, .directory = -1 };
	int ret = -EAGAIN;
	const int lock = cache_lock(cache, file_identity_number(from->range->st) ^ from->range->offset);
	if (lock < 0)
		return ret;
	/* Another run may have been faster. A temporary name would have to be the entry's. */
	const bool known = range_digest_recall(cache, from->range, digest);
	if (!known)
		trim(cache);
	if (!known && !cache_create(cache, "layers", "unknown", &file) && !file.named) {
		const struct inflate_target to = {
			file.fd, cache->path, growth_of(from), .with_digest = true, .with_diff_id = digest_is_told(expected->diff_id)
		};
		ret = inflate_entry(from, &to, &sums, err);
		ret = ret ? find_cause(from->range, expected, ret, err) : digest_compare(expected->digest, sums.digest, "digest", err);
		if (!ret)
			ret = publish_unknown(cache, &file, &sums, foot, err);
		if (ret >= 0) {
			memcpy(digest, sums.digest, DIGEST_BYTES);
			range_digest_remember(cache, from->range, digest);
		}
		array_free(&sums.chunks);
	}
	cache_drop(&file);
	close(lock);
	return ret;
}

/* ---- all together ------------------------------------------------------------------------------------------------------------ */

/* An entry that is there and has all that is asked for. Returns the descriptor or -errno. */
static int open_ready(const struct cache *cache, bool with_diff_id, const uint8_t digest[DIGEST_BYTES], struct foot *foot)
{
	const int found = open_entry(cache, digest, foot);
	if (found >= 0 && (!inflated_file_is_safe(foot) || (with_diff_id && !digest_is_told(foot->diff_id)))) {
		close(found);
		return -EAGAIN;
	}
	return found;
}

/* Whether the cache may have what an image names: then hashing the file is all that is to be done. */
static bool has_entry(const struct cache *cache, const uint8_t digest[DIGEST_BYTES])
{
	struct foot foot;
	const int found = digest_is_told(digest) ? open_entry(cache, digest, &foot) : -ENOENT;
	if (found >= 0)
		close(found);
	return found >= 0;
}

static int open_or_make(const struct cache *cache, const struct entry_source *from, const struct expected_digests *expected,
			uint8_t digest[DIGEST_BYTES], struct foot *foot, struct error *err)
{
	const bool with_diff_id = digest_is_told(expected->diff_id);
	bool remembered = range_digest_recall(cache, from->range, digest);
	if (!remembered && !has_entry(cache, expected->digest)) {
		const int made = make_unknown(cache, from, expected, digest, foot, err);
		if (made != -EAGAIN)
			return made;
	}
	int ret = range_digest_find(cache, from->range, digest, &remembered, err);
	if (!ret)
		ret = digest_compare(expected->digest, digest, "digest", err);
	if (ret)
		return ret;
	int found = open_ready(cache, with_diff_id, digest, foot);
	if (found < 0)
		found = find_or_make(cache, from, with_diff_id, digest, foot, err);
	if (found >= 0 && !remembered)
		range_digest_remember(cache, from->range, digest);
	return found;
}

int inflated_open(const struct cache *cache, const struct file_range *from, const struct codec *codec,
		  const struct expected_digests *expected, const struct inflate_limits *limits, int *inflated, uint64_t *size_bytes,
		  uint8_t digest[DIGEST_BYTES], struct error *err)
{
	struct foot foot = { .payload_bytes = 0 };
	const struct entry_source source = { from, codec, limits };
	const int found = open_or_make(cache, &source, expected, digest, &foot, err);
	if (found < 0)
		return found;
	/* Whether a layer is refused does not depend on what the cache holds. */
	int ret = limits && foot.payload_bytes > limits->max_bytes ? inflate_too_large(limits->max_bytes, err) : 0;
	if (!ret)
		ret = digest_compare(expected->diff_id, foot.diff_id, "diffID", err);
	if (ret) {
		close(found);
		return ret;
	}
	*inflated = found;
	*size_bytes = foot.payload_bytes;
	return 0;
}
