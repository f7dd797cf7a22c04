/*
 * An ext4 file system computed on the fly from a tree.
 *
 * ext4_plan_build() decides where everything lies; nothing is written anywhere. ext4_plan_readv() answers any range of the disk:
 * metadata is computed from the plan, file contents are read from the tree's sources straight into the caller's buffers, free space
 * and holes are zeroes. The same tree and options give the same bytes, on every machine.
 *
 * Layout (blocks of 4 KiB, groups of 128 MiB):
 *
 *   | superblock | descriptors | block bitmaps | inode bitmaps | inode tables | directory, extent, xattr blocks | journal |
 *   '------------------------- metadata first: lookup is arithmetic ------------------------------------------------------'
 *   | contents | free |
 *
 * Features: filetype, extents, flex_bg, sparse_super2 without backups, uninit_bg (gdt_csum) with BLOCK_UNINIT and INODE_ZEROED
 * so that a mount reads few bitmaps and lazy initialisation never writes, extra_isize, dir_nlink, large_file, huge_file,
 * dir_index. On demand: has_journal, which a disk that dies with the VM does not need, and metadata_csum in place of uninit_bg. When
 * the value of an extended attribute needs it: ea_inode. Specification: the Linux kernel's documentation, filesystems/ext4.
 *
 * Any number of threads may read from one plan at once. The only thing that changes after it was built is the order of names in
 * large directories, which are sorted when they are first read, under a lock of the plan's own.
 */
#ifndef TRVMM_EXT4GEN_EXT4GEN_H
#define TRVMM_EXT4GEN_EXT4GEN_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/error.h"
#include "layers/tree.h"

#define EXT4_BLOCK_BYTES 4096u

struct ext4_options {
	uint64_t size_bytes;   /* of the disk; 0: contents and as much again free, at least 8 GiB. Rounded down to whole blocks, and
				  less a last group that would be too small for its own tables when every block counts; up to 16 TiB,
				  of which a disk of exactly that size has a group less */
	uint64_t inode_count;  /* at least so many, and those of the tree; 0: one for each 16 KiB of 9 GiB of free space, and for each
				  64 KiB of what is beyond, within reason */
	uint8_t uuid[16];      /* all zero: derived from the tree */
	uint8_t hash_seed[16]; /* of directory hashes; all zero: derived from the tree */
	char label[16];        /* volume name, zero-padded */
	bool metadata_csum;    /* crc32c over all metadata in place of crc16 over the group descriptors */
	bool journal;          /* with a journal: for disks that are kept */
	uint64_t journal_bytes; /* its size, 4 MiB to 39 GiB, rounded down to whole blocks; 0: what mke2fs gives a disk of the size */
};

struct ext4_plan;

/*
 * Plans the file system of `tree`, which is borrowed until the plan is destroyed. Takes time in proportion to the tree, and
 * about 20 bytes for each of its entries; the size of the disk costs nothing. Returns 0, or -errno with one line in `err`:
 *
 *   -ENOSPC        options->size_bytes cannot hold it; the line tells the least that can
 *   -EFBIG         a file, a directory (512 MiB of names) or the whole is too large for ext4
 *   -EMLINK        more than 65000 hard links to one file
 *   -ENAMETOOLONG  a symbolic link with a target of more than 4095 bytes
 *   -E2BIG         extended attributes of one inode whose names do not fit in 4 KiB, or a value of more than 64 KiB;
 *                  all attributes of a symbolic link of less than 60 bytes have to fit in 4 KiB
 *   -EINVAL        an invalid POSIX ACL; a damaged tree; options that no ext4 can have (a journal that is too small)
 *   -ENOMEM
 *
 * Extended attributes in namespaces that Linux does not let anybody set on ext4 are left out. Times are cut to 1901..2310. When
 * the tree has no /lost+found, an empty one is added.
 */
int ext4_plan_build(const struct tree *tree, const struct ext4_options *options, struct ext4_plan **plan, struct error *err);

/* Frees the plan; the tree stays. NULL is allowed. */
void ext4_plan_destroy(struct ext4_plan *plan);

/* The size of the disk, a multiple of EXT4_BLOCK_BYTES. */
uint64_t ext4_plan_size_bytes(const struct ext4_plan *plan);

/*
 * Reads the disk's bytes [offset, offset + total of the vector) into the vector. Any offset and length inside the disk; -EINVAL
 * outside. Returns 0 or -errno of a source (the vector is then undefined).
 */
int ext4_plan_readv(const struct ext4_plan *plan, uint64_t offset, const struct iovec *iov, unsigned count);

/*
 * Finds what is not free space: the first range at or behind byte `offset` that may hold anything but zeroes, as bytes [*begin,
 * *end), whole blocks but for a start inside one. Returns false when there is none. For exports: sparse images of disks of any
 * size. The last range is the contents of files.
 */
bool ext4_plan_next_data(const struct ext4_plan *plan, uint64_t offset, uint64_t *begin, uint64_t *end);

/*
 * A SHA-256 of all that is not free space, with its place: what a kept disk belongs to. Contents that are this program's own count as
 * zeroes: they may be other ones in its next version, of the same length. Reads all contents. Returns 0 or -errno of a source.
 */
#define EXT4_DIGEST_BYTES 32
int ext4_plan_digest(const struct ext4_plan *plan, uint8_t digest[EXT4_DIGEST_BYTES]);

/*
 * The same at a glance: from the tree, the layer files' identities and times, and this program's own. Equal stamps mean equal bytes,
 * different ones say nothing. Returns false when there is none: a file was changed just now, or its identity is not known.
 */
bool ext4_plan_stamp(const struct ext4_plan *plan, uint8_t stamp[EXT4_DIGEST_BYTES]);

/* The inode number that inode `tree_inode` of the tree got (for tests and for inspection). */
uint32_t ext4_plan_inode_number(const struct ext4_plan *plan, uint32_t tree_inode);

#endif
