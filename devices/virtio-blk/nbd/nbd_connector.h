/*
 * The process beside a confined trvmm-nbd that makes connections to the server, as these need names, files and sockets. It never reads a
 * byte of the server's: what it hands over is a connected descriptor. Its one order is to make another connection to the one place that it
 * was started with, so whoever takes trvmm-nbd over gains no network by it. It ends with its client.
 */
#ifndef TRVMM_DEVICES_VIRTIO_BLK_NBD_CONNECTOR_H
#define TRVMM_DEVICES_VIRTIO_BLK_NBD_CONNECTOR_H

#include <stdbool.h>

#include "devices/virtio-blk/nbd/nbd_bridge.h"
#include "devices/virtio-blk/nbd/nbd_uri.h"

struct nbd_connector {
	int socket; /* owned; ends the process when it is closed */
	bool asked; /* an answer is to come, perhaps of an order that was given up */
};

/* By a process that has one thread. The connector is `confined` as sandbox_forbid_changes() has it. Returns 0 or -errno. */
int nbd_connector_start(const struct nbd_uri *uri, bool confined, struct nbd_connector *connector);

/* Returns a connected descriptor, which is the caller's, or -errno with the reason in `text`; -ETIMEDOUT: no answer until then. */
int nbd_connector_connect(struct nbd_connector *connector, int timeout_ms, char text[NBD_TEXT_BYTES]);

#endif
