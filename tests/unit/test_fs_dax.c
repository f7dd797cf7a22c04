/*
 * devices/virtio-fs/fs_dax.c: files of the host in the window, what becomes of them when they shrink and grow, and what a hostile client
 * gets. The window is looked into from here as a guest would.
 */
#include <criterion/criterion.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/xattr.h>

#include "tests/unit/fs_share.h"

#define RANGE FS_RANGE_BYTES
#define READ FUSE_SETUPMAPPING_FLAG_READ
#define WRITE FUSE_SETUPMAPPING_FLAG_WRITE

TestSuite(fs_dax, .init = fs_share_setup, .fini = fs_share_teardown, .timeout = 60);

static void start(struct fs_config config)
{
	if (config.dax == FS_DAX_NEVER)
		config.dax = FS_DAX_ALWAYS;
	fs_share_start(&share, config);
}

/* ---- the client ------------------------------------------------------------------------------------------------------------------- */

static int map(uint64_t node, uint64_t offset, uint64_t length, uint64_t flags, uint64_t at)
{
	const struct fuse_setupmapping_in in = {
		.fh = UINT64_MAX, .foffset = offset, .len = length, .flags = flags, .moffset = at
	};
	fsc_begin(c, FUSE_SETUPMAPPING, node);
	fsc_add(c, &in, sizeof(in));
	return fsc_send(c);
}

static int unmap_many(uint32_t count, const struct fuse_removemapping_one *all, uint32_t sent)
{
	const struct fuse_removemapping_in in = { .count = count };
	fsc_begin(c, FUSE_REMOVEMAPPING, FUSE_ROOT_ID);
	fsc_add(c, &in, sizeof(in));
	fsc_add(c, all, sent * sizeof(*all));
	return fsc_send(c);
}

static int unmap(uint64_t at, uint64_t length)
{
	return unmap_many(1, &(struct fuse_removemapping_one){ .moffset = at, .len = length }, 1);
}

/* ---- the guest's processor -------------------------------------------------------------------------------------------------------- */

static sigjmp_buf back;

static void on_fault(int number)
{
	siglongjmp(back, number);
}

/* The window's byte at `at`, or minus the signal that reading it is. */
static int look_at(uint64_t at)
{
	static struct sigaction action = { .sa_handler = on_fault };
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	const int number = sigsetjmp(back, 1);
	return number ? -number : ((const volatile uint8_t *)fs_server_window(c->server))[at];
}

/* Writes it, and returns 0 or minus the signal. */
static int put(uint64_t at, uint8_t value)
{
	static struct sigaction action = { .sa_handler = on_fault };
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	const int number = sigsetjmp(back, 1);
	if (!number)
		((volatile uint8_t *)fs_server_window(c->server))[at] = value;
	return -number;
}

/* A file whose byte at each multiple of 4096 tells the page. */
static void make_file(const char *name, uint64_t bytes)
{
	fs_share_file(&share, name, "");
	const int fd = open(fs_share_path(&share, name), O_WRONLY | O_CLOEXEC);
	for (uint64_t at = 0; at < bytes; at += 4096) {
		const uint8_t page[4096] = { (uint8_t)(at / 4096 % 251 + 1) };
		cr_assert(pwrite(fd, page, bytes - at < 4096 ? bytes - at : 4096, (off_t)at) > 0);
	}
	close(fd);
}

static uint64_t node_of(const char *name)
{
	uint64_t id;
	cr_assert(fsc_walk(c, name, &id) == 0);
	return id;
}

/* ---- what it is for --------------------------------------------------------------------------------------------------------------- */

Test(fs_dax, init_tells_the_alignment_when_there_is_a_window)
{
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	const struct fuse_init_out *out = (const void *)c->body;
	cr_assert(out->flags & FUSE_MAP_ALIGNMENT);
	cr_assert_eq(1u << out->map_alignment, RANGE);
	cr_assert_eq((uintptr_t)fs_server_window(c->server) % RANGE, 0);
	fsc_free(c);
	fs_share_start(&share, (struct fs_config){ .cache = FS_CACHE_AUTO });
	out = (const void *)c->body;
	cr_assert(!(out->flags & FUSE_MAP_ALIGNMENT) && out->map_alignment == 0);
	cr_assert_null(fs_server_window(c->server));
	cr_assert(map(FUSE_ROOT_ID, 0, RANGE, READ, 0) == -ENOSYS && unmap(0, RANGE) == -ENOSYS);
}

Test(fs_dax, files_are_read_and_written_where_they_are_mapped)
{
	make_file("file", 3 * RANGE + 100);
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	const uint64_t id = node_of("file");
	cr_assert(!fs_server_maps(c->server));
	cr_assert_eq(look_at(0), -SIGSEGV);
	cr_assert(map(id, RANGE, 2 * RANGE, READ | WRITE, 4 * RANGE) == 0 && fs_server_maps(c->server));
	cr_assert_eq(look_at(4 * RANGE), 512 % 251 + 1);
	cr_assert_eq(look_at(5 * RANGE + 4096), 1025 % 251 + 1);
	cr_assert(look_at(4 * RANGE - 1) == -SIGSEGV && look_at(6 * RANGE) == -SIGSEGV);
	/* Both ways, at once. */
	cr_assert_eq(put(4 * RANGE + 7, 'x'), 0);
	const int fd = open(fs_share_path(&share, "file"), O_RDWR | O_CLOEXEC);
	char byte = 0;
	cr_assert(pread(fd, &byte, 1, RANGE + 7) == 1 && byte == 'x');
	cr_assert(pwrite(fd, "y", 1, RANGE + 8) == 1);
	cr_assert_eq(look_at(4 * RANGE + 8), 'y');
	close(fd);
	/* The rest of the file's last page is zero. */
	cr_assert(map(id, 3 * RANGE, RANGE, READ, 0) == 0);
	cr_assert(look_at(0) == 1536 % 251 + 1 && look_at(100) == 0 && put(0, 1) == -SIGSEGV);
	cr_assert(unmap(4 * RANGE, 2 * RANGE) == 0 && fs_server_maps(c->server) && look_at(4 * RANGE) == -SIGSEGV);
	cr_assert(unmap(0, FS_WINDOW_BYTES) == 0 && !fs_server_maps(c->server) && look_at(0) == -SIGSEGV);
}

Test(fs_dax, a_range_shows_what_was_mapped_last)
{
	make_file("a", RANGE);
	make_file("b", 2 * RANGE);
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	const uint64_t a = node_of("a"), b = node_of("b");
	cr_assert(map(a, 0, RANGE, READ, RANGE) == 0 && look_at(RANGE) == 1);
	cr_assert_eq(put(RANGE, 1), -SIGSEGV);
	/* Linux maps once more what is to be written to. */
	cr_assert(map(a, 0, RANGE, READ | WRITE, RANGE) == 0 && put(RANGE, 9) == 0 && look_at(RANGE) == 9);
	cr_assert(map(b, 0, 2 * RANGE, READ, 0) == 0 && look_at(RANGE) == 512 % 251 + 1);
	cr_assert_eq(put(RANGE, 1), -SIGSEGV);
}

Test(fs_dax, files_that_are_gone_for_the_client_stay_mapped)
{
	uint64_t fh;
	make_file("file", RANGE);
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	const uint64_t id = node_of("file");
	cr_assert(fsc_open(c, id, O_RDONLY, &fh) == 0 && map(id, 0, RANGE, READ, 0) == 0);
	cr_assert(unlink(fs_share_path(&share, "file")) == 0 && fsc_release(c, id, fh) == 0);
	fsc_forget(c, id, 1);
	fs_server_look_at_window(c->server);
	cr_assert_eq(look_at(0), 1);
	cr_assert(unmap(0, RANGE) == 0 && look_at(0) == -SIGSEGV);
	cr_assert(map(id, 0, RANGE, READ, 0) == -ESTALE);
}

Test(fs_dax, reset_and_destroy_take_everything_away)
{
	make_file("file", RANGE);
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	for (int i = 0; i < 2; i++) {
		cr_assert(map(node_of("file"), 0, RANGE, READ, 0) == 0 && look_at(0) == 1);
		if (i == 0) {
			fsc_begin(c, FUSE_DESTROY, 0);
			cr_assert(fsc_send(c) == 0);
		} else {
			fs_server_reset(c->server);
		}
		cr_assert(!fs_server_maps(c->server) && look_at(0) == -SIGSEGV);
		cr_assert(fsc_start(c) == 0);
	}
	struct fs_counters counters;
	fs_server_counters(c->server, &counters);
	cr_assert_leq(counters.nodes, 1);
}

Test(fs_dax, files_for_which_it_pays)
{
	static const struct {
		enum fs_dax dax;
		uint32_t small, large;
	} cases[] = { { FS_DAX_ALWAYS, 0, 0 }, { FS_DAX_INODE, 0, FUSE_ATTR_DAX } };
	make_file("small", FS_DAX_LEAST_BYTES - 1);
	make_file("large", FS_DAX_LEAST_BYTES);
	for (size_t i = 0; i < 2; i++) {
		fs_share_create(&share, (struct fs_config){ .cache = FS_CACHE_AUTO, .dax = cases[i].dax });
		const struct fuse_init_in in = { .major = 7, .minor = 37, .flags = 0x7fffffff, .flags2 = UINT32_MAX };
		fsc_begin(c, FUSE_INIT, 0);
		fsc_add(c, &in, sizeof(in));
		cr_assert(fsc_send(c) == 0);
		const struct fuse_init_out *out = (const void *)c->body;
		cr_assert_eq((bool)(out->flags2 & FUSE_HAS_INODE_DAX >> 32), cases[i].dax == FS_DAX_INODE);
		node_of("small");
		cr_assert_eq(fsc_entry(c)->attr.flags, cases[i].small);
		node_of("large");
		cr_assert_eq(fsc_entry(c)->attr.flags, cases[i].large);
		fsc_free(c);
	}
}

/* ---- files that change ------------------------------------------------------------------------------------------------------------ */

Test(fs_dax, what_is_cut_off_is_nobodys_until_it_is_there_again)
{
	make_file("file", RANGE + 4 * 4096);
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	cr_assert(map(node_of("file"), RANGE, RANGE, READ | WRITE, 0) == 0);
	cr_assert_eq(look_at(5 * 4096), -SIGBUS, "the host's word for behind the end");
	fs_server_look_at_window(c->server);
	cr_assert(look_at(3 * 4096) > 0 && look_at(4 * 4096) == -SIGSEGV);

	const char *path = fs_share_path(&share, "file");
	cr_assert(truncate(path, RANGE + 4096 + 1) == 0);
	cr_assert(!fs_server_look_at_window(c->server), "less is not more");
	cr_assert(look_at(4096) >= 0 && look_at(2 * 4096) == -SIGSEGV);
	cr_assert(!fs_server_look_at_window(c->server));
	cr_assert(truncate(path, RANGE + 3 * 4096) == 0);
	cr_assert(fs_server_look_at_window(c->server));
	cr_assert(look_at(2 * 4096) == 0 && put(2 * 4096, 5) == 0 && look_at(3 * 4096) == -SIGSEGV);
	cr_assert(truncate(path, 0) == 0 && !fs_server_look_at_window(c->server) && look_at(0) == -SIGSEGV);
	cr_assert(truncate(path, 3 * RANGE) == 0 && fs_server_look_at_window(c->server));
	cr_assert(look_at(0) == 0 && look_at(RANGE - 1) == 0);
}

/* The table of what is mapped is not left behind by who takes it away meanwhile. */
static void *look_on(void *arg)
{
	const atomic_bool *stop = arg;
	while (!atomic_load(stop))
		fs_server_look_at_window(c->server);
	return NULL;
}

Test(fs_dax, looks_while_others_map)
{
	static atomic_bool stop;
	pthread_t thread;
	make_file("file", 4 * RANGE + 1);
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	const uint64_t id = node_of("file");
	cr_assert(pthread_create(&thread, NULL, look_on, &stop) == 0);
	for (unsigned i = 0; i < 300; i++) {
		cr_assert(map(id, i % 2 ? 0 : 4 * RANGE, RANGE, READ, i % 3 * RANGE) == 0);
		cr_assert(look_at(i % 3 * RANGE) > 0);
		if (i % 5 == 0)
			cr_assert(unmap(0, 2 * RANGE) == 0);
	}
	atomic_store(&stop, true);
	pthread_join(thread, NULL);
}

/* A program of the host's that a guest writes to is not run with its owner's rights, nor with capabilities, any more. */
Test(fs_dax, what_is_mapped_to_be_written_loses_set_ids_and_capabilities)
{
	static const uint8_t net_raw[20] = { 0, 0, 0, 2, 0, 0x20 }; /* a struct vfs_cap_data */
	struct stat st;
	char got[32];
	make_file("program", RANGE);
	const char *path = fs_share_path(&share, "program");
	cr_assert_eq(chmod(path, 06755), 0);
	const bool capabilities =
	    setxattr(path, "security.capability", net_raw, sizeof(net_raw), 0) == 0; /* root, on most file systems */
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	const uint64_t id = node_of("program");
	cr_assert_eq(map(id, 0, RANGE, READ, 0), 0);
	cr_assert(stat(path, &st) == 0 && (st.st_mode & 07777) == 06755);
	cr_assert_eq(map(id, 0, RANGE, READ | WRITE, 0), 0);
	cr_assert(stat(path, &st) == 0 && (st.st_mode & 07777) == 0755);
	if (capabilities)
		cr_assert_lt(getxattr(path, "security.capability", got, sizeof(got)), 0);
}

/* ---- what is refused -------------------------------------------------------------------------------------------------------------- */

Test(fs_dax, ranges_that_are_none)
{
	static const struct {
		uint64_t offset, length, at;
	} cases[] = {
		{ 0, 0, 0 },
		{ 0, 4096, 0 },
		{ 4096, RANGE, 0 },
		{ 0, RANGE, 4096 },
		{ 0, RANGE + 1, 0 },
		{ 0, RANGE, FS_WINDOW_BYTES },
		{ 0, RANGE, FS_WINDOW_BYTES - RANGE / 2 },
		{ 0, 2 * RANGE, FS_WINDOW_BYTES - RANGE },
		{ 0, FS_WINDOW_BYTES + RANGE, 0 },
		{ 0, RANGE, -(uint64_t)RANGE },
		{ 0, -(uint64_t)RANGE, RANGE },
		{ 0, -(uint64_t)RANGE, 2 * RANGE },
		{ -(uint64_t)RANGE, RANGE, 0 },
		{ INT64_MAX - RANGE + 1, RANGE, 0 },
		{ 1ull << 63, RANGE, 0 },
		{ 0, RANGE, 1ull << 63 },
	};
	make_file("file", 4096);
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	const uint64_t id = node_of("file");
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		cr_expect_eq(map(id, cases[i].offset, cases[i].length, READ, cases[i].at), -EINVAL, "case %zu", i);
		if (!cases[i].offset)
			cr_expect_eq(unmap(cases[i].at, cases[i].length), -EINVAL, "case %zu", i);
	}
	cr_expect_eq(map(id, INT64_MAX & ~(uint64_t)(2 * RANGE - 1), RANGE, READ, 0), 0, "far behind the end of the file");
	cr_expect_eq(look_at(0), -SIGBUS);
	fs_server_look_at_window(c->server);
	cr_expect_eq(look_at(0), -SIGSEGV);
	cr_expect_eq(map(id, 0, FS_WINDOW_BYTES, READ, 0), 0, "all of the window");
}

Test(fs_dax, flags_that_are_none)
{
	make_file("file", 4096);
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	const uint64_t id = node_of("file");
	cr_assert(map(id, 0, RANGE, 0, 0) == -EINVAL && map(id, 0, RANGE, WRITE, 0) == -EINVAL);
	for (unsigned bit = 2; bit < 64; bit++)
		cr_assert_eq(map(id, 0, RANGE, READ | 1ull << bit, 0), -EINVAL);
	cr_assert(!fs_server_maps(c->server));
}

Test(fs_dax, only_files_are_mapped_and_only_those_that_may_be)
{
	make_file("file", 4096);
	cr_assert(mkfifo(fs_share_path(&share, "fifo"), 0600) == 0 && mkdir(fs_share_path(&share, "dir"), 0700) == 0);
	cr_assert(symlink("file", fs_share_path(&share, "link")) == 0);
	start((struct fs_config){ .cache = FS_CACHE_AUTO, .read_only = true });
	cr_assert(map(FUSE_ROOT_ID, 0, RANGE, READ, 0) == -EISDIR && map(node_of("dir"), 0, RANGE, READ, 0) == -EISDIR);
	cr_assert(map(node_of("fifo"), 0, RANGE, READ, 0) == -EACCES && map(node_of("link"), 0, RANGE, READ, 0) == -EACCES);
	cr_assert(map(12345, 0, RANGE, READ, 0) == -ESTALE);
	cr_assert(map(node_of("file"), 0, RANGE, READ | WRITE, 0) == -EROFS);
	cr_assert(!fs_server_maps(c->server));
	cr_assert(map(node_of("file"), 0, RANGE, READ, 0) == 0 && look_at(0) == 1 && put(0, 1) == -SIGSEGV);
}

Test(fs_dax, the_memory_of_this_process_is_no_file)
{
	start((struct fs_config){ .cache = FS_CACHE_AUTO, .path = "/proc/self" });
	cr_assert_eq(map(node_of("mem"), 0, RANGE, READ, 0), -EACCES);
}

Test(fs_dax, lists_that_are_not_as_long_as_they_say)
{
	static const struct fuse_removemapping_one all[3] = { { 0, RANGE }, { RANGE, RANGE }, { 2 * RANGE, RANGE } };
	make_file("file", 4 * RANGE);
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	cr_assert(map(node_of("file"), 0, 4 * RANGE, READ, 0) == 0);
	static const uint32_t counts[] = { 0, 1, 2, 4, 1u << 28, UINT32_MAX };
	for (size_t i = 0; i < sizeof(counts) / sizeof(*counts); i++)
		cr_assert_eq(unmap_many(counts[i], all, 3), -EINVAL, "%u", counts[i]);
	cr_assert_eq(look_at(0), 1);
	cr_assert(unmap_many(0, all, 0) == 0 && unmap_many(3, all, 3) == 0 && unmap_many(3, all, 3) == 0);
	cr_assert(look_at(2 * RANGE) == -SIGSEGV && look_at(3 * RANGE) >= 0);
}

/* A client that maps without end makes us hold no descriptors, and of mappings what fits in the window. */
Test(fs_dax, what_it_costs_is_bounded)
{
	struct fs_counters before, after;
	make_file("file", 2 * RANGE);
	start((struct fs_config){ .cache = FS_CACHE_AUTO });
	const uint64_t id = node_of("file");
	fs_server_counters(c->server, &before);
	for (unsigned i = 0; i < 3000; i++)
		cr_assert(map(id, i % 2 * RANGE, RANGE, READ | (i % 7 ? 0 : WRITE), i * 5 % (FS_WINDOW_BYTES / RANGE) * RANGE) ==
			  0);
	fs_server_counters(c->server, &after);
	cr_assert_leq(after.descriptors, before.descriptors + 1, "the node's own");
	unsigned lines = 0;
	FILE *maps = fopen("/proc/self/maps", "re");
	for (char line[4096]; fgets(line, sizeof(line), maps);)
		lines += strstr(line, "/share/file") != NULL;
	fclose(maps);
	cr_assert(lines > 0 && lines <= FS_WINDOW_BYTES / RANGE);
}
