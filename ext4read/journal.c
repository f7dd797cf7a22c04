/*
 * Replaying the journal, as Linux does it (fs/jbd2/recovery.c), but into a map instead of onto the disk.
 *
 * The log is a ring of blocks. A transaction is descriptor blocks, each followed by the blocks that its tags name, revoke blocks, and
 * a commit block at the end; all of one transaction carry its sequence number. Three passes: find the last transaction that was
 * committed, collect what was revoked, take the blocks. What follows the last commit was not to be.
 */
#include "base/crc32c.h"
#include "ext4read/jbd2_disk.h"
#include "ext4read/reader_internal.h"

#include <errno.h>
#include <stdlib.h>

enum pass { PASS_SCAN, PASS_REVOKE, PASS_REPLAY };

struct journal {
	struct ext4_reader *reader;
	struct items extents; /* of the journal's inode */
	struct map revoked; /* block + 1 to the last transaction that revoked it */
	uint8_t *block, *data; /* owned: the log's block at hand, and one of a transaction's */
	struct jbd2_superblock super;
	uint32_t first, end; /* the ring, as blocks of the inode */
	uint32_t incompat;
	bool checksum_v1, checksums; /* of whole transactions; of each block */
	uint32_t seed; /* of the checksums of blocks */
	uint32_t start, sequence;
	uint32_t end_sequence; /* found by the first pass */
	struct error *err;
};

/* Where block `at` of the journal lies, as a block of the disk. */
static int find_block(const struct journal *journal, uint32_t at, uint64_t *block)
{
	const uint64_t offset = (uint64_t)at * journal->reader->block_bytes;
	const struct tree_extent *extents = journal->extents.data;
	for (size_t low = 0, high = journal->extents.count; low < high;) {
		const size_t middle = (low + high) / 2;
		if (offset < extents[middle].file_offset) {
			high = middle;
		} else if (offset - extents[middle].file_offset >= extents[middle].length) {
			low = middle + 1;
		} else {
			*block =
			    (extents[middle].source_offset + (offset - extents[middle].file_offset)) / journal->reader->block_bytes;
			return 0;
		}
	}
	return damaged(journal->err, "the journal has no block %u", at);
}

static int read_block(const struct journal *journal, uint32_t at, uint8_t *buffer)
{
	uint64_t block = 0;
	const uint32_t bytes = journal->reader->block_bytes;
	int ret = find_block(journal, at, &block);
	if (!ret && (ret = device_read(journal->reader, block * bytes, buffer, bytes, false)))
		return error_set(journal->err, ret, "cannot read the journal: %s", strerror(-ret));
	return ret;
}

static uint32_t next_block(const struct journal *journal, uint32_t at)
{
	return at + 1 == journal->end ? journal->first : at + 1;
}

/* Whether the block's checksum, at its end or at `offset`, is right. */
static bool checksum_is_right(const struct journal *journal, size_t offset)
{
	static const uint8_t zero[4];
	const uint32_t bytes = journal->reader->block_bytes;
	be32 stored;
	if (!journal->checksums)
		return true;
	memcpy(&stored, journal->block + offset, sizeof(stored));
	uint32_t crc = crc32c(journal->seed, journal->block, offset);
	crc = crc32c(crc, zero, sizeof(zero));
	crc = crc32c(crc, journal->block + offset + sizeof(zero), bytes - offset - sizeof(zero));
	return crc == be32_get(stored);
}

static size_t tail_offset(const struct journal *journal)
{
	return journal->reader->block_bytes - sizeof(be32);
}

/* ---- descriptors ------------------------------------------------------------------------------------------------------------- */

struct tag {
	uint64_t block; /* of the disk, where the data belongs */
	uint32_t flags, checksum;
};

static size_t tag_bytes(const struct journal *journal)
{
	if (journal->incompat & JBD2_INCOMPAT_CSUM_V3)
		return sizeof(struct jbd2_tag3);
	return sizeof(struct jbd2_tag) + (journal->incompat & JBD2_INCOMPAT_CSUM_V2 ? 2 : 0) -
	       (journal->incompat & JBD2_INCOMPAT_64BIT ? 0 : sizeof(be32));
}

/* Takes the tag at *at of the descriptor and moves on. Returns false behind the last one. */
static bool next_tag(const struct journal *journal, size_t *at, struct tag *tag)
{
	const size_t bytes = tag_bytes(journal), end = journal->reader->block_bytes - (journal->checksums ? sizeof(be32) : 0);
	const bool wide = journal->incompat & JBD2_INCOMPAT_64BIT;
	if (*at > end || end - *at < bytes)
		return false;
	if (journal->incompat & JBD2_INCOMPAT_CSUM_V3) {
		struct jbd2_tag3 disk;
		memcpy(&disk, journal->block + *at, sizeof(disk));
		*tag = (struct tag){ be32_get(disk.t_blocknr), be32_get(disk.t_flags), be32_get(disk.t_checksum) };
		tag->block |= wide ? (uint64_t)be32_get(disk.t_blocknr_high) << 32 : 0;
	} else {
		struct jbd2_tag disk = { .t_blocknr_high = be32_make(0) };
		memcpy(&disk, journal->block + *at, wide ? sizeof(disk) : offsetof(struct jbd2_tag, t_blocknr_high));
		*tag = (struct tag){ be32_get(disk.t_blocknr), be16_get(disk.t_flags), be16_get(disk.t_checksum) };
		tag->block |= (uint64_t)be32_get(disk.t_blocknr_high) << 32;
	}
	*at += bytes + (tag->flags & JBD2_FLAG_SAME_UUID ? 0 : JBD2_UUID_BYTES);
	if (tag->flags & JBD2_FLAG_LAST_TAG)
		*at = end;
	return true;
}

static bool tag_checksum_is_right(const struct journal *journal, const struct tag *tag, uint32_t sequence)
{
	const be32 number = be32_make(sequence);
	const uint32_t crc =
	    crc32c(crc32c(journal->seed, &number, sizeof(number)), journal->data, journal->reader->block_bytes);
	return !journal->checksums || tag->checksum == (journal->incompat & JBD2_INCOMPAT_CSUM_V3 ? crc : crc & 0xFFFF);
}

/* Whether a later transaction, or this one, said that the block is not to be taken from here. */
static bool is_revoked(const struct journal *journal, uint64_t block, uint32_t sequence)
{
	const uint64_t *by = map_get(&journal->revoked, block + 1);
	return by && (int32_t)(sequence - (uint32_t)*by) <= 0;
}

/* Notes that the tag's block is now the one at `at` of the journal. */
static int take_block(struct journal *journal, const struct tag *tag, uint32_t at, uint32_t sequence)
{
	uint64_t place = 0;
	if (is_revoked(journal, tag->block, sequence))
		return 0;
	if (tag->block >= journal->reader->block_count)
		return damaged(journal->err, "the journal has block %llu, which lies behind the end",
			       (unsigned long long)tag->block);
	int ret = find_block(journal, at, &place);
	if (!ret && journal->checksums)
		ret = read_block(journal, at, journal->data);
	if (!ret && !tag_checksum_is_right(journal, tag, sequence))
		ret = damaged(journal->err, "the journal's version of block %llu has a wrong checksum",
			      (unsigned long long)tag->block);
	if (!ret && map_set(&journal->reader->replayed, tag->block + 1, place << 1 | (tag->flags & JBD2_FLAG_ESCAPE)))
		ret = error_set(journal->err, -ENOMEM, "out of memory");
	return ret;
}

/* Goes over the blocks of a descriptor. `crc`, unless NULL, is the sum over the transaction. */
static int pass_descriptor(struct journal *journal, enum pass pass, uint32_t sequence, uint32_t *at, uint32_t *left, uint32_t *crc)
{
	struct tag tag;
	int ret = 0;
	if (crc)
		*crc = jbd2_crc32_be(*crc, journal->block, journal->reader->block_bytes);
	for (size_t offset = sizeof(struct jbd2_header); !ret && *left && next_tag(journal, &offset, &tag); (*left)--) {
		if (crc && !(ret = read_block(journal, *at, journal->data)))
			*crc = jbd2_crc32_be(*crc, journal->data, journal->reader->block_bytes);
		if (pass == PASS_REPLAY)
			ret = take_block(journal, &tag, *at, sequence);
		*at = next_block(journal, *at);
	}
	return ret;
}

/* ---- the other blocks -------------------------------------------------------------------------------------------------------- */

static int take_revokes(struct journal *journal, uint32_t sequence)
{
	struct jbd2_revoke_block header;
	memcpy(&header, journal->block, sizeof(header));
	const size_t bytes = journal->incompat & JBD2_INCOMPAT_64BIT ? 8 : 4, used = be32_get(header.r_count);
	if (used < sizeof(header) || used > journal->reader->block_bytes - (journal->checksums ? sizeof(be32) : 0))
		return damaged(journal->err, "a revoke block of the journal has %zu bytes", used);
	for (size_t at = sizeof(header); used - at >= bytes; at += bytes) {
		be32 words[2] = { be32_make(0), be32_make(0) };
		memcpy(bytes == 8 ? &words[0] : &words[1], journal->block + at, bytes);
		const uint64_t block = (uint64_t)be32_get(words[0]) << 32 | be32_get(words[1]);
		const uint64_t *by = block < UINT64_MAX ? map_get(&journal->revoked, block + 1) : NULL;
		if (block == UINT64_MAX || (by && (int32_t)(sequence - (uint32_t)*by) <= 0))
			continue;
		if (map_set(&journal->revoked, block + 1, sequence))
			return error_set(journal->err, -ENOMEM, "out of memory");
	}
	return 0;
}

/* Whether the commit block says that all blocks of its transaction were written. */
static bool commit_is_right(const struct journal *journal, uint32_t crc)
{
	struct jbd2_commit_block commit;
	memcpy(&commit, journal->block, sizeof(commit));
	const uint32_t stored = be32_get(commit.h_chksum[0]);
	if (!journal->checksum_v1)
		return checksum_is_right(journal, offsetof(struct jbd2_commit_block, h_chksum));
	if (commit.h_chksum_type == JBD2_CRC32_CHKSUM && commit.h_chksum_size == JBD2_CRC32_CHKSUM_SIZE)
		return stored == crc;
	return commit.h_chksum_type == 0 && commit.h_chksum_size == 0 && stored == 0;
}

/*
 * One pass over the log, at most once around. Stale blocks of earlier rounds end it: their sequence is another, or, where the disk
 * was used for something else before, their checksum is wrong.
 */
static int go_through(struct journal *journal, enum pass pass)
{
	uint32_t at = journal->start, sequence = journal->sequence, left = journal->end - journal->first, crc = UINT32_MAX;
	bool doubtful = false;
	int ret = 0;
	while (!ret && left && (pass == PASS_SCAN || sequence != journal->end_sequence)) {
		struct jbd2_header header;
		ret = read_block(journal, at, journal->block);
		memcpy(&header, journal->block, sizeof(header));
		if (ret || be32_get(header.h_magic) != JBD2_MAGIC || be32_get(header.h_sequence) != sequence)
			break;
		const uint32_t type = be32_get(header.h_blocktype);
		at = next_block(journal, at);
		left--;
		if (type == JBD2_TYPE_DESCRIPTOR) {
			doubtful |= !checksum_is_right(journal, tail_offset(journal));
			ret = pass_descriptor(journal, pass, sequence, &at, &left,
					      pass == PASS_SCAN && journal->checksum_v1 ? &crc : NULL);
		} else if (type == JBD2_TYPE_REVOKE) {
			doubtful |= !checksum_is_right(journal, tail_offset(journal));
			ret = pass == PASS_REVOKE ? take_revokes(journal, sequence) : 0;
		} else if (type == JBD2_TYPE_COMMIT) {
			if (pass == PASS_SCAN && !commit_is_right(journal, crc))
				break;
			if (doubtful)
				ret = damaged(journal->err, "transaction %u of the journal has a wrong checksum", sequence);
			sequence++;
			crc = UINT32_MAX;
		} else {
			break;
		}
	}
	if (pass == PASS_SCAN)
		journal->end_sequence = sequence;
	return ret;
}

/* ---- the superblock ---------------------------------------------------------------------------------------------------------- */

static int check_super(struct journal *journal, uint64_t inode_blocks)
{
	const struct jbd2_superblock *super = &journal->super;
	const uint32_t type = be32_get(super->h_blocktype);
	if (be32_get(super->h_magic) != JBD2_MAGIC || (type != JBD2_TYPE_SUPERBLOCK_V1 && type != JBD2_TYPE_SUPERBLOCK_V2))
		return damaged(journal->err, "%s", "the journal has no superblock");
	const uint32_t known =
	    JBD2_INCOMPAT_REVOKE | JBD2_INCOMPAT_64BIT | JBD2_INCOMPAT_ASYNC_COMMIT | JBD2_INCOMPAT_CSUM_V2 | JBD2_INCOMPAT_CSUM_V3;
	journal->incompat = type == JBD2_TYPE_SUPERBLOCK_V2 ? be32_get(super->s_feature_incompat) : 0;
	if (journal->incompat & JBD2_INCOMPAT_FAST_COMMIT)
		return error_set(journal->err, -ENOTSUP,
				 "the journal needs recovery and has the feature 'fast_commit', which is not understood here");
	if (journal->incompat & ~known)
		return error_set(journal->err, -ENOTSUP, "the journal has incompatible features 0x%x, which are not known here",
				 journal->incompat & ~known);
	journal->checksums = journal->incompat & (JBD2_INCOMPAT_CSUM_V2 | JBD2_INCOMPAT_CSUM_V3);
	journal->checksum_v1 =
	    type == JBD2_TYPE_SUPERBLOCK_V2 && !journal->checksums && (be32_get(super->s_feature_compat) & JBD2_COMPAT_CHECKSUM);
	journal->seed = crc32c(UINT32_MAX, super->s_uuid, sizeof(super->s_uuid));
	journal->first = be32_get(super->s_first);
	journal->end = be32_get(super->s_maxlen);
	journal->start = be32_get(super->s_start);
	journal->sequence = be32_get(super->s_sequence);
	if (be32_get(super->s_blocksize) != journal->reader->block_bytes || journal->first == 0 || journal->first >= journal->end ||
	    journal->end > inode_blocks || (journal->start && (journal->start < journal->first || journal->start >= journal->end)))
		return damaged(journal->err, "the journal's superblock is wrong: blocks of %u bytes, from %u to %u, starting at %u",
			       be32_get(super->s_blocksize), journal->first, journal->end, journal->start);
	return 0;
}

static int open_journal(struct journal *journal)
{
	struct ext4_reader *reader = journal->reader;
	const uint32_t number = le32_get(reader->super.s_journal_inum);
	if (number == 0)
		return error_set(journal->err, -ENOTSUP, "the journal needs recovery and lies on another device");
	int ret = inode_read(reader, number, journal->err);
	if (ret)
		return error_prefix(journal->err, ret, "the journal");
	const uint64_t size = inode_size(inode_fields(reader));
	reader->blocks_left = reader->block_count;
	ret = extents_read(reader, number, inode_fields(reader), size, &journal->extents, journal->err);
	if (ret)
		return error_prefix(journal->err, ret, "the journal");
	journal->block = malloc(reader->block_bytes);
	journal->data = malloc(reader->block_bytes);
	if (!journal->block || !journal->data)
		return error_set(journal->err, -ENOMEM, "out of memory");
	ret = read_block(journal, 0, journal->block);
	if (ret)
		return ret;
	memcpy(&journal->super, journal->block, sizeof(journal->super));
	return check_super(journal, size / reader->block_bytes);
}

int journal_replay(struct ext4_reader *reader, struct error *err)
{
	struct journal journal = { .reader = reader, .err = err };
	int ret = open_journal(&journal);
	for (int pass = PASS_SCAN; !ret && journal.start && pass <= PASS_REPLAY; pass++)
		ret = go_through(&journal, (enum pass)pass);
	items_free(&journal.extents);
	map_free(&journal.revoked);
	free(journal.block);
	free(journal.data);
	return ret;
}
