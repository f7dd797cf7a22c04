/*
 * The hash of names in indexed directories: "half MD4", unsigned characters, as the kernel's fs/ext4/hash.c computes it for a
 * superblock with s_def_hash_version = 1 and EXT4_FLAGS_UNSIGNED_HASH. A cut-down MD4: 24 of the 48 steps over 32 bytes of name
 * at a time.
 */
#include <string.h>

#include "ext4gen/plan_internal.h"

/* The hash that means "end of directory" is not given to a name. */
#define HASH_EOF 0xFFFFFFFEu

static uint32_t rotate_left(uint32_t value, unsigned by)
{
	return value << by | value >> (32 - by);
}

static uint32_t select_bits(uint32_t x, uint32_t y, uint32_t z)
{
	return z ^ (x & (y ^ z));
}

static uint32_t majority(uint32_t x, uint32_t y, uint32_t z)
{
	return (x & y) + ((x ^ y) & z);
}

static uint32_t parity(uint32_t x, uint32_t y, uint32_t z)
{
	return x ^ y ^ z;
}

#define STEP(f, a, b, c, d, x, by) ((a) = rotate_left((a) + f(b, c, d) + (x), by))
/* Four steps; the roles of the four state words go around. */
#define STEPS(f, x0, s0, x1, s1, x2, s2, x3, s3) \
	(STEP(f, a, b, c, d, x0, s0), STEP(f, d, a, b, c, x1, s1), STEP(f, c, d, a, b, x2, s2), STEP(f, b, c, d, a, x3, s3))

static void half_md4(uint32_t state[4], const uint32_t in[8])
{
	enum { K2 = 0x5A827999, K3 = 0x6ED9EBA1 };
	uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
	STEPS(select_bits, in[0], 3, in[1], 7, in[2], 11, in[3], 19);
	STEPS(select_bits, in[4], 3, in[5], 7, in[6], 11, in[7], 19);
	STEPS(majority, in[1] + K2, 3, in[3] + K2, 5, in[5] + K2, 9, in[7] + K2, 13);
	STEPS(majority, in[0] + K2, 3, in[2] + K2, 5, in[4] + K2, 9, in[6] + K2, 13);
	STEPS(parity, in[3] + K3, 3, in[7] + K3, 9, in[2] + K3, 11, in[6] + K3, 15);
	STEPS(parity, in[1] + K3, 3, in[5] + K3, 9, in[0] + K3, 11, in[4] + K3, 15);
	state[0] += a;
	state[1] += b;
	state[2] += c;
	state[3] += d;
}

/*
 * Up to 32 bytes as eight words, first byte highest; what is missing is filled with the number of bytes that were left of the
 * name.
 */
static void words_of_name(const uint8_t *name, uint32_t length, uint32_t words[8])
{
	const uint32_t padding = (length & 0xFF) * 0x01010101u;
	unsigned i = 0;
	for (; i < 8 && length >= 4; i++, name += 4, length -= 4)
		words[i] = (uint32_t)name[0] << 24 | (uint32_t)name[1] << 16 | (uint32_t)name[2] << 8 | name[3];
	if (i < 8) {
		words[i] = padding;
		for (uint32_t k = 0; k < length; k++)
			words[i] = words[i] << 8 | name[k];
		i++;
	}
	while (i < 8)
		words[i++] = padding;
}

uint32_t dir_hash(const uint8_t seed[16], const char *name, uint32_t length)
{
	static const uint32_t initial[4] = { 0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476 };
	uint32_t state[4];
	le32 seed_words[4];
	memcpy(seed_words, seed, sizeof(seed_words));
	for (unsigned i = 0; i < 4; i++)
		state[i] = le32_get(seed_words[i]);
	if (!(state[0] | state[1] | state[2] | state[3]))
		memcpy(state, initial, sizeof(state));
	const uint8_t *bytes = (const uint8_t *)name;
	for (uint32_t done = 0; done < length; done += 32) {
		uint32_t words[8];
		words_of_name(bytes + done, length - done, words);
		half_md4(state, words);
	}
	const uint32_t hash = state[1] & ~1u; /* bit 0 is for the index: "same hash as the leaf before" */
	return hash == HASH_EOF ? HASH_EOF - 2 : hash;
}
