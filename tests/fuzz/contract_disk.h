/*
 * A small disk in memory that asserts the contract of disk.h: what a block device hands on lies on the disk, in whole sectors, in guest
 * RAM, and changes nothing that is read-only.
 */
#ifndef TRVMM_TESTS_FUZZ_CONTRACT_DISK_H
#define TRVMM_TESTS_FUZZ_CONTRACT_DISK_H

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/iov.h"
#include "devices/virtio-blk/disk.h"
#include "tests/unit/fake_driver.h"

#define CONTRACT_DISK_BYTES (64u * DISK_SECTOR_BYTES)
/* Accesses that begin here fail. */
#define CONTRACT_BAD_BYTE (9u * DISK_SECTOR_BYTES)

struct contract_disk {
	struct disk disk; /* first */
	const struct fake_ram *ram;
	uint8_t bytes[CONTRACT_DISK_BYTES];
};

static inline int contract_check(const struct disk *disk, uint64_t offset, uint64_t length, bool changes)
{
	assert(offset % DISK_SECTOR_BYTES == 0 && length % DISK_SECTOR_BYTES == 0);
	assert(offset <= CONTRACT_DISK_BYTES && length <= CONTRACT_DISK_BYTES - offset);
	assert(!changes || !disk->read_only);
	return offset == CONTRACT_BAD_BYTE ? -EIO : 0;
}

static inline uint64_t contract_vector(const struct contract_disk *disk, const struct iovec *iov, unsigned count)
{
	uint64_t length = 0;
	for (unsigned i = 0; i < count; i++) {
		const uint8_t *start = iov[i].iov_base;
		assert(start >= disk->ram->bytes && iov[i].iov_len <= disk->ram->size_bytes);
		assert((size_t)(start - disk->ram->bytes) <= disk->ram->size_bytes - iov[i].iov_len);
		length += iov[i].iov_len;
	}
	return length;
}

static inline int contract_readv(struct disk *base, uint64_t offset, const struct iovec *iov, unsigned count)
{
	const struct contract_disk *disk = (const struct contract_disk *)base;
	const uint64_t length = contract_vector(disk, iov, count);
	const int result = contract_check(base, offset, length, false);
	if (result == 0)
		iov_copy_in(iov, count, 0, disk->bytes + offset, length);
	return result;
}

static inline int contract_writev(struct disk *base, uint64_t offset, const struct iovec *iov, unsigned count)
{
	struct contract_disk *disk = (struct contract_disk *)base;
	const uint64_t length = contract_vector(disk, iov, count);
	const int result = contract_check(base, offset, length, true);
	if (result == 0)
		iov_copy_out(iov, count, 0, disk->bytes + offset, length);
	return result;
}

static inline int contract_flush(struct disk *disk)
{
	(void)disk;
	return 0;
}

static inline int contract_discard(struct disk *base, uint64_t offset, uint64_t length)
{
	const int result = contract_check(base, offset, length, true);
	if (result == 0)
		memset(((struct contract_disk *)base)->bytes + offset, 0, length);
	return result;
}

static inline int contract_write_zeroes(struct disk *disk, uint64_t offset, uint64_t length, bool may_unmap)
{
	(void)may_unmap;
	return contract_discard(disk, offset, length);
}

static inline void contract_destroy(struct disk *disk)
{
	(void)disk; /* it is its user's */
}

static inline void contract_transfer(struct disk *disk, struct disk_transfer *transfers, unsigned count)
{
	assert(count > 0 && count <= DISK_TRANSFERS_MAX);
	for (unsigned i = 0; i < count; i++) {
		struct disk_transfer *t = &transfers[i];
		t->result = (t->write ? contract_writev : contract_readv)(disk, t->offset, t->iov, t->count);
	}
}

static const struct disk_ops contract_ops = {
	.readv = contract_readv,
	.writev = contract_writev,
	.flush = contract_flush,
	.discard = contract_discard,
	.write_zeroes = contract_write_zeroes,
	.destroy = contract_destroy,
};

/* For one that takes several requests at once. */
static const struct disk_ops contract_transfer_ops = {
	.readv = contract_readv,
	.writev = contract_writev,
	.transfer = contract_transfer,
	.flush = contract_flush,
	.discard = contract_discard,
	.write_zeroes = contract_write_zeroes,
	.destroy = contract_destroy,
};

static inline void contract_disk_init(struct contract_disk *disk, const struct fake_ram *ram, bool read_only, bool several)
{
	memset(disk, 0, sizeof(*disk));
	const struct disk_ops *ops = several ? &contract_transfer_ops : &contract_ops;
	disk->disk = (struct disk){ .ops = ops, .size_bytes = CONTRACT_DISK_BYTES, .read_only = read_only };
	memcpy(disk->disk.id, "a name of twenty by!", DISK_ID_BYTES);
	disk->ram = ram;
	memset(disk->bytes, read_only ? 0xda : 0xd5, sizeof(disk->bytes));
}

#endif
