/* devices/virtio-blk/disk_ext4: a generated file system whose changes are kept, and which ranges of it have to be exported. */
#include "tests/unit/ext4_helper.h"

#include "devices/virtio-blk/disk_ext4.h"
#include "ext4gen/inspect.h"
#include "layers/layers.h"

#define SIZE (64ull << 20)

static const struct ext4_options options = { .size_bytes = SIZE };

static struct disk *open_or_fail(const struct ext4_plan *plan, enum cow_access access)
{
	struct error err = { "" };
	struct disk *disk = NULL;
	cr_assert(disk_ext4_open_kept(plan, scratch("kept"), access, &disk, &err) == 0, "%s", err.text);
	return disk;
}

static void read_disk(struct disk *disk, uint64_t offset, uint8_t *to, size_t length)
{
	const struct iovec iov = { to, length };
	cr_assert(disk->ops->readv(disk, offset, &iov, 1) == 0);
}

/* Writes, zeroes and discards in random places, as a guest might. */
static void change(struct disk *disk, uint8_t *model, uint64_t seed)
{
	static uint8_t bytes[1 << 16];
	for (unsigned i = 0; i < 300; i++) {
		const size_t length = (hand_random(&seed) % 128 + 1) * 512;
		const uint64_t offset = hand_random(&seed) % ((SIZE - length) / 512) * 512;
		const struct iovec iov = { bytes, length };
		const bool zero = hand_random(&seed) % 3 == 0;
		memset(bytes, zero ? 0 : (int)(i % 255 + 1), length);
		cr_assert((zero ? disk->ops->discard(disk, offset, length) : disk->ops->writev(disk, offset, &iov, 1)) == 0);
		memcpy(model + offset, bytes, length);
	}
	cr_assert(disk->ops->flush(disk) == 0);
}

/* All that is not among the ranges must be zero. */
static void check_ranges(struct disk *disk, const uint8_t *model)
{
	uint64_t begin, end, offset = 0;
	bool more;
	do {
		more = disk_ext4_next_data(disk, offset, &begin, &end);
		cr_assert(!more || (begin >= offset && end > begin && end <= SIZE));
		for (uint64_t at = offset; at < (more ? begin : SIZE); at++)
			cr_assert(model[at] == 0, "byte %llu was left out", (unsigned long long)at);
		offset = end;
	} while (more);
}

Test(disk_ext4, changes_of_a_file_system_are_kept)
{
	struct hand *h = hand_rich();
	struct ext4_plan *plan = plan_or_fail(&h->tree, &options);
	uint8_t *model = malloc(SIZE), *found = malloc(SIZE);
	read_or_fail(plan, 0, model, SIZE);
	for (uint64_t round = 1; round <= 3; round++) {
		struct disk *disk = open_or_fail(plan, COW_CHANGE);
		cr_assert(disk->size_bytes == SIZE && !disk->read_only);
		change(disk, model, round);
		check_ranges(disk, model);
		disk_destroy(disk);
		disk = open_or_fail(plan, COW_LOOK);
		cr_assert(disk->read_only);
		read_disk(disk, 0, found, SIZE);
		cr_assert(memcmp(found, model, SIZE) == 0, "round %llu", (unsigned long long)round);
		check_ranges(disk, model);
		disk_destroy(disk);
	}
	unlink(scratch("kept"));
	free(model);
	free(found);
	ext4_plan_destroy(plan);
	hand_destroy(h);
}

Test(disk_ext4, one_changed_byte_of_contents_is_another_disk)
{
	struct hand *h = hand_rich();
	struct ext4_plan *plan = plan_or_fail(&h->tree, &options);
	struct error err = { "" };
	struct disk *disk;
	uint8_t before[EXT4_DIGEST_BYTES], after[EXT4_DIGEST_BYTES];
	cr_assert(ext4_plan_digest(plan, before) == 0);
	disk_destroy(open_or_fail(plan, COW_CHANGE));
	/* Sizes, times and places stay, as when a reproducible layer is built again. */
	union { const uint8_t *in; uint8_t *out; } memory = { .in = h->tree.sources[0].memory };
	const struct tree_extent *extent = &h->tree.extents[0];
	cr_assert(extent->source == SOURCE_PATTERN);
	memory.out[extent->source_offset] ^= 1;
	cr_assert(ext4_plan_digest(plan, after) == 0 && memcmp(before, after, sizeof(before)) != 0);
	cr_assert(disk_ext4_open_kept(plan, scratch("kept"), COW_CHANGE, &disk, &err) == -ESTALE);
	cr_assert(strstr(err.text, "other layers"), "%s", err.text);
	memory.out[extent->source_offset] ^= 1;
	disk_destroy(open_or_fail(plan, COW_CHANGE));
	unlink(scratch("kept"));
	ext4_plan_destroy(plan);
	hand_destroy(h);
}

/* A tree as a run has it: a layer, and the agent on top. */
static struct tree *tree_with_agent(const char *text, const void *agent, size_t agent_bytes)
{
	struct error err = { "" };
	struct tree *tree = NULL;
	struct tree_builder *builder = tree_builder_create();
	cr_assert_eq(tree_builder_add_memory_file(builder, "/etc/motd", 0644, text, strlen(text), &err), 0);
	cr_assert_eq(tree_builder_add_memory_file(builder, "/.trvmm/agent", 0755, agent, agent_bytes, &err), 0);
	cr_assert_eq(tree_builder_finish(builder, &tree, &err), 0);
	tree_builder_destroy(builder);
	tree->sources[0].is_own = false; /* a layer's */
	return tree;
}

static int open_with(const struct tree *tree, struct ext4_plan **plan, struct disk **disk, struct error *err)
{
	*plan = plan_or_fail(tree, &options);
	return disk_ext4_open_kept(*plan, scratch("kept"), COW_CHANGE, disk, err);
}

/* Where the agent lies on the disk. */
static uint64_t find_agent(const struct tree *tree, const struct ext4_plan *plan)
{
	uint32_t index;
	struct ext4_run run;
	cr_assert_eq(ext4_plan_runs_of(plan, tree->entries[tree_lookup(tree, "/.trvmm/agent", 0)].inode, &index), 1);
	cr_assert(ext4_plan_run(plan, index, &run));
	return run.first * EXT4_BLOCK_BYTES;
}

enum { AGENT_BYTES = 20000, LOOKED_AT = 16384 };

/* What the guest wrote stays, in the agent as elsewhere; the rest of the agent is of this version. */
static void use_agent(struct disk *disk, uint64_t at, uint8_t letter, bool changed)
{
	static uint8_t found[LOOKED_AT], block[4096];
	read_disk(disk, at, found, sizeof(found));
	for (size_t b = 0; b < sizeof(found); b++)
		cr_assert_eq(found[b], changed && b / 4096 == 1 ? 'g' : letter, "agent %c, byte %zu", letter, b);
	memset(block, 'g', sizeof(block));
	const struct iovec iov = { block, sizeof(block) };
	cr_assert_eq(disk->ops->writev(disk, at + 4096, &iov, 1), 0);
	cr_assert_eq(disk->ops->flush(disk), 0);
}

Test(disk_ext4, a_kept_disk_goes_on_with_the_agent_of_another_version)
{
	static uint8_t agent[AGENT_BYTES + 1];
	struct error err = { "" };
	struct ext4_plan *plan;
	struct disk *disk;
	uint64_t at = 0;
	for (uint8_t letter = 'A'; letter <= 'C'; letter++) {
		memset(agent, letter, sizeof(agent));
		struct tree *tree = tree_with_agent("the same", agent, AGENT_BYTES);
		cr_assert_eq(open_with(tree, &plan, &disk, &err), 0, "agent %c: %s", letter, err.text);
		cr_assert(!at || at == find_agent(tree, plan), "the agent has moved");
		at = find_agent(tree, plan);
		use_agent(disk, at, letter, letter > 'A');
		disk_destroy(disk);
		ext4_plan_destroy(plan);
		tree_destroy(tree);
	}
	/* But the layers may not change, and the agent's size decides where things lie. */
	struct tree *others[] = { tree_with_agent("the samE", agent, AGENT_BYTES), tree_with_agent("the same", agent, AGENT_BYTES + 1) };
	for (unsigned i = 0; i < 2; i++) {
		cr_assert_eq(open_with(others[i], &plan, &disk, &err), -ESTALE, "%u", i);
		cr_assert(strstr(err.text, "belongs to other layers"), "%s", err.text);
		ext4_plan_destroy(plan);
		tree_destroy(others[i]);
	}
	unlink(scratch("kept"));
}

Test(disk_ext4, the_same_tree_has_the_same_digest_and_its_stamp_follows_names_and_modes)
{
	struct hand *h = hand_rich();
	struct ext4_plan *first = plan_or_fail(&h->tree, &options), *second = plan_or_fail(&h->tree, &options);
	uint8_t digests[2][EXT4_DIGEST_BYTES], stamps[3][EXT4_DIGEST_BYTES];
	cr_assert(ext4_plan_digest(first, digests[0]) == 0 && ext4_plan_digest(second, digests[1]) == 0);
	cr_assert(memcmp(digests[0], digests[1], EXT4_DIGEST_BYTES) == 0);
	/* The sparse source and this program are older than what is too young for a stamp. */
	sleep(4);
	cr_assert(ext4_plan_stamp(first, stamps[0]) && ext4_plan_stamp(second, stamps[1]));
	cr_assert(memcmp(stamps[0], stamps[1], EXT4_DIGEST_BYTES) == 0);
	h->tree.inodes[3].mode ^= 0001;
	cr_assert(ext4_plan_stamp(second, stamps[2]) && memcmp(stamps[1], stamps[2], EXT4_DIGEST_BYTES) != 0);
	ext4_plan_destroy(first);
	ext4_plan_destroy(second);
	hand_destroy(h);
}
