/*
 * A share of a processor for a vCPU: each time that its thread has run for its part of a period, it waits until that would have taken a
 * period. The time counts that the thread has used, in the guest and for it, so it is exact whatever else the host does, and needs no
 * control group.
 *
 *     0             part                           period
 *     | runs        | waits                        | runs ...
 *
 * A timer of the kernel, on the clock of the thread's own processor time, sends it a signal each time a part is used up, which ends
 * KVM_RUN. The guest cannot delay that, whatever it does with its interrupts.
 */
#ifndef TRVMM_VMM_CPU_QUOTA_H
#define TRVMM_VMM_CPU_QUOTA_H

#include <stdint.h>

struct cpu_quota {
	unsigned thousandths; /* 0: no quota */
	uint64_t used_ns; /* of the thread's processor time, when it was looked at last */
	uint64_t paid_ns; /* until when the time that was used then would have lasted */
};

/*
 * For the calling thread, before it enters the sandbox. `thousandths` of one processor; 0 and 1000 and more: no quota. Returns 0 or
 * -errno.
 */
int cpu_quota_start(struct cpu_quota *quota, unsigned thousandths);

/* Before each run of the guest: waits if a part was used up. */
void cpu_quota_wait(struct cpu_quota *quota);

#endif
