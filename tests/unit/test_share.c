/* vmm/share.c: what -v means, what it refuses, the order of mounts. */
#include "vmm/share.h"

#include <criterion/criterion.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct error err;

static enum fs_dax dax_of(const char *text)
{
	struct share share;
	cr_assert_eq(share_parse(text, &share, &err), 0, "%s", err.text);
	const enum fs_dax dax = share.dax;
	share_destroy(&share);
	return dax;
}

#define GOOD(TEXT, HOST, GUEST, READ_ONLY, CACHE, WRITEBACK)                                                                       \
	do {                                                                                                                       \
		struct share share;                                                                                                \
		cr_assert_eq(share_parse(TEXT, &share, &err), 0, "%s", err.text);                                                  \
		cr_expect_str_eq(share.host, HOST);                                                                                \
		cr_expect_str_eq(share.guest, GUEST);                                                                              \
		cr_expect_eq(share.read_only, READ_ONLY);                                                                          \
		cr_expect_eq(share.cache, CACHE);                                                                                  \
		cr_expect_eq(share.writeback, WRITEBACK);                                                                          \
		share_destroy(&share);                                                                                             \
	} while (0)

static void bad(const char *text, const char *word)
{
	struct share share;
	err.text[0] = '\0';
	cr_assert_lt(share_parse(text, &share, &err), 0, "%s", text);
	cr_expect(strstr(err.text, "-v") == err.text && strstr(err.text, word), "'%s' is not in: %s", word, err.text);
}

Test(share, words)
{
	GOOD("/a:/b", "/a", "/b", false, FS_CACHE_AUTO, false);
	GOOD("/a:/b:ro", "/a", "/b", true, FS_CACHE_AUTO, false);
	GOOD("/a:/b:rw", "/a", "/b", false, FS_CACHE_AUTO, false);
	GOOD("/a:/b:cache=none", "/a", "/b", false, FS_CACHE_NONE, false);
	GOOD("/a:/b:ro:cache=always", "/a", "/b", true, FS_CACHE_ALWAYS, false);
	GOOD("/a:/b:cache=auto,ro", "/a", "/b", true, FS_CACHE_AUTO, false);
	GOOD("/a:/b:cache=always,writeback", "/a", "/b", false, FS_CACHE_ALWAYS, true);
	GOOD("/:/host:ro", "/", "/host", true, FS_CACHE_AUTO, false);
}

Test(share, files_that_are_mapped)
{
	struct share shares[2] = { { .dax = FS_DAX_NEVER } };
	cr_expect_eq(dax_of("/a:/b"), FS_DAX_NEVER);
	cr_expect_eq(dax_of("/a:/b:dax"), FS_DAX_ALWAYS);
	cr_expect_eq(dax_of("/a:/b:ro,dax=inode"), FS_DAX_INODE);
	cr_expect_eq(dax_of("/a:/b:cache=always,writeback:dax"), FS_DAX_ALWAYS);
	bad("/a:/b:dax=", "dax=inode");
	bad("/a:/b:dax=x", "'dax=x' is none of");
	cr_expect(!shares_map_files(shares, 2) && !shares_map_files(NULL, 0));
	shares[1].dax = FS_DAX_INODE;
	cr_expect(shares_map_files(shares, 2) && !shares_map_files(shares, 1));
}

Test(share, host_paths_with_colons)
{
	GOOD("/a:b:/c", "/a:b", "/c", false, FS_CACHE_AUTO, false);
	GOOD("/a:/b:/c:ro", "/a:/b", "/c", true, FS_CACHE_AUTO, false);
}

Test(share, guest_paths_are_tidied)
{
	GOOD("/a:/b//c/./d/", "/a", "/b/c/d", false, FS_CACHE_AUTO, false);
	GOOD("/a:/...:ro", "/a", "/...", true, FS_CACHE_AUTO, false);
	GOOD("/a//:/.b/c..", "/a", "/.b/c..", false, FS_CACHE_AUTO, false);
}

Test(share, relative_host_paths_begin_at_the_working_directory)
{
	char here[PATH_MAX], wanted[PATH_MAX + 8];
	cr_assert(getcwd(here, sizeof(here)));
	snprintf(wanted, sizeof(wanted), "%s/x/y", here);
	GOOD("x/y/:/b", wanted, "/b", false, FS_CACHE_AUTO, false);
	snprintf(wanted, sizeof(wanted), "%s/.", here);
	GOOD(".:/b", wanted, "/b", false, FS_CACHE_AUTO, false);
}

Test(share, what_is_refused_is_named)
{
	bad("", "give HOST:GUEST");
	bad("/a", "give HOST:GUEST");
	bad("/a:b", "GUEST begins with a slash");
	bad(":/b", "give HOST:GUEST");
	bad("/a:/", "--root");
	bad("/a://./", "--root");
	bad("/a:/b/../c", "without ..");
	bad("/a:/..", "without ..");
	bad("/a:/b:", "'' is none of");
	bad("/a:/b:Z", "'Z' is none of");
	bad("/a:/b:cache=some", "'cache=some' is none of");
	bad("/a:/b:cache=always,,ro", "'' is none of");
	bad("/a:/b:roo", "'roo' is none of");
	bad("/a:/b:writeback", "cache=always,writeback");
	bad("/a:/b:cache=auto,writeback", "cache=always,writeback");
	bad("/a:/b:cache=always,writeback,ro", "cache=always,writeback");
	char longest[5000];
	memset(longest, 'x', sizeof(longest) - 1);
	longest[sizeof(longest) - 1] = '\0';
	memcpy(longest, "/a:/", 4);
	bad(longest, "at most 4095 bytes");
}

Test(share, what_lies_in_another_is_mounted_behind_it)
{
	static const char *const words[] = { "/h:/x/y/z", "/h:/a", "/h:/x/y", "/h:/x", "/h:/b/c" };
	static const char *const wanted[] = { "/a", "/x", "/b/c", "/x/y", "/x/y/z" };
	struct share shares[5];
	for (size_t i = 0; i < 5; i++)
		cr_assert_eq(share_parse(words[i], &shares[i], &err), 0);
	cr_assert_eq(shares_arrange(shares, 5, &err), 0);
	for (size_t i = 0; i < 5; i++) {
		cr_expect_str_eq(shares[i].guest, wanted[i]);
		share_destroy(&shares[i]);
	}
	cr_assert_eq(shares_arrange(NULL, 0, &err), 0);
}

Test(share, two_at_one_place_are_refused)
{
	struct share shares[2];
	cr_assert_eq(share_parse("/one:/x/y", &shares[0], &err), 0);
	cr_assert_eq(share_parse("/two:/x//y/:ro", &shares[1], &err), 0);
	cr_assert_eq(shares_arrange(shares, 2, &err), -EINVAL);
	cr_expect(strstr(err.text, "/one") && strstr(err.text, "/two") && strstr(err.text, "/x/y"), "%s", err.text);
	share_destroy(&shares[0]);
	share_destroy(&shares[1]);
}
