/*
 * Bytes between a command's pipes (or its pty) and its vsock connections.
 *
 *             stdin: connection -> buffer -> pipe          closed by the host: the pipe is closed (end of file)
 *   stdout, stderr:  pipe -> buffer -> connection          closed by the host: the pipe is closed (SIGPIPE, EPIPE)
 *         terminal:  connection <-> pty                    closed by the host: the master is closed (SIGHUP)
 *
 * Each direction has one buffer and reads only into an empty one, so a peer that does not take its bytes stops its own direction
 * and nothing else. read and write rather than splice: the kernel splices to vsock in packets of one page, a write makes one of 64
 * KiB.
 *
 * epoll is level-triggered for what a direction waits for. An end that waits for nothing is watched for edges only: a hung-up pipe
 * would otherwise be reported for ever. Idle connections are watched for EPOLLRDHUP: vsock reports a connection that the host has
 * closed neither as EPOLLHUP nor as EPOLLERR.
 */
#include <errno.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "guest/agent/agent.h"

/* How often a pump goes round before the others have their turn. */
#define ROUNDS 8

/* More than a pty holds: bounds the farewell of a terminal whose background processes write for ever. */
#define PTY_DRAIN_BYTES (256u << 10)

#define CTRL_D 4

void end_close(struct end *end)
{
	if (end->fd >= 0)
		close(end->fd); /* nobody else has it open, so epoll forgets it */
	end->fd = -1;
	end->watched = WATCHED_NOT;
	end->connecting = false;
}

void pump_open(struct command *c, unsigned index, unsigned from, unsigned to, bool output)
{
	struct pump *p = &c->pumps[index];
	p->active = true;
	p->output = output;
	p->from = (uint8_t)from;
	p->to = (uint8_t)to;
	p->start = p->stop = 0;
	p->left = UINT64_MAX;
}

/* The direction has ended, at either side. Input to a pty leaves the pty open: there is still its output. */
static void pump_end(struct command *c, struct pump *p)
{
	p->active = false;
	if (!p->output && c->flags & AGENT_RUN_TERMINAL)
		return;
	end_close(&c->ends[p->from]);
	end_close(&c->ends[p->to]);
	if (c->flags & AGENT_RUN_TERMINAL)
		c->pumps[0].active = false;
}

/* Fills the buffer. Returns false when nothing is to be written now; the pump may have ended. */
static bool pump_fill(struct command *c, struct pump *p)
{
	ssize_t n = 0;
	if (p->left) {
		do {
			n = read(c->ends[p->from].fd, p->buffer, p->left < PUMP_BYTES ? (size_t)p->left : PUMP_BYTES);
		} while (n < 0 && errno == EINTR);
		if (n < 0 && errno == EAGAIN && !c->exited)
			return false;
	}
	if (n == 0 && !p->output && p->left && c->flags & AGENT_RUN_TERMINAL && c->flags & AGENT_RUN_STDIN) {
		/* The end of the host's input is, for a terminal, the key that says so. */
		p->buffer[0] = CTRL_D;
		p->left = 1;
		n = 1;
	}
	if (n <= 0) {
		pump_end(c, p);
		return false;
	}
	p->start = 0;
	p->stop = (uint32_t)n;
	if (p->left != UINT64_MAX)
		p->left -= (uint64_t)n;
	return true;
}

static void pump_run(struct command *c, struct pump *p)
{
	for (int round = 0; round < ROUNDS; round++) {
		/* The end of a farewell needs no connection. */
		const bool over = p->start == p->stop && !p->left;
		if (!over && (c->ends[p->from].connecting || c->ends[p->to].connecting))
			return;
		if (p->start == p->stop && !pump_fill(c, p))
			return;
		ssize_t n;
		do {
			n = write(c->ends[p->to].fd, p->buffer + p->start, p->stop - p->start);
		} while (n < 0 && errno == EINTR);
		if (n < 0 && errno == EAGAIN)
			return;
		if (n < 0) {
			pump_end(c, p);
			return;
		}
		p->start += (uint32_t)n;
	}
	/* Nothing more would ever happen at the ends of a farewell that has just been said. */
	if (p->start == p->stop && !p->left)
		pump_end(c, p);
}

/* An empty message is never sent; the call only says whether one could be. */
static bool connection_is_broken(int fd)
{
	return send(fd, "", 0, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno != EAGAIN;
}

void pump_event(struct command *c, unsigned end, uint32_t events)
{
	struct end *e = &c->ends[end];
	if (e->fd < 0)
		return;
	e->connecting = false;
	for (unsigned i = 0; i < PUMPS; i++) {
		struct pump *p = &c->pumps[i];
		if (!p->active || (p->from != end && p->to != end))
			continue;
		const bool broken = p->to == end && (events & (EPOLLERR | EPOLLHUP) ||
						     (events & EPOLLRDHUP && p->output && connection_is_broken(e->fd)));
		if (broken)
			pump_end(c, p);
		else
			pump_run(c, p);
	}
}

void pump_drain(struct command *c)
{
	for (unsigned i = 0; i < PUMPS; i++) {
		struct pump *p = &c->pumps[i];
		if (!p->active)
			continue;
		if (!p->output) {
			pump_end(c, p);
			continue;
		}
		int waiting = PTY_DRAIN_BYTES;
		if (!(c->flags & AGENT_RUN_TERMINAL) && ioctl(c->ends[p->from].fd, FIONREAD, &waiting) < 0)
			waiting = 0;
		p->left = (uint64_t)waiting;
		pump_run(c, p);
	}
}

static uint32_t end_interest(const struct command *c, unsigned end)
{
	uint32_t wanted = 0;
	if (c->ends[end].connecting)
		return EPOLLOUT;
	for (unsigned i = 0; i < PUMPS; i++) {
		const struct pump *p = &c->pumps[i];
		if (!p->active || c->ends[p->from].connecting || c->ends[p->to].connecting)
			continue;
		const bool empty = p->start == p->stop;
		if (p->from == end && empty)
			wanted |= EPOLLIN;
		if (p->to == end && !empty)
			wanted |= EPOLLOUT;
	}
	return wanted ? wanted : EPOLLRDHUP | (uint32_t)EPOLLET;
}

void pump_watch(struct command *c)
{
	for (unsigned i = 0; i < ENDS; i++) {
		const uint64_t tag = (uint64_t)c->generation << 16 | c->session << 3 | i;
		if (c->ends[i].fd >= 0)
			watch(c->ends[i].fd, &c->ends[i].watched, end_interest(c, i), tag);
	}
}

bool pump_has_output(const struct command *c)
{
	for (unsigned i = 0; i < PUMPS; i++) {
		if (c->pumps[i].active && c->pumps[i].output)
			return true;
	}
	return false;
}
