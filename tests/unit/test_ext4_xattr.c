/* Extended attributes: in the inode, in a block, both; ACLs; what does not fit and what is left out. */
#include "tests/unit/ext4_helper.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/xattr.h>

static char value_bytes[70000 + 64];

static const char *some_value(void)
{
	uint64_t state = 3;
	for (size_t i = 0; i < sizeof(value_bytes); i++)
		value_bytes[i] = (char)hand_random(&state);
	return value_bytes;
}

/* version 2; owner rwx, user 1000 r, group r-x, group 70000 w, mask rwx, others none */
static const uint8_t acl[] = {
	2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 2, 0, 4, 0, 0xE8, 3, 0, 0, 4, 0, 5, 0, 255, 255, 255, 255,
	8, 0, 2, 0, 0x70, 0x11, 1, 0, 16, 0, 7, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
};

/* Asks debugfs for every attribute of /NAME that the tree has, but for ACLs, which it translates. */
static void ask_debugfs(const char *image, const struct tree *tree, uint32_t entry)
{
	const struct tree_inode *inode = &tree->inodes[tree->entries[entry].inode];
	for (uint32_t i = 0; i < inode->xattr_count; i++) {
		const struct tree_xattr *x = &tree->xattrs[inode->first_xattr + i];
		static char out[80000];
		if (x->value_bytes == 0)
			continue;
		memset(out, 0, x->value_bytes);
		const int status = run(out, sizeof(out), "debugfs -R 'ea_get -f /dev/stdout /%.*s %.*s' %s 2>/dev/null",
				       (int)tree->entries[entry].name_bytes, tree->strings + tree->entries[entry].name,
				       (int)x->name_bytes, tree->strings + x->name, image);
		cr_assert(status == 0 && memcmp(out, tree->strings + x->value, x->value_bytes) == 0, "%.*s of entry %u",
			  (int)x->name_bytes, tree->strings + x->name, entry);
	}
}

static void check_attributes(const struct hand *h)
{
	for (int metadata_csum = 0; metadata_csum < 2; metadata_csum++) {
		const struct ext4_options options = { .metadata_csum = metadata_csum };
		struct ext4_plan *plan = plan_or_fail(&h->tree, &options);
		char image[256];
		snprintf(image, sizeof(image), "%s", dump(plan));
		fsck(image);
		for (uint32_t e = 1; e < h->tree.entry_count; e++)
			ask_debugfs(image, &h->tree, e);
		unlink(image);
		ext4_plan_destroy(plan);
	}
}

Test(ext4_xattr, values_of_each_size)
{
	struct hand *h = hand_create();
	/* In the inode: 88 bytes, 20 of them the entry; in the block: 4060, likewise; then in an inode of its own. */
	static const size_t sizes[] = { 0,    1,    3,    4,    5,    20,   67,   68,   69,    100,   1000,
					4000, 4039, 4040, 4041, 4096, 4097, 8191, 8192, 32768, 65535, 65536 };
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		char name[16];
		snprintf(name, sizeof(name), "f%zu", sizes[i]);
		hand_xattr(h, hand_file(h, 0, name, i), "user.abcd", some_value(), sizes[i]);
	}
	check_attributes(h);
	hand_destroy(h);
}

Test(ext4_xattr, every_type_of_inode)
{
	struct hand *h = hand_create();
	const size_t sizes[] = { 20, 500, 10000 };
	for (size_t i = 0; i < 3; i++) {
		char name[16];
		const uint32_t kinds = 6;
		for (uint32_t k = 0; k < kinds; k++) {
			snprintf(name, sizeof(name), "%u-%zu", k, i);
			uint32_t inode;
			if (k == 0)
				inode = hand_dir(h, 0, name);
			else if (k == 1)
				inode = hand_symlink(h, 0, name, i == 2 ? 60 : 10);
			else if (k == 2)
				inode = hand_symlink(h, 0, name, 100);
			else if (k == 3)
				inode = hand_node(h, 0, name, S_IFCHR | 0600, 5);
			else if (k == 4)
				inode = hand_node(h, 0, name, S_IFIFO | 0600, 0);
			else
				inode = hand_file(h, 0, name, 100000);
			hand_xattr(h, inode, "security.capability", some_value(), sizes[i]);
			hand_xattr(h, inode, "trusted.t", some_value(), sizes[i] + 1);
		}
	}
	/* And one with an extent tree of its own. */
	const uint32_t sparse = hand_empty_file(h, 0, "sparse", 1 << 30);
	for (uint32_t i = 0; i < 400; i++)
		hand_extent(h, sparse, i * 10000ull, SOURCE_PATTERN, 0, 100);
	hand_xattr(h, sparse, "user.x", some_value(), 900);
	hand_xattr(h, 0, "user.of-the-root", some_value(), 900);
	check_attributes(h);
	hand_destroy(h);
}

Test(ext4_xattr, many_in_one_block)
{
	struct hand *h = hand_create();
	const uint32_t inode = hand_file(h, 0, "f", 0);
	/* Names of several lengths and prefixes: the block is sorted otherwise than the tree. */
	static const char *const kinds[] = { "security", "trusted", "user" };
	for (uint32_t k = 0; k < 3; k++)
		for (uint32_t i = 0; i < 40; i++) {
			char name[300];
			snprintf(name, sizeof(name), "%s.%02u%.*s", kinds[k], i, (int)(i * 7 % 10), "xxxxxxxxxx");
			hand_xattr(h, inode, name, some_value(), i % 5);
		}
	check_attributes(h);
	hand_destroy(h);
}

Test(ext4_xattr, names_with_high_bytes)
{
	struct hand *h = hand_create();
	const uint32_t inode = hand_file(h, 0, "f", 0);
	hand_xattr(h, inode, "user.\xC3\xA4\xC3\xB6\xFF", some_value(), 200);
	struct ext4_plan *plan = plan_or_fail(&h->tree, NULL);
	const char *image = dump(plan);
	fsck(image);
	unlink(image);
	ext4_plan_destroy(plan);
	hand_destroy(h);
}

/* Many large values, some of them equal; values that fill the block so that later ones have to leave it. */
Test(ext4_xattr, large_values)
{
	struct hand *h = hand_create();
	char name[300];
	for (uint32_t k = 0; k < 3; k++) {
		snprintf(name, sizeof(name), "f%u", k);
		const uint32_t f = hand_file(h, 0, name, 100000);
		for (uint32_t i = 0; i < 40; i++) {
			snprintf(name, sizeof(name), "user.%02u", i);
			hand_xattr(h, f, name, some_value() + i % 3 * 8, i % 4 == 0 ? 60000 + i : 3000 + i);
		}
	}
	const uint32_t brim = hand_dir(h, 0, "brim");
	for (uint32_t i = 0; i < 15; i++) {
		snprintf(name, sizeof(name), "user.%0200u", i);
		hand_xattr(h, brim, name, some_value(), i < 10 ? 190 : 30);
	}
	check_attributes(h);
	hand_destroy(h);
}

/* The kernel believes the values: it compares their hashes. All of them, byte for byte. */
Test(ext4_xattr, large_values_in_the_kernel)
{
	struct hand *h = hand_create();
	static const size_t sizes[] = { 4041, 5000, 40000, 65536 };
	char image[256], point[300], path[320], out[4096];
	const uint32_t root = 0;
	for (size_t i = 0; i < 4; i++) {
		snprintf(path, sizeof(path), "f%zu", i);
		const uint32_t f = i == 3 ? hand_dir(h, root, path) : hand_file(h, root, path, i);
		hand_xattr(h, f, "trusted.a", some_value() + i, sizes[i]);
		hand_xattr(h, f, "user.b", some_value() + i, 50);
		hand_xattr(h, f, "user.c", some_value() + 1 + i, sizes[i]);
	}
	const struct ext4_options options = { .size_bytes = 64 << 20 };
	struct ext4_plan *plan = plan_or_fail(&h->tree, &options);
	snprintf(image, sizeof(image), "%s", dump(plan));
	ext4_plan_destroy(plan);
	hand_destroy(h);
	snprintf(point, sizeof(point), "%s.mount", image);
	if (geteuid() != 0 || unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) || mkdir(point, 0700) ||
	    run(out, sizeof(out), "mount -t ext4 -o loop %s %s 2>&1", image, point)) {
		unlink(image);
		rmdir(point);
		cr_skip_test("no loop mount of ext4 here");
	}
	for (size_t i = 0; i < 4; i++) {
		static uint8_t value[70000];
		snprintf(path, sizeof(path), "%s/f%zu", point, i);
		ssize_t length = getxattr(path, "trusted.a", value, sizeof(value));
		cr_assert(length == (ssize_t)sizes[i] && memcmp(value, value_bytes + i, sizes[i]) == 0, "%s: %zd", path, length);
		length = getxattr(path, "user.c", value, sizeof(value));
		cr_assert(length == (ssize_t)sizes[i] && memcmp(value, value_bytes + 1 + i, sizes[i]) == 0, "%s: %zd", path, length);
	}
	/* It removes and replaces them, too: the counts of users are right. */
	snprintf(path, sizeof(path), "%s/f0", point);
	cr_assert(removexattr(path, "trusted.a") == 0);
	snprintf(path, sizeof(path), "%s/f1", point);
	cr_assert(setxattr(path, "user.c", value_bytes, 9000, 0) == 0, "%s", strerror(errno));
	snprintf(path, sizeof(path), "%s/f2", point);
	cr_assert(unlink(path) == 0);
	umount2(point, 0);
	rmdir(point);
	fsck(image);
	unlink(image);
}

/* The kernel gives back what the layer had, though the form on disk is another. */
Test(ext4_xattr, acl)
{
	struct hand *h = hand_create();
	const uint32_t d = hand_dir(h, 0, "d"), f = hand_file(h, 0, "f", 0);
	hand_xattr(h, d, "system.posix_acl_access", acl, sizeof(acl));
	hand_xattr(h, d, "system.posix_acl_default", acl, sizeof(acl));
	hand_xattr(h, f, "system.posix_acl_access", acl, 4); /* empty: none */
	struct ext4_plan *plan = plan_or_fail(&h->tree, NULL);
	char image[256], point[300], path[320], out[4096];
	snprintf(image, sizeof(image), "%s", dump(plan));
	ext4_plan_destroy(plan);
	hand_destroy(h);
	fsck(image);
	snprintf(point, sizeof(point), "%s.mount", image);
	if (geteuid() != 0 || unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) || mkdir(point, 0700) ||
	    run(out, sizeof(out), "mount -t ext4 -o loop,ro %s %s 2>&1", image, point)) {
		unlink(image);
		rmdir(point);
		cr_skip_test("no loop mount of ext4 here");
	}
	static const char *const names[] = { "system.posix_acl_access", "system.posix_acl_default" };
	for (int i = 0; i < 2; i++) {
		uint8_t value[200];
		snprintf(path, sizeof(path), "%s/d", point);
		const ssize_t length = getxattr(path, names[i], value, sizeof(value));
		cr_assert(length == (ssize_t)sizeof(acl) && memcmp(value, acl, sizeof(acl)) == 0, "%s: %zd", names[i], length);
	}
	snprintf(path, sizeof(path), "%s/f", point);
	cr_assert(getxattr(path, names[0], NULL, 0) == -1);
	umount2(point, 0);
	rmdir(point);
	unlink(image);
}

static int build(const struct hand *h, struct error *err)
{
	static const struct ext4_options options;
	struct ext4_plan *plan = NULL;
	const int rc = ext4_plan_build(&h->tree, &options, &plan, err);
	ext4_plan_destroy(plan);
	return rc;
}

Test(ext4_xattr, bad_acls)
{
	/* Each differs from the good one in one byte. */
	static const struct { size_t at; uint8_t value; size_t length; } bad[] = {
		{ 0, 3, sizeof(acl) },   /* version */
		{ 0, 2, sizeof(acl) - 1 }, /* cut */
		{ 0, 2, 3 },
		{ 4, 64, sizeof(acl) },  /* unknown tag */
		{ 12, 1, sizeof(acl) },  /* two owners */
		{ 12, 16, sizeof(acl) }, /* out of order */
		{ 36, 32, sizeof(acl) }, /* somebody named, no mask */
		{ 0, 2, sizeof(acl) - 8 }, /* no others */
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct hand *h = hand_create();
		uint8_t value[sizeof(acl)];
		memcpy(value, acl, sizeof(acl));
		value[bad[i].at] = bad[i].value;
		hand_xattr(h, hand_file(h, 0, "f", 0), "system.posix_acl_access", value, bad[i].length);
		struct error err = { "" };
		cr_assert(build(h, &err) == -EINVAL && strstr(err.text, "'/f'"), "case %zu: %s", i, err.text);
		hand_destroy(h);
	}
}

Test(ext4_xattr, too_large)
{
	struct hand *h = hand_create();
	uint32_t f = hand_file(h, 0, "f", 0);
	hand_xattr(h, f, "user.abcd", some_value(), 65537);
	struct error err = { "" };
	cr_assert(build(h, &err) == -E2BIG && strstr(err.text, "'/f'"), "%s", err.text);
	hand_destroy(h);
	/* A short symbolic link has no place for inodes with values. */
	h = hand_create();
	f = hand_symlink(h, 0, "l", 59);
	hand_xattr(h, f, "trusted.t", some_value(), 5000);
	err.text[0] = '\0';
	cr_assert(build(h, &err) == -E2BIG && strstr(err.text, "'/l'"), "%s", err.text);
	hand_destroy(h);
	/* Names alone that take more than a block. */
	h = hand_create();
	f = hand_file(h, 0, "f", 0);
	for (uint32_t i = 0; i < 20; i++) {
		char name[300];
		snprintf(name, sizeof(name), "user.%0250u", i);
		hand_xattr(h, f, name, some_value(), 1);
	}
	err.text[0] = '\0';
	cr_assert(build(h, &err) == -E2BIG && strstr(err.text, "'/f'"), "%s", err.text);
	hand_destroy(h);
	h = hand_create();
	f = hand_file(h, 0, "f", 0);
	for (uint32_t i = 0; i < 2000; i++)
		hand_xattr(h, f, "left.out", "", 0);
	cr_assert(build(h, &err) == -E2BIG, "%s", err.text);
	hand_destroy(h);
}

/* What Linux would not set either: foreign namespaces, prefixes without a name. */
Test(ext4_xattr, left_out)
{
	struct hand *h = hand_create();
	const uint32_t f = hand_file(h, 0, "f", 0);
	hand_xattr(h, f, "com.apple.FinderInfo", some_value(), 32);
	hand_xattr(h, f, "system.data", some_value(), 5);
	hand_xattr(h, f, "system.posix_acl_accessories", some_value(), 5);
	hand_xattr(h, f, "user.", some_value(), 5);
	struct ext4_plan *plan = plan_or_fail(&h->tree, NULL);
	char image[256], out[1000];
	snprintf(image, sizeof(image), "%s", dump(plan));
	fsck(image);
	run(out, sizeof(out), "debugfs -R 'ea_list /f' %s 2>/dev/null", image);
	cr_assert(strchr(out, '=') == NULL, "%s", out);
	unlink(image);
	ext4_plan_destroy(plan);
	hand_destroy(h);
}
