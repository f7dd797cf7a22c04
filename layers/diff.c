/*
 * The walk over two trees side by side, and the layer that comes out of it.
 *
 * It is gone through twice: first to find out which files stayed what they were under all of their names, then to write the others.
 * What is in the layer then depends on names, and not on how the file system numbers inodes.
 */
#include "layers/diff_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "layers/array_internal.h"
#include "layers/tar_writer_internal.h"

#define PATH_MAX_BYTES 4095u /* what Linux takes in one call */

/* `origin` of an inode that has names which were no file's, or several files'. */
#define ORIGIN_NONE UINT32_MAX
#define ORIGIN_UNSEEN (UINT32_MAX - 1)

/* A directory on the way from the root to where the walk stands. */
struct level {
	uint32_t base, changed; /* the next entries to look at, or TREE_NONE */
	uint32_t inode; /* the directory's own, of the changed tree */
	uint32_t path_bytes;
	bool written;
};

struct diff {
	struct diff_pair pair;
	struct tar_writer *writer; /* owned; NULL while the first pass runs */
	struct array levels; /* struct level */
	struct array path; /* of the entry at hand */
	struct array xattrs; /* struct tar_xattr */
	uint32_t *origin; /* owned: of each changed inode, the base inode that all of its names had */
	uint32_t *keeper; /* owned: of each base inode, the changed inode that stays it; TREE_NONE */
	uint64_t *first_path; /* owned: of each changed inode in the layer, where its first path stands in `paths`, + 1 */
	struct array paths; /* lengths and bytes */
	struct diff_result *result;
	struct error *err;
};

static const struct tree_entry *base_entry(const struct diff *diff, uint32_t entry)
{
	return &diff->pair.base->tree->entries[entry];
}

static const struct tree_entry *changed_entry(const struct diff *diff, uint32_t entry)
{
	return &diff->pair.changed->tree->entries[entry];
}

static const struct tree_inode *base_inode(const struct diff *diff, uint32_t entry)
{
	return &diff->pair.base->tree->inodes[base_entry(diff, entry)->inode];
}

static const struct tree_inode *changed_inode(const struct diff *diff, uint32_t entry)
{
	return &diff->pair.changed->tree->inodes[changed_entry(diff, entry)->inode];
}

static struct level *level_at(const struct diff *diff, size_t depth)
{
	return (struct level *)(void *)diff->levels.data + depth;
}

static size_t depth_of(const struct diff *diff)
{
	return diff->levels.used / sizeof(struct level);
}

static int out_of_memory(const struct diff *diff)
{
	return error_set(diff->err, -ENOMEM, "out of memory");
}

/* Puts the path in front of the line. */
static int name_error(const struct diff *diff, int code)
{
	char quoted[256];
	return error_prefix(diff->err, code, "'%s'", error_quote(quoted, sizeof(quoted), diff->path.data, diff->path.used));
}

static void complain(struct diff *diff, const char *why)
{
	char quoted[256];
	complaints_add(&diff->result->complaints, "'%s' is left out: %s",
		       error_quote(quoted, sizeof(quoted), diff->path.data, diff->path.used), why);
}

/* ---- writing entries --------------------------------------------------------------------------------------------------------- */

/* An inode's attributes and contents, as an entry. */
static int fill_entry(struct diff *diff, const struct tree_inode *inode, struct tar_entry *entry)
{
	const struct tree *tree = diff->pair.changed->tree;
	diff->xattrs.used = 0;
	for (uint32_t i = 0; i < inode->xattr_count; i++) {
		const struct tree_xattr *x = &tree->xattrs[inode->first_xattr + i];
		const struct tar_xattr xattr = { { tree->strings + x->name, x->name_bytes },
						 { tree->strings + x->value, x->value_bytes } };
		if (array_append(&diff->xattrs, &xattr, sizeof(xattr)))
			return out_of_memory(diff);
	}
	entry->mode = inode->mode;
	entry->uid = inode->uid;
	entry->gid = inode->gid;
	entry->mtime_s = inode->mtime_s;
	entry->mtime_ns = inode->mtime_ns;
	entry->xattrs = (const struct tar_xattr *)(const void *)diff->xattrs.data;
	entry->xattr_count = inode->xattr_count;
	if (S_ISREG(inode->mode)) {
		entry->size_bytes = inode->size_bytes;
		entry->extents = tree->extents + inode->first_extent;
		entry->extent_count = inode->extent_count;
	} else if (S_ISLNK(inode->mode)) {
		entry->link = (struct slice){ tree->strings + inode->target, inode->size_bytes };
	} else if (S_ISCHR(inode->mode) || S_ISBLK(inode->mode)) {
		entry->rdev = inode->rdev;
	}
	return 0;
}

static int add_entry(struct diff *diff, const struct tar_entry *entry)
{
	diff->result->entries++;
	const int ret = tar_writer_add(diff->writer, entry, diff->pair.changed->read, diff->pair.changed->data, diff->err);
	return ret ? name_error(diff, ret) : 0;
}

static int write_directory(struct diff *diff, struct level *level)
{
	struct tar_entry entry = { .path = { diff->path.data, level->path_bytes } };
	const int ret = fill_entry(diff, &diff->pair.changed->tree->inodes[level->inode], &entry);
	level->written = true;
	return ret ? ret : add_entry(diff, &entry);
}

/* The directories above the entry at hand. Those that were written are the upper ones; the root only has an entry for its own sake. */
static int write_parents(struct diff *diff)
{
	size_t depth = depth_of(diff);
	while (depth > 1 && !level_at(diff, depth - 1)->written)
		depth--;
	int ret = 0;
	for (; !ret && depth < depth_of(diff); depth++)
		ret = write_directory(diff, level_at(diff, depth));
	return ret;
}

static int write_whiteout(struct diff *diff, const char *name, size_t length)
{
	static const char prefix[] = ".wh.";
	int ret = write_parents(diff);
	if (ret)
		return ret;
	diff->path.used -= length;
	if (array_append(&diff->path, prefix, sizeof(prefix) - 1) || array_append(&diff->path, name, length))
		return out_of_memory(diff);
	const struct tar_entry entry = { .path = { diff->path.data, diff->path.used }, .mode = S_IFREG | 0600 };
	diff->result->whiteouts++;
	diff->result->entries--;
	return add_entry(diff, &entry);
}

/* A file of which a name was written already. */
static int write_link(struct diff *diff, uint64_t first_path)
{
	uint32_t length;
	memcpy(&length, diff->paths.data + (first_path - 1), sizeof(length));
	const struct tar_entry entry = {
		.path = { diff->path.data, diff->path.used },
		.link = { diff->paths.data + (first_path - 1) + sizeof(length), length },
		.hard_link = true,
	};
	return add_entry(diff, &entry);
}

static int write_file(struct diff *diff, uint32_t changed)
{
	const struct tree_inode *inode = changed_inode(diff, changed);
	uint64_t *const first_path = &diff->first_path[changed_entry(diff, changed)->inode];
	int ret = write_parents(diff);
	if (ret)
		return ret;
	if (*first_path)
		return write_link(diff, *first_path);
	if (inode->nlink > 1) {
		const uint32_t length = (uint32_t)diff->path.used;
		*first_path = diff->paths.used + 1;
		if (array_append(&diff->paths, &length, sizeof(length)) || array_append(&diff->paths, diff->path.data, length))
			return out_of_memory(diff);
	}
	struct tar_entry entry = { .path = { diff->path.data, diff->path.used } };
	ret = fill_entry(diff, inode, &entry);
	return ret ? ret : add_entry(diff, &entry);
}

/* ---- what a pair of entries means -------------------------------------------------------------------------------------------- */

/* First pass: all names of a file must have been names of one file before. */
static void note_origin(struct diff *diff, uint32_t base, uint32_t changed)
{
	uint32_t *const origin = &diff->origin[changed_entry(diff, changed)->inode];
	const bool file = base != TREE_NONE && !S_ISDIR(base_inode(diff, base)->mode);
	const uint32_t now = file ? base_entry(diff, base)->inode : ORIGIN_NONE;
	*origin = *origin == ORIGIN_UNSEEN || *origin == now ? now : ORIGIN_NONE;
}

/* Whether the changed file is its origin still; asked once for each file, since there can be only one that is. */
static int is_kept(struct diff *diff, uint32_t inode, bool *kept)
{
	const uint32_t origin = diff->origin[inode];
	*kept = false;
	if (origin == ORIGIN_NONE)
		return 0;
	if (diff->keeper[origin] != TREE_NONE) {
		*kept = diff->keeper[origin] == inode;
		return 0;
	}
	const int ret =
	    diff_same_inode(&diff->pair, &diff->pair.base->tree->inodes[origin], &diff->pair.changed->tree->inodes[inode], kept);
	if (*kept)
		diff->keeper[origin] = inode;
	else
		diff->origin[inode] = ORIGIN_NONE;
	return ret;
}

static int visit_file(struct diff *diff, uint32_t base, uint32_t changed)
{
	const struct tree_entry *entry = changed_entry(diff, changed);
	bool kept;
	if (!diff->writer) {
		note_origin(diff, base, changed);
		return 0;
	}
	const int ret = is_kept(diff, entry->inode, &kept);
	if (ret)
		return name_error(diff, error_set(diff->err, ret, "cannot compare the contents: %s", strerror(-ret)));
	if (kept)
		return 0;
	if (!S_ISSOCK(changed_inode(diff, changed)->mode))
		return write_file(diff, changed);
	complain(diff, "a socket has no place in a tar");
	if (base == TREE_NONE)
		return 0;
	return write_whiteout(diff, diff->pair.changed->tree->strings + entry->name, entry->name_bytes);
}

static int push_level(struct diff *diff, uint32_t base, uint32_t changed)
{
	const bool old = base != TREE_NONE && S_ISDIR(base_inode(diff, base)->mode);
	const struct tree_inode *inode = changed_inode(diff, changed);
	const struct level level = {
		.base = old ? base_inode(diff, base)->first_child : TREE_NONE,
		.changed = inode->first_child,
		.inode = changed_entry(diff, changed)->inode,
		.path_bytes = (uint32_t)diff->path.used,
	};
	if (array_append(&diff->levels, &level, sizeof(level)))
		return out_of_memory(diff);
	if (!diff->writer || (old && diff_same_attributes(&diff->pair, base_inode(diff, base), inode)))
		return 0;
	const int ret = write_parents(diff);
	struct level *own = level_at(diff, depth_of(diff) - 1);
	return ret || own->written ? ret : write_directory(diff, own);
}

/* Whether the name has a place in a layer. Its path is in diff->path. */
static bool has_place(struct diff *diff, const char *name, size_t length)
{
	const char *why = diff->path.used > PATH_MAX_BYTES              ? "its path has more than 4095 bytes"
			  : length >= 4 && memcmp(name, ".wh.", 4) == 0 ? "a layer takes names that begin with '.wh.' for marks"
									: NULL;
	if (why && diff->writer)
		complain(diff, why);
	return !why;
}

/* One name, which either or both of the trees have. */
static int visit(struct diff *diff, uint32_t base, uint32_t changed)
{
	const struct tree *tree = changed == TREE_NONE ? diff->pair.base->tree : diff->pair.changed->tree;
	const struct tree_entry *entry = &tree->entries[changed == TREE_NONE ? base : changed];
	const char *name = tree->strings + entry->name;
	diff->path.used = level_at(diff, depth_of(diff) - 1)->path_bytes;
	if ((diff->path.used && array_append(&diff->path, "/", 1)) || array_append(&diff->path, name, entry->name_bytes))
		return out_of_memory(diff);
	if (!has_place(diff, name, entry->name_bytes))
		return 0;
	if (changed == TREE_NONE)
		return diff->writer ? write_whiteout(diff, name, entry->name_bytes) : 0;
	return S_ISDIR(changed_inode(diff, changed)->mode) ? push_level(diff, base, changed) : visit_file(diff, base, changed);
}

/* ---- the walk ---------------------------------------------------------------------------------------------------------------- */

/* The entry from `entry` on that takes part: at the top, not all do. */
static uint32_t next_of(const struct diff *diff, const struct tree *tree, uint32_t entry)
{
	const char *const *ignored = diff->pair.options->ignored;
	if (depth_of(diff) > 1 || !ignored)
		return entry;
	for (; entry != TREE_NONE; entry = tree->entries[entry].next_sibling) {
		const struct tree_entry *e = &tree->entries[entry];
		size_t i = 0;
		while (ignored[i] &&
		       (strlen(ignored[i]) != e->name_bytes || memcmp(ignored[i], tree->strings + e->name, e->name_bytes) != 0))
			i++;
		if (!ignored[i])
			break;
	}
	return entry;
}

/* The order of two names; an end comes last. */
static int compare_names(const struct diff *diff, uint32_t base, uint32_t changed)
{
	if (base == TREE_NONE || changed == TREE_NONE)
		return (base == TREE_NONE) - (changed == TREE_NONE);
	const struct tree_entry *const a = base_entry(diff, base), *const b = changed_entry(diff, changed);
	const size_t least = a->name_bytes < b->name_bytes ? a->name_bytes : b->name_bytes;
	const int order = memcmp(diff->pair.base->tree->strings + a->name, diff->pair.changed->tree->strings + b->name, least);
	return order ? order : a->name_bytes - b->name_bytes;
}

static int walk(struct diff *diff)
{
	diff->levels.used = diff->path.used = 0;
	int ret = push_level(diff, 0, 0);
	while (!ret && depth_of(diff)) {
		struct level *level = level_at(diff, depth_of(diff) - 1);
		uint32_t base = next_of(diff, diff->pair.base->tree, level->base);
		uint32_t changed = next_of(diff, diff->pair.changed->tree, level->changed);
		if (base == TREE_NONE && changed == TREE_NONE) {
			diff->levels.used -= sizeof(*level);
			continue;
		}
		const int order = compare_names(diff, base, changed);
		level->base = order <= 0 ? base_entry(diff, base)->next_sibling : base;
		level->changed = order >= 0 ? changed_entry(diff, changed)->next_sibling : changed;
		ret = visit(diff, order <= 0 ? base : TREE_NONE, order >= 0 ? changed : TREE_NONE);
	}
	return ret;
}

static int prepare(struct diff *diff)
{
	const size_t base_count = diff->pair.base->tree->inode_count, changed_count = diff->pair.changed->tree->inode_count;
	diff->origin = reallocarray(NULL, changed_count, sizeof(*diff->origin));
	diff->first_path = calloc(changed_count, sizeof(*diff->first_path));
	diff->keeper = reallocarray(NULL, base_count, sizeof(*diff->keeper));
	if (!diff->origin || !diff->first_path || !diff->keeper)
		return out_of_memory(diff);
	for (size_t i = 0; i < changed_count; i++)
		diff->origin[i] = ORIGIN_UNSEEN;
	for (size_t i = 0; i < base_count; i++)
		diff->keeper[i] = TREE_NONE;
	return 0;
}

int diff_write(const struct diff_side *base, const struct diff_side *changed, const struct diff_options *options, int fd,
	       struct diff_result *result, struct error *err)
{
	static const struct diff_options nothing;
	struct diff diff = { .pair = { base, changed, options ? options : &nothing }, .result = result, .err = err };
	*result = (struct diff_result){ 0 };
	int ret = prepare(&diff);
	if (!ret)
		ret = walk(&diff);
	if (!ret && !(diff.writer = tar_writer_create(fd)))
		ret = out_of_memory(&diff);
	if (!ret)
		ret = walk(&diff);
	if (!ret)
		ret = tar_writer_finish(diff.writer, result->diff_id, err);
	tar_writer_destroy(diff.writer);
	array_free(&diff.levels);
	array_free(&diff.path);
	array_free(&diff.xattrs);
	array_free(&diff.paths);
	free(diff.origin);
	free(diff.keeper);
	free(diff.first_path);
	return ret;
}
