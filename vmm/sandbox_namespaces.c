/*
 * Namespaces, and an empty root. See sandbox_internal.h.
 *
 * Two kinds are not made. A process cannot enter a pid namespace, only its children can, and none of these can be made (seccomp);
 * what it would hide are processes to signal or to trace, and the calls for both are in no list. A network namespace costs twice as much as
 * all else here together, and no list has socket(), bind() or connect(); docs/threat-model.md has figures.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm/sandbox_internal.h"

#define TRIES 1000

static bool is_wanted(const struct sandbox_spec *spec, enum sandbox_layer layer)
{
	return !(spec->without & 1u << layer);
}

/* ---- the user namespace ------------------------------------------------------------------------------------------------------ */

static bool write_file(const char *path, const char *text)
{
	const int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	const bool good = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return good;
}

/*
 * Ordinary users get the privileges for the other namespaces in one of these. There they keep their own number and have no other. It takes
 * a process with one thread; the kernel counts one that was joined until it is gone, a moment later.
 */
static void enter_user_namespace(struct sandbox_report *report)
{
	char map[64];
	const unsigned uid = geteuid(), gid = getegid();
	int result = -1;
	for (unsigned i = 0; i < TRIES && result < 0 && (i == 0 || errno == EINVAL); i++) {
		result = unshare(CLONE_NEWUSER);
		if (result < 0 && errno == EINVAL) {
			sched_yield();
			errno = EINVAL;
		}
	}
	if (result < 0) {
		sandbox_report_off(report, SANDBOX_USER_NAMESPACE, errno, "this host does not let its users make one");
		return;
	}
	snprintf(map, sizeof(map), "%u %u 1", uid, uid);
	bool mapped = write_file("/proc/self/setgroups", "deny") && write_file("/proc/self/uid_map", map);
	snprintf(map, sizeof(map), "%u %u 1", gid, gid);
	mapped = mapped && write_file("/proc/self/gid_map", map);
	sandbox_report_on(report, SANDBOX_USER_NAMESPACE, "%s", mapped ? "" : "without a number for this user");
}

/* ---- the root ---------------------------------------------------------------------------------------------------------------- */

/* A file system with nothing in it, mounted nowhere yet. */
static int make_empty(void)
{
	const int fs = (int)syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC);
	if (fs < 0)
		return -errno;
	int mount = -1;
	if (syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
		mount = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC,
				     MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
	const int result = mount < 0 ? -errno : mount;
	close(fs);
	return result;
}

static int leave_root(struct sandbox_report *report)
{
	const int empty = make_empty();
	if (empty < 0)
		return empty;
	int result = 0;
	if (syscall(SYS_move_mount, empty, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH) < 0 || fchdir(empty) < 0) {
		result = -errno;
	} else if (syscall(SYS_pivot_root, ".", ".") == 0) {
		/* The old root lies over the new one now. */
		result = umount2(".", MNT_DETACH) < 0 ? -errno : 0;
		sandbox_report_on(report, SANDBOX_MOUNT_NAMESPACE, "%s", "");
	} else {
		/* The root of the boot, which nothing can take the place of. Nobody here will have the privilege to leave it. */
		result = chroot(".") < 0 ? -errno : 0;
		sandbox_report_on(report, SANDBOX_MOUNT_NAMESPACE, "by chroot(2): this root cannot be left in another way");
	}
	close(empty);
	return result;
}

static void enter_mount_namespace(const struct sandbox_spec *spec, struct sandbox_report *report)
{
	if (unshare(CLONE_NEWNS) < 0) {
		sandbox_report_off(report, SANDBOX_MOUNT_NAMESPACE, errno, "needs root, or a user namespace");
		return;
	}
	int result = mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ? -errno : 0;
	if (result == 0) {
		sandbox_detach_directories(spec);
		result = leave_root(report);
	}
	if (result < 0)
		sandbox_report_off(report, SANDBOX_MOUNT_NAMESPACE, -result, "the root cannot be left");
}

/* ---- all --------------------------------------------------------------------------------------------------------------------- */

static void enter(const struct sandbox_spec *spec, struct sandbox_report *report, enum sandbox_layer layer, int flag)
{
	if (!is_wanted(spec, layer))
		return;
	if (unshare(flag) == 0)
		sandbox_report_on(report, layer, "%s", "");
	else
		sandbox_report_off(report, layer, errno, "needs root, or a user namespace");
}

void sandbox_enter_namespaces(const struct sandbox_spec *spec, struct sandbox_report *report)
{
	if (is_wanted(spec, SANDBOX_USER_NAMESPACE) && geteuid() != 0)
		enter_user_namespace(report);
	else if (geteuid() == 0)
		sandbox_report_off(report, SANDBOX_USER_NAMESPACE, 0, "root needs none: it takes another user's number");
	sandbox_report_off(report, SANDBOX_NETWORK_NAMESPACE, 0,
			   "it would cost a millisecond; seccomp allows no socket to be made");
	sandbox_report_off(report, SANDBOX_PID_NAMESPACE, 0, "only children would be in it; seccomp allows none to be made");
	enter(spec, report, SANDBOX_IPC_NAMESPACE, CLONE_NEWIPC);
	enter(spec, report, SANDBOX_UTS_NAMESPACE, CLONE_NEWUTS);
	if (is_wanted(spec, SANDBOX_MOUNT_NAMESPACE))
		enter_mount_namespace(spec, report);
}
