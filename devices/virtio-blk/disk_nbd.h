/* A disk that a network block device server has, through the program trvmm-nbd (nbd/nbd_bridge.h). */
#ifndef TRVMM_DEVICES_VIRTIO_BLK_DISK_NBD_H
#define TRVMM_DEVICES_VIRTIO_BLK_DISK_NBD_H

#include "devices/virtio-blk/disk.h"

/* Whether a disk's name is one of those: nbd://, nbds://, nbd+unix://, nbds+unix:// (the NBD project's doc/uri.md). */
bool disk_nbd_is_uri(const char *name);

/*
 * Connects. `program` is the path of trvmm-nbd, `sandbox` its first argument (nbd_bridge.h). Read-only when asked for, or when the server
 * says so. Returns 0, or -errno with one line. While the server is lost, requests fail with -EIO and trvmm-nbd tries to reconnect; that it
 * is lost, and back, is told on stderr. A flush fails when writes before it may have been lost with a connection.
 */
int disk_nbd_open(const char *program, const char *sandbox, const char *uri, bool read_only, struct disk **disk, struct error *err);

#endif
