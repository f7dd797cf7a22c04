/* The root disk; see root_disk.h. */
#include "vmm/root_disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/virtio-blk/disk_ext4.h"
#include "ext4gen/cow.h"
#include "ext4gen/inspect.h"
#include "guest/agent/protocol.h"
#include "guest/copy/copy.h"
#include "vmm/guest_blobs.h"
#include "vmm/run.h"

#define PROGRAMS 2 /* our own, on every disk */

/* Layers to one tree, with our own programs on top. */
static int make_tree(const struct options *options, struct root_disk *root, struct error *err)
{
	/*
	 * The agent mounts file systems on folders that not every image has. On a disk that it can write to it makes them; on others they
	 * are there because a file is in them, which the mount hides.
	 */
	const struct layers_memory_file files[] = {
		{ .path = AGENT_PATH, .mode = 0755, .data = agent_blob, .length = BLOB_SLOT_BYTES },
		{ .path = COPY_PATH, .mode = 0755, .data = copy_blob, .length = BLOB_SLOT_BYTES },
		{ .path = "/dev/.trvmm", .data = "" },
		{ .path = "/proc/.trvmm", .data = "" },
		{ .path = "/run/.trvmm", .data = "" },
		{ .path = "/sys/.trvmm", .data = "" },
		{ .path = "/tmp/.trvmm", .data = "" },
	};

	char *fallback = options->layer_count ? NULL : data_file("busybox.tar");
	const struct layers_spec spec = {
		.paths = options->layer_count ? (const char *const *)options->layers : (const char *const[]){ fallback },
		.path_count = options->layer_count ? options->layer_count : 1,
		.added = options->added,
		.added_count = options->added_count,
		.files = files,
		.file_count = options->read_only ? sizeof(files) / sizeof(files[0]) : PROGRAMS,
		.max_layer_bytes = options->max_layer_bytes,
		.progress = true,
	};
	if (!options->layer_count && !fallback)
		return error_set(err, -ENOENT, "the default layer busybox.tar is not installed; run make, or give --layers FILE");
	const int result = layers_load_spec(&spec, &root->tree, &root->image, err);
	free(fallback);
	return result;
}

/*
 * Part of what a kept disk belongs to: what is changed here makes those that exist useless. A journal brings one that was not closed
 * back to a good state; a disk that ends with its VM never needs that.
 */
static struct ext4_options file_system_options(const struct options *options)
{
	return (struct ext4_options){
		.size_bytes = options->disk_bytes,
		.label = "trvmm",
		.journal = options->journal == FEATURE_DEFAULT ? options->rw_disk != NULL : options->journal == FEATURE_ON,
		.metadata_csum = options->metadata_csum,
	};
}

/*
 * The agent's blocks come from this program as long as the guest has not written to them. When it has, what it wrote counts: it may
 * have removed the agent and put something else there. A disk on which that happened may not start.
 */
static void check_agent(const struct root_disk *root, const char *path)
{
	const uint32_t entry = tree_lookup(root->tree, AGENT_PATH, 0);
	uint32_t index;
	struct ext4_run run;
	if (entry == TREE_NONE || !ext4_plan_runs_of(root->plan, root->tree->entries[entry].inode, &index) ||
	    !ext4_plan_run(root->plan, index, &run))
		return;
	const uint64_t begin = run.first * EXT4_BLOCK_BYTES, end = begin + run.count * EXT4_BLOCK_BYTES;
	uint64_t run_end;
	char quoted[256];
	if (cow_run(disk_ext4_cow(root->disk), begin, &run_end) != COW_BASE || run_end < end)
		message("kept disk '%s': a guest has written over " AGENT_PATH ", which trvmm starts; if this one does not start, "
			"trvmm disk diff saves what is on the disk",
			error_quote(quoted, sizeof(quoted), path, strlen(path)));
}

static int open_kept(const struct options *options, enum root_disk_use use, struct root_disk *root, struct error *err)
{
	const int result =
	    disk_ext4_open_kept(root->plan, options->rw_disk, use == ROOT_DISK_RUN ? COW_CHANGE : COW_LOOK, &root->disk, err);
	if (result == 0 && use == ROOT_DISK_RUN)
		check_agent(root, options->rw_disk);
	return result;
}

int root_disk_open(const struct options *options, enum root_disk_use use, struct root_disk *root, struct error *err)
{
	*root = (struct root_disk){ .tree = NULL };
	int result = make_tree(options, root, err);
	if (result < 0)
		return result;
	const struct ext4_options ext4 = file_system_options(options);
	result = ext4_plan_build(root->tree, &ext4, &root->plan, err);
	if (result < 0)
		return result;
	if (options->rw_disk)
		return open_kept(options, use, root, err);
	result = disk_ext4_create(root->plan, use == ROOT_DISK_LOOK || options->read_only, &root->disk);
	return result < 0 ? error_set(err, result, "the root disk: %s", strerror(-result)) : 0;
}

enum sandbox_kind disk_thread_kind(const struct tree *tree)
{
	return tree && tree_directories(tree, NULL, 0) ? SANDBOX_DISK_FILES : SANDBOX_DISK;
}

void root_disk_close(struct root_disk *root)
{
	disk_destroy(root->disk);
	ext4_plan_destroy(root->plan);
	tree_destroy(root->tree);
	image_config_free(&root->image);
	*root = (struct root_disk){ .tree = NULL };
}
