/* A file of the host as a disk; see disk_raw.h. */
#include "devices/virtio-blk/disk_raw.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file_lock.h"
#include "base/iov.h"

#define ZERO_BYTES 65536u
#define ZERO_RANGES 64u

struct disk_raw {
	struct disk disk; /* first */
	int fd; /* owned; locked */
	int failed; /* what the first sync that failed said */
};

static int raw_readv(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned count)
{
	return iov_pread_full(((struct disk_raw *)disk)->fd, iov, count, offset);
}

static int raw_writev(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned count)
{
	return iov_pwrite_full(((struct disk_raw *)disk)->fd, iov, count, offset);
}

/* A failure is for good: the system may have dropped what it could not write, and say nothing the next time. */
static int raw_flush(struct disk *disk)
{
	struct disk_raw *raw = (struct disk_raw *)disk;
	if (!raw->failed && !disk->read_only && fdatasync(raw->fd) < 0)
		raw->failed = -errno;
	return raw->failed;
}

/* Zeroes as data, for file systems that know no better. */
static int write_zeroes_as_data(int fd, uint64_t offset, uint64_t length)
{
	static const uint8_t zeroes[ZERO_BYTES];
	struct iovec iov[ZERO_RANGES];
	void *bytes;
	memcpy(&bytes, &(const void *){ zeroes }, sizeof(bytes)); /* only read */
	while (length) {
		unsigned count = 0;
		uint64_t batch = 0;
		for (; count < ZERO_RANGES && batch < length; count++) {
			const uint64_t left = length - batch;
			iov[count] = (struct iovec){ bytes, left < ZERO_BYTES ? (size_t)left : ZERO_BYTES };
			batch += iov[count].iov_len;
		}
		const int rc = iov_pwrite_full(fd, iov, count, offset);
		if (rc)
			return rc;
		offset += batch;
		length -= batch;
	}
	return 0;
}

static int raw_write_zeroes(struct disk *disk, uint64_t offset, uint64_t length, bool may_unmap)
{
	const int fd = ((struct disk_raw *)disk)->fd;
	const int mode = (may_unmap ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE) | FALLOC_FL_KEEP_SIZE;
	if (length == 0 || fallocate(fd, mode, (off_t)offset, (off_t)length) == 0)
		return 0;
	return errno == EOPNOTSUPP ? write_zeroes_as_data(fd, offset, length) : -errno;
}

static int raw_discard(struct disk *disk, uint64_t offset, uint64_t length)
{
	return raw_write_zeroes(disk, offset, length, true);
}

static void raw_destroy(struct disk *disk)
{
	struct disk_raw *raw = (struct disk_raw *)disk;
	if (raw->fd >= 0)
		close(raw->fd);
	free(raw);
}

static const struct disk_ops raw_ops = {
	.readv = raw_readv,
	.writev = raw_writev,
	.flush = raw_flush,
	.discard = raw_discard,
	.write_zeroes = raw_write_zeroes,
	.destroy = raw_destroy,
};

static int find_size(int fd, uint64_t *size_bytes, struct error *err)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return error_set(err, -errno, "%s", strerror(errno));
	if (S_ISREG(st.st_mode))
		*size_bytes = (uint64_t)st.st_size;
	else if (!S_ISBLK(st.st_mode))
		return error_set(err, -EINVAL, "is neither a regular file nor a block device");
	else if (ioctl(fd, BLKGETSIZE64, size_bytes) < 0)
		return error_set(err, -errno, "asking for its size: %s", strerror(errno));
	if (*size_bytes == 0)
		return error_set(err, -EINVAL, "is empty; make it as large as the disk is to be, with truncate -s SIZE");
	if (*size_bytes % DISK_SECTOR_BYTES)
		return error_set(err, -EINVAL, "has %llu bytes, and a disk has a multiple of 512; truncate -s %%512 makes it one",
				 (unsigned long long)*size_bytes);
	return 0;
}

int disk_raw_open(const char *path, bool read_only, struct disk **result, struct error *err)
{
	char quoted[512];
	struct disk_raw *raw = calloc(1, sizeof(*raw));
	if (!raw)
		return error_set(err, -ENOMEM, "out of memory");
	raw->disk = (struct disk){ .ops = &raw_ops, .read_only = read_only };
	raw->fd = open(path, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	int rc = 0;
	if (raw->fd < 0)
		rc = error_set(err, -errno, "%s%s", strerror(errno),
			       !read_only && (errno == EACCES || errno == EROFS) ? "; with :ro it is only read" : "");
	if (rc == 0)
		rc = find_size(raw->fd, &raw->disk.size_bytes, err);
	if (rc == 0 && (rc = file_lock(raw->fd, read_only)))
		error_set(err, rc, "%s",
			  rc != -EBUSY ? strerror(-rc)
			  : read_only  ? "is in use by another program, which writes to it"
				       : "is in use by another program; with :ro many can read it");
	if (rc < 0) {
		raw_destroy(&raw->disk);
		return error_prefix(err, rc, "disk '%s'", error_quote(quoted, sizeof(quoted), path, strlen(path)));
	}
	*result = &raw->disk;
	return 0;
}
