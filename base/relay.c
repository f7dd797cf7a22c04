/* See relay.h. */
#include "base/relay.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

/* How often a way goes round before others have their turn. */
#define ROUNDS 8

void relay_init(struct relay *relay, int first, int second)
{
	*relay = (struct relay){ .fds = { first, second } };
}

static void way_forget(struct relay_way *way)
{
	if (way->kept)
		munmap(way->kept, RELAY_BYTES);
	way->kept = NULL;
	way->start = way->stop = 0;
}

void relay_close(struct relay *relay)
{
	for (unsigned i = 0; i < 2; i++) {
		way_forget(&relay->ways[i]);
		if (relay->fds[i] >= 0)
			close(relay->fds[i]);
		relay->fds[i] = -1;
	}
}

void relay_reset(struct relay *relay)
{
	const struct linger none = { .l_onoff = 1, .l_linger = 0 };
	for (unsigned i = 0; i < 2; i++)
		if (relay->fds[i] >= 0)
			setsockopt(relay->fds[i], SOL_SOCKET, SO_LINGER, &none, sizeof(none));
	relay_close(relay);
}

uint32_t relay_events(const struct relay *relay, unsigned end)
{
	uint32_t wanted = 0;
	if (!relay->ways[end].over && !relay->ways[end].kept)
		wanted |= EPOLLIN;
	if (relay->ways[!end].kept)
		wanted |= EPOLLOUT;
	return wanted ? wanted : EPOLLRDHUP | (uint32_t)EPOLLET;
}

/* The receiver takes no more: the sender is told, as it would be on a connection of theirs. */
static void way_break(struct relay *relay, unsigned index)
{
	way_forget(&relay->ways[index]);
	relay->ways[index].over = true;
	shutdown(relay->fds[index], SHUT_RD);
}

/* Returns how much was taken, 0 for nothing now, or -errno. */
static ssize_t send_some(int fd, const uint8_t *bytes, size_t length)
{
	ssize_t n;
	do {
		n = send(fd, bytes, length, MSG_NOSIGNAL | MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return errno == EAGAIN ? 0 : -errno;
	return n;
}

static int way_keep(struct relay_way *way, const uint8_t *bytes, size_t length)
{
	void *kept = mmap(NULL, RELAY_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (kept == MAP_FAILED)
		return -ENOMEM;
	way->kept = memcpy(kept, bytes, length);
	way->stop = (uint32_t)length;
	return 0;
}

/* EPIPE says that the receiver wants no more, which ends this way only: its own words may still be on their way to the sender. */
static int way_write_failed(struct relay *relay, unsigned index, int error)
{
	if (error != -EPIPE)
		return error;
	way_break(relay, index);
	return 0;
}

static int way_write_kept(struct relay *relay, unsigned index)
{
	struct relay_way *way = &relay->ways[index];
	const ssize_t n = send_some(relay->fds[!index], way->kept + way->start, way->stop - way->start);
	if (n < 0)
		return way_write_failed(relay, index, (int)n);
	way->start += (uint32_t)n;
	if (way->start == way->stop)
		way_forget(way);
	return 0;
}

/* An empty message is never sent; the call only says whether one could be. vsock tells of a closed peer in no other way. */
static bool is_broken(int fd)
{
	return send(fd, "", 0, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 && errno != EAGAIN;
}

/*
 * Whether the end that was read from fds[end] is a reset. It has to be known before that end is passed on: who got one takes what came
 * for all.
 */
static bool end_is_reset(const struct relay *relay, unsigned end)
{
	if (relay->was_reset[end] && *relay->was_reset[end])
		return true;
	return relay->close_is_reset[end] && !relay->ways[!end].over && is_broken(relay->fds[end]);
}

static int way_run(struct relay *relay, unsigned index, uint8_t *scratch)
{
	struct relay_way *way = &relay->ways[index];
	int result = way->kept ? way_write_kept(relay, index) : 0;
	for (int round = 0; round < ROUNDS && result == 0 && !way->over && !way->kept; round++) {
		const ssize_t got = recv(relay->fds[index], scratch, RELAY_BYTES, MSG_DONTWAIT);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return errno == EAGAIN ? 0 : -errno;
		if (got == 0 && end_is_reset(relay, index))
			return -ECONNRESET;
		if (got == 0) {
			way->over = true;
			shutdown(relay->fds[!index], SHUT_WR);
			break;
		}
		const ssize_t taken = send_some(relay->fds[!index], scratch, (size_t)got);
		if (taken < 0)
			result = way_write_failed(relay, index, (int)taken);
		else if (taken < got)
			result = way_keep(way, scratch + taken, (size_t)(got - taken));
	}
	return result;
}

/* A reset is seen even where nothing is read any more. EPIPE is that of a peer who had ended its words before: that stays true. */
static int reset_error(int fd)
{
	int error = 0;
	socklen_t length = sizeof(error);
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
	return error == EPIPE ? 0 : -error;
}

int relay_event(struct relay *relay, unsigned end, uint32_t events, uint8_t *scratch)
{
	int result = way_run(relay, end, scratch);
	if (result == 0)
		result = way_run(relay, !end, scratch);
	if (result < 0)
		return result;
	if (events & EPOLLERR)
		result = reset_error(relay->fds[end]);
	if (result < 0)
		return result;
	if (!relay->ways[!end].over && (events & (EPOLLHUP | EPOLLERR) || (events & EPOLLRDHUP && is_broken(relay->fds[end]))))
		way_break(relay, !end);
	return relay->ways[0].over && relay->ways[1].over;
}
