/*
 * One entry of a layer onto the tree below it: OCI image-spec layer.md, "Applying Changesets".
 *
 * A new name always gets a new inode, except a directory over a directory, which takes the new attributes and keeps what is in it.
 * So replacing one of two hard links never changes the other.
 */
#include "layers/builder_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "layers/path_internal.h"

#define WHITEOUT ".wh."
#define WHITEOUT_META ".wh..wh." /* aufs' own names: the opaque marker, and bookkeeping that has no meaning elsewhere */
#define WHITEOUT_OPAQUE ".wh..wh..opq"

static bool begins(const char *text, size_t length, const char *prefix)
{
	return length >= strlen(prefix) && memcmp(text, prefix, strlen(prefix)) == 0;
}

static int out_of_memory(struct error *err)
{
	return error_set(err, -ENOMEM, "out of memory");
}

/* A cleaned path, and where its last component starts. */
struct split_path {
	const char *text;
	size_t directory_bytes; /* without the slash */
	const char *name;
	size_t name_bytes;      /* 0: the root */
};

static int split(struct array *scratch, const struct slice *path, struct split_path *out)
{
	scratch->used = 0;
	char *text = array_extend(scratch, path->length);
	if (!text)
		return -ENOMEM;
	const size_t length = path_clean(text, path->bytes, path->length);
	const char *slash = memrchr(text, '/', length);
	out->text = text;
	out->directory_bytes = slash ? (size_t)(slash - text) : 0;
	out->name = slash ? slash + 1 : text;
	out->name_bytes = length - (size_t)(out->name - text);
	return 0;
}

/* Whether some component of the path is aufs' bookkeeping (and not the opaque marker). */
static bool is_bookkeeping(const struct split_path *path)
{
	const size_t length = path->directory_bytes + (path->directory_bytes > 0) + path->name_bytes;
	for (const char *at = path->text, *end = at + length;;) {
		at = memmem(at, (size_t)(end - at), WHITEOUT_META, strlen(WHITEOUT_META));
		if (!at)
			return false;
		const bool opaque = at == path->name && path->name_bytes == strlen(WHITEOUT_OPAQUE) &&
				    begins(at, path->name_bytes, WHITEOUT_OPAQUE);
		if ((at == path->text || at[-1] == '/') && !opaque)
			return true;
		at++;
	}
}

static int add_xattrs(struct tree_builder *builder, const struct tar_entry *from, struct tree_inode *inode)
{
	inode->first_xattr = inode->xattr_count = 0;
	const size_t first = builder->xattrs.used / sizeof(struct tree_xattr);
	if (from->xattr_count > TREE_NONE - first)
		return -EFBIG;
	for (uint32_t i = 0; i < from->xattr_count; i++) {
		const struct tar_xattr *x = &from->xattrs[i];
		struct tree_xattr xattr = { .name_bytes = (uint16_t)x->name.length, .value_bytes = (uint32_t)x->value.length };
		int ret = builder_add_string(builder, x->name.bytes, x->name.length, &xattr.name);
		if (!ret)
			ret = builder_add_string(builder, x->value.bytes, x->value.length, &xattr.value);
		if (!ret)
			ret = array_append(&builder->xattrs, &xattr, sizeof(xattr));
		if (ret)
			return ret;
	}
	inode->first_xattr = from->xattr_count ? (uint32_t)first : 0;
	inode->xattr_count = from->xattr_count;
	return 0;
}

static int add_extents(struct tree_builder *builder, const struct tar_entry *from, uint32_t source, struct tree_inode *inode)
{
	const size_t first = builder->extents.used / sizeof(struct tree_extent);
	if (from->extent_count > TREE_NONE - first)
		return -EFBIG;
	struct tree_extent *extents = array_extend(&builder->extents, from->extent_count * sizeof(*extents));
	if (!extents)
		return -ENOMEM;
	for (uint32_t i = 0; i < from->extent_count; i++) {
		extents[i] = from->extents[i];
		extents[i].source = source;
	}
	inode->first_extent = from->extent_count ? (uint32_t)first : 0;
	inode->extent_count = from->extent_count;
	return 0;
}

static int attributes_error(struct error *err, int code)
{
	return error_set(err, code, "%s", code == -EFBIG ? "the layers together are too large for one tree" : "out of memory");
}

static void take_attributes(const struct tree_builder *builder, const struct tar_entry *from, struct tree_inode *inode)
{
	inode->mode = from->mode;
	inode->uid = from->uid;
	inode->gid = from->gid;
	inode->mtime_s = from->mtime_s;
	inode->mtime_ns = from->mtime_ns;
	inode->layer = builder_layer(builder);
}

/* A directory: new, or over what is there. The number stands for the root as well. */
static int describe_directory(struct tree_builder *builder, const struct tar_entry *from, uint32_t number, struct error *err)
{
	struct tree_inode attributes = { 0 };
	const int ret = add_xattrs(builder, from, &attributes);
	if (ret)
		return attributes_error(err, ret);
	struct tree_inode *inode = builder_inode(builder, number);
	take_attributes(builder, from, inode);
	inode->first_xattr = attributes.first_xattr;
	inode->xattr_count = attributes.xattr_count;
	return 0;
}

static int merge_directory(struct tree_builder *builder, const struct tar_entry *from, uint32_t parent,
			   const struct split_path *path, struct error *err)
{
	const uint32_t entry = builder_find(builder, parent, path->name, path->name_bytes);
	if (entry != TREE_NONE && S_ISDIR(builder_inode(builder, builder_entry(builder, entry)->inode)->mode)) {
		builder_entry(builder, entry)->layer = builder_layer(builder);
		return describe_directory(builder, from, builder_entry(builder, entry)->inode, err);
	}
	uint32_t inode;
	if (builder_add_implied_directory(builder, parent, &inode))
		return out_of_memory(err);
	const int ret = builder_set(builder, parent, path->name, path->name_bytes, inode, err);
	return ret ? ret : describe_directory(builder, from, inode, err);
}

static int merge_other(struct tree_builder *builder, const struct tar_entry *from, uint32_t source, uint32_t parent,
		       const struct split_path *path, uint32_t *number, struct error *err)
{
	struct tree_inode inode = { 0 };
	int ret = 0;
	take_attributes(builder, from, &inode);
	if (S_ISREG(from->mode)) {
		inode.size_bytes = from->size_bytes;
		ret = add_extents(builder, from, source, &inode);
	} else if (S_ISLNK(from->mode)) {
		if (!from->link.length || from->link.length > LINK_TARGET_MAX)
			return error_set(err, -EINVAL, "a symbolic link to a path of %zu bytes; 1 to %u are allowed",
					 from->link.length, LINK_TARGET_MAX);
		inode.size_bytes = from->link.length;
		ret = builder_add_string(builder, from->link.bytes, from->link.length, &inode.target);
	} else {
		inode.rdev = from->rdev;
	}
	if (!ret)
		ret = add_xattrs(builder, from, &inode);
	if (!ret)
		ret = builder_add_inode(builder, &inode, number);
	return ret ? attributes_error(err, ret) : builder_set(builder, parent, path->name, path->name_bytes, *number, err);
}

/* A second name for what the link's path names at this moment, in whatever layer that lies. */
static int merge_hard_link(struct tree_builder *builder, const struct tar_entry *from, uint32_t parent,
			   const struct split_path *path, struct error *err)
{
	struct split_path target;
	uint32_t directory, entry = TREE_NONE;
	char quoted[256];
	if (split(&builder->clean_link, &from->link, &target))
		return out_of_memory(err);
	const int ret = builder_resolve(builder, target.text, target.directory_bytes, false, &directory, err);
	if (ret == -ENOMEM)
		return ret;
	error_quote(quoted, sizeof(quoted), from->link.bytes, from->link.length);
	if (!ret && target.name_bytes)
		entry = builder_find(builder, directory, target.name, target.name_bytes);
	if (ret || (entry == TREE_NONE && target.name_bytes))
		return error_set(err, -ENOENT, "a hard link to '%s', which neither this layer nor one below it has brought before",
				 quoted);
	if (entry == TREE_NONE || S_ISDIR(builder_inode(builder, builder_entry(builder, entry)->inode)->mode))
		return error_set(err, -EINVAL, "a hard link to '%s', which is a directory", quoted);
	return builder_set(builder, parent, path->name, path->name_bytes, builder_entry(builder, entry)->inode, err);
}

/* The directory that a marker stands in; TREE_NONE: there is none, and nothing to hide. A marker makes no directories. */
static int find_marked(struct tree_builder *builder, const struct split_path *path, uint32_t *directory, struct error *err)
{
	const int ret = builder_resolve(builder, path->text, path->directory_bytes, false, directory, err);
	if (ret != -ENOENT && ret != -ENOTDIR && ret != -ELOOP)
		return ret;
	*directory = TREE_NONE;
	return 0;
}

static int merge_whiteout(struct tree_builder *builder, const struct split_path *path, struct error *err)
{
	const char *name = path->name + strlen(WHITEOUT);
	const size_t length = path->name_bytes - strlen(WHITEOUT);
	if (!length || (length == 1 && name[0] == '.') || (length == 2 && name[0] == '.' && name[1] == '.'))
		return error_set(err, -EINVAL, "a whiteout that names nothing");
	uint32_t directory;
	const int ret = find_marked(builder, path, &directory, err);
	if (ret || directory == TREE_NONE)
		return ret;
	const uint32_t entry = builder_find(builder, directory, name, length);
	if (entry != TREE_NONE)
		builder_hide_lower(builder, entry);
	return 0;
}

static int merge_opaque(struct tree_builder *builder, const struct split_path *path, struct error *err)
{
	uint32_t directory;
	const int ret = find_marked(builder, path, &directory, err);
	if (ret || directory == TREE_NONE)
		return ret;
	*directory_opaque(builder_inode(builder, directory)) = builder_layer(builder);
	builder->last_directory = TREE_NONE;
	return 0;
}

int builder_merge(struct tree_builder *builder, const struct tar_entry *entry, uint32_t source, struct error *err)
{
	struct split_path path;
	if (split(&builder->clean, &entry->path, &path))
		return out_of_memory(err);
	if (!path.name_bytes) {
		if (entry->hard_link || !S_ISDIR(entry->mode))
			return error_set(err, -EINVAL, "the root of a layer must be a directory");
		return describe_directory(builder, entry, 0, err);
	}
	if (is_bookkeeping(&path))
		return 0;
	if (path.name_bytes == strlen(WHITEOUT_OPAQUE) && begins(path.name, path.name_bytes, WHITEOUT_OPAQUE))
		return merge_opaque(builder, &path, err);
	if (begins(path.name, path.name_bytes, WHITEOUT))
		return merge_whiteout(builder, &path, err);
	uint32_t parent, inode;
	const int ret = builder_resolve(builder, path.text, path.directory_bytes, true, &parent, err);
	if (ret)
		return ret;
	if (entry->hard_link)
		return merge_hard_link(builder, entry, parent, &path, err);
	if (S_ISDIR(entry->mode))
		return merge_directory(builder, entry, parent, &path, err);
	return merge_other(builder, entry, source, parent, &path, &inode, err);
}

/* The directory that is there already, by whatever links. Returns 0; -ENOENT when there is none, or another -errno with a line. */
static int find_placed_directory(struct tree_builder *builder, const struct split_path *path, uint32_t *inode, struct error *err)
{
	const size_t length = (size_t)(path->name - path->text) + path->name_bytes;
	const int ret = builder_resolve(builder, path->text, length, false, inode, err);
	if (ret == -ENOTDIR || ret == -ELOOP)
		return -ENOENT;
	/* Once more, as what is about to be put below touches the directories on the way. */
	return ret ? ret : builder_resolve(builder, path->text, length, true, inode, err);
}

static int place_directory(struct tree_builder *builder, const struct tar_entry *from, uint32_t parent,
			   const struct split_path *path, bool keep, uint32_t *inode, struct error *err)
{
	const uint32_t there = builder_find(builder, parent, path->name, path->name_bytes);
	const bool through_link = there != TREE_NONE && S_ISLNK(builder_inode(builder, builder_entry(builder, there)->inode)->mode);
	int ret = -ENOENT;
	if (there != TREE_NONE && (keep || through_link))
		ret = find_placed_directory(builder, path, inode, err);
	if (!ret)
		return keep ? 0 : describe_directory(builder, from, *inode, err);
	if (ret != -ENOENT)
		return ret;
	if (keep && there != TREE_NONE)
		return error_set(err, -ENOTDIR, "the layers have something there that is no directory");
	ret = merge_directory(builder, from, parent, path, err);
	if (!ret)
		*inode = builder_entry(builder, builder_find(builder, parent, path->name, path->name_bytes))->inode;
	return ret;
}

int builder_place(struct tree_builder *builder, const struct tar_entry *entry, uint32_t source, bool keep, uint32_t *inode,
		  struct error *err)
{
	struct split_path path;
	uint32_t parent;
	if (split(&builder->clean, &entry->path, &path))
		return out_of_memory(err);
	if (!path.name_bytes) {
		*inode = 0;
		return keep ? 0 : describe_directory(builder, entry, 0, err);
	}
	const int ret = builder_resolve(builder, path.text, path.directory_bytes, true, &parent, err);
	if (ret)
		return ret;
	if (S_ISDIR(entry->mode))
		return place_directory(builder, entry, parent, &path, keep, inode, err);
	return merge_other(builder, entry, source, parent, &path, inode, err);
}

int builder_place_link(struct tree_builder *builder, const struct slice *to, uint32_t inode, struct error *err)
{
	struct split_path path;
	uint32_t parent;
	if (split(&builder->clean, to, &path))
		return out_of_memory(err);
	const int ret = builder_resolve(builder, path.text, path.directory_bytes, true, &parent, err);
	return ret ? ret : builder_set(builder, parent, path.name, path.name_bytes, inode, err);
}
