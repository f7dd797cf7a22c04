/*
 * Resets and queue stops while requests are in flight (a use after free in others, CVE-2026-45782): when the register write
 * returns, or the status reads 0, the device has let go of the old life's memory; nothing of it appears in the next one.
 */
#include "tests/guests/guest.h"

#define SIZE 128u
#define REQUESTS 6u
#define POISON 0x5ac35ac35ac35ac3ull

static struct device disk, ro_disk;
static struct blk_header headers[REQUESTS];
static uint64_t buffers[REQUESTS][WORLD_SECTOR_WORDS];
static volatile uint8_t statuses[REQUESTS];

/* Submits reads of REQUESTS sectors, each by three descriptors of its own. */
static void submit(uint64_t sector)
{
	struct queue *q = &disk.queues[0];
	for (uint16_t i = 0; i < REQUESTS; i++) {
		const uint16_t first = (uint16_t)(3 * i);
		headers[i] = (struct blk_header){ .type = VIRTIO_BLK_T_IN, .sector = sector + i };
		desc_set(q, first, &headers[i], sizeof(headers[i]), VRING_DESC_F_NEXT, (uint16_t)(first + 1));
		desc_set(q, first + 1u, buffers[i], WORLD_SECTOR_BYTES, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE,
			 (uint16_t)(first + 2));
		desc_set(q, first + 2u, &statuses[i], 1, VRING_DESC_F_WRITE, 0);
		queue_put(q, first);
	}
	queue_notify(&disk, 0);
}

/* Fills what the old life might still write to. Returns its used index, for check_untouched(). */
static uint16_t poison(void)
{
	for (unsigned i = 0; i < REQUESTS; i++) {
		buffers[i][0] = buffers[i][WORLD_SECTOR_WORDS - 1] = POISON;
		statuses[i] = 0xee;
	}
	barrier();
	return queue_used_index(&disk.queues[0]);
}

static void check_untouched(uint16_t used)
{
	EXPECT(queue_used_index(&disk.queues[0]) == used);
	for (unsigned i = 0; i < REQUESTS; i++) {
		EXPECT(buffers[i][0] == POISON && buffers[i][WORLD_SECTOR_WORDS - 1] == POISON);
		EXPECT(statuses[i] == 0xee);
	}
}

static void test_slow_reset(void)
{
	for (unsigned round = 0; round < 12; round++) {
		EXPECT(blk_start(&disk));
		submit(WORLD_SLOW_FIRST);
		delay_us(round * 700);
		reg_write(&disk, VIRTIO_MMIO_STATUS, 0);
		EXPECT(device_status(&disk) == 0);
		const uint16_t used = poison();
		delay_us(2 * WORLD_SLOW_US);
		check_untouched(used);
	}
	EXPECT(blk_recovers(&disk));
	test_end("reset while slow requests are served");
}

static void test_fast_reset(void)
{
	for (unsigned round = 0; round < 100; round++) {
		EXPECT(blk_start(&disk));
		submit(1000);
		for (unsigned i = 0; i < round * 3; i++)
			pause();
		reg_write(&disk, VIRTIO_MMIO_STATUS, 0);
		const uint16_t used = poison();
		if (round % 10 == 0)
			delay_us(QUIET_US);
		check_untouched(used);
	}
	EXPECT(blk_recovers(&disk));
	test_end("reset right behind a notification");
}

static void test_stop_queue(void)
{
	for (unsigned round = 0; round < 10; round++) {
		EXPECT(blk_start(&disk));
		submit(round % 2 ? WORLD_SLOW_FIRST : 1000);
		delay_us(round * 300);
		reg_write(&disk, VIRTIO_MMIO_QUEUE_SEL, 0);
		reg_write(&disk, VIRTIO_MMIO_QUEUE_READY, 0);
		EXPECT(reg_read(&disk, VIRTIO_MMIO_QUEUE_READY) == 0);
		const uint16_t used = poison();
		queue_notify(&disk, 0);
		delay_us(QUIET_US);
		check_untouched(used);
	}
	EXPECT(blk_recovers(&disk));
	test_end("queue stopped while requests are served");
}

/* The next life has its rings elsewhere; notifications of the last one may still be on their way. */
static void test_next_life(void)
{
	static volatile struct vring_desc desc[4] __attribute__((aligned(16)));
	static volatile uint16_t avail[8] __attribute__((aligned(4))), used[32] __attribute__((aligned(4)));

	for (unsigned round = 0; round < 20; round++) {
		EXPECT(blk_start(&disk));
		const struct queue old = disk.queues[0];
		submit(round % 4 ? 1000 : WORLD_SLOW_FIRST);
		for (unsigned i = 0; i < 5; i++)
			queue_notify(&disk, 0);
		EXPECT(device_negotiate(&disk, UINT64_MAX));
		(void)poison();
		queue_place(&disk, 0, 4);
		/* What queue_place() cleared is written again: valid requests that the device must not find. */
		disk.queues[0] = old;
		disk.queues[0].next_avail = 0;
		submit(1000);
		disk.queues[0] = (struct queue){ .size = 4, .desc = desc, .avail = avail, .used = used };
		for (unsigned i = 0; i < 8; i++)
			avail[i] = 0;
		for (unsigned i = 0; i < 32; i++)
			used[i] = 0;
		queue_set_address(&disk, 0, VIRTIO_MMIO_QUEUE_DESC_LOW, (uint64_t)desc);
		queue_set_address(&disk, 0, VIRTIO_MMIO_QUEUE_AVAIL_LOW, (uint64_t)avail);
		queue_set_address(&disk, 0, VIRTIO_MMIO_QUEUE_USED_LOW, (uint64_t)used);
		queue_ready(&disk, 0);
		reg_write(&disk, VIRTIO_MMIO_STATUS, device_status(&disk) | VIRTIO_CONFIG_S_DRIVER_OK);
		static uint64_t data[WORLD_SECTOR_WORDS];
		for (unsigned i = 0; i < 3; i++) {
			data[0] = 0;
			EXPECT(blk_read(&disk, 50 + i, data, 1) == VIRTIO_BLK_S_OK && data[0] == world_word(50 + i, 0));
		}
		EXPECT(used[1] == 3);
		disk.queues[0] = old;
		check_untouched(0);
	}
	EXPECT(blk_recovers(&disk));
	test_end("nothing of one life in the next");
}

/* A queue that is not set up in this life does not live on from the last one. */
static void test_old_queue(void)
{
	EXPECT(blk_start(&disk));
	EXPECT(device_negotiate(&disk, UINT64_MAX));
	reg_write(&disk, VIRTIO_MMIO_STATUS, device_status(&disk) | VIRTIO_CONFIG_S_DRIVER_OK);
	const uint16_t used = poison();
	submit(1000);
	delay_us(QUIET_US);
	check_untouched(used);
	EXPECT(!(device_status(&disk) & VIRTIO_CONFIG_S_NEEDS_RESET));
	EXPECT(blk_recovers(&disk));
	test_end("a queue of the last life is not served");
}

static void test_storm(void)
{
	for (unsigned round = 0; round < 100; round++) {
		EXPECT(blk_start(&disk));
		reg_write(&disk, VIRTIO_MMIO_STATUS, 0);
		reg_write(&disk, VIRTIO_MMIO_STATUS, 0);
	}
	EXPECT(blk_recovers(&disk));
	test_end("a hundred short lives");
	for (unsigned round = 0; round < 10; round++) {
		EXPECT(blk_start(&disk));
		submit(1000);
		/* A malformed ring behind it: the device may stop before or behind the reset. */
		disk.queues[0].avail[1] = 0x8000;
		queue_notify(&disk, 0);
		for (unsigned i = 0; i < round * 20; i++)
			pause();
		reg_write(&disk, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_FAILED);
		reg_write(&disk, VIRTIO_MMIO_STATUS, 0);
		EXPECT(device_status(&disk) == 0);
		delay_us(100);
		EXPECT(device_status(&disk) == 0 && reg_read(&disk, VIRTIO_MMIO_INTERRUPT_STATUS) == 0);
	}
	EXPECT(blk_recovers(&disk));
	test_end("reset while the device stops");
}

/* Both disks are served by one thread of the host. */
static void test_neighbour(void)
{
	static uint64_t data[WORLD_SECTOR_WORDS];
	for (unsigned round = 0; round < 8; round++) {
		EXPECT(blk_start(&disk));
		submit(WORLD_SLOW_FIRST);
		EXPECT(blk_start(&ro_disk));
		EXPECT(blk_read(&ro_disk, 1, data, 1) == VIRTIO_BLK_S_OK && sector_is(data, WORLD_RO_SEED + 1));
		EXPECT(queue_wait(&disk, 0, REQUESTS));
		for (unsigned i = 0; i < REQUESTS; i++)
			EXPECT(buffers[i][0] == world_word(WORLD_SLOW_FIRST + i, 0));
	}
	test_end("reset of one disk while the other is busy");
}

void guest_main(void)
{
	EXPECT(device_find(&disk, 0, VIRTIO_ID_BLOCK) && device_find(&ro_disk, 1, VIRTIO_ID_BLOCK));
	test_slow_reset();
	test_fast_reset();
	test_stop_queue();
	test_next_life();
	test_old_queue();
	test_storm();
	test_neighbour();
}
