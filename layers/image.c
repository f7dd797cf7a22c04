/* Telling images from layers, and their names from references. See image_internal.h. */
#include "layers/image_internal.h"
#include "layers/inflate_internal.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/iov.h"
#include "layers/codec_internal.h"
#include "layers/inflated_file_internal.h"
#include "layers/progress_internal.h"
#include "layers/tar_internal.h"

void image_config_free(struct image_config *config)
{
	char **const lists[] = { config->env, config->entrypoint, config->command };
	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
		for (char **text = lists[i]; text && *text; text++)
			free(*text);
		free(lists[i]);
	}
	free(config->working_dir);
	free(config->user);
	*config = (struct image_config){ 0 };
}

void image_close(struct image *image)
{
	struct image_part *parts = (struct image_part *)(void *)image->parts.data;
	for (size_t i = 0; i < image->parts.used / sizeof(*parts); i++) {
		free(parts[i].name);
		if (parts[i].fd >= 0)
			close(parts[i].fd);
	}
	struct image_name *names = (struct image_name *)(void *)image->names.data;
	for (size_t i = 0; i < image->names.used / sizeof(*names); i++) {
		free(names[i].name);
		free(names[i].link);
	}
	chunk_check_destroy(image->check);
	image->check = NULL;
	array_free(&image->parts);
	array_free(&image->names);
	image_config_free(&image->config);
	if (image->fd >= 0)
		close(image->fd);
	image->fd = -1;
}

/* Opens the longest beginning of `path` that ends before a colon and exists; the rest is the reference. Returns 0 or -errno. */
static int open_place(struct image *image)
{
	const int flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK;
	image->fd = open(image->path, flags);
	char *place = NULL;
	if (image->fd < 0 && errno == ENOENT && !(place = strdup(image->path)))
		return -ENOMEM;
	for (char *colon; place && image->fd < 0 && (colon = strrchr(place, ':'));) {
		*colon = '\0';
		image->reference = image->path + (colon - place) + 1;
		image->fd = colon > place ? open(place, flags) : -1;
	}
	const int error = errno;
	free(place);
	errno = error;
	return image->fd < 0 || fstat(image->fd, &image->st) ? -errno : 0;
}

static bool is_hex_name(const char *name, size_t length)
{
	for (size_t i = 0; i < 64; i++) {
		if (i >= length || !isxdigit((unsigned char)name[i]))
			return false;
	}
	return length == 64 || name[64] == '/' || name[64] == '.';
}

/* Whether an archive whose first file has this name may be an image. */
static bool is_image_name(const char *name, size_t length)
{
	static const char *const names[] = { "blobs", "blobs/", "index.json", "oci-layout", "manifest.json", "repositories" };
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (length == strlen(names[i]) && memcmp(name, names[i], length) == 0)
			return true;
	}
	return (length > 6 && memcmp(name, "blobs/", 6) == 0) || is_hex_name(name, length);
}

/* What is looked at of an archive's start: room for a PAX header and for the header behind it. */
#define START_BYTES ((size_t)8 * TAR_BLOCK_BYTES)

/* Looks at the first header that names something. A layer is told from an image with one read, so that it costs nothing. */
static bool may_be_archive(const struct tar_header *headers, size_t start_bytes)
{
	const size_t count = start_bytes / sizeof(headers[0]);
	for (size_t i = 0; i < count; i++) {
		const char *name = headers[i].name;
		size_t length = strnlen(name, sizeof(headers[i].name));
		int64_t size;
		if (!tar_checksum_ok(&headers[i]) || !tar_number(headers[i].size, sizeof(headers[i].size), &size))
			return false;
		if (headers[i].type == 'x' || headers[i].type == 'g') {
			if (size < 0 || (uint64_t)size > START_BYTES)
				return false;
			i += ((size_t)size + sizeof(headers[0]) - 1) / sizeof(headers[0]);
			continue;
		}
		if (length >= 2 && name[0] == '.' && name[1] == '/') {
			name += 2;
			length -= 2;
		}
		if (length && !(length == 1 && name[0] == '.'))
			return is_image_name(name, length);
	}
	return false;
}

/* Returns 1, 0 when it is none, or -errno with a line: what cannot be read now is not taken for a layer. */
static int file_may_be_archive(int fd, struct error *err)
{
	struct tar_header headers[START_BYTES / sizeof(struct tar_header)];
	const ssize_t n = pread_up_to(fd, headers, sizeof(headers), 0);
	if (n < 0)
		return error_set(err, (int)n, "%s", strerror((int)-n));
	return may_be_archive(headers, (size_t)n);
}

/* Other directories have an index.json, too. */
static bool may_be_layout(const struct image *image)
{
	return image_has(image, "index.json") && (image_has(image, "oci-layout") || image_has(image, "blobs/sha256"));
}

/* Returns 1, or -errno with a line. */
static int use_inflated(struct image *image, int fd, uint64_t size_bytes, struct error *err)
{
	close(image->fd);
	image->fd = fd;
	image->archive_bytes = size_bytes;
	image->in_cache = true;
	const int ret = chunk_check_create(fd, &image->check);
	return ret ? error_set(err, ret, "its copy in the cache cannot be read: start again, and it is made anew") : 1;
}

/* Returns 1, 0 when it is none, or -errno. */
static int inflate_archive(struct image *image, const struct codec *codec, struct cache *cache, const struct layers_spec *spec,
			   struct error *err)
{
	struct tar_header headers[START_BYTES / sizeof(struct tar_header)];
	const struct file_range range = { .fd = image->fd, .st = &image->st, .length = (uint64_t)image->st.st_size };
	const struct expected_digests nothing = { .digest = { 0 } };
	uint8_t digest[DIGEST_BYTES];
	uint64_t size_bytes;
	int fd = inflated_open_recalled(cache, &range, &size_bytes);
	if (fd >= 0) {
		const int found = file_may_be_archive(fd, err);
		if (found > 0)
			return use_inflated(image, fd, size_bytes, err);
		close(fd);
		return found;
	}
	const ssize_t start_bytes = inflate_start(&range, codec, headers, sizeof(headers));
	if (start_bytes < 0)
		return error_set(err, (int)start_bytes, "%s", strerror((int)-start_bytes));
	if (!may_be_archive(headers, (size_t)start_bytes))
		return 0;
	int ret = cache->fd < 0 ? cache_open(cache, spec->cache_dir, err) : 0;
	if (ret)
		return ret;
	struct progress progress;
	const struct inflate_limits limits = inflate_limits_begin(spec, &progress, range.length);
	ret = inflated_open(cache, &range, codec, &nothing, &limits, &fd, &size_bytes, digest, err);
	progress_end(limits.progress);
	return ret ? ret : use_inflated(image, fd, size_bytes, err);
}

/* Whether it looks like an image. Returns 1, 0 or -errno. */
static int recognise(struct image *image, struct cache *cache, const struct layers_spec *spec, struct error *err)
{
	uint8_t head[8] = { 0 };
	if (S_ISDIR(image->st.st_mode))
		return may_be_layout(image);
	if (!S_ISREG(image->st.st_mode))
		return 0;
	image->is_archive = true;
	image->archive_bytes = (uint64_t)image->st.st_size;
	const ssize_t n = pread_up_to(image->fd, head, sizeof(head), 0);
	const struct codec *codec = n > 0 ? codec_find(head) : NULL;
	return codec ? inflate_archive(image, codec, cache, spec, err) : file_may_be_archive(image->fd, err);
}

static int find_parts(struct image *image, const struct cache *cache, struct error *err)
{
	if (image_recall(image, cache) == 0) {
		image->is_known = true;
		return 1;
	}
	if (image->is_archive) {
		const int ret = image_list_archive(image, err);
		if (ret)
			return ret;
		if (!image_has(image, "index.json") && !image_has(image, "manifest.json"))
			return 0;
	}
	const int ret = image_resolve(image, err);
	return ret ? ret : 1;
}

int image_open(struct image *image, const char *path, struct cache *cache, const struct layers_spec *spec, struct error *err)
{
	*image = (struct image){ .path = path, .fd = -1 };
	int ret = open_place(image);
	if (ret == -ENOENT)
		return 0;
	ret = ret ? error_set(err, ret, "%s", strerror(-ret)) : recognise(image, cache, spec, err);
	if (ret > 0)
		ret = find_parts(image, cache, err);
	char quoted[512];
	return ret < 0 ? error_prefix(err, ret, "layer %s", error_quote(quoted, sizeof(quoted), path, strlen(path))) : ret;
}
