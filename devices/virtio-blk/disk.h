/*
 * What a block device stores its sectors in: a generated ext4 file system, a raw file, a block device, an NBD export.
 *
 * The request is validated once by the caller (virtio_blk.c): ranges lie inside the disk, offsets and lengths are multiples of 512
 * bytes, a read-only disk sees no write. Implementations may assume it. All return 0 or -errno, which becomes VIRTIO_BLK_S_IOERR.
 * Called on one thread at a time.
 */
#ifndef TRVMM_DEVICES_VIRTIO_BLK_DISK_H
#define TRVMM_DEVICES_VIRTIO_BLK_DISK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"

#define DISK_SECTOR_BYTES 512
#define DISK_ID_BYTES 20

struct disk;

/* A read or write among others. */
struct disk_transfer {
	bool write;
	uint64_t offset;
	const struct iovec *iov;
	unsigned count; /* of the vector */
	int result; /* 0 or -errno */
};

#define DISK_TRANSFERS_MAX 16

struct disk_ops {
	/* Reads or writes the bytes at `offset`, as many as the vector holds. The vector may be guest RAM. */
	int (*readv)(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned count);
	int (*writev)(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned count);
	/* 1 to DISK_TRANSFERS_MAX of them at once, done in any order; returns when all have their result. NULL: it would save no time. */
	void (*transfer)(struct disk *disk, struct disk_transfer *transfers, unsigned count);
	/* What was written before is durable, as far as the disk is kept at all. */
	int (*flush)(struct disk *disk);
	/* The bytes are not needed any more: they read as zeroes from now on. */
	int (*discard)(struct disk *disk, uint64_t offset, uint64_t length);
	/* The bytes read as zeroes. `may_unmap`: their storage may be given back. */
	int (*write_zeroes)(struct disk *disk, uint64_t offset, uint64_t length, bool may_unmap);
	void (*destroy)(struct disk *disk);
};

struct disk {
	const struct disk_ops *ops;
	uint64_t size_bytes; /* a multiple of 512 */
	bool read_only;
	char id[DISK_ID_BYTES]; /* what VIRTIO_BLK_T_GET_ID answers; zero-padded, not terminated when full */
};

/* Frees the disk and what it owns. NULL is allowed. */
static inline void disk_destroy(struct disk *disk)
{
	if (disk)
		disk->ops->destroy(disk);
}

#endif
