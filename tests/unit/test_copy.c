/* guest/copy: trees through a pipe, docker's rules for the destination, and streams that lie. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "guest/copy/copy.h"

static char folder[64]; /* the working directory of a test */
static struct copy_problem problem;

static void run(const char *command)
{
	cr_assert(system(command) == 0, "%s", command);
}

static void set_up(void)
{
	strcpy(folder, "/tmp/trvmm-copy-XXXXXX");
	cr_assert(mkdtemp(folder) && chdir(folder) == 0);
	umask(022);
	signal(SIGPIPE, SIG_IGN);
}

static void clean_up(void)
{
	char command[256];
	cr_assert(chdir("/") == 0);
	snprintf(command, sizeof(command), "chmod -R u+rwx %s; rm -rf %s", folder, folder);
	run(command);
}

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

/* ---- streams that lie -------------------------------------------------------------------------------------------------------- */

struct stream {
	uint8_t bytes[65536];
	size_t length;
};

static void add(struct stream *stream, enum copy_kind kind, unsigned mode, const char *path, const char *link, const char *contents)
{
	const struct copy_header header = { .kind = le32_make(kind),
					    .mode = le32_make(mode),
					    .path_bytes = le16_make((uint16_t)strlen(path)),
					    .link_bytes = le16_make((uint16_t)strlen(link)),
					    .size_bytes = le64_make(strlen(contents)) };
	const struct copy_part part = { .data_bytes = le64_make(strlen(contents)) };
	const struct {
		const void *bytes;
		size_t length;
	} parts[] = { { &header, sizeof(header) },
		      { path, strlen(path) },
		      { link, strlen(link) },
		      { &part, *contents ? sizeof(part) : 0 },
		      { contents, strlen(contents) } };
	for (size_t i = 0; i < 5; i++) {
		memcpy(stream->bytes + stream->length, parts[i].bytes, parts[i].length);
		stream->length += parts[i].length;
	}
}

/* Receives it into "t". */
static int receive(const struct stream *stream)
{
	const struct copy_target target = { .destination = "t", .name = "", .contents = true, .bytes_max = 1 << 20 };
	int ends[2];
	cr_assert(pipe2(ends, O_CLOEXEC) == 0);
	fcntl(ends[1], F_SETPIPE_SZ, 1 << 20);
	cr_assert(write(ends[1], stream->bytes, stream->length) == (ssize_t)stream->length);
	close(ends[1]);
	const int result = copy_receive(ends[0], &target, &problem);
	close(ends[0]);
	return result;
}

#define DIRECTORY (S_IFDIR | 0755)
#define FILE_MODE (S_IFREG | 0644)

static struct stream in_directory(void)
{
	struct stream stream = { .length = 0 };
	add(&stream, COPY_ENTRY, DIRECTORY, "", "", "");
	return stream;
}

Test(copy, paths_that_lead_out)
{
	static const char *const paths[] = { "..", "../x", "a/../../x", "/x", "a//x", "./x", "x/", "a/.", "a/..", "x/../t2", "" };
	run("mkdir outside");
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		struct stream stream = in_directory();
		add(&stream, COPY_ENTRY, DIRECTORY, "a", "", "");
		add(&stream, COPY_ENTRY, FILE_MODE, paths[i], "", "bad");
		cr_expect_eq(receive(&stream), -EBADMSG, "'%s'", paths[i]);
		stream = in_directory();
		add(&stream, COPY_ENTRY, DIRECTORY, "a", "", "");
		add(&stream, COPY_ENTRY, FILE_MODE, "file", "", "");
		add(&stream, COPY_LINK, 0, "new", paths[i], "");
		cr_expect_eq(receive(&stream), -EBADMSG, "link '%s'", paths[i]);
		if (!*paths[i])
			continue;
		stream = in_directory();
		add(&stream, COPY_LEAVE, S_IFDIR | 0777, paths[i], "", "");
		cr_expect_eq(receive(&stream), -EBADMSG, "leave '%s'", paths[i]);
	}
	run("[ \"$(ls)\" = \"$(printf 'outside\\nt')\" ] && [ -z \"$(ls outside)\" ]");
}

Test(copy, symbolic_links_are_never_followed)
{
	run("mkdir outside && echo mine >outside/file && chmod 700 outside && ln -s \"$PWD/outside\" absolute");
	static const char *const targets[] = { "../outside", "/proc/self/cwd/outside", "../absolute" };
	for (size_t i = 0; i < 3; i++) {
		struct stream stream = in_directory();
		add(&stream, COPY_ENTRY, S_IFLNK | 0777, "l", targets[i], "");
		struct stream through = stream, link = stream, leave = stream, directory = stream;
		add(&through, COPY_ENTRY, FILE_MODE, "l/file", "", "bad");
		cr_expect_eq(receive(&through), -ELOOP);
		add(&link, COPY_LINK, 0, "stolen", "l/file", "");
		cr_expect_eq(receive(&link), -ELOOP);
		add(&leave, COPY_LEAVE, S_IFDIR | 0777, "l", "", "");
		cr_expect(receive(&leave) < 0);
		add(&directory, COPY_ENTRY, DIRECTORY, "l", "", "");
		cr_expect_eq(receive(&directory), -ENOTDIR);
	}
	/* Inside the tree neither: and a file takes the place of a link. */
	struct stream stream = in_directory();
	add(&stream, COPY_ENTRY, S_IFLNK | 0777, "l", "../outside/file", "");
	add(&stream, COPY_ENTRY, FILE_MODE, "l", "", "new");
	add(&stream, COPY_END, 0, "", "", "");
	cr_expect_eq(receive(&stream), 0);
	run("[ $(cat outside/file) = mine ] && [ $(ls outside | wc -l) = 1 ] && [ $(stat -c %a outside) = 700 ] && [ $(cat t/l) = "
	    "new ] && "
	    "[ ! -e t/stolen ]");
	/* The thing itself as a link, and then something in it. */
	run("rm -r t");
	stream = (struct stream){ .length = 0 };
	add(&stream, COPY_ENTRY, S_IFLNK | 0777, "", "outside", "");
	add(&stream, COPY_ENTRY, FILE_MODE, "x", "", "bad");
	cr_expect_eq(receive(&stream), -EBADMSG);
	run("[ $(ls outside | wc -l) = 1 ]");
}

static atomic_bool racing;

static void *race_thread(void *data)
{
	(void)data;
	while (racing)
		cr_assert(renameat2(AT_FDCWD, "t/d", AT_FDCWD, "t/swap", RENAME_EXCHANGE) == 0);
	return NULL;
}

/* Somebody who may write to the destination makes a directory on the way a link, and back, all the time. */
Test(copy, a_directory_that_becomes_a_link_leads_nowhere)
{
	static struct stream stream;
	pthread_t thread;
	unsigned made = 0, stopped = 0;
	run("mkdir -p outside t/d && echo mine >outside/f && chmod 700 outside && ln -s ../outside t/swap");
	stream = in_directory();
	for (unsigned i = 0; i < 100; i++) {
		add(&stream, COPY_ENTRY, FILE_MODE, i % 2 ? "d/f" : "d/new", "", "bad");
		add(&stream, COPY_LINK, 0, i % 2 ? "d/l" : "l", "d/f", "");
		add(&stream, COPY_LEAVE, S_IFDIR | 0777, "d", "", "");
	}
	add(&stream, COPY_END, 0, "", "", "");
	racing = true;
	pthread_create(&thread, NULL, race_thread, NULL);
	for (unsigned i = 0; i < 300; i++) {
		const int result = receive(&stream);
		made += result == 0;
		stopped += result == -ELOOP || result == -EXDEV;
		cr_assert(result == 0 || result == -ELOOP || result == -ENOENT || result == -ENOTDIR || result == -EXDEV, "%d",
			  result);
	}
	racing = false;
	pthread_join(thread, NULL);
	cr_expect(stopped > 0, "the race was never met: %u came through", made);
	run("[ $(cat outside/f) = mine ] && [ $(ls outside) = f ] && [ $(stat -c %a outside) = 700 ] && [ $(stat -c %h outside/f) "
	    "= 1 ]");
}

Test(copy, devices_and_odd_types_are_refused)
{
	static const unsigned modes[] = { S_IFCHR | 0666, S_IFBLK | 0666 }, odd[] = { S_IFSOCK | 0666, 0, 0170000 };
	for (size_t i = 0; i < 2; i++) {
		struct stream stream = in_directory();
		add(&stream, COPY_ENTRY, modes[i], "x", "", "");
		cr_expect_eq(receive(&stream), -EPERM);
	}
	for (size_t i = 0; i < 3; i++) {
		struct stream stream = in_directory();
		add(&stream, COPY_ENTRY, odd[i], "x", "", "");
		cr_expect_eq(receive(&stream), -EBADMSG);
	}
	run("[ -z \"$(ls t)\" ]");
}

Test(copy, malformed_records)
{
	struct stream stream = { .length = 0 };
	cr_expect_eq(receive(&stream), -ENODATA);
	add(&stream, COPY_END, 0, "", "", "");
	cr_expect_eq(receive(&stream), -EBADMSG); /* nothing at all */
	stream.length = 0;
	add(&stream, COPY_ENTRY, FILE_MODE, "name", "", "");
	cr_expect_eq(receive(&stream), -EBADMSG); /* the first has a path */
	stream = in_directory();
	add(&stream, (enum copy_kind)4, 0, "x", "", "");
	cr_expect_eq(receive(&stream), -EBADMSG);
	stream = in_directory();
	add(&stream, COPY_ENTRY, DIRECTORY, "x", "", "contents");
	cr_expect_eq(receive(&stream), -EBADMSG);
	stream = in_directory();
	add(&stream, COPY_ENTRY, FILE_MODE, "x", "", "");
	stream.bytes[stream.length - 1] = '\0'; /* in the path */
	cr_expect_eq(receive(&stream), -EBADMSG);
	stream = in_directory();
	add(&stream, COPY_LINK, 0, "x", "x", "");
	cr_expect_eq(receive(&stream), -EBADMSG);
	struct copy_header header = { .kind = le32_make(COPY_ENTRY), .path_bytes = le16_make(UINT16_MAX) };
	stream = in_directory();
	memcpy(stream.bytes + stream.length, &header, sizeof(header));
	stream.length += sizeof(header) + 4096;
	cr_expect_eq(receive(&stream), -EBADMSG);
	header = (struct copy_header){ .kind = le32_make(COPY_LEAVE), .mtime_ns = le32_make(1000000000) };
	stream = in_directory();
	memcpy(stream.bytes + stream.length, &header, sizeof(header));
	stream.length += sizeof(header);
	cr_expect_eq(receive(&stream), -EBADMSG);
	header = (struct copy_header){ .kind = le32_make(COPY_ENTRY),
				       .mode = le32_make(FILE_MODE),
				       .size_bytes = le64_make(UINT64_MAX) };
	stream.length = 0;
	memcpy(stream.bytes, &header, sizeof(header));
	stream.length = sizeof(header);
	cr_expect_eq(receive(&stream), -EFBIG);
}

/* A file "x" with these bytes behind its path. */
static struct stream with_tail(uint32_t xattrs_bytes, uint64_t size_bytes, const void *tail, size_t length)
{
	const struct copy_header header = { .kind = le32_make(COPY_ENTRY),
					    .mode = le32_make(FILE_MODE),
					    .path_bytes = le16_make(1),
					    .size_bytes = le64_make(size_bytes),
					    .xattrs_bytes = le32_make(xattrs_bytes) };
	struct stream stream = in_directory();
	memcpy(stream.bytes + stream.length, &header, sizeof(header));
	stream.bytes[stream.length + sizeof(header)] = 'x';
	stream.length += sizeof(header) + 1;
	memcpy(stream.bytes + stream.length, tail, length);
	stream.length += length;
	return stream;
}

Test(copy, malformed_parts)
{
	static const uint64_t parts[][2] = { { 0, 0 },          { 11, 0 },         { 0, 11 },         { 5, 6 },
					     { UINT64_MAX, 1 }, { 1, UINT64_MAX }, { UINT64_MAX, 11 } };
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		const struct copy_part part = { le64_make(parts[i][0]), le64_make(parts[i][1]) };
		const struct stream stream = with_tail(0, 10, &part, sizeof(part));
		cr_expect_eq(receive(&stream), -EBADMSG, "%zu", i);
	}
	run("[ ! -e t/x ]");
}

Test(copy, malformed_extended_attributes)
{
	static const char *const bad[] = { "\1",
					   "\0\0\0\0\0\0\0\0",
					   "\7\0\0\0\0\0\0\0user.x",
					   "\6\0\0\0\1\0\0\0user.x",
					   "\6\0\0\0\377\377\377\377user.x",
					   "\377\377\0\0\0\0\0\0user.x",
					   "\6\0\0\0\0\0\0\0use\0.x" };
	static const size_t lengths[] = { 1, 8, 14, 14, 14, 14, 14 };
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		const struct stream stream = with_tail((uint32_t)lengths[i], 0, bad[i], lengths[i]);
		cr_expect_eq(receive(&stream), -EBADMSG, "%zu", i);
	}
	/* Names that are not the guest's to set. */
	static const char trusted[] = "\11\0\0\0\0\0\0\0trusted.x\23\0\0\0\0\0\0\0security.capability";
	struct stream stream = with_tail(sizeof(trusted) - 1, 0, trusted, sizeof(trusted) - 1);
	add(&stream, COPY_END, 0, "", "", "");
	cr_expect_eq(receive(&stream), 0);
	cr_expect_eq(listxattr("t/x", NULL, 0), 0);
	/* Where there are none. */
	stream = in_directory();
	const struct copy_header link = { .kind = le32_make(COPY_ENTRY),
					  .mode = le32_make(S_IFLNK | 0777),
					  .xattrs_bytes = le32_make(1) };
	memcpy(stream.bytes + stream.length, &link, sizeof(link));
	stream.length += sizeof(link) + 1;
	cr_expect_eq(receive(&stream), -EBADMSG);
	stream = with_tail(COPY_XATTRS_MAX + 1, 0, "", 0);
	cr_expect_eq(receive(&stream), -EBADMSG);
}

Test(copy, there_is_no_endless_stream_of_empty_files)
{
	static struct stream stream;
	const struct copy_target target = { .destination = "t", .name = "", .contents = true, .bytes_max = 300 * COPY_RECORD_COST };
	int ends[2];
	char name[16];
	stream = in_directory();
	for (unsigned i = 0; i < 400; i++) {
		snprintf(name, sizeof(name), "%u", i);
		add(&stream, COPY_ENTRY, FILE_MODE, name, "", "");
	}
	cr_assert(pipe2(ends, O_CLOEXEC) == 0);
	fcntl(ends[1], F_SETPIPE_SZ, 1 << 20);
	cr_assert(write(ends[1], stream.bytes, stream.length) == (ssize_t)stream.length);
	cr_expect_eq(copy_receive(ends[0], &target, &problem), -EFBIG);
	close(ends[0]);
	close(ends[1]);
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

Test(copy, every_early_end_is_noticed)
{
	struct stream whole = in_directory();
	add(&whole, COPY_ENTRY, FILE_MODE, "file", "", "contents");
	add(&whole, COPY_LEAVE, DIRECTORY, "", "", "");
	add(&whole, COPY_END, 0, "", "", "");
	struct stream part = whole;
	for (part.length = 0; part.length < whole.length; part.length++)
		cr_expect_eq(receive(&part), -ENODATA, "%zu", part.length);
	cr_expect_eq(receive(&whole), 0);
	/* Half a file is none. */
	part.length = 2 * sizeof(struct copy_header) + 4 + sizeof(struct copy_part) + 3;
	cr_expect_eq(receive(&part), -ENODATA);
	run("[ ! -e t/file ]");
}
