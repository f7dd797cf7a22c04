/* virtio-vsock packets, one at a time; see guest_vsock.h. */
#include "tests/guests/guest_vsock.h"

struct device vsock;
struct vsock_packet vsock_rx[VSOCK_QUEUE_SIZE], vsock_received, vsock_tx;
unsigned vsock_rx_room;
uint32_t vsock_fwd_cnt;
uint32_t vsock_buf_alloc;

void vsock_rx_offer(uint16_t index)
{
	desc_set(&vsock.queues[VSOCK_RX], index, &vsock_rx[index], vsock_rx_room, VRING_DESC_F_WRITE, 0);
	queue_put(&vsock.queues[VSOCK_RX], index);
}

void vsock_rx_fill(void)
{
	for (uint16_t i = 0; i < VSOCK_QUEUE_SIZE; i++)
		vsock_rx_offer(i);
	queue_notify(&vsock, VSOCK_RX);
}

bool vsock_start(bool with_rx)
{
	vsock_rx_room = sizeof(struct vsock_packet);
	vsock_buf_alloc = VSOCK_BUF_ALLOC;
	vsock_fwd_cnt = 0;
	if (!device_start(&vsock, UINT64_MAX, 3, VSOCK_QUEUE_SIZE))
		return false;
	if (with_rx)
		vsock_rx_fill();
	return true;
}

struct virtio_vsock_hdr vsock_header_of(uint16_t op, uint32_t length)
{
	return (struct virtio_vsock_hdr){
		.src_cid = WORLD_GUEST_CID,
		.dst_cid = VSOCK_HOST_CID,
		.src_port = VSOCK_GUEST_PORT,
		.dst_port = WORLD_ECHO_PORT,
		.len = length,
		.type = VIRTIO_VSOCK_TYPE_STREAM,
		.op = op,
		.buf_alloc = vsock_buf_alloc,
		.fwd_cnt = vsock_fwd_cnt,
	};
}

bool vsock_send_tx(uint32_t length)
{
	desc_set(&vsock.queues[VSOCK_TX], 0, &vsock_tx, length, 0, 0);
	queue_put(&vsock.queues[VSOCK_TX], 0);
	queue_notify(&vsock, VSOCK_TX);
	return queue_wait(&vsock, VSOCK_TX, 1);
}

bool vsock_send_header(struct virtio_vsock_hdr header)
{
	vsock_tx.header = header;
	return vsock_send_tx(sizeof(vsock_tx.header));
}

bool vsock_send_op(uint16_t op)
{
	return vsock_send_header(vsock_header_of(op, 0));
}

bool vsock_receive(void)
{
	struct queue *q = &vsock.queues[VSOCK_RX];
	if (!queue_wait(&vsock, VSOCK_RX, 1))
		return false;
	const uint16_t at = (uint16_t)(q->last_used - 1);
	const uint32_t id = queue_used_id(q, at), length = queue_used_length(q, at);
	if (id >= VSOCK_QUEUE_SIZE || length < sizeof(vsock_received.header) || length > sizeof(vsock_received))
		return false;
	memcpy(&vsock_received, &vsock_rx[id], length);
	vsock_rx_offer((uint16_t)id);
	queue_notify(&vsock, VSOCK_RX);
	if (vsock_received.header.op == VIRTIO_VSOCK_OP_RW)
		vsock_fwd_cnt += vsock_received.header.len;
	return length == sizeof(vsock_received.header) + vsock_received.header.len;
}

bool vsock_silence(void)
{
	delay_us(QUIET_US);
	return queue_used_index(&vsock.queues[VSOCK_RX]) == vsock.queues[VSOCK_RX].last_used;
}

bool vsock_receive_op(uint16_t op)
{
	do {
		if (!vsock_receive())
			return false;
	} while (vsock_received.header.op == VIRTIO_VSOCK_OP_CREDIT_UPDATE && op != VIRTIO_VSOCK_OP_CREDIT_UPDATE);
	const struct virtio_vsock_hdr *header = &vsock_received.header;
	return header->op == op && header->type == VIRTIO_VSOCK_TYPE_STREAM && header->src_cid == VSOCK_HOST_CID &&
	       header->dst_cid == WORLD_GUEST_CID && header->src_port == vsock_tx.header.dst_port &&
	       header->dst_port == VSOCK_GUEST_PORT;
}

bool vsock_connect_echo(void)
{
	vsock_fwd_cnt = 0;
	return vsock_send_op(VIRTIO_VSOCK_OP_REQUEST) && vsock_receive_op(VIRTIO_VSOCK_OP_RESPONSE) &&
	       vsock_received.header.buf_alloc > 0;
}

bool vsock_disconnect(void)
{
	struct virtio_vsock_hdr header = vsock_header_of(VIRTIO_VSOCK_OP_SHUTDOWN, 0);
	header.flags = VIRTIO_VSOCK_SHUTDOWN_RCV | VIRTIO_VSOCK_SHUTDOWN_SEND;
	return vsock_send_header(header) && vsock_receive_op(VIRTIO_VSOCK_OP_RST);
}

void vsock_fill_payload(uint32_t length, uint8_t first)
{
	for (uint32_t i = 0; i < length; i++)
		vsock_tx.payload[i] = (uint8_t)(first + i * 7);
}

bool vsock_echo_is(uint32_t length)
{
	for (uint32_t at = 0; at < length; at += vsock_received.header.len)
		if (!vsock_receive_op(VIRTIO_VSOCK_OP_RW) || vsock_received.header.len == 0 ||
		    vsock_received.header.len > length - at ||
		    memcmp(vsock_received.payload, vsock_tx.payload + at, vsock_received.header.len))
			return false;
	return true;
}

bool vsock_send_data(uint32_t length)
{
	vsock_tx.header = vsock_header_of(VIRTIO_VSOCK_OP_RW, length);
	return vsock_send_tx((uint32_t)sizeof(vsock_tx.header) + length);
}

bool vsock_works(void)
{
	vsock_fill_payload(16, 99);
	return vsock_connect_echo() && vsock_send_data(16) && vsock_echo_is(16) && vsock_disconnect();
}

bool vsock_recovers(void)
{
	return vsock_start(true) && vsock_works();
}
