/* devices/virtio-blk/disk_nbd and trvmm-nbd against nbdkit, a server that is not ours. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "devices/virtio-blk/disk_nbd.h"
#include "tests/unit/nbd_server.h"

enum { SIZE = 8 << 20 };

static char folder[] = "/tmp/trvmm-nbd-XXXXXX";
static char server_path[64], uri[128], program[PATH_MAX];
static struct error err;

static void set_up(void)
{
	cr_assert(mkdtemp(folder));
	snprintf(server_path, sizeof(server_path), "%s/socket", folder);
	snprintf(uri, sizeof(uri), "nbd+unix:///?socket=%s", server_path);
	const ssize_t length = readlink("/proc/self/exe", program, sizeof(program) - 32);
	cr_assert(length > 0);
	program[length] = '\0';
	strcpy(strrchr(program, '/'), "/../trvmm-nbd");
}

/* Starts nbdkit with these words behind the socket's, and waits until it listens. */
static void serve(const char *const *words)
{
	const char *argv[16] = { "nbdkit", "-f", "--exit-with-parent", "-U", server_path };
	int argc = 5;
	while (*words)
		argv[argc++] = *words++;
	argv[argc] = NULL;
	nbd_server_start(argv, server_path);
}
#define SERVE(...) serve((const char *const[]){ __VA_ARGS__, NULL })

static void clean_up(void)
{
	char command[64];
	nbd_server_stop();
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	cr_assert(system(command) == 0);
}
TestSuite(disk_nbd, .init = set_up, .fini = clean_up, .timeout = 60);

static struct disk *open_or_fail(bool read_only)
{
	struct disk *disk = NULL;
	cr_assert(disk_nbd_open(program, "--sandbox-log", uri, read_only, &disk, &err) == 0, "%s", err.text);
	return disk;
}

static int transfer(struct disk *disk, uint64_t offset, uint8_t *bytes, size_t length, bool write)
{
	const struct iovec iov[] = { { bytes, length / 3 }, { bytes + length / 3, length - length / 3 } };
	return (write ? disk->ops->writev : disk->ops->readv)(disk, offset, iov, 2);
}

static void check_contents(struct disk *disk, uint64_t offset, size_t length, const uint8_t *wanted)
{
	uint8_t *bytes = malloc(length);
	cr_assert(transfer(disk, offset, bytes, length, false) == 0);
	cr_assert(memcmp(bytes, wanted, length) == 0);
	free(bytes);
}

static void all_operations(void)
{
	struct disk *disk = open_or_fail(false);
	cr_assert(disk->size_bytes == SIZE && !disk->read_only);
	uint8_t *model = calloc(1, SIZE);
	check_contents(disk, 0, SIZE, model);
	/* Larger than the window, and odd. */
	for (size_t i = 0; i < 5 * 512 * 1024 + 512; i++)
		model[1024 + i] = (uint8_t)(i * 7 + i / 512);
	cr_assert(transfer(disk, 1024, model + 1024, 5 * 512 * 1024 + 512, true) == 0);
	check_contents(disk, 0, SIZE, model);
	memset(model + 4096, 0, 3 << 19);
	cr_assert(disk->ops->write_zeroes(disk, 4096, 3 << 19, false) == 0);
	memset(model + (2 << 20), 0, 65536);
	cr_assert(disk->ops->discard(disk, 2 << 20, 65536) == 0);
	cr_assert(disk->ops->flush(disk) == 0);
	check_contents(disk, 0, SIZE, model);
	disk_destroy(disk);
	free(model);
}

Test(disk_nbd, reads_writes_zeroes_and_flushes)
{
	SERVE("memory", "8M");
	all_operations();
}

Test(disk_nbd, a_server_without_zeroes_and_flush)
{
	SERVE("--filter=nozero", "memory", "8M", "zeromode=none");
	all_operations();
}

Test(disk_nbd, read_only_by_wish_or_by_the_server)
{
	SERVE("memory", "8M");
	struct disk *disk = open_or_fail(true);
	cr_assert(disk->read_only);
	disk_destroy(disk);
	nbd_server_stop();
	SERVE("-r", "memory", "8M");
	disk = open_or_fail(false);
	cr_assert(disk->read_only);
	disk_destroy(disk);
}

static void refused(int code, const char *word)
{
	struct disk *disk;
	err.text[0] = '\0';
	const int rc = disk_nbd_open(program, "--sandbox-log", uri, false, &disk, &err);
	cr_assert(rc < 0 && (code == 0 || rc == code), "%d: %s", rc, err.text);
	cr_assert(strstr(err.text, uri) && strstr(err.text, word), "%s", err.text);
}

Test(disk_nbd, what_cannot_be_a_disk_is_refused)
{
	refused(-ENOENT, "No such file");
	SERVE("memory", "0");
	refused(-EINVAL, "empty");
	nbd_server_stop();
	SERVE("--filter=blocksize-policy", "memory", "8M", "blocksize-minimum=4096", "blocksize-preferred=4096",
	      "blocksize-error-policy=error");
	refused(-EINVAL, "512 bytes");
	nbd_server_stop();
	strcpy(program, "/no/such/program");
	refused(-ENOENT, "/no/such/program");
	cr_assert(disk_nbd_is_uri("nbd://host/x") && disk_nbd_is_uri("nbds+unix:///x?socket=y") && !disk_nbd_is_uri("nbd") &&
		  !disk_nbd_is_uri("/nbd://x"));
}

Test(disk_nbd, a_server_that_says_nothing_is_given_up)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	strcpy(address.sun_path, server_path);
	cr_assert(bind(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 && listen(fd, 1) == 0);
	refused(-ETIMEDOUT, "no answer");
	close(fd);
}

Test(disk_nbd, errors_of_the_server_come_through)
{
	SERVE("--filter=error", "memory", "8M", "error-pwrite=ENOSPC", "error-pwrite-rate=100%");
	struct disk *disk = open_or_fail(false);
	uint8_t bytes[4096] = { 1 };
	cr_assert(transfer(disk, 0, bytes, sizeof(bytes), true) == -ENOSPC);
	cr_assert(transfer(disk, 0, bytes, sizeof(bytes), false) == 0 && bytes[0] == 0, "the connection goes on");
	disk_destroy(disk);
}

/* Reads and writes of all sizes, together larger than the window. */
static void transfer_many(struct disk *disk, uint8_t *model)
{
	enum { COUNT = DISK_TRANSFERS_MAX, ROOM = SIZE / COUNT };
	static uint8_t bytes[COUNT][ROOM];
	struct disk_transfer transfers[COUNT];
	struct iovec iov[COUNT];
	for (unsigned round = 0; round < 8; round++) {
		for (unsigned i = 0; i < COUNT; i++) {
			const size_t length = round == 7 ? ROOM : (i * 37 + round * 101) % 800 * 512 + 512;
			const bool write = (i + round) % 2;
			memset(bytes[i], (int)(i + 16 * round + 1), length);
			iov[i] = (struct iovec){ bytes[i], length };
			transfers[i] =
			    (struct disk_transfer){ .write = write, .offset = i * ROOM, .iov = &iov[i], .count = 1, .result = 1 };
			if (write)
				memcpy(model + i * ROOM, bytes[i], length);
		}
		disk->ops->transfer(disk, transfers, COUNT);
		for (unsigned i = 0; i < COUNT; i++)
			cr_assert(transfers[i].result == 0 && memcmp(bytes[i], model + i * ROOM, iov[i].iov_len) == 0, "%u, %u",
				  round, i);
	}
}

Test(disk_nbd, several_transfers_at_once)
{
	SERVE("memory", "8M");
	struct disk *disk = open_or_fail(false);
	uint8_t *model = calloc(1, SIZE);
	transfer_many(disk, model);
	check_contents(disk, 0, SIZE, model);
	free(model);
	disk_destroy(disk);
}

Test(disk_nbd, transfers_are_in_flight_together)
{
	enum { COUNT = 8, DELAY_MS = 300 };
	SERVE("--filter=delay", "memory", "8M", "rdelay=300ms");
	struct disk *disk = open_or_fail(false);
	static uint8_t bytes[COUNT][4096];
	struct disk_transfer transfers[COUNT];
	struct iovec iov[COUNT];
	struct timespec begin, end;
	for (unsigned i = 0; i < COUNT; i++) {
		iov[i] = (struct iovec){ bytes[i], sizeof(bytes[i]) };
		transfers[i] = (struct disk_transfer){ .offset = i * 65536, .iov = &iov[i], .count = 1 };
	}
	clock_gettime(CLOCK_MONOTONIC, &begin);
	disk->ops->transfer(disk, transfers, COUNT);
	clock_gettime(CLOCK_MONOTONIC, &end);
	const int64_t ms = (end.tv_sec - begin.tv_sec) * 1000 + (end.tv_nsec - begin.tv_nsec) / 1000000;
	cr_assert(ms >= DELAY_MS && ms < COUNT * DELAY_MS / 2, "%lld ms", (long long)ms);
	disk_destroy(disk);
}

Test(disk_nbd, one_of_several_may_be_refused)
{
	SERVE("--filter=error", "memory", "8M", "error-pwrite=ENOSPC", "error-pwrite-rate=100%");
	struct disk *disk = open_or_fail(false);
	uint8_t bytes[3][4096] = { { 1 } };
	const struct iovec iov[] = { { bytes[0], 4096 }, { bytes[1], 4096 }, { bytes[2], 4096 } };
	struct disk_transfer transfers[3];
	for (unsigned i = 0; i < 3; i++)
		transfers[i] =
		    (struct disk_transfer){ .write = i == 1, .offset = i * 4096, .iov = &iov[i], .count = 1, .result = 1 };
	disk->ops->transfer(disk, transfers, 3);
	cr_assert(transfers[0].result == 0 && transfers[1].result == -ENOSPC && transfers[2].result == 0 && bytes[0][0] == 0);
	disk_destroy(disk);
}

/* What the test's stderr gets until now. */
static unsigned count_lines(int fd, const char *word)
{
	static char text[65536];
	const ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
	unsigned count = 0;
	text[n > 0 ? n : 0] = '\0';
	for (const char *at = text; (at = strstr(at, word)); at++)
		count++;
	return count;
}

Test(disk_nbd, a_lost_server_is_an_io_error_until_it_is_back)
{
	char log[80], file[80];
	snprintf(log, sizeof(log), "%s/log", folder);
	snprintf(file, sizeof(file), "%s/data", folder);
	const int data = open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0600),
		  errors = open(log, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	cr_assert(ftruncate(data, SIZE) == 0);
	const int saved = dup(2);
	dup2(errors, 2);
	SERVE("file", file);
	struct disk *disk = open_or_fail(false);
	uint8_t bytes[4096] = { 42 };
	cr_assert(transfer(disk, 8192, bytes, sizeof(bytes), true) == 0);
	nbd_server_stop();
	for (int i = 0; i < 20; i++)
		cr_assert(transfer(disk, 8192, bytes, sizeof(bytes), false) == -EIO);
	SERVE("file", file);
	int rc = -EIO;
	for (int i = 0; i < 200 && rc; i++) {
		usleep(50000);
		rc = transfer(disk, 8192, bytes, sizeof(bytes), false);
	}
	cr_assert(rc == 0 && bytes[0] == 42);
	cr_assert(disk->ops->flush(disk) == -EIO, "the write may have been lost with the connection");
	cr_assert(disk->ops->flush(disk) == 0);
	/* Another export under the same name is not taken for the disk. */
	nbd_server_stop();
	cr_assert(transfer(disk, 8192, bytes, sizeof(bytes), false) == -EIO);
	SERVE("memory", "4M");
	usleep(1500000);
	cr_assert(transfer(disk, 8192, bytes, sizeof(bytes), false) == -EIO);
	dup2(saved, 2);
	cr_assert(count_lines(errors, "is lost") == 2 && count_lines(errors, "connection is back") == 1, "one line for each");
	disk_destroy(disk);
}

Test(disk_nbd, the_end_of_its_program_is_an_io_error)
{
	SERVE("memory", "8M");
	struct disk *disk = open_or_fail(false);
	uint8_t bytes[512];
	char command[64];
	snprintf(command, sizeof(command), "pkill -KILL -P %d trvmm-nbd", (int)getpid());
	cr_assert(system(command) == 0);
	cr_assert(transfer(disk, 0, bytes, sizeof(bytes), false) == -EIO && disk->ops->flush(disk) == -EIO);
	disk_destroy(disk);
}
