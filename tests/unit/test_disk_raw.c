/* devices/virtio-blk/disk_raw: a file of the host as a disk, and what is no disk. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "devices/virtio-blk/disk_raw.h"

enum { SIZE = 1 << 20 };

static char path[] = "/tmp/trvmm-raw-XXXXXX";
static struct error err;
static bool no_holes;   /* the file system does not know them */
static int sync_result; /* what the next sync says */

int fallocate(int fd, int mode, off_t offset, off_t length)
{
	if (no_holes) {
		errno = EOPNOTSUPP;
		return -1;
	}
	return (int)syscall(SYS_fallocate, fd, mode, offset, length);
}

int fdatasync(int fd)
{
	(void)fd;
	errno = sync_result;
	return sync_result ? -1 : 0;
}

static void set_up(void)
{
	const int fd = mkstemp(path);
	cr_assert(fd >= 0 && ftruncate(fd, SIZE) == 0);
	close(fd);
}

static void clean_up(void)
{
	unlink(path);
	rmdir(path);
}
TestSuite(disk_raw, .init = set_up, .fini = clean_up);

static struct disk *open_or_fail(bool read_only)
{
	struct disk *disk = NULL;
	cr_assert(disk_raw_open(path, read_only, &disk, &err) == 0, "%s", err.text);
	return disk;
}

static void refused(const char *at, bool read_only, int code, const char *word)
{
	struct disk *disk;
	err.text[0] = '\0';
	cr_assert_eq(disk_raw_open(at, read_only, &disk, &err), code, "%s", err.text);
	cr_assert(strstr(err.text, word) && strstr(err.text, at), "%s", err.text);
}

static void write_bytes(struct disk *disk, uint64_t offset, uint8_t value, size_t length)
{
	uint8_t *bytes = malloc(length);
	memset(bytes, value, length);
	const struct iovec iov[] = { { bytes, 100 }, { bytes + 100, length - 100 } };
	cr_assert(disk->ops->writev(disk, offset, iov, 2) == 0);
	free(bytes);
}

static bool holds(struct disk *disk, uint64_t offset, uint8_t value, size_t length)
{
	uint8_t *bytes = malloc(length);
	const struct iovec iov = { bytes, length };
	cr_assert(disk->ops->readv(disk, offset, &iov, 1) == 0);
	bool same = true;
	for (size_t i = 0; i < length; i++)
		same &= bytes[i] == value;
	free(bytes);
	return same;
}

static void zeroes_and_discards(void)
{
	struct disk *disk = open_or_fail(false);
	cr_assert(disk->size_bytes == SIZE && !disk->read_only);
	write_bytes(disk, 0, 7, SIZE);
	cr_assert(disk->ops->discard(disk, 65536, 512 * 1024 + 512) == 0);
	cr_assert(holds(disk, 0, 7, 65536) && holds(disk, 65536, 0, 512 * 1024 + 512) && holds(disk, 65536 + 512 * 1024 + 512, 7, 4096));
	cr_assert(disk->ops->write_zeroes(disk, 512, 512, false) == 0 && disk->ops->write_zeroes(disk, 4096, 4096, true) == 0);
	cr_assert(disk->ops->write_zeroes(disk, 0, 0, true) == 0);
	cr_assert(holds(disk, 0, 7, 512) && holds(disk, 512, 0, 512) && holds(disk, 1024, 7, 3072) && holds(disk, 4096, 0, 4096));
	cr_assert(disk->ops->flush(disk) == 0);
	disk_destroy(disk);
	struct stat st;
	cr_assert(stat(path, &st) == 0 && st.st_size == SIZE);
	cr_assert(no_holes == (st.st_blocks * 512 >= SIZE), "%lld", (long long)st.st_blocks);
	disk = open_or_fail(true);
	cr_assert(disk->read_only && holds(disk, 0, 7, 512) && holds(disk, 4096, 0, 4096));
	disk_destroy(disk);
}

Test(disk_raw, keeps_what_is_written_and_makes_holes)
{
	zeroes_and_discards();
}

Test(disk_raw, zeroes_without_holes)
{
	no_holes = true;
	zeroes_and_discards();
}

Test(disk_raw, one_writes_or_many_read)
{
	struct disk *first = open_or_fail(false);
	refused(path, false, -EBUSY, "in use");
	refused(path, true, -EBUSY, "writes to it");
	disk_destroy(first);
	first = open_or_fail(true);
	struct disk *second = open_or_fail(true);
	refused(path, false, -EBUSY, ":ro");
	disk_destroy(first);
	disk_destroy(second);
}

Test(disk_raw, what_is_no_disk)
{
	refused("/no/such", false, -ENOENT, "No such file");
	refused("/dev/null", false, -EINVAL, "neither");
	refused("/tmp", true, -EINVAL, "neither");
	cr_assert(truncate(path, 0) == 0);
	refused(path, false, -EINVAL, "empty");
	cr_assert(truncate(path, 1000) == 0);
	refused(path, false, -EINVAL, "1000 bytes");
	cr_assert(unlink(path) == 0 && mkfifo(path, 0600) == 0);
	refused(path, false, -EINVAL, "neither");
	refused(path, true, -EINVAL, "neither");
}

Test(disk_raw, a_file_that_became_shorter_is_an_io_error)
{
	struct disk *disk = open_or_fail(false);
	uint8_t bytes[512];
	const struct iovec iov = { bytes, sizeof(bytes) };
	cr_assert(truncate(path, 4096) == 0);
	cr_assert(disk->ops->readv(disk, 4096, &iov, 1) == -EIO);
	disk_destroy(disk);
}

Test(disk_raw, a_sync_that_failed_is_not_forgotten)
{
	struct disk *disk = open_or_fail(false);
	sync_result = EIO;
	cr_assert(disk->ops->flush(disk) == -EIO);
	sync_result = 0;
	cr_assert(disk->ops->flush(disk) == -EIO);
	disk_destroy(disk);
}
