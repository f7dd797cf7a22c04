/*
 * Landlock: no file but those beneath the directories that threads open files in, no network, no signals to processes outside. What is open
 * stays as it is, so kept disks, layers and logs need no rule. See the kernel's Documentation/userspace-api/landlock.rst.
 */
#include <errno.h>
#include <linux/landlock.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm/sandbox_internal.h"

/* Rights by the version of the interface that brought them; headers may be older than kernels. */
#define FS_FIRST ((1ull << 13) - 1)
#define FS_REFER (1ull << 13) /* 2 */
#define FS_TRUNCATE (1ull << 14) /* 3 */
#define NET_BIND 1ull /* 4 */
#define NET_ALL 3ull /* bind, connect */
#define FS_IOCTL_DEV (1ull << 15) /* 5 */
#define SCOPE_SIGNALS 2ull /* 6 */
#define SCOPE_ALL 3ull /* abstract Unix sockets, signals */
#define READ_RIGHTS (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
/* Of a share: everything but to execute, and to make devices. */
#define WRITE_RIGHTS                                                                                                               \
	((FS_FIRST | FS_REFER | FS_TRUNCATE) &                                                                                     \
	 ~(LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_MAKE_CHAR | LANDLOCK_ACCESS_FS_MAKE_BLOCK))

/* What a rule for a file may have. */
#define FILE_RIGHTS (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | FS_TRUNCATE)

struct ruleset {
	uint64_t handled_access_fs, handled_access_net, scoped;
};

/* What is forbidden, of what this version of the kernel's knows of: all but what rules allow. */
static const struct ruleset everything = { FS_FIRST | FS_REFER | FS_TRUNCATE | FS_IOCTL_DEV, NET_ALL, SCOPE_ALL };
static const struct ruleset changes = { (FS_FIRST | FS_REFER | FS_TRUNCATE | FS_IOCTL_DEV) & ~READ_RIGHTS, NET_BIND,
					SCOPE_SIGNALS };

static int make_ruleset(struct ruleset *ruleset, const struct ruleset *wanted, int version)
{
	const uint64_t known =
	    FS_FIRST | (version >= 2 ? FS_REFER : 0) | (version >= 3 ? FS_TRUNCATE : 0) | (version >= 5 ? FS_IOCTL_DEV : 0);
	size_t size = sizeof(uint64_t);
	ruleset->handled_access_fs = wanted->handled_access_fs & known;
	if (version >= 4) {
		ruleset->handled_access_net = wanted->handled_access_net;
		size = 2 * sizeof(uint64_t);
	}
	if (version >= 6) {
		ruleset->scoped = wanted->scoped;
		size = 3 * sizeof(uint64_t);
	}
	const long fd = syscall(SYS_landlock_create_ruleset, ruleset, size, 0);
	return fd < 0 ? -errno : (int)fd;
}

static int add_directories(const struct sandbox_spec *spec, const struct ruleset *ruleset, int fd)
{
	for (size_t i = 0; i < spec->directory_count; i++) {
		const struct sandbox_directory *directory = &spec->directories[i];
		struct stat st;
		const uint64_t possible = fstat(directory->fd, &st) == 0 && S_ISDIR(st.st_mode) ? UINT64_MAX : FILE_RIGHTS;
		const struct landlock_path_beneath_attr rule = {
			.allowed_access =
			    (directory->writable ? WRITE_RIGHTS : READ_RIGHTS) & possible & ruleset->handled_access_fs,
			.parent_fd = directory->fd,
		};
		if (syscall(SYS_landlock_add_rule, fd, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0)
			return -errno;
	}
	return 0;
}

static long supported_version(void)
{
	return syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
}

static int restrict_self(int ruleset_fd)
{
	return syscall(SYS_landlock_restrict_self, ruleset_fd, 0) < 0 ? -errno : 0;
}

int sandbox_restrict_changes(void)
{
	struct ruleset ruleset = { 0 };
	const long version = supported_version();
	const int fd = version < 0 ? -errno : make_ruleset(&ruleset, &changes, (int)version);
	if (fd < 0)
		return fd;
	const int result = restrict_self(fd);
	close(fd);
	return result;
}

void sandbox_restrict_files(const struct sandbox_spec *spec, struct sandbox_report *report)
{
	struct ruleset ruleset = { 0 };
	const long version = supported_version();
	if (version < 0) {
		sandbox_report_off(report, SANDBOX_LANDLOCK, errno, "the kernel was built or started without it");
		return;
	}
	const int fd = make_ruleset(&ruleset, &everything, (int)version);
	int result = fd < 0 ? fd : add_directories(spec, &ruleset, fd);
	if (result == 0)
		result = restrict_self(fd);
	if (fd >= 0)
		close(fd);
	if (result < 0)
		sandbox_report_off(report, SANDBOX_LANDLOCK, -result, "the kernel refuses the rules");
	else
		sandbox_report_on(report, SANDBOX_LANDLOCK, "version %ld: files%s%s", version, version >= 4 ? ", network" : "",
				  version >= 6 ? ", signals" : "");
}
