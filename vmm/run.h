/* `trvmm [OPTIONS] COMMAND`: from options to an exit status. */
#ifndef TRVMM_VMM_RUN_H
#define TRVMM_VMM_RUN_H

#include "base/error.h"
#include "vmm/options.h"

/*
 * Builds the disk, boots the guest, runs the command. Returns only when nothing was started: -errno with one line in `err`. Otherwise
 * the process ends with the command's exit status.
 */
int run(const struct options *options, struct error *err);

/*
 * The path of one of trvmm's own files ("vmlinux", "busybox.tar"): in $TRVMM_DATA, beside the program (guest/NAME, the build tree), or
 * in ../share/trvmm. Returns an allocated string, or NULL when it is nowhere.
 */
char *data_file(const char *name);

#endif
