/* virtio-vsock: host programs and their Unix sockets, in Firecracker's convention. */
#include "tests/unit/vsock_driver.h"

#include <criterion/criterion.h>
#include <sys/stat.h>
#include <sys/un.h>

static struct drv drv;
static char folder[64], path[80];

static void start(void)
{
	struct error err = { .text = "" };

	drv_init(&drv);
	strcpy(folder, "/tmp/vsock-test-XXXXXX");
	cr_assert(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/v", folder);
	cr_assert(virtio_vsock_serve_unix(drv.vsock, path, &err) == 0, "%s", err.text);
	drv_activate(&drv, false);
}

static void stop(void)
{
	struct stat status;

	cr_expect(drv_settle(&drv), "the device comes to rest");
	drv_destroy(&drv);
	cr_expect(stat(path, &status) < 0, "the socket is removed");
	rmdir(folder);
}

TestSuite(vsock_unix, .init = start, .fini = stop, .timeout = 60);

static struct sockaddr_un address_of(const char *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", name);
	return address;
}

/* A host program that connects to PATH and says `line`. */
static int client(const char *line)
{
	const struct sockaddr_un address = address_of(path);
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	cr_assert(connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0);
	cr_assert(write(fd, line, strlen(line)) == (ssize_t)strlen(line));
	drv_settle(&drv);
	return fd;
}

static void expect_closed(int fd)
{
	char byte;
	const ssize_t n = drv_read(fd, &byte, 1);
	cr_expect(n == 0 || n == -ECONNRESET, "%zd", n);
	close(fd);
}

static void accept_request(uint32_t guest_port)
{
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_REQUEST);
	cr_assert(drv.packet.dst_port == guest_port);
	drv_send(&drv, VSOCK_OP_RESPONSE, guest_port, drv.packet.src_port);
}

Test(vsock_unix, connect_line_opens_a_connection)
{
	char buffer[64] = "", expected[64];
	const int fd = client("CONNECT 52\n");

	cr_expect(drv_read(fd, buffer, sizeof(buffer)) == -EAGAIN, "nothing before the guest has accepted");
	accept_request(52);
	const uint32_t port = drv.packet.src_port;
	snprintf(expected, sizeof(expected), "OK %u\n", port);
	cr_assert(drv_read(fd, buffer, sizeof(buffer)) == (ssize_t)strlen(expected));
	cr_expect(strcmp(buffer, expected) == 0);
	cr_assert(write(fd, "ping", 4) == 4);
	drv_settle(&drv);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_RW);
	cr_expect(drv.packet.len == 4);
	drv_send_data(&drv, 52, port, "pong", 4);
	cr_expect(drv_read(fd, buffer, sizeof(buffer)) == 4);
	close(fd);
}

Test(vsock_unix, bytes_behind_the_line_are_not_lost)
{
	const int fd = client("CONNECT 52\nearly data");

	accept_request(52);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_RW);
	cr_expect(drv.packet.len == 10 && memcmp(drv.packet.data, "early data", 10) == 0);
	close(fd);
}

Test(vsock_unix, answer_precedes_the_guests_first_bytes)
{
	char buffer[64];
	const int fd = client("CONNECT 52\n");

	cr_assert(drv_receive_op(&drv) == VSOCK_OP_REQUEST);
	const uint32_t port = drv.packet.src_port;
	drv_queue(&drv, drv_packet(&drv, VSOCK_OP_RESPONSE, 52, port));
	drv_send_data(&drv, 52, port, "banner", 6);
	const ssize_t n = drv_read(fd, buffer, sizeof(buffer));
	cr_assert(n > 9 && memcmp(buffer, "OK ", 3) == 0 && memcmp(buffer + n - 7, "\nbanner", 7) == 0);
	close(fd);
}

Test(vsock_unix, line_in_pieces)
{
	const int fd = client("CONN");

	cr_assert(write(fd, "ECT 5", 5) == 5);
	cr_assert(drv_settle(&drv));
	cr_assert(write(fd, "2\nx", 3) == 3);
	cr_assert(drv_settle(&drv));
	accept_request(52);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_RW);
	cr_expect(drv.packet.len == 1);
	close(fd);
}

Test(vsock_unix, blanks_and_case_as_firecracker_takes_them)
{
	close(client("connect   52 \r\n"));
	cr_expect(drv_receive_op(&drv) == VSOCK_OP_REQUEST);
	cr_expect(drv.packet.dst_port == 52);
	close(client("CONNECT 4294967295\n"));
	cr_expect(drv_receive_op(&drv) == VSOCK_OP_REQUEST);
	cr_expect(drv.packet.dst_port == UINT32_MAX);
}

Test(vsock_unix, wrong_lines_are_refused)
{
	static const char *const lines[] = {
		"\n", "CONNECT\n", "CONNECT \n", "CONNECT x\n", "CONNECT 5x\n", "CONNECT -1\n", "CONNECT52\n",
		"CONNECT 4294967296\n", "GET / HTTP/1.0\n", "CONNECT 99999999999999999999\n", "CONNECT 1 2\n",
	};

	for (unsigned i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		expect_closed(client(lines[i]));
		cr_expect(drv_receive_op(&drv) == -1, "%s", lines[i]);
	}
}

Test(vsock_unix, line_without_end_is_refused)
{
	expect_closed(client("CONNECT 0000000000000000000000000000000000000000000052\n"));
	cr_expect(drv_receive_op(&drv) == -1);
}

Test(vsock_unix, refusal_of_the_guest_closes_the_socket)
{
	const int fd = client("CONNECT 52\n");

	cr_assert(drv_receive_op(&drv) == VSOCK_OP_REQUEST);
	drv_send(&drv, VSOCK_OP_RST, 52, drv.packet.src_port);
	expect_closed(fd);
}

Test(vsock_unix, program_that_goes_before_the_answer)
{
	const int fd = client("CONNECT 52\n");

	close(fd);
	cr_assert(drv_settle(&drv));
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_REQUEST);
	drv_send(&drv, VSOCK_OP_RESPONSE, 52, drv.packet.src_port);
	const int op = drv_receive_op(&drv);
	cr_expect(op == VSOCK_OP_RST || op == VSOCK_OP_SHUTDOWN);
}

Test(vsock_unix, slow_programs_are_bounded_in_number)
{
	enum { COUNT = 100 };
	static int fds[COUNT];

	for (unsigned i = 0; i < COUNT; i++)
		fds[i] = client("CONN");
	cr_assert(drv_settle(&drv));
	drv.loop->wakeups = 0;
	for (unsigned i = 0; i < 5; i++)
		loop_round(drv.loop, 1);
	cr_expect(drv.loop->wakeups == 0, "they cost nothing while they wait");
	/* Some go: others have their turn. */
	for (unsigned i = 0; i < COUNT; i++) {
		cr_assert(write(fds[i], "ECT 52\n", 7) == 7);
		drv_settle(&drv);
	}
	unsigned requests = 0;
	while (drv_receive(&drv))
		requests += drv.packet.op == VSOCK_OP_REQUEST;
	cr_expect(requests == COUNT, "%u", requests);
	for (unsigned i = 0; i < COUNT; i++)
		close(fds[i]);
}

/* No descriptor is left for another program, nor for a timer: it waits, nobody asks in a circle, and it is asked for again. */
Test(vsock_unix, accept_without_descriptors_is_tried_again)
{
	const struct sockaddr_un address = address_of(path);
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	struct rlimit files, none;

	cr_assert(connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0);
	cr_assert(write(fd, "CONNECT 52\n", 11) == 11);
	getrlimit(RLIMIT_NOFILE, &files);
	none = files;
	none.rlim_cur = 0;
	setrlimit(RLIMIT_NOFILE, &none);
	drv.loop->wakeups = 0;
	for (unsigned i = 0; i < 20; i++)
		loop_round(drv.loop, 5);
	setrlimit(RLIMIT_NOFILE, &files);
	cr_expect(drv.loop->wakeups == 1, "%u", drv.loop->wakeups);
	cr_expect(drv_receive_op(&drv) == -1);
	for (unsigned i = 0; i < 20 && drv_receive_op(&drv) != VSOCK_OP_REQUEST; i++)
		loop_round(drv.loop, 100);
	cr_expect(drv.packet.op == VSOCK_OP_REQUEST && drv.packet.dst_port == 52);
	close(fd);
}

/* The first of them is pushed out by time; it does not take ten seconds here. */
Test(vsock_unix, slow_program_is_dropped)
{
	const int fd = client("CONN");
	char byte;

	cr_expect(vsock_unix_expire(drv.vsock, vsock_now_ns()) != 0);
	cr_expect(drv_read(fd, &byte, 1) == -EAGAIN);
	cr_expect(vsock_unix_expire(drv.vsock, vsock_now_ns() + VSOCK_TIMEOUT_NS) == 0);
	expect_closed(fd);
}

Test(vsock_unix, guest_reaches_the_program_on_path_port)
{
	char name[96], buffer[16];

	snprintf(name, sizeof(name), "%s_7000", path);
	const struct sockaddr_un address = address_of(name);
	const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert(bind(listener, (const struct sockaddr *)&address, sizeof(address)) == 0);
	cr_assert(listen(listener, 1) == 0);
	drv_send(&drv, VSOCK_OP_REQUEST, 5000, 7000);
	cr_assert(drv_receive_op(&drv) == VSOCK_OP_RESPONSE);
	const int fd = accept(listener, NULL, NULL);
	cr_assert(fd >= 0);
	drv_send_data(&drv, 5000, 7000, "hello", 5);
	cr_expect(read(fd, buffer, sizeof(buffer)) == 5);
	close(fd);
	close(listener);
	unlink(name);
}

Test(vsock_unix, guest_is_refused_without_a_program)
{
	drv_send(&drv, VSOCK_OP_REQUEST, 5000, 7000);
	cr_expect(drv_receive_op(&drv) == VSOCK_OP_RST);
}

/* A program that does not accept: its queue is full, and connect(2) would have to wait. */
Test(vsock_unix, guest_is_refused_when_the_programs_queue_is_full)
{
	char name[96];
	unsigned responses = 0, resets = 0;

	snprintf(name, sizeof(name), "%s_7000", path);
	const struct sockaddr_un address = address_of(name);
	const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert(bind(listener, (const struct sockaddr *)&address, sizeof(address)) == 0);
	cr_assert(listen(listener, 2) == 0);
	for (unsigned i = 0; i < 10; i++) {
		drv_send(&drv, VSOCK_OP_REQUEST, 5000 + i, 7000);
		const int op = drv_receive_op(&drv);
		responses += op == VSOCK_OP_RESPONSE;
		resets += op == VSOCK_OP_RST;
	}
	cr_expect(responses == 3 && resets == 7, "%u, %u", responses, resets);
	close(listener);
	unlink(name);
}

Test(vsock_unix, services_come_before_sockets)
{
	drv_open(&drv, 5000);
}

Test(vsock_unix, path_in_use_is_refused)
{
	struct error err = { .text = "" };
	struct drv second;

	drv_init(&second);
	cr_expect(virtio_vsock_serve_unix(second.vsock, path, &err) == -EADDRINUSE);
	cr_expect(strstr(err.text, path));
	drv_destroy(&second);
	struct stat status;
	cr_expect(stat(path, &status) == 0, "the file of another stays");
	cr_expect((status.st_mode & 0777) == 0600, "%o", status.st_mode);
}

Test(vsock_unix, long_path_is_refused)
{
	struct error err = { .text = "" };
	char name[200];
	struct drv second;

	memset(name, 'x', sizeof(name));
	memcpy(name, "/tmp/", 5);
	name[97] = '\0'; /* with _4294967295 and its end it would need 109 bytes; there are 108 */
	drv_init(&second);
	cr_expect(virtio_vsock_serve_unix(second.vsock, name, &err) == -ENAMETOOLONG);
	cr_expect(virtio_vsock_serve_unix(second.vsock, "", &err) == -ENAMETOOLONG);
	name[96] = '\0';
	cr_expect(virtio_vsock_serve_unix(second.vsock, name, &err) == 0, "%s", err.text);
	drv_destroy(&second);
}

Test(vsock_unix, destroy_with_clients_in_every_state)
{
	struct error err = { .text = "" };
	struct drv second;
	char name[96];
	struct sockaddr_un address;
	int fds[3];

	snprintf(name, sizeof(name), "%s2", path);
	drv_init(&second);
	cr_assert(virtio_vsock_serve_unix(second.vsock, name, &err) == 0);
	drv_activate(&second, false);
	address = address_of(name);
	for (unsigned i = 0; i < 3; i++) {
		fds[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		cr_assert(connect(fds[i], (const struct sockaddr *)&address, sizeof(address)) == 0);
		cr_assert(write(fds[i], "CONNECT 52\n", 4 + 7 * (i > 0)) > 0);
		drv_settle(&second);
	}
	cr_assert(drv_receive_op(&second) == VSOCK_OP_REQUEST);
	drv_send(&second, VSOCK_OP_RESPONSE, 52, second.packet.src_port);
	drv_destroy(&second);
	for (unsigned i = 0; i < 3; i++)
		close(fds[i]);
}
