/*
 * virtio-blk (virtio 1.2, 5.2): requests of the guest's block driver on a struct disk.
 *
 *   readable:  { type le32, reserved le32, sector le64 }  data of writes, discard and write-zeroes segments
 *   writable:  data of reads and of the id                status u8 (always the last byte)
 *
 * One request queue, served on the device's loop, synchronously: give each disk a loop of its own. Requests: read, write, flush, get-id,
 * discard, write-zeroes; all others get UNSUPP. No SCSI commands.
 */
#ifndef TRVMM_DEVICES_VIRTIO_BLK_VIRTIO_BLK_H
#define TRVMM_DEVICES_VIRTIO_BLK_VIRTIO_BLK_H

#include "base/throttle.h"
#include "devices/virtio-blk/disk.h"
#include "devices/virtio/virtio_device.h"

struct virtio_blk;

/* Creates the device on `disk`, which is borrowed, as `loop` and `mem` are. Returns 0 or -ENOMEM. */
int virtio_blk_create(struct loop *loop, const struct guest_mem *mem, struct disk *disk, struct virtio_blk **blk);

/* What the guest may ask of it in a second; its loop's thread sleeps when that was too much. Before it runs. */
void virtio_blk_set_limit(struct virtio_blk *blk, const struct throttle_limit *limit);

/* Frees the device, not the disk. NULL is allowed. */
void virtio_blk_destroy(struct virtio_blk *blk);

/* What was done since the device was made. */
struct virtio_blk_stats {
	uint64_t reads, read_bytes;
	uint64_t writes, written_bytes;
};

/* From any thread; the figures are not of one instant. */
void virtio_blk_get_stats(const struct virtio_blk *blk, struct virtio_blk_stats *stats);

/* The device for the transport; owned by `blk`. */
struct virtio_device *virtio_blk_device(struct virtio_blk *blk);

#endif
