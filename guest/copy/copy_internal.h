/* What both ends of a copy share: bytes through the pipe (pipe.c), extended attributes as bytes (xattr.c). */
#ifndef TRVMM_GUEST_COPY_COPY_INTERNAL_H
#define TRVMM_GUEST_COPY_COPY_INTERNAL_H

#include "guest/copy/copy.h"

/*
 * All of `length` bytes. A descriptor that does not block is waited for, at most `stall_ms` for one byte more (0: for ever). Returns 0 or
 * -errno: -ETIMEDOUT, -ENODATA at the end of what is read, -EPIPE.
 */
int copy_pipe_read(int fd, void *to, size_t length, int stall_ms);
int copy_pipe_write(int fd, const void *from, size_t length, int stall_ms);

/* The attributes of one file, as they are in the stream: times (name_bytes, value_bytes, name, value). */
struct copy_xattrs {
	uint32_t length;
	uint8_t bytes[COPY_XATTRS_MAX];
};

/* Those of `fd` that are copied: user.*, security.capability. Returns 0 or -errno: -E2BIG when they do not fit. */
int copy_xattrs_read(int fd, struct copy_xattrs *xattrs);

/* Gives them to `fd`: user.*; with `special` security.capability, too. Others are passed over. Returns 0 or -errno: -EBADMSG. */
int copy_xattrs_write(int fd, const struct copy_xattrs *xattrs, bool special);

#endif
