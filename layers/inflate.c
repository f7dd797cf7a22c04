/*
 * A compressed file to a plain one, in one pass, whatever the compression is.
 *
 * A file may consist of several members, and zeroes may pad its end (as on tapes); anything else behind a member is an error, since
 * it means that the file is not what its maker made.
 */
#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "layers/cache.h"
#include "layers/codec_internal.h"
#include "layers/feed_internal.h"
#include "layers/growth_internal.h"
#include "layers/inflate_internal.h"
#include "layers/layers.h"
#include "layers/sink_internal.h"

#define BUFFER_BYTES RING_BUFFER_BYTES
#define START_READ_MAX ((uint64_t)2 << 20) /* more than a block of bzip2 */

struct inflation {
	const struct codec *codec;
	uint64_t max_bytes;
	void *state;           /* owned: the codec's */
	struct codec_buffers io;
	struct feed *feed;     /* borrowed; io.in lies in its buffer */
	struct sink *sink;     /* borrowed; io.out lies in its buffer */
	uint64_t read_bytes, written_bytes;
	bool open;             /* inside a member */
	bool padding;          /* zeroes were seen behind a member */
	bool at_end;           /* the compressed file's */
};

const struct codec *codec_find(const uint8_t head[8])
{
	static const struct codec *const codecs[] = { &codec_gzip, &codec_zstd, &codec_xz, &codec_bzip2 };
	for (size_t i = 0; i < sizeof(codecs) / sizeof(codecs[0]); i++) {
		if (codecs[i]->matches(head))
			return codecs[i];
	}
	return NULL;
}

/* The byte of the compressed file that comes next. */
static unsigned long long position(const struct inflation *inflation)
{
	return inflation->read_bytes - inflation->io.in_bytes;
}

static int fill(struct inflation *inflation, struct error *err)
{
	const int ret = feed_next(inflation->feed, &inflation->io.in, &inflation->io.in_bytes, err);
	inflation->at_end = inflation->io.in_bytes == 0;
	inflation->read_bytes += inflation->io.in_bytes;
	return ret;
}

int inflate_too_large(uint64_t max_bytes, struct error *err)
{
	return error_set(err, -EFBIG, "inflates to more than %llu MiB: if that is meant, allow more with --max-layer-size",
			 (unsigned long long)(max_bytes >> 20));
}

/* Hands on what is in the buffer and takes the next one. -EPIPE: the sink has failed, and says how. */
static int drain(struct inflation *inflation, struct error *err)
{
	const size_t length = BUFFER_BYTES - inflation->io.out_bytes;
	if (length > inflation->max_bytes - inflation->written_bytes)
		return inflate_too_large(inflation->max_bytes, err);
	inflation->written_bytes += length;
	sink_put(inflation->sink, length);
	inflation->io.out = sink_buffer(inflation->sink);
	inflation->io.out_bytes = BUFFER_BYTES;
	return inflation->io.out ? 0 : -EPIPE;
}

/* Between members: skips padding, begins the next one. Looks at one byte; the codec judges the rest of the header. */
static int begin_member(struct inflation *inflation, struct error *err)
{
	struct codec_buffers *io = &inflation->io;
	const struct codec *codec = inflation->codec;
	const bool first = position(inflation) == 0;
	while (!first && io->in_bytes && *io->in == 0) {
		io->in++;
		io->in_bytes--;
		inflation->padding = true;
	}
	if (!io->in_bytes)
		return 0;
	if ((inflation->padding && !codec->padding_between) || *io->in == 0 || !strchr(codec->first_bytes, *io->in))
		return error_set(err, -EINVAL, "something that is not %s follows the compressed data at byte %llu", codec->name,
				 position(inflation));
	inflation->open = true;
	return codec->begin(inflation->state) ? error_set(err, -ENOMEM, "out of memory") : 0;
}

static int decode(struct inflation *inflation, struct error *err)
{
	struct codec_buffers *io = &inflation->io;
	const struct codec_buffers before = *io;
	const char *why = "it leads nowhere";
	int ret = inflation->codec->decode(inflation->state, io, &why);
	/* No codec does this. If one did, it would do it forever. */
	if (ret == CODEC_GOES_ON && io->in_bytes && io->in_bytes == before.in_bytes && io->out_bytes == before.out_bytes)
		ret = -EINVAL;
	if (ret == -ENOMEM)
		return error_set(err, ret, "out of memory");
	if (ret == -EFBIG)
		return error_set(err, ret, "the %s data at byte %llu needs more than %zu MiB of memory to unpack: compress it anew",
				 inflation->codec->name, position(inflation), CODEC_MEMORY_MAX >> 20);
	if (ret < 0)
		return error_set(err, ret, "the %s data is corrupt at byte %llu (%s)", inflation->codec->name, position(inflation),
				 why);
	if (ret == CODEC_MEMBER_ENDS)
		inflation->open = false;
	return 0;
}

static int inflate_chunk(struct inflation *inflation, struct error *err)
{
	/* A full buffer may mean that the codec holds more back. */
	bool held_back = false;
	while (inflation->io.in_bytes || (held_back && inflation->open)) {
		int ret = 0;
		if (!inflation->open)
			ret = begin_member(inflation, err);
		if (ret || !inflation->open)
			return ret;
		ret = decode(inflation, err);
		held_back = inflation->io.out_bytes == 0;
		if (!ret && held_back)
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
		ret =
		    error_set(err, -ENODATA, "the %s data is truncated at byte %llu", inflation->codec->name, position(inflation));
	return ret || inflation->io.out_bytes == BUFFER_BYTES ? ret : drain(inflation, err);
}

/* Returns 0 or -errno; -EPIPE as drain(). */
static int inflate_to_sink(struct inflation *inflation, struct error *err)
{
	inflation->state = inflation->codec->create();
	if (!inflation->state)
		return error_set(err, -ENOMEM, "out of memory");
	inflation->io.out = sink_buffer(inflation->sink);
	inflation->io.out_bytes = BUFFER_BYTES;
	const int ret = inflation->io.out ? inflate_all(inflation, err) : -EPIPE;
	inflation->codec->destroy(inflation->state);
	return ret;
}

int inflate_file(const struct file_range *from, const struct codec *codec, const struct inflate_limits *limits,
		 const struct inflate_target *to, struct payload_sums *sums, struct error *err)
{
	struct feed feed;
	struct sink sink;
	struct inflation inflation = { .codec = codec, .feed = &feed, .sink = &sink };
	struct error sink_err = { "" };
	inflation.max_bytes = limits ? limits->max_bytes : LAYERS_MAX_LAYER_BYTES;
	if (feed_begin(&feed, from, to->with_digest, limits ? limits->progress : NULL))
		return error_set(err, -ENOMEM, "out of memory");
	if (sink_begin(&sink, to)) {
		feed_end(&feed, NULL);
		return error_set(err, -ENOMEM, "out of memory");
	}
	feed_read_ahead(&feed);
	int ret = inflate_to_sink(&inflation, err);
	const int written = sink_end(&sink, sums, &sink_err);
	feed_end(&feed, to->with_digest ? sums->digest : NULL);
	if (written && (!ret || ret == -EPIPE))
		ret = error_set(err, written, "%s", sink_err.text);
	if (!ret && inflation.read_bytes < from->length)
		ret = error_set(err, -EIO, "became shorter while it was read");
	growth_end(to->growth);
	if (ret)
		array_free(&sums->chunks);
	return ret;
}

ssize_t inflate_start(const struct file_range *from, const struct codec *codec, void *to, size_t length)
{
	struct feed feed;
	struct error ignored;
	struct inflation inflation = { .codec = codec, .feed = &feed, .io = { .out = to, .out_bytes = length }, .open = true };
	int ret = feed_begin(&feed, from, false, NULL);
	if (ret)
		return ret;
	inflation.state = codec->create();
	ret = inflation.state ? codec->begin(inflation.state) : -ENOMEM;
	while (!ret && inflation.open && inflation.io.out_bytes && !inflation.at_end && inflation.read_bytes < START_READ_MAX) {
		ret = fill(&inflation, &ignored);
		while (!ret && inflation.open && inflation.io.in_bytes && inflation.io.out_bytes)
			ret = decode(&inflation, &ignored);
	}
	if (inflation.state)
		codec->destroy(inflation.state);
	feed_end(&feed, NULL);
	/* What is corrupt is told when all of it is read. */
	if (ret == -EINVAL || ret == -ENODATA || ret == -EFBIG)
		ret = 0;
	return ret ? ret : (ssize_t)(length - inflation.io.out_bytes);
}
