/*
 * What a command expects of its machine and no image brings: the kernel's file systems, /dev, loopback.
 *
 * All of it runs once, before the first command, on the way that every start waits for: a system call that an ordinary image does
 * not need is not made (mount first, make the folder when that fails).
 */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "guest/agent/agent.h"

#ifndef FIFREEZE
#define FIFREEZE ((int)_IOWR('X', 119, int)) /* linux/fs.h, which is not here with musl */
#endif

#define CGROUP "/sys/fs/cgroup"
#define HARMLESS (MS_NOSUID | MS_NODEV | MS_NOEXEC)

enum {
	OPTIONAL = 1,   /* the kernel may lack it */
	MAKE_FIRST = 2, /* the folder is on a file system that is new */
};

static const struct {
	const char *type, *path, *data;
	unsigned long flags;
	unsigned how;
} mounts[] = {
	{ "proc", "/proc", NULL, HARMLESS, 0 },
	{ "sysfs", "/sys", NULL, HARMLESS, OPTIONAL },
	{ "devpts", "/dev/pts", "newinstance,ptmxmode=0666,mode=0620,gid=5", MS_NOSUID | MS_NOEXEC, MAKE_FIRST },
	{ "tmpfs", "/dev/shm", "mode=1777", HARMLESS, MAKE_FIRST },
	{ "mqueue", "/dev/mqueue", NULL, HARMLESS, MAKE_FIRST | OPTIONAL },
	{ "tmpfs", "/run", "mode=0755", MS_NOSUID | MS_NODEV, 0 },
	{ "tmpfs", "/tmp", "mode=1777", MS_NOSUID | MS_NODEV, 0 },
	{ "cgroup2", CGROUP, NULL, HARMLESS, OPTIONAL },
};

static void complain(const char *what, const char *path, int error)
{
	struct text t = { 0 };
	text_add(&t, "trvmm-agent: ");
	text_add(&t, what);
	text_add(&t, path);
	text_add_error(&t, error);
	text_add(&t, "\n");
	if (write(STDERR_FILENO, t.bytes, t.length) < 0)
		return; /* no console: nobody to tell */
}

static int mount_at(const char *type, const char *path, unsigned long flags, const char *data)
{
	if (mount(type, path, type, flags, data) == 0)
		return 0;
	if (errno == ENOENT && mkdir(path, 0755) == 0 && mount(type, path, type, flags, data) == 0)
		return 0;
	return errno;
}

/* A kernel without devtmpfs: the nodes that no program can do without. */
static void make_nodes(void)
{
	static const struct {
		const char *path;
		unsigned major, minor;
	} nodes[] = {
		{ "/dev/null", 1, 3 }, { "/dev/zero", 1, 5 }, { "/dev/full", 1, 7 }, { "/dev/random", 1, 8 },
		{ "/dev/urandom", 1, 9 }, { "/dev/tty", 5, 0 }, { "/dev/console", 5, 1 }, { "/dev/ptmx", 5, 2 },
	};
	const int error = mount_at("tmpfs", "/dev", MS_NOSUID, "mode=0755");
	if (error)
		complain("mount ", "/dev", error);
	const mode_t before = umask(0);
	for (size_t i = 0; i < sizeof(nodes) / sizeof(nodes[0]); i++) {
		if (mknod(nodes[i].path, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)) < 0 && errno != EEXIST)
			complain("mknod ", nodes[i].path, errno);
	}
	umask(before);
}

static void mount_all(void)
{
	/* The kernel has mounted it already when it could (CONFIG_DEVTMPFS_MOUNT, and the image has a /dev): EBUSY. */
	const int error = mount_at("devtmpfs", "/dev", MS_NOSUID, NULL);
	if (error && error != EBUSY)
		make_nodes();
	for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
		if (mounts[i].how & MAKE_FIRST)
			mkdir(mounts[i].path, 0755);
		const int result = mount_at(mounts[i].type, mounts[i].path, mounts[i].flags, mounts[i].data);
		if (result && !(mounts[i].how & OPTIONAL))
			complain("mount ", mounts[i].path, result);
	}
	/* What is there (a /dev of the image's own) stays. */
	if (symlink("/proc/self/fd", "/dev/fd") == 0) {
		symlink("fd/0", "/dev/stdin");
		symlink("fd/1", "/dev/stdout");
		symlink("fd/2", "/dev/stderr");
	}
}

/* 127.0.0.1 and ::1 come with the flag. */
static void loopback_up(void)
{
	struct ifreq request = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return; /* a kernel without networks */
	if (ioctl(fd, SIOCSIFFLAGS, &request) < 0)
		complain("bring up ", "lo", errno);
	close(fd);
}

/*
 * A command that writes line by line is not interrupted at each line to have it fetched: we run when it waits, or has had its
 * share of the processor, and then fetch much at once. What we start is scheduled as usual. (musl has no sched_setscheduler.)
 */
void platform_schedule(bool late)
{
	const struct sched_param parameters = { 0 };
	syscall(SYS_sched_setscheduler, 0L, (long)(late ? SCHED_BATCH | SCHED_RESET_ON_FORK : SCHED_OTHER), &parameters);
}

const char *platform_cgroup(void)
{
	return CGROUP;
}

/* The kernel tidies its memory twice a second, whatever happens: for machines that live long, and idle ones are not to wake their host. */
static void let_memory_be(void)
{
	const int fd = open("/proc/sys/vm/compaction_proactiveness", O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return; /* a kernel that does not do it */
	if (write(fd, "0", 1) < 0)
		complain("write to ", "/proc/sys/vm/compaction_proactiveness", errno);
	close(fd);
}

void platform_boot(void)
{
	const struct rlimit files = { 524288, 524288 };
	umask(022);
	platform_schedule(true);
	mount_all();
	loopback_up();
	let_memory_be();
	setrlimit(RLIMIT_NOFILE, &files);
	/* Without a console these are free, and the command's descriptors must not be ours. */
	if (fcntl(STDERR_FILENO, F_GETFD) < 0) {
		while (open("/dev/null", O_RDWR) >= 0 && fcntl(STDERR_FILENO, F_GETFD) < 0)
			;
	}
}

void platform_set_hostname(const char *name)
{
	if (sethostname(name, strlen(name)) < 0)
		complain("set the host name ", name, errno);
}

int platform_mount_tmpfs(const char *folder, const char *data)
{
	return mount("tmpfs", folder, "tmpfs", HARMLESS, data) < 0 ? -errno : 0;
}

int platform_mount_share(const struct share_mount *share, const char *folder)
{
	const unsigned long flags = share->read_only ? MS_RDONLY : 0;
	return mount(share->tag, folder, "virtiofs", flags, share->dax ? "dax=always" : NULL) < 0 ? -errno : 0;
}

/* Where the folder of a share of one file is mounted for a moment: what is bound to its place stays when this goes. */
#define FILE_SHARE_FOLDER "/run/.trvmm-share"

static int bind_file(const char *name, const char *place)
{
	char from[sizeof(FILE_SHARE_FOLDER) + 256 + 1];
	const size_t length = strlen(name);
	if (length > 256)
		return -ENAMETOOLONG;
	memcpy(from, FILE_SHARE_FOLDER "/", sizeof(FILE_SHARE_FOLDER));
	memcpy(from + sizeof(FILE_SHARE_FOLDER), name, length + 1);
	return mount(from, place, NULL, MS_BIND, NULL) < 0 ? -errno : 0;
}

int platform_mount_file(const struct share_mount *share, const char *name, const char *place)
{
	if (mkdir(FILE_SHARE_FOLDER, 0700) < 0 && errno != EEXIST)
		return -errno;
	int result = platform_mount_share(share, FILE_SHARE_FOLDER);
	if (result == 0) {
		result = bind_file(name, place);
		umount2(FILE_SHARE_FOLDER, MNT_DETACH);
	}
	rmdir(FILE_SHARE_FOLDER);
	return result;
}

bool platform_kill_others(void)
{
	if (getpid() != 1)
		return false;
	kill(-1, SIGKILL);
	return true;
}

void platform_settle_disks(void)
{
	/* Read-only marks it as unmounted. A background process that has a file open for writing is in the way of that: freezing is
	 * not, and leaves at least the journal empty. */
	if (mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY, NULL) == 0)
		return;
	const int root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (root >= 0 && ioctl(root, FIFREEZE, 0) < 0)
		sync();
}
