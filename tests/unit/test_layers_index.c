/* Merged trees in the cache: found again only when everything is the same, and never trusted. */
#include "test_layers_cache_util.h"

#include "layers/index_internal.h"

TestSuite(index, .init = set_up, .fini = tear_down);

static void assert_same_tree(const struct tree *a, const struct tree *b)
{
	cr_assert(a->checksum && a->checksum == b->checksum);
	cr_assert(a->entry_count == b->entry_count && a->inode_count == b->inode_count && a->extent_count == b->extent_count &&
		  a->xattr_count == b->xattr_count && a->string_bytes == b->string_bytes && a->source_count == b->source_count &&
		  a->layer_count == b->layer_count);
	cr_assert_eq(memcmp(a->entries, b->entries, a->entry_count * sizeof(*a->entries)), 0);
	cr_assert_eq(memcmp(a->inodes, b->inodes, a->inode_count * sizeof(*a->inodes)), 0);
	cr_assert_eq(memcmp(a->extents, b->extents, a->extent_count * sizeof(*a->extents)), 0);
	cr_assert_eq(memcmp(a->strings, b->strings, a->string_bytes), 0);
	for (uint32_t i = 0; i < a->source_count; i++) {
		cr_assert_str_eq(a->sources[i].name, b->sources[i].name);
		cr_assert_eq(a->sources[i].size_bytes, b->sources[i].size_bytes);
	}
}

Test(index, second_load_is_mapped_and_the_same)
{
	char plain[128], gz[128];
	snprintf(plain, sizeof(plain), "%s", write_sample_tar("layer.tar", "plain"));
	snprintf(gz, sizeof(gz), "%s", write_sample_gz("hello"));
	settle();
	const char *const paths[] = { plain, gz };
	const struct layers_memory_file files[] = { { "/.trvmm/agent", 0755, "agent", 5 }, { "/x", 0600, "", 0 } };
	struct error err = { "" };
	struct tree *first, *second;
	cr_assert_eq(layers_load(paths, 2, files, 2, cache, &first, &err), 0, "%s", err.text);
	cr_assert_eq(layers_load(paths, 2, files, 2, cache, &second, &err), 0, "%s", err.text);
	cr_assert_eq(first->map, first->inodes);
	cr_assert_neq(second->map, second->inodes);
	assert_same_tree(first, second);
	assert_text(second, "f", "hello");
	assert_text(second, ".trvmm/agent", "agent");
	assert_text(second, "x", "");
	tree_destroy(first);
	tree_destroy(second);
}

static uint64_t checksum_of(const char *mtime, const char *name, const char *before)
{
	struct archive archive = { NULL, 0 };
	if (before) /* replaced: all that it leaves is that the contents lie further back */
		archive_add(&archive, &(struct item){ .name = name, .text = before });
	archive_add(&archive, &(struct item){ .name = name, .text = "contents", .mtime = mtime });
	archive_end(&archive);
	struct tree *tree = archive_tree(&archive);
	const uint64_t checksum = tree->checksum;
	tree_destroy(tree);
	return checksum;
}

Test(index, checksum_is_of_names_and_attributes_and_not_of_where_contents_lie)
{
	const uint64_t one = checksum_of("14000000000", "name", NULL);
	cr_assert_eq(one, checksum_of("14000000000", "name", NULL));
	cr_assert_eq(one, checksum_of("14000000000", "name", "what was there before"));
	cr_assert_neq(one, checksum_of("14000000001", "name", NULL));
	cr_assert_neq(one, checksum_of("14000000000", "mane", NULL));
}

Test(index, depends_on_the_layers_their_order_and_the_files)
{
	char one[128], two[128];
	snprintf(one, sizeof(one), "%s", write_sample_tar("one.tar", "1"));
	snprintf(two, sizeof(two), "%s", write_sample_tar("two.tar", "2"));
	const char *const up[] = { one, two }, *const down[] = { two, one };
	const struct layers_memory_file file = { "/m", 0644, "data", 4 }, longer = { "/m", 0644, "data!", 5 },
					other_mode = { "/m", 0600, "data", 4 }, elsewhere = { "/n", 0644, "data", 4 },
					other_data = { "/m", 0644, "DATA", 4 };
	const struct {
		const char *const *paths;
		size_t count;
		const struct layers_memory_file *file;
	} stacks[] = { { up, 2, NULL },    { down, 2, NULL },      { up, 1, NULL },      { up, 2, &file },
		       { up, 2, &longer }, { up, 2, &other_mode }, { up, 2, &elsewhere } };
	struct error err = { "" };
	struct tree *tree;
	for (size_t i = 0; i < sizeof(stacks) / sizeof(stacks[0]); i++) {
		cr_assert_eq(
		    layers_load(stacks[i].paths, stacks[i].count, stacks[i].file, stacks[i].file != NULL, cache, &tree, &err), 0);
		cr_assert_eq(tree->map, tree->inodes, "stack %zu was found in the cache", i);
		tree_destroy(tree);
	}
	cr_assert_eq(layers_load(up, 2, &other_data, 1, cache, &tree, &err), 0);
	cr_assert_neq(tree->map, tree->inodes);
	assert_text(tree, "m", "DATA");
	tree_destroy(tree);
}

Test(index, layer_that_was_touched_is_read_again)
{
	const char *path = write_sample_tar("layer.tar", "first");
	cr_assert_not(load_holds(path, "first"));
	cr_assert(load_holds(path, "first"));
	write_sample_tar("layer.tar", "other");
	cr_assert_not(load_holds(path, "other"));
	cr_assert(load_holds(path, "other"));
}

Test(index, layer_of_a_moment_ago_is_not_remembered)
{
	struct archive tar = sample("new");
	write_file(in_root("layer.tar"), tar.bytes, tar.length);
	free(tar.bytes);
	load_holds(in_root("layer.tar"), "new");
	cr_assert_eq(count_files("trees", NULL, 0), 0);
}

Test(index, every_damaged_byte_is_noticed)
{
	struct archive a = { 0 };
	ADD(&a, .name = "d/f", .type = '0', .text = "first");
	ADD(&a, .name = "s", .type = '2', .link = "d");
	char path[64], index[256];
	bytes_path(a.bytes, a.length, path);
	free(a.bytes);
	settle();
	tree_destroy(load(path));
	cr_assert_eq(count_files("trees", index, sizeof(index)), 1);
	struct stat st;
	cr_assert_eq(stat(index, &st), 0);
	for (off_t i = 0; i < st.st_size; i++) {
		damage(index, i);
		struct tree *tree = load(path); /* which also makes it anew */
		cr_assert_eq(tree->map, tree->inodes, "byte %lld", (long long)i);
		tree_destroy(tree);
	}
	for (off_t i = 0; i < st.st_size; i += 7) {
		cr_assert_eq(truncate(index, i), 0);
		struct tree *tree = load(path);
		cr_assert_eq(tree->map, tree->inodes);
		tree_destroy(tree);
	}
}

Test(index, unwritable_cache_is_no_error_for_plain_layers)
{
	const char *path = write_sample_tar("layer.tar", "plain");
	cr_assert_eq(mkdir(cache, 0500), 0);
	char in_the_way[128];
	snprintf(in_the_way, sizeof(in_the_way), "%s/trees", cache);
	write_file(in_the_way, "", 0); /* root may write into any directory, but nobody into a file as if it were one */
	cr_assert_not(load_holds(path, "plain"));
	cr_assert_not(load_holds(path, "plain"));
}

Test(index, missing_and_bad_layers_are_named)
{
	load_refused("/nonexistent/app.tar", -ENOENT, "layer /nonexistent/app.tar: there is no such file");
	write_file(in_root("bad.tar"), "text", 4);
	load_refused(in_root("bad.tar"), -EINVAL, "bad.tar: is no tar archive");
}

/* A tree for index_check(), copied so that it can be harmed. */
static struct tree *harmable(void)
{
	struct archive a = { 0 };
	archive_pax(&a, 'x', "SCHILY.xattr.user.a", "value", NULL);
	ADD(&a, .name = "d/f", .type = '0', .text = "contents");
	ADD(&a, .name = "d/e/", .type = '5');
	ADD(&a, .name = "s", .type = '2', .link = "d");
	ADD(&a, .name = "t", .type = '1', .link = "d/f");
	archive_pax(&a, 'x', "GNU.sparse.size", "100", "GNU.sparse.map", "10,3,50,4", NULL);
	ADD(&a, .name = "u", .type = '0', .text = "abcdefg");
	return archive_tree(&a);
}

/* Every field of every structure with numbers that lead elsewhere: refused, or harmless to whoever reads all of the tree. */
static void read_everything(const struct tree *tree)
{
	volatile uint64_t sum = 0;
	for (uint32_t i = 0; i < tree->entry_count; i++) {
		const struct tree_entry *e = &tree->entries[i];
		for (uint32_t c = 0; c < e->name_bytes; c++)
			sum += (uint8_t)tree->strings[e->name + c];
		const struct tree_inode *inode = &tree->inodes[e->inode];
		sum += tree->inodes[e->parent].mode;
		if (S_ISDIR(inode->mode)) {
			for (uint32_t c = inode->first_child; c != TREE_NONE; c = tree->entries[c].next_sibling)
				sum++;
		} else if (S_ISLNK(inode->mode)) {
			for (uint64_t c = 0; c < inode->size_bytes; c++)
				sum += (uint8_t)tree->strings[inode->target + c];
		} else if (S_ISREG(inode->mode)) {
			char *data;
			size_t length;
			if (tree_read_file(tree, e->inode, 1 << 16, &data, &length) == 0)
				free(data);
		}
		for (uint32_t x = 0; x < inode->xattr_count; x++) {
			const struct tree_xattr *xattr = &tree->xattrs[inode->first_xattr + x];
			for (uint32_t c = 0; c < xattr->value_bytes; c++)
				sum += (uint8_t)tree->strings[xattr->value + c];
			for (uint32_t c = 0; c < xattr->name_bytes; c++)
				sum += (uint8_t)tree->strings[xattr->name + c];
		}
	}
}

Test(index_check, accepts_what_the_builder_makes)
{
	struct tree *tree = harmable();
	cr_assert_eq(index_check(tree), 0);
	tree_destroy(tree);
}

Test(index_check, no_number_leads_out_of_the_arrays)
{
	static const uint32_t evil[] = { 0,         1,   2,   3,   4,    5,     6,       7,         8,
					 9,         100, 255, 256, 4096, 65535, 1 << 20, INT32_MAX, UINT32_MAX - 1,
					 UINT32_MAX };
	struct tree *tree = harmable();
	uint8_t *arrays = tree->map;
	unsigned refused = 0, accepted = 0;
	/* The strings end the map; a guard behind them is as good as the sanitizer's. */
	for (size_t at = 0; at + 4 <= tree->map_bytes - tree->string_bytes; at += 4) {
		uint32_t kept;
		memcpy(&kept, arrays + at, 4);
		for (size_t i = 0; i < sizeof(evil) / sizeof(evil[0]); i++) {
			memcpy(arrays + at, &evil[i], 4);
			if (index_check(tree)) {
				refused++;
			} else {
				accepted++;
				read_everything(tree);
			}
		}
		memcpy(arrays + at, &kept, 4);
	}
	cr_assert_eq(index_check(tree), 0);
	cr_assert(refused > accepted, "%u refused, %u accepted", refused, accepted);
	tree_destroy(tree);
}

#define HARM(name, change)                                                  \
	Test(index_check, name)                                             \
	{                                                                   \
		struct tree *tree = harmable();                             \
		const uint32_t d = tree_lookup(tree, "d", 0);               \
		const uint32_t e = tree_lookup(tree, "d/e", 0);             \
		struct tree_inode *u = &tree->inodes[tree->entries[tree_lookup(tree, "u", 0)].inode]; \
		(void)d, (void)e, (void)u;                                  \
		change;                                                     \
		cr_assert_eq(index_check(tree), -EBADMSG);                  \
		tree_destroy(tree);                                         \
	}

HARM(refuses_a_circle_of_siblings, tree->entries[d].next_sibling = d)
HARM(refuses_a_circle_of_directories, tree->inodes[tree->entries[e].inode].first_child = d)
HARM(refuses_a_directory_with_two_names, tree->entries[e].inode = tree->entries[d].inode)
HARM(refuses_an_entry_that_is_nobodys_child, tree->inodes[tree->entries[d].inode].first_child = TREE_NONE)
HARM(refuses_a_wrong_parent, tree->entries[e].parent = 0)
HARM(refuses_wrong_link_counts, tree->inodes[0].nlink++)
HARM(refuses_a_root_that_is_no_directory, tree->inodes[0].mode = S_IFREG)
HARM(refuses_a_name_outside_the_strings, tree->entries[d].name = (uint32_t)tree->string_bytes)
HARM(refuses_an_empty_name, tree->entries[d].name_bytes = 0)
HARM(refuses_an_extent_beyond_the_file, tree->extents[u->first_extent + 1].length = 51)
HARM(refuses_extents_that_overlap, tree->extents[u->first_extent + 1].file_offset = 12)
HARM(refuses_an_extent_beyond_the_source, tree->extents[u->first_extent].source_offset = tree->sources[0].size_bytes - 1)
HARM(refuses_an_unknown_source, tree->extents[u->first_extent].source = 1)
HARM(refuses_extents_outside_the_array, u->extent_count = tree->extent_count)
HARM(refuses_xattrs_outside_the_array, u->xattr_count = 2)
HARM(refuses_nanoseconds_of_a_second, u->mtime_ns = 1000000000)
HARM(refuses_an_unknown_type, u->mode = 0)
HARM(refuses_an_empty_tree, tree->entry_count = 0)
