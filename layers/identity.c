/* How files, boots and bytes are told from others without looking at all of them. See cache_internal.h. */
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "layers/cache.h"

struct file_identity file_identity_of(const struct stat *st)
{
	return (struct file_identity){
		.device = st->st_dev,
		.inode = st->st_ino,
		.size_bytes = (uint64_t)st->st_size,
		.mtime_s = st->st_mtim.tv_sec,
		.mtime_ns = (uint32_t)st->st_mtim.tv_nsec,
		.ctime_s = st->st_ctim.tv_sec,
		.ctime_ns = (uint32_t)st->st_ctim.tv_nsec,
	};
}

uint64_t file_identity_number(const struct stat *st)
{
	const struct file_identity identity = file_identity_of(st);
	return cache_checksum(0, &identity, sizeof(identity)) | 1;
}

uint64_t file_stamp(const struct stat *st)
{
	const int64_t stamp[3] = { st->st_size, st->st_mtim.tv_sec, st->st_mtim.tv_nsec };
	return cache_checksum(0, stamp, sizeof(stamp)) | 1;
}

bool file_identity_is_settled(const struct file_identity *identity)
{
	struct timespec now;
	if (clock_gettime(CLOCK_REALTIME, &now))
		return false;
	/*
	 * Linux stamps with the tick (10 ms at most); a ctime of whole seconds comes from a file system that counts in up to two.
	 */
	const int64_t needed_ns = identity->ctime_ns ? 50000000 : 2000000000;
	const int64_t age_s = now.tv_sec - identity->ctime_s;
	if (age_s > 10)
		return true;
	return age_s >= 0 && age_s * 1000000000 + now.tv_nsec - identity->ctime_ns >= needed_ns;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool boot_id_read(uint8_t id[BOOT_ID_BYTES])
{
	char text[64];
	const int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	const ssize_t n = read(fd, text, sizeof(text));
	close(fd);
	unsigned digits = 0;
	memset(id, 0, BOOT_ID_BYTES);
	for (ssize_t i = 0; i < n && digits < 2 * BOOT_ID_BYTES; i++) {
		const int digit = hex_digit(text[i]);
		if (digit < 0) /* the dashes */
			continue;
		id[digits / 2] = (uint8_t)(id[digits / 2] << 4 | digit);
		digits++;
	}
	return digits == 2 * BOOT_ID_BYTES;
}

#define CHECKSUM_ODD 0x9fb21c651e98df25u

/* "Xor a word, multiply, rotate" is a bijection of the lane, so a change of one word always changes the result. */
static inline uint64_t mix(uint64_t lane, const uint8_t *at)
{
	uint64_t word;
	memcpy(&word, at, sizeof(word));
	const uint64_t mixed = (lane ^ word) * CHECKSUM_ODD;
	return mixed << 29 | mixed >> 35;
}

/* Four lanes, written out, hide each other's latency. */
static inline void mix_block(uint64_t lanes[4], const uint8_t *block)
{
	lanes[0] = mix(lanes[0], block);
	lanes[1] = mix(lanes[1], block + 8);
	lanes[2] = mix(lanes[2], block + 16);
	lanes[3] = mix(lanes[3], block + 24);
}

uint64_t cache_checksum(uint64_t seed, const void *data, size_t length)
{
	uint64_t lanes[4] = { seed ^ 1, seed ^ 2, seed ^ 3, seed ^ 4 };
	const uint8_t *at = data;
	size_t left = length;
	for (; left >= 32; left -= 32, at += 32)
		mix_block(lanes, at);
	if (left) {
		uint8_t last[32] = { 0 };
		memcpy(last, at, left);
		mix_block(lanes, last);
	}
	uint64_t sum = length * CHECKSUM_ODD;
	for (unsigned i = 0; i < 4; i++) {
		sum = (sum ^ lanes[i]) * CHECKSUM_ODD;
		sum ^= sum >> 32;
	}
	return sum;
}
