/*
 * Errors on their way up: a negative errno for the program and one line for the person.
 *
 * Functions return 0 or -errno. Those whose failure a user has to mend also take a struct error and leave there one line that
 * names the thing and the mend ("layer app.tar: entry 812 'usr/lib/x': truncated at byte 40960"). Only main() prints it, behind
 * "trvmm: ". Text that comes from hostile input (names in a layer, an agent's words) is passed through error_quote().
 */
#ifndef TRVMM_BASE_ERROR_H
#define TRVMM_BASE_ERROR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct error {
	char text[1024]; /* one line, no trailing newline; empty: no error was set */
};

/*
 * Sets the text (printf format) and returns `code` unchanged, so that a caller writes `return error_set(err, -EINVAL, ...)`.
 * `err` may be NULL: then only the code travels. A text that is too long is cut; a control character in it, from a word that was not
 * quoted, becomes a question mark.
 */
int error_set(struct error *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Puts "PREFIX: " before the text that is already there. Returns `code`. */
int error_prefix(struct error *err, int code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/*
 * Escapes `length` bytes for printing inside quotes: anything but printable ASCII, and \ and ', becomes \xNN. The result is
 * written to `out` (always terminated; cut with "..." when it does not fit) and returned. `out_size` must be at least 8.
 */
char *error_quote(char *out, size_t out_size, const char *bytes, size_t length);

/*
 * What went wrong but did not stop the work: the first case in words, the others as a number. Hostile input can cause any amount of
 * complaints, and one line on the terminal is enough. All zero: none.
 */
struct complaints {
	struct error first;
	uint64_t count;
};

/* Notes one more; only the first one's text (printf format) is kept. NULL: nobody wants to know. */
void complaints_add(struct complaints *complaints, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* One message behind "PREFIX: ", with the number of others; none when there was no complaint. */
void complaints_print(const struct complaints *complaints, const char *prefix);

/*
 * Prints "trvmm: TEXT\n" to stderr, with one write where stderr takes all of it, so that lines of several threads do not mix. It is one
 * line, as in error_set().
 */
void message(const char *format, ...) __attribute__((format(printf, 1, 2)));

/*
 * From now on a message waits for a stderr that takes nothing for so long and no longer: it is dropped then, and so are those behind it
 * until stderr takes something again. For processes whose work must not stop because nobody reads. At first they wait for ever.
 */
void message_wait_at_most(unsigned ms);

#endif
