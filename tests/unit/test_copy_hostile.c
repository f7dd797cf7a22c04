/* guest/copy: streams that lie. */
#include "tests/unit/copy_helper.h"

TestSuite(copy_hostile, .init = set_up, .fini = clean_up, .timeout = 60);

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

Test(copy_hostile, paths_that_lead_out)
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

Test(copy_hostile, symbolic_links_are_never_followed)
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
Test(copy_hostile, a_directory_that_becomes_a_link_leads_nowhere)
{
	static struct stream stream;
	pthread_t thread;
	unsigned made = 0, stopped = 0;
	run("mkdir -p outside t/d && : >t/d/f && echo mine >outside/f && chmod 700 outside && ln -s ../outside t/swap");
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

Test(copy_hostile, devices_and_odd_types_are_refused)
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

Test(copy_hostile, malformed_records)
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

Test(copy_hostile, malformed_parts)
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

Test(copy_hostile, malformed_extended_attributes)
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

Test(copy_hostile, there_is_no_endless_stream_of_empty_files)
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

Test(copy_hostile, every_early_end_is_noticed)
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
