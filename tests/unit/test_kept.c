/*
 * Kept disks: what comes back, what is refused, and what a crash at any moment leaves.
 *
 * The crash test stands between the disk and the system: it sees every write, hole and sync, keeps what the last sync made stable, and now
 * and then makes the file that a crash at this very moment could leave, any sectors of what is not synced in it and any others not.
 */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <zlib.h>

#include "ext4gen/cow.h"

enum { BLOCK = 4096, SECTOR = 512, BLOCKS = 2100, MAP = 4096, DATA = 8192 };
#define SIZE ((uint64_t)BLOCKS * BLOCK)
#define FILE_BYTES (DATA + SIZE)
#define SECTORS (SIZE / SECTOR)

static char folder[] = "/tmp/trvmm-kept-XXXXXX";
static char path[64], other[64];
static struct error err;
static unsigned digests; /* how often the base was read for its digest */
static uint8_t base_kind; /* another base when it is another number */

static void set_up(void)
{
	cr_assert(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/disk", folder);
	snprintf(other, sizeof(other), "%s/other", folder);
}

static void clean_up(void)
{
	char command[96];
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	cr_assert(system(command) == 0);
}
TestSuite(kept, .init = set_up, .fini = clean_up);

/* ---- the base: each sector holds its own number ------------------------------------------------------------------------------- */

#define BASE_TAG(sector) (0xBA5E000000000000u + (sector))

static void fill(uint8_t *sector, uint64_t tag)
{
	for (unsigned i = 0; i < SECTOR; i += 8)
		memcpy(sector + i, &tag, 8);
}

/* Offsets and lengths are whole sectors here. */
static int base_readv(const void *base, uint64_t offset, const struct iovec *iov, unsigned count)
{
	(void)base;
	for (unsigned i = 0; i < count; i++)
		for (size_t at = 0; at < iov[i].iov_len; at += SECTOR, offset += SECTOR)
			fill((uint8_t *)iov[i].iov_base + at, BASE_TAG(offset / SECTOR));
	return 0;
}

static int base_digest(const void *base, uint8_t digest[COW_DIGEST_BYTES])
{
	(void)base;
	digests++;
	memset(digest, base_kind + 1, COW_DIGEST_BYTES);
	return 0;
}

static struct cow_binding binding_with(uint8_t stamp)
{
	struct cow_binding binding = { .digest = base_digest };
	memset(binding.stamp, stamp, sizeof(binding.stamp));
	return binding;
}

static int open_at(const char *at, enum cow_access access, uint64_t size, uint8_t stamp, struct cow **cow)
{
	const struct cow_binding binding = binding_with(stamp);
	err.text[0] = '\0';
	const int rc = cow_open_kept(at, access, size, base_readv, &binding, NULL, cow, &err);
	cr_assert((rc == 0) == (err.text[0] == '\0'), "%d '%s'", rc, err.text);
	cr_assert(!strchr(err.text, '\n'));
	return rc;
}

static struct cow *open_or_fail(void)
{
	struct cow *cow = NULL;
	cr_assert(open_at(path, COW_CHANGE, SIZE, 1, &cow) == 0, "%s", err.text);
	return cow;
}

static void write_tag(struct cow *cow, uint64_t sector, uint64_t count, uint64_t tag)
{
	static uint8_t bytes[64 * BLOCK];
	const struct iovec iov = { bytes, count * SECTOR };
	for (uint64_t i = 0; i < count; i++)
		fill(bytes + i * SECTOR, tag);
	cr_assert(cow_writev(cow, sector * SECTOR, &iov, 1) == 0);
}

static uint64_t read_tag(struct cow *cow, uint64_t sector)
{
	uint64_t words[SECTOR / 8];
	const struct iovec iov = { words, sizeof(words) };
	cr_assert(cow_readv(cow, sector * SECTOR, &iov, 1) == 0);
	for (unsigned i = 1; i < SECTOR / 8; i++)
		cr_assert(words[i] == words[0]);
	return words[0];
}

/* ---- what comes back ---------------------------------------------------------------------------------------------------------- */

Test(kept, changes_come_back)
{
	struct cow *cow = open_or_fail();
	cr_assert(digests == 1);
	write_tag(cow, 8, 8, 77);
	write_tag(cow, 17, 1, 78); /* a part of a block: the rest is the base's */
	cr_assert(cow_zero(cow, 1030ull * BLOCK, 3 * BLOCK) == 0);
	write_tag(cow, (BLOCKS - 1) * 8ull, 8, 79);
	cr_assert(cow_flush(cow) == 0);
	cow_destroy(cow);
	cow = open_or_fail();
	cr_assert(digests == 1, "the stamp was the same");
	cr_assert(read_tag(cow, 0) == BASE_TAG(0) && read_tag(cow, 8) == 77 && read_tag(cow, 15) == 77);
	cr_assert(read_tag(cow, 16) == BASE_TAG(16) && read_tag(cow, 17) == 78 && read_tag(cow, 18) == BASE_TAG(18));
	cr_assert(read_tag(cow, 1029 * 8) == BASE_TAG(1029 * 8) && read_tag(cow, 1030 * 8) == 0 && read_tag(cow, 1032 * 8 + 7) == 0);
	cr_assert(read_tag(cow, (BLOCKS - 1) * 8 + 7) == 79);
	uint64_t end;
	cr_assert(cow_run(cow, 0, &end) == COW_BASE && end == BLOCK);
	cr_assert(cow_run(cow, BLOCK + 1, &end) == COW_WRITTEN && end == 3 * BLOCK);
	cr_assert(cow_run(cow, 1031ull * BLOCK, &end) == COW_ZERO && end == 1033ull * BLOCK);
	cow_destroy(cow);
}

Test(kept, what_was_not_flushed_may_be_lost_but_is_never_strange)
{
	struct cow *cow = open_or_fail();
	write_tag(cow, 8, 8, 77);
	cow_destroy(cow);
	cow = open_or_fail();
	cr_assert(read_tag(cow, 8) == BASE_TAG(8));
	/* What a lost write left in the store does not shine through a later one of a part. */
	cr_assert(cow_zero(cow, BLOCK, BLOCK) == 0 && cow_flush(cow) == 0);
	write_tag(cow, 8, 8, 79);
	cow_destroy(cow);
	cow = open_or_fail();
	cr_assert(read_tag(cow, 8) == 0);
	write_tag(cow, 9, 1, 78);
	cr_assert(read_tag(cow, 8) == 0 && read_tag(cow, 9) == 78 && read_tag(cow, 10) == 0);
	cow_destroy(cow);
}

Test(kept, room_is_given_back)
{
	struct cow *cow = open_or_fail();
	for (uint64_t block = 0; block < 2048; block += 64)
		write_tag(cow, block * 8, 512, 5);
	cr_assert(cow_flush(cow) == 0);
	const uint64_t before = cow_used_bytes(cow);
	cr_assert(before >= 2048ull * BLOCK);
	cr_assert(cow_zero(cow, 0, SIZE) == 0 && cow_flush(cow) == 0);
	cr_assert(cow_used_bytes(cow) < 64ull * BLOCK, "%llu", (unsigned long long)cow_used_bytes(cow));
	cow_destroy(cow);
}

Test(kept, zeroing_what_is_zero_below_leaves_no_trace)
{
	struct cow *cow = open_or_fail();
	uint64_t end;
	cow_set_zero_from(cow, 1000ull * BLOCK);
	write_tag(cow, 1500 * 8, 8, 9);
	cr_assert(cow_zero(cow, 900ull * BLOCK, 800ull * BLOCK) == 0);
	cr_assert(cow_run(cow, 900ull * BLOCK, &end) == COW_ZERO && end == 1000ull * BLOCK);
	cr_assert(cow_run(cow, 1000ull * BLOCK, &end) == COW_BASE && end == SIZE);
	cow_destroy(cow);
}

Test(kept, many_may_look_and_one_may_change)
{
	struct cow *cow = open_or_fail(), *second, *third;
	cr_assert(open_at(path, COW_CHANGE, SIZE, 1, &second) == -EBUSY);
	cr_assert(strstr(err.text, "in use"), "%s", err.text);
	cr_assert(open_at(path, COW_LOOK, SIZE, 1, &second) == -EBUSY);
	cow_destroy(cow);
	cr_assert(open_at(path, COW_LOOK, SIZE, 1, &second) == 0 && open_at(path, COW_LOOK, SIZE, 1, &third) == 0);
	cr_assert(open_at(path, COW_CHANGE, SIZE, 1, &cow) == -EBUSY);
	cow_destroy(second);
	cow_destroy(third);
}

Test(kept, a_stamp_that_changed_is_made_good_by_the_digest)
{
	struct cow *cow;
	cow_destroy(open_or_fail());
	cr_assert(open_at(path, COW_LOOK, SIZE, 2, &cow) == 0 && digests == 2);
	cow_destroy(cow);
	cr_assert(open_at(path, COW_CHANGE, SIZE, 2, &cow) == 0 && digests == 3);
	cow_destroy(cow);
	cr_assert(open_at(path, COW_CHANGE, SIZE, 2, &cow) == 0 && digests == 3, "it was noted");
	cow_destroy(cow);
	cr_assert(open_at(path, COW_CHANGE, SIZE, 0, &cow) == 0 && digests == 4, "no stamp is no proof");
	cow_destroy(cow);
	cr_assert(open_at(path, COW_CHANGE, SIZE, 0, &cow) == 0 && digests == 5);
	cow_destroy(cow);
}

/* ---- what is refused ---------------------------------------------------------------------------------------------------------- */

/* The refusal names the file, and its reason has the word. */
static void refused(int code, const char *word)
{
	struct cow *cow;
	const int rc = open_at(path, COW_CHANGE, SIZE, 1, &cow);
	cr_assert(rc == code, "%d instead of %d: %s", rc, code, err.text);
	cr_assert(strstr(err.text, path) && strstr(err.text, word), "%s", err.text);
}

static void put(uint64_t offset, const void *bytes, size_t length)
{
	const int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	cr_assert(fd >= 0 && pwrite(fd, bytes, length, (off_t)offset) == (ssize_t)length);
	close(fd);
}

Test(kept, other_layers_and_sizes_are_refused)
{
	struct cow *cow;
	cow_destroy(open_or_fail());
	base_kind = 1;
	cr_assert(open_at(path, COW_CHANGE, SIZE, 9, &cow) == -ESTALE);
	cr_assert(strstr(err.text, "other layers"), "%s", err.text);
	base_kind = 0;
	cr_assert(open_at(path, COW_CHANGE, SIZE + BLOCK, 1, &cow) == -ESTALE);
	cr_assert(strstr(err.text, "8601600") && strstr(err.text, "8605696"), "%s", err.text);
}

Test(kept, what_is_no_kept_disk_is_refused)
{
	struct cow *cow;
	cr_assert(open_at(path, COW_LOOK, SIZE, 1, &cow) == -ENOENT);
	put(0, "", 0);
	refused(-EINVAL, "empty");
	put(0, "hello", 5);
	refused(-EINVAL, "no kept disk");
	char text[9000];
	memset(text, 'x', sizeof(text));
	put(0, text, sizeof(text));
	refused(-EINVAL, "no kept disk");
	cr_assert(unlink(path) == 0 && mkdir(path, 0700) == 0);
	refused(-EINVAL, "regular file");
	cr_assert(rmdir(path) == 0 && mkfifo(path, 0600) == 0);
	refused(-EINVAL, "regular file");
	cr_assert(unlink(path) == 0 && symlink("/dev/null", path) == 0);
	refused(-ELOOP, "symbolic link");
	cr_assert(open_at("/dev/null", COW_CHANGE, SIZE, 1, &cow) == -EINVAL);
	cr_assert(open_at("/no/such/folder/disk", COW_CHANGE, SIZE, 1, &cow) == -ENOENT);
	cr_assert(open_at("/proc/new", COW_CHANGE, SIZE, 1, &cow) < 0);
	cr_assert(unlink(path) == 0 && open_at(path, COW_CHANGE, 12345, 1, &cow) == -EINVAL);
	cr_assert(access(path, F_OK) < 0, "a failure leaves nothing behind");
}

Test(kept, a_file_that_cannot_be_written_is_refused)
{
	cow_destroy(open_or_fail());
	cr_assert(chmod(path, 0444) == 0 && chmod(folder, 0755) == 0);
	if (geteuid() == 0) /* whom permissions do not stop */
		cr_assert(seteuid(12345) == 0);
	refused(-EACCES, "denied");
	if (getuid() == 0)
		cr_assert(seteuid(0) == 0);
}

Test(kept, a_truncated_file_is_refused_at_every_length)
{
	cow_destroy(open_or_fail());
	static const uint64_t lengths[] = { 1, 15, 511, 512, 4095, 4096, 5000, DATA - 1, DATA, DATA + BLOCK, FILE_BYTES - 1 };
	for (size_t i = sizeof(lengths) / sizeof(lengths[0]); i-- > 0;) {
		cr_assert(truncate(path, (off_t)lengths[i]) == 0);
		refused(lengths[i] < SECTOR ? -EINVAL : -EBADMSG, lengths[i] < SECTOR ? "too short" : "truncated");
	}
	cr_assert(unlink(path) == 0);
	cow_destroy(open_or_fail());
	cr_assert(truncate(path, FILE_BYTES + 1) == 0);
	refused(-EBADMSG, "too long");
}

Test(kept, every_flipped_bit_of_header_and_map_is_refused)
{
	struct cow *cow = open_or_fail();
	write_tag(cow, 8, 8, 77);
	write_tag(cow, 1500 * 8, 8, 77);
	cr_assert(cow_flush(cow) == 0);
	cow_destroy(cow);
	const int fd = open(path, O_RDWR | O_CLOEXEC);
	static const uint64_t at[] = { 0, MAP, MAP + SECTOR };
	for (unsigned i = 0; i < 3; i++) {
		for (unsigned bit = 0; bit < SECTOR * 8; bit++) {
			uint8_t byte;
			const off_t offset = (off_t)(at[i] + bit / 8);
			cr_assert(pread(fd, &byte, 1, offset) == 1);
			byte ^= (uint8_t)(1 << bit % 8);
			cr_assert(pwrite(fd, &byte, 1, offset) == 1);
			const int rc = open_at(path, COW_LOOK, SIZE, 1, &cow);
			cr_assert(rc == -EBADMSG || (i == 0 && bit < 128 && rc == -EINVAL), "%d: %s", rc, err.text);
			byte ^= (uint8_t)(1 << bit % 8);
			cr_assert(pwrite(fd, &byte, 1, offset) == 1);
		}
	}
	/* A whole sector that has moved. */
	uint8_t sector[SECTOR];
	cr_assert(pread(fd, sector, SECTOR, MAP) == SECTOR && pwrite(fd, sector, SECTOR, MAP + 2 * SECTOR) == SECTOR);
	close(fd);
	refused(-EBADMSG, "sector 2");
}

/* Well-formed but for one thing: what a checksum does not catch. */
Test(kept, headers_and_maps_that_lie_are_refused)
{
	static const struct {
		uint64_t at; /* of the header or, from MAP on, of the first map sector */
		uint64_t value;
		unsigned bytes;
		int code;
		const char *word;
	} lies[] = {
		{ 16, 2, 4, -EINVAL, "version 2" },
		{ 20, 8192, 4, -EBADMSG, "cannot be" },
		{ 24, SIZE + 1, 8, -EBADMSG, "cannot be" },
		{ 24, SIZE + BLOCK, 8, -EBADMSG, "truncated" },
		{ 24, UINT64_MAX / BLOCK * BLOCK, 8, -EBADMSG, "cannot be" },
		{ 32, 0, 8, -EBADMSG, "cannot be" },
		{ 40, DATA + BLOCK, 8, -EBADMSG, "cannot be" },
		{ MAP + 8, 1, 8, -EBADMSG, "damaged at sector 0" },
		{ MAP + 16, 3, 8, -EBADMSG, "unknown state" },
	};
	for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
		struct cow *cow = open_or_fail();
		write_tag(cow, 8, 8, 77);
		cr_assert(cow_flush(cow) == 0);
		cow_destroy(cow);
		uint8_t sector[SECTOR];
		const int fd = open(path, O_RDWR | O_CLOEXEC);
		const off_t at = lies[i].at >= MAP ? MAP : 0;
		cr_assert(pread(fd, sector, SECTOR, at) == SECTOR);
		memcpy(sector + (lies[i].at - (uint64_t)at), &lies[i].value, lies[i].bytes);
		const uint32_t crc = (uint32_t)(at ? crc32(0, sector + 4, SECTOR - 4) : crc32(0, sector, SECTOR - 4));
		memcpy(at ? sector : sector + SECTOR - 4, &crc, 4);
		cr_assert(pwrite(fd, sector, SECTOR, at) == SECTOR);
		close(fd);
		refused(lies[i].code, lies[i].word);
		unlink(path);
	}
}

/* ---- crashes ------------------------------------------------------------------------------------------------------------------ */

struct change {
	uint64_t offset, length;
	uint8_t *bytes; /* owned; NULL: a hole */
};

static struct {
	int watched;         /* the disk's file while changes are seen; else 0 */
	uint8_t *stable;     /* the file as of the last sync */
	struct change pending[4096];
	unsigned count;
	uint64_t random;
	unsigned crashes;
	int fail_sync;       /* the errno that the next sync gets */
} world;

/* What a sector may hold after a crash: what was flushed, or anything written later. */
enum { LATER_MAX = 30 };
static struct {
	uint64_t flushed;
	uint64_t later[LATER_MAX];
	unsigned count;
} may[SECTORS];

static uint64_t random_below(uint64_t end)
{
	world.random = world.random * 6364136223846793005u + 1442695040888963407u;
	return (world.random >> 33) % end;
}

static bool allowed(uint64_t sector, uint64_t tag)
{
	if (tag == may[sector].flushed)
		return true;
	for (unsigned i = 0; i < may[sector].count; i++)
		if (may[sector].later[i] == tag)
			return true;
	return false;
}

/* Makes the file that a crash now could leave, and looks at all of the disk. */
static void crash(void)
{
	static uint8_t *image, *disk;
	const int watched = world.watched;
	world.watched = 0;
	world.crashes++;
	if (!image) {
		image = malloc(FILE_BYTES);
		disk = malloc(SIZE);
	}
	memcpy(image, world.stable, FILE_BYTES);
	const unsigned kept_of_ten = (unsigned)random_below(11);
	unsigned order[4096];
	for (unsigned i = 0; i < world.count; i++) {
		const unsigned at = (unsigned)random_below(i + 1);
		order[i] = order[at];
		order[at] = i;
	}
	for (unsigned i = 0; i < world.count; i++) {
		const struct change *change = &world.pending[order[i]];
		for (uint64_t at = 0; at < change->length; at += SECTOR) {
			if (random_below(10) >= kept_of_ten)
				continue;
			if (change->bytes)
				memcpy(image + change->offset + at, change->bytes + at, SECTOR);
			else
				memset(image + change->offset + at, 0, SECTOR);
		}
	}
	const int fd = open(other, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	cr_assert(fd >= 0 && pwrite(fd, image, FILE_BYTES, 0) == (ssize_t)FILE_BYTES);
	close(fd);
	struct cow *cow;
	cr_assert(open_at(other, COW_LOOK, SIZE, 1, &cow) == 0, "after a crash: %s", err.text);
	const struct iovec iov = { disk, SIZE };
	cr_assert(cow_readv(cow, 0, &iov, 1) == 0);
	for (uint64_t sector = 0; sector < SECTORS; sector++) {
		uint64_t tag;
		memcpy(&tag, disk + sector * SECTOR, 8);
		cr_assert(allowed(sector, tag), "crash %u: sector %llu holds %llx, flushed was %llx", world.crashes,
			  (unsigned long long)sector, (unsigned long long)tag, (unsigned long long)may[sector].flushed);
	}
	cow_destroy(cow);
	world.watched = watched;
}

static void note(uint64_t offset, uint64_t length, const struct iovec *iov, int iov_count)
{
	cr_assert(world.count < 4096 && offset % SECTOR == 0 && length % SECTOR == 0);
	struct change *change = &world.pending[world.count++];
	*change = (struct change){ .offset = offset, .length = length, .bytes = iov ? malloc(length) : NULL };
	uint64_t at = 0;
	for (int i = 0; i < iov_count; at += iov[i++].iov_len)
		memcpy(change->bytes + at, iov[i].iov_base, iov[i].iov_len);
	if (random_below(12) == 0)
		crash();
}

/* The system calls of the disk, which come here first. */
ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
	if (fd == world.watched && fd) {
		uint64_t length = 0;
		for (int i = 0; i < count; i++)
			length += iov[i].iov_len;
		note((uint64_t)offset, length, iov, count);
	}
	return syscall(SYS_pwritev, fd, iov, count, offset, 0);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset)
{
	struct iovec iov = { .iov_len = length };
	memcpy(&iov.iov_base, &bytes, sizeof(bytes)); /* only read */
	if (fd == world.watched && fd)
		note((uint64_t)offset, length, &iov, 1);
	return syscall(SYS_pwrite64, fd, bytes, length, offset);
}

int fallocate(int fd, int mode, off_t offset, off_t length)
{
	if (fd == world.watched && fd)
		note((uint64_t)offset, (uint64_t)length, NULL, 0);
	return (int)syscall(SYS_fallocate, fd, mode, offset, length);
}

int fdatasync(int fd)
{
	if (fd == 0 || fd != world.watched)
		return (int)syscall(SYS_fdatasync, fd);
	if (world.fail_sync) {
		errno = world.fail_sync;
		world.fail_sync = 0;
		return -1;
	}
	if (random_below(3) == 0)
		crash();
	for (unsigned i = 0; i < world.count; i++) {
		if (world.pending[i].bytes)
			memcpy(world.stable + world.pending[i].offset, world.pending[i].bytes, world.pending[i].length);
		else
			memset(world.stable + world.pending[i].offset, 0, world.pending[i].length);
		free(world.pending[i].bytes);
	}
	world.count = 0;
	if (random_below(3) == 0)
		crash();
	return 0;
}

/* Finds the descriptor of the disk's file. */
static int find_descriptor(void)
{
	struct stat wanted, st;
	cr_assert(stat(path, &wanted) == 0);
	for (int fd = 3; fd < 100; fd++)
		if (fstat(fd, &st) == 0 && st.st_ino == wanted.st_ino && st.st_dev == wanted.st_dev)
			return fd;
	cr_assert_fail("the disk's file is not open");
	return -1;
}

/* Sectors [first, end) will hold `tag`, or not, until the next flush. False: they have changed too often for this test. */
static bool will_hold(uint64_t first, uint64_t end, uint64_t tag)
{
	for (uint64_t sector = first; sector < end; sector++)
		if (may[sector].count == LATER_MAX)
			return false;
	for (uint64_t sector = first; sector < end; sector++)
		may[sector].later[may[sector].count++] = tag;
	return true;
}

static void flushed(void)
{
	for (uint64_t sector = 0; sector < SECTORS; sector++) {
		if (may[sector].count)
			may[sector].flushed = may[sector].later[may[sector].count - 1];
		may[sector].count = 0;
	}
}

static void crash_rounds(uint64_t seed, unsigned rounds)
{
	struct cow *cow = open_or_fail();
	world.random = seed;
	world.count = 0;
	world.stable = calloc(1, FILE_BYTES);
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	cr_assert(pread(fd, world.stable, DATA, 0) == DATA);
	close(fd);
	for (uint64_t sector = 0; sector < SECTORS; sector++) {
		may[sector].flushed = BASE_TAG(sector);
		may[sector].count = 0;
	}
	world.watched = find_descriptor();
	for (unsigned round = 1; round <= rounds; round++) {
		/* Often the same few blocks, around the border of two map sectors. */
		const uint64_t near = random_below(3) ? 1020 * 8 : 0;
		uint64_t first = near + random_below(near ? 64 : SECTORS - 512);
		uint64_t count = random_below(40) + 1;
		if (random_below(3)) {
			first -= first % 8;
			count = (count + 7) / 8 * 8;
		}
		switch (random_below(10)) {
		case 0:
			cr_assert(cow_flush(cow) == 0);
			flushed();
			break;
		case 1:
		case 2:
			count *= random_below(8) ? 1 : 10;
			if (will_hold(first, first + count, 0))
				cr_assert(cow_zero(cow, first * SECTOR, count * SECTOR) == 0);
			break;
		default:
			if (will_hold(first, first + count, round))
				write_tag(cow, first, count, round);
		}
	}
	crash();
	world.watched = 0;
	cow_destroy(cow);
	for (unsigned i = 0; i < world.count; i++)
		free(world.pending[i].bytes);
	free(world.stable);
	cr_assert(world.crashes > rounds / 20, "%u", world.crashes);
	unlink(path);
}

Test(kept, a_crash_at_any_moment_leaves_what_was_flushed)
{
	for (uint64_t seed = 1; seed <= 4; seed++)
		crash_rounds(seed, 700);
}

Test(kept, a_sync_that_failed_is_not_forgotten)
{
	struct cow *cow = open_or_fail();
	world.stable = calloc(1, FILE_BYTES);
	write_tag(cow, 8, 8, 77);
	world.watched = find_descriptor();
	world.fail_sync = EIO;
	cr_assert(cow_flush(cow) == -EIO);
	cr_assert(cow_flush(cow) == -EIO, "the system may have dropped what it could not write");
	world.watched = 0;
	cow_destroy(cow);
	free(world.stable);
}
