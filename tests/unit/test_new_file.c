/* base/new_file: files appear whole or not at all. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/new_file.h"

static char folder[] = "/tmp/trvmm-new-file-XXXXXX";
static char path[64];
static bool no_tmpfile; /* the file system does not know files without a name */

int openat(int dir_fd, const char *name, int flags, ...)
{
	if (no_tmpfile && (flags & O_TMPFILE) == O_TMPFILE) {
		errno = EOPNOTSUPP;
		return -1;
	}
	return (int)syscall(SYS_openat, dir_fd, name, flags, 0640);
}

static void set_up(void)
{
	cr_assert(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/file", folder);
}

static void clean_up(void)
{
	unlink(path);
	cr_assert(rmdir(folder) == 0, "something was left behind");
}
TestSuite(new_file, .init = set_up, .fini = clean_up);

static unsigned files(void)
{
	unsigned count = 0;
	DIR *dir = opendir(folder);
	for (const struct dirent *entry; (entry = readdir(dir));)
		count += entry->d_name[0] != '.' || strlen(entry->d_name) > 2;
	closedir(dir);
	return count;
}

static int make(const char *text, bool replace)
{
	struct new_file file;
	cr_assert(new_file_create(&file, path, 0640) == 0);
	cr_assert(write(file.fd, text, strlen(text)) == (ssize_t)strlen(text));
	const int rc = new_file_commit(&file, replace);
	const int fd = new_file_take_fd(&file);
	new_file_abandon(&file);
	cr_assert(close(fd) == 0);
	return rc;
}

static void holds(const char *text)
{
	char found[16] = "";
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	cr_assert(fd >= 0 && read(fd, found, sizeof(found) - 1) >= 0);
	close(fd);
	cr_assert_str_eq(found, text);
	cr_assert(files() == 1);
}

static void all_ways(void)
{
	struct new_file file;
	cr_assert(new_file_create(&file, path, 0640) == 0);
	cr_assert(access(path, F_OK) < 0, "no name before the end");
	new_file_abandon(&file);
	cr_assert(files() == 0);
	cr_assert(make("one", false) == 0);
	holds("one");
	cr_assert(make("two", false) == -EEXIST);
	holds("one");
	cr_assert(make("three", true) == 0);
	holds("three");
}

Test(new_file, without_a_name_until_the_end)
{
	all_ways();
}

Test(new_file, with_a_temporary_name_where_it_must_be)
{
	no_tmpfile = true;
	all_ways();
}

Test(new_file, what_cannot_be_made)
{
	struct new_file file;
	cr_assert(new_file_create(&file, "/no/such/folder/file", 0600) == -ENOENT);
	cr_assert(new_file_create(&file, "/dev/null/file", 0600) == -ENOTDIR);
	cr_assert(new_file_create(&file, "/tmp/", 0600) == -EISDIR);
	cr_assert(new_file_create(&file, "", 0600) == -EISDIR);
	cr_assert(new_file_create(&file, "/proc/new-file", 0600) < 0);
}
