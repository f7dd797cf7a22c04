/*
 * The journal as it lies on disk. All integers are big-endian. Specification: the Linux kernel's documentation, filesystems/ext4,
 * "Journal (jbd2)".
 *
 *   | superblock | ... | descriptor | data | data | revoke | commit | descriptor | data | commit | (older or nothing) ...
 *   '- block 0         '- s_start: a ring from s_first to s_maxlen
 */
#ifndef TRVMM_EXT4READ_JBD2_DISK_H
#define TRVMM_EXT4READ_JBD2_DISK_H

#include <assert.h>
#include <endian.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/be.h"

typedef struct {
	uint8_t bytes[2];
} be16;

static inline uint16_t be16_get(be16 v)
{
	uint16_t raw;
	memcpy(&raw, v.bytes, sizeof(raw));
	return be16toh(raw);
}

#define JBD2_MAGIC 0xC03B3998u

enum {
	JBD2_TYPE_DESCRIPTOR = 1,
	JBD2_TYPE_COMMIT = 2,
	JBD2_TYPE_SUPERBLOCK_V1 = 3,
	JBD2_TYPE_SUPERBLOCK_V2 = 4,
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

struct jbd2_log_super {
	struct jbd2_header s_header;
	be32 s_blocksize;
	be32 s_maxlen;
	be32 s_first;
	be32 s_sequence;
	be32 s_start; /* 0: the journal is empty */
	be32 s_errno;
	be32 s_feature_compat; /* from here on version 2 only */
	be32 s_feature_incompat;
	be32 s_feature_ro_compat;
	uint8_t s_uuid[16];
};
static_assert(offsetof(struct jbd2_log_super, s_feature_compat) == 0x24, "s_feature_compat");
static_assert(offsetof(struct jbd2_log_super, s_uuid) == 0x30, "s_uuid");

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
