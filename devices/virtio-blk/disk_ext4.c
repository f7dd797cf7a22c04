/* The generated file system as a disk; see disk_ext4.h. */
#include "devices/virtio-blk/disk_ext4.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ext4gen/cow.h"

struct disk_ext4 {
	struct disk disk; /* first */
	struct cow *cow;  /* owned */
};

static int plan_readv(const void *base, uint64_t offset, const struct iovec *iov, unsigned count)
{
	return ext4_plan_readv(base, offset, iov, count);
}

static int disk_ext4_readv(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned count)
{
	return cow_readv(((struct disk_ext4 *)disk)->cow, offset, iov, count);
}

static int disk_ext4_writev(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned count)
{
	return cow_writev(((struct disk_ext4 *)disk)->cow, offset, iov, count);
}

static int disk_ext4_flush(struct disk *disk)
{
	(void)disk; /* nothing is kept */
	return 0;
}

static int disk_ext4_discard(struct disk *disk, uint64_t offset, uint64_t length)
{
	return cow_zero(((struct disk_ext4 *)disk)->cow, offset, length);
}

static int disk_ext4_write_zeroes(struct disk *disk, uint64_t offset, uint64_t length, bool may_unmap)
{
	(void)may_unmap;
	return cow_zero(((struct disk_ext4 *)disk)->cow, offset, length);
}

static void disk_ext4_destroy(struct disk *disk)
{
	struct disk_ext4 *ext4 = (struct disk_ext4 *)disk;
	cow_destroy(ext4->cow);
	free(ext4);
}

static const struct disk_ops disk_ext4_ops = {
	.readv = disk_ext4_readv,
	.writev = disk_ext4_writev,
	.flush = disk_ext4_flush,
	.discard = disk_ext4_discard,
	.write_zeroes = disk_ext4_write_zeroes,
	.destroy = disk_ext4_destroy,
};

int disk_ext4_create(const struct ext4_plan *plan, bool read_only, struct disk **result)
{
	struct disk_ext4 *ext4 = calloc(1, sizeof(*ext4));
	if (!ext4)
		return -ENOMEM;
	ext4->disk.ops = &disk_ext4_ops;
	ext4->disk.size_bytes = ext4_plan_size_bytes(plan);
	ext4->disk.read_only = read_only;
	memcpy(ext4->disk.id, "trvmm-root", 10);
	const int error = cow_create(ext4->disk.size_bytes, plan_readv, plan, &ext4->cow);
	if (error < 0) {
		free(ext4);
		return error;
	}
	*result = &ext4->disk;
	return 0;
}
