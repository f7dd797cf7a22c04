/*
 * Host directories as layers; see directory_internal.h.
 *
 * Directories are read one after the other in the order in which they were found, so depth costs neither stack nor descriptors. The
 * names of each are sorted: what the disk looks like does not depend on the host's file system.
 */
#include "layers/directory_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "layers/array_internal.h"
#include "layers/cache.h"
#include "layers/host_entry_internal.h"
#include "layers/host_files_internal.h"

struct scan {
	struct tree_builder *builder;
	struct host_files *files; /* borrowed: the source's */
	uint32_t source;
	const struct host_placing *placing;
	dev_t device; /* of the top */
	void *links; /* tsearch(): struct link */
	struct host_entry entry;
	struct array path; /* in the tree, of what is being placed */
	size_t directory_bytes; /* of its directory, with the slash */
	struct array names, order; /* of the directory that is being read; char *, into names */
	char *host_path; /* owned: HOST_PATH_MAX + 1 bytes */
};

/* ---- hard links -------------------------------------------------------------------------------------------------------------- */

struct link {
	dev_t device;
	ino_t host_inode;
	uint32_t inode; /* in the tree */
};

static int compare_links(const void *left, const void *right)
{
	const struct link *a = left, *b = right;
	if (a->device != b->device)
		return a->device < b->device ? -1 : 1;
	return a->host_inode < b->host_inode ? -1 : a->host_inode > b->host_inode;
}

static const struct link *find_link(struct scan *scan, const struct stat *st)
{
	const struct link key = { .device = st->st_dev, .host_inode = st->st_ino };
	struct link **found = tfind(&key, &scan->links, compare_links);
	return found ? *found : NULL;
}

static int add_link(struct scan *scan, const struct stat *st, uint32_t inode)
{
	struct link *link = malloc(sizeof(*link));
	if (!link)
		return -ENOMEM;
	*link = (struct link){ st->st_dev, st->st_ino, inode };
	if (tsearch(link, &scan->links, compare_links))
		return 0;
	free(link);
	return -ENOMEM;
}

/* ---- one name ---------------------------------------------------------------------------------------------------------------- */

static int out_of_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "out of memory");
}

/* The path in the tree of `name` in the directory that is being read. */
static int set_path(struct scan *scan, const char *name)
{
	scan->path.used = scan->directory_bytes;
	return array_append(&scan->path, name, strlen(name));
}

/* The contents of a regular file: extents in the source. */
static int add_contents(struct scan *scan, uint32_t directory, const char *name, const struct stat *st, struct error *err)
{
	uint64_t start;
	if (!scan->entry.tar.extent_count)
		return 0;
	const int ret = host_files_add_file(scan->files, directory, name, st, &start);
	if (ret)
		return ret == -EFBIG ? error_set(err, ret, "the files together are larger than 16 EiB") : out_of_memory(err);
	host_entry_move_extents(&scan->entry, start);
	return 0;
}

static int place(struct scan *scan, uint32_t *inode, struct error *err)
{
	scan->entry.tar.path = (struct slice){ scan->path.data, scan->path.used };
	if (scan->placing->added)
		scan->entry.tar.uid = scan->entry.tar.gid = 0;
	return builder_place(scan->builder, &scan->entry.tar, scan->source, scan->placing->added, inode, err);
}

static int add_name(struct scan *scan, int directory_fd, uint32_t directory, const char *name, struct error *err)
{
	struct stat st;
	uint32_t inode, number;
	if (fstatat(directory_fd, name, &st, AT_SYMLINK_NOFOLLOW))
		return errno == ENOENT ? 0 : error_set(err, -errno, "%s", strerror(errno));
	if (set_path(scan, name))
		return out_of_memory(err);
	const bool is_directory = S_ISDIR(st.st_mode);
	const struct link *link = !is_directory && st.st_nlink > 1 ? find_link(scan, &st) : NULL;
	if (link)
		return builder_place_link(scan->builder, &(struct slice){ scan->path.data, scan->path.used }, link->inode, err);
	int ret = host_entry_read(&scan->entry, directory_fd, name, &st, err);
	if (ret == -ENOENT) /* removed this moment: it is as if it had not been there */
		return 0;
	if (!ret)
		ret = add_contents(scan, directory, name, &st, err);
	if (!ret)
		ret = place(scan, &inode, err);
	if (!ret && !is_directory && st.st_nlink > 1 && add_link(scan, &st, inode))
		ret = out_of_memory(err);
	if (!ret && is_directory && host_files_add_directory(scan->files, directory, name, &number))
		ret = out_of_memory(err);
	return ret;
}

/* ---- one directory ----------------------------------------------------------------------------------------------------------- */

static int compare_names(const void *left, const void *right, void *names)
{
	return strcmp((const char *)names + *(const uint32_t *)left, (const char *)names + *(const uint32_t *)right);
}

static bool is_dot(const char *name)
{
	return name[0] == '.' && (!name[1] || (name[1] == '.' && !name[2]));
}

/* Sorted into scan->names and scan->order. */
static int read_names(struct scan *scan, DIR *dir, struct error *err)
{
	scan->names.used = scan->order.used = 0;
	for (const struct dirent *d; errno = 0, (d = readdir(dir));) {
		if (is_dot(d->d_name))
			continue;
		const uint32_t offset = (uint32_t)scan->names.used;
		if (scan->names.used > UINT32_MAX / 2 || array_append(&scan->names, d->d_name, strlen(d->d_name) + 1) ||
		    array_append(&scan->order, &offset, sizeof(offset)))
			return out_of_memory(err);
	}
	if (errno)
		return error_set(err, -errno, "cannot be read: %s", strerror(errno));
	if (scan->order.used)
		qsort_r(scan->order.data, scan->order.used / sizeof(uint32_t), sizeof(uint32_t), compare_names, scan->names.data);
	return 0;
}

/* Whether another file system is mounted here. Not the device decides, where the kernel knows better: btrfs has many on one mount. */
static bool is_mount_point(const struct scan *scan, int fd)
{
	struct statx st;
	if (statx(fd, "", AT_EMPTY_PATH, STATX_TYPE, &st))
		return false;
	if (st.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT)
		return st.stx_attributes & STATX_ATTR_MOUNT_ROOT;
	return makedev(st.stx_dev_major, st.stx_dev_minor) != scan->device;
}

static int add_names(struct scan *scan, DIR *dir, uint32_t directory, struct error *err)
{
	int ret = read_names(scan, dir, err);
	const uint32_t *order = (const uint32_t *)(const void *)scan->order.data;
	for (size_t i = 0; i < scan->order.used / sizeof(*order) && !ret; i++) {
		const char *name = scan->names.data + order[i];
		ret = add_name(scan, dirfd(dir), directory, name, err);
		if (ret) {
			char quoted[300];
			const int length = host_files_path(scan->files, directory, name, scan->host_path);
			error_prefix(err, ret, "'%s'",
				     error_quote(quoted, sizeof(quoted), scan->host_path, length < 0 ? 0 : (size_t)length));
		}
	}
	return ret;
}

/* Makes scan->path that of the directory. Returns 0 or -errno. */
static int begin_directory(struct scan *scan, uint32_t directory, struct error *err)
{
	const char *guest = scan->placing->guest;
	const int length = host_files_path(scan->files, directory, NULL, scan->host_path);
	if (length < 0)
		return error_set(err, length, "has directories in each other whose path is longer than %u bytes", HOST_PATH_MAX);
	scan->path.used = 0;
	if (array_append(&scan->path, guest, strlen(guest)) || array_append(&scan->path, "/", 1) ||
	    array_append(&scan->path, scan->host_path, (size_t)length) || array_append(&scan->path, "/", length != 0))
		return out_of_memory(err);
	scan->directory_bytes = scan->path.used;
	return 0;
}

static int read_directory(struct scan *scan, uint32_t directory, struct error *err)
{
	int ret = begin_directory(scan, directory, err);
	if (ret)
		return ret;
	const int fd = host_files_open_directory(scan->files, directory);
	if (fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP) /* removed since, or no directory any more: it stays empty */
		return 0;
	if (fd >= 0 && directory && is_mount_point(scan, fd)) {
		close(fd);
		return 0;
	}
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	if (!dir) {
		char quoted[300];
		ret = error_set(err, fd < 0 ? fd : -errno, "'%s': cannot be read: %s",
				error_quote(quoted, sizeof(quoted), scan->host_path, strlen(scan->host_path)),
				strerror(fd < 0 ? -fd : errno));
		if (fd >= 0)
			close(fd);
		return ret;
	}
	ret = add_names(scan, dir, directory, err);
	closedir(dir);
	return ret;
}

/* The top itself: the root of the tree, or what is added, whose parents may be missing. */
static int place_top(struct scan *scan, struct error *err)
{
	struct stat st;
	uint32_t inode;
	if (fstat(host_files_root(scan->files), &st))
		return error_set(err, -errno, "%s", strerror(errno));
	scan->device = st.st_dev;
	scan->directory_bytes = 0;
	if (set_path(scan, scan->placing->guest))
		return out_of_memory(err);
	int ret = host_entry_read(&scan->entry, host_files_root(scan->files), ".", &st, err);
	if (!ret)
		ret = place(scan, &inode, err);
	return ret;
}

static int scan_all(struct scan *scan, struct error *err)
{
	int ret = place_top(scan, err);
	for (uint32_t i = 0; i < host_files_directory_count(scan->files) && !ret; i++)
		ret = read_directory(scan, i, err);
	scan->builder->sources[scan->source].size_bytes = host_files_bytes(scan->files);
	return ret;
}

static int begin_layer(struct tree_builder *builder, const struct host_placing *placing, uint32_t *source, struct error *err)
{
	const int ret = builder_begin_layer(builder, err);
	if (!ret && builder_add_source(builder, -1, NULL, 0, placing->name, source))
		return out_of_memory(err);
	return ret;
}

int directory_merge(struct tree_builder *builder, int fd, const struct host_placing *placing, struct error *err)
{
	struct scan scan = { .builder = builder, .placing = placing, .files = host_files_create(fd) };
	scan.host_path = scan.files ? malloc(HOST_PATH_MAX + 1) : NULL;
	int ret = -ENOMEM;
	if (!scan.host_path || (ret = begin_layer(builder, placing, &scan.source, err))) {
		host_files_destroy(scan.files);
		ret = error_set(err, ret, "%s", ret == -ENOMEM ? "out of memory" : "more than 65536 layers");
	} else {
		builder->sources[scan.source].host = scan.files;
		ret = scan_all(&scan, err);
	}
	tdestroy(scan.links, free);
	host_entry_free(&scan.entry);
	array_free(&scan.path);
	array_free(&scan.names);
	array_free(&scan.order);
	free(scan.host_path);
	return ret;
}

/* ---- one file ---------------------------------------------------------------------------------------------------------------- */

/* placing->guest, or in it the name that the file has on the host. */
static int choose_path(struct tree_builder *builder, const struct host_placing *placing, struct array *path, struct error *err)
{
	const char *guest = placing->guest, *slash = strrchr(placing->name, '/');
	const size_t length = strlen(guest);
	uint32_t directory;
	if (array_append(path, guest, length))
		return out_of_memory(err);
	const int found = builder_resolve(builder, guest, length, false, &directory, err);
	if (found == -ENOMEM)
		return found;
	if (found && guest[length - 1] != '/')
		return 0;
	const char *name = slash ? slash + 1 : placing->name;
	return array_append(path, "/", 1) || array_append(path, name, strlen(name)) ? out_of_memory(err) : 0;
}

int host_file_merge(struct tree_builder *builder, int fd, const struct stat *st, const struct host_placing *placing,
		    struct error *err)
{
	struct host_entry entry = { .tar = { .number = 0 } };
	struct array path = { 0 };
	uint32_t source, inode;
	int ret = begin_layer(builder, placing, &source, err);
	if (ret) {
		close(fd);
		return ret;
	}
	builder->sources[source].fd = fd;
	builder->sources[source].size_bytes = (uint64_t)st->st_size;
	builder->sources[source].stamp = file_stamp(st);
	ret = choose_path(builder, placing, &path, err);
	if (!ret)
		ret = host_entry_read(&entry, fd, NULL, st, err);
	if (!ret) {
		entry.tar.path = (struct slice){ path.data, path.used };
		entry.tar.uid = entry.tar.gid = 0;
		ret = builder_place(builder, &entry.tar, source, true, &inode, err);
	}
	host_entry_free(&entry);
	array_free(&path);
	return ret;
}
