/* Files of a host directory: a table of what they are, and the few that are open. See host_files_internal.h. */
#include "layers/host_files_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/iov.h"
#include "layers/array_internal.h"
#include "layers/cache.h"

#define FILE_GAP_BYTES 4096u

struct host_directory {
	uint32_t parent;
	uint32_t name; /* offset into names, where it ends with a NUL */
};

struct host_file {
	uint64_t start; /* in the source */
	uint64_t size_bytes;
	uint64_t identity; /* file_identity_number() */
	uint32_t directory;
	uint32_t name;
};

struct open_file {
	int fd; /* owned; -1: the place is free */
	uint32_t file;
	unsigned users; /* reads that are under way */
	uint64_t last_use;
};

struct host_files {
	int root; /* owned */
	struct array directories; /* struct host_directory */
	struct array files; /* struct host_file, by start */
	struct array names;
	uint64_t end; /* of the last file, with its gap */
	pthread_mutex_t lock; /* of what follows */
	struct open_file open[HOST_FILES_OPEN_MAX];
	uint64_t uses;
};

struct host_files *host_files_create(int directory)
{
	struct host_files *files = calloc(1, sizeof(*files));
	const struct host_directory top = { 0 };
	if (!files) {
		close(directory);
		return NULL;
	}
	files->root = directory;
	pthread_mutex_init(&files->lock, NULL);
	for (unsigned i = 0; i < HOST_FILES_OPEN_MAX; i++)
		files->open[i].fd = -1;
	if (array_append(&files->names, "", 1) || array_append(&files->directories, &top, sizeof(top))) {
		host_files_destroy(files);
		return NULL;
	}
	return files;
}

void host_files_destroy(struct host_files *files)
{
	if (!files)
		return;
	for (unsigned i = 0; i < HOST_FILES_OPEN_MAX; i++) {
		if (files->open[i].fd >= 0)
			close(files->open[i].fd);
	}
	close(files->root);
	pthread_mutex_destroy(&files->lock);
	array_free(&files->directories);
	array_free(&files->files);
	array_free(&files->names);
	free(files);
}

int host_files_root(const struct host_files *files)
{
	return files->root;
}

/* ---- the table --------------------------------------------------------------------------------------------------------------- */

static const struct host_directory *directory_at(const struct host_files *files, uint32_t number)
{
	return (const struct host_directory *)(const void *)files->directories.data + number;
}

static const struct host_file *file_at(const struct host_files *files, size_t number)
{
	return (const struct host_file *)(const void *)files->files.data + number;
}

static const char *name_at(const struct host_files *files, uint32_t offset)
{
	assert(files->names.data); /* there is one since host_files_create() */
	return files->names.data + offset;
}

static int add_name(struct host_files *files, const char *name, uint32_t *offset)
{
	const size_t bytes = strlen(name) + 1;
	if (bytes > UINT32_MAX - files->names.used)
		return -ENOMEM;
	*offset = (uint32_t)files->names.used;
	return array_append(&files->names, name, bytes);
}

uint32_t host_files_directory_count(const struct host_files *files)
{
	return (uint32_t)(files->directories.used / sizeof(struct host_directory));
}

int host_files_add_directory(struct host_files *files, uint32_t parent, const char *name, uint32_t *number)
{
	struct host_directory directory = { .parent = parent };
	const uint32_t count = host_files_directory_count(files);
	const int ret = count == UINT32_MAX ? -ENOMEM : add_name(files, name, &directory.name);
	if (ret || array_append(&files->directories, &directory, sizeof(directory)))
		return -ENOMEM;
	*number = count;
	return 0;
}

int host_files_add_file(struct host_files *files, uint32_t directory, const char *name, const struct stat *st, uint64_t *offset)
{
	struct host_file file = {
		.start = files->end,
		.size_bytes = (uint64_t)st->st_size,
		.identity = file_identity_number(st),
		.directory = directory,
	};
	uint64_t end;
	if (__builtin_add_overflow(file.start, file.size_bytes, &end) || end > UINT64_MAX - 2 * FILE_GAP_BYTES)
		return -EFBIG;
	if (files->files.used / sizeof(file) == UINT32_MAX || add_name(files, name, &file.name) ||
	    array_append(&files->files, &file, sizeof(file)))
		return -ENOMEM;
	files->end = (end / FILE_GAP_BYTES + 1) * FILE_GAP_BYTES;
	*offset = file.start;
	return 0;
}

uint64_t host_files_bytes(const struct host_files *files)
{
	return files->end;
}

/* Puts a name before what begins at `*at`. Returns false when there is no room. */
static bool put_before(char *out, size_t *at, const char *name)
{
	const size_t length = strlen(name), slash = *at < HOST_PATH_MAX;
	if (length + slash > *at)
		return false;
	*at -= slash;
	if (slash)
		out[*at] = '/';
	*at -= length;
	/* The path's end is there already. NOLINTNEXTLINE(bugprone-not-null-terminated-result) */
	memmove(out + *at, name, length);
	return true;
}

int host_files_path(const struct host_files *files, uint32_t directory, const char *name, char *out)
{
	/* From the end: a directory knows what is above it. */
	size_t at = HOST_PATH_MAX;
	bool fits = true;
	out[at] = '\0';
	if (name)
		fits = put_before(out, &at, name);
	for (; directory && fits; directory = directory_at(files, directory)->parent)
		fits = put_before(out, &at, name_at(files, directory_at(files, directory)->name));
	if (!fits)
		return -ENAMETOOLONG;
	memmove(out, out + at, HOST_PATH_MAX + 1 - at);
	return (int)(HOST_PATH_MAX - at);
}

/* ---- opening below the top --------------------------------------------------------------------------------------------------- */

static int open_beneath(int directory, const char *path, int flags)
{
	const struct open_how how = {
		.flags = (uint64_t)(unsigned)flags,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	const long fd = syscall(SYS_openat2, directory, path, &how, sizeof(how));
	return fd < 0 ? -errno : (int)fd;
}

/* One name after the other: for paths beyond PATH_MAX, and for Linux before 5.6, which has no openat2(). Names are never "..". */
static int open_by_steps(int directory, char *path, int flags)
{
	int here = directory;
	for (char *slash; (slash = strchr(path, '/')); path = slash + 1) {
		*slash = '\0';
		const int next = openat(here, path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		const int ret = -errno;
		if (here != directory)
			close(here);
		if (next < 0)
			return ret;
		here = next;
	}
	const int fd = openat(here, path, flags | O_NOFOLLOW);
	const int ret = -errno;
	if (here != directory)
		close(here);
	return fd < 0 ? ret : fd;
}

/* `name` NULL: the directory itself. */
static int open_path(const struct host_files *files, uint32_t directory, const char *name, int flags)
{
	char path[HOST_PATH_MAX + 1];
	const int length = host_files_path(files, directory, name, path);
	if (length < 0)
		return length;
	const int fd = open_beneath(files->root, length ? path : ".", flags);
	if (fd != -ENOSYS && fd != -ENAMETOOLONG && fd != -EPERM)
		return fd;
	if (length)
		return open_by_steps(files->root, path, flags);
	return openat(files->root, ".", flags);
}

int host_files_open_directory(const struct host_files *files, uint32_t directory)
{
	return open_path(files, directory, NULL, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

static int open_file(const struct host_files *files, const struct host_file *file)
{
	/* Not to wait when a fifo has taken the file's place. */
	return open_path(files, file->directory, name_at(files, file->name), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
}

/* ---- the files that are open ------------------------------------------------------------------------------------------------- */

static struct open_file *find_open(struct host_files *files, uint32_t number)
{
	for (unsigned i = 0; i < HOST_FILES_OPEN_MAX; i++) {
		if (files->open[i].fd >= 0 && files->open[i].file == number)
			return &files->open[i];
	}
	return NULL;
}

/* A free place, or the one that was used longest ago and that nobody reads from; NULL: all are in use. */
static struct open_file *find_place(struct host_files *files)
{
	struct open_file *oldest = NULL;
	for (unsigned i = 0; i < HOST_FILES_OPEN_MAX; i++) {
		struct open_file *place = &files->open[i];
		if (place->fd < 0)
			return place;
		if (!place->users && (!oldest || place->last_use < oldest->last_use))
			oldest = place;
	}
	return oldest;
}

/*
 * A descriptor for file `number`, good until end_use(). `place` is where it is kept; NULL: nowhere, since all places are in use.
 * Returns it or -errno.
 */
static int begin_use(struct host_files *files, uint32_t number, struct open_file **place)
{
	pthread_mutex_lock(&files->lock);
	*place = find_open(files, number);
	if (!*place) {
		/* Storage may be slow, and others read meanwhile. If one of them opens the same file, it is open twice for a while. */
		pthread_mutex_unlock(&files->lock);
		const int fd = open_file(files, file_at(files, number));
		if (fd < 0)
			return fd;
		pthread_mutex_lock(&files->lock);
		*place = find_place(files);
		if (!*place) {
			pthread_mutex_unlock(&files->lock);
			return fd;
		}
		if ((*place)->fd >= 0)
			close((*place)->fd);
		**place = (struct open_file){ .fd = fd, .file = number };
	}
	(*place)->users++;
	(*place)->last_use = ++files->uses;
	const int fd = (*place)->fd;
	pthread_mutex_unlock(&files->lock);
	return fd;
}

static void end_use(struct host_files *files, struct open_file *place, int fd)
{
	if (!place) {
		close(fd);
		return;
	}
	pthread_mutex_lock(&files->lock);
	place->users--;
	pthread_mutex_unlock(&files->lock);
}

/* ---- reading ----------------------------------------------------------------------------------------------------------------- */

/* The file with the offset; the number of files when there is none. */
static size_t find_file(const struct host_files *files, uint64_t offset)
{
	size_t begin = 0, end = files->files.used / sizeof(struct host_file);
	const size_t count = end;
	while (begin < end) {
		const size_t middle = begin + (end - begin) / 2;
		if (file_at(files, middle)->start <= offset)
			begin = middle + 1;
		else
			end = middle;
	}
	return begin ? begin - 1 : count;
}

static int file_error(const struct host_files *files, const struct host_file *file, int code, struct error *err)
{
	char path[HOST_PATH_MAX + 1], quoted[400];
	const int length = host_files_path(files, file->directory, name_at(files, file->name), path);
	return error_prefix(err, code, "'%s'", error_quote(quoted, sizeof(quoted), path, length < 0 ? 0 : (size_t)length));
}

static int read_checked(int fd, const struct host_file *file, uint64_t offset, const struct iovec *iov, unsigned count,
			struct error *err)
{
	struct stat st;
	const int ret = iov_pread_full(fd, iov, count, offset);
	/* Afterwards, as what is written changes the times before it changes the bytes. */
	if (fstat(fd, &st) || file_identity_number(&st) != file->identity)
		return error_set(err, -EIO, "was changed or replaced while the guest runs");
	return ret ? error_set(err, ret, "cannot be read at byte %llu: %s", (unsigned long long)offset, strerror(-ret)) : 0;
}

int host_files_readv(struct host_files *files, uint64_t offset, const struct iovec *iov, unsigned count, struct error *err)
{
	const size_t number = find_file(files, offset);
	const size_t length = iov_total(iov, count);
	if (number == files->files.used / sizeof(struct host_file))
		return error_set(err, -EIO, "nothing is at byte %llu", (unsigned long long)offset);
	const struct host_file *file = file_at(files, number);
	offset -= file->start;
	if (offset > file->size_bytes || length > file->size_bytes - offset)
		return file_error(files, file, error_set(err, -EIO, "ends before byte %llu", (unsigned long long)offset + length),
				  err);
	struct open_file *place;
	const int fd = begin_use(files, (uint32_t)number, &place);
	if (fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP)
		return file_error(files, file, error_set(err, -EIO, "vanished while the guest runs"), err);
	if (fd < 0)
		return file_error(files, file, error_set(err, -EIO, "cannot be opened: %s", strerror(-fd)), err);
	const int ret = read_checked(fd, file, offset, iov, count, err);
	end_use(files, place, fd);
	return ret ? file_error(files, file, ret, err) : 0;
}
