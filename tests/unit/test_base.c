/* base/: errors as text, vectors of memory, the event loop. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/error.h"
#include "base/iov.h"
#include "base/le.h"
#include "base/loop.h"
#include "tests/unit/fake_driver.h"

/* ---- error.h ---------------------------------------------------------------------------------------------------------------- */

static const char *quote(char *out, size_t size, const char *text)
{
	return error_quote(out, size, text, strlen(text));
}

Test(error, quote_keeps_printable_ascii)
{
	char out[300], all[200];
	size_t n = 0;
	for (char c = 0x20; c < 0x7f; c++)
		if (c != '\\' && c != '\'')
			all[n++] = c;
	cr_assert_str_eq(error_quote(out, sizeof(out), all, n), (all[n] = '\0', all));
}

Test(error, quote_escapes_everything_else)
{
	char out[64];
	cr_assert_str_eq(error_quote(out, sizeof(out), "a\0\n\x1b\x7f\x80\xff\\'", 9), "a\\x00\\x0a\\x1b\\x7f\\x80\\xff\\x5c\\x27");
}

Test(error, quote_of_nothing_is_empty)
{
	char out[8] = "zzzzzzz";
	cr_assert_str_eq(error_quote(out, sizeof(out), NULL, 0), "");
}

Test(error, a_text_is_one_line_without_control_characters)
{
	struct error err = { "" };
	struct complaints complaints = { 0 };
	error_set(&err, -1, "file '%s'", "a\nb\x1b[31mc\td\x7f");
	cr_assert_str_eq(err.text, "file 'a?b?[31mc?d?'");
	error_prefix(&err, -1, "layer '%s'", "x\ry");
	cr_assert_str_eq(err.text, "layer 'x?y': file 'a?b?[31mc?d?'");
	complaints_add(&complaints, "'%s'", "a\nb");
	cr_assert_str_eq(complaints.first.text, "'a?b'");
}

Test(error, quote_that_fits_exactly_is_not_cut)
{
	char out[8];
	cr_assert_str_eq(quote(out, sizeof(out), "1234567"), "1234567");
	cr_assert_str_eq(quote(out, sizeof(out), "123\n"), "123\\x0a");
}

Test(error, quote_that_does_not_fit_ends_in_dots)
{
	char out[8];
	cr_assert_str_eq(quote(out, sizeof(out), "12345678"), "1234...");
	/* An escape is never cut in two. */
	cr_assert_str_eq(quote(out, sizeof(out), "12\n56789"), "12...");
	cr_assert_str_eq(quote(out, sizeof(out), "\n\n"), "\\x0a...");
}

Test(error, quote_never_writes_past_its_room)
{
	uint64_t seed = 1;
	for (size_t size = 8; size < 64; size++) {
		for (size_t length = 0; length < 80; length++) {
			char bytes[80], full[400];
			fake_fill(&seed, bytes, length);
			for (size_t i = 0; i < length; i++)
				if (fake_below(&seed, 2))
					bytes[i] = 'x';
			error_quote(full, sizeof(full), bytes, length);
			char *out = malloc(size); /* the sanitizer guards its end */
			cr_assert(error_quote(out, size, bytes, length) == out);
			const size_t used = strnlen(out, size);
			cr_assert(used < size, "not terminated");
			if (strlen(full) < size) {
				cr_assert_str_eq(out, full);
			} else {
				cr_assert(used >= 3 && !strcmp(out + used - 3, "..."));
				cr_assert(!strncmp(out, full, used - 3));
			}
			free(out);
		}
	}
}

Test(error, set_returns_the_code_and_cuts_a_long_text)
{
	struct error err = { "" };
	static char text[3000];
	memset(text, 'y', sizeof(text) - 1);
	cr_assert_eq(error_set(&err, -ENOENT, "%s", text), -ENOENT);
	cr_assert_eq(strlen(err.text), sizeof(err.text) - 1);
	cr_assert_eq(error_set(&err, -EIO, "disk %d", 3), -EIO);
	cr_assert_str_eq(err.text, "disk 3");
}

Test(error, null_error_only_carries_the_code)
{
	cr_assert_eq(error_set(NULL, -EIO, "x"), -EIO);
	cr_assert_eq(error_prefix(NULL, -EPERM, "x"), -EPERM);
}

Test(error, prefix_stands_before_the_text)
{
	struct error err = { "" };
	error_set(&err, -EIO, "truncated");
	cr_assert_eq(error_prefix(&err, -EIO, "entry %d", 812), -EIO);
	cr_assert_eq(error_prefix(&err, -EIO, "layer %s", "app.tar"), -EIO);
	cr_assert_str_eq(err.text, "layer app.tar: entry 812: truncated");
}

Test(error, prefix_cuts_what_is_too_long)
{
	for (size_t before = 1010; before < 1024; before++) {
		struct error err;
		memset(err.text, 'b', before);
		err.text[before] = '\0';
		error_prefix(&err, -EIO, "%0*d", (int)(before - 1000), 0);
		cr_assert(strnlen(err.text, sizeof(err.text)) < sizeof(err.text));
	}
	static char text[3000];
	memset(text, 'p', sizeof(text) - 1);
	struct error err = { "before" };
	error_prefix(&err, -EIO, "%s", text);
	cr_assert_eq(strlen(err.text), sizeof(err.text) - 1);
}

Test(error, message_is_one_line_however_long)
{
	static char text[3000], got[5000];
	int ends[2];
	memset(text, 'm', sizeof(text) - 1);
	cr_assert(pipe(ends) == 0);
	const int old = dup(STDERR_FILENO);
	dup2(ends[1], STDERR_FILENO);
	message("%s", text);
	message("n %d", 7);
	dup2(old, STDERR_FILENO);
	close(ends[1]);
	const ssize_t n = read(ends[0], got, sizeof(got) - 1);
	cr_assert(n > 1000);
	cr_assert(!strncmp(got, "trvmm: mmm", 10));
	char *line_end = strchr(got, '\n');
	cr_assert(line_end && !strcmp(line_end, "\ntrvmm: n 7\n"));
}

Test(error, message_does_not_wait_for_ever_for_a_reader, .timeout = 20)
{
	static char got[1 << 20];
	int ends[2];
	cr_assert(pipe2(ends, O_NONBLOCK | O_CLOEXEC) == 0);
	while (write(ends[1], got, 4096) > 0)
		continue;
	cr_assert_eq(fcntl(ends[1], F_SETFL, 0), 0); /* whoever writes now waits */
	const int old = dup(STDERR_FILENO);
	dup2(ends[1], STDERR_FILENO);
	message_wait_at_most(50);
	for (unsigned i = 0; i < 1000; i++) /* for which 50 s would be too long */
		message("nobody reads this %u", i);
	while (read(ends[0], got, sizeof(got)) > 0)
		continue;
	message("but this");
	dup2(old, STDERR_FILENO);
	memset(got, 0, sizeof(got));
	cr_expect(read(ends[0], got, sizeof(got)) > 0);
	cr_expect_str_eq(got, "trvmm: but this\n");
}

/* ---- le.h ------------------------------------------------------------------------------------------------------------------- */

Test(le, little_end_first)
{
	const le16 a = le16_make(0x0102);
	const le32 b = le32_make(0x01020304);
	const le64 c = le64_make(0x0102030405060708);
	cr_assert(!memcmp(a.bytes, "\x02\x01", 2) && !memcmp(b.bytes, "\x04\x03\x02\x01", 4));
	cr_assert(!memcmp(c.bytes, "\x08\x07\x06\x05\x04\x03\x02\x01", 8));
	cr_assert(le16_get(a) == 0x0102 && le32_get(b) == 0x01020304 && le64_get(c) == 0x0102030405060708);
}

/* ---- iov.h ------------------------------------------------------------------------------------------------------------------ */

#define MODEL_BYTES 300u

/* A vector with random splits, each range a heap block of its own, and the same bytes in one piece. */
struct model {
	struct iovec iov[24];
	unsigned count;
	uint8_t flat[MODEL_BYTES];
	size_t total;
};

static void model_make(struct model *model, uint64_t *seed)
{
	model->count = fake_below(seed, 25);
	model->total = 0;
	for (unsigned i = 0; i < model->count; i++) {
		/* Every third range or so is empty. */
		const size_t length = fake_below(seed, 3) ? fake_below(seed, 13) : 0;
		uint8_t *bytes = malloc(length ? length : 1);
		fake_fill(seed, bytes, length);
		memcpy(model->flat + model->total, bytes, length);
		model->total += length;
		model->iov[i] = (struct iovec){ .iov_base = bytes, .iov_len = length };
	}
}

static bool model_holds(const struct model *model)
{
	size_t at = 0;
	for (unsigned i = 0; i < model->count; i++) {
		if (memcmp(model->iov[i].iov_base, model->flat + at, model->iov[i].iov_len))
			return false;
		at += model->iov[i].iov_len;
	}
	return true;
}

static void model_free(struct model *model)
{
	for (unsigned i = 0; i < model->count; i++)
		free(model->iov[i].iov_base);
}

static size_t expected(const struct model *model, size_t offset, size_t length)
{
	if (offset >= model->total)
		return 0;
	return length < model->total - offset ? length : model->total - offset;
}

Test(iov, agrees_with_a_flat_buffer_whatever_the_splits)
{
	uint64_t seed = 2;
	for (unsigned round = 0; round < 4000; round++) {
		struct model model;
		model_make(&model, &seed);
		cr_assert_eq(iov_total(model.iov, model.count), model.total);
		const size_t offset = fake_below(&seed, (uint32_t)model.total + 4),
			     length = fake_below(&seed, (uint32_t)model.total + 9);
		const size_t want = expected(&model, offset, length);
		uint8_t buffer[MODEL_BYTES], saved[MODEL_BYTES];
		memset(buffer, 0xa5, sizeof(buffer));
		memcpy(saved, buffer, sizeof(saved));

		cr_assert_eq(iov_copy_out(model.iov, model.count, offset, buffer, length), want);
		cr_assert(!memcmp(buffer, model.flat + offset, want));
		cr_assert(!memcmp(buffer + want, saved + want, sizeof(buffer) - want), "wrote behind what there was");

		fake_fill(&seed, buffer, sizeof(buffer));
		cr_assert_eq(iov_copy_in(model.iov, model.count, offset, buffer, length), want);
		memcpy(model.flat + offset, buffer, want);
		cr_assert(model_holds(&model));

		const size_t zero_at = fake_below(&seed, (uint32_t)model.total + 4), zeroes = fake_below(&seed, 40);
		const size_t zeroed = expected(&model, zero_at, zeroes);
		cr_assert_eq(iov_zero(model.iov, model.count, zero_at, zeroes), zeroed);
		if (zeroed)
			memset(model.flat + zero_at, 0, zeroed);
		cr_assert(model_holds(&model));
		model_free(&model);
	}
}

Test(iov, slice_is_the_range_and_may_be_made_in_place)
{
	uint64_t seed = 3;
	for (unsigned round = 0; round < 4000; round++) {
		struct model model;
		model_make(&model, &seed);
		const size_t offset = fake_below(&seed, (uint32_t)model.total + 4),
			     length = fake_below(&seed, (uint32_t)model.total + 9);
		const size_t want = expected(&model, offset, length);
		struct iovec out[24], in_place[24];
		memcpy(in_place, model.iov, sizeof(in_place));
		const unsigned used = iov_slice(model.iov, model.count, offset, length, out);
		cr_assert(used <= model.count);
		cr_assert_eq(iov_total(out, used), want);
		uint8_t buffer[MODEL_BYTES];
		cr_assert_eq(iov_copy_out(out, used, 0, buffer, sizeof(buffer)), want);
		cr_assert(!memcmp(buffer, model.flat + offset, want));
		for (unsigned i = 0; i < used; i++)
			cr_assert(out[i].iov_len > 0, "an empty range in a slice");
		cr_assert_eq(iov_slice(in_place, model.count, offset, length, in_place), used);
		cr_assert(!memcmp(in_place, out, used * sizeof(out[0])));
		model_free(&model);
	}
}

Test(iov, of_no_entries_is_empty)
{
	char byte = 'x';
	cr_assert(iov_total(NULL, 0) == 0 && iov_copy_out(NULL, 0, 0, &byte, 1) == 0 && iov_copy_in(NULL, 0, 0, &byte, 1) == 0);
	cr_assert(iov_zero(NULL, 0, 0, 1) == 0 && iov_slice(NULL, 0, 0, 1, NULL) == 0);
	cr_assert(iov_pread_full(-1, NULL, 0, 0) == 0 && iov_pwrite_full(-1, NULL, 0, 0) == 0);
}

/* More entries than the kernel takes at once (IOV_MAX is 1024), some of them empty. */
#define MANY 3000

Test(iov, pwrite_and_pread_do_any_number_of_entries)
{
	static uint8_t bytes[MANY * 3], back[MANY * 3];
	static struct iovec iov[MANY];
	uint64_t seed = 4;
	const int fd = memfd_create("iov", MFD_CLOEXEC);
	size_t at = 0;
	fake_fill(&seed, bytes, sizeof(bytes));
	for (unsigned i = 0; i < MANY; i++) {
		const size_t length = fake_below(&seed, 4);
		iov[i] = (struct iovec){ .iov_base = bytes + at, .iov_len = length };
		at += length;
	}
	cr_assert_eq(iov_pwrite_full(fd, iov, MANY, 4097), 0);
	for (unsigned i = 0; i < MANY; i++)
		iov[i].iov_base = back + ((uint8_t *)iov[i].iov_base - bytes);
	cr_assert_eq(iov_pread_full(fd, iov, MANY, 4097), 0);
	cr_assert(!memcmp(bytes, back, at));
}

Test(iov, pread_up_to_ends_where_the_file_does)
{
	char bytes[8] = "--------";
	const int fd = memfd_create("short", MFD_CLOEXEC);
	cr_assert(write(fd, "abcde", 5) == 5);
	cr_assert_eq(pread_up_to(fd, bytes, 3, 0), 3);
	cr_assert_eq(pread_up_to(fd, bytes, sizeof(bytes), 1), 4);
	cr_assert(memcmp(bytes, "bcde----", 8) == 0);
	cr_assert_eq(pread_up_to(fd, bytes, sizeof(bytes), 5), 0);
	cr_assert_eq(pread_up_to(-1, bytes, 1, 0), -EBADF);
	close(fd);
}

Test(iov, pread_past_the_end_is_an_error)
{
	char bytes[8];
	const struct iovec iov = { .iov_base = bytes, .iov_len = sizeof(bytes) };
	const int fd = memfd_create("iov", MFD_CLOEXEC);
	cr_assert(ftruncate(fd, 10) == 0);
	cr_assert_eq(iov_pread_full(fd, &iov, 1, 2), 0);
	cr_assert_eq(iov_pread_full(fd, &iov, 1, 3), -EIO);
	cr_assert_eq(iov_pread_full(fd, &iov, 1, 1000), -EIO);
	cr_assert_eq(iov_pread_full(-1, &iov, 1, 0), -EBADF);
}

Test(iov, offsets_that_no_file_has_are_refused)
{
	char bytes[8] = "";
	const struct iovec iov = { .iov_base = bytes, .iov_len = sizeof(bytes) };
	const int fd = memfd_create("iov", MFD_CLOEXEC);
	cr_assert_eq(iov_pread_full(fd, &iov, 1, UINT64_MAX), -EINVAL);
	cr_assert_eq(iov_pwrite_full(fd, &iov, 1, 1ull << 63), -EINVAL);
	cr_assert(iov_pwrite_full(fd, &iov, 1, INT64_MAX - 3) < 0);
}

Test(iov, pwrite_reports_a_full_device)
{
	char bytes[8] = "";
	const struct iovec iov = { .iov_base = bytes, .iov_len = sizeof(bytes) };
	const int fd = open("/dev/full", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		cr_skip("no /dev/full");
	cr_assert_eq(iov_pwrite_full(fd, &iov, 1, 0), -ENOSPC);
}

/* ---- loop.h ----------------------------------------------------------------------------------------------------------------- */

/* An eventfd that is ready from the start; what its callback does is the test's. */
struct bell {
	struct loop_source source; /* first */
	struct loop *loop;
	struct bell *others;
	unsigned count;
	unsigned rung;
	uint32_t events;
};

static void bell_init(struct bell *bell, struct loop *loop, void (*ready)(struct loop_source *source, uint32_t events))
{
	*bell = (struct bell){ .source = { .fd = eventfd(1, EFD_CLOEXEC | EFD_NONBLOCK), .events = EPOLLIN, .ready = ready },
			       .loop = loop };
	cr_assert(bell->source.fd >= 0);
}

static void bell_silence(struct bell *bell)
{
	eventfd_t value;
	cr_assert(eventfd_read(bell->source.fd, &value) == 0);
}

static void ring_and_stop(struct loop_source *source, uint32_t events)
{
	struct bell *bell = (struct bell *)source;
	bell->rung++;
	bell->events = events;
	loop_stop(bell->loop);
}

static void ring_and_remove(struct loop_source *source, uint32_t events)
{
	struct bell *bell = (struct bell *)source;
	(void)events;
	bell->rung++;
	loop_remove(bell->loop, source);
}

/* Stops the loop at its second visit: level-triggered, so a whole round has gone by in between. */
static void stop_in_second_round(struct loop_source *source, uint32_t events)
{
	struct bell *bell = (struct bell *)source;
	(void)events;
	if (++bell->rung == 2)
		loop_stop(bell->loop);
}

Test(loop, ready_source_is_called_with_its_events)
{
	struct loop *loop = loop_create();
	struct bell bell;
	bell_init(&bell, loop, ring_and_stop);
	cr_assert_eq(loop_add(loop, &bell.source), 0);
	cr_assert_eq(loop_run(loop), 0);
	cr_assert(bell.rung == 1 && bell.events == EPOLLIN);
	loop_destroy(loop);
}

Test(loop, destroy_of_null_is_allowed)
{
	loop_destroy(NULL);
}

Test(loop, source_may_remove_itself)
{
	struct loop *loop = loop_create();
	struct bell once, end;
	bell_init(&once, loop, ring_and_remove);
	bell_init(&end, loop, stop_in_second_round);
	cr_assert(loop_add(loop, &once.source) == 0 && loop_add(loop, &end.source) == 0);
	cr_assert_eq(loop_run(loop), 0);
	cr_assert_eq(once.rung, 1);
	loop_destroy(loop);
}

Test(loop, poll_serves_what_is_ready_once_and_does_not_wait)
{
	struct loop *loop = loop_create();
	struct bell once, again;
	cr_assert_eq(loop_poll(loop), 0);
	bell_init(&once, loop, ring_and_remove);
	bell_init(&again, loop, stop_in_second_round);
	cr_assert(loop_add(loop, &once.source) == 0 && loop_add(loop, &again.source) == 0);
	cr_assert_eq(loop_poll(loop), 0);
	cr_assert(once.rung == 1 && again.rung == 1);
	bell_silence(&again);
	cr_assert_eq(loop_poll(loop), 0);
	cr_assert(once.rung == 1 && again.rung == 1);
	loop_destroy(loop);
}

/* Removes all others, and frees them. Stops the loop a round later: a stop now would drop their events by itself. */
static void remove_the_others(struct loop_source *source, uint32_t events)
{
	struct bell *bell = (struct bell *)source;
	struct bell **all = (struct bell **)bell->others;
	(void)events;
	for (unsigned i = 0; i < bell->count; i++) {
		if (all[i] == bell || !all[i])
			continue;
		loop_remove(bell->loop, &all[i]->source);
		close(all[i]->source.fd);
		memset(all[i], 0, sizeof(*all[i])); /* a call of it would crash */
		free(all[i]);
		all[i] = NULL;
	}
	if (++bell->rung == 2)
		loop_stop(bell->loop);
}

Test(loop, removed_source_with_a_pending_event_is_not_called)
{
	struct loop *loop = loop_create();
	struct bell *all[20];
	for (unsigned i = 0; i < 20; i++) {
		all[i] = malloc(sizeof(*all[i]));
		bell_init(all[i], loop, remove_the_others);
		all[i]->others = (struct bell *)all;
		all[i]->count = 20;
		cr_assert_eq(loop_add(loop, &all[i]->source), 0);
	}
	cr_assert_eq(loop_run(loop), 0);
	unsigned left = 0;
	for (unsigned i = 0; i < 20; i++) {
		if (!all[i])
			continue;
		left++;
		cr_assert_eq(all[i]->rung, 2);
		free(all[i]);
	}
	cr_assert_eq(left, 1);
	loop_destroy(loop);
}

/* The same without freeing: the pending events of the others must be gone, not only their owners. */
static void remove_the_other(struct loop_source *source, uint32_t events)
{
	struct bell *bell = (struct bell *)source;
	(void)events;
	loop_remove(bell->loop, &bell->others->source);
	if (++bell->rung == 2)
		loop_stop(bell->loop);
}

Test(loop, one_of_two_that_remove_each_other_is_called)
{
	struct loop *loop = loop_create();
	struct bell bells[2];
	for (unsigned i = 0; i < 2; i++) {
		bell_init(&bells[i], loop, remove_the_other);
		bells[i].others = &bells[1 - i];
		cr_assert_eq(loop_add(loop, &bells[i].source), 0);
	}
	cr_assert_eq(loop_run(loop), 0);
	cr_assert((bells[0].rung == 2) != (bells[1].rung == 2) && bells[0].rung + bells[1].rung == 2);
	loop_destroy(loop);
}

static void add_the_others(struct loop_source *source, uint32_t events)
{
	struct bell *bell = (struct bell *)source;
	(void)events;
	bell->rung++;
	bell_silence(bell);
	cr_assert_eq(loop_add(bell->loop, &bell->others->source), 0);
}

Test(loop, source_added_during_dispatch_is_called)
{
	struct loop *loop = loop_create();
	struct bell first, second;
	bell_init(&first, loop, add_the_others);
	bell_init(&second, loop, ring_and_stop);
	first.others = &second;
	cr_assert_eq(loop_add(loop, &first.source), 0);
	cr_assert_eq(loop_run(loop), 0);
	cr_assert(first.rung == 1 && second.rung == 1);
	loop_destroy(loop);
}

static void readd_the_other(struct loop_source *source, uint32_t events)
{
	struct bell *bell = (struct bell *)source;
	(void)events;
	bell->rung++;
	loop_remove(bell->loop, source);
	loop_remove(bell->loop, &bell->others->source);
	cr_assert_eq(loop_add(bell->loop, &bell->others->source), 0);
}

Test(loop, source_removed_and_added_again_is_called_once_for_each_round)
{
	struct loop *loop = loop_create();
	struct bell first, second;
	bell_init(&first, loop, readd_the_other);
	bell_init(&second, loop, stop_in_second_round);
	first.others = &second;
	cr_assert(loop_add(loop, &first.source) == 0 && loop_add(loop, &second.source) == 0);
	cr_assert_eq(loop_run(loop), 0);
	cr_assert(first.rung == 1 && second.rung == 2);
	loop_destroy(loop);
}

Test(loop, more_sources_than_one_batch)
{
	struct loop *loop = loop_create();
	struct bell bells[100], end;
	for (unsigned i = 0; i < 100; i++) {
		bell_init(&bells[i], loop, ring_and_remove);
		cr_assert_eq(loop_add(loop, &bells[i].source), 0);
	}
	bell_init(&end, loop, NULL);
	end.source.ready = stop_in_second_round;
	end.rung = UINT32_MAX - 8; /* at its tenth visit */
	cr_assert_eq(loop_add(loop, &end.source), 0);
	cr_assert_eq(loop_run(loop), 0);
	for (unsigned i = 0; i < 100; i++)
		cr_assert_eq(bells[i].rung, 1);
	loop_destroy(loop);
}

Test(loop, add_reports_what_cannot_be_watched)
{
	struct loop *loop = loop_create();
	struct bell bell;
	struct loop_source bad = { .fd = -1, .events = EPOLLIN };
	cr_assert_eq(loop_add(loop, &bad), -EBADF);
	bad.fd = memfd_create("file", MFD_CLOEXEC);
	cr_assert_eq(loop_add(loop, &bad), -EPERM);
	bell_init(&bell, loop, ring_and_stop);
	cr_assert_eq(loop_add(loop, &bell.source), 0);
	cr_assert_eq(loop_add(loop, &bell.source), -EEXIST);
	loop_destroy(loop);
}

Test(loop, remove_ignores_what_is_not_registered)
{
	struct loop *loop = loop_create();
	struct bell bell;
	struct loop_source never = { .fd = -1 };
	loop_remove(loop, &never);
	bell_init(&bell, loop, ring_and_stop);
	loop_remove(loop, &bell.source);
	cr_assert_eq(loop_add(loop, &bell.source), 0);
	loop_remove(loop, &bell.source);
	loop_remove(loop, &bell.source);
	cr_assert_eq(loop_modify(loop, &bell.source, EPOLLOUT), -ENOENT);
	cr_assert(bell.source.events == EPOLLIN, "events changed by a modify that failed");
	/* Nothing to change, no system call: no error either. */
	cr_assert_eq(loop_modify(loop, &bell.source, EPOLLIN), 0);
	loop_destroy(loop);
}

Test(loop, modified_source_is_watched_for_the_new_events)
{
	struct loop *loop = loop_create();
	struct bell bell;
	bell_init(&bell, loop, ring_and_stop);
	cr_assert_eq(loop_add(loop, &bell.source), 0);
	cr_assert_eq(loop_modify(loop, &bell.source, EPOLLOUT), 0);
	cr_assert(bell.source.events == EPOLLOUT);
	cr_assert_eq(loop_run(loop), 0);
	cr_assert(bell.events == EPOLLOUT);
	loop_destroy(loop);
}

Test(loop, source_without_events_still_reports_hangup)
{
	struct loop *loop = loop_create();
	struct bell bell;
	int ends[2];
	cr_assert(pipe2(ends, O_CLOEXEC) == 0);
	bell_init(&bell, loop, ring_and_stop);
	bell.source.fd = ends[0];
	bell.source.events = 0;
	cr_assert_eq(loop_add(loop, &bell.source), 0);
	close(ends[1]);
	cr_assert_eq(loop_run(loop), 0);
	cr_assert(bell.rung == 1 && bell.events == EPOLLHUP);
	loop_destroy(loop);
}

Test(loop, stop_before_run_returns_at_once)
{
	struct loop *loop = loop_create();
	loop_stop(loop);
	cr_assert_eq(loop_run(loop), 0);
	loop_destroy(loop);
}

Test(loop, stop_in_a_callback_skips_the_rest_of_the_round)
{
	struct loop *loop = loop_create();
	struct bell bells[5];
	unsigned rung = 0;
	for (unsigned i = 0; i < 5; i++) {
		bell_init(&bells[i], loop, ring_and_stop);
		cr_assert_eq(loop_add(loop, &bells[i].source), 0);
	}
	cr_assert_eq(loop_run(loop), 0);
	for (unsigned i = 0; i < 5; i++)
		rung += bells[i].rung;
	cr_assert_eq(rung, 1);
	loop_destroy(loop);
}

static void stop_loop(void *loop)
{
	loop_stop(loop);
}

static void *run_loop(void *loop)
{
	return loop_run(loop) == 0 ? loop : NULL;
}

static pthread_t start_thread(void *(*fn)(void *arg), void *arg)
{
	pthread_t thread;
	cr_assert(pthread_create(&thread, NULL, fn, arg) == 0);
	return thread;
}

static void join(pthread_t thread, const void *expected_result)
{
	void *result;
	cr_assert(pthread_join(thread, &result) == 0);
	cr_assert(result == expected_result);
}

Test(loop, stop_from_another_thread_wakes_it)
{
	struct loop *loop = loop_create();
	const pthread_t thread = start_thread(run_loop, loop);
	loop_stop(loop);
	join(thread, loop);
	loop_destroy(loop);
}

struct visit {
	struct loop *loop;
	pthread_t seen_on;
	unsigned count;
	unsigned inner;
};

static void visit_loop(void *arg)
{
	struct visit *visit = arg;
	visit->seen_on = pthread_self();
	visit->count++;
}

Test(loop, call_runs_on_the_loop_thread_and_waits)
{
	struct loop *loop = loop_create();
	struct visit visit = { .loop = loop };
	const pthread_t thread = start_thread(run_loop, loop);
	for (unsigned i = 1; i <= 100; i++) {
		loop_call(loop, visit_loop, &visit);
		cr_assert_eq(visit.count, i);
	}
	cr_assert(pthread_equal(visit.seen_on, thread));
	loop_call(loop, stop_loop, loop);
	join(thread, loop);
	loop_destroy(loop);
}

/* On the loop's thread: the inner call must be done when loop_call returns. */
static void visit_within(void *arg)
{
	struct visit *visit = arg;
	struct visit inner = { .loop = visit->loop };
	loop_call(visit->loop, visit_loop, &inner);
	visit->inner = inner.count;
	visit_loop(visit);
}

Test(loop, call_from_the_loop_thread_runs_at_once)
{
	struct loop *loop = loop_create();
	struct visit visit = { .loop = loop };
	const pthread_t thread = start_thread(run_loop, loop);
	loop_call(loop, visit_within, &visit);
	cr_assert(visit.count == 1 && visit.inner == 1);
	loop_stop(loop);
	join(thread, loop);
	loop_destroy(loop);
}

static void *call_many(void *arg)
{
	struct visit *visit = arg;
	for (unsigned i = 0; i < 200; i++)
		loop_call(visit->loop, visit_loop, visit);
	return visit;
}

Test(loop, calls_from_many_threads_never_overlap)
{
	struct loop *loop = loop_create();
	struct visit visit = { .loop = loop }; /* counted without a lock: the thread sanitizer has its say */
	pthread_t callers[4];
	const pthread_t thread = start_thread(run_loop, loop);
	for (unsigned i = 0; i < 4; i++)
		callers[i] = start_thread(call_many, &visit);
	for (unsigned i = 0; i < 4; i++)
		join(callers[i], &visit);
	cr_assert_eq(visit.count, 800);
	loop_stop(loop);
	join(thread, loop);
	loop_destroy(loop);
}

static void *call_once_then_stop(void *arg)
{
	struct visit *visit = arg;
	loop_call(visit->loop, visit_loop, visit);
	loop_call(visit->loop, stop_loop, visit->loop);
	return visit;
}

Test(loop, call_waits_for_a_loop_that_is_about_to_run)
{
	struct loop *loop = loop_create();
	struct visit visit = { .loop = loop };
	const pthread_t caller = start_thread(call_once_then_stop, &visit);
	cr_assert_eq(loop_run(loop), 0);
	join(caller, &visit);
	cr_assert(visit.count == 1 && pthread_equal(visit.seen_on, pthread_self()));
	loop_destroy(loop);
}

Test(loop, call_may_remove_a_source_whose_event_is_pending)
{
	struct loop *loop = loop_create();
	struct bell bell;
	bell_init(&bell, loop, ring_and_remove);
	cr_assert_eq(loop_add(loop, &bell.source), 0);
	const pthread_t thread = start_thread(run_loop, loop);
	struct visit visit = { .loop = loop };
	loop_call(loop, visit_loop, &visit);
	loop_call(loop, stop_loop, loop);
	join(thread, loop);
	cr_assert(bell.rung <= 1);
	loop_destroy(loop);
}
