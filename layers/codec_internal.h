/*
 * Compressions that a layer may have: one file each, one interface, driven by inflate.c.
 *
 * A compressed file is a row of members (gzip's word; zstd says frame, xz and bzip2 stream), each of which is decoded by itself.
 */
#ifndef TRVMM_LAYERS_CODEC_INTERNAL_H
#define TRVMM_LAYERS_CODEC_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a decoder may take to remember the data behind it. The strongest levels of zstd (-22) and of xz (-9) stay below. */
#define CODEC_MEMORY_MAX ((size_t)192 << 20)
#define CODEC_WINDOW_LOG_MAX 27

/* What is to be read, and where there is room; a codec moves both on. */
struct codec_buffers {
	const uint8_t *in;
	size_t in_bytes;
	uint8_t *out;
	size_t out_bytes;
};

enum { CODEC_GOES_ON = 0, CODEC_MEMBER_ENDS = 1 };

struct codec {
	const char *name;
	const char *first_bytes; /* with which a member can begin */
	bool padding_between;  /* zeroes may stand between members, not only behind the last */

	/* Whether a file that begins with these 8 bytes is one. */
	bool (*matches)(const uint8_t head[8]);

	/* Returns the decoder's state, or NULL when memory is out. */
	void *(*create)(void);
	void (*destroy)(void *state);

	/* Makes ready for a member. Returns 0 or -ENOMEM. */
	int (*begin)(void *state);

	/*
	 * Decodes some. Returns one of the two above, -EINVAL when the data is corrupt (`why` is then a reason that lives on),
	 * -EFBIG when it needs more memory than is allowed, -ENOMEM. There is room, and input or output that was held back.
	 */
	int (*decode)(void *state, struct codec_buffers *io, const char **why);
};

extern const struct codec codec_gzip, codec_zstd, codec_xz, codec_bzip2;

/* The compression of a file that begins with these bytes; NULL: none that is known. */
const struct codec *codec_find(const uint8_t head[8]);

#endif
