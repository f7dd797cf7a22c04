/*
 * Guest RAM: which guest physical addresses are backed, and the one way from an address to a pointer.
 *
 * Everything in guest RAM may change between two instructions of ours: what is parsed is copied first and decided on the copy.
 * Nothing but guest_mem.c turns a gpa_t into a pointer.
 */
#ifndef TRVMM_VMM_GUEST_MEM_H
#define TRVMM_VMM_GUEST_MEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t gpa_t; /* a guest physical address in bytes */

/* One range of guest RAM, contiguous both in the guest and in this process. */
struct guest_region {
	gpa_t start;
	uint64_t size_bytes;
	uint8_t *host; /* owned by the guest_mem; borrowed when built by guest_mem_from_buffer */
};

#define GUEST_MEM_MAX_REGIONS 2 /* below and above the hole under 4 GiB */
#define GUEST_MEM_MAX_SHM 14

struct guest_mem {
	struct guest_region regions[GUEST_MEM_MAX_REGIONS];
	unsigned count;
	uint64_t size_bytes; /* all regions together */
	struct guest_region shm[GUEST_MEM_MAX_SHM]; /* shared memory regions of devices, whose `host` nobody reads or writes */
	unsigned shm_count;
};

/*
 * Maps `size_bytes` (a multiple of 4096) of zeroed memory: all of it at 0 when it ends below GUEST_MEM_HOLE_START, else the rest
 * from 4 GiB on. Lazily backed; transparent huge pages are asked for. Returns 0 or -errno (-ENOMEM: the host refuses).
 */
int guest_mem_create(struct guest_mem *mem, uint64_t size_bytes);
void guest_mem_destroy(struct guest_mem *mem);

/* RAM made of the caller's own buffer, at `start`: for unit tests and fuzz targets. guest_mem_destroy() must not be called. */
void guest_mem_from_buffer(struct guest_mem *mem, gpa_t start, void *buffer, uint64_t size_bytes);

/* The hole for MMIO under 4 GiB: [GUEST_MEM_HOLE_START, 4 GiB). */
#define GUEST_MEM_HOLE_START 0xc0000000ull
#define GUEST_MEM_HIGH_START 0x100000000ull

/*
 * The host address of guest range [gpa, gpa + length), or NULL unless all of it lies in one region. A length of 0 is valid at
 * any address inside a region.
 */
void *guest_ptr(const struct guest_mem *mem, gpa_t gpa, uint64_t length);

/* Makes known where a device's shared memory is, which is no RAM. There is room for GUEST_MEM_MAX_SHM. */
void guest_mem_add_shm(struct guest_mem *mem, gpa_t start, void *host, uint64_t size_bytes);

/*
 * The same as guest_ptr() for shared memory of devices. What is there may be a file of the host that has become shorter: only the host's
 * kernel may touch it for us (devices/virtio/shm_bounce.h).
 */
void *guest_shm_ptr(const struct guest_mem *mem, gpa_t gpa, uint64_t length);

/* Is this host address one of guest_shm_ptr()? */
bool guest_is_shm(const struct guest_mem *mem, const void *host);

/* Copies out of or into guest RAM. Return 0, or -EFAULT (nothing copied) when the range is not all RAM of one region. */
int guest_read(const struct guest_mem *mem, gpa_t gpa, void *to, uint64_t length);
int guest_write(const struct guest_mem *mem, gpa_t gpa, const void *from, uint64_t length);

#endif
