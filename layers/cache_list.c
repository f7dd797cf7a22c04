/*
 * Looking after the cache: what is there, and removing it beside runs that use it.
 *
 * Removing a file that a run has open takes nothing from it, but frees nothing either, and the next run has to inflate again. So whoever
 * reads from a layer holds a shared lock of the file (flock), which tells. A run that is making a layer holds the entry's lock
 * (cache_lock()), and opens it by its name before it lets go.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "layers/array_internal.h"
#include "layers/cache.h"

static const char *const kinds[] = { "layers", "trees", "kernels", "images", "digests" };

void cache_mark_used(int fd)
{
	/* When it is being removed this moment: what is open stays readable. */
	if (flock(fd, LOCK_SH | LOCK_NB))
		return;
}

/* Whether a run has it open. Takes the lock for a moment only. */
static bool is_in_use(int directory, const char *name)
{
	const int fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd < 0)
		return false;
	const bool busy = flock(fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK;
	close(fd);
	return busy;
}

static int list_kind(const struct cache *cache, const char *kind, struct array *entries)
{
	const int fd = openat(cache->fd, kind, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	DIR *directory = fd >= 0 ? fdopendir(fd) : NULL;
	if (!directory) {
		const int ret = -errno;
		if (fd >= 0)
			close(fd);
		return ret == -ENOENT ? 0 : ret;
	}
	int ret = 0;
	for (const struct dirent *d; !ret && (d = readdir(directory));) {
		struct stat st;
		struct cache_entry entry = { .bytes = 0 };
		if (strlen(d->d_name) >= sizeof(entry.name) || fstatat(fd, d->d_name, &st, AT_SYMLINK_NOFOLLOW) ||
		    !S_ISREG(st.st_mode))
			continue;
		snprintf(entry.kind, sizeof(entry.kind), "%s", kind);
		strcpy(entry.name, d->d_name);
		entry.bytes = (uint64_t)st.st_blocks * 512;
		entry.last_use_s = st.st_atim.tv_sec;
		entry.in_use = is_in_use(fd, d->d_name);
		ret = array_append(entries, &entry, sizeof(entry));
	}
	closedir(directory);
	return ret;
}

static size_t kind_number(const char *kind)
{
	size_t i = 0;
	while (i < sizeof(kinds) / sizeof(kinds[0]) - 1 && strcmp(kind, kinds[i]) != 0)
		i++;
	return i;
}

static int compare(const void *left, const void *right)
{
	const struct cache_entry *a = left, *b = right;
	const size_t kind_a = kind_number(a->kind), kind_b = kind_number(b->kind);
	if (kind_a != kind_b)
		return kind_a < kind_b ? -1 : 1;
	if (a->bytes != b->bytes)
		return a->bytes > b->bytes ? -1 : 1;
	return strcmp(a->name, b->name);
}

int cache_list(const struct cache *cache, struct cache_entry **entries, size_t *count)
{
	struct array list = { 0 };
	int ret = 0;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]) && !ret; i++)
		ret = list_kind(cache, kinds[i], &list);
	struct cache_entry *copy = ret ? NULL : malloc(list.used + 1);
	if (!copy) {
		array_free(&list);
		return ret ? ret : -ENOMEM;
	}
	if (list.used)
		memcpy(copy, list.data, list.used);
	*entries = copy;
	*count = list.used / sizeof(*copy);
	qsort(copy, *count, sizeof(*copy), compare);
	array_free(&list);
	return 0;
}

/* The lock that a run which makes layers/NAME (or NAME.tmp) holds. Returns the descriptor, -EAGAIN, or another -errno. */
static int lock_layer(const struct cache *cache, const char *name)
{
	uint8_t digest[DIGEST_BYTES];
	char byte[3] = "", *end;
	for (unsigned i = 0; i < DIGEST_BYTES; i++) {
		if (strlen(name) < 2 * (i + 1u))
			return -EINVAL;
		memcpy(byte, name + 2 * i, 2);
		digest[i] = (uint8_t)strtoul(byte, &end, 16);
		if (*end)
			return -EINVAL;
	}
	return cache_try_lock(cache, layer_lock_key(digest));
}

int cache_remove(const struct cache *cache, const struct cache_entry *entry)
{
	char path[128];
	snprintf(path, sizeof(path), "%s/%s", entry->kind, entry->name);
	int lock = strcmp(entry->kind, "layers") == 0 ? lock_layer(cache, entry->name) : -EINVAL;
	int ret = lock == -EAGAIN || is_in_use(cache->fd, path) ? 0 : 1;
	if (ret && unlinkat(cache->fd, path, 0))
		ret = -errno;
	if (lock >= 0)
		close(lock);
	return ret;
}
