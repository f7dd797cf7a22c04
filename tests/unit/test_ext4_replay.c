/*
 * Journals that need recovery, as a Linux kernel left them (tests/lab/ext4-images): what the reader sees must be what e2fsck makes of
 * the same image, which replays the journal by code of its own.
 */
#include "ext4read/jbd2_disk.h"
#include "tests/unit/ext4_read_helper.h"

static void must_run(const char *command)
{
	char out[4000];
	cr_assert_eq(run(out, sizeof(out), "exec 2>&1; %s", command), 0, "%s\n%s", command, out);
}

/* Unpacks an image. The path is the caller's to keep. */
static void unpack(const char *name, char path[300])
{
	char command[1000];
	snprintf(path, 300, "%s.%s", scratch("journal"), name);
	snprintf(command, sizeof(command), "xz -dc tests/unit/images/%s.img.xz >%s", name, path);
	must_run(command);
}

static bool has(const struct opened *opened, const char *path)
{
	return tree_lookup(opened->tree, path, 0) != TREE_NONE;
}

#define INODE(opened, path) (&(opened)->tree->inodes[(opened)->tree->entries[tree_lookup((opened)->tree, path, 0)].inode])

static void check_replay(const char *name)
{
	char dirty[300], mended[310], command[1000], why[5000], out[4000];
	struct opened a, b;
	unpack(name, dirty);
	snprintf(mended, sizeof(mended), "%s.mended", dirty);
	run(out, sizeof(out), "dumpe2fs -h %s 2>/dev/null", dirty);
	cr_assert(strstr(out, "needs_recovery"), "the image is clean:\n%s", out);
	snprintf(command, sizeof(command), "cp %s %s && { e2fsck -fy %s || [ $? = 1 ]; }", dirty, mended, mended);
	must_run(command);
	open_image(&a, dirty);
	open_image(&b, mended);
	cr_assert_eq(b.reader && ext4_reader_is_replayed(b.reader, 0, 16 << 20), false, "e2fsck left something to replay");
	cr_assert(ext4_reader_is_replayed(a.reader, 0, 16 << 20), "nothing was replayed");
	cr_assert_eq(a.complaints.count, 0, "%s", a.complaints.first.text);
	const struct tree_side left = opened_side(&a), right = opened_side(&b);
	cr_assert(trees_are_same(&left, &right, NULL, why, sizeof(why)), "%s", why);
	cr_assert(has(&a, "/a/b/c") && has(&a, "/many/400") && has(&a, "/many/lines8") && has(&a, "/a/b/link") && !has(&a, "/old"));
	/* 1950-01-02 03:04:05.123456789 */
	cr_assert(INODE(&a, "/a/b")->mtime_s == -631054555 && INODE(&a, "/a/b")->mtime_ns == 123456789);
	opened_close(&a);
	opened_close(&b);
	unlink(dirty);
	unlink(mended);
}

Test(ext4_journal, checksums_of_version_3)
{
	check_replay("csum3");
}

Test(ext4_journal, checksums_of_version_1)
{
	check_replay("csum1");
}

Test(ext4_journal, no_checksums)
{
	check_replay("nocsum");
}

Test(ext4_journal, contents_in_the_journal)
{
	check_replay("data");
}

/* What the kernel wrote and how it is read, attribute by attribute; the numbers are those of tests/lab/ext4-images. */
static void check_clean(const char *name)
{
	char path[300];
	struct opened o;
	unpack(name, path);
	open_image(&o, path);
	cr_assert_eq(o.complaints.count, 0, "%s", o.complaints.first.text);
	const struct tree *t = o.tree;
	cr_assert(has(&o, "/late") && !has(&o, "/a/b/link") && !has(&o, "/old"));
	const struct tree_inode *file = INODE(&o, "/a/file");
	cr_assert(file->mode == (S_IFREG | 06755) && file->uid == 70000 && file->gid == 80000 && file->nlink == 1 &&
		  file->size_bytes == 4);
	cr_assert(file->xattr_count == 1 && t->xattrs[file->first_xattr].value_bytes == 1);
	cr_assert(INODE(&o, "/a/null")->rdev == (1 << 20 | 3) && INODE(&o, "/a/big-device")->rdev == (259 << 20 | 70000));
	cr_assert(S_ISFIFO(INODE(&o, "/a/fifo")->mode) && INODE(&o, "/a/symlink")->size_bytes == 4 &&
		  INODE(&o, "/a/long")->size_bytes == 200);
	cr_assert(INODE(&o, "/big")->mtime_ns == 987654321 && INODE(&o, "/big")->mtime_s > 10400000000);
	const struct tree_inode *c = INODE(&o, "/a/b/c");
	cr_assert_eq(c->xattr_count, 3);
	cr_assert_eq(t->xattrs[c->first_xattr].value_bytes, 44);
	cr_assert_eq(t->xattrs[c->first_xattr + 2].value_bytes, 700);
	const struct tree_inode *sparse = INODE(&o, "/sparse"), *unwritten = INODE(&o, "/unwritten");
	cr_assert(sparse->size_bytes == 5ull << 30 && sparse->extent_count == 1);
	cr_assert(unwritten->size_bytes == 100000 && unwritten->extent_count == 0);
	char text[6] = "";
	const struct tree_extent *x = &t->extents[sparse->first_extent];
	cr_assert_eq(ext4_reader_read(o.reader, x->source_offset + (3000000000 - x->file_offset), text, sizeof(text)), 0);
	cr_assert_eq(memcmp(text, "middle", 6), 0);
	const struct tree_side side = opened_side(&o);
	char *magic = side_contents(&side, INODE(&o, "/magic"));
	cr_assert_eq(memcmp(magic, "\xC0\x3B\x39\x98 begins", 11), 0);
	free(magic);
	opened_close(&o);
	unlink(path);
}

Test(ext4_journal, unmounted)
{
	check_clean("csum3-clean");
	check_clean("nocsum-clean");
	check_clean("csum1-clean");
	check_clean("data-clean");
}

/* ---- damage ------------------------------------------------------------------------------------------------------------------ */

/* Where the journal lies, as debugfs says; it is in one piece up to the first indirect block, which is enough. */
static uint64_t journal_offset(const char *path)
{
	char out[200];
	run(out, sizeof(out), "debugfs -R 'bmap <8> 0' %s 2>/dev/null", path);
	return strtoull(out, NULL, 10) * 1024;
}

static void poke(const char *path, uint64_t offset, const void *bytes, size_t length)
{
	const int fd = open(path, O_RDWR | O_CLOEXEC);
	cr_assert_eq(pwrite(fd, bytes, length, (off_t)offset), (ssize_t)length);
	close(fd);
}

static void check_damage(const char *name, uint64_t offset, const char *byte, int code, const char *words)
{
	char path[300];
	struct opened o;
	struct error err = { "" };
	unpack(name, path);
	poke(path, journal_offset(path) + offset, byte, 4);
	cr_assert_eq(try_image(&o, path, &err), code, "%s", err.text);
	cr_assert(strstr(err.text, words), "%s", err.text);
	opened_close(&o);
	unlink(path);
}

Test(ext4_journal, refuses_a_wrong_superblock)
{
	check_damage("nocsum", 0, "\0\0\0\0", -EUCLEAN, "the journal has no superblock");
	check_damage("nocsum", 12, "\0\0\x10\0", -EUCLEAN, "the journal's superblock is wrong");
	check_damage("nocsum", 16, "\xFF\0\0\0", -EUCLEAN, "the journal's superblock is wrong");
	check_damage("nocsum", 20, "\0\0\0\0", -EUCLEAN, "the journal's superblock is wrong");
	check_damage("nocsum", 0x1C, "\0\xFF\0\0", -EUCLEAN, "the journal's superblock is wrong");
	check_damage("nocsum", 0x28, "\0\0\0\x20", -ENOTSUP, "'fast_commit'");
	check_damage("nocsum", 0x28, "\0\0\1\0", -ENOTSUP, "incompatible features 0x100");
}

/* The s_start-th block of the journal's inode. */
static uint64_t first_of_log(const char *path)
{
	be32 start;
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	cr_assert_eq(pread(fd, &start, 4, (off_t)journal_offset(path) + 0x1C), 4);
	close(fd);
	return (uint64_t)be32_get(start) * 1024;
}

/* A block of a committed transaction that is not what was written. */
Test(ext4_journal, refuses_a_wrong_checksum)
{
	char path[300];
	struct error err = { "" };
	struct opened o;
	unpack("csum3", path);
	poke(path, journal_offset(path) + first_of_log(path) + 1024 + 500, "\x5A\xA5\x5A", 3); /* data */
	cr_assert_eq(try_image(&o, path, &err), -EUCLEAN);
	cr_assert(strstr(err.text, "has a wrong checksum"), "%s", err.text);
	opened_close(&o);
	unpack("csum3", path);
	poke(path, journal_offset(path) + first_of_log(path) + 900, "\x5A\xA5\x5A", 3); /* the descriptor */
	cr_assert_eq(try_image(&o, path, &err), -EUCLEAN);
	cr_assert(strstr(err.text, "of the journal has a wrong checksum"), "%s", err.text);
	opened_close(&o);
	unlink(path);
}

/* With one checksum for a transaction, a wrong one ends the log, as a write that was cut off does. */
Test(ext4_journal, ends_at_a_transaction_that_was_not_written)
{
	char path[300];
	struct opened o;
	unpack("csum1", path);
	poke(path, journal_offset(path) + first_of_log(path) + 1024 + 500, "\x5A\xA5\x5A", 3);
	open_image(&o, path);
	cr_assert(!ext4_reader_is_replayed(o.reader, 0, 16 << 20));
	opened_close(&o);
	unlink(path);
}
