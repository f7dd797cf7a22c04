/* Trees that a hostile layer or a damaged index file could give: refused, or planned and read without harm. */
#include "tests/unit/ext4_helper.h"

/* Reads what a mount and a walk would, cut to some MiB: all metadata, and the ends of the contents. */
static void read_everything(const struct ext4_plan *plan)
{
	enum { CHUNK = 1 << 20, MOST = 24 };
	static uint8_t buffer[CHUNK];
	uint64_t at = 0, begin, end;
	while (ext4_plan_next_data(plan, at, &begin, &end)) {
		unsigned chunks = 0;
		for (uint64_t offset = begin; offset < end && chunks++ < MOST; offset += CHUNK) {
			const struct iovec iov = { buffer, end - offset < CHUNK ? (size_t)(end - offset) : CHUNK };
			ext4_plan_readv(plan, offset, &iov, 1);
		}
		const uint64_t tail = end - begin < CHUNK ? begin : end - CHUNK;
		const struct iovec iov = { buffer, (size_t)(end - tail) };
		ext4_plan_readv(plan, tail, &iov, 1);
		at = end;
	}
}

static int plan_and_read(const struct tree *tree, struct error *err)
{
	static const struct ext4_options options;
	struct ext4_plan *plan = NULL;
	const int rc = ext4_plan_build(tree, &options, &plan, err);
	if (rc == 0)
		read_everything(plan);
	ext4_plan_destroy(plan);
	return rc;
}

#define REFUSED(name, change)                                                          \
	Test(ext4_hostile, name)                                                       \
	{                                                                              \
		struct hand *h = hand_rich();                                          \
		struct tree *t = &h->tree;                                             \
		uint32_t f = 0; /* a regular file with contents */                     \
		while (!S_ISREG(t->inodes[f].mode) || t->inodes[f].extent_count == 0)  \
			f++;                                                           \
		struct error err = { "" };                                             \
		cr_assert(plan_and_read(t, &err) == 0, "%s", err.text);                \
		change;                                                                \
		cr_assert(plan_and_read(t, &err) == -EINVAL, "%s", err.text);          \
		hand_destroy(h);                                                       \
	}

REFUSED(no_inodes, t->inode_count = 0)
REFUSED(no_entries, t->entry_count = 0)
REFUSED(root_is_a_file, t->inodes[0].mode = S_IFREG)
REFUSED(root_entry_names_no_inode, t->entries[0].inode = t->inode_count)
REFUSED(root_entry_has_a_name, t->entries[0].name_bytes = 5000)
REFUSED(entry_names_no_inode, t->entries[3].inode = t->inode_count)
REFUSED(entry_names_the_root, t->entries[3].inode = 0)
REFUSED(parent_is_no_inode, t->entries[3].parent = t->inode_count)
REFUSED(parent_is_a_file, t->entries[3].parent = f)
REFUSED(empty_name, t->entries[3].name_bytes = 0)
REFUSED(name_too_long, t->entries[3].name_bytes = 256)
REFUSED(name_outside, t->entries[3].name = (uint32_t)t->string_bytes)
REFUSED(directory_with_two_names, t->entries[3].inode = 1)
REFUSED(directory_without_name, t->entries[2].inode = f)
REFUSED(unknown_type, t->inodes[f].mode = 0644)
REFUSED(no_links, t->inodes[f].nlink = 0)
REFUSED(extents_outside, t->inodes[f].first_extent = t->extent_count)
REFUSED(too_many_extents, t->inodes[f].extent_count = UINT32_MAX)
REFUSED(extent_of_no_source, t->extents[0].source = 2)
REFUSED(extent_behind_the_source, t->extents[0].source_offset = PATTERN_BYTES)
REFUSED(extent_overflows_the_source, t->extents[0].source_offset = UINT64_MAX)
REFUSED(extent_behind_the_file, t->extents[0].file_offset = 1)
REFUSED(extent_overflows_the_file, t->extents[0].file_offset = UINT64_MAX)
REFUSED(empty_extent, t->extents[0].length = 0)
REFUSED(extents_overlap, t->extents[t->extent_count - 1].file_offset = 0)

Test(ext4_hostile, names_in_a_circle)
{
	struct hand *h = hand_create();
	const uint32_t d = hand_dir(h, 0, "d");
	for (uint32_t i = 0; i < 3000; i++) {
		char name[16];
		snprintf(name, sizeof(name), "%08u", i);
		hand_file(h, d, name, 0);
	}
	struct error err = { "" };
	for (uint32_t back = 0; back < 3000; back += 500) {
		h->tree.entries[h->tree.entry_count - 1].next_sibling = h->tree.entry_count - 1 - back;
		cr_assert(plan_and_read(&h->tree, &err) == -EINVAL, "%s", err.text);
	}
	hand_destroy(h);
}

/* In a small directory nobody notices before it is read; the block then holds something, and the read ends. */
Test(ext4_hostile, names_in_a_small_circle)
{
	struct hand *h = hand_create();
	for (uint32_t i = 0; i < 20; i++) {
		char name[16];
		snprintf(name, sizeof(name), "%08u", i);
		hand_file(h, 0, name, 0);
	}
	h->tree.entries[20].next_sibling = 1;
	plan_and_read(&h->tree, NULL);
	h->tree.entries[20].next_sibling = UINT32_MAX - 1;
	plan_and_read(&h->tree, NULL);
	h->tree.entries[20].next_sibling = h->tree.entry_count;
	plan_and_read(&h->tree, NULL);
	hand_destroy(h);
}

/* Random damage to every array. Run under sanitizers, this is the test that matters. */
Test(ext4_hostile, random_damage)
{
	struct hand *h = hand_rich();
	hand_many_names(h, "z", 1500, 3);
	for (uint32_t i = 0; i < h->tree.inode_count; i += 3)
		hand_xattr(h, i, "user.some-attribute", "0123456789012345678901234567890123456789012345678901234567890123456789",
			   i);
	hand_trim(h);
	struct tree *t = &h->tree;
	const struct { void *array; size_t bytes; } arrays[] = {
		{ t->entries, t->entry_count * sizeof(*t->entries) }, { t->inodes, t->inode_count * sizeof(*t->inodes) },
		{ t->inodes, t->inode_count * sizeof(*t->inodes) },   { t->extents, t->extent_count * sizeof(*t->extents) },
		{ t->xattrs, t->xattr_count * sizeof(*t->xattrs) },
	};
	uint64_t state = 11;
	unsigned planned = 0;
	for (int round = 0; round < 3000; round++) {
		struct { uint8_t *at, old; } undo[3];
		for (int i = 0; i < 3; i++) {
			const uint64_t which = hand_random(&state) % 5;
			undo[i].at = (uint8_t *)arrays[which].array + hand_random(&state) % arrays[which].bytes;
			undo[i].old = *undo[i].at;
			*undo[i].at =
			    (uint8_t)(hand_random(&state) % 3 ? hand_random(&state) : *undo[i].at ^ 1u << hand_random(&state) % 8);
		}
		planned += plan_and_read(t, NULL) == 0;
		for (int i = 3; i-- > 0;)
			*undo[i].at = undo[i].old;
	}
	/* The damage is often to times, owners and the like: many trees still make a disk. */
	cr_assert(planned > 100);
	hand_destroy(h);
}
