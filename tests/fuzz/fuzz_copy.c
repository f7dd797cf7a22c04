/*
 * libFuzzer target: what a guest may send to `trvmm cp`, against guest/copy/receive.c.
 *
 * The first byte chooses the target (a folder that is there, a new name, contents), the rest is the stream. Checked, beside the sanitizers:
 * nothing appears beside the destination, and what is there does not change.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest/copy/copy.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

/* FOLDER/in/t is the destination; FOLDER/outside is what links may point to. */
static char folder[] = "/dev/shm/trvmm-fuzz-copy-XXXXXX";
static int here, in; /* libFuzzer's own paths count from here */

static void leave(void)
{
	if (fchdir(in) < 0)
		return;
	unlink("../outside/file");
	rmdir("../outside");
	rmdir("../in");
	rmdir(folder);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	here = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	assert(here >= 0 && mkdtemp(folder) && chdir(folder) == 0);
	assert(mkdir("outside", 0755) == 0 && mkdir("in", 0755) == 0 && chdir("in") == 0);
	const int fd = open("../outside/file", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	assert(write(fd, "mine", 4) == 4);
	close(fd);
	in = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	assert(in >= 0 && fchdir(here) == 0);
	atexit(leave);
	return 0;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
	(void)st;
	(void)where;
	return type == FTW_DP ? rmdir(path) : unlink(path);
}

/* Modes of what was made may forbid to look into it, to others than root. */
static int open_one(const char *path, const struct stat *st, int type, struct FTW *where)
{
	(void)where;
	return S_ISDIR(st->st_mode) && (type == FTW_D || type == FTW_DNR) ? chmod(path, 0700) : 0;
}

static void check_outside(void)
{
	struct stat st, file;
	assert(lstat("../outside", &st) == 0 && (st.st_mode & 07777) == 0755 && st.st_nlink == 2);
	assert(lstat("../outside/file", &file) == 0 && (file.st_mode & 07777) == 0644 && file.st_size == 4 && file.st_nlink == 1);
	assert(st.st_uid == geteuid() && file.st_uid == geteuid());
	/* ".", "..", "in", "outside". */
	assert(lstat("..", &st) == 0 && st.st_nlink == 4);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct copy_problem problem;
	if (size < 1)
		return 0;
	const uint8_t choice = data[0];
	const struct copy_target target = { .destination = choice & 1 ? "t" : "t/new",
					    .name = choice & 2 ? "name" : "",
					    .contents = !(choice & 2),
					    .owners = choice & 4 && geteuid() == 0,
					    .special = choice & 8 && geteuid() == 0,
					    .bytes_max = 1 << 20 };
	const int stream = memfd_create("stream", MFD_CLOEXEC);
	assert(fchdir(in) == 0);
	assert(stream >= 0 && pwrite(stream, data + 1, size - 1, 0) == (ssize_t)(size - 1));
	assert(mkdir("t", 0755) == 0 && mkdir("t/old", 0755) == 0 && symlink("../../outside", "t/link") == 0);
	(void)copy_receive(stream, &target, &problem);
	close(stream);
	check_outside();
	nftw("t", open_one, 16, FTW_PHYS);
	assert(nftw("t", remove_one, 16, FTW_PHYS | FTW_DEPTH) == 0);
	assert(fchdir(here) == 0);
	return 0;
}
