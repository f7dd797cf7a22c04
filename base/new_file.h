/*
 * Files that appear whole or not at all: written without a name (O_TMPFILE) where the file system can, else under a temporary one beside
 * the wanted name, and linked there at the end. A reader never sees half of one; a failure leaves nothing behind.
 */
#ifndef TRVMM_BASE_NEW_FILE_H
#define TRVMM_BASE_NEW_FILE_H

#include <stdbool.h>
#include <sys/types.h>

struct new_file {
	int fd;          /* owned; for reading and writing */
	int folder_fd;   /* owned; where the name will be */
	char *name;      /* owned; in that folder */
	char *temporary; /* owned; the name that it has so far; NULL: none */
};

/* Creates it for the name `path`, with permissions `mode` less the umask. Returns 0 or -errno. new_file_abandon() frees it. */
int new_file_create(struct new_file *file, const char *path, mode_t mode);

/*
 * Gives it its name; with `replace`, in the place of what has that name. Returns 0, -EEXIST when it exists and is not to be replaced, or
 * -errno. The name is durable; what is in the file is the caller's to sync. new_file_abandon() is due afterwards all the same.
 */
int new_file_commit(struct new_file *file, bool replace);

/* Takes the descriptor out of it. */
int new_file_take_fd(struct new_file *file);

/* Frees it; what got no name is gone. */
void new_file_abandon(struct new_file *file);

#endif
