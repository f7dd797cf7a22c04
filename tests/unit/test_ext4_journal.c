/* The journal: of the size that mke2fs chooses, empty, clean for e2fsck, and used by the kernel. */
#include "tests/unit/ext4_helper.h"

#include <sched.h>
#include <sys/mount.h>

#include "ext4gen/ext4_disk.h"

static struct hand *some_tree(void)
{
	struct hand *h = hand_rich();
	for (uint32_t i = 0; i < 300; i++) {
		char name[16];
		snprintf(name, sizeof(name), "x%04u", i);
		hand_file(h, 0, name, i * 100);
	}
	return h;
}

/* The number before "k" or "M" that dumpe2fs shows, in bytes. */
static uint64_t shown_journal_bytes(const char *image)
{
	char out[100], *end;
	run(out, sizeof(out), "dumpe2fs -h %s 2>/dev/null | sed -n 's/^Total journal size: *//p'", image);
	const uint64_t number = strtoull(out, &end, 10);
	return *end == 'M' ? number << 20 : *end == 'k' ? number << 10 : number;
}

/* The superblock of the journal as debugfs finds it through inode 8. */
static struct jbd2_superblock read_journal(const char *image)
{
	struct jbd2_superblock sb = { 0 };
	char path[300], out[1000];
	snprintf(path, sizeof(path), "%s.journal", image);
	run(out, sizeof(out), "debugfs -R 'cat <8>' %s 2>/dev/null | head -c 1024 >%s", image, path);
	FILE *file = fopen(path, "r");
	cr_assert(file && fread(&sb, sizeof(sb), 1, file) == 1, "%s", out);
	fclose(file);
	unlink(path);
	return sb;
}

Test(ext4_journal, sizes_as_mke2fs, .timeout = 120)
{
	static const uint64_t mib[] = { 100, 128, 1023, 1024, 2047, 2048, 16383, 16384, 32768, 65536, 131071, 131072, 1 << 20 };
	struct hand *h = some_tree();
	for (size_t i = 0; i < sizeof(mib) / sizeof(mib[0]); i++) {
		const struct ext4_options options = { .size_bytes = mib[i] << 20, .journal = true };
		struct ext4_plan *plan = plan_or_fail(&h->tree, &options);
		char image[256], other[256], out[1000];
		snprintf(image, sizeof(image), "%s", dump(plan));
		fsck(image);
		snprintf(other, sizeof(other), "%s", scratch("mke2fs"));
		cr_assert(run(out, sizeof(out), "mke2fs -q -F -b 4096 -t ext4 -E lazy_itable_init=1 %s %lluM 2>&1", other,
			      (unsigned long long)mib[i]) == 0,
			  "%s", out);
		cr_assert(shown_journal_bytes(image) > 0 && shown_journal_bytes(image) == shown_journal_bytes(other),
			  "%llu MiB: %llu, not %llu", (unsigned long long)mib[i], (unsigned long long)shown_journal_bytes(image),
			  (unsigned long long)shown_journal_bytes(other));
		/* Byte for byte what mke2fs writes, but for the UUID. */
		struct jbd2_superblock ours = read_journal(image), theirs = read_journal(other);
		cr_assert(be32_get(ours.h_magic) == JBD2_MAGIC);
		memset(ours.s_uuid, 0, 16);
		memset(theirs.s_uuid, 0, 16);
		cr_assert(memcmp(&ours, &theirs, sizeof(ours)) == 0, "%llu MiB", (unsigned long long)mib[i]);
		unlink(image);
		unlink(other);
		ext4_plan_destroy(plan);
	}
	hand_destroy(h);
}

Test(ext4_journal, given_sizes, .timeout = 60)
{
	struct hand *h = some_tree();
	/* The least one; one of odd size; one of more than four extents; the largest. */
	static const uint64_t sizes[] = { 4 << 20, (5 << 20) + 12345, 700ull << 20, 10240000ull * 4096 };
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		const struct ext4_options options = { .journal = true, .journal_bytes = sizes[i], .size_bytes = 64ull << 30 };
		struct ext4_plan *plan = plan_or_fail(&h->tree, &options);
		const char *image = dump(plan);
		fsck(image);
		cr_assert(be32_get(read_journal(image).s_maxlen) == sizes[i] / 4096);
		unlink(image);
		ext4_plan_destroy(plan);
	}
	static const uint64_t bad[] = { 1, (4 << 20) - 1, 10240001ull * 4096 };
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		const struct ext4_options options = { .journal = true, .journal_bytes = bad[i] };
		struct ext4_plan *plan;
		struct error err = { "" };
		cr_assert(ext4_plan_build(&h->tree, &options, &plan, &err) == -EINVAL && strstr(err.text, "4194304"), "%s",
			  err.text);
	}
	hand_destroy(h);
}

/* The line names the least size with a journal; it works, one block less does not. Contents about where the journal grows. */
Test(ext4_journal, least_size, .timeout = 120)
{
	struct hand *h = hand_create();
	const uint32_t big = hand_empty_file(h, 0, "big", 1);
	hand_extent(h, big, 0, SOURCE_SPARSE, 0, 1);
	for (uint64_t mib = 108; mib < 132; mib += 4) {
		h->tree.inodes[big].size_bytes = h->tree.extents[0].length = mib << 20;
		struct ext4_options options = { .size_bytes = 4096, .journal = true };
		struct ext4_plan *plan;
		struct error err = { "" };
		cr_assert(ext4_plan_build(&h->tree, &options, &plan, &err) == -ENOSPC);
		const char *number = strstr(err.text, "at least ");
		cr_assert(number, "%s", err.text);
		options.size_bytes = strtoull(number + strlen("at least "), NULL, 10);
		plan = plan_or_fail(&h->tree, &options);
		const char *path = dump(plan);
		fsck(path);
		unlink(path);
		ext4_plan_destroy(plan);
		options.size_bytes -= 1;
		cr_assert(ext4_plan_build(&h->tree, &options, &plan, &err) == -ENOSPC);
	}
	hand_destroy(h);
}

/* The kernel mounts it with ordered data, writes through it, and after a crash in the middle (a copy of the mounted disk) replays it. */
Test(ext4_journal, kernel_uses_it)
{
	struct hand *h = some_tree();
	const struct ext4_options options = { .size_bytes = 256 << 20, .journal = true };
	struct ext4_plan *plan = plan_or_fail(&h->tree, &options);
	char image[256], point[300], copy[300], out[4096];
	snprintf(image, sizeof(image), "%s", dump(plan));
	ext4_plan_destroy(plan);
	hand_destroy(h);
	snprintf(point, sizeof(point), "%s.mount", image);
	snprintf(copy, sizeof(copy), "%s.crash", image);
	if (geteuid() != 0 || unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) || mkdir(point, 0700) ||
	    run(out, sizeof(out), "mount -t ext4 -o loop %s %s 2>&1", image, point)) {
		unlink(image);
		rmdir(point);
		cr_skip_test("no loop mount of ext4 here");
	}
	cr_assert(run(out, sizeof(out), "grep ' %s ext4 ' /proc/mounts | grep -v noload", point) == 0);
	const int status =
	    run(out, sizeof(out), "cd %s && for i in $(seq 300); do echo $i >n$i; done && sync && cp --sparse=always %s %s 2>&1",
		point, image, copy);
	cr_assert(status == 0, "%s", out);
	umount2(point, 0);
	fsck(image);
	/* The copy was taken from a mounted disk: it needs its journal, and is sound with it. */
	run(out, sizeof(out), "dumpe2fs -h %s 2>/dev/null | grep features", copy);
	cr_assert(strstr(out, "needs_recovery"), "%s", out);
	const int repaired = run(out, sizeof(out), "e2fsck -fy %s 2>&1", copy);
	cr_assert(repaired <= 1 && strstr(out, "recovering journal"), "%d %s", repaired, out);
	fsck(copy);
	run(out, sizeof(out), "debugfs -R 'cat /n300' %s 2>/dev/null", copy);
	cr_assert_str_eq(out, "300\n");
	rmdir(point);
	unlink(image);
	unlink(copy);
}
