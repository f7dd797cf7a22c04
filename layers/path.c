/* Components of a path, symbolic links' targets pushed in front; see path_internal.h. */
#include "layers/path_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void path_cursor_begin(struct path_cursor *cursor, const char *path, size_t length)
{
	*cursor = (struct path_cursor){ .at = path, .end = path + length };
}

void path_cursor_end(struct path_cursor *cursor)
{
	free(cursor->buffer);
	cursor->buffer = NULL;
}

static const char *skip_slashes(const char *at, const char *end)
{
	while (at < end && *at == '/')
		at++;
	return at;
}

bool path_cursor_next(struct path_cursor *cursor, const char **name, size_t *length)
{
	const char *start = skip_slashes(cursor->at, cursor->end);
	if (start == cursor->end)
		return false;
	const size_t left = (size_t)(cursor->end - start);
	const char *slash = memchr(start, '/', left);
	*name = start;
	*length = slash ? (size_t)(slash - start) : left;
	cursor->at = start + *length;
	return true;
}

bool path_cursor_at_end(const struct path_cursor *cursor)
{
	return skip_slashes(cursor->at, cursor->end) == cursor->end;
}

int path_cursor_push(struct path_cursor *cursor, const char *target, size_t length)
{
	if (cursor->links == PATH_LINKS_MAX)
		return -ELOOP;
	cursor->links++;
	const size_t left = (size_t)(cursor->end - cursor->at);
	size_t total;
	if (__builtin_add_overflow(length, left, &total) || __builtin_add_overflow(total, 1, &total))
		return -ENOMEM;
	char *buffer = malloc(total);
	if (!buffer)
		return -ENOMEM;
	memcpy(buffer, target, length);
	buffer[length] = '/';
	memcpy(buffer + length + 1, cursor->at, left);
	free(cursor->buffer);
	cursor->buffer = buffer;
	cursor->at = buffer;
	cursor->end = buffer + total;
	return 0;
}

size_t path_clean(char *out, const char *path, size_t length)
{
	const char *at = path, *end = path + length;
	size_t used = 0;
	while ((at = skip_slashes(at, end)) < end) {
		const char *slash = memchr(at, '/', (size_t)(end - at));
		const size_t bytes = (size_t)((slash ? slash : end) - at);
		if (bytes == 2 && at[0] == '.' && at[1] == '.') {
			while (used && out[used - 1] != '/')
				used--;
			used -= used > 0; /* the slash before the component that went */
		} else if (!(bytes == 1 && at[0] == '.')) {
			if (used)
				out[used++] = '/';
			memmove(out + used, at, bytes);
			used += bytes;
		}
		at += bytes;
	}
	return used;
}
