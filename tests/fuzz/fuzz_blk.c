/*
 * libFuzzer target: block requests. The input is a list of chains, which hold a header of likely or of raw values, split anywhere, and data
 * and status of any size at any place of guest RAM, with the header itself and the rings among them.
 *
 * The disk asserts its contract (contract_disk.h). As many chains come back as were taken; a read-only disk stays as it was.
 */
#include <linux/virtio_blk.h>

#include "devices/virtio-blk/virtio_blk.h"
#include "tests/fuzz/contract_disk.h"
#include "tests/fuzz/input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RAM_BYTES 0x10000u
#define QUEUE_SIZE 32
#define HEADER_AT (FAKE_RAM_BASE + 0x2000u)
#define TABLE_AT (FAKE_RAM_BASE + 0x2800u)
#define DATA_AT (FAKE_RAM_BASE + 0x3000u)
#define CHAIN_MAX 8u

static struct fake_ram ram;
static struct fake_queue drv;
static struct contract_disk disk;
static struct virtio_device *dev;

static void ignore_interrupt(struct virtio_device *device)
{
	(void)device;
}

static gpa_t take_place(struct input *in)
{
	const uint64_t kind = take(in, 1);
	if (kind % 16 == 0)
		return take(in, 8);
	if (kind % 16 == 1)
		return fake_ram_end(&ram) - take(in, 2);
	if (kind % 16 == 2)
		return FAKE_RAM_BASE + take(in, 2) % 0x3000;
	return DATA_AT + (kind >> 4) * 512 + take(in, 1);
}

static void write_header(struct input *in)
{
	static const uint32_t types[] = { VIRTIO_BLK_T_IN,
					  VIRTIO_BLK_T_OUT,
					  VIRTIO_BLK_T_FLUSH,
					  VIRTIO_BLK_T_GET_ID,
					  VIRTIO_BLK_T_DISCARD,
					  VIRTIO_BLK_T_WRITE_ZEROES,
					  2,
					  UINT32_MAX };
	const uint64_t how = take(in, 1);
	const struct {
		le32 type, reserved;
		le64 sector;
	} header = {
		.type = le32_make(how & 8 ? (uint32_t)take(in, 4) : types[how & 7]),
		.sector = le64_make(how & 16 ? take(in, 8) : take(in, 1) % 80),
	};
	memcpy(fake_at(&ram, HEADER_AT), &header, sizeof(header));
	/* A segment of discard or write-zeroes. */
	for (unsigned i = 0; how & 32 && i < 4; i++) {
		const struct {
			le64 sector;
			le32 count, flags;
		} range = { le64_make(take(in, 1) % 80), le32_make((uint32_t)take(in, 1) % 80),
			    le32_make((uint32_t)take(in, 1) & 3) };
		memcpy(fake_at(&ram, DATA_AT + 16 * i), &range, sizeof(range));
	}
}

static void put(gpa_t table, unsigned *count, gpa_t at, uint64_t length, unsigned flags)
{
	fake_table_desc(&ram, table, *count, at, (uint32_t)length, flags | FAKE_NEXT, *count + 1);
	++*count;
}

/* A header in up to three parts, data, status. */
static void put_request(struct input *in)
{
	const uint64_t how = take(in, 2);
	const gpa_t table = how & 1 ? TABLE_AT : drv.desc;
	unsigned count = 0, at = 0;

	write_header(in);
	for (unsigned i = 0; i < (how >> 1 & 3); i++) {
		const unsigned part = (unsigned)take(in, 1) % 17;
		put(table, &count, HEADER_AT + at, part, 0);
		at = at + part > 16 ? 16 : at + part;
	}
	if (how & 8)
		put(table, &count, HEADER_AT + at, 16 - at, 0);
	for (unsigned i = 0; i < (how >> 4 & 3); i++) {
		const unsigned flags = how & 0x40 ? FAKE_WRITE : 0;
		const uint64_t length = how & 0x80 ? take(in, 1) * 512 : take(in, 4);
		const gpa_t place = how & 0x2000 ? DATA_AT + 512 * i : take_place(in);
		put(table, &count, place, length, flags);
	}
	if (how & 0x100)
		put(table, &count, how & 0x200 ? take_place(in) : DATA_AT + 0x4000, how & 0x400 ? take(in, 1) : 1, FAKE_WRITE);
	if (count)
		fake_put16(&ram, table + 16 * (count - 1) + 12,
			   fake_get16(&ram, table + 16 * (count - 1) + 12) & ~FAKE_NEXT & 0xffff);
	if (how & 1)
		fake_desc(&drv, 0, TABLE_AT, 16 * count + (how & 0x800 ? 16 : 0), FAKE_INDIRECT, 0);
	for (unsigned i = 0; i <= (how >> 12 & 1); i++)
		fake_publish(&drv, 0);
}

static void start(struct input *in)
{
	const uint64_t how = take(in, 1);
	struct virtio_blk *blk;

	if (!ram.bytes)
		fake_ram_init(&ram, RAM_BYTES);
	memset(ram.bytes, 0, RAM_BYTES);
	contract_disk_init(&disk, &ram, how & 1, how & 4);
	const int made = virtio_blk_create(NULL, &ram.mem, &disk.disk, &blk);
	assert(made == 0);
	dev = virtio_blk_device(blk);
	dev->interrupt = ignore_interrupt;
	fake_queue_init(&drv, &ram, FAKE_RAM_BASE, QUEUE_SIZE);
	const struct virtq_config config = fake_queue_config(&drv);
	const int enabled = virtq_enable(&dev->queues[0], &ram.mem, &config, how & 2);
	assert(enabled == 0);
	dev->active = true;
	const int active = dev->ops->activate(dev);
	assert(active == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { .at = data, .left = size };

	start(&in);
	while (in.left && dev->active) {
		put_request(&in);
		dev->ops->notify(dev, 0);
		/* Whatever the rings say by now: what was taken has come back. */
		assert(dev->queues[0].next_used == dev->queues[0].next_avail);
	}
	if (disk.disk.read_only)
		for (unsigned i = 0; i < CONTRACT_DISK_BYTES; i++)
			assert(disk.bytes[i] == 0xda);
	dev->ops->reset(dev);
	virtio_blk_destroy((struct virtio_blk *)dev);
	return 0;
}
