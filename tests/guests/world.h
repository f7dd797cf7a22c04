/*
 * What the runner and its guests agree on: the machine's size, the disks and what stands on them.
 *
 *   device 0  virtio-blk, WORLD_DISK_SECTORS, writable only where the guests promise to write
 *   device 1  virtio-blk, WORLD_RO_SECTORS, read-only
 *   device 2  virtio-vsock
 *   device 3  virtio-fs, where the runner was given --fs: a folder with the file WORLD_FS_FILE
 *
 * Each sector is filled with world_word(), so that a guest knows a sector by its content and the runner sees afterwards whether one
 * was changed that should not have been.
 */
#ifndef TRVMM_TESTS_GUESTS_WORLD_H
#define TRVMM_TESTS_GUESTS_WORLD_H

#include <stdint.h>

#define WORLD_MEMORY_BYTES (32u << 20)
#define WORLD_SECTOR_BYTES 512u
#define WORLD_SECTOR_WORDS (WORLD_SECTOR_BYTES / 8u)

#define WORLD_DISK_SECTORS 16384u
/* The runner complains of a write, discard or write-zeroes outside [first, end). */
#define WORLD_WRITABLE_FIRST 8192u
#define WORLD_WRITABLE_END 12288u
/* Any access to this sector fails on the host with EIO. */
#define WORLD_BAD_SECTOR 100u
/* Each access that begins in [first, end) takes WORLD_SLOW_US on the host. */
#define WORLD_SLOW_FIRST 200u
#define WORLD_SLOW_END 232u
#define WORLD_SLOW_US 2000u
#define WORLD_DISK_ID "guest-test-disk"

#define WORLD_RO_SECTORS 64u
#define WORLD_RO_SEED 0x5eedull /* added to the sector, so that the disks differ */
/* Full: 20 bytes without a terminator. */
#define WORLD_RO_ID "read-only-disk-20byt"

#define WORLD_CMDLINE "guest-test"

/* Host ports of the vsock device: the first sends everything back, nobody listens on the second, the third sends as much as is taken. */
#define WORLD_ECHO_PORT 7u
#define WORLD_CLOSED_PORT 8u
#define WORLD_SOURCE_PORT 9u
/* What the machine may open: fewer connections than the device would take. */
#define WORLD_DESCRIPTORS 400u
#define WORLD_GUEST_CID 3u

#define WORLD_FS_DEVICE 3u
#define WORLD_FS_TAG "the-share"
#define WORLD_FS_FILE "file"
#define WORLD_FS_TEXT "what is in the file\n"
/* A request with this unique number takes WORLD_FS_SLOW_US longer. */
#define WORLD_FS_SLOW 0x510051005100ull
#define WORLD_FS_SLOW_US 50000u

/* Word `index` of sector `sector`. The low half is never small, so a sector taken for a request's header has no known type. */
static inline uint64_t world_word(uint64_t sector, unsigned index)
{
	return ((sector + 1) * 0x9e3779b97f4a7c15ull + index) | 0x40000000ull;
}

#endif
