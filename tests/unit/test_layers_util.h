/*
 * Making small archives by hand, and saying in one line what a tree holds. For the tests of layers/ only.
 *
 * An archive lies in a memory file whose path (/proc/self/fd/N) is handed to layers_apply_file(), so no test leaves files behind.
 */
#ifndef TRVMM_TESTS_UNIT_TEST_LAYERS_UTIL_H
#define TRVMM_TESTS_UNIT_TEST_LAYERS_UTIL_H

#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "layers/layers.h"
#include "layers/tar_internal.h"

struct archive {
	uint8_t *bytes;
	size_t length;
};

/* One entry; what is not given is 0 or empty, but for the mode (0644, 0755 for directories) and the magic (ustar). */
struct item {
	const char *name;
	char type;
	const char *text;      /* contents */
	size_t text_bytes;     /* 0: up to the NUL */
	const char *link;
	const char *mode, *uid, *size, *mtime; /* fields as they shall stand there */
	const char *magic;     /* 8 bytes */
	const char *prefix;
	uint32_t major, minor;
};

static inline void archive_append(struct archive *archive, const void *bytes, size_t length)
{
	archive->bytes = realloc(archive->bytes, archive->length + length + 1);
	cr_assert(archive->bytes);
	if (length)
		memcpy(archive->bytes + archive->length, bytes, length);
	archive->length += length;
}

static inline void archive_pad(struct archive *archive)
{
	static const char zeroes[512];
	archive_append(archive, zeroes, (512 - archive->length % 512) % 512);
}

/* The two blocks of zeroes. */
static inline void archive_end(struct archive *archive)
{
	static const char zeroes[1024];
	archive_append(archive, zeroes, sizeof(zeroes));
}

static inline void header_checksum(struct tar_header *header)
{
	unsigned sum = 0;
	memset(header->checksum, ' ', sizeof(header->checksum));
	for (size_t i = 0; i < sizeof(*header); i++)
		sum += ((const uint8_t *)header)[i];
	snprintf(header->checksum, sizeof(header->checksum), "%06o", sum & 0777777u);
}

static inline void header_field(char *field, size_t bytes, const char *text)
{
	if (text)
		memcpy(field, text, strnlen(text, bytes));
}

static inline struct tar_header header_make(const struct item *item, size_t text_bytes)
{
	struct tar_header header = { .type = item->type };
	char number[16];
	header_field(header.name, sizeof(header.name), item->name);
	header_field(header.mode, sizeof(header.mode), item->mode ? item->mode : item->type == '5' ? "0000755" : "0000644");
	header_field(header.uid, sizeof(header.uid), item->uid ? item->uid : "0000000");
	header_field(header.gid, sizeof(header.gid), "0000000");
	snprintf(number, sizeof(number), "%011zo", text_bytes);
	header_field(header.size, sizeof(header.size), item->size ? item->size : number);
	header_field(header.mtime, sizeof(header.mtime), item->mtime ? item->mtime : "00000000000");
	header_field(header.link, sizeof(header.link), item->link);
	memcpy(header.magic, item->magic ? item->magic : "ustar\00000", sizeof(header.magic));
	snprintf(header.major, sizeof(header.major), "%07o", item->major & 07777777u);
	snprintf(header.minor, sizeof(header.minor), "%07o", item->minor & 07777777u);
	header_field(header.rest, 155, item->prefix);
	header_checksum(&header);
	return header;
}

static inline void archive_add(struct archive *archive, const struct item *item)
{
	const size_t text_bytes = item->text_bytes ? item->text_bytes : item->text ? strlen(item->text) : 0;
	const struct tar_header header = header_make(item, text_bytes);
	archive_append(archive, &header, sizeof(header));
	archive_append(archive, item->text, text_bytes);
	archive_pad(archive);
}

#define ADD(archive, ...) archive_add(archive, &(struct item){ __VA_ARGS__ })

/* Appends one PAX record to a text. */
static inline void pax_record(struct archive *text, const char *key, const void *value, size_t value_bytes)
{
	char line[32];
	const size_t rest = strlen(key) + value_bytes + 3;
	size_t total = rest + 1;
	while (rest + (size_t)snprintf(line, sizeof(line), "%zu", total) != total)
		total = rest + strlen(line);
	archive_append(text, line, strlen(line));
	archive_append(text, " ", 1);
	archive_append(text, key, strlen(key));
	archive_append(text, "=", 1);
	archive_append(text, value, value_bytes);
	archive_append(text, "\n", 1);
}

/* Adds an extended header (type 'x' or 'g') of KEY, VALUE, ... up to NULL. */
static inline void archive_pax(struct archive *archive, int type, ...)
{
	struct archive text = { 0 };
	va_list args;
	va_start(args, type);
	for (const char *key; (key = va_arg(args, const char *));) {
		const char *value = va_arg(args, const char *);
		pax_record(&text, key, value, strlen(value));
	}
	va_end(args);
	ADD(archive, .name = "PaxHeaders/x", .type = (char)type, .text = (const char *)text.bytes, .text_bytes = text.length);
	free(text.bytes);
}

/* A path by which the bytes can be opened as a file, until the process ends. `path` has room for 64 bytes. */
static inline const char *bytes_path(const void *bytes, size_t length, char *path)
{
	const int fd = memfd_create("layer", MFD_CLOEXEC);
	cr_assert(fd >= 0);
	cr_assert(write(fd, bytes, length) == (ssize_t)length);
	snprintf(path, 64, "/proc/self/fd/%d", fd);
	return path;
}

/* Applies the archive and forgets it. Returns what layers_apply_file() returned. */
static inline int archive_apply(struct archive *archive, struct tree_builder *builder, struct error *err)
{
	char path[64];
	const int ret = layers_apply_file(builder, bytes_path(archive->bytes, archive->length, path), NULL, err);
	free(archive->bytes);
	*archive = (struct archive){ 0 };
	return ret;
}

static inline struct tree *builder_tree(struct tree_builder *builder)
{
	struct error err = { "" };
	struct tree *tree = NULL;
	cr_assert_eq(tree_builder_finish(builder, &tree, &err), 0, "%s", err.text);
	tree_builder_destroy(builder);
	return tree;
}

/* The tree of one archive, which must be good. */
static inline struct tree *archive_tree(struct archive *archive)
{
	struct error err = { "" };
	struct tree_builder *builder = tree_builder_create();
	cr_assert_eq(archive_apply(archive, builder, &err), 0, "%s", err.text);
	return builder_tree(builder);
}

/* Asserts that the archive is refused with `code` and a message that contains `words`. */
static inline void archive_refused(struct archive *archive, int code, const char *words)
{
	struct error err = { "" };
	struct tree_builder *builder = tree_builder_create();
	const int ret = archive_apply(archive, builder, &err);
	tree_builder_destroy(builder);
	cr_assert_eq(ret, code, "returned %d: %s", ret, err.text);
	cr_assert(strstr(err.text, words), "'%s' does not contain '%s'", err.text, words);
	cr_assert_not(strchr(err.text, '\n'), "more than one line: %s", err.text);
}

static inline const struct tree_inode *tree_at(const struct tree *tree, const char *path)
{
	const uint32_t entry = tree_lookup(tree, path, 0);
	cr_assert_neq(entry, TREE_NONE, "there is no %s", path);
	return &tree->inodes[tree->entries[entry].inode];
}

/* The contents of a file as text; the caller frees it. */
static inline char *tree_text(const struct tree *tree, const char *path)
{
	char *data = NULL;
	size_t length;
	const int ret = tree_read_file(tree, (uint32_t)(tree_at(tree, path) - tree->inodes), 1 << 20, &data, &length);
	cr_assert_eq(ret, 0, "%s: %d", path, ret);
	return data;
}

static inline void assert_text(const struct tree *tree, const char *path, const char *text)
{
	char *got = tree_text(tree, path);
	cr_assert_str_eq(got, text, "%s holds '%s', not '%s'", path, got, text);
	free(got);
}

#endif
