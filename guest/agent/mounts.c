/* File systems that the main command asks for: tmpfs and the host's shares. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest/agent/agent.h"

static int explain(struct text *why, const char *what, const char *path, int error)
{
	text_add(why, what);
	text_add(why, " \"");
	text_add(why, path);
	text_add(why, "\"");
	text_add_error(why, error);
	return -error;
}

static int refuse(struct text *why, const char *path, const char *reason, int error)
{
	text_add(why, "the share at \"");
	text_add(why, path);
	text_add(why, "\": ");
	text_add(why, reason);
	return -error;
}

static int mount_tmpfs(const char *folder, const char *data, struct text *why)
{
	int result = spawn_make_folder(folder);
	if (result < 0)
		return explain(why, "make the folder of the tmpfs", folder, -result);
	result = platform_mount_tmpfs(folder, data);
	return result < 0 ? explain(why, "mount the tmpfs", folder, -result) : 0;
}

/* An empty file to be covered, and the folders that lead to it. */
static int make_file(const char *path)
{
	char folder[4096];
	const char *slash = strrchr(path, '/');
	const size_t length = slash ? (size_t)(slash - path) : 0;
	if (length >= sizeof(folder))
		return -ENAMETOOLONG;
	memcpy(folder, path, length);
	folder[length] = '\0';
	const int result = length ? spawn_make_folder(folder) : 0;
	if (result < 0)
		return result;
	const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOCTTY | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	close(fd);
	return 0;
}

static int mount_share(const struct share_mount *share, const char *place, const char *file, struct text *why)
{
	struct stat st;
	const bool there = stat(place, &st) == 0;

	if (there && *file && S_ISDIR(st.st_mode))
		return refuse(why, place, "this is a folder in the guest, and a file on the host", EISDIR);
	if (there && !*file && !S_ISDIR(st.st_mode))
		return refuse(why, place, "this is a file in the guest, and a folder on the host", ENOTDIR);
	int result = there ? 0 : *file ? make_file(place) : spawn_make_folder(place);
	if (result < 0)
		return explain(why, "make the mount point of a share", place, -result);
	result = *file ? platform_mount_file(share, file, place) : platform_mount_share(share, place);
	if (result == -ENODEV)
		return refuse(why, place, "the guest's kernel lacks CONFIG_VIRTIO_FS; build it in", ENODEV);
	if (result == -EINVAL && share->dax)
		return refuse(why, place, "the guest's kernel cannot map files (dax); it needs CONFIG_FUSE_DAX", EINVAL);
	return result < 0 ? explain(why, "mount the share", place, -result) : 0;
}

static unsigned depth(const char *path)
{
	unsigned components = 0;
	for (; *path; path++)
		components += *path == '/' && path[1] && path[1] != '/';
	return components;
}

int mounts_make(const struct mounts *m, struct text *why)
{
	/* Shares are in order already. */
	for (uint32_t t = 0, s = 0; t < m->tmpfs_count || s < m->share_count;) {
		const bool share = s < m->share_count && (t == m->tmpfs_count || depth(m->shares[s][1]) < depth(m->tmpfs[t][0]));
		int result;
		if (share) {
			const struct share_mount how = { .tag = m->shares[s][0],
							 .read_only = m->read_only_shares >> s & 1,
							 .dax = m->dax_shares >> s & 1 };
			result = mount_share(&how, m->shares[s][1], m->shares[s][2], why);
		} else {
			result = mount_tmpfs(m->tmpfs[t][0], m->tmpfs[t][1], why);
		}
		if (result < 0)
			return result;
		if (share)
			s++;
		else
			t++;
	}
	return 0;
}
