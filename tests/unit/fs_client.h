/*
 * What a guest's kernel says to the FUSE server, and malformed variants of it: builds requests in memory of its own, hands them over in
 * pieces of any size, and takes the answers apart. One client at a time; header only, for unit tests and fuzz targets.
 */
#ifndef TRVMM_TESTS_FS_CLIENT_H
#define TRVMM_TESTS_FS_CLIENT_H

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "devices/virtio-fs/fs_server.h"

#define FSC_BYTES (2u << 20)
#define FSC_FILL 0xa5 /* what lies in the answer's memory before */

struct fs_client {
	struct fs_server *server;
	uint32_t uid, gid; /* the caller in the next requests */
	uint64_t unique;
	uint8_t *in, *out; /* owned; FSC_BYTES each */
	size_t in_length, out_room;
	size_t in_piece, out_piece; /* how the memory is cut up; 0: whole */
	struct fuse_out_header *answer; /* of the last request, in `out` */
	uint8_t *body;
	size_t body_length;
};

static inline void fsc_init(struct fs_client *c, struct fs_server *server)
{
	*c = (struct fs_client){ .server = server, .unique = 1000, .in = malloc(FSC_BYTES), .out = malloc(FSC_BYTES) };
	assert(c->in && c->out);
}

static inline void fsc_free(struct fs_client *c)
{
	free(c->in);
	free(c->out);
	fs_server_destroy(c->server);
	*c = (struct fs_client){ .server = NULL };
}

/* ---- building --------------------------------------------------------------------------------------------------------------------- */

static inline void fsc_begin(struct fs_client *c, uint32_t opcode, uint64_t nodeid)
{
	const struct fuse_in_header header = {
		.opcode = opcode, .unique = ++c->unique, .nodeid = nodeid, .uid = c->uid, .gid = c->gid, .pid = 1
	};
	memcpy(c->in, &header, sizeof(header));
	c->in_length = sizeof(header);
	c->out_room = FSC_BYTES;
}

static inline void fsc_add(struct fs_client *c, const void *bytes, size_t length)
{
	assert(length <= FSC_BYTES - c->in_length);
	if (length)
		memcpy(c->in + c->in_length, bytes, length);
	c->in_length += length;
}

static inline void fsc_add_string(struct fs_client *c, const char *text)
{
	fsc_add(c, text, strlen(text) + 1);
}

static inline struct fuse_in_header *fsc_header(struct fs_client *c)
{
	return (struct fuse_in_header *)(void *)c->in;
}

/* ---- sending ---------------------------------------------------------------------------------------------------------------------- */

static inline size_t fsc_cut(uint8_t *bytes, size_t length, size_t piece, struct iovec **made)
{
	const size_t count = !piece ? 1 : (length + piece - 1) / piece;
	struct iovec *iov = calloc(count ? count : 1, sizeof(*iov));
	assert(iov);
	for (size_t i = 0, at = 0; i < count; i++) {
		iov[i].iov_base = bytes + at;
		iov[i].iov_len = piece && piece < length - at ? piece : length - at;
		at += iov[i].iov_len;
	}
	*made = iov;
	return count;
}

/* Sends what was built as it is, header.len included. Returns what the server did. */
static inline ssize_t fsc_send_raw(struct fs_client *c)
{
	struct iovec *in, *out;
	const size_t in_count = fsc_cut(c->in, c->in_length, c->in_piece, &in);
	const size_t out_count = fsc_cut(c->out, c->out_room, c->out_piece, &out);

	memset(c->out, FSC_FILL, c->out_room < 256 ? c->out_room : 256);
	const ssize_t length = fs_server_handle(c->server, in, in_count, out, out_count);
	free(in);
	free(out);
	c->answer = (struct fuse_out_header *)(void *)c->out;
	c->body = c->out + sizeof(*c->answer);
	c->body_length = length > (ssize_t)sizeof(*c->answer) ? (size_t)length - sizeof(*c->answer) : 0;
	return length;
}

/* Sends a request that is due an answer. Returns its error, 0 or negative; an answer that is none ends the test. */
static inline int fsc_send(struct fs_client *c)
{
	fsc_header(c)->len = (uint32_t)c->in_length;
	const ssize_t length = fsc_send_raw(c);
	assert(length >= (ssize_t)sizeof(*c->answer) && (size_t)length == c->answer->len);
	assert(c->answer->unique == fsc_header(c)->unique);
	assert(c->answer->error == 0 || (c->answer->error > -4096 && c->answer->error < 0 && c->body_length == 0));
	return c->answer->error;
}

/* ---- operations: each returns 0 or the error -------------------------------------------------------------------------------------- */

static inline int fsc_start_with(struct fs_client *c, uint32_t flags)
{
	const struct fuse_init_in in = { .major = 7, .minor = 37, .max_readahead = 131072, .flags = flags };
	fsc_begin(c, FUSE_INIT, 0);
	fsc_add(c, &in, sizeof(in));
	return fsc_send(c);
}

/* All that a Linux client offers. */
static inline int fsc_start(struct fs_client *c)
{
	return fsc_start_with(c, 0x7fffffff);
}

static inline const struct fuse_entry_out *fsc_entry(const struct fs_client *c)
{
	return (const struct fuse_entry_out *)(const void *)c->body;
}

static inline int fsc_entry_id(struct fs_client *c, uint64_t *id)
{
	const int result = fsc_send(c);
	if (id)
		*id = result ? 0 : fsc_entry(c)->nodeid;
	return result;
}

static inline int fsc_lookup(struct fs_client *c, uint64_t parent, const char *name, uint64_t *id)
{
	fsc_begin(c, FUSE_LOOKUP, parent);
	fsc_add_string(c, name);
	return fsc_entry_id(c, id);
}

/* Node by node. */
static inline int fsc_walk(struct fs_client *c, const char *path, uint64_t *id)
{
	char copy[4096], *rest = copy, *name;
	uint64_t at = FUSE_ROOT_ID;
	int result = 0;
	snprintf(copy, sizeof(copy), "%s", path);
	while (!result && (name = strsep(&rest, "/")))
		if (*name)
			result = fsc_lookup(c, at, name, &at);
	*id = at;
	return result;
}

static inline void fsc_forget(struct fs_client *c, uint64_t id, uint64_t count)
{
	const struct fuse_forget_in in = { .nlookup = count };
	fsc_begin(c, FUSE_FORGET, id);
	fsc_add(c, &in, sizeof(in));
	fsc_header(c)->len = (uint32_t)c->in_length;
	c->out_room = 0;
	const ssize_t length = fsc_send_raw(c);
	assert(length == 0);
}

static inline int fsc_getattr(struct fs_client *c, uint64_t id, struct fuse_attr *attr)
{
	const struct fuse_getattr_in in = { .getattr_flags = 0 };
	fsc_begin(c, FUSE_GETATTR, id);
	fsc_add(c, &in, sizeof(in));
	const int result = fsc_send(c);
	if (!result)
		memcpy(attr, &((const struct fuse_attr_out *)(const void *)c->body)->attr, sizeof(*attr));
	return result;
}

static inline int fsc_setattr(struct fs_client *c, uint64_t id, struct fuse_setattr_in in)
{
	fsc_begin(c, FUSE_SETATTR, id);
	fsc_add(c, &in, sizeof(in));
	return fsc_send(c);
}

static inline int fsc_open_with(struct fs_client *c, uint32_t opcode, uint64_t id, uint32_t flags, uint64_t *fh)
{
	const struct fuse_open_in in = { .flags = flags };
	fsc_begin(c, opcode, id);
	fsc_add(c, &in, sizeof(in));
	const int result = fsc_send(c);
	*fh = result ? 0 : ((const struct fuse_open_out *)(const void *)c->body)->fh;
	return result;
}

static inline int fsc_open(struct fs_client *c, uint64_t id, uint32_t flags, uint64_t *fh)
{
	return fsc_open_with(c, FUSE_OPEN, id, flags, fh);
}

static inline int fsc_opendir(struct fs_client *c, uint64_t id, uint64_t *fh)
{
	return fsc_open_with(c, FUSE_OPENDIR, id, O_RDONLY | O_DIRECTORY, fh);
}

static inline int fsc_release(struct fs_client *c, uint64_t id, uint64_t fh)
{
	const struct fuse_release_in in = { .fh = fh };
	fsc_begin(c, FUSE_RELEASE, id);
	fsc_add(c, &in, sizeof(in));
	return fsc_send(c);
}

static inline int fsc_create_with(struct fs_client *c, uint32_t opcode, uint64_t parent, const char *name, uint32_t flags,
				  uint32_t mode, uint64_t *id, uint64_t *fh)
{
	const struct fuse_create_in in = { .flags = flags, .mode = S_IFREG | mode };
	fsc_begin(c, opcode, parent);
	fsc_add(c, &in, sizeof(in));
	fsc_add_string(c, name);
	const int result = fsc_entry_id(c, id);
	*fh = result ? 0 : ((const struct fuse_open_out *)(const void *)(c->body + sizeof(struct fuse_entry_out)))->fh;
	return result;
}

static inline int fsc_create(struct fs_client *c, uint64_t parent, const char *name, uint32_t flags, uint32_t mode, uint64_t *id,
			     uint64_t *fh)
{
	return fsc_create_with(c, FUSE_CREATE, parent, name, flags | O_CREAT, mode, id, fh);
}

/* Returns how many bytes, at most `size`, lie in the body, or the error. */
static inline ssize_t fsc_read_with(struct fs_client *c, uint32_t opcode, uint64_t id, uint64_t fh, uint64_t offset, uint32_t size)
{
	const struct fuse_read_in in = { .fh = fh, .offset = offset, .size = size };
	fsc_begin(c, opcode, id);
	fsc_add(c, &in, sizeof(in));
	if (size < FSC_BYTES - sizeof(struct fuse_out_header))
		c->out_room = sizeof(struct fuse_out_header) + size;
	const int result = fsc_send(c);
	return result ? result : (ssize_t)c->body_length;
}

static inline ssize_t fsc_read(struct fs_client *c, uint64_t id, uint64_t fh, uint64_t offset, uint32_t size)
{
	return fsc_read_with(c, FUSE_READ, id, fh, offset, size);
}

static inline ssize_t fsc_write_with(struct fs_client *c, uint64_t id, struct fuse_write_in in, const void *bytes)
{
	fsc_begin(c, FUSE_WRITE, id);
	fsc_add(c, &in, sizeof(in));
	fsc_add(c, bytes, in.size);
	const int result = fsc_send(c);
	return result ? result : (ssize_t)((const struct fuse_write_out *)(const void *)c->body)->size;
}

static inline ssize_t fsc_write(struct fs_client *c, uint64_t id, uint64_t fh, uint64_t offset, const void *bytes, uint32_t size)
{
	return fsc_write_with(c, id, (struct fuse_write_in){ .fh = fh, .offset = offset, .size = size }, bytes);
}

static inline int fsc_mknod(struct fs_client *c, uint64_t parent, const char *name, uint32_t mode, uint32_t rdev, uint64_t *id)
{
	const struct fuse_mknod_in in = { .mode = mode, .rdev = rdev };
	fsc_begin(c, FUSE_MKNOD, parent);
	fsc_add(c, &in, sizeof(in));
	fsc_add_string(c, name);
	return fsc_entry_id(c, id);
}

static inline int fsc_mkdir(struct fs_client *c, uint64_t parent, const char *name, uint32_t mode, uint64_t *id)
{
	const struct fuse_mkdir_in in = { .mode = mode };
	fsc_begin(c, FUSE_MKDIR, parent);
	fsc_add(c, &in, sizeof(in));
	fsc_add_string(c, name);
	return fsc_entry_id(c, id);
}

static inline int fsc_symlink(struct fs_client *c, uint64_t parent, const char *name, const char *target, uint64_t *id)
{
	fsc_begin(c, FUSE_SYMLINK, parent);
	fsc_add_string(c, name);
	fsc_add_string(c, target);
	return fsc_entry_id(c, id);
}

static inline int fsc_readlink(struct fs_client *c, uint64_t id, char *target, size_t size)
{
	fsc_begin(c, FUSE_READLINK, id);
	const int result = fsc_send(c);
	if (!result)
		snprintf(target, size, "%.*s", (int)c->body_length, (const char *)c->body);
	return result;
}

static inline int fsc_link(struct fs_client *c, uint64_t old, uint64_t parent, const char *name)
{
	const struct fuse_link_in in = { .oldnodeid = old };
	fsc_begin(c, FUSE_LINK, parent);
	fsc_add(c, &in, sizeof(in));
	fsc_add_string(c, name);
	return fsc_send(c);
}

/* UNLINK or RMDIR. */
static inline int fsc_remove(struct fs_client *c, uint32_t opcode, uint64_t parent, const char *name)
{
	fsc_begin(c, opcode, parent);
	fsc_add_string(c, name);
	return fsc_send(c);
}

static inline int fsc_rename(struct fs_client *c, uint64_t parent, const char *name, uint64_t new_parent, const char *new_name,
			     uint32_t flags)
{
	const struct fuse_rename2_in in = { .newdir = new_parent, .flags = flags };
	fsc_begin(c, FUSE_RENAME2, parent);
	fsc_add(c, &in, sizeof(in));
	fsc_add_string(c, name);
	fsc_add_string(c, new_name);
	return fsc_send(c);
}

static inline int fsc_setxattr(struct fs_client *c, uint64_t id, const char *name, const void *value, uint32_t size, uint32_t flags)
{
	const struct fuse_setxattr_in in = { .size = size, .flags = flags };
	fsc_begin(c, FUSE_SETXATTR, id);
	fsc_add(c, &in, sizeof(in));
	fsc_add_string(c, name);
	fsc_add(c, value, size);
	return fsc_send(c);
}

/* GETXATTR, or LISTXATTR without a name. Returns the length of the value in the body (`size` 0: that it has), or the error. */
static inline ssize_t fsc_getxattr(struct fs_client *c, uint64_t id, const char *name, uint32_t size)
{
	const struct fuse_getxattr_in in = { .size = size };
	fsc_begin(c, name ? FUSE_GETXATTR : FUSE_LISTXATTR, id);
	fsc_add(c, &in, sizeof(in));
	if (name)
		fsc_add_string(c, name);
	const int result = fsc_send(c);
	if (result)
		return result;
	return size ? (ssize_t)c->body_length : (ssize_t)((const struct fuse_getxattr_out *)(const void *)c->body)->size;
}

static inline int fsc_removexattr(struct fs_client *c, uint64_t id, const char *name)
{
	fsc_begin(c, FUSE_REMOVEXATTR, id);
	fsc_add_string(c, name);
	return fsc_send(c);
}

/* ---- directories ------------------------------------------------------------------------------------------------------------------ */

/*
 * One READDIR (PLUS) of `size` bytes. Calls `each` for every entry; `entry` is NULL without PLUS. Returns the number of entries, and the
 * offset to go on from in *offset, or the error.
 */
typedef void fsc_each(void *arg, const char *name, const struct fuse_dirent *dirent, const struct fuse_entry_out *entry);

static inline ssize_t fsc_readdir(struct fs_client *c, bool plus, uint64_t id, uint64_t fh, uint64_t *offset, uint32_t size,
				  fsc_each *each, void *arg)
{
	const ssize_t length = fsc_read_with(c, plus ? FUSE_READDIRPLUS : FUSE_READDIR, id, fh, *offset, size);
	const size_t fixed = plus ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET;
	ssize_t count = 0;

	for (size_t at = 0; length > 0 && at < (size_t)length; count++) {
		struct fuse_dirent dirent;
		struct fuse_entry_out entry;
		char name[256];
		assert((size_t)length - at >= fixed);
		if (plus)
			memcpy(&entry, c->body + at, sizeof(entry));
		memcpy(&dirent, c->body + at + fixed - FUSE_NAME_OFFSET, FUSE_NAME_OFFSET);
		assert(dirent.namelen && dirent.namelen <= 255 && FUSE_REC_ALIGN(fixed + dirent.namelen) <= (size_t)length - at);
		memcpy(name, c->body + at + fixed, dirent.namelen);
		name[dirent.namelen] = 0;
		assert(strlen(name) == dirent.namelen && !strchr(name, '/'));
		at += FUSE_REC_ALIGN(fixed + dirent.namelen);
		*offset = dirent.off;
		if (each)
			each(arg, name, &dirent, plus ? &entry : NULL);
	}
	return length < 0 ? length : count;
}

#endif
