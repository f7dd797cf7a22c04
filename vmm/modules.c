/* A kernel's modules; see modules.h. */
#include "vmm/modules.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/iov.h"
#include "vmm/unpack.h"

#define TABLE_BYTES_MAX (64u << 20)
#define MODULE_BYTES_MAX (64u << 20)

/* ---- files of the directory -------------------------------------------------------------------------------------------------- */

/* Reads all of `fd`, a 0 byte behind it. Returns 0 or -errno: -EFBIG over the limit. */
static int read_all(int fd, size_t limit, uint8_t **bytes, size_t *length)
{
	struct stat st;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	if ((uint64_t)st.st_size > limit)
		return -EFBIG;
	const size_t size = (size_t)st.st_size;
	uint8_t *buffer = malloc(size + 1);
	if (!buffer)
		return -ENOMEM;
	const int result = pread_full(fd, buffer, size, 0);
	if (result < 0) {
		free(buffer);
		return result;
	}
	buffer[size] = 0;
	*bytes = buffer;
	*length = size;
	return 0;
}

/* A table of lines, as a string. What is behind a 0 byte in it does not count. */
static int read_table(int folder_fd, const char *name, char **table)
{
	uint8_t *bytes = NULL;
	size_t length = 0;
	const int fd = openat(folder_fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	const int result = read_all(fd, TABLE_BYTES_MAX, &bytes, &length);
	close(fd);
	if (result == 0)
		*table = (char *)bytes;
	return result;
}

int modules_open(struct modules *modules, const char *path, struct error *err)
{
	char name[256];
	*modules = (struct modules){ .folder_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) };
	error_quote(name, sizeof(name), path, strlen(path));
	if (modules->folder_fd < 0)
		return error_set(err, -errno, "modules '%s': %s", name, strerror(errno));
	modules->folder = strdup(name);
	if (!modules->folder)
		return error_set(err, -ENOMEM, "out of memory");
	int result = read_table(modules->folder_fd, "modules.dep", &modules->dep);
	if (result == -ENOENT)
		return error_set(err, result,
				 "modules '%s': there is no modules.dep; give a /lib/modules/VERSION, or run depmod for it", name);
	if (result < 0)
		return error_set(err, result, "modules '%s': modules.dep: %s", name, strerror(-result));
	result = read_table(modules->folder_fd, "modules.builtin", &modules->builtin);
	return result < 0 && result != -ENOENT
		   ? error_set(err, result, "modules '%s': modules.builtin: %s", name, strerror(-result))
		   : 0;
}

void modules_close(struct modules *modules)
{
	if (modules->folder_fd >= 0)
		close(modules->folder_fd);
	free(modules->folder);
	free(modules->dep);
	free(modules->builtin);
	*modules = (struct modules){ .folder_fd = -1 };
}

/* ---- names ------------------------------------------------------------------------------------------------------------------- */

/* Whether the file at `path` is module `name`: its last part up to ".ko", where '-' is as good as '_'. */
static bool is_module(const char *path, size_t length, const char *name)
{
	const char *slash = memrchr(path, '/', length);
	const char *base = slash ? slash + 1 : path;
	const size_t base_length = length - (size_t)(base - path), name_length = strlen(name);
	if (base_length < name_length + 3 || memcmp(base + name_length, ".ko", 3))
		return false;
	for (size_t i = 0; i < name_length; i++)
		if ((base[i] == '-' ? '_' : base[i]) != name[i])
			return false;
	return base_length == name_length + 3 || base[name_length + 3] == '.';
}

/* The first line of `table` whose path (up to `end`, if that is in it) is module `name`; NULL: none. */
static const char *find_line(const char *table, const char *end, const char *name, size_t *path_length)
{
	for (const char *line = table; line && *line; line = strchr(line, '\n'), line += line != NULL) {
		*path_length = strcspn(line, end);
		if (is_module(line, *path_length, name))
			return line;
	}
	return NULL;
}

/* ---- the list ---------------------------------------------------------------------------------------------------------------- */

static bool path_is_inside(const char *path, size_t length)
{
	return length && path[0] != '/' && !memmem(path, length, "..", 2);
}

static int append(const struct modules *modules, const char *path, size_t length, struct modules_list *list, struct error *err)
{
	for (size_t i = 0; i < list->count; i++)
		if (list->files[i].length == length && !memcmp(list->files[i].path, path, length))
			return 0;
	if (!path_is_inside(path, length))
		return error_set(err, -EINVAL, "modules '%s': modules.dep has a path that leads out of the directory",
				 modules->folder);
	if (list->count == MODULES_LIST_MAX)
		return error_set(err, -E2BIG, "modules '%s': the drivers need more than %d modules", modules->folder,
				 MODULES_LIST_MAX);
	list->files[list->count].path = path;
	list->files[list->count++].length = length;
	return 0;
}

int modules_add(const struct modules *modules, const char *name, struct modules_list *list, struct error *err)
{
	size_t path_length;
	const char *line = find_line(modules->dep, ":\n", name, &path_length);
	if (!line || line[path_length] != ':')
		return modules->builtin && find_line(modules->builtin, "\n", name, &path_length) ? 0 : -ENOENT;
	/* depmod lists all that are needed, directly or not, the one to load first last. */
	const char *needed = line + path_length + 1;
	size_t left = strcspn(needed, "\n");
	while (left) {
		const char *blank = memrchr(needed, ' ', left);
		const char *path = blank ? blank + 1 : needed;
		const size_t length = left - (size_t)(path - needed);
		const int result = length ? append(modules, path, length, list, err) : 0;
		if (result < 0)
			return result;
		left = blank ? (size_t)(blank - needed) : 0;
	}
	return append(modules, line, path_length, list, err);
}

/* ---- contents ---------------------------------------------------------------------------------------------------------------- */

/* Replaces `*bytes` by what they unpack to. */
static int unpack(uint8_t **bytes, size_t *length, struct error *err)
{
	const int fd = memfd_create("trvmm-module", MFD_CLOEXEC);
	if (fd < 0)
		return error_set(err, -errno, "a memory file: %s", strerror(errno));
	const int64_t unpacked = unpack_to_fd(*bytes, *length, fd, MODULE_BYTES_MAX, err);
	uint8_t *plain = NULL;
	int result = unpacked < 0 ? (int)unpacked : read_all(fd, MODULE_BYTES_MAX, &plain, length);
	close(fd);
	if (result < 0)
		return unpacked < 0 ? result : error_set(err, result, "%s", strerror(-result));
	free(*bytes);
	*bytes = plain;
	return 0;
}

static bool is_elf(const uint8_t *bytes, size_t length)
{
	return bytes && length >= 4 && !memcmp(bytes, "\177ELF", 4);
}

int modules_read(const struct modules *modules, const struct modules_list *list, size_t index, uint8_t **bytes, size_t *length,
		 struct error *err)
{
	char name[256];
	uint8_t *data = NULL;
	char *path = strndup(list->files[index].path, list->files[index].length);
	if (!path)
		return error_set(err, -ENOMEM, "out of memory");
	error_quote(name, sizeof(name), path, strlen(path));
	const int fd = openat(modules->folder_fd, path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	free(path);
	int result = fd < 0 ? -errno : read_all(fd, MODULE_BYTES_MAX, &data, length);
	if (fd >= 0)
		close(fd);
	if (result < 0)
		error_set(err, result, "%s", strerror(-result));
	else if (!is_elf(data, *length))
		result = unpack(&data, length, err);
	if (result == 0 && !is_elf(data, *length))
		result = error_set(err, -ENOEXEC, "is no kernel module");
	if (result < 0) {
		free(data);
		return error_prefix(err, result, "modules '%s': %s", modules->folder, name);
	}
	*bytes = data;
	return 0;
}

void modules_release_of(const uint8_t *bytes, size_t length, char *release, size_t release_size)
{
	static const char key[] = "vermagic=";
	const uint8_t *at = memmem(bytes, length, key, strlen(key));
	size_t used = 0;
	if (at) {
		at += strlen(key);
		while (at + used < bytes + length && at[used] > ' ' && at[used] < 0x7f && used + 1 < release_size)
			used++;
		memcpy(release, at, used);
	}
	release[used] = '\0';
}
