/*
 * ext4 as it lies on disk: every structure that the generator writes, declared once.
 *
 * All integers are little-endian and of the le types, so the structures have alignment 1 and are laid over a block buffer as
 * they are. Only what is written or tested is named; the rest is reserved space of the right size. Field names are the
 * specification's. Specification: the Linux kernel's documentation, filesystems/ext4.
 */
#ifndef TRVMM_EXT4GEN_EXT4_DISK_H
#define TRVMM_EXT4GEN_EXT4_DISK_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

#include "base/le.h"

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

	EXT4_FLAGS_UNSIGNED_HASH = 0x2,
	EXT4_DEFM_XATTR_USER = 0x4,
	EXT4_DEFM_ACL = 0x8,
	EXT4_STATE_CLEAN = 1,
	EXT4_ERRORS_CONTINUE = 1,
	EXT4_HASH_HALF_MD4 = 1,
};

struct ext4_super_block {
	le32 s_inodes_count;
	le32 s_blocks_count_lo;
	le32 s_r_blocks_count_lo;
	le32 s_free_blocks_count_lo;
	le32 s_free_inodes_count; /* 0x10 */
	le32 s_first_data_block;
	le32 s_log_block_size;
	le32 s_log_cluster_size;
	le32 s_blocks_per_group;  /* 0x20 */
	le32 s_clusters_per_group;
	le32 s_inodes_per_group;
	le32 s_mtime;
	le32 s_wtime;             /* 0x30 */
	le16 s_mnt_count;
	le16 s_max_mnt_count;
	le16 s_magic;
	le16 s_state;
	le16 s_errors;
	le16 s_minor_rev_level;
	le32 s_lastcheck;         /* 0x40 */
	le32 s_checkinterval;
	le32 s_creator_os;
	le32 s_rev_level;
	le16 s_def_resuid;        /* 0x50 */
	le16 s_def_resgid;
	le32 s_first_ino;
	le16 s_inode_size;
	le16 s_block_group_nr;
	le32 s_feature_compat;
	le32 s_feature_incompat;  /* 0x60 */
	le32 s_feature_ro_compat;
	uint8_t s_uuid[16];
	char s_volume_name[16];
	char s_last_mounted[64];
	le32 s_algorithm_usage_bitmap;
	uint8_t s_prealloc_blocks;
	uint8_t s_prealloc_dir_blocks;
	le16 s_reserved_gdt_blocks;
	uint8_t s_journal_uuid[16]; /* 0xD0 */
	le32 s_journal_inum;
	le32 s_journal_dev;
	le32 s_last_orphan;
	uint8_t s_hash_seed[16];
	uint8_t s_def_hash_version;
	uint8_t s_jnl_backup_type;
	le16 s_desc_size;
	le32 s_default_mount_opts;  /* 0x100 */
	le32 s_first_meta_bg;
	le32 s_mkfs_time;
	le32 s_jnl_blocks[17];
	le32 s_blocks_count_hi;     /* 0x150 */
	le32 s_r_blocks_count_hi;
	le32 s_free_blocks_count_hi;
	le16 s_min_extra_isize;
	le16 s_want_extra_isize;
	le32 s_flags;
	le16 s_raid_stride;
	le16 s_mmp_interval;
	le64 s_mmp_block;
	le32 s_raid_stripe_width;
	uint8_t s_log_groups_per_flex;
	uint8_t s_checksum_type;
	uint8_t s_reserved_pad[2];
	le64 s_kbytes_written;
	uint8_t s_snapshot_and_errors[0x248 - 0x180];
	le32 s_overhead_clusters;   /* 0x248 */
	le32 s_backup_bgs[2];
	uint8_t s_reserved[0x400 - 0x254];
};
static_assert(sizeof(struct ext4_super_block) == 1024, "superblock size");
static_assert(offsetof(struct ext4_super_block, s_magic) == 0x38, "s_magic");
static_assert(offsetof(struct ext4_super_block, s_feature_compat) == 0x5C, "s_feature_compat");
static_assert(offsetof(struct ext4_super_block, s_uuid) == 0x68, "s_uuid");
static_assert(offsetof(struct ext4_super_block, s_hash_seed) == 0xEC, "s_hash_seed");
static_assert(offsetof(struct ext4_super_block, s_default_mount_opts) == 0x100, "s_default_mount_opts");
static_assert(offsetof(struct ext4_super_block, s_blocks_count_hi) == 0x150, "s_blocks_count_hi");
static_assert(offsetof(struct ext4_super_block, s_log_groups_per_flex) == 0x174, "s_log_groups_per_flex");
static_assert(offsetof(struct ext4_super_block, s_overhead_clusters) == 0x248, "s_overhead_clusters");

/* ---- block group descriptor: 32 bytes without the 64bit feature -------------------------------------------------------------- */

enum {
	EXT4_BG_INODE_UNINIT = 0x1,
	EXT4_BG_BLOCK_UNINIT = 0x2,
	EXT4_BG_INODE_ZEROED = 0x4,
};

struct ext4_group_desc {
	le32 bg_block_bitmap;
	le32 bg_inode_bitmap;
	le32 bg_inode_table;
	le16 bg_free_blocks_count;
	le16 bg_free_inodes_count;
	le16 bg_used_dirs_count;
	le16 bg_flags;
	le32 bg_exclude_bitmap;
	le16 bg_block_bitmap_csum;
	le16 bg_inode_bitmap_csum;
	le16 bg_itable_unused;
	le16 bg_checksum; /* crc16(~0, s_uuid, group as le32, the 30 bytes before) */
};
static_assert(sizeof(struct ext4_group_desc) == 32, "group descriptor size");
static_assert(offsetof(struct ext4_group_desc, bg_checksum) == 0x1E, "bg_checksum");

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

struct ext4_extent_header {
	le16 eh_magic;
	le16 eh_entries;
	le16 eh_max;
	le16 eh_depth;
	le32 eh_generation;
};

struct ext4_extent {
	le32 ee_block; /* logical */
	le16 ee_len;
	le16 ee_start_hi;
	le32 ee_start_lo;
};

struct ext4_extent_idx {
	le32 ei_block;
	le32 ei_leaf_lo;
	le16 ei_leaf_hi;
	le16 ei_unused;
};
static_assert(sizeof(struct ext4_extent_header) == 12, "extent header size");
static_assert(sizeof(struct ext4_extent) == 12, "extent size");
static_assert(sizeof(struct ext4_extent_idx) == 12, "extent index size");
static_assert(EXT4_EXTENTS_PER_BLOCK == 340, "extents in a block");

/* ---- inode ------------------------------------------------------------------------------------------------------------------- */

enum {
	EXT4_INDEX_FL = 0x1000,
	EXT4_EXTENTS_FL = 0x80000,
	EXT4_EA_INODE_FL = 0x200000,
	EXT4_EXTRA_ISIZE = 32, /* up to and with i_projid: 160 bytes of the 256 are fields */
};

struct ext4_inode {
	le16 i_mode;
	le16 i_uid;
	le32 i_size_lo;
	le32 i_atime;
	le32 i_ctime;
	le32 i_mtime;
	le32 i_dtime;
	le16 i_gid;
	le16 i_links_count;
	le32 i_blocks_lo; /* in sectors of 512 bytes */
	le32 i_flags;
	le32 i_version;
	uint8_t i_block[60];
	le32 i_generation;
	le32 i_file_acl_lo;
	le32 i_size_high;
	le32 i_obso_faddr;
	le16 i_blocks_high;
	le16 i_file_acl_high;
	le16 i_uid_high;
	le16 i_gid_high;
	le16 i_checksum_lo;
	le16 i_reserved;
	le16 i_extra_isize; /* 0x80 */
	le16 i_checksum_hi;
	le32 i_ctime_extra; /* nanoseconds << 2 | bits 32 and 33 of the seconds */
	le32 i_mtime_extra;
	le32 i_atime_extra;
	le32 i_crtime;
	le32 i_crtime_extra;
	le32 i_version_hi;
	le32 i_projid;
	uint8_t i_xattr[EXT4_INODE_BYTES - 160];
};
static_assert(sizeof(struct ext4_inode) == EXT4_INODE_BYTES, "inode size");
static_assert(offsetof(struct ext4_inode, i_block) == 0x28, "i_block");
static_assert(offsetof(struct ext4_inode, i_file_acl_lo) == 0x68, "i_file_acl_lo");
static_assert(offsetof(struct ext4_inode, i_extra_isize) == 0x80, "i_extra_isize");
static_assert(offsetof(struct ext4_inode, i_xattr) == 0x80 + EXT4_EXTRA_ISIZE, "i_xattr");

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
};

struct ext4_dir_entry {
	le32 inode;   /* 0: not in use */
	le16 rec_len; /* to the next entry; the last one reaches to the block's end */
	uint8_t name_len;
	uint8_t file_type;
	char name[];
};
static_assert(sizeof(struct ext4_dir_entry) == 8, "directory entry size");

/* ---- hashed directory ("htree") ---------------------------------------------------------------------------------------------- */
/*
 * Block 0 looks like a linear block with "." and ".." (the latter's rec_len hides the index), further index blocks like one
 * unused entry. Both are followed by entries {hash, logical block}, ascending; in the first the hash, which is 0, gives place
 * to limit and count.
 *
 *   root: | . (12) | .. (4084) | info (8) | limit count, block | hash, block | ...
 *   node: | unused entry (8)              | limit count, block | hash, block | ...
 */
struct ext4_dx_root_info {
	le32 reserved_zero;
	uint8_t hash_version;
	uint8_t info_length;
	uint8_t indirect_levels;
	uint8_t unused_flags;
};

struct ext4_dx_entry {
	union {
		le32 hash;
		struct {
			le16 limit, count; /* of the first entry only */
		};
	};
	le32 block;
};
static_assert(sizeof(struct ext4_dx_root_info) == 8, "dx root info size");
static_assert(sizeof(struct ext4_dx_entry) == 8, "dx entry size");

enum {
	EXT4_DX_ROOT_ENTRIES_OFFSET = 32,
	EXT4_DX_NODE_ENTRIES_OFFSET = 8,
	EXT4_DX_ROOT_LIMIT = ((1 << EXT4_LOG_BLOCK_BYTES) - EXT4_DX_ROOT_ENTRIES_OFFSET) / 8,
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

struct ext4_xattr_header {
	le32 h_magic;
	le32 h_refcount;
	le32 h_blocks;
	le32 h_hash;
	le32 h_checksum;
	le32 h_reserved[3];
};

struct ext4_xattr_entry {
	uint8_t e_name_len;
	uint8_t e_name_index;
	le16 e_value_offs;
	le32 e_value_inum;
	le32 e_value_size;
	le32 e_hash;
	char e_name[];
};
static_assert(sizeof(struct ext4_xattr_header) == 32, "xattr header size");
static_assert(sizeof(struct ext4_xattr_entry) == 16, "xattr entry size");

#endif
