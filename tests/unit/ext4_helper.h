/*
 * What the ext4 tests share: trees built by hand (hand_tree.h), images written to sparse files, e2fsck as the judge.
 *
 * Included by each test file. Everything is static; a test file uses what it needs.
 */
#ifndef TRVMM_TESTS_UNIT_EXT4_HELPER_H
#define TRVMM_TESTS_UNIT_EXT4_HELPER_H

#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ext4gen/ext4gen.h"
#include "tests/unit/hand_tree.h"

/* ---- images ------------------------------------------------------------------------------------------------------------------ */

static struct ext4_plan *plan_or_fail(const struct tree *tree, const struct ext4_options *options)
{
	static const struct ext4_options none;
	struct error err = { "" };
	struct ext4_plan *plan = NULL;
	const int rc = ext4_plan_build(tree, options ? options : &none, &plan, &err);
	cr_assert(rc == 0, "plan: %d %s", rc, err.text);
	return plan;
}

static void read_or_fail(const struct ext4_plan *plan, uint64_t offset, void *to, size_t length)
{
	const struct iovec iov = { to, length };
	const int rc = ext4_plan_readv(plan, offset, &iov, 1);
	cr_assert(rc == 0, "read of %zu at %llu: %d", length, (unsigned long long)offset, rc);
}

/* A path below /tmp for this test process. */
static const char *scratch(const char *name)
{
	static char path[256];
	snprintf(path, sizeof(path), "/tmp/trvmm-ext4-%d-%s", (int)getpid(), name);
	return path;
}

/* More file contents than this are left out of a dump, for e2fsck does not look at them. */
#define DUMP_CONTENTS_MAX (1ull << 30)

/* Writes bytes [offset, end) of the disk; blocks of zeroes become holes. */
static void dump_range(const struct ext4_plan *plan, int fd, uint64_t offset, uint64_t end)
{
	enum { CHUNK = 1 << 20 };
	static uint8_t buffer[CHUNK];
	static const uint8_t zero[EXT4_BLOCK_BYTES];
	while (offset < end) {
		const size_t take = end - offset < CHUNK ? (size_t)(end - offset) : CHUNK;
		read_or_fail(plan, offset, buffer, take);
		for (size_t at = 0; at < take; at += EXT4_BLOCK_BYTES)
			if (memcmp(buffer + at, zero, EXT4_BLOCK_BYTES) != 0)
				cr_assert(pwrite(fd, buffer + at, EXT4_BLOCK_BYTES, (off_t)(offset + at)) == EXT4_BLOCK_BYTES);
		offset += take;
	}
}

/* Writes the image as a sparse file. Returns the path (static). */
static const char *dump(const struct ext4_plan *plan)
{
	const char *path = scratch("image");
	const int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	cr_assert(fd >= 0 && ftruncate(fd, (off_t)ext4_plan_size_bytes(plan)) == 0, "%s: %s", path, strerror(errno));
	uint64_t offset = 0, begin, end, next, next_end;
	while (ext4_plan_next_data(plan, offset, &begin, &end)) {
		if (ext4_plan_next_data(plan, end, &next, &next_end) || end - begin <= DUMP_CONTENTS_MAX)
			dump_range(plan, fd, begin, end);
		offset = end;
	}
	close(fd);
	return path;
}

/* Runs a shell command; its output (cut to `size`) goes to `out`. Returns the exit status. */
static int run(char *out, size_t size, const char *format, ...)
{
	char command[8192];
	va_list args;
	va_start(args, format);
	vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	FILE *pipe = popen(command, "r");
	cr_assert(pipe);
	size_t used = 0;
	char rest[4096];
	for (;;) {
		const size_t n = used + 1 < size ? fread(out + used, 1, size - used - 1, pipe) : fread(rest, 1, sizeof(rest), pipe);
		if (n == 0)
			break;
		if (used + 1 < size)
			used += n;
	}
	if (size)
		out[used] = '\0';
	const int status = pclose(pipe);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* The judge. The image stays for further looks. */
static void fsck(const char *path)
{
	static char out[65536];
	const int status = run(out, sizeof(out), "e2fsck -fn %s 2>&1", path);
	/* Some complaints do not reach the exit status; each asks and is answered. */
	cr_assert(status == 0 && !strstr(out, "? no"), "e2fsck: %d\n%s", status, out);
}

/* Plans, dumps, checks and removes. */
static void check_tree(const struct tree *tree, uint64_t size_bytes)
{
	const struct ext4_options options = { .size_bytes = size_bytes };
	struct ext4_plan *plan = plan_or_fail(tree, &options);
	const char *path = dump(plan);
	fsck(path);
	unlink(path);
	ext4_plan_destroy(plan);
}

#endif
