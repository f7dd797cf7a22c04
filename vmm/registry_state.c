/* NAME/state: the lock, and two lines of JSON; see registry.h. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/iov.h"
#include "vmm/registry_internal.h"

#define STATE_BYTES_MAX 8192
#define EXIT_KILLED (128 + 9)

/* Locks of open file descriptions: held by all that share the descriptor, asked for without taking them. (l_pid must be 0.) */
static struct flock whole_file(short type)
{
	return (struct flock){ .l_type = type, .l_whence = SEEK_SET };
}

int registry_state_lock(int state_fd)
{
	struct flock lock = whole_file(F_WRLCK);
	return fcntl(state_fd, F_OFD_SETLK, &lock) < 0 ? -errno : 0;
}

bool registry_state_is_locked(int state_fd)
{
	/* A reader's lock is that of somebody who waits: no conflict. */
	struct flock lock = whole_file(F_RDLCK);
	return fcntl(state_fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

int registry_state_wait(int state_fd)
{
	struct flock lock = whole_file(F_RDLCK);
	while (fcntl(state_fd, F_OFD_SETLKW, &lock) < 0)
		if (errno != EINTR)
			return -errno;
	lock = whole_file(F_UNLCK);
	return fcntl(state_fd, F_OFD_SETLK, &lock) < 0 ? -errno : 0;
}

/*
 * One line: a reader sees all of it, or, without its end, none. The text goes into memory of ours, as jansson leaves bytes out when a
 * string of its own cannot grow.
 */
static int write_line(int fd, json_t *json)
{
	const size_t length = json ? json_dumpb(json, NULL, 0, JSON_COMPACT) : 0;
	char *line = length ? malloc(length + 1) : NULL;
	int error = -ENOMEM;
	if (line && json_dumpb(json, line, length, JSON_COMPACT) == length) {
		line[length] = '\n';
		error = write_full(fd, line, length + 1);
	}
	free(line);
	json_decref(json);
	return error;
}

int registry_state_write_info(int state_fd, const struct registry_info *info)
{
	return write_line(state_fd,
			  json_pack("{s:i, s:I, s:b, s:b, s:i, s:I, s:s}", "pid", (int)info->pid, "started",
				    (json_int_t)info->started_s, "detached", info->detached, "remove", info->remove, "cpus",
				    (int)info->cpus, "memory", (json_int_t)info->memory_bytes, "command", info->command));
}

int registry_state_write_end(int state_fd, const struct registry_end *end)
{
	return write_line(state_fd, json_pack("{s:i, s:I, s:s}", "exit_code", end->exit_code, "ended", (json_int_t)end->ended_s,
					      "text", end->text));
}

/* Printable ASCII of any length becomes text that fits. */
static void copy_text(char *to, size_t size, const char *from)
{
	size_t i = 0;
	for (; from[i] && i + 1 < size; i++)
		to[i] = from[i] >= 0x20 && from[i] < 0x7f ? from[i] : '?';
	to[i] = '\0';
}

static int parse_info(const char *line, size_t length, struct registry_info *info)
{
	int pid, detached, remove, cpus;
	json_int_t started, memory;
	const char *command;
	json_t *json = json_loadb(line, length, JSON_REJECT_DUPLICATES, NULL);
	const int bad =
	    !json || json_unpack(json, "{s:i, s:I, s:b, s:b, s:i, s:I, s:s}", "pid", &pid, "started", &started, "detached",
				 &detached, "remove", &remove, "cpus", &cpus, "memory", &memory, "command", &command) < 0;
	if (!bad) {
		*info = (struct registry_info){ .pid = pid,
						.started_s = started,
						.detached = detached,
						.remove = remove,
						.cpus = (unsigned)cpus,
						.memory_bytes = (uint64_t)memory };
		copy_text(info->command, sizeof(info->command), command);
	}
	json_decref(json);
	return bad || pid <= 0 || cpus < 0 || memory < 0 || started < 0 ? -EBADMSG : 0;
}

static bool parse_end(const char *line, size_t length, struct registry_end *end)
{
	int exit_code;
	json_int_t ended;
	const char *text;
	json_t *json = json_loadb(line, length, JSON_REJECT_DUPLICATES, NULL);
	const bool good = json &&
			  json_unpack(json, "{s:i, s:I, s:s}", "exit_code", &exit_code, "ended", &ended, "text", &text) == 0 &&
			  exit_code >= 0 && exit_code <= 255 && ended >= 0;
	if (good) {
		*end = (struct registry_end){ .exit_code = exit_code, .ended_s = ended };
		copy_text(end->text, sizeof(end->text), text);
	}
	json_decref(json);
	return good;
}

int registry_state_read(int state_fd, struct registry_info *info, struct registry_end *end, bool *has_end)
{
	char text[STATE_BYTES_MAX];
	const ssize_t n = pread_up_to(state_fd, text, sizeof(text), 0);
	if (n < 0)
		return (int)n;
	const char *newline = memchr(text, '\n', (size_t)n);
	if (!newline || parse_info(text, (size_t)(newline - text), info) < 0)
		return -EBADMSG;
	const char *second = newline + 1;
	const size_t left = (size_t)(text + n - second);
	newline = memchr(second, '\n', left);
	*has_end = newline && parse_end(second, (size_t)(newline - second), end);
	if (!*has_end)
		*end = (struct registry_end){ .exit_code = EXIT_KILLED };
	return 0;
}
