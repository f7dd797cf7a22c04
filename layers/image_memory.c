/*
 * What the cache knows of images: a start on one that was seen before reads no JSON and hashes nothing.
 *
 *   | head | key: identity of index.json or of the archive, reference | parts | configuration |
 *
 * Numbers are 64-bit; a text is its length + 1 (0: there is none) and its bytes. The parts' identities are compared with the files
 * as they are now; of an archive there is only one.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/iov.h"
#include "layers/image_internal.h"

#define IMAGES_BYTES_MAX ((uint64_t)16 << 20)
#define IMAGE_MEMORY_MAX ((size_t)4 << 20)

struct head {
	char magic[8];
	uint64_t checksum;     /* of everything behind it */
};

static const char head_magic[8] = "trvmmim1";

static int put_number(struct array *out, uint64_t number)
{
	return array_append(out, &number, sizeof(number));
}

static int put_text(struct array *out, const char *text)
{
	const size_t length = text ? strlen(text) : 0;
	const int ret = put_number(out, text ? length + 1 : 0);
	return ret ? ret : array_append(out, text ? text : "", length);
}

static int put_list(struct array *out, char *const *list)
{
	uint64_t count = 0;
	while (list && list[count])
		count++;
	int ret = put_number(out, list ? count + 1 : 0);
	for (uint64_t i = 0; i < count && !ret; i++)
		ret = put_text(out, list[i]);
	return ret;
}

/* What is left to read; `bad` once something was not there. */
struct cursor {
	const char *at;
	size_t left;
	bool bad;
};

static void get_bytes(struct cursor *cursor, void *to, size_t length)
{
	cursor->bad |= length > cursor->left;
	if (cursor->bad) {
		memset(to, 0, length);
		return;
	}
	memcpy(to, cursor->at, length);
	cursor->at += length;
	cursor->left -= length;
}

static uint64_t get_number(struct cursor *cursor)
{
	uint64_t number;
	get_bytes(cursor, &number, sizeof(number));
	return number;
}

static char *get_text(struct cursor *cursor)
{
	const uint64_t length = get_number(cursor);
	if (length == 0)
		return NULL;
	cursor->bad |= length - 1 > cursor->left;
	char *text = cursor->bad ? NULL : calloc(1, length);
	cursor->bad |= !text;
	if (text)
		get_bytes(cursor, text, length - 1);
	return text;
}

static char **get_list(struct cursor *cursor)
{
	const uint64_t count = get_number(cursor);
	if (count == 0)
		return NULL;
	cursor->bad |= count - 1 > cursor->left / sizeof(uint64_t);
	char **list = cursor->bad ? NULL : calloc(count, sizeof(*list));
	cursor->bad |= !list;
	for (uint64_t i = 0; i < count - 1 && !cursor->bad; i++) {
		list[i] = get_text(cursor);
		cursor->bad |= !list[i];
	}
	return list;
}

/* Key and file name. Returns 0 or -errno. */
static int make_key(const struct image *image, struct array *key, char name[40])
{
	struct stat st = image->st;
	if (!image->is_archive && fstatat(image->fd, "index.json", &st, 0))
		return -errno;
	const struct file_identity identity = file_identity_of(&st);
	int ret = array_append(key, &identity, sizeof(identity));
	if (!ret)
		ret = put_text(key, image->reference);
	if (!ret)
		snprintf(name, 40, "%016llx%016llx", (unsigned long long)cache_checksum(1, key->data, key->used),
			 (unsigned long long)cache_checksum(2, key->data, key->used));
	return ret;
}

/* Opens a part where it was and looks whether it is still the same. */
static void open_part(const struct image *image, struct image_part *part, const struct file_identity *identity,
		      struct cursor *cursor)
{
	part->st = image->st;
	if (image->is_archive)
		part->fd = part->is_layer ? fcntl(image->fd, F_DUPFD_CLOEXEC, 0) : -1;
	else
		part->fd = openat(image->fd, part->name, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (part->fd >= 0 ? !image->is_archive && fstat(part->fd, &part->st) != 0 : part->is_layer || !image->is_archive) {
		cursor->bad = true;
		return;
	}
	const struct file_identity now = file_identity_of(&part->st);
	const uint64_t size = image->is_archive ? image->archive_bytes : (uint64_t)part->st.st_size;
	cursor->bad |= memcmp(&now, identity, sizeof(now)) != 0 || !S_ISREG(part->st.st_mode) || part->offset > size ||
		       part->length > size - part->offset;
}

static void get_part(struct image *image, struct cursor *cursor)
{
	struct image_part part = { .fd = -1, .name = get_text(cursor) };
	struct file_identity identity;
	get_bytes(cursor, &identity, sizeof(identity));
	part.offset = get_number(cursor);
	part.length = get_number(cursor);
	part.is_layer = get_number(cursor) != 0;
	get_bytes(cursor, &part.expected, sizeof(part.expected));
	cursor->bad |= !part.name;
	if (!cursor->bad)
		open_part(image, &part, &identity, cursor);
	if (part.fd >= 0 && !part.is_layer) {
		close(part.fd);
		part.fd = -1;
	}
	if (array_append(&image->parts, &part, sizeof(part))) {
		cursor->bad = true;
		free(part.name);
		if (part.fd >= 0)
			close(part.fd);
	}
}

static void get_image(struct image *image, struct cursor *cursor)
{
	for (uint64_t count = get_number(cursor); count && !cursor->bad; count--)
		get_part(image, cursor);
	image->config.env = get_list(cursor);
	image->config.entrypoint = get_list(cursor);
	image->config.command = get_list(cursor);
	image->config.working_dir = get_text(cursor);
	image->config.user = get_text(cursor);
}

static int read_memory(const struct cache *cache, const char *name, struct array *text)
{
	struct stat st;
	const int fd = cache_open_file(cache, "images", name);
	if (fd < 0)
		return fd;
	int ret = fstat(fd, &st) || !S_ISREG(st.st_mode) || (uint64_t)st.st_size > IMAGE_MEMORY_MAX ||
			  (size_t)st.st_size < sizeof(struct head)
		      ? -EBADMSG
		      : 0;
	char *at = ret ? NULL : array_extend(text, (size_t)st.st_size);
	if (!ret && (!at || pread_full(fd, at, text->used, 0) < 0))
		ret = -EBADMSG;
	if (!ret)
		cache_touch(fd, &st);
	close(fd);
	return ret;
}

int image_recall(struct image *image, const struct cache *cache)
{
	struct array key = { 0 }, text = { 0 };
	char name[40];
	struct head head;
	int ret = make_key(image, &key, name);
	if (!ret)
		ret = read_memory(cache, name, &text);
	if (!ret) {
		assert(key.data); /* a key is never empty */
		memcpy(&head, text.data, sizeof(head));
		const size_t rest = text.used - sizeof(head);
		if (memcmp(head.magic, head_magic, sizeof(head_magic)) != 0 ||
		    head.checksum != cache_checksum(0, text.data + sizeof(head), rest) || rest < key.used ||
		    memcmp(text.data + sizeof(head), key.data, key.used) != 0)
			ret = -EBADMSG;
	}
	if (!ret) {
		struct cursor cursor = { text.data + sizeof(head) + key.used, text.used - sizeof(head) - key.used, false };
		get_image(image, &cursor);
		ret = cursor.bad ? -EBADMSG : 0;
	}
	array_free(&key);
	array_free(&text);
	if (ret) {
		/* Half of it is of no use: only the place stays open. */
		struct image rest = { .fd = -1, .parts = image->parts, .config = image->config };
		image->parts = (struct array){ 0 };
		image->config = (struct image_config){ 0 };
		image_close(&rest);
	}
	return ret;
}

static int put_image(struct array *out, const struct image *image)
{
	const struct image_part *parts = (const struct image_part *)(const void *)image->parts.data;
	const size_t count = image->parts.used / sizeof(*parts);
	int ret = put_number(out, count);
	for (size_t i = 0; i < count && !ret; i++) {
		const struct file_identity identity = file_identity_of(&parts[i].st);
		const uint64_t numbers[3] = { parts[i].offset, parts[i].length, parts[i].is_layer };
		if (!file_identity_is_settled(&identity))
			return -EAGAIN;
		ret = put_text(out, parts[i].name);
		if (!ret)
			ret = array_append(out, &identity, sizeof(identity));
		if (!ret)
			ret = array_append(out, numbers, sizeof(numbers));
		if (!ret)
			ret = array_append(out, &parts[i].expected, sizeof(parts[i].expected));
	}
	char *const *const lists[] = { image->config.env, image->config.entrypoint, image->config.command };
	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]) && !ret; i++)
		ret = put_list(out, lists[i]);
	if (!ret)
		ret = put_text(out, image->config.working_dir);
	return ret ? ret : put_text(out, image->config.user);
}

static void write_memory(const struct cache *cache, const char *name, const struct array *text)
{
	struct cache_file file;
	const int lock = cache_lock(cache, cache_checksum(0, name, strlen(name)));
	if (lock < 0)
		return;
	cache_trim(cache, "images", IMAGES_BYTES_MAX);
	if (cache_create(cache, "images", name, &file) == 0) {
		const bool written = pwrite(file.fd, text->data, text->used, 0) == (ssize_t)text->used;
		const int fd = written ? cache_publish(&file) : -1;
		if (fd >= 0)
			close(fd);
		cache_drop(&file);
	}
	close(lock);
}

void image_remember(const struct image *image, const struct cache *cache)
{
	struct array text = { 0 }, key = { 0 };
	struct head head = { 0 };
	char name[40];
	int ret = make_key(image, &key, name);
	if (!ret)
		ret = array_append(&text, &head, sizeof(head));
	if (!ret)
		ret = array_append(&text, key.data, key.used);
	if (!ret)
		ret = put_image(&text, image);
	if (!ret && text.used <= IMAGE_MEMORY_MAX) {
		memcpy(head.magic, head_magic, sizeof(head_magic));
		head.checksum = cache_checksum(0, text.data + sizeof(head), text.used - sizeof(head));
		memcpy(text.data, &head, sizeof(head));
		write_memory(cache, name, &text);
	}
	array_free(&key);
	array_free(&text);
}
