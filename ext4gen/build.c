/*
 * Planning: from the tree to flat arrays, in one pass over the names and one over the inodes.
 *
 * The tree comes from layers that may be hostile, or from an index file that may be damaged. Everything that the readers later
 * use as an index or a length is checked here, so that a bad tree gives an error, or at worst a file system that the guest
 * finds odd. The sums of what inodes claim are checked as well: memory and time stay in proportion to the tree's arrays.
 *
 * Every command waits for this, so the common case (a file of one extent, a name in a small directory) takes few instructions.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "ext4gen/plan_internal.h"

/* The last block of a file must be countable in 32 bits, and Linux keeps one number free. */
#define FILE_MAX_BYTES ((uint64_t)UINT32_MAX * EXT4_BLOCK_BYTES)

/* The longest symbolic link that Linux reads. */
#define SYMLINK_MAX_BYTES (EXT4_BLOCK_BYTES - 1)

/* The arrays while they grow; the plan gets them at the end. */
struct builder {
	struct ext4_plan *plan;
	const struct tree *tree;
	struct error *err;
	struct plan_run *runs;       /* owned */
	struct plan_batch *batches;  /* owned; has room for the batches of run_room runs */
	struct plan_object *objects; /* owned */
	uint32_t *name_bytes;        /* owned, a mapping: for each inode what the entries of the names below it take */
	uint32_t run_count, run_room;
	uint32_t object_count, object_room;
	uint64_t content_blocks, object_blocks; /* checked against 32 bits once for each inode */
	uint32_t extents_left, xattrs_left;     /* of the tree's, for the inodes to come */
};

static int damaged(const struct builder *b, const char *what, uint32_t number)
{
	return error_set(b->err, -EINVAL, "file system: the tree is damaged: %s %u", what, number);
}

/* Says why something in the layers cannot be stored, with the file's path in front. */
static int refuse(const struct builder *b, int code, uint32_t inode, const char *why)
{
	char path[256];
	return error_set(b->err, code, "file system: '%s': %s", plan_inode_path(b->tree, inode, path, sizeof(path)), why);
}

/* Makes room for half as many elements again. */
static int grow(void **array, uint32_t *room, size_t element_bytes)
{
	const uint64_t larger = (uint64_t)*room + *room / 2 + 16;
	void *moved = larger > UINT32_MAX ? NULL : realloc(*array, larger * element_bytes);
	if (!moved)
		return -ENOMEM;
	*array = moved;
	*room = (uint32_t)larger;
	return 0;
}

static int add_object(struct builder *b, uint32_t inode, uint64_t blocks)
{
	if (b->object_count == b->object_room) {
		void *objects = b->objects;
		if (grow(&objects, &b->object_room, sizeof(*b->objects)))
			return -ENOMEM;
		b->objects = objects;
	}
	b->objects[b->object_count++] = (struct plan_object){ (uint32_t)b->object_blocks, inode };
	b->object_blocks += blocks;
	return 0;
}

static size_t batches_bytes(uint32_t run_count)
{
	return ((size_t)run_count + RUNS_PER_BATCH - 1) / RUNS_PER_BATCH * sizeof(struct plan_batch);
}

static int grow_runs(struct builder *b)
{
	void *runs = b->runs;
	const int rc = grow(&runs, &b->run_room, sizeof(*b->runs));
	b->runs = runs;
	void *batches = rc ? NULL : realloc(b->batches, batches_bytes(b->run_room));
	if (batches)
		b->batches = batches;
	return batches ? 0 : -ENOMEM;
}

/* A run of any kind. */
static int add_run(struct builder *b, uint32_t inode, uint64_t logical, uint64_t blocks)
{
	if (b->run_count == b->run_room && grow_runs(b))
		return -ENOMEM;
	struct plan_batch *batch = &b->batches[b->run_count / RUNS_PER_BATCH];
	if (b->run_count % RUNS_PER_BATCH == 0)
		batch->block = (uint32_t)b->content_blocks;
	batch->extent = TREE_NONE;
	b->runs[b->run_count++] = (struct plan_run){ (uint32_t)b->content_blocks, (uint32_t)logical, inode };
	b->content_blocks += blocks;
	return 0;
}

/* Adds blocks [begin, end) of a file, in pieces that one extent can take. */
static int add_runs(struct builder *b, uint32_t inode, uint64_t begin, uint64_t end)
{
	int rc = 0;
	for (; end - begin > EXT4_EXTENT_MAX_BLOCKS && rc == 0; begin += EXT4_EXTENT_MAX_BLOCKS)
		rc = add_run(b, inode, begin, EXT4_EXTENT_MAX_BLOCKS);
	return rc || begin == end ? rc : add_run(b, inode, begin, end - begin);
}

/* Whether the extent lies inside its file, at or behind `file_end`, and inside its source. */
static bool extent_is_sane(const struct tree *tree, uint64_t file_bytes, const struct tree_extent *extent, uint64_t file_end)
{
	if (extent->source >= tree->source_count)
		return false;
	const uint64_t source_bytes = tree->sources[extent->source].size_bytes;
	return extent->length > 0 && extent->file_offset >= file_end && extent->file_offset <= file_bytes &&
	       extent->length <= file_bytes - extent->file_offset && extent->source_offset <= source_bytes &&
	       extent->length <= source_bytes - extent->source_offset;
}

/*
 * A file's runs: maximal ranges of blocks that extents touch. Extents that meet in a block or at a block's border are one run,
 * wherever their bytes come from.
 */
static int plan_file(struct builder *b, const struct tree_inode *from, uint32_t inode, uint64_t *own_blocks)
{
	const uint64_t file_bytes = from->size_bytes;
	const uint32_t count = from->extent_count;
	if (file_bytes > FILE_MAX_BYTES)
		return refuse(b, -EFBIG, inode, "the file is larger than ext4 allows (16 TiB)");
	if (count > b->extents_left || (count && from->first_extent > b->tree->extent_count - count))
		return damaged(b, "the extents of inode", inode);
	b->extents_left -= count;

	const uint32_t first_run = b->run_count;
	const struct tree_extent *extent = b->tree->extents + (count ? from->first_extent : 0);
	uint64_t begin = 0, end = 0, file_end = 0;
	for (uint32_t i = 0; i < count; i++, extent++) {
		if (!extent_is_sane(b->tree, file_bytes, extent, file_end))
			return damaged(b, "extent", from->first_extent + i);
		file_end = extent->file_offset + extent->length;
		const uint64_t first = extent->file_offset / EXT4_BLOCK_BYTES;
		if (first > end) {
			if (add_runs(b, inode, begin, end))
				return -ENOMEM;
			begin = first;
		}
		end = (file_end + EXT4_BLOCK_BYTES - 1) / EXT4_BLOCK_BYTES;
	}
	if (add_runs(b, inode, begin, end))
		return -ENOMEM;
	const uint32_t run_count = b->run_count - first_run;
	b->plan->inodes[inode].first_run = first_run;
	*own_blocks = run_count > EXT4_EXTENTS_IN_INODE ? extent_tree_blocks(run_count) : 0;
	return 0;
}

/*
 * The common case, in a fraction of the instructions: files of one extent that makes one run, as many as follow each other from
 * inode `i` on. Returns the first inode that is something else, good or bad. The counters are in local variables meanwhile: the
 * compiler cannot know that no array element is one of them.
 */
static uint32_t plan_simple_files(struct builder *b, uint32_t i)
{
	const struct tree *tree = b->tree;
	const struct tree_inode *const inodes = tree->inodes;
	const struct tree_extent *const extents = tree->extents;
	const uint32_t inode_count = tree->inode_count, extent_count = tree->extent_count;
	union plan_inode *const slots = b->plan->inodes;
	const uint32_t *const name_bytes = b->name_bytes;
	struct plan_run *const runs = b->runs;
	struct plan_batch *const batches = b->batches;
	const uint32_t room = b->run_room - b->run_count < b->extents_left ? b->run_room - b->run_count : b->extents_left;
	const uint32_t first = b->run_count, end = first + room;
	uint32_t run = first;
	uint64_t content_blocks = b->content_blocks;
	for (; i < inode_count && run < end; i++) {
		const struct tree_inode *from = &inodes[i];
		/* No names below it, no attributes, 1 to 65000 links. */
		if (!S_ISREG(from->mode) || from->extent_count != 1 || from->xattr_count || name_bytes[i] ||
		    from->nlink - 1 >= EXT4_LINK_MAX || from->first_extent >= extent_count || from->size_bytes > FILE_MAX_BYTES)
			break;
		const struct tree_extent *extent = &extents[from->first_extent];
		if (!extent_is_sane(tree, from->size_bytes, extent, 0))
			break;
		const uint64_t begin = extent->file_offset / EXT4_BLOCK_BYTES;
		const uint64_t blocks = (extent->file_offset + extent->length + EXT4_BLOCK_BYTES - 1) / EXT4_BLOCK_BYTES - begin;
		if (blocks > EXT4_EXTENT_MAX_BLOCKS)
			break;
		slots[i].first_run = run;
		struct plan_batch *batch = &batches[run / RUNS_PER_BATCH];
		if (run % RUNS_PER_BATCH == 0)
			*batch = (struct plan_batch){ (uint32_t)content_blocks, from->first_extent };
		else if ((uint64_t)batch->extent + run % RUNS_PER_BATCH != from->first_extent)
			batch->extent = TREE_NONE;
		runs[run++] = (struct plan_run){ (uint32_t)content_blocks, (uint32_t)begin, i };
		content_blocks += blocks;
	}
	b->extents_left -= run - first;
	b->run_count = run;
	b->content_blocks = content_blocks;
	return i;
}

static int plan_symlink(const struct builder *b, const struct tree_inode *from, uint32_t inode, uint64_t *own_blocks)
{
	if (from->size_bytes > SYMLINK_MAX_BYTES)
		return refuse(b, -ENAMETOOLONG, inode, "the target of the symbolic link is longer than 4095 bytes");
	if (from->size_bytes == 0 || from->target + from->size_bytes > b->tree->string_bytes)
		return damaged(b, "the target of inode", inode);
	*own_blocks = from->size_bytes > EXT4_FAST_SYMLINK_MAX;
	return 0;
}

/* Until here plan_inode held the parent plus one. */
static int plan_directory(struct builder *b, uint32_t inode, uint64_t *own_blocks)
{
	union plan_inode *slot = &b->plan->inodes[inode];
	if (slot->parent == 0)
		return damaged(b, "no name for directory", inode);
	uint32_t blocks;
	const int rc = dir_count_blocks(b->plan, inode, b->name_bytes[inode], &blocks, b->err);
	if (rc)
		return rc;
	if (blocks > EXT4_EXTENTS_IN_INODE * EXT4_EXTENT_MAX_BLOCKS)
		return refuse(b, -EFBIG, inode, "the directory has more names than fit in 512 MiB");
	slot->parent--;
	*own_blocks = blocks;
	return 0;
}

static int plan_attributes(struct builder *b, const struct tree_inode *from, uint32_t inode, uint64_t *own_blocks)
{
	bool needs_block;
	if (from->xattr_count > b->xattrs_left)
		return damaged(b, "the attributes of inode", inode);
	b->xattrs_left -= from->xattr_count;
	const uint32_t value_count = b->plan->value_count;
	const int rc = xattr_plan(b->plan, inode, &needs_block, b->err);
	if (rc)
		return rc;
	/* Linux knows a target in i_block by i_blocks being 0, but counts the values' blocks there; e2fsck knows it by its length. */
	if (S_ISLNK(from->mode) && from->size_bytes <= EXT4_FAST_SYMLINK_MAX && b->plan->value_count != value_count)
		return refuse(b, -E2BIG, inode, "the extended attributes of the symbolic link do not fit in one block (4096 bytes)");
	*own_blocks += needs_block;
	return 0;
}

/* Anything but a directory: it has no names below it, and its links can be counted. */
static int check_leaf(const struct builder *b, const struct tree_inode *from, uint32_t inode)
{
	if (b->name_bytes[inode])
		return damaged(b, "names below a file, inode", inode);
	if (from->nlink == 0)
		return damaged(b, "no name for inode", inode);
	return refuse(b, -EMLINK, inode, "more hard links than ext4 allows (65000)");
}

static int plan_one_inode(struct builder *b, const struct tree_inode *from, uint32_t inode)
{
	uint64_t own_blocks = 0;
	int rc = 0;
	if (!S_ISDIR(from->mode) && (b->name_bytes[inode] || from->nlink - 1 >= EXT4_LINK_MAX))
		return check_leaf(b, from, inode);
	switch (from->mode & S_IFMT) {
	case S_IFREG:
		rc = plan_file(b, from, inode, &own_blocks);
		break;
	case S_IFDIR:
		rc = plan_directory(b, inode, &own_blocks);
		break;
	case S_IFLNK:
		rc = plan_symlink(b, from, inode, &own_blocks);
		break;
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		break;
	default:
		return damaged(b, "the type of inode", inode);
	}
	if (rc == 0 && from->xattr_count)
		rc = plan_attributes(b, from, inode, &own_blocks);
	if (rc == 0 && own_blocks)
		rc = add_object(b, inode, own_blocks);
	return rc;
}

static int plan_inodes(struct builder *b)
{
	const struct tree *tree = b->tree;
	for (uint32_t i = 0; i < tree->inode_count; i++) {
		i = plan_simple_files(b, i);
		const int rc = i < tree->inode_count ? plan_one_inode(b, &tree->inodes[i], i) : 0;
		if (rc)
			return rc;
		if (b->content_blocks > UINT32_MAX || b->object_blocks > UINT32_MAX)
			return error_set(b->err, -EFBIG, "file system: the layers hold more than the largest disk (16 TiB) can");
	}
	return 0;
}

/* What is not of the tree: our own lost+found, and the inodes of attribute values. */
static int plan_other_inodes(struct builder *b)
{
	const struct ext4_plan *plan = b->plan;
	int rc = plan->add_lost_found ? add_object(b, lost_found_inode(plan), 1) : 0;
	if (plan->value_count >= TREE_NONE - 16 - b->tree->inode_count)
		return error_set(b->err, -EFBIG, "file system: the layers hold more files than ext4 can");
	for (uint32_t k = 0; k < plan->value_count && rc == 0; k++)
		rc = add_object(b, value_inode(plan, k), value_blocks(plan, k));
	if (rc == 0 && b->object_blocks > UINT32_MAX)
		return error_set(b->err, -EFBIG, "file system: the layers hold more than the largest disk (16 TiB) can");
	return rc;
}

/* Subtracts before it compares: nothing is too large, and zero is too large as well. */
static bool entry_is_sane(const struct tree *tree, const struct tree_entry *e)
{
	return e->inode - 1 < tree->inode_count - 1 && e->parent < tree->inode_count && e->name_bytes - 1u < EXT4_NAME_MAX &&
	       (uint64_t)e->name + e->name_bytes <= tree->string_bytes;
}

static bool is_lost_found(const struct tree *tree, const struct tree_entry *e)
{
	return e->parent == 0 && e->name_bytes == LOST_FOUND_NAME_BYTES &&
	       memcmp(tree->strings + e->name, LOST_FOUND_NAME, LOST_FOUND_NAME_BYTES) == 0;
}

/*
 * The pass over the names, in the order of the array: what each directory's entries take, and which directory is whose parent.
 */
static int plan_names(struct builder *b)
{
	const struct tree *tree = b->tree;
	const struct tree_inode *from = tree->inodes;
	union plan_inode *inodes = b->plan->inodes;
	uint32_t *name_bytes = b->name_bytes;
	const struct tree_entry *const end = tree->entries + tree->entry_count;
	b->plan->add_lost_found = true;
	inodes[0].parent = 1;
	for (const struct tree_entry *e = tree->entries + 1; e < end; e++) {
		if (!entry_is_sane(tree, e))
			return damaged(b, "entry", (uint32_t)(e - tree->entries));
		const uint32_t bytes = name_bytes[e->parent] + dir_entry_bytes(e->name_bytes);
		if (bytes > DIR_MAX_BYTES)
			return refuse(b, -EFBIG, e->parent, "the directory has more names than fit in 512 MiB");
		name_bytes[e->parent] = bytes;
		if (S_ISDIR(from[e->inode].mode)) {
			if (inodes[e->inode].parent)
				return damaged(b, "two names for directory", e->inode);
			inodes[e->inode].parent = e->parent + 1;
		}
		if (is_lost_found(tree, e))
			b->plan->add_lost_found = false;
	}
	if (b->plan->add_lost_found)
		name_bytes[0] += dir_entry_bytes(LOST_FOUND_NAME_BYTES);
	return 0;
}

static int allocate(struct builder *b)
{
	const struct tree *tree = b->tree;
	/* Nearly always one run for each extent; a few more for large files and for the sentinel. */
	b->run_room = tree->extent_count < UINT32_MAX / 2 ? tree->extent_count + tree->extent_count / 64 + 64 : UINT32_MAX;
	b->object_room = 64;
	b->runs = malloc(b->run_room * sizeof(*b->runs));
	b->batches = malloc(batches_bytes(b->run_room));
	b->objects = malloc(b->object_room * sizeof(*b->objects));
	b->plan->inodes = calloc(tree->inode_count, sizeof(*b->plan->inodes));
	/* Not from malloc, which would keep it: this is as much as the plan has for an inode in all. */
	void *mapping = mmap(NULL, tree->inode_count * sizeof(*b->name_bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	b->name_bytes = mapping == MAP_FAILED ? NULL : mapping;
	b->plan->htrees = htrees_create();
	return b->runs && b->batches && b->objects && b->name_bytes && b->plan->inodes && b->plan->htrees ? 0 : -ENOMEM;
}

/* Gives back what an array does not need. */
static void *shrink(void *array, size_t bytes)
{
	void *smaller = realloc(array, bytes);
	/* cppcheck-suppress memleak ; one of the two is returned */
	return smaller ? smaller : array;
}

/* The arrays end in an entry that begins where the last one ends, give back what they do not need, and go to the plan. */
static int hand_over(struct builder *b)
{
	const uint32_t run_count = b->run_count, object_count = b->object_count;
	if (add_run(b, TREE_NONE, 0, 0) || add_object(b, TREE_NONE, 0))
		return -ENOMEM;
	b->plan->runs = shrink(b->runs, b->run_count * sizeof(*b->runs));
	b->plan->batches = shrink(b->batches, batches_bytes(b->run_count));
	b->plan->objects = shrink(b->objects, b->object_count * sizeof(*b->objects));
	b->runs = NULL;
	b->batches = NULL;
	b->objects = NULL;
	b->plan->run_count = run_count;
	b->plan->object_count = object_count;
	b->plan->content_blocks = (uint32_t)b->content_blocks;
	b->plan->object_blocks = (uint32_t)b->object_blocks;
	return 0;
}

int plan_fill(struct ext4_plan *plan, struct error *err)
{
	const struct tree *tree = plan->tree;
	struct builder b = {
		.plan = plan, .tree = tree, .err = err, .extents_left = tree->extent_count, .xattrs_left = tree->xattr_count
	};
	/* Index values up to the count itself are taken by our lost+found, and TREE_NONE by "none". */
	if (tree->inode_count == 0 || tree->entry_count == 0 || !S_ISDIR(tree->inodes[0].mode) ||
	    tree->inode_count >= TREE_NONE - 16 || tree->entry_count >= TREE_NONE - 16)
		return damaged(&b, "no root, inode", 0);
	/* Nothing else looks at it, but a damaged list of names may lead to it. */
	if (tree->entries[0].inode != 0 || tree->entries[0].name_bytes != 0)
		return damaged(&b, "entry", 0);
	int rc = allocate(&b);
	if (rc == 0)
		rc = plan_names(&b);
	if (rc == 0)
		rc = plan_inodes(&b);
	if (rc == 0)
		rc = plan_other_inodes(&b);
	if (rc == 0)
		rc = htrees_reserve(plan->htrees);
	if (rc == 0)
		rc = hand_over(&b);
	plan->used_inodes = EXT4_FIRST_INO - 1 + plan->add_lost_found + tree->inode_count - 1 + plan->value_count;
	free(b.runs);
	free(b.batches);
	free(b.objects);
	if (b.name_bytes)
		munmap(b.name_bytes, tree->inode_count * sizeof(*b.name_bytes));
	return rc;
}
