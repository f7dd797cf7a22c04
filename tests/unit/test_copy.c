/* guest/copy: trees through a pipe, docker's rules for the destination, and streams that lie. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
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
	sending->result = copy_send(sending->fd, sending->path, &sending->problem);
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
	const struct copy_target target = { .destination = "u", .name = "s", .special = true, .bytes_max = 1 };
	cr_expect_eq(copy_with("s", &target), 0);
	run("[ $(stat -c %a t) = 755 ] && [ $(stat -c %a u) = 6755 ]");
}

Test(copy, size_is_bounded)
{
	run("mkdir s && head -c 600000 /dev/zero >s/a && cp s/a s/b");
	cr_expect_eq(copy("s", "t", "s"), -EFBIG);
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
	const struct {
		const void *bytes;
		size_t length;
	} parts[] = { { &header, sizeof(header) }, { path, strlen(path) }, { link, strlen(link) }, { contents, strlen(contents) } };
	for (size_t i = 0; i < 4; i++) {
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
	part.length = sizeof(struct copy_header) + sizeof(struct copy_header) + 4 + 3;
	cr_expect_eq(receive(&part), -ENODATA);
	run("[ ! -e t/file ]");
}
