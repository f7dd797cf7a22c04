/* Growable arrays and hash maps of the reader. */
#include "ext4read/reader_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>
#include <time.h>

void *items_add(struct items *items, size_t item_bytes)
{
	if (items->count == items->room) {
		const size_t room = items->room ? 2 * items->room : 64;
		void *data = reallocarray(items->data, room, item_bytes);
		if (!data)
			return NULL;
		items->data = data;
		items->room = room;
	}
	void *item = (uint8_t *)items->data + items->count++ * item_bytes;
	return memset(item, 0, item_bytes);
}

void items_free(struct items *items)
{
	free(items->data);
	*items = (struct items){ NULL, 0, 0 };
}

/* Where the key is or would be. The factor is secret, so that nobody can make a disk whose keys all meet. */
static size_t map_place(const struct map *map, uint64_t key)
{
	size_t at = (size_t)((key * map->factor) >> 32) & (map->capacity - 1);
	while (map->slots[at].key && map->slots[at].key != key)
		at = (at + 1) & (map->capacity - 1);
	return at;
}

static int map_grow(struct map *map)
{
	struct map larger = { .capacity = map->capacity ? 2 * map->capacity : 64, .count = map->count, .factor = map->factor };
	if (!larger.factor && getrandom(&larger.factor, sizeof(larger.factor), GRND_NONBLOCK) != sizeof(larger.factor))
		larger.factor = (uint64_t)clock();
	larger.factor |= 1;
	larger.slots = calloc(larger.capacity, sizeof(*larger.slots));
	if (!larger.slots)
		return -ENOMEM;
	for (size_t i = 0; i < map->capacity; i++)
		if (map->slots[i].key)
			larger.slots[map_place(&larger, map->slots[i].key)] = map->slots[i];
	free(map->slots);
	*map = larger;
	return 0;
}

int map_set(struct map *map, uint64_t key, uint64_t value)
{
	if (2 * map->count >= map->capacity && map_grow(map))
		return -ENOMEM;
	struct map_slot *slot = &map->slots[map_place(map, key)];
	map->count += slot->key == 0;
	*slot = (struct map_slot){ key, value };
	return 0;
}

const uint64_t *map_get(const struct map *map, uint64_t key)
{
	if (!map->capacity)
		return NULL;
	const struct map_slot *slot = &map->slots[map_place(map, key)];
	return slot->key ? &slot->value : NULL;
}

void map_free(struct map *map)
{
	free(map->slots);
	*map = (struct map){ NULL, 0, 0, 0 };
}
