/* Compressed layers and the cache of inflated ones: what is kept, what is noticed, what is left behind. */
#include "test_layers_cache_util.h"

#include <signal.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <time.h>

TestSuite(gzip, .init = set_up, .fini = tear_down);
TestSuite(cache, .init = set_up, .fini = tear_down);

Test(gzip, layer_is_read)
{
	const char *path = write_sample_gz("hello");
	load_holds(path, "hello");
	cr_assert_eq(count_files("layers", NULL, 0), 1);
	struct error err = { "" };
	struct tree_builder *builder = tree_builder_create();
	cr_assert_eq(layers_apply_file(builder, path, cache, &err), 0, "%s", err.text);
	struct tree *tree = builder_tree(builder);
	assert_text(tree, "f", "hello");
	tree_destroy(tree);
}

Test(gzip, is_known_by_content_not_by_name)
{
	write_sample_gz("hello");
	char other[128];
	snprintf(other, sizeof(other), "%s/layer.tar", root);
	cr_assert_eq(rename(in_root("layer.tar.gz"), other), 0);
	load_holds(other, "hello");
}

Test(gzip, several_members_and_padding)
{
	struct archive tar = sample("hello");
	struct archive one = gzip(tar.bytes, 700), two = gzip(tar.bytes + 700, 0), three = gzip(tar.bytes + 700, tar.length - 700);
	archive_append(&one, two.bytes, two.length);
	archive_append(&one, three.bytes, three.length);
	archive_append(&one, (const char[100]){ 0 }, 100);
	write_file(in_root("layer"), one.bytes, one.length);
	load_holds(in_root("layer"), "hello");
	free(tar.bytes);
	free(one.bytes);
	free(two.bytes);
	free(three.bytes);
}

static struct archive sample_gz(void)
{
	struct archive tar = sample("hello"), gz = gzip(tar.bytes, tar.length);
	free(tar.bytes);
	return gz;
}

static void gzip_refused(struct archive *gz, int code, const char *words)
{
	write_file(in_root("bad.gz"), gz->bytes, gz->length);
	free(gz->bytes);
	load_refused(in_root("bad.gz"), code, words);
	cr_assert_eq(count_files("layers", NULL, 0), 0, "something was left in the cache");
}

Test(gzip, refuses_trailing_garbage)
{
	struct archive gz = sample_gz();
	char words[100];
	snprintf(words, sizeof(words), "bad.gz: something that is not gzip follows the compressed data at byte %zu", gz.length);
	archive_append(&gz, "garbage", 7);
	gzip_refused(&gz, -EINVAL, words);
}

Test(gzip, refuses_a_member_behind_padding)
{
	struct archive gz = sample_gz(), more = sample_gz();
	archive_append(&gz, "\0", 1);
	archive_append(&gz, more.bytes, more.length);
	free(more.bytes);
	gzip_refused(&gz, -EINVAL, "something that is not gzip follows");
}

Test(gzip, refuses_truncation_and_names_the_byte)
{
	struct archive gz = sample_gz();
	gz.length -= 9;
	char words[100];
	snprintf(words, sizeof(words), "bad.gz: the gzip data is truncated at byte %zu", gz.length);
	gzip_refused(&gz, -ENODATA, words);
	gz = sample_gz();
	gz.length = 5;
	gzip_refused(&gz, -ENODATA, "truncated at byte 5");
}

Test(gzip, refuses_corruption_and_names_the_byte)
{
	struct archive gz = sample_gz();
	gz.bytes[gz.length - 6] ^= 1; /* the CRC */
	gzip_refused(&gz, -EINVAL, "(incorrect data check)");
	gz = sample_gz();
	gz.bytes[10] |= 6; /* a kind of block that does not exist */
	gzip_refused(&gz, -EINVAL, "the gzip data is corrupt at byte 11 (invalid block type)");
}

Test(gzip, refuses_what_is_no_tar_inside)
{
	struct archive gz = gzip("some text", 9);
	write_file(in_root("bad.gz"), gz.bytes, gz.length);
	free(gz.bytes);
	load_refused(in_root("bad.gz"), -EINVAL, "bad.gz: is no tar archive");
}

Test(layer_file, refuses_what_is_no_file)
{
	char path[64];
	struct error err;
	struct tree_builder *builder = tree_builder_create();
	cr_assert_eq(layers_apply_file(builder, "/nonexistent/app.tar", NULL, &err), -ENOENT);
	cr_assert_str_eq(err.text, "layer /nonexistent/app.tar: there is no such file");
	cr_assert_eq(layers_apply_file(builder, "/dev/null", NULL, &err), -EINVAL);
	cr_assert(strstr(err.text, "layer /dev/null: is neither a regular file nor a directory"));
	cr_assert_eq(layers_apply_file(builder, bytes_path("", 0, path), NULL, &err), -EINVAL);
	cr_assert(strstr(err.text, ": is empty"));
	tree_builder_destroy(builder);
}

Test(layer_file, refuses_what_may_not_be_read)
{
	if (geteuid() == 0)
		cr_skip_test("root may read everything");
	char path[] = "/tmp/trvmm-test-unreadable-XXXXXX";
	struct error err;
	const int fd = mkstemp(path);
	fchmod(fd, 0);
	struct tree_builder *builder = tree_builder_create();
	cr_assert_eq(layers_apply_file(builder, path, NULL, &err), -EACCES);
	cr_assert(strstr(err.text, "Permission denied"));
	tree_builder_destroy(builder);
	unlink(path);
	close(fd);
}

Test(cache, is_made_for_its_user_alone)
{
	snprintf(cache, sizeof(cache), "%s/a/b/cache", root);
	load_holds(write_sample_gz("hello"), "hello");
	struct stat st;
	cr_assert_eq(stat(cache, &st), 0);
	cr_assert_eq(st.st_mode & 07777, 0700);
}

Test(cache, default_place_is_xdgs)
{
	const char *path = write_sample_gz("hello");
	struct tree *tree;
	struct error err = { "" };
	char where[128];
	setenv("XDG_CACHE_HOME", root, 1);
	cr_assert_eq(layers_load(&path, 1, NULL, 0, NULL, &tree, &err), 0, "%s", err.text);
	tree_destroy(tree);
	snprintf(where, sizeof(where), "%s/trvmm/layers", root);
	cr_assert_eq(access(where, F_OK), 0);
	setenv("XDG_CACHE_HOME", "relative/is/ignored", 1);
	setenv("HOME", root, 1);
	cr_assert_eq(layers_load(&path, 1, NULL, 0, NULL, &tree, &err), 0, "%s", err.text);
	tree_destroy(tree);
	snprintf(where, sizeof(where), "%s/.cache/trvmm/layers", root);
	cr_assert_eq(access(where, F_OK), 0);
}

Test(cache, without_a_home_compressed_layers_are_refused_and_others_work)
{
	const char *path = write_sample_gz("hello");
	struct tree *tree;
	struct error err = { "" };
	unsetenv("HOME");
	unsetenv("XDG_CACHE_HOME");
	cr_assert_eq(layers_load(&path, 1, NULL, 0, NULL, &tree, &err), -ENOENT);
	cr_assert(strstr(err.text, "no place for the cache: set HOME or XDG_CACHE_HOME"), "%s", err.text);
	struct archive tar = sample("plain");
	write_file(in_root("layer.tar"), tar.bytes, tar.length);
	free(tar.bytes);
	path = in_root("layer.tar");
	cr_assert_eq(layers_load(&path, 1, NULL, 0, NULL, &tree, &err), 0, "%s", err.text);
	assert_text(tree, "f", "plain");
	tree_destroy(tree);
}

Test(cache, refuses_one_that_is_open_to_others)
{
	cr_assert_eq(mkdir(cache, 0700), 0);
	cr_assert_eq(chmod(cache, 0777), 0);
	load_refused(write_sample_gz("hello"), -EPERM, "belongs to another user or is open to others");
}

Test(cache, second_load_inflates_nothing)
{
	const char *path = write_sample_gz("hello");
	char inflated[256];
	struct stat first, second;
	load_holds(path, "hello");
	count_files("layers", inflated, sizeof(inflated));
	cr_assert_eq(stat(inflated, &first), 0);
	load_holds(path, "hello");
	cr_assert_eq(stat(inflated, &second), 0);
	cr_assert_eq(first.st_ino, second.st_ino);
}

Test(cache, same_contents_under_another_name_are_inflated_once)
{
	char copy[128], command[300];
	load_holds(write_sample_gz("hello"), "hello");
	snprintf(copy, sizeof(copy), "%s/copy", root);
	snprintf(command, sizeof(command), "cp '%s' '%s'", in_root("layer.tar.gz"), copy);
	cr_assert_eq(system(command), 0);
	load_holds(copy, "hello");
	cr_assert_eq(count_files("layers", NULL, 0), 1);
}

Test(cache, digest_is_remembered_only_when_times_can_be_relied_on)
{
	const char *path = write_sample_gz("hello");
	load_holds(path, "hello");
	settle();
	load_holds(path, "hello");
	cr_assert_eq(count_files("digests", NULL, 0), 1);
}

Test(cache, changed_layer_is_noticed)
{
	load_holds(write_sample_gz("hello"), "hello");
	settle();
	load_holds(in_root("layer.tar.gz"), "hello");
	load_holds(write_sample_gz("other"), "other"); /* same size, written into the same inode */
	settle();
	cr_assert_not(load_holds(in_root("layer.tar.gz"), "other"));
	cr_assert(load_holds(in_root("layer.tar.gz"), "other"));
	cr_assert_eq(count_files("layers", NULL, 0), 2);
}

/* Whatever happens to a file of the cache, the layer's bytes come out right. */
static void survives(const char *how, void (*harm)(const char *path))
{
	const char *path = write_sample_gz("hello");
	char inflated[256];
	settle();
	load_holds(path, "hello");
	cr_assert_eq(count_files("layers", inflated, sizeof(inflated)), 1);
	harm(inflated);
	cr_assert_not(load_holds(path, "hello"), "%s was not noticed", how);
	cr_assert(load_holds(path, "hello"));
	cr_assert_eq(count_files("layers", NULL, 0), 1);
}

static void harm_truncate(const char *path)
{
	cr_assert_eq(truncate(path, 4096), 0);
}

static void harm_empty(const char *path)
{
	cr_assert_eq(truncate(path, 0), 0);
}

static void harm_remove(const char *path)
{
	cr_assert_eq(unlink(path), 0);
}

static void harm_write(const char *path)
{
	const int fd = open(path, O_WRONLY);
	cr_assert_eq(pwrite(fd, "EVIL!", 5, 512), 5);
	close(fd);
}

static void harm_append(const char *path)
{
	const int fd = open(path, O_WRONLY | O_APPEND);
	cr_assert_eq(write(fd, "more", 4), 4);
	close(fd);
}

static void harm_foot(const char *path)
{
	struct stat st;
	cr_assert_eq(stat(path, &st), 0);
	damage(path, st.st_size - 20);
}

Test(cache, truncated_entry_is_made_anew)
{
	survives("a truncated file", harm_truncate);
}

Test(cache, empty_entry_is_made_anew)
{
	survives("an empty file", harm_empty);
}

Test(cache, removed_entry_is_made_anew)
{
	survives("a removed file", harm_remove);
}

Test(cache, entry_that_was_written_to_is_made_anew)
{
	survives("a changed file", harm_write);
}

Test(cache, entry_that_grew_is_made_anew)
{
	survives("a longer file", harm_append);
}

Test(cache, entry_with_a_damaged_foot_is_made_anew)
{
	survives("a damaged foot", harm_foot);
}

/* Makes the entry look as if it had been written in another boot of the machine; `lose` bytes at 512 did not reach the disk. */
static void pretend_reboot(const char *path, bool lose)
{
	struct stat st;
	uint8_t foot[112];
	cr_assert_eq(stat(path, &st), 0);
	const int fd = open(path, O_RDWR);
	cr_assert_eq(pread(fd, foot, sizeof(foot), st.st_size - 112), 112);
	foot[88]++; /* boot_id */
	const uint64_t checksum = cache_checksum(0, foot, 104);
	memcpy(foot + 104, &checksum, sizeof(checksum));
	cr_assert_eq(pwrite(fd, foot, sizeof(foot), st.st_size - 112), 112);
	if (lose)
		cr_assert_eq(pwrite(fd, "\0\0\0\0", 4, 512), 4);
	const struct timespec times[2] = { st.st_atim, st.st_mtim };
	cr_assert_eq(futimens(fd, times), 0);
	close(fd);
}

static void after_reboot(bool lose)
{
	const char *path = write_sample_gz("hello");
	char inflated[256];
	struct stat before, after;
	uint8_t foot[112];
	settle();
	load_holds(path, "hello");
	cr_assert_eq(count_files("layers", inflated, sizeof(inflated)), 1);
	pretend_reboot(inflated, lose);
	cr_assert_eq(stat(inflated, &before), 0);
	cr_assert_not(load_holds(path, "hello"));
	cr_assert(load_holds(path, "hello"));
	cr_assert_eq(stat(inflated, &after), 0);
	cr_assert_eq(before.st_ino == after.st_ino, !lose);
	const int fd = open(inflated, O_RDONLY);
	cr_assert_eq(pread(fd, foot, sizeof(foot), after.st_size - 112), 112);
	close(fd);
	if (!lose)
		cr_assert_eq(memcmp(foot + 88, (const char[16]){ 0 }, 16), 0, "it is not marked as being on the disk");
}

Test(cache, entry_of_an_earlier_boot_is_verified_once)
{
	after_reboot(false);
}

Test(cache, entry_that_a_power_failure_harmed_is_made_anew)
{
	after_reboot(true);
}

Test(cache, symbolic_link_in_place_of_an_entry_is_not_followed)
{
	const char *path = write_sample_gz("hello");
	char inflated[256];
	settle();
	load_holds(path, "hello");
	count_files("layers", inflated, sizeof(inflated));
	char moved[128];
	snprintf(moved, sizeof(moved), "%s/moved", root);
	cr_assert_eq(rename(inflated, moved), 0);
	cr_assert_eq(symlink(moved, inflated), 0);
	cr_assert_not(load_holds(path, "hello"));
}

Test(cache, concurrent_loads_of_one_layer)
{
	const char *path = write_sample_gz("hello");
	pid_t children[6];
	for (unsigned i = 0; i < 6; i++) {
		children[i] = fork();
		if (children[i] == 0) {
			struct error err;
			struct tree *tree;
			char *data;
			size_t length;
			if (layers_load(&path, 1, NULL, 0, cache, &tree, &err))
				_exit(1);
			const uint32_t f = tree_lookup(tree, "f", 0);
			if (f == TREE_NONE || tree_read_file(tree, tree->entries[f].inode, 100, &data, &length) ||
			    strcmp(data, "hello"))
				_exit(2);
			_exit(0);
		}
	}
	for (unsigned i = 0; i < 6; i++) {
		int status;
		cr_assert_eq(waitpid(children[i], &status, 0), children[i]);
		cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "%x", (unsigned)status);
	}
	cr_assert_eq(count_files("layers", NULL, 0), 1);
}

Test(cache, layers_of_a_stack_are_inflated_side_by_side)
{
	char paths[8][128], text[8];
	const char *list[8];
	struct error err = { "" };
	struct tree *tree;
	for (unsigned i = 0; i < 8; i++) {
		snprintf(text, sizeof(text), "%u", i);
		snprintf(paths[i], sizeof(paths[i]), "%s/%u", root, i);
		cr_assert_eq(rename(write_sample_gz(text), paths[i]), 0);
		list[i] = paths[i];
	}
	cr_assert_eq(layers_load(list, 8, NULL, 0, cache, &tree, &err), 0, "%s", err.text);
	assert_text(tree, "f", "7");
	tree_destroy(tree);
	cr_assert_eq(count_files("layers", NULL, 0), 8);
}

Test(cache, the_lowest_bad_layer_is_named)
{
	char good[128], bad[128], worse[128];
	struct error err = { "" };
	struct tree *tree = NULL;
	struct archive gz = sample_gz();
	snprintf(good, sizeof(good), "%s/good", root);
	snprintf(bad, sizeof(bad), "%s/bad", root);
	snprintf(worse, sizeof(worse), "%s/worse", root);
	write_file(good, gz.bytes, gz.length);
	write_file(bad, gz.bytes, gz.length - 5);
	write_file(worse, gz.bytes, 20);
	free(gz.bytes);
	const char *const list[] = { good, bad, good, worse };
	cr_assert_eq(layers_load(list, 4, NULL, 0, cache, &tree, &err), -ENODATA);
	cr_assert(strstr(err.text, "/bad: the gzip data is truncated"), "%s", err.text);
}

Test(cache, a_run_that_is_killed_leaves_nothing)
{
	/* Large enough that inflating takes a while. */
	struct archive a = { 0 };
	const size_t length = 64 << 20;
	char *large = malloc(length);
	for (size_t i = 0; i < length; i++)
		large[i] = (char)((i * 2654435761u) >> 13);
	ADD(&a, .name = "f", .type = '0', .text = "hello");
	ADD(&a, .name = "large", .type = '0', .text = large, .text_bytes = length);
	free(large);
	struct archive gz = gzip(a.bytes, a.length);
	write_file(in_root("large.gz"), gz.bytes, gz.length);
	free(a.bytes);
	free(gz.bytes);
	const char *path = in_root("large.gz");
	unsigned killed = 0;
	for (unsigned i = 0; i < 6; i++) {
		const pid_t child = fork();
		if (child == 0) {
			struct error err;
			struct tree *tree;
			_exit(layers_load(&path, 1, NULL, 0, cache, &tree, &err) ? 1 : 0);
		}
		usleep(3000 + 12000 * i);
		kill(child, SIGKILL);
		int status;
		waitpid(child, &status, 0);
		if (!WIFSIGNALED(status))
			break;
		killed++;
		char name[256] = "nothing";
		/* A name without a suffix is a layer that was complete before the end of the run. */
		if (count_files("layers", name, sizeof(name))) {
			const char *slash = strrchr(name, '/');
			cr_assert_eq(strlen(slash ? slash + 1 : name), 64, "%s was left", name);
			break;
		}
	}
	cr_assert(killed > 0);
	load_holds(path, "hello");
}

Test(cache, full_disk_is_said_and_leaves_nothing)
{
	cr_assert_eq(mkdir(cache, 0700), 0);
	if (mount("tmpfs", cache, "tmpfs", 0, "size=128k,mode=0700"))
		cr_skip_test("a small file system cannot be mounted here");
	const char *path = write_sample_gz("hello");
	struct error err = { "" };
	struct tree *tree;
	const int ret = layers_load(&path, 1, NULL, 0, cache, &tree, &err);
	const unsigned left = count_files("layers", NULL, 0);
	umount2(cache, MNT_DETACH);
	cr_assert_eq(ret, -ENOSPC, "%s", err.text);
	cr_assert(strstr(err.text, "no space left in the cache"), "%s", err.text);
	cr_assert(strstr(err.text, "make room or set XDG_CACHE_HOME"), "%s", err.text);
	cr_assert_eq(left, 0);
}

/* Whatever byte of what the cache knows of an entry is damaged: the right bytes come, from it or made anew. */
static void damage_everywhere(const char *directory, size_t last_bytes)
{
	const char *path = write_sample_gz("hello");
	char file[200];
	struct stat st;
	settle();
	load_holds(path, "hello");
	cr_assert_eq(count_files(directory, file, sizeof(file)), 1);
	cr_assert_eq(stat(file, &st), 0);
	const off_t from = (size_t)st.st_size > last_bytes ? st.st_size - (off_t)last_bytes : 0;
	for (off_t at = from; at < st.st_size; at++) {
		char trees[200];
		if (count_files("trees", trees, sizeof(trees)))
			cr_assert_eq(unlink(trees), 0);
		damage(file, at);
		load_holds(path, "hello");
	}
}

Test(cache, every_damaged_byte_of_a_foot_is_noticed)
{
	damage_everywhere("layers", 112);
}

Test(cache, every_damaged_byte_of_a_remembered_digest_is_noticed)
{
	damage_everywhere("digests", 1000);
}

static int load_at_most(const char *path, uint64_t max_bytes, struct error *err)
{
	const struct layers_spec spec = { .paths = &path, .path_count = 1, .cache_dir = cache, .max_layer_bytes = max_bytes };
	struct tree *tree = NULL;
	const int ret = layers_load_spec(&spec, &tree, NULL, err);
	tree_destroy(tree);
	return ret;
}

/* 64 MiB of zeroes in 64 KB. */
Test(cache, bomb_is_stopped_at_the_limit)
{
	struct error err = { "" };
	const size_t length = (size_t)64 << 20;
	char *zeroes = calloc(1, length);
	struct archive tar = { 0 };
	ADD(&tar, .name = "zeroes", .type = '0', .text = zeroes, .text_bytes = length);
	archive_end(&tar);
	struct archive gz = gzip(tar.bytes, tar.length);
	write_file(in_root("bomb.tar.gz"), gz.bytes, gz.length);
	settle();
	cr_assert_eq(load_at_most(in_root("bomb.tar.gz"), (uint64_t)16 << 20, &err), -EFBIG);
	cr_assert(strstr(err.text, "bomb.tar.gz: inflates to more than 16 MiB"), "%s", err.text);
	cr_assert(strstr(err.text, "--max-layer-size"), "%s", err.text);
	cr_assert_eq(count_files("layers", NULL, 0), 0);
	cr_assert_eq(load_at_most(in_root("bomb.tar.gz"), tar.length - 1, &err), -EFBIG);
	cr_assert_eq(load_at_most(in_root("bomb.tar.gz"), tar.length, &err), 0, "%s", err.text);
	/* In the cache or not, it is the same. */
	cr_assert_eq(count_files("layers", NULL, 0), 1);
	cr_assert_eq(unlink(in_root("bomb.tar.gz")), 0);
	write_file(in_root("bomb.tar.gz"), gz.bytes, gz.length);
	cr_assert_eq(load_at_most(in_root("bomb.tar.gz"), (uint64_t)16 << 20, &err), -EFBIG);
	free(zeroes);
	free(tar.bytes);
	free(gz.bytes);
}

/* A file in CACHE/layers of so many bytes that was last used so many days ago. */
static void aged_file(const struct cache *opened, const char *name, size_t bytes, time_t days)
{
	struct cache_file file;
	char *zeroes = calloc(1, bytes);
	cr_assert_eq(cache_create(opened, "layers", name, &file), 0);
	cr_assert_eq(write(file.fd, zeroes, bytes), (ssize_t)bytes);
	free(zeroes);
	const int fd = cache_publish(&file);
	const struct timespec times[2] = { { time(NULL) - days * 86400, 0 }, { 0, 0 } };
	cr_assert_eq(futimens(fd, times), 0);
	close(fd);
}

static bool has(const struct cache *opened, const char *name)
{
	const int fd = cache_open_file(opened, "layers", name);
	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

Test(cache, what_is_not_used_any_more_goes)
{
	struct cache opened;
	cr_assert_eq(cache_open(&opened, cache, NULL), 0);
	aged_file(&opened, "ancient", 4096, 31);
	aged_file(&opened, "older", 65536, 20);
	aged_file(&opened, "old", 65536, 10);
	aged_file(&opened, "new", 65536, 0);
	cache_trim(&opened, "layers", 1 << 20);
	cr_assert(!has(&opened, "ancient") && has(&opened, "older") && has(&opened, "old") && has(&opened, "new"));
	cache_trim(&opened, "layers", 140000);
	cr_assert(!has(&opened, "older") && has(&opened, "old") && has(&opened, "new"));
	cache_trim(&opened, "layers", 0);
	cr_assert(!has(&opened, "old") && has(&opened, "new"), "what was used in the last hour stays");
	cache_close(&opened);
}

Test(cache, use_is_noted)
{
	const char *path = write_sample_gz("hello");
	char inflated[256];
	struct stat st;
	load_holds(path, "hello");
	count_files("layers", inflated, sizeof(inflated));
	const struct timespec times[2] = { { 1000, 0 }, { 0, UTIME_OMIT } };
	cr_assert_eq(utimensat(AT_FDCWD, inflated, times, 0), 0);
	load_holds(path, "hello");
	cr_assert_eq(stat(inflated, &st), 0);
	cr_assert_geq(st.st_atim.tv_sec, time(NULL) - 10);
}

static struct file_identity identity_before(int64_t seconds, int64_t nanoseconds, uint32_t ctime_ns_or_0)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	const int64_t at = now.tv_sec * 1000000000LL + now.tv_nsec - seconds * 1000000000LL - nanoseconds;
	return (struct file_identity){ .ctime_s = at / 1000000000,
				       .ctime_ns = ctime_ns_or_0 ? (uint32_t)(at % 1000000000) | 1 : 0 };
}

Test(identity, is_settled_after_a_tick)
{
	struct file_identity id = identity_before(0, 1000000, 1);
	cr_assert_not(file_identity_is_settled(&id));
	id = identity_before(0, 80000000, 1);
	cr_assert(file_identity_is_settled(&id));
	id = identity_before(0, 500000000, 0); /* whole seconds: a file system with a coarse clock */
	cr_assert_not(file_identity_is_settled(&id));
	id = identity_before(4, 0, 0);
	cr_assert(file_identity_is_settled(&id));
	id = identity_before(-100, 0, 1); /* in the future */
	cr_assert_not(file_identity_is_settled(&id));
}

Test(checksum, notices_every_changed_bit)
{
	uint8_t data[100];
	for (unsigned i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)(i * 7);
	const uint64_t sum = cache_checksum(1, data, sizeof(data));
	cr_assert_neq(sum, cache_checksum(2, data, sizeof(data)));
	cr_assert_neq(sum, cache_checksum(1, data, sizeof(data) - 1));
	for (unsigned bit = 0; bit < 8 * sizeof(data); bit++) {
		data[bit / 8] ^= (uint8_t)(1 << bit % 8);
		cr_assert_neq(sum, cache_checksum(1, data, sizeof(data)), "bit %u", bit);
		data[bit / 8] ^= (uint8_t)(1 << bit % 8);
	}
	cr_assert_eq(sum, cache_checksum(1, data, sizeof(data)));
}
