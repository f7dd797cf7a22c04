/* Decompression of a kernel's payload; see unpack.h. */
#include "vmm/unpack.h"

#include <errno.h>
#include <lz4.h>
#include <lzma.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>

#include "base/iov.h"
#include "base/le.h"

#define CHUNK_BYTES (256u << 10)
#define LZ4_BLOCK_BYTES (8u << 20) /* of the legacy frame: each block unpacks to this, the last one to less */
#define XZ_MEMORY_LIMIT (256ull << 20)

struct unpack_sink {
	int fd;
	uint64_t written;
	uint64_t limit;
};

static int sink_write(struct unpack_sink *sink, const uint8_t *data, size_t length)
{
	if (length > sink->limit - sink->written)
		return -EFBIG;
	const int result = write_full(sink->fd, data, length);
	sink->written += result ? 0 : length;
	return result;
}

static int unpack_gzip(const uint8_t *data, size_t length, struct unpack_sink *sink, uint8_t *chunk)
{
	z_stream stream = { .avail_in = length > UINT32_MAX ? UINT32_MAX : (uInt)length };
	memcpy(&stream.next_in, &data, sizeof(data)); /* zlib does not write there */
	if (inflateInit2(&stream, 16 + MAX_WBITS) != Z_OK)
		return -ENOMEM;
	int result = 0, state = Z_OK;
	while (result == 0 && state != Z_STREAM_END) {
		stream.next_out = chunk;
		stream.avail_out = CHUNK_BYTES;
		state = inflate(&stream, Z_NO_FLUSH);
		if (state != Z_OK && state != Z_STREAM_END)
			result = -EINVAL;
		else
			result = sink_write(sink, chunk, CHUNK_BYTES - stream.avail_out);
	}
	inflateEnd(&stream);
	return result;
}

static int unpack_zstd(const uint8_t *data, size_t length, struct unpack_sink *sink, uint8_t *chunk)
{
	ZSTD_DStream *stream = ZSTD_createDStream();
	if (!stream)
		return -ENOMEM;
	/* The kernel's build uses windows of up to 128 MiB (zstd -22 --ultra). */
	ZSTD_DCtx_setParameter(stream, ZSTD_d_windowLogMax, 27);
	ZSTD_inBuffer in = { .src = data, .size = length };
	int result = 0;
	size_t left = 1;
	while (result == 0 && left) {
		ZSTD_outBuffer out = { .dst = chunk, .size = CHUNK_BYTES };
		const size_t before = in.pos;
		left = ZSTD_decompressStream(stream, &out, &in);
		if (ZSTD_isError(left) || (left && out.pos == 0 && in.pos == before))
			result = -EINVAL;
		else
			result = sink_write(sink, chunk, out.pos);
	}
	ZSTD_freeDStream(stream);
	return result;
}

static int unpack_lzma(const uint8_t *data, size_t length, struct unpack_sink *sink, uint8_t *chunk)
{
	lzma_stream stream = LZMA_STREAM_INIT;
	if (lzma_auto_decoder(&stream, XZ_MEMORY_LIMIT, 0) != LZMA_OK)
		return -ENOMEM;
	stream.next_in = data;
	stream.avail_in = length;
	int result = 0;
	lzma_ret state = LZMA_OK;
	while (result == 0 && state != LZMA_STREAM_END) {
		stream.next_out = chunk;
		stream.avail_out = CHUNK_BYTES;
		state = lzma_code(&stream, LZMA_RUN);
		if (state == LZMA_MEM_ERROR || state == LZMA_MEMLIMIT_ERROR)
			result = -ENOMEM;
		else if (state != LZMA_OK && state != LZMA_STREAM_END)
			result = -EINVAL;
		else
			result = sink_write(sink, chunk, CHUNK_BYTES - stream.avail_out);
	}
	lzma_end(&stream);
	return result;
}

/*
 * The legacy frame: a magic number, then blocks { compressed length le32, data }. It has no end mark: a short block is the last one, and
 * behind a whole one stands nothing more or the size that the kernel's build appended.
 */
static int unpack_lz4(const uint8_t *data, size_t length, struct unpack_sink *sink)
{
	char *block = malloc(LZ4_BLOCK_BYTES);
	if (!block)
		return -ENOMEM;
	int result = 0;
	bool last = false;
	size_t at = 4;
	while (result == 0 && !last) {
		const size_t left = length - at;
		le32 field;
		if (left == 0 && sink->written)
			break;
		if (left < sizeof(field)) {
			result = -EINVAL;
			break;
		}
		memcpy(&field, data + at, sizeof(field));
		const uint32_t packed = le32_get(field);
		if (left == sizeof(field)) {
			result = sink->written && packed == (uint32_t)sink->written ? 0 : -EINVAL;
			break;
		}
		at += sizeof(field);
		if (packed == 0 || packed > length - at || packed > (uint32_t)LZ4_COMPRESSBOUND(LZ4_BLOCK_BYTES)) {
			result = -EINVAL;
			break;
		}
		const int n = LZ4_decompress_safe((const char *)data + at, block, (int)packed, LZ4_BLOCK_BYTES);
		result = n < 0 ? -EINVAL : sink_write(sink, (const uint8_t *)block, (size_t)n);
		at += packed;
		last = n < (int)LZ4_BLOCK_BYTES;
	}
	free(block);
	return result;
}

int64_t unpack_to_fd(const uint8_t *data, size_t length, int fd, uint64_t limit_bytes, struct error *err)
{
	struct unpack_sink sink = { .fd = fd, .limit = limit_bytes };
	const char *format = "unknown";
	int result = -ENOTSUP;
	uint8_t *chunk = malloc(CHUNK_BYTES);
	if (!chunk)
		return error_set(err, -ENOMEM, "out of memory");

	if (length >= 4 && !memcmp(data, "\x1f\x8b", 2)) {
		format = "gzip";
		result = unpack_gzip(data, length, &sink, chunk);
	} else if (length >= 4 && !memcmp(data, "\x28\xb5\x2f\xfd", 4)) {
		format = "zstd";
		result = unpack_zstd(data, length, &sink, chunk);
	} else if (length >= 6 && (!memcmp(data, "\xfd"
					   "7zXZ",
					   6) ||
				   !memcmp(data, "\x5d\0\0", 3))) {
		format = "xz or lzma";
		result = unpack_lzma(data, length, &sink, chunk);
	} else if (length >= 8 && !memcmp(data, "\x02\x21\x4c\x18", 4)) {
		format = "lz4";
		result = unpack_lz4(data, length, &sink);
	}
	free(chunk);
	switch (result) {
	case 0:
		return (int64_t)sink.written;
	case -ENOTSUP:
		return error_set(err, result, "its compression is not supported (gzip, zstd, xz, lzma and lz4 are)");
	case -EINVAL:
		return error_set(err, result, "the %s data is corrupt or truncated", format);
	case -EFBIG:
		return error_set(err, result, "the %s data unpacks to more than %llu MiB", format, (unsigned long long)(limit_bytes >> 20));
	default:
		return error_set(err, result, "unpacking the %s data: %s", format, strerror(-result));
	}
}
