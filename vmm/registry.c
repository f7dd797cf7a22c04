/* Names taken, found, given back; see registry.h. */
#include "vmm/registry.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "vmm/registry_internal.h"

#define BACKLOG 64
#define TRIES 100

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

int registry_check_name(const char *name, struct error *err)
{
	const size_t length = strlen(name);
	bool good = length >= 1 && length <= REGISTRY_NAME_MAX && isalnum((unsigned char)name[0]);
	for (size_t i = 0; good && i < length; i++)
		good = isalnum((unsigned char)name[i]) || strchr("_.-", name[i]);
	if (good)
		return 0;
	char quoted[128];
	error_quote(quoted, sizeof(quoted), name, length);
	return error_set(err, -EINVAL,
			 "'%s' is no name for a machine: give a letter or digit, then up to %d of these and '_', '.', '-'", quoted,
			 REGISTRY_NAME_MAX - 1);
}

static void random_name(char *name, size_t size, const char *prefix)
{
	uint32_t number;
	while (getrandom(&number, sizeof(number), 0) != (ssize_t)sizeof(number))
		;
	snprintf(name, size, "%s%08x", prefix, number);
}

/* ---- removal ----------------------------------------------------------------------------------------------------------------- */

/* Empties and removes a folder that nobody will find any more, or that is not finished. `state` last: it is the lock. */
static void erase(int root_fd, const char *folder, int folder_fd)
{
	const int listing_fd = openat(folder_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *listing = listing_fd >= 0 ? fdopendir(listing_fd) : NULL;
	if (!listing && listing_fd >= 0)
		close(listing_fd);
	for (const struct dirent *item; listing && (item = readdir(listing));)
		if (strcmp(item->d_name, REGISTRY_STATE) && strcmp(item->d_name, ".") && strcmp(item->d_name, ".."))
			unlinkat(folder_fd, item->d_name, 0);
	if (listing)
		closedir(listing);
	unlinkat(folder_fd, REGISTRY_STATE, 0);
	unlinkat(root_fd, folder, AT_REMOVEDIR);
}

/* Takes `name` away. The caller has the lock of the state that it has had there; -ENOENT when another one is there now, or none. */
static int retire(int root_fd, const char *name, int folder_fd, int state_fd)
{
	char path[REGISTRY_NAME_MAX + sizeof("/" REGISTRY_STATE)], old[32];
	struct stat there, ours;
	snprintf(path, sizeof(path), "%s/" REGISTRY_STATE, name);
	if (fstat(state_fd, &ours) < 0 || fstatat(root_fd, path, &there, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (there.st_ino != ours.st_ino || there.st_dev != ours.st_dev)
		return -ENOENT;
	random_name(old, sizeof(old), ".old-");
	if (renameat(root_fd, name, root_fd, old) < 0)
		return -errno;
	erase(root_fd, old, folder_fd);
	return 0;
}

/* What a killed process left of a machine that was being made or removed. */
static void sweep(int root_fd, const char *folder)
{
	const int folder_fd = openat(root_fd, folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (folder_fd < 0)
		return;
	int state_fd = openat(folder_fd, REGISTRY_STATE, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	if (state_fd < 0 && errno == ENOENT)
		unlinkat(root_fd, folder, AT_REMOVEDIR); /* its maker, if it lives, begins again */
	else if (state_fd >= 0 && registry_state_lock(state_fd) == 0)
		erase(root_fd, folder, folder_fd);
	close_fd(&state_fd);
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
	else if (result == 0 && (result = retire(root_fd, entry->name, entry->folder_fd, entry->state_fd)) < 0)
		error_set(err, result, "machine '%s': %s", entry->name,
			  result == -ENOENT ? "removed meanwhile" : strerror(-result));
	close(root_fd);
	return result;
}

/* ---- finding ----------------------------------------------------------------------------------------------------------------- */

static void read_end(struct registry_entry *entry)
{
	bool has_end = false;
	if (registry_state_read(entry->state_fd, &entry->info, &entry->end, &has_end) < 0)
		entry->end = (struct registry_end){ .exit_code = 137 };
	entry->status = has_end ? REGISTRY_ENDED : REGISTRY_KILLED;
}

static int entry_open(int root_fd, const char *name, struct registry_entry *entry)
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
	result = entry_open(root_fd, name, entry);
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
			sweep(root_fd, name);
		return 0;
	}
	if (registry_check_name(name, &ignored) < 0 || entry_open(root_fd, name, &entry) < 0)
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

/* By the descriptor of its folder: the address has room for 107 bytes, and nobody can put another socket there meanwhile. */
static struct sockaddr_un control_address(int folder_fd)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/" REGISTRY_CONTROL, folder_fd);
	return address;
}

int registry_connect(const struct registry_entry *entry, struct error *err)
{
	const struct sockaddr_un address = control_address(entry->folder_fd);
	if (entry->status != REGISTRY_RUNNING)
		return error_set(err, -ECONNREFUSED, "machine '%s' is not running", entry->name);
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	const int result = -errno;
	if (fd >= 0)
		close(fd);
	return error_set(err, result, "machine '%s' cannot be reached: %s", entry->name, strerror(-result));
}

/* ---- the machine's own side -------------------------------------------------------------------------------------------------- */

static int listen_in(int folder_fd)
{
	const struct sockaddr_un address = control_address(folder_fd);
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, BACKLOG) == 0)
		return fd;
	const int result = -errno;
	close(fd);
	return result;
}

static void claim_close(struct registry_claim *claim)
{
	close_fd(&claim->listen_fd);
	close_fd(&claim->folder_fd);
	close_fd(&claim->state_fd);
}

/* Makes the machine's folder under a name that nobody looks for. -EAGAIN: somebody swept it away, or took the random name. */
static int make_folder(struct registry_claim *claim, const struct registry_info *info, char *folder, size_t size)
{
	struct stat st;
	int result = 0;
	random_name(folder, size, ".new-");
	if (mkdirat(claim->root_fd, folder, 0700) < 0)
		return errno == EEXIST ? -EAGAIN : -errno;
	claim->folder_fd = openat(claim->root_fd, folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (claim->folder_fd < 0)
		return errno == ENOENT ? -EAGAIN : -errno;
	claim->state_fd = openat(claim->folder_fd, REGISTRY_STATE, O_RDWR | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0600);
	if (claim->state_fd < 0)
		return errno == ENOENT ? -EAGAIN : -errno;
	result = registry_state_lock(claim->state_fd);
	if (result == 0 && fstat(claim->state_fd, &st) == 0 && st.st_nlink == 0)
		result = -EAGAIN;
	if (result < 0)
		return result;
	/* From here on it is safe from those who sweep. */
	result = registry_state_write_info(claim->state_fd, info);
	if (result == 0)
		claim->listen_fd = result = listen_in(claim->folder_fd);
	if (result >= 0)
		return 0;
	erase(claim->root_fd, folder, claim->folder_fd);
	return result;
}

/* The name is there already: says by whom it is taken, or removes what a killed run left. */
static int make_room(struct registry_claim *claim, const char *name, struct error *err)
{
	struct registry_entry entry;
	struct error ignored;
	int result = entry_open(claim->root_fd, name, &entry);
	if (result == -ENOENT)
		return 0; /* gone meanwhile */
	if (result < 0)
		return error_set(err, result, "the name '%s' is taken: %s", name, strerror(-result));
	if (entry.status == REGISTRY_RUNNING)
		result =
		    error_set(err, -EEXIST, "the name '%s' is taken by a machine that runs; end it (trvmm kill %s) or give another",
			      name, name);
	else if (entry.status == REGISTRY_ENDED)
		result = error_set(err, -EEXIST,
				   "the name '%s' is taken by a machine that has ended; remove it (trvmm rm %s) or give another",
				   name, name);
	else
		registry_remove(&entry, &ignored);
	registry_entry_close(&entry);
	return result;
}

/* Gives the folder its name. */
static int take_name(struct registry_claim *claim, const char *folder, const char *name, struct error *err)
{
	int result = -EEXIST;
	for (unsigned i = 0; i < TRIES; i++) {
		if (name)
			strcpy(claim->name, name);
		else
			random_name(claim->name, sizeof(claim->name), "");
		if (renameat2(claim->root_fd, folder, claim->root_fd, claim->name, RENAME_NOREPLACE) == 0)
			return 0;
		result = -errno;
		if (result != -EEXIST)
			break;
		result = name ? make_room(claim, name, err) : 0;
		if (result < 0)
			return result;
	}
	return error_set(err, result ? result : -EEXIST, "taking the name '%s': %s", claim->name,
			 strerror(result ? -result : EEXIST));
}

int registry_claim(struct registry_claim *claim, const char *name, const struct registry_info *info, struct error *err)
{
	char folder[32];
	int result = name ? registry_check_name(name, err) : 0;
	if (result < 0)
		return result;
	*claim = (struct registry_claim){ .folder_fd = -1, .state_fd = -1, .listen_fd = -1, .root_fd = -1 };
	claim->root_fd = registry_root_open(true, err);
	if (claim->root_fd < 0)
		return claim->root_fd;
	for (unsigned i = 0; i < TRIES; i++) {
		result = make_folder(claim, info, folder, sizeof(folder));
		if (result != -EAGAIN)
			break;
		claim_close(claim);
	}
	if (result < 0) {
		error_set(err, result, "the state of a named machine: %s", strerror(-result));
	} else {
		result = take_name(claim, folder, name, err);
		if (result < 0)
			erase(claim->root_fd, folder, claim->folder_fd);
	}
	if (result < 0) {
		claim_close(claim);
		close_fd(&claim->root_fd);
	}
	return result;
}

void registry_release(struct registry_claim *claim, const struct registry_end *end, bool keep)
{
	/* Who waits has the file open, and reads it when the lock is gone, whatever became of its name. */
	(void)registry_state_write_end(claim->state_fd, end);
	if (!keep)
		(void)retire(claim->root_fd, claim->name, claim->folder_fd, claim->state_fd);
	close_fd(&claim->listen_fd);
}
