/*
 * Shows ext4 structures as names and values: for people and as JSON.
 *
 * The fields come from the tables in ext4_disk.h, so names are the specification's. Everything that is shown may be damaged or hostile:
 * nothing outside of [bytes, bytes + length) is read, counts and offsets are believed as far as that goes, and what is printed is
 * printable ASCII. In strings any other byte, and \ and ', is \xNN.
 *
 * Text: a line "name value" for each field, and a line "name=value name=value ..." for each element of a list (extents, names,
 * attributes). JSON: one object without a newline behind it. Numbers are numbers (up to 64 bits, no sign), flags lists of names
 * (unknown bits as "0x..."), UUIDs, names and bytes strings. A list is an array "entries". Damage is a line or a member "damaged"
 * that says what.
 */
#ifndef TRVMM_EXT4GEN_EXT4_DUMP_H
#define TRVMM_EXT4GEN_EXT4_DUMP_H

#include <stddef.h>
#include <stdio.h>

enum ext4_dump_format { EXT4_DUMP_TEXT, EXT4_DUMP_JSON };

/*
 * Each shows what lies in `length` bytes. Returns 0, or -EINVAL when that is damaged: too short, a wrong magic number, counts or offsets
 * that lead outside; what could be read has been shown. Errors of `out` are left to the caller (ferror).
 */
int ext4_dump_super_block(FILE *out, enum ext4_dump_format format, const void *bytes, size_t length);
int ext4_dump_group_desc(FILE *out, enum ext4_dump_format format, const void *bytes, size_t length);
int ext4_dump_jbd2_superblock(FILE *out, enum ext4_dump_format format, const void *bytes, size_t length);

/* The fields of an inode; what i_block and i_xattr hold is shown as bytes. */
int ext4_dump_inode(FILE *out, enum ext4_dump_format format, const void *bytes, size_t length);

/* A node of an extent tree: i_block of an inode (60 bytes) or a block. Header, then extents or index entries. */
int ext4_dump_extent_node(FILE *out, enum ext4_dump_format format, const void *bytes, size_t length);

/* A block of directory entries. Unused ones are shown as well, with inode 0; a checksum tail is one of those. */
int ext4_dump_dir_block(FILE *out, enum ext4_dump_format format, const void *bytes, size_t length);

/* An index block of a hashed directory: its root (block 0) or a node. */
int ext4_dump_dx_root(FILE *out, enum ext4_dump_format format, const void *bytes, size_t length);
int ext4_dump_dx_node(FILE *out, enum ext4_dump_format format, const void *bytes, size_t length);

/* Attributes: a block of them, or what lies in an inode behind its fields (i_xattr). Values are shown as strings, cut to 4 KiB. */
int ext4_dump_xattr_block(FILE *out, enum ext4_dump_format format, const void *bytes, size_t length);
int ext4_dump_xattr_inode(FILE *out, enum ext4_dump_format format, const void *bytes, size_t length);

#endif
