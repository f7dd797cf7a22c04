/*
 * What the files of a run share: run.c (wiring and start), run_events.c (signals, timers), run_ports.c (ways in from the host),
 * run_sandbox.c (its confinement), run_end.c (how it ends). All of it happens on the main thread, which is the loop's, but for the
 * preparation of the guest.
 */
#ifndef TRVMM_VMM_RUN_INTERNAL_H
#define TRVMM_VMM_RUN_INTERNAL_H

#include "base/loop.h"
#include "devices/virtio-blk/virtio_blk.h"
#include "devices/virtio-vsock/virtio_vsock.h"
#include "vmm/extra_disks.h"
#include "vmm/machine.h"
#include "vmm/options.h"
#include "vmm/ports.h"
#include "vmm/root_disk.h"
#include "vmm/sandbox.h"
#include "vmm/session.h"
#include "vmm/shares.h"

struct run {
	const struct options *options;
	struct loop *loop;
	struct root_disk root;
	struct kernel_image kernel;
	struct machine *machine;
	struct loop *blk_loop;
	struct virtio_blk *blk; /* NULL, as the loop: the root is a share */
	struct extra_disks extra_disks;
	struct shares shares;
	struct virtio_vsock *vsock;
	struct ports *ports;    /* NULL: no -p */
	struct keeper *keeper;  /* NULL: nothing of this run has a name outside */
	struct session *session;
	struct named *named; /* NULL: it has no name (run_named.h) */
	struct loop_source signals;
	struct loop_source boot_timer, timeout_timer;
	unsigned interrupts; /* SIGINT and SIGTERM so far */
	bool ready, timed_out;
	int timeline_fd; /* of --timeline; -1: none */
	char said[1024]; /* our own last words */
	char death[256]; /* how the guest ended by itself; empty: it runs */
};

/* ---- run_events.c ---- */

/* Blocks the signals that are forwarded, in this thread and all that it will start, and takes them from a descriptor. */
int run_watch_signals(struct run *run, struct error *err);
/* Makes a timer that calls `ready` after so many seconds. */
int run_add_timer(struct run *run, struct loop_source *timer, unsigned seconds, void (*ready)(struct loop_source *, uint32_t),
		  struct error *err);
void run_boot_timed_out(struct loop_source *source, uint32_t events);
void run_command_timed_out(struct loop_source *source, uint32_t events);
/* The size of the terminal at stdin or stdout; 0 when there is none. */
void run_window_size(uint16_t *rows, uint16_t *columns);

/* ---- run_ports.c ---- */

/* Listens at the ports of -p, if any. Their clients wait until the agent listens, too: then ports_start(). */
int run_open_ports(struct run *run, struct error *err);
/* Starts the process that looks after what has a name outside, if anything has. */
int run_start_keeper(struct run *run, struct error *err);
/* Opens the Unix sockets of --vsock, if any. The keeper removes them. */
int run_serve_vsock(struct run *run, struct error *err);

/* ---- run_sandbox.c ---- */

/* Closes the sandbox, when all that the run needs is open and there is one thread. Warns when it was not wanted. */
int run_close_sandbox(struct run *run, struct error *err);

/* ---- run_end.c ---- */

/* Ends the process, and with it the VM, at once. Only after the machine was created. */
void run_finish(struct run *run, int code) __attribute__((noreturn));
/* ... after a line that says what happened to the guest. */
void run_guest_died(struct run *run, const char *what) __attribute__((noreturn));
/* Callbacks of the machine and of the main session. */
void run_machine_ended(void *data, enum machine_end end, const char *detail);
void run_session_ended(void *data, const struct session_result *result);

#endif
