/* The iterator over an archive's entries; see tar_internal.h. */
#include "layers/tar_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "layers/growth_internal.h"

void tar_open(struct tar_reader *reader, int fd, const uint8_t *memory, uint64_t size)
{
	*reader = (struct tar_reader){ .size = size };
	window_open(&reader->window, fd, memory, size);
}

void tar_open_at(struct tar_reader *reader, int fd, uint64_t base, uint64_t size)
{
	tar_open(reader, fd, NULL, size);
	reader->window.base = base;
}

void tar_open_growing(struct tar_reader *reader, struct growth *growth)
{
	tar_open(reader, growth->fd, NULL, GROWTH_UNKNOWN_BYTES);
	reader->window.growth = growth;
}

void tar_await(struct tar_reader *reader, uint64_t end)
{
	if (reader->window.growth)
		reader->size = window_find_size(&reader->window, end);
}

void tar_close(struct tar_reader *reader)
{
	window_close(&reader->window);
	pax_free(&reader->global);
	pax_free(&reader->local);
	struct array *const arrays[] = { &reader->long_name, &reader->long_link, &reader->path, &reader->ranges, &reader->extents,
					 &reader->xattrs };
	for (size_t i = 0; i < sizeof(arrays) / sizeof(arrays[0]); i++)
		array_free(arrays[i]);
}

static int truncated(const struct tar_reader *reader, struct error *err)
{
	return error_set(err, -ENODATA, "truncated at byte %llu", (unsigned long long)reader->size);
}

static int out_of_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "out of memory");
}

int tar_read_bytes(struct tar_reader *reader, uint64_t offset, void *to, size_t length, struct error *err)
{
	uint64_t end;
	if (__builtin_add_overflow(offset, length, &end))
		return truncated(reader, err);
	tar_await(reader, end);
	if (offset > reader->size || length > reader->size - offset)
		return truncated(reader, err);
	const int ret = window_read(&reader->window, offset, to, length);
	if (ret == -ENODATA)
		return error_set(err, -EIO, "became shorter while it was read");
	if (ret == -EBADMSG)
		return error_set(err, ret, "its copy in the cache is damaged at byte %llu: start again, and it is made anew",
				 (unsigned long long)offset);
	return ret ? error_set(err, ret, "cannot read byte %llu: %s", (unsigned long long)offset, strerror(-ret)) : 0;
}

/* Moves behind `length` bytes of data and their padding. */
static int skip_data(struct tar_reader *reader, uint64_t length, struct error *err)
{
	uint64_t end;
	if (__builtin_add_overflow(reader->next, length, &end) ||
	    __builtin_add_overflow(end, (uint64_t)TAR_BLOCK_BYTES - 1, &end)) {
		tar_await(reader, UINT64_MAX);
		return truncated(reader, err);
	}
	end -= end % TAR_BLOCK_BYTES;
	tar_await(reader, end);
	if (end > reader->size)
		return truncated(reader, err);
	reader->next = end;
	return 0;
}

static bool is_zero(const struct tar_header *header)
{
	static const struct tar_header zero;
	return header->name[0] == '\0' && memcmp(header, &zero, sizeof(zero)) == 0;
}

/* Reads the next header block. Returns 1, 0 at the archive's end (marked by two blocks of zeroes, or by nothing at all), -errno. */
static int read_header(struct tar_reader *reader, struct error *err)
{
	const bool first = reader->next == 0;
	tar_await(reader, reader->next + 2 * TAR_BLOCK_BYTES);
	if (reader->next == reader->size && !first)
		return reader->has_extended ? truncated(reader, err) : 0;
	if (reader->size - reader->next < TAR_BLOCK_BYTES)
		return first ? error_set(err, -EINVAL, "is no tar archive") : truncated(reader, err);
	int ret = tar_read_bytes(reader, reader->next, &reader->header, TAR_BLOCK_BYTES, err);
	if (ret)
		return ret;
	const unsigned long long at = reader->next;
	if (is_zero(&reader->header)) {
		if (reader->size - reader->next < 2 * TAR_BLOCK_BYTES)
			return 0;
		ret = tar_read_bytes(reader, reader->next + TAR_BLOCK_BYTES, &reader->header, TAR_BLOCK_BYTES, err);
		if (!ret && !is_zero(&reader->header))
			ret = error_set(err, -EINVAL, "a single block of zeroes at byte %llu, not at the end", at);
		return ret;
	}
	if (!tar_checksum_ok(&reader->header))
		return first ? error_set(err, -EINVAL, "is no tar archive")
			     : error_set(err, -EINVAL, "bad header checksum at byte %llu", at);
	reader->next += TAR_BLOCK_BYTES;
	return 1;
}

/* The size field of the current header. */
static int header_size(const struct tar_reader *reader, uint64_t *size, struct error *err)
{
	int64_t number;
	if (!tar_number(reader->header.size, sizeof(reader->header.size), &number) || number < 0)
		return error_set(err, -EINVAL, "malformed size");
	*size = (uint64_t)number;
	return 0;
}

/* Reads the data of an extended header into `text`. */
static int read_extended(struct tar_reader *reader, struct array *text, struct error *err)
{
	uint64_t size = 0;
	int ret = header_size(reader, &size, err);
	if (ret)
		return ret;
	tar_await(reader, size > TAR_EXTENDED_MAX ? UINT64_MAX : reader->next + size);
	if (size > reader->size - reader->next)
		return truncated(reader, err);
	if (size > TAR_EXTENDED_MAX)
		return error_set(err, -EINVAL, "an extended header of %llu bytes; 8 MiB are allowed", (unsigned long long)size);
	text->used = 0;
	char *at = array_extend(text, size);
	if (!at)
		return out_of_memory(err);
	ret = tar_read_bytes(reader, reader->next, at, size, err);
	return ret ? ret : skip_data(reader, size, err);
}

static int read_pax(struct tar_reader *reader, struct pax *pax, bool global, struct error *err)
{
	/* A second header for one entry replaces the first, as in Go. Global ones add up in POSIX; nobody writes two. */
	pax_reset(pax);
	const int ret = read_extended(reader, &pax->text, err);
	return ret ? ret : pax_parse(pax, global, err);
}

/* GNU's long names end at the first NUL. */
static int read_long(struct tar_reader *reader, struct array *text, bool *has, struct error *err)
{
	const int ret = read_extended(reader, text, err);
	if (ret)
		return ret;
	text->used = strnlen(text->data, text->used);
	*has = true;
	return 0;
}

/* Reads headers up to one that is an entry; extended headers before it are taken in. Returns as read_header(). */
static int next_entry_header(struct tar_reader *reader, struct error *err)
{
	if (reader->has_extended)
		pax_reset(&reader->local);
	reader->has_extended = reader->has_long_name = reader->has_long_link = false;
	for (;;) {
		int ret = read_header(reader, err);
		uint64_t size = 0;
		if (ret == 0 && reader->has_extended)
			return error_set(err, -EINVAL, "the archive ends between an extended header and its entry");
		if (ret <= 0)
			return ret;
		switch (reader->header.type) {
		case 'x':
		case 'X': /* Sun's */
			ret = read_pax(reader, &reader->local, false, err);
			break;
		case 'g':
			ret = read_pax(reader, &reader->global, true, err);
			break;
		case 'L':
			ret = read_long(reader, &reader->long_name, &reader->has_long_name, err);
			break;
		case 'K':
			ret = read_long(reader, &reader->long_link, &reader->has_long_link, err);
			break;
		case 'V': /* the name of a volume */
			ret = header_size(reader, &size, err);
			if (!ret)
				ret = skip_data(reader, size, err);
			break;
		default:
			return 1;
		}
		if (ret)
			return ret;
		if (reader->header.type != 'g' && reader->header.type != 'V')
			reader->has_extended = true;
	}
}

static int find_contents(struct tar_reader *reader, struct tar_entry *entry, uint64_t stored, struct error *err)
{
	int ret = 0;
	reader->extents.used = 0;
	const uint64_t start = reader->next;
	entry->size_bytes = stored;
	if (S_ISREG(entry->mode) && (reader->header.type == 'S' || tar_sparse_is_pax(&reader->local))) {
		ret = tar_sparse_read(reader, stored, &entry->size_bytes, err);
	} else if (S_ISREG(entry->mode) && stored) {
		const struct tree_extent extent = { 0, start, stored, 0, 0 };
		ret = array_append(&reader->extents, &extent, sizeof(extent)) ? out_of_memory(err) : 0;
	}
	if (ret)
		return ret;
	/* Type S has blocks of its map before the data, not counted in `stored`; the map of PAX 1.0 is counted. */
	if (reader->header.type != 'S')
		reader->next = start;
	entry->extents = (const struct tree_extent *)(const void *)reader->extents.data;
	entry->extent_count = (uint32_t)(reader->extents.used / sizeof(*entry->extents));
	return skip_data(reader, stored, err);
}

/* Everything after the header was read. The path comes first, so that messages can name it. */
static int fill_entry(struct tar_reader *reader, struct tar_entry *entry, struct error *err)
{
	bool has_data = false;
	uint64_t size = 0;
	int ret = tar_find_names(reader, entry, err);
	if (!ret)
		ret = tar_find_attributes(reader, entry, err);
	if (!ret)
		ret = tar_find_type(reader, entry, &has_data, err);
	if (!ret)
		ret = tar_find_xattrs(reader, entry, err);
	if (!ret)
		ret = header_size(reader, &size, err);
	if (ret)
		return ret;
	/* The PAX size decides where the next header is. */
	if (reader->local.has_size)
		size = reader->local.size;
	return find_contents(reader, entry, has_data ? size : 0, err);
}

int tar_next(struct tar_reader *reader, struct tar_entry *entry, struct error *err)
{
	*entry = (struct tar_entry){ .number = reader->entries + 1 };
	int ret = next_entry_header(reader, err);
	if (ret == 0)
		return 0;
	if (ret > 0) {
		ret = fill_entry(reader, entry, err);
		if (ret == 0) {
			reader->entries++;
			return 1;
		}
	}
	char quoted[256];
	if (entry->path.length)
		return error_prefix(err, ret, "entry %llu '%s'", (unsigned long long)entry->number,
				    error_quote(quoted, sizeof(quoted), entry->path.bytes, entry->path.length));
	return reader->next ? error_prefix(err, ret, "entry %llu", (unsigned long long)entry->number) : ret;
}
