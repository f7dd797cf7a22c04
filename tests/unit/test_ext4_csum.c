/* metadata_csum: e2fsck finds every checksum right, notices when a byte of any kind of metadata changes, and the kernel reads all. */
#include "tests/unit/ext4_helper.h"

#include <sched.h>
#include <sys/mount.h>

#include "ext4gen/ext4_disk.h"
#include "ext4gen/plan_internal.h"

Test(ext4_csum, crc32c)
{
	/* RFC 3720 B.4, with the inversions that ext4 leaves to its callers. */
	uint8_t bytes[32] = { 0 };
	cr_assert(~crc32c(UINT32_MAX, bytes, 32) == 0x8A9136AA);
	memset(bytes, 0xFF, sizeof(bytes));
	cr_assert(~crc32c(UINT32_MAX, bytes, 32) == 0x62A8AB43);
	for (uint8_t i = 0; i < 32; i++)
		bytes[i] = i;
	cr_assert(~crc32c(UINT32_MAX, bytes, 32) == 0x46DD794E);
	cr_assert(~crc32c(UINT32_MAX, "123456789", 9) == 0xE3069283);
}

/* Small and indexed directories, with one level and with two; extent trees of two levels; attributes; all kinds of inodes. */
static struct hand *tree_of_all(void)
{
	struct hand *h = hand_rich();
	static const uint32_t counts[] = { 30, 250, 3000, 140000 };
	static char value[2000];
	for (uint32_t i = 0; i < 4; i++) {
		char name[256] = "dir0";
		name[3] = (char)('0' + i);
		const uint32_t dir = hand_dir(h, 0, name);
		const uint32_t f = hand_file(h, dir, "a", 5);
		for (uint32_t k = 0; k < counts[i]; k++) {
			snprintf(name, sizeof(name), "%030u-%u", k % 60000, k);
			if (k < 60000)
				hand_link(h, dir, name, f);
			else
				hand_empty_file(h, dir, name, 0);
		}
	}
	const uint32_t sparse = hand_empty_file(h, 0, "holes", 1ull << 33);
	for (uint32_t i = 0; i < 3000; i++)
		hand_extent(h, sparse, i * 1000000ull, SOURCE_PATTERN, 0, 100);
	hand_xattr(h, sparse, "user.large", value, sizeof(value));
	hand_xattr(h, 0, "user.large", value, sizeof(value));
	hand_xattr(h, 1, "user.small", "value", 5);
	return h;
}

Test(ext4_csum, clean, .timeout = 120)
{
	struct hand *h = tree_of_all();
	/* Disks of few and of many groups, with and without a journal. */
	static const uint64_t sizes[] = { 0, 400 << 20, (400 << 20) + 4096 * 77, 100ull << 30 };
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		const struct ext4_options options = {
			.size_bytes = sizes[i], .metadata_csum = true, .journal = i % 2, .uuid = { 7, (uint8_t)i }
		};
		struct ext4_plan *plan = plan_or_fail(&h->tree, &options);
		char out[8192];
		const char *path = dump(plan);
		fsck(path);
		run(out, sizeof(out), "dumpe2fs %s 2>&1", path);
		cr_assert(strstr(out, "metadata_csum") && strstr(out, "Checksum type:            crc32c") &&
			      !strstr(out, "invalid"),
			  "%s", out);
		unlink(path);
		ext4_plan_destroy(plan);
	}
	hand_destroy(h);
}

/* e2fsck notices a changed bit in the byte at `offset`. */
static void notices(const char *image, uint64_t offset, const char *what)
{
	char out[2048];
	uint8_t byte;
	const int fd = open(image, O_RDWR | O_CLOEXEC);
	cr_assert(fd >= 0 && pread(fd, &byte, 1, (off_t)offset) == 1);
	byte ^= 0x10;
	cr_assert(pwrite(fd, &byte, 1, (off_t)offset) == 1);
	const int status = run(out, sizeof(out), "e2fsck -fn %s 2>&1", image);
	cr_assert(status != 0 || strstr(out, "? no"), "%s: not noticed", what);
	byte ^= 0x10;
	cr_assert(pwrite(fd, &byte, 1, (off_t)offset) == 1);
	close(fd);
}

Test(ext4_csum, every_kind_is_covered, .timeout = 120)
{
	struct hand *h = hand_create();
	char name[64];
	static char value[2000];
	const uint32_t sparse = hand_empty_file(h, 0, "holes", 1ull << 33);
	for (uint32_t i = 0; i < 3000; i++)
		hand_extent(h, sparse, i * 1000000ull, SOURCE_PATTERN, 0, 100);
	hand_xattr(h, sparse, "user.large", value, sizeof(value));
	const uint32_t small = hand_dir(h, 0, "small"), large = hand_dir(h, 0, "large");
	hand_file(h, small, "f", 1);
	for (uint32_t k = 0; k < 3000; k++) {
		snprintf(name, sizeof(name), "%040u", k);
		hand_empty_file(h, large, name, 0);
	}
	const struct ext4_options options = { .size_bytes = 64 << 20, .metadata_csum = true };
	struct ext4_plan *plan = plan_or_fail(&h->tree, &options);
	const struct plan_layout *l = &plan->layout;
	char image[256];
	snprintf(image, sizeof(image), "%s", dump(plan));
	fsck(image);
	const uint64_t block = EXT4_BLOCK_BYTES;
	const uint64_t objects = l->objects * block;
	notices(image, EXT4_SUPER_OFFSET + offsetof(struct ext4_super_block, s_wtime), "superblock");
	notices(image, l->descriptors * block + offsetof(struct ext4_group_desc, bg_exclude_bitmap), "descriptor");
	notices(image, l->block_bitmaps * block + 4000, "block bitmap");
	notices(image, l->inode_bitmaps * block + l->inodes_per_group / 8 - 1, "inode bitmap");
	notices(image,
		l->inode_tables * block + (ext4_plan_inode_number(plan, small) - 1) * EXT4_INODE_BYTES +
		    offsetof(struct ext4_inode, i_atime),
		"inode");
	notices(image, objects + plan->objects[plan_find_object_of_inode(plan, sparse)].block * block + 4092, "extent block");
	notices(image, objects + plan->objects[plan_find_object_of_inode(plan, sparse) + 1].block * block - 3, "attributes");
	notices(image, objects + plan->objects[plan_find_object_of_inode(plan, small)].block * block + 3000, "directory");
	notices(image, objects + plan->objects[plan_find_object_of_inode(plan, large)].block * block + 4094, "index");
	notices(image, objects + (plan->objects[plan_find_object_of_inode(plan, large)].block + 2) * block + 4094, "leaf");
	fsck(image);
	unlink(image);
	ext4_plan_destroy(plan);
	hand_destroy(h);
}

/* The kernel checks what it reads: all names, all attributes, all extents; then it writes, and e2fsck agrees. */
Test(ext4_csum, kernel_reads_and_writes, .timeout = 120)
{
	struct hand *h = tree_of_all();
	const struct ext4_options options = { .size_bytes = 512 << 20, .metadata_csum = true, .journal = true };
	struct ext4_plan *plan = plan_or_fail(&h->tree, &options);
	char image[256], point[300], out[4096];
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
	const int read = run(out, sizeof(out),
			     "cd %s && find . | wc -l && ls -l dir3 | tail -n 1 >/dev/null && cksum holes f/* >/dev/null", point);
	cr_assert(read == 0 && atoi(out) > 143000, "%d %s", read, out);
	const int write = run(
	    out, sizeof(out),
	    "cd %s && for d in dir0 dir1 dir2 dir3; do for i in 1 2 3 4 5 6 7 8 9; do echo x >$d/new$i; done; rm $d/*1; done && "
	    "rm holes && cp -r f g && sync 2>&1",
	    point);
	cr_assert(write == 0, "%d %s", write, out);
	cr_assert(umount2(point, 0) == 0);
	rmdir(point);
	fsck(image);
	unlink(image);
}
