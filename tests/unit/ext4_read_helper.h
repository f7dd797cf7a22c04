/* Opening images with the reader, for tests. Included by test files; everything is static. */
#ifndef TRVMM_TESTS_UNIT_EXT4_READ_HELPER_H
#define TRVMM_TESTS_UNIT_EXT4_READ_HELPER_H

#include "ext4read/ext4read.h"
#include "tests/unit/ext4_helper.h"
#include "tests/unit/tree_compare.h"

/* A file system that was opened and read. */
struct opened {
	struct ext4_reader *reader;
	struct tree *tree;
	struct complaints complaints;
	int fd; /* of the image; -1: there is none */
};

static int read_plan(void *data, uint64_t offset, void *buffer, size_t length)
{
	const struct iovec iov = { buffer, length };
	return ext4_plan_readv(data, offset, &iov, 1);
}

static int read_image(void *data, uint64_t offset, void *buffer, size_t length)
{
	return pread(*(int *)data, buffer, length, (off_t)offset) == (ssize_t)length ? 0 : -EIO;
}

static void opened_close(struct opened *opened)
{
	ext4_reader_tree_destroy(opened->tree);
	ext4_reader_close(opened->reader);
	if (opened->fd >= 0)
		close(opened->fd);
	*opened = (struct opened){ .fd = -1 };
}

/* Opens and reads an image file. Returns what the reader did. */
static int try_image(struct opened *opened, const char *path, struct error *err)
{
	*opened = (struct opened){ .fd = open(path, O_RDONLY | O_CLOEXEC) };
	cr_assert(opened->fd >= 0, "%s: %s", path, strerror(errno));
	int ret = ext4_reader_open(read_image, &opened->fd, (uint64_t)lseek(opened->fd, 0, SEEK_END), &opened->reader, err);
	if (!ret)
		ret = ext4_reader_tree(opened->reader, &opened->tree, &opened->complaints, err);
	return ret;
}

static void open_image(struct opened *opened, const char *path)
{
	struct error err = { "" };
	cr_assert_eq(try_image(opened, path, &err), 0, "%s: %s", path, err.text);
}

static void open_plan(struct opened *opened, struct ext4_plan *plan)
{
	struct error err = { "" };
	*opened = (struct opened){ .fd = -1 };
	cr_assert_eq(ext4_reader_open(read_plan, plan, ext4_plan_size_bytes(plan), &opened->reader, &err), 0, "%s", err.text);
	cr_assert_eq(ext4_reader_tree(opened->reader, &opened->tree, &opened->complaints, &err), 0, "%s", err.text);
}

static int opened_read(void *data, uint32_t source, uint64_t offset, void *buffer, size_t length)
{
	return source ? -EINVAL : ext4_reader_read(((struct opened *)data)->reader, offset, buffer, length);
}

static struct tree_side opened_side(struct opened *opened)
{
	return (struct tree_side){ opened->tree, opened_read, opened, 1 };
}

#endif
