/*
 * Fuzzes the ext4 reader: the input is damage to a file system, or all of one.
 *
 * The first byte says of which: 0 takes the rest as the disk itself; others choose one of the small images that are made at the start (one
 * of everything from the generator; two with a journal that needs recovery, with and without checksums), on which each 5 bytes are one
 * change: offset (4, little-endian, modulo the size of what is not zero), the new byte. Nothing may crash, hang, take more memory than a
 * tree of so many bytes can need, or read outside of the disk; run it with -fsanitize=fuzzer,address,undefined.
 */
#include <fcntl.h>
#include <stdlib.h>

#include "ext4gen/ext4gen.h"
#include "ext4read/ext4read.h"
#include "layers/diff.h"
#include "tests/unit/hand_tree.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { IMAGES = 3, CHANGE_BYTES = 5, CHANGES_MAX = 256, DISK_BYTES = 16 << 20, CONTENTS_MAX = 1 << 20 };

struct disk {
	const uint8_t *bytes;
	size_t size;
};

static int read_disk(void *data, uint64_t offset, void *buffer, size_t length)
{
	const struct disk *disk = data;
	assert(offset <= disk->size && length <= disk->size - offset);
	memcpy(buffer, disk->bytes + offset, length);
	return 0;
}

static int read_contents(void *data, uint32_t source, uint64_t offset, void *buffer, size_t length)
{
	return source ? -1 : ext4_reader_read(data, offset, buffer, length);
}

static uint8_t *generated(void)
{
	struct hand *h = hand_rich();
	hand_many_names(h, "z", 300, 3);
	for (uint32_t i = 0; i < h->tree.inode_count; i += 2)
		hand_xattr(h, i, "user.some-attribute", "012345678901234567890123456789012345678901234567890123456789", i);
	const struct ext4_options options = { .size_bytes = DISK_BYTES };
	struct ext4_plan *plan = NULL;
	struct error err;
	uint8_t *bytes = calloc(1, DISK_BYTES);
	const struct iovec iov = { bytes, DISK_BYTES };
	if (!bytes || ext4_plan_build(&h->tree, &options, &plan, &err) || ext4_plan_readv(plan, 0, &iov, 1))
		abort();
	ext4_plan_destroy(plan);
	hand_destroy(h);
	return bytes;
}

/* One of the unit tests' images, from the top of the repository or from where the corpus says. */
static uint8_t *unpacked(const char *name)
{
	char command[200];
	uint8_t *bytes = calloc(1, DISK_BYTES);
	snprintf(command, sizeof(command), "xz -dc tests/unit/images/%s.img.xz", name);
	FILE *pipe = popen(command, "r");
	if (!bytes || !pipe || fread(bytes, 1, DISK_BYTES, pipe) != DISK_BYTES)
		abort();
	pclose(pipe);
	return bytes;
}

/* Reads all that is there, and writes it as a layer where it is not too much. */
static void read_everything(struct disk *disk)
{
	static const struct tree_inode root = { .mode = S_IFDIR | 0755, .first_child = TREE_NONE };
	static int null = -1;
	struct ext4_reader *reader = NULL;
	struct tree *tree = NULL;
	struct complaints complaints = { 0 };
	struct error err = { "" };
	if (ext4_reader_open(read_disk, disk, disk->size, &reader, &err) == 0 &&
	    ext4_reader_tree(reader, &tree, &complaints, &err) == 0) {
		uint64_t total = 0;
		for (uint32_t i = 0; i < tree->extent_count; i++)
			total += tree->extents[i].length;
		assert(total <= disk->size);
		union {
			const struct tree_inode *in;
			struct tree_inode *out;
		} inodes = { .in = &root };
		struct tree_entry entry = { .next_sibling = TREE_NONE };
		struct tree nothing = { .entries = &entry, .inodes = inodes.out, .entry_count = 1, .inode_count = 1 };
		const struct diff_side base = { &nothing, read_contents, reader }, changed = { tree, read_contents, reader };
		struct diff_result result;
		if (null < 0)
			null = open("/dev/null", O_WRONLY | O_CLOEXEC);
		if (total <= CONTENTS_MAX)
			diff_write(&base, &changed, NULL, null, &result, &err);
	}
	ext4_reader_tree_destroy(tree);
	ext4_reader_close(reader);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t *images[IMAGES];
	static uint32_t *used[IMAGES],
	    used_count[IMAGES]; /* offsets of 64-byte pieces that are not zero: there damage means something */
	if (!images[0]) {
		images[0] = generated();
		images[1] = unpacked("csum3");
		images[2] = unpacked("nocsum");
		for (int i = 0; i < IMAGES; i++) {
			used[i] = malloc(DISK_BYTES / 64 * sizeof(uint32_t));
			static const uint8_t zero[64];
			for (uint32_t at = 0; at < DISK_BYTES; at += 64)
				if (memcmp(images[i] + at, zero, 64) != 0)
					used[i][used_count[i]++] = at;
		}
	}
	if (size == 0)
		return 0;
	const uint8_t choice = data[0];
	data++, size--;
	if (choice == 0) {
		struct disk disk = { data, size };
		read_everything(&disk);
		return 0;
	}
	const int i = choice % IMAGES;
	struct {
		uint32_t at;
		uint8_t old;
	} undo[CHANGES_MAX];
	unsigned count = 0;
	for (; count < CHANGES_MAX && size >= CHANGE_BYTES; data += CHANGE_BYTES, size -= CHANGE_BYTES) {
		const uint32_t raw = (uint32_t)data[0] | (uint32_t)data[1] << 8 | (uint32_t)data[2] << 16 | (uint32_t)data[3] << 24;
		undo[count].at = used[i][raw / 64 % used_count[i]] + raw % 64;
		undo[count].old = images[i][undo[count].at];
		images[i][undo[count++].at] = data[4];
	}
	struct disk disk = { images[i], DISK_BYTES };
	read_everything(&disk);
	while (count-- > 0)
		images[i][undo[count].at] = undo[count].old;
	return 0;
}
