/*
 * The rx queue: what goes to the guest, and whose turn it is (virtio 1.2, 5.10.6.4).
 *
 * Connections that have something to send stand in a ready list and send one packet a turn. So a connection with much to send costs the
 * others nothing but their share, and one that has nothing costs nothing at all. One that is alone, and whose host end gives more than a
 * buffer takes, reads into several buffers at once: most drivers offer pages, and a system call for each would cost more than its bytes.
 *
 * When the driver offers no rx buffers, what we have to say is kept as flags of connections, and RSTs without a connection in a fifo.
 */
#include "devices/virtio-vsock/vsock_internal.h"

#include "base/iov.h"

/* ---- buffers ----------------------------------------------------------------------------------------------------------------- */

const struct virtq_chain *rx_buffer(const struct virtio_vsock *vsock, unsigned index)
{
	return &vsock->rx_chains[(vsock->rx_first + index) % VSOCK_RX_BATCH];
}

/* Has one buffer more at hand, if the driver offers one that has room for payload. */
static bool hold_one(struct virtio_vsock *vsock)
{
	struct virtq *q = &vsock->dev.queues[VSOCK_QUEUE_RX];
	struct virtq_chain *chain = &vsock->rx_chains[(vsock->rx_first + vsock->rx_held) % VSOCK_RX_BATCH];

	for (unsigned tries = 0; tries < VSOCK_ROUND_PACKETS; tries++) {
		const int popped = virtq_pop(q, chain);
		if (popped < 0) {
			virtio_device_fail(&vsock->dev, "malformed rx queue");
			return false;
		}
		if (popped == 0)
			return false;
		if (chain->writable_bytes > sizeof(struct vsock_hdr)) {
			vsock->rx_held++;
			return true;
		}
		if (vsock->rx_held) {
			/* In its turn: those at hand may all be put back, and then only what was popped last. */
			virtq_unpop(q);
			return false;
		}
		/* Room for no payload: given back unused, the driver drops it. */
		virtq_push(q, chain->head, 0);
		vsock->rx_pushed = true;
	}
	vsock_raise_again(vsock);
	return false;
}

/* As hold_one(); when there is none, the driver's next notification comes to us. */
static bool hold_first(struct virtio_vsock *vsock)
{
	struct virtq *q = &vsock->dev.queues[VSOCK_QUEUE_RX];

	while (!hold_one(vsock)) {
		if (!vsock->dev.active || vsock->again_raised)
			return false;
		vsock->rx_starved = true;
		if (!virtq_want_kicks(q, true))
			return false;
	}
	if (vsock->rx_starved)
		virtq_want_kicks(q, false);
	vsock->rx_starved = false;
	return true;
}

static unsigned hold(struct virtio_vsock *vsock, unsigned wanted)
{
	while (vsock->rx_held < wanted && hold_one(vsock))
		;
	return vsock->rx_held < wanted ? vsock->rx_held : wanted;
}

/* ---- packets ----------------------------------------------------------------------------------------------------------------- */

/* Sends the first of the buffers at hand, in which the payload is already. */
static void push(struct virtio_vsock *vsock, const struct vsock_hdr *hdr)
{
	const struct virtq_chain *chain = rx_buffer(vsock, 0);

	iov_copy_in(virtq_writable(chain), chain->writable_count, 0, hdr, sizeof(*hdr));
	vsock_charge(vsock, sizeof(*hdr) + le32_get(hdr->len));
	virtq_push(&vsock->dev.queues[VSOCK_QUEUE_RX], chain->head, (uint32_t)sizeof(*hdr) + le32_get(hdr->len));
	vsock->rx_first = (vsock->rx_first + 1) % VSOCK_RX_BATCH;
	vsock->rx_held--;
	vsock->rx_pushed = true;
}

static void send_rst(struct virtio_vsock *vsock)
{
	const struct vsock_rst *rst = &vsock->rst_fifo[vsock->rst_head];
	const struct vsock_hdr hdr = {
		.src_cid = le64_make(rst->src_cid),
		.dst_cid = le64_make(rst->dst_cid),
		.src_port = le32_make(rst->src_port),
		.dst_port = le32_make(rst->dst_port),
		.type = le16_make(rst->type),
		.op = le16_make(VSOCK_OP_RST),
	};

	vsock->rst_head = (vsock->rst_head + 1) % VSOCK_RST_FIFO;
	vsock->rst_count--;
	push(vsock, &hdr);
}

/* Takes the most urgent thing off conn->pending that may be sent now. */
static enum vsock_op take_pending(struct vsock_conn *conn)
{
	static const struct {
		uint8_t pending;
		uint8_t op;
	} order[] = {
		{ PENDING_REQUEST, VSOCK_OP_REQUEST },
		{ PENDING_RESPONSE, VSOCK_OP_RESPONSE },
		{ PENDING_RST, VSOCK_OP_RST },
		{ PENDING_SHUTDOWN, VSOCK_OP_SHUTDOWN },
		{ PENDING_CREDIT_REQUEST, VSOCK_OP_CREDIT_REQUEST },
		{ PENDING_CREDIT_UPDATE, VSOCK_OP_CREDIT_UPDATE },
	};

	for (unsigned i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
		if (!(conn->pending & order[i].pending))
			continue;
		conn->pending &= (uint8_t)~order[i].pending;
		return order[i].op;
	}
	return VSOCK_OP_INVALID;
}

static void push_packet(struct vsock_conn *conn, enum vsock_op op, uint32_t flags, uint32_t length)
{
	const struct vsock_hdr hdr = {
		.src_cid = le64_make(VSOCK_HOST_CID),
		.dst_cid = le64_make(conn->vsock->guest_cid),
		.src_port = le32_make(conn->host_port),
		.dst_port = le32_make(conn->guest_port),
		.len = le32_make(length),
		.type = le16_make(conn->type),
		.op = le16_make((uint16_t)op),
		.flags = le32_make(flags),
		.buf_alloc = le32_make(conn->buf_alloc),
		.fwd_cnt = le32_make(conn->fwd_cnt),
	};

	/* Every packet carries our credit, so none is needed for that alone. */
	conn->fwd_cnt_told = conn->fwd_cnt;
	conn->pending &= (uint8_t)~PENDING_CREDIT_UPDATE;
	push(conn->vsock, &hdr);
}

/* Sends what the host end gives. Returns the number of packets. */
static unsigned send_data(struct vsock_conn *conn)
{
	struct virtio_vsock *vsock = conn->vsock;
	uint32_t lengths[VSOCK_RX_BATCH];
	bool eom = false;
	unsigned packets;

	if (conn->type == VSOCK_TYPE_SEQPACKET) {
		lengths[0] = seqpacket_read(conn, rx_buffer(vsock, 0), &eom);
		packets = lengths[0] != 0;
	} else {
		packets = stream_read(conn, list_empty(&vsock->ready) ? hold(vsock, conn->batch) : 1, lengths);
	}
	for (unsigned i = 0; i < packets; i++)
		push_packet(conn, VSOCK_OP_RW, eom ? VSOCK_SEQ_EOM : 0, lengths[i]);
	return packets;
}

/* One turn of `conn`, with at least one buffer at hand. Returns the number of packets: 0 when there was nothing to send after all. */
static unsigned send_turn(struct vsock_conn *conn)
{
	unsigned packets = 0;

	/* The first packet is REQUEST or RESPONSE; data before it would meet no socket. */
	if (!(conn->pending & (PENDING_REQUEST | PENDING_RESPONSE)) && conn_can_read(conn))
		packets = send_data(conn);
	if (packets)
		return packets;
	const enum vsock_op op = take_pending(conn);
	if (op == VSOCK_OP_INVALID)
		return 0;
	push_packet(conn, op, op == VSOCK_OP_SHUTDOWN ? conn->host_shut : 0, 0);
	if (op == VSOCK_OP_RST)
		conn_kill(conn, 0);
	return 1;
}

void rx_pump(struct virtio_vsock *vsock)
{
	unsigned packets = 0;

	while (vsock->dev.active && (vsock->rst_count || !list_empty(&vsock->ready)) && !vsock_is_throttled(vsock)) {
		if (packets >= VSOCK_ROUND_PACKETS) {
			vsock_raise_again(vsock);
			break;
		}
		if (!vsock->rx_held && !hold_first(vsock))
			break;
		if (vsock->rst_count) {
			send_rst(vsock);
			packets++;
			continue;
		}
		struct vsock_conn *conn = LIST_FIRST_OF(&vsock->ready, struct vsock_conn, ready_link);
		conn_unschedule(conn);
		const unsigned sent = send_turn(conn);
		packets += sent ? sent : 1; /* turns that came to nothing count, too */
		conn_schedule(conn); /* behind the others */
	}
	for (; vsock->rx_held; vsock->rx_held--)
		virtq_unpop(&vsock->dev.queues[VSOCK_QUEUE_RX]);
	if (vsock->rx_pushed)
		virtio_device_notify_driver(&vsock->dev, VSOCK_QUEUE_RX);
	vsock->rx_pushed = false;
}
