/*
 * Archives that others made, compared with what others say is in them: tar(1)'s listing, and the files themselves.
 *
 * Needs tar(1). bsdtar, Go's test files (golang-github-vbatts-tar-split-dev) and a Debian root (debian-apt.tar, made by mmdebstrap)
 * are used where they are, and skipped where not.
 */
#include "test_layers_util.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <time.h>

static char root[64];
static char project[PATH_MAX]; /* where the test was started */

static void set_up(void)
{
	snprintf(root, sizeof(root), "/tmp/trvmm-test-XXXXXX");
	cr_assert(getcwd(project, sizeof(project)));
	cr_assert(mkdtemp(root));
	cr_assert_eq(chdir(root), 0);
}

static void tear_down(void)
{
	char command[100];
	snprintf(command, sizeof(command), "rm -rf '%s'", root);
	cr_assert_eq(system(command), 0);
}

TestSuite(real, .init = set_up, .fini = tear_down);

static struct tree *tree_of(const char *path)
{
	struct error err = { "" };
	struct tree_builder *builder = tree_builder_create();
	cr_assert_eq(layers_apply_file(builder, path, root, &err), 0, "%s", err.text);
	return builder_tree(builder);
}

/* One of everything that a file system without privileges can hold. */
static const char make_files[] =
	"set -e; mkdir -p files/d/e files/empty; cd files; echo one > one; printf '' > nothing; seq 1 5000 > d/numbers;"
	"ln one d/hard; ln -s ../one d/soft; ln -s nowhere dangling; mkfifo fifo;"
	"chmod 4755 d/numbers; chmod 1777 d/e; chmod 0 nothing;"
	"echo x > 'name with  spaces -and- more'; touch -d '1969-12-31 23:59:58 UTC' d/old; touch -d '2100-01-01 UTC' d/future;"
	"truncate -s 3M sparse; for i in 0 1 7 300 301 700; do"
	"  printf 'block %s' $i | dd of=sparse bs=4096 seek=$i conv=notrunc status=none; done;"
	"truncate -s 1M hole;";

/* Names too long for v7, and one too long for ustar's name field alone. */
static const char make_long_names[] =
	"set -e; cd files; p=d/$(printf 'p%.0s' $(seq 1 60)); mkdir -p $p; echo long > $p/$(printf 'n%.0s' $(seq 1 90));";
static const char make_longer_names[] =
	"set -e; cd files; n=$(printf 'n%.0s' $(seq 1 250)); mkdir -p $n/$n; echo longer > $n/$n/$n; ln -s $n/$n t;"
	"ln $n/$n/$n hard-to-long;";

static void run(const char *command)
{
	cr_assert_eq(system(command), 0, "%s", command);
}

static bool have(const char *program)
{
	char command[64];
	snprintf(command, sizeof(command), "command -v %s >/dev/null", program);
	return system(command) == 0;
}

static void check_mode(const char *text, const struct tree_inode *inode, const char *name)
{
	char want[11] = "?rwxrwxrwx";
	const struct {
		unsigned type;
		char letter;
	} types[] = { { S_IFREG, '-' }, { S_IFDIR, 'd' }, { S_IFLNK, 'l' }, { S_IFCHR, 'c' }, { S_IFBLK, 'b' }, { S_IFIFO, 'p' } };
	for (unsigned i = 0; i < 6; i++)
		want[0] = (inode->mode & S_IFMT) == types[i].type ? types[i].letter : want[0];
	for (unsigned i = 0; i < 9; i++)
		want[1 + i] = inode->mode & (0400u >> i) ? want[1 + i] : '-';
	for (unsigned i = 0; i < 3; i++) {
		char *x = &want[3 + 3 * i];
		if (inode->mode & (04000u >> i))
			*x = *x == 'x' ? "sst"[i] : "SST"[i];
	}
	cr_assert_eq(strncmp(text, want, 10), 0, "%s: %.10s, not %s", name, want, text);
}

static void check_time(const char *date, const char *clock, const struct tree_inode *inode, const char *name)
{
	struct tm tm = { 0 };
	char both[64];
	snprintf(both, sizeof(both), "%s %s", date, clock);
	const char *rest = strptime(both, "%Y-%m-%d %H:%M:%S", &tm);
	cr_assert(rest, "%s: %s", name, both);
	cr_assert_eq(timegm(&tm), inode->mtime_s, "%s: %s, not %lld", name, both, (long long)inode->mtime_s);
	char nanoseconds[10] = "000000000";
	if (*rest == '.')
		memcpy(nanoseconds, rest + 1, strlen(rest + 1));
	cr_assert_eq(strtoul(nanoseconds, NULL, 10), inode->mtime_ns, "%s: %s, not .%09u", name, both, inode->mtime_ns);
}

/* One line of tar -tv. Returns whether it is a name of its own (not a second hard link). */
static void check_line(const struct tree *tree, char *line)
{
	char mode[16], owner[32], size[32], date[16], clock[32];
	int at = 0;
	cr_assert_eq(sscanf(line, "%15s %31s %31s %15s %31s%n", mode, owner, size, date, clock, &at), 5, "%s", line);
	char *name = line + at, *target = NULL;
	name += strspn(name, " "); /* the column of times is as wide as the widest */
	if (mode[0] == 'h' || mode[0] == 'l') {
		target = strstr(name, mode[0] == 'h' ? " link to " : " -> ");
		cr_assert(target, "%s", line);
		*target = '\0';
		target += mode[0] == 'h' ? 9 : 4;
	}
	const struct tree_inode *inode = tree_at(tree, name);
	if (mode[0] == 'h') {
		cr_assert_eq(inode, tree_at(tree, target), "%s", name);
		return;
	}
	unsigned uid, gid, major, minor;
	check_mode(mode, inode, name);
	cr_assert_eq(sscanf(owner, "%u/%u", &uid, &gid), 2);
	cr_assert(uid == inode->uid && gid == inode->gid, "%s", name);
	if (sscanf(size, "%u,%u", &major, &minor) == 2)
		cr_assert_eq(inode->rdev, major << 20 | minor, "%s", name);
	else if (S_ISREG(inode->mode))
		cr_assert_eq(strtoull(size, NULL, 10), inode->size_bytes, "%s", name);
	if (target)
		cr_assert(inode->size_bytes == strlen(target) && memcmp(tree->strings + inode->target, target, strlen(target)) == 0,
			  "%s", name);
	check_time(date, clock, inode, name);
}

/* Every line of the listing is in the tree as it says, and nothing else is. */
static void check_listing(const struct tree *tree, const char *path)
{
	char command[300];
	snprintf(command, sizeof(command),
		 "TZ=UTC LC_ALL=C tar --list --verbose --full-time --numeric-owner --quoting-style=literal --file '%s' 2>/dev/null",
		 path);
	FILE *listing = popen(command, "r");
	char *line = NULL;
	size_t room = 0;
	uint32_t lines = 0;
	for (ssize_t n; (n = getline(&line, &room, listing)) > 0; lines++) {
		line[n - 1] = '\0';
		check_line(tree, line);
	}
	free(line);
	cr_assert_eq(pclose(listing), 0);
	cr_assert_eq(lines, tree->entry_count, "%u lines, %u entries", lines, tree->entry_count);
}

/* Every regular file's bytes are those of the file in `directory`. */
static void check_contents(const struct tree *tree, const char *directory)
{
	char command[200];
	snprintf(command, sizeof(command), "cd '%s' && find . -type f", directory);
	FILE *list = popen(command, "r");
	char line[4096], path[8192];
	while (fgets(line, sizeof(line), list)) {
		line[strcspn(line, "\n")] = '\0';
		snprintf(path, sizeof(path), "%s/%s", directory, line);
		const struct tree_inode *inode = tree_at(tree, line);
		char *got;
		size_t length;
		cr_assert_eq(tree_read_file(tree, (uint32_t)(inode - tree->inodes), 256 << 20, &got, &length), 0, "%s", line);
		char *want = malloc(length + 1);
		const int fd = open(path, O_RDONLY);
		if (fd >= 0) /* nobody but root reads a file of mode 0 */
			cr_assert(read(fd, want, length + 1) == (ssize_t)length && memcmp(got, want, length) == 0, "%s", line);
		close(fd);
		free(want);
		free(got);
	}
	pclose(list);
}

static void check_archive(const char *make, const char *path)
{
	run(make);
	struct tree *tree = tree_of(path);
	check_listing(tree, path);
	check_contents(tree, "files");
	tree_destroy(tree);
}

Test(real, v7)
{
	run(make_files);
	run("rm files/d/old files/fifo"); /* v7 has neither times before 1970 nor fifos */
	check_archive("tar -C files --format=v7 -cf v7.tar .", "v7.tar");
}

Test(real, ustar)
{
	run(make_files);
	run(make_long_names);
	run("rm files/d/old");
	check_archive("tar -C files --format=ustar -cf ustar.tar .", "ustar.tar");
}

Test(real, gnu)
{
	run(make_files);
	run(make_long_names);
	run(make_longer_names);
	check_archive("tar -C files --format=gnu -cf gnu.tar .", "gnu.tar");
	check_archive("tar -C files --format=oldgnu -cf oldgnu.tar .", "oldgnu.tar");
	check_archive("tar -C files --format=gnu --sparse -cf sparse.tar .", "sparse.tar");
}

Test(real, pax)
{
	run(make_files);
	run(make_long_names);
	run(make_longer_names);
	check_archive("tar -C files --format=posix -cf pax.tar .", "pax.tar");
	check_archive("tar -C files --format=posix --sparse --sparse-version=0.0 -cf pax00.tar .", "pax00.tar");
	check_archive("tar -C files --format=posix --sparse --sparse-version=0.1 -cf pax01.tar .", "pax01.tar");
	check_archive("tar -C files --format=posix --sparse --sparse-version=1.0 -cf pax10.tar .", "pax10.tar");
}

/* GNU tar writes -1.75 and restores it; its listing, and what bsdtar makes of it, are other times. */
Test(real, time_before_1970_with_a_fraction)
{
	run("mkdir files; touch -d '1969-12-31 23:59:58.25 UTC' files/old; tar -C files --format=posix -cf pax.tar .");
	struct tree *tree = tree_of("pax.tar");
	cr_assert(tree_at(tree, "old")->mtime_s == -2 && tree_at(tree, "old")->mtime_ns == 250000000);
	tree_destroy(tree);
}

Test(real, sparse_file_with_more_ranges_than_a_header_holds)
{
	run("mkdir files; truncate -s 4M files/many; for i in $(seq 0 3 300); do echo $i |"
	    "dd of=files/many bs=4096 seek=$i conv=notrunc status=none; done");
	check_archive("tar -C files --format=gnu --sparse -cf gnu.tar .", "gnu.tar");
	check_archive("tar -C files --format=posix --sparse --sparse-version=1.0 -cf pax.tar .", "pax.tar");
	struct tree *tree = tree_of("pax.tar");
	cr_assert_geq(tree_at(tree, "many")->extent_count, 100);
	tree_destroy(tree);
}

Test(real, gzip)
{
	run(make_files);
	check_archive("tar -C files -czf layer.tar.gz .", "layer.tar.gz");
}

Test(real, bsdtar)
{
	if (!have("bsdtar"))
		cr_skip_test("bsdtar is not installed");
	run(make_files);
	run(make_long_names);
	run(make_longer_names);
	check_archive("bsdtar -C files --format=pax -cf pax.tar .", "pax.tar");
	run("rm -rf files/d/old files/n* files/t* files/hard-to-long");
	check_archive("bsdtar -C files --format=ustar -cf ustar.tar .", "ustar.tar");
}

Test(real, xattrs)
{
	if (!have("setfattr"))
		cr_skip_test("setfattr is not installed");
	run("mkdir files; echo x > files/f");
	if (system("setfattr -n user.one -v first files/f 2>/dev/null"))
		cr_skip_test("the file system has no user attributes");
	run("setfattr -n user.bytes -v 0x00ff0a3d files/f; tar -C files --xattrs --format=posix -cf x.tar .");
	struct tree *tree = tree_of("x.tar");
	const struct tree_inode *f = tree_at(tree, "f");
	cr_assert_eq(f->xattr_count, 2);
	const struct tree_xattr *x = &tree->xattrs[f->first_xattr];
	cr_assert(x[0].value_bytes == 4 && memcmp(tree->strings + x[0].value, "\x00\xff\n=", 4) == 0);
	cr_assert(x[1].value_bytes == 5 && memcmp(tree->strings + x[1].value, "first", 5) == 0);
	tree_destroy(tree);
}

/* Go's reader is the one that container engines use: what it takes we take, what it refuses we refuse. */
Test(real, go_test_files)
{
	static const char directory[] = "/usr/share/gocode/src/github.com/vbatts/tar-split/archive/tar/testdata";
	static const struct {
		const char *name;
		uint32_t entries; /* 0: refused */
	} files[] = {
		{ "file-and-dir.tar", 3 },
		{ "gnu.tar", 3 },
		{ "gnu-incremental.tar", 4 },
		{ "gnu-long-nul.tar", 2 },
		{ "gnu-multi-hdrs.tar", 4 },
		{ "gnu-nil-sparse-data.tar", 2 },
		{ "gnu-nil-sparse-hole.tar", 2 },
		{ "gnu-not-utf8.tar", 2 },
		{ "gnu-sparse-big.tar", 2 },
		{ "gnu-utf8.tar", 2 },
		{ "hardlink.tar", 3 },
		{ "hdr-only.tar", 9 },
		{ "invalid-go17.tar", 2 },
		{ "issue10968.tar", 0 },
		{ "issue11169.tar", 0 },
		{ "issue12435.tar", 0 },
		{ "neg-size.tar", 0 },
		{ "nil-uid.tar", 2 },
		{ "pax.tar", 4 },
		{ "pax-bad-hdr-file.tar", 0 },
		{ "pax-bad-mtime-file.tar", 0 },
		{ "pax-multi-hdrs.tar", 2 },
		{ "pax-nil-sparse-data.tar", 2 },
		{ "pax-nil-sparse-hole.tar", 2 },
		{ "pax-nul-path.tar", 0 },
		{ "pax-nul-xattrs.tar", 0 },
		{ "pax-pos-size-file.tar", 2 },
		{ "pax-records.tar", 2 },
		{ "pax-sparse-big.tar", 2 },
		{ "sparse-formats.tar", 6 },
		{ "star.tar", 3 },
		{ "trailing-slash.tar", 31 },
		{ "ustar.tar", 17 },
		{ "ustar-file-devs.tar", 2 },
		{ "ustar-file-reg.tar", 2 },
		{ "v7.tar", 3 },
		{ "writer.tar", 4 },
		{ "xattrs.tar", 3 },
		/* Where we refuse and Go does not: an extended header at the end of an archive; a path for all files. */
		{ "pax-path-hdr.tar", 0 },
		{ "pax-global-records.tar", 0 },
	};
	if (access(directory, F_OK))
		cr_skip_test("golang-github-vbatts-tar-split-dev is not installed");
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		char path[200];
		struct error err = { "" };
		struct tree_builder *builder = tree_builder_create();
		snprintf(path, sizeof(path), "%s/%s", directory, files[i].name);
		const int ret = layers_apply_file(builder, path, NULL, &err);
		if (files[i].entries) {
			cr_expect_eq(ret, 0, "%s", err.text);
			struct tree *tree = builder_tree(builder);
			cr_expect_eq(tree->entry_count, files[i].entries, "%s: %u entries", files[i].name, tree->entry_count);
			tree_destroy(tree);
		} else {
			cr_expect(ret < 0 && err.text[0], "%s", files[i].name);
			tree_builder_destroy(builder);
		}
	}
}

/* As they lie in the packages: xz mostly, inflated through the cache. */
Test(real, data_of_fifty_debian_packages)
{
	char command[PATH_MAX + 200], path[600];
	snprintf(command, sizeof(command), "cd '%s' && folder=$(tests/debian-packages) && ls -d \"$folder\"/*", project);
	FILE *list = popen(command, "r");
	unsigned count = 0;
	for (; fgets(path, sizeof(path), list); count++) {
		path[strcspn(path, "\n")] = '\0';
		snprintf(command, sizeof(command), "rm -rf files && mkdir files && tar --no-same-owner -C files -xf '%s'", path);
		run(command);
		struct tree *tree = tree_of(path);
		check_listing(tree, path);
		check_contents(tree, "files");
		tree_destroy(tree);
	}
	if (pclose(list) || !count)
		cr_skip_test("tests/debian-packages got no packages");
	cr_assert_eq(count, 50);
}

Test(real, debian)
{
	char path[200];
	const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
	snprintf(path, sizeof(path), "%s%s/trvmm-build/debian-apt.tar", base ? base : home ? home : "", base ? "" : "/.cache");
	if (access(path, R_OK))
		cr_skip_test(
		    "there is no trvmm-build/debian-apt.tar in the cache: mmdebstrap --variant=apt bookworm debian-apt.tar");
	struct tree *tree = tree_of(path);
	check_listing(tree, path);
	cr_assert_geq(tree->entry_count, 5000);
	char *data;
	size_t length;
	cr_assert_eq(tree_read_file(tree, tree->entries[tree_lookup(tree, "/etc/os-release", 1)].inode, 4096, &data, &length), 0);
	cr_assert(strstr(data, "Debian"));
	free(data);
	tree_destroy(tree);
}
