/* The arrays of a growing tree, names by hash, and what removal and opaque marks leave visible. See builder_internal.h. */
#include "layers/builder_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>

#define SLOTS_FIRST 4096u

struct tree_builder *tree_builder_create(void)
{
	struct tree_builder *builder = calloc(1, sizeof(*builder));
	if (!builder)
		return NULL;
	const void *random = (const void *)getauxval(AT_RANDOM);
	if (random)
		memcpy(&builder->hash_seed, random, sizeof(builder->hash_seed));
	builder->last_directory = TREE_NONE;
	uint32_t root;
	const struct tree_entry entry = { .next_sibling = TREE_NONE };
	if (!array_extend(&builder->slots, SLOTS_FIRST * sizeof(struct slot)) ||
	    array_append(&builder->entries, &entry, sizeof(entry)) || builder_add_implied_directory(builder, 0, &root)) {
		tree_builder_destroy(builder);
		return NULL;
	}
	return builder;
}

void tree_builder_destroy(struct tree_builder *builder)
{
	if (!builder)
		return;
	struct array *const arrays[] = { &builder->entries, &builder->inodes,     &builder->extents,
					 &builder->xattrs,  &builder->strings,    &builder->slots,
					 &builder->clean,   &builder->clean_link, &builder->last_path };
	for (size_t i = 0; i < sizeof(arrays) / sizeof(arrays[0]); i++)
		array_free(arrays[i]);
	tree_sources_free(builder->sources, builder->source_count);
	free(builder);
}

int builder_begin_layer(struct tree_builder *builder, struct error *err)
{
	if (builder->layer_count > UINT16_MAX)
		return error_set(err, -E2BIG, "more than 65536 layers");
	builder->layer_count++;
	/* What was resolved for the layer before has not been touched by this one. */
	builder->last_directory = TREE_NONE;
	return 0;
}

int builder_add_source(struct tree_builder *builder, int fd, const void *memory, uint64_t size_bytes, const char *name,
		       uint32_t *source)
{
	struct tree_source *sources = reallocarray(builder->sources, (size_t)builder->source_count + 1, sizeof(*sources));
	if (!sources)
		return -ENOMEM;
	builder->sources = sources;
	struct tree_source *new = &sources[builder->source_count];
	*new = (struct tree_source){ .fd = fd, .memory = memory, .size_bytes = size_bytes, .name = strdup(name), .is_own = memory };
	if (!new->name)
		return -ENOMEM;
	*source = builder->source_count++;
	return 0;
}

int builder_add_string(struct tree_builder *builder, const char *bytes, size_t length, uint32_t *offset)
{
	if (length > UINT32_MAX - builder->strings.used)
		return -EFBIG;
	*offset = (uint32_t)builder->strings.used;
	return array_append(&builder->strings, bytes, length);
}

int builder_add_inode(struct tree_builder *builder, const struct tree_inode *inode, uint32_t *number)
{
	const size_t count = builder->inodes.used / sizeof(*inode);
	if (count >= TREE_NONE)
		return -ENOMEM;
	*number = (uint32_t)count;
	return array_append(&builder->inodes, inode, sizeof(*inode));
}

static void describe_implied_directory(struct tree_inode *inode)
{
	inode->mode = S_IFDIR | 0755;
	inode->uid = inode->gid = 0;
	inode->mtime_s = 0;
	inode->mtime_ns = 0;
	inode->first_xattr = inode->xattr_count = 0;
}

int builder_add_implied_directory(struct tree_builder *builder, uint32_t parent, uint32_t *number)
{
	struct tree_inode inode = { .layer = builder->layer_count ? builder_layer(builder) : 0 };
	describe_implied_directory(&inode);
	*directory_parent(&inode) = parent;
	*directory_touched(&inode) = inode.layer;
	return builder_add_inode(builder, &inode, number);
}

/* Eight bytes at a time, each mixed by one wide multiplication. */
static uint32_t hash_name(const struct tree_builder *builder, uint32_t directory, const char *name, size_t length)
{
	const uint64_t odd = 0x9e3779b97f4a7c15;
	uint64_t hash = builder->hash_seed ^ ((uint64_t)directory << 8 | length);
	for (;;) {
		uint64_t word = 0;
		memcpy(&word, name, length < sizeof(word) ? length : sizeof(word));
		const unsigned __int128 product = (unsigned __int128)(hash ^ word) * odd;
		hash = (uint64_t)product ^ (uint64_t)(product >> 64);
		if (length <= sizeof(word))
			break;
		name += sizeof(word);
		length -= sizeof(word);
	}
	return (uint32_t)(hash ^ hash >> 32);
}

/* The slot of the table where the entry is, or the free one where it would be. */
static struct slot *find_slot(struct tree_builder *builder, uint32_t hash, uint32_t directory, const char *name, size_t length)
{
	struct slot *slots = (struct slot *)(void *)builder->slots.data;
	const size_t mask = builder->slots.used / sizeof(*slots) - 1;
	for (size_t i = hash & mask;; i = (i + 1) & mask) {
		if (!slots[i].entry)
			return &slots[i];
		if (slots[i].hash != hash)
			continue;
		const struct tree_entry *entry = builder_entry(builder, slots[i].entry);
		if (entry->parent == directory && entry->name_bytes == length &&
		    memcmp(builder->strings.data + entry->name, name, length) == 0)
			return &slots[i];
	}
}

/* Doubles the table when it is two thirds full. */
static int make_room(struct tree_builder *builder)
{
	const size_t count = builder->entries.used / sizeof(struct tree_entry);
	const size_t size = builder->slots.used / sizeof(struct slot);
	if (count >= TREE_NONE)
		return -ENOMEM;
	if (count * 3 < size * 2)
		return 0;
	struct array larger = { 0 };
	struct slot *slots = array_extend(&larger, 2 * size * sizeof(struct slot)); /* a new mapping: zeroes */
	if (!slots)
		return -ENOMEM;
	const struct slot *old = (const struct slot *)(const void *)builder->slots.data;
	for (size_t k = 0; k < size; k++) {
		size_t i = old[k].hash & (2 * size - 1);
		while (old[k].entry && slots[i].entry)
			i = (i + 1) & (2 * size - 1);
		if (old[k].entry)
			slots[i] = old[k];
	}
	array_free(&builder->slots);
	builder->slots = larger;
	return 0;
}

bool builder_entry_visible(struct tree_builder *builder, uint32_t number)
{
	struct tree_entry *entry = builder_entry(builder, number);
	if (entry->inode == TREE_NONE)
		return false;
	const uint32_t mark = *directory_opaque(builder_inode(builder, entry->parent));
	struct tree_inode *inode = builder_inode(builder, entry->inode);
	if (!S_ISDIR(inode->mode))
		return entry->layer >= mark;
	if (entry->layer < mark) {
		if (*directory_touched(inode) < mark)
			return false;
		describe_implied_directory(inode);
		entry->layer = (uint16_t)mark;
		inode->layer = mark;
	}
	if (*directory_opaque(inode) < mark)
		*directory_opaque(inode) = mark;
	return true;
}

uint32_t builder_find(struct tree_builder *builder, uint32_t directory, const char *name, size_t length)
{
	if (length > NAME_BYTES_MAX)
		return TREE_NONE;
	const uint32_t entry = find_slot(builder, hash_name(builder, directory, name, length), directory, name, length)->entry;
	return entry && builder_entry_visible(builder, entry) ? entry : TREE_NONE;
}

int builder_set(struct tree_builder *builder, uint32_t directory, const char *name, size_t length, uint32_t inode,
		struct error *err)
{
	if (length > NAME_BYTES_MAX) {
		char quoted[64];
		return error_set(err, -ENAMETOOLONG, "the name '%s' has %zu bytes; 255 are allowed",
				 error_quote(quoted, sizeof(quoted), name, length), length);
	}
	if (make_room(builder))
		return error_set(err, -ENOMEM, "out of memory");
	const uint32_t hash = hash_name(builder, directory, name, length);
	struct slot *slot = find_slot(builder, hash, directory, name, length);
	if (slot->entry) {
		struct tree_entry *entry = builder_entry(builder, slot->entry);
		/* What was resolved through the old inode may lead elsewhere now. */
		if (entry->inode != TREE_NONE && !S_ISREG(builder_inode(builder, entry->inode)->mode))
			builder->last_directory = TREE_NONE;
		entry->inode = inode;
		entry->layer = builder_layer(builder);
		return 0;
	}
	struct tree_entry entry = { directory, TREE_NONE, inode, 0, (uint16_t)length, builder_layer(builder) };
	const int ret = builder_add_string(builder, name, length, &entry.name);
	if (ret)
		return error_set(err, ret, "%s", ret == -EFBIG ? "more than 4 GiB of names" : "out of memory");
	const uint32_t number = (uint32_t)(builder->entries.used / sizeof(entry));
	if (array_append(&builder->entries, &entry, sizeof(entry)))
		return error_set(err, -ENOMEM, "out of memory");
	*slot = (struct slot){ number, hash };
	return 0;
}

void builder_hide_lower(struct tree_builder *builder, uint32_t number)
{
	struct tree_entry *entry = builder_entry(builder, number);
	struct tree_inode *inode = builder_inode(builder, entry->inode);
	const uint16_t layer = builder_layer(builder);
	builder->last_directory = TREE_NONE;
	const bool directory = S_ISDIR(inode->mode);
	if (entry->layer < layer && !(directory && *directory_touched(inode) == layer)) {
		entry->inode = TREE_NONE;
		return;
	}
	if (!directory)
		return;
	if (entry->layer < layer) {
		describe_implied_directory(inode);
		entry->layer = layer;
		inode->layer = layer;
	}
	*directory_opaque(inode) = layer;
}
