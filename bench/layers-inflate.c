/*
 * What layers-inflate measures, in milliseconds on stdout: `nothing FILE` inflates FILE with the codec that a layer would get, to a
 * buffer that is thrown away; `layer CACHE FILE` is a start on FILE up to the readable tree, and the number of its entries.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>

#include "layers/codec_internal.h"
#include "layers/layers.h"

static double now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static int inflate_to_nothing(const char *path)
{
	static uint8_t out[1 << 18];
	struct stat st;
	const int fd = open(path, O_RDONLY);
	if (fd < 0 || fstat(fd, &st))
		return 1;
	const uint8_t *in = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
	const struct codec *codec = in == MAP_FAILED ? NULL : codec_find(in);
	if (!codec)
		return 1;
	struct codec_buffers io = { .in = in, .in_bytes = (size_t)st.st_size };
	void *state = codec->create();
	const char *why;
	const double start = now_ms();
	while (io.in_bytes) {
		int ret = codec->begin(state);
		while (ret == CODEC_GOES_ON) {
			io.out = out;
			io.out_bytes = sizeof(out);
			ret = codec->decode(state, &io, &why);
		}
		if (ret < 0)
			return 1;
	}
	printf("%.2f\n", now_ms() - start);
	return 0;
}

static int start_on_layer(const char *cache, const char *path)
{
	struct error err = { "" };
	struct tree *tree;
	const double start = now_ms();
	if (layers_load(&path, 1, NULL, 0, cache, &tree, &err)) {
		fprintf(stderr, "%s\n", err.text);
		return 1;
	}
	printf("%.2f %u\n", now_ms() - start, tree->entry_count);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "nothing") == 0)
		return inflate_to_nothing(argv[2]);
	if (argc == 4 && strcmp(argv[1], "layer") == 0)
		return start_on_layer(argv[2], argv[3]);
	return 2;
}
