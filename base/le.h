/*
 * Little-endian integers as they lie on the wire and on disk (virtio, ext4, vsock).
 *
 * Each width is a struct of its own, so a field cannot be used as a number by accident: forgetting the conversion does not
 * compile. All have alignment 1 and may be laid over any byte buffer.
 */
#ifndef TRVMM_BASE_LE_H
#define TRVMM_BASE_LE_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

typedef struct { uint8_t bytes[2]; } le16;
typedef struct { uint8_t bytes[4]; } le32;
typedef struct { uint8_t bytes[8]; } le64;

static inline uint16_t le16_get(le16 v)
{
	uint16_t raw;
	memcpy(&raw, v.bytes, sizeof(raw));
	return le16toh(raw);
}

static inline uint32_t le32_get(le32 v)
{
	uint32_t raw;
	memcpy(&raw, v.bytes, sizeof(raw));
	return le32toh(raw);
}

static inline uint64_t le64_get(le64 v)
{
	uint64_t raw;
	memcpy(&raw, v.bytes, sizeof(raw));
	return le64toh(raw);
}

static inline le16 le16_make(uint16_t value)
{
	le16 v;
	const uint16_t raw = htole16(value);
	memcpy(v.bytes, &raw, sizeof(raw));
	return v;
}

static inline le32 le32_make(uint32_t value)
{
	le32 v;
	const uint32_t raw = htole32(value);
	memcpy(v.bytes, &raw, sizeof(raw));
	return v;
}

static inline le64 le64_make(uint64_t value)
{
	le64 v;
	const uint64_t raw = htole64(value);
	memcpy(v.bytes, &raw, sizeof(raw));
	return v;
}

#endif
