/* virtio-vsock: the rules of the protocol, one test for each. */
#include "tests/unit/vsock_driver.h"

#include <criterion/criterion.h>

static struct drv drv;

static int accept_refuse(void *data, uint32_t port, struct vsock_ends *ends)
{
	(void)data;
	(void)port;
	(void)ends;
	return -ECONNREFUSED;
}

static void start(void)
{
	drv_init(&drv);
	cr_assert(virtio_vsock_listen(drv.vsock, 1025, 1025, accept_refuse, NULL) == 0);
	drv_activate(&drv, false);
}

static void stop(void)
{
	cr_expect(drv_settle(&drv), "the device comes to rest");
	drv_destroy(&drv);
}

TestSuite(vsock, .init = start, .fini = stop, .timeout = 60);

static void expect_rst(uint32_t guest_port, uint32_t host_port)
{
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_RST);
	cr_expect(drv.packet.src_cid == VSOCK_HOST_CID && drv.packet.dst_cid == DRV_CID);
	cr_expect(drv.packet.src_port == host_port && drv.packet.dst_port == guest_port);
	cr_expect(drv.packet.type == VSOCK_TYPE_STREAM && drv.packet.len == 0);
	cr_expect(drv_receive_op(&drv) == -1);
}

Test(vsock, request_is_answered_with_response_and_credit)
{
	drv_send(&drv, VSOCK_OP_REQUEST, 5000, 1024);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_RESPONSE);
	cr_expect(drv.packet.buf_alloc == 256 << 10);
	cr_expect(drv.packet.fwd_cnt == 0);
	cr_expect(drv.accepted == 1);
	cr_expect(drv.interrupts > 0);
}

Test(vsock, bytes_go_both_ways)
{
	char buffer[64];
	const int fd = drv_open(&drv, 5000);

	drv_send_data(&drv, 5000, 1024, "hello", 5);
	cr_assert(drv_read(fd, buffer, sizeof(buffer)) == 5);
	cr_assert(memcmp(buffer, "hello", 5) == 0);
	cr_assert(write(fd, "world!", 6) == 6);
	drv_settle(&drv);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_RW);
	cr_expect(drv.packet.len == 6);
	cr_expect(memcmp(drv.packet.data, "world!", 6) == 0);
	cr_expect(drv.packet.fwd_cnt == 5, "every packet carries our credit");
}

/* The guest has one packet of every kind; none of them is RW without bytes. */
Test(vsock, every_packet_of_a_connection_carries_both_credit_fields)
{
	char buffer[8];
	unsigned seen = 0;
	const int fd = drv_open(&drv, 5000);

	drv_send_data(&drv, 5000, 1024, "hello", 5);
	cr_assert(drv_read(fd, buffer, sizeof(buffer)) == 5);
	drv_send(&drv, VSOCK_OP_CREDIT_REQUEST, 5000, 1024);
	cr_assert(write(fd, "x", 1) == 1);
	shutdown(fd, SHUT_WR);
	drv_settle(&drv);
	while (drv_receive(&drv)) {
		seen |= 1u << drv.packet.op;
		cr_expect(drv.packet.fwd_cnt == 5 && drv.packet.buf_alloc == 256 << 10, "operation %u", drv.packet.op);
		cr_expect((drv.packet.op == VSOCK_OP_RW) == (drv.packet.len > 0), "operation %u", drv.packet.op);
	}
	cr_expect(seen == (1u << VSOCK_OP_CREDIT_UPDATE | 1u << VSOCK_OP_RW | 1u << VSOCK_OP_SHUTDOWN), "%#x", seen);
	close(fd);
}

static void wait_a_moment(void)
{
	loop_round(drv.loop, 10);
	drv_settle(&drv);
}

Test(vsock, a_limit_makes_packets_wait_in_both_directions)
{
	char buffer[4096] = "";
	const uint64_t begin = throttle_now_ns();
	const int fd = drv_open(&drv, 5000);
	size_t back = 0;

	/* 20000 bytes at once, and then 20000 a second. */
	virtio_vsock_set_limit(drv.vsock, &(struct throttle_limit){ .bytes_per_s = 20000 });
	for (unsigned i = 0; i < 6; i++)
		drv_send_data(&drv, 5000, 1024, buffer, sizeof(buffer));
	for (unsigned i = 0; i < 6; i++)
		for (size_t got = 0; got < sizeof(buffer);) {
			wait_a_moment();
			const ssize_t n = recv(fd, buffer, sizeof(buffer) - got, MSG_DONTWAIT);
			got += n > 0 ? (size_t)n : 0;
		}
	cr_expect(throttle_now_ns() - begin >= 30000000, "the sixth waits until the first five are paid");
	cr_assert(write(fd, buffer, sizeof(buffer)) == sizeof(buffer));
	while (back < sizeof(buffer)) {
		wait_a_moment();
		while (drv_receive_op(&drv) == VSOCK_OP_RW)
			back += drv.packet.len;
	}
	cr_expect(throttle_now_ns() - begin >= 200000000, "and what follows for that");
	virtio_vsock_set_limit(drv.vsock, &(struct throttle_limit){ .ops_per_s = 0 });
}

Test(vsock, request_to_port_without_service_is_reset)
{
	drv_send(&drv, VSOCK_OP_REQUEST, 5000, 77);
	expect_rst(5000, 77);
}

Test(vsock, request_that_the_service_refuses_is_reset)
{
	drv_send(&drv, VSOCK_OP_REQUEST, 5000, 1025);
	expect_rst(5000, 1025);
}

Test(vsock, unknown_tuple_is_reset)
{
	drv_send(&drv, VSOCK_OP_RW, 5000, 1024);
	expect_rst(5000, 1024);
	drv_send(&drv, VSOCK_OP_SHUTDOWN, 5000, 1024);
	expect_rst(5000, 1024);
	drv_send(&drv, VSOCK_OP_RESPONSE, 5000, 1024);
	expect_rst(5000, 1024);
	drv_send(&drv, VSOCK_OP_CREDIT_REQUEST, 5000, 1024);
	expect_rst(5000, 1024);
}

Test(vsock, unknown_operation_resets_the_connection)
{
	char byte;
	const int fd = drv_open(&drv, 5000);

	drv_send(&drv, 99, 5000, 1024);
	expect_rst(5000, 1024);
	cr_expect(drv_read(fd, &byte, 1) == 0);
	cr_expect(drv.closed == 1);
}

Test(vsock, unknown_operation_without_connection_is_reset)
{
	drv_send(&drv, 99, 5000, 1024);
	expect_rst(5000, 1024);
	drv_send(&drv, VSOCK_OP_INVALID, 5000, 1024);
	expect_rst(5000, 1024);
}

Test(vsock, unknown_type_is_reset)
{
	struct drv_packet *packet = drv_packet(&drv, VSOCK_OP_REQUEST, 5000, 1024);
	packet->type = 7;
	drv_send_packet(&drv, packet);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_RST);
	cr_expect(drv.packet.type == 7);
	cr_expect(drv.accepted == 0);
}

Test(vsock, wrong_dst_cid_is_reset)
{
	struct drv_packet *packet = drv_packet(&drv, VSOCK_OP_REQUEST, 5000, 1024);
	packet->dst_cid = 42;
	drv_send_packet(&drv, packet);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_RST);
	cr_expect(drv.packet.src_cid == 42 && drv.packet.dst_cid == DRV_CID);
	cr_expect(drv.accepted == 0);
}

Test(vsock, wrong_dst_cid_does_not_reach_a_connection)
{
	char byte;
	const int fd = drv_open(&drv, 5000);
	struct drv_packet *packet = drv_packet(&drv, VSOCK_OP_RST, 5000, 1024);
	packet->dst_cid = (1ull << 32) + VSOCK_HOST_CID; /* the upper half counts */
	drv_send_packet(&drv, packet);
	cr_expect(drv_receive_op(&drv) == -1);
	cr_expect(drv_read(fd, &byte, 1) == -EAGAIN);
}

Test(vsock, src_cid_that_is_not_the_guests_is_reset)
{
	struct drv_packet *packet = drv_packet(&drv, VSOCK_OP_REQUEST, 5000, 1024);
	packet->src_cid = 42;
	drv_send_packet(&drv, packet);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_RST);
	cr_expect(drv.packet.dst_cid == 42, "where it claims to come from");
	cr_expect(drv.accepted == 0);
}

Test(vsock, rst_is_never_answered)
{
	struct drv_packet *packet = drv_packet(&drv, VSOCK_OP_RST, 5000, 1024);
	drv_send_packet(&drv, packet);
	packet->dst_cid = 42;
	drv_send_packet(&drv, packet);
	packet->type = 9;
	drv_send_packet(&drv, packet);
	cr_expect(drv_receive_op(&drv) == -1);
	drv_open(&drv, 5000);
	drv_send(&drv, VSOCK_OP_RST, 5000, 1024);
	cr_expect(drv_receive_op(&drv) == -1);
	cr_expect(drv.closed == 1);
}

Test(vsock, second_request_on_a_connection_resets_it)
{
	drv_open(&drv, 5000);
	drv_send(&drv, VSOCK_OP_REQUEST, 5000, 1024);
	expect_rst(5000, 1024);
	cr_expect(drv.closed == 1);
}

Test(vsock, header_split_at_every_byte)
{
	char buffer[16];
	const int fd = drv_open(&drv, 5000);

	for (uint32_t cut = 1; cut < 48; cut++) {
		struct drv_packet *packet = drv_packet(&drv, VSOCK_OP_RW, 5000, 1024);
		packet->len = 5;
		memcpy(packet->data, "split", 5);
		drv_queue_split(&drv, packet, 5, &cut, 1);
		drv_notify(&drv, VSOCK_QUEUE_TX);
		cr_assert(drv_read(fd, buffer, sizeof(buffer)) == 5, "cut at %u", cut);
		cr_assert(memcmp(buffer, "split", 5) == 0);
	}
}

Test(vsock, header_and_payload_of_single_bytes)
{
	char buffer[16];
	uint32_t cuts[48];
	const int fd = drv_open(&drv, 5000);
	struct drv_packet *packet = drv_packet(&drv, VSOCK_OP_RW, 5000, 1024);

	packet->len = 5;
	memcpy(packet->data, "split", 5);
	for (uint32_t i = 0; i < 48; i++)
		cuts[i] = i + 1;
	drv_queue_split(&drv, packet, 5, cuts, 48);
	drv_notify(&drv, VSOCK_QUEUE_TX);
	cr_assert(drv_read(fd, buffer, sizeof(buffer)) == 5);
	cr_assert(memcmp(buffer, "split", 5) == 0);
}

Test(vsock, chain_shorter_than_a_header_is_dropped)
{
	struct drv_queue *q = &drv.queues[VSOCK_QUEUE_TX];

	drv_put_desc(&drv, VSOCK_QUEUE_TX, 0, drv.tx_area, 43, 0, 0);
	drv_publish(&drv, VSOCK_QUEUE_TX, 0);
	drv_notify(&drv, VSOCK_QUEUE_TX);
	cr_expect(drv_get16(&drv, q->used + 2) == 1, "and given back");
	cr_expect(drv_receive_op(&drv) == -1);
	cr_expect(drv.dev->active);
}

Test(vsock, length_beyond_the_chain_resets_the_connection)
{
	char byte;
	const int fd = drv_open(&drv, 5000);
	struct drv_packet *packet = drv_packet(&drv, VSOCK_OP_RW, 5000, 1024);

	packet->len = 6;
	drv_queue_split(&drv, packet, 5, NULL, 0);
	drv_notify(&drv, VSOCK_QUEUE_TX);
	expect_rst(5000, 1024);
	cr_expect(drv_read(fd, &byte, 1) == 0);
	drv_open(&drv, 5000);
	packet = drv_packet(&drv, VSOCK_OP_RW, 5000, 1024);
	packet->len = UINT32_MAX;
	drv_queue_split(&drv, packet, 5, NULL, 0);
	drv_notify(&drv, VSOCK_QUEUE_TX);
	expect_rst(5000, 1024);
}

Test(vsock, bytes_of_the_chain_behind_length_are_ignored)
{
	char buffer[16];
	const int fd = drv_open(&drv, 5000);
	struct drv_packet *packet = drv_packet(&drv, VSOCK_OP_RW, 5000, 1024);

	packet->len = 3;
	memcpy(packet->data, "abcdef", 6);
	drv_queue_split(&drv, packet, 6, NULL, 0);
	drv_notify(&drv, VSOCK_QUEUE_TX);
	cr_assert(drv_read(fd, buffer, sizeof(buffer)) == 3);
	cr_expect(memcmp(buffer, "abc", 3) == 0);
}

Test(vsock, malformed_tx_queue_stops_the_device)
{
	drv_put_desc(&drv, VSOCK_QUEUE_TX, 0, 0, 44, 0, 0); /* outside RAM */
	drv_publish(&drv, VSOCK_QUEUE_TX, 0);
	drv_notify(&drv, VSOCK_QUEUE_TX);
	cr_expect(!drv.dev->active);
}

Test(vsock, malformed_rx_queue_stops_the_device)
{
	drv_reset(&drv);
	drv_activate(&drv, true);
	drv_put_desc(&drv, VSOCK_QUEUE_RX, 0, 0, 4096, 2, 0);
	drv_publish(&drv, VSOCK_QUEUE_RX, 0);
	drv_send(&drv, VSOCK_OP_REQUEST, 5000, 1024);
	cr_expect(!drv.dev->active);
	drv_reset(&drv);
	drv_activate(&drv, false);
	drv_open(&drv, 5000);
}

Test(vsock, rx_buffer_without_room_for_payload_is_given_back_unused)
{
	drv_reset(&drv);
	drv_activate(&drv, true);
	drv.rx_buffer_bytes = 44;
	drv_offer(&drv, 0);
	drv.rx_buffer_bytes = 10;
	drv_offer(&drv, 1);
	drv.rx_buffer_bytes = DRV_RX_BUFFER;
	drv_offer(&drv, 2);
	drv_send(&drv, VSOCK_OP_REQUEST, 5000, 1024);
	drv.keep_rx = true;
	cr_expect(drv_receive_op(&drv) == VSOCK_OP_INVALID);
	cr_expect(drv_receive_op(&drv) == VSOCK_OP_INVALID);
	cr_expect(drv_receive_op(&drv) == VSOCK_OP_RESPONSE);
}

/* ---- credit (5.10.6.3) ------------------------------------------------------------------------------------------------------- */

/* Fills the socket between the device and the host program until the device has to keep bytes. Returns what was sent. */
static uint32_t stuff(uint32_t guest_port, uint32_t at_least)
{
	static uint8_t junk[4096];
	uint32_t sent = 0;

	while (sent < at_least) {
		drv_send_data(&drv, guest_port, 1024, junk, sizeof(junk));
		sent += (uint32_t)sizeof(junk);
	}
	return sent;
}

static void shrink_host_buffer(int fd)
{
	const int bytes = 4096;
	struct vsock_conn *conn = drv_first(&drv);

	cr_assert(setsockopt(conn->out.source.fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes)) == 0);
	(void)fd;
}

Test(vsock, fwd_cnt_counts_only_what_the_host_took)
{
	const int fd = drv_open(&drv, 5000);
	static char buffer[1 << 20];

	shrink_host_buffer(fd);
	const uint32_t sent = stuff(5000, 128 << 10);
	drv_send(&drv, VSOCK_OP_CREDIT_REQUEST, 5000, 1024);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_CREDIT_UPDATE);
	const uint32_t taken = drv.packet.fwd_cnt;
	cr_expect(taken > 0 && taken < sent, "%u of %u", taken, sent);
	uint32_t got = 0;
	for (ssize_t n; (n = drv_read(fd, buffer, sizeof(buffer))) > 0;) {
		got += (uint32_t)n;
		drv_settle(&drv);
	}
	cr_expect(got == sent, "nothing is lost: %u of %u", got, sent);
	uint32_t last = 0;
	while (drv_receive_op(&drv) == VSOCK_OP_CREDIT_UPDATE)
		last = drv.packet.fwd_cnt;
	cr_expect(last >= sent - (128 << 10), "told without being asked");
	drv_send(&drv, VSOCK_OP_CREDIT_REQUEST, 5000, 1024);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_CREDIT_UPDATE);
	cr_expect(drv.packet.fwd_cnt == sent);
}

Test(vsock, credit_request_is_answered)
{
	drv_open(&drv, 5000);
	drv_send(&drv, VSOCK_OP_CREDIT_REQUEST, 5000, 1024);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_CREDIT_UPDATE);
	cr_expect(drv.packet.buf_alloc == 256 << 10);
	cr_expect(drv_receive_op(&drv) == -1);
}

Test(vsock, guest_that_exceeds_its_credit_is_reset)
{
	static uint8_t junk[65536];
	const int fd = drv_open(&drv, 5000);

	shrink_host_buffer(fd);
	for (unsigned i = 0; i < 8; i++)
		drv_send_data(&drv, 5000, 1024, junk, sizeof(junk));
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_RST);
	cr_expect(drv.closed == 1);
}

Test(vsock, one_packet_beyond_the_credit_is_reset)
{
	/* A packet may be as long as a chain; only credit bounds it. */
	struct vsock_conn *conn;
	drv_open(&drv, 5000);
	conn = drv_first(&drv);
	conn->buf_alloc = 1000;
	struct drv_packet *packet = drv_packet(&drv, VSOCK_OP_RW, 5000, 1024);
	packet->len = 1001;
	drv_send_packet(&drv, packet);
	expect_rst(5000, 1024);
}

/* What the guest may have in flight is the smaller of both buffers: the update comes before that is used up. */
Test(vsock, update_comes_in_time_for_a_guest_that_caps_credit_to_its_own_buffer)
{
	static uint8_t junk[4096];
	static char buffer[65536];
	const int fd = drv_open(&drv, 5000);
	uint32_t sent = 0, fwd_cnt = 0;

	drv.buf_alloc = 8192;
	for (unsigned i = 0; i < 64; i++) {
		cr_assert(sent - fwd_cnt <= 4096, "the guest would wait for ever after %u bytes", sent);
		drv_send_data(&drv, 5000, 1024, junk, sizeof(junk));
		sent += (uint32_t)sizeof(junk);
		while (drv_read(fd, buffer, sizeof(buffer)) > 0)
			;
		while (drv_receive(&drv))
			fwd_cnt = drv.packet.fwd_cnt;
	}
}

Test(vsock, data_stops_at_the_guests_credit)
{
	static char junk[32768];
	const int fd = drv_open(&drv, 5000);
	uint32_t got = 0;

	drv.buf_alloc = 10000;
	drv_send(&drv, VSOCK_OP_CREDIT_UPDATE, 5000, 1024);
	cr_assert(write(fd, junk, sizeof(junk)) == sizeof(junk));
	drv_settle(&drv);
	while (drv_receive(&drv)) {
		if (drv.packet.op != VSOCK_OP_RW)
			continue;
		cr_expect(drv.packet.len > 0, "a RW packet is never empty");
		got += drv.packet.len;
	}
	cr_expect(got > 0 && got <= 10000, "%u", got);
	drv_settle(&drv);
	cr_expect(!drv_receive(&drv));
	/* The guest has read all of it. */
	struct drv_packet *packet = drv_packet(&drv, VSOCK_OP_CREDIT_UPDATE, 5000, 1024);
	packet->fwd_cnt = got;
	drv_send_packet(&drv, packet);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_RW);
}

Test(vsock, a_guest_with_no_credit_gets_nothing)
{
	const int fd = drv_open(&drv, 5000);

	drv.buf_alloc = 0;
	drv_send(&drv, VSOCK_OP_CREDIT_UPDATE, 5000, 1024);
	cr_assert(write(fd, "x", 1) == 1);
	cr_assert(drv_settle(&drv));
	cr_expect(drv_receive_op(&drv) == -1);
	drv.buf_alloc = 1;
	drv_send(&drv, VSOCK_OP_CREDIT_UPDATE, 5000, 1024);
	cr_expect(drv_receive_op(&drv) == VSOCK_OP_RW);
}

Test(vsock, fwd_cnt_ahead_of_what_was_sent_gives_no_space)
{
	const int fd = drv_open(&drv, 5000);
	struct drv_packet *packet = drv_packet(&drv, VSOCK_OP_CREDIT_UPDATE, 5000, 1024);

	packet->fwd_cnt = 1;
	drv_send_packet(&drv, packet);
	cr_assert(write(fd, "x", 1) == 1);
	cr_assert(drv_settle(&drv));
	cr_expect(drv_receive_op(&drv) == -1);
}

/* Linux from 6.12.92 on resets a connection when the buffers of its packets exceed buf_alloc: 576 bytes each, and their payload. */
Test(vsock, small_packets_in_flight_are_bounded)
{
	const int fd = drv_open(&drv, 5000);
	uint64_t cost = 576;
	uint32_t bytes = 0;

	for (unsigned i = 0; i < 600; i++) {
		cr_assert(write(fd, "x", 1) == 1);
		drv_settle(&drv);
		while (drv_receive(&drv)) {
			if (drv.packet.op != VSOCK_OP_RW)
				continue;
			cost += 576 + drv.packet.len;
			bytes += drv.packet.len;
		}
	}
	cr_expect(cost <= drv.buf_alloc, "%lu", (unsigned long)cost);
	cr_expect(bytes >= 300 && bytes < 600);
	/* What waited comes in one packet when the guest has read. */
	struct drv_packet *packet = drv_packet(&drv, VSOCK_OP_CREDIT_UPDATE, 5000, 1024);
	packet->fwd_cnt = bytes;
	drv_send_packet(&drv, packet);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_RW);
	cr_expect(drv.packet.len == 600 - bytes);
}

/* An older Linux does not report that it has read a few small packets: it is asked. */
Test(vsock, guest_is_asked_for_credit_when_too_many_packets_are_in_flight)
{
	const int fd = drv_open(&drv, 5000);
	unsigned asked = 0;

	for (unsigned i = 0; i < 600; i++) {
		cr_assert(write(fd, "x", 1) == 1);
		drv_settle(&drv);
		while (drv_receive(&drv))
			asked += drv.packet.op == VSOCK_OP_CREDIT_REQUEST;
	}
	cr_expect(asked == 1 || asked == 2, "%u", asked);
	for (unsigned i = 0; i < 50; i++)
		loop_round(drv.loop, 2);
	asked = 0;
	while (drv_receive(&drv))
		asked += drv.packet.op == VSOCK_OP_CREDIT_REQUEST;
	cr_expect(asked >= 1 && asked <= 5, "less and less often: %u", asked);
}

Test(vsock, small_remaining_credit_is_not_used_for_tiny_packets)
{
	static char junk[200000];
	const int fd = drv_open(&drv, 5000);
	uint32_t got = 0;

	drv.buf_alloc = 65536;
	drv_send(&drv, VSOCK_OP_CREDIT_UPDATE, 5000, 1024);
	for (uint32_t left = sizeof(junk); left;) {
		const ssize_t n = write(fd, junk, left);
		if (n > 0)
			left -= (uint32_t)n;
		drv_settle(&drv);
		unsigned packets = 0, small = 0;
		while (drv_receive(&drv)) {
			if (drv.packet.op != VSOCK_OP_RW)
				continue;
			packets++;
			small += drv.packet.len < 1024;
			got += drv.packet.len;
		}
		cr_assert(packets && small <= 1, "%u of %u", small, packets);
		struct drv_packet *packet = drv_packet(&drv, VSOCK_OP_CREDIT_UPDATE, 5000, 1024);
		packet->fwd_cnt = got - 700; /* the guest reads, but never quite all */
		drv_send_packet(&drv, packet);
	}
}

/* ---- the end of connections (5.10.6.5) --------------------------------------------------------------------------------------- */

static void guest_shutdown(uint32_t guest_port, uint32_t flags)
{
	struct drv_packet *packet = drv_packet(&drv, VSOCK_OP_SHUTDOWN, guest_port, 1024);
	packet->flags = flags;
	drv_send_packet(&drv, packet);
}

Test(vsock, guest_half_close_leaves_the_other_half_open)
{
	char buffer[16];
	const int fd = drv_open(&drv, 5000);

	drv_send_data(&drv, 5000, 1024, "last", 4);
	guest_shutdown(5000, VSOCK_SHUTDOWN_SEND);
	cr_expect(drv_read(fd, buffer, sizeof(buffer)) == 4);
	cr_expect(drv_read(fd, buffer, sizeof(buffer)) == 0, "EOF");
	cr_assert(write(fd, "answer", 6) == 6);
	drv_settle(&drv);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_RW);
	cr_expect(drv.packet.len == 6);
	close(fd);
	drv_settle(&drv);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_SHUTDOWN);
	cr_expect(drv.packet.flags & VSOCK_SHUTDOWN_SEND);
	guest_shutdown(5000, VSOCK_SHUTDOWN_BOTH);
	expect_rst(5000, 1024);
	cr_expect(drv.closed == 1);
}

Test(vsock, host_half_close_leaves_the_other_half_open)
{
	char buffer[16];
	const int fd = drv_open(&drv, 5000);

	cr_assert(write(fd, "last", 4) == 4);
	cr_assert(shutdown(fd, SHUT_WR) == 0);
	drv_settle(&drv);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_RW);
	cr_expect(drv.packet.len == 4);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_SHUTDOWN);
	cr_expect(drv.packet.flags == VSOCK_SHUTDOWN_SEND);
	drv_send_data(&drv, 5000, 1024, "answer", 6);
	cr_expect(drv_read(fd, buffer, sizeof(buffer)) == 6);
	guest_shutdown(5000, VSOCK_SHUTDOWN_BOTH);
	expect_rst(5000, 1024);
	cr_expect(drv_read(fd, buffer, sizeof(buffer)) == 0);
}

Test(vsock, guest_that_receives_no_more_stops_the_host_writer)
{
	const int fd = drv_open(&drv, 5000);

	guest_shutdown(5000, VSOCK_SHUTDOWN_RCV);
	cr_expect(write(fd, "x", 1) == -1 && errno == EPIPE);
	drv_send_data(&drv, 5000, 1024, "still", 5);
	char buffer[16];
	cr_expect(drv_read(fd, buffer, sizeof(buffer)) == 5);
}

Test(vsock, full_shutdown_delivers_what_waits_and_then_resets)
{
	static char buffer[1 << 20];
	const int fd = drv_open(&drv, 5000);

	shrink_host_buffer(fd);
	const uint32_t sent = stuff(5000, 128 << 10);
	guest_shutdown(5000, VSOCK_SHUTDOWN_BOTH);
	cr_expect(drv_receive_op(&drv) == -1, "no RST while bytes wait");
	uint32_t got = 0;
	ssize_t n;
	while ((n = drv_read(fd, buffer, sizeof(buffer))) > 0) {
		got += (uint32_t)n;
		drv_settle(&drv);
	}
	cr_expect(got == sent && n == 0);
	expect_rst(5000, 1024);
	cr_expect(drv.closed == 1);
}

/* Linux gives a close 8 s, then it sends RST. What it has sent before is delivered none the less, and the port can be used
 * again. */
Test(vsock, rst_of_the_guest_loses_nothing_that_it_sent)
{
	static char buffer[1 << 20];
	const int fd = drv_open(&drv, 5000);

	shrink_host_buffer(fd);
	const uint32_t sent = stuff(5000, 128 << 10);
	guest_shutdown(5000, VSOCK_SHUTDOWN_BOTH);
	drv_send(&drv, VSOCK_OP_RST, 5000, 1024);
	cr_expect(drv.closed == 0);
	const int second = drv_open(&drv, 5000);
	uint32_t got = 0;
	ssize_t n;
	while ((n = drv_read(fd, buffer, sizeof(buffer))) > 0) {
		got += (uint32_t)n;
		drv_settle(&drv);
	}
	cr_expect(got == sent && n == 0);
	cr_expect(drv.closed == 1);
	cr_expect(drv_receive_op(&drv) == -1, "the guest hears nothing of a connection it has forgotten");
	drv_send_data(&drv, 5000, 1024, "new", 3);
	cr_expect(drv_read(second, buffer, sizeof(buffer)) == 3);
}

Test(vsock, data_after_shutdown_resets_the_connection)
{
	drv_open(&drv, 5000);
	guest_shutdown(5000, VSOCK_SHUTDOWN_SEND);
	drv_send_data(&drv, 5000, 1024, "x", 1);
	expect_rst(5000, 1024);
}

Test(vsock, host_that_is_gone_stops_the_guests_writer)
{
	const int fd = drv_open(&drv, 5000);

	close(fd);
	drv_settle(&drv);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_SHUTDOWN);
	cr_expect(drv.packet.flags == VSOCK_SHUTDOWN_BOTH);
	cr_expect(drv_receive_op(&drv) == -1);
	/* Bytes that were on their way are dropped without complaint; they still count as taken. */
	drv_send_data(&drv, 5000, 1024, "late", 4);
	drv_send(&drv, VSOCK_OP_CREDIT_REQUEST, 5000, 1024);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_CREDIT_UPDATE);
	cr_expect(drv.packet.fwd_cnt == 4);
	cr_expect(drv.closed == 1);
	drv_send(&drv, VSOCK_OP_RST, 5000, 1024);
	cr_expect(list_empty(&drv.vsock->all));
}

/* A Unix socket that is closed with unread bytes is reset, as TCP has it; so is the guest's end. */
Test(vsock, host_that_breaks_off_with_bytes_unread_resets_the_connection)
{
	const int fd = drv_open(&drv, 5000);

	shrink_host_buffer(fd);
	stuff(5000, 128 << 10);
	close(fd);
	cr_assert(drv_settle(&drv));
	expect_rst(5000, 1024);
	cr_expect(drv.closed == 1);
}

Test(vsock, bytes_of_a_host_that_is_gone_are_still_delivered)
{
	const int fd = drv_open(&drv, 5000);

	cr_assert(write(fd, "bye", 3) == 3);
	close(fd);
	drv_settle(&drv);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_RW);
	cr_expect(drv.packet.len == 3);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_SHUTDOWN);
	cr_expect(drv.packet.flags == VSOCK_SHUTDOWN_BOTH);
}

/* What a Unix socket cannot say is told beside it. */
Test(vsock, reset_of_the_host_is_no_end)
{
	int fd = drv_open(&drv, 5000);

	cr_assert(write(fd, "bytes", 5) == 5);
	drv.host_reset = true;
	close(fd);
	drv_settle(&drv);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_RW, "what it had sent comes first");
	expect_rst(5000, 1024);

	/* Found out by writing. */
	drv.host_reset = false;
	fd = drv_open(&drv, 5001);
	close(fd);
	drv.host_reset = true;
	drv_queue(&drv, drv_packet(&drv, VSOCK_OP_CREDIT_REQUEST, 5001, 1024));
	struct drv_packet *packet = drv_packet(&drv, VSOCK_OP_RW, 5001, 1024);
	packet->len = 1;
	drv_queue(&drv, packet);
	drv_notify(&drv, VSOCK_QUEUE_TX);
	drv_settle(&drv);
	expect_rst(5001, 1024);
	cr_expect(drv.closed == 2);
}

Test(vsock, reset_of_the_guest_is_told_before_the_end)
{
	char buffer[16];
	int fd = drv_open(&drv, 5000);

	drv_send_data(&drv, 5000, 1024, "bytes", 5);
	drv_send(&drv, VSOCK_OP_RST, 5000, 1024);
	cr_expect(drv.guest_reset);
	cr_expect(drv_read(fd, buffer, sizeof(buffer)) == 5 && drv_read(fd, buffer, sizeof(buffer)) == 0);
	close(fd);

	drv.guest_reset = false;
	fd = drv_open(&drv, 5001);
	guest_shutdown(5001, VSOCK_SHUTDOWN_BOTH);
	cr_expect(drv.guest_reset, "close() without shutdown() before");
	expect_rst(5001, 1024);
	close(fd);

	drv.guest_reset = false;
	fd = drv_open(&drv, 5002);
	guest_shutdown(5002, VSOCK_SHUTDOWN_SEND);
	guest_shutdown(5002, VSOCK_SHUTDOWN_BOTH);
	cr_expect(!drv.guest_reset, "the end of its bytes was said");
	expect_rst(5002, 1024);
	close(fd);
}

Test(vsock, after_full_shutdown_the_port_can_be_used_again)
{
	for (unsigned i = 0; i < 10; i++) {
		const int fd = drv_open(&drv, 5000);
		guest_shutdown(5000, VSOCK_SHUTDOWN_BOTH);
		expect_rst(5000, 1024);
		close(fd);
	}
	cr_expect(drv.closed == 10);
}
