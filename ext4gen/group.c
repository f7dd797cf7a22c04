/* What describes the disk as a whole and its block groups: superblock, group descriptors, bitmaps. All of it is arithmetic. */
#include "ext4gen/plan_internal.h"

#include <string.h>

/* 16 groups: larger values gain nothing here, and 31 overflows in Linux' ext4_flex_bg_size(). */
#define LOG_GROUPS_PER_FLEX 4

void fill_super_block(const struct ext4_plan *plan, uint8_t *block)
{
	const struct plan_layout *l = &plan->layout;
	struct ext4_super_block sb = {
		.s_inodes_count = le32_make(l->inode_count),
		.s_blocks_count_lo = le32_make(l->block_count),
		.s_free_blocks_count_lo = le32_make(l->block_count - l->free),
		.s_free_inodes_count = le32_make(l->inode_count - plan->used_inodes),
		.s_log_block_size = le32_make(EXT4_LOG_BLOCK_BYTES - 10),
		.s_log_cluster_size = le32_make(EXT4_LOG_BLOCK_BYTES - 10),
		.s_blocks_per_group = le32_make(EXT4_BLOCKS_PER_GROUP),
		.s_clusters_per_group = le32_make(EXT4_BLOCKS_PER_GROUP),
		.s_inodes_per_group = le32_make(l->inodes_per_group),
		.s_max_mnt_count = le16_make(0xFFFF), /* no check for its age */
		.s_magic = le16_make(EXT4_SUPER_MAGIC),
		.s_state = le16_make(EXT4_STATE_CLEAN),
		.s_errors = le16_make(EXT4_ERRORS_CONTINUE),
		.s_rev_level = le32_make(1),
		.s_first_ino = le32_make(EXT4_FIRST_INO),
		.s_inode_size = le16_make(EXT4_INODE_BYTES),
		.s_feature_compat = le32_make(EXT4_COMPAT_EXT_ATTR | EXT4_COMPAT_DIR_INDEX | EXT4_COMPAT_SPARSE_SUPER2),
		.s_feature_incompat = le32_make(EXT4_INCOMPAT_FILETYPE | EXT4_INCOMPAT_EXTENTS | EXT4_INCOMPAT_FLEX_BG |
						(plan->value_count ? EXT4_INCOMPAT_EA_INODE : 0)),
		.s_feature_ro_compat =
		    le32_make(EXT4_RO_COMPAT_SPARSE_SUPER | EXT4_RO_COMPAT_LARGE_FILE | EXT4_RO_COMPAT_HUGE_FILE |
			      EXT4_RO_COMPAT_DIR_NLINK | EXT4_RO_COMPAT_EXTRA_ISIZE |
			      (plan->metadata_csum ? EXT4_RO_COMPAT_METADATA_CSUM : EXT4_RO_COMPAT_GDT_CSUM)),
		.s_checksum_type = plan->metadata_csum ? EXT4_CHECKSUM_CRC32C : 0,
		.s_def_hash_version = EXT4_HASH_HALF_MD4,
		.s_default_mount_opts = le32_make(EXT4_DEFM_XATTR_USER | EXT4_DEFM_ACL),
		.s_min_extra_isize = le16_make(EXT4_EXTRA_ISIZE),
		.s_want_extra_isize = le16_make(EXT4_EXTRA_ISIZE),
		.s_flags = le32_make(EXT4_FLAGS_UNSIGNED_HASH),
		.s_log_groups_per_flex = LOG_GROUPS_PER_FLEX,
		/* What Linux computes as well; when they differ it writes the superblock at the first mount. */
		.s_overhead_clusters = le32_make(l->objects + plan->journal_blocks),
	};
	memcpy(sb.s_uuid, plan->uuid, sizeof(sb.s_uuid));
	memcpy(sb.s_hash_seed, plan->hash_seed, sizeof(sb.s_hash_seed));
	memcpy(sb.s_volume_name, plan->label, sizeof(sb.s_volume_name));
	put_journal_fields(plan, &sb);
	if (plan->metadata_csum)
		sb.s_checksum = le32_make(crc32c(UINT32_MAX, &sb, offsetof(struct ext4_super_block, s_checksum)));
	memset(block, 0, EXT4_BLOCK_BYTES);
	memcpy(block + EXT4_SUPER_OFFSET, &sb, sizeof(sb));
}

/*
 * Directories among the inodes of a group. Every directory has an object, so only those are looked at. Our own lost+found is
 * behind the tree's objects, but its number is one of the first.
 */
static uint32_t count_directories(const struct ext4_plan *plan, uint32_t group, uint32_t used_inodes)
{
	if (used_inodes == 0)
		return 0;
	/* The group's range of numbers as indices of the tree. The root is the only one that does not lie this far from its number. */
	const uint32_t distance = plan_inode_number(plan, 1) - 1;
	const uint32_t first = group == 0 ? 0 : group * plan->layout.inodes_per_group + 1 - distance;
	const uint32_t behind = group * plan->layout.inodes_per_group + 1 + used_inodes - distance;
	const uint32_t tree_objects = plan->object_count - plan->add_lost_found - plan->value_count;
	uint32_t begin = 0, end = tree_objects, count = group == 0 && plan->add_lost_found;
	while (begin < end) {
		const uint32_t middle = begin + (end - begin) / 2;
		if (plan->objects[middle].inode < first)
			begin = middle + 1;
		else
			end = middle;
	}
	for (; begin < tree_objects && plan->objects[begin].inode < behind; begin++)
		count += S_ISDIR(plan->tree->inodes[plan->objects[begin].inode].mode);
	return count;
}

/*
 * Whether a group's block bitmap is left to the reader to make up. Linux reads the others at mount. e2fsck wants the last
 * group's to be there, used or not.
 */
static bool block_bitmap_is_uninit(const struct ext4_plan *plan, uint32_t group, const struct group_usage *usage)
{
	return usage->used_blocks == 0 && group + 1 < plan->layout.group_count;
}

/* Sets bits [begin, end) of a bitmap block, lowest bit of a byte first. */
static void set_bits(uint8_t *block, uint32_t begin, uint32_t end)
{
	while (begin < end && begin % 8) {
		block[begin / 8] = (uint8_t)(block[begin / 8] | 1u << begin % 8);
		begin++;
	}
	memset(block + begin / 8, 0xFF, (end - begin) / 8);
	for (begin = end - (end - begin) % 8; begin < end; begin++)
		block[begin / 8] = (uint8_t)(block[begin / 8] | 1u << begin % 8);
}

/* The bitmap of a group that is marked UNINIT is never read, and kept zero so that it takes no room in an exported image. */
void fill_block_bitmap(const struct ext4_plan *plan, uint32_t group, uint8_t *block)
{
	const struct group_usage usage = plan_group_usage(plan, group);
	memset(block, 0, EXT4_BLOCK_BYTES);
	if (block_bitmap_is_uninit(plan, group, &usage))
		return;
	set_bits(block, 0, usage.used_blocks);
	set_bits(block, usage.blocks, EXT4_BLOCKS_PER_GROUP);
}

void fill_inode_bitmap(const struct ext4_plan *plan, uint32_t group, uint8_t *block)
{
	const struct group_usage usage = plan_group_usage(plan, group);
	memset(block, 0, EXT4_BLOCK_BYTES);
	if (usage.used_inodes == 0)
		return;
	set_bits(block, 0, usage.used_inodes);
	set_bits(block, plan->layout.inodes_per_group, EXT4_MAX_INODES_PER_GROUP);
}

/* Of the bitmaps that are there; 4 KiB take half a microsecond. A descriptor of 32 bytes has room for the low halves. */
static void put_bitmap_checksums(const struct ext4_plan *plan, uint32_t group, unsigned flags, struct ext4_group_desc *desc)
{
	uint8_t bitmap[EXT4_BLOCK_BYTES];
	if (!(flags & EXT4_BG_BLOCK_UNINIT)) {
		fill_block_bitmap(plan, group, bitmap);
		desc->bg_block_bitmap_csum = le16_make((uint16_t)crc32c(plan->csum_seed, bitmap, EXT4_BLOCKS_PER_GROUP / 8));
	}
	if (!(flags & EXT4_BG_INODE_UNINIT)) {
		fill_inode_bitmap(plan, group, bitmap);
		desc->bg_inode_bitmap_csum = le16_make((uint16_t)crc32c(plan->csum_seed, bitmap, plan->layout.inodes_per_group / 8));
	}
}

static void put_desc_checksum(const struct ext4_plan *plan, uint32_t group, struct ext4_group_desc *desc)
{
	const le32 number = le32_make(group);
	if (plan->metadata_csum) {
		const uint32_t crc = crc32c(crc32c(plan->csum_seed, &number, sizeof(number)), desc, sizeof(*desc));
		desc->bg_checksum = le16_make((uint16_t)crc);
	} else {
		const uint16_t crc = crc16((uint16_t)plan->csum_seed, &number, sizeof(number));
		desc->bg_checksum = le16_make(crc16(crc, desc, offsetof(struct ext4_group_desc, bg_checksum)));
	}
}

void fill_descriptors(const struct ext4_plan *plan, uint32_t index, uint8_t *block)
{
	const struct plan_layout *l = &plan->layout;
	const uint32_t first = index * (uint32_t)EXT4_DESCS_PER_BLOCK;
	memset(block, 0, EXT4_BLOCK_BYTES);
	for (uint32_t group = first; group < l->group_count && group < first + EXT4_DESCS_PER_BLOCK; group++) {
		const struct group_usage usage = plan_group_usage(plan, group);
		/* Without INODE_ZEROED Linux writes all inode tables in the background. */
		const unsigned flags = EXT4_BG_INODE_ZEROED | (usage.used_inodes ? 0 : EXT4_BG_INODE_UNINIT) |
				       (block_bitmap_is_uninit(plan, group, &usage) ? EXT4_BG_BLOCK_UNINIT : 0);
		struct ext4_group_desc desc = {
			.bg_block_bitmap = le32_make(l->block_bitmaps + group),
			.bg_inode_bitmap = le32_make(l->inode_bitmaps + group),
			.bg_inode_table = le32_make(l->inode_tables + group * (l->inodes_per_group / EXT4_INODES_PER_BLOCK)),
			.bg_free_blocks_count = le16_make((uint16_t)(usage.blocks - usage.used_blocks)),
			.bg_free_inodes_count = le16_make((uint16_t)(l->inodes_per_group - usage.used_inodes)),
			.bg_used_dirs_count = le16_make((uint16_t)count_directories(plan, group, usage.used_inodes)),
			.bg_flags = le16_make((uint16_t)flags),
			.bg_itable_unused = le16_make((uint16_t)(l->inodes_per_group - usage.used_inodes)),
		};
		if (plan->metadata_csum)
			put_bitmap_checksums(plan, group, flags, &desc);
		put_desc_checksum(plan, group, &desc);
		memcpy(block + (group - first) * sizeof(desc), &desc, sizeof(desc));
	}
}
