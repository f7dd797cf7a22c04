/* Names of a planned disk: the listing, and where one path lies. See disk_inspect.h. */
#include "vmm/cli/disk_inspect.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

typedef unsigned long long ull;

/* ---- text -------------------------------------------------------------------------------------------------------------------- */

char *text_quote(const char *bytes, size_t length)
{
	size_t room;
	if (__builtin_mul_overflow(length, 4, &room) || __builtin_add_overflow(room, 8, &room))
		return NULL;
	char *quoted = malloc(room);
	return quoted ? error_quote(quoted, room, bytes, length) : NULL;
}

void json_print_string(FILE *out, const char *quoted)
{
	putc('"', out);
	for (; *quoted; quoted++) {
		if (*quoted == '"' || *quoted == '\\')
			putc('\\', out);
		putc(*quoted, out);
	}
	putc('"', out);
}

static int no_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "out of memory");
}

/* ---- the view ---------------------------------------------------------------------------------------------------------------- */

/* A layer is called what the first contents that it brought come from. */
static int name_layers(struct view *view)
{
	const struct tree *tree = view->tree;
	for (uint32_t i = 0; i < tree->inode_count; i++) {
		const struct tree_inode *inode = &tree->inodes[i];
		if (!S_ISREG(inode->mode) || !inode->extent_count || inode->layer >= tree->layer_count ||
		    view->layer_names[inode->layer])
			continue;
		const uint32_t source = tree->extents[inode->first_extent].source;
		const char *name = source < tree->source_count ? tree->sources[source].name : NULL;
		if (!name)
			name = "trvmm";
		view->layer_names[inode->layer] = text_quote(name, strlen(name));
		if (!view->layer_names[inode->layer])
			return -ENOMEM;
	}
	return 0;
}

int view_init(struct view *view, const struct root_disk *root, struct error *err)
{
	const struct tree *tree = root->tree;
	*view = (struct view){ .root = root, .tree = tree };
	view->entry_of = calloc((size_t)tree->inode_count + 1, sizeof(*view->entry_of));
	view->layer_names = calloc((size_t)tree->layer_count + 1, sizeof(*view->layer_names));
	if (!view->entry_of || !view->layer_names)
		return no_memory(err);
	memset(view->entry_of, 0xFF, tree->inode_count * sizeof(*view->entry_of));
	for (uint32_t e = tree->entry_count; e-- > 0;)
		view->entry_of[tree->entries[e].inode] = e;
	return name_layers(view) ? no_memory(err) : 0;
}

void view_free(struct view *view)
{
	for (uint32_t i = 0; view->layer_names && i < view->tree->layer_count; i++)
		free(view->layer_names[i]);
	free(view->layer_names);
	free(view->entry_of);
}

/* The path of an entry, as bytes: components from the end on, the parents' names by their inodes. */
static char *entry_path(const struct view *view, uint32_t entry, size_t *length)
{
	const struct tree *tree = view->tree;
	size_t bytes = 0;
	for (uint32_t e = entry; e != 0 && e != TREE_NONE; e = view->entry_of[tree->entries[e].parent])
		bytes += tree->entries[e].name_bytes + 1u;
	char *path = malloc(bytes + 2);
	if (!path)
		return NULL;
	*length = bytes ? bytes : 1;
	path[0] = '/';
	for (uint32_t e = entry; e != 0 && e != TREE_NONE; e = view->entry_of[tree->entries[e].parent]) {
		bytes -= tree->entries[e].name_bytes + 1u;
		path[bytes] = '/';
		memcpy(path + bytes + 1, tree->strings + tree->entries[e].name, tree->entries[e].name_bytes);
	}
	return path;
}

static char *quoted_entry_path(const struct view *view, uint32_t entry)
{
	size_t length;
	char *path = entry_path(view, entry, &length);
	char *quoted = path ? text_quote(path, length) : NULL;
	free(path);
	return quoted;
}

char *view_path(const struct view *view, uint32_t inode)
{
	return quoted_entry_path(view, view->entry_of[inode]);
}

/* ---- the listing ------------------------------------------------------------------------------------------------------------- */

static const char *mode_text(uint32_t mode, char text[11])
{
	static const char types[] = "?pc?d?b?-?l?s???";
	strcpy(text, "?rwxrwxrwx");
	text[0] = types[mode >> 12 & 15];
	for (unsigned i = 0; i < 9; i++)
		if (!(mode >> (8 - i) & 1))
			text[1 + i] = '-';
	if (mode & S_ISUID)
		text[3] = mode & S_IXUSR ? 's' : 'S';
	if (mode & S_ISGID)
		text[6] = mode & S_IXGRP ? 's' : 'S';
	if (mode & S_ISVTX)
		text[9] = mode & S_IXOTH ? 't' : 'T';
	return text;
}

/* Blocks that the inode takes, its own metadata included. */
static uint64_t blocks_of(const struct view *view, uint32_t inode)
{
	uint64_t first;
	uint32_t index = 0;
	struct ext4_run run;
	uint64_t blocks = ext4_plan_metadata_of(view->root->plan, inode, &first);
	for (uint32_t left = ext4_plan_runs_of(view->root->plan, inode, &index); left; left--)
		blocks += ext4_plan_run(view->root->plan, index++, &run) ? run.count : 0;
	return blocks;
}

static char *quoted_target(const struct view *view, const struct tree_inode *inode)
{
	return S_ISLNK(inode->mode) ? text_quote(view->tree->strings + inode->target, inode->size_bytes) : NULL;
}

/* The members that a listing and the details have in common, without the braces. */
static void print_members(const struct view *view, uint32_t entry, const char *path, const char *target, FILE *out)
{
	const struct tree_inode *inode = &view->tree->inodes[view->tree->entries[entry].inode];
	fputs("\"path\":", out);
	json_print_string(out, path);
	fprintf(out,
		",\"inode\":%u,\"mode\":\"%o\",\"uid\":%u,\"gid\":%u,\"links\":%u,\"size\":%llu,\"mtime\":%lld,\"mtime_ns\":%u,"
		"\"layer\":%u,\"blocks\":%llu",
		ext4_plan_inode_number(view->root->plan, view->tree->entries[entry].inode), inode->mode, inode->uid, inode->gid,
		inode->nlink, (ull)inode->size_bytes, (long long)inode->mtime_s, inode->mtime_ns, inode->layer,
		(ull)blocks_of(view, view->tree->entries[entry].inode));
	if (target) {
		fputs(",\"target\":", out);
		json_print_string(out, target);
	}
}

static int print_entry(const struct view *view, uint32_t entry, FILE *out, bool json)
{
	const uint32_t number = view->tree->entries[entry].inode;
	const struct tree_inode *inode = &view->tree->inodes[number];
	char mode[11];
	char *path = quoted_entry_path(view, entry), *target = quoted_target(view, inode);
	const bool complete = path && (target || !S_ISLNK(inode->mode));
	if (complete && json) {
		fputs(entry ? ",\n{" : "{", out);
		print_members(view, entry, path, target, out);
		putc('}', out);
	} else if (complete) {
		fprintf(out, "%s %5u:%-5u %12llu  layer %-2u inode %-7u blocks %-6llu %s%s%s\n", mode_text(inode->mode, mode),
			inode->uid, inode->gid, (ull)inode->size_bytes, inode->layer,
			ext4_plan_inode_number(view->root->plan, number), (ull)blocks_of(view, number), path, target ? " -> " : "",
			target ? target : "");
	}
	free(path);
	free(target);
	return complete ? 0 : -ENOMEM;
}

int tree_print(const struct view *view, FILE *out, bool json, struct error *err)
{
	const struct tree *tree = view->tree;
	uint32_t entry = 0;
	for (;;) {
		const uint32_t inode = tree->entries[entry].inode;
		if (print_entry(view, entry, out, json))
			return no_memory(err);
		if (S_ISDIR(tree->inodes[inode].mode) && tree->inodes[inode].first_child != TREE_NONE) {
			entry = tree->inodes[inode].first_child;
			continue;
		}
		/* Up to the nearest directory that has another child. */
		while (entry != 0 && tree->entries[entry].next_sibling == TREE_NONE)
			entry = view->entry_of[tree->entries[entry].parent];
		if (entry == 0)
			return 0;
		entry = tree->entries[entry].next_sibling;
	}
}

/* ---- where a path lies ------------------------------------------------------------------------------------------------------- */

/* The runs on disk. */
static void print_runs(const struct view *view, uint32_t inode, FILE *out, bool json)
{
	uint32_t index = 0;
	struct ext4_run run;
	const char *comma = "";
	for (uint32_t left = ext4_plan_runs_of(view->root->plan, inode, &index);
	     left && ext4_plan_run(view->root->plan, index++, &run); left--) {
		if (json)
			fprintf(out, "%s{\"file_block\":%llu,\"block\":%llu,\"count\":%llu}", comma, (ull)run.logical,
				(ull)run.first, (ull)run.count);
		else
			fprintf(out, "extent:   file blocks %llu to %llu at disk block %llu\n", (ull)run.logical,
				(ull)(run.logical + run.count - 1), (ull)run.first);
		comma = ",";
	}
}

/* Which file of the host the bytes come from. */
static int print_sources(const struct view *view, const struct tree_inode *inode, FILE *out, bool json)
{
	for (uint32_t i = 0; i < inode->extent_count; i++) {
		const struct tree_extent *extent = &view->tree->extents[inode->first_extent + i];
		const char *name = extent->source < view->tree->source_count ? view->tree->sources[extent->source].name : NULL;
		char *quoted = text_quote(name ? name : "trvmm", strlen(name ? name : "trvmm"));
		if (!quoted)
			return -ENOMEM;
		if (json) {
			fprintf(out, "%s{\"offset\":%llu,\"length\":%llu,\"source_offset\":%llu,\"source\":", i ? "," : "",
				(ull)extent->file_offset, (ull)extent->length, (ull)extent->source_offset);
			json_print_string(out, quoted);
			putc('}', out);
		} else {
			fprintf(out, "source:   bytes %llu to %llu from '%s' at byte %llu\n", (ull)extent->file_offset,
				(ull)(extent->file_offset + extent->length - 1), quoted, (ull)extent->source_offset);
		}
		free(quoted);
	}
	return 0;
}

static int print_details(const struct view *view, uint32_t entry, const char *path, const char *target, FILE *out, bool json)
{
	const uint32_t number = view->tree->entries[entry].inode;
	const struct tree_inode *inode = &view->tree->inodes[number];
	uint32_t byte;
	uint64_t metadata_first = 0;
	char mode[11];
	const uint32_t ino = ext4_plan_inode_number(view->root->plan, number);
	const uint64_t table_block = ext4_plan_inode_block(view->root->plan, ino, &byte);
	const uint64_t metadata = ext4_plan_metadata_of(view->root->plan, number, &metadata_first);
	if (json) {
		putc('{', out);
		print_members(view, entry, path, target, out);
		fprintf(out, ",\"inode_block\":%llu,\"inode_byte\":%u,\"metadata\":{\"block\":%llu,\"count\":%llu},\"extents\":[",
			(ull)table_block, byte, (ull)metadata_first, (ull)metadata);
		print_runs(view, number, out, json);
		fputs("],\"sources\":[", out);
	} else {
		fprintf(out,
			"path:     %s%s%s\nmode:     %s\nowner:    %u:%u\nsize:     %llu\nmtime:    %lld s, %u ns\nlinks:    %u\n",
			path, target ? " -> " : "", target ? target : "", mode_text(inode->mode, mode), inode->uid, inode->gid,
			(ull)inode->size_bytes, (long long)inode->mtime_s, inode->mtime_ns, inode->nlink);
		fprintf(out, "layer:    %u\ninode:    %u, at byte %u of disk block %llu\nblocks:   %llu\n", inode->layer, ino, byte,
			(ull)table_block, (ull)blocks_of(view, number));
		if (metadata)
			fprintf(out, "metadata: %llu blocks at disk block %llu\n", (ull)metadata, (ull)metadata_first);
		print_runs(view, number, out, json);
	}
	const int rc = S_ISREG(inode->mode) ? print_sources(view, inode, out, json) : 0;
	if (json)
		fputs("]}\n", out);
	return rc;
}

int path_print(const struct view *view, const char *path, FILE *out, bool json, struct error *err)
{
	const uint32_t entry = tree_lookup(view->tree, path, 0);
	if (entry == TREE_NONE) {
		char quoted[512];
		return error_set(err, -ENOENT, "there is no '%s' in the layers",
				 error_quote(quoted, sizeof(quoted), path, strlen(path)));
	}
	const struct tree_inode *inode = &view->tree->inodes[view->tree->entries[entry].inode];
	char *name = quoted_entry_path(view, entry), *target = quoted_target(view, inode);
	int rc = name && (target || !S_ISLNK(inode->mode)) ? 0 : -ENOMEM;
	if (rc == 0)
		rc = print_details(view, entry, name, target, out, json);
	free(name);
	free(target);
	return rc ? no_memory(err) : 0;
}
