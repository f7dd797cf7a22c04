/*
 * Files and trees as a stream of bytes: what `trvmm cp` sends through a command's pipe. Both ends are this code, one in trvmm and one in
 * a program that trvmm brings into the guest (main.c), so that an image needs none of its own.
 *
 * The stream is records, little-endian:
 *
 *    | struct copy_header | path | link | xattrs | contents ... |
 *
 * Paths go from the thing that is copied, whose own path is empty and which comes first. A directory is sent as COPY_ENTRY before what is
 * in it and as COPY_LEAVE behind that, when its mode, times and extended attributes are set. COPY_END ends the stream; without it something
 * went wrong. The contents of a regular file of size_bytes > 0 are parts, each of which goes on where the one before ended, until the file
 * is complete: a hole, then data.
 *
 *    | struct copy_part | data ... |
 *
 * The receiver trusts nothing: paths have no "..", "." or empty parts, directories on the way are resolved below the destination and never
 * through a symbolic link, what is in the way is removed and not written through, and the sum of all contents is bounded (with their holes;
 * each record counts COPY_RECORD_COST more). An end whose descriptor does not block gives up when the other has been silent for too long.
 *
 * No messages are made here: `struct copy_problem` says what failed, for each end to tell in its way. One copy at a time (static buffers).
 */
#ifndef TRVMM_GUEST_COPY_COPY_H
#define TRVMM_GUEST_COPY_COPY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/le.h"

#define COPY_NAME ".trvmm-copy" /* in the root folder, of a disk and of a share */
#define COPY_PATH "/" COPY_NAME

#define COPY_PATH_MAX 4095u
#define COPY_NAME_MAX 255u
#define COPY_XATTRS_MAX 131072u /* of one file, names and values */
#define COPY_RECORD_COST 512u /* about what an inode and a name take: there is no endless stream of empty files */

enum copy_kind {
	COPY_END = 0,
	COPY_ENTRY = 1, /* the mode says of what type */
	COPY_LINK = 2, /* a hard link: `link` is the path of a file sent before */
	COPY_LEAVE = 3,
};

struct copy_header {
	le32 kind;
	le32 mode; /* as in struct stat */
	le32 uid, gid;
	le32 major, minor; /* of a device */
	le64 mtime_s; /* two's complement */
	le32 mtime_ns;
	le16 path_bytes, link_bytes; /* `link`: also the target of a symbolic link */
	le64 size_bytes; /* of the contents: regular files only */
	le32 xattrs_bytes; /* of regular files, and directories that are left; at most COPY_XATTRS_MAX */
	le32 zero;
};

struct copy_part {
	le64 hole_bytes, data_bytes; /* not both 0 */
};

struct copy_problem {
	const char *what; /* "read", "make", ... */
	char path[COPY_PATH_MAX + 1];
};

/*
 * Writes `path` and all below it. A symbolic link is sent as such unless the path ends with a slash or "/."; sockets are left out.
 * Returns 0 or -errno: -EPIPE when the other end has gone, -ETIMEDOUT when it took nothing for `stall_ms` (0: it is waited for; only when
 * `to` does not block).
 */
int copy_send(int to, const char *path, int stall_ms, struct copy_problem *problem);

struct copy_target {
	const char *destination; /* as docker cp has it: an existing directory is copied into, else this is the new name */
	const char *name; /* in an existing directory */
	bool contents; /* a directory's contents go into an existing directory, instead of itself */
	bool owners; /* keep owners */
	bool special; /* keep set-user-ID and set-group-ID bits and capabilities, make device nodes */
	uint64_t bytes_max; /* contents in all */
	int stall_ms; /* how long the sender may be silent; 0: for ever; only when `from` does not block */
};

/*
 * Reads a stream and makes what is in it. Returns 0 or -errno: -ENODATA when it ends before its end, -EBADMSG when it is malformed,
 * -EPERM for a device node without `special`, -EFBIG beyond bytes_max, -ETIMEDOUT. What was made before stays, a file that is not complete
 * does not.
 */
int copy_receive(int from, const struct copy_target *target, struct copy_problem *problem);

#endif
