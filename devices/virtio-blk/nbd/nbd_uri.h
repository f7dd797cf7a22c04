/* The URI of a network block device, taken apart: where its server is, and the export's name (the NBD project's doc/uri.md). */
#ifndef TRVMM_DEVICES_VIRTIO_BLK_NBD_URI_H
#define TRVMM_DEVICES_VIRTIO_BLK_NBD_URI_H

#include <limits.h>
#include <stdbool.h>

struct nbd_uri {
	bool tls; /* nbds://, nbds+unix:// */
	char path[108]; /* of a Unix socket, as long as those can be; "": by TCP */
	char host[256]; /* a name or a number, without the brackets of IPv6 */
	char port[8];
	char export_name[4097]; /* NBD's strings are no longer */
};

/* Returns 0, or -EINVAL with `*why` as the reason, a constant. A user name and parameters but `socket` are passed over. */
int nbd_uri_parse(const char *text, struct nbd_uri *uri, const char **why);

#endif
