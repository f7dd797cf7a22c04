/* The stages of a start; see timeline.h. */
#include "vmm/timeline.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#define MARKS_MAX 32

/* One process runs one VM: the table is the process's. */
static struct {
	const char *stage;
	int64_t ns;
} marks[MARKS_MAX];
static atomic_uint mark_count;

void timeline_mark_at(const char *stage, int64_t ns)
{
	const unsigned index = atomic_fetch_add(&mark_count, 1);
	if (index >= MARKS_MAX)
		return;
	marks[index].ns = ns;
	marks[index].stage = stage;
}

void timeline_mark(const char *stage)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	timeline_mark_at(stage, now.tv_sec * 1000000000ll + now.tv_nsec);
}

int timeline_open(const char *path)
{
	const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	return fd < 0 ? -errno : fd;
}

int timeline_write(int fd)
{
	FILE *file = fdopen(fd, "w");
	if (!file)
		return -errno;
	const unsigned count = atomic_load(&mark_count);
	for (unsigned i = 0; i < count && i < MARKS_MAX; i++)
		if (marks[i].stage)
			fprintf(file, "%lld %s\n", (long long)marks[i].ns, marks[i].stage);
	return fclose(file) ? -errno : 0;
}
