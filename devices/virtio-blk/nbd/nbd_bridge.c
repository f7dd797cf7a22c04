/*
 * trvmm-nbd: the NBD client of one disk; see nbd_bridge.h. Requests that come together are cut into pieces that are in flight
 * together, through libnbd's asynchronous calls, so that no server can hold us longer than a deadline. A connection that is lost fails
 * them, and is made again at growing intervals, while requests wait for nothing.
 *
 * What servers say is hostile input to much code, so it is read in a sandbox (vmm/sandbox.h), which has no network: connections are made
 * by the process of nbd_connector.h. TLS reads certificates whenever it connects, and the library has no other way to hear the name that
 * is to be in the server's: with nbds:// there is no sandbox, but sandbox_forbid_changes().
 */
#include "devices/virtio-blk/nbd/nbd_bridge.h"

#include <errno.h>
#include <fcntl.h>
#include <libnbd.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "devices/virtio-blk/nbd/nbd_connector.h"
#include "devices/virtio-blk/nbd/nbd_uri.h"
#include "vmm/sandbox.h"

#define PIECE_BYTES (256u << 10)
#define PIECES (NBD_WINDOW_BYTES / PIECE_BYTES + NBD_REQUESTS_MAX) /* the last of a request may be small */
#define REQUEST_MS 30000
#define CONNECT_MS 5000
#define FIRST_DELAY_MS 200
#define MOST_DELAY_MS 10000

struct bridge {
	const char *text_uri;
	struct nbd_uri uri;
	struct nbd_connector connector; /* but with TLS */
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

/* Gives the library a connection, or lets it make one. Fills in `text` when it fails. */
static int begin_connecting(struct bridge *bridge)
{
	struct nbd_handle *nbd = bridge->nbd;
	int fd = -1;
	if (!bridge->uri.tls) {
		fd = nbd_connector_connect(&bridge->connector, CONNECT_MS, bridge->text);
		if (fd < 0)
			return fd;
	}
	if (fd < 0 ? nbd_aio_connect_uri(nbd, bridge->text_uri) < 0
		   : nbd_set_export_name(nbd, bridge->uri.export_name) < 0 || nbd_aio_connect_socket(nbd, fd) < 0) {
		remember_text(bridge, nbd_get_error());
		return last_error();
	}
	return 0;
}

static int finish_connecting(struct bridge *bridge)
{
	const int64_t deadline = now_ms() + CONNECT_MS;
	int result = 0;
	while (result >= 0 && nbd_aio_is_connecting(bridge->nbd) > 0) {
		const int64_t left = deadline - now_ms();
		if (left <= 0) {
			remember_text(bridge, "no answer");
			return -ETIMEDOUT;
		}
		result = nbd_poll(bridge->nbd, (int)left);
	}
	if (result >= 0 && nbd_aio_is_ready(bridge->nbd) > 0)
		return 0;
	remember_text(bridge, nbd_get_error());
	return last_error();
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
	int rc = -ENOMEM;
	if (bridge->nbd)
		rc = begin_connecting(bridge);
	else
		remember_text(bridge, "out of memory");
	if (rc == 0)
		rc = finish_connecting(bridge);
	if (rc == 0)
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

/* Of a request: a command to the server. */
struct piece {
	int64_t cookie;
	unsigned request; /* whose it is */
};

/* Starts one piece. Returns its cookie, or -1. */
static int64_t start_piece(struct bridge *bridge, const struct nbd_request *request, uint64_t at, uint64_t length)
{
	struct nbd_handle *nbd = bridge->nbd;
	const uint64_t offset = request->offset + at;
	uint8_t *data = bridge->window + request->window + at;
	switch (request->op) {
	case NBD_OP_READ:
		return nbd_aio_pread(nbd, data, length, offset, NBD_NULL_COMPLETION, 0);
	case NBD_OP_WRITE:
		return nbd_aio_pwrite(nbd, data, length, offset, NBD_NULL_COMPLETION, 0);
	case NBD_OP_ZERO:
		return nbd_aio_zero(nbd, length, offset, NBD_NULL_COMPLETION, request->may_unmap ? 0 : LIBNBD_CMD_FLAG_NO_HOLE);
	default:
		return nbd_aio_flush(nbd, NBD_NULL_COMPLETION, 0);
	}
}

/* Starts all pieces of a request. Returns how many there are then, or -1. */
static int start_request(struct bridge *bridge, const struct nbd_request *request, unsigned number, struct piece *pieces,
			 unsigned count)
{
	const bool data = request->op == NBD_OP_READ || request->op == NBD_OP_WRITE;
	uint64_t at = 0;
	do {
		const uint64_t left = request->length - at;
		const uint64_t length = data && left > PIECE_BYTES ? PIECE_BYTES : left;
		const int64_t cookie = start_piece(bridge, request, at, length);
		if (cookie < 0)
			return -1;
		pieces[count++] = (struct piece){ cookie, number };
		at += length;
	} while (at < request->length);
	return (int)count;
}

/* Waits for all pieces. What the server refused is the request's error; what it did not answer ends the connection: false. */
static bool finish_pieces(struct bridge *bridge, const struct piece *pieces, unsigned count, int *errors)
{
	const int64_t deadline = now_ms() + REQUEST_MS;
	bool refused = false;
	for (unsigned done = 0; done < count;) {
		const int completed = nbd_aio_command_completed(bridge->nbd, (uint64_t)pieces[done].cookie);
		int *error = &errors[pieces[done].request];
		if (completed < 0) {
			*error = *error ? *error : last_error();
			refused = true;
		}
		if (completed != 0) {
			done++;
			continue;
		}
		const int64_t left = deadline - now_ms();
		if (left <= 0) {
			lose(bridge, "no answer");
			return false;
		}
		if (nbd_poll(bridge->nbd, (int)left) < 0) {
			lose(bridge, nbd_get_error());
			return false;
		}
	}
	if (nbd_aio_is_dead(bridge->nbd) > 0 || nbd_aio_is_closed(bridge->nbd) > 0) {
		lose(bridge, refused ? nbd_get_error() : "the server closed it");
		return false;
	}
	return true;
}

/* Has all requests done; each gets 0 or -errno. */
static void run_requests(struct bridge *bridge, const struct nbd_request *requests, unsigned request_count, int *errors)
{
	struct piece pieces[PIECES];
	int count = 0;
	for (unsigned i = 0; i < request_count && count >= 0; i++) {
		errors[i] = 0;
		count = start_request(bridge, &requests[i], i, pieces, (unsigned)count);
	}
	if (count < 0)
		lose(bridge, nbd_get_error());
	if (count >= 0 && finish_pieces(bridge, pieces, (unsigned)count, errors))
		return;
	for (unsigned i = 0; i < request_count; i++)
		errors[i] = -EIO;
}

/* Zeroes as data, for servers that know no better. */
static int write_zeroes(struct bridge *bridge, const struct nbd_request *request)
{
	struct nbd_request piece = { .op = NBD_OP_WRITE, .offset = request->offset };
	memset(bridge->window, 0, NBD_WINDOW_BYTES);
	int error = 0;
	for (uint64_t left = request->length; left && error == 0; left -= piece.length, piece.offset += piece.length) {
		piece.length = left < NBD_WINDOW_BYTES ? left : NBD_WINDOW_BYTES;
		run_requests(bridge, &piece, 1, &error);
	}
	return error;
}

/* A request that is alone. */
static int serve_one(struct bridge *bridge, const struct nbd_request *request)
{
	int error = 0;
	if (request->op == NBD_OP_FLUSH && bridge->writes_lost) {
		bridge->writes_lost = false;
		return -EIO;
	}
	if (request->op == NBD_OP_ZERO && nbd_can_zero(bridge->nbd) <= 0)
		return write_zeroes(bridge, request);
	if (request->op != NBD_OP_FLUSH || nbd_can_flush(bridge->nbd) > 0)
		run_requests(bridge, request, 1, &error);
	return error;
}

static void serve(struct bridge *bridge, const struct nbd_request *requests, unsigned count, int *errors)
{
	reconnect_when_due(bridge);
	for (unsigned i = 0; i < count; i++)
		errors[i] = -EIO;
	if (!bridge->nbd)
		return;
	if (count == 1)
		errors[0] = serve_one(bridge, requests);
	else
		run_requests(bridge, requests, count, errors);
	for (unsigned i = 0; i < count; i++) {
		if (errors[i] == 0 && requests[i].op != NBD_OP_READ)
			bridge->unflushed = requests[i].op != NBD_OP_FLUSH;
	}
}

/* Takes the requests that come together. Returns how many, or 0 when trvmm is gone. */
static unsigned take_requests(struct nbd_request *requests)
{
	unsigned count = 0;
	do {
		const ssize_t n = recv(NBD_BRIDGE_SOCKET, &requests[count], sizeof(*requests), 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n != (ssize_t)sizeof(*requests))
			return 0;
		count++;
	} while (count == 0 || (requests[count - 1].more && count < NBD_REQUESTS_MAX));
	return count;
}

static bool reply(struct bridge *bridge, int error)
{
	struct nbd_reply reply = { .error = error, .news = bridge->news };
	memcpy(reply.text, bridge->text, sizeof(reply.text));
	bridge->news = NBD_NO_NEWS;
	return send(NBD_BRIDGE_SOCKET, &reply, sizeof(reply), MSG_NOSIGNAL) == (ssize_t)sizeof(reply);
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
		struct nbd_request requests[NBD_REQUESTS_MAX];
		int errors[NBD_REQUESTS_MAX];
		const unsigned count = take_requests(requests);
		if (count == 0)
			return;
		serve(bridge, requests, count, errors);
		for (unsigned i = 0; i < count; i++) {
			if (!reply(bridge, errors[i]))
				return;
		}
	}
}

/* Everything that needs files, names or processes happens here, and nothing of the server's was read yet. */
static int confine(struct bridge *bridge, const char *option)
{
	const struct sandbox_spec spec = { .action = !strcmp(option, "--sandbox-log") ? SANDBOX_TELL : SANDBOX_KILL };
	struct error err = { "" };
	const char *why;
	int rc = nbd_uri_parse(bridge->text_uri, &bridge->uri, &why);
	const bool confined = strcmp(option, "--no-sandbox") != 0;
	if (rc < 0) {
		remember_text(bridge, why);
		return rc;
	}
	if (bridge->uri.tls) {
		if (confined)
			sandbox_forbid_changes();
		return 0;
	}
	rc = nbd_connector_start(&bridge->uri, confined, &bridge->connector);
	if (rc < 0) {
		remember_text(bridge, strerror(-rc));
		return rc;
	}
	if (!confined)
		return 0;
	rc = sandbox_close(&spec, NULL, &err);
	if (rc < 0)
		remember_text(bridge, err.text);
	else
		sandbox_enter(SANDBOX_NBD);
	return rc;
}

int main(int argc, char **argv)
{
	struct bridge bridge = { .text_uri = argc == 3 ? argv[2] : "", .delay_ms = FIRST_DELAY_MS };
	struct nbd_hello hello = { .error = 0 };
	bridge.window = mmap(NULL, NBD_WINDOW_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, NBD_BRIDGE_WINDOW, 0);
	if (argc != 3 || bridge.window == MAP_FAILED) {
		fputs("trvmm-nbd is started by trvmm, for --disk nbd://...\n", stderr);
		return 1;
	}
	close(NBD_BRIDGE_WINDOW);
	fcntl(NBD_BRIDGE_SOCKET, F_SETFD, FD_CLOEXEC); /* it is ours: the sandbox closes what has not this mark */
	hello.error = confine(&bridge, argv[1]);
	if (hello.error == 0)
		hello.error = try_to_connect(&bridge, true);
	hello.size_bytes = bridge.size_bytes;
	hello.read_only = bridge.read_only;
	memcpy(hello.text, bridge.text, sizeof(hello.text));
	if (send(NBD_BRIDGE_SOCKET, &hello, sizeof(hello), MSG_NOSIGNAL) == (ssize_t)sizeof(hello) && hello.error == 0)
		serve_all(&bridge);
	return 0;
}
