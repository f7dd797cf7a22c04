/* Big-endian integers as they lie on disk and on the wire: the journal of ext4. As le.h, which says why they are structs. */
#ifndef TRVMM_BASE_BE_H
#define TRVMM_BASE_BE_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

typedef struct {
	uint8_t bytes[2];
} be16;

static inline uint16_t be16_get(be16 v)
{
	uint16_t raw;
	memcpy(&raw, v.bytes, sizeof(raw));
	return be16toh(raw);
}

typedef struct {
	uint8_t bytes[4];
} be32;

static inline uint32_t be32_get(be32 v)
{
	uint32_t raw;
	memcpy(&raw, v.bytes, sizeof(raw));
	return be32toh(raw);
}

static inline be32 be32_make(uint32_t value)
{
	be32 v;
	const uint32_t raw = htobe32(value);
	memcpy(v.bytes, &raw, sizeof(raw));
	return v;
}

#endif
