/* `trvmm disk inspect`: what is on the root disk, as text, JSON or a map. */
#include "vmm/cli/disk_inspect.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "base/new_file.h"
#include "devices/virtio-blk/disk_ext4.h"
#include "ext4gen/ext4_disk.h"
#include "vmm/cli/disk.h"

typedef unsigned long long ull;

struct inspect_options {
	const char *svg, *block;
	bool json, help;
};

static const struct option_row rows[] = {
	{ OPTION_OWN, "json", NULL, "as JSON" },
	{ OPTION_OWN + 1, "svg", "FILE", "draw the map of the disk, instead of the listing" },
	{ OPTION_OWN + 2, "block", "N", "what lies in block N, instead of the listing" },
	DISK_HELP_ROW,
};
#define ROWS (sizeof(rows) / sizeof(rows[0]))

static int take_option(void *data, int id, const char *argument, struct error *err)
{
	struct inspect_options *own = data;
	if (id == OPTION_OWN)
		own->json = true;
	else if (id == 'h')
		own->help = true;
	else if (id == OPTION_OWN + 2)
		own->block = argument;
	else if (!*argument)
		return error_set(err, -EINVAL, "--svg '': give a file");
	else
		own->svg = argument;
	return 0;
}

/* ---- the summary: what the disk itself says ---------------------------------------------------------------------------------- */

static int read_disk(const struct view *view, uint64_t offset, void *to, size_t length, struct error *err)
{
	const struct iovec iov = { to, length };
	const int rc = ext4_plan_readv(view->root->plan, offset, &iov, 1);
	return rc ? error_set(err, rc, "reading the disk: %s", strerror(-rc)) : 0;
}

static void print_super_block(const struct ext4_super_block *super, uint64_t size_bytes, FILE *out, bool json)
{
	char uuid[37];
	unsigned used = 0;
	for (unsigned i = 0; i < 16; i++)
		used += (unsigned)sprintf(uuid + used, i == 4 || i == 6 || i == 8 || i == 10 ? "-%02x" : "%02x", super->s_uuid[i]);
	fprintf(out,
		json ? "\"size_bytes\":%llu,\"block_bytes\":%u,\"blocks\":%u,\"free_blocks\":%u,\"inodes\":%u,\"free_inodes\":%u,"
		       "\"uuid\":\"%s\",\"feature_compat\":%u,\"feature_incompat\":%u,\"feature_ro_compat\":%u"
		     : "size:     %llu bytes, blocks of %u\nblocks:   %u, %u free\ninodes:   %u, %u free\nuuid:     %s\n"
		       "features: compat 0x%x, incompat 0x%x, ro_compat 0x%x\n",
		(ull)size_bytes, EXT4_BLOCK_BYTES, le32_get(super->s_blocks_count_lo), le32_get(super->s_free_blocks_count_lo),
		le32_get(super->s_inodes_count), le32_get(super->s_free_inodes_count), uuid, le32_get(super->s_feature_compat),
		le32_get(super->s_feature_incompat), le32_get(super->s_feature_ro_compat));
}

static void print_regions(const struct view *view, FILE *out, bool json)
{
	struct ext4_region regions[EXT4_REGIONS_MAX];
	const unsigned count = ext4_plan_regions(view->root->plan, regions);
	fputs(json ? ",\"regions\":[" : "regions:\n", out);
	for (unsigned i = 0; i < count; i++) {
		const ull first = regions[i].first, blocks = regions[i].end - regions[i].first;
		if (json)
			fprintf(out, "%s{\"name\":\"%s\",\"block\":%llu,\"count\":%llu}", i ? "," : "", regions[i].name, first,
				blocks);
		else if (blocks)
			fprintf(out, "  %10llu %10llu blocks  %s\n", first, blocks, regions[i].name);
	}
	fputs(json ? "]" : "", out);
}

/* A line for each group that has something; JSON has all. */
static int print_groups(const struct view *view, const struct ext4_super_block *super, FILE *out, bool json, struct error *err)
{
	const uint32_t blocks = le32_get(super->s_blocks_count_lo), per_group = le32_get(super->s_inodes_per_group);
	const uint32_t count = blocks / EXT4_BLOCKS_PER_GROUP + (blocks % EXT4_BLOCKS_PER_GROUP != 0);
	uint32_t untouched = 0;
	fputs(json ? ",\"groups\":[" : "groups:\n", out);
	for (uint32_t i = 0; i < count; i++) {
		struct ext4_group_desc desc = { .bg_flags = le16_make(0) };
		const int rc = read_disk(view, EXT4_BLOCK_BYTES + (uint64_t)i * sizeof(desc), &desc, sizeof(desc), err);
		if (rc)
			return rc;
		const uint32_t flags = le16_get(desc.bg_flags);
		if (!json && flags & EXT4_BG_INODE_UNINIT && flags & EXT4_BG_BLOCK_UNINIT) {
			untouched++;
			continue;
		}
		fprintf(out,
			json
			    ? "%s{\"group\":%u,\"free_blocks\":%u,\"inodes\":%u,\"free_inodes\":%u,\"directories\":%u,\"flags\":%u}"
			    : "%s  %4u: %5u blocks free, %u inodes, %u free, %u directories, flags 0x%x\n",
			json && i ? "," : "", i, le16_get(desc.bg_free_blocks_count), per_group,
			le16_get(desc.bg_free_inodes_count), le16_get(desc.bg_used_dirs_count), flags);
	}
	if (json)
		fputs("]", out);
	else if (untouched)
		fprintf(out, "  and %u without anything\n", untouched);
	return 0;
}

static void print_layers(const struct view *view, FILE *out, bool json)
{
	fputs(json ? ",\"layers\":[" : "layers:\n", out);
	for (uint32_t i = 0; i < view->tree->layer_count; i++) {
		const char *name = view->layer_names[i];
		if (json) {
			fputs(i ? "," : "", out);
			if (name)
				json_print_string(out, name);
			else
				fputs("null", out);
		} else {
			fprintf(out, "  %4u: %s\n", i, name ? name : "(no contents)");
		}
	}
	fputs(json ? "]" : "", out);
}

/* What a kept disk has changed; nothing without one. */
static void print_changes(const struct view *view, FILE *out, bool json)
{
	const struct cow *cow = disk_ext4_cow(view->root->disk);
	uint64_t blocks[3] = { 0 }, end;
	for (uint64_t offset = 0; offset < view->root->disk->size_bytes; offset = end)
		blocks[cow_run(cow, offset, &end)] += (end - offset) / EXT4_BLOCK_BYTES;
	if (json)
		fprintf(out, ",\"blocks_written\":%llu,\"blocks_zeroed\":%llu", (ull)blocks[COW_WRITTEN], (ull)blocks[COW_ZERO]);
	else if (blocks[COW_WRITTEN] || blocks[COW_ZERO])
		fprintf(out, "changed:  %llu blocks written, %llu zeroed; what follows is what the layers give\n",
			(ull)blocks[COW_WRITTEN], (ull)blocks[COW_ZERO]);
}

static int print_all(const struct view *view, FILE *out, bool json, struct error *err)
{
	struct ext4_super_block super = { .s_magic = le16_make(0) };
	int rc = read_disk(view, EXT4_SUPER_OFFSET, &super, sizeof(super), err);
	if (rc)
		return rc;
	fputs(json ? "{" : "", out);
	print_super_block(&super, view->root->disk->size_bytes, out, json);
	print_changes(view, out, json);
	print_layers(view, out, json);
	print_regions(view, out, json);
	rc = print_groups(view, &super, out, json, err);
	fputs(json ? ",\"files\":[\n" : "files:\n", out);
	if (rc == 0)
		rc = tree_print(view, out, json, err);
	fputs(json ? "]}\n" : "", out);
	return rc;
}

/* ---- the command ------------------------------------------------------------------------------------------------------------- */

static int draw_map(const struct view *view, const char *path, struct error *err)
{
	struct new_file file;
	char quoted[512];
	int rc = new_file_create(&file, path, 0666);
	FILE *out = rc ? NULL : fdopen(fcntl(file.fd, F_DUPFD_CLOEXEC, 0), "w");
	if (rc == 0 && !out)
		rc = -errno;
	if (rc == 0)
		rc = map_print(view, out, err);
	if (out && (ferror(out) | fclose(out)) && rc == 0)
		rc = errno ? -errno : -EIO;
	if (rc == 0)
		rc = new_file_commit(&file, true);
	if (rc && !err->text[0])
		error_set(err, rc, "%s", strerror(-rc));
	new_file_abandon(&file);
	return rc ? error_prefix(err, rc, "map '%s'", error_quote(quoted, sizeof(quoted), path, strlen(path))) : 0;
}

static int inspect(const struct options *options, const struct inspect_options *own, struct error *err)
{
	struct root_disk root;
	struct view view = { .root = NULL };
	int rc = root_disk_open(options, ROOT_DISK_LOOK, &root, err);
	if (rc == 0)
		rc = view_init(&view, &root, err);
	if (rc == 0 && own->svg)
		rc = draw_map(&view, own->svg, err);
	else if (rc == 0 && own->block)
		rc = block_print(&view, own->block, stdout, own->json, err);
	else if (rc == 0 && options->command[0])
		rc = path_print(&view, options->command[0], stdout, own->json, err);
	else if (rc == 0)
		rc = print_all(&view, stdout, own->json, err);
	if (rc == 0 && (fflush(stdout) || ferror(stdout)))
		rc = error_set(err, -EIO, "standard output: %s", strerror(errno));
	view_free(&view);
	root_disk_close(&root);
	return rc;
}

int disk_inspect(int argc, char **argv)
{
	struct error err = { "" };
	struct options options;
	struct inspect_options own = { .svg = NULL };

	int rc = options_parse_disk(argc, argv, rows, ROWS, take_option, &own, &options, &err);
	if (rc == 0 && own.help)
		disk_print_help("trvmm disk inspect [OPTIONS] [PATH]", rows, ROWS);
	else if (rc == 0 && (options.command[0] ? !!options.command[1] + 1 : 0) + !!own.svg + !!own.block > 1)
		rc = error_set(&err, -EINVAL, "disk inspect takes one PATH, or --svg, or --block; see trvmm disk inspect --help");
	else if (rc == 0)
		rc = inspect(&options, &own, &err);
	if (rc < 0)
		message("%s", err.text);
	options_destroy(&options);
	return rc < 0 ? EXIT_TRVMM : 0;
}
