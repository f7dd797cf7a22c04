/*
 * What trvmm and trvmm-nbd say to each other.
 *
 * libnbd needs GnuTLS and libxml2, of which Debian has no complete static libraries, and trvmm is static: it would start slower
 * otherwise, for everyone. So the NBD client is a program of its own, which trvmm starts for each NBD disk with
 *
 *   descriptor 3   a SOCK_SEQPACKET socket; its end is the program's end
 *   descriptor 4   a memory file of NBD_WINDOW_BYTES, which both map: data of reads and writes
 *   argument 1     "--sandbox", "--no-sandbox" or "--sandbox-log": whether it confines itself, as trvmm's options have it
 *   argument 2     the URI
 *
 * trvmm-nbd sends one hello. Then trvmm sends some requests, waits for as many replies in the same order, and so on; they are in flight to
 * the server together. Both are of one build, on one machine: structs travel as they are. trvmm believes nothing but the data, and that
 * is the guest's business.
 */
#ifndef TRVMM_DEVICES_VIRTIO_BLK_NBD_BRIDGE_H
#define TRVMM_DEVICES_VIRTIO_BLK_NBD_BRIDGE_H

#include <stdint.h>

#define NBD_BRIDGE_SOCKET 3
#define NBD_BRIDGE_WINDOW 4
#define NBD_WINDOW_BYTES (4u << 20)
#define NBD_REQUESTS_MAX 16
#define NBD_TEXT_BYTES 400

struct nbd_hello {
	int32_t error; /* 0, or -errno: `text` says why, and this was all */
	uint32_t read_only; /* the server takes no writes */
	uint64_t size_bytes;
	char text[NBD_TEXT_BYTES]; /* any bytes, terminated */
};

enum nbd_op { NBD_OP_READ, NBD_OP_WRITE, NBD_OP_FLUSH, NBD_OP_ZERO };

struct nbd_request {
	uint32_t op;
	uint32_t may_unmap; /* NBD_OP_ZERO */
	uint32_t more; /* another one follows, up to NBD_REQUESTS_MAX; of several all are reads and writes */
	uint32_t window; /* reads and writes: where their data begins there; they have no byte in common */
	uint64_t offset;
	uint64_t length; /* reads and writes: up to the window's end; zeroes: less than 2^32 */
};

enum nbd_news { NBD_NO_NEWS, NBD_LOST, NBD_BACK };

struct nbd_reply {
	int32_t error; /* 0 or -errno */
	uint32_t news; /* since the last reply */
	char text[NBD_TEXT_BYTES]; /* of NBD_LOST */
};

#endif
