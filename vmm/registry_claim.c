/* The machine's own side of the registry: a name is taken, and given back; see registry.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/registry_internal.h"

#define TRIES 100

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
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
	registry_random_name(folder, size, ".new-");
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
		claim->listen_fd = result = registry_listen(claim->folder_fd);
	if (result >= 0)
		return 0;
	registry_erase(claim->root_fd, folder, claim->folder_fd);
	return result;
}

/* The name is there already: says by whom it is taken, or removes what a killed run left. */
static int make_room(struct registry_claim *claim, const char *name, struct error *err)
{
	struct registry_entry entry;
	struct error ignored;
	int result = registry_entry_open(claim->root_fd, name, &entry);
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
			registry_random_name(claim->name, sizeof(claim->name), "");
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
			registry_erase(claim->root_fd, folder, claim->folder_fd);
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
		(void)registry_retire(claim->root_fd, claim->name, claim->folder_fd, claim->state_fd);
	close_fd(&claim->listen_fd);
}
