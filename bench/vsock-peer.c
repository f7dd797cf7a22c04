/*
 * Both ends of what bench/vsock measures: a stream between the guest and the host, over vsock.
 *
 *   vsock-peer guest PORT         in the guest: connects to PORT of the host and does what it hears; process 1 resets the machine then
 *   vsock-peer vsock PORT         on the host: listens on AF_VSOCK
 *   vsock-peer unix PATH          on the host: listens on the Unix socket PATH, as `--vsock` wants it
 *   vsock-peer pair               both ends as processes of the host, over a pair of Unix sockets
 *   vsock-peer stamp              as the command of a run: asks on stdout for the host's time, hears it on stdin, says what it is now
 *   vsock-peer status COMMAND     on the host: runs COMMAND, which says such a time, and takes that from its end
 *   vsock-peer exec COMMAND       on the host: runs COMMAND, and takes the time from before it is started until it has ended
 *
 * The host's end prints a line `ROW NANOSECONDS` for each sample, the warm-up first; then `end`.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SAMPLES = 6, STREAM_BYTES = 64 << 20, PINGS = 1000, BLOCK_BYTES = 64 << 10 };

struct order {
	enum { TO_HOST, TO_GUEST, PING, CLOCK, QUIT } kind;
	uint32_t count; /* bytes, or pings */
};

struct vsock_address { /* struct sockaddr_vm, whose header musl's compiler does not find */
	uint16_t family, reserved;
	uint32_t port, cid;
	uint8_t zero[4];
};
enum { FAMILY_VSOCK = 40, CID_HOST = 2 };
static const uint32_t CID_ANY = UINT32_MAX;

static uint8_t block[BLOCK_BYTES];

static void die(const char *what)
{
	fprintf(stderr, "vsock-peer: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void give(int fd, size_t bytes)
{
	while (bytes) {
		const ssize_t n = write(fd, block, bytes < sizeof(block) ? bytes : sizeof(block));
		if (n <= 0)
			die("write");
		bytes -= (size_t)n;
	}
}

static void take(int fd, size_t bytes)
{
	while (bytes) {
		const ssize_t n = read(fd, block, bytes < sizeof(block) ? bytes : sizeof(block));
		if (n <= 0)
			die("read");
		bytes -= (size_t)n;
	}
}

static int64_t now_ns(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void obey(int fd)
{
	for (;;) {
		struct order order;
		if (read(fd, &order, sizeof(order)) != (ssize_t)sizeof(order) || order.kind == QUIT)
			return;
		if (order.kind == TO_HOST)
			give(fd, order.count);
		if (order.kind == TO_GUEST) {
			take(fd, order.count);
			give(fd, 1);
		}
		for (uint32_t i = 0; order.kind == PING && i < order.count; i++) {
			take(fd, 1);
			give(fd, 1);
		}
		const int64_t now = now_ns(CLOCK_REALTIME);
		if (order.kind == CLOCK && write(fd, &now, sizeof(now)) != (ssize_t)sizeof(now))
			die("write");
	}
}

static void command(int fd, struct order order)
{
	if (write(fd, &order, sizeof(order)) != (ssize_t)sizeof(order))
		die("write");
}

static void run_row(int fd, const char *name, struct order order)
{
	for (int sample = 0; sample < SAMPLES; sample++) {
		const int64_t start = now_ns(CLOCK_MONOTONIC);
		command(fd, order);
		if (order.kind == TO_HOST)
			take(fd, order.count);
		if (order.kind == TO_GUEST) {
			give(fd, order.count);
			take(fd, 1);
		}
		for (uint32_t i = 0; order.kind == PING && i < order.count; i++) {
			give(fd, 1);
			take(fd, 1);
		}
		printf("%s %lld\n", name, (long long)(now_ns(CLOCK_MONOTONIC) - start));
		fflush(stdout);
	}
}

/* By how much the guest's clock is ahead, as far as the way there and back lets us see. */
static void run_clock(int fd)
{
	for (int sample = 0; sample < SAMPLES; sample++) {
		int64_t guest;
		const int64_t start = now_ns(CLOCK_REALTIME);
		command(fd, (struct order){ .kind = CLOCK });
		if (read(fd, &guest, sizeof(guest)) != (ssize_t)sizeof(guest))
			die("read");
		printf("clock %lld\n", (long long)(guest - (start + now_ns(CLOCK_REALTIME)) / 2));
	}
}

static void measure(int fd)
{
	run_row(fd, "guest-to-host", (struct order){ TO_HOST, STREAM_BYTES });
	run_row(fd, "host-to-guest", (struct order){ TO_GUEST, STREAM_BYTES });
	run_row(fd, "ping-pong", (struct order){ PING, PINGS });
	run_clock(fd);
	command(fd, (struct order){ .kind = QUIT });
	puts("end");
}

/* The guest's clock may be off by milliseconds: the host's is asked for. */
static void stamp(void)
{
	int64_t host;
	const int64_t asked = now_ns(CLOCK_REALTIME);
	if (write(STDOUT_FILENO, &asked, sizeof(asked)) < 0 || read(STDIN_FILENO, &host, sizeof(host)) != (ssize_t)sizeof(host))
		die("no host");
	const int64_t now = now_ns(CLOCK_REALTIME), ahead = asked + (now - asked) / 2 - host, last = now_ns(CLOCK_REALTIME) - ahead;
	if (write(STDOUT_FILENO, &last, sizeof(last)) < 0)
		die("write");
}

/* From the time that is the command's last word to the end of the process. */
static void run_status(char **argv)
{
	for (int sample = 0; sample < SAMPLES; sample++) {
		int64_t last, now;
		int in[2], out[2], status;
		if (pipe(in) < 0 || pipe(out) < 0)
			die("pipe");
		const pid_t child = vfork();
		if (child == 0) {
			dup2(in[0], STDIN_FILENO);
			dup2(out[1], STDOUT_FILENO);
			execvp(argv[0], argv);
			_exit(127);
		}
		close(in[0]);
		close(out[1]);
		if (child < 0 || read(out[0], &last, sizeof(last)) != (ssize_t)sizeof(last))
			die("the command does not ask");
		now = now_ns(CLOCK_REALTIME);
		if (write(in[1], &now, sizeof(now)) < 0 || waitpid(child, &status, 0) != child || status != 0)
			die("the command failed");
		now = now_ns(CLOCK_REALTIME);
		if (read(out[0], &last, sizeof(last)) != (ssize_t)sizeof(last))
			die("no time");
		close(in[1]);
		close(out[0]);
		printf("status %lld\n", (long long)(now - last));
		fflush(stdout);
	}
}

/* As a tick of the host's clock may be waited for, the runs begin at different places between two. */
static void run_exec(char **argv)
{
	for (int sample = 0; sample < SAMPLES; sample++) {
		int status;
		const struct timespec pause = { .tv_nsec = 20000000 + sample * 800000 };
		nanosleep(&pause, NULL);
		const int64_t start = now_ns(CLOCK_MONOTONIC);
		const pid_t child = vfork();
		if (child == 0) {
			execvp(argv[0], argv);
			_exit(127);
		}
		if (child < 0 || waitpid(child, &status, 0) != child || status != 0)
			die("the command failed");
		printf("exec %lld\n", (long long)(now_ns(CLOCK_MONOTONIC) - start));
		fflush(stdout);
	}
}

static int accept_one(const struct sockaddr *address, socklen_t length)
{
	const int listener = socket(address->sa_family, SOCK_STREAM, 0);
	if (listener < 0 || bind(listener, address, length) < 0 || listen(listener, 1) < 0)
		die("listen");
	const int fd = accept(listener, NULL, NULL);
	if (fd < 0)
		die("accept");
	return fd;
}

static struct vsock_address vsock_address(const char *port, uint32_t cid)
{
	return (struct vsock_address){ .family = FAMILY_VSOCK, .port = (uint32_t)strtoul(port, NULL, 10), .cid = cid };
}

static void guest(const char *port)
{
	const struct vsock_address host = vsock_address(port, CID_HOST);
	const int fd = socket(FAMILY_VSOCK, SOCK_STREAM, 0);
	if (fd < 0 || connect(fd, (const struct sockaddr *)&host, sizeof(host)) < 0)
		perror("vsock-peer: connect");
	else
		obey(fd);
	if (getpid() == 1)
		reboot(RB_AUTOBOOT);
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "guest") == 0) {
		guest(argv[2]);
	} else if (argc == 3 && strcmp(argv[1], "vsock") == 0) {
		const struct vsock_address any = vsock_address(argv[2], CID_ANY);
		measure(accept_one((const struct sockaddr *)&any, sizeof(any)));
	} else if (argc == 3 && strcmp(argv[1], "unix") == 0) {
		struct sockaddr_un file = { .sun_family = AF_UNIX };
		snprintf(file.sun_path, sizeof(file.sun_path), "%s", argv[2]);
		measure(accept_one((const struct sockaddr *)&file, sizeof(file)));
	} else if (argc == 2 && strcmp(argv[1], "stamp") == 0) {
		stamp();
	} else if (argc > 2 && strcmp(argv[1], "status") == 0) {
		run_status(argv + 2);
	} else if (argc > 2 && strcmp(argv[1], "exec") == 0) {
		run_exec(argv + 2);
	} else if (argc == 2 && strcmp(argv[1], "pair") == 0) {
		int pair[2];
		if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
			die("socketpair");
		if (fork() == 0) {
			obey(pair[1]);
			_exit(0);
		}
		measure(pair[0]);
	} else {
		fprintf(stderr, "usage: vsock-peer guest|vsock PORT | unix PATH | pair | stamp | status|exec COMMAND...\n");
		return 1;
	}
	return 0;
}
