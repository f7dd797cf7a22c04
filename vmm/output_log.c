/* The log's thread; see output_log.h. Readers are in output_log_reader.c. */
#include "vmm/output_log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/thread.h"
#include "vmm/output_log_internal.h"

struct output_log {
	int folder_fd; /* owned */
	int file_fd; /* owned; -1: could not be made */
	uint64_t length; /* of the file */
	int pipes[2]; /* owned: the ends for reading; -1: at their end */
	int wake_fd; /* owned: an eventfd */
	pthread_t thread;
	uint8_t bytes[OUTPUT_LOG_RECORD_MAX];
};

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void begin_file(struct output_log *log)
{
	close_fd(&log->file_fd);
	(void)renameat(log->folder_fd, OUTPUT_LOG_FILE, log->folder_fd, OUTPUT_LOG_FILE_OLD);
	log->file_fd = openat(log->folder_fd, OUTPUT_LOG_FILE, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	log->length = 0;
}

static void store(struct output_log *log, enum output_log_stream stream, size_t length)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	const struct output_log_record record = {
		.stream = le32_make(stream),
		.length = le32_make((uint32_t)length),
		.time_ns = le64_make((uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec),
	};
	const size_t total = sizeof(record) + length;
	if (log->file_fd < 0 || log->length + total > OUTPUT_LOG_FILE_BYTES)
		begin_file(log);
	if (log->file_fd < 0)
		return;
	struct iovec iov[2] = { { (void *)(uintptr_t)&record, sizeof(record) }, { log->bytes, length } };
	const ssize_t n = pwritev(log->file_fd, iov, 2, (off_t)log->length);
	if (n == (ssize_t)total)
		log->length += total;
	else if (ftruncate(log->file_fd, (off_t)log->length) < 0) /* the storage is full */
		begin_file(log);
}

/* Takes what one pipe has. Returns false when it had nothing. */
static bool take(struct output_log *log, unsigned index)
{
	if (log->pipes[index] < 0)
		return false;
	const ssize_t n = read(log->pipes[index], log->bytes, sizeof(log->bytes));
	if (n > 0)
		store(log, index ? OUTPUT_LOG_STDERR : OUTPUT_LOG_STDOUT, (size_t)n);
	else if (n == 0 || (errno != EAGAIN && errno != EINTR))
		close_fd(&log->pipes[index]);
	return n > 0;
}

static void *log_thread(void *data)
{
	struct output_log *log = data;
	bool finishing = false;
	while (!finishing) {
		struct pollfd p[3] = { { .fd = log->pipes[0], .events = POLLIN },
				       { .fd = log->pipes[1], .events = POLLIN },
				       { .fd = log->wake_fd, .events = POLLIN } };
		if (poll(p, 3, -1) < 0 && errno != EINTR)
			break;
		finishing = p[2].revents;
		for (unsigned i = 0; i < 2; i++)
			if (p[i].revents)
				take(log, i);
	}
	for (unsigned i = 0; i < 2; i++)
		while (take(log, i))
			;
	return NULL;
}

static void log_destroy(struct output_log *log)
{
	close_fd(&log->folder_fd);
	close_fd(&log->file_fd);
	close_fd(&log->pipes[0]);
	close_fd(&log->pipes[1]);
	close_fd(&log->wake_fd);
	free(log);
}

static int open_pipes(struct output_log *log, int writers[2])
{
	for (unsigned i = 0; i < 2; i++) {
		int ends[2];
		if (pipe2(ends, O_CLOEXEC) < 0)
			return -errno;
		log->pipes[i] = ends[0];
		writers[i] = ends[1];
		if (fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0)
			return -errno;
	}
	return 0;
}

int output_log_start(int folder_fd, struct output_log **made, int *stdout_fd, int *stderr_fd, struct error *err)
{
	int writers[2] = { -1, -1 };
	struct output_log *log = calloc(1, sizeof(*log));
	if (!log)
		return error_set(err, -ENOMEM, "out of memory");
	log->file_fd = log->pipes[0] = log->pipes[1] = -1;
	log->folder_fd = fcntl(folder_fd, F_DUPFD_CLOEXEC, 3);
	log->wake_fd = eventfd(0, EFD_CLOEXEC);
	int result = log->folder_fd < 0 || log->wake_fd < 0 ? -errno : open_pipes(log, writers);
	if (result == 0) {
		begin_file(log);
		result = log->file_fd < 0 ? -errno : thread_start(&log->thread, log_thread, log);
	}
	if (result < 0) {
		log_destroy(log);
		close_fd(&writers[0]);
		close_fd(&writers[1]);
		return error_set(err, result, "the machine's log: %s", strerror(-result));
	}
	*made = log;
	*stdout_fd = writers[0];
	*stderr_fd = writers[1];
	return 0;
}

void output_log_finish(struct output_log *log)
{
	if (!log)
		return;
	eventfd_write(log->wake_fd, 1);
	pthread_join(log->thread, NULL);
	log_destroy(log);
}
