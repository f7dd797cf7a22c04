/*
 * Messages from the host to the guest (virtio 1.2, 5.10.6.6.1). The way back is that of streams but for the ends in the backlog.
 *
 * A message that fits the rx buffer at hand is read right into it. A longer one is read whole into memory of ours, since a socket of this
 * type gives a message at once or loses the rest, and goes on in packets, the last of which says EOM. The guest gives no credit back before
 * it has all of a message, so one that its credit cannot hold would wait for ever: it breaks the connection. So does one that is longer
 * than the backlog of this connection, which bounds the memory for both ways by the same sum (conn_grant()): 256 KiB, less when there are
 * many.
 *
 * Unix sockets know no record marks: EOR is not passed on. Empty messages are dropped, since a receiver takes them for the end.
 */
#include "devices/virtio-vsock/vsock_internal.h"

#include <errno.h>
#include <stdlib.h>

#include "base/iov.h"

/* The message is too long for the guest's buffers or ours. */
static int too_long(struct vsock_conn *conn)
{
	conn_reset(conn, -EMSGSIZE);
	return -EMSGSIZE;
}

/* Reads a message of `length` bytes into conn->message. Returns 0, or -errno: the connection has seen to it. */
static int keep_message(struct vsock_conn *conn, uint32_t length, uint32_t packet_bytes)
{
	if (length > conn->buf_alloc || !credit_covers(conn, length, packet_bytes))
		return too_long(conn);
	conn->message = malloc(length);
	if (!conn->message)
		return too_long(conn);
	struct iovec iov = { .iov_base = conn->message, .iov_len = length };
	const ssize_t n = end_readv(&conn->in, &iov, 1);
	if (n <= 0) {
		seqpacket_free(conn);
		conn_read_failed(conn, (int)n);
		return -EIO;
	}
	conn->message_bytes = (uint32_t)n;
	conn->message_sent = 0;
	return 0;
}

/* The next packet of conn->message. */
static uint32_t send_kept(struct vsock_conn *conn, const struct virtq_chain *chain, uint32_t limit, bool *eom)
{
	const uint32_t left = conn->message_bytes - conn->message_sent;
	const uint32_t length = left < limit ? left : limit;

	iov_copy_in(virtq_writable(chain), chain->writable_count, sizeof(struct vsock_hdr), conn->message + conn->message_sent,
		    length);
	conn->message_sent += length;
	*eom = length == left;
	if (*eom)
		seqpacket_free(conn);
	credit_sent(conn, length);
	return length;
}

uint32_t seqpacket_read(struct vsock_conn *conn, const struct virtq_chain *chain, bool *eom)
{
	const uint32_t room = chain->writable_bytes - (uint32_t)sizeof(struct vsock_hdr);
	const uint32_t limit = room < credit_space(conn) ? room : credit_space(conn);

	if (conn->message)
		return send_kept(conn, chain, limit, eom);
	ssize_t length = end_next_message(&conn->in);
	if (length > limit) {
		if (length > UINT32_MAX)
			length = UINT32_MAX;
		return keep_message(conn, (uint32_t)length, room) == 0 ? send_kept(conn, chain, limit, eom) : 0;
	}
	if (length > 0) {
		struct iovec *iov = conn->vsock->iov;
		const unsigned count =
		    iov_slice(virtq_writable(chain), chain->writable_count, sizeof(struct vsock_hdr), (size_t)length, iov);
		length = end_readv(&conn->in, iov, count);
	}
	if (length <= 0) {
		conn_read_failed(conn, (int)length);
		return 0;
	}
	*eom = true;
	credit_sent(conn, (uint32_t)length);
	return (uint32_t)length;
}

void seqpacket_free(struct vsock_conn *conn)
{
	free(conn->message);
	conn->message = NULL;
}
