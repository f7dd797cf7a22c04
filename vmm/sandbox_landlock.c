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
#define NET_ALL 3ull /* 4: bind, connect */
#define FS_IOCTL_DEV (1ull << 15) /* 5 */
#define SCOPE_ALL 3ull /* 6: abstract Unix sockets, signals */
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

static int make_ruleset(struct ruleset *ruleset, int version)
{
	size_t size = sizeof(uint64_t);
	ruleset->handled_access_fs =
	    FS_FIRST | (version >= 2 ? FS_REFER : 0) | (version >= 3 ? FS_TRUNCATE : 0) | (version >= 5 ? FS_IOCTL_DEV : 0);
	if (version >= 4) {
		ruleset->handled_access_net = NET_ALL;
		size = 2 * sizeof(uint64_t);
	}
	if (version >= 6) {
		ruleset->scoped = SCOPE_ALL;
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

void sandbox_restrict_files(const struct sandbox_spec *spec, struct sandbox_report *report)
{
	struct ruleset ruleset = { 0 };
	const long version = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
	if (version < 0) {
		sandbox_report_off(report, SANDBOX_LANDLOCK, errno, "the kernel was built or started without it");
		return;
	}
	const int fd = make_ruleset(&ruleset, (int)version);
	int result = fd < 0 ? fd : add_directories(spec, &ruleset, fd);
	if (result == 0 && syscall(SYS_landlock_restrict_self, fd, 0) < 0)
		result = -errno;
	if (fd >= 0)
		close(fd);
	if (result < 0)
		sandbox_report_off(report, SANDBOX_LANDLOCK, -result, "the kernel refuses the rules");
	else
		sandbox_report_on(report, SANDBOX_LANDLOCK, "version %ld: files%s%s", version, version >= 4 ? ", network" : "",
				  version >= 6 ? ", signals" : "");
}
