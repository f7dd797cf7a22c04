/*
 * Two processors: one submits requests, the other rewrites, at the same time, what the device is reading: descriptors, rings,
 * headers, indirect tables; or uses the registers of the same device. The device may serve a request, refuse it or stop until a
 * reset; it must not touch anything but guest RAM and the sectors that were named, which the runner checks. Run
 * with `--cpus 2`.
 */
#include "tests/guests/guest.h"

#define SIZE 128u
#define ROUND_US 150000ull
#define END ((uint64_t)WORLD_MEMORY_BYTES)

static struct device disk, ro_disk;
static struct blk_header header;
/* As long as the longest read that a changed length asks for, or the guest would overwrite itself. */
static uint64_t data[8 * WORLD_SECTOR_WORDS] __attribute__((aligned(4096)));
static volatile uint8_t status;
static struct vring_desc table[4] __attribute__((aligned(16)));

/* ---- what processor 1 does ---- */

static void change_addresses(uint32_t random)
{
	static const uint64_t addresses[] = { END, END - 256, 0xd0000000, UINT64_MAX - 255, 1ull << 63, 0x2000 };
	const unsigned index = random % 3;
	const uint64_t good = index == 0 ? (uint64_t)&header : index == 1 ? (uint64_t)data : (uint64_t)&status;
	disk.queues[0].desc[index].addr = addresses[(random >> 4) % 6];
	disk.queues[0].desc[index].addr = good;
}

static void change_lengths(uint32_t random)
{
	static const uint32_t lengths[] = { 0, 1, 513, 1024, 4096, WORLD_MEMORY_BYTES, UINT32_MAX, 0x80000000 };
	disk.queues[0].desc[1].len = lengths[random % 8];
	disk.queues[0].desc[1].len = WORLD_SECTOR_BYTES;
}

static void change_links(uint32_t random)
{
	const unsigned index = random % 3;
	disk.queues[0].desc[index].next = (uint16_t)(random >> 2 & 1 ? random >> 4 : (random >> 4) % 4);
	disk.queues[0].desc[index].flags = (uint16_t)((random >> 12) % 8);
	disk.queues[0].desc[index].next = (uint16_t)(index + 1);
	disk.queues[0].desc[index].flags = index == 0   ? VRING_DESC_F_NEXT
					   : index == 1 ? VRING_DESC_F_NEXT | VRING_DESC_F_WRITE
							: VRING_DESC_F_WRITE;
}

static void change_avail(uint32_t random)
{
	disk.queues[0].avail[2 + random % SIZE] = (uint16_t)(random >> 7 & 1 ? random >> 8 : (random >> 8) % 4);
	if (random % 64 == 0)
		disk.queues[0].avail[1] = (uint16_t)(random >> 6);
}

/* Never a kind that writes: what the disk holds is checked. */
static void change_header(uint32_t random)
{
	static const uint32_t types[] = { VIRTIO_BLK_T_IN, VIRTIO_BLK_T_GET_ID, VIRTIO_BLK_T_FLUSH, 2, UINT32_MAX };
	static const uint64_t sectors[] = { 0, 1, WORLD_DISK_SECTORS - 1, WORLD_DISK_SECTORS, 1ull << 55, UINT64_MAX };
	header.type = types[random % 5];
	header.sector = sectors[(random >> 4) % 6];
}

static void change_table(uint32_t random)
{
	const unsigned index = random % 3;
	table[index].len = random >> 2 & 1 ? UINT32_MAX : 512;
	table[index].addr = random >> 3 & 1 ? END - 256 : (uint64_t)data;
	table[index].flags = (uint16_t)((random >> 4) % 8);
	table[index].next = (uint16_t)((random >> 8) % 5);
	disk.queues[0].desc[0].len = (random >> 12) % 5 * 16;
	disk.queues[0].desc[0].len = 48;
}

static void change_everything(uint32_t random)
{
	static void (*const changes[])(uint32_t) = { change_addresses, change_lengths, change_links, change_avail, change_header };
	changes[random % 5](random >> 3);
}

static void change_and_reset(uint32_t random)
{
	if (random % 512 == 0)
		reg_write(&disk, VIRTIO_MMIO_STATUS, 0);
	else
		change_everything(random);
}

static void notify(uint32_t random)
{
	reg_write(&disk, VIRTIO_MMIO_QUEUE_NOTIFY, random % 2);
	reg_write(&disk, VIRTIO_MMIO_INTERRUPT_ACK, random);
	(void)reg_read(&disk, VIRTIO_MMIO_INTERRUPT_STATUS);
	(void)mmio_read64(disk.base + VIRTIO_MMIO_CONFIG);
}

static void reset(uint32_t random)
{
	if (random % 4)
		delay_us(random % 128);
	else
		reg_write(&disk, VIRTIO_MMIO_STATUS, 0);
}

/* Both set up one device at once. Rings that are in RAM have memory of their own: nothing there is a request that writes. */
static void write_registers(uint32_t random)
{
	static const uint16_t registers[] = { VIRTIO_MMIO_QUEUE_SEL,       VIRTIO_MMIO_QUEUE_NUM,
					      VIRTIO_MMIO_QUEUE_READY,     VIRTIO_MMIO_QUEUE_DESC_HIGH,
					      VIRTIO_MMIO_DRIVER_FEATURES, VIRTIO_MMIO_DRIVER_FEATURES_SEL,
					      VIRTIO_MMIO_STATUS,          VIRTIO_MMIO_QUEUE_NOTIFY };
	static const uint32_t values[] = { 0, 1, 3, 0xb, 0xf, 0x8f, 128, UINT32_MAX };
	static const uint16_t rings[] = { VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_AVAIL_LOW, VIRTIO_MMIO_QUEUE_USED_LOW };
	const unsigned ring = random % 3;

	if (random >> 2 & 1)
		reg_write(&disk, registers[(random >> 3) % 8], values[(random >> 6) % 8]);
	else if (random >> 3 & 1)
		reg_write(&disk, rings[ring], 0x3000 + 0x1000 * ring + (random >> 4) % 2);
	else
		reg_write(&disk, rings[ring], random >> 4 & 1 ? WORLD_MEMORY_BYTES : UINT32_MAX);
}

/* The other disk has the same thread on the host. */
static void use_other_disk(uint32_t random)
{
	static uint64_t sector[WORLD_SECTOR_WORDS];
	if (random % 16 == 0 && !blk_start(&ro_disk))
		return;
	(void)blk_read(&ro_disk, random % WORLD_RO_SECTORS, sector, 1);
}

/* ---- what processor 0 does ---- */

static void prepare(bool indirect)
{
	struct queue *q = &disk.queues[0];
	volatile struct vring_desc *desc = indirect ? table : q->desc;
	header = (struct blk_header){ .type = VIRTIO_BLK_T_IN, .sector = 30 };
	desc_set_raw(&desc[0], (uint64_t)&header, sizeof(header), VRING_DESC_F_NEXT, 1);
	desc_set_raw(&desc[1], (uint64_t)data, WORLD_SECTOR_BYTES, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 2);
	desc_set_raw(&desc[2], (uint64_t)&status, 1, VRING_DESC_F_WRITE, 0);
	if (indirect)
		desc_set(q, 0, table, 48, VRING_DESC_F_INDIRECT, 0);
}

/* Submits, a little at a time, for ROUND_US; starts the device anew whenever it stopped. */
static void race(void (*what)(uint32_t random), bool indirect, const char *name)
{
	const uint64_t end = deadline_us(ROUND_US);

	second_does(second_rests);
	EXPECT(blk_start(&disk));
	prepare(indirect);
	second_does(what);
	while (rdtsc() < end) {
		for (unsigned i = 0; i < 8; i++)
			queue_put(&disk.queues[0], 0);
		queue_notify(&disk, 0);
		/* As long as an answer takes at most; it need not come. */
		const uint64_t patience = deadline_us(300);
		while (!(device_status(&disk) & VIRTIO_CONFIG_S_NEEDS_RESET) && rdtsc() < patience &&
		       queue_used_index(&disk.queues[0]) != disk.queues[0].next_avail)
			pause();
		if (device_status(&disk) != (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK |
					     VIRTIO_CONFIG_S_DRIVER_OK)) {
			(void)blk_start(&disk);
			prepare(indirect);
		}
	}
	second_does(second_rests);
	EXPECT(blk_recovers(&disk));
	test_end(name);
}

void guest_main(void)
{
	EXPECT(device_find(&disk, 0, VIRTIO_ID_BLOCK) && device_find(&ro_disk, 1, VIRTIO_ID_BLOCK));
	if (!second_start()) {
		test_skip("races of two processors", "the second processor does not start");
		return;
	}
	EXPECT(blk_start(&ro_disk));
	race(change_addresses, false, "addresses change");
	race(change_lengths, false, "lengths change");
	race(change_links, false, "flags and next change");
	race(change_avail, false, "the available ring changes");
	race(change_header, false, "the request's header changes");
	race(change_table, true, "an indirect table changes");
	race(change_everything, false, "everything changes");
	race(change_and_reset, false, "everything changes and resets come in between");
	race(notify, false, "notifications and acknowledgements from both");
	race(reset, false, "resets from the other processor");
	race(write_registers, false, "both set up the device");
	race(use_other_disk, false, "both disks at once");
}
