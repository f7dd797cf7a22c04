/* Who the process is, what it may, and how much. See sandbox_internal.h. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm/sandbox_internal.h"

/*
 * Root becomes somebody whom no other process is: a number that is no user's, plus that of the process. Where the numbers are few, as in a
 * container, it is `nobody`, whom others may be, too.
 */
#define UID_FIRST 0x7c000000u
#define UID_NOBODY 65534u
#define CAPABILITIES_MAX 64
#define BIT(capability) (1ull << (capability))
/* What heap, buffers and stacks may grow by while the guest runs. */
#define DATA_BYTES (1ull << 30)

/* What root's threads keep, when the run needs it at all. The list of system calls says what can be done with it. */
static uint64_t kept;

/*
 * Root's directories hold what only root can read; a guest that root gave one may read it. A share's files belong to the guest's users. The
 * times of a file are changed by its owner.
 */
static uint64_t capabilities_of(enum sandbox_kind kind)
{
	if (kind == SANDBOX_DISK)
		return BIT(CAP_FOWNER);
	if (kind == SANDBOX_DISK_FILES)
		return BIT(CAP_FOWNER) | BIT(CAP_DAC_READ_SEARCH);
	if (kind == SANDBOX_FS)
		return BIT(CAP_CHOWN) | BIT(CAP_DAC_OVERRIDE) | BIT(CAP_FOWNER) | BIT(CAP_SETUID) | BIT(CAP_SETGID);
	return 0;
}

static int set_capabilities(uint64_t set)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = {
		{ .effective = (uint32_t)set, .permitted = (uint32_t)set },
		{ .effective = (uint32_t)(set >> 32), .permitted = (uint32_t)(set >> 32) },
	};
	return syscall(SYS_capset, &header, data) < 0 ? -errno : 0;
}

void sandbox_drop_capabilities_of(enum sandbox_kind kind)
{
	const uint64_t set = capabilities_of(kind) & kept;
	(void)set_capabilities(set);
	/* To file systems root's share is root, and, for the moment of making a file, the guest's user. */
	if (set & BIT(CAP_SETUID)) {
		setfsgid(0);
		setfsuid(0);
	}
}

/* By the calls themselves: the C library would tell other threads, of which there are none. */
static int become(uint32_t id)
{
	if (syscall(SYS_setgroups, 0, NULL) < 0 || syscall(SYS_setresgid, id, id, id) < 0 || syscall(SYS_setresuid, id, id, id) < 0)
		return -errno;
	return 0;
}

static int leave_root_user(struct sandbox_report *report)
{
	const uint32_t own = UID_FIRST + (uint32_t)getpid();
	int result = become(own);
	if (result == 0)
		sandbox_report_on(report, SANDBOX_USER_ID, "%u", own);
	else if ((result = become(UID_NOBODY)) == 0)
		sandbox_report_on(report, SANDBOX_USER_ID, "%u, which others may have, too: this user namespace is small",
				  UID_NOBODY);
	else
		sandbox_report_off(report, SANDBOX_USER_ID, -result, "root can become nobody else here");
	return result;
}

int sandbox_drop_privileges(const struct sandbox_spec *spec, struct sandbox_report *report, struct error *err)
{
	const bool was_root = geteuid() == 0;
	int result = 0;
	for (size_t i = 0; i < spec->directory_count && was_root; i++)
		kept |= spec->directories[i].share ? capabilities_of(SANDBOX_FS) : BIT(CAP_DAC_READ_SEARCH);
	if (spec->marks_cache && was_root)
		kept |= BIT(CAP_FOWNER);
	for (unsigned long capability = 0; capability < CAPABILITIES_MAX; capability++)
		if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) < 0 && errno == EINVAL)
			break; /* there are no more */
	if (kept)
		prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0);
	if (!was_root)
		sandbox_report_on(report, SANDBOX_USER_ID, "the caller's own");
	else if (!(spec->without & 1u << SANDBOX_USER_ID))
		result = leave_root_user(report);
	if (result < 0)
		return error_set(err, result,
				 "root can become no other user here, as in a user namespace with one number: %s; "
				 "run it as an ordinary user, or --no-sandbox runs the guest without any protection",
				 strerror(-result));
	result = set_capabilities(kept);
	if (result < 0) {
		sandbox_report_off(report, SANDBOX_CAPABILITIES, -result, "they cannot be given up");
		return error_set(err, result, "giving up capabilities: %s; --no-sandbox runs the guest without any protection",
				 strerror(-result));
	}
	sandbox_report_on(report, SANDBOX_CAPABILITIES, "%s", kept ? "but a few for files, for threads that need them" : "");
	return 0;
}

int sandbox_set_no_new_privs(struct sandbox_report *report)
{
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
		sandbox_report_off(report, SANDBOX_NO_NEW_PRIVS, errno, "the kernel refuses it");
		return -errno;
	}
	sandbox_report_on(report, SANDBOX_NO_NEW_PRIVS, "%s", "");
	return 0;
}

void sandbox_keep_reading(void)
{
	if (geteuid() == 0)
		(void)set_capabilities(BIT(CAP_DAC_READ_SEARCH) |
				       BIT(CAP_DAC_OVERRIDE)); /* the second is to connect to others' sockets */
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

static void limit(__rlimit_resource_t resource, rlim_t most)
{
	struct rlimit limit;
	if (getrlimit(resource, &limit) < 0)
		return;
	if (most < limit.rlim_cur)
		limit.rlim_cur = most;
	limit.rlim_max = limit.rlim_cur;
	setrlimit(resource, &limit);
}

uint64_t sandbox_data_bytes(void)
{
	char text[128] = "";
	unsigned long long pages = 0;
	const int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return 0;
	if (read(fd, text, sizeof(text) - 1) <= 0 || sscanf(text, "%*u %*u %*u %*u %*u %llu", &pages) != 1)
		pages = 0;
	close(fd);
	return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

void sandbox_set_limits(uint64_t data_bytes, struct sandbox_report *report)
{
	/* RLIMIT_NPROC is not among them: since Linux 6.14 KVM itself starts a thread of ours when the guest first runs. */
	limit(RLIMIT_CORE, 0);
	limit(RLIMIT_MEMLOCK, 0);
	limit(RLIMIT_MSGQUEUE, 0);
	limit(RLIMIT_RTPRIO, 0);
	if (data_bytes)
		limit(RLIMIT_DATA, data_bytes + DATA_BYTES);
	limit(RLIMIT_NOFILE, RLIM_INFINITY); /* no more than now */
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		sandbox_report_off(report, SANDBOX_NOT_DUMPABLE, errno, "the kernel refuses it");
	else
		sandbox_report_on(report, SANDBOX_NOT_DUMPABLE, "%s", "");
	sandbox_report_on(report, SANDBOX_LIMITS, "no core files, %llu MiB more memory than at the start",
			  (unsigned long long)(DATA_BYTES >> 20));
}
