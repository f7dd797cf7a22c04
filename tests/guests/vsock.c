/*
 * virtio-vsock against a service of the host that sends back what it gets (virtio 1.2, 5.10.6): connections, data, credit,
 * shutdown, and the packets that a peer must refuse: wrong cids, unknown connections, lengths that lie, malformed queues.
 */
#include "tests/guests/guest.h"

#include <linux/virtio_vsock.h>

#define RX 0
#define TX 1
#define EVENT 2
#define SIZE 16u
#define HOST_CID 2u
#define PORT 5000u
#define BUF_ALLOC 65536u
#define PAYLOAD 1024u

struct packet {
	struct virtio_vsock_hdr header;
	uint8_t payload[PAYLOAD];
};

static struct device vsock;
static struct packet rx[SIZE], received, tx;
static unsigned rx_room; /* length of the buffers that are offered */
static uint32_t fwd_cnt; /* bytes that were taken on the connection at hand */
static uint32_t buf_alloc; /* what we grant */

static void rx_offer(uint16_t index)
{
	desc_set(&vsock.queues[RX], index, &rx[index], rx_room, VRING_DESC_F_WRITE, 0);
	queue_put(&vsock.queues[RX], index);
}

static void rx_fill(void)
{
	for (uint16_t i = 0; i < SIZE; i++)
		rx_offer(i);
	queue_notify(&vsock, RX);
}

static bool start(bool with_rx)
{
	rx_room = sizeof(struct packet);
	buf_alloc = BUF_ALLOC;
	fwd_cnt = 0;
	if (!device_start(&vsock, UINT64_MAX, 3, SIZE))
		return false;
	if (with_rx)
		rx_fill();
	return true;
}

static struct virtio_vsock_hdr header_of(uint16_t op, uint32_t length)
{
	return (struct virtio_vsock_hdr){
		.src_cid = WORLD_GUEST_CID,
		.dst_cid = HOST_CID,
		.src_port = PORT,
		.dst_port = WORLD_ECHO_PORT,
		.len = length,
		.type = VIRTIO_VSOCK_TYPE_STREAM,
		.op = op,
		.buf_alloc = buf_alloc,
		.fwd_cnt = fwd_cnt,
	};
}

/* Sends `tx` of `length` bytes in all, in one buffer, and waits until it was taken. */
static bool send_tx(uint32_t length)
{
	desc_set(&vsock.queues[TX], 0, &tx, length, 0, 0);
	queue_put(&vsock.queues[TX], 0);
	queue_notify(&vsock, TX);
	return queue_wait(&vsock, TX, 1);
}

static bool send_header(struct virtio_vsock_hdr header)
{
	tx.header = header;
	return send_tx(sizeof(tx.header));
}

static bool send_op(uint16_t op)
{
	return send_header(header_of(op, 0));
}

/* Takes the next packet into `received` and offers its buffer again. */
static bool receive(void)
{
	struct queue *q = &vsock.queues[RX];
	if (!queue_wait(&vsock, RX, 1))
		return false;
	const uint16_t at = (uint16_t)(q->last_used - 1);
	const uint32_t id = queue_used_id(q, at), length = queue_used_length(q, at);
	if (id >= SIZE || length < sizeof(received.header) || length > sizeof(received))
		return false;
	memcpy(&received, &rx[id], length);
	rx_offer((uint16_t)id);
	queue_notify(&vsock, RX);
	if (received.header.op == VIRTIO_VSOCK_OP_RW)
		fwd_cnt += received.header.len;
	return length == sizeof(received.header) + received.header.len;
}

static bool silence(void)
{
	delay_us(QUIET_US);
	return queue_used_index(&vsock.queues[RX]) == vsock.queues[RX].last_used;
}

/* The next packet but news of credit, which come when the host likes. */
static bool receive_op(uint16_t op)
{
	do {
		if (!receive())
			return false;
	} while (received.header.op == VIRTIO_VSOCK_OP_CREDIT_UPDATE && op != VIRTIO_VSOCK_OP_CREDIT_UPDATE);
	const struct virtio_vsock_hdr *header = &received.header;
	return header->op == op && header->type == VIRTIO_VSOCK_TYPE_STREAM && header->src_cid == HOST_CID &&
	       header->dst_cid == WORLD_GUEST_CID && header->src_port == tx.header.dst_port && header->dst_port == PORT;
}

static bool connect_echo(void)
{
	fwd_cnt = 0;
	return send_op(VIRTIO_VSOCK_OP_REQUEST) && receive_op(VIRTIO_VSOCK_OP_RESPONSE) && received.header.buf_alloc > 0;
}

static bool disconnect(void)
{
	struct virtio_vsock_hdr header = header_of(VIRTIO_VSOCK_OP_SHUTDOWN, 0);
	header.flags = VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND;
	return send_header(header) && receive_op(VIRTIO_VSOCK_OP_RST);
}

static void fill_payload(uint32_t length, uint8_t first)
{
	for (uint32_t i = 0; i < length; i++)
		tx.payload[i] = (uint8_t)(first + i * 7);
}

/* Receives `length` bytes of data, in as many packets as they come, and compares them with the payload of `tx`. */
static bool echo_is(uint32_t length)
{
	for (uint32_t at = 0; at < length; at += received.header.len)
		if (!receive_op(VIRTIO_VSOCK_OP_RW) || received.header.len == 0 || received.header.len > length - at ||
		    memcmp(received.payload, tx.payload + at, received.header.len))
			return false;
	return true;
}

static bool send_data(uint32_t length)
{
	tx.header = header_of(VIRTIO_VSOCK_OP_RW, length);
	return send_tx((uint32_t)sizeof(tx.header) + length);
}

static bool works(void)
{
	fill_payload(16, 99);
	return connect_echo() && send_data(16) && echo_is(16) && disconnect();
}

static bool recovers(void)
{
	return start(true) && works();
}

/* ---- as a driver uses it ---- */

static void test_connection(void)
{
	EXPECT(mmio_read64(vsock.base + VIRTIO_MMIO_CONFIG) == WORLD_GUEST_CID);
	EXPECT(start(true));
	EXPECT(connect_echo());
	for (uint32_t length = 1; length <= PAYLOAD; length = length * 3 + 1) {
		fill_payload(length, (uint8_t)length);
		EXPECT(send_data(length) && echo_is(length));
	}
	test_end("connect and echo");
	EXPECT(send_op(VIRTIO_VSOCK_OP_CREDIT_REQUEST));
	EXPECT(receive_op(VIRTIO_VSOCK_OP_CREDIT_UPDATE) && received.header.buf_alloc > 0);
	test_end("a request for credit is answered");
	EXPECT(disconnect());
	EXPECT(silence());
	EXPECT(works());
	test_end("disconnect, and connect again from the same port");
}

static void test_half_close(void)
{
	EXPECT(connect_echo());
	fill_payload(64, 1);
	EXPECT(send_data(64));
	struct virtio_vsock_hdr header = header_of(VIRTIO_VSOCK_OP_SHUTDOWN, 0);
	header.flags = VIRTIO_VSOCK_SHUTDOWN_SEND;
	EXPECT(send_header(header));
	/* What was sent before still comes back; then the service sees the end and closes. */
	EXPECT(echo_is(64));
	EXPECT(receive() &&
	       (received.header.op == VIRTIO_VSOCK_OP_SHUTDOWN || received.header.op == VIRTIO_VSOCK_OP_CREDIT_UPDATE));
	EXPECT(disconnect());
	test_end("half close");
}

static void test_split(void)
{
	struct queue *q = &vsock.queues[TX];
	EXPECT(connect_echo());
	for (uint32_t at = 1; at < sizeof(tx.header) + 3; at += 3) {
		fill_payload(8, (uint8_t)at);
		tx.header = header_of(VIRTIO_VSOCK_OP_RW, 8);
		desc_set(q, 0, &tx, at, VRING_DESC_F_NEXT, 1);
		desc_set(q, 1, (const uint8_t *)&tx + at, 2, VRING_DESC_F_NEXT, 2);
		desc_set(q, 2, (const uint8_t *)&tx + at + 2, (uint32_t)sizeof(tx.header) + 8 - at - 2, 0, 0);
		queue_put(q, 0);
		queue_notify(&vsock, TX);
		EXPECT(queue_wait(&vsock, TX, 1) && echo_is(8));
	}
	EXPECT(disconnect());
	test_end("packets split over buffers");
}

static void test_no_credit(void)
{
	buf_alloc = 0;
	EXPECT(connect_echo());
	fill_payload(32, 5);
	EXPECT(send_data(32));
	/* Without credit only packets without data come. */
	for (unsigned i = 0; i < 5; i++) {
		if (silence())
			break;
		EXPECT(receive() && received.header.op != VIRTIO_VSOCK_OP_RW);
	}
	buf_alloc = 8;
	EXPECT(send_op(VIRTIO_VSOCK_OP_CREDIT_UPDATE));
	for (unsigned at = 0; at < 32; at += received.header.len) {
		do {
			if (!EXPECT(receive()))
				return;
		} while (received.header.op != VIRTIO_VSOCK_OP_RW);
		EXPECT(received.header.len >= 1 && received.header.len <= 8 && received.payload[0] == tx.payload[at]);
		EXPECT(send_op(VIRTIO_VSOCK_OP_CREDIT_UPDATE));
	}
	buf_alloc = BUF_ALLOC;
	EXPECT(recovers());
	test_end("no data without credit");
}

/* ---- packets to be refused ---- */

static bool refused(struct virtio_vsock_hdr header)
{
	if (!send_header(header) || !receive())
		return false;
	return received.header.op == VIRTIO_VSOCK_OP_RST && received.header.src_port == header.dst_port &&
	       received.header.dst_port == header.src_port && received.header.len == 0;
}

static void test_refusals(void)
{
	struct virtio_vsock_hdr header = header_of(VIRTIO_VSOCK_OP_REQUEST, 0);

	EXPECT(start(true));
	header.dst_port = WORLD_CLOSED_PORT;
	EXPECT(refused(header));
	header.dst_port = UINT32_MAX;
	EXPECT(refused(header));
	test_end("a port without a service");

	static const uint64_t cids[] = { 0, 1, 3, 4, UINT32_MAX, 0x100000002ull, UINT64_MAX };
	for (unsigned i = 0; i < sizeof(cids) / sizeof(cids[0]); i++) {
		header = header_of(VIRTIO_VSOCK_OP_REQUEST, 0);
		header.dst_cid = cids[i];
		EXPECT(refused(header));
		header = header_of(VIRTIO_VSOCK_OP_REQUEST, 0);
		header.src_cid = cids[i] == 3 ? 2 : cids[i];
		EXPECT(refused(header));
	}
	test_end("cids of others");

	static const uint16_t ops[] = { 0, 2, 4, 5, 6, 7, 8, 99, UINT16_MAX };
	for (unsigned i = 0; i < sizeof(ops) / sizeof(ops[0]); i++)
		EXPECT(refused(header_of(ops[i], 0)));
	test_end("operations without a connection");
	static const uint16_t types[] = { 0, 2, 3, UINT16_MAX };
	for (unsigned i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		header = header_of(VIRTIO_VSOCK_OP_REQUEST, 0);
		header.type = types[i];
		EXPECT(refused(header));
	}
	test_end("socket types that do not exist");

	EXPECT(send_op(VIRTIO_VSOCK_OP_RST));
	header = header_of(VIRTIO_VSOCK_OP_RST, 0);
	header.dst_cid = 77;
	header.type = 9;
	EXPECT(send_header(header) && silence());
	test_end("RST is not answered");
	EXPECT(works());
	test_end("the device works on");
}

/* A breach of protocol ends the connection it is on. */
static void test_breaches(void)
{
	struct virtio_vsock_hdr header;

	EXPECT(connect_echo() && refused(header_of(VIRTIO_VSOCK_OP_REQUEST, 0)));
	test_end("a second REQUEST");
	EXPECT(connect_echo() && refused(header_of(VIRTIO_VSOCK_OP_RESPONSE, 0)));
	test_end("RESPONSE to nothing");
	EXPECT(connect_echo() && refused(header_of(99, 0)));
	test_end("an unknown operation on a connection");
	EXPECT(connect_echo() && refused(header_of(VIRTIO_VSOCK_OP_RW, 1)));
	EXPECT(connect_echo() && refused(header_of(VIRTIO_VSOCK_OP_RW, UINT32_MAX)));
	test_end("more length than data");
	EXPECT(connect_echo());
	header = header_of(VIRTIO_VSOCK_OP_SHUTDOWN, 0);
	header.flags = VIRTIO_VSOCK_SHUTDOWN_SEND;
	EXPECT(send_header(header));
	tx.header = header_of(VIRTIO_VSOCK_OP_RW, 8);
	EXPECT(send_tx(sizeof(tx.header) + 8));
	bool reset = false;
	for (unsigned i = 0; i < 3 && !reset; i++)
		reset = receive() && received.header.op == VIRTIO_VSOCK_OP_RST;
	EXPECT(reset);
	test_end("data after SHUTDOWN");
	EXPECT(connect_echo() && send_op(VIRTIO_VSOCK_OP_RST) && silence());
	test_end("RST ends a connection without an answer");

	/* Credit fields that make no sense harm their author only. */
	buf_alloc = UINT32_MAX;
	EXPECT(connect_echo());
	fwd_cnt = 0x80000000u;
	fill_payload(8, 1);
	EXPECT(send_data(8));
	delay_us(QUIET_US);
	EXPECT(recovers());
	test_end("a fwd_cnt of what was never sent");
}

/* More credit is used than was granted: nothing reads at the other end, as we grant the echo nothing. */
static void test_overrun(void)
{
	static uint8_t bytes[256u << 10];
	struct queue *q = &vsock.queues[TX];
	bool reset = false;

	buf_alloc = 0;
	EXPECT(connect_echo());
	for (unsigned i = 0; i < 16 && !reset; i++) {
		tx.header = header_of(VIRTIO_VSOCK_OP_RW, sizeof(bytes));
		desc_set(q, 0, &tx.header, sizeof(tx.header), VRING_DESC_F_NEXT, 1);
		desc_set(q, 1, bytes, sizeof(bytes), 0, 0);
		queue_put(q, 0);
		queue_notify(&vsock, TX);
		if (!EXPECT(queue_wait(&vsock, TX, 1)))
			break;
		while (!reset && queue_used_index(&vsock.queues[RX]) != vsock.queues[RX].last_used)
			reset = receive() && received.header.op == VIRTIO_VSOCK_OP_RST;
	}
	if (!reset)
		reset = receive_op(VIRTIO_VSOCK_OP_RST);
	EXPECT(reset);
	EXPECT(recovers());
	test_end("more data than credit");
}

/* ---- queues ---- */

static void test_buffers(void)
{
	struct queue *q = &vsock.queues[RX];
	static const uint32_t rooms[] = { 0, 1, 20, 43, 44 };

	/* Buffers without room for a header and data come back empty; the packet goes into the next that has it. */
	EXPECT(start(false));
	for (uint16_t i = 0; i < 5; i++) {
		rx_room = rooms[i];
		rx_offer(i);
	}
	rx_room = sizeof(struct packet);
	rx_offer(5);
	queue_notify(&vsock, RX);
	EXPECT(send_op(VIRTIO_VSOCK_OP_REQUEST));
	EXPECT(queue_wait(&vsock, RX, 6));
	for (uint16_t i = 0; i < 5; i++)
		EXPECT(queue_used_id(q, i) == i && queue_used_length(q, i) == 0);
	EXPECT(queue_used_id(q, 5) == 5 && queue_used_length(q, 5) == sizeof(struct virtio_vsock_hdr));
	EXPECT(rx[5].header.op == VIRTIO_VSOCK_OP_RESPONSE);
	EXPECT(recovers());
	test_end("rx buffers that are too small");

	/* Packets without a header are dropped. */
	for (uint32_t length = 0; length < sizeof(tx.header); length += 11) {
		tx.header = header_of(VIRTIO_VSOCK_OP_REQUEST, 0);
		EXPECT(send_tx(length));
	}
	EXPECT(silence() && works());
	test_end("tx packets without a header");

	/* Without rx buffers answers wait, at first here, then in the tx queue. None is lost. */
	EXPECT(start(false));
	struct queue *t = &vsock.queues[TX];
	tx.header = header_of(VIRTIO_VSOCK_OP_RW, 0);
	desc_set(t, 0, &tx, sizeof(tx.header), 0, 0);
	unsigned sent = 0, answers = 0;
	for (bool stalled = false; !stalled && sent < 1000;) {
		for (; (uint16_t)(t->next_avail - queue_used_index(t)) < SIZE; sent++)
			queue_put(t, 0);
		queue_notify(&vsock, TX);
		const uint64_t deadline = deadline_us(10 * QUIET_US);
		while ((uint16_t)(t->next_avail - queue_used_index(t)) == SIZE && rdtsc() < deadline)
			pause();
		stalled = (uint16_t)(t->next_avail - queue_used_index(t)) == SIZE;
	}
	EXPECT(sent > SIZE && sent < 1000);
	rx_fill();
	while (answers < sent && EXPECT(receive() && received.header.op == VIRTIO_VSOCK_OP_RST))
		answers++;
	EXPECT(answers == sent && silence() && queue_used_index(t) == t->next_avail);
	EXPECT(recovers());
	test_end("a flood of packets without rx buffers");
}

static void test_malformed(void)
{
	static const char *const names[] = { "malformed rx queue", "malformed tx queue" };
	for (unsigned index = RX; index <= TX; index++) {
		for (unsigned kind = 0; kind < 3; kind++) {
			EXPECT(start(index != RX));
			EXPECT(index == RX || connect_echo());
			struct queue *q = &vsock.queues[index];
			if (kind == 0)
				desc_set_raw(&q->desc[0], WORLD_MEMORY_BYTES - 4, 64, index == RX ? VRING_DESC_F_WRITE : 0, 0);
			else if (kind == 1)
				desc_set_raw(&q->desc[0], (uint64_t)&rx, 64,
					     VRING_DESC_F_NEXT | (index == RX ? VRING_DESC_F_WRITE : 0), 0);
			queue_put(q, kind == 2 ? SIZE : 0);
			queue_notify(&vsock, index);
			/* The rx queue is looked at when there is something to send. */
			if (index == RX)
				EXPECT(send_op(VIRTIO_VSOCK_OP_REQUEST) || (device_status(&vsock) & VIRTIO_CONFIG_S_NEEDS_RESET));
			EXPECT(device_wait_failed(&vsock));
			EXPECT(recovers());
		}
		test_end(names[index]);
	}
	EXPECT(start(true));
	desc_set_raw(&vsock.queues[EVENT].desc[0], UINT64_MAX, 64, 0, 0);
	queue_put(&vsock.queues[EVENT], 0);
	queue_put(&vsock.queues[EVENT], UINT16_MAX);
	queue_notify(&vsock, EVENT);
	delay_us(QUIET_US);
	EXPECT(recovers());
	test_end("malformed event queue");
}

static void test_reset(void)
{
	/* The host's ends of connections that a reset ends are closed; the runner counts them. */
	for (unsigned round = 0; round < 10; round++) {
		EXPECT(start(true));
		for (uint32_t port = 0; port < 5; port++) {
			struct virtio_vsock_hdr header = header_of(VIRTIO_VSOCK_OP_REQUEST, 0);
			header.src_port = 7000 + port;
			EXPECT(send_header(header));
		}
		fill_payload(100, 1);
		struct virtio_vsock_hdr header = header_of(VIRTIO_VSOCK_OP_RW, 100);
		header.src_port = 7000;
		tx.header = header;
		EXPECT(send_tx(sizeof(tx.header) + 100));
	}
	EXPECT(recovers());
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
