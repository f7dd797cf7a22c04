/*
 * Walking a path whose symbolic links are followed: the components that are still to come.
 *
 * A cursor hands out one component after the other; a walker that meets a symbolic link pushes its target, whose components then
 * come first. The cursor knows nothing of trees: what ".." means and what a name leads to is the walker's business.
 */
#ifndef TRVMM_LAYERS_PATH_INTERNAL_H
#define TRVMM_LAYERS_PATH_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>

/* As the kernel's MAXSYMLINKS: more links on one path are a loop. */
#define PATH_LINKS_MAX 40u

struct path_cursor {
	const char *at, *end; /* borrowed, or inside `buffer` after the first push */
	char *buffer;         /* owned; NULL until a target was pushed */
	unsigned links;       /* targets pushed so far */
};

/* Starts at the first component of `path`, which stays borrowed until path_cursor_end(). */
void path_cursor_begin(struct path_cursor *cursor, const char *path, size_t length);

/* Frees what pushes allocated. */
void path_cursor_end(struct path_cursor *cursor);

/* The next component, without slashes; "" never, "." and ".." as they are. Returns false at the end of the path. */
bool path_cursor_next(struct path_cursor *cursor, const char **name, size_t *length);

/* Whether no further component follows. */
bool path_cursor_at_end(const struct path_cursor *cursor);

/*
 * Puts the components of a symbolic link's target before those that are still to come. Returns 0, -ELOOP for the 41st, -ENOMEM.
 * The name that path_cursor_next() returned before is gone afterwards.
 */
int path_cursor_push(struct path_cursor *cursor, const char *target, size_t length);

/*
 * Cleans `path` lexically into `out` (room for `length` bytes): no leading, trailing or doubled slashes, no ".", and ".." takes
 * away the component before it and stops at the root. This is what container engines do to the names in a layer before they look at
 * any file system (Go's filepath.Clean), so "a/../b" is "b" though there may be no "a". Returns the new length; 0 is the root.
 */
size_t path_clean(char *out, const char *path, size_t length);

#endif
