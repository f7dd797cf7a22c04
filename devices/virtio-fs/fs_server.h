/*
 * A FUSE server over one directory (or one file) of the host: requests in, answers out. It knows nothing of queues; virtio_fs.h brings it
 * requests. Source: the kernel's include/uapi/linux/fuse.h (protocol 7.37 and below) and fs/fuse/, which is the only client that counts.
 *
 * Everything in a request is hostile: lengths, node ids, file handles, names. What the server promises about the host:
 *
 * - No request reaches anything outside of the directory. Names are one component, checked, and resolved beneath an O_PATH descriptor of
 *   the parent (openat2: RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS); symlinks are data.
 * - Only regular files and directories are ever opened for more than O_PATH; devices, fifos and sockets of the share are never opened, and
 *   neither are the files of a procfs in it.
 * - The descriptors and the memory that a client can make it hold are bounded.
 *
 * Threads: fs_server_handle() is called by several threads at once, on different requests, each of which called fs_server_enter_thread() at
 * its start; the rest is called by one thread, with no request under way.
 *
 * Confinement: after fs_server_create() no path of the host is resolved but those beneath the directory and /proc/self/fd, by descriptors
 * that are open by then; an empty root and Landlock (all rights beneath the directory, REFER and TRUNCATE among them) do not disturb it.
 * It has to stay the process that it was created in. As root it acts with CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_FOWNER, CAP_SETUID and
 * CAP_SETGID, all of which have to be there at creation for it to keep true ids; CAP_FSETID is given up by its threads. It uses these
 * system calls beside those of any program: openat2, statx, getdents64, preadv2, pwritev2, fallocate, copy_file_range, fdatasync, fsync,
 * syncfs, ftruncate, fchmodat, fchownat, utimensat, mkdirat, mknodat, symlinkat, linkat, unlinkat, renameat2, readlinkat, fstatfs,
 * fgetxattr, fsetxattr, flistxattr, fremovexattr, setfsuid, setfsgid, capget, capset, fcntl, lseek;
 * unshare(CLONE_FS) and umask() in each thread; with a window mmap (MAP_SHARED, never executable), mprotect and mremap.
 */
#ifndef TRVMM_DEVICES_VIRTIO_FS_FS_SERVER_H
#define TRVMM_DEVICES_VIRTIO_FS_FS_SERVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/error.h"

/* What the client may keep without asking; the man page of trvmm tells users. */
enum fs_cache {
	FS_CACHE_AUTO, /* names, attributes and data for a second, data thrown away at open() when the file has changed */
	FS_CACHE_NONE, /* nothing: reads and writes are direct */
	FS_CACHE_ALWAYS, /* everything, as long as it likes: nobody else changes the directory */
};

/* A file that the root directory of a share has besides those of this host. */
struct fs_extra {
	const char *name; /* NULL: none */
	int fd; /* stays the caller's, and lives as long as the server */
};
#define FS_EXTRAS_MAX 2u

/*
 * Which files the client may have mapped: it then reads and writes the host's own page cache, without requests and with nothing kept
 * beside it, so that whoever else maps the file sees each byte at once.
 */
enum fs_dax {
	FS_DAX_NEVER,
	FS_DAX_ALWAYS, /* all: the client is told so when it mounts */
	FS_DAX_INODE, /* those for which it pays, FS_DAX_LEAST_BYTES and more when they are looked up */
};

#define FS_DAX_LEAST_BYTES 131072u /* what one READ of Linux's read-ahead brings */
#define FS_WINDOW_BYTES (256ull << 20) /* address space for what is mapped at a time */
#define FS_RANGE_BYTES (2ull << 20) /* what is mapped at once: Linux's FUSE_DAX_SZ */

struct fs_config {
	const char *path; /* the directory or file on this host; borrowed for fs_server_create() only */
	bool read_only;
	enum fs_cache cache;
	bool writeback; /* the client gathers writes; only with FS_CACHE_ALWAYS */
	enum fs_dax dax;
	/*
	 * Listed nowhere, and hiding entries of the same names: read-only, mode 0555, of root. For our own programs, when the share is the
	 * guest's root file system.
	 */
	struct fs_extra extras[FS_EXTRAS_MAX];
	unsigned descriptors_max; /* how many descriptors it may hold at a time, at least 64; 0: half of RLIMIT_NOFILE as it is now */
	unsigned nodes_max; /* how many files it may know at a time, 100 bytes each; 0: 4 Mi */
};

struct fs_server;

/*
 * Opens the directory. Returns 0, or -errno with one line that names the path and the mend: -ENOENT, -EACCES, -ENOTDIR (neither directory
 * nor regular file). For a single file, the root (node 1) is a directory that holds just this file, under its own name.
 */
int fs_server_create(const struct fs_config *config, struct fs_server **server, struct error *err);

/* Closes everything. NULL is allowed. */
void fs_server_destroy(struct fs_server *server);

/*
 * Forgets what the client had (lookups, open files, negotiation), as after a reset of the device: the next request has to be FUSE_INIT.
 * No request may be under way.
 */
void fs_server_reset(struct fs_server *server);

/*
 * Does one request. `in` is what the client wrote (struct fuse_in_header first), `out` where the answer goes (struct fuse_out_header
 * first), both in memory that the client changes meanwhile: headers and names are copied once before they are looked at, file data goes
 * straight between the buffers and preadv2()/pwritev2(). Headers may be split over the buffers at any byte.
 *
 * Returns the number of bytes written to `out` (0 when the operation has no answer: FORGET, BATCH_FORGET, or INTERRUPT), or -EPROTO when
 * there can be no answer: no whole fuse_in_header, or no room for a fuse_out_header where one is due. Every other trouble is an errno in
 * the answer. Blocks only as long as the host's file system does.
 */
ssize_t fs_server_handle(struct fs_server *server, const struct iovec *in, size_t in_count, const struct iovec *out,
			 size_t out_count);

/*
 * Gives the calling thread a umask of its own, 0, so that files get the modes that the client wants, and takes CAP_FSETID from it. Once in
 * each thread that calls fs_server_handle(), before it is confined (unshare). Returns 0 or -errno.
 */
int fs_server_enter_thread(void);

/*
 * Are ids and modes lost that this host cannot represent, because its file system has no user xattrs? Then whoever set it up says so, once.
 * The owners that an ordinary user's share shows are squashed: everything belongs to root in the guest.
 */
bool fs_server_squashes(const struct fs_server *server);

/* The directory, or the file, that is served: O_PATH, the server's own. For who confines it. */
int fs_server_root(const struct fs_server *server, bool *writable);

/*
 * The window, FS_WINDOW_BYTES of this process's address space that the client has in its own: SETUPMAPPING maps files there, REMOVEMAPPING
 * takes them away. Where nothing is mapped, nobody can read or write. No thread of ours may touch it: beyond the end of a file that is
 * SIGBUS. NULL without dax. Owned by the server.
 */
void *fs_server_window(const struct fs_server *server);

/* Is anything mapped in the window? From any thread. */
bool fs_server_maps(const struct fs_server *server);

/*
 * Makes of each file in the window that much accessible as it has by now, in pages. Who maps the window for a virtual machine has to call
 * it every now and then while anything is mapped, because KVM waits for pages behind the end of a file again and again where it may wait,
 * and only says that they are not there when nobody may access them; and when it says so, because the file may be longer by then. Returns
 * whether anything is accessible that was not. From any thread.
 */
bool fs_server_look_at_window(struct fs_server *server);

/* The name that messages and mount tags use: the last component of the path. */
const char *fs_server_name(const struct fs_server *server);

/* For trvmm stats, from any thread. */
struct fs_counters {
	uint64_t requests, read_bytes, write_bytes, errors;
	uint64_t nodes, descriptors; /* held now */
};
void fs_server_counters(const struct fs_server *server, struct fs_counters *counters);

#endif
