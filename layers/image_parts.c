/* The files of an image: in a directory, or ranges of an archive. See image_internal.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/iov.h"
#include "layers/image_internal.h"
#include "layers/inflated_file_internal.h"
#include "layers/tar_internal.h"

#define LINKS_MAX 8

/* `target` as seen from the directory of `from` (or "": from the root), without ".", ".." and slashes to spare. NULL: no memory. */
static char *join(const char *from, const char *target, size_t target_bytes)
{
	const char *slash = strrchr(from, '/');
	size_t used = slash && target_bytes && target[0] != '/' ? (size_t)(slash - from) : 0;
	char *out = malloc(used + target_bytes + 2);
	if (!out)
		return NULL;
	memcpy(out, from, used);
	for (const char *at = target, *end = target + target_bytes; at < end;) {
		const char *stop = memchr(at, '/', (size_t)(end - at));
		const size_t length = (size_t)((stop ? stop : end) - at);
		if (length == 2 && memcmp(at, "..", 2) == 0) {
			while (used && out[--used] != '/')
				;
		} else if (length && !(length == 1 && at[0] == '.')) {
			if (used)
				out[used++] = '/';
			memcpy(out + used, at, length);
			used += length;
		}
		at += length + (stop != NULL);
	}
	out[used] = '\0';
	return out;
}

static int list_entry(struct image *image, const struct tar_entry *entry, struct error *err)
{
	const bool symlink = S_ISLNK(entry->mode);
	struct image_name name = { .name = NULL };
	if (!symlink && !entry->hard_link) {
		/* Directories and holes hold nothing that an image has. */
		if (!S_ISREG(entry->mode) || entry->extent_count > 1 ||
		    (entry->extent_count && entry->extents[0].length != entry->size_bytes))
			return 0;
		name.offset = entry->extent_count ? entry->extents[0].source_offset : 0;
		name.length = entry->extent_count ? entry->size_bytes : 0;
	}
	if (image->names.used / sizeof(name) >= IMAGE_NAMES_MAX)
		return error_set(err, -E2BIG, "looks like an image, but holds more than %u files", IMAGE_NAMES_MAX);
	name.name = join("", entry->path.bytes, entry->path.length);
	if (name.name && (symlink || entry->hard_link))
		name.link = join(symlink ? name.name : "", entry->link.bytes, entry->link.length);
	if (!name.name || (!name.link && (symlink || entry->hard_link)) || array_append(&image->names, &name, sizeof(name))) {
		free(name.name);
		free(name.link);
		return error_set(err, -ENOMEM, "out of memory");
	}
	return 0;
}

int image_list_archive(struct image *image, struct error *err)
{
	struct tar_reader reader;
	struct tar_entry entry;
	int ret;
	tar_open(&reader, image->fd, NULL, image->archive_bytes);
	reader.window.check = image->check;
	while ((ret = tar_next(&reader, &entry, err)) > 0) {
		ret = list_entry(image, &entry, err);
		if (ret)
			break;
	}
	tar_close(&reader);
	return ret;
}

/* The last of the name counts, as when the archive is unpacked. */
static const struct image_name *find_name(const struct image *image, const char *name)
{
	const struct image_name *names = (const struct image_name *)(const void *)image->names.data;
	for (int links = 0; name && links <= LINKS_MAX; links++) {
		size_t i = image->names.used / sizeof(*names);
		while (i && strcmp(names[i - 1].name, name) != 0)
			i--;
		if (!i || !names[i - 1].link)
			return i ? &names[i - 1] : NULL;
		name = names[i - 1].link;
	}
	return NULL;
}

bool image_has(const struct image *image, const char *name)
{
	return image->is_archive ? find_name(image, name) != NULL : faccessat(image->fd, name, F_OK, 0) == 0;
}

static int open_part(const struct image *image, const char *name, struct image_part *part, struct error *err)
{
	if (image->is_archive) {
		const struct image_name *found = find_name(image, name);
		part->fd = found ? fcntl(image->fd, F_DUPFD_CLOEXEC, 0) : -1;
		if (part->fd < 0)
			return error_set(err, found ? -errno : -ENOENT, "%s is missing in the archive", name);
		part->st = image->st;
		part->offset = found->offset;
		part->length = found->length;
		return 0;
	}
	part->fd = openat(image->fd, name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (part->fd < 0)
		return error_set(err, -errno, "%s %s", name, errno == ENOENT ? "is missing in the layout" : strerror(errno));
	if (fstat(part->fd, &part->st) || !S_ISREG(part->st.st_mode))
		return error_set(err, -EINVAL, "%s is no regular file", name);
	part->length = (uint64_t)part->st.st_size;
	return 0;
}

int image_add_part(struct image *image, const char *name, struct image_part **out, struct error *err)
{
	struct image_part part = { .fd = -1 };
	int ret = open_part(image, name, &part, err);
	if (!ret) {
		part.name = strdup(name);
		if (!part.name || array_append(&image->parts, &part, sizeof(part)))
			ret = error_set(err, -ENOMEM, "out of memory");
	}
	if (ret) {
		free(part.name);
		if (part.fd >= 0)
			close(part.fd);
		return ret;
	}
	*out = (struct image_part *)(void *)(image->parts.data + image->parts.used - sizeof(part));
	return 0;
}

static int read_part(const struct image *image, const struct image_part *part, const uint8_t *digest, char *text, struct error *err)
{
	int ret = image->check ? chunk_check_range(image->check, part->fd, part->offset, part->length) : 0;
	if (ret == -EBADMSG)
		return error_set(err, ret, "%s: its copy in the cache is damaged: start again, and it is made anew", part->name);
	if (!ret)
		ret = pread_full(part->fd, text, part->length, part->offset);
	if (ret)
		return error_set(err, ret, "%s cannot be read: %s", part->name, strerror(-ret));
	if (!digest)
		return 0;
	const struct file_range range = { part->fd, &part->st, part->offset, part->length, false };
	uint8_t found[DIGEST_BYTES];
	ret = digest_compute(&range, found, err);
	if (!ret)
		ret = digest_compare(digest, found, "digest", err);
	return ret ? error_prefix(err, ret, "%s", part->name) : 0;
}

int image_read_json(struct image *image, const char *name, const uint8_t *digest, char **text, size_t *length, struct error *err)
{
	struct image_part *part;
	int ret = image_add_part(image, name, &part, err);
	if (ret)
		return ret;
	if (part->length > IMAGE_JSON_MAX)
		return error_set(err, -EFBIG, "%s has %llu bytes; 4 MiB are allowed", name, (unsigned long long)part->length);
	char *buffer = malloc(part->length + 1);
	if (!buffer)
		return error_set(err, -ENOMEM, "out of memory");
	ret = read_part(image, part, digest, buffer, err);
	if (ret) {
		free(buffer);
		return ret;
	}
	close(part->fd);
	part->fd = -1;
	buffer[part->length] = '\0';
	*text = buffer;
	*length = part->length;
	return 0;
}
