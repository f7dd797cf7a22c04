/*
 * What a packet of the guest means (virtio 1.2, 5.10.6), and which of them are answered by RST:
 *
 *   an unknown type, or one that the driver did not negotiate; the type of a connection is another       5.10.6.4.2
 *   a cid that is not the guest's or ours, an operation that we do not know                              5.10.6.4.2
 *   a tuple without a connection, unless it is a REQUEST to a port with a service                        5.10.6.5
 *   a connection whose peer breaks the protocol: more than its credit, data after SHUTDOWN, a second REQUEST
 *
 * A RST is never answered. A packet with a wrong source is answered to where it claims to come from: no other machine shares
 * the wire, and a driver that kept sockets of an earlier cid gets rid of them so.
 */
#include "devices/virtio-vsock/vsock_internal.h"

#include <errno.h>

/* The host end for a connection to `port`. */
static int accept_request(struct virtio_vsock *vsock, uint16_t type, uint32_t port, struct vsock_ends *ends)
{
	const struct vsock_service *service = vsock_find_service(vsock, port);

	/* The bound is looked at first: a service is not bothered for nothing. */
	if (vsock->conn_count >= VSOCK_CONNECTIONS_MAX)
		return -EMFILE;
	if (!service)
		return vsock_unix_accept(vsock, type, port, ends);
	return type == VSOCK_TYPE_STREAM ? service->accept(service->data, port, ends) : -EPROTOTYPE;
}

static void receive_request(struct virtio_vsock *vsock, const struct vsock_hdr *hdr)
{
	const uint32_t port = le32_get(hdr->dst_port);
	const uint16_t type = le16_get(hdr->type);
	struct vsock_ends ends = { .read_fd = -1, .write_fd = -1 };
	struct vsock_conn *conn = NULL;
	const int result = accept_request(vsock, type, port, &ends);

	if (result == 0)
		conn = conn_create(vsock, type, port, le32_get(hdr->src_port), VSOCK_OPEN, &ends);
	if (!conn) {
		if (result == 0 && ends.closed)
			ends.closed(ends.closed_data);
		vsock_rst_reply(vsock, hdr);
		return;
	}
	credit_heard(conn, le32_get(hdr->buf_alloc), le32_get(hdr->fwd_cnt));
	conn_pend(conn, PENDING_RESPONSE);
	conn_established(conn);
}

static void receive_shutdown(struct vsock_conn *conn, uint32_t flags)
{
	if (conn->guest_shut == 0 && (flags & VSOCK_SHUTDOWN_BOTH) == VSOCK_SHUTDOWN_BOTH)
		conn_guest_reset(conn);
	conn->guest_shut |= (uint8_t)(flags & VSOCK_SHUTDOWN_BOTH);
	if (conn->guest_shut & VSOCK_SHUTDOWN_SEND)
		backlog_drop_unfinished(conn);
	conn_progress(conn);
}

static void receive_data(struct vsock_conn *conn, const struct vsock_hdr *hdr, const struct virtq_chain *chain)
{
	const uint32_t length = le32_get(hdr->len);
	const uint32_t room = chain->readable_bytes - (uint32_t)sizeof(*hdr);

	/* Bytes of the chain behind len are none of ours; a len that the chain does not hold is a lie. */
	if (length > room || ((conn->guest_shut & VSOCK_SHUTDOWN_SEND) && length)) {
		conn_reset(conn, -EPROTO);
		return;
	}
	if (conn_receive(conn, chain, length, le32_get(hdr->flags) & VSOCK_SEQ_EOM) < 0)
		conn_reset(conn, -EPROTO);
}

static void receive_open(struct vsock_conn *conn, const struct vsock_hdr *hdr, const struct virtq_chain *chain)
{
	credit_heard(conn, le32_get(hdr->buf_alloc), le32_get(hdr->fwd_cnt));
	switch (le16_get(hdr->op)) {
	case VSOCK_OP_RW:
		receive_data(conn, hdr, chain);
		break;
	case VSOCK_OP_CREDIT_UPDATE:
		break;
	case VSOCK_OP_CREDIT_REQUEST:
		conn_pend(conn, PENDING_CREDIT_UPDATE);
		break;
	case VSOCK_OP_SHUTDOWN:
		receive_shutdown(conn, le32_get(hdr->flags));
		break;
	default:
		conn_reset(conn, -EPROTO);
		break;
	}
	conn_schedule(conn); /* there may be space now */
}

static void receive_connecting(struct vsock_conn *conn, const struct vsock_hdr *hdr)
{
	if (le16_get(hdr->op) != VSOCK_OP_RESPONSE || (conn->pending & PENDING_REQUEST)) {
		conn_reset(conn, -ECONNRESET);
		return;
	}
	credit_heard(conn, le32_get(hdr->buf_alloc), le32_get(hdr->fwd_cnt));
	conn_established(conn);
}

static bool type_is_known(const struct virtio_vsock *vsock, uint16_t type)
{
	return type == VSOCK_TYPE_STREAM ||
	       (type == VSOCK_TYPE_SEQPACKET && (vsock->dev.driver_features & VSOCK_FEATURE_SEQPACKET));
}

void vsock_receive(struct virtio_vsock *vsock, const struct vsock_hdr *hdr, const struct virtq_chain *chain)
{
	const uint16_t type = le16_get(hdr->type);

	if (!type_is_known(vsock, type) || le64_get(hdr->src_cid) != vsock->guest_cid || le64_get(hdr->dst_cid) != VSOCK_HOST_CID) {
		vsock_rst_reply(vsock, hdr);
		return;
	}
	struct vsock_conn *conn = conn_find(vsock, le32_get(hdr->dst_port), le32_get(hdr->src_port));
	if (conn && conn->type != type) {
		vsock_rst_reply(vsock, hdr);
		return;
	}
	if (!conn) {
		if (le16_get(hdr->op) == VSOCK_OP_REQUEST)
			receive_request(vsock, hdr);
		else
			vsock_rst_reply(vsock, hdr);
		return;
	}
	if (le16_get(hdr->op) == VSOCK_OP_RST) {
		conn_guest_reset(conn);
		conn_detach(conn, -ECONNREFUSED);
		return;
	}
	switch (conn->state) {
	case VSOCK_CONNECTING:
		receive_connecting(conn, hdr);
		break;
	case VSOCK_OPEN:
		receive_open(conn, hdr, chain);
		break;
	case VSOCK_RESET: /* its RST is on the way */
	case VSOCK_DETACHED:
	case VSOCK_DEAD:
		break;
	}
}
