/*
 * vmm/ports, vmm/port_rule and base/relay: TCP clients of this machine, through the code of -p and of `trvmm proxy`, to a server behind
 * Firecracker's convention that is a script, or behind the agent's own proxy.
 */
#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "guest/agent/protocol.h"
#include "tests/unit/session_harness.h"
#include "vmm/ports.h"

TestSuite(ports, .timeout = 60);

/* ---- words ------------------------------------------------------------------------------------------------------------------- */

static void expect_rule(const char *text, const char *address, uint32_t guest_port)
{
	struct port_rule rule;
	struct error err = { "" };
	cr_assert_eq(port_rule_parse(text, &rule, &err), 0, "%s: %s", text, err.text);
	cr_assert_str_eq(rule.address.text, address);
	cr_expect_eq(rule.guest_port, guest_port);
}

static void expect_refused(const char *text, const char *words)
{
	struct port_rule rule;
	struct error err = { "" };
	cr_assert_eq(port_rule_parse(text, &rule, &err), -EINVAL, "%s", text);
	cr_expect(strstr(err.text, words), "'%s' is not in: %s", words, err.text);
	cr_expect(!strchr(err.text, '\n'));
}

Test(ports, rules_are_parsed)
{
	expect_rule("8080:80", "127.0.0.1:8080", 80);
	expect_rule("0.0.0.0:65535:1", "0.0.0.0:65535", 1);
	expect_rule("[::1]:8080:80", "[::1]:8080", 80);
	expect_rule("[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]:1:2", "[ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255]:1", 2);
}

Test(ports, bad_rules_are_refused)
{
	char long_text[5000];
	const char *numbers = "from 1 to 65535", *name = "IP address", *shape = "[ADDR:]HOSTPORT:GUESTPORT";
	expect_refused("", shape);
	expect_refused("8080", shape);
	expect_refused("[::1]", shape);
	expect_refused(":", numbers);
	expect_refused("8080:", numbers);
	expect_refused(":80", numbers);
	expect_refused("0:80", numbers);
	expect_refused("80:0", numbers);
	expect_refused("65536:80", numbers);
	expect_refused("80:65536", numbers);
	expect_refused("80:18446744073709551617", numbers);
	expect_refused("-1:80", numbers);
	expect_refused(" 1:80", numbers);
	expect_refused("0x50:80", numbers);
	expect_refused("80:80/udp", numbers);
	expect_refused("localhost:80:80", name);
	expect_refused("256.0.0.1:80:80", name);
	expect_refused(":80:80", name);
	expect_refused("::1:80:80", name);
	expect_refused("[]:80:80", name);
	expect_refused("[:80:80", name);
	expect_refused("[127.0.0.1]:80:80", name);
	expect_refused("a\nb:80:80", "\\x0a");
	memset(long_text, '1', sizeof(long_text));
	strcpy(long_text + sizeof(long_text) - 7, ":80:80");
	expect_refused(long_text, name);
}

/* ---- means ------------------------------------------------------------------------------------------------------------------- */

struct fixture {
	struct loop *loop;
	struct ports *ports;
	pthread_t thread;
	struct sockaddr_un address; /* who takes CONNECT */
	struct sockaddr_in tcp; /* where clients go */
	char folder[64];
	bool joins; /* the opener stays a user of the last way */
	struct ports_way *way;
};

static int open_unix(void *data, struct ports_way *way)
{
	struct fixture *f = data;
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (connect(fd, (const struct sockaddr *)&f->address, sizeof(f->address)) == 0) {
		if (f->joins) {
			way->users++;
			f->way = way;
		}
		return fd;
	}
	close(fd);
	return -ECONNREFUSED;
}

/* A listener of this machine at a port that was free. */
static int tcp_listen(struct sockaddr_in *address, int backlog)
{
	socklen_t length = sizeof(*address);
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	*address = (struct sockaddr_in){ .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	cr_assert(bind(fd, (const struct sockaddr *)address, sizeof(*address)) == 0);
	cr_assert(backlog == 0 || listen(fd, backlog) == 0);
	cr_assert(getsockname(fd, (struct sockaddr *)address, &length) == 0);
	return fd;
}

static void *run_loop(void *loop)
{
	loop_run(loop);
	return NULL;
}

/* Serves a free port, whose clients go to `guest_port` behind the Unix socket `path`. */
static void fixture_open(struct fixture *f, const char *path, uint32_t guest_port)
{
	struct error err = { "" };
	struct port_rule rule = { .guest_port = guest_port };
	char text[32];
	signal(SIGPIPE, SIG_IGN);
	f->joins = false;
	f->address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	strcpy(f->address.sun_path, path);
	close(tcp_listen(&f->tcp, 0));
	snprintf(text, sizeof(text), "%u", ntohs(f->tcp.sin_port));
	cr_assert_eq(port_address_parse(text, &rule.address, &err), 0);
	f->loop = loop_create();
	cr_assert_eq(ports_create(f->loop, open_unix, f, &f->ports, &err), 0);
	cr_assert_eq(ports_add(f->ports, &rule, &err), 0, "%s", err.text);
	ports_start(f->ports);
	cr_assert(pthread_create(&f->thread, NULL, run_loop, f->loop) == 0);
}

static void fixture_close(struct fixture *f)
{
	loop_stop(f->loop);
	pthread_join(f->thread, NULL);
	ports_destroy(f->ports);
	loop_destroy(f->loop);
}

static int client_open(const struct sockaddr_in *address)
{
	const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert(connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0);
	return fd;
}

/* The fake Firecracker: a Unix socket of our own, whose clients are met by hand. */
static int fake_open(struct fixture *f, uint32_t guest_port)
{
	char path[96];
	strcpy(f->folder, "/tmp/trvmm-test-XXXXXX");
	cr_assert(mkdtemp(f->folder) != NULL);
	snprintf(path, sizeof(path), "%s/v", f->folder);
	fixture_open(f, path, guest_port);
	const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	cr_assert(bind(listener, (const struct sockaddr *)&f->address, sizeof(f->address)) == 0 && listen(listener, 64) == 0);
	return listener;
}

static void fake_close(struct fixture *f, int listener)
{
	fixture_close(f);
	close(listener);
	cr_assert(unlink(f->address.sun_path) == 0);
	cr_assert(rmdir(f->folder) == 0);
}

static int fake_accept(int listener, const char *line)
{
	char got[64] = "";
	const int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	cr_assert(fd >= 0);
	cr_assert(recv(fd, got, strlen(line), MSG_WAITALL) == (ssize_t)strlen(line));
	cr_assert_str_eq(got, line);
	return fd;
}

static void expect_bytes(int fd, const char *bytes)
{
	char got[64] = "";
	const ssize_t n = recv(fd, got, strlen(bytes), MSG_WAITALL);
	cr_assert(n == (ssize_t)strlen(bytes) && !strcmp(got, bytes), "'%s' and not '%s'", got, bytes);
}

static void expect_eof(int fd)
{
	char byte;
	cr_assert_eq(recv(fd, &byte, 1, 0), 0);
}

static void expect_reset(int fd)
{
	char byte;
	cr_assert_eq(recv(fd, &byte, 1, 0), -1);
	cr_assert_eq(errno, ECONNRESET);
	close(fd);
}

static void say(int fd, const char *bytes)
{
	cr_assert_eq(send(fd, bytes, strlen(bytes), MSG_NOSIGNAL), (ssize_t)strlen(bytes));
}

/* ---- Firecracker's convention ------------------------------------------------------------------------------------------------ */

Test(ports, half_close_is_kept_in_either_order)
{
	struct fixture f;
	const int listener = fake_open(&f, 4000000000u);
	for (int order = 0; order < 2; order++) {
		const int client = client_open(&f.tcp);
		say(client, "early ");
		const int guest = fake_accept(listener, "CONNECT 4000000000\n");
		say(guest, "OK 1073741824\nhello");
		const int first = order ? client : guest, second = order ? guest : client;
		expect_bytes(client, "hello");
		expect_bytes(guest, "early ");
		shutdown(first, SHUT_WR);
		expect_eof(second);
		say(second, "last words");
		expect_bytes(first, "last words");
		shutdown(second, SHUT_WR);
		expect_eof(first);
		close(client);
		close(guest);
	}
	fake_close(&f, listener);
}

Test(ports, what_is_no_answer_is_a_reset)
{
	static const char *const answers[] = {
		"", "O", "OK 12", "NO\n", "OKAY\n", "\n", "OK 123456789012345678901234567890123456789\n"
	};
	struct fixture f;
	const int listener = fake_open(&f, 7);
	for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
		const int client = client_open(&f.tcp);
		const int guest = fake_accept(listener, "CONNECT 7\n");
		say(guest, answers[i]);
		close(guest);
		expect_reset(client);
	}
	fake_close(&f, listener);
}

Test(ports, an_answer_may_come_byte_by_byte)
{
	struct fixture f;
	const int listener = fake_open(&f, 7);
	const int client = client_open(&f.tcp), guest = fake_accept(listener, "CONNECT 7\n");
	for (const char *at = "OK 7\nx"; *at; at++) {
		const char byte[2] = { *at };
		say(guest, byte);
		usleep(1000);
	}
	expect_bytes(client, "x");
	close(client);
	expect_eof(guest);
	close(guest);
	fake_close(&f, listener);
}

Test(ports, nobody_there_is_a_reset)
{
	struct fixture f;
	const int listener = fake_open(&f, 7);
	cr_assert(rename(f.address.sun_path, "/tmp/trvmm-test-away") == 0);
	expect_reset(client_open(&f.tcp));
	cr_assert(rename("/tmp/trvmm-test-away", f.address.sun_path) == 0);
	fake_close(&f, listener);
}

Test(ports, a_client_that_goes_before_the_answer_frees_its_place)
{
	struct fixture f;
	const int listener = fake_open(&f, 7);
	const int client = client_open(&f.tcp), guest = fake_accept(listener, "CONNECT 7\n");
	const struct linger none = { .l_onoff = 1 };
	setsockopt(client, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
	close(client);
	expect_eof(guest);
	close(guest);
	fake_close(&f, listener);
}

/* Those that a Unix socket does not carry are told beside it; what came before is not lost. */
Test(ports, resets_are_passed_on)
{
	const struct linger none = { .l_onoff = 1 };
	struct fixture f;
	const int listener = fake_open(&f, 7);
	f.joins = true;
	int client = client_open(&f.tcp), guest = fake_accept(listener, "CONNECT 7\n");
	say(guest, "OK 7\nbytes");
	expect_bytes(client, "bytes");
	setsockopt(client, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
	close(client);
	expect_eof(guest);
	cr_expect(f.way->client_reset);
	close(guest);
	ports_way_leave(f.way);

	client = client_open(&f.tcp);
	guest = fake_accept(listener, "CONNECT 7\n");
	say(guest, "OK 7\nbytes");
	f.way->guest_reset = true;
	close(guest);
	expect_bytes(client, "bytes");
	expect_reset(client);
	cr_expect(f.way->client_reset, "the ports end it as broken, too");
	ports_way_leave(f.way);

	client = client_open(&f.tcp);
	guest = fake_accept(listener, "CONNECT 7\n");
	say(guest, "OK 7\n");
	shutdown(guest, SHUT_WR);
	expect_eof(client);
	close(client);
	expect_eof(guest);
	cr_expect(!f.way->client_reset, "an end is none");
	close(guest);
	fake_close(&f, listener);
	ports_way_leave(f.way);
}

/* No descriptor is left: the client waits without anybody asking in a circle, and is served although no other one ends. */
Test(ports, accept_without_descriptors_is_tried_again)
{
	struct fixture f;
	struct rlimit files, few;
	struct timespec before, after;
	const int listener = fake_open(&f, 7);
	const int spare = dup(0), client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	getrlimit(RLIMIT_NOFILE, &files);
	few = files;
	few.rlim_cur = (rlim_t)spare;
	close(spare);
	setrlimit(RLIMIT_NOFILE, &few);
	cr_assert(connect(client, (const struct sockaddr *)&f.tcp, sizeof(f.tcp)) == 0);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before);
	usleep(300000);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after);
	const int64_t busy_ns = (after.tv_sec - before.tv_sec) * 1000000000 + after.tv_nsec - before.tv_nsec;
	cr_expect(busy_ns < 100000000, "%lld ns", (long long)busy_ns);
	struct pollfd p = { .fd = listener, .events = POLLIN };
	cr_expect_eq(poll(&p, 1, 0), 0);
	setrlimit(RLIMIT_NOFILE, &files);
	const int guest = fake_accept(listener, "CONNECT 7\n");
	close(guest);
	expect_reset(client);
	fake_close(&f, listener);
}

/* A reader that waits stops the writer, after what sockets and one relay hold; then all arrives. */
Test(ports, back_pressure_is_kept)
{
	static uint8_t chunk[1 << 16];
	struct fixture f;
	const int listener = fake_open(&f, 7);
	const int client = client_open(&f.tcp), guest = fake_accept(listener, "CONNECT 7\n");
	say(guest, "OK 7\n");
	for (int direction = 0; direction < 2; direction++) {
		const int from = direction ? guest : client, to = direction ? client : guest;
		size_t sent = 0, received = 0;
		struct pollfd p = { .fd = from, .events = POLLOUT };
		while (poll(&p, 1, 300) == 1) {
			const ssize_t n = send(from, chunk, sizeof(chunk), MSG_DONTWAIT | MSG_NOSIGNAL);
			cr_assert(n > 0 || errno == EAGAIN);
			sent += n > 0 ? (size_t)n : 0;
			cr_assert(sent < 64u << 20, "nothing stops the writer");
		}
		cr_assert(sent > sizeof(chunk));
		shutdown(from, SHUT_WR);
		for (;;) {
			const ssize_t n = recv(to, chunk, sizeof(chunk), 0);
			cr_assert(n >= 0);
			if (n == 0)
				break;
			received += (size_t)n;
		}
		cr_assert_eq(sent, received);
	}
	close(client);
	close(guest);
	fake_close(&f, listener);
}

/* Those beyond the limit are accepted by nobody until another one ends. */
Test(ports, clients_are_bounded)
{
	enum { MORE = 3 };
	static int clients[PORTS_CLIENTS_MAX + MORE], guests[PORTS_CLIENTS_MAX + MORE];
	const struct rlimit limit = { 8192, 8192 };
	struct fixture f;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		cr_skip_test("the hard limit of descriptors is too low here: %s", strerror(errno));
	const int listener = fake_open(&f, 7);
	for (unsigned i = 0; i < PORTS_CLIENTS_MAX + MORE; i++) {
		clients[i] = client_open(&f.tcp);
		if (i < PORTS_CLIENTS_MAX)
			guests[i] = fake_accept(listener, "CONNECT 7\n");
	}
	struct pollfd p = { .fd = listener, .events = POLLIN };
	cr_assert_eq(poll(&p, 1, 300), 0, "one more than may be was served");
	for (unsigned i = 0; i < MORE; i++) {
		close(guests[i]);
		guests[PORTS_CLIENTS_MAX + i] = fake_accept(listener, "CONNECT 7\n");
		expect_reset(clients[i]);
	}
	say(guests[PORTS_CLIENTS_MAX], "OK 7\nx");
	expect_bytes(clients[PORTS_CLIENTS_MAX], "x");
	fake_close(&f, listener);
	for (unsigned i = MORE; i < PORTS_CLIENTS_MAX + MORE; i++) {
		close(clients[i]);
		close(guests[i]);
	}
}

Test(ports, a_port_in_use_and_too_many_are_refused)
{
	struct fixture f;
	struct error err = { "" };
	struct port_rule rule = { .guest_port = 7 };
	const int listener = fake_open(&f, 7);
	struct ports *more;
	struct loop *loop = loop_create();
	rule.address = (struct port_address){ .v4 = f.tcp, .length = sizeof(f.tcp), .text = "that port" };
	cr_assert_eq(ports_create(loop, open_unix, &f, &more, &err), 0);
	cr_assert_eq(ports_add(more, &rule, &err), -EADDRINUSE);
	cr_assert(strstr(err.text, "that port") && strstr(err.text, "another port"), "%s", err.text);
	inet_pton(AF_INET, "192.0.2.1", &rule.address.v4.sin_addr);
	cr_assert_eq(ports_add(more, &rule, &err), -EADDRNOTAVAIL);
	rule.address.v4.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	rule.address.v4.sin_port = 0; /* any that is free */
	for (unsigned i = 0; i < PORTS_MAX; i++)
		cr_assert_eq(ports_add(more, &rule, &err), 0);
	cr_assert_eq(ports_add(more, &rule, &err), -ENOSPC);
	ports_destroy(more);
	loop_destroy(loop);
	fake_close(&f, listener);
}
