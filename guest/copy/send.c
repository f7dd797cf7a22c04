/* A tree to a stream; see copy.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "guest/copy/copy_internal.h"

struct sender {
	int to, stall_ms;
	struct copy_problem *problem; /* its path is the one at hand */
	void *links; /* tsearch(): struct link_node, files with several names */
	struct copy_xattrs xattrs; /* for the next header */
	size_t used;
	uint8_t buffer[65536];
};

struct link_node {
	dev_t device;
	ino_t inode;
	char path[]; /* the first one */
};

static int fail(struct sender *sender, const char *what, int code)
{
	sender->problem->what = what;
	return code;
}

/* ---- bytes ------------------------------------------------------------------------------------------------------------------- */

static int flush(struct sender *sender)
{
	const int result = copy_pipe_write(sender->to, sender->buffer, sender->used, sender->stall_ms);
	sender->used = 0;
	return result < 0 ? fail(sender, "send", result) : 0;
}

static int put(struct sender *sender, const void *bytes, size_t length)
{
	const uint8_t *from = bytes;
	while (length) {
		const size_t room = sizeof(sender->buffer) - sender->used, part = length < room ? length : room;
		memcpy(sender->buffer + sender->used, from, part);
		sender->used += part;
		from += part;
		length -= part;
		const int result = sender->used == sizeof(sender->buffer) ? flush(sender) : 0;
		if (result < 0)
			return result;
	}
	return 0;
}

static int put_header(struct sender *sender, enum copy_kind kind, const struct stat *st, const char *link, uint64_t size_bytes)
{
	const size_t path_bytes = strlen(sender->problem->path), link_bytes = strlen(link);
	const struct copy_header header = {
		.kind = le32_make(kind),
		.mode = le32_make(st->st_mode),
		.uid = le32_make(st->st_uid),
		.gid = le32_make(st->st_gid),
		.major = le32_make(major(st->st_rdev)),
		.minor = le32_make(minor(st->st_rdev)),
		.mtime_s = le64_make((uint64_t)st->st_mtim.tv_sec),
		.mtime_ns = le32_make((uint32_t)st->st_mtim.tv_nsec),
		.path_bytes = le16_make((uint16_t)path_bytes),
		.link_bytes = le16_make((uint16_t)link_bytes),
		.size_bytes = le64_make(size_bytes),
		.xattrs_bytes = le32_make(sender->xattrs.length),
	};
	int result = put(sender, &header, sizeof(header));
	if (result == 0)
		result = put(sender, sender->problem->path, path_bytes);
	if (result == 0)
		result = put(sender, link, link_bytes);
	if (result == 0)
		result = put(sender, sender->xattrs.bytes, sender->xattrs.length);
	sender->xattrs.length = 0;
	return result;
}

/* ---- files ------------------------------------------------------------------------------------------------------------------- */

static int read_xattrs(struct sender *sender, int fd)
{
	const int result = copy_xattrs_read(fd, &sender->xattrs);
	if (result == 0)
		return 0;
	sender->xattrs.length = 0;
	return fail(sender, "read the attributes of", result);
}

/* From where the file is. */
static int send_data(struct sender *sender, int fd, uint64_t size_bytes)
{
	while (size_bytes) {
		const size_t room = sizeof(sender->buffer) - sender->used;
		const ssize_t n = read(fd, sender->buffer + sender->used, size_bytes < room ? (size_t)size_bytes : room);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) /* shorter than it was: the receiver waits for more, and has to hear that it fails */
			return fail(sender, "read", n ? -errno : -ESTALE);
		sender->used += (size_t)n;
		size_bytes -= (uint64_t)n;
		const int result = sender->used == sizeof(sender->buffer) ? flush(sender) : 0;
		if (result < 0)
			return result;
	}
	return 0;
}

/* Where data begins at `at` or behind it; `size` when only a hole follows. A file system without holes has data everywhere. */
static off_t find_data(int fd, off_t at, off_t size)
{
	const off_t data = lseek(fd, at, SEEK_DATA);
	if (data < 0)
		return errno == ENXIO ? size : at;
	return data < size ? data : size;
}

static off_t find_hole(int fd, off_t at, off_t size)
{
	const off_t hole = lseek(fd, at, SEEK_HOLE);
	return hole < 0 || hole > size ? size : hole;
}

static int send_contents(struct sender *sender, int fd, const struct stat *st)
{
	const bool has_holes = st->st_blocks < st->st_size / 512;
	for (off_t at = 0; at < st->st_size;) {
		const off_t data = has_holes ? find_data(fd, at, st->st_size) : at;
		const off_t end = has_holes && data < st->st_size ? find_hole(fd, data, st->st_size) : st->st_size;
		if (end <= at)
			return fail(sender, "read", -ESTALE); /* it changes under our hands */
		const struct copy_part part = { le64_make((uint64_t)(data - at)), le64_make((uint64_t)(end - data)) };
		int result = put(sender, &part, sizeof(part));
		if (result == 0 && lseek(fd, data, SEEK_SET) < 0)
			result = fail(sender, "read", -errno);
		if (result == 0)
			result = send_data(sender, fd, (uint64_t)(end - data));
		if (result < 0)
			return result;
		at = end;
	}
	return 0;
}

static int send_regular(struct sender *sender, int folder, const char *name)
{
	struct stat st;
	const int fd = openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0) {
		const int error = errno;
		if (fd >= 0)
			close(fd);
		return fail(sender, "open", -error);
	}
	int result = S_ISREG(st.st_mode) ? 0 : fail(sender, "open", -ESTALE);
	if (result == 0)
		result = read_xattrs(sender, fd);
	if (result == 0)
		result = put_header(sender, COPY_ENTRY, &st, "", (uint64_t)st.st_size);
	if (result == 0)
		result = send_contents(sender, fd, &st);
	close(fd);
	return result;
}

static int send_symlink(struct sender *sender, int folder, const char *name, const struct stat *st)
{
	char target[COPY_PATH_MAX + 1];
	const ssize_t length = readlinkat(folder, name, target, sizeof(target));
	if (length < 0 || (size_t)length == sizeof(target))
		return fail(sender, "read", length < 0 ? -errno : -ENAMETOOLONG);
	target[length] = '\0';
	return put_header(sender, COPY_ENTRY, st, target, 0);
}

static int compare_links(const void *a, const void *b)
{
	const struct link_node *first = a, *second = b;
	if (first->device != second->device)
		return first->device < second->device ? -1 : 1;
	return first->inode < second->inode ? -1 : first->inode > second->inode;
}

/* The path under which a file with several names was sent already; "" when it was not, and then it is remembered. NULL: no memory. */
static const char *find_link(struct sender *sender, const struct stat *st)
{
	const char *path = sender->problem->path;
	struct link_node *node = malloc(sizeof(*node) + strlen(path) + 1);
	if (!node)
		return NULL;
	node->device = st->st_dev;
	node->inode = st->st_ino;
	strcpy(node->path, path);
	struct link_node *const *found = tsearch(node, &sender->links, compare_links);
	if (found && *found == node)
		return "";
	free(node);
	return found ? (*found)->path : NULL;
}

static int send_entry(struct sender *sender, int folder, const char *name, const struct stat *st);

/* ---- directories ------------------------------------------------------------------------------------------------------------- */

static int send_names(struct sender *sender, DIR *stream)
{
	char *path = sender->problem->path;
	const size_t length = strlen(path);
	for (;;) {
		errno = 0;
		const struct dirent *entry = readdir(stream);
		if (!entry)
			return errno ? fail(sender, "read", -errno) : 0;
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		const size_t name_length = strlen(entry->d_name);
		if (length + 1 + name_length > COPY_PATH_MAX)
			return fail(sender, "open", -ENAMETOOLONG);
		if (length)
			path[length] = '/';
		memcpy(path + length + (length ? 1 : 0), entry->d_name, name_length + 1);
		struct stat st;
		int result = fstatat(dirfd(stream), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ? fail(sender, "open", -errno) : 0;
		if (result == 0)
			result = send_entry(sender, dirfd(stream), entry->d_name, &st);
		if (result < 0)
			return result; /* with the path of what failed */
		path[length] = '\0';
	}
}

static int send_directory(struct sender *sender, int folder, const char *name, const struct stat *st)
{
	const int fd = openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *stream = fd < 0 ? NULL : fdopendir(fd);
	if (!stream) {
		const int error = errno;
		if (fd >= 0)
			close(fd);
		return fail(sender, "open", -error);
	}
	int result = put_header(sender, COPY_ENTRY, st, "", 0);
	if (result == 0)
		result = send_names(sender, stream);
	if (result == 0)
		result = read_xattrs(sender, dirfd(stream));
	closedir(stream);
	return result < 0 ? result : put_header(sender, COPY_LEAVE, st, "", 0);
}

static int send_entry(struct sender *sender, int folder, const char *name, const struct stat *st)
{
	if (S_ISDIR(st->st_mode))
		return send_directory(sender, folder, name, st);
	if (S_ISSOCK(st->st_mode))
		return 0;
	const char *earlier = st->st_nlink > 1 ? find_link(sender, st) : "";
	if (!earlier)
		return fail(sender, "remember", -ENOMEM);
	if (*earlier)
		return put_header(sender, COPY_LINK, st, earlier, 0);
	if (S_ISREG(st->st_mode))
		return send_regular(sender, folder, name);
	if (S_ISLNK(st->st_mode))
		return send_symlink(sender, folder, name, st);
	return put_header(sender, COPY_ENTRY, st, "", 0);
}

static void forget_links(struct sender *sender)
{
	while (sender->links) {
		struct link_node *node = *(struct link_node **)sender->links;
		tdelete(node, &sender->links, compare_links);
		free(node);
	}
}

int copy_send(int to, const char *path, int stall_ms, struct copy_problem *problem)
{
	static struct sender sender;
	struct stat st;
	const size_t length = strlen(path);
	const bool follow = length && (path[length - 1] == '/' || (length > 1 && !strcmp(path + length - 2, "/.")));
	sender.to = to;
	sender.stall_ms = stall_ms;
	sender.problem = problem;
	sender.used = 0;
	sender.xattrs.length = 0;
	problem->path[0] = '\0';
	int result = fstatat(AT_FDCWD, path, &st, follow ? 0 : AT_SYMLINK_NOFOLLOW) < 0 ? fail(&sender, "open", -errno) : 0;
	if (result == 0 && S_ISSOCK(st.st_mode))
		result = fail(&sender, "copy the socket", -ENOTSUP);
	if (result == 0)
		result = send_entry(&sender, AT_FDCWD, path, &st);
	const struct copy_header end = { .kind = le32_make(COPY_END) };
	if (result == 0)
		result = put(&sender, &end, sizeof(end));
	if (result == 0)
		result = flush(&sender);
	forget_links(&sender);
	return result;
}
