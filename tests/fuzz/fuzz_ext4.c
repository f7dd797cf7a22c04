/*
 * Fuzzes planning and reading: the input is damage to a tree that has one of everything.
 *
 * Each 6 bytes are one change: which array (1), offset in it (4, little-endian, modulo its size), the new byte. This is what a damaged
 * or forged index file can do to a tree. The bytes left over, 0 to 5, choose the options. Nothing may crash, hang, or reach outside of
 * the tree's arrays; run it with -fsanitize=fuzzer,address,undefined.
 */
#include "ext4gen/ext4gen.h"
#include "tests/unit/hand_tree.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CHANGE_BYTES = 6, CHUNK = 1 << 18, CHUNKS_PER_RANGE = 24 };

static struct hand *base_tree(void)
{
	struct hand *h = hand_rich();
	hand_many_names(h, "z", 1000, 3);
	for (uint32_t i = 0; i < h->tree.inode_count; i += 3)
		hand_xattr(h, i, "user.some-attribute", "012345678901234567890123456789012345678901234567890123456789", i);
	/* Values in the block, and in inodes of their own. */
	static char value[6000];
	const uint32_t f = hand_file(h, 0, "zz", 1);
	hand_xattr(h, f, "user.block", value, 1000);
	hand_xattr(h, f, "user.inode", value, sizeof(value));
	hand_xattr(h, f, "user.inodes", value, sizeof(value) / 2);
	hand_trim(h);
	return h;
}

struct array {
	uint8_t *bytes;
	size_t size;
};

static void read_everything(const struct ext4_plan *plan)
{
	static uint8_t buffer[CHUNK];
	uint64_t begin, end = 0;
	while (ext4_plan_next_data(plan, end, &begin, &end)) {
		for (unsigned i = 0; i < CHUNKS_PER_RANGE && begin + (uint64_t)i * CHUNK < end; i++) {
			const uint64_t offset = begin + (uint64_t)i * CHUNK;
			const struct iovec iov = { buffer, end - offset < CHUNK ? (size_t)(end - offset) : CHUNK };
			ext4_plan_readv(plan, offset, &iov, 1);
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct hand *h;
	if (!h)
		h = base_tree();
	struct tree *t = &h->tree;
	const struct array arrays[] = {
		{ (uint8_t *)t->entries, t->entry_count * sizeof(*t->entries) },
		{ (uint8_t *)t->inodes, t->inode_count * sizeof(*t->inodes) },
		{ (uint8_t *)t->extents, t->extent_count * sizeof(*t->extents) },
		{ (uint8_t *)t->xattrs, t->xattr_count * sizeof(*t->xattrs) },
		{ (uint8_t *)t->strings, t->string_bytes },
	};
	enum { ARRAYS = sizeof(arrays) / sizeof(arrays[0]), MOST = 64 };
	struct { uint8_t *at, old; } undo[MOST];
	unsigned count = 0;
	for (; count < MOST && size >= CHANGE_BYTES; data += CHANGE_BYTES, size -= CHANGE_BYTES) {
		const struct array *array = &arrays[data[0] % ARRAYS];
		const uint32_t offset = (uint32_t)data[1] | (uint32_t)data[2] << 8 | (uint32_t)data[3] << 16 | (uint32_t)data[4] << 24;
		undo[count].at = array->bytes + offset % array->size;
		undo[count].old = *undo[count].at;
		*undo[count++].at = data[5];
	}
	const struct ext4_options options = { .journal = size & 1, .metadata_csum = size & 2 };
	struct ext4_plan *plan = NULL;
	struct error err;
	if (ext4_plan_build(t, &options, &plan, &err) == 0)
		read_everything(plan);
	ext4_plan_destroy(plan);
	while (count-- > 0)
		*undo[count].at = undo[count].old;
	return 0;
}
