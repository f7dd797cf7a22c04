/*
 * `trvmm disk diff`: what the guest changed on a kept disk, as an OCI layer. The disk as the layers make it and the disk as it is now are
 * read by the same reader, so that whatever ext4 cannot hold is missing on both sides; the copy-on-write layer between them knows which
 * blocks were written, and no others are compared.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "devices/virtio-blk/disk_ext4.h"
#include "ext4read/ext4read.h"
#include "guest/agent/protocol.h"
#include "guest/copy/copy.h"
#include "layers/diff.h"
#include "vmm/cli/disk.h"
#include "vmm/cli/disk_output.h"
#include "vmm/root_disk.h"

struct diff_command {
	const char *output;
	bool help, verbose;
};

enum { OPTION_VERBOSE = OPTION_OWN };

static const struct option_row rows[] = {
	{ 'o', "output", "FILE", "the layer, a tar; '-' is standard output" },
	{ OPTION_VERBOSE, "verbose", NULL, "tell on standard error what is in it, and its diffID" },
	DISK_HELP_ROW,
};
#define ROWS (sizeof(rows) / sizeof(rows[0]))

static int take_option(void *data, int id, const char *argument, struct error *err)
{
	struct diff_command *own = data;
	if (id == 'h')
		own->help = true;
	else if (id == OPTION_VERBOSE)
		own->verbose = true;
	else if (!*argument)
		return error_set(err, -EINVAL, "--output '': give a file");
	else
		own->output = argument;
	return 0;
}

/* One of the two: a disk, opened and read. All is owned but what the reader reads from. */
struct read_disk {
	struct ext4_reader *reader;
	struct tree *tree;
	struct complaints complaints;
};

static int read_base(void *data, uint64_t offset, void *buffer, size_t length)
{
	const struct iovec iov = { buffer, length };
	return ext4_plan_readv(data, offset, &iov, 1);
}

/* The disk wants whole sectors; ext4 reads blocks but for the superblock, which is two of them, and contents, which end anywhere. */
static int read_changed(void *data, uint64_t offset, void *buffer, size_t length)
{
	struct disk *disk = data;
	const size_t rest = length % DISK_SECTOR_BYTES;
	uint8_t sector[DISK_SECTOR_BYTES];
	const struct iovec iov[] = { { buffer, length - rest }, { sector, rest ? sizeof(sector) : 0 } };
	const int rc = disk->ops->readv(disk, offset, iov, 2);
	if (rc == 0)
		memcpy((uint8_t *)buffer + (length - rest), sector, rest);
	return rc;
}

static int read_disk_open(struct read_disk *read, ext4_disk_read *source, void *data, uint64_t size_bytes, struct error *err)
{
	const int rc = ext4_reader_open(source, data, size_bytes, &read->reader, err);
	return rc ? rc : ext4_reader_tree(read->reader, &read->tree, &read->complaints, err);
}

static void read_disk_close(struct read_disk *read)
{
	ext4_reader_tree_destroy(read->tree);
	ext4_reader_close(read->reader);
}

/* What is to be compared and written. */
struct job {
	const struct root_disk *root;
	struct read_disk base, changed;
	struct diff_result result;
};

static int read_contents(void *data, uint32_t source, uint64_t offset, void *buffer, size_t length)
{
	(void)source;
	return ext4_reader_read(data, offset, buffer, length);
}

static bool is_unchanged(void *data, uint64_t offset, uint64_t length)
{
	const struct job *job = data;
	uint64_t end;
	if (ext4_reader_is_replayed(job->changed.reader, offset, length))
		return false;
	return cow_run(disk_ext4_cow(job->root->disk), offset, &end) == COW_BASE && end - offset >= length;
}

static int write_layer(void *data, int fd, bool stream, struct error *err)
{
	struct job *job = data;
	/* The agent's own, and what mkfs has in place of a layer. */
	static const char *const ignored[] = { "lost+found", AGENT_NAME, COPY_NAME, NULL };
	const struct diff_options options = { .is_unchanged = is_unchanged, .data = job, .ignored = ignored };
	const struct diff_side base = { job->base.tree, read_contents, job->base.reader };
	const struct diff_side changed = { job->changed.tree, read_contents, job->changed.reader };
	(void)stream;
	return diff_write(&base, &changed, &options, fd, &job->result, err);
}

static int make_layer(const struct diff_command *own, const struct options *options, struct job *job, struct error *err)
{
	const struct root_disk *root = job->root;
	char quoted[256];
	int rc = read_disk_open(&job->base, read_base, root->plan, root->disk->size_bytes, err);
	if (rc)
		return error_prefix(err, rc, "the disk of the layers");
	rc = read_disk_open(&job->changed, read_changed, root->disk, root->disk->size_bytes, err);
	if (rc)
		return error_prefix(err, rc, "kept disk '%s'",
				    error_quote(quoted, sizeof(quoted), options->rw_disk, strlen(options->rw_disk)));
	rc = disk_output(own->output, root, options, write_layer, job, err);
	return rc ? error_prefix(err, rc, "layer '%s'", error_quote(quoted, sizeof(quoted), own->output, strlen(own->output))) : 0;
}

static void report(const struct diff_command *own, const struct job *job)
{
	complaints_print(&job->changed.complaints, "disk diff");
	complaints_print(&job->result.complaints, "disk diff");
	if (!own->verbose)
		return;
	char hex[2 * DIFF_DIGEST_BYTES + 1];
	for (size_t i = 0; i < DIFF_DIGEST_BYTES; i++)
		snprintf(hex + 2 * i, 3, "%02x", job->result.diff_id[i]);
	message("disk diff: %llu entries and %llu whiteouts, diffID sha256:%s", (unsigned long long)job->result.entries,
		(unsigned long long)job->result.whiteouts, hex);
}

static int check(const struct diff_command *own, const struct options *options, struct error *err)
{
	char quoted[256];
	if (options->command[0])
		return error_set(err, -EINVAL, "disk diff takes options only, not '%s'; see trvmm disk diff --help",
				 error_quote(quoted, sizeof(quoted), options->command[0], strlen(options->command[0])));
	if (!options->rw_disk)
		return error_set(err, -EINVAL, "disk diff: of which disk? give the --rw-disk FILE of the run, and its --layers");
	if (!own->output)
		return error_set(err, -EINVAL, "disk diff: where to? give -o FILE, or -o - for standard output");
	return 0;
}

int disk_diff(int argc, char **argv)
{
	struct error err = { "" };
	struct options options;
	struct diff_command own = { 0 };
	struct root_disk root = { 0 };

	int rc = options_parse_disk(argc, argv, rows, ROWS, take_option, &own, &options, &err);
	if (rc == 0 && own.help) {
		disk_print_help("trvmm disk diff [OPTIONS] --rw-disk FILE -o LAYER", rows, ROWS);
	} else if (rc == 0 && (rc = check(&own, &options, &err)) == 0) {
		struct job job = { .root = &root };
		rc = root_disk_open(&options, ROOT_DISK_LOOK, &root, &err);
		if (rc == 0)
			rc = make_layer(&own, &options, &job, &err);
		if (rc == 0)
			report(&own, &job);
		read_disk_close(&job.base);
		read_disk_close(&job.changed);
		root_disk_close(&root);
	}
	if (rc < 0)
		message("%s", err.text);
	options_destroy(&options);
	return rc < 0 ? EXIT_TRVMM : 0;
}
