/*
 * The share of the guests fs and fs_attack: a folder with one file, beside a folder that no guest may see or change. The server is the real
 * one; requests with the unique number WORLD_FS_SLOW take WORLD_FS_SLOW_US longer (the runner is linked with --wrap=fs_server_handle).
 */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/iov.h"
#include "devices/virtio-fs/fs_server.h"
#include "tests/guests/runner.h"
#include "tests/guests/world.h"

ssize_t __real_fs_server_handle(struct fs_server *server, const struct iovec *in, size_t in_count, const struct iovec *out,
				size_t out_count);
ssize_t __wrap_fs_server_handle(struct fs_server *server, const struct iovec *in, size_t in_count, const struct iovec *out,
				size_t out_count);

ssize_t __wrap_fs_server_handle(struct fs_server *server, const struct iovec *in, size_t in_count, const struct iovec *out,
				size_t out_count)
{
	struct fuse_in_header header = { .unique = 0 };
	iov_copy_out(in, (unsigned)in_count, 0, &header, sizeof(header));
	if (header.unique == WORLD_FS_SLOW)
		usleep(WORLD_FS_SLOW_US);
	return __real_fs_server_handle(server, in, in_count, out, out_count);
}

static int write_file(const char *folder, const char *name, const char *text)
{
	char path[256];
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	const int result = write_full(fd, text, strlen(text));
	close(fd);
	return result;
}

int test_share_make(struct test_share *share)
{
	char path[sizeof(share->folder) + 16];
	strcpy(share->folder, "/tmp/trvmm-guest-share-XXXXXX");
	if (!mkdtemp(share->folder))
		return -errno;
	snprintf(path, sizeof(path), "%s/outside", share->folder);
	if (mkdir(path, 0755) < 0 || write_file(path, "secret", WORLD_FS_TEXT) < 0)
		return -errno;
	snprintf(path, sizeof(path), "%s/share", share->folder);
	if (mkdir(path, 0755) < 0 || write_file(path, WORLD_FS_FILE, WORLD_FS_TEXT) < 0)
		return -errno;
	return 0;
}

int test_share_create(const struct test_share *share, const struct guest_mem *mem, struct fs_server **server, struct virtio_fs **fs,
		      struct error *err)
{
	char path[sizeof(share->folder) + 16];
	snprintf(path, sizeof(path), "%s/share", share->folder);
	const struct fs_config config = { .path = path, .dax = FS_DAX_ALWAYS };
	const int result = fs_server_create(&config, server, err);
	return result < 0 ? result : virtio_fs_create(mem, *server, WORLD_FS_TAG, fs);
}

static unsigned entries;

static int count_entry(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)path, (void)st, (void)type, (void)at;
	entries++;
	return 0;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *at)
{
	(void)st, (void)type, (void)at;
	return remove(path);
}

bool test_share_neighbours_are_unchanged(const struct test_share *share)
{
	char path[sizeof(share->folder) + 32], text[sizeof(WORLD_FS_TEXT) + 1] = "";
	struct stat folder;
	/* The share, its neighbour, and nothing else; in the neighbour one file. */
	if (stat(share->folder, &folder) < 0 || folder.st_nlink != 4)
		return false;
	snprintf(path, sizeof(path), "%s/outside", share->folder);
	entries = 0;
	nftw(path, count_entry, 8, FTW_PHYS);
	strcat(path, "/secret");
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	const ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof(text));
	if (fd >= 0)
		close(fd);
	return entries == 2 && length == (ssize_t)sizeof(WORLD_FS_TEXT) - 1 && !strcmp(text, WORLD_FS_TEXT);
}

void test_share_remove(const struct test_share *share)
{
	if (share->folder[0])
		nftw(share->folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}
