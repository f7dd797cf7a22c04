/* A kept disk's file; its format and what crashes do to it are told in kept_internal.h. */
#include "ext4gen/kept_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include "base/file_lock.h"
#include "base/iov.h"
#include "base/le.h"
#include "base/new_file.h"

#define KEPT_VERSION 1u
#define BLOCK_BYTES 4096u
#define SECTOR_BYTES 512u
#define MAP_OFFSET 4096u

static const char kept_magic[16] = "trvmm kept disk\n";

struct kept_header {
	char magic[16];
	le32 version;
	le32 block_bytes;
	le64 disk_bytes;
	le64 map_offset;
	le64 data_offset;
	uint8_t digest[COW_DIGEST_BYTES];
	uint8_t stamp[COW_DIGEST_BYTES];
	uint8_t reserved[508 - 112];
	le32 crc; /* of all before */
};
_Static_assert(sizeof(struct kept_header) == SECTOR_BYTES, "the header is a sector");
_Static_assert(offsetof(struct kept_header, digest) == 48 && offsetof(struct kept_header, stamp) == 80, "as drawn");

struct map_sector {
	le32 crc; /* of all behind */
	le32 zero;
	le64 number;
	le64 states[STATES_WORDS_PER_SECTOR];
	uint8_t reserved[SECTOR_BYTES - 272];
};
_Static_assert(sizeof(struct map_sector) == SECTOR_BYTES, "a map sector is a sector");
_Static_assert(offsetof(struct map_sector, reserved) == 272, "as drawn");

struct kept {
	int fd; /* owned; locked */
	uint64_t data_offset;
	uint64_t sector_count;
	int failed; /* what the first sync that failed said */
};

/* ---- header ------------------------------------------------------------------------------------------------------------------ */

static uint64_t divide_up(uint64_t a, uint64_t b)
{
	return a / b + (a % b != 0);
}

static uint64_t sector_count_of(uint64_t size_bytes)
{
	return divide_up(size_bytes / BLOCK_BYTES, STATES_PER_SECTOR);
}

static uint64_t data_offset_of(uint64_t size_bytes)
{
	return MAP_OFFSET + divide_up(sector_count_of(size_bytes) * SECTOR_BYTES, BLOCK_BYTES) * BLOCK_BYTES;
}

static le32 header_crc(const struct kept_header *header)
{
	return le32_make((uint32_t)crc32(0, (const Bytef *)header, offsetof(struct kept_header, crc)));
}

static le32 sector_crc(const struct map_sector *sector)
{
	return le32_make((uint32_t)crc32(0, (const Bytef *)&sector->zero, SECTOR_BYTES - sizeof(sector->crc)));
}

static int write_header(int fd, struct kept_header *header)
{
	header->crc = header_crc(header);
	return pwrite_full(fd, header, sizeof(*header), 0);
}

/* All but the binding. */
static int check_header(const struct kept_header *header, uint64_t file_bytes, uint64_t size_bytes, struct error *err)
{
	if (memcmp(header->magic, kept_magic, sizeof(kept_magic)) != 0)
		return error_set(err, -EINVAL, "is no kept disk of trvmm");
	const le32 crc = header_crc(header);
	if (memcmp(&crc, &header->crc, sizeof(crc)) != 0)
		return error_set(err, -EBADMSG, "its header is damaged");
	if (le32_get(header->version) != KEPT_VERSION)
		return error_set(err, -EINVAL, "has version %u of the format, and this trvmm knows version %u",
				 le32_get(header->version), KEPT_VERSION);
	const uint64_t disk_bytes = le64_get(header->disk_bytes);
	if (le32_get(header->block_bytes) != BLOCK_BYTES || disk_bytes % BLOCK_BYTES || disk_bytes > INT64_MAX / 2 ||
	    le64_get(header->map_offset) != MAP_OFFSET || le64_get(header->data_offset) != data_offset_of(disk_bytes))
		return error_set(err, -EBADMSG, "its header says what cannot be");
	if (file_bytes != data_offset_of(disk_bytes) + disk_bytes)
		return error_set(err, -EBADMSG, "is %s: it has %llu bytes instead of %llu",
				 file_bytes < data_offset_of(disk_bytes) + disk_bytes ? "truncated" : "too long",
				 (unsigned long long)file_bytes, (unsigned long long)(data_offset_of(disk_bytes) + disk_bytes));
	if (disk_bytes != size_bytes)
		return error_set(
		    err, -ESTALE,
		    "was made for a disk of %llu bytes, and these layers and options give %llu; use those that it was made with",
		    (unsigned long long)disk_bytes, (unsigned long long)size_bytes);
	return 0;
}

static bool stamp_is_set(const uint8_t stamp[COW_DIGEST_BYTES])
{
	static const uint8_t none[COW_DIGEST_BYTES];
	return memcmp(stamp, none, sizeof(none)) != 0;
}

/* Compares what the disk belongs to with what lies below now; notes a stamp that has changed. */
static int check_binding(int fd, enum cow_access access, struct kept_header *header, const struct cow_binding *binding,
			 const void *base, struct error *err)
{
	uint8_t digest[COW_DIGEST_BYTES];
	if (stamp_is_set(binding->stamp) && memcmp(binding->stamp, header->stamp, sizeof(header->stamp)) == 0)
		return 0;
	const int rc = binding->digest(base, digest);
	if (rc)
		return error_set(err, rc, "reading the layers to compare them: %s", strerror(-rc));
	if (memcmp(digest, header->digest, sizeof(digest)) != 0)
		return error_set(err, -ESTALE,
				 "belongs to other layers, or to a trvmm that lays them out in another way; use the same, or give "
				 "another file to --rw-disk");
	memcpy(header->stamp, binding->stamp, sizeof(header->stamp));
	/* A hint: the next start does without the digest. */
	if (access == COW_CHANGE)
		(void)write_header(fd, header);
	return 0;
}

/* ---- map --------------------------------------------------------------------------------------------------------------------- */

static int load_sector(struct block_states *states, uint64_t number, const struct map_sector *sector, struct error *err)
{
	static const struct map_sector never_written;
	uint64_t words[STATES_WORDS_PER_SECTOR];
	if (memcmp(sector, &never_written, sizeof(*sector)) == 0)
		return 0;
	const le32 crc = sector_crc(sector);
	if (memcmp(&crc, &sector->crc, sizeof(crc)) != 0 || le64_get(sector->number) != number)
		return error_set(err, -EBADMSG, "its map is damaged at sector %llu", (unsigned long long)number);
	for (unsigned i = 0; i < STATES_WORDS_PER_SECTOR; i++) {
		words[i] = le64_get(sector->states[i]);
		if (words[i] & words[i] >> 1 & 0x5555555555555555u)
			return error_set(err, -EBADMSG, "its map has an unknown state in sector %llu", (unsigned long long)number);
	}
	return block_states_load_sector(states, number, words) ? error_set(err, -ENOMEM, "no memory for its map") : 0;
}

/* Reads the map where it is no hole: that of a large disk is large. */
static int load_map(const struct kept *kept, struct block_states *states, struct error *err)
{
	struct map_sector sectors[STATES_SECTORS_PER_CHUNK];
	for (uint64_t number = 0; number < kept->sector_count;) {
		const off_t data = lseek(kept->fd, (off_t)(MAP_OFFSET + number * SECTOR_BYTES), SEEK_DATA);
		if (data < 0 && errno == ENXIO)
			return 0;
		if (data >= (off_t)(MAP_OFFSET + kept->sector_count * SECTOR_BYTES))
			return 0;
		if (data >= (off_t)(MAP_OFFSET + number * SECTOR_BYTES))
			number = ((uint64_t)data - MAP_OFFSET) / SECTOR_BYTES;
		uint64_t count = kept->sector_count - number;
		if (count > STATES_SECTORS_PER_CHUNK)
			count = STATES_SECTORS_PER_CHUNK;
		int rc = pread_full(kept->fd, sectors, count * SECTOR_BYTES, MAP_OFFSET + number * SECTOR_BYTES);
		if (rc)
			return error_set(err, rc, "reading its map: %s", strerror(-rc));
		for (uint64_t i = 0; i < count && rc == 0; i++)
			rc = load_sector(states, number + i, &sectors[i], err);
		if (rc)
			return rc;
		number += count;
	}
	return 0;
}

static void fill_sector(const struct block_states *states, uint64_t number, struct map_sector *sector)
{
	uint64_t words[STATES_WORDS_PER_SECTOR], any = 0;
	memset(sector, 0, sizeof(*sector));
	block_states_get_sector(states, number, words);
	for (unsigned i = 0; i < STATES_WORDS_PER_SECTOR; i++) {
		sector->states[i] = le64_make(words[i]);
		any |= words[i];
	}
	if (!any)
		return;
	sector->number = le64_make(number);
	sector->crc = sector_crc(sector);
}

/* Writes the changed sectors of a chunk, neighbours at once. */
static int write_chunk(const struct kept *kept, const struct block_states *states, uint64_t chunk)
{
	struct map_sector sectors[STATES_SECTORS_PER_CHUNK];
	uint64_t changed = states->changed[chunk];
	while (changed) {
		const unsigned first = (unsigned)__builtin_ctzll(changed);
		const uint64_t number = chunk * STATES_SECTORS_PER_CHUNK + first;
		unsigned count = 0;
		for (; first + count < STATES_SECTORS_PER_CHUNK && number + count < kept->sector_count &&
		       changed >> (first + count) & 1;
		     count++) {
			changed &= ~((uint64_t)1 << (first + count));
			fill_sector(states, number + count, &sectors[count]);
		}
		/* Blocks behind the end of the disk have no states: a chunk that was set as a whole may say that they changed. */
		if (count == 0)
			return 0;
		const int rc = pwrite_full(kept->fd, sectors, count * SECTOR_BYTES, MAP_OFFSET + number * SECTOR_BYTES);
		if (rc)
			return rc;
	}
	return 0;
}

int kept_write_map(struct kept *kept, struct block_states *states)
{
	for (uint64_t chunk = 0; chunk < states->chunk_count; chunk++) {
		const int rc = states->changed[chunk] ? write_chunk(kept, states, chunk) : 0;
		if (rc)
			return rc;
	}
	const int rc = kept_sync(kept);
	if (rc)
		return rc;
	memset(states->changed, 0, states->chunk_count * sizeof(*states->changed));
	states->any_changed = false;
	return 0;
}

int kept_sync(struct kept *kept)
{
	if (!kept->failed && fdatasync(kept->fd) < 0)
		kept->failed = -errno;
	return kept->failed;
}

/* ---- opening ----------------------------------------------------------------------------------------------------------------- */

/* -ENOENT without a text: it is not there. */
static int open_file(const char *path, enum cow_access access, struct stat *st, struct error *err)
{
	/* Not to wait for the other end of a fifo, nor to disturb a device. */
	if (lstat(path, st) < 0)
		return errno == ENOENT ? -ENOENT : error_set(err, -errno, "%s", strerror(errno));
	if (S_ISLNK(st->st_mode))
		return error_set(err, -ELOOP, "is a symbolic link; give the file itself");
	if (!S_ISREG(st->st_mode))
		return error_set(err, -EINVAL, "is no regular file");
	const int fd = open(path, (access == COW_CHANGE ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	if (fd < 0)
		return error_set(err, -errno, "%s", strerror(errno));
	int rc = file_lock(fd, access == COW_LOOK);
	if (rc == 0 && fstat(fd, st) < 0)
		rc = -errno;
	if (rc)
		error_set(err, rc, "%s", rc == -EBUSY ? "is in use by another trvmm" : strerror(-rc));
	if (rc == 0 && !S_ISREG(st->st_mode))
		rc = error_set(err, -EINVAL, "is no regular file");
	if (rc == 0)
		return fd;
	close(fd);
	return rc;
}

static int open_existing(struct kept *kept, enum cow_access access, uint64_t size_bytes, const struct stat *st,
			 const struct cow_binding *binding, const void *base, struct block_states *states, struct error *err)
{
	struct kept_header header = { .version = le32_make(0) };
	if ((uint64_t)st->st_size < sizeof(header))
		return error_set(err, -EINVAL, "is no kept disk of trvmm: it is %s; remove it, and it is made anew",
				 st->st_size ? "too short" : "empty");
	int rc = pread_full(kept->fd, &header, sizeof(header), 0);
	if (rc)
		return error_set(err, rc, "%s", strerror(-rc));
	rc = check_header(&header, (uint64_t)st->st_size, size_bytes, err);
	if (rc == 0)
		rc = check_binding(kept->fd, access, &header, binding, base, err);
	return rc ? rc : load_map(kept, states, err);
}

/* Makes the file; its name is the last thing that it gets. */
static int make_file(struct kept *kept, const char *path, uint64_t size_bytes, const struct cow_binding *binding, const void *base,
		     struct error *err)
{
	struct new_file file;
	struct kept_header header = {
		.version = le32_make(KEPT_VERSION),
		.block_bytes = le32_make(BLOCK_BYTES),
		.disk_bytes = le64_make(size_bytes),
		.map_offset = le64_make(MAP_OFFSET),
		.data_offset = le64_make(data_offset_of(size_bytes)),
	};
	memcpy(header.magic, kept_magic, sizeof(kept_magic));
	memcpy(header.stamp, binding->stamp, sizeof(header.stamp));
	int rc = new_file_create(&file, path, 0600);
	if (rc)
		return error_set(err, rc, "cannot be made: %s", strerror(-rc));
	rc = binding->digest(base, header.digest);
	if (rc) {
		error_set(err, rc, "reading the layers that it belongs to: %s", strerror(-rc));
		goto done;
	}
	rc = file_lock(file.fd, false);
	if (rc == 0 && ftruncate(file.fd, (off_t)(data_offset_of(size_bytes) + size_bytes)) < 0)
		rc = -errno;
	if (rc == 0)
		rc = write_header(file.fd, &header);
	if (rc == 0 && fsync(file.fd) < 0)
		rc = -errno;
	if (rc == 0)
		rc = new_file_commit(&file, false);
	if (rc)
		error_set(err, rc, "cannot be made: %s", strerror(-rc));
	else
		kept->fd = new_file_take_fd(&file);
done:
	new_file_abandon(&file);
	return rc;
}

int kept_open(const char *path, enum cow_access access, uint64_t size_bytes, const struct cow_binding *binding, const void *base,
	      struct block_states *states, struct kept **result, struct error *err)
{
	struct stat st;
	char quoted[512];
	struct kept *kept = calloc(1, sizeof(*kept));
	if (!kept)
		return error_set(err, -ENOMEM, "out of memory");
	*kept = (struct kept){ .fd = -1, .data_offset = data_offset_of(size_bytes), .sector_count = sector_count_of(size_bytes) };
	int rc = open_file(path, access, &st, err);
	if (rc >= 0) {
		kept->fd = rc;
		rc = open_existing(kept, access, size_bytes, &st, binding, base, states, err);
	} else if (rc == -ENOENT && access == COW_CHANGE) {
		rc = make_file(kept, path, size_bytes, binding, base, err);
	} else if (rc == -ENOENT) {
		error_set(err, rc, "there is no such file");
	}
	if (rc < 0) {
		kept_close(kept);
		return error_prefix(err, rc, "kept disk '%s'", error_quote(quoted, sizeof(quoted), path, strlen(path)));
	}
	*result = kept;
	return 0;
}

void kept_close(struct kept *kept)
{
	if (!kept)
		return;
	if (kept->fd >= 0)
		close(kept->fd);
	free(kept);
}

int kept_fd(const struct kept *kept)
{
	return kept->fd;
}

uint64_t kept_data_offset(const struct kept *kept)
{
	return kept->data_offset;
}
