/*
 * The bytes of a connection, both ways.
 *
 *   guest to host   written from guest RAM to the host at once, by messages a whole one. What the host does not take now is copied to
 *                   the connection's backlog: credit bounds it, and the tx queue goes on for the others. fwd_cnt counts what the host
 *                   took.
 *   host to guest   read from the host into the guest's rx buffer, never more than the guest has space for. Messages: seqpacket.c.
 */
#include "devices/virtio-vsock/vsock_internal.h"

#include <errno.h>

#include "base/iov.h"

/* ---- host to guest ----------------------------------------------------------------------------------------------------------- */

bool conn_can_read(const struct vsock_conn *conn)
{
	return conn->state == VSOCK_OPEN && (conn->read_ready || conn->message) && !conn->read_over && credit_space(conn) > 0;
}

/* Lays the payload rooms of rx buffers side by side, as far as credit goes. Returns their bytes; *count entries of vsock->iov. */
static uint32_t gather(const struct vsock_conn *conn, unsigned buffers, uint32_t *rooms, unsigned *count)
{
	struct virtio_vsock *vsock = conn->vsock;
	uint32_t total = 0;

	*count = 0;
	for (unsigned i = 0; i < buffers; i++) {
		const struct virtq_chain *chain = rx_buffer(vsock, i);
		const uint32_t room = chain->writable_bytes - (uint32_t)sizeof(struct vsock_hdr);
		const uint32_t space = credit_space_after(conn, total, i);
		rooms[i] = room < space ? room : space;
		if (rooms[i] == 0 || chain->writable_count > VIRTQ_MAX_SIZE - *count)
			break;
		*count += iov_slice(virtq_writable(chain), chain->writable_count, sizeof(struct vsock_hdr), rooms[i],
				    vsock->iov + *count);
		total += rooms[i];
	}
	return total;
}

unsigned stream_read(struct vsock_conn *conn, unsigned buffers, uint32_t *lengths)
{
	unsigned count, packets = 0;
	const uint32_t limit = gather(conn, buffers, lengths, &count);
	const ssize_t n = end_readv(&conn->in, conn->vsock->iov, count);

	if (n <= 0) {
		conn_read_failed(conn, (int)n);
		return 0;
	}
	for (uint32_t left = (uint32_t)n; left; packets++) {
		if (lengths[packets] > left)
			lengths[packets] = left;
		left -= lengths[packets];
		credit_sent(conn, lengths[packets]);
	}
	if ((uint32_t)n == limit) {
		conn->batch = conn->batch < VSOCK_RX_BATCH ? 2 * conn->batch : VSOCK_RX_BATCH;
		return packets;
	}
	conn->batch = 1;
	/* Less than asked for: drained. If not, the loop tells again. */
	if (!end_always_ready(&conn->in)) {
		conn->read_ready = false;
		ends_watch(conn);
	}
	return packets;
}

/* ---- guest to host ----------------------------------------------------------------------------------------------------------- */

/* Writes straight from guest RAM. Returns the bytes written, which may be 0, or -errno: the host takes no more. */
static ssize_t write_through(struct vsock_conn *conn, const struct virtq_chain *chain, uint32_t length)
{
	struct iovec *iov = conn->vsock->iov;
	uint32_t done = 0;

	while (done < length) {
		const unsigned count =
		    iov_slice(virtq_readable(chain), chain->readable_count, sizeof(struct vsock_hdr) + done, length - done, iov);
		const ssize_t n = end_writev(&conn->out, iov, count);
		if (n == -EAGAIN && !conn->out.unwatchable)
			break;
		if (n <= 0)
			return n ? n : -EIO;
		done += (uint32_t)n;
		/* A file takes all or fails (disk full): it will not tell when it is ready. */
		if (!conn->out.unwatchable)
			break;
	}
	return (ssize_t)done;
}

/* Returns 0, -ENOMEM, or -EPROTO when a message can never be whole: it fills all the credit there is. */
static int keep(struct vsock_conn *conn, const struct virtq_chain *chain, size_t offset, uint32_t length, bool message_ends)
{
	if (backlog_append(conn, chain, offset, length) < 0)
		return -ENOMEM;
	if (message_ends)
		backlog_end_message(conn);
	if (conn->message_begun == conn->buf_alloc)
		return -EPROTO;
	credit_tell(conn);
	ends_watch(conn);
	if (conn->out.unwatchable)
		conn_write_broken(conn);
	return 0;
}

int conn_receive(struct vsock_conn *conn, const struct virtq_chain *chain, uint32_t length, bool eom)
{
	const bool message_ends = eom && conn->type == VSOCK_TYPE_SEQPACKET;
	const bool whole = conn->type == VSOCK_TYPE_STREAM || message_ends;
	uint32_t written = 0;

	if (length > conn->buf_alloc - (conn->rx_cnt - conn->fwd_cnt))
		return -EPROTO;
	if (!length && !(message_ends && conn->message_begun))
		return 0; /* no news; an empty message would look like the end to the host */
	conn->rx_cnt += length;
	conn->vsock->from_guest_bytes += length;
	if (conn->write_over || conn->out.source.fd < 0) {
		credit_taken(conn, length);
		return 0;
	}
	if (!conn->backlog_bytes && whole) {
		const ssize_t n = write_through(conn, chain, length);
		if (n < 0) {
			conn_write_failed(conn, (int)n);
			credit_taken(conn, length);
			return 0;
		}
		written = (uint32_t)n;
		credit_taken(conn, written);
		if (written == length)
			return 0;
	}
	return keep(conn, chain, sizeof(struct vsock_hdr) + written, length - written, message_ends);
}
