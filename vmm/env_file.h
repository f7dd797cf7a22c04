/*
 * Files of environment variables (--env-file), in docker's format: a line is NAME=VALUE, or NAME alone for the caller's own value, which is
 * left out when the caller has none. Blanks before a name, empty lines and lines that begin with # are skipped, as is a byte order mark.
 * There is no quoting: a value is the rest of the line, blanks and all, but for the carriage return of a DOS file.
 */
#ifndef TRVMM_VMM_ENV_FILE_H
#define TRVMM_VMM_ENV_FILE_H

#include "base/error.h"

#define ENV_FILE_BYTES_MAX (1u << 20)
#define ENV_FILE_LINES_MAX 16384u

/* Gets one variable, "NAME=VALUE", which lives for the call. Returns 0 or -errno with one line. */
typedef int env_file_taker(void *data, const char *variable, struct error *err);

/*
 * Tells `take` of each variable of the file `path`, from top to bottom. Returns 0; -EINVAL with one line that names the file and its
 * line; -errno with one line when it cannot be read; or what `take` returned.
 */
int env_file_read(const char *path, env_file_taker *take, void *data, struct error *err);

#endif
