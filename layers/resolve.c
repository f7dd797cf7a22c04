/*
 * Paths to directories inside the virtual root of a growing tree.
 *
 * As the kernel would in a chroot, but for one thing: a layer may put a file below directories that nobody described, also below a
 * symbolic link whose target does not exist yet, so what is missing is made on the way.
 */
#include "layers/builder_internal.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "layers/path_internal.h"

static int resolve_error(struct error *err, int code, const char *name, size_t length)
{
	char quoted[128];
	error_quote(quoted, sizeof(quoted), name, length);
	switch (code) {
	case -ENOENT:
		return error_set(err, code, "there is no directory '%s'", quoted);
	case -ENOTDIR:
		return error_set(err, code, "'%s' is no directory", quoted);
	case -ELOOP:
		return error_set(err, code, "too many symbolic links at '%s'", quoted);
	default:
		return error_set(err, code, "out of memory");
	}
}

static int make_directory(struct tree_builder *builder, uint32_t parent, const char *name, size_t length, uint32_t *directory,
			  struct error *err)
{
	uint32_t inode;
	if (builder_add_implied_directory(builder, parent, &inode))
		return error_set(err, -ENOMEM, "out of memory");
	const int ret = builder_set(builder, parent, name, length, inode, err);
	if (!ret)
		*directory = inode;
	return ret;
}

/* One component: moves `directory` on. */
static int step(struct tree_builder *builder, struct path_cursor *cursor, const char *name, size_t length, bool create,
		uint32_t *directory, struct error *err)
{
	if (length == 1 && name[0] == '.')
		return 0;
	if (length == 2 && name[0] == '.' && name[1] == '.') {
		*directory = *directory_parent(builder_inode(builder, *directory));
		return 0;
	}
	const uint32_t found = builder_find(builder, *directory, name, length);
	if (found == TREE_NONE)
		return create ? make_directory(builder, *directory, name, length, directory, err)
			      : resolve_error(err, -ENOENT, name, length);
	const uint32_t number = builder_entry(builder, found)->inode;
	const struct tree_inode *inode = builder_inode(builder, number);
	if (S_ISDIR(inode->mode)) {
		*directory = number;
		return 0;
	}
	if (!S_ISLNK(inode->mode))
		return resolve_error(err, -ENOTDIR, name, length);
	const char *target = builder->strings.data + inode->target;
	const bool absolute = inode->size_bytes && target[0] == '/';
	const int ret = path_cursor_push(cursor, target, inode->size_bytes);
	if (ret)
		return resolve_error(err, ret, target, inode->size_bytes);
	if (absolute)
		*directory = 0;
	return 0;
}

int builder_resolve(struct tree_builder *builder, const char *path, size_t length, bool create, uint32_t *directory,
		    struct error *err)
{
	if (create && builder->last_directory != TREE_NONE && builder->last_path.used == length &&
	    (!length || memcmp(builder->last_path.data, path, length) == 0)) {
		*directory = builder->last_directory;
		return 0;
	}
	struct path_cursor cursor;
	path_cursor_begin(&cursor, path, length);
	uint32_t here = 0;
	const char *name;
	size_t name_bytes;
	int ret = 0;
	while (!ret && path_cursor_next(&cursor, &name, &name_bytes)) {
		ret = step(builder, &cursor, name, name_bytes, create, &here, err);
		if (create)
			*directory_touched(builder_inode(builder, here)) = builder_layer(builder);
	}
	path_cursor_end(&cursor);
	if (ret)
		return ret;
	if (create) {
		builder->last_path.used = 0;
		if (array_append(&builder->last_path, path, length))
			return error_set(err, -ENOMEM, "out of memory");
		builder->last_directory = here;
	}
	*directory = here;
	return 0;
}
