/*
 * `trvmm --pids-limit`: one control group for all commands, with a limit of the kernel's pids controller. The agent is not in it, so that
 * it can always start one more command to look around; nor is the image's init.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest/agent/agent.h"

#define FOLDER "/trvmm"

static int procs_fd = -1; /* the group's list of processes; -1: no group */

static const char *path_of(struct text *path, const char *name)
{
	path->length = 0;
	text_add(path, platform_cgroup());
	text_add(path, name);
	path->bytes[path->length] = '\0';
	return path->bytes;
}

/* Returns a descriptor or -errno. */
static int write_to(const char *name, const struct text *value)
{
	struct text path;
	const int fd = open(path_of(&path, name), O_WRONLY | O_CLOEXEC);
	if (fd >= 0 && (!value || write(fd, value->bytes, value->length) >= 0))
		return fd;
	const int error = errno;
	if (fd >= 0)
		close(fd);
	return -error;
}

/* As write_to(); the descriptor is closed. */
static int set(const char *name, const struct text *value)
{
	const int fd = write_to(name, value);
	if (fd < 0)
		return fd;
	close(fd);
	return 0;
}

int pids_limit(uint32_t max, struct text *why)
{
	struct text path, controller = { 0 }, number = { 0 };
	text_add(&controller, "+pids");
	text_add_number(&number, max);
	int result = set("/cgroup.subtree_control", &controller);
	if (result == 0 && mkdir(path_of(&path, FOLDER), 0755) < 0 && errno != EEXIST)
		result = -errno;
	if (result == 0)
		result = set(FOLDER "/pids.max", &number);
	if (result == 0)
		result = procs_fd = write_to(FOLDER "/cgroup.procs", NULL);
	if (result >= 0)
		return 0;
	text_add(why, "limit the number of processes");
	text_add_error(why, -result);
	text_add(why, " (the kernel needs CONFIG_CGROUP_PIDS)");
	return result;
}

int pids_join(void)
{
	return procs_fd < 0 || write(procs_fd, "0", 1) == 1 ? 0 : -1;
}
