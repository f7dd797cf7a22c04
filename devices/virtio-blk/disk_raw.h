/* A disk whose sectors are the bytes of a file or a block device of the host. */
#ifndef TRVMM_DEVICES_VIRTIO_BLK_DISK_RAW_H
#define TRVMM_DEVICES_VIRTIO_BLK_DISK_RAW_H

#include "devices/virtio-blk/disk.h"

/*
 * Opens `path`, a regular file or block device with a size that is a multiple of 512. It is locked (flock) against others that write to
 * it, and, unless `read_only`, against all others. Returns 0, or -errno with one line: -EINVAL for what is no disk, -EBUSY when it is
 * in use, or what the system says. Zeroed and discarded ranges become holes where the file system can; they read as zeroes anyway.
 */
int disk_raw_open(const char *path, bool read_only, struct disk **disk, struct error *err);

#endif
