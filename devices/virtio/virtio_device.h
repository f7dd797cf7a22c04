/*
 * A virtio device as the transport sees it: a constant description, a few callbacks, queues.
 *
 * A device is touched by one thread only: that of its loop. The transport runs `activate` and `reset` there too (the vCPU that wrote
 * the register waits), so a device needs no lock and never meets a request of an earlier life. Reading configuration space and the
 * interrupt registers goes on in the vCPU threads and reaches no device code.
 *
 * To add a device: one folder with a struct that begins with (or contains) struct virtio_device and a constant ops, one line in
 * vmm/machine.c, its sources in the Makefile.
 */
#ifndef TRVMM_DEVICES_VIRTIO_VIRTIO_DEVICE_H
#define TRVMM_DEVICES_VIRTIO_VIRTIO_DEVICE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "devices/virtio/virtq.h"

#define VIRTIO_MAX_QUEUES 8
#define VIRTIO_COMPLAINTS_MAX 8

/* Features of virtio 1.2, 6, as masks (Linux's VIRTIO_F_* are bit numbers); those of a device type stand in its folder. */
#define VIRTIO_FEATURE_INDIRECT_DESC (1ull << 28)
#define VIRTIO_FEATURE_EVENT_IDX (1ull << 29)
#define VIRTIO_FEATURE_VERSION_1 (1ull << 32)

struct virtio_device;

/*
 * A shared memory region (virtio 1.2, 2.10): memory of the device in the guest's physical address space. It is no RAM: nothing in it can be
 * a queue, a buffer only of a device that takes such (shm_bounce.h), and nobody here reads or writes it but the guest. A device has one at
 * most, and its id is 0.
 */
struct virtio_shm {
	void *host; /* borrowed from the device; constant, whatever is mapped there; NULL: there is none */
	uint64_t bytes; /* a multiple of VIRTIO_SHM_ALIGN, as both addresses are */
	uint64_t gpa; /* where the guest has it: the machine's affair */
};

#define VIRTIO_SHM_ALIGN (2ull << 20) /* one large page of the guest's page tables */

struct virtio_device_ops {
	const char *name;      /* "virtio-blk": for messages */
	uint32_t device_id;    /* virtio 1.2, 5 */
	unsigned queue_count;
	uint16_t queue_size_max[VIRTIO_MAX_QUEUES];
	/* DRIVER_OK was written: features are negotiated (dev->driver_features), ready queues enabled. Returns 0, or -errno: the
	 * device then needs a reset. */
	int (*activate)(struct virtio_device *dev);
	/* Back to the state before activate: no request may be in flight on return. Also called when it was never activated. */
	void (*reset)(struct virtio_device *dev);
	/* Returns when no request is in flight: a queue is about to be taken away while the device runs. NULL for a device that has none in
	 * flight outside of notify. */
	void (*settle)(struct virtio_device *dev);
	/* The driver notified queue `index` (or may have: spurious calls happen). Only while active. */
	void (*notify)(struct virtio_device *dev, unsigned index);
	/* The guest touched a part of the shared memory region where it may not. Returns true when it now may, and so tries again. */
	bool (*shm_touched)(struct virtio_device *dev);
	bool takes_shm; /* buffers may be in shared memory regions, of any device */
};

struct virtio_device {
	const struct virtio_device_ops *ops;
	struct loop *loop;             /* borrowed */
	const struct guest_mem *mem;   /* borrowed */
	uint64_t device_features;      /* offered: the device's own bits; the transport adds VERSION_1, INDIRECT_DESC, EVENT_IDX */
	const void *config;            /* configuration space; constant while the VM lives; borrowed from the device */
	uint32_t config_bytes;
	struct virtio_shm shm;

	/* Owned by the transport. */
	uint64_t driver_features;      /* accepted by the driver; a subset of what is offered */
	struct virtq queues[VIRTIO_MAX_QUEUES];
	bool active;                   /* between activate and reset, and not failed */
	_Atomic uint32_t interrupt_status; /* VIRTIO_MMIO_INT_* */
	_Atomic uint32_t status;           /* device status register */
	unsigned complaints;               /* lines that the driver's breaches have cost, in all lives */
	/* How to send an interrupt: an edge, each time, whatever the status was; in unit tests a counter. */
	void (*interrupt)(struct virtio_device *dev);
	/* Makes the loop call notify for queue `index` again, after what else waits there. NULL: virtio_device_drain() does all at once. */
	void (*kick)(struct virtio_device *dev, unsigned index);
	void *wiring; /* for the two above; borrowed */
};

/* Interrupts the driver for queue `index` if it wants to know of what was pushed. */
void virtio_device_notify_driver(struct virtio_device *dev, unsigned index);

/*
 * A malformed ring or another breach of protocol: the device stops, DEVICE_NEEDS_RESET is set, the driver gets a configuration
 * change interrupt, one line goes to the log for each life of the device, for the first VIRTIO_COMPLAINTS_MAX of them: a driver that
 * breaks it without end does not fill the disk that the log is on. The VM goes on.
 */
void virtio_device_fail(struct virtio_device *dev, const char *reason);

/*
 * The usual body of a notify callback: takes requests off queue `index` and calls handle() for each until none is left, with the
 * driver's notifications off meanwhile, then interrupts once if wanted. handle() returns true after it pushed or took over the
 * chain, false to stop for now: the chain is put back. A malformed ring fails the device. One call takes a bounded number of requests,
 * so that a driver that never stops submitting does not keep the loop from its other work.
 */
void virtio_device_drain(struct virtio_device *dev, unsigned index, struct virtq_chain *scratch,
			 bool (*handle)(struct virtio_device *dev, struct virtq *q, struct virtq_chain *chain));

#endif
