/*
 * gzip to a plain file: RFC 1952. One pass with zlib, which also checks every member's CRC and length.
 *
 * A file may consist of several members, and zeroes may pad its end (as on tapes); anything else behind a member is an error, since
 * it means that the file is not what its maker made.
 */
#define ZLIB_CONST
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

#include "layers/cache.h"

#define CHUNK_BYTES ((size_t)INFLATED_CHUNK_BYTES)

struct inflation {
	int from, to;
	const char *to_name;
	z_stream stream;
	uint8_t *in, *out;     /* owned, CHUNK_BYTES each */
	uint64_t read_bytes, written_bytes;
	uint64_t checksum;     /* of what was written, chunk by chunk */
	bool open;             /* inside a member */
	bool padding;          /* zeroes were seen behind a member */
	bool at_end;           /* the compressed file's */
};

/* The byte of the compressed file that comes next. */
static unsigned long long position(const struct inflation *inflation)
{
	return inflation->read_bytes - inflation->stream.avail_in;
}

static int fill(struct inflation *inflation, struct error *err)
{
	ssize_t n;
	do {
		n = pread(inflation->from, inflation->in, CHUNK_BYTES, (off_t)inflation->read_bytes);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return error_set(err, -errno, "cannot read byte %llu: %s", position(inflation), strerror(errno));
	inflation->at_end = n == 0;
	inflation->stream.next_in = inflation->in;
	inflation->stream.avail_in = (uInt)n;
	inflation->read_bytes += (uint64_t)n;
	return 0;
}

static int drain(struct inflation *inflation, struct error *err)
{
	const size_t length = CHUNK_BYTES - inflation->stream.avail_out;
	for (size_t done = 0; done < length;) {
		const ssize_t n = write(inflation->to, inflation->out + done, length - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == ENOSPC || errno == EDQUOT))
			return error_set(err, -errno,
					 "no space left in the cache %s after %llu MB: make room or set XDG_CACHE_HOME",
					 inflation->to_name, (unsigned long long)((inflation->written_bytes + done) >> 20));
		if (n < 0)
			return error_set(err, -errno, "cannot write to the cache %s: %s", inflation->to_name, strerror(errno));
		done += (size_t)n;
	}
	inflation->checksum = cache_checksum(inflation->checksum, inflation->out, length);
	inflation->written_bytes += length;
	inflation->stream.next_out = inflation->out;
	inflation->stream.avail_out = (uInt)CHUNK_BYTES;
	return 0;
}

/* Between members: skips padding, begins the next one. Looks at one byte; inflate() judges the rest of the header. */
static int begin_member(struct inflation *inflation, struct error *err)
{
	z_stream *stream = &inflation->stream;
	const bool first = position(inflation) == 0;
	while (!first && stream->avail_in && *stream->next_in == 0) {
		stream->next_in++;
		stream->avail_in--;
		inflation->padding = true;
	}
	if (!stream->avail_in)
		return 0;
	if (inflation->padding || *stream->next_in != 0x1f)
		return error_set(err, -EINVAL, "something that is not gzip follows the compressed data at byte %llu",
				 position(inflation));
	inflateReset(stream);
	inflation->open = true;
	return 0;
}

static int inflate_chunk(struct inflation *inflation, struct error *err)
{
	z_stream *stream = &inflation->stream;
	while (stream->avail_in) {
		int ret = 0;
		if (!inflation->open)
			ret = begin_member(inflation, err);
		if (ret || !stream->avail_in)
			return ret;
		const int z = inflate(stream, Z_NO_FLUSH);
		if (z == Z_STREAM_END)
			inflation->open = false;
		else if (z == Z_MEM_ERROR)
			return error_set(err, -ENOMEM, "out of memory");
		else if (z != Z_OK && z != Z_BUF_ERROR)
			return error_set(err, -EINVAL, "the gzip data is corrupt at byte %llu (%s)", position(inflation),
					 stream->msg ? stream->msg : "it needs a dictionary");
		if (!stream->avail_out)
			ret = drain(inflation, err);
		if (ret)
			return ret;
	}
	return 0;
}

static int inflate_all(struct inflation *inflation, struct error *err)
{
	int ret = 0;
	while (!ret && !inflation->at_end) {
		ret = fill(inflation, err);
		if (!ret)
			ret = inflate_chunk(inflation, err);
	}
	if (!ret && inflation->open)
		ret = error_set(err, -ENODATA, "the gzip data is truncated at byte %llu", position(inflation));
	return ret || inflation->stream.avail_out == CHUNK_BYTES ? ret : drain(inflation, err);
}

int gzip_inflate_file(int from, int to, const char *to_name, uint64_t *size_bytes, uint64_t *checksum, struct error *err)
{
	struct inflation inflation = { .from = from, .to = to, .to_name = to_name };
	inflation.in = malloc(2 * CHUNK_BYTES);
	if (!inflation.in)
		return error_set(err, -ENOMEM, "out of memory");
	inflation.out = inflation.in + CHUNK_BYTES;
	inflation.stream.next_out = inflation.out;
	inflation.stream.avail_out = (uInt)CHUNK_BYTES;
	int ret = inflateInit2(&inflation.stream, 15 + 16) == Z_OK ? 0 : error_set(err, -ENOMEM, "out of memory");
	if (!ret) {
		ret = inflate_all(&inflation, err);
		inflateEnd(&inflation.stream);
	}
	free(inflation.in);
	if (!ret) {
		*size_bytes = inflation.written_bytes;
		*checksum = inflation.checksum;
	}
	return ret;
}
