/* What the tests of the cache and of the index share: a cache of the test's own, sample layers, harm. */
#ifndef TRVMM_TESTS_UNIT_TEST_LAYERS_CACHE_UTIL_H
#define TRVMM_TESTS_UNIT_TEST_LAYERS_CACHE_UTIL_H

#include "test_layers_util.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <zlib.h>

#include "layers/cache.h"

static char root[64]; /* of this test's own files; Criterion runs each test in a process of its own */
static char cache[80];

static inline void set_up(void)
{
	snprintf(root, sizeof(root), "/tmp/trvmm-test-XXXXXX");
	cr_assert(mkdtemp(root));
	snprintf(cache, sizeof(cache), "%s/cache", root);
}

static inline void tear_down(void)
{
	char command[100];
	snprintf(command, sizeof(command), "rm -rf '%s'", root);
	cr_assert_eq(system(command), 0);
}

static inline void write_file(const char *path, const void *bytes, size_t length)
{
	const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	cr_assert(fd >= 0, "%s", path);
	cr_assert_eq(write(fd, bytes, length), (ssize_t)length);
	close(fd);
}

/* Older than the moment in which a file's times cannot be relied on. ctime cannot be set, so this waits. */
static inline void settle(void)
{
	usleep(70000);
}

static inline struct archive gzip(const void *bytes, size_t length)
{
	struct archive out = { .bytes = malloc(length + 1024) };
	z_stream z = { .next_in = (Bytef *)(uintptr_t)bytes, .avail_in = (uInt)length, .next_out = out.bytes,
		       .avail_out = (uInt)length + 1024 };
	cr_assert_eq(deflateInit2(&z, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
	cr_assert_eq(deflate(&z, Z_FINISH), Z_STREAM_END);
	out.length = z.total_out;
	deflateEnd(&z);
	return out;
}

/* A layer with one file "f", and a second entry of some size so that blocks are crossed. */
static inline struct archive sample(const char *text)
{
	struct archive a = { 0 };
	char *large = malloc(300000);
	for (size_t i = 0; i < 300000; i++)
		large[i] = (char)(i * i >> 5);
	ADD(&a, .name = "f", .type = '0', .text = text);
	ADD(&a, .name = "large", .type = '0', .text = large, .text_bytes = 300000);
	archive_end(&a);
	free(large);
	return a;
}

static inline const char *in_root(const char *name)
{
	static char path[128];
	snprintf(path, sizeof(path), "%s/%s", root, name);
	return path;
}

static inline const char *write_sample_gz(const char *text)
{
	struct archive tar = sample(text), gz = gzip(tar.bytes, tar.length);
	write_file(in_root("layer.tar.gz"), gz.bytes, gz.length);
	free(tar.bytes);
	free(gz.bytes);
	return in_root("layer.tar.gz");
}

static inline struct tree *load(const char *path)
{
	struct error err = { "" };
	struct tree *tree = NULL;
	const int ret = layers_load(&path, 1, NULL, 0, cache, &tree, &err);
	cr_assert_eq(ret, 0, "%s", err.text);
	return tree;
}

/*
 * Loads and asserts that "f" holds the text. Returns whether the tree was mapped from the cache (there its arrays do not begin the
 * map).
 */
static inline bool load_holds(const char *path, const char *text)
{
	struct tree *tree = load(path);
	assert_text(tree, "f", text);
	const bool mapped = tree->map != tree->inodes;
	tree_destroy(tree);
	return mapped;
}

static inline void load_refused(const char *path, int code, const char *words)
{
	struct error err = { "" };
	struct tree *tree = NULL;
	cr_assert_eq(layers_load(&path, 1, NULL, 0, cache, &tree, &err), code, "%s", err.text);
	cr_assert(strstr(err.text, words), "'%s' does not contain '%s'", err.text, words);
	cr_assert_null(tree);
}

/* The files in a directory of the cache; the last one's path goes to `path`. */
static inline unsigned count_files(const char *directory, char *path, size_t size)
{
	char name[128];
	snprintf(name, sizeof(name), "%s/%s", cache, directory);
	DIR *dir = opendir(name);
	unsigned count = 0;
	for (struct dirent *d; dir && (d = readdir(dir));) {
		if (d->d_name[0] == '.')
			continue;
		count++;
		if (path)
			cr_assert_lt((size_t)snprintf(path, size, "%s/%s", name, d->d_name), size);
	}
	if (dir)
		closedir(dir);
	return count;
}

/* Changes one byte without changing the file's times. */
static inline void damage(const char *path, off_t at)
{
	struct stat st;
	uint8_t byte;
	cr_assert_eq(stat(path, &st), 0);
	const int fd = open(path, O_RDWR);
	cr_assert_eq(pread(fd, &byte, 1, at), 1);
	byte ^= 0x40;
	cr_assert_eq(pwrite(fd, &byte, 1, at), 1);
	const struct timespec times[2] = { st.st_atim, st.st_mtim };
	cr_assert_eq(futimens(fd, times), 0);
	close(fd);
}

static inline const char *write_sample_tar(const char *name, const char *text)
{
	struct archive tar = sample(text);
	write_file(in_root(name), tar.bytes, tar.length);
	free(tar.bytes);
	settle();
	return in_root(name);
}

#endif
