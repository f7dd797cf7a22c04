/*
 * Keeping the cache from growing for ever.
 *
 * An entry's access time says when it was last used: cache_touch() sets it at most once a day, since file systems mounted with
 * noatime do not. Whenever something is added, what was not used for a month goes, and then the least recently used until the
 * directory is within its limit. Runs that have an entry open keep it; its space is free when they end.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "layers/array_internal.h"
#include "layers/cache.h"

#define DAY_S 86400
#define UNUSED_S (30 * DAY_S)
#define YOUNG_S 3600 /* may have just been made by another run, which is about to open it */

struct candidate {
	time_t used;
	uint64_t bytes;
	char name[96];
};

void cache_touch(int fd, const struct stat *st)
{
	if (time(NULL) - st->st_atim.tv_sec < DAY_S)
		return;
	const struct timespec times[2] = { { 0, UTIME_NOW }, { 0, UTIME_OMIT } };
	if (futimens(fd, times))
		return; /* then it goes earlier than it might */
}

static int older_first(const void *left, const void *right)
{
	const struct candidate *a = left, *b = right;
	return a->used < b->used ? -1 : a->used > b->used;
}

/* Lists the regular files of the directory. Returns their bytes in all. */
static uint64_t list(DIR *directory, struct array *candidates)
{
	uint64_t total = 0;
	for (const struct dirent *d; (d = readdir(directory));) {
		struct stat st;
		struct candidate candidate = { 0 };
		if (strlen(d->d_name) >= sizeof(candidate.name) || fstatat(dirfd(directory), d->d_name, &st, AT_SYMLINK_NOFOLLOW) ||
		    !S_ISREG(st.st_mode))
			continue;
		strcpy(candidate.name, d->d_name);
		candidate.used = st.st_atim.tv_sec;
		candidate.bytes = (uint64_t)st.st_blocks * 512;
		total += candidate.bytes;
		if (array_append(candidates, &candidate, sizeof(candidate)))
			break;
	}
	return total;
}

void cache_trim(const struct cache *cache, const char *name, uint64_t limit_bytes)
{
	const int fd = openat(cache->fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	DIR *directory = fd >= 0 ? fdopendir(fd) : NULL;
	if (!directory) {
		if (fd >= 0)
			close(fd);
		return;
	}
	struct array list_of = { 0 };
	uint64_t total = list(directory, &list_of);
	struct candidate *candidates = (struct candidate *)(void *)list_of.data;
	const size_t count = list_of.used / sizeof(*candidates);
	const time_t now = time(NULL);
	if (count)
		qsort(candidates, count, sizeof(*candidates), older_first);
	for (size_t i = 0; i < count; i++) {
		const time_t age = now - candidates[i].used;
		if (age < YOUNG_S || (age < UNUSED_S && total <= limit_bytes))
			break;
		if (unlinkat(dirfd(directory), candidates[i].name, 0) == 0)
			total -= candidates[i].bytes;
	}
	array_free(&list_of);
	closedir(directory);
}
