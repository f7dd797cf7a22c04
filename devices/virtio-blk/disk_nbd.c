/* The end of nbd/nbd_bridge.h that is in trvmm; see disk_nbd.h. */
#include "devices/virtio-blk/disk_nbd.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/iov.h"
#include "devices/virtio-blk/nbd/nbd_bridge.h"

struct disk_nbd {
	struct disk disk; /* first */
	int socket; /* owned; -1: not yet */
	pid_t pid; /* 0: not started */
	uint8_t *window; /* owned; shared with the program */
	char *uri; /* owned; for messages */
	bool gone; /* the program ended; told once */
};

bool disk_nbd_is_uri(const char *name)
{
	static const char *const schemes[] = { "nbd://", "nbds://", "nbd+unix://", "nbds+unix://" };
	for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++)
		if (!strncmp(name, schemes[i], strlen(schemes[i])))
			return true;
	return false;
}

static void tell(struct disk_nbd *nbd, const char *what, const char *why)
{
	char uri[256], quoted[NBD_TEXT_BYTES];
	message("disk '%s': %s%s%s", error_quote(uri, sizeof(uri), nbd->uri, strlen(nbd->uri)), what, *why ? ": " : "",
		error_quote(quoted, sizeof(quoted), why, strnlen(why, NBD_TEXT_BYTES)));
}

/* The next reply; news are told. */
static int hear(struct disk_nbd *nbd)
{
	struct nbd_reply reply;
	ssize_t n;
	do
		n = recv(nbd->socket, &reply, sizeof(reply), 0);
	while (n < 0 && errno == EINTR);
	if (n != (ssize_t)sizeof(reply)) {
		if (!nbd->gone)
			tell(nbd, "trvmm-nbd has ended; the guest gets I/O errors", "");
		nbd->gone = true;
		return -EIO;
	}
	if (reply.news == NBD_LOST)
		tell(nbd, "the connection is lost; the guest gets I/O errors until it is back", reply.text);
	else if (reply.news == NBD_BACK)
		tell(nbd, "the connection is back", "");
	return reply.error > 0 || reply.error < -4095 ? -EIO : reply.error;
}

/* One request and its reply. A request that cannot be sent has none, which is heard as well. */
static int ask(struct disk_nbd *nbd, const struct nbd_request *request)
{
	(void)!send(nbd->socket, request, sizeof(*request), MSG_NOSIGNAL);
	return hear(nbd);
}

/* ---- transfers: as much of them as the window holds, again and again --------------------------------------------------------- */

/* What of a transfer is in flight. */
struct part {
	struct nbd_request request;
	unsigned transfer;
};

struct round {
	struct disk_nbd *nbd;
	struct disk_transfer *transfers;
	uint64_t done[DISK_TRANSFERS_MAX]; /* bytes of each */
	struct part parts[NBD_REQUESTS_MAX];
	unsigned count;
	uint32_t used; /* of the window */
};
_Static_assert(DISK_TRANSFERS_MAX <= NBD_REQUESTS_MAX, "a part of each can be in flight");

/* Adds what is left of a transfer, as far as there is room; data to be written goes to the window. */
static void add_part(struct round *round, unsigned number)
{
	const struct disk_transfer *transfer = &round->transfers[number];
	const uint64_t done = round->done[number], left = iov_total(transfer->iov, transfer->count) - done;
	const uint32_t room = NBD_WINDOW_BYTES - round->used;
	if (transfer->result || left == 0 || room == 0)
		return;
	struct part *part = &round->parts[round->count++];
	*part = (struct part){ .transfer = number,
			       .request = { .op = transfer->write ? NBD_OP_WRITE : NBD_OP_READ,
					    .window = round->used,
					    .offset = transfer->offset + done,
					    .length = left < room ? left : room } };
	if (transfer->write)
		iov_copy_out(transfer->iov, transfer->count, done, round->nbd->window + round->used, part->request.length);
	round->used += (uint32_t)part->request.length;
}

static void send_parts(struct round *round)
{
	for (unsigned i = 0; i < round->count; i++) {
		struct nbd_request *request = &round->parts[i].request;
		request->more = i + 1 < round->count;
		(void)!send(round->nbd->socket, request, sizeof(*request), MSG_NOSIGNAL);
	}
}

static void hear_parts(struct round *round)
{
	for (unsigned i = 0; i < round->count; i++) {
		const struct part *part = &round->parts[i];
		struct disk_transfer *transfer = &round->transfers[part->transfer];
		transfer->result = hear(round->nbd);
		if (transfer->result == 0 && !transfer->write)
			iov_copy_in(transfer->iov, transfer->count, round->done[part->transfer],
				    round->nbd->window + part->request.window, part->request.length);
		round->done[part->transfer] += part->request.length;
	}
}

static void nbd_transfer(struct disk *disk, struct disk_transfer *transfers, unsigned count)
{
	struct round round = { .nbd = (struct disk_nbd *)disk, .transfers = transfers };
	for (unsigned i = 0; i < count; i++)
		transfers[i].result = 0;
	do {
		round.count = round.used = 0;
		for (unsigned i = 0; i < count; i++)
			add_part(&round, i);
		send_parts(&round);
		hear_parts(&round);
	} while (round.count);
}

static int nbd_readv(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned count)
{
	struct disk_transfer transfer = { .offset = offset, .iov = iov, .count = count };
	nbd_transfer(disk, &transfer, 1);
	return transfer.result;
}

static int nbd_writev(struct disk *disk, uint64_t offset, const struct iovec *iov, unsigned count)
{
	struct disk_transfer transfer = { .write = true, .offset = offset, .iov = iov, .count = count };
	nbd_transfer(disk, &transfer, 1);
	return transfer.result;
}

static int nbd_flush(struct disk *disk)
{
	const struct nbd_request request = { .op = NBD_OP_FLUSH };
	return disk->read_only ? 0 : ask((struct disk_nbd *)disk, &request);
}

static int nbd_write_zeroes(struct disk *disk, uint64_t offset, uint64_t length, bool may_unmap)
{
	const struct nbd_request request = { .op = NBD_OP_ZERO, .may_unmap = may_unmap, .offset = offset, .length = length };
	return length ? ask((struct disk_nbd *)disk, &request) : 0;
}

/* What NBD trims may read as anything, and a disk's discarded ranges are to read as zeroes. */
static int nbd_discard(struct disk *disk, uint64_t offset, uint64_t length)
{
	return nbd_write_zeroes(disk, offset, length, true);
}

static void nbd_destroy(struct disk *disk)
{
	struct disk_nbd *nbd = (struct disk_nbd *)disk;
	if (nbd->socket >= 0)
		close(nbd->socket);
	if (nbd->pid > 0) {
		kill(nbd->pid, SIGKILL);
		while (waitpid(nbd->pid, NULL, 0) < 0 && errno == EINTR)
			;
	}
	if (nbd->window)
		munmap(nbd->window, NBD_WINDOW_BYTES);
	free(nbd->uri);
	free(nbd);
}

static const struct disk_ops nbd_ops = {
	.readv = nbd_readv,
	.writev = nbd_writev,
	.transfer = nbd_transfer,
	.flush = nbd_flush,
	.discard = nbd_discard,
	.write_zeroes = nbd_write_zeroes,
	.destroy = nbd_destroy,
};

/* Starts the program with its ends of socket and window. */
static int spawn(struct disk_nbd *nbd, const char *program, const char *sandbox, int socket, int window, struct error *err)
{
	static char name[] = "trvmm-nbd";
	char *const argv[] = { name, (char *)(uintptr_t)sandbox, nbd->uri, NULL };
	posix_spawn_file_actions_t actions;
	/* Out of the way of the numbers that they get. */
	const int socket_copy = fcntl(socket, F_DUPFD_CLOEXEC, 10), window_copy = fcntl(window, F_DUPFD_CLOEXEC, 10);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDWR, 0);
	posix_spawn_file_actions_adddup2(&actions, STDIN_FILENO, STDOUT_FILENO);
	posix_spawn_file_actions_adddup2(&actions, socket_copy, NBD_BRIDGE_SOCKET);
	posix_spawn_file_actions_adddup2(&actions, window_copy, NBD_BRIDGE_WINDOW);
	const int code = posix_spawn(&nbd->pid, program, &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(socket_copy);
	close(window_copy);
	if (code == 0)
		return 0;
	nbd->pid = 0;
	return error_set(err, -code, "network block devices need the program '%s': %s", program, strerror(code));
}

static int start(struct disk_nbd *nbd, const char *program, const char *sandbox, struct error *err)
{
	int ends[2] = { -1, -1 };
	const int window = memfd_create("trvmm-nbd", MFD_CLOEXEC);
	int rc = 0;
	if (window < 0 || ftruncate(window, NBD_WINDOW_BYTES) < 0 ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		rc = error_set(err, -errno, "%s", strerror(errno));
	void *map = rc ? MAP_FAILED : mmap(NULL, NBD_WINDOW_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, window, 0);
	if (rc == 0 && map == MAP_FAILED)
		rc = error_set(err, -errno, "%s", strerror(errno));
	if (rc == 0) {
		nbd->window = map;
		nbd->socket = ends[0];
		rc = spawn(nbd, program, sandbox, ends[1], window, err);
	}
	if (window >= 0)
		close(window);
	if (ends[1] >= 0)
		close(ends[1]);
	return rc;
}

static int hear_hello(struct disk_nbd *nbd, bool read_only, struct error *err)
{
	struct nbd_hello hello;
	char quoted[NBD_TEXT_BYTES];
	ssize_t n;
	do
		n = recv(nbd->socket, &hello, sizeof(hello), 0);
	while (n < 0 && errno == EINTR);
	if (n != (ssize_t)sizeof(hello))
		return error_set(err, -EIO, "trvmm-nbd ended without a word");
	if (hello.error)
		return error_set(err, hello.error < 0 && hello.error >= -4095 ? hello.error : -EIO, "%s",
				 error_quote(quoted, sizeof(quoted), hello.text, strnlen(hello.text, sizeof(hello.text))));
	if (hello.size_bytes == 0 || hello.size_bytes % DISK_SECTOR_BYTES || hello.size_bytes > INT64_MAX)
		return error_set(err, -EINVAL, "is a disk of %llu bytes", (unsigned long long)hello.size_bytes);
	nbd->disk.size_bytes = hello.size_bytes;
	nbd->disk.read_only = read_only || hello.read_only;
	return 0;
}

int disk_nbd_open(const char *program, const char *sandbox, const char *uri, bool read_only, struct disk **result,
		  struct error *err)
{
	char quoted[512];
	struct disk_nbd *nbd = calloc(1, sizeof(*nbd));
	if (!nbd || !(nbd->uri = strdup(uri))) {
		free(nbd);
		return error_set(err, -ENOMEM, "out of memory");
	}
	nbd->disk.ops = &nbd_ops;
	nbd->socket = -1;
	int rc = start(nbd, program, sandbox, err);
	if (rc == 0)
		rc = hear_hello(nbd, read_only, err);
	if (rc < 0) {
		nbd_destroy(&nbd->disk);
		return error_prefix(err, rc, "disk '%s'", error_quote(quoted, sizeof(quoted), uri, strlen(uri)));
	}
	*result = &nbd->disk;
	return 0;
}
