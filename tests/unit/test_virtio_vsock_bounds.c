/* virtio-vsock: floods, fairness, reset, and connections that start at the host. */
#include "base/container.h"
#include "tests/unit/vsock_driver.h"

#include <criterion/criterion.h>

static struct drv drv;

static void start(void)
{
	drv_init(&drv);
	drv_activate(&drv, false);
}

static void stop(void)
{
	cr_expect(drv_settle(&drv), "the device comes to rest");
	drv_destroy(&drv);
}

TestSuite(vsock_bounds, .init = start, .fini = stop, .timeout = 120);

/* ---- floods ------------------------------------------------------------------------------------------------------------------ */

static int accept_null(void *data, uint32_t port, struct vsock_ends *ends)
{
	(void)data;
	(void)port;
	*ends = (struct vsock_ends){ .read_fd = -1, .write_fd = -1 };
	return 0;
}

Test(vsock_bounds, a_thousand_connections_work_at_once)
{
	enum { COUNT = 1200 };
	static int fds[COUNT];
	char buffer[16];
	struct rlimit files;

	getrlimit(RLIMIT_NOFILE, &files);
	if (files.rlim_cur < 2 * COUNT + 64)
		cr_skip("needs %u descriptors, the limit is %lu", 2 * COUNT + 64, (unsigned long)files.rlim_cur);
	for (unsigned i = 0; i < COUNT; i++)
		fds[i] = drv_open(&drv, 10000 + i);
	for (unsigned i = 0; i < COUNT; i++) {
		drv_send_data(&drv, 10000 + i, 1024, &i, sizeof(i));
		cr_assert(drv_read(fds[i], buffer, sizeof(buffer)) == sizeof(i));
		cr_assert(memcmp(buffer, &i, sizeof(i)) == 0);
		cr_assert(write(fds[i], &i, sizeof(i)) == sizeof(i));
	}
	unsigned got = 0;
	for (unsigned round = 0; round < 100 && got < COUNT; round++) {
		drv_settle(&drv);
		while (drv_receive(&drv)) {
			unsigned value;
			memcpy(&value, drv.packet.data, sizeof(value));
			cr_assert(drv.packet.op == VSOCK_OP_RW && drv.packet.len == sizeof(value));
			cr_assert(drv.packet.dst_port == 10000 + value);
			got++;
		}
		drv_notify(&drv, VSOCK_QUEUE_RX);
	}
	cr_expect(got == COUNT);
	for (unsigned i = 0; i < COUNT; i++)
		close(fds[i]);
}

Test(vsock_bounds, connections_beyond_the_limit_are_reset)
{
	unsigned responses = 0, resets = 0;

	cr_assert(virtio_vsock_listen(drv.vsock, 9, 9, accept_null, NULL) == 0);
	for (unsigned i = 0; i < VSOCK_CONNECTIONS_MAX + 10; i++) {
		drv_send(&drv, VSOCK_OP_REQUEST, 10000 + i, 9);
		while (drv_receive(&drv)) {
			responses += drv.packet.op == VSOCK_OP_RESPONSE;
			resets += drv.packet.op == VSOCK_OP_RST;
		}
	}
	cr_expect(responses == VSOCK_CONNECTIONS_MAX && resets == 10, "%u, %u", responses, resets);
	/* One ends, one more fits. */
	drv_send(&drv, VSOCK_OP_RST, 10000, 9);
	drv_send(&drv, VSOCK_OP_REQUEST, 9999, 9);
	cr_expect(drv_receive_op(&drv) == VSOCK_OP_RESPONSE);
}

Test(vsock_bounds, memory_granted_to_all_connections_is_bounded)
{
	uint64_t granted = 0;

	cr_assert(virtio_vsock_listen(drv.vsock, 9, 9, accept_null, NULL) == 0);
	for (unsigned i = 0; i < VSOCK_CONNECTIONS_MAX; i++) {
		drv_send(&drv, VSOCK_OP_REQUEST, 10000 + i, 9);
		while (drv_receive(&drv))
			;
	}
	for (struct vsock_link *link = drv.vsock->all.next; link != &drv.vsock->all; link = link->next)
		granted += container_of(link, struct vsock_conn, all_link)->buf_alloc;
	cr_expect(granted <= 112ull << 20, "%lu", (unsigned long)granted);
}

/* 2000 RSTs are due, and no rx buffer: the device keeps a few, then leaves tx alone until there is room. */
Test(vsock_bounds, guest_that_offers_no_rx_buffers_stalls_only_itself)
{
	const uint32_t total = 200;
	struct drv_queue *tx = &drv.queues[VSOCK_QUEUE_TX];
	unsigned resets = 0;

	drv_reset(&drv);
	drv_activate(&drv, true);
	for (uint32_t i = 0; i < total; i++)
		drv_queue(&drv, drv_packet(&drv, VSOCK_OP_REQUEST, 5000 + i, 77));
	drv_notify(&drv, VSOCK_QUEUE_TX);
	cr_assert(drv_settle(&drv));
	cr_expect(drv_get16(&drv, tx->used + 2) == VSOCK_RST_FIFO, "the rest waits");
	for (unsigned i = 0; i < 50; i++)
		drv_notify(&drv, VSOCK_QUEUE_TX);
	cr_assert(drv_settle(&drv));
	for (unsigned i = 0; i < DRV_QUEUE_SIZE; i++)
		drv_offer(&drv, i);
	drv_notify(&drv, VSOCK_QUEUE_RX);
	cr_assert(drv_settle(&drv));
	while (drv_receive(&drv)) {
		cr_expect(drv.packet.op == VSOCK_OP_RST && drv.packet.dst_port == 5000 + resets);
		resets++;
	}
	cr_expect(resets == total, "each is answered once, in order: %u", resets);
}

Test(vsock_bounds, control_packets_of_a_connection_do_not_pile_up)
{
	drv_open(&drv, 5000);
	drv_reset(&drv);
	drv_activate(&drv, true);
	drv_send(&drv, VSOCK_OP_REQUEST, 5000, 1024);
	for (unsigned i = 0; i < 1000; i++)
		drv_send(&drv, VSOCK_OP_CREDIT_REQUEST, 5000, 1024);
	drv.keep_rx = true;
	for (unsigned i = 0; i < 10; i++)
		drv_offer(&drv, i);
	drv_notify(&drv, VSOCK_QUEUE_RX);
	cr_expect(drv_receive_op(&drv) == VSOCK_OP_RESPONSE);
	cr_expect(drv_receive_op(&drv) == -1, "the RESPONSE carried the credit");
}

/* ---- reading into several buffers at once -------------------------------------------------------------------------------------- */

/* A stream of which much waits; its first packets have gone, so that more buffers are taken each time. */
static int open_bulk(uint32_t guest_port)
{
	static char junk[150000];
	const int fd = drv_open(&drv, guest_port);

	cr_assert(write(fd, junk, sizeof(junk)) > 100000);
	return fd;
}

Test(vsock_bounds, small_rx_buffer_among_others_is_given_back_once)
{
	unsigned used[DRV_QUEUE_SIZE] = { 0 };
	struct drv_queue *q = &drv.queues[VSOCK_QUEUE_RX];

	drv_reset(&drv);
	drv_activate(&drv, true);
	drv.keep_rx = true;
	drv_offer(&drv, 0); /* for the response */
	const int fd = open_bulk(5000);
	for (unsigned i = 1; i <= 40; i++) {
		drv.rx_buffer_bytes = i % 5 == 4 ? 10 : DRV_RX_BUFFER;
		drv_offer(&drv, i);
	}
	drv_notify(&drv, VSOCK_QUEUE_RX);
	drv_settle(&drv);
	const uint16_t count = drv_get16(&drv, q->used + 2);
	cr_expect(count == 41, "%u", count);
	for (unsigned i = 0; i < count; i++) {
		le32 id;
		memcpy(&id, drv_ptr(&drv, q->used + 4 + 8u * i), sizeof(id));
		cr_assert(le32_get(id) <= 40);
		cr_expect(used[le32_get(id)]++ == 0, "buffer %u comes back twice", le32_get(id));
	}
	close(fd);
}

Test(vsock_bounds, one_read_fills_several_buffers)
{
	uint32_t bytes = 0;
	unsigned packets = 0;

	drv.buf_alloc = 90000;
	const int fd = open_bulk(5000);
	drv_settle(&drv);
	cr_expect(drv_first(&drv)->batch == VSOCK_RX_BATCH, "while there is more than they hold");
	while (drv_receive(&drv)) {
		bytes += drv.packet.op == VSOCK_OP_RW ? drv.packet.len : 0;
		packets += drv.packet.op == VSOCK_OP_RW;
	}
	cr_expect(bytes > 60000 && packets == (bytes + DRV_RX_BUFFER - 45) / (DRV_RX_BUFFER - 44), "%u in %u", bytes, packets);
	struct drv_packet *credit = drv_packet(&drv, VSOCK_OP_CREDIT_UPDATE, 5000, 1024);
	credit->fwd_cnt = bytes;
	credit->buf_alloc = UINT32_MAX / 2;
	drv_send_packet(&drv, credit);
	cr_expect(drv_first(&drv)->batch == 1, "a read that finds less takes one the next time");
	close(fd);
}

Test(vsock_bounds, several_buffers_never_exceed_credit)
{
	uint32_t bytes = 0;
	unsigned packets = 0;

	drv.buf_alloc = 50000;
	const int fd = open_bulk(5000);
	drv_settle(&drv);
	while (drv_receive(&drv)) {
		bytes += drv.packet.op == VSOCK_OP_RW ? drv.packet.len : 0;
		packets += drv.packet.op == VSOCK_OP_RW;
	}
	cr_expect(bytes > 30000 && bytes + (packets - 1) * 640 <= 50000, "%u in %u", bytes, packets);
	close(fd);
}

/* ---- fairness ---------------------------------------------------------------------------------------------------------------- */

Test(vsock_bounds, connections_take_turns)
{
	enum { COUNT = 8 };
	static char junk[100000];
	unsigned packets[COUNT] = { 0 };
	int fds[COUNT];

	for (unsigned i = 0; i < COUNT; i++)
		fds[i] = drv_open(&drv, 5000 + i);
	drv_reset(&drv);
	drv_activate(&drv, true);
	for (unsigned i = 0; i < COUNT; i++) {
		drv_send(&drv, VSOCK_OP_REQUEST, 5000 + i, 1024);
		cr_assert(write(drv.host, junk, sizeof(junk)) > 40000);
		close(fds[i]);
	}
	drv_settle(&drv);
	for (unsigned i = 0; i < 5 * COUNT; i++)
		drv_offer(&drv, i);
	drv.keep_rx = true;
	drv_notify(&drv, VSOCK_QUEUE_RX);
	drv_settle(&drv);
	while (drv_receive(&drv))
		packets[drv.packet.dst_port - 5000]++;
	for (unsigned i = 0; i < COUNT; i++)
		cr_expect(packets[i] == 5, "connection %u: %u", i, packets[i]);
}

Test(vsock_bounds, a_stuck_host_reader_does_not_stop_the_others)
{
	static uint8_t junk[65536];
	char buffer[16];

	drv_open(&drv, 5000); /* whose program does not read */
	const int other = drv_open(&drv, 5001);
	for (unsigned i = 0; i < 4; i++)
		drv_send_data(&drv, 5000, 1024, junk, i < 3 ? 65536 : 60000);
	drv_send_data(&drv, 5001, 1024, "hello", 5);
	cr_expect(drv_read(other, buffer, sizeof(buffer)) == 5);
}

/* ---- reset ------------------------------------------------------------------------------------------------------------------- */

Test(vsock_bounds, reset_closes_every_connection)
{
	static uint8_t junk[65536];
	char byte;
	const int first = drv_open(&drv, 5000), second = drv_open(&drv, 5001);

	for (unsigned i = 0; i < 4; i++)
		drv_send_data(&drv, 5000, 1024, junk, 60000);
	drv_reset(&drv);
	cr_expect(drv.closed == 2);
	cr_expect(list_empty(&drv.vsock->all) && drv.vsock->conn_count == 0);
	cr_expect(drv_read(second, &byte, 1) == 0);
	close(first);
	drv_activate(&drv, false);
	drv_settle(&drv);
	cr_expect(drv_receive_op(&drv) == -1, "nothing of the earlier life");
	drv_open(&drv, 5000);
}

Test(vsock_bounds, reset_forgets_pending_resets)
{
	drv_reset(&drv);
	drv_activate(&drv, true);
	for (unsigned i = 0; i < 100; i++)
		drv_queue(&drv, drv_packet(&drv, VSOCK_OP_RW, 5000, 77));
	drv_notify(&drv, VSOCK_QUEUE_TX);
	drv_reset(&drv);
	drv_activate(&drv, false);
	drv_settle(&drv);
	cr_expect(drv_receive_op(&drv) == -1);
	drv_open(&drv, 5000);
}

Test(vsock_bounds, reset_of_a_device_that_was_never_active)
{
	struct drv fresh;
	drv_init(&fresh);
	fresh.dev->ops->reset(fresh.dev);
	drv_activate(&fresh, false);
	drv_open(&fresh, 5000);
	drv_destroy(&fresh);
}

Test(vsock_bounds, destroy_with_connections_calls_nobody)
{
	static uint8_t junk[65536];
	struct drv fresh;

	drv_init(&fresh);
	drv_activate(&fresh, false);
	drv_open(&fresh, 5000);
	for (unsigned i = 0; i < 4; i++)
		drv_send_data(&fresh, 5000, 1024, junk, 60000);
	drv_destroy(&fresh);
	cr_expect(fresh.closed == 0);
}

/* ---- services ---------------------------------------------------------------------------------------------------------------- */

Test(vsock_bounds, services_must_not_overlap)
{
	cr_expect(virtio_vsock_listen(drv.vsock, 1024, 1024, accept_null, NULL) == -EEXIST);
	cr_expect(virtio_vsock_listen(drv.vsock, 0, UINT32_MAX, accept_null, NULL) == -EEXIST);
	cr_expect(virtio_vsock_listen(drv.vsock, 5, 4, accept_null, NULL) == -EINVAL);
	for (unsigned i = 0; i < VSOCK_SERVICES_MAX - 1; i++)
		cr_expect(virtio_vsock_listen(drv.vsock, i, i, accept_null, NULL) == 0);
	cr_expect(virtio_vsock_listen(drv.vsock, 100, 100, accept_null, NULL) == -ENOSPC);
}

/* ---- connections that start at the host -------------------------------------------------------------------------------------- */

static int result = 1;
static unsigned done_calls, closed_calls;

static void on_done(void *data, int value)
{
	(void)data;
	result = value;
	done_calls++;
}

static void on_closed(void *data)
{
	(void)data;
	closed_calls++;
}

static int start_connect(uint32_t guest_port)
{
	int pair[2];

	cr_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
	const struct vsock_ends ends = { .read_fd = pair[1], .write_fd = pair[1], .closed = on_closed };
	cr_assert(virtio_vsock_connect(drv.vsock, guest_port, ends, on_done, NULL) == 0);
	return pair[0];
}

Test(vsock_bounds, connect_to_the_guest)
{
	char buffer[16];
	const int fd = start_connect(80);

	cr_assert(write(fd, "early", 5) == 5);
	drv_settle(&drv);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_REQUEST);
	const uint32_t port = drv.packet.src_port;
	cr_expect(port >= VSOCK_EPHEMERAL_FIRST && drv.packet.dst_port == 80 && drv.packet.buf_alloc == 256 << 10);
	cr_expect(drv_receive_op(&drv) == -1, "no data before the guest has accepted");
	cr_expect(done_calls == 0);
	/* The guest answers and sends at once. */
	drv_queue(&drv, drv_packet(&drv, VSOCK_OP_RESPONSE, 80, port));
	drv_send_data(&drv, 80, port, "hello", 5);
	cr_expect(done_calls == 1 && result == 0);
	cr_expect(drv_read(fd, buffer, sizeof(buffer)) == 5);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_RW);
	cr_expect(drv.packet.len == 5 && memcmp(drv.packet.data, "early", 5) == 0);
	close(fd);
}

Test(vsock_bounds, connect_that_the_guest_refuses)
{
	char byte;
	const int fd = start_connect(80);

	cr_assert(drv_receive_op(&drv) == VSOCK_OP_REQUEST);
	drv_send(&drv, VSOCK_OP_RST, 80, drv.packet.src_port);
	cr_expect(done_calls == 1 && result == -ECONNREFUSED);
	cr_expect(closed_calls == 1);
	cr_expect(drv_read(fd, &byte, 1) == 0);
	cr_expect(drv_receive_op(&drv) == -1);
}

Test(vsock_bounds, connect_that_the_guest_does_not_answer)
{
	start_connect(80);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_REQUEST);
	struct vsock_conn *conn = drv_first(&drv);
	/* Ten seconds go by. */
	conn->deadline_ns = vsock_now_ns();
	drv.vsock->timer_deadline_ns = 0;
	cr_assert(vsock_timer_at(drv.vsock, conn->deadline_ns) == 0);
	for (unsigned i = 0; i < 100 && !done_calls; i++)
		loop_round(drv.loop, 10);
	cr_expect(done_calls == 1 && result == -ETIMEDOUT && closed_calls == 1);
	cr_expect(drv_receive_op(&drv) == VSOCK_OP_RST, "a late answer finds nobody");
	cr_expect(list_empty(&drv.vsock->all));
}

Test(vsock_bounds, connect_before_the_driver_is_up_waits_for_it)
{
	drv_reset(&drv);
	start_connect(80);
	drv.dev->ops->reset(drv.dev); /* how a driver's probe begins */
	cr_expect(done_calls == 0);
	drv_activate(&drv, false);
	drv_settle(&drv);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_REQUEST);
	drv_send(&drv, VSOCK_OP_RESPONSE, 80, drv.packet.src_port);
	cr_expect(done_calls == 1 && result == 0);
}

Test(vsock_bounds, connect_under_way_ends_with_a_reset)
{
	start_connect(80);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_REQUEST);
	drv_reset(&drv);
	cr_expect(done_calls == 1 && result == -ECONNRESET && closed_calls == 1);
}

Test(vsock_bounds, data_before_the_response_resets_the_connection)
{
	start_connect(80);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_REQUEST);
	drv_send_data(&drv, 80, drv.packet.src_port, "x", 1);
	cr_expect(drv_receive_op(&drv) == VSOCK_OP_RST);
	cr_expect(done_calls == 1 && result == -ECONNRESET);
}

Test(vsock_bounds, response_to_an_open_connection_resets_it)
{
	drv_open(&drv, 5000);
	drv_send(&drv, VSOCK_OP_RESPONSE, 5000, 1024);
	cr_expect(drv_receive_op(&drv) == VSOCK_OP_RST);
}

Test(vsock_bounds, host_ports_are_not_used_twice)
{
	uint32_t ports[3];

	drv.vsock->next_host_port = UINT32_MAX - 1;
	for (unsigned i = 0; i < 3; i++) {
		start_connect(80);
		cr_assert(drv_receive_op(&drv) == VSOCK_OP_REQUEST);
		ports[i] = drv.packet.src_port;
		if (i == 1)
			drv.vsock->next_host_port = ports[0];
	}
	cr_expect(ports[0] == UINT32_MAX - 1 && ports[1] == VSOCK_EPHEMERAL_FIRST);
	cr_expect(ports[2] == VSOCK_EPHEMERAL_FIRST + 1, "the others are taken: %x", ports[2]);
}

/* A callback may use the device. */
static void connect_again(void *data, int value)
{
	(void)data;
	if (value == -ECONNREFUSED && ++done_calls < 5) {
		const struct vsock_ends none = { .read_fd = -1, .write_fd = -1 };
		virtio_vsock_connect(drv.vsock, 81, none, connect_again, NULL);
	}
}

Test(vsock_bounds, callback_may_connect_again)
{
	const struct vsock_ends none = { .read_fd = -1, .write_fd = -1 };

	cr_assert(virtio_vsock_connect(drv.vsock, 81, none, connect_again, NULL) == 0);
	for (unsigned i = 0; i < 5; i++) {
		cr_assert(drv_receive_op(&drv) == VSOCK_OP_REQUEST);
		drv_send(&drv, VSOCK_OP_RST, 81, drv.packet.src_port);
	}
	cr_expect(done_calls == 5);
	cr_expect(drv_receive_op(&drv) == -1);
}
