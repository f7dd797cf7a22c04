/* A stream to a tree; see copy.h. The stream is hostile input. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "guest/copy/copy_internal.h"

/* linux/openat2.h, which musl's compiler does not find. */
struct open_how {
	uint64_t flags, mode, resolve;
};
#define RESOLVE_NO_MAGICLINKS 0x02u
#define RESOLVE_NO_SYMLINKS 0x04u
#define RESOLVE_BENEATH 0x08u

#define MODE_KEPT 01777u
#define MODE_SPECIAL 06000u

struct receiver {
	int from;
	const struct copy_target *target;
	struct copy_problem *problem; /* its path is the entry's */
	uint64_t bytes_left;
	int root; /* the copied directory; -1: none, or not there yet */
	bool root_is_old; /* its attributes are not ours to change */
	struct copy_header header; /* of the record at hand */
	char link[COPY_PATH_MAX + 1];
	struct copy_xattrs xattrs;
	uint8_t buffer[65536];
};

static int fail(struct receiver *receiver, const char *what, int code)
{
	receiver->problem->what = what;
	return code;
}

/* ---- the stream -------------------------------------------------------------------------------------------------------------- */

static int read_bytes(struct receiver *receiver, void *to, size_t length)
{
	const int result = copy_pipe_read(receiver->from, to, length, receiver->target->stall_ms);
	return result < 0 ? fail(receiver, "receive", result) : 0;
}

/* `length` bytes as a string, which must have no 0 byte in it. */
static int read_text(struct receiver *receiver, char *text, size_t length)
{
	if (length > COPY_PATH_MAX)
		return fail(receiver, "receive", -EBADMSG);
	const int result = read_bytes(receiver, text, length);
	text[result == 0 ? length : 0] = '\0';
	if (result == 0 && strlen(text) != length)
		return fail(receiver, "receive", -EBADMSG);
	return result;
}

static int charge(struct receiver *receiver, uint64_t bytes)
{
	if (bytes > receiver->bytes_left)
		return fail(receiver, "make", -EFBIG);
	receiver->bytes_left -= bytes;
	return 0;
}

static int read_record(struct receiver *receiver)
{
	struct copy_header *header = &receiver->header;
	int result = read_bytes(receiver, header, sizeof(*header));
	if (result == 0)
		result = read_text(receiver, receiver->problem->path, le16_get(header->path_bytes));
	if (result == 0)
		result = read_text(receiver, receiver->link, le16_get(header->link_bytes));
	if (result < 0)
		return result;
	const uint32_t kind = le32_get(header->kind), xattrs_bytes = le32_get(header->xattrs_bytes);
	const bool file = kind == COPY_ENTRY && S_ISREG(le32_get(header->mode));
	if (kind > COPY_LEAVE || le32_get(header->mtime_ns) > 999999999 || (!file && le64_get(header->size_bytes)) ||
	    (!file && kind != COPY_LEAVE && xattrs_bytes) || xattrs_bytes > COPY_XATTRS_MAX)
		return fail(receiver, "receive", -EBADMSG);
	result = charge(receiver, COPY_RECORD_COST + (uint64_t)xattrs_bytes);
	if (result == 0)
		result = charge(receiver, le64_get(header->size_bytes));
	receiver->xattrs.length = xattrs_bytes;
	return result == 0 ? read_bytes(receiver, receiver->xattrs.bytes, xattrs_bytes) : result;
}

/* ---- places ------------------------------------------------------------------------------------------------------------------ */

/* Names between single slashes, none of them "." or "..". */
static bool is_clean(const char *path)
{
	for (const char *at = path;; at++) {
		const size_t length = strcspn(at, "/");
		if (!length || length > COPY_NAME_MAX || (at[0] == '.' && (length == 1 || (length == 2 && at[1] == '.'))))
			return false;
		at += length;
		if (!*at)
			return true;
	}
}

static int open_below(int root, const char *path, int flags)
{
	const struct open_how how = { .flags = (unsigned)(flags | O_DIRECTORY | O_CLOEXEC),
				      .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS };
	const long fd = syscall(SYS_openat2, root, path, &how, sizeof(how));
	return fd < 0 ? -errno : (int)fd;
}

/* The directory of `path`, to be closed, and its last name. Returns a descriptor or -errno. */
static int open_folder(const struct receiver *receiver, const char *path, const char **name)
{
	char folder[COPY_PATH_MAX + 1];
	if (receiver->root < 0 || !is_clean(path))
		return -EBADMSG;
	const char *slash = strrchr(path, '/');
	const size_t length = slash ? (size_t)(slash - path) : 0;
	*name = slash ? slash + 1 : path;
	memcpy(folder, path, length);
	folder[length] = '\0';
	return open_below(receiver->root, length ? folder : ".", O_PATH);
}

/* ---- entries ----------------------------------------------------------------------------------------------------------------- */

/* Makes room: files and symbolic links go, all else stays. Returns 0 or -errno. */
static int remove_old(int folder, const char *name)
{
	struct stat st;
	if (fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (S_ISDIR(st.st_mode))
		return -EISDIR;
	if (!S_ISREG(st.st_mode) && !S_ISLNK(st.st_mode))
		return -EEXIST;
	return unlinkat(folder, name, 0) < 0 ? -errno : 0;
}

static void header_times(const struct copy_header *header, struct timespec times[2])
{
	times[0] = (struct timespec){ .tv_nsec = UTIME_OMIT };
	times[1] = (struct timespec){ .tv_sec = (time_t)le64_get(header->mtime_s), .tv_nsec = (long)le32_get(header->mtime_ns) };
}

static mode_t header_mode(const struct receiver *receiver)
{
	return le32_get(receiver->header.mode) & (MODE_KEPT | (receiver->target->special ? MODE_SPECIAL : 0));
}

/*
 * Owner first: changing it clears bits of the mode, and capabilities. The mode comes behind the extended attributes, which one that does
 * not allow its owner to write would refuse.
 */
static int set_attributes(struct receiver *receiver, int fd)
{
	const struct copy_header *header = &receiver->header;
	struct timespec times[2];
	header_times(header, times);
	if (receiver->target->owners && fchown(fd, le32_get(header->uid), le32_get(header->gid)) < 0)
		return fail(receiver, "set the owner of", -errno);
	const int result = copy_xattrs_write(fd, &receiver->xattrs, receiver->target->special);
	if (result < 0)
		return fail(receiver, "set the attributes of", result);
	if (fchmod(fd, header_mode(receiver)) < 0)
		return fail(receiver, "set the mode of", -errno);
	return futimens(fd, times) < 0 ? fail(receiver, "set the time of", -errno) : 0;
}

/* The same for what has no descriptor; a symbolic link has no mode. */
static int set_attributes_at(struct receiver *receiver, int folder, const char *name)
{
	const struct copy_header *header = &receiver->header;
	struct timespec times[2];
	header_times(header, times);
	if (receiver->target->owners &&
	    fchownat(folder, name, le32_get(header->uid), le32_get(header->gid), AT_SYMLINK_NOFOLLOW) < 0)
		return fail(receiver, "set the owner of", -errno);
	return utimensat(folder, name, times, AT_SYMLINK_NOFOLLOW) < 0 ? fail(receiver, "set the time of", -errno) : 0;
}

/* `bytes` from the stream, where the file is. */
static int write_data(struct receiver *receiver, int fd, uint64_t bytes)
{
	while (bytes) {
		const size_t part = bytes < sizeof(receiver->buffer) ? (size_t)bytes : sizeof(receiver->buffer);
		int result = read_bytes(receiver, receiver->buffer, part);
		if (result < 0)
			return result;
		result = copy_pipe_write(fd, receiver->buffer, part, 0);
		if (result < 0)
			return fail(receiver, "write", result);
		bytes -= part;
	}
	return 0;
}

static int write_contents(struct receiver *receiver, int fd)
{
	struct copy_part part;
	const uint64_t size = le64_get(receiver->header.size_bytes);
	for (uint64_t left = size; left;) {
		int result = read_bytes(receiver, &part, sizeof(part));
		if (result < 0)
			return result;
		const uint64_t hole = le64_get(part.hole_bytes), data = le64_get(part.data_bytes);
		if (hole > left || data > left - hole || !(hole | data))
			return fail(receiver, "receive", -EBADMSG);
		left -= hole + data;
		if (hole && lseek(fd, (off_t)hole, SEEK_CUR) < 0)
			return fail(receiver, "write", -errno);
		/* The last hole is made by the size. */
		if (!left && !data && ftruncate(fd, (off_t)size) < 0)
			return fail(receiver, "write", -errno);
		result = write_data(receiver, fd, data);
		if (result < 0)
			return result;
	}
	return 0;
}

static int make_regular(struct receiver *receiver, int folder, const char *name)
{
	const int fd = openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return fail(receiver, "make", -errno);
	int result = write_contents(receiver, fd);
	if (result == 0)
		result = set_attributes(receiver, fd);
	if (close(fd) < 0 && result == 0)
		result = fail(receiver, "write", -errno);
	if (result < 0)
		unlinkat(folder, name, 0);
	return result;
}

/* One that is there already is gone on with. `made` tells. */
static int make_directory(struct receiver *receiver, int folder, const char *name, bool *made)
{
	struct stat st;
	*made = mkdirat(folder, name, 0700) == 0;
	if (*made)
		return 0;
	if (errno != EEXIST)
		return fail(receiver, "make", -errno);
	if (fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return fail(receiver, "make", -errno);
	return S_ISDIR(st.st_mode) ? 0 : fail(receiver, "make the directory", -ENOTDIR);
}

static int make_special(struct receiver *receiver, int folder, const char *name)
{
	const struct copy_header *header = &receiver->header;
	const mode_t type = le32_get(header->mode) & S_IFMT;
	if (type != S_IFIFO && type != S_IFCHR && type != S_IFBLK)
		return fail(receiver, "receive", -EBADMSG);
	if (type != S_IFIFO && !receiver->target->special)
		return fail(receiver, "make the device node", -EPERM);
	const dev_t device = type == S_IFIFO ? 0 : makedev(le32_get(header->major), le32_get(header->minor));
	/* chmod() would follow a link, so the umask must not take part: it is 0 while we run. */
	if (mknodat(folder, name, type | header_mode(receiver), device) < 0)
		return fail(receiver, "make", -errno);
	return set_attributes_at(receiver, folder, name);
}

/* All but directories. */
static int make_file(struct receiver *receiver, int folder, const char *name)
{
	const mode_t type = le32_get(receiver->header.mode) & S_IFMT;
	const int result = remove_old(folder, name);
	if (result < 0)
		return fail(receiver, "replace", result);
	if (type == S_IFREG)
		return make_regular(receiver, folder, name);
	if (type != S_IFLNK)
		return make_special(receiver, folder, name);
	if (symlinkat(receiver->link, folder, name) < 0)
		return fail(receiver, "make", -errno);
	return set_attributes_at(receiver, folder, name);
}

static int make_link(struct receiver *receiver, int folder, const char *name)
{
	const char *old_name;
	if (!strcmp(receiver->link, receiver->problem->path))
		return fail(receiver, "receive", -EBADMSG);
	const int old_folder = open_folder(receiver, receiver->link, &old_name);
	if (old_folder < 0)
		return fail(receiver, "link", old_folder);
	int result = remove_old(folder, name);
	if (result == 0 && linkat(old_folder, old_name, folder, name, 0) < 0)
		result = -errno;
	close(old_folder);
	return result < 0 ? fail(receiver, "link", result) : 0;
}

static int leave_directory(struct receiver *receiver)
{
	const char *path = receiver->problem->path;
	if (receiver->root < 0 || (*path && !is_clean(path)))
		return fail(receiver, "receive", -EBADMSG);
	if (!*path && receiver->root_is_old)
		return 0;
	const int fd = open_below(receiver->root, *path ? path : ".", O_RDONLY);
	if (fd < 0)
		return fail(receiver, "open", fd);
	const int result = set_attributes(receiver, fd);
	close(fd);
	return result;
}

static int take_record(struct receiver *receiver)
{
	const enum copy_kind kind = (enum copy_kind)le32_get(receiver->header.kind);
	const char *name;
	bool made;
	if (kind == COPY_LEAVE)
		return leave_directory(receiver);
	const int folder = open_folder(receiver, receiver->problem->path, &name);
	if (folder < 0)
		return fail(receiver, "make", folder);
	int result;
	if (kind == COPY_LINK)
		result = make_link(receiver, folder, name);
	else if (S_ISDIR(le32_get(receiver->header.mode)))
		result = make_directory(receiver, folder, name, &made);
	else
		result = make_file(receiver, folder, name);
	close(folder);
	return result;
}

/* ---- the first entry --------------------------------------------------------------------------------------------------------- */

static bool ends_with_slash(const char *path)
{
	const size_t length = strlen(path);
	return length && (path[length - 1] == '/' || (length > 1 && !strcmp(path + length - 2, "/.")));
}

/* A destination that is no directory yet: opens the one that it will be in. Its name goes to `name`. Returns a descriptor or -errno. */
static int open_parent(const char *destination, char name[COPY_NAME_MAX + 1])
{
	char path[COPY_PATH_MAX + 1];
	size_t length = strlen(destination);
	while (length && destination[length - 1] == '/')
		length--;
	if (!length || length > COPY_PATH_MAX)
		return length ? -ENAMETOOLONG : -ENOENT;
	memcpy(path, destination, length);
	path[length] = '\0';
	char *slash = strrchr(path, '/');
	const char *last = slash ? slash + 1 : path;
	if (strlen(last) > COPY_NAME_MAX)
		return -ENAMETOOLONG;
	if (!is_clean(last))
		return -ENOENT;
	strcpy(name, last);
	if (slash)
		slash[slash == path ? 1 : 0] = '\0';
	const int fd = open(slash ? path : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int make_root(struct receiver *receiver, int parent, const char *name)
{
	bool made;
	if (!S_ISDIR(le32_get(receiver->header.mode)))
		return make_file(receiver, parent, name);
	const int result = make_directory(receiver, parent, name, &made);
	if (result < 0)
		return result;
	receiver->root = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return receiver->root < 0 ? fail(receiver, "open", -errno) : 0;
}

/* docker cp's rules, see copy.h. */
static int take_root(struct receiver *receiver)
{
	const struct copy_target *target = receiver->target;
	char name[COPY_NAME_MAX + 1];
	const bool directory = S_ISDIR(le32_get(receiver->header.mode));
	struct stat st;
	if (le32_get(receiver->header.kind) != COPY_ENTRY || receiver->problem->path[0])
		return fail(receiver, "receive", -EBADMSG);
	const int absence = stat(target->destination, &st) < 0 ? errno : 0;
	const bool into = !absence && S_ISDIR(st.st_mode);
	if (into && target->contents && directory) {
		receiver->root_is_old = true;
		receiver->root = open(target->destination, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		return receiver->root < 0 ? fail(receiver, "open", -errno) : 0;
	}
	if (into && (strlen(target->name) > COPY_NAME_MAX || !is_clean(target->name)))
		return fail(receiver, "make", -EINVAL);
	if (!into && ends_with_slash(target->destination) && (!absence || !directory))
		return fail(receiver, "find the directory", absence ? -absence : -ENOTDIR);
	const int parent =
	    into ? open(target->destination, O_PATH | O_DIRECTORY | O_CLOEXEC) : open_parent(target->destination, name);
	if (parent < 0)
		return fail(receiver, "find the directory for", into ? -errno : parent);
	const int result = make_root(receiver, parent, into ? target->name : name);
	close(parent);
	return result;
}

int copy_receive(int from, const struct copy_target *target, struct copy_problem *problem)
{
	static struct receiver receiver;
	receiver.from = from;
	receiver.target = target;
	receiver.problem = problem;
	receiver.bytes_left = target->bytes_max;
	receiver.root = -1;
	receiver.root_is_old = false;
	problem->path[0] = '\0';
	const mode_t umask_before = umask(0);
	int result = read_record(&receiver);
	if (result == 0)
		result = take_root(&receiver);
	while (result == 0) {
		result = read_record(&receiver);
		if (result < 0 || le32_get(receiver.header.kind) == COPY_END)
			break;
		result = take_record(&receiver);
	}
	umask(umask_before);
	if (receiver.root >= 0)
		close(receiver.root);
	return result;
}
