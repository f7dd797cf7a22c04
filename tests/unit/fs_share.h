/* A directory of the host with a FUSE server over it and a client, for tests of devices/virtio-fs. */
#ifndef TRVMM_TESTS_FS_SHARE_H
#define TRVMM_TESTS_FS_SHARE_H

#include <criterion/criterion.h>
#include <ftw.h>
#include <sys/resource.h>

#include "tests/unit/fs_client.h"

struct fs_share {
	char root[64]; /* what the test may use: the share and what lies outside of it */
	char path[80]; /* the share: "share" in there */
	struct fs_client client;
	char texts[4][4200]; /* what fs_share_path() returns, in turn */
	unsigned next_text;
};

static inline int fs_share_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)ftw;
	(void)type;
	if (S_ISDIR(st->st_mode))
		chmod(path, 0700);
	remove(path);
	return 0;
}

static inline void fs_share_make(struct fs_share *s)
{
	*s = (struct fs_share){ .root = "/var/tmp/trvmm-fs-XXXXXX" };
	umask(0);
	cr_assert(mkdtemp(s->root));
	chmod(s->root, 0755);
	snprintf(s->path, sizeof(s->path), "%s/share", s->root);
	cr_assert(mkdir(s->path, 0755) == 0);
}

static inline void fs_share_remove(struct fs_share *s)
{
	if (s->client.in)
		fsc_free(&s->client);
	nftw(s->root, fs_share_remove_one, 64, FTW_DEPTH | FTW_PHYS);
}

/* A path in the share, good for three more calls. */
static inline const char *fs_share_path(struct fs_share *s, const char *path)
{
	char *text = s->texts[s->next_text++ % 4];
	snprintf(text, sizeof(s->texts[0]), "%s/%s", s->path, path);
	return text;
}

/* An id of a file made by these tests as the guest sees it: an ordinary user is root there. */
static inline uint32_t fs_share_guest_id(uint32_t host_id)
{
	return geteuid() == 0 ? host_id : 0;
}

/* The server, before FUSE_INIT. */
static inline void fs_share_create(struct fs_share *s, struct fs_config config)
{
	struct fs_server *server;
	struct error err;
	if (!config.path)
		config.path = s->path;
	const int result = fs_server_create(&config, &server, &err);
	cr_assert(result == 0, "%s", err.text);
	cr_assert(fs_server_enter_thread() == 0);
	fsc_init(&s->client, server);
	/* Root in the guest: for whoever runs the tests he is the one whose files need nothing kept beside them. */
	s->client.uid = s->client.gid = 0;
}

static inline void fs_share_start(struct fs_share *s, struct fs_config config)
{
	fs_share_create(s, config);
	cr_assert(fsc_start(&s->client) == 0);
}

/* Makes a file of the host with the folders above it. */
static inline void fs_share_file(struct fs_share *s, const char *path, const char *content)
{
	const char *whole = fs_share_path(s, path);
	char folder[4200];
	for (const char *slash = whole + strlen(s->path) + 1; (slash = strchr(slash, '/')); slash++) {
		snprintf(folder, sizeof(folder), "%.*s", (int)(slash - whole), whole);
		mkdir(folder, 0755);
	}
	const int fd = open(whole, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	cr_assert(fd >= 0 && write(fd, content, strlen(content)) == (ssize_t)strlen(content), "%s", path);
	close(fd);
}

/* ---- the share of each test: what a suite's .init and .fini call ------------------------------------------------------------------- */

static struct fs_share share;
static struct fs_client *c; /* share.client */

static inline void fs_share_setup(void)
{
	fs_share_make(&share);
	c = &share.client;
}

static inline void fs_share_teardown(void)
{
	fs_share_remove(&share);
}

#endif
