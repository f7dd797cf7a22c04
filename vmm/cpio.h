/*
 * An archive for the kernel's initial root file system, in memory: cpio in the "newc" format, the Linux kernel's
 * Documentation/driver-api/early-userspace/buffer-format.rst. All that is in it belongs to root.
 *
 *    0        6                                                    110
 *    | 070701 | 13 fields of 8 hex digits: inode, mode, ..., namesize, check | name, 0, up to 4 | contents, up to 4 |
 */
#ifndef TRVMM_VMM_CPIO_H
#define TRVMM_VMM_CPIO_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* All zero at first. */
struct cpio {
	uint8_t *bytes; /* owned */
	size_t length, size;
	uint32_t entries;
	int failed; /* -errno; what is added afterwards is dropped */
};

/* Adds an entry: a path (a slash before it is left out), whose folders were added before; `mode` with its type. `device` is for nodes. */
void cpio_add(struct cpio *cpio, const char *path, mode_t mode, dev_t device, const void *contents, size_t length);

/* Adds the entry that ends the archive. Returns 0 or -errno: -ENOMEM, -EFBIG for contents of 4 GiB and more. */
int cpio_finish(struct cpio *cpio);

void cpio_destroy(struct cpio *cpio);

#endif
