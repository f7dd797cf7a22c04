/* What a ustar header has no room for, as records of a PAX extended header. See tar_writer_internal.h. */
#include "layers/tar_writer_internal.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* "LENGTH KEY=VALUE\n", where LENGTH counts its own digits. */
int pax_add(struct array *text, const char *key, size_t key_bytes, const void *value, size_t value_bytes)
{
	char number[24];
	const size_t rest = key_bytes + value_bytes + 3;
	size_t total = rest + 1;
	for (size_t last = 0; last != total;) {
		last = total;
		total = rest + (size_t)snprintf(number, sizeof(number), "%zu", last);
	}
	snprintf(number, sizeof(number), "%zu ", total);
	if (array_append(text, number, strlen(number)) || array_append(text, key, key_bytes) || array_append(text, "=", 1) ||
	    (value_bytes && array_append(text, value, value_bytes)) || array_append(text, "\n", 1))
		return -ENOMEM;
	return 0;
}

static int add_text(struct array *text, const char *key, const void *value, size_t value_bytes)
{
	return pax_add(text, key, strlen(key), value, value_bytes);
}

static int add_number(struct array *text, const char *key, uint64_t value)
{
	char number[24];
	return add_text(text, key, number, (size_t)snprintf(number, sizeof(number), "%" PRIu64, value));
}

/* Decimal, with a sign before the whole: half a second before 1970 is -0.5, which here is second -1 and 500,000,000 ns. */
static int add_time(struct array *text, int64_t seconds, uint32_t ns)
{
	char value[48];
	uint64_t whole = (uint64_t)seconds;
	const bool negative = seconds < 0;
	if (negative) {
		whole = 0 - whole - (ns != 0);
		ns = ns ? 1000000000 - ns : 0;
	}
	int length = snprintf(value, sizeof(value), "%s%" PRIu64 ".%09u", negative ? "-" : "", whole, ns);
	while (value[length - 1] == '0')
		length--;
	length -= value[length - 1] == '.';
	return add_text(text, "mtime", value, (size_t)length);
}

/* Anything but letters, digits and '.', '_', '-' as %XX. `to` has room for 3 times the name. Returns the length. */
static size_t encode_url(char *to, const struct slice *name)
{
	static const char digits[] = "0123456789ABCDEF";
	size_t used = 0;
	for (size_t i = 0; i < name->length; i++) {
		const unsigned char c = (unsigned char)name->bytes[i];
		if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' ||
		    c == '-') {
			to[used++] = (char)c;
		} else {
			to[used++] = '%';
			to[used++] = digits[c >> 4];
			to[used++] = digits[c & 15];
		}
	}
	return used;
}

static int add_base64(struct array *to, const struct slice *value)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	for (size_t i = 0; i < value->length; i += 3) {
		const size_t left = value->length - i;
		uint32_t bits = (uint32_t)(unsigned char)value->bytes[i] << 16;
		bits |= left > 1 ? (uint32_t)(unsigned char)value->bytes[i + 1] << 8 : 0;
		bits |= left > 2 ? (uint32_t)(unsigned char)value->bytes[i + 2] : 0;
		const char coded[4] = { digits[bits >> 18], digits[bits >> 12 & 63], digits[bits >> 6 & 63], digits[bits & 63] };
		if (array_append(to, coded, left > 2 ? 4 : left + 1))
			return -ENOMEM;
	}
	return 0;
}

/* A key ends at the first '=', so a name with one is written the other way. */
static int add_xattr(struct array *text, const struct tar_xattr *xattr)
{
	static const char plain[] = "SCHILY.xattr.", encoded[] = "LIBARCHIVE.xattr.";
	char key[sizeof(encoded) + 3 * TAR_XATTR_NAME_MAX];
	if (xattr->name.length > TAR_XATTR_NAME_MAX)
		return -EINVAL;
	if (!memchr(xattr->name.bytes, '=', xattr->name.length)) {
		memcpy(key, plain, sizeof(plain) - 1);
		memcpy(key + sizeof(plain) - 1, xattr->name.bytes, xattr->name.length);
		return pax_add(text, key, sizeof(plain) - 1 + xattr->name.length, xattr->value.bytes, xattr->value.length);
	}
	struct array value = { 0 };
	memcpy(key, encoded, sizeof(encoded) - 1);
	const size_t key_bytes = sizeof(encoded) - 1 + encode_url(key + sizeof(encoded) - 1, &xattr->name);
	int ret = add_base64(&value, &xattr->value);
	if (!ret)
		ret = pax_add(text, key, key_bytes, value.data, value.used);
	array_free(&value);
	return ret;
}

int pax_add_entry(struct array *text, const struct tar_entry *entry, const struct slice *path, bool sparse)
{
	const struct tar_header *const header = NULL;
	int ret = 0;
	if (sparse) {
		ret = add_text(text, "GNU.sparse.major", "1", 1);
		if (!ret)
			ret = add_text(text, "GNU.sparse.minor", "0", 1);
		if (!ret)
			ret = add_text(text, "GNU.sparse.name", path->bytes, path->length);
		if (!ret)
			ret = add_number(text, "GNU.sparse.realsize", entry->size_bytes);
	} else if (path->length > sizeof(header->name)) {
		ret = add_text(text, "path", path->bytes, path->length);
	}
	if (!ret && entry->link.length > sizeof(header->link))
		ret = add_text(text, "linkpath", entry->link.bytes, entry->link.length);
	if (entry->hard_link)
		return ret;
	if (!ret && entry->uid > TAR_OCTAL_MAX(sizeof(header->uid)))
		ret = add_number(text, "uid", entry->uid);
	if (!ret && entry->gid > TAR_OCTAL_MAX(sizeof(header->gid)))
		ret = add_number(text, "gid", entry->gid);
	if (!ret && (entry->mtime_s < 0 || entry->mtime_ns || (uint64_t)entry->mtime_s > TAR_OCTAL_MAX(sizeof(header->mtime))))
		ret = add_time(text, entry->mtime_s, entry->mtime_ns);
	for (uint32_t i = 0; !ret && i < entry->xattr_count; i++)
		ret = add_xattr(text, &entry->xattrs[i]);
	return ret;
}
