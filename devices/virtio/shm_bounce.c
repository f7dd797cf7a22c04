/* Buffers in devices' shared memory; see shm_bounce.h. */
#include "devices/virtio/shm_bounce.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static bool copy_out(const struct iovec *ours, const struct iovec *theirs)
{
	return process_vm_readv(getpid(), ours, 1, theirs, 1, 0) == (ssize_t)theirs->iov_len;
}

static bool copy_back(const struct iovec *ours, const struct iovec *theirs)
{
	return process_vm_writev(getpid(), ours, 1, theirs, 1, 0) == (ssize_t)ours->iov_len;
}

int shm_bounce_begin(const struct guest_mem *mem, struct virtq_chain *chain, struct shm_bounce *bounce)
{
	const unsigned count = chain->readable_count + chain->writable_count;
	uint64_t total = 0;
	int result = 0;

	*bounce = (struct shm_bounce){ .bytes = NULL };
	for (unsigned i = 0; i < count; i++)
		total += guest_is_shm(mem, chain->iov[i].iov_base) ? chain->iov[i].iov_len : 0;
	if (total > SHM_BOUNCE_MAX_BYTES)
		return -E2BIG;
	bounce->bytes = calloc(1, total ? total : 1);
	bounce->theirs = calloc(count ? count : 1, sizeof(*bounce->theirs));
	if (!bounce->bytes || !bounce->theirs) {
		shm_bounce_end(bounce);
		return -ENOMEM;
	}
	uint8_t *at = bounce->bytes;
	for (unsigned i = 0; i < count; i++) {
		struct iovec *part = &chain->iov[i];
		if (!guest_is_shm(mem, part->iov_base))
			continue;
		bounce->theirs[i] = *part;
		part->iov_base = at;
		at += part->iov_len;
		if (i < chain->readable_count && !copy_out(part, &bounce->theirs[i]))
			result = -EFAULT;
	}
	return result;
}

int shm_bounce_copy_back(const struct virtq_chain *chain, const struct shm_bounce *bounce, uint32_t written_bytes)
{
	const unsigned count = chain->readable_count + chain->writable_count;
	uint32_t left = written_bytes;
	int result = 0;

	for (unsigned i = chain->readable_count; bounce->bytes && i < count && left; i++) {
		struct iovec ours = chain->iov[i];
		if (ours.iov_len > left)
			ours.iov_len = left;
		left -= (uint32_t)ours.iov_len;
		if (bounce->theirs[i].iov_len && !copy_back(&ours, &bounce->theirs[i]))
			result = -EFAULT;
	}
	return result;
}

void shm_bounce_end(struct shm_bounce *bounce)
{
	free(bounce->bytes);
	free(bounce->theirs);
	*bounce = (struct shm_bounce){ .bytes = NULL };
}
