/*
 * A kept disk's file: what a guest changed on a disk that is computed, and what that disk was.
 *
 *   0          4096                       data_offset                                      data_offset + size
 *   | header   | map: sectors of 512      | data: byte n of the disk at data_offset + n    |
 *   '----------'--------------------------'------------------------------------------------'
 *
 *   header (the first 512 bytes; zeroes up to the map)
 *   0         16        20           24           32           40            48       80       112        508
 *   | magic   | version | block size | disk size  | map offset | data offset | digest | stamp  | zeroes   | CRC-32 of 0..508 |
 *
 *   map sector n: the states of blocks [1024 n, 1024 n + 1024)
 *   0         4         8          16                                    272        512
 *   | CRC-32  | zero    | n, le64  | states: 2 bits a block, lowest first | zeroes   |
 *   of 4..512
 *
 * Integers are little-endian. A map sector of zeroes is one that was never written: all its blocks are BASE. Holes are sectors and blocks
 * of zeroes, so the file takes the room of what was written; the data of blocks that are not WRITTEN means nothing.
 *
 * Crashes. A flush syncs the data, then writes the map sectors that changed, then syncs these. At any moment between, each sector on disk
 * is as the last flush left it or new (a sector is written whole or not at all: that is asked of the host's disk, as its file systems
 * do), and data that new states tell of was synced before. What a flush does not cover may be lost or torn, a block at a time; it was
 * never promised.
 *
 * The file is hostile input: it may come from anywhere. All that is in it is checked before it is used, but for the data, which is the
 * guest's own business.
 */
#ifndef TRVMM_EXT4GEN_KEPT_INTERNAL_H
#define TRVMM_EXT4GEN_KEPT_INTERNAL_H

#include "base/error.h"
#include "ext4gen/block_states_internal.h"
#include "ext4gen/cow.h"

struct kept;

/* Opens or makes the file for cow_open_kept(), which see; `states` get what its map says. */
int kept_open(const char *path, enum cow_access access, uint64_t size_bytes, const struct cow_binding *binding, const void *base,
	      struct block_states *states, struct kept **kept, struct error *err);

void kept_close(struct kept *kept);

int kept_fd(const struct kept *kept);
uint64_t kept_data_offset(const struct kept *kept);

/* Makes what was written durable. A failure is for good: what did not reach the disk then is not known. Returns 0 or -errno. */
int kept_sync(struct kept *kept);

/* Writes the sectors that changed and makes them durable; forgets that they changed. */
int kept_write_map(struct kept *kept, struct block_states *states);

#endif
