/* Vectors of memory ranges; see iov.h. */
#include "base/iov.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

/* Entries handed to the kernel at once; any count works, a request seldom has more. */
#define IOV_BATCH 256

size_t iov_total(const struct iovec *iov, unsigned count)
{
	size_t total = 0;
	for (unsigned i = 0; i < count; i++)
		total += iov[i].iov_len;
	return total;
}

unsigned iov_slice(const struct iovec *iov, unsigned count, size_t offset, size_t length, struct iovec *out)
{
	unsigned used = 0;
	for (unsigned i = 0; i < count && length; i++) {
		const struct iovec range = iov[i];
		if (offset >= range.iov_len) {
			offset -= range.iov_len;
			continue;
		}
		size_t take = range.iov_len - offset;
		if (take > length)
			take = length;
		out[used].iov_base = (char *)range.iov_base + offset;
		out[used].iov_len = take;
		used++;
		length -= take;
		offset = 0;
	}
	return used;
}

enum iov_action { COPY_OUT, COPY_IN, ZERO };

/* The one walk behind the three functions below. `buffer` is not used by ZERO and only read by COPY_IN. */
static size_t iov_walk(const struct iovec *iov, unsigned count, size_t offset, char *buffer, size_t length, enum iov_action action)
{
	size_t done = 0;
	for (unsigned i = 0; i < count && done < length; i++) {
		if (offset >= iov[i].iov_len) {
			offset -= iov[i].iov_len;
			continue;
		}
		char *range = (char *)iov[i].iov_base + offset;
		size_t take = iov[i].iov_len - offset;
		if (take > length - done)
			take = length - done;
		if (action == COPY_OUT)
			memcpy(buffer + done, range, take);
		else if (action == COPY_IN)
			memcpy(range, buffer + done, take);
		else
			memset(range, 0, take);
		done += take;
		offset = 0;
	}
	return done;
}

size_t iov_copy_out(const struct iovec *iov, unsigned count, size_t offset, void *to, size_t length)
{
	return iov_walk(iov, count, offset, to, length, COPY_OUT);
}

size_t iov_copy_in(const struct iovec *iov, unsigned count, size_t offset, const void *from, size_t length)
{
	char *buffer;
	memcpy(&buffer, &from, sizeof(buffer)); /* COPY_IN only reads it */
	return iov_walk(iov, count, offset, buffer, length, COPY_IN);
}

size_t iov_zero(const struct iovec *iov, unsigned count, size_t offset, size_t length)
{
	return iov_walk(iov, count, offset, NULL, length, ZERO);
}

typedef ssize_t (*vector_io)(int fd, const struct iovec *iov, int count, off_t offset);

static int iov_io_full(vector_io io, int fd, const struct iovec *iov, unsigned count, uint64_t offset)
{
	if (offset > INT64_MAX)
		return -EINVAL;
	size_t left = iov_total(iov, count);
	size_t done = 0;
	while (left) {
		struct iovec batch[IOV_BATCH];
		unsigned used = 0;
		size_t skip = done;
		for (unsigned i = 0; i < count && used < IOV_BATCH; i++) {
			if (skip >= iov[i].iov_len) {
				skip -= iov[i].iov_len;
				continue;
			}
			batch[used].iov_base = (char *)iov[i].iov_base + skip;
			batch[used].iov_len = iov[i].iov_len - skip;
			used++;
			skip = 0;
		}
		const ssize_t n = io(fd, batch, (int)used, (off_t)(offset + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		done += (size_t)n;
		left -= (size_t)n;
	}
	return 0;
}

/* One range, as most reads are, is a shorter way through the kernel. */
static ssize_t read_ranges(int fd, const struct iovec *iov, int count, off_t offset)
{
	return count == 1 ? pread(fd, iov->iov_base, iov->iov_len, offset) : preadv(fd, iov, count, offset);
}

static ssize_t write_ranges(int fd, const struct iovec *iov, int count, off_t offset)
{
	return count == 1 ? pwrite(fd, iov->iov_base, iov->iov_len, offset) : pwritev(fd, iov, count, offset);
}

int iov_pread_full(int fd, const struct iovec *iov, unsigned count, uint64_t offset)
{
	return iov_io_full(read_ranges, fd, iov, count, offset);
}

int iov_pwrite_full(int fd, const struct iovec *iov, unsigned count, uint64_t offset)
{
	return iov_io_full(write_ranges, fd, iov, count, offset);
}

int pread_full(int fd, void *to, size_t length, uint64_t offset)
{
	const struct iovec iov = { to, length };
	return iov_pread_full(fd, &iov, 1, offset);
}

int pwrite_full(int fd, const void *from, size_t length, uint64_t offset)
{
	struct iovec iov = { .iov_len = length };
	memcpy(&iov.iov_base, &from, sizeof(from)); /* which is only read */
	return iov_pwrite_full(fd, &iov, 1, offset);
}

ssize_t pread_up_to(int fd, void *to, size_t length, uint64_t offset)
{
	size_t done = 0;
	while (done < length) {
		const ssize_t n = pread(fd, (uint8_t *)to + done, length - done, (off_t)(offset + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

int write_full(int fd, const void *bytes, size_t length)
{
	const char *at = bytes;
	while (length) {
		const ssize_t n = write(fd, at, length);
		if (n < 0 && errno == EAGAIN) {
			struct pollfd p = { .fd = fd, .events = POLLOUT };
			poll(&p, 1, -1);
		} else if (n < 0 && errno != EINTR) {
			return -errno;
		} else if (n > 0) {
			at += n;
			length -= (size_t)n;
		}
	}
	return 0;
}
