/*
 * The virtio-mmio transport, version 2 (virtio 1.2, 4.2): one 4 KiB register page and one interrupt line for each device.
 *
 * It validates everything before a device sees it: the order of status bits, features (a subset of those offered, VERSION_1 among
 * them), queue selection, sizes and addresses (unchangeable while the queue is ready), access width and alignment. A wrong access
 * reads zero or is ignored, as the specification has it for reserved registers.
 *
 * Called on vCPU threads, under a lock of its own; see virtio_device.h for what runs where.
 */
#ifndef TRVMM_DEVICES_VIRTIO_VIRTIO_MMIO_H
#define TRVMM_DEVICES_VIRTIO_VIRTIO_MMIO_H

#include <pthread.h>

#include "devices/virtio/virtio_device.h"

#define VIRTIO_MMIO_PAGE_BYTES 4096
/* The register that an ioeventfd watches; spelled as in linux/virtio_mmio.h, which may stand before. */
#define VIRTIO_MMIO_QUEUE_NOTIFY 0x050

struct virtio_mmio {
	struct virtio_device *dev; /* borrowed */
	pthread_mutex_t lock;
	uint32_t device_features_sel, driver_features_sel, queue_sel, shm_sel;
	uint64_t driver_features; /* as written; becomes the device's with FEATURES_OK */
	struct virtq_config queues[VIRTIO_MAX_QUEUES];
};

/* Attaches `dev` to a register page. The device must stay at its place. */
void virtio_mmio_init(struct virtio_mmio *mmio, struct virtio_device *dev);

/* A driver's access to `length` (1, 2, 4, 8) bytes at `offset` of the page; `data` is little-endian. */
void virtio_mmio_read(struct virtio_mmio *mmio, uint64_t offset, void *data, unsigned length);
void virtio_mmio_write(struct virtio_mmio *mmio, uint64_t offset, const void *data, unsigned length);

/* The driver notified a queue: what an ioeventfd's reader calls, on the device's loop. */
void virtio_mmio_notified(struct virtio_mmio *mmio, unsigned queue);

#endif
