/* virtio-vsock: the kinds of descriptors that the host end of a connection may be, and what watching them costs. */
#include "tests/unit/vsock_driver.h"

#include <criterion/criterion.h>
#include <pty.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>

#define PORT 2000

static struct drv drv;
static struct vsock_ends next_ends; /* what the next connection to PORT gets */
static unsigned closed;

static void on_closed(void *data)
{
	(void)data;
	closed++;
}

static int accept_next(void *data, uint32_t port, struct vsock_ends *ends)
{
	(void)data;
	(void)port;
	*ends = next_ends;
	ends->closed = on_closed;
	return 0;
}

static void start(void)
{
	drv_init(&drv);
	cr_assert(virtio_vsock_listen(drv.vsock, PORT, PORT, accept_next, NULL) == 0);
	drv_activate(&drv, false);
}

static void stop(void)
{
	cr_expect(drv_settle(&drv), "the device comes to rest");
	drv_destroy(&drv);
}

TestSuite(vsock_ends, .init = start, .fini = stop, .timeout = 60);

static int write_error;

static void open_ends(int read_fd, int write_fd)
{
	write_error = 0;
	next_ends = (struct vsock_ends){ .read_fd = read_fd, .write_fd = write_fd, .write_error = &write_error };
	drv_send(&drv, VSOCK_OP_REQUEST, 5000, PORT);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_RESPONSE);
}

static void guest_shutdown(uint32_t flags)
{
	struct drv_packet *packet = drv_packet(&drv, VSOCK_OP_SHUTDOWN, 5000, PORT);
	packet->flags = flags;
	drv_send_packet(&drv, packet);
}

static void send_data(const void *data, uint32_t length)
{
	drv_send_data(&drv, 5000, PORT, data, length);
}

static void make_pipe(int fds[2], int flags)
{
	cr_assert(pipe2(fds, O_CLOEXEC | flags) == 0);
}

static int temporary_file(const void *data, size_t length)
{
	char name[] = "/tmp/vsock-test-XXXXXX";
	const int fd = mkostemp(name, O_CLOEXEC);
	cr_assert(fd >= 0);
	unlink(name);
	cr_assert(write(fd, data, length) == (ssize_t)length);
	cr_assert(lseek(fd, 0, SEEK_SET) == 0);
	return fd;
}

Test(vsock_ends, regular_file_is_read_to_its_end)
{
	static uint8_t content[300000];
	uint32_t got = 0;
	bool end = false;

	for (size_t i = 0; i < sizeof(content); i++)
		content[i] = (uint8_t)(i * 7 + i / 256);
	open_ends(temporary_file(content, sizeof(content)), -1);
	for (unsigned i = 0; i < 1000 && !end; i++) {
		while (drv_receive(&drv)) {
			end |= drv.packet.op == VSOCK_OP_SHUTDOWN && drv.packet.flags == VSOCK_SHUTDOWN_SEND;
			if (drv.packet.op != VSOCK_OP_RW)
				continue;
			cr_assert(memcmp(drv.packet.data, content + got, drv.packet.len) == 0);
			got += drv.packet.len;
		}
		struct drv_packet *packet = drv_packet(&drv, VSOCK_OP_CREDIT_UPDATE, 5000, PORT);
		packet->fwd_cnt = got;
		drv_send_packet(&drv, packet);
	}
	cr_expect(end && got == sizeof(content));
}

Test(vsock_ends, regular_file_is_written)
{
	static uint8_t content[70000], check[70000];
	const int fd = temporary_file("", 0);

	for (size_t i = 0; i < sizeof(content); i++)
		content[i] = (uint8_t)(i * 3);
	open_ends(-1, fcntl(fd, F_DUPFD_CLOEXEC, 0));
	cr_expect(drv_receive_op(&drv) == VSOCK_OP_SHUTDOWN, "a direction that does not exist is at its end");
	send_data(content, sizeof(content));
	send_data(content, sizeof(content));
	guest_shutdown(VSOCK_SHUTDOWN_BOTH);
	int last = -1;
	for (int op; (op = drv_receive_op(&drv)) >= 0;)
		last = op;
	cr_expect(last == VSOCK_OP_RST);
	cr_expect(pread(fd, check, sizeof(check), sizeof(check)) == sizeof(check));
	cr_expect(memcmp(check, content, sizeof(check)) == 0);
	cr_expect(closed == 1);
	close(fd);
}

Test(vsock_ends, file_that_takes_no_more_stops_the_guests_writer)
{
	const int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);

	cr_assert(fd >= 0);
	open_ends(-1, fd);
	send_data("x", 1);
	uint32_t flags = 0;
	while (drv_receive(&drv))
		flags |= drv.packet.op == VSOCK_OP_SHUTDOWN ? drv.packet.flags : 0;
	cr_expect(flags == VSOCK_SHUTDOWN_BOTH);
	cr_expect(closed == 1);
	cr_expect(write_error == -ENOSPC);
}

Test(vsock_ends, reader_that_has_gone_is_no_failed_write)
{
	int ends[2];

	cr_assert(pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
	open_ends(-1, ends[1]);
	close(ends[0]);
	send_data("x", 1);
	cr_expect(closed == 1 && write_error == 0);
}

Test(vsock_ends, dev_null_both_ways)
{
	open_ends(open("/dev/null", O_RDONLY | O_CLOEXEC), open("/dev/null", O_WRONLY | O_CLOEXEC));
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_SHUTDOWN);
	cr_expect(drv.packet.flags == VSOCK_SHUTDOWN_SEND);
	send_data("x", 1);
	drv_send(&drv, VSOCK_OP_CREDIT_REQUEST, 5000, PORT);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_CREDIT_UPDATE);
	cr_expect(drv.packet.fwd_cnt == 1);
}

Test(vsock_ends, no_descriptor_at_all)
{
	open_ends(-1, -1);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_SHUTDOWN);
	send_data("x", 1);
	guest_shutdown(VSOCK_SHUTDOWN_BOTH);
	cr_expect(drv_receive_op(&drv) == VSOCK_OP_RST);
	cr_expect(closed == 1);
}

Test(vsock_ends, endless_file_leaves_room_for_others)
{
	/* /dev/zero is always ready; each round is bounded, and a kick goes round before the next. */
	drv.buf_alloc = UINT32_MAX / 2;
	open_ends(open("/dev/zero", O_RDONLY | O_CLOEXEC), -1);
	for (unsigned round = 0; round < 20; round++) {
		unsigned packets = 0;
		while (drv_receive(&drv))
			packets++;
		cr_assert(packets <= DRV_QUEUE_SIZE);
		drv_notify(&drv, VSOCK_QUEUE_RX);
	}
	/* Another connection gets its turn although this one never ends. */
	drv_send(&drv, VSOCK_OP_REQUEST, 5001, 1024);
	cr_assert(write(drv.host, "hello", 5) == 5);
	bool response = false, hello = false;
	for (unsigned round = 0; round < 4; round++) {
		drv_settle(&drv);
		while (drv_receive(&drv)) {
			if (drv.packet.dst_port != 5001)
				continue;
			response |= drv.packet.op == VSOCK_OP_RESPONSE;
			hello |= drv.packet.op == VSOCK_OP_RW;
		}
		drv_notify(&drv, VSOCK_QUEUE_RX);
	}
	cr_expect(response && hello);
}

Test(vsock_ends, pipes_carry_both_directions)
{
	int in[2], out[2];
	char buffer[16];

	make_pipe(in, O_NONBLOCK);
	make_pipe(out, O_NONBLOCK);
	open_ends(in[0], out[1]);
	cr_assert(write(in[1], "input", 5) == 5);
	drv_settle(&drv);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_RW);
	cr_expect(drv.packet.len == 5);
	send_data("output", 6);
	cr_expect(drv_read(out[0], buffer, sizeof(buffer)) == 6);
	close(in[1]);
	drv_settle(&drv);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_SHUTDOWN);
	cr_expect(drv.packet.flags == VSOCK_SHUTDOWN_SEND);
	cr_expect(closed == 0);
	guest_shutdown(VSOCK_SHUTDOWN_SEND);
	cr_expect(drv_read(out[0], buffer, sizeof(buffer)) == 0, "EOF behind the output");
	cr_expect(closed == 1);
	close(out[0]);
}

Test(vsock_ends, pipe_without_reader_stops_the_guests_writer)
{
	int out[2];

	make_pipe(out, O_NONBLOCK);
	open_ends(-1, out[1]);
	drv_receive(&drv);
	close(out[0]);
	send_data("x", 1);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_SHUTDOWN);
	cr_expect(drv.packet.flags == VSOCK_SHUTDOWN_BOTH);
}

Test(vsock_ends, pipe_whose_reader_goes_with_bytes_waiting)
{
	static uint8_t junk[65536];
	int out[2];

	make_pipe(out, O_NONBLOCK);
	open_ends(-1, out[1]);
	drv_receive(&drv);
	send_data(junk, sizeof(junk));
	send_data(junk, sizeof(junk));
	cr_expect(closed == 0);
	close(out[0]);
	cr_assert(drv_settle(&drv));
	uint32_t flags = 0;
	while (drv_receive(&drv))
		flags |= drv.packet.op == VSOCK_OP_SHUTDOWN ? drv.packet.flags : 0;
	cr_expect(flags == VSOCK_SHUTDOWN_BOTH);
	cr_expect(closed == 1);
}

Test(vsock_ends, full_pipe_loses_nothing)
{
	static uint8_t data[60000], buffer[1 << 20];
	int out[2];
	size_t got = 0;

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 5 + i / 251);
	make_pipe(out, O_NONBLOCK);
	open_ends(-1, out[1]);
	for (unsigned i = 0; i < 4; i++)
		send_data(data, sizeof(data));
	guest_shutdown(VSOCK_SHUTDOWN_BOTH);
	for (ssize_t n; (n = drv_read(out[0], buffer + got, sizeof(buffer) - got)) > 0;) {
		got += (size_t)n;
		drv_settle(&drv);
	}
	cr_assert(got == 4 * sizeof(data));
	for (unsigned i = 0; i < 4; i++)
		cr_expect(memcmp(buffer + i * sizeof(data), data, sizeof(data)) == 0);
	close(out[0]);
}

/* Standard output as a shell gives it: a pipe without O_NONBLOCK, which is not ours to set. */
Test(vsock_ends, blocking_pipe_never_blocks_us)
{
	static uint8_t data[60000], buffer[1 << 20];
	int out[2], in[2];
	size_t got = 0;

	make_pipe(in, 0);
	make_pipe(out, 0);
	cr_assert(fcntl(out[0], F_SETFL, O_NONBLOCK) == 0); /* our reader alone */
	open_ends(in[0], out[1]);
	for (unsigned i = 0; i < 4; i++)
		send_data(data, sizeof(data));
	cr_assert(write(in[1], "input", 5) == 5);
	drv_settle(&drv);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_RW);
	cr_expect(drv.packet.len == 5);
	drv_notify(&drv, VSOCK_QUEUE_RX);
	for (ssize_t n; (n = drv_read(out[0], buffer + got, sizeof(buffer) - got)) > 0;) {
		got += (size_t)n;
		drv_settle(&drv);
	}
	cr_expect(got == 4 * sizeof(data));
	cr_expect(!(fcntl(out[1], F_GETFL) & O_NONBLOCK));
	close(in[1]);
	close(out[0]);
}

Test(vsock_ends, terminal_for_both_directions)
{
	int master, slave;
	char buffer[64];
	struct termios raw;

	cr_assert(openpty(&master, &slave, NULL, NULL, NULL) == 0);
	tcgetattr(slave, &raw);
	cfmakeraw(&raw);
	tcsetattr(slave, TCSANOW, &raw);
	fcntl(master, F_SETFL, O_NONBLOCK);
	fcntl(slave, F_SETFL, O_NONBLOCK);
	open_ends(slave, slave);
	cr_assert(write(master, "keys", 4) == 4);
	for (unsigned i = 0; i < 50 && !loop_round(drv.loop, 10); i++)
		;
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_RW);
	cr_expect(drv.packet.len == 4);
	send_data("screen", 6);
	cr_expect(drv_read(master, buffer, sizeof(buffer)) == 6);
	close(master);
	for (unsigned i = 0; i < 50 && !loop_round(drv.loop, 10); i++)
		;
	drv_settle(&drv);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_SHUTDOWN);
	cr_expect(drv.packet.flags & VSOCK_SHUTDOWN_SEND, "a terminal that hangs up is at its end");
	send_data("x", 1);
	while (drv_receive(&drv))
		;
	cr_expect(closed == 1);
}

Test(vsock_ends, connect_that_is_still_in_progress)
{
	struct sockaddr_storage address = { 0 };
	socklen_t length = sizeof(address);
	char buffer[16];

	address.ss_family = AF_INET;
	const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert(bind(listener, (struct sockaddr *)&address, sizeof(struct sockaddr)) == 0);
	cr_assert(listen(listener, 1) == 0);
	cr_assert(getsockname(listener, (struct sockaddr *)&address, &length) == 0);
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	cr_assert(connect(fd, (struct sockaddr *)&address, length) == 0 || errno == EINPROGRESS);
	open_ends(fd, fd);
	send_data("hello", 5);
	const int peer = accept(listener, NULL, NULL);
	cr_expect(read(peer, buffer, sizeof(buffer)) == 5);
	close(peer);
	close(listener);
}

Test(vsock_ends, connect_that_is_refused_resets_the_connection)
{
	struct sockaddr_storage address = { 0 };
	socklen_t length = sizeof(address);

	address.ss_family = AF_INET;
	const int unused = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert(bind(unused, (struct sockaddr *)&address, sizeof(struct sockaddr)) == 0);
	cr_assert(getsockname(unused, (struct sockaddr *)&address, &length) == 0);
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	cr_assert(connect(fd, (struct sockaddr *)&address, length) < 0 && errno == EINPROGRESS);
	open_ends(fd, fd);
	for (unsigned i = 0; i < 50 && !loop_round(drv.loop, 10); i++)
		;
	cr_expect(drv_receive_op(&drv) == VSOCK_OP_RST);
	close(unused);
}

/* ---- cost -------------------------------------------------------------------------------------------------------------------- */

static void expect_idle(const char *when)
{
	cr_assert(drv_settle(&drv));
	drv.loop->wakeups = drv.loop->changes = 0;
	for (unsigned i = 0; i < 5; i++)
		loop_round(drv.loop, 1);
	cr_expect(drv.loop->wakeups == 0 && drv.loop->changes == 0 && !drv.kicked, "idle %s: %u wakeups", when, drv.loop->wakeups);
}

Test(vsock_ends, no_wakeups_without_credit)
{
	int pair[2];
	static char junk[60000];

	cr_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
	drv.buf_alloc = 4096;
	open_ends(pair[0], pair[0]);
	expect_idle("when open");
	cr_assert(write(pair[1], junk, sizeof(junk)) == sizeof(junk));
	expect_idle("without credit");
	close(pair[1]);
	expect_idle("without credit, hung up");
}

Test(vsock_ends, no_wakeups_without_rx_buffers)
{
	int pair[2];
	static char junk[60000];

	cr_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
	drv_reset(&drv);
	drv_activate(&drv, true);
	next_ends = (struct vsock_ends){ .read_fd = pair[0], .write_fd = pair[0] };
	drv_send(&drv, VSOCK_OP_REQUEST, 5000, PORT);
	cr_assert(write(pair[1], junk, sizeof(junk)) == sizeof(junk));
	expect_idle("without rx buffers");
	close(pair[1]);
	expect_idle("without rx buffers, hung up");
	for (unsigned i = 0; i < 100; i++)
		drv_offer(&drv, i);
	drv_notify(&drv, VSOCK_QUEUE_RX);
	drv_settle(&drv);
	cr_expect(drv_receive_op(&drv) == VSOCK_OP_RESPONSE);
	cr_expect(drv_receive_op(&drv) == VSOCK_OP_RW);
}

Test(vsock_ends, no_wakeups_after_both_sides_are_done)
{
	int pair[2];

	cr_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
	open_ends(pair[0], pair[0]);
	shutdown(pair[1], SHUT_WR);
	expect_idle("after EOF of the host");
	guest_shutdown(VSOCK_SHUTDOWN_SEND);
	expect_idle("after EOF of both");
	close(pair[1]);
	expect_idle("after the host's close");
}

Test(vsock_ends, no_wakeups_with_a_stuck_reader)
{
	static uint8_t junk[65536];
	int out[2];

	make_pipe(out, O_NONBLOCK);
	open_ends(-1, out[1]);
	send_data(junk, sizeof(junk));
	send_data(junk, sizeof(junk));
	expect_idle("with bytes waiting");
	close(out[0]);
}

Test(vsock_ends, request_and_answer_change_no_watches)
{
	int pair[2];
	char buffer[64];

	cr_assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
	open_ends(pair[0], pair[0]);
	drv.loop->changes = drv.loop->wakeups = 0;
	for (unsigned i = 0; i < 100; i++) {
		send_data("ping", 4);
		cr_assert(drv_read(pair[1], buffer, sizeof(buffer)) == 4);
		cr_assert(write(pair[1], "pong", 4) == 4);
		drv_settle(&drv);
		int op;
		while ((op = drv_receive_op(&drv)) == VSOCK_OP_CREDIT_UPDATE)
			;
		cr_assert(op == VSOCK_OP_RW);
		struct drv_packet *packet = drv_packet(&drv, VSOCK_OP_CREDIT_UPDATE, 5000, PORT);
		packet->fwd_cnt = 4 * (i + 1);
		drv_send_packet(&drv, packet);
	}
	cr_expect(drv.loop->changes == 0, "%u epoll_ctl calls", drv.loop->changes);
	cr_expect(drv.loop->wakeups == 100, "%u wakeups", drv.loop->wakeups);
	close(pair[1]);
}
