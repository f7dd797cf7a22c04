/*
 * The kernel takes tens of milliseconds to take a VM down: it waits for RCU grace periods and for a thread of KVM's own. A process
 * that owns one stays with its parent that long after it exited. So a second process shares our memory and descriptors, sleeps, and ends
 * after us: the last to hold the VM, it pays for the teardown, while whoever waits for trvmm goes on.
 *
 * It also gives the terminal its modes back when we were killed before we could (vmm/terminal.h).
 *
 * It runs no code but that, holds nothing that we do not hold, ends when we do, however we do, and is gone a moment later.
 */
#ifndef TRVMM_VMM_REAPER_H
#define TRVMM_VMM_REAPER_H

/* Starts it. A failure (Linux before 5.3) is no harm: then the end takes longer. */
void reaper_start(void);

/* Ends this process at once. Closes all descriptors but `vm_fd` first, so that nobody waits for the other process to close a pipe. */
void reaper_exit(int code, int vm_fd) __attribute__((noreturn));

#endif
