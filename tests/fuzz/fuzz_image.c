/*
 * libFuzzer target: the JSON of images, in archives of both kinds.
 *
 * The first byte chooses: 'd' is what docker save writes, all else an OCI layout. The rest is pieces with bytes 0x1e between them. In
 * a piece, "@N" stands for the SHA-256 of piece N, which a fuzzer does not learn. The last piece is index.json or manifest.json; of a
 * layout the others are blobs, of docker's archive they are called 0, 1, ...
 *
 * Beyond crashes: a part lies inside the archive, a list of texts ends, an error is one line.
 */
#define OPENSSL_SUPPRESS_DEPRECATED
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "layers/image_internal.h"
#include "layers/tar_internal.h"
#include "tests/fuzz/require.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length);

#define PIECES_MAX 8
#define PIECE_MAX 65536

struct piece {
	char text[PIECE_MAX];
	size_t length;
	char hex[DIGEST_HEX_BYTES];
};

static struct piece pieces[PIECES_MAX];
static uint8_t archive[PIECES_MAX * (PIECE_MAX + 1024) + 1024];
static size_t used;

static void put_file(const char *name, const void *bytes, size_t length)
{
	struct tar_header header = { .type = '0', .mode = "0000644", .magic = "ustar" };
	unsigned sum = 8 * ' ';
	snprintf(header.name, sizeof(header.name), "%s", name);
	snprintf(header.size, sizeof(header.size), "%011zo", length);
	for (size_t i = 0; i < sizeof(header); i++)
		sum += ((const uint8_t *)&header)[i];
	snprintf(header.checksum, sizeof(header.checksum), "%06o", sum);
	memset(archive + used, 0, sizeof(header) + length + 512);
	memcpy(archive + used, &header, sizeof(header));
	memcpy(archive + used + sizeof(header), bytes, length);
	used += sizeof(header) + (length + 511) / 512 * 512;
}

/* Copies a piece, with digests in place of "@N". */
static void take_piece(unsigned number, const char *from, size_t length)
{
	struct piece *piece = &pieces[number];
	piece->length = 0;
	for (size_t i = 0; i < length && piece->length < PIECE_MAX - DIGEST_HEX_BYTES; i++) {
		if (from[i] == '@' && i + 1 < length && from[i + 1] >= '0' && from[i + 1] < '0' + (int)number) {
			memcpy(piece->text + piece->length, pieces[from[++i] - '0'].hex, DIGEST_HEX_BYTES - 1);
			piece->length += DIGEST_HEX_BYTES - 1;
		} else {
			piece->text[piece->length++] = from[i];
		}
	}
	uint8_t digest[SHA256_DIGEST_LENGTH];
	SHA256((const uint8_t *)piece->text, piece->length, digest);
	digest_hex(digest, piece->hex);
}

static unsigned take_pieces(const char *data, size_t length)
{
	unsigned count = 0;
	while (count < PIECES_MAX) {
		const char *end = length ? memchr(data, 0x1e, length) : NULL;
		const size_t piece = end ? (size_t)(end - data) : length;
		take_piece(count++, data, piece);
		if (!end)
			break;
		data += piece + 1;
		length -= piece + 1;
	}
	return count;
}

static void make_archive(unsigned count, bool docker)
{
	used = 0;
	put_file(docker ? "repositories" : "oci-layout", "{}", 2);
	for (unsigned i = 0; i + 1 < count; i++) {
		char name[100];
		if (docker)
			snprintf(name, sizeof(name), "%u", i);
		else
			snprintf(name, sizeof(name), "blobs/sha256/%s", pieces[i].hex);
		put_file(name, pieces[i].text, pieces[i].length);
	}
	put_file(docker ? "manifest.json" : "index.json", pieces[count - 1].text, pieces[count - 1].length);
	memset(archive + used, 0, 1024);
	used += 1024;
}

static void walk_list(char *const *list)
{
	size_t bytes = 0;
	while (list && *list)
		bytes += strlen(*list++);
	REQUIRE(bytes <= IMAGE_JSON_MAX);
}

static void check(const struct image *image)
{
	const struct image_part *parts = (const struct image_part *)(const void *)image->parts.data;
	for (size_t i = 0; i < image->parts.used / sizeof(*parts); i++) {
		REQUIRE(parts[i].offset <= used && parts[i].length <= used - parts[i].offset);
		REQUIRE(!parts[i].is_layer || (parts[i].fd >= 0 && parts[i].length && digest_is_told(parts[i].expected.diff_id)));
	}
	walk_list(image->config.env);
	walk_list(image->config.entrypoint);
	walk_list(image->config.command);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length)
{
	static int fd = -1;
	static char path[64];
	if (fd < 0) {
		fd = memfd_create("image", MFD_CLOEXEC);
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	}
	if (!length)
		return 0;
	const bool docker = data[0] == 'd';
	make_archive(take_pieces((const char *)data + 1, length - 1), docker);
	REQUIRE(ftruncate(fd, 0) == 0 && pwrite(fd, archive, used, 0) == (ssize_t)used);
	char with_reference[80];
	snprintf(with_reference, sizeof(with_reference), "%s:tag", path);
	for (unsigned round = 0; round < 2; round++) {
		struct cache cache = { .fd = -1 };
		const struct layers_spec spec = { .path_count = 0 };
		struct image image;
		struct error err = { "" };
		const int ret = image_open(&image, round ? with_reference : path, &cache, &spec, &err);
		if (ret > 0)
			check(&image);
		REQUIRE(ret >= 0 || (err.text[0] && !strchr(err.text, '\n')));
		image_close(&image);
	}
	return 0;
}
