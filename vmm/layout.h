/*
 * Where things lie in the guest's physical address space.
 *
 *   0x0000'0500  GDT                        0x0009'fc00  MP table (last KiB of base memory)
 *   0x0000'6000  PVH start info             0x000e'0000  ACPI tables
 *   0x0000'7000  boot_params (zero page)    0x0010'0000  RAM, the kernel from its own address on
 *   0x0000'9000  page tables                0xc000'0000  hole: MMIO
 *   0x0002'0000  command line               0xd000'0000  virtio-mmio pages
 *   0x0003'0000  setup_data                 0x1'0000'0000  RAM above 4 GiB, then devices' shared memory
 */
#ifndef TRVMM_VMM_LAYOUT_H
#define TRVMM_VMM_LAYOUT_H

#define LAYOUT_GDT 0x500ull
#define LAYOUT_PVH_INFO 0x6000ull
#define LAYOUT_BOOT_PARAMS 0x7000ull
#define LAYOUT_PAGE_TABLES 0x9000ull /* PML4, PDPT, four page directories: up to 0xf000 */
#define LAYOUT_BOOT_STACK 0x8ff0ull
#define LAYOUT_CMDLINE 0x20000ull
#define LAYOUT_CMDLINE_BYTES 0x10000u
#define LAYOUT_SETUP_DATA 0x30000ull
#define LAYOUT_EBDA 0x9fc00ull /* end of usable base memory */
#define LAYOUT_ACPI 0xe0000ull
#define LAYOUT_HIGH_RAM 0x100000ull

#define LAYOUT_VIRTIO_MMIO 0xd0000000ull
#define LAYOUT_VIRTIO_BYTES 0x1000ull
#define LAYOUT_IOAPIC 0xfec00000ull
#define LAYOUT_IOAPIC_BYTES 0x1000ull
#define LAYOUT_LAPIC 0xfee00000ull
#define LAYOUT_KVM_IDENTITY_MAP 0xfffbc000ull
#define LAYOUT_KVM_TSS 0xfffbd000ull

/* A device's shared memory begins at a multiple of this, which the guest's kernel can map by one entry of its page tables. */
#define LAYOUT_SHM_ALIGN 0x40000000ull

#define LAYOUT_CPUS_MAX 8
#define LAYOUT_IRQ_COM1 4
/* Pins of the I/O APIC for devices, in this order. Each pin up to the last that is used costs the guest's start 0.1 ms. */
#define LAYOUT_DEVICE_IRQS { 5, 6, 7, 9, 10, 11, 16, 17, 18, 19, 20, 21, 22, 23 }
#define LAYOUT_DEVICES_MAX 14

#endif
