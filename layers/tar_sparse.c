/*
 * Sparse files in tar: four ways to tell where the data of a file with holes belongs. The archive holds the data without the holes.
 *
 *   GNU type S   4 ranges in the header at 386, then blocks of 21 while "isextended" is set:
 *                | offset (12) | length (12) | ... x21 | isextended | pad |      header: ... x4 | isextended | real size (12) |
 *   PAX 0.0      GNU.sparse.offset and GNU.sparse.numbytes records in turns
 *   PAX 0.1      one GNU.sparse.map record "offset,length,..."
 *   PAX 1.0      the data begins with decimal lines: count, then offset and length of each; padded to a whole block
 *
 * GNU tar manual, "Sparse Formats".
 */
#include "layers/tar_internal.h"

#include <errno.h>
#include <string.h>

#define HEADER_RANGES_AT 386u
#define HEADER_RANGES 4u
#define BLOCK_RANGES 21u
#define RANGE_BYTES 24u

bool tar_sparse_is_pax(const struct pax *pax)
{
	return pax->has_sparse_map || pax->has_sparse_major;
}

/* Takes ranges from `at` on until an empty one. Returns 0 or -errno. */
static int take_ranges(struct tar_reader *reader, const char *at, unsigned count, struct error *err)
{
	for (unsigned i = 0; i < count; i++, at += RANGE_BYTES) {
		int64_t offset, length;
		if (at[0] == '\0')
			break;
		if (!tar_number(at, 12, &offset) || !tar_number(at + 12, 12, &length) || offset < 0 || length < 0)
			return error_set(err, -EINVAL, "malformed sparse map");
		const struct sparse_range range = { (uint64_t)offset, (uint64_t)length };
		if (array_append(&reader->ranges, &range, sizeof(range)))
			return error_set(err, -ENOMEM, "out of memory");
	}
	return 0;
}

static int read_map_gnu(struct tar_reader *reader, uint64_t *real_size, struct error *err)
{
	const char *header = (const char *)&reader->header;
	int64_t size;
	if (!tar_number(header + 483, 12, &size) || size < 0)
		return error_set(err, -EINVAL, "malformed sparse map");
	*real_size = (uint64_t)size;
	int ret = take_ranges(reader, header + HEADER_RANGES_AT, HEADER_RANGES, err);
	char more = header[482];
	while (!ret && more) {
		char block[TAR_BLOCK_BYTES] = { 0 };
		ret = tar_read_bytes(reader, reader->next, block, TAR_BLOCK_BYTES, err);
		if (ret)
			break;
		reader->next += TAR_BLOCK_BYTES;
		ret = take_ranges(reader, block, BLOCK_RANGES, err);
		more = block[BLOCK_RANGES * RANGE_BYTES];
	}
	return ret;
}

/* The decimal lines at the start of the data, a block at a time. */
struct lines {
	char block[TAR_BLOCK_BYTES];
	size_t at;             /* TAR_BLOCK_BYTES: the next block is to be read */
	uint64_t stored;       /* bytes of the data that are left behind the current block */
};

static int next_line(struct tar_reader *reader, struct lines *lines, uint64_t *number, struct error *err)
{
	uint64_t value = 0;
	for (unsigned digits = 0; digits < 20; digits++) {
		if (lines->at == TAR_BLOCK_BYTES) {
			if (lines->stored < TAR_BLOCK_BYTES)
				return error_set(err, -EINVAL, "the sparse map is longer than the data");
			const int ret = tar_read_bytes(reader, reader->next, lines->block, TAR_BLOCK_BYTES, err);
			if (ret)
				return ret;
			reader->next += TAR_BLOCK_BYTES;
			lines->stored -= TAR_BLOCK_BYTES;
			lines->at = 0;
		}
		const char c = lines->block[lines->at++];
		if (c == '\n' && digits) {
			*number = value;
			return 0;
		}
		if (c < '0' || c > '9')
			break;
		value = value * 10 + (uint64_t)(c - '0'); /* 19 digits always fit */
	}
	return error_set(err, -EINVAL, "malformed sparse map");
}

static int read_map_1_0(struct tar_reader *reader, uint64_t *stored, struct error *err)
{
	struct lines lines = { .at = TAR_BLOCK_BYTES, .stored = *stored };
	uint64_t count = 0;
	int ret = next_line(reader, &lines, &count, err);
	for (uint64_t i = 0; !ret && i < count; i++) {
		struct sparse_range range = { 0, 0 };
		ret = next_line(reader, &lines, &range.offset, err);
		if (!ret)
			ret = next_line(reader, &lines, &range.length, err);
		if (!ret && array_append(&reader->ranges, &range, sizeof(range)))
			ret = error_set(err, -ENOMEM, "out of memory");
	}
	*stored = lines.stored;
	return ret;
}

static int read_map_pax(struct tar_reader *reader, uint64_t *stored, uint64_t *real_size, struct error *err)
{
	const struct pax *pax = &reader->local;
	const uint64_t major = pax->has_sparse_major ? pax->sparse_major : 0;
	const uint64_t minor = pax->has_sparse_minor ? pax->sparse_minor : 0;
	if (!pax->has_sparse_size)
		return error_set(err, -EINVAL, "a sparse file without GNU.sparse.size or GNU.sparse.realsize");
	*real_size = pax->sparse_size;
	if (major == 1 && minor == 0)
		return read_map_1_0(reader, stored, err);
	if (major != 0 || minor > 1 || !pax->has_sparse_map)
		return error_set(err, -EINVAL, "sparse format %llu.%llu is not known or has no map", (unsigned long long)major,
				 (unsigned long long)minor);
	return array_append(&reader->ranges, pax->map.data, pax->map.used) ? error_set(err, -ENOMEM, "out of memory") : 0;
}

/* Ranges to extents: ascending, inside the file, and together exactly what the archive stores. */
static int make_extents(struct tar_reader *reader, uint64_t stored, uint64_t real_size, struct error *err)
{
	const struct sparse_range *ranges = (const struct sparse_range *)(const void *)reader->ranges.data;
	const size_t count = reader->ranges.used / sizeof(*ranges);
	uint64_t end = 0, used = 0;
	struct tree_extent *last = NULL;
	for (size_t i = 0; i < count; i++) {
		const struct sparse_range range = ranges[i];
		if (range.offset < end || range.offset > real_size || range.length > real_size - range.offset)
			return error_set(err, -EINVAL, "the sparse map overlaps itself or goes beyond the file's end");
		if (range.length > stored - used)
			return error_set(err, -EINVAL, "the sparse map tells of more data than the archive holds");
		if (last && range.offset == end) {
			last->length += range.length;
		} else if (range.length) {
			last = array_extend(&reader->extents, sizeof(*last));
			if (!last)
				return error_set(err, -ENOMEM, "out of memory");
			*last = (struct tree_extent){ range.offset, reader->next + used, range.length, 0, 0 };
		}
		end = range.offset + range.length;
		used += range.length;
	}
	return used == stored ? 0 : error_set(err, -EINVAL, "the sparse map tells of less data than the archive holds");
}

int tar_sparse_read(struct tar_reader *reader, uint64_t stored, uint64_t *real_size, struct error *err)
{
	reader->ranges.used = 0;
	int ret = reader->header.type == 'S' ? read_map_gnu(reader, real_size, err)
					     : read_map_pax(reader, &stored, real_size, err);
	uint64_t end;
	tar_await(reader, __builtin_add_overflow(reader->next, stored, &end) ? UINT64_MAX : end);
	if (!ret && (reader->next > reader->size || stored > reader->size - reader->next))
		ret = error_set(err, -ENODATA, "truncated at byte %llu", (unsigned long long)reader->size);
	return ret ? ret : make_extents(reader, stored, *real_size, err);
}
