/*
 * The transport of every device of the machine (mmio_attack.c takes one disk's registers apart, one by one): any access at any step of the
 * negotiation, queues that are moved, resized and laid over each other, over the device's own buffers, over registers, over the end of RAM.
 * Whatever is done, the device is itself again after a reset, and its neighbours do not notice.
 */
#include "tests/guests/guest_vsock.h"

#define END ((uint64_t)WORLD_MEMORY_BYTES)
#define STEPS 7u
#define ACCESSES 250u
/* Where rings may stand that nobody laid out: free memory under 1 MiB, of which nothing else is known. */
#define WASTE 0x3000u

static const struct device_kind {
	const char *name;
	uint32_t id;
	unsigned queues;
} kinds[] = { { "disk", VIRTIO_ID_BLOCK, 1 }, { "read-only disk", VIRTIO_ID_BLOCK, 1 }, { "vsock", VIRTIO_ID_VSOCK, 3 } };
#define KINDS 3u

static struct device devices[KINDS];
static uint32_t seed = 7;

static uint32_t any(uint32_t end)
{
	seed = seed * 1664525u + 1013904223u;
	return (uint32_t)((uint64_t)seed * end >> 32);
}

static void end_of(const char *name, unsigned kind)
{
	char text[96] = "";
	unsigned at = 0;
	for (const char *part = kinds[kind].name; *part;)
		text[at++] = *part++;
	text[at++] = ':';
	text[at++] = ' ';
	for (; *name && at + 1 < sizeof(text); name++)
		text[at++] = *name;
	text[at] = '\0';
	test_end(text);
}

static bool recovers(unsigned kind)
{
	static uint64_t data[WORLD_SECTOR_WORDS];
	if (kind == 2)
		return vsock_recovers();
	data[0] = 0;
	return blk_start(&devices[kind]) && blk_read(&devices[kind], 3, data, 1) == VIRTIO_BLK_S_OK &&
	       sector_is(data, 3 + (kind == 1 ? WORLD_RO_SEED : 0));
}

/* ---- any access at any step ---- */

/* Brings the device to a step: 0 reset, 1 ACKNOWLEDGE, 2 DRIVER, 3 FEATURES_OK, 4 queues ready, 5 DRIVER_OK, 6 needs a reset. */
static void go_to_step(unsigned kind, unsigned step)
{
	struct device *dev = &devices[kind];
	device_reset(dev);
	if (step == 1 || step == 2)
		reg_write(dev, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	if (step == 2)
		reg_write(dev, VIRTIO_MMIO_STATUS, VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER);
	if (step < 3)
		return;
	EXPECT(device_negotiate(dev, UINT64_MAX));
	for (unsigned i = 0; step >= 4 && i < kinds[kind].queues; i++) {
		queue_place(dev, i, 16);
		if (step == 6)
			queue_set_address(dev, i, VIRTIO_MMIO_QUEUE_USED_LOW, END);
		queue_ready(dev, i);
	}
	if (step >= 5)
		reg_write(dev, VIRTIO_MMIO_STATUS, device_status(dev) | VIRTIO_CONFIG_S_DRIVER_OK);
	EXPECT(step != 6 || (device_status(dev) & VIRTIO_CONFIG_S_NEEDS_RESET));
}

/* Rings that come out of this stand in WASTE or where no RAM is: the device writes there, as it is told to. */
static uint32_t any_value(unsigned offset)
{
	static const uint32_t values[] = { 0, 1, 2, 3, 0xb, 0xf, 16, 0x80, 0x8f, 0xffff, 0x10000, 0x80000000, UINT32_MAX };
	static const uint32_t places[] = { (uint32_t)END, (uint32_t)END - 16, 0xd0000000, 0xfec00000, 0xfffffff0 };
	if (offset == VIRTIO_MMIO_QUEUE_DESC_LOW || offset == VIRTIO_MMIO_QUEUE_AVAIL_LOW || offset == VIRTIO_MMIO_QUEUE_USED_LOW)
		return any(2) ? WASTE + any(0x1000) : places[any(5)];
	return values[any(13)];
}

static void any_access(const struct device *dev)
{
	const unsigned offset = any(4) ? 4 * any(64) : any(0x1000 - 8);
	const uintptr_t at = dev->base + offset;
	switch (any(8)) {
	case 0:
		mmio_write8(at, (uint8_t)any(256));
		break;
	case 1:
		mmio_write16(at, (uint16_t)any(65536));
		break;
	case 2:
		mmio_write64(at, (uint64_t)any(UINT32_MAX) << 32 | any(UINT32_MAX));
		break;
	case 3:
		(void)mmio_read8(at);
		(void)mmio_read16(at);
		(void)mmio_read64(at);
		break;
	case 4:
		(void)mmio_read32(at);
		break;
	default:
		if (offset % 4 == 0)
			mmio_write32(at, any_value(offset));
		else
			mmio_write32(at, any(UINT32_MAX));
		break;
	}
}

static void test_steps(unsigned kind)
{
	for (unsigned round = 0; round < 4; round++) {
		for (unsigned step = 0; step < STEPS; step++) {
			go_to_step(kind, step);
			for (unsigned i = 0; i < ACCESSES; i++)
				any_access(&devices[kind]);
			EXPECT(reg_read(&devices[kind], VIRTIO_MMIO_DEVICE_ID) == kinds[kind].id);
		}
		EXPECT(recovers(kind));
	}
	for (unsigned other = 0; other < KINDS; other++)
		EXPECT(recovers(other));
	end_of("any access before and after each step of the negotiation", kind);
}

/* ---- where queues stand ---- */

static void place_all(unsigned kind, uint64_t desc, uint64_t avail, uint64_t used)
{
	struct device *dev = &devices[kind];
	EXPECT(device_negotiate(dev, UINT64_MAX));
	for (unsigned i = 0; i < kinds[kind].queues; i++) {
		queue_place(dev, i, 16);
		queue_set_address(dev, i, VIRTIO_MMIO_QUEUE_DESC_LOW, desc);
		queue_set_address(dev, i, VIRTIO_MMIO_QUEUE_AVAIL_LOW, avail);
		queue_set_address(dev, i, VIRTIO_MMIO_QUEUE_USED_LOW, used);
		queue_ready(dev, i);
	}
	reg_write(dev, VIRTIO_MMIO_STATUS, device_status(dev) | VIRTIO_CONFIG_S_DRIVER_OK);
	for (unsigned i = 0; i < kinds[kind].queues; i++)
		queue_notify(dev, i);
}

static void test_places(unsigned kind)
{
	static const uint64_t nowhere[] = { END,        END - 16,   0xc0000000, 0xd0000000,     0xd0002000,
					    0xfec00000, 0xfee00000, 0xfffff000, 0x100000000ull, UINT64_MAX & ~15ull };
	for (unsigned i = 0; i < sizeof(nowhere) / sizeof(nowhere[0]); i++) {
		for (unsigned ring = 0; ring < 3; ring++) {
			place_all(kind, ring == 0 ? nowhere[i] : WASTE, ring == 1 ? nowhere[i] : WASTE + 0x400,
				  ring == 2 ? nowhere[i] : WASTE + 0x800);
			EXPECT(device_status(&devices[kind]) & VIRTIO_CONFIG_S_NEEDS_RESET);
		}
	}
	EXPECT(recovers(kind));
	end_of("queues over registers and over the end of RAM", kind);
}

/* All memory of a ring is in RAM, and is a buffer, another ring, another queue at the same time. */
static void test_overlaps(unsigned kind)
{
	static volatile uint8_t heap[0x1000] __attribute__((aligned(4096)));
	const uint64_t at = (uint64_t)heap;
	const uint64_t places[][3] = { { at, at, at },         { at, at + 16, at + 32 }, { at + 64, at, at + 4 },
				       { at, at + 2, at + 4 }, { at + 16, at + 18, at }, { at, at + 0x100, at + 0x102 - 2 } };
	for (unsigned i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		for (unsigned round = 0; round < 20; round++) {
			/* Anything, but no block request that writes: no four bytes here are 1, 11 or 13. */
			for (unsigned j = 0; j < sizeof(heap); j++)
				heap[j] = (uint8_t)(any(256) & 0xfe);
			/* A few descriptors that lead into this memory itself. */
			for (unsigned j = 0; j < 16; j++)
				desc_set_raw((volatile struct vring_desc *)(uintptr_t)(at + 16 * j), at + any(0xf00),
					     any(200) & ~1u, (uint16_t)(any(8)), (uint16_t)(any(16) | 1));
			*(volatile uint16_t *)(uintptr_t)(places[i][1] + 2) = (uint16_t)any(17);
			place_all(kind, places[i][0], places[i][1], places[i][2]);
			delay_us(20);
		}
	}
	EXPECT(recovers(kind));
	end_of("queues over each other and over the device's own buffers", kind);
}

static void test_late(unsigned kind)
{
	struct device *dev = &devices[kind];
	for (unsigned step = 4; step <= 5; step++) {
		go_to_step(kind, step);
		for (unsigned i = 0; i < kinds[kind].queues; i++) {
			reg_write(dev, VIRTIO_MMIO_QUEUE_SEL, i);
			for (unsigned size = 0; size < 20; size++)
				reg_write(dev, VIRTIO_MMIO_QUEUE_NUM, size);
			for (unsigned offset = VIRTIO_MMIO_QUEUE_DESC_LOW; offset <= VIRTIO_MMIO_QUEUE_USED_HIGH; offset += 4)
				reg_write(dev, offset, UINT32_MAX);
			EXPECT(reg_read(dev, VIRTIO_MMIO_QUEUE_READY) == 1);
		}
		reg_write(dev, VIRTIO_MMIO_STATUS, device_status(dev) | VIRTIO_CONFIG_S_DRIVER_OK);
		EXPECT(!(device_status(dev) & VIRTIO_CONFIG_S_NEEDS_RESET));
	}
	EXPECT(recovers(kind));
	end_of("a ready queue is neither moved nor resized", kind);

	static const uint32_t selects[] = { 1, 3, 7, 8, 0xffff, 0x10000, 0x7fffffff, 0x80000000, UINT32_MAX };
	go_to_step(kind, 5);
	for (unsigned i = 0; i < sizeof(selects) / sizeof(selects[0]); i++) {
		if (selects[i] < kinds[kind].queues)
			continue;
		reg_write(dev, VIRTIO_MMIO_QUEUE_SEL, selects[i]);
		EXPECT(reg_read(dev, VIRTIO_MMIO_QUEUE_NUM_MAX) == 0 && reg_read(dev, VIRTIO_MMIO_QUEUE_READY) == 0);
		for (unsigned offset = VIRTIO_MMIO_QUEUE_NUM; offset <= VIRTIO_MMIO_QUEUE_USED_HIGH; offset += 4)
			reg_write(dev, offset, 1);
		reg_write(dev, VIRTIO_MMIO_QUEUE_NOTIFY, selects[i]);
	}
	EXPECT(!(device_status(dev) & VIRTIO_CONFIG_S_NEEDS_RESET));
	EXPECT(recovers(kind));
	end_of("a queue that does not exist is not selected, set up or notified", kind);

	/* Stopped and started one by one, with notifications behind them. */
	for (unsigned round = 0; round < 30; round++) {
		go_to_step(kind, 5);
		for (unsigned i = 0; i < kinds[kind].queues; i++) {
			queue_notify(dev, any(kinds[kind].queues));
			reg_write(dev, VIRTIO_MMIO_QUEUE_SEL, any(kinds[kind].queues));
			reg_write(dev, VIRTIO_MMIO_QUEUE_READY, 0);
			reg_write(dev, VIRTIO_MMIO_QUEUE_READY, 1);
			queue_notify(dev, any(kinds[kind].queues));
		}
	}
	EXPECT(recovers(kind));
	end_of("queues that are stopped while the others run", kind);
}

void guest_main(void)
{
	for (unsigned kind = 0; kind < KINDS; kind++)
		EXPECT(device_find(&devices[kind], kind, kinds[kind].id));
	EXPECT(device_find(&vsock, 2, VIRTIO_ID_VSOCK));
	for (unsigned kind = 0; kind < KINDS; kind++) {
		test_steps(kind);
		test_places(kind);
		test_overlaps(kind);
		test_late(kind);
	}
}
