/* Layers compressed with zstd, xz and bzip2: what gzip's tests say of it holds for all. */
#include "test_layers_cache_util.h"

#include <bzlib.h>
#include <lzma.h>
#include <zstd.h>

TestSuite(codec, .init = set_up, .fini = tear_down);

#define ROOM_BYTES ((size_t)400000)

static size_t compress_zstd(const uint8_t *from, size_t length, uint8_t *to)
{
	ZSTD_CCtx *context = ZSTD_createCCtx();
	ZSTD_CCtx_setParameter(context, ZSTD_c_checksumFlag, 1);
	const size_t n = ZSTD_compress2(context, to, ROOM_BYTES, from, length);
	ZSTD_freeCCtx(context);
	cr_assert_not(ZSTD_isError(n));
	return n;
}

static size_t compress_xz(const uint8_t *from, size_t length, uint8_t *to)
{
	size_t n = 0;
	cr_assert_eq(lzma_easy_buffer_encode(0, LZMA_CHECK_CRC64, NULL, from, length, to, &n, ROOM_BYTES), LZMA_OK);
	return n;
}

static size_t compress_bzip2(const uint8_t *from, size_t length, uint8_t *to)
{
	unsigned n = (unsigned)ROOM_BYTES;
	cr_assert_eq(BZ2_bzBuffToBuffCompress((char *)to, &n, (char *)(uintptr_t)from, (unsigned)length, 1, 0, 0), BZ_OK);
	return n;
}

static const struct compression {
	const char *name;
	size_t (*compress)(const uint8_t *from, size_t length, uint8_t *to);
	bool padding_between;
} compressions[] = {
	{ "zstd", compress_zstd, false },
	{ "xz", compress_xz, true },
	{ "bzip2", compress_bzip2, false },
};

#define FOR_EACH(c) for (const struct compression *c = compressions; c < compressions + 3; c++)

static struct archive compressed(const struct compression *c, const void *bytes, size_t length)
{
	struct archive out = { .bytes = malloc(ROOM_BYTES) };
	out.length = c->compress(bytes, length, out.bytes);
	return out;
}

static struct archive compressed_sample(const struct compression *c)
{
	struct archive tar = sample("hello"), out = compressed(c, tar.bytes, tar.length);
	free(tar.bytes);
	return out;
}

static const char *put(const struct archive *a)
{
	write_file(in_root("layer"), a->bytes, a->length);
	return in_root("layer");
}

static void refused(struct archive *a, int code, const char *words)
{
	const unsigned before = count_files("layers", NULL, 0);
	load_refused(put(a), code, words);
	cr_assert_eq(count_files("layers", NULL, 0), before, "something was left in the cache");
	free(a->bytes);
}

Test(codec, layers_are_read_and_cached)
{
	unsigned entries = 0;
	FOR_EACH(c)
	{
		struct archive a = compressed_sample(c);
		put(&a);
		settle();
		load_holds(in_root("layer"), "hello");
		cr_assert(load_holds(in_root("layer"), "hello"), "%s: the second load was not from the cache", c->name);
		cr_assert_eq(count_files("layers", NULL, 0), ++entries);
		free(a.bytes);
	}
}

Test(codec, several_members_and_padding)
{
	struct archive tar = sample("hello");
	FOR_EACH(c)
	{
		struct archive one = compressed(c, tar.bytes, 700), two = compressed(c, tar.bytes + 700, 0),
			       three = compressed(c, tar.bytes + 700, tar.length - 700);
		archive_append(&one, two.bytes, two.length);
		if (c->padding_between)
			archive_append(&one, (const char[8]){ 0 }, 8);
		archive_append(&one, three.bytes, three.length);
		archive_append(&one, (const char[100]){ 0 }, 100);
		load_holds(put(&one), "hello");
		free(one.bytes);
		free(two.bytes);
		free(three.bytes);
	}
	free(tar.bytes);
}

Test(codec, output_larger_than_any_buffer_comes_out_whole)
{
	struct archive tar = { 0 };
	char *zeroes = calloc(1, 5000000);
	ADD(&tar, .name = "zeroes", .type = '0', .text = zeroes, .text_bytes = 5000000);
	ADD(&tar, .name = "f", .type = '0', .text = "behind");
	archive_end(&tar);
	FOR_EACH(c)
	{
		struct archive a = compressed(c, tar.bytes, tar.length);
		load_holds(put(&a), "behind");
		free(a.bytes);
	}
	free(zeroes);
	free(tar.bytes);
}

Test(codec, skippable_frames_of_zstd_are_skipped)
{
	struct archive a = { 0 }, frame = compressed_sample(&compressions[0]);
	archive_append(&a, "\x50\x2a\x4d\x18\4\0\0\0abcd", 12);
	archive_append(&a, frame.bytes, frame.length);
	archive_append(&a, "\x5f\x2a\x4d\x18\1\0\0\0e", 9);
	load_holds(put(&a), "hello");
	free(a.bytes);
	free(frame.bytes);
}

Test(codec, refuses_trailing_garbage)
{
	FOR_EACH(c)
	{
		struct archive a = compressed_sample(c);
		char words[120];
		snprintf(words, sizeof(words), "something that is not %s follows the compressed data at byte %zu", c->name,
			 a.length);
		archive_append(&a, "garbage", 7);
		refused(&a, -EINVAL, words);
	}
}

Test(codec, refuses_truncation_at_any_byte)
{
	FOR_EACH(c)
	{
		struct archive a = compressed_sample(c);
		const size_t whole = a.length;
		for (size_t length = 8; length < whole; length += length < 64 || whole - length < 64 ? 1 : whole / 20) {
			char words[100];
			snprintf(words, sizeof(words), "the %s data is truncated at byte %zu", c->name, length);
			a.length = length;
			load_refused(put(&a), -ENODATA, words);
		}
		free(a.bytes);
	}
}

Test(codec, corruption_is_refused_with_the_byte)
{
	FOR_EACH(c)
	{
		struct archive a = compressed_sample(c);
		char words[100];
		snprintf(words, sizeof(words), "the %s data is corrupt at byte ", c->name);
		for (size_t at = 12; at < a.length; at += a.length / 40 + 1) {
			a.bytes[at] ^= 0x55;
			put(&a);
			struct error err = { "" };
			struct tree *tree = NULL;
			const char *path = in_root("layer");
			const int ret = layers_load(&path, 1, NULL, 0, cache, &tree, &err);
			cr_assert_neq(ret, 0, "%s: a changed byte %zu was not noticed", c->name, at);
			cr_assert(ret != -EINVAL || strstr(err.text, words), "%s", err.text);
			a.bytes[at] ^= 0x55;
		}
		free(a.bytes);
	}
}

Test(codec, refuses_a_zstd_window_beyond_the_limit)
{
	/* A frame header: no content size, window descriptor for 2^30 bytes, then an empty last block. */
	struct archive a = { 0 };
	archive_append(&a, "\x28\xb5\x2f\xfd\0\xa0\1\0\0", 9);
	refused(&a, -EFBIG, "needs more than");
}

Test(codec, refuses_an_xz_dictionary_beyond_the_limit)
{
	struct archive a = compressed_sample(&compressions[1]);
	/* Block header at 12: size, flags, sizes, filter 0x21, 1 byte of properties: the dictionary, here 1 GiB; CRC at the end. */
	const size_t header_bytes = ((size_t)a.bytes[12] + 1) * 4;
	uint8_t *filter = memmem(a.bytes + 12, header_bytes, "\x21\1", 2);
	cr_assert(filter);
	filter[2] = 36;
	const uint32_t crc = lzma_crc32(a.bytes + 12, header_bytes - 4, 0);
	memcpy(a.bytes + 12 + header_bytes - 4, &crc, 4);
	refused(&a, -EFBIG, "needs more than");
}
