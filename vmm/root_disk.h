/*
 * The root disk, from the options that describe it: layers to a tree, the tree to a plan, the plan to a disk. A run boots from it, and the
 * subcommands of `trvmm disk` look at it.
 */
#ifndef TRVMM_VMM_ROOT_DISK_H
#define TRVMM_VMM_ROOT_DISK_H

#include "base/error.h"
#include "devices/virtio-blk/disk.h"
#include "ext4gen/ext4gen.h"
#include "layers/layers.h"
#include "vmm/options.h"
#include "vmm/sandbox.h"

/* All is owned. */
struct root_disk {
	struct tree *tree;
	struct image_config image; /* of the topmost image among the layers */
	struct ext4_plan *plan;
	struct disk *disk;         /* see disk_ext4.h */
};

enum root_disk_use {
	ROOT_DISK_RUN,  /* a guest will write to it; a kept disk's file is made when it is missing */
	ROOT_DISK_LOOK, /* nothing is changed */
};

/* Makes the disk that `options` describe. Returns 0 or -errno with one line; root_disk_close() is due in either case. */
int root_disk_open(const struct options *options, enum root_disk_use use, struct root_disk *root, struct error *err);

void root_disk_close(struct root_disk *root);

/* The kind of thread that serves a disk of `tree` (NULL: of no tree): one that opens files when they are read, or one that does not. */
enum sandbox_kind disk_thread_kind(const struct tree *tree);

#endif
