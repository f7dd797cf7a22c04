/*
 * SHA-256 of layer files, and remembering it: hashing is done once for each state of a file.
 */
#define OPENSSL_SUPPRESS_DEPRECATED /* the low-level calls need none of libcrypto's set-up: no providers, no configuration files */
#include <errno.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/iov.h"
#include "layers/cache.h"

#define DIGESTS_BYTES_MAX ((uint64_t)16 << 20)
#define HASH_CHUNK_BYTES ((size_t)256 << 10)

static const char memory_magic[8] = "trvmmid2";

/* CACHE/digests/DEV-INO */
struct memory {
	char magic[8];
	struct file_identity identity;
	uint64_t offset, length;
	uint8_t digest[DIGEST_BYTES];
	uint64_t checksum;     /* of the fields before */
};
_Static_assert(sizeof(struct memory) == 112, "a remembered digest is written as it is, without padding");

void digest_hex(const uint8_t digest[DIGEST_BYTES], char hex[DIGEST_HEX_BYTES])
{
	for (unsigned i = 0; i < DIGEST_BYTES; i++)
		snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

int digest_compare(const uint8_t expected[DIGEST_BYTES], const uint8_t found[DIGEST_BYTES], const char *what, struct error *err)
{
	if (!digest_is_told(expected) || memcmp(expected, found, DIGEST_BYTES) == 0)
		return 0;
	char expected_hex[DIGEST_HEX_BYTES], found_hex[DIGEST_HEX_BYTES];
	digest_hex(expected, expected_hex);
	digest_hex(found, found_hex);
	return error_set(err, -EBADMSG, "wrong %s: the image says sha256:%s, the contents are sha256:%s", what, expected_hex,
			 found_hex);
}

int digest_compute(const struct file_range *range, uint8_t digest[DIGEST_BYTES], struct error *err)
{
	uint8_t *buffer = malloc(HASH_CHUNK_BYTES);
	if (!buffer)
		return error_set(err, -ENOMEM, "out of memory");
	SHA256_CTX context;
	SHA256_Init(&context);
	uint64_t done = 0;
	ssize_t n = 0;
	while (done < range->length) {
		const uint64_t left = range->length - done;
		n = pread(range->fd, buffer, left < HASH_CHUNK_BYTES ? (size_t)left : HASH_CHUNK_BYTES,
			  (off_t)(range->offset + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		SHA256_Update(&context, buffer, (size_t)n);
		done += (uint64_t)n;
	}
	int ret = 0;
	if (n < 0)
		ret = error_set(err, -errno, "cannot read byte %llu: %s", (unsigned long long)done, strerror(errno));
	else if (done < range->length)
		ret = error_set(err, -EIO, "became shorter while it was read");
	SHA256_Final(digest, &context);
	free(buffer);
	return ret;
}

static void memory_name(const struct file_range *range, char *name, size_t size)
{
	const int n =
	    snprintf(name, size, "%llx-%llx", (unsigned long long)range->st->st_dev, (unsigned long long)range->st->st_ino);
	if (range->offset)
		snprintf(name + n, size - (size_t)n, "-%llx", (unsigned long long)range->offset);
}

bool range_digest_recall(const struct cache *cache, const struct file_range *range, uint8_t digest[DIGEST_BYTES])
{
	const struct file_identity identity = file_identity_of(range->st);
	char name[64];
	struct memory memory = { 0 };
	memory_name(range, name, sizeof(name));
	const int fd = cache_open_file(cache, "digests", name);
	if (fd < 0)
		return false;
	const int result = pread_full(fd, &memory, sizeof(memory), 0);
	close(fd);
	if (result < 0 || memcmp(memory.magic, memory_magic, sizeof(memory_magic)) != 0 ||
	    memory.checksum != cache_checksum(0, &memory, offsetof(struct memory, checksum)) || memory.offset != range->offset ||
	    memory.length != range->length || memcmp(&memory.identity, &identity, sizeof(identity)) != 0)
		return false;
	memcpy(digest, memory.digest, DIGEST_BYTES);
	return true;
}

void range_digest_remember(const struct cache *cache, const struct file_range *range, const uint8_t digest[DIGEST_BYTES])
{
	const struct file_identity identity = file_identity_of(range->st);
	if (!file_identity_is_settled(&identity))
		return;
	struct memory memory = { .identity = identity, .offset = range->offset, .length = range->length };
	memcpy(memory.magic, memory_magic, sizeof(memory_magic));
	memcpy(memory.digest, digest, DIGEST_BYTES);
	memory.checksum = cache_checksum(0, &memory, offsetof(struct memory, checksum));
	struct cache_file file;
	char name[64];
	memory_name(range, name, sizeof(name));
	const int lock = cache_lock(cache, identity.inode);
	if (lock < 0)
		return;
	cache_trim(cache, "digests", DIGESTS_BYTES_MAX);
	if (cache_create(cache, "digests", name, &file) == 0) {
		const bool written = pwrite(file.fd, &memory, sizeof(memory), 0) == (ssize_t)sizeof(memory);
		const int fd = written ? cache_publish(&file) : -1;
		if (fd >= 0)
			close(fd);
		cache_drop(&file);
	}
	close(lock);
}

int range_digest_find(const struct cache *cache, const struct file_range *range, uint8_t digest[DIGEST_BYTES], bool *remembered,
		      struct error *err)
{
	*remembered = range_digest_recall(cache, range, digest);
	return *remembered ? 0 : digest_compute(range, digest, err);
}
