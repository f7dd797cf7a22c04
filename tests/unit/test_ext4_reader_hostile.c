/*
 * File systems that lie, made with debugfs, which writes what it is told. Each rule of the reader has a test that breaks it: the answer is
 * an error that names the thing, or a name that is left out with a complaint; and it comes at once.
 */
#include "base/le.h"
#include "tests/unit/ext4_read_helper.h"

/* A small file system with a few names, and then what `script` (debugfs requests, one a line) does to it. */
static const char *make_image(const char *options, const char *script)
{
	static char image[256];
	char command[4000], out[8000];
	snprintf(image, sizeof(image), "%s", scratch("hostile"));
	snprintf(command, sizeof(command),
		 "exec 2>&1; rm -f %s; truncate -s 4M %s; mke2fs -q -F -t ext4 -b 1024 -N 256 -O "
		 "^has_journal,^metadata_csum,ea_inode %s %s && "
		 "printf 'mkdir d\\nmkdir d/e\\nwrite /etc/services f\\nwrite /etc/services d/g\\nsymlink s target\\nea_set f "
		 "user.a b\\n%s\\n' | "
		 "debugfs -w -f - %s",
		 image, image, options, image, script, image);
	cr_assert_eq(run(out, sizeof(out), "%s", command), 0, "%s", out);
	cr_assert_null(strstr(out, "not found"), "%s", out);
	return image;
}

/* The inode numbers that the script above gets. */
enum { D = 12, E = 13, F = 14, G = 15, S = 16 };

static void check_damaged(const char *script, const char *words)
{
	struct opened o;
	struct error err = { "" };
	const char *image = make_image("", script);
	const int ret = try_image(&o, image, &err);
	cr_assert(ret == -EUCLEAN || ret == -ENOTSUP, "%s: %d %s", script, ret, err.text);
	cr_assert(strstr(err.text, words), "%s: '%s' does not contain '%s'", script, err.text, words);
	cr_assert_not(strchr(err.text, '\n'));
	opened_close(&o);
	unlink(image);
}

static void check_complaint(const char *script, const char *words)
{
	struct opened o;
	open_image(&o, make_image("", script));
	cr_assert_eq(o.complaints.count, 1, "%s: %llu complaints, '%s'", script, (unsigned long long)o.complaints.count,
		     o.complaints.first.text);
	cr_assert(strstr(o.complaints.first.text, words), "%s: '%s' does not contain '%s'", script, o.complaints.first.text, words);
	cr_assert_neq(tree_lookup(o.tree, "/f", 0), TREE_NONE);
	opened_close(&o);
}

Test(ext4_reader_hostile, the_base_is_good)
{
	struct opened o;
	open_image(&o, make_image("", ""));
	cr_assert_eq(o.complaints.count, 0, "%s", o.complaints.first.text);
	cr_assert_eq(o.tree->entry_count, 7);
	opened_close(&o);
}

/* ---- names ------------------------------------------------------------------------------------------------------------------- */

Test(ext4_reader_hostile, cycle_of_directories)
{
	check_complaint("link <12> d/e/cycle",
			"directory '/d/e': the name 'cycle' is left out: its directory has another name already");
	check_complaint("link <2> d/e/root", "its directory has another name already");
	check_complaint("link <13> d/e/itself", "its directory has another name already");
}

Test(ext4_reader_hostile, directory_with_two_parents)
{
	check_complaint("link <13> second", "its directory has another name already");
}

Test(ext4_reader_hostile, name_of_a_free_inode)
{
	check_complaint("link <100> free", "its inode is free");
	check_complaint("sif d/g links_count 0", "directory '/d': the name 'g' is left out: its inode is free");
	check_complaint("sif d/g mode 0", "its inode is of no known type");
}

Test(ext4_reader_hostile, name_of_no_inode)
{
	check_complaint("link <8> journal", "there is no such inode");
}

/* debugfs would not write these: a name is found in the image and changed. */
static void replace_in_image(const char *image, const char *from, const char *to, size_t length)
{
	const int fd = open(image, O_RDWR | O_CLOEXEC);
	static char bytes[4 << 20];
	cr_assert_eq(pread(fd, bytes, sizeof(bytes), 0), (ssize_t)sizeof(bytes));
	char *at = memmem(bytes, sizeof(bytes), from, length);
	cr_assert(at);
	cr_assert_eq(pwrite(fd, to, length, (off_t)(at - bytes)), (ssize_t)length);
	close(fd);
}

static void check_name(const char *name, const char *words)
{
	struct opened o;
	const char *image = make_image("", "link <14> marked");
	replace_in_image(image, "marked", name, 6);
	open_image(&o, image);
	cr_assert_eq(o.complaints.count, 1);
	cr_assert(strstr(o.complaints.first.text, words), "%s", o.complaints.first.text);
	opened_close(&o);
}

Test(ext4_reader_hostile, names_that_no_file_can_have)
{
	check_name("../../", "the name '../../' is left out: no file can have it");
	check_name("ab/cde", "no file can have it");
	check_name("ab\0cde", "no file can have it");
}

Test(ext4_reader_hostile, name_that_occurs_twice)
{
	struct opened o;
	const char *image = make_image("", "link <14> first1\\nlink <14> second");
	replace_in_image(image, "second", "first1", 6);
	open_image(&o, image);
	cr_assert_eq(o.complaints.count, 1);
	cr_assert(strstr(o.complaints.first.text, "the name 'first1' is left out: it occurs twice"), "%s", o.complaints.first.text);
	opened_close(&o);
}

Test(ext4_reader_hostile, directory_entries_with_wrong_lengths)
{
	static const char *const lengths[] = { "\0\0", "\4\0", "\x0D\0", "\xFF\xFF", "\x0C\0" };
	for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		struct opened o;
		struct error err = { "" };
		const char *image = make_image("", "link <14> marked");
		static char bytes[4 << 20];
		const int fd = open(image, O_RDWR | O_CLOEXEC);
		cr_assert_eq(pread(fd, bytes, sizeof(bytes), 0), (ssize_t)sizeof(bytes));
		char *at = memmem(bytes, sizeof(bytes), "marked", 6);
		/* rec_len, name_len, file_type, name */
		cr_assert_eq(pwrite(fd, lengths[i], 2, (off_t)(at - 4 - bytes)), 2);
		close(fd);
		cr_assert_eq(try_image(&o, image, &err), -EUCLEAN, "length %zu: %s", i, err.text);
		cr_assert(strstr(err.text, "directory '/'"), "%s", err.text);
		cr_assert(strstr(err.text, "a directory entry"), "%s", err.text);
		opened_close(&o);
	}
}

/* ---- inodes ------------------------------------------------------------------------------------------------------------------ */

Test(ext4_reader_hostile, root_is_no_directory)
{
	check_damaged("sif <2> mode 0100644", "the root is no directory");
}

Test(ext4_reader_hostile, directory_of_odd_size)
{
	check_damaged("sif d size 1000", "directory '/d': inode 12: a directory of 1000 bytes");
}

Test(ext4_reader_hostile, symbolic_links)
{
	check_damaged("sif s size 0", "'s': inode 16 is a symbolic link to a path of 0 bytes");
	check_damaged("sif s size 5000", "a path of 5000 bytes");
	check_damaged("sif s block[0] 0", "a symbolic link to nothing");
}

Test(ext4_reader_hostile, huge_sizes)
{
	check_damaged("sif f size 0x7fffffffffffffff", "inode 14 has 9223372036854775807 bytes");
	/* Large, but a size that a file can have: a hole, which costs nothing. */
	struct opened o;
	open_image(&o, make_image("", "sif f size 0x1ffffffffff"));
	const struct tree_inode *f = &o.tree->inodes[o.tree->entries[tree_lookup(o.tree, "/f", 0)].inode];
	cr_assert_eq(f->size_bytes, 0x1ffffffffff);
	cr_assert_eq(f->extent_count, 1);
	opened_close(&o);
}

Test(ext4_reader_hostile, block_map)
{
	check_damaged("sif f flags 0", "inode 14: block 127754 of its map lies behind the end");
}

/* A block of blocks that leads to itself, and to itself: each round costs of what all files may have. */
Test(ext4_reader_hostile, block_map_that_leads_to_itself)
{
	enum { BLOCK = 3000, BLOCK_BYTES = 1024 };
	struct opened o;
	struct error err = { "" };
	le32 blocks[BLOCK_BYTES / 4];
	const char *image =
	    make_image("", "sif f flags 0\\nsif f size 0xffffffffff\\nsif f block[0] 0\\nsif f block[1] 0\\nsif f block[2] 0\\n"
			   "sif f block[3] 0\\nsif f block[4] 0\\nsif f block[5] 0\\nsif f block[TIND] 3000");
	for (size_t i = 0; i < BLOCK_BYTES / 4; i++)
		blocks[i] = le32_make(BLOCK);
	const int fd = open(image, O_RDWR | O_CLOEXEC);
	cr_assert_eq(pwrite(fd, blocks, sizeof(blocks), BLOCK * BLOCK_BYTES), (ssize_t)sizeof(blocks));
	close(fd);
	cr_assert_eq(try_image(&o, image, &err), -EUCLEAN, "%s", err.text);
	cr_assert(strstr(err.text, "all files together have more blocks than the disk"), "%s", err.text);
	opened_close(&o);
}

Test(ext4_reader_hostile, group_descriptors)
{
	check_damaged("set_bg 0 inode_table 0x7fffffff", "the inode table of group 0 lies behind the end");
}

/* ---- extents ----------------------------------------------------------------------------------------------------------------- */

Test(ext4_reader_hostile, extent_trees)
{
	check_damaged("sif f block[0] 0", "'f': inode 14: a block without the magic number in its extents");
	check_damaged("sif f block[0] 0x0005f30a", "a block with too many entries");
	check_damaged("sif f block[1] 0x00060004", "more than 5 levels");
	check_damaged("sif f block[1] 0x00010004", "inode 14");
	check_damaged("sif f block[5] 0x7fffffff", "an extent outside of the disk");
	check_damaged("sif f block[5] 0", "an extent outside of the disk");
	check_damaged("sif f block[4] 0", "an empty extent");
	check_damaged("sif f block[4] 0x7000", "an extent outside of the disk");
	check_damaged("sif f block[0] 0x0002f30a", "inode 14");
	/* Depth 1, and the block that the entry leads to is a file's. */
	check_damaged("sif f block[1] 0x00010004\\nsif f block[0] 0x0001f30a\\nsif f block[4] 400", "inode 14");
}

Test(ext4_reader_hostile, extents_that_overlap)
{
	check_damaged("sif f block[0] 0x0002f30a\\nsif f block[6] 1\\nsif f block[7] 1\\nsif f block[8] 400",
		      "an extent that overlaps another");
}

/* Every file has the same blocks; all together more than there are. */
Test(ext4_reader_hostile, more_blocks_than_the_disk)
{
	struct opened o;
	struct error err = { "" };
	const char *image = make_image("", "");
	char command[900], out[4000];
	for (int i = 0; i < 5; i++) {
		snprintf(command, sizeof(command),
			 "printf 'mknod p%d p\\nsif p%d mode 0100644\\nsif p%d flags 0x80000\\nsif p%d block[0] 0x0001f30a\\nsif "
			 "p%d block[1] 4\\n"
			 "sif p%d block[3] 0\\nsif p%d block[4] 3000\\nsif p%d block[5] 500\\nsif p%d size 3000000\\n' | debugfs "
			 "-w -f - %s 2>&1",
			 i, i, i, i, i, i, i, i, i, image);
		cr_assert_eq(run(out, sizeof(out), "%s", command), 0, "%s", out);
	}
	cr_assert_eq(try_image(&o, image, &err), -EUCLEAN, "%s", err.text);
	cr_assert(strstr(err.text, "all files together have more blocks than the disk"), "%s", err.text);
	opened_close(&o);
}

/* ---- extended attributes ----------------------------------------------------------------------------------------------------- */

Test(ext4_reader_hostile, attribute_block)
{
	check_damaged("sif f file_acl 5000000", "'f': inode 14: its extended attributes: block 5000000 lies behind the end");
	check_damaged("sif f file_acl 1", "a block without the magic number in its extended attributes");
	check_damaged("sif f extra_isize 3", "inode 14 has 3 bytes of extra fields");
	check_damaged("sif f extra_isize 200", "inode 14 has 200 bytes of extra fields");
}

/* The bytes of the entry of user.a in inode 14: name_len 1, index 1, offset, inum, size, hash, 'a'. */
static void check_attribute(size_t at, const char *bytes, size_t length, const char *words)
{
	struct opened o;
	struct error err = { "" };
	static char disk[4 << 20];
	const char *image = make_image("", "");
	const int fd = open(image, O_RDWR | O_CLOEXEC);
	cr_assert_eq(pread(fd, disk, sizeof(disk), 0), (ssize_t)sizeof(disk));
	char *entry = memmem(disk, sizeof(disk), "\0\0\x02\xEA\x01\x01", 6);
	cr_assert(entry);
	cr_assert_eq(pwrite(fd, bytes, length, (off_t)(entry + 4 + at - disk)), (ssize_t)length);
	close(fd);
	cr_assert_eq(try_image(&o, image, &err), -EUCLEAN, "%s", err.text);
	cr_assert(strstr(err.text, words), "'%s' does not contain '%s'", err.text, words);
	opened_close(&o);
}

Test(ext4_reader_hostile, attribute_entries)
{
	check_attribute(0, "\xFF", 1, "an entry that is cut off");
	check_attribute(2, "\xFF\xFF", 2, "a value outside");
	check_attribute(8, "\xFF\0\0\0", 4, "a value outside");
	check_attribute(8, "\1\0\1\0", 4, "a value of more than 64 KiB");
	check_attribute(4, "\1\1\0\0", 4, "there is no inode 257");
	check_attribute(4, "\x0F\0\0\0", 4, "a value in an inode that is none");
	check_attribute(16, "\0", 1, "a name with a zero byte");
}
