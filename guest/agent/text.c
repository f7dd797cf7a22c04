/* One-line messages without stdio: the agent is small, and its texts are names, numbers and errno. */
#include <string.h>

#include "guest/agent/agent.h"

void text_add(struct text *t, const char *s)
{
	size_t length = strlen(s);
	if (length > sizeof(t->bytes) - t->length)
		length = sizeof(t->bytes) - t->length;
	memcpy(t->bytes + t->length, s, length);
	t->length += length;
}

void text_add_number(struct text *t, unsigned long value)
{
	char digits[24];
	char *p = digits + sizeof(digits) - 1;
	*p = '\0';
	do {
		*--p = (char)('0' + value % 10);
		value /= 10;
	} while (value);
	text_add(t, p);
}

void text_add_error(struct text *t, int error)
{
	text_add(t, ": ");
	text_add(t, strerror(error));
}

_Noreturn void die(const char *what, int error)
{
	struct text why = { 0 };
	text_add(&why, what);
	if (error)
		text_add_error(&why, error);
	platform_die(&why);
}
