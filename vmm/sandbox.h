/*
 * The sandbox: what is left to this process when the guest begins to run. A guest that one day takes trvmm over finds a process with no
 * file system, no network, no privileges and few system calls. docs/threat-model.md says what that is worth, and against whom.
 *
 *     sandbox_close()         the whole process, once, while it has one thread and everything that it will need is open
 *     sandbox_enter(kind)     each thread for itself: the system calls of its kind (sandbox_calls.h), and no others for good
 *
 * Between the two a thread may still start threads. In a process that has not been closed (--no-sandbox, tests, other commands)
 * sandbox_enter() does nothing. What the host does not offer is left out and told in the report; what the sandbox cannot do without is
 * no_new_privs, seccomp, no capabilities, and, as root, to become another user.
 */
#ifndef TRVMM_VMM_SANDBOX_H
#define TRVMM_VMM_SANDBOX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* Kinds of threads, each with a list of system calls of its own. */
enum sandbox_kind {
	SANDBOX_LOOP, /* the main thread: sessions, signals, vsock, ports, other processes' requests */
	SANDBOX_VCPU,
	SANDBOX_DISK, /* block devices whose files are open */
	SANDBOX_DISK_FILES, /* block devices that also read host directories, whose files they open */
	SANDBOX_FS, /* virtio-fs: files of host directories in all ways */
	SANDBOX_RELAY, /* between a standard stream that may block and a pipe */
	SANDBOX_REAPER, /* vmm/reaper.c */
	SANDBOX_KEEPER, /* vmm/keeper.c, which stays outside otherwise */
	SANDBOX_NBD, /* the program trvmm-nbd, which has but one thread */
	SANDBOX_KINDS,
};

/* In the order in which they are put on. */
enum sandbox_layer {
	SANDBOX_DESCRIPTORS, /* what the caller had open is closed */
	SANDBOX_USER_NAMESPACE,
	SANDBOX_MOUNT_NAMESPACE, /* with an empty root, which nothing can be written to */
	SANDBOX_NETWORK_NAMESPACE,
	SANDBOX_PID_NAMESPACE,
	SANDBOX_IPC_NAMESPACE,
	SANDBOX_UTS_NAMESPACE,
	SANDBOX_USER_ID,
	SANDBOX_CAPABILITIES, /* none, and none to be had */
	SANDBOX_NO_NEW_PRIVS,
	SANDBOX_LANDLOCK,
	SANDBOX_LIMITS,
	SANDBOX_NOT_DUMPABLE,
	SANDBOX_SECCOMP,
	SANDBOX_LAYERS,
};

struct sandbox_report {
	struct {
		bool on;
		char why[120]; /* why it is off, or what there is to know */
	} layers[SANDBOX_LAYERS];
};

const char *sandbox_layer_name(enum sandbox_layer layer);

/* A directory (or a file, which is a share) that threads of SANDBOX_DISK_FILES or SANDBOX_FS open files in. */
struct sandbox_directory {
	int fd; /* of one that is no share, the number stays, and what it refers to becomes a mount of its own, where that is possible */
	bool share; /* of virtio-fs */
	bool writable;
};

/* What a system call does that no list has. */
enum sandbox_action {
	SANDBOX_KILL, /* ends the process by SIGSYS */
	SANDBOX_TELL, /* ends it with status 125, and a line that names the thread and the call (--sandbox-log) */
	SANDBOX_REFUSE, /* EPERM: for tests */
};

struct sandbox_spec {
	const struct sandbox_directory *directories;
	size_t directory_count;
	bool marks_cache; /* disks may have to change the times of files in the cache, which are the caller's */
	enum sandbox_action action;
	unsigned without; /* bits of layers that are left out: for tests */
};

/*
 * Confines the process. `report` may be NULL. Returns 0, or -errno with one line when one of those cannot be had: nothing of a guest may
 * run then. May be called by a process whose other threads have been joined a moment ago.
 */
int sandbox_close(const struct sandbox_spec *spec, struct sandbox_report *report, struct error *err);

/* The first of the layers, alone: for a run without the others. */
void sandbox_close_descriptors(struct sandbox_report *report);

/* Confines this thread to the calls of `kind`. Ends the process with a message when the kernel refuses: there is nothing to go on with. */
void sandbox_enter(enum sandbox_kind kind);

/*
 * The program that sandbox_enter(SANDBOX_REAPER) would install, for a process that shares our memory and can call no function of the C
 * library. NULL: there is nothing to install. Once.
 */
struct sock_fprog;
const struct sock_fprog *sandbox_reaper_program(void);

/* As sandbox_enter() for all threads of this process, whether it was closed or not: for the keeper, which is none of the above. */
int sandbox_enter_keeper(void);

/*
 * For a process that stays outside because it has to look up names, read certificates and connect: it can do that, but no more than the
 * host lets it be denied of the rest. It gets no new privileges, keeps of root's those to read what others may not, is not traced; and with
 * Landlock, files are not changed, made, removed or executed, no TCP port is bound (Linux 6.7), no process outside signalled (6.12).
 */
void sandbox_forbid_changes(void);

/* Whether the process was closed. */
bool sandbox_is_closed(void);

/* The name of a kind, as in messages. */
const char *sandbox_kind_name(enum sandbox_kind kind);

#endif
