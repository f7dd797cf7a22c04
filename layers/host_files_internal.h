/*
 * The files of a host directory as one source of a tree.
 *
 * Contents stay where they are. The source's bytes are those of the files in the order in which they were added, each at an offset of
 * its own with a gap behind it, so that no read runs from one into the next:
 *
 *     0          start of file 1     start of file 2
 *     | file 0 |..| file 1         |.| file 2 |....
 *
 * A file is opened when it is read, below the directory's descriptor and through no symbolic link, and stays open while it is among the
 * last few that were used. What it was when it was added (device, inode, size, times) is compared after every read: a file that was
 * changed, replaced or removed since is an error and never other bytes. Times count in ticks of the kernel's clock; what is written
 * within the tick in which the file was added may be what the guest sees.
 */
#ifndef TRVMM_LAYERS_HOST_FILES_INTERNAL_H
#define TRVMM_LAYERS_HOST_FILES_INTERNAL_H

#include <stdint.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "base/error.h"

#define HOST_FILES_OPEN_MAX 64u /* descriptors, besides the directory's */
#define HOST_PATH_MAX 65535u /* bytes of a path below the directory; as in archives */

struct host_files;

/* Takes over the descriptor of the directory, also on failure. Returns NULL when memory is out. */
struct host_files *host_files_create(int directory);
void host_files_destroy(struct host_files *files);

/* The directory's own descriptor. */
int host_files_root(const struct host_files *files);

/* Adds the directory `name` in directory `parent`; 0 is the top, which is there. Returns 0, -ENAMETOOLONG or -ENOMEM. */
int host_files_add_directory(struct host_files *files, uint32_t parent, const char *name, uint32_t *number);
uint32_t host_files_directory_count(const struct host_files *files);

/* Adds a regular file in the state `st`; its bytes begin at `offset` of the source. Returns 0, -EFBIG (16 EiB in all) or -ENOMEM. */
int host_files_add_file(struct host_files *files, uint32_t directory, const char *name, const struct stat *st, uint64_t *offset);

/* The source's length so far. */
uint64_t host_files_bytes(const struct host_files *files);

/*
 * Writes the path of `name` (NULL: of the directory itself) below the top to `out`, HOST_PATH_MAX + 1 bytes; "" is the top. Returns its
 * length, or -ENAMETOOLONG.
 */
int host_files_path(const struct host_files *files, uint32_t directory, const char *name, char *out);

/* Opens a directory to read its names. Returns the descriptor or -errno. */
int host_files_open_directory(const struct host_files *files, uint32_t directory);

/* Reads bytes of one file. Returns 0 or -errno with a line that begins with the file's quoted path. Any thread. */
int host_files_readv(struct host_files *files, uint64_t offset, const struct iovec *iov, unsigned count, struct error *err);

#endif
