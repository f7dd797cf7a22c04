/* Contents of layers, read when the guest reads; see tree.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/iov.h"
#include "layers/cache.h"
#include "layers/host_files_internal.h"
#include "layers/inflated_file_internal.h"
#include "layers/tree.h"

/* A look at the file costs as much as reading this takes a twentieth of; what is shorter is looked at once in a tick. */
#define LARGE_READ_BYTES ((size_t)32 << 10)

void tree_sources_free(struct tree_source *sources, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++) {
		if (sources[i].fd >= 0)
			close(sources[i].fd);
		host_files_destroy(sources[i].host);
		chunk_check_destroy(sources[i].check);
		free(sources[i].name);
	}
	free(sources);
}

/* The clock by which the kernel stamps files, too: it moves on a few hundred times a second, and costs no system call. */
static int64_t tick_ns(void)
{
	struct timespec now;
	return clock_gettime(CLOCK_MONOTONIC_COARSE, &now) ? 0 : now.tv_sec * 1000000000ll + now.tv_nsec;
}

/*
 * After a read: a write changes the time of modification before it changes the bytes, so a file that still has its time had its bytes
 * when they were read.
 */
static int check_unchanged(struct tree_source *source, size_t length, struct error *err)
{
	const int64_t now_ns = tick_ns();
	struct stat st;
	if (length < LARGE_READ_BYTES && __atomic_load_n(&source->checked_ns, __ATOMIC_RELAXED) == now_ns)
		return 0;
	if (fstat(source->fd, &st) || file_stamp(&st) != source->stamp)
		return error_set(err, -EIO, "was changed while the guest runs");
	__atomic_store_n(&source->checked_ns, now_ns, __ATOMIC_RELAXED);
	return 0;
}

static int read_file(struct tree_source *source, uint64_t offset, const struct iovec *iov, unsigned count, struct error *err)
{
	int ret = source->check ? chunk_check_range(source->check, source->fd, offset, iov_total(iov, count)) : 0;
	if (ret == -EBADMSG)
		return error_set(err, ret, "its copy in the cache is damaged at byte %llu, and is made anew at the next start",
				 (unsigned long long)offset);
	if (!ret)
		ret = iov_pread_full(source->fd, iov, count, offset);
	if (!ret)
		return source->stamp ? check_unchanged(source, iov_total(iov, count), err) : 0;
	struct stat st;
	if (fstat(source->fd, &st) == 0 && (uint64_t)st.st_size < source->size_bytes)
		return error_set(err, -EIO, "was truncated to %lld bytes while the guest runs", (long long)st.st_size);
	return error_set(err, ret, "cannot be read at byte %llu: %s", (unsigned long long)offset, strerror(-ret));
}

/* A guest can try again as often as it likes, so this is said once. */
static void complain(struct tree_source *source, const struct error *err)
{
	char quoted[512];
	const char *name = source->name ? source->name : "?";
	if (!__atomic_exchange_n(&source->complained, true, __ATOMIC_RELAXED))
		message("layer %s: %s: the guest gets an I/O error", error_quote(quoted, sizeof(quoted), name, strlen(name)),
			err->text);
}

int tree_source_readv(const struct tree *tree, uint32_t number, uint64_t offset, const struct iovec *iov, unsigned count)
{
	struct error err = { "" };
	int ret;
	if (number >= tree->source_count)
		return -EINVAL;
	struct tree_source *source = &tree->sources[number];
	if (source->fd >= 0) {
		ret = read_file(source, offset, iov, count, &err);
	} else if (source->host) {
		ret = host_files_readv(source->host, offset, iov, count, &err);
	} else {
		const size_t length = iov_total(iov, count);
		if (offset > source->size_bytes || length > source->size_bytes - offset)
			return -EIO;
		if (length)
			iov_copy_in(iov, count, 0, source->memory + offset, length);
		return 0;
	}
	if (ret)
		complain(source, &err);
	return ret;
}

size_t tree_directories(const struct tree *tree, int *fds, size_t most)
{
	size_t count = 0;
	for (uint32_t i = 0; i < tree->source_count; i++) {
		if (!tree->sources[i].host)
			continue;
		if (count < most)
			fds[count] = host_files_root(tree->sources[i].host);
		count++;
	}
	return count;
}

bool tree_is_inflated(const struct tree *tree)
{
	for (uint32_t i = 0; i < tree->source_count; i++)
		if (tree->sources[i].check)
			return true;
	return false;
}
