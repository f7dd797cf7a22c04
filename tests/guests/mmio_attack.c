/*
 * The register page of the virtio-mmio transport (virtio 1.2, 4.2.2) under every access that a guest can make: each offset at
 * each width and alignment in each state of the device, status bits out of order, queues that are resized or moved too late or
 * stand where no RAM is; and what lies around the pages: addresses and I/O ports where nothing is.
 */
#include "tests/guests/guest.h"

#define ACK VIRTIO_CONFIG_S_ACKNOWLEDGE
#define DRIVER VIRTIO_CONFIG_S_DRIVER
#define FEATURES_OK VIRTIO_CONFIG_S_FEATURES_OK
#define DRIVER_OK VIRTIO_CONFIG_S_DRIVER_OK
#define NEEDS_RESET VIRTIO_CONFIG_S_NEEDS_RESET
#define FAILED VIRTIO_CONFIG_S_FAILED

#define SIZE 128u
#define REGISTERS 64u
#define END ((uint64_t)WORLD_MEMORY_BYTES)

static struct device disk;
static uint64_t data[WORLD_SECTOR_WORDS];

static void set_status(uint32_t status)
{
	reg_write(&disk, VIRTIO_MMIO_STATUS, status);
}

static bool reads(uint64_t sector)
{
	data[0] = 0;
	return blk_read(&disk, sector, data, 1) == VIRTIO_BLK_S_OK && data[0] == world_word(sector, 0);
}

/* ---- every offset at every width ---- */

static uint64_t read_width(uintptr_t at, unsigned width)
{
	return width == 1 ? mmio_read8(at) : width == 2 ? mmio_read16(at) : width == 4 ? mmio_read32(at) : mmio_read64(at);
}

static void write_width(uintptr_t at, unsigned width, uint64_t value)
{
	if (width == 1)
		mmio_write8(at, (uint8_t)value);
	else if (width == 2)
		mmio_write16(at, (uint16_t)value);
	else if (width == 4)
		mmio_write32(at, (uint32_t)value);
	else
		mmio_write64(at, value);
}

static void snapshot(uint32_t registers[REGISTERS])
{
	for (unsigned i = 0; i < REGISTERS; i++)
		registers[i] = reg_read(&disk, 4 * i);
}

/* Accesses that are not 32 bits wide and aligned read zero and change nothing. */
static void wrong_widths(const char *state)
{
	static const unsigned widths[] = { 1, 2, 4, 8 };
	uint32_t before[REGISTERS], after[REGISTERS];

	snapshot(before);
	for (unsigned i = 0; i < 4; i++) {
		const unsigned width = widths[i];
		for (uintptr_t offset = 0; offset < VIRTIO_MMIO_CONFIG; offset++) {
			if (width == 4 && offset % 4 == 0)
				continue;
			EXPECT(read_width(disk.base + offset, width) == 0);
			write_width(disk.base + offset, width, offset & 1 ? UINT64_MAX : 0);
		}
	}
	snapshot(after);
	EXPECT(!memcmp(before, after, sizeof(before)));
	test_end(state);
}

/* Registers that can only be read, and those that do not exist, take nothing in any state. */
static void read_only_registers(const char *state)
{
	static const uint16_t offsets[] = { 0x00, 0x04, 0x08, 0x0c, 0x10, 0x18, 0x1c, 0x28, 0x2c, 0x34, 0x3c,
					    0x40, 0x48, 0x4c, 0x54, 0x58, 0x5c, 0x60, 0x68, 0x6c, 0x74, 0x78,
					    0x7c, 0x88, 0x8c, 0x98, 0x9c, 0xa8, 0xb0, 0xbc, 0xc4, 0xf8, 0xfc };
	uint32_t before[REGISTERS], after[REGISTERS];

	snapshot(before);
	for (unsigned i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
		mmio_write32(disk.base + offsets[i], UINT32_MAX);
		mmio_write32(disk.base + offsets[i], 0);
	}
	snapshot(after);
	EXPECT(!memcmp(before, after, sizeof(before)));
	test_end(state);
}

static void test_widths(void)
{
	device_reset(&disk);
	wrong_widths("wrong widths after a reset");
	read_only_registers("read-only registers after a reset");
	set_status(ACK);
	wrong_widths("wrong widths after ACKNOWLEDGE");
	set_status(ACK | DRIVER);
	wrong_widths("wrong widths after DRIVER");
	EXPECT(device_negotiate(&disk, UINT64_MAX));
	wrong_widths("wrong widths after FEATURES_OK");
	queue_place(&disk, 0, SIZE);
	queue_ready(&disk, 0);
	wrong_widths("wrong widths with the queue ready");
	set_status(device_status(&disk) | DRIVER_OK);
	EXPECT(reads(3));
	wrong_widths("wrong widths after DRIVER_OK");
	read_only_registers("read-only registers after DRIVER_OK");
	EXPECT(reads(4));
	test_end("the device works on");
	disk.queues[0].avail[1] = 0x8000;
	queue_notify(&disk, 0);
	EXPECT(device_wait_failed(&disk));
	wrong_widths("wrong widths after DEVICE_NEEDS_RESET");
	set_status(FAILED);
	wrong_widths("wrong widths after FAILED");
	EXPECT(blk_recovers(&disk));
	test_end("the device works after a reset");
}

/* Configuration space is read at any width and cannot be written (4.2.2.2); behind it all is zero. */
static void test_config(void)
{
	static const unsigned widths[] = { 1, 2, 4, 8 };
	static uint8_t config[0x300];
	const uintptr_t base = disk.base + VIRTIO_MMIO_CONFIG;

	for (unsigned i = 0; i < sizeof(config); i++)
		config[i] = mmio_read8(base + i);
	for (unsigned i = 0; i < 4; i++) {
		for (unsigned at = 0; at < 0x80; at++) {
			uint64_t expected = 0;
			memcpy(&expected, config + at, widths[i]);
			const uint64_t found = read_width(base + at, widths[i]);
			/* An access that is partly behind the end may be zero as a whole. */
			EXPECT(found == expected || (found == 0 && at + widths[i] > 0x30));
			write_width(base + at, widths[i], UINT64_MAX);
			EXPECT(mmio_read8(base + at) == config[at]);
		}
	}
	for (unsigned i = 0x100; i < sizeof(config); i++)
		EXPECT(config[i] == 0);
	EXPECT(mmio_read64(base) == WORLD_DISK_SECTORS);
	test_end("configuration space at every width");

	/* Over the borders of pages, where KVM makes two accesses of one. */
	for (uintptr_t at = disk.base + 0xff8; at <= disk.base + 0x1000; at++) {
		(void)mmio_read64(at);
		mmio_write64(at, UINT64_MAX);
		(void)mmio_read32(at);
		mmio_write32(at, 0);
		(void)mmio_read64(at - 0x1000);
		mmio_write64(at - 0x1000, UINT64_MAX);
	}
	EXPECT(reg_read(&disk, VIRTIO_MMIO_MAGIC_VALUE) == 0x74726976);
	EXPECT(blk_recovers(&disk));
	test_end("accesses over the borders of a page");

	/* By instructions that read and write at once, and by string instructions. */
	uint32_t value = 1;
	__asm__ volatile("xchgl %0, %1"
			 : "+r"(value), "+m"(*(volatile uint32_t *)(disk.base + VIRTIO_MMIO_QUEUE_SEL))
			 :
			 : "memory");
	__asm__ volatile("lock; xaddl %0, %1"
			 : "+r"(value), "+m"(*(volatile uint32_t *)(disk.base + VIRTIO_MMIO_QUEUE_SEL))
			 :
			 : "memory");
	__asm__ volatile("lock; orl $-1, %0" : "+m"(*(volatile uint32_t *)(disk.base + VIRTIO_MMIO_QUEUE_NUM)) : : "memory");
	void *to = data;
	const void *from = (const void *)disk.base;
	size_t count = 32;
	__asm__ volatile("rep movsl" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
	EXPECT((uint32_t)data[0] == 0x74726976);
	to = (void *)disk.base;
	count = 28; /* up to and without Status */
	__asm__ volatile("rep stosl" : "+D"(to), "+c"(count) : "a"(UINT32_MAX) : "memory");
	EXPECT(blk_recovers(&disk));
	test_end("read-modify-write and string instructions");
}

/* ---- status and features ---- */

static void test_status(void)
{
	device_reset(&disk);
	set_status(DRIVER);
	EXPECT(device_status(&disk) == 0);
	set_status(FEATURES_OK | DRIVER_OK);
	EXPECT(device_status(&disk) == 0);
	set_status(ACK | DRIVER_OK);
	EXPECT(device_status(&disk) == ACK);
	set_status(ACK | DRIVER | DRIVER_OK);
	EXPECT(device_status(&disk) == (ACK | DRIVER));
	/* Without VERSION_1 in the features nothing is agreed on. */
	set_status(ACK | DRIVER | FEATURES_OK);
	EXPECT(device_status(&disk) == (ACK | DRIVER));
	set_status(ACK | DRIVER | FEATURES_OK | DRIVER_OK);
	EXPECT(device_status(&disk) == (ACK | DRIVER));
	test_end("status bits out of order are refused");

	set_status(ACK);
	EXPECT(device_status(&disk) == (ACK | DRIVER));
	set_status(0xffffff00);
	EXPECT(device_status(&disk) == (ACK | DRIVER));
	set_status(ACK | DRIVER | 0x10 | 0x20);
	EXPECT(device_status(&disk) == (ACK | DRIVER));
	set_status(ACK | DRIVER | NEEDS_RESET);
	EXPECT(device_status(&disk) == (ACK | DRIVER));
	test_end("status bits are neither cleared nor set but by their owner");

	set_status(FAILED);
	EXPECT(device_status(&disk) == (ACK | DRIVER | FAILED));
	set_status(ACK | DRIVER | FAILED | FEATURES_OK | DRIVER_OK);
	EXPECT(device_status(&disk) == (ACK | DRIVER | FAILED));
	EXPECT(blk_recovers(&disk));
	set_status(device_status(&disk) | FAILED);
	EXPECT(device_status(&disk) & FAILED);
	EXPECT(blk_recovers(&disk));
	test_end("after FAILED only a reset helps");

	for (unsigned i = 0; i < 200; i++)
		set_status(0);
	EXPECT(device_status(&disk) == 0);
	for (unsigned i = 0; i < 64; i++) {
		set_status(i);
		set_status(i << 1 | 1);
		set_status(63 - i);
	}
	EXPECT(blk_recovers(&disk));
	test_end("any sequence of status writes");
}

static void write_features(uint32_t select, uint32_t value)
{
	reg_write(&disk, VIRTIO_MMIO_DRIVER_FEATURES_SEL, select);
	reg_write(&disk, VIRTIO_MMIO_DRIVER_FEATURES, value);
}

/* Writes the features and FEATURES_OK to a fresh device; true when it agrees. */
static bool agrees(uint64_t features)
{
	device_reset(&disk);
	set_status(ACK);
	set_status(ACK | DRIVER);
	write_features(0, (uint32_t)features);
	write_features(1, (uint32_t)(features >> 32));
	set_status(ACK | DRIVER | FEATURES_OK);
	return device_status(&disk) & FEATURES_OK;
}

static void test_features(void)
{
	const uint64_t offered = device_offered(&disk);

	for (uint32_t select = 2; select < 6; select++) {
		reg_write(&disk, VIRTIO_MMIO_DEVICE_FEATURES_SEL, select);
		EXPECT(reg_read(&disk, VIRTIO_MMIO_DEVICE_FEATURES) == 0);
	}
	reg_write(&disk, VIRTIO_MMIO_DEVICE_FEATURES_SEL, UINT32_MAX);
	EXPECT(reg_read(&disk, VIRTIO_MMIO_DEVICE_FEATURES) == 0);
	test_end("feature words beyond the second are zero");

	EXPECT(agrees(offered));
	EXPECT(agrees(FEATURE_VERSION_1));
	EXPECT(!agrees(offered & ~FEATURE_VERSION_1));
	EXPECT(!agrees(0));
	for (unsigned bit = 0; bit < 64; bit++)
		EXPECT(agrees(FEATURE_VERSION_1 | 1ull << bit) == (offered >> bit & 1));
	test_end("features that were not offered are refused");

	/* Words that do not exist are no alias of those that do. */
	device_reset(&disk);
	set_status(ACK);
	set_status(ACK | DRIVER);
	write_features(1, 1);
	write_features(2, UINT32_MAX);
	write_features(0x100, UINT32_MAX);
	write_features(UINT32_MAX, UINT32_MAX);
	set_status(ACK | DRIVER | FEATURES_OK);
	EXPECT(device_status(&disk) & FEATURES_OK);
	test_end("feature words beyond the second take nothing");

	/* Features are fixed by FEATURES_OK: without EVENT_IDX the device leaves the place of avail_event alone. */
	EXPECT(device_negotiate(&disk, 0));
	write_features(0, UINT32_MAX);
	write_features(1, UINT32_MAX);
	queue_place(&disk, 0, SIZE);
	queue_ready(&disk, 0);
	set_status(device_status(&disk) | FEATURES_OK | DRIVER_OK);
	EXPECT(reads(5) && reads(6));
	delay_us(QUIET_US);
	EXPECT(disk.queues[0].used[2 + 4 * SIZE] == 0);
	test_end("features are not changed after FEATURES_OK");
}

/* ---- queues ---- */

static void test_queue_select(void)
{
	static const uint32_t selects[] = { 1, 2, 7, 8, 9, 0xffff, 0x10000, 0x7fffffff, 0x80000000, UINT32_MAX };

	EXPECT(device_negotiate(&disk, UINT64_MAX));
	queue_place(&disk, 0, SIZE);
	for (unsigned i = 0; i < sizeof(selects) / sizeof(selects[0]); i++) {
		reg_write(&disk, VIRTIO_MMIO_QUEUE_SEL, selects[i]);
		EXPECT(reg_read(&disk, VIRTIO_MMIO_QUEUE_NUM_MAX) == 0);
		EXPECT(reg_read(&disk, VIRTIO_MMIO_QUEUE_READY) == 0);
		for (unsigned offset = VIRTIO_MMIO_QUEUE_DESC_LOW; offset <= VIRTIO_MMIO_QUEUE_USED_HIGH; offset += 4)
			reg_write(&disk, offset, UINT32_MAX);
		reg_write(&disk, VIRTIO_MMIO_QUEUE_NUM, 8);
		reg_write(&disk, VIRTIO_MMIO_QUEUE_READY, 1);
		EXPECT(reg_read(&disk, VIRTIO_MMIO_QUEUE_READY) == 0);
	}
	reg_write(&disk, VIRTIO_MMIO_QUEUE_SEL, 0);
	EXPECT(reg_read(&disk, VIRTIO_MMIO_QUEUE_NUM_MAX) == SIZE);
	EXPECT(reg_read(&disk, VIRTIO_MMIO_QUEUE_READY) == 0);
	queue_ready(&disk, 0);
	set_status(device_status(&disk) | DRIVER_OK);
	reg_write(&disk, VIRTIO_MMIO_QUEUE_SEL, UINT32_MAX);
	EXPECT(reads(7));
	test_end("queues that do not exist");
}

static void test_notify(void)
{
	static const uint32_t values[] = { 1, 2, 7, 8, 0x8000, 0xffff, 0x10000, 0x7fffffff, 0x80000000, UINT32_MAX, 0 };

	device_reset(&disk);
	for (unsigned i = 0; i < sizeof(values) / sizeof(values[0]); i++)
		reg_write(&disk, VIRTIO_MMIO_QUEUE_NOTIFY, values[i]);
	EXPECT(device_negotiate(&disk, UINT64_MAX));
	for (unsigned i = 0; i < sizeof(values) / sizeof(values[0]); i++)
		reg_write(&disk, VIRTIO_MMIO_QUEUE_NOTIFY, values[i]);
	EXPECT(blk_start(&disk));
	for (unsigned i = 0; i < sizeof(values) / sizeof(values[0]); i++)
		reg_write(&disk, VIRTIO_MMIO_QUEUE_NOTIFY, values[i]);
	EXPECT(reads(8));
	test_end("notifications of any queue at any time");

	/* A request that waits when the device starts is served, though its notification came too early. */
	static struct blk_header header = { .type = VIRTIO_BLK_T_IN, .sector = 9 };
	static volatile uint8_t status;
	EXPECT(device_negotiate(&disk, UINT64_MAX));
	queue_place(&disk, 0, SIZE);
	desc_set(&disk.queues[0], 0, &header, sizeof(header), VRING_DESC_F_NEXT, 1);
	desc_set(&disk.queues[0], 1, data, WORLD_SECTOR_BYTES, VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 2);
	desc_set(&disk.queues[0], 2, &status, 1, VRING_DESC_F_WRITE, 0);
	queue_put(&disk.queues[0], 0);
	queue_notify(&disk, 0);
	queue_ready(&disk, 0);
	queue_notify(&disk, 0);
	delay_us(QUIET_US);
	EXPECT(queue_used_index(&disk.queues[0]) == 0);
	set_status(device_status(&disk) | DRIVER_OK);
	EXPECT(queue_wait(&disk, 0, 1) && sector_is(data, 9));
	test_end("nothing is served before DRIVER_OK");
}

/* Sets up a queue, lets `change` spoil it, starts the device: it needs a reset. */
static void expect_refused(uint16_t size, unsigned low_register, uint64_t address, const char *name)
{
	EXPECT(device_negotiate(&disk, UINT64_MAX));
	queue_place(&disk, 0, SIZE);
	if (low_register)
		queue_set_address(&disk, 0, low_register, address);
	else
		queue_place(&disk, 0, size);
	queue_ready(&disk, 0);
	set_status(device_status(&disk) | DRIVER_OK);
	EXPECT(device_status(&disk) & NEEDS_RESET);
	EXPECT(reg_read(&disk, VIRTIO_MMIO_INTERRUPT_STATUS) & VIRTIO_MMIO_INT_CONFIG);
	queue_notify(&disk, 0);
	EXPECT(blk_recovers(&disk));
	if (name)
		test_end(name);
}

static void test_queue_places(void)
{
	static const unsigned rings[] = { VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_AVAIL_LOW, VIRTIO_MMIO_QUEUE_USED_LOW };
	static const uint64_t bad[] = { END,         END - 256,   0xd0000000, 0xfec00000,         0xfee00000,         0xfffff000,
					0x100000000, 0x100100000, 1ull << 63, UINT64_MAX - 0xfff, UINT64_MAX & ~15ull };
	static const uint64_t misalignments[] = { 8, 1, 2 };

	for (unsigned ring = 0; ring < 3; ring++)
		for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
			expect_refused(SIZE, rings[ring], bad[i], NULL);
	test_end("rings where no RAM is");
	for (unsigned ring = 0; ring < 3; ring++)
		expect_refused(SIZE, rings[ring], 0x1800000 + misalignments[ring], NULL);
	test_end("misaligned rings");
	expect_refused(0, 0, 0, "queue of size 0");
	expect_refused(3, 0, 0, "queue of size 3");
	expect_refused(127, 0, 0, "queue of size 127");

	/* Too large a size is not taken, in whatever bits; the one before stays. */
	static const uint32_t sizes[] = { 129, 256, 0x8000, 0xffff, 0x10004, 0x80000080, UINT32_MAX };
	EXPECT(device_negotiate(&disk, UINT64_MAX));
	queue_place(&disk, 0, SIZE);
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		reg_write(&disk, VIRTIO_MMIO_QUEUE_NUM, sizes[i]);
	queue_ready(&disk, 0);
	set_status(device_status(&disk) | DRIVER_OK);
	for (unsigned i = 0; i < SIZE + 2; i++)
		EXPECT(reads(i % 64));
	test_end("queue larger than the maximum");

	/* Up to the last byte of RAM, one ring after the other. */
	static const uint64_t last[] = { END - 16 * SIZE, END - 6 - 2 * SIZE, END - 8 - 8 * SIZE };
	for (unsigned ring = 0; ring < 3; ring++) {
		EXPECT(device_negotiate(&disk, UINT64_MAX));
		queue_place(&disk, 0, SIZE);
		memset((void *)(uintptr_t)last[ring], 0, END - last[ring]);
		queue_set_address(&disk, 0, rings[ring], last[ring]);
		void *const at = (void *)(uintptr_t)last[ring];
		if (ring == 0)
			disk.queues[0].desc = at;
		else if (ring == 1)
			disk.queues[0].avail = at;
		else
			disk.queues[0].used = at;
		queue_ready(&disk, 0);
		set_status(device_status(&disk) | DRIVER_OK);
		EXPECT(reads(10) && reads(11));
	}
	test_end("rings up to the last byte of RAM");

	/* All rings at one place: nonsense that must not hurt. */
	EXPECT(device_negotiate(&disk, UINT64_MAX));
	queue_place(&disk, 0, SIZE);
	queue_set_address(&disk, 0, VIRTIO_MMIO_QUEUE_AVAIL_LOW, (uint64_t)disk.queues[0].desc);
	queue_set_address(&disk, 0, VIRTIO_MMIO_QUEUE_USED_LOW, (uint64_t)disk.queues[0].desc);
	queue_ready(&disk, 0);
	disk.queues[0].avail = (volatile uint16_t *)(volatile void *)disk.queues[0].desc;
	set_status(device_status(&disk) | DRIVER_OK);
	for (uint16_t i = 0; i < 64; i++) {
		queue_put(&disk.queues[0], i);
		queue_notify(&disk, 0);
	}
	delay_us(QUIET_US);
	EXPECT(blk_recovers(&disk));
	test_end("all rings at one place");
}

/* Firecracker's CVE-2026-5747: what was checked when the queue became ready must not change behind that. */
static void spoil_queue(void)
{
	reg_write(&disk, VIRTIO_MMIO_QUEUE_SEL, 0);
	reg_write(&disk, VIRTIO_MMIO_QUEUE_NUM, 0);
	reg_write(&disk, VIRTIO_MMIO_QUEUE_NUM, 4);
	for (unsigned offset = VIRTIO_MMIO_QUEUE_DESC_LOW; offset <= VIRTIO_MMIO_QUEUE_USED_HIGH; offset += 4)
		reg_write(&disk, offset, 0xfffffff0);
	reg_write(&disk, VIRTIO_MMIO_QUEUE_READY, 1);
	reg_write(&disk, VIRTIO_MMIO_QUEUE_READY, 2);
	reg_write(&disk, VIRTIO_MMIO_QUEUE_READY, UINT32_MAX);
}

static void test_late_changes(void)
{
	EXPECT(device_negotiate(&disk, UINT64_MAX));
	queue_place(&disk, 0, SIZE);
	reg_write(&disk, VIRTIO_MMIO_QUEUE_READY, 2);
	EXPECT(reg_read(&disk, VIRTIO_MMIO_QUEUE_READY) == 0);
	queue_ready(&disk, 0);
	spoil_queue();
	set_status(device_status(&disk) | DRIVER_OK);
	for (unsigned i = 0; i < SIZE + 2; i++)
		EXPECT(reads(i % 64));
	test_end("a ready queue is neither moved nor resized");
	spoil_queue();
	for (unsigned i = 0; i < SIZE + 2; i++)
		EXPECT(reads(i % 64));
	set_status(device_status(&disk) | DRIVER_OK);
	set_status(ACK | DRIVER | FEATURES_OK | DRIVER_OK);
	EXPECT(reads(12));
	test_end("nor is it when the device runs");

	reg_write(&disk, VIRTIO_MMIO_QUEUE_READY, 0);
	EXPECT(reg_read(&disk, VIRTIO_MMIO_QUEUE_READY) == 0);
	spoil_queue();
	EXPECT(reg_read(&disk, VIRTIO_MMIO_QUEUE_READY) == 0);
	queue_put(&disk.queues[0], 0);
	queue_notify(&disk, 0);
	delay_us(QUIET_US);
	EXPECT(queue_used_index(&disk.queues[0]) == disk.queues[0].last_used);
	EXPECT(blk_recovers(&disk));
	test_end("a queue that was stopped rests until a reset");

	EXPECT(device_negotiate(&disk, UINT64_MAX));
	set_status(device_status(&disk) | DRIVER_OK);
	EXPECT(!(device_status(&disk) & NEEDS_RESET));
	queue_place(&disk, 0, SIZE);
	queue_ready(&disk, 0);
	queue_notify(&disk, 0);
	EXPECT(blk_recovers(&disk));
	test_end("DRIVER_OK without a queue");
}

static void test_interrupt_registers(void)
{
	EXPECT(device_start(&disk, 0, 1, SIZE));
	reg_write(&disk, VIRTIO_MMIO_INTERRUPT_ACK, UINT32_MAX);
	EXPECT(reads(1));
	const uint64_t deadline = deadline_us(PATIENCE_US);
	while (reg_read(&disk, VIRTIO_MMIO_INTERRUPT_STATUS) != VIRTIO_MMIO_INT_VRING && rdtsc() < deadline)
		pause();
	reg_write(&disk, VIRTIO_MMIO_INTERRUPT_STATUS, 0);
	reg_write(&disk, VIRTIO_MMIO_INTERRUPT_ACK, 0);
	reg_write(&disk, VIRTIO_MMIO_INTERRUPT_ACK, 0xfffffffe);
	EXPECT(reg_read(&disk, VIRTIO_MMIO_INTERRUPT_STATUS) == VIRTIO_MMIO_INT_VRING);
	reg_write(&disk, VIRTIO_MMIO_INTERRUPT_ACK, VIRTIO_MMIO_INT_VRING);
	EXPECT(reg_read(&disk, VIRTIO_MMIO_INTERRUPT_STATUS) == 0);
	test_end("interrupt status and acknowledgement");
}

/* ---- where nothing is ---- */

static void test_empty_addresses(void)
{
	static const uintptr_t empty[] = { END,        END + 0x100000, 0x80000000, 0xbffffff8, 0xc0000000, 0xcffff000, 0xd0003000,
					   0xd000e000, 0xd000f000,     0xd0100000, 0xe0000000, 0xfed00000, 0xfed40000, 0xfffffff0 };
	for (unsigned i = 0; i < sizeof(empty) / sizeof(empty[0]); i++) {
		for (unsigned width = 1; width <= 8; width *= 2) {
			const uint64_t ones = width == 8 ? UINT64_MAX : (1ull << (8 * width)) - 1;
			write_width(empty[i], width, 0x5555555555555555);
			EXPECT(read_width(empty[i], width) == ones);
			write_width(empty[i] + 1, width, 0x5555555555555555);
			EXPECT(read_width(empty[i] + 1, width) == ones);
		}
	}
	/* Half RAM, half nothing. */
	mmio_write32(END - 4, 0x11223344);
	EXPECT(mmio_read32(END - 2) == 0xffff1122);
	mmio_write32(END - 2, 0x55667788);
	EXPECT(mmio_read32(END - 4) == 0x77883344);
	EXPECT(blk_recovers(&disk));
	test_end("addresses where nothing is");
}

/* Ports that KVM's own interrupt controllers answer, and those by which the machine is reset. */
static bool port_taken(unsigned port)
{
	return port == 0x20 || port == 0x21 || port == 0xa0 || port == 0xa1 || port == 0x4d0 || port == 0x4d1 || port == 0x64 ||
	       port == 0xcf9 || (port >= 0x3f8 && port < 0x400);
}

static void test_ports(void)
{
	for (unsigned port = 0; port < 0x420; port++) {
		if (port_taken(port))
			continue;
		const uint8_t expected = port == 0x71 ? 0 : 0xff;
		outb((uint16_t)port, 0xfe);
		EXPECT(inb((uint16_t)port) == expected);
	}
	static const uint16_t ports[] = { 0x0,   0x70,  0x80,   0x2f8,  0x402,  0x510,  0x514, 0x600,
					  0xcf8, 0xcfc, 0x1000, 0x5658, 0xfffc, 0xfffe, 0xffff };
	for (unsigned i = 0; i < sizeof(ports) / sizeof(ports[0]); i++) {
		outw(ports[i], 0);
		outl(ports[i], 0);
		(void)inw(ports[i]);
		(void)inl(ports[i]);
	}
	/* String I/O of many elements in one exit. */
	const void *from = data;
	void *to = data;
	size_t count = 64;
	__asm__ volatile("rep outsb" : "+S"(from), "+c"(count) : "d"(0x80) : "memory");
	count = 32;
	__asm__ volatile("rep insl" : "+D"(to), "+c"(count) : "d"(0x510) : "memory");
	EXPECT(data[0] == UINT64_MAX);
	test_end("I/O ports where nothing is");

	/* A double word at 0xcf8 addresses PCI configuration; only a byte at 0xcf9 resets. */
	outl(0xcf8, 0x80000400);
	outl(0xcf8, 0x8000ff00);
	EXPECT(inl(0xcfc) == UINT32_MAX);
	test_end("a PCI configuration address is no reset");
}

static void test_uart(void)
{
	/* Registers of the UART but the data register at any width; line control back at 8N1 before the next character. */
	for (unsigned port = 0x3f9; port < 0x400; port++) {
		(void)inb((uint16_t)port);
		(void)inw((uint16_t)port);
		(void)inl((uint16_t)port);
	}
	outb(0x3ff, 0xa5);
	EXPECT(inb(0x3ff) == 0xa5);
	for (unsigned value = 0; value < 256; value += 5)
		for (unsigned port = 0x3f9; port < 0x3ff; port++)
			outb((uint16_t)port, (uint8_t)value);
	outb(0x3fb, 0x03);
	outb(0x3fc, 0x00);
	outb(0x3f9, 0x00);
	test_end("UART registers");
}

void guest_main(void)
{
	EXPECT(device_find(&disk, 0, VIRTIO_ID_BLOCK));
	test_widths();
	test_config();
	test_status();
	test_features();
	test_queue_select();
	test_notify();
	test_queue_places();
	test_late_changes();
	test_interrupt_registers();
	test_empty_addresses();
	test_ports();
	test_uart();
}
