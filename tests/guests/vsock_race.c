/*
 * Two processors and virtio-vsock: one sends and receives, the other rewrites at the same time what the device is reading, or uses the
 * device's registers. The device may serve a packet, refuse it or stop until a reset. Run with `--cpus 2`; smp_race.c is the same for
 * disks.
 */
#include "tests/guests/guest_vsock.h"

#define ROUND_US 150000ull
#define END ((uint64_t)WORLD_MEMORY_BYTES)
#define HEADER_BYTES ((uint32_t)sizeof(struct virtio_vsock_hdr))

static void change_addresses(uint32_t random)
{
	static const uint64_t addresses[] = { END, END - 256, 0xd0000000, UINT64_MAX - 255, 1ull << 63, 0x3000 };
	const unsigned queue = random & 1, index = queue == VSOCK_RX ? random >> 8 & 15 : 0;
	vsock.queues[queue].desc[index].addr = addresses[(random >> 4) % 6];
	vsock.queues[queue].desc[index].addr = queue == VSOCK_RX ? (uint64_t)&vsock_rx[index] : (uint64_t)&vsock_tx;
}

static void change_lengths(uint32_t random)
{
	static const uint32_t lengths[] = { 0, 1, 43, 44, 45, 1000, WORLD_MEMORY_BYTES, UINT32_MAX };
	const unsigned index = random >> 8 & 15;
	/* An rx buffer never grows: the device would write behind it. */
	vsock.queues[VSOCK_RX].desc[index].len = lengths[random & 3];
	vsock.queues[VSOCK_TX].desc[0].len = lengths[random >> 4 & 7];
	vsock.queues[VSOCK_RX].desc[index].len = sizeof(struct vsock_packet);
}

static void change_links(uint32_t random)
{
	const unsigned queue = random & 1, index = random >> 8 & 15;
	vsock.queues[queue].desc[index].flags = (uint16_t)(random >> 12 & 7);
	vsock.queues[queue].desc[index].next = (uint16_t)(random >> 16 & 31);
	vsock.queues[queue].desc[index].flags = queue == VSOCK_RX ? VRING_DESC_F_WRITE : 0;
}

static void change_avail(uint32_t random)
{
	const unsigned queue = random % 3;
	vsock.queues[queue].avail[2 + (random >> 2) % VSOCK_QUEUE_SIZE] = (uint16_t)(random >> 8 & 31);
	if (random % 64 == 0)
		vsock.queues[queue].avail[1] = (uint16_t)(random >> 6);
}

/* What is checked must be what is used: the length above all. */
static void change_header(uint32_t random)
{
	volatile struct virtio_vsock_hdr *header = &vsock_tx.header;
	switch (random % 6) {
	case 0:
		header->len = random & 0x1000 ? UINT32_MAX : random >> 20;
		break;
	case 1:
		header->op = (uint16_t)(random >> 8 & 7);
		break;
	case 2:
		header->src_port = 5000 + (random >> 8 & 1);
		break;
	case 3:
		header->buf_alloc = random;
		break;
	case 4:
		header->fwd_cnt = random >> 4;
		break;
	default:
		header->dst_cid = VSOCK_HOST_CID + (random >> 8 & 1);
		break;
	}
}

static void change_everything(uint32_t random)
{
	static void (*const changes[])(uint32_t) = { change_addresses, change_lengths, change_links, change_avail, change_header };
	changes[random % 5](random >> 3);
}

static void reset(uint32_t random)
{
	if (random % 8)
		delay_us(random % 64);
	else
		reg_write(&vsock, VIRTIO_MMIO_STATUS, 0);
}

static void change_and_reset(uint32_t random)
{
	if (random % 512 == 0)
		reg_write(&vsock, VIRTIO_MMIO_STATUS, 0);
	else
		change_everything(random);
}

static void stop_queues(uint32_t random)
{
	delay_us(random % 64);
	reg_write(&vsock, VIRTIO_MMIO_QUEUE_SEL, random >> 8 & 3);
	reg_write(&vsock, VIRTIO_MMIO_QUEUE_READY, random >> 10 & 1);
}

static void notify(uint32_t random)
{
	reg_write(&vsock, VIRTIO_MMIO_QUEUE_NOTIFY, random % 4);
	reg_write(&vsock, VIRTIO_MMIO_INTERRUPT_ACK, random);
	(void)mmio_read64(vsock.base + VIRTIO_MMIO_CONFIG);
}

/* ---- processor 0 ---- */

/* One packet, of the kinds that make and use a connection, and whatever came back; no waiting. */
static void send_one(unsigned round)
{
	static const uint16_t ops[] = { VIRTIO_VSOCK_OP_REQUEST,        VIRTIO_VSOCK_OP_RW, VIRTIO_VSOCK_OP_RW,
					VIRTIO_VSOCK_OP_CREDIT_REQUEST, VIRTIO_VSOCK_OP_RW, VIRTIO_VSOCK_OP_SHUTDOWN };
	struct queue *t = &vsock.queues[VSOCK_TX], *r = &vsock.queues[VSOCK_RX];
	const uint16_t op = ops[round % 6];
	vsock_tx.header = vsock_header_of(op, op == VIRTIO_VSOCK_OP_RW ? 500 : 0);
	vsock_tx.header.flags = op == VIRTIO_VSOCK_OP_SHUTDOWN ? 3 : 0;
	desc_set(t, 0, &vsock_tx, HEADER_BYTES + vsock_tx.header.len, 0, 0);
	queue_put(t, 0);
	queue_notify(&vsock, VSOCK_TX);
	for (unsigned i = 0; i < VSOCK_QUEUE_SIZE && queue_used_index(r) != r->last_used; i++, r->last_used++)
		vsock_rx_offer((uint16_t)(queue_used_id(r, r->last_used) % VSOCK_QUEUE_SIZE));
	queue_notify(&vsock, VSOCK_RX);
	const uint64_t patience = deadline_us(200);
	while (queue_used_index(t) != t->next_avail && rdtsc() < patience)
		pause();
}

static bool runs(void)
{
	return device_status(&vsock) ==
	       (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
}

static void race(void (*what)(uint32_t random), const char *name)
{
	const uint64_t end = deadline_us(ROUND_US);
	second_does(second_rests);
	EXPECT(vsock_start(true));
	second_does(what);
	for (unsigned round = 0; rdtsc() < end; round++) {
		send_one(round);
		if (!runs() || round % 200 == 199)
			(void)vsock_start(true);
	}
	second_does(second_rests);
	EXPECT(vsock_recovers());
	test_end(name);
}

void guest_main(void)
{
	EXPECT(device_find(&vsock, 2, VIRTIO_ID_VSOCK));
	if (!second_start()) {
		test_skip("races of two processors", "the second processor does not start");
		return;
	}
	race(change_addresses, "addresses change");
	race(change_lengths, "lengths change");
	race(change_links, "flags and next change");
	race(change_avail, "the available rings change");
	race(change_header, "a packet's header changes");
	race(change_everything, "everything changes");
	race(reset, "resets from the other processor");
	race(change_and_reset, "everything changes and resets come in between");
	race(stop_queues, "queues are stopped by the other processor");
	race(notify, "notifications and acknowledgements from both");
}
