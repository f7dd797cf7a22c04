/* The shares of -v and --root; see shares.h. */
#include "vmm/shares.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/iov.h"
#include "guest/agent/protocol.h"
#include "guest/copy/copy.h"
#include "vmm/guest_blobs.h"
#include "vmm/sandbox.h"
#include "vmm/share.h"

#define DESCRIPTORS_WANTED 65536u

/* How many descriptors each of `count` shares may have: of all that this process may, and then does, have, half are for shares. */
static unsigned descriptors_each(size_t count)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit))
		return 0;
	const rlim_t wanted = limit.rlim_max < DESCRIPTORS_WANTED ? limit.rlim_max : DESCRIPTORS_WANTED;
	if (limit.rlim_cur < wanted) {
		limit.rlim_cur = wanted;
		if (setrlimit(RLIMIT_NOFILE, &limit) && getrlimit(RLIMIT_NOFILE, &limit))
			return 0;
	}
	return (unsigned)((limit.rlim_cur < DESCRIPTORS_WANTED ? limit.rlim_cur : DESCRIPTORS_WANTED) / 2 / count);
}

/* A program of ours as a file, which the root share shows. */
static int make_program_file(const uint8_t *program, int *fd, struct error *err)
{
	*fd = memfd_create("trvmm-program", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (*fd < 0)
		return error_set(err, -errno, "a file in memory: %s", strerror(errno));
	const int result = write_full(*fd, program, BLOB_SLOT_BYTES);
	if (result < 0)
		return error_set(err, result, "a file in memory: %s", strerror(-result));
	fcntl(*fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL);
	return 0;
}

static void warn_of_squashing(const struct fs_server *server, const char *option, const char *path)
{
	if (fs_server_squashes(server))
		message("%s '%s': this file system takes no user xattrs, so all files are root's in the guest, and owners and "
			"modes that you may "
			"not give are not kept",
			option, path);
}

static int open_root(const struct options *options, struct shares *shares, unsigned descriptors, struct error *err)
{
	struct stat st;
	int *fds = shares->program_fds;
	int result = make_program_file(agent_blob, &fds[0], err);
	if (result == 0)
		result = make_program_file(copy_blob, &fds[1], err);
	if (result < 0)
		return result;
	if (stat(options->root, &st) == 0 && !S_ISDIR(st.st_mode))
		return error_set(err, -ENOTDIR, "--root '%s': this is no directory", options->root);
	struct shared *root = &shares->all[shares->count];
	const struct fs_config config = {
		.path = options->root,
		.read_only = options->read_only,
		.cache = FS_CACHE_AUTO,
		.extras = { { AGENT_NAME, fds[0] }, { COPY_NAME, fds[1] } },
		.descriptors_max = descriptors,
	};
	strcpy(root->tag, SHARES_ROOT_TAG);
	result = fs_server_create(&config, &root->server, err);
	if (result < 0)
		return error_prefix(err, result, "--root");
	shares->count++;
	warn_of_squashing(root->server, "--root", options->root);
	return 0;
}

static int open_share(const struct share *share, struct shares *shares, unsigned descriptors, struct error *err)
{
	struct shared *shared = &shares->all[shares->count];
	const struct fs_config config = {
		.path = share->host,
		.read_only = share->read_only,
		.cache = share->cache,
		.writeback = share->writeback,
		.dax = share->dax,
		.descriptors_max = descriptors,
	};
	const int result = fs_server_create(&config, &shared->server, err);
	if (result < 0)
		return error_prefix(err, result, "-v");
	shares->count++;
	warn_of_squashing(shared->server, "-v", share->host);
	snprintf(shared->tag, sizeof(shared->tag), "trvmm-%zu", shares->mount_count);
	struct stat st;
	const bool is_file = stat(share->host, &st) == 0 && !S_ISDIR(st.st_mode);
	shares->mounts[shares->mount_count++] = (struct session_share){
		.tag = shared->tag,
		.place = share->guest,
		.file = is_file ? strrchr(share->host, '/') + 1 : NULL,
		.read_only = share->read_only,
		.dax = share->dax == FS_DAX_ALWAYS,
	};
	if (!strcmp(share->host, "/") && !share->read_only)
		message("-v /:%s: the guest may change every file of this host that you may change; :ro prevents that",
			share->guest);
	return 0;
}

int shares_open(const struct options *options, struct shares *shares, struct error *err)
{
	*shares = (struct shares){ .program_fds = { -1, -1 } };
	const size_t most = options->share_count + (options->root != NULL);
	if (!most)
		return 0;
	shares->all = calloc(most, sizeof(*shares->all));
	shares->mounts = calloc(most, sizeof(*shares->mounts));
	if (!shares->all || !shares->mounts)
		return error_set(err, -ENOMEM, "out of memory");
	const unsigned descriptors = descriptors_each(most);
	int result = options->root ? open_root(options, shares, descriptors, err) : 0;
	for (size_t i = 0; result == 0 && i < options->share_count; i++)
		result = open_share(&options->shares[i], shares, descriptors, err);
	return result;
}

int shares_attach(struct shares *shares, struct machine *machine, const struct throttle_limit *limit, struct error *err)
{
	for (size_t i = 0; i < shares->count; i++) {
		struct shared *shared = &shares->all[i];
		int result = virtio_fs_create(machine_mem(machine), shared->server, shared->tag, &shared->fs);
		if (result < 0)
			return error_set(err, result, "creating a share's device: %s", strerror(-result));
		virtio_fs_set_limit(shared->fs, limit);
		result = machine_attach(machine, virtio_fs_device(shared->fs), err);
		if (result < 0)
			return result;
	}
	return 0;
}

static void confine(void)
{
	sandbox_enter(SANDBOX_FS);
}

int shares_start(struct shares *shares, struct error *err)
{
	for (size_t i = 0; i < shares->count; i++) {
		virtio_fs_set_confine(shares->all[i].fs, confine);
		const int result = virtio_fs_start(shares->all[i].fs);
		if (result < 0)
			return error_set(err, result, "starting a share's thread: %s", strerror(-result));
	}
	return 0;
}

void shares_counters(const struct shares *shares, struct fs_counters *sum)
{
	*sum = (struct fs_counters){ .requests = 0 };
	for (size_t i = 0; i < shares->count; i++) {
		struct fs_counters one;
		fs_server_counters(shares->all[i].server, &one);
		sum->requests += one.requests;
		sum->read_bytes += one.read_bytes;
		sum->write_bytes += one.write_bytes;
		sum->errors += one.errors;
		sum->nodes += one.nodes;
		sum->descriptors += one.descriptors;
	}
}

void shares_close(struct shares *shares)
{
	for (size_t i = 0; i < shares->count; i++) {
		virtio_fs_destroy(shares->all[i].fs);
		fs_server_destroy(shares->all[i].server);
	}
	for (unsigned i = 0; i < FS_EXTRAS_MAX; i++)
		if (shares->program_fds[i] >= 0)
			close(shares->program_fds[i]);
	free(shares->all);
	free(shares->mounts);
	*shares = (struct shares){ .program_fds = { -1, -1 } };
}
