/*
 * A root user of a Linux guest who means no good: hostile ATTACK. Linked statically, put into guests by 80-hostile.sh.
 *
 *   garbage   takes the agent's descriptors away from it and writes nonsense into its connections to the host
 *   connect   connects to many ports of the host, and without end to those of the agent; then to nobody's
 *   init      overwrites the code of process 1, so that the kernel panics
 *   fork      forks until it is killed
 *   memory    allocates until it is killed
 *   spin      keeps every processor busy, before all others
 *   ports     reads and writes I/O ports, but not those that reset the machine
 *   escape    writes a million bytes of terminal escape sequences
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "guest/agent/protocol.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif

#define HOST_CID 2

/* linux/vm_sockets.h */
struct vsock_address {
	unsigned short family, reserved;
	unsigned port, cid;
	unsigned char flags, zero[3];
};

static uint32_t seed = 1;

static uint32_t any(void)
{
	seed = seed * 1664525u + 1013904223u;
	return seed >> 8;
}

static void fill(uint8_t *bytes, size_t length)
{
	for (size_t i = 0; i < length; i++)
		bytes[i] = (uint8_t)any();
}

/* ---- the agent's connections ---- */

static int garbage(void)
{
	uint8_t bytes[65536];
	unsigned taken = 0;
	const int agent = (int)syscall(SYS_pidfd_open, 1, 0);
	fill(bytes, sizeof(bytes));
	for (int fd = 0; fd < 64; fd++) {
		int type;
		socklen_t length = sizeof(type);
		const int copy = (int)syscall(SYS_pidfd_getfd, agent, fd, 0);
		if (copy < 0 || getsockopt(copy, SOL_SOCKET, SO_TYPE, &type, &length) < 0 || type != SOCK_STREAM)
			continue;
		taken++;
		fcntl(copy, F_SETFL, O_NONBLOCK);
		(void)!write(copy, bytes, sizeof(bytes));
	}
	printf("%u sockets\n", taken);
	fflush(stdout);
	sleep(20);
	return taken ? 0 : 1;
}

/* ---- connections of our own ---- */

static int connect_to(unsigned port)
{
	const struct vsock_address address = { .family = 40 /* AF_VSOCK */, .port = port, .cid = HOST_CID };
	const int fd = socket(40, SOCK_STREAM | SOCK_NONBLOCK, 0);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 && errno != EINPROGRESS) {
		close(fd);
		return -1;
	}
	return fd;
}

static int flood(void)
{
	static const unsigned agents[] = { AGENT_PORT_CONTROL, AGENT_PORT_PROXY, AGENT_PORT_STREAMS, AGENT_PORT_STREAMS + 1,
					   AGENT_PORT_STREAMS + 4 };
	uint8_t bytes[4096];
	unsigned made = 0;
	fill(bytes, sizeof(bytes));
	for (unsigned port = 0; port < 1500; port++) {
		const int fd = connect_to(port < 1400 ? port : any() << 8 | any());
		if (fd >= 0) {
			(void)!send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL);
			close(fd);
		}
	}
	for (unsigned i = 0; i < 800; i++) {
		const int fd = connect_to(agents[i % 5]);
		made += fd >= 0;
		if (fd >= 0)
			(void)!send(fd, bytes, any() % sizeof(bytes), MSG_NOSIGNAL);
	}
	printf("%u open\n", made);
	return 0;
}

/* ---- the machine ---- */

static int init(void)
{
	/* Seized, as process 1 does not stop for a signal. */
	if (ptrace(PTRACE_SEIZE, 1, NULL, NULL) < 0 || ptrace(PTRACE_INTERRUPT, 1, NULL, NULL) < 0)
		return 1;
	waitpid(1, NULL, __WALL);
	FILE *maps = fopen("/proc/1/maps", "r");
	char line[256];
	while (maps && fgets(line, sizeof(line), maps)) {
		unsigned long start, end;
		char mode[8];
		if (sscanf(line, "%lx-%lx %7s", &start, &end, mode) != 3 || mode[2] != 'x')
			continue;
		for (unsigned long at = start; at < end; at += sizeof(long))
			ptrace(PTRACE_POKETEXT, 1, (void *)at, (void *)-1L);
	}
	ptrace(PTRACE_DETACH, 1, NULL, NULL);
	sleep(20);
	return 1;
}

static int __attribute__((noreturn)) fork_bomb(void)
{
	for (;;)
		if (fork() < 0)
			(void)any();
}

static int __attribute__((noreturn)) memory(void)
{
	for (;;) {
		uint8_t *block = malloc(1 << 20);
		if (block)
			fill(block, 1 << 20);
	}
}

static int __attribute__((noreturn)) spin(void)
{
	const struct sched_param first = { .sched_priority = 99 };
	for (unsigned i = 0; i < 7; i++)
		if (fork() == 0)
			break;
	sched_setscheduler(0, SCHED_FIFO, &first);
	for (;;)
		;
}

static int ports(void)
{
	if (iopl(3) < 0) {
		perror("iopl");
		return 1;
	}
	for (unsigned port = 0; port < 0x10000; port++) {
		if (port == 0x64 || port == 0xcf9 || (port >= 0x3f8 && port < 0x400))
			continue;
		outb((unsigned char)any(), (unsigned short)port);
		(void)inb((unsigned short)port);
		(void)inl((unsigned short)port);
	}
	puts("probed");
	return 0;
}

static int escape(void)
{
	static const char text[] = "\033[2J\033]0;title\007\033[31m\033P$q\033\\\x9b"
				   "6n\r\n\b\v\f\x7f";
	char bytes[40 * 1000];
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = text[i % (sizeof(text) - 1)];
	for (unsigned i = 0; i < 25; i++)
		if (write(STDOUT_FILENO, bytes, sizeof(bytes)) != (ssize_t)sizeof(bytes))
			return 1;
	return 0;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int (*attack)(void);
	} attacks[] = { { "garbage", garbage }, { "connect", flood }, { "init", init },   { "fork", fork_bomb },
			{ "memory", memory },   { "spin", spin },     { "ports", ports }, { "escape", escape } };
	for (size_t i = 0; argc == 2 && i < sizeof(attacks) / sizeof(attacks[0]); i++)
		if (!strcmp(argv[1], attacks[i].name))
			return attacks[i].attack();
	fprintf(stderr, "usage: hostile garbage|connect|init|fork|memory|spin|ports|escape\n");
	return 2;
}
