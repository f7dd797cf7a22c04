/*
 * The device's side of a split virtqueue (virtio 1.2, 2.7), over guest RAM that lies.
 *
 *   descriptor table         available ring                used ring
 *   { addr, len,             { flags, idx,                 { flags, idx,
 *     flags, next } x size     ring[size], used_event }      { id, len } x size, avail_event }
 *   written by the driver    written by the driver         written by us
 *
 * The driver puts the head of a descriptor chain into the available ring and raises idx; virtq_pop() takes it. When the request is
 * done, virtq_push() returns it through the used ring. With EVENT_IDX each side says at which index it wants to hear of news.
 *
 * Each descriptor is copied once, and decided on the copy. virtq_pop() refuses: a head or next outside the table, a chain longer than
 * the queue, a device-readable descriptor after a writable one, an indirect table that is nested, empty, misaligned in length or has
 * a successor, any range outside RAM (for buffers, with takes_shm: and outside devices' shared memory), a total length over 2^32 - 1, an
 * available index more than `size` ahead. After a refusal the queue is broken until it is enabled anew; its owner calls
 * virtio_device_fail().
 *
 * Not thread-safe: one thread owns a queue (its device's loop).
 */
#ifndef TRVMM_DEVICES_VIRTIO_VIRTQ_H
#define TRVMM_DEVICES_VIRTIO_VIRTQ_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "vmm/guest_mem.h"

#define VIRTQ_MAX_SIZE 512 /* the largest queue that we offer; a power of two */

/* What the driver has set through the transport's queue registers. Plain data: a snapshot can save it. */
struct virtq_config {
	uint16_t size;   /* a power of two, at most the device's maximum */
	bool ready;
	gpa_t desc, avail, used;
};

struct virtq {
	const struct guest_mem *mem; /* borrowed; NULL: not enabled */
	uint16_t size;
	bool event_idx;
	bool broken;
	bool takes_shm; /* the owner can serve chains with `shm` */
	uint16_t next_avail; /* next entry of the available ring that we take */
	uint16_t next_used;  /* next entry of the used ring that we fill; private, the guest's copy is never read back */
	uint16_t signalled_used; /* next_used when we last decided about an interrupt */
	uint8_t *desc, *avail, *used; /* borrowed from mem, checked when the queue was enabled */
};

/* One request: host addresses of what the driver offers, readable ranges first. */
struct virtq_chain {
	uint16_t head;
	unsigned readable_count, writable_count;
	uint32_t readable_bytes, writable_bytes;
	bool shm; /* parts are shared memory of devices: not to be touched before shm_bounce_begin() */
	struct iovec iov[VIRTQ_MAX_SIZE]; /* readable_count entries, then writable_count */
};

static inline const struct iovec *virtq_readable(const struct virtq_chain *chain)
{
	return chain->iov;
}

static inline const struct iovec *virtq_writable(const struct virtq_chain *chain)
{
	return chain->iov + chain->readable_count;
}

/*
 * Starts to use the queue at indices 0. Returns 0, or -EINVAL when the size is not a power of two up to VIRTQ_MAX_SIZE, or a ring is
 * misaligned (16, 2, 4 bytes) or not all in RAM.
 */
int virtq_enable(struct virtq *q, const struct guest_mem *mem, const struct virtq_config *config, bool event_idx);

/* Forgets the rings. Chains that were popped may still be held, but not pushed. */
void virtq_disable(struct virtq *q);

/*
 * Takes the next request. Returns 1 and fills `chain`; 0 when there is none (or the queue is not enabled); -EINVAL when the ring is
 * malformed: the queue is then broken, and stays so.
 */
int virtq_pop(struct virtq *q, struct virtq_chain *chain);

/* Puts back the chain that was popped last, as if it had not been: the next virtq_pop() finds it again (it is copied and checked anew). */
void virtq_unpop(struct virtq *q);

/* True when a request waits. Cheap: reads the driver's index only. */
bool virtq_has_avail(const struct virtq *q);

/* Returns chain `head` to the driver, of whose writable ranges the first `written_bytes` were filled. */
void virtq_push(struct virtq *q, uint16_t head, uint32_t written_bytes);

/* Whether the driver wants an interrupt for what was pushed since the last call (2.7.7). A full barrier is included. */
bool virtq_needs_interrupt(struct virtq *q);

/*
 * Asks the driver to notify us of new requests, or not to bother (2.7.10). After asking, requests may have come in between:
 * returns true when some wait and the caller has to look again.
 */
bool virtq_want_kicks(struct virtq *q, bool wanted);

#endif
