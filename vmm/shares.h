/*
 * The shares of -v and --root: a FUSE server and a virtio-fs device for each. In the guest the agent mounts them by their tags; the
 * root's is on the kernel's command line.
 */
#ifndef TRVMM_VMM_SHARES_H
#define TRVMM_VMM_SHARES_H

#include "base/error.h"
#include "devices/virtio-fs/fs_server.h"
#include "devices/virtio-fs/virtio_fs.h"
#include "vmm/machine.h"
#include "vmm/options.h"
#include "vmm/session.h"

#define SHARES_ROOT_TAG "trvmm-root"

/* All is owned. */
struct shared {
	struct fs_server *server;
	struct virtio_fs *fs;
	char tag[16];
};

struct shares {
	struct shared *all; /* that of --root, if there is one, and those of -v in their order */
	size_t count;
	struct session_share *mounts; /* owned; what the agent is asked for: those of -v. Strings are of the options and of `all` */
	size_t mount_count;
	int program_fds[FS_EXTRAS_MAX]; /* our own programs, for the root; -1: none */
};

/* Opens what the options name. Returns 0 or -errno with one line; shares_close() is due in either case. */
int shares_open(const struct options *options, struct shares *shares, struct error *err);

/* Makes their devices and gives them to the machine, behind what it has; `limit` is for each. Returns 0 or -errno with one line. */
int shares_attach(struct shares *shares, struct machine *machine, const struct throttle_limit *limit, struct error *err);

/* Starts their threads, which run as long as the process. Returns 0 or -errno with one line. */
int shares_start(struct shares *shares, struct error *err);

/* The sum over all shares, from any thread. */
void shares_counters(const struct shares *shares, struct fs_counters *counters);

/* Frees shares that were not started. */
void shares_close(struct shares *shares);

#endif
