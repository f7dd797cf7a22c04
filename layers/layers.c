/* Layer files onto a tree: what they are is known by content. See layers.h. */
#include "layers/layers.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "layers/builder_internal.h"
#include "layers/tar_internal.h"

/* Merges the tar archive in `fd`, which the builder owns as `source`. */
static int apply_tar(struct tree_builder *builder, int fd, uint64_t size, uint32_t source, struct error *err)
{
	struct tar_reader reader;
	struct tar_entry entry;
	tar_open(&reader, fd, NULL, size);
	int ret;
	while ((ret = tar_next(&reader, &entry, err)) > 0) {
		ret = builder_merge(builder, &entry, source, err);
		if (ret) {
			char quoted[256];
			error_prefix(err, ret, "entry %llu '%s'", (unsigned long long)entry.number,
				     error_quote(quoted, sizeof(quoted), entry.path.bytes, entry.path.length));
			break;
		}
	}
	tar_close(&reader);
	return ret;
}

/* Formats that are not supported, by how they begin, so that the message can say more than "no tar archive". */
static int check_magic(int fd, struct error *err)
{
	static const struct {
		const char *magic;
		size_t length;
		const char *what;
	} formats[] = {
		{ "\x28\xb5\x2f\xfd", 4, "is compressed with zstd, which is not supported yet: unpack it with zstd -d" },
		{ "\xfd" "7zXZ", 5, "is compressed with xz, which is not supported yet: unpack it with xz -d" },
		{ "BZh", 3, "is compressed with bzip2, which is not supported yet: unpack it with bzip2 -d" },
		{ "\x1f\x8b", 2, "is compressed with gzip, which is not supported yet: unpack it with gzip -d" },
	};
	char head[8] = { 0 };
	if (pread(fd, head, sizeof(head), 0) < 0)
		return error_set(err, -errno, "cannot be read: %s", strerror(errno));
	for (size_t i = 0; i < sizeof(formats) / sizeof(formats[0]); i++) {
		if (memcmp(head, formats[i].magic, formats[i].length) == 0)
			return error_set(err, -ENOTSUP, "%s", formats[i].what);
	}
	return 0;
}

static int open_layer(const char *path, struct stat *st, struct error *err)
{
	const int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	if (fd < 0)
		return error_set(err, -errno, "%s", errno == ENOENT ? "there is no such file" : strerror(errno));
	int ret = 0;
	if (fstat(fd, st))
		ret = error_set(err, -errno, "%s", strerror(errno));
	else if (S_ISDIR(st->st_mode))
		ret = error_set(err, -EISDIR, "is a directory, which is not supported yet: pack it with tar -C DIR -cf FILE .");
	else if (!S_ISREG(st->st_mode))
		ret = error_set(err, -EINVAL, "is no regular file: a layer is read many times");
	else if (st->st_size == 0)
		ret = error_set(err, -EINVAL, "is empty");
	if (ret) {
		close(fd);
		return ret;
	}
	return fd;
}

int layers_apply_file(struct tree_builder *builder, const char *path, const char *cache_dir, struct error *err)
{
	(void)cache_dir;
	struct stat st;
	uint32_t source;
	int fd = -1;
	int ret = builder_begin_layer(builder, err);
	if (!ret)
		ret = fd = open_layer(path, &st, err);
	if (ret >= 0) {
		ret = check_magic(fd, err);
		if (!ret)
			ret = builder_add_source(builder, fd, NULL, (uint64_t)st.st_size, path, &source);
		if (ret)
			close(fd);
	}
	if (!ret)
		ret = apply_tar(builder, fd, (uint64_t)st.st_size, source, err);
	char quoted[512];
	return ret ? error_prefix(err, ret, "layer %s", error_quote(quoted, sizeof(quoted), path, strlen(path))) : 0;
}

int tree_builder_add_memory_file(struct tree_builder *builder, const char *path, uint32_t mode, const void *data, size_t length,
				 struct error *err)
{
	uint32_t source;
	int ret = builder_begin_layer(builder, err);
	if (ret)
		return ret;
	if (builder_add_source(builder, -1, data, length, path, &source))
		return error_set(err, -ENOMEM, "out of memory");
	const struct tree_extent extent = { .length = length };
	const struct tar_entry entry = {
		.path = { path, strlen(path) },
		.mode = S_IFREG | (mode & 07777),
		.size_bytes = length,
		.extents = &extent,
		.extent_count = length > 0,
	};
	ret = builder_merge(builder, &entry, source, err);
	return ret ? error_prefix(err, ret, "%s", path) : 0;
}
