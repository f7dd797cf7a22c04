/*
 * The vsock device: its queues, whose turn it is (virtio 1.2, 5.10).
 *
 * tx is drained when the driver notifies it; each packet is acted on at once (packet.c). rx is filled by rx_pump(), which runs
 * at the end of every entry from outside: connections that have something to send stand in a ready list and send one packet a
 * turn. So a connection with much to send costs the others nothing but their share, and one that has nothing costs nothing at
 * all.
 *
 * When the driver offers no rx buffers, what we have to say is kept as flags of connections, and RSTs without a connection in a
 * fifo. When that is full, tx waits (5.10.6.1.2 allows it): a guest that does not read stalls only itself.
 */
#include "base/container.h"
#include "devices/virtio-vsock/vsock_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/iov.h"

#define ROUND_PACKETS 256u /* packets each way before the loop's other sources have their turn */

static struct virtio_vsock *from_device(struct virtio_device *dev)
{
	return container_of(dev, struct virtio_vsock, dev);
}

/* Asks for another round, after the other sources of the loop had theirs: vsock_notify() is called again. */
static void raise_again(struct virtio_vsock *vsock)
{
	if (vsock->again_raised)
		return;
	vsock->again_raised = true;
	vsock->dev.kick(&vsock->dev, VSOCK_QUEUE_TX);
}

/* ---- rx: to the guest -------------------------------------------------------------------------------------------------------- */

static void rx_push(struct virtio_vsock *vsock, const struct vsock_hdr *hdr)
{
	const struct virtq_chain *chain = &vsock->rx_chain;

	iov_copy_in(virtq_writable(chain), chain->writable_count, 0, hdr, sizeof(*hdr));
	virtq_push(&vsock->dev.queues[VSOCK_QUEUE_RX], chain->head, (uint32_t)sizeof(*hdr) + le32_get(hdr->len));
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
	rx_push(vsock, &hdr);
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

/* Sends one packet of `conn` in rx_chain. Returns false when there was nothing to send after all. */
static bool send_one(struct vsock_conn *conn)
{
	struct virtio_vsock *vsock = conn->vsock;
	enum vsock_op op = VSOCK_OP_INVALID;
	uint32_t length = 0;
	bool eom = false;

	/* The first packet is REQUEST or RESPONSE; data before it would meet no socket. */
	if (!(conn->pending & (PENDING_REQUEST | PENDING_RESPONSE)) && conn_can_read(conn)) {
		length = conn->type == VSOCK_TYPE_SEQPACKET ? seqpacket_read(conn, &vsock->rx_chain, &eom)
							    : stream_read(conn, &vsock->rx_chain);
		if (length)
			op = VSOCK_OP_RW;
	}
	if (!length)
		op = take_pending(conn);
	if (op == VSOCK_OP_INVALID)
		return false;
	const struct vsock_hdr hdr = {
		.src_cid = le64_make(VSOCK_HOST_CID),
		.dst_cid = le64_make(vsock->guest_cid),
		.src_port = le32_make(conn->host_port),
		.dst_port = le32_make(conn->guest_port),
		.len = le32_make(length),
		.type = le16_make(conn->type),
		.op = le16_make((uint16_t)op),
		.flags = le32_make(op == VSOCK_OP_SHUTDOWN ? conn->host_shut
				   : eom                   ? VSOCK_SEQ_EOM
							   : 0),
		.buf_alloc = le32_make(conn->buf_alloc),
		.fwd_cnt = le32_make(conn->fwd_cnt),
	};
	/* Every packet carries our credit, so none is needed for that alone. */
	conn->fwd_cnt_told = conn->fwd_cnt;
	conn->pending &= (uint8_t)~PENDING_CREDIT_UPDATE;
	rx_push(vsock, &hdr);
	if (op == VSOCK_OP_RST)
		conn_kill(conn, 0);
	return true;
}

/* Makes rx_chain a buffer that the driver offers. Returns false when there is none: the driver's next notification comes to us
 * then. */
static bool rx_next(struct virtio_vsock *vsock, bool *pushed)
{
	struct virtq *q = &vsock->dev.queues[VSOCK_QUEUE_RX];

	for (unsigned tries = 0; tries < ROUND_PACKETS; tries++) {
		const int popped = virtq_pop(q, &vsock->rx_chain);
		if (popped < 0) {
			virtio_device_fail(&vsock->dev, "malformed rx queue");
			return false;
		}
		if (popped == 0) {
			vsock->rx_starved = true;
			if (virtq_want_kicks(q, true))
				continue;
			return false;
		}
		if (vsock->rx_starved)
			virtq_want_kicks(q, false);
		vsock->rx_starved = false;
		if (vsock->rx_chain.writable_bytes > sizeof(struct vsock_hdr))
			return true;
		/* Room for no payload: given back unused, the driver drops it. */
		virtq_push(q, vsock->rx_chain.head, 0);
		*pushed = true;
	}
	raise_again(vsock);
	return false;
}

static void rx_pump(struct virtio_vsock *vsock)
{
	bool pushed = false, have_chain = false;
	unsigned packets = 0;

	while (vsock->dev.active && (vsock->rst_count || !list_empty(&vsock->ready))) {
		if (packets++ == ROUND_PACKETS) {
			raise_again(vsock);
			break;
		}
		if (!have_chain && !rx_next(vsock, &pushed))
			break;
		struct vsock_conn *conn = LIST_FIRST_OF(&vsock->ready, struct vsock_conn, ready_link);
		if (vsock->rst_count) {
			send_rst(vsock);
			have_chain = false;
		} else {
			conn_unschedule(conn);
			have_chain = !send_one(conn);
			conn_schedule(conn); /* behind the others */
		}
		pushed |= !have_chain;
	}
	if (have_chain)
		virtq_unpop(&vsock->dev.queues[VSOCK_QUEUE_RX]);
	if (pushed)
		virtio_device_notify_driver(&vsock->dev, VSOCK_QUEUE_RX);
}

/* ---- tx: from the guest ------------------------------------------------------------------------------------------------------ */

void vsock_rst_reply(struct virtio_vsock *vsock, const struct vsock_hdr *hdr)
{
	if (le16_get(hdr->op) == VSOCK_OP_RST)
		return;
	assert(vsock->rst_count < VSOCK_RST_FIFO);
	vsock->rst_fifo[(vsock->rst_head + vsock->rst_count++) % VSOCK_RST_FIFO] = (struct vsock_rst){
		.src_cid = le64_get(hdr->dst_cid),
		.dst_cid = le64_get(hdr->src_cid),
		.src_port = le32_get(hdr->dst_port),
		.dst_port = le32_get(hdr->src_port),
		.type = le16_get(hdr->type),
	};
}

static bool handle_tx(struct virtio_device *dev, struct virtq *q, struct virtq_chain *chain)
{
	struct virtio_vsock *vsock = from_device(dev);
	struct vsock_hdr hdr;

	/* Any packet may need a RST in answer. */
	if (vsock->rst_count == VSOCK_RST_FIFO || vsock->tx_budget == 0) {
		vsock->tx_stalled = true;
		return false;
	}
	vsock->tx_budget--;
	/* Wherever the driver splits it (2.7.4.2), the header is copied once. A chain without one says nothing that could be
	 * answered. */
	if (iov_copy_out(virtq_readable(chain), chain->readable_count, 0, &hdr, sizeof(hdr)) == sizeof(hdr))
		vsock_receive(vsock, &hdr, chain);
	virtq_push(q, chain->head, 0);
	return true;
}

static void tx_drain(struct virtio_vsock *vsock)
{
	if (!vsock->dev.active)
		return;
	vsock->tx_stalled = false;
	vsock->tx_budget = ROUND_PACKETS;
	virtio_device_drain(&vsock->dev, VSOCK_QUEUE_TX, &vsock->tx_chain, handle_tx);
}

/* ---- entries from outside ---------------------------------------------------------------------------------------------------- */

void vsock_enter(struct virtio_vsock *vsock)
{
	vsock->depth++;
}

static void settle(struct virtio_vsock *vsock)
{
	struct vsock_conn *conn;

	while ((conn = LIST_FIRST_OF(&vsock->settle, struct vsock_conn, settle_link)))
		conn_settle(conn);
}

void vsock_leave(struct virtio_vsock *vsock)
{
	if (vsock->depth == 1) {
		rx_pump(vsock);
		/* Callbacks may have something to send; it is sent before the next event is waited for. */
		while (!list_empty(&vsock->settle)) {
			settle(vsock);
			rx_pump(vsock);
		}
		if (vsock->dev.active && vsock->tx_stalled && vsock->rst_count < VSOCK_RST_FIFO)
			raise_again(vsock);
	}
	vsock->depth--;
}

static void vsock_notify(struct virtio_device *dev, unsigned index)
{
	struct virtio_vsock *vsock = from_device(dev);

	vsock_enter(vsock);
	if (index == VSOCK_QUEUE_TX) {
		vsock->again_raised = false;
		tx_drain(vsock);
	}
	vsock_leave(vsock);
}

static int vsock_activate(struct virtio_device *dev)
{
	struct virtio_vsock *vsock = from_device(dev);

	vsock_enter(vsock);
	vsock->rx_starved = false;
	virtq_want_kicks(&dev->queues[VSOCK_QUEUE_RX], false);
	vsock_leave(vsock);
	return 0;
}

static void vsock_reset(struct virtio_device *dev)
{
	struct virtio_vsock *vsock = from_device(dev);

	vsock_enter(vsock);
	for (struct vsock_link *link = vsock->all.next; link != &vsock->all; link = link->next) {
		struct vsock_conn *conn = container_of(link, struct vsock_conn, all_link);
		/* A connect of which no driver has heard waits for the first one: its probe begins with a reset. */
		if (conn->state == VSOCK_CONNECTING && (conn->pending & PENDING_REQUEST))
			continue;
		conn_kill(conn, -ECONNRESET);
	}
	vsock->rst_head = vsock->rst_count = 0;
	vsock->rx_starved = vsock->tx_stalled = vsock->again_raised = false;
	vsock_leave(vsock);
}

/* ---- the device's life ------------------------------------------------------------------------------------------------------- */

static const struct virtio_device_ops vsock_ops = {
	.name = "virtio-vsock",
	.device_id = 19,
	.queue_count = 3,
	.queue_size_max = { 256, 256, 16 },
	.activate = vsock_activate,
	.reset = vsock_reset,
	.notify = vsock_notify,
};

int virtio_vsock_create(struct loop *loop, const struct guest_mem *mem, uint32_t guest_cid, struct virtio_vsock **vsock)
{
	struct virtio_vsock *made = calloc(1, sizeof(*made));

	if (!made)
		return -ENOMEM;
	made->guest_cid = guest_cid;
	made->config.guest_cid = le64_make(guest_cid);
	made->dev = (struct virtio_device){
		.ops = &vsock_ops,
		.loop = loop,
		.mem = mem,
		.config = &made->config,
		.config_bytes = sizeof(made->config),
	};
	made->next_host_port = VSOCK_EPHEMERAL_FIRST;
	for (unsigned i = 0; i < VSOCK_BUCKETS; i++)
		list_init(&made->buckets[i]);
	list_init(&made->all);
	list_init(&made->ready);
	list_init(&made->connecting);
	list_init(&made->probing);
	list_init(&made->settle);
	vsock_timer_init(made);
	if (getrandom(&made->hash_key, sizeof(made->hash_key), 0) != (ssize_t)sizeof(made->hash_key)) {
		const int result = -errno;
		free(made);
		return result;
	}
	*vsock = made;
	return 0;
}

void virtio_vsock_destroy(struct virtio_vsock *vsock)
{
	if (!vsock)
		return;
	assert(vsock->depth == 0);
	for (struct vsock_link *link = vsock->all.next; link != &vsock->all; link = link->next) {
		struct vsock_conn *conn = container_of(link, struct vsock_conn, all_link);
		conn->done = NULL;
		conn->closed = NULL;
		conn_kill(conn, 0);
	}
	settle(vsock);
	vsock_unix_destroy(vsock);
	vsock_timer_destroy(vsock);
	free(vsock);
}

void virtio_vsock_get_stats(const struct virtio_vsock *vsock, struct virtio_vsock_stats *stats)
{
	*stats = (struct virtio_vsock_stats){
		.connections = vsock->conn_count,
		.to_guest_bytes = vsock->to_guest_bytes,
		.from_guest_bytes = vsock->from_guest_bytes,
	};
}

struct virtio_device *virtio_vsock_device(struct virtio_vsock *vsock)
{
	return &vsock->dev;
}
