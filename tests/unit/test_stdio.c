/* stdio.c: each kind of descriptor is read and written without blocking, and its shared flags stay as they were. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "vmm/stdio.h"

TestSuite(stdio, .timeout = 30);

static bool is_non_blocking(int fd)
{
	return fcntl(fd, F_GETFL) & O_NONBLOCK;
}

static bool is_cloexec(int fd)
{
	return fcntl(fd, F_GETFD) & FD_CLOEXEC;
}

/* Reads until `length` bytes have come or the end; waits with poll, so a descriptor that blocks would hang here. */
static size_t read_some(int fd, char *to, size_t length)
{
	size_t at = 0;
	while (at < length) {
		struct pollfd p = { .fd = fd, .events = POLLIN };
		if (poll(&p, 1, 5000) <= 0)
			break;
		const ssize_t n = read(fd, to + at, length - at);
		if (n < 0 && errno == EAGAIN)
			continue;
		if (n <= 0)
			break;
		at += (size_t)n;
	}
	return at;
}

static void close_end(const struct stdio_end *end)
{
	close(end->fd);
	if (end->done_fd >= 0)
		close(end->done_fd);
}

static void expect_done(const struct stdio_end *end)
{
	struct pollfd p = { .fd = end->done_fd, .events = POLLIN };
	cr_assert_eq(poll(&p, 1, 5000), 1);
	cr_expect(p.revents & POLLHUP);
}

Test(stdio, pipe_is_opened_again)
{
	struct stdio_end in, out;
	char bytes[8];
	int ends[2];
	cr_assert_eq(pipe(ends), 0);
	cr_assert_eq(stdio_open_read(ends[0], &in), 0);
	cr_assert_eq(stdio_open_write(ends[1], &out), 0);
	cr_expect(is_non_blocking(in.fd) && is_non_blocking(out.fd) && is_cloexec(in.fd) && is_cloexec(out.fd));
	cr_expect(!is_non_blocking(ends[0]) && !is_non_blocking(ends[1]));
	cr_expect_eq(out.done_fd, -1);
	cr_expect(read(in.fd, bytes, 1) < 0 && errno == EAGAIN);
	cr_assert_eq(write(out.fd, "hello", 5), 5);
	cr_expect_eq(read(in.fd, bytes, sizeof(bytes)), 5);
	close_end(&out);
	close(ends[1]);
	cr_expect_eq(read(in.fd, bytes, 1), 0);
	close_end(&in);
	close(ends[0]);
}

Test(stdio, regular_file_shares_its_position)
{
	char path[] = "/tmp/trvmm-stdio-XXXXXX", bytes[32] = "";
	struct stdio_end out;
	const int fd = mkostemp(path, O_CLOEXEC);
	cr_assert_eq(write(fd, "before ", 7), 7);
	cr_assert_eq(stdio_open_write(fd, &out), 0);
	cr_expect_eq(out.done_fd, -1);
	cr_assert_eq(write(out.fd, "during ", 7), 7);
	close_end(&out);
	cr_assert_eq(write(fd, "after", 5), 5);
	cr_expect_eq(pread(fd, bytes, sizeof(bytes) - 1, 0), 19);
	cr_expect_str_eq(bytes, "before during after");
	close(fd);
	unlink(path);
}

Test(stdio, null_device)
{
	struct stdio_end in;
	char c;
	const int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	cr_assert_eq(stdio_open_read(fd, &in), 0);
	cr_expect_eq(read(in.fd, &c, 1), 0);
	cr_expect_eq(in.done_fd, -1);
	close_end(&in);
	close(fd);
}

Test(stdio, terminal_is_opened_again)
{
	struct stdio_end in, out;
	int master, slave;
	char bytes[8];
	struct termios raw;
	cfmakeraw(&raw);
	cr_assert_eq(openpty(&master, &slave, NULL, NULL, NULL), 0);
	tcgetattr(slave, &raw);
	cfmakeraw(&raw);
	tcsetattr(slave, TCSANOW, &raw);
	cr_assert_eq(stdio_open_read(slave, &in), 0);
	cr_assert_eq(stdio_open_write(slave, &out), 0);
	cr_expect(!is_non_blocking(slave));
	cr_expect(is_non_blocking(in.fd) && is_non_blocking(out.fd));
	cr_expect_eq(out.done_fd, -1);
	cr_expect(read(in.fd, bytes, 1) < 0 && errno == EAGAIN);
	cr_assert_eq(write(master, "key", 3), 3);
	cr_expect_eq(read_some(in.fd, bytes, 3), 3u);
	cr_assert_eq(write(out.fd, "text", 4), 4);
	cr_expect_eq(read_some(master, bytes, 4), 4u);
	close_end(&in);
	close_end(&out);
	close(master);
	close(slave);
}

Test(stdio, socket_is_read_by_a_thread)
{
	struct stdio_end in;
	char bytes[200000];
	int pair[2];
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	cr_assert_eq(stdio_open_read(pair[0], &in), 0);
	cr_expect(is_non_blocking(in.fd) && is_cloexec(in.fd) && !is_non_blocking(pair[0]));
	cr_expect(read(in.fd, bytes, 1) < 0 && errno == EAGAIN);
	cr_assert_eq(write(pair[1], "hello", 5), 5);
	cr_expect_eq(read_some(in.fd, bytes, 5), 5u);
	close(pair[1]);
	cr_expect_eq(read_some(in.fd, bytes, 1), 0u);
	close_end(&in);
	close(pair[0]);
}

Test(stdio, socket_is_written_by_a_thread)
{
	enum { LENGTH = 1 << 20 };
	static char bytes[LENGTH], back[LENGTH];
	struct stdio_end out;
	int pair[2];
	size_t sent = 0, received = 0;
	for (size_t i = 0; i < LENGTH; i++)
		bytes[i] = (char)(i * 7 + i / 1000);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	cr_assert_eq(stdio_open_write(pair[0], &out), 0);
	cr_assert(out.done_fd >= 0);
	cr_expect(is_non_blocking(out.fd) && is_cloexec(out.fd) && is_cloexec(out.done_fd));
	while (sent < LENGTH) {
		const ssize_t n = write(out.fd, bytes + sent, LENGTH - sent);
		if (n > 0)
			sent += (size_t)n;
		else if (n < 0 && errno == EAGAIN) {
			/* Only when the thread is held up, too. */
			struct pollfd room = { .fd = out.fd, .events = POLLOUT };
			if (poll(&room, 1, 50) == 0)
				received += read_some(pair[1], back + received, 10000);
		} else
			cr_assert_fail("write failed");
	}
	/* Closed, but not yet done: much waits in the pipe. */
	close(out.fd);
	struct pollfd p = { .fd = out.done_fd };
	cr_expect_eq(poll(&p, 1, 100), 0);
	received += read_some(pair[1], back + received, LENGTH - received);
	cr_expect_eq(received, (size_t)LENGTH);
	cr_expect(memcmp(bytes, back, LENGTH) == 0);
	expect_done(&out);
	close(out.done_fd);
	close(pair[0]);
	close(pair[1]);
}

Test(stdio, broken_socket_ends_the_thread)
{
	struct stdio_end out;
	int pair[2];
	signal(SIGPIPE, SIG_IGN);
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	cr_assert_eq(stdio_open_write(pair[0], &out), 0);
	close(pair[1]);
	cr_assert_eq(write(out.fd, "x", 1), 1);
	expect_done(&out);
	cr_expect(write(out.fd, "x", 1) < 0 && errno == EPIPE);
	close_end(&out);
	close(pair[0]);
}

/* What the guest will not read is left for the next program. */
Test(stdio, thread_leaves_input_alone_when_nobody_reads)
{
	struct stdio_end in;
	char bytes[8];
	int pair[2];
	cr_assert_eq(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
	cr_assert_eq(stdio_open_read(pair[0], &in), 0);
	close_end(&in);
	usleep(100000);
	cr_assert_eq(write(pair[1], "later", 5), 5);
	usleep(100000);
	cr_expect_eq(recv(pair[0], bytes, sizeof(bytes), MSG_DONTWAIT), 5);
	close(pair[0]);
	close(pair[1]);
}

Test(stdio, fifo_without_a_reader)
{
	char folder[] = "/tmp/trvmm-fifo-XXXXXX", path[64];
	struct stdio_end out;
	signal(SIGPIPE, SIG_IGN);
	cr_assert(mkdtemp(folder) != NULL);
	snprintf(path, sizeof(path), "%s/fifo", folder);
	cr_assert_eq(mkfifo(path, 0600), 0);
	const int reader = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	const int writer = open(path, O_WRONLY | O_CLOEXEC);
	close(reader);
	/* It cannot be opened again, so a thread finds out that it is broken. */
	cr_assert_eq(stdio_open_write(writer, &out), 0);
	cr_assert_eq(write(out.fd, "x", 1), 1);
	expect_done(&out);
	close_end(&out);
	close(writer);
	unlink(path);
	rmdir(folder);
}

Test(stdio, bad_descriptors)
{
	struct stdio_end end = { .fd = 77, .done_fd = 78 };
	cr_expect_eq(stdio_open_read(-1, &end), -EBADF);
	cr_expect_eq(stdio_open_write(1000, &end), -EBADF);
	cr_expect(end.fd == 77 && end.done_fd == 78);
}
