/* The initial root file system; see initramfs.h. */
#include "vmm/initramfs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "guest/agent/initramfs.h"
#include "vmm/guest_blobs.h"
#include "vmm/modules.h"

static const struct {
	const char *module;
	const char *what; /* for the message that it is missing; NULL: it may be */
} drivers[] = {
	{ "virtio_mmio", "the devices' bus" },
	{ "virtio_blk", "the root disk" },
	/* What ext4 asks the kernel's library of algorithms for when a disk is mounted; dependencies do not tell. */
	{ "crc32c_generic", NULL },
	{ "crc32c_intel", NULL },
	{ "ext4", "the root file system" },
	{ "vmw_vsock_virtio_transport", "the agent's connection" },
};
static const char shares_driver[] = "virtiofs";

static int missing(const struct modules *modules, const char *driver, const char *what, struct error *err)
{
	return error_set(err, -ENOENT, "modules '%s': there is no %s, which drives %s, and it is not built into the kernel",
			 modules->folder, driver, what);
}

static int choose(const struct modules *modules, bool shares, struct modules_list *list, struct error *err)
{
	for (size_t i = 0; i < sizeof(drivers) / sizeof(drivers[0]); i++) {
		const int result = modules_add(modules, drivers[i].module, list, err);
		if (result == -ENOENT && drivers[i].what)
			return missing(modules, drivers[i].module, drivers[i].what, err);
		if (result < 0 && result != -ENOENT)
			return result;
	}
	const int result = shares ? modules_add(modules, shares_driver, list, err) : 0;
	return result == -ENOENT ? missing(modules, shares_driver, "shares", err) : result;
}

static int check_release(const struct modules *modules, const uint8_t *module, size_t length, const char *release,
			 struct error *err)
{
	char found[128];
	modules_release_of(module, length, found, sizeof(found));
	if (!*release || !*found || !strcmp(found, release))
		return 0;
	return error_set(err, -EINVAL, "modules '%s': they are of kernel %s, but --kernel is %s; give /lib/modules/%s",
			 modules->folder, found, release, release);
}

/* Adds the modules to the archive, and a line for each to the plan. */
static int add_modules(const struct modules *modules, const struct modules_list *list, const char *release, struct cpio *archive,
		       FILE *plan, struct error *err)
{
	for (size_t i = 0; i < list->count; i++) {
		uint8_t *bytes;
		size_t length;
		int result = modules_read(modules, list, i, &bytes, &length, err);
		if (result < 0)
			return result;
		result = check_release(modules, bytes, length, release, err);
		if (result == 0) {
			/* By number and name: two folders may have files of one name, and a person may look. */
			const char *slash = memrchr(list->files[i].path, '/', list->files[i].length);
			const char *base = slash ? slash + 1 : list->files[i].path;
			const size_t base_length = list->files[i].length - (size_t)(base - list->files[i].path);
			const char *dot = memmem(base, base_length, ".ko", 3);
			char path[160];
			snprintf(path, sizeof(path), "%s/%02zu-%.*s", INITRAMFS_MODULES, i, dot ? (int)(dot - base) : 0, base);
			cpio_add(archive, path, S_IFREG | 0600, 0, bytes, length);
			fprintf(plan, "%s\n", path);
		}
		free(bytes);
		if (result < 0)
			return result;
	}
	return 0;
}

static int add_all(const struct modules *modules, const struct initramfs_spec *spec, struct cpio *archive, struct error *err)
{
	struct modules_list list = { .count = 0 };
	char *text = NULL;
	size_t length = 0;
	int result = choose(modules, spec->shares, &list, err);
	if (result < 0)
		return result;
	FILE *plan = open_memstream(&text, &length);
	if (!plan)
		return error_set(err, -ENOMEM, "out of memory");
	fprintf(plan, "%s %s %s %s %s\n", spec->read_only ? "ro" : "rw", spec->root.source, spec->root.type, spec->root.init,
		spec->root.data);
	cpio_add(archive, "/dev", S_IFDIR | 0755, 0, NULL, 0);
	cpio_add(archive, "/dev/console", S_IFCHR | 0600, makedev(5, 1), NULL, 0);
	cpio_add(archive, INITRAMFS_ROOT, S_IFDIR | 0755, 0, NULL, 0);
	cpio_add(archive, INITRAMFS_MODULES, S_IFDIR | 0700, 0, NULL, 0);
	cpio_add(archive, INITRAMFS_INIT, S_IFREG | 0700, 0, agent_blob, BLOB_SLOT_BYTES);
	result = add_modules(modules, &list, spec->release, archive, plan, err);
	const bool whole = fclose(plan) == 0;
	if (result == 0 && (!whole || length >= INITRAMFS_PLAN_BYTES))
		result = error_set(err, -ENOMEM, "the initial root file system: its plan is too long");
	if (result == 0) {
		cpio_add(archive, INITRAMFS_PLAN, S_IFREG | 0600, 0, text, length);
		result = cpio_finish(archive);
		if (result < 0)
			error_set(err, result, "the initial root file system: %s", strerror(-result));
	}
	free(text);
	return result;
}

int initramfs_build(const struct initramfs_spec *spec, struct cpio *archive, struct error *err)
{
	struct modules modules;
	*archive = (struct cpio){ .bytes = NULL };
	int result = modules_open(&modules, spec->modules, err);
	if (result == 0)
		result = add_all(&modules, spec, archive, err);
	modules_close(&modules);
	return result;
}
