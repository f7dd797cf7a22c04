/*
 * ext4 as it lies on disk: every structure that the generator writes or the dumper shows, declared once.
 *
 * A structure is a table in the form of the kernel's documentation: offset, type, name, and how a value is shown. From it come the
 * struct, the static asserts of its size and of every offset, and the field list of the dumper (ext4_dump.h). All integers are
 * little-endian and of the le types, so the structures have alignment 1 and are laid over a block buffer as they are. Field names are
 * the specification's. Specification: the Linux kernel's documentation, filesystems/ext4.
 */
#ifndef TRVMM_EXT4GEN_EXT4_DISK_H
#define TRVMM_EXT4GEN_EXT4_DISK_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "base/be.h"
#include "base/le.h"

/* clang-format off */ /* the tables of the whole file */

/*
 * A table is a macro that calls F(offset, type, name, form) for a field and A(offset, type, name, count, form) for an array. The form
 * is one of enum ext4_form in ext4_dump.c: how the dumper prints it.
 */
#define EXT4_FIELD_MEMBER(offset, type, name, form) type name;
#define EXT4_ARRAY_MEMBER(offset, type, name, count, form) type name[count];
#define EXT4_FIELD_CHECK(offset, type, name, form) static_assert(offsetof(this_struct, name) == (offset), #name);
#define EXT4_ARRAY_CHECK(offset, type, name, count, form) EXT4_FIELD_CHECK(offset, type, name, form)

/* Declares struct `tag` of `size` bytes from the table FIELDS; `...`: a last member of flexible length. */
#define EXT4_STRUCT(tag, size, FIELDS, ...) \
	struct tag { FIELDS(EXT4_FIELD_MEMBER, EXT4_ARRAY_MEMBER) __VA_ARGS__ }; \
	static_assert(sizeof(struct tag) == (size), #tag); \
	static inline void tag##_check(void) \
	{ \
		typedef struct tag this_struct; \
		FIELDS(EXT4_FIELD_CHECK, EXT4_ARRAY_CHECK) \
	}

enum {
	EXT4_LOG_BLOCK_BYTES = 12,
	EXT4_BLOCKS_PER_GROUP = 8 << EXT4_LOG_BLOCK_BYTES, /* one bitmap block has a bit for each */
	EXT4_MAX_INODES_PER_GROUP = 8 << EXT4_LOG_BLOCK_BYTES,
	EXT4_INODE_BYTES = 256,
	EXT4_INODES_PER_BLOCK = (1 << EXT4_LOG_BLOCK_BYTES) / EXT4_INODE_BYTES,
	EXT4_ROOT_INO = 2,
	EXT4_FIRST_INO = 11,      /* the first that is not reserved; by custom lost+found */
	EXT4_LINK_MAX = 65000,
	EXT4_NAME_MAX = 255,
	EXT4_FAST_SYMLINK_MAX = 59, /* longer targets do not fit in i_block */
};

/* ---- superblock: 1024 bytes at byte 1024 of the disk ------------------------------------------------------------------------- */

#define EXT4_SUPER_OFFSET 1024u
#define EXT4_SUPER_MAGIC 0xEF53u

enum {
	EXT4_COMPAT_HAS_JOURNAL = 0x4,
	EXT4_COMPAT_EXT_ATTR = 0x8,
	EXT4_COMPAT_DIR_INDEX = 0x20,
	EXT4_COMPAT_SPARSE_SUPER2 = 0x200,

	EXT4_INCOMPAT_FILETYPE = 0x2,
	EXT4_INCOMPAT_EXTENTS = 0x40,
	EXT4_INCOMPAT_FLEX_BG = 0x200,
	EXT4_INCOMPAT_EA_INODE = 0x400,

	EXT4_RO_COMPAT_SPARSE_SUPER = 0x1,
	EXT4_RO_COMPAT_LARGE_FILE = 0x2,
	EXT4_RO_COMPAT_HUGE_FILE = 0x8,
	EXT4_RO_COMPAT_GDT_CSUM = 0x10,
	EXT4_RO_COMPAT_DIR_NLINK = 0x20,
	EXT4_RO_COMPAT_EXTRA_ISIZE = 0x40,
	EXT4_RO_COMPAT_METADATA_CSUM = 0x400,

	EXT4_FLAGS_UNSIGNED_HASH = 0x2,
	EXT4_DEFM_XATTR_USER = 0x4,
	EXT4_DEFM_ACL = 0x8,
	EXT4_STATE_CLEAN = 1,
	EXT4_ERRORS_CONTINUE = 1,
	EXT4_HASH_HALF_MD4 = 1,
	EXT4_CHECKSUM_CRC32C = 1,
};

#define EXT4_SUPER_BLOCK_FIELDS(F, A) \
	F(0x000, le32, s_inodes_count, DEC) \
	F(0x004, le32, s_blocks_count_lo, DEC) \
	F(0x008, le32, s_r_blocks_count_lo, DEC) \
	F(0x00C, le32, s_free_blocks_count_lo, DEC) \
	F(0x010, le32, s_free_inodes_count, DEC) \
	F(0x014, le32, s_first_data_block, DEC) \
	F(0x018, le32, s_log_block_size, DEC) \
	F(0x01C, le32, s_log_cluster_size, DEC) \
	F(0x020, le32, s_blocks_per_group, DEC) \
	F(0x024, le32, s_clusters_per_group, DEC) \
	F(0x028, le32, s_inodes_per_group, DEC) \
	F(0x02C, le32, s_mtime, TIME) \
	F(0x030, le32, s_wtime, TIME) \
	F(0x034, le16, s_mnt_count, DEC) \
	F(0x036, le16, s_max_mnt_count, DEC) \
	F(0x038, le16, s_magic, HEX) \
	F(0x03A, le16, s_state, STATE) \
	F(0x03C, le16, s_errors, DEC) \
	F(0x03E, le16, s_minor_rev_level, DEC) \
	F(0x040, le32, s_lastcheck, TIME) \
	F(0x044, le32, s_checkinterval, DEC) \
	F(0x048, le32, s_creator_os, DEC) \
	F(0x04C, le32, s_rev_level, DEC) \
	F(0x050, le16, s_def_resuid, DEC) \
	F(0x052, le16, s_def_resgid, DEC) \
	F(0x054, le32, s_first_ino, DEC) \
	F(0x058, le16, s_inode_size, DEC) \
	F(0x05A, le16, s_block_group_nr, DEC) \
	F(0x05C, le32, s_feature_compat, COMPAT) \
	F(0x060, le32, s_feature_incompat, INCOMPAT) \
	F(0x064, le32, s_feature_ro_compat, RO_COMPAT) \
	A(0x068, uint8_t, s_uuid, 16, UUID) \
	A(0x078, char, s_volume_name, 16, TEXT) \
	A(0x088, char, s_last_mounted, 64, TEXT) \
	F(0x0C8, le32, s_algorithm_usage_bitmap, HEX) \
	F(0x0CC, uint8_t, s_prealloc_blocks, DEC) \
	F(0x0CD, uint8_t, s_prealloc_dir_blocks, DEC) \
	F(0x0CE, le16, s_reserved_gdt_blocks, DEC) \
	A(0x0D0, uint8_t, s_journal_uuid, 16, UUID) \
	F(0x0E0, le32, s_journal_inum, DEC) \
	F(0x0E4, le32, s_journal_dev, DEC) \
	F(0x0E8, le32, s_last_orphan, DEC) \
	A(0x0EC, uint8_t, s_hash_seed, 16, UUID) \
	F(0x0FC, uint8_t, s_def_hash_version, DEC) \
	F(0x0FD, uint8_t, s_jnl_backup_type, DEC) \
	F(0x0FE, le16, s_desc_size, DEC) \
	F(0x100, le32, s_default_mount_opts, HEX) \
	F(0x104, le32, s_first_meta_bg, DEC) \
	F(0x108, le32, s_mkfs_time, TIME) \
	A(0x10C, le32, s_jnl_blocks, 17, DEC) \
	F(0x150, le32, s_blocks_count_hi, DEC) \
	F(0x154, le32, s_r_blocks_count_hi, DEC) \
	F(0x158, le32, s_free_blocks_count_hi, DEC) \
	F(0x15C, le16, s_min_extra_isize, DEC) \
	F(0x15E, le16, s_want_extra_isize, DEC) \
	F(0x160, le32, s_flags, HEX) \
	F(0x164, le16, s_raid_stride, DEC) \
	F(0x166, le16, s_mmp_interval, DEC) \
	F(0x168, le64, s_mmp_block, DEC) \
	F(0x170, le32, s_raid_stripe_width, DEC) \
	F(0x174, uint8_t, s_log_groups_per_flex, DEC) \
	F(0x175, uint8_t, s_checksum_type, DEC) \
	F(0x176, le16, s_reserved_pad, HIDE) \
	F(0x178, le64, s_kbytes_written, DEC) \
	F(0x180, le32, s_snapshot_inum, DEC) \
	F(0x184, le32, s_snapshot_id, DEC) \
	F(0x188, le64, s_snapshot_r_blocks_count, DEC) \
	F(0x190, le32, s_snapshot_list, DEC) \
	F(0x194, le32, s_error_count, DEC) \
	F(0x198, le32, s_first_error_time, TIME) \
	F(0x19C, le32, s_first_error_ino, DEC) \
	F(0x1A0, le64, s_first_error_block, DEC) \
	A(0x1A8, char, s_first_error_func, 32, TEXT) \
	F(0x1C8, le32, s_first_error_line, DEC) \
	F(0x1CC, le32, s_last_error_time, TIME) \
	F(0x1D0, le32, s_last_error_ino, DEC) \
	F(0x1D4, le32, s_last_error_line, DEC) \
	F(0x1D8, le64, s_last_error_block, DEC) \
	A(0x1E0, char, s_last_error_func, 32, TEXT) \
	A(0x200, char, s_mount_opts, 64, TEXT) \
	F(0x240, le32, s_usr_quota_inum, DEC) \
	F(0x244, le32, s_grp_quota_inum, DEC) \
	F(0x248, le32, s_overhead_clusters, DEC) \
	A(0x24C, le32, s_backup_bgs, 2, DEC) \
	A(0x254, uint8_t, s_encrypt_algos, 4, DEC) \
	A(0x258, uint8_t, s_encrypt_pw_salt, 16, BYTES) \
	F(0x268, le32, s_lpf_ino, DEC) \
	F(0x26C, le32, s_prj_quota_inum, DEC) \
	F(0x270, le32, s_checksum_seed, HEX) \
	F(0x274, uint8_t, s_wtime_hi, DEC) \
	F(0x275, uint8_t, s_mtime_hi, DEC) \
	F(0x276, uint8_t, s_mkfs_time_hi, DEC) \
	F(0x277, uint8_t, s_lastcheck_hi, DEC) \
	F(0x278, uint8_t, s_first_error_time_hi, DEC) \
	F(0x279, uint8_t, s_last_error_time_hi, DEC) \
	F(0x27A, uint8_t, s_first_error_errcode, DEC) \
	F(0x27B, uint8_t, s_last_error_errcode, DEC) \
	F(0x27C, le16, s_encoding, DEC) \
	F(0x27E, le16, s_encoding_flags, DEC) \
	F(0x280, le32, s_orphan_file_inum, DEC) \
	A(0x284, le32, s_reserved, 94, HIDE) \
	F(0x3FC, le32, s_checksum, HEX) /* with metadata_csum: crc32c of all before */
EXT4_STRUCT(ext4_super_block, 1024, EXT4_SUPER_BLOCK_FIELDS)

/* ---- block group descriptor: 32 bytes without the 64bit feature -------------------------------------------------------------- */

enum {
	EXT4_BG_INODE_UNINIT = 0x1,
	EXT4_BG_BLOCK_UNINIT = 0x2,
	EXT4_BG_INODE_ZEROED = 0x4,
};

#define EXT4_GROUP_DESC_FIELDS(F, A) \
	F(0x00, le32, bg_block_bitmap, DEC) \
	F(0x04, le32, bg_inode_bitmap, DEC) \
	F(0x08, le32, bg_inode_table, DEC) \
	F(0x0C, le16, bg_free_blocks_count, DEC) \
	F(0x0E, le16, bg_free_inodes_count, DEC) \
	F(0x10, le16, bg_used_dirs_count, DEC) \
	F(0x12, le16, bg_flags, BG_FLAGS) \
	F(0x14, le32, bg_exclude_bitmap, DEC) \
	F(0x18, le16, bg_block_bitmap_csum, HEX) \
	F(0x1A, le16, bg_inode_bitmap_csum, HEX) \
	F(0x1C, le16, bg_itable_unused, DEC) \
	F(0x1E, le16, bg_checksum, HEX) /* of s_uuid, group as le32, and this with 0 here: crc16, or half a crc32c */
EXT4_STRUCT(ext4_group_desc, 32, EXT4_GROUP_DESC_FIELDS)

#define EXT4_DESCS_PER_BLOCK ((1u << EXT4_LOG_BLOCK_BYTES) / sizeof(struct ext4_group_desc))

/* ---- extents ----------------------------------------------------------------------------------------------------------------- */
/*
 *   | header | entry 0 | entry 1 | ...      depth 0: entries are extents; depth > 0: entries point to blocks of depth - 1
 */
#define EXT4_EXTENT_MAGIC 0xF30Au

enum {
	EXT4_EXTENT_MAX_BLOCKS = 32768, /* of one initialised extent */
	EXT4_EXTENTS_IN_INODE = 4,
	EXT4_EXTENTS_PER_BLOCK = ((1 << EXT4_LOG_BLOCK_BYTES) - 12) / 12,
};

#define EXT4_EXTENT_HEADER_FIELDS(F, A) \
	F(0x00, le16, eh_magic, HEX) \
	F(0x02, le16, eh_entries, DEC) \
	F(0x04, le16, eh_max, DEC) \
	F(0x06, le16, eh_depth, DEC) \
	F(0x08, le32, eh_generation, DEC)
EXT4_STRUCT(ext4_extent_header, 12, EXT4_EXTENT_HEADER_FIELDS)

#define EXT4_EXTENT_FIELDS(F, A) \
	F(0x00, le32, ee_block, DEC) /* logical */ \
	F(0x04, le16, ee_len, DEC) \
	F(0x06, le16, ee_start_hi, DEC) \
	F(0x08, le32, ee_start_lo, DEC)
EXT4_STRUCT(ext4_extent, 12, EXT4_EXTENT_FIELDS)

#define EXT4_EXTENT_IDX_FIELDS(F, A) \
	F(0x00, le32, ei_block, DEC) \
	F(0x04, le32, ei_leaf_lo, DEC) \
	F(0x08, le16, ei_leaf_hi, DEC) \
	F(0x0A, le16, ei_unused, DEC)
EXT4_STRUCT(ext4_extent_idx, 12, EXT4_EXTENT_IDX_FIELDS)

/* Behind the last entry that an extent block has room for; with metadata_csum only. */
#define EXT4_EXTENT_TAIL_FIELDS(F, A) \
	F(0x00, le32, et_checksum, HEX)
EXT4_STRUCT(ext4_extent_tail, 4, EXT4_EXTENT_TAIL_FIELDS)

static_assert(EXT4_EXTENTS_PER_BLOCK == 340, "extents in a block");

/* ---- inode ------------------------------------------------------------------------------------------------------------------- */

enum {
	EXT4_INDEX_FL = 0x1000,
	EXT4_EXTENTS_FL = 0x80000,
	EXT4_EA_INODE_FL = 0x200000,
	EXT4_EXTRA_ISIZE = 32, /* up to and with i_projid: 160 bytes of the 256 are fields */
};

#define EXT4_INODE_FIELDS(F, A) \
	F(0x000, le16, i_mode, OCTAL) \
	F(0x002, le16, i_uid, DEC) \
	F(0x004, le32, i_size_lo, DEC) \
	F(0x008, le32, i_atime, TIME) \
	F(0x00C, le32, i_ctime, TIME) \
	F(0x010, le32, i_mtime, TIME) \
	F(0x014, le32, i_dtime, TIME) \
	F(0x018, le16, i_gid, DEC) \
	F(0x01A, le16, i_links_count, DEC) \
	F(0x01C, le32, i_blocks_lo, DEC) /* in sectors of 512 bytes */ \
	F(0x020, le32, i_flags, INODE_FLAGS) \
	F(0x024, le32, i_version, DEC) \
	A(0x028, uint8_t, i_block, 60, BYTES) \
	F(0x064, le32, i_generation, HEX) \
	F(0x068, le32, i_file_acl_lo, DEC) \
	F(0x06C, le32, i_size_high, DEC) \
	F(0x070, le32, i_obso_faddr, HIDE) \
	F(0x074, le16, i_blocks_high, DEC) \
	F(0x076, le16, i_file_acl_high, DEC) \
	F(0x078, le16, i_uid_high, DEC) \
	F(0x07A, le16, i_gid_high, DEC) \
	F(0x07C, le16, i_checksum_lo, HEX) \
	F(0x07E, le16, i_reserved, HIDE) \
	F(0x080, le16, i_extra_isize, DEC) \
	F(0x082, le16, i_checksum_hi, HEX) \
	F(0x084, le32, i_ctime_extra, DEC) /* nanoseconds << 2 | bits 32 and 33 of the seconds */ \
	F(0x088, le32, i_mtime_extra, DEC) \
	F(0x08C, le32, i_atime_extra, DEC) \
	F(0x090, le32, i_crtime, TIME) \
	F(0x094, le32, i_crtime_extra, DEC) \
	F(0x098, le32, i_version_hi, DEC) \
	F(0x09C, le32, i_projid, DEC) \
	A(0x0A0, uint8_t, i_xattr, 96, BYTES)
EXT4_STRUCT(ext4_inode, EXT4_INODE_BYTES, EXT4_INODE_FIELDS)

/* ---- directory entry --------------------------------------------------------------------------------------------------------- */

enum {
	EXT4_FT_UNKNOWN = 0,
	EXT4_FT_REG_FILE = 1,
	EXT4_FT_DIR = 2,
	EXT4_FT_CHRDEV = 3,
	EXT4_FT_BLKDEV = 4,
	EXT4_FT_FIFO = 5,
	EXT4_FT_SOCK = 6,
	EXT4_FT_SYMLINK = 7,
	EXT4_FT_DIR_CSUM = 0xDE, /* of the entry that is a checksum tail */
};

#define EXT4_DIR_ENTRY_FIELDS(F, A) \
	F(0x00, le32, inode, DEC) /* 0: not in use */ \
	F(0x04, le16, rec_len, DEC) /* to the next entry; the last one reaches to the block's end */ \
	F(0x06, uint8_t, name_len, DEC) \
	F(0x07, uint8_t, file_type, FILE_TYPE)
EXT4_STRUCT(ext4_dir_entry, 8, EXT4_DIR_ENTRY_FIELDS, char name[];)

/* With metadata_csum the last 12 bytes of a block of names: an entry that is not in use. */
#define EXT4_DIR_ENTRY_TAIL_FIELDS(F, A) \
	F(0x00, le32, det_reserved_zero1, DEC) \
	F(0x04, le16, det_rec_len, DEC) \
	F(0x06, uint8_t, det_reserved_zero2, DEC) \
	F(0x07, uint8_t, det_reserved_ft, DEC) \
	F(0x08, le32, det_checksum, HEX)
EXT4_STRUCT(ext4_dir_entry_tail, 12, EXT4_DIR_ENTRY_TAIL_FIELDS)

/* ---- hashed directory ("htree") ---------------------------------------------------------------------------------------------- */
/*
 * Block 0 looks like a linear block with "." and ".." (the latter's rec_len hides the index), further index blocks like one
 * unused entry. Both are followed by entries {hash, logical block}, ascending; in the first the hash, which is 0, gives place
 * to limit and count.
 *
 *   root: | . (12) | .. (4084) | info (8) | limit count, block | hash, block | ...
 *   node: | unused entry (8)              | limit count, block | hash, block | ...
 */
#define EXT4_DX_ROOT_INFO_FIELDS(F, A) \
	F(0x00, le32, reserved_zero, DEC) \
	F(0x04, uint8_t, hash_version, DEC) \
	F(0x05, uint8_t, info_length, DEC) \
	F(0x06, uint8_t, indirect_levels, DEC) \
	F(0x07, uint8_t, unused_flags, DEC)
EXT4_STRUCT(ext4_dx_root_info, 8, EXT4_DX_ROOT_INFO_FIELDS)

#define EXT4_DX_ENTRY_FIELDS(F, A) \
	F(0x00, le32, hash, HEX) \
	F(0x04, le32, block, DEC)
EXT4_STRUCT(ext4_dx_entry, 8, EXT4_DX_ENTRY_FIELDS)

/* In place of the first entry's hash. */
#define EXT4_DX_COUNTLIMIT_FIELDS(F, A) \
	F(0x00, le16, limit, DEC) \
	F(0x02, le16, count, DEC)
EXT4_STRUCT(ext4_dx_countlimit, 4, EXT4_DX_COUNTLIMIT_FIELDS)

/* With metadata_csum the last 8 bytes of an index block. */
#define EXT4_DX_TAIL_FIELDS(F, A) \
	F(0x00, le32, dt_reserved, DEC) \
	F(0x04, le32, dt_checksum, HEX)
EXT4_STRUCT(ext4_dx_tail, 8, EXT4_DX_TAIL_FIELDS)

enum {
	EXT4_DX_ROOT_ENTRIES_OFFSET = 32,
	EXT4_DX_NODE_ENTRIES_OFFSET = 8,
	EXT4_DX_ROOT_LIMIT = ((1 << EXT4_LOG_BLOCK_BYTES) - EXT4_DX_ROOT_ENTRIES_OFFSET) / 8, /* one less with a tail */
	EXT4_DX_NODE_LIMIT = ((1 << EXT4_LOG_BLOCK_BYTES) - EXT4_DX_NODE_ENTRIES_OFFSET) / 8,
};

/* ---- extended attributes ----------------------------------------------------------------------------------------------------- */
/*
 *   | header | entry | entry | ... | 4 zero bytes |   ->  free  <-   | value | value |
 *
 * In an inode the header is the magic alone, and e_value_offs counts from the first entry; in a block it counts from the
 * block's start.
 */
#define EXT4_XATTR_MAGIC 0xEA020000u

enum {
	EXT4_XATTR_INDEX_USER = 1,
	EXT4_XATTR_INDEX_POSIX_ACL_ACCESS = 2,
	EXT4_XATTR_INDEX_POSIX_ACL_DEFAULT = 3,
	EXT4_XATTR_INDEX_TRUSTED = 4,
	EXT4_XATTR_INDEX_SECURITY = 6,
};

#define EXT4_XATTR_HEADER_FIELDS(F, A) \
	F(0x00, le32, h_magic, HEX) \
	F(0x04, le32, h_refcount, DEC) \
	F(0x08, le32, h_blocks, DEC) \
	F(0x0C, le32, h_hash, HEX) \
	F(0x10, le32, h_checksum, HEX) \
	A(0x14, le32, h_reserved, 3, HIDE)
EXT4_STRUCT(ext4_xattr_header, 32, EXT4_XATTR_HEADER_FIELDS)

#define EXT4_XATTR_ENTRY_FIELDS(F, A) \
	F(0x00, uint8_t, e_name_len, DEC) \
	F(0x01, uint8_t, e_name_index, DEC) \
	F(0x02, le16, e_value_offs, DEC) \
	F(0x04, le32, e_value_inum, DEC) \
	F(0x08, le32, e_value_size, DEC) \
	F(0x0C, le32, e_hash, HEX)
EXT4_STRUCT(ext4_xattr_entry, 16, EXT4_XATTR_ENTRY_FIELDS, char e_name[];)

/* ---- journal (jbd2): the first block of inode 8; all integers are big-endian ---------------------------------------------------- */

#define JBD2_MAGIC 0xC03B3998u

enum {
	EXT4_JOURNAL_INO = 8,
	EXT4_JNL_BACKUP_BLOCKS = 1, /* s_jnl_backup_type: s_jnl_blocks has i_block and the size of the journal's inode */
	JBD2_SUPERBLOCK_V2 = 4, /* h_blocktype */
	JBD2_MIN_JOURNAL_BLOCKS = 1024,
};

#define JBD2_SUPERBLOCK_FIELDS(F, A) \
	F(0x000, be32, h_magic, HEX) \
	F(0x004, be32, h_blocktype, DEC) \
	F(0x008, be32, h_sequence, DEC) \
	F(0x00C, be32, s_blocksize, DEC) \
	F(0x010, be32, s_maxlen, DEC) \
	F(0x014, be32, s_first, DEC) \
	F(0x018, be32, s_sequence, DEC) \
	F(0x01C, be32, s_start, DEC) \
	F(0x020, be32, s_errno, DEC) \
	F(0x024, be32, s_feature_compat, HEX) \
	F(0x028, be32, s_feature_incompat, HEX) \
	F(0x02C, be32, s_feature_ro_compat, HEX) \
	A(0x030, uint8_t, s_uuid, 16, UUID) \
	F(0x040, be32, s_nr_users, DEC) \
	F(0x044, be32, s_dynsuper, DEC) \
	F(0x048, be32, s_max_transaction, DEC) \
	F(0x04C, be32, s_max_trans_data, DEC) \
	F(0x050, uint8_t, s_checksum_type, DEC) \
	A(0x051, uint8_t, s_padding2, 3, HIDE) \
	F(0x054, be32, s_num_fc_blks, DEC) \
	F(0x058, be32, s_head, DEC) \
	A(0x05C, be32, s_padding, 40, HIDE) \
	F(0x0FC, be32, s_checksum, HEX) \
	A(0x100, uint8_t, s_users, 768, HIDE)
EXT4_STRUCT(jbd2_superblock, 1024, JBD2_SUPERBLOCK_FIELDS)

#endif
