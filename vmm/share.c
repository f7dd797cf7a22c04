/* Host directories and files in the guest, as people write them; see share.h. */
#include "vmm/share.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define GUEST_BYTES_MAX 4095u /* Linux's PATH_MAX without the 0 byte */

int share_absolute_path(const char *path, char **absolute)
{
	char here[PATH_MAX];
	char *result;
	if (path[0] == '/') {
		result = strdup(path);
	} else {
		if (!getcwd(here, sizeof(here)))
			return -errno;
		if (asprintf(&result, "%s/%s", strcmp(here, "/") ? here : "", path) < 0)
			result = NULL;
	}
	if (!result)
		return -ENOMEM;
	for (size_t length = strlen(result); length > 1 && result[length - 1] == '/'; length--)
		result[length - 1] = '\0';
	*absolute = result;
	return 0;
}

/* Removes "." and empty components of an absolute path, in place. Returns false for one with "..". */
static bool tidy_guest_path(char *path)
{
	char *to = path;
	for (const char *at = path; *at;) {
		at += strspn(at, "/");
		const size_t length = strcspn(at, "/");
		if (length == 2 && !strncmp(at, "..", 2))
			return false;
		if (length && !(length == 1 && *at == '.')) {
			*to++ = '/';
			memmove(to, at, length);
			to += length;
		}
		at += length;
	}
	*to = '\0';
	return true;
}

static bool take_option(const char *option, size_t length, struct share *share)
{
	static const struct {
		const char *name;
		enum fs_cache cache;
	} caches[] = { { "cache=none", FS_CACHE_NONE }, { "cache=auto", FS_CACHE_AUTO }, { "cache=always", FS_CACHE_ALWAYS } };

	for (size_t i = 0; i < sizeof(caches) / sizeof(caches[0]); i++) {
		if (length == strlen(caches[i].name) && !strncmp(option, caches[i].name, length)) {
			share->cache = caches[i].cache;
			return true;
		}
	}
	if (length == 2 && !strncmp(option, "ro", length))
		share->read_only = true;
	else if (length == 2 && !strncmp(option, "rw", length))
		share->read_only = false;
	else if (length == strlen("writeback") && !strncmp(option, "writeback", length))
		share->writeback = true;
	else if (length == strlen("dax") && !strncmp(option, "dax", length))
		share->dax = FS_DAX_ALWAYS;
	else if (length == strlen("dax=inode") && !strncmp(option, "dax=inode", length))
		share->dax = FS_DAX_INODE;
	else
		return false;
	return true;
}

static int take_options(const char *text, const char *options, struct share *share, struct error *err)
{
	for (const char *at = options; at;) {
		const size_t length = strcspn(at, ":,");
		if (!take_option(at, length, share))
			return error_set(err, -EINVAL,
					 "-v '%s': '%.*s' is none of ro, rw, cache=none, cache=auto, cache=always, writeback, dax, "
					 "dax=inode",
					 text, (int)length, at);
		at = at[length] ? at + length + 1 : NULL;
	}
	if (share->writeback && (share->cache != FS_CACHE_ALWAYS || share->read_only))
		return error_set(err, -EINVAL,
				 "-v '%s': writeback is for a writable share that only this guest uses: cache=always,writeback",
				 text);
	return 0;
}

/* Where ":GUEST" begins; NULL: nowhere. */
static const char *find_guest(const char *text)
{
	const char *found = NULL;
	for (const char *at = text; (at = strstr(at, ":/")); at++)
		found = at;
	return found;
}

int share_parse(const char *text, struct share *share, struct error *err)
{
	*share = (struct share){ .cache = FS_CACHE_AUTO };
	const char *colon = find_guest(text);
	if (!colon || colon == text)
		return error_set(
		    err, -EINVAL,
		    "-v '%s': give HOST:GUEST, where GUEST begins with a slash, and :ro for a share that cannot be written to",
		    text);
	const size_t length = strcspn(colon + 1, ":");
	const char *options = colon[1 + length] ? colon + 1 + length + 1 : NULL;
	char *host = strndup(text, (size_t)(colon - text));
	int result = host ? share_absolute_path(host, &share->host) : -ENOMEM;
	free(host);
	if (result < 0)
		return error_set(err, result, "-v '%s': %s", text, strerror(-result));
	share->guest = strndup(colon + 1, length);
	if (!share->guest)
		result = error_set(err, -ENOMEM, "out of memory");
	else if (length > GUEST_BYTES_MAX)
		result = error_set(err, -EINVAL, "-v: a path in the guest has at most %u bytes", GUEST_BYTES_MAX);
	else if (!tidy_guest_path(share->guest))
		result = error_set(err, -EINVAL, "-v '%s': give a path without ..", text);
	else if (!*share->guest)
		result = error_set(
		    err, -EINVAL, "-v '%s': give a place below / in the guest; --root DIR makes a directory the root itself", text);
	else
		result = take_options(text, options, share, err);
	if (result < 0)
		share_destroy(share);
	return result;
}

void share_destroy(struct share *share)
{
	free(share->host);
	free(share->guest);
	share->host = share->guest = NULL;
}

unsigned share_depth(const char *guest)
{
	unsigned depth = 0;
	for (; *guest; guest++)
		depth += *guest == '/';
	return depth;
}

bool shares_map_files(const struct share *shares, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (shares[i].dax != FS_DAX_NEVER)
			return true;
	return false;
}

static int compare_depth(const void *a, const void *b)
{
	const struct share *first = a, *second = b;
	const unsigned first_depth = share_depth(first->guest), second_depth = share_depth(second->guest);
	if (first_depth != second_depth)
		return first_depth < second_depth ? -1 : 1;
	return strcmp(first->guest, second->guest);
}

int shares_arrange(struct share *shares, size_t count, struct error *err)
{
	if (count)
		qsort(shares, count, sizeof(*shares), compare_depth);
	for (size_t i = 1; i < count; i++)
		if (!strcmp(shares[i - 1].guest, shares[i].guest))
			return error_set(err, -EINVAL,
					 "-v: both '%s' and '%s' are to be at %s in the guest; give each a place of its own",
					 shares[i - 1].host, shares[i].host, shares[i].guest);
	return 0;
}
