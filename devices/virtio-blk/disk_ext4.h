/*
 * A disk whose bytes are an ext4 file system computed from a plan, with copy-on-write: changes end with the VM, or are kept in a file.
 */
#ifndef TRVMM_DEVICES_VIRTIO_BLK_DISK_EXT4_H
#define TRVMM_DEVICES_VIRTIO_BLK_DISK_EXT4_H

#include "devices/virtio-blk/disk.h"
#include "ext4gen/cow.h"
#include "ext4gen/ext4gen.h"

/* `plan` is borrowed. `read_only`: writes are refused. Returns 0 or -errno. */
int disk_ext4_create(const struct ext4_plan *plan, bool read_only, struct disk **disk);

/* The same with the changes in the file `path`; see cow_open_kept(), also for what it returns. With COW_LOOK the disk is read-only. */
int disk_ext4_open_kept(const struct ext4_plan *plan, const char *path, enum cow_access access, struct disk **disk, struct error *err);

/*
 * The first range at or behind byte `offset` that may hold anything but zeroes, changes included, as bytes [*begin, *end). Returns
 * false when there is none.
 */
bool disk_ext4_next_data(const struct disk *disk, uint64_t offset, uint64_t *begin, uint64_t *end);

/* What was changed; owned by the disk. */
const struct cow *disk_ext4_cow(const struct disk *disk);

/*
 * What the guest may change of it, in bytes (cow_set_quota()). Beyond that its writes are I/O errors, which is told once in a message().
 * Before the disk is used.
 */
void disk_ext4_set_quota(struct disk *disk, uint64_t bytes);

#endif
