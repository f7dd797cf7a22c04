/*
 * virtio-vsock (virtio 1.2, 5.10): stream and seqpacket sockets between the guest and this process, with no vhost module.
 *
 * The host end of a connection is a pair of file descriptors, which may be anything that reads or writes without blocking: a
 * Unix socket (then both are the same), a pipe, a terminal, a regular file. Payload goes by readv and writev between them and
 * guest RAM; only what the host does not take at once is buffered. Who may connect where:
 *
 *   guest to host port P   a service registered with virtio_vsock_listen(), else, when there is a Unix socket PATH
 *                          (Firecracker's convention), a connection to the Unix socket PATH_P, else RST
 *   host to guest port P   virtio_vsock_connect(), or a client of PATH that says "CONNECT P\n" and hears "OK HOSTPORT\n"
 *
 * Services are streams. A seqpacket socket of the guest meets a Unix socket of type SOCK_SEQPACKET at PATH_P, and programs that want one
 * to the guest connect to PATH.seqpacket, where the line and its answer are a message each. Without a Unix socket the device does not
 * offer this type. See seqpacket.c for its bounds.
 *
 * All functions are called on the device's loop, or before it runs.
 */
#ifndef TRVMM_DEVICES_VIRTIO_VSOCK_VIRTIO_VSOCK_H
#define TRVMM_DEVICES_VIRTIO_VSOCK_VIRTIO_VSOCK_H

#include <stdint.h>

#include "base/error.h"
#include "base/throttle.h"
#include "devices/virtio/virtio_device.h"

#define VSOCK_HOST_CID 2
#define VSOCK_GUEST_CID 3 /* the default; any of 3 to 2^32 - 2 will do, since no other machine shares this wire */

struct virtio_vsock;

/*
 * A connection is over for the host: what the guest had sent was written (or could not be), and both descriptors are closed.
 * Called once, on the loop, never from inside a function of this header.
 */
typedef void (*vsock_closed)(void *data);

/* What became of a connect: 0 or -errno. */
typedef void (*vsock_done)(void *data, int result);

/*
 * The host end of one connection. A descriptor of -1 is a direction that does not exist: reading gives EOF, writing is discarded.
 *
 * Descriptors should be non-blocking, but need not be when that flag is shared with other programs (standard input and output):
 * then poll() is asked before each access. The process must ignore SIGPIPE.
 */
struct vsock_ends {
	int read_fd; /* to the guest; owned by the connection, which closes it */
	int write_fd; /* from the guest; owned likewise; may equal read_fd */
	vsock_closed closed; /* NULL: not wanted */
	void *closed_data;
	/*
	 * Resets, for ends that cannot say them, as Unix sockets. Both are borrowed until `closed`; NULL: not wanted.
	 * When the host end is found to be at its end and *host_reset is true, the guest gets RST and not SHUTDOWN. *guest_reset is set,
	 * before the descriptors are closed, when the guest broke the connection: by RST, or by closing both directions at once, as
	 * close(2) does without shutdown(2) before it.
	 */
	const bool *host_reset;
	bool *guest_reset;
	/*
	 * Borrowed likewise: becomes the -errno with which `write_fd` took no more, when that was no reader's doing (as a full disk is
	 * not): what the guest sent is lost then.
	 */
	int *write_error;
};

/*
 * The guest asks for a connection to host port `port`. Returns 0 and fills `ends` (handed over with both descriptors -1 and no
 * callback), or -errno: the guest gets RST (connection refused). A descriptor whose connect(2) is still in progress is allowed:
 * the guest can write at once and gets RST when it fails.
 */
typedef int (*vsock_accept)(void *data, uint32_t port, struct vsock_ends *ends);

/*
 * Creates the device with context id `guest_cid`. Its queues live in `mem`, it is served by `loop`; both are borrowed. Returns
 * 0 or -errno.
 */
int virtio_vsock_create(struct loop *loop, const struct guest_mem *mem, uint32_t guest_cid, struct virtio_vsock **vsock);

/*
 * Closes all connections, calling nobody back, removes the Unix socket and frees the device. Not from one of its callbacks. NULL is
 * allowed.
 */
void virtio_vsock_destroy(struct virtio_vsock *vsock);

/* What may go through the device in a second, in both directions together: packets and their bytes. What is more waits. */
void virtio_vsock_set_limit(struct virtio_vsock *vsock, const struct throttle_limit *limit);

struct virtio_vsock_stats {
	unsigned connections; /* now */
	uint64_t to_guest_bytes, from_guest_bytes; /* payload since the device was made */
};

void virtio_vsock_get_stats(const struct virtio_vsock *vsock, struct virtio_vsock_stats *stats);

/* The device for the transport; owned by `vsock`. */
struct virtio_device *virtio_vsock_device(struct virtio_vsock *vsock);

/* Serves host ports [first, last] by `accept(data, port, ends)`. At most 8 ranges; -ENOSPC beyond, -EEXIST when they overlap. */
int virtio_vsock_listen(struct virtio_vsock *vsock, uint32_t first, uint32_t last, vsock_accept accept, void *data);

/*
 * Connects to `guest_port`; `ends` are owned from now on. `done(data, 0)` is called when the guest accepted, done(data, -errno)
 * when it refused (-ECONNREFUSED), did not answer within 10 s (-ETIMEDOUT) or the device was reset after it was asked
 * (-ECONNRESET); then the ends are closed, and `ends.closed` is called, too. A connect before the driver is up waits for it,
 * but no longer than 10 s. `done` may be NULL; it is never called from inside this function. Returns 0, or -errno (the ends are
 * then closed, too, and nobody is called back).
 */
int virtio_vsock_connect(struct virtio_vsock *vsock, uint32_t guest_port, struct vsock_ends ends, vsock_done done, void *data);

/*
 * Opens the Unix sockets `path` and `path`.seqpacket, with mode 0600, for host programs; from now on the guest reaches those that
 * listen on `path`_PORT. Once for each device, before the driver is there. Returns 0 or -errno with one line: -EADDRINUSE when something
 * is there, -ENAMETOOLONG, and what bind(2) says.
 */
int virtio_vsock_serve_unix(struct virtio_vsock *vsock, const char *path, struct error *err);

/*
 * Connects to a program's socket `path`_PORT in place of the device, for a process that cannot: it calls virtio_vsock_connect_unix() in
 * another one. Returns a descriptor that does not block, or -errno.
 */
typedef int (*vsock_connector)(void *data, bool seqpacket, uint32_t port);
void virtio_vsock_set_connector(struct virtio_vsock *vsock, vsock_connector connector, void *data);
int virtio_vsock_connect_unix(const char *path, bool seqpacket, uint32_t port);

/* Removes the names of the sockets that virtio_vsock_serve_unix() made, and nothing else: for a process that outlives the device's. */
void virtio_vsock_unlink_unix(const char *path);

#endif
