/* gzip: RFC 1952. zlib checks every member's CRC and length. */
#define ZLIB_CONST
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "layers/codec_internal.h"

static bool gzip_matches(const uint8_t head[8])
{
	return head[0] == 0x1f && head[1] == 0x8b;
}

static void *gzip_create(void)
{
	z_stream *stream = calloc(1, sizeof(*stream));
	if (stream && inflateInit2(stream, 15 + 16) != Z_OK) {
		free(stream);
		return NULL;
	}
	return stream;
}

static void gzip_destroy(void *state)
{
	inflateEnd(state);
	free(state);
}

static int gzip_begin(void *state)
{
	return inflateReset(state) == Z_OK ? 0 : -ENOMEM;
}

static int gzip_decode(void *state, struct codec_buffers *io, const char **why)
{
	z_stream *stream = state;
	stream->next_in = io->in;
	stream->avail_in = (uInt)io->in_bytes;
	stream->next_out = io->out;
	stream->avail_out = (uInt)io->out_bytes;
	const int z = inflate(stream, Z_NO_FLUSH);
	*io = (struct codec_buffers){ stream->next_in, stream->avail_in, stream->next_out, stream->avail_out };
	switch (z) {
	case Z_STREAM_END:
		return CODEC_MEMBER_ENDS;
	case Z_OK:
	case Z_BUF_ERROR: /* nothing could be done with what there was */
		return CODEC_GOES_ON;
	case Z_MEM_ERROR:
		return -ENOMEM;
	default:
		*why = stream->msg ? stream->msg : "it needs a dictionary";
		return -EINVAL;
	}
}

const struct codec codec_gzip = {
	.name = "gzip",
	.first_bytes = "\x1f",
	.matches = gzip_matches,
	.create = gzip_create,
	.destroy = gzip_destroy,
	.begin = gzip_begin,
	.decode = gzip_decode,
};
