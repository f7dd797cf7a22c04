/*
 * What a guest does on a shared folder for bench/fs: prints `fs: ROW COUNT NANOSECONDS` for each row, by the guest's own clock, which is
 * the lab's.
 *
 *   fs-work FOLDER FILES GROUP...    as a command, in trvmm's guest; the groups are in groups[] below
 *   /fs-work                         as process 1 of QEMU's guest, whose root is the share, with FOLDER data in it; the arguments are in
 *                                    the environment (kernel words FS_FILES=N FS_GROUPS=GROUP,GROUP...); resets the machine at the end
 *   fs-work make FOLDER FILES WALK   on the host: fills an empty FOLDER with what the groups need
 *   fs-work clean FOLDER             on the host: removes from it what a guest's run of the groups left
 *
 * FOLDER has many/f0 ... (FILES empty files in one folder), tree/dN/fM (FILES / 2 files of 1 KiB, 50 in a folder), walk/dN/file-M (WALK
 * empty files, 500 in a folder), data and data2 (64 MiB). Each row begins with names that this guest has not seen, but those that say warm.
 */
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
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

static void read_mapped(const char *row, const char *map)
{
	uint64_t state = 1;
	begin();
	for (unsigned i = 0; i < RANDOM_COUNT; i++)
		memcpy(buffer, map + next_block(&state), BLOCK_BYTES);
	end(row, RANDOM_COUNT);
}

static void mapped_io(void)
{
	const int fd = open_file("data", O_RDONLY);
	char *map = mmap(NULL, DATA_BYTES, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		die("mmap");
	madvise(map, DATA_BYTES, MADV_RANDOM);
	read_mapped("mapped-read-cold", map);
	read_mapped("mapped-read-warm", map);
	munmap(map, DATA_BYTES);
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

static void stat_group(unsigned files)
{
	stat_all("stat-cold", files);
	stat_all("stat-warm", files);
}

static void list_group(unsigned files)
{
	(void)files;
	begin();
	const unsigned listed = list("tree");
	end("ls-lR", listed);
	/* What is known of the tree expires. */
	usleep(1500000);
	begin();
	end("status", list("tree"));
}

static void create_group(unsigned files)
{
	create_unlink(files);
}

static void untar_group(unsigned files)
{
	untar(files / 2);
}

static void random_group(unsigned files)
{
	(void)files;
	random_io();
}

static void mapped_group(unsigned files)
{
	(void)files;
	mapped_io();
}

static void sequential_group(unsigned files)
{
	(void)files;
	sequential_io();
}

static void walk_group(unsigned files)
{
	(void)files;
	begin();
	end("walk", list("walk"));
	printf("fs: walked\n");
	/* The machine is looked at meanwhile. */
	sleep(100);
}

static const struct {
	const char *name;
	void (*run)(unsigned files);
} groups[] = {
	{ "stat", stat_group },     { "list", list_group },     { "create", create_group },
	{ "untar", untar_group },   { "random", random_group }, { "sequential", sequential_group },
	{ "mapped", mapped_group }, { "walk", walk_group },
};

static void run_group(const char *name, unsigned files)
{
	for (size_t i = 0; i < sizeof(groups) / sizeof(*groups); i++)
		if (strcmp(groups[i].name, name) == 0) {
			groups[i].run(files);
			return;
		}
	fprintf(stderr, "fs-work: no group %s\n", name);
}

/* ---- on the host ------------------------------------------------------------------------------------------------------------------ */

static void make_folder(const char *name)
{
	if (mkdir(name, 0755) < 0)
		die(name);
}

static void make_file(const char *name, size_t bytes)
{
	const int fd = open_file(name, O_CREAT | O_EXCL | O_WRONLY);
	while (bytes) {
		const size_t piece = bytes < sizeof(buffer) ? bytes : sizeof(buffer);
		if (write(fd, buffer, piece) != (ssize_t)piece)
			die(name);
		bytes -= piece;
	}
	close(fd);
}

/* `count` files, `each` of them in a folder of its own. */
static void make_tree(const char *top, const char *prefix, unsigned count, unsigned each, size_t bytes)
{
	char name[64];
	make_folder(top);
	for (unsigned i = 0; i < count; i++) {
		if (i % each == 0) {
			snprintf(name, sizeof(name), "%s/d%u", top, i / each);
			make_folder(name);
		}
		snprintf(name, sizeof(name), "%s/d%u/%s%u", top, i / each, prefix, i % each);
		make_file(name, bytes);
	}
}

static void make(unsigned files, unsigned walk)
{
	char name[32];
	memset(buffer, 'd', sizeof(buffer));
	make_folder("many");
	for (unsigned i = 0; i < files; i++) {
		snprintf(name, sizeof(name), "many/f%u", i);
		make_file(name, 0);
	}
	make_tree("tree", "f", files / 2, 50, 1024);
	make_tree("walk", "file-", walk, 500, 0);
	make_file("data", DATA_BYTES);
	make_file("data2", DATA_BYTES);
}

static int remove_entry(const char *path, const struct stat *st, int kind, struct FTW *place)
{
	(void)st, (void)kind, (void)place;
	return remove(path);
}

static void clean(void)
{
	static const char *const made[] = { "new", "untar", "written" };
	for (size_t i = 0; i < sizeof(made) / sizeof(*made); i++)
		nftw(made[i], remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- which -------------------------------------------------------------------------------------------------------------------------- */

static unsigned number(const char *text)
{
	return text ? (unsigned)strtoul(text, NULL, 10) : 0;
}

static void run_as_init(void)
{
	const char *files = getenv("FS_FILES"), *names = getenv("FS_GROUPS");
	if (chdir("/data") < 0 || !files || !names)
		die("/data, FS_FILES, FS_GROUPS");
	char *list_of_names = strdup(names);
	for (char *name = strtok(list_of_names, ","); name; name = strtok(NULL, ","))
		run_group(name, number(files));
	printf("fs: done\n");
	reboot(RB_AUTOBOOT);
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	memset(buffer, 'x', sizeof(buffer)); /* its pages are there before the clock runs */
	if (getpid() == 1)
		run_as_init();
	const bool makes = argc == 5 && strcmp(argv[1], "make") == 0, cleans = argc == 3 && strcmp(argv[1], "clean") == 0;
	if (argc < 3 || chdir(argv[makes || cleans ? 2 : 1]) < 0)
		die("usage: fs-work FOLDER FILES GROUP..., make FOLDER FILES WALK, clean FOLDER");
	if (makes) {
		make(number(argv[3]), number(argv[4]));
	} else if (cleans) {
		clean();
	} else {
		for (int i = 3; i < argc; i++)
			run_group(argv[i], number(argv[2]));
		printf("fs: done\n");
	}
	return 0;
}
