/* xz: "The .xz File Format". liblzma checks blocks and index; zeroes may stand between streams (section 2.2). */
#include <errno.h>
#include <lzma.h>
#include <stdlib.h>
#include <string.h>

#include "layers/codec_internal.h"

static bool xz_matches(const uint8_t head[8])
{
	return memcmp(head,
		      "\xfd"
		      "7zXZ\0",
		      6) == 0;
}

static void *xz_create(void)
{
	lzma_stream *stream = malloc(sizeof(*stream));
	if (stream)
		*stream = (lzma_stream)LZMA_STREAM_INIT;
	return stream;
}

static void xz_destroy(void *state)
{
	lzma_end(state);
	free(state);
}

static int xz_begin(void *state)
{
	return lzma_stream_decoder(state, CODEC_MEMORY_MAX, 0) == LZMA_OK ? 0 : -ENOMEM;
}

static int xz_decode(void *state, struct codec_buffers *io, const char **why)
{
	lzma_stream *stream = state;
	stream->next_in = io->in;
	stream->avail_in = io->in_bytes;
	stream->next_out = io->out;
	stream->avail_out = io->out_bytes;
	const lzma_ret ret = lzma_code(stream, LZMA_RUN);
	*io = (struct codec_buffers){ stream->next_in, stream->avail_in, stream->next_out, stream->avail_out };
	switch (ret) {
	case LZMA_STREAM_END:
		return CODEC_MEMBER_ENDS;
	case LZMA_OK:
	case LZMA_BUF_ERROR: /* nothing could be done with what there was */
		return CODEC_GOES_ON;
	case LZMA_MEM_ERROR:
		return -ENOMEM;
	case LZMA_MEMLIMIT_ERROR:
		return -EFBIG;
	case LZMA_FORMAT_ERROR:
		*why = "no xz header";
		return -EINVAL;
	case LZMA_OPTIONS_ERROR:
		*why = "unknown options";
		return -EINVAL;
	default:
		*why = "wrong data or check";
		return -EINVAL;
	}
}

const struct codec codec_xz = {
	.name = "xz",
	.first_bytes = "\xfd",
	.padding_between = true,
	.matches = xz_matches,
	.create = xz_create,
	.destroy = xz_destroy,
	.begin = xz_begin,
	.decode = xz_decode,
};
