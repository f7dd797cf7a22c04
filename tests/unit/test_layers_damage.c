/* A medium that returns other bytes than it was given: noticed at the first read of a chunk, whichever it is. */
#include "test_layers_cache_util.h"

#include "layers/inflated_file_internal.h"

TestSuite(damage, .init = set_up, .fini = tear_down);

static int read_source(const struct tree *tree, uint64_t offset, void *to, size_t length)
{
	const struct iovec iov = { to, length };
	return tree_source_readv(tree, 0, offset, &iov, 1);
}

static const char *only_entry(void)
{
	static char path[256];
	cr_assert_eq(count_files("layers", path, sizeof(path)), 1);
	return path;
}

/* Reads the byte on both sides of each chunk's start and end, and nothing of the damaged chunk comes through. */
static void assert_only_chunk_is_refused(const struct tree *tree, const struct archive *tar, uint64_t damaged)
{
	for (uint64_t chunk = 0; chunk * CHUNK_BYTES < tar->length; chunk++) {
		const uint64_t start = chunk * CHUNK_BYTES;
		const uint64_t end = start + CHUNK_BYTES < tar->length ? start + CHUNK_BYTES : tar->length;
		uint8_t first = 0, last = 0;
		cr_assert_eq(read_source(tree, start, &first, 1), chunk == damaged ? -EBADMSG : 0);
		cr_assert_eq(read_source(tree, end - 1, &last, 1), chunk == damaged ? -EBADMSG : 0);
		if (chunk != damaged) {
			cr_assert_eq(first, tar->bytes[start]);
			cr_assert_eq(last, tar->bytes[end - 1]);
		}
	}
	uint8_t *all = malloc(tar->length);
	cr_assert_eq(read_source(tree, 0, all, tar->length), -EBADMSG);
	free(all);
}

Test(damage, every_chunk_is_refused_and_healed_at_the_next_start)
{
	const char *path = write_sample_gz("hello");
	struct archive tar = sample("hello");
	settle();
	load_holds(path, "hello");
	for (uint64_t chunk = 0; chunk * CHUNK_BYTES < tar.length; chunk++) {
		const uint64_t start = chunk * CHUNK_BYTES, left = tar.length - start;
		struct tree *tree = load(path);
		cr_assert(tree->map != tree->inodes, "it came from the cache");
		damage(only_entry(), (off_t)(start + (left < CHUNK_BYTES ? left : CHUNK_BYTES) * (chunk % 4) / 4));
		assert_only_chunk_is_refused(tree, &tar, chunk);
		tree_destroy(tree);
		cr_assert_not(load_holds(path, "hello"), "chunk %llu was not healed", (unsigned long long)chunk);
	}
	free(tar.bytes);
}

Test(damage, a_sum_that_is_lost_is_no_silent_error)
{
	const char *path = write_sample_gz("hello");
	struct archive tar = sample("hello");
	uint8_t byte;
	settle();
	load_holds(path, "hello");
	struct tree *tree = load(path);
	damage(only_entry(), (off_t)((tar.length + 4095) / 4096 * 4096 + 5)); /* the sum of chunk 1 */
	cr_assert_eq(read_source(tree, 0, &byte, 1), 0);
	cr_assert_eq(read_source(tree, CHUNK_BYTES, &byte, 1), -EBADMSG);
	tree_destroy(tree);
	cr_assert_not(load_holds(path, "hello"));
	cr_assert(load_holds(path, "hello"));
	free(tar.bytes);
}

Test(damage, a_chunk_is_looked_at_once_in_a_run)
{
	const char *path = write_sample_gz("hello");
	uint8_t before, after;
	settle();
	load_holds(path, "hello");
	struct tree *tree = load(path);
	cr_assert_eq(read_source(tree, 100000, &before, 1), 0);
	damage(only_entry(), 100000);
	cr_assert_eq(read_source(tree, 100000, &after, 1), 0);
	cr_assert_eq(after, before ^ 0x40, "this test says what is not promised, so that nobody believes more");
	tree_destroy(tree);
}

Test(damage, headers_are_checked_when_a_tree_is_made_of_an_entry_which_is_then_made_anew)
{
	char *below = strdup(write_sample_gz("hello"));
	const char *paths[2] = { below };
	struct error err = { "" };
	struct tree *tree = NULL;
	settle();
	load_holds(paths[0], "hello");
	damage(only_entry(), 512); /* contents of "f", in the chunk of its header */
	/* Another stack, so no tree is remembered, but the entry is; it is made anew at once. */
	paths[1] = write_sample_tar("top.tar", "hello");
	cr_assert_eq(layers_load(paths, 2, NULL, 0, cache, &tree, &err), 0, "%s", err.text);
	assert_text(tree, "f", "hello");
	tree_destroy(tree);
	free(below);
}

Test(damage, reads_beyond_the_payload_are_refused)
{
	const char *path = write_sample_gz("hello");
	struct archive tar = sample("hello");
	uint8_t bytes[2];
	load_holds(path, "hello");
	struct tree *tree = load(path);
	cr_assert_eq(read_source(tree, tar.length - 1, bytes, 1), 0);
	cr_assert_eq(read_source(tree, tar.length - 1, bytes, 2), -EIO);
	cr_assert_eq(read_source(tree, UINT64_MAX - 1, bytes, 2), -EIO);
	tree_destroy(tree);
	free(tar.bytes);
}

Test(damage, an_entry_of_the_former_format_is_made_anew_silently)
{
	const char *path = write_sample_gz("hello");
	struct stat st;
	settle();
	load_holds(path, "hello");
	cr_assert_eq(stat(only_entry(), &st), 0);
	const int fd = open(only_entry(), O_RDWR);
	struct foot foot;
	cr_assert_eq(pread(fd, &foot, sizeof(foot), st.st_size - (off_t)sizeof(foot)), (ssize_t)sizeof(foot));
	foot.magic[7] = '2';
	foot.checksum = cache_checksum(0, &foot, offsetof(struct foot, checksum));
	const off_t at = (off_t)((foot.payload_bytes + 4095) / 4096 * 4096);
	cr_assert_eq(pwrite(fd, &foot, sizeof(foot), at), (ssize_t)sizeof(foot));
	cr_assert_eq(ftruncate(fd, at + (off_t)sizeof(foot)), 0);
	const struct timespec times[2] = { st.st_atim, st.st_mtim };
	cr_assert_eq(futimens(fd, times), 0);
	close(fd);
	cr_assert_not(load_holds(path, "hello"));
	cr_assert(load_holds(path, "hello"));
}
