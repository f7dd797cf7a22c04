/* Looking things up in a finished tree, and reading from its sources. */
#include "test_layers_util.h"

#include <errno.h>
#include <sys/uio.h>

static struct tree *sample(void)
{
	struct archive a = { 0 };
	ADD(&a, .name = "usr/bin/sh", .type = '0', .text = "shell");
	ADD(&a, .name = "bin", .type = '2', .link = "usr/bin");
	ADD(&a, .name = "usr/up", .type = '2', .link = "../usr/./bin");
	ADD(&a, .name = "usr/abs", .type = '2', .link = "/usr/bin/sh");
	ADD(&a, .name = "loop", .type = '2', .link = "loop");
	ADD(&a, .name = "dangling", .type = '2', .link = "nowhere");
	return archive_tree(&a);
}

Test(tree_lookup, the_root)
{
	struct tree *tree = sample();
	cr_assert_eq(tree_lookup(tree, "", 1), 0);
	cr_assert_eq(tree_lookup(tree, "/", 1), 0);
	cr_assert_eq(tree_lookup(tree, "..", 1), 0);
	cr_assert_eq(tree_lookup(tree, "usr/../../.", 1), 0);
	tree_destroy(tree);
}

Test(tree_lookup, follows_links)
{
	struct tree *tree = sample();
	const uint32_t sh = tree_lookup(tree, "/usr/bin/sh", 0);
	cr_assert_neq(sh, TREE_NONE);
	static const char *const paths[] = { "bin/sh", "//bin//sh", "usr/up/sh", "bin/../bin/sh", "usr/up/../bin/sh", "usr/abs" };
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		cr_assert_eq(tree_lookup(tree, paths[i], 1), sh, "%s", paths[i]);
	tree_destroy(tree);
}

Test(tree_lookup, leaves_the_last_link_alone_when_told)
{
	struct tree *tree = sample();
	const uint32_t link = tree_lookup(tree, "bin", 0);
	cr_assert(S_ISLNK(tree->inodes[tree->entries[link].inode].mode));
	cr_assert_neq(tree_lookup(tree, "bin", 1), link);
	cr_assert_neq(tree_lookup(tree, "dangling", 0), TREE_NONE);
	tree_destroy(tree);
}

Test(tree_lookup, finds_nothing)
{
	struct tree *tree = sample();
	static const char *const paths[] = { "nothing",  "usr/nothing", "usr/bin/sh/x", "usr/bin/sh/..",
					     "dangling", "loop",        "loop/x",       "us" };
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
		cr_assert_eq(tree_lookup(tree, paths[i], 1), TREE_NONE, "%s", paths[i]);
	tree_destroy(tree);
}

Test(tree_read_file, rejects_what_is_no_file_or_too_large)
{
	struct tree *tree = sample();
	char *data;
	size_t length;
	const uint32_t sh = tree->entries[tree_lookup(tree, "usr/bin/sh", 0)].inode;
	cr_assert_eq(tree_read_file(tree, 0, 100, &data, &length), -EISDIR);
	cr_assert_eq(tree_read_file(tree, tree->entries[tree_lookup(tree, "bin", 0)].inode, 100, &data, &length), -EINVAL);
	cr_assert_eq(tree_read_file(tree, tree->inode_count, 100, &data, &length), -EINVAL);
	cr_assert_eq(tree_read_file(tree, sh, 4, &data, &length), -EFBIG);
	cr_assert_eq(tree_read_file(tree, sh, 5, &data, &length), 0);
	cr_assert(length == 5 && strcmp(data, "shell") == 0);
	free(data);
	tree_destroy(tree);
}

Test(tree_source_readv, file_and_memory)
{
	struct error err;
	struct tree_builder *builder = tree_builder_create();
	struct archive a = { 0 };
	ADD(&a, .name = "f", .type = '0', .text = "0123456789");
	cr_assert_eq(archive_apply(&a, builder, &err), 0);
	cr_assert_eq(tree_builder_add_memory_file(builder, "m", 0644, "memory", 6, &err), 0);
	struct tree *tree = builder_tree(builder);
	char left[4] = "", right[4] = "";
	const struct iovec iov[2] = { { left, 3 }, { right, 3 } };
	cr_assert_eq(tree_source_readv(tree, 0, 512 + 2, iov, 2), 0);
	cr_assert(strcmp(left, "234") == 0 && strcmp(right, "567") == 0);
	cr_assert_eq(tree_source_readv(tree, 1, 0, iov, 2), 0);
	cr_assert(strcmp(left, "mem") == 0 && strcmp(right, "ory") == 0);
	cr_assert_eq(tree_source_readv(tree, 1, 1, iov, 2), -EIO);
	cr_assert_eq(tree_source_readv(tree, 1, UINT64_MAX, iov, 2), -EIO);
	cr_assert_eq(tree_source_readv(tree, 0, 1020, iov, 2), -EIO);
	cr_assert_eq(tree_source_readv(tree, 2, 0, iov, 2), -EINVAL);
	tree_destroy(tree);
}

Test(tree_destroy, nothing)
{
	tree_destroy(NULL);
}
