/*
 * Extended attributes: in the inode behind its fields as far as they fit, the rest in one block of the inode's own; a value that is
 * too large for that in an inode of its own (xattr_value.c).
 *
 * A tree has attributes under their full names. ext4 knows a few prefixes by number and stores the rest of the name; names with
 * any other prefix cannot be set on Linux either and are left out, as tar does it. POSIX ACLs have a form of their own on disk,
 * shorter than the one in which programs and layers see them.
 */
#include "ext4gen/plan_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* More on one inode than any file system takes; keeps the time bounded that an inode's look-up takes. */
#define MAX_ATTRIBUTES 1024

/* The largest value that Linux lets anybody set or see. */
#define VALUE_MAX_BYTES 65536u

enum {
	BODY_BYTES = sizeof(((struct ext4_inode *)0)->i_xattr),
	BODY_HEADER_BYTES = 4,
	END_BYTES = 4, /* zeroes behind the last entry */
	BODY_MAX_ENTRIES = (BODY_BYTES - BODY_HEADER_BYTES - END_BYTES) / (int)sizeof(struct ext4_xattr_entry),
	BLOCK_MAX_ENTRIES = (int)EXT4_BLOCK_BYTES / (int)sizeof(struct ext4_xattr_entry),
};

/* An attribute as it will be stored. */
struct attribute {
	const struct tree_xattr *from;
	const char *name; /* borrowed from the tree; behind the prefix */
	uint8_t name_bytes, index;
	bool has_inode; /* the value has an inode of its own */
	uint16_t ordinal; /* among those of the inode */
	uint32_t value_bytes;
};

struct split {
	struct attribute body[BODY_MAX_ENTRIES], block[BLOCK_MAX_ENTRIES];
	uint32_t values[BODY_MAX_ENTRIES + BLOCK_MAX_ENTRIES]; /* attributes of the tree whose values have an inode, by ordinal */
	unsigned body_count, block_count, value_count;
};

/* ---- POSIX ACLs -------------------------------------------------------------------------------------------------------------- */
/*
 *   as an attribute:  version 2 (le32) | tag (le16) perm (le16) id (le32) | ...
 *   on disk:          version 1 (le32) | tag perm [id] | ...                      the id only for named users and groups
 */
enum { ACL_USER_OBJ = 1, ACL_USER = 2, ACL_GROUP_OBJ = 4, ACL_GROUP = 8, ACL_MASK = 16, ACL_OTHER = 32 };

struct acl_entry {
	le16 tag, perm;
	le32 id;
};

enum { ACL_HEADER_BYTES = 4, ACL_SHORT_BYTES = 4, ACL_VERSION_ATTRIBUTE = 2, ACL_VERSION_DISK = 1 };

static bool acl_is_named(unsigned tag)
{
	return tag == ACL_USER || tag == ACL_GROUP;
}

static struct acl_entry acl_entry_at(const uint8_t *value, uint32_t i)
{
	struct acl_entry entry;
	memcpy(&entry, value + ACL_HEADER_BYTES + i * sizeof(entry), sizeof(entry));
	return entry;
}

/*
 * Checks a value and tells its size on disk; 0: there is nothing to store. The order is the kernel's (posix_acl_valid()):
 * owner, users, group, groups, mask, others; tags ascend, and a mask is there when somebody is named.
 */
static int acl_disk_bytes(const uint8_t *value, uint32_t bytes, uint32_t *disk_bytes)
{
	le32 version;
	if (bytes < ACL_HEADER_BYTES || (bytes - ACL_HEADER_BYTES) % sizeof(struct acl_entry))
		return -EINVAL;
	memcpy(&version, value, sizeof(version));
	if (le32_get(version) != ACL_VERSION_ATTRIBUTE)
		return -EINVAL;
	const uint32_t count = (bytes - ACL_HEADER_BYTES) / (uint32_t)sizeof(struct acl_entry);
	unsigned seen = 0, last = 0;
	*disk_bytes = ACL_HEADER_BYTES;
	for (uint32_t i = 0; i < count; i++) {
		const unsigned tag = le16_get(acl_entry_at(value, i).tag);
		const bool known =
		    tag == ACL_USER_OBJ || tag == ACL_GROUP_OBJ || tag == ACL_MASK || tag == ACL_OTHER || acl_is_named(tag);
		if (!known || tag < last || (tag == last && !acl_is_named(tag)))
			return -EINVAL;
		last = tag;
		seen |= tag;
		*disk_bytes += acl_is_named(tag) ? (uint32_t)sizeof(struct acl_entry) : ACL_SHORT_BYTES;
	}
	const bool named = seen & (ACL_USER | ACL_GROUP);
	const unsigned needed = ACL_USER_OBJ | ACL_GROUP_OBJ | ACL_OTHER | (named ? ACL_MASK : 0);
	if (count && (seen & needed) != needed)
		return -EINVAL;
	if (count == 0)
		*disk_bytes = 0;
	return 0;
}

static void put_acl(const uint8_t *value, uint32_t bytes, uint8_t *to)
{
	const le32 version = le32_make(ACL_VERSION_DISK);
	const uint32_t count = (bytes - ACL_HEADER_BYTES) / (uint32_t)sizeof(struct acl_entry);
	memcpy(to, &version, sizeof(version));
	to += ACL_HEADER_BYTES;
	for (uint32_t i = 0; i < count; i++) {
		const struct acl_entry entry = acl_entry_at(value, i);
		const size_t length = acl_is_named(le16_get(entry.tag)) ? sizeof(entry) : ACL_SHORT_BYTES;
		memcpy(to, &entry, length);
		to += length;
	}
}

/* ---- names and places -------------------------------------------------------------------------------------------------------- */

static const struct prefix {
	const char *text;
	uint8_t index;
	bool whole; /* the text is the whole name */
} prefixes[] = {
	{ "user.", EXT4_XATTR_INDEX_USER, false },
	{ "trusted.", EXT4_XATTR_INDEX_TRUSTED, false },
	{ "security.", EXT4_XATTR_INDEX_SECURITY, false },
	{ "system.posix_acl_access", EXT4_XATTR_INDEX_POSIX_ACL_ACCESS, true },
	{ "system.posix_acl_default", EXT4_XATTR_INDEX_POSIX_ACL_DEFAULT, true },
};

static bool is_acl(const struct attribute *a)
{
	return a->index == EXT4_XATTR_INDEX_POSIX_ACL_ACCESS || a->index == EXT4_XATTR_INDEX_POSIX_ACL_DEFAULT;
}

static const uint8_t *value_of(const struct ext4_plan *plan, const struct tree_xattr *x)
{
	return (const uint8_t *)plan->tree->strings + x->value;
}

/* Finds the prefix. Returns false for an attribute that is left out. */
static bool find_prefix(const struct ext4_plan *plan, const struct tree_xattr *x, struct attribute *a)
{
	const char *name = plan->tree->strings + x->name;
	for (size_t i = 0; i < sizeof(prefixes) / sizeof(prefixes[0]); i++) {
		const size_t length = strlen(prefixes[i].text);
		if (x->name_bytes < length || memcmp(name, prefixes[i].text, length) != 0)
			continue;
		const size_t rest = x->name_bytes - length;
		if (prefixes[i].whole ? rest != 0 : rest == 0 || rest > UINT8_MAX)
			continue;
		*a = (struct attribute){
			.from = x,
			.name = name + length,
			.name_bytes = (uint8_t)rest,
			.index = prefixes[i].index,
			.value_bytes = x->value_bytes,
		};
		return true;
	}
	return false;
}

static uint32_t entry_bytes(const struct attribute *a)
{
	return ((uint32_t)sizeof(struct ext4_xattr_entry) + a->name_bytes + 3) & ~3u;
}

static uint32_t padded(uint32_t value_bytes)
{
	return (value_bytes + 3) & ~3u;
}

static uint32_t stored_bytes(const struct attribute *a)
{
	return entry_bytes(a) + (a->has_inode ? 0 : padded(a->value_bytes));
}

/*
 * Decides where each attribute goes: into the inode whatever fits, in the tree's order, then into the block, but values of more than
 * `most` bytes, and what does not fit, into inodes of their own. Returns 0, -EINVAL for a bad ACL, or -E2BIG when there is no room
 * for the entries.
 */
static int split_with_limit(const struct ext4_plan *plan, const struct tree_inode *from, uint32_t most, struct split *split)
{
	uint32_t body_left = BODY_BYTES - BODY_HEADER_BYTES - END_BYTES;
	uint32_t block_left = EXT4_BLOCK_BYTES - (uint32_t)sizeof(struct ext4_xattr_header) - END_BYTES;
	split->body_count = split->block_count = split->value_count = 0;
	for (uint32_t i = 0; i < from->xattr_count; i++) {
		const struct tree_xattr *x = &plan->tree->xattrs[from->first_xattr + i];
		struct attribute a;
		if (!find_prefix(plan, x, &a))
			continue;
		if (is_acl(&a)) {
			const int rc = acl_disk_bytes(value_of(plan, x), x->value_bytes, &a.value_bytes);
			if (rc)
				return rc;
			if (a.value_bytes == 0)
				continue;
		}
		if (a.value_bytes > VALUE_MAX_BYTES)
			return -E2BIG;
		/* ACLs have another form on disk; none is so large. */
		if (stored_bytes(&a) > body_left && (a.value_bytes > most || stored_bytes(&a) > block_left) && !is_acl(&a)) {
			a.has_inode = true;
			a.ordinal = (uint16_t)split->value_count;
		}
		const uint32_t bytes = stored_bytes(&a);
		if (bytes <= body_left) {
			body_left -= bytes;
			split->body[split->body_count++] = a;
		} else if (bytes <= block_left) {
			block_left -= bytes;
			split->block[split->block_count++] = a;
		} else {
			return -E2BIG;
		}
		if (a.has_inode)
			split->values[split->value_count++] = from->first_xattr + i;
	}
	return 0;
}

/* Nearly always the first attempt succeeds. Small values in the block may leave no room for entries of later ones: out with them. */
static int split_attributes(const struct ext4_plan *plan, uint32_t inode, struct split *split)
{
	int rc = -E2BIG;
	for (uint32_t most = EXT4_BLOCK_BYTES; rc == -E2BIG && most >= 16; most /= 4)
		rc = split_with_limit(plan, &plan->tree->inodes[inode], most, split);
	return rc;
}

int xattr_plan(struct ext4_plan *plan, uint32_t inode, bool *needs_block, struct error *err)
{
	const struct tree *tree = plan->tree;
	const struct tree_inode *from = &tree->inodes[inode];
	char path[256];
	if (from->first_xattr > tree->xattr_count || from->xattr_count > tree->xattr_count - from->first_xattr)
		return error_set(err, -EINVAL, "file system: the tree is damaged: the attributes of inode %u", inode);
	for (uint32_t i = 0; i < from->xattr_count; i++) {
		const struct tree_xattr *x = &tree->xattrs[from->first_xattr + i];
		if ((uint64_t)x->name + x->name_bytes > tree->string_bytes ||
		    (uint64_t)x->value + x->value_bytes > tree->string_bytes)
			return error_set(err, -EINVAL, "file system: the tree is damaged: attribute %u", from->first_xattr + i);
	}
	struct split split;
	int rc = from->xattr_count > MAX_ATTRIBUTES ? -E2BIG : split_attributes(plan, inode, &split);
	if (rc == -E2BIG)
		return error_set(
		    err, rc,
		    "file system: '%s': more extended attributes than ext4 can hold: 4096 bytes of names, or a value of more "
		    "than 65536 bytes",
		    plan_inode_path(tree, inode, path, sizeof(path)));
	if (rc)
		return error_set(err, rc, "file system: '%s': an attribute system.posix_acl_* is no valid ACL",
				 plan_inode_path(tree, inode, path, sizeof(path)));
	*needs_block = split.block_count != 0;
	for (unsigned i = 0; i < split.value_count && rc == 0; i++)
		rc = values_add(plan, inode, split.values[i]);
	return rc;
}

bool xattr_needs_block(const struct ext4_plan *plan, uint32_t inode)
{
	struct split split;
	return split_attributes(plan, inode, &split) == 0 && split.block_count != 0;
}

/* ---- writing ----------------------------------------------------------------------------------------------------------------- */

/*
 * The hash by which Linux finds blocks with the same attributes, in order to share them; over the name and the padded value, as whose
 * bytes the hash of a value with an inode counts.
 */
static uint32_t hash_attribute(const struct attribute *a, const uint8_t *value, uint32_t value_bytes)
{
	uint32_t hash = 0;
	for (unsigned i = 0; i < a->name_bytes; i++)
		hash = (hash << 5) ^ (hash >> 27) ^ (uint8_t)a->name[i];
	for (uint32_t i = 0; i < padded(value_bytes); i += 4) {
		le32 word;
		memcpy(&word, value + i, sizeof(word));
		hash = (hash << 16) ^ (hash >> 16) ^ le32_get(word);
	}
	return hash;
}

/* Writes the value that ends before `end`, refers to it in the entry, and tells the bytes used. `e_value_offs` counts from `base`. */
static uint32_t put_value(const struct ext4_plan *plan, const struct attribute *a, uint8_t *base, uint8_t *end,
			  struct ext4_xattr_entry *entry)
{
	const uint32_t bytes = padded(a->value_bytes);
	const uint8_t *value = value_of(plan, a->from);
	if (bytes == 0)
		return 0;
	entry->e_value_offs = le16_make((uint16_t)(end - bytes - base));
	if (is_acl(a))
		put_acl(value, a->from->value_bytes, end - bytes);
	else
		memcpy(end - bytes, value, a->value_bytes);
	return bytes;
}

/*
 * Writes the entries of `inode` from `entries` on and values downward from `end`; e_value_offs counts from `base`. Everything is
 * zeroed before. With `hash_all` each entry gets its hash, and all of them together go to *hash_all; without, only those that refer
 * to inodes do.
 */
static void put_attributes(const struct ext4_plan *plan, uint32_t inode, const struct attribute *list, unsigned count,
			   uint8_t *base, uint8_t *entries, uint8_t *end, uint32_t *hash_all)
{
	uint32_t all = 0;
	bool shareable = true;
	for (unsigned i = 0; i < count; i++) {
		const struct attribute *a = &list[i];
		struct ext4_xattr_entry entry = {
			.e_name_len = a->name_bytes,
			.e_name_index = a->index,
			.e_value_size = le32_make(a->value_bytes),
		};
		uint32_t hash = 0;
		if (a->has_inode) {
			const uint32_t k = values_first(plan, inode) + a->ordinal;
			const le32 of_value = le32_make(value_hash(plan, k));
			entry.e_value_inum = le32_make(plan_inode_number(plan, value_inode(plan, k)));
			hash = hash_attribute(a, of_value.bytes, sizeof(of_value));
		} else {
			end -= put_value(plan, a, base, end, &entry);
			if (hash_all)
				hash = hash_attribute(a, end, a->value_bytes);
		}
		entry.e_hash = le32_make(hash);
		shareable = shareable && hash;
		all = (all << 16) ^ (all >> 16) ^ hash;
		memcpy(entries, &entry, sizeof(entry));
		memcpy(entries + sizeof(entry), a->name, a->name_bytes);
		entries += entry_bytes(a);
	}
	if (hash_all)
		*hash_all = shareable ? all : 0;
}

void fill_xattr_inode(const struct ext4_plan *plan, uint32_t inode, uint8_t *area)
{
	struct split split;
	if (split_attributes(plan, inode, &split) || split.body_count == 0)
		return;
	const le32 magic = le32_make(EXT4_XATTR_MAGIC);
	memcpy(area, &magic, sizeof(magic));
	uint8_t *entries = area + BODY_HEADER_BYTES;
	put_attributes(plan, inode, split.body, split.body_count, entries, entries, area + BODY_BYTES, NULL);
}

/* The order in a block: by number of the prefix, then length, then bytes of the rest of the name. */
static int compare_attributes(const struct attribute *a, const struct attribute *b)
{
	if (a->index != b->index)
		return a->index - b->index;
	if (a->name_bytes != b->name_bytes)
		return a->name_bytes - b->name_bytes;
	return memcmp(a->name, b->name, a->name_bytes);
}

static void sort_attributes(struct attribute *list, unsigned count)
{
	for (unsigned i = 1; i < count; i++) {
		const struct attribute moved = list[i];
		unsigned k = i;
		for (; k > 0 && compare_attributes(&list[k - 1], &moved) > 0; k--)
			list[k] = list[k - 1];
		list[k] = moved;
	}
}

void fill_xattr_block(const struct ext4_plan *plan, uint32_t inode, uint32_t block_number, uint8_t *block)
{
	struct split split;
	memset(block, 0, EXT4_BLOCK_BYTES);
	if (split_attributes(plan, inode, &split))
		return;
	sort_attributes(split.block, split.block_count);
	uint32_t hash;
	put_attributes(plan, inode, split.block, split.block_count, block, block + sizeof(struct ext4_xattr_header),
		       block + EXT4_BLOCK_BYTES, &hash);
	const struct ext4_xattr_header header = {
		.h_magic = le32_make(EXT4_XATTR_MAGIC),
		.h_refcount = le32_make(1),
		.h_blocks = le32_make(1),
		.h_hash = le32_make(hash),
	};
	memcpy(block, &header, sizeof(header));
	if (plan->metadata_csum) {
		const le64 number = le64_make(block_number);
		const uint32_t crc = crc32c(crc32c(plan->csum_seed, &number, sizeof(number)), block, EXT4_BLOCK_BYTES);
		((struct ext4_xattr_header *)block)->h_checksum = le32_make(crc);
	}
}
