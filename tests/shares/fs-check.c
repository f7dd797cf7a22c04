/*
 * What programs expect of a file system, tried on one: a static program for guests.
 *
 *   fs-check semantics DIR          each rule of POSIX and Linux once: `ok NAME` or `not ok NAME: why`
 *   fs-check random DIR SEED COUNT  random operations on a file, also mapped, against a model in memory; `ok random` or where they part
 *   fs-check walk DIR COUNT         makes COUNT files in one directory, lists, looks at and removes them
 *   fs-check shrink DIR             a file whose mapping is the host's own: what it is when the host cuts it off. With DIR/big of
 *                                   SHRINK_BYTES, each page of which begins with its number, modulo 251; says what the host is to do by
 *                                   making a file of that name, and goes on when that is gone: cut (byte 5 becomes H, big SHRINK_LEFT
 *                                   long), regrow (SHRINK_BYTES). / is a disk, on which a file is made
 *
 *   fs-check leave DIR              changes all of DIR/left, which it makes, by a mapping, says ok, and stays until it is killed
 *
 * Status 1 when something was not as expected.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#define RENAME_EXCHANGE 2
#endif
#ifndef FALLOC_FL_KEEP_SIZE
#define FALLOC_FL_KEEP_SIZE 1
#define FALLOC_FL_PUNCH_HOLE 2
#endif

static unsigned failures;
static const char *current;
static bool current_failed;

static void fail(int line, const char *what)
{
	if (!current_failed)
		printf("not ok %s: line %d: %s (errno %d, %s)\n", current, line, what, errno, strerror(errno));
	current_failed = true;
	failures++;
}
#define EXPECT(condition) ((condition) ? (void)0 : fail(__LINE__, #condition))

static void begin(const char *name)
{
	current = name;
	current_failed = false;
}

static void end(void)
{
	if (!current_failed)
		printf("ok %s\n", current);
}

static int make(const char *name, const char *text)
{
	const int fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	EXPECT(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	return fd;
}

static void put(const char *name, const char *text)
{
	close(make(name, text));
}

static bool has(const char *name, const char *text)
{
	char bytes[256] = "";
	const int fd = open(name, O_RDONLY | O_CLOEXEC);
	const ssize_t length = fd < 0 ? -1 : read(fd, bytes, sizeof(bytes) - 1);
	if (fd >= 0)
		close(fd);
	return length == (ssize_t)strlen(text) && !strcmp(bytes, text);
}

static int rename2(const char *from, const char *to, unsigned flags)
{
	return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags);
}

/* ---- semantics ---- */

static void check_names(void)
{
	char name[257];
	begin("names of 255 bytes, and not of 256");
	memset(name, 'n', 256);
	name[256] = '\0';
	EXPECT(open(name, O_CREAT | O_WRONLY, 0644) < 0 && errno == ENAMETOOLONG);
	name[255] = '\0';
	put(name, "long");
	EXPECT(has(name, "long") && unlink(name) == 0);
	put("\xff\n\t \\", "odd");
	EXPECT(has("\xff\n\t \\", "odd") && unlink("\xff\n\t \\") == 0);
	end();
}

static void check_renames(void)
{
	char byte;
	begin("rename over an open file");
	const int old = make("old", "old");
	put("new", "new");
	EXPECT(rename("new", "old") == 0 && has("old", "new") && access("new", F_OK) < 0);
	EXPECT(pread(old, &byte, 1, 0) == 1 && byte == 'o');
	struct stat st;
	EXPECT(fstat(old, &st) == 0 && st.st_nlink == 0);
	close(old);
	end();
	begin("RENAME_NOREPLACE and RENAME_EXCHANGE");
	put("a", "1");
	put("b", "2");
	EXPECT(rename2("a", "b", RENAME_NOREPLACE) < 0 && errno == EEXIST);
	EXPECT(rename2("a", "b", RENAME_EXCHANGE) == 0 && has("a", "2") && has("b", "1"));
	EXPECT(rename2("a", "c", RENAME_NOREPLACE) == 0 && has("c", "2"));
	EXPECT(mkdir("d", 0755) == 0 && mkdir("d/e", 0755) == 0);
	EXPECT(rename("d", "d/e/f") < 0 && errno == EINVAL);
	EXPECT(rename("b", "d") < 0 && errno == EISDIR);
	EXPECT(rename("b", "d/e/b") == 0 && has("d/e/b", "1"));
	EXPECT(rmdir("d") < 0 && errno == ENOTEMPTY);
	EXPECT(unlink("d/e/b") == 0 && rmdir("d/e") == 0 && rmdir("d") == 0 && unlink("c") == 0 && unlink("old") == 0);
	end();
}

static void check_unlinked(void)
{
	char bytes[8] = "";
	struct stat st;
	begin("an unlinked file stays open");
	int fd = make("gone", "still");
	EXPECT(unlink("gone") == 0 && access("gone", F_OK) < 0);
	EXPECT(pwrite(fd, "S", 1, 0) == 1 && pread(fd, bytes, 5, 0) == 5 && !strcmp(bytes, "Still"));
	EXPECT(ftruncate(fd, 2) == 0 && fstat(fd, &st) == 0 && st.st_size == 2 && st.st_nlink == 0);
	EXPECT(fchmod(fd, 0600) == 0 && fstat(fd, &st) == 0 && (st.st_mode & 07777) == 0600);
	close(fd);
	end();
	begin("O_TMPFILE, and a link that gives it a name");
	fd = open(".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0640);
	EXPECT(fd >= 0 && write(fd, "tmp", 3) == 3);
	char path[64];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	EXPECT(linkat(AT_FDCWD, path, AT_FDCWD, "named", AT_SYMLINK_FOLLOW) == 0 && has("named", "tmp"));
	close(fd);
	EXPECT(unlink("named") == 0);
	end();
}

static void check_links(void)
{
	struct stat st, other;
	char target[64];
	begin("hard links, symlinks, special files");
	put("one", "1");
	EXPECT(link("one", "two") == 0 && stat("one", &st) == 0 && stat("two", &other) == 0);
	EXPECT(st.st_ino == other.st_ino && st.st_nlink == 2);
	EXPECT(symlink("../no/where", "link") == 0 && readlink("link", target, sizeof(target)) == 11 &&
	       !memcmp(target, "../no/where", 11));
	EXPECT(lstat("link", &st) == 0 && S_ISLNK(st.st_mode) && open("link", O_RDONLY) < 0 && errno == ENOENT);
	EXPECT(mkfifo("fifo", 0600) == 0 && stat("fifo", &st) == 0 && S_ISFIFO(st.st_mode));
	EXPECT(unlink("one") == 0 && unlink("two") == 0 && unlink("link") == 0 && unlink("fifo") == 0);
	EXPECT(mkdir("dir", 0755) == 0 && link("dir", "dir2") < 0 && errno == EPERM && rmdir("dir") == 0);
	end();
}

static void check_append(void)
{
	enum { CHILDREN = 4, LINES = 50 };
	struct stat st;
	begin("O_APPEND of several processes");
	put("log", "");
	for (unsigned i = 0; i < CHILDREN; i++) {
		if (fork() == 0) {
			const int fd = open("log", O_WRONLY | O_APPEND | O_CLOEXEC);
			for (unsigned k = 0; k < LINES; k++)
				if (write(fd, "0123456789\n", 11) != 11)
					_exit(1);
			_exit(0);
		}
	}
	for (unsigned i = 0; i < CHILDREN; i++) {
		int status;
		EXPECT(wait(&status) > 0 && status == 0);
	}
	EXPECT(stat("log", &st) == 0 && st.st_size == CHILDREN * LINES * 11);
	EXPECT(unlink("log") == 0);
	end();
}

static void check_space(void)
{
	struct stat st;
	char byte = 'x';
	begin("fallocate with its modes");
	const int fd = make("space", "");
	EXPECT(fallocate(fd, 0, 0, 65536) == 0 && fstat(fd, &st) == 0 && st.st_size == 65536);
	EXPECT(fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 131072) == 0 && fstat(fd, &st) == 0 && st.st_size == 65536);
	EXPECT(pwrite(fd, "data", 4, 8192) == 4);
	EXPECT(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8192, 4096) == 0 && pread(fd, &byte, 1, 8192) == 1 &&
	       byte == 0);
	end();
	begin("SEEK_HOLE and SEEK_DATA");
	EXPECT(ftruncate(fd, 0) == 0 && ftruncate(fd, 1 << 20) == 0 && pwrite(fd, "data", 4, 524288) == 4 && fsync(fd) == 0);
	EXPECT(lseek(fd, 0, SEEK_HOLE) == 0);
	EXPECT(lseek(fd, 0, SEEK_DATA) == 524288 || lseek(fd, 0, SEEK_DATA) == 0);
	EXPECT(lseek(fd, 1 << 20, SEEK_DATA) < 0 && errno == ENXIO);
	end();
	begin("a file over 4 GiB");
	EXPECT(pwrite(fd, "end", 3, 5ll << 30) == 3 && fstat(fd, &st) == 0 && st.st_size == (5ll << 30) + 3);
	char bytes[3];
	EXPECT(pread(fd, bytes, 3, 5ll << 30) == 3 && !memcmp(bytes, "end", 3));
	EXPECT(ftruncate(fd, 4097) == 0 && fstat(fd, &st) == 0 && st.st_size == 4097);
	close(fd);
	EXPECT(unlink("space") == 0);
	end();
}

static void check_copy(void)
{
	begin("copy_file_range");
	const int from = make("from", "0123456789"), to = make("to", "");
	off_t in = 2, out = 1;
	EXPECT(copy_file_range(from, &in, to, &out, 5, 0) == 5 && in == 7 && out == 6);
	char bytes[8] = "";
	EXPECT(pread(to, bytes, 6, 0) == 6 && !memcmp(bytes,
						      "\0"
						      "23456",
						      6));
	close(from);
	close(to);
	EXPECT(unlink("from") == 0 && unlink("to") == 0);
	end();
}

static void check_attributes(void)
{
	struct stat st;
	char value[64];
	begin("modes, owners, nanosecond times");
	put("file", "x");
	/* A share keeps set-id bits beside the file, where the host's file system has room for that. */
	const mode_t kept = setxattr("file", "user.probe", "", 0, 0) == 0 || errno != EOPNOTSUPP ? 04751 : 0751;
	EXPECT(chmod("file", 04751) == 0 && stat("file", &st) == 0 && (st.st_mode & 07777) == kept);
	EXPECT(chown("file", 1234, 5678) == 0 && stat("file", &st) == 0 && st.st_uid == 1234 && st.st_gid == 5678);
	EXPECT(!(st.st_mode & S_ISUID));
	const struct timespec times[2] = { { 946684799, 123456789 }, { 1, 987654321 } };
	EXPECT(utimensat(AT_FDCWD, "file", times, 0) == 0 && stat("file", &st) == 0);
	EXPECT(st.st_atim.tv_sec == 946684799 && st.st_atim.tv_nsec == 123456789 && st.st_mtim.tv_sec == 1 &&
	       st.st_mtim.tv_nsec == 987654321);
	end();
	begin("xattrs");
	if (setxattr("file", "user.one", "value", 5, 0) < 0 && errno == EOPNOTSUPP) {
		printf("skip xattrs: the host's file system has none\n");
	} else {
		EXPECT(getxattr("file", "user.one", value, sizeof(value)) == 5 && !memcmp(value, "value", 5));
		EXPECT(getxattr("file", "user.one", NULL, 0) == 5);
		EXPECT(setxattr("file", "user.one", "x", 1, XATTR_CREATE) < 0 && errno == EEXIST);
		EXPECT(setxattr("file", "user.two", "x", 1, XATTR_REPLACE) < 0 && errno == ENODATA);
		EXPECT(listxattr("file", value, sizeof(value)) >= 9 && memmem(value, sizeof(value), "user.one", 9));
		EXPECT(removexattr("file", "user.one") == 0 && getxattr("file", "user.one", value, 1) < 0 && errno == ENODATA);
		end();
	}
	EXPECT(unlink("file") == 0);
}

/* What a lock of another process makes of `ours`: the child tries without waiting. */
static int try_lock(bool posix)
{
	int status;
	if (fork() == 0) {
		const int fd = open("lock", O_RDWR | O_CLOEXEC);
		const struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
		_exit((posix ? fcntl(fd, F_SETLK, &lock) : flock(fd, LOCK_EX | LOCK_NB)) == 0 ? 0 : 1);
	}
	wait(&status);
	return WEXITSTATUS(status);
}

static void check_locks(void)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	begin("flock and POSIX locks between processes");
	const int fd = make("lock", "x");
	EXPECT(flock(fd, LOCK_EX) == 0 && try_lock(false) == 1 && flock(fd, LOCK_UN) == 0 && try_lock(false) == 0);
	EXPECT(fcntl(fd, F_SETLK, &lock) == 0 && try_lock(true) == 1);
	lock.l_type = F_UNLCK;
	EXPECT(fcntl(fd, F_SETLK, &lock) == 0 && try_lock(true) == 0);
	close(fd);
	EXPECT(unlink("lock") == 0);
	end();
}

static void check_maps(void)
{
	begin("a shared mapping that is written to");
	const int fd = make("map", "");
	EXPECT(ftruncate(fd, 8192) == 0);
	char *map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED && errno == ENODEV) {
		printf("skip %s: files cannot be mapped without a cache\n", current);
		close(fd);
		unlink("map");
		return;
	}
	EXPECT(map != MAP_FAILED);
	if (map == MAP_FAILED)
		return;
	memcpy(map + 4094, "mapped", 6);
	EXPECT(msync(map, 8192, MS_SYNC) == 0);
	char bytes[6];
	EXPECT(pread(fd, bytes, 6, 4094) == 6 && !memcmp(bytes, "mapped", 6));
	EXPECT(pwrite(fd, "write", 5, 100) == 5 && !memcmp(map + 100, "write", 5));
	munmap(map, 8192);
	close(fd);
	EXPECT(unlink("map") == 0);
	end();
}

static void check_directories(void)
{
	enum { ENTRIES = 2000 };
	char name[32];
	static bool seen[ENTRIES];
	unsigned twice = 0, missed = 0;
	begin("a directory stream while entries come and go");
	EXPECT(mkdir("stream", 0755) == 0 && chdir("stream") == 0);
	for (unsigned i = 0; i < ENTRIES; i++) {
		snprintf(name, sizeof(name), "entry-%u", i);
		close(open(name, O_CREAT | O_WRONLY, 0644));
	}
	DIR *folder = opendir(".");
	EXPECT(folder);
	if (!folder)
		return;
	unsigned listed = 0;
	for (const struct dirent *entry; (entry = readdir(folder));) {
		unsigned number;
		if (sscanf(entry->d_name, "entry-%u", &number) != 1 || number >= ENTRIES)
			continue;
		twice += seen[number];
		seen[number] = true;
		/* Those that were listed go, others come. */
		if (++listed % 3 == 0)
			unlink(entry->d_name);
		snprintf(name, sizeof(name), "new-%u", listed);
		if (listed % 5 == 0)
			close(open(name, O_CREAT | O_WRONLY, 0644));
	}
	for (unsigned i = 0; i < ENTRIES; i++)
		missed += !seen[i];
	EXPECT(twice == 0 && missed == 0);
	rewinddir(folder);
	for (const struct dirent *entry; (entry = readdir(folder));)
		if (entry->d_name[0] != '.')
			unlink(entry->d_name);
	closedir(folder);
	EXPECT(chdir("..") == 0 && rmdir("stream") == 0);
	end();
}

static void check_others(void)
{
	struct statvfs fs;
	begin("statfs, O_SYNC, fsync of a directory");
	EXPECT(statvfs(".", &fs) == 0 && fs.f_blocks > 0 && fs.f_namemax == 255);
	const int fd = open("sync", O_WRONLY | O_CREAT | O_SYNC | O_CLOEXEC, 0644);
	EXPECT(fd >= 0 && write(fd, "x", 1) == 1 && fdatasync(fd) == 0);
	close(fd);
	const int folder = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	EXPECT(folder >= 0 && fsync(folder) == 0);
	close(folder);
	EXPECT(unlink("sync") == 0);
	end();
}

static int semantics(void)
{
	check_names();
	check_renames();
	check_unlinked();
	check_links();
	check_append();
	check_space();
	check_copy();
	check_attributes();
	check_locks();
	check_maps();
	check_directories();
	check_others();
	return failures ? 1 : 0;
}

/* ---- random operations ---- */

#define MODEL_BYTES (192u << 10)

static uint64_t state;
static uint8_t model[MODEL_BYTES], buffer[MODEL_BYTES];
static size_t model_size;

static unsigned below(unsigned limit)
{
	state ^= state >> 12;
	state ^= state << 25;
	state ^= state >> 27;
	return (unsigned)((state * 0x2545f4914f6cdd1dull >> 33) % limit);
}

static void model_write(size_t at, size_t length)
{
	for (size_t i = 0; i < length; i++)
		model[at + i] = (uint8_t)below(256);
	if (at + length > model_size)
		model_size = at + length;
}

/* Changes between the end of the file and MODEL_BYTES are zeroes again. */
static void model_truncate(size_t size)
{
	if (size < model_size)
		memset(model + size, 0, model_size - size);
	model_size = size;
}

static bool read_is_right(int fd, size_t at, size_t length)
{
	const ssize_t got = pread(fd, buffer, length, (off_t)at);
	const size_t wanted = at >= model_size ? 0 : model_size - at < length ? model_size - at : length;
	return got == (ssize_t)wanted && !memcmp(buffer, model + at, wanted);
}

static bool map_step(int fd, bool change)
{
	if (!model_size)
		return true;
	uint8_t *map = mmap(NULL, model_size, change ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return errno == ENODEV; /* without a cache */
	const size_t at = below((unsigned)model_size), length = 1 + below((unsigned)(model_size - at));
	bool right = true;
	if (change) {
		model_write(at, length);
		memcpy(map + at, model + at, length);
		if (below(2))
			right = msync(map, model_size, MS_SYNC) == 0;
	} else {
		right = !memcmp(map + at, model + at, length);
	}
	munmap(map, model_size);
	return right;
}

static bool step(int *fd, const char *name)
{
	const size_t at = below(MODEL_BYTES - 1), length = 1 + below(below(4) ? 5000 : MODEL_BYTES) % (MODEL_BYTES - (unsigned)at);
	switch (below(12)) {
	case 0:
	case 1:
	case 2:
		model_write(at, length);
		return pwrite(*fd, model + at, length, (off_t)at) == (ssize_t)length;
	case 3:
	case 4:
	case 5:
		return read_is_right(*fd, at, length);
	case 6:
		model_truncate(at);
		return ftruncate(*fd, (off_t)at) == 0;
	case 7:
		return map_step(*fd, true);
	case 8:
		return map_step(*fd, false);
	case 9:
		if (at < model_size)
			memset(model + at, 0, model_size - at < length ? model_size - at : length);
		return fallocate(*fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, (off_t)length) == 0;
	case 10:
		close(*fd);
		*fd = open(name, O_RDWR | O_CLOEXEC);
		return *fd >= 0;
	default: {
		struct stat st;
		return fsync(*fd) == 0 && fstat(*fd, &st) == 0 && st.st_size == (off_t)model_size;
	}
	}
}

static int random_operations(uint64_t seed, unsigned count)
{
	char name[64];
	state = seed * 0x9e3779b97f4a7c15ull + 1;
	snprintf(name, sizeof(name), "random-%llu", (unsigned long long)seed);
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	for (unsigned i = 0; i < count; i++) {
		if (fd < 0 || !step(&fd, name)) {
			printf("not ok random: seed %llu: operation %u: %s\n", (unsigned long long)seed, i, strerror(errno));
			return 1;
		}
	}
	if (!read_is_right(fd, 0, MODEL_BYTES)) {
		printf("not ok random: seed %llu: the content at the end\n", (unsigned long long)seed);
		return 1;
	}
	printf("ok random\n");
	return 0;
}

/* ---- many files ---- */

static int walk(unsigned count)
{
	char name[32];
	struct stat st;
	begin("walk");
	for (unsigned i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		const int fd = open(name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
		EXPECT(fd >= 0);
		close(fd);
	}
	DIR *folder = opendir(".");
	unsigned seen = 0;
	for (const struct dirent *entry; folder && (entry = readdir(folder));)
		if (entry->d_name[0] == 'f') {
			seen++;
			EXPECT(fstatat(dirfd(folder), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode));
		}
	EXPECT(folder && seen == count);
	if (folder)
		closedir(folder);
	for (unsigned i = 0; i < count; i++) {
		snprintf(name, sizeof(name), "f%u", i);
		EXPECT(unlink(name) == 0);
	}
	end();
	return failures ? 1 : 0;
}

/* ---- a file that shrinks under its mapping ---- */

#define SHRINK_BYTES (5u << 20)
#define SHRINK_LEFT (1u << 20)
#define SHRINK_LOST (3u << 20) /* an offset that is cut off, in another piece of 2 MiB */

static sigjmp_buf after_fault;

static void on_fault(int number)
{
	siglongjmp(after_fault, number);
}

/* The byte, or minus the signal that reading it is. */
static int look_at(const volatile uint8_t *byte)
{
	const int number = sigsetjmp(after_fault, 1);
	return number ? -number : *byte;
}

static void ask_host(const char *what)
{
	put(what, "please");
	while (access(what, F_OK) == 0)
		usleep(50000);
}

static int leave(void)
{
	begin("leave");
	const int fd = open("left", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	EXPECT(fd >= 0 && ftruncate(fd, SHRINK_LEFT) == 0);
	uint8_t *map = mmap(NULL, SHRINK_LEFT, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	EXPECT(map != MAP_FAILED && close(fd) == 0);
	if (current_failed)
		return 1;
	memset(map, 'L', SHRINK_LEFT);
	end();
	return pause();
}

/* Between a disk and a mapping, which the disk's driver gives to its device. Returns the disk's file. */
static int direct_io(volatile uint8_t *map)
{
	begin("direct I/O with a disk");
	const int file = open("/direct", O_RDWR | O_CREAT | O_TRUNC | O_DIRECT | O_CLOEXEC, 0600);
	EXPECT(file >= 0 && unlink("/direct") == 0);
	EXPECT(pwrite(file, (const void *)map, 8192, 0) == 8192);
	EXPECT(pread(file, (void *)(map + 8192), 8192, 0) == 8192);
	EXPECT(map[8192] == 0 && map[8193] == 'G' && map[8192 + 4096] == 1);
	end();
	return file;
}

static int shrink(void)
{
	char byte;
	int ends[2];

	signal(SIGBUS, on_fault);
	begin("the mapping");
	const int fd = open("big", O_RDWR | O_CLOEXEC);
	volatile uint8_t *map = mmap(NULL, SHRINK_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	EXPECT(fd >= 0 && map != MAP_FAILED && pipe(ends) == 0);
	if (current_failed)
		return 1;
	for (unsigned at = 0; at < SHRINK_BYTES; at += 4096) {
		EXPECT(map[at] == at / 4096 % 251);
		map[at + 1] = 'G';
	}
	end();
	const int file = direct_io(map);
	begin("cut off by the host");
	ask_host("cut");
	EXPECT(map[5] == 'H' && map[0] == 0 && map[1] == 'G');
	EXPECT(look_at(&map[SHRINK_LOST]) == -SIGBUS);
	EXPECT(look_at(&map[SHRINK_LEFT + 4096]) == -SIGBUS);
	/* The guest's kernel reads it, for a program and out of its memory. */
	EXPECT(pread(fd, &byte, 1, SHRINK_LOST) < 1);
	EXPECT(write(ends[1], (const void *)&map[SHRINK_LOST], 1) == -1);
	EXPECT(pwrite(file, (const void *)&map[SHRINK_LOST + 8192], 4096, 0) == -1);
	EXPECT(pwrite(file, (const void *)map, 4096, 0) == 4096);
	EXPECT(map[SHRINK_LEFT - 4096] == (SHRINK_LEFT / 4096 - 1) % 251);
	end();
	begin("long again");
	ask_host("regrow");
	EXPECT(look_at(&map[SHRINK_LOST]) == 0);
	map[SHRINK_LOST] = 'x';
	EXPECT(pread(fd, &byte, 1, SHRINK_LOST) == 1 && byte == 'x');
	end();
	return failures ? 1 : 0;
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	umask(022);
	if (argc < 3 || chdir(argv[2]) < 0) {
		fprintf(stderr, "usage: fs-check semantics|random|walk|shrink|leave DIR [SEED] [COUNT]\n");
		return 2;
	}
	if (!strcmp(argv[1], "semantics"))
		return semantics();
	if (!strcmp(argv[1], "leave"))
		return leave();
	if (!strcmp(argv[1], "shrink"))
		return shrink();
	if (!strcmp(argv[1], "random") && argc == 5)
		return random_operations(strtoull(argv[3], NULL, 10), (unsigned)strtoul(argv[4], NULL, 10));
	if (!strcmp(argv[1], "walk") && argc == 4)
		return walk((unsigned)strtoul(argv[3], NULL, 10));
	return 2;
}
