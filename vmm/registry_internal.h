/*
 * What the files of the registry share; see registry.h.
 *
 *   registry.c          machines are found, listed, waited for
 *   registry_claim.c    the machine's own side: its name is taken and given back
 *   registry_remove.c   machines are taken away
 *   registry_control.c  NAME/control
 *   registry_name.c     what may be a name
 *   registry_root.c     DIR
 *   registry_state.c    NAME/state
 */
#ifndef TRVMM_VMM_REGISTRY_INTERNAL_H
#define TRVMM_VMM_REGISTRY_INTERNAL_H

#include "vmm/registry.h"

#define REGISTRY_STATE "state"
#define REGISTRY_CONTROL "control"

/* ---- registry.c ---- */

/* Opens the machine `name`, which is to be closed; says nothing about what fails. Returns 0 or -errno. */
int registry_entry_open(int root_fd, const char *name, struct registry_entry *entry);

/* ---- registry_remove.c ---- */

/* Empties and removes a folder that nobody will find any more, or that is not finished. */
void registry_erase(int root_fd, const char *folder, int folder_fd);

/* Takes `name` away. The caller has the lock of the state that it has had there; -ENOENT when another one is there now, or none. */
int registry_retire(int root_fd, const char *name, int folder_fd, int state_fd);

/* Removes what a killed process left of a machine that was being made or removed. */
void registry_sweep(int root_fd, const char *folder);

/* ---- registry_control.c ---- */

/* Makes the socket. Returns a descriptor that does not block, or -errno. */
int registry_listen(int folder_fd);

/* ---- registry_name.c ---- */

/* PREFIX and eight random digits. */
void registry_random_name(char *name, size_t size, const char *prefix);

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
