/* `trvmm logs [-f] [--tail N] NAME`: what a detached machine wrote, stdout to stdout, stderr to stderr. */
#include <ctype.h>
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/iov.h"
#include "vmm/cli/cli.h"
#include "vmm/cli/machines.h"
#include "vmm/output_log.h"
#include "vmm/registry.h"

#define LOOK_EVERY_MS 1000 /* at the lock, should the kernel's word about the folder get lost */

/* Prints what there is by now. */
static int print_more(struct output_log_reader *reader, struct error *err)
{
	static uint8_t bytes[OUTPUT_LOG_RECORD_MAX];
	enum output_log_stream stream;
	ssize_t n;
	while ((n = output_log_next(reader, &stream, bytes)) > 0) {
		const int result = write_full(stream == OUTPUT_LOG_STDOUT ? STDOUT_FILENO : STDERR_FILENO, bytes, (size_t)n);
		if (result < 0)
			return error_set(err, result, "writing: %s", strerror(-result));
	}
	return n < 0 ? error_set(err, (int)n, "the log is damaged: %s", strerror((int)-n)) : 0;
}

static int follow(const struct registry_entry *entry, struct output_log_reader *reader, struct error *err)
{
	char path[64], events[4096];
	const int inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", entry->folder_fd);
	if (inotify < 0 || inotify_add_watch(inotify, path, IN_MODIFY | IN_CLOSE_WRITE | IN_MOVED_TO | IN_CREATE | IN_DELETE) < 0) {
		const int result = error_set(err, -errno, "watching the log: %s", strerror(errno));
		if (inotify >= 0)
			close(inotify);
		return result;
	}
	int result;
	for (;;) {
		/* In this order: what comes before the end is printed. */
		const bool running = registry_is_running(entry);
		result = print_more(reader, err);
		if (result < 0 || !running)
			break;
		struct pollfd p[2] = { { .fd = inotify, .events = POLLIN }, { .fd = STDOUT_FILENO } };
		poll(p, 2, LOOK_EVERY_MS);
		if (p[1].revents & (POLLERR | POLLHUP))
			break; /* nobody reads any more */
		while (read(inotify, events, sizeof(events)) > 0)
			;
	}
	close(inotify);
	return result;
}

static long parse_lines(const char *text)
{
	char *end;
	errno = 0;
	const long lines = strtol(text, &end, 10);
	return isdigit((unsigned char)*text) && !*end && !errno ? lines : -1;
}

static const struct option_row options[] = {
	{ 'f', "follow", NULL, "go on until the machine ends" },
	{ 'n', "tail", "N", "only the last N lines (default: all)" },
};
static const struct cli_command command = {
	.usage = "logs [OPTIONS] NAME",
	.summary = "Print what a detached machine wrote.",
	.options = options,
	.option_count = sizeof(options) / sizeof(options[0]),
};

int cli_logs(int argc, char **argv)
{
	struct output_log_reader reader;
	struct registry_entry entry;
	struct error err = { "" };
	const char *value;
	bool following = false;
	long lines = -1;
	int id;

	optind = 0;
	while ((id = cli_next_option(argc, argv, &command, &value)) != -1) {
		if (id == 0)
			return EXIT_TRVMM;
		following |= id == 'f';
		if (id == 'n' && (lines = parse_lines(value)) < 0 && strcmp(value, "all")) {
			message("logs: --tail '%s': give a number of lines, or all", value);
			return EXIT_TRVMM;
		}
	}
	if (optind + 1 != argc)
		return cli_usage(&command);
	if (registry_find(argv[optind], &entry, &err) < 0)
		return cli_fail("logs", &err);
	if (!entry.info.detached) {
		message("logs: machine '%s' is not detached: its output went to its caller", entry.name);
		return EXIT_TRVMM;
	}
	int result = output_log_open(&reader, entry.folder_fd, lines);
	if (result < 0)
		error_set(&err, result, "the log: %s", strerror(-result));
	else
		result = following ? follow(&entry, &reader, &err) : print_more(&reader, &err);
	output_log_close(&reader);
	registry_entry_close(&entry);
	return result < 0 ? cli_fail("logs", &err) : 0;
}
