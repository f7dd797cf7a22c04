/* Machines that are taken away: by who removes them, at their end, and what killed processes left; see registry.h. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/registry_internal.h"

#define TRIES 100

/* `state` last, and only when nothing else is left: it is the lock, and the sign by which registry_sweep() finds what was not finished. */
void registry_erase(int root_fd, const char *folder, int folder_fd)
{
	const int listing_fd = openat(folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *listing = listing_fd >= 0 ? fdopendir(listing_fd) : NULL;
	bool all = listing != NULL;
	if (!listing && listing_fd >= 0)
		close(listing_fd);
	for (const struct dirent *item; listing && (item = readdir(listing));)
		if (strcmp(item->d_name, REGISTRY_STATE) && strcmp(item->d_name, ".") && strcmp(item->d_name, ".."))
			all &= unlinkat(folder_fd, item->d_name, 0) == 0 || errno == ENOENT;
	if (listing)
		closedir(listing);
	if (!all)
		return;
	unlinkat(folder_fd, REGISTRY_STATE, 0);
	unlinkat(root_fd, folder, AT_REMOVEDIR);
}

int registry_retire(int root_fd, const char *name, int folder_fd, int state_fd)
{
	char path[REGISTRY_NAME_MAX + sizeof("/" REGISTRY_STATE)], old[32];
	struct stat there, ours;
	snprintf(path, sizeof(path), "%s/" REGISTRY_STATE, name);
	if (fstat(state_fd, &ours) < 0 || fstatat(root_fd, path, &there, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (there.st_ino != ours.st_ino || there.st_dev != ours.st_dev)
		return -ENOENT;
	registry_random_name(old, sizeof(old), ".old-");
	if (renameat(root_fd, name, root_fd, old) < 0)
		return -errno;
	registry_erase(root_fd, old, folder_fd);
	return 0;
}

void registry_sweep(int root_fd, const char *folder)
{
	const int folder_fd = openat(root_fd, folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (folder_fd < 0)
		return;
	const int state_fd = openat(folder_fd, REGISTRY_STATE, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	if (state_fd < 0 && errno == ENOENT)
		unlinkat(root_fd, folder, AT_REMOVEDIR); /* its maker, if it lives, begins again */
	else if (state_fd >= 0 && registry_state_lock(state_fd) == 0)
		registry_erase(root_fd, folder, folder_fd);
	if (state_fd >= 0)
		close(state_fd);
	close(folder_fd);
}

int registry_remove(struct registry_entry *entry, struct error *err)
{
	const int root_fd = registry_root_open(false, err);
	if (root_fd < 0)
		return root_fd;
	int result = -EAGAIN;
	/* Who waits for its end has the lock for a moment. */
	for (unsigned i = 0; result == -EAGAIN && i < TRIES && !registry_state_is_locked(entry->state_fd); i++) {
		if (i)
			usleep(1000);
		result = registry_state_lock(entry->state_fd);
	}
	if (result == -EAGAIN)
		error_set(err, result = -EBUSY, "machine '%s' is running; end it first: trvmm kill %s", entry->name, entry->name);
	else if (result == 0 && (result = registry_retire(root_fd, entry->name, entry->folder_fd, entry->state_fd)) < 0)
		error_set(err, result, "machine '%s': %s", entry->name,
			  result == -ENOENT ? "removed meanwhile" : strerror(-result));
	close(root_fd);
	return result;
}
