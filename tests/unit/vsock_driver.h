/*
 * A driver for virtio-vsock over a plain buffer as guest RAM, and a loop that runs one round at a time.
 *
 * The loop replaces base/loop.c in the program that includes this (its symbols are found first), so that a test decides when
 * descriptors are looked at, and counts what that costs. Everything is deterministic: nothing happens but in drv_* functions.
 */
#ifndef TRVMM_TESTS_VSOCK_DRIVER_H
#define TRVMM_TESTS_VSOCK_DRIVER_H

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/iov.h"
#include "devices/virtio-vsock/vsock_internal.h"

/* ---- the loop ---------------------------------------------------------------------------------------------------------------- */

struct loop {
	int epoll_fd;
	unsigned changes; /* epoll_ctl calls */
	unsigned wakeups; /* events delivered */
	struct epoll_event batch[64];
	int count, next;
};

struct loop *loop_create(void)
{
	struct loop *loop = calloc(1, sizeof(*loop));
	assert(loop);
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	return loop;
}

void loop_destroy(struct loop *loop)
{
	close(loop->epoll_fd);
	free(loop);
}

int loop_add(struct loop *loop, struct loop_source *source)
{
	struct epoll_event event = { .events = source->events, .data.ptr = source };
	loop->changes++;
	return epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, source->fd, &event) < 0 ? -errno : 0;
}

int loop_modify(struct loop *loop, struct loop_source *source, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.ptr = source };
	if (source->events == events)
		return 0;
	loop->changes++;
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_MOD, source->fd, &event) < 0)
		return -errno;
	source->events = events;
	return 0;
}

void loop_remove(struct loop *loop, struct loop_source *source)
{
	loop->changes++;
	epoll_ctl(loop->epoll_fd, EPOLL_CTL_DEL, source->fd, NULL);
	for (int i = loop->next; i < loop->count; i++)
		if (loop->batch[i].data.ptr == source)
			loop->batch[i].data.ptr = NULL;
}

/* Never used by the device; here so that base/loop.o is not linked as well. */
int loop_run(struct loop *loop)
{
	(void)loop;
	return -ENOSYS;
}

void loop_stop(struct loop *loop)
{
	(void)loop;
}

void loop_call(struct loop *loop, void (*fn)(void *arg), void *arg)
{
	(void)loop;
	fn(arg);
}

/* Delivers the events that are there, once. Returns how many. */
static inline unsigned loop_round(struct loop *loop, int timeout_ms)
{
	unsigned delivered = 0;

	loop->count = epoll_wait(loop->epoll_fd, loop->batch, 64, timeout_ms);
	for (loop->next = 0; loop->next < loop->count;) {
		const struct epoll_event event = loop->batch[loop->next++];
		struct loop_source *source = event.data.ptr;
		if (!source)
			continue;
		delivered++;
		source->ready(source, event.events);
	}
	loop->count = 0;
	loop->wakeups += delivered;
	return delivered;
}

/* ---- the driver -------------------------------------------------------------------------------------------------------------- */

#define DRV_RAM_BASE 0x100000u
#ifndef DRV_TX_BYTES
#define DRV_TX_BYTES (4u << 20) /* where the packets to the device lie; used round and round */
#endif
#define DRV_RAM_BYTES ((2u << 20) + DRV_TX_BYTES) /* rings, 1 MiB of rx buffers, tx */
#define DRV_QUEUE_SIZE 256u
#define DRV_RX_BUFFER 4096u
#define DRV_CID 3u
#define DRV_DATA_MAX 70000u

/* A packet as numbers. */
struct drv_packet {
	uint64_t src_cid, dst_cid;
	uint32_t src_port, dst_port, len;
	uint16_t type, op;
	uint32_t flags, buf_alloc, fwd_cnt;
	uint8_t data[DRV_DATA_MAX];
};

struct drv_queue {
	gpa_t desc, avail, used;
	uint16_t avail_idx, used_seen, next_desc;
	unsigned in_flight;
};

struct drv {
	struct guest_mem mem;
	uint8_t *ram;
	struct loop *loop;
	struct virtio_vsock *vsock;
	struct virtio_device *dev;
	struct drv_queue queues[3];
	gpa_t rx_buffers, tx_area;
	uint32_t tx_next;
	uint32_t rx_buffer_bytes;
	bool keep_rx;        /* used rx buffers are not offered again */
	bool hostile;        /* rx buffers may lie anywhere: what they hold is not checked */
	unsigned interrupts;
	unsigned kicked;     /* bits: queues that the device wants to be notified of again */
	uint32_t buf_alloc;  /* what packets of drv_send() grant */
	uint16_t type;       /* and their type */
	int host;            /* the host program's end of the last connection that port 1024 accepted */
	unsigned accepted, closed;
	bool host_reset, guest_reset; /* of the connections that port 1024 accepts */
	struct drv_packet packet; /* the last that was received */
};

static uint8_t *drv_spare_ram; /* kept from one device for the next: many small runs are faster */

static inline void *drv_ptr(struct drv *drv, gpa_t gpa)
{
	return drv->ram + (gpa - DRV_RAM_BASE);
}

static inline void drv_put16(struct drv *drv, gpa_t gpa, uint16_t value)
{
	const le16 raw = le16_make(value);
	memcpy(drv_ptr(drv, gpa), &raw, sizeof(raw));
}

static inline uint16_t drv_get16(struct drv *drv, gpa_t gpa)
{
	le16 raw;
	memcpy(&raw, drv_ptr(drv, gpa), sizeof(raw));
	return le16_get(raw);
}

static inline void drv_put_desc(struct drv *drv, unsigned queue, unsigned index, gpa_t addr, uint32_t length, uint16_t flags,
				uint16_t next)
{
	const struct {
		le64 addr;
		le32 len;
		le16 flags, next;
	} desc = { le64_make(addr), le32_make(length), le16_make(flags), le16_make(next) };
	memcpy(drv_ptr(drv, drv->queues[queue].desc + 16 * (gpa_t)index), &desc, sizeof(desc));
}

static inline void drv_publish(struct drv *drv, unsigned queue, uint16_t head)
{
	struct drv_queue *q = &drv->queues[queue];
	drv_put16(drv, q->avail + 4 + 2u * (q->avail_idx % DRV_QUEUE_SIZE), head);
	q->avail_idx++;
	drv_put16(drv, q->avail + 2, q->avail_idx);
	q->in_flight++;
}

static inline void drv_interrupt(struct virtio_device *dev)
{
	((struct drv *)dev->wiring)->interrupts++;
}

static inline void drv_kick_again(struct virtio_device *dev, unsigned index)
{
	((struct drv *)dev->wiring)->kicked |= 1u << index;
}

/* Offers rx buffer `index` (0 to 255), of which descriptor `index` is made. */
static inline void drv_offer(struct drv *drv, unsigned index)
{
	drv_put_desc(drv, VSOCK_QUEUE_RX, index, drv->rx_buffers + index * DRV_RX_BUFFER, drv->rx_buffer_bytes, 2, 0);
	drv_publish(drv, VSOCK_QUEUE_RX, (uint16_t)index);
}

static inline void drv_notify(struct drv *drv, unsigned queue)
{
	if (drv->dev->active)
		drv->dev->ops->notify(drv->dev, queue);
}

/* Starts the driver: queues at 0, all rx buffers offered unless `no_rx`. */
static inline void drv_activate(struct drv *drv, bool no_rx)
{
	gpa_t at = DRV_RAM_BASE;

	for (unsigned i = 0; i < 3; i++) {
		struct drv_queue *q = &drv->queues[i];
		*q = (struct drv_queue){ .desc = at, .avail = at + 0x1000, .used = at + 0x2000 };
		memset(drv_ptr(drv, at), 0, 0x3000);
		at += 0x3000;
		const struct virtq_config config = {
			.size = DRV_QUEUE_SIZE, .ready = true, .desc = q->desc, .avail = q->avail, .used = q->used,
		};
		const int result = virtq_enable(&drv->dev->queues[i], &drv->mem, &config, false);
		assert(result == 0);
	}
	drv->rx_buffers = 0x100000 + DRV_RAM_BASE;
	drv->tx_area = 0x200000 + DRV_RAM_BASE;
	drv->tx_next = 0;
	drv->kicked = 0;
	drv->dev->driver_features = drv->dev->device_features;
	drv->dev->active = true;
	for (unsigned i = 0; i < DRV_QUEUE_SIZE && !no_rx; i++)
		drv_offer(drv, i);
	const int result = drv->dev->ops->activate(drv->dev);
	assert(result == 0);
}

static inline void drv_reset(struct drv *drv)
{
	drv->dev->active = false;
	drv->dev->ops->reset(drv->dev);
	for (unsigned i = 0; i < 3; i++)
		virtq_disable(&drv->dev->queues[i]);
}

static inline void drv_closed(void *data)
{
	((struct drv *)data)->closed++;
}

/* The service on port 1024: a socket pair, whose other end is drv->host. */
static inline int drv_accept_pair(void *data, uint32_t port, struct vsock_ends *ends)
{
	struct drv *drv = data;
	int pair[2];

	(void)port;
	assert(ends->read_fd == -1 && ends->write_fd == -1 && !ends->closed);
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	drv->host = pair[0];
	*ends = (struct vsock_ends){ .read_fd = pair[1], .write_fd = pair[1], .closed = drv_closed, .closed_data = drv,
				     .host_reset = &drv->host_reset, .guest_reset = &drv->guest_reset };
	drv->accepted++;
	return 0;
}

static inline void drv_init(struct drv *drv)
{
	memset(drv, 0, sizeof(*drv));
	signal(SIGPIPE, SIG_IGN);
	struct rlimit files = { 0 };
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	drv->ram = drv_spare_ram ? drv_spare_ram : aligned_alloc(4096, DRV_RAM_BYTES);
	drv_spare_ram = NULL;
	assert(drv->ram);
	guest_mem_from_buffer(&drv->mem, DRV_RAM_BASE, drv->ram, DRV_RAM_BYTES);
	drv->loop = loop_create();
	drv->buf_alloc = 256 << 10;
	drv->type = VSOCK_TYPE_STREAM;
	drv->rx_buffer_bytes = DRV_RX_BUFFER;
	const int result = virtio_vsock_create(drv->loop, &drv->mem, DRV_CID, &drv->vsock);
	assert(result == 0);
	drv->dev = virtio_vsock_device(drv->vsock);
	drv->dev->interrupt = drv_interrupt;
	drv->dev->kick = drv_kick_again;
	drv->dev->wiring = drv;
	drv->host = -1;
	const int listening = virtio_vsock_listen(drv->vsock, 1024, 1024, drv_accept_pair, drv);
	assert(listening == 0);
}

static inline void drv_destroy(struct drv *drv)
{
	virtio_vsock_destroy(drv->vsock);
	loop_destroy(drv->loop);
	free(drv_spare_ram);
	drv_spare_ram = drv->ram;
}

/* Runs the device until it has nothing to do. False: it never came to rest. */
static inline bool drv_settle(struct drv *drv)
{
	for (unsigned rounds = 0; rounds < 10000; rounds++) {
		const unsigned kicked = drv->kicked;
		drv->kicked = 0;
		for (unsigned i = 0; i < 3; i++)
			if (kicked & (1u << i))
				drv_notify(drv, i);
		if (!loop_round(drv->loop, 0) && !drv->kicked)
			return true;
	}
	return false;
}

/* Frees the tx descriptors that the device has returned. */
static inline void drv_reap_tx(struct drv *drv)
{
	struct drv_queue *q = &drv->queues[VSOCK_QUEUE_TX];
	while (q->used_seen != drv_get16(drv, q->used + 2)) {
		q->used_seen++;
		q->in_flight--;
	}
}

static inline void drv_encode(const struct drv_packet *packet, struct vsock_hdr *hdr)
{
	*hdr = (struct vsock_hdr){
		.src_cid = le64_make(packet->src_cid), .dst_cid = le64_make(packet->dst_cid),
		.src_port = le32_make(packet->src_port), .dst_port = le32_make(packet->dst_port),
		.len = le32_make(packet->len), .type = le16_make(packet->type), .op = le16_make(packet->op),
		.flags = le32_make(packet->flags), .buf_alloc = le32_make(packet->buf_alloc), .fwd_cnt = le32_make(packet->fwd_cnt),
	};
}

/*
 * Puts a packet with `bytes` bytes behind the header into tx, cut after each of the `cuts` offsets (ascending; counted from the
 * header's start). The device is not notified. At most 64 chains may be in flight, so that their descriptors and areas do not
 * meet.
 */
static inline void drv_queue_split(struct drv *drv, const struct drv_packet *packet, uint32_t bytes, const uint32_t *cuts,
				   unsigned count)
{
	struct vsock_hdr hdr;
	const uint32_t total = (uint32_t)sizeof(hdr) + bytes;
	struct drv_queue *q = &drv->queues[VSOCK_QUEUE_TX];

	drv_reap_tx(drv);
	assert(total <= 0x20000);
	drv_encode(packet, &hdr);
	if (drv->tx_next + total > DRV_TX_BYTES)
		drv->tx_next = 0;
	const gpa_t at = drv->tx_area + drv->tx_next;
	drv->tx_next += total;
	memcpy(drv_ptr(drv, at), &hdr, sizeof(hdr));
	memcpy(drv_ptr(drv, at + sizeof(hdr)), packet->data, bytes);
	const uint16_t head = q->next_desc;
	uint32_t from = 0;
	for (unsigned i = 0; i <= count; i++) {
		const uint32_t to = i < count && cuts[i] < total ? cuts[i] : total;
		const uint16_t index = (uint16_t)(q->next_desc++ % DRV_QUEUE_SIZE);
		const bool last = i == count;
		drv_put_desc(drv, VSOCK_QUEUE_TX, index, at + from, to - from, last ? 0 : 1,
			     last ? 0 : (uint16_t)(q->next_desc % DRV_QUEUE_SIZE));
		from = to;
	}
	drv_publish(drv, VSOCK_QUEUE_TX, (uint16_t)(head % DRV_QUEUE_SIZE));
}

/* A packet of the guest from its port to host port, with sane fields. */
static inline struct drv_packet *drv_packet(struct drv *drv, uint16_t op, uint32_t guest_port, uint32_t host_port)
{
	static struct drv_packet packet;
	memset(&packet, 0, offsetof(struct drv_packet, data));
	packet.src_cid = DRV_CID;
	packet.dst_cid = VSOCK_HOST_CID;
	packet.src_port = guest_port;
	packet.dst_port = host_port;
	packet.type = drv->type;
	packet.op = op;
	packet.buf_alloc = drv->buf_alloc;
	return &packet;
}

static inline void drv_queue(struct drv *drv, const struct drv_packet *packet)
{
	const uint32_t cut = sizeof(struct vsock_hdr);
	drv_queue_split(drv, packet, packet->len, &cut, packet->len ? 1 : 0);
}

/* Sends the packet, and lets the device do all it can. */
static inline void drv_send_packet(struct drv *drv, const struct drv_packet *packet)
{
	drv_queue(drv, packet);
	drv_notify(drv, VSOCK_QUEUE_TX);
	drv_settle(drv);
	drv_reap_tx(drv);
}

static inline void drv_send(struct drv *drv, uint16_t op, uint32_t guest_port, uint32_t host_port)
{
	drv_send_packet(drv, drv_packet(drv, op, guest_port, host_port));
}

static inline void drv_send_data(struct drv *drv, uint32_t guest_port, uint32_t host_port, const void *data, uint32_t length)
{
	struct drv_packet *packet = drv_packet(drv, VSOCK_OP_RW, guest_port, host_port);
	packet->len = length;
	memcpy(packet->data, data, length);
	drv_send_packet(drv, packet);
}

/* Takes the next packet that the device has sent into drv->packet; its buffer is offered again. NULL: none. */
static inline struct drv_packet *drv_receive(struct drv *drv)
{
	struct drv_queue *q = &drv->queues[VSOCK_QUEUE_RX];
	struct drv_packet *packet = &drv->packet;
	struct {
		le32 id, len;
	} used;
	struct vsock_hdr hdr;

	if (q->used_seen == drv_get16(drv, q->used + 2))
		return NULL;
	memcpy(&used, drv_ptr(drv, q->used + 4 + 8u * (q->used_seen % DRV_QUEUE_SIZE)), sizeof(used));
	q->used_seen++;
	q->in_flight--;
	const unsigned index = le32_get(used.id) % DRV_QUEUE_SIZE;
	const uint32_t length = le32_get(used.len);
	const uint8_t *buffer = drv_ptr(drv, drv->rx_buffers + index * DRV_RX_BUFFER);
	memset(packet, 0, offsetof(struct drv_packet, data));
	if (length >= sizeof(hdr)) {
		memcpy(&hdr, buffer, sizeof(hdr));
		packet->src_cid = le64_get(hdr.src_cid);
		packet->dst_cid = le64_get(hdr.dst_cid);
		packet->src_port = le32_get(hdr.src_port);
		packet->dst_port = le32_get(hdr.dst_port);
		packet->len = le32_get(hdr.len);
		packet->type = le16_get(hdr.type);
		packet->op = le16_get(hdr.op);
		packet->flags = le32_get(hdr.flags);
		packet->buf_alloc = le32_get(hdr.buf_alloc);
		packet->fwd_cnt = le32_get(hdr.fwd_cnt);
		if (packet->len != length - sizeof(hdr) && drv->hostile)
			return packet;
		assert(packet->len == length - sizeof(hdr));
		memcpy(packet->data, buffer + sizeof(hdr), packet->len);
	}
	if (!drv->keep_rx)
		drv_offer(drv, index);
	return packet;
}

/* The op of the next packet, -1 when there is none. */
static inline int drv_receive_op(struct drv *drv)
{
	const struct drv_packet *packet = drv_receive(drv);
	return packet ? packet->op : -1;
}

/* The oldest connection of the device. */
static inline struct vsock_conn *drv_first(struct drv *drv)
{
	return LIST_FIRST_OF(&drv->vsock->all, struct vsock_conn, all_link);
}

/* read() with -errno. */
static inline ssize_t drv_read(int fd, void *buffer, size_t size)
{
	const ssize_t n = read(fd, buffer, size);
	return n < 0 ? -errno : n;
}

/* A connection of `guest_port` to host port 1024. Returns the host program's descriptor. */
static inline int drv_open(struct drv *drv, uint32_t guest_port)
{
	drv_send(drv, VSOCK_OP_REQUEST, guest_port, 1024);
	const int op = drv_receive_op(drv);
	assert(op == VSOCK_OP_RESPONSE);
	assert(drv->packet.src_port == 1024 && drv->packet.dst_port == guest_port);
	return drv->host;
}

#endif
