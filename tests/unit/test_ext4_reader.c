/* Reading ext4: what the generator made, and what mke2fs made of a folder, must come back with every attribute. */
#include "tests/unit/ext4_read_helper.h"

#include <sys/sysmacros.h>
#include <sys/xattr.h>

/* ---- of the generator -------------------------------------------------------------------------------------------------------- */

static void check_plan(struct hand *h)
{
	char why[5000];
	struct opened opened;
	struct ext4_plan *plan = plan_or_fail(&h->tree, NULL);
	open_plan(&opened, plan);
	const struct tree_side was = { &h->tree, tree_side_read, &h->tree, 1 }, is = opened_side(&opened);
	cr_assert(trees_are_same(&was, &is, "/lost+found/", why, sizeof(why)), "%s", why);
	cr_assert_eq(opened.complaints.count, 0, "%s", opened.complaints.first.text);
	opened_close(&opened);
	ext4_plan_destroy(plan);
}

Test(ext4_reader, one_of_everything)
{
	struct hand *h = hand_rich();
	for (uint32_t i = 0; i < h->tree.inode_count; i += 3) {
		hand_xattr(h, i, "security.capability", "01234567890123456789", 20);
		hand_xattr(h, i, "user.long", "012345678901234567890123456789012345678901234567890123456789012345678901234567890",
			   80);
	}
	hand_sort(h);
	check_plan(h);
	hand_destroy(h);
}

Test(ext4_reader, hashed_directory)
{
	struct hand *h = hand_create();
	const uint32_t d = hand_dir(h, 0, "d"), f = hand_file(h, 0, "f", 5000);
	for (uint32_t i = 0; i < 30000; i++) {
		char name[32];
		snprintf(name, sizeof(name), "name-%08u", i);
		if (i % 3)
			hand_link(h, d, name, f);
		else
			hand_empty_file(h, d, name, i);
	}
	check_plan(h);
	hand_destroy(h);
}

Test(ext4_reader, extent_tree_of_three_levels)
{
	struct hand *h = hand_create();
	const uint32_t f = hand_empty_file(h, 0, "f", 64ull << 20);
	for (uint32_t i = 0; i < 8000; i++)
		hand_extent(h, f, i * 8192ull, SOURCE_PATTERN, 512 * (i % 100), 100 + i % 4000);
	check_plan(h);
	hand_destroy(h);
}

Test(ext4_reader, acls)
{
	static const uint8_t acl[] = { 2, 0,    0,   0,   1,   0,   7,  0, 255, 255, 255, 255, 2,   0,  4,
				       0, 0xE8, 3,   0,   0,   4,   0,  5, 0,   255, 255, 255, 255, 16, 0,
				       7, 0,    255, 255, 255, 255, 32, 0, 0,   0,   255, 255, 255, 255 };
	struct hand *h = hand_create();
	hand_xattr(h, hand_file(h, 0, "f", 0), "system.posix_acl_access", acl, sizeof(acl));
	hand_xattr(h, hand_dir(h, 0, "d"), "system.posix_acl_default", acl, sizeof(acl));
	hand_sort(h);
	check_plan(h);
	hand_destroy(h);
}

/* ---- of mke2fs --------------------------------------------------------------------------------------------------------------- */

static void shell(const char *format, ...) __attribute__((format(printf, 1, 2)));
static void shell(const char *format, ...)
{
	char command[2000], out[4000];
	va_list args;
	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	cr_assert_eq(run(out, sizeof(out), "set -e; exec 2>&1; %s", command), 0, "%s\n%s", command, out);
}

/* Compares one name of the tree with what the kernel says of the same in the folder. */
static void compare_name(struct opened *opened, const char *folder, const char *path)
{
	char full[5000];
	struct stat st;
	snprintf(full, sizeof(full), "%s%s", folder, path);
	cr_assert_eq(lstat(full, &st), 0, "%s", full);
	const uint32_t entry = tree_lookup(opened->tree, path, 0);
	cr_assert_neq(entry, TREE_NONE, "%s is missing", path);
	const struct tree_inode *inode = &opened->tree->inodes[opened->tree->entries[entry].inode];
	cr_assert_eq(inode->mode, st.st_mode, "%s: mode %o", path, inode->mode);
	cr_assert(inode->uid == st.st_uid && inode->gid == st.st_gid, "%s: owner %u:%u", path, inode->uid, inode->gid);
	cr_assert_eq(inode->mtime_s, st.st_mtim.tv_sec, "%s: time %lld", path, (long long)inode->mtime_s);
	if (!S_ISDIR(st.st_mode))
		cr_assert_eq(inode->nlink, st.st_nlink, "%s: %u links", path, inode->nlink);
	if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode))
		cr_assert_eq(inode->rdev, major(st.st_rdev) << 20 | minor(st.st_rdev), "%s: device %x", path, inode->rdev);
	if (S_ISLNK(st.st_mode)) {
		char target[5000];
		cr_assert_eq(readlink(full, target, sizeof(target)), (ssize_t)inode->size_bytes);
		cr_assert_eq(memcmp(target, opened->tree->strings + inode->target, inode->size_bytes), 0, "%s", path);
	}
	if (S_ISREG(st.st_mode)) {
		const struct tree_side side = opened_side(opened);
		char *contents = side_contents(&side, inode), *real = malloc((size_t)st.st_size + 1);
		const int fd = open(full, O_RDONLY | O_CLOEXEC);
		cr_assert(contents && real && inode->size_bytes == (uint64_t)st.st_size &&
			  read(fd, real, (size_t)st.st_size) == st.st_size);
		cr_assert_eq(memcmp(contents, real, (size_t)st.st_size), 0, "%s: contents", path);
		close(fd);
		free(contents);
		free(real);
	}
	for (uint32_t i = 0; i < inode->xattr_count; i++) {
		const struct tree_xattr *x = &opened->tree->xattrs[inode->first_xattr + i];
		char name[256], value[70000];
		snprintf(name, sizeof(name), "%.*s", (int)x->name_bytes, opened->tree->strings + x->name);
		cr_assert_eq(lgetxattr(full, name, value, sizeof(value)), (ssize_t)x->value_bytes, "%s: %s", path, name);
		cr_assert_eq(memcmp(value, opened->tree->strings + x->value, x->value_bytes), 0, "%s: %s", path, name);
	}
}

/* A folder with one of everything. Values of extended attributes that need an inode of their own only when asked. */
static void make_folder(const char *folder, size_t largest_value)
{
	shell("rm -rf %s; mkdir -p %s/d/e/f %s/many; cd %s; seq 1 200000 >big; echo a >d/a; ln d/a d/e/link; ln -s /nowhere s; "
	      "ln -s $(printf 'x%%.0s' $(seq 300)) long; mkfifo p; mknod c c 1 3; mknod b b 259 70000; chown 70000:80000 d/a; "
	      "chmod 6751 big; "
	      "truncate -s 3M sparse; printf x | dd of=sparse bs=1 seek=2000000 conv=notrunc; touch -d 1950-01-01 s -h; "
	      "touch -d 2037-01-01 big; cd many; seq 1 2000 | xargs touch",
	      folder, folder, folder, folder);
	char path[300], *value = malloc(largest_value);
	memset(value, 'v', largest_value);
	snprintf(path, sizeof(path), "%s/d/a", folder);
	if (setxattr(path, "user.small", "1", 1, 0) || setxattr(path, "user.large", value, largest_value, 0))
		fprintf(stderr, "no extended attributes on %s\n", path);
	free(value);
}

static void check_mke2fs(const char *options, size_t largest_value)
{
	char folder[256], image[256];
	struct opened opened;
	snprintf(folder, sizeof(folder), "%s", scratch("folder"));
	snprintf(image, sizeof(image), "%s", scratch("mke2fs"));
	make_folder(folder, largest_value);
	shell("rm -f %s; truncate -s 24M %s; mke2fs -q -F %s -t ext4 -d %s %s", image, image, options, folder, image);
	open_image(&opened, image);
	cr_assert_eq(opened.complaints.count, 0, "%s", opened.complaints.first.text);
	static const char *const paths[] = { "/",     "/big", "/d", "/d/a", "/d/e",    "/d/e/f", "/d/e/link", "/s",
					     "/long", "/p",   "/c", "/b",   "/sparse", "/many",  "/many/1",   "/many/2000" };
	for (size_t i = 1; i < sizeof(paths) / sizeof(paths[0]); i++)
		compare_name(&opened, folder, paths[i]);
	cr_assert_eq(tree_lookup(opened.tree, "/d/a", 0) != TREE_NONE, true);
	cr_assert_eq(opened.tree->entries[tree_lookup(opened.tree, "/d/a", 0)].inode,
		     opened.tree->entries[tree_lookup(opened.tree, "/d/e/link", 0)].inode);
	cr_assert_eq(opened.tree->entry_count, 16 + 2000 - 2 + 1, "%u names", opened.tree->entry_count);
	opened_close(&opened);
	shell("rm -rf %s %s", folder, image);
}

Test(ext4_reader, mke2fs_default)
{
	check_mke2fs("-b 4096", 3000);
}

Test(ext4_reader, mke2fs_64bit_checksums_and_seed)
{
	check_mke2fs("-b 4096 -O 64bit,metadata_csum,metadata_csum_seed", 3000);
}

Test(ext4_reader, mke2fs_32bit_without_checksums)
{
	check_mke2fs("-b 4096 -O ^64bit,^metadata_csum,^has_journal", 3000);
}

Test(ext4_reader, mke2fs_blocks_of_1_kib)
{
	check_mke2fs("-b 1024", 800);
}

Test(ext4_reader, mke2fs_blocks_of_64_kib)
{
	check_mke2fs("-b 65536 -O ^has_journal -N 4096", 3000);
}

Test(ext4_reader, mke2fs_large_and_small_inodes)
{
	check_mke2fs("-b 4096 -I 1024", 3000);
	check_mke2fs("-b 4096 -I 512 -O ea_inode,large_dir,mmp,project,quota", 3000);
}

Test(ext4_reader, mke2fs_block_maps)
{
	check_mke2fs("-b 4096 -O ^extent,^64bit,^metadata_csum", 3000);
	check_mke2fs("-b 1024 -O ^extent,^64bit,^metadata_csum,^has_journal,^dir_index", 800);
}

Test(ext4_reader, mke2fs_bigalloc)
{
	check_mke2fs("-b 4096 -N 4096 -O bigalloc", 3000);
}

static void check_refused(const char *options, const char *words)
{
	char image[256];
	struct opened opened;
	struct error err = { "" };
	snprintf(image, sizeof(image), "%s", scratch("mke2fs"));
	shell("rm -f %s; truncate -s 24M %s; mke2fs -q -F %s %s", image, image, options, image);
	cr_assert_eq(try_image(&opened, image, &err), -ENOTSUP, "%s", err.text);
	cr_assert(strstr(err.text, words), "%s", err.text);
	opened_close(&opened);
	unlink(image);
}

Test(ext4_reader, refuses_by_name)
{
	check_refused("-t ext4 -O inline_data", "'inline_data'");
	check_refused("-t ext4 -O meta_bg,^resize_inode", "'meta_bg'");
	check_refused("-t ext4 -O casefold", "'casefold'");
	check_refused("-t ext4 -O encrypt", "'encrypt'");
}

Test(ext4_reader, refuses_what_is_no_file_system)
{
	char image[256];
	struct opened opened;
	struct error err = { "" };
	snprintf(image, sizeof(image), "%s", scratch("zeroes"));
	static const char *const sizes[] = { "0", "1023", "2047", "2048", "1M" };
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		shell("rm -f %s; truncate -s %s %s", image, sizes[i], image);
		cr_assert_eq(try_image(&opened, image, &err), -EINVAL, "%s", err.text);
		cr_assert(strstr(err.text, "no ext4 file system"), "%s", err.text);
		opened_close(&opened);
	}
	shell("mke2fs -q -F -t ext4 %s 8M; truncate -s 7M %s", image, image);
	cr_assert_eq(try_image(&opened, image, &err), -EINVAL);
	cr_assert(strstr(err.text, "more than its disk"), "%s", err.text);
	opened_close(&opened);
	unlink(image);
}
