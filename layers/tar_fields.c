/*
 * What one header, and the extended headers before it, say of an entry: names, attributes, type, extended attributes.
 *
 * Everything can be told in several places. A GNU long name beats a PAX record, which beats a global one, which beats the header.
 */
#include "layers/tar_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static struct slice field_text(const char *field, size_t bytes)
{
	return (struct slice){ field, strnlen(field, bytes) };
}

/* ustar's name continues a prefix; GNU and v7 have none. */
static int header_path(struct tar_reader *reader, struct slice *path)
{
	const struct tar_header *header = &reader->header;
	const struct slice name = field_text(header->name, sizeof(header->name));
	const bool ustar = memcmp(header->magic, "ustar\0", 6) == 0;
	const bool star = ustar && memcmp(header->rest + sizeof(header->rest) - 4, "tar", 4) == 0;
	const struct slice prefix = field_text(header->rest, star ? 131 : 155);
	*path = name;
	if (!ustar || !prefix.length)
		return 0;
	reader->path.used = 0;
	if (array_append(&reader->path, prefix.bytes, prefix.length) || array_append(&reader->path, "/", 1) ||
	    array_append(&reader->path, name.bytes, name.length))
		return -ENOMEM;
	*path = (struct slice){ reader->path.data, reader->path.used };
	return 0;
}

int tar_find_names(struct tar_reader *reader, struct tar_entry *entry, struct error *err)
{
	const struct pax *pax = &reader->local;
	const struct tar_header *header = &reader->header;
	if (reader->has_long_name)
		entry->path = (struct slice){ reader->long_name.data, reader->long_name.used };
	else if (pax->sparse_name.bytes)
		entry->path = pax->sparse_name;
	else if (pax->path.bytes)
		entry->path = pax->path;
	else if (header_path(reader, &entry->path))
		return error_set(err, -ENOMEM, "out of memory");
	if (reader->has_long_link)
		entry->link = (struct slice){ reader->long_link.data, reader->long_link.used };
	else if (pax->link.bytes)
		entry->link = pax->link;
	else
		entry->link = field_text(header->link, sizeof(header->link));
	if (entry->path.length > TAR_PATH_MAX || entry->link.length > TAR_PATH_MAX)
		return error_set(err, -EINVAL, "a path of more than %u bytes", TAR_PATH_MAX);
	return 0;
}

/* One numeric field: a PAX record of this entry, a global one, or the header, in this order. */
static bool find_id(const struct tar_reader *reader, bool group, uint32_t *id)
{
	const struct pax *pax = (group ? reader->local.has_gid : reader->local.has_uid) ? &reader->local : &reader->global;
	const struct tar_header *header = &reader->header;
	int64_t number;
	if (group ? pax->has_gid : pax->has_uid)
		number = (int64_t)(group ? pax->gid : pax->uid);
	else if (!tar_number(group ? header->gid : header->uid, sizeof(header->uid), &number))
		return false;
	*id = (uint32_t)number;
	return number >= 0 && number <= UINT32_MAX;
}

int tar_find_attributes(const struct tar_reader *reader, struct tar_entry *entry, struct error *err)
{
	const struct tar_header *header = &reader->header;
	int64_t mode;
	if (!tar_number(header->mode, sizeof(header->mode), &mode))
		return error_set(err, -EINVAL, "malformed mode");
	entry->mode = (uint32_t)mode & 07777;
	if (!find_id(reader, false, &entry->uid))
		return error_set(err, -EINVAL, "malformed owner");
	if (!find_id(reader, true, &entry->gid))
		return error_set(err, -EINVAL, "malformed group");
	const struct pax *pax = reader->local.has_mtime ? &reader->local : &reader->global;
	entry->mtime_ns = 0;
	if (pax->has_mtime) {
		entry->mtime_s = pax->mtime_s;
		entry->mtime_ns = pax->mtime_ns;
	} else if (!tar_number(header->mtime, sizeof(header->mtime), &entry->mtime_s)) {
		return error_set(err, -EINVAL, "malformed time");
	}
	return 0;
}

static int find_device(const struct tar_header *header, struct tar_entry *entry, struct error *err)
{
	int64_t major, minor;
	if (!tar_number(header->major, sizeof(header->major), &major) ||
	    !tar_number(header->minor, sizeof(header->minor), &minor) || major < 0 || major > 0xfff || minor < 0 || minor > 0xfffff)
		return error_set(err, -EINVAL, "malformed device number");
	entry->rdev = (uint32_t)major << 20 | (uint32_t)minor;
	return 0;
}

int tar_find_type(const struct tar_reader *reader, struct tar_entry *entry, bool *stored, struct error *err)
{
	const char type = reader->header.type;
	const bool slash = entry->path.length && entry->path.bytes[entry->path.length - 1] == '/';
	char quoted[16];
	*stored = false;
	switch (type) {
	case '\0': /* v7 has no type for directories */
		if (slash) {
			entry->mode |= S_IFDIR;
			return 0;
		}
		__attribute__((fallthrough));
	case '0':
	case '7': /* contiguous */
	case 'S':
		entry->mode |= S_IFREG;
		*stored = true;
		return 0;
	case '1':
		entry->hard_link = true;
		return 0;
	case '2':
		entry->mode |= S_IFLNK;
		return 0;
	case '3':
		entry->mode |= S_IFCHR;
		return find_device(&reader->header, entry, err);
	case '4':
		entry->mode |= S_IFBLK;
		return find_device(&reader->header, entry, err);
	case 'D': /* GNU incremental: a directory whose data is a list of its names */
		*stored = true;
		__attribute__((fallthrough));
	case '5':
		entry->mode |= S_IFDIR;
		return 0;
	case '6':
		entry->mode |= S_IFIFO;
		return 0;
	default:
		return error_set(err, -ENOTSUP, "is of type '%s', which has no place in a layer",
				 error_quote(quoted, sizeof(quoted), &type, 1));
	}
}

static int compare_xattrs(const void *left, const void *right)
{
	const struct tar_xattr *a = left, *b = right;
	const size_t least = a->name.length < b->name.length ? a->name.length : b->name.length;
	const int order = memcmp(a->name.bytes, b->name.bytes, least);
	if (order)
		return order;
	if (a->name.length != b->name.length)
		return a->name.length < b->name.length ? -1 : 1;
	/* Records of one header lie in one buffer: the later one has the higher address. */
	return a->value.bytes < b->value.bytes ? -1 : 1;
}

/* Appends the attributes of one header, sorted, the last of several with one name. */
static int add_xattrs(struct tar_reader *reader, struct pax *pax)
{
	struct tar_xattr *all = (struct tar_xattr *)(void *)pax->xattrs.data;
	const size_t count = pax->xattrs.used / sizeof(*all);
	if (count > 1)
		qsort(all, count, sizeof(*all), compare_xattrs);
	for (size_t i = 0; i < count; i++) {
		const bool last = i + 1 == count || all[i].name.length != all[i + 1].name.length ||
				  memcmp(all[i].name.bytes, all[i + 1].name.bytes, all[i].name.length) != 0;
		if (last && array_append(&reader->xattrs, &all[i], sizeof(all[i])))
			return -ENOMEM;
	}
	return 0;
}

/* Nobody writes attributes of both kinds, so they are not mixed. */
int tar_find_xattrs(struct tar_reader *reader, struct tar_entry *entry, struct error *err)
{
	reader->xattrs.used = 0;
	if (add_xattrs(reader, reader->local.xattrs.used ? &reader->local : &reader->global))
		return error_set(err, -ENOMEM, "out of memory");
	entry->xattrs = (const struct tar_xattr *)(const void *)reader->xattrs.data;
	entry->xattr_count = (uint32_t)(reader->xattrs.used / sizeof(*entry->xattrs));
	return 0;
}
