/*
 * Extended attributes of a file as bytes of the stream, and back; see copy_internal.h.
 *
 *    | le16 name_bytes | le16 zero | le32 value_bytes | name | value |   and the next
 *
 * What comes from a guest is hostile: only names that a copy may set are given to the kernel, whole and with an end.
 */
#include <errno.h>
#include <string.h>
#include <sys/xattr.h>

#include "guest/copy/copy_internal.h"

#define CAPABILITY "security.capability"
#define NAME_MAX_BYTES 255u /* XATTR_NAME_MAX */

struct xattr_head {
	le16 name_bytes, zero;
	le32 value_bytes;
};

static bool is_user(const char *name)
{
	return !strncmp(name, "user.", 5);
}

static int add(int fd, const char *name, struct copy_xattrs *xattrs)
{
	const size_t name_bytes = strlen(name), fixed = sizeof(struct xattr_head) + name_bytes;
	if (fixed > sizeof(xattrs->bytes) - xattrs->length)
		return -E2BIG;
	uint8_t *at = xattrs->bytes + xattrs->length;
	const size_t room = sizeof(xattrs->bytes) - xattrs->length - fixed;
	/* Without room the kernel would only tell the size. */
	const ssize_t n = room ? fgetxattr(fd, name, at + fixed, room) : -1;
	if (n < 0 && room && errno == ENODATA)
		return 0; /* gone meanwhile */
	if (n < 0)
		return !room || errno == ERANGE ? -E2BIG : -errno;
	const struct xattr_head head = { .name_bytes = le16_make((uint16_t)name_bytes), .value_bytes = le32_make((uint32_t)n) };
	memcpy(at, &head, sizeof(head));
	/* Its length goes before it. NOLINTNEXTLINE(bugprone-not-null-terminated-result) */
	memcpy(at + sizeof(head), name, name_bytes);
	xattrs->length += (uint32_t)(fixed + (size_t)n);
	return 0;
}

int copy_xattrs_read(int fd, struct copy_xattrs *xattrs)
{
	static char names[65536]; /* XATTR_LIST_MAX */
	xattrs->length = 0;
	const ssize_t length = flistxattr(fd, names, sizeof(names));
	if (length < 0)
		return errno == ENOTSUP ? 0 : -errno;
	for (const char *name = names; name < names + length; name += strlen(name) + 1) {
		const int result = is_user(name) || !strcmp(name, CAPABILITY) ? add(fd, name, xattrs) : 0;
		if (result < 0)
			return result;
	}
	return 0;
}

int copy_xattrs_write(int fd, const struct copy_xattrs *xattrs, bool special)
{
	char name[NAME_MAX_BYTES + 1];
	struct xattr_head head;
	for (const uint8_t *at = xattrs->bytes, *end = at + xattrs->length; at < end;) {
		if ((size_t)(end - at) < sizeof(head))
			return -EBADMSG;
		memcpy(&head, at, sizeof(head));
		at += sizeof(head);
		const size_t name_bytes = le16_get(head.name_bytes), value_bytes = le32_get(head.value_bytes);
		if (!name_bytes || name_bytes > NAME_MAX_BYTES || (size_t)(end - at) < name_bytes ||
		    (size_t)(end - at) - name_bytes < value_bytes)
			return -EBADMSG;
		memcpy(name, at, name_bytes);
		name[name_bytes] = '\0';
		at += name_bytes;
		if (strlen(name) != name_bytes)
			return -EBADMSG;
		/* A file system that has none loses them, as with other programs that copy. */
		if ((is_user(name) || (special && !strcmp(name, CAPABILITY))) && fsetxattr(fd, name, at, value_bytes, 0) < 0 &&
		    errno != ENOTSUP)
			return -errno;
		at += value_bytes;
	}
	return 0;
}
