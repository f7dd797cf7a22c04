/*
 * Buffers that lie in devices' shared memory (virtio_device.h): the parts of a chain that do are replaced by memory of ours for as long as
 * the request is served. Drivers have such when they do direct I/O for a program whose memory is a file of the host that is mapped.
 *
 * What is there may be gone when it is touched, which would end us by SIGBUS: so the host's kernel copies, between two ranges of this
 * process, and says EFAULT.
 */
#ifndef TRVMM_DEVICES_VIRTIO_SHM_BOUNCE_H
#define TRVMM_DEVICES_VIRTIO_SHM_BOUNCE_H

#include "devices/virtio/virtq.h"

#define SHM_BOUNCE_MAX_BYTES (4u << 20) /* in shared memory, of one chain: more is refused */

struct shm_bounce {
	uint8_t *bytes; /* owned; NULL: nothing is replaced */
	struct iovec *theirs; /* owned; what entry i of the chain was; length 0: it was not replaced */
};

/*
 * Replaces those parts, and fills readable ones. Returns 0, or -EFAULT when not all of them could be read: zeroes stand for the rest, and
 * the chain can be answered with an error; or -E2BIG, -ENOMEM: the chain still cannot be touched, but given back. shm_bounce_end() is due
 * in any case.
 */
int shm_bounce_begin(const struct guest_mem *mem, struct virtq_chain *chain, struct shm_bounce *bounce);

/* Copies the first `written_bytes` of the writable parts to where they belong. Returns 0, or -EFAULT: not all of it is there. */
int shm_bounce_copy_back(const struct virtq_chain *chain, const struct shm_bounce *bounce, uint32_t written_bytes);

/* Frees what was made: the chain cannot be touched any more. */
void shm_bounce_end(struct shm_bounce *bounce);

#endif
