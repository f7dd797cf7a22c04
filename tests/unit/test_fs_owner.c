/*
 * devices/virtio-fs: whose files are, what mode they have and what they are, for the guest and for the host, as root and as an ordinary
 * user; and extended attributes, where all that is kept.
 */
#include <criterion/criterion.h>
#include <linux/capability.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include "tests/unit/fs_share.h"

#define NOBODY 65534u

/* In whatever process: what does not hold ends it. */
#define CHECK(CONDITION)                                                                                                           \
	do {                                                                                                                       \
		if (!(CONDITION)) {                                                                                                \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #CONDITION);                                            \
			exit(1);                                                                                                   \
		}                                                                                                                  \
	} while (0)

static void teardown(void)
{
	umount(share.path);
	fs_share_teardown();
}

TestSuite(fs_owner, .init = fs_share_setup, .fini = teardown);

static bool root_is_missing(void)
{
	return geteuid() != 0;
}

static bool has_xattrs(void)
{
	return setxattr(share.path, "user.test", "x", 1, 0) == 0 && removexattr(share.path, "user.test") == 0;
}

static struct stat host(const char *path)
{
	struct stat st;
	CHECK(lstat(fs_share_path(&share, path), &st) == 0);
	return st;
}

static struct fuse_attr guest(const char *path)
{
	uint64_t id;
	struct fuse_attr attr;
	CHECK(fsc_walk(c, path, &id) == 0);
	const struct fuse_attr found = fsc_entry(c)->attr;
	CHECK(fsc_getattr(c, id, &attr) == 0);
	CHECK(!*path || memcmp(&attr, &found, sizeof(attr)) == 0);
	return attr;
}

static uint64_t node(const char *path)
{
	uint64_t id;
	CHECK(fsc_walk(c, path, &id) == 0);
	return id;
}

static bool is(const struct fuse_attr *attr, uint32_t uid, uint32_t gid, uint32_t mode)
{
	if (attr->uid == uid && attr->gid == gid && attr->mode == mode)
		return true;
	fprintf(stderr, "is %u:%u %o, not %u:%u %o\n", attr->uid, attr->gid, attr->mode, uid, gid, mode);
	return false;
}

#define GUEST_IS(PATH, UID, GID, MODE)                                                                                             \
	do {                                                                                                                       \
		const struct fuse_attr guest_is_attr = guest(PATH);                                                                \
		CHECK(is(&guest_is_attr, UID, GID, MODE));                                                                         \
	} while (0)

static int chmod_by_guest(const char *path, uint32_t mode)
{
	return fsc_setattr(c, node(path), (struct fuse_setattr_in){ .valid = FATTR_MODE, .mode = mode });
}

static int chown_by_guest(const char *path, uint32_t uid, uint32_t gid)
{
	const struct fuse_setattr_in in = { .valid = FATTR_UID | FATTR_GID | FATTR_KILL_SUIDGID, .uid = uid, .gid = gid };
	return fsc_setattr(c, node(path), in);
}

static uint64_t made_file(const char *path, const char *name, uint32_t mode)
{
	uint64_t id, fh;
	CHECK(fsc_create(c, *path ? node(path) : FUSE_ROOT_ID, name, O_RDWR | O_EXCL, mode, &id, &fh) == 0);
	CHECK(fsc_release(c, id, fh) == 0);
	return id;
}

static void as(uint32_t uid, uint32_t gid)
{
	c->uid = uid;
	c->gid = gid;
}

/* ---- as root ---------------------------------------------------------------------------------------------------------------------- */

Test(fs_owner, root_makes_files_of_the_caller)
{
	uint64_t id;
	if (root_is_missing())
		cr_skip("needs root");
	CHECK(mkdir(fs_share_path(&share, "dir"), 0755) == 0 && chown(fs_share_path(&share, "dir"), 1000, 2000) == 0);
	fs_share_start(&share, (struct fs_config){ .cache = FS_CACHE_AUTO });
	as(1000, 1001);
	made_file("dir", "file", 0644);
	CHECK(fsc_mkdir(c, node("dir"), "sub", 0700, &id) == 0 && fsc_symlink(c, node("dir"), "link", "x", &id) == 0);
	CHECK(fsc_mknod(c, node("dir"), "node", S_IFREG | 0600, 0, &id) == 0);
	static const char *const paths[] = { "dir/file", "dir/sub", "dir/link", "dir/node" };
	for (size_t i = 0; i < 4; i++) {
		CHECK(host(paths[i]).st_uid == 1000 && host(paths[i]).st_gid == 1001);
		GUEST_IS(paths[i], 1000, 1001, host(paths[i]).st_mode);
	}
	/* This thread is itself again. */
	as(0, 0);
	made_file("dir", "root's", 0644);
	CHECK(host("dir/root's").st_uid == 0 && host("dir/root's").st_gid == 0);
	/* No ids: nobody's files are not root's. */
	as(UINT32_MAX, 0);
	CHECK(fsc_mkdir(c, node("dir"), "none", 0700, &id) < 0);
	as(1000, UINT32_MAX);
	CHECK(fsc_mkdir(c, node("dir"), "none", 0700, &id) < 0);
	as(0, 0);
	CHECK(fsc_mkdir(c, node("dir"), "some", 0700, &id) == 0 && host("dir/some").st_uid == 0);
	CHECK(chown_by_guest("dir/file", 5, 6) == 0 && host("dir/file").st_uid == 5 && host("dir/file").st_gid == 6);
	CHECK(chown_by_guest("dir/link", 7, 8) == 0 && host("dir/link").st_uid == 7);
	CHECK(chown_by_guest("dir/file", UINT32_MAX, 0) == -EINVAL);
}

Test(fs_owner, groups_that_only_the_guest_knows)
{
	uint64_t id;
	if (root_is_missing())
		cr_skip("needs root");
	CHECK(mkdir(fs_share_path(&share, "team"), 0770) == 0 && chown(fs_share_path(&share, "team"), 0, 2000) == 0);
	fs_share_start(&share, (struct fs_config){ .cache = FS_CACHE_AUTO });
	as(1000, 1000); /* and 2000, which the guest's kernel has checked */
	made_file("team", "file", 0644);
	CHECK(fsc_mkdir(c, node("team"), "dir", 0755, &id) == 0);
	CHECK(host("team/file").st_uid == 1000 && host("team/file").st_gid == 1000 && host("team/dir").st_uid == 1000);
}

Test(fs_owner, set_gid_directories)
{
	uint64_t id;
	if (root_is_missing() || !has_xattrs())
		cr_skip("needs root and user xattrs");
	CHECK(mkdir(fs_share_path(&share, "dir"), 0777) == 0 && chown(fs_share_path(&share, "dir"), 0, 2000) == 0);
	CHECK(chmod(fs_share_path(&share, "dir"), 02777) == 0);
	fs_share_start(&share, (struct fs_config){ .cache = FS_CACHE_AUTO });
	as(1000, 1000);
	made_file("dir", "file", 0644);
	CHECK(fsc_mkdir(c, node("dir"), "sub", 0755, &id) == 0);
	GUEST_IS("dir/file", 1000, 2000, S_IFREG | 0644);
	GUEST_IS("dir/sub", 1000, 2000, S_IFDIR | 02755);
	CHECK(host("dir/file").st_gid == 2000 && host("dir/sub").st_gid == 2000);
	/* CVE-2022-0358: a program of the group, made by someone who does not belong to it. */
	made_file("dir", "program", 02755);
	GUEST_IS("dir/program", 1000, 2000, S_IFREG | 0755);
	CHECK(fsc_mknod(c, node("dir"), "second", S_IFREG | 02755, 0, &id) == 0);
	GUEST_IS("dir/second", 1000, 2000, S_IFREG | 0755);
	as(1000, 2000);
	made_file("dir", "member's", 02755);
	GUEST_IS("dir/member's", 1000, 2000, S_IFREG | 02755);
	CHECK(!(host("dir/member's").st_mode & S_ISGID));
	CHECK(fsc_mknod(c, node("dir"), "device", S_IFCHR | 0600, 0x103, &id) == 0);
	GUEST_IS("dir/device", 1000, 2000, S_IFCHR | 0600);
}

/* What both root and ordinary users keep beside the file. */
static void check_set_ids(void)
{
	uint64_t id, fh;
	made_file("", "program", 04755);
	GUEST_IS("program", c->uid, c->gid, S_IFREG | 04755);
	CHECK(!(host("program").st_mode & (S_ISUID | S_ISGID)));
	CHECK(chmod_by_guest("program", 06755) == 0);
	GUEST_IS("program", c->uid, c->gid, S_IFREG | 06755);
	CHECK(chmod_by_guest("program", 01644) == 0);
	GUEST_IS("program", c->uid, c->gid, S_IFREG | 01644);
	CHECK(chmod_by_guest("program", 0644) == 0);
	GUEST_IS("program", c->uid, c->gid, S_IFREG | 0644);
	CHECK(!(host("program").st_mode & S_ISVTX) && "nothing is kept any more");

	/* Writing, with and without the right to leave them. */
	CHECK(chmod_by_guest("program", 06755) == 0);
	id = node("program");
	CHECK(fsc_open(c, id, O_RDWR, &fh) == 0);
	CHECK(fsc_write(c, id, fh, 0, "x", 1) == 1);
	GUEST_IS("program", c->uid, c->gid, S_IFREG | 06755);
	CHECK(fsc_write_with(c, id, (struct fuse_write_in){ .fh = fh, .size = 1, .write_flags = FUSE_WRITE_KILL_SUIDGID }, "y") ==
	      1);
	GUEST_IS("program", c->uid, c->gid, S_IFREG | 0755);
	CHECK(chmod_by_guest("program", 06755) == 0);
	const struct fuse_setattr_in cut = { .valid = FATTR_SIZE | FATTR_KILL_SUIDGID };
	CHECK(fsc_setattr(c, id, cut) == 0);
	GUEST_IS("program", c->uid, c->gid, S_IFREG | 0755);
	CHECK(chmod_by_guest("program", 04755) == 0);
	const struct fuse_open_in truncate = { .flags = O_WRONLY | O_TRUNC, .open_flags = FUSE_OPEN_KILL_SUIDGID };
	fsc_begin(c, FUSE_OPEN, id);
	fsc_add(c, &truncate, sizeof(truncate));
	CHECK(fsc_send(c) == 0);
	GUEST_IS("program", c->uid, c->gid, S_IFREG | 0755);
	/* Giving it away. */
	CHECK(chmod_by_guest("program", 04755) == 0 && chown_by_guest("program", 123, 456) == 0);
	GUEST_IS("program", 123, 456, S_IFREG | 0755);
	CHECK(chmod_by_guest("program", 04755) == 0);
	GUEST_IS("program", 123, 456, S_IFREG | 04755);
	CHECK(!(host("program").st_mode & S_ISUID));
}

static void check_special_files(void)
{
	static const struct {
		const char *name;
		uint32_t mode;
		uint32_t major, minor;
	} files[] = { { "char", S_IFCHR | 0666, 1, 3 },
		      { "block", S_IFBLK | 0640, 259, 0x12345 },
		      { "fifo", S_IFIFO | 0600, 0, 0 },
		      { "socket", S_IFSOCK | 0777, 0, 0 } };
	uint64_t fh, offset = 0;
	for (size_t i = 0; i < 4; i++) {
		const uint32_t rdev = (files[i].minor & 0xff) | files[i].major << 8 | (files[i].minor & ~0xffu) << 12;
		uint64_t id;
		CHECK(fsc_mknod(c, FUSE_ROOT_ID, files[i].name, files[i].mode, rdev, &id) == 0);
		GUEST_IS(files[i].name, c->uid, c->gid, files[i].mode);
		CHECK(guest(files[i].name).rdev == rdev && guest(files[i].name).size == 0);
		CHECK(S_ISREG(host(files[i].name).st_mode) && (host(files[i].name).st_mode & 0777) == 0600);
		CHECK(host(files[i].name).st_uid == geteuid());
		CHECK(chmod_by_guest(files[i].name, 0604) == 0 && chown_by_guest(files[i].name, 77, 88) == 0);
		GUEST_IS(files[i].name, 77, 88, (files[i].mode & S_IFMT) | 0604);
		CHECK(guest(files[i].name).rdev == rdev);
		CHECK(host(files[i].name).st_uid == geteuid() && (host(files[i].name).st_mode & 0777) == 0600);
		CHECK(fsc_rename(c, FUSE_ROOT_ID, files[i].name, FUSE_ROOT_ID, "moved", 0) == 0);
		CHECK(fsc_link(c, node("moved"), FUSE_ROOT_ID, files[i].name) == 0);
		GUEST_IS(files[i].name, 77, 88, (files[i].mode & S_IFMT) | 0604);
		CHECK(fsc_remove(c, FUSE_UNLINK, FUSE_ROOT_ID, "moved") == 0);
	}
	/* Nobody who lists them takes them for regular files. */
	CHECK(fsc_opendir(c, FUSE_ROOT_ID, &fh) == 0);
	const ssize_t n = fsc_read_with(c, FUSE_READDIR, FUSE_ROOT_ID, fh, offset, 65536);
	unsigned unknown = 0;
	for (size_t at = 0; at < (size_t)n;) {
		struct fuse_dirent dirent;
		memcpy(&dirent, c->body + at, FUSE_NAME_OFFSET);
		unknown += dirent.type == 0;
		CHECK(dirent.type != 8);
		at += FUSE_REC_ALIGN(FUSE_NAME_OFFSET + dirent.namelen);
	}
	CHECK(unknown == 4);
}

static const uint8_t capability[20] = { 1, 0, 0, 2, 0, 0x20 }; /* VFS_CAP_REVISION_2, effective, CAP_NET_RAW */

static void check_capabilities(void)
{
	uint64_t id = made_file("", "ping", 0755), fh;
	char list[256];
	CHECK(fsc_setxattr(c, id, "security.capability", capability, 20, 0) == 0);
	CHECK(fsc_getxattr(c, id, "security.capability", 100) == 20 && memcmp(c->body, capability, 20) == 0);
	CHECK(getxattr(fs_share_path(&share, "ping"), "security.capability", list, sizeof(list)) < 0 && errno == ENODATA);
	CHECK(fsc_getxattr(c, id, NULL, 200) == 20 && strcmp((const char *)c->body, "security.capability") == 0);
	GUEST_IS("ping", c->uid, c->gid, S_IFREG | 0755);
	/* CVE-2021-20263: they go with the first byte that is written, whoever writes. */
	CHECK(fsc_open(c, id, O_RDWR, &fh) == 0 && fsc_write(c, id, fh, 0, "x", 1) == 1);
	CHECK(fsc_getxattr(c, id, "security.capability", 100) == -ENODATA);
	GUEST_IS("ping", c->uid, c->gid, S_IFREG | 0755);
	CHECK(fsc_setxattr(c, id, "security.capability", capability, 20, 0) == 0);
	CHECK(fsc_removexattr(c, id, "security.capability") == 0);
	CHECK(fsc_getxattr(c, id, "security.capability", 0) == -ENODATA &&
	      fsc_removexattr(c, id, "security.capability") == -ENODATA);
}

Test(fs_owner, root_keeps_set_ids_beside_the_file)
{
	if (root_is_missing() || !has_xattrs())
		cr_skip("needs root and user xattrs");
	fs_share_start(&share, (struct fs_config){ .cache = FS_CACHE_AUTO });
	check_set_ids();
	/* Of the host's own programs they are shown, and go when they have to. */
	fs_share_file(&share, "su", "x");
	CHECK(chmod(fs_share_path(&share, "su"), 04755) == 0);
	GUEST_IS("su", 0, 0, S_IFREG | 04755);
	uint64_t id = node("su"), fh;
	CHECK(fsc_open(c, id, O_RDWR, &fh) == 0);
	CHECK(fsc_write_with(c, id, (struct fuse_write_in){ .fh = fh, .size = 1, .write_flags = FUSE_WRITE_KILL_SUIDGID }, "y") ==
	      1);
	GUEST_IS("su", 0, 0, S_IFREG | 0755);
}

/* The client's kernel says when they have to go. A hostile one does not say it, and what it writes must not run as the host's root. */
Test(fs_owner, root_s_programs_that_a_guest_writes_to_lose_set_ids)
{
	if (root_is_missing())
		cr_skip("needs root");
	static const char *const names[] = { "written", "cut", "opened" };
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		fs_share_file(&share, names[i], "x");
		CHECK(chmod(fs_share_path(&share, names[i]), 06755) == 0);
	}
	fs_share_start(&share, (struct fs_config){ .cache = FS_CACHE_AUTO });
	uint64_t id = node("written"), fh;
	CHECK(fsc_open(c, id, O_RDWR, &fh) == 0 && fsc_write(c, id, fh, 0, "y", 1) == 1);
	CHECK(fsc_setattr(c, node("cut"), (struct fuse_setattr_in){ .valid = FATTR_SIZE }) == 0);
	CHECK(fsc_open(c, node("opened"), O_RDWR | O_TRUNC, &fh) == 0);
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		cr_expect_eq(host(names[i]).st_mode & 07777, 0755, "%s", names[i]);
}

/* For which the right to keep set-id bits is not needed. */
Test(fs_owner, root_gives_directories_of_any_group_the_set_gid_bit)
{
	uint64_t id;
	if (root_is_missing())
		cr_skip("needs root");
	fs_share_start(&share, (struct fs_config){ .cache = FS_CACHE_AUTO });
	CHECK(fsc_mkdir(c, FUSE_ROOT_ID, "dir", 0755, &id) == 0 && chown_by_guest("dir", 1000, 2000) == 0);
	CHECK(chmod_by_guest("dir", 02775) == 0);
	CHECK(host("dir").st_gid == 2000 && (host("dir").st_mode & 07777) == 02775);
	as(1000, 1000);
	CHECK(fsc_mkdir(c, node("dir"), "sub", 0755, &id) == 0);
	CHECK(host("dir/sub").st_gid == 2000 && host("dir/sub").st_uid == 1000 && host("dir/sub").st_mode & S_ISGID);
}

Test(fs_owner, root_keeps_special_files_as_data)
{
	if (root_is_missing() || !has_xattrs())
		cr_skip("needs root and user xattrs");
	fs_share_start(&share, (struct fs_config){ .cache = FS_CACHE_AUTO });
	as(1000, 1000);
	check_special_files();
}

Test(fs_owner, root_keeps_capabilities_beside_the_file)
{
	if (root_is_missing() || !has_xattrs())
		cr_skip("needs root and user xattrs");
	fs_share_start(&share, (struct fs_config){ .cache = FS_CACHE_AUTO });
	check_capabilities();
	fs_share_file(&share, "host's", "x");
	if (setxattr(fs_share_path(&share, "host's"), "security.capability", capability, 20, 0))
		cr_skip("capabilities cannot be set here");
	const uint64_t id = node("host's");
	CHECK(fsc_getxattr(c, id, "security.capability", 100) == 20 && memcmp(c->body, capability, 20) == 0);
	CHECK(fsc_getxattr(c, id, NULL, 200) == 20);
	CHECK(fsc_removexattr(c, id, "security.capability") == 0 && fsc_getxattr(c, id, "security.capability", 100) == -ENODATA);
}

Test(fs_owner, root_does_not_believe_what_others_wrote)
{
	if (root_is_missing() || !has_xattrs())
		cr_skip("needs root and user xattrs");
	static const char *const texts[] = { "0:0:0104755:0:0",
					     "0:0:0060666:254:0",
					     "",
					     ":::",
					     "0:0:0104755:0",
					     "0:0:0104755:0:0:0",
					     "-1:0:0104755:0:0",
					     "0:0:9:0:0",
					     "99999999999:0:0104755:0:0",
					     "0:0:7777777:0:0",
					     "0:0:0104755:0:0 " };
	fs_share_start(&share, (struct fs_config){ .cache = FS_CACHE_AUTO });
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		fs_share_file(&share, "forged", "x");
		CHECK(chown(fs_share_path(&share, "forged"), 1000, 1000) == 0 &&
		      chmod(fs_share_path(&share, "forged"), 01755) == 0);
		CHECK(setxattr(fs_share_path(&share, "forged"), "user.trvmm.stat", texts[i], strlen(texts[i]), 0) == 0);
		/* A program that runs as its true owner is all that its owner can have made of it. */
		GUEST_IS("forged", 1000, 1000, S_IFREG | (i == 0 ? 04755 : 01755));
		CHECK(unlink(fs_share_path(&share, "forged")) == 0);
	}
}

/* ---- as an ordinary user ---------------------------------------------------------------------------------------------------------- */

/* Runs `fn` in a child that is nobody special, with the share his. */
static void as_user(void (*fn)(void))
{
	if (geteuid() == 0)
		cr_assert(chown(share.path, NOBODY, NOBODY) == 0);
	const pid_t pid = fork();
	if (pid == 0) {
		if (geteuid() == 0)
			CHECK(setresgid(NOBODY, NOBODY, NOBODY) == 0 && setresuid(NOBODY, NOBODY, NOBODY) == 0);
		umask(022);
		fs_share_start(&share, (struct fs_config){ .cache = FS_CACHE_AUTO });
		as(0, 0);
		fn();
		fsc_free(c);
		exit(0);
	}
	int status;
	cr_assert(waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
}

static void user_ids(void)
{
	uint64_t id, fh;
	GUEST_IS("", 0, 0, S_IFDIR | 0755);
	made_file("", "root's", 0644);
	GUEST_IS("root's", 0, 0, S_IFREG | 0644);
	CHECK(host("root's").st_uid == geteuid() && listxattr(fs_share_path(&share, "root's"), NULL, 0) == 0 && "nothing to keep");

	as(1000, 1001);
	made_file("", "user's", 0644);
	CHECK(fsc_mkdir(c, FUSE_ROOT_ID, "dir", 0700, &id) == 0 && fsc_mknod(c, id, "node", S_IFREG | 0, 0, &id) == 0);
	GUEST_IS("user's", 1000, 1001, S_IFREG | 0644);
	GUEST_IS("dir", 1000, 1001, S_IFDIR | 0700);
	GUEST_IS("dir/node", 1000, 1001, S_IFREG | 0);
	CHECK(host("user's").st_uid == geteuid() && host("dir").st_uid == geteuid());
	CHECK(fsc_symlink(c, FUSE_ROOT_ID, "link", "x", &id) == 0);
	GUEST_IS("link", 0, 0, S_IFLNK | 0777); /* which cannot keep any */
	CHECK(chown_by_guest("link", 5, 5) == 0);

	/* What is closed to everybody in the guest is still ours to serve. */
	id = node("dir/node");
	CHECK(fsc_open(c, id, O_RDWR, &fh) == 0 && fsc_write(c, id, fh, 0, "x", 1) == 1);
	CHECK(chmod_by_guest("dir", 0) == 0);
	GUEST_IS("dir", 1000, 1001, S_IFDIR | 0);
	GUEST_IS("dir/node", 1000, 1001, S_IFREG | 0);
	CHECK(chown_by_guest("dir", 0, 0) == 0 && chmod_by_guest("dir", 0755) == 0);
	GUEST_IS("dir", 0, 0, S_IFDIR | 0755);
	/* A file that the host's user closed to himself. */
	fs_share_file(&share, "closed", "x");
	CHECK(chmod(fs_share_path(&share, "closed"), 0) == 0);
	GUEST_IS("closed", 0, 0, S_IFREG | 0);
	CHECK(chown_by_guest("closed", 9, 9) == 0);
	GUEST_IS("closed", 9, 9, S_IFREG | 0);

	/* Set-gid directories give their group. */
	CHECK(chown_by_guest("dir", 0, 500) == 0 && chmod_by_guest("dir", 02775) == 0);
	made_file("dir", "group's", 0644);
	CHECK(fsc_mkdir(c, node("dir"), "sub", 0755, &id) == 0);
	GUEST_IS("dir/group's", 1000, 500, S_IFREG | 0644);
	GUEST_IS("dir/sub", 1000, 500, S_IFDIR | 02755);

	/* All of it is there for the next guest. */
	fsc_free(c);
	fs_share_start(&share, (struct fs_config){ .cache = FS_CACHE_AUTO });
	GUEST_IS("user's", 1000, 1001, S_IFREG | 0644);
	GUEST_IS("dir/sub", 1000, 500, S_IFDIR | 02755);
}

Test(fs_owner, users_keep_ids_beside_the_file)
{
	if (!has_xattrs())
		cr_skip("no user xattrs here");
	as_user(user_ids);
}

Test(fs_owner, users_keep_set_ids_beside_the_file)
{
	if (!has_xattrs())
		cr_skip("no user xattrs here");
	as_user(check_set_ids);
}

Test(fs_owner, users_keep_special_files_as_data)
{
	if (!has_xattrs())
		cr_skip("no user xattrs here");
	as_user(check_special_files);
}

Test(fs_owner, users_keep_capabilities_beside_the_file)
{
	if (!has_xattrs())
		cr_skip("no user xattrs here");
	as_user(check_capabilities);
}

static void others_files(void)
{
	uint64_t fh;
	GUEST_IS("theirs", 1234, 1234, S_IFREG | 0644);
	CHECK(chmod_by_guest("theirs", 0777) == -EPERM && chown_by_guest("theirs", 0, 0) == -EPERM);
	CHECK(fsc_open(c, node("theirs"), O_RDWR, &fh) == -EACCES && fsc_open(c, node("theirs"), O_RDONLY, &fh) == 0);
	GUEST_IS("private", 1234, 1234, S_IFREG | 0600);
	CHECK(fsc_open(c, node("private"), O_RDONLY, &fh) == -EACCES);
}

Test(fs_owner, files_of_others_stay_theirs)
{
	if (root_is_missing())
		cr_skip("needs root");
	fs_share_file(&share, "theirs", "x");
	fs_share_file(&share, "private", "x");
	cr_assert(chown(fs_share_path(&share, "theirs"), 1234, 1234) == 0 &&
		  chown(fs_share_path(&share, "private"), 1234, 1234) == 0);
	cr_assert(chmod(fs_share_path(&share, "private"), 0600) == 0);
	as_user(others_files);
}

/* ---- without xattrs --------------------------------------------------------------------------------------------------------------- */

static void squashed(void)
{
	uint64_t id;
	CHECK(fs_server_squashes(c->server));
	as(1000, 1000);
	made_file("", "file", 04755);
	GUEST_IS("file", 0, 0, S_IFREG | 0755);
	CHECK(fsc_setxattr(c, node("file"), "user.x", "y", 1, 0) == -EOPNOTSUPP);
	CHECK(chown_by_guest("file", 5, 5) == 0 && chmod_by_guest("file", 0444) == 0);
	GUEST_IS("file", 0, 0, S_IFREG | 0444);
	CHECK(fsc_mknod(c, FUSE_ROOT_ID, "fifo", S_IFIFO | 0600, 0, &id) == 0);
	GUEST_IS("fifo", 0, 0, S_IFIFO | 0600);
	CHECK(fsc_mknod(c, FUSE_ROOT_ID, "device", S_IFCHR | 0600, 0x103, &id) == -EPERM);
}

Test(fs_owner, users_are_squashed_without_xattrs)
{
	if (root_is_missing() || mount("none", share.path, "ramfs", 0, NULL))
		cr_skip("needs root, to mount a ramfs");
	as_user(squashed);
}

Test(fs_owner, root_without_xattrs)
{
	uint64_t id;
	if (root_is_missing() || mount("none", share.path, "ramfs", 0, NULL))
		cr_skip("needs root, to mount a ramfs");
	fs_share_start(&share, (struct fs_config){ .cache = FS_CACHE_AUTO });
	as(1000, 1000);
	made_file("", "file", 04755);
	GUEST_IS("file", 1000, 1000, S_IFREG | 0755);
	CHECK(fsc_mknod(c, FUSE_ROOT_ID, "device", S_IFCHR | 0600, 0x103, &id) == -EPERM);
	CHECK(chmod_by_guest("file", 06777) == 0 && !(host("file").st_mode & 06000));
	fsc_free(c);
}

Test(fs_owner, a_full_disk)
{
	uint64_t id, fh;
	static char page[65536];
	if (root_is_missing() || mount("none", share.path, "tmpfs", 0, "size=256k,nr_inodes=16"))
		cr_skip("needs root, to mount a tmpfs");
	fs_share_start(&share, (struct fs_config){ .cache = FS_CACHE_AUTO });
	CHECK(fsc_create(c, FUSE_ROOT_ID, "file", O_RDWR, 0644, &id, &fh) == 0);
	uint64_t written = 0;
	ssize_t n;
	memset(page, 'p', sizeof(page));
	while ((n = fsc_write(c, id, fh, written, page, sizeof(page))) > 0)
		written += (uint64_t)n;
	CHECK(n == -ENOSPC && written > 0 && written <= 256 << 10);
	CHECK((uint64_t)host("file").st_size == written);
	CHECK(fsc_read(c, id, fh, written - 100, 200) == 100 && c->body[99] == 'p');
	int result = 0;
	for (int i = 0; i < 20 && !result; i++) {
		char name[16];
		snprintf(name, sizeof(name), "f%d", i);
		result = fsc_mknod(c, FUSE_ROOT_ID, name, S_IFREG | 0644, 0, &id);
	}
	CHECK(result == -ENOSPC);
	CHECK(fsc_remove(c, FUSE_UNLINK, FUSE_ROOT_ID, "f0") == 0 &&
	      fsc_mknod(c, FUSE_ROOT_ID, "again", S_IFREG | 0644, 0, &id) == 0);
	fsc_free(c);
}

/* ---- extended attributes ---------------------------------------------------------------------------------------------------------- */

Test(fs_owner, attributes_of_users_are_the_hosts)
{
	uint64_t id;
	char value[256];
	static char large[65537];
	if (!has_xattrs())
		cr_skip("no user xattrs here");
	fs_share_start(&share, (struct fs_config){ .cache = FS_CACHE_AUTO });
	id = made_file("", "file", 0644);
	CHECK(fsc_getxattr(c, id, "user.a", 0) == -ENODATA && fsc_getxattr(c, id, NULL, 0) == 0);
	CHECK(fsc_setxattr(c, id, "user.a", "value", 5, XATTR_REPLACE) == -ENODATA);
	CHECK(fsc_setxattr(c, id, "user.a", "value", 5, XATTR_CREATE) == 0);
	CHECK(fsc_setxattr(c, id, "user.a", "value", 5, XATTR_CREATE) == -EEXIST);
	CHECK(fsc_setxattr(c, id, "user.empty", "", 0, 0) == 0 && fsc_getxattr(c, id, "user.empty", 10) == 0);
	CHECK(getxattr(fs_share_path(&share, "file"), "user.a", value, sizeof(value)) == 5 && memcmp(value, "value", 5) == 0);
	CHECK(fsc_getxattr(c, id, "user.a", 0) == 5 && fsc_getxattr(c, id, "user.a", 4) == -ERANGE);
	CHECK(fsc_getxattr(c, id, "user.a", 5) == 5 && memcmp(c->body, "value", 5) == 0);
	CHECK(fsc_getxattr(c, id, "user.a", UINT32_MAX) == 5);
	CHECK(fsc_getxattr(c, id, NULL, 0) == 18 && fsc_getxattr(c, id, NULL, 17) == -ERANGE &&
	      fsc_getxattr(c, id, NULL, 100) == 18);
	CHECK(fsc_setxattr(c, id, "user.b", large, 65537, 0) == -E2BIG);
	CHECK(fsc_setxattr(c, id, "", "x", 1, 0) == -EINVAL && fsc_getxattr(c, id, "", 0) == -EINVAL);
	memset(value, 'n', 255);
	memcpy(value, "user.", 5);
	value[255] = 0;
	CHECK(fsc_setxattr(c, id, value, "x", 1, 0) == 0 && fsc_getxattr(c, id, value, 0) == 1);
	memcpy(value, "trusted.", 8);
	CHECK(fsc_setxattr(c, id, value, "x", 1, 0) == -ERANGE && fsc_getxattr(c, id, value, 0) == -ERANGE);
	CHECK(fsc_removexattr(c, id, "user.a") == 0 && fsc_removexattr(c, id, "user.a") == -ENODATA);
}

Test(fs_owner, attributes_that_mean_something_to_the_host_are_renamed)
{
	uint64_t id;
	if (!has_xattrs())
		cr_skip("no user xattrs here");
	fs_share_start(&share, (struct fs_config){ .cache = FS_CACHE_AUTO });
	id = made_file("", "file", 04644);
	CHECK(fsc_setxattr(c, id, "trusted.overlay.opaque", "y", 1, 0) == 0);
	CHECK(fsc_getxattr(c, id, "trusted.overlay.opaque", 10) == 1 && c->body[0] == 'y');
	CHECK(getxattr(fs_share_path(&share, "file"), "trusted.overlay.opaque", NULL, 0) < 0);
	CHECK(fsc_setxattr(c, id, "system.posix_acl_access", "x", 1, 0) == -EOPNOTSUPP);
	CHECK(fsc_setxattr(c, id, "other.x", "x", 1, 0) == -EOPNOTSUPP);
	/* The server's own are not there. */
	CHECK(getxattr(fs_share_path(&share, "file"), "user.trvmm.stat", NULL, 0) > 0);
	CHECK(fsc_getxattr(c, id, "user.trvmm.stat", 0) == -ENODATA && fsc_removexattr(c, id, "user.trvmm.stat") == -ENODATA);
	CHECK(fsc_setxattr(c, id, "user.trvmm.stat", "0:0:0104755:0:0", 15, 0) == -EPERM);
	CHECK(fsc_setxattr(c, id, "user.trvmm.security.capability", "x", 1, 0) == -EPERM);
	CHECK(fsc_getxattr(c, id, NULL, 100) == 23 && strcmp((const char *)c->body, "trusted.overlay.opaque") == 0);
	GUEST_IS("file", c->uid, c->gid, S_IFREG | 04644);
}
