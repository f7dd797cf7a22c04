/*
 * The generated disk in the hands of the host's kernel: what it reads equals the tree; what it writes leaves a clean file
 * system.
 */
#include "tests/unit/ext4_helper.h"

#include <dirent.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <time.h>

/*
 * Mounts `image` in a mount namespace of this test's own. Skips the test where that is not allowed. Returns the mount point
 * (static).
 */
static const char *mount_or_skip(const char *image, const char *options)
{
	static char point[256], out[1024];
	snprintf(point, sizeof(point), "%s.mount", image);
	if (geteuid() != 0 || unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) {
		unlink(image);
		cr_skip_test("mounting needs root");
	}
	cr_assert(mkdir(point, 0700) == 0);
	if (run(out, sizeof(out), "mount -t ext4 -o loop,%s %s %s 2>&1", options, image, point)) {
		rmdir(point);
		unlink(image);
		cr_skip_test("no loop mount of ext4 here: %s", out);
	}
	return point;
}

static void unmount(const char *image, const char *point)
{
	cr_assert(umount2(point, 0) == 0, "umount: %s", strerror(errno));
	rmdir(point);
	(void)image;
}

static void path_of(const struct tree *tree, const char *root, uint32_t entry, char *out, size_t size)
{
	char path[8192];
	size_t at = sizeof(path) - 1;
	path[at] = '\0';
	for (uint32_t e = entry; e != 0;) {
		at -= tree->entries[e].name_bytes;
		memcpy(path + at, tree->strings + tree->entries[e].name, tree->entries[e].name_bytes);
		path[--at] = '/';
		const uint32_t parent = tree->entries[e].parent;
		for (e = 0; tree->entries[e].inode != parent; e++)
			;
	}
	snprintf(out, size, "%s%s", root, path + at);
}

/* The bytes [offset, offset + length) of a file as the tree has them. */
static void expected_bytes(const struct tree *tree, const struct tree_inode *inode, uint64_t offset, uint8_t *to, size_t length)
{
	memset(to, 0, length);
	for (uint32_t i = 0; i < inode->extent_count; i++) {
		const struct tree_extent *x = &tree->extents[inode->first_extent + i];
		const uint64_t begin = x->file_offset > offset ? x->file_offset : offset;
		const uint64_t end = x->file_offset + x->length < offset + length ? x->file_offset + x->length : offset + length;
		if (begin >= end)
			continue;
		const struct iovec iov = { to + (begin - offset), end - begin };
		cr_assert(tree_source_readv(tree, x->source, x->source_offset + (begin - x->file_offset), &iov, 1) == 0);
	}
}

static void compare_contents(const struct tree *tree, const struct tree_inode *inode, const char *path)
{
	enum { CHUNK = 1 << 20 };
	static uint8_t want[CHUNK], have[CHUNK];
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	cr_assert(fd >= 0, "%s: %s", path, strerror(errno));
	for (uint64_t offset = 0; offset < inode->size_bytes; offset += CHUNK) {
		const size_t take = inode->size_bytes - offset < CHUNK ? (size_t)(inode->size_bytes - offset) : CHUNK;
		cr_assert(pread(fd, have, take, (off_t)offset) == (ssize_t)take, "%s", path);
		expected_bytes(tree, inode, offset, want, take);
		cr_assert(memcmp(want, have, take) == 0, "%s differs behind %llu", path, (unsigned long long)offset);
	}
	close(fd);
}

static void compare_xattrs(const struct tree *tree, const struct tree_inode *inode, const char *path)
{
	for (uint32_t i = 0; i < inode->xattr_count; i++) {
		const struct tree_xattr *x = &tree->xattrs[inode->first_xattr + i];
		char name[300];
		static uint8_t value[70000];
		snprintf(name, sizeof(name), "%.*s", (int)x->name_bytes, tree->strings + x->name);
		const ssize_t length = lgetxattr(path, name, value, sizeof(value));
		cr_assert(length == (ssize_t)x->value_bytes, "%s: %s: %zd %s", path, name, length, strerror(errno));
		cr_assert(memcmp(value, tree->strings + x->value, x->value_bytes) == 0, "%s: %s", path, name);
	}
}

static void compare_directory(const struct tree *tree, const struct tree_inode *inode, const char *path, bool root)
{
	uint32_t want = root ? 3 : 2, have = 0;
	for (uint32_t e = inode->first_child; e != TREE_NONE; e = tree->entries[e].next_sibling)
		want++;
	DIR *dir = opendir(path);
	cr_assert(dir, "%s", path);
	while (readdir(dir))
		have++;
	closedir(dir);
	cr_assert(want == have, "%s: %u names, not %u", path, have, want);
}

static void compare_entry(const struct ext4_plan *plan, const struct tree *tree, uint32_t entry, const char *path)
{
	const uint32_t number = tree->entries[entry].inode;
	const struct tree_inode *inode = &tree->inodes[number];
	struct stat st;
	cr_assert(lstat(path, &st) == 0, "%s: %s", path, strerror(errno));
	const bool many = S_ISDIR(inode->mode) && inode->nlink > 65000;
	cr_assert(st.st_ino == ext4_plan_inode_number(plan, number), "%s: inode %lu", path, (unsigned long)st.st_ino);
	cr_assert(st.st_mode == inode->mode && st.st_uid == inode->uid && st.st_gid == inode->gid, "%s: mode %o", path, st.st_mode);
	cr_assert(st.st_nlink == (many ? 1 : inode->nlink + (entry == 0)), "%s: %lu links", path, (unsigned long)st.st_nlink);
	cr_assert(st.st_mtim.tv_sec == inode->mtime_s && st.st_mtim.tv_nsec == inode->mtime_ns, "%s: time %lld", path,
		  (long long)st.st_mtim.tv_sec);
	if (S_ISDIR(inode->mode))
		compare_directory(tree, inode, path, entry == 0);
	else
		cr_assert((uint64_t)st.st_size == inode->size_bytes, "%s: size %lld", path, (long long)st.st_size);
	if (S_ISREG(inode->mode))
		compare_contents(tree, inode, path);
	if (S_ISLNK(inode->mode)) {
		char target[5000];
		const ssize_t length = readlink(path, target, sizeof(target));
		cr_assert(length == (ssize_t)inode->size_bytes && !memcmp(target, tree->strings + inode->target, (size_t)length),
			  "%s", path);
	}
	if (S_ISCHR(inode->mode) || S_ISBLK(inode->mode))
		cr_assert(major(st.st_rdev) == inode->rdev >> 20 && minor(st.st_rdev) == (inode->rdev & 0xFFFFF), "%s: device",
			  path);
	compare_xattrs(tree, inode, path);
}

static void compare_by_mount(const struct tree *tree, uint64_t size_bytes)
{
	const struct ext4_options options = { .size_bytes = size_bytes };
	struct ext4_plan *plan = plan_or_fail(tree, &options);
	char image[256];
	snprintf(image, sizeof(image), "%s", dump(plan));
	const char *point = mount_or_skip(image, "ro");
	for (uint32_t e = 0; e < tree->entry_count; e++) {
		char path[8192];
		path_of(tree, point, e, path, sizeof(path));
		compare_entry(plan, tree, e, path);
	}
	unmount(image, point);
	unlink(image);
	ext4_plan_destroy(plan);
}

Test(ext4_mount, rich_tree)
{
	struct hand *h = hand_rich();
	compare_by_mount(&h->tree, 0);
	hand_destroy(h);
}

Test(ext4_mount, large_directories)
{
	struct hand *h = hand_create();
	static const uint32_t counts[] = { 250, 800, 1200, 3000 };
	for (uint32_t i = 0; i < 4; i++) {
		char name[256] = "d0";
		name[1] = (char)('0' + i);
		const uint32_t dir = hand_dir(h, 0, name);
		for (uint32_t k = 0; k < counts[i]; k++) {
			snprintf(name, sizeof(name), "%0*u", (int)(k % 3 == 0 ? 200 : 10), k);
			hand_file(h, dir, name, k % 7);
		}
	}
	compare_by_mount(&h->tree, 0);
	hand_destroy(h);
}

/* Everything a guest does to its disk: create, grow, link, rename, remove, attributes; then e2fsck. */
Test(ext4_mount, written_disk_stays_clean)
{
	struct hand *h = hand_rich();
	const uint32_t big = hand_dir(h, 0, "many");
	for (uint32_t k = 0; k < 3000; k++) {
		char name[64];
		snprintf(name, sizeof(name), "some-file-name-%u", k);
		hand_file(h, big, name, 10);
	}
	static const uint64_t disk_sizes[] = { 64 << 20, 0 };
	for (unsigned i = 0; i < 2; i++) {
		const struct ext4_options options = { .size_bytes = disk_sizes[i] };
		struct ext4_plan *plan = plan_or_fail(&h->tree, &options);
		char image[256], out[4096];
		snprintf(image, sizeof(image), "%s", dump(plan));
		const char *point = mount_or_skip(image, "rw");
		const int status =
		    run(out, sizeof(out),
			"set -e; cd %s; dd if=/dev/urandom of=new bs=1M count=20 2>&1; for i in $(seq 500); do echo $i >many/n$i; "
			"ln many/n$i d/l$i; done; rm -r many/some*1*; mkdir -p x/y/z; mv many x/y; echo more >>f/f4097; "
			": >f/f1048577; setfattr -n user.k -v v f/f0 2>/dev/null || true; rm s*; rm -r f; sync",
			point);
		cr_assert(status == 0, "%s", out);
		unmount(image, point);
		fsck(image);
		unlink(image);
		ext4_plan_destroy(plan);
	}
	hand_destroy(h);
}
