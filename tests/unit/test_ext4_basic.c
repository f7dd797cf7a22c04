/* Small file systems: every type of inode, the borders of sizes, e2fsck's verdict. */
#include "tests/unit/ext4_helper.h"

Test(ext4_basic, empty_tree)
{
	struct hand *h = hand_create();
	check_tree(&h->tree, 0);
	check_tree(&h->tree, 8 << 20);
	hand_destroy(h);
}

Test(ext4_basic, every_type)
{
	struct hand *h = hand_create();
	const uint32_t dir = hand_dir(h, 0, "dir");
	hand_dir(h, dir, "sub");
	hand_file(h, dir, "a", 1);
	const uint32_t b = hand_file(h, dir, "b", 5000);
	hand_link(h, 0, "b2", b);
	hand_symlink(h, 0, "s1", 1);
	hand_symlink(h, 0, "s59", 59);
	hand_symlink(h, 0, "s60", 60);
	hand_symlink(h, 0, "s61", 61);
	hand_symlink(h, 0, "s4095", 4095);
	hand_node(h, 0, "chr", S_IFCHR | 0600, 1 << 20 | 3);
	hand_node(h, 0, "blk", S_IFBLK | 0600, 259 << 20 | 70000);
	hand_node(h, 0, "fifo", S_IFIFO | 0600, 0);
	hand_node(h, 0, "sock", S_IFSOCK | 0600, 0);
	check_tree(&h->tree, 16 << 20);
	check_tree(&h->tree, 0);
	hand_destroy(h);
}

Test(ext4_basic, sizes)
{
	struct hand *h = hand_create();
	static const uint64_t sizes[] = { 0, 1, 511, 512, 513, 4095, 4096, 4097, 8192, 1 << 20, (1 << 20) + 1 };
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		char name[32];
		snprintf(name, sizeof(name), "f%zu", i);
		hand_file(h, 0, name, sizes[i]);
	}
	check_tree(&h->tree, 0);
	hand_destroy(h);
}

/* The lines of debugfs' `stat` that say the same as the tree. Returns false, with a word in *what, for one that does not. */
static bool debugfs_agrees(const char *out, const struct tree_inode *inode, const char **what)
{
	char want[200];
	*what = "mode";
	snprintf(want, sizeof(want), "Mode:  0%03o ", inode->mode & 07777);
	if (!strstr(out, want))
		return false;
	*what = "owner";
	snprintf(want, sizeof(want), "User: %5d   Group: %5d", (int)inode->uid, (int)inode->gid);
	if (!strstr(out, want))
		return false;
	*what = "links";
	snprintf(want, sizeof(want), "Links: %u ", inode->nlink);
	if (!strstr(out, want))
		return false;
	*what = "size";
	snprintf(want, sizeof(want), "Size: %llu\n", (unsigned long long)inode->size_bytes);
	if (S_ISREG(inode->mode) && !strstr(out, want))
		return false;
	*what = "time";
	snprintf(want, sizeof(want), " mtime: 0x%08x:", (unsigned)(uint64_t)inode->mtime_s);
	return strstr(out, want) != NULL;
}

/* A second opinion that needs no mount: debugfs on every inode, and the bytes of every file. */
Test(ext4_basic, debugfs_sees_the_tree)
{
	struct hand *h = hand_rich();
	struct ext4_plan *plan = plan_or_fail(&h->tree, NULL);
	char image[256];
	snprintf(image, sizeof(image), "%s", dump(plan));
	static char out[(1 << 20) + 4096];
	for (uint32_t i = 1; i < h->tree.inode_count; i++) {
		const struct tree_inode *inode = &h->tree.inodes[i];
		const uint32_t number = ext4_plan_inode_number(plan, i);
		const char *what;
		cr_assert(run(out, sizeof(out), "debugfs -R 'stat <%u>' %s 2>/dev/null", number, image) == 0);
		cr_assert(debugfs_agrees(out, inode, &what), "inode %u: %s:\n%s", number, what, out);
		if (!S_ISREG(inode->mode) || inode->extent_count != 1)
			continue;
		const struct tree_extent *extent = &h->tree.extents[inode->first_extent];
		cr_assert(run(out, sizeof(out), "debugfs -R 'cat <%u>' %s 2>/dev/null", number, image) == 0);
		cr_assert(memcmp(out, h->tree.sources[0].memory + extent->source_offset, inode->size_bytes) == 0, "inode %u", number);
	}
	unlink(image);
	ext4_plan_destroy(plan);
	hand_destroy(h);
}
