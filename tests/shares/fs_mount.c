/*
 * fs_mount: the FUSE server of virtio-fs behind this machine's own FUSE client, without a virtual machine: mounts DIR at PLACE, runs a
 * command, and unmounts.
 *
 *   fs_mount [ro] [cache=none|auto|always] [writeback] DIR PLACE COMMAND [ARG...]
 *
 * The client is the same as in a guest (fs/fuse/ of Linux), the transport is /dev/fuse. Status: the command's; 77 where FUSE cannot be
 * mounted.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/thread.h"
#include "devices/virtio-fs/fs_server.h"

#define THREADS 4
#define BUFFER_BYTES ((1u << 20) + 65536)
#define EXIT_SKIPPED 77

static struct fs_server *server;
static int device;

/* Takes requests off the device until it is unmounted. */
static void *serve(void *arg)
{
	char *in = malloc(BUFFER_BYTES), *out = malloc(BUFFER_BYTES);
	(void)arg;
	if (!in || !out || fs_server_enter_thread() < 0)
		abort();
	for (;;) {
		const ssize_t length = read(device, in, BUFFER_BYTES);
		if (length < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOENT))
			continue;
		if (length < 0)
			break;
		const struct iovec request = { in, (size_t)length }, answer = { out, BUFFER_BYTES };
		const ssize_t written = fs_server_handle(server, &request, 1, &answer, 1);
		/* ENOENT: whoever asked was interrupted. */
		if (written > 0 && write(device, out, (size_t)written) < 0 && errno != ENOENT)
			perror("fs_mount: answer");
	}
	free(in);
	free(out);
	return NULL;
}

static int run(char **command)
{
	int status = -1;
	const pid_t child = fork();
	if (child == 0) {
		execvp(command[0], command);
		perror(command[0]);
		_exit(127);
	}
	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static bool take_option(const char *word, struct fs_config *config)
{
	if (!strcmp(word, "ro"))
		config->read_only = true;
	else if (!strcmp(word, "writeback"))
		config->writeback = true;
	else if (!strcmp(word, "cache=none"))
		config->cache = FS_CACHE_NONE;
	else if (!strcmp(word, "cache=always"))
		config->cache = FS_CACHE_ALWAYS;
	else if (strcmp(word, "cache=auto"))
		return false;
	return true;
}

int main(int argc, char **argv)
{
	struct fs_config config = { .path = NULL };
	struct error err = { "" };
	pthread_t threads[THREADS];
	char options[128];
	int at = 1;

	while (at < argc && take_option(argv[at], &config))
		at++;
	if (argc - at < 3) {
		fprintf(stderr, "usage: fs_mount [ro] [cache=none|auto|always] [writeback] DIR PLACE COMMAND [ARG...]\n");
		return 2;
	}
	config.path = argv[at];
	const char *place = argv[at + 1];
	device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions", device);
	if (device < 0 || mount("fs_mount", place, "fuse.fs_mount", config.read_only ? MS_RDONLY : 0, options) < 0) {
		fprintf(stderr, "fs_mount: %s: %s\n", device < 0 ? "/dev/fuse" : place, strerror(errno));
		return EXIT_SKIPPED;
	}
	if (fs_server_create(&config, &server, &err) < 0) {
		fprintf(stderr, "fs_mount: %s\n", err.text);
		umount2(place, MNT_DETACH);
		return 1;
	}
	for (unsigned i = 0; i < THREADS; i++)
		if (thread_start(&threads[i], serve, NULL) < 0)
			abort();
	const int status = run(argv + at + 2);
	if (umount2(place, MNT_DETACH) < 0)
		perror("fs_mount: unmounting");
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	fs_server_destroy(server);
	close(device);
	return status;
}
