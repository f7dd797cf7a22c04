/*
 * libFuzzer target: the virtio-mmio transport with devices behind it. The input is what a vCPU does: accesses to the register page at any
 * offset and width, whole negotiations, writes to guest RAM where the rings may be, notifications; and the rounds of the host's loop
 * between them. The first byte chooses a disk, a read-only disk or a vsock device.
 *
 * Checked beside the sanitizers: the disk's contract (contract_disk.h); status bits come in order; a queue that is ready does not move; a
 * reset is one.
 */
#include <fcntl.h>
#include <linux/virtio_config.h>
#include <linux/virtio_mmio.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/loop.h"
#include "devices/virtio-blk/virtio_blk.h"
#include "devices/virtio-vsock/virtio_vsock.h"
#include "devices/virtio/virtio_mmio.h"
#include "tests/fuzz/contract_disk.h"
#include "tests/fuzz/input.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RAM_BYTES 0x10000u
#define GUEST_CID 3
#define HOST_PORT 2000

static struct fake_ram ram;
static struct contract_disk disk;
static struct loop *loop;
static struct virtio_device *dev;
static struct virtio_mmio mmio;
static uint32_t kicked; /* a bit for each queue */

static void ignore_interrupt(struct virtio_device *device)
{
	(void)device;
}

static void note_kick(struct virtio_device *device, unsigned queue)
{
	(void)device;
	kicked |= 1u << queue;
}

/* Host port HOST_PORT: zeroes without end, and a writer that never has room. */
static int accept_zeroes(void *data, uint32_t port, struct vsock_ends *ends)
{
	(void)data;
	(void)port;
	ends->read_fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	ends->write_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
	return 0;
}

static uint32_t read_register(uint64_t offset)
{
	le32 raw;
	virtio_mmio_read(&mmio, offset, &raw, sizeof(raw));
	return le32_get(raw);
}

static void write_register(uint64_t offset, uint32_t value)
{
	const le32 raw = le32_make(value);
	virtio_mmio_write(&mmio, offset, &raw, sizeof(raw));
}

/* Any access, as KVM hands it over. */
static void some_access(struct input *in)
{
	const uint64_t how = take(in, 1);
	const unsigned width = 1u << (how & 3);
	const uint64_t offset = how & 4 ? take(in, 2) % (VIRTIO_MMIO_PAGE_BYTES - 7) : take(in, 1);
	uint64_t value = take(in, how & 8 ? 8 : 1);
	if (how & 16)
		virtio_mmio_read(&mmio, offset, &value, width);
	else
		virtio_mmio_write(&mmio, offset, &value, width);
}

/* A write of a likely value to a register that matters. */
static void likely_write(struct input *in)
{
	static const uint16_t registers[] = { VIRTIO_MMIO_QUEUE_SEL,           VIRTIO_MMIO_QUEUE_NUM,
					      VIRTIO_MMIO_QUEUE_READY,         VIRTIO_MMIO_QUEUE_DESC_LOW,
					      VIRTIO_MMIO_QUEUE_AVAIL_LOW,     VIRTIO_MMIO_QUEUE_USED_LOW,
					      VIRTIO_MMIO_QUEUE_DESC_HIGH,     VIRTIO_MMIO_DRIVER_FEATURES,
					      VIRTIO_MMIO_DRIVER_FEATURES_SEL, VIRTIO_MMIO_STATUS,
					      VIRTIO_MMIO_QUEUE_NOTIFY,        VIRTIO_MMIO_INTERRUPT_ACK };
	const uint64_t what = take(in, 1);
	const uint16_t reg = registers[what % 12];
	const bool address =
	    reg == VIRTIO_MMIO_QUEUE_DESC_LOW || reg == VIRTIO_MMIO_QUEUE_AVAIL_LOW || reg == VIRTIO_MMIO_QUEUE_USED_LOW;
	const uint32_t before = atomic_load(&dev->status);
	const struct virtq queue = dev->queues[0];

	write_register(reg, address ? FAKE_RAM_BASE + (uint32_t)take(in, 2) : (uint32_t)take(in, 1));
	const uint32_t after = atomic_load(&dev->status);
	if (reg != VIRTIO_MMIO_STATUS)
		assert((after & ~before & ~(uint32_t)VIRTIO_CONFIG_S_NEEDS_RESET) == 0);
	else
		assert(!(after & VIRTIO_CONFIG_S_DRIVER_OK) || (after & 11) == 11);
	/* What the device took is its own: stopped as a whole, or as it was. */
	if (reg != VIRTIO_MMIO_STATUS && reg != VIRTIO_MMIO_QUEUE_READY)
		assert(!memcmp(&queue, &dev->queues[0], sizeof(queue)));
}

/* Up to DRIVER_OK, with rings of likely sizes; a bit leaves a step out. */
static void negotiate(struct input *in)
{
	const uint64_t how = take(in, 1), skip = take(in, 1);
	struct fake_queue layout;
	gpa_t at = FAKE_RAM_BASE;

	write_register(VIRTIO_MMIO_STATUS, 0);
	assert(atomic_load(&dev->status) == 0 && !dev->active && !dev->queues[0].mem);
	if (!(skip & 1))
		write_register(VIRTIO_MMIO_STATUS, 1);
	write_register(VIRTIO_MMIO_STATUS, 3);
	for (uint32_t word = 0; word < 2; word++) {
		write_register(VIRTIO_MMIO_DEVICE_FEATURES_SEL, word);
		write_register(VIRTIO_MMIO_DRIVER_FEATURES_SEL, word);
		uint32_t features = read_register(VIRTIO_MMIO_DEVICE_FEATURES);
		if (word == 0 && (how & 1))
			features &= (uint32_t)~VIRTIO_FEATURE_EVENT_IDX;
		if (!(skip & 2))
			write_register(VIRTIO_MMIO_DRIVER_FEATURES, features);
	}
	if (!(skip & 4))
		write_register(VIRTIO_MMIO_STATUS, 11);
	for (unsigned i = 0; i < dev->ops->queue_count; i++) {
		at = fake_queue_init(&layout, &ram, at, (uint16_t)(4u << (how >> 1 & 3)));
		write_register(VIRTIO_MMIO_QUEUE_SEL, i);
		write_register(VIRTIO_MMIO_QUEUE_NUM, layout.size);
		write_register(VIRTIO_MMIO_QUEUE_DESC_LOW, (uint32_t)layout.desc);
		write_register(VIRTIO_MMIO_QUEUE_AVAIL_LOW, (uint32_t)layout.avail);
		write_register(VIRTIO_MMIO_QUEUE_USED_LOW, (uint32_t)layout.used);
		if (!(skip & (8u << i)))
			write_register(VIRTIO_MMIO_QUEUE_READY, 1);
	}
	if (!(skip & 128))
		write_register(VIRTIO_MMIO_STATUS, 15);
}

static void write_ram(struct input *in)
{
	const uint64_t at = take(in, 2), value = take(in, 8);
	(void)!guest_write(&ram.mem, FAKE_RAM_BASE + at, &value, 1 + take(in, 1) % 8);
}

/* One chain of a header and up to two more ranges, in a queue as negotiate() lays it out. */
static void put_chain(struct input *in)
{
	const uint64_t how = take(in, 2);
	const unsigned index = (unsigned)(how & 3) % dev->ops->queue_count;
	const struct virtq_config *config = &mmio.queues[index];
	if (!config->size || !guest_ptr(&ram.mem, config->desc, 16ull * config->size) ||
	    !guest_ptr(&ram.mem, config->avail, 6 + 2ull * config->size))
		return;
	for (unsigned i = 0; i < 48; i++)
		*fake_at(&ram, FAKE_RAM_BASE + 0x8000 + i) = (uint8_t)(how & 4 ? take(in, 1) : 0);
	if (how & 8) {
		const uint16_t words[] = { GUEST_CID, 0, 0, 0, 2, 0, 0, 0, 5000, 0, HOST_PORT, 0 };
		memcpy(fake_at(&ram, FAKE_RAM_BASE + 0x8000), words, sizeof(words));
		fake_put16(&ram, FAKE_RAM_BASE + 0x8000 + 24, (uint16_t)(how >> 9 & 0x40));
		fake_put16(&ram, FAKE_RAM_BASE + 0x8000 + 28, 1);
		fake_put16(&ram, FAKE_RAM_BASE + 0x8000 + 30, (uint16_t)take(in, 1) & 7);
		fake_put16(&ram, FAKE_RAM_BASE + 0x8000 + 36, 0x4000);
	}
	const unsigned length = how & 16 ? (unsigned)take(in, 1) : dev->ops->queue_count > 1 ? 44 : 16;
	const unsigned rx = dev->ops->queue_count > 1 && index == 0 ? FAKE_WRITE : 0;
	const unsigned links = config->size > 2 ? (unsigned)(how >> 5 & 3) % 3 : 0;
	fake_table_desc(&ram, config->desc, 0, FAKE_RAM_BASE + 0x8000, length, (links ? FAKE_NEXT : 0) | rx, 1);
	for (unsigned i = 1; i <= links; i++)
		fake_table_desc(&ram, config->desc, i, FAKE_RAM_BASE + 0x9000 + 0x1000 * i,
				i == links && !rx ? 1 + (how >> 7 & 1) * 63 : 512,
				(i < links ? FAKE_NEXT : 0) | (how & 0x100 ? FAKE_WRITE : rx), i + 1);
	const uint16_t avail = fake_get16(&ram, config->avail + 2);
	fake_put16(&ram, config->avail + 4 + 2u * (avail & (config->size - 1u)), 0);
	fake_put16(&ram, config->avail + 2, (uint16_t)(avail + 1));
}

static void serve_kicks(void)
{
	const uint32_t now = kicked;
	kicked = 0;
	for (unsigned i = 0; i < VIRTIO_MAX_QUEUES; i++)
		if (now >> i & 1)
			virtio_mmio_notified(&mmio, i);
}

static void action(struct input *in)
{
	switch (take(in, 1) % 12) {
	case 0:
	case 1:
		some_access(in);
		break;
	case 2:
	case 3:
	case 4:
		likely_write(in);
		break;
	case 5:
		negotiate(in);
		break;
	case 6:
		write_ram(in);
		break;
	case 7:
	case 8:
		put_chain(in);
		break;
	case 9:
		virtio_mmio_notified(&mmio, (unsigned)take(in, 1));
		break;
	default:
		serve_kicks();
		break;
	}
}

/* Runs on the loop's thread, where loop_call() calls at once. */
static struct input input;
static void run_input(struct loop_source *source, uint32_t events)
{
	(void)source;
	(void)events;
	while (input.left)
		action(&input);
	for (unsigned i = 0; i < 64 && kicked; i++)
		serve_kicks();
	write_register(VIRTIO_MMIO_STATUS, 0);
	assert(atomic_load(&dev->status) == 0 && read_register(VIRTIO_MMIO_INTERRUPT_STATUS) == 0);
	loop_stop(loop);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct virtio_blk *blk = NULL;
	struct virtio_vsock *vsock = NULL;
	int made;

	input = (struct input){ .at = data, .left = size };
	const uint64_t kind = take(&input, 1) % 3;
	if (!ram.bytes)
		fake_ram_init(&ram, RAM_BYTES);
	memset(ram.bytes, 0, RAM_BYTES);
	kicked = 0;
	loop = loop_create();
	assert(loop);
	if (kind < 2) {
		contract_disk_init(&disk, &ram, kind == 1, false);
		made = virtio_blk_create(loop, &ram.mem, &disk.disk, &blk);
		dev = virtio_blk_device(blk);
	} else {
		made = virtio_vsock_create(loop, &ram.mem, GUEST_CID, &vsock);
		dev = virtio_vsock_device(vsock);
	}
	assert(made == 0);
	if (vsock)
		virtio_vsock_listen(vsock, HOST_PORT, HOST_PORT, accept_zeroes, NULL);
	dev->interrupt = ignore_interrupt;
	dev->kick = note_kick;
	virtio_mmio_init(&mmio, dev);
	struct loop_source source = { .fd = eventfd(1, EFD_CLOEXEC), .events = EPOLLIN, .ready = run_input };
	const int added = loop_add(loop, &source);
	assert(added == 0);
	loop_run(loop);
	loop_remove(loop, &source);
	close(source.fd);
	virtio_blk_destroy(blk);
	virtio_vsock_destroy(vsock);
	loop_destroy(loop);
	return 0;
}
