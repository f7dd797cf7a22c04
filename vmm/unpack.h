/* Decompression of a kernel's payload: gzip, zstd, xz, lzma and lz4 (the legacy frame that the kernel's build uses). */
#ifndef TRVMM_VMM_UNPACK_H
#define TRVMM_VMM_UNPACK_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/*
 * Decompresses `length` bytes at `data`, whose format is told by their first bytes, and writes them to `fd` at its position. `limit_bytes`
 * bounds the result. Bytes behind the end of the compressed stream are ignored (the kernel's build appends the size). Returns the
 * number of bytes written, or -errno: -ENOTSUP unknown format, -EINVAL corrupt, -EFBIG over the limit, or that of write().
 */
int64_t unpack_to_fd(const uint8_t *data, size_t length, int fd, uint64_t limit_bytes, struct error *err);

#endif
