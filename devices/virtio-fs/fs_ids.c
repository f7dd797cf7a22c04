/*
 * Who makes a file: as root, threads take the ids of the client's caller for the moment of making, so that owner and group, also in set-gid
 * directories, are the host's doing and never for a moment somebody else's. (setfsuid and setfsgid are each thread's own.)
 */
#include "devices/virtio-fs/fs_internal.h"

#include <errno.h>
#include <linux/capability.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#define NEEDED (1u << CAP_CHOWN | 1u << CAP_DAC_OVERRIDE | 1u << CAP_FOWNER | 1u << CAP_SETUID | 1u << CAP_SETGID)

static int get_capabilities(struct __user_cap_data_struct data[2])
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	return syscall(SYS_capget, &header, data) ? -errno : 0;
}

bool fs_ids_privileged(void)
{
	struct __user_cap_data_struct data[2];
	return geteuid() == 0 && get_capabilities(data) == 0 && (data[0].effective & NEEDED) == NEEDED;
}

/*
 * Whoever has CAP_FSETID writes to a set-id program and leaves it one. The client says when the bits have to go, and a hostile one does
 * not: what it writes would run as the program's owner on the host. Without it, the host's kernel sees to that.
 */
int fs_ids_give_up_fsetid(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];
	int result = get_capabilities(data);
	if (result || !(data[0].permitted & 1u << CAP_FSETID))
		return result;
	data[0].effective &= ~(1u << CAP_FSETID);
	data[0].permitted &= ~(1u << CAP_FSETID);
	data[0].inheritable &= ~(1u << CAP_FSETID);
	result = syscall(SYS_capset, &header, data) ? -errno : 0;
	return result;
}

/*
 * A thread with the fsuid of an ordinary user loses its rights over files; the one to pass by permissions is taken back, because the
 * caller's supplementary groups, which may be what permits it, are known to the client's kernel alone. It has checked before it asked.
 */
static int override_permissions(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2];
	if (get_capabilities(data))
		return -EPERM;
	data[0].effective |= 1u << CAP_DAC_OVERRIDE;
	return syscall(SYS_capset, &header, data) ? -EPERM : 0;
}

static bool is_self(const struct fs_server *server, const struct fuse_in_header *caller)
{
	return caller->uid == server->uid && caller->gid == server->gid;
}

int fs_ids_enter(const struct fs_server *server, const struct fuse_in_header *caller)
{
	if (!server->privileged || is_self(server, caller))
		return 0;
	/* They say only what was before: an id that is none here, or -1, changes nothing. */
	setfsgid(caller->gid);
	setfsuid(caller->uid);
	if ((gid_t)setfsgid((gid_t)-1) == caller->gid && (uid_t)setfsuid((uid_t)-1) == caller->uid &&
	    (caller->uid == 0 || override_permissions() == 0))
		return 0;
	fs_ids_leave(server, caller);
	return -EPERM;
}

void fs_ids_join_group(const struct fs_server *server, gid_t gid)
{
	if (server->privileged)
		setfsgid(gid);
}

void fs_ids_leave(const struct fs_server *server, const struct fuse_in_header *caller)
{
	if (!server->privileged || is_self(server, caller))
		return;
	setfsuid(server->uid);
	setfsgid(server->gid);
}
