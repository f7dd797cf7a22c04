/*
 * What a guest does on a shared folder for bench/fs: prints `fs: ROW COUNT NANOSECONDS` for each row, by the guest's own clock, which is
 * the lab's.
 *
 *   fs-work FOLDER FILES [walk]    as a command, in trvmm's guest
 *   /fs-work                       as process 1 of QEMU's guest, whose root is the share; the arguments are in the environment
 *                                  (kernel words FS_FILES=N, FS_WALK=1); resets the machine at the end
 *
 * FOLDER has been made by bench/fs-measure: many/f0 ... (FILES empty files in one folder), tree/dN/fM (FILES / 2 files of 1 KiB, 50 in a
 * folder), data (64 MiB). Each row begins with names that this guest has not seen, but those that say warm.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define DATA_BYTES (64u << 20)
#define RANDOM_COUNT 4000u
#define BLOCK_BYTES 4096u
#define LARGE_BYTES (1u << 20)

static char buffer[LARGE_BYTES] __attribute__((aligned(4096)));
static uint64_t began_ns;

static uint64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void begin(void)
{
	began_ns = now_ns();
}

static void end(const char *row, unsigned count)
{
	printf("fs: %s %u %llu\n", row, count, (unsigned long long)(now_ns() - began_ns));
}

static void die(const char *what)
{
	perror(what);
	fflush(stdout);
	if (getpid() == 1)
		reboot(RB_AUTOBOOT);
	exit(1);
}

static int open_file(const char *name, int flags)
{
	const int fd = open(name, flags | O_CLOEXEC, 0644);
	if (fd < 0)
		die(name);
	return fd;
}

static void stat_all(const char *row, unsigned files)
{
	char name[32];
	struct stat st;
	begin();
	for (unsigned i = 0; i < files; i++) {
		snprintf(name, sizeof(name), "many/f%u", i);
		if (lstat(name, &st) < 0)
			die(name);
	}
	end(row, files);
}

/* As ls -lR and git status do: every folder is listed, every entry looked at. */
static unsigned list(const char *path)
{
	unsigned count = 0;
	struct stat st;
	DIR *folder = opendir(path);
	if (!folder)
		die(path);
	for (const struct dirent *entry; (entry = readdir(folder));) {
		if (entry->d_name[0] == '.')
			continue;
		count++;
		if (fstatat(dirfd(folder), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			die(entry->d_name);
		if (!S_ISDIR(st.st_mode))
			continue;
		char below[4096];
		snprintf(below, sizeof(below), "%s/%s", path, entry->d_name);
		count += list(below);
	}
	closedir(folder);
	return count;
}

static void create_unlink(unsigned files)
{
	char name[32];
	if (mkdir("new", 0755) < 0)
		die("new");
	begin();
	for (unsigned i = 0; i < files; i++) {
		snprintf(name, sizeof(name), "new/f%u", i);
		close(open_file(name, O_CREAT | O_EXCL | O_WRONLY));
	}
	end("create", files);
	begin();
	for (unsigned i = 0; i < files; i++) {
		snprintf(name, sizeof(name), "new/f%u", i);
		if (unlink(name) < 0)
			die(name);
	}
	end("unlink", files);
}

/* The calls of tar for each file. */
static void untar(unsigned files)
{
	static const struct timespec times[2] = { { 1000000000, 0 }, { 1000000000, 0 } };
	char name[64];
	if (mkdir("untar", 0755) < 0)
		die("untar");
	begin();
	for (unsigned i = 0; i < files; i++) {
		if (i % 50 == 0) {
			snprintf(name, sizeof(name), "untar/d%u", i / 50);
			if (mkdir(name, 0755) < 0)
				die(name);
		}
		snprintf(name, sizeof(name), "untar/d%u/f%u", i / 50, i);
		const int fd = open_file(name, O_CREAT | O_EXCL | O_WRONLY);
		if (write(fd, buffer, 1024) != 1024 || fchown(fd, 0, 0) < 0 || fchmod(fd, 0640) < 0 || futimens(fd, times) < 0)
			die(name);
		close(fd);
	}
	end("untar", files);
}

static uint64_t next_block(uint64_t *state)
{
	*state = *state * 6364136223846793005ull + 1442695040888963407ull;
	return (*state >> 33) % (DATA_BYTES / BLOCK_BYTES) * BLOCK_BYTES;
}

static void random_io(void)
{
	uint64_t state = 1;
	int fd = open_file("data", O_RDONLY);
	posix_fadvise(fd, 0, 0, POSIX_FADV_RANDOM);
	begin();
	for (unsigned i = 0; i < RANDOM_COUNT; i++)
		if (pread(fd, buffer, BLOCK_BYTES, (off_t)next_block(&state)) != BLOCK_BYTES)
			die("random read");
	end("random-read", RANDOM_COUNT);
	close(fd);
	fd = open_file("data", O_WRONLY);
	begin();
	for (unsigned i = 0; i < RANDOM_COUNT; i++)
		if (pwrite(fd, buffer, BLOCK_BYTES, (off_t)next_block(&state)) != BLOCK_BYTES)
			die("random write");
	end("random-write", RANDOM_COUNT);
	close(fd);
}

static void sequential_io(void)
{
	int fd = open_file("data2", O_RDONLY);
	begin();
	for (unsigned i = 0; i < DATA_BYTES / LARGE_BYTES; i++)
		if (read(fd, buffer, LARGE_BYTES) != LARGE_BYTES)
			die("read");
	end("sequential-read", DATA_BYTES / LARGE_BYTES);
	close(fd);
	fd = open_file("written", O_WRONLY | O_CREAT);
	begin();
	for (unsigned i = 0; i < DATA_BYTES / LARGE_BYTES; i++)
		if (write(fd, buffer, LARGE_BYTES) != LARGE_BYTES)
			die("write");
	end("sequential-write", DATA_BYTES / LARGE_BYTES);
	close(fd);
}

static void rows(unsigned files)
{
	memset(buffer, 'x', sizeof(buffer)); /* its pages are there before the clock runs */
	stat_all("stat-cold", files);
	stat_all("stat-warm", files);
	begin();
	const unsigned listed = list("tree");
	end("ls-lR", listed);
	create_unlink(files / 2);
	untar(files / 2);
	random_io();
	sequential_io();
	/* What is known of the tree has expired. */
	usleep(1500000);
	begin();
	end("status", list("tree"));
}

int main(int argc, char **argv)
{
	const char *walk = getenv("FS_WALK"), *files = getenv("FS_FILES");
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (getpid() == 1) {
		mount("proc", "/proc", "proc", 0, NULL);
		if (chdir("/data") < 0)
			die("/data");
	} else {
		if (argc < 3 || chdir(argv[1]) < 0)
			die("usage: fs-work FOLDER FILES [walk]");
		files = argv[2];
		walk = argv[3];
	}
	if (walk) {
		begin();
		end("walk", list("walk"));
		printf("fs: walked\n");
		/* The machine is looked at meanwhile. */
		sleep(100);
	} else {
		rows(files ? (unsigned)strtoul(files, NULL, 10) : 10000);
	}
	printf("fs: done\n");
	if (getpid() == 1)
		reboot(RB_AUTOBOOT);
	return 0;
}
