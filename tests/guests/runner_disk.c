/* The runner's disk; see runner.h. */
#include "tests/guests/runner.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/guests/world.h"

static void complain(struct test_disk *disk, const char *what, uint64_t offset, uint64_t length)
{
	if (!disk->complaint[0])
		snprintf(disk->complaint, sizeof(disk->complaint), "%s: offset %llu, length %llu", what, (unsigned long long)offset,
			 (unsigned long long)length);
}

static bool vector_in_guest(const struct guest_mem *mem, const struct iovec *iov)
{
	for (unsigned i = 0; i < mem->count; i++) {
		const struct guest_region *region = &mem->regions[i];
		const uintptr_t at = (uintptr_t)iov->iov_base, start = (uintptr_t)region->host;
		if (at >= start && at - start < region->size_bytes && iov->iov_len <= region->size_bytes - (at - start))
			return true;
	}
	return false;
}

/* Checks what every operation has to keep; false: the range cannot be used. */
static bool check(struct test_disk *disk, uint64_t offset, uint64_t length, bool changes)
{
	const uint64_t size = disk->disk.size_bytes;
	if (offset > size || length > size - offset) {
		complain(disk, "a range beyond the disk", offset, length);
		return false;
	}
	if (offset % WORLD_SECTOR_BYTES || length % WORLD_SECTOR_BYTES)
		complain(disk, "a range of broken sectors", offset, length);
	if (changes && disk->disk.read_only)
		complain(disk, "a change of a read-only disk", offset, length);
	const uint64_t first = offset / WORLD_SECTOR_BYTES, end = (offset + length) / WORLD_SECTOR_BYTES;
	if (changes && length && (first < disk->writable_first || end > disk->writable_end))
		complain(disk, "a change that no guest asked for", offset, length);
	return true;
}

static int start(struct test_disk *disk, uint64_t offset, uint64_t length)
{
	if (pthread_mutex_trylock(&disk->busy))
		complain(disk, "a second thread", offset, length);
	else
		pthread_mutex_unlock(&disk->busy);
	pthread_mutex_lock(&disk->busy);
	const uint64_t first = offset / WORLD_SECTOR_BYTES, end = (offset + length) / WORLD_SECTOR_BYTES;
	if (first >= WORLD_SLOW_FIRST && first < WORLD_SLOW_END)
		usleep(WORLD_SLOW_US);
	return !disk->disk.read_only && first <= WORLD_BAD_SECTOR && end > WORLD_BAD_SECTOR ? -EIO : 0;
}

static void finish(struct test_disk *disk)
{
	pthread_mutex_unlock(&disk->busy);
}

static int transfer(struct disk *base, uint64_t offset, const struct iovec *iov, unsigned count, bool write)
{
	struct test_disk *disk = (struct test_disk *)base;
	uint64_t length = 0;

	for (unsigned i = 0; i < count; i++) {
		if (disk->mem && !vector_in_guest(disk->mem, &iov[i]))
			complain(disk, "a vector outside guest RAM", offset, iov[i].iov_len);
		length += iov[i].iov_len;
	}
	int result = start(disk, offset, length);
	if (!check(disk, offset, length, write))
		result = -EIO;
	uint8_t *at = disk->bytes + offset;
	for (unsigned i = 0; i < count && result == 0; i++) {
		if (write)
			memcpy(at, iov[i].iov_base, iov[i].iov_len);
		else
			memcpy(iov[i].iov_base, at, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	finish(disk);
	return result;
}

static int test_disk_readv(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned count)
{
	return transfer(disk, offset, iov, count, false);
}

static int test_disk_writev(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned count)
{
	return transfer(disk, offset, iov, count, true);
}

static int test_disk_flush(struct disk *disk)
{
	(void)disk;
	return 0;
}

static int test_disk_zero(struct disk *base, uint64_t offset, uint64_t length)
{
	struct test_disk *disk = (struct test_disk *)base;
	int result = start(disk, offset, length);
	if (!check(disk, offset, length, true))
		result = -EIO;
	if (result == 0)
		memset(disk->bytes + offset, 0, length);
	finish(disk);
	return result;
}

static int test_disk_write_zeroes(struct disk *disk, uint64_t offset, uint64_t length, bool may_unmap)
{
	(void)may_unmap;
	return test_disk_zero(disk, offset, length);
}

static void test_disk_destroy(struct disk *base)
{
	struct test_disk *disk = (struct test_disk *)base;
	free(disk->bytes);
	free(disk);
}

static const struct disk_ops test_disk_ops = {
	.readv = test_disk_readv,
	.writev = test_disk_writev,
	.flush = test_disk_flush,
	.discard = test_disk_zero,
	.write_zeroes = test_disk_write_zeroes,
	.destroy = test_disk_destroy,
};

static void fill_sector(const struct test_disk *disk, uint64_t sector, uint64_t words[WORLD_SECTOR_WORDS])
{
	for (unsigned i = 0; i < WORLD_SECTOR_WORDS; i++)
		words[i] = world_word(sector + disk->seed, i);
}

int test_disk_create(uint64_t sectors, uint64_t seed, bool read_only, const char *id, struct test_disk **result)
{
	struct test_disk *disk = calloc(1, sizeof(*disk));
	uint8_t *bytes = malloc(sectors * WORLD_SECTOR_BYTES);
	if (!disk || !bytes) {
		free(disk);
		free(bytes);
		return -ENOMEM;
	}
	disk->disk = (struct disk){ .ops = &test_disk_ops, .size_bytes = sectors * WORLD_SECTOR_BYTES, .read_only = read_only };
	memcpy(disk->disk.id, id, strnlen(id, DISK_ID_BYTES));
	disk->bytes = bytes;
	disk->seed = seed;
	pthread_mutex_init(&disk->busy, NULL);
	for (uint64_t sector = 0; sector < sectors; sector++) {
		uint64_t words[WORLD_SECTOR_WORDS];
		fill_sector(disk, sector, words);
		memcpy(bytes + sector * WORLD_SECTOR_BYTES, words, sizeof(words));
	}
	*result = disk;
	return 0;
}

uint64_t test_disk_changed_sector(const struct test_disk *disk)
{
	for (uint64_t sector = 0; sector < disk->disk.size_bytes / WORLD_SECTOR_BYTES; sector++) {
		uint64_t words[WORLD_SECTOR_WORDS];
		if (sector >= disk->writable_first && sector < disk->writable_end)
			continue;
		fill_sector(disk, sector, words);
		if (memcmp(disk->bytes + sector * WORLD_SECTOR_BYTES, words, sizeof(words)))
			return sector;
	}
	return UINT64_MAX;
}
