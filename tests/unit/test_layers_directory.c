/* Host directories as layers, and --add: what is there is what the tree has, and what changes under a run is an error. */
#include "test_layers_cache_util.h"

#include <pthread.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>

#include "layers/host_files_internal.h"
#include "layers/index_internal.h"

TestSuite(directory, .init = set_up, .fini = tear_down);
TestSuite(add, .init = set_up, .fini = tear_down);

/* A path in this test's own directory; up to four at a time. */
static const char *at(const char *name)
{
	static char paths[4][300];
	static unsigned next;
	char *path = paths[next++ % 4];
	snprintf(path, sizeof(paths[0]), "%s/%s", root, name);
	return path;
}

static void make_file(const char *name, const char *text)
{
	write_file(at(name), text, strlen(text));
}

static void make_directory(const char *name)
{
	cr_assert_eq(mkdir(at(name), 0755), 0, "%s", name);
}

static struct tree *load_stack(const char *const *paths, size_t path_count, const struct layers_added *added, size_t added_count)
{
	const struct layers_spec spec = {
		.paths = paths, .path_count = path_count, .added = added, .added_count = added_count, .cache_dir = cache
	};
	struct tree *tree = NULL;
	struct error err = { "" };
	cr_assert_eq(layers_load_spec(&spec, &tree, NULL, &err), 0, "%s", err.text);
	cr_assert_eq(index_check(tree), 0);
	return tree;
}

static struct tree *load_directory(const char *name)
{
	const char *path = at(name);
	return load_stack(&path, 1, NULL, 0);
}

/* Everything that is on the host under `name` must be in the tree, the same. */
static void assert_same(const struct tree *tree, const char *directory, const char *name)
{
	struct stat st;
	char path[300], target[300];
	snprintf(path, sizeof(path), "%s/%s", at(directory), name);
	cr_assert_eq(lstat(path, &st), 0, "%s", path);
	const struct tree_inode *inode = tree_at(tree, name);
	cr_assert_eq(inode->mode, st.st_mode, "%s: mode %o, not %o", name, inode->mode, st.st_mode);
	cr_assert(inode->uid == st.st_uid && inode->gid == st.st_gid, "%s: owner", name);
	cr_assert(inode->mtime_s == st.st_mtim.tv_sec && inode->mtime_ns == (uint32_t)st.st_mtim.tv_nsec, "%s: time", name);
	cr_assert_eq(inode->nlink, st.st_nlink, "%s: links", name);
	if (S_ISREG(st.st_mode))
		cr_assert_eq(inode->size_bytes, (uint64_t)st.st_size, "%s: size", name);
	if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode))
		cr_assert(inode->rdev >> 20 == major(st.st_rdev) && (inode->rdev & 0xfffff) == minor(st.st_rdev), "%s: device",
			  name);
	if (S_ISLNK(st.st_mode)) {
		const ssize_t length = readlink(path, target, sizeof(target));
		cr_assert_eq(inode->size_bytes, (uint64_t)length, "%s: target", name);
		cr_assert_eq(memcmp(tree->strings + inode->target, target, (size_t)length), 0, "%s: target", name);
	}
}

static void set_times(const char *name, time_t s, long ns)
{
	const struct timespec times[2] = { { 1, 0 }, { s, ns } };
	cr_assert_eq(utimensat(AT_FDCWD, at(name), times, AT_SYMLINK_NOFOLLOW), 0);
}

Test(directory, is_taken_as_it_is)
{
	make_directory("d");
	make_directory("d/sub");
	make_directory("d/sub/empty");
	make_file("d/file", "contents");
	make_file("d/nothing", "");
	make_file("d/sub/one", "linked");
	cr_assert_eq(link(at("d/sub/one"), at("d/two")), 0);
	cr_assert_eq(symlink("/nowhere/at all", at("d/link")), 0);
	cr_assert_eq(link(at("d/link"), at("d/link2")), 0);
	cr_assert_eq(mkfifo(at("d/fifo"), 0640), 0);
	make_file("d/.wh.file", "a name like any other");
	make_file("d/.wh..wh..opq", "");
	make_file("d/sub/\x01\xff \n", "odd");
	cr_assert_eq(chmod(at("d/file"), 06751), 0);
	cr_assert_eq(chmod(at("d/sub"), 01777), 0);
	const bool privileged = geteuid() == 0;
	if (privileged) {
		cr_assert_eq(chown(at("d/nothing"), 70000, 4000000000u), 0);
		cr_assert_eq(mknod(at("d/null"), S_IFCHR | 0666, makedev(1, 3)), 0);
		cr_assert_eq(mknod(at("d/disk"), S_IFBLK | 0660, makedev(259, 70000)), 0);
	}
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	snprintf(address.sun_path, sizeof(address.sun_path), "%s", at("d/socket"));
	const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	cr_assert_eq(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	set_times("d/file", -12345, 678901234);
	set_times("d/link", 1000000000, 5);
	set_times("d/sub/empty", 5000000000, 999999999);
	struct tree *tree = load_directory("d");
	static const char *const names[] = { "",     "sub",   "sub/empty", "file",     "nothing",      "sub/one",         "two",
					     "link", "link2", "fifo",      ".wh.file", ".wh..wh..opq", "sub/\x01\xff \n", "socket",
					     "null", "disk" };
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]) - (privileged ? 0 : 2); i++)
		assert_same(tree, "d", names[i]);
	cr_assert_eq(tree->entry_count, privileged ? 16u : 14u);
	cr_assert_eq(tree_at(tree, "two"), tree_at(tree, "sub/one"));
	cr_assert_eq(tree_at(tree, "link"), tree_at(tree, "link2"));
	assert_text(tree, "file", "contents");
	assert_text(tree, "nothing", "");
	assert_text(tree, "two", "linked");
	assert_text(tree, "sub/\x01\xff \n", "odd");
	tree_destroy(tree);
	close(fd);
}

Test(directory, extended_attributes)
{
	static const uint8_t capability[20] = { 1, 0, 0, 2, 0, 4 };
	static char large[3000];
	make_directory("d");
	make_file("d/f", "x");
	memset(large, 'v', sizeof(large));
	if (setxattr(at("d/f"), "user.b", large, sizeof(large), 0))
		cr_skip_test("no extended attributes here: %s", strerror(errno));
	cr_assert_eq(setxattr(at("d/f"), "user.a", "", 0, 0), 0);
	cr_assert_eq(setxattr(at("d"), "user.top", "top", 3, 0), 0);
	const bool privileged = setxattr(at("d/f"), "security.capability", capability, sizeof(capability), 0) == 0;
	/* More names than fit into the first buffer. */
	make_file("d/many", "x");
	for (unsigned i = 0; i < 20; i++) {
		char name[100];
		snprintf(name, sizeof(name), "user.%070u", i);
		if (setxattr(at("d/many"), name, "1", 1, 0))
			break;
	}
	const ssize_t names_bytes = listxattr(at("d/many"), NULL, 0);
	struct tree *tree = load_directory("d");
	const struct tree_inode *f = tree_at(tree, "f"), *top = tree_at(tree, "");
	cr_assert_eq(f->xattr_count, privileged ? 3u : 2u);
	const struct tree_xattr *x = &tree->xattrs[f->first_xattr + (privileged ? 1 : 0)];
	cr_assert_eq(memcmp(tree->strings + x[0].name, "user.a", 6), 0);
	cr_assert_eq(x[0].value_bytes, 0);
	cr_assert_eq(memcmp(tree->strings + x[1].name, "user.b", 6), 0);
	cr_assert_eq(x[1].value_bytes, sizeof(large));
	cr_assert_eq(memcmp(tree->strings + x[1].value, large, sizeof(large)), 0);
	if (privileged)
		cr_assert_eq(memcmp(tree->strings + x[-1].value, capability, sizeof(capability)), 0);
	cr_assert_eq(top->xattr_count, 1);
	cr_assert_eq(memcmp(tree->strings + tree->xattrs[top->first_xattr].value, "top", 3), 0);
	cr_assert_eq(tree_at(tree, "many")->xattr_count, (uint32_t)(names_bytes / 76));
	tree_destroy(tree);
}

Test(directory, holes_stay_holes)
{
	make_directory("d");
	const int fd = open(at("d/sparse"), O_RDWR | O_CREAT, 0600);
	cr_assert_eq(ftruncate(fd, (off_t)1 << 34), 0);
	cr_assert_eq(pwrite(fd, "middle", 6, (off_t)1 << 33), 6);
	close(fd);
	struct tree *tree = load_directory("d");
	const struct tree_inode *inode = tree_at(tree, "sparse");
	cr_assert_eq(inode->size_bytes, (uint64_t)1 << 34);
	if (inode->extent_count == 1 && tree->extents[inode->first_extent].length == inode->size_bytes)
		cr_skip_test("the file system here knows no holes");
	cr_assert_eq(inode->extent_count, 1);
	const struct tree_extent *x = &tree->extents[inode->first_extent];
	cr_assert_leq(x->length, 65536);
	char text[7] = "";
	const uint64_t skip = ((uint64_t)1 << 33) - x->file_offset;
	cr_assert_eq(tree_source_readv(tree, x->source, x->source_offset + skip, &(struct iovec){ text, 6 }, 1), 0);
	cr_assert_str_eq(text, "middle");
	tree_destroy(tree);
}

Test(directory, goes_with_usrmerge_and_replaces_what_leads_nowhere)
{
	struct archive a = { 0 };
	ADD(&a, .name = "usr/bin/old", .type = '0', .text = "old");
	ADD(&a, .name = "bin", .type = '2', .link = "usr/bin");
	ADD(&a, .name = "dangling", .type = '2', .link = "nowhere");
	ADD(&a, .name = "file", .type = '0', .text = "a file");
	archive_end(&a);
	write_file(at("base.tar"), a.bytes, a.length);
	make_directory("d");
	make_directory("d/bin");
	make_directory("d/dangling");
	make_directory("d/file");
	make_file("d/bin/new", "new");
	make_file("d/file/below", "below");
	const char *const paths[] = { at("base.tar"), at("d") };
	struct tree *tree = load_stack(paths, 2, NULL, 0);
	cr_assert(S_ISLNK(tree_at(tree, "bin")->mode));
	assert_text(tree, "usr/bin/new", "new");
	assert_text(tree, "usr/bin/old", "old");
	cr_assert(S_ISDIR(tree_at(tree, "dangling")->mode));
	assert_text(tree, "file/below", "below");
	tree_destroy(tree);
	free(a.bytes);
}

Test(directory, mixes_with_layers_above_and_below)
{
	struct archive low = { 0 }, high = { 0 };
	ADD(&low, .name = "d/low", .type = '0', .text = "low");
	ADD(&low, .name = "both", .type = '0', .text = "low");
	archive_end(&low);
	ADD(&high, .name = "d/.wh.middle", .type = '0');
	ADD(&high, .name = "again", .type = '1', .link = "kept");
	archive_end(&high);
	write_file(at("low.tar"), low.bytes, low.length);
	write_file(at("high.tar"), high.bytes, high.length);
	make_directory("m");
	make_directory("m/d");
	make_file("m/d/middle", "middle");
	make_file("m/kept", "kept");
	make_file("m/both", "middle");
	const char *const paths[] = { at("low.tar"), at("m"), at("high.tar") };
	struct tree *tree = load_stack(paths, 3, NULL, 0);
	assert_text(tree, "d/low", "low");
	assert_text(tree, "both", "middle");
	assert_text(tree, "again", "kept");
	cr_assert_eq(tree_lookup(tree, "d/middle", 0), TREE_NONE);
	tree_destroy(tree);
	free(low.bytes);
	free(high.bytes);
}

Test(directory, is_no_image_for_an_index_json_alone)
{
	make_directory("web");
	make_file("web/index.json", "{ \"pages\": 3 }");
	struct tree *tree = load_directory("web");
	assert_text(tree, "index.json", "{ \"pages\": 3 }");
	tree_destroy(tree);
}

static unsigned open_descriptors(void)
{
	unsigned count = 0;
	DIR *dir = opendir("/proc/self/fd");
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

#define MANY 1000

static struct tree *load_many(void)
{
	make_directory("many");
	for (unsigned i = 0; i < MANY; i++) {
		char name[32], text[32];
		snprintf(name, sizeof(name), "many/%u", i);
		snprintf(text, sizeof(text), "this is %u", i);
		make_file(name, text);
	}
	return load_directory("many");
}

static bool holds_its_number(const struct tree *tree, unsigned i)
{
	char name[32], text[32], *data;
	size_t length;
	snprintf(name, sizeof(name), "%u", i);
	snprintf(text, sizeof(text), "this is %u", i);
	const uint32_t entry = tree_lookup(tree, name, 0);
	if (entry == TREE_NONE || tree_read_file(tree, tree->entries[entry].inode, 100, &data, &length))
		return false;
	const bool same = strcmp(data, text) == 0;
	free(data);
	return same;
}

Test(directory, of_many_files_needs_few_descriptors)
{
	const unsigned before = open_descriptors();
	struct tree *tree = load_many();
	cr_assert_eq(open_descriptors(), before + 1);
	for (unsigned i = 0; i < 2 * MANY; i++)
		cr_assert(holds_its_number(tree, i * 7 % MANY));
	cr_assert_eq(open_descriptors(), before + 1 + HOST_FILES_OPEN_MAX);
	tree_destroy(tree);
	cr_assert_eq(open_descriptors(), before);
}

struct reader {
	const struct tree *tree;
	unsigned seed, wrong;
};

static void *read_many(void *arg)
{
	struct reader *reader = arg;
	for (unsigned i = 0; i < 3000; i++) {
		reader->seed = reader->seed * 1103515245u + 12345;
		reader->wrong += !holds_its_number(reader->tree, (reader->seed >> 16) % MANY);
	}
	return NULL;
}

Test(directory, is_read_by_threads)
{
	struct tree *tree = load_many();
	struct reader readers[8];
	pthread_t threads[8];
	for (unsigned i = 0; i < 8; i++) {
		readers[i] = (struct reader){ tree, i, 0 };
		cr_assert_eq(pthread_create(&threads[i], NULL, read_many, &readers[i]), 0);
	}
	for (unsigned i = 0; i < 8; i++) {
		pthread_join(threads[i], NULL);
		cr_assert_eq(readers[i].wrong, 0);
	}
	tree_destroy(tree);
}

/* What message() says from here on. */
static int catch_messages(void)
{
	const int fd = memfd_create("messages", MFD_CLOEXEC);
	fflush(stderr);
	cr_assert(dup2(fd, STDERR_FILENO) >= 0);
	return fd;
}

static const char *caught(int fd)
{
	static char text[4096];
	const ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
	text[n > 0 ? n : 0] = '\0';
	return text;
}

static int read_text(const struct tree *tree, const char *path)
{
	char *data = NULL;
	size_t length;
	const int ret = tree_read_file(tree, (uint32_t)(tree_at(tree, path) - tree->inodes), 1 << 20, &data, &length);
	free(data);
	return ret;
}

static void change_contents(void)
{
	const int fd = open(at("d/f"), O_WRONLY);
	cr_assert_eq(pwrite(fd, "X", 1, 0), 1);
	close(fd);
}

static void append(void)
{
	const int fd = open(at("d/f"), O_WRONLY | O_APPEND);
	cr_assert_eq(write(fd, "X", 1), 1);
	close(fd);
}

static void cut(void)
{
	cr_assert_eq(truncate(at("d/f"), 3), 0);
}

static void empty(void)
{
	cr_assert_eq(truncate(at("d/f"), 0), 0);
}

static void take_away(void)
{
	cr_assert_eq(unlink(at("d/f")), 0);
}

static void replace(void)
{
	make_file("other", "same size!");
	cr_assert_eq(rename(at("other"), at("d/f")), 0);
}

static void replace_by_link(void)
{
	make_file("other", "same size!");
	take_away();
	cr_assert_eq(symlink("../other", at("d/f")), 0);
}

static void replace_by_fifo(void)
{
	take_away();
	cr_assert_eq(mkfifo(at("d/f"), 0600), 0);
}

static void replace_by_directory(void)
{
	take_away();
	make_directory("d/f");
}

/* `opened`: the file was read before, so that its descriptor is there. */
static void assert_change_is_noticed(void (*change)(void), bool opened)
{
	make_directory("d");
	make_file("d/f", "ten bytes.");
	make_file("d/other", "stays");
	settle();
	struct tree *tree = load_directory("d");
	if (opened)
		assert_text(tree, "f", "ten bytes.");
	change();
	const int messages = catch_messages();
	for (unsigned i = 0; i < 3; i++)
		cr_assert_eq(read_text(tree, "f"), -EIO);
	const char *said = caught(messages), *line = strchr(said, '\n');
	cr_assert(strstr(said, "/d: 'f': ") && strstr(said, "while the guest runs: the guest gets an I/O error"), "%s", said);
	cr_assert(line && !line[1], "one line: %s", said);
	assert_text(tree, "other", "stays");
	tree_destroy(tree);
}

#define CHANGE(name)                                                                                                               \
	Test(directory, notices_##name)                                                                                            \
	{                                                                                                                          \
		assert_change_is_noticed(name, false);                                                                             \
	}                                                                                                                          \
	Test(directory, notices_##name##_of_an_open_file)                                                                          \
	{                                                                                                                          \
		assert_change_is_noticed(name, true);                                                                              \
	}

CHANGE(change_contents)
CHANGE(append)
CHANGE(cut)
CHANGE(empty)
CHANGE(take_away)
CHANGE(replace)
CHANGE(replace_by_link)
CHANGE(replace_by_fifo)
CHANGE(replace_by_directory)

Test(directory, a_directory_that_becomes_a_link_is_not_followed)
{
	make_directory("d");
	make_directory("d/sub");
	make_file("d/sub/f", "inside");
	settle();
	struct tree *tree = load_directory("d");
	cr_assert_eq(rename(at("d/sub"), at("moved")), 0);
	cr_assert_eq(symlink("../moved", at("d/sub")), 0);
	const int messages = catch_messages();
	cr_assert_eq(read_text(tree, "sub/f"), -EIO);
	cr_assert(strstr(caught(messages), "'sub/f': vanished"), "%s", caught(messages));
	tree_destroy(tree);
}

Test(directory, deeper_than_any_path)
{
	/* 60 names of 200 bytes: three times PATH_MAX. */
	char name[201], path[60 * 201 + 8];
	memset(name, 'n', 200);
	name[200] = '\0';
	make_directory("deep");
	int here = open(at("deep"), O_RDONLY | O_DIRECTORY);
	size_t used = 0;
	for (unsigned i = 0; i < 60; i++) {
		cr_assert_eq(mkdirat(here, name, 0755), 0);
		const int next = openat(here, name, O_RDONLY | O_DIRECTORY);
		close(here);
		here = next;
		used += (size_t)sprintf(path + used, "%s/", name);
	}
	const int fd = openat(here, "f", O_WRONLY | O_CREAT, 0600);
	cr_assert_eq(write(fd, "deep", 4), 4);
	close(fd);
	close(here);
	strcpy(path + used, "f");
	struct tree *tree = load_directory("deep");
	assert_text(tree, path, "deep");
	tree_destroy(tree);
}

Test(directory, refuses_a_path_beyond_65535_bytes)
{
	char name[256];
	memset(name, 'n', 255);
	name[255] = '\0';
	make_directory("deep");
	int here = open(at("deep"), O_RDONLY | O_DIRECTORY);
	for (unsigned i = 0; i < 300; i++) {
		cr_assert_eq(mkdirat(here, name, 0755), 0);
		const int next = openat(here, name, O_RDONLY | O_DIRECTORY);
		close(here);
		here = next;
	}
	close(here);
	load_refused(at("deep"), -ENAMETOOLONG, "path is longer than 65535 bytes");
}

Test(directory, other_file_systems_are_left_out)
{
	make_directory("d");
	make_directory("d/mounted");
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    mount("tmpfs", at("d/mounted"), "tmpfs", 0, "size=1m"))
		cr_skip_test("nothing can be mounted here");
	make_file("d/mounted/f", "elsewhere");
	struct tree *tree = load_directory("d");
	umount2(at("d/mounted"), MNT_DETACH);
	cr_assert(S_ISDIR(tree_at(tree, "mounted")->mode));
	cr_assert_eq(tree_lookup(tree, "mounted/f", 0), TREE_NONE);
	tree_destroy(tree);
}

Test(directory, refuses_what_it_may_not_read)
{
	if (geteuid() != 0)
		cr_skip_test("needs a second user");
	make_directory("d");
	make_directory("d/secret");
	cr_assert_eq(chmod(at("d/secret"), 0700), 0);
	cr_assert_eq(chmod(root, 0755), 0);
	struct error err = { "" };
	struct tree_builder *builder = tree_builder_create();
	cr_assert_eq(seteuid(65534), 0);
	const int ret = layers_apply_file(builder, at("d"), cache, &err);
	cr_assert_eq(seteuid(0), 0);
	tree_builder_destroy(builder);
	cr_assert_eq(ret, -EACCES);
	cr_assert(strstr(err.text, "/d: 'secret': cannot be read: Permission denied"), "%s", err.text);
}

/* ---- archives that change ---------------------------------------------------------------------------------------------------- */

static struct tree *load_archive(void)
{
	const char *path = write_sample_tar("layer.tar", "contents");
	return load_stack(&path, 1, NULL, 0);
}

static void assert_archive_fails(struct tree *tree, const char *words)
{
	const int messages = catch_messages();
	settle(); /* small reads are looked at once in a tick */
	for (unsigned i = 0; i < 3; i++)
		cr_assert_eq(read_text(tree, "large"), -EIO);
	cr_assert_eq(read_text(tree, "f"), -EIO);
	const char *said = caught(messages), *line = strchr(said, '\n');
	cr_assert(strstr(said, "layer.tar: ") && strstr(said, words), "%s", said);
	cr_assert(line && !line[1], "one line: %s", said);
	tree_destroy(tree);
}

Test(directory, archive_that_is_written_to_is_an_error)
{
	struct tree *tree = load_archive();
	assert_text(tree, "f", "contents");
	const int fd = open(at("layer.tar"), O_WRONLY);
	cr_assert_eq(pwrite(fd, "CONTENTS", 8, 512), 8);
	close(fd);
	assert_archive_fails(tree, "was changed while the guest runs");
}

Test(directory, archive_that_is_truncated_is_an_error)
{
	struct tree *tree = load_archive();
	cr_assert_eq(truncate(at("layer.tar"), 100), 0);
	assert_archive_fails(tree, "was truncated to 100 bytes while the guest runs");
}

Test(directory, archive_that_is_moved_or_removed_goes_on)
{
	struct tree *tree = load_archive();
	cr_assert_eq(rename(at("layer.tar"), at("elsewhere.tar")), 0);
	settle();
	assert_text(tree, "f", "contents");
	cr_assert_eq(unlink(at("elsewhere.tar")), 0);
	settle();
	assert_text(tree, "f", "contents");
	cr_assert_eq(read_text(tree, "large"), 0);
	tree_destroy(tree);
}

/* ---- --add ------------------------------------------------------------------------------------------------------------------- */

static const char *base_layer(void)
{
	struct archive a = { 0 };
	ADD(&a, .name = "usr/bin/", .type = '5', .mode = "0000700", .uid = "0000007");
	ADD(&a, .name = "bin", .type = '2', .link = "usr/bin");
	ADD(&a, .name = "etc/motd", .type = '0', .text = "old");
	ADD(&a, .name = "broken", .type = '2', .link = "nowhere");
	archive_end(&a);
	write_file(at("base.tar"), a.bytes, a.length);
	free(a.bytes);
	settle();
	return at("base.tar");
}

static struct tree *load_added(const char *host, const char *guest)
{
	char path[300];
	snprintf(path, sizeof(path), "%s", at(host));
	const struct layers_added added = { path, guest };
	const char *const base = base_layer();
	return load_stack(&base, 1, &added, 1);
}

Test(add, a_file_with_its_mode_and_time_and_roots_owner)
{
	make_file("tool", "#!/bin/sh");
	cr_assert_eq(chmod(at("tool"), 04755), 0);
	set_times("tool", 12345, 6789);
	if (geteuid() == 0)
		cr_assert_eq(chown(at("tool"), 1000, 1000) || chmod(at("tool"), 04755), 0);
	struct tree *tree = load_added("tool", "/opt/new/tool");
	const struct tree_inode *inode = tree_at(tree, "opt/new/tool");
	cr_assert(inode->mode == (S_IFREG | 04755) && inode->uid == 0 && inode->gid == 0 && inode->mtime_s == 12345 &&
		  inode->mtime_ns == 6789 && inode->nlink == 1);
	cr_assert_eq(tree_at(tree, "opt")->mode, S_IFDIR | 0755);
	assert_text(tree, "opt/new/tool", "#!/bin/sh");
	tree_destroy(tree);
}

Test(add, an_empty_file)
{
	make_file("empty", "");
	struct tree *tree = load_added("empty", "/etc/motd");
	assert_text(tree, "etc/motd", "");
	tree_destroy(tree);
}

Test(add, replaces_a_file)
{
	make_file("motd", "new");
	struct tree *tree = load_added("motd", "/etc/motd");
	assert_text(tree, "etc/motd", "new");
	tree_destroy(tree);
}

Test(add, into_a_directory_under_its_own_name)
{
	make_file("tool", "x");
	static const char *const places[] = { "/usr/bin", "/bin", "/bin/", "/usr/./bin//" };
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		struct tree *tree = load_added("tool", places[i]);
		assert_text(tree, "usr/bin/tool", "x");
		cr_assert(S_ISLNK(tree_at(tree, "bin")->mode));
		cr_assert_eq(tree_at(tree, "usr/bin")->mode, S_IFDIR | 0700);
		tree_destroy(tree);
	}
	struct tree *tree = load_added("tool", "/missing/");
	assert_text(tree, "missing/tool", "x");
	tree_destroy(tree);
	tree = load_added("tool", "/");
	assert_text(tree, "tool", "x");
	tree_destroy(tree);
}

Test(add, a_directory_joins_what_is_there_and_keeps_its_attributes)
{
	make_directory("d");
	make_directory("d/sub");
	make_file("d/tool", "tool");
	make_file("d/sub/f", "f");
	cr_assert_eq(chmod(at("d"), 0777), 0);
	cr_assert_eq(chmod(at("d/sub"), 0711), 0);
	struct tree *tree = load_added("d", "/bin");
	const struct tree_inode *bin = tree_at(tree, "usr/bin");
	cr_assert(bin->mode == (S_IFDIR | 0700) && bin->uid == 7);
	assert_text(tree, "usr/bin/tool", "tool");
	assert_text(tree, "usr/bin/sub/f", "f");
	const struct tree_inode *sub = tree_at(tree, "usr/bin/sub");
	cr_assert(sub->mode == (S_IFDIR | 0711) && sub->uid == 0);
	tree_destroy(tree);
	tree = load_added("d", "/srv/deep/place");
	assert_text(tree, "srv/deep/place/sub/f", "f");
	cr_assert_eq(tree_at(tree, "srv/deep/place")->mode, S_IFDIR | 0777);
	tree_destroy(tree);
	tree = load_added("d", "/");
	assert_text(tree, "sub/f", "f");
	cr_assert_eq(tree_at(tree, "")->mode, S_IFDIR | 0755);
	tree_destroy(tree);
}

static void add_refused(const char *host, const char *guest, const char *words)
{
	char path[300];
	snprintf(path, sizeof(path), "%s", at(host));
	const struct layers_added added = { path, guest };
	const char *const base = base_layer();
	const struct layers_spec spec = { .paths = &base, .path_count = 1, .added = &added, .added_count = 1, .cache_dir = cache };
	struct tree *tree = NULL;
	struct error err = { "" };
	cr_assert_neq(layers_load_spec(&spec, &tree, NULL, &err), 0, "%s:%s", host, guest);
	cr_assert_eq(strncmp(err.text, "--add ", 6), 0, "%s", err.text);
	cr_assert(strstr(err.text, words), "'%s' does not contain '%s'", err.text, words);
}

Test(add, refuses_what_has_no_place)
{
	make_directory("d");
	make_file("f", "x");
	cr_assert_eq(mkfifo(at("fifo"), 0600), 0);
	add_refused("missing", "/x", "there is no such file");
	add_refused("fifo", "/x", "is neither a regular file nor a directory");
	add_refused("d", "/etc/motd", "the layers have something there that is no directory");
	add_refused("d", "/broken", "the layers have something there that is no directory");
	add_refused("f", "/etc/motd/below", "'motd' is no directory");
}

Test(add, is_remembered_until_the_file_changes)
{
	make_file("f", "first");
	settle();
	struct tree *tree = load_added("f", "/f");
	tree_destroy(tree);
	char path[300];
	snprintf(path, sizeof(path), "%s", at("f"));
	const struct layers_added added = { path, "/f" }, elsewhere = { path, "/g" }, inside = { path, "/etc/" };
	const char *const base = at("base.tar");
	tree = load_stack(&base, 1, &added, 1);
	tree_destroy(tree);
	tree = load_stack(&base, 1, &added, 1);
	cr_assert_neq(tree->map, tree->inodes, "the tree was read anew");
	assert_text(tree, "f", "first");
	tree_destroy(tree);
	tree = load_stack(&base, 1, &elsewhere, 1);
	assert_text(tree, "g", "first");
	tree_destroy(tree);
	tree = load_stack(&base, 1, &inside, 1);
	assert_text(tree, "etc/f", "first");
	tree_destroy(tree);
	make_file("f", "other");
	tree = load_stack(&base, 1, &added, 1);
	assert_text(tree, "f", "other");
	const int fd = open(at("f"), O_WRONLY);
	settle();
	cr_assert_eq(write(fd, "third", 5), 5);
	close(fd);
	const int messages = catch_messages();
	cr_assert_eq(read_text(tree, "f"), -EIO);
	cr_assert(strstr(caught(messages), "was changed while the guest runs"), "%s", caught(messages));
	tree_destroy(tree);
}

Test(add, host_and_guest_are_taken_apart)
{
	static const struct {
		const char *text, *host, *guest;
	} good[] = { { "a:/b", "a", "/b" },
		     { "/a/b:/c/d", "/a/b", "/c/d" },
		     { "with:colon:/x", "with:colon", "/x" },
		     { "a:/odd:name", "a", "/odd:name" },
		     { ".:/", ".", "/" },
		     { "a:/..b/c..", "a", "/..b/c.." } };
	static const struct {
		const char *text, *words;
	} bad[] = { { "", "give HOST:GUEST" },
		    { "plain", "give HOST:GUEST" },
		    { "a:", "must begin with a slash" },
		    { "a:b", "must begin with a slash" },
		    { ":/b", "is empty" },
		    { "a:/x/../y", "'..'" },
		    { "a:/..", "'..'" },
		    { "a:/x/..", "'..'" } };
	struct error err;
	char *host;
	const char *guest;
	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		cr_assert_eq(layers_added_parse(good[i].text, &host, &guest, &err), 0, "%s", good[i].text);
		cr_assert(strcmp(host, good[i].host) == 0 && strcmp(guest, good[i].guest) == 0, "%s", good[i].text);
		free(host);
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		cr_assert_eq(layers_added_parse(bad[i].text, &host, &guest, &err), -EINVAL, "%s", bad[i].text);
		cr_assert(strstr(err.text, bad[i].words), "%s", err.text);
		free(host);
	}
}
