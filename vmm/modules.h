/*
 * A kernel's modules, as they lie in /lib/modules/VERSION: which there are and which need which (modules.dep, modules.builtin; depmod(8)),
 * and their contents, unpacked (.ko, .ko.gz, .ko.xz, .ko.zst).
 *
 * Names are those of modinfo, with underscores. The files are read, not believed: paths that lead out of the directory are refused.
 */
#ifndef TRVMM_VMM_MODULES_H
#define TRVMM_VMM_MODULES_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

#define MODULES_LIST_MAX 64

struct modules {
	int folder_fd; /* owned */
	char *folder; /* owned: its name, quoted for messages */
	char *dep; /* owned: modules.dep */
	char *builtin; /* owned: modules.builtin */
};

/* Paths in the directory in the order of loading, each once. They lie in modules.dep. */
struct modules_list {
	struct {
		const char *path;
		size_t length;
	} files[MODULES_LIST_MAX];
	size_t count;
};

/* Opens the directory `path`. Returns 0, or -errno with one line; modules_close() is due in either case. */
int modules_open(struct modules *modules, const char *path, struct error *err);
void modules_close(struct modules *modules);

/*
 * Adds module `name` to the list, behind those that it needs. Returns 0, also when it is built into the kernel; -ENOENT without a line when
 * there is none; or -errno with one line.
 */
int modules_add(const struct modules *modules, const char *name, struct modules_list *list, struct error *err);

/* Reads and unpacks the file at `index` of the list. The caller frees `*bytes`. Returns 0, or -errno with one line. */
int modules_read(const struct modules *modules, const struct modules_list *list, size_t index, uint8_t **bytes, size_t *length,
		 struct error *err);

/* The version of the kernel that a module (unpacked) was built for: the first word of its vermagic; "" when it has none. */
void modules_release_of(const uint8_t *bytes, size_t length, char *release, size_t release_size);

#endif
