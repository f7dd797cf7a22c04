/* Headers, contents, and the way out. See tar_writer_internal.h. */
#define OPENSSL_SUPPRESS_DEPRECATED /* the low-level calls need none of libcrypto's set-up: no providers, no configuration files */
#include "layers/tar_writer_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/iov.h"

enum { BUFFER_BYTES = 1 << 18 };

struct tar_writer {
	int fd; /* borrowed */
	SHA256_CTX digest;
	size_t used; /* of the buffer */
	struct array path; /* of the entry at hand, as it is written */
	struct array pax; /* its extended header */
	struct array map; /* of a sparse file, as text */
	uint8_t buffer[BUFFER_BYTES];
};

struct tar_writer *tar_writer_create(int fd)
{
	struct tar_writer *writer = calloc(1, sizeof(*writer));
	if (!writer)
		return NULL;
	writer->fd = fd;
	SHA256_Init(&writer->digest);
	return writer;
}

void tar_writer_destroy(struct tar_writer *writer)
{
	if (!writer)
		return;
	array_free(&writer->path);
	array_free(&writer->pax);
	array_free(&writer->map);
	free(writer);
}

/* ---- bytes ------------------------------------------------------------------------------------------------------------------- */

static int flush(struct tar_writer *writer, struct error *err)
{
	SHA256_Update(&writer->digest, writer->buffer, writer->used);
	const int ret = write_full(writer->fd, writer->buffer, writer->used);
	if (ret)
		return error_set(err, ret, "cannot write: %s", strerror(-ret));
	writer->used = 0;
	return 0;
}

/* Room for up to `length` bytes in the buffer: where it is, and how much. */
static int make_room(struct tar_writer *writer, uint64_t length, size_t *room, struct error *err)
{
	const int ret = writer->used == BUFFER_BYTES ? flush(writer, err) : 0;
	const size_t free_bytes = BUFFER_BYTES - writer->used;
	*room = length < free_bytes ? (size_t)length : free_bytes;
	return ret;
}

/* Appends bytes, or zeroes when there are none. */
static int put(struct tar_writer *writer, const void *bytes, uint64_t length, struct error *err)
{
	const uint8_t *from = bytes;
	while (length) {
		size_t room;
		const int ret = make_room(writer, length, &room, err);
		if (ret)
			return ret;
		if (from) {
			memcpy(writer->buffer + writer->used, from, room);
			from += room;
		} else {
			memset(writer->buffer + writer->used, 0, room);
		}
		writer->used += room;
		length -= room;
	}
	return 0;
}

static int pad(struct tar_writer *writer, uint64_t length, struct error *err)
{
	return put(writer, NULL, (TAR_BLOCK_BYTES - length % TAR_BLOCK_BYTES) % TAR_BLOCK_BYTES, err);
}

/* ---- headers ----------------------------------------------------------------------------------------------------------------- */

/* A number that does not fit has a PAX record, which every reader believes instead: the field is then the nearest that does. */
static void put_octal(char *field, size_t bytes, uint64_t value)
{
	char text[32];
	if (value > TAR_OCTAL_MAX(bytes))
		value = TAR_OCTAL_MAX(bytes);
	snprintf(text, sizeof(text), "%0*" PRIo64, (int)bytes - 1, value);
	memcpy(field, text, bytes);
}

/* A text that does not fit has a record as well, and is cut. */
static void put_text(char *field, size_t bytes, const struct slice *text)
{
	if (text->length)
		memcpy(field, text->bytes, text->length < bytes ? text->length : bytes);
}

static char type_of(const struct tar_entry *entry)
{
	if (entry->hard_link)
		return '1';
	switch (entry->mode & S_IFMT) {
	case S_IFREG:
		return '0';
	case S_IFLNK:
		return '2';
	case S_IFCHR:
		return '3';
	case S_IFBLK:
		return '4';
	case S_IFDIR:
		return '5';
	case S_IFIFO:
		return '6';
	default:
		return 0;
	}
}

static int put_header(struct tar_writer *writer, const struct tar_entry *entry, char type, const struct slice *path,
		      uint64_t stored, struct error *err)
{
	struct tar_header header = { .type = type };
	put_text(header.name, sizeof(header.name), path);
	put_octal(header.mode, sizeof(header.mode), entry->mode & 07777);
	put_octal(header.uid, sizeof(header.uid), entry->uid);
	put_octal(header.gid, sizeof(header.gid), entry->gid);
	put_octal(header.size, sizeof(header.size), stored);
	put_octal(header.mtime, sizeof(header.mtime), entry->mtime_s < 0 ? 0 : (uint64_t)entry->mtime_s);
	put_text(header.link, sizeof(header.link), &entry->link);
	memcpy(header.magic, "ustar\00000", sizeof(header.magic));
	if (type == '3' || type == '4') {
		put_octal(header.major, sizeof(header.major), entry->rdev >> 20);
		put_octal(header.minor, sizeof(header.minor), entry->rdev & 0xFFFFF);
	}
	unsigned sum = 0;
	memset(header.checksum, ' ', sizeof(header.checksum));
	for (size_t i = 0; i < sizeof(header); i++)
		sum += ((const uint8_t *)&header)[i];
	snprintf(header.checksum, sizeof(header.checksum), "%06o", sum);
	return put(writer, &header, sizeof(header), err);
}

static int put_pax(struct tar_writer *writer, struct error *err)
{
	static const char name[] = "PaxHeaders/entry";
	const struct tar_entry entry = { .mode = 0644 };
	if (!writer->pax.used)
		return 0;
	int ret = put_header(writer, &entry, 'x', &(struct slice){ name, sizeof(name) - 1 }, writer->pax.used, err);
	if (!ret)
		ret = put(writer, writer->pax.data, writer->pax.used, err);
	return ret ? ret : pad(writer, writer->pax.used, err);
}

/* ---- contents ---------------------------------------------------------------------------------------------------------------- */

/*
 * Whether holes are worth a format of their own: they are more than what is there, and more than a block. GNU tar pads each range to whole
 * blocks of the archive, and Go does not: a file with other ranges than those on which they agree, as no file system has, is written
 * with its holes.
 */
static bool is_sparse(const struct tar_entry *entry)
{
	uint64_t data = 0;
	for (uint32_t i = 0; i < entry->extent_count; i++) {
		if (data % TAR_BLOCK_BYTES)
			return false;
		data += entry->extents[i].length;
	}
	const uint64_t holes = entry->size_bytes - data;
	return holes > 4096 && holes > data;
}

static int add_line(struct array *map, uint64_t number)
{
	char line[24];
	return array_append(map, line, (size_t)snprintf(line, sizeof(line), "%" PRIu64 "\n", number));
}

/* The number of ranges, then offset and length of each, padded to whole blocks. A range of nothing marks an end that is a hole. */
static int make_map(struct array *map, const struct tar_entry *entry, uint64_t *data_bytes)
{
	uint64_t end = 0;
	*data_bytes = 0;
	for (uint32_t i = 0; i < entry->extent_count; i++)
		end = entry->extents[i].file_offset + entry->extents[i].length;
	map->used = 0;
	int ret = add_line(map, entry->extent_count + (end < entry->size_bytes));
	for (uint32_t i = 0; !ret && i < entry->extent_count; i++) {
		ret = add_line(map, entry->extents[i].file_offset);
		if (!ret)
			ret = add_line(map, entry->extents[i].length);
		*data_bytes += entry->extents[i].length;
	}
	if (!ret && end < entry->size_bytes && !(ret = add_line(map, entry->size_bytes)))
		ret = add_line(map, 0);
	static const char zeroes[TAR_BLOCK_BYTES];
	return ret ? ret : array_append(map, zeroes, (TAR_BLOCK_BYTES - map->used % TAR_BLOCK_BYTES) % TAR_BLOCK_BYTES);
}

static int put_extent(struct tar_writer *writer, const struct tree_extent *extent, tar_contents_read *read, void *data,
		      struct error *err)
{
	for (uint64_t done = 0; done < extent->length;) {
		size_t room;
		int ret = make_room(writer, extent->length - done, &room, err);
		if (ret)
			return ret;
		ret = read(data, extent->source, extent->source_offset + done, writer->buffer + writer->used, room);
		if (ret)
			return error_set(err, ret, "cannot read the contents: %s", strerror(-ret));
		writer->used += room;
		done += room;
	}
	return 0;
}

static int put_contents(struct tar_writer *writer, const struct tar_entry *entry, bool sparse, tar_contents_read *read, void *data,
			struct error *err)
{
	uint64_t at = 0, stored = 0;
	int ret = sparse ? put(writer, writer->map.data, writer->map.used, err) : 0;
	for (uint32_t i = 0; !ret && i < entry->extent_count; i++) {
		const struct tree_extent *extent = &entry->extents[i];
		if (!sparse)
			ret = put(writer, NULL, extent->file_offset - at, err);
		if (!ret)
			ret = put_extent(writer, extent, read, data, err);
		at = extent->file_offset + extent->length;
		stored += extent->length;
	}
	if (!ret && !sparse)
		ret = put(writer, NULL, entry->size_bytes - at, err);
	return ret ? ret : pad(writer, sparse ? stored : entry->size_bytes, err);
}

/* ---- entries ----------------------------------------------------------------------------------------------------------------- */

/* The path as it is written: a directory's has a slash at its end, the root's is "./". */
static int make_path(struct array *path, const struct tar_entry *entry)
{
	path->used = 0;
	int ret = entry->path.length ? array_append(path, entry->path.bytes, entry->path.length) : array_append(path, ".", 1);
	if (!ret && !entry->hard_link && S_ISDIR(entry->mode))
		ret = array_append(path, "/", 1);
	return ret;
}

int tar_writer_add(struct tar_writer *writer, const struct tar_entry *entry, tar_contents_read *read, void *data, struct error *err)
{
	const char type = type_of(entry);
	const bool file = type == '0', sparse = file && is_sparse(entry);
	uint64_t stored = file ? entry->size_bytes : 0;
	if (!type)
		return error_set(err, -ENOTSUP, "tar has no such type of file");
	writer->pax.used = 0;
	int ret = make_path(&writer->path, entry);
	const struct slice path = { writer->path.data, writer->path.used };
	if (!ret && sparse && !(ret = make_map(&writer->map, entry, &stored)))
		stored += writer->map.used;
	if (!ret)
		ret = pax_add_entry(&writer->pax, entry, &path, sparse);
	if (!ret && stored > TAR_OCTAL_MAX(sizeof(((struct tar_header *)0)->size))) {
		char size[24];
		ret = pax_add(&writer->pax, "size", 4, size, (size_t)snprintf(size, sizeof(size), "%" PRIu64, stored));
	}
	if (ret)
		return error_set(err, -ENOMEM, "out of memory");
	ret = put_pax(writer, err);
	if (!ret)
		ret = put_header(writer, entry, type, &path, stored, err);
	return ret || !file ? ret : put_contents(writer, entry, sparse, read, data, err);
}

int tar_writer_finish(struct tar_writer *writer, uint8_t digest[TAR_DIGEST_BYTES], struct error *err)
{
	int ret = put(writer, NULL, 2 * TAR_BLOCK_BYTES, err);
	if (!ret)
		ret = flush(writer, err);
	SHA256_Final(digest, &writer->digest);
	return ret;
}
