/* Errors as one line of text; see error.h. */
#include "base/error.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* What a user or a file named may hold anything, and its author does not get to write lines of ours, or to a terminal's state. */
static void keep_one_line(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < 0x20 || *text == 0x7f)
			*text = '?';
}

int error_set(struct error *err, int code, const char *format, ...)
{
	if (err) {
		va_list args;
		va_start(args, format);
		vsnprintf(err->text, sizeof(err->text), format, args);
		va_end(args);
		keep_one_line(err->text);
	}
	return code;
}

int error_prefix(struct error *err, int code, const char *format, ...)
{
	if (err) {
		char before[sizeof(err->text)];
		strcpy(before, err->text);
		va_list args;
		va_start(args, format);
		vsnprintf(err->text, sizeof(err->text), format, args);
		va_end(args);
		keep_one_line(err->text);
		const size_t used = strlen(err->text);
		snprintf(err->text + used, sizeof(err->text) - used, ": %s", before);
	}
	return code;
}

static bool is_plain(unsigned char c)
{
	return c >= 0x20 && c < 0x7f && c != '\\' && c != '\'';
}

char *error_quote(char *out, size_t out_size, const char *bytes, size_t length)
{
	static const char hex[] = "0123456789abcdef";
	size_t needed = 1, used = 0;
	for (size_t i = 0; i < length && needed <= out_size; i++)
		needed += is_plain((unsigned char)bytes[i]) ? 1 : 4;
	/* Room for the end, and for the "..." when not all fits. */
	const size_t reserve = needed <= out_size ? 1 : 4;
	for (size_t i = 0; i < length; i++) {
		const unsigned char c = (unsigned char)bytes[i];
		const bool plain = is_plain(c);
		if (used + (plain ? 1 : 4) + reserve > out_size) {
			memcpy(out + used, "...", 3);
			used += 3;
			break;
		}
		if (plain) {
			out[used++] = (char)c;
		} else {
			out[used++] = '\\';
			out[used++] = 'x';
			out[used++] = hex[c >> 4];
			out[used++] = hex[c & 15];
		}
	}
	out[used] = '\0';
	return out;
}

/* Of the process, as stderr is: what a message waits, -1 for ever. */
static _Atomic int patience_ms = -1;

void message_wait_at_most(unsigned ms)
{
	atomic_store(&patience_ms, (int)ms);
}

/* Whether a line can be written without waiting for a reader. It is shorter than what a pipe or a terminal that is ready has room for. */
static bool stderr_is_ready(void)
{
	struct pollfd end = { .fd = STDERR_FILENO, .events = POLLOUT };
	const int ms = atomic_load(&patience_ms);
	if (ms < 0 || poll(&end, 1, ms) != 0)
		return true;
	/* One wait is enough. */
	atomic_store(&patience_ms, 0);
	return false;
}

void message(const char *format, ...)
{
	char line[1200] = "trvmm: ";
	const size_t prefix = strlen(line);
	va_list args;
	va_start(args, format);
	int length = vsnprintf(line + prefix, sizeof(line) - prefix - 1, format, args);
	va_end(args);
	if (length < 0)
		return;
	keep_one_line(line);
	size_t used = strlen(line);
	line[used++] = '\n';
	if (!stderr_is_ready())
		return;
	/* Nothing can be done about a stderr that does not take the line. One that is full, and not waited for, takes what it can. */
	for (size_t at = 0; at < used;) {
		const ssize_t n = write(STDERR_FILENO, line + at, used - at);
		if (n < 0 && errno != EINTR)
			return;
		at += n > 0 ? (size_t)n : 0;
	}
}

void complaints_add(struct complaints *complaints, const char *format, ...)
{
	if (!complaints || complaints->count++)
		return;
	va_list args;
	va_start(args, format);
	vsnprintf(complaints->first.text, sizeof(complaints->first.text), format, args);
	va_end(args);
	keep_one_line(complaints->first.text);
}

void complaints_print(const struct complaints *complaints, const char *prefix)
{
	if (complaints->count == 1)
		message("%s: %s", prefix, complaints->first.text);
	else if (complaints->count)
		message("%s: %s (and %llu more)", prefix, complaints->first.text, (unsigned long long)complaints->count - 1);
}
