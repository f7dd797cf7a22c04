/* The checksum of group descriptors (feature gdt_csum); see plan_internal.h. */
#include "ext4gen/plan_internal.h"

/* Four bits at a time: a table of 32 bytes, and descriptors are read a few times in the life of a disk. */
static const uint16_t nibble_table[16] = {
	0x0000, 0xCC01, 0xD801, 0x1400, 0xF001, 0x3C00, 0x2800, 0xE401,
	0xA001, 0x6C00, 0x7800, 0xB401, 0x5000, 0x9C01, 0x8801, 0x4400,
};

uint16_t crc16(uint16_t crc, const void *data, size_t length)
{
	const uint8_t *bytes = data;
	for (size_t i = 0; i < length; i++) {
		crc = (uint16_t)(crc ^ bytes[i]);
		crc = (uint16_t)(crc >> 4 ^ nibble_table[crc & 15]);
		crc = (uint16_t)(crc >> 4 ^ nibble_table[crc & 15]);
	}
	return crc;
}
