/*
 * The difference of two trees as a layer: what comes out of applying it must be the changed tree, whatever it was. Trees are made of
 * layers in the language of layer_line.h.
 */
#include "layer_line.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "layers/diff.h"
#include "tests/unit/hand_tree.h"
#include "tests/unit/tree_compare.h"

static struct tree *tree_of(const char *line)
{
	struct archive a = archive_of(line);
	return archive_tree(&a);
}

static struct diff_side side_of(struct tree *tree)
{
	return (struct diff_side){ tree, tree_side_read, tree };
}

/* Makes the layer in a memory file, checks its digest, and returns the file. */
static int make_layer(struct tree *base, struct tree *changed, const struct diff_options *options, struct diff_result *result)
{
	struct error err = { "" };
	const struct diff_side a = side_of(base), b = side_of(changed);
	const int fd = memfd_create("layer", MFD_CLOEXEC);
	cr_assert(fd >= 0);
	cr_assert_eq(diff_write(&a, &b, options, fd, result, &err), 0, "%s", err.text);
	return fd;
}

/* The names in a layer: "d/ d/.wh.x d/f h=>d/f". The caller frees them. */
static char *names_of(int fd)
{
	struct error err = { "" };
	struct tar_reader reader;
	struct tar_entry entry;
	char *line = NULL;
	size_t length;
	FILE *out = open_memstream(&line, &length);
	int more;
	tar_open(&reader, fd, NULL, (uint64_t)lseek(fd, 0, SEEK_END));
	while ((more = tar_next(&reader, &entry, &err)) == 1) {
		fprintf(out, "%s%.*s", entry.number > 1 ? " " : "", (int)entry.path.length, entry.path.bytes);
		if (entry.hard_link)
			fprintf(out, "=>%.*s", (int)entry.link.length, entry.link.bytes);
	}
	cr_assert_eq(more, 0, "%s", err.text);
	tar_close(&reader);
	fclose(out);
	return line;
}

/* Applies a layer in `fd` on top of the layer in `base_fd`. */
static struct tree *applied(int base_fd, int fd)
{
	struct error err = { "" };
	char path[64];
	struct tree_builder *builder = tree_builder_create();
	const int fds[] = { base_fd, fd };
	for (size_t i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fds[i]);
		cr_assert_eq(layers_apply_file(builder, path, NULL, &err), 0, "%s", err.text);
	}
	return builder_tree(builder);
}

/* A layer that makes `tree` of nothing. */
static int whole_layer(struct tree *tree)
{
	struct tree *nothing = tree_of("");
	struct diff_result result;
	const int fd = make_layer(nothing, tree, NULL, &result);
	tree_destroy(nothing);
	return fd;
}

static void check_diff(const char *base_line, const char *changed_line, const char *want)
{
	char why[5000];
	struct diff_result result;
	struct tree *base = tree_of(base_line), *changed = tree_of(changed_line);
	const int fd = make_layer(base, changed, NULL, &result), base_fd = whole_layer(base);
	char *names = names_of(fd);
	cr_assert_str_eq(names, want, "'%s', not '%s'", names, want);
	cr_assert_eq(result.complaints.count, 0, "%s", result.complaints.first.text);
	struct tree *again = applied(base_fd, fd);
	const struct tree_side left = { changed, tree_side_read, changed, 1 }, right = { again, tree_side_read, again, 1 };
	cr_assert(trees_are_same(&left, &right, NULL, why, sizeof(why)), "%s", why);
	free(names);
	close(fd);
	close(base_fd);
	tree_destroy(base);
	tree_destroy(changed);
	tree_destroy(again);
}

Test(diff, nothing_changed)
{
	check_diff("a=1 d/ d/b=2 h=>a s->a p|", "a=1 d/ d/b=2 h=>a s->a p|", "");
}

Test(diff, added)
{
	check_diff("a=1", "a=1 b=2 d/ d/e/ d/e/f=3 s->x p|", "b d/ d/e/ d/e/f p s");
}

Test(diff, removed)
{
	check_diff("a=1 d/ d/e/ d/e/f=3 g=1", "d/ d/e/ g=1", ".wh.a d/ d/e/ d/e/.wh.f");
	check_diff("a=1 d/ d/e/ d/e/f=3", "a=1", ".wh.d");
}

Test(diff, contents)
{
	check_diff("a=1 b=2", "a=1 b=3", "b");
	check_diff("a=1 b=2", "a=1 b=22", "b");
	check_diff("s->x", "s->y", "s");
}

Test(diff, attributes)
{
	check_diff("a=1 b=1", "a=1@600 b=1", "a");
	check_diff("a=1 b=1", "a=1 b=1%7", "b");
	check_diff("d/ d/a=1", "d/@700 d/a=1", "d/");
	check_diff("d/ d/a=1", "d/%9 d/a=1", "d/");
	check_diff("d/", "./@1777 d/", "./");
}

Test(diff, types)
{
	check_diff("a=1", "a/ a/b=1", "a/ a/b");
	check_diff("a/ a/b=1", "a=1", "a");
	check_diff("a/ a/b=1", "a->b", "a");
	check_diff("a->d d/ d/x=1", "a/ a/y=1 d/ d/x=1", "a/ a/y");
	check_diff("a|", "a=", "a");
}

/* One name of a file in the layer, all of them. */
Test(diff, hard_links)
{
	check_diff("a=1 b=>a", "a=1 b=>a", "");
	check_diff("a=1", "a=1 b=>a", "a b=>a");
	check_diff("a=1 b=>a", "a=1", ".wh.b");
	check_diff("a=1 b=1", "a=1 b=>a", "a b=>a");
	check_diff("a=1 b=>a", "a=1 b=1", "b");
	check_diff("a=1 b=>a c=>a", "a=2 b=>a c=1", "a b=>a");
	check_diff("a=1 b=>a c=2 d=>c", "a=1 c=>a b=2 d=>b", "a b c=>a d=>b");
	check_diff("d/ d/a=1 e/ e/b=>d/a", "d/ d/a=1@600 e/ e/b=>d/a", "d/ d/a e/ e/b=>d/a");
	check_diff("a->x b=>a", "a->x c=>a", "a .wh.b c=>a");
}

/* ---- what tar and layers cannot say ------------------------------------------------------------------------------------------ */

static void check_left_out(struct hand *changed, const char *base_line, const char *want, const char *words, uint64_t count)
{
	struct diff_result result;
	struct tree *base = tree_of(base_line);
	hand_sort(changed);
	changed->tree.inodes[0].mtime_s = changed->tree.inodes[0].mtime_ns = 0;
	const int fd = make_layer(base, &changed->tree, NULL, &result);
	char *names = names_of(fd);
	cr_assert_str_eq(names, want, "'%s', not '%s'", names, want);
	cr_assert_eq(result.complaints.count, count);
	cr_assert(strstr(result.complaints.first.text, words), "%s", result.complaints.first.text);
	free(names);
	close(fd);
	tree_destroy(base);
	hand_destroy(changed);
}

Test(diff, sockets_are_left_out)
{
	struct hand *h = hand_create();
	hand_node(h, 0, "new", S_IFSOCK | 0600, 0);
	hand_node(h, 0, "was-a-file", S_IFSOCK | 0600, 0);
	check_left_out(h, "was-a-file=1", ".wh.was-a-file", "'new' is left out: a socket", 2);
}

Test(diff, names_that_would_be_marks_are_left_out)
{
	struct hand *h = hand_create();
	hand_file(h, hand_dir(h, 0, ".wh.dir"), "f", 1);
	hand_file(h, 0, ".wh..wh..opq", 1);
	hand_file(h, 0, "f", 1);
	check_left_out(h, "g=1", "f .wh.g", "'.wh..wh..opq' is left out", 2);
}

Test(diff, long_paths_are_left_out)
{
	struct hand *h = hand_create();
	char name[256] = "";
	memset(name, 'n', 255);
	uint32_t d = 0;
	for (int i = 0; i < 16; i++)
		d = hand_dir(h, d, name);
	hand_file(h, d, "f", 1);
	struct tree *base = tree_of("");
	struct diff_result result;
	const int fd = make_layer(base, &h->tree, NULL, &result);
	char *names = names_of(fd);
	cr_assert_eq(result.complaints.count, 1);
	cr_assert(strstr(result.complaints.first.text, "more than 4095 bytes"), "%s", result.complaints.first.text);
	cr_assert_eq(result.entries, 17); /* the root's time, 15 and the last that fits: 16 * 255 + 15 = 4095 */
	free(names);
	close(fd);
	tree_destroy(base);
	hand_destroy(h);
}

Test(diff, ignored_names)
{
	static const char *const ignored[] = { "lost+found", ".trvmm", NULL };
	const struct diff_options options = { .ignored = ignored };
	struct diff_result result;
	struct tree *base = tree_of("lost+found/ .trvmm/ .trvmm/x=1 .trvmm2=1 d/ d/lost+found/");
	struct tree *changed = tree_of("lost+found/%5 lost+found/#1=1 d/");
	const int fd = make_layer(base, changed, &options, &result);
	char *names = names_of(fd);
	cr_assert_str_eq(names, ".wh..trvmm2 d/ d/.wh.lost+found", "%s", names);
	cr_assert(result.entries == 1 && result.whiteouts == 2);
	free(names);
	close(fd);
	tree_destroy(base);
	tree_destroy(changed);
}

/* ---- contents ---------------------------------------------------------------------------------------------------------------- */

static bool known(void *data, uint64_t offset, uint64_t length)
{
	const uint64_t written = *(const uint64_t *)data;
	return written < offset || written - offset >= length;
}

static int refuse(void *data, uint32_t source, uint64_t offset, void *buffer, size_t length)
{
	(void)data, (void)source, (void)offset, (void)buffer, (void)length;
	return -EIO;
}

/* Contents in the same place that nobody wrote to are not read at all. */
Test(diff, known_contents_are_not_read)
{
	struct hand *h = hand_create();
	const uint32_t f = hand_empty_file(h, 0, "f", 100000);
	hand_extent(h, f, 1000, SOURCE_PATTERN, 4096, 90000);
	uint64_t written = 4096 + 90000;
	const struct diff_options options = { .is_unchanged = known, .data = &written };
	const struct diff_side side = { &h->tree, refuse, NULL };
	struct diff_result result;
	struct error err = { "" };
	const int fd = memfd_create("layer", MFD_CLOEXEC);
	cr_assert_eq(diff_write(&side, &side, &options, fd, &result, &err), 0, "%s", err.text);
	cr_assert_eq(result.entries, 0);
	written--;
	cr_assert_eq(diff_write(&side, &side, &options, fd, &result, &err), -EIO);
	cr_assert(strstr(err.text, "'f': cannot compare the contents"), "%s", err.text);
	close(fd);
	hand_destroy(h);
}

/* A hole and zeroes are the same; what is not zeroes is not. */
Test(diff, holes)
{
	struct hand *a = hand_create(), *b = hand_create();
	hand_extent(a, hand_empty_file(a, 0, "f", 3 << 20), 1 << 20, SOURCE_SPARSE, 0, 4096);
	hand_empty_file(b, 0, "f", 3 << 20);
	struct diff_result result;
	int fd = make_layer(&a->tree, &b->tree, NULL, &result);
	cr_assert_eq(result.entries, 0);
	close(fd);
	hand_extent(b, hand_empty_file(b, 0, "g", 3 << 20), 1 << 20, SOURCE_PATTERN, 0, 4096);
	hand_empty_file(a, 0, "g", 3 << 20);
	fd = make_layer(&a->tree, &b->tree, NULL, &result);
	char *names = names_of(fd);
	cr_assert_str_eq(names, "g");
	free(names);
	close(fd);
	hand_destroy(a);
	hand_destroy(b);
}

/* ---- the writer -------------------------------------------------------------------------------------------------------------- */

/* Everything that a tree can hold goes through a tar and comes back: by our own reader, and by programs that are not ours. */
static struct hand *extreme_tree(void)
{
	struct hand *h = hand_rich();
	char name[300], value[300];
	memset(name, 'x', sizeof(name));
	const uint32_t d = hand_dir(h, hand_dir(h, 0, "deep"), "with a space");
	hand_link_bytes(h, d, name, 99, hand_inode(h, S_IFREG | 0644));
	hand_link_bytes(h, d, name, 100, hand_inode(h, S_IFREG | 0644));
	hand_link(h, d, "\xC3\xA4\xFF\n\\", hand_inode(h, S_IFREG | 0644));
	for (size_t i = 0; i < sizeof(value); i++)
		value[i] = (char)i;
	const uint32_t f = hand_file(h, d, "attributes", 10);
	hand_xattr(h, f, "security.capability", value, 20);
	hand_xattr(h, f, "user.=", value, 5);
	hand_xattr(h, f, "user.a=b%c", value, 256);
	hand_xattr(h, f, "user.empty", "", 0);
	hand_xattr(h, f, "user.z", value, 300);
	h->tree.inodes[f].mtime_s = -2;
	h->tree.inodes[f].mtime_ns = 500000000;
	const uint32_t g = hand_file(h, d, "before", 1);
	h->tree.inodes[g].mtime_s = -1;
	h->tree.inodes[g].mtime_ns = 1;
	const uint32_t large = hand_empty_file(h, d, "large", 20ull << 30);
	hand_extent(h, large, 10ull << 30, SOURCE_PATTERN, 512, 100352);
	hand_extent(h, large, 15ull << 30, SOURCE_PATTERN, 1000, 7);
	const uint32_t ends = hand_empty_file(h, d, "ends-in-data", 1 << 20);
	hand_extent(h, ends, (1 << 20) - 5, SOURCE_PATTERN, 0, 5);
	const uint32_t mostly = hand_empty_file(h, d, "mostly-data", 1 << 20);
	hand_extent(h, mostly, 5000, SOURCE_PATTERN, 0, 900000);
	hand_sort(h);
	return h;
}

Test(tar_writer, is_read_as_it_was_written)
{
	char why[5000];
	struct hand *h = extreme_tree();
	struct tree *nothing = tree_of("");
	struct diff_result result;
	const int fd = make_layer(nothing, &h->tree, NULL, &result), base_fd = whole_layer(nothing);
	cr_assert_eq(result.complaints.count, 1); /* the socket */
	struct tree *again = applied(base_fd, fd);
	const struct tree_side left = { &h->tree, tree_side_read, &h->tree, 1 }, right = { again, tree_side_read, again, 1 };
	cr_assert(trees_are_same(&left, &right, "/socket/", why, sizeof(why)), "%s", why);
	cr_assert(lseek(fd, 0, SEEK_END) < 20 << 20, "holes take room");
	tree_destroy(again);
	tree_destroy(nothing);
	hand_destroy(h);
	close(fd);
	close(base_fd);
}

Test(tar_writer, same_input_same_bytes_and_digest)
{
	struct hand *h = extreme_tree();
	struct tree *nothing = tree_of("");
	struct diff_result first, second;
	const int a = make_layer(nothing, &h->tree, NULL, &first), b = make_layer(nothing, &h->tree, NULL, &second);
	cr_assert_eq(memcmp(first.diff_id, second.diff_id, sizeof(first.diff_id)), 0);
	char command[200], hex[70] = "", out[100] = "";
	for (size_t i = 0; i < sizeof(first.diff_id); i++)
		snprintf(hex + 2 * i, 3, "%02x", first.diff_id[i]);
	snprintf(command, sizeof(command), "sha256sum </proc/%d/fd/%d", (int)getpid(), a);
	FILE *pipe = popen(command, "r");
	cr_assert(pipe && fgets(out, sizeof(out), pipe));
	pclose(pipe);
	cr_assert_eq(strncmp(out, hex, 64), 0, "%s is not %s", hex, out);
	tree_destroy(nothing);
	hand_destroy(h);
	close(a);
	close(b);
}

/* GNU tar unpacks it and packs it again: what is in there then is what was written. */
Test(tar_writer, gnu_tar_makes_the_same_of_it)
{
	char why[5000], command[1000], folder[64], path[100];
	struct hand *h = hand_rich();
	const uint32_t d = hand_dir(h, 0, "\xC3\xA4\xFF\n\\ and a space");
	const uint32_t large = hand_empty_file(h, d, "large", 20ull << 30);
	hand_extent(h, large, 10ull << 30, SOURCE_PATTERN, 512, 100001);
	hand_xattr(h, d, "user.a", "\0\n=value", 8);
	/* Before 1901 and after 2446 the host's file system may have no times. */
	for (uint32_t i = 0; i < h->tree.inode_count; i++)
		if (h->tree.inodes[i].mtime_s > 4294967296)
			h->tree.inodes[i].mtime_s = 4294967296;
	hand_sort(h);
	if (geteuid() != 0)
		cr_skip_test("only root can unpack owners and devices");
	const int fd = whole_layer(&h->tree);
	snprintf(folder, sizeof(folder), "/tmp/trvmm-diff-%d", (int)getpid());
	snprintf(
	    command, sizeof(command),
	    "set -e; mkdir -p %s/x; cd %s; tar -C x --numeric-owner --xattrs --xattrs-include='*' -xpf /proc/%d/fd/%d 2>/dev/null; "
	    "tar -C x --numeric-owner --format=pax --sparse --xattrs --xattrs-include='*' -cf out.tar .",
	    folder, folder, (int)getpid(), fd);
	cr_assert_eq(system(command), 0, "%s", command);
	snprintf(path, sizeof(path), "%s/out.tar", folder);
	const int out = open(path, O_RDONLY | O_CLOEXEC);
	struct tree *nothing = tree_of("");
	const int nothing_fd = whole_layer(nothing);
	struct tree *again = applied(nothing_fd, out);
	const struct tree_side left = { &h->tree, tree_side_read, &h->tree, 1 }, right = { again, tree_side_read, again, 1 };
	cr_assert(trees_are_same(&left, &right, "/socket/", why, sizeof(why)), "%s", why);
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	cr_assert_eq(system(command), 0);
	tree_destroy(nothing);
	tree_destroy(again);
	hand_destroy(h);
	close(nothing_fd);
	close(out);
	close(fd);
}

static const char full_path[] = "/dev/full";

Test(tar_writer, reports_a_full_disk)
{
	struct tree *base = tree_of(""), *changed = tree_of("a=1");
	const struct diff_side a = side_of(base), b = side_of(changed);
	struct diff_result result;
	struct error err = { "" };
	const int fd = open(full_path, O_WRONLY | O_CLOEXEC);
	cr_assert_eq(diff_write(&a, &b, NULL, fd, &result, &err), -ENOSPC);
	cr_assert(strstr(err.text, "cannot write"), "%s", err.text);
	close(fd);
	tree_destroy(base);
	tree_destroy(changed);
}
