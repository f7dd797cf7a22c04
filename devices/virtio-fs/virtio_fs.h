/*
 * virtio-fs (virtio 1.2, 5.11): the queues between the guest's FUSE client and a server (fs_server.h).
 *
 *   queue 0, high priority:  FORGET, BATCH_FORGET, INTERRUPT
 *   queue 1, requests:       readable { fuse_in_header, argument, data }  writable { fuse_out_header, answer, data }
 *
 * The device has a loop and threads of its own. One thread at a time is the leader: it runs the loop and serves the requests that it finds,
 * itself, so that in the ordinary case no request passes from a thread to another. When a request takes long, another thread becomes the
 * leader and the first one stays with the request; so answers may come in another order than requests, and a request that blocks delays
 * no other. Threads are made when they are needed, up to VIRTIO_FS_THREADS_MAX.
 *
 * So callbacks of the transport run on the thread that leads at the time, one at a time, as for any device.
 *
 * A server's window is the device's shared memory region, VIRTIO_FS_SHMCAP_ID_CACHE (5.11.6, DAX window). While files are mapped there
 * the device looks VIRTIO_FS_LOOKS_A_SECOND times a second at what has become of them, and when the guest touches what is not there.
 */
#ifndef TRVMM_DEVICES_VIRTIO_FS_VIRTIO_FS_H
#define TRVMM_DEVICES_VIRTIO_FS_VIRTIO_FS_H

#include "base/throttle.h"
#include "devices/virtio-fs/fs_server.h"
#include "devices/virtio/virtio_device.h"

#define VIRTIO_FS_THREADS_MAX 16
#define VIRTIO_FS_LOOKS_A_SECOND 4
#define VIRTIO_FS_TAG_BYTES 36 /* without an ending 0 when it is as long */

struct virtio_fs;

/* Creates the device. `server` is borrowed; `tag` is 1 to VIRTIO_FS_TAG_BYTES bytes. Returns 0 or -errno. */
int virtio_fs_create(const struct guest_mem *mem, struct fs_server *server, const char *tag, struct virtio_fs **fs);

/*
 * What the guest may ask of it in a second: requests, and the bytes of their buffers. What is more waits, on the threads that serve. Before
 * virtio_fs_start().
 */
void virtio_fs_set_limit(struct virtio_fs *fs, const struct throttle_limit *limit);

/* What the first thread calls before it serves; those that it makes inherit what that did. Before virtio_fs_start(). */
void virtio_fs_set_confine(struct virtio_fs *fs, void (*confine)(void));

/* Starts the first thread. Returns 0 or -errno. */
int virtio_fs_start(struct virtio_fs *fs);

/* Waits for the threads and frees the device, not the server. NULL is allowed. Nobody may use the loop meanwhile. */
void virtio_fs_destroy(struct virtio_fs *fs);

/* The device for the transport; owned by `fs`. */
struct virtio_device *virtio_fs_device(struct virtio_fs *fs);

#endif
