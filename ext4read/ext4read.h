/*
 * Reads ext4 file systems that somebody else has written to: a Linux guest, mke2fs, an attacker who owns every byte of the disk.
 *
 * A folder of its own and not a part of ext4gen/, because the two share the structures on disk (ext4gen/ext4_disk.h) and nothing
 * else: the generator computes and may trust its plan, the reader is told and trusts nothing; and a run of trvmm links the one
 * without the other.
 *
 *   disk --read()--> blocks --journal replay--> superblock, group descriptors, inodes, extents, directories --> struct tree
 *
 * The result is a struct tree as the layers' merge makes it, so whatever compares, lists or writes trees works on a disk as well.
 * Its regular files' extents have source 0, and their source_offset counts bytes of the disk: contents are read by
 * ext4_reader_read(). Times, owners, device numbers, extended attributes (in the inode, in a block, in inodes of their own; ACLs in
 * the form that programs see) are complete; holes and unwritten extents have no extent in the tree.
 *
 * The disk is never written to. A journal that needs recovery is replayed in memory: blocks that it holds are read from it instead
 * of from their place. Orphans have no name and therefore no part in the tree.
 *
 * Understood: block sizes from 1 to 64 KiB, filetype, extents and the block maps of ext2 and ext3, 64bit, flex_bg, ea_inode, csum_seed,
 * large_dir, mmp, and all features that concern writing only (checksums, bigalloc, quota, ...). Checksums of metadata are not verified:
 * what is read is checked for sense, and a hostile guest computes right checksums. Other incompatible features, such as inline data,
 * are refused by name.
 *
 * Bounded whatever the disk says: no block is believed to belong to more than one file's worth (all files' blocks together are at
 * most those of the disk), a directory has one parent, an extent tree has 5 levels with ascending keys, and a tree has at most
 * EXT4_READER_ITEMS_MAX names, inodes, extents and attributes. Specification: the Linux kernel's documentation, filesystems/ext4,
 * and fs/jbd2/recovery.c for the order in which a journal is replayed.
 */
#ifndef TRVMM_EXT4READ_EXT4READ_H
#define TRVMM_EXT4READ_EXT4READ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "layers/tree.h"

/* Of each kind in one tree; some 4 GiB of memory when all are there. */
#define EXT4_READER_ITEMS_MAX ((size_t)1 << 25)

struct ext4_reader;

/* Reads bytes of the disk, a range inside it. Returns 0 or -errno. */
typedef int ext4_disk_read(void *data, uint64_t offset, void *buffer, size_t length);

/*
 * Opens the file system on a disk of `size_bytes`; `data` is borrowed until the reader is closed. Checks the superblock and replays
 * the journal when it has to. Returns 0, or -errno with one line in `err`:
 *
 *   -EINVAL   no ext4 file system, or one that cannot be, or that is larger than the disk
 *   -ENOTSUP  a feature that is not understood, with its name
 *   -EUCLEAN  damaged (the journal); e2fsck mends it
 *   -ENOMEM, or what read() returned
 */
int ext4_reader_open(ext4_disk_read *read, void *data, uint64_t size_bytes, struct ext4_reader **reader, struct error *err);

/* NULL is allowed. */
void ext4_reader_close(struct ext4_reader *reader);

/*
 * Reads everything but the contents of files. Takes time and memory in proportion to what is there. Names that lead nowhere (to a
 * free inode, a second time to one directory) and attributes that Linux does not show either are left out with a complaint; other
 * damage is an error (-EUCLEAN) that names the path or the inode. Errors as above, and -EFBIG for more than is allowed.
 */
int ext4_reader_tree(struct ext4_reader *reader, struct tree **tree, struct complaints *complaints, struct error *err);

/* Frees a tree of ext4_reader_tree(). NULL is allowed. */
void ext4_reader_tree_destroy(struct tree *tree);

/* Reads bytes of the disk as they are with the journal replayed. Returns 0, -EIO outside of the file system, or what read() returned. */
int ext4_reader_read(struct ext4_reader *reader, uint64_t offset, void *buffer, size_t length);

/* Whether the journal has a newer version of any byte in the range than the disk. */
bool ext4_reader_is_replayed(const struct ext4_reader *reader, uint64_t offset, uint64_t length);

#endif
