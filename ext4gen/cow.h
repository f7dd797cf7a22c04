/*
 * Copy-on-write over something that can only be read.
 *
 * Writes go to a store at the same offset; each 4 KiB block has a state:
 *
 *   BASE     reads come from below       every block at the start
 *   WRITTEN  reads come from the store   written by the guest (a partial write first copies the block up)
 *   ZERO     reads are zeroes            discarded or zeroed: what lies below is never seen again
 *
 * The store is a sparse memory file, made at the first write, and ends with the disk; or a file that keeps the changes (kept_internal.h
 * draws its format). Discarding punches a hole, so the store's room is given back. The size of the disk costs nothing.
 *
 * Not thread-safe: one thread at a time.
 */
#ifndef TRVMM_EXT4GEN_COW_H
#define TRVMM_EXT4GEN_COW_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"

struct cow;

enum cow_state { COW_BASE = 0, COW_WRITTEN = 1, COW_ZERO = 2 };

/* Reads the base; same contract as ext4_plan_readv(). */
typedef int (*cow_base_readv)(const void *base, uint64_t offset, const struct iovec *iov, unsigned count);

/*
 * Creates an untouched disk of `size_bytes`, a multiple of 4096, over `base`, which is borrowed. Returns 0, -EINVAL for such a
 * size, or -ENOMEM.
 */
int cow_create(uint64_t size_bytes, cow_base_readv readv, const void *base, struct cow **cow);

/*
 * What a kept disk's changes belong to. The digest is of all bytes below, and slow; the stamp is quick to make, and the same stamp
 * means the same bytes, while another one means nothing.
 */
#define COW_DIGEST_BYTES 32
struct cow_binding {
	int (*digest)(const void *base, uint8_t digest[COW_DIGEST_BYTES]); /* 0 or -errno */
	uint8_t stamp[COW_DIGEST_BYTES]; /* all zero: there is none */
};

enum cow_access {
	COW_CHANGE, /* the file is made when it is missing; nobody else has it open */
	COW_LOOK,   /* nothing is changed; others may look as well */
};

/*
 * The same with the changes in the file `path`. Returns 0, or -errno with one line: -ENOENT (to look), -EBUSY when another process has it
 * open, -ESTALE when it belongs to other bytes or another size, -EBADMSG when it is damaged, -EINVAL when it is something else, or what
 * the system says. Reads all of the base when the file is made, and when the stamp is not as it was.
 */
int cow_open_kept(const char *path, enum cow_access access, uint64_t size_bytes, cow_base_readv readv, const struct cow_binding *binding,
		  const void *base, struct cow **cow, struct error *err);

/* Says that the base reads as zeroes from byte `offset` on, a multiple of 4096: zeroing there needs no state. Before any other use. */
void cow_set_zero_from(struct cow *cow, uint64_t offset);

/*
 * At most so many bytes of the disk may be changed at a time, what a kept disk has already included: a write beyond that is -ENOSPC and
 * changes nothing. Discarding gives back. Before other threads use it.
 */
void cow_set_quota(struct cow *cow, uint64_t bytes);

/* Forgets what was written to memory; closes the file of a kept disk, which has what was flushed. NULL is allowed. */
void cow_destroy(struct cow *cow);

/* Any byte ranges inside the disk; the caller has checked them. Return 0 or -errno (-ENOSPC, -ENOMEM: the host has no room). */
int cow_readv(struct cow *cow, uint64_t offset, const struct iovec *iov, unsigned count);
int cow_writev(struct cow *cow, uint64_t offset, const struct iovec *iov, unsigned count);

/* The range reads as zeroes afterwards, partial blocks at its ends included; whole blocks give their memory back. */
int cow_zero(struct cow *cow, uint64_t offset, uint64_t length);

/*
 * What was done before is durable in a kept disk: after a crash of this process or the machine, each block has the contents of the last
 * flush or of a later write. Returns 0 or -errno; once the system has failed to write something back, every flush fails.
 */
int cow_flush(struct cow *cow);

/* The state of the block at byte `offset` of the disk, and the end of the run of blocks that have it. */
enum cow_state cow_run(const struct cow *cow, uint64_t offset, uint64_t *end);

/* Bytes of memory or of the kept disk's file that are taken. */
uint64_t cow_used_bytes(const struct cow *cow);

#endif
