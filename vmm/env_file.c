/* Files of environment variables; see env_file.h. */
#include "vmm/env_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BLANKS " \t"
#define BYTE_ORDER_MARK "\xef\xbb\xbf"

/* Reads all of it, also from a pipe. Returns it with a 0 byte behind it, to be freed; or NULL with a line, and -errno in `result`. */
static char *read_all(const char *path, size_t *length, int *result, struct error *err)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC);
	char *bytes = fd < 0 ? NULL : malloc(ENV_FILE_BYTES_MAX + 1);
	size_t used = 0;
	ssize_t n = bytes ? 1 : -1;
	while (n > 0 && used <= ENV_FILE_BYTES_MAX) {
		n = read(fd, bytes + used, ENV_FILE_BYTES_MAX + 1 - used);
		if (n > 0)
			used += (size_t)n;
		else if (n < 0 && errno == EINTR)
			n = 1;
	}
	const int error = errno;
	if (fd >= 0)
		close(fd);
	if (bytes && n == 0) {
		bytes[used] = '\0';
		*length = used;
		return bytes;
	}
	free(bytes);
	if (n < 0)
		*result = error_set(err, -error, "--env-file %s: %s", path, strerror(error));
	else
		*result = error_set(err, -EINVAL, "--env-file %s: longer than %u KiB; is it a file of variables?", path,
				    ENV_FILE_BYTES_MAX >> 10);
	return NULL;
}

/* One line, terminated and without its end. `length` tells of a 0 byte in it. */
static int take_line(char *line, size_t length, env_file_taker *take, void *data, struct error *err)
{
	const char *name = line + strspn(line, BLANKS);
	const size_t name_length = strcspn(name, "=");
	if (strlen(line) != length)
		return error_set(err, -EINVAL, "a 0 byte; write text");
	if (!*name || *name == '#')
		return 0;
	if (!name_length)
		return error_set(err, -EINVAL, "no name before the =; write NAME=VALUE or NAME");
	if (strcspn(name, BLANKS) < name_length) {
		char quoted[128];
		return error_set(err, -EINVAL, "blanks in the name '%s'; write NAME=VALUE or NAME",
				 error_quote(quoted, sizeof(quoted), name, name_length));
	}
	if (name[name_length])
		return take(data, name, err);
	const char *value = getenv(name);
	if (!value)
		return 0;
	char *variable;
	if (asprintf(&variable, "%s=%s", name, value) < 0)
		return error_set(err, -ENOMEM, "out of memory");
	const int result = take(data, variable, err);
	free(variable);
	return result;
}

int env_file_read(const char *path, env_file_taker *take, void *data, struct error *err)
{
	size_t length;
	int result = 0;
	char *text = read_all(path, &length, &result, err);
	if (!text)
		return result;
	char *at = text;
	const char *end = text + length;
	if (!strncmp(at, BYTE_ORDER_MARK, strlen(BYTE_ORDER_MARK)))
		at += strlen(BYTE_ORDER_MARK);
	for (unsigned number = 1; result == 0 && at < end; number++) {
		char *newline = memchr(at, '\n', (size_t)(end - at));
		size_t line_length = (size_t)((newline ? newline : end) - at);
		char *next = newline ? newline + 1 : at + line_length;
		if (newline && line_length && at[line_length - 1] == '\r')
			line_length--;
		at[line_length] = '\0';
		result = number > ENV_FILE_LINES_MAX ? error_set(err, -EINVAL, "more than %u lines", ENV_FILE_LINES_MAX)
						     : take_line(at, line_length, take, data, err);
		if (result < 0)
			error_prefix(err, result, "--env-file %s: line %u", path, number);
		at = next;
	}
	free(text);
	return result;
}
