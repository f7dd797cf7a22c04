/* The stages of a start; see timeline.h. */
#include "vmm/timeline.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#define MARKS_MAX 32

/* One process runs one VM: the table is the process's. */
static struct {
	const char *stage;
	struct timespec at;
} marks[MARKS_MAX];
static atomic_uint mark_count;

void timeline_mark(const char *stage)
{
	const unsigned index = atomic_fetch_add(&mark_count, 1);
	if (index >= MARKS_MAX)
		return;
	clock_gettime(CLOCK_MONOTONIC, &marks[index].at);
	marks[index].stage = stage;
}

int timeline_write(const char *path)
{
	FILE *file = fopen(path, "we");
	if (!file)
		return -errno;
	const unsigned count = atomic_load(&mark_count);
	for (unsigned i = 0; i < count && i < MARKS_MAX; i++)
		if (marks[i].stage)
			fprintf(file, "%lld %s\n", marks[i].at.tv_sec * 1000000000ll + marks[i].at.tv_nsec, marks[i].stage);
	return fclose(file) ? -errno : 0;
}
