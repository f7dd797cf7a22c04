/*
 * Fuzzes the opening of kept disks: the input is damage to the header and the map of one.
 *
 * The first byte says whether the checksums are made good afterwards (bit 0: header, bit 1: map sectors). Then each 3 bytes are one change:
 * where (2, little-endian, modulo what comes before the data), the new byte. What is accepted must then behave as a disk: be read, written,
 * zeroed and flushed, and be accepted again.
 */
#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "ext4gen/cow.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { BLOCKS = 5000, BLOCK = 4096, SECTOR = 512, MAP = 4096, DATA = 8192 };
#define SIZE ((uint64_t)BLOCKS * BLOCK)

static char path[64];

static int base_readv(const void *base, uint64_t offset, const struct iovec *iov, unsigned count)
{
	(void)base;
	(void)offset;
	for (unsigned i = 0; i < count; i++)
		memset(iov[i].iov_base, 0xBA, iov[i].iov_len);
	return 0;
}

static int base_digest(const void *base, uint8_t digest[COW_DIGEST_BYTES])
{
	(void)base;
	memset(digest, 7, COW_DIGEST_BYTES);
	return 0;
}

static int open_disk(struct cow **cow)
{
	struct cow_binding binding = { .digest = base_digest };
	struct error err = { "" };
	memset(binding.stamp, 9, sizeof(binding.stamp));
	const int rc = cow_open_kept(path, COW_CHANGE, SIZE, base_readv, &binding, NULL, cow, &err);
	assert((rc == 0) == (err.text[0] == '\0') && !strchr(err.text, '\n'));
	return rc;
}

static void forget(void)
{
	unlink(path);
}

/* A disk with all states, and what comes before its data. */
static void make_disk(uint8_t *before_data)
{
	static uint8_t bytes[64 * BLOCK];
	const struct iovec iov = { bytes, sizeof(bytes) };
	struct cow *cow;
	snprintf(path, sizeof(path), "/tmp/trvmm-fuzz-kept-%d", (int)getpid());
	forget();
	atexit(forget);
	int rc = open_disk(&cow);
	assert(rc == 0);
	rc = cow_writev(cow, 1000 * BLOCK, &iov, 1) | cow_zero(cow, 3000 * BLOCK, 100 * BLOCK) | cow_flush(cow);
	assert(rc == 0);
	cow_destroy(cow);
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	const ssize_t n = pread(fd, before_data, DATA, 0);
	assert(n == DATA);
	close(fd);
}

static void mend_checksum(uint8_t *sector, unsigned at, unsigned from)
{
	const uint32_t crc = (uint32_t)crc32(0, sector + from, SECTOR - 4);
	memcpy(sector + at, &crc, sizeof(crc));
}

static void use(struct cow *cow)
{
	static uint8_t bytes[SIZE];
	const struct iovec all = { bytes, SIZE }, some = { bytes, 3 * BLOCK + 512 };
	uint64_t end;
	int rc = cow_readv(cow, 0, &all, 1);
	assert(rc == 0);
	for (uint64_t offset = 0; offset < SIZE; offset = end)
		cow_run(cow, offset, &end);
	rc = cow_writev(cow, 1023 * BLOCK - 512, &some, 1) | cow_zero(cow, 2000 * BLOCK + 512, 50 * BLOCK) | cow_flush(cow);
	assert(rc == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t good[DATA];
	uint8_t damaged[DATA];
	if (!path[0])
		make_disk(good);
	if (size == 0)
		return 0;
	const uint8_t mend = *data++;
	memcpy(damaged, good, DATA);
	for (size--; size >= 3; data += 3, size -= 3)
		damaged[(data[0] | data[1] << 8) % DATA] = data[2];
	if (mend & 1)
		mend_checksum(damaged, SECTOR - 4, 0);
	for (unsigned at = MAP; mend & 2 && at < DATA; at += SECTOR)
		mend_checksum(damaged + at, 0, 4);
	const int fd = open(path, O_WRONLY | O_CLOEXEC);
	const ssize_t n = pwrite(fd, damaged, DATA, 0);
	assert(n == DATA);
	close(fd);
	struct cow *cow;
	if (open_disk(&cow) == 0) {
		use(cow);
		cow_destroy(cow);
		const int rc = open_disk(&cow);
		assert(rc == 0);
		cow_destroy(cow);
	}
	return 0;
}
