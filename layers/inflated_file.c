/* The file of an inflated layer in the cache; see inflated_file_internal.h. */
#include "layers/inflated_file_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/crc32c.h"
#include "base/iov.h"

#define PAYLOAD_ALIGN 4096u

static const char foot_magic[8] = "trvmmly3";

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

static uint64_t sums_offset(uint64_t payload_bytes)
{
	return (payload_bytes + PAYLOAD_ALIGN - 1) / PAYLOAD_ALIGN * PAYLOAD_ALIGN;
}

static uint64_t chunk_count(uint64_t payload_bytes)
{
	return (payload_bytes + CHUNK_BYTES - 1) / CHUNK_BYTES;
}

static size_t chunk_length(uint64_t payload_bytes, uint64_t chunk)
{
	const uint64_t left = payload_bytes - chunk * CHUNK_BYTES;
	return left < CHUNK_BYTES ? (size_t)left : CHUNK_BYTES;
}

static uint64_t foot_offset(uint64_t payload_bytes)
{
	return sums_offset(payload_bytes) + chunk_count(payload_bytes) * sizeof(uint32_t);
}

/* Never that of zeroes by accident: as everywhere else the CRC begins with ones and is inverted. */
uint32_t chunk_sum(const void *bytes, size_t length)
{
	return ~crc32c(~0u, bytes, length);
}

int inflated_file_write_foot(int fd, struct foot *foot)
{
	foot->checksum = cache_checksum(0, foot, offsetof(struct foot, checksum));
	const int ret = pwrite_full(fd, foot, sizeof(*foot), foot_offset(foot->payload_bytes));
	const struct timespec times[2] = { { 0, UTIME_OMIT }, { expected_mtime(foot->digest), 0 } };
	return ret ? ret : futimens(fd, times) ? -errno : 0;
}

int inflated_file_end(int fd, const struct payload_sums *sums, const uint8_t digest[DIGEST_BYTES], struct foot *foot)
{
	*foot = (struct foot){ .payload_bytes = sums->payload_bytes };
	memcpy(foot->magic, foot_magic, sizeof(foot_magic));
	memcpy(foot->digest, digest, DIGEST_BYTES);
	memcpy(foot->diff_id, sums->diff_id, DIGEST_BYTES);
	foot->sums_checksum = cache_checksum(0, sums->chunks.data, sums->chunks.used);
	int ret = sums->chunks.used ? pwrite_full(fd, sums->chunks.data, sums->chunks.used, sums_offset(sums->payload_bytes)) : 0;
	/* Where boots cannot be told apart, zeroes are the truth only after a sync. */
	if (!ret && !boot_id_read(foot->boot_id)) {
		memset(foot->boot_id, 0, sizeof(foot->boot_id));
		ret = fsync(fd) ? -errno : 0;
	}
	return ret ? ret : inflated_file_write_foot(fd, foot);
}

/* The foot, wherever the file comes from. */
static int read_foot(int fd, struct stat *st, struct foot *foot)
{
	if (fstat(fd, st) || !S_ISREG(st->st_mode) || st->st_size < (off_t)sizeof(*foot) ||
	    pread_full(fd, foot, sizeof(*foot), (uint64_t)st->st_size - sizeof(*foot)) < 0 ||
	    memcmp(foot->magic, foot_magic, sizeof(foot_magic)) != 0 ||
	    foot->checksum != cache_checksum(0, foot, offsetof(struct foot, checksum)) ||
	    foot->payload_bytes > (uint64_t)st->st_size ||
	    foot_offset(foot->payload_bytes) + sizeof(*foot) != (uint64_t)st->st_size)
		return -EBADMSG;
	return 0;
}

int inflated_file_read_foot(int fd, const uint8_t digest[DIGEST_BYTES], struct foot *foot)
{
	struct stat st;
	if (read_foot(fd, &st, foot) || memcmp(foot->digest, digest, DIGEST_BYTES) != 0 ||
	    st.st_mtim.tv_sec != expected_mtime(digest) || st.st_mtim.tv_nsec != 0)
		return -EBADMSG;
	cache_touch(fd, &st);
	return 0;
}

bool inflated_file_is_safe(const struct foot *foot)
{
	static const uint8_t on_disk[BOOT_ID_BYTES];
	uint8_t now[BOOT_ID_BYTES];
	return memcmp(foot->boot_id, on_disk, BOOT_ID_BYTES) == 0 ||
	       (boot_id_read(now) && memcmp(foot->boot_id, now, BOOT_ID_BYTES) == 0);
}

/* ---- chunk by chunk ---------------------------------------------------------------------------------------------------------- */

struct chunk_check {
	uint64_t payload_bytes;
	uint64_t checked[]; /* a bit for each chunk; atomic */
};

static struct chunk_check *create(uint64_t payload_bytes)
{
	struct chunk_check *check = calloc(1, sizeof(*check) + (size_t)(chunk_count(payload_bytes) + 63) / 64 * sizeof(uint64_t));
	if (check)
		check->payload_bytes = payload_bytes;
	return check;
}

int chunk_check_create(int fd, struct chunk_check **check)
{
	struct stat st;
	struct foot foot;
	const int ret = read_foot(fd, &st, &foot);
	if (ret)
		return ret;
	*check = create(foot.payload_bytes);
	return *check ? 0 : -ENOMEM;
}

void chunk_check_destroy(struct chunk_check *check)
{
	free(check);
}

/* The sum lies in the file, too: reading four bytes costs little beside the chunk, and no start reads what no guest asks for. */
static int check_chunk(struct chunk_check *check, int fd, uint64_t chunk, uint8_t *buffer)
{
	const size_t length = chunk_length(check->payload_bytes, chunk);
	uint32_t sum;
	int ret = pread_full(fd, buffer, length, chunk * CHUNK_BYTES);
	if (!ret)
		ret = pread_full(fd, &sum, sizeof(sum), sums_offset(check->payload_bytes) + chunk * sizeof(sum));
	if (ret)
		return ret;
	if (sum == chunk_sum(buffer, length)) {
		__atomic_fetch_or(&check->checked[chunk / 64], (uint64_t)1 << chunk % 64, __ATOMIC_RELEASE);
		return 0;
	}
	/* A time that no good entry has; changing it needs the owner, not a descriptor for writing. */
	const struct timespec times[2] = { { 0, UTIME_OMIT }, { 0, UTIME_NOW } };
	futimens(fd, times);
	return -EBADMSG;
}

int chunk_check_range(struct chunk_check *check, int fd, uint64_t offset, uint64_t length)
{
	uint8_t *buffer = NULL;
	int ret = 0;
	if (!length)
		return 0;
	if (offset > check->payload_bytes || length > check->payload_bytes - offset)
		return -EIO;
	for (uint64_t chunk = offset / CHUNK_BYTES; !ret && chunk <= (offset + length - 1) / CHUNK_BYTES; chunk++) {
		if (__atomic_load_n(&check->checked[chunk / 64], __ATOMIC_ACQUIRE) >> chunk % 64 & 1)
			continue;
		if (!buffer)
			buffer = malloc(CHUNK_BYTES);
		ret = buffer ? check_chunk(check, fd, chunk, buffer) : -ENOMEM;
	}
	free(buffer);
	return ret;
}

/* All sums are read at once, and checked themselves: a good payload with a sum that is lost would be an error later. */
static int verify_sums(int fd, const struct foot *foot)
{
	struct array sums = { 0 };
	const size_t bytes = (size_t)chunk_count(foot->payload_bytes) * sizeof(uint32_t);
	void *at = array_extend(&sums, bytes);
	int ret = at ? pread_full(fd, at, bytes, sums_offset(foot->payload_bytes)) : -ENOMEM;
	if (!ret && cache_checksum(0, at, bytes) != foot->sums_checksum)
		ret = -EBADMSG;
	array_free(&sums);
	return ret;
}

int inflated_file_verify(int fd, const struct foot *foot)
{
	struct chunk_check *check = create(foot->payload_bytes);
	int ret = check ? verify_sums(fd, foot) : -ENOMEM;
	if (!ret)
		ret = chunk_check_range(check, fd, 0, foot->payload_bytes);
	chunk_check_destroy(check);
	return ret;
}
