/* devices/virtio-fs: what the FUSE server answers, operation by operation, against what the host's own file system says. */
#include <criterion/criterion.h>

#include "tests/unit/fs_share.h"

static struct fs_share share;
static struct fs_client *c;

static void setup(void)
{
	fs_share_make(&share);
	c = &share.client;
}

static void teardown(void)
{
	fs_share_remove(&share);
}

static void start(struct fs_config config)
{
	fs_share_start(&share, config);
}

TestSuite(fs_server, .init = setup, .fini = teardown);

static void check_attr(const struct fuse_attr *attr, const char *path)
{
	struct stat st;
	cr_assert(lstat(fs_share_path(&share, path), &st) == 0, "%s", path);
	cr_assert(attr->ino == st.st_ino && attr->mode == st.st_mode && attr->nlink == st.st_nlink, "%s", path);
	cr_assert(attr->size == (uint64_t)st.st_size && attr->blocks == (uint64_t)st.st_blocks, "%s", path);
	cr_assert(attr->uid == st.st_uid && attr->gid == st.st_gid, "%s", path);
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
