/* bzip2: libbz2 checks the CRC of every block and stream. */
#include <bzlib.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "layers/codec_internal.h"

struct bzip2_state {
	bz_stream stream;
	bool open;             /* `stream` holds memory */
};

static bool bzip2_matches(const uint8_t head[8])
{
	return memcmp(head, "BZh", 3) == 0 && head[3] >= '1' && head[3] <= '9';
}

static void *bzip2_create(void)
{
	return calloc(1, sizeof(struct bzip2_state));
}

static void bzip2_destroy(void *arg)
{
	struct bzip2_state *state = arg;
	if (state->open)
		BZ2_bzDecompressEnd(&state->stream);
	free(state);
}

static int bzip2_begin(void *arg)
{
	struct bzip2_state *state = arg;
	if (state->open)
		BZ2_bzDecompressEnd(&state->stream);
	memset(&state->stream, 0, sizeof(state->stream));
	state->open = BZ2_bzDecompressInit(&state->stream, 0, 0) == BZ_OK;
	return state->open ? 0 : -ENOMEM;
}

static int bzip2_decode(void *arg, struct codec_buffers *io, const char **why)
{
	struct bzip2_state *state = arg;
	bz_stream *stream = &state->stream;
	uint8_t *in; /* libbz2 only reads, but its field is not const */
	memcpy(&in, &io->in, sizeof(in));
	stream->next_in = (char *)in;
	stream->avail_in = (unsigned)io->in_bytes;
	stream->next_out = (char *)io->out;
	stream->avail_out = (unsigned)io->out_bytes;
	const int ret = BZ2_bzDecompress(stream);
	*io =
	    (struct codec_buffers){ (uint8_t *)stream->next_in, stream->avail_in, (uint8_t *)stream->next_out, stream->avail_out };
	switch (ret) {
	case BZ_STREAM_END:
		return CODEC_MEMBER_ENDS;
	case BZ_OK:
		return CODEC_GOES_ON;
	case BZ_MEM_ERROR:
		return -ENOMEM;
	case BZ_DATA_ERROR_MAGIC:
		*why = "no bzip2 header";
		return -EINVAL;
	default:
		*why = "wrong data or CRC";
		return -EINVAL;
	}
}

const struct codec codec_bzip2 = {
	.name = "bzip2",
	.first_bytes = "B",
	.matches = bzip2_matches,
	.create = bzip2_create,
	.destroy = bzip2_destroy,
	.begin = bzip2_begin,
	.decode = bzip2_decode,
};
