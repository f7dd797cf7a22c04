/*
 * devices/virtio-fs: what a hostile guest may say to the FUSE server, and what a hostile user of the host may do to the directory
 * meanwhile. Nothing outside of the share is ever opened or changed, nothing crashes, and what is held stays bounded.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/un.h>

#include "tests/unit/fs_share.h"

static void start(struct fs_config config)
{
	fs_share_start(&share, config);
}

TestSuite(fs_hostile, .init = fs_share_setup, .fini = fs_share_teardown, .timeout = 120);

/* ---- malformed requests ----------------------------------------------------------------------------------------------------------- */

Test(fs_hostile, no_answer_without_a_whole_header)
{
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	for (size_t length = 0; length < sizeof(struct fuse_in_header); length++) {
		fsc_begin(c, FUSE_GETATTR, FUSE_ROOT_ID);
		c->in_length = length;
		cr_assert(fsc_send_raw(c) == -EPROTO, "%zu bytes", length);
	}
	for (size_t room = 0; room < sizeof(struct fuse_out_header); room++) {
		fsc_begin(c, FUSE_GETATTR, FUSE_ROOT_ID);
		fsc_header(c)->len = (uint32_t)c->in_length;
		c->out_room = room;
		cr_assert(fsc_send_raw(c) == -EPROTO, "room for %zu bytes", room);
		cr_assert(room == 0 || c->out[0] == FSC_FILL);
	}
	/* FORGET is due none. */
	fsc_begin(c, FUSE_FORGET, 77);
	fsc_header(c)->len = (uint32_t)c->in_length;
	c->out_room = 0;
	cr_assert(fsc_send_raw(c) == 0);
	fsc_begin(c, FUSE_INTERRUPT, 0);
	fsc_add(c, "12345678", 8);
	fsc_header(c)->len = (uint32_t)c->in_length;
	cr_assert(fsc_send_raw(c) == 0);
}

/* Every operation in its right form, for variants of it: without its names, which `names` puts behind. */
static const struct {
	uint32_t opcode;
	size_t arguments;
	unsigned names;
} forms[] = {
	{ FUSE_LOOKUP, 0, 1 },
	{ FUSE_GETATTR, sizeof(struct fuse_getattr_in), 0 },
	{ FUSE_SETATTR, sizeof(struct fuse_setattr_in), 0 },
	{ FUSE_SYMLINK, 0, 2 },
	{ FUSE_MKNOD, sizeof(struct fuse_mknod_in), 1 },
	{ FUSE_MKDIR, sizeof(struct fuse_mkdir_in), 1 },
	{ FUSE_UNLINK, 0, 1 },
	{ FUSE_RMDIR, 0, 1 },
	{ FUSE_RENAME, sizeof(struct fuse_rename_in), 2 },
	{ FUSE_RENAME2, sizeof(struct fuse_rename2_in), 2 },
	{ FUSE_LINK, sizeof(struct fuse_link_in), 1 },
	{ FUSE_OPEN, sizeof(struct fuse_open_in), 0 },
	{ FUSE_READ, sizeof(struct fuse_read_in), 0 },
	{ FUSE_WRITE, sizeof(struct fuse_write_in), 0 },
	{ FUSE_RELEASE, sizeof(struct fuse_release_in), 0 },
	{ FUSE_FSYNC, sizeof(struct fuse_fsync_in), 0 },
	{ FUSE_SETXATTR, sizeof(struct fuse_setxattr_in), 1 },
	{ FUSE_GETXATTR, sizeof(struct fuse_getxattr_in), 1 },
	{ FUSE_LISTXATTR, sizeof(struct fuse_getxattr_in), 0 },
	{ FUSE_REMOVEXATTR, 0, 1 },
	{ FUSE_OPENDIR, sizeof(struct fuse_open_in), 0 },
	{ FUSE_READDIR, sizeof(struct fuse_read_in), 0 },
	{ FUSE_READDIRPLUS, sizeof(struct fuse_read_in), 0 },
	{ FUSE_RELEASEDIR, sizeof(struct fuse_release_in), 0 },
	{ FUSE_FSYNCDIR, sizeof(struct fuse_fsync_in), 0 },
	{ FUSE_CREATE, sizeof(struct fuse_create_in), 1 },
	{ FUSE_TMPFILE, sizeof(struct fuse_create_in), 1 },
	{ FUSE_FALLOCATE, sizeof(struct fuse_fallocate_in), 0 },
	{ FUSE_LSEEK, sizeof(struct fuse_lseek_in), 0 },
	{ FUSE_COPY_FILE_RANGE, sizeof(struct fuse_copy_file_range_in), 0 },
	{ FUSE_SYNCFS, sizeof(struct fuse_syncfs_in), 0 },
	{ FUSE_STATFS, 0, 0 },
	{ FUSE_READLINK, 0, 0 },
	{ FUSE_DESTROY, 0, 0 },
};
#define FORMS (sizeof(forms) / sizeof(*forms))

static void build(size_t form, uint64_t nodeid, const char *name)
{
	static const uint8_t zeros[256];
	fsc_begin(c, forms[form].opcode, nodeid);
	fsc_add(c, zeros, forms[form].arguments);
	for (unsigned i = 0; i < forms[form].names; i++)
		fsc_add_string(c, name);
}

Test(fs_hostile, requests_that_are_short)
{
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	for (size_t i = 0; i < FORMS; i++) {
		build(i, FUSE_ROOT_ID, "name");
		const size_t whole = c->in_length;
		for (size_t length = sizeof(struct fuse_in_header); length < whole; length++) {
			build(i, FUSE_ROOT_ID, "name");
			c->in_length = length;
			cr_assert(fsc_send(c) == -EINVAL, "opcode %u of %zu bytes: %d", forms[i].opcode, length, c->answer->error);
		}
		/* A header that says more than there is, or less than itself. */
		build(i, FUSE_ROOT_ID, "name");
		fsc_header(c)->len = (uint32_t)whole + 1;
		cr_assert(fsc_send_raw(c) == 16 && c->answer->error == -EINVAL);
		fsc_header(c)->len = 39;
		cr_assert(fsc_send_raw(c) == 16 && c->answer->error == -EINVAL);
		fsc_header(c)->len = UINT32_MAX;
		cr_assert(fsc_send_raw(c) == 16 && c->answer->error == -EINVAL);
	}
	DIR *dir = opendir(share.path);
	struct dirent *entry;
	while ((entry = readdir(dir)))
		cr_assert(entry->d_name[0] == '.', "nothing was made: %s", entry->d_name);
	closedir(dir);
}

Test(fs_hostile, requests_that_are_long)
{
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	for (size_t i = 0; i < FORMS; i++) {
		build(i, FUSE_ROOT_ID, "name");
		fsc_add(c, "more", 5);
		if (forms[i].opcode == FUSE_WRITE || forms[i].opcode == FUSE_SETXATTR)
			continue; /* that is their data */
		cr_assert(fsc_send(c) == -EINVAL, "opcode %u: %d", forms[i].opcode, c->answer->error);
	}
}

Test(fs_hostile, numbers_that_nobody_was_given)
{
	uint64_t dir, file;
	fs_share_file(&share, "dir/file", "x");
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	cr_assert(fsc_walk(c, "dir", &dir) == 0 && fsc_lookup(c, dir, "file", &file) == 0);
	fsc_forget(c, file, 1);
	const uint64_t wrong[] = {
		0, 2 + 100, file, dir | 1ull << 32, dir + (1ull << 63), UINT64_MAX, UINT32_MAX, FUSE_ROOT_ID | 1ull << 32
	};
	for (size_t i = 0; i < FORMS; i++) {
		const uint32_t opcode = forms[i].opcode;
		if (opcode == FUSE_RELEASE || opcode == FUSE_RELEASEDIR || opcode == FUSE_DESTROY)
			continue; /* which look at the handle alone, or at nothing */
		for (size_t k = 0; k < sizeof(wrong) / sizeof(*wrong); k++) {
			build(i, wrong[k], "name");
			cr_assert(fsc_send(c) == -ESTALE, "opcode %u: %d", opcode, c->answer->error);
		}
	}
	/* A wrong number in the arguments. */
	cr_assert(fsc_link(c, file, dir, "link") == -ESTALE);
	cr_assert(fsc_rename(c, dir, "file", file, "x", 0) == -ESTALE);
}

Test(fs_hostile, handles_that_nobody_was_given)
{
	uint64_t file, fh, dir_fh;
	fs_share_file(&share, "file", "x");
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	cr_assert(fsc_walk(c, "file", &file) == 0 && fsc_open(c, file, O_RDWR, &fh) == 0 &&
		  fsc_opendir(c, FUSE_ROOT_ID, &dir_fh) == 0);
	const uint64_t wrong[] = { UINT64_MAX, 0xdeadbeef, fh + 100, fh + (1ull << 32), (uint64_t)(uint32_t)fh, dir_fh };
	for (size_t k = 0; k < sizeof(wrong) / sizeof(*wrong); k++) {
		cr_assert(fsc_read(c, file, wrong[k], 0, 1) == -EBADF);
		cr_assert(fsc_write(c, file, wrong[k], 0, "y", 1) == -EBADF);
		cr_assert(fsc_setattr(c, file, (struct fuse_setattr_in){ .valid = FATTR_SIZE | FATTR_FH, .fh = wrong[k] }) ==
			  -EBADF);
	}
	cr_assert(fsc_read_with(c, FUSE_READDIR, FUSE_ROOT_ID, fh, 0, 4096) == -EBADF);
	for (size_t k = 0; k + 1 < sizeof(wrong) / sizeof(*wrong); k++)
		cr_assert(fsc_release(c, file, wrong[k]) == 0, "which is nothing");
	cr_assert(fsc_read(c, file, fh, 0, 1) == 1);
	cr_assert(fsc_release(c, file, fh) == 0 && fsc_release(c, file, fh) == 0, "twice");
}

Test(fs_hostile, names_that_are_none)
{
	static const char *const names[] = { "", ".", "..", "/", "a/b", "/etc/passwd", "../outside", "a/", "./a" };
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	fs_share_file(&share, "name", "x");
	for (size_t i = 0; i < FORMS; i++) {
		const uint32_t opcode = forms[i].opcode;
		if (!forms[i].names || opcode == FUSE_SETXATTR || opcode == FUSE_GETXATTR || opcode == FUSE_REMOVEXATTR)
			continue;
		for (size_t k = 0; k < sizeof(names) / sizeof(*names); k++) {
			build(i, FUSE_ROOT_ID, names[k]);
			cr_assert(fsc_send(c) == -EINVAL, "opcode %u, '%s': %d", opcode, names[k], c->answer->error);
		}
		/* A NUL in the middle is the end of the name, and something behind it. */
		build(i, FUSE_ROOT_ID, "name");
		fsc_add(c, "x", 2);
		cr_assert(fsc_send(c) == -EINVAL, "opcode %u", opcode);
	}
	uint64_t id;
	cr_assert(fsc_symlink(c, FUSE_ROOT_ID, "empty", "", &id) == -EINVAL);
}

/* A request with its memory cut at every byte does the same. */
Test(fs_hostile, headers_split_at_any_byte)
{
	uint64_t id, fh;
	char text[101];
	fs_share_file(&share, "file", "");
	memset(text, 'x', 100);
	text[100] = 0;
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	for (size_t piece = 1; piece < 64; piece++) {
		c->in_piece = piece;
		c->out_piece = 65 - piece;
		cr_assert(fsc_walk(c, "file", &id) == 0 && fsc_open(c, id, O_RDWR, &fh) == 0);
		c->in_piece = piece;
		cr_assert(fsc_write(c, id, fh, piece, text, 100) == 100);
		cr_assert(fsc_read(c, id, fh, piece, 100) == 100 && memcmp(c->body, text, 100) == 0);
		cr_assert(fsc_release(c, id, fh) == 0);
	}
	/* More pieces than one system call takes. */
	c->in_piece = c->out_piece = 3;
	char *large = malloc(100000);
	for (int i = 0; i < 100000; i++)
		large[i] = (char)(i * 7);
	cr_assert(fsc_open(c, id, O_RDWR, &fh) == 0);
	cr_assert(fsc_write(c, id, fh, 0, large, 100000) == 100000);
	cr_assert(fsc_read(c, id, fh, 0, 100000) == 100000 && memcmp(c->body, large, 100000) == 0);
	free(large);
}

Test(fs_hostile, answers_without_room)
{
	uint64_t id, fh;
	fs_share_file(&share, "file", "0123456789");
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	struct fs_counters before, after;
	fs_server_counters(c->server, &before);
	static const struct {
		uint32_t opcode;
		size_t body;
	} answers[] = { { FUSE_LOOKUP, sizeof(struct fuse_entry_out) },
			{ FUSE_GETATTR, sizeof(struct fuse_attr_out) },
			{ FUSE_STATFS, sizeof(struct fuse_statfs_out) },
			{ FUSE_OPENDIR, sizeof(struct fuse_open_out) },
			{ FUSE_CREATE, sizeof(struct fuse_entry_out) + sizeof(struct fuse_open_out) },
			{ FUSE_MKDIR, sizeof(struct fuse_entry_out) } };
	for (size_t i = 0; i < sizeof(answers) / sizeof(*answers); i++)
		for (size_t form = 0; form < FORMS; form++)
			for (size_t room = 0; forms[form].opcode == answers[i].opcode && room < answers[i].body; room++) {
				build(form, FUSE_ROOT_ID, forms[form].opcode == FUSE_LOOKUP ? "file" : "new");
				c->out_room = sizeof(struct fuse_out_header) + room;
				cr_assert(fsc_send(c) == -EINVAL, "opcode %u", answers[i].opcode);
			}
	fs_server_counters(c->server, &after);
	cr_assert(after.nodes == before.nodes && after.descriptors == before.descriptors, "nothing was done");
	cr_assert(access(fs_share_path(&share, "new"), F_OK) < 0);

	/* Data: as much as there is room for. */
	cr_assert(fsc_walk(c, "file", &id) == 0 && fsc_open(c, id, O_RDONLY, &fh) == 0);
	const struct fuse_read_in in = { .fh = fh, .size = UINT32_MAX };
	fsc_begin(c, FUSE_READ, id);
	fsc_add(c, &in, sizeof(in));
	c->out_room = sizeof(struct fuse_out_header) + 3;
	cr_assert(fsc_send(c) == 0 && c->body_length == 3);
	const uint64_t offsets[] = { INT64_MAX, (uint64_t)INT64_MAX + 1, UINT64_MAX };
	for (size_t i = 0; i < 3; i++) {
		cr_assert(fsc_read(c, id, fh, offsets[i], 100) == -EINVAL);
		cr_assert(fsc_read_with(c, FUSE_READDIR, FUSE_ROOT_ID, fh, offsets[i], 100) < 0);
	}
}

Test(fs_hostile, data_that_is_not_as_long_as_it_says)
{
	uint64_t id, fh;
	fs_share_file(&share, "file", "");
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	cr_assert(fsc_walk(c, "file", &id) == 0 && fsc_open(c, id, O_RDWR, &fh) == 0);
	static const uint32_t sizes[] = { 0, 3, 5, 1 << 20, UINT32_MAX };
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		const struct fuse_write_in in = { .fh = fh, .size = sizes[i] };
		fsc_begin(c, FUSE_WRITE, id);
		fsc_add(c, &in, sizeof(in));
		fsc_add(c, "1234", 4);
		cr_assert(fsc_send(c) == -EINVAL);
		const struct fuse_setxattr_in xattr = { .size = sizes[i] };
		fsc_begin(c, FUSE_SETXATTR, id);
		fsc_add(c, &xattr, sizeof(xattr));
		fsc_add_string(c, "user.name");
		fsc_add(c, "1234", 4);
		cr_assert(fsc_send(c) == -EINVAL);
	}
	const struct fuse_batch_forget_in batch = { .count = UINT32_MAX };
	const struct fuse_forget_one one = { .nodeid = id, .nlookup = 1 };
	fsc_begin(c, FUSE_BATCH_FORGET, 0);
	fsc_add(c, &batch, sizeof(batch));
	fsc_add(c, &one, sizeof(one));
	fsc_header(c)->len = (uint32_t)c->in_length;
	cr_assert(fsc_send_raw(c) == 0);
	struct fuse_attr attr;
	cr_assert(fsc_release(c, id, fh) == 0 && fsc_getattr(c, id, &attr) == -ESTALE, "the one that was there is forgotten");
}

Test(fs_hostile, inits_that_do_not_fit)
{
	static const struct {
		uint32_t major, minor;
		int result;
	} versions[] = { { 6, 40, -EPROTO }, { 7, 30, -EPROTO }, { 0, 0, -EPROTO }, { 8, 0, 0 }, { UINT32_MAX, UINT32_MAX, 0 } };
	fs_share_create(&share, (struct fs_config){ .cache = FS_CACHE_AUTO });
	struct fuse_attr attr;
	for (size_t i = 0; i < sizeof(versions) / sizeof(*versions); i++) {
		const struct fuse_init_in in = { .major = versions[i].major, .minor = versions[i].minor };
		fsc_begin(c, FUSE_INIT, 0);
		fsc_add(c, &in, sizeof(in));
		cr_assert(fsc_send(c) == versions[i].result);
		if (!versions[i].result)
			cr_assert(((const struct fuse_init_out *)(const void *)c->body)->major == 7,
				  "ours, and the client asks again");
		cr_assert(fsc_getattr(c, FUSE_ROOT_ID, &attr) == -EIO);
	}
	for (size_t length = 0; length < 16; length++) {
		const struct fuse_init_in in = { .major = 7, .minor = 37 };
		fsc_begin(c, FUSE_INIT, 0);
		fsc_add(c, &in, length);
		cr_assert(fsc_send(c) == -EINVAL);
	}
	const struct fuse_init_in old = { .major = 7, .minor = 31 };
	fsc_begin(c, FUSE_INIT, 0);
	fsc_add(c, &old, 16);
	cr_assert(fsc_send(c) == 0 && ((const struct fuse_init_out *)(const void *)c->body)->minor == 31);
	/* This one did not say that it knows the longer SETXATTR. */
	uint64_t id;
	fs_share_file(&share, "file", "");
	cr_assert(fsc_walk(c, "file", &id) == 0);
	fsc_begin(c, FUSE_SETXATTR, id);
	fsc_add(c, &(struct fuse_setxattr_in){ .size = 1 }, FUSE_COMPAT_SETXATTR_IN_SIZE);
	fsc_add_string(c, "user.a");
	fsc_add(c, "b", 1);
	const int result = fsc_send(c);
	cr_assert(result == 0 || result == -EOPNOTSUPP);
}

/* ---- ways out --------------------------------------------------------------------------------------------------------------------- */

Test(fs_hostile, symlinks_are_data)
{
	uint64_t id, fh, other;
	char path[128];
	snprintf(path, sizeof(path), "%s/outside", share.root);
	cr_assert(mkdir(path, 0755) == 0);
	cr_assert(symlink(path, fs_share_path(&share, "absolute")) == 0);
	cr_assert(symlink("../outside", fs_share_path(&share, "relative")) == 0);
	cr_assert(symlink("/proc/self/root", fs_share_path(&share, "magic")) == 0);
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	static const char *const links[] = { "absolute", "relative", "magic" };
	for (size_t i = 0; i < 3; i++) {
		cr_assert(fsc_walk(c, links[i], &id) == 0 && S_ISLNK(fsc_entry(c)->attr.mode));
		cr_assert(fsc_lookup(c, id, "etc", &other) == -ENOTDIR);
		cr_assert(fsc_open(c, id, O_RDONLY, &fh) == -ELOOP);
		cr_assert(fsc_opendir(c, id, &fh) == -ENOTDIR);
		cr_assert(fsc_mkdir(c, id, "new", 0755, &other) == -ENOTDIR);
		cr_assert(fsc_create(c, id, "new", O_RDWR, 0644, &other, &fh) == -ENOTDIR);
		cr_assert(fsc_create(c, FUSE_ROOT_ID, links[i], O_RDWR, 0644, &other, &fh) == -ELOOP);
		cr_assert(fsc_remove(c, FUSE_UNLINK, id, "x") == -ENOTDIR);
		cr_assert(fsc_setxattr(c, id, "user.x", "y", 1, 0) == -EPERM);
		cr_assert(fsc_setattr(c, id, (struct fuse_setattr_in){ .valid = FATTR_MODE, .mode = 0777 }) == 0);
	}
	cr_assert(rmdir(path) == 0, "nothing is in there");
}

Test(fs_hostile, devices_fifos_and_sockets_of_the_host_are_never_opened)
{
	uint64_t id, fh, other;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(address.sun_path, sizeof(address.sun_path), "%s/socket", share.path);
	cr_assert(bind(listener, (struct sockaddr *)&address, sizeof(address)) == 0);
	cr_assert(mkfifo(fs_share_path(&share, "fifo"), 0666) == 0);
	const bool device = mknod(fs_share_path(&share, "device"), S_IFCHR | 0666, makedev(1, 3)) == 0;
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	static const struct {
		const char *name;
		mode_t type;
	} files[] = { { "socket", S_IFSOCK }, { "fifo", S_IFIFO }, { "device", S_IFCHR } };
	for (size_t i = 0; i < (device ? 3u : 2u); i++) {
		cr_assert(fsc_walk(c, files[i].name, &id) == 0);
		cr_assert((fsc_entry(c)->attr.mode & S_IFMT) == files[i].type, "shown as what it is");
		static const uint32_t flags[] = { O_RDONLY, O_WRONLY, O_RDWR, O_RDWR | O_TRUNC };
		for (size_t k = 0; k < 4; k++) { /* a fifo would block here */
			cr_assert(fsc_open(c, id, flags[k], &fh) == -ENXIO);
			cr_assert(fsc_create(c, FUSE_ROOT_ID, files[i].name, flags[k], 0644, &other, &fh) == -ENXIO);
		}
		cr_assert(fsc_setattr(c, id, (struct fuse_setattr_in){ .valid = FATTR_SIZE }) == -EINVAL);
		cr_assert(fsc_getxattr(c, id, "user.x", 0) == -ENODATA && fsc_setxattr(c, id, "user.x", "y", 1, 0) == -EPERM);
		cr_assert(fsc_setattr(c, id, (struct fuse_setattr_in){ .valid = FATTR_MODE, .mode = 0600 }) == 0);
		cr_assert((((const struct fuse_attr_out *)(const void *)c->body)->attr.mode & 07777) == 0600);
		cr_assert(fsc_link(c, id, FUSE_ROOT_ID, "linked") == 0 && fsc_remove(c, FUSE_UNLINK, FUSE_ROOT_ID, "linked") == 0);
		cr_assert(fsc_remove(c, FUSE_UNLINK, FUSE_ROOT_ID, files[i].name) == 0);
	}
	close(listener);
}

Test(fs_hostile, the_memory_of_this_process_is_no_file)
{
	uint64_t id, fh;
	char path[64];
	struct fs_config config = { .cache = FS_CACHE_AUTO, .path = "/", .read_only = true };
	snprintf(path, sizeof(path), "proc/%d/mem", getpid());
	start(config);
	cr_assert(fsc_walk(c, path, &id) == 0 && fsc_open(c, id, O_RDONLY, &fh) == -EACCES);
	fsc_free(c);
	config.path = "/proc";
	start(config);
	cr_assert(fsc_walk(c, path + 5, &id) == 0 && fsc_open(c, id, O_RDONLY, &fh) == -EACCES);
	/* The links of procfs that lead anywhere are data. */
	snprintf(path, sizeof(path), "%d/root", getpid());
	cr_assert(fsc_walk(c, path, &id) == 0 && S_ISLNK(fsc_entry(c)->attr.mode));
	cr_assert(fsc_opendir(c, id, &fh) == -ENOTDIR);
}

/* ---- races ------------------------------------------------------------------------------------------------------------------------ */

static atomic_bool racing;

/* "dir" is a directory with a file "secret", or a symlink to one outside, which has another secret. */
static void *swap(void *arg)
{
	(void)arg;
	char dir[128], link_path[128], parked[128];
	snprintf(dir, sizeof(dir), "%s/dir", share.path);
	snprintf(link_path, sizeof(link_path), "%s/link", share.path);
	snprintf(parked, sizeof(parked), "%s/parked", share.path);
	while (racing) {
		rename(dir, parked);
		rename(link_path, dir);
		rename(dir, link_path);
		rename(parked, dir);
	}
	return NULL;
}

Test(fs_hostile, a_directory_that_turns_into_a_symlink)
{
	char outside[128], path[160];
	pthread_t thread;
	unsigned opened = 0;
	snprintf(outside, sizeof(outside), "%s/outside", share.root);
	cr_assert(mkdir(outside, 0755) == 0);
	snprintf(path, sizeof(path), "%s/secret", outside);
	const int secret = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	cr_assert(secret >= 0 && write(secret, "outside", 7) == 7);
	close(secret);
	fs_share_file(&share, "dir/secret", "inside!");
	cr_assert(symlink(outside, fs_share_path(&share, "link")) == 0);
	start((struct fs_config){ .cache = FS_CACHE_AUTO, .descriptors_max = 64 });

	racing = true;
	cr_assert(pthread_create(&thread, NULL, swap, NULL) == 0);
	for (int i = 0; i < 20000; i++) {
		uint64_t dir, file, fh, made;
		if (fsc_lookup(c, FUSE_ROOT_ID, "dir", &dir))
			continue;
		if (fsc_lookup(c, dir, "secret", &file) == 0) {
			if (fsc_open(c, file, O_RDONLY, &fh) == 0) {
				cr_assert(fsc_read(c, file, fh, 0, 100) == 7 && memcmp(c->body, "inside!", 7) == 0);
				fsc_release(c, file, fh);
				opened++;
			}
			fsc_forget(c, file, 1);
		}
		if (fsc_create(c, dir, "made", O_RDWR, 0644, &made, &fh) == 0) {
			fsc_release(c, made, fh);
			fsc_forget(c, made, 1);
			fsc_remove(c, FUSE_UNLINK, dir, "made");
		}
		fsc_forget(c, dir, 1);
	}
	racing = false;
	pthread_join(thread, NULL);
	cr_assert(opened > 0);
	snprintf(path, sizeof(path), "%s/made", outside);
	cr_assert(access(path, F_OK) < 0, "nothing is made outside");
}

/* ---- bounds ----------------------------------------------------------------------------------------------------------------------- */

static unsigned count_descriptors(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned count = 0;
	while (readdir(dir))
		count++;
	closedir(dir);
	return count;
}

static void make_files(const char *folder, unsigned count)
{
	const int dir = open(folder, O_PATH | O_CLOEXEC);
	for (unsigned i = 0; i < count; i++) {
		char name[16];
		snprintf(name, sizeof(name), "f%u", i);
		const int fd = openat(dir, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
		cr_assert(fd >= 0);
		close(fd);
	}
	close(dir);
}

Test(fs_hostile, descriptors_and_nodes_are_bounded)
{
	const unsigned files = 100000;
	struct fs_counters counters;
	uint64_t dir, id = 0, fh;
	cr_assert(mkdir(fs_share_path(&share, "dir"), 0755) == 0);
	make_files(fs_share_path(&share, "dir"), files);
	start((struct fs_config){ .cache = FS_CACHE_AUTO, .descriptors_max = 64, .nodes_max = files });
	cr_assert(fsc_walk(c, "dir", &dir) == 0);
	const unsigned before = count_descriptors();
	unsigned given = 0, most = 0;
	for (unsigned i = 0; i < files; i++) {
		char name[16];
		snprintf(name, sizeof(name), "f%u", i);
		const int result = fsc_lookup(c, dir, name, &id);
		if (result) {
			cr_assert(result == -ENFILE, "%d", result);
			continue;
		}
		given++;
		/* Each also gets a descriptor for once. */
		if (i % 7 == 0) {
			cr_assert(fsc_setattr(c, id, (struct fuse_setattr_in){ .valid = FATTR_MTIME_NOW }) == 0);
			const unsigned now = count_descriptors();
			most = now > most ? now : most;
		}
	}
	cr_assert(given == files - 2, "%u: all but two, for the root and the directory", given);
	cr_assert(most <= before + 64, "%u descriptors", most - before);
	fs_server_counters(c->server, &counters);
	cr_assert(counters.nodes == files && counters.descriptors <= 64);

	/* Open files: each one is a descriptor, and the last ones are refused. */
	unsigned opened = 0;
	int result = 0;
	cr_assert(fsc_lookup(c, dir, "f0", &id) == 0);
	while (opened < 1000 && (result = fsc_open(c, id, O_RDONLY, &fh)) == 0)
		opened++;
	cr_assert(result == -ENFILE && opened >= 16 && opened < 64, "%u", opened);
	cr_assert(count_descriptors() <= before + 64);
	cr_assert(fsc_create(c, dir, "one too many", O_RDWR, 0644, &id, &fh) == -ENFILE);
	cr_assert(access(fs_share_path(&share, "dir/one too many"), F_OK) < 0, "and not made either");
	/* The others go on. */
	cr_assert(fsc_lookup(c, dir, "f1", &id) == 0);
	cr_assert(fsc_setattr(c, id, (struct fuse_setattr_in){ .valid = FATTR_MTIME_NOW }) == 0);
	fs_server_reset(c->server);
	fs_server_counters(c->server, &counters);
	cr_assert(counters.nodes == 1);
}

Test(fs_hostile, deep_trees_are_found_again)
{
	const unsigned depth = 1500, others = 200;
	uint64_t at = FUSE_ROOT_ID, id, fh;
	struct fuse_attr attr;
	start((struct fs_config){ .cache = FS_CACHE_AUTO, .descriptors_max = 64 });
	for (unsigned i = 0; i < depth; i++)
		cr_assert(fsc_mkdir(c, at, "d", 0755, &at) == 0);
	cr_assert(fsc_mknod(c, at, "file", S_IFREG | 0644, 0, &id) == 0);
	for (unsigned round = 0; round < 2; round++) {
		/* All their descriptors go to others. */
		for (unsigned i = 0; i < others; i++) {
			char name[16];
			uint64_t other;
			snprintf(name, sizeof(name), "o%u", i);
			const int result =
			    round ? fsc_lookup(c, FUSE_ROOT_ID, name, &other) : fsc_mkdir(c, FUSE_ROOT_ID, name, 0755, &other);
			cr_assert(result == 0);
			cr_assert(fsc_opendir(c, other, &fh) == 0 && fsc_release(c, other, fh) == 0);
		}
		if (round)
			cr_assert(fsc_open(c, id, O_RDWR, &fh) == 0 && fsc_write(c, id, fh, 0, "x", 1) == 1);
		else
			cr_assert(fsc_getattr(c, id, &attr) == 0 && S_ISREG(attr.mode));
	}
	cr_assert(count_descriptors() < 100);
}

struct stream {
	uint8_t *seen; /* of the files that stay */
	unsigned count, twice;
};

static void note_stream(void *arg, const char *name, const struct fuse_dirent *dirent, const struct fuse_entry_out *entry)
{
	struct stream *stream = arg;
	(void)dirent;
	(void)entry;
	if (name[0] != 'f')
		return;
	const unsigned i = (unsigned)atoi(name + 1);
	stream->count++;
	stream->twice += stream->seen[i]++ != 0;
}

Test(fs_hostile, streams_of_100000_entries_stay_stable)
{
	const unsigned files = 100000;
	uint64_t fh;
	make_files(share.path, files);
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	for (int plus = 0; plus < 2; plus++) {
		struct stream stream = { .seen = calloc(files, 1) };
		uint64_t offset = 0, previous = 0;
		unsigned round = 0;
		ssize_t n;
		cr_assert(fsc_opendir(c, FUSE_ROOT_ID, &fh) == 0);
		while ((n = fsc_readdir(c, plus, FUSE_ROOT_ID, fh, &offset, 4096, note_stream, &stream)) > 0) {
			/* Others come and go, in the host and through the server, and a second reader has the same directory. */
			char name[32];
			uint64_t id;
			if (++round % 100 == 0) {
				snprintf(name, sizeof(name), "x%u", round);
				cr_assert(fsc_mknod(c, FUSE_ROOT_ID, name, S_IFREG | 0644, 0, &id) == 0);
				cr_assert(fsc_remove(c, FUSE_UNLINK, FUSE_ROOT_ID, name) == 0);
				snprintf(name, sizeof(name), "y%u", round);
				cr_assert(mkdir(fs_share_path(&share, name), 0755) == 0);
				cr_assert(rmdir(fs_share_path(&share, name)) == 0);
			}
			/* Once in a while it goes back to where it was and on from there. */
			if (round % 500 == 0) {
				uint64_t back = previous;
				cr_assert(fsc_readdir(c, plus, FUSE_ROOT_ID, fh, &back, 4096, NULL, NULL) > 0 && back == offset);
			}
			previous = offset;
		}
		cr_assert(n == 0 && stream.count == files && stream.twice == 0, "%zd: %u entries, %u twice", n, stream.count,
			  stream.twice);
		cr_assert(fsc_release(c, FUSE_ROOT_ID, fh) == 0);
		free(stream.seen);
	}
}

/* ---- several at once -------------------------------------------------------------------------------------------------------------- */

struct worker {
	pthread_t thread;
	unsigned index;
	unsigned failures;
};

static void *work(void *arg)
{
	struct worker *worker = arg;
	struct fs_client own;
	fs_server_enter_thread();
	fsc_init(&own, c->server);
	own.unique += worker->index * 1000000ull;
	own.uid = own.gid = 0;
	for (int i = 0; i < 400; i++) {
		char name[32];
		uint64_t dir, id, fh, offset = 0;
		struct fuse_attr attr;
		snprintf(name, sizeof(name), "w%u-%d", worker->index, i % 8);
		worker->failures += fsc_walk(&own, "dir", &dir) != 0;
		worker->failures += fsc_create(&own, dir, name, O_RDWR, 0644, &id, &fh) != 0;
		worker->failures += fsc_write(&own, id, fh, (uint64_t)i, "x", 1) != 1;
		worker->failures += fsc_getattr(&own, id, &attr) != 0;
		worker->failures += fsc_release(&own, id, fh) != 0;
		if (fsc_opendir(&own, dir, &fh) == 0) {
			while (fsc_readdir(&own, i & 1, dir, fh, &offset, 1024, NULL, NULL) > 0)
				;
			fsc_release(&own, dir, fh);
		}
		if (i % 16 == 15)
			worker->failures += fsc_remove(&own, FUSE_UNLINK, dir, name) != 0;
		fsc_forget(&own, id, 1);
		fsc_forget(&own, dir, 1);
	}
	own.server = NULL;
	fsc_free(&own);
	return NULL;
}

Test(fs_hostile, requests_at_the_same_time)
{
	struct worker workers[4] = { { .index = 0 } };
	cr_assert(mkdir(fs_share_path(&share, "dir"), 0755) == 0);
	start((struct fs_config){ .cache = FS_CACHE_AUTO, .descriptors_max = 128 });
	for (unsigned i = 0; i < 4; i++) {
		workers[i].index = i;
		cr_assert(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0);
	}
	for (unsigned i = 0; i < 4; i++) {
		pthread_join(workers[i].thread, NULL);
		cr_assert(workers[i].failures == 0, "worker %u: %u", i, workers[i].failures);
	}
}

static atomic_bool blocked_open_done;

static void *open_blocked(void *arg)
{
	struct worker *worker = arg;
	struct fs_client own;
	uint64_t id, fh;
	fs_server_enter_thread();
	fsc_init(&own, c->server);
	worker->failures += fsc_walk(&own, "dir/slow", &id) != 0;
	worker->failures += fsc_open(&own, id, O_RDWR, &fh) != 0;
	blocked_open_done = true;
	own.server = NULL;
	fsc_free(&own);
	return NULL;
}

/* A lease on a file makes whoever opens it for writing wait, as a slow disk or a server that is away would. */
Test(fs_hostile, who_waits_for_the_host_waits_alone)
{
	struct worker worker = { .index = 0 };
	uint64_t dir, id, fh, offset = 0;
	struct fuse_attr attr;
	fs_share_file(&share, "dir/slow", "x");
	fs_share_file(&share, "dir/other", "x");
	signal(SIGIO, SIG_IGN);
	const int lease = open(fs_share_path(&share, "dir/slow"), O_RDONLY | O_CLOEXEC);
	if (fcntl(lease, F_SETLEASE, F_RDLCK))
		cr_skip("no leases here");
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	blocked_open_done = false;
	cr_assert(pthread_create(&worker.thread, NULL, open_blocked, &worker) == 0);
	usleep(100000);
	for (int i = 0; i < 100; i++) { /* also on the same file and the same directory */
		cr_assert(fsc_walk(c, "dir", &dir) == 0 && fsc_lookup(c, dir, "slow", &id) == 0 && fsc_getattr(c, id, &attr) == 0);
		cr_assert(fsc_open(c, id, O_RDONLY, &fh) == 0 && fsc_read(c, id, fh, 0, 1) == 1 && fsc_release(c, id, fh) == 0);
		cr_assert(fsc_create(c, dir, "new", O_RDWR, 0644, &id, &fh) == 0 && fsc_release(c, id, fh) == 0);
		cr_assert(fsc_remove(c, FUSE_UNLINK, dir, "new") == 0);
		cr_assert(fsc_opendir(c, dir, &fh) == 0 && fsc_readdir(c, true, dir, fh, &offset, 4096, NULL, NULL) == 4);
		cr_assert(fsc_release(c, dir, fh) == 0);
		offset = 0;
	}
	cr_assert(!blocked_open_done, "it did wait");
	cr_assert(fcntl(lease, F_SETLEASE, F_UNLCK) == 0);
	pthread_join(worker.thread, NULL);
	cr_assert(blocked_open_done && worker.failures == 0);
	close(lease);
}

static void *make_mess(void *arg)
{
	struct worker *worker = arg;
	struct fs_client own;
	fs_server_enter_thread();
	fsc_init(&own, c->server);
	for (int i = 0; i < 3000; i++) {
		uint64_t id, fh;
		fsc_lookup(&own, FUSE_ROOT_ID, "file", &id);
		if (fsc_open(&own, id, O_RDONLY, &fh) == 0 && i % 3)
			fsc_release(&own, id, fh);
		fsc_read(&own, id, fh, 0, 10);
		fsc_forget(&own, id, (uint64_t)i % 3);
		fsc_readdir(&own, true, FUSE_ROOT_ID, fh, &(uint64_t){ 0 }, 4096, NULL, NULL);
		if (worker->index == 0 && i % 50 == 0) {
			fsc_begin(&own, FUSE_DESTROY, 0);
			fsc_send(&own);
			fsc_start(&own);
		}
	}
	own.server = NULL;
	fsc_free(&own);
	return NULL;
}

Test(fs_hostile, destroy_while_others_are_at_work)
{
	struct worker workers[3] = { { .index = 0 } };
	struct fs_counters counters;
	fs_share_file(&share, "file", "content");
	start((struct fs_config){ .cache = FS_CACHE_AUTO, .descriptors_max = 64 });
	for (unsigned i = 0; i < 3; i++) {
		workers[i].index = i;
		cr_assert(pthread_create(&workers[i].thread, NULL, make_mess, &workers[i]) == 0);
	}
	for (unsigned i = 0; i < 3; i++)
		pthread_join(workers[i].thread, NULL);
	fs_server_reset(c->server);
	fs_server_counters(c->server, &counters);
	cr_assert(counters.nodes == 1 && counters.descriptors == 1, "%lu nodes, %lu descriptors are left", counters.nodes,
		  counters.descriptors);
}
