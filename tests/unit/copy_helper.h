/* What the tests of guest/copy share: a folder of their own as the working directory, streams made by hand. */
#ifndef TRVMM_TESTS_COPY_HELPER_H
#define TRVMM_TESTS_COPY_HELPER_H

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "guest/copy/copy.h"

static char folder[64]; /* the working directory of a test */
static struct copy_problem problem;

static inline void run(const char *command)
{
	cr_assert(system(command) == 0, "%s", command);
}

static inline void set_up(void)
{
	strcpy(folder, "/tmp/trvmm-copy-XXXXXX");
	cr_assert(mkdtemp(folder) && chdir(folder) == 0);
	umask(022);
	signal(SIGPIPE, SIG_IGN);
}

static inline void clean_up(void)
{
	char command[256];
	cr_assert(chdir("/") == 0);
	snprintf(command, sizeof(command), "chmod -R u+rwx %s; rm -rf %s", folder, folder);
	run(command);
}

struct stream {
	uint8_t bytes[65536];
	size_t length;
};

static inline void add(struct stream *stream, enum copy_kind kind, unsigned mode, const char *path, const char *link,
		       const char *contents)
{
	const struct copy_header header = { .kind = le32_make(kind),
					    .mode = le32_make(mode),
					    .path_bytes = le16_make((uint16_t)strlen(path)),
					    .link_bytes = le16_make((uint16_t)strlen(link)),
					    .size_bytes = le64_make(strlen(contents)) };
	const struct copy_part part = { .data_bytes = le64_make(strlen(contents)) };
	const struct {
		const void *bytes;
		size_t length;
	} parts[] = { { &header, sizeof(header) },
		      { path, strlen(path) },
		      { link, strlen(link) },
		      { &part, *contents ? sizeof(part) : 0 },
		      { contents, strlen(contents) } };
	for (size_t i = 0; i < 5; i++) {
		memcpy(stream->bytes + stream->length, parts[i].bytes, parts[i].length);
		stream->length += parts[i].length;
	}
}

#define DIRECTORY (S_IFDIR | 0755)
#define FILE_MODE (S_IFREG | 0644)

static inline struct stream in_directory(void)
{
	struct stream stream = { .length = 0 };
	add(&stream, COPY_ENTRY, DIRECTORY, "", "", "");
	return stream;
}

#endif
