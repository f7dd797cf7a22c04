/*
 * From two disks to a layer and back: random trees, generated as disks, read by the reader, compared, and the layer applied on top of the
 * first tree, by trvmm's own merge and by umoci. What comes out must be the second disk's tree in every attribute.
 */
#include "test_layers_util.h"

#include <sys/stat.h>

#include "layers/diff.h"
#include "tests/unit/ext4_read_helper.h"

/* ---- random trees ------------------------------------------------------------------------------------------------------------ */

/* What stands at a path is a matter of the path and a seed, so that two trees with nearly the same seeds are nearly the same. */
struct chance {
	uint64_t seed, other_seed; /* the other is asked for some paths */
	unsigned percent;
};

static uint64_t ask(const struct chance *chance, const char *path)
{
	uint64_t state = chance->seed, other = chance->other_seed;
	for (const char *c = path; *c; c++)
		state = state * 31 + (unsigned char)*c, other = other * 37 + (unsigned char)*c;
	return hand_random(&other) % 100 < chance->percent ? hand_random(&other) : hand_random(&state);
}

struct making_tree {
	struct chance chance;
	struct archive archive;
	char files[64][64]; /* paths so far that a hard link can lead to */
	unsigned file_count;
};

static void add_file(struct making_tree *m, const char *path, uint64_t draw, const char *mode, const char *time)
{
	static const size_t sizes[] = { 0, 1, 511, 4096, 5000, 20000 };
	const size_t size = sizes[draw / 7 % 6];
	char *text = malloc(size + 1);
	memset(text, 'a' + (int)(draw / 64 % 3), size + 1);
	if (draw / 128 % 4 == 0)
		archive_pax(&m->archive, 'x', "SCHILY.xattr.user.a", draw / 512 % 2 ? "one" : "another", "SCHILY.xattr.user.b", "x",
			    NULL);
	if (size)
		ADD(&m->archive, .name = path, .type = '0', .text = text, .text_bytes = size, .mode = mode, .mtime = time,
		    .uid = draw / 1024 % 2 ? "0000144" : NULL);
	else
		ADD(&m->archive, .name = path, .type = '0', .mode = mode, .mtime = time);
	free(text);
	if (m->file_count < 64)
		snprintf(m->files[m->file_count++], sizeof(m->files[0]), "%s", path);
}

static void add_names(struct making_tree *m, const char *parent, unsigned depth)
{
	static const char *const names[] = { "a", "b", "c", "d e", "f" };
	static const char *const modes[] = { "0000755", "0000644", "0004711", "0000600" };
	static const char *const times[] = { "00000000007", "14000000000", "00000000000" };
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		char path[60];
		snprintf(path, sizeof(path), "%s%s", parent, names[i]);
		const uint64_t draw = ask(&m->chance, path);
		const char *mode = modes[draw / 16 % 4], *time = times[draw / 4 % 3];
		const unsigned kind = draw % 16;
		if (kind < 3)
			continue;
		if (kind < 7 && depth < 3) {
			ADD(&m->archive, .name = path, .type = '5', .mode = mode, .mtime = time);
			strcat(path, "/");
			add_names(m, path, depth + 1);
		} else if (kind == 7) {
			ADD(&m->archive, .name = path, .type = '2', .link = draw / 64 % 2 ? "a" : "b", .mode = "0000777",
			    .mtime = time);
		} else if (kind == 8) {
			ADD(&m->archive, .name = path, .type = draw / 64 % 2 ? '3' : '6', .mode = mode, .mtime = time, .major = 1,
			    .minor = 3);
		} else if (kind < 12 && m->file_count) {
			ADD(&m->archive, .name = path, .type = '1', .link = m->files[draw / 64 % m->file_count]);
		} else {
			add_file(m, path, draw, mode, time);
		}
	}
}

static struct archive random_layer(uint64_t seed, uint64_t other_seed, unsigned percent)
{
	struct making_tree m = { .chance = { seed, other_seed, percent } };
	ADD(&m.archive, .name = "./", .type = '5', .mode = other_seed % 4 ? "0000755" : "0001777");
	add_names(&m, "", 0);
	archive_end(&m.archive);
	return m.archive;
}

/* ---- disks ------------------------------------------------------------------------------------------------------------------- */

struct side_of_test {
	int fd; /* the layer */
	struct tree *tree;
	struct ext4_plan *plan;
	struct opened disk;
};

static void make_side(struct side_of_test *side, struct archive *layer)
{
	side->fd = memfd_create("layer", MFD_CLOEXEC);
	cr_assert_eq(write(side->fd, layer->bytes, layer->length), (ssize_t)layer->length);
	side->tree = archive_tree(layer);
	side->plan = plan_or_fail(side->tree, NULL);
	open_plan(&side->disk, side->plan);
	cr_assert_eq(side->disk.complaints.count, 0, "%s", side->disk.complaints.first.text);
}

static void free_side(struct side_of_test *side)
{
	opened_close(&side->disk);
	ext4_plan_destroy(side->plan);
	tree_destroy(side->tree);
	close(side->fd);
}

static int make_diff(struct side_of_test *base, struct side_of_test *changed)
{
	static const char *const ignored[] = { "lost+found", NULL };
	const struct diff_options options = { .ignored = ignored };
	const struct diff_side a = { base->disk.tree, opened_read, &base->disk },
			       b = { changed->disk.tree, opened_read, &changed->disk };
	struct diff_result result;
	struct error err = { "" };
	const int fd = memfd_create("diff", MFD_CLOEXEC);
	cr_assert_eq(diff_write(&a, &b, &options, fd, &result, &err), 0, "%s", err.text);
	cr_assert_eq(result.complaints.count, 0, "%s", result.complaints.first.text);
	return fd;
}

static struct tree *tree_of_layers(const int *fds, size_t count)
{
	struct error err = { "" };
	char path[64];
	struct tree_builder *builder = tree_builder_create();
	for (size_t i = 0; i < count; i++) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fds[i]);
		cr_assert_eq(layers_apply_file(builder, path, NULL, &err), 0, "%s", err.text);
	}
	return builder_tree(builder);
}

static void check_same(struct opened *disk, struct tree *tree, uint64_t seed)
{
	char why[5000];
	const struct tree_side left = opened_side(disk), right = { tree, tree_side_read, tree, 1 };
	cr_assert(trees_are_same(&left, &right, "/lost+found/", why, sizeof(why)), "seed %llu: %s", (unsigned long long)seed, why);
}

Test(ext4_diff, random_trees)
{
	size_t changes = 0;
	for (uint64_t seed = 1; seed <= 300; seed++) {
		struct side_of_test base, changed;
		struct archive first = random_layer(seed, 0, 0), second = random_layer(seed, seed * 7, (unsigned)(seed % 50));
		make_side(&base, &first);
		make_side(&changed, &second);
		const int fds[] = { base.fd, make_diff(&base, &changed) };
		changes += lseek(fds[1], 0, SEEK_END) > 1024;
		struct tree *again = tree_of_layers(fds, 2);
		check_same(&changed.disk, again, seed);
		tree_destroy(again);
		close(fds[1]);
		free_side(&base);
		free_side(&changed);
	}
	cr_assert(changes > 250, "only %zu of the trees changed", changes);
}

/* ---- umoci ------------------------------------------------------------------------------------------------------------------- */

static void save(int fd, const char *folder, const char *name)
{
	char out[1000];
	cr_assert_eq(run(out, sizeof(out), "cat </proc/%d/fd/%d >%s/%s 2>&1", (int)getpid(), fd, folder, name), 0, "%s", out);
}

/* umoci unpacks both layers, GNU tar packs what is there then, and that is the changed tree. */
static void check_umoci(uint64_t seed)
{
	struct side_of_test base, changed;
	struct archive first = random_layer(seed, 0, 0), second = random_layer(seed, seed * 7, 30);
	make_side(&base, &first);
	make_side(&changed, &second);
	const int fd = make_diff(&base, &changed);
	char folder[256], out[4000];
	snprintf(folder, sizeof(folder), "%s", scratch("umoci"));
	cr_assert_eq(run(out, sizeof(out), "rm -rf %s; mkdir %s", folder, folder), 0);
	save(base.fd, folder, "base.tar");
	save(fd, folder, "diff.tar");
	const int status =
	    run(out, sizeof(out),
		"exec 2>&1; set -e; cd %s; umoci init --layout i; umoci new --image i:x; umoci raw add-layer --image i:x base.tar; "
		"umoci raw add-layer --image i:x diff.tar; umoci unpack --image i:x bundle; "
		"tar -C bundle/rootfs --format=pax --xattrs --xattrs-include='*' -cf out.tar .",
		folder);
	cr_assert_eq(status, 0, "seed %llu: %s", (unsigned long long)seed, out);
	char path[300];
	snprintf(path, sizeof(path), "%s/out.tar", folder);
	const int unpacked = open(path, O_RDONLY | O_CLOEXEC);
	struct tree *again = tree_of_layers(&unpacked, 1);
	check_same(&changed.disk, again, seed);
	tree_destroy(again);
	close(unpacked);
	close(fd);
	free_side(&base);
	free_side(&changed);
	run(out, sizeof(out), "rm -rf %s", folder);
}

Test(ext4_diff, umoci_makes_the_same_of_it)
{
	if (geteuid() != 0)
		cr_skip_test("only root can unpack owners and devices");
	for (uint64_t seed = 1000; seed < 1012; seed++)
		check_umoci(seed);
}
