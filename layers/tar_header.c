/* Fields of a tar header block: numbers and the checksum. GNU tar manual, "Basic Tar Format"; POSIX.1 pax, "ustar". */
#include "layers/tar_internal.h"

#include <string.h>

#include "base/le.h"

/*
 * GNU's numbers that do not fit into octal: the field as one big-endian two's complement number, its top bit replaced by the mark.
 */
static bool base256(const uint8_t *field, size_t bytes, int64_t *number)
{
	const bool negative = field[0] & 0x40;
	const uint8_t sign = negative ? 0xff : 0;
	uint64_t value = negative ? UINT64_MAX : 0;
	for (size_t i = 0; i < bytes; i++) {
		const uint8_t byte = i ? field[i] : (uint8_t)((field[0] & 0x3f) | (negative ? 0xc0 : 0));
		/* What leaves at the top must be sign, and the sign must stay what it is. */
		if ((uint8_t)(value >> 56) != sign)
			return false;
		value = value << 8 | byte;
	}
	if ((value >> 63) != negative)
		return false;
	*number = (int64_t)value;
	return true;
}

bool tar_number(const char *field, size_t bytes, int64_t *number)
{
	if ((uint8_t)field[0] & 0x80)
		return base256((const uint8_t *)field, bytes, number);
	size_t i = 0;
	while (i < bytes && (field[i] == ' ' || field[i] == '\0'))
		i++;
	int64_t value = 0; /* at most 12 octal digits: 36 bits */
	for (; i < bytes && field[i] >= '0' && field[i] <= '7'; i++)
		value = value << 3 | (field[i] - '0');
	if (i < bytes && field[i] != ' ' && field[i] != '\0')
		return false;
	*number = value;
	return true;
}

/* The sum of a block's bytes, eight at a time in lanes of 16 bits: 64 times two bytes cannot overflow one. */
static uint32_t sum_block(const uint8_t *block)
{
	const uint64_t low_bytes = 0x00ff00ff00ff00ff;
	uint64_t lanes = 0;
	for (size_t i = 0; i < TAR_BLOCK_BYTES; i += 8) {
		uint64_t word;
		memcpy(&word, block + i, sizeof(word));
		lanes += (word & low_bytes) + (word >> 8 & low_bytes);
	}
	return (uint32_t)((lanes & 0xffff) + (lanes >> 16 & 0xffff) + (lanes >> 32 & 0xffff) + (lanes >> 48));
}

bool tar_checksum_ok(const struct tar_header *header)
{
	int64_t want;
	if (!tar_number(header->checksum, sizeof(header->checksum), &want))
		return false;
	/* The field itself counts as eight spaces. */
	const uint8_t *block = (const uint8_t *)header;
	uint32_t sum = sum_block(block) + 8 * ' ';
	for (size_t i = 0; i < sizeof(header->checksum); i++)
		sum -= (uint8_t)header->checksum[i];
	if (want == (int64_t)sum)
		return true;
	/* As signed bytes, each with the top bit set counts 256 less. */
	int64_t sum_signed = sum;
	for (size_t i = 0; i < TAR_BLOCK_BYTES; i++) {
		const bool in_field = i - offsetof(struct tar_header, checksum) < sizeof(header->checksum);
		sum_signed -= !in_field && (block[i] & 0x80) ? 256 : 0;
	}
	return want == sum_signed;
}
