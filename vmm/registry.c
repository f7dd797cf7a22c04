/* Machines as other processes see them: found, listed, waited for; see registry.h. */
#include "vmm/registry.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/registry_internal.h"

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void read_end(struct registry_entry *entry)
{
	bool has_end = false;
	if (registry_state_read(entry->state_fd, &entry->info, &entry->end, &has_end) < 0)
		entry->end = (struct registry_end){ .exit_code = 137 };
	entry->status = has_end ? REGISTRY_ENDED : REGISTRY_KILLED;
}

int registry_entry_open(int root_fd, const char *name, struct registry_entry *entry)
{
	*entry = (struct registry_entry){ .folder_fd = -1, .state_fd = -1 };
	snprintf(entry->name, sizeof(entry->name), "%s", name);
	entry->folder_fd = openat(root_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (entry->folder_fd < 0)
		return -errno;
	entry->state_fd = openat(entry->folder_fd, REGISTRY_STATE, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	if (entry->state_fd < 0) {
		const int result = -errno;
		registry_entry_close(entry);
		return result;
	}
	/* In this order: what is there when the lock is gone is all there will be. */
	const bool running = registry_state_is_locked(entry->state_fd);
	read_end(entry);
	if (running)
		entry->status = REGISTRY_RUNNING;
	return 0;
}

void registry_entry_close(struct registry_entry *entry)
{
	close_fd(&entry->folder_fd);
	close_fd(&entry->state_fd);
}

bool registry_is_running(const struct registry_entry *entry)
{
	return registry_state_is_locked(entry->state_fd);
}

static int not_found(const char *name, struct error *err)
{
	return error_set(err, -ENOENT, "there is no machine '%s'; trvmm ps -a lists them", name);
}

int registry_find(const char *name, struct registry_entry *entry, struct error *err)
{
	struct error reason;
	int result = registry_check_name(name, err);
	if (result < 0)
		return result;
	const int root_fd = registry_root_open(false, &reason);
	if (root_fd == -ENOENT)
		return not_found(name, err);
	if (root_fd < 0) {
		*err = reason;
		return root_fd;
	}
	result = registry_entry_open(root_fd, name, entry);
	close(root_fd);
	if (result == -ENOENT)
		return not_found(name, err);
	return result < 0 ? error_set(err, result, "machine '%s': %s", name, strerror(-result)) : 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct registry_entry *)a)->name, ((const struct registry_entry *)b)->name);
}

/* Adds one machine to the list, or removes what is left of it. */
static int list_one(int root_fd, const char *name, struct registry_entry **entries, size_t *count)
{
	struct registry_entry entry;
	struct error ignored;
	if (name[0] == '.') {
		if (!strncmp(name, ".new-", 5) || !strncmp(name, ".old-", 5))
			registry_sweep(root_fd, name);
		return 0;
	}
	if (registry_check_name(name, &ignored) < 0 || registry_entry_open(root_fd, name, &entry) < 0)
		return 0;
	if (entry.status == REGISTRY_KILLED) {
		registry_remove(&entry, &ignored);
		registry_entry_close(&entry);
		return 0;
	}
	struct registry_entry *grown = reallocarray(*entries, *count + 1, sizeof(*grown));
	if (!grown) {
		registry_entry_close(&entry);
		return -ENOMEM;
	}
	grown[(*count)++] = entry;
	*entries = grown;
	return 0;
}

int registry_list(struct registry_entry **entries, size_t *count, struct error *err)
{
	*entries = NULL;
	*count = 0;
	const int root_fd = registry_root_open(false, err);
	if (root_fd == -ENOENT)
		return 0;
	if (root_fd < 0)
		return root_fd;
	const int listing_fd = openat(root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *listing = listing_fd >= 0 ? fdopendir(listing_fd) : NULL;
	int result = listing ? 0 : -errno;
	if (!listing && listing_fd >= 0)
		close(listing_fd);
	for (const struct dirent *item; result == 0 && listing && (item = readdir(listing));)
		result = list_one(root_fd, item->d_name, entries, count);
	if (listing)
		closedir(listing);
	close(root_fd);
	if (result < 0) {
		registry_list_free(*entries, *count);
		*entries = NULL;
		*count = 0;
		return error_set(err, result, "listing the machines: %s", strerror(-result));
	}
	if (*count)
		qsort(*entries, *count, sizeof(**entries), by_name);
	return 0;
}

void registry_list_free(struct registry_entry *entries, size_t count)
{
	for (size_t i = 0; i < count; i++)
		registry_entry_close(&entries[i]);
	free(entries);
}

int registry_wait(struct registry_entry *entry, struct error *err)
{
	const int result = registry_state_wait(entry->state_fd);
	if (result < 0)
		return error_set(err, result, "waiting for machine '%s': %s", entry->name, strerror(-result));
	read_end(entry);
	return 0;
}
