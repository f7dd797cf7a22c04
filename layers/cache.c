/* The cache directory; see cache_internal.h. */
#include "layers/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Creates the directory and what is missing above it. */
static int make_directories(char *path)
{
	for (char *slash = path + 1; (slash = strchr(slash, '/')); slash++) {
		*slash = '\0';
		const int failed = mkdir(path, 0700) && errno != EEXIST;
		*slash = '/';
		if (failed)
			return -errno;
	}
	return mkdir(path, 0700) && errno != EEXIST ? -errno : 0;
}

static char *default_path(void)
{
	const char *base = getenv("XDG_CACHE_HOME"), *below = "/trvmm";
	if (!base || base[0] != '/') { /* the XDG specification wants relative ones ignored */
		base = getenv("HOME");
		below = "/.cache/trvmm";
	}
	char *path = NULL;
	if (!base || !base[0] || asprintf(&path, "%s%s", base, below) < 0)
		return NULL;
	return path;
}

int cache_open(struct cache *cache, const char *given, struct error *err)
{
	*cache = (struct cache){ .fd = -1 };
	char *path = given ? strdup(given) : default_path();
	if (!path)
		return error_set(err, -ENOENT, "no place for the cache: set HOME or XDG_CACHE_HOME");
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT) {
		const int ret = make_directories(path);
		fd = ret ? -1 : open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		errno = ret ? -ret : errno;
	}
	struct stat st;
	int ret = 0;
	if (fd < 0 || fstat(fd, &st))
		ret = error_set(err, -errno, "cannot use the cache %s: %s", path, strerror(errno));
	else if (st.st_uid != geteuid() || (st.st_mode & 022))
		ret = error_set(err, -EPERM,
				"the cache %s belongs to another user or is open to others: chmod go-w it or set XDG_CACHE_HOME",
				path);
	if (ret) {
		if (fd >= 0)
			close(fd);
		free(path);
		return ret;
	}
	*cache = (struct cache){ fd, path };
	return 0;
}

void cache_close(struct cache *cache)
{
	if (cache->fd >= 0)
		close(cache->fd);
	free(cache->path);
	*cache = (struct cache){ .fd = -1 };
}

static int lock_entry(const struct cache *cache, uint64_t key, int how)
{
	const int fd = openat(cache->fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	/* A lock of the open file, not of the process: it is this run's own also when several threads work on layers. */
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)(key >> 2), .l_len = 1 };
	while (fcntl(fd, how, &lock)) {
		if (errno == EINTR)
			continue;
		const int ret = errno == EACCES ? -EAGAIN : -errno;
		close(fd);
		return ret;
	}
	return fd;
}

int cache_lock(const struct cache *cache, uint64_t key)
{
	return lock_entry(cache, key, F_OFD_SETLKW);
}

int cache_try_lock(const struct cache *cache, uint64_t key)
{
	return lock_entry(cache, key, F_OFD_SETLK);
}

int cache_open_file(const struct cache *cache, const char *directory, const char *name)
{
	char path[128];
	snprintf(path, sizeof(path), "%s/%s", directory, name);
	const int fd = openat(cache->fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	return fd < 0 ? -errno : fd;
}

static void temporary_name(const struct cache_file *file, char *name, size_t size)
{
	snprintf(name, size, "%s.tmp", file->name);
}

int cache_create(const struct cache *cache, const char *directory, const char *name, struct cache_file *file)
{
	*file = (struct cache_file){ .fd = -1, .directory = -1 };
	if (mkdirat(cache->fd, directory, 0700) && errno != EEXIST)
		return -errno;
	file->directory = openat(cache->fd, directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (file->directory < 0)
		return -errno;
	snprintf(file->name, sizeof(file->name), "%s", name);
	file->fd = openat(file->directory, ".", O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);
	if (file->fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT || errno == EINVAL)) {
		char temporary[128];
		temporary_name(file, temporary, sizeof(temporary));
		file->fd = openat(file->directory, temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
		file->named = file->fd >= 0;
	}
	if (file->fd < 0) {
		const int ret = -errno;
		cache_drop(file);
		return ret;
	}
	return 0;
}

static int give_name(const struct cache_file *file)
{
	if (file->named) {
		char temporary[128];
		temporary_name(file, temporary, sizeof(temporary));
		return renameat(file->directory, temporary, file->directory, file->name);
	}
	/* A link never replaces. Whoever looks in between finds nothing, which is also right. */
	unlinkat(file->directory, file->name, 0);
	char self[64];
	snprintf(self, sizeof(self), "/proc/self/fd/%d", file->fd);
	if (linkat(AT_FDCWD, self, file->directory, file->name, AT_SYMLINK_FOLLOW) == 0)
		return 0;
	/* Without /proc; needs a privilege before Linux 6.10. */
	return linkat(file->fd, "", file->directory, file->name, AT_EMPTY_PATH);
}

int cache_publish(struct cache_file *file)
{
	if (give_name(file)) {
		const int ret = -errno;
		cache_drop(file);
		return ret;
	}
	const int fd = file->fd;
	file->fd = -1;
	file->named = false;
	cache_drop(file);
	return fd;
}

void cache_drop(struct cache_file *file)
{
	if (file->named) {
		char temporary[128];
		temporary_name(file, temporary, sizeof(temporary));
		unlinkat(file->directory, temporary, 0);
	}
	if (file->fd >= 0)
		close(file->fd);
	if (file->directory >= 0)
		close(file->directory);
	*file = (struct cache_file){ .fd = -1, .directory = -1 };
}
