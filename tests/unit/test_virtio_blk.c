/* devices/virtio-blk: requests over a disk in memory that can be told to fail. */
#include <criterion/criterion.h>
#include <errno.h>
#include <linux/virtio_blk.h>
#include <stdio.h>
#include <string.h>

#include "base/iov.h"
#include "devices/virtio-blk/virtio_blk.h"
#include "tests/unit/fake_driver.h"

#define RAM_BYTES 0x80000u
#define QUEUE_SIZE 128
#define SECTORS 64u
#define DISK_BYTES (SECTORS * 512u)
#define NO_STATUS 0xee /* what lies in the status byte before */

struct memory_disk {
	struct disk disk; /* first */
	uint8_t bytes[DISK_BYTES];
	int fail; /* -errno of each operation, 0: none fails */
	unsigned fail_after; /* operations that still succeed */
	unsigned reads, writes, flushes, discards, zeroes;
	bool may_unmap;
};

static struct memory_disk disk;
static struct fake_ram ram;
static struct fake_queue drv;
static struct virtio_blk *blk;
static struct virtio_device *dev;
static unsigned interrupts;
static gpa_t header_at, data_at, status_at, table_at;

static int outcome(uint64_t offset, uint64_t length)
{
	/* What disk.h rules out. (What fails in a .fini function is not counted by Criterion.) */
	assert(offset % 512 == 0 && length % 512 == 0 && offset <= DISK_BYTES && length <= DISK_BYTES - offset);
	return disk.fail && !disk.fail_after ? disk.fail : (disk.fail_after -= disk.fail != 0, 0);
}

static int memory_readv(struct disk *base, uint64_t offset, const struct iovec *iov, unsigned count)
{
	(void)base;
	disk.reads++;
	const int result = outcome(offset, iov_total(iov, count));
	if (result == 0)
		iov_copy_in(iov, count, 0, disk.bytes + offset, iov_total(iov, count));
	return result;
}

static int memory_writev(struct disk *base, uint64_t offset, const struct iovec *iov, unsigned count)
{
	(void)base;
	disk.writes++;
	assert(!disk.disk.read_only);
	const int result = outcome(offset, iov_total(iov, count));
	if (result == 0)
		iov_copy_out(iov, count, 0, disk.bytes + offset, iov_total(iov, count));
	return result;
}

static int memory_flush(struct disk *base)
{
	(void)base;
	disk.flushes++;
	return outcome(0, 0);
}

static int memory_discard(struct disk *base, uint64_t offset, uint64_t length)
{
	(void)base;
	disk.discards++;
	assert(!disk.disk.read_only);
	const int result = outcome(offset, length);
	if (result == 0)
		memset(disk.bytes + offset, 0, length);
	return result;
}

static int memory_write_zeroes(struct disk *base, uint64_t offset, uint64_t length, bool may_unmap)
{
	(void)base;
	disk.zeroes++;
	assert(!disk.disk.read_only);
	disk.may_unmap = may_unmap;
	const int result = outcome(offset, length);
	if (result == 0)
		memset(disk.bytes + offset, 0, length);
	return result;
}

static void memory_destroy(struct disk *base)
{
	(void)base;
}

static const struct disk_ops memory_ops = {
	.readv = memory_readv,
	.writev = memory_writev,
	.flush = memory_flush,
	.discard = memory_discard,
	.write_zeroes = memory_write_zeroes,
	.destroy = memory_destroy,
};

static unsigned batches[100], batch_count; /* how many transfers came together */

/* The last one first: any order is allowed. */
static void memory_transfer(struct disk *base, struct disk_transfer *transfers, unsigned count)
{
	assert(count && count <= DISK_TRANSFERS_MAX);
	batches[batch_count++ % 100] = count;
	for (unsigned i = count; i--;) {
		struct disk_transfer *t = &transfers[i];
		assert(t->count);
		t->result = (t->write ? memory_writev : memory_readv)(base, t->offset, t->iov, t->count);
	}
}

static const struct disk_ops batch_ops = {
	.readv = memory_readv,
	.writev = memory_writev,
	.transfer = memory_transfer,
	.flush = memory_flush,
	.discard = memory_discard,
	.write_zeroes = memory_write_zeroes,
	.destroy = memory_destroy,
};

static void count_interrupt(struct virtio_device *device)
{
	(void)device;
	interrupts++;
}

static void start_disk_with(const struct disk_ops *ops, bool read_only)
{
	uint64_t seed = 13;
	disk.disk = (struct disk){ .ops = ops, .size_bytes = DISK_BYTES, .read_only = read_only };
	memcpy(disk.disk.id, "a name of twenty by!", DISK_ID_BYTES);
	fake_fill(&seed, disk.bytes, sizeof(disk.bytes));
	fake_ram_init(&ram, RAM_BYTES);
	cr_assert_eq(virtio_blk_create(NULL, &ram.mem, &disk.disk, &blk), 0);
	dev = virtio_blk_device(blk);
	dev->interrupt = count_interrupt;
	header_at = fake_queue_init(&drv, &ram, FAKE_RAM_BASE, QUEUE_SIZE);
	status_at = header_at + 32;
	table_at = header_at + 64;
	data_at = table_at + 0x1000;
	const struct virtq_config config = fake_queue_config(&drv);
	cr_assert_eq(virtq_enable(&dev->queues[0], &ram.mem, &config, false), 0);
	dev->active = true;
	cr_assert_eq(dev->ops->activate(dev), 0);
}

static void start_disk(bool read_only)
{
	start_disk_with(&memory_ops, read_only);
}

static void start(void)
{
	start_disk(false);
}

static void start_batch(void)
{
	start_disk_with(&batch_ops, false);
}

static void stop(void)
{
	virtio_blk_destroy(blk);
	fake_ram_destroy(&ram);
}

TestSuite(blk, .init = start, .fini = stop);
TestSuite(blk_batch, .init = start_batch, .fini = stop);

static void put_header(uint32_t type, uint64_t sector)
{
	const struct {
		le32 type, reserved;
		le64 sector;
	} header = { le32_make(type), le32_make(0), le64_make(sector) };
	memcpy(fake_at(&ram, header_at), &header, sizeof(header));
	*fake_at(&ram, status_at) = NO_STATUS;
}

static uint8_t status(void)
{
	return *fake_at(&ram, status_at);
}

/* Notifies the device, and takes back what must be head 0. Returns the written length. */
static uint32_t run(void)
{
	uint32_t head = 0, length = 0;
	fake_publish(&drv, 0);
	dev->ops->notify(dev, 0);
	cr_assert(dev->active, "the device broke");
	cr_assert(fake_used(&drv, &head, &length), "no answer");
	cr_assert_eq(head, 0);
	return length;
}

/* Header, data of `length` bytes (unless 0) and the status, a descriptor for each. Returns the written length. */
static uint32_t request(uint32_t type, uint64_t sector, uint32_t length, bool to_device)
{
	put_header(type, sector);
	fake_desc(&drv, 0, header_at, 16, FAKE_NEXT, length ? 1 : 2);
	fake_desc(&drv, 1, data_at, length, FAKE_NEXT | (to_device ? 0 : FAKE_WRITE), 2);
	fake_desc(&drv, 2, status_at, 1, FAKE_WRITE, 0);
	return run();
}

static uint8_t *data(void)
{
	return fake_at(&ram, data_at);
}

/* ---- read and write --------------------------------------------------------------------------------------------------------- */

Test(blk, read_gives_the_sectors)
{
	cr_assert_eq(request(VIRTIO_BLK_T_IN, 3, 1024, false), 1025);
	cr_assert_eq(status(), VIRTIO_BLK_S_OK);
	cr_assert(!memcmp(data(), disk.bytes + 3 * 512, 1024));
	cr_assert_eq(interrupts, 1);
}

Test(blk, a_limit_makes_requests_wait)
{
	/* 100 at once, and then one in 10 ms. */
	virtio_blk_set_limit(blk, &(struct throttle_limit){ .ops_per_s = 100 });
	const uint64_t begin = throttle_now_ns();
	for (unsigned i = 0; i < 110; i++) {
		cr_assert_eq(request(VIRTIO_BLK_T_IN, 3, 512, false), 513);
		cr_assert_eq(status(), VIRTIO_BLK_S_OK);
	}
	cr_expect(throttle_now_ns() - begin >= 80000000);
}

Test(blk, write_changes_the_sectors_and_no_others)
{
	uint8_t before[DISK_BYTES];
	memcpy(before, disk.bytes, sizeof(before));
	memset(data(), 0x77, 1024);
	cr_assert_eq(request(VIRTIO_BLK_T_OUT, 5, 1024, true), 1);
	cr_assert_eq(status(), VIRTIO_BLK_S_OK);
	memset(before + 5 * 512, 0x77, 1024);
	cr_assert(!memcmp(before, disk.bytes, sizeof(before)));
}

Test(blk, transfers_are_counted_and_refused_ones_are_not)
{
	struct virtio_blk_stats stats;
	request(VIRTIO_BLK_T_IN, 3, 1024, false);
	request(VIRTIO_BLK_T_IN, 0, 512, false);
	request(VIRTIO_BLK_T_OUT, 0, 512, true);
	request(VIRTIO_BLK_T_IN, SECTORS, 512, false);
	request(VIRTIO_BLK_T_FLUSH, 0, 0, false);
	virtio_blk_get_stats(blk, &stats);
	cr_expect_eq(stats.reads, 2);
	cr_expect_eq(stats.read_bytes, 1536);
	cr_expect_eq(stats.writes, 1);
	cr_expect_eq(stats.written_bytes, 512);
}

Test(blk, whole_disk_and_last_sector)
{
	request(VIRTIO_BLK_T_IN, 0, DISK_BYTES, false);
	cr_assert_eq(status(), VIRTIO_BLK_S_OK);
	cr_assert(!memcmp(data(), disk.bytes, DISK_BYTES));
	request(VIRTIO_BLK_T_IN, SECTORS - 1, 512, false);
	cr_assert_eq(status(), VIRTIO_BLK_S_OK);
	cr_assert(!memcmp(data(), disk.bytes + DISK_BYTES - 512, 512));
}

static void expect_error(uint32_t type, uint64_t sector, uint32_t length)
{
	const unsigned before = disk.reads + disk.writes;
	const uint32_t written = request(type, sector, length, type == VIRTIO_BLK_T_OUT);
	cr_assert_eq(status(), VIRTIO_BLK_S_IOERR);
	cr_assert(written <= 1, "%u bytes are said to be written", written);
	cr_assert_eq(disk.reads + disk.writes, before);
}

Test(blk, range_over_the_end_is_an_error)
{
	expect_error(VIRTIO_BLK_T_IN, SECTORS - 1, 1024);
	expect_error(VIRTIO_BLK_T_OUT, SECTORS - 1, 1024);
	expect_error(VIRTIO_BLK_T_IN, SECTORS, 512);
	expect_error(VIRTIO_BLK_T_OUT, 0, DISK_BYTES + 512);
	expect_error(VIRTIO_BLK_T_IN, SECTORS + 1, 0);
}

Test(blk, sector_that_overflows_is_an_error)
{
	const uint64_t sectors[] = { UINT64_MAX,       UINT64_MAX - 1, 1ull << 63,     1ull << 55,
				     (1ull << 55) + 1, 1ull << 32,     INT64_MAX / 512 };
	for (unsigned i = 0; i < sizeof(sectors) / sizeof(sectors[0]); i++) {
		expect_error(VIRTIO_BLK_T_IN, sectors[i], 512);
		expect_error(VIRTIO_BLK_T_OUT, sectors[i], 1024);
	}
}

Test(blk, length_that_is_no_multiple_of_512_is_an_error)
{
	const uint32_t lengths[] = { 1, 511, 513, 1023 };
	for (unsigned i = 0; i < 4; i++) {
		expect_error(VIRTIO_BLK_T_IN, 0, lengths[i]);
		expect_error(VIRTIO_BLK_T_OUT, 0, lengths[i]);
	}
}

Test(blk, zero_length_data_is_done_without_the_disk)
{
	cr_assert_eq(request(VIRTIO_BLK_T_IN, 0, 0, false), 1);
	cr_assert_eq(status(), VIRTIO_BLK_S_OK);
	cr_assert_eq(request(VIRTIO_BLK_T_OUT, SECTORS, 0, true), 1);
	cr_assert_eq(status(), VIRTIO_BLK_S_OK);
	cr_assert(disk.reads == 0 && disk.writes == 0);
}

Test(blk, host_errors_become_ioerr)
{
	const int errors[] = { -EIO, -ENOSPC, -ENOMEM, -EINVAL };
	for (unsigned i = 0; i < 4; i++) {
		disk.fail = errors[i];
		cr_assert(request(VIRTIO_BLK_T_IN, 0, 512, false) <= 1);
		cr_assert_eq(status(), VIRTIO_BLK_S_IOERR);
		request(VIRTIO_BLK_T_OUT, 0, 512, true);
		cr_assert_eq(status(), VIRTIO_BLK_S_IOERR);
		request(VIRTIO_BLK_T_FLUSH, 0, 0, true);
		cr_assert_eq(status(), VIRTIO_BLK_S_IOERR);
	}
	/* The device goes on. */
	disk.fail = 0;
	request(VIRTIO_BLK_T_IN, 0, 512, false);
	cr_assert_eq(status(), VIRTIO_BLK_S_OK);
}

Test(blk, flush)
{
	cr_assert_eq(request(VIRTIO_BLK_T_FLUSH, 0, 0, true), 1);
	cr_assert(status() == VIRTIO_BLK_S_OK && disk.flushes == 1);
}

/* ---- where the driver may split --------------------------------------------------------------------------------------------- */

Test(blk, header_split_at_every_byte)
{
	for (uint32_t at = 0; at <= 16; at++) {
		put_header(VIRTIO_BLK_T_IN, at);
		fake_desc(&drv, 0, header_at, at, FAKE_NEXT, 1);
		fake_desc(&drv, 1, header_at + at, 16 - at, FAKE_NEXT, 2);
		fake_desc(&drv, 2, data_at, 512, FAKE_WRITE | FAKE_NEXT, 3);
		fake_desc(&drv, 3, status_at, 1, FAKE_WRITE, 0);
		cr_assert_eq(run(), 513);
		cr_assert_eq(status(), VIRTIO_BLK_S_OK);
		cr_assert(!memcmp(data(), disk.bytes + at * 512, 512));
	}
}

Test(blk, header_in_sixteen_descriptors)
{
	put_header(VIRTIO_BLK_T_IN, 9);
	for (unsigned i = 0; i < 16; i++)
		fake_desc(&drv, i, header_at + i, 1, FAKE_NEXT, i + 1);
	fake_desc(&drv, 16, data_at, 512, FAKE_WRITE | FAKE_NEXT, 17);
	fake_desc(&drv, 17, status_at, 1, FAKE_WRITE, 0);
	cr_assert_eq(run(), 513);
	cr_assert(!memcmp(data(), disk.bytes + 9 * 512, 512));
}

/* 2.6.4: the device may not rely on the framing; header and data may share a descriptor. */
Test(blk, header_and_data_in_one_descriptor)
{
	put_header(VIRTIO_BLK_T_OUT, 2);
	memcpy(fake_at(&ram, data_at), fake_at(&ram, header_at), 16);
	memset(fake_at(&ram, data_at + 16), 0x42, 512);
	fake_desc(&drv, 0, data_at, 16 + 512, FAKE_NEXT, 1);
	fake_desc(&drv, 1, status_at, 1, FAKE_WRITE, 0);
	cr_assert_eq(run(), 1);
	cr_assert_eq(status(), VIRTIO_BLK_S_OK);
	for (unsigned i = 0; i < 512; i++)
		cr_assert_eq(disk.bytes[2 * 512 + i], 0x42);
}

Test(blk, status_byte_behind_the_data_in_one_descriptor)
{
	put_header(VIRTIO_BLK_T_IN, 1);
	*fake_at(&ram, data_at + 512) = NO_STATUS;
	*fake_at(&ram, data_at + 513) = 0x99;
	fake_desc(&drv, 0, header_at, 16, FAKE_NEXT, 1);
	fake_desc(&drv, 1, data_at, 513, FAKE_WRITE, 0);
	cr_assert_eq(run(), 513);
	cr_assert(!memcmp(data(), disk.bytes + 512, 512));
	cr_assert_eq(*fake_at(&ram, data_at + 512), VIRTIO_BLK_S_OK);
	cr_assert_eq(*fake_at(&ram, data_at + 513), 0x99);
}

Test(blk, random_splits_read_and_write_the_same_bytes)
{
	uint64_t seed = 14;
	for (unsigned round = 0; round < 600; round++) {
		const bool write = fake_below(&seed, 2);
		const uint32_t sectors = 1 + fake_below(&seed, 8), length = sectors * 512;
		const uint64_t sector = fake_below(&seed, SECTORS - sectors + 1);
		uint8_t before[DISK_BYTES];
		memcpy(before, disk.bytes, sizeof(before));
		fake_fill(&seed, data(), length);
		put_header(write ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN, sector);
		unsigned entry = 0;
		for (uint32_t at = 0; at < 16;) {
			const uint32_t take = 1 + fake_below(&seed, 16 - at);
			fake_table_desc(&ram, table_at, entry, header_at + at, take, FAKE_NEXT, entry + 1);
			at += take;
			entry++;
		}
		for (uint32_t at = 0; at < length;) {
			const uint32_t take = entry < 100 ? 1 + fake_below(&seed, length - at) : length - at;
			fake_table_desc(&ram, table_at, entry, data_at + at, take, FAKE_NEXT | (write ? 0 : FAKE_WRITE), entry + 1);
			at += take;
			entry++;
		}
		fake_table_desc(&ram, table_at, entry, status_at, 1, FAKE_WRITE, 0);
		fake_desc(&drv, 0, table_at, 16 * (entry + 1), FAKE_INDIRECT, 0);
		cr_assert_eq(run(), write ? 1 : length + 1);
		cr_assert_eq(status(), VIRTIO_BLK_S_OK);
		if (write)
			memcpy(before + sector * 512, data(), length);
		cr_assert(!memcmp(before, disk.bytes, sizeof(before)));
		cr_assert(!memcmp(data(), disk.bytes + sector * 512, length));
	}
}

Test(blk, most_segments_that_the_queue_holds)
{
	put_header(VIRTIO_BLK_T_IN, 0);
	fake_desc(&drv, 0, header_at, 16, FAKE_NEXT, 1);
	for (unsigned i = 1; i < QUEUE_SIZE - 1; i++)
		fake_desc(&drv, i, data_at + (i - 1) * 256, 256, FAKE_WRITE | FAKE_NEXT, i + 1);
	fake_desc(&drv, QUEUE_SIZE - 1, status_at, 1, FAKE_WRITE, 0);
	cr_assert_eq(run(), (QUEUE_SIZE - 2) * 256 + 1);
	cr_assert_eq(status(), VIRTIO_BLK_S_OK);
	cr_assert(!memcmp(data(), disk.bytes, (QUEUE_SIZE - 2) * 256));
}

/* ---- requests that are none ------------------------------------------------------------------------------------------------- */

Test(blk, chain_with_a_head_only_goes_back)
{
	put_header(VIRTIO_BLK_T_IN, 0);
	fake_desc(&drv, 0, header_at, 16, 0, 0);
	cr_assert_eq(run(), 0);
	fake_desc(&drv, 0, status_at, 1, FAKE_WRITE, 0);
	cr_assert_eq(run(), 0);
	cr_assert_eq(status(), NO_STATUS);
	cr_assert(disk.reads + disk.writes + disk.flushes == 0);
}

Test(blk, chain_without_a_writable_byte_goes_back)
{
	put_header(VIRTIO_BLK_T_OUT, 0);
	fake_desc(&drv, 0, header_at, 16, FAKE_NEXT, 1);
	fake_desc(&drv, 1, data_at, 512, FAKE_NEXT, 2);
	fake_desc(&drv, 2, status_at, 0, FAKE_WRITE, 0);
	cr_assert_eq(run(), 0);
	cr_assert_eq(disk.writes, 0);
}

Test(blk, header_that_is_too_short_goes_back)
{
	for (uint32_t length = 0; length < 16; length++) {
		put_header(VIRTIO_BLK_T_IN, 0);
		fake_desc(&drv, 0, header_at, length, FAKE_NEXT, 1);
		fake_desc(&drv, 1, data_at, 513, FAKE_WRITE, 0);
		cr_assert_eq(run(), 0);
	}
	cr_assert_eq(disk.reads, 0);
}

Test(blk, unknown_types_are_unsupported)
{
	/* SCSI commands and their kin, a secure erase and zones (not offered), and what nobody has defined. */
	const uint32_t types[] = { 2, 3, 5, 6, 7, 9, 10, 12, 14, 15, 16, 17, 18, 20, 24, 26, 0x80000000, 0x80000001, UINT32_MAX };
	for (unsigned i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		request(types[i], 0, 512, false);
		cr_assert_eq(status(), VIRTIO_BLK_S_UNSUPP, "type %u", types[i]);
		request(types[i], 0, 0, true);
		cr_assert_eq(status(), VIRTIO_BLK_S_UNSUPP, "type %u", types[i]);
	}
	cr_assert(disk.reads + disk.writes + disk.flushes + disk.discards + disk.zeroes == 0);
}

Test(blk, malformed_ring_stops_the_device)
{
	fake_desc(&drv, 0, 0xd0000000, 16, 0, 0);
	fake_publish(&drv, 0);
	dev->ops->notify(dev, 0);
	cr_assert(!dev->active);
	cr_assert_eq(interrupts, 1);
}

/* ---- get-id ----------------------------------------------------------------------------------------------------------------- */

Test(blk, get_id_gives_twenty_bytes)
{
	memset(data(), 0xaa, 40);
	cr_assert_eq(request(VIRTIO_BLK_T_GET_ID, 0, 20, false), 21);
	cr_assert_eq(status(), VIRTIO_BLK_S_OK);
	cr_assert(!memcmp(data(), "a name of twenty by!\xaa", 21));
}

Test(blk, get_id_with_other_room)
{
	memset(data(), 0xaa, 40);
	cr_assert_eq(request(VIRTIO_BLK_T_GET_ID, 0, 30, false), 20);
	cr_assert(status() == VIRTIO_BLK_S_OK && !memcmp(data(), "a name of twenty by!\xaa", 21));
	memset(data(), 0xaa, 40);
	cr_assert_eq(request(VIRTIO_BLK_T_GET_ID, 0, 6, false), 7);
	cr_assert(status() == VIRTIO_BLK_S_OK && !memcmp(data(), "a name\xaa", 7));
	cr_assert_eq(request(VIRTIO_BLK_T_GET_ID, 0, 0, false), 1);
	cr_assert_eq(status(), VIRTIO_BLK_S_OK);
}

/* ---- discard and write-zeroes ----------------------------------------------------------------------------------------------- */

static void put_range(unsigned index, uint64_t sector, uint32_t sectors, uint32_t flags)
{
	const struct {
		le64 sector;
		le32 sectors, flags;
	} range = { le64_make(sector), le32_make(sectors), le32_make(flags) };
	memcpy(data() + 16 * index, &range, sizeof(range));
}

static uint8_t ranges(uint32_t type, uint32_t bytes)
{
	cr_assert(request(type, 0, bytes, true) <= 1);
	return status();
}

Test(blk, discard_makes_zeroes_of_its_range_only)
{
	uint8_t before[DISK_BYTES];
	memcpy(before, disk.bytes, sizeof(before));
	put_range(0, 8, 16, 0);
	cr_assert_eq(ranges(VIRTIO_BLK_T_DISCARD, 16), VIRTIO_BLK_S_OK);
	memset(before + 8 * 512, 0, 16 * 512);
	cr_assert(!memcmp(before, disk.bytes, sizeof(before)));
	cr_assert(disk.discards == 1 && disk.zeroes == 0);
}

Test(blk, write_zeroes_passes_the_unmap_flag)
{
	put_range(0, 1, 2, 0);
	cr_assert_eq(ranges(VIRTIO_BLK_T_WRITE_ZEROES, 16), VIRTIO_BLK_S_OK);
	cr_assert(disk.zeroes == 1 && !disk.may_unmap);
	put_range(0, 1, 2, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);
	cr_assert_eq(ranges(VIRTIO_BLK_T_WRITE_ZEROES, 16), VIRTIO_BLK_S_OK);
	cr_assert(disk.zeroes == 2 && disk.may_unmap);
	for (unsigned i = 512; i < 3 * 512; i++)
		cr_assert_eq(disk.bytes[i], 0);
}

Test(blk, several_ranges_in_one_request)
{
	for (unsigned i = 0; i < 16; i++)
		put_range(i, 4 * i, 1, 0);
	cr_assert_eq(ranges(VIRTIO_BLK_T_DISCARD, 16 * 16), VIRTIO_BLK_S_OK);
	cr_assert_eq(disk.discards, 16);
	for (unsigned i = 17; i < 40; i++)
		put_range(i, 0, 1, 0);
	cr_assert_eq(ranges(VIRTIO_BLK_T_DISCARD, 17 * 16), VIRTIO_BLK_S_IOERR);
	cr_assert_eq(disk.discards, 16);
}

Test(blk, ranges_of_odd_length_are_an_error)
{
	const uint32_t lengths[] = { 0, 1, 15, 17, 24, 31 };
	memset(data(), 0, 64);
	for (unsigned i = 0; i < 6; i++) {
		cr_assert_eq(ranges(VIRTIO_BLK_T_DISCARD, lengths[i]), VIRTIO_BLK_S_IOERR);
		cr_assert_eq(ranges(VIRTIO_BLK_T_WRITE_ZEROES, lengths[i]), VIRTIO_BLK_S_IOERR);
	}
	cr_assert(disk.discards == 0 && disk.zeroes == 0);
}

/* 5.2.6.2: unmap with discard, and any reserved flag, is unsupported. */
Test(blk, ranges_with_other_flags_are_unsupported)
{
	put_range(0, 0, 1, VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP);
	cr_assert_eq(ranges(VIRTIO_BLK_T_DISCARD, 16), VIRTIO_BLK_S_UNSUPP);
	for (unsigned bit = 1; bit < 32; bit++) {
		put_range(0, 0, 1, 1u << bit);
		cr_assert_eq(ranges(VIRTIO_BLK_T_DISCARD, 16), VIRTIO_BLK_S_UNSUPP);
		cr_assert_eq(ranges(VIRTIO_BLK_T_WRITE_ZEROES, 16), VIRTIO_BLK_S_UNSUPP);
	}
	cr_assert(disk.discards == 0 && disk.zeroes == 0);
}

Test(blk, ranges_outside_the_disk_are_an_error)
{
	static const struct {
		uint64_t sector;
		uint32_t sectors;
	} bad[] = { { SECTORS, 1 },    { SECTORS - 1, 2 }, { 0, SECTORS + 1 }, { UINT64_MAX, 1 }, { UINT64_MAX, 2 },
		    { 1ull << 55, 1 }, { 0, UINT32_MAX },  { 1, UINT32_MAX },  { SECTORS + 1, 0 } };
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		put_range(0, bad[i].sector, bad[i].sectors, 0);
		cr_assert_eq(ranges(VIRTIO_BLK_T_DISCARD, 16), VIRTIO_BLK_S_IOERR);
		cr_assert_eq(ranges(VIRTIO_BLK_T_WRITE_ZEROES, 16), VIRTIO_BLK_S_IOERR);
	}
	cr_assert(disk.discards == 0 && disk.zeroes == 0);
}

Test(blk, one_bad_range_spoils_the_request_before_it_begins)
{
	put_range(0, 0, 8, 0);
	put_range(1, SECTORS, 8, 0);
	cr_assert_eq(ranges(VIRTIO_BLK_T_DISCARD, 32), VIRTIO_BLK_S_IOERR);
	put_range(1, 0, 8, 4);
	cr_assert_eq(ranges(VIRTIO_BLK_T_DISCARD, 32), VIRTIO_BLK_S_UNSUPP);
	cr_assert_eq(disk.discards, 0);
}

Test(blk, ranges_stop_at_a_host_error)
{
	for (unsigned i = 0; i < 4; i++)
		put_range(i, i, 1, 0);
	disk.fail = -ENOSPC;
	disk.fail_after = 2;
	cr_assert_eq(ranges(VIRTIO_BLK_T_WRITE_ZEROES, 64), VIRTIO_BLK_S_IOERR);
	cr_assert_eq(disk.zeroes, 3);
}

Test(blk, ranges_split_anywhere)
{
	for (uint32_t at = 0; at <= 32; at++) {
		put_range(0, 2, 1, 0);
		put_range(1, 4, 1, 0);
		put_header(VIRTIO_BLK_T_DISCARD, 0);
		fake_desc(&drv, 0, header_at, 16, FAKE_NEXT, 1);
		fake_desc(&drv, 1, data_at, at, FAKE_NEXT, 2);
		fake_desc(&drv, 2, data_at + at, 32 - at, FAKE_NEXT, 3);
		fake_desc(&drv, 3, status_at, 1, FAKE_WRITE, 0);
		run();
		cr_assert_eq(status(), VIRTIO_BLK_S_OK);
		cr_assert_eq(disk.discards, 2 * (at + 1));
	}
}

/* ---- a read-only disk ------------------------------------------------------------------------------------------------------- */

static void start_read_only(void)
{
	start_disk(true);
}

TestSuite(blk_read_only, .init = start_read_only, .fini = stop);

Test(blk_read_only, offers_ro_and_no_discard)
{
	cr_assert(dev->device_features & (1ull << VIRTIO_BLK_F_RO));
	cr_assert(!(dev->device_features & (1ull << VIRTIO_BLK_F_DISCARD | 1ull << VIRTIO_BLK_F_WRITE_ZEROES)));
}

Test(blk_read_only, changes_are_errors)
{
	uint8_t before[DISK_BYTES];
	memcpy(before, disk.bytes, sizeof(before));
	put_range(0, 0, 8, 0);
	request(VIRTIO_BLK_T_OUT, 0, 512, true);
	cr_assert_eq(status(), VIRTIO_BLK_S_IOERR);
	request(VIRTIO_BLK_T_OUT, 0, 0, true);
	cr_assert_eq(status(), VIRTIO_BLK_S_IOERR);
	cr_assert_eq(ranges(VIRTIO_BLK_T_DISCARD, 16), VIRTIO_BLK_S_IOERR);
	cr_assert_eq(ranges(VIRTIO_BLK_T_WRITE_ZEROES, 16), VIRTIO_BLK_S_IOERR);
	cr_assert(!memcmp(before, disk.bytes, sizeof(before)));
	cr_assert(disk.writes + disk.discards + disk.zeroes == 0);
}

Test(blk_read_only, reads_and_flushes)
{
	cr_assert_eq(request(VIRTIO_BLK_T_IN, 0, 512, false), 513);
	cr_assert_eq(status(), VIRTIO_BLK_S_OK);
	request(VIRTIO_BLK_T_FLUSH, 0, 0, true);
	cr_assert_eq(status(), VIRTIO_BLK_S_OK);
}

/* ---- configuration ---------------------------------------------------------------------------------------------------------- */

Test(blk, config_space_tells_the_disk)
{
	const struct virtio_blk_config *config = dev->config;
	cr_assert_eq(le64toh(config->capacity), SECTORS);
	cr_assert_eq(le32toh(config->blk_size), 512);
	cr_assert_eq(le32toh(config->seg_max), QUEUE_SIZE - 2);
	cr_assert(le32toh(config->max_discard_seg) == 16 && le32toh(config->max_write_zeroes_seg) == 16);
	cr_assert(le32toh(config->max_discard_sectors) > 0 && le32toh(config->max_write_zeroes_sectors) > 0);
	cr_assert(dev->ops->device_id == 2 && dev->ops->queue_count == 1 && dev->ops->queue_size_max[0] == QUEUE_SIZE);
	cr_assert(!(dev->device_features & (1ull << VIRTIO_BLK_F_RO)));
	cr_assert(!(dev->device_features & ~((1ull << 24) - 1)), "a device offers its own bits only");
}

Test(blk, destroy_of_null_is_allowed)
{
	virtio_blk_destroy(NULL);
	disk_destroy(NULL);
}

/* ---- anything --------------------------------------------------------------------------------------------------------------- */

static void answer_random_requests(uint64_t seed)
{
	for (unsigned round = 0; round < 20000; round++) {
		const uint32_t types[] = { 0, 1, 4, 8, 11, 13, fake_below(&seed, 30), (uint32_t)fake_random(&seed) };
		put_header(types[fake_below(&seed, 8)], fake_below(&seed, 4) ? fake_below(&seed, SECTORS + 3) : fake_random(&seed));
		for (unsigned i = 0; i < 4; i++)
			put_range(i, fake_below(&seed, SECTORS + 2), fake_below(&seed, 9), fake_below(&seed, 3));
		const unsigned count = 1 + fake_below(&seed, 6);
		const unsigned readable = fake_below(&seed, count + 1);
		for (unsigned i = 0; i < count; i++) {
			const uint32_t lengths[] = { 0, 1, 16, 32, 512, 1024, fake_below(&seed, 5000), fake_below(&seed, 64) };
			const gpa_t at = i == 0 ? header_at : data_at + (fake_below(&seed, 3) ? 0 : fake_below(&seed, 100));
			const uint32_t length = i == 0 && fake_below(&seed, 8) ? 16 : lengths[fake_below(&seed, 8)];
			fake_desc(&drv, i, at, length, (i >= readable ? FAKE_WRITE : 0) | (i + 1 < count ? FAKE_NEXT : 0), i + 1);
		}
		disk.fail = fake_below(&seed, 20) ? 0 : -EIO;
		disk.fail_after = 0;
		uint32_t writable = 0;
		for (unsigned i = readable; i < count; i++)
			writable += fake_get32(&ram, drv.desc + 16ull * i + 8);
		cr_assert(run() <= writable);
	}
}

Test(blk, random_requests_are_all_answered)
{
	answer_random_requests(15);
}

Test(blk_batch, random_requests_are_all_answered)
{
	answer_random_requests(16);
}

/* ---- several at once --------------------------------------------------------------------------------------------------------- */

enum { EACH = 0x1000, REQUEST_STATUS = 0x20, REQUEST_DATA = 0x200 };

static uint8_t *part_of(unsigned i, unsigned offset)
{
	return fake_at(&ram, data_at + i * EACH + offset);
}

/* Publishes request number `i` of two sectors, with a header, data and a status of its own. */
static void publish(unsigned i, uint32_t type, uint64_t sector)
{
	const gpa_t at = data_at + i * EACH;
	const uint16_t head = (uint16_t)(3 * i);
	put_header(type, sector);
	memcpy(part_of(i, 0), fake_at(&ram, header_at), 16);
	*part_of(i, REQUEST_STATUS) = NO_STATUS;
	fake_desc(&drv, head, at, 16, FAKE_NEXT, type == VIRTIO_BLK_T_FLUSH ? head + 2u : head + 1u);
	fake_desc(&drv, head + 1u, at + REQUEST_DATA, 1024, FAKE_NEXT | (type == VIRTIO_BLK_T_IN ? FAKE_WRITE : 0), head + 2u);
	fake_desc(&drv, head + 2u, at + REQUEST_STATUS, 1, FAKE_WRITE, 0);
	fake_publish(&drv, head);
}

/* All are answered, each once. Returns the lengths. */
static void take_answers(unsigned count, uint32_t *lengths)
{
	bool seen[40] = { false };
	uint32_t head, length;
	dev->ops->notify(dev, 0);
	for (unsigned i = 0; i < count; i++) {
		cr_assert(fake_used(&drv, &head, &length), "request %u has no answer", i);
		cr_assert(head % 3 == 0 && head / 3 < count && !seen[head / 3]);
		seen[head / 3] = true;
		lengths[head / 3] = length;
	}
	cr_assert_not(fake_used(&drv, &head, &length));
}

Test(blk_batch, what_waits_is_handed_over_together)
{
	enum { COUNT = DISK_TRANSFERS_MAX + 7 };
	uint32_t lengths[COUNT];
	uint8_t before[DISK_BYTES];
	memcpy(before, disk.bytes, sizeof(before));
	for (unsigned i = 0; i < COUNT; i++) {
		memset(part_of(i, REQUEST_DATA), (int)i + 1, 1024);
		publish(i, i % 2 ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_IN, 2 * i);
	}
	take_answers(COUNT, lengths);
	cr_assert(batch_count == 2 && batches[0] == DISK_TRANSFERS_MAX && batches[1] == 7);
	for (unsigned i = 0; i < COUNT; i++) {
		const bool write = i % 2;
		cr_assert_eq(*part_of(i, REQUEST_STATUS), VIRTIO_BLK_S_OK);
		cr_assert_eq(lengths[i], write ? 1 : 1025);
		cr_assert(memcmp(part_of(i, REQUEST_DATA), write ? disk.bytes + 1024 * i : before + 1024 * i, 1024) == 0,
			  "request %u", i);
		cr_assert(!write || disk.bytes[1024 * i] == i + 1);
	}
	cr_assert(interrupts == 1 || interrupts == 2);
}

Test(blk_batch, a_flush_and_what_is_refused_come_after_what_was_before)
{
	uint32_t lengths[5];
	publish(0, VIRTIO_BLK_T_OUT, 0);
	publish(1, VIRTIO_BLK_T_OUT, 2);
	publish(2, VIRTIO_BLK_T_FLUSH, 0);
	publish(3, VIRTIO_BLK_T_IN, SECTORS); /* outside */
	publish(4, VIRTIO_BLK_T_IN, 0);
	take_answers(5, lengths);
	cr_assert(batch_count == 2 && batches[0] == 2 && batches[1] == 1 && disk.flushes == 1 && disk.writes == 2);
	cr_assert_eq(*part_of(3, REQUEST_STATUS), VIRTIO_BLK_S_IOERR);
	cr_assert(*part_of(2, REQUEST_STATUS) == VIRTIO_BLK_S_OK && *part_of(4, REQUEST_STATUS) == VIRTIO_BLK_S_OK);
}

Test(blk_batch, each_has_its_own_error)
{
	uint32_t lengths[4];
	disk.fail = -EIO;
	disk.fail_after = 2; /* of four, from the last on */
	for (unsigned i = 0; i < 4; i++)
		publish(i, VIRTIO_BLK_T_IN, 2 * i);
	take_answers(4, lengths);
	for (unsigned i = 0; i < 4; i++) {
		cr_assert_eq(*part_of(i, REQUEST_STATUS), i < 2 ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK);
		cr_assert_eq(lengths[i], i < 2 ? 0 : 1025);
	}
}

Test(blk_batch, what_was_taken_before_a_malformed_chain_is_answered)
{
	uint32_t head, length;
	publish(0, VIRTIO_BLK_T_OUT, 0);
	fake_desc(&drv, 3, 0xd0000000, 16, 0, 0);
	fake_publish(&drv, 3);
	dev->ops->notify(dev, 0);
	cr_assert(!dev->active && batch_count == 1 && disk.writes == 1);
	cr_assert(fake_used(&drv, &head, &length) && head == 0);
	cr_assert_not(fake_used(&drv, &head, &length));
}

/* ---- data in shared memory of devices ----------------------------------------------------------------------------------------- */

static uint8_t *shm;

static void add_shm(void)
{
	shm = fake_shm_add(&ram);
	dev->queues[0].takes_shm = dev->ops->takes_shm;
}

static void start_shm(void)
{
	start();
	add_shm();
	data_at = FAKE_SHM_BASE;
}

static void start_batch_shm(void)
{
	start_batch();
	add_shm();
}

static void stop_shm(void)
{
	fake_shm_destroy(shm);
	stop();
}

TestSuite(blk_shm, .init = start_shm, .fini = stop_shm);
TestSuite(blk_batch_shm, .init = start_batch_shm, .fini = stop_shm);

Test(blk_shm, data_may_be_there)
{
	cr_assert_eq(request(VIRTIO_BLK_T_IN, 3, 1024, false), 1025);
	cr_assert(status() == VIRTIO_BLK_S_OK && !memcmp(shm, disk.bytes + 3 * 512, 1024));
	memset(shm, 0x77, 1024);
	cr_assert_eq(request(VIRTIO_BLK_T_OUT, 5, 1024, true), 1);
	cr_assert(status() == VIRTIO_BLK_S_OK && !memcmp(shm, disk.bytes + 5 * 512, 1024));
}

Test(blk_shm, what_is_gone_fails_the_request)
{
	uint8_t before[DISK_BYTES];
	memcpy(before, disk.bytes, sizeof(before));
	data_at = FAKE_SHM_BASE + 4096 - 512;
	cr_assert_eq(request(VIRTIO_BLK_T_OUT, 5, 1024, true), 1);
	cr_assert_eq(status(), VIRTIO_BLK_S_IOERR);
	cr_assert(disk.writes == 0 && !memcmp(before, disk.bytes, sizeof(before)));
	cr_assert_eq(request(VIRTIO_BLK_T_IN, 3, 1024, false), 0);
	cr_assert_eq(status(), VIRTIO_BLK_S_IOERR);
	data_at = FAKE_SHM_BASE;
	cr_assert_eq(request(VIRTIO_BLK_T_IN, 3, 1024, false), 1025, "the disk works on");
}

Test(blk_shm, a_failure_of_the_disk_leaves_it_alone)
{
	memset(shm, 0x77, 1024);
	disk.fail = -EIO;
	cr_assert_eq(request(VIRTIO_BLK_T_IN, 3, 1024, false), 0);
	cr_assert(status() == VIRTIO_BLK_S_IOERR && shm[0] == 0x77 && shm[1023] == 0x77);
}

Test(blk_shm, more_than_is_copied_fails_the_request)
{
	cr_assert_eq(request(VIRTIO_BLK_T_IN, 0, 8u << 20, false), 0);
	cr_assert(status() == VIRTIO_BLK_S_IOERR && disk.reads == 0);
}

Test(blk_shm, a_status_there_is_not_written)
{
	put_header(VIRTIO_BLK_T_IN, 3);
	shm[0] = NO_STATUS;
	fake_desc(&drv, 0, header_at, 16, FAKE_NEXT, 1);
	fake_desc(&drv, 1, FAKE_SHM_BASE, 1, FAKE_WRITE, 0);
	cr_assert_eq(run(), 0);
	cr_assert(shm[0] == NO_STATUS && disk.reads == 0);
}

Test(blk_batch_shm, it_is_served_after_what_was_before)
{
	uint32_t lengths[3];
	memset(shm, 0x77, 1024);
	memset(part_of(0, REQUEST_DATA), 0x11, 1024);
	publish(0, VIRTIO_BLK_T_OUT, 0);
	publish(1, VIRTIO_BLK_T_OUT, 0);
	fake_desc(&drv, 4, FAKE_SHM_BASE, 1024, FAKE_NEXT, 5);
	publish(2, VIRTIO_BLK_T_IN, 0);
	take_answers(3, lengths);
	cr_assert(batch_count == 2 && batches[0] == 1 && disk.writes == 2);
	cr_assert(!memcmp(disk.bytes, shm, 1024) && !memcmp(part_of(2, REQUEST_DATA), shm, 1024));
}
