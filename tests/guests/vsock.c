/*
 * virtio-vsock against a service of the host that sends back what it gets (virtio 1.2, 5.10.6): connections, data, credit,
 * shutdown, and the packets that a peer must refuse: wrong cids, unknown connections, lengths that lie, malformed queues.
 */
#include "tests/guests/guest_vsock.h"

/* ---- as a driver uses it ---- */

static void test_connection(void)
{
	EXPECT(mmio_read64(vsock.base + VIRTIO_MMIO_CONFIG) == WORLD_GUEST_CID);
	EXPECT(vsock_start(true));
	EXPECT(vsock_connect_echo());
	for (uint32_t length = 1; length <= VSOCK_PAYLOAD; length = length * 3 + 1) {
		vsock_fill_payload(length, (uint8_t)length);
		EXPECT(vsock_send_data(length) && vsock_echo_is(length));
	}
	test_end("connect and echo");
	EXPECT(vsock_send_op(VIRTIO_VSOCK_OP_CREDIT_REQUEST));
	EXPECT(vsock_receive_op(VIRTIO_VSOCK_OP_CREDIT_UPDATE) && vsock_received.header.buf_alloc > 0);
	test_end("a request for credit is answered");
	EXPECT(vsock_disconnect());
	EXPECT(vsock_silence());
	EXPECT(vsock_works());
	test_end("disconnect, and connect again from the same port");
}

static void test_half_close(void)
{
	EXPECT(vsock_connect_echo());
	vsock_fill_payload(64, 1);
	EXPECT(vsock_send_data(64));
	struct virtio_vsock_hdr header = vsock_header_of(VIRTIO_VSOCK_OP_SHUTDOWN, 0);
	header.flags = VIRTIO_VSOCK_SHUTDOWN_SEND;
	EXPECT(vsock_send_header(header));
	/* What was sent before still comes back; then the service sees the end and closes. */
	EXPECT(vsock_echo_is(64));
	EXPECT(vsock_receive() &&
	       (vsock_received.header.op == VIRTIO_VSOCK_OP_SHUTDOWN || vsock_received.header.op == VIRTIO_VSOCK_OP_CREDIT_UPDATE));
	EXPECT(vsock_disconnect());
	test_end("half close");
}

static void test_split(void)
{
	struct queue *q = &vsock.queues[VSOCK_TX];
	EXPECT(vsock_connect_echo());
	for (uint32_t at = 1; at < sizeof(vsock_tx.header) + 3; at += 3) {
		vsock_fill_payload(8, (uint8_t)at);
		vsock_tx.header = vsock_header_of(VIRTIO_VSOCK_OP_RW, 8);
		desc_set(q, 0, &vsock_tx, at, VRING_DESC_F_NEXT, 1);
		desc_set(q, 1, (const uint8_t *)&vsock_tx + at, 2, VRING_DESC_F_NEXT, 2);
		desc_set(q, 2, (const uint8_t *)&vsock_tx + at + 2, (uint32_t)sizeof(vsock_tx.header) + 8 - at - 2, 0, 0);
		queue_put(q, 0);
		queue_notify(&vsock, VSOCK_TX);
		EXPECT(queue_wait(&vsock, VSOCK_TX, 1) && vsock_echo_is(8));
	}
	EXPECT(vsock_disconnect());
	test_end("packets split over buffers");
}

static void test_no_credit(void)
{
	vsock_buf_alloc = 0;
	EXPECT(vsock_connect_echo());
	vsock_fill_payload(32, 5);
	EXPECT(vsock_send_data(32));
	/* Without credit only packets without data come. */
	for (unsigned i = 0; i < 5; i++) {
		if (vsock_silence())
			break;
		EXPECT(vsock_receive() && vsock_received.header.op != VIRTIO_VSOCK_OP_RW);
	}
	vsock_buf_alloc = 8;
	EXPECT(vsock_send_op(VIRTIO_VSOCK_OP_CREDIT_UPDATE));
	for (unsigned at = 0; at < 32; at += vsock_received.header.len) {
		do {
			if (!EXPECT(vsock_receive()))
				return;
		} while (vsock_received.header.op != VIRTIO_VSOCK_OP_RW);
		EXPECT(vsock_received.header.len >= 1 && vsock_received.header.len <= 8 &&
		       vsock_received.payload[0] == vsock_tx.payload[at]);
		EXPECT(vsock_send_op(VIRTIO_VSOCK_OP_CREDIT_UPDATE));
	}
	vsock_buf_alloc = VSOCK_BUF_ALLOC;
	EXPECT(vsock_recovers());
	test_end("no data without credit");
}

/* ---- packets to be refused ---- */

static bool refused(struct virtio_vsock_hdr header)
{
	if (!vsock_send_header(header) || !vsock_receive())
		return false;
	return vsock_received.header.op == VIRTIO_VSOCK_OP_RST && vsock_received.header.src_port == header.dst_port &&
	       vsock_received.header.dst_port == header.src_port && vsock_received.header.len == 0;
}

static void test_refusals(void)
{
	struct virtio_vsock_hdr header = vsock_header_of(VIRTIO_VSOCK_OP_REQUEST, 0);

	EXPECT(vsock_start(true));
	header.dst_port = WORLD_CLOSED_PORT;
	EXPECT(refused(header));
	header.dst_port = UINT32_MAX;
	EXPECT(refused(header));
	test_end("a port without a service");

	static const uint64_t cids[] = { 0, 1, 3, 4, UINT32_MAX, 0x100000002ull, UINT64_MAX };
	for (unsigned i = 0; i < sizeof(cids) / sizeof(cids[0]); i++) {
		header = vsock_header_of(VIRTIO_VSOCK_OP_REQUEST, 0);
		header.dst_cid = cids[i];
		EXPECT(refused(header));
		header = vsock_header_of(VIRTIO_VSOCK_OP_REQUEST, 0);
		header.src_cid = cids[i] == 3 ? 2 : cids[i];
		EXPECT(refused(header));
	}
	test_end("cids of others");

	static const uint16_t ops[] = { 0, 2, 4, 5, 6, 7, 8, 99, UINT16_MAX };
	for (unsigned i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		EXPECT(refused(vsock_header_of(ops[i], 0)));
	test_end("operations without a connection");
	static const uint16_t types[] = { 0, 2, 3, UINT16_MAX };
	for (unsigned i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		header = vsock_header_of(VIRTIO_VSOCK_OP_REQUEST, 0);
		header.type = types[i];
		EXPECT(refused(header));
	}
	test_end("socket types that do not exist");

	EXPECT(vsock_send_op(VIRTIO_VSOCK_OP_RST));
	header = vsock_header_of(VIRTIO_VSOCK_OP_RST, 0);
	header.dst_cid = 77;
	header.type = 9;
	EXPECT(vsock_send_header(header) && vsock_silence());
	test_end("RST is not answered");
	EXPECT(vsock_works());
	test_end("the device works on");
}

/* A breach of protocol ends the connection it is on. */
static void test_breaches(void)
{
	struct virtio_vsock_hdr header;

	EXPECT(vsock_connect_echo() && refused(vsock_header_of(VIRTIO_VSOCK_OP_REQUEST, 0)));
	test_end("a second REQUEST");
	EXPECT(vsock_connect_echo() && refused(vsock_header_of(VIRTIO_VSOCK_OP_RESPONSE, 0)));
	test_end("RESPONSE to nothing");
	EXPECT(vsock_connect_echo() && refused(vsock_header_of(99, 0)));
	test_end("an unknown operation on a connection");
	EXPECT(vsock_connect_echo() && refused(vsock_header_of(VIRTIO_VSOCK_OP_RW, 1)));
	EXPECT(vsock_connect_echo() && refused(vsock_header_of(VIRTIO_VSOCK_OP_RW, UINT32_MAX)));
	test_end("more length than data");
	EXPECT(vsock_connect_echo());
	header = vsock_header_of(VIRTIO_VSOCK_OP_SHUTDOWN, 0);
	header.flags = VIRTIO_VSOCK_SHUTDOWN_SEND;
	EXPECT(vsock_send_header(header));
	vsock_tx.header = vsock_header_of(VIRTIO_VSOCK_OP_RW, 8);
	EXPECT(vsock_send_tx(sizeof(vsock_tx.header) + 8));
	bool reset = false;
	for (unsigned i = 0; i < 3 && !reset; i++)
		reset = vsock_receive() && vsock_received.header.op == VIRTIO_VSOCK_OP_RST;
	EXPECT(reset);
	test_end("data after SHUTDOWN");
	EXPECT(vsock_connect_echo() && vsock_send_op(VIRTIO_VSOCK_OP_RST) && vsock_silence());
	test_end("RST ends a connection without an answer");

	/* Credit fields that make no sense harm their author only. */
	vsock_buf_alloc = UINT32_MAX;
	EXPECT(vsock_connect_echo());
	vsock_fwd_cnt = 0x80000000u;
	vsock_fill_payload(8, 1);
	EXPECT(vsock_send_data(8));
	delay_us(QUIET_US);
	EXPECT(vsock_recovers());
	test_end("a fwd_cnt of what was never sent");
}

/* More credit is used than was granted: nothing reads at the other end, as we grant the echo nothing. */
static void test_overrun(void)
{
	static uint8_t bytes[256u << 10];
	struct queue *q = &vsock.queues[VSOCK_TX];
	bool reset = false;

	vsock_buf_alloc = 0;
	EXPECT(vsock_connect_echo());
	for (unsigned i = 0; i < 16 && !reset; i++) {
		vsock_tx.header = vsock_header_of(VIRTIO_VSOCK_OP_RW, sizeof(bytes));
		desc_set(q, 0, &vsock_tx.header, sizeof(vsock_tx.header), VRING_DESC_F_NEXT, 1);
		desc_set(q, 1, bytes, sizeof(bytes), 0, 0);
		queue_put(q, 0);
		queue_notify(&vsock, VSOCK_TX);
		if (!EXPECT(queue_wait(&vsock, VSOCK_TX, 1)))
			break;
		while (!reset && queue_used_index(&vsock.queues[VSOCK_RX]) != vsock.queues[VSOCK_RX].last_used)
			reset = vsock_receive() && vsock_received.header.op == VIRTIO_VSOCK_OP_RST;
	}
	if (!reset)
		reset = vsock_receive_op(VIRTIO_VSOCK_OP_RST);
	EXPECT(reset);
	EXPECT(vsock_recovers());
	test_end("more data than credit");
}

/* ---- queues ---- */

static void test_buffers(void)
{
	struct queue *q = &vsock.queues[VSOCK_RX];
	static const uint32_t rooms[] = { 0, 1, 20, 43, 44 };

	/* Buffers without room for a header and data come back empty; the packet goes into the next that has it. */
	EXPECT(vsock_start(false));
	for (uint16_t i = 0; i < 5; i++) {
		vsock_rx_room = rooms[i];
		vsock_rx_offer(i);
	}
	vsock_rx_room = sizeof(struct vsock_packet);
	vsock_rx_offer(5);
	queue_notify(&vsock, VSOCK_RX);
	EXPECT(vsock_send_op(VIRTIO_VSOCK_OP_REQUEST));
	EXPECT(queue_wait(&vsock, VSOCK_RX, 6));
	for (uint16_t i = 0; i < 5; i++)
		EXPECT(queue_used_id(q, i) == i && queue_used_length(q, i) == 0);
	EXPECT(queue_used_id(q, 5) == 5 && queue_used_length(q, 5) == sizeof(struct virtio_vsock_hdr));
	EXPECT(vsock_rx[5].header.op == VIRTIO_VSOCK_OP_RESPONSE);
	EXPECT(vsock_recovers());
	test_end("rx buffers that are too small");

	/* Packets without a header are dropped. */
	for (uint32_t length = 0; length < sizeof(vsock_tx.header); length += 11) {
		vsock_tx.header = vsock_header_of(VIRTIO_VSOCK_OP_REQUEST, 0);
		EXPECT(vsock_send_tx(length));
	}
	EXPECT(vsock_silence() && vsock_works());
	test_end("tx packets without a header");

	/* Without rx buffers answers wait, at first here, then in the tx queue. None is lost. */
	EXPECT(vsock_start(false));
	struct queue *t = &vsock.queues[VSOCK_TX];
	vsock_tx.header = vsock_header_of(VIRTIO_VSOCK_OP_RW, 0);
	desc_set(t, 0, &vsock_tx, sizeof(vsock_tx.header), 0, 0);
	unsigned sent = 0, answers = 0;
	for (bool stalled = false; !stalled && sent < 1000;) {
		for (; (uint16_t)(t->next_avail - queue_used_index(t)) < VSOCK_QUEUE_SIZE; sent++)
			queue_put(t, 0);
		queue_notify(&vsock, VSOCK_TX);
		const uint64_t deadline = deadline_us(10 * QUIET_US);
		while ((uint16_t)(t->next_avail - queue_used_index(t)) == VSOCK_QUEUE_SIZE && rdtsc() < deadline)
			pause();
		stalled = (uint16_t)(t->next_avail - queue_used_index(t)) == VSOCK_QUEUE_SIZE;
	}
	EXPECT(sent > VSOCK_QUEUE_SIZE && sent < 1000);
	vsock_rx_fill();
	while (answers < sent && EXPECT(vsock_receive() && vsock_received.header.op == VIRTIO_VSOCK_OP_RST))
		answers++;
	EXPECT(answers == sent && vsock_silence() && queue_used_index(t) == t->next_avail);
	EXPECT(vsock_recovers());
	test_end("a flood of packets without rx buffers");
}

static void test_malformed(void)
{
	static const char *const names[] = { "malformed rx queue", "malformed tx queue" };
	for (unsigned index = VSOCK_RX; index <= VSOCK_TX; index++) {
		for (unsigned kind = 0; kind < 3; kind++) {
			EXPECT(vsock_start(index != VSOCK_RX));
			EXPECT(index == VSOCK_RX || vsock_connect_echo());
			struct queue *q = &vsock.queues[index];
			if (kind == 0)
				desc_set_raw(&q->desc[0], WORLD_MEMORY_BYTES - 4, 64, index == VSOCK_RX ? VRING_DESC_F_WRITE : 0,
					     0);
			else if (kind == 1)
				desc_set_raw(&q->desc[0], (uint64_t)&vsock_rx, 64,
					     VRING_DESC_F_NEXT | (index == VSOCK_RX ? VRING_DESC_F_WRITE : 0), 0);
			queue_put(q, kind == 2 ? VSOCK_QUEUE_SIZE : 0);
			queue_notify(&vsock, index);
			/* The rx queue is looked at when there is something to send. */
			if (index == VSOCK_RX)
				EXPECT(vsock_send_op(VIRTIO_VSOCK_OP_REQUEST) ||
				       (device_status(&vsock) & VIRTIO_CONFIG_S_NEEDS_RESET));
			EXPECT(device_wait_failed(&vsock));
			EXPECT(vsock_recovers());
		}
		test_end(names[index]);
	}
	EXPECT(vsock_start(true));
	desc_set_raw(&vsock.queues[VSOCK_EVENT].desc[0], UINT64_MAX, 64, 0, 0);
	queue_put(&vsock.queues[VSOCK_EVENT], 0);
	queue_put(&vsock.queues[VSOCK_EVENT], UINT16_MAX);
	queue_notify(&vsock, VSOCK_EVENT);
	delay_us(QUIET_US);
	EXPECT(vsock_recovers());
	test_end("malformed event queue");
}

static void test_reset(void)
{
	/* The host's ends of connections that a reset ends are closed; the runner counts them. */
	for (unsigned round = 0; round < 10; round++) {
		EXPECT(vsock_start(true));
		for (uint32_t port = 0; port < 5; port++) {
			struct virtio_vsock_hdr header = vsock_header_of(VIRTIO_VSOCK_OP_REQUEST, 0);
			header.src_port = 7000 + port;
			EXPECT(vsock_send_header(header));
		}
		vsock_fill_payload(100, 1);
		struct virtio_vsock_hdr header = vsock_header_of(VIRTIO_VSOCK_OP_RW, 100);
		header.src_port = 7000;
		vsock_tx.header = header;
		EXPECT(vsock_send_tx(sizeof(vsock_tx.header) + 100));
	}
	EXPECT(vsock_recovers());
	test_end("reset with open connections");
}

void guest_main(void)
{
	EXPECT(device_find(&vsock, 2, VIRTIO_ID_VSOCK));
	test_connection();
	test_half_close();
	test_split();
	test_no_credit();
	test_refusals();
	test_breaches();
	test_overrun();
	test_buffers();
	test_malformed();
	test_reset();
}
