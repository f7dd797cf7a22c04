/*
 * virtio-vsock against a model of the guest's sockets: whatever the sizes, cuts, credits, kinds of descriptors and the order of
 * events, every byte arrives once, in order, and the connection ends by the rules. The guest does what Linux does and no more,
 * so a missing credit update hangs.
 */
#include "tests/unit/vsock_driver.h"

#include <criterion/criterion.h>

#define PORT 2000
#define CONNECTIONS 5
#define SKB_BYTES 576u /* SKB_TRUESIZE(0) on x86-64 */

static struct drv drv;
static uint64_t seed;

static uint32_t rnd(uint32_t below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return below ? (uint32_t)((seed >> 11) % below) : 0;
}

/* The byte at `offset` of a stream: any shift or loss shows. */
static uint8_t stream_byte(unsigned stream, uint32_t offset)
{
	return (uint8_t)((offset * 2654435761u) >> 24) ^ (uint8_t)(stream * 37u + (offset >> 16));
}

struct guest_socket {
	unsigned id;
	uint32_t guest_port;
	bool reports_when_empty; /* Linux from 6.7 on */
	uint32_t buf_alloc;

	/* guest to host */
	uint32_t to_send, sent;         /* bytes */
	uint32_t tx_cnt, peer_fwd_cnt, peer_buf_alloc;
	bool shut_sent;

	/* host to guest: packets not read yet */
	uint32_t queue[4096], queue_first, queue_last;
	uint32_t queue_offset;          /* bytes read of the first */
	uint32_t queued_bytes, received; /* bytes */
	uint32_t fwd_cnt, fwd_cnt_told;
	bool eof, closed, reset;

	/* the host program */
	int in_fd, out_fd;              /* written by and read by the program */
	uint32_t host_to_send, host_sent, host_received;
	bool host_eof;
};

static struct guest_socket sockets[CONNECTIONS];
static unsigned accepting; /* index of the socket whose REQUEST is being sent */

static void make_pipe(int fds[2], bool blocking)
{
	cr_assert(pipe2(fds, O_CLOEXEC | (blocking ? 0 : O_NONBLOCK)) == 0);
	fcntl(fds[0], F_SETPIPE_SZ, 4096 << rnd(4));
}

static int accept_any(void *data, uint32_t port, struct vsock_ends *ends)
{
	struct guest_socket *s = &sockets[accepting];

	(void)data;
	(void)port;
	if (rnd(2)) {
		int pair[2];
		const int bytes = 2048 << rnd(6);
		cr_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
		setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
		setsockopt(pair[1], SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
		s->in_fd = s->out_fd = pair[0];
		ends->read_fd = ends->write_fd = pair[1];
	} else {
		const bool blocking = rnd(2);
		int in[2], out[2];
		make_pipe(in, blocking);
		make_pipe(out, blocking);
		s->in_fd = in[1];
		s->out_fd = out[0];
		ends->read_fd = in[0];
		ends->write_fd = out[1];
		fcntl(s->in_fd, F_SETFL, O_NONBLOCK);
		fcntl(s->out_fd, F_SETFL, O_NONBLOCK);
	}
	return 0;
}

/* ---- the guest --------------------------------------------------------------------------------------------------------------- */

static struct drv_packet *guest_packet(struct guest_socket *s, uint16_t op)
{
	struct drv_packet *packet = drv_packet(&drv, op, s->guest_port, PORT);
	packet->buf_alloc = s->buf_alloc;
	packet->fwd_cnt = s->fwd_cnt;
	s->fwd_cnt_told = s->fwd_cnt;
	return packet;
}

static void guest_queue(const struct drv_packet *packet)
{
	uint32_t cuts[8];
	unsigned count = rnd(7);

	/* Ascending, anywhere. */
	uint32_t at = 0;
	for (unsigned i = 0; i < count; i++) {
		at += 1 + rnd(i < 2 ? 40 : packet->len / 4 + 2);
		cuts[i] = at;
		if (at >= sizeof(struct vsock_hdr) + packet->len) {
			count = i;
			break;
		}
	}
	drv_queue_split(&drv, packet, packet->len, cuts, count);
	if (rnd(3))
		drv_notify(&drv, VSOCK_QUEUE_TX);
}

static void guest_send(struct guest_socket *s, uint32_t wanted)
{
	/* virtio_transport_tx_buf_size(): the smaller of both buffers. */
	const uint32_t window = s->peer_buf_alloc < s->buf_alloc ? s->peer_buf_alloc : s->buf_alloc;
	const uint32_t in_flight = s->tx_cnt - s->peer_fwd_cnt;
	uint32_t length = window > in_flight ? window - in_flight : 0;

	if (length > wanted)
		length = wanted;
	if (length > s->to_send - s->sent)
		length = s->to_send - s->sent;
	if (length > 65536)
		length = 65536;
	if (length == 0 || drv.queues[VSOCK_QUEUE_TX].in_flight > 30)
		return;
	struct drv_packet *packet = guest_packet(s, VSOCK_OP_RW);
	packet->len = length;
	for (uint32_t i = 0; i < length; i++)
		packet->data[i] = stream_byte(s->id, s->sent + i);
	s->sent += length;
	s->tx_cnt += length;
	guest_queue(packet);
}

/* virtio_transport_stream_do_dequeue(): fwd_cnt grows by whole packets. */
static void guest_dequeue(struct guest_socket *s, uint32_t length)
{
	while (length && s->queue_first != s->queue_last) {
		const uint32_t packet = s->queue[s->queue_first % 4096];
		const uint32_t take = length < packet - s->queue_offset ? length : packet - s->queue_offset;
		s->queue_offset += take;
		s->queued_bytes -= take;
		length -= take;
		if (s->queue_offset == packet) {
			s->fwd_cnt += packet;
			s->queue_first++;
			s->queue_offset = 0;
		}
	}
	const uint32_t delta = s->fwd_cnt - s->fwd_cnt_told;
	if (delta && !s->reset && (s->buf_alloc - delta < 65536 || (s->reports_when_empty && s->queued_bytes == 0)))
		guest_queue(guest_packet(s, VSOCK_OP_CREDIT_UPDATE));
}

static void guest_receive_data(struct guest_socket *s, const struct drv_packet *packet)
{
	uint64_t cost = 0;

	cr_assert(packet->len > 0);
	for (uint32_t i = 0; i < packet->len; i++)
		cr_assert(packet->data[i] == stream_byte(s->id + 100, s->received + i), "socket %u: byte %u", s->id,
			  s->received + i);
	s->received += packet->len;
	s->queued_bytes += packet->len;
	s->queue[s->queue_last++ % 4096] = packet->len;
	for (uint32_t i = s->queue_first; i != s->queue_last; i++)
		cost += SKB_BYTES + s->queue[i % 4096];
	cr_assert(s->queued_bytes <= s->buf_alloc, "more than the guest's credit");
	cr_assert(cost <= s->buf_alloc || s->queue_last - s->queue_first == 1, "Linux would reset: %lu", (unsigned long)cost);
}

static void guest_receive(void)
{
	const struct drv_packet *packet = drv_receive(&drv);
	struct guest_socket *s = NULL;

	if (!packet)
		return;
	for (unsigned i = 0; i < CONNECTIONS; i++)
		if (sockets[i].guest_port == packet->dst_port)
			s = &sockets[i];
	cr_assert(s && packet->src_port == PORT && packet->type == VSOCK_TYPE_STREAM);
	cr_assert(!s->reset);
	s->peer_buf_alloc = packet->buf_alloc;
	s->peer_fwd_cnt = packet->fwd_cnt;
	switch (packet->op) {
	case VSOCK_OP_RW:
		cr_assert(!s->eof);
		guest_receive_data(s, packet);
		break;
	case VSOCK_OP_SHUTDOWN:
		cr_assert(packet->flags == VSOCK_SHUTDOWN_SEND);
		s->eof = true;
		break;
	case VSOCK_OP_CREDIT_REQUEST:
		guest_queue(guest_packet(s, VSOCK_OP_CREDIT_UPDATE));
		break;
	case VSOCK_OP_RST:
		cr_assert(s->closed);
		s->reset = true;
		break;
	default:
		cr_assert(packet->op == VSOCK_OP_CREDIT_UPDATE || packet->op == VSOCK_OP_RESPONSE);
		break;
	}
}

static void guest_finish(struct guest_socket *s)
{
	if (s->sent != s->to_send || s->closed || drv.queues[VSOCK_QUEUE_TX].in_flight > 30)
		return;
	if (!s->shut_sent) {
		struct drv_packet *packet = guest_packet(s, VSOCK_OP_SHUTDOWN);
		packet->flags = VSOCK_SHUTDOWN_SEND;
		s->shut_sent = true;
		guest_queue(packet);
	} else if (s->eof && s->queued_bytes == 0) {
		struct drv_packet *packet = guest_packet(s, VSOCK_OP_SHUTDOWN);
		packet->flags = VSOCK_SHUTDOWN_BOTH;
		s->closed = true;
		guest_queue(packet);
	}
}

/* ---- the host's program ------------------------------------------------------------------------------------------------------ */

static void host_write(struct guest_socket *s, uint32_t length)
{
	static uint8_t buffer[65536];

	if (length > s->host_to_send - s->host_sent)
		length = s->host_to_send - s->host_sent;
	for (uint32_t i = 0; i < length; i++)
		buffer[i] = stream_byte(s->id + 100, s->host_sent + i);
	const ssize_t n = length ? write(s->in_fd, buffer, length) : 0;
	if (n > 0)
		s->host_sent += (uint32_t)n;
	if (s->host_sent == s->host_to_send && s->in_fd >= 0) {
		if (s->in_fd == s->out_fd)
			shutdown(s->in_fd, SHUT_WR);
		else
			close(s->in_fd);
		s->in_fd = -1;
	}
}

static void host_take(struct guest_socket *s, uint32_t length)
{
	static uint8_t buffer[65536];

	if (s->host_eof)
		return;
	const ssize_t n = read(s->out_fd, buffer, length);
	if (n == 0 && length) {
		s->host_eof = true;
		cr_assert(s->host_received == s->to_send, "socket %u: EOF after %u of %u", s->id, s->host_received, s->to_send);
	}
	for (ssize_t i = 0; i < n; i++)
		cr_assert(buffer[i] == stream_byte(s->id, s->host_received + (uint32_t)i), "socket %u: byte %u of the guest", s->id,
			  s->host_received + (uint32_t)i);
	if (n > 0)
		s->host_received += (uint32_t)n;
}

/* ---- one run ----------------------------------------------------------------------------------------------------------------- */

static uint32_t some_size(void)
{
	static const uint32_t sizes[] = { 1, 2, 40, 100, 1000, 4052, 4096, 5000, 20000, 65536 };
	return 1 + rnd(sizes[rnd(sizeof(sizes) / sizeof(sizes[0]))]);
}

static void open_socket(unsigned i, uint32_t first_cnt, uint32_t amount)
{
	static const uint32_t buffers[] = { 128, 1000, 4096, 16384, 65536, 262144, 262144, 1 << 20 };
	struct guest_socket *s = &sockets[i];

	*s = (struct guest_socket){
		.id = i, .guest_port = 5000 + i, .buf_alloc = buffers[rnd(8)], .tx_cnt = first_cnt, .peer_fwd_cnt = first_cnt,
		.fwd_cnt = first_cnt, .fwd_cnt_told = first_cnt, .to_send = rnd(amount), .host_to_send = rnd(amount),
		.reports_when_empty = true,
	};
	accepting = i;
	guest_queue(guest_packet(s, VSOCK_OP_REQUEST));
	drv_notify(&drv, VSOCK_QUEUE_TX);
	drv_settle(&drv);
	guest_receive();
	/* A small grant, so that the ring of the backlog goes round. */
	struct vsock_conn *conn = conn_find(drv.vsock, PORT, s->guest_port);
	cr_assert(conn && s->peer_buf_alloc == conn->buf_alloc);
	s->peer_buf_alloc = conn->buf_alloc = buffers[1 + rnd(7)];
}

static bool all_finished(void)
{
	for (unsigned i = 0; i < CONNECTIONS; i++)
		if (!sockets[i].reset || !sockets[i].host_eof)
			return false;
	return true;
}

static void step(void)
{
	struct guest_socket *s = &sockets[rnd(CONNECTIONS)];

	switch (rnd(9)) {
	case 0:
		guest_send(s, some_size());
		break;
	case 1:
		guest_dequeue(s, some_size());
		break;
	case 2:
		host_write(s, some_size());
		break;
	case 3:
		host_take(s, some_size());
		break;
	case 4:
		for (unsigned n = rnd(20); n; n--)
			guest_receive();
		break;
	case 5:
		loop_round(drv.loop, 0);
		break;
	case 6:
		drv_notify(&drv, rnd(2));
		break;
	case 7:
		guest_finish(s);
		break;
	default:
		/* Some rounds of a machine that is not busy. */
		drv_notify(&drv, VSOCK_QUEUE_TX);
		drv_notify(&drv, VSOCK_QUEUE_RX);
		drv_settle(&drv);
		break;
	}
}

/* Nothing but what the parties do of themselves, until all is delivered. */
static void finish(void)
{
	for (unsigned rounds = 0; !all_finished(); rounds++) {
		cr_assert(rounds < 20000, "no progress");
		for (unsigned i = 0; i < CONNECTIONS; i++) {
			guest_send(&sockets[i], 65536);
			guest_dequeue(&sockets[i], 65536);
			if (sockets[i].in_fd >= 0)
				host_write(&sockets[i], 65536);
			host_take(&sockets[i], 65536);
			guest_finish(&sockets[i]);
		}
		drv_notify(&drv, VSOCK_QUEUE_TX);
		drv_notify(&drv, VSOCK_QUEUE_RX);
		loop_round(drv.loop, rounds > 2000 ? 1 : 0);
		for (unsigned i = 0; i < 200; i++)
			guest_receive();
	}
}

static void run(uint64_t number, uint32_t first_cnt, uint32_t amount, bool old_linux)
{
	seed = number * 0x9e3779b97f4a7c15ull + 1;
	drv_init(&drv);
	cr_assert(virtio_vsock_listen(drv.vsock, PORT, PORT, accept_any, NULL) == 0);
	drv.vsock->first_cnt = first_cnt;
	drv.rx_buffer_bytes = rnd(2) ? DRV_RX_BUFFER : 60 + rnd(4000);
	drv_activate(&drv, false);
	for (unsigned i = 0; i < CONNECTIONS; i++) {
		open_socket(i, first_cnt, amount);
		sockets[i].reports_when_empty = !old_linux;
	}
	for (unsigned i = 0; i < 4000; i++)
		step();
	finish();
	for (unsigned i = 0; i < CONNECTIONS; i++) {
		const struct guest_socket *s = &sockets[i];
		cr_assert(s->received == s->host_to_send && s->host_received == s->to_send && s->sent == s->to_send);
		close(s->out_fd);
	}
	cr_assert(drv_settle(&drv));
	cr_assert(list_empty(&drv.vsock->all));
	drv_destroy(&drv);
}

TestSuite(vsock_model, .timeout = 300);

Test(vsock_model, every_byte_arrives_once_and_in_order)
{
	for (uint64_t number = 1; number <= 40; number++)
		run(number, 0, 200000, false);
}

Test(vsock_model, counters_wrap)
{
	for (uint64_t number = 1; number <= 40; number++)
		run(number, UINT32_MAX - (uint32_t)(number * 3000), 200000, false);
}

Test(vsock_model, short_streams)
{
	for (uint64_t number = 1; number <= 40; number++)
		run(number, 0, 300, false);
}

/* A guest that does not report when it has read all, as Linux before 6.7. */
Test(vsock_model, older_linux_is_asked_for_credit)
{
	for (uint64_t number = 1; number <= 20; number++)
		run(number, 0, 200000, true);
}
