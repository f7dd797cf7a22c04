/* The folder that holds this user's named machines; see registry.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/registry_internal.h"

/* A folder of ours: where another user could rename things, no check of what is in there would last. */
static bool is_ours(const char *path)
{
	struct stat st;
	return path && path[0] == '/' && stat(path, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == geteuid() &&
	       !(st.st_mode & (S_IWGRP | S_IWOTH));
}

static int root_path(char *path, size_t size, struct error *err)
{
	const unsigned uid = geteuid();
	const char *runtime = getenv("XDG_RUNTIME_DIR");
	char fallback[64];
	snprintf(fallback, sizeof(fallback), "/run/user/%u", uid);
	/* One that is left over from before sudo is not this user's, and is not used. */
	if (!is_ours(runtime))
		runtime = is_ours(fallback) ? fallback : NULL;
	const int length = runtime ? snprintf(path, size, "%s/trvmm", runtime) : snprintf(path, size, "/tmp/trvmm-%u", uid);
	if (length < 0 || (size_t)length >= size)
		return error_set(err, -ENAMETOOLONG, "XDG_RUNTIME_DIR is too long");
	return 0;
}

int registry_root_open(bool create, struct error *err)
{
	char path[4096];
	struct stat st;
	const int result = root_path(path, sizeof(path), err);
	if (result < 0)
		return result;
	if (create && mkdir(path, 0700) < 0 && errno != EEXIST)
		return error_set(err, -errno, "%s: %s; named machines keep their state there", path, strerror(errno));
	const int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return error_set(err, -errno, "%s: %s", path, strerror(errno));
	/* What /tmp has under this name may be somebody else's. */
	if (fstat(fd, &st) < 0 || st.st_uid != geteuid() || (st.st_mode & 077)) {
		close(fd);
		return error_set(err, -EPERM, "%s is not this user's alone; it must be owned by uid %u and have mode 700", path,
				 geteuid());
	}
	return fd;
}
