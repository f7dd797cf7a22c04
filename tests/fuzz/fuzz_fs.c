/*
 * libFuzzer target: everything that a guest may say to the FUSE server, over a scratch directory.
 *
 * The input is a list of requests, each an opcode, whom it is about, and its arguments: numbers and handles are by turns those that the
 * server gave, and any; names are of a few that are there or lead out, and any; lengths and pieces are right or not. Checked are the
 * sanitizers, that each answer is one, that nothing beside the directory changed, and that all is given back at the end.
 */
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include <ftw.h>

#include "tests/unit/fs_client.h"

#define KNOWN 16u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct {
	uint8_t opcode;
	uint8_t arguments;
	uint8_t names;
	bool handle; /* the arguments begin with one */
} forms[] = {
	{ FUSE_LOOKUP, 0, 1, false },
	{ FUSE_FORGET, sizeof(struct fuse_forget_in), 0, false },
	{ FUSE_GETATTR, sizeof(struct fuse_getattr_in), 0, false },
	{ FUSE_SETATTR, sizeof(struct fuse_setattr_in), 0, false },
	{ FUSE_READLINK, 0, 0, false },
	{ FUSE_SYMLINK, 0, 2, false },
	{ FUSE_MKNOD, sizeof(struct fuse_mknod_in), 1, false },
	{ FUSE_MKDIR, sizeof(struct fuse_mkdir_in), 1, false },
	{ FUSE_UNLINK, 0, 1, false },
	{ FUSE_RMDIR, 0, 1, false },
	{ FUSE_RENAME, sizeof(struct fuse_rename_in), 2, false },
	{ FUSE_LINK, sizeof(struct fuse_link_in), 1, false },
	{ FUSE_OPEN, sizeof(struct fuse_open_in), 0, false },
	{ FUSE_READ, sizeof(struct fuse_read_in), 0, true },
	{ FUSE_WRITE, sizeof(struct fuse_write_in), 0, true },
	{ FUSE_STATFS, 0, 0, false },
	{ FUSE_RELEASE, sizeof(struct fuse_release_in), 0, true },
	{ FUSE_FSYNC, sizeof(struct fuse_fsync_in), 0, true },
	{ FUSE_SETXATTR, sizeof(struct fuse_setxattr_in), 1, false },
	{ FUSE_GETXATTR, sizeof(struct fuse_getxattr_in), 1, false },
	{ FUSE_LISTXATTR, sizeof(struct fuse_getxattr_in), 0, false },
	{ FUSE_REMOVEXATTR, 0, 1, false },
	{ FUSE_FLUSH, sizeof(struct fuse_flush_in), 0, true },
	{ FUSE_INIT, sizeof(struct fuse_init_in), 0, false },
	{ FUSE_OPENDIR, sizeof(struct fuse_open_in), 0, false },
	{ FUSE_READDIR, sizeof(struct fuse_read_in), 0, true },
	{ FUSE_RELEASEDIR, sizeof(struct fuse_release_in), 0, true },
	{ FUSE_FSYNCDIR, sizeof(struct fuse_fsync_in), 0, true },
	{ FUSE_CREATE, sizeof(struct fuse_create_in), 1, false },
	{ FUSE_INTERRUPT, sizeof(struct fuse_interrupt_in), 0, false },
	{ FUSE_DESTROY, 0, 0, false },
	{ FUSE_BATCH_FORGET, sizeof(struct fuse_batch_forget_in), 0, false },
	{ FUSE_FALLOCATE, sizeof(struct fuse_fallocate_in), 0, true },
	{ FUSE_READDIRPLUS, sizeof(struct fuse_read_in), 0, true },
	{ FUSE_RENAME2, sizeof(struct fuse_rename2_in), 2, false },
	{ FUSE_LSEEK, sizeof(struct fuse_lseek_in), 0, true },
	{ FUSE_COPY_FILE_RANGE, sizeof(struct fuse_copy_file_range_in), 0, true },
	{ FUSE_SYNCFS, sizeof(struct fuse_syncfs_in), 0, false },
	{ FUSE_TMPFILE, sizeof(struct fuse_create_in), 1, false },
	{ FUSE_SETLKW, sizeof(struct fuse_lk_in), 0, true },
	{ FUSE_IOCTL, sizeof(struct fuse_ioctl_in), 0, true },
	{ FUSE_SETUPMAPPING, sizeof(struct fuse_setupmapping_in), 0, true },
	{ FUSE_REMOVEMAPPING, sizeof(struct fuse_removemapping_in) + 2 * sizeof(struct fuse_removemapping_one), 0, false },
};

static const char *const names[] = { "file",
				     "dir",
				     "up",
				     "out",
				     "fifo",
				     "init",
				     "a",
				     "b",
				     "sub",
				     "..",
				     "/etc/passwd",
				     "../outside",
				     "user.name",
				     "security.capability",
				     "user.trvmm.stat",
				     "trusted.x" };

/* Where mappings are: of numbers that are multiples of nothing, few get beyond the first look. */
static void fit_mapping(uint8_t opcode, uint8_t *arguments)
{
	const uint64_t range = FS_RANGE_BYTES,
		       mapping[5] = { 0, arguments[8] % 8 * range, (1u + arguments[16] % 8) * range,
				      FUSE_SETUPMAPPING_FLAG_READ | (arguments[24] & FUSE_SETUPMAPPING_FLAG_WRITE),
				      arguments[32] % 132 * range };
	const uint32_t count = 2;
	if (opcode == FUSE_SETUPMAPPING)
		memcpy(arguments, mapping, sizeof(mapping));
	if (opcode != FUSE_REMOVEMAPPING)
		return;
	memcpy(arguments, &count, sizeof(count));
	for (unsigned i = 0; i < count; i++) {
		const struct fuse_removemapping_one one = { .moffset = arguments[4 + i * 16] % 132 * range,
							    .len = (1u + arguments[12 + i * 16] % 8) * range };
		memcpy(arguments + 4 + i * sizeof(one), &one, sizeof(one));
	}
}

/* How a request departs from its right form. */
enum { CUT = 1, LIE = 2, NO_ROOM = 4, PIECES = 8, HANDLE = 16, FIT = 32, MINE = 64 };

static char scratch[64], share[96], canary[96];
static struct stat before[2];
static struct fs_client client, *const c = &client;

/* Numbers that the server gave: the last ones. */
struct known {
	uint64_t values[KNOWN];
	unsigned count; /* that were ever given; 1 at least */
};
static struct known nodes, handles;

struct input {
	const uint8_t *at;
	size_t left;
};

static void take_bytes(struct input *in, void *to, size_t length)
{
	const size_t got = length < in->left ? length : in->left;
	memset(to, 0, length);
	if (got)
		memcpy(to, in->at, got);
	in->at += got;
	in->left -= got;
}

static uint8_t take(struct input *in)
{
	uint8_t byte;
	take_bytes(in, &byte, 1);
	return byte;
}

/* ---- the scratch directory -------------------------------------------------------------------------------------------------------- */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)type;
	if (ftw->level == 0)
		return 0;
	if (S_ISDIR(st->st_mode))
		chmod(path, 0700);
	remove(path);
	return 0;
}

static void give_up(void)
{
	nftw(share, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
	umount2(share, MNT_DETACH);
	nftw(scratch, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	rmdir(scratch);
}

static void look_at_canary(struct stat st[2])
{
	char path[128];
	snprintf(path, sizeof(path), "%s/file", canary);
	if (lstat(canary, &st[0]) || lstat(path, &st[1]))
		abort();
}

static void make_file(const char *folder, const char *name)
{
	char path[160];
	snprintf(path, sizeof(path), "%s/%s", folder, name);
	const int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0 || write(fd, "content", 7) != 7)
		abort();
	close(fd);
}

static void populate(void)
{
	char path[160];
	nftw(share, remove_one, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
	make_file(share, "file");
	snprintf(path, sizeof(path), "%s/dir", share);
	mkdir(path, 0755);
	make_file(path, "a");
	snprintf(path, sizeof(path), "%s/up", share);
	if (symlink("../outside", path))
		abort();
	snprintf(path, sizeof(path), "%s/out", share);
	if (symlink(canary, path))
		abort();
	snprintf(path, sizeof(path), "%s/fifo", share);
	if (mkfifo(path, 0600))
		abort();
}

static void prepare(void)
{
	struct fs_server *server;
	struct error err;
	snprintf(scratch, sizeof(scratch), "/dev/shm/trvmm-fuzz-fs-XXXXXX");
	if (!mkdtemp(scratch))
		abort();
	snprintf(share, sizeof(share), "%s/share", scratch);
	snprintf(canary, sizeof(canary), "%s/outside", scratch);
	mkdir(share, 0755);
	mkdir(canary, 0755);
	make_file(canary, "file");
	look_at_canary(before);
	mount("none", share, "tmpfs", 0, "size=8m,nr_inodes=1000"); /* as an ordinary user: without */
	atexit(give_up);
	/* No file gets large, with holes or without. */
	signal(SIGXFSZ, SIG_IGN);
	setrlimit(RLIMIT_FSIZE, &(struct rlimit){ .rlim_cur = 16 << 20, .rlim_max = RLIM_INFINITY });
	if (fs_server_enter_thread())
		abort();
	const struct fs_config config = { .path = share,
					  .cache = FS_CACHE_AUTO,
					  .dax = FS_DAX_INODE,
					  .descriptors_max = 64,
					  .nodes_max = 500,
					  .extras = { { "init", open("/dev/null", O_RDONLY) } } };
	if (fs_server_create(&config, &server, &err))
		abort();
	fsc_init(c, server);
}

static void know(struct known *known, const void *number)
{
	memcpy(&known->values[known->count++ % KNOWN], number, sizeof(uint64_t));
}

static uint64_t pick(const struct known *known, uint8_t which)
{
	return known->values[which % (known->count < KNOWN ? known->count : KNOWN)];
}

/* ---- requests --------------------------------------------------------------------------------------------------------------------- */

static uint64_t some_node(struct input *in)
{
	const uint8_t which = take(in);
	uint64_t id;
	if (which < 240)
		return pick(&nodes, which);
	take_bytes(in, &id, sizeof(id));
	return id;
}

static void add_name(struct input *in)
{
	char text[300];
	const uint8_t which = take(in);
	if (which < 200) {
		fsc_add_string(c, names[which % (sizeof(names) / sizeof(*names))]);
		return;
	}
	const size_t length = which == 255 ? 270 : which - 200u;
	take_bytes(in, text, length);
	text[length] = 0;
	fsc_add(c, text, length + 1);
}

static void note_answer(uint8_t opcode)
{
	if (c->answer->error)
		return;
	const bool entry = opcode == FUSE_LOOKUP || opcode == FUSE_MKNOD || opcode == FUSE_MKDIR || opcode == FUSE_SYMLINK ||
			   opcode == FUSE_LINK || opcode == FUSE_CREATE || opcode == FUSE_TMPFILE;
	if (entry && c->body_length >= sizeof(struct fuse_entry_out))
		know(&nodes, c->body);
	if (opcode == FUSE_OPEN || opcode == FUSE_OPENDIR)
		know(&handles, c->body);
	else if (opcode == FUSE_CREATE || opcode == FUSE_TMPFILE)
		know(&handles, c->body + sizeof(struct fuse_entry_out));
}

static void one_request(struct input *in)
{
	const uint8_t which = take(in), how = take(in);
	const size_t form = which % (sizeof(forms) / sizeof(*forms));
	uint8_t arguments[128], data[256];
	const size_t data_length = forms[form].opcode == FUSE_WRITE || forms[form].opcode == FUSE_SETXATTR ? take(in) : 0;

	fsc_begin(c, which < 250 ? forms[form].opcode : which, some_node(in));
	if (how & MINE) {
		c->uid = take(in);
		c->gid = take(in);
	}
	take_bytes(in, arguments, forms[form].arguments);
	if (how & FIT)
		fit_mapping(forms[form].opcode, arguments);
	if (how & HANDLE && forms[form].handle) {
		const uint64_t handle = pick(&handles, arguments[0]);
		memcpy(arguments, &handle, sizeof(handle));
	}
	if (how & FIT && data_length) {
		const uint32_t size = (uint32_t)data_length;
		memcpy(arguments + (forms[form].opcode == FUSE_WRITE ? offsetof(struct fuse_write_in, size) : 0), &size,
		       sizeof(size));
	}
	if (forms[form].opcode == FUSE_RENAME || forms[form].opcode == FUSE_RENAME2 || forms[form].opcode == FUSE_LINK) {
		const uint64_t second = some_node(in);
		memcpy(arguments, &second, sizeof(second));
	}
	fsc_add(c, arguments, forms[form].arguments);
	for (unsigned i = 0; i < forms[form].names; i++)
		add_name(in);
	take_bytes(in, data, data_length);
	fsc_add(c, data, data_length);
	fsc_header(c)->len = (uint32_t)c->in_length;
	if (how & CUT) {
		const size_t cut = take(in);
		c->in_length -= cut < c->in_length ? cut : c->in_length;
	}
	if (how & LIE)
		fsc_header(c)->len += take(in);
	c->out_room = how & NO_ROOM ? take(in) : 70000;
	c->in_piece = how & PIECES ? take(in) : 0;
	c->out_piece = how & PIECES ? take(in) : 0;
	const ssize_t length = fsc_send_raw(c);
	if (length == 0 || length == -EPROTO)
		return;
	if (length < (ssize_t)sizeof(*c->answer) || (size_t)length > c->out_room || (size_t)length != c->answer->len ||
	    c->answer->error > 0 || c->answer->error < -4095)
		abort();
	note_answer(forms[form].opcode);
	if (how & FIT)
		fs_server_look_at_window(c->server);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = { .at = data, .left = size };
	struct stat after[2];
	struct fs_counters counters;

	if (!c->server)
		prepare();
	populate();
	nodes = (struct known){ .values = { FUSE_ROOT_ID }, .count = 1 };
	handles = (struct known){ .count = 1 };
	c->uid = geteuid();
	c->gid = getegid();
	if (fsc_start(c))
		abort();
	for (unsigned i = 0; in.left && i < 100; i++)
		one_request(&in);
	fs_server_reset(c->server);
	fs_server_counters(c->server, &counters);
	if (counters.nodes != 2 || counters.descriptors != 1 || fs_server_maps(c->server))
		abort();
	look_at_canary(after);
	for (int i = 0; i < 2; i++)
		if (before[i].st_ino != after[i].st_ino || before[i].st_ctim.tv_sec != after[i].st_ctim.tv_sec ||
		    before[i].st_ctim.tv_nsec != after[i].st_ctim.tv_nsec || before[i].st_nlink != after[i].st_nlink)
			abort();
	return 0;
}
