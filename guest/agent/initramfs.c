/*
 * Process 1 of a kernel whose drivers are modules, on the initial root file system (initramfs.h): loads them, mounts the root, and goes on
 * as the agent that lies there.
 *
 * What is loaded is removed at once, as all of it is memory.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "guest/agent/agent.h"
#include "guest/agent/initramfs.h"

static char plan[INITRAMFS_PLAN_BYTES];

static _Noreturn void fail(const char *what, const char *path, int error)
{
	struct text why = { 0 };
	text_add(&why, what);
	text_add(&why, path);
	text_add_error(&why, error);
	platform_die(&why);
}

static void read_plan(void)
{
	const int fd = open(INITRAMFS_PLAN, O_RDONLY | O_CLOEXEC);
	const ssize_t length = fd < 0 ? -1 : read(fd, plan, sizeof(plan) - 1);
	if (length < 0)
		fail("reading ", INITRAMFS_PLAN, errno);
	close(fd);
	unlink(INITRAMFS_PLAN);
}

static void load_module(const char *path)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	/* Some refuse to be loaded where they have nothing to do: a checksum by instructions that this processor lacks. */
	if (fd < 0 || (syscall(SYS_finit_module, (long)fd, "", 0L) < 0 && errno != EEXIST && errno != ENODEV))
		fail("loading the module ", path, errno);
	close(fd);
	unlink(path);
}

/* Takes what is up to the next `end` off `*at`; NULL when there is none. */
static char *next(char **at, char end)
{
	char *word = *at, *stop = strchr(word, end);
	if (!stop)
		return NULL;
	*stop = '\0';
	*at = stop + 1;
	return word;
}

void initramfs_run(char **argv)
{
	char *at = plan;
	if (mount("dev", "/dev", "devtmpfs", MS_NOSUID, NULL) < 0)
		fail("mount ", "/dev (CONFIG_DEVTMPFS)", errno);
	read_plan();
	const char *access = next(&at, ' ');
	const char *source = access ? next(&at, ' ') : NULL;
	const char *type = source ? next(&at, ' ') : NULL;
	char *init = type ? next(&at, ' ') : NULL;
	const char *data = init ? next(&at, '\n') : NULL;
	if (!data)
		fail("reading ", INITRAMFS_PLAN, EINVAL);
	for (const char *path = next(&at, '\n'); path; path = next(&at, '\n'))
		load_module(path);
	if (mount(source, INITRAMFS_ROOT, type, strcmp(access, "ro") ? 0 : MS_RDONLY, data) < 0)
		fail("mounting the root ", source, errno);
	umount2("/dev", MNT_DETACH);
	unlink(INITRAMFS_INIT);
	/* The root takes the place of the initial one, which nothing can unmount. */
	if (chdir(INITRAMFS_ROOT) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0)
		fail("going to the root", "", errno);
	argv[0] = init;
	execv(init, argv);
	fail("execute ", init, errno);
}
