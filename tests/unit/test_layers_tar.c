/* The tar reader: every format that is understood, and every rule by which an archive is refused. */
#include "test_layers_util.h"

#include <errno.h>

#define GNU_MAGIC "ustar  \0"
#define V7_MAGIC "\0\0\0\0\0\0\0\0"

Test(tar_number, octal)
{
	int64_t n = -1;
	cr_assert(tar_number("0000644\0", 8, &n) && n == 0644);
	cr_assert(tar_number("    644 ", 8, &n) && n == 0644);
	cr_assert(tar_number("\0\0\0\0\0\0\0\0", 8, &n) && n == 0);
	cr_assert(tar_number("77777777", 8, &n) && n == 077777777);
	cr_assert(tar_number("777777777777", 12, &n) && n == 0777777777777);
	cr_assert(tar_number("644\0junk", 8, &n) && n == 0644);
}

Test(tar_number, rejects_what_is_not_octal)
{
	int64_t n;
	cr_assert_not(tar_number("0000698\0", 8, &n));
	cr_assert_not(tar_number("-1\0\0\0\0\0\0", 8, &n));
	cr_assert_not(tar_number("0x10\0\0\0\0", 8, &n));
}

Test(tar_number, base_256)
{
	int64_t n;
	cr_assert(tar_number("\x80\0\0\0\0\0\0\x05", 8, &n) && n == 5);
	cr_assert(tar_number("\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", 12, &n) && n == INT64_MAX);
	cr_assert(tar_number("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12, &n) && n == -1);
	cr_assert(tar_number("\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", 12, &n) && n == INT64_MIN);
}

Test(tar_number, rejects_base_256_beyond_64_bits)
{
	int64_t n;
	cr_assert_not(tar_number("\x80\0\0\0\x80\0\0\0\0\0\0\0", 12, &n));
	cr_assert_not(tar_number("\x80\0\0\x01\0\0\0\0\0\0\0\0", 12, &n));
	cr_assert_not(tar_number("\xff\xff\xff\xff\x7f\0\0\0\0\0\0\0", 12, &n));
	cr_assert_not(tar_number("\xbf\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12, &n));
}

Test(tar_checksum, signed_sum_of_old_programs)
{
	struct item item = { .name = "caf\xe9", .type = '0' };
	struct tar_header header = header_make(&item, 0);
	cr_assert(tar_checksum_ok(&header));
	unsigned sum;
	cr_assert_eq(sscanf(header.checksum, "%o", &sum), 1);
	snprintf(header.checksum, sizeof(header.checksum), "%06o", (sum - 256) & 0777777u);
	cr_assert(tar_checksum_ok(&header));
	snprintf(header.checksum, sizeof(header.checksum), "%06o", (sum - 1) & 0777777u);
	cr_assert_not(tar_checksum_ok(&header));
}

Test(tar, all_types)
{
	struct archive a = { 0 };
	ADD(&a, .name = "dir/", .type = '5', .mode = "0001777");
	ADD(&a, .name = "dir/file", .type = '0', .text = "contents", .mode = "0006755", .uid = "0001750", .mtime = "14000000000");
	ADD(&a, .name = "dir/contiguous", .type = '7', .text = "seven");
	ADD(&a, .name = "hard", .type = '1', .link = "dir/file");
	ADD(&a, .name = "soft", .type = '2', .link = "dir/file", .mode = "0000777");
	ADD(&a, .name = "char", .type = '3', .major = 4095, .minor = 1048575);
	ADD(&a, .name = "block", .type = '4', .major = 8, .minor = 1);
	ADD(&a, .name = "fifo", .type = '6');
	archive_end(&a);
	struct tree *tree = archive_tree(&a);
	cr_assert_eq(tree->entry_count, 9);
	cr_assert_eq(tree->inode_count, 8);
	cr_assert_eq(tree_at(tree, "dir")->mode, S_IFDIR | 01777);
	cr_assert_eq(tree_at(tree, "dir/file")->mode, S_IFREG | 06755);
	cr_assert_eq(tree_at(tree, "dir/file")->uid, 1000);
	cr_assert_eq(tree_at(tree, "dir/file")->mtime_s, 014000000000);
	cr_assert_eq(tree_at(tree, "dir/file"), tree_at(tree, "hard"));
	cr_assert_eq(tree_at(tree, "hard")->nlink, 2);
	cr_assert_eq(tree_at(tree, "soft")->mode, S_IFLNK | 0777);
	cr_assert_eq(tree_at(tree, "char")->mode, S_IFCHR | 0644);
	cr_assert_eq(tree_at(tree, "char")->rdev, UINT32_MAX);
	cr_assert_eq(tree_at(tree, "block")->rdev, 8 << 20 | 1);
	cr_assert_eq(tree_at(tree, "fifo")->mode, S_IFIFO | 0644);
	assert_text(tree, "dir/file", "contents");
	assert_text(tree, "dir/contiguous", "seven");
	tree_destroy(tree);
}

Test(tar, v7_directory_by_its_slash)
{
	struct archive a = { 0 };
	ADD(&a, .name = "d/", .type = '\0', .magic = V7_MAGIC, .mode = "0000700");
	ADD(&a, .name = "d/f", .type = '\0', .magic = V7_MAGIC, .text = "old");
	struct tree *tree = archive_tree(&a);
	cr_assert_eq(tree_at(tree, "d")->mode, S_IFDIR | 0700);
	assert_text(tree, "d/f", "old");
	tree_destroy(tree);
}

Test(tar, ustar_prefix)
{
	struct archive a = { 0 };
	ADD(&a, .name = "f", .prefix = "some/where", .type = '0', .text = "1");
	ADD(&a, .name = "g", .prefix = "not/mine", .type = '0', .text = "2", .magic = GNU_MAGIC);
	struct tree *tree = archive_tree(&a);
	assert_text(tree, "some/where/f", "1");
	assert_text(tree, "g", "2");
	tree_destroy(tree);
}

Test(tar, name_of_100_bytes_without_a_nul)
{
	struct archive a = { 0 };
	char name[101];
	memset(name, 'n', 100);
	name[100] = '\0';
	ADD(&a, .name = name, .type = '0', .text = "x");
	struct tree *tree = archive_tree(&a);
	assert_text(tree, name, "x");
	tree_destroy(tree);
}

Test(tar, data_of_links_and_directories_is_none_whatever_the_size_says)
{
	struct archive a = { 0 };
	ADD(&a, .name = "f", .type = '0', .text = "x");
	ADD(&a, .name = "h", .type = '1', .link = "f", .size = "00000001000");
	ADD(&a, .name = "d/", .type = '5', .size = "00000001000");
	ADD(&a, .name = "s", .type = '2', .link = "f", .size = "00000001000");
	struct tree *tree = archive_tree(&a);
	cr_assert_eq(tree->entry_count, 5);
	cr_assert_eq(tree_at(tree, "d")->size_bytes, 0);
	tree_destroy(tree);
}

Test(tar, gnu_long_name_and_link)
{
	struct archive a = { 0 };
	char name[301], link[401];
	memset(name, 'n', 300);
	memset(link, 'l', 400);
	name[150] = '/';
	name[300] = link[400] = '\0';
	ADD(&a, .name = "././@LongLink", .type = 'K', .text = link, .text_bytes = 401, .magic = GNU_MAGIC);
	ADD(&a, .name = "././@LongLink", .type = 'L', .text = name, .text_bytes = 301, .magic = GNU_MAGIC);
	ADD(&a, .name = "cut", .link = "cut", .type = '2', .magic = GNU_MAGIC);
	ADD(&a, .name = "next", .type = '0', .text = "x", .magic = GNU_MAGIC);
	struct tree *tree = archive_tree(&a);
	const struct tree_inode *inode = tree_at(tree, name);
	cr_assert_eq(inode->size_bytes, 400);
	cr_assert_eq(memcmp(tree->strings + inode->target, link, 400), 0);
	assert_text(tree, "next", "x");
	tree_destroy(tree);
}

Test(tar, pax_records)
{
	struct archive a = { 0 };
	archive_pax(&a, 'x', "path", "real/name", "uid", "4294967294", "gid", "70000", "mtime", "1350244992.0239601089", "comment",
		    "x", "SCHILY.xattr.user.b", "two", "SCHILY.xattr.user.a", "one", "SCHILY.xattr.com.apple.x", "no place for it",
		    "LIBARCHIVE.xattr.user.%63", "dGhyZWU=", "SCHILY.xattr.user.a", "last", NULL);
	ADD(&a, .name = "short", .type = '0', .text = "x");
	archive_pax(&a, 'x', "linkpath", "elsewhere", "mtime", "-1.5", NULL);
	ADD(&a, .name = "s", .link = "short", .type = '2');
	ADD(&a, .name = "plain", .type = '0', .text = "y");
	struct tree *tree = archive_tree(&a);
	const struct tree_inode *f = tree_at(tree, "real/name");
	cr_assert_eq(f->uid, 4294967294);
	cr_assert_eq(f->gid, 70000);
	cr_assert_eq(f->mtime_s, 1350244992);
	cr_assert_eq(f->mtime_ns, 23960108);
	cr_assert_eq(f->xattr_count, 3);
	const struct tree_xattr *x = &tree->xattrs[f->first_xattr];
	const char *want[][2] = { { "user.a", "last" }, { "user.b", "two" }, { "user.c", "three" } };
	for (unsigned i = 0; i < 3; i++) {
		cr_assert_eq(x[i].name_bytes, strlen(want[i][0]));
		cr_assert_eq(memcmp(tree->strings + x[i].name, want[i][0], x[i].name_bytes), 0);
		cr_assert_eq(x[i].value_bytes, strlen(want[i][1]));
		cr_assert_eq(memcmp(tree->strings + x[i].value, want[i][1], x[i].value_bytes), 0);
	}
	const struct tree_inode *s = tree_at(tree, "s");
	cr_assert_eq(s->size_bytes, 9);
	cr_assert_eq(s->mtime_s, -2);
	cr_assert_eq(s->mtime_ns, 500000000);
	cr_assert_eq(tree_at(tree, "plain")->uid, 0);
	cr_assert_eq(tree_at(tree, "plain")->xattr_count, 0);
	tree_destroy(tree);
}

Test(tar, pax_size_decides_where_the_next_header_is)
{
	struct archive a = { 0 };
	archive_pax(&a, 'x', "size", "600", NULL);
	char text[600];
	memset(text, 't', sizeof(text));
	ADD(&a, .name = "f", .type = '0', .text = text, .text_bytes = sizeof(text), .size = "00000000000");
	ADD(&a, .name = "g", .type = '0', .text = "next");
	struct tree *tree = archive_tree(&a);
	cr_assert_eq(tree_at(tree, "f")->size_bytes, 600);
	assert_text(tree, "g", "next");
	tree_destroy(tree);
}

Test(tar, pax_value_with_any_byte)
{
	struct archive a = { 0 }, text = { 0 };
	static const char value[] = "\0\n=\xff 12 a=b\n";
	pax_record(&text, "SCHILY.xattr.security.capability", value, sizeof(value));
	ADD(&a, .name = "x", .type = 'x', .text = (const char *)text.bytes, .text_bytes = text.length);
	free(text.bytes);
	ADD(&a, .name = "f", .type = '0', .text = "x");
	struct tree *tree = archive_tree(&a);
	const struct tree_inode *f = tree_at(tree, "f");
	cr_assert_eq(f->xattr_count, 1);
	cr_assert_eq(tree->xattrs[0].value_bytes, sizeof(value));
	cr_assert_eq(memcmp(tree->strings + tree->xattrs[0].value, value, sizeof(value)), 0);
	tree_destroy(tree);
}

Test(tar, pax_global_header)
{
	struct archive a = { 0 };
	archive_pax(&a, 'g', "comment", "0123", "uid", "7", "mtime", "5.25", NULL);
	ADD(&a, .name = "f", .type = '0', .text = "x");
	archive_pax(&a, 'x', "uid", "8", NULL);
	ADD(&a, .name = "g", .type = '0', .text = "x");
	struct tree *tree = archive_tree(&a);
	cr_assert_eq(tree_at(tree, "f")->uid, 7);
	cr_assert_eq(tree_at(tree, "f")->mtime_s, 5);
	cr_assert_eq(tree_at(tree, "f")->mtime_ns, 250000000);
	cr_assert_eq(tree_at(tree, "g")->uid, 8);
	cr_assert_eq(tree_at(tree, "g")->mtime_s, 5);
	tree_destroy(tree);
}

Test(tar, pax_second_header_replaces_the_first)
{
	struct archive a = { 0 };
	archive_pax(&a, 'x', "path", "first", "uid", "5", NULL);
	archive_pax(&a, 'x', "path", "second", NULL);
	ADD(&a, .name = "f", .type = '0', .text = "x");
	struct tree *tree = archive_tree(&a);
	cr_assert_eq(tree_at(tree, "second")->uid, 0);
	tree_destroy(tree);
}

Test(tar, end_marker_may_be_missing)
{
	struct archive a = { 0 };
	ADD(&a, .name = "f", .type = '0', .text = "x");
	struct tree *tree = archive_tree(&a);
	assert_text(tree, "f", "x");
	tree_destroy(tree);
}

Test(tar, one_block_of_zeroes_at_the_end_is_enough)
{
	struct archive a = { 0 };
	ADD(&a, .name = "f", .type = '0', .text = "x");
	archive_append(&a, (const char[512]){ 0 }, 512);
	struct tree *tree = archive_tree(&a);
	cr_assert_eq(tree->entry_count, 2);
	tree_destroy(tree);
}

Test(tar, what_follows_the_end_marker_is_ignored)
{
	struct archive a = { 0 };
	ADD(&a, .name = "f", .type = '0', .text = "x");
	archive_end(&a);
	archive_append(&a, "garbage", 7);
	struct tree *tree = archive_tree(&a);
	cr_assert_eq(tree->entry_count, 2);
	tree_destroy(tree);
}

Test(tar, empty_archive)
{
	struct archive a = { 0 };
	archive_end(&a);
	struct tree *tree = archive_tree(&a);
	cr_assert_eq(tree->entry_count, 1);
	cr_assert_eq(tree->entries[0].next_sibling, TREE_NONE);
	cr_assert_eq(tree->inodes[0].nlink, 2);
	tree_destroy(tree);
}

Test(tar, refuses_garbage)
{
	struct archive a = { 0 };
	char garbage[2048];
	memset(garbage, 'g', sizeof(garbage));
	archive_append(&a, garbage, sizeof(garbage));
	archive_refused(&a, -EINVAL, "is no tar archive");
	archive_append(&a, "short", 5);
	archive_refused(&a, -EINVAL, "is no tar archive");
}

Test(tar, refuses_a_bad_checksum)
{
	struct archive a = { 0 };
	ADD(&a, .name = "f", .type = '0', .text = "x");
	ADD(&a, .name = "g", .type = '0', .text = "x");
	a.bytes[1024]++;
	archive_refused(&a, -EINVAL, "entry 2: bad header checksum at byte 1024");
}

Test(tar, refuses_truncated_contents)
{
	struct archive a = { 0 };
	ADD(&a, .name = "f", .type = '0', .text = "x");
	ADD(&a, .name = "usr/lib/x", .type = '0', .text = "y", .size = "00000100000");
	archive_refused(&a, -ENODATA, "entry 2 'usr/lib/x': truncated at byte 2048");
}

Test(tar, refuses_truncated_padding)
{
	struct archive a = { 0 };
	ADD(&a, .name = "f", .type = '0', .text = "x");
	a.length -= 1;
	archive_refused(&a, -ENODATA, "entry 1 'f': truncated at byte 1023");
}

Test(tar, refuses_a_truncated_header)
{
	struct archive a = { 0 };
	ADD(&a, .name = "f", .type = '0', .text = "x");
	archive_append(&a, "half a header", 13);
	archive_refused(&a, -ENODATA, "entry 2: truncated at byte 1037");
}

/* A directory, a long name, attributes, links, contents, a sparse file: 24 blocks or so. */
static struct archive small_archive(void)
{
	struct archive a = { 0 };
	char name[200];
	memset(name, 'n', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	ADD(&a, .name = "d/", .type = '5', .mtime = "00000001234");
	archive_pax(&a, 'x', "path", name, "mtime", "-1.5", "SCHILY.xattr.user.x", "value", NULL);
	ADD(&a, .name = "short", .type = '0', .text = "contents");
	ADD(&a, .name = "././@LongLink", .type = 'L', .text = name + 1, .magic = GNU_MAGIC);
	ADD(&a, .name = "s", .type = '2', .link = "d", .magic = GNU_MAGIC);
	ADD(&a, .name = "f", .type = '0', .text = "x");
	ADD(&a, .name = "d/h", .type = '1', .link = "f");
	archive_pax(&a, 'x', "GNU.sparse.size", "9000", "GNU.sparse.map", "0,2,8998,2", NULL);
	ADD(&a, .name = "sparse", .type = '0', .text = "abcd");
	archive_end(&a);
	return a;
}

/* One line when it is refused, a tree when not. Returns the number of its entries, 0: refused. */
static uint32_t entries_of(const uint8_t *bytes, size_t length)
{
	char path[64];
	struct error err = { "" };
	struct tree_builder *builder = tree_builder_create();
	const int ret = length ? layers_apply_file(builder, bytes_path(bytes, length, path), NULL, &err) : -EINVAL;
	if (length)
		close(atoi(strrchr(path, '/') + 1));
	if (ret) {
		cr_assert(!length || (err.text[0] && !strchr(err.text, '\n')), "%s", err.text);
		tree_builder_destroy(builder);
		return 0;
	}
	struct tree *tree = builder_tree(builder);
	const uint32_t count = tree->entry_count;
	tree_destroy(tree);
	return count;
}

Test(tar, every_truncation_is_refused_or_ends_between_entries)
{
	struct archive a = small_archive();
	const uint32_t all = entries_of(a.bytes, a.length);
	uint32_t before = 0;
	cr_assert_eq(all, 7);
	for (size_t length = 1; length < a.length; length++) {
		const uint32_t count = entries_of(a.bytes, length);
		const bool in_end_marker = length > a.length - 512; /* one block of it is enough */
		cr_assert(!count || length % 512 == 0 || in_end_marker, "%zu bytes are taken for a whole archive", length);
		cr_assert(!count || (count >= before && count <= all), "%zu bytes: %u entries", length, count);
		before = count ? count : before;
	}
	cr_assert_eq(before, all);
	free(a.bytes);
}

/* A flipped bit of a header makes its sum wrong; in the sum itself, a digit may become none, which ends the number as it does there. */
Test(tar, every_flipped_bit_of_a_header_is_noticed)
{
	struct archive a = small_archive();
	for (size_t at = 0; at < 512; at++) {
		for (unsigned bit = 0; bit < 8; bit++) {
			a.bytes[at] ^= (uint8_t)(1u << bit);
			const uint32_t count = entries_of(a.bytes, a.length);
			cr_assert(!count || (count == 7 && at >= 148 && at < 156), "byte %zu, bit %u", at, bit);
			a.bytes[at] ^= (uint8_t)(1u << bit);
		}
	}
	free(a.bytes);
}

Test(tar, refuses_a_truncated_extended_header)
{
	struct archive a = { 0 };
	archive_pax(&a, 'x', "path", "f", NULL);
	a.length = 700;
	archive_refused(&a, -ENODATA, "truncated at byte 700");
}

Test(tar, refuses_an_extended_header_without_an_entry)
{
	struct archive a = { 0 };
	archive_pax(&a, 'x', "path", "f", NULL);
	archive_refused(&a, -ENODATA, "truncated at byte 1024");
	archive_pax(&a, 'x', "path", "f", NULL);
	archive_end(&a);
	archive_refused(&a, -EINVAL, "ends between an extended header and its entry");
}

Test(tar, refuses_an_extended_header_of_more_than_8_mib)
{
	struct archive a = { 0 };
	const size_t length = (8 << 20) + 1;
	char *text = calloc(1, length);
	ADD(&a, .name = "x", .type = 'x', .text = text, .text_bytes = length);
	free(text);
	archive_refused(&a, -EINVAL, "an extended header of 8388609 bytes; 8 MiB are allowed");
}

Test(tar, refuses_a_lone_block_of_zeroes)
{
	struct archive a = { 0 };
	ADD(&a, .name = "f", .type = '0', .text = "x");
	archive_append(&a, (const char[512]){ 0 }, 512);
	ADD(&a, .name = "g", .type = '0', .text = "x");
	archive_refused(&a, -EINVAL, "a single block of zeroes at byte 1024");
}

Test(tar, refuses_sizes_that_are_no_sizes)
{
	struct archive a = { 0 };
	ADD(&a, .name = "f", .type = '0', .size = "0000000009x");
	archive_refused(&a, -EINVAL, "entry 1 'f': malformed size");
	ADD(&a, .name = "f", .type = '0', .size = "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff");
	archive_refused(&a, -EINVAL, "entry 1 'f': malformed size");
}

Test(tar, refuses_sizes_near_the_end_of_64_bits)
{
	struct archive a = { 0 };
	struct item item = { .name = "f", .type = '0' };
	struct tar_header header = header_make(&item, 0);
	memcpy(header.size, "\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", 12);
	header_checksum(&header);
	archive_append(&a, &header, sizeof(header));
	archive_refused(&a, -ENODATA, "entry 1 'f': truncated at byte 512");
	archive_pax(&a, 'x', "size", "9223372036854775807", NULL);
	ADD(&a, .name = "f", .type = '0');
	archive_refused(&a, -ENODATA, "entry 1 'f': truncated at byte 1536");
	archive_pax(&a, 'x', "size", "9223372036854775808", NULL);
	archive_refused(&a, -EINVAL, "PAX record 'size' is no number that fits");
}

Test(tar, refuses_malformed_attributes)
{
	struct archive a = { 0 };
	ADD(&a, .name = "f", .type = '0', .mode = "rwxr-x");
	archive_refused(&a, -EINVAL, "malformed mode");
	ADD(&a, .name = "f", .type = '0', .uid = "root");
	archive_refused(&a, -EINVAL, "malformed owner");
	ADD(&a, .name = "f", .type = '0', .uid = "\xff\xff\xff\xff\xff\xff\xff\xff");
	archive_refused(&a, -EINVAL, "malformed owner");
	archive_pax(&a, 'x', "gid", "4294967296", NULL);
	ADD(&a, .name = "f", .type = '0');
	archive_refused(&a, -EINVAL, "malformed group");
	ADD(&a, .name = "f", .type = '0', .mtime = "yesterday");
	archive_refused(&a, -EINVAL, "malformed time");
	ADD(&a, .name = "f", .type = '3', .major = 4096);
	archive_refused(&a, -EINVAL, "malformed device number");
}

Test(tar, refuses_types_that_have_no_place)
{
	struct archive a = { 0 };
	ADD(&a, .name = "f", .type = 'M');
	archive_refused(&a, -ENOTSUP, "entry 1 'f': is of type 'M', which has no place in a layer");
	ADD(&a, .name = "f", .type = '\x01');
	archive_refused(&a, -ENOTSUP, "is of type '\\x01'");
}

Test(tar, refuses_malformed_pax_records)
{
	static const char *const bad[] = {
		"no number", "5", "99 path=f\n", "10 path=f", "10 path=fx", "3 =\n", "6 =ab\n", "9 path f\n", "0 a=b\n", "-5 a=b\n",
		"99999999999999999999 a=b\n",
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct archive a = { 0 };
		ADD(&a, .name = "x", .type = 'x', .text = bad[i]);
		ADD(&a, .name = "f", .type = '0');
		archive_refused(&a, -EINVAL, "PAX record");
	}
}

Test(tar, refuses_pax_values_of_the_wrong_kind)
{
	static const char *const bad[][3] = {
		{ "uid", "root", "PAX record 'uid' is no number that fits" },
		{ "uid", "-1", "PAX record 'uid' is no number that fits" },
		{ "size", "1e3", "PAX record 'size' is no number that fits" },
		{ "mtime", "now", "PAX record 'mtime' is no time" },
		{ "mtime", "1.2.3", "PAX record 'mtime' is no time" },
		{ "mtime", "9999999999999999999", "PAX record 'mtime' is no time" },
		{ "LIBARCHIVE.xattr.user.x", "not base64!", "PAX record 'LIBARCHIVE.xattr.user.x' is not base64" },
		{ "LIBARCHIVE.xattr.user.%00", "", "contains a NUL" },
		{ "GNU.sparse.numbytes", "5", "PAX record 'GNU.sparse.numbytes' stands out of order" },
		{ "GNU.sparse.offset", "5", "an offset without a length" },
		{ "GNU.sparse.map", "1,2,3", "has an offset without a length" },
		{ "GNU.sparse.map", "a,b", "is no list of offsets and lengths" },
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct archive a = { 0 };
		archive_pax(&a, 'x', bad[i][0], bad[i][1], NULL);
		ADD(&a, .name = "f", .type = '0');
		archive_refused(&a, -EINVAL, bad[i][2]);
	}
}

Test(tar, refuses_a_nul_in_pax_text)
{
	struct archive a = { 0 }, text = { 0 };
	pax_record(&text, "path", "a\0b", 3);
	ADD(&a, .name = "x", .type = 'x', .text = (const char *)text.bytes, .text_bytes = text.length);
	free(text.bytes);
	ADD(&a, .name = "f", .type = '0');
	archive_refused(&a, -EINVAL, "PAX record 'path' contains a NUL");
}

Test(tar, refuses_global_records_that_fit_one_file_only)
{
	static const char *const keys[] = { "path", "linkpath", "size", "GNU.sparse.major" };
	for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
		struct archive a = { 0 };
		archive_pax(&a, 'g', keys[i], "1", NULL);
		ADD(&a, .name = "f", .type = '0');
		archive_refused(&a, -EINVAL, "stands in a global header, but fits one file only");
	}
}

Test(tar, refuses_too_many_or_too_large_xattrs)
{
	struct archive a = { 0 }, text = { 0 };
	char key[64], *value = calloc(1, 65537), long_key[300] = "SCHILY.xattr.user.";
	for (unsigned i = 0; i < 1025; i++) {
		snprintf(key, sizeof(key), "SCHILY.xattr.user.%u", i);
		pax_record(&text, key, "", 0);
	}
	ADD(&a, .name = "x", .type = 'x', .text = (const char *)text.bytes, .text_bytes = text.length);
	archive_refused(&a, -EINVAL, "is one extended attribute too many (1024 are allowed)");
	text.length = 0;
	pax_record(&text, "SCHILY.xattr.user.x", value, 65537);
	ADD(&a, .name = "x", .type = 'x', .text = (const char *)text.bytes, .text_bytes = text.length);
	archive_refused(&a, -EINVAL, "has a value of more than 65536 bytes");
	memset(long_key + strlen(long_key), 'n', 251);
	archive_pax(&a, 'x', long_key, "v", NULL);
	archive_refused(&a, -EINVAL, "has a name of more than 255 bytes");
	free(text.bytes);
	free(value);
}

Test(tar, refuses_a_path_beyond_65535_bytes)
{
	struct archive a = { 0 };
	char *path = malloc(65537);
	memset(path, 'p', 65536);
	path[65536] = '\0';
	archive_pax(&a, 'x', "path", path, NULL);
	ADD(&a, .name = "f", .type = '0');
	archive_refused(&a, -EINVAL, "a path of more than 65535 bytes");
	free(path);
}

/* A file of 2000 bytes: "abc" at 100, "defg" at 1000, nothing else. */
static void assert_sparse(struct archive *a)
{
	ADD(a, .name = "next", .type = '0', .text = "next");
	struct tree *tree = archive_tree(a);
	const struct tree_inode *f = tree_at(tree, "sparse");
	cr_assert_eq(f->size_bytes, 2000);
	cr_assert_eq(f->extent_count, 2);
	const struct tree_extent *x = &tree->extents[f->first_extent];
	cr_assert(x[0].file_offset == 100 && x[0].length == 3 && x[1].file_offset == 1000 && x[1].length == 4);
	char *data;
	size_t length;
	cr_assert_eq(tree_read_file(tree, (uint32_t)(f - tree->inodes), 4096, &data, &length), 0);
	char want[2000] = { 0 };
	memcpy(want + 100, "abc", 3);
	memcpy(want + 1000, "defg", 4);
	cr_assert(length == 2000 && memcmp(data, want, 2000) == 0);
	free(data);
	assert_text(tree, "next", "next");
	tree_destroy(tree);
}

static void add_gnu_sparse(struct archive *a, const char *map, const char *real_size, bool extended, const char *data)
{
	struct item item = { .name = "sparse", .type = 'S', .magic = GNU_MAGIC };
	struct tar_header header = header_make(&item, strlen(data));
	char *raw = (char *)&header;
	for (size_t i = 0; map[i]; i += 12)
		header_field(raw + 386 + i, 12, map + i);
	raw[482] = extended;
	header_field(raw + 483, 12, real_size);
	header_checksum(&header);
	archive_append(a, &header, sizeof(header));
}

Test(tar_sparse, gnu_header_map)
{
	struct archive a = { 0 };
	/* 100, 3; 1000, 4; the end: 2000, 0 */
	add_gnu_sparse(&a, "000000000144000000000003000000001750000000000004000000003720000000000000", "00000003720", false,
		       "abcdefg");
	archive_append(&a, "abcdefg", 7);
	archive_pad(&a);
	assert_sparse(&a);
}

Test(tar_sparse, gnu_map_in_blocks_behind_the_header)
{
	struct archive a = { 0 };
	char block[512] = "000000001750000000000004";
	/* Empty ranges fill the header's map. */
	add_gnu_sparse(&a, "000000000144000000000003000000000147000000000000000000000147000000000000000000000147000000000000",
		       "00000003720", true, "abcdefg");
	block[504] = 1;
	archive_append(&a, block, sizeof(block));
	memset(block, 0, sizeof(block));
	memcpy(block, "000000003720000000000000", 24);
	archive_append(&a, block, sizeof(block));
	archive_append(&a, "abcdefg", 7);
	archive_pad(&a);
	assert_sparse(&a);
}

Test(tar_sparse, pax_0_0)
{
	struct archive a = { 0 };
	archive_pax(&a, 'x', "GNU.sparse.size", "2000", "GNU.sparse.numblocks", "2", "GNU.sparse.offset", "100",
		    "GNU.sparse.numbytes", "3", "GNU.sparse.offset", "1000", "GNU.sparse.numbytes", "4", NULL);
	ADD(&a, .name = "sparse", .type = '0', .text = "abcdefg");
	assert_sparse(&a);
}

Test(tar_sparse, pax_0_1)
{
	struct archive a = { 0 };
	archive_pax(&a, 'x', "GNU.sparse.size", "2000", "GNU.sparse.numblocks", "2", "GNU.sparse.name", "sparse", "GNU.sparse.map",
		    "100,3,1000,4", NULL);
	ADD(&a, .name = "GNUSparseFile.1/sparse", .type = '0', .text = "abcdefg");
	assert_sparse(&a);
}

Test(tar_sparse, pax_1_0)
{
	struct archive a = { 0 };
	char data[519] = "2\n100\n3\n1000\n4\n";
	memcpy(data + 512, "abcdefg", 7);
	archive_pax(&a, 'x', "GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.name", "sparse", "GNU.sparse.realsize",
		    "2000", NULL);
	ADD(&a, .name = "GNUSparseFile.1/sparse", .type = '0', .text = data, .text_bytes = sizeof(data));
	assert_sparse(&a);
}

Test(tar_sparse, all_hole)
{
	struct archive a = { 0 };
	archive_pax(&a, 'x', "GNU.sparse.size", "1099511627776", "GNU.sparse.numblocks", "0", NULL);
	ADD(&a, .name = "sparse", .type = '0');
	struct tree *tree = archive_tree(&a);
	cr_assert_eq(tree_at(tree, "sparse")->size_bytes, 1099511627776);
	cr_assert_eq(tree_at(tree, "sparse")->extent_count, 0);
	tree_destroy(tree);
}

Test(tar_sparse, adjacent_ranges_are_one_extent)
{
	struct archive a = { 0 };
	archive_pax(&a, 'x', "GNU.sparse.size", "10", "GNU.sparse.map", "0,3,3,4,7,0", NULL);
	ADD(&a, .name = "sparse", .type = '0', .text = "abcdefg");
	struct tree *tree = archive_tree(&a);
	cr_assert_eq(tree_at(tree, "sparse")->extent_count, 1);
	tree_destroy(tree);
}

Test(tar_sparse, refuses_bad_maps)
{
	static const char *const bad[][2] = {
		{ "100,3,102,4", "overlaps itself or goes beyond the file's end" },
		{ "1000,4,100,3", "overlaps itself or goes beyond the file's end" },
		{ "100,3,1997,4", "overlaps itself or goes beyond the file's end" },
		{ "100,3,3000,4", "overlaps itself or goes beyond the file's end" },
		{ "100,3,9223372036854775807,4", "overlaps itself or goes beyond the file's end" },
		{ "100,3,1000,5", "tells of more data than the archive holds" },
		{ "100,3,1000,3", "tells of less data than the archive holds" },
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct archive a = { 0 };
		archive_pax(&a, 'x', "GNU.sparse.size", "2000", "GNU.sparse.map", bad[i][0], NULL);
		ADD(&a, .name = "sparse", .type = '0', .text = "abcdefg");
		archive_refused(&a, -EINVAL, bad[i][1]);
	}
}

Test(tar_sparse, refuses_unknown_versions_and_missing_sizes)
{
	struct archive a = { 0 };
	archive_pax(&a, 'x', "GNU.sparse.major", "2", "GNU.sparse.minor", "0", "GNU.sparse.realsize", "5", NULL);
	ADD(&a, .name = "sparse", .type = '0', .text = "abcdefg");
	archive_refused(&a, -EINVAL, "sparse format 2.0 is not known");
	archive_pax(&a, 'x', "GNU.sparse.major", "1", "GNU.sparse.minor", "0", NULL);
	ADD(&a, .name = "sparse", .type = '0', .text = "abcdefg");
	archive_refused(&a, -EINVAL, "without GNU.sparse.size");
}

Test(tar_sparse, refuses_malformed_1_0_maps)
{
	static const char *const bad[][2] = {
		{ "x\n", "malformed sparse map" },
		{ "\n", "malformed sparse map" },
		{ "1\n100\n12345678901234567890123\n", "malformed sparse map" },
		{ "99\n", "malformed sparse map" }, /* the padding is no number */
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct archive a = { 0 };
		char data[512] = { 0 };
		strcpy(data, bad[i][0]);
		archive_pax(&a, 'x', "GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.realsize", "2000", NULL);
		ADD(&a, .name = "sparse", .type = '0', .text = data, .text_bytes = sizeof(data));
		archive_refused(&a, -EINVAL, bad[i][1]);
	}
	struct archive a = { 0 };
	archive_pax(&a, 'x', "GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.realsize", "2000", NULL);
	ADD(&a, .name = "sparse", .type = '0', .text = "5\n");
	archive_refused(&a, -EINVAL, "the sparse map is longer than the data");
}

Test(tar_sparse, refuses_truncated_gnu_blocks)
{
	struct archive a = { 0 };
	add_gnu_sparse(&a, "000000000144000000000003", "00000003720", true, "abc");
	archive_refused(&a, -ENODATA, "entry 1 'sparse': truncated at byte 512");
}
