/*
 * trvmm-nbd: the NBD client of one disk; see nbd_bridge.h. A request is cut into pieces that are in flight together, through libnbd's
 * asynchronous calls, so that no server can hold us longer than a deadline. A connection that is lost fails the request, and is made
 * again at growing intervals, while requests wait for nothing.
 */
#include "devices/virtio-blk/nbd/nbd_bridge.h"

#include <errno.h>
#include <libnbd.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>

#define PIECE_BYTES (256u << 10)
#define PIECES (NBD_WINDOW_BYTES / PIECE_BYTES)
#define REQUEST_MS 30000
#define CONNECT_MS 5000
#define FIRST_DELAY_MS 200
#define MOST_DELAY_MS 10000

struct bridge {
	const char *uri;
	struct nbd_handle *nbd; /* NULL: not connected */
	uint8_t *window;
	uint64_t size_bytes;
	bool read_only;
	int64_t next_attempt_ms, delay_ms;
	bool unflushed; /* writes were acknowledged since the last flush */
	bool writes_lost; /* ... and the connection was lost then: the next flush has to fail */
	enum nbd_news news;
	char text[NBD_TEXT_BYTES];
};

static int64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static int last_error(void)
{
	const int code = nbd_get_errno();
	return code > 0 && code < 4096 ? -code : -EIO;
}

static void remember_text(struct bridge *bridge, const char *text)
{
	snprintf(bridge->text, sizeof(bridge->text), "%s", text ? text : "unknown error");
}

/* ---- the connection ---------------------------------------------------------------------------------------------------------- */

static void drop(struct bridge *bridge)
{
	nbd_close(bridge->nbd);
	bridge->nbd = NULL;
}

static int connect_within(struct nbd_handle *nbd, const char *uri)
{
	const int64_t deadline = now_ms() + CONNECT_MS;
	if (nbd_aio_connect_uri(nbd, uri) < 0)
		return last_error();
	while (nbd_aio_is_connecting(nbd) > 0) {
		const int64_t left = deadline - now_ms();
		if (left <= 0)
			return -ETIMEDOUT;
		if (nbd_poll(nbd, (int)left) < 0)
			return last_error();
	}
	return nbd_aio_is_ready(nbd) > 0 ? 0 : last_error();
}

/* What a disk of ours has to be; at a reconnection, also that it is the same. */
static int look_at_export(struct bridge *bridge, bool first)
{
	const int64_t size = nbd_get_size(bridge->nbd);
	const int64_t least_block = nbd_get_block_size(bridge->nbd, LIBNBD_SIZE_MINIMUM);
	const bool read_only = nbd_is_read_only(bridge->nbd) > 0;
	if (size < 0)
		return last_error();
	const uint64_t usable = (uint64_t)size / 512 * 512;
	if (usable == 0 || least_block > 512) {
		remember_text(bridge, usable ? "the export takes no requests of 512 bytes" : "the export is empty");
		return -EINVAL;
	}
	if (!first && (usable != bridge->size_bytes || read_only != bridge->read_only)) {
		remember_text(bridge, "the export has become another one");
		return -ESTALE;
	}
	bridge->size_bytes = usable;
	bridge->read_only = read_only;
	return 0;
}

static int try_to_connect(struct bridge *bridge, bool first)
{
	bridge->nbd = nbd_create();
	int rc = bridge->nbd ? connect_within(bridge->nbd, bridge->uri) : -ENOMEM;
	if (rc)
		remember_text(bridge, rc == -ETIMEDOUT ? "no answer" : nbd_get_error());
	else
		rc = look_at_export(bridge, first);
	if (rc == 0) {
		bridge->delay_ms = FIRST_DELAY_MS;
		return 0;
	}
	if (bridge->nbd)
		drop(bridge);
	bridge->next_attempt_ms = now_ms() + bridge->delay_ms;
	bridge->delay_ms = bridge->delay_ms * 2 < MOST_DELAY_MS ? bridge->delay_ms * 2 : MOST_DELAY_MS;
	return rc;
}

static void reconnect_when_due(struct bridge *bridge)
{
	if (!bridge->nbd && now_ms() >= bridge->next_attempt_ms && try_to_connect(bridge, false) == 0)
		bridge->news = bridge->news == NBD_LOST ? NBD_NO_NEWS : NBD_BACK; /* lost and found before anybody heard */
}

static void lose(struct bridge *bridge, const char *why)
{
	remember_text(bridge, why);
	drop(bridge);
	bridge->writes_lost |= bridge->unflushed;
	bridge->unflushed = false;
	bridge->news = NBD_LOST;
	bridge->delay_ms = FIRST_DELAY_MS;
	bridge->next_attempt_ms = now_ms() + bridge->delay_ms;
}

/* ---- requests ---------------------------------------------------------------------------------------------------------------- */

/* Starts one piece. Returns its cookie, or -1. */
static int64_t start_piece(struct bridge *bridge, const struct nbd_request *request, uint64_t at, uint64_t length)
{
	struct nbd_handle *nbd = bridge->nbd;
	const uint64_t offset = request->offset + at;
	switch (request->op) {
	case NBD_OP_READ:
		return nbd_aio_pread(nbd, bridge->window + at, length, offset, NBD_NULL_COMPLETION, 0);
	case NBD_OP_WRITE:
		return nbd_aio_pwrite(nbd, bridge->window + at, length, offset, NBD_NULL_COMPLETION, 0);
	case NBD_OP_ZERO:
		return nbd_aio_zero(nbd, length, offset, NBD_NULL_COMPLETION, request->may_unmap ? 0 : LIBNBD_CMD_FLAG_NO_HOLE);
	default:
		return nbd_aio_flush(nbd, NBD_NULL_COMPLETION, 0);
	}
}

/* Waits for all pieces. What the server refused is its error; what it did not answer ends the connection. */
static int finish_pieces(struct bridge *bridge, int64_t *cookies, unsigned count)
{
	const int64_t deadline = now_ms() + REQUEST_MS;
	int rc = 0;
	for (unsigned done = 0; done < count;) {
		const int completed = nbd_aio_command_completed(bridge->nbd, (uint64_t)cookies[done]);
		if (completed < 0)
			rc = rc ? rc : last_error();
		if (completed != 0) {
			done++;
			continue;
		}
		const int64_t left = deadline - now_ms();
		if (left <= 0) {
			lose(bridge, "no answer");
			return -EIO;
		}
		if (nbd_poll(bridge->nbd, (int)left) < 0) {
			lose(bridge, nbd_get_error());
			return -EIO;
		}
	}
	if (nbd_aio_is_dead(bridge->nbd) > 0 || nbd_aio_is_closed(bridge->nbd) > 0) {
		lose(bridge, rc ? nbd_get_error() : "the server closed it");
		return -EIO;
	}
	return rc;
}

static int run_pieces(struct bridge *bridge, const struct nbd_request *request)
{
	const bool data = request->op == NBD_OP_READ || request->op == NBD_OP_WRITE;
	int64_t cookies[PIECES];
	unsigned count = 0;
	uint64_t at = 0;
	do {
		const uint64_t left = request->length - at;
		const uint64_t length = data && left > PIECE_BYTES ? PIECE_BYTES : left;
		cookies[count] = start_piece(bridge, request, at, length);
		if (cookies[count] < 0) {
			lose(bridge, nbd_get_error());
			return -EIO;
		}
		count++;
		at += length;
	} while (at < request->length);
	return finish_pieces(bridge, cookies, count);
}

/* Zeroes as data, for servers that know no better. */
static int write_zeroes(struct bridge *bridge, const struct nbd_request *request)
{
	struct nbd_request piece = { .op = NBD_OP_WRITE, .offset = request->offset };
	memset(bridge->window, 0, NBD_WINDOW_BYTES);
	int rc = 0;
	for (uint64_t left = request->length; left && rc == 0; left -= piece.length, piece.offset += piece.length) {
		piece.length = left < NBD_WINDOW_BYTES ? left : NBD_WINDOW_BYTES;
		rc = run_pieces(bridge, &piece);
	}
	return rc;
}

static int serve(struct bridge *bridge, const struct nbd_request *request)
{
	reconnect_when_due(bridge);
	if (!bridge->nbd)
		return -EIO;
	if (request->op == NBD_OP_FLUSH && bridge->writes_lost) {
		bridge->writes_lost = false;
		return -EIO;
	}
	int rc = 0;
	if (request->op == NBD_OP_ZERO && nbd_can_zero(bridge->nbd) <= 0)
		rc = write_zeroes(bridge, request);
	else if (request->op != NBD_OP_FLUSH || nbd_can_flush(bridge->nbd) > 0)
		rc = run_pieces(bridge, request);
	if (rc == 0 && request->op != NBD_OP_READ)
		bridge->unflushed = request->op != NBD_OP_FLUSH;
	return rc;
}

/* Until trvmm is gone. */
static void serve_all(struct bridge *bridge)
{
	for (;;) {
		struct pollfd ready = { .fd = NBD_BRIDGE_SOCKET, .events = POLLIN };
		const int64_t wait = bridge->nbd ? -1 : bridge->next_attempt_ms - now_ms();
		if (poll(&ready, 1, bridge->nbd ? -1 : wait > 0 ? (int)wait : 0) == 0) {
			reconnect_when_due(bridge);
			continue;
		}
		struct nbd_request request;
		const ssize_t n = recv(NBD_BRIDGE_SOCKET, &request, sizeof(request), 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n != (ssize_t)sizeof(request))
			return;
		struct nbd_reply reply = { .error = serve(bridge, &request) };
		reply.news = bridge->news;
		memcpy(reply.text, bridge->text, sizeof(reply.text));
		bridge->news = NBD_NO_NEWS;
		if (send(NBD_BRIDGE_SOCKET, &reply, sizeof(reply), MSG_NOSIGNAL) != (ssize_t)sizeof(reply))
			return;
	}
}

int main(int argc, char **argv)
{
	struct bridge bridge = { .uri = argc == 2 ? argv[1] : "", .delay_ms = FIRST_DELAY_MS };
	struct nbd_hello hello = { .error = 0 };
	bridge.window = mmap(NULL, NBD_WINDOW_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, NBD_BRIDGE_WINDOW, 0);
	if (argc != 2 || bridge.window == MAP_FAILED) {
		fputs("trvmm-nbd is started by trvmm, for --disk nbd://...\n", stderr);
		return 1;
	}
	hello.error = try_to_connect(&bridge, true);
	hello.size_bytes = bridge.size_bytes;
	hello.read_only = bridge.read_only;
	memcpy(hello.text, bridge.text, sizeof(hello.text));
	if (send(NBD_BRIDGE_SOCKET, &hello, sizeof(hello), MSG_NOSIGNAL) == (ssize_t)sizeof(hello) && hello.error == 0)
		serve_all(&bridge);
	return 0;
}
