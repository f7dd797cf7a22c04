/* Layers that are merged while they are inflated: the same trees, the same refusals, whatever is there at which moment. */
#include "test_layers_cache_util.h"

#include <pthread.h>

#include "layers/growth_internal.h"
#include "layers/tar_internal.h"

TestSuite(growth, .init = set_up, .fini = tear_down);

/* Of everything that makes a reader look ahead: extended headers, contents over several blocks, a sparse map in the data, links. */
static struct archive mixed(void)
{
	struct archive a = { 0 };
	char text[1300];
	memset(text, 'x', sizeof(text));
	ADD(&a, .name = "d/", .type = '5');
	archive_pax(&a, 'x', "path", "d/a name from an extended header", "SCHILY.xattr.user.k", "v", NULL);
	ADD(&a, .name = "short", .type = '0', .text = text, .text_bytes = sizeof(text));
	archive_pax(&a, 'x', "GNU.sparse.major", "1", "GNU.sparse.minor", "0", "GNU.sparse.realsize", "9000", NULL);
	char sparse[1024] = "1\n4096\n512\n";
	memset(sparse + 512, 's', 512);
	ADD(&a, .name = "sparse", .type = '0', .text = sparse, .text_bytes = sizeof(sparse));
	ADD(&a, .name = "link", .type = '2', .link = "short");
	ADD(&a, .name = "last", .type = '0', .text = "end", .text_bytes = 3);
	archive_end(&a);
	return a;
}

/* What a reader says of an archive, as text. */
static void tell(struct tar_reader *reader, char *out, size_t size)
{
	struct error err = { "" };
	struct tar_entry entry;
	size_t used = 0;
	int ret;
	while ((ret = tar_next(reader, &entry, &err)) > 0) {
		used += (size_t)snprintf(out + used, size - used, "%.*s %o %llu", (int)entry.path.length, entry.path.bytes,
					 entry.mode, (unsigned long long)entry.size_bytes);
		for (uint32_t i = 0; i < entry.extent_count; i++)
			used += (size_t)snprintf(out + used, size - used, " %llu+%llu",
						 (unsigned long long)entry.extents[i].source_offset,
						 (unsigned long long)entry.extents[i].length);
		used += (size_t)snprintf(out + used, size - used, "\n");
		cr_assert_lt(used, size);
	}
	snprintf(out + used, size - used, "%d %s\n", ret, err.text);
	tar_close(reader);
}

struct writer {
	struct growth *growth;
	int fd;
	const struct archive *archive;
	size_t length, step;
};

/* Bytes come first and are told of then, as from a sink. */
static void *write_slowly(void *arg)
{
	const struct writer *writer = arg;
	for (size_t done = 0; done < writer->length;) {
		const size_t left = writer->length - done, take = left < writer->step ? left : writer->step;
		if (pwrite(writer->fd, writer->archive->bytes + done, take, (off_t)done) != (ssize_t)take)
			break;
		growth_advance(writer->growth, take);
		done += take;
	}
	growth_end(writer->growth);
	return NULL;
}

static void tell_growing(const struct archive *archive, size_t length, size_t step, char *out, size_t size)
{
	struct growth growth;
	struct tar_reader reader;
	pthread_t thread;
	const int fd = open(in_root("growing"), O_RDWR | O_CREAT | O_TRUNC, 0600);
	growth_init(&growth);
	growth_begin(&growth, fd);
	struct writer writer = { &growth, fd, archive, length, step };
	cr_assert_eq(pthread_create(&thread, NULL, write_slowly, &writer), 0);
	cr_assert(growth_is_begun(&growth));
	tar_open_growing(&reader, &growth);
	tell(&reader, out, size);
	pthread_join(thread, NULL);
	growth_destroy(&growth);
	close(fd);
}

Test(growth, reader_says_the_same_of_every_truncation_at_every_pace)
{
	struct archive archive = mixed();
	char complete[2000], growing[2000];
	for (size_t length = 0; length <= archive.length; length += length % 512 > 3 && length % 512 < 508 ? 14 : 1) {
		struct tar_reader reader;
		tar_open(&reader, -1, archive.bytes, length);
		tell(&reader, complete, sizeof(complete));
		for (size_t step = 7; step <= 7 * 300 * 300; step *= 300) {
			tell_growing(&archive, length, step, growing, sizeof(growing));
			cr_assert_str_eq(growing, complete, "%zu bytes in steps of %zu", length, step);
		}
	}
	cr_assert(strstr(complete, "\n0 \n") && strstr(complete, "sparse"), "the sample is no archive: %s", complete);
	free(archive.bytes);
}

Test(growth, failure_of_the_writer_ends_the_wait)
{
	struct growth growth;
	uint64_t grown;
	growth_init(&growth);
	growth_settle(&growth, true);
	cr_assert_not(growth_is_begun(&growth));
	cr_assert_not(growth_is_settled(&growth));
	cr_assert_eq(growth_wait(&growth, 1, &grown), 0);
	growth_destroy(&growth);
}

static int load_one(const char *path, struct error *err)
{
	struct tree *tree = NULL;
	const int ret = layers_load(&path, 1, NULL, 0, cache, &tree, err);
	tree_destroy(tree);
	return ret;
}

Test(growth, every_truncation_of_a_compressed_layer_is_refused)
{
	struct archive tar = mixed(), gz = gzip(tar.bytes, tar.length);
	const char *path = in_root("cut.gz");
	for (size_t length = 2; length < gz.length; length++) {
		struct error err = { "" };
		char words[60];
		write_file(path, gz.bytes, length);
		snprintf(words, sizeof(words), "the gzip data is truncated at byte %zu", length);
		cr_assert_eq(load_one(path, &err), -ENODATA, "%zu: %s", length, err.text);
		cr_assert(strstr(err.text, words), "%s", err.text);
		cr_assert_eq(count_files("layers", NULL, 0) + count_files("trees", NULL, 0), 0);
	}
	free(tar.bytes);
	free(gz.bytes);
}

Test(growth, a_truncated_tar_is_refused_in_the_same_words_compressed_or_not)
{
	struct archive tar = mixed();
	const char *path = in_root("cut");
	for (size_t length = 1; length <= tar.length; length += length % 512 > 1 && length % 512 < 510 ? 51 : 1) {
		struct archive gz = gzip(tar.bytes, length);
		struct error plain = { "" }, compressed = { "" };
		write_file(path, tar.bytes, length);
		const int ret = load_one(path, &plain);
		write_file(path, gz.bytes, gz.length);
		cr_assert_eq(load_one(path, &compressed), ret, "%zu: %s", length, compressed.text);
		cr_assert_str_eq(compressed.text, plain.text);
		free(gz.bytes);
	}
	free(tar.bytes);
}

/* The upper layers are ready before the lowest one, and wait for it. */
Test(growth, layers_are_merged_bottom_first_whichever_is_inflated_first)
{
	struct archive below = { 0 }, above = { 0 };
	char *large = calloc(1, 20 << 20), lower[128], upper[128];
	ADD(&below, .name = "large", .type = '0', .text = large, .text_bytes = 20 << 20);
	ADD(&below, .name = "f", .type = '0', .text = "below");
	archive_end(&below);
	ADD(&above, .name = "f", .type = '0', .text = "above");
	archive_end(&above);
	struct archive gz[2] = { gzip(below.bytes, below.length), gzip(above.bytes, above.length) };
	snprintf(lower, sizeof(lower), "%s/lower", root);
	snprintf(upper, sizeof(upper), "%s/upper", root);
	write_file(lower, gz[0].bytes, gz[0].length);
	write_file(upper, gz[1].bytes, gz[1].length);
	const char *paths[3] = { lower, upper, lower };
	for (size_t i = 0; i < 2; i++) {
		struct error err = { "" };
		struct tree *tree = NULL;
		cr_assert_eq(layers_load(paths + i, 2, NULL, 0, cache, &tree, &err), 0, "%s", err.text);
		assert_text(tree, "f", i ? "below" : "above");
		tree_destroy(tree);
	}
	free(large);
	free(below.bytes);
	free(above.bytes);
	free(gz[0].bytes);
	free(gz[1].bytes);
}

/* What is wrong with a layer's bytes is said, and not what they were taken for meanwhile. */
Test(growth, damage_at_the_end_of_the_compressed_file_counts_more_than_what_was_merged)
{
	struct archive tar = sample("hello");
	struct error err = { "" };
	tar.bytes[0] ^= 1; /* a header whose checksum is wrong */
	struct archive gz = gzip(tar.bytes, tar.length);
	gz.bytes[gz.length - 6] ^= 1; /* and gzip's */
	write_file(in_root("bad.gz"), gz.bytes, gz.length);
	cr_assert_eq(load_one(in_root("bad.gz"), &err), -EINVAL);
	cr_assert(strstr(err.text, "(incorrect data check)"), "%s", err.text);
	cr_assert_eq(count_files("layers", NULL, 0) + count_files("trees", NULL, 0), 0);
	free(tar.bytes);
	free(gz.bytes);
}
