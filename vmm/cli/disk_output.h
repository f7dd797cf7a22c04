/* Where the subcommands of `trvmm disk` write what they make: a file that appears when it is complete, a pipe, or a device. */
#ifndef TRVMM_VMM_CLI_DISK_OUTPUT_H
#define TRVMM_VMM_CLI_DISK_OUTPUT_H

#include <stdbool.h>

#include "base/error.h"
#include "vmm/options.h"
#include "vmm/root_disk.h"

/* Writes everything to `fd`, at its position; `stream`: a pipe or a device, else a new file. Returns 0 or -errno with a line. */
typedef int disk_output_write(void *data, int fd, bool stream, struct error *err);

/*
 * Opens `path` ("-": standard output, which must not be a terminal) and has it written. A regular file is replaced when all was written; it
 * must not be one of the layers or the kept disk that `root` was made from. Returns 0 or -errno with a line that does not name the path.
 */
int disk_output(const char *path, const struct root_disk *root, const struct options *options, disk_output_write *write, void *data,
		struct error *err);

#endif
