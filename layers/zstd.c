/* Zstandard: RFC 8878. libzstd checks a frame's checksum where it has one. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>
#include <zstd_errors.h>

#include "layers/codec_internal.h"

struct zstd_state {
	ZSTD_DCtx *context;    /* owned */
	size_t wanted_bytes;   /* the rest of a block and the next block's header */
};

/* A frame, or a skippable one, with which parallel compressors begin. */
static bool zstd_matches(const uint8_t head[8])
{
	return memcmp(head, "\x28\xb5\x2f\xfd", 4) == 0 || ((head[0] & 0xf0) == 0x50 && memcmp(head + 1, "\x2a\x4d\x18", 3) == 0);
}

static void zstd_destroy(void *arg)
{
	struct zstd_state *state = arg;
	ZSTD_freeDCtx(state->context);
	free(state);
}

static void *zstd_create(void)
{
	struct zstd_state *state = calloc(1, sizeof(*state));
	if (!state)
		return NULL;
	state->context = ZSTD_createDCtx();
	if (!state->context || ZSTD_isError(ZSTD_DCtx_setParameter(state->context, ZSTD_d_windowLogMax, CODEC_WINDOW_LOG_MAX))) {
		zstd_destroy(state);
		return NULL;
	}
	return state;
}

static int zstd_begin(void *arg)
{
	struct zstd_state *state = arg;
	state->wanted_bytes = ZSTD_initDStream(state->context);
	return ZSTD_isError(state->wanted_bytes) ? -ENOMEM : 0;
}

static int zstd_decode(void *arg, struct codec_buffers *io, const char **why)
{
	struct zstd_state *state = arg;
	/* libzstd does not say where it met an error. With a block at a time it is the block that was handed over. */
	const size_t length = io->in_bytes < state->wanted_bytes ? io->in_bytes : state->wanted_bytes;
	ZSTD_inBuffer in = { io->in, length, 0 };
	ZSTD_outBuffer out = { io->out, io->out_bytes, 0 };
	const size_t ret = ZSTD_decompressStream(state->context, &out, &in);
	if (ZSTD_isError(ret)) {
		*why = ZSTD_getErrorName(ret);
		switch (ZSTD_getErrorCode(ret)) {
		case ZSTD_error_memory_allocation:
			return -ENOMEM;
		case ZSTD_error_frameParameter_windowTooLarge:
			return -EFBIG;
		default:
			return -EINVAL;
		}
	}
	io->in += in.pos;
	io->in_bytes -= in.pos;
	io->out += out.pos;
	io->out_bytes -= out.pos;
	state->wanted_bytes = ret;
	return ret == 0 ? CODEC_MEMBER_ENDS : CODEC_GOES_ON;
}

const struct codec codec_zstd = {
	.name = "zstd",
	.first_bytes = "\x28PQRSTUVWXYZ[\\]^_",
	.matches = zstd_matches,
	.create = zstd_create,
	.destroy = zstd_destroy,
	.begin = zstd_begin,
	.decode = zstd_decode,
};
