/* What a plan's bytes are known by, for whoever keeps something that belongs to them. */
#define OPENSSL_SUPPRESS_DEPRECATED /* the low-level calls need none of libcrypto's set-up */
#include "ext4gen/plan_internal.h"

#include <errno.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CHUNK_BYTES (1u << 20)

/* A file that was changed so short a time ago could change again without getting other times. */
#define SETTLED_AFTER_S 2

static void add_u64(SHA256_CTX *sha, uint64_t value)
{
	const le64 wire = le64_make(value);
	SHA256_Update(sha, &wire, sizeof(wire));
}

static int digest_all(const struct ext4_plan *plan, uint8_t *chunk, uint8_t digest[EXT4_DIGEST_BYTES])
{
	SHA256_CTX sha;
	SHA256_Init(&sha);
	add_u64(&sha, ext4_plan_size_bytes(plan));
	for (uint64_t offset = 0, end; ext4_plan_next_data(plan, offset, &offset, &end);) {
		add_u64(&sha, offset);
		add_u64(&sha, end);
		while (offset < end) {
			const struct iovec iov = { chunk, end - offset < CHUNK_BYTES ? (size_t)(end - offset) : CHUNK_BYTES };
			const int rc = ext4_plan_readv(plan, offset, &iov, 1);
			if (rc)
				return rc;
			SHA256_Update(&sha, iov.iov_base, iov.iov_len);
			offset += iov.iov_len;
		}
	}
	SHA256_Final(digest, &sha);
	return 0;
}

/* Copies of all sources, with zeroes in the place of the program's own; both arrays are for the caller to free in any case. */
static int blank_own_sources(struct tree *tree, struct tree_source **sources, uint8_t **zeroes)
{
	uint64_t most = 1;
	for (uint32_t i = 0; i < tree->source_count; i++)
		if (tree->sources[i].is_own && tree->sources[i].size_bytes > most)
			most = tree->sources[i].size_bytes;
	*zeroes = calloc(1, most);
	*sources = calloc((size_t)tree->source_count + 1, sizeof(**sources));
	if (!*zeroes || !*sources)
		return -ENOMEM;
	for (uint32_t i = 0; i < tree->source_count; i++) {
		(*sources)[i] = tree->sources[i];
		if (tree->sources[i].is_own)
			(*sources)[i].memory = *zeroes;
	}
	tree->sources = *sources;
	return 0;
}

int ext4_plan_digest(const struct ext4_plan *plan, uint8_t digest[EXT4_DIGEST_BYTES])
{
	struct tree tree = *plan->tree;
	struct ext4_plan blanked = *plan;
	struct tree_source *sources = NULL;
	uint8_t *zeroes = NULL, *chunk = malloc(CHUNK_BYTES);
	int rc = chunk ? blank_own_sources(&tree, &sources, &zeroes) : -ENOMEM;
	blanked.tree = &tree;
	if (rc == 0)
		rc = digest_all(&blanked, chunk, digest);
	free(sources);
	free(zeroes);
	free(chunk);
	return rc;
}

/* Adds what tells a file from what it was before. False: that cannot be told. */
static bool add_file(SHA256_CTX *sha, const struct stat *st)
{
	struct timespec now;
	if (clock_gettime(CLOCK_REALTIME, &now) < 0 || st->st_ctim.tv_sec + SETTLED_AFTER_S >= now.tv_sec)
		return false;
	const uint64_t facts[] = {
		st->st_dev,
		st->st_ino,
		(uint64_t)st->st_size,
		(uint64_t)st->st_mtim.tv_sec,
		(uint64_t)st->st_mtim.tv_nsec,
		(uint64_t)st->st_ctim.tv_sec,
		(uint64_t)st->st_ctim.tv_nsec,
	};
	for (size_t i = 0; i < sizeof(facts) / sizeof(facts[0]); i++)
		add_u64(sha, facts[i]);
	return true;
}

static bool add_source(SHA256_CTX *sha, const struct tree_source *source)
{
	struct stat st;
	if (source->fd >= 0)
		return fstat(source->fd, &st) == 0 && add_file(sha, &st);
	if (source->memory)
		SHA256_Update(sha, source->memory, source->size_bytes);
	return source->memory || source->size_bytes == 0;
}

bool ext4_plan_stamp(const struct ext4_plan *plan, uint8_t stamp[EXT4_DIGEST_BYTES])
{
	const struct tree *tree = plan->tree;
	SHA256_CTX sha;
	struct stat st;

	SHA256_Init(&sha);
	/* The program: another one may lay the same tree out in another way. */
	if (stat("/proc/self/exe", &st) < 0 || !add_file(&sha, &st))
		return false;
	/* The superblock tells everything else that a file system was made with. */
	const struct iovec super = { (uint8_t[EXT4_BLOCK_BYTES]){ 0 }, EXT4_BLOCK_BYTES };
	if (ext4_plan_readv(plan, 0, &super, 1) < 0)
		return false;
	SHA256_Update(&sha, super.iov_base, super.iov_len);
	const struct iovec arrays[] = {
		{ tree->entries, tree->entry_count * sizeof(*tree->entries) },
		{ tree->inodes, tree->inode_count * sizeof(*tree->inodes) },
		{ tree->extents, tree->extent_count * sizeof(*tree->extents) },
		{ tree->xattrs, tree->xattr_count * sizeof(*tree->xattrs) },
		{ tree->strings, tree->string_bytes },
	};
	for (size_t i = 0; i < sizeof(arrays) / sizeof(arrays[0]); i++) {
		add_u64(&sha, arrays[i].iov_len);
		SHA256_Update(&sha, arrays[i].iov_base, arrays[i].iov_len);
	}
	for (uint32_t i = 0; i < tree->source_count; i++)
		if (!add_source(&sha, &tree->sources[i]))
			return false;
	SHA256_Final(stamp, &sha);
	return true;
}
