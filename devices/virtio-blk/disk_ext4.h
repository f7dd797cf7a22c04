/* A disk whose bytes are an ext4 file system computed from a plan, with copy-on-write in memory: changes end with the VM. */
#ifndef TRVMM_DEVICES_VIRTIO_BLK_DISK_EXT4_H
#define TRVMM_DEVICES_VIRTIO_BLK_DISK_EXT4_H

#include "devices/virtio-blk/disk.h"
#include "ext4gen/ext4gen.h"

/* `plan` is borrowed. `read_only`: writes are refused. Returns 0 or -errno. */
int disk_ext4_create(const struct ext4_plan *plan, bool read_only, struct disk **disk);

#endif
