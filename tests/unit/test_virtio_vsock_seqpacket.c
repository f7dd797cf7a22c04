/* virtio-vsock: messages (virtio 1.2, 5.10.6.6.1), and the Unix sockets of type SOCK_SEQPACKET that they meet. */
#include "tests/unit/vsock_driver.h"

#include <criterion/criterion.h>
#include <sys/stat.h>
#include <sys/un.h>

#define PORT 2000u
#define GUEST_PORT 5000u

static struct drv drv;
static char folder[64], path[80];
static int listener = -1;

static int unix_socket(int type, const char *suffix, bool listens)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const int fd = socket(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s%s", path, suffix);
	if (listens)
		cr_assert(bind(fd, (struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 10) == 0);
	else
		cr_assert(connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0);
	return fd;
}

static void start(void)
{
	struct error err = { .text = "" };

	drv_init(&drv);
	cr_assert(drv.dev->device_features == 0, "nothing to offer without a Unix socket");
	strcpy(folder, "/tmp/vsock-test-XXXXXX");
	cr_assert(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/v", folder);
	cr_assert(virtio_vsock_serve_unix(drv.vsock, path, &err) == 0, "%s", err.text);
	cr_assert(drv.dev->device_features == VSOCK_FEATURE_SEQPACKET);
	listener = unix_socket(SOCK_SEQPACKET, "_2000", true);
	drv_activate(&drv, false);
	drv.type = VSOCK_TYPE_SEQPACKET;
}

static void stop(void)
{
	char name[100];

	cr_expect(drv_settle(&drv), "the device comes to rest");
	drv_destroy(&drv);
	close(listener);
	snprintf(name, sizeof(name), "%s_2000", path);
	unlink(name);
	cr_expect(rmdir(folder) == 0, "both sockets are removed");
}

TestSuite(vsock_seqpacket, .init = start, .fini = stop, .timeout = 60);

/* A connection of the guest to the program at PATH_2000. Returns the program's descriptor. */
static int open_message_connection(void)
{
	drv_send(&drv, VSOCK_OP_REQUEST, GUEST_PORT, PORT);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_RESPONSE);
	cr_assert(drv.packet.type == VSOCK_TYPE_SEQPACKET);
	const int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	cr_assert(fd >= 0);
	return fd;
}

static void send_part(const void *data, uint32_t length, uint32_t flags)
{
	struct drv_packet *packet = drv_packet(&drv, VSOCK_OP_RW, GUEST_PORT, PORT);
	packet->len = length;
	packet->flags = flags;
	memcpy(packet->data, data, length);
	drv_send_packet(&drv, packet);
}

static void send_message(const char *text)
{
	send_part(text, (uint32_t)strlen(text), VSOCK_SEQ_EOM);
}

static void expect_message(int fd, const char *text)
{
	char buffer[100] = "";
	const ssize_t n = drv_read(fd, buffer, sizeof(buffer) - 1);
	cr_expect(n == (ssize_t)strlen(text) && strcmp(buffer, text) == 0, "%zd '%s', not '%s'", n, buffer, text);
}

/* ---- who meets whom ---------------------------------------------------------------------------------------------------------- */

Test(vsock_seqpacket, type_that_was_not_negotiated_is_reset)
{
	drv.dev->driver_features = 0;
	drv_send(&drv, VSOCK_OP_REQUEST, GUEST_PORT, PORT);
	cr_expect(drv_receive_op(&drv) == VSOCK_OP_RST);
	cr_expect(drv.packet.type == VSOCK_TYPE_SEQPACKET);
}

Test(vsock_seqpacket, services_are_streams)
{
	drv_send(&drv, VSOCK_OP_REQUEST, GUEST_PORT, 1024);
	cr_expect(drv_receive_op(&drv) == VSOCK_OP_RST);
	cr_expect(drv.accepted == 0, "the service is not asked");
}

Test(vsock_seqpacket, listeners_of_the_other_type_are_not_met)
{
	drv.type = VSOCK_TYPE_STREAM;
	drv_send(&drv, VSOCK_OP_REQUEST, GUEST_PORT, PORT);
	cr_expect(drv_receive_op(&drv) == VSOCK_OP_RST);
	const int stream = unix_socket(SOCK_STREAM, "_7", true);
	drv.type = VSOCK_TYPE_SEQPACKET;
	drv_send(&drv, VSOCK_OP_REQUEST, GUEST_PORT, 7);
	cr_expect(drv_receive_op(&drv) == VSOCK_OP_RST);
	char name[100];
	snprintf(name, sizeof(name), "%s_7", path);
	unlink(name);
	close(stream);
}

Test(vsock_seqpacket, packet_of_the_other_type_is_reset_and_harms_no_connection)
{
	const int fd = open_message_connection();

	drv.type = VSOCK_TYPE_STREAM;
	send_part("stream", 6, 0);
	cr_expect(drv_receive_op(&drv) == VSOCK_OP_RST);
	cr_expect(drv.packet.type == VSOCK_TYPE_STREAM);
	drv.type = VSOCK_TYPE_SEQPACKET;
	send_message("message");
	expect_message(fd, "message");
	close(fd);
}

Test(vsock_seqpacket, program_connects_to_the_guest)
{
	static const char *const lines[] = { "CONNECT 52\n", "connect 52" };

	for (unsigned i = 0; i < 2; i++) {
		char expected[32];
		const int fd = unix_socket(SOCK_SEQPACKET, ".seqpacket", false);
		cr_assert(write(fd, lines[i], strlen(lines[i])) > 0 && write(fd, "early", 5) == 5);
		drv_settle(&drv);
		cr_assert(drv_receive_op(&drv) == VSOCK_OP_REQUEST);
		cr_expect(drv.packet.type == VSOCK_TYPE_SEQPACKET && drv.packet.dst_port == 52);
		const uint32_t port = drv.packet.src_port;
		drv_send(&drv, VSOCK_OP_RESPONSE, 52, port);
		cr_assert(drv_receive_op(&drv) == VSOCK_OP_RW);
		cr_expect(drv.packet.len == 5 && drv.packet.flags == VSOCK_SEQ_EOM && drv.packet.type == VSOCK_TYPE_SEQPACKET);
		snprintf(expected, sizeof(expected), "OK %u\n", port);
		expect_message(fd, expected);
		close(fd);
		drv_settle(&drv);
		while (drv_receive(&drv))
			;
	}
}

Test(vsock_seqpacket, wrong_first_messages_are_refused)
{
	static const char *const lines[] = { "", "HELLO", "CONNECT", "CONNECT 52 and far more than a line may have" };

	for (unsigned i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		char byte;
		const int fd = unix_socket(SOCK_SEQPACKET, ".seqpacket", false);
		cr_assert(write(fd, lines[i], strlen(lines[i])) == (ssize_t)strlen(lines[i]));
		drv_settle(&drv);
		cr_expect(drv_read(fd, &byte, 1) == 0, "'%s'", lines[i]);
		cr_expect(drv_receive_op(&drv) == -1);
		close(fd);
	}
}

/* ---- guest to host ----------------------------------------------------------------------------------------------------------- */

Test(vsock_seqpacket, messages_keep_their_bounds)
{
	const int fd = open_message_connection();

	send_message("one");
	send_message("two");
	expect_message(fd, "one");
	expect_message(fd, "two");
	close(fd);
}

Test(vsock_seqpacket, message_in_several_packets_is_one)
{
	const int fd = open_message_connection();

	send_part("al", 2, 0);
	send_part("pha", 3, 0);
	cr_expect(drv_read(fd, &(char){ 0 }, 1) == -EAGAIN, "nothing of it comes before its end");
	send_part("bet", 3, VSOCK_SEQ_EOM);
	expect_message(fd, "alphabet");
	send_part("ga", 2, 0);
	send_part("", 0, VSOCK_SEQ_EOM);
	expect_message(fd, "ga");
	close(fd);
}

Test(vsock_seqpacket, empty_messages_are_dropped)
{
	const int fd = open_message_connection();
	char byte;

	send_part("", 0, VSOCK_SEQ_EOM);
	cr_expect(drv_read(fd, &byte, 1) == -EAGAIN, "an empty message would look like the end");
	send_message("more");
	expect_message(fd, "more");
	close(fd);
}

/* Lengths that meet the ring's end at every distance; each message tells its number and length. */
Test(vsock_seqpacket, backlog_keeps_bounds)
{
	enum { MESSAGES = 2000 };
	static uint8_t data[20000], got[20000];
	const int fd = open_message_connection();
	const struct vsock_conn *conn = drv_first(&drv);
	unsigned sent = 0, received = 0, kept = 0;

	while (received < MESSAGES) {
		for (uint32_t length; sent < MESSAGES; sent++) {
			length = 1 + sent * 7919 % 17001;
			if (conn->buf_alloc - (conn->rx_cnt - conn->fwd_cnt) < length)
				break;
			memset(data, (int)sent, length);
			const uint32_t first = length / 2;
			if (first)
				send_part(data, first, 0);
			send_part(data, length - first, VSOCK_SEQ_EOM);
		}
		kept += conn->backlog_bytes > 0;
		const unsigned before = received;
		for (unsigned i = 0; i < 5; i++) {
			const ssize_t n = drv_read(fd, got, sizeof(got));
			if (n == -EAGAIN)
				break;
			const uint32_t length = 1 + received * 7919 % 17001;
			cr_assert(n == length, "message %u: %zd, not %u", received, n, length);
			cr_assert(got[0] == (uint8_t)received && got[length - 1] == (uint8_t)received);
			received++;
		}
		drv_settle(&drv);
		while (drv_receive(&drv))
			;
		cr_assert(received > before, "the device goes on at message %u", received);
	}
	cr_expect(kept > 10, "the backlog was used");
	cr_expect(conn->backlog_bytes == 0);
	close(fd);
}

Test(vsock_seqpacket, longest_message_of_the_guest_reaches_the_program)
{
	static uint8_t data[65536], got[300000];
	const int fd = open_message_connection();
	const uint32_t grant = drv_first(&drv)->buf_alloc;

	for (uint32_t done = 0; done < grant; done += (uint32_t)sizeof(data)) {
		const bool last = done + sizeof(data) == grant;
		send_part(data, sizeof(data) - last, last ? VSOCK_SEQ_EOM : 0);
	}
	cr_expect(drv_read(fd, got, sizeof(got)) == (ssize_t)grant - 1);
	close(fd);
}

Test(vsock_seqpacket, message_that_fills_all_credit_without_an_end_is_reset)
{
	static uint8_t data[65536];
	const int fd = open_message_connection();
	const uint32_t grant = drv_first(&drv)->buf_alloc;

	for (uint32_t done = 0; done < grant; done += (uint32_t)sizeof(data))
		send_part(data, sizeof(data), 0);
	int op;
	while ((op = drv_receive_op(&drv)) == VSOCK_OP_CREDIT_UPDATE)
		;
	cr_expect(op == VSOCK_OP_RST);
	close(fd);
}

/* The guest waits with half a message for room that only small messages before it can give: less than half of the window. */
Test(vsock_seqpacket, credit_is_told_while_a_message_waits_for_its_end)
{
	static uint8_t data[60000];
	const int fd = open_message_connection();
	const struct vsock_conn *conn = drv_first(&drv);
	unsigned waiting = 0;

	while (!conn->backlog_bytes) {
		send_part(data, 10000, VSOCK_SEQ_EOM);
		waiting++;
	}
	while (drv_receive(&drv))
		;
	while (conn->buf_alloc - (conn->rx_cnt - conn->fwd_cnt) > sizeof(data))
		send_part(data, sizeof(data), 0);
	while (drv_receive(&drv))
		;
	const uint32_t told = conn->fwd_cnt_told;
	while (waiting-- && drv_read(fd, data, sizeof(data)) == 10000)
		drv_settle(&drv);
	cr_assert(conn->fwd_cnt != told, "the host took what was whole");
	cr_expect(conn->fwd_cnt - told < conn->buf_alloc / 2);
	cr_expect(drv_receive_op(&drv) == VSOCK_OP_CREDIT_UPDATE);
	cr_expect(conn->fwd_cnt_told == conn->fwd_cnt);
	close(fd);
}

Test(vsock_seqpacket, no_wakeups_while_a_message_waits_for_its_end)
{
	const int fd = open_message_connection();

	send_part("half", 4, 0);
	const unsigned before = drv.loop->wakeups;
	for (unsigned i = 0; i < 100; i++)
		loop_round(drv.loop, 0);
	cr_expect(drv.loop->wakeups == before);
	close(fd);
}

Test(vsock_seqpacket, unfinished_message_is_dropped_at_the_end)
{
	struct drv_packet *packet;
	char byte;
	int fd = open_message_connection();

	send_message("whole");
	send_part("half", 4, 0);
	while (drv_receive(&drv))
		;
	packet = drv_packet(&drv, VSOCK_OP_SHUTDOWN, GUEST_PORT, PORT);
	packet->flags = VSOCK_SHUTDOWN_BOTH;
	drv_send_packet(&drv, packet);
	expect_message(fd, "whole");
	cr_expect(drv_read(fd, &byte, 1) == 0);
	cr_expect(drv_receive_op(&drv) == VSOCK_OP_RST, "the disconnect is complete");
	close(fd);

	fd = open_message_connection();
	send_part("half", 4, 0);
	drv_send(&drv, VSOCK_OP_RST, GUEST_PORT, PORT);
	cr_expect(drv_read(fd, &byte, 1) == 0);
	close(fd);
}

/* ---- host to guest ----------------------------------------------------------------------------------------------------------- */

Test(vsock_seqpacket, messages_of_the_host_keep_their_bounds)
{
	const int fd = open_message_connection();

	cr_assert(write(fd, "one", 3) == 3 && write(fd, "three", 5) == 5);
	drv_settle(&drv);
	for (unsigned i = 0; i < 2; i++) {
		cr_assert(drv_receive_op(&drv) == VSOCK_OP_RW);
		cr_expect(drv.packet.len == (i ? 5 : 3) && drv.packet.flags == VSOCK_SEQ_EOM);
	}
	cr_expect(drv_receive_op(&drv) == -1);
	close(fd);
}

/* Takes one message. Returns its bytes; `packets` how many carried it. */
static uint32_t receive_message(uint8_t *data, unsigned *packets)
{
	uint32_t bytes = 0;

	for (*packets = 1;; (*packets)++) {
		cr_assert(drv_receive_op(&drv) == VSOCK_OP_RW);
		memcpy(data + bytes, drv.packet.data, drv.packet.len);
		bytes += drv.packet.len;
		if (drv.packet.flags & VSOCK_SEQ_EOM)
			return bytes;
	}
}

Test(vsock_seqpacket, long_message_of_the_host_goes_in_packets)
{
	const uint32_t room = DRV_RX_BUFFER - sizeof(struct vsock_hdr);
	const uint32_t lengths[] = { room, room + 1, 2 * room, 100000 };
	static uint8_t data[100000], got[100000];
	const int fd = open_message_connection();
	unsigned packets;

	for (unsigned i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 31 + i / 256);
	for (unsigned i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		cr_assert(write(fd, data, lengths[i]) == lengths[i]);
		drv_settle(&drv);
		cr_expect(receive_message(got, &packets) == lengths[i]);
		cr_expect(packets == (lengths[i] + room - 1) / room, "%u", packets);
		cr_expect(memcmp(got, data, lengths[i]) == 0);
		struct drv_packet *credit = drv_packet(&drv, VSOCK_OP_CREDIT_UPDATE, GUEST_PORT, PORT);
		credit->fwd_cnt = drv_first(&drv)->tx_cnt;
		drv_send_packet(&drv, credit);
	}
	close(fd);
}

Test(vsock_seqpacket, rest_of_a_message_waits_for_credit)
{
	static uint8_t data[60000], got[60000];
	unsigned packets;

	drv.buf_alloc = 100000;
	const int fd = open_message_connection();
	cr_assert(write(fd, data, 60000) == 60000 && write(fd, data, 60000) == 60000);
	drv_settle(&drv);
	cr_expect(receive_message(got, &packets) == 60000);
	uint32_t begun = 0;
	while (drv_receive(&drv)) {
		cr_expect(drv.packet.op == VSOCK_OP_CREDIT_REQUEST || drv.packet.flags == 0, "it has no end yet");
		begun += drv.packet.len;
	}
	cr_expect(begun > 0 && begun <= 40000, "%u", begun);
	struct drv_packet *credit = drv_packet(&drv, VSOCK_OP_CREDIT_UPDATE, GUEST_PORT, PORT);
	credit->fwd_cnt = 60000;
	drv_send_packet(&drv, credit);
	cr_expect(receive_message(got, &packets) == 60000 - begun);
	close(fd);
}

Test(vsock_seqpacket, message_that_the_guest_cannot_hold_resets_the_connection)
{
	static uint8_t data[60000];
	char byte;

	drv.buf_alloc = 60000; /* would hold the bytes, but not their packets */
	const int fd = open_message_connection();
	cr_assert(write(fd, data, 60000) == 60000);
	drv_settle(&drv);
	cr_expect(drv_receive_op(&drv) == VSOCK_OP_RST);
	const ssize_t n = drv_read(fd, &byte, 1);
	cr_expect(n == 0 || n == -ECONNRESET, "%zd", n);
	close(fd);
}

Test(vsock_seqpacket, empty_message_of_the_host_is_not_the_end)
{
	const int fd = open_message_connection();

	cr_assert(send(fd, "", 0, 0) == 0);
	drv_settle(&drv);
	cr_expect(drv_receive_op(&drv) == -1);
	cr_assert(send(fd, "", 0, 0) == 0 && send(fd, "a", 1, 0) == 1 && send(fd, "", 0, 0) == 0 && send(fd, "b", 1, 0) == 1);
	close(fd);
	drv_settle(&drv);
	cr_expect(drv_receive_op(&drv) == VSOCK_OP_RW && drv.packet.data[0] == 'a');
	cr_expect(drv_receive_op(&drv) == VSOCK_OP_RW && drv.packet.data[0] == 'b');
	cr_expect(drv_receive_op(&drv) == VSOCK_OP_SHUTDOWN && drv.packet.flags == VSOCK_SHUTDOWN_BOTH);
}

Test(vsock_seqpacket, program_that_goes_is_heard_to_its_end)
{
	static uint8_t data[50000], got[50000];
	unsigned packets;
	const int fd = open_message_connection();

	cr_assert(write(fd, data, sizeof(data)) == sizeof(data));
	shutdown(fd, SHUT_WR);
	drv_settle(&drv);
	cr_expect(receive_message(got, &packets) == sizeof(data));
	cr_expect(drv_receive_op(&drv) == VSOCK_OP_SHUTDOWN && drv.packet.flags == VSOCK_SHUTDOWN_SEND);
	send_message("answer");
	expect_message(fd, "answer");
	close(fd);
}
