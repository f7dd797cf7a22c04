/*
 * The life of a connection: table, states, callbacks.
 *
 *     connect()                  REQUEST from the guest, accepted
 *        |                              |
 *    CONNECTING --- RESPONSE ------->  OPEN --- breach of protocol, or shut down both ways and all delivered ---> RESET
 *        |                              |                                                                         |
 *        | RST, timeout                 | RST or its like from the guest                                          | RST sent
 *        v                              v                                                                         v
 *      DEAD <------ all delivered -- DETACHED                                                                   DEAD
 *
 * Ends are closed in RESET and DEAD. The callbacks run from conn_settle(), where no function of ours holds a connection.
 */
#include "base/container.h"
#include "devices/virtio-vsock/vsock_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

/*
 * The credit that a new connection is given. It may not shrink later (older Linux computes its space without a sign), so it
 * depends on how many there are now. No more than N connections made while there were fewer than N can exist: the backlogs of
 * all are bounded by 128 * 256 KiB + 384 * 64 KiB + 3584 * 16 KiB = 112 MiB; messages to the guest by as much again.
 */
static uint32_t conn_grant(const struct virtio_vsock *vsock)
{
	if (vsock->conn_count < 128)
		return 256u << 10;
	return vsock->conn_count < 512 ? 64u << 10 : 16u << 10;
}

/* The key is secret: a guest cannot fill one bucket by its choice of ports. */
static struct vsock_link *conn_bucket(struct virtio_vsock *vsock, uint32_t host_port, uint32_t guest_port)
{
	uint64_t hash = (((uint64_t)host_port << 32) | guest_port) ^ vsock->hash_key;

	hash = (hash ^ (hash >> 33)) * 0xff51afd7ed558ccdull;
	hash = (hash ^ (hash >> 29) ^ (vsock->hash_key >> 7)) * 0xc4ceb9fe1a85ec53ull;
	return &vsock->buckets[(hash >> 40) % VSOCK_BUCKETS];
}

struct vsock_conn *conn_find(struct virtio_vsock *vsock, uint32_t host_port, uint32_t guest_port)
{
	struct vsock_link *bucket = conn_bucket(vsock, host_port, guest_port);

	for (struct vsock_link *link = bucket->next; link != bucket; link = link->next) {
		struct vsock_conn *conn = container_of(link, struct vsock_conn, hash_link);
		if (conn->host_port == host_port && conn->guest_port == guest_port)
			return conn;
	}
	return NULL;
}

struct vsock_conn *conn_create(struct virtio_vsock *vsock, uint16_t type, uint32_t host_port, uint32_t guest_port,
			       enum vsock_state state, const struct vsock_ends *ends)
{
	struct vsock_conn *conn = NULL;

	if (vsock->conn_count >= VSOCK_CONNECTIONS_MAX)
		errno = EMFILE;
	else
		conn = calloc(1, sizeof(*conn));
	if (!conn) {
		const int error = errno;
		vsock_ends_close(ends);
		errno = error;
		return NULL;
	}
	conn->vsock = vsock;
	conn->type = type;
	conn->host_port = host_port;
	conn->guest_port = guest_port;
	conn->state = state;
	conn->batch = 1;
	conn->buf_alloc = conn_grant(vsock) >> vsock->grant_shift;
	conn->rx_cnt = conn->fwd_cnt = conn->fwd_cnt_told = vsock->first_cnt;
	conn->tx_cnt = conn->peer_fwd_cnt = vsock->first_cnt;
	conn->closed = ends->closed;
	conn->closed_data = ends->closed_data;
	conn->host_reset = ends->host_reset;
	conn->guest_reset = ends->guest_reset;
	conn->write_error = ends->write_error;
	ends_init(conn, ends);
	list_append(conn_bucket(vsock, host_port, guest_port), &conn->hash_link);
	list_append(&vsock->all, &conn->all_link);
	vsock->conn_count++;
	return conn;
}

void conn_schedule(struct vsock_conn *conn)
{
	const bool reading = conn->state == VSOCK_OPEN && (conn->read_ready || conn->message) && !conn->read_over;

	if (reading && !credit_space(conn))
		credit_probe(conn);
	if (!link_listed(&conn->ready_link) && (conn->pending || conn_can_read(conn)))
		list_append(&conn->vsock->ready, &conn->ready_link);
}

void conn_unschedule(struct vsock_conn *conn)
{
	list_remove(&conn->ready_link);
}

void conn_pend(struct vsock_conn *conn, unsigned pending)
{
	conn->pending |= (uint8_t)pending;
	conn_schedule(conn);
}

void conn_settle_later(struct vsock_conn *conn)
{
	if (!link_listed(&conn->settle_link))
		list_append(&conn->vsock->settle, &conn->settle_link);
}

/* The outcome of a connect is known. */
static void conn_decided(struct vsock_conn *conn, int result)
{
	list_remove(&conn->connecting_link);
	if (conn->done) {
		conn->done_result = result;
		conn->done_due = true;
		conn_settle_later(conn);
	}
}

/* Both ends are closed now, if they were not. */
static void conn_close_ends(struct vsock_conn *conn)
{
	ends_close(conn);
	backlog_free(conn);
	seqpacket_free(conn);
}

/* What the ways to the end have in common; `state` is what the connection becomes. */
static void conn_end(struct vsock_conn *conn, enum vsock_state state, int result)
{
	if (conn->state == VSOCK_CONNECTING)
		conn_decided(conn, result);
	conn->state = state;
	conn->pending = 0;
	conn_unschedule(conn);
	credit_unprobe(conn);
	if (state != VSOCK_RESET)
		list_remove(&conn->hash_link);
}

/* Before any byte of the guest. The socket is fresh: that it has no room for a line would be its program's doing. */
static bool greet(struct vsock_conn *conn)
{
	char line[32];
	const int length = snprintf(line, sizeof(line), "OK %u\n", conn->host_port);
	struct iovec iov = { .iov_base = line, .iov_len = (size_t)length };

	return end_writev(&conn->out, &iov, 1) == length;
}

void conn_established(struct vsock_conn *conn)
{
	if (conn->greets && !greet(conn)) {
		conn_reset(conn, -EPIPE);
		return;
	}
	conn_decided(conn, 0);
	conn->state = VSOCK_OPEN;
	if (conn->in.source.fd < 0)
		conn_read_finished(conn);
	ends_watch(conn);
}

void conn_read_failed(struct vsock_conn *conn, int result)
{
	if (result == -EAGAIN && !end_always_ready(&conn->in)) {
		conn->read_ready = false;
		ends_watch(conn);
	} else if (result == -ECONNRESET || result == -ECONNREFUSED) {
		conn_reset(conn, result);
	} else {
		/* EOF; EIO is what a terminal says when its other side is gone. */
		conn_read_finished(conn);
	}
}

static bool host_was_reset(const struct vsock_conn *conn)
{
	return conn->host_reset && *conn->host_reset;
}

void conn_read_finished(struct vsock_conn *conn)
{
	if (host_was_reset(conn)) {
		conn_reset(conn, -ECONNRESET);
		return;
	}
	const bool gone = conn->in.hung && conn->in.is_socket && conn->in.source.fd == conn->out.source.fd;

	if (!(conn->host_shut & VSOCK_SHUTDOWN_SEND)) {
		conn->host_shut |= VSOCK_SHUTDOWN_SEND;
		conn_pend(conn, PENDING_SHUTDOWN);
	}
	ends_close_in(conn);
	if (gone && !conn->write_over)
		conn_write_broken(conn);
}

void conn_write_broken(struct vsock_conn *conn)
{
	if (host_was_reset(conn)) {
		conn_reset(conn, -ECONNRESET);
		return;
	}
	const uint32_t dropped = conn->backlog_bytes;

	conn->backlog_bytes = conn->backlog_start = conn->message_begun = 0;
	if (conn->state == VSOCK_OPEN && !(conn->guest_shut & VSOCK_SHUTDOWN_SEND) && !(conn->host_shut & VSOCK_SHUTDOWN_RCV)) {
		conn->host_shut |= VSOCK_SHUTDOWN_RCV;
		conn_pend(conn, PENDING_SHUTDOWN);
	}
	ends_close_out(conn);
	credit_taken(conn, dropped);
	conn_progress(conn);
}

void conn_write_failed(struct vsock_conn *conn, int result)
{
	if (conn->write_error && result < 0 && result != -EPIPE && result != -ECONNRESET)
		*conn->write_error = result;
	conn_write_broken(conn);
}

void conn_reset(struct vsock_conn *conn, int result)
{
	if (conn->state == VSOCK_RESET || conn->state == VSOCK_DEAD)
		return;
	if (conn->state == VSOCK_DETACHED) {
		conn_kill(conn, result);
		return;
	}
	conn_end(conn, VSOCK_RESET, result);
	conn_close_ends(conn);
	conn_pend(conn, PENDING_RST);
}

void conn_kill(struct vsock_conn *conn, int result)
{
	if (conn->state == VSOCK_DEAD)
		return;
	conn_end(conn, VSOCK_DEAD, result);
	conn_close_ends(conn);
	conn_settle_later(conn);
}

void conn_guest_reset(struct vsock_conn *conn)
{
	if (conn->guest_reset)
		*conn->guest_reset = true;
}

void conn_detach(struct vsock_conn *conn, int result)
{
	backlog_drop_unfinished(conn);
	if (!conn->backlog_bytes) {
		conn_kill(conn, result);
		return;
	}
	conn_end(conn, VSOCK_DETACHED, result);
	if (!conn->read_over)
		ends_close_in(conn);
}

void conn_progress(struct vsock_conn *conn)
{
	if (conn->state == VSOCK_DETACHED && !conn->backlog_bytes)
		conn_kill(conn, 0);
	if (conn->state != VSOCK_OPEN)
		return;
	if ((conn->guest_shut & VSOCK_SHUTDOWN_RCV) && !conn->read_over)
		ends_close_in(conn);
	if ((conn->guest_shut & VSOCK_SHUTDOWN_SEND) && !conn->backlog_bytes && !conn->write_over)
		ends_close_out(conn);
	if (conn->guest_shut == VSOCK_SHUTDOWN_BOTH && !conn->backlog_bytes)
		conn_reset(conn, 0); /* 5.10.6.5: the RST confirms that the disconnect is complete */
}

void conn_settle(struct vsock_conn *conn)
{
	const bool over = conn->read_over && conn->write_over && conn->in.source.fd < 0 && conn->out.source.fd < 0;
	const vsock_closed closed = over ? conn->closed : NULL;
	const vsock_done done = conn->done_due ? conn->done : NULL;

	list_remove(&conn->settle_link);
	/* A callback may use the device: nothing of `conn` but what only this function changes is relied on behind it. */
	if (done) {
		conn->done_due = false;
		conn->done = NULL;
		done(conn->done_data, conn->done_result);
	}
	if (closed) {
		conn->closed = NULL;
		closed(conn->closed_data);
	}
	if (conn->state != VSOCK_DEAD)
		return;
	list_remove(&conn->settle_link);
	list_remove(&conn->all_link);
	conn->vsock->conn_count--;
	free(conn);
}
