/* What the files of the machine share; see machine.h. */
#ifndef TRVMM_VMM_MACHINE_INTERNAL_H
#define TRVMM_VMM_MACHINE_INTERNAL_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>

#include "devices/virtio/virtio_mmio.h"
#include "vmm/cpu_quota.h"
#include "vmm/ioapic.h"
#include "vmm/irq_line.h"
#include "vmm/layout.h"
#include "vmm/machine.h"
#include "vmm/uart.h"

struct attached;

/* An ioeventfd: the notification of one queue. */
struct queue_kick {
	struct loop_source source; /* first */
	struct attached *attached;
	unsigned queue;
};

struct attached {
	struct virtio_mmio mmio;
	gpa_t address;
	struct machine *machine;
	struct irq_line line;
	struct queue_kick kicks[VIRTIO_MAX_QUEUES];
};

struct vcpu {
	struct machine *machine;
	unsigned index;
	int fd;
	struct kvm_run *run;
	pthread_t thread;
	struct cpu_quota quota;
};

struct machine {
	struct machine_config config;
	struct loop *loop; /* borrowed */
	struct guest_mem mem;
	int kvm_fd; /* borrowed */
	int vm_fd;
	size_t run_bytes;
	struct vcpu vcpus[LAYOUT_CPUS_MAX];
	struct attached attached[LAYOUT_DEVICES_MAX];
	unsigned attached_count;
	gpa_t shm_next; /* where the next shared memory region may begin; 0: there is none yet */
	struct uart uart;
	struct irq_line uart_line;
	bool split_irqchip;
	struct ioapic ioapic; /* when it is split */
	pthread_mutex_t gate; /* who gets through runs the guest: held until all is ready for that */
	atomic_flag ended;
	struct kernel_image boot_kernel; /* what was loaded: its entry points; the descriptor is not ours */
	enum boot_protocol boot_protocol;
	/* The guest's time stamp counter and CLOCK_MONOTONIC at one moment; 0 kHz: not known. */
	uint64_t tsc, tsc_khz;
	int64_t tsc_ns;
};

/* vcpu.c: runs the vCPU on this thread until the machine ends. */
void vcpu_run(struct vcpu *vcpu);

/*
 * machine_shm.c: shared memory regions of devices, memory of the guest that is no RAM. What the guest may not touch of one is a machine
 * check: a processor's word for memory that has failed. Linux kills the program that did it by SIGBUS, or fails its system call.
 */
void machine_shm_place(struct machine *machine, struct virtio_device *dev);
/* Before the guest runs, for each vCPU: machine checks that programs survive. Returns 0 or -errno with one line. */
int machine_shm_prepare_vcpu(struct vcpu *vcpu, struct error *err);
/* Shows the guest the regions of all devices. Returns 0 or -errno with one line. */
int machine_shm_map(struct machine *machine, struct error *err);
/*
 * KVM could not go on for want of a page. If devices have shared memory, it was of that: the guest tries again when they have made it
 * accessible now, or has a machine check next. Returns false if none has any, or KVM refuses.
 */
bool machine_shm_touched(struct vcpu *vcpu);

/* cpuid.c: what the vCPU's CPUID instruction answers, and its start-up MSRs. */
int vcpu_set_cpuid(struct vcpu *vcpu, struct error *err);
int vcpu_set_msrs(struct vcpu *vcpu, struct error *err);

#endif
