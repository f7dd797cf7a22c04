/*
 * The merge, in the small language of layer_line.h: a layer is a line of items, and so is the tree that comes out, in breadth-first order.
 * A hard link in a result is the file's text again.
 */
#include "layer_line.h"

#include <errno.h>

static size_t path_of(const struct tree *tree, uint32_t entry, char *out)
{
	const struct tree_entry *e = &tree->entries[entry];
	size_t used = 0;
	for (uint32_t i = 0; e->parent && i < tree->entry_count; i++) {
		if (tree->entries[i].inode == e->parent) {
			used = path_of(tree, i, out);
			out[used++] = '/';
			break;
		}
	}
	memcpy(out + used, tree->strings + e->name, e->name_bytes);
	return used + e->name_bytes;
}

/* The tree as a line; the caller frees it. */
static char *line_of(const struct tree *tree)
{
	char *line = NULL, path[4096];
	size_t bytes;
	FILE *out = open_memstream(&line, &bytes);
	for (uint32_t i = 1; i < tree->entry_count; i++) {
		const struct tree_inode *inode = &tree->inodes[tree->entries[i].inode];
		fprintf(out, "%s%.*s", i == 1 ? "" : " ", (int)path_of(tree, i, path), path);
		if (S_ISDIR(inode->mode)) {
			fprintf(out, "/");
		} else if (S_ISLNK(inode->mode)) {
			fprintf(out, "->%.*s", (int)inode->size_bytes, tree->strings + inode->target);
		} else {
			char *data;
			size_t length;
			cr_assert_eq(tree_read_file(tree, tree->entries[i].inode, 4096, &data, &length), 0);
			fprintf(out, "=%s", data);
			free(data);
		}
		const unsigned usual = S_ISDIR(inode->mode) ? 0755 : S_ISLNK(inode->mode) ? 0777 : 0644;
		if ((inode->mode & 07777) != usual)
			fprintf(out, "@%o", inode->mode & 07777);
	}
	fclose(out);
	return line;
}

static struct tree *merged(const char *const *lines, size_t count)
{
	struct error err = { "" };
	struct tree_builder *builder = tree_builder_create();
	for (size_t i = 0; i < count; i++) {
		struct archive a = archive_of(lines[i]);
		cr_assert_eq(archive_apply(&a, builder, &err), 0, "%s", err.text);
	}
	return builder_tree(builder);
}

static void check_merge(const char *want, const char *const *lines, size_t count)
{
	struct tree *tree = merged(lines, count);
	char *got = line_of(tree);
	cr_assert_str_eq(got, want, "got  '%s'\nwant '%s'", got, want);
	free(got);
	tree_destroy(tree);
}

#define MERGE(want, ...) \
	check_merge(want, (const char *const[]){ __VA_ARGS__ }, sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(char *))

/* The last layer is refused; all below it are good. */
static void check_refused(int code, const char *words, const char *const *lines, size_t count)
{
	struct error err = { "" };
	struct tree_builder *builder = tree_builder_create();
	for (size_t i = 0; i + 1 < count; i++) {
		struct archive a = archive_of(lines[i]);
		cr_assert_eq(archive_apply(&a, builder, &err), 0, "%s", err.text);
	}
	struct archive a = archive_of(lines[count - 1]);
	const int ret = archive_apply(&a, builder, &err);
	cr_assert_eq(ret, code, "returned %d: %s", ret, err.text);
	cr_assert(strstr(err.text, words), "'%s' does not contain '%s'", err.text, words);
	tree_builder_destroy(builder);
}

#define REFUSED(code, words, ...)                                                                                                  \
	check_refused(code, words, (const char *const[]){ __VA_ARGS__ },                                                           \
		      sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(char *))

Test(merge, one_layer)
{
	MERGE("a/ b=1 a/c=2 a/d/ a/d/e=3", "a/ b=1 a/d/ a/c=2 a/d/e=3");
}

Test(merge, siblings_are_sorted_by_bytes_then_length)
{
	MERGE("A=1 a=1 a-b=1 a.b=1 aa=1 b=1", "b=1 aa=1 a=1 A=1 a.b=1 a-b=1");
}

Test(merge, upper_file_replaces_lower_file)
{
	MERGE("a=2", "a=1", "a=2");
}

Test(merge, duplicate_in_a_layer_the_last_wins)
{
	MERGE("a=3 d/@700", "a=1 d/ a=2 d/@700 a=3");
	MERGE("a/", "a=1 a/");
	MERGE("a=1", "a/ a/b=2 a=1");
}

Test(merge, directory_over_directory_takes_attributes_and_keeps_children)
{
	MERGE("d/@1777 d/a=1 d/b=2", "d/@700 d/a=1", "d/@1777 d/b=2");
}

Test(merge, root_takes_attributes)
{
	const char *const lines[] = { "./@700" };
	struct tree *tree = merged(lines, 1);
	cr_assert_eq(tree->inodes[0].mode, S_IFDIR | 0700);
	cr_assert_eq(tree->entry_count, 1);
	tree_destroy(tree);
}

Test(merge, other_types_replace)
{
	MERGE("d=2", "d/ d/a=1 d/b/ d/b/c=1", "d=2");
	MERGE("d->x", "d/ d/a=1", "d->x");
	MERGE("f/ f/a=2", "f=1", "f/ f/a=2");
	MERGE("s=2 t=1", "t=1 s->t", "s=2");
}

Test(merge, directory_that_comes_back_is_empty)
{
	MERGE("d/", "d/ d/a=1", "d=2", "d/");
	MERGE("d/ d/n=2", "d/ d/a=1", "d=2 d/ d/n=2");
}

Test(whiteout, hides_a_lower_file)
{
	MERGE("b=1", "a=1 b=1", ".wh.a=");
	MERGE("d/ d/b=1", "d/ d/a=1 d/b=1", "d/.wh.a=");
}

Test(whiteout, hides_a_lower_directory_with_all_below)
{
	MERGE("", "d/ d/a=1 d/e/ d/e/f=1", ".wh.d=");
}

Test(whiteout, of_nothing_is_no_error)
{
	MERGE("a=1", "a=1", ".wh.b= x/y/.wh.c= a/.wh.d=");
}

Test(whiteout, any_type_of_entry_is_one)
{
	MERGE("", "a=1 b=1", ".wh.a/ .wh.b->x");
}

Test(whiteout, keeps_what_its_own_layer_brings)
{
	MERGE("a=2", "a=1", ".wh.a= a=2");
	MERGE("a=2", "a=1", "a=2 .wh.a=");
	MERGE("a=1", "a=1 .wh.a=");
}

Test(whiteout, leaves_only_the_upper_part_of_a_directory_wherever_it_stands)
{
	MERGE("d/@700 d/n=2", "d/ d/o=1", ".wh.d= d/@700 d/n=2");
	MERGE("d/@700 d/n=2", "d/ d/o=1", "d/@700 .wh.d= d/n=2");
	MERGE("d/@700 d/n=2", "d/ d/o=1", "d/@700 d/n=2 .wh.d=");
}

Test(whiteout, of_a_directory_that_its_layer_does_not_describe)
{
	/* The directory is made anew for what the layer puts in, without the lower one's attributes. */
	MERGE("d/ d/n=2", "d/@700 d/o=1", ".wh.d= d/n=2");
	MERGE("d/ d/n=2", "d/@700 d/o=1", "d/n=2 .wh.d=");
}

Test(whiteout, reaches_below_directories_that_were_merged)
{
	MERGE("d/ d/e/ d/e/n=2", "d/ d/e/ d/e/o=1", ".wh.d= d/ d/e/ d/e/n=2");
	MERGE("d/ d/e/ d/e/n=2", "d/ d/e/ d/e/o=1", "d/ d/e/ d/e/n=2 .wh.d=");
	MERGE("d/ d/e/ d/e/n=2", "d/ d/e/@700 d/e/o=1", "d/e/n=2 .wh.d=");
}

Test(whiteout, is_forgotten_in_the_next_layer)
{
	MERGE("a=3", "a=1", ".wh.a=", "a=3");
	MERGE("d/ d/b=3", "d/ d/a=1", ".wh.d=", "d/ d/b=3");
}

Test(opaque, hides_all_lower_children)
{
	MERGE("d/ d/n=2", "d/ d/a=1 d/e/ d/e/f=1", "d/.wh..wh..opq= d/n=2");
}

Test(opaque, wherever_it_stands)
{
	static const char *const items[] = { "d/.wh..wh..opq=", "d/@750", "d/e/@700", "d/e/n=2", "d/f/n=2" };
	for (unsigned at = 0; at < 5; at++) {
		char line[128] = "";
		for (unsigned i = 1; i < 5; i++) {
			if (i - 1 == at)
				strcat(strcat(line, items[0]), " ");
			strcat(strcat(line, items[i]), " ");
		}
		if (at == 4)
			strcat(line, items[0]);
		MERGE("d/@750 d/e/@700 d/f/ d/e/n=2 d/f/n=2", "d/ d/o=1 d/e/ d/e/o=1 d/f/@711 d/f/o=1", line);
	}
}

Test(opaque, keeps_the_directory_and_its_attributes)
{
	MERGE("d/@700", "d/@700 d/a=1", "d/.wh..wh..opq=");
}

Test(opaque, of_the_root)
{
	MERGE("b=2", "a=1 d/ d/e=1", "b=2 .wh..wh..opq=");
}

Test(opaque, does_not_reach_the_layers_above)
{
	MERGE("d/ d/a=3 d/b=2", "d/ d/a=1 d/c=1", "d/b=2 d/.wh..wh..opq=", "d/a=3");
}

Test(opaque, of_a_directory_that_nobody_brought_makes_none)
{
	MERGE("", "d/.wh..wh..opq=");
	MERGE("d=1", "d=1", "d/.wh..wh..opq=");
	MERGE("d/ d/n=2", "d=1", "d/.wh..wh..opq= d/ d/n=2");
}

Test(opaque, hidden_directory_does_not_come_back_with_its_children)
{
	MERGE("d/ d/e/ d/e/n=3", "d/ d/e/ d/e/o=1", "d/.wh..wh..opq=", "d/e/ d/e/n=3");
	MERGE("d/ d/e/ d/e/n=3", "d/ d/e/ d/e/o=1", "d/.wh..wh..opq=", "d/e/n=3");
}

Test(bookkeeping, of_aufs_is_skipped)
{
	MERGE("a=1", "a=1 .wh..wh.plnk/ .wh..wh.plnk/1.2=x .wh..wh.aufs= d/.wh..wh.orph/");
}

Test(whiteout, refuses_to_name_nothing)
{
	REFUSED(-EINVAL, "entry 1 '.wh.': a whiteout that names nothing", ".wh.=");
	REFUSED(-EINVAL, "a whiteout that names nothing", "d/.wh..=");
	REFUSED(-EINVAL, "a whiteout that names nothing", "d/.wh...=");
}

Test(hard_link, across_layers)
{
	const char *const lines[] = { "d/ d/a=1", "b=>d/a" };
	struct tree *tree = merged(lines, 2);
	cr_assert_eq(tree_at(tree, "b"), tree_at(tree, "d/a"));
	cr_assert_eq(tree_at(tree, "b")->nlink, 2);
	cr_assert_eq(tree->inode_count, 3);
	tree_destroy(tree);
}

Test(hard_link, replacing_one_name_does_not_change_the_other)
{
	MERGE("a=1 b=2", "a=1 b=>a", "b=2");
	MERGE("a=2 b=1", "a=1 b=>a", "a=2");
	MERGE("b=1", "a=1 b=>a", ".wh.a=");
}

Test(hard_link, to_what_stands_there_at_that_moment)
{
	MERGE("a=3 b=2", "a=1", "a=2 b=>a a=3");
}

Test(hard_link, target_path_is_cleaned_and_resolved)
{
	MERGE("b=1 c=1 d/ l->d d/a=1", "d/ d/a=1 l->d b=>./x/../l/a c=>/d/a");
}

Test(hard_link, to_itself)
{
	MERGE("a=1", "a=1 a=>a");
}

Test(hard_link, to_a_symbolic_link_links_the_link)
{
	MERGE("a=1 s->a t->a", "a=1 s->a t=>s");
}

Test(hard_link, replaces_a_directory_that_holds_its_target)
{
	MERGE("d=1", "d/ d/a=1", "d=>d/a");
}

Test(hard_link, refuses_a_missing_target)
{
	REFUSED(-ENOENT, "entry 2 'b': a hard link to 'nothing', which neither this layer nor one below it has brought before",
		"a=1 b=>nothing");
	REFUSED(-ENOENT, "a hard link to 'd/e/f'", "a=1", "b=>d/e/f");
	REFUSED(-ENOENT, "a hard link to 'a'", "a=1", ".wh.a= b=>a");
	REFUSED(-ENOENT, "a hard link to 'd/a'", "d/ d/a=1", "d/.wh..wh..opq= b=>d/a");
	REFUSED(-ENOENT, "a hard link to 'later'", "b=>later later=1");
}

Test(hard_link, refuses_a_directory)
{
	REFUSED(-EINVAL, "a hard link to 'd', which is a directory", "d/ b=>d");
	REFUSED(-EINVAL, "a hard link to '/', which is a directory", "b=>/");
}

Test(parents, missing_ones_are_made)
{
	MERGE("a/ a/b/ a/b/c=1", "a/b/c=1");
}

Test(parents, described_later_take_their_attributes)
{
	MERGE("a/@700 a/b=1", "a/b=1 a/@700");
}

Test(parents, through_a_lower_symbolic_link)
{
	MERGE("bin->usr/bin usr/ usr/bin/ usr/bin/new=2 usr/bin/old=1", "usr/ usr/bin/ usr/bin/old=1 bin->usr/bin", "bin/new=2");
	MERGE("bin->usr/bin usr/ usr/bin/", "usr/ usr/bin/ usr/bin/old=1 bin->usr/bin", "bin/.wh.old=");
}

Test(parents, through_absolute_and_climbing_links)
{
	MERGE("a/ x/ a/l->/x a/m->../../../x x/1=1 x/2=2", "x/ a/ a/l->/x a/m->../../../x", "a/l/1=1 a/m/2=2");
}

Test(parents, through_a_link_to_what_is_missing)
{
	MERGE("lib->usr/lib usr/ usr/lib/ usr/lib/x=1", "lib->usr/lib lib/x=1");
}

Test(parents, resolved_again_when_a_link_changed)
{
	MERGE("a/ b/ l->b a/1=1 b/2=2", "a/ b/ l->a l/1=1 l->b l/2=2");
	MERGE("a/ l/ a/1=1 l/2=2", "a/ l->a l/1=1", ".wh.l= l/2=2");
}

Test(parents, a_directory_over_a_link_replaces_it)
{
	MERGE("a/ l/ a/1=1 l/2=2", "a/ l->a l/1=1", "l/ l/2=2");
}

Test(parents, refuses_a_file)
{
	REFUSED(-ENOTDIR, "entry 2 'a/b': 'a' is no directory", "a=1 a/b=2");
}

Test(parents, refuses_a_circle_of_links)
{
	REFUSED(-ELOOP, "too many symbolic links", "a->b b->a a/x=1");
	REFUSED(-ELOOP, "too many symbolic links", "a->a/a a/x=1");
}

Test(parents, forty_links_are_allowed)
{
	char line[2048] = "";
	for (unsigned i = 0; i < 40; i++)
		snprintf(line + strlen(line), sizeof(line) - strlen(line), "l%u->l%u ", i, i + 1);
	strcat(line, "l40/ l0/x=1");
	struct archive a = archive_of(line);
	struct tree *tree = archive_tree(&a);
	assert_text(tree, "l40/x", "1");
	assert_text(tree, "l0/x", "1");
	tree_destroy(tree);
	memcpy(strstr(line, "l40/ "), "l40->d", 6); /* one more link; what follows it goes */
	REFUSED(-ELOOP, "too many symbolic links", "d/", strcat(line, " l0/y=1"));
}

Test(paths, prefixes_and_doubled_slashes)
{
	MERGE("a/ b=2 a/c=1", "./a/ //a///./c=1 /b=2");
}

Test(paths, dot_dot_is_lexical_and_stops_at_the_root)
{
	MERGE("a=1 b=2 d/ d/c=3", "../../a=1 nothing/../b=2 d/ d/x/y/../../c=3");
}

Test(paths, names_of_any_byte)
{
	MERGE("\x01\x7f\xff/ \x01\x7f\xff/\"'\\\n=1", "\x01\x7f\xff/\"'\\\n=1");
}

Test(paths, name_of_255_bytes)
{
	struct archive a = { 0 };
	char name[257] = "d/";
	memset(name + 2, 'n', 254);
	archive_pax(&a, 'x', "path", name, NULL);
	ADD(&a, .name = "f", .type = '0', .text = "1");
	name[0] = 'n';
	name[1] = 'n';
	name[255] = '\0';
	archive_pax(&a, 'x', "path", name, NULL);
	ADD(&a, .name = "f", .type = '0', .text = "2");
	struct tree *tree = archive_tree(&a);
	assert_text(tree, name, "2");
	tree_destroy(tree);
}

Test(paths, refuses_a_name_of_256_bytes)
{
	struct archive a = { 0 };
	char name[300];
	memset(name, 'n', 256);
	strcpy(name + 256, "/f");
	archive_pax(&a, 'x', "path", name, NULL);
	ADD(&a, .name = "f", .type = '0', .text = "1");
	archive_refused(&a, -ENAMETOOLONG, "has 256 bytes; 255 are allowed");
	name[256] = '\0';
	archive_pax(&a, 'x', "path", name, NULL);
	ADD(&a, .name = "f", .type = '5');
	archive_refused(&a, -ENAMETOOLONG, "has 256 bytes; 255 are allowed");
}

Test(paths, refuses_a_root_that_is_no_directory)
{
	REFUSED(-EINVAL, "the root of a layer must be a directory", "./=x");
	REFUSED(-EINVAL, "the root of a layer must be a directory", "d/..=x");
	REFUSED(-EINVAL, "the root of a layer must be a directory", "a=1 /=>a");
}

Test(links, refuses_targets_that_linux_has_not)
{
	struct archive a = { 0 };
	char target[4097];
	memset(target, 't', 4096);
	target[4095] = '\0';
	archive_pax(&a, 'x', "linkpath", target, NULL);
	ADD(&a, .name = "s", .type = '2');
	struct tree *tree = archive_tree(&a);
	cr_assert_eq(tree_at(tree, "s")->size_bytes, 4095);
	tree_destroy(tree);
	target[4095] = 't';
	target[4096] = '\0';
	archive_pax(&a, 'x', "linkpath", target, NULL);
	ADD(&a, .name = "s", .type = '2');
	archive_refused(&a, -EINVAL, "a symbolic link to a path of 4096 bytes");
	ADD(&a, .name = "s", .type = '2');
	archive_refused(&a, -EINVAL, "a symbolic link to a path of 0 bytes");
}

Test(depth, of_30000_directories_costs_no_stack)
{
	struct archive a = { 0 };
	char *path = malloc(60002);
	for (size_t i = 0; i < 60000; i += 2)
		memcpy(path + i, "d/", 2);
	strcpy(path + 60000, "f");
	archive_pax(&a, 'x', "path", path, NULL);
	ADD(&a, .name = "f", .type = '0', .text = "deep");
	struct tree *tree = archive_tree(&a);
	cr_assert_eq(tree->entry_count, 30002);
	assert_text(tree, path, "deep");
	tree_destroy(tree);
	free(path);
}

Test(links, count_of_directories)
{
	const char *const lines[] = { "d/ d/a/ d/b/ d/c=1 d/a/e/", ".wh.x= d/.wh.b=" };
	struct tree *tree = merged(lines, 2);
	cr_assert_eq(tree_at(tree, "/")->nlink, 3);
	cr_assert_eq(tree_at(tree, "d")->nlink, 3);
	cr_assert_eq(tree_at(tree, "d/a")->nlink, 3);
	cr_assert_eq(tree_at(tree, "d/a/e")->nlink, 2);
	tree_destroy(tree);
}

Test(layers, are_stamped)
{
	const char *const lines[] = { "d/ d/a=1", "d/b=2", "d/a=3" };
	struct tree *tree = merged(lines, 3);
	cr_assert_eq(tree->layer_count, 3);
	cr_assert_eq(tree->entries[tree_lookup(tree, "d", 0)].layer, 0);
	cr_assert_eq(tree->entries[tree_lookup(tree, "d/a", 0)].layer, 2);
	cr_assert_eq(tree->entries[tree_lookup(tree, "d/b", 0)].layer, 1);
	tree_destroy(tree);
}

Test(memory_file, is_placed_on_top)
{
	struct error err = { "" };
	struct tree_builder *builder = tree_builder_create();
	struct archive a = archive_of("a=1 l->d d/");
	cr_assert_eq(archive_apply(&a, builder, &err), 0);
	cr_assert_eq(tree_builder_add_memory_file(builder, "/.trvmm/agent", 0755, "agent", 5, &err), 0);
	cr_assert_eq(tree_builder_add_memory_file(builder, "l/empty", 0600, NULL, 0, &err), 0);
	cr_assert_eq(tree_builder_add_memory_file(builder, "a", 0644, "new", 3, &err), 0);
	cr_assert_eq(tree_builder_add_memory_file(builder, "a/b", 0644, "new", 3, &err), -ENOTDIR);
	cr_assert_str_eq(err.text, "a/b: 'a' is no directory");
	struct tree *tree = builder_tree(builder);
	char *line = line_of(tree);
	cr_assert_str_eq(line, ".trvmm/ a=new d/ l->d .trvmm/agent=agent@755 d/empty=@600");
	free(line);
	tree_destroy(tree);
}
