/*
 * The machine: guest RAM, vCPUs, interrupt controllers, the UART and the virtio-mmio pages of the devices attached to it.
 *
 * Threads: one for each vCPU. Devices run on the loops that they were created with; the machine hands them notifications (ioeventfd) and
 * takes their interrupts (to its I/O APIC, or by irqfd to KVM's). How the VM ends is told once, on the loop given to machine_create().
 * There is no way to stop a running machine but to exit the process: its threads, memory and descriptors go with it.
 *
 * The order: machine_create(), then machine_attach() for each device and machine_boot(), which need only guest RAM, and
 * machine_create_vm(), which may run beside them on another thread; at last machine_start().
 */
#ifndef TRVMM_VMM_MACHINE_H
#define TRVMM_VMM_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "base/loop.h"
#include "devices/virtio/virtio_device.h"
#include "vmm/kernel_image.h"

enum machine_end {
	MACHINE_RESET,  /* the guest reset or powered off the machine, or shut down by a triple fault */
	MACHINE_FAILED, /* KVM could not go on; the detail says why */
};

struct machine_config {
	uint64_t memory_bytes; /* a multiple of 4096, at least 2 MiB */
	unsigned cpus;         /* 1 to LAYOUT_CPUS_MAX */
	unsigned cpu_thousandths; /* of a processor for each of them (cpu_quota.h); 0: no quota */
	bool shm; /* devices with shared memory regions will be attached */
	bool pc;               /* 8259s and an 8254 too, for kernels that want them: all interrupt controllers are KVM's then */
	int console_fd;        /* where the UART's output is copied; -1: nowhere; borrowed */
	/* All threads have been started, and none has run the guest yet. NULL: not wanted. */
	void (*starting)(void *data);
	void (*ended)(void *data, enum machine_end end, const char *detail);
	void *data;
};

struct machine;

/* Creates guest RAM, for a VM on the open /dev/kvm `kvm_fd` (borrowed). Returns 0 or -errno with one line. */
int machine_create(int kvm_fd, const struct machine_config *config, struct loop *loop, struct machine **machine, struct error *err);

/*
 * Creates the VM and its vCPUs. Sleeps for milliseconds where KVM_CREATE_VM waits for RCU grace periods (Linux 6.1 does, for its thread
 * that recovers large pages). Returns 0 or -errno with one line.
 */
int machine_create_vm(struct machine *machine, struct error *err);

/* Frees a machine that was never started. NULL is allowed. */
void machine_destroy(struct machine *machine);

const struct guest_mem *machine_mem(struct machine *machine);

/*
 * Gives the device a register page, an interrupt, and to its shared memory region, if it has one, a place above RAM: only in a machine that
 * was made for that. Before machine_boot(). Returns 0 or -errno with one line: -ENOSPC for too many.
 */
int machine_attach(struct machine *machine, struct virtio_device *dev, struct error *err);

/* Loads the kernel; " virtio_mmio.device=..." for each device is appended to `cmdline`. */
int machine_boot(struct machine *machine, const struct kernel_image *kernel, enum boot_protocol protocol, const char *cmdline,
		 struct error *err);

/*
 * Connects the devices with the VM and starts the vCPUs. From here on the machine lives until the process exits.
 * Returns 0, or -errno with one line: nothing of the guest has run then.
 */
int machine_start(struct machine *machine, struct error *err);

/*
 * Relates the guest's time stamp counter to CLOCK_MONOTONIC, for machine_time_of(). Before machine_start(), for those who want to know:
 * it costs system calls. Returns 0 or -errno.
 */
int machine_watch_time(struct machine *machine);

/* When the first vCPU's time stamp counter stood at `tsc`, in ns of CLOCK_MONOTONIC; 0 when machine_watch_time() did not succeed before. */
int64_t machine_time_of(const struct machine *machine, uint64_t tsc);

/* Processor time that the vCPUs' threads have used. After machine_start(). */
uint64_t machine_cpu_ns(const struct machine *machine);

/* The descriptor of the VM, -1 before it is there; for whoever ends the process. */
int machine_vm_fd(const struct machine *machine);

/* The last output of the guest's console; see uart_tail(). */
size_t machine_console_tail(struct machine *machine, unsigned lines, char *out, size_t out_size);

#endif
