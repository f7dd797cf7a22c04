/* File systems in the guest's memory, as people write them (--tmpfs). */
#ifndef TRVMM_VMM_TMPFS_H
#define TRVMM_VMM_TMPFS_H

#include "base/error.h"
#include "vmm/session.h"

/*
 * Parses FOLDER[:OPTION,...]: size=SIZE (default: half of the guest's memory), mode=OCTAL (default: 1777). Returns 0, and tmpfs_destroy()
 * frees what is in `tmpfs`; -EINVAL or -ENOMEM with one line.
 */
int tmpfs_parse(const char *argument, struct session_tmpfs *tmpfs, struct error *err);
void tmpfs_destroy(struct session_tmpfs *tmpfs);

#endif
