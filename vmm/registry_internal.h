/* What the files of the registry share: registry_root.c (DIR), registry_state.c (NAME/state), registry.c (the rest); see registry.h. */
#ifndef TRVMM_VMM_REGISTRY_INTERNAL_H
#define TRVMM_VMM_REGISTRY_INTERNAL_H

#include "vmm/registry.h"

#define REGISTRY_STATE "state"
#define REGISTRY_CONTROL "control"

/* ---- registry_root.c ---- */

/* Opens DIR; makes it when `create`. Returns a descriptor, or -errno with one line: -ENOENT, -EPERM when it is not this user's alone. */
int registry_root_open(bool create, struct error *err);

/* ---- registry_state.c ---- */

/* Takes the lock that says "this machine lives". Returns 0, -EAGAIN when somebody has it, or -errno. */
int registry_state_lock(int state_fd);
/* Whether somebody else has it. */
bool registry_state_is_locked(int state_fd);
/* Waits until nobody has it. Returns 0 or -errno. */
int registry_state_wait(int state_fd);

int registry_state_write_info(int state_fd, const struct registry_info *info);
int registry_state_write_end(int state_fd, const struct registry_end *end);

/* Reads what there is. Without a second line `end` tells of a killed process and false is returned in `has_end`. 0 or -EBADMSG. */
int registry_state_read(int state_fd, struct registry_info *info, struct registry_end *end, bool *has_end);

#endif
