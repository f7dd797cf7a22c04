/*
 * Owners and modes that the host is not to have, or cannot have, kept beside the file:
 *
 *   user.trvmm.stat    "UID:GID:MODE:MAJOR:MINOR", decimal but for the mode, which is octal with its type: "0:5:020620:4:64" is a terminal
 *
 * - Device nodes, fifos and sockets that the client makes are empty regular files of ours with mode 0600 and such an attribute.
 * - Set-id (and sticky) bits of regular files are only there. Nobody on the host becomes anybody by running them.
 * - For an ordinary user all that a guest makes belongs to that user: ids other than root's, which stand for the user himself, and modes
 *   that would lock him out are kept there.
 *
 * A regular file that has such attributes is marked by its sticky bit, which means nothing else for regular files, so that no other file's
 * attributes have to be looked for. Directories, whose sticky bit means something, are looked at if an ordinary user runs us; for root
 * they need none.
 *
 * Who can write the attribute is believed no more than what he could have done anyway: everything only if the file is ours; else, as root,
 * the set-id bits alone, since those make others the file's true owner and nobody else.
 */
#include "devices/virtio-fs/fs_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/xattr.h>
#include <unistd.h>

#define KEPT_STAT FS_KEPT_PREFIX "stat"
#define KEPT_TEXT_MAX 64u
#define SET_ID_AND_STICKY (S_ISUID | S_ISGID | S_ISVTX)

static bool is_special(mode_t mode)
{
	return S_ISCHR(mode) || S_ISBLK(mode) || S_ISFIFO(mode) || S_ISSOCK(mode);
}

static bool is_marked(const struct statx *stx)
{
	return S_ISREG(stx->stx_mode) && stx->stx_mode & S_ISVTX;
}

static bool number(const char **at, int base, uint32_t *value, char end)
{
	char *stop;
	if (**at < '0' || **at > '9')
		return false;
	const unsigned long long parsed = strtoull(*at, &stop, base);
	if (parsed > UINT32_MAX || *stop != end)
		return false;
	*value = (uint32_t)parsed;
	*at = stop + (end != 0);
	return true;
}

static bool parse(const char *text, struct fs_view *kept)
{
	return number(&text, 10, &kept->uid, ':') && number(&text, 10, &kept->gid, ':') && number(&text, 8, &kept->mode, ':') &&
	       number(&text, 10, &kept->rdev_major, ':') && number(&text, 10, &kept->rdev_minor, 0) && kept->mode <= 0177777;
}

static bool read_kept(struct fs_server *server, struct fs_node *node, struct fs_view *kept)
{
	char text[KEPT_TEXT_MAX + 1];
	const int fd = fs_node_open_readable(server, node);
	if (fd < 0)
		return false;
	const ssize_t length = fgetxattr(fd, KEPT_STAT, text, KEPT_TEXT_MAX);
	close(fd);
	if (length < 0)
		return false;
	text[length] = 0;
	return parse(text, kept);
}

/* As the host has it; an ordinary user is root in the guest. */
static void host_view(const struct fs_server *server, const struct statx *stx, struct fs_view *view)
{
	const bool squash = !server->privileged;
	*view = (struct fs_view){
		.uid = squash && stx->stx_uid == server->uid ? 0 : stx->stx_uid,
		.gid = squash && stx->stx_gid == server->gid ? 0 : stx->stx_gid,
		.mode = stx->stx_mode,
		.rdev_major = stx->stx_rdev_major,
		.rdev_minor = stx->stx_rdev_minor,
	};
}

void fs_view_of(struct fs_server *server, struct fs_node *node, const struct statx *stx, struct fs_view *view)
{
	struct fs_view kept;
	const bool ours = stx->stx_uid == server->uid;

	host_view(server, stx, view);
	if (!server->xattrs || (!is_marked(stx) && (server->privileged || !S_ISDIR(stx->stx_mode))))
		return;
	if (is_marked(stx))
		node->marked = true;
	if (!read_kept(server, node, &kept))
		return;
	if ((kept.mode & S_IFMT) != (stx->stx_mode & S_IFMT)) {
		if (ours && S_ISREG(stx->stx_mode) && is_special(kept.mode))
			*view = kept;
	} else if (server->privileged) {
		view->mode = (stx->stx_mode & ~(mode_t)S_ISVTX) | (kept.mode & SET_ID_AND_STICKY);
	} else if (ours) {
		*view = kept;
	}
}

static bool same_view(const struct fs_view *a, const struct fs_view *b)
{
	return a->uid == b->uid && a->gid == b->gid && a->mode == b->mode && a->rdev_major == b->rdev_major &&
	       a->rdev_minor == b->rdev_minor;
}

mode_t fs_host_mode(const struct fs_server *server, uint32_t mode)
{
	if (S_ISDIR(mode))
		return server->privileged ? mode & 07777 : (mode & 03777) | (server->xattrs ? 0700 : 0);
	if (is_special(mode))
		return server->xattrs ? 0600 : mode & 0777;
	return (mode & 0777) | (server->privileged || !server->xattrs ? 0 : 0600);
}

/* What an unmarked file with the host's owner and this mode shows by itself. */
static bool is_plain(const struct fs_server *server, const struct statx *stx, mode_t host_mode, const struct fs_view *view)
{
	struct fs_view plain;
	struct statx made = *stx;
	made.stx_mode = (uint16_t)((stx->stx_mode & S_IFMT) | host_mode);
	if (server->privileged) {
		made.stx_uid = view->uid;
		made.stx_gid = view->gid;
	}
	host_view(server, &made, &plain);
	return same_view(&plain, view);
}

static int host_chmod(const struct fs_server *server, int fd, mode_t mode)
{
	char name[16];
	snprintf(name, sizeof(name), "%d", fd);
	return fchmodat(server->proc_fd, name, mode, 0) ? -errno : 0;
}

/* Another descriptor for f*xattr(). A file of ours that is closed to ourselves is opened first: its mode is about to be set anyway. */
static int open_for_xattr(const struct fs_server *server, int fd, const struct statx *stx)
{
	int opened = fs_reopen(server, fd, O_RDONLY);
	if (opened == -EACCES && host_chmod(server, fd, (stx->stx_mode & 07777) | 0600) == 0)
		opened = fs_reopen(server, fd, O_RDONLY);
	return opened;
}

static int write_kept(int fd, const struct fs_view *view)
{
	char text[KEPT_TEXT_MAX];
	const int length =
	    snprintf(text, sizeof(text), "%u:%u:%07o:%u:%u", view->uid, view->gid, view->mode, view->rdev_major, view->rdev_minor);
	return fsetxattr(fd, KEPT_STAT, text, (size_t)length, 0) ? -errno : 0;
}

/* Keeps the view beside the file, or removes what was kept when nothing needs it. Returns 1: it is kept, 0: it is not, or -errno. */
static int keep(const struct fs_server *server, int fd, const struct statx *stx, const struct fs_view *view, bool plain)
{
	const int opened = open_for_xattr(server, fd, stx);
	if (opened < 0)
		return opened;
	int result;
	if (plain && fgetxattr(opened, FS_KEPT_CAPABILITY, NULL, 0) < 0) {
		fremovexattr(opened, KEPT_STAT);
		result = 0;
	} else {
		result = write_kept(opened, view);
		if (result == 0)
			result = 1;
		else if (result == -EOPNOTSUPP)
			result = 0;
	}
	close(opened);
	return result;
}

int fs_view_set(struct fs_server *server, struct fs_node *node, int fd, const struct statx *stx, const struct fs_view *view)
{
	const mode_t type = stx->stx_mode & S_IFMT;
	const bool special = (view->mode & S_IFMT) != type, keepable = type == S_IFREG || type == S_IFDIR;
	mode_t mode = keepable ? fs_host_mode(server, view->mode) : view->mode & 0777;

	if (!server->privileged && stx->stx_uid != server->uid)
		return -EPERM;
	const bool chown_it = server->privileged && !special && (view->uid != stx->stx_uid || view->gid != stx->stx_gid);
	if (chown_it && fchownat(fd, "", view->uid, view->gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW))
		return errno == EINVAL ? -EPERM : -errno;
	if (keepable && server->xattrs) {
		const bool plain = is_plain(server, stx, mode, view);
		const bool looked_for = is_marked(stx) || (type == S_IFDIR && !server->privileged);
		const int kept = plain && !looked_for ? 0 : keep(server, fd, stx, view, plain);
		if (kept < 0)
			return kept;
		if (type == S_IFREG) {
			mode |= kept ? S_ISVTX : 0;
			node->marked = kept;
		}
	}
	if (type == S_IFLNK || (!chown_it && mode == (stx->stx_mode & 07777)))
		return 0;
	/* A directory's set-gid bit is given by who belongs to its group. */
	if (mode & S_ISGID)
		fs_ids_join_group(server, chown_it ? view->gid : stx->stx_gid);
	const int result = host_chmod(server, fd, mode);
	if (mode & S_ISGID)
		fs_ids_join_group(server, server->gid);
	return result;
}

int fs_kept_mark(struct fs_server *server, struct fs_node *node, int fd)
{
	struct statx stx;
	struct fs_view view;

	int result = fs_statx(fd, "", &stx);
	if (result || !S_ISREG(stx.stx_mode) || is_marked(&stx))
		return result;
	fs_view_of(server, node, &stx, &view);
	result = write_kept(fd, &view);
	if (!result)
		result = host_chmod(server, fd, (stx.stx_mode & 07777) | S_ISVTX);
	if (!result)
		node->marked = true;
	return result;
}

void fs_drop_privileges(struct fs_server *server, struct fs_node *node, int fd, bool set_ids)
{
	struct statx stx;
	struct fs_view view, dropped;

	if (fs_statx(fd, "", &stx))
		return;
	bool changed = is_marked(&stx) && fremovexattr(fd, FS_KEPT_CAPABILITY) == 0;
	fs_view_of(server, node, &stx, &view);
	dropped = view;
	if (set_ids) {
		dropped.mode &= ~(uint32_t)S_ISUID;
		if (dropped.mode & S_IXGRP)
			dropped.mode &= ~(uint32_t)S_ISGID;
	}
	if (changed || !same_view(&view, &dropped))
		fs_view_set(server, node, fd, &stx, &dropped);
}

int fs_view_of_made(struct fs_server *server, struct fs_node *node, const struct fs_making *making, struct statx *stx)
{
	const bool special = is_special(making->mode) && S_ISREG(stx->stx_mode);
	struct fs_view now, wanted;
	struct statx parent;

	if (server->privileged && !special && (!S_ISREG(making->mode) || !(making->mode & SET_ID_AND_STICKY)))
		return 0; /* the host made it as it is to be */
	if (!S_ISREG(stx->stx_mode) && !S_ISDIR(stx->stx_mode))
		return 0; /* it keeps nothing */
	int result = fs_statx(making->parent_fd, "", &parent);
	if (result)
		return result;
	fs_view_of(server, node, stx, &now);
	wanted = now;
	wanted.mode = making->mode;
	if (!server->privileged || special) {
		wanted.uid = making->caller->uid;
		wanted.gid = making->caller->gid;
		wanted.rdev_major = special ? making->rdev_major : 0;
		wanted.rdev_minor = special ? making->rdev_minor : 0;
	}
	if (parent.stx_mode & S_ISGID) {
		struct fs_view parent_view;
		fs_view_of(server, making->parent, &parent, &parent_view);
		wanted.gid = parent_view.gid;
		if (S_ISDIR(wanted.mode))
			wanted.mode |= S_ISGID;
		else if (wanted.mode & S_IXGRP && making->caller->uid && making->caller->gid != wanted.gid)
			wanted.mode &= ~(uint32_t)S_ISGID; /* that he belongs to the group is not known */
	}
	if (same_view(&now, &wanted))
		return 0;
	const int fd = fs_node_open(server, node);
	if (fd < 0)
		return fd;
	result = fs_view_set(server, node, fd, stx, &wanted);
	if (!result)
		result = fs_statx(fd, "", stx);
	fs_node_close(server, node);
	return result;
}
