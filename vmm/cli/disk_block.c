/*
 * `trvmm disk inspect --block N`: what a block of the disk is, and what is in it as a guest would read it. Metadata is shown by the tables
 * from which it was made, anything else in hexadecimal.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "devices/virtio-blk/disk_ext4.h"
#include "ext4gen/ext4_disk.h"
#include "ext4gen/ext4_dump.h"
#include "vmm/cli/disk_inspect.h"

typedef unsigned long long ull;

static const char *const kind_names[] = {
	[EXT4_BLOCK_SUPER] = "superblock",
	[EXT4_BLOCK_DESCRIPTORS] = "group descriptors",
	[EXT4_BLOCK_BLOCK_BITMAP] = "block bitmap",
	[EXT4_BLOCK_INODE_BITMAP] = "inode bitmap",
	[EXT4_BLOCK_INODE_TABLE] = "inode table",
	[EXT4_BLOCK_DIRECTORY] = "directory",
	[EXT4_BLOCK_EXTENTS] = "extent tree",
	[EXT4_BLOCK_SYMLINK] = "symbolic link",
	[EXT4_BLOCK_XATTRS] = "extended attributes",
	[EXT4_BLOCK_XATTR_VALUE] = "value of an extended attribute",
	[EXT4_BLOCK_JOURNAL_EXTENTS] = "extent tree of the journal",
	[EXT4_BLOCK_JOURNAL] = "journal",
	[EXT4_BLOCK_CONTENTS] = "file contents",
	[EXT4_BLOCK_FREE] = "free space",
};

static const char *const state_names[] = { [COW_BASE] = "layers", [COW_WRITTEN] = "written", [COW_ZERO] = "zeroed" };

/* What is printed, and how. */
struct block {
	FILE *out;
	enum ext4_dump_format format;
	struct ext4_block_place place;
	uint8_t bytes[EXT4_BLOCK_BYTES];
	unsigned parts; /* shown so far */
};

typedef int dump_structure(FILE *out, enum ext4_dump_format format, const void *bytes, size_t length);

/* A structure in the block, with what it is; what is damaged says so itself. */
static void put_part(struct block *block, const char *what, uint64_t number, dump_structure *dump, size_t at, size_t length)
{
	const bool json = block->format == EXT4_DUMP_JSON;
	fprintf(block->out, json ? "%s{\"%s\":%llu,\"fields\":" : "%s%s %llu:\n", json && block->parts++ ? "," : "", what,
		(ull)number);
	dump(block->out, block->format, block->bytes + at, length);
	fputs(json ? "}" : "", block->out);
}

static bool is_zero(const uint8_t *bytes, size_t length)
{
	return length == 0 || (bytes[0] == 0 && memcmp(bytes, bytes + 1, length - 1) == 0);
}

static void put_descriptors(struct block *block)
{
	enum { EACH = sizeof(struct ext4_group_desc) };
	for (size_t at = 0; at < EXT4_BLOCK_BYTES; at += EACH) {
		if (!is_zero(block->bytes + at, EACH))
			put_part(block, "group", block->place.index * (EXT4_BLOCK_BYTES / EACH) + at / EACH, ext4_dump_group_desc,
				 at, EACH);
	}
}

static void put_inodes(struct block *block)
{
	for (size_t at = 0; at < EXT4_BLOCK_BYTES; at += EXT4_INODE_BYTES) {
		const uint64_t number = block->place.index * EXT4_INODES_PER_BLOCK + at / EXT4_INODE_BYTES + 1;
		struct ext4_inode inode;
		memcpy(&inode, block->bytes + at, sizeof(inode));
		if (is_zero(block->bytes + at, EXT4_INODE_BYTES))
			continue;
		put_part(block, "inode", number, ext4_dump_inode, at, EXT4_INODE_BYTES);
		if (le32_get(inode.i_flags) & EXT4_EXTENTS_FL)
			put_part(block, "extents_of", number, ext4_dump_extent_node, at + offsetof(struct ext4_inode, i_block),
				 sizeof(inode.i_block));
		if (!is_zero(inode.i_xattr, sizeof(inode.i_xattr)))
			put_part(block, "attributes_of", number, ext4_dump_xattr_inode, at + offsetof(struct ext4_inode, i_xattr),
				 sizeof(inode.i_xattr));
	}
}

/* In an indexed directory the first block is the root of the index; a node of it looks like an unused entry as long as the block. */
static void put_directory(struct block *block, bool indexed)
{
	struct ext4_dir_entry first;
	memcpy(&first, block->bytes, sizeof(first));
	dump_structure *dump = ext4_dump_dir_block;
	if (indexed && block->place.index == 0)
		dump = ext4_dump_dx_root;
	else if (indexed && le32_get(first.inode) == 0 && le16_get(first.rec_len) == EXT4_BLOCK_BYTES)
		dump = ext4_dump_dx_node;
	put_part(block,
		 dump == ext4_dump_dx_root   ? "index_root"
		 : dump == ext4_dump_dx_node ? "index_node"
					     : "names",
		 block->place.index, dump, 0, EXT4_BLOCK_BYTES);
}

/* Runs of bits that are set. */
static void put_bitmap(struct block *block)
{
	enum { BITS = EXT4_BLOCK_BYTES * 8 };
	const bool json = block->format == EXT4_DUMP_JSON;
	const char *comma = "";
	for (unsigned bit = 0, begin; bit < BITS; bit++) {
		for (begin = bit; bit < BITS && block->bytes[bit / 8] >> bit % 8 & 1; bit++)
			;
		if (bit == begin)
			continue;
		fprintf(block->out, json ? "%s{\"first\":%u,\"last\":%u}" : "%sused %u to %u\n", json ? comma : "", begin, bit - 1);
		comma = ",";
	}
}

/* Lines of 16 bytes; a row of equal ones is told once. */
static void put_hex_text(const struct block *block)
{
	bool skipped = false;
	for (size_t at = 0; at < EXT4_BLOCK_BYTES; at += 16) {
		const uint8_t *line = block->bytes + at;
		if (at && at + 16 < EXT4_BLOCK_BYTES && memcmp(line, line - 16, 16) == 0) {
			fputs(skipped ? "" : "*\n", block->out);
			skipped = true;
			continue;
		}
		skipped = false;
		fprintf(block->out, "%03zx ", at);
		for (unsigned i = 0; i < 16; i++)
			fprintf(block->out, " %02x", line[i]);
		fputs("  ", block->out);
		for (unsigned i = 0; i < 16; i++)
			putc(line[i] >= ' ' && line[i] <= '~' ? line[i] : '.', block->out);
		putc('\n', block->out);
	}
}

static void put_hex(const struct block *block)
{
	if (block->format == EXT4_DUMP_TEXT) {
		put_hex_text(block);
		return;
	}
	fputs("{\"hex\":\"", block->out);
	for (size_t at = 0; at < EXT4_BLOCK_BYTES; at++)
		fprintf(block->out, "%02x", block->bytes[at]);
	fputs("\"}", block->out);
}

static void put_contents(struct block *block, bool indexed)
{
	switch (block->place.kind) {
	case EXT4_BLOCK_SUPER:
		put_part(block, "superblock", 0, ext4_dump_super_block, EXT4_SUPER_OFFSET, sizeof(struct ext4_super_block));
		break;
	case EXT4_BLOCK_DESCRIPTORS:
		put_descriptors(block);
		break;
	case EXT4_BLOCK_BLOCK_BITMAP:
	case EXT4_BLOCK_INODE_BITMAP:
		put_bitmap(block);
		break;
	case EXT4_BLOCK_INODE_TABLE:
		put_inodes(block);
		break;
	case EXT4_BLOCK_DIRECTORY:
		put_directory(block, indexed);
		break;
	case EXT4_BLOCK_EXTENTS:
	case EXT4_BLOCK_JOURNAL_EXTENTS:
		put_part(block, "extents", block->place.index, ext4_dump_extent_node, 0, EXT4_BLOCK_BYTES);
		break;
	case EXT4_BLOCK_XATTRS:
		put_part(block, "attributes", 0, ext4_dump_xattr_block, 0, EXT4_BLOCK_BYTES);
		break;
	case EXT4_BLOCK_JOURNAL:
		if (block->place.index == 0)
			put_part(block, "journal", 0, ext4_dump_jbd2_superblock, 0, EXT4_BLOCK_BYTES);
		else
			put_hex(block);
		break;
	case EXT4_BLOCK_SYMLINK:
	case EXT4_BLOCK_XATTR_VALUE:
	case EXT4_BLOCK_CONTENTS:
	case EXT4_BLOCK_FREE:
		put_hex(block);
		break;
	}
}

static int put_block(const struct view *view, uint64_t number, struct block *block)
{
	const bool json = block->format == EXT4_DUMP_JSON;
	const uint32_t inode = block->place.tree_inode;
	uint64_t end;
	char *path = inode == TREE_NONE ? NULL : view_path(view, inode);
	if (inode != TREE_NONE && !path)
		return -ENOMEM;
	const char *state = state_names[cow_run(disk_ext4_cow(view->root->disk), number * EXT4_BLOCK_BYTES, &end)];
	fprintf(block->out,
		json ? "{\"block\":%llu,\"kind\":\"%s\",\"index\":%llu,\"state\":\"%s\""
		     : "block:    %llu\nkind:     %s, number %llu\nstate:    %s\n",
		(ull)number, kind_names[block->place.kind], (ull)block->place.index, state);
	if (path) {
		fputs(json ? ",\"path\":" : "of:       ", block->out);
		if (json)
			json_print_string(block->out, path);
		else
			fprintf(block->out, "%s\n", path);
	}
	fputs(json ? ",\"parts\":[" : "", block->out);
	put_contents(block, inode != TREE_NONE && ext4_plan_is_indexed(view->root->plan, inode));
	fputs(json ? "]}\n" : "", block->out);
	free(path);
	return 0;
}

int block_print(const struct view *view, const char *number, FILE *out, bool json, struct error *err)
{
	const uint64_t count = view->root->disk->size_bytes / EXT4_BLOCK_BYTES;
	char *end, quoted[64];
	errno = 0;
	const ull value = strtoull(number, &end, 10);
	if (*number < '0' || *number > '9' || *end || errno || value >= count)
		return error_set(err, -EINVAL, "--block '%s': the disk has blocks 0 to %llu",
				 error_quote(quoted, sizeof(quoted), number, strlen(number)), (ull)(count - 1));
	struct block block = { .out = out,
			       .format = json ? EXT4_DUMP_JSON : EXT4_DUMP_TEXT,
			       .place = ext4_plan_block(view->root->plan, value) };
	const struct iovec iov = { block.bytes, sizeof(block.bytes) };
	struct disk *disk = view->root->disk;
	int rc = disk->ops->readv(disk, value * EXT4_BLOCK_BYTES, &iov, 1);
	if (rc)
		return error_set(err, rc, "reading the disk: %s", strerror(-rc));
	rc = put_block(view, value, &block);
	return rc ? error_set(err, rc, "out of memory") : 0;
}
