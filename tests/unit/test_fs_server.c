/* devices/virtio-fs: what the FUSE server answers, operation by operation, against what the host's own file system says. */
#include <criterion/criterion.h>
#include <linux/falloc.h>
#include <sys/statvfs.h>

#include "tests/unit/fs_share.h"

static void start(struct fs_config config)
{
	fs_share_start(&share, config);
}

TestSuite(fs_server, .init = fs_share_setup, .fini = fs_share_teardown);

static void check_attr(const struct fuse_attr *attr, const char *path)
{
	struct stat st;
	cr_assert(lstat(fs_share_path(&share, path), &st) == 0, "%s", path);
	cr_assert(attr->ino == st.st_ino && attr->mode == st.st_mode && attr->nlink == st.st_nlink, "%s", path);
	cr_assert(attr->size == (uint64_t)st.st_size && attr->blocks == (uint64_t)st.st_blocks, "%s", path);
	cr_assert(attr->uid == fs_share_guest_id(st.st_uid) && attr->gid == fs_share_guest_id(st.st_gid), "%s", path);
	cr_assert(attr->mtime == (uint64_t)st.st_mtim.tv_sec && attr->mtimensec == (uint32_t)st.st_mtim.tv_nsec, "%s", path);
	cr_assert(attr->ctime == (uint64_t)st.st_ctim.tv_sec && attr->ctimensec == (uint32_t)st.st_ctim.tv_nsec, "%s", path);
}

Test(fs_server, init_agrees_on_what_linux_offers)
{
	fs_share_create(&share, (struct fs_config){ .cache = FS_CACHE_AUTO });
	cr_assert(fsc_start(c) == 0);
	const struct fuse_init_out *out = (const void *)c->body;
	cr_assert(c->body_length == sizeof(*out) && out->major == 7 && out->minor == 37);
	cr_assert(out->max_write == 1 << 20 && out->max_pages == 256);
	const uint32_t wanted = FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_AUTO_INVAL_DATA | FUSE_DO_READDIRPLUS |
				FUSE_PARALLEL_DIROPS | FUSE_MAX_PAGES | FUSE_HANDLE_KILLPRIV_V2;
	cr_assert((out->flags & wanted) == wanted);
	cr_assert(
	    !(out->flags & (FUSE_POSIX_LOCKS | FUSE_FLOCK_LOCKS | FUSE_WRITEBACK_CACHE | FUSE_EXPORT_SUPPORT | FUSE_DONT_MASK)));
}

Test(fs_server, init_twice_and_requests_before_it)
{
	struct fuse_attr attr;
	fs_share_create(&share, (struct fs_config){ .cache = FS_CACHE_AUTO });
	cr_assert(fsc_getattr(c, FUSE_ROOT_ID, &attr) == -EIO);
	cr_assert(fsc_start(c) == 0);
	cr_assert(fsc_start(c) == -EIO);
	cr_assert(fsc_getattr(c, FUSE_ROOT_ID, &attr) == 0);
	fs_server_reset(c->server);
	cr_assert(fsc_getattr(c, FUSE_ROOT_ID, &attr) == -EIO);
	cr_assert(fsc_start(c) == 0);
	cr_assert(fsc_getattr(c, FUSE_ROOT_ID, &attr) == 0);
}

Test(fs_server, lookup_and_getattr_are_the_hosts)
{
	fs_share_file(&share, "dir/file", "hello");
	cr_assert(symlink("/etc/passwd", fs_share_path(&share, "link")) == 0);
	cr_assert(link(fs_share_path(&share, "dir/file"), fs_share_path(&share, "hard")) == 0);
	start((struct fs_config){ .cache = FS_CACHE_AUTO });

	static const char *const paths[] = { "dir", "dir/file", "link", "hard" };
	for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++) {
		uint64_t id;
		struct fuse_attr attr;
		cr_assert(fsc_walk(c, paths[i], &id) == 0);
		check_attr(&fsc_entry(c)->attr, paths[i]);
		cr_assert(fsc_getattr(c, id, &attr) == 0);
		check_attr(&attr, paths[i]);
	}
	uint64_t first, second;
	cr_assert(fsc_walk(c, "dir/file", &first) == 0 && fsc_walk(c, "hard", &second) == 0);
	cr_assert(first == second, "hard links are one node");
	cr_assert(fsc_lookup(c, FUSE_ROOT_ID, "none", &first) == -ENOENT);
	cr_assert(fsc_lookup(c, second, "below a file", &first) == -ENOTDIR);
}

Test(fs_server, open_and_read)
{
	uint64_t id, fh;
	fs_share_file(&share, "file", "hello world");
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	cr_assert(fsc_walk(c, "file", &id) == 0 && fsc_open(c, id, O_RDONLY, &fh) == 0);
	cr_assert(fsc_read(c, id, fh, 6, 100) == 5 && memcmp(c->body, "world", 5) == 0);
	cr_assert(fsc_read(c, id, fh, 11, 100) == 0);
	cr_assert(fsc_read(c, id, fh, 0, UINT32_MAX) == 11, "as much as there is room for");
	cr_assert(fsc_write(c, id, fh, 0, "x", 1) == -EBADF);
	cr_assert(fsc_release(c, id, fh) == 0);
	cr_assert(fsc_read(c, id, fh, 0, 1) == -EBADF);
}

struct seen {
	unsigned count, files, dots;
	bool plus;
};

static void note_entry(void *arg, const char *name, const struct fuse_dirent *dirent, const struct fuse_entry_out *entry)
{
	struct seen *seen = arg;
	seen->count++;
	if (name[0] == '.') {
		seen->dots++;
		cr_assert(!entry || entry->nodeid == 0);
	} else {
		seen->files++;
		cr_assert(!entry || (entry->nodeid && entry->attr.ino == dirent->ino));
	}
}

Test(fs_server, directories_are_listed_whole_in_small_pieces)
{
	uint64_t fh;
	char name[16];
	for (int i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "file%d", i);
		fs_share_file(&share, name, "");
	}
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	for (int plus = 0; plus < 2; plus++) {
		struct seen seen = { .count = 0 };
		uint64_t offset = 0;
		cr_assert(fsc_opendir(c, FUSE_ROOT_ID, &fh) == 0);
		while (fsc_readdir(c, plus, FUSE_ROOT_ID, fh, &offset, 512, note_entry, &seen) > 0)
			;
		cr_assert(seen.files == 300 && seen.dots == 2);
		/* From the start once more. */
		offset = 0;
		cr_assert(fsc_readdir(c, plus, FUSE_ROOT_ID, fh, &offset, 4096, note_entry, &seen) > 0);
		cr_assert(fsc_release(c, FUSE_ROOT_ID, fh) == 0);
	}
}

/* ---- files ------------------------------------------------------------------------------------------------------------------------ */

static void check_content(const char *path, const char *expected)
{
	char text[256] = "";
	const int fd = open(fs_share_path(&share, path), O_RDONLY | O_CLOEXEC);
	cr_assert(fd >= 0, "%s", path);
	cr_assert(read(fd, text, sizeof(text) - 1) >= 0);
	close(fd);
	cr_assert(strcmp(text, expected) == 0, "%s: '%s'", path, text);
}

Test(fs_server, create_write_and_append)
{
	uint64_t id, fh, other;
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	cr_assert(fsc_create(c, FUSE_ROOT_ID, "new", O_RDWR | O_EXCL, 0640, &id, &fh) == 0);
	check_attr(&fsc_entry(c)->attr, "new");
	cr_assert((fsc_entry(c)->attr.mode & 07777) == 0640);
	c->in_piece = 7;
	cr_assert(fsc_write(c, id, fh, 3, "abcdef", 6) == 6);
	c->in_piece = 0;
	cr_assert(fsc_read(c, id, fh, 0, 100) == 9 && memcmp(c->body, "\0\0\0abcdef", 9) == 0);
	/* Where an appended write lands is known on the host alone: two guests may do it. */
	fs_share_file(&share, "new", "host");
	cr_assert(fsc_write_with(c, id, (struct fuse_write_in){ .fh = fh, .offset = 0, .size = 2, .flags = O_RDWR | O_APPEND },
				 "ab") == 2);
	check_content("new", "hostab");
	cr_assert(fsc_write_with(
		      c, id,
		      (struct fuse_write_in){ .fh = fh, .size = 1, .flags = O_RDWR | O_APPEND, .write_flags = FUSE_WRITE_CACHE },
		      "H") == 1,
		  "a page of a mapping goes where it belongs");
	check_content("new", "Hostab");
	cr_assert(fsc_write_with(c, id, (struct fuse_write_in){ .fh = fh, .size = 1, .flags = O_RDWR | O_SYNC }, "h") == 1);
	cr_assert(fsc_create(c, FUSE_ROOT_ID, "new", O_RDWR | O_EXCL, 0640, &other, &fh) == -EEXIST);
	cr_assert(fsc_create(c, FUSE_ROOT_ID, "new", O_RDWR | O_TRUNC, 0640, &other, &fh) == 0 && other == id);
	cr_assert(fsc_entry(c)->attr.size == 0);
	check_content("new", "");
	cr_assert(mkdir(fs_share_path(&share, "dir"), 0755) == 0 && symlink("new", fs_share_path(&share, "link")) == 0);
	cr_assert(fsc_create(c, FUSE_ROOT_ID, "dir", O_RDWR, 0640, &other, &fh) == -EISDIR);
	cr_assert(fsc_create(c, FUSE_ROOT_ID, "link", O_RDWR, 0640, &other, &fh) == -ELOOP, "symlinks are the client's to follow");
}

Test(fs_server, truncate_and_times)
{
	uint64_t id, fh;
	fs_share_file(&share, "file", "0123456789");
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	cr_assert(fsc_walk(c, "file", &id) == 0);
	cr_assert(fsc_setattr(c, id, (struct fuse_setattr_in){ .valid = FATTR_SIZE, .size = 4 }) == 0);
	check_content("file", "0123");
	cr_assert(fsc_open(c, id, O_RDWR, &fh) == 0);
	cr_assert(fsc_setattr(c, id, (struct fuse_setattr_in){ .valid = FATTR_SIZE | FATTR_FH, .fh = fh, .size = 2 }) == 0);
	check_content("file", "01");
	cr_assert(fsc_setattr(c, id, (struct fuse_setattr_in){ .valid = FATTR_SIZE, .size = UINT64_MAX }) == -EFBIG);
	cr_assert(fsc_open(c, id, O_WRONLY | O_TRUNC, &fh) == 0);
	check_content("file", "");

	const struct fuse_setattr_in times = {
		.valid = FATTR_ATIME | FATTR_MTIME, .atime = 1000, .atimensec = 123456789, .mtime = 2000, .mtimensec = 987654321
	};
	cr_assert(fsc_setattr(c, id, times) == 0);
	struct stat st;
	cr_assert(stat(fs_share_path(&share, "file"), &st) == 0);
	cr_assert(st.st_atim.tv_sec == 1000 && st.st_atim.tv_nsec == 123456789);
	cr_assert(st.st_mtim.tv_sec == 2000 && st.st_mtim.tv_nsec == 987654321);
	cr_assert(fsc_setattr(c, id, (struct fuse_setattr_in){ .valid = FATTR_MTIME | FATTR_MTIME_NOW }) == 0);
	cr_assert(stat(fs_share_path(&share, "file"), &st) == 0 && st.st_atim.tv_sec == 1000 && st.st_mtim.tv_sec > 1000000000);
	/* Of a symlink: its own. */
	cr_assert(fsc_symlink(c, FUSE_ROOT_ID, "link", "file", &id) == 0);
	cr_assert(fsc_setattr(c, id, times) == 0);
	cr_assert(lstat(fs_share_path(&share, "link"), &st) == 0 && st.st_mtim.tv_sec == 2000);
	cr_assert(fsc_setattr(c, id, (struct fuse_setattr_in){ .valid = FATTR_SIZE }) == -EINVAL);
	cr_assert(fsc_setattr(c, FUSE_ROOT_ID, (struct fuse_setattr_in){ .valid = FATTR_SIZE }) == -EISDIR);
}

Test(fs_server, unlinked_files_stay_open)
{
	uint64_t id, fh;
	struct fuse_attr attr;
	fs_share_file(&share, "file", "still here");
	start((struct fs_config){ .cache = FS_CACHE_AUTO, .descriptors_max = 64 });
	cr_assert(fsc_walk(c, "file", &id) == 0 && fsc_open(c, id, O_RDWR, &fh) == 0);
	cr_assert(fsc_remove(c, FUSE_UNLINK, FUSE_ROOT_ID, "file") == 0);
	cr_assert(access(fs_share_path(&share, "file"), F_OK) < 0);
	/* Also when the descriptors of nodes are all used again in between. */
	for (int i = 0; i < 200; i++) {
		uint64_t dir, dir_fh;
		char name[16];
		snprintf(name, sizeof(name), "d%d", i);
		cr_assert(fsc_mkdir(c, FUSE_ROOT_ID, name, 0755, &dir) == 0 && fsc_opendir(c, dir, &dir_fh) == 0);
		cr_assert(fsc_release(c, dir, dir_fh) == 0);
	}
	cr_assert(fsc_read(c, id, fh, 0, 100) == 10 && memcmp(c->body, "still here", 10) == 0);
	cr_assert(fsc_getattr(c, id, &attr) == 0 && attr.nlink == 0 && attr.size == 10);
	cr_assert(fsc_setattr(c, id, (struct fuse_setattr_in){ .valid = FATTR_MODE, .mode = 0600 }) == 0);
	/* Another file that has the name, and may have the inode number. */
	uint64_t other;
	fs_share_file(&share, "file", "new");
	cr_assert(fsc_walk(c, "file", &other) == 0 && other != id);
	cr_assert(fsc_release(c, id, fh) == 0);
}

Test(fs_server, tmpfile_gets_a_name_by_link)
{
	uint64_t id, fh, named;
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	const int result = fsc_create_with(c, FUSE_TMPFILE, FUSE_ROOT_ID, "#1", O_RDWR, 0600, &id, &fh);
	if (result == -EOPNOTSUPP)
		cr_skip("the file system here has no O_TMPFILE");
	cr_assert(result == 0, "%d", result);
	cr_assert(fsc_entry(c)->attr.nlink == 0);
	cr_assert(fsc_write(c, id, fh, 0, "content", 7) == 7);
	cr_assert(fsc_link(c, id, FUSE_ROOT_ID, "named") == 0);
	check_content("named", "content");
	cr_assert(fsc_release(c, id, fh) == 0);
	cr_assert(fsc_walk(c, "named", &named) == 0 && named == id);
	cr_assert(fsc_create_with(c, FUSE_TMPFILE, FUSE_ROOT_ID, "#2", O_RDONLY, 0600, &id, &fh) == -EINVAL);
}

Test(fs_server, sparse_files)
{
	uint64_t id, fh, copy_id, copy_fh;
	struct stat st;
	const uint64_t far = (5ull << 30) + 4096;
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	cr_assert(fsc_create(c, FUSE_ROOT_ID, "file", O_RDWR, 0600, &id, &fh) == 0);
	cr_assert(fsc_write(c, id, fh, far, "data", 4) == 4, "beyond 4 GiB");
	cr_assert(fsc_read(c, id, fh, far, 10) == 4 && memcmp(c->body, "data", 4) == 0);
	cr_assert(stat(fs_share_path(&share, "file"), &st) == 0 && (uint64_t)st.st_size == far + 4);

	struct fuse_lseek_in seek = { .fh = fh, .offset = 0, .whence = SEEK_DATA };
	fsc_begin(c, FUSE_LSEEK, id);
	fsc_add(c, &seek, sizeof(seek));
	cr_assert(fsc_send(c) == 0 && *(const uint64_t *)(const void *)c->body == far);
	seek.whence = SEEK_HOLE;
	seek.offset = far;
	fsc_begin(c, FUSE_LSEEK, id);
	fsc_add(c, &seek, sizeof(seek));
	cr_assert(fsc_send(c) == 0 && *(const uint64_t *)(const void *)c->body == far + 4);
	seek.offset = far + 4;
	fsc_begin(c, FUSE_LSEEK, id);
	fsc_add(c, &seek, sizeof(seek));
	cr_assert(fsc_send(c) == -ENXIO);

	const struct {
		uint32_t mode;
		int result;
		uint64_t size;
	} modes[] = { { FALLOC_FL_KEEP_SIZE, 0, far + 4 },
		      { 0, 0, far + 65536 },
		      { FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, far + 65536 },
		      { FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, 0, far + 65536 },
		      { FALLOC_FL_PUNCH_HOLE, -EOPNOTSUPP, far + 65536 },
		      { FALLOC_FL_COLLAPSE_RANGE, -EOPNOTSUPP, far + 65536 } };
	for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
		const struct fuse_fallocate_in in = { .fh = fh, .offset = far, .length = 65536, .mode = modes[i].mode };
		fsc_begin(c, FUSE_FALLOCATE, id);
		fsc_add(c, &in, sizeof(in));
		cr_assert(fsc_send(c) == modes[i].result, "mode %u", modes[i].mode);
		cr_assert(stat(fs_share_path(&share, "file"), &st) == 0 && (uint64_t)st.st_size == modes[i].size);
	}
	cr_assert(fsc_read(c, id, fh, far, 4) == 4 && memcmp(c->body, "\0\0\0", 4) == 0);

	cr_assert(fsc_write(c, id, fh, 0, "to copy", 7) == 7);
	cr_assert(fsc_create(c, FUSE_ROOT_ID, "copy", O_RDWR, 0600, &copy_id, &copy_fh) == 0);
	const struct fuse_copy_file_range_in copy = {
		.fh_in = fh, .nodeid_out = copy_id, .fh_out = copy_fh, .off_out = 2, .len = 7
	};
	fsc_begin(c, FUSE_COPY_FILE_RANGE, id);
	fsc_add(c, &copy, sizeof(copy));
	cr_assert(fsc_send(c) == 0 && *(const uint32_t *)(const void *)c->body == 7);
	cr_assert(fsc_read(c, copy_id, copy_fh, 2, 100) == 7 && memcmp(c->body, "to copy", 7) == 0);
}

/* ---- names ------------------------------------------------------------------------------------------------------------------------ */

static bool exists(const char *path)
{
	struct stat st;
	return lstat(fs_share_path(&share, path), &st) == 0;
}

Test(fs_server, rename_moves_replaces_and_exchanges)
{
	uint64_t dir, file, fh, other;
	struct fuse_attr attr;
	fs_share_file(&share, "dir/a", "a");
	fs_share_file(&share, "b", "b");
	start((struct fs_config){ .cache = FS_CACHE_AUTO, .descriptors_max = 64 });
	cr_assert(fsc_walk(c, "dir", &dir) == 0 && fsc_walk(c, "dir/a", &file) == 0 && fsc_walk(c, "b", &other) == 0);
	cr_assert(fsc_rename(c, dir, "a", FUSE_ROOT_ID, "b", RENAME_NOREPLACE) == -EEXIST);
	cr_assert(fsc_rename(c, dir, "a", FUSE_ROOT_ID, "b", RENAME_EXCHANGE) == 0);
	check_content("b", "a");
	check_content("dir/a", "b");
	/* Both are found under their new names. */
	cr_assert(fsc_getattr(c, file, &attr) == 0 && fsc_getattr(c, other, &attr) == 0);
	cr_assert(fsc_open(c, file, O_RDONLY, &fh) == 0 && fsc_read(c, file, fh, 0, 9) == 1 && c->body[0] == 'a');
	/* Over an open file. */
	cr_assert(fsc_rename(c, dir, "a", FUSE_ROOT_ID, "b", 0) == 0 && !exists("dir/a"));
	check_content("b", "b");
	cr_assert(fsc_read(c, file, fh, 0, 9) == 1 && c->body[0] == 'a');
	cr_assert(fsc_getattr(c, file, &attr) == 0 && attr.nlink == 0);
	cr_assert(fsc_getattr(c, other, &attr) == 0 && attr.nlink == 1);
	cr_assert(fsc_rename(c, FUSE_ROOT_ID, "b", FUSE_ROOT_ID, "c", RENAME_WHITEOUT) == -EINVAL);
	cr_assert(fsc_rename(c, FUSE_ROOT_ID, "dir", dir, "below itself", 0) == -EINVAL);
	cr_assert(fsc_rename(c, FUSE_ROOT_ID, "none", dir, "x", 0) == -ENOENT);
	/* The older request. */
	const struct fuse_rename_in in = { .newdir = dir };
	fsc_begin(c, FUSE_RENAME, FUSE_ROOT_ID);
	fsc_add(c, &in, sizeof(in));
	fsc_add_string(c, "b");
	fsc_add_string(c, "again");
	cr_assert(fsc_send(c) == 0 && exists("dir/again") && fsc_getattr(c, other, &attr) == 0);
}

Test(fs_server, a_renamed_directory_is_found_with_what_is_in_it)
{
	uint64_t from, deep, file;
	struct fuse_attr attr;
	fs_share_file(&share, "from/deep/file", "x");
	fs_share_file(&share, "to/x", "x");
	start((struct fs_config){ .cache = FS_CACHE_AUTO, .descriptors_max = 64 });
	cr_assert(fsc_walk(c, "to", &from) == 0 && fsc_walk(c, "from/deep", &deep) == 0 &&
		  fsc_walk(c, "from/deep/file", &file) == 0);
	cr_assert(fsc_rename(c, FUSE_ROOT_ID, "from", from, "moved", 0) == 0);
	cr_assert(fsc_getattr(c, deep, &attr) == 0 && fsc_getattr(c, file, &attr) == 0);
	/* Moved by the host: the number is stale until the name is looked up again. */
	cr_assert(rename(fs_share_path(&share, "to/moved/deep/file"), fs_share_path(&share, "elsewhere")) == 0);
	cr_assert(fsc_getattr(c, file, &attr) == -ESTALE);
	uint64_t again;
	cr_assert(fsc_walk(c, "elsewhere", &again) == 0 && again == file && fsc_getattr(c, file, &attr) == 0);
}

Test(fs_server, directories_that_the_host_turns_upside_down)
{
	uint64_t a, b, id;
	struct fuse_attr attr;
	cr_assert(mkdir(fs_share_path(&share, "a"), 0755) == 0 && mkdir(fs_share_path(&share, "a/b"), 0755) == 0);
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	cr_assert(fsc_walk(c, "a", &a) == 0 && fsc_walk(c, "a/b", &b) == 0);
	cr_assert(fsc_setattr(c, b, (struct fuse_setattr_in){ .valid = FATTR_MTIME_NOW }) == 0, "it has a descriptor now");
	cr_assert(rename(fs_share_path(&share, "a/b"), fs_share_path(&share, "b")) == 0);
	cr_assert(rename(fs_share_path(&share, "a"), fs_share_path(&share, "b/a")) == 0);
	/* b is still a's child for all that the server knows, and now a is b's. */
	cr_assert(fsc_lookup(c, b, "a", &id) == 0 && id == a);
	fsc_getattr(c, a, &attr);
	cr_assert(fsc_walk(c, "b/a", &id) == 0 && id == a && fsc_getattr(c, a, &attr) == 0);
}

Test(fs_server, names_are_made_and_removed)
{
	uint64_t dir, id;
	char target[256], name[300];
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	cr_assert(fsc_mkdir(c, FUSE_ROOT_ID, "dir", 0750, &dir) == 0);
	check_attr(&fsc_entry(c)->attr, "dir");
	cr_assert(fsc_mkdir(c, FUSE_ROOT_ID, "dir", 0750, &id) == -EEXIST);
	cr_assert(fsc_symlink(c, dir, "link", "/absolute/../target", &id) == 0);
	check_attr(&fsc_entry(c)->attr, "dir/link");
	cr_assert(fsc_readlink(c, id, target, sizeof(target)) == 0 && strcmp(target, "/absolute/../target") == 0);
	cr_assert(fsc_readlink(c, dir, target, sizeof(target)) == -EINVAL);
	cr_assert(fsc_link(c, id, FUSE_ROOT_ID, "hard link of a symlink") == 0 && fsc_entry(c)->nodeid == id);
	cr_assert(fsc_mknod(c, dir, "file", S_IFREG | 0644, 0, &id) == 0);
	check_attr(&fsc_entry(c)->attr, "dir/file");
	cr_assert(fsc_link(c, id, FUSE_ROOT_ID, "second") == 0 && fsc_entry(c)->attr.nlink == 2);
	cr_assert(fsc_link(c, dir, FUSE_ROOT_ID, "third") == -EPERM);
	cr_assert(fsc_remove(c, FUSE_RMDIR, FUSE_ROOT_ID, "dir") == -ENOTEMPTY);
	cr_assert(fsc_remove(c, FUSE_UNLINK, FUSE_ROOT_ID, "dir") == -EISDIR);
	cr_assert(fsc_remove(c, FUSE_UNLINK, dir, "file") == 0 && fsc_remove(c, FUSE_UNLINK, dir, "link") == 0);
	cr_assert(fsc_remove(c, FUSE_UNLINK, dir, "file") == -ENOENT);
	cr_assert(fsc_remove(c, FUSE_RMDIR, FUSE_ROOT_ID, "second") == -ENOTDIR);
	cr_assert(fsc_remove(c, FUSE_RMDIR, FUSE_ROOT_ID, "dir") == 0);
	cr_assert(fsc_mkdir(c, dir, "in a removed directory", 0755, &id) == -ENOENT || !exists("dir"));

	memset(name, 'n', 255);
	name[255] = 0;
	cr_assert(fsc_mkdir(c, FUSE_ROOT_ID, name, 0755, &id) == 0 && exists(name));
	cr_assert(fsc_lookup(c, FUSE_ROOT_ID, name, &id) == 0);
	name[255] = 'n';
	name[256] = 0;
	cr_assert(fsc_mkdir(c, FUSE_ROOT_ID, name, 0755, &id) == -ENAMETOOLONG);
	cr_assert(fsc_lookup(c, FUSE_ROOT_ID, name, &id) == -ENAMETOOLONG);
}

/* ---- the file system -------------------------------------------------------------------------------------------------------------- */

Test(fs_server, statfs_and_sync)
{
	uint64_t id, fh;
	struct statvfs fs;
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	cr_assert(statvfs(share.path, &fs) == 0);
	fsc_begin(c, FUSE_STATFS, FUSE_ROOT_ID);
	cr_assert(fsc_send(c) == 0);
	const struct fuse_statfs_out *out = (const void *)c->body;
	cr_assert(out->st.blocks == fs.f_blocks && out->st.bsize == fs.f_bsize && out->st.namelen == fs.f_namemax);

	cr_assert(fsc_create(c, FUSE_ROOT_ID, "file", O_RDWR, 0600, &id, &fh) == 0);
	for (uint32_t flags = 0; flags < 2; flags++) {
		const struct fuse_fsync_in in = { .fh = fh, .fsync_flags = flags };
		fsc_begin(c, FUSE_FSYNC, id);
		fsc_add(c, &in, sizeof(in));
		cr_assert(fsc_send(c) == 0);
	}
	struct fuse_fsync_in in = { .fh = fh };
	fsc_begin(c, FUSE_FSYNCDIR, id);
	fsc_add(c, &in, sizeof(in));
	cr_assert(fsc_send(c) == -EBADF, "a file is no directory");
	cr_assert(fsc_opendir(c, FUSE_ROOT_ID, &in.fh) == 0);
	fsc_begin(c, FUSE_FSYNCDIR, FUSE_ROOT_ID);
	fsc_add(c, &in, sizeof(in));
	cr_assert(fsc_send(c) == 0);
	const struct fuse_syncfs_in sync_in = { .padding = 0 };
	fsc_begin(c, FUSE_SYNCFS, FUSE_ROOT_ID);
	fsc_add(c, &sync_in, sizeof(sync_in));
	cr_assert(fsc_send(c) == 0);
	const struct fuse_flush_in flush = { .fh = fh };
	fsc_begin(c, FUSE_FLUSH, id);
	fsc_add(c, &flush, sizeof(flush));
	cr_assert(fsc_send(c) == -ENOSYS, "close() means nothing to a local file system");
}

Test(fs_server, what_is_lacking_is_said)
{
	static const uint32_t opcodes[] = { FUSE_GETLK, FUSE_SETLK,        FUSE_SETLKW, FUSE_ACCESS, FUSE_BMAP, FUSE_IOCTL,
					    FUSE_POLL,  FUSE_NOTIFY_REPLY, 0,           7,           19,        52,
					    4096,       UINT32_MAX };
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	for (size_t i = 0; i < sizeof(opcodes) / sizeof(*opcodes); i++) {
		fsc_begin(c, opcodes[i], FUSE_ROOT_ID);
		fsc_add(c, "0123456789abcdef0123456789abcdef0123456789abcdef", 48);
		cr_assert(fsc_send(c) == -ENOSYS, "opcode %u", opcodes[i]);
	}
}

Test(fs_server, destroy_forgets_all)
{
	uint64_t id, fh;
	struct fs_counters counters;
	fs_share_file(&share, "dir/file", "x");
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	cr_assert(fsc_walk(c, "dir/file", &id) == 0 && fsc_open(c, id, O_RDONLY, &fh) == 0);
	fs_server_counters(c->server, &counters);
	cr_assert(counters.nodes == 3 && counters.descriptors >= 3);
	fsc_begin(c, FUSE_DESTROY, 0);
	cr_assert(fsc_send(c) == 0);
	fs_server_counters(c->server, &counters);
	cr_assert(counters.nodes == 1 && counters.descriptors == 1, "%lu nodes, %lu descriptors", counters.nodes,
		  counters.descriptors);
	cr_assert(fsc_start(c) == 0, "mounted again");
	struct fuse_attr attr;
	cr_assert(fsc_getattr(c, id, &attr) == -ESTALE);
	cr_assert(fsc_walk(c, "dir/file", &id) == 0);
}

Test(fs_server, forgetting_frees_nodes)
{
	uint64_t dir, file;
	struct fuse_attr attr;
	struct fs_counters counters;
	fs_share_file(&share, "dir/file", "x");
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	cr_assert(fsc_walk(c, "dir", &dir) == 0 && fsc_lookup(c, dir, "file", &file) == 0 &&
		  fsc_lookup(c, dir, "file", &file) == 0);
	fsc_forget(c, dir, 1);
	cr_assert(fsc_getattr(c, file, &attr) == 0, "its parent is kept as long as it is needed");
	fsc_forget(c, file, 1);
	cr_assert(fsc_getattr(c, file, &attr) == 0);
	fsc_forget(c, file, 1000);
	cr_assert(fsc_getattr(c, file, &attr) == -ESTALE);
	fs_server_counters(c->server, &counters);
	cr_assert(counters.nodes == 1);
	/* Once more than there was, unknown ones, and the root. */
	fsc_forget(c, file, 1);
	fsc_forget(c, 12345, 1);
	fsc_forget(c, UINT64_MAX, UINT64_MAX);
	fsc_forget(c, 0, 1);
	fsc_forget(c, FUSE_ROOT_ID, 1000);
	cr_assert(fsc_getattr(c, FUSE_ROOT_ID, &attr) == 0);
	uint64_t again;
	cr_assert(fsc_walk(c, "dir", &again) == 0 && again != dir && again != file, "numbers are not used twice");
}

/* ---- kinds of shares -------------------------------------------------------------------------------------------------------------- */

Test(fs_server, read_only_shares_change_nothing)
{
	uint64_t dir, file, fh, id;
	struct stat before, after;
	fs_share_file(&share, "dir/file", "content");
	start((struct fs_config){ .cache = FS_CACHE_AUTO, .read_only = true });
	cr_assert(fsc_walk(c, "dir", &dir) == 0 && fsc_lookup(c, dir, "file", &file) == 0);
	const struct timespec long_ago[2] = { { .tv_sec = 1000 }, { .tv_sec = 1000 } };
	cr_assert(utimensat(AT_FDCWD, fs_share_path(&share, "dir/file"), long_ago, 0) == 0);
	cr_assert(stat(fs_share_path(&share, "dir/file"), &before) == 0);
	cr_assert(fsc_open(c, file, O_WRONLY, &fh) == -EROFS && fsc_open(c, file, O_RDWR, &fh) == -EROFS);
	cr_assert(fsc_open(c, file, O_RDONLY | O_TRUNC, &fh) == -EROFS);
	cr_assert(fsc_open(c, file, O_RDONLY, &fh) == 0 && fsc_read(c, file, fh, 0, 100) == 7);
	cr_assert(fsc_write(c, file, fh, 0, "x", 1) == -EROFS);
	cr_assert(fsc_create(c, dir, "new", O_RDWR, 0644, &id, &fh) == -EROFS);
	cr_assert(fsc_create_with(c, FUSE_TMPFILE, dir, "#1", O_RDWR, 0644, &id, &fh) == -EROFS);
	cr_assert(fsc_mkdir(c, dir, "new", 0755, &id) == -EROFS && fsc_mknod(c, dir, "new", S_IFREG, 0, &id) == -EROFS);
	cr_assert(fsc_symlink(c, dir, "new", "x", &id) == -EROFS && fsc_link(c, file, dir, "new") == -EROFS);
	cr_assert(fsc_remove(c, FUSE_UNLINK, dir, "file") == -EROFS && fsc_remove(c, FUSE_RMDIR, FUSE_ROOT_ID, "dir") == -EROFS);
	cr_assert(fsc_rename(c, dir, "file", dir, "other", 0) == -EROFS);
	cr_assert(fsc_setattr(c, file, (struct fuse_setattr_in){ .valid = FATTR_MODE, .mode = 0777 }) == -EROFS);
	cr_assert(fsc_setattr(c, file, (struct fuse_setattr_in){ .valid = FATTR_SIZE }) == -EROFS);
	cr_assert(fsc_setxattr(c, file, "user.x", "y", 1, 0) == -EROFS && fsc_removexattr(c, file, "user.x") == -EROFS);
	const struct fuse_fallocate_in allocate = { .fh = fh, .length = 4096 };
	fsc_begin(c, FUSE_FALLOCATE, file);
	fsc_add(c, &allocate, sizeof(allocate));
	cr_assert(fsc_send(c) == -EROFS);
	const struct fuse_copy_file_range_in copy = { .fh_in = fh, .fh_out = fh, .len = 1 };
	fsc_begin(c, FUSE_COPY_FILE_RANGE, file);
	fsc_add(c, &copy, sizeof(copy));
	cr_assert(fsc_send(c) == -EROFS);
	cr_assert(stat(fs_share_path(&share, "dir/file"), &after) == 0);
	cr_assert(after.st_atim.tv_sec == 1000, "not even when it was read");
	cr_assert(before.st_ctim.tv_sec == after.st_ctim.tv_sec && before.st_ctim.tv_nsec == after.st_ctim.tv_nsec);
}

Test(fs_server, a_share_of_one_file)
{
	uint64_t id, fh, dir;
	struct seen seen = { .count = 0 };
	struct fuse_attr attr;
	fs_share_file(&share, "one", "content");
	fs_share_file(&share, "other", "hidden");
	char path[4200];
	snprintf(path, sizeof(path), "%s", fs_share_path(&share, "one"));
	start((struct fs_config){ .cache = FS_CACHE_AUTO, .path = path });
	cr_assert(strcmp(fs_server_name(c->server), "one") == 0);
	cr_assert(fsc_getattr(c, FUSE_ROOT_ID, &attr) == 0 && S_ISDIR(attr.mode) && attr.nlink == 2);
	cr_assert(fsc_lookup(c, FUSE_ROOT_ID, "other", &id) == -ENOENT);
	cr_assert(fsc_lookup(c, FUSE_ROOT_ID, "one", &id) == 0);
	check_attr(&fsc_entry(c)->attr, "one");
	for (int plus = 0; plus < 2; plus++) {
		uint64_t offset = 0;
		seen = (struct seen){ .count = 0 };
		cr_assert(fsc_opendir(c, FUSE_ROOT_ID, &fh) == 0);
		while (fsc_readdir(c, plus, FUSE_ROOT_ID, fh, &offset, 200, note_entry, &seen) > 0)
			;
		cr_assert(seen.files == 1 && seen.dots == 2);
		cr_assert(fsc_release(c, FUSE_ROOT_ID, fh) == 0);
	}
	cr_assert(fsc_open(c, id, O_RDWR, &fh) == 0 && fsc_write(c, id, fh, 0, "C", 1) == 1);
	check_content("one", "Content");
	cr_assert(fsc_mkdir(c, FUSE_ROOT_ID, "dir", 0755, &dir) == -EPERM);
	cr_assert(fsc_create(c, FUSE_ROOT_ID, "new", O_RDWR, 0644, &dir, &fh) == -EPERM);
	cr_assert(fsc_remove(c, FUSE_UNLINK, FUSE_ROOT_ID, "one") == -EPERM);
	cr_assert(fsc_rename(c, FUSE_ROOT_ID, "one", FUSE_ROOT_ID, "two", 0) == -EPERM);
	cr_assert(fsc_setattr(c, FUSE_ROOT_ID, (struct fuse_setattr_in){ .valid = FATTR_MODE, .mode = 0700 }) == -EPERM);
	cr_assert(fsc_open(c, FUSE_ROOT_ID, O_RDONLY, &fh) == -EISDIR);
	fsc_forget(c, id, 100);
	cr_assert(fsc_getattr(c, id, &attr) == 0);
}

Test(fs_server, the_extra_file)
{
	uint64_t id, fh, other;
	struct seen seen = { .count = 0 };
	fs_share_file(&share, "init", "the host's");
	fs_share_file(&share, "dir/init", "another");
	const int extra = open(fs_share_path(&share, "dir"), O_TMPFILE | O_RDWR, 0600);
	cr_assert(extra >= 0 && write(extra, "the agent", 9) == 9);
	start((struct fs_config){ .cache = FS_CACHE_AUTO, .extras = { { "other", -1 }, { "init", extra } } });
	cr_assert(fsc_lookup(c, FUSE_ROOT_ID, "init", &id) == 0);
	const struct fuse_attr attr = fsc_entry(c)->attr;
	cr_assert(attr.mode == (S_IFREG | 0555) && attr.uid == 0 && attr.gid == 0 && attr.size == 9);
	cr_assert(fsc_open(c, id, O_RDWR, &fh) == -EACCES);
	cr_assert(fsc_open(c, id, O_RDONLY, &fh) == 0 && fsc_read(c, id, fh, 4, 100) == 5 && memcmp(c->body, "agent", 5) == 0);
	cr_assert(fsc_release(c, id, fh) == 0 && fcntl(extra, F_GETFD) >= 0);
	cr_assert(fsc_setattr(c, id, (struct fuse_setattr_in){ .valid = FATTR_MODE, .mode = 0777 }) == -EPERM);
	cr_assert(fsc_remove(c, FUSE_UNLINK, FUSE_ROOT_ID, "init") == -EPERM);
	cr_assert(fsc_rename(c, FUSE_ROOT_ID, "init", FUSE_ROOT_ID, "x", 0) == -EPERM);
	cr_assert(fsc_rename(c, FUSE_ROOT_ID, "dir", FUSE_ROOT_ID, "init", 0) == -EPERM);
	cr_assert(fsc_link(c, id, FUSE_ROOT_ID, "x") == -EPERM && fsc_mkdir(c, FUSE_ROOT_ID, "init", 0755, &other) == -EEXIST);
	cr_assert(fsc_getxattr(c, id, "user.x", 0) == -ENODATA && fsc_getxattr(c, id, NULL, 0) == 0);
	cr_assert(fsc_walk(c, "dir/init", &other) == 0 && other != id, "only in the root");
	uint64_t offset = 0;
	cr_assert(fsc_opendir(c, FUSE_ROOT_ID, &fh) == 0);
	cr_assert(fsc_readdir(c, true, FUSE_ROOT_ID, fh, &offset, 4096, note_entry, &seen) == 3 && seen.files == 1, "not listed");
	close(extra);
	check_content("init", "the host's");
}

#define DIRECT (FOPEN_DIRECT_IO | FOPEN_PARALLEL_DIRECT_WRITES)

Test(fs_server, what_is_kept_how_long)
{
	static const struct {
		struct fs_config config;
		uint64_t seconds;
		uint32_t file, again, dir; /* FOPEN_ */
	} modes[] = {
		{ { .cache = FS_CACHE_NONE }, 0, DIRECT, DIRECT, 0 },
		{ { .cache = FS_CACHE_AUTO }, 1, 0, FOPEN_KEEP_CACHE, 0 },
		{ { .cache = FS_CACHE_ALWAYS, .writeback = true },
		  86400,
		  FOPEN_KEEP_CACHE,
		  FOPEN_KEEP_CACHE,
		  FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR },
	};
	fs_share_file(&share, "file", "x");
	usleep(50000);
	for (size_t i = 0; i < sizeof(modes) / sizeof(*modes); i++) {
		uint64_t id, fh;
		fs_share_create(&share, modes[i].config);
		cr_assert(fsc_start(c) == 0);
		const struct fuse_init_out *init = (const void *)c->body;
		cr_assert(!(init->flags & FUSE_WRITEBACK_CACHE) == !modes[i].config.writeback);
		cr_assert(fsc_lookup(c, FUSE_ROOT_ID, "file", &id) == 0);
		cr_assert(fsc_entry(c)->entry_valid == modes[i].seconds && fsc_entry(c)->attr_valid == modes[i].seconds);
		const struct fuse_open_out *open_out = (const void *)c->body;
		cr_assert(fsc_open(c, id, O_RDONLY, &fh) == 0 && open_out->open_flags == modes[i].file, "%zu", i);
		cr_assert(fsc_open(c, id, O_RDONLY, &fh) == 0 && open_out->open_flags == modes[i].again, "%zu", i);
		cr_assert(fsc_opendir(c, FUSE_ROOT_ID, &fh) == 0 && open_out->open_flags == modes[i].dir);
		if (modes[i].config.cache == FS_CACHE_AUTO) {
			fs_share_file(&share, "file", "y");
			cr_assert(fsc_open(c, id, O_RDONLY, &fh) == 0 && open_out->open_flags == 0, "the host changed it");
			usleep(50000);
		}
		if (modes[i].config.writeback) {
			cr_assert(fsc_open(c, id, O_WRONLY | O_APPEND, &fh) == 0 && fsc_read(c, id, fh, 0, 10) == 1,
				  "parts of pages are read");
			cr_assert(fsc_write_with(c, id, (struct fuse_write_in){ .fh = fh, .size = 1, .flags = O_APPEND }, "Z") ==
				  1);
			check_content("file", "Z");
		}
		/* Names that are not there are remembered only where nobody else makes them. */
		const int missing = fsc_lookup(c, FUSE_ROOT_ID, "none", &id);
		if (modes[i].config.cache == FS_CACHE_ALWAYS)
			cr_assert(missing == 0 && id == 0 && fsc_entry(c)->entry_valid == 86400);
		else
			cr_assert(missing == -ENOENT);
		fsc_free(c);
	}
}

Test(fs_server, shares_that_cannot_be)
{
	struct fs_server *server;
	struct error err;
	char path[4200];
	snprintf(path, sizeof(path), "%s", fs_share_path(&share, "none"));
	struct fs_config config = { .path = path };
	cr_assert(fs_server_create(&config, &server, &err) == -ENOENT && strstr(err.text, path));
	cr_assert(mkfifo(path, 0600) == 0);
	cr_assert(fs_server_create(&config, &server, &err) == -ENOTDIR && strstr(err.text, path));
	config.path = "/dev/null";
	cr_assert(fs_server_create(&config, &server, &err) == -ENOTDIR);
}

Test(fs_server, a_share_that_is_removed_meanwhile)
{
	uint64_t dir, id, fh, none;
	struct fuse_attr attr;
	fs_share_file(&share, "dir/file", "x");
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	cr_assert(fsc_walk(c, "dir", &dir) == 0 && fsc_lookup(c, dir, "file", &id) == 0 && fsc_open(c, id, O_RDWR, &fh) == 0);
	nftw(share.path, fs_share_remove_one, 64, FTW_DEPTH | FTW_PHYS);
	cr_assert(fsc_getattr(c, FUSE_ROOT_ID, &attr) == 0 && attr.nlink == 0);
	cr_assert(fsc_lookup(c, FUSE_ROOT_ID, "dir", &none) == -ENOENT);
	cr_assert(fsc_mkdir(c, FUSE_ROOT_ID, "new", 0755, &none) == -ENOENT);
	cr_assert(fsc_getattr(c, dir, &attr) == -ESTALE || attr.nlink == 0);
	cr_assert(fsc_read(c, id, fh, 0, 1) == 1, "an open file stays");
	cr_assert(mkdir(share.path, 0755) == 0);
	cr_assert(fsc_lookup(c, FUSE_ROOT_ID, "dir", &none) == -ENOENT, "another directory of that name is another");
}
