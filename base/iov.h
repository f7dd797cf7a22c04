/* Vectors of memory ranges: the payload of a request, wherever it is split. */
#ifndef TRVMM_BASE_IOV_H
#define TRVMM_BASE_IOV_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/* The sum of the lengths. The caller has checked that it fits (virtq_pop does). */
size_t iov_total(const struct iovec *iov, unsigned count);

/* Copies up to `length` bytes at byte `offset` of the vector to `to`. Returns how many there were. */
size_t iov_copy_out(const struct iovec *iov, unsigned count, size_t offset, void *to, size_t length);

/* Copies up to `length` bytes from `from` into the vector at byte `offset`. Returns how many fitted. */
size_t iov_copy_in(const struct iovec *iov, unsigned count, size_t offset, const void *from, size_t length);

/* Fills up to `length` bytes at byte `offset` with zeroes. Returns how many fitted. */
size_t iov_zero(const struct iovec *iov, unsigned count, size_t offset, size_t length);

/*
 * Writes to `out` (room for `count` entries) the ranges that make up bytes [offset, offset + length) of the vector; shorter when
 * the vector ends before. Returns the number of entries written. `out` may be `iov` itself.
 */
unsigned iov_slice(const struct iovec *iov, unsigned count, size_t offset, size_t length, struct iovec *out);

/*
 * preadv/pwritev until all of the vector is done, a few hundred entries at a time, EINTR repeated. Return 0, -errno, or -EIO when
 * the file ends before (pread) or takes nothing more (pwrite).
 */
int iov_pread_full(int fd, const struct iovec *iov, unsigned count, uint64_t offset);
int iov_pwrite_full(int fd, const struct iovec *iov, unsigned count, uint64_t offset);

/* The same for one range. */
int pread_full(int fd, void *to, size_t length, uint64_t offset);
int pwrite_full(int fd, const void *from, size_t length, uint64_t offset);

/* Reads up to `length` bytes, fewer only where the file ends; EINTR repeated. Returns how many, or -errno. */
ssize_t pread_up_to(int fd, void *to, size_t length, uint64_t offset);

/*
 * write() until all is written, EINTR repeated. Waits when the descriptor is non-blocking, as another process that has the same open
 * file description may have made it. Returns 0 or -errno.
 */
int write_full(int fd, const void *bytes, size_t length);

#endif
