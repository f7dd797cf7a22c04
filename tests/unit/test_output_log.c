/* output_log.c and its reader: all that is written comes back in its order, the files stay bounded, readers follow their turns. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/output_log.h"

static char folder[64];
static int folder_fd;

static void set_up(void)
{
	strcpy(folder, "/tmp/trvmm-log-XXXXXX");
	cr_assert(mkdtemp(folder));
	folder_fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	signal(SIGPIPE, SIG_IGN);
}

static void tear_down(void)
{
	char command[128];
	snprintf(command, sizeof(command), "rm -rf %s", folder);
	close(folder_fd);
	cr_assert_eq(system(command), 0);
}

TestSuite(output_log, .init = set_up, .fini = tear_down, .timeout = 60);

static uint8_t bytes[OUTPUT_LOG_RECORD_MAX];

/* All that is left, as "o:TEXT" and "e:TEXT" for each run of one stream; freed by the caller. */
static char *rest(struct output_log_reader *reader)
{
	char *text = NULL;
	size_t length;
	FILE *stream = open_memstream(&text, &length);
	enum output_log_stream which, before = 0;
	ssize_t n;
	while ((n = output_log_next(reader, &which, bytes)) > 0) {
		if (which != before)
			fputs(which == OUTPUT_LOG_STDOUT ? "o:" : "e:", stream);
		before = which;
		fwrite(bytes, 1, (size_t)n, stream);
	}
	cr_expect_eq(n, 0);
	fclose(stream);
	return text;
}

static void put(int fd, const char *text)
{
	cr_assert_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
}

static void expect_tail(long lines, const char *expected)
{
	struct output_log_reader reader;
	cr_assert_eq(output_log_open(&reader, folder_fd, lines), 0);
	char *text = rest(&reader);
	cr_expect_str_eq(text, expected, "last %ld: %s", lines, text);
	free(text);
	output_log_close(&reader);
}

Test(output_log, what_was_written_comes_back)
{
	struct output_log *log;
	struct error err;
	int out, error;
	cr_assert_eq(output_log_start(folder_fd, &log, &out, &error, &err), 0);
	put(out, "one\n");
	usleep(50000);
	put(error, "two\nthree\n");
	usleep(50000);
	put(out, "four");
	output_log_finish(log); /* with the ends for writing open */
	expect_tail(-1, "o:one\ne:two\nthree\no:four");
	expect_tail(0, "");
	expect_tail(1, "o:four");
	expect_tail(2, "e:three\no:four");
	expect_tail(3, "e:two\nthree\no:four");
	expect_tail(100, "o:one\ne:two\nthree\no:four");
	close(out);
	close(error);
}

Test(output_log, no_log_is_empty)
{
	expect_tail(-1, "");
	expect_tail(5, "");
}

Test(output_log, it_stays_bounded_and_readers_follow)
{
	struct output_log *log;
	struct output_log_reader reader;
	struct error err;
	struct stat st;
	enum output_log_stream which;
	int out, error;
	char line[101];
	memset(line, 'x', sizeof(line));
	line[99] = '\n';
	line[100] = '\0';
	cr_assert_eq(output_log_start(folder_fd, &log, &out, &error, &err), 0);
	put(out, "first\n");
	cr_assert_eq(output_log_open(&reader, folder_fd, -1), 0);
	size_t read_bytes = 0;
	const size_t total = 15u << 20;
	for (size_t written = 0; written < total; written += 100) {
		put(out, line);
		/* One reader keeps up. */
		for (ssize_t n; written % 10000 == 0 && (n = output_log_next(&reader, &which, bytes)) > 0;)
			read_bytes += (size_t)n;
	}
	output_log_finish(log);
	for (ssize_t n; (n = output_log_next(&reader, &which, bytes)) > 0;)
		read_bytes += (size_t)n;
	cr_expect_eq(read_bytes, 6 + (total + 99) / 100 * 100, "%zu of %zu", read_bytes, total);
	output_log_close(&reader);
	cr_assert_eq(fstatat(folder_fd, "log", &st, 0), 0);
	cr_expect(st.st_size <= OUTPUT_LOG_FILE_BYTES);
	cr_assert_eq(fstatat(folder_fd, "log.1", &st, 0), 0);
	cr_expect(st.st_size <= OUTPUT_LOG_FILE_BYTES);
	cr_expect(st.st_size >= OUTPUT_LOG_FILE_BYTES - OUTPUT_LOG_RECORD_MAX - 16);
	cr_assert_eq(output_log_open(&reader, folder_fd, 2), 0);
	char *text = rest(&reader);
	cr_expect_eq(strlen(text), 202);
	free(text);
	output_log_close(&reader);
	close(out);
	close(error);
}

Test(output_log, a_file_that_is_no_log_is_told)
{
	struct output_log_reader reader;
	enum output_log_stream which;
	const int fd = openat(folder_fd, "log", O_WRONLY | O_CREAT, 0600);
	put(fd, "this is not a log, but long enough");
	close(fd);
	cr_assert_eq(output_log_open(&reader, folder_fd, -1), 0);
	cr_expect_eq(output_log_next(&reader, &which, bytes), -EBADMSG);
	output_log_close(&reader);
}

Test(output_log, a_record_that_is_cut_short_is_not_there_yet)
{
	struct output_log_reader reader;
	enum output_log_stream which;
	const uint8_t record[20] = { 1, 0, 0, 0, 4, 0, 0, 0, [16] = 'a', 'b', 'c', '\n' };
	const int fd = openat(folder_fd, "log", O_WRONLY | O_CREAT, 0600);
	cr_assert_eq(output_log_open(&reader, folder_fd, -1), 0);
	for (size_t i = 0; i < sizeof(record); i++) {
		cr_expect_eq(output_log_next(&reader, &which, bytes), 0);
		cr_assert_eq(write(fd, record + i, 1), 1);
	}
	cr_expect_eq(output_log_next(&reader, &which, bytes), 4);
	cr_expect(!memcmp(bytes, "abc\n", 4));
	output_log_close(&reader);
	close(fd);
}
