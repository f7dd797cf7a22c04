/* File systems in the guest's memory; see tmpfs.h. */
#include "vmm/tmpfs.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vmm/options.h"

#define MODE_DEFAULT 01777u
#define FOLDER_BYTES_MAX 4095u /* Linux's PATH_MAX without the 0 byte */

/* What --tmpfs says of one file system. */
struct wanted {
	uint64_t size_bytes; /* 0: the kernel's default */
	unsigned mode;
};

static bool parse_mode(const char *text, unsigned *mode)
{
	const size_t length = strlen(text);
	if (!length || length > 5 || strspn(text, "01234567") != length)
		return false;
	*mode = (unsigned)strtoul(text, NULL, 8);
	return *mode <= 07777;
}

/* One "NAME=VALUE", cut out of its list. */
static bool parse_option(const char *option, struct wanted *wanted)
{
	if (!strncmp(option, "size=", 5))
		return options_parse_size(option + 5, &wanted->size_bytes) == 0 && wanted->size_bytes;
	return !strncmp(option, "mode=", 5) && parse_mode(option + 5, &wanted->mode);
}

/* "," between them; `list` is changed. */
static bool parse_options(char *list, struct wanted *wanted)
{
	for (char *at = list; at;) {
		char *comma = strchr(at, ',');
		if (comma)
			*comma++ = '\0';
		if (!parse_option(at, wanted))
			return false;
		at = comma;
	}
	return true;
}

static bool has_dot_dot(const char *path)
{
	for (const char *at = path; at; at = strchr(at, '/')) {
		at += strspn(at, "/");
		if (!strncmp(at, "..", 2) && (at[2] == '/' || !at[2]))
			return true;
	}
	return false;
}

/* What mount(2) gets. NULL: out of memory. */
static char *make_data(const struct wanted *wanted)
{
	char text[64];
	const int used = snprintf(text, sizeof(text), "mode=%o", wanted->mode);
	if (wanted->size_bytes)
		snprintf(text + used, sizeof(text) - (size_t)used, ",size=%llu", (unsigned long long)wanted->size_bytes);
	return strdup(text);
}

int tmpfs_parse(const char *argument, struct session_tmpfs *tmpfs, struct error *err)
{
	struct wanted wanted = { .mode = MODE_DEFAULT };
	const size_t length = strcspn(argument, ":");
	if (argument[0] != '/' || strspn(argument, "/") == length || length > FOLDER_BYTES_MAX)
		return error_set(err, -EINVAL,
				 "--tmpfs '%s': give the path of a folder below /, and what is wanted: /cache:size=64M", argument);
	char *folder = strdup(argument);
	if (!folder)
		return error_set(err, -ENOMEM, "out of memory");
	const bool has_options = folder[length];
	folder[length] = '\0';
	if (has_dot_dot(folder)) {
		free(folder);
		return error_set(err, -EINVAL, "--tmpfs '%s': give a path without ..", argument);
	}
	if (has_options && !parse_options(folder + length + 1, &wanted)) {
		free(folder);
		return error_set(err, -EINVAL, "--tmpfs '%s': give size=SIZE and mode=OCTAL, as in /cache:size=64M,mode=755",
				 argument);
	}
	char *data = make_data(&wanted);
	if (!data) {
		free(folder);
		return error_set(err, -ENOMEM, "out of memory");
	}
	*tmpfs = (struct session_tmpfs){ .folder = folder, .data = data };
	return 0;
}

void tmpfs_destroy(struct session_tmpfs *tmpfs)
{
	free((void *)(uintptr_t)tmpfs->folder);
	free((void *)(uintptr_t)tmpfs->data);
	*tmpfs = (struct session_tmpfs){ .folder = NULL };
}
