/* What a block is said to be is what lies in it. */
#include "tests/unit/ext4_helper.h"

#include "ext4gen/ext4_disk.h"
#include "ext4gen/ext4_dump.h"
#include "ext4gen/inspect.h"

static int show_block(FILE *out, struct ext4_block_place place, bool indexed, const uint8_t *block)
{
	switch (place.kind) {
	case EXT4_BLOCK_SUPER:
		return ext4_dump_super_block(out, EXT4_DUMP_JSON, block + EXT4_SUPER_OFFSET, sizeof(struct ext4_super_block));
	case EXT4_BLOCK_DESCRIPTORS:
		return ext4_dump_group_desc(out, EXT4_DUMP_JSON, block, sizeof(struct ext4_group_desc));
	case EXT4_BLOCK_DIRECTORY:
		if (indexed && place.index == 0)
			return ext4_dump_dx_root(out, EXT4_DUMP_JSON, block, EXT4_BLOCK_BYTES);
		return ext4_dump_dir_block(out, EXT4_DUMP_JSON, block, EXT4_BLOCK_BYTES);
	case EXT4_BLOCK_EXTENTS:
	case EXT4_BLOCK_JOURNAL_EXTENTS:
		return ext4_dump_extent_node(out, EXT4_DUMP_JSON, block, EXT4_BLOCK_BYTES);
	case EXT4_BLOCK_XATTRS:
		return ext4_dump_xattr_block(out, EXT4_DUMP_JSON, block, EXT4_BLOCK_BYTES);
	case EXT4_BLOCK_JOURNAL:
		return place.index ? 0 : ext4_dump_jbd2_superblock(out, EXT4_DUMP_JSON, block, EXT4_BLOCK_BYTES);
	default:
		return 0;
	}
}

/* One of everything, a directory with an index, a file with an extent tree, values in blocks and in inodes of their own. */
static struct hand *tree_of_all(void)
{
	static char value[6000];
	struct hand *h = hand_rich();
	hand_many_names(h, "z", 3000, 3);
	hand_symlink(h, 0, "zlink", 200);
	const uint32_t f = hand_empty_file(h, 0, "zz", 1 << 20);
	for (uint32_t i = 0; i < 20; i++)
		hand_extent(h, f, i * 40960ull, SOURCE_PATTERN, 0, 8192);
	hand_xattr(h, f, "user.block", value, 1000);
	hand_xattr(h, f, "user.inode", value, sizeof(value));
	hand_trim(h);
	return h;
}

Test(ext4_inspect, every_block_is_what_it_is_said_to_be)
{
	struct hand *h = tree_of_all();
	const struct ext4_options options = { .size_bytes = 1ull << 30, .journal = true };
	struct ext4_plan *plan = plan_or_fail(&h->tree, &options);
	unsigned seen[EXT4_BLOCK_FREE + 1] = { 0 };
	FILE *out = fopen("/dev/null", "w");
	uint8_t block[EXT4_BLOCK_BYTES];
	for (uint64_t n = 0; n < options.size_bytes / EXT4_BLOCK_BYTES; n++) {
		const struct ext4_block_place place = ext4_plan_block(plan, n);
		const bool indexed = place.tree_inode != TREE_NONE && ext4_plan_is_indexed(plan, place.tree_inode);
		seen[place.kind]++;
		if (place.kind > EXT4_BLOCK_JOURNAL)
			continue;
		read_or_fail(plan, n * EXT4_BLOCK_BYTES, block, sizeof(block));
		cr_assert_eq(show_block(out, place, indexed, block), 0, "block %llu, kind %d", (unsigned long long)n, place.kind);
	}
	fclose(out);
	for (unsigned kind = 0; kind <= EXT4_BLOCK_FREE; kind++)
		cr_assert(seen[kind] || kind == EXT4_BLOCK_JOURNAL_EXTENTS, "no block of kind %u", kind);
	ext4_plan_destroy(plan);
	hand_destroy(h);
}

/* Found from the inode or from the block: the same. */
Test(ext4_inspect, contents_are_found_both_ways)
{
	struct hand *h = tree_of_all();
	struct ext4_plan *plan = plan_or_fail(&h->tree, NULL);
	struct ext4_run run;
	for (uint32_t i = 0; ext4_plan_run(plan, i, &run); i++) {
		for (uint64_t at = 0; at < run.count; at++) {
			const struct ext4_block_place place = ext4_plan_block(plan, run.first + at);
			cr_assert(place.kind == EXT4_BLOCK_CONTENTS && place.tree_inode == run.tree_inode &&
				  place.index == run.logical + at);
		}
	}
	ext4_plan_destroy(plan);
	hand_destroy(h);
}
