/*
 * The dumper; see ext4_dump.h. A structure is printed from its table, a list is a walk that copies each element before it looks.
 */
#include "ext4gen/ext4_dump.h"

#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <time.h>

#include "base/error.h"
#include "ext4gen/ext4_disk.h"

/* ---- what a field is --------------------------------------------------------------------------------------------------------- */

/* How a value is shown; the tables' last column. */
enum ext4_form {
	FORM_DEC,
	FORM_HEX,
	FORM_OCTAL,
	FORM_TIME, /* seconds since 1970, the low 32 bits */
	FORM_UUID,
	FORM_TEXT, /* up to a NUL */
	FORM_BYTES,
	FORM_HIDE, /* reserved */
	FORM_FILE_TYPE,
	FORM_STATE, /* from here on: sets of flags */
	FORM_COMPAT,
	FORM_INCOMPAT,
	FORM_RO_COMPAT,
	FORM_BG_FLAGS,
	FORM_INODE_FLAGS,
};

struct field {
	const char *name;
	uint16_t offset, element_bytes, count; /* count 0: not an array */
	bool big_endian;
	enum ext4_form form;
};

#define FIELD(offset, type, name, form) { #name, offset, sizeof(type), 0, __builtin_types_compatible_p(type, be32), FORM_##form },
#define ARRAY(offset, type, name, count, form)                                                                                     \
	{ #name, offset, sizeof(type), count, __builtin_types_compatible_p(type, be32), FORM_##form },
#define TABLE(name, FIELDS) static const struct field name[] = { FIELDS(FIELD, ARRAY){ 0 } }

TABLE(super_block_fields, EXT4_SUPER_BLOCK_FIELDS);
TABLE(group_desc_fields, EXT4_GROUP_DESC_FIELDS);
TABLE(inode_fields, EXT4_INODE_FIELDS);
TABLE(extent_header_fields, EXT4_EXTENT_HEADER_FIELDS);
TABLE(extent_fields, EXT4_EXTENT_FIELDS);
TABLE(extent_idx_fields, EXT4_EXTENT_IDX_FIELDS);
TABLE(dir_entry_fields, EXT4_DIR_ENTRY_FIELDS);
TABLE(dx_root_info_fields, EXT4_DX_ROOT_INFO_FIELDS);
TABLE(dx_countlimit_fields, EXT4_DX_COUNTLIMIT_FIELDS);
TABLE(dx_entry_fields, EXT4_DX_ENTRY_FIELDS);
TABLE(xattr_header_fields, EXT4_XATTR_HEADER_FIELDS);
TABLE(xattr_entry_fields, EXT4_XATTR_ENTRY_FIELDS);
TABLE(jbd2_superblock_fields, JBD2_SUPERBLOCK_FIELDS);

/* Names of bits, lowest first; NULL: has none that we know. The specification's words without their prefix, as dumpe2fs has them. */
static const char *const state_names[32] = { "valid", "error", "orphans" };
static const char *const compat_names[32] = {
	"dir_prealloc",  "imagic_inodes",  "has_journal",   "ext_attr",    "resize_inode", "dir_index",   "lazy_bg",
	"exclude_inode", "exclude_bitmap", "sparse_super2", "fast_commit", NULL,           "orphan_file",
};
static const char *const incompat_names[32] = {
	"compression", "filetype",    "needs_recovery", "journal_dev", "meta_bg", NULL,      "extent",
	"64bit",       "mmp",         "flex_bg",        "ea_inode",    NULL,      "dirdata", "metadata_csum_seed",
	"large_dir",   "inline_data", "encrypt",        "casefold",
};
static const char *const ro_compat_names[32] = {
	"sparse_super", "large_file",   "btree_dir",     "huge_file", "uninit_bg",      "dir_nlink",
	"extra_isize",  "has_snapshot", "quota",         "bigalloc",  "metadata_csum",  "replica",
	"read-only",    "project",      "shared_blocks", "verity",    "orphan_present",
};
static const char *const bg_flag_names[32] = { "inode_uninit", "block_uninit", "inode_zeroed" };
static const char *const inode_flag_names[32] = {
	"secrm",
	"unrm",
	"compr",
	"sync",
	"immutable",
	"append",
	"nodump",
	"noatime",
	"dirty",
	"comprblk",
	"nocompr",
	"encrypt",
	"index",
	"imagic",
	"journal_data",
	"notail",
	"dirsync",
	"topdir",
	"huge_file",
	"extents",
	"verity",
	"ea_inode",
	"eofblocks",
	NULL,
	"snapfile",
	"dax",
	"snapfile_deleted",
	"snapfile_shrunk",
	"inline_data",
	"projinherit",
	"casefold",
};

static const char *const *flag_names(enum ext4_form form)
{
	switch (form) {
	case FORM_STATE:
		return state_names;
	case FORM_COMPAT:
		return compat_names;
	case FORM_INCOMPAT:
		return incompat_names;
	case FORM_RO_COMPAT:
		return ro_compat_names;
	case FORM_BG_FLAGS:
		return bg_flag_names;
	default:
		return inode_flag_names;
	}
}

static const char *file_type_name(uint64_t type)
{
	static const char *const names[] = { "unknown", "file", "directory", "char", "block", "fifo", "socket", "symlink" };
	return type < sizeof(names) / sizeof(names[0]) ? names[type] : "?";
}

/* ---- printing ---------------------------------------------------------------------------------------------------------------- */

/* Where the next member goes: JSON needs to know what stands before it, text whether members share a line. */
struct printer {
	FILE *out;
	bool json;
	bool in_list; /* in an element of a list */
	bool first; /* nothing printed yet in this object */
};

static void put_name(struct printer *p, const char *name)
{
	if (p->json)
		fprintf(p->out, "%s\"%s\":", p->first ? "" : ",", name);
	else if (p->in_list)
		fprintf(p->out, "%s%s=", p->first ? "  " : " ", name);
	else
		fprintf(p->out, "%-25s ", name);
	p->first = false;
}

static void end_value(const struct printer *p)
{
	if (!p->json && !p->in_list)
		fputc('\n', p->out);
}

/* A string between quotes in JSON; what error_quote() made has no control characters. */
static void put_string(const struct printer *p, const void *bytes, size_t length)
{
	char quoted[4 * 4096 + 8];
	error_quote(quoted, sizeof(quoted), bytes, length < 4096 ? length : 4096);
	if (!p->json) {
		fprintf(p->out, "'%s'", quoted);
		return;
	}
	fputc('"', p->out);
	for (const char *c = quoted; *c; c++) {
		if (*c == '"' || *c == '\\')
			fputc('\\', p->out);
		fputc(*c, p->out);
	}
	fputc('"', p->out);
}

static void put_hex_bytes(const struct printer *p, const uint8_t *bytes, size_t length, bool uuid)
{
	if (p->json)
		fputc('"', p->out);
	for (size_t i = 0; i < length; i++)
		fprintf(p->out, "%s%02x", uuid && (i == 4 || i == 6 || i == 8 || i == 10) ? "-" : "", bytes[i]);
	if (p->json)
		fputc('"', p->out);
}

static void put_flags(const struct printer *p, enum ext4_form form, uint64_t value)
{
	const char *const *names = flag_names(form);
	const char *const quote = p->json ? "\"" : "";
	const char *separator = "";
	fputs(p->json ? "[" : value ? "" : "-", p->out);
	for (unsigned bit = 0; bit < 32; bit++) {
		if (!(value >> bit & 1))
			continue;
		fputs(separator, p->out);
		if (names[bit])
			fprintf(p->out, "%s%s%s", quote, names[bit], quote);
		else
			fprintf(p->out, "%s0x%" PRIx64 "%s", quote, (uint64_t)1 << bit, quote);
		separator = ",";
	}
	if (p->json)
		fputc(']', p->out);
}

static void put_number(const struct printer *p, enum ext4_form form, uint64_t value)
{
	char text[64] = "";
	if (form >= FORM_STATE) {
		put_flags(p, form, value);
		return;
	}
	if (p->json || form == FORM_DEC || (form == FORM_TIME && p->in_list)) {
		fprintf(p->out, "%" PRIu64, value);
		return;
	}
	if (form == FORM_TIME) {
		const time_t seconds = (int32_t)value;
		struct tm tm;
		if (value && gmtime_r(&seconds, &tm))
			strftime(text, sizeof(text), " (%Y-%m-%d %H:%M:%S UTC)", &tm);
		fprintf(p->out, "%" PRIu64 "%s", value, text);
	} else if (form == FORM_FILE_TYPE) {
		fprintf(p->out, "%s", file_type_name(value));
	} else {
		fprintf(p->out, form == FORM_OCTAL ? "%07" PRIo64 : "0x%" PRIx64, value);
	}
}

static uint64_t number_at(const uint8_t *bytes, unsigned length, bool big_endian)
{
	uint64_t value = 0;
	for (unsigned i = 0; i < length; i++)
		value = value << 8 | bytes[big_endian ? i : length - 1 - i];
	return value;
}

static void put_array(const struct printer *p, const struct field *field, const uint8_t *at)
{
	const size_t length = (size_t)field->count * field->element_bytes;
	if (field->form == FORM_UUID || field->form == FORM_BYTES) {
		put_hex_bytes(p, at, length, field->form == FORM_UUID);
	} else if (field->form == FORM_TEXT) {
		put_string(p, at, strnlen((const char *)at, length));
	} else {
		fputs(p->json ? "[" : "", p->out);
		for (unsigned i = 0; i < field->count; i++) {
			fputs(i == 0 ? "" : p->json ? "," : " ", p->out);
			put_number(p, field->form,
				   number_at(at + i * field->element_bytes, field->element_bytes, field->big_endian));
		}
		fputs(p->json ? "]" : "", p->out);
	}
}

/* Prints the fields of a structure; the caller has made sure that all of it is there. */
static void put_fields(struct printer *p, const struct field *fields, const uint8_t *bytes)
{
	for (const struct field *field = fields; field->name; field++) {
		if (field->form == FORM_HIDE)
			continue;
		put_name(p, field->name);
		if (field->count)
			put_array(p, field, bytes + field->offset);
		else
			put_number(p, field->form, number_at(bytes + field->offset, field->element_bytes, field->big_endian));
		end_value(p);
	}
}

static size_t size_of(const struct field *fields)
{
	while (fields[1].name)
		fields++;
	return fields->offset + (size_t)fields->element_bytes * (fields->count ? fields->count : 1);
}

static struct printer begin(FILE *out, enum ext4_dump_format format)
{
	const struct printer p = { .out = out, .json = format == EXT4_DUMP_JSON, .first = true };
	if (p.json)
		fputc('{', out);
	return p;
}

static int end(struct printer *p, const char *damage)
{
	if (damage) {
		put_name(p, "damaged");
		put_string(p, damage, strlen(damage));
		end_value(p);
	}
	if (p->json)
		fputc('}', p->out);
	return damage ? -EINVAL : 0;
}

static void begin_list(struct printer *p)
{
	if (p->json) {
		put_name(p, "entries");
		fputc('[', p->out);
	}
	p->in_list = true;
}

static void begin_element(struct printer *p, bool first)
{
	if (p->json)
		fputs(first ? "{" : ",{", p->out);
	p->first = true;
}

static void end_element(const struct printer *p)
{
	fputc(p->json ? '}' : '\n', p->out);
}

static void end_list(struct printer *p)
{
	if (p->json)
		fputc(']', p->out);
	p->in_list = false;
	p->first = false;
}

/* ---- single structures ------------------------------------------------------------------------------------------------------- */

static const char too_short[] = "too short";
static const char wrong_magic[] = "wrong magic number";

static int dump_one(FILE *out, enum ext4_dump_format format, const struct field *fields, const void *bytes, size_t length,
		    size_t magic_offset, uint32_t magic, unsigned magic_bytes)
{
	struct printer p = begin(out, format);
	const uint8_t *at = bytes;
	if (length < size_of(fields))
		return end(&p, too_short);
	put_fields(&p, fields, at);
	const bool sound = magic_bytes == 0 || number_at(at + magic_offset, magic_bytes, fields == jbd2_superblock_fields) == magic;
	return end(&p, sound ? NULL : wrong_magic);
}

int ext4_dump_super_block(FILE *out, enum ext4_dump_format format, const void *bytes, size_t length)
{
	return dump_one(out, format, super_block_fields, bytes, length, offsetof(struct ext4_super_block, s_magic),
			EXT4_SUPER_MAGIC, 2);
}

int ext4_dump_group_desc(FILE *out, enum ext4_dump_format format, const void *bytes, size_t length)
{
	return dump_one(out, format, group_desc_fields, bytes, length, 0, 0, 0);
}

int ext4_dump_jbd2_superblock(FILE *out, enum ext4_dump_format format, const void *bytes, size_t length)
{
	return dump_one(out, format, jbd2_superblock_fields, bytes, length, 0, JBD2_MAGIC, 4);
}

int ext4_dump_inode(FILE *out, enum ext4_dump_format format, const void *bytes, size_t length)
{
	return dump_one(out, format, inode_fields, bytes, length, 0, 0, 0);
}

/* ---- lists of structures of one size ----------------------------------------------------------------------------------------- */

/* Prints up to `count` elements, as far as the bytes go. Returns whether all were there. */
static bool put_elements(struct printer *p, const struct field *fields, uint32_t count, const uint8_t *bytes, size_t length)
{
	const size_t size = size_of(fields);
	begin_list(p);
	uint32_t i = 0;
	for (; i < count && (i + 1) * size <= length; i++) {
		begin_element(p, i == 0);
		put_fields(p, fields, bytes + i * size);
		end_element(p);
	}
	end_list(p);
	return i == count;
}

int ext4_dump_extent_node(FILE *out, enum ext4_dump_format format, const void *bytes, size_t length)
{
	struct printer p = begin(out, format);
	struct ext4_extent_header header;
	if (length < sizeof(header))
		return end(&p, too_short);
	memcpy(&header, bytes, sizeof(header));
	put_fields(&p, extent_header_fields, bytes);
	if (le16_get(header.eh_magic) != EXT4_EXTENT_MAGIC)
		return end(&p, wrong_magic);
	const bool whole =
	    put_elements(&p, le16_get(header.eh_depth) ? extent_idx_fields : extent_fields, le16_get(header.eh_entries),
			 (const uint8_t *)bytes + sizeof(header), length - sizeof(header));
	return end(&p, whole ? NULL : "more entries than there is room for");
}

static int put_dx_entries(struct printer *p, const uint8_t *bytes, size_t length)
{
	struct ext4_dx_countlimit countlimit;
	if (length < sizeof(struct ext4_dx_entry))
		return end(p, too_short);
	memcpy(&countlimit, bytes, sizeof(countlimit));
	put_fields(p, dx_countlimit_fields, bytes);
	const bool whole = put_elements(p, dx_entry_fields, le16_get(countlimit.count), bytes, length);
	return end(p, whole ? NULL : "more entries than there is room for");
}

int ext4_dump_dx_root(FILE *out, enum ext4_dump_format format, const void *bytes, size_t length)
{
	struct printer p = begin(out, format);
	const uint8_t *at = bytes;
	if (length < EXT4_DX_ROOT_ENTRIES_OFFSET)
		return end(&p, too_short);
	put_fields(&p, dx_root_info_fields, at + EXT4_DX_ROOT_ENTRIES_OFFSET - sizeof(struct ext4_dx_root_info));
	return put_dx_entries(&p, at + EXT4_DX_ROOT_ENTRIES_OFFSET, length - EXT4_DX_ROOT_ENTRIES_OFFSET);
}

int ext4_dump_dx_node(FILE *out, enum ext4_dump_format format, const void *bytes, size_t length)
{
	struct printer p = begin(out, format);
	if (length < EXT4_DX_NODE_ENTRIES_OFFSET)
		return end(&p, too_short);
	return put_dx_entries(&p, (const uint8_t *)bytes + EXT4_DX_NODE_ENTRIES_OFFSET, length - EXT4_DX_NODE_ENTRIES_OFFSET);
}

/* ---- names and attributes ---------------------------------------------------------------------------------------------------- */

/* Prints the entry at the start of the bytes and tells how long it is. Returns what is wrong with it, or NULL. */
static const char *put_dir_entry_fields(struct printer *p, const uint8_t *bytes, size_t length, size_t *used)
{
	struct ext4_dir_entry entry;
	if (length < sizeof(entry))
		return "an entry that is cut";
	memcpy(&entry, bytes, sizeof(entry));
	*used = le16_get(entry.rec_len);
	put_fields(p, dir_entry_fields, bytes);
	if (*used < sizeof(entry) || *used % 4 || *used > length || *used < sizeof(entry) + entry.name_len)
		return "an entry of impossible length";
	put_name(p, "name");
	put_string(p, bytes + sizeof(entry), le32_get(entry.inode) ? entry.name_len : 0);
	return NULL;
}

int ext4_dump_dir_block(FILE *out, enum ext4_dump_format format, const void *bytes, size_t length)
{
	struct printer p = begin(out, format);
	const char *damage = length ? NULL : too_short;
	begin_list(&p);
	for (size_t at = 0, used = 0; at < length && !damage; at += used) {
		begin_element(&p, at == 0);
		damage = put_dir_entry_fields(&p, (const uint8_t *)bytes + at, length - at, &used);
		end_element(&p);
	}
	end_list(&p);
	return end(&p, damage);
}

/* As put_dir_entry_fields(); values are found from `base` on. */
static const char *put_xattr_entry_fields(struct printer *p, const uint8_t *bytes, size_t length, const uint8_t *base,
					  size_t base_length, size_t *used)
{
	struct ext4_xattr_entry entry;
	if (length < sizeof(entry))
		return "an entry that is cut";
	memcpy(&entry, bytes, sizeof(entry));
	*used = (sizeof(entry) + entry.e_name_len + 3u) & ~(size_t)3;
	put_fields(p, xattr_entry_fields, bytes);
	if (*used > length)
		return "a name that is cut";
	put_name(p, "name");
	put_string(p, bytes + sizeof(entry), entry.e_name_len);
	if (le32_get(entry.e_value_inum))
		return NULL;
	const size_t offset = le16_get(entry.e_value_offs), size = le32_get(entry.e_value_size);
	if (size && (offset > base_length || size > base_length - offset))
		return "a value that lies outside";
	put_name(p, "value");
	put_string(p, size ? base + offset : base, size);
	return NULL;
}

/* The list ends with four zero bytes, or where the bytes end. */
static const char *put_xattr_entries(struct printer *p, const uint8_t *bytes, size_t length, const uint8_t *base,
				     size_t base_length)
{
	const char *damage = NULL;
	begin_list(p);
	for (size_t at = 0, used = 0; !damage && length - at >= 4 && number_at(bytes + at, 4, false) != 0; at += used) {
		begin_element(p, at == 0);
		damage = put_xattr_entry_fields(p, bytes + at, length - at, base, base_length, &used);
		end_element(p);
	}
	end_list(p);
	return damage;
}

int ext4_dump_xattr_block(FILE *out, enum ext4_dump_format format, const void *bytes, size_t length)
{
	struct printer p = begin(out, format);
	struct ext4_xattr_header header;
	if (length < sizeof(header))
		return end(&p, too_short);
	memcpy(&header, bytes, sizeof(header));
	put_fields(&p, xattr_header_fields, bytes);
	if (le32_get(header.h_magic) != EXT4_XATTR_MAGIC)
		return end(&p, wrong_magic);
	const uint8_t *base = bytes;
	return end(&p, put_xattr_entries(&p, base + sizeof(header), length - sizeof(header), base, length));
}

int ext4_dump_xattr_inode(FILE *out, enum ext4_dump_format format, const void *bytes, size_t length)
{
	struct printer p = begin(out, format);
	const uint8_t *base = bytes;
	/* Nothing there is no damage: most inodes have no attributes. */
	if (length < sizeof(le32) || number_at(base, 4, false) == 0)
		return end(&p, length < sizeof(le32) ? too_short : NULL);
	if (number_at(base, 4, false) != EXT4_XATTR_MAGIC)
		return end(&p, wrong_magic);
	base += sizeof(le32);
	length -= sizeof(le32);
	return end(&p, put_xattr_entries(&p, base, length, base, length));
}
