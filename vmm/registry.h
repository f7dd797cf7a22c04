/*
 * Named machines, as the file system shows them to other processes of their user.
 *
 *   DIR             $XDG_RUNTIME_DIR/trvmm, /run/user/UID/trvmm or /tmp/trvmm-UID: the first whose parent is this user's own (the last:
 *                   whose folder is). 0700, and refused when it belongs to somebody else or is open to others
 *   DIR/NAME        a machine; it appears, whole, when the name is claimed
 *   DIR/.new-*      one that is being made; DIR/.old-* one that is being removed
 *
 *   NAME/state      locked (write, by open file description) as long as the machine's process lives: the lock is the one truth about that,
 *                   and the kernel lets go of it however the process ends. Two lines of JSON: what the machine is, written before it has
 *                   its name; how it ended, written before the lock is let go
 *   NAME/control    the Unix socket of vmm/remote.h
 *   NAME/log, log.1 what a detached machine wrote (vmm/output_log.h)
 *
 * Nothing waits for anybody here but registry_wait(). A name is taken by rename without replacement, and given back by rename, which only
 * the holder of the lock of its `state` may do: so two runs with one name, and two that clean up, cannot hurt each other. What a killed
 * process left is found by its lock, and removed by the next registry_list() or registry_claim() of its name.
 */
#ifndef TRVMM_VMM_REGISTRY_H
#define TRVMM_VMM_REGISTRY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

#define REGISTRY_NAME_MAX 63
#define REGISTRY_COMMAND_MAX 255
#define REGISTRY_TEXT_MAX 511

/* What a machine is. */
struct registry_info {
	pid_t pid;
	int64_t started_s; /* since the epoch */
	bool detached;
	bool remove; /* --rm */
	unsigned cpus;
	uint64_t memory_bytes;
	char command[REGISTRY_COMMAND_MAX + 1]; /* for people: cut, printable ASCII */
};

/* How it ended. */
struct registry_end {
	int exit_code;
	int64_t ended_s;
	char text[REGISTRY_TEXT_MAX + 1]; /* what trvmm itself had to say; printable ASCII, empty: nothing */
};

/* Returns 0, or -EINVAL with one line: a letter or digit, then up to 62 letters, digits, "_", "." and "-". */
int registry_check_name(const char *name, struct error *err);

/* ---- the machine's own side ---- */

struct registry_claim {
	char name[REGISTRY_NAME_MAX + 1];
	int folder_fd; /* owned: NAME/ */
	int state_fd; /* owned: holds the lock */
	int listen_fd; /* owned: the listening socket; does not block */
	int root_fd; /* owned: DIR */
};

/*
 * Takes `name` (NULL: a short one is made up) for this process and whoever shares its descriptors. Clients may connect from now on.
 * Returns 0, or -errno with one line: -EEXIST when the name is taken, by a machine that runs or by one that ended and was kept.
 */
int registry_claim(struct registry_claim *claim, const char *name, const struct registry_info *info, struct error *err);

/* Writes how the machine ended; removes all of it unless `keep`. The lock is held until the process ends or closes the descriptors. */
void registry_release(struct registry_claim *claim, const struct registry_end *end, bool keep);

/* ---- other processes ---- */

enum registry_status {
	REGISTRY_RUNNING,
	REGISTRY_ENDED, /* `end` says how */
	REGISTRY_KILLED, /* the process ended without a word: `end.exit_code` is 137 */
};

struct registry_entry {
	char name[REGISTRY_NAME_MAX + 1];
	int folder_fd, state_fd; /* owned */
	enum registry_status status;
	struct registry_info info;
	struct registry_end end; /* unless it runs */
};

/* Finds a machine. Returns 0, or -errno with one line: -ENOENT. The entry is to be closed. */
int registry_find(const char *name, struct registry_entry *entry, struct error *err);
void registry_entry_close(struct registry_entry *entry);

/* Whether it runs now. */
bool registry_is_running(const struct registry_entry *entry);

/* All machines, by name; removes what killed ones left. No DIR: none. Returns 0 or -errno with one line. */
int registry_list(struct registry_entry **entries, size_t *count, struct error *err);
void registry_list_free(struct registry_entry *entries, size_t count);

/* Waits until the machine has ended and fills `status` and `end`, also when it is removed meanwhile. Returns 0 or -errno with one line. */
int registry_wait(struct registry_entry *entry, struct error *err);

/* Removes a machine that has ended. Returns 0, or -errno with one line: -EBUSY when it runs, -ENOENT when somebody else removed it. */
int registry_remove(struct registry_entry *entry, struct error *err);

/* Connects with the machine's socket. Returns a descriptor (CLOEXEC, blocking), or -errno with one line: -ECONNREFUSED. */
int registry_connect(const struct registry_entry *entry, struct error *err);

#endif
