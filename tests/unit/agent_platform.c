/*
 * The agent's machine (platform_* of guest/agent/agent.h) when it is an ordinary process under test: connections go to the Unix
 * socket that is its argument, each beginning with the port as 4 bytes, to which the host answers with one byte when it accepts;
 * it listens for connections to port P at the Unix socket's name with _P behind; nothing is mounted; its end is exit status 3 and
 * a line on stderr.
 *
 * The answer is waited for, so that the host sees connections and messages in the order they were made, as with one virtqueue for
 * all.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "guest/agent/agent.h"

static const char *socket_path;

void platform_init(int argc, char **argv)
{
	if (argc != 2)
		die("usage: agent SOCKET", 0);
	socket_path = argv[1];
	/* As process 1 would: all orphans come to us, and nothing outlives the machine. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
}

int platform_connect(uint32_t port)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	strncpy(address.sun_path, socket_path, sizeof(address.sun_path) - 1);
	const le32 preamble = le32_make(port);
	char answer;
	if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0 ||
	    write(fd, &preamble, sizeof(preamble)) != (ssize_t)sizeof(preamble) || read(fd, &answer, 1) < 0 ||
	    fcntl(fd, F_SETFL, O_NONBLOCK) < 0) {
		const int error = errno;
		close(fd);
		return -error;
	}
	return fd;
}

int platform_listen(uint32_t port)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s_%u", socket_path, port);
	if (fd >= 0 && bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 1024) == 0)
		return fd;
	return -errno;
}

void platform_boot(void)
{
}

void platform_schedule(bool late)
{
	(void)late;
}

const char *platform_cgroup(void)
{
	const char *path = getenv("TEST_CGROUP");
	return path ? path : "/nonexistent";
}

void platform_set_hostname(const char *name)
{
	/* Seen by the tests in place of the machine's own. */
	const char *path = getenv("TEST_HOSTNAME_FILE");
	FILE *file = path ? fopen(path, "we") : NULL;
	if (file) {
		fputs(name, file);
		fclose(file);
	}
}

int platform_mount_tmpfs(const char *folder, const char *data)
{
	/* A file in the folder tells what would have been mounted. */
	char path[512];
	snprintf(path, sizeof(path), "%s/tmpfs", folder);
	FILE *file = fopen(path, "we");
	if (!file)
		return -errno;
	fputs(data, file);
	fclose(file);
	return 0;
}

static const char *access_of(const struct share_mount *share)
{
	static const char *const texts[2][2] = { { "rw", "rw,dax" }, { "ro", "ro,dax" } };
	return texts[share->read_only][share->dax];
}

int platform_mount_share(const struct share_mount *share, const char *folder)
{
	char path[512];
	snprintf(path, sizeof(path), "%s/share", folder);
	FILE *file = fopen(path, "we");
	if (!file)
		return -errno;
	fprintf(file, "%s %s", share->tag, access_of(share));
	fclose(file);
	/* As on a kernel that has no such file system, or maps no files. */
	return strcmp(share->tag, "no-kernel") ? strcmp(share->tag, "no-dax") ? 0 : -EINVAL : -ENODEV;
}

int platform_mount_file(const struct share_mount *share, const char *name, const char *place)
{
	FILE *file = fopen(place, "we");
	if (!file)
		return -errno;
	fprintf(file, "%s %s %s", share->tag, name, access_of(share));
	fclose(file);
	return 0;
}

static void kill_children(void)
{
	FILE *children = fopen("/proc/thread-self/children", "re");
	int pid;
	while (children && fscanf(children, "%d", &pid) == 1)
		kill(pid, SIGKILL);
	if (children)
		fclose(children);
}

/* Orphans become children. */
bool platform_kill_others(void)
{
	kill_children();
	return true;
}

void platform_settle_disks(void)
{
	/* The host's own disks are left alone. */
}

_Noreturn void platform_die(const struct text *why)
{
	kill_children();
	fprintf(stderr, "trvmm-agent: %.*s\n", (int)why->length, why->bytes);
	exit(3);
}
