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

/* cpuid.c: what the vCPU's CPUID instruction answers, and its start-up MSRs. */
int vcpu_set_cpuid(struct vcpu *vcpu, struct error *err);
int vcpu_set_msrs(struct vcpu *vcpu, struct error *err);

#endif
