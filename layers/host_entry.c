/* Attributes, extended attributes, link targets and holes of a file of the host; see host_entry_internal.h. */
#include "layers/host_entry_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define XATTR_LIST_MAX 65536u /* Linux's own limit */
#define EXTENTS_MAX 65536u /* of one file; what follows is taken for data */

/* ---- extended attributes ----------------------------------------------------------------------------------------------------- */

static bool xattr_is_taken(const char *name)
{
	if (strncmp(name, "user.", 5) == 0)
		return true;
	if (strncmp(name, "trusted.", 8) == 0)
		return strncmp(name, "trusted.overlay.", 16) != 0;
	return strcmp(name, "security.capability") == 0 || strcmp(name, "system.posix_acl_access") == 0 ||
	       strcmp(name, "system.posix_acl_default") == 0;
}

static int compare_xattrs(const void *left, const void *right)
{
	const struct tar_xattr *a = left, *b = right;
	return strcmp(a->name.bytes, b->name.bytes);
}

/* Offsets into the text until it does not move any more. */
static const char *at_offset(size_t offset)
{
	return (const char *)(uintptr_t)offset;
}

static int add_xattr(struct host_entry *entry, const char *path, bool follow, const char *name, struct error *err)
{
	struct tar_xattr xattr = { { at_offset(entry->text.used), strlen(name) }, { NULL, 0 } };
	if (array_append(&entry->text, name, xattr.name.length + 1))
		return error_set(err, -ENOMEM, "out of memory");
	const size_t start = entry->text.used;
	char *value = array_extend(&entry->text, TAR_XATTR_VALUE_MAX);
	if (!value)
		return error_set(err, -ENOMEM, "out of memory");
	const ssize_t n = (follow ? getxattr : lgetxattr)(path, name, value, TAR_XATTR_VALUE_MAX);
	entry->text.used = start + (n > 0 ? (size_t)n : 0);
	if (n < 0) /* removed since, or not for us to see */
		return errno == ENODATA || errno == EPERM || errno == EACCES || errno == ENOENT
			   ? 0
			   : error_set(err, -errno, "its attribute %s cannot be read: %s", name, strerror(errno));
	xattr.value = (struct slice){ at_offset(start), (size_t)n };
	return array_append(&entry->xattrs, &xattr, sizeof(xattr)) ? error_set(err, -ENOMEM, "out of memory") : 0;
}

static int add_xattrs(struct host_entry *entry, const char *path, bool follow, char *list, ssize_t length, struct error *err)
{
	int ret = 0;
	for (char *name = list; name < list + length && !ret; name += strlen(name) + 1) {
		if (xattr_is_taken(name))
			ret = add_xattr(entry, path, follow, name, err);
	}
	struct tar_xattr *xattrs = (struct tar_xattr *)(void *)entry->xattrs.data;
	const size_t count = entry->xattrs.used / sizeof(*xattrs);
	for (size_t i = 0; i < count; i++) {
		xattrs[i].name.bytes = entry->text.data + (uintptr_t)xattrs[i].name.bytes;
		xattrs[i].value.bytes = entry->text.data + (uintptr_t)xattrs[i].value.bytes;
	}
	if (count > 1)
		qsort(xattrs, count, sizeof(*xattrs), compare_xattrs);
	entry->tar.xattrs = xattrs;
	entry->tar.xattr_count = (uint32_t)count;
	return ret;
}

/* There is no call for the attributes of a name in a directory; the path through /proc is one without opening the file. */
static int read_xattrs(struct host_entry *entry, int directory, const char *name, struct error *err)
{
	char path[64 + 256], few[1024], *many = NULL;
	const bool follow = !name; /* the descriptor is itself a link there */
	snprintf(path, sizeof(path), name ? "/proc/self/fd/%d/%s" : "/proc/self/fd/%d", directory, name);
	ssize_t n = (follow ? listxattr : llistxattr)(path, few, sizeof(few));
	if (n < 0 && errno == ERANGE) {
		many = malloc(XATTR_LIST_MAX);
		n = many ? (follow ? listxattr : llistxattr)(path, many, XATTR_LIST_MAX) : -1;
	}
	if (n >= 0) {
		const int ret = n ? add_xattrs(entry, path, follow, many ? many : few, n, err) : 0;
		free(many);
		return ret;
	}
	free(many);
	if (errno == ENOTSUP || errno == EACCES || errno == EPERM)
		return 0;
	if (errno == ENOENT && access("/proc/self/fd", X_OK) == 0)
		return -ENOENT;
	return error_set(err, -errno, "its attributes cannot be read: %s",
			 errno == ENOENT ? "/proc is not mounted" : strerror(errno));
}

/* ---- contents ---------------------------------------------------------------------------------------------------------------- */

static int add_extent(struct host_entry *entry, uint64_t begin, uint64_t end, struct error *err)
{
	const struct tree_extent extent = { .file_offset = begin, .source_offset = begin, .length = end - begin };
	if (begin == end)
		return 0;
	return array_append(&entry->extents, &extent, sizeof(extent)) ? error_set(err, -ENOMEM, "out of memory") : 0;
}

/* The ranges that hold data, as far as the file system tells. */
static int add_data_ranges(struct host_entry *entry, int fd, uint64_t size, struct error *err)
{
	uint64_t at = 0;
	while (at < size) {
		const off_t data = lseek(fd, (off_t)at, SEEK_DATA);
		if (data < 0 && errno == ENXIO)
			return 0;
		const off_t hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
		if (hole <= data || (uint64_t)data >= size)
			break;
		const uint64_t end = (uint64_t)hole < size ? (uint64_t)hole : size;
		if (entry->extents.used / sizeof(struct tree_extent) == EXTENTS_MAX)
			break;
		const int ret = add_extent(entry, (uint64_t)data, end, err);
		if (ret)
			return ret;
		at = end;
	}
	return add_extent(entry, at, size, err);
}

static int read_extents(struct host_entry *entry, int directory, const char *name, const struct stat *st, struct error *err)
{
	const uint64_t size = (uint64_t)st->st_size;
	if ((uint64_t)st->st_blocks * 512 >= size)
		return add_extent(entry, 0, size, err);
	if (!name)
		return add_data_ranges(entry, directory, size, err);
	const int fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	struct stat now;
	/* What cannot be opened is told when it is read. */
	const bool same = fd >= 0 && fstat(fd, &now) == 0 && now.st_dev == st->st_dev && now.st_ino == st->st_ino;
	const int ret = same ? add_data_ranges(entry, fd, size, err) : add_extent(entry, 0, size, err);
	if (fd >= 0)
		close(fd);
	return ret;
}

/* ---- all together ------------------------------------------------------------------------------------------------------------ */

static int read_target(struct host_entry *entry, int directory, const char *name, struct error *err)
{
	const size_t start = entry->text.used;
	char *target = array_extend(&entry->text, 4096);
	if (!target)
		return error_set(err, -ENOMEM, "out of memory");
	const ssize_t n = readlinkat(directory, name, target, 4096);
	if (n < 0)
		return errno == ENOENT ? -ENOENT : error_set(err, -errno, "the link cannot be read: %s", strerror(errno));
	entry->text.used = start + (size_t)n;
	entry->tar.link = (struct slice){ target, (size_t)n };
	return 0;
}

int host_entry_read(struct host_entry *entry, int directory, const char *name, const struct stat *st, struct error *err)
{
	entry->text.used = entry->xattrs.used = entry->extents.used = 0;
	entry->tar = (struct tar_entry){
		.mode = st->st_mode,
		.uid = st->st_uid,
		.gid = st->st_gid,
		.mtime_s = st->st_mtim.tv_sec,
		.mtime_ns = (uint32_t)st->st_mtim.tv_nsec,
	};
	if (S_ISLNK(st->st_mode)) /* attributes of links are of no use to anybody */
		return read_target(entry, directory, name, err);
	int ret = read_xattrs(entry, directory, name, err);
	if (!ret && S_ISREG(st->st_mode)) {
		entry->tar.size_bytes = (uint64_t)st->st_size;
		ret = read_extents(entry, directory, name, st, err);
		entry->tar.extents = (const struct tree_extent *)(const void *)entry->extents.data;
		entry->tar.extent_count = (uint32_t)(entry->extents.used / sizeof(struct tree_extent));
	} else if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode)) {
		entry->tar.rdev = (uint32_t)major(st->st_rdev) << 20 | (uint32_t)minor(st->st_rdev);
	}
	return ret;
}

void host_entry_move_extents(struct host_entry *entry, uint64_t start)
{
	struct tree_extent *extents = (struct tree_extent *)(void *)entry->extents.data;
	for (uint32_t i = 0; i < entry->tar.extent_count; i++)
		extents[i].source_offset += start;
}

void host_entry_free(struct host_entry *entry)
{
	array_free(&entry->text);
	array_free(&entry->xattrs);
	array_free(&entry->extents);
}
