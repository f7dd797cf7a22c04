/* What the files of the guest runner share; see runner.c. */
#ifndef TRVMM_TESTS_GUESTS_RUNNER_H
#define TRVMM_TESTS_GUESTS_RUNNER_H

#include <pthread.h>

#include "devices/virtio-blk/disk.h"
#include "devices/virtio-fs/virtio_fs.h"
#include "devices/virtio-vsock/virtio_vsock.h"
#include "vmm/guest_mem.h"

/*
 * runner_disk.c: a disk in memory that holds its caller to the contract of disk.h: ranges inside the disk, multiples of 512, no
 * write to a read-only disk, vectors inside guest RAM, one thread at a time.
 */
struct test_disk {
	struct disk disk; /* first */
	const struct guest_mem *mem; /* borrowed: where vectors have to lie; NULL until the machine is there */
	uint8_t *bytes; /* owned */
	uint64_t seed; /* added to the sector for its content */
	uint64_t writable_first, writable_end; /* sectors that the guests may change */
	pthread_mutex_t busy;
	char complaint[160]; /* the first breach; empty: none */
};

/* Fills the disk with its pattern. Returns 0 or -ENOMEM. */
int test_disk_create(uint64_t sectors, uint64_t seed, bool read_only, const char *id, struct test_disk **disk);

/* The first sector outside the writable ones that is not what it was; UINT64_MAX when all are. */
uint64_t test_disk_changed_sector(const struct test_disk *disk);

/* runner_echo.c: serves WORLD_ECHO_PORT, where what the guest sends comes back, and WORLD_SOURCE_PORT. Returns 0 or -errno. */
int echo_serve(struct virtio_vsock *vsock);

/* Connections that are still open. */
unsigned echo_open_count(void);

/* runner_fs.c: the share of the guests that have one. */
struct test_share {
	char folder[64]; /* that holds the share and its neighbour; empty: none */
};
int test_share_make(struct test_share *share);
/* Makes server and device. Returns 0, or -errno with one line. */
int test_share_create(const struct test_share *share, const struct guest_mem *mem, struct fs_server **server, struct virtio_fs **fs,
		      struct error *err);
bool test_share_neighbours_are_unchanged(const struct test_share *share);
void test_share_remove(const struct test_share *share);

#endif
