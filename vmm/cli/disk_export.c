/*
 * `trvmm disk export`: the root disk as a raw image, sparse, with what a kept disk changed. A file appears when it is complete; pipes and
 * devices get all bytes in order.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/error.h"
#include "base/iov.h"
#include "devices/virtio-blk/disk_ext4.h"
#include "vmm/cli/disk.h"
#include "vmm/cli/disk_output.h"
#include "vmm/root_disk.h"

#define CHUNK_BYTES ((size_t)256 << 10)
#define BLOCK_BYTES 4096u

struct export_options {
	const char *output;
	bool help;
};

static const struct option_row rows[] = {
	{ 'o', "output", "FILE", "the image; '-' is standard output" },
	DISK_HELP_ROW,
};
#define ROWS (sizeof(rows) / sizeof(rows[0]))

static int take_option(void *data, int id, const char *argument, struct error *err)
{
	struct export_options *own = data;
	if (id == 'h')
		own->help = true;
	else if (!*argument)
		return error_set(err, -EINVAL, "--output '': give a file");
	else
		own->output = argument;
	return 0;
}

/* Where the image goes. */
struct sink {
	int fd;
	bool sequential; /* all bytes are written, in order: a pipe or a device. Else a new file, whose holes are zeroes */
	uint64_t at; /* sequential: written so far */
	const uint8_t *zeroes; /* CHUNK_BYTES; borrowed */
};

static int sink_write_all(struct sink *sink, const uint8_t *bytes, size_t length)
{
	const int rc = write_full(sink->fd, bytes, length);
	sink->at += rc ? 0 : length;
	return rc;
}

/* Brings a sequential sink to byte `offset`. */
static int sink_skip_to(struct sink *sink, uint64_t offset)
{
	int rc = 0;
	while (rc == 0 && sink->at < offset)
		rc =
		    sink_write_all(sink, sink->zeroes, offset - sink->at < CHUNK_BYTES ? (size_t)(offset - sink->at) : CHUNK_BYTES);
	return rc;
}

/* Writes the blocks of a chunk that are not zero, neighbours at once. `length` is whole blocks. */
static int write_sparse(const struct sink *sink, uint64_t offset, uint8_t *bytes, size_t length)
{
	for (size_t at = 0; at < length;) {
		size_t end = at;
		while (end < length && memcmp(bytes + end, sink->zeroes, BLOCK_BYTES) != 0)
			end += BLOCK_BYTES;
		const int rc = end > at ? pwrite_full(sink->fd, bytes + at, end - at, offset + at) : 0;
		if (rc)
			return rc;
		at = end > at ? end : at + BLOCK_BYTES;
	}
	return 0;
}

static int copy_range(struct disk *disk, struct sink *sink, uint8_t *chunk, uint64_t offset, uint64_t end, struct error *err)
{
	while (offset < end) {
		const size_t take = end - offset < CHUNK_BYTES ? (size_t)(end - offset) : CHUNK_BYTES;
		const struct iovec iov = { chunk, take };
		int rc = disk->ops->readv(disk, offset, &iov, 1);
		if (rc)
			return error_set(err, rc, "reading the disk at byte %llu: %s; did a layer change?",
					 (unsigned long long)offset, strerror(-rc));
		rc = sink->sequential ? sink_write_all(sink, chunk, take) : write_sparse(sink, offset, chunk, take);
		if (rc)
			return error_set(err, rc, "%s", strerror(-rc));
		offset += take;
	}
	return 0;
}

static int copy_disk(struct disk *disk, struct sink *sink, struct error *err)
{
	uint8_t *chunk = malloc(CHUNK_BYTES), *zeroes = calloc(1, CHUNK_BYTES);
	int rc = chunk && zeroes ? 0 : error_set(err, -ENOMEM, "out of memory");
	uint64_t offset = 0, end;
	sink->zeroes = zeroes;
	while (rc == 0 && disk_ext4_next_data(disk, offset, &offset, &end)) {
		if (sink->sequential && (rc = sink_skip_to(sink, offset)))
			error_set(err, rc, "%s", strerror(-rc));
		if (rc == 0)
			rc = copy_range(disk, sink, chunk, offset, end, err);
		offset = end;
	}
	if (rc == 0 && sink->sequential && (rc = sink_skip_to(sink, disk->size_bytes)))
		error_set(err, rc, "%s", strerror(-rc));
	free(zeroes);
	free(chunk);
	return rc;
}

static int write_image(void *data, int fd, bool stream, struct error *err)
{
	struct disk *disk = data;
	struct sink sink = { .fd = fd, .sequential = stream };
	if (!stream && ftruncate(fd, (off_t)disk->size_bytes) < 0)
		return error_set(err, -errno, "%s", strerror(errno));
	return copy_disk(disk, &sink, err);
}

int disk_export(int argc, char **argv)
{
	struct error err = { "" };
	struct options options;
	struct export_options own = { .output = NULL };
	struct root_disk root = { .tree = NULL };
	char quoted[256];

	int rc = options_parse_disk(argc, argv, rows, ROWS, take_option, &own, &options, &err);
	if (rc == 0 && own.help) {
		disk_print_help("trvmm disk export [OPTIONS] -o FILE", rows, ROWS);
	} else if (rc == 0 && options.command[0]) {
		rc = error_set(&err, -EINVAL, "disk export takes options only, not '%s'; see trvmm disk export --help",
			       error_quote(quoted, sizeof(quoted), options.command[0], strlen(options.command[0])));
	} else if (rc == 0 && !own.output) {
		rc = error_set(&err, -EINVAL, "disk export: where to? give -o FILE, or -o - for standard output");
	} else if (rc == 0) {
		rc = root_disk_open(&options, ROOT_DISK_LOOK, &root, &err);
		if (rc == 0 && (rc = disk_output(own.output, &root, &options, write_image, root.disk, &err)))
			error_prefix(&err, rc, "image '%s'", error_quote(quoted, sizeof(quoted), own.output, strlen(own.output)));
		root_disk_close(&root);
	}
	if (rc < 0)
		message("%s", err.text);
	options_destroy(&options);
	return rc < 0 ? EXIT_TRVMM : 0;
}
