/*
 * The vsock device: what the driver sends, and the device's life (virtio 1.2, 5.10).
 *
 * tx is drained when the driver notifies it; each packet is acted on at once (packet.c). At the end of every entry from outside rx_pump()
 * sends what is due (rx.c). A packet that has no connection is answered by a RST, which waits in a fifo. When that is full, because the
 * driver offers no rx buffers, tx waits (5.10.6.1.2 allows it): a guest that does not read stalls only itself.
 */
#include "base/container.h"
#include "devices/virtio-vsock/vsock_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "base/iov.h"

static struct virtio_vsock *from_device(struct virtio_device *dev)
{
	return container_of(dev, struct virtio_vsock, dev);
}

void vsock_raise_again(struct virtio_vsock *vsock)
{
	if (vsock->again_raised)
		return;
	vsock->again_raised = true;
	vsock->dev.kick(&vsock->dev, VSOCK_QUEUE_TX);
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
	if (vsock->rst_count == VSOCK_RST_FIFO || vsock->tx_budget == 0 || vsock_is_throttled(vsock)) {
		vsock->tx_stalled = true;
		return false;
	}
	vsock->tx_budget--;
	/* Wherever the driver splits it (2.7.4.2), the header is copied once. A chain without one says nothing that could be
	 * answered. */
	if (iov_copy_out(virtq_readable(chain), chain->readable_count, 0, &hdr, sizeof(hdr)) == sizeof(hdr))
		vsock_receive(vsock, &hdr, chain);
	vsock_charge(vsock, chain->readable_bytes);
	virtq_push(q, chain->head, 0);
	return true;
}

static void tx_drain(struct virtio_vsock *vsock)
{
	if (!vsock->dev.active)
		return;
	vsock->tx_stalled = false;
	vsock->tx_budget = VSOCK_ROUND_PACKETS;
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
		if (vsock->dev.active && vsock->tx_stalled && vsock->rst_count < VSOCK_RST_FIFO && !vsock_is_throttled(vsock))
			vsock_raise_again(vsock);
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
