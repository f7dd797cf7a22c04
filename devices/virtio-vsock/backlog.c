/*
 * Bytes of the guest that the host did not take yet: a ring of buf_alloc bytes, which credit keeps from flowing over, allocated when it is
 * first needed. For messages a bit for each byte of it says where one ends (no message is empty); what lies behind the last end has to wait
 * for the rest of its message.
 */
#include "devices/virtio-vsock/vsock_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/iov.h"

static uint8_t *end_bits(const struct vsock_conn *conn)
{
	return conn->backlog + conn->buf_alloc;
}

int backlog_append(struct vsock_conn *conn, const struct virtq_chain *chain, size_t offset, uint32_t length)
{
	if (!conn->backlog) {
		const size_t bits = conn->type == VSOCK_TYPE_SEQPACKET ? conn->buf_alloc / 8 : 0;
		conn->backlog = malloc(conn->buf_alloc + bits);
		if (!conn->backlog)
			return -ENOMEM;
		memset(end_bits(conn), 0, bits);
	}
	/* Credit was checked: it fits. */
	assert(length <= conn->buf_alloc - conn->backlog_bytes);
	const uint32_t end = (conn->backlog_start + conn->backlog_bytes) % conn->buf_alloc;
	const uint32_t first = length < conn->buf_alloc - end ? length : conn->buf_alloc - end;
	iov_copy_out(virtq_readable(chain), chain->readable_count, offset, conn->backlog + end, first);
	iov_copy_out(virtq_readable(chain), chain->readable_count, offset + first, conn->backlog, length - first);
	conn->backlog_bytes += length;
	if (conn->type == VSOCK_TYPE_SEQPACKET)
		conn->message_begun += length;
	return 0;
}

void backlog_end_message(struct vsock_conn *conn)
{
	const uint32_t last = (conn->backlog_start + conn->backlog_bytes - 1) % conn->buf_alloc;

	assert(conn->message_begun);
	end_bits(conn)[last / 8] |= (uint8_t)(1u << last % 8);
	conn->message_begun = 0;
}

void backlog_drop_unfinished(struct vsock_conn *conn)
{
	conn->backlog_bytes -= conn->message_begun;
	conn->message_begun = 0;
}

/* Bytes of the first message, whose end is there. */
static uint32_t first_message(const struct vsock_conn *conn)
{
	const uint8_t *bits = end_bits(conn);
	uint32_t at = conn->backlog_start;

	for (uint32_t bytes = 1;; bytes++) {
		if (bits[at / 8] & (1u << at % 8))
			return bytes;
		assert(bytes < conn->backlog_bytes);
		/* Eight at a time: buf_alloc is a multiple. */
		if (at % 8 == 0 && bits[at / 8] == 0)
			at += 7, bytes += 7;
		at = (at + 1) % conn->buf_alloc;
	}
}

/* What the next write takes: all, or one message. */
static uint32_t next_bytes(const struct vsock_conn *conn)
{
	if (!backlog_ready(conn))
		return 0;
	return conn->type == VSOCK_TYPE_SEQPACKET ? first_message(conn) : conn->backlog_bytes;
}

static void forget(struct vsock_conn *conn, uint32_t bytes)
{
	if (conn->type == VSOCK_TYPE_SEQPACKET) {
		const uint32_t last = (conn->backlog_start + bytes - 1) % conn->buf_alloc;
		end_bits(conn)[last / 8] &= (uint8_t) ~(1u << last % 8);
	}
	conn->backlog_start = (conn->backlog_start + bytes) % conn->buf_alloc;
	conn->backlog_bytes -= bytes;
}

void backlog_flush(struct vsock_conn *conn)
{
	for (uint32_t bytes; (bytes = next_bytes(conn)) != 0;) {
		const uint32_t to_end = conn->buf_alloc - conn->backlog_start;
		const uint32_t first = bytes < to_end ? bytes : to_end;
		struct iovec iov[2] = {
			{ .iov_base = conn->backlog + conn->backlog_start, .iov_len = first },
			{ .iov_base = conn->backlog, .iov_len = bytes - first },
		};
		const ssize_t n = end_writev(&conn->out, iov, first < bytes ? 2 : 1);
		if (n == -EAGAIN)
			break;
		if (n <= 0) {
			conn_write_failed(conn, (int)n);
			return;
		}
		forget(conn, (uint32_t)n);
		credit_taken(conn, (uint32_t)n);
	}
	if (!conn->backlog_bytes)
		conn->backlog_start = 0; /* few pages of the ring stay in use */
	ends_watch(conn);
	conn_progress(conn);
}

void backlog_free(struct vsock_conn *conn)
{
	free(conn->backlog);
	conn->backlog = NULL;
	conn->backlog_bytes = conn->backlog_start = conn->message_begun = 0;
}
