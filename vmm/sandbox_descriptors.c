/* Descriptors: the caller's are closed, directories lead nowhere but down. See sandbox_internal.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/mount.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm/sandbox_internal.h"

#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif
#ifndef OPEN_TREE_CLOEXEC
#define OPEN_TREE_CLOEXEC O_CLOEXEC
#endif

/*
 * All that trvmm opens is closed by exec, so nothing with that mark can have come through one; what lacks it has, and is the caller's.
 * Layers that were given by such a descriptor have been opened again by now.
 */
void sandbox_close_descriptors(struct sandbox_report *report)
{
	DIR *listing = opendir("/proc/self/fd");
	for (const struct dirent *item; listing && (item = readdir(listing));) {
		const int fd = atoi(item->d_name);
		const int flags = fd > STDERR_FILENO ? fcntl(fd, F_GETFD) : FD_CLOEXEC;
		if (flags >= 0 && !(flags & FD_CLOEXEC))
			close(fd);
	}
	if (listing)
		sandbox_report_on(report, SANDBOX_DESCRIPTORS, "%s", "");
	else
		sandbox_report_off(report, SANDBOX_DESCRIPTORS, errno, "/proc/self/fd cannot be read");
	if (listing)
		closedir(listing);
}

/* A copy of the mount, of which the directory is the root. */
static void detach_directory(int fd)
{
	char link[64], path[PATH_MAX];
	struct stat before, after;
	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	const ssize_t length = readlink(link, path, sizeof(path) - 1);
	if (length <= 0)
		return;
	path[length] = '\0';
	const int copy = (int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_RECURSIVE);
	if (copy < 0)
		return;
	if (fstat(fd, &before) == 0 && fstat(copy, &after) == 0 && before.st_dev == after.st_dev && before.st_ino == after.st_ino)
		dup3(copy, fd, O_CLOEXEC);
	close(copy);
}

void sandbox_detach_directories(const struct sandbox_spec *spec)
{
	for (size_t i = 0; i < spec->directory_count; i++)
		if (!spec->directories[i]
			 .share) /* whose server knows files by other descriptors, too: they are to have one mount */
			detach_directory(spec->directories[i].fd);
}
