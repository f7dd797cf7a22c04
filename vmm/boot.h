/*
 * Boot protocols: what a kernel finds in memory and in its registers at its first instruction.
 *
 *   BOOT_LINUX64  Documentation/x86/boot.rst, "64-bit boot protocol": boot_params in rsi, long mode, low 4 GiB mapped one to one
 *   BOOT_PVH      Xen's PVH: hvm_start_info in ebx, 32-bit protected mode without paging
 *
 * Interrupt controllers are described by an MP table (kernels without ACPI) and by ACPI tables, which also announce the virtio-mmio
 * devices as LNRO0005; the command line announces these once more for kernels with CONFIG_VIRTIO_MMIO_CMDLINE_DEVICES.
 */
#ifndef TRVMM_VMM_BOOT_H
#define TRVMM_VMM_BOOT_H

#include <linux/kvm.h>
#include <stdbool.h>

#include "base/error.h"
#include "vmm/guest_mem.h"
#include "vmm/kernel_image.h"

/* What the tables say about the machine. */
struct boot_device {
	gpa_t mmio;
	unsigned irq;
};

struct boot_machine {
	unsigned cpus;
	unsigned ioapic_pins;
	bool pic; /* two 8259s, too */
	const struct boot_device *devices; /* virtio-mmio pages */
	unsigned device_count;
};

/*
 * Loads `kernel`, with its initial ramdisk as high as it may lie, and writes everything that `protocol` wants: boot structures, `cmdline`,
 * tables. Returns 0, or -errno with one line:
 * -ENOMEM when these do not fit, -E2BIG for a command line that is too long, -ENOEXEC when the kernel has no such entry.
 */
int boot_prepare(const struct guest_mem *mem, const struct kernel_image *kernel, enum boot_protocol protocol, const char *cmdline,
		 const struct boot_machine *machine, struct error *err);

/* Sets the registers of the first vCPU for the kernel that was prepared. `sregs` holds what KVM_GET_SREGS gave. */
void boot_set_registers(const struct kernel_image *kernel, enum boot_protocol protocol, struct kvm_regs *regs,
			struct kvm_sregs *sregs);

/* What makes the bytes add up to 0 when it stands in the checksum field among them, which holds 0 now: MP and ACPI tables. */
uint8_t boot_checksum(const uint8_t *bytes, size_t length);

/* mptable.c: writes the MP floating pointer and configuration table (Intel MultiProcessor Specification 1.4) at LAYOUT_EBDA. */
void mptable_write(const struct guest_mem *mem, const struct boot_machine *machine);

/* acpi.c: writes RSDP, XSDT, FADT, MADT and DSDT (ACPI 6.4, hardware-reduced) from LAYOUT_ACPI on; the RSDP is at LAYOUT_ACPI. */
void acpi_write(const struct guest_mem *mem, const struct boot_machine *machine);

#endif
