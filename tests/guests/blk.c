/*
 * virtio-blk as a driver uses it: every kind of request with its content, every layout of a chain that the specification allows
 * (virtio 1.2, 2.7.4, 2.7.5.3, 5.2.6), interrupts with and without EVENT_IDX.
 */
#include "tests/guests/guest.h"

#define SIZE 128u
#define BATCH 42u /* requests of three descriptors that fit into the queue */

static struct device disk, ro_disk;
static uint64_t buffer[8 * WORLD_SECTOR_WORDS];
static uint8_t batch_data[BATCH][WORLD_SECTOR_BYTES] __attribute__((aligned(8)));
static volatile uint8_t batch_status[BATCH];
static struct blk_header headers[BATCH];
static struct vring_desc table[SIZE];

struct range {
	uint64_t sector;
	uint32_t count, flags;
};

static bool sectors_are(const uint64_t *data, uint64_t first, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		if (!sector_is(data + i * WORLD_SECTOR_WORDS, first + i))
			return false;
	return true;
}

static bool sector_zero(uint64_t sector)
{
	if (blk_read(&disk, sector, buffer, 1) != VIRTIO_BLK_S_OK)
		return false;
	for (unsigned i = 0; i < WORLD_SECTOR_WORDS; i++)
		if (buffer[i])
			return false;
	return true;
}

/* The length of the chain that came back last. */
static uint32_t last_length(const struct device *dev)
{
	return queue_used_length(&dev->queues[0], (uint16_t)(dev->queues[0].last_used - 1));
}

static void test_configuration(void)
{
	const uintptr_t config = disk.base + VIRTIO_MMIO_CONFIG, ro_config = ro_disk.base + VIRTIO_MMIO_CONFIG;
	EXPECT(mmio_read64(config + offsetof(struct virtio_blk_config, capacity)) == WORLD_DISK_SECTORS);
	EXPECT(mmio_read64(ro_config + offsetof(struct virtio_blk_config, capacity)) == WORLD_RO_SECTORS);
	EXPECT(mmio_read32(config + offsetof(struct virtio_blk_config, blk_size)) == WORLD_SECTOR_BYTES);
	EXPECT(mmio_read32(config + offsetof(struct virtio_blk_config, seg_max)) <= SIZE - 2);
	const uint64_t offered = device_offered(&disk), ro_offered = device_offered(&ro_disk);
	const uint64_t always = FEATURE_VERSION_1 | FEATURE_INDIRECT | FEATURE_EVENT_IDX | 1ull << VIRTIO_BLK_F_FLUSH;
	const uint64_t changing = 1ull << VIRTIO_BLK_F_DISCARD | 1ull << VIRTIO_BLK_F_WRITE_ZEROES;
	EXPECT((offered & always) == always && (ro_offered & always) == always);
	EXPECT(!(offered & 1ull << VIRTIO_BLK_F_RO) && (ro_offered & 1ull << VIRTIO_BLK_F_RO));
	EXPECT((offered & changing) == changing && !(ro_offered & changing));
	test_end("configuration and features");
}

static void test_reads(void)
{
	EXPECT(blk_read(&disk, 0, buffer, 1) == VIRTIO_BLK_S_OK && sector_is(buffer, 0));
	EXPECT(last_length(&disk) == WORLD_SECTOR_BYTES + 1);
	EXPECT(blk_read(&disk, 40, buffer, 8) == VIRTIO_BLK_S_OK && sectors_are(buffer, 40, 8));
	EXPECT(blk_read(&disk, WORLD_DISK_SECTORS - 1, buffer, 1) == VIRTIO_BLK_S_OK && sector_is(buffer, WORLD_DISK_SECTORS - 1));
	EXPECT(blk_read(&ro_disk, 3, buffer, 2) == VIRTIO_BLK_S_OK && sectors_are(buffer, WORLD_RO_SEED + 3, 2));
	EXPECT(blk_read(&disk, 0, buffer, 0) == VIRTIO_BLK_S_OK);
	test_end("read");
}

static void test_writes(void)
{
	const uint64_t at = WORLD_WRITABLE_FIRST + 8;
	for (unsigned i = 0; i < 2; i++)
		sector_fill(buffer + i * WORLD_SECTOR_WORDS, 7000000 + i);
	EXPECT(blk_write(&disk, at, buffer, 2) == VIRTIO_BLK_S_OK);
	EXPECT(last_length(&disk) == 1);
	EXPECT(blk_read(&disk, at - 1, buffer, 4) == VIRTIO_BLK_S_OK);
	EXPECT(sector_is(buffer, at - 1));
	EXPECT(sectors_are(buffer + WORLD_SECTOR_WORDS, 7000000, 2));
	EXPECT(sector_is(buffer + 3 * WORLD_SECTOR_WORDS, at + 2));
	EXPECT(blk_write(&disk, at, buffer, 0) == VIRTIO_BLK_S_OK);
	EXPECT(blk_request(&disk, VIRTIO_BLK_T_FLUSH, 0, NULL, 0, false) == VIRTIO_BLK_S_OK);
	test_end("write, read back, flush");
}

static void test_id(void)
{
	uint8_t id[24];
	memset(id, 0xee, sizeof(id));
	EXPECT(blk_request(&disk, VIRTIO_BLK_T_GET_ID, 0, id, 20, true) == VIRTIO_BLK_S_OK);
	EXPECT(!memcmp(id, WORLD_DISK_ID, sizeof(WORLD_DISK_ID)) && id[20] == 0xee);
	EXPECT(blk_request(&ro_disk, VIRTIO_BLK_T_GET_ID, 0, id, 20, true) == VIRTIO_BLK_S_OK);
	EXPECT(!memcmp(id, WORLD_RO_ID, 20) && id[20] == 0xee);
	test_end("id");
}

static void test_ranges(void)
{
	const uint64_t at = WORLD_WRITABLE_FIRST + 64;
	struct range ranges[2] = { { .sector = at, .count = 8 }, { .sector = at + 16, .count = 1 } };

	EXPECT(blk_request(&disk, VIRTIO_BLK_T_DISCARD, 0, ranges, sizeof(ranges), false) == VIRTIO_BLK_S_OK);
	EXPECT(sector_zero(at) && sector_zero(at + 7) && sector_zero(at + 16));
	EXPECT(blk_read(&disk, at + 8, buffer, 8) == VIRTIO_BLK_S_OK && sectors_are(buffer, at + 8, 8));
	EXPECT(blk_read(&disk, at + 17, buffer, 1) == VIRTIO_BLK_S_OK && sector_is(buffer, at + 17));
	test_end("discard of two ranges");
	ranges[0] = (struct range){ .sector = at + 32, .count = 2 };
	ranges[1] = (struct range){ .sector = at + 40, .count = 1, .flags = VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP };
	EXPECT(blk_request(&disk, VIRTIO_BLK_T_WRITE_ZEROES, 0, ranges, sizeof(ranges), false) == VIRTIO_BLK_S_OK);
	EXPECT(sector_zero(at + 32) && sector_zero(at + 33) && sector_zero(at + 40));
	EXPECT(blk_read(&disk, at + 34, buffer, 1) == VIRTIO_BLK_S_OK && sector_is(buffer, at + 34));
	test_end("write zeroes, with and without unmap");
}

static void test_host_error(void)
{
	EXPECT(blk_read(&disk, WORLD_BAD_SECTOR, buffer, 1) == VIRTIO_BLK_S_IOERR);
	EXPECT(blk_read(&disk, WORLD_BAD_SECTOR - 1, buffer, 3) == VIRTIO_BLK_S_IOERR);
	EXPECT(blk_read(&disk, WORLD_BAD_SECTOR + 1, buffer, 1) == VIRTIO_BLK_S_OK && sector_is(buffer, WORLD_BAD_SECTOR + 1));
	test_end("an I/O error of the host is one of the request");
}

/* Publishes the chain at descriptor 0, whose status byte stands at `status`, and waits for it. */
static unsigned run_chain(volatile uint8_t *status)
{
	*status = 0xee;
	queue_put(&disk.queues[0], 0);
	queue_notify(&disk, 0);
	return queue_wait(&disk, 0, 1) ? *status : BLK_NO_ANSWER;
}

static void test_split_header(void)
{
	struct queue *q = &disk.queues[0];
	uint8_t *header = (uint8_t *)&headers[0];

	headers[0] = (struct blk_header){ .type = VIRTIO_BLK_T_IN, .sector = 77 };
	for (uint32_t at = 1; at < sizeof(headers[0]); at++) {
		buffer[0] = 0;
		desc_set(q, 0, header, at, VRING_DESC_F_NEXT, 1);
		desc_set(q, 1, header + at, (uint32_t)sizeof(headers[0]) - at, VRING_DESC_F_NEXT, 2);
		desc_set(q, 2, buffer, WORLD_SECTOR_BYTES, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 3);
		desc_set(q, 3, &batch_status[0], 1, VRING_DESC_F_WRITE, 0);
		EXPECT(run_chain(&batch_status[0]) == VIRTIO_BLK_S_OK && buffer[0] == world_word(77, 0));
	}
	/* A descriptor for each byte of the header, with empty ones between. */
	for (uint16_t i = 0; i < 16; i++) {
		desc_set(q, 2u * i, header + i, 1, VRING_DESC_F_NEXT, (uint16_t)(2 * i + 1));
		desc_set(q, 2u * i + 1, header, 0, VRING_DESC_F_NEXT, (uint16_t)(2 * i + 2));
	}
	desc_set(q, 32, buffer, WORLD_SECTOR_BYTES, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 33);
	desc_set(q, 33, &batch_status[0], 1, VRING_DESC_F_WRITE, 0);
	buffer[0] = 0;
	EXPECT(run_chain(&batch_status[0]) == VIRTIO_BLK_S_OK && sector_is(buffer, 77));
	test_end("header split at every byte");
}

static void test_split_data(void)
{
	static const uint16_t pieces[] = { 1, 2, 509, 513, 0, 3, 508 }; /* three sectors */
	struct queue *q = &disk.queues[0];
	uint8_t *at = (uint8_t *)buffer;
	uint16_t next = 1;

	/* Status in the last data buffer, header and data of a write in one descriptor. */
	memset(buffer, 0, sizeof(buffer));
	headers[0] = (struct blk_header){ .type = VIRTIO_BLK_T_IN, .sector = 300 };
	desc_set(q, 0, &headers[0], sizeof(headers[0]), VRING_DESC_F_NEXT, 1);
	for (unsigned i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++, next++) {
		const bool last = i + 1 == sizeof(pieces) / sizeof(pieces[0]);
		desc_set(q, next, at, pieces[i] + (last ? 1u : 0u), (uint16_t)(VRING_DESC_F_WRITE | (last ? 0 : VRING_DESC_F_NEXT)),
			 (uint16_t)(next + 1));
		at += pieces[i];
	}
	EXPECT(run_chain(at) == VIRTIO_BLK_S_OK && sectors_are(buffer, 300, 3));
	EXPECT(last_length(&disk) == 3 * WORLD_SECTOR_BYTES + 1);
	test_end("data in uneven pieces, status behind it in one buffer");

	static struct {
		struct blk_header header;
		uint64_t data[WORLD_SECTOR_WORDS];
	} write;
	write.header = (struct blk_header){ .type = VIRTIO_BLK_T_OUT, .sector = WORLD_WRITABLE_FIRST + 128 };
	sector_fill(write.data, 7000100);
	desc_set(q, 0, &write, sizeof(write), VRING_DESC_F_NEXT, 1);
	desc_set(q, 1, &batch_status[0], 1, VRING_DESC_F_WRITE, 0);
	EXPECT(run_chain(&batch_status[0]) == VIRTIO_BLK_S_OK);
	EXPECT(blk_read(&disk, WORLD_WRITABLE_FIRST + 128, buffer, 1) == VIRTIO_BLK_S_OK && sector_is(buffer, 7000100));
	test_end("header and data of a write in one buffer");
}

static void test_indirect(void)
{
	struct queue *q = &disk.queues[0];

	headers[0] = (struct blk_header){ .type = VIRTIO_BLK_T_IN, .sector = 500 };
	desc_set_raw(&table[0], (uint64_t)&headers[0], sizeof(headers[0]), VRING_DESC_F_NEXT, 5);
	desc_set_raw(&table[5], (uint64_t)buffer, WORLD_SECTOR_BYTES, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 2);
	desc_set_raw(&table[2], (uint64_t)&batch_status[0], 1, VRING_DESC_F_WRITE, 0);
	desc_set(q, 0, table, 6 * sizeof(table[0]), VRING_DESC_F_INDIRECT, 0);
	buffer[0] = 0;
	EXPECT(run_chain(&batch_status[0]) == VIRTIO_BLK_S_OK && sector_is(buffer, 500));
	/* 2.7.5.3.2: the device ignores WRITE in the descriptor that refers to the table. */
	desc_set(q, 0, table, 6 * sizeof(table[0]), VRING_DESC_F_INDIRECT | VRING_DESC_F_WRITE, 0);
	buffer[0] = 0;
	EXPECT(run_chain(&batch_status[0]) == VIRTIO_BLK_S_OK && sector_is(buffer, 500));
	test_end("indirect table");

	EXPECT(blk_start(&disk));
	/* 2.7.5.3.2: normal descriptors followed by one that refers to a table. */
	desc_set(q, 0, &headers[0], sizeof(headers[0]), VRING_DESC_F_NEXT, 1);
	desc_set_raw(&table[0], (uint64_t)buffer, WORLD_SECTOR_BYTES, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 1);
	desc_set_raw(&table[1], (uint64_t)&batch_status[0], 1, VRING_DESC_F_WRITE, 0);
	desc_set(q, 1, table, 2 * sizeof(table[0]), VRING_DESC_F_INDIRECT, 0);
	buffer[0] = 0;
	EXPECT(run_chain(&batch_status[0]) == VIRTIO_BLK_S_OK && sector_is(buffer, 500));
	test_end("normal descriptors followed by an indirect table");

	/* As long as the queue: header, 126 pieces of data, status. */
	headers[0].sector = 600;
	desc_set_raw(&table[0], (uint64_t)&headers[0], sizeof(headers[0]), VRING_DESC_F_NEXT, 1);
	for (uint16_t i = 1; i < SIZE - 1; i++)
		desc_set_raw(&table[i], (uint64_t)buffer + 4u * (i - 1u), i == SIZE - 2 ? 512 - 4 * 125 : 4,
			     VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, (uint16_t)(i + 1));
	desc_set_raw(&table[SIZE - 1], (uint64_t)&batch_status[0], 1, VRING_DESC_F_WRITE, 0);
	desc_set(q, 0, table, sizeof(table), VRING_DESC_F_INDIRECT, 0);
	memset(buffer, 0, WORLD_SECTOR_BYTES);
	EXPECT(run_chain(&batch_status[0]) == VIRTIO_BLK_S_OK && sector_is(buffer, 600));
	test_end("a chain as long as the queue");
}

/* Fills the queue with reads of one sector each, from `sector` on. */
static void put_batch(uint64_t sector)
{
	struct queue *q = &disk.queues[0];
	for (uint16_t i = 0; i < BATCH; i++) {
		headers[i] = (struct blk_header){ .type = VIRTIO_BLK_T_IN, .sector = sector + i };
		batch_status[i] = 0xee;
		desc_set(q, 3u * i, &headers[i], sizeof(headers[i]), VRING_DESC_F_NEXT, (uint16_t)(3 * i + 1));
		desc_set(q, 3u * i + 1, batch_data[i], WORLD_SECTOR_BYTES, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE,
			 (uint16_t)(3 * i + 2));
		desc_set(q, 3u * i + 2, &batch_status[i], 1, VRING_DESC_F_WRITE, 0);
		queue_put(q, (uint16_t)(3 * i));
	}
}

static void test_batch(void)
{
	struct queue *q = &disk.queues[0];
	EXPECT(blk_start(&disk));
	/* Four times around, so that the rings wrap at every place. */
	for (unsigned round = 0; round < 4; round++) {
		bool seen[BATCH] = { false };
		put_batch(1000 + round * BATCH);
		queue_notify(&disk, 0);
		if (!EXPECT(queue_wait(&disk, 0, BATCH)))
			break;
		for (uint16_t i = 0; i < BATCH; i++) {
			const uint32_t id = queue_used_id(q, (uint16_t)(q->last_used - BATCH + i));
			if (EXPECT(id % 3 == 0 && id < 3 * BATCH && !seen[id / 3]))
				seen[id / 3] = true;
			EXPECT(batch_status[i] == VIRTIO_BLK_S_OK);
			EXPECT(*(uint64_t *)(void *)batch_data[i] == world_word(1000 + round * BATCH + i, 0));
		}
	}
	test_end("42 requests at once, four times");
}

/* Chains that are returned at once, as they hold no request: 65536 of them pass in little time. */
static void test_index_wrap(void)
{
	struct queue *q = &disk.queues[0];
	EXPECT(device_start(&disk, 0, 1, SIZE));
	desc_set(q, 0, &headers[0], 1, 0, 0);
	for (unsigned i = 0; i < 65536 / SIZE; i++) {
		q->next_avail = (uint16_t)(q->next_avail + SIZE);
		barrier();
		q->avail[1] = q->next_avail;
		queue_notify(&disk, 0);
		if (!EXPECT(queue_wait(&disk, 0, SIZE)))
			break;
	}
	EXPECT(queue_used_index(q) == 0);
	EXPECT(blk_read(&disk, 9, buffer, 1) == VIRTIO_BLK_S_OK && sector_is(buffer, 9));
	test_end("indices wrap at 65536");
}

static void test_queue_sizes(void)
{
	for (uint16_t size = 2; size <= SIZE; size = (uint16_t)(size * 2)) {
		EXPECT(device_start(&disk, UINT64_MAX, 1, size));
		struct queue *q = &disk.queues[0];
		headers[0] = (struct blk_header){ .type = VIRTIO_BLK_T_IN, .sector = size };
		desc_set(q, 0, &headers[0], sizeof(headers[0]), VRING_DESC_F_NEXT, 1);
		desc_set(q, 1, buffer, WORLD_SECTOR_BYTES + 1, VRING_DESC_F_WRITE, 0);
		for (unsigned i = 0; i < 5; i++) {
			buffer[0] = 0;
			EXPECT(run_chain((uint8_t *)buffer + WORLD_SECTOR_BYTES) == VIRTIO_BLK_S_OK &&
			       buffer[0] == world_word(size, 0));
		}
	}
	test_end("queues of 2 to 128 entries");
}

/* Waits, with interrupts on, until the count is `expected`; then a moment longer for one too many. */
static bool interrupts_reach(unsigned pin, unsigned expected)
{
	const uint64_t deadline = deadline_us(PATIENCE_US);
	cpu_sti();
	while (interrupt_count(pin) < expected && rdtsc() < deadline)
		pause();
	delay_us(QUIET_US);
	cpu_cli();
	return interrupt_count(pin) == expected;
}

static void test_interrupts(void)
{
	struct queue *q = &disk.queues[0];

	EXPECT(device_start(&disk, 0, 1, SIZE));
	interrupt_enable(disk.pin);
	for (unsigned i = 0; i < 3; i++) {
		const unsigned before = interrupt_count(disk.pin);
		EXPECT(blk_read(&disk, 20, buffer, 1) == VIRTIO_BLK_S_OK);
		EXPECT(interrupts_reach(disk.pin, before + 1));
		EXPECT(reg_read(&disk, VIRTIO_MMIO_INTERRUPT_STATUS) == VIRTIO_MMIO_INT_VRING);
		reg_write(&disk, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING);
		EXPECT(reg_read(&disk, VIRTIO_MMIO_INTERRUPT_STATUS) == 0);
	}
	test_end("an interrupt for a request");

	/* The processor sleeps while the disk takes its time. */
	for (unsigned i = 0; i < 3; i++) {
		const unsigned before = interrupt_count(disk.pin);
		put_batch(WORLD_SLOW_FIRST);
		queue_notify(&disk, 0);
		while (queue_used_index(q) == q->last_used)
			interrupt_sleep(disk.pin, before);
		EXPECT(queue_wait(&disk, 0, BATCH));
		cpu_sti();
		delay_us(QUIET_US);
		cpu_cli();
	}
	test_end("an interrupt wakes the processor");

	unsigned before = interrupt_count(disk.pin);
	q->avail[0] = VRING_AVAIL_F_NO_INTERRUPT;
	EXPECT(blk_read(&disk, 20, buffer, 1) == VIRTIO_BLK_S_OK);
	EXPECT(interrupts_reach(disk.pin, before));
	q->avail[0] = 0;
	test_end("no interrupt when the driver wants none");

	EXPECT(device_start(&disk, FEATURE_EVENT_IDX, 1, SIZE));
	before = interrupt_count(disk.pin);
	queue_set_used_event(q, 3);
	for (unsigned i = 0; i < 3; i++)
		EXPECT(blk_read(&disk, 20, buffer, 1) == VIRTIO_BLK_S_OK);
	EXPECT(interrupts_reach(disk.pin, before));
	EXPECT(blk_read(&disk, 20, buffer, 1) == VIRTIO_BLK_S_OK);
	EXPECT(interrupts_reach(disk.pin, before + 1));
	EXPECT(blk_read(&disk, 20, buffer, 1) == VIRTIO_BLK_S_OK);
	EXPECT(interrupts_reach(disk.pin, before + 1));
	test_end("EVENT_IDX: an interrupt at the index that the driver named");

	/* The device names the index at which it wants to hear of requests (2.7.10): the last that it took. */
	const volatile uint16_t *avail_event = q->used + 2 + 4 * SIZE;
	const uint64_t deadline = deadline_us(PATIENCE_US);
	while (*avail_event != q->next_avail && rdtsc() < deadline)
		pause();
	EXPECT(*avail_event == q->next_avail);
	test_end("EVENT_IDX: the device asks to be notified");
	interrupt_disable(disk.pin);
}

void guest_main(void)
{
	EXPECT(device_find(&disk, 0, VIRTIO_ID_BLOCK) && device_find(&ro_disk, 1, VIRTIO_ID_BLOCK));
	test_configuration();
	EXPECT(blk_start(&disk) && blk_start(&ro_disk));
	test_reads();
	test_writes();
	test_id();
	test_ranges();
	test_host_error();
	test_split_header();
	test_split_data();
	test_indirect();
	test_batch();
	test_index_wrap();
	test_queue_sizes();
	test_interrupts();
}
