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

#include "layers/cache.h"

#define DIGESTS_BYTES_MAX ((uint64_t)16 << 20)
#define HASH_CHUNK_BYTES ((size_t)256 << 10)

static const char memory_magic[8] = "trvmmid1";

/* CACHE/digests/DEV-INO */
struct memory {
	char magic[8];
	struct file_identity identity;
	uint8_t digest[DIGEST_BYTES];
	uint64_t checksum;     /* of the fields before */
};
_Static_assert(sizeof(struct memory) == 96, "a remembered digest is written as it is, without padding");

static int hash_file(int fd, uint8_t digest[DIGEST_BYTES], struct error *err)
{
	uint8_t *buffer = malloc(HASH_CHUNK_BYTES);
	if (!buffer)
		return error_set(err, -ENOMEM, "out of memory");
	SHA256_CTX context;
	SHA256_Init(&context);
	off_t offset = 0;
	ssize_t n;
	while ((n = pread(fd, buffer, HASH_CHUNK_BYTES, offset)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			break;
		SHA256_Update(&context, buffer, (size_t)n);
		offset += n;
	}
	const int ret = n < 0 ? error_set(err, -errno, "cannot read byte %lld: %s", (long long)offset, strerror(errno)) : 0;
	SHA256_Final(digest, &context);
	free(buffer);
	return ret;
}

static void memory_name(const struct file_identity *identity, char *name, size_t size)
{
	snprintf(name, size, "%llx-%llx", (unsigned long long)identity->device, (unsigned long long)identity->inode);
}

/* The digest that the file had when it last looked as it does now. */
static bool recall_digest(const struct cache *cache, const struct file_identity *identity, uint8_t digest[DIGEST_BYTES])
{
	char name[64];
	struct memory memory;
	memory_name(identity, name, sizeof(name));
	const int fd = cache_open_file(cache, "digests", name);
	if (fd < 0)
		return false;
	const ssize_t n = pread(fd, &memory, sizeof(memory), 0);
	close(fd);
	if (n != (ssize_t)sizeof(memory) || memcmp(memory.magic, memory_magic, sizeof(memory_magic)) != 0 ||
	    memory.checksum != cache_checksum(0, &memory, offsetof(struct memory, checksum)) ||
	    memcmp(&memory.identity, identity, sizeof(*identity)) != 0)
		return false;
	memcpy(digest, memory.digest, DIGEST_BYTES);
	return true;
}

void digest_remember(const struct cache *cache, const struct stat *st, const uint8_t digest[DIGEST_BYTES])
{
	const struct file_identity identity = file_identity_of(st);
	if (!file_identity_is_settled(&identity))
		return;
	struct memory memory = { .identity = identity };
	memcpy(memory.magic, memory_magic, sizeof(memory_magic));
	memcpy(memory.digest, digest, DIGEST_BYTES);
	memory.checksum = cache_checksum(0, &memory, offsetof(struct memory, checksum));
	struct cache_file file;
	char name[64];
	memory_name(&identity, name, sizeof(name));
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

int digest_find(const struct cache *cache, int fd, const struct stat *st, uint8_t digest[DIGEST_BYTES], bool *remembered,
		struct error *err)
{
	const struct file_identity identity = file_identity_of(st);
	*remembered = recall_digest(cache, &identity, digest);
	return *remembered ? 0 : hash_file(fd, digest, err);
}
