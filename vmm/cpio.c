/* The "newc" archive; see cpio.h. */
#include "vmm/cpio.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>

#define HEADER_BYTES 110
#define ALIGNMENT 4
#define TRAILER "TRAILER!!!"

static void put(struct cpio *cpio, const void *bytes, size_t length)
{
	size_t wanted;
	if (cpio->failed)
		return;
	if (__builtin_add_overflow(cpio->length, length, &wanted)) {
		cpio->failed = -ENOMEM;
		return;
	}
	if (wanted > cpio->size) {
		const size_t size = wanted > cpio->size * 2 ? wanted : cpio->size * 2;
		uint8_t *grown = realloc(cpio->bytes, size);
		if (!grown) {
			cpio->failed = -ENOMEM;
			return;
		}
		cpio->bytes = grown;
		cpio->size = size;
	}
	if (length)
		memcpy(cpio->bytes + cpio->length, bytes, length);
	cpio->length = wanted;
}

static void align(struct cpio *cpio)
{
	static const uint8_t zeros[ALIGNMENT];
	put(cpio, zeros, -cpio->length % ALIGNMENT);
}

void cpio_add(struct cpio *cpio, const char *path, mode_t mode, dev_t device, const void *contents, size_t length)
{
	char header[HEADER_BYTES + 1];
	const char *name = path + (*path == '/');
	const size_t name_bytes = strlen(name) + 1;
	if (length > UINT32_MAX)
		cpio->failed = -EFBIG;
	/* inode, mode, uid, gid, links, mtime, size, the device that it was on (2), the device that it is (2), length of the name, check */
	snprintf(header, sizeof(header), "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", ++cpio->entries, mode, 0, 0,
		 1, 0, (uint32_t)length, 0, 0, major(device), minor(device), (uint32_t)name_bytes, 0);
	put(cpio, header, HEADER_BYTES);
	put(cpio, name, name_bytes);
	align(cpio);
	put(cpio, contents, length);
	align(cpio);
}

int cpio_finish(struct cpio *cpio)
{
	cpio_add(cpio, TRAILER, 0, 0, NULL, 0);
	return cpio->failed;
}

void cpio_destroy(struct cpio *cpio)
{
	free(cpio->bytes);
	*cpio = (struct cpio){ .bytes = NULL };
}
