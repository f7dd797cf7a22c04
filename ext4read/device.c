/* Reading the disk: ranges and blocks, in the newest version that the disk or its journal has. */
#include "ext4read/reader_internal.h"

#include <errno.h>

/* One block or a part of it, from the journal. A block that began with the journal's magic is kept without it. */
static int read_replayed(struct ext4_reader *reader, uint64_t place, size_t at, uint8_t *buffer, size_t length)
{
	static const uint8_t magic[4] = { 0xC0, 0x3B, 0x39, 0x98 };
	const int ret = reader->read(reader->data, (place >> 1) * reader->block_bytes + at, buffer, length);
	if (!ret && (place & 1))
		for (size_t i = at; i < sizeof(magic) && i - at < length; i++)
			buffer[i - at] = magic[i];
	return ret;
}

int device_read(struct ext4_reader *reader, uint64_t offset, void *buffer, size_t length, bool replayed)
{
	uint8_t *to = buffer;
	if (offset > reader->size_bytes || length > reader->size_bytes - offset)
		return -EIO;
	if (!replayed || !reader->replayed.count)
		return length ? reader->read(reader->data, offset, buffer, length) : 0;
	while (length) {
		const uint64_t *place = map_get(&reader->replayed, offset / reader->block_bytes + 1);
		const size_t rest = reader->block_bytes - (size_t)(offset % reader->block_bytes);
		size_t take = rest < length ? rest : length;
		/* In one go what comes from the disk itself. */
		while (!place && take < length && !map_get(&reader->replayed, (offset + take) / reader->block_bytes + 1))
			take += reader->block_bytes < length - take ? reader->block_bytes : length - take;
		const int ret = place ? read_replayed(reader, *place, (size_t)(offset % reader->block_bytes), to, take)
				      : reader->read(reader->data, offset, to, take);
		if (ret)
			return ret;
		offset += take;
		to += take;
		length -= take;
	}
	return 0;
}

int ext4_reader_read(struct ext4_reader *reader, uint64_t offset, void *buffer, size_t length)
{
	return device_read(reader, offset, buffer, length, true);
}

bool ext4_reader_is_replayed(const struct ext4_reader *reader, uint64_t offset, uint64_t length)
{
	if (!reader->replayed.count || !length)
		return false;
	const uint64_t first = offset / reader->block_bytes, last = (offset + (length - 1)) / reader->block_bytes;
	if (last - first < reader->replayed.capacity) {
		for (uint64_t block = first; block <= last; block++)
			if (map_get(&reader->replayed, block + 1))
				return true;
		return false;
	}
	for (size_t i = 0; i < reader->replayed.capacity; i++)
		if (reader->replayed.slots[i].key > first && reader->replayed.slots[i].key <= last + 1)
			return true;
	return false;
}

int device_block(struct ext4_reader *reader, uint64_t block, const uint8_t **data, struct error *err)
{
	const size_t slot = (size_t)(block % CACHE_SLOTS);
	uint8_t *const cached = reader->cache + slot * reader->block_bytes;
	if (block >= reader->block_count)
		return damaged(err, "block %llu lies behind the end", (unsigned long long)block);
	if (reader->cached[slot] != block + 1) {
		reader->cached[slot] = 0;
		const int ret = device_read(reader, block * reader->block_bytes, cached, reader->block_bytes, true);
		if (ret)
			return error_set(err, ret, "cannot read block %llu: %s", (unsigned long long)block, strerror(-ret));
		reader->cached[slot] = block + 1;
	}
	*data = cached;
	return 0;
}

void device_forget(struct ext4_reader *reader)
{
	memset(reader->cached, 0, CACHE_SLOTS * sizeof(*reader->cached));
}
