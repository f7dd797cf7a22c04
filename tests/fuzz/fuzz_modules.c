/*
 * libFuzzer target: modules.dep and modules.builtin (behind the first 0 byte). Checked: a list has each path once, none leads out of the
 * directory, all lie in the table; a refusal has one line, unless the module is not there. Then the input as a module, for its version.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/fuzz/require.h"
#include "vmm/modules.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_list(const struct modules *modules, const struct modules_list *list)
{
	const char *end = modules->dep + strlen(modules->dep);
	for (size_t i = 0; i < list->count; i++) {
		const char *path = list->files[i].path;
		const size_t length = list->files[i].length;
		REQUIRE(length && path >= modules->dep && path + length <= end);
		REQUIRE(path[0] != '/' && !memmem(path, length, "..", 2) && !memchr(path, '\n', length));
		for (size_t k = 0; k < i; k++)
			REQUIRE(list->files[k].length != length || memcmp(list->files[k].path, path, length) != 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const names[] = { "ext4", "virtio_blk", "a" };
	static char folder[] = "folder";
	char *tables = malloc(size + 2), release[16];
	REQUIRE(tables);
	if (size)
		memcpy(tables, data, size);
	tables[size] = tables[size + 1] = '\0';
	struct modules modules = { .folder_fd = -1, .folder = folder, .dep = tables, .builtin = tables + strlen(tables) };
	if (modules.builtin < tables + size)
		modules.builtin++;
	struct modules_list list = { .count = 0 };
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		struct error err = { "" };
		const int result = modules_add(&modules, names[i], &list, &err);
		REQUIRE((result == 0 || result == -ENOENT) == (err.text[0] == '\0'));
		check_list(&modules, &list);
	}
	modules_release_of(data, size, release, sizeof(release));
	REQUIRE(strlen(release) < sizeof(release) && !strchr(release, ' '));
	free(tables);
	return 0;
}
