/* The disks of --disk; see extra_disks.h. */
#include "vmm/extra_disks.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/thread.h"
#include "devices/virtio-blk/disk_ext4.h"
#include "devices/virtio-blk/disk_nbd.h"
#include "devices/virtio-blk/disk_raw.h"
#include "vmm/root_disk.h"

#define LAYERS_PREFIX "layers="
#define READ_ONLY_SUFFIX ":ro"

static int open_layers(struct extra_disk *extra, const struct options *options, const char *list, bool read_only, struct error *err)
{
	struct options layers = { .layer_count = 0 };
	int rc = options_add_layers(&layers, list, err);
	if (rc == -EINVAL)
		rc = error_set(err, rc, "--disk 'layers=%s': an empty name; give layers=FILE[,FILE...]", list);
	const struct layers_spec spec = {
		.paths = (const char *const *)layers.layers,
		.path_count = layers.layer_count,
		.max_layer_bytes = options->max_layer_bytes,
		.progress = true,
	};
	if (rc == 0)
		rc = layers_load_spec(&spec, &extra->tree, NULL, err);
	options_destroy(&layers);
	const struct ext4_options none = { .size_bytes = 0 };
	if (rc == 0)
		rc = ext4_plan_build(extra->tree, &none, &extra->plan, err);
	if (rc < 0)
		return rc;
	rc = disk_ext4_create(extra->plan, read_only, &extra->disk);
	return rc < 0 ? error_set(err, rc, "%s", strerror(-rc)) : 0;
}

/* The NBD client lies beside this program. */
static int open_nbd(struct extra_disk *extra, const struct options *options, const char *uri, bool read_only, struct error *err)
{
	const char *sandbox = options->no_sandbox ? "--no-sandbox" : options->sandbox_log ? "--sandbox-log" : "--sandbox";
	char path[PATH_MAX];
	const ssize_t length = readlink("/proc/self/exe", path, sizeof(path) - sizeof("trvmm-nbd"));
	if (length < 0)
		return error_set(err, -errno, "finding this program: %s", strerror(errno));
	path[length] = '\0';
	strcpy(strrchr(path, '/') + 1, "trvmm-nbd");
	return disk_nbd_open(path, sandbox, uri, read_only, &extra->disk, err);
}

/* One SPEC[:ro]. */
static int open_one(struct extra_disk *extra, const struct options *options, const char *spec, struct error *err)
{
	const size_t length = strlen(spec), suffix = strlen(READ_ONLY_SUFFIX);
	const bool read_only = length > suffix && !strcmp(spec + length - suffix, READ_ONLY_SUFFIX);
	char *what = strndup(spec, read_only ? length - suffix : length);
	if (!what)
		return error_set(err, -ENOMEM, "out of memory");
	int rc;
	if (!strncmp(what, LAYERS_PREFIX, strlen(LAYERS_PREFIX)))
		rc = open_layers(extra, options, what + strlen(LAYERS_PREFIX), read_only, err);
	else if (disk_nbd_is_uri(what))
		rc = open_nbd(extra, options, what, read_only, err);
	else
		rc = disk_raw_open(what, read_only, &extra->disk, err);
	free(what);
	return rc;
}

int extra_disks_open(const struct options *options, struct extra_disks *all, struct error *err)
{
	*all = (struct extra_disks){ NULL, 0 };
	if (options->disk_count == 0)
		return 0;
	all->disks = calloc(options->disk_count, sizeof(*all->disks));
	if (!all->disks)
		return error_set(err, -ENOMEM, "out of memory");
	for (; all->count < options->disk_count; all->count++) {
		struct extra_disk *extra = &all->disks[all->count];
		const int rc = open_one(extra, options, options->disks[all->count], err);
		if (rc < 0) {
			all->count++;
			return rc;
		}
		assert(extra->disk);
		/* What the guest sees as its serial number; the root disk's is another. */
		memset(extra->disk->id, 0, sizeof(extra->disk->id));
		snprintf(extra->disk->id, sizeof(extra->disk->id), "trvmm-disk-%zu", all->count + 1);
		if (extra->plan && options->disk_quota_bytes && !extra->disk->read_only)
			disk_ext4_set_quota(extra->disk, options->disk_quota_bytes);
	}
	return 0;
}

int extra_disks_attach(struct extra_disks *all, struct machine *machine, const struct throttle_limit *limit, struct error *err)
{
	for (size_t i = 0; i < all->count; i++) {
		struct extra_disk *extra = &all->disks[i];
		extra->loop = loop_create();
		if (!extra->loop)
			return error_set(err, -errno, "epoll: %s", strerror(errno));
		int rc = virtio_blk_create(extra->loop, machine_mem(machine), extra->disk, &extra->blk);
		if (rc < 0)
			return error_set(err, rc, "creating a disk's device: %s", strerror(-rc));
		virtio_blk_set_limit(extra->blk, limit);
		rc = machine_attach(machine, virtio_blk_device(extra->blk), err);
		if (rc < 0)
			return rc;
	}
	return 0;
}

static void *disk_thread(void *data)
{
	const struct extra_disk *extra = data;
	sandbox_enter(disk_thread_kind(extra->tree));
	loop_run(extra->loop);
	return NULL;
}

int extra_disks_start(struct extra_disks *all, struct error *err)
{
	for (size_t i = 0; i < all->count; i++) {
		pthread_t thread;
		const int rc = thread_start(&thread, disk_thread, &all->disks[i]);
		if (rc < 0)
			return error_set(err, rc, "starting a disk's thread: %s", strerror(-rc));
	}
	return 0;
}

bool extra_disks_are_kept(const struct extra_disks *all)
{
	for (size_t i = 0; i < all->count; i++)
		if (!all->disks[i].disk->read_only && !all->disks[i].plan)
			return true;
	return false;
}

void extra_disks_close(struct extra_disks *all)
{
	for (size_t i = 0; i < all->count; i++) {
		struct extra_disk *extra = &all->disks[i];
		virtio_blk_destroy(extra->blk);
		loop_destroy(extra->loop);
		disk_destroy(extra->disk);
		ext4_plan_destroy(extra->plan);
		tree_destroy(extra->tree);
	}
	free(all->disks);
	*all = (struct extra_disks){ NULL, 0 };
}
