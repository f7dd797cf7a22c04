/*
 * Credit (virtio 1.2, 5.10.6.3): what may be in flight to the guest, and when the guest is told what we took.
 *
 * Linux counts the buffers that its socket holds, too, since 6.12.92 (CVE-2026-23086), and resets a connection whose packets are too many
 * for buf_alloc, however small they are; the specification knows nothing of it. So a packet costs its bytes and PACKET_OVERHEAD, a little
 * more than SKB_TRUESIZE(0), and all in flight together cost no more than buf_alloc.
 *
 * A packet is in flight until fwd_cnt has passed its end. The ends are kept in VSOCK_MARKS groups: an error of one group, always to the
 * safe side.
 */
#include "base/container.h"
#include "devices/virtio-vsock/vsock_internal.h"

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

uint32_t credit_space(const struct vsock_conn *conn)
{
	return credit_space_after(conn, 0, 0);
}

uint32_t credit_space_after(const struct vsock_conn *conn, uint32_t bytes, uint32_t packets)
{
	const uint64_t in_flight = (uint64_t)bytes_in_flight(conn) + bytes;

	if (in_flight >= conn->peer_buf_alloc)
		return 0;
	const uint32_t space = conn->peer_buf_alloc - (uint32_t)in_flight;
	if (in_flight == 0)
		return space;
	const uint64_t overhead = (conn->packets + packets + 1ull) * PACKET_OVERHEAD;
	return space >= overhead + packet_min(conn) ? space - (uint32_t)overhead : 0;
}

bool credit_covers(const struct vsock_conn *conn, uint32_t bytes, uint32_t packet_bytes)
{
	const uint64_t packets = bytes / packet_bytes + 1ull;

	return bytes + packets * PACKET_OVERHEAD + packet_min(conn) <= conn->peer_buf_alloc;
}

void credit_sent(struct vsock_conn *conn, uint32_t bytes)
{
	const uint32_t group = conn->peer_buf_alloc / PACKET_OVERHEAD / (VSOCK_MARKS / 2);
	struct vsock_mark *last = &conn->marks[(conn->mark_first + conn->mark_count - 1) % VSOCK_MARKS];

	conn->tx_cnt += bytes;
	conn->vsock->to_guest_bytes += bytes;
	if (conn->mark_count == 0 || (last->packets >= group && conn->mark_count < VSOCK_MARKS)) {
		last = &conn->marks[(conn->mark_first + conn->mark_count++) % VSOCK_MARKS];
		last->packets = 0;
	}
	last->end = conn->tx_cnt;
	last->packets++;
	conn->packets++;
}

void credit_heard(struct vsock_conn *conn, uint32_t buf_alloc, uint32_t fwd_cnt)
{
	conn->peer_buf_alloc = buf_alloc;
	conn->peer_fwd_cnt = fwd_cnt;
	while (conn->mark_count && (int32_t)(fwd_cnt - conn->marks[conn->mark_first].end) >= 0) {
		conn->packets -= conn->marks[conn->mark_first].packets;
		conn->mark_first = (conn->mark_first + 1) % VSOCK_MARKS;
		conn->mark_count--;
	}
	if (link_listed(&conn->probing_link) && credit_space(conn))
		credit_unprobe(conn);
}

/*
 * The guest is told when half of what it may have in flight would be free if it knew. That is the smaller of our buffer and its own, to
 * which newer Linux caps its credit: a threshold of our buffer alone might never be reached, and the guest would wait for ever. While a
 * message waits for its end, the host can take no more than what came before it, which may be less than half: then every bit is told.
 */
void credit_tell(struct vsock_conn *conn)
{
	const uint32_t window = conn->buf_alloc < conn->peer_buf_alloc ? conn->buf_alloc : conn->peer_buf_alloc;
	const uint32_t news = conn->fwd_cnt - conn->fwd_cnt_told;

	if (news && (news >= window / 2 || conn->message_begun) && conn->state == VSOCK_OPEN &&
	    !(conn->guest_shut & VSOCK_SHUTDOWN_SEND))
		conn_pend(conn, PENDING_CREDIT_UPDATE);
}

void credit_taken(struct vsock_conn *conn, uint32_t bytes)
{
	conn->fwd_cnt += bytes;
	credit_tell(conn);
}

/* ---- probing ----------------------------------------------------------------------------------------------------------------- */

/*
 * Bytes alone never block for good: the guest reports when its buffer was read empty enough. Packets may: Linux before 6.7
 * reports only after most of buf_alloc was read, and small packets are far from that. So the guest is asked, at once and then
 * less and less often.
 */
void credit_probe(struct vsock_conn *conn)
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

void credit_unprobe(struct vsock_conn *conn)
{
	list_remove(&conn->probing_link);
}

uint64_t credit_probe_all(struct virtio_vsock *vsock, uint64_t now_ns)
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
