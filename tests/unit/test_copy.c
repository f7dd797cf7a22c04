/* guest/copy: trees through a pipe, docker's rules for the destination, ends that are silent. */
#include "tests/unit/copy_helper.h"

TestSuite(copy, .init = set_up, .fini = clean_up, .timeout = 60);

/* ---- there and back ---------------------------------------------------------------------------------------------------------- */

struct sending {
	int fd, result;
	const char *path;
	struct copy_problem problem;
};

static void *send_thread(void *data)
{
	struct sending *sending = data;
	sending->result = copy_send(sending->fd, sending->path, 0, &sending->problem);
	close(sending->fd);
	return NULL;
}

/* Returns what the receiver said, or what the sender did when that alone failed. */
static int copy_with(const char *source, const struct copy_target *target)
{
	int ends[2];
	pthread_t thread;
	cr_assert(pipe2(ends, O_CLOEXEC) == 0);
	struct sending sending = { .fd = ends[1], .path = source };
	pthread_create(&thread, NULL, send_thread, &sending);
	const int result = copy_receive(ends[0], target, &problem);
	close(ends[0]);
	pthread_join(thread, NULL);
	return sending.result && (result == -ENODATA || !result) ? sending.result : result;
}

static int copy(const char *source, const char *destination, const char *name)
{
	const struct copy_target target = {
		.destination = destination, .name = name, .contents = !*name, .owners = geteuid() == 0, .bytes_max = 1 << 20
	};
	return copy_with(source, &target);
}

#define LIST "find . -printf '%P %y %m %U %G %T@ %n %s %l\\n' | sort"

Test(copy, a_tree_keeps_its_attributes)
{
	run("mkdir -p s/d/e s/locked && echo text >s/d/f && : >s/empty && head -c 200000 /dev/urandom >s/big && ln s/big "
	    "s/d/e/twin && "
	    "ln -s /nowhere s/link && ln s/link s/d/link2 && mkfifo s/fifo && chmod 640 s/d/f && chmod 1777 s/d/e && chmod 500 "
	    "s/locked && "
	    "touch -d '1969-12-31 23:00:00.5Z' s/d/f && touch -h -d 1999-01-02 s/link && touch -d 2001-02-03T04:05:06.123456789 "
	    "s/d s");
	if (geteuid() == 0)
		run("chown 12:34 s/d/f && chown -h 56:78 s/link");
	cr_assert_eq(copy("s", "t", "s"), 0, "%s %s", problem.what, problem.path);
	run("(cd s && " LIST ") >a; (cd t && " LIST ") >b; diff a b && diff -r --no-dereference s/d t/d && cmp s/big t/big && "
	    "[ t/big -ef t/d/e/twin ] && [ $(stat -c %i t/link) = $(stat -c %i t/d/link2) ]");
}

Test(copy, where_it_goes)
{
	run("mkdir -p s/in d && echo 1 >f && echo 2 >s/in/x");
	cr_expect_eq(copy("f", "g", "f"), 0); /* a new name */
	cr_expect_eq(copy("f", "d", "f"), 0); /* into a directory */
	cr_expect_eq(copy("s", "d", "s"), 0);
	cr_expect_eq(copy("s", "new", "s"), 0); /* a new name for a directory */
	cr_expect_eq(copy("s", "new2/", "s"), 0);
	cr_expect_eq(copy("s/.", "d/", ""), 0); /* its contents */
	cr_expect_eq(copy("s/.", "new3", ""), 0);
	run("[ $(cat g d/f d/s/in/x new/in/x new2/in/x d/in/x new3/in/x | tr -d '\\n') = 1122222 ]");
	run("echo 3 >f; echo old >over; ln -s over link");
	cr_expect_eq(copy("f", "over", "f"), 0);
	cr_expect_eq(copy("f", "link", "f"), 0); /* the link is replaced, and not written through */
	run("[ $(cat over) = 3 ] && [ ! -L link ]");
	cr_expect_eq(copy("f", "none/", "f"), -ENOENT);
	cr_expect_eq(copy("f", "none/f", "f"), -ENOENT);
	cr_expect_eq(copy("f", "g/", "f"), -ENOTDIR);
	cr_expect_eq(copy("s", "g", "s"), -ENOTDIR);
	cr_expect_eq(copy("f", "/dev/null", "f"), -EEXIST);
	cr_expect_eq(copy("f", "d/..", ".."), -EINVAL);
	cr_expect_eq(copy("f", "", "f"), -ENOENT);
	cr_expect_eq(copy("missing", "x", "missing"), -ENOENT);
	run("mkdir d/f2 && : >f2");
	cr_expect_eq(copy("f2", "d", "f2"), -EISDIR);
	run("[ ! -e none ] && [ ! -e x ]");
}

Test(copy, a_link_is_copied_as_such_unless_it_is_followed)
{
	run("mkdir s && : >s/x && ln -s s l");
	cr_expect_eq(copy("l", "t", "l"), 0);
	cr_expect_eq(copy("l/", "u", "l"), 0);
	run("[ $(readlink t) = s ] && [ -e u/x ] && [ ! -L u ]");
}

Test(copy, set_id_bits_need_asking)
{
	run(": >s; chmod 6755 s");
	cr_expect_eq(copy("s", "t", "s"), 0);
	const struct copy_target target = { .destination = "u", .name = "s", .special = true, .bytes_max = 1 << 20 };
	cr_expect_eq(copy_with("s", &target), 0);
	run("[ $(stat -c %a t) = 755 ] && [ $(stat -c %a u) = 6755 ]");
}

Test(copy, size_is_bounded)
{
	run("mkdir s && head -c 600000 /dev/zero >s/a && cp s/a s/b");
	cr_expect_eq(copy("s", "t", "s"), -EFBIG);
}

/* ---- extended attributes, holes ---------------------------------------------------------------------------------------------- */

static bool has_xattr(const char *path, const char *name, const void *value, size_t length)
{
	char got[4096];
	return getxattr(path, name, got, sizeof(got)) == (ssize_t)length && !memcmp(got, value, length);
}

Test(copy, extended_attributes_of_users)
{
	char big[3000];
	memset(big, 'x', sizeof(big));
	run("mkdir -p s/d && echo >s/d/f && : >s/locked && chmod 400 s/locked");
	if (setxattr("s/d/f", "user.one", "a\0b", 3, 0) < 0)
		cr_skip_test("the file system of /tmp has no extended attributes");
	cr_assert(setxattr("s/d/f", "user.empty", "", 0, 0) == 0 && setxattr("s/d", "user.folder", big, sizeof(big), 0) == 0 &&
		  setxattr("s", "user.root", "r", 1, 0) == 0);
	const bool locked = setxattr("s/locked", "user.locked", "l", 1, 0) == 0; /* root can */
	cr_assert_eq(copy("s", "t", "s"), 0, "%s %s", problem.what, problem.path);
	cr_expect(has_xattr("t/d/f", "user.one", "a\0b", 3) && has_xattr("t/d/f", "user.empty", "", 0));
	cr_expect(has_xattr("t/d", "user.folder", big, sizeof(big)) && has_xattr("t", "user.root", "r", 1));
	cr_expect(!locked || has_xattr("t/locked", "user.locked", "l", 1));
}

Test(copy, capabilities_need_asking)
{
	/* cap_net_raw=p, revision 2 */
	static const uint8_t capability[20] = { 0, 0, 0, 2, 0, 0x20 };
	const struct copy_target target = { .destination = "u", .name = "s", .special = true, .bytes_max = 1 << 20 };
	run(": >s");
	if (setxattr("s", "security.capability", capability, sizeof(capability), 0) < 0)
		cr_skip_test("not allowed to set capabilities");
	cr_expect_eq(copy("s", "t", "s"), 0);
	cr_expect_eq(copy_with("s", &target), 0);
	cr_expect_eq(getxattr("t", "security.capability", NULL, 0), -1);
	cr_expect(has_xattr("u", "security.capability", capability, sizeof(capability)));
}

Test(copy, holes_are_kept)
{
	const struct copy_target target = { .destination = "t", .name = "s", .bytes_max = 1 << 30 };
	run("mkdir s && truncate -s 64M s/empty s/middle s/ends s/full && printf x | dd of=s/middle bs=1 seek=33000000 "
	    "conv=notrunc 2>/dev/null && "
	    "for at in 0 67100000; do printf data | dd of=s/ends bs=1 seek=$at conv=notrunc 2>/dev/null; done; "
	    "head -c 200000 /dev/urandom >s/full");
	cr_assert_eq(copy_with("s", &target), 0, "%s %s", problem.what, problem.path);
	run("diff -r s t && [ $(du -s --apparent-size t | cut -f 1) -gt 190000 ]");
	/* Where this file system has holes at all. */
	run("[ $(du -sk t | cut -f 1) -le $(($(du -sk s | cut -f 1) + 64)) ]");
	/* What the sum counts is the size. */
	const struct copy_target bounded = { .destination = "u", .name = "s", .bytes_max = 64 << 20 };
	cr_expect_eq(copy_with("s/middle", &bounded), -EFBIG);
}

/* ---- silence ----------------------------------------------------------------------------------------------------------------- */

static int64_t now_ms(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

Test(copy, a_silent_sender_is_given_up)
{
	const struct copy_target target = {
		.destination = "t", .name = "", .contents = true, .bytes_max = 1 << 20, .stall_ms = 200
	};
	int ends[2];
	cr_assert(pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
	cr_assert(write(ends[1], "\1\0\0", 3) == 3);
	const int64_t start = now_ms();
	cr_expect_eq(copy_receive(ends[0], &target, &problem), -ETIMEDOUT);
	cr_expect(now_ms() - start >= 200 && now_ms() - start < 10000);
	close(ends[0]);
	close(ends[1]);
}

Test(copy, a_receiver_that_takes_nothing_is_given_up)
{
	int ends[2];
	run("head -c 300000 /dev/zero >s");
	cr_assert(pipe2(ends, O_CLOEXEC | O_NONBLOCK) == 0);
	const int64_t start = now_ms();
	cr_expect_eq(copy_send(ends[1], "s", 200, &problem), -ETIMEDOUT);
	cr_expect(now_ms() - start >= 200 && now_ms() - start < 10000);
	close(ends[0]);
	close(ends[1]);
}

struct dribble {
	const uint8_t *bytes;
	size_t length;
	int fd;
};

static void *dribble_thread(void *data)
{
	const struct dribble *dribble = data;
	for (size_t i = 0; i < dribble->length; i++) {
		usleep(5000);
		cr_assert(write(dribble->fd, dribble->bytes + i, 1) == 1);
	}
	return NULL;
}

Test(copy, a_slow_sender_is_not_silent)
{
	const struct copy_target target = {
		.destination = "t", .name = "", .contents = true, .bytes_max = 1 << 20, .stall_ms = 1000
	};
	struct stream stream = in_directory();
	pthread_t thread;
	int ends[2];
	add(&stream, COPY_ENTRY, FILE_MODE, "file", "", "contents that come byte by byte, for longer than a sender may be silent");
	add(&stream, COPY_LEAVE, DIRECTORY, "", "", "");
	add(&stream, COPY_END, 0, "", "", "");
	cr_assert(pipe2(ends, O_CLOEXEC) == 0 && fcntl(ends[0], F_SETFL, O_NONBLOCK) == 0);
	struct dribble dribble = { stream.bytes, stream.length, ends[1] };
	const int64_t start = now_ms();
	pthread_create(&thread, NULL, dribble_thread, &dribble);
	cr_expect_eq(copy_receive(ends[0], &target, &problem), 0);
	cr_expect(now_ms() - start > 1000);
	pthread_join(thread, NULL);
	close(ends[0]);
	close(ends[1]);
}
