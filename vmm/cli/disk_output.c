/* See disk_output.h. */
#include "vmm/cli/disk_output.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/new_file.h"

/* The output must not take the place of what it is made from. */
static int check_not_a_source(const struct root_disk *root, const struct options *options, const struct stat *output,
			      struct error *err)
{
	struct stat st;
	for (uint32_t i = 0; i < root->tree->source_count; i++) {
		const int fd = root->tree->sources[i].fd;
		if (fd >= 0 && fstat(fd, &st) == 0 && st.st_dev == output->st_dev && st.st_ino == output->st_ino)
			return error_set(err, -EINVAL, "is one of the layers");
	}
	if (options->rw_disk && stat(options->rw_disk, &st) == 0 && st.st_dev == output->st_dev && st.st_ino == output->st_ino)
		return error_set(err, -EINVAL, "is the kept disk itself");
	return 0;
}

static int write_stream(int fd, disk_output_write *write, void *data, struct error *err)
{
	if (isatty(fd))
		return error_set(err, -ENOTTY, "is a terminal; give a file or a pipe");
	return write(data, fd, true, err);
}

static int write_file(const char *path, bool replaces, disk_output_write *write, void *data, struct error *err)
{
	struct new_file file;
	int rc = new_file_create(&file, path, 0666);
	if (rc)
		return error_set(err, rc, "%s", strerror(-rc));
	rc = write(data, file.fd, false, err);
	/* What takes the place of a good file has to be one, whatever happens to the machine. */
	if (rc == 0 && replaces && fdatasync(file.fd) < 0)
		rc = error_set(err, -errno, "%s", strerror(errno));
	if (rc == 0 && (rc = new_file_commit(&file, true)))
		error_set(err, rc, "%s", strerror(-rc));
	new_file_abandon(&file);
	return rc;
}

int disk_output(const char *path, const struct root_disk *root, const struct options *options, disk_output_write *write, void *data,
		struct error *err)
{
	struct stat st;
	if (!strcmp(path, "-"))
		return write_stream(STDOUT_FILENO, write, data, err);
	const bool exists = stat(path, &st) == 0;
	int rc = exists ? check_not_a_source(root, options, &st, err) : 0;
	if (rc)
		return rc;
	if (!exists || S_ISREG(st.st_mode))
		return write_file(path, exists, write, data, err);
	const int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return error_set(err, -errno, "%s", strerror(errno));
	rc = write_stream(fd, write, data, err);
	if (close(fd) < 0 && rc == 0)
		rc = error_set(err, -errno, "%s", strerror(errno));
	return rc;
}
