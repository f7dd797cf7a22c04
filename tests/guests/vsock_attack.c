/*
 * A hostile driver of virtio-vsock: each test is a rule that the device keeps whatever the driver does. (vsock.c has the ordinary
 * refusals.) Malformed rings stop the device until a reset; packets that break the protocol cost a RST, or their own connection.
 */
#include "tests/guests/guest_vsock.h"

#define N VRING_DESC_F_NEXT
#define W VRING_DESC_F_WRITE
#define I VRING_DESC_F_INDIRECT
#define END ((uint64_t)WORLD_MEMORY_BYTES)
#define HEADER_BYTES ((uint32_t)sizeof(struct virtio_vsock_hdr))

/* ---- malformed rings ---- */

struct row {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

struct attack {
	const char *name;
	uint16_t head;
	struct row desc[3];
	struct row table[2];
};

static struct vring_desc table[4] __attribute__((aligned(16)));

/* Of a buffer that the device would take: `vsock_tx` to read, `vsock_rx[0]` to write. Flags are for the tx queue; test_chain() adds W. */
#define AT(object) ((uint64_t) & (object))
#define GOOD                                                                                                                       \
	{                                                                                                                          \
		AT(vsock_tx), HEADER_BYTES, N, 1                                                                                   \
	}
#define TABLE(bytes, flags)                                                                                                        \
	{                                                                                                                          \
		AT(table), (bytes), I | (flags), 1                                                                                 \
	}

/* clang-format off */
static const struct attack chains[] = {
	{ "a buffer behind RAM", .desc = { { END, 64, 0, 0 } } },
	{ "a buffer over the end of RAM", .desc = { { END - 8, 64, 0, 0 } } },
	{ "a buffer in a device's registers", .desc = { { 0xd0002000, 64, 0, 0 } } },
	{ "a buffer in the interrupt controller", .desc = { { 0xfec00000, 64, 0, 0 } } },
	{ "a buffer whose end wraps", .desc = { { UINT64_MAX - 15, 64, 0, 0 } } },
	{ "a buffer of 4 GiB - 1", .desc = { { AT(vsock_tx), UINT32_MAX, 0, 0 } } },
	{ "a second buffer behind RAM", .desc = { GOOD, { END, 64, 0, 0 } } },
	{ "a head outside the table", .head = VSOCK_QUEUE_SIZE, .desc = { { AT(vsock_tx), 64, 0, 0 } } },
	{ "head 65535", .head = 65535, .desc = { { AT(vsock_tx), 64, 0, 0 } } },
	{ "a next outside the table", .desc = { { AT(vsock_tx), 64, N, VSOCK_QUEUE_SIZE } } },
	{ "a cycle of one", .desc = { { AT(vsock_tx), 64, N, 0 } } },
	{ "a cycle of two", .desc = { GOOD, { AT(vsock_tx), 64, N, 0 } } },
	{ "a cycle of empty buffers", .desc = { { AT(vsock_tx), 0, N, 1 }, { AT(vsock_tx), 0, N, 0 } } },
	{ "an indirect table in an indirect table", .desc = { TABLE(32, 0) }, .table = { GOOD, { AT(table), 16, I, 0 } } },
	{ "an empty indirect table", .desc = { TABLE(0, 0) } },
	{ "an indirect table of 17 bytes", .desc = { TABLE(17, 0) }, .table = { { AT(vsock_tx), 64, 0, 0 } } },
	{ "an indirect table with a successor", .desc = { TABLE(16, N), GOOD }, .table = { { AT(vsock_tx), 64, 0, 0 } } },
	{ "an indirect table behind RAM", .desc = { { END, 32, I, 0 } } },
	{ "a next outside an indirect table", .desc = { TABLE(32, 0) }, .table = { { AT(vsock_tx), 64, N, 2 } } },
	{ "a buffer behind RAM in an indirect table", .desc = { TABLE(32, 0) }, .table = { GOOD, { END, 64, 0, 0 } } },
};
/* clang-format on */

static void write_rows(volatile struct vring_desc *desc, const struct row *rows, unsigned count, uint16_t more)
{
	for (unsigned i = 0; i < count; i++)
		desc_set_raw(&desc[i], rows[i].addr, rows[i].len, rows[i].flags | (rows[i].flags & I ? 0 : more), rows[i].next);
}

/* The rx queue is looked at when there is something to send: there is, as nobody has a connection. */
static void provoke(void)
{
	vsock_tx.header = vsock_header_of(VIRTIO_VSOCK_OP_RW, 0);
	desc_set(&vsock.queues[VSOCK_TX], 0, &vsock_tx, HEADER_BYTES, 0, 0);
	queue_put(&vsock.queues[VSOCK_TX], 0);
	queue_notify(&vsock, VSOCK_TX);
}

static void test_chain(const struct attack *attack, unsigned index)
{
	struct queue *q = &vsock.queues[index];
	EXPECT(vsock_start(index != VSOCK_RX));
	write_rows(q->desc, attack->desc, 3, index == VSOCK_RX ? W : 0);
	write_rows(table, attack->table, 2, index == VSOCK_RX ? W : 0);
	queue_put(q, attack->head);
	queue_notify(&vsock, index);
	if (index == VSOCK_RX)
		provoke();
	EXPECT(device_wait_failed(&vsock));
	EXPECT(reg_read(&vsock, VIRTIO_MMIO_INTERRUPT_STATUS) & VIRTIO_MMIO_INT_CONFIG);
	const uint16_t used = queue_used_index(q);
	queue_put(q, 0);
	queue_notify(&vsock, index);
	delay_us(100);
	EXPECT(queue_used_index(q) == used);
	EXPECT(vsock_recovers());
}

static void test_chains(void)
{
	for (unsigned i = 0; i < sizeof(chains) / sizeof(chains[0]); i++) {
		test_chain(&chains[i], VSOCK_TX);
		test_chain(&chains[i], VSOCK_RX);
		test_end(chains[i].name);
	}
	/* Readable behind writable. */
	for (unsigned index = VSOCK_RX; index <= VSOCK_TX; index++) {
		EXPECT(vsock_start(index != VSOCK_RX));
		desc_set(&vsock.queues[index], 0, &vsock_rx[0], 64, N | W, 1);
		desc_set(&vsock.queues[index], 1, &vsock_tx, 64, 0, 0);
		queue_put(&vsock.queues[index], 0);
		queue_notify(&vsock, index);
		if (index == VSOCK_RX)
			provoke();
		EXPECT(device_wait_failed(&vsock));
		EXPECT(vsock_recovers());
	}
	test_end("a readable buffer behind a writable one");
	for (unsigned index = VSOCK_RX; index <= VSOCK_TX; index++) {
		for (unsigned jump = VSOCK_QUEUE_SIZE + 1; jump <= UINT16_MAX; jump = jump * 2 + 1) {
			EXPECT(vsock_start(false));
			vsock.queues[index].avail[1] = (uint16_t)jump;
			queue_notify(&vsock, index);
			if (index == VSOCK_RX)
				provoke();
			EXPECT(device_wait_failed(&vsock));
		}
		EXPECT(vsock_recovers());
	}
	test_end("an available index that jumps");
}

/* Buffers that are good memory, but of the wrong direction: they hold no packet, and there is no room in them. */
static void test_directions(void)
{
	struct queue *t = &vsock.queues[VSOCK_TX], *r = &vsock.queues[VSOCK_RX];
	EXPECT(vsock_start(true));
	vsock_tx.header = vsock_header_of(VIRTIO_VSOCK_OP_REQUEST, 0);
	desc_set(t, 0, &vsock_tx, HEADER_BYTES, W, 0);
	queue_put(t, 0);
	queue_notify(&vsock, VSOCK_TX);
	EXPECT(queue_wait(&vsock, VSOCK_TX, 1) && vsock_silence());
	EXPECT(vsock_works());
	test_end("a tx buffer that is writable holds no packet");

	EXPECT(vsock_start(false));
	desc_set(r, 0, &vsock_rx[0], sizeof(vsock_rx[0]), 0, 0);
	queue_put(r, 0);
	provoke();
	EXPECT(queue_wait(&vsock, VSOCK_RX, 1) && queue_used_length(r, 0) == 0);
	vsock_rx_fill();
	EXPECT(vsock_receive() && vsock_received.header.op == VIRTIO_VSOCK_OP_RST);
	EXPECT(vsock_works());
	test_end("an rx buffer that is readable has no room");

	/* One chain, put many times: each is a packet of its own. */
	EXPECT(vsock_start(true));
	vsock_tx.header = vsock_header_of(VIRTIO_VSOCK_OP_RW, 0);
	desc_set(t, 0, &vsock_tx, HEADER_BYTES, 0, 0);
	for (unsigned i = 0; i < VSOCK_QUEUE_SIZE; i++)
		queue_put(t, 0);
	queue_notify(&vsock, VSOCK_TX);
	EXPECT(queue_wait(&vsock, VSOCK_TX, VSOCK_QUEUE_SIZE));
	for (unsigned i = 0; i < VSOCK_QUEUE_SIZE; i++)
		EXPECT(vsock_receive() && vsock_received.header.op == VIRTIO_VSOCK_OP_RST);
	EXPECT(vsock_silence() && vsock_works());
	test_end("one chain put sixteen times is sixteen packets");
}

/* ---- packets over several buffers ---- */

static void test_splits(void)
{
	struct queue *q = &vsock.queues[VSOCK_TX];
	EXPECT(vsock_start(true) && vsock_connect_echo());
	for (uint32_t at = 0; at <= HEADER_BYTES + 8; at++) {
		vsock_fill_payload(8, (uint8_t)at);
		vsock_tx.header = vsock_header_of(VIRTIO_VSOCK_OP_RW, 8);
		desc_set(q, 0, &vsock_tx, at, N, 1);
		desc_set(q, 1, (const uint8_t *)&vsock_tx + at, 0, N, 2);
		desc_set(q, 2, (const uint8_t *)&vsock_tx + at, HEADER_BYTES + 8 - at, 0, 0);
		queue_put(q, 0);
		queue_notify(&vsock, VSOCK_TX);
		EXPECT(queue_wait(&vsock, VSOCK_TX, 1) && vsock_echo_is(8));
	}
	EXPECT(vsock_disconnect());
	test_end("a header split at any byte is one header");

	/* Odd parts of 60000 bytes, and the echo of them. */
	static uint8_t bytes[60000];
	for (uint32_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 7 + i / 256);
	EXPECT(vsock_connect_echo());
	vsock_tx.header = vsock_header_of(VIRTIO_VSOCK_OP_RW, sizeof(bytes));
	desc_set(q, 0, &vsock_tx, 30, N, 1);
	desc_set(q, 1, (const uint8_t *)&vsock_tx + 30, HEADER_BYTES - 30, N, 2);
	uint32_t at = 0;
	for (uint16_t i = 2; i < VSOCK_QUEUE_SIZE; i++) {
		const uint32_t part = i == VSOCK_QUEUE_SIZE - 1 ? (uint32_t)sizeof(bytes) - at : 33u * i * i;
		desc_set(q, i, bytes + at, part, i == VSOCK_QUEUE_SIZE - 1 ? 0 : N, (uint16_t)(i + 1));
		at += part;
	}
	queue_put(q, 0);
	queue_notify(&vsock, VSOCK_TX);
	EXPECT(queue_wait(&vsock, VSOCK_TX, 1));
	for (at = 0; at < sizeof(bytes); at += vsock_received.header.len) {
		if (!EXPECT(vsock_receive_op(VIRTIO_VSOCK_OP_RW) && vsock_received.header.len <= sizeof(bytes) - at))
			break;
		EXPECT(!memcmp(vsock_received.payload, bytes + at, vsock_received.header.len));
		EXPECT(vsock_send_op(VIRTIO_VSOCK_OP_CREDIT_UPDATE));
	}
	EXPECT(vsock_disconnect());
	test_end("a packet of 60000 bytes over sixteen buffers is delivered whole");

	EXPECT(vsock_connect_echo());
	vsock_fill_payload(64, 3);
	vsock_tx.header = vsock_header_of(VIRTIO_VSOCK_OP_RW, 16);
	EXPECT(vsock_send_tx(HEADER_BYTES + 64) && vsock_echo_is(16));
	EXPECT(vsock_silence() && vsock_disconnect());
	test_end("bytes behind the length are not data");
}

/* ---- the protocol ---- */

static void test_data(void)
{
	EXPECT(vsock_start(true) && vsock_connect_echo());
	for (unsigned i = 0; i < 20; i++)
		EXPECT(vsock_send_data(0));
	EXPECT(vsock_silence());
	vsock_fill_payload(5, 1);
	EXPECT(vsock_send_data(5) && vsock_echo_is(5));
	EXPECT(vsock_disconnect());
	test_end("RW of no bytes is no end and no answer");
}

static void test_resets(void)
{
	static const uint16_t types[] = { 0, 1, 2, UINT16_MAX };
	static const uint64_t cids[] = { 0, 2, WORLD_GUEST_CID, UINT64_MAX };
	EXPECT(vsock_start(true));
	for (unsigned i = 0; i < 4; i++) {
		for (unsigned j = 0; j < 4; j++) {
			struct virtio_vsock_hdr header = vsock_header_of(VIRTIO_VSOCK_OP_RST, i * 100);
			header.type = types[j];
			header.src_cid = cids[i];
			header.dst_cid = cids[j];
			header.flags = UINT32_MAX;
			header.dst_port = j & 1 ? WORLD_CLOSED_PORT : WORLD_ECHO_PORT;
			EXPECT(vsock_send_header(header));
		}
	}
	EXPECT(vsock_silence());
	EXPECT(vsock_works());
	test_end("RST of RST: never");
	for (unsigned i = 0; i < 50; i++)
		EXPECT(vsock_connect_echo() && vsock_send_op(VIRTIO_VSOCK_OP_RST));
	EXPECT(vsock_silence() && vsock_works());
	test_end("RST ends a connection at once, fifty times");
}

static void test_shutdown(void)
{
	struct virtio_vsock_hdr header;

	/* Flags that mean nothing, and none. */
	EXPECT(vsock_start(true) && vsock_connect_echo());
	header = vsock_header_of(VIRTIO_VSOCK_OP_SHUTDOWN, 0);
	EXPECT(vsock_send_header(header));
	header.flags = ~3u;
	EXPECT(vsock_send_header(header));
	vsock_fill_payload(9, 1);
	EXPECT(vsock_send_data(9) && vsock_echo_is(9));
	test_end("SHUTDOWN of nothing shuts nothing down");

	/* One side, then again, then the other. */
	header = vsock_header_of(VIRTIO_VSOCK_OP_SHUTDOWN, 0);
	header.flags = VIRTIO_VSOCK_SHUTDOWN_RCV;
	for (unsigned i = 0; i < 5; i++)
		EXPECT(vsock_send_header(header));
	EXPECT(vsock_send_data(9));
	header = vsock_header_of(VIRTIO_VSOCK_OP_SHUTDOWN, 0);
	header.flags = VIRTIO_VSOCK_SHUTDOWN_SEND;
	EXPECT(vsock_send_header(header));
	bool reset = false;
	for (unsigned i = 0; i < 5 && !reset; i++) {
		EXPECT(vsock_receive() && vsock_received.header.op != VIRTIO_VSOCK_OP_RW);
		reset = vsock_received.header.op == VIRTIO_VSOCK_OP_RST;
	}
	EXPECT(reset && vsock_silence());
	test_end("after SHUTDOWN no data comes, and both sides end in one RST");

	/* Shut down with data under way: it is delivered, then RST. */
	EXPECT(vsock_connect_echo());
	vsock_fill_payload(512, 5);
	EXPECT(vsock_send_data(512));
	header = vsock_header_of(VIRTIO_VSOCK_OP_SHUTDOWN, 0);
	header.flags = VIRTIO_VSOCK_SHUTDOWN_SEND;
	EXPECT(vsock_send_header(header) && vsock_echo_is(512));
	header.flags = VIRTIO_VSOCK_SHUTDOWN_RCV;
	EXPECT(vsock_send_header(header));
	reset = false;
	for (unsigned i = 0; i < 5 && !reset; i++)
		reset = vsock_receive() && vsock_received.header.op == VIRTIO_VSOCK_OP_RST;
	EXPECT(reset);
	EXPECT(vsock_works());
	test_end("what was sent before SHUTDOWN is delivered");
}

/* ---- credit ---- */

/* Connects to the service that sends for ever. */
static bool connect_source(uint32_t credit)
{
	vsock_buf_alloc = credit;
	vsock_fwd_cnt = 0;
	struct virtio_vsock_hdr header = vsock_header_of(VIRTIO_VSOCK_OP_REQUEST, 0);
	header.dst_port = WORLD_SOURCE_PORT;
	return vsock_send_header(header) && vsock_receive_op(VIRTIO_VSOCK_OP_RESPONSE);
}

static bool send_credit(uint32_t credit, uint32_t fwd_cnt)
{
	struct virtio_vsock_hdr header = vsock_header_of(VIRTIO_VSOCK_OP_CREDIT_UPDATE, 0);
	header.dst_port = WORLD_SOURCE_PORT;
	header.buf_alloc = credit;
	header.fwd_cnt = fwd_cnt;
	return vsock_send_header(header);
}

/* Takes what comes until it is quiet. Returns the bytes; `next` is where in the stream they have to begin. */
static uint32_t take_stream(uint32_t *next)
{
	uint32_t bytes = 0;
	while (!vsock_silence()) {
		if (!vsock_receive() || vsock_received.header.op != VIRTIO_VSOCK_OP_RW)
			continue;
		EXPECT(vsock_received.header.len > 0);
		EXPECT(vsock_received.payload[0] == (uint8_t)(*next % 251));
		*next += vsock_received.header.len;
		bytes += vsock_received.header.len;
	}
	return bytes;
}

static void test_credit(void)
{
	uint32_t next = 0;

	EXPECT(vsock_start(true) && connect_source(0));
	EXPECT(take_stream(&next) == 0);
	test_end("no credit: no data");
	EXPECT(send_credit(1, 0));
	EXPECT(take_stream(&next) == 1);
	EXPECT(send_credit(3, 1));
	EXPECT(take_stream(&next) == 3);
	test_end("credit of one byte: one byte");
	/* fwd_cnt beyond what was sent, and back. */
	EXPECT(send_credit(VSOCK_BUF_ALLOC, next + 1));
	EXPECT(take_stream(&next) == 0);
	EXPECT(send_credit(VSOCK_BUF_ALLOC, next + 0x80000000u));
	EXPECT(take_stream(&next) == 0);
	test_end("fwd_cnt of what was never sent: no data");
	EXPECT(send_credit(4096, next));
	EXPECT(take_stream(&next) <= 4096 && next > 4);
	const uint32_t before = next;
	EXPECT(send_credit(100, before - 4000));
	EXPECT(take_stream(&next) == 0);
	EXPECT(send_credit(0, before));
	EXPECT(take_stream(&next) == 0);
	test_end("credit that is taken back: no data");
	for (unsigned i = 0; i < 12; i++) {
		const uint32_t start = next, window = 64u << (i % 6);
		EXPECT(send_credit(window, start));
		EXPECT(take_stream(&next) <= window);
		EXPECT(next != start);
	}
	test_end("a window that opens and closes: never more than it");
	struct virtio_vsock_hdr header = vsock_header_of(VIRTIO_VSOCK_OP_RST, 0);
	header.dst_port = WORLD_SOURCE_PORT;
	EXPECT(vsock_send_header(header));

	/* All the credit that there is, and buffers of one byte of data each. */
	EXPECT(vsock_start(false));
	vsock_rx_room = HEADER_BYTES + 1;
	vsock_rx_fill();
	next = 0;
	EXPECT(connect_source(UINT32_MAX));
	for (unsigned i = 0; i < 500; i++) {
		if (!EXPECT(vsock_receive()))
			break;
		if (vsock_received.header.op == VIRTIO_VSOCK_OP_RW) {
			EXPECT(vsock_received.header.len == 1 && vsock_received.payload[0] == (uint8_t)(next % 251));
			next++;
			vsock_fwd_cnt = next;
		}
	}
	EXPECT(vsock_recovers());
	test_end("credit of 4 GiB and buffers of one byte");

	/* Our own credit at the device: what we sent and it has not taken is never more than it granted. */
	vsock_buf_alloc = 0;
	EXPECT(vsock_connect_echo());
	uint32_t granted = vsock_received.header.buf_alloc, sent = 0;
	for (unsigned i = 0; i < 64; i++) {
		if (!EXPECT(vsock_send_data(VSOCK_PAYLOAD)))
			break;
		sent += VSOCK_PAYLOAD;
		EXPECT(vsock_send_op(VIRTIO_VSOCK_OP_CREDIT_REQUEST) && vsock_receive_op(VIRTIO_VSOCK_OP_CREDIT_UPDATE));
		EXPECT(vsock_received.header.fwd_cnt <= sent && vsock_received.header.buf_alloc == granted);
	}
	EXPECT(vsock_recovers());
	test_end("fwd_cnt is never ahead of what was sent, and the grant never shrinks");
}

/* ---- floods ---- */

static void test_floods(void)
{
	/* A connection that works, beside more than the host has descriptors for. Each REQUEST is answered: by a RST, too. */
	EXPECT(vsock_start(true) && vsock_connect_echo());
	unsigned accepted = 0, refused = 0;
	for (uint32_t i = 0; i < 1000; i++) {
		struct virtio_vsock_hdr header = vsock_header_of(VIRTIO_VSOCK_OP_REQUEST, 0);
		header.src_port = 20000 + i;
		if (!EXPECT(vsock_send_header(header) && vsock_receive()))
			break;
		accepted += vsock_received.header.op == VIRTIO_VSOCK_OP_RESPONSE;
		refused += vsock_received.header.op == VIRTIO_VSOCK_OP_RST;
	}
	EXPECT(accepted >= 10 && refused >= 10 && accepted + refused == 1000);
	vsock_fwd_cnt = 0;
	vsock_fill_payload(200, 1);
	EXPECT(vsock_send_data(200) && vsock_echo_is(200));
	test_end("a flood of connections is refused, and costs the others nothing");
	EXPECT(vsock_recovers());
	test_end("after a reset there is room again");

	/* A flood of packets for nobody, while a connection works. */
	EXPECT(vsock_connect_echo());
	struct queue *t = &vsock.queues[VSOCK_TX];
	for (unsigned round = 0; round < 50; round++) {
		struct virtio_vsock_hdr header = vsock_header_of(VIRTIO_VSOCK_OP_RST, 0);
		header.dst_port = WORLD_CLOSED_PORT;
		vsock_tx.header = header;
		for (uint16_t i = 0; i < VSOCK_QUEUE_SIZE; i++) {
			desc_set(t, i, &vsock_tx, HEADER_BYTES, 0, 0);
			queue_put(t, i);
		}
		for (unsigned i = 0; i < 20; i++)
			queue_notify(&vsock, round % 3);
		queue_notify(&vsock, VSOCK_TX);
		EXPECT(queue_wait(&vsock, VSOCK_TX, VSOCK_QUEUE_SIZE));
	}
	vsock_fwd_cnt = 0;
	EXPECT(vsock_send_data(20) && vsock_receive_op(VIRTIO_VSOCK_OP_RW));
	EXPECT(vsock_recovers());
	test_end("a flood of packets and notifications");

	/* A flood of bytes: sixteen connections to the service that sends for ever, none of which is read. */
	EXPECT(vsock_start(true));
	for (uint32_t i = 0; i < 16; i++) {
		struct virtio_vsock_hdr header = vsock_header_of(VIRTIO_VSOCK_OP_REQUEST, 0);
		header.dst_port = WORLD_SOURCE_PORT;
		header.src_port = 30000 + i;
		header.buf_alloc = UINT32_MAX;
		vsock_tx.header = header;
		EXPECT(vsock_send_tx(HEADER_BYTES));
	}
	delay_us(20 * QUIET_US);
	EXPECT(!(device_status(&vsock) & VIRTIO_CONFIG_S_NEEDS_RESET));
	EXPECT(vsock_recovers());
	test_end("a flood of bytes that nobody takes");
}

/* Packets of likely values on few connections, at random, and buffers that come back late. */
static void test_random(void)
{
	uint32_t random = 1;
	EXPECT(vsock_start(true));
	for (unsigned i = 0; i < 3000; i++) {
		random = random * 1664525u + 1013904223u;
		struct virtio_vsock_hdr header = vsock_header_of((uint16_t)(random >> 8 & 7), 0);
		header.src_port = 5000 + (random >> 11 & 3);
		header.dst_port = random >> 13 & 1 ? WORLD_ECHO_PORT : WORLD_SOURCE_PORT;
		header.len = random >> 14 & 1 ? random >> 20 & 0x3ff : 0;
		header.flags = random >> 15 & 3;
		header.buf_alloc = random >> 17 & 1 ? VSOCK_BUF_ALLOC : random >> 20;
		header.fwd_cnt = random >> 18 & 1 ? 0 : random >> 19;
		vsock_tx.header = header;
		desc_set(&vsock.queues[VSOCK_TX], 0, &vsock_tx, HEADER_BYTES + header.len, 0, 0);
		queue_put(&vsock.queues[VSOCK_TX], 0);
		queue_notify(&vsock, VSOCK_TX);
		while (queue_used_index(&vsock.queues[VSOCK_RX]) != vsock.queues[VSOCK_RX].last_used)
			(void)vsock_receive();
		if ((uint16_t)(vsock.queues[VSOCK_TX].next_avail - queue_used_index(&vsock.queues[VSOCK_TX])) >= VSOCK_QUEUE_SIZE)
			delay_us(100);
		if ((uint16_t)(vsock.queues[VSOCK_TX].next_avail - queue_used_index(&vsock.queues[VSOCK_TX])) >= VSOCK_QUEUE_SIZE)
			EXPECT(vsock_start(true));
	}
	EXPECT(vsock_recovers());
	test_end("any packets in any order");
}

void guest_main(void)
{
	EXPECT(device_find(&vsock, 2, VIRTIO_ID_VSOCK));
	test_chains();
	test_directions();
	test_splits();
	test_data();
	test_resets();
	test_shutdown();
	test_credit();
	test_floods();
	test_random();
}
