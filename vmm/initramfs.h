/*
 * The initial root file system for kernels whose drivers are modules, such as a distribution's own: the drivers that a guest of ours needs
 * to reach its root disk and us, and the agent, which loads them, mounts the disk and goes on there (guest/agent/initramfs.c).
 */
#ifndef TRVMM_VMM_INITRAMFS_H
#define TRVMM_VMM_INITRAMFS_H

#include <stdbool.h>

#include "base/error.h"
#include "vmm/cpio.h"

/*
 * Makes it from the modules in `folder` (/lib/modules/VERSION) for the kernel of version `release` ("": not known, then it is not compared).
 * `mount_data` is what mount(2) gets for the root disk. Returns 0, or -errno with one line: modules of another version, a driver that
 * is neither there nor built in. The caller destroys `archive`, also on failure.
 */
int initramfs_build(const char *folder, const char *release, bool read_only, const char *mount_data, struct cpio *archive,
		    struct error *err);

#endif
