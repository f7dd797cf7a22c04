/*
 * guest_runner: runs one test guest in a machine of libtrvmm and tells what came of it.
 *
 *   guest_runner [--cpus N] [--boot linux64|pvh] [--pc] [--exit] [--fs] [--attack N [--hangs]] [--timeout S] GUEST.elf
 *
 * --fs: with a share. --pc: with the interrupt controllers of a PC, all in KVM. --exit: the machine's process exits when its guest has
 * ended, as the product does, while other processors still run; what is told afterwards by looking at the machine is left out. --attack: a
 * number for the guest; the machine may then end as it likes, and with --hangs it does not end by itself.
 *
 * The machine (see world.h) runs in a child process; this one copies the results that the guest prints to its console,
 * `ok - GUEST: NAME`, `not ok - ...`, `skip - ...`, and adds those that only the host can tell: that the child lives and ends in
 * time, that its disks were used as disk.h has it and hold what they should, that no descriptor stayed open. What the child
 * said on stderr is shown when a test failed.
 *
 * Status: 0 all ok; 1 a test failed; 2 usage; 77 with `skip - GUEST: REASON` when there is no KVM.
 */
#include <dirent.h>
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "devices/virtio-blk/virtio_blk.h"
#include "tests/guests/runner.h"
#include "tests/guests/world.h"
#include "vmm/host.h"
#include "vmm/machine.h"

#define EXIT_SKIPPED 77
#define TIMEOUT_S 60

struct options {
	const char *path;
	const char *name; /* owned: the file without folder and extension */
	unsigned cpus;
	unsigned timeout_s;
	enum boot_protocol boot;
	unsigned attack; /* 0: none */
	bool pc, exit, hangs;
	struct test_share share; /* --fs */
};

#ifdef __SANITIZE_THREAD__
/* A machine's vCPU threads are its own until the process ends: nobody can join them. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void)
{
	return "report_thread_leaks=0";
}
#endif

/* ---- the child: the machine ---- */

/* Static, so that what the machine still uses at the end is no leak. */
struct world {
	struct loop *loop, *blk_loop;
	struct kernel_image kernel;
	struct machine *machine;
	struct test_disk *disk, *ro_disk;
	struct virtio_blk *blk, *ro_blk;
	struct virtio_vsock *vsock;
	struct virtio_fs *fs; /* NULL without --fs, as its server */
	struct fs_server *fs_server;
	enum machine_end end;
	char end_detail[256];
};

static void say(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A line among those of the guest, in one write. */
static void say(const char *format, ...)
{
	va_list args;
	va_start(args, format);
	vdprintf(STDOUT_FILENO, format, args);
	va_end(args);
}

/* Entries of a folder of /proc: descriptors, threads. */
static unsigned count_of(const char *path)
{
	unsigned count = 0;
	DIR *folder = opendir(path);
	while (folder && readdir(folder))
		count++;
	if (folder)
		closedir(folder);
	return count;
}

static void on_ended(void *data, enum machine_end end, const char *detail)
{
	struct world *world = data;
	world->end = end;
	snprintf(world->end_detail, sizeof(world->end_detail), "%s", detail);
	loop_stop(world->loop);
}

static void *run_loop(void *loop)
{
	loop_run(loop);
	return NULL;
}

static void nothing(void *arg)
{
	(void)arg;
}

static int make_disks(struct world *world)
{
	int result = test_disk_create(WORLD_DISK_SECTORS, 0, false, WORLD_DISK_ID, &world->disk);
	if (result == 0)
		result = test_disk_create(WORLD_RO_SECTORS, WORLD_RO_SEED, true, WORLD_RO_ID, &world->ro_disk);
	if (result < 0)
		return result;
	world->disk->writable_first = WORLD_WRITABLE_FIRST;
	world->disk->writable_end = WORLD_WRITABLE_END;
	return 0;
}

static int make_devices(struct world *world, const struct options *options, struct error *err)
{
	const struct guest_mem *mem = machine_mem(world->machine);
	int result = make_disks(world);
	if (result == 0) {
		world->disk->mem = world->ro_disk->mem = mem;
		result = virtio_blk_create(world->blk_loop, mem, &world->disk->disk, &world->blk);
	}
	if (result == 0)
		result = virtio_blk_create(world->blk_loop, mem, &world->ro_disk->disk, &world->ro_blk);
	if (result == 0)
		result = virtio_vsock_create(world->loop, mem, WORLD_GUEST_CID, &world->vsock);
	if (result == 0)
		result = echo_serve(world->vsock);
	if (result < 0)
		return error_set(err, result, "creating the devices: %s", strerror(-result));
	result = machine_attach(world->machine, virtio_blk_device(world->blk), err);
	if (result == 0)
		result = machine_attach(world->machine, virtio_blk_device(world->ro_blk), err);
	if (result == 0)
		result = machine_attach(world->machine, virtio_vsock_device(world->vsock), err);
	if (result < 0 || !options->share.folder[0])
		return result;
	result = test_share_create(&options->share, mem, &world->fs_server, &world->fs, err);
	return result < 0 ? result : machine_attach(world->machine, virtio_fs_device(world->fs), err);
}

static int prepare(struct world *world, const struct options *options, struct error *err)
{
	const struct machine_config config = {
		.memory_bytes = WORLD_MEMORY_BYTES,
		.cpus = options->cpus,
		.shm = true,
		.pc = options->pc,
		.console_fd = STDOUT_FILENO,
		.ended = on_ended,
		.data = world,
	};
	char cmdline[64];

	const int kvm_fd = host_open_kvm(err);
	if (kvm_fd < 0)
		return kvm_fd;
	int result = kernel_image_open(options->path, NULL, &world->kernel, err);
	if (result < 0)
		return result;
	world->loop = loop_create();
	world->blk_loop = loop_create();
	if (!world->loop || !world->blk_loop)
		return error_set(err, -errno, "epoll: %s", strerror(errno));
	result = machine_create(kvm_fd, &config, world->loop, &world->machine, err);
	if (result == 0)
		result = make_devices(world, options, err);
	snprintf(cmdline, sizeof(cmdline), "%s cpus=%u attack=%u", WORLD_CMDLINE, options->cpus, options->attack);
	if (result == 0)
		result = machine_boot(world->machine, &world->kernel, options->boot, cmdline, err);
	if (result == 0)
		result = machine_create_vm(world->machine, err);
	return result;
}

static void check_disk(const struct test_disk *disk, const char *name)
{
	if (disk->complaint[0])
		say("# host: %s\n", disk->complaint);
	say("%s - host: %s is used as disk.h has it\n", disk->complaint[0] ? "not ok" : "ok", name);
	const uint64_t changed = test_disk_changed_sector(disk);
	if (changed != UINT64_MAX)
		say("# host: sector %llu changed\n", (unsigned long long)changed);
	say("%s - host: %s is unchanged outside its writable sectors\n", changed == UINT64_MAX ? "ok" : "not ok", name);
}

#define DESCRIPTORS "/proc/self/fd"
#define THREADS "/proc/self/task"

/* Connections of the guest end a little later than the guest. */
static unsigned settled_count(const char *path, unsigned expected)
{
	unsigned count = count_of(path);
	for (unsigned i = 0; i < 100 && count > expected; i++) {
		usleep(10000);
		count = count_of(path);
	}
	return count;
}

/* All that the machine needs was there before the guest came; nothing is more now. */
static void check_left(const char *path, unsigned before, const char *what)
{
	const unsigned left = settled_count(path, before);
	const bool good = left <= before && !echo_open_count();
	if (!good)
		say("# host: %u %ss before, %u after\n", before, what, left);
	say("%s - host: no %s is left over\n", good ? "ok" : "not ok", what);
}

/* So that a guest can use them up. */
static void limit_descriptors(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return;
	limit.rlim_cur = limit.rlim_max < WORLD_DESCRIPTORS ? limit.rlim_max : WORLD_DESCRIPTORS;
	setrlimit(RLIMIT_NOFILE, &limit);
}

static void run_child(const struct options *options) __attribute__((noreturn));

static void run_child(const struct options *options)
{
	static struct world world;
	struct error err = { "" };
	pthread_t thread;

	signal(SIGPIPE, SIG_IGN);
	limit_descriptors();
	if (prepare(&world, options, &err) < 0) {
		say("not ok - host: prepare the machine: %s\n", err.text);
		exit(1);
	}
	if (pthread_create(&thread, NULL, run_loop, world.blk_loop) || (world.fs && virtio_fs_start(world.fs) < 0) ||
	    machine_start(world.machine, &err) < 0) {
		say("not ok - host: start the machine: %s\n", err.text);
		exit(1);
	}
	/* All that the machine needs is open now, and nothing yet for the guest: connections are made on the main loop. */
	const unsigned descriptors = count_of(DESCRIPTORS), threads = count_of(THREADS);
	loop_run(world.loop);
	if (options->exit)
		exit(world.end == MACHINE_RESET ? 0 : 1);
	loop_call(world.blk_loop, nothing, NULL); /* what the disks still did is done */
	say("# host: %s\n", world.end_detail);
	if (world.end != MACHINE_RESET && !options->attack)
		say("not ok - host: KVM went on to the end\n");
	/* The main loop is not running any more: what the guest left open there is closed by the device itself. */
	virtio_vsock_destroy(world.vsock);
	virtio_fs_destroy(world.fs);
	fs_server_destroy(world.fs_server);
	if (world.fs)
		say("%s - host: nothing beside the share has changed\n",
		    test_share_neighbours_are_unchanged(&options->share) ? "ok" : "not ok");
	check_left(DESCRIPTORS, descriptors, "descriptor");
	check_left(THREADS, threads, "thread");
	check_disk(world.disk, "the disk");
	check_disk(world.ro_disk, "the read-only disk");
	exit(0);
}

/* ---- the parent: results ---- */

struct results {
	const struct options *options;
	unsigned passed, failed;
	bool done; /* the guest said so */
	char line[512];
	size_t length;
};

static void result_line(struct results *results, const char *verdict, const char *text)
{
	printf("%s - %s: %s\n", verdict, results->options->name, text);
	fflush(stdout);
}

static void take_line(struct results *results, const char *line)
{
	if (!strncmp(line, "ok - ", 5)) {
		results->passed++;
		result_line(results, "ok", line + 5);
	} else if (!strncmp(line, "not ok - ", 9)) {
		results->failed++;
		result_line(results, "not ok", line + 9);
	} else if (!strncmp(line, "skip - ", 7)) {
		result_line(results, "skip", line + 7);
	} else if (!strcmp(line, "done")) {
		results->done = true;
	} else if (line[0]) {
		printf("%s\n", line);
	}
}

static void take_bytes(struct results *results, const char *bytes, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (bytes[i] != '\n' && results->length + 1 < sizeof(results->line)) {
			if (bytes[i] != '\r')
				results->line[results->length++] = bytes[i];
			continue;
		}
		results->line[results->length] = '\0';
		results->length = 0;
		take_line(results, results->line);
	}
}

static void fail(struct results *results, const char *what)
{
	results->failed++;
	result_line(results, "not ok", what);
}

static int64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Reads the child's console to its end. Returns false when time is up. */
static bool collect(struct results *results, int fd)
{
	const int64_t end = now_ms() + results->options->timeout_s * 1000ll;
	for (;;) {
		struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
		const int64_t left = end - now_ms();
		if (left <= 0)
			return false;
		if (poll(&poll_fd, 1, (int)left) <= 0)
			continue;
		char bytes[4096];
		const ssize_t n = read(fd, bytes, sizeof(bytes));
		if (n <= 0)
			return true;
		take_bytes(results, bytes, (size_t)n);
	}
}

/* What the child said on stderr; a line that is repeated, as for each broken ring, once. */
static void show_stderr(int fd)
{
	char line[1024], before[1024] = "";
	unsigned repeated = 0;
	FILE *file = fdopen(fd, "r");

	if (!file)
		return;
	rewind(file);
	while (fgets(line, sizeof(line), file)) {
		if (!strcmp(line, before)) {
			repeated++;
			continue;
		}
		if (repeated)
			fprintf(stderr, "(%u times more)\n", repeated);
		repeated = 0;
		fputs(line, stderr);
		strcpy(before, line);
	}
	if (repeated)
		fprintf(stderr, "(%u times more)\n", repeated);
	fclose(file);
}

static int supervise(const struct options *options)
{
	struct results results = { .options = options };
	char what[64];
	int fds[2], status;

	const int errors = memfd_create("stderr", MFD_CLOEXEC);
	if (errors < 0 || pipe(fds) < 0) {
		perror("guest_runner");
		return 1;
	}
	fflush(stdout);
	const pid_t child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(fds[1], STDOUT_FILENO);
		dup2(errors, STDERR_FILENO);
		close(fds[0]);
		close(fds[1]);
		run_child(options);
	}
	close(fds[1]);
	if (child < 0) {
		perror("guest_runner: fork");
		return 1;
	}
	const bool in_time = collect(&results, fds[0]);
	if (!in_time)
		kill(child, SIGKILL);
	waitpid(child, &status, 0);
	take_bytes(&results, "\n", 1);
	if (!in_time && options->hangs && results.done) {
		result_line(&results, "ok", "a machine that does not end is ended from outside");
	} else if (!in_time) {
		fail(&results, "hung");
	} else if (WIFSIGNALED(status)) {
		snprintf(what, sizeof(what), "the VMM lives (it died of signal %d)", WTERMSIG(status));
		fail(&results, what);
	} else if (WEXITSTATUS(status)) {
		snprintf(what, sizeof(what), "the VMM lives (it ended with status %d)", WEXITSTATUS(status));
		fail(&results, what);
	} else if (!results.done) {
		fail(&results, "the guest comes to its end");
	}
	if (results.failed)
		show_stderr(errors);
	return results.failed ? 1 : 0;
}

static int usage(void)
{
	fprintf(
	    stderr,
	    "usage: guest_runner [--cpus N] [--boot linux64|pvh] [--pc] [--exit] [--attack N [--hangs]] [--timeout S] GUEST.elf\n");
	return 2;
}

int main(int argc, char **argv)
{
	static const struct option longs[] = {
		{ "cpus", required_argument, NULL, 'c' },
		{ "boot", required_argument, NULL, 'b' },
		{ "pc", no_argument, NULL, 'p' },
		{ "exit", no_argument, NULL, 'e' },
		{ "fs", no_argument, NULL, 'f' },
		{ "attack", required_argument, NULL, 'a' },
		{ "hangs", no_argument, NULL, 'h' },
		{ "timeout", required_argument, NULL, 't' },
		{ NULL, 0, NULL, 0 },
	};
	struct options options = { .cpus = 1, .timeout_s = TIMEOUT_S, .boot = BOOT_LINUX64 };
	struct error err = { "" };
	bool share = false;
	int option;

	while ((option = getopt_long(argc, argv, "", longs, NULL)) >= 0) {
		if (option == 'c' && atoi(optarg) >= 1 && atoi(optarg) <= 8)
			options.cpus = (unsigned)atoi(optarg);
		else if (option == 't' && atoi(optarg) >= 1)
			options.timeout_s = (unsigned)atoi(optarg);
		else if (option == 'b' && (!strcmp(optarg, "pvh") || !strcmp(optarg, "linux64")))
			options.boot = optarg[0] == 'p' ? BOOT_PVH : BOOT_LINUX64;
		else if (option == 'p')
			options.pc = true;
		else if (option == 'e')
			options.exit = true;
		else if (option == 'f')
			share = true;
		else if (option == 'h')
			options.hangs = true;
		else if (option == 'a' && atoi(optarg) >= 0 && atoi(optarg) <= 9)
			options.attack = (unsigned)atoi(optarg);
		else
			return usage();
	}
	if (optind + 1 != argc)
		return usage();
	options.path = argv[optind];
	const char *slash = strrchr(options.path, '/');
	char name[64];
	const char *file = slash ? slash + 1 : options.path;
	snprintf(name, sizeof(name), "%.*s%s", (int)strcspn(file, "."), file, options.pc ? "-pc" : "");
	options.name = name;

	const int kvm_fd = host_open_kvm(&err);
	if (kvm_fd < 0) {
		printf("skip - %s: %s\n", name, err.text);
		return EXIT_SKIPPED;
	}
	close(kvm_fd);
	if (share && test_share_make(&options.share) < 0) {
		perror("guest_runner: a folder to share");
		return 1;
	}
	const int result = supervise(&options);
	test_share_remove(&options.share);
	return result;
}
