/*
 * The disks of --disk: /dev/vdb and so on, in the order of the options. SPEC[:ro], where SPEC is
 *
 *   layers=A[,B...]   a file system generated from layers, as the root disk's is; what the guest writes there ends with the VM
 *   nbd://...         an export of a network block device server (nbds://, nbd+unix://, nbds+unix://)
 *   PATH              a raw file or a block device of the host
 */
#ifndef TRVMM_VMM_EXTRA_DISKS_H
#define TRVMM_VMM_EXTRA_DISKS_H

#include "base/error.h"
#include "devices/virtio-blk/virtio_blk.h"
#include "layers/layers.h"
#include "vmm/machine.h"
#include "vmm/options.h"

/* All is owned. */
struct extra_disk {
	struct tree *tree; /* of layers=; else NULL, as the plan */
	struct ext4_plan *plan;
	struct disk *disk;
	struct loop *loop; /* its own: requests block on the host's storage */
	struct virtio_blk *blk;
};

struct extra_disks {
	struct extra_disk *disks;
	size_t count;
};

/* Opens all disks of the options. Returns 0 or -errno with one line; extra_disks_close() is due in either case. */
int extra_disks_open(const struct options *options, struct extra_disks *all, struct error *err);

/* Gives them to the machine, behind what it has; `limit` is for each. Returns 0 or -errno with one line. */
int extra_disks_attach(struct extra_disks *all, struct machine *machine, const struct throttle_limit *limit, struct error *err);

/* Starts their threads, which run as long as the process. Returns 0 or -errno with one line. */
int extra_disks_start(struct extra_disks *all, struct error *err);

/* Whether one of them keeps what the guest writes. */
bool extra_disks_are_kept(const struct extra_disks *all);

/* Frees disks that were not attached. */
void extra_disks_close(struct extra_disks *all);

#endif
