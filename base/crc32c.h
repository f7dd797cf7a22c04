/* CRC-32C (Castagnoli): the checksum of ext4's metadata and of its journal. */
#ifndef TRVMM_BASE_CRC32C_H
#define TRVMM_BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Not inverted before or after, as the kernel's crc32c(); `crc` is the value so far. */
uint32_t crc32c(uint32_t crc, const void *data, size_t length);

#endif
