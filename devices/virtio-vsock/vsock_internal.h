/*
 * What the files of this folder share: the packet header, a connection, the device. Nothing outside includes it but the unit tests.
 *
 *   virtio_vsock.c   the device, and what comes on the tx queue
 *   rx.c             the rx queue: buffers, and whose turn it is
 *   service.c        who serves a port of the host, connects to the guest, timeouts
 *   packet.c         what a packet from the guest means: the rules of 5.10.6 and when they end in RST
 *   connection.c     the life of a connection, from its table entry to its last callback
 *   credit.c         what may be in flight, both directions
 *   backlog.c        bytes of the guest that the host has not taken yet
 *   stream.c         the bytes of a stream, both directions
 *   seqpacket.c      the same with messages
 *   host_end.c       descriptors of the host: reading, writing, watching
 *   unix.c           host programs and their Unix sockets
 */
#ifndef TRVMM_DEVICES_VIRTIO_VSOCK_INTERNAL_H
#define TRVMM_DEVICES_VIRTIO_VSOCK_INTERNAL_H

#include <assert.h>

#include "base/le.h"
#include "base/loop.h"
#include "devices/virtio-vsock/list.h"
#include "devices/virtio-vsock/virtio_vsock.h"

/*
 * The header of every packet (virtio 1.2, 5.10.6):
 *
 *    0         8         16         20         24    28     30   32      36          40        44
 *    | src_cid | dst_cid | src_port | dst_port | len | type | op | flags | buf_alloc | fwd_cnt | payload: len bytes
 */
struct vsock_hdr {
	le64 src_cid, dst_cid;
	le32 src_port, dst_port;
	le32 len;
	le16 type, op;
	le32 flags;
	le32 buf_alloc, fwd_cnt;
};
static_assert(sizeof(struct vsock_hdr) == 44, "virtio 1.2, 5.10.6");

enum { VSOCK_QUEUE_RX = 0, VSOCK_QUEUE_TX = 1, VSOCK_QUEUE_EVENT = 2 }; /* rx and tx as the driver sees it (5.10.2) */

#define VSOCK_FEATURE_SEQPACKET (1ull << 1) /* 5.10.3; streams need none */

#define VSOCK_TYPE_STREAM 1
#define VSOCK_TYPE_SEQPACKET 2

enum vsock_op {
	VSOCK_OP_INVALID = 0,
	VSOCK_OP_REQUEST = 1,
	VSOCK_OP_RESPONSE = 2,
	VSOCK_OP_RST = 3,
	VSOCK_OP_SHUTDOWN = 4,
	VSOCK_OP_RW = 5,
	VSOCK_OP_CREDIT_UPDATE = 6,
	VSOCK_OP_CREDIT_REQUEST = 7,
};

#define VSOCK_SHUTDOWN_RCV 1u /* the sender of the packet will receive no more */
#define VSOCK_SHUTDOWN_SEND 2u /* the sender of the packet will send no more */
#define VSOCK_SHUTDOWN_BOTH 3u

#define VSOCK_SEQ_EOM 1u /* flags of RW (5.10.6.6.1): the last bytes of a message */

#define VSOCK_CONNECTIONS_MAX 4096u
#define VSOCK_BUCKETS 2048u /* a power of two */
#define VSOCK_RST_FIFO 64u /* a power of two */
#define VSOCK_SERVICES_MAX 8u
#define VSOCK_MARKS 16u
#define VSOCK_RX_BATCH 16u /* rx buffers that are read into at once; a power of two */
#define VSOCK_ROUND_PACKETS 256u /* packets each way before the loop's other sources have their turn */
#define VSOCK_EPHEMERAL_FIRST (1u << 30) /* host ports of connections that start at the host */
#define VSOCK_TIMEOUT_NS 10000000000ull /* for the guest's answer to REQUEST, and for a host program's CONNECT line */

struct vsock_conn;

/* One descriptor of a host end. */
struct vsock_end {
	struct loop_source source; /* source.fd is the descriptor: owned; -1: none */
	struct vsock_conn *conn;
	bool is_socket;
	bool blocking; /* not a socket, and O_NONBLOCK is not set: see host_end.c */
	bool watched; /* registered with the loop */
	bool unwatchable; /* epoll refuses it (regular files, /dev/null): always ready */
	bool hung; /* EPOLLHUP or EPOLLERR came; no longer watched: ready from now on */
};

enum vsock_state {
	VSOCK_CONNECTING, /* started at the host; REQUEST is to be sent or was sent, RESPONSE did not come yet */
	VSOCK_OPEN,
	VSOCK_RESET, /* ends closed, RST still to be sent */
	VSOCK_DETACHED, /* over for the guest (not in the table); the backlog is still being written to the host */
	VSOCK_DEAD, /* freed as soon as nobody on the stack holds it */
};

/* What a connection still has to tell the guest; each is one packet, whatever the number of causes. */
enum {
	PENDING_REQUEST = 1 << 0,
	PENDING_RESPONSE = 1 << 1,
	PENDING_RST = 1 << 2,
	PENDING_SHUTDOWN = 1 << 3,
	PENDING_CREDIT_UPDATE = 1 << 4,
	PENDING_CREDIT_REQUEST = 1 << 5,
};

struct vsock_conn {
	struct virtio_vsock *vsock;
	uint32_t host_port, guest_port;
	uint16_t type; /* VSOCK_TYPE_* */
	enum vsock_state state;
	uint8_t pending; /* PENDING_* */
	uint8_t guest_shut; /* VSOCK_SHUTDOWN_*: what the guest said */
	uint8_t host_shut; /* VSOCK_SHUTDOWN_*: what we say */
	bool read_ready; /* `in` has bytes or EOF, as far as we know */
	bool read_over; /* nothing more is read from the host: EOF, or the guest wants no more */
	bool write_over; /* nothing more is written to the host: the guest is done and all was taken, or the host is gone */
	bool done_due;
	bool greets; /* a host program waits for "OK HOSTPORT\n" */

	/* Credit (5.10.6.3), all modulo 2^32. */
	uint32_t buf_alloc; /* what we grant; constant */
	uint32_t rx_cnt; /* bytes received from the guest */
	uint32_t fwd_cnt; /* of these, bytes that the host took */
	uint32_t fwd_cnt_told; /* fwd_cnt in our last packet */
	uint32_t tx_cnt; /* bytes sent to the guest */
	uint32_t peer_buf_alloc, peer_fwd_cnt;

	/* Packets in flight, which are bounded as well as bytes (see stream.c): how many end at or before tx_cnt `end`, oldest
	 * first. */
	struct vsock_mark {
		uint32_t end, packets;
	} marks[VSOCK_MARKS];
	unsigned mark_first, mark_count;
	uint32_t packets; /* the sum */
	uint64_t probe_interval_ns, probe_ns; /* when probing: how long we wait for news of the guest, and until when */

	unsigned batch; /* rx buffers for the next read: more while the host end fills them all */
	struct vsock_end in, out; /* host to guest, guest to host; with one descriptor for both only `in` is watched */

	/* Bytes of the guest that the host did not take yet; see backlog.c. */
	uint8_t *backlog; /* owned */
	uint32_t backlog_start, backlog_bytes;
	uint32_t message_begun; /* of these, bytes of a message whose end did not come yet */

	/* A message of the host that goes to the guest in several packets; see seqpacket.c. */
	uint8_t *message; /* owned; NULL: none */
	uint32_t message_bytes, message_sent;

	vsock_done done;
	void *done_data;
	int done_result;
	vsock_closed closed;
	void *closed_data;
	const bool *host_reset; /* see struct vsock_ends */
	bool *guest_reset;
	int *write_error;
	uint64_t deadline_ns; /* CLOCK_MONOTONIC; only in VSOCK_CONNECTING */

	/* Of the lists in the device. */
	struct vsock_link hash_link, all_link, ready_link, connecting_link, probing_link, settle_link;
};

struct vsock_service {
	uint32_t first, last;
	vsock_accept accept;
	void *data;
};

/* A RST that answers a packet without a connection. */
struct vsock_rst {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port;
	uint16_t type;
};

struct virtio_vsock {
	struct virtio_device dev;
	struct {
		le64 guest_cid;
	} config;
	uint32_t guest_cid;

	struct vsock_service services[VSOCK_SERVICES_MAX];
	unsigned service_count;

	struct vsock_link buckets[VSOCK_BUCKETS];
	uint64_t hash_key;
	unsigned conn_count;
	uint64_t to_guest_bytes, from_guest_bytes; /* payload, of all connections */
	struct throttle throttle;
	struct vsock_link all;
	struct vsock_link ready; /* have something for the rx queue, in the order of their turns */
	struct vsock_link connecting; /* REQUEST not answered, oldest first */
	struct vsock_link probing; /* the guest is asked for its credit from time to time */
	struct vsock_link settle; /* callbacks due, or dead */
	uint32_t next_host_port;
	unsigned grant_shift; /* new connections are granted less by this power of two: 0, except in fuzzing */
	uint32_t first_cnt; /* where the counters of new connections start: 0, except in tests of their wrap */

	struct vsock_rst rst_fifo[VSOCK_RST_FIFO];
	unsigned rst_head, rst_count;

	bool rx_starved; /* rx is empty; we asked for a notification */
	bool tx_stalled; /* tx waits for room in rst_fifo or for its next round */
	unsigned tx_budget;
	unsigned depth; /* nesting of vsock_enter() */

	bool again_raised; /* another round was asked for, after the other sources of the loop had theirs */
	struct loop_source timer; /* a timerfd, created when first needed */
	uint64_t timer_deadline_ns; /* 0: not armed */

	struct vsock_unix *unix_side; /* owned; NULL: none */

	struct virtq_chain tx_chain;
	struct virtq_chain rx_chains[VSOCK_RX_BATCH]; /* buffers at hand: rx_held from rx_first on */
	unsigned rx_first, rx_held;
	bool rx_pushed; /* since the driver was notified */
	struct iovec iov[VIRTQ_MAX_SIZE]; /* slices of the chain at hand */
};

/* ---- virtio_vsock.c ---- */

/*
 * Every entry from outside (queue, descriptor, timer, API) is bracketed by these. The outermost leave sends what is due to the
 * guest, then runs callbacks and frees the dead: so none of them happens while a function of ours holds a connection.
 */
void vsock_enter(struct virtio_vsock *vsock);
void vsock_leave(struct virtio_vsock *vsock);

/* Queues a RST for the sender of `hdr`, unless that was a RST. The fifo has room: handle_tx() has seen to it. */
void vsock_rst_reply(struct virtio_vsock *vsock, const struct vsock_hdr *hdr);

/* Asks for another round, after the other sources of the loop had theirs: vsock_notify() is called again. */
void vsock_raise_again(struct virtio_vsock *vsock);

/* ---- rx.c ---- */

/* Sends what is due to the guest. */
void rx_pump(struct virtio_vsock *vsock);

/* A buffer at hand. */
const struct virtq_chain *rx_buffer(const struct virtio_vsock *vsock, unsigned index);

/* ---- service.c ---- */

/* The service for host port `port`, or NULL. */
const struct vsock_service *vsock_find_service(const struct virtio_vsock *vsock, uint32_t port);

/* Makes sure that there is a timer, for those who need it most when there are no descriptors left. Returns 0 or -errno. */
int vsock_timer_create(struct virtio_vsock *vsock);

/* Sees to it that what is due at `deadline_ns` (CLOCK_MONOTONIC) is looked after then. Returns 0 or -errno. */
/* Whether the limit is reached: nothing is moved then, and the timer calls when it may be. */
bool vsock_is_throttled(struct virtio_vsock *vsock);
/* A packet of so many bytes was moved. */
void vsock_charge(struct virtio_vsock *vsock, uint64_t bytes);

int vsock_timer_at(struct virtio_vsock *vsock, uint64_t deadline_ns);
uint64_t vsock_now_ns(void);

/* The timer's life: nothing is armed before it is needed. */
void vsock_timer_init(struct virtio_vsock *vsock);
void vsock_timer_destroy(struct virtio_vsock *vsock);

/* Connects a host program that said CONNECT; `fd` is owned from now on, and closed when the guest refuses. */
void vsock_connect_client(struct virtio_vsock *vsock, uint16_t type, uint32_t guest_port, int fd);

/* ---- packet.c ---- */

/* Handles one packet of the guest: its header (a copy) and the chain that holds header and payload. */
void vsock_receive(struct virtio_vsock *vsock, const struct vsock_hdr *hdr, const struct virtq_chain *chain);

/* ---- connection.c ---- */

struct vsock_conn *conn_find(struct virtio_vsock *vsock, uint32_t host_port, uint32_t guest_port);

/*
 * Makes a connection and takes over `ends`, also when it fails: they are closed then. Returns NULL and errno: EMFILE (too many
 * connections), ENOMEM.
 */
struct vsock_conn *conn_create(struct virtio_vsock *vsock, uint16_t type, uint32_t host_port, uint32_t guest_port,
			       enum vsock_state state, const struct vsock_ends *ends);

/* Puts the connection on the list of those with something to send, when it has. */
void conn_schedule(struct vsock_conn *conn);
void conn_unschedule(struct vsock_conn *conn);
void conn_pend(struct vsock_conn *conn, unsigned pending);

/* RESPONSE came. */
void conn_established(struct vsock_conn *conn);

/* Both ends are closed at once and the guest gets RST. `result`: for a connect that was under way. */
void conn_reset(struct vsock_conn *conn, int result);

/* As conn_reset(), but the guest is not told: it knows. */
void conn_kill(struct vsock_conn *conn, int result);

/* The guest broke the connection: the host end is told, where that is wanted. */
void conn_guest_reset(struct vsock_conn *conn);

/* The guest is gone: what it has sent is still delivered, then the connection ends. */
void conn_detach(struct vsock_conn *conn, int result);

/* Looks whether anything is left to do for the connection and ends it otherwise. After every change of guest_shut, backlog or
 * state. */
void conn_progress(struct vsock_conn *conn);

/* A callback is due, or the connection is dead: vsock_leave() calls conn_settle(), which runs the callbacks or frees it. */
void conn_settle_later(struct vsock_conn *conn);
void conn_settle(struct vsock_conn *conn);

/* Nothing more is read from the host: `result` of reading says why. 0: the end; -EAGAIN: not now, after all. */
void conn_read_failed(struct vsock_conn *conn, int result);
/* A direction of the host end is finished for good: it was read to its end; it takes no more. */
void conn_read_finished(struct vsock_conn *conn);
void conn_write_broken(struct vsock_conn *conn);
/* The same, after a write failed with `result`, -errno. */
void conn_write_failed(struct vsock_conn *conn, int result);

/* ---- credit.c ---- */

/* Bytes that may be sent to the guest in one packet now; after `packets` more with `bytes` bytes in all. */
uint32_t credit_space(const struct vsock_conn *conn);
uint32_t credit_space_after(const struct vsock_conn *conn, uint32_t bytes, uint32_t packets);

/* Whether the guest could ever have `bytes`, in packets of `packet_bytes`, in its buffer. */
bool credit_covers(const struct vsock_conn *conn, uint32_t bytes, uint32_t packet_bytes);

/* A packet of `bytes` is sent. */
void credit_sent(struct vsock_conn *conn, uint32_t bytes);

/* Notes the credit fields of a packet of the guest. */
void credit_heard(struct vsock_conn *conn, uint32_t buf_alloc, uint32_t fwd_cnt);

/* The host took bytes of the guest; tells the guest, when that is due. */
void credit_taken(struct vsock_conn *conn, uint32_t bytes);
void credit_tell(struct vsock_conn *conn);

/* Asks the guest for news when we have something to send, but too many packets in flight; stops asking. */
void credit_probe(struct vsock_conn *conn);
void credit_unprobe(struct vsock_conn *conn);
/* Asks again where it is time to; returns the next deadline, 0: none. */
uint64_t credit_probe_all(struct virtio_vsock *vsock, uint64_t now_ns);

/* ---- backlog.c ---- */

/* Keeps `length` bytes at byte `offset` of the chain. Returns 0 or -ENOMEM. */
int backlog_append(struct vsock_conn *conn, const struct virtq_chain *chain, size_t offset, uint32_t length);
/* What was kept since the last call is a message. */
void backlog_end_message(struct vsock_conn *conn);
/* The guest will never end the message that it has begun. */
void backlog_drop_unfinished(struct vsock_conn *conn);
/* Writes what the host takes. */
void backlog_flush(struct vsock_conn *conn);
void backlog_free(struct vsock_conn *conn);

/* True when there is something that could be written. */
static inline bool backlog_ready(const struct vsock_conn *conn)
{
	return conn->backlog_bytes > conn->message_begun;
}

/* ---- stream.c ---- */

/* True when reading the host end now could give a packet for the guest. */
bool conn_can_read(const struct vsock_conn *conn);

/*
 * Reads from the host into the payload room of the first `buffers` rx buffers at hand. Returns how many packets that gave, with their
 * lengths, or 0: nothing now, or the end.
 */
unsigned stream_read(struct vsock_conn *conn, unsigned buffers, uint32_t *lengths);

/* Takes the payload of a RW packet, which is all in the chain. Returns 0, or -EPROTO when the guest exceeds its credit. */
int conn_receive(struct vsock_conn *conn, const struct virtq_chain *chain, uint32_t length, bool eom);

/* ---- seqpacket.c ---- */

/* Reads a message, or the next part of one, into the payload room of `chain`. Returns the bytes, with *eom when its end is among them. */
uint32_t seqpacket_read(struct vsock_conn *conn, const struct virtq_chain *chain, bool *eom);
void seqpacket_free(struct vsock_conn *conn);

/* ---- host_end.c ---- */

void ends_init(struct vsock_conn *conn, const struct vsock_ends *ends);
void ends_close(struct vsock_conn *conn); /* both descriptors; `closed` is due */
void ends_close_in(struct vsock_conn *conn); /* no more reading: the host's writer sees EPIPE */
void ends_close_out(struct vsock_conn *conn); /* no more writing: the host's reader sees EOF */
void ends_watch(struct vsock_conn *conn); /* brings what the loop watches in line with the connection's state */
void vsock_ends_close(const struct vsock_ends *ends);

/* As readv() and writev(), never blocking and without SIGPIPE on sockets; -errno instead of errno, EINTR repeated. */
ssize_t end_readv(const struct vsock_end *end, struct iovec *iov, unsigned count);
ssize_t end_writev(const struct vsock_end *end, struct iovec *iov, unsigned count);

/* Of a seqpacket socket: the length of its next message, which stays there. 0: the end; -errno. Empty messages are dropped. */
ssize_t end_next_message(const struct vsock_end *end);

/* The loop does not say when the end is ready: it counts as ready at any time. */
static inline bool end_always_ready(const struct vsock_end *end)
{
	return end->unwatchable || end->hung;
}

/* ---- unix.c ---- */

/* A connection of the guest to a host port without a service. Returns 0 and fills `ends`, or -errno. */
int vsock_unix_accept(struct virtio_vsock *vsock, uint16_t type, uint32_t port, struct vsock_ends *ends);
/* Drops host programs whose CONNECT line is late; returns the next deadline, 0: none. */
uint64_t vsock_unix_expire(struct virtio_vsock *vsock, uint64_t now_ns);
void vsock_unix_destroy(struct virtio_vsock *vsock);

#endif
