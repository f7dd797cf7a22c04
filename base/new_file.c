/* Files that appear whole or not at all; see new_file.h. */
#include "base/new_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ATTEMPTS 100

/* A name beside the wanted one that is not likely to be taken. */
static int choose_temporary(struct new_file *file, unsigned attempt)
{
	free(file->temporary);
	if (asprintf(&file->temporary, ".trvmm-%d-%u", (int)getpid(), attempt) < 0)
		file->temporary = NULL;
	return file->temporary ? 0 : -ENOMEM;
}

static int open_folder(struct new_file *file, const char *path)
{
	const char *slash = strrchr(path, '/');
	char *folder = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
	file->name = strdup(slash ? slash + 1 : path);
	if (folder && file->name)
		file->folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	const int code = folder && file->name ? -errno : -ENOMEM;
	free(folder);
	if (!file->name || file->folder_fd < 0)
		return code;
	return file->name[0] ? 0 : -EISDIR;
}

static int open_temporary(struct new_file *file, mode_t mode)
{
	for (unsigned attempt = 0; attempt < ATTEMPTS; attempt++) {
		const int code = choose_temporary(file, attempt);
		if (code < 0)
			return code;
		file->fd = openat(file->folder_fd, file->temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, mode);
		if (file->fd >= 0 || errno != EEXIST)
			break;
	}
	if (file->fd >= 0)
		return 0;
	const int code = -errno;
	free(file->temporary);
	file->temporary = NULL;
	return code;
}

int new_file_create(struct new_file *file, const char *path, mode_t mode)
{
	*file = (struct new_file){ .fd = -1, .folder_fd = -1 };
	int code = open_folder(file, path);
	if (code == 0) {
		file->fd = openat(file->folder_fd, ".", O_RDWR | O_TMPFILE | O_CLOEXEC, mode);
		code = file->fd < 0 ? -errno : 0;
		/* EISDIR: a kernel that does not know the flag. */
		if (code == -EOPNOTSUPP || code == -EISDIR || code == -EINVAL)
			code = open_temporary(file, mode);
	}
	if (code < 0)
		new_file_abandon(file);
	return code;
}

/* Gives a file without a name the name `to`. */
static int link_nameless(const struct new_file *file, const char *to)
{
	char self[40];
	snprintf(self, sizeof(self), "/proc/self/fd/%d", file->fd);
	return linkat(AT_FDCWD, self, file->folder_fd, to, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
}

/* A name can be replaced by a rename only, and for that the file needs one. */
static int name_nameless(struct new_file *file)
{
	int code = -EEXIST;
	for (unsigned attempt = 0; attempt < ATTEMPTS && code == -EEXIST; attempt++) {
		code = choose_temporary(file, attempt);
		if (code == 0)
			code = link_nameless(file, file->temporary);
	}
	if (code < 0) {
		free(file->temporary);
		file->temporary = NULL;
	}
	return code;
}

int new_file_commit(struct new_file *file, bool replace)
{
	int code = 0;
	if (!file->temporary && !replace) {
		code = link_nameless(file, file->name);
	} else {
		if (!file->temporary)
			code = name_nameless(file);
		if (code == 0 &&
		    renameat2(file->folder_fd, file->temporary, file->folder_fd, file->name, replace ? 0 : RENAME_NOREPLACE) < 0)
			code = -errno;
		if (code == 0) {
			free(file->temporary);
			file->temporary = NULL;
		}
	}
	if (code == 0 && fsync(file->folder_fd) < 0 && errno != EINVAL)
		code = -errno;
	return code;
}

int new_file_take_fd(struct new_file *file)
{
	const int fd = file->fd;
	file->fd = -1;
	return fd;
}

void new_file_abandon(struct new_file *file)
{
	if (file->temporary)
		unlinkat(file->folder_fd, file->temporary, 0);
	if (file->fd >= 0)
		close(file->fd);
	if (file->folder_fd >= 0)
		close(file->folder_fd);
	free(file->temporary);
	free(file->name);
	*file = (struct new_file){ .fd = -1, .folder_fd = -1 };
}
