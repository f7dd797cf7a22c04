/* Merged trees saved in the cache and mapped again; see index_internal.h. */
#include "layers/index_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/iov.h"
#include "layers/array_internal.h"
#include "layers/arrays_internal.h"
#include "layers/inflated_file_internal.h"

#define INDEX_MAGIC 0x31786564696d7674 /* "tvmidex1", and the byte order */
/* Raise it with every change of what the file holds, and of what the merge or the tar reader make of a layer. */
#define INDEX_VERSION 4u

#define TREES_BYTES_MAX ((uint64_t)512 << 20)

struct index_head {
	uint64_t magic;
	uint64_t checksum;     /* of everything behind it: see checksum_parts() */
	uint32_t version;
	uint32_t layer_count;
	uint64_t key_bytes, origin_bytes;
	struct tree_counts counts;
};
_Static_assert(sizeof(struct index_head) == 72, "the head is written as it is, without padding");

/* The key: these for the layers, then those for the files with their paths behind. */
struct key_file {
	uint64_t mode, length, path_bytes;
};

/* Where the bytes of a layer are: in the file itself, or inflated in the cache. */
struct origin {
	uint64_t tar_bytes;
	uint64_t inflated;
	uint8_t digest[DIGEST_BYTES];
};
_Static_assert(sizeof(struct origin) == 48 && sizeof(struct key_file) == 24, "written as they are, without padding");

/* What follows the key is read in place, and so aligned. */
static int append_padded(struct array *key, const char *text)
{
	static const char zeroes[8];
	const size_t length = strlen(text);
	const int ret = array_append(key, text, length);
	return ret ? ret : array_append(key, zeroes, (8 - length % 8) % 8);
}

/* Where an added file goes; it may end with a slash, and then its own name counts. */
static int append_place(struct array *key, const struct layer_file *layer)
{
	const uint64_t lengths[2] = { layer->guest ? strlen(layer->guest) : 0, layer->guest ? strlen(layer->name) : 0 };
	int ret = array_append(key, lengths, sizeof(lengths));
	if (!ret && layer->guest)
		ret = append_padded(key, layer->guest);
	if (!ret && layer->guest)
		ret = append_padded(key, layer->name);
	return ret;
}

/* Everything that the tree depends on. Returns 0 or -ENOMEM. */
static int make_key(struct array *key, const struct layer_file *layers, size_t layer_count, const struct layers_memory_file *files,
		    size_t file_count)
{
	const uint64_t counts[2] = { layer_count, file_count };
	int ret = array_append(key, counts, sizeof(counts));
	for (size_t i = 0; i < layer_count && !ret; i++) {
		const struct file_identity identity = file_identity_of(&layers[i].st);
		const uint64_t range[2] = { layers[i].offset, layers[i].length };
		ret = array_append(key, &identity, sizeof(identity));
		if (!ret)
			ret = array_append(key, range, sizeof(range));
		/* A tree that was made without looking at digests says nothing about them. */
		if (!ret)
			ret = array_append(key, &layers[i].expected, sizeof(layers[i].expected));
		if (!ret)
			ret = append_place(key, &layers[i]);
	}
	for (size_t i = 0; i < file_count && !ret; i++) {
		const struct key_file file = { files[i].mode, files[i].length, strlen(files[i].path) };
		ret = array_append(key, &file, sizeof(file));
		if (!ret)
			ret = append_padded(key, files[i].path);
	}
	return ret;
}

static void index_name(const struct array *key, char name[40])
{
	snprintf(name, 40, "%016llx%016llx", (unsigned long long)cache_checksum(INDEX_VERSION, key->data, key->used),
		 (unsigned long long)cache_checksum(~(uint64_t)INDEX_VERSION, key->data, key->used));
}

/* The tree's own checksum comes first, since it is of use by itself; then what it leaves out, and what stands before the arrays. */
static uint64_t checksum_parts(const struct tree *tree, const struct index_head *head, const void *middle, size_t middle_bytes)
{
	const uint64_t extents = cache_checksum(tree->checksum, tree->extents, tree->extent_count * sizeof(*tree->extents));
	const uint64_t sum = cache_checksum(extents, &head->version, sizeof(*head) - offsetof(struct index_head, version));
	return cache_checksum(sum, middle, middle_bytes);
}

/* A file that was mapped: its parts. */
struct index_file {
	const uint8_t *map;
	size_t map_bytes;
	struct index_head head;
	const struct origin *origins;
};

/* Checks the head, the sizes, the key and the checksum of the mapped file, and places the tree's arrays, which then can be looked at. */
static int open_parts(struct index_file *file, const struct array *key, struct tree *tree)
{
	size_t arrays_bytes;
	if (file->map_bytes < sizeof(file->head))
		return -EBADMSG;
	memcpy(&file->head, file->map, sizeof(file->head));
	const struct index_head *head = &file->head;
	if (head->magic != INDEX_MAGIC || head->version != INDEX_VERSION || head->key_bytes != key->used ||
	    head->origin_bytes > file->map_bytes || head->origin_bytes % sizeof(struct origin) != 0 ||
	    tree_arrays_bytes(&head->counts, &arrays_bytes))
		return -EBADMSG;
	/* The key was ours to make, origins lie in the file: no overflow. */
	const size_t middle_bytes = head->key_bytes + head->origin_bytes, arrays_offset = sizeof(*head) + middle_bytes;
	if (file->map_bytes < arrays_offset || file->map_bytes - arrays_offset != arrays_bytes ||
	    memcmp(file->map + sizeof(*head), key->data, key->used) != 0)
		return -EBADMSG;
	file->origins = (const struct origin *)(const void *)(file->map + sizeof(*head) + head->key_bytes);
	tree_arrays_place(tree, &head->counts, (uint8_t *)tree->map + arrays_offset);
	tree->layer_count = head->layer_count;
	tree->checksum = tree_arrays_checksum(tree);
	return checksum_parts(tree, head, file->map + sizeof(*head), middle_bytes) == head->checksum ? 0 : -EBADMSG;
}

/*
 * A source for every layer, inflated ones from the cache, then one for every file. The layers' own descriptors stay where they are.
 */
static int open_sources(struct tree *tree, const struct cache *cache, const struct index_file *file,
			const struct layer_file *layers, size_t layer_count, const struct layers_memory_file *files,
			size_t file_count)
{
	if (file->head.origin_bytes != layer_count * sizeof(struct origin))
		return -EBADMSG;
	tree->sources = calloc(layer_count + file_count + 1, sizeof(*tree->sources));
	if (!tree->sources)
		return -ENOMEM;
	for (size_t i = 0; i < layer_count + file_count; i++) {
		struct tree_source *source = &tree->sources[tree->source_count++];
		const bool memory = i >= layer_count;
		*source = (struct tree_source){ .fd = -1, .name = strdup(memory ? files[i - layer_count].path : layers[i].name) };
		if (!source->name)
			return -ENOMEM;
		if (memory) {
			source->memory = files[i - layer_count].data;
			source->is_own = true;
			source->size_bytes = files[i - layer_count].length;
			continue;
		}
		source->size_bytes = layers[i].in_cache ? layers[i].offset + layers[i].length : (uint64_t)layers[i].st.st_size;
		if (!file->origins[i].inflated && !layers[i].in_cache) {
			source->stamp = file_stamp(&layers[i].st);
			continue;
		}
		if (file->origins[i].inflated)
			source->fd = inflated_open_known(cache, file->origins[i].digest, &source->size_bytes);
		if (file->origins[i].inflated && source->fd < 0)
			return source->fd;
		const int ret = chunk_check_create(source->fd < 0 ? layers[i].fd : source->fd, &source->check);
		if (ret)
			return ret;
	}
	return 0;
}

/* To know that a directory is the same takes as long as reading it. */
static bool has_directory(const struct layer_file *layers, size_t layer_count)
{
	for (size_t i = 0; i < layer_count; i++) {
		if (layers[i].kind == LAYER_DIRECTORY)
			return true;
	}
	return false;
}

static int map_file(const struct cache *cache, const struct array *key, struct index_file *file)
{
	char name[40];
	index_name(key, name);
	const int fd = cache_open_file(cache, "trees", name);
	if (fd < 0)
		return fd;
	struct stat st;
	int ret = fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size <= 0 ? -EBADMSG : 0;
	if (!ret) {
		/* All of it is read below; one call brings the pages in faster than a fault for each sixteen. */
		file->map_bytes = (size_t)st.st_size;
		void *map = mmap(NULL, file->map_bytes, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
		ret = map == MAP_FAILED ? -errno : 0;
		file->map = ret ? NULL : map;
		cache_touch(fd, &st);
	}
	close(fd);
	return ret;
}

int index_load(const struct cache *cache, struct layer_file *layers, size_t layer_count, const struct layers_memory_file *files,
	       size_t file_count, struct tree **out)
{
	if (has_directory(layers, layer_count))
		return -ENOENT;
	struct array key = { 0 };
	struct index_file file = { 0 };
	struct tree *tree = calloc(1, sizeof(*tree));
	int ret = tree ? make_key(&key, layers, layer_count, files, file_count) : -ENOMEM;
	if (!ret)
		ret = map_file(cache, &key, &file);
	if (!ret) {
		memcpy(&tree->map, &file.map, sizeof(tree->map)); /* mapped for reading only; const is the callers' business */
		tree->map_bytes = file.map_bytes;
		ret = open_parts(&file, &key, tree);
	}
	if (!ret) {
		ret = open_sources(tree, cache, &file, layers, layer_count, files, file_count);
	}
	if (!ret)
		ret = index_check(tree);
	array_free(&key);
	if (ret) {
		tree_destroy(tree);
		return ret;
	}
	for (size_t i = 0; i < layer_count; i++) {
		if (tree->sources[i].fd >= 0)
			continue;
		tree->sources[i].fd = layers[i].fd;
		layers[i].fd = -1;
	}
	*out = tree;
	return 0;
}

/* A layer that changed while it was read, or just before, must not be remembered as what was read. */
static bool can_be_saved(const struct layer_file *layers, size_t layer_count, const struct tree *tree)
{
	for (size_t i = 0; i < layer_count; i++) {
		const struct file_identity before = file_identity_of(&layers[i].st);
		struct stat st;
		if (!file_identity_is_settled(&before))
			return false;
		if (layers[i].inflated || layers[i].in_cache) /* the cache's own copy, known by digest */
			continue;
		if (fstat(tree->sources[i].fd, &st))
			return false;
		const struct file_identity now = file_identity_of(&st);
		if (memcmp(&before, &now, sizeof(now)) != 0)
			return false;
	}
	return true;
}

static int write_index(const struct cache *cache, const struct array *key, const struct array *origins, const struct tree *tree)
{
	struct index_head head = {
		.magic = INDEX_MAGIC,
		.version = INDEX_VERSION,
		.layer_count = tree->layer_count,
		.key_bytes = key->used,
		.origin_bytes = origins->used,
		.counts = { tree->inode_count, tree->entry_count, tree->extent_count, tree->xattr_count, tree->string_bytes },
	};
	struct array middle = { 0 };
	int ret = array_append(&middle, key->data, key->used);
	if (!ret)
		ret = array_append(&middle, origins->data, origins->used);
	head.checksum = ret ? 0 : checksum_parts(tree, &head, middle.data, middle.used);
	const struct iovec parts[3] = { { &head, sizeof(head) }, { middle.data, middle.used }, { tree->map, tree->map_bytes } };
	char name[40];
	index_name(key, name);
	const int lock = ret ? ret : cache_lock(cache, head.checksum);
	struct cache_file file;
	if (lock >= 0) {
		cache_trim(cache, "trees", TREES_BYTES_MAX);
		ret = cache_create(cache, "trees", name, &file);
		if (!ret) {
			ret = iov_pwrite_full(file.fd, parts, 3, 0);
			const int fd = ret ? -1 : cache_publish(&file);
			if (fd >= 0)
				close(fd);
			cache_drop(&file);
		}
		close(lock);
	}
	array_free(&middle);
	return ret;
}

void index_save(const struct cache *cache, const struct layer_file *layers, size_t layer_count,
		const struct layers_memory_file *files, size_t file_count, const struct tree *tree)
{
	if (has_directory(layers, layer_count) || !can_be_saved(layers, layer_count, tree))
		return;
	struct array key = { 0 }, origins = { 0 };
	int ret = make_key(&key, layers, layer_count, files, file_count);
	for (size_t i = 0; i < layer_count && !ret; i++) {
		struct origin origin = { .tar_bytes = layers[i].tar_bytes, .inflated = layers[i].inflated };
		memcpy(origin.digest, layers[i].digest, sizeof(origin.digest));
		ret = array_append(&origins, &origin, sizeof(origin));
	}
	if (!ret)
		write_index(cache, &key, &origins, tree);
	array_free(&key);
	array_free(&origins);
}
