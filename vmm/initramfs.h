/*
 * The initial root file system for kernels whose drivers are modules, such as a distribution's own: the drivers that a guest of ours needs
 * to reach its root disk and us, and the agent, which loads them, mounts the disk and goes on there (guest/agent/initramfs.c).
 */
#ifndef TRVMM_VMM_INITRAMFS_H
#define TRVMM_VMM_INITRAMFS_H

#include <stdbool.h>

#include "base/error.h"
#include "vmm/cpio.h"

/* How the root file system is mounted. Strings without blanks, but for the data. */
struct initramfs_root {
	const char *source, *type;
	const char *init; /* the agent there */
	const char *data; /* for mount(2) */
};

struct initramfs_spec {
	const char *modules; /* the folder: /lib/modules/VERSION */
	const char *release; /* the kernel's version; "": not known, and not compared */
	struct initramfs_root root;
	bool read_only;
	bool shares; /* the guest has virtio-fs devices */
};

/*
 * Makes it. Returns 0, or -errno with one line: modules of another version, a driver that is neither there nor built in. The caller
 * destroys `archive`, also on failure.
 */
int initramfs_build(const struct initramfs_spec *spec, struct cpio *archive, struct error *err);

#endif
