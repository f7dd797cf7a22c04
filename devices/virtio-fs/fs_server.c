/* The FUSE server as a whole: what it opens at the start and closes at the end; see fs_server.h. */
#include "devices/virtio-fs/fs_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <limits.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#define DESCRIPTORS_LEAST 64u
#define DESCRIPTORS_MOST 65536u
#define NODES_MAX (4u << 20) /* 100 bytes each */

/* Whose close() does more than the others'. */
static bool is_network(const struct statfs *fs)
{
	static const unsigned long types[] = { NFS_SUPER_MAGIC, SMB_SUPER_MAGIC,  CIFS_SUPER_MAGIC, SMB2_SUPER_MAGIC,
					       AFS_SUPER_MAGIC, CEPH_SUPER_MAGIC, V9FS_MAGIC,       FUSE_SUPER_MAGIC };
	for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++)
		if ((unsigned long)fs->f_type == types[i])
			return true;
	return false;
}

/* Does making FOO make foo? Of the root alone: directories below mostly are as it is. */
static bool folds_case(int fd, const struct statfs *fs)
{
	static const unsigned long types[] = { MSDOS_SUPER_MAGIC, EXFAT_SUPER_MAGIC, SMB_SUPER_MAGIC, CIFS_SUPER_MAGIC,
					       SMB2_SUPER_MAGIC };
	int flags = 0;
	for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++)
		if ((unsigned long)fs->f_type == types[i])
			return true;
	return ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0 && flags & FS_CASEFOLD_FL;
}

static int share_error(struct error *err, int code, const char *path)
{
	switch (code) {
	case -ENOENT:
		return error_set(err, code, "share %s: no such file or directory on this host", path);
	case -EACCES:
	case -EPERM:
		return error_set(err, code, "share %s: no permission; its owner has to let uid %u read and enter it", path,
				 geteuid());
	case -ENOSYS:
		return error_set(err, code, "share %s: this host's kernel is older than 5.6 and has no openat2()", path);
	case -EMFILE:
		return error_set(err, code, "share %s: too many open files; raise the limit (ulimit -n)", path);
	default:
		return error_set(err, code, "share %s: %s", path, strerror(-code));
	}
}

/* The last component, with the links and dots of the path as they are on the host: "." is the directory's own name. */
static char *last_component(const char *path)
{
	char *whole = realpath(path, NULL);
	if (!whole)
		return NULL;
	const char *slash = strrchr(whole, '/');
	char *name = strdup(slash && slash[1] ? slash + 1 : whole);
	free(whole);
	return name;
}

static unsigned descriptors_max(unsigned wanted)
{
	struct rlimit limit = { .rlim_cur = 1024 };
	if (!wanted) {
		getrlimit(RLIMIT_NOFILE, &limit);
		wanted = limit.rlim_cur / 2 < DESCRIPTORS_MOST ? (unsigned)(limit.rlim_cur / 2) : DESCRIPTORS_MOST;
	}
	return wanted < DESCRIPTORS_LEAST ? DESCRIPTORS_LEAST : wanted;
}

/* An open file takes two descriptors, its own and the node's: all of them leave a quarter for the other nodes. */
static void share_out_descriptors(struct fs_server *server, unsigned max)
{
	server->files_max = (unsigned)((uint64_t)max * 3 / 8);
	server->slots_max = max - server->files_max;
}

/* The nodes of the start, of which the root is number 1. */
static int add_roots(struct fs_server *server, const struct statx *stx)
{
	const bool directory = S_ISDIR(stx->stx_mode);
	struct fs_node *root = fs_node_add_lasting(server, directory ? FS_NODE_HOST : FS_NODE_LIST, directory ? stx : NULL);
	if (!root)
		return -ENOMEM;
	if (!directory) {
		root->identity.type = S_IFDIR;
		server->single = fs_node_add_lasting(server, FS_NODE_HOST, stx);
	}
	for (unsigned i = 0; i < FS_EXTRAS_MAX && server->extras[i].name; i++) {
		struct fs_node *extra = fs_node_add_lasting(server, FS_NODE_EXTRA, NULL);
		if (!extra)
			return -ENOMEM;
		extra->identity.type = S_IFREG;
		server->extras[i].node = extra;
	}
	struct fs_node *opened = directory ? root : server->single;
	const int fd = opened ? fcntl(server->root_fd, F_DUPFD_CLOEXEC, 0) : -1;
	if (fd < 0)
		return opened ? -errno : -ENOMEM;
	const int result = fs_node_give_fd(server, opened, fd);
	if (!result)
		fs_node_close(server, opened);
	return result;
}

static int open_share(struct fs_server *server, const struct fs_config *config, struct error *err)
{
	struct statx stx;
	struct statfs fs;

	server->root_fd = open(config->path, O_PATH | O_CLOEXEC);
	if (server->root_fd < 0)
		return share_error(err, -errno, config->path);
	const int result = fs_statx(server->root_fd, "", &stx);
	if (result)
		return share_error(err, result, config->path);
	if (!S_ISDIR(stx.stx_mode) && !S_ISREG(stx.stx_mode))
		return error_set(err, -ENOTDIR, "share %s: neither a directory nor a regular file", config->path);
	server->proc_fd = open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (server->proc_fd < 0)
		return error_set(err, -errno, "share %s: /proc/self/fd: %s; mount /proc", config->path, strerror(errno));

	/* Opened for reading once: whether we may is better known now than by each request of the guest. */
	const int flags = O_RDONLY | (S_ISDIR(stx.stx_mode) ? O_DIRECTORY : 0);
	const int readable = fs_reopen(server, server->root_fd, flags);
	if (readable < 0)
		return share_error(err, readable, config->path);
	server->xattrs = fgetxattr(readable, FS_KEPT_PREFIX "stat", NULL, 0) >= 0 || errno == ENODATA;
	const bool known = fstatfs(readable, &fs) == 0;
	server->flush_matters = known && is_network(&fs);
	server->folds_case = known && folds_case(readable, &fs);
	server->root_is_proc = known && fs.f_type == PROC_SUPER_MAGIC;
	if (S_ISDIR(stx.stx_mode))
		server->root_dir_fd = readable;
	else
		close(readable);
	server->root_dev = makedev(stx.stx_dev_major, stx.stx_dev_minor);
	const int added = add_roots(server, &stx);
	return added ? share_error(err, added, config->path) : 0;
}

static int copy_extras(struct fs_server *server, const struct fs_config *config)
{
	for (unsigned i = 0; i < FS_EXTRAS_MAX && config->extras[i].name; i++) {
		server->extras[i].name = strdup(config->extras[i].name);
		server->extras[i].fd = config->extras[i].fd;
		if (!server->extras[i].name)
			return -ENOMEM;
	}
	return 0;
}

int fs_server_create(const struct fs_config *config, struct fs_server **created, struct error *err)
{
	struct fs_server *server = calloc(1, sizeof(*server));
	int result = -ENOMEM;

	if (!server)
		return error_set(err, -ENOMEM, "share %s: no memory", config->path);
	server->root_fd = server->root_dir_fd = server->proc_fd = -1;
	pthread_mutex_init(&server->lock, NULL);
	server->cache = config->cache;
	server->read_only = config->read_only;
	server->writeback_wanted = config->writeback && config->cache == FS_CACHE_ALWAYS && !config->read_only;
	server->dax = config->dax;
	server->privileged = fs_ids_privileged();
	server->uid = geteuid();
	server->gid = getegid();
	server->nodes_max = config->nodes_max ? config->nodes_max : NODES_MAX;
	share_out_descriptors(server, descriptors_max(config->descriptors_max));
	if (copy_extras(server, config) || fs_nodes_init(server) || fs_files_init(server)) {
		error_set(err, result, "share %s: no memory", config->path);
		goto fail;
	}
	if (config->dax != FS_DAX_NEVER && (result = fs_window_init(&server->window)) < 0) {
		error_set(err, result, "share %s: %llu MiB of address space for dax: %s", config->path, FS_WINDOW_BYTES >> 20,
			  strerror(-result));
		goto fail;
	}
	result = open_share(server, config, err);
	if (result)
		goto fail;
	server->name = last_component(config->path);
	if (!server->name) {
		result = share_error(err, -errno, config->path);
		goto fail;
	}
	*created = server;
	return 0;
fail:
	fs_server_destroy(server);
	return result;
}

static void close_owned(int fd)
{
	if (fd >= 0)
		close(fd);
}

void fs_server_destroy(struct fs_server *server)
{
	if (!server)
		return;
	fs_window_free(server);
	fs_files_free(server);
	fs_nodes_free(server);
	close_owned(server->root_fd);
	close_owned(server->root_dir_fd);
	close_owned(server->proc_fd);
	pthread_mutex_destroy(&server->lock);
	for (unsigned i = 0; i < FS_EXTRAS_MAX; i++)
		free(server->extras[i].name);
	free(server->name);
	free(server);
}

void fs_server_reset(struct fs_server *server)
{
	server->ready = false;
	fs_window_clear(server);
	fs_files_release_all(server);
	fs_nodes_forget_all(server);
}

int fs_server_enter_thread(void)
{
	if (unshare(CLONE_FS))
		return -errno;
	umask(0);
	return fs_ids_give_up_fsetid();
}

bool fs_server_squashes(const struct fs_server *server)
{
	return !server->xattrs && !server->read_only;
}

int fs_server_root(const struct fs_server *server, bool *writable)
{
	*writable = !server->read_only;
	return server->root_fd;
}

const char *fs_server_name(const struct fs_server *server)
{
	return server->name;
}

void fs_server_counters(const struct fs_server *server, struct fs_counters *counters)
{
	*counters = (struct fs_counters){
		.requests = server->requests,
		.read_bytes = server->read_bytes,
		.write_bytes = server->write_bytes,
		.errors = server->errors,
		.nodes = server->node_count,
		.descriptors = server->descriptors,
	};
}
