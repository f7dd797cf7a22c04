/*
 * Kernel files: what they are and how they get into guest RAM.
 *
 * Known are ELF vmlinux (64-bit, x86-64) and bzImage (boot protocol 2.08 or later) whose payload, an ELF vmlinux, is unpacked here
 * (gzip, zstd, xz, lzma, lz4) so that the guest never decompresses itself. Specification: Documentation/x86/boot.rst of the Linux
 * kernel; the PVH note is Xen's XEN_ELFNOTE_PHYS32_ENTRY (docs/misc/pvh.pandoc).
 */
#ifndef TRVMM_VMM_KERNEL_IMAGE_H
#define TRVMM_VMM_KERNEL_IMAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "vmm/guest_mem.h"

enum boot_protocol { BOOT_LINUX64, BOOT_PVH };

struct kernel_image {
	int fd;                  /* owned: the ELF file (for a bzImage, its unpacked payload) */
	uint64_t size_bytes;
	bool from_bzimage;       /* setup_header is valid */
	uint8_t setup_header[0x290 - 0x1f1]; /* struct setup_header from offset 0x1f1 of the bzImage, zero-padded */
	uint64_t entry;          /* e_entry: physical address of startup_64 */
	bool entry_loaded;       /* it lies in a segment: false for kernels that have only a PVH entry, or a virtual address there */
	uint64_t pvh_entry;      /* 32-bit entry of the PVH note; 0: there is none */
	char release[64];        /* its version, as uname -r has it, from the header of a bzImage; "": not known */
	const uint8_t *initrd;   /* borrowed: an initial ramdisk that goes with it; the caller's to set */
	size_t initrd_bytes;     /* 0: none */
};

/*
 * Opens the kernel `path`. An unpacked bzImage is kept in the cache `cache_dir` ("": the default one; NULL: nowhere, it is unpacked
 * into memory). A cache that cannot be used is no error. Returns 0, or -errno with one line in `err`.
 */
int kernel_image_open(const char *path, const char *cache_dir, struct kernel_image *image, struct error *err);
void kernel_image_close(struct kernel_image *image);

/*
 * Copies the PT_LOAD segments to their physical addresses. `end` is the first address behind them. Returns 0, or -errno: -ENOMEM when
 * they do not fit into guest RAM.
 */
int kernel_image_load(const struct kernel_image *image, const struct guest_mem *mem, gpa_t *end, struct error *err);

/*
 * Looks for a driver by strings that its code contains ("virtio-mmio", "virtio_blk", ...). Only for explaining a failed boot: it reads
 * the whole image. Returns the name of the first needed kernel option that is missing, or NULL when all seem to be there.
 */
const char *kernel_image_missing_driver(const struct kernel_image *image);

#endif
