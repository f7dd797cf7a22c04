/*
 * The machine ends while all devices work and another processor does its worst to them. Run with `--cpus 2 --exit`; what is judged is the
 * end of the VMM's process. Each run ends at another moment.
 */
#include "tests/guests/guest_vsock.h"

static struct device disk, ro_disk;
static struct blk_header header = { .type = VIRTIO_BLK_T_IN, .sector = WORLD_SLOW_FIRST };
static uint64_t data[8 * WORLD_SECTOR_WORDS];
static volatile uint8_t status;

static void storm(uint32_t random)
{
	struct device *const all[] = { &disk, &ro_disk, &vsock };
	struct device *dev = all[random % 3];
	switch (random >> 4 & 7) {
	case 0:
		reg_write(dev, VIRTIO_MMIO_STATUS, 0);
		break;
	case 1:
		(void)(dev == &vsock ? vsock_start(true) : blk_start(dev));
		break;
	case 2:
		disk.queues[0].desc[1].len = random >> 8 & 0xfff;
		break;
	case 3:
		reg_write(dev, VIRTIO_MMIO_QUEUE_READY, 0);
		break;
	default:
		reg_write(dev, VIRTIO_MMIO_QUEUE_NOTIFY, random >> 8 & 3);
		break;
	}
}

static void submit(void)
{
	struct queue *q = &disk.queues[0];
	desc_set(q, 0, &header, sizeof(header), VRING_DESC_F_NEXT, 1);
	desc_set(q, 1, data, sizeof(data), VRING_DESC_F_NEXT | VRING_DESC_F_WRITE, 2);
	desc_set(q, 2, &status, 1, VRING_DESC_F_WRITE, 0);
	for (unsigned i = 0; i < 16; i++)
		queue_put(q, 0);
	queue_notify(&disk, 0);
	vsock_tx.header = vsock_header_of(VIRTIO_VSOCK_OP_REQUEST, 0);
	vsock_tx.header.dst_port = WORLD_SOURCE_PORT;
	desc_set(&vsock.queues[VSOCK_TX], 0, &vsock_tx, sizeof(vsock_tx.header), 0, 0);
	queue_put(&vsock.queues[VSOCK_TX], 0);
	queue_notify(&vsock, VSOCK_TX);
}

void guest_main(void)
{
	EXPECT(device_find(&disk, 0, VIRTIO_ID_BLOCK) && device_find(&ro_disk, 1, VIRTIO_ID_BLOCK));
	EXPECT(device_find(&vsock, 2, VIRTIO_ID_VSOCK));
	EXPECT(blk_start(&disk) && blk_start(&ro_disk) && vsock_start(true));
	if (!second_start()) {
		test_skip("the end of a machine that works", "the second processor does not start");
		return;
	}
	test_end("the machine ends while its devices work");
	print("done\n");
	submit();
	second_does(storm);
	const uint64_t end = deadline_us(rdtsc() >> 8 & 0x3fff);
	while (rdtsc() < end)
		submit();
	guest_exit();
}
