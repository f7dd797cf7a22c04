/*
 * devices/virtio-fs: random operations, each one on a share through the FUSE server and, by the host's own system calls, on a plain
 * directory beside it. Both give the same errors, and in the end the same trees: names, types, modes, owners, sizes, link counts,
 * contents, attributes.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <linux/falloc.h>
#include <sys/xattr.h>

#include "tests/unit/fs_share.h"

#define FILES_OPEN 6u
#define DATA_MAX 20000u

struct open_pair {
	uint64_t id, fh;
	int fd; /* the same file of the model; -1: none */
	bool writable;
};

static char model[96];
static struct open_pair opened[FILES_OPEN];
static uint64_t state;
static const char *doing;
static bool no_way; /* a path of this operation led nowhere before its last name */

static void setup(void)
{
	fs_share_setup();
	snprintf(model, sizeof(model), "%s/model", share.root);
	cr_assert(mkdir(model, 0755) == 0);
	for (unsigned i = 0; i < FILES_OPEN; i++)
		opened[i].fd = -1;
}

TestSuite(fs_model, .init = setup, .fini = fs_share_teardown, .timeout = 120);

static uint32_t pick(uint32_t below)
{
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (uint32_t)(state >> 20) % below;
}

/* One of a few paths, three levels deep, so that they meet. */
struct place {
	char parent[32], name[8], whole[48];
};

static struct place some_place(void)
{
	static const char *const parents[] = { "", "d0", "d1", "d0/d0", "d0/d1", "d1/d1" };
	static const char *const names[] = { "d0", "d1", "f0", "f1", "f2", "l0" };
	struct place place;
	snprintf(place.parent, sizeof(place.parent), "%s", parents[pick(6)]);
	snprintf(place.name, sizeof(place.name), "%s", names[pick(6)]);
	snprintf(place.whole, sizeof(place.whole), "%s%s%s", place.parent, *place.parent ? "/" : "", place.name);
	return place;
}

static const char *in_model(const char *path)
{
	static char texts[2][256];
	static unsigned next;
	char *text = texts[next++ % 2];
	cr_assert(snprintf(text, sizeof(texts[0]), "%s/%s", model, path) < (int)sizeof(texts[0]));
	return text;
}

static int host_result(int result)
{
	return result < 0 ? -errno : result;
}

/* What is wrong with a path on the way (through a symlink that leads nowhere, or two paths) may be told in two ways. */
static bool is_no_way(int result)
{
	return result == -ENOENT || result == -ENOTDIR;
}

static void same(int server, int host, const struct place *place)
{
	if (no_way && is_no_way(server) && is_no_way(host))
		return;
	cr_assert(server == host, "%s %s: the server says %d, the host %d", doing, place->whole, server, host);
}

/* The parent's number, or what a path walk says; a walk through a symlink is the client's business, and there are none that lead on. */
static int parent_of(const struct place *place, uint64_t *id)
{
	const int result = fsc_walk(c, place->parent, id);
	struct stat st;
	no_way = no_way || result || lstat(in_model(place->parent), &st) || !S_ISDIR(st.st_mode);
	return result;
}

/* ---- operations ------------------------------------------------------------------------------------------------------------------- */

static void do_mkdir(struct place at)
{
	uint64_t parent, id;
	const uint32_t mode = 0700 | pick(0100);
	int result = parent_of(&at, &parent);
	if (!result)
		result = fsc_mkdir(c, parent, at.name, mode, &id);
	same(result, host_result(mkdir(in_model(at.whole), mode)), &at);
}

static void do_symlink(struct place at)
{
	uint64_t parent, id;
	int result = parent_of(&at, &parent);
	if (!result)
		result = fsc_symlink(c, parent, at.name, "no/where", &id);
	same(result, host_result(symlink("no/where", in_model(at.whole))), &at);
}

static void do_open(struct place at)
{
	static const uint32_t modes[] = { O_RDONLY, O_WRONLY, O_RDWR };
	const uint32_t access_mode = modes[pick(3)];
	const uint32_t flags = access_mode | (pick(2) ? O_CREAT : 0) | (access_mode && !pick(4) ? O_TRUNC : 0);
	const uint32_t mode = 0600 | pick(0100);
	struct open_pair *pair = &opened[pick(FILES_OPEN)];
	uint64_t parent;

	if (pair->fd >= 0) {
		close(pair->fd);
		pair->fd = -1;
		cr_assert(fsc_release(c, pair->id, pair->fh) == 0);
	}
	int result = parent_of(&at, &parent);
	if (!result && flags & O_CREAT) {
		result = fsc_create(c, parent, at.name, flags, mode, &pair->id, &pair->fh);
	} else if (!result) {
		result = fsc_lookup(c, parent, at.name, &pair->id);
		if (!result)
			result = fsc_open(c, pair->id, flags, &pair->fh);
	}
	const int fd = host_result(open(in_model(at.whole), (int)flags | O_NOFOLLOW | O_CLOEXEC, mode));
	/* The client's kernel opens no directories by OPEN. */
	if (fd >= 0 && result == -EISDIR) {
		close(fd);
		return;
	}
	same(result, fd < 0 ? fd : 0, &at);
	pair->fd = fd < 0 ? -1 : fd;
	pair->writable = access_mode != O_RDONLY;
}

static void do_unlink(struct place at)
{
	uint64_t parent;
	const bool dir = pick(2);
	int result = parent_of(&at, &parent);
	if (!result)
		result = fsc_remove(c, dir ? FUSE_RMDIR : FUSE_UNLINK, parent, at.name);
	same(result, host_result(dir ? rmdir(in_model(at.whole)) : unlink(in_model(at.whole))), &at);
}

static void do_rename(struct place at)
{
	const struct place to = some_place();
	const uint32_t flags = pick(4) == 0 ? RENAME_NOREPLACE : pick(4) == 0 ? RENAME_EXCHANGE : 0;
	uint64_t parent, new_parent;
	int result = parent_of(&at, &parent);
	if (!result)
		result = parent_of(&to, &new_parent);
	if (!result)
		result = fsc_rename(c, parent, at.name, new_parent, to.name, flags);
	same(result, host_result(renameat2(AT_FDCWD, in_model(at.whole), AT_FDCWD, in_model(to.whole), flags)), &at);
}

static void do_link(struct place at)
{
	const struct place to = some_place();
	uint64_t old, parent;
	parent_of(&at, &parent);
	parent_of(&to, &parent);
	int result = fsc_walk(c, at.whole, &old);
	if (!result)
		result = parent_of(&to, &parent);
	if (!result)
		result = fsc_link(c, old, parent, to.name);
	const int host = host_result(link(in_model(at.whole), in_model(to.whole)));
	if (result != host && (host == -EPERM || host == -EEXIST) && (result == -EPERM || result == -EEXIST))
		return; /* of two things that are wrong, either is said first */
	same(result, host, &at);
}

static void do_setattr(struct place at)
{
	struct fuse_setattr_in in = { .valid = 0 };
	uint64_t id;
	struct stat st;
	uint64_t parent;
	parent_of(&at, &parent);
	int result = fsc_walk(c, at.whole, &id);
	int host = host_result(lstat(in_model(at.whole), &st));
	if (!result && !host) {
		const char *path = in_model(at.whole);
		switch (pick(4)) {
		case 0:
			if (S_ISLNK(st.st_mode))
				return;
			in.valid = FATTR_MODE;
			in.mode = 0700 | pick(0100);
			host = host_result(chmod(path, in.mode));
			break;
		case 1:
			if (geteuid() != 0)
				return;
			in.valid = FATTR_UID | FATTR_GID | FATTR_KILL_SUIDGID;
			in.uid = pick(3) * 1000;
			in.gid = pick(3) * 1000;
			host = host_result(lchown(path, in.uid, in.gid));
			break;
		case 2:
			in.valid = FATTR_SIZE;
			in.size = pick(DATA_MAX);
			if (!S_ISREG(st.st_mode))
				return;
			host = host_result(truncate(path, (off_t)in.size));
			break;
		default: {
			const struct timespec times[2] = { { pick(1000), pick(1000000000) }, { pick(1000), pick(1000000000) } };
			in.valid = FATTR_ATIME | FATTR_MTIME;
			in.atime = (uint64_t)times[0].tv_sec;
			in.atimensec = (uint32_t)times[0].tv_nsec;
			in.mtime = (uint64_t)times[1].tv_sec;
			in.mtimensec = (uint32_t)times[1].tv_nsec;
			host = host_result(utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW));
		}
		}
		result = fsc_setattr(c, id, in);
	}
	same(result, host, &at);
}

static void do_xattr(struct place at)
{
	uint64_t id;
	char value[16];
	struct stat st;
	const int length = snprintf(value, sizeof(value), "%u", pick(1000));
	uint64_t parent;
	parent_of(&at, &parent);
	int result = fsc_walk(c, at.whole, &id);
	int host = host_result(lstat(in_model(at.whole), &st));
	if (!result && !host) {
		const bool set = pick(2);
		result = set ? fsc_setxattr(c, id, "user.model", value, (uint32_t)length, 0) : fsc_removexattr(c, id, "user.model");
		host = host_result(set ? lsetxattr(in_model(at.whole), "user.model", value, (size_t)length, 0)
				       : lremovexattr(in_model(at.whole), "user.model"));
		if (S_ISLNK(st.st_mode) && result && host)
			return;
	}
	same(result, host, &at);
}

static void do_io(struct place at)
{
	struct open_pair *pair = &opened[pick(FILES_OPEN)];
	static char data[DATA_MAX], read_back[DATA_MAX];
	const uint64_t offset = pick(DATA_MAX);
	const uint32_t size = pick(DATA_MAX);
	if (pair->fd < 0)
		return;
	switch (pick(4)) {
	case 0: {
		ssize_t host = pread(pair->fd, read_back, size, (off_t)offset);
		const ssize_t n = fsc_read(c, pair->id, pair->fh, offset, size);
		host = host < 0 ? -errno : host;
		cr_assert(n == host && (n <= 0 || memcmp(c->body, read_back, (size_t)n) == 0), "read %zd, not %zd", n, host);
		break;
	}
	case 1: {
		const struct fuse_fallocate_in in = { .fh = pair->fh,
						      .offset = offset,
						      .length = size + 1,
						      .mode = pick(2) ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE : 0 };
		const int host = host_result(fallocate(pair->fd, (int)in.mode, (off_t)offset, size + 1));
		fsc_begin(c, FUSE_FALLOCATE, pair->id);
		fsc_add(c, &in, sizeof(in));
		same(fsc_send(c), host, &at);
		break;
	}
	default: {
		const bool append = pick(3) == 0;
		memset(data, (int)pick(256), size);
		if (append)
			fcntl(pair->fd, F_SETFL, O_APPEND);
		ssize_t host = pwrite(pair->fd, data, size, (off_t)offset);
		host = host < 0 ? -errno : host;
		fcntl(pair->fd, F_SETFL, 0);
		c->in_piece = pick(2) * 4096;
		const ssize_t n = fsc_write_with(
		    c, pair->id,
		    (struct fuse_write_in){ .fh = pair->fh, .offset = offset, .size = size, .flags = append ? O_APPEND : 0 }, data);
		c->in_piece = 0;
		cr_assert(n == host, "write %zd, not %zd", n, host);
	}
	}
}

/* ---- comparing -------------------------------------------------------------------------------------------------------------------- */

static void compare_files(const char *path, const struct stat *st)
{
	static char ours[1 << 20], theirs[1 << 20];
	uint64_t id, fh;
	cr_assert(fsc_walk(c, path, &id) == 0 && fsc_open(c, id, O_RDONLY, &fh) == 0, "%s", path);
	const ssize_t n = fsc_read(c, id, fh, 0, sizeof(ours));
	cr_assert(n == st->st_size, "%s: %zd", path, n);
	memcpy(ours, c->body, (size_t)n);
	cr_assert(fsc_release(c, id, fh) == 0);
	const int fd = open(in_model(path), O_RDONLY | O_CLOEXEC);
	cr_assert(read(fd, theirs, sizeof(theirs)) == n && memcmp(ours, theirs, (size_t)n) == 0, "%s", path);
	close(fd);
}

static void compare_one(const char *path)
{
	struct stat st;
	uint64_t id;
	char value[32];
	cr_assert(lstat(in_model(path), &st) == 0);
	st.st_uid = fs_share_guest_id(st.st_uid);
	st.st_gid = fs_share_guest_id(st.st_gid);
	cr_assert(fsc_walk(c, path, &id) == 0, "%s", path);
	struct fuse_attr attr;
	cr_assert(fsc_getattr(c, id, &attr) == 0);
	cr_assert(attr.mode == st.st_mode && attr.uid == st.st_uid && attr.gid == st.st_gid, "%s: %o %u:%u, not %o %u:%u", path,
		  attr.mode, attr.uid, attr.gid, st.st_mode, st.st_uid, st.st_gid);
	cr_assert(attr.nlink == st.st_nlink && (S_ISDIR(st.st_mode) || attr.size == (uint64_t)st.st_size), "%s", path);
	const ssize_t host = S_ISLNK(st.st_mode) ? -1 : getxattr(in_model(path), "user.model", value, sizeof(value));
	const ssize_t length = fsc_getxattr(c, id, "user.model", sizeof(value));
	cr_assert(host < 0 ? length < 0 : length == host && memcmp(c->body, value, (size_t)host) == 0, "%s: attribute", path);
	if (S_ISREG(st.st_mode))
		compare_files(path, &st);
	if (S_ISLNK(st.st_mode))
		cr_assert(fsc_readlink(c, id, value, sizeof(value)) == 0 && strcmp(value, "no/where") == 0);
}

struct names {
	unsigned count;
	char list[64][64];
};

static void note_name(void *arg, const char *name, const struct fuse_dirent *dirent, const struct fuse_entry_out *entry)
{
	struct names *names = arg;
	(void)dirent;
	(void)entry;
	cr_assert(names->count < 64);
	snprintf(names->list[names->count++], sizeof(names->list[0]), "%s", name);
}

static unsigned compare_trees(const char *path, bool plus)
{
	struct names names = { .count = 0 };
	uint64_t id, fh, offset = 0;
	unsigned count = 0, files = 1;
	cr_assert(fsc_walk(c, path, &id) == 0 && fsc_opendir(c, id, &fh) == 0);
	while (fsc_readdir(c, plus, id, fh, &offset, 700, note_name, &names) > 0)
		;
	cr_assert(fsc_release(c, id, fh) == 0);
	DIR *dir = opendir(in_model(path));
	for (const struct dirent *entry; (entry = readdir(dir)); count++) {
		unsigned i = 0;
		char below[256];
		while (i < names.count && strcmp(names.list[i], entry->d_name) != 0)
			i++;
		cr_assert(i < names.count, "%s has no %s", path, entry->d_name);
		if (entry->d_name[0] == '.')
			continue;
		cr_assert(snprintf(below, sizeof(below), "%s%s%s", path, *path ? "/" : "", entry->d_name) < (int)sizeof(below));
		compare_one(below);
		files += entry->d_type == DT_DIR ? compare_trees(below, plus) : 1;
	}
	closedir(dir);
	cr_assert(count == names.count, "%s: %u names, not %u", path, names.count, count);
	return files;
}

static void run(uint64_t seed, unsigned operations)
{
	static const struct {
		const char *name;
		void (*run)(struct place at);
		unsigned weight;
	} kinds[] = { { "mkdir", do_mkdir, 3 },     { "symlink", do_symlink, 1 }, { "open", do_open, 6 },
		      { "unlink", do_unlink, 3 },   { "rename", do_rename, 3 },   { "link", do_link, 2 },
		      { "setattr", do_setattr, 4 }, { "xattr", do_xattr, 2 },     { "io", do_io, 8 } };
	unsigned most = 0;
	state = seed * 0x9e3779b97f4a7c15u + 1;
	for (unsigned i = 0; i < operations; i++) {
		unsigned at = pick(32), kind = 0;
		while (at >= kinds[kind].weight)
			at -= kinds[kind++].weight;
		doing = kinds[kind].name;
		no_way = false;
		kinds[kind].run(some_place());
		if (i % 500 == 499) {
			const unsigned files = compare_trees("", i % 1000 == 999);
			most = files > most ? files : most;
			fs_server_reset(c->server); /* as a guest that starts again */
			for (unsigned k = 0; k < FILES_OPEN; k++) {
				if (opened[k].fd >= 0)
					close(opened[k].fd);
				opened[k].fd = -1;
			}
			cr_assert(fsc_start(c) == 0);
		}
	}
	cr_assert(most > 8, "%u files at most", most);
}

Test(fs_model, as_a_plain_directory)
{
	fs_share_start(&share, (struct fs_config){ .cache = FS_CACHE_AUTO, .descriptors_max = 64 });
	run(1, 20000);
}

Test(fs_model, as_a_plain_directory_once_more)
{
	fs_share_start(&share, (struct fs_config){ .cache = FS_CACHE_NONE });
	run(2, 20000);
}
