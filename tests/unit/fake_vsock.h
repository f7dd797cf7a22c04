/*
 * The functions of virtio_vsock.h that sessions use, without a device: the guest's connections come in over a Unix socket,
 * each beginning with the port as 4 bytes (little-endian), to which one byte is the answer. A refused connection is closed.
 */
#ifndef TRVMM_TESTS_UNIT_FAKE_VSOCK_H
#define TRVMM_TESTS_UNIT_FAKE_VSOCK_H

#include "base/loop.h"
#include "devices/virtio-vsock/virtio_vsock.h"

/* Listens at `path`. virtio_vsock_destroy() frees it, when the loop does not run. */
struct virtio_vsock *fake_vsock_create(struct loop *loop, const char *path);

/* How many connections were refused so far. */
unsigned fake_vsock_refused(const struct virtio_vsock *vsock);

#endif
