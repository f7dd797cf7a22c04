/*
 * What the files of the FUSE server share. fs_server.h says what the server is; each part below names the file that has it.
 *
 * Locks: fs_server.lock guards the tables of nodes and of open files and is held for some instructions only, never around a system call
 * that looks at the shared directory. fs_file.dir_lock guards the position of one open directory, and is held around getdents64() on it.
 * Nothing is locked while the second is wanted but nothing else. fs_window.lock guards what is mapped, and is held around the calls that
 * map it; fs_server.lock may be wanted while it is held.
 */
#ifndef TRVMM_DEVICES_VIRTIO_FS_FS_INTERNAL_H
#define TRVMM_DEVICES_VIRTIO_FS_FS_INTERNAL_H

#include <linux/fuse.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#include "devices/virtio-fs/fs_server.h"

#define FS_NAME_MAX 255u
#define FS_DATA_MAX (1u << 20) /* bytes of file data in one request */

/* ---- nodes: fs_node.c and, for their descriptors, fs_node_fd.c -------------------------------------------------------------------- */

/* What makes a file of the host the same one as before: inode numbers are used again, the moments of birth are not. */
struct fs_identity {
	uint64_t dev, ino;
	int64_t birth_ns; /* 0 where the file system has none */
	mode_t type; /* S_IFMT bits */
};

enum fs_node_kind {
	FS_NODE_HOST, /* a file of the host */
	FS_NODE_LIST, /* the root of a share that is one file: a directory that holds just that */
	FS_NODE_EXTRA, /* one of fs_config.extras */
};

/*
 * A file that the client knows by number. Its number is `index | generation << 32`; index 1 of generation 0 is the root. A node has an
 * O_PATH descriptor only while one is wanted, and is found again by its parent and name.
 *
 * All but identity, kind and index, which never change, and the atomics, is guarded by fs_server.lock. A pointer to a node is good as
 * long as one of its `refs` is the holder's.
 */
struct fs_node {
	struct fs_identity identity;
	uint64_t lookups; /* how often the client was given it and did not forget it yet; one of `refs` when not 0 */
	char *name; /* owned; in `parent`; NULL: it has no name that we know */
	struct fs_node *parent; /* one of its `refs`; NULL: none known */
	struct fs_node *next; /* in its hash bucket, or among the free ones */
	_Atomic uint64_t seen; /* what the file was like when it was last opened: fs_open.c */
	uint32_t index, generation;
	uint32_t refs;
	int fd; /* O_PATH; -1: none now */
	uint32_t fd_users; /* who use `fd`; an open file is one for as long as it is open */
	uint32_t slot; /* where fs_server.slots names it, while fd >= 0 */
	uint8_t kind; /* enum fs_node_kind */
	bool hashed;
	bool lasting; /* exists until the server ends, whatever the client forgets */
	bool recent; /* `fd` was used since the hand last came by */
	atomic_bool marked; /* the file may have kept attributes: fs_kept.c */
};

uint64_t fs_node_id(const struct fs_node *node);
struct fs_identity fs_identity_of(const struct statx *stx);
bool fs_identity_same(const struct fs_identity *a, const struct fs_identity *b);

/* Sets up the tables, of *_max entries. Returns 0 or -ENOMEM. */
int fs_nodes_init(struct fs_server *server);
/* Adds a node that exists until the server ends, of the file that `stx` describes (NULL: none). The first is the root. NULL: no memory. */
struct fs_node *fs_node_add_lasting(struct fs_server *server, enum fs_node_kind kind, const struct statx *stx);
void fs_nodes_free(struct fs_server *server);

/* A reference to the node of this number. Returns 0 or -ESTALE. */
int fs_node_get(struct fs_server *server, uint64_t id, struct fs_node **node);
void fs_node_ref(struct fs_server *server, struct fs_node *node);
/* Gives back a reference. NULL is allowed. */
void fs_node_put(struct fs_server *server, struct fs_node *node);

/*
 * A reference to the node of the file that `stx` describes and that was just found as `name` in `parent` (NULL, NULL: nowhere), made if
 * there is none. Returns 0, -ENFILE (there are too many) or -ENOMEM.
 */
int fs_node_add(struct fs_server *server, const struct statx *stx, struct fs_node *parent, const char *name, struct fs_node **node);

/* The client was given the node once more. */
void fs_node_count_lookup(struct fs_server *server, struct fs_node *node);
/* It forgets it so often; more than it was given is as often as it was given. Unknown numbers are ignored. */
void fs_node_forget(struct fs_server *server, uint64_t id, uint64_t lookups);
/* It forgets everything. */
void fs_nodes_forget_all(struct fs_server *server);

/*
 * An O_PATH descriptor of the node, which stays open until fs_node_close(). Returns it, or -ESTALE (the file is no longer what the client
 * knows under this number), -ENFILE or another -errno.
 */
int fs_node_open(struct fs_server *server, struct fs_node *node);
void fs_node_close(struct fs_server *server, struct fs_node *node);

/* Gives `node` the descriptor `fd` (O_PATH), which is open as by fs_node_open(). Owned from here on, also on failure (-ENFILE). */
int fs_node_give_fd(struct fs_server *server, struct fs_node *node, int fd);

/* statx() of the node, by its descriptor or its name. Returns 0, -ESTALE or another -errno. Not for the kind FS_NODE_LIST. */
int fs_node_statx(struct fs_server *server, struct fs_node *node, struct statx *stx);

/* statx() of `name` in a directory (not followed), or with "" of the descriptor itself. Returns 0 or -errno. */
int fs_statx(int fd, const char *name, struct statx *stx);

/*
 * Opens the file of an O_PATH (or any) descriptor once more, with these flags. The caller knows that it is a regular file or a directory.
 * Returns the descriptor or -errno.
 */
int fs_reopen(const struct fs_server *server, int fd, int flags);

/*
 * fs_reopen() of an O_PATH descriptor of the node for what the client reads and writes. Returns the descriptor or -errno: -EACCES for
 * files of procfs, which are not opened: one of them is this process's own memory. (A share of / has it, and the guest its own.)
 */
int fs_node_reopen(const struct fs_server *server, const struct fs_node *node, int path_fd, int flags);

/* A descriptor for reading of a regular file or directory: what f*xattr() wants. Returns it, -EOPNOTSUPP for another type, or -errno. */
int fs_node_open_readable(struct fs_server *server, struct fs_node *node);

/* ---- open files: fs_file.c --------------------------------------------------------------------------------------------------------- */

/* Names that were read from the directory and not yet asked for. */
struct fs_dir_buffer {
	uint8_t *bytes; /* owned; struct linux_dirent64 one after the other; NULL: none yet */
	size_t start, stop;
	uint64_t offset; /* of the entry at `start`: what the client asks for when it reads on */
	uint64_t position; /* of the list that a FS_NODE_LIST has */
};

struct fs_file {
	struct fs_node *node; /* one of its refs, and of its fd_users unless kind is not FS_NODE_HOST */
	int fd; /* owned, unless `borrowed`; -1 for the FS_NODE_LIST */
	uint32_t index, generation;
	uint32_t refs; /* guarded by fs_server.lock */
	bool directory, writable, borrowed;
	bool open; /* the client did not release it; one of `refs` */
	pthread_mutex_t dir_lock;
	struct fs_dir_buffer entries;
};

int fs_files_init(struct fs_server *server);
void fs_files_free(struct fs_server *server);

/*
 * Makes an open file of `fd` (owned from here on, also on failure) of `node`, on which fs_node_open() was done; closing the file does
 * fs_node_close(). Returns 0 and its number, or -ENFILE, -ENOMEM: then fs_node_close() is still the caller's.
 */
int fs_file_add(struct fs_server *server, struct fs_node *node, int fd, int flags, uint64_t *fh);

/* Would fs_file_add() say -ENFILE? To be asked before a file is made that could not be opened. */
bool fs_files_full(struct fs_server *server);

/* A reference to an open file. Returns 0, or -EBADF: unknown number, or a directory when a file is wanted, or the other way round. */
int fs_file_get(struct fs_server *server, uint64_t fh, bool directory, struct fs_file **file);
void fs_file_put(struct fs_server *server, struct fs_file *file);
/* The client closes it. Unknown numbers are ignored. */
void fs_file_release(struct fs_server *server, uint64_t fh);
void fs_files_release_all(struct fs_server *server);

/* ---- files that the client has mapped: fs_dax.c ------------------------------------------------------------------------------------ */

#define FS_RANGES (FS_WINDOW_BYTES / FS_RANGE_BYTES)

struct fs_range {
	struct fs_node *node; /* one of its refs; NULL: nothing is mapped here */
	uint64_t offset; /* in the file */
	uint32_t there_bytes; /* so much, from its start, can be accessed: whole pages */
	uint32_t life; /* how many mappings it has had */
	bool writable;
};

struct fs_window {
	pthread_mutex_t lock; /* guards `ranges` and changes of what is mapped */
	uint8_t *host; /* owned; NULL: there is no window */
	struct fs_range ranges[FS_RANGES];
	_Atomic unsigned mapped; /* ranges that have a node */
};

/* Reserves the address space. Returns 0 or -errno. */
int fs_window_init(struct fs_window *window);
void fs_window_free(struct fs_server *server);
/* Takes everything away, as after a reset. */
void fs_window_clear(struct fs_server *server);

/* ---- the server: fs_server.c ------------------------------------------------------------------------------------------------------ */

struct fs_server {
	/* set at creation */
	char *name; /* owned */
	enum fs_cache cache;
	bool read_only, writeback_wanted;
	enum fs_dax dax;
	bool privileged; /* true ids; else one host user, and ids kept in xattrs: fs_kept.c */
	bool xattrs; /* the file system has user xattrs */
	bool root_is_proc;
	bool folds_case; /* names that were not there may come to be by another one's making */
	bool flush_matters; /* a network file system, where close() may fail */
	uid_t uid; /* who we are */
	gid_t gid;
	int root_fd; /* owned; O_PATH */
	int root_dir_fd; /* owned; the same, open for reading, for syncfs(); -1 for a single file */
	int proc_fd; /* owned; O_PATH of /proc/self/fd */
	uint64_t root_dev;
	struct {
		char *name; /* owned; NULL: no more of them */
		int fd; /* borrowed */
		struct fs_node *node; /* a lasting one, borrowed */
	} extras[FS_EXTRAS_MAX];
	struct fs_node *single; /* a lasting node, borrowed; NULL: none */
	unsigned slots_max, files_max, nodes_max;

	/* set by FUSE_INIT */
	atomic_bool ready;
	atomic_bool writeback, setxattr_ext;

	struct fs_window window;

	pthread_mutex_t lock; /* guards what follows */
	struct fs_node **chunks; /* owned; node `index` is chunks[index / FS_CHUNK][index % FS_CHUNK] */
	uint32_t nodes_made; /* as many indices were ever used; 0 never is */
	struct fs_node *free_nodes;
	struct fs_node **buckets; /* owned */
	uint32_t bucket_count, hashed_count;
	struct fs_node **slots; /* owned; slots_max: nodes with a descriptor; NULL: free */
	uint32_t *free_slots, free_slot_count; /* owned; a stack */
	uint32_t hand;
	struct fs_file **files; /* owned; NULL: free */
	uint32_t *file_generations; /* owned */
	uint32_t file_count, file_next;

	_Atomic uint64_t requests, read_bytes, write_bytes, errors, node_count, descriptors;
};

#define FS_CHUNK 1024u

/* ---- requests: fs_request.c ------------------------------------------------------------------------------------------------------- */

union fs_arguments {
	struct fuse_forget_in forget;
	struct fuse_batch_forget_in batch_forget;
	struct fuse_getattr_in getattr;
	struct fuse_setattr_in setattr;
	struct fuse_mknod_in mknod;
	struct fuse_mkdir_in mkdir;
	struct fuse_rename_in rename;
	struct fuse_rename2_in rename2;
	struct fuse_link_in link;
	struct fuse_open_in open;
	struct fuse_create_in create;
	struct fuse_read_in read;
	struct fuse_write_in write;
	struct fuse_release_in release;
	struct fuse_flush_in flush;
	struct fuse_fsync_in fsync;
	struct fuse_setxattr_in setxattr;
	struct fuse_getxattr_in getxattr;
	struct fuse_init_in init;
	struct fuse_fallocate_in fallocate;
	struct fuse_lseek_in lseek;
	struct fuse_copy_file_range_in copy_file_range;
	struct fuse_setupmapping_in setupmapping;
	struct fuse_removemapping_in removemapping;
};

/* One request: all that is parsed was copied from the client's memory before. */
struct fs_request {
	struct fs_server *server;
	struct fuse_in_header header;
	union fs_arguments args;
	struct fs_node *node; /* of header.nodeid; a reference is held; NULL for operations without one */
	char names[2][FS_NAME_MAX + 1]; /* checked by fs_name_check() */
	const struct iovec *in, *out; /* the client's memory */
	unsigned in_count, out_count;
	size_t in_at, in_stop; /* what of the request is still to be read */
	size_t out_room; /* bytes behind the fuse_out_header */
};

/* Handlers return the bytes of the answer's body, which they wrote, or -errno, or: */
#define FS_NO_ANSWER (-100000)

typedef ssize_t fs_handler(struct fs_request *request);

/* Writes the body; there is room, as the table of operations says. Returns `length`. */
ssize_t fs_answer(struct fs_request *request, const void *body, size_t length);
/* Writes to the body at byte `offset`, as far as there is room. */
void fs_answer_at(struct fs_request *request, size_t offset, const void *bytes, size_t length);

/* Copies the next `length` bytes of the request. Returns 0 or -EINVAL when it has not so many. */
int fs_request_take(struct fs_request *request, void *to, size_t length);

/*
 * Copies the next string with its NUL to `to`, which has `size` bytes. Returns 0, -ENAMETOOLONG, or -EINVAL when it does not end.
 */
int fs_request_string(struct fs_request *request, char *to, size_t size);

/* Is it one name, of an entry in a directory? Returns 0, -EINVAL or -ENAMETOOLONG. */
int fs_name_check(const char *name);

/* ---- operations ------------------------------------------------------------------------------------------------------------------- */

/* fs_init.c */
fs_handler fs_do_init, fs_do_destroy;
/* fs_entry.c */
fs_handler fs_do_lookup, fs_do_forget, fs_do_batch_forget;
/* fs_attr.c */
fs_handler fs_do_getattr, fs_do_setattr, fs_do_readlink, fs_do_statfs;
/* fs_open.c */
fs_handler fs_do_open, fs_do_create, fs_do_tmpfile, fs_do_opendir, fs_do_release;
/* fs_io.c */
fs_handler fs_do_read, fs_do_write, fs_do_flush, fs_do_fsync, fs_do_fsyncdir, fs_do_syncfs, fs_do_lseek, fs_do_fallocate,
	fs_do_copy_file_range;
/* fs_dir.c */
fs_handler fs_do_readdir, fs_do_readdirplus;
/* fs_make.c */
fs_handler fs_do_mknod, fs_do_mkdir, fs_do_symlink, fs_do_link, fs_do_unlink, fs_do_rmdir, fs_do_rename, fs_do_rename2;
/* fs_dax.c */
fs_handler fs_do_setupmapping, fs_do_removemapping;
/* fs_xattr.c */
fs_handler fs_do_setxattr, fs_do_getxattr, fs_do_listxattr, fs_do_removexattr;

/* ---- entries: fs_entry.c ---------------------------------------------------------------------------------------------------------- */

/* Is `node` a directory of the host, in which names can be made and removed? Returns 0, -ENOTDIR or -EPERM. */
int fs_check_parent(const struct fs_node *node);
/* The extra file that `name` in `parent` is, which nobody changes; NULL: it is none. */
struct fs_node *fs_find_extra(const struct fs_server *server, const struct fs_node *parent, const char *name);
/* The descriptor of a node of the kind FS_NODE_EXTRA. */
int fs_extra_fd(const struct fs_server *server, const struct fs_node *node);

/*
 * Finds `name` in `parent`, whose descriptor is `parent_fd` (O_PATH or not), and counts a lookup of it. Returns 0 or -errno.
 */
int fs_entry_find(struct fs_server *server, struct fs_node *parent, int parent_fd, const char *name, struct fuse_entry_out *entry);

/* The same for a node, whose attributes are at hand. Returns 0 or -errno. */
int fs_entry_of(struct fs_server *server, struct fs_node *node, const struct statx *stx, struct fuse_entry_out *entry);

/* The attributes of a node as the client sees them. Returns 0 or -errno. */
int fs_attr_get(struct fs_server *server, struct fs_node *node, struct fuse_attr *attr);
/* The same from what statx() said. */
int fs_attr_of(struct fs_server *server, struct fs_node *node, const struct statx *stx, struct fuse_attr *attr);
/* The number that the client's stat() shows. */
uint64_t fs_inode_number(const struct fs_server *server, uint64_t dev, uint64_t ino);
/* How long the client may keep names and attributes, in seconds. */
uint64_t fs_valid_seconds(const struct fs_server *server);

/* ---- owners and modes: fs_kept.c, fs_ids.c ---------------------------------------------------------------------------------------- */

/* Whose a file is, and what, as the client sees it. */
struct fs_view {
	uint32_t uid, gid;
	uint32_t mode; /* with the type */
	uint32_t rdev_major, rdev_minor;
};

/* The view of a file. */
void fs_view_of(struct fs_server *server, struct fs_node *node, const struct statx *stx, struct fs_view *view);

/*
 * Makes the file have this view, which differs from the present one, `stx`. `fd` is any descriptor of the file. What the file system cannot
 * keep is left out. Returns 0 or -errno.
 */
int fs_view_set(struct fs_server *server, struct fs_node *node, int fd, const struct statx *stx, const struct fs_view *view);

/* The permission bits for creating a file of the type and mode: what is not one for the host is left to fs_view_set(). */
mode_t fs_host_mode(const struct fs_server *server, uint32_t mode);

/* What a client makes. */
struct fs_making {
	const struct fuse_in_header *caller;
	struct fs_node *parent;
	int parent_fd;
	uint32_t mode; /* with the type */
	uint32_t rdev_major, rdev_minor;
};

/*
 * Gives what was just made, and is as `stx` says, the owner and mode that it should have, as far as the host did not; `stx` is as it is
 * then. Returns 0 or -errno.
 */
int fs_view_of_made(struct fs_server *server, struct fs_node *node, const struct fs_making *making, struct statx *stx);

/* A write by someone who may not keep set-id bits (`set_ids`) or by anyone: capabilities go in any case. `fd` is any but O_PATH. */
void fs_drop_privileges(struct fs_server *server, struct fs_node *node, int fd, bool set_ids);

#define FS_KEPT_PREFIX "user.trvmm."
#define FS_KEPT_CAPABILITY FS_KEPT_PREFIX "security.capability"
/* Marks the file as one that has kept attributes, so that they are looked for. Returns 0 or -errno. */
int fs_kept_mark(struct fs_server *server, struct fs_node *node, int fd);

/* What this thread makes on the host from here on belongs to the caller. Returns 0 or -EPERM. Only where server->privileged. */
int fs_ids_enter(const struct fs_server *server, const struct fuse_in_header *caller);
void fs_ids_leave(const struct fs_server *server, const struct fuse_in_header *caller);
/* As root, belongs to the group until it joins the server's own again. */
void fs_ids_join_group(const struct fs_server *server, gid_t gid);
/* In each thread that serves. Returns 0 or -errno. */
int fs_ids_give_up_fsetid(void);
/* Has this process what it takes to give files to others? */
bool fs_ids_privileged(void);

#endif
