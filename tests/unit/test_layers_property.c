/*
 * Random images (tests/property/random-image), and one that buildah makes, merged here and unpacked by umoci: the two must agree about
 * every name and attribute.
 *
 * Seeds are 1, 2, ... so that a failure comes back; PROPERTY_SEED=N begins elsewhere, PROPERTY_COUNT=N does more.
 *
 * Not compared, since umoci departs from the archive there:
 *   - the time of a directory that no layer describes (the time of unpacking), and its mode (by the umask);
 *   - the time of a directory in which a marker hides something after the layer has described it (the time of unpacking as well);
 *   - attributes with an empty value, which umoci drops (other engines keep them): the images have none.
 */
#include "test_layers_cache_util.h"

#include <ftw.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <time.h>

TestSuite(property, .init = set_up, .fini = tear_down, .timeout = 110);

static char unpacked[160]; /* what umoci made */
static unsigned seed;
static unsigned walked;
static time_t started;

static int count_name(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
	(void)path, (void)st, (void)flag, (void)ftw;
	walked++;
	return 0;
}

static int sh(const char *format, ...)
{
	char command[1000];
	va_list args;
	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	return system(command);
}

#define SAME(condition, ...)                                                                                                       \
	do {                                                                                                                       \
		char quoted_[600], what_[400];                                                                                     \
		snprintf(what_, sizeof(what_), __VA_ARGS__);                                                                       \
		cr_assert(condition, "PROPERTY_SEED=%u: '%s': %s", seed,                                                           \
			  error_quote(quoted_, sizeof(quoted_), path, strlen(path)), what_);                                       \
	} while (0)

static void compare_contents(const struct tree *tree, uint32_t number, const char *path, const char *host)
{
	char *ours = NULL, theirs[8192];
	size_t length;
	const int ret = tree_read_file(tree, number, sizeof(theirs), &ours, &length);
	SAME(ret == 0, "cannot be read: %d", ret);
	const int fd = open(host, O_RDONLY);
	const ssize_t n = fd < 0 ? -1 : read(fd, theirs, sizeof(theirs));
	SAME(n == (ssize_t)length && memcmp(ours, theirs, length) == 0, "other contents (%zu and %zd bytes)", length, n);
	close(fd);
	free(ours);
}

static void compare_xattrs(const struct tree *tree, const struct tree_inode *inode, const char *path, const char *host)
{
	char names[4096];
	ssize_t left = llistxattr(host, names, sizeof(names));
	unsigned theirs = 0;
	for (char *name = names; left > 0 && name < names + left; name += strlen(name) + 1)
		theirs += strncmp(name, "user.", 5) == 0 || strcmp(name, "security.capability") == 0;
	SAME(inode->xattr_count == theirs, "%u attributes, not %u", inode->xattr_count, theirs);
	for (uint32_t i = 0; i < inode->xattr_count; i++) {
		const struct tree_xattr *x = &tree->xattrs[inode->first_xattr + i];
		char name[256], value[4096];
		snprintf(name, sizeof(name), "%.*s", x->name_bytes, tree->strings + x->name);
		const ssize_t n = lgetxattr(host, name, value, sizeof(value));
		SAME(n == (ssize_t)x->value_bytes && memcmp(value, tree->strings + x->value, (size_t)n) == 0, "attribute %s", name);
	}
}

static void compare_inode(const struct tree *tree, uint32_t number, const char *path)
{
	const struct tree_inode *inode = &tree->inodes[number];
	char host[6000], target[4200];
	struct stat st;
	snprintf(host, sizeof(host), "%s/%s", unpacked, path);
	SAME(lstat(host, &st) == 0, "umoci has none");
	SAME((inode->mode & S_IFMT) == (st.st_mode & S_IFMT), "type %o, not %o", inode->mode, st.st_mode);
	const bool implied = S_ISDIR(st.st_mode) && inode->mode == (S_IFDIR | 0755) && inode->mtime_s == 0 && !inode->mtime_ns;
	SAME(S_ISLNK(st.st_mode) || implied || inode->mode == st.st_mode, "mode %o, not %o", inode->mode, st.st_mode);
	SAME(inode->uid == st.st_uid && inode->gid == st.st_gid, "owner %u:%u, not %u:%u", inode->uid, inode->gid, st.st_uid,
	     st.st_gid);
	const bool touched = S_ISDIR(st.st_mode) && st.st_mtim.tv_sec >= started;
	SAME(implied || (touched && st.st_mtim.tv_sec < 3000000000) ||
		 (inode->mtime_s == st.st_mtim.tv_sec && inode->mtime_ns == (uint32_t)st.st_mtim.tv_nsec),
	     "time %lld.%09u, not %lld.%09lu", (long long)inode->mtime_s, inode->mtime_ns, (long long)st.st_mtim.tv_sec,
	     (unsigned long)st.st_mtim.tv_nsec);
	SAME(inode->nlink == st.st_nlink, "%u links, not %lu", inode->nlink, (unsigned long)st.st_nlink);
	if (S_ISREG(st.st_mode))
		compare_contents(tree, number, path, host);
	if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode))
		SAME(inode->rdev >> 20 == major(st.st_rdev) && (inode->rdev & 0xfffff) == minor(st.st_rdev), "device");
	if (S_ISLNK(st.st_mode)) {
		const ssize_t n = readlink(host, target, sizeof(target));
		SAME(n == (ssize_t)inode->size_bytes && memcmp(target, tree->strings + inode->target, (size_t)n) == 0, "target");
	} else {
		compare_xattrs(tree, inode, path, host);
	}
}

/* Breadth first, so a directory's path is known before its children's. */
static void compare_trees(const struct tree *tree)
{
	char **paths = calloc(tree->inode_count, sizeof(*paths)); /* of directories, by inode */
	paths[0] = strdup("");
	compare_inode(tree, 0, "");
	for (uint32_t i = 1; i < tree->entry_count; i++) {
		const struct tree_entry *entry = &tree->entries[i];
		char *path = NULL;
		cr_assert(asprintf(&path, "%s%s%.*s", paths[entry->parent], entry->parent ? "/" : "", entry->name_bytes,
				   tree->strings + entry->name) > 0);
		compare_inode(tree, entry->inode, path);
		if (S_ISDIR(tree->inodes[entry->inode].mode))
			paths[entry->inode] = path;
		else
			free(path);
	}
	for (uint32_t i = 0; i < tree->inode_count; i++)
		free(paths[i]);
	free(paths);
	walked = 0;
	cr_assert_eq(nftw(unpacked, count_name, 16, FTW_PHYS), 0);
	cr_assert_eq(walked, tree->entry_count, "PROPERTY_SEED=%u: umoci has %u names, we %u", seed, walked, tree->entry_count);
}

static unsigned number_of(const char *name, unsigned otherwise)
{
	const char *text = getenv(name);
	return text ? (unsigned)strtoul(text, NULL, 10) : otherwise;
}

/* The image named "t" in the layout. */
static void compare_with_umoci(const char *layout)
{
	struct error err = { "" };
	struct tree *tree = NULL;
	const bool unpacks = sh("umoci raw unpack --image %s:t %s >%s/umoci.log 2>&1", layout, unpacked, root) == 0;
	const int ret = layers_load(&layout, 1, NULL, 0, cache, &tree, &err);
	cr_assert(unpacks, "PROPERTY_SEED=%u: umoci refuses what we %s", seed, ret ? "refuse as well" : "accept");
	cr_assert_eq(ret, 0, "PROPERTY_SEED=%u: %s", seed, err.text);
	compare_trees(tree);
	tree_destroy(tree);
}

Test(property, random_images_are_what_umoci_makes_of_them)
{
	if (geteuid() != 0 || sh("command -v umoci >/dev/null && command -v python3 >/dev/null"))
		cr_skip_test("needs root, umoci and python3");
	const unsigned first = number_of("PROPERTY_SEED", 1), count = number_of("PROPERTY_COUNT", 60);
	snprintf(unpacked, sizeof(unpacked), "%s/unpacked", root);
	started = time(NULL) - 1;
	for (seed = first; seed < first + count; seed++) {
		char path[128];
		snprintf(path, sizeof(path), "%s/image", root);
		cr_assert_eq(sh("rm -rf %s %s && tests/property/random-image %u %s", path, unpacked, seed, path), 0);
		compare_with_umoci(path);
	}
}

Test(property, what_buildah_makes_is_what_umoci_makes_of_it)
{
	if (geteuid() != 0 || sh("command -v umoci >/dev/null && command -v buildah >/dev/null && command -v setfattr >/dev/null"))
		cr_skip_test("needs root, umoci, buildah and setfattr");
	char path[128];
	snprintf(unpacked, sizeof(unpacked), "%s/unpacked", root);
	snprintf(path, sizeof(path), "%s/image", root);
	started = time(NULL) - 1;
	cr_assert_eq(sh("tests/property/buildah-image %s", path), 0);
	compare_with_umoci(path);
}
