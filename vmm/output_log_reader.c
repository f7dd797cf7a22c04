/* Reading a machine's log while it may be written and its files take turns; see output_log.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/output_log_internal.h"

static int open_file(const struct output_log_reader *reader, const char *name)
{
	return openat(reader->folder_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
}

/* The next record of the file that is open; 0: there is none, or not all of it, yet. */
static ssize_t read_record(struct output_log_reader *reader, enum output_log_stream *stream, uint8_t *bytes)
{
	struct output_log_record record;
	const ssize_t head = pread(reader->fd, &record, sizeof(record), (off_t)reader->offset);
	if (head != (ssize_t)sizeof(record))
		return head < 0 ? -errno : 0;
	const uint32_t length = le32_get(record.length), kind = le32_get(record.stream);
	if (length == 0 || length > OUTPUT_LOG_RECORD_MAX || (kind != OUTPUT_LOG_STDOUT && kind != OUTPUT_LOG_STDERR))
		return -EBADMSG;
	const ssize_t n = pread(reader->fd, bytes, length, (off_t)(reader->offset + sizeof(record)));
	if (n != (ssize_t)length)
		return n < 0 ? -errno : 0;
	reader->offset += sizeof(record) + length;
	*stream = (enum output_log_stream)kind;
	return n;
}

/* Opens the file that follows the one that is open. Returns -1 when that is the newest. */
static int open_successor(const struct output_log_reader *reader)
{
	struct stat ours, newest, old;
	if (fstat(reader->fd, &ours) < 0 || fstatat(reader->folder_fd, OUTPUT_LOG_FILE, &newest, AT_SYMLINK_NOFOLLOW) < 0 ||
	    ours.st_ino == newest.st_ino)
		return -1;
	/* When it is not there any more, files have taken turns twice: the older one is the next. */
	const bool is_old =
	    fstatat(reader->folder_fd, OUTPUT_LOG_FILE_OLD, &old, AT_SYMLINK_NOFOLLOW) == 0 && old.st_ino == ours.st_ino;
	return open_file(reader, is_old ? OUTPUT_LOG_FILE : OUTPUT_LOG_FILE_OLD);
}

static ssize_t next_record(struct output_log_reader *reader, enum output_log_stream *stream, uint8_t *bytes)
{
	while (reader->fd >= 0) {
		ssize_t n = read_record(reader, stream, bytes);
		if (n != 0)
			return n;
		const int successor = open_successor(reader);
		if (successor < 0)
			return 0;
		/* Only now nobody writes there any more. */
		n = read_record(reader, stream, bytes);
		if (n != 0) {
			close(successor);
			return n;
		}
		close(reader->fd);
		reader->fd = successor;
		reader->offset = 0;
	}
	return 0;
}

ssize_t output_log_next(struct output_log_reader *reader, enum output_log_stream *stream, uint8_t *bytes)
{
	for (;;) {
		const ssize_t n = next_record(reader, stream, bytes);
		ssize_t start = 0;
		while (start < n && reader->skip_lines > 0)
			reader->skip_lines -= bytes[start++] == '\n';
		if (start)
			memmove(bytes, bytes + start, (size_t)(n - start));
		if (n <= 0 || start < n)
			return n - start;
	}
}

static int open_oldest(struct output_log_reader *reader)
{
	reader->offset = 0;
	reader->fd = open_file(reader, OUTPUT_LOG_FILE_OLD);
	if (reader->fd < 0)
		reader->fd = open_file(reader, OUTPUT_LOG_FILE);
	return reader->fd < 0 && errno != ENOENT ? -errno : 0;
}

/* Lines in all of the log; the last need not be ended. */
static long count_lines(struct output_log_reader *reader, uint8_t *bytes)
{
	enum output_log_stream stream;
	long lines = 0;
	uint8_t last = '\n';
	ssize_t n;
	while ((n = output_log_next(reader, &stream, bytes)) > 0) {
		for (ssize_t i = 0; i < n; i++)
			lines += bytes[i] == '\n';
		last = bytes[n - 1];
	}
	return last == '\n' ? lines : lines + 1;
}

int output_log_open(struct output_log_reader *reader, int folder_fd, long lines)
{
	uint8_t bytes[OUTPUT_LOG_RECORD_MAX] = { 0 };
	*reader = (struct output_log_reader){ .folder_fd = folder_fd, .fd = -1 };
	int result = open_oldest(reader);
	if (result < 0 || lines < 0 || reader->fd < 0)
		return result;
	const long all = count_lines(reader, bytes);
	output_log_close(reader);
	reader->skip_lines = all > lines ? all - lines : 0;
	return open_oldest(reader);
}

void output_log_close(struct output_log_reader *reader)
{
	if (reader->fd >= 0)
		close(reader->fd);
	reader->fd = -1;
}
