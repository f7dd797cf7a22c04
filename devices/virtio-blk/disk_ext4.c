/* The generated file system as a disk; see disk_ext4.h. */
#include "devices/virtio-blk/disk_ext4.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ext4gen/cow.h"

struct disk_ext4 {
	struct disk disk; /* first */
	const struct ext4_plan *plan; /* borrowed */
	struct cow *cow;  /* owned */
	char *path;       /* owned; of a kept disk, for messages; NULL: none */
	uint64_t quota_bytes; /* 0: none */
	bool complained;  /* that it cannot be written; once is enough */
};

static int plan_readv(const void *base, uint64_t offset, const struct iovec *iov, unsigned count)
{
	return ext4_plan_readv(base, offset, iov, count);
}

static int disk_ext4_readv(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned count)
{
	return cow_readv(((struct disk_ext4 *)disk)->cow, offset, iov, count);
}

/* A kept disk that the host has no room for is news to its owner, who sees only the guest's I/O errors. */
static int tell(struct disk_ext4 *ext4, int error)
{
	if (error == -ENOSPC && ext4->quota_bytes && !ext4->complained) {
		ext4->complained = true;
		message("disk '%.*s': --disk-quota of %llu MiB is used up; the guest gets I/O errors", (int)sizeof(ext4->disk.id),
			ext4->disk.id, (unsigned long long)(ext4->quota_bytes >> 20));
	}
	if (error < 0 && ext4->path && !ext4->complained) {
		ext4->complained = true;
		message("kept disk '%s': %s; the guest gets I/O errors", ext4->path, strerror(-error));
	}
	return error;
}

static int disk_ext4_writev(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned count)
{
	struct disk_ext4 *ext4 = (struct disk_ext4 *)disk;
	return tell(ext4, cow_writev(ext4->cow, offset, iov, count));
}

static int disk_ext4_flush(struct disk *disk)
{
	struct disk_ext4 *ext4 = (struct disk_ext4 *)disk;
	return tell(ext4, cow_flush(ext4->cow));
}

static int disk_ext4_discard(struct disk *disk, uint64_t offset, uint64_t length)
{
	struct disk_ext4 *ext4 = (struct disk_ext4 *)disk;
	return tell(ext4, cow_zero(ext4->cow, offset, length));
}

static int disk_ext4_write_zeroes(struct disk *disk, uint64_t offset, uint64_t length, bool may_unmap)
{
	(void)may_unmap;
	return disk_ext4_discard(disk, offset, length);
}

void disk_ext4_set_quota(struct disk *disk, uint64_t bytes)
{
	struct disk_ext4 *ext4 = (struct disk_ext4 *)disk;
	ext4->quota_bytes = bytes;
	cow_set_quota(ext4->cow, bytes);
}

static void disk_ext4_destroy(struct disk *disk)
{
	struct disk_ext4 *ext4 = (struct disk_ext4 *)disk;
	cow_destroy(ext4->cow);
	free(ext4->path);
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

static struct disk_ext4 *allocate(const struct ext4_plan *plan, bool read_only)
{
	struct disk_ext4 *ext4 = calloc(1, sizeof(*ext4));
	if (!ext4)
		return NULL;
	ext4->disk.ops = &disk_ext4_ops;
	ext4->disk.size_bytes = ext4_plan_size_bytes(plan);
	ext4->disk.read_only = read_only;
	snprintf(ext4->disk.id, sizeof(ext4->disk.id), "trvmm-root");
	ext4->plan = plan;
	return ext4;
}

int disk_ext4_create(const struct ext4_plan *plan, bool read_only, struct disk **result)
{
	struct disk_ext4 *ext4 = allocate(plan, read_only);
	if (!ext4)
		return -ENOMEM;
	const int error = cow_create(ext4->disk.size_bytes, plan_readv, plan, &ext4->cow);
	if (error < 0) {
		free(ext4);
		return error;
	}
	*result = &ext4->disk;
	return 0;
}

static int plan_digest(const void *base, uint8_t digest[COW_DIGEST_BYTES])
{
	return ext4_plan_digest(base, digest);
}
_Static_assert(COW_DIGEST_BYTES == EXT4_DIGEST_BYTES, "a kept disk belongs to a plan by its digest");

/* Where the free space at the end of the disk begins. */
static uint64_t end_of_data(const struct ext4_plan *plan)
{
	uint64_t offset = 0, begin;
	while (ext4_plan_next_data(plan, offset, &begin, &offset))
		;
	return offset;
}

int disk_ext4_open_kept(const struct ext4_plan *plan, const char *path, enum cow_access access, struct disk **result, struct error *err)
{
	struct cow_binding binding = { .digest = plan_digest };
	struct disk_ext4 *ext4 = allocate(plan, access == COW_LOOK);
	if (!ext4 || !(ext4->path = strdup(path))) {
		free(ext4);
		return error_set(err, -ENOMEM, "out of memory");
	}
	if (!ext4_plan_stamp(plan, binding.stamp))
		memset(binding.stamp, 0, sizeof(binding.stamp));
	const int error = cow_open_kept(path, access, ext4->disk.size_bytes, plan_readv, &binding, plan, &ext4->cow, err);
	if (error < 0) {
		disk_ext4_destroy(&ext4->disk);
		return error;
	}
	cow_set_zero_from(ext4->cow, end_of_data(plan));
	*result = &ext4->disk;
	return 0;
}

bool disk_ext4_next_data(const struct disk *disk, uint64_t offset, uint64_t *begin, uint64_t *end)
{
	const struct disk_ext4 *ext4 = (const struct disk_ext4 *)disk;
	while (offset < disk->size_bytes) {
		uint64_t run_end;
		const enum cow_state state = cow_run(ext4->cow, offset, &run_end);
		if (state == COW_WRITTEN) {
			*begin = offset;
			*end = run_end;
			return true;
		}
		if (state == COW_BASE && ext4_plan_next_data(ext4->plan, offset, begin, end) && *begin < run_end) {
			*end = *end < run_end ? *end : run_end;
			return true;
		}
		offset = run_end;
	}
	return false;
}

const struct cow *disk_ext4_cow(const struct disk *disk)
{
	return ((const struct disk_ext4 *)disk)->cow;
}
