/* CRC-32C; see crc32c.h. */
#include "base/crc32c.h"

#include <nmmintrin.h>
#include <string.h>

/* Every x86 since 2008 has an instruction for it. */
__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const uint8_t *bytes, size_t length)
{
	uint64_t wide = crc;
	for (; length >= 8; bytes += 8, length -= 8) {
		uint64_t word;
		memcpy(&word, bytes, sizeof(word));
		wide = _mm_crc32_u64(wide, word);
	}
	crc = (uint32_t)wide;
	for (; length; bytes++, length--)
		crc = _mm_crc32_u8(crc, *bytes);
	return crc;
}

/* For the others, four bits at a time. */
static uint32_t crc32c_nibbles(uint32_t crc, const uint8_t *bytes, size_t length)
{
	static const uint32_t table[16] = {
		0x00000000, 0x105EC76F, 0x20BD8EDE, 0x30E349B1, 0x417B1DBC, 0x5125DAD3, 0x61C69362, 0x7198540D,
		0x82F63B78, 0x92A8FC17, 0xA24BB5A6, 0xB21572C9, 0xC38D26C4, 0xD3D3E1AB, 0xE330A81A, 0xF36E6F75,
	};
	for (; length; bytes++, length--) {
		crc ^= *bytes;
		crc = crc >> 4 ^ table[crc & 15];
		crc = crc >> 4 ^ table[crc & 15];
	}
	return crc;
}

uint32_t crc32c(uint32_t crc, const void *data, size_t length)
{
	return __builtin_cpu_supports("sse4.2") ? crc32c_sse42(crc, data, length) : crc32c_nibbles(crc, data, length);
}
