/* Where trvmm's own files are; see run.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vmm/run.h"

static char *if_there(const char *directory, const char *middle, const char *name)
{
	char *path;
	if (asprintf(&path, "%s/%s%s", directory, middle, name) < 0)
		return NULL;
	if (access(path, F_OK) == 0)
		return path;
	free(path);
	return NULL;
}

char *data_file(const char *name)
{
	char self[4096];
	const char *directory = getenv("TRVMM_DATA");

	if (directory && *directory)
		return if_there(directory, "", name);
	const ssize_t length = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (length <= 0)
		return NULL;
	self[length] = '\0';
	char *slash = strrchr(self, '/');
	if (!slash)
		return NULL;
	*slash = '\0';
	char *path = if_there(self, "guest/", name);
	return path ? path : if_there(self, "../share/trvmm/", name);
}
