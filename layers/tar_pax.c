/*
 * PAX extended headers: lines "LENGTH KEY=VALUE\n" of any bytes, the length counting the whole line.
 *
 * POSIX.1 pax, "pax Extended Header"; the GNU.sparse keys in GNU tar's manual, "Sparse Formats"; SCHILY.xattr in star(4);
 * LIBARCHIVE.xattr (name URL-encoded, value base64) in libarchive's tar(5). Keys that are not known are skipped, as POSIX wants.
 */
#include "layers/tar_internal.h"

#include <errno.h>
#include <string.h>

bool decimal_parse(const char *text, size_t length, uint64_t *number)
{
	uint64_t value = 0;
	for (size_t i = 0; i < length; i++) {
		if (text[i] < '0' || text[i] > '9' || __builtin_mul_overflow(value, (uint64_t)10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(text[i] - '0'), &value))
			return false;
	}
	*number = value;
	return length > 0 && value <= INT64_MAX;
}

/*
 * Seconds with an optional sign and fraction; digits beyond nanoseconds are cut. Before 1970 the fraction counts down: -1.5 is -2 +
 * 0.5.
 */
static bool parse_time(const char *text, size_t length, int64_t *seconds, uint32_t *nanoseconds)
{
	const bool negative = length && text[0] == '-';
	if (negative) {
		text++;
		length--;
	}
	const char *dot = memchr(text, '.', length);
	const size_t whole = dot ? (size_t)(dot - text) : length;
	uint64_t s;
	if (!decimal_parse(text, whole, &s))
		return false;
	uint32_t ns = 0, unit = 100000000;
	for (size_t i = whole + 1; i < length; i++, unit /= 10) {
		if (text[i] < '0' || text[i] > '9')
			return false;
		ns += unit * (uint32_t)(text[i] - '0');
	}
	*seconds = negative ? -(int64_t)s - (ns > 0) : (int64_t)s;
	*nanoseconds = negative && ns ? 1000000000 - ns : ns;
	return true;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Decodes %XX in place; the text only shrinks. */
static size_t url_decode(char *text, size_t length)
{
	size_t used = 0;
	for (size_t i = 0; i < length; i++) {
		const int high = text[i] == '%' && i + 2 < length ? hex_digit(text[i + 1]) : -1;
		const int low = high >= 0 ? hex_digit(text[i + 2]) : -1;
		if (low >= 0) {
			text[used++] = (char)(high << 4 | low);
			i += 2;
		} else {
			text[used++] = text[i];
		}
	}
	return used;
}

static int base64_digit(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Decodes base64 in place, with or without padding. Returns false for anything else. */
static bool base64_decode(char *text, size_t *length)
{
	size_t end = *length, used = 0;
	while (end && text[end - 1] == '=')
		end--;
	uint32_t bits = 0;
	unsigned count = 0;
	for (size_t i = 0; i < end; i++) {
		const int digit = base64_digit(text[i]);
		if (digit < 0)
			return false;
		bits = bits << 6 | (uint32_t)digit;
		count += 6;
		if (count >= 8) {
			count -= 8;
			text[used++] = (char)(bits >> count & 0xff);
		}
	}
	*length = used;
	return count < 6;
}

struct record {
	char *key, *value; /* in pax->text */
	size_t key_bytes, value_bytes;
};

static bool record_error(const struct record *record, const char *what, struct error *err)
{
	char quoted[128];
	error_set(err, -EINVAL, "PAX record '%s' %s", error_quote(quoted, sizeof(quoted), record->key, record->key_bytes), what);
	return false;
}

/* Splits the record at `offset` of the text and moves on. Returns false, with a line, when there is none. */
static bool next_record(struct pax *pax, size_t *offset, struct record *record, struct error *err)
{
	char *const start = pax->text.data + *offset, *const end = pax->text.data + pax->text.used;
	char *const space = memchr(start, ' ', (size_t)(end - start));
	uint64_t length;
	if (!space || !decimal_parse(start, (size_t)(space - start), &length) || length > (size_t)(end - start) ||
	    length < (size_t)(space - start) + 4 || start[length - 1] != '\n') {
		error_set(err, -EINVAL, "malformed PAX record at byte %zu of the extended header", *offset);
		return false;
	}
	char *const key = space + 1, *const line_end = start + length - 1;
	char *const equals = memchr(key, '=', (size_t)(line_end - key));
	if (!equals || equals == key) {
		error_set(err, -EINVAL, "PAX record without a key at byte %zu of the extended header", *offset);
		return false;
	}
	*record = (struct record){ key, equals + 1, (size_t)(equals - key), (size_t)(line_end - equals) - 1 };
	*offset += (size_t)length;
	return true;
}

static bool take_text(struct slice *slice, const struct record *record, struct error *err)
{
	if (memchr(record->value, '\0', record->value_bytes))
		return record_error(record, "contains a NUL", err);
	*slice = record->value_bytes ? (struct slice){ record->value, record->value_bytes } : (struct slice){ NULL, 0 };
	return true;
}

/* An empty value takes back what an earlier record gave. */
static bool take_number(bool *has, uint64_t *number, const struct record *record, struct error *err)
{
	if (record->value_bytes && !decimal_parse(record->value, record->value_bytes, number))
		return record_error(record, "is no number that fits", err);
	*has = record->value_bytes > 0;
	return true;
}

static bool take_time(struct pax *pax, const struct record *record, struct error *err)
{
	if (record->value_bytes && !parse_time(record->value, record->value_bytes, &pax->mtime_s, &pax->mtime_ns))
		return record_error(record, "is no time", err);
	pax->has_mtime = record->value_bytes > 0;
	return true;
}

static struct sparse_range *last_range(const struct pax *pax)
{
	return pax->map.used ? (struct sparse_range *)(void *)(pax->map.data + pax->map.used - sizeof(struct sparse_range)) : NULL;
}

/* Format 0.0: an offset record and a numbytes record for each range, in turns. */
static bool take_sparse_pair(struct pax *pax, bool is_offset, const struct record *record, struct error *err)
{
	uint64_t number;
	if (!decimal_parse(record->value, record->value_bytes, &number))
		return record_error(record, "is no number that fits", err);
	struct sparse_range *last = last_range(pax);
	const bool open = last && last->length == UINT64_MAX;
	if (open == is_offset)
		return record_error(record, "stands out of order", err);
	pax->has_sparse_map = true;
	if (!is_offset) {
		last->length = number;
		return true;
	}
	const struct sparse_range range = { number, UINT64_MAX };
	return array_append(&pax->map, &range, sizeof(range)) == 0 || record_error(record, "does not fit into memory", err);
}

/* Format 0.1: one record of comma-separated offsets and lengths. */
static bool take_sparse_map(struct pax *pax, const struct record *record, struct error *err)
{
	pax->map.used = 0;
	pax->has_sparse_map = true;
	uint64_t pair[2];
	unsigned have = 0;
	for (size_t at = 0; at < record->value_bytes;) {
		const char *text = record->value + at;
		const char *comma = memchr(text, ',', record->value_bytes - at);
		const size_t length = comma ? (size_t)(comma - text) : record->value_bytes - at;
		if (!decimal_parse(text, length, &pair[have]))
			return record_error(record, "is no list of offsets and lengths", err);
		const struct sparse_range range = { pair[0], pair[1] };
		if (have && array_append(&pax->map, &range, sizeof(range)))
			return record_error(record, "does not fit into memory", err);
		have ^= 1;
		at += length + 1;
	}
	return !have || record_error(record, "has an offset without a length", err);
}

/* Linux has no place for the attributes of other systems ("com.apple.provenance"): every reader there leaves them out. */
static bool xattr_has_place(const struct slice *name)
{
	static const char *const spaces[] = { "user.", "trusted.", "security.", "system." };
	for (size_t i = 0; i < sizeof(spaces) / sizeof(spaces[0]); i++) {
		const size_t length = strlen(spaces[i]);
		if (name->length > length && memcmp(name->bytes, spaces[i], length) == 0)
			return true;
	}
	return false;
}

static bool take_xattr(struct pax *pax, size_t prefix, bool encoded, const struct record *record, struct error *err)
{
	char *const name = record->key + prefix;
	struct tar_xattr xattr = { { name, record->key_bytes - prefix }, { record->value, record->value_bytes } };
	if (encoded) {
		xattr.name.length = url_decode(name, xattr.name.length);
		if (!base64_decode(record->value, &xattr.value.length))
			return record_error(record, "is not base64", err);
	}
	if (memchr(name, '\0', xattr.name.length))
		return record_error(record, "contains a NUL", err);
	if (!xattr_has_place(&xattr.name))
		return true;
	if (xattr.name.length > TAR_XATTR_NAME_MAX)
		return record_error(record, "has a name of more than 255 bytes", err);
	if (xattr.value.length > TAR_XATTR_VALUE_MAX)
		return record_error(record, "has a value of more than 65536 bytes", err);
	if (pax->xattrs.used / sizeof(xattr) == TAR_XATTRS_MAX)
		return record_error(record, "is one extended attribute too many (1024 are allowed)", err);
	return array_append(&pax->xattrs, &xattr, sizeof(xattr)) == 0 || record_error(record, "does not fit into memory", err);
}

static bool key_is(const struct record *record, const char *key)
{
	return record->key_bytes == strlen(key) && memcmp(record->key, key, record->key_bytes) == 0;
}

static bool key_begins(const struct record *record, const char *prefix)
{
	return record->key_bytes > strlen(prefix) && memcmp(record->key, prefix, strlen(prefix)) == 0;
}

static bool take_sparse(struct pax *pax, const struct record *record, struct error *err)
{
	if (key_is(record, "GNU.sparse.name"))
		return take_text(&pax->sparse_name, record, err);
	if (key_is(record, "GNU.sparse.size") || key_is(record, "GNU.sparse.realsize"))
		return take_number(&pax->has_sparse_size, &pax->sparse_size, record, err);
	if (key_is(record, "GNU.sparse.major"))
		return take_number(&pax->has_sparse_major, &pax->sparse_major, record, err);
	if (key_is(record, "GNU.sparse.minor"))
		return take_number(&pax->has_sparse_minor, &pax->sparse_minor, record, err);
	if (key_is(record, "GNU.sparse.map"))
		return take_sparse_map(pax, record, err);
	if (key_is(record, "GNU.sparse.offset"))
		return take_sparse_pair(pax, true, record, err);
	if (key_is(record, "GNU.sparse.numbytes"))
		return take_sparse_pair(pax, false, record, err);
	if (key_is(record, "GNU.sparse.numblocks")) /* only announces how many pairs follow; 0 of them is a map too */
		pax->has_sparse_map = true;
	return true;
}

static bool take_record(struct pax *pax, bool global, const struct record *record, struct error *err)
{
	static const char schily[] = "SCHILY.xattr.", libarchive[] = "LIBARCHIVE.xattr.";
	const bool sparse = key_begins(record, "GNU.sparse.");
	if (global && (sparse || key_is(record, "path") || key_is(record, "linkpath") || key_is(record, "size")))
		return record_error(record, "stands in a global header, but fits one file only", err);
	if (sparse)
		return take_sparse(pax, record, err);
	if (key_is(record, "path"))
		return take_text(&pax->path, record, err);
	if (key_is(record, "linkpath"))
		return take_text(&pax->link, record, err);
	if (key_is(record, "size"))
		return take_number(&pax->has_size, &pax->size, record, err);
	if (key_is(record, "uid"))
		return take_number(&pax->has_uid, &pax->uid, record, err);
	if (key_is(record, "gid"))
		return take_number(&pax->has_gid, &pax->gid, record, err);
	if (key_is(record, "mtime"))
		return take_time(pax, record, err);
	if (key_begins(record, schily))
		return take_xattr(pax, sizeof(schily) - 1, false, record, err);
	if (key_begins(record, libarchive))
		return take_xattr(pax, sizeof(libarchive) - 1, true, record, err);
	return true;
}

int pax_parse(struct pax *pax, bool global, struct error *err)
{
	struct record record;
	for (size_t offset = 0; offset < pax->text.used;) {
		if (!next_record(pax, &offset, &record, err) || !take_record(pax, global, &record, err))
			return -EINVAL;
	}
	const struct sparse_range *last = last_range(pax);
	if (last && last->length == UINT64_MAX)
		return error_set(err, -EINVAL, "the sparse map ends with an offset without a length");
	return 0;
}

void pax_reset(struct pax *pax)
{
	const struct array text = pax->text, xattrs = pax->xattrs, map = pax->map;
	*pax = (struct pax){ .text = text, .xattrs = xattrs, .map = map };
	pax->text.used = pax->xattrs.used = pax->map.used = 0;
}

void pax_free(struct pax *pax)
{
	array_free(&pax->text);
	array_free(&pax->xattrs);
	array_free(&pax->map);
}
