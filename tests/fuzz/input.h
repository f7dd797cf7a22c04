/* The input of a fuzz target as a stream of small numbers. What is missing at its end is 0, so that any input is a whole one. */
#ifndef TRVMM_TESTS_FUZZ_INPUT_H
#define TRVMM_TESTS_FUZZ_INPUT_H

#include <stddef.h>
#include <stdint.h>

struct input {
	const uint8_t *at;
	size_t left;
};

/* The next `bytes` (at most 8) bytes, little-endian. */
static inline uint64_t take(struct input *in, unsigned bytes)
{
	uint64_t value = 0;
	for (unsigned i = 0; i < bytes && in->left; i++, in->left--)
		value |= (uint64_t)*in->at++ << (8 * i);
	return value;
}

/* At most 4 bytes. */
static inline uint32_t take32(struct input *in, unsigned bytes)
{
	return (uint32_t)take(in, bytes);
}

#endif
