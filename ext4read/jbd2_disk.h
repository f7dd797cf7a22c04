/*
 * The journal as it lies on disk; its superblock is in ext4_disk.h. All integers are big-endian. Specification: the Linux kernel's
 * documentation, filesystems/ext4, "Journal (jbd2)".
 *
 *   | superblock | ... | descriptor | data | data | revoke | commit | descriptor | data | commit | (older or nothing) ...
 *   '- block 0         '- s_start: a ring from s_first to s_maxlen
 */
#ifndef TRVMM_EXT4READ_JBD2_DISK_H
#define TRVMM_EXT4READ_JBD2_DISK_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "base/be.h"
#include "ext4gen/ext4_disk.h"

enum {
	JBD2_TYPE_DESCRIPTOR = 1,
	JBD2_TYPE_COMMIT = 2,
	JBD2_TYPE_SUPERBLOCK_V1 = 3,
	JBD2_TYPE_SUPERBLOCK_V2 = JBD2_SUPERBLOCK_V2,
	JBD2_TYPE_REVOKE = 5,
};

enum {
	JBD2_COMPAT_CHECKSUM = 0x1, /* "v1": one checksum over a transaction's blocks, in its commit block */

	JBD2_INCOMPAT_REVOKE = 0x1,
	JBD2_INCOMPAT_64BIT = 0x2,
	JBD2_INCOMPAT_ASYNC_COMMIT = 0x4,
	JBD2_INCOMPAT_CSUM_V2 = 0x8, /* each block has its own; 16 bits of it in a tag */
	JBD2_INCOMPAT_CSUM_V3 = 0x10, /* the same with 32 bits */
	JBD2_INCOMPAT_FAST_COMMIT = 0x20,
};

struct jbd2_header {
	be32 h_magic;
	be32 h_blocktype;
	be32 h_sequence;
};

enum {
	JBD2_FLAG_ESCAPE = 1, /* the block began with the magic, which is 0 in the journal */
	JBD2_FLAG_SAME_UUID = 2, /* no UUID behind the tag */
	JBD2_FLAG_LAST_TAG = 8,
	JBD2_UUID_BYTES = 16,
};

/* A tag of a descriptor block; t_blocknr_high only with 64bit, and with CSUM_V2 two bytes of padding behind it. */
struct jbd2_tag {
	be32 t_blocknr;
	be16 t_checksum;
	be16 t_flags;
	be32 t_blocknr_high;
};
static_assert(sizeof(struct jbd2_tag) == 12, "tag size");

struct jbd2_tag3 {
	be32 t_blocknr;
	be32 t_flags;
	be32 t_blocknr_high;
	be32 t_checksum;
};
static_assert(sizeof(struct jbd2_tag3) == 16, "tag size");

struct jbd2_commit_block {
	struct jbd2_header h_header;
	uint8_t h_chksum_type;
	uint8_t h_chksum_size;
	uint8_t h_padding[2];
	be32 h_chksum[8];
};
static_assert(offsetof(struct jbd2_commit_block, h_chksum) == 16, "h_chksum");

enum { JBD2_CRC32_CHKSUM = 1, JBD2_CRC32_CHKSUM_SIZE = 4 };

struct jbd2_revoke_block {
	struct jbd2_header r_header;
	be32 r_count; /* bytes in use, these 16 included; block numbers of 4 or, with 64bit, 8 bytes follow */
};

#endif
