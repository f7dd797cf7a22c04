/*
 * Copy-on-write over something that can only be read.
 *
 * Writes go to a sparse memory file at the same offset; each 4 KiB block has a state:
 *
 *   BASE  reads come from below           CLEAN start of every block
 *   COW   reads come from the memory file written by the guest (a partial write first copies the block up)
 *   ZERO  reads are zeroes                discarded or zeroed: what lies below is never seen again
 *
 * Discarding punches a hole, so memory is given back. The states are two bits a block, allocated for ranges of 256 MiB as they
 * are touched, so the size of the disk costs nothing; a range that is discarded as a whole needs no states either. The memory
 * file is made at the first write.
 *
 * Not thread-safe: one thread at a time.
 */
#ifndef TRVMM_EXT4GEN_COW_H
#define TRVMM_EXT4GEN_COW_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

struct cow;

/* Reads the base; same contract as ext4_plan_readv(). */
typedef int (*cow_base_readv)(const void *base, uint64_t offset, const struct iovec *iov, unsigned count);

/*
 * Creates an untouched disk of `size_bytes`, a multiple of 4096, over `base`, which is borrowed. Returns 0, -EINVAL for such a
 * size, or -ENOMEM.
 */
int cow_create(uint64_t size_bytes, cow_base_readv readv, const void *base, struct cow **cow);

/* Forgets everything that was written. NULL is allowed. */
void cow_destroy(struct cow *cow);

/* Any byte ranges inside the disk; the caller has checked them. Return 0 or -errno (-ENOSPC, -ENOMEM: the host has no room). */
int cow_readv(struct cow *cow, uint64_t offset, const struct iovec *iov, unsigned count);
int cow_writev(struct cow *cow, uint64_t offset, const struct iovec *iov, unsigned count);

/* The range reads as zeroes afterwards, partial blocks at its ends included; whole blocks give their memory back. */
int cow_zero(struct cow *cow, uint64_t offset, uint64_t length);

/* Bytes of memory that the written blocks take. */
uint64_t cow_used_bytes(const struct cow *cow);

#endif
