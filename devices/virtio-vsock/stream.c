/*
 * The bytes of a connection, both ways, and the credit that bounds them (virtio 1.2, 5.10.6.3).
 *
 *   guest to host   written from guest RAM to the host at once. What the host does not take now is copied to the connection's
 *                   backlog, a ring of buf_alloc bytes: credit bounds it, and the tx queue goes on for the others. fwd_cnt
 *                   counts what the host took.
 *   host to guest   read from the host into the guest's rx buffer, never more than the guest has space for.
 */
#include "base/container.h"
#include "devices/virtio-vsock/vsock_internal.h"

#include <errno.h>
#include <stdlib.h>

#include "base/iov.h"

/* ---- credit at the guest ----------------------------------------------------------------------------------------------------- */

/*
 * Linux counts the buffers that its socket holds, too, since 6.12.92 (CVE-2026-23086), and resets a connection whose packets
 * are too many for buf_alloc, however small they are; the specification knows nothing of it. So a packet costs its bytes and
 * PACKET_OVERHEAD, a little more than SKB_TRUESIZE(0), and all in flight together cost no more than buf_alloc.
 *
 * A packet is in flight until fwd_cnt has passed its end. The ends are kept in VSOCK_MARKS groups: an error of one group,
 * always to the safe side.
 */
#define PACKET_OVERHEAD 640u
/* Rather than a very small packet, none is sent until there is more room: the silly window of TCP (RFC 1122, 4.2.3.4). */
#define PACKET_MIN 2048u

#define PROBE_FIRST_NS 5000000ull
#define PROBE_LAST_NS 1000000000ull

static uint32_t bytes_in_flight(const struct vsock_conn *conn)
{
	/* Modulo 2^32. A fwd_cnt that runs ahead of what we sent gives a huge number, and no space: nonsense harms its author
	 * only. */
	return conn->tx_cnt - conn->peer_fwd_cnt;
}

static uint32_t packet_min(const struct vsock_conn *conn)
{
	return conn->peer_buf_alloc / 4 < PACKET_MIN ? conn->peer_buf_alloc / 4 : PACKET_MIN;
}

uint32_t stream_space(const struct vsock_conn *conn)
{
	const uint32_t in_flight = bytes_in_flight(conn);

	if (in_flight >= conn->peer_buf_alloc)
		return 0;
	const uint32_t space = conn->peer_buf_alloc - in_flight;
	if (in_flight == 0)
		return space;
	const uint64_t overhead = (conn->packets + 1ull) * PACKET_OVERHEAD;
	return space >= overhead + packet_min(conn) ? space - (uint32_t)overhead : 0;
}

/* One more packet in flight; tx_cnt is its end. */
static void packet_sent(struct vsock_conn *conn)
{
	const uint32_t group = conn->peer_buf_alloc / PACKET_OVERHEAD / (VSOCK_MARKS / 2);
	struct vsock_mark *last = &conn->marks[(conn->mark_first + conn->mark_count - 1) % VSOCK_MARKS];

	if (conn->mark_count == 0 || (last->packets >= group && conn->mark_count < VSOCK_MARKS)) {
		last = &conn->marks[(conn->mark_first + conn->mark_count++) % VSOCK_MARKS];
		last->packets = 0;
	}
	last->end = conn->tx_cnt;
	last->packets++;
	conn->packets++;
}

void stream_peer_credit(struct vsock_conn *conn, uint32_t buf_alloc, uint32_t fwd_cnt)
{
	conn->peer_buf_alloc = buf_alloc;
	conn->peer_fwd_cnt = fwd_cnt;
	while (conn->mark_count && (int32_t)(fwd_cnt - conn->marks[conn->mark_first].end) >= 0) {
		conn->packets -= conn->marks[conn->mark_first].packets;
		conn->mark_first = (conn->mark_first + 1) % VSOCK_MARKS;
		conn->mark_count--;
	}
	if (link_listed(&conn->probing_link) && stream_space(conn))
		stream_unprobe(conn);
}

/*
 * Bytes alone never block for good: the guest reports when its buffer was read empty enough. Packets may: Linux before 6.7
 * reports only after most of buf_alloc was read, and small packets are far from that. So the guest is asked, at once and then
 * less and less often.
 */
void stream_probe(struct vsock_conn *conn)
{
	const uint32_t in_flight = bytes_in_flight(conn);

	if (link_listed(&conn->probing_link) || in_flight >= conn->peer_buf_alloc ||
	    conn->peer_buf_alloc - in_flight <= packet_min(conn))
		return;
	conn->probe_interval_ns = PROBE_FIRST_NS;
	conn->probe_ns = vsock_now_ns() + PROBE_FIRST_NS;
	if (vsock_timer_at(conn->vsock, conn->probe_ns) < 0)
		return;
	list_append(&conn->vsock->probing, &conn->probing_link);
	conn_pend(conn, PENDING_CREDIT_REQUEST);
}

void stream_unprobe(struct vsock_conn *conn)
{
	list_remove(&conn->probing_link);
}

uint64_t stream_probe_all(struct virtio_vsock *vsock, uint64_t now_ns)
{
	uint64_t next = 0;

	for (struct vsock_link *link = vsock->probing.next; link != &vsock->probing; link = link->next) {
		struct vsock_conn *conn = container_of(link, struct vsock_conn, probing_link);
		if (conn->probe_ns <= now_ns) {
			conn->probe_interval_ns *= 2;
			if (conn->probe_interval_ns > PROBE_LAST_NS)
				conn->probe_interval_ns = PROBE_LAST_NS;
			conn->probe_ns = now_ns + conn->probe_interval_ns;
			conn_pend(conn, PENDING_CREDIT_REQUEST);
		}
		if (!next || conn->probe_ns < next)
			next = conn->probe_ns;
	}
	return next;
}

/* ---- host to guest ----------------------------------------------------------------------------------------------------------- */

bool stream_can_read(const struct vsock_conn *conn)
{
	return conn->state == VSOCK_OPEN && conn->read_ready && !conn->read_over && stream_space(conn) > 0;
}

uint32_t stream_read(struct vsock_conn *conn, const struct virtq_chain *chain)
{
	struct iovec *iov = conn->vsock->iov;
	uint32_t limit = chain->writable_bytes - (uint32_t)sizeof(struct vsock_hdr);

	if (limit > stream_space(conn))
		limit = stream_space(conn);
	const unsigned count = iov_slice(virtq_writable(chain), chain->writable_count, sizeof(struct vsock_hdr), limit, iov);
	const ssize_t n = end_readv(&conn->in, iov, count);
	const bool always_ready = conn->in.unwatchable || conn->in.hung;

	if (n > 0) {
		conn->tx_cnt += (uint32_t)n;
		conn->vsock->to_guest_bytes += (uint32_t)n;
		packet_sent(conn);
		/* Less than asked for: drained. If not, the loop tells again. */
		if ((uint32_t)n < limit && !always_ready) {
			conn->read_ready = false;
			ends_watch(conn);
		}
		return (uint32_t)n;
	}
	if (n == -EAGAIN && !always_ready) {
		conn->read_ready = false;
		ends_watch(conn);
	} else if (n == -ECONNRESET || n == -ECONNREFUSED) {
		conn_reset(conn, (int)n);
	} else {
		/* EOF; EIO is what a terminal says when its other side is gone. */
		stream_read_finished(conn);
	}
	return 0;
}

void stream_read_finished(struct vsock_conn *conn)
{
	const bool gone = conn->in.hung && conn->in.is_socket && conn->in.source.fd == conn->out.source.fd;

	if (!(conn->host_shut & VSOCK_SHUTDOWN_SEND)) {
		conn->host_shut |= VSOCK_SHUTDOWN_SEND;
		conn_pend(conn, PENDING_SHUTDOWN);
	}
	ends_close_in(conn);
	if (gone && !conn->write_over)
		stream_write_broken(conn);
}

/* ---- guest to host ----------------------------------------------------------------------------------------------------------- */

/*
 * The host took `bytes`. The guest is told when half of what it may have in flight would be free if it knew. That is the
 * smaller of our buffer and its own, to which newer Linux caps its credit: a threshold of our buffer alone might never be
 * reached, and the guest would wait for ever.
 */
static void stream_taken(struct vsock_conn *conn, uint32_t bytes)
{
	const uint32_t window = conn->buf_alloc < conn->peer_buf_alloc ? conn->buf_alloc : conn->peer_buf_alloc;

	conn->fwd_cnt += bytes;
	const uint32_t news = conn->fwd_cnt - conn->fwd_cnt_told;
	if (news && news >= window / 2 && conn->state == VSOCK_OPEN && !(conn->guest_shut & VSOCK_SHUTDOWN_SEND))
		conn_pend(conn, PENDING_CREDIT_UPDATE);
}

static int backlog_append(struct vsock_conn *conn, const struct virtq_chain *chain, size_t offset, uint32_t length)
{
	if (!conn->backlog) {
		conn->backlog = malloc(conn->buf_alloc);
		if (!conn->backlog)
			return -ENOMEM;
	}
	/* Credit was checked: it fits. */
	assert(length <= conn->buf_alloc - conn->backlog_bytes);
	const uint32_t end = (conn->backlog_start + conn->backlog_bytes) % conn->buf_alloc;
	const uint32_t first = length < conn->buf_alloc - end ? length : conn->buf_alloc - end;
	iov_copy_out(virtq_readable(chain), chain->readable_count, offset, conn->backlog + end, first);
	iov_copy_out(virtq_readable(chain), chain->readable_count, offset + first, conn->backlog, length - first);
	conn->backlog_bytes += length;
	return 0;
}

/* Writes straight from guest RAM. Returns the bytes written, which may be 0, or -errno: the host takes no more. */
static ssize_t write_through(struct vsock_conn *conn, const struct virtq_chain *chain, uint32_t length)
{
	struct iovec *iov = conn->vsock->iov;
	uint32_t done = 0;

	while (done < length) {
		const unsigned count = iov_slice(virtq_readable(chain), chain->readable_count, sizeof(struct vsock_hdr) + done,
						 length - done, iov);
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

int stream_receive(struct vsock_conn *conn, const struct virtq_chain *chain, uint32_t length)
{
	uint32_t written = 0;

	if (length > conn->buf_alloc - (conn->rx_cnt - conn->fwd_cnt))
		return -EPROTO;
	conn->rx_cnt += length;
	conn->vsock->from_guest_bytes += length;
	if (conn->write_over || conn->out.source.fd < 0) {
		stream_taken(conn, length);
		return 0;
	}
	if (!conn->backlog_bytes) {
		const ssize_t n = write_through(conn, chain, length);
		if (n < 0) {
			stream_write_broken(conn);
			stream_taken(conn, length);
			return 0;
		}
		written = (uint32_t)n;
		stream_taken(conn, written);
	}
	if (written < length) {
		if (backlog_append(conn, chain, sizeof(struct vsock_hdr) + written, length - written) < 0)
			return -ENOMEM;
		ends_watch(conn);
		if (conn->out.unwatchable)
			stream_write_broken(conn);
	}
	return 0;
}

void stream_flush(struct vsock_conn *conn)
{
	while (conn->backlog_bytes) {
		const uint32_t to_end = conn->buf_alloc - conn->backlog_start;
		const uint32_t first = conn->backlog_bytes < to_end ? conn->backlog_bytes : to_end;
		struct iovec iov[2] = {
			{ .iov_base = conn->backlog + conn->backlog_start, .iov_len = first },
			{ .iov_base = conn->backlog, .iov_len = conn->backlog_bytes - first },
		};
		const ssize_t n = end_writev(&conn->out, iov, first < conn->backlog_bytes ? 2 : 1);
		if (n == -EAGAIN)
			break;
		if (n <= 0) {
			stream_write_broken(conn);
			return;
		}
		conn->backlog_start = (conn->backlog_start + (uint32_t)n) % conn->buf_alloc;
		conn->backlog_bytes -= (uint32_t)n;
		stream_taken(conn, (uint32_t)n);
	}
	if (!conn->backlog_bytes)
		conn->backlog_start = 0; /* few pages of the ring stay in use */
	ends_watch(conn);
	conn_progress(conn);
}

void stream_write_broken(struct vsock_conn *conn)
{
	const uint32_t dropped = conn->backlog_bytes;

	conn->backlog_bytes = conn->backlog_start = 0;
	if (conn->state == VSOCK_OPEN && !(conn->guest_shut & VSOCK_SHUTDOWN_SEND) && !(conn->host_shut & VSOCK_SHUTDOWN_RCV)) {
		conn->host_shut |= VSOCK_SHUTDOWN_RCV;
		conn_pend(conn, PENDING_SHUTDOWN);
	}
	ends_close_out(conn);
	stream_taken(conn, dropped);
	conn_progress(conn);
}
